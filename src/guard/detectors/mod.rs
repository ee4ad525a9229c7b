//! Detectors: what in a request's head gives an attacker away (SPEC §5.4 to §5.6). One file for each; `DETECTORS` is the
//! list that everything walks.
//!
//! Called by `proxy` for every request of a public endpoint, and by `operations` for requests of a log. They look at
//! method, path, query and headers and never at a body; credentials are passed over and never quoted. A detector only
//! says what it saw: points, modes and blocks are the policy's and `suspects`' business.

mod code_injection;
mod decode;
pub mod head;
mod honeypot;
mod markup_code;
mod missing_agent;
mod oversized_body;
mod path_traversal;
mod scanner_agent;
mod shell_code;
mod sql_injection;
mod sql_token;
mod sql_words;
mod template_code;
mod unusual_method;

use self::head::{Head, Piece};
pub use self::honeypot::{Page, Trap};
use super::suspects::Finding;
use crate::guard::key_text::PREFIX;
use crate::types::policy::{HoneypotPath, Mode, RuleName, SecurityPolicy};
use crate::types::text::escape;

/// Longest quotation of what was found, in characters.
const QUOTED: usize = 120;

/// What one detector sees.
struct Sight<'a> {
    head: &'a Head<'a>,
    /// Pieces that are worth a look.
    pieces: &'a [Piece<'a>],
    /// Paths that the operator added.
    traps: &'a [HoneypotPath],
}

/// How a rule comes to be met.
#[derive(Clone, Copy)]
enum Asked {
    /// By one head: answers what was found and where.
    OfHead(for<'a> fn(&Sight<'a>) -> Option<String>),
    /// By what happens at a stage, often by counting: [`super::Guard::count`], [`super::Guard::arrive`].
    AtStage,
}

/// One line for each rule.
struct Detector {
    rule: RuleName,
    asked: Asked,
}

/// Every rule, in the order in which it is asked.
const DETECTORS: &[Detector] = &[
    Detector { rule: RuleName::SqlInjection, asked: Asked::OfHead(|sight| in_pieces(sight, sql_injection::look)) },
    Detector { rule: RuleName::PathTraversal, asked: Asked::OfHead(|sight| in_pieces(sight, path_traversal::look)) },
    Detector { rule: RuleName::CodeInjection, asked: Asked::OfHead(|sight| in_pieces(sight, code_injection::look)) },
    Detector { rule: RuleName::ScannerAgent, asked: Asked::OfHead(scanner_agent::look) },
    Detector { rule: RuleName::MissingAgent, asked: Asked::OfHead(missing_agent::look) },
    Detector { rule: RuleName::UnusualMethod, asked: Asked::OfHead(unusual_method::look) },
    Detector { rule: RuleName::OversizedBody, asked: Asked::OfHead(oversized_body::look) },
    Detector { rule: RuleName::Honeypot, asked: Asked::OfHead(honeypot::look) },
    Detector { rule: RuleName::ManyNotFound, asked: Asked::AtStage },
    Detector { rule: RuleName::UnknownEndpoint, asked: Asked::AtStage },
    Detector { rule: RuleName::RequestBurst, asked: Asked::AtStage },
    Detector { rule: RuleName::RepeatedBody, asked: Asked::AtStage },
    Detector { rule: RuleName::HeldOpen, asked: Asked::AtStage },
];

/// Everything that the head gives away. Costs next to nothing when that is nothing.
pub fn look(policy: &SecurityPolicy, head: &Head<'_>) -> Vec<Finding> {
    let mut pieces = head::pieces(head);
    if !pieces.is_empty() && matches!(trap(policy, head.uri.path()), Some(Trap::Page(_))) {
        // A trap scores as a trap, once (SPEC §5.6).
        pieces.retain(|piece| piece.place != head::Place::Path);
    }
    let sight = Sight { head, pieces: &pieces, traps: &policy.honeypot_paths };
    let mut findings = Vec::new();
    for detector in DETECTORS {
        if let Asked::OfHead(look) = detector.asked
            && policy.rules.scoring(detector.rule).mode != Mode::Off
            && let Some(evidence) = look(&sight)
        {
            findings.push(Finding::new(detector.rule, evidence));
        }
    }
    findings
}

/// The trap that a path is, if it is one (SPEC §5.6).
pub fn trap(policy: &SecurityPolicy, path: &str) -> Option<Trap> {
    (policy.rules.honeypot.mode != Mode::Off).then(|| honeypot::trap(path, &policy.honeypot_paths)).flatten()
}

/// Whether a request is one that every crawler and browser makes: it says nothing about who asks (SPEC §5.4).
pub fn says_nothing(head: &Head<'_>) -> bool {
    let path = head.uri.path();
    head.uri.query().is_none()
        && (matches!(path, "/robots.txt" | "/favicon.ico") || path == "/" && *head.method == http::Method::HEAD)
}

/// The first piece that a detector recognises, as evidence.
fn in_pieces(sight: &Sight<'_>, look: fn(&Piece<'_>) -> Option<&'static str>) -> Option<String> {
    sight.pieces.iter().find_map(|piece| {
        let shape = look(piece)?;
        let place = piece.place.title();
        Some(match piece.place {
            // A cookie may be somebody's session.
            head::Place::Cookie => format!("{place}: {shape}"),
            _ => format!("{place}: {shape} in \"{}\"", quoted(piece.views.final_text())),
        })
    })
}

/// Outside text, cut, escaped and without keys.
fn quoted(text: &str) -> String {
    let mut out: String = text.chars().take(QUOTED).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    if let Some(at) = out.find(PREFIX) {
        out.truncate(at + PREFIX.len());
        out.push('…');
    }
    escape(&out).into_owned()
}

#[cfg(test)]
mod tests;
