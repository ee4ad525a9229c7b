//! Keys in memory: found by their public id, checked without Argon2 after the first time (SPEC §5.1).
//!
//! A right key costs one Argon2 run per process, then a look-up under HMAC-SHA256 with a key that only this
//! process knows. Revoking replaces the entry, so the next check refuses it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit as _, Mac as _};
use quick_cache::sync::Cache;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;

use super::HashOutcome;
use super::gcra::{Gcra, Rate};
use super::key_text::{self, KeyText};
use super::token_day::TokenDay;
use crate::types::clock::UnixMillis;
use crate::types::ids::KeyId;
use crate::types::key::{KeyRecord, KeyView};

/// Right keys whose check is remembered.
const RIGHT_KEYS: usize = 8192;
/// Wrong ones that got as far as an Argon2 run. Apart from the others: a flood of them can only push each other back to one more
/// run, never a right key.
const WRONG_KEYS: usize = 4096;
/// How soon an accepted key is told again.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Counts of one key that outlive edits.
#[derive(Debug, Default)]
pub struct KeyCounts {
    /// Its rate limiter.
    pub rate: Gcra,
    /// Requests in flight.
    pub in_flight: AtomicU32,
    /// Fires when the key is revoked: running streams end (SPEC §5.1).
    pub ended: CancellationToken,
    /// Last use, milliseconds since the epoch; 0 is none since it was last written back.
    last_used: AtomicI64,
    /// From where its use was last told to the audit log, and when.
    told: Mutex<Option<(IpAddr, UnixMillis)>>,
    /// Tokens of the local day.
    pub tokens: TokenDay,
}

impl KeyCounts {
    /// Notes that the key was accepted on a connection; answers whether that is a row of the audit log (SPEC §5.9): not when the last
    /// one from the same client is less than a minute old, or programs that connect for each request would fill it. The one lock of
    /// a key that requests take: connections remember what they accepted and ask for the first only.
    pub fn tells_use(&self, client: IpAddr, now: UnixMillis) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = told.is_none_or(|(last, at)| last != client || now.since(at) >= TOLD_AGAIN);
        if is_news {
            *told = Some((client, now));
        }
        is_news
    }
}

/// A key as requests use it. Replaced whole by every edit.
#[derive(Debug)]
pub struct KeyEntry {
    /// What is stored.
    pub record: KeyRecord,
    /// Label, shared with every request row.
    pub label: Arc<str>,
    /// Its rate.
    pub rate: Rate,
    /// Its counts.
    pub counts: Arc<KeyCounts>,
    /// Which version of the stored hash this is: a remembered check holds for one only.
    generation: u64,
}

/// What is known about a presented key.
#[derive(Debug, Clone)]
pub enum KeyCheck {
    /// It is right and in force.
    Known(Arc<KeyEntry>),
    /// It is right, but expired: 401, not counted as a failure.
    Expired(Arc<KeyEntry>),
    /// It is right, but revoked: 401, not counted as a failure.
    Revoked(Arc<KeyEntry>),
    /// It is wrong: 401, counted.
    Wrong,
    /// Its id exists and its checksum holds: compare with this PHC string on a hashing thread, then settle.
    NeedsHash {
        /// Which key it claims to be.
        id: KeyId,
        /// The stored hash.
        phc: Arc<KeyEntry>,
    },
}

/// Against which version of which key it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Remembered {
    id: KeyId,
    generation: u64,
}

/// A key that lives in memory only.
#[derive(Debug, Clone)]
struct Minted {
    entry: Arc<KeyEntry>,
    /// Tag of its whole text: no Argon2 is needed for what no disk ever sees.
    tag: [u8; 32],
}

/// All keys.
pub struct KeyTable {
    entries: ArcSwap<HashMap<KeyId, Arc<KeyEntry>>>,
    /// Keys that were never stored, by the id in their text: gone when whoever minted them lets go.
    minted: ArcSwap<HashMap<KeyId, Minted>>,
    right: Cache<[u8; 32], Remembered>,
    wrong: Cache<[u8; 32], Remembered>,
    /// HMAC state with the process key already in it.
    keyed: Hmac<Sha256>,
    generations: AtomicU64,
    /// The first request's time: the keys' rates count from here.
    origin: OnceLock<Instant>,
    /// Held by writers only.
    writing: Mutex<()>,
}

impl KeyTable {
    /// A table without keys.
    #[must_use]
    pub fn new(process_key: [u8; 32]) -> Self {
        // RFC 2104: a key shorter than SHA-256's block of 64 bytes is filled up with zeros.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&process_key);
        Self {
            entries: ArcSwap::from_pointee(HashMap::new()),
            minted: ArcSwap::from_pointee(HashMap::new()),
            right: Cache::new(RIGHT_KEYS),
            wrong: Cache::new(WRONG_KEYS),
            keyed: Hmac::new(&block.into()),
            generations: AtomicU64::new(0),
            origin: OnceLock::new(),
            writing: Mutex::new(()),
        }
    }

    /// Checks a presented key as far as that costs no Argon2 run.
    pub fn check(&self, presented: &str, now: UnixMillis) -> KeyCheck {
        let id = match key_text::parse(presented) {
            KeyText::Parsed(parsed) => parsed.id,
            // A key of another program that was moved here with it, and may have begun like one of ours.
            KeyText::Damaged | KeyText::Foreign => match key_text::foreign_id(presented) {
                Some(id) if self.entries.load().contains_key(&id) => id,
                _ => return KeyCheck::Wrong,
            },
        };
        let Some(entry) = self.entry(id) else { return self.check_minted(id, presented) };
        let (tag, this) = (self.tag(presented), Remembered { id, generation: entry.generation });
        if self.right.get(&tag) == Some(this) {
            conclude(entry, HashOutcome::Matches, now)
        } else if self.wrong.get(&tag) == Some(this) {
            KeyCheck::Wrong
        } else {
            KeyCheck::NeedsHash { id, phc: entry }
        }
    }

    /// Remembers what an Argon2 run found and concludes.
    pub fn settle(&self, presented: &str, id: KeyId, outcome: HashOutcome, now: UnixMillis) -> KeyCheck {
        // Read again: the key may have been revoked during the run.
        let Some(entry) = self.entry(id) else { return KeyCheck::Wrong };
        let checked = match outcome {
            HashOutcome::Matches => &self.right,
            HashOutcome::Differs => &self.wrong,
        };
        checked.insert(self.tag(presented), Remembered { id, generation: entry.generation });
        conclude(entry, outcome, now)
    }

    fn check_minted(&self, id: KeyId, presented: &str) -> KeyCheck {
        match self.minted.load().get(&id) {
            Some(Minted { entry, tag }) if bool::from(tag.ct_eq(&self.tag(presented))) => {
                KeyCheck::Known(entry.clone())
            }
            _ => KeyCheck::Wrong,
        }
    }

    /// Adds a key that is never stored; `id` is the one in its text. Nothing but [`KeyTable::unmint`] takes it away.
    pub(super) fn mint(&self, id: KeyId, presented: &str, view: KeyView) {
        let entry = Arc::new(KeyEntry {
            label: view.label.as_str().into(),
            rate: Rate { per_minute: view.limits.requests_per_minute, burst: view.limits.burst },
            counts: Arc::default(),
            generation: self.generations.fetch_add(1, Ordering::Relaxed),
            // There is no hash that a settled check could be compared with.
            record: KeyRecord { view, hash: String::new() },
        });
        let minted = Minted { entry, tag: self.tag(presented) };
        self.minted.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(id, minted.clone());
            all
        });
    }

    /// Forgets a minted key; requests of it that still run are ended.
    pub(super) fn unmint(&self, id: KeyId) {
        if let Some(minted) = self.minted.load().get(&id) {
            minted.entry.counts.ended.cancel();
        }
        self.minted.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.remove(&id);
            all
        });
    }

    /// Replaces all keys; counts of keys that stay are kept.
    pub fn load(&self, records: Vec<KeyRecord>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.entries.load();
        let entries = records.into_iter().map(|record| (record.view.id, self.entry_for(record, &old))).collect();
        self.entries.store(Arc::new(entries));
    }

    /// Adds or replaces one key.
    pub fn put(&self, record: KeyRecord) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.entries.load();
        let mut entries = HashMap::clone(&old);
        entries.insert(record.view.id, self.entry_for(record, &old));
        self.entries.store(Arc::new(entries));
    }

    /// The time from which rates count.
    pub fn origin(&self, now: Instant) -> Instant {
        *self.origin.get_or_init(|| now)
    }

    /// The live entry of a key.
    pub fn entry(&self, id: KeyId) -> Option<Arc<KeyEntry>> {
        self.entries.load().get(&id).cloned()
    }

    /// Keys used since the last call.
    pub fn take_used(&self) -> Vec<(KeyId, UnixMillis)> {
        let entries = self.entries.load();
        entries
            .iter()
            .filter_map(|(id, entry)| match entry.counts.last_used.swap(0, Ordering::Relaxed) {
                0 => None,
                at => Some((*id, UnixMillis(at))),
            })
            .collect()
    }

    fn entry_for(&self, record: KeyRecord, old: &HashMap<KeyId, Arc<KeyEntry>>) -> Arc<KeyEntry> {
        let before = old.get(&record.view.id);
        let generation = match before {
            Some(before) if before.record.hash == record.hash => before.generation,
            _ => self.generations.fetch_add(1, Ordering::Relaxed),
        };
        let counts: Arc<KeyCounts> = before.map_or_else(Arc::default, |before| before.counts.clone());
        if record.view.revoked.is_some() {
            counts.ended.cancel();
        }
        Arc::new(KeyEntry {
            label: record.view.label.as_str().into(),
            rate: Rate { per_minute: record.view.limits.requests_per_minute, burst: record.view.limits.burst },
            counts,
            generation,
            record,
        })
    }

    fn tag(&self, presented: &str) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(presented.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

fn conclude(entry: Arc<KeyEntry>, outcome: HashOutcome, now: UnixMillis) -> KeyCheck {
    let view = &entry.record.view;
    match outcome {
        HashOutcome::Differs => KeyCheck::Wrong,
        HashOutcome::Matches if view.revoked.is_some() => KeyCheck::Revoked(entry),
        HashOutcome::Matches if view.expires.is_some_and(|expires| expires <= now) => KeyCheck::Expired(entry),
        HashOutcome::Matches => {
            entry.counts.last_used.store(now.0, Ordering::Relaxed);
            KeyCheck::Known(entry)
        }
    }
}

impl std::fmt::Debug for KeyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyTable").field("keys", &self.entries.load().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::key::KeyLimits;
    use crate::types::secret::Secret;

    fn written(seed: u8) -> (KeyId, Secret) {
        let mut next = seed;
        key_text::write(&mut || {
            next = next.wrapping_mul(5).wrapping_add(17);
            next
        })
    }

    fn record(id: KeyId) -> KeyRecord {
        let view = KeyView::unused(id, "test", "abcd", KeyLimits::default(), UnixMillis(0));
        KeyRecord { view, hash: "hash".into() }
    }

    /// Case 1.
    #[test]
    fn a_right_key_needs_one_hash_and_then_none() {
        let table = KeyTable::new([7; 32]);
        let (id, key) = written(1);
        table.put(record(id));
        assert!(matches!(table.check(key.expose(), UnixMillis(1)), KeyCheck::NeedsHash { .. }));
        assert!(matches!(table.settle(key.expose(), id, HashOutcome::Matches, UnixMillis(1)), KeyCheck::Known(_)));
        for _ in 0..100 {
            assert!(matches!(table.check(key.expose(), UnixMillis(2)), KeyCheck::Known(_)));
        }
        assert_eq!(table.take_used(), vec![(id, UnixMillis(2))]);
        assert_eq!(table.take_used(), vec![]);
    }

    #[test]
    fn wrong_checksum_unknown_id_and_foreign_keys_never_need_a_hash() {
        let table = KeyTable::new([7; 32]);
        let (id, key) = written(1);
        let (_, unknown) = written(9);
        table.put(record(id));
        let mut damaged = key.expose().to_owned();
        damaged.replace_range(20..21, if &damaged[20..21] == "x" { "y" } else { "x" });
        for text in [damaged.as_str(), unknown.expose(), "sk-other", ""] {
            assert!(matches!(table.check(text, UnixMillis(1)), KeyCheck::Wrong), "{text}");
        }
    }

    #[test]
    fn a_moved_key_of_another_program_is_found_by_its_text_and_no_other_text_needs_a_hash() {
        let table = KeyTable::new([7; 32]);
        for text in ["sk-old-4f9a1c7be0d24a6690e1b2c3", "flm_4f9a1c7be0d24a6690e1b2c3"] {
            let id = key_text::foreign_id(text).expect("strong enough");
            assert!(matches!(table.check(text, UnixMillis(1)), KeyCheck::Wrong), "not moved yet");
            table.put(record(id));
            assert!(matches!(table.check(text, UnixMillis(1)), KeyCheck::NeedsHash { id: found, .. } if found == id));
            assert!(matches!(table.settle(text, id, HashOutcome::Matches, UnixMillis(1)), KeyCheck::Known(_)));
            assert!(matches!(table.check(text, UnixMillis(1)), KeyCheck::Known(_)));
            let other = text.replace('9', "8");
            assert!(matches!(table.check(&other, UnixMillis(1)), KeyCheck::Wrong), "{other}");
        }
    }

    #[test]
    fn the_same_wrong_secret_costs_one_hash_only() {
        let table = KeyTable::new([7; 32]);
        let (id, key) = written(1);
        table.put(record(id));
        assert!(matches!(table.settle(key.expose(), id, HashOutcome::Differs, UnixMillis(1)), KeyCheck::Wrong));
        assert!(matches!(table.check(key.expose(), UnixMillis(1)), KeyCheck::Wrong));
    }

    #[test]
    fn an_accepted_key_is_told_once_a_minute_from_each_client() {
        let counts = KeyCounts::default();
        let tells = |client: &str, at| counts.tells_use(client.parse().expect("an address"), UnixMillis(at));
        assert!(tells("192.0.2.1", 0));
        assert!(!tells("192.0.2.1", 59_999));
        assert!(tells("192.0.2.1", 60_000));
        assert!(tells("192.0.2.2", 60_001), "another client");
        assert!(!tells("192.0.2.2", 60_002));
    }

    #[test]
    fn counts_outlive_an_edit_and_not_the_key() {
        let table = KeyTable::new([7; 32]);
        let (id, _) = written(1);
        let limits = |requests_per_minute, burst| KeyLimits { requests_per_minute, burst, ..KeyLimits::default() };
        let with =
            |limits| KeyRecord { view: KeyView::unused(id, "test", "abcd", limits, UnixMillis(0)), ..record(id) };
        table.load(vec![with(limits(60, 3))]);
        let before = table.entry(id).expect("entry");
        assert_eq!(before.rate, Rate { per_minute: 60, burst: 3 });
        table.load(vec![with(limits(30, 2))]);
        let after = table.entry(id).expect("entry");
        assert_eq!(after.rate, Rate { per_minute: 30, burst: 2 });
        assert!(Arc::ptr_eq(&before.counts, &after.counts));
        table.load(vec![record(written(2).0)]);
        assert!(table.entry(id).is_none());
    }

    #[test]
    fn rates_count_from_the_first_request() {
        let table = KeyTable::new([7; 32]);
        let first = crate::types::clock::Clock::stepped(UnixMillis(0)).monotonic();
        assert_eq!(table.origin(first), first);
        assert_eq!(table.origin(first + Duration::from_secs(1)), first);
    }

    #[test]
    fn a_flood_of_wrong_secrets_of_a_known_id_costs_no_right_key_another_hash() {
        let table = KeyTable::new([7; 32]);
        let (id, key) = written(1);
        table.put(record(id));
        // It is first used while the flood is on: what was there before a cache is full is not what is pushed out.
        for number in 0..40_000 {
            if number == 20_000 {
                table.settle(key.expose(), id, HashOutcome::Matches, UnixMillis(1));
            }
            table.settle(&format!("wrong {number}"), id, HashOutcome::Differs, UnixMillis(1));
        }
        assert!(matches!(table.check(key.expose(), UnixMillis(2)), KeyCheck::Known(_)));
    }

    #[test]
    fn revoking_ends_streams() {
        let table = KeyTable::new([7; 32]);
        let (id, _) = written(1);
        table.put(record(id));
        let counts = table.entry(id).expect("entry").counts.clone();
        let mut revoked = record(id);
        revoked.view.revoked = Some(UnixMillis(1));
        assert!(!counts.ended.is_cancelled());
        table.put(revoked);
        assert!(counts.ended.is_cancelled());
    }

    #[test]
    fn revoking_and_expiring_act_on_the_next_check_and_a_new_hash_forgets_the_old_check() {
        let table = KeyTable::new([7; 32]);
        let (id, key) = written(1);
        table.put(record(id));
        table.settle(key.expose(), id, HashOutcome::Matches, UnixMillis(1));
        let mut changed = record(id);
        changed.view.expires = Some(UnixMillis(100));
        table.put(changed.clone());
        assert!(matches!(table.check(key.expose(), UnixMillis(99)), KeyCheck::Known(_)));
        assert!(matches!(table.check(key.expose(), UnixMillis(100)), KeyCheck::Expired(_)));
        changed.view.revoked = Some(UnixMillis(50));
        table.put(changed.clone());
        assert!(matches!(table.check(key.expose(), UnixMillis(99)), KeyCheck::Revoked(_)));
        changed.view.revoked = None;
        changed.hash = "another".into();
        table.put(changed);
        assert!(matches!(table.check(key.expose(), UnixMillis(99)), KeyCheck::NeedsHash { .. }));
    }
}
