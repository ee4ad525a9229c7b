//! Signs DNS messages with a shared key and checks the answers (TSIG, RFC 8945).
//!
//! Called by [`super::DnsClient::update`]. An answer that says that a change was made counts only with a right signature:
//! otherwise whoever is on the way could say so.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, Sha512};

use super::message::{Answer, HEAD, Malformed, Name, Reader};
use crate::types::clock::UnixMillis;
use crate::types::secret::Secret;

/// How far clocks may differ, seconds (RFC 8945 §10: 300 is recommended).
const FUDGE: u16 = 300;
const TYPE_TSIG: u16 = 250;
const CLASS_ANY: u16 = 255;
/// Where the number of additional records stands in the head.
const ADDITIONAL: usize = 10;

/// How messages are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA256, which RFC 8945 §6 demands of everybody.
    HmacSha256,
    /// HMAC-SHA512.
    HmacSha512,
}

impl Algorithm {
    /// As key files and tools write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

/// A key that this side shares with a name server.
#[derive(Clone)]
pub struct Key {
    name: Name,
    algorithm: Algorithm,
    algorithm_name: Name,
    secret: zeroize::Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A key that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Its name is no domain name.
    #[error("the name of the TSIG key: {0}")]
    Name(#[from] super::message::NotAName),
    /// Its secret is no base64, or empty.
    #[error("the secret of the TSIG key is not in base64, as tsig-keygen writes it")]
    Secret,
}

/// Why an answer does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The server does not accept the signature.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer is not signed by the server, or wrongly so.
    #[error("the answer does not carry the server's signature")]
    Wrong,
    /// The answer is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What a server has against a signature (RFC 8945 §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// BADSIG.
    #[error("it says BADSIG: the secret of the TSIG key is another one there")]
    Signature,
    /// BADKEY.
    #[error("it says BADKEY: it knows no TSIG key of that name and algorithm")]
    Key,
    /// BADTIME.
    #[error("it says BADTIME: its clock and this machine's differ by more than 5 minutes")]
    Time,
    /// Another one.
    #[error("it refuses the signature with code {0}")]
    Other(u16),
}

/// A signed message, and what its answer's signature is checked with.
pub(super) struct Signed {
    pub(super) message: Vec<u8>,
    code: Vec<u8>,
}

impl Key {
    /// A key whose secret is given in base64.
    ///
    /// # Errors
    /// See [`InvalidKey`].
    pub fn new(name: &str, algorithm: Algorithm, secret: &Secret) -> Result<Self, InvalidKey> {
        use base64ct::Encoding as _;
        let secret: String = secret.expose().chars().filter(|c| !c.is_whitespace()).collect();
        let secret = zeroize::Zeroizing::new(secret);
        let decoded = base64ct::Base64::decode_vec(&secret).map_err(|_| InvalidKey::Secret)?;
        if decoded.is_empty() {
            return Err(InvalidKey::Secret);
        }
        Ok(Self {
            name: Name::parse(name)?,
            algorithm,
            algorithm_name: Name::parse(algorithm.name())?,
            secret: zeroize::Zeroizing::new(decoded),
        })
    }

    fn code(&self, parts: &[&[u8]]) -> Vec<u8> {
        /// One arm for each hash: their types differ.
        macro_rules! mac {
            ($hash:ty) => {{
                // HMAC takes a key of any length.
                let Ok(mut mac) = Hmac::<$hash>::new_from_slice(&self.secret) else { return Vec::new() };
                for part in parts {
                    mac.update(part);
                }
                mac.finalize().into_bytes().to_vec()
            }};
        }
        match self.algorithm {
            Algorithm::HmacSha256 => mac!(Sha256),
            Algorithm::HmacSha512 => mac!(Sha512),
        }
    }

    /// What is signed besides the message (RFC 8945 §4.3.3).
    fn variables(&self, time: &[u8], error: u16, other: &[u8]) -> Vec<u8> {
        let mut variables = self.name.wire().to_vec();
        variables.extend(CLASS_ANY.to_be_bytes());
        variables.extend([0; 4]);
        variables.extend(self.algorithm_name.wire());
        variables.extend(time);
        variables.extend(error.to_be_bytes());
        variables.extend(u16::try_from(other.len()).unwrap_or(u16::MAX).to_be_bytes());
        variables.extend(other);
        variables
    }

    /// Signs a message that has no additional record.
    pub(super) fn sign(&self, mut message: Vec<u8>, now: UnixMillis) -> Signed {
        let seconds = u64::try_from(now.0.div_euclid(1000)).unwrap_or(0);
        // 48 bits of seconds, then how far clocks may differ.
        let mut time = seconds.to_be_bytes()[2..].to_vec();
        time.extend(FUDGE.to_be_bytes());
        let code = self.code(&[&message, &self.variables(&time, 0, &[])]);
        let mut data = self.algorithm_name.wire().to_vec();
        data.extend(&time);
        data.extend(u16::try_from(code.len()).unwrap_or(u16::MAX).to_be_bytes());
        data.extend(&code);
        data.extend(message[..2].to_vec());
        // No error, nothing else.
        data.extend([0; 4]);
        message.extend(self.name.wire());
        message.extend(TYPE_TSIG.to_be_bytes());
        message.extend(CLASS_ANY.to_be_bytes());
        message.extend([0; 4]);
        message.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        message.extend(data);
        message[ADDITIONAL..HEAD].copy_from_slice(&1_u16.to_be_bytes());
        Signed { message, code }
    }

    /// Checks that the server signed the answer to a signed message (RFC 8945 §5.3).
    pub(super) fn check(&self, answer: &Answer, bytes: &[u8], asked: &Signed) -> Result<(), NotSigned> {
        let begin = answer.signature.ok_or(NotSigned::Wrong)?;
        let mut reader = Reader { bytes, at: begin };
        let owner = reader.name()?;
        reader.skip(2 + 2 + 4 + 2)?;
        let algorithm = reader.name()?;
        let time = reader.take(8)?;
        let length = usize::from(reader.short()?);
        let code = reader.take(length)?;
        let original = reader.take(2)?;
        let error = reader.short()?;
        let length = usize::from(reader.short()?);
        let other = reader.take(length)?;
        match error {
            0 => {}
            16 => return Err(NotSigned::Refused(Refusal::Signature)),
            17 => return Err(NotSigned::Refused(Refusal::Key)),
            18 => return Err(NotSigned::Refused(Refusal::Time)),
            other => return Err(NotSigned::Refused(Refusal::Other(other))),
        }
        if owner != self.name || algorithm != self.algorithm_name {
            return Err(NotSigned::Wrong);
        }
        let mut unsigned = bytes[..begin].to_vec();
        unsigned[..2].copy_from_slice(original);
        let additional = u16::from_be_bytes([unsigned[ADDITIONAL], unsigned[ADDITIONAL + 1]]);
        unsigned[ADDITIONAL..HEAD].copy_from_slice(&additional.saturating_sub(1).to_be_bytes());
        let asked_length = u16::try_from(asked.code.len()).unwrap_or(u16::MAX).to_be_bytes();
        let wanted = self.code(&[&asked_length, &asked.code, &unsigned, &self.variables(time, error, other)]);
        if bool::from(subtle::ConstantTimeEq::ct_eq(wanted.as_slice(), code)) { Ok(()) } else { Err(NotSigned::Wrong) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::dns::message::{Change, parse, update};

    pub(in crate::net::dns) fn key(secret: &str) -> Key {
        Key::new("flm-key.", Algorithm::HmacSha256, &Secret::new(secret.into())).expect("a key")
    }

    fn change() -> Vec<u8> {
        let zone = Name::parse("example.org").expect("a name");
        let name = Name::parse("_acme-challenge.example.org").expect("a name");
        update(7, &zone, &name, "value", Change::Add { ttl: 60 })
    }

    /// Answers a signed message as a server with that key does.
    pub(in crate::net::dns) fn answered(key: &Key, asked: &Signed, now: UnixMillis) -> Vec<u8> {
        let mut answer = vec![asked.message[0], asked.message[1], 0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut time = u64::try_from(now.0 / 1000).expect("after 1970").to_be_bytes()[2..].to_vec();
        time.extend(FUDGE.to_be_bytes());
        let length = u16::try_from(asked.code.len()).expect("short").to_be_bytes();
        let code = key.code(&[&length, &asked.code, &answer, &key.variables(&time, 0, &[])]);
        let mut record = key.name.wire().to_vec();
        record.extend(b"\0\xfa\0\xff\0\0\0\0");
        let mut data = key.algorithm_name.wire().to_vec();
        data.extend(&time);
        data.extend(u16::try_from(code.len()).expect("short").to_be_bytes());
        data.extend(&code);
        data.extend([asked.message[0], asked.message[1], 0, 0, 0, 0]);
        record.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        record.extend(data);
        answer[11] = 1;
        answer.extend(record);
        answer
    }

    #[test]
    fn an_answer_counts_only_with_the_signature_of_the_same_key() {
        let now = UnixMillis(1_790_000_000_000);
        let (ours, theirs) = (key("c2VjcmV0"), key("b3RoZXI="));
        let signed = ours.sign(change(), now);
        let good = answered(&ours, &signed, now);
        let check = |bytes: &[u8]| ours.check(&parse(bytes, 7).expect("parses"), bytes, &signed);
        assert_eq!(check(&good), Ok(()));
        let forged = answered(&theirs, &signed, now);
        assert_eq!(check(&forged), Err(NotSigned::Wrong));
        let mut changed = good.clone();
        changed[3] |= 5;
        assert_eq!(check(&changed), Err(NotSigned::Wrong), "another answer under the signature");
        assert_eq!(
            check(
                &good[..HEAD].iter().copied().enumerate().map(|(i, b)| if i == 11 { 0 } else { b }).collect::<Vec<_>>()
            ),
            Err(NotSigned::Wrong)
        );
    }

    #[test]
    fn secrets_are_base64_and_never_shown() {
        let shown = format!("{:?}", key("c2VjcmV0"));
        assert!(shown.contains("flm-key") && !shown.contains("115") && !shown.contains("c2Vj"), "{shown}");
        for bad in ["", "not base64!", "===="] {
            let made = Key::new("k", Algorithm::HmacSha512, &Secret::new(bad.into()));
            assert_eq!(made.expect_err("refused"), InvalidKey::Secret, "{bad:?}");
        }
    }
}
