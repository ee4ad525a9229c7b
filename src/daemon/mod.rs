//! The owner of a home: holds its lock, its databases and all live state, hosts the listeners, serves the control
//! socket and keeps the stores up to date (SPEC §1.2).
//!
//! Called by the binaries, through [`launch`]. A daemon is not the proxy: it hosts zero or more listeners, each
//! starting and stopping on its own. Must never answer a client of the proxy itself, and never wait on the disk
//! while holding a lock.

mod certificates;
pub mod console_session;
mod control_server;
mod demo;
mod demo_engine;
mod egress_watch;
mod health;
mod hosting;
pub mod in_process;
mod keeper;
mod key_watch;
pub mod launch;
mod live_lane;
pub mod owner;
mod random;
mod resources;
pub mod runtime;
mod settings_watch;
mod traces;
