//! The key of `security.db`: 32 bytes, random and written as 64 hexadecimal digits into a file of mode 0600, or made from
//! a passphrase by `operations` (SPEC §5.12).
//!
//! Must never log a key or put it into an error; only a change of the key replaces one that exists.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::StorageError;
use crate::config::files::{self, Audience, FileError};
use crate::types::text::{hex, push_hex};

/// Longest key file that makes sense, bytes: 64 digits, white space, and room to recognise something else.
const LONGEST: u64 = 1024;

/// Bytes of a key's fingerprint: enough to tell keys apart, too few to be of any other use.
const FINGERPRINT: usize = 8;

/// A raw SQLCipher key, and where it is from.
#[derive(Clone)]
pub struct DatabaseKey {
    bytes: Zeroizing<[u8; 32]>,
    /// The file that it was read from, or that says how it is made: for errors.
    origin: PathBuf,
}

impl fmt::Debug for DatabaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseKey(redacted)")
    }
}

impl DatabaseKey {
    /// A key from its bytes; `origin` is the file that says where they are from.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>, origin: &Path) -> Self {
        Self { bytes, origin: origin.to_owned() }
    }

    /// Draws a new key that is to be written to `key_file`.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn random(key_file: &Path) -> Result<Self, StorageError> {
        let bytes = random().map_err(|e| FileError::new("draw a random key for", key_file, e))?;
        Ok(Self::from_bytes(bytes, key_file))
    }

    /// Reads a key file; the second value tells what was repaired.
    ///
    /// # Errors
    /// `KeyInvalid`, or that the file cannot be read or trusted.
    pub fn read(key_file: &Path) -> Result<(Self, Option<String>), StorageError> {
        let read = files::read_private(key_file, LONGEST)?;
        let bytes = parse(&read.content)
            .map_err(|reason| StorageError::KeyInvalid { key_file: key_file.to_owned(), reason })?;
        Ok((Self::from_bytes(bytes, key_file), read.repaired))
    }

    /// Writes the key into a file of its own, mode 0600, in place of what is there.
    pub fn write(&self, key_file: &Path) -> Result<(), StorageError> {
        if let Some(folder) = key_file.parent() {
            files::make_dir(folder)?;
        }
        let mut text = self.hexadecimal();
        text.push('\n');
        Ok(files::replace(key_file, text.as_bytes(), Audience::Owner)?)
    }

    /// Reads the key of a database, or makes one when neither it nor the database exists; answers what it repaired.
    ///
    /// # Errors
    /// `KeyMissing`, and as [`DatabaseKey::read`] and [`DatabaseKey::write`].
    pub fn load_or_make(key_file: &Path, database: &Path) -> Result<(Self, Option<String>), StorageError> {
        if files::exists(key_file)? {
            return Self::read(key_file);
        }
        // An empty file is a database that was never written: a start that was cut off between the two.
        if files::exists(database)? && files::size(database)? > 0 {
            return Err(StorageError::KeyMissing { database: database.to_owned(), key_file: key_file.to_owned() });
        }
        let key = Self::random(key_file)?;
        key.write(key_file)?;
        Ok((key, None))
    }

    /// The bytes themselves: to seal them under a passphrase, and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Where it is from, for errors.
    #[must_use]
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Tells keys apart and nothing about them, hexadecimal.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&self.derive("fingerprint")[..FINGERPRINT])
    }

    fn hexadecimal(&self) -> Zeroizing<String> {
        // Reserved at once, so that no reallocation leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(65));
        push_hex(&mut text, &self.bytes[..]);
        text
    }

    /// The statement that unlocks a connection. Never log it.
    pub(super) fn pragma(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("PRAGMA key = \"x'{}'\"", self.hexadecimal().as_str()))
    }

    /// The key that the audit log's rows are chained with.
    #[must_use]
    pub fn chain_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive("audit chain")
    }

    /// A key for another purpose: HMAC-SHA256(this key, purpose).
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        // HMAC takes keys of any length; the error cannot happen.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.bytes.as_slice()) else { return Zeroizing::new([0; 32]) };
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

fn random() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}

fn parse(content: &[u8]) -> Result<Zeroizing<[u8; 32]>, &'static str> {
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
    Ok(bytes)
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
        assert_eq!(made.bytes, read.bytes);
        assert_ne!(*made.bytes, [0; 32]);
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
        assert_eq!(*key.bytes, [0xab; 32]);
        assert_eq!(format!("{key:?}"), "DatabaseKey(redacted)");
    }

    #[test]
    fn derived_keys_are_hmac_sha256_of_the_purpose() {
        // printf 'audit chain' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b…0b (32 bytes)
        let key = DatabaseKey::from_bytes(Zeroizing::new([0x0b; 32]), Path::new("key"));
        assert_eq!(
            hex(&key.derive("audit chain")[..]),
            "7ee830780773c675c42f7b8193aed4ec827f0202d84d0c7b4fc386eb669d1e1d"
        );
        assert_ne!(key.derive("audit chain"), key.derive("key table"));
    }
}
