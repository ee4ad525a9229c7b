//! The key of `security.db`: 32 random bytes, written as 64 hexadecimal digits into a file of mode 0600 (SPEC §5.12).
//!
//! Used by `SecurityStore::open`. Must never log a key, put it into an error, or replace one that exists.

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::StorageError;
use crate::config::files::{self, Audience, FileError};

/// Longest key file that makes sense, bytes: 64 digits, white space, and room to recognise something else.
const LONGEST: u64 = 1024;

/// A raw SQLCipher key.
#[derive(Clone)]
pub(super) struct DatabaseKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for DatabaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseKey(redacted)")
    }
}

impl DatabaseKey {
    /// Reads the key of a database, or makes one when neither it nor the database exists; answers what it repaired.
    pub(super) fn load_or_make(key_file: &Path, database: &Path) -> Result<(Self, Option<String>), StorageError> {
        if files::exists(key_file)? {
            let read = files::read_private(key_file, LONGEST)?;
            let key = Self::parse(&read.content)
                .map_err(|reason| StorageError::KeyInvalid { key_file: key_file.to_owned(), reason })?;
            return Ok((key, read.repaired));
        }
        // An empty file is a database that was never written: a start that was cut off between the two.
        if files::exists(database)? && files::size(database)? > 0 {
            return Err(StorageError::KeyMissing { database: database.to_owned(), key_file: key_file.to_owned() });
        }
        let key = Self::random().map_err(|e| FileError::new("draw a random key for", key_file, e))?;
        if let Some(folder) = key_file.parent() {
            files::make_dir(folder)?;
        }
        let mut text = key.hexadecimal();
        text.push('\n');
        files::replace(key_file, text.as_bytes(), Audience::Owner)?;
        Ok((key, None))
    }

    fn random() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self(bytes))
    }

    fn parse(content: &[u8]) -> Result<Self, &'static str> {
        let digits = content.trim_ascii();
        if digits.is_empty() {
            return Err("it is empty");
        }
        if digits.len() != 64 {
            return Err("it does not have 64 hexadecimal digits");
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err("it holds something else than hexadecimal digits");
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }

    fn hexadecimal(&self) -> Zeroizing<String> {
        // Reserved at once, so that no reallocation leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(65));
        for byte in self.0.iter() {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{byte:02x}");
        }
        text
    }

    /// The statement that unlocks a connection. Never log it.
    pub(super) fn pragma(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("PRAGMA key = \"x'{}'\"", self.hexadecimal().as_str()))
    }

    /// HMAC-SHA256(this key, purpose).
    pub(super) fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        // HMAC takes keys of any length; the error cannot happen.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_slice()) else { return Zeroizing::new([0; 32]) };
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::types::failure::{ErrorCode, Failure};

    #[test]
    fn a_key_is_made_once_private_and_read_back() {
        let folder = tempfile::tempdir().expect("folder");
        let (key_file, database) = (folder.path().join("keys/security.key"), folder.path().join("security.db"));
        let (made, _) = DatabaseKey::load_or_make(&key_file, &database).expect("makes");
        let (read, repaired) = DatabaseKey::load_or_make(&key_file, &database).expect("reads");
        assert_eq!(made.0, read.0);
        assert_ne!(*made.0, [0; 32]);
        assert_eq!(repaired, None);
        let mode = |path: &Path| std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&key_file), 0o600);
        assert_eq!(mode(key_file.parent().expect("folder")), 0o700);
    }

    #[test]
    fn a_missing_key_of_an_existing_database_is_never_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let (key_file, database) = (folder.path().join("security.key"), folder.path().join("security.db"));
        files::replace(&database, b"encrypted", Audience::Owner).expect("writes");
        let error = DatabaseKey::load_or_make(&key_file, &database).expect_err("the key is gone");
        assert!(matches!(error, StorageError::KeyMissing { .. }));
        assert!(!key_file.exists());
        let failure = Failure::from(error);
        assert_eq!(failure.code, ErrorCode::DbError);
        assert!(failure.hint.expect("hint").contains("FLM_DB_KEY_FILE"));
    }

    #[test]
    fn what_is_no_key_is_told_without_quoting_it() {
        let folder = tempfile::tempdir().expect("folder");
        let (key_file, database) = (folder.path().join("security.key"), folder.path().join("security.db"));
        for content in ["", "\n", "abc", &"g".repeat(64), &"ab".repeat(33)] {
            files::replace(&key_file, content.as_bytes(), Audience::Owner).expect("writes");
            let error = DatabaseKey::load_or_make(&key_file, &database).expect_err("no key");
            assert!(matches!(error, StorageError::KeyInvalid { .. }), "{content:?}");
            assert!(content.len() < 4 || !error.to_string().contains(content));
        }
        files::replace(&key_file, format!(" {}\r\n", "aB".repeat(32)).as_bytes(), Audience::Owner).expect("writes");
        let (key, _) = DatabaseKey::load_or_make(&key_file, &database).expect("white space is fine");
        assert_eq!(*key.0, [0xab; 32]);
        assert_eq!(format!("{key:?}"), "DatabaseKey(redacted)");
    }

    #[test]
    fn derived_keys_are_hmac_sha256_of_the_purpose() {
        // printf 'audit chain' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b…0b (32 bytes)
        let key = DatabaseKey(Zeroizing::new([0x0b; 32]));
        let hex = key.derive("audit chain").map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex, "7ee830780773c675c42f7b8193aed4ec827f0202d84d0c7b4fc386eb669d1e1d");
        assert_ne!(key.derive("audit chain"), key.derive("key table"));
    }
}
