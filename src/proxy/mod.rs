//! Listener, pipeline, relay: a request's way from socket to engine and back (SPEC §4).
//!
//! Called by `daemon`. Must never touch storage: no disk on the hot path.

pub mod limits;
pub mod prompt;
pub mod service;
pub mod shared;
pub mod worker;
