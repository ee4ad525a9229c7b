//! The hash chain: each row carries HMAC-SHA256 over the last row's code and itself (SPEC §5.9).
//!
//! Used by the writer, and by `operations` to verify. Shows every change, gap and cut tail to whoever holds the
//! database key; it cannot protect against someone who holds that key.

use std::fmt::Display;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::storage::{ChainedRow, SecurityStore, StorageError};
use crate::types::audit::AuditRow;
use crate::types::calls::audit::AuditVerdict;

/// What the chain's key is derived for (`SecurityStore::derived_key`).
const PURPOSE: &str = "audit chain";

/// Names the form of what is hashed; a new form gets a new name.
const FORM: &[u8] = b"flm audit row 1";

/// The code before the first row.
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
pub(super) struct Chain {
    key: Zeroizing<[u8; 32]>,
}

impl Chain {
    pub(super) fn of(store: &SecurityStore) -> Self {
        Self { key: store.derived_key(PURPOSE) }
    }

    /// The code of `row` after a row with the code `previous`.
    pub(super) fn code(&self, previous: &[u8; 32], row: &AuditRow) -> [u8; 32] {
        // HMAC takes keys of any length; the error cannot happen.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.as_slice()) else { return GENESIS };
        mac.update(FORM);
        mac.update(previous);
        mac.update(&canonical(row));
        mac.finalize().into_bytes().into()
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

/// Recomputes the chain over every row and names the first that does not fit: changed, missing, unreadable.
///
/// `head` is the newest row that the writer knows of (`AuditLog::head`): a log that ends before it was cut. Rows that
/// are written meanwhile are verified too.
///
/// # Errors
/// When the database cannot be read at all; a single row that cannot be read is a verdict.
pub async fn verify(store: &SecurityStore, head: Option<Head>) -> Result<AuditVerdict, StorageError> {
    let chain = Chain::of(store);
    let mut last = Head::default();
    let broken = |rows, at, why: &str| Ok(AuditVerdict { rows, broken_at: Some((at, why.to_owned())) });
    loop {
        let page = match store.audit_after(last.sequence, PAGE).await {
            Ok(page) => page,
            Err(error) if error.may_pass() => match good_rows(store, last.sequence).await? {
                page if page.is_empty() => {
                    let why = format!("a row after number {} cannot be read: {error}", last.sequence);
                    return broken(last.sequence, last.sequence + 1, &why);
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
                return broken(last.sequence, expected, &why);
            }
            if !bool::from(chain.code(&last.code, row).ct_eq(code)) {
                return broken(last.sequence, expected, "the row, its code or the row before it was changed");
            }
            last = Head { sequence: row.sequence, code: *code };
        }
    }
    match head {
        Some(head) if head.sequence > last.sequence => {
            let why = format!("rows {} to {} are missing at the end", last.sequence + 1, head.sequence);
            broken(last.sequence, last.sequence + 1, &why)
        }
        Some(head) if head.sequence == last.sequence && head.code != last.code => {
            broken(last.sequence, last.sequence, "the newest row is not the one that was written")
        }
        _ => Ok(AuditVerdict { rows: last.sequence, broken_at: None }),
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
        let hex = code.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "5bde7ac83fd68866a1bdb5fbefed7a6f04c4836f657ec41ccdffa0ebee3b3f12");
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
