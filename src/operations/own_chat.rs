//! One question to the own endpoint, read as it comes: what `chat`, `bench` and `comparisons` have in common.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::own_endpoint::{OwnAnswer, OwnEndpoint, refused};
use crate::types::calls::chat::{Chat, ChatProgress};
use crate::types::chat::{AudioClip, ChatAnswer, ChatDelivery, ChatRoute, ChatTiming, Speaker};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::request::{TokenSource, TokenUsage};
use crate::wire::sse::{self, Splitter};

/// Largest whole answer that is read: minutes of speech in base64.
const WHOLE_LIMIT: usize = 64 * 1024 * 1024;

/// An answer on its way. Dropping it closes the connection, which ends the engine's work.
pub(super) struct OwnChat<'a> {
    endpoint: &'a OwnEndpoint,
    answer: OwnAnswer,
    route: ChatRoute,
    delivery: ChatDelivery,
    started: Instant,
    first: Option<Instant>,
    splitter: Splitter,
    /// What was read and not yet told.
    ready: VecDeque<ChatProgress>,
    ended: bool,
    /// Why it cannot go on, once everything before is told.
    failed: Option<Failure>,
    /// Pieces that said something: what is counted when nobody tells tokens.
    pieces: u64,
    so_far: ChatAnswer,
}

/// What is asked, as it is sent.
pub(super) struct Question {
    pub(super) model: String,
    pub(super) path: &'static str,
    pub(super) body: Value,
    /// How the answer is read; that of `/v1/completions` is like that of a chat.
    pub(super) route: ChatRoute,
    pub(super) delivery: ChatDelivery,
}

impl<'a> OwnChat<'a> {
    /// Asks, and answers when the endpoint does.
    ///
    /// # Errors
    /// As [`OwnChat::ask`].
    pub(super) async fn begin(endpoint: &'a OwnEndpoint, chat: &Chat) -> Outcome<Self> {
        let body = match chat.route {
            ChatRoute::Completions => completions_body(chat),
            ChatRoute::Responses => responses_body(chat),
        };
        let (model, path) = (chat.model.clone(), chat.route.path());
        Self::ask(endpoint, Question { model, path, body, route: chat.route, delivery: chat.delivery }).await
    }

    /// Sends a question, and answers when the endpoint does.
    ///
    /// # Errors
    /// A refusal with its status, code, message, request id and a hint; `IO_ERROR` when the listener is not reached.
    pub(super) async fn ask(endpoint: &'a OwnEndpoint, question: Question) -> Outcome<Self> {
        let started = endpoint.clock.monotonic();
        let body = Bytes::from(question.body.to_string());
        let answer = endpoint.send(Method::POST, question.path, &[], body).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal().await);
        }
        let request_id = answer.request_id();
        let status = answer.status.as_u16();
        let so_far = ChatAnswer {
            model: question.model,
            status,
            request_id: request_id.clone(),
            text: String::new(),
            reasoning: String::new(),
            audio: None,
            finish_reason: None,
            usage: TokenUsage::default(),
            timing: ChatTiming::default(),
        };
        Ok(Self {
            endpoint,
            answer,
            route: question.route,
            delivery: question.delivery,
            started,
            first: None,
            splitter: Splitter::new(),
            ready: VecDeque::from([ChatProgress::Begun { status, request_id }]),
            ended: false,
            failed: None,
            pieces: 0,
            so_far,
        })
    }

    /// What comes next; `None` when the answer is whole. Not cancel-safe: whoever stops waiting drops the answer.
    ///
    /// # Errors
    /// An error inside the stream, or that it broke off.
    pub(super) async fn next(&mut self) -> Outcome<Option<ChatProgress>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if self.ended {
                return Ok(None);
            }
            let read = match self.delivery {
                ChatDelivery::Whole => self.read_whole().await,
                ChatDelivery::Streamed => self.read_piece().await,
            };
            // Words that came in one piece with a fault are told before it.
            self.failed = read.err();
        }
    }

    /// The whole answer, after [`OwnChat::next`] answered `None`.
    pub(super) fn end(mut self) -> ChatAnswer {
        let millis = |until: Instant| until.saturating_duration_since(self.started).as_secs_f64() * 1000.0;
        if self.so_far.usage.source == TokenSource::None && self.pieces > 0 {
            self.so_far.usage =
                TokenUsage { completion: self.pieces, source: TokenSource::Estimated, ..TokenUsage::default() };
        }
        let total = millis(self.endpoint.clock.monotonic());
        self.so_far.timing = ChatTiming::of(self.first.map(millis), total, self.so_far.usage.completion);
        self.so_far
    }

    async fn read_whole(&mut self) -> Outcome<()> {
        let mut read = BytesMut::new();
        while let Some(frame) = self.answer.body.frame().await {
            let frame = frame.map_err(|error| self.broken(&error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
            if read.len() > WHOLE_LIMIT {
                return Err(self.broken("the answer is larger than 64 MiB"));
            }
        }
        let document: Value =
            serde_json::from_slice(&read).map_err(|error| self.broken(&format!("it is no JSON: {error}")))?;
        self.ended = true;
        match self.route {
            ChatRoute::Completions => {
                let choice = &document["choices"][0];
                let message = &choice["message"];
                self.thought(reasoning_of(message));
                self.said(message["content"].as_str());
                self.spoke(&message["audio"], "wav");
                self.finished(choice["finish_reason"].as_str());
                self.used(&document["usage"]);
            }
            ChatRoute::Responses => {
                for item in document["output"].as_array().into_iter().flatten() {
                    let thinks = item["type"] == "reasoning";
                    let parts = item["content"].as_array().into_iter().chain(item["summary"].as_array()).flatten();
                    for part in parts {
                        let text = part["text"].as_str();
                        if thinks { self.thought(text) } else { self.said(text) }
                    }
                }
                self.finished(document["status"].as_str());
                self.used(&document["usage"]);
            }
        }
        // It came in one piece: there was no first token to be timed, and pieces are no tokens.
        self.first = None;
        self.pieces = 0;
        Ok(())
    }

    async fn read_piece(&mut self) -> Outcome<()> {
        let run = match self.answer.body.frame().await {
            None => {
                self.ended = true;
                match self.splitter.finish() {
                    Some(rest) => rest,
                    None if self.so_far.finish_reason.is_some() => return Ok(()),
                    None => return Err(self.broken("it ended before the answer did")),
                }
            }
            Some(Err(error)) => return Err(self.broken(&error.to_string())),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.splitter.push(data).map_err(|error| self.broken(&error.to_string()))?,
                // Trailers carry nothing here.
                Err(_trailers) => return Ok(()),
            },
        };
        for block in sse::blocks(&run) {
            let Some(data) = block.data else { continue };
            if &*data == b"[DONE]" {
                continue;
            }
            let event: Value =
                serde_json::from_slice(&data).map_err(|error| self.broken(&format!("an event is no JSON: {error}")))?;
            match self.route {
                ChatRoute::Completions => self.chunk(&event)?,
                ChatRoute::Responses => self.response_event(&event)?,
            }
        }
        Ok(())
    }

    /// A chunk of `chat.completions`.
    fn chunk(&mut self, chunk: &Value) -> Outcome<()> {
        if !chunk["error"].is_null() {
            return Err(self.error_in_stream(chunk));
        }
        self.used(&chunk["usage"]);
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        self.thought(reasoning_of(delta));
        // A chunk of `completions` has the text itself.
        self.said(delta["content"].as_str().or(choice["text"].as_str()));
        self.spoke(&delta["audio"], "pcm16");
        self.finished(choice["finish_reason"].as_str());
        Ok(())
    }

    /// An event of `responses`.
    fn response_event(&mut self, event: &Value) -> Outcome<()> {
        match event["type"].as_str().unwrap_or_default() {
            "response.output_text.delta" => self.said(event["delta"].as_str()),
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
                self.thought(event["delta"].as_str());
            }
            "response.completed" | "response.incomplete" => {
                let response = &event["response"];
                self.finished(response["status"].as_str());
                self.used(&response["usage"]);
            }
            "response.failed" => return Err(self.error_in_stream(&event["response"])),
            "error" if event["error"].is_null() => return Err(self.error_in_stream(&json!({ "error": event }))),
            "error" => return Err(self.error_in_stream(event)),
            _ => {}
        }
        Ok(())
    }

    fn said(&mut self, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.came();
            self.so_far.text.push_str(text);
            self.ready.push_back(ChatProgress::Text(text.to_owned()));
        }
    }

    fn thought(&mut self, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.came();
            self.so_far.reasoning.push_str(text);
            self.ready.push_back(ChatProgress::Reasoning(text.to_owned()));
        }
    }

    /// Sound and what is said in it.
    fn spoke(&mut self, audio: &Value, format: &str) {
        if let Some(data) = audio["data"].as_str() {
            self.came();
            let clip =
                self.so_far.audio.get_or_insert_with(|| AudioClip { format: format.to_owned(), data: String::new() });
            clip.data.push_str(data);
        }
        self.said(audio["transcript"].as_str());
    }

    fn came(&mut self) {
        self.pieces += 1;
        if self.first.is_none() {
            self.first = Some(self.endpoint.clock.monotonic());
        }
    }

    fn finished(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.so_far.finish_reason = Some(reason.to_owned());
        }
    }

    fn used(&mut self, usage: &Value) {
        let count = |one: &str, other: &str| usage[one].as_u64().or(usage[other].as_u64());
        let Some(completion) = count("completion_tokens", "output_tokens") else { return };
        let cached = ["prompt_tokens_details", "input_tokens_details"]
            .iter()
            .find_map(|details| usage[*details]["cached_tokens"].as_u64());
        self.so_far.usage = TokenUsage {
            prompt: count("prompt_tokens", "input_tokens").unwrap_or(0),
            completion,
            cached: cached.unwrap_or(0),
            source: TokenSource::Engine,
        };
    }

    fn error_in_stream(&self, document: &Value) -> Failure {
        // Its status went out before the fault.
        let status = document["error"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let status = status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut failure = refused(status, document, self.so_far.request_id.clone());
        failure.message = failure.message.replacen(
            &format!("the endpoint answered {}", status.as_u16()),
            "the answer broke off with",
            1,
        );
        failure
    }

    fn broken(&self, why: &str) -> Failure {
        let mut failure = Failure::new(ErrorCode::EngineApiError, format!("the answer cannot be read: {why}"))
            .hint("flm logs requests says how the request ended");
        failure.request_id.clone_from(&self.so_far.request_id);
        failure
    }
}

/// Engines write thoughts under two names (ENGINES.md §4).
fn reasoning_of(message: &Value) -> Option<&str> {
    message["reasoning_content"].as_str().or(message["reasoning"].as_str())
}

fn completions_body(chat: &Chat) -> Value {
    let content = if chat.images.is_empty() && chat.audio.is_none() {
        json!(chat.prompt)
    } else {
        let mut parts = vec![json!({"type": "text", "text": chat.prompt})];
        parts.extend(chat.images.iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}})));
        parts.extend(chat.audio.iter().map(|clip| json!({"type": "input_audio", "input_audio": clip})));
        Value::Array(parts)
    };
    let mut messages: Vec<Value> =
        chat.earlier.iter().map(|said| json!({"role": said.by.role(), "content": said.text})).collect();
    messages.push(json!({"role": "user", "content": content}));
    let mut body = json!({"model": chat.model, "messages": messages});
    if chat.delivery == ChatDelivery::Streamed {
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
    }
    if !chat.modalities.is_empty() {
        body["modalities"] = json!(chat.modalities);
        if chat.modalities.iter().any(|modality| modality == "audio") {
            // OpenAI streams raw samples only (API reference, Create chat completion, audio).
            let format = if chat.delivery == ChatDelivery::Streamed { "pcm16" } else { "wav" };
            body["audio"] = json!({"voice": "alloy", "format": format});
        }
    }
    if let Some(temperature) = chat.sampling.temperature {
        body["temperature"] = temperature.into();
    }
    if let Some(tokens) = chat.sampling.max_tokens {
        body["max_tokens"] = tokens.into();
    }
    if let Some(seed) = chat.sampling.seed {
        body["seed"] = seed.into();
    }
    body
}

fn responses_body(chat: &Chat) -> Value {
    let mut parts = vec![json!({"type": "input_text", "text": chat.prompt})];
    parts.extend(chat.images.iter().map(|url| json!({"type": "input_image", "image_url": url})));
    parts.extend(chat.audio.iter().map(|clip| json!({"type": "input_audio", "input_audio": clip})));
    let earlier = chat.earlier.iter().map(|said| {
        let kind = if said.by == Speaker::Assistant { "output_text" } else { "input_text" };
        json!({"type": "message", "role": said.by.role(), "content": [{"type": kind, "text": said.text}]})
    });
    let mut input: Vec<Value> = earlier.collect();
    input.push(json!({"type": "message", "role": "user", "content": parts}));
    let mut body = json!({"model": chat.model, "input": input, "store": false});
    if chat.delivery == ChatDelivery::Streamed {
        body["stream"] = true.into();
    }
    if let Some(temperature) = chat.sampling.temperature {
        body["temperature"] = temperature.into();
    }
    if let Some(tokens) = chat.sampling.max_tokens {
        body["max_output_tokens"] = tokens.into();
    }
    body
}
