//! [`Operator`]: runs a call where the home's owner is.

use crate::types::calls::Call;
use crate::types::failure::Outcome;
use crate::types::live::LiveLine;

/// Where calls go. (Stub: the control room fills it in.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// A daemon, over its socket.
    Daemon,
    /// An owner in this process, over an in-memory duplex.
    InProcess,
    /// No owner lives: operations run here, holding the lock.
    Alone,
}

/// The operator's hand. Cloned freely.
#[derive(Debug, Clone)]
pub struct Operator {}

impl Operator {
    /// Runs an operation. Dropping the future cancels it.
    ///
    /// # Errors
    /// The operation's own failure, or `IO_ERROR` with "the proxy's daemon is gone" when the owner vanished.
    pub async fn call<C: Call>(&self, call: C) -> Outcome<C::Output> {
        let _ = call;
        todo!()
    }

    /// Subscribes to the live lane: first a snapshot, then events.
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn events(&self) -> Outcome<EventStream> {
        todo!()
    }

    /// Where calls go.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        todo!()
    }
}

/// The live lane as a console reads it.
#[derive(Debug)]
pub struct EventStream {}

impl EventStream {
    /// The next line; `None` when the owner ended or the connection broke. Cancel-safe.
    pub async fn next(&mut self) -> Option<LiveLine> {
        todo!()
    }
}
