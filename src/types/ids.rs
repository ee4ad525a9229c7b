//! Identifiers as newtypes, so that a key id can never be passed where an engine id is meant.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Says why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    /// What the text was meant to be, such as "engine id".
    pub what: &'static str,
    /// The text itself, cut to 80 characters.
    pub value: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

/// The operator's name for an engine: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit.
///
/// Unique within a home; part of the canonical model name `flm://ENGINE_ID/MODEL` (SPEC §3.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct EngineId(Arc<str>);

impl EngineId {
    /// Parses an engine id.
    ///
    /// # Errors
    /// When the text is empty, too long or holds other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest_well =
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        if starts_well && rest_well && text.len() <= 64 {
            return Ok(Self(text.into()));
        }
        Err(InvalidId {
            what: "engine id",
            value: text.chars().take(80).collect(),
            rule: "use 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
        })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for EngineId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<EngineId> for String {
    fn from(id: EngineId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public part of an API key: 8 base62 characters (SPEC §5.1). Not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// Under which everything that FLM sends to its own endpoint is counted, whatever key was minted for it. Never drawn
    /// for a key that is stored.
    pub const OWN: Self = Self(*b"flmitslf");

    /// Parses the 8 base62 characters.
    ///
    /// # Errors
    /// When the length or a character is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match <[u8; 8]>::try_from(text.as_bytes()) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_alphanumeric) => Ok(Self(bytes)),
            _ => Err(InvalidId {
                what: "key id",
                value: text.chars().take(80).collect(),
                rule: "it is the 8 letters and digits after 'flm_'; 'flm api-keys list' shows them",
            }),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII gets in through `parse`.
        std::str::from_utf8(&self.0).unwrap_or("????????")
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one request in headers, logs, the audit log and the console: `req_` + 20 base32 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId([u8; 24]);

impl RequestId {
    /// Crockford's base32, without letters that look like digits.
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// Spells 100 of the given random bits. The caller draws them; see `proxy`.
    #[must_use]
    pub fn from_random(mut bits: u128) -> Self {
        let mut bytes = *b"req_00000000000000000000";
        for slot in &mut bytes[4..] {
            *slot = Self::ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        Self(bytes)
    }

    /// The 100 bits that it spells.
    #[must_use]
    pub fn bits(&self) -> u128 {
        self.0[4..].iter().rev().fold(0, |bits, letter| bits << 5 | u128::from(Self::VALUES[usize::from(*letter)]))
    }

    /// What each letter stands for; 32 where none does.
    const VALUES: [u8; 256] = {
        let mut values = [32; 256];
        let mut value = 0;
        while value < 32 {
            values[Self::ALPHABET[value as usize] as usize] = value;
            value += 1;
        }
        values
    };

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("req_")
    }
}

impl TryFrom<String> for RequestId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        match <[u8; 24]>::try_from(text.as_bytes()) {
            Ok(bytes)
                if text.starts_with("req_")
                    && bytes[4..].iter().all(|letter| Self::VALUES[usize::from(*letter)] < 32) =>
            {
                Ok(Self(bytes))
            }
            _ => Err(InvalidId {
                what: "request id",
                value: text.chars().take(80).collect(),
                rule: "req_ and 20 characters of 0-9 and a-z without i, l, o and u",
            }),
        }
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A model on an engine, written `flm://ENGINE_ID/MODEL` (SPEC §3.5). The model part is the engine's own
/// name for it and may hold slashes and colons.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CanonicalModel {
    /// The engine that serves it.
    pub engine: EngineId,
    /// The engine's own name for it; outside text.
    pub model: Arc<str>,
}

impl CanonicalModel {
    /// What every canonical name begins with.
    pub const SCHEME: &str = "flm://";

    /// Parses `flm://ENGINE_ID/MODEL`; `None` when it has another form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (engine, model) = text.strip_prefix(Self::SCHEME)?.split_once('/')?;
        if model.is_empty() {
            return None;
        }
        Some(Self { engine: EngineId::parse(engine).ok()?, model: model.into() })
    }
}

impl fmt::Display for CanonicalModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}", Self::SCHEME, self.engine, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_ids_hold_only_what_a_canonical_name_can_carry() {
        assert!(EngineId::parse("llamacpp-8080").is_ok());
        for bad in ["", "-x", "A", "a/b", "ollama ", "é", &"a".repeat(65)] {
            assert!(EngineId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn canonical_names_keep_slashes_of_the_model() {
        let name = CanonicalModel::parse("flm://ollama/hf.co/user/repo:q4").expect("parses");
        assert_eq!(name.engine.as_str(), "ollama");
        assert_eq!(&*name.model, "hf.co/user/repo:q4");
        assert_eq!(name.to_string(), "flm://ollama/hf.co/user/repo:q4");
        assert!(CanonicalModel::parse("flm://ollama/").is_none());
        assert!(CanonicalModel::parse("ollama/x").is_none());
    }

    #[test]
    fn request_ids_tell_their_bits_and_refuse_other_letters() {
        for bits in [0, 1, 31, 32, (1 << 100) - 1, 0x1234_5678_9abc_def0_1234_5678] {
            assert_eq!(RequestId::from_random(bits).bits(), bits);
        }
        for bad in [
            "req_0000000000000000000i",
            "req_0000000000000000000A",
            "req_0000000000000000000",
            "xxx_00000000000000000000",
        ] {
            assert!(RequestId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn request_ids_survive_json() {
        let id = RequestId::from_random(0x1234_5678_9abc_def0_1234_5678_9abc);
        let json = serde_json::to_string(&id).expect("serialises");
        assert_eq!(serde_json::from_str::<RequestId>(&json).expect("parses"), id);
    }
}
