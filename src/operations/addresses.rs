//! The block list, the allow list and the trusted list (SPEC §5.2, §5.3).

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::context::Context;
use crate::types::address::{BlockEntry, BlockSource, ListedNetwork, single};
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::addresses::{
    AddBlock, AddNetwork, BlockPage, ClearBlocks, ImportBlocks, ListBlocks, ListNetworks, NetworkList, RemoveBlock,
    RemoveNetwork,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::Noun;
use crate::types::text::{escape, is_hostile};

/// Longest reason or note in characters.
const NOTE_LENGTH: usize = 200;
/// Largest page (see `ListBlocks`).
const PAGE: u32 = 1000;

/// A page of the block list. With an owner the guard's memory answers: it is the authority.
pub async fn list_blocks(context: &Context, call: ListBlocks) -> Outcome<BlockPage> {
    let (now, limit) = (context.clock.wall(), call.limit.min(PAGE));
    if let Some(live) = &context.live {
        return Ok(live.proxy.guard.blocks(call.offset, limit, now));
    }
    let mut entries = context.stores.security.blocks(now).await?;
    entries.sort_by(|a, b| (b.created, a.network).cmp(&(a.created, b.network)));
    let total = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let skip = usize::try_from(call.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(BlockPage { total, entries: entries.into_iter().skip(skip).take(take).collect() })
}

/// Blocks an address or a block; in force when this returns.
///
/// # Errors
/// `INVALID_ARGUMENT` for a network that holds loopback, a span of nothing or a reason that is too long.
pub async fn add_block(context: &Context, call: AddBlock) -> Outcome<BlockEntry> {
    let network = canonical_network(call.network);
    refuse_loopback(network)?;
    if call.duration.is_some_and(|span| span < Duration::from_secs(1)) {
        return Err(too_short());
    }
    let reason = checked_note(&call.reason, "reason")?;
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    let entry = BlockEntry {
        network,
        reason,
        source: BlockSource::Manual,
        failures: 0,
        created: now,
        expires: call.duration.map(|span| now.plus(span)),
    };
    context.stores.security.put_blocks(vec![entry.clone()]).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.put_blocks(std::slice::from_ref(&entry));
        live.blocks_changed.notify_one();
    }
    let until = if entry.expires.is_some() { "for a time" } else { "until lifted by hand" };
    record(context, AuditKind::BlockAdded, network, format!("{network} blocked by hand {until}")).await;
    context.changed(Noun::Blocklist);
    Ok(entry)
}

/// Blocks many networks at once; in force when this returns.
///
/// # Errors
/// As [`add_block`], for any of them: then none is blocked. `INVALID_ARGUMENT` for more than
/// [`ImportBlocks::MOST`].
pub async fn import_blocks(context: &Context, call: ImportBlocks) -> Outcome<u64> {
    if call.networks.len() > ImportBlocks::MOST {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} networks are more than the {} of one import", call.networks.len(), ImportBlocks::MOST),
        )
        .hint("split the list, or block larger networks"));
    }
    if call.duration.is_some_and(|span| span < Duration::from_secs(1)) {
        return Err(too_short());
    }
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    let known: HashSet<IpNet> =
        context.stores.security.blocks(now).await?.into_iter().map(|entry| entry.network).collect();
    let mut entries = BTreeMap::new();
    for (network, reason) in call.networks {
        let network = canonical_network(network);
        refuse_loopback(network)?;
        let reason = checked_note(&reason, "reason")?;
        let expires = call.duration.map(|span| now.plus(span));
        let entry = BlockEntry { network, reason, source: BlockSource::Import, failures: 0, created: now, expires };
        if !known.contains(&network) {
            entries.insert(network, entry);
        }
    }
    let entries: Vec<BlockEntry> = entries.into_values().collect();
    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    if count == 0 {
        return Ok(0);
    }
    context.stores.security.put_blocks(entries.clone()).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.put_blocks(&entries);
        live.blocks_changed.notify_one();
    }
    context
        .record(AuditKind::BlockAdded, Severity::Medium, format!("{count} networks of a list blocked by hand"))
        .await;
    context.changed(Noun::Blocklist);
    Ok(count)
}

/// Lifts one block; in force when this returns.
///
/// # Errors
/// `NOT_FOUND` when no entry has exactly this network; a wider one that holds it is named.
pub async fn remove_block(context: &Context, call: RemoveBlock) -> Outcome<BlockEntry> {
    let network = canonical_network(call.network);
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    // With an owner the guard's memory is the authority: what it decided a moment ago may not be stored yet.
    let decided = context.live.as_ref().and_then(|live| live.proxy.guard.block(network, now));
    let blocks = if decided.is_some() { Vec::new() } else { context.stores.security.blocks(now).await? };
    let Some(entry) = decided.or_else(|| blocks.iter().find(|entry| entry.network == network).cloned()) else {
        let wider = blocks.iter().find(|entry| entry.network.contains(&network));
        return Err(Failure::new(ErrorCode::NotFound, format!("{network} is not on the block list")).hint(
            match wider {
                Some(wider) => format!("{} is, and holds it: flm security ip-blocklist unblock {0}", wider.network),
                None => "list the entries with: flm security ip-blocklist list".to_owned(),
            },
        ));
    };
    context.stores.security.remove_blocks(vec![network]).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.remove_block(network);
    }
    record(context, AuditKind::BlockLifted, network, format!("block of {network} lifted by hand")).await;
    context.changed(Noun::Blocklist);
    Ok(entry)
}

fn too_short() -> Failure {
    Failure::new(ErrorCode::InvalidArgument, "a block of less than a second blocks nothing")
        .hint("give a span such as 30m, 2h or 7d, or none for a block that stays until it is lifted")
}

/// Records what was done by hand about a network.
async fn record(context: &Context, kind: AuditKind, network: IpNet, details: String) {
    let event = AuditEvent::new(context.clock.wall(), kind, Severity::Medium, details);
    context.record_event(AuditEvent { address: single(network), ..event }).await;
}

/// Lifts all blocks and answers how many.
pub async fn clear_blocks(context: &Context, _call: ClearBlocks) -> Outcome<u64> {
    let _changing = context.begin_change().await?;
    let now = context.clock.wall();
    let blocks = context.stores.security.blocks(now).await?;
    let networks: Vec<_> = blocks.into_iter().map(|entry| entry.network).collect();
    // What the guard decided a moment ago may not be stored yet, and is lifted too.
    let decided = context.live.as_ref().map_or(0, |live| live.proxy.guard.blocks(0, 0, now).total);
    let lifted = decided.max(u64::try_from(networks.len()).unwrap_or(u64::MAX));
    if lifted == 0 {
        return Ok(0);
    }
    context.stores.security.remove_blocks(networks).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.clear_blocks();
    }
    context.record(AuditKind::BlockLifted, Severity::High, format!("all {lifted} blocks lifted by hand")).await;
    context.changed(Noun::Blocklist);
    Ok(lifted)
}

/// Lists the allow list or the trusted list.
pub async fn list_networks(context: &Context, call: ListNetworks) -> Outcome<Vec<ListedNetwork>> {
    Ok(context.stores.security.networks(call.list).await?)
}

/// Adds to the allow list or the trusted list; in force when this returns.
///
/// # Errors
/// `INVALID_ARGUMENT` for a note that is too long, and for a trusted list that would hold every address.
pub async fn add_network(context: &Context, call: AddNetwork) -> Outcome<ListedNetwork> {
    let network = canonical_network(call.network);
    if network.prefix_len() == 0 && call.list == NetworkList::Trusted {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{network} is every address: trusting it turns off all automatic blocking"),
        )
        .hint("add only the networks that you control"));
    }
    let note = checked_note(&call.note, "note")?;
    let _changing = context.begin_change().await?;
    let entry = ListedNetwork { network, note, created: context.clock.wall() };
    context.stores.security.put_network(call.list, entry.clone()).await?;
    publish(context, call.list, &format!("{network} added to the {} list", name(call.list))).await?;
    Ok(entry)
}

/// Removes from the allow list or the trusted list; in force when this returns.
///
/// # Errors
/// `NOT_FOUND` when the list does not hold exactly this network.
pub async fn remove_network(context: &Context, call: RemoveNetwork) -> Outcome<()> {
    let network = canonical_network(call.network);
    let _changing = context.begin_change().await?;
    if !context.stores.security.remove_network(call.list, network).await? {
        let list = name(call.list);
        return Err(Failure::new(ErrorCode::NotFound, format!("{network} is not on the {list} list"))
            .hint(format!("list the entries with: flm security ip-{} list", command(call.list))));
    }
    publish(context, call.list, &format!("{network} removed from the {} list", name(call.list))).await
}

async fn publish(context: &Context, list: NetworkList, details: &str) -> Outcome<()> {
    if let Some(live) = &context.live {
        live.proxy.guard.load_networks(list, &context.stores.security.networks(list).await?);
    }
    context.record(AuditKind::PolicyChanged, Severity::Medium, details).await;
    context.changed(match list {
        NetworkList::Allow => Noun::Allowlist,
        NetworkList::Trusted => Noun::Trusted,
    });
    Ok(())
}

fn name(list: NetworkList) -> &'static str {
    match list {
        NetworkList::Allow => "allow",
        NetworkList::Trusted => "trusted",
    }
}

fn command(list: NetworkList) -> &'static str {
    match list {
        NetworkList::Allow => "allowlist",
        NetworkList::Trusted => "trusted",
    }
}

/// Clears host bits and folds IPv4-mapped IPv6 blocks to IPv4, since clients are seen by their IPv4 address.
fn canonical_network(network: IpNet) -> IpNet {
    const MAPPED_PREFIX: u8 = 96;
    let network = network.trunc();
    let IpNet::V6(v6) = network else { return network };
    match (v6.network().to_ipv4_mapped(), v6.prefix_len().checked_sub(MAPPED_PREFIX)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(network, |net| IpNet::V4(net.trunc())),
        _ => network,
    }
}

fn refuse_loopback(network: IpNet) -> Outcome<()> {
    let loopback_v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let holds_loopback = match network {
        IpNet::V4(net) => net.contains(&loopback_v4) || loopback_v4.contains(&net),
        IpNet::V6(net) => net.contains(&Ipv6Addr::LOCALHOST),
    };
    if !holds_loopback {
        return Ok(());
    }
    let every_address = network.prefix_len() == 0;
    Err(Failure::new(
        ErrorCode::InvalidArgument,
        format!("{network} holds loopback: blocking it would lock out this machine itself"),
    )
    .hint(if every_address {
        "to close the endpoint for everyone, stop it (flm proxy stop), or list who may connect \
         (flm security ip-allowlist add CIDR)"
            .to_owned()
    } else {
        format!("block the client's own address; {} is this machine", IpAddr::V4(Ipv4Addr::LOCALHOST))
    }))
}

fn checked_note(text: &str, what: &str) -> Outcome<String> {
    let text = text.trim();
    let length = text.chars().count();
    if length > NOTE_LENGTH || text.chars().any(is_hostile) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!(
                "the {what} has {length} characters or holds control characters: {:?}",
                escape(text).chars().take(80).collect::<String>()
            ),
        )
        .hint(format!("write one line of at most {NOTE_LENGTH} characters")));
    }
    Ok(text.to_owned())
}
