//! Per-worker counters
