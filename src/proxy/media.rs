//! Files, images and sounds of a request: read and checked at the body stage, and fetched by FLM itself where a request only names
//! them (SPEC §4.6).
//!
//! Called by `body` and, between budget and relay, by the pipeline: nobody without a key, a model and a budget makes FLM dial anything.
//! Must never let an address of the client's choice reach an engine.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::exchange::{Exchange, Resolved};
use super::limits::RemoteMedia;
use super::refusal::Refusal;
use crate::engines::inference_route::InferenceRoute;
use crate::types::engine::Capability;
use crate::wire::chat_images::{self, Held, ImageFault, RemoteImage};
use crate::wire::client::ClientDialect;
use crate::wire::form::FormFile;
use crate::wire::json_body::{Edit, JsonBody};
use crate::wire::media_kind::MediaKind;
use crate::wire::remote_media;

/// Images of one request that are fetched at the same time.
const FETCHED_AT_ONCE: usize = 4;

/// Images of one request that are fetched.
const MAX_FETCHED: usize = 16;

/// What a request holds beside text.
#[derive(Debug, Default)]
pub(super) struct Media {
    /// Files of a form.
    pub(super) files: Vec<FormFile>,
    /// Images that stand in messages or are named there.
    images: usize,
    /// Sounds that stand in messages.
    audio: usize,
    /// Images that are only named.
    remote: Vec<RemoteImage>,
}

impl Media {
    /// The files of a form.
    pub(super) fn of_form(files: Vec<FormFile>) -> Self {
        Self { files, ..Self::default() }
    }

    /// What a model must be able to do to take it, with words for people.
    pub(super) fn needs(&self) -> impl Iterator<Item = (Capability, &'static str)> {
        let images = (self.images > 0).then_some((Capability::Vision, "images in messages"));
        let audio = (self.audio > 0).then_some((Capability::AudioIn, "audio in messages"));
        images.into_iter().chain(audio)
    }
}

/// Refuses a client's body that names something to fetch, where nothing is fetched for it. Told before the body is translated, so that
/// the path is the client's own.
pub(super) fn refuse_remote(exchange: &Exchange, dialect: ClientDialect, body: &JsonBody) -> Result<(), Refusal> {
    if fetches(exchange, dialect) || !body.may_name_places() {
        return Ok(());
    }
    match remote_media::find(body.text()) {
        Some(path) => Err(Refusal::remote_media_off(path)),
        None => Ok(()),
    }
}

/// Ollama's API has no words for an address, so none is fetched there.
fn fetches(exchange: &Exchange, dialect: ClientDialect) -> bool {
    exchange.limits.remote_media == RemoteMedia::Fetched && !matches!(dialect, ClientDialect::Ollama(_))
}

/// Finds and checks what a request in the pivot's shape holds.
pub(super) fn check(
    exchange: &Exchange,
    dialect: ClientDialect,
    route: InferenceRoute,
    body: &JsonBody,
) -> Result<Media, Refusal> {
    let mut held = Held::default();
    let messages = body.raw("messages").filter(|_| route == InferenceRoute::Chat);
    if let Some(messages) = messages.filter(|messages| chat_images::may_hold(messages)) {
        held = chat_images::check(messages, exchange.limits.image_bytes)?;
    }
    if fetches(exchange, dialect) && body.may_name_places() {
        if let Some(over) = held.remote.get(MAX_FETCHED) {
            let reason = format!("at most {MAX_FETCHED} images of one request are");
            return Err(Refusal::not_fetched(&over.path, &reason));
        }
        // Whatever else is named would be the engine's to fetch.
        let without =
            messages.filter(|_| !held.remote.is_empty()).map(|messages| with_images(body, messages, &held.remote, &[]));
        if let Some(path) = remote_media::find(without.as_ref().unwrap_or(body).text()) {
            return Err(Refusal::remote_reference(path));
        }
    }
    Ok(Media { files: Vec::new(), images: held.inline + held.remote.len(), audio: held.audio, remote: held.remote })
}

/// The body with images in place of their addresses; empty ones for those that are not there yet.
fn with_images(body: &JsonBody, messages: &str, remote: &[RemoteImage], images: &[(MediaKind, Bytes)]) -> JsonBody {
    const NOTHING: (MediaKind, &[u8]) = (MediaKind::Png, &[]);
    let images: Vec<(MediaKind, &[u8])> = (0..remote.len())
        .map(|index| images.get(index).map_or(NOTHING, |(kind, bytes)| (*kind, bytes.as_ref())))
        .collect();
    body.with(&[Edit::Set("messages", chat_images::put_in(messages, remote, &images).into())])
}

/// Fetches the images that the request names, if any, and puts them into it.
pub(super) async fn fetch(exchange: &Exchange, resolved: Resolved) -> Result<Resolved, Refusal> {
    if resolved.parsed.media.remote.is_empty() {
        return Ok(resolved);
    }
    // Boxed: it is rare, and every request would carry its state else.
    Box::pin(fetch_all(exchange, resolved)).await
}

async fn fetch_all(exchange: &Exchange, mut resolved: Resolved) -> Result<Resolved, Refusal> {
    let parsed = resolved.parsed.as_mut();
    let remote = std::mem::take(&mut parsed.media.remote);
    let Some(messages) = parsed.body.raw("messages") else { return Ok(resolved) };
    let limits = &exchange.limits;
    let fetcher = &exchange.peer.worker.shared.fetcher;
    let deadline = tokio::time::Instant::now() + limits.fetch_timeout;
    let fetches: Vec<_> = remote
        .iter()
        .map(|image| async move {
            let bytes = fetcher.fetch(&image.url, limits.image_bytes, deadline).await.map_err(|error| {
                tracing::info!(request = %exchange.id, %error, "an image was not fetched");
                Refusal::not_fetched(&image.path, &error.to_string())
            })?;
            match MediaKind::of_image(&bytes) {
                Some(kind) => Ok((kind, bytes)),
                None => Err(Refusal::from(ImageFault::UnknownFormat { path: image.path.clone() })),
            }
        })
        .collect();
    let images: Vec<(MediaKind, Bytes)> = stream::iter(fetches).buffered(FETCHED_AT_ONCE).try_collect().await?;
    // In base64 they are a third larger; what an engine gets obeys the limit of every body.
    let total: usize = images.iter().map(|(_, bytes)| bytes.len().div_ceil(3) * 4).sum();
    if total + parsed.body.bytes().len() > limits.json_body_bytes {
        return Err(Refusal::too_large(limits.json_body_bytes));
    }
    parsed.body = with_images(&parsed.body, messages, &remote, &images);
    Ok(resolved)
}
