//! Fifth stage: reads the body, capped before it is buffered, and parses what routing needs (SPEC §4.2, §4.6).

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::sync::Arc;

use super::account::Stage;
use super::exchange::{Exchange, Parsed, Routed};
use super::refusal::Refusal;
use super::route::Inference;
use super::sanity::cut;
use crate::engines::adapter::{Delivery, InferenceRoute};
use crate::types::engine::Capability;
use crate::types::text::escape;
use crate::wire::client::{About, ClientWriter, Translated};
use crate::wire::json_body::{BodyFault, JsonBody};
use crate::wire::openai::Document;

/// Reads and parses.
pub(super) async fn read(
    exchange: &mut Exchange,
    routed: Routed,
    inference: Inference,
    incoming: Incoming,
) -> Result<Parsed, Refusal> {
    let bytes = collect(exchange, incoming).await?;
    exchange.account.note(|row| row.bytes_in = bytes.len() as u64);
    let body = JsonBody::parse(bytes)?;
    let model: Arc<str> = match body.string("model") {
        Ok(Some(model)) if !model.is_empty() => model.as_ref().into(),
        Ok(_) => {
            return Err(Refusal::invalid_model("The field 'model' is missing; GET /v1/models lists what there is."));
        }
        Err(_) => return Err(Refusal::invalid_model("The field 'model' must be a string.")),
    };
    let about = About { request_id: exchange.id.as_str(), model: &model, clock: &exchange.peer.worker.shared.clock };
    let parsed = if let Some(translated) = inference.dialect.translate(&body, about)? {
        from_translated(routed, inference, translated, model)?
    } else {
        check_content(&body, inference.route)?;
        let stream = inference.route != InferenceRoute::Embeddings && body.boolean("stream")?.unwrap_or(false);
        let delivery = if stream { Delivery::Stream { usage_wanted: usage_wanted(&body)? } } else { Delivery::Whole };
        Parsed { key: routed.key, inference, body, extras: None, model, delivery, client: ClientWriter::OpenAi }
    };
    exchange.account.note(|row| {
        row.model = Some(cut(&parsed.model, 256).into());
        row.stream = parsed.delivery != Delivery::Whole;
    });
    exchange.account.mark(Stage::Parsed);
    Ok(parsed)
}

/// A request of another dialect, which is in OpenAI's shape now.
fn from_translated(
    routed: Routed,
    mut inference: Inference,
    translated: Translated,
    model: Arc<str>,
) -> Result<Parsed, Refusal> {
    if !translated.dropped.is_empty() {
        let fields = cut(&translated.dropped.join(", "), 500);
        tracing::warn!(route = inference.name, fields = %escape(&fields), "fields that no engine here has a word for were dropped");
    }
    (inference.route, inference.needs, inference.needs_title) = match translated.route {
        Document::Chat => (InferenceRoute::Chat, Capability::Chat, "chat"),
        Document::Completion => (InferenceRoute::Completions, Capability::Completions, "completions"),
        Document::Embeddings => (InferenceRoute::Embeddings, Capability::Embeddings, "embeddings"),
    };
    // The usage that comes with the chunks is what the client's own events tell.
    let delivery = if translated.streams { Delivery::Stream { usage_wanted: true } } else { Delivery::Whole };
    Ok(Parsed {
        key: routed.key,
        inference,
        body: JsonBody::parse(translated.body)?,
        extras: Some(Box::new(translated.extras)),
        model,
        delivery,
        client: translated.client,
    })
}

/// What every engine refuses, each in its own words: told in one way, and no engine is troubled.
fn check_content(body: &JsonBody, route: InferenceRoute) -> Result<(), BodyFault> {
    let wrong = |field: &str, expected| Err(BodyFault::WrongType(field.to_owned(), expected));
    match route {
        InferenceRoute::Chat if !body.raw("messages").is_some_and(|raw| raw.starts_with('[')) => {
            wrong("messages", "an array of messages")
        }
        InferenceRoute::Embeddings if !body.raw("input").is_some_and(|raw| raw.starts_with(['"', '['])) => {
            wrong("input", "a string or an array")
        }
        InferenceRoute::Chat | InferenceRoute::Completions | InferenceRoute::Embeddings => Ok(()),
    }
}

/// `stream_options.include_usage`.
fn usage_wanted(body: &JsonBody) -> Result<bool, Refusal> {
    #[derive(serde::Deserialize)]
    struct StreamOptions {
        #[serde(default)]
        include_usage: Option<bool>,
    }
    let options: Option<StreamOptions> = body.value("stream_options", "an object such as {\"include_usage\": true}")?;
    Ok(options.and_then(|options| options.include_usage).unwrap_or(false))
}

pub(super) async fn collect(exchange: &Exchange, mut incoming: Incoming) -> Result<Bytes, Refusal> {
    let limit = exchange.limits.json_body_bytes;
    let expected = incoming.size_hint();
    if expected.lower() > limit as u64 {
        return Err(Refusal::too_large(limit));
    }
    let mut first: Option<Bytes> = None;
    let mut buffer = BytesMut::new();
    // Most bodies come with their head, in one piece: the clock is only asked when one does not.
    while let Some(frame) = next_frame(exchange, &mut incoming).await? {
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len).max(buffer.len());
        if so_far + data.len() > limit {
            return Err(Refusal::too_large(limit));
        }
        match first.take() {
            None if buffer.is_empty() => first = Some(data),
            None => buffer.extend_from_slice(&data),
            Some(begun) => {
                // Never more than the limit, whatever the client announced.
                let announced = usize::try_from(expected.lower()).unwrap_or(limit).min(limit);
                buffer.reserve(announced.max(begun.len() + data.len()));
                buffer.extend_from_slice(&begun);
                buffer.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| buffer.freeze()))
}

async fn next_frame(exchange: &Exchange, incoming: &mut Incoming) -> Result<Option<http_body::Frame<Bytes>>, Refusal> {
    match tokio::time::timeout(exchange.limits.body_idle, incoming.frame()).await {
        Err(_elapsed) => Err(Refusal::body_timeout()),
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, request = %exchange.id, "a body broke off");
            Err(Refusal::bad_request("The body broke off or its framing is wrong."))
        }
    }
}
