//! From a passphrase to a key, and a key sealed under a passphrase (SPEC §5.12, §10).
//!
//! Called by `operations` when `security.db` is unlocked, backed up with its key, or restored; never on a runtime: one
//! stretching takes some tenths of a second. Must never keep a passphrase.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::types::text::hex;

/// How the texts begin; a new form gets a new name.
const STRETCHING: &str = "flm-passphrase-1";
const SEALED: &str = "flm-sealed-key-1";

/// Second recommendation of RFC 9106 §4 for Argon2id, with one lane for its four: 64 MiB, three passes. The lanes would
/// run one after the other here.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// Bounds of what a text may ask for, so that a forged one cannot take all memory: 1 GiB and 64 passes.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 64;
const MOST_LANES: u32 = 16;

/// How a passphrase becomes a key: everything but the passphrase. Nothing of it is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretching {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: [u8; 16],
}

/// Why no key came of a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PassphraseFault {
    /// The text that says how is none.
    #[error("the text that says how the passphrase is used is damaged")]
    Damaged,
    /// Argon2id could not run.
    #[error("Argon2id failed: {0}")]
    Stretching(String),
    /// What was sealed does not open.
    #[error("it is another passphrase, or what is sealed was changed")]
    Wrong,
}

impl Stretching {
    /// A new one with this salt, as strong as this version makes it.
    #[must_use]
    pub fn new(salt: [u8; 16]) -> Self {
        Self { memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, salt }
    }

    /// The key: Argon2id of the passphrase.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn stretch(&self, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, PassphraseFault> {
        let failed = |error: argon2::Error| PassphraseFault::Stretching(error.to_string());
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &self.salt, key.as_mut_slice())
            .map_err(failed)?;
        Ok(key)
    }
}

impl fmt::Display for Stretching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_kib, passes, lanes, salt } = self;
        write!(f, "{STRETCHING}:{memory_kib}:{passes}:{lanes}:{}", hex(salt))
    }
}

impl FromStr for Stretching {
    type Err = PassphraseFault;

    fn from_str(text: &str) -> Result<Self, PassphraseFault> {
        let damaged = || PassphraseFault::Damaged;
        let parts: Vec<&str> = text.split(':').collect();
        let &[STRETCHING, memory, passes, lanes, salt] = parts.as_slice() else { return Err(damaged()) };
        let number = |text: &str, most: u32| text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(damaged);
        Ok(Self {
            memory_kib: number(memory, MOST_MEMORY_KIB)?,
            passes: number(passes, MOST_PASSES)?,
            lanes: number(lanes, MOST_LANES)?,
            salt: bytes(salt).ok_or_else(damaged)?,
        })
    }
}

/// Seals a key under a passphrase. The stretched passphrase makes a pad and a second key for a code over everything:
/// the salt is new for each sealing, so the pad is used once.
///
/// # Errors
/// Of stretching.
pub fn seal(key: &[u8; 32], passphrase: &str, salt: [u8; 16]) -> Result<String, PassphraseFault> {
    let stretching = Stretching::new(salt);
    let stretched = stretching.stretch(passphrase)?;
    let hidden = padded(key, &stretched);
    let head = format!("{SEALED}:{stretching}:{}", hex(hidden.as_slice()));
    let code = hash(&stretched, &["sealed key, code", &head]);
    Ok(format!("{head}:{}", hex(code.as_slice())))
}

/// Opens what [`seal`] made.
///
/// # Errors
/// `Wrong` for another passphrase or a changed text, `Damaged` for a text that is none.
pub fn unseal(sealed: &str, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, PassphraseFault> {
    let (head, code) = sealed.trim().rsplit_once(':').ok_or(PassphraseFault::Damaged)?;
    let (stretching, hidden) = head
        .strip_prefix(SEALED)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|rest| rest.rsplit_once(':'))
        .ok_or(PassphraseFault::Damaged)?;
    let code: [u8; 32] = bytes(code).ok_or(PassphraseFault::Damaged)?;
    let hidden: [u8; 32] = bytes(hidden).ok_or(PassphraseFault::Damaged)?;
    let stretched = stretching.parse::<Stretching>()?.stretch(passphrase)?;
    if !bool::from(hash(&stretched, &["sealed key, code", head]).ct_eq(&code)) {
        return Err(PassphraseFault::Wrong);
    }
    Ok(padded(&hidden, &stretched))
}

fn padded(key: &[u8; 32], stretched: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut out = hash(stretched, &["sealed key, pad"]);
    out.iter_mut().zip(key).for_each(|(byte, other)| *byte ^= other);
    out
}

fn hash(key: &[u8; 32], parts: &[&str]) -> Zeroizing<[u8; 32]> {
    // HMAC takes keys of any length; the error cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Zeroizing::new([0; 32]) };
    for part in parts {
        mac.update(part.as_bytes());
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (byte, at) in out.iter_mut().zip((0..2 * N).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quick(salt: u8) -> Stretching {
        Stretching { memory_kib: 8, passes: 1, lanes: 1, salt: [salt; 16] }
    }

    #[test]
    fn the_same_passphrase_and_salt_make_the_same_key_and_others_another() {
        let key = quick(1).stretch("correct horse").expect("stretches");
        assert_eq!(key, quick(1).stretch("correct horse").expect("stretches"));
        assert_ne!(key, quick(2).stretch("correct horse").expect("stretches"));
        assert_ne!(key, quick(1).stretch("correct horsf").expect("stretches"));
        let text = quick(1).to_string();
        assert_eq!(text, "flm-passphrase-1:8:1:1:01010101010101010101010101010101");
        assert_eq!(text.parse(), Ok(quick(1)));
    }

    #[test]
    fn a_text_that_asks_for_too_much_or_is_none_is_damaged() {
        let salt = "00".repeat(16);
        for text in [
            String::new(),
            "flm-passphrase-1".to_owned(),
            format!("flm-passphrase-2:8:1:1:{salt}"),
            format!("flm-passphrase-1:4294967295:1:1:{salt}"),
            format!("flm-passphrase-1:8:0:1:{salt}"),
            format!("flm-passphrase-1:8:1:1:{salt}00"),
            format!("flm-passphrase-1:8:1:1:é{}", "0".repeat(30)),
        ] {
            assert_eq!(text.parse::<Stretching>(), Err(PassphraseFault::Damaged), "{text}");
        }
    }

    #[test]
    fn a_sealed_key_opens_with_its_passphrase_and_shows_every_change() {
        let sealed = seal(&[7; 32], "correct horse", [3; 16]).expect("seals");
        assert!(!sealed.contains(&"07".repeat(32)));
        assert_eq!(*unseal(&sealed, "correct horse").expect("opens"), [7; 32]);
        assert_eq!(unseal(&sealed, "wrong"), Err(PassphraseFault::Wrong));
        let digit = sealed.len() - 70;
        let other = if &sealed[digit..=digit] == "0" { "1" } else { "0" };
        let changed = format!("{}{other}{}", &sealed[..digit], &sealed[digit + 1..]);
        assert_eq!(unseal(&changed, "correct horse"), Err(PassphraseFault::Wrong));
        assert_eq!(unseal("nothing", "x"), Err(PassphraseFault::Damaged));
    }

    /// RFC 9106 §4, second recommendation, and how much more than it a text may ask for.
    #[test]
    fn a_new_text_asks_for_what_the_rfc_recommends_and_bounds_hold_to_the_number() {
        let salt = "03".repeat(16);
        assert_eq!(Stretching::new([3; 16]).to_string(), format!("flm-passphrase-1:65536:3:1:{salt}"));
        for (numbers, fits) in [
            ("1048576:64:16", true),
            ("1048577:64:16", false),
            ("1048576:65:16", false),
            ("1048576:64:17", false),
            ("0:1:1", false),
            ("x:1:1", false),
        ] {
            assert_eq!(format!("flm-passphrase-1:{numbers}:{salt}").parse::<Stretching>().is_ok(), fits, "{numbers}");
        }
    }
}
