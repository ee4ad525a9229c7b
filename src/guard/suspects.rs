//! Scores of addresses that met a rule, and what they lead to (SPEC §5.4 to §5.6).
//!
//! Only addresses that met a rule stand here, so that a flood of plain requests from elsewhere pushes no score out.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::Cache;

use crate::types::address::counting_prefix;
use crate::types::clock::UnixMillis;
use crate::types::policy::{CountingPolicy, Mode, RuleName, SecurityPolicy};

/// Addresses whose score is remembered; the least used are forgotten first. About 400 bytes each.
const REMEMBERED: usize = 16_384;
/// Things of one address that are counted apart within a minute, for each rule: what one rule counts pushes out nothing
/// of another's.
const COUNTED_APART: usize = 16;

/// A rule that was met, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: RuleName,
    /// Where and what, for people; may quote outside text.
    pub evidence: String,
}

impl Finding {
    /// A rule that was met.
    #[must_use]
    pub fn new(rule: RuleName, evidence: impl Into<String>) -> Self {
        Self { rule, evidence: evidence.into() }
    }
}

/// A finding that counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// What was found.
    pub finding: Finding,
    /// Points that it added.
    pub points: u32,
    /// Score of the address after it.
    pub score: u32,
    /// Whether the rule only simulates: then the score is the one that it would have.
    pub simulated: bool,
}

/// How far a score went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// Worth a line.
    Logged,
    /// Worth a warning.
    Warned,
    /// Worth a block of this length.
    Blocked(Duration),
}

/// What findings came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Those that counted.
    pub scored: Vec<Scored>,
    /// The highest step that was reached just now by rules that act.
    pub reached: Reached,
    /// The same with the rules that simulate.
    pub would_reach: Reached,
}

/// How the score of an address came about.
#[derive(Debug, Default)]
struct Suspect {
    /// Of the rules that act.
    acting: Score,
    /// Of all rules, those that simulate included.
    all: Score,
    /// Hits of each rule in the running minute.
    hits: [Hits; RuleName::ALL.len()],
    /// What was counted in the running minute: which rule, what, how often.
    counted: VecDeque<Counted>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Score {
    points: u32,
    /// When it was halved last, or began.
    since: UnixMillis,
}

#[derive(Debug, Default, Clone, Copy)]
struct Hits {
    minute: i64,
    count: u32,
}

#[derive(Debug)]
struct Counted {
    rule: RuleName,
    /// What it was, by a hash under a key of this process.
    what: u64,
    minute: i64,
    count: u32,
}

impl Score {
    /// Halves it for every half-life that has passed, then adds.
    fn add(&mut self, points: u32, half_life: Duration, now: UnixMillis) -> u32 {
        self.settle(half_life, now);
        self.points = self.points.saturating_add(points);
        self.points
    }

    fn settle(&mut self, half_life: Duration, now: UnixMillis) {
        if self.points == 0 {
            self.since = now;
            return;
        }
        let lives = now.since(self.since).as_millis() / half_life.as_millis().max(1);
        let lives = u32::try_from(lives).unwrap_or(u32::MAX);
        if lives > 0 {
            self.points = self.points.checked_shr(lives).unwrap_or(0);
            self.since = self.since.plus(half_life.saturating_mul(lives));
        }
    }
}

/// All scores.
pub struct Suspects {
    known: Cache<IpAddr, Arc<Mutex<Suspect>>>,
    hasher: RandomState,
}

impl Default for Suspects {
    fn default() -> Self {
        Self { known: Cache::new(REMEMBERED), hasher: RandomState::new() }
    }
}

impl std::fmt::Debug for Suspects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suspects").field("addresses", &self.known.len()).finish_non_exhaustive()
    }
}

impl Suspects {
    /// Adds findings to the score of an address. A rule that is off, or had its hits of this minute, adds nothing.
    pub fn add(&self, policy: &SecurityPolicy, address: IpAddr, findings: Vec<Finding>, now: UnixMillis) -> Outcome {
        let suspect = self.suspect(address);
        let mut suspect = lock(&suspect);
        let ladder = &policy.score;
        let half_life = Duration::from_secs(u64::from(ladder.half_life_minutes.get()) * 60);
        let mut outcome = Outcome { scored: Vec::new(), reached: Reached::Logged, would_reach: Reached::Logged };
        for finding in findings {
            let scoring = policy.rules.scoring(finding.rule);
            if scoring.mode == Mode::Off || !suspect.counts(finding.rule, scoring.per_minute, now) {
                continue;
            }
            let all = suspect.all.add(scoring.points, half_life, now);
            outcome.would_reach = outcome.would_reach.max(step(policy, all));
            let simulated = scoring.mode == Mode::Simulate;
            let score = if simulated {
                all
            } else {
                let acting = suspect.acting.add(scoring.points, half_life, now);
                outcome.reached = outcome.reached.max(step(policy, acting));
                acting
            };
            outcome.scored.push(Scored { finding, points: scoring.points, score, simulated });
        }
        outcome
    }

    /// Counts something towards a rule; answers how often it happened when that makes a hit.
    pub fn count(
        &self,
        policy: &CountingPolicy,
        rule: RuleName,
        address: IpAddr,
        what: &[u8],
        now: UnixMillis,
    ) -> Option<u32> {
        if policy.mode == Mode::Off {
            return None;
        }
        let suspect = self.suspect(address);
        let mut suspect = lock(&suspect);
        let what = self.hasher.hash_one(what);
        let minute = minute(now);
        suspect.counted.retain(|counted| counted.minute == minute);
        let known = suspect.counted.iter_mut().find(|counted| counted.rule == rule && counted.what == what);
        let count = if let Some(counted) = known {
            counted.count = counted.count.saturating_add(1);
            counted.count
        } else {
            let of_rule = suspect.counted.iter().filter(|counted| counted.rule == rule).count();
            if of_rule >= COUNTED_APART
                && let Some(oldest) = suspect.counted.iter().position(|counted| counted.rule == rule)
            {
                suspect.counted.remove(oldest);
            }
            suspect.counted.push_back(Counted { rule, what, minute, count: 1 });
            1
        };
        count.is_multiple_of(policy.times.get()).then_some(count)
    }

    /// The score of an address now.
    pub fn score(&self, policy: &SecurityPolicy, address: IpAddr, now: UnixMillis) -> u32 {
        let half_life = Duration::from_secs(u64::from(policy.score.half_life_minutes.get()) * 60);
        self.known.get(&counting_prefix(address)).map_or(0, |suspect| {
            let mut suspect = lock(&suspect);
            suspect.acting.settle(half_life, now);
            suspect.acting.points
        })
    }

    fn suspect(&self, address: IpAddr) -> Arc<Mutex<Suspect>> {
        let prefix = counting_prefix(address);
        self.known.get(&prefix).unwrap_or_else(|| {
            let fresh = Arc::<Mutex<Suspect>>::default();
            self.known.insert(prefix, fresh.clone());
            fresh
        })
    }
}

impl Suspect {
    /// Whether a hit of this rule still counts in this minute; counts it if so.
    fn counts(&mut self, rule: RuleName, per_minute: u32, now: UnixMillis) -> bool {
        let index = RuleName::ALL.iter().position(|known| *known == rule).unwrap_or(0);
        let hits = &mut self.hits[index];
        // The first hit of an address that was never seen must not look like one of minute 0.
        let minute = minute(now) + 1;
        if hits.minute != minute {
            *hits = Hits { minute, count: 0 };
        }
        hits.count += 1;
        hits.count <= per_minute
    }
}

fn minute(now: UnixMillis) -> i64 {
    now.0.div_euclid(60_000)
}

fn step(policy: &SecurityPolicy, score: u32) -> Reached {
    let ladder = &policy.score;
    let minutes = |minutes: u32| Duration::from_secs(u64::from(minutes) * 60);
    if score >= ladder.long_block_at.get() {
        Reached::Blocked(minutes(ladder.long_block_minutes.get()))
    } else if score >= ladder.block_at.get() {
        Reached::Blocked(minutes(ladder.block_minutes.get()))
    } else if score >= ladder.warn_at.get() {
        Reached::Warned
    } else {
        Reached::Logged
    }
}

fn lock(suspect: &Mutex<Suspect>) -> MutexGuard<'_, Suspect> {
    suspect.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: Duration = Duration::from_hours(1);

    struct Case {
        suspects: Suspects,
        policy: SecurityPolicy,
    }

    impl Case {
        fn new(policy: &str) -> Self {
            Self { suspects: Suspects::default(), policy: SecurityPolicy::parse(policy).expect("a policy") }
        }

        fn hit(&self, rule: RuleName, at: i64) -> Outcome {
            let address = "203.0.113.5".parse().expect("address");
            self.suspects.add(&self.policy, address, vec![Finding::new(rule, "x")], UnixMillis(at))
        }
    }

    #[test]
    fn five_hits_of_twenty_points_block_for_an_hour() {
        let case = Case::new("{}");
        let reached: Vec<_> = (0..5).map(|n| case.hit(RuleName::SqlInjection, n).reached).collect();
        use Reached::{Blocked, Logged, Warned};
        assert_eq!(reached, [Logged, Logged, Warned, Warned, Blocked(HOUR)]);
        assert!(case.hit(RuleName::SqlInjection, 6).scored.is_empty(), "at most five times a minute");
        let next: Vec<_> = (0..5).map(|n| case.hit(RuleName::SqlInjection, MINUTE + n).reached).collect();
        assert_eq!(next[4], Blocked(24 * HOUR), "200 points");
    }

    #[test]
    fn a_score_is_halved_every_ten_minutes() {
        let case = Case::new("{}");
        for n in 0..4 {
            case.hit(RuleName::PathTraversal, n);
        }
        let address = "203.0.113.5".parse().expect("address");
        let score = |at| case.suspects.score(&case.policy, address, UnixMillis(at));
        assert_eq!(score(10 * MINUTE - 1), 80);
        assert_eq!(score(10 * MINUTE), 40);
        assert_eq!(score(20 * MINUTE), 20);
        assert_eq!(score(24 * 60 * MINUTE), 0);
        assert_eq!(case.hit(RuleName::PathTraversal, 25 * 60 * MINUTE).scored[0].score, 20);
    }

    #[test]
    fn missing_agent_and_unusual_method_count_once_a_minute() {
        let case = Case::new("{}");
        for (rule, points) in [(RuleName::MissingAgent, 5), (RuleName::UnusualMethod, 10)] {
            assert_eq!(case.hit(rule, 0).scored[0].points, points);
            assert!(case.hit(rule, 1).scored.is_empty());
            assert_eq!(case.hit(rule, MINUTE).scored.len(), 1);
        }
    }

    #[test]
    fn a_rule_that_simulates_scores_apart_and_one_that_is_off_not_at_all() {
        let case = Case::new(r#"{"rules":{"sql_injection":{"mode":"simulate"},"honeypot":{"mode":"off"}}}"#);
        for n in 0..4 {
            let outcome = case.hit(RuleName::SqlInjection, n);
            assert!(outcome.scored[0].simulated);
            assert_eq!(outcome.reached, Reached::Logged);
        }
        let outcome = case.hit(RuleName::PathTraversal, 5);
        assert_eq!((outcome.scored[0].score, outcome.scored[0].simulated), (20, false));
        assert_eq!((outcome.reached, outcome.would_reach), (Reached::Logged, Reached::Blocked(HOUR)));
        assert!(case.hit(RuleName::Honeypot, 6).scored.is_empty());
    }

    #[test]
    fn things_are_counted_within_their_minute_and_apart() {
        let case = Case::new("{}");
        let address = "203.0.113.5".parse().expect("address");
        let policy = case.policy.rules.unknown_endpoint;
        let count = |what: &str, at| {
            case.suspects.count(&policy, RuleName::UnknownEndpoint, address, what.as_bytes(), UnixMillis(at))
        };
        assert!((0..4).all(|n| count("/x", n).is_none()));
        assert_eq!(count("/y", 4), None);
        assert_eq!(count("/x", 5), Some(5));
        assert!((0..4).all(|n| count("/x", n).is_none()));
        assert_eq!(count("/x", 6), Some(10));
        assert!((0..4).all(|n| count("/x", MINUTE + n).is_none()), "a new minute begins anew");
    }

    #[test]
    fn many_different_paths_do_not_hide_how_many_they_are() {
        let case = Case::new("{}");
        let address = "203.0.113.5".parse().expect("address");
        let rules = &case.policy.rules;
        let mut hits = 0;
        for n in 0..100_i64 {
            let path = format!("/{n}");
            let now = UnixMillis(n);
            case.suspects.count(&rules.unknown_endpoint, RuleName::UnknownEndpoint, address, path.as_bytes(), now);
            hits += usize::from(
                case.suspects.count(&rules.many_not_found, RuleName::ManyNotFound, address, b"", now).is_some(),
            );
        }
        assert_eq!(hits, 10, "each tenth");
    }

    /// Case 3.
    #[test]
    fn memory_is_bounded_whatever_the_number_of_addresses() {
        let case = Case::new("{}");
        for n in 0..50_000_u32 {
            let finding = vec![Finding::new(RuleName::Honeypot, "/.env")];
            case.suspects.add(&case.policy, IpAddr::V4(n.into()), finding, UnixMillis(0));
        }
        assert!(case.suspects.known.len() <= REMEMBERED);
    }
}
