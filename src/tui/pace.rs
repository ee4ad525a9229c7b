//! When the next frame may be drawn: at once for a key press, and for data as often as the bytes over the line allow.
//!
//! Asked by the loop in `tui`. Pure: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::tui::action::WindowFocus;
use crate::tui::state::Dirty;

/// Shortest time between two frames that key presses ask for, so that a paste or a held key is not drawn letter by letter.
const SHORTEST: Duration = Duration::from_millis(8);

/// Mean time between frames over a longer run: with [`BURST`] frames at once, never more than 30 in a second.
const MEAN: Duration = Duration::from_millis(38);

/// Frames that may follow each other at the shortest distance.
const BURST: u32 = 4;

/// Bytes a second that data may cost on 80 by 24 cells; a larger screen gets its share more.
const DATA_RATE: u64 = 900;

/// Cells that [`DATA_RATE`] is meant for.
const DATA_CELLS: u64 = 80 * 24;

/// Data waits no longer, whatever it costs: with the owner's quarter of a second every value is less than a second old.
const LONGEST: Duration = Duration::from_millis(650);

/// When frames were drawn, and what they cost.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    last: Instant,
    /// When the frames so far would have been drawn at their mean distance.
    even: Instant,
    /// How long data waits after the last frame.
    data: Duration,
}

impl Pace {
    /// A frame was just drawn, the first one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { last: now, even: now, data: Duration::ZERO }
    }

    /// A frame of so many bytes was drawn on a screen of this size.
    pub fn drew(&mut self, now: Instant, bytes: usize, size: (u16, u16)) {
        self.last = now;
        if bytes == 0 {
            // Nothing had changed: it does not count.
            return;
        }
        self.even = self.even.max(now) + MEAN;
        let cells = (u64::from(size.0) * u64::from(size.1)).max(1);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let millis = bytes.saturating_mul(1000 * DATA_CELLS) / (DATA_RATE * cells);
        self.data = Duration::from_millis(millis).min(LONGEST);
    }

    /// When the next frame may be drawn; `None` while nothing visible changed. `refresh` is frames of data per second.
    #[must_use]
    pub fn due(&self, dirty: Dirty, focus: WindowFocus, refresh: u8) -> Option<Instant> {
        let wait = match (dirty, focus) {
            (Dirty::Clean, _) => return None,
            (Dirty::Now, _) => SHORTEST,
            (Dirty::Data, WindowFocus::Unfocused) => Duration::from_secs(1),
            (Dirty::Data, WindowFocus::Focused) => (Duration::from_secs(1) / u32::from(refresh.max(1))).max(self.data),
        };
        let evenly = self.even.checked_sub(MEAN * BURST).unwrap_or(self.last);
        Some((self.last + wait).max(evenly))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws as often as allowed and answers how many frames and bytes a second that is, over ten seconds.
    fn run(dirty: Dirty, bytes: usize, size: (u16, u16), refresh: u8) -> (u32, usize) {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let (mut frames, mut now) = (0, start);
        while now < start + Duration::from_secs(10) {
            now = pace.due(dirty, WindowFocus::Focused, refresh).expect("dirty").max(now);
            pace.drew(now, bytes, size);
            frames += 1;
        }
        (frames / 10, bytes * usize::try_from(frames).expect("small") / 10)
    }

    #[test]
    fn a_held_key_is_drawn_at_most_thirty_times_a_second() {
        let (frames, _) = run(Dirty::Now, 100, (80, 24), 4);
        assert!((24..=30).contains(&frames), "{frames}");
    }

    #[test]
    fn a_key_press_after_a_frame_of_data_waits_for_no_data() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.drew(now, 5_000, (80, 24));
        let due = pace.due(Dirty::Now, WindowFocus::Focused, 4).expect("dirty");
        assert!(due - now <= SHORTEST, "{:?}", due - now);
        assert_eq!(pace.due(Dirty::Clean, WindowFocus::Focused, 4), None);
    }

    #[test]
    fn data_keeps_within_its_bytes_and_is_never_old() {
        let (frames, bytes) = run(Dirty::Data, 150, (80, 24), 4);
        assert!((4..=5).contains(&frames) && bytes < 1_000, "{frames} {bytes}");
        let (_, bytes) = run(Dirty::Data, 400, (80, 24), 4);
        assert!(bytes < 1_000, "{bytes}");
        let (frames, bytes) = run(Dirty::Data, 1_800, (80, 24), 4);
        assert!(frames >= 1 && bytes <= 3_000, "{frames} {bytes}");
        let (frames, _) = run(Dirty::Data, 1_000, (200, 50), 4);
        assert!((4..=5).contains(&frames), "a larger screen gets its share: {frames}");
        let mut pace = Pace::new(Instant::now());
        let now = Instant::now();
        pace.drew(now, 1_000_000, (80, 24));
        let due = pace.due(Dirty::Data, WindowFocus::Focused, 60).expect("dirty");
        assert!(due - now <= LONGEST, "{:?}", due - now);
    }
}
