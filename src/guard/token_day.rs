//! [`TokenDay`]: tokens that a key has used on the local calendar day, and those promised to running requests
//! (SPEC §5.7).
//!
//! Called by `proxy` through the key's counts. Written once a request, so that its lock is never waited for long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::key_table::KeyCounts;
use crate::types::calendar::LocalDay;
use crate::types::clock::UnixMillis;

/// How far before its day a clock may stand for the day to go on. A machine that begins with a clock far ahead must
/// not refuse its keys until that time has come.
const SET_BACK: Duration = Duration::from_hours(24);

/// Tokens of one key on the local day.
#[derive(Debug, Default)]
pub struct TokenDay(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// `None` until the first look.
    day: Option<LocalDay>,
    spent: u64,
    /// Running requests with a budget; each is sure to cost a token at least.
    running: u64,
}

impl Counted {
    /// Begins a new day when its time has come. A clock that was set back a little stays in the day that it was in,
    /// so that setting it over midnight gives no tokens back; one that was days ahead is believed again.
    fn on(&mut self, now: UnixMillis) -> LocalDay {
        match self.day {
            Some(day) if now < day.end && day.start.since(now) < SET_BACK => day,
            _ => {
                let day = LocalDay::of(now);
                self.day = Some(day);
                self.spent = 0;
                day
            }
        }
    }
}

/// How a key's day stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenDayState {
    /// Tokens used.
    pub spent: u64,
    /// How long the day still lasts.
    pub left: Duration,
}

/// A place for one running request in a budget, until dropped.
#[derive(Debug)]
pub struct Reservation(Arc<KeyCounts>);

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut counted = self.0.tokens.counted();
        counted.running = counted.running.saturating_sub(1);
    }
}

impl TokenDay {
    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a request has used to the day in which it is told.
    pub fn spend(&self, tokens: u64, now: UnixMillis) {
        let mut counted = self.counted();
        counted.on(now);
        counted.spent = counted.spent.saturating_add(tokens);
    }

    /// How the day stands.
    pub fn state(&self, now: UnixMillis) -> TokenDayState {
        let mut counted = self.counted();
        let day = counted.on(now);
        TokenDayState { spent: counted.spent, left: day.end.since(now) }
    }
}

impl KeyCounts {
    /// Admits a request within a daily limit, `None` when there is none left for it.
    ///
    /// Every running request counts as one token, the least that it can cost: with three tokens left no fourth
    /// request is admitted. What a request really costs is only known at its end, so a budget is overshot by what
    /// the admitted ones use (SPEC §5.7: one request per slot).
    #[must_use]
    pub fn reserve(self: &Arc<Self>, limit: u64, now: UnixMillis) -> Option<Reservation> {
        let mut counted = self.tokens.counted();
        counted.on(now);
        if counted.spent.saturating_add(counted.running) >= limit {
            return None;
        }
        counted.running += 1;
        Some(Reservation(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_tokens_starts_from_zero_at_midnight() {
        let day = LocalDay::of(UnixMillis(1_800_000_000_000));
        let tokens = TokenDay::default();
        tokens.spend(10, day.start);
        tokens.spend(5, UnixMillis(day.end.0 - 1));
        let last = tokens.state(UnixMillis(day.end.0 - 1));
        assert_eq!(last, TokenDayState { spent: 15, left: Duration::from_millis(1) });
        assert_eq!(tokens.state(day.end).spent, 0);
        tokens.spend(1, day.end);
        assert_eq!(
            tokens.state(UnixMillis(day.end.0 - 1)).spent,
            1,
            "a clock set back over midnight gives nothing back"
        );
        let years_ago = UnixMillis(1_600_000_000_000);
        assert_eq!(tokens.state(years_ago).spent, 0, "a clock that was years ahead");
        assert!(tokens.state(years_ago).left <= Duration::from_hours(25));
    }

    #[test]
    fn running_requests_never_promise_more_than_is_left() {
        let counts = Arc::new(KeyCounts::default());
        let now = UnixMillis(1_800_000_000_000);
        counts.tokens.spend(7, now);
        let places: Vec<_> = (0..10).map_while(|_| counts.reserve(10, now)).collect();
        assert_eq!(places.len(), 3);
        drop(places);
        let place = counts.reserve(10, now).expect("the places are free again");
        counts.tokens.spend(3, now);
        drop(place);
        assert!(counts.reserve(10, now).is_none(), "spent");
        assert!(counts.reserve(11, now).is_some(), "a higher limit counts at once");
        assert!(counts.reserve(10, LocalDay::of(now).end).is_some(), "the next day");
    }

    #[test]
    fn a_clock_that_was_set_back_by_a_day_begins_a_new_one() {
        let day = LocalDay::of(UnixMillis(1_800_000_000_000));
        for (before, spent) in [(Duration::from_millis(86_399_999), 10), (SET_BACK, 0)] {
            let tokens = TokenDay::default();
            tokens.spend(10, day.start);
            assert_eq!(tokens.state(day.start.minus(before)).spent, spent, "{before:?}");
        }
    }
}
