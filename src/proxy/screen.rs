//! Second stage: may this address come in, and is it not too fast? (SPEC §4.2: client address, lists, rules,
//! per-address rate.)

use super::account::Stage;
use super::exchange::{Accepted, Exchange, Screened};
use super::refusal::Refusal;
use crate::guard::gcra::RateDecision;
use crate::guard::{AddressVerdict, retry_after_seconds};
use crate::types::audit::{AuditEvent, AuditKind, Severity};

/// Admits or refuses an address.
pub(super) fn admit(exchange: &mut Exchange, accepted: Accepted) -> Result<Screened, Refusal> {
    let shared = &exchange.peer.worker.shared;
    let address = exchange.peer.address;
    let refusal = match shared.guard.address(address, shared.clock.wall()) {
        AddressVerdict::Allowed => None,
        AddressVerdict::Blocked(entry) => Some((Refusal::ip_blocked(), format!("blocked by {}", entry.network))),
        AddressVerdict::NotAllowed => Some((Refusal::ip_not_allowed(), "not on the allow list".to_owned())),
    };
    if let Some((refusal, why)) = refusal {
        exchange.audit(AuditKind::AddressRefused, Severity::Low, refusal.status, why);
        return Err(refusal);
    }
    // Trusted addresses are the operator's own: a local job may go as fast as its key allows (SPEC §5.2).
    if !shared.guard.trusted(address)
        && let RateDecision::Limited { retry_after, .. } = shared.guard.address_rate(address, shared.clock.monotonic())
    {
        let refusal = Refusal::rate_limited("Too many requests from your address.", retry_after_seconds(retry_after));
        exchange.audit(AuditKind::RateLimited, Severity::Low, refusal.status, "per-address rate".to_owned());
        return Err(refusal);
    }
    exchange.account.mark(Stage::Screened);
    Ok(Screened { parts: accepted.parts })
}

impl Exchange {
    /// Records a security event about this request.
    pub(super) fn audit(&self, kind: AuditKind, severity: Severity, status: http::StatusCode, details: String) {
        let shared = &self.peer.worker.shared;
        let mut event = AuditEvent::new(shared.clock.wall(), kind, severity, details);
        event.request_id = Some(self.id);
        event.address = Some(self.peer.address);
        event.key = self.key.as_ref().map(|key| key.record.view.id);
        event.status = Some(status.as_u16());
        event.endpoint = self.account.path();
        shared.audit.record(event);
    }
}
