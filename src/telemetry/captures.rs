//! [`CaptureLane`]: the way of captured bodies from a worker to the disk (SPEC §10, ADR 20).
//!
//! Made by the daemon, which stores what comes; the proxy asks for a [`Recorder`] for a request whose key is captured. Never
//! waits: bodies beyond their bounds are cut, and exchanges that the disk has no time for are lost and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::types::capture::{CAPTURED_BODY_BYTES, Capture, CaptureEntry, captured_text};
use crate::types::request::RequestRow;

/// Exchanges that may wait for the disk.
const WAITING: usize = 256;
/// Bytes of bodies that are held in memory at most, of requests that run and of exchanges that wait together.
const HELD_BYTES: usize = 32 << 20;

/// Gives recorders. Cloning shares everything.
#[derive(Debug, Clone)]
pub struct CaptureLane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ended: mpsc::Sender<Recorded>,
    held: AtomicUsize,
    lost: AtomicU64,
}

/// Where ended exchanges come out.
pub type Ended = mpsc::Receiver<Recorded>;

/// The first bytes of a body.
#[derive(Debug, Default)]
struct Body {
    first: Vec<u8>,
    whole: u64,
}

/// Keeps the bodies of one request.
#[derive(Debug)]
pub struct Recorder {
    lane: CaptureLane,
    request: Body,
    answer: Body,
}

/// A request that ended, with its bodies as they passed.
#[derive(Debug)]
pub struct Recorded {
    row: RequestRow,
    bodies: Recorder,
}

impl CaptureLane {
    /// A lane and its end.
    #[must_use]
    pub fn new() -> (Self, Ended) {
        let (ended, out) = mpsc::channel(WAITING);
        (Self(Arc::new(Shared { ended, held: AtomicUsize::new(0), lost: AtomicU64::new(0) })), out)
    }

    /// For a request that begins.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder { lane: self.clone(), request: Body::default(), answer: Body::default() }
    }

    /// Exchanges since the start that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    fn may_hold(&self, bytes: usize) -> bool {
        let before = self.0.held.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > HELD_BYTES {
            self.0.held.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }
}

impl Body {
    fn push(&mut self, piece: &[u8], lane: &CaptureLane) {
        let is_cut = (self.first.len() as u64) < self.whole;
        self.whole += piece.len() as u64;
        let room = CAPTURED_BODY_BYTES.saturating_sub(self.first.len());
        let kept = &piece[..piece.len().min(room)];
        if !is_cut && lane.may_hold(kept.len()) {
            self.first.extend_from_slice(kept);
        }
    }
}

impl Recorder {
    /// A piece of the request's body.
    pub fn asked(&mut self, piece: &[u8]) {
        self.request.push(piece, &self.lane);
    }

    /// A piece of the answer's body, as the client gets it.
    pub fn answered(&mut self, piece: &[u8]) {
        self.answer.push(piece, &self.lane);
    }

    /// The request ended: its bodies go to the disk, or are lost when that is slow.
    pub fn send(self, row: &RequestRow) {
        let lane = self.lane.clone();
        if lane.0.ended.try_send(Recorded { row: row.clone(), bodies: self }).is_err() {
            lane.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let held = self.request.first.len() + self.answer.first.len();
        self.lane.0.held.fetch_sub(held, Ordering::Relaxed);
    }
}

impl Recorded {
    /// What was asked for and by whom.
    #[must_use]
    pub fn row(&self) -> &RequestRow {
        &self.row
    }

    /// As it is stored: text without the secret parts of keys. `None` for a request without a key.
    #[must_use]
    pub fn into_capture(self) -> Option<Capture> {
        let Self { row, bodies } = self;
        let (request, request_text) = captured_text(&bodies.request.first, bodies.request.whole);
        let (answer, answer_text) = captured_text(&bodies.answer.first, bodies.answer.whole);
        let entry = CaptureEntry {
            id: row.id,
            at: row.at,
            key: row.key?,
            method: row.method.clone().into_owned(),
            path: row.path.clone().into_owned(),
            model: row.model.as_deref().map(str::to_owned),
            status: row.status,
            request,
            answer,
        };
        Some(Capture { entry, request_text, answer_text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::capture::Kept;
    use crate::types::ids::KeyId;

    fn row() -> RequestRow {
        RequestRow { key: Some(KeyId::parse("Ab12Cd34").expect("id")), ..RequestRow::example(1) }
    }

    #[tokio::test]
    async fn bodies_come_out_in_the_order_of_their_pieces_and_cut_at_their_bound() {
        let (lane, mut ended) = CaptureLane::new();
        let mut recorder = lane.recorder();
        recorder.asked(b"{\"model\":");
        recorder.asked(b"\"m\"}");
        for _ in 0..3 {
            recorder.answered(&vec![b'x'; CAPTURED_BODY_BYTES / 2 + 1]);
        }
        recorder.send(&row());
        let capture = ended.recv().await.expect("an exchange").into_capture().expect("of a key");
        assert_eq!(capture.request_text, "{\"model\":\"m\"}");
        assert_eq!((capture.entry.request.kept, capture.entry.request.bytes), (Kept::Whole, 13));
        assert_eq!(capture.answer_text.len(), CAPTURED_BODY_BYTES);
        assert_eq!((capture.entry.answer.kept, capture.entry.answer.bytes), (Kept::Cut, 1_572_867));
        assert_eq!(lane.0.held.load(Ordering::Relaxed), 0, "nothing is held any more");
    }

    #[tokio::test]
    async fn memory_is_bounded_over_all_requests_and_given_back() {
        let (lane, _ended) = CaptureLane::new();
        let piece = vec![b'x'; CAPTURED_BODY_BYTES];
        let mut recorders: Vec<_> = (0..40).map(|_| lane.recorder()).collect();
        for recorder in &mut recorders {
            recorder.asked(&piece);
        }
        assert_eq!(lane.0.held.load(Ordering::Relaxed), HELD_BYTES);
        assert_eq!(recorders[39].request.first.len(), 0, "cut to nothing");
        recorders.clear();
        assert_eq!(lane.0.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_the_disk_has_no_time_for_is_lost_and_counted() {
        let (lane, ended) = CaptureLane::new();
        for _ in 0..WAITING + 3 {
            lane.recorder().send(&row());
        }
        assert_eq!(lane.lost(), 3);
        drop(ended);
        lane.recorder().send(&row());
        assert_eq!(lane.lost(), 4);
    }
}
