//! Usage sums of one worker, in memory until the keeper stores them: never shed, summed (ARCHITECTURE.md, "What flows
//! back up").
//!
//! Written by `proxy` through its shard when a request ends; taken by the keeper. Must never touch a disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::metrics::{Metrics, Shard};
use crate::types::calendar;
use crate::types::clock::UnixMillis;
use crate::types::ids::{EngineId, KeyId};
use crate::types::usage::{UsageSlot, UsageSums};

/// Every zone's hours begin at a quarter of an hour in UTC (the tz database has no finer offset since 1972), so the
/// quarter is found by a division, and the keeper finds the local hour.
const QUARTER_MS: i64 = 15 * 60 * 1000;

/// Sums per worker that are told apart until the keeper comes: a key may name any model of an engine, listed or not.
/// What is beyond is summed under [`OTHER`], so that memory stays bounded.
const PLACES: usize = 4096;

/// Series since the start that `/metrics` tells apart; a scrape of this many costs Prometheus about a megabyte.
const SERIES: usize = 1000;

/// The model under which surplus ones are summed.
const OTHER: &str = "(other)";

/// Who used what, as a worker sums it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    quarter: i64,
    key: KeyId,
    model: Arc<str>,
    engine: EngineId,
}

/// Whose sums since the start these are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsedBy {
    /// The key.
    pub key: KeyId,
    /// The model as the engine knows it; outside text.
    pub model: Arc<str>,
    /// The engine.
    pub engine: EngineId,
}

/// What was taken from the workers so far, by whom it was used.
#[derive(Debug, Default)]
pub(super) struct UsedSinceStart(Mutex<BTreeMap<UsedBy, UsageSums>>);

impl UsedSinceStart {
    fn change(&self, mut by: UsedBy, change: impl FnOnce(&mut UsageSums)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place(&all, &mut by);
        change(all.entry(by).or_default());
    }
}

/// Puts what would be a series too many under the surplus.
fn place(all: &BTreeMap<UsedBy, UsageSums>, by: &mut UsedBy) {
    if all.len() >= SERIES && !all.contains_key(by) {
        by.model = OTHER.into();
    }
}

/// The sums of one worker.
#[derive(Debug, Default)]
pub(super) struct UsageMap(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    all: HashMap<Place, UsageSums>,
    /// The place of the newest request, not yet in the map: a client's requests come in runs, and comparing is cheaper
    /// than hashing.
    newest: Option<(Place, UsageSums)>,
}

impl UsageMap {
    fn add(&self, place: Place, sums: UsageSums) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut places.newest {
            Some((newest, so_far)) if *newest == place => *so_far += sums,
            _ => {
                places.settle();
                places.newest = Some((place, sums));
            }
        }
    }

    /// What waits for the keeper, without taking it.
    fn peek(&self) -> Vec<(UsedBy, UsageSums)> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = places.newest.iter().map(|(place, sums)| (place, sums));
        places.all.iter().chain(newest).map(|(place, sums)| (place.by(), *sums)).collect()
    }

    fn take(&self) -> HashMap<Place, UsageSums> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.settle();
        std::mem::take(&mut places.all)
    }
}

impl Place {
    fn by(&self) -> UsedBy {
        UsedBy { key: self.key, model: self.model.clone(), engine: self.engine.clone() }
    }
}

impl Places {
    /// Puts the newest into the map.
    fn settle(&mut self) {
        let Some((mut place, sums)) = self.newest.take() else { return };
        if self.all.len() >= PLACES && !self.all.contains_key(&place) {
            place.model = OTHER.into();
        }
        *self.all.entry(place).or_default() += sums;
    }
}

impl Shard {
    /// Sums an ended request up.
    pub fn used(&self, at: UnixMillis, key: KeyId, model: Arc<str>, engine: EngineId, sums: UsageSums) {
        self.usage.add(Place { quarter: at.0.div_euclid(QUARTER_MS), key, model, engine }, sums);
    }
}

impl Metrics {
    /// Takes what was used since the last call, by local hour, in order.
    #[must_use]
    pub fn take_usage(&self) -> Vec<(UsageSlot, UsageSums)> {
        let mut all: HashMap<UsageSlot, UsageSums> = HashMap::new();
        for shard in self.shards() {
            for (place, sums) in shard.usage.take() {
                self.used.change(place.by(), |all| *all += sums);
                let Place { quarter, key, model, engine } = place;
                let hour = calendar::hour_start(UnixMillis(quarter.saturating_mul(QUARTER_MS)));
                *all.entry(UsageSlot { hour, key, model, engine }).or_default() += sums;
            }
        }
        let mut all: Vec<_> = all.into_iter().collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// What was used since the start, by key, model and engine, in order: at most 1,000 series besides the surplus of each
    /// key and engine, which is told under the model `(other)`.
    #[must_use]
    pub fn used_since_start(&self) -> Vec<(UsedBy, UsageSums)> {
        let mut all = self.used.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (mut by, sums) in self.shards().iter().flat_map(|shard| shard.usage.peek()) {
            place(&all, &mut by);
            *all.entry(by).or_default() += sums;
        }
        all.into_iter().collect()
    }

    /// Takes back what could not be stored: the next [`Metrics::take_usage`] has it again.
    pub fn return_usage(&self, usage: Vec<(UsageSlot, UsageSums)>) {
        let Some(shard) = self.shards().first() else { return };
        for (UsageSlot { hour, key, model, engine }, sums) in usage {
            self.used.change(UsedBy { key, model: model.clone(), engine: engine.clone() }, |all| *all -= sums);
            shard.used(hour, key, model, engine, sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(tokens: u64) -> UsageSums {
        UsageSums { requests: 1, completion_tokens: tokens, ..UsageSums::default() }
    }

    fn key() -> KeyId {
        KeyId::parse("Ab12Cd34").expect("id")
    }

    fn engine() -> EngineId {
        EngineId::parse("ollama").expect("id")
    }

    #[test]
    fn workers_sum_for_themselves_and_together_by_the_hour() {
        let metrics = Metrics::new(2);
        let hour = calendar::hour_start(UnixMillis(1_800_000_000_000));
        for (worker, minutes, tokens) in [(0, 0, 1), (0, 44, 2), (1, 59, 4), (1, 61, 8)] {
            let at = UnixMillis(hour.0 + minutes * 60_000);
            metrics.shard(worker).used(at, key(), "llama".into(), engine(), sums(tokens));
        }
        let taken = metrics.take_usage();
        let told: Vec<_> = taken.iter().map(|(slot, sums)| (slot.hour.0 - hour.0, sums.completion_tokens)).collect();
        assert_eq!(told, [(0, 7), (3_600_000, 8)]);
        assert_eq!(metrics.take_usage(), []);
        metrics.return_usage(taken.clone());
        assert_eq!(metrics.take_usage(), taken, "what could not be stored comes again");
        metrics.shard(1).used(hour, key(), "llama".into(), engine(), sums(16));
        let [(by, sums)] = &metrics.used_since_start()[..] else { panic!("one series") };
        assert_eq!((&*by.model, sums.completion_tokens, sums.requests), ("llama", 31, 5), "each once, taken or not");
    }

    #[test]
    fn names_without_end_are_summed_as_one_and_no_token_is_lost() {
        let metrics = Metrics::new(1);
        for number in 0..PLACES as u64 + 100 {
            metrics.shard(0).used(UnixMillis(0), key(), format!("model {number}").into(), engine(), sums(1));
        }
        let taken = metrics.take_usage();
        assert_eq!(taken.len(), PLACES + 1);
        assert_eq!(taken.iter().map(|(_, sums)| sums.completion_tokens).sum::<u64>(), PLACES as u64 + 100);
        let other = taken.iter().find(|(slot, _)| &*slot.model == OTHER).expect("the rest");
        assert_eq!(other.1.requests, 100);
        let series = metrics.used_since_start();
        // The surplus may be the first of them or the last.
        assert!((SERIES..=SERIES + 1).contains(&series.len()), "{}", series.len());
        assert_eq!(series.iter().map(|(_, sums)| sums.requests).sum::<u64>(), PLACES as u64 + 100);
    }
}
