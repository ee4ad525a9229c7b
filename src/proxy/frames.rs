//! [`FramesInTime`]: what an HTTP/2 client may not do and hyper lets pass: hold a preface, a head or a frame open, rest for ever
//! while it answers pings, give an answer no room, or send frames that cost work and bring nothing (SPEC §4.6, §5.5, §5.14; SECURITY.md §H).
//!
//! Looks at the heads of frames (RFC 9113 §4.1) as they are read and leaves everything else to h2, which ends rapid resets,
//! CONTINUATION floods and empty DATA itself. Bodies have their own deadlines (`body`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::connection::{Activity, Rest};
use super::limits::ProxyLimits;
use super::watched::{TooMuch, Watch};

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113 §3.4).
const PREFACE: u32 = 24;
const FRAME_HEAD: usize = 9;

// Types and flags of frames (RFC 9113 §6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Frames that bring nothing (PING, SETTINGS, PRIORITY, `RST_STREAM`, unknown ones) which may come at once, and each second: a
/// browser sends a handful with a request, nobody hundreds without one. h2 does not limit them, and 40,000 cost a second of
/// the processor (SECURITY.md §H).
const IDLE_FRAMES: u64 = 1_000;
const IDLE_FRAMES_PER_SECOND: u64 = 200;
/// Bytes of answers for which a client may send one `WINDOW_UPDATE` more: the most eager send two for each chunk, and a chunk
/// of an answer has more than twice as many with its frame's head.
const BYTES_PER_UPDATE: u64 = 32;

/// What a client did with its connection, for whoever served it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// Nothing to say.
    Fair,
    /// A preface, a head or a frame was held open past its limit.
    HeldOpen,
    /// Frames that cost work and bring nothing came in a flood: the connection was ended for it.
    Flood,
}

/// The same, shared: written while the connection lives, read when it has ended.
#[derive(Debug, Default)]
pub(super) struct Observed(AtomicU8);

impl Observed {
    fn note(&self, conduct: Conduct) {
        let rank = match conduct {
            Conduct::Fair => 0,
            Conduct::HeldOpen => 1,
            Conduct::Flood => 2,
        };
        self.0.store(rank, Ordering::Relaxed);
    }

    pub(super) fn conduct(&self) -> Conduct {
        match self.0.load(Ordering::Relaxed) {
            0 => Conduct::Fair,
            1 => Conduct::HeldOpen,
            _ => Conduct::Flood,
        }
    }
}

/// Where in the stream of frames a client is.
#[derive(Debug)]
struct Frames {
    /// Bytes of the preface that are still to come.
    preface: u32,
    head: [u8; FRAME_HEAD],
    /// How many of them came.
    head_length: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: u32,
    /// A head was begun and its last frame has not come.
    in_head: bool,
}

/// A frame whose head came, or whose end did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A frame that brings nothing.
    Idle,
    /// More room for answers.
    Update,
    /// A frame came to its end.
    Ended,
}

impl Frames {
    fn new() -> Self {
        Self { preface: PREFACE, head: [0; FRAME_HEAD], head_length: 0, payload: 0, in_head: false }
    }

    /// Takes what came and tells what it is.
    fn take(&mut self, mut bytes: &[u8], mut told: impl FnMut(&Self, Step)) {
        while !bytes.is_empty() {
            for part in [&mut self.preface, &mut self.payload] {
                let skipped = bytes.len().min(*part as usize);
                bytes = &bytes[skipped..];
                *part -= u32::try_from(skipped).unwrap_or(u32::MAX);
            }
            if self.head_length == FRAME_HEAD && self.payload == 0 {
                self.end(&mut told);
            }
            let wanted = bytes.len().min(FRAME_HEAD - self.head_length);
            self.head[self.head_length..self.head_length + wanted].copy_from_slice(&bytes[..wanted]);
            self.head_length += wanted;
            bytes = &bytes[wanted..];
            if wanted > 0 && self.head_length == FRAME_HEAD {
                self.begin(&mut told);
            }
        }
    }

    fn begin(&mut self, told: &mut impl FnMut(&Self, Step)) {
        let [high, middle, low, kind, flags, ..] = self.head;
        self.payload = u32::from_be_bytes([0, high, middle, low]);
        match kind {
            // Empty ones are h2's business.
            DATA => {}
            HEADERS => self.in_head = flags & END_HEADERS == 0,
            CONTINUATION => self.in_head &= flags & END_HEADERS == 0,
            WINDOW_UPDATE => told(self, Step::Update),
            _ => told(self, Step::Idle),
        }
        if self.payload == 0 {
            self.end(told);
        }
    }

    fn end(&mut self, told: &mut impl FnMut(&Self, Step)) {
        self.head_length = 0;
        told(self, Step::Ended);
    }

    /// Whether something was begun that must end soon: anything but the payload of DATA.
    fn is_unfinished(&self) -> bool {
        let whole_head = self.head_length == FRAME_HEAD;
        self.preface > 0 || self.in_head || self.head_length > 0 && !(whole_head && self.head[3] == DATA)
    }
}

/// See the head of the file.
pub(super) struct FramesInTime {
    frames: Frames,
    activity: Arc<Activity>,
    observed: Arc<Observed>,
    /// How long a head may take.
    within: Duration,
    /// How long the connection may rest.
    rest: Rest,
    /// How long it may give no room for an answer that is ready.
    idle: Duration,
    /// When what was begun must have ended.
    deadline: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Told when the connection has rested for too long: it ends in peace, at the latest at the time beside it.
    rested: CancellationToken,
    rested_until: Option<Instant>,
    /// How many idle frames may come now, how many `WINDOW_UPDATE` frames, and since when that is so.
    idle_frames: u64,
    updates: u64,
    refilled: Instant,
}

impl FramesInTime {
    pub(super) fn new(
        limits: &ProxyLimits,
        activity: Arc<Activity>,
        rest: Rest,
        observed: Arc<Observed>,
        rested: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let deadline = now + limits.head;
        Self {
            frames: Frames::new(),
            activity,
            observed,
            within: limits.head,
            rest,
            idle: limits.keep_alive_idle,
            deadline: Some(deadline),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            rested,
            rested_until: None,
            idle_frames: IDLE_FRAMES,
            updates: IDLE_FRAMES,
            refilled: now,
        }
    }

    /// Gives back what time gives.
    fn refill(&mut self) {
        let milliseconds = u64::try_from(self.refilled.elapsed().as_millis()).unwrap_or(u64::MAX);
        let more = milliseconds.saturating_mul(IDLE_FRAMES_PER_SECOND) / 1000;
        if more > 0 {
            self.refilled = Instant::now();
            self.idle_frames = self.idle_frames.saturating_add(more).min(IDLE_FRAMES);
            if self.updates < IDLE_FRAMES {
                self.updates = (self.updates + more).min(IDLE_FRAMES);
            }
        }
    }
}

impl Watch for FramesInTime {
    fn came(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        let (mut idle, mut updates, mut ended) = (0, 0, false);
        self.frames.take(bytes, |frames, step| match step {
            Step::Idle => idle += 1,
            Step::Update => updates += 1,
            Step::Ended => ended |= !frames.in_head,
        });
        if ended {
            self.deadline = None;
        }
        if self.deadline.is_none() && self.frames.is_unfinished() {
            self.deadline = Some(Instant::now() + self.within);
        }
        if idle + updates > 0 {
            self.refill();
        }
        let enough = self.idle_frames >= idle && self.updates >= updates;
        self.idle_frames = self.idle_frames.saturating_sub(idle);
        self.updates = self.updates.saturating_sub(updates);
        if enough {
            return Ok(());
        }
        self.observed.note(Conduct::Flood);
        Err(TooMuch)
    }

    fn wrote(&mut self, bytes: usize) {
        // More than a client of one connection can have waiting is not remembered.
        self.updates = (self.updates + bytes as u64 / BYTES_PER_UPDATE).min(IDLE_FRAMES * 100);
    }

    /// As for HTTP/1.1, the timer is kept running while requests are answered and looks again when it fires.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let stalled = self.activity.stalled_since().map(|since| since + self.idle);
            let resting = || (!self.activity.busy()).then(|| self.rest.until());
            let deadline = self.deadline.or(self.rested_until).or(stalled).or_else(resting);
            if let Some(deadline) = deadline
                && self.timer.deadline() > deadline
            {
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            match deadline {
                Some(deadline) if now < deadline => self.timer.as_mut().reset(deadline.min(self.rest.look(now))),
                Some(_) if self.deadline.is_some() => {
                    self.observed.note(Conduct::HeldOpen);
                    return Poll::Ready(());
                }
                Some(_) if self.rested_until.is_some() || stalled.is_some() => return Poll::Ready(()),
                Some(_) => {
                    self.rested.cancel();
                    self.rested_until = Some(now + self.within);
                    self.timer.as_mut().reset(now + self.within);
                }
                None => self.timer.as_mut().reset(self.rest.look(now)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(FRAME_HEAD + payload, 7);
        bytes
    }

    const SETTINGS: u8 = 0x4;
    const PING: u8 = 0x6;

    fn opening() -> Vec<u8> {
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 6)].concat()
    }

    fn steps(bytes: &[u8], piece: usize) -> (Vec<Step>, Frames) {
        let (mut frames, mut steps) = (Frames::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            frames.take(piece, |_, step| steps.push(step));
        }
        (steps, frames)
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let bytes = [
            opening(),
            frame(HEADERS, 0, 20),
            frame(CONTINUATION, 0, 3),
            frame(CONTINUATION, END_HEADERS, 0),
            frame(DATA, 0, 300),
            frame(DATA, 1, 0),
            frame(PING, 0, 8),
            frame(WINDOW_UPDATE, 0, 4),
        ]
        .concat();
        let expected = [
            Step::Idle,
            Step::Ended,
            Step::Ended,
            Step::Ended,
            Step::Ended,
            Step::Ended,
            Step::Ended,
            Step::Idle,
            Step::Ended,
            Step::Update,
            Step::Ended,
        ];
        for piece in [1, 2, 5, 9, 10, 64, bytes.len()] {
            let (steps, frames) = steps(&bytes, piece);
            assert_eq!(steps, expected, "in pieces of {piece}");
            assert!(!frames.is_unfinished());
        }
    }

    #[test]
    fn what_must_end_soon_is_known_and_the_payload_of_data_is_none_of_it() {
        let unfinished = |more: &[u8]| steps(&[opening(), more.to_vec()].concat(), 7).1.is_unfinished();
        assert!(steps(b"", 1).1.is_unfinished() && steps(&opening()[..23], 1).1.is_unfinished());
        assert!(!unfinished(b""));
        assert!(unfinished(&frame(HEADERS, 0, 20)), "no CONTINUATION followed");
        assert!(unfinished(&frame(HEADERS, END_HEADERS, 20)[..15]), "half a frame");
        assert!(unfinished(&frame(PING, 0, 8)[..4]), "half the head of a frame");
        assert!(!unfinished(&frame(HEADERS, END_HEADERS, 20)));
        assert!(!unfinished(&frame(DATA, 0, 300)[..100]), "a body has its own deadline");
    }
}
