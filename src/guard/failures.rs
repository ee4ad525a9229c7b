//! Failed authentications by address, and the ladder that they climb (SPEC §5.3).
//!
//! A failure is a presented wrong key; the same wrong key of one address counts once in a while. IPv6 counts per /64,
//! and per /48 at four times the number. What is remembered is bounded; a block lives elsewhere and is not forgotten
//! with it.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use quick_cache::sync::Cache;
use smallvec::SmallVec;

use crate::types::address::counting_prefix;
use crate::types::clock::UnixMillis;
use crate::types::policy::{FailedAuthentication, FailureStep};

/// Networks whose failures are remembered; the least used are forgotten first. With one failure each, which is what a flood from
/// many addresses leaves, about 180 bytes: 3 MB of the 20 MB that a million attackers may take (benches/flood.rs).
const REMEMBERED: usize = 16_384;
/// Wrong keys of one network that are told apart; the ladder blocks long before, unless a policy has longer steps.
const RECENT_KEYS: usize = 64;
/// How many times the number a /48 is allowed (SPEC §5.3).
const WIDE_FACTOR: u32 = 4;
/// What a block that would be for ever lasts for addresses that must not be lost (SPEC §5.3).
pub const LONGEST_FOR_OWN: Duration = Duration::from_hours(24);

/// Failures of one network.
#[derive(Debug, Default)]
struct Record {
    /// Oldest first; no more than the highest step needs.
    times: SmallVec<[UnixMillis; 2]>,
    /// Which wrong keys came lately, by a hash under a key of this process.
    keys: SmallVec<[(u64, UnixMillis); 1]>,
}

/// What a failure came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The same wrong key of this address was counted a moment ago.
    SameKey,
    /// It counts.
    Counted {
        /// Failures of the address within the window, this one included.
        failures: u32,
        /// Networks that reached a step with it.
        reached: Vec<Reached>,
        /// What must be stored: each network with its failures.
        changed: Vec<(IpNet, Vec<UnixMillis>)>,
    },
}

/// A network that reached a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Which.
    pub network: IpNet,
    /// Which step, in failures of this network.
    pub failures: u32,
    /// For how long it is to be blocked; `None` is until lifted by hand.
    pub lasting: Option<Duration>,
}

/// All failures.
pub struct Failures {
    records: Cache<IpNet, Arc<Mutex<Record>>>,
    hasher: RandomState,
}

impl Default for Failures {
    fn default() -> Self {
        Self { records: Cache::new(REMEMBERED), hasher: RandomState::new() }
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").field("networks", &self.records.len()).finish_non_exhaustive()
    }
}

impl Failures {
    /// Counts a presented wrong key.
    pub fn count(
        &self,
        policy: &FailedAuthentication,
        address: IpAddr,
        presented: &str,
        protected: bool,
        now: UnixMillis,
    ) -> Failed {
        let (narrow, wide) = networks(address);
        let key = self.hasher.hash_one(presented);
        let window = Duration::from_secs(u64::from(policy.window_hours.get()) * 3600);
        let mut outcome = None;
        let (mut reached, mut changed) = (Vec::new(), Vec::new());
        for (network, factor) in [(Some(narrow), 1), (wide, WIDE_FACTOR)] {
            let Some(network) = network else { continue };
            let record = self.record(network);
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            if factor == 1 {
                let apart = Duration::from_secs(u64::from(policy.same_key_minutes.get()) * 60);
                record.keys.retain(|(_, at)| now.since(*at) < apart);
                if record.keys.iter().any(|(known, _)| *known == key) {
                    return Failed::SameKey;
                }
                if record.keys.len() == RECENT_KEYS {
                    record.keys.remove(0);
                }
                record.keys.push((key, now));
            }
            // A clock that was set back must not keep failures for ever.
            record.times.retain(|at| now.since(*at) < window && *at <= now.plus(window));
            record.times.push(now);
            let most = policy.steps.highest().saturating_mul(factor) as usize;
            let beyond = record.times.len().saturating_sub(most);
            record.times.drain(..beyond);
            let failures = u32::try_from(record.times.len()).unwrap_or(u32::MAX);
            outcome.get_or_insert(failures);
            let step = policy.steps.as_slice().iter().find(|step| step.failures.get() * factor == failures);
            if let Some(step) = step {
                reached.push(Reached { network, failures, lasting: lasting(*step, protected) });
            }
            changed.push((network, record.times.to_vec()));
        }
        Failed::Counted { failures: outcome.unwrap_or(0), reached, changed }
    }

    /// Failures of an address within the window.
    pub fn of(&self, policy: &FailedAuthentication, address: IpAddr, now: UnixMillis) -> u32 {
        let window = Duration::from_secs(u64::from(policy.window_hours.get()) * 3600);
        self.records.get(&networks(address).0).map_or(0, |record| {
            let record = record.lock().unwrap_or_else(PoisonError::into_inner);
            let count = record.times.iter().filter(|at| now.since(**at) < window).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        })
    }

    /// Puts back what was stored.
    pub fn restore(&self, stored: Vec<(IpNet, Vec<UnixMillis>)>) {
        for (network, times) in stored {
            let record = Record { times: times.into(), keys: SmallVec::new() };
            self.records.insert(network, Arc::new(Mutex::new(record)));
        }
    }

    fn record(&self, network: IpNet) -> Arc<Mutex<Record>> {
        self.records.get(&network).unwrap_or_else(|| {
            let fresh = Arc::<Mutex<Record>>::default();
            self.records.insert(network, fresh.clone());
            fresh
        })
    }
}

fn lasting(step: FailureStep, protected: bool) -> Option<Duration> {
    match step.block_minutes {
        Some(minutes) => Some(Duration::from_secs(u64::from(minutes.get()) * 60)),
        None => protected.then_some(LONGEST_FOR_OWN),
    }
}

/// The network by which an address is counted, and for IPv6 the wider one.
fn networks(address: IpAddr) -> (IpNet, Option<IpNet>) {
    match counting_prefix(address) {
        v4 @ IpAddr::V4(_) => (IpNet::from(v4), None),
        IpAddr::V6(v6) => {
            let wide = Ipv6Addr::from(u128::from(v6) >> 80 << 80);
            (IpNet::V6(Ipv6Net::new_assert(v6, 64)), Some(IpNet::V6(Ipv6Net::new_assert(wide, 48))))
        }
    }
}

/// The network that stands for an address on the block list: itself, or its /64.
#[must_use]
pub fn network_of(address: IpAddr) -> IpNet {
    networks(address).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::is_private;

    const MINUTE: i64 = 60_000;

    /// Fails with a new wrong key each time; answers the steps that were reached.
    fn fail(failures: &Failures, address: &str, times: usize, now: i64) -> Vec<Reached> {
        let policy = FailedAuthentication::default();
        (0..times)
            .flat_map(|number| {
                let key = format!("wrong {now} {number}");
                let address = address.parse().expect("address");
                match failures.count(&policy, address, &key, is_private(address), UnixMillis(now)) {
                    Failed::Counted { reached, .. } => reached,
                    Failed::SameKey => panic!("keys differ"),
                }
            })
            .collect()
    }

    fn steps(reached: &[Reached]) -> Vec<(String, u32, Option<u64>)> {
        let minutes = |span: Duration| span.as_secs() / 60;
        reached.iter().map(|r| (r.network.to_string(), r.failures, r.lasting.map(minutes))).collect()
    }

    #[test]
    fn the_ladder_is_five_ten_twenty() {
        let failures = Failures::default();
        let reached = fail(&failures, "203.0.113.5", 25, 0);
        let network = "203.0.113.5/32".to_owned();
        assert_eq!(
            steps(&reached)[..3],
            [(network.clone(), 5, Some(30)), (network.clone(), 10, Some(1440)), (network, 20, None)]
        );
    }

    #[test]
    fn own_addresses_are_never_blocked_for_ever() {
        for address in ["127.0.0.2", "10.1.2.3", "192.168.1.1", "100.64.0.1", "fd00::1", "fe80::1", "::1"] {
            let failures = Failures::default();
            let own = network_of(address.parse().expect("address"));
            let reached = fail(&failures, address, 20, 0);
            let last = reached.into_iter().rfind(|r| r.failures == 20 && r.network == own).expect("the last step");
            assert_eq!(last.lasting, Some(LONGEST_FOR_OWN), "{address}");
        }
    }

    #[test]
    fn failures_count_for_a_day_and_not_longer() {
        let failures = Failures::default();
        assert!(fail(&failures, "203.0.113.5", 4, 0).is_empty());
        let day = 24 * 60 * MINUTE;
        assert!(fail(&failures, "203.0.113.5", 4, day).is_empty(), "the first four are over");
        assert_eq!(fail(&failures, "203.0.113.5", 1, day + 1).len(), 1);
    }

    #[test]
    fn the_same_wrong_key_counts_once_in_ten_minutes() {
        let (failures, policy) = (Failures::default(), FailedAuthentication::default());
        let count = |key: &str, address: &str, at| {
            failures.count(&policy, address.parse().expect("address"), key, false, UnixMillis(at))
        };
        assert!(matches!(count("a", "203.0.113.5", 0), Failed::Counted { failures: 1, .. }));
        assert_eq!(count("a", "203.0.113.5", 10 * MINUTE - 1), Failed::SameKey);
        assert!(matches!(count("a", "203.0.113.6", 0), Failed::Counted { failures: 1, .. }), "of one address");
        assert!(matches!(count("a", "203.0.113.5", 10 * MINUTE), Failed::Counted { failures: 2, .. }));
        assert!(matches!(count("b", "203.0.113.5", 10 * MINUTE), Failed::Counted { failures: 3, .. }));
    }

    /// Programs with old keys behind one address take turns: with a rule that only simulates, or whose first step is higher,
    /// nothing stops them.
    #[test]
    fn many_wrong_keys_in_turn_count_once_each_in_ten_minutes() {
        let (failures, policy) = (Failures::default(), FailedAuthentication::default());
        let address = "203.0.113.5".parse().expect("address");
        let counted = (0..100)
            .filter(|number| {
                let key = format!("old {}", number % 12);
                failures.count(&policy, address, &key, false, UnixMillis(*number)) != Failed::SameKey
            })
            .count();
        assert_eq!(counted, 12);
    }

    /// Case 11.
    #[test]
    fn ipv6_counts_per_64_and_per_48_at_four_times_the_number() {
        let failures = Failures::default();
        let reached: Vec<_> =
            (0..20).flat_map(|n| fail(&failures, &format!("2001:db8:1:{n:x}::{n:x}"), 1, n)).collect();
        assert_eq!(steps(&reached), [("2001:db8:1::/48".to_owned(), 20, Some(30))]);
        let failures = Failures::default();
        let reached: Vec<_> = (0..5).flat_map(|n| fail(&failures, &format!("2001:db8::{n:x}"), 1, n)).collect();
        assert_eq!(steps(&reached), [("2001:db8::/64".to_owned(), 5, Some(30))]);
    }

    #[test]
    fn what_was_stored_goes_on_where_it_was() {
        let (failures, policy) = (Failures::default(), FailedAuthentication::default());
        let address: IpAddr = "203.0.113.5".parse().expect("address");
        let mut stored = Vec::new();
        for number in 0..9 {
            if let Failed::Counted { changed, .. } =
                failures.count(&policy, address, &format!("{number}"), false, UnixMillis(number))
            {
                stored = changed;
            }
        }
        let later = Failures::default();
        later.restore(stored);
        assert_eq!(later.of(&policy, address, UnixMillis(20)), 9);
        let reached = fail(&later, "203.0.113.5", 1, 20);
        assert_eq!(steps(&reached), [("203.0.113.5/32".to_owned(), 10, Some(1440))]);
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_addresses() {
        let (failures, policy) = (Failures::default(), FailedAuthentication::default());
        for n in 0..100_000_u32 {
            failures.count(&policy, IpAddr::V4(n.into()), "wrong", false, UnixMillis(0));
        }
        assert!(failures.records.len() <= REMEMBERED);
    }

    #[test]
    fn failures_are_told_for_as_long_as_they_count() {
        let (failures, policy) = (Failures::default(), FailedAuthentication::default());
        fail(&failures, "203.0.113.5", 4, 0);
        let address: IpAddr = "203.0.113.5".parse().expect("address");
        let day = 24 * 60 * MINUTE;
        assert_eq!([day - 1, day].map(|now| failures.of(&policy, address, UnixMillis(now))), [4, 0]);
        assert_eq!(failures.of(&policy, "203.0.113.6".parse().expect("address"), UnixMillis(0)), 0);
    }

    #[test]
    fn failures_of_a_clock_that_was_days_ahead_are_forgotten() {
        let failures = Failures::default();
        let day = 24 * 60 * MINUTE;
        fail(&failures, "203.0.113.5", 4, 10 * day);
        assert_eq!(steps(&fail(&failures, "203.0.113.5", 5, 9 * day - 1)).len(), 1, "five, and not nine");
        let failures = Failures::default();
        fail(&failures, "203.0.113.5", 4, 10 * day);
        assert_eq!(fail(&failures, "203.0.113.5", 1, 9 * day).len(), 1, "one that was set back by a day keeps them");
    }

    #[test]
    fn the_oldest_of_64_wrong_keys_is_forgotten_first() {
        let (failures, policy) = (Failures::default(), FailedAuthentication::default());
        let counts = |number: usize| {
            let address = "203.0.113.5".parse().expect("address");
            failures.count(&policy, address, &format!("old {number}"), false, UnixMillis(0)) != Failed::SameKey
        };
        assert!((0..RECENT_KEYS).all(counts));
        assert!(!(0..RECENT_KEYS).any(counts));
        assert!(counts(RECENT_KEYS) && counts(0), "the first gave its place to the 65th");
        assert!(!counts(RECENT_KEYS) && !counts(2));
    }
}
