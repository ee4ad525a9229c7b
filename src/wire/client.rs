//! The dialect that a client speaks: how its request becomes the pivot's (OpenAI's shape), how an answer in the pivot's
//! shape becomes the client's, how it is told an error, and how it is kept awake.
//!
//! Called by `proxy`, which carries a [`ClientDialect`] from route to body and a [`ClientWriter`] from body to the end
//! of the answer. For OpenAI's own clients nothing here parses, copies or allocates. Must never know an engine.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;

use crate::types::clock::Clock;
use crate::wire::anthropic_answer::{MessagesWriter, PING};
use crate::wire::anthropic_request;
use crate::wire::json_body::JsonBody;
use crate::wire::ollama_client_answer::OllamaWriter;
use crate::wire::ollama_client_request;
use crate::wire::openai::{Document, WholeFault};
use crate::wire::openai_chunk::json_into;
use crate::wire::openai_tap::StreamFault;
use crate::wire::pivot::{Extras, OllamaCall};
use crate::wire::responses_answer::ResponsesWriter;
use crate::wire::responses_request;
use crate::wire::sse;
use crate::wire::translate::{Fields, TranslateFault, flag};

/// The API that a request is written in. The route's table says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientDialect {
    /// OpenAI's routes whose shape is the pivot: passed on as they are.
    OpenAi,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// Anthropic's `/v1/messages/count_tokens`.
    CountTokens,
    /// OpenAI's `/v1/responses`.
    Responses,
    /// Ollama's own API.
    Ollama(OllamaCall),
}

/// What a translator needs to know of a request beside its body.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// As in `x-request-id`; ids of answers are made from it.
    pub request_id: &'a str,
    /// The model as the client named it.
    pub model: &'a str,
    /// Dates answers.
    pub clock: &'a Clock,
}

/// A request in the pivot's shape.
#[derive(Debug)]
pub struct Translated {
    /// The body.
    pub body: Bytes,
    /// What goes beside it.
    pub extras: Extras,
    /// The pivot's route.
    pub route: Document,
    /// Whether the client wants a stream.
    pub streams: bool,
    /// Writes the answer.
    pub client: ClientWriter,
    /// Fields that were left out; outside text.
    pub dropped: Vec<String>,
}

impl ClientDialect {
    /// Puts a request into the pivot's shape; `None` where it has it already.
    ///
    /// # Errors
    /// See [`TranslateFault`].
    pub fn translate(self, body: &JsonBody, about: About<'_>) -> Result<Option<Translated>, TranslateFault> {
        let fields = || -> Result<Fields, TranslateFault> {
            serde_json::from_slice(body.bytes()).map_err(|error| TranslateFault::Unreadable(error.to_string()))
        };
        let translated = match self {
            Self::OpenAi => return Ok(None),
            Self::Messages | Self::CountTokens => {
                let fields = fields()?;
                let chat = anthropic_request::chat(&fields)?;
                let writer = MessagesWriter::new(about.request_id, about.model, chat.stop_sequences);
                Translated {
                    streams: self == Self::Messages && flag(&fields, "stream", "")?.unwrap_or(false),
                    body: Bytes::from(chat.body.to_string()),
                    extras: chat.extras,
                    route: Document::Chat,
                    client: ClientWriter::Messages(Box::new(writer)),
                    dropped: chat.dropped,
                }
            }
            Self::Responses => {
                let fields = fields()?;
                let chat = responses_request::chat(&fields)?;
                let created = about.clock.wall().0 / 1000;
                let writer = ResponsesWriter::new(about.request_id, about.model, created, chat.echo);
                Translated {
                    streams: flag(&fields, "stream", "")?.unwrap_or(false),
                    body: Bytes::from(chat.body.to_string()),
                    extras: chat.extras,
                    route: Document::Chat,
                    client: ClientWriter::Responses(Box::new(writer)),
                    dropped: chat.dropped,
                }
            }
            Self::Ollama(call) => {
                let fields = fields()?;
                let asked = ollama_client_request::translate(call, &fields)?;
                let writer = OllamaWriter::new(call, asked.work, about.model, about.clock);
                let streams = asked.route != Document::Embeddings && flag(&fields, "stream", "")?.unwrap_or(true);
                Translated {
                    streams,
                    body: Bytes::from(asked.body.to_string()),
                    extras: asked.extras,
                    route: asked.route,
                    client: ClientWriter::Ollama(Box::new(writer)),
                    dropped: Vec::new(),
                }
            }
        };
        Ok(Some(translated))
    }
}

/// How errors are written to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"error":{message,type,param,code,request_id}}` (SPEC §4.4).
    OpenAi,
    /// `{"type":"error","error":{type,message},"request_id"}` (Anthropic's API reference, Errors).
    Anthropic,
    /// `{"error":"…"}` (`ollama/ollama` `docs/api.md`).
    Ollama,
}

/// An error as it is told, in the words of SPEC §4.4.
#[derive(Debug, Clone, Copy)]
pub struct ToldError<'a> {
    /// HTTP status that it has or would have.
    pub status: u16,
    /// Code of SPEC §4.4.
    pub code: &'a str,
    /// OpenAI's `type`.
    pub kind: &'a str,
    /// For a person.
    pub message: &'a str,
    /// The field at fault.
    pub param: Option<&'a str>,
    /// As in `x-request-id`.
    pub request_id: &'a str,
}

impl ErrorShape {
    /// The shape that callers of a path expect, whether or not the path exists: a refusal can come before routing.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        // The engine's own paths stand behind its id.
        let path = path.strip_prefix("/engine/").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
        if path.starts_with("/v1/messages") {
            Self::Anthropic
        } else if path.starts_with("/api/") {
            Self::Ollama
        } else {
            Self::OpenAi
        }
    }

    /// The document of an error, as JSON on one line.
    #[must_use]
    pub fn document(self, error: &ToldError<'_>) -> Vec<u8> {
        let mut written = Vec::with_capacity(error.message.len() + error.request_id.len() + 160);
        json_into(&mut written, &self.shaped(error));
        written
    }

    pub(super) fn shaped<'a>(self, error: &ToldError<'a>) -> ErrorDocument<'a> {
        let ToldError { status, code, kind, message, param, request_id } = *error;
        match self {
            Self::OpenAi => ErrorDocument::OpenAi { error: OpenAiError { message, kind, param, code, request_id } },
            Self::Anthropic => {
                let error = AnthropicError { kind: anthropic_kind(status), message };
                ErrorDocument::Anthropic { kind: "error", error, request_id }
            }
            Self::Ollama => ErrorDocument::Ollama { error: message },
        }
    }
}

/// See [`ErrorShape`].
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ErrorDocument<'a> {
    OpenAi {
        error: OpenAiError<'a>,
    },
    Anthropic {
        #[serde(rename = "type")]
        kind: &'static str,
        error: AnthropicError<'a>,
        request_id: &'a str,
    },
    Ollama {
        error: &'a str,
    },
}

#[derive(Debug, Serialize)]
pub(super) struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    request_id: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

/// Anthropic's `type` for a status (its API reference, Errors); 503 is its 529 in words.
fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    }
}

/// Writes one answer to its client.
#[derive(Debug, Default)]
pub enum ClientWriter {
    /// The pivot is what the client speaks: everything passes as it is.
    #[default]
    OpenAi,
    /// Anthropic's named events and documents.
    Messages(Box<MessagesWriter>),
    /// Named events and documents of OpenAI's Responses.
    Responses(Box<ResponsesWriter>),
    /// Lines and documents of Ollama's own API.
    Ollama(Box<OllamaWriter>),
}

impl ClientWriter {
    /// A whole answer in the client's shape.
    ///
    /// # Errors
    /// The document is not what its route answers with.
    pub fn whole(&mut self, document: Bytes) -> Result<Bytes, WholeFault> {
        match self {
            Self::OpenAi => Ok(document),
            Self::Messages(writer) => writer.whole(&document),
            Self::Responses(writer) => writer.whole(&document),
            Self::Ollama(writer) => writer.whole(&document),
        }
    }

    /// Takes whole events of an OpenAI stream, `[DONE]` included, and appends what the client gets.
    ///
    /// # Errors
    /// An event is no chunk.
    pub fn push(&mut self, events: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), StreamFault> {
        match self {
            Self::OpenAi => {
                out.push_back(events);
                Ok(())
            }
            Self::Messages(writer) => writer.push(&events, out),
            Self::Responses(writer) => writer.push(&events, out),
            Self::Ollama(writer) => writer.push(&events, out),
        }
    }

    /// Ends a stream that has begun with an error.
    pub fn fail(&mut self, error: &ToldError<'_>, out: &mut VecDeque<Bytes>) {
        match self {
            Self::OpenAi => {
                // Plain data: named events reach some clients as odd items (CLIENTS.md).
                out.push_back(sse::event(&ErrorShape::OpenAi.document(error)));
                out.push_back(sse::DONE);
            }
            Self::Messages(writer) => writer.fail(error, out),
            Self::Responses(writer) => writer.fail(error, out),
            Self::Ollama(writer) => writer.fail(error, out),
        }
    }

    /// What is sent while no engine has begun; `None` where the framing has no word for it.
    #[must_use]
    pub fn heartbeat(&self) -> Option<Bytes> {
        match self {
            Self::OpenAi | Self::Responses(_) => Some(sse::COMMENT),
            // Clients parse every line.
            Self::Ollama(_) => None,
            Self::Messages(writer) => Some(if writer.begun() { PING } else { sse::COMMENT }),
        }
    }

    /// The media type of a stream.
    #[must_use]
    pub fn stream_type(&self) -> &'static str {
        match self {
            Self::OpenAi | Self::Messages(_) | Self::Responses(_) => "text/event-stream; charset=utf-8",
            Self::Ollama(_) => "application/x-ndjson",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const ERROR: ToldError<'_> = ToldError {
        status: 404,
        code: "model_not_found",
        kind: "invalid_request_error",
        message: "There is no \"x\".",
        param: Some("model"),
        request_id: "req_1",
    };

    #[test]
    fn each_api_tells_errors_in_its_own_shape() {
        for (path, told) in [
            (
                "/v1/messages",
                json!({"type": "error", "error": {"type": "not_found_error", "message": "There is no \"x\"."},
                       "request_id": "req_1"}),
            ),
            ("/api/chat", json!({"error": "There is no \"x\"."})),
            ("/engine/o/api/chat", json!({"error": "There is no \"x\"."})),
            (
                "/v1/chat/completions",
                json!({"error": {"message": "There is no \"x\".", "type": "invalid_request_error", "param": "model",
                                 "code": "model_not_found", "request_id": "req_1"}}),
            ),
        ] {
            let written = ErrorShape::of_path(path).document(&ERROR);
            assert_eq!(serde_json::from_slice::<Value>(&written).expect("JSON"), told, "{path}");
        }
    }
}
