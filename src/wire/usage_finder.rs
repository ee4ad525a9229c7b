//! Finds the token counts in an answer of any engine's own API while it passes by.
//!
//! Called by `proxy` for pass-through and media, where no reader knows the answer's shape. Must never change a byte, and
//! keeps no more than `KEPT` bytes of an answer.

use memchr::memmem;

use crate::types::request::{TokenSource, TokenUsage};

/// Names of the prompt's tokens: OpenAI, Anthropic and Responses, Ollama, llama.cpp (ENGINES.md §4, Native chat).
const PROMPT: [&str; 4] = ["\"prompt_tokens\"", "\"input_tokens\"", "\"prompt_eval_count\"", "\"tokens_evaluated\""];
/// Names of the answer's tokens: the same, and LM Studio's.
const COMPLETION: [&str; 5] =
    ["\"completion_tokens\"", "\"output_tokens\"", "\"eval_count\"", "\"tokens_predicted\"", "\"total_output_tokens\""];

/// Bytes of a piece that are kept for the next one: the longest name, a colon, white space and a number.
const KEPT: usize = 64;

/// Reads counts piece by piece. Inside a JSON string the quotes of a name are escaped, so only true keys are found. The
/// largest count wins: engines that tell it in every chunk tell more each time.
#[derive(Debug, Default)]
pub struct UsageFinder {
    kept: Vec<u8>,
    prompt: Option<u64>,
    completion: Option<u64>,
    /// Lines that said something: chunks of a stream.
    lines: u64,
}

impl UsageFinder {
    /// Looks at the next piece of the answer.
    pub fn push(&mut self, piece: &[u8]) {
        let newlines = memchr::memchr_iter(b'\n', piece);
        // An empty line only ends an event.
        let said = newlines.filter(|at| *at > 0 && !matches!(piece[at - 1], b'\n' | b'\r')).count();
        self.lines += said as u64;
        // Every name has this in it; most pieces of a stream do not.
        self.kept.extend_from_slice(piece);
        for (names, count) in [(&PROMPT[..], &mut self.prompt), (&COMPLETION[..], &mut self.completion)] {
            for name in names {
                for at in memmem::find_iter(&self.kept, name.as_bytes()) {
                    if let Some(found) = number(&self.kept[at + name.len()..]) {
                        *count = Some(count.map_or(found, |known| known.max(found)));
                    }
                }
            }
        }
        let excess = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..excess);
    }

    /// The engine's own counts, if it told any.
    #[must_use]
    pub fn told(&self) -> Option<TokenUsage> {
        (self.prompt.is_some() || self.completion.is_some()).then(|| self.usage())
    }

    /// What was found: the engine's own counts, else the lines of a stream as an estimate.
    #[must_use]
    pub fn usage(&self) -> TokenUsage {
        match (self.prompt, self.completion) {
            (None, None) if self.lines == 0 => TokenUsage::default(),
            (None, None) => {
                TokenUsage { completion: self.lines, source: TokenSource::Estimated, ..TokenUsage::default() }
            }
            (prompt, completion) => TokenUsage {
                prompt: prompt.unwrap_or(0),
                completion: completion.unwrap_or(0),
                source: TokenSource::Engine,
                ..TokenUsage::default()
            },
        }
    }
}

/// The number after a key; `None` when another value follows, or the piece ends before the number does.
fn number(after: &[u8]) -> Option<u64> {
    let rest = after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == rest.len() {
        return None;
    }
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(answer: &str, piece: usize) -> (u64, u64, TokenSource) {
        let mut finder = UsageFinder::default();
        for piece in answer.as_bytes().chunks(piece) {
            finder.push(piece);
        }
        let usage = finder.usage();
        (usage.prompt, usage.completion, usage.source)
    }

    #[test]
    fn counts_of_every_engine_are_found_whatever_the_pieces() {
        for (answer, prompt, completion) in [
            (r#"{"usage":{"prompt_tokens": 12,"completion_tokens":34}}"#, 12, 34),
            (r#"{"prompt_eval_count":5,"eval_count":7,"done":true}"#, 5, 7),
            (r#"{"tokens_predicted":3,"tokens_evaluated":9,"content":"x"}"#, 9, 3),
            ("data: {\"usage\":{\"completion_tokens\":1}}\n\ndata: {\"usage\":{\"completion_tokens\":2}}\n\n", 0, 2),
            (r#"{"stats":{"input_tokens":4,"total_output_tokens":6}}"#, 4, 6),
        ] {
            for piece in [1, 3, 7, 4096] {
                assert_eq!(found(answer, piece), (prompt, completion, TokenSource::Engine), "{answer} by {piece}");
            }
        }
    }

    #[test]
    fn what_a_model_writes_is_no_count() {
        let written = serde_json::json!({"content": "\"completion_tokens\":1000000,"}).to_string();
        assert_eq!(found(&written, 4096).1, 0);
    }

    #[test]
    fn a_stream_without_counts_is_estimated_by_its_lines() {
        assert_eq!(found("data: {\"a\":1}\n\ndata: {\"a\":2}\n\n", 4096), (0, 2, TokenSource::Estimated));
        assert_eq!(found("", 1).1, 0);
    }
}
