//! The one handle that front ends hold: [`Operator`].
//!
//! Called by `cli` and `tui`, and served by `daemon`. Speaks HTTP/1.1 over the control socket or over an
//! in-memory duplex, one connection per call; runs operations itself only when no owner lives. Must never keep
//! state of its own.

pub mod dialer;
pub mod exchange;
pub mod firewall;
pub mod launcher;
pub mod offline;
pub mod operator;
pub mod ownership;
pub mod protocol;
pub mod request;

pub use operator::{Attachment, EventStream, Following, Operator, Step};
