//! What goes wrong, as the operator reads it: a code, what happened, why, and what to do next.
//!
//! Shared by command line, admin API and console (SPEC §2). The proxy's own codes for clients are in
//! `proxy::refusal`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The error codes of SPEC §2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// No engine has that id.
    EngineNotFound,
    /// The engine could not be reached.
    EngineNetworkError,
    /// The engine refused, or answered something that it should not.
    EngineApiError,
    /// The engine did not answer in time.
    EngineTimeout,
    /// The listener already runs.
    ProxyAlreadyRunning,
    /// Another program holds the port.
    ProxyPortInUse,
    /// A certificate could not be read, made or used.
    ProxyCertFailed,
    /// The ACME directory refused or failed.
    ProxyAcmeError,
    /// A setting or option of the proxy is wrong.
    ProxyInvalidConfig,
    /// The security policy is wrong.
    PolicyInvalid,
    /// A setting that is needed has no value.
    ConfigNotSet,
    /// Nothing has that name.
    NotFound,
    /// The home or the connection is read-only.
    ReadOnly,
    /// A database could not be opened, read or written.
    DbError,
    /// A database could not be brought to this version's schema.
    MigrationFailed,
    /// A file or socket could not be read or written.
    IoError,
    /// An argument is wrong.
    InvalidArgument,
    /// The operator left before it was done.
    Cancelled,
    /// A fault inside FLM.
    Internal,
}

impl ErrorCode {
    /// The exit status of a command that ends with this code: 1 when the operator can mend it, 2 when the
    /// fault is inside (SPEC §2: database and I/O faults exit 2, others 1).
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::DbError | Self::MigrationFailed | Self::IoError | Self::Internal => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        f.write_str(&name)
    }
}

/// An operation that failed, told to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, schemars::JsonSchema)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What happened and why, with the values that matter.
    pub message: String,
    /// What to do next, as a sentence or a command to type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// A value that would do in place of the refused one, for a form to offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The request it belongs to, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, suggestion: None, request_id: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a value that would do in place of the refused one.
    #[must_use]
    pub fn suggest(mut self, value: impl Into<String>) -> Self {
        self.suggestion = Some(value.into());
        self
    }
}

/// The result of every operation.
pub type Outcome<T> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_spelled_as_the_specification_spells_them() {
        assert_eq!(ErrorCode::ProxyPortInUse.to_string(), "PROXY_PORT_IN_USE");
        assert_eq!(ErrorCode::DbError.exit_status(), 2);
        assert_eq!(ErrorCode::NotFound.exit_status(), 1);
    }
}
