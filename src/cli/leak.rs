//! `flm api-keys revoke --ban-addresses`: a key that leaked, dealt with in one step (SPEC §5.7).

use super::output::{self, Format, Output};
use super::prompt::{self, Answer};
use super::session::Session;
use super::table::{Table, time};
use crate::types::calls::keys::{LeakAddress, LeakAnswer, LeakOutcome, LeakReport, LeftOut, PreviewLeak, RevokeLeaked};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::SshSession;
use crate::types::ids::KeyId;
use crate::types::text::escape;

/// Whether the operator agreed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// `--yes`.
    Given,
    /// He is shown what would be done, and asked.
    Asked,
}

/// Shows what the key did and what would be blocked, asks, and does it. Without a terminal and without `--yes` nothing is
/// done.
pub(super) async fn revoke(session: &Session, id: KeyId, consent: Consent) -> Outcome<Output> {
    // Of this terminal, not of the daemon's.
    let ssh = std::env::var("SSH_CONNECTION").ok().as_deref().and_then(SshSession::parse);
    let operator = ssh.map(|ssh| ssh.from);
    let report = session.call(PreviewLeak { id, operator }).await?;
    if consent == Consent::Asked {
        if session.format != Format::Text || !prompt::is_possible() {
            let text = told(&report);
            let output = Output::new(&LeakOutcome { done: false, preview: report, answer: None }, text);
            return Ok(output
                .note("nothing was changed: to revoke the key and block these addresses, say it again with --yes")
                .exit(ErrorCode::InvalidArgument.exit_status()));
        }
        output::note(&told(&report));
        let blocked = report.to_block().len();
        let question = format!("Revoke key {id} and block {}?", counted(blocked, "address", "addresses"));
        if prompt::confirmed(&question)? == Answer::No {
            return Err(Failure::new(ErrorCode::Cancelled, "cancelled: nothing was changed")
                .hint(format!("to revoke the key alone: flm api-keys revoke {id}")));
        }
    }
    let networks = report.to_block();
    let answer = session.call(RevokeLeaked { id, networks, operator }).await?;
    let text = done(&report, &answer, consent);
    Ok(Output::new(&LeakOutcome { done: true, preview: report, answer: Some(answer) }, text)
        .note("a block is lifted with: flm security ip-blocklist unblock ADDRESS"))
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn told(report: &LeakReport) -> String {
    let key = &report.key;
    let state = if key.revoked.is_some() { ", revoked already" } else { "" };
    let mut lines = vec![format!("key {} ({}){state}", key.id, escape(&key.label))];
    let Some((first, last)) = report.span else {
        lines.push(format!("no request with it since {}: nothing to block", time(report.since)));
        return lines.join("\n");
    };
    lines.push(format!(
        "{} requests ({} failed), {} tokens, from {} to {}",
        report.requests,
        report.failed,
        report.tokens,
        time(first),
        time(last)
    ));
    for (what, used) in [("models", &report.models), ("paths", &report.paths)] {
        if !used.is_empty() {
            let used: Vec<_> = used.iter().map(|(name, count)| format!("{} ({count})", escape(name))).collect();
            lines.push(format!("{what}: {}", used.join(", ")));
        }
    }
    let mut table = Table::new(&["ADDRESS", "REQUESTS", "LAST", "WHAT HAPPENS"]);
    for LeakAddress { network, requests, last, left_out } in &report.addresses {
        let fate = left_out.as_ref().map_or_else(|| "is blocked until lifted".to_owned(), reason);
        table.row([network.to_string(), requests.to_string(), time(*last), fate]);
    }
    lines.push(String::new());
    lines.push(table.or("no addresses"));
    lines.join("\n")
}

fn reason(left_out: &LeftOut) -> String {
    match left_out {
        LeftOut::OtherKey { id, label } => format!("left out: it used the valid key {id} ({label})"),
        LeftOut::Trusted => "left out: it is on the trusted list".to_owned(),
        LeftOut::ThisMachine => "left out: it is this machine".to_owned(),
        LeftOut::Operator => "left out: you are connected from there".to_owned(),
        LeftOut::Blocked => "is blocked already".to_owned(),
    }
}

fn done(report: &LeakReport, answer: &LeakAnswer, consent: Consent) -> String {
    let mut lines = Vec::new();
    if consent == Consent::Given {
        lines.push(told(report));
        lines.push(String::new());
    }
    lines.push(format!(
        "key {} is revoked, {} blocked",
        answer.key.id,
        counted(answer.blocked.len(), "address is", "addresses are")
    ));
    lines.join("\n")
}
