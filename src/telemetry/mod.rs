//! Counters, histograms, tracing set-up, owned tasks and threads, and the live lane to consoles.
//!
//! Called by every room above `types`. Must never block a request: writers touch their own worker's shard, and
//! what slow readers miss is counted.

pub mod captures;
pub mod collector;
pub mod hashing;
pub mod histogram;
pub mod live;
pub mod log_reader;
pub mod logging;
pub mod metrics;
pub mod priority;
pub mod request_lane;
pub mod tasks;
pub mod usage;
