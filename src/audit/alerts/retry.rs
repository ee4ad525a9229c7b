//! When a message that did not arrive is tried again: back-off with jitter, so that receivers that come back are not met by
//! everybody at once.

use std::time::Duration;

use super::Again;
use crate::types::alert::AlertKind;

/// The first pause; each next one is four times as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause, also when the receiver asks for more.
const LONGEST: Duration = Duration::from_secs(600);

/// How often a message of this kind is tried: about half an hour of a receiver that is away; a program that fails does so
/// for reasons of its own, and each run may have done something.
#[must_use]
pub(super) fn tries(kind: AlertKind) -> u32 {
    match kind {
        AlertKind::Webhook | AlertKind::Ntfy => 8,
        AlertKind::Command => 3,
        // The store tries again by itself.
        AlertKind::Terminal => 1,
    }
}

/// The pause after the try of that number (from 1); `None` when there is no next one. `chance` is between 0 and 1.
#[must_use]
pub(super) fn pause(kind: AlertKind, tried: u32, again: Again, chance: f64) -> Option<Duration> {
    if tried >= tries(kind) {
        return None;
    }
    let planned = FIRST.saturating_mul(4_u32.saturating_pow(tried.saturating_sub(1))).min(LONGEST);
    // Between half and all of it.
    let jittered = planned.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0));
    match again {
        Again::Never => None,
        Again::Soon => Some(jittered),
        Again::After(asked) => Some(jittered.max(asked).min(LONGEST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_end() {
        let all = |chance| -> Vec<u64> {
            let pauses = (1..).map_while(|tried| pause(AlertKind::Webhook, tried, Again::Soon, chance));
            pauses.map(|pause| u64::try_from(pause.as_millis()).expect("small")).collect()
        };
        assert_eq!(all(1.0), [1_000, 4_000, 16_000, 64_000, 256_000, 600_000, 600_000]);
        assert_eq!(all(0.0), [500, 2_000, 8_000, 32_000, 128_000, 300_000, 300_000]);
        assert_eq!(pause(AlertKind::Command, 3, Again::Soon, 1.0), None);
    }

    #[test]
    fn a_receiver_may_ask_for_more_but_not_for_ever() {
        let asked = |seconds| pause(AlertKind::Ntfy, 1, Again::After(Duration::from_secs(seconds)), 0.0);
        assert_eq!(asked(30), Some(Duration::from_secs(30)));
        assert_eq!(asked(86_400), Some(LONGEST));
        assert_eq!(pause(AlertKind::Ntfy, 1, Again::Never, 0.0), None);
    }
}
