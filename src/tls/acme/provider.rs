//! [`Provider`]: sets and removes TXT records somewhere. One file per kind; a new one is a line in [`super::plan`].

use futures_util::future::BoxFuture;

use super::error::AcmeError;
use crate::net::dns::message::Name;

/// How long others may keep a record, seconds: it is gone within minutes, and providers take no less.
pub(super) const TTL: u32 = 60;

/// A TXT record that proves a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// `_acme-challenge.` and the domain.
    pub(super) name: Name,
    /// The digest of the key authorization (RFC 8555 §8.4).
    pub(super) value: String,
}

/// Sets and removes TXT records. A name may carry several: a domain and its wildcard share it.
pub(super) trait Provider: Send + Sync + std::fmt::Debug {
    /// As the setting names it.
    fn name(&self) -> &'static str;

    /// Adds a record; those that are there stay.
    fn set<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>>;

    /// Removes exactly this record; fine when it is not there. Asked on every way out, also when setting it failed or was
    /// broken off.
    fn remove<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>>;
}

/// Why a provider did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What it said, made safe to show.
    pub(super) reason: String,
    /// What to do.
    pub(super) hint: String,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }

    pub(super) fn into_error(self, provider: &dyn Provider, action: &'static str, record: &Record) -> AcmeError {
        let Self { reason, hint } = self;
        AcmeError::Provider { provider: provider.name(), action, name: record.name.to_string(), reason, hint }
    }
}
