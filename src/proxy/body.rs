//! Fifth stage: reads the body, capped before it is buffered, and parses what routing needs (SPEC §4.2, §4.6).

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::account::Stage;
use super::exchange::{Exchange, Parsed, Routed};
use super::media::{self, Media};
use super::refusal::Refusal;
use super::route::Inference;
use super::rules::{self, Misdeed};
use super::sanity::cut;
use crate::engines::adapter::Delivery;
use crate::engines::inference_route::{InferenceRoute, JsonField, Presence, Streams, Takes};
use crate::types::text::escape;
use crate::wire::client::{About, ClientWriter, Translated};
use crate::wire::form::{FileHolds, FileLimits, FormFile, FormSpec};
use crate::wire::json_body::{BodyFault, JsonBody};
use crate::wire::multipart::Boundary;
use crate::wire::openai::Document;

/// Reads and parses.
pub(super) async fn read(
    exchange: &mut Exchange,
    routed: Routed,
    inference: Inference,
    incoming: Incoming,
) -> Result<Box<Parsed>, Refusal> {
    let facts = inference.route.facts();
    let limit = match facts.takes {
        Takes::Json(_) => exchange.limits.json_body_bytes,
        Takes::Form(spec) => form_limit(exchange, spec),
    };
    let bytes = collect(exchange, incoming, limit).await?;
    exchange.account.note(|row| row.bytes_in = bytes.len() as u64);
    exchange.account.came_in(&bytes);
    let (body, files) = match (facts.takes, &routed.boundary) {
        (Takes::Form(spec), Some(boundary)) => read_form(exchange, spec, boundary, &bytes)?,
        _ => (JsonBody::parse(bytes)?, Vec::new()),
    };
    let model: Arc<str> = match body.string("model") {
        Ok(Some(model)) if !model.is_empty() => model.as_ref().into(),
        Ok(_) => {
            return Err(Refusal::invalid_model("The field 'model' is missing; GET /v1/models lists what there is."));
        }
        Err(_) => return Err(Refusal::invalid_model("The field 'model' must be a string.")),
    };
    media::refuse_remote(exchange, inference.dialect, &body)?;
    let about = About { request_id: exchange.id.as_str(), model: &model, clock: &exchange.peer.worker.shared.clock };
    let parsed = if let Some(translated) = inference.dialect.translate(&body, about)? {
        from_translated(exchange, routed, inference, translated, model)?
    } else {
        if let Takes::Json(fields) = facts.takes {
            check_fields(&body, fields)?;
        }
        let delivery = delivery(&body, facts.streams)?;
        let media = match facts.takes {
            Takes::Form(_) => Media::of_form(files),
            Takes::Json(_) => media::check(exchange, inference.dialect, inference.route, &body)?,
        };
        let client = ClientWriter::OpenAi;
        Box::new(Parsed { key: routed.key, inference, body, media, extras: None, model, delivery, client })
    };
    exchange.account.note(|row| {
        row.model = Some(if parsed.model.len() <= 256 { parsed.model.clone() } else { cut(&parsed.model, 256).into() });
        row.stream = parsed.delivery != Delivery::Whole;
    });
    exchange.account.mark(Stage::Parsed);
    Ok(parsed)
}

/// Room in a form for what is no file: texts, heads and boundaries.
const FORM_ROOM: usize = 1 << 20;

/// How large a form may be. A file that is too large is still read to its end where the form allows it, so that the refusal names it.
fn form_limit(exchange: &Exchange, spec: &FormSpec) -> usize {
    let is_audio = spec.files.iter().any(|file| file.holds == FileHolds::Audio);
    if is_audio { exchange.limits.audio_bytes + FORM_ROOM } else { exchange.limits.json_body_bytes }
}

/// A form as a JSON object, and the files beside it.
fn read_form(
    exchange: &Exchange,
    spec: &FormSpec,
    boundary: &Boundary,
    bytes: &Bytes,
) -> Result<(JsonBody, Vec<FormFile>), Refusal> {
    let limits = FileLimits { image: exchange.limits.image_bytes, audio: exchange.limits.audio_bytes };
    let form = spec.read(bytes, boundary, limits)?;
    if !form.dropped.is_empty() {
        let fields = cut(&form.dropped.join(", "), 500);
        tracing::warn!(request = %exchange.id, fields = %escape(&fields), "fields of a form that no engine has a word for were dropped");
    }
    Ok((JsonBody::parse(form.body)?, form.files))
}

/// How the client wants its answer.
fn delivery(body: &JsonBody, streams: Streams) -> Result<Delivery, Refusal> {
    Ok(match streams {
        Streams::ByFlag if body.boolean("stream")?.unwrap_or(false) => {
            Delivery::Stream { usage_wanted: usage_wanted(body)? }
        }
        Streams::ByFlag | Streams::Never => Delivery::Whole,
        Streams::ByFormat => match body.string("stream_format")?.as_deref() {
            Some("sse") => Delivery::Stream { usage_wanted: true },
            None | Some("audio") => Delivery::Bytes,
            Some(_) => return Err(BodyFault::WrongType("stream_format".to_owned(), "\"audio\" or \"sse\"").into()),
        },
    })
}

/// A request of another dialect, which is in OpenAI's shape now.
fn from_translated(
    exchange: &Exchange,
    routed: Routed,
    mut inference: Inference,
    translated: Translated,
    model: Arc<str>,
) -> Result<Box<Parsed>, Refusal> {
    if !translated.dropped.is_empty() {
        let fields = cut(&translated.dropped.join(", "), 500);
        tracing::warn!(route = inference.name, fields = %escape(&fields), "fields that no engine here has a word for were dropped");
    }
    inference.route = match translated.route {
        Document::Completion => InferenceRoute::Completions,
        Document::Embeddings => InferenceRoute::Embeddings,
        // No dialect but OpenAI's has the others.
        Document::Chat | Document::Rerank | Document::Images => InferenceRoute::Chat,
    };
    let body = JsonBody::parse(translated.body)?;
    let media = media::check(exchange, inference.dialect, inference.route, &body)?;
    // The usage that comes with the chunks is what the client's own events tell.
    let delivery = if translated.streams { Delivery::Stream { usage_wanted: true } } else { Delivery::Whole };
    Ok(Box::new(Parsed {
        key: routed.key,
        inference,
        body,
        media,
        extras: Some(Box::new(translated.extras)),
        model,
        delivery,
        client: translated.client,
    }))
}

/// Checks what every engine refuses, so that no engine is troubled.
fn check_fields(body: &JsonBody, fields: &[JsonField]) -> Result<(), BodyFault> {
    for field in fields {
        let fits = match body.raw(field.name) {
            None | Some("null") => field.presence == Presence::Optional,
            Some(raw) => raw.starts_with(field.begins),
        };
        if !fits {
            return Err(BodyFault::WrongType(field.name.to_owned(), field.expected));
        }
    }
    Ok(())
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

/// Slowest upload that is waited for: a poor mobile connection brings ten times as much.
const SLOWEST_BYTES_PER_SECOND: u64 = 256;

/// Whether a body comes slower than anybody who means it sends. Judged only after the time that a pause may take.
fn is_too_slow(received: usize, spent: Duration, idle: Duration) -> bool {
    spent > idle && (received as u64) < spent.as_secs().max(1).saturating_mul(SLOWEST_BYTES_PER_SECOND)
}

/// The client held its upload open past the limit: it is told, and it counts (SPEC §5.5), over HTTP/2 as over HTTP/1.1.
fn held_open(exchange: &Exchange) -> Refusal {
    rules::connection(&exchange.peer.worker.shared, exchange.client, exchange.standing, Misdeed::BodyHeldOpen);
    Refusal::body_timeout()
}

/// How long the rest of a refused body is read, and how long without a byte (nginx's `lingering_time` and
/// `lingering_timeout`).
const LINGER: Duration = Duration::from_secs(30);
const LINGER_IDLE: Duration = Duration::from_secs(5);

/// Reads a body of at most `limit` bytes. Of one that is larger the rest is read and let go while the refusal is sent:
/// closing would reset the connection, and clients that send before they read (Node's `fetch`) would see that instead
/// of the refusal, and send it all again.
pub(super) async fn collect(exchange: &Exchange, mut incoming: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let collected = collect_from(exchange, &mut incoming, limit).await;
    let too_large = |refusal: &Refusal| refusal.status == StatusCode::PAYLOAD_TOO_LARGE;
    // Only for clients with a key: a stranger's time is not waited for.
    if exchange.key.is_some() && collected.as_ref().is_err_and(too_large) {
        exchange.peer.worker.tasks.spawn_until_end("rest of a refused body", async move {
            let rest =
                async { while let Ok(Some(Ok(_))) = tokio::time::timeout(LINGER_IDLE, incoming.frame()).await {} };
            drop(tokio::time::timeout(LINGER, rest).await);
        });
    }
    collected
}

async fn collect_from(exchange: &Exchange, incoming: &mut Incoming, limit: usize) -> Result<Bytes, Refusal> {
    let expected = incoming.size_hint();
    if expected.lower() > limit as u64 {
        return Err(Refusal::too_large(limit));
    }
    let mut first: Option<Bytes> = None;
    let mut buffer = BytesMut::new();
    let mut waited = None;
    // Most bodies come with their head, in one piece: the clock is only asked when one does not.
    while let Some(frame) = next_frame(exchange, incoming).await? {
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len).max(buffer.len());
        if so_far + data.len() > limit {
            return Err(Refusal::too_large(limit));
        }
        if incoming.is_end_stream() && first.is_none() && buffer.is_empty() {
            return Ok(data);
        }
        // Drop by drop a body could be held open for hours without ever pausing for long.
        let begun = *waited.get_or_insert_with(Instant::now);
        if is_too_slow(so_far + data.len(), begun.elapsed(), exchange.limits.body_idle) {
            return Err(held_open(exchange));
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
        if incoming.is_end_stream() {
            break;
        }
    }
    Ok(first.unwrap_or_else(|| buffer.freeze()))
}

async fn next_frame(exchange: &Exchange, incoming: &mut Incoming) -> Result<Option<http_body::Frame<Bytes>>, Refusal> {
    match tokio::time::timeout(exchange.limits.body_idle, incoming.frame()).await {
        Err(_elapsed) => Err(held_open(exchange)),
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => {
            tracing::debug!(%error, request = %exchange.id, "a body broke off");
            Err(Refusal::bad_request("The body broke off or its framing is wrong."))
        }
    }
}
