//! Security events on their way to the audit log. (Stub: the audit room fills it in.)

use crate::types::audit::AuditEvent;

/// Where events go. Cloned freely.
#[derive(Debug, Clone)]
pub struct Sink {}

impl Sink {
    /// Records an event; never blocks, sheds the lowest severity when full.
    pub fn record(&self, event: AuditEvent) {
        let _ = event;
        todo!()
    }

    /// Records an event and waits until it is on disk: for changes of keys and policy.
    pub async fn record_acknowledged(&self, event: AuditEvent) {
        let _ = event;
        todo!()
    }
}
