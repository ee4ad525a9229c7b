//! Pure security decisions: keys, rates and address lists. No waiting, no I/O, no clock of its own.
//!
//! Called by `proxy` (every request), `operations` (changes) and `daemon` (loading, expiry). Reading never
//! locks; what is counted per address is bounded whatever the number of addresses (SPEC §5.7).

pub mod address_lists;
pub mod gcra;
pub mod key_glob;
pub mod key_hash;
pub mod key_table;
pub mod key_text;
pub mod rates;
pub mod token_day;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use self::address_lists::AddressLists;
use self::gcra::RateDecision;
use self::key_table::{KeyCheck, KeyEntry, KeyTable};
use self::rates::AddressRates;
use crate::types::address::{BlockEntry, ListedNetwork};
use crate::types::calls::addresses::{BlockPage, NetworkList};
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::key::KeyRecord;

/// Thresholds of the guard, swapped as one on reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardPolicy {
    /// Requests per minute from one address (SPEC §5.7: 1000); 0 is no limit.
    pub address_requests_per_minute: u32,
    /// Requests that may come at once from one address before the rate counts.
    pub address_burst: u32,
}

impl Default for GuardPolicy {
    fn default() -> Self {
        // SPEC §5.7 gives the rate; a burst of a fifth lets a page of parallel calls pass.
        Self { address_requests_per_minute: 1000, address_burst: 200 }
    }
}

/// Whether an address may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It may.
    Allowed,
    /// It is on the block list: 403 `ip_blocked`.
    Blocked(Arc<BlockEntry>),
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

/// All decisions of one owner. Shared by every worker.
#[derive(Debug)]
pub struct Guard {
    lists: AddressLists,
    keys: KeyTable,
    rates: AddressRates,
}

impl Guard {
    /// A guard without keys and lists. `process_key` is 32 random bytes for the cache of verified keys.
    #[must_use]
    pub fn new(policy: GuardPolicy, process_key: [u8; 32]) -> Self {
        Self { lists: AddressLists::default(), keys: KeyTable::new(process_key), rates: AddressRates::new(policy) }
    }

    /// Swaps the thresholds.
    pub fn set_policy(&self, policy: GuardPolicy) {
        self.rates.set_policy(policy);
    }

    /// Decides on an address by allow list and block list. The address must be canonical.
    pub fn address(&self, address: IpAddr, now: UnixMillis) -> AddressVerdict {
        self.lists.decide(address, now)
    }

    /// Whether the address is on the trusted list: never limited or blocked automatically (SPEC §5.2).
    pub fn trusted(&self, address: IpAddr) -> bool {
        self.lists.trusted(address)
    }

    /// Counts a request against its address.
    pub fn address_rate(&self, address: IpAddr, now: Instant) -> RateDecision {
        self.rates.take(address, now)
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
    pub fn load_blocks(&self, blocks: Vec<BlockEntry>) {
        self.lists.load_blocks(blocks);
    }

    /// Adds or replaces one block: in force when this returns.
    pub fn put_block(&self, block: BlockEntry) {
        self.lists.put_block(block);
    }

    /// Lifts one block: in force when this returns.
    pub fn remove_block(&self, network: IpNet) -> Option<Arc<BlockEntry>> {
        self.lists.remove_block(network)
    }

    /// Lifts all blocks and answers them.
    pub fn clear_blocks(&self) -> Vec<Arc<BlockEntry>> {
        self.lists.clear_blocks()
    }

    /// A page of the block list, newest first: this memory is the authority.
    pub fn blocks(&self, offset: u32, limit: u32, now: UnixMillis) -> BlockPage {
        self.lists.page(offset, limit, now)
    }

    /// Replaces a list of networks.
    pub fn load_networks(&self, list: NetworkList, networks: &[ListedNetwork]) {
        self.lists.load_networks(list, networks);
    }

    /// Drops what has run out; answers the blocks that were lifted, and when the next one lifts.
    pub fn expire(&self, now: UnixMillis) -> (Vec<Arc<BlockEntry>>, Option<UnixMillis>) {
        self.lists.expire(now)
    }
}

/// How long a client that met a rate should wait, in whole seconds (SPEC §4.4: never more than 120).
#[must_use]
pub fn retry_after_seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).clamp(1, 120)
}
