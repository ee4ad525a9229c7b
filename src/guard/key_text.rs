//! How an API key is written: `flm_` + 8 base62 id + `_` + 43 base62 secret + 6 base62 CRC-32 (SPEC §5.1).
//!
//! The checksum tells a typo or a made-up key from a real one without any cryptography, and lets secret
//! scanners find leaked keys.

use sha2::{Digest as _, Sha256};

use crate::types::ids::KeyId;
use crate::types::secret::Secret;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Every key starts with it.
pub const PREFIX: &str = "flm_";
const ID: usize = 8;
const SECRET: usize = 43;
const CHECKSUM: usize = 6;
/// Length of a written key in bytes.
pub const KEY_LENGTH: usize = PREFIX.len() + ID + 1 + SECRET + CHECKSUM;

/// A presented key whose form and checksum are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedKey<'a> {
    /// Its public id.
    pub id: KeyId,
    /// Its 43 secret characters.
    pub secret: &'a str,
}

/// What a presented text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyText<'a> {
    /// A well-formed key.
    Parsed(ParsedKey<'a>),
    /// It starts like a key of ours, but form or checksum are wrong.
    Damaged,
    /// Some other text, such as another vendor's key.
    Foreign,
}

/// Reads a presented key.
#[must_use]
pub fn parse(text: &str) -> KeyText<'_> {
    let Some(rest) = text.strip_prefix(PREFIX) else { return KeyText::Foreign };
    // Without a branch for each byte, so that they are looked at many at a time.
    let alphanumeric = |bytes: &[u8]| bytes.iter().fold(true, |all, byte| all & byte.is_ascii_alphanumeric());
    let well_formed = text.len() == KEY_LENGTH
        && rest.as_bytes()[ID] == b'_'
        && alphanumeric(&rest.as_bytes()[..ID])
        && alphanumeric(&rest.as_bytes()[ID + 1..]);
    if !well_formed {
        return KeyText::Damaged;
    }
    let (body, checksum) = text.split_at(KEY_LENGTH - CHECKSUM);
    if checksum.as_bytes() != written_checksum(body) {
        return KeyText::Damaged;
    }
    match KeyId::parse(&rest[..ID]) {
        Ok(id) => KeyText::Parsed(ParsedKey { id, secret: &body[PREFIX.len() + ID + 1..] }),
        Err(_) => KeyText::Damaged,
    }
}

/// Writes a new key from a source of random bytes. 43 characters of 62 hold 256.03 bits (SPEC §5.1).
#[must_use]
pub fn write(random: &mut dyn FnMut() -> u8) -> (KeyId, Secret) {
    let mut draw = || loop {
        // 248 = 4 × 62: bytes above it would make some characters likelier than others.
        let byte = random();
        if byte < 248 {
            return char::from(ALPHABET[usize::from(byte % 62)]);
        }
    };
    loop {
        let id: String = (0..ID).map(|_| draw()).collect();
        let secret: String = (0..SECRET).map(|_| draw()).collect();
        let body = format!("{PREFIX}{id}_{secret}");
        let checksum = written_checksum(&body);
        let key = body + std::str::from_utf8(&checksum).unwrap_or_default();
        // Always parses, since every character comes from the alphabet.
        if let Ok(id) = KeyId::parse(&id) {
            return (id, Secret::new(key));
        }
    }
}

/// Shortest text of another program that may go on as a key: guessing a shorter one would be worth somebody's while.
pub const FOREIGN_SHORTEST: usize = 24;
/// Longest one: what comes in a header is looked at no further.
const FOREIGN_LONGEST: usize = 256;
/// Different characters that one needs at least, so that a pattern is no key.
const FOREIGN_VARIETY: usize = 10;

/// The id of a key that another program made (SPEC §10, `flm migrate legacy`): told by the text alone, so that a
/// presented text leads to its hash without being kept. `None` for a text that is none or too easily guessed.
///
/// 48 bits of SHA-256 say nothing that helps to guess a text of this length. Whoever wants another text with the same
/// id must try 2^47, and gains one Argon2 run for it: less than with an id that can be read off a key.
#[must_use]
pub fn foreign_id(text: &str) -> Option<KeyId> {
    if !(FOREIGN_SHORTEST..=FOREIGN_LONGEST).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return None;
    }
    let mut seen = [false; 128];
    text.bytes().for_each(|byte| seen[usize::from(byte & 127)] = true);
    if seen.into_iter().filter(|seen| *seen).count() < FOREIGN_VARIETY {
        return None;
    }
    let digest = Sha256::new().chain_update(b"flm foreign key\0").chain_update(text.as_bytes()).finalize();
    let mut rest = digest.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let id: String = (0..ID)
        .map(|_| {
            let digit = ALPHABET[(rest % 62) as usize];
            rest /= 62;
            char::from(digit)
        })
        .collect();
    KeyId::parse(&id).ok().filter(|id| *id != KeyId::OWN)
}

/// The checksum of a body, for tests that forge keys.
#[cfg(test)]
pub(super) fn write_checksum_for_tests(body: &str) -> String {
    String::from_utf8_lossy(&written_checksum(body)).into_owned()
}

fn written_checksum(body: &str) -> [u8; CHECKSUM] {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    // 62^6 is more than 2^32, so six digits always hold it.
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> impl FnMut() -> u8 {
        let mut next = 7_u8;
        move || {
            next = next.wrapping_mul(5).wrapping_add(17);
            next
        }
    }

    #[test]
    fn a_written_key_reads_back() {
        let (id, key) = write(&mut counting());
        let KeyText::Parsed(parsed) = parse(key.expose()) else { panic!("a key: {}", key.expose()) };
        assert_eq!(parsed.id, id);
        assert_eq!(parsed.secret.len(), SECRET);
        assert_eq!(key.expose().len(), KEY_LENGTH);
    }

    #[test]
    fn any_changed_character_is_damaged() {
        let (_, key) = write(&mut counting());
        for at in PREFIX.len()..KEY_LENGTH {
            let mut bytes = key.expose().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(parse(std::str::from_utf8(&bytes).expect("ascii")), KeyText::Damaged, "at {at}");
        }
    }

    #[test]
    fn a_foreign_text_has_one_id_and_what_could_be_guessed_has_none() {
        let text = "sk-old-4f9a1c7be0d24a6690e1b2c3";
        // printf 'flm foreign key\0sk-old-4f9a1c7be0d24a6690e1b2c3' | sha256sum, its first 8 bytes in base 62.
        assert_eq!(foreign_id(text).expect("strong enough").as_str(), "EVWADstd");
        assert_ne!(foreign_id(text), foreign_id("sk-old-4f9a1c7be0d24a6690e1b2c4"));
        for weak in
            ["", "secret", "sk-4f9a1c7be0d24a6690e1", &"ab".repeat(20), "0123456789 abcdefghijklmnop", &"é".repeat(20)]
        {
            assert_eq!(foreign_id(weak), None, "{weak:?}");
        }
        assert!(foreign_id("0123456789abcdefghijklmn").is_some(), "the shortest");
        let longest = "0123456789abcdef".repeat(16);
        assert!(foreign_id(&longest).is_some() && foreign_id(&format!("{longest}x")).is_none());
    }

    #[test]
    fn other_texts_are_foreign_or_damaged_and_never_panic() {
        for text in ["", "sk-abc", "flm", "FLM_x"] {
            assert_eq!(parse(text), KeyText::Foreign, "{text:?}");
        }
        for text in ["flm_", "flm_ä", &format!("flm_{}", "é".repeat(29)), &"flm_".repeat(300_000)] {
            assert_eq!(parse(text), KeyText::Damaged);
        }
    }

    /// A checksum is no secret: whoever makes one for a text of another form gains nothing.
    #[test]
    fn a_right_checksum_does_not_make_a_key_of_another_form() {
        let secret = "s".repeat(SECRET);
        let parsed =
            |body: &str| matches!(parse(&format!("{body}{}", write_checksum_for_tests(body))), KeyText::Parsed(_));
        assert!(parsed(&format!("flm_Ab12Cd34_{secret}")));
        for body in [
            format!("flm_Ab12Cd34x{secret}"),
            format!("flm_Ab12-d34_{secret}"),
            format!("flm_Ab12Cd34_-{}", &secret[1..]),
            format!("flm_Ab12Cd34_{secret}s"),
            format!("flm_Ab12Cd34_{}", &secret[1..]),
        ] {
            assert!(!parsed(&body), "{body}");
        }
    }

    #[test]
    fn every_character_of_a_key_is_as_likely_as_every_other() {
        // Bytes that would favour some are drawn again.
        let mut bytes = [248, 255, 61, 62, 123, 0, 247].into_iter().chain(std::iter::repeat(10));
        let (id, key) = write(&mut || bytes.next().unwrap_or(0));
        assert_eq!(id.as_str(), "z0z0zAAA");
        assert!(key.expose().starts_with("flm_z0z0zAAA_AAAA"));
    }

    #[test]
    fn a_foreign_key_needs_ten_different_characters() {
        assert!(foreign_id(&"0123456789".repeat(3)).is_some());
        assert_eq!(foreign_id(&"012345678".repeat(3)), None);
    }
}
