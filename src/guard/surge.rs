//! Keys that go on for minutes at many times their usual rate (SECURITY.md, case 21): once a minute the daemon hands in how many
//! requests each key has had, and [`Surges`] tells whose last minutes must be compared with what is usual, and who is told of.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::policy::KeySurge;
use crate::types::usage::{UsageSlot, UsageSums};

/// How far back the usual rate is looked for.
pub const USUAL: Duration = Duration::from_hours(7 * 24);
/// Hours with use that make a usual rate: fewer say nothing.
const HOURS: usize = 8;
/// Minutes after which a key that was told of, and went back, is told of again.
const CALM: u32 = 60;

/// Whose last minutes were all busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// Which key.
    pub key: KeyId,
    /// Requests of the quietest of these minutes.
    pub least: u64,
}

/// What is remembered of every key that was used. As many as there are keys.
#[derive(Debug, Default)]
pub struct Surges {
    keys: HashMap<KeyId, Minutes>,
}

#[derive(Debug, Default)]
struct Minutes {
    total: u64,
    recent: VecDeque<u64>,
    /// How long it has been calm since it was told of; `None` when it was not.
    calm: Option<u32>,
}

impl Surges {
    /// Takes how many requests each key has had since the start; to be called once a minute. Answers the keys that may be at it.
    pub fn minute(&mut self, totals: &BTreeMap<KeyId, u64>, policy: &KeySurge) -> Vec<Busy> {
        self.keys.retain(|key, _| totals.contains_key(key));
        let (minutes, floor) = (policy.minutes.get() as usize, u64::from(policy.least_per_minute.get()));
        let mut busy = Vec::new();
        for (key, total) in totals {
            let known = self.keys.entry(*key).or_default();
            known.recent.push_back(total.saturating_sub(known.total));
            known.total = *total;
            while known.recent.len() > minutes {
                known.recent.pop_front();
            }
            let least = known.recent.iter().min().copied().unwrap_or(0);
            if known.recent.len() == minutes && least >= floor {
                busy.push(Busy { key: *key, least });
            } else {
                known.rested();
            }
        }
        busy
    }

    /// Compares with the usual requests an hour; answers whether the operator must be told, which is once for each time.
    pub fn judge(&mut self, busy: Busy, usual_per_hour: Option<u64>, policy: &KeySurge) -> bool {
        let Some(known) = self.keys.get_mut(&busy.key) else { return false };
        let surges = usual_per_hour
            .is_some_and(|usual| busy.least.saturating_mul(60) >= usual.saturating_mul(u64::from(policy.times.get())));
        if !surges {
            known.rested();
            return false;
        }
        known.calm.replace(0).is_none()
    }
}

impl Minutes {
    /// A minute without a surge.
    fn rested(&mut self) {
        self.calm = self.calm.map(|minutes| minutes + 1).filter(|minutes| *minutes < CALM);
    }
}

/// The usual requests an hour of a key: the median of the hours before `before` in which it was used. `None` when these are too few
/// to say.
#[must_use]
pub fn usual_per_hour(usage: &[(UsageSlot, UsageSums)], key: KeyId, before: UnixMillis) -> Option<u64> {
    let mut hours: BTreeMap<UnixMillis, u64> = BTreeMap::new();
    for (slot, sums) in usage.iter().filter(|(slot, _)| slot.key == key && slot.hour < before) {
        *hours.entry(slot.hour).or_default() += sums.requests;
    }
    let mut requests: Vec<u64> = hours.into_values().filter(|requests| *requests > 0).collect();
    requests.sort_unstable();
    (requests.len() >= HOURS).then(|| requests[requests.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ids::EngineId;

    fn key(text: &str) -> KeyId {
        KeyId::parse(text).expect("an id")
    }

    fn policy() -> KeySurge {
        KeySurge::default()
    }

    struct Case {
        surges: Surges,
        total: u64,
        usual: Option<u64>,
    }

    impl Case {
        /// Minutes with so many requests each; how often the operator was told.
        fn minutes(&mut self, count: usize, requests: u64) -> usize {
            (0..count)
                .filter(|_| {
                    self.total += requests;
                    let totals = [(key("Ab12Cd34"), self.total), (key("Zz12Cd34"), 7)].into();
                    let busy = self.surges.minute(&totals, &policy());
                    busy.into_iter().any(|busy| self.surges.judge(busy, self.usual, &policy()))
                })
                .count()
        }
    }

    /// Case 21.
    #[test]
    fn given_a_key_at_ten_times_its_usual_rate_for_five_minutes_then_it_is_told_once() {
        // Six a minute are usual.
        let mut case = Case { surges: Surges::default(), total: 0, usual: Some(360) };
        assert_eq!(case.minutes(30, 6), 0);
        assert_eq!(case.minutes(4, 60), 0, "not yet five minutes");
        assert_eq!(case.minutes(1, 60), 1);
        assert_eq!(case.minutes(600, 80), 0, "no storm: it was told");
        assert_eq!(case.minutes(10, 6), 0);
        assert_eq!(case.minutes(10, 60), 0, "a short rest is no new time");
        assert_eq!(case.minutes(70, 6), 0);
        assert_eq!(case.minutes(10, 60), 1, "a new time");
    }

    #[test]
    fn nine_times_the_rate_a_pause_a_seldom_used_key_and_a_new_one_are_nothing() {
        let mut case = Case { surges: Surges::default(), total: 0, usual: Some(360) };
        assert_eq!(case.minutes(60, 59), 0, "less than ten times");
        for _ in 0..20 {
            assert_eq!(case.minutes(4, 200) + case.minutes(1, 20), 0, "never five minutes in a row");
        }
        let mut seldom = Case { surges: Surges::default(), total: 0, usual: Some(2) };
        assert_eq!(seldom.minutes(60, 20), 0, "a person at a keyboard");
        let mut new = Case { surges: Surges::default(), total: 0, usual: None };
        assert_eq!(new.minutes(60, 1000), 0, "nothing is known of it");
    }

    /// SECURITY.md, case 21: the last seven days.
    #[test]
    fn the_usual_rate_is_looked_for_in_a_week() {
        assert_eq!(USUAL.as_secs(), 604_800);
    }

    #[test]
    fn the_usual_rate_is_the_median_of_the_hours_with_use() {
        let slot = |hour: i64, of: &str, model: &str| UsageSlot {
            hour: UnixMillis(hour),
            key: key(of),
            model: model.into(),
            engine: EngineId::parse("ollama").expect("id"),
        };
        let sums = |requests| UsageSums { requests, ..UsageSums::default() };
        let mut usage: Vec<_> =
            (0..9).map(|hour| (slot(hour, "Ab12Cd34", "a"), sums(10 + hour.unsigned_abs()))).collect();
        usage.push((slot(4, "Ab12Cd34", "b"), sums(1000)));
        usage.push((slot(50, "Ab12Cd34", "a"), sums(1_000_000)));
        usage.push((slot(20, "Ab12Cd34", "a"), sums(0)));
        let usual = |before| usual_per_hour(&usage, key("Ab12Cd34"), UnixMillis(before));
        assert_eq!(usual(50), Some(15), "what goes on now is no part of it");
        assert_eq!(usual(7), None, "too few hours");
        assert_eq!(usual_per_hour(&usage, key("Zz12Cd34"), UnixMillis(50)), None);
    }
}
