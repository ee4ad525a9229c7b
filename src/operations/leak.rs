//! What to do when a key leaks, in one step: revoke it, list what it did, block the addresses that used it (SPEC §5.7).
//!
//! Whoever belongs here must not be locked out with the thief: addresses that used another valid key, trusted ones, this
//! machine and the operator's own are left out, each with the reason.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use ipnet::IpNet;

use super::context::Context;
use super::keys;
use crate::config::table;
use crate::guard::failures::network_of;
use crate::types::address::{BlockEntry, BlockSource, single};
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::addresses::NetworkList;
use crate::types::calls::keys::{
    LeakAddress, LeakAnswer, LeakReport, LeftOut, PreviewLeak, RevokeKey, RevokeLeaked, ShowKey,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::Outcome;
use crate::types::ids::KeyId;
use crate::types::live::Noun;
use crate::types::request::RequestRow;
use crate::types::text::escape;

/// How far back an address must have been seen with another valid key to be left out (SPEC §5.7).
const OTHER_KEY: Duration = Duration::from_hours(7 * 24);
/// Models and paths that are told.
const TOLD: usize = 10;
/// Models and paths that are told apart while counting: paths are outside text, though of requests with a valid key.
const COUNTED: usize = 1_000;

/// Tells what a key did and what would be blocked.
///
/// # Errors
/// `NOT_FOUND`; of the database.
pub async fn preview(context: &Context, call: PreviewLeak) -> Outcome<LeakReport> {
    let key = keys::show(context, ShowKey { id: call.id }).await?;
    let now = context.clock.wall();
    let (id, recent) = (call.id, now.minus(OTHER_KEY));
    let count = move |used: &mut Used, row: &RequestRow| used.count(id, recent, row);
    // All that there is: a key may have leaked long before somebody saw it.
    let used: Used = context.stores.security.fold_requests(UnixMillis(0), count).await?;
    let kept = now.minus(context.settings.load().get(table::REQUEST_LOG_KEEP));
    let since = used.span.map_or(kept, |(first, _)| first.min(kept));
    let judge = Judge::new(context, &call, &used).await?;
    let mut addresses: Vec<_> = used
        .addresses
        .iter()
        .map(|(network, (requests, last))| LeakAddress {
            network: *network,
            requests: *requests,
            last: *last,
            left_out: judge.left_out(network),
        })
        .collect();
    addresses.sort_by_key(|address| (std::cmp::Reverse(address.requests), address.network));
    Ok(LeakReport {
        key,
        since,
        requests: used.requests,
        failed: used.failed,
        tokens: used.tokens,
        span: used.span,
        models: most(used.models),
        paths: most(used.paths),
        addresses,
    })
}

/// Revokes the key and blocks what the preview told; in force when this returns.
///
/// # Errors
/// `NOT_FOUND`; of the database. The key is revoked first, so that a failure in between leaves it revoked.
pub async fn revoke(context: &Context, call: RevokeLeaked) -> Outcome<LeakAnswer> {
    let RevokeLeaked { id, networks, operator } = call;
    let report = preview(context, PreviewLeak { id, operator }).await?;
    if report.key.revoked.is_none() {
        keys::revoke(context, RevokeKey { id }).await?;
    }
    let wanted: BTreeSet<IpNet> = networks.into_iter().collect();
    let blocked: Vec<IpNet> = report.to_block().into_iter().filter(|network| wanted.contains(network)).collect();
    let key = keys::show(context, ShowKey { id }).await?;
    block(context, id, &key.label, &blocked).await?;
    Ok(LeakAnswer { key, blocked })
}

async fn block(context: &Context, id: KeyId, label: &str, networks: &[IpNet]) -> Outcome<()> {
    if networks.is_empty() {
        return Ok(());
    }
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    let entry = |network: &IpNet| BlockEntry {
        network: *network,
        reason: format!("used the leaked key {id} ({label})"),
        source: BlockSource::Manual,
        failures: 0,
        created: now,
        expires: None,
    };
    let entries: Vec<BlockEntry> = networks.iter().map(entry).collect();
    context.stores.security.put_blocks(entries.clone()).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.put_blocks(&entries);
        live.blocks_changed.notify_one();
    }
    for network in networks {
        let details =
            format!("{network} blocked by hand until lifted: it used the leaked key {id} ({})", escape(label));
        let event = AuditEvent {
            key: Some(id),
            address: single(*network),
            ..AuditEvent::new(now, AuditKind::BlockAdded, Severity::High, details)
        };
        context.record_event(event).await;
    }
    context.changed(Noun::Blocklist);
    Ok(())
}

/// What the request log tells.
#[derive(Default)]
struct Used {
    requests: u64,
    failed: u64,
    tokens: u64,
    span: Option<(UnixMillis, UnixMillis)>,
    models: HashMap<String, u64>,
    paths: HashMap<String, u64>,
    /// Requests with the key, and the last of them.
    addresses: BTreeMap<IpNet, (u64, UnixMillis)>,
    /// Other keys that were used from each network.
    others: HashMap<IpNet, BTreeSet<KeyId>>,
}

impl Used {
    fn count(&mut self, id: KeyId, recent: UnixMillis, row: &RequestRow) {
        let Some(key) = row.key else { return };
        let network = network_of(row.client);
        if key != id {
            if row.at >= recent {
                self.others.entry(network).or_default().insert(key);
            }
            return;
        }
        self.requests += 1;
        self.failed += u64::from(row.status >= 400);
        self.tokens += row.tokens.total();
        self.span = Some(self.span.map_or((row.at, row.at), |(first, last)| (first.min(row.at), last.max(row.at))));
        let (requests, last) = self.addresses.entry(network).or_insert((0, row.at));
        *requests += 1;
        *last = (*last).max(row.at);
        if let Some(model) = &row.model {
            tally(&mut self.models, model);
        }
        tally(&mut self.paths, &row.path);
    }
}

fn tally(counts: &mut HashMap<String, u64>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else if counts.len() < COUNTED {
        counts.insert(name.to_owned(), 1);
    }
}

fn most(counts: HashMap<String, u64>) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, m), (b, n)| (n, a).cmp(&(m, b)));
    counts.truncate(TOLD);
    counts
}

/// Who is left out.
struct Judge<'a> {
    used: &'a Used,
    /// Keys that work, with their labels.
    valid: HashMap<KeyId, String>,
    trusted: Vec<IpNet>,
    /// Blocked until lifted by hand.
    blocked: Vec<IpNet>,
    operator: Option<IpNet>,
}

impl<'a> Judge<'a> {
    async fn new(context: &Context, call: &PreviewLeak, used: &'a Used) -> Outcome<Self> {
        let now = context.clock.wall();
        let security = &context.stores.security;
        let works = |view: &crate::types::key::KeyView| {
            view.revoked.is_none() && view.expires.is_none_or(|at| at > now) && view.id != call.id
        };
        let records = security.keys().await?.into_iter().map(|record| record.view).filter(works);
        let trusted = security.networks(NetworkList::Trusted).await?;
        let blocks = security.blocks(now).await?;
        Ok(Self {
            used,
            valid: records.map(|view| (view.id, view.label)).collect(),
            trusted: trusted.into_iter().map(|entry| entry.network).collect(),
            blocked: blocks.into_iter().filter(|entry| entry.expires.is_none()).map(|entry| entry.network).collect(),
            operator: call.operator.map(network_of),
        })
    }

    fn left_out(&self, network: &IpNet) -> Option<LeftOut> {
        if network.addr().is_loopback() {
            return Some(LeftOut::ThisMachine);
        }
        if self.operator.as_ref() == Some(network) {
            return Some(LeftOut::Operator);
        }
        // A /64 that holds a trusted address is left out as a whole.
        if self.trusted.iter().any(|trusted| trusted.contains(network) || network.contains(trusted)) {
            return Some(LeftOut::Trusted);
        }
        let mut others = self.used.others.get(network).into_iter().flatten();
        if let Some((id, label)) = others.find_map(|id| self.valid.get_key_value(id)) {
            return Some(LeftOut::OtherKey { id: *id, label: label.clone() });
        }
        self.blocked.iter().any(|blocked| blocked.contains(network)).then_some(LeftOut::Blocked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::addresses;
    use crate::operations::backup::tests::{TestHome, add_key};
    use crate::types::calls::addresses::{AddNetwork, ListBlocks};
    use crate::types::request::{TokenSource, TokenUsage};

    fn request(number: u128, key: KeyId, client: &str, at: UnixMillis) -> RequestRow {
        RequestRow {
            at,
            client: client.parse().expect("an address"),
            key: Some(key),
            model: Some("qwen3:8b".into()),
            tokens: TokenUsage { prompt: 3, completion: 4, cached: 0, source: TokenSource::Engine },
            ..RequestRow::example(number)
        }
    }

    fn network(text: &str) -> IpNet {
        crate::types::address::parse_network(text).expect("a network")
    }

    async fn trust(context: &Context, text: &str) {
        let call = AddNetwork { list: NetworkList::Trusted, network: network(text), note: String::new() };
        addresses::add_network(context, call).await.expect("adds");
    }

    #[tokio::test]
    async fn a_leaked_key_is_revoked_and_only_strangers_are_blocked() {
        let home = TestHome::new();
        let context = home.open().await;
        let leaked = add_key(&context, "leaked").await;
        let (other, gone) = (add_key(&context, "desk").await, add_key(&context, "gone").await);
        keys::revoke(&context, RevokeKey { id: gone }).await.expect("revokes");
        trust(&context, "198.51.100.0/24").await;
        let now = context.clock.wall();
        let long_ago = now.minus(Duration::from_hours(8 * 24));
        let rows = vec![
            request(1, leaked, "203.0.113.1", now),
            request(2, leaked, "203.0.113.1", now),
            request(3, leaked, "203.0.113.2", now),
            request(4, other, "203.0.113.2", now),
            // With a key that does not work any more, and too long ago: neither makes one belong here.
            request(5, leaked, "203.0.113.3", now),
            request(6, gone, "203.0.113.3", now),
            request(7, leaked, "203.0.113.4", now),
            request(8, leaked, "198.51.100.7", now),
            request(9, leaked, "127.0.0.1", now),
            request(10, leaked, "2001:db8::1", now),
            request(11, leaked, "2001:db8::2", now),
            request(12, leaked, "192.0.2.9", now),
            request(13, other, "203.0.113.9", now),
        ];
        let earlier = vec![request(14, other, "203.0.113.4", long_ago), request(16, leaked, "203.0.113.5", long_ago)];
        context.stores.security.append_requests(earlier).await.expect("logs");
        context.stores.security.append_requests(rows).await.expect("logs");

        let operator = Some("192.0.2.9".parse().expect("an address"));
        let report = preview(&context, PreviewLeak { id: leaked, operator }).await.expect("looks");
        assert_eq!((report.requests, report.failed, report.tokens), (11, 0, 77));
        assert_eq!(report.models, [("qwen3:8b".to_owned(), 11)]);
        assert_eq!((report.since, report.span), (long_ago, Some((long_ago, now))), "as far back as the log goes");
        let left_out = |text: &str| {
            let found = report.addresses.iter().find(|address| address.network == network(text));
            found.unwrap_or_else(|| panic!("{text} is told")).left_out.clone()
        };
        assert_eq!(left_out("203.0.113.2"), Some(LeftOut::OtherKey { id: other, label: "desk".into() }));
        assert_eq!(left_out("198.51.100.7"), Some(LeftOut::Trusted));
        assert_eq!(left_out("127.0.0.1"), Some(LeftOut::ThisMachine));
        assert_eq!(left_out("192.0.2.9"), Some(LeftOut::Operator));
        let wanted = ["203.0.113.1", "203.0.113.3", "203.0.113.4", "203.0.113.5", "2001:db8::/64"].map(network);
        assert_eq!(report.to_block().into_iter().collect::<BTreeSet<_>>(), wanted.into_iter().collect());
        assert!(context.stores.security.blocks(now).await.expect("reads").is_empty(), "a preview changes nothing");

        // Meanwhile one of them shows that it belongs here, and somebody asks for more than was told.
        let rows = vec![request(15, other, "203.0.113.3", now)];
        context.stores.security.append_requests(rows).await.expect("logs");
        let networks = [report.to_block(), vec![network("127.0.0.1"), network("8.8.8.8")]].concat();
        let answer = revoke(&context, RevokeLeaked { id: leaked, networks, operator }).await.expect("acts");
        assert!(answer.key.revoked.is_some());
        let blocks =
            addresses::list_blocks(&context, ListBlocks { offset: 0, limit: 10 }).await.expect("lists").entries;
        let blocked: BTreeSet<_> = blocks.iter().map(|entry| entry.network).collect();
        assert_eq!(blocked, [wanted[0], wanted[2], wanted[3], wanted[4]].into_iter().collect());
        assert!(blocks.iter().all(|entry| entry.expires.is_none() && entry.reason.contains("leaked key")));

        // Once more, with the key revoked and the addresses blocked: nothing is left to do.
        let report = preview(&context, PreviewLeak { id: leaked, operator }).await.expect("looks");
        assert_eq!(report.to_block(), []);
        let call = RevokeLeaked { id: leaked, networks: Vec::new(), operator };
        assert_eq!(revoke(&context, call).await.expect("nothing to do").blocked, []);
        context.close().await;
    }

    #[tokio::test]
    async fn an_unknown_key_is_told() {
        let home = TestHome::new();
        let context = home.open().await;
        let call = PreviewLeak { id: KeyId::parse("Ab12Cd34").expect("an id"), operator: None };
        let failure = preview(&context, call).await.expect_err("unknown");
        assert_eq!(failure.code, crate::types::failure::ErrorCode::NotFound);
        context.close().await;
    }
}
