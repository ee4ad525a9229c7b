//! Worker threads as the proxy sees them. `daemon/runtime.rs` makes the threads; nothing else knows the shape.

use std::sync::Arc;

use super::shared::ProxyShared;

/// Handles to all workers; a listener hands each accepted connection to the least loaded one.
#[derive(Clone)]
pub struct Workers {}

impl Workers {
    /// Makes the handles for `count` workers, and for each the future that its thread must run until it ends.
    pub fn new(
        count: usize,
        shared: &Arc<ProxyShared>,
    ) -> (Self, Vec<Box<dyn FnOnce() -> std::pin::Pin<Box<dyn Future<Output = ()>>> + Send>>) {
        let _ = (count, shared);
        todo!()
    }

    /// Tells all workers to end once their connections are gone, at most after `patience`.
    pub async fn shutdown(&self, patience: std::time::Duration) {
        let _ = patience;
        todo!()
    }
}
