//! [`InferenceRoute`]: the routes that engines answer, with everything that tells them apart. Adding one is a variant, its facts here,
//! and a row in the table of paths (`proxy/route.rs`); the compiler names nothing else.
//!
//! Called by `proxy` (what a request must hold, what a model must be able to do) and by the adapters (path, answer).

use crate::types::engine::Capability;
use crate::wire::form::{FormSpec, IMAGE_EDIT, TRANSCRIPTION, TRANSLATION};
use crate::wire::openai::Document;

/// The inference routes an adapter may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InferenceRoute {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completions,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/rerank`.
    Rerank,
    /// `/v1/images/generations`.
    ImageGenerations,
    /// `/v1/images/edits`.
    ImageEdits,
    /// `/v1/audio/transcriptions`.
    Transcriptions,
    /// `/v1/audio/translations`.
    Translations,
    /// `/v1/audio/speech`.
    Speech,
}

/// What is true of one route whatever the engine.
#[derive(Debug)]
pub struct RouteFacts {
    /// Its path in OpenAI's API, which every compatible engine serves it under.
    pub path: &'static str,
    /// What a model must be able to do.
    pub needs: Capability,
    /// The same for people.
    pub needs_title: &'static str,
    /// What a request is.
    pub takes: Takes,
    /// How a client asks for a stream.
    pub streams: Streams,
    /// What an engine answers.
    pub answers: Answers,
}

/// What a request is.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// A JSON object with these fields: what every engine refuses otherwise, each in its own words, is told in one way.
    Json(&'static [JsonField]),
    /// A form with files.
    Form(&'static FormSpec),
}

/// A field of a JSON request that is checked before any engine is troubled.
#[derive(Debug)]
pub struct JsonField {
    /// Its name.
    pub name: &'static str,
    /// What completes "must be …".
    pub expected: &'static str,
    /// How its JSON may begin.
    pub begins: &'static [char],
    /// Whether it must be there.
    pub presence: Presence,
}

/// Whether a field must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It must.
    Required,
    /// It may be absent or null.
    Optional,
}

/// How a client asks for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Not at all.
    Never,
    /// By `stream`.
    ByFlag,
    /// By `stream_format` of `sse`; else the answer is bytes, which are passed on as they come.
    ByFormat,
}

/// What an engine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// A JSON document.
    Document(Document),
    /// A text, in JSON or as `response_format` says.
    Transcript,
    /// Sound.
    Audio,
}

const fn required(name: &'static str, expected: &'static str, begins: &'static [char]) -> JsonField {
    JsonField { name, expected, begins, presence: Presence::Required }
}

const fn optional(name: &'static str, expected: &'static str, begins: &'static [char]) -> JsonField {
    JsonField { name, expected, begins, presence: Presence::Optional }
}

/// How a JSON number begins.
const NUMBER: &[char] = &['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];

static CHAT: RouteFacts = RouteFacts {
    path: "/v1/chat/completions",
    needs: Capability::Chat,
    needs_title: "chat",
    takes: Takes::Json(&[required("messages", "an array of messages", &['['])]),
    streams: Streams::ByFlag,
    answers: Answers::Document(Document::Chat),
};

static COMPLETIONS: RouteFacts = RouteFacts {
    path: "/v1/completions",
    needs: Capability::Completions,
    needs_title: "completions",
    takes: Takes::Json(&[]),
    streams: Streams::ByFlag,
    answers: Answers::Document(Document::Completion),
};

static EMBEDDINGS: RouteFacts = RouteFacts {
    path: "/v1/embeddings",
    needs: Capability::Embeddings,
    needs_title: "embeddings",
    takes: Takes::Json(&[required("input", "a string or an array", &['"', '['])]),
    streams: Streams::Never,
    answers: Answers::Document(Document::Embeddings),
};

/// Jina's and Cohere's shape, which vLLM and llama.cpp share (captures of both).
static RERANK: RouteFacts = RouteFacts {
    path: "/v1/rerank",
    needs: Capability::Rerank,
    needs_title: "reranking",
    takes: Takes::Json(&[
        required("query", "a string", &['"', '{']),
        required("documents", "an array of strings", &['[', '{']),
        optional("top_n", "a whole number", NUMBER),
        optional("return_documents", "true or false", &['t', 'f']),
    ]),
    streams: Streams::Never,
    answers: Answers::Document(Document::Rerank),
};

static IMAGE_GENERATIONS: RouteFacts = RouteFacts {
    path: "/v1/images/generations",
    needs: Capability::Images,
    needs_title: "images",
    takes: Takes::Json(&[
        required("prompt", "a string", &['"']),
        optional("n", "a whole number", NUMBER),
        optional("size", "a string such as \"1024x1024\"", &['"']),
        optional("quality", "a string", &['"']),
        optional("response_format", "\"url\" or \"b64_json\"", &['"']),
        optional("partial_images", "a whole number", NUMBER),
    ]),
    streams: Streams::ByFlag,
    answers: Answers::Document(Document::Images),
};

static IMAGE_EDITS: RouteFacts = RouteFacts {
    path: "/v1/images/edits",
    needs: Capability::Images,
    needs_title: "images",
    takes: Takes::Form(&IMAGE_EDIT),
    streams: Streams::ByFlag,
    answers: Answers::Document(Document::Images),
};

static TRANSCRIPTIONS: RouteFacts = RouteFacts {
    path: "/v1/audio/transcriptions",
    needs: Capability::AudioIn,
    needs_title: "audio input",
    takes: Takes::Form(&TRANSCRIPTION),
    streams: Streams::ByFlag,
    answers: Answers::Transcript,
};

static TRANSLATIONS: RouteFacts = RouteFacts {
    path: "/v1/audio/translations",
    needs: Capability::AudioIn,
    needs_title: "audio input",
    takes: Takes::Form(&TRANSLATION),
    streams: Streams::ByFlag,
    answers: Answers::Transcript,
};

static SPEECH: RouteFacts = RouteFacts {
    path: "/v1/audio/speech",
    needs: Capability::AudioOut,
    needs_title: "audio output",
    takes: Takes::Json(&[
        required("input", "a string", &['"']),
        optional("voice", "a string, or an object with an id", &['"', '{']),
        optional("instructions", "a string", &['"']),
        optional("response_format", "a string such as \"mp3\"", &['"']),
        optional("stream_format", "\"audio\" or \"sse\"", &['"']),
        optional("speed", "a number", NUMBER),
    ]),
    streams: Streams::ByFormat,
    answers: Answers::Audio,
};

impl InferenceRoute {
    /// What is true of it.
    #[must_use]
    pub fn facts(self) -> &'static RouteFacts {
        match self {
            Self::Chat => &CHAT,
            Self::Completions => &COMPLETIONS,
            Self::Embeddings => &EMBEDDINGS,
            Self::Rerank => &RERANK,
            Self::ImageGenerations => &IMAGE_GENERATIONS,
            Self::ImageEdits => &IMAGE_EDITS,
            Self::Transcriptions => &TRANSCRIPTIONS,
            Self::Translations => &TRANSLATIONS,
            Self::Speech => &SPEECH,
        }
    }

    /// Whether a model writes text there from a prompt, with OpenAI's parameters of sampling.
    #[must_use]
    pub fn writes_text(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
}
