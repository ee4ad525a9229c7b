//! Names and colours of what several tabs show: severities and kinds of security events, failures, and pages
//! that were not read.

use crate::tui::text::{Words, wrap};
use crate::tui::theme::Role;
use crate::tui::world::Page;
use crate::types::audit::{AuditKind, Severity};
use crate::types::failure::Failure;
use crate::types::text::escape;

/// What stands in the place of a page that was not read yet: why that failed and what to do, or that it goes on. An empty
/// list would say that there is nothing.
#[must_use]
pub fn unread<T>(words: &Words, page: &Page<T>) -> Option<Vec<(String, Role)>> {
    match (&page.value, &page.failure) {
        (Some(_), _) => None,
        (None, Some(failure)) => Some(told(failure)),
        (None, None) => Some(vec![(words.say("link.reading").into_owned(), Role::Muted)]),
    }
}

/// A failure with what to do about it.
#[must_use]
pub fn told(failure: &Failure) -> Vec<(String, Role)> {
    let hint = failure.hint.iter().map(|hint| (hint, Role::Muted));
    let id = failure.request_id.iter().map(|id| (id, Role::Muted));
    let all = std::iter::once((&failure.message, Role::Error)).chain(hint).chain(id);
    all.map(|(text, role)| (escape(text).into_owned(), role)).collect()
}

/// The same in lines of at most `cells`, for boxes that know their height from them.
#[must_use]
pub fn told_within(failure: &Failure, cells: usize) -> Vec<(String, Role)> {
    let lines = told(failure).into_iter();
    lines.flat_map(|(line, role)| wrap(&line, cells).into_iter().map(move |line| (line, role))).collect()
}

/// The key of a severity's name and its colour.
#[must_use]
pub fn severity(severity: Severity) -> (&'static str, Role) {
    match severity {
        Severity::Low => ("severity.low", Role::Muted),
        Severity::Medium => ("severity.medium", Role::Info),
        Severity::High => ("severity.high", Role::Warn),
        Severity::Critical => ("severity.critical", Role::Error),
    }
}

/// The key of a kind's name.
#[must_use]
pub fn kind(kind: AuditKind) -> &'static str {
    match kind {
        AuditKind::AuthenticationOk => "audit.authentication_ok",
        AuditKind::AuthenticationMissing => "audit.authentication_missing",
        AuditKind::AuthenticationFailed => "audit.authentication_failed",
        AuditKind::AddressRefused => "audit.address_refused",
        AuditKind::RateLimited => "audit.rate_limited",
        AuditKind::PermissionDenied => "audit.permission_denied",
        AuditKind::BlockAdded => "audit.block_added",
        AuditKind::BlockLifted => "audit.block_lifted",
        AuditKind::KeyChanged => "audit.key_changed",
        AuditKind::PolicyChanged => "audit.policy_changed",
        AuditKind::ListenerChanged => "audit.listener_changed",
        AuditKind::FirewallChanged => "audit.firewall_changed",
        AuditKind::EngineChanged => "audit.engine_changed",
        AuditKind::RuleHit => "audit.rule_hit",
        AuditKind::Simulated => "audit.simulated",
        AuditKind::ResourceAlert => "audit.resource_alert",
        AuditKind::PromptChanged => "audit.prompt_changed",
        AuditKind::TorUnreachable => "audit.tor_unreachable",
        AuditKind::EgressFailOpenTriggered => "audit.egress_fail_open_triggered",
        AuditKind::EgressRecovered => "audit.egress_recovered",
        AuditKind::KeyInClear => "audit.key_in_clear",
        AuditKind::CertificateChanged => "audit.certificate_changed",
        AuditKind::Maintenance => "audit.maintenance",
        AuditKind::Restored => "audit.restored",
    }
}
