//! First stages: may this address come in, and is it not too fast? (SPEC §4.2: client address, lists, per-address rate
//! and in-flight limit.)

use http::request::Parts;

use super::exchange::{Accepted, Exchange, Screened};
use super::refusal::Refusal;
use super::rules;
use crate::guard::gcra::RateDecision;
use crate::guard::{AddressVerdict, Standing, retry_after_seconds};
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::listener::Exposure;
use crate::types::policy::Mode;

/// Admits or refuses an address.
pub(super) fn lists(exchange: &mut Exchange, parts: Box<Parts>) -> Result<Accepted, Refusal> {
    let shared = &exchange.peer.worker.shared;
    let (guard, client) = (&shared.guard, exchange.client);
    let seems_local = client.is_loopback() || guard.exposure().now() == Exposure::Local;
    if seems_local && exchange.peer.forwards(&parts.headers) && guard.exposure().notice() {
        exchange.went_public("a request came with a forwarding header: something forwards to this proxy");
    }
    exchange.standing = exchange.peer.standing(client, &parts.headers);
    let refusal = match guard.address(client, exchange.standing, exchange.at) {
        AddressVerdict::Allowed => return Ok(Accepted { parts }),
        AddressVerdict::Blocked(block) => (Refusal::ip_blocked(), format!("blocked by {}", block.network)),
        AddressVerdict::NotAllowed => (Refusal::ip_not_allowed(), "not on the allow list".to_owned()),
    };
    exchange.audit(AuditKind::AddressRefused, Severity::Low, refusal.0.status, refusal.1);
    // Whoever may not come in holds no connection either; a proxy's carries others too.
    if exchange.client == exchange.peer.address {
        exchange.ends_connection();
    }
    Err(refusal.0)
}

/// Counts the request against its address.
pub(super) fn rate(exchange: &mut Exchange, accepted: Accepted) -> Result<Accepted, Refusal> {
    // Trusted addresses are the operator's own: a local job may go as fast as its key allows (SPEC §5.2).
    if exchange.standing == Standing::Trusted {
        return Ok(accepted);
    }
    let shared = exchange.peer.worker.shared.clone();
    let policy = shared.guard.policy();
    let arrival = shared.guard.arrive(&policy, exchange.client, shared.clock.monotonic());
    if arrival.burst {
        rules::burst(exchange, &accepted.parts.headers);
    }
    if let RateDecision::Limited { retry_after, .. } = arrival.rate {
        let refusal = Refusal::rate_limited("Too many requests from your address.", retry_after_seconds(retry_after));
        exchange.limit(policy.address_rate.mode, refusal, "per-address rate")?;
    }
    if let Some(place) = arrival.place {
        exchange.account.counted_for_address(place);
    } else {
        let most = policy.address_in_flight.most;
        let refusal = Refusal::rate_limited(format!("Your address may run {most} requests at once."), 1);
        exchange.limit(policy.address_in_flight.mode, refusal, "per-address requests in flight")?;
    }
    Ok(accepted)
}

/// Takes no new work while the machine is at its end (SPEC §5.8): before a key is checked, which costs most. What needs no
/// key is answered still, so that whoever watches FLM sees it.
pub(super) fn overload(exchange: &Exchange, screened: Screened) -> Result<Screened, Refusal> {
    match exchange.peer.worker.shared.guard.overload() {
        None => Ok(screened),
        Some(_) => Err(Refusal::overloaded("This server protects its machine and takes no new work for a moment.")),
    }
}

impl Exchange {
    /// Refuses by a limit, or says that it would.
    fn limit(&self, mode: Mode, refusal: Refusal, limit: &str) -> Result<(), Refusal> {
        match mode {
            Mode::Off => Ok(()),
            Mode::Simulate => {
                self.audit(AuditKind::Simulated, Severity::Low, refusal.status, format!("would refuse: {limit}"));
                Ok(())
            }
            Mode::Enforce => {
                self.audit(AuditKind::RateLimited, Severity::Low, refusal.status, limit.to_owned());
                Err(refusal)
            }
        }
    }

    /// Tells that the endpoint counts as public from now on.
    pub(super) fn went_public(&self, why: &str) {
        let shared = &self.peer.worker.shared;
        tracing::warn!(why, "the endpoint counts as public from now on: all rules guard it");
        let details = format!("the endpoint counts as public from now on: {why}; guard.exposure=local says otherwise");
        shared.audit.record(AuditEvent::new(shared.clock.wall(), AuditKind::PolicyChanged, Severity::Medium, details));
    }

    /// Records a security event about this request.
    pub(super) fn audit(&self, kind: AuditKind, severity: Severity, status: http::StatusCode, details: String) {
        let mut event = AuditEvent::new(self.peer.worker.shared.clock.wall(), kind, severity, details);
        event.status = Some(status.as_u16());
        self.record(event);
    }

    /// Records a security event with what is known of this request.
    pub(super) fn record(&self, event: AuditEvent) {
        self.peer.worker.shared.audit.record(self.of_request(event));
    }

    /// A security event with what is known of this request.
    pub(super) fn of_request(&self, mut event: AuditEvent) -> AuditEvent {
        event.request_id = Some(self.id);
        event.address = Some(self.client);
        event.key = self.key.as_ref().map(|key| key.record.view.id);
        event.endpoint = self.account.path();
        event.engine = self.account.engine();
        event.latency_ms = Some(self.account.milliseconds());
        event
    }
}
