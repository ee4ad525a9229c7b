//! [`AcmeError`]: why a directory gave no certificate, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use crate::storage::StorageError;
use crate::types::calendar::moment;
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure};
use crate::types::text::escape;

/// How a problem of ACME is named (RFC 8555 §6.7); what follows says which.
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// Why there is no certificate from the directory.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// It did not answer, or not as a directory does.
    #[error("the ACME directory {directory} cannot be used: {reason}")]
    Unreachable {
        /// Its URL.
        directory: String,
        /// What was seen.
        reason: String,
        /// How far this machine's clock is off, where that may be why.
        skew: Option<Skew>,
    },
    /// It said no.
    #[error("the ACME directory refused {step}: {problem}")]
    Refused {
        /// What was asked of it.
        step: &'static str,
        /// What it said.
        problem: Problem,
        /// When it wants to be asked again.
        retry: Option<UnixMillis>,
        /// How far this machine's clock is off, where that may be why.
        skew: Option<Skew>,
    },
    /// It could not check a domain.
    #[error("{domain} could not be checked by {challenge}: {problem}")]
    NotValidated {
        /// Which domain.
        domain: String,
        /// How it was checked.
        challenge: &'static str,
        /// What the directory saw.
        problem: Problem,
    },
    /// It does not offer the challenge that is set.
    #[error("the ACME directory does not check {domain} by {challenge}; it offers {offered}")]
    NotOffered {
        /// Which domain.
        domain: String,
        /// What is set.
        challenge: &'static str,
        /// What it offers.
        offered: String,
    },
    /// The whole attempt took too long.
    #[error("the ACME directory gave no certificate within {} s; the last step was: {step}", .limit.as_secs())]
    Slow {
        /// How long it had.
        limit: Duration,
        /// What was being done.
        step: String,
    },
    /// The TXT record cannot be seen.
    #[error("the TXT record {name} did not appear within {} s: {seen}", .limit.as_secs())]
    NotPropagated {
        /// Its name.
        name: String,
        /// How long it had.
        limit: Duration,
        /// What the name servers say instead.
        seen: String,
    },
    /// The TXT record could not be set or removed.
    #[error("the DNS provider {provider} did not {action} the TXT record {name}: {reason}")]
    Provider {
        /// Which kind of provider.
        provider: &'static str,
        /// "set" or "remove".
        action: &'static str,
        /// The record's name.
        name: String,
        /// Why not.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The last attempts failed, and it is too early for another one.
    #[error("{failures} attempts failed, the last one on {}: {why}; the next one is made after {}", moment(*.last), moment(*.next))]
    TooEarly {
        /// Failures in a row.
        failures: u32,
        /// When the last one was.
        last: UnixMillis,
        /// Why it failed.
        why: String,
        /// No attempt before that.
        next: UnixMillis,
        /// Whether the directory named that time.
        named_by_directory: bool,
    },
    /// The last attempt failed, and the next one is not due yet.
    #[error("{why}")]
    Earlier {
        /// Why it failed.
        why: String,
        /// When the next one is due.
        next: UnixMillis,
    },
    /// A key, request or stored account could not be made or read.
    #[error("{0}")]
    Inside(String),
    /// A secret's file is not private.
    #[error("{} cannot be used for a secret: {reason}", escape(&.path.to_string_lossy()))]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A problem document (RFC 7807) as a directory sends it, made safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind, without the prefix that all of them share, such as `rateLimited`.
    pub kind: String,
    /// The directory's own words, with those on single domains.
    pub detail: String,
}

impl Problem {
    /// Takes a problem over from the ACME client.
    pub(super) fn of(problem: &instant_acme::Problem) -> Self {
        /// Longest text that is shown.
        const LONGEST: usize = 600;
        let kind = problem.r#type.as_deref().unwrap_or("unknown");
        let mut detail = problem.detail.clone().unwrap_or_default();
        for one in &problem.subproblems {
            detail.push_str("; ");
            detail.push_str(&one.to_string());
        }
        let short = |text: &str| escape(&text.chars().take(LONGEST).collect::<String>()).into_owned();
        Self { kind: short(kind.strip_prefix(PROBLEM).unwrap_or(kind)), detail: short(detail.trim()) }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.as_str() {
            "" => f.write_str(&self.kind),
            detail => write!(f, "{detail} ({})", self.kind),
        }
    }
}

/// How far this machine's clock is from the directory's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// What this machine says.
    pub here: UnixMillis,
    /// What the directory says.
    pub there: UnixMillis,
}

impl AcmeError {
    /// When the directory wants to be asked again, where it said so.
    pub(super) fn retry(&self) -> Option<UnixMillis> {
        match self {
            Self::Refused { retry, .. } => *retry,
            _ => None,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Unreachable { skew: Some(skew), .. } | Self::Refused { skew: Some(skew), .. } => skew.hint(),
            Self::Unreachable { .. } => {
                "check this machine's way out (flm proxy status shows the egress) and acme.directory; a directory with \
                 a root of its own needs acme.ca_file"
                    .to_owned()
            }
            Self::Refused { problem, retry, .. } => refused_hint(problem, *retry),
            Self::NotValidated { challenge, problem, .. } => validation_hint(challenge, problem),
            Self::NotOffered { .. } => "choose another: flm config set acme.challenge http-01|dns-01".to_owned(),
            Self::Slow { .. } => {
                "it is tried again by itself; if it stays slow, look at the directory's status page".to_owned()
            }
            Self::NotPropagated { name, .. } => format!(
                "look at it with: dig +trace TXT {name}; is the provider the one that serves the zone? Slow ones need a longer \
                 acme.dns.propagation_timeout"
            ),
            Self::Provider { hint, .. } => hint.clone(),
            Self::TooEarly { named_by_directory: true, .. } => {
                "the directory itself asked to wait that long; trying again before costs more of its limits".to_owned()
            }
            Self::TooEarly { .. } => {
                "mend the cause, then try at once with: flm security certificate renew; the staging directory has wider limits \
                 (acme.production = false)"
                    .to_owned()
            }
            Self::Earlier { next, .. } => {
                format!("it is tried again after {}, or at once with: flm security certificate renew", moment(*next))
            }
            Self::Inside(_) => "the log says more; please report it".to_owned(),
            Self::SecretFile { path, .. } => {
                format!("make it readable by the user that runs FLM alone: chmod 600 {}", escape(&path.to_string_lossy()))
            }
            Self::Storage(error) => error.to_string(),
        }
    }
}

impl Skew {
    fn hint(self) -> String {
        format!(
            "this machine's clock says {} and the directory's {}: set it (timedatectl set-ntp true), then try again",
            moment(self.here),
            moment(self.there)
        )
    }
}

/// RFC 8555 §6.7 lists the kinds.
fn refused_hint(problem: &Problem, retry: Option<UnixMillis>) -> String {
    match problem.kind.as_str() {
        "rateLimited" => match retry {
            Some(at) => format!("its limits allow another attempt after {}; until then use the staging directory", moment(at)),
            None => "its limits are used up: wait some hours, and use the staging directory for trying".to_owned(),
        },
        "rejectedIdentifier" | "unsupportedIdentifier" => {
            "it gives no certificate for that name: is it spelled right, and yours? See acme.domains".to_owned()
        }
        "externalAccountRequired" => {
            "it wants an external account: get key id and HMAC key from it, then set acme.eab.key_id and acme.eab.hmac_file"
                .to_owned()
        }
        "userActionRequired" => "it has new terms or wants something else of you: open the address in its message".to_owned(),
        "invalidContact" | "unsupportedContact" => "check the mail addresses in acme.contact".to_owned(),
        "caa" => "the domain's CAA record names other authorities: add this one to it, or remove the record".to_owned(),
        "unauthorized" => "check acme.eab.key_id and its HMAC key, and that the account was not closed".to_owned(),
        "malformed" | "badCSR" | "badSignatureAlgorithm" | "badPublicKey" => {
            "the log says more; please report it, with the name of the directory".to_owned()
        }
        _ => "it is tried again by itself; the directory's status page may say more".to_owned(),
    }
}

fn validation_hint(challenge: &str, problem: &Problem) -> String {
    match (challenge, problem.kind.as_str()) {
        (_, "caa") => "the domain's CAA record names other authorities: add this one to it, or remove the record".to_owned(),
        ("http-01", "dns") => {
            "the domain has no address that the directory can find: add an A or AAAA record with this machine's public address"
                .to_owned()
        }
        ("http-01", "unauthorized") => {
            "another server answered under that name: does the domain point to this machine, and does its router send port 80 here?"
                .to_owned()
        }
        ("http-01", _) => {
            "the directory calls port 80 of the domain from outside: let it through the firewall, have the router forward it to the \
             plain port, or use --acme-challenge dns-01"
                .to_owned()
        }
        _ => "the directory does not see the TXT record: is the DNS provider the one that serves the zone?".to_owned(),
    }
}

impl From<AcmeError> for Failure {
    fn from(error: AcmeError) -> Self {
        let hint = error.hint();
        match error {
            AcmeError::Storage(error) => error.into(),
            error => Self::new(ErrorCode::ProxyAcmeError, error.to_string()).hint(hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_in_the_directorys_words_with_a_next_step() {
        let told: instant_acme::Problem = serde_json::from_str(
            r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no\u001b[31m certificates for that",
                "subproblems":[{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"forbidden",
                "identifier":{"type":"dns","value":"a.example"}}]}"#,
        )
        .expect("a problem");
        let problem = Problem::of(&told);
        assert_eq!(problem.kind, "rejectedIdentifier");
        let error = AcmeError::Refused { step: "the order", problem, retry: None, skew: None };
        let failure = Failure::from(error);
        assert_eq!(failure.code, ErrorCode::ProxyAcmeError);
        for part in ["the order", "no\\x1b[31m certificates", "a.example", "forbidden"] {
            assert!(failure.message.contains(part), "{part} in {}", failure.message);
        }
        assert!(failure.hint.expect("a hint").contains("acme.domains"));
    }

    #[test]
    fn a_wrong_clock_is_the_hint_where_it_may_be_the_cause() {
        let skew = Some(Skew { here: UnixMillis(0), there: UnixMillis(1_790_000_000_000) });
        let error = AcmeError::Unreachable { directory: "https://ca.example".into(), reason: "TLS".into(), skew };
        assert!(error.hint().contains("clock says 1970") && error.hint().contains("timedatectl"), "{}", error.hint());
    }

    #[test]
    fn every_kind_of_failed_check_has_a_next_step_of_its_own() {
        let problem = |kind: &str| Problem { kind: kind.into(), detail: String::new() };
        let hints: std::collections::BTreeSet<String> = [
            ("http-01", "dns"),
            ("http-01", "unauthorized"),
            ("http-01", "connection"),
            ("dns-01", "unauthorized"),
            ("dns-01", "caa"),
        ]
        .into_iter()
        .map(|(challenge, kind)| validation_hint(challenge, &problem(kind)))
        .collect();
        assert_eq!(hints.len(), 5);
    }
}
