//! How long operations tell how far they are: a bounded lane from the operation to whoever asked.
//!
//! Called by the operations that take long, and by `dispatch`, which hands the other end on. Must never hold up an
//! operation because nobody reads: progress that finds the lane full is dropped, since the next tells more.

use std::marker::PhantomData;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::catalogue::Running;
use crate::types::calls::LongCall;
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Lines that wait for the front end: some frames of a fast stream.
const LANE: usize = 256;

/// The operation's end of the lane.
pub struct Reporter<C: LongCall> {
    lane: mpsc::Sender<Bytes>,
    call: PhantomData<fn(C)>,
}

impl<C: LongCall> Reporter<C> {
    /// The end for an operation of this type.
    pub(super) fn new(lane: mpsc::Sender<Bytes>) -> Self {
        Self { lane, call: PhantomData }
    }

    /// An end that nobody listens to.
    #[must_use]
    pub fn unheard() -> Self {
        Self::new(mpsc::channel(1).0)
    }

    /// Tells what must not be lost, such as the words of an answer: waits until there is room for it.
    pub async fn send(&self, progress: impl std::borrow::Borrow<C::Progress>) {
        if let Ok(line) = serde_json::to_vec(progress.borrow()) {
            // Left: the operation is about to be dropped.
            let _left = self.lane.send(line.into()).await;
        }
    }

    /// Tells where the newest counts most; dropped when nobody keeps up.
    pub fn tell(&self, progress: &C::Progress) {
        if let Ok(line) = serde_json::to_vec(progress) {
            // Full or left: the operation goes on, or is about to be dropped.
            let _dropped = self.lane.try_send(line.into());
        }
    }
}

/// A lane: the operation's end, and the end that is read.
pub(super) fn lane() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(LANE)
}

/// A long operation on its way. Dropping it ends it.
pub struct Ongoing {
    work: Option<Running>,
    progress: mpsc::Receiver<Bytes>,
    outcome: Option<Outcome<Bytes>>,
}

/// What comes next of a long operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// How far it is, as JSON.
    Progress(Bytes),
    /// It has ended; nothing comes after this.
    Ended(Outcome<Bytes>),
}

impl Ongoing {
    pub(super) fn new(work: Running, progress: mpsc::Receiver<Bytes>) -> Self {
        Self { work: Some(work), progress, outcome: None }
    }

    /// What comes next; all that was told comes before the end. Cancel-safe.
    pub async fn next(&mut self) -> Line {
        loop {
            if let Some(outcome) = &self.outcome {
                return match self.progress.try_recv() {
                    Ok(line) => Line::Progress(line),
                    Err(_all_told) => Line::Ended(outcome.clone()),
                };
            }
            let Some(work) = &mut self.work else {
                return Line::Ended(Err(Failure::new(ErrorCode::Internal, "an operation ended without an outcome")));
            };
            tokio::select! {
                biased;
                Some(line) = self.progress.recv() => return Line::Progress(line),
                outcome = work => {
                    self.work = None;
                    self.outcome = Some(outcome);
                }
            }
        }
    }
}
