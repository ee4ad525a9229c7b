//! Engines: adapters, detection, registry, health, balancing. One file per adapter.
//!
//! Called by `proxy` (resolve, prepare, read), `operations` and `daemon` (detection, health). Must never contact
//! anything that is not registered or being detected on this machine (SPEC §3.7).

pub mod adapter;
pub mod affinity;
mod ask;
pub mod circuit;
mod compatible;
pub mod detection;
mod fault;
pub mod gpu;
pub mod inference_route;
mod llamacpp;
mod lmstudio;
pub mod manage;
mod media;
mod near;
mod ollama;
mod openai;
pub mod own_routes;
pub mod process_controller;
pub mod registry;
pub mod residency;
pub mod resolution;
pub mod slots;
pub mod state;
mod table;
mod vllm;
