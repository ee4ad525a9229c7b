//! The hash chain: each row carries HMAC-SHA256 over the last row's code and itself (SPEC §5.9).
//!
//! Used by the writer, and by `operations` to verify. Shows every change, gap and cut tail to whoever holds the
//! database key; it cannot protect against someone who holds that key.

use std::fmt::Display;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::head::SignedHead;
use crate::storage::{AuditAnchor, ChainedRow, DatabaseKey, SecurityStore, StorageError};
use crate::types::audit::{AuditKind, AuditRow};
use crate::types::calls::audit::AuditVerdict;
use crate::types::clock::UnixMillis;

/// Names the form of what is hashed; a new form gets a new name.
const FORM: &[u8] = b"flm audit row 1";
/// The same of an anchor.
const ANCHOR_FORM: &[u8] = b"flm audit anchor 1";
/// The same of a head that is kept outside the database.
const HEAD_FORM: &[u8] = b"flm audit head 1";

/// The code before the first row, and the seal before the first anchor.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// Rows that verification reads at once.
const PAGE: u32 = 1_000;

/// The newest row's place: what the log must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the newest row; 0 when there is none.
    pub sequence: u64,
    /// Its code.
    pub code: [u8; 32],
}

impl Default for Head {
    fn default() -> Self {
        Self { sequence: 0, code: GENESIS }
    }
}

/// Computes codes.
#[derive(Clone)]
pub(super) struct Chain {
    key: Zeroizing<[u8; 32]>,
}

impl Chain {
    pub(super) fn of(store: &SecurityStore) -> Self {
        Self::with(store.key())
    }

    pub(super) fn with(key: &DatabaseKey) -> Self {
        Self { key: key.chain_key() }
    }

    fn hash(&self, form: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        // HMAC takes keys of any length; the error cannot happen.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) else { return GENESIS };
        mac.update(form);
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// The code of `row` after a row with the code `previous`.
    pub(super) fn code(&self, previous: &[u8; 32], row: &AuditRow) -> [u8; 32] {
        self.hash(FORM, &[previous, &canonical(row)])
    }

    /// The seal of an anchor after one with the seal `previous`.
    pub(super) fn seal(&self, previous: &[u8; 32], anchor: &AuditAnchor) -> [u8; 32] {
        self.hash(
            ANCHOR_FORM,
            &[
                previous,
                &anchor.first.to_be_bytes(),
                &anchor.through.to_be_bytes(),
                &anchor.oldest.0.to_be_bytes(),
                &anchor.newest.0.to_be_bytes(),
                &anchor.made.0.to_be_bytes(),
                &anchor.code,
            ],
        )
    }

    /// The signature of a head that is kept outside the database.
    pub(super) fn sign(&self, head: Head, at: UnixMillis) -> [u8; 32] {
        self.hash(HEAD_FORM, &[&head.sequence.to_be_bytes(), &at.0.to_be_bytes(), &head.code])
    }
}

/// The keys of a log whose database key was changed: which rows were chained with which.
struct Chains {
    /// Up to which row, and with what; ascending.
    older: Vec<(u64, Chain)>,
    now: Chain,
}

impl Chains {
    async fn of(store: &SecurityStore) -> Result<Self, StorageError> {
        let older = store.older_chain_keys().await?.into_iter().map(|(through, key)| (through, Chain { key }));
        Ok(Self { older: older.collect(), now: Chain::of(store) })
    }

    /// The chain that row `sequence` is in.
    fn at(&self, sequence: u64) -> &Chain {
        self.older.iter().find(|(through, _)| sequence <= *through).map_or(&self.now, |(_, chain)| chain)
    }

    /// Whether a key of this log made it.
    fn matches(&self, made: &[u8; 32], with: impl Fn(&Chain) -> [u8; 32]) -> bool {
        let chains = std::iter::once(&self.now).chain(self.older.iter().map(|(_, chain)| chain));
        chains.into_iter().any(|chain| bool::from(with(chain).ct_eq(made)))
    }
}

/// The row as bytes, in one way only: fields in a fixed order, each with its length, absent ones marked.
fn canonical(row: &AuditRow) -> Vec<u8> {
    fn field(out: &mut Vec<u8>, value: Option<&[u8]>) {
        match value {
            None => out.push(0),
            Some(bytes) => {
                out.push(1);
                out.extend((bytes.len() as u64).to_be_bytes());
                out.extend(bytes);
            }
        }
    }
    fn text(out: &mut Vec<u8>, value: Option<impl Display>) {
        field(out, value.map(|value| value.to_string()).as_deref().map(str::as_bytes));
    }
    // Kinds and severities by the names that are stored; variants always serialise to a name.
    let name = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let event = &row.event;
    let mut out = Vec::with_capacity(256);
    out.extend(row.sequence.to_be_bytes());
    out.extend(event.at.0.to_be_bytes());
    text(&mut out, Some(name(serde_json::to_value(event.kind))));
    text(&mut out, Some(name(serde_json::to_value(event.severity))));
    text(&mut out, event.request_id);
    text(&mut out, event.address);
    text(&mut out, event.key);
    text(&mut out, event.endpoint.as_deref());
    text(&mut out, event.engine.as_ref());
    text(&mut out, event.status);
    text(&mut out, event.latency_ms);
    text(&mut out, Some(&event.details));
    out
}

/// Recomputes the chain over anchors and rows and names the first that does not fit: changed, missing, unreadable.
///
/// `head` is the newest row that the writer knows of (`AuditLog::head`), `noted` are heads that were kept outside the
/// database: a log that ends before one of them was cut. Rows that are written meanwhile are verified too.
///
/// # Errors
/// When the database cannot be read at all; a single row that cannot be read is a verdict.
pub async fn verify(
    store: &SecurityStore,
    head: Option<Head>,
    noted: &[SignedHead],
) -> Result<AuditVerdict, StorageError> {
    let chains = Chains::of(store).await?;
    loop {
        let anchors = store.audit_anchors().await?;
        let verdict = verify_once(store, &chains, &anchors, head, noted).await?;
        // An archive that ran meanwhile took rows away that were about to be read.
        if verdict.broken_at.is_none() || store.audit_anchors().await? == anchors {
            return Ok(verdict);
        }
    }
}

async fn verify_once(
    store: &SecurityStore,
    chains: &Chains,
    anchors: &[AuditAnchor],
    head: Option<Head>,
    noted: &[SignedHead],
) -> Result<AuditVerdict, StorageError> {
    let mut verdict = AuditVerdict::default();
    let broken = |verdict: AuditVerdict, at: u64, why: &str| {
        Ok(AuditVerdict { broken_at: Some((at, why.to_owned())), ..verdict })
    };
    let mut last = Head::default();
    let mut seal = GENESIS;
    for anchor in anchors {
        if anchor.first != last.sequence + 1 || !chains.matches(&anchor.seal, |chain| chain.seal(&seal, anchor)) {
            return broken(
                verdict,
                anchor.first,
                "an anchor, which stands for archived rows, was changed or is missing",
            );
        }
        seal = anchor.seal;
        last = Head { sequence: anchor.through, code: anchor.code };
        verdict.archived = anchor.through;
    }
    let archived = last;
    let mut outside = Outside::of(chains, noted);
    if let Some(anchor) = anchors.last() {
        outside.forget_before(anchor);
    }
    if let Some(why) = outside.contradiction(&archived) {
        return broken(verdict, archived.sequence, &why);
    }
    loop {
        let page = match store.audit_after(last.sequence, PAGE).await {
            Ok(page) => page,
            Err(error) if error.may_pass() => match good_rows(store, last.sequence).await? {
                page if page.is_empty() => {
                    let why = format!("a row after number {} cannot be read: {error}", last.sequence);
                    return broken(verdict, last.sequence + 1, &why);
                }
                page => page,
            },
            Err(error) => return Err(error),
        };
        if page.is_empty() {
            break;
        }
        for ChainedRow { row, code } in &page {
            let expected = last.sequence + 1;
            if row.sequence != expected {
                let why = format!("rows {expected} to {} are missing", row.sequence - 1);
                return broken(verdict, expected, &why);
            }
            if !bool::from(chains.at(expected).code(&last.code, row).ct_eq(code)) {
                return broken(verdict, expected, "the row, its code or the row before it was changed");
            }
            last = Head { sequence: row.sequence, code: *code };
            verdict.rows += 1;
            outside.pass(row);
            if let Some(why) = outside.contradiction(&last) {
                return broken(verdict, last.sequence, &why);
            }
        }
    }
    let newest = outside.beyond(last.sequence).into_iter().chain(head).max_by_key(|head| head.sequence);
    (verdict.heads, verdict.foreign_heads) = (outside.compared, outside.foreign);
    match newest {
        Some(head) if head.sequence > last.sequence => {
            let why = format!("rows {} to {} are missing at the end", last.sequence + 1, head.sequence);
            broken(verdict, last.sequence + 1, &why)
        }
        Some(head) if head.sequence == last.sequence && head.code != last.code => {
            broken(verdict, last.sequence, "the newest row is not the one that was written")
        }
        _ => Ok(verdict),
    }
}

/// Heads that were kept outside the database, compared as the rows go by.
struct Outside {
    /// Genuine ones that were not met yet, by number.
    waiting: Vec<SignedHead>,
    compared: u64,
    foreign: u64,
}

impl Outside {
    fn of(chains: &Chains, noted: &[SignedHead]) -> Self {
        let genuine =
            |signed: &&SignedHead| chains.matches(&signed.signature, |chain| chain.sign(signed.head, signed.at));
        let mut waiting: Vec<_> = noted.iter().filter(genuine).cloned().collect();
        let foreign = (noted.len() - waiting.len()) as u64;
        // The next one last.
        waiting.sort_by_key(|signed| std::cmp::Reverse(signed.head.sequence));
        Self { waiting, compared: 0, foreign }
    }

    /// Forgets heads that are older than rows which come before theirs: they are of a log that a restored backup
    /// replaced, and the row that told of it is archived.
    fn forget_before(&mut self, anchor: &AuditAnchor) {
        self.waiting.retain(|signed| signed.head.sequence < anchor.through || signed.at > anchor.newest);
    }

    /// Heeds a row that tells that a backup was restored: what was noted before and lies after it is of the log that was
    /// replaced.
    fn pass(&mut self, row: &AuditRow) {
        if row.event.kind == AuditKind::Restored {
            let (number, at) = (row.sequence, row.event.at);
            self.waiting.retain(|signed| signed.head.sequence < number || signed.at > at);
        }
    }

    /// Takes the heads up to `reached`; answers why when one of them tells something else.
    fn contradiction(&mut self, reached: &Head) -> Option<String> {
        while let Some(signed) = self.waiting.pop_if(|signed| signed.head.sequence <= reached.sequence) {
            // What lies below is archived.
            if signed.head.sequence < reached.sequence {
                continue;
            }
            self.compared += 1;
            // A head of a replaced log is met before the row that tells of the replacement.
            if signed.head.code != reached.code {
                return Some("the row is another than the one that was noted outside the database".to_owned());
            }
        }
        None
    }

    /// The newest that the rows did not reach.
    fn beyond(&mut self, last: u64) -> Option<Head> {
        let newest = self.waiting.first().map(|signed| signed.head).filter(|head| head.sequence > last);
        self.compared += u64::from(newest.is_some());
        newest
    }
}

/// The readable rows after `after`, one at a time, up to the first that is not.
async fn good_rows(store: &SecurityStore, after: u64) -> Result<Vec<ChainedRow>, StorageError> {
    let mut rows: Vec<ChainedRow> = Vec::new();
    while rows.len() < PAGE as usize {
        let last = rows.last().map_or(after, |row| row.row.sequence);
        match store.audit_after(last, 1).await {
            Ok(one) if one.is_empty() => break,
            Ok(one) => rows.extend(one),
            Err(error) if error.may_pass() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::audit::{AuditEvent, AuditKind, Severity};
    use crate::types::clock::UnixMillis;
    use crate::types::text::hex;

    fn chain() -> Chain {
        Chain { key: Zeroizing::new([7; 32]) }
    }

    fn row(details: &str, endpoint: Option<&str>) -> AuditRow {
        let mut event = AuditEvent::new(UnixMillis(5), AuditKind::RuleHit, Severity::High, details);
        event.endpoint = endpoint.map(str::to_owned);
        AuditRow { sequence: 1, event }
    }

    #[test]
    fn the_form_is_the_one_that_stored_logs_have() {
        // Computed apart from this code, with Python's hmac. A change of this value breaks every log that exists:
        // give the form a new name and keep reading the old.
        let code = chain().code(&GENESIS, &row("details", Some("/v1/models")));
        assert_eq!(hex(&code), "5bde7ac83fd68866a1bdb5fbefed7a6f04c4836f657ec41ccdffa0ebee3b3f12");
    }

    proptest! {
        #[test]
        fn different_rows_have_different_bytes(
            left in (".{0,8}", proptest::option::of(".{0,8}")),
            right in (".{0,8}", proptest::option::of(".{0,8}")),
        ) {
            let bytes = |(details, endpoint): &(String, Option<String>)| canonical(&row(details, endpoint.as_deref()));
            prop_assert_eq!(left == right, bytes(&left) == bytes(&right));
        }

        #[test]
        fn a_code_depends_on_every_bit_of_the_one_before(bit in 0_usize..256) {
            let mut previous = GENESIS;
            previous[bit / 8] ^= 1 << (bit % 8);
            let row = row("details", None);
            prop_assert_ne!(chain().code(&GENESIS, &row), chain().code(&previous, &row));
        }
    }
}
