//! A graphics processor of this machine, as its driver tells (SPEC §3.10).

use serde::{Deserialize, Serialize};

/// What its driver tells; every figure is absent where it tells none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct GpuView {
    /// Such as `NVIDIA GeForce RTX 4090`; outside text.
    pub name: String,
    /// How much of the last moment it worked, percent.
    pub busy: Option<u8>,
    /// Bytes of its memory in use.
    pub memory_used: Option<u64>,
    /// Bytes of its memory.
    pub memory_total: Option<u64>,
    /// Degrees Celsius.
    pub celsius: Option<i16>,
}
