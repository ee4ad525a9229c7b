//! Captured exchanges: the bodies of a request and of its answer, kept for a while because the operator asked for those of
//! its key (SPEC §10, ADR 20). Everything in them is outside text.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;
use super::ids::{KeyId, RequestId};
use super::text::redact_keys;

/// Longest span over which the bodies of a key may be captured (SPEC §10).
pub const LONGEST_CAPTURE: Duration = Duration::from_hours(24);
/// How long a captured exchange is kept from the head of its request: all of a whole day's capture for a day more.
pub const CAPTURES_KEPT: Duration = Duration::from_hours(48);
/// Most bytes of all captured exchanges together (SPEC §10: 100 MB); the oldest go first.
pub const CAPTURES_BYTES: u64 = 100_000_000;
/// Most bytes kept of one body; what is longer is cut and says so.
pub const CAPTURED_BODY_BYTES: usize = 1 << 20;

/// How much of a body was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// All of it; only what looks like an API key was cut.
    Whole,
    /// Its beginning.
    Cut,
    /// Nothing: it is no text, such as a sound or a form with files.
    Binary,
}

/// A body without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CapturedSize {
    /// Bytes of the body as it passed.
    pub bytes: u64,
    /// How much of it was kept.
    pub kept: Kept,
}

/// A captured exchange without its bodies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CaptureEntry {
    /// The request's id, as in `x-request-id`.
    pub id: RequestId,
    /// When its head was read.
    pub at: UnixMillis,
    /// The key whose bodies are captured.
    pub key: KeyId,
    /// HTTP method; outside text.
    pub method: String,
    /// Path without query; outside text.
    pub path: String,
    /// Model as the client named it; outside text.
    pub model: Option<String>,
    /// HTTP status sent; 0 when none was.
    pub status: u16,
    /// What the client sent.
    pub request: CapturedSize,
    /// What the client got: of a stream that broke off, as far as it came.
    pub answer: CapturedSize,
}

/// A captured exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Capture {
    /// What it is.
    #[serde(flatten)]
    pub entry: CaptureEntry,
    /// Body of the request; outside text.
    pub request_text: String,
    /// Body of the answer, a stream as it was written; outside text.
    pub answer_text: String,
}

/// The text of a body whose first bytes these are, without the secret parts of API keys.
#[must_use]
pub fn captured_text(bytes: &[u8], whole: u64) -> (CapturedSize, String) {
    let is_cut = (bytes.len() as u64) < whole;
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        // The cut may go through a character.
        Err(error) if is_cut && error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).and_then(|bytes| std::str::from_utf8(bytes).ok())
        }
        Err(_) => None,
    };
    let kept = match text {
        None => Kept::Binary,
        Some(_) if is_cut => Kept::Cut,
        Some(_) => Kept::Whole,
    };
    let text = text.map(redact_keys).map(Cow::into_owned).unwrap_or_default();
    (CapturedSize { bytes: whole, kept }, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_as_text_without_keys_and_says_when_it_was_cut() {
        let key = format!("flm_Ab12Cd34_{}", "x".repeat(49));
        let said = format!("my key is {key}.");
        let (size, text) = captured_text(said.as_bytes(), said.len() as u64);
        assert_eq!((size.kept, text.as_str()), (Kept::Whole, "my key is flm_Ab12Cd34…."));
        let (size, text) = captured_text(&"日本".as_bytes()[..4], 600);
        assert_eq!((size, text.as_str()), (CapturedSize { bytes: 600, kept: Kept::Cut }, "日"));
        let (size, text) = captured_text(b"", 0);
        assert_eq!((size.kept, text.as_str()), (Kept::Whole, ""));
    }

    #[test]
    fn what_is_no_text_is_not_kept() {
        for (bytes, whole) in [(&b"ID3\x04\xff\xfb"[..], 6), (b"a\xffb", 900)] {
            let (size, text) = captured_text(bytes, whole);
            assert_eq!((size, text.as_str()), (CapturedSize { bytes: whole, kept: Kept::Binary }, ""));
        }
    }
}
