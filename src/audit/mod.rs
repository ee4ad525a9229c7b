//! Security events on their way to the audit log, hash chain and batched writer (SPEC §5.9), and from there to whom they
//! alert (SPEC §5.10).
//!
//! Every room that meets an event holds a [`Sink`]; the owner of the home starts the writer with [`AuditLog::start`].
//! Must never slow a request: recording is a push into a bounded queue, and what is shed is counted and recorded.

pub mod alerts;
mod archive;
mod chain;
mod head;
mod queue;
mod sink;
mod writer;

pub use archive::{archive, retain};
pub use chain::{Head, verify};
pub use head::{HEAD_PREFIX, NoHead, SignedHead};
pub use sink::{Acknowledgement, Collected, Sink};
pub use writer::AuditLog;
