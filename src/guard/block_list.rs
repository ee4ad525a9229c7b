//! The block list in memory: a million networks of any length, looked up below a microsecond (SPEC §5.3).
//!
//! Networks lie in shards by the beginning of their address, each a sorted list behind an [`arc_swap::ArcSwap`]: a reader loads
//! one shard without a lock, a change copies one shard and nothing else. Networks that are too wide for a shard lie in
//! a list of their own. A block costs 32 bytes for IPv4 and 48 for IPv6; its reason is kept once for all that share it.
//!
//! Used by `address_lists`. Must never drop a block that is in force to make room: what bounds the number of automatic
//! blocks is the caller's business.

use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwapOption, Guard};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::address::{BlockEntry, BlockRow, BlockSource, canonical};
use crate::types::calls::addresses::BlockPage;
use crate::types::clock::UnixMillis;

/// Shards of a family; each takes the networks whose address begins with the same bits.
const SHARDS: usize = 1 << 16;
/// IPv4 networks of at least this length lie in the shard of their first 16 bits.
const SHARD_BITS_V4: u8 = 16;
/// IPv6 networks of at least this length lie in a shard by their first 32 bits: what a provider is given (RFC 6177).
const SHARD_BITS_V6: u8 = 32;
/// "Until lifted by hand" as a number that sorts last.
const NEVER: i64 = i64::MAX;

/// What a look-up tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// The narrowest blocked network around the address.
    pub network: IpNet,
    /// Who put it there.
    pub source: BlockSource,
    /// When it lifts by itself.
    pub expires: Option<UnixMillis>,
}

/// An address family: its address as a number and its number of bits.
trait Family: Copy + Ord {
    const BITS: u8;
    /// Clears the bits after `length`.
    fn masked(self, length: u8) -> Self;
    fn network(self, length: u8) -> Option<IpNet>;
    /// The shard of an address; `None` for a network that is too wide for one.
    fn shard(self, length: u8) -> Option<usize>;
}

impl Family for u32 {
    const BITS: u8 = 32;

    fn masked(self, length: u8) -> Self {
        self & Self::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }

    fn network(self, length: u8) -> Option<IpNet> {
        Ipv4Net::new(Ipv4Addr::from(self), length).ok().map(IpNet::V4)
    }

    fn shard(self, length: u8) -> Option<usize> {
        (length >= SHARD_BITS_V4).then_some((self >> 16) as usize)
    }
}

/// Two halves, so that an entry is aligned to 8 bytes and not to 16.
type Halves = (u64, u64);

impl Family for Halves {
    const BITS: u8 = 128;

    fn masked(self, length: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        halves(whole(self) & mask)
    }

    fn network(self, length: u8) -> Option<IpNet> {
        Ipv6Net::new(Ipv6Addr::from(whole(self)), length).ok().map(IpNet::V6)
    }

    fn shard(self, length: u8) -> Option<usize> {
        // The first bits are alike everywhere (2000::/3): a multiplicative hash spreads providers over the shards
        // (Knuth, TAOCP 3, §6.4).
        let provider = (self.0 >> 32) as u32;
        (length >= SHARD_BITS_V6).then_some((provider.wrapping_mul(0x9E37_79B1) >> 16) as usize)
    }
}

fn halves(address: u128) -> Halves {
    let [high, low] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&address.to_be_bytes()[at..at + 8]);
        u64::from_be_bytes(half)
    });
    (high, low)
}

fn whole((high, low): Halves) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// One block as it is kept.
#[derive(Debug, Clone, Copy)]
struct Kept<A> {
    address: A,
    created: i64,
    expires: i64,
    failures: u32,
    /// Place in [`Reasons`], and the source in the two highest bits.
    reason: u32,
    length: u8,
}

/// Bits of [`Kept::reason`] that name the reason.
const REASON_MASK: u32 = (1 << 30) - 1;

const SOURCES: [BlockSource; 4] =
    [BlockSource::Manual, BlockSource::FailedAuthentication, BlockSource::Score, BlockSource::Import];

impl<A: Family> Kept<A> {
    fn source(&self) -> BlockSource {
        SOURCES[(self.reason >> 30) as usize]
    }

    fn is_automatic(&self) -> bool {
        matches!(self.source(), BlockSource::FailedAuthentication | BlockSource::Score)
    }

    fn place(&self) -> (A, u8) {
        (self.address, self.length)
    }

    fn shard(&self) -> usize {
        self.address.shard(self.length).unwrap_or(WIDE)
    }

    fn in_force(&self, now: UnixMillis) -> bool {
        self.expires > now.0
    }
}

/// A sorted list of networks, with the lengths that stand in it.
#[derive(Debug)]
struct Shard<A> {
    /// By address, then length.
    blocks: Box<[Kept<A>]>,
    /// Bit `n`: a network of length `n` is in it.
    lengths: u128,
    /// Bit 128 has no place above.
    has_hosts: bool,
}

impl<A: Family> Shard<A> {
    fn of(blocks: Vec<Kept<A>>) -> Self {
        let lengths =
            blocks.iter().fold(0, |lengths, kept| lengths | 1_u128.checked_shl(kept.length.into()).unwrap_or(0));
        let has_hosts = blocks.iter().any(|kept| kept.length == 128);
        Self { blocks: blocks.into(), lengths, has_hosts }
    }

    fn at(&self, place: (A, u8)) -> Result<usize, usize> {
        self.blocks.binary_search_by(|kept| kept.place().cmp(&place))
    }

    /// The narrowest network around `address` that `counts`.
    fn find(&self, address: A, counts: impl Fn(&Kept<A>) -> bool) -> Option<&Kept<A>> {
        let look = |length: u8| {
            let kept = self.at((address.masked(length), length)).ok().map(|index| &self.blocks[index])?;
            counts(kept).then_some(kept)
        };
        if self.has_hosts
            && let Some(kept) = look(128)
        {
            return Some(kept);
        }
        let mut lengths = self.lengths;
        while lengths != 0 {
            let longest = u8::try_from(lengths.ilog2()).unwrap_or(0);
            if let Some(kept) = look(longest) {
                return Some(kept);
            }
            lengths &= !(1 << longest);
        }
        None
    }
}

/// All networks of a family.
struct Networks<A> {
    shards: Box<[ArcSwapOption<Shard<A>>]>,
    /// When the first block of each shard lifts, so that expiry looks at those shards only.
    earliest: Box<[AtomicI64]>,
    count: AtomicUsize,
}

/// The last shard holds the networks that are too wide for one.
const WIDE: usize = SHARDS;

impl<A: Family> Default for Networks<A> {
    fn default() -> Self {
        Self {
            shards: (0..=SHARDS).map(|_| ArcSwapOption::empty()).collect(),
            earliest: (0..=SHARDS).map(|_| AtomicI64::new(NEVER)).collect(),
            count: AtomicUsize::new(0),
        }
    }
}

impl<A: Family> Networks<A> {
    fn find(&self, address: A, counts: impl Fn(&Kept<A>) -> bool) -> Option<Block> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let told = |shard: &Guard<Option<Arc<Shard<A>>>>| {
            let kept = shard.as_ref()?.find(address, &counts)?;
            Some(Block {
                network: kept.address.network(kept.length)?,
                source: kept.source(),
                expires: (kept.expires != NEVER).then_some(UnixMillis(kept.expires)),
            })
        };
        let narrow = address.shard(A::BITS).and_then(|shard| told(&self.shards[shard].load()));
        narrow.or_else(|| told(&self.shards[WIDE].load()))
    }

    /// Replaces a shard. The caller holds the right to write.
    fn store(&self, shard: usize, before: usize, blocks: Vec<Kept<A>>) {
        let earliest = blocks.iter().map(|kept| kept.expires).min().unwrap_or(NEVER);
        let after = blocks.len();
        self.earliest[shard].store(earliest, Ordering::Release);
        self.shards[shard].store((!blocks.is_empty()).then(|| Arc::new(Shard::of(blocks))));
        if after >= before {
            self.count.fetch_add(after - before, Ordering::AcqRel);
        } else {
            self.count.fetch_sub(before - after, Ordering::AcqRel);
        }
    }

    fn blocks_of(&self, shard: usize) -> Vec<Kept<A>> {
        self.shards[shard].load().as_ref().map_or_else(Vec::new, |shard| shard.blocks.to_vec())
    }

    fn put(&self, kept: Kept<A>) {
        let shard = kept.shard();
        let mut blocks = self.blocks_of(shard);
        let before = blocks.len();
        match blocks.binary_search_by(|known| known.place().cmp(&kept.place())) {
            Ok(index) => blocks[index] = kept,
            Err(index) => blocks.insert(index, kept),
        }
        self.store(shard, before, blocks);
    }

    fn remove(&self, address: A, length: u8) -> Option<Kept<A>> {
        let shard = address.shard(length).unwrap_or(WIDE);
        let mut blocks = self.blocks_of(shard);
        let before = blocks.len();
        let index = blocks.binary_search_by(|known| known.place().cmp(&(address, length))).ok()?;
        let removed = blocks.remove(index);
        self.store(shard, before, blocks);
        Some(removed)
    }

    fn exact(&self, address: A, length: u8) -> Option<Kept<A>> {
        let shard = self.shards[address.shard(length).unwrap_or(WIDE)].load();
        let shard = shard.as_ref()?;
        shard.at((address, length)).ok().map(|index| shard.blocks[index])
    }

    /// Replaces everything by what [`arrange`] put into order.
    fn load(&self, all: &[Kept<A>]) {
        let was_empty = self.count.load(Ordering::Acquire) == 0;
        let mut shards = all.chunk_by(|one, next| one.shard() == next.shard()).peekable();
        for shard in 0..=SHARDS {
            let own = shards.next_if(|own| own[0].shard() == shard).unwrap_or_default();
            let before =
                if was_empty { 0 } else { self.shards[shard].load().as_ref().map_or(0, |shard| shard.blocks.len()) };
            if !own.is_empty() || before > 0 {
                self.store(shard, before, own.to_vec());
            }
        }
    }

    /// Removes what has run out.
    fn expire(&self, now: UnixMillis, mut lifted: impl FnMut(&Kept<A>)) {
        for (shard, earliest) in self.earliest.iter().enumerate() {
            if earliest.load(Ordering::Acquire) > now.0 {
                continue;
            }
            let blocks = self.blocks_of(shard);
            let before = blocks.len();
            let (stay, over): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|kept| kept.in_force(now));
            over.iter().for_each(&mut lifted);
            self.store(shard, before, stay);
        }
    }

    fn next_expiry(&self) -> i64 {
        self.earliest.iter().map(|earliest| earliest.load(Ordering::Acquire)).min().unwrap_or(NEVER)
    }

    fn each(&self, mut see: impl FnMut(&Kept<A>)) {
        for shard in &self.shards {
            if let Some(shard) = shard.load().as_ref() {
                shard.blocks.iter().for_each(&mut see);
            }
        }
    }
}

/// Texts that blocks share.
#[derive(Debug, Default)]
struct Reasons {
    texts: Vec<Arc<str>>,
    places: HashMap<Arc<str>, u32>,
    /// The one that was asked for last.
    last: Option<(Arc<str>, u32)>,
}

impl Reasons {
    fn place(&mut self, text: &str) -> u32 {
        // Blocks of an imported list have one reason.
        if let Some((last, place)) = &self.last
            && &**last == text
        {
            return *place;
        }
        let place = self.known_or_new(text);
        self.last = self.texts.get(place as usize).map(|text| (text.clone(), place));
        place
    }

    fn known_or_new(&mut self, text: &str) -> u32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = u32::try_from(self.texts.len()).unwrap_or(REASON_MASK) & REASON_MASK;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.places.insert(text, place);
        place
    }

    fn text(&self, place: u32) -> String {
        self.texts.get((place & REASON_MASK) as usize).map(ToString::to_string).unwrap_or_default()
    }
}

/// Blocks on their way into a list, such as those of a store.
#[derive(Debug, Default)]
pub struct BlockBatch {
    v4: Vec<Kept<u32>>,
    v6: Vec<Kept<Halves>>,
    reasons: Reasons,
}

impl BlockBatch {
    /// Adds a block; of the same network the last one counts.
    pub fn push(&mut self, block: &BlockRow<'_>) {
        match block.network.trunc() {
            IpNet::V4(net) => {
                self.v4.push(kept(u32::from(net.network()), net.prefix_len(), block, &mut self.reasons));
            }
            IpNet::V6(net) => {
                self.v6.push(kept(halves(u128::from(net.network())), net.prefix_len(), block, &mut self.reasons));
            }
        }
    }

    /// The same in the order of a list: [`BlockList::load`] has less left to do.
    #[must_use]
    pub fn arranged(mut self) -> Self {
        arrange(&mut self.v4);
        arrange(&mut self.v6);
        self
    }

    /// Adds another one.
    fn append(&mut self, mut other: Self) {
        let places: Vec<u32> = other.reasons.texts.iter().map(|text| self.reasons.place(text)).collect();
        let renumber = |reason: &mut u32| *reason = *reason & !REASON_MASK | places[(*reason & REASON_MASK) as usize];
        other.v4.iter_mut().for_each(|kept| renumber(&mut kept.reason));
        other.v6.iter_mut().for_each(|kept| renumber(&mut kept.reason));
        self.v4.append(&mut other.v4);
        self.v6.append(&mut other.v6);
    }
}

impl FromIterator<BlockEntry> for BlockBatch {
    fn from_iter<I: IntoIterator<Item = BlockEntry>>(entries: I) -> Self {
        let mut batch = Self::default();
        entries.into_iter().for_each(|entry| batch.push(&entry.row()));
        batch
    }
}

/// Puts blocks into the order of their shards and within them, each network once: the last one. Runs that are in order
/// already, as those of batches that were arranged, are only merged.
fn arrange<A: Family>(all: &mut Vec<Kept<A>>) {
    // The sort is stable.
    all.sort_by_key(|kept| (kept.shard(), kept.place()));
    all.dedup_by(|later, earlier| {
        let is_same = later.place() == earlier.place();
        if is_same {
            *earlier = *later;
        }
        is_same
    });
}

/// Every block.
#[derive(Default)]
pub struct BlockList {
    v4: Networks<u32>,
    v6: Networks<Halves>,
    /// Held by whoever changes something, so that two changes never lose one another; readers of look-ups never take it.
    writing: Mutex<Reasons>,
}

impl std::fmt::Debug for BlockList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockList").field("blocks", &self.len()).finish_non_exhaustive()
    }
}

impl BlockList {
    /// The narrowest block around an address that is in force. Never locks.
    pub fn find(&self, address: IpAddr, now: UnixMillis) -> Option<Block> {
        match canonical(address) {
            IpAddr::V4(v4) => self.v4.find(u32::from(v4), |kept| kept.in_force(now)),
            IpAddr::V6(v6) => self.v6.find(halves(u128::from(v6)), |kept| kept.in_force(now)),
        }
    }

    /// The same among what the operator blocked, whatever narrower block stands in front of it.
    pub(super) fn find_by_operator(&self, address: IpAddr, now: UnixMillis) -> Option<Block> {
        match canonical(address) {
            IpAddr::V4(v4) => self.v4.find(u32::from(v4), |kept| kept.in_force(now) && !kept.is_automatic()),
            IpAddr::V6(v6) => self.v6.find(halves(u128::from(v6)), |kept| kept.in_force(now) && !kept.is_automatic()),
        }
    }

    /// The block of exactly this network.
    pub fn exact(&self, network: IpNet) -> Option<BlockEntry> {
        let reasons = self.writing();
        match network.trunc() {
            IpNet::V4(net) => {
                self.v4.exact(u32::from(net.network()), net.prefix_len()).and_then(|k| told(&k, &reasons))
            }
            IpNet::V6(net) => {
                self.v6.exact(halves(u128::from(net.network())), net.prefix_len()).and_then(|k| told(&k, &reasons))
            }
        }
    }

    /// Blocks in all.
    pub fn len(&self) -> usize {
        self.v4.count.load(Ordering::Acquire) + self.v6.count.load(Ordering::Acquire)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces all blocks.
    pub fn load(&self, batches: impl IntoIterator<Item = BlockBatch>) {
        let mut batches = batches.into_iter();
        let mut all = batches.next().unwrap_or_default();
        batches.for_each(|batch| all.append(batch));
        let all = all.arranged();
        let mut reasons = self.writing();
        self.v4.load(&all.v4);
        self.v6.load(&all.v6);
        *reasons = all.reasons;
    }

    /// Adds or replaces one block: in force when this returns.
    pub fn put(&self, entry: &BlockEntry) {
        let mut reasons = self.writing();
        match entry.network.trunc() {
            IpNet::V4(net) => self.v4.put(kept(u32::from(net.network()), net.prefix_len(), &entry.row(), &mut reasons)),
            IpNet::V6(net) => {
                self.v6.put(kept(halves(u128::from(net.network())), net.prefix_len(), &entry.row(), &mut reasons));
            }
        }
    }

    /// Lifts one block.
    pub fn remove(&self, network: IpNet) -> Option<BlockEntry> {
        let reasons = self.writing();
        match network.trunc() {
            IpNet::V4(net) => {
                self.v4.remove(u32::from(net.network()), net.prefix_len()).and_then(|k| told(&k, &reasons))
            }
            IpNet::V6(net) => {
                self.v6.remove(halves(u128::from(net.network())), net.prefix_len()).and_then(|k| told(&k, &reasons))
            }
        }
    }

    /// Lifts all blocks and answers how many there were.
    pub fn clear(&self) -> usize {
        let count = self.len();
        self.load([]);
        count
    }

    /// Drops what has run out; answers it, and when the next block lifts.
    pub fn expire(&self, now: UnixMillis) -> (Vec<BlockEntry>, Option<UnixMillis>) {
        let reasons = self.writing();
        let mut lifted = Vec::new();
        self.v4.expire(now, |kept| lifted.extend(told(kept, &reasons)));
        self.v6.expire(now, |kept| lifted.extend(told(kept, &reasons)));
        let next = self.v4.next_expiry().min(self.v6.next_expiry());
        (lifted, (next != NEVER).then_some(UnixMillis(next)))
    }

    /// A page, newest first.
    pub fn page(&self, offset: u32, limit: u32, now: UnixMillis) -> BlockPage {
        let wanted = (offset as usize).saturating_add(limit as usize);
        let mut total: u64 = 0;
        // The newest `wanted`; the oldest of them is on top and goes first.
        let mut newest = BinaryHeap::new();
        let mut see = |created: i64, network: Option<IpNet>, block: (i64, u32, u32)| {
            total += 1;
            if let Some(network) = network {
                newest.push((std::cmp::Reverse(created), network, block));
                if newest.len() > wanted {
                    newest.pop();
                }
            }
        };
        self.v4.each(|k| {
            if k.in_force(now) {
                see(k.created, k.address.network(k.length), (k.expires, k.failures, k.reason));
            }
        });
        self.v6.each(|k| {
            if k.in_force(now) {
                see(k.created, k.address.network(k.length), (k.expires, k.failures, k.reason));
            }
        });
        let reasons = self.writing();
        let entries = newest
            .into_sorted_vec()
            .into_iter()
            .skip(offset as usize)
            .map(|(created, network, (expires, failures, reason))| BlockEntry {
                network,
                reason: reasons.text(reason),
                source: SOURCES[(reason >> 30) as usize],
                failures,
                created: UnixMillis(created.0),
                expires: (expires != NEVER).then_some(UnixMillis(expires)),
            })
            .collect();
        BlockPage { total, entries }
    }

    fn writing(&self) -> MutexGuard<'_, Reasons> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kept<A>(address: A, length: u8, block: &BlockRow<'_>, reasons: &mut Reasons) -> Kept<A> {
    let source = SOURCES.iter().position(|source| *source == block.source).unwrap_or(0);
    Kept {
        address,
        created: block.created.0,
        expires: block.expires.map_or(NEVER, |at| at.0),
        failures: block.failures,
        reason: reasons.place(block.reason) | u32::try_from(source).unwrap_or(0) << 30,
        length,
    }
}

fn told<A: Family>(kept: &Kept<A>, reasons: &Reasons) -> Option<BlockEntry> {
    Some(BlockEntry {
        network: kept.address.network(kept.length)?,
        reason: reasons.text(kept.reason),
        source: kept.source(),
        failures: kept.failures,
        created: UnixMillis(kept.created),
        expires: (kept.expires != NEVER).then_some(UnixMillis(kept.expires)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(network: &str, expires: Option<i64>) -> BlockEntry {
        BlockEntry {
            network: network.parse().expect("network"),
            reason: format!("because of {network}"),
            source: BlockSource::Score,
            failures: 3,
            created: UnixMillis(0),
            expires: expires.map(UnixMillis),
        }
    }

    fn found(list: &BlockList, address: &str, now: i64) -> Option<String> {
        list.find(address.parse().expect("address"), UnixMillis(now)).map(|block| block.network.to_string())
    }

    /// Case 8.
    #[test]
    fn a_block_holds_until_its_time_and_not_longer() {
        let list = BlockList::default();
        list.put(&block("192.0.2.7/32", Some(1000)));
        assert_eq!(found(&list, "192.0.2.7", 999).as_deref(), Some("192.0.2.7/32"));
        assert!(found(&list, "::ffff:192.0.2.7", 999).is_some(), "mapped addresses are the same client");
        assert_eq!(found(&list, "192.0.2.7", 1000), None);
        assert_eq!(found(&list, "192.0.2.8", 0), None);
    }

    #[test]
    fn a_block_that_has_run_out_does_not_hide_a_wider_one() {
        let list = BlockList::default();
        list.put(&block("10.0.0.0/8", None));
        list.put(&block("10.1.0.0/16", Some(10)));
        assert_eq!(found(&list, "10.1.2.3", 5).as_deref(), Some("10.1.0.0/16"));
        assert_eq!(found(&list, "10.1.2.3", 20).as_deref(), Some("10.0.0.0/8"));
        let (lifted, next) = list.expire(UnixMillis(20));
        assert_eq!(lifted, [block("10.1.0.0/16", Some(10))]);
        assert_eq!((next, list.len()), (None, 1));
    }

    #[test]
    fn pages_are_newest_first_and_whole() {
        let list = BlockList::default();
        let entries = (0..50_u32).map(|n| BlockEntry {
            created: UnixMillis(i64::from(n)),
            ..block(&format!("{}/128", Ipv6Addr::from(u128::from(n) << 70)), Some(i64::from(n) + 100))
        });
        list.load([entries.collect()]);
        list.put(&BlockEntry { created: UnixMillis(99), ..block("0.0.0.0/1", None) });
        let page = list.page(1, 3, UnixMillis(110));
        assert_eq!(page.total, 40, "the first eleven have run out");
        let times: Vec<_> = page.entries.iter().map(|entry| entry.created.0).collect();
        assert_eq!(times, [49, 48, 47]);
        assert_eq!(
            page.entries[0].reason,
            "because of ::31:0:0/128".replace("::31:0:0", &page.entries[0].network.addr().to_string())
        );
        assert_eq!(list.clear(), 51);
        assert!(list.is_empty() && list.page(0, 10, UnixMillis(0)).entries.is_empty());
    }

    #[test]
    fn everything_that_is_known_of_a_block_comes_back() {
        let list = BlockList::default();
        let networks = ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32", "2000::/3"];
        for (created, (network, source)) in (0_i64..).zip(networks.into_iter().zip(SOURCES)) {
            let failures = u32::try_from(created).expect("small");
            let entry = BlockEntry { created: UnixMillis(created), source, failures, ..block(network, None) };
            list.put(&entry);
            assert_eq!(list.exact(entry.network), Some(entry.clone()));
            assert_eq!(list.page(0, 1, UnixMillis(0)).entries, std::slice::from_ref(&entry));
            let found = list.find(entry.network.addr(), UnixMillis(0)).expect("found");
            assert_eq!((found.network, found.source, found.expires), (entry.network, source, None));
            let by_operator = list.find_by_operator(entry.network.addr(), UnixMillis(0));
            assert_eq!(by_operator.is_some(), matches!(source, BlockSource::Manual | BlockSource::Import), "{network}");
        }
        assert_eq!(list.exact("192.0.2.0/25".parse().expect("network")), None);
        assert_eq!(list.exact("198.51.100.0/24".parse().expect("network")), None);
        let ended = block("10.0.0.0/8", Some(5));
        list.put(&BlockEntry { source: BlockSource::Manual, ..ended.clone() });
        assert_eq!(list.len(), 4, "replaced");
        for (now, held) in [(4, true), (5, false)] {
            assert_eq!(list.find_by_operator("10.1.1.1".parse().expect("address"), UnixMillis(now)).is_some(), held);
        }
    }

    /// Networks that lie close to one another, so that they nest and collide.
    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<[bool; 4]>(), any::<u8>(), 0_u8..=32).prop_map(|(bits, low, length)| {
            let address = [u8::from(bits[0]) << 7, u8::from(bits[1]), u8::from(bits[2]) << 7, low & 0x81];
            IpNet::new(address.into(), length).expect("a length").trunc()
        });
        let v6 = (any::<[bool; 3]>(), any::<u8>(), 0_u8..=128).prop_map(|(bits, low, length)| {
            let address = u128::from(bits[0]) << 127 | u128::from(bits[1]) << 96 | u128::from(bits[2]) << 64;
            let address = Ipv6Addr::from(address | u128::from(low & 0x81));
            IpNet::new(address.into(), length).expect("a length").trunc()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        /// Case 12.
        #[test]
        fn look_ups_agree_with_a_plain_search(
            blocks in proptest::collection::vec((network(), proptest::option::of(0_i64..4)), 0..40),
            removed in proptest::collection::vec(any::<proptest::sample::Index>(), 0..5),
            asked in network(),
            bulk in any::<bool>(),
            cut in any::<proptest::sample::Index>(),
        ) {
            let list = BlockList::default();
            let entries: Vec<_> = blocks.iter().map(|(network, expires)| block(&network.to_string(), *expires)).collect();
            if bulk {
                // What was in the list before is gone, and of the same network the last one counts, also between two batches.
                list.put(&block("198.51.100.7/32", None));
                let (first, second) = entries.split_at(cut.index(entries.len() + 1));
                list.load([first, second].map(|part| part.iter().cloned().collect::<BlockBatch>().arranged()));
            } else {
                for entry in &entries {
                    list.put(entry);
                }
            }
            let mut plain: HashMap<IpNet, BlockEntry> = entries.iter().map(|e| (e.network, e.clone())).collect();
            if !entries.is_empty() {
                for index in removed {
                    let gone = index.get(&entries).network;
                    prop_assert_eq!(list.remove(gone), plain.remove(&gone));
                }
            }
            prop_assert_eq!(list.len(), plain.len());
            for (network, entry) in &plain {
                prop_assert_eq!(list.exact(*network), Some(entry.clone()));
            }
            for now in 0..4 {
                let now = UnixMillis(now);
                let wanted = plain.values()
                    .filter(|e| e.network.contains(&asked.addr()) && e.expires.is_none_or(|at| at > now))
                    .max_by_key(|e| e.network.prefix_len());
                prop_assert_eq!(list.find(asked.addr(), now).map(|b| b.network), wanted.map(|e| e.network));
                let in_force = plain.values().filter(|e| e.expires.is_none_or(|at| at > now)).count();
                prop_assert_eq!(list.page(0, 100, now).total, in_force as u64);
            }
            let (lifted, next) = list.expire(UnixMillis(2));
            prop_assert_eq!(lifted.len(), plain.values().filter(|e| e.expires.is_some_and(|at| at.0 <= 2)).count());
            prop_assert_eq!(next.map(|at| at.0), plain.values().filter_map(|e| e.expires).map(|at| at.0).filter(|at| *at > 2).min());
        }
    }
}
