//! Readers of what engines answer on the routes of sounds and images: transcripts, and streams of named events.
//!
//! Called by `compatible`. Events are passed on as they came, names included: clients of these routes know them. Must never call a stream
//! complete that ended without its last event.

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::engines::adapter::{AdapterInfo, AnswerProgress, AnswerReader, EngineFault};
use crate::engines::fault;
use crate::engines::inference_route::Answers;
use crate::wire::openai::ErrorDocument;
use crate::wire::openai_tap::StreamFault;
use crate::wire::sse::{self, Splitter};
use crate::wire::usage_finder::UsageFinder;

/// Longest event, and longest document under a stream: images are whole in them, 16 of a few MiB at most.
const LIMIT: usize = 64 << 20;

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What a client wants a transcript in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A JSON document with `text`.
    Json,
    /// Text as it is: plain, SRT or `WebVTT`.
    Text,
}

impl Format {
    /// Of a `response_format`; JSON when there is none.
    pub(super) fn of(word: Option<&str>) -> Self {
        match word {
            Some("text" | "srt" | "vtt") => Self::Text,
            _ => Self::Json,
        }
    }
}

/// Reads one answer.
pub(super) struct MediaReader {
    info: &'static AdapterInfo,
    answers: Answers,
    format: Format,
    splitter: Splitter,
    counts: UsageFinder,
    /// Events that carried a piece of text.
    deltas: u64,
    done: bool,
    /// A document where a stream was asked for: some engines know no streams of the route and say nothing.
    document: Option<BytesMut>,
    begun: bool,
}

impl MediaReader {
    pub(super) fn new(info: &'static AdapterInfo, answers: Answers, format: Format) -> Self {
        Self {
            info,
            answers,
            format,
            splitter: Splitter::with_limit(LIMIT),
            counts: UsageFinder::default(),
            deltas: 0,
            done: false,
            document: None,
            begun: false,
        }
    }

    fn stream_fault(&self, fault: &StreamFault) -> EngineFault {
        fault::from_stream(self.info, fault)
    }

    /// Looks at whole events and appends them.
    fn pass(&mut self, run: Bytes, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        for block in sse::blocks(&run) {
            let Some(data) = block.data.as_deref().map(<[u8]>::trim_ascii) else { continue };
            if data.starts_with(b"[DONE]") {
                self.done = true;
                continue;
            }
            let told = (memchr::memmem::find(data, b"\"error\"").is_some() || block.name == Some(b"error"))
                .then(|| ErrorDocument::in_answer(data))
                .flatten();
            if let Some(error) = told {
                if block.range.start > 0 {
                    out.push(run.slice(..block.range.start));
                }
                return Err(self.stream_fault(&StreamFault::Error(error)));
            }
            let kind = match block.name {
                Some(name) => String::from_utf8_lossy(name).into_owned(),
                None => kind(data).unwrap_or_default(),
            };
            // vLLM's chunks of a transcription have no type, and end with `[DONE]`.
            let last = kind.rsplit('.').next().unwrap_or_default();
            self.deltas += u64::from(last == "delta" || kind == "transcription.chunk");
            self.done |= matches!(last, "done" | "completed");
        }
        self.counts.push(&run);
        if !run.is_empty() {
            out.push(run);
        }
        Ok(())
    }

    /// What a stream would have told of a document.
    fn as_events(&mut self, document: &[u8], out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        if let Some(error) = ErrorDocument::in_answer(document) {
            return Err(self.stream_fault(&StreamFault::Error(error)));
        }
        let fields: Map<String, Value> = serde_json::from_slice(document).unwrap_or_default();
        let named = |kind: &str, mut event: Map<String, Value>, out: &mut Vec<Bytes>| {
            event.insert("type".to_owned(), kind.into());
            out.push(Bytes::from(format!("event: {kind}\ndata: {}\n\n", Value::from(event))));
        };
        match (self.answers, fields.get("text"), fields.get("data")) {
            (Answers::Transcript, Some(Value::String(text)), _) => {
                let (text, usage) = (text.clone(), fields.get("usage").cloned());
                let delta = json!({"type": "transcript.text.delta", "delta": text});
                let mut done = json!({"type": "transcript.text.done", "text": text});
                if let Some(usage) = usage {
                    done["usage"] = usage;
                }
                out.extend([delta, done].map(|event| sse::event(event.to_string().as_bytes())));
            }
            (Answers::Document(_), _, Some(Value::Array(images))) => {
                for (index, image) in images.iter().enumerate() {
                    let mut event = image.as_object().cloned().unwrap_or_default();
                    let shared = ["created", "size", "quality", "background", "output_format"];
                    let last = if index + 1 == images.len() { &["usage"][..] } else { &[] };
                    for name in shared.iter().chain(last) {
                        if let Some(value) = fields.get(*name) {
                            event.insert((*name).to_owned(), value.clone());
                        }
                    }
                    named("image_generation.completed", event, out);
                }
            }
            _ => return Err(fault::broken(self.info, "it answered a request for a stream with something else")),
        }
        self.counts.push(document);
        self.done = true;
        Ok(())
    }
}

/// The `type` of an event, or the `object` of vLLM's chunks.
fn kind(data: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Probe {
        #[serde(rename = "type")]
        kind: Option<String>,
        object: Option<String>,
    }
    let probe: Probe = serde_json::from_slice(data).ok()?;
    probe.kind.or(probe.object)
}

impl AnswerReader for MediaReader {
    fn whole(&mut self, body: Bytes) -> Result<Bytes, EngineFault> {
        if body.trim_ascii_start().starts_with(b"{")
            && let Some(error) = ErrorDocument::in_answer(&body)
        {
            return Err(self.stream_fault(&StreamFault::Error(error)));
        }
        match self.format {
            Format::Text if std::str::from_utf8(&body).is_err() => {
                return Err(fault::broken(self.info, "its transcript is not UTF-8"));
            }
            Format::Text => {}
            Format::Json => {
                let fields: Option<Map<String, Value>> = serde_json::from_slice(&body).ok();
                if !fields.is_some_and(|fields| fields.get("text").is_some_and(Value::is_string)) {
                    return Err(fault::broken(self.info, "its transcript has no text"));
                }
                self.counts.push(&body);
            }
        }
        self.done = true;
        Ok(body)
    }

    fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        if !self.begun && !piece.trim_ascii().is_empty() {
            self.begun = true;
            if piece.trim_ascii_start().starts_with(b"{") {
                self.document = Some(BytesMut::new());
            }
        }
        if let Some(document) = &mut self.document {
            if document.len() + piece.len() > LIMIT {
                return Err(fault::broken(self.info, "its answer is too large"));
            }
            document.extend_from_slice(&piece);
            return Ok(());
        }
        let run = self.splitter.push(piece).map_err(|too_long| self.stream_fault(&StreamFault::TooLong(too_long)))?;
        self.pass(run, out)
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), EngineFault> {
        if let Some(document) = self.document.take() {
            return self.as_events(&document, out);
        }
        if let Some(mut rest) = self.splitter.finish() {
            // A last event without its blank line; one that was cut in the middle ends in no brace.
            if rest.trim_ascii_end().ends_with(b"}") || rest.trim_ascii_end().ends_with(b"[DONE]") {
                let mut whole = BytesMut::from(&rest[..]);
                whole.extend_from_slice(b"\n\n");
                rest = whole.freeze();
                self.pass(rest, out)?;
            } else {
                return Err(self.stream_fault(&StreamFault::Cut));
            }
        }
        if self.done { Ok(()) } else { Err(self.stream_fault(&StreamFault::Cut)) }
    }

    fn progress(&self) -> AnswerProgress {
        AnswerProgress { usage: self.counts.told(), deltas: self.deltas, done: self.done }
    }

    fn media_type(&self) -> &'static str {
        match self.format {
            Format::Json => JSON,
            Format::Text => PLAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::registry::ADAPTERS;
    use crate::wire::openai::Document;

    fn reader(answers: Answers, format: Format) -> MediaReader {
        MediaReader::new(ADAPTERS[0].info(), answers, format)
    }

    fn streamed(answers: Answers, pieces: &[&str]) -> (String, Result<(), EngineFault>, AnswerProgress) {
        let mut reader = reader(answers, Format::Json);
        let mut out = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            result = reader.push(Bytes::copy_from_slice(piece.as_bytes()), &mut out);
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| reader.finish(&mut out));
        (String::from_utf8(out.concat()).expect("UTF-8"), result, reader.progress())
    }

    #[test]
    fn events_pass_as_they_came_whatever_the_pieces() {
        let stream = "event: transcript.text.delta\ndata: {\"type\":\"transcript.text.delta\",\"delta\":\"a\"}\n\n\
                      data: {\"type\":\"transcript.text.delta\",\"delta\":\"b\"}\n\n\
                      data: {\"type\":\"transcript.text.done\",\"text\":\"ab\",\"usage\":{\"input_tokens\":7,\"output_tokens\":2}}\n\n";
        for cut in [1, 20, 75, stream.len() - 1] {
            let (out, result, progress) = streamed(Answers::Transcript, &[&stream[..cut], &stream[cut..]]);
            assert_eq!((out.as_str(), result), (stream, Ok(())), "{cut}");
            let usage = progress.usage.expect("told");
            assert_eq!((usage.prompt, usage.completion, progress.deltas), (7, 2, 2));
        }
        let vllm = "data: {\"object\":\"transcription.chunk\",\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n";
        let (out, result, progress) = streamed(Answers::Transcript, &[vllm]);
        assert_eq!((out.as_str(), result, progress.deltas, progress.usage), (vllm, Ok(()), 1, None));
    }

    #[test]
    fn a_stream_that_is_cut_or_tells_an_error_is_a_fault() {
        let begun = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"a\"}\n\n";
        for rest in ["", "data: {\"type\":\"transcript.te"] {
            let (out, result, _) = streamed(Answers::Transcript, &[begun, rest]);
            assert_eq!((out.as_str(), result.expect_err("cut").status), (begun, 502), "{rest}");
        }
        let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"out of memory\"}}\n\n";
        let (out, result, _) = streamed(Answers::Document(Document::Images), &[&format!("{begun}{error}")]);
        let fault = result.expect_err("an error");
        assert_eq!((out.as_str(), fault.message.as_str()), (begun, "out of memory"));
    }

    #[test]
    fn a_document_becomes_the_events_that_were_asked_for() {
        let (out, result, progress) = streamed(
            Answers::Transcript,
            &["{\"text\":\"hi\",", "\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}"],
        );
        assert_eq!(result, Ok(()));
        assert!(out.starts_with("data: {\"type\":\"transcript.text.delta\",\"delta\":\"hi\"}\n\n"), "{out}");
        assert!(out.contains("transcript.text.done") && progress.usage.is_some_and(|usage| usage.prompt == 3), "{out}");
        let (out, result, _) =
            streamed(Answers::Document(Document::Images), &["{\"created\":1,\"data\":[{\"b64_json\":\"aGk=\"}]}"]);
        assert_eq!(result, Ok(()));
        assert_eq!(
            out,
            "event: image_generation.completed\ndata: {\"b64_json\":\"aGk=\",\"created\":1,\"type\":\"image_generation.completed\"}\n\n"
        );
        for wrong in ["{}", "{\"error\":{\"message\":\"no\"}}", "{\"text\":3}", "{\"text\":\"cut"] {
            assert!(streamed(Answers::Transcript, &[wrong]).1.is_err(), "{wrong}");
        }
    }

    #[test]
    fn whole_transcripts_are_checked_and_keep_their_bytes() {
        let mut json = reader(Answers::Transcript, Format::Json);
        let body = Bytes::from_static(b"{\"text\":\"hi\",\"segments\":[]}");
        assert_eq!(json.whole(body.clone()), Ok(body));
        assert_eq!((json.media_type(), json.progress().usage), (JSON, None), "what is not told is not guessed");
        let mut text = reader(Answers::Transcript, Format::Text);
        let body = Bytes::from_static(b"1\n00:00:00,000 --> 00:00:01,000\nhi\n");
        assert_eq!((text.whole(body.clone()), text.media_type()), (Ok(body), PLAIN));
        for (format, wrong) in [
            (Format::Json, &b"hi"[..]),
            (Format::Json, b"{}"),
            (Format::Json, b"{\"error\":\"x\"}"),
            (Format::Text, b"{\"error\":\"x\"}"),
            (Format::Text, b"\xff\xfe"),
        ] {
            assert!(reader(Answers::Transcript, format).whole(Bytes::from_static(wrong)).is_err(), "{wrong:?}");
        }
    }
}
