//! [`SignedHead`]: the newest row of the log, written where whoever cuts the log does not reach: the daemon's own log
//! and each backup (SPEC §5.9).

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

use super::chain::{Chain, Head};
use crate::storage::{DatabaseKey, SecurityStore};
use crate::types::clock::UnixMillis;
use crate::types::text::hex;

/// How the text of a head begins.
pub const HEAD_PREFIX: &str = "flm-head-1:";

/// A head with its signature under the chain's key. As text: prefix, number, time, code and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The newest row.
    pub head: Head,
    /// When it was noted.
    pub at: UnixMillis,
    pub(super) signature: [u8; 32],
}

/// A text that is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no head of an audit log")]
pub struct NoHead;

impl SignedHead {
    /// Signs a head with the key of the store.
    #[must_use]
    pub fn sign(store: &SecurityStore, head: Head, at: UnixMillis) -> Self {
        Self::sign_with(store.key(), head, at)
    }

    /// Signs a head with the key of a database that no store has open.
    #[must_use]
    pub fn sign_with(key: &DatabaseKey, head: Head, at: UnixMillis) -> Self {
        Self { head, at, signature: Chain::with(key).sign(head, at) }
    }

    /// Whether the log that this key is for noted it.
    #[must_use]
    pub fn is_of(&self, key: &DatabaseKey) -> bool {
        Chain::with(key).sign(self.head, self.at).ct_eq(&self.signature).into()
    }

    /// Every head in a text, such as a log file; whether they are genuine is for `verify` to say.
    #[must_use]
    pub fn all_in(text: &str) -> Vec<Self> {
        let words = text.match_indices(HEAD_PREFIX).map(|(at, _)| &text[at..]);
        let end = |word: &str| word.find(|c: char| !(c.is_ascii_alphanumeric() || c == ':' || c == '-'));
        words.filter_map(|word| word[..end(word).unwrap_or(word.len())].parse().ok()).collect()
    }
}

impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, signature) = (hex(&self.head.code), hex(&self.signature));
        write!(f, "{HEAD_PREFIX}{}:{}:{code}:{signature}", self.head.sequence, self.at.0)
    }
}

impl FromStr for SignedHead {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let mut parts = text.strip_prefix(HEAD_PREFIX).ok_or(NoHead)?.split(':');
        let mut next = || parts.next().ok_or(NoHead);
        let sequence = next()?.parse().map_err(|_| NoHead)?;
        let at = UnixMillis(next()?.parse().map_err(|_| NoHead)?);
        let (code, signature) = (bytes(next()?)?, bytes(next()?)?);
        match parts.next() {
            None => Ok(Self { head: Head { sequence, code }, at, signature }),
            Some(_) => Err(NoHead),
        }
    }
}

fn bytes(digits: &str) -> Result<[u8; 32], NoHead> {
    let mut out = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(NoHead);
    }
    for (byte, at) in out.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| NoHead)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_found_in_the_lines_of_a_log() {
        let signed = SignedHead { head: Head { sequence: 7, code: [1; 32] }, at: UnixMillis(-5), signature: [2; 32] };
        let text = format!("{{\"fields\":{{\"head\":\"{signed}\"}}}}\nnothing\nflm-head-1:7:x\n{signed} {signed}x");
        assert_eq!(SignedHead::all_in(&text), vec![signed; 2]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(flm-head-1:|[0-9a-fé:-]){0,40}") {
            let _ = SignedHead::all_in(&text).len();
        }
    }
}
