//! Challenge `dns-01` (RFC 8555 §8.4): TXT records that are set, seen by the world before the directory looks, and removed on
//! every way out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::error::AcmeError;
use super::plan::Dns01;
use super::provider::{Provider, Record};
use crate::net::dns::message::{Name, Recursion};
use crate::net::dns::{DnsClient, DnsError, NameServer};
use crate::net::egress::Egress;
use crate::storage::SecurityStore;
use crate::telemetry::tasks::Tasks;
use crate::tls::supply::Progress;
use crate::types::acme::PlacedRecord;
use crate::types::clock::Clock;
use crate::types::text::escape;

/// How long removing a record may take.
const REMOVAL: Duration = Duration::from_secs(40);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the world is given where nobody can look: behind a proxy this machine's resolvers must not be asked.
const UNSEEN: Duration = Duration::from_secs(20);
/// Servers of a zone that are asked at most: zones have two to four.
const SERVERS: usize = 6;

/// Whose records they are, and where they are noted.
#[derive(Clone)]
pub(super) struct Hand {
    pub(super) provider: Arc<dyn Provider>,
    /// Where a record is noted before it is set, so that one that a crash leaves behind is known.
    pub(super) store: SecurityStore,
    pub(super) clock: Clock,
    /// Owns removals: ends late, after everything that may still set a record.
    pub(super) cleanups: Tasks,
}

impl Hand {
    fn begin_removal(&self, record: Record) -> tokio::task::JoinHandle<()> {
        let Self { provider, store, .. } = self.clone();
        self.cleanups.spawn("removing a TXT record", async move {
            let failed = match timeout(REMOVAL, provider.remove(&record)).await {
                Ok(Ok(())) => {
                    if let Err(error) = store.remove_acme_record(&record.name.to_string(), &record.value).await {
                        tracing::warn!(error = %escape(&error.to_string()), "a TXT record that is gone could not be forgotten");
                    }
                    return;
                }
                Ok(Err(fault)) => fault.reason,
                Err(_elapsed) => format!("it took longer than {} s", REMOVAL.as_secs()),
            };
            tracing::error!(
                name = %record.name, value = record.value, provider = provider.name(), failed,
                "a TXT record stays behind: it is tried again with the next certificate and at the next start, or remove it by hand"
            );
        })
    }
}

/// Begins to remove what an earlier attempt left in the world: one that a crash ended, or whose provider did not answer. Called
/// while no other attempt runs. Answers what may be waited for, and need not.
///
/// # Errors
/// Of the store.
pub(super) async fn remove_left_behind(hand: &Hand) -> Result<Vec<tokio::task::JoinHandle<()>>, AcmeError> {
    let mut removals = Vec::new();
    for PlacedRecord { name, value, provider, .. } in hand.store.acme_records().await? {
        let parsed = Name::parse(&name).ok().filter(|_| provider == hand.provider.name());
        if let Some(name) = parsed {
            tracing::warn!(%name, value, "removing a TXT record that an earlier attempt left behind");
            removals.push(hand.begin_removal(Record { name, value }));
        } else {
            // It is told once: FLM has no way to it any more.
            tracing::error!(
                name = %escape(&name), value = %escape(&value), provider = %escape(&provider),
                "a TXT record stays behind, and another DNS provider is set now: remove it by hand"
            );
            hand.store.remove_acme_record(&name, &value).await?;
        }
    }
    Ok(removals)
}

/// A record that is, or may be, in the world. Dropping it has it removed by a task that outlives whoever set it.
pub(super) struct Placed {
    hand: Hand,
    record: Record,
    /// Whether the removal has begun.
    removed: bool,
}

impl Placed {
    /// Sets a record.
    ///
    /// # Errors
    /// Of the provider; what may have been set is removed then, too. Of the store: nothing was set then.
    pub(super) async fn set(hand: Hand, record: Record) -> Result<Self, AcmeError> {
        let noted = PlacedRecord {
            name: record.name.to_string(),
            value: record.value.clone(),
            provider: hand.provider.name().to_owned(),
            placed: hand.clock.wall(),
        };
        hand.store.put_acme_record(noted).await?;
        // Before the provider is asked: if this future is dropped meanwhile, nobody knows how far it came.
        let placed = Self { hand, record, removed: false };
        match placed.hand.provider.set(&placed.record).await {
            Ok(()) => Ok(placed),
            Err(fault) => Err(fault.into_error(placed.hand.provider.as_ref(), "set", &placed.record)),
        }
    }

    /// Removes the record and waits for it.
    pub(super) async fn remove(mut self) {
        self.removed = true;
        if self.hand.begin_removal(self.record.clone()).await.is_err() {
            tracing::error!("removing a TXT record failed inside FLM");
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.removed {
            // Its end is waited for by whoever ends the clean-ups.
            let _owned = self.hand.begin_removal(self.record.clone());
        }
    }
}

/// Waits until the world sees the records.
///
/// # Errors
/// `NotPropagated` with what is seen instead.
pub(super) async fn visible(
    dns_01: &Dns01,
    egress: &Egress,
    records: &[Record],
    progress: &Progress,
) -> Result<(), AcmeError> {
    let dns = DnsClient::new(egress.clone());
    if dns_01.resolvers.is_empty() && !egress.is_direct() {
        progress.tell(&format!(
            "giving the DNS {} s: behind the egress proxy nobody is asked whether the record is there (acme.dns.resolvers names \
             servers to ask)",
            UNSEEN.as_secs()
        ));
        sleep(UNSEEN).await;
        return Ok(());
    }
    let deadline = Instant::now() + dns_01.propagation;
    let mut wanted: BTreeMap<String, (Name, Vec<&str>)> = BTreeMap::new();
    for record in records {
        let (_, values) = wanted.entry(record.name.to_string()).or_insert_with(|| (record.name.clone(), Vec::new()));
        values.push(&record.value);
    }
    for (name, values) in wanted.values() {
        progress.tell(&format!("waiting until the TXT record {name} can be seen"));
        while let Some(seen) = missing(&dns, &dns_01.resolvers, name, values).await {
            if Instant::now() + PAUSE > deadline {
                return Err(AcmeError::NotPropagated { name: name.to_string(), limit: dns_01.propagation, seen });
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// What is seen instead of the values; `None` when every server tells all of them.
async fn missing(dns: &DnsClient, resolvers: &[NameServer], name: &Name, values: &[&str]) -> Option<String> {
    let (servers, name, recursion) = match resolvers {
        [] => match authoritative(dns, name).await {
            Ok(found) => found,
            Err(why) => return Some(why),
        },
        given => (given.to_vec(), name.clone(), Recursion::Desired),
    };
    for server in &servers {
        match dns.texts(server, &name, recursion).await {
            Ok(texts) if values.iter().all(|value| texts.iter().any(|text| text == value.as_bytes())) => {}
            Ok(texts) => {
                let told: Vec<String> =
                    texts.iter().map(|text| escape(&String::from_utf8_lossy(text)).into_owned()).collect();
                let told = if told.is_empty() { "none".to_owned() } else { told.join(", ") };
                return Some(format!("{server} tells of TXT records: {told}"));
            }
            Err(error) => return Some(error.to_string()),
        }
    }
    None
}

/// The servers of the zone that a name is in, and the name that it stands for. They are asked, and not the resolvers: these
/// would remember for long that the record was not there.
async fn authoritative(dns: &DnsClient, name: &Name) -> Result<(Vec<NameServer>, Name, Recursion), String> {
    let system = tokio::task::spawn_blocking(NameServer::of_system).await.unwrap_or_default();
    let mut why = "this system has no resolver (/etc/resolv.conf): name some in acme.dns.resolvers".to_owned();
    for resolver in &system {
        let found: Result<_, DnsError> = async {
            let Some((zone, real)) = dns.zone(resolver, name, Recursion::Desired).await? else { return Ok(None) };
            Ok(Some((dns.servers(resolver, &zone).await?, real)))
        }
        .await;
        match found {
            Ok(Some((servers, real))) if !servers.is_empty() => {
                return Ok((servers.into_iter().take(SERVERS).collect(), real, Recursion::Unwanted));
            }
            Ok(_) => why = format!("{resolver} knows no zone that {name} is in"),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}
