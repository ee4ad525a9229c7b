//! Watches an OpenAI stream on its way from an engine to a client: counts, reads usage, notices errors and the end,
//! and changes only the events that must change.
//!
//! Called by `engines` for every piece of every stream: this is the hot path (SPEC §4.3). A piece of ordinary events
//! is passed on without copying or parsing. Must never pass on an event it has not looked at, nor lose one.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::types::request::{TokenSource, TokenUsage};
use crate::wire::openai::{ErrorDocument, UsageChunk, may_hold_foreign_reasoning, usage_of_chunk, with_reasoning};
use crate::wire::sse::{self, Block, Framing, Splitter, TooLong};

/// Why a stream ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// The engine told an error in its stream.
    #[error("{}", .0.message)]
    Error(ErrorDocument),
    /// An event that is no chunk.
    #[error("it sent an event that is no chunk: {0}")]
    Garbage(String),
    /// An event longer than FLM waits for.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The body ended before the answer did.
    #[error("it closed the stream before the answer was complete")]
    Cut,
}

/// Whether the client asked for the usage chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageForClient {
    /// Pass the usage chunk on.
    Pass,
    /// Take it out: clients that did not ask index `choices[0]` of every chunk.
    Strip,
}

/// A stream being watched.
#[derive(Debug)]
pub struct Tap {
    splitter: Splitter,
    usage_for_client: UsageForClient,
    /// Choices that were asked for, each of which ends with a `finish_reason`.
    choices: u64,
    /// Prompts that they are answers to.
    prompts: u64,
    finished: u64,
    /// Chunks that carried content, reasoning or tool calls.
    deltas: u64,
    usage: Option<TokenUsage>,
    /// Usage of chunks that hold nothing else.
    alone: Sum,
    /// Usage beside the ends of choices.
    beside: Sum,
    done: bool,
}

/// What chunks with usage tell together.
#[derive(Debug, Default)]
struct Sum {
    usage: TokenUsage,
    chunks: u64,
}

impl Sum {
    /// llama.cpp ends each of several choices with a count of its own (seen with build 11434, `n` of 2 and two prompts); vLLM and
    /// OpenAI tell one for all of them. Answers to the same prompt each count it.
    fn add(&mut self, told: TokenUsage, prompts: u64) -> TokenUsage {
        self.chunks += 1;
        self.usage.prompt = self.usage.prompt.saturating_add(told.prompt);
        self.usage.cached = self.usage.cached.saturating_add(told.cached);
        self.usage.completion = self.usage.completion.saturating_add(told.completion);
        let of_prompts = |sum: u64| sum.saturating_mul(prompts.min(self.chunks)) / self.chunks;
        let (prompt, cached) = match self.chunks {
            1 => (told.prompt, told.cached),
            _ => (of_prompts(self.usage.prompt), of_prompts(self.usage.cached)),
        };
        TokenUsage { prompt, cached, completion: self.usage.completion, source: told.source }
    }
}

enum Verdict {
    Keep,
    Drop,
    Replace(Bytes),
    Done,
}

impl Tap {
    /// Watches a stream that was asked for `choices` answers to one prompt.
    #[must_use]
    pub fn new(usage_for_client: UsageForClient, choices: u64) -> Self {
        Self {
            splitter: Splitter::new(),
            usage_for_client,
            choices: choices.max(1),
            prompts: 1,
            finished: 0,
            deltas: 0,
            usage: None,
            alone: Sum::default(),
            beside: Sum::default(),
            done: false,
        }
    }

    /// The same for several prompts, each of which has as many answers.
    #[must_use]
    pub fn of_prompts(self, prompts: u64) -> Self {
        Self { choices: self.choices.saturating_mul(prompts.max(1)), prompts: prompts.max(1), ..self }
    }

    /// Chunks that carried content, reasoning or tool calls so far.
    #[must_use]
    pub fn deltas(&self) -> u64 {
        self.deltas
    }

    /// The newest usage that the engine told. Of several choices the ended ones alone may be told: what came of the others counts
    /// by its chunks.
    #[must_use]
    pub fn usage(&self) -> Option<TokenUsage> {
        let told = self.usage?;
        if self.choices > 1 && self.finished < self.choices && self.deltas > told.completion {
            return Some(TokenUsage { completion: self.deltas, source: TokenSource::Estimated, ..told });
        }
        Some(told)
    }

    /// Whether the answer is complete.
    #[must_use]
    pub fn done(&self) -> bool {
        self.done
    }

    /// Takes a piece and appends what the client gets. What came before a fault is appended too.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        if self.done {
            return Ok(());
        }
        let run = self.splitter.push(piece)?;
        self.pass(run, out)
    }

    /// The body has ended.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        if let Some(rest) = self.splitter.finish()
            && !self.done
        {
            self.last(&rest, out)?;
        }
        if self.done {
            return Ok(());
        }
        if self.finished < self.choices {
            return Err(StreamFault::Cut);
        }
        self.done = true;
        out.push(sse::DONE);
        Ok(())
    }

    /// The end of a body without a blank line: the last event, or an error document that is no stream at all.
    fn last(&mut self, rest: &[u8], out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        if let Some(error) = ErrorDocument::in_answer(rest) {
            return Err(StreamFault::Error(error));
        }
        // A chunk that was cut in the middle is a cut stream, not garbage.
        for block in sse::blocks(rest) {
            let data = block.data.as_deref().map(<[u8]>::trim_ascii);
            let is_whole = data.is_some_and(|data| data.starts_with(b"[DONE]") || data.ends_with(b"}"));
            if is_whole && let Some(data) = data {
                self.pass(sse::event(data), out)?;
            }
        }
        Ok(())
    }

    fn pass(&mut self, run: Bytes, out: &mut Vec<Bytes>) -> Result<(), StreamFault> {
        let mut kept_from = 0;
        let mut result = Ok(());
        let mut end = run.len();
        for block in sse::blocks(&run) {
            let (start, after) = (block.range.start, block.range.end);
            match self.judge(&block) {
                Ok(Verdict::Keep) => {}
                Ok(Verdict::Drop) => {
                    append(&run, kept_from, start, out);
                    kept_from = after;
                }
                Ok(Verdict::Replace(event)) => {
                    append(&run, kept_from, start, out);
                    out.push(event);
                    kept_from = after;
                }
                Ok(Verdict::Done) => {
                    self.done = true;
                    if block.framing == Framing::Plain {
                        end = after;
                    } else {
                        append(&run, kept_from, start, out);
                        out.push(sse::DONE);
                        (kept_from, end) = (after, after);
                    }
                    break;
                }
                Err(fault) => {
                    end = start;
                    result = Err(fault);
                    break;
                }
            }
        }
        if kept_from == 0 && end == run.len() && end > 0 {
            // As it is in the common case: a part of it would be a counted share, and this counts none.
            out.push(run);
        } else {
            append(&run, kept_from, end, out);
        }
        result
    }

    /// Reads usage that stands alone, or beside what `ends` so many choices.
    fn note_usage(&mut self, told: UsageChunk, ends: u64) {
        let several = self.choices > 1;
        match told {
            UsageChunk::Alone(usage) if several => self.usage = Some(self.alone.add(usage, self.prompts)),
            // What stands alone says all there is to say.
            UsageChunk::Beside(_) if self.alone.chunks > 0 => {}
            UsageChunk::Beside(usage) if several && ends > 0 => self.usage = Some(self.beside.add(usage, self.prompts)),
            UsageChunk::Alone(usage) | UsageChunk::Beside(usage) => self.usage = Some(usage),
            UsageChunk::None => {}
        }
    }

    fn judge(&mut self, block: &Block<'_>) -> Result<Verdict, StreamFault> {
        let plain = block.framing == Framing::Plain;
        let Some(data) = block.data.as_deref().map(<[u8]>::trim_ascii) else {
            return Ok(if plain { Verdict::Keep } else { Verdict::Drop });
        };
        if data.starts_with(b"[DONE]") {
            return Ok(Verdict::Done);
        }
        // LM Studio names its error events (ENGINES.md §5).
        if block.name == Some(b"error") {
            return Err(StreamFault::Error(ErrorDocument::read(data)));
        }
        // llama.cpp begins a stream of several completions with it (seen with build 11434): nothing is said.
        if data == b"null" {
            return Ok(Verdict::Drop);
        }
        if !(data.starts_with(b"{") && data.ends_with(b"}")) {
            let start = String::from_utf8_lossy(&data[..data.len().min(80)]).into_owned();
            return Err(StreamFault::Garbage(crate::types::text::escape(&start).into_owned()));
        }
        if NEEDLES.error.find(data).is_some()
            && let Some(error) = ErrorDocument::in_answer(data)
        {
            return Err(StreamFault::Error(error));
        }
        self.deltas += u64::from(carries_something(data));
        let ends = finish_reasons(data);
        self.finished += ends;
        if has_value(data, &NEEDLES.usage, |value| value.starts_with(b"{"))
            && let Some(told) = usage_of_chunk(data)
        {
            self.note_usage(told, ends);
            if matches!(told, UsageChunk::Alone(_)) && self.usage_for_client == UsageForClient::Strip {
                return Ok(Verdict::Drop);
            }
        }
        if may_hold_foreign_reasoning(data)
            && let Some(chunk) = with_reasoning(data, "delta")
        {
            return Ok(Verdict::Replace(sse::event(&chunk)));
        }
        Ok(if plain { Verdict::Keep } else { Verdict::Replace(sse::event(data)) })
    }
}

fn append(run: &Bytes, from: usize, to: usize, out: &mut Vec<Bytes>) {
    if from < to {
        out.push(run.slice(from..to));
    }
}

struct Needles {
    usage: Finder<'static>,
    error: Finder<'static>,
    finish_reason: Finder<'static>,
    content: Finder<'static>,
    others: [Finder<'static>; 8],
}

/// Keys with their quotes. Inside a JSON string a quote is escaped, so that content which talks of usage or errors
/// never matches.
static NEEDLES: LazyLock<Needles> = LazyLock::new(|| Needles {
    usage: Finder::new(b"\"usage\""),
    error: Finder::new(b"\"error\""),
    finish_reason: Finder::new(b"\"finish_reason\""),
    content: Finder::new(b"\"content\""),
    others: [
        Finder::new(b"\"text\""),
        Finder::new(b"\"reasoning_content\""),
        Finder::new(b"\"reasoning\""),
        Finder::new(b"\"thinking\""),
        Finder::new(b"\"tool_calls\""),
        Finder::new(b"\"function_call\""),
        Finder::new(b"\"refusal\""),
        Finder::new(b"\"audio\""),
    ],
});

/// Whether a chunk carries content, reasoning or tool calls.
fn carries_something(chunk: &[u8]) -> bool {
    let is_something = |value: &[u8]| match value {
        [b'"', next, ..] => *next != b'"',
        [b'[', rest @ ..] => !rest.trim_ascii_start().starts_with(b"]"),
        [b'{', rest @ ..] => !rest.trim_ascii_start().starts_with(b"}"),
        _ => false,
    };
    // `logprobs.content` is a list; only the text counts.
    has_value(chunk, &NEEDLES.content, |value| value.starts_with(b"\"") && is_something(value))
        || NEEDLES.others.iter().any(|key| has_value(chunk, key, is_something))
}

/// How many choices end in this chunk.
fn finish_reasons(chunk: &[u8]) -> u64 {
    let mut count = 0;
    for at in NEEDLES.finish_reason.find_iter(chunk) {
        let value = value_after(&chunk[at + NEEDLES.finish_reason.needle().len()..]);
        count += u64::from(value.is_some_and(|value| value.starts_with(b"\"")));
    }
    count
}

fn has_value(chunk: &[u8], key: &Finder<'_>, accept: impl Fn(&[u8]) -> bool) -> bool {
    key.find_iter(chunk).any(|at| value_after(&chunk[at + key.needle().len()..]).is_some_and(&accept))
}

/// What stands after a key; `None` when it is no key but a value.
fn value_after(rest: &[u8]) -> Option<&[u8]> {
    Some(rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = concat!(
        ": ping\n\n",
        "data: {\"choices\":[{\"finish_reason\":null,\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"say \\\"usage\\\" and \\\"error\\\" [DONE]\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0}]},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn run(pieces: &[&[u8]], usage: UsageForClient) -> (String, Result<(), StreamFault>, Tap) {
        let mut tap = Tap::new(usage, 1);
        let mut out = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            result = tap.push(Bytes::copy_from_slice(piece), &mut out);
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() {
            result = tap.finish(&mut out);
        }
        (String::from_utf8(out.concat()).expect("text"), result, tap)
    }

    #[test]
    fn a_wanted_usage_chunk_passes_and_the_stream_is_untouched() {
        let (out, result, tap) = run(&[STREAM.as_bytes()], UsageForClient::Pass);
        assert_eq!((out.as_str(), result), (STREAM, Ok(())));
        assert_eq!(tap.deltas(), 2);
        assert_eq!(tap.usage().map(|usage| (usage.prompt, usage.source)), Some((5, TokenSource::Engine)));
        assert!(tap.done());
    }

    #[test]
    fn an_unwanted_usage_chunk_is_taken_out_and_nothing_else() {
        let (out, result, tap) = run(&[STREAM.as_bytes()], UsageForClient::Strip);
        let expected =
            STREAM.replace("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n", "");
        assert_eq!((out, result), (expected, Ok(())));
        assert_eq!(tap.usage().map(|usage| usage.completion), Some(2));
    }

    #[test]
    fn an_ordinary_piece_is_passed_without_copying() {
        let mut tap = Tap::new(UsageForClient::Strip, 1);
        let piece = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n");
        let mut out = Vec::new();
        tap.push(piece.clone(), &mut out).expect("passes");
        assert_eq!(out[0].as_ptr(), piece.as_ptr());
        assert_eq!(out, [piece]);
    }

    #[test]
    fn done_is_added_when_the_engine_forgot_it_after_the_finish() {
        let cut = STREAM.strip_suffix("data: [DONE]\n\n").expect("ends so");
        let (out, result, _) = run(&[cut.as_bytes()], UsageForClient::Pass);
        assert_eq!((out.as_str(), result), (STREAM, Ok(())));
    }

    #[test]
    fn a_last_event_without_a_blank_line_counts() {
        let cut = STREAM.strip_suffix("\n\n").expect("ends so");
        let (out, result, _) = run(&[cut.as_bytes()], UsageForClient::Pass);
        assert_eq!((out.as_str(), result), (STREAM, Ok(())));
    }

    #[test]
    fn a_cut_stream_is_a_fault() {
        for end in [0, 10, 130, 200] {
            assert_eq!(run(&[&STREAM.as_bytes()[..end]], UsageForClient::Pass).1, Err(StreamFault::Cut), "{end}");
        }
    }

    #[test]
    fn two_choices_need_two_finishes() {
        let finish = b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\": \"stop\"}]}\n\n";
        let mut tap = Tap::new(UsageForClient::Pass, 2);
        let mut out = Vec::new();
        tap.push(Bytes::from_static(finish), &mut out).expect("passes");
        assert_eq!(tap.finish(&mut out), Err(StreamFault::Cut));
    }

    #[test]
    fn usage_chunks_of_several_choices_add_up() {
        let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n";
        let sum = |choices| {
            let mut tap = Tap::new(UsageForClient::Strip, choices);
            let mut out = Vec::new();
            for _ in 0..2 {
                tap.push(Bytes::from_static(usage), &mut out).expect("passes");
            }
            tap.usage().map(|usage| (usage.prompt, usage.completion))
        };
        assert_eq!((sum(2), sum(1)), (Some((5, 4)), Some((5, 2))));
    }

    #[test]
    fn usage_of_several_prompts_adds_up_however_it_is_told() {
        let chunk = |choices: &str, prompt: u64, completion: u64| {
            let text = format!(
                "data: {{\"choices\":[{choices}],\"usage\":{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion}}}}}\n\n"
            );
            Bytes::from(text)
        };
        let end = r#"{"text":"","finish_reason":"stop"}"#;
        let goes_on = r#"{"text":"a","finish_reason":null}"#;
        for (name, each, chunks, told) in [
            ("llama.cpp: beside each end", 1, vec![chunk(end, 18, 3), chunk(end, 5, 2)], (23, 5)),
            (
                "two answers to each of two",
                2,
                vec![chunk(end, 18, 1), chunk(end, 18, 1), chunk(end, 5, 1), chunk(end, 5, 1)],
                (46 / 2, 4),
            ),
            ("one count for all", 1, vec![chunk(end, 18, 3), chunk(end, 5, 2), chunk("", 23, 5)], (23, 5)),
            (
                "counts on the way",
                1,
                vec![chunk(goes_on, 18, 1), chunk(end, 18, 2), chunk(end, 5, 2), chunk("", 23, 4)],
                (23, 4),
            ),
        ] {
            let mut tap = Tap::new(UsageForClient::Pass, each).of_prompts(2);
            let mut out = Vec::new();
            for piece in chunks {
                tap.push(piece, &mut out).expect("passes");
            }
            assert_eq!(tap.usage().map(|usage| (usage.prompt, usage.completion)), Some(told), "{name}");
        }
        let mut tap = Tap::new(UsageForClient::Pass, 1).of_prompts(2);
        let mut out = Vec::new();
        let piece = Bytes::from_static(b"data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n");
        for _ in 0..5 {
            tap.push(piece.clone(), &mut out).expect("passes");
        }
        tap.push(chunk(end, 18, 3), &mut out).expect("passes");
        let so_far = tap.usage().expect("told");
        assert_eq!((so_far.completion, so_far.source), (5, TokenSource::Estimated), "two are of the other prompt");
        assert_eq!(tap.finish(&mut out), Err(StreamFault::Cut), "the other prompt has no answer yet");
    }

    #[test]
    fn an_error_event_is_a_fault_and_what_came_before_passes() {
        let error = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\ndata: [DONE]\n\n";
        let first = STREAM.split_inclusive("\n\n").take(3).collect::<String>();
        let (out, result, _) = run(&[format!("{first}{error}").as_bytes()], UsageForClient::Pass);
        assert_eq!(out, first);
        assert!(matches!(result, Err(StreamFault::Error(document)) if document.message == "out of memory"));
        let named = "event: error\ndata: {\"error\":{\"message\":\"crashed\"}}\n\n";
        assert!(matches!(run(&[named.as_bytes()], UsageForClient::Pass).1, Err(StreamFault::Error(_))));
    }

    #[test]
    fn an_error_document_instead_of_a_stream_is_a_fault() {
        let (out, result, _) = run(&[br#"{"error":"Unexpected endpoint or method."}"#], UsageForClient::Pass);
        assert!(out.is_empty());
        assert!(matches!(result, Err(StreamFault::Error(_))));
    }

    #[test]
    fn garbage_is_a_fault() {
        assert!(matches!(run(&[b"data: <html>\n\n"], UsageForClient::Pass).1, Err(StreamFault::Garbage(_))));
    }

    #[test]
    fn an_event_of_null_says_nothing() {
        let (out, result, tap) = run(&[b"data: null\n\n", STREAM.as_bytes()], UsageForClient::Pass);
        assert_eq!((out.as_str(), result), (STREAM, Ok(())));
        assert_eq!(tap.deltas(), 2);
    }

    #[test]
    fn ids_names_and_retries_are_taken_off() {
        let decorated = "id: 4\nevent: chunk\nretry: 5\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\nretry: 3\n\n";
        let (out, result, _) = run(&[decorated.as_bytes()], UsageForClient::Pass);
        assert_eq!(result, Ok(()));
        assert_eq!(
            out,
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
        );
    }

    #[test]
    fn reasoning_gets_its_common_name() {
        let chunk = b"data: {\"choices\":[{\"delta\":{\"reasoning\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n";
        let (out, _, tap) = run(&[chunk], UsageForClient::Pass);
        assert!(out.contains("\"reasoning\":\"x\",\"reasoning_content\":\"x\""), "{out}");
        assert_eq!(tap.deltas(), 1);
    }

    proptest! {
        #[test]
        fn borders_of_pieces_never_change_the_answer(
            cuts in proptest::collection::vec(0..STREAM.len(), 0..20), wanted in any::<bool>(),
        ) {
            let usage = if wanted { UsageForClient::Pass } else { UsageForClient::Strip };
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &STREAM.as_bytes()[w[0]..w[1]]).collect();
            let (whole, _, at_once) = run(&[STREAM.as_bytes()], usage);
            let (cut, result, tap) = run(&pieces, usage);
            prop_assert_eq!((cut, result, tap.deltas(), tap.usage()), (whole, Ok(()), at_once.deltas(), at_once.usage()));
        }

        #[test]
        fn no_input_makes_the_tap_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut tap = Tap::new(UsageForClient::Strip, 1);
            let mut out = Vec::new();
            for piece in pieces {
                if tap.push(Bytes::from(piece), &mut out).is_err() {
                    break;
                }
            }
            // Any result is fine here: random bytes hold no complete answer.
            let _any_result = tap.finish(&mut out);
        }
    }
}
