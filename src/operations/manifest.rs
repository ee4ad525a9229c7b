//! `manifest.json`: what a backup says of itself, sealed under the key of its `security.db`, so that a change shows.
//!
//! Used by `backup` and `restore`.

use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::unlock::shown;
use crate::config::files;
use crate::storage::DatabaseKey;
use crate::types::calls::backup::BackupManifest;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::hex;

/// Form of a backup that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// Its name in a backup.
pub(super) const MANIFEST: &str = "manifest.json";
/// Largest manifest that makes sense, bytes.
const LARGEST_MANIFEST: u64 = 64 << 10;

/// `manifest.json` as it is written.
#[derive(Serialize)]
struct Written<'a> {
    manifest: &'a RawValue,
    seal: String,
}

/// The same as it is read: the seal is over the bytes of `manifest` as they are.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(borrow)]
    manifest: &'a RawValue,
    seal: String,
}

/// A manifest whose seal was not looked at yet.
pub(super) struct SealedManifest {
    pub(super) manifest: BackupManifest,
    text: String,
    seal: String,
}

/// Writes what a backup says of itself, sealed under the key of its database.
///
/// # Errors
/// Of FLM itself.
pub(super) fn write(manifest: &BackupManifest, key: &DatabaseKey) -> Outcome<String> {
    let internal = |error: serde_json::Error| {
        Failure::new(ErrorCode::Internal, format!("the manifest of a backup cannot be written: {error}"))
    };
    let text = serde_json::to_string_pretty(manifest).map_err(internal)?;
    let seal = seal_of(&text, key);
    let raw: &RawValue = serde_json::from_str(&text).map_err(internal)?;
    Ok(serde_json::to_string_pretty(&Written { manifest: raw, seal }).map_err(internal)? + "\n")
}

fn seal_of(text: &str, key: &DatabaseKey) -> String {
    // HMAC takes keys of any length; the error cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.derive("backup manifest").as_slice()) else {
        return String::new();
    };
    mac.update(text.as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// Reads what a backup says of itself; `folder` may also be its manifest.
///
/// # Errors
/// `INVALID_ARGUMENT` when it is no backup, or one of a later version of FLM.
pub(super) fn read(folder: &Path) -> Outcome<SealedManifest> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let content = files::read_limited(&folder.join(MANIFEST), LARGEST_MANIFEST)?;
    let wrong = |why: String| {
        Failure::new(ErrorCode::InvalidArgument, format!("{} is no backup of FLM: {why}", shown(folder)))
            .hint("name the folder that flm security backup create made; it holds manifest.json")
    };
    let read: Read<'_> = serde_json::from_slice(&content).map_err(|error| wrong(error.to_string()))?;
    let text = read.manifest.get();
    let Form { format } = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if format > FORMAT {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} is a backup of form {format}, and this version of FLM knows up to {FORMAT}", shown(folder)),
        )
        .hint("restore it with the version of FLM that made it, or a later one"));
    }
    let manifest = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    Ok(SealedManifest { manifest, text: text.to_owned(), seal: read.seal.clone() })
}

impl SealedManifest {
    /// Whether this key sealed it as it is.
    pub(super) fn is_genuine(&self, key: &DatabaseKey) -> bool {
        seal_of(&self.text, key).as_bytes().ct_eq(self.seal.as_bytes()).into()
    }
}
