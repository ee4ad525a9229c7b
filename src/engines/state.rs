//! The state machine of an engine (SPEC §3.2), as a pure function.
//!
//! Called by [`crate::engines::registry`] alone. Must never read a clock or do I/O: what happened and when is handed in.

use std::time::Duration;

use crate::types::clock::UnixMillis;
use crate::types::engine::EngineState;

/// When a state changes. The daemon maps settings to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// `engine.health_latency_threshold_ms`: from here on an engine counts as degraded.
    pub slow: Duration,
    /// `engine.max_network_failures`: failures in a row that make it unreachable.
    pub max_network_failures: u32,
    /// Good checks in a row that make it healthy again.
    pub recover_after: u32,
}

impl Default for Thresholds {
    /// The numbers of SPEC §3.2.
    fn default() -> Self {
        Self { slow: Duration::from_millis(1500), max_network_failures: 3, recover_after: 3 }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A good answer of a check.
    Good {
        /// Its round trip.
        latency: Duration,
    },
    /// 429 or 503.
    Busy {
        /// Its round trip.
        latency: Duration,
        /// The status and the engine's words.
        reason: String,
    },
    /// No answer to a check, or no connection for a client's request. One says little, since a burst of new connections
    /// can be more than an engine takes at once: they are counted up to the threshold.
    Unreachable {
        /// What the connection said.
        reason: String,
    },
    /// An answer of the wrong shape.
    WrongShape {
        /// What was wrong.
        reason: String,
    },
    /// A client's request was answered although something failed before.
    Answered,
}

/// A state with what is needed to go on from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What everyone sees.
    pub state: EngineState,
    /// Since when it is in this kind of state.
    pub since: UnixMillis,
    good_in_a_row: u32,
    network_failures: u32,
}

impl Health {
    /// A health that begins with a state.
    #[must_use]
    pub fn starting(state: EngineState, now: UnixMillis) -> Self {
        Self { state, since: now, good_in_a_row: 0, network_failures: 0 }
    }

    /// Whether an answer to a client is no news: it serves, and nothing has failed since the last good answer.
    #[must_use]
    pub fn is_untroubled(&self) -> bool {
        self.state.serves() && self.network_failures == 0
    }
}

/// What follows from an event.
#[must_use]
pub fn next(health: &Health, event: &Event, now: UnixMillis, thresholds: &Thresholds) -> Health {
    let (mut good_in_a_row, mut network_failures) = (0, 0);
    let state = match event {
        Event::Good { latency } if *latency >= thresholds.slow => EngineState::RunningDegraded {
            latency_ms: millis(*latency),
            reason: format!("slow: {} ms, the limit is {} ms", latency.as_millis(), thresholds.slow.as_millis()),
        },
        Event::Good { latency } => {
            good_in_a_row = health.good_in_a_row.saturating_add(1);
            let latency_ms = millis(*latency);
            match &health.state {
                // Nothing bad is known of it.
                EngineState::InstalledOnly | EngineState::Unchecked | EngineState::RunningHealthy { .. } => {
                    EngineState::RunningHealthy { latency_ms }
                }
                _ if good_in_a_row >= thresholds.recover_after => EngineState::RunningHealthy { latency_ms },
                EngineState::RunningDegraded { reason, .. } => {
                    EngineState::RunningDegraded { latency_ms, reason: reason.clone() }
                }
                EngineState::ErrorNetwork { .. } | EngineState::ErrorApi { .. } => {
                    EngineState::RunningDegraded { latency_ms, reason: "answers again after a failure".to_owned() }
                }
            }
        }
        Event::Busy { latency, reason } => {
            EngineState::RunningDegraded { latency_ms: millis(*latency), reason: reason.clone() }
        }
        Event::Unreachable { reason } => {
            network_failures = health.network_failures.saturating_add(1);
            let never_seen_alive = !matches!(
                health.state,
                EngineState::RunningHealthy { .. } | EngineState::RunningDegraded { .. } | EngineState::ErrorApi { .. }
            );
            if network_failures >= thresholds.max_network_failures || never_seen_alive {
                EngineState::ErrorNetwork { reason: reason.clone(), failures: network_failures }
            } else {
                health.state.clone()
            }
        }
        Event::WrongShape { reason } => EngineState::ErrorApi { reason: reason.clone() },
        Event::Answered => match &health.state {
            EngineState::ErrorNetwork { .. } | EngineState::ErrorApi { .. } => {
                EngineState::RunningDegraded { latency_ms: 0, reason: "answers again after a failure".to_owned() }
            }
            other => {
                (good_in_a_row, network_failures) = (health.good_in_a_row, 0);
                other.clone()
            }
        },
    };
    let same_kind = std::mem::discriminant(&state) == std::mem::discriminant(&health.state);
    Health { state, since: if same_kind { health.since } else { now }, good_in_a_row, network_failures }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(ms: u64) -> Event {
        Event::Good { latency: Duration::from_millis(ms) }
    }
    fn busy() -> Event {
        Event::Busy { latency: Duration::from_millis(2), reason: "503".into() }
    }
    fn dead() -> Event {
        Event::Unreachable { reason: "refused".into() }
    }
    fn wrong() -> Event {
        Event::WrongShape { reason: "no list".into() }
    }
    fn letter(state: &EngineState) -> char {
        match state {
            EngineState::InstalledOnly => 'I',
            EngineState::Unchecked => 'U',
            EngineState::RunningHealthy { .. } => 'H',
            EngineState::RunningDegraded { .. } => 'D',
            EngineState::ErrorNetwork { .. } => 'N',
            EngineState::ErrorApi { .. } => 'A',
        }
    }

    /// The states after each event, beginning unchecked.
    fn walk(events: &[Event]) -> String {
        let mut health = Health::starting(EngineState::Unchecked, UnixMillis(0));
        let mut out = String::new();
        for event in events {
            health = next(&health, event, UnixMillis(1), &Thresholds::default());
            out.push(letter(&health.state));
        }
        out
    }

    #[test]
    fn the_table_of_the_specification() {
        for (name, events, states) in [
            ("the first good check is enough", vec![good(5)], "H"),
            ("slow is degraded, the threshold included", vec![good(1499), good(1500)], "HD"),
            ("three good checks heal", vec![good(5), busy(), good(5), good(5), good(5)], "HDDDH"),
            ("a slow check starts the count anew", vec![busy(), good(5), good(5), good(2000), good(5)], "DDDDD"),
            (
                "a busy answer within three checks keeps it degraded",
                vec![busy(), good(5), busy(), good(5), good(5)],
                "DDDDD",
            ),
            ("three failures make it unreachable", vec![good(5), dead(), dead(), dead()], "HHHN"),
            (
                "a good check between failures starts the count anew",
                vec![good(5), dead(), dead(), good(5), dead()],
                "HHHHH",
            ),
            ("an engine never seen alive is unreachable at once", vec![dead()], "N"),
            ("an answer to a client brings it back", vec![good(5), dead(), dead(), dead(), Event::Answered], "HHHND"),
            (
                "an answer to a client between failures starts the count anew",
                vec![good(5), dead(), dead(), Event::Answered, dead(), dead()],
                "HHHHHH",
            ),
            ("an unreachable one heals by three good checks", vec![dead(), good(5), good(5), good(5)], "NDDH"),
            ("a wrong shape is an error at once", vec![good(5), wrong(), good(5)], "HAD"),
            ("an answer to a client does not heal a degraded one", vec![busy(), Event::Answered], "DD"),
        ] {
            assert_eq!(walk(&events), states, "{name}");
        }
    }

    #[test]
    fn a_state_keeps_its_beginning_until_its_kind_changes() {
        let thresholds = Thresholds::default();
        let health = Health::starting(EngineState::Unchecked, UnixMillis(0));
        let healthy = next(&health, &good(5), UnixMillis(10), &thresholds);
        let still = next(&healthy, &good(9), UnixMillis(20), &thresholds);
        assert_eq!((healthy.since, still.since), (UnixMillis(10), UnixMillis(10)));
    }

    #[test]
    fn failures_in_a_row_are_counted_on() {
        let thresholds = Thresholds::default();
        let mut health = Health::starting(EngineState::Unchecked, UnixMillis(0));
        for _ in 0..5 {
            health = next(&health, &dead(), UnixMillis(0), &thresholds);
        }
        assert_eq!(health.state, EngineState::ErrorNetwork { reason: "refused".into(), failures: 5 });
    }
}
