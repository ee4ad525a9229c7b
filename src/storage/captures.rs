//! Table `captures`: bodies of requests and answers that were asked for (SPEC §10), bounded in space and age.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use super::columns::{name, named, number, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::calls::captures::CapturePage;
use crate::types::capture::{CAPTURES_BYTES, Capture, CaptureEntry, CapturedSize};
use crate::types::clock::UnixMillis;
use crate::types::ids::{KeyId, RequestId};

/// What a row counts beside its bodies, bytes: many that are empty take space too.
const ROW_BYTES: u64 = 1024;

/// Columns of an entry, without the bodies.
const ENTRY: &str =
    "request_id, key, at, method, path, model, status, request_bytes, request_kept, answer_bytes, answer_kept";

impl SecurityStore {
    /// Stores captured exchanges and drops the oldest beyond the space for all of them.
    pub async fn append_captures(&self, captures: Vec<Capture>) -> Result<(), StorageError> {
        self.database
            .write("storing captures", move |transaction| {
                for capture in captures {
                    insert(transaction, &capture)?;
                }
                make_room(transaction, CAPTURES_BYTES)
            })
            .await
    }

    /// Those of a time and later, newest first, of one key or of all.
    pub async fn captures(
        &self,
        since: UnixMillis,
        key: Option<KeyId>,
        limit: u32,
    ) -> Result<CapturePage, StorageError> {
        let key = key.map(|key| key.as_str().to_owned());
        self.database
            .read_if_there("reading captures", move |connection| {
                let (total, bytes) = connection.query_row(
                    "SELECT count(*) AS total, coalesce(sum(size), 0) AS bytes FROM captures
                     WHERE at >= ?1 AND (?2 IS NULL OR key = ?2)",
                    params![since.0, key],
                    |row| Ok((unsigned(row, "total")?, unsigned(row, "bytes")?)),
                )?;
                let mut statement = connection.prepare_cached(&format!(
                    "SELECT {ENTRY} FROM captures WHERE at >= ?1 AND (?2 IS NULL OR key = ?2)
                     ORDER BY at DESC, number DESC LIMIT ?3"
                ))?;
                let captures = statement.query_map(params![since.0, key, limit], entry)?.collect::<Result<_, _>>()?;
                Ok(CapturePage { captures, total, bytes, lost: 0 })
            })
            .await
    }

    /// The exchange of a request, if it is of that time or later.
    pub async fn capture(&self, id: RequestId, since: UnixMillis) -> Result<Option<Capture>, StorageError> {
        self.database
            .read_if_there("reading a capture", move |connection| {
                connection
                    .query_row(
                        &format!("SELECT {ENTRY}, request, answer FROM captures WHERE request_id = ?1 AND at >= ?2"),
                        params![id.as_str(), since.0],
                        |row| {
                            Ok(Capture {
                                entry: entry(row)?,
                                request_text: row.get("request")?,
                                answer_text: row.get("answer")?,
                            })
                        },
                    )
                    .optional()
            })
            .await
    }

    /// Deletes those of one key or all; answers how many.
    pub async fn clear_captures(&self, key: Option<KeyId>) -> Result<u64, StorageError> {
        let key = key.map(|key| key.as_str().to_owned());
        self.database
            .write("deleting captures", move |transaction| {
                let rows = transaction.execute("DELETE FROM captures WHERE ?1 IS NULL OR key = ?1", [key])?;
                Ok(rows as u64)
            })
            .await
    }

    /// Forgets those before a time; answers how many.
    pub async fn trim_captures(&self, before: UnixMillis) -> Result<u64, StorageError> {
        self.database
            .write("forgetting captures", move |transaction| {
                let rows = transaction.execute("DELETE FROM captures WHERE at < ?1", [before.0])?;
                Ok(rows as u64)
            })
            .await
    }
}

fn insert(transaction: &Transaction<'_>, capture: &Capture) -> rusqlite::Result<()> {
    let Capture { entry, request_text, answer_text } = capture;
    let size = ROW_BYTES + (request_text.len() + answer_text.len()) as u64;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO captures (request_id, key, at, size, method, path, model, status, request_bytes,
                 request_kept, answer_bytes, answer_kept, request, answer)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        )?
        .execute(params![
            entry.id.as_str(),
            entry.key.as_str(),
            entry.at.0,
            number(size),
            entry.method,
            entry.path,
            entry.model,
            entry.status,
            number(entry.request.bytes),
            name(&entry.request.kept)?,
            number(entry.answer.bytes),
            name(&entry.answer.kept)?,
            request_text,
            answer_text,
        ])
        .map(|_one| ())
}

/// Drops the oldest until the rest fits into so many bytes.
fn make_room(transaction: &Transaction<'_>, most: u64) -> rusqlite::Result<()> {
    let mut surplus: i64 =
        transaction.query_row("SELECT coalesce(sum(size), 0) FROM captures", [], |row| row.get(0))?;
    surplus = surplus.saturating_sub(number(most));
    while surplus > 0 {
        let (oldest, size): (i64, i64) =
            transaction.query_row("SELECT number, size FROM captures ORDER BY number LIMIT 1", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        transaction.execute("DELETE FROM captures WHERE number = ?1", [oldest])?;
        surplus -= size;
    }
    Ok(())
}

fn entry(row: &Row<'_>) -> rusqlite::Result<CaptureEntry> {
    Ok(CaptureEntry {
        id: named(row, "request_id")?,
        at: UnixMillis(row.get("at")?),
        key: named(row, "key")?,
        method: row.get("method")?,
        path: row.get("path")?,
        model: row.get("model")?,
        status: row.get("status")?,
        request: CapturedSize { bytes: unsigned(row, "request_bytes")?, kept: named(row, "request_kept")? },
        answer: CapturedSize { bytes: unsigned(row, "answer_bytes")?, kept: named(row, "answer_kept")? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;
    use crate::types::capture::Kept;

    fn capture(number: u128, at: i64, key: &str, text: &str) -> Capture {
        let size = CapturedSize { bytes: text.len() as u64, kept: Kept::Whole };
        Capture {
            entry: CaptureEntry {
                id: RequestId::from_random(number),
                at: UnixMillis(at),
                key: KeyId::parse(key).expect("id"),
                method: "POST".into(),
                path: "/v1/chat/completions".into(),
                model: (number > 1).then(|| "m\x1b[31m".into()),
                status: 200,
                request: size,
                answer: CapturedSize { kept: Kept::Cut, bytes: 9_000_000 },
            },
            request_text: text.into(),
            answer_text: "data: [DONE]\n\n".into(),
        }
    }

    #[tokio::test]
    async fn exchanges_come_back_as_they_were_given_newest_first_and_by_key() {
        let (_folder, store) = store();
        let (first, second) = (capture(1, 5, "aaaaaaaa", "{}"), capture(2, 6, "bbbbbbbb", "日本\u{202e}"));
        store.append_captures(vec![first.clone(), second.clone()]).await.expect("stores");
        let page = store.captures(UnixMillis(0), None, 10).await.expect("reads");
        assert_eq!(page.captures, [second.entry.clone(), first.entry.clone()]);
        assert_eq!((page.total, page.bytes), (2, 2 * ROW_BYTES + 2 + 9 + 28));
        let page = store.captures(UnixMillis(0), Some(first.entry.key), 10).await.expect("reads");
        assert_eq!((page.captures.as_slice(), page.total), (std::slice::from_ref(&first.entry), 1));
        assert_eq!(store.capture(second.entry.id, UnixMillis(6)).await.expect("reads"), Some(second.clone()));
        assert_eq!(store.capture(second.entry.id, UnixMillis(7)).await.expect("reads"), None, "too old");
        assert_eq!(store.captures(UnixMillis(6), None, 10).await.expect("reads").total, 1);
        assert_eq!(store.captures(UnixMillis(0), None, 1).await.expect("reads").total, 2);
    }

    #[tokio::test]
    async fn the_oldest_go_when_all_together_are_too_many_bytes() {
        let (_folder, store) = store();
        let text = "x".repeat(4_000_000);
        for number in 0..30_u32 {
            let capture = capture(number.into(), i64::from(number), "aaaaaaaa", &text);
            store.append_captures(vec![capture]).await.expect("stores");
        }
        let page = store.captures(UnixMillis(0), None, 100).await.expect("reads");
        assert_eq!((page.total, page.captures.last().expect("some").at), (24, UnixMillis(6)));
        assert!(page.bytes <= CAPTURES_BYTES, "{}", page.bytes);
    }

    #[tokio::test]
    async fn exchanges_are_deleted_by_key_and_forgotten_by_age() {
        let (_folder, store) = store();
        let all = vec![capture(1, 5, "aaaaaaaa", ""), capture(2, 6, "bbbbbbbb", ""), capture(3, 7, "bbbbbbbb", "")];
        store.append_captures(all.clone()).await.expect("stores");
        assert_eq!(store.trim_captures(UnixMillis(6)).await.expect("forgets"), 1);
        store.append_captures(all[..1].to_vec()).await.expect("stores");
        assert_eq!(store.clear_captures(Some(all[1].entry.key)).await.expect("deletes"), 2);
        assert_eq!(store.captures(UnixMillis(0), None, 9).await.expect("reads").captures, [all[0].entry.clone()]);
        assert_eq!(store.clear_captures(None).await.expect("deletes"), 1);
    }

    #[tokio::test]
    async fn nothing_is_captured_in_a_home_of_an_earlier_version_that_could_not_be_migrated() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, key_file) = (folder.path().join("security.db"), folder.path().join("keys/security.key"));
        let earlier = SecurityStore::open_earlier(&path, &key_file, 7);
        earlier.tamper("CREATE TABLE captures (a)").await.expect("stands in the way");
        earlier.close().await.expect("closes");
        let store = SecurityStore::open(&path, &key_file).expect("opens for reading");
        assert!(store.read_only().is_some());
        assert_eq!(store.captures(UnixMillis(0), None, 9).await.expect("reads"), CapturePage::default());
        assert_eq!(store.keys().await.expect("keys are served"), []);
    }
}
