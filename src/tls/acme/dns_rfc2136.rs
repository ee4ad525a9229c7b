//! DNS provider `rfc2136`: signed changes at a name server (RFC 2136, RFC 8945), such as BIND or Knot.

use futures_util::future::BoxFuture;

use super::provider::{Fault, Provider, Record, TTL};
use crate::net::dns::message::{Change, Name, Recursion};
use crate::net::dns::tsig::Key;
use crate::net::dns::{DnsClient, DnsError, NameServer};
use crate::types::clock::Clock;

/// A name server that takes changes signed with a key.
#[derive(Debug)]
pub(super) struct Rfc2136 {
    pub(super) dns: DnsClient,
    pub(super) server: NameServer,
    pub(super) key: Key,
    pub(super) clock: Clock,
}

impl Rfc2136 {
    async fn change(&self, record: &Record, change: Change) -> Result<(), Fault> {
        let zone = self.dns.zone(&self.server, &record.name, Recursion::Unwanted).await.map_err(fault)?;
        let Some((zone, name)) = zone else {
            return Err(Fault::new(
                format!("{} serves no zone that {} is in", self.server, record.name),
                "name the server that serves the domain's zone: flm config set acme.dns.rfc2136_server",
            ));
        };
        self.put(&zone, &name, &record.value, change).await
    }

    async fn put(&self, zone: &Name, name: &Name, value: &str, change: Change) -> Result<(), Fault> {
        let now = self.clock.wall();
        self.dns.update(&self.server, &self.key, (zone, name), value, change, now).await.map_err(fault)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn fault(error: DnsError) -> Fault {
    let hint = match &error {
        DnsError::Unreachable { .. } | DnsError::Broken { .. } | DnsError::Slow { .. } => {
            "check acme.dns.rfc2136_server, and that it takes changes over TCP"
        }
        DnsError::NotSigned { .. } => {
            "check acme.dns.user (the key's name), acme.dns.tsig_algorithm and the secret against the server's configuration"
        }
        DnsError::Refused { .. } => "allow the key to change the zone's _acme-challenge records (BIND: update-policy)",
        DnsError::Malformed { .. } => "is a name server on that port?",
    };
    Fault::new(error.to_string(), hint)
}

impl Provider for Rfc2136 {
    fn name(&self) -> &'static str {
        "rfc2136"
    }

    fn set<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.change(record, Change::Add { ttl: TTL }))
    }

    fn remove<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.change(record, Change::Remove))
    }
}
