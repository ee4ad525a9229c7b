//! Engines: adapters, detection, registry, health, balancing. One file per adapter.
//!
//! Called by `proxy` (resolve, prepare, read), `operations` and `daemon` (detection, health). Must never contact
//! anything that is not registered or being detected on this machine (SPEC §3.7).

pub mod adapter;
pub mod detection;
pub mod registry;
