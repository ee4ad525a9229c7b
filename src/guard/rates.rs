//! Rate, requests in flight and bursts of each address, in bounded memory (SPEC §4.2, §5.5, §5.7).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use quick_cache::sync::Cache;

use super::gcra::{Gcra, Rate, RateDecision};
use crate::types::address::counting_prefix;
use crate::types::policy::{BurstPolicy, Mode, SecurityPolicy};

/// Addresses that are remembered; the least used are forgotten first. A quarter of what SECURITY.md §F measured at 7.8 MiB: an address
/// that does not come again within a minute has nothing to be remembered for, and a million attackers may take 20 MB in all.
const REMEMBERED: usize = 16_384;

/// What is counted for one address.
#[derive(Debug, Default)]
struct AddressCounts {
    rate: Gcra,
    in_flight: AtomicU32,
    /// Requests of the running second and minute: which one, and how many.
    second: AtomicU64,
    minute: AtomicU64,
}

/// What a request's arrival came to.
#[derive(Debug)]
pub struct Arrival {
    /// Of the address's rate.
    pub rate: RateDecision,
    /// Its place among the requests in flight, until dropped; `None` when there was none left.
    pub place: Option<InFlight>,
    /// Whether it is one too many for a client (SPEC §5.5).
    pub burst: bool,
}

/// A request in flight, until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<AddressCounts>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The counts of all addresses.
pub struct AddressRates {
    counts: Cache<IpAddr, Arc<AddressCounts>>,
    /// The first request's time: everything counts from here.
    origin: OnceLock<Instant>,
}

impl Default for AddressRates {
    fn default() -> Self {
        Self { counts: Cache::new(REMEMBERED), origin: OnceLock::new() }
    }
}

impl AddressRates {
    /// Counts one request.
    pub fn arrive(&self, policy: &SecurityPolicy, address: IpAddr, now: Instant) -> Arrival {
        let origin = *self.origin.get_or_init(|| now);
        let prefix = counting_prefix(address);
        let counts = self.counts.get(&prefix).unwrap_or_else(|| {
            let fresh = Arc::<AddressCounts>::default();
            self.counts.insert(prefix, fresh.clone());
            fresh
        });
        let rate = match policy.address_rate.mode {
            Mode::Off => RateDecision::Unlimited,
            Mode::Simulate | Mode::Enforce => {
                let limit = &policy.address_rate;
                counts.rate.take(Rate { per_minute: limit.per_minute.get(), burst: limit.burst.get() }, origin, now)
            }
        };
        let running = counts.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        // Counted already: dropping it takes it back.
        let place = InFlight(counts.clone());
        let many = policy.address_in_flight.mode != Mode::Off && running > policy.address_in_flight.most.get();
        let burst = counts.burst(&policy.rules.request_burst, now.saturating_duration_since(origin).as_secs());
        Arrival { rate, place: (!many).then_some(place), burst }
    }
}

impl AddressCounts {
    /// Whether this request fills a second or a minute up to its limit; told once for each.
    fn burst(&self, policy: &BurstPolicy, second: u64) -> bool {
        if policy.mode == Mode::Off {
            return false;
        }
        let in_second = count_in(&self.second, second);
        let in_minute = count_in(&self.minute, second / 60);
        in_second == policy.in_second.get() || in_minute == policy.in_minute.get()
    }
}

/// Counts in the running span: its number in the upper half, how many in the lower.
fn count_in(window: &AtomicU64, span: u64) -> u32 {
    let mut known = window.load(Ordering::Relaxed);
    loop {
        let (number, count) = (known >> 32, known & u64::from(u32::MAX));
        let count = if number == span { (count + 1).min(u64::from(u32::MAX)) } else { 1 };
        match window.compare_exchange_weak(known, span << 32 | count, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return u32::try_from(count).unwrap_or(u32::MAX),
            Err(newer) => known = newer,
        }
    }
}

impl std::fmt::Debug for AddressRates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressRates").field("remembered", &self.counts.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::clock::{Clock, UnixMillis};

    fn policy(text: &str) -> SecurityPolicy {
        SecurityPolicy::parse(text).expect("a policy")
    }

    fn start() -> Instant {
        Clock::stepped(UnixMillis(0)).monotonic()
    }

    #[test]
    fn addresses_of_one_slash_64_share_a_limit_and_others_do_not() {
        let (rates, now) = (AddressRates::default(), start());
        let policy = policy(r#"{"address_rate":{"per_minute":60,"burst":2}}"#);
        let take = |text: &str| rates.arrive(&policy, text.parse().expect("address"), now).rate;
        assert!(matches!(take("2001:db8::1"), RateDecision::Allowed { .. }));
        assert!(matches!(take("2001:db8::2"), RateDecision::Allowed { .. }));
        assert!(matches!(take("2001:db8::3"), RateDecision::Limited { .. }));
        assert!(matches!(take("2001:db8:0:1::1"), RateDecision::Allowed { .. }));
        assert!(matches!(take("192.0.2.1"), RateDecision::Allowed { .. }));
    }

    #[test]
    fn places_in_flight_come_back_when_requests_end() {
        let (rates, now) = (AddressRates::default(), start());
        let policy = policy(r#"{"address_in_flight":{"most":2}}"#);
        let address: IpAddr = "192.0.2.1".parse().expect("address");
        let arrive = || rates.arrive(&policy, address, now).place;
        let (one, two) = (arrive(), arrive());
        assert!(one.is_some() && two.is_some());
        assert!(arrive().is_none());
        drop(one);
        assert!(arrive().is_some());
    }

    #[test]
    fn a_burst_is_told_once_for_each_second_and_minute() {
        let (rates, now) = (AddressRates::default(), start());
        let policy =
            policy(r#"{"address_rate":{"mode":"off"},"rules":{"request_burst":{"in_second":10,"in_minute":25}}}"#);
        let address: IpAddr = "192.0.2.1".parse().expect("address");
        let bursts = |at: u64, requests: usize| {
            (0..requests).filter(|_| rates.arrive(&policy, address, now + Duration::from_secs(at)).burst).count()
        };
        assert_eq!(bursts(0, 9), 0);
        assert_eq!(bursts(1, 9), 0);
        assert_eq!(bursts(2, 7), 1, "the 25th of the minute");
        assert_eq!(bursts(61, 30), 2, "the tenth of the second and the 25th of the minute");
    }

    #[test]
    fn memory_is_bounded_whatever_the_number_of_addresses() {
        let (rates, now) = (AddressRates::default(), start());
        let policy = SecurityPolicy::default();
        for n in 0..200_000_u32 {
            rates.arrive(&policy, IpAddr::V4(n.into()), now);
        }
        assert!(rates.counts.len() <= REMEMBERED);
    }

    #[test]
    fn what_is_off_limits_nobody() {
        let now = start();
        let off = policy(
            r#"{"address_rate":{"mode":"off"},"address_in_flight":{"mode":"off","most":1},
                "rules":{"request_burst":{"mode":"off","in_second":1}}}"#,
        );
        let rates = AddressRates::default();
        let arrivals: Vec<_> = (0..5).map(|_| rates.arrive(&off, "192.0.2.1".parse().expect("address"), now)).collect();
        for arrival in &arrivals {
            assert_eq!(arrival.rate, RateDecision::Unlimited);
            assert!(arrival.place.is_some() && !arrival.burst);
        }
    }

    #[test]
    fn a_span_is_counted_from_one_whatever_was_counted_before() {
        let window = AtomicU64::new(0);
        assert_eq!([7, 7, 7, 8, 8, 7].map(|span| count_in(&window, span)), [1, 2, 3, 1, 2, 1]);
        window.store(9 << 32 | u64::from(u32::MAX), Ordering::Relaxed);
        assert_eq!(count_in(&window, 9), u32::MAX, "and never runs over");
        assert_eq!(count_in(&window, 10), 1);
    }
}
