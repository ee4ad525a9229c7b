//! Pure security decisions: keys, rates, address lists, failures and scores. No waiting, no I/O, no clock of its own.
//!
//! Called by `proxy` (every request), `operations` (changes) and `daemon` (loading, expiry, storing). Reading never
//! locks; what is counted per address is bounded whatever the number of addresses (SPEC §5.7). What must be stored is
//! laid into [`Guard::take_pending`]'s lane, where the newest state of each network replaces the one before.

pub mod address_lists;
pub mod block_list;
pub mod detectors;
pub mod exposure;
pub mod failures;
pub mod gcra;
pub mod key_glob;
pub mod key_hash;
pub mod key_table;
pub mod key_text;
#[cfg(test)]
mod key_timing;
pub mod minted_key;
pub mod passphrase;
mod pending;
pub mod rates;
pub mod surge;
pub mod suspects;
pub mod token_day;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use tokio::sync::Notify;

use self::address_lists::AddressLists;
use self::block_list::{Block, BlockBatch};
use self::exposure::ExposureState;
use self::failures::{Failed, Failures, LONGEST_FOR_OWN, network_of};
use self::gcra::RateDecision;
use self::key_table::{KeyCheck, KeyEntry, KeyTable};
use self::pending::Pending;
use self::rates::{AddressRates, Arrival};
use self::suspects::{Finding, Outcome, Suspects};
use crate::types::address::{BlockEntry, BlockSource, ListedNetwork, is_private};
use crate::types::calls::addresses::{BlockPage, NetworkList};
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::key::KeyRecord;
use crate::types::listener::{Exposure, Overload};
use crate::types::policy::{CountingPolicy, Mode, RuleName, SecurityPolicy};

pub use self::pending::PendingChanges;

/// Blocks above which none is added automatically: what SPEC §5.3 wants a look-up to stay fast for. Those in force
/// stay; the operator is told.
const AUTOMATIC_BLOCKS: usize = 1_000_000;

/// What an address may expect before anything is known of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Ordinary,
    /// Never blocked or limited automatically (SPEC §5.2).
    Trusted,
}

/// Whether an address may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It may.
    Allowed,
    /// It is on the block list: 403 `ip_blocked`.
    Blocked(Block),
    /// There is an allow list and it is not on it: 403 `ip_not_allowed`.
    NotAllowed,
}

/// What an Argon2 run found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashOutcome {
    /// The secret is right.
    Matches,
    /// The secret is wrong.
    Differs,
}

/// What a presented wrong key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureVerdict {
    /// It does not count: the rule is off, the address is trusted, or the same key was counted a moment ago.
    NotCounted,
    /// It counts.
    Counted {
        /// Failures of the address within the window.
        failures: u32,
        /// Blocks that it led to; in force when this is answered. With the rule in simulate those that it would have.
        blocks: Vec<BlockEntry>,
        /// Whether the rule acts.
        mode: Mode,
    },
}

/// What findings came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreVerdict {
    /// Findings that counted, and how far they went.
    pub outcome: Outcome,
    /// The block that they led to; in force when this is answered.
    pub block: Option<BlockEntry>,
}

/// All decisions of one owner. Shared by every worker.
pub struct Guard {
    policy: ArcSwap<SecurityPolicy>,
    lists: AddressLists,
    keys: KeyTable,
    rates: AddressRates,
    failures: Failures,
    suspects: Suspects,
    exposure: Arc<ExposureState>,
    /// Addresses from which the operator was last seen logged in: no network of theirs is blocked for ever (SPEC §5.3).
    operators: ArcSwap<Vec<IpAddr>>,
    pending: Pending,
    /// Why new work is refused (SPEC §5.8); set by whoever watches the machine.
    overload: ArcSwapOption<Overload>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("lists", &self.lists).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard without keys and lists. `process_key` is 32 random bytes for the cache of verified keys.
    #[must_use]
    pub fn new(policy: SecurityPolicy, process_key: [u8; 32]) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            lists: AddressLists::default(),
            keys: KeyTable::new(process_key),
            rates: AddressRates::default(),
            failures: Failures::default(),
            suspects: Suspects::default(),
            exposure: Arc::default(),
            operators: ArcSwap::default(),
            pending: Pending::default(),
            overload: ArcSwapOption::empty(),
        }
    }

    /// Swaps the policy.
    pub fn set_policy(&self, policy: SecurityPolicy) {
        self.policy.store(Arc::new(policy));
    }

    /// The policy in force. A request takes it once.
    pub fn policy(&self) -> Arc<SecurityPolicy> {
        self.policy.load_full()
    }

    /// Tells why new work is refused from now on, or that it is taken again.
    pub fn set_overload(&self, overload: Option<Overload>) {
        self.overload.store(overload.map(Arc::new));
    }

    /// Why new work is refused; `None` when it is not.
    pub fn overload(&self) -> Option<Overload> {
        self.overload.load().as_deref().copied()
    }

    /// How far the endpoint is reached.
    pub fn exposure(&self) -> &Arc<ExposureState> {
        &self.exposure
    }

    /// Whether rules guard the endpoint; with it reached from this machine only, keys and limits do alone.
    pub fn is_public(&self) -> bool {
        self.exposure.now() == Exposure::Public
    }

    /// Decides on an address by allow list and block list. The address must be canonical.
    pub fn address(&self, address: IpAddr, standing: Standing, now: UnixMillis) -> AddressVerdict {
        self.lists.decide(address, standing, now)
    }

    /// Whether the address is on the trusted list: never limited or blocked automatically (SPEC §5.2).
    pub fn trusted(&self, address: IpAddr) -> bool {
        self.lists.trusted(address)
    }

    /// Counts a request against its address.
    pub fn arrive(&self, policy: &SecurityPolicy, address: IpAddr, now: Instant) -> Arrival {
        self.rates.arrive(policy, address, now)
    }

    /// Counts a presented wrong key; what it leads to is in force when this returns (SPEC §5.3).
    pub fn failed(&self, address: IpAddr, standing: Standing, presented: &str, now: UnixMillis) -> FailureVerdict {
        let policy = self.policy.load();
        let rule = &policy.failed_authentication;
        if rule.mode == Mode::Off || standing == Standing::Trusted || !self.is_public() {
            return FailureVerdict::NotCounted;
        }
        match self.failures.count(rule, address, presented, is_private(address), now) {
            Failed::SameKey => FailureVerdict::NotCounted,
            Failed::Counted { failures, reached, changed } => {
                for (network, times) in changed {
                    self.pending.failures(network, times);
                }
                let operators = self.operators.load();
                let holds_operator = |network: IpNet| operators.iter().any(|operator| network.contains(operator));
                let lasting = |reached: &failures::Reached| {
                    reached.lasting.or_else(|| holds_operator(reached.network).then_some(LONGEST_FOR_OWN))
                };
                let blocks: Vec<_> = reached
                    .into_iter()
                    .map(|reached| BlockEntry {
                        network: reached.network,
                        reason: format!("{} wrong keys", reached.failures),
                        source: BlockSource::FailedAuthentication,
                        failures: reached.failures,
                        created: now,
                        expires: lasting(&reached).map(|span| now.plus(span)),
                    })
                    .collect();
                if rule.mode == Mode::Enforce {
                    for entry in &blocks {
                        self.block_automatically(entry);
                    }
                }
                FailureVerdict::Counted { failures, blocks, mode: rule.mode }
            }
        }
    }

    /// Failures of an address within the window.
    pub fn failures_of(&self, address: IpAddr, now: UnixMillis) -> u32 {
        self.failures.of(&self.policy.load().failed_authentication, address, now)
    }

    /// Puts stored failures back, at start.
    pub fn restore_failures(&self, stored: Vec<(IpNet, Vec<UnixMillis>)>) {
        self.failures.restore(stored);
    }

    /// Adds findings to the score of an address; a block that they lead to is in force when this returns. The trusted
    /// are scored, so that the operator is told, and never blocked.
    pub fn score(&self, address: IpAddr, standing: Standing, findings: Vec<Finding>, now: UnixMillis) -> ScoreVerdict {
        let policy = self.policy.load();
        let outcome = self.suspects.add(&policy, address, findings, now);
        let block = match (outcome.reached, outcome.scored.iter().rfind(|scored| !scored.simulated)) {
            (suspects::Reached::Blocked(span), Some(last)) if standing == Standing::Ordinary => {
                let entry = BlockEntry {
                    network: network_of(address),
                    reason: format!("scored by {}", last.finding.rule),
                    source: BlockSource::Score,
                    failures: self.failures_of(address, now),
                    created: now,
                    expires: Some(now.plus(span)),
                };
                self.block_automatically(&entry);
                Some(entry)
            }
            _ => None,
        };
        ScoreVerdict { outcome, block }
    }

    /// Counts something of an address towards a rule; answers how often it happened when that makes a hit.
    pub fn count(
        &self,
        policy: &CountingPolicy,
        rule: RuleName,
        address: IpAddr,
        what: &[u8],
        now: UnixMillis,
    ) -> Option<u32> {
        self.suspects.count(policy, rule, address, what, now)
    }

    /// Whether a presented key is one that was verified before and is valid: no hash is computed, nothing is counted.
    pub fn is_known_key(&self, presented: &str, now: UnixMillis) -> bool {
        matches!(self.keys.check(presented, now), KeyCheck::Known(_))
    }

    /// The score of an address.
    pub fn score_of(&self, address: IpAddr, now: UnixMillis) -> u32 {
        self.suspects.score(&self.policy.load(), address, now)
    }

    fn block_automatically(&self, entry: &BlockEntry) {
        if self.lists.blocks.len() >= AUTOMATIC_BLOCKS {
            tracing::error!(network = %entry.network, "the block list is full: an address was not blocked automatically");
            return;
        }
        // A block that is there and lasts longer stays: a wrong key must not shorten what the operator decided.
        let longer =
            self.lists.blocks.exact(entry.network).is_some_and(|known| {
                known.expires.is_none_or(|until| entry.expires.is_some_and(|wanted| until >= wanted))
            });
        if longer {
            return;
        }
        self.lists.blocks.put(entry);
        self.pending.block(entry.clone());
    }

    /// Tells from where the operator is logged in.
    pub fn set_operators(&self, addresses: Vec<IpAddr>) {
        self.operators.store(Arc::new(addresses));
    }

    /// Gives a block that was decided as lasting for ever its end, unless it was lifted or replaced meanwhile: the operator turned
    /// out to be logged in from its network (SPEC §5.3).
    pub fn shorten(&self, entry: &BlockEntry) {
        let same = |known: &BlockEntry| known.expires.is_none() && known.created == entry.created;
        if self.lists.blocks.exact(entry.network).as_ref().is_some_and(same) {
            self.lists.blocks.put(entry);
        }
    }

    /// What came about since the last call and must be stored.
    pub fn take_pending(&self) -> PendingChanges {
        self.pending.take()
    }

    /// Told when something must be stored.
    pub fn pending_changed(&self) -> &Notify {
        self.pending.changed()
    }

    /// Checks a presented key. Costs no Argon2 run (SPEC §5.1).
    pub fn check_key(&self, presented: &str, now: UnixMillis) -> KeyCheck {
        self.keys.check(presented, now)
    }

    /// Counts a request against its key.
    pub fn key_rate(&self, key: &KeyEntry, now: Instant) -> RateDecision {
        key.counts.rate.take(key.rate, self.keys.origin(now), now)
    }

    /// Settles a [`KeyCheck::NeedsHash`] after its Argon2 run.
    pub fn settle_key(&self, presented: &str, id: KeyId, outcome: HashOutcome, now: UnixMillis) -> KeyCheck {
        self.keys.settle(presented, id, outcome, now)
    }

    /// Replaces all keys.
    pub fn load_keys(&self, keys: Vec<KeyRecord>) {
        self.keys.load(keys);
    }

    /// Adds or replaces one key: in force when this returns.
    pub fn put_key(&self, key: KeyRecord) {
        self.keys.put(key);
    }

    /// The live entry of a key, for its counts and its record.
    pub fn key(&self, id: KeyId) -> Option<Arc<KeyEntry>> {
        self.keys.entry(id)
    }

    /// Adds tokens that a key had used before this process started.
    pub fn restore_tokens(&self, id: KeyId, tokens: u64, now: UnixMillis) {
        if let Some(entry) = self.keys.entry(id) {
            entry.counts.tokens.spend(tokens, now);
        }
    }

    /// Keys used since the last call, with the time of the last use.
    pub fn take_used_keys(&self) -> Vec<(KeyId, UnixMillis)> {
        self.keys.take_used()
    }

    /// Replaces all blocks.
    pub fn load_blocks(&self, blocks: impl IntoIterator<Item = BlockBatch>) {
        self.lists.blocks.load(blocks);
    }

    /// Adds or replaces blocks: in force when this returns.
    pub fn put_blocks(&self, blocks: &[BlockEntry]) {
        for entry in blocks {
            self.lists.blocks.put(entry);
        }
    }

    /// The block of exactly this network, if one is in force.
    pub fn block(&self, network: IpNet, now: UnixMillis) -> Option<BlockEntry> {
        self.lists.blocks.exact(network).filter(|entry| entry.expires.is_none_or(|expires| expires > now))
    }

    /// Lifts one block: in force when this returns.
    pub fn remove_block(&self, network: IpNet) -> Option<BlockEntry> {
        self.pending.forget_block(network);
        self.lists.blocks.remove(network)
    }

    /// Lifts all blocks and answers how many there were.
    pub fn clear_blocks(&self) -> usize {
        self.pending.forget_blocks();
        self.lists.blocks.clear()
    }

    /// A page of the block list, newest first: this memory is the authority.
    pub fn blocks(&self, offset: u32, limit: u32, now: UnixMillis) -> BlockPage {
        self.lists.blocks.page(offset, limit, now)
    }

    /// Replaces a list of networks.
    pub fn load_networks(&self, list: NetworkList, networks: &[ListedNetwork]) {
        self.lists.load_networks(list, networks);
    }

    /// Drops what has run out; answers the blocks that were lifted, and when the next one lifts.
    pub fn expire(&self, now: UnixMillis) -> (Vec<BlockEntry>, Option<UnixMillis>) {
        self.lists.blocks.expire(now)
    }
}

/// How long a client that met a rate should wait, in whole seconds (SPEC §4.4: never more than 120).
#[must_use]
pub fn retry_after_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).clamp(1, 120)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not the operator's address alone: the network that would be blocked counts (SPEC §5.3).
    #[test]
    fn no_network_from_which_the_operator_is_logged_in_is_blocked_for_ever() {
        let guard = Guard::new(SecurityPolicy::default(), [7; 32]);
        guard.exposure().notice();
        let now = UnixMillis(1_800_000_000_000);
        guard.set_operators(vec!["2001:db8:1:2::7".parse().expect("an address")]);
        let (mut lasting, mut number) = (std::collections::BTreeMap::new(), 0);
        // The operator's /64, another one of the same /48, and somebody else.
        for address in ["2001:db8:1:2::bad", "2001:db8:1:9::1", "2001:db8:1:9::1", "2001:db8:1:9::1", "203.0.113.9"] {
            for _ in 0..20 {
                number += 1;
                let (address, key) = (address.parse().expect("an address"), format!("wrong {number}"));
                if let FailureVerdict::Counted { blocks, .. } = guard.failed(address, Standing::Ordinary, &key, now) {
                    lasting.extend(blocks.into_iter().map(|block| (block.network.to_string(), block.expires)));
                }
            }
        }
        let day = Some(now.plus(LONGEST_FOR_OWN));
        assert_eq!(lasting["2001:db8:1:2::/64"], day);
        assert_eq!(lasting["2001:db8:1:9::/64"], None);
        assert_eq!(lasting["2001:db8:1::/48"], day, "80 of the wide network, which holds the operator");
        assert_eq!(lasting["203.0.113.9/32"], None);
    }

    /// Case 13. Blocks live apart from what is counted per address: no flood of addresses pushes one out.
    #[test]
    fn given_a_flood_of_addresses_then_no_block_in_force_is_lost() {
        let guard = Guard::new(SecurityPolicy::default(), [7; 32]);
        guard.exposure().notice();
        let now = UnixMillis(1_800_000_000_000);
        let (v4, v6): (IpAddr, IpAddr) =
            ("203.0.113.9".parse().expect("an address"), "2001:db8:9::1".parse().expect("an address"));
        for blocked in [v4, v6] {
            for number in 0..5 {
                guard.failed(blocked, Standing::Ordinary, &format!("wrong {number}"), now);
            }
        }
        let policy = guard.policy();
        let clock = crate::types::clock::Clock::system();
        // More than anything that is counted per address remembers.
        for number in 0..200_000_u32 {
            let address = if number.is_multiple_of(2) {
                IpAddr::V4((0x0b00_0000 + number).into())
            } else {
                IpAddr::V6((0x2a00_u128 << 112 | u128::from(number) << 80 | 1).into())
            };
            guard.arrive(&policy, address, clock.monotonic());
            guard.failed(address, Standing::Ordinary, "flm_wrong", now);
            guard.score(address, Standing::Ordinary, vec![Finding::new(RuleName::ScannerAgent, "sqlmap")], now);
            if number.is_multiple_of(1000) {
                guard.take_pending();
            }
        }
        for blocked in [v4, v6] {
            let verdict = guard.address(blocked, Standing::Ordinary, now);
            assert!(matches!(verdict, AddressVerdict::Blocked(_)), "{blocked}: {verdict:?}");
        }
    }

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn public(policy: &str) -> Guard {
        let guard = Guard::new(SecurityPolicy::parse(policy).expect("a policy"), [7; 32]);
        guard.exposure().notice();
        guard
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn manual(network: &str, expires: Option<UnixMillis>) -> BlockEntry {
        BlockEntry {
            network: network.parse().expect("a network"),
            reason: "by hand".to_owned(),
            source: BlockSource::Manual,
            failures: 0,
            created: NOW,
            expires,
        }
    }

    /// Fails so often, each time with another key; what the last one came to.
    fn fail(guard: &Guard, from: &str, standing: Standing, times: u32) -> FailureVerdict {
        let mut last = FailureVerdict::NotCounted;
        for number in 0..times {
            last = guard.failed(address(from), standing, &format!("wrong {number}"), NOW);
        }
        last
    }

    #[test]
    fn wrong_keys_count_where_the_rule_acts_and_block_where_it_is_enforced() {
        let local = Guard::new(SecurityPolicy::default(), [7; 32]);
        assert!(!local.is_public());
        assert_eq!(fail(&local, "203.0.113.9", Standing::Ordinary, 9), FailureVerdict::NotCounted);
        let off = public(r#"{"failed_authentication":{"mode":"off"}}"#);
        assert!(off.is_public());
        assert_eq!(fail(&off, "203.0.113.9", Standing::Ordinary, 9), FailureVerdict::NotCounted);
        assert_eq!(fail(&public("{}"), "203.0.113.9", Standing::Trusted, 9), FailureVerdict::NotCounted);
        for (mode, acts) in [("simulate", false), ("enforce", true)] {
            let guard = public(&format!(r#"{{"failed_authentication":{{"mode":"{mode}"}}}}"#));
            let FailureVerdict::Counted { failures, blocks, .. } = fail(&guard, "203.0.113.9", Standing::Ordinary, 5)
            else {
                panic!("it counts")
            };
            let [block] = &blocks[..] else { panic!("one block: {blocks:?}") };
            assert_eq!((failures, block.failures, &*block.reason), (5, 5, "5 wrong keys"));
            assert_eq!(block.expires, Some(NOW.plus(Duration::from_secs(1800))));
            assert_eq!(guard.failures_of(address("203.0.113.9"), NOW), 5);
            assert_eq!(guard.block(block.network, NOW).is_some(), acts, "{mode}");
            let pending = guard.take_pending();
            assert_eq!((pending.blocks.len(), pending.failures.len()), (usize::from(acts), 1), "{mode}");
            assert_eq!(guard.take_pending(), PendingChanges::default(), "told once");
        }
    }

    #[test]
    fn an_automatic_block_shortens_none_that_is_there() {
        let wanted = NOW.plus(Duration::from_secs(1800));
        for (expires, stays) in
            [(None, true), (Some(wanted.0 + 1), true), (Some(wanted.0), true), (Some(wanted.0 - 1), false)]
        {
            let guard = public("{}");
            guard.put_blocks(&[manual("203.0.113.9/32", expires.map(UnixMillis))]);
            fail(&guard, "203.0.113.9", Standing::Ordinary, 5);
            let block = guard.block(network_of(address("203.0.113.9")), NOW).expect("a block");
            assert_eq!(block.source == BlockSource::Manual, stays, "{expires:?}");
            assert_eq!(guard.take_pending().blocks.is_empty(), stays, "{expires:?}");
        }
    }

    #[test]
    fn a_score_blocks_its_network_unless_the_address_is_trusted() {
        let finding = || vec![Finding::new(RuleName::SqlInjection, "query: condition")];
        for (standing, blocked) in [(Standing::Ordinary, true), (Standing::Trusted, false)] {
            let guard = public("{}");
            let from = address("2001:db8::7");
            fail(&guard, "2001:db8::7", Standing::Ordinary, 2);
            for number in 1..5 {
                assert_eq!(guard.score(from, standing, finding(), NOW).block, None);
                assert_eq!(guard.score_of(from, NOW), number * 20);
            }
            let block = guard.score(from, standing, finding(), NOW).block;
            assert_eq!(block.is_some(), blocked, "{standing:?}");
            if let Some(block) = block {
                assert_eq!((block.network.to_string(), block.failures), ("2001:db8::/64".to_owned(), 2));
                assert_eq!((&*block.reason, block.source), ("scored by sql_injection", BlockSource::Score));
                assert_eq!(guard.take_pending().blocks, [block]);
            }
            let verdict = guard.address(from, Standing::Ordinary, NOW);
            assert_eq!(matches!(verdict, AddressVerdict::Blocked(_)), blocked, "{standing:?}");
        }
        // Hits of a rule that simulates are scored, and block nobody.
        let guard = public(r#"{"rules":{"sql_injection":{"mode":"simulate"}}}"#);
        assert!(
            (0..5).all(|_| guard.score(address("2001:db8::7"), Standing::Ordinary, finding(), NOW).block.is_none())
        );
    }

    #[test]
    fn what_was_stored_is_in_force_after_a_start() {
        let guard = public("{}");
        let (from, network) = (address("203.0.113.9"), network_of(address("203.0.113.9")));
        guard.restore_failures(vec![(network, vec![NOW; 4])]);
        assert_eq!(guard.failures_of(from, NOW), 4);

        let mut byte = 0_u8;
        let (id, key) = key_text::write(&mut || {
            byte = byte.wrapping_mul(5).wrapping_add(17);
            byte
        });
        let limits = crate::types::key::KeyLimits { requests_per_minute: 60, burst: 1, ..Default::default() };
        let view = crate::types::key::KeyView::unused(id, "test", "abcd", limits, NOW);
        let record = KeyRecord { view, hash: "hash".into() };
        guard.load_keys(vec![record.clone()]);
        guard.restore_tokens(id, 70, NOW);
        let entry = guard.key(id).expect("the key");
        assert_eq!((entry.counts.tokens.state(NOW).spent, &*entry.label), (70, "test"));
        assert!(!guard.is_known_key(key.expose(), NOW), "not before its hash was compared");
        assert!(matches!(guard.check_key(key.expose(), NOW), KeyCheck::NeedsHash { .. }));
        guard.settle_key(key.expose(), id, HashOutcome::Matches, NOW);
        assert!(guard.is_known_key(key.expose(), NOW));
        assert_eq!(guard.take_used_keys(), [(id, NOW)]);
        let at = crate::types::clock::Clock::stepped(NOW).monotonic();
        assert!(matches!(guard.key_rate(&entry, at), RateDecision::Allowed { .. }));
        assert!(matches!(guard.key_rate(&entry, at), RateDecision::Limited { .. }), "its own rate");
        guard.load_keys(Vec::new());
        assert!(guard.key(id).is_none());
        guard.put_key(record);
        assert!(guard.key(id).is_some());

        let end = NOW.plus(Duration::from_secs(1));
        let blocks = [manual("192.0.2.0/24", Some(end)), manual("198.51.100.0/24", None)];
        guard.load_blocks([blocks.into_iter().collect()]);
        let (short, lasting) = (manual("192.0.2.0/24", None).network, manual("198.51.100.0/24", None).network);
        assert!(guard.block(short, NOW).is_some() && guard.block(short, end).is_none(), "until its end");
        let page = guard.blocks(0, 10, NOW);
        assert_eq!((page.total, page.entries.len()), (2, 2));
        let (lifted, next) = guard.expire(NOW);
        assert_eq!((lifted.len(), next), (0, Some(end)));
        let (lifted, next) = guard.expire(end);
        assert_eq!((lifted[0].network, lifted.len(), next), (short, 1, None));
        assert_eq!(guard.remove_block(lasting).map(|block| block.network), Some(lasting));
        assert_eq!(guard.clear_blocks(), 0);

        let listed = |network: &str| ListedNetwork {
            network: network.parse().expect("a network"),
            note: String::new(),
            created: NOW,
        };
        guard.load_networks(NetworkList::Trusted, &[listed("203.0.113.0/24")]);
        assert!(guard.trusted(from) && !guard.trusted(address("192.0.2.1")));
        guard.load_networks(NetworkList::Allow, &[listed("203.0.113.0/24")]);
        assert_eq!(guard.address(from, Standing::Ordinary, NOW), AddressVerdict::Allowed);
        assert_eq!(guard.address(address("192.0.2.1"), Standing::Ordinary, NOW), AddressVerdict::NotAllowed);
    }

    #[test]
    fn a_lifted_block_is_not_stored_after_all() {
        let guard = public("{}");
        fail(&guard, "203.0.113.9", Standing::Ordinary, 5);
        guard.remove_block(network_of(address("203.0.113.9")));
        assert_eq!(guard.take_pending().blocks, []);
        fail(&guard, "192.0.2.1", Standing::Ordinary, 5);
        assert_eq!(guard.clear_blocks(), 1);
        assert_eq!(guard.take_pending().blocks, []);
    }

    #[test]
    fn only_the_same_block_without_an_end_is_given_one() {
        let end = Some(NOW.plus(LONGEST_FOR_OWN));
        let mut other = manual("203.0.113.9/32", None);
        other.created = UnixMillis(1);
        let known_end = Some(NOW.plus(Duration::from_secs(1)));
        for (known, shortened) in
            [(manual("203.0.113.9/32", None), true), (other, false), (manual("203.0.113.9/32", known_end), false)]
        {
            let guard = public("{}");
            guard.put_blocks(&[known]);
            let entry = manual("203.0.113.9/32", end);
            guard.shorten(&entry);
            assert_eq!(guard.block(entry.network, NOW).expect("a block").expires == end, shortened);
        }
        let guard = public("{}");
        guard.shorten(&manual("203.0.113.9/32", end));
        assert_eq!(guard.blocks(0, 1, NOW).total, 0, "one that was lifted does not come back");
    }

    #[test]
    fn what_is_set_is_what_is_told() {
        let guard = public("{}");
        guard.set_policy(SecurityPolicy::parse(r#"{"address_rate":{"per_minute":7}}"#).expect("a policy"));
        assert_eq!(guard.policy().address_rate.per_minute.get(), 7);
        assert_eq!(guard.overload(), None);
        guard.set_overload(Some(Overload::Processor { percent: 97 }));
        assert_eq!(guard.overload(), Some(Overload::Processor { percent: 97 }));
        let policy = SecurityPolicy::default().rules.unknown_endpoint;
        let count = |_| guard.count(&policy, RuleName::UnknownEndpoint, address("192.0.2.1"), b"/x", NOW);
        assert_eq!((0..5).filter_map(count).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn whoever_must_wait_is_told_whole_seconds_from_one_to_120() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (119_001, 120), (900_000, 120)] {
            assert_eq!(retry_after_seconds(Duration::from_millis(millis)), seconds, "{millis} ms");
        }
    }

    #[test]
    fn whoever_stores_is_woken_by_what_there_is_to_store() {
        let guard = public("{}");
        let mut changed = Box::pin(guard.pending_changed().notified());
        assert!(!changed.as_mut().enable());
        fail(&guard, "203.0.113.9", Standing::Ordinary, 1);
        assert!(changed.as_mut().enable());
    }

    /// What lands in a log when somebody prints one: how many there are, never which keys.
    #[test]
    fn what_is_printed_of_the_guard_counts_and_names_no_key() {
        let guard = Arc::new(public("{}"));
        guard.put_blocks(&[manual("192.0.2.0/24", None)]);
        fail(&guard, "203.0.113.9", Standing::Ordinary, 1);
        guard.score(address("203.0.113.9"), Standing::Ordinary, vec![Finding::new(RuleName::Honeypot, "x")], NOW);
        let printed = format!("{guard:?}");
        assert!(
            printed.contains("BlockList { blocks: 1, .. }") && printed.contains("KeyTable { keys: 0, .. }"),
            "{printed}"
        );
        assert_eq!(format!("{:?}", guard.failures), "Failures { networks: 1, .. }");
        assert_eq!(format!("{:?}", guard.suspects), "Suspects { addresses: 1, .. }");
        assert_eq!(format!("{:?}", guard.rates), "AddressRates { remembered: 0, .. }");
        let drawn = key_text::write(&mut || 9);
        let minted = minted_key::MintedKey::new(&guard, drawn.clone(), "flm chat", NOW);
        let printed = format!("{minted:?}");
        assert!(printed.starts_with("MintedKey { id: ") && !printed.contains(&drawn.1.expose()[4..]), "{printed}");
    }
}
