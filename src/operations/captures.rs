//! Captured exchanges: listing, showing, deleting, and asking another model the same (SPEC §10, §9.3; ADR 20).
//!
//! Whether the bodies of a key are captured is a property of the key: see `keys::edit`.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::chat::check_model;
use super::context::Context;
use super::keys;
use super::own_chat::{OwnChat, Question};
use super::own_endpoint::OwnEndpoint;
use super::progress::Reporter;
use crate::engines::inference_route::InferenceRoute;
use crate::proxy::inference_of;
use crate::telemetry::captures::Recorded;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::captures::{CapturePage, ClearCaptures, ListCaptures, ReplayCapture, ShowCapture};
use crate::types::capture::{CAPTURES_KEPT, Capture, Kept};
use crate::types::chat::{ChatAnswer, ChatDelivery, ChatRoute};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::RequestId;
use crate::types::live::Noun;
use crate::wire::client::About;
use crate::wire::json_body::JsonBody;
use crate::wire::openai::Document;

/// Entries answered when the caller names no number, and at most (see `ListCaptures`).
const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;
/// Under which label its requests show.
const LABEL: &str = "flm replay";

/// Lists captured exchanges, newest first, without their bodies.
///
/// # Errors
/// `NOT_FOUND` for a key that never was.
pub async fn list(context: &Context, call: ListCaptures) -> Outcome<CapturePage> {
    let limit = if call.limit == 0 { DEFAULT_PAGE } else { call.limit.min(LARGEST_PAGE) };
    let mut page = context.stores.security.captures(oldest(context), call.key, limit).await?;
    if let (true, Some(key)) = (page.captures.is_empty(), call.key) {
        keys::find(context.stores.security.keys().await?, key)?;
    }
    page.lost = context.live.as_ref().map_or(0, |live| live.proxy.captures.lost());
    Ok(page)
}

/// Shows one captured exchange with its bodies.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn show(context: &Context, call: ShowCapture) -> Outcome<Capture> {
    find(context, call.id).await
}

/// Deletes captured exchanges of one key or all; answers how many. Audited.
///
/// # Errors
/// `NOT_FOUND` for a key that never was.
pub async fn clear(context: &Context, call: ClearCaptures) -> Outcome<u64> {
    let _changing = context.begin_change().await?;
    let count = context.stores.security.clear_captures(call.key).await?;
    if let (0, Some(key)) = (count, call.key) {
        keys::find(context.stores.security.keys().await?, key)?;
    }
    let whose = call.key.map_or_else(|| "all keys".to_owned(), |key| format!("key {key}"));
    let event = AuditEvent {
        key: call.key,
        ..AuditEvent::new(
            context.clock.wall(),
            AuditKind::Maintenance,
            Severity::Low,
            format!("{count} captured exchanges of {whose} deleted"),
        )
    };
    context.record_event(event).await;
    context.changed(Noun::Captures);
    Ok(count)
}

/// Asks another model what a captured request asked, whatever dialect it was written in, and tells the answer as it comes.
/// Dropping the future ends the engine's work.
///
/// # Errors
/// `NOT_FOUND` for the capture, or when no proxy runs; `INVALID_ARGUMENT` for a request that was cut or asks no model for
/// text; what the endpoint answered.
pub async fn replay(
    context: &Arc<Context>,
    call: ReplayCapture,
    reporter: Reporter<ReplayCapture>,
) -> Outcome<ChatAnswer> {
    check_model(&call.model)?;
    let capture = find(context, call.id).await?;
    let question = question(context, &capture, call.model)?;
    let endpoint = OwnEndpoint::open(context, LABEL)?;
    let mut chat = OwnChat::ask(&endpoint, question).await?;
    while let Some(piece) = chat.next().await? {
        reporter.send(&piece).await;
    }
    Ok(chat.end())
}

/// Stores exchanges that ended, but those whose key is no longer captured: switching it off is in force at once, also for what
/// runs. Answers how many were stored.
///
/// # Errors
/// Of the store.
pub async fn store(context: &Context, ended: Vec<Recorded>) -> Outcome<usize> {
    let Some(live) = &context.live else { return Ok(0) };
    let is_wanted = |recorded: &Recorded| {
        let row = recorded.row();
        let key = row.key.and_then(|id| live.proxy.guard.key(id));
        key.and_then(|key| key.record.view.capture_until).is_some_and(|until| until > row.at)
    };
    let wanted: Vec<Recorded> = ended.into_iter().filter(is_wanted).collect();
    // Megabytes of text are looked through for keys.
    let captures = tokio::task::spawn_blocking(|| wanted.into_iter().filter_map(Recorded::into_capture).collect())
        .await
        .map_err(|_| super::context::blocking_panicked("reading captured bodies"))?;
    let captures: Vec<Capture> = captures;
    let count = captures.len();
    if count > 0 {
        context.stores.security.append_captures(captures).await?;
        context.changed(Noun::Captures);
    }
    Ok(count)
}

/// Forgets what is older than it may be.
///
/// # Errors
/// Of the store.
pub async fn forget_old(context: &Context) -> Outcome<()> {
    if context.stores.security.trim_captures(oldest(context)).await? > 0 {
        context.changed(Noun::Captures);
    }
    Ok(())
}

/// What is older is not shown either, until it is forgotten.
fn oldest(context: &Context) -> UnixMillis {
    context.clock.wall().minus(CAPTURES_KEPT)
}

async fn find(context: &Context, id: RequestId) -> Outcome<Capture> {
    context.stores.security.capture(id, oldest(context)).await?.ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("the bodies of {id} were not captured, or are gone"))
            .hint("see what there is with 'flm logs captures'; capture a key with 'flm api-keys edit ID --capture 2h'")
    })
}

/// The captured request in OpenAI's shape, for another model.
fn question(context: &Context, capture: &Capture, model: String) -> Outcome<Question> {
    let refuse = |why: &str| {
        Failure::new(ErrorCode::InvalidArgument, format!("{} cannot be asked again: {why}", capture.entry.id))
            .hint("ask in your own words with: flm chat MODEL --prompt TEXT")
    };
    match capture.entry.request.kept {
        Kept::Whole => {}
        Kept::Cut => return Err(refuse("its body was too large to be kept whole")),
        Kept::Binary => return Err(refuse("its body is no text and was not kept")),
    }
    let no_text = || refuse("it asked no model for text");
    let (route, dialect) = inference_of(&capture.entry.path).ok_or_else(no_text)?;
    let body =
        JsonBody::parse(Bytes::from(capture.request_text.clone())).map_err(|fault| refuse(&fault.to_string()))?;
    let about = About { request_id: capture.entry.id.as_str(), model: &model, clock: &context.clock };
    let translated = dialect.translate(&body, about).map_err(|fault| refuse(&fault.to_string()))?;
    let (bytes, document) = match translated {
        Some(translated) => (translated.body, Some(translated.route)),
        None => (body.bytes().clone(), document(route)),
    };
    let path = match document {
        Some(Document::Chat) => ChatRoute::Completions.path(),
        Some(Document::Completion) => "/v1/completions",
        Some(Document::Embeddings | Document::Rerank | Document::Images) | None => return Err(no_text()),
    };
    let mut body: Value = serde_json::from_slice(&bytes).map_err(|error| refuse(&error.to_string()))?;
    let Some(fields) = body.as_object_mut() else { return Err(no_text()) };
    fields.insert("model".to_owned(), model.as_str().into());
    fields.insert("stream".to_owned(), true.into());
    fields.insert("stream_options".to_owned(), json!({ "include_usage": true }));
    // One answer is shown.
    fields.remove("n");
    Ok(Question { model, path, body, route: ChatRoute::Completions, delivery: ChatDelivery::Streamed })
}

/// What OpenAI's own routes that ask for text hold.
fn document(route: InferenceRoute) -> Option<Document> {
    match route {
        InferenceRoute::Chat => Some(Document::Chat),
        InferenceRoute::Completions => Some(Document::Completion),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::backup::tests::{TestHome, add_key, back_up};
    use crate::operations::keys;
    use crate::storage::{Contents, DatabaseFile, ReadAccess, SecurityStore};
    use crate::types::calls::backup::CreateBackup;
    use crate::types::calls::keys::{CaptureSwitch, EditKey};
    use crate::types::capture::{CaptureEntry, CapturedSize};
    use crate::types::ids::KeyId;

    fn capture(key: KeyId, path: &str, request: &str) -> Capture {
        let size = CapturedSize { bytes: request.len() as u64, kept: Kept::Whole };
        Capture {
            entry: CaptureEntry {
                id: RequestId::from_random(7),
                at: crate::types::clock::Clock::system().wall(),
                key,
                method: "POST".into(),
                path: path.into(),
                model: Some("small".into()),
                status: 200,
                request: size,
                answer: size,
            },
            request_text: request.into(),
            answer_text: "x".repeat(2_000_000),
        }
    }

    #[tokio::test]
    async fn no_backup_has_bodies_and_the_home_keeps_them() {
        let home = TestHome::new();
        let context = home.open().await;
        let key = add_key(&context, "one").await;
        context.stores.security.append_captures(vec![capture(key, "/v1/x", "secret words")]).await.expect("stores");
        let made = back_up(&context, CreateBackup::default()).await.expect("backs up");
        let path = std::path::Path::new(&made.path).join("security.db");
        assert!(crate::config::files::size(&path).expect("size") < 1_000_000, "the space is given back");
        let file = DatabaseFile { path: &path, contents: Contents::Security, key: Some(context.stores.security.key()) };
        assert!(file.audit_head(ReadAccess::Finished).expect("reads").is_some(), "the rest is there");
        let copy = SecurityStore::open_with_key(&path, context.stores.security.key().clone(), None).expect("opens");
        assert_eq!(copy.captures(UnixMillis(0), None, 10).await.expect("reads").total, 0);
        assert_eq!(copy.keys().await.expect("reads").len(), 1);
        copy.close().await.expect("closes");
        let page = list(&context, ListCaptures::default()).await.expect("lists");
        assert_eq!(page.total, 1, "the home's own stay");
        context.close().await;
    }

    #[tokio::test]
    async fn switching_is_audited_and_clearing_too() {
        let home = TestHome::new();
        let context = home.open().await;
        let id = add_key(&context, "one").await;
        let edit = |capture| EditKey { id, label: None, limits: None, expires: None, capture: Some(capture) };
        let day = std::time::Duration::from_hours(25);
        let failure = keys::edit(&context, edit(CaptureSwitch::For(day))).await.expect_err("too long");
        assert_eq!(failure.code, ErrorCode::InvalidArgument);
        let view = keys::edit(&context, edit(CaptureSwitch::For(day / 25))).await.expect("edits");
        assert!(view.capture_until.is_some_and(|until| until > context.clock.wall()));
        keys::edit(&context, edit(CaptureSwitch::Off)).await.expect("edits");
        clear(&context, ClearCaptures { key: Some(id) }).await.expect("clears");
        let call = crate::types::calls::audit::ListAudit::default();
        let rows = crate::operations::audit_log::list(&context, call).await.expect("lists");
        let told: Vec<_> = rows.into_iter().map(|row| row.event.details).collect();
        for wanted in ["captured for 60 min", "no longer has its bodies captured", "0 captured exchanges of key"] {
            assert!(told.iter().any(|details| details.contains(wanted)), "{wanted} in {told:?}");
        }
        context.close().await;
    }

    #[tokio::test]
    async fn a_captured_request_of_any_dialect_is_asked_again_in_one_shape() {
        let home = TestHome::new();
        let context = home.open().await;
        let asked = |path: &str, body: &str| question(&context, &capture(KeyId::OWN, path, body), "other".to_owned());
        for (path, body) in [
            ("/v1/chat/completions", r#"{"model":"small","n":3,"messages":[{"role":"user","content":"hi"}],"seed":4}"#),
            ("/v1/messages", r#"{"model":"small","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#),
            ("/api/chat", r#"{"model":"small","messages":[{"role":"user","content":"hi"}]}"#),
            ("/v1/responses", r#"{"model":"small","input":"hi"}"#),
        ] {
            let asked = asked(path, body).unwrap_or_else(|failure| panic!("{path}: {failure}"));
            assert_eq!(asked.path, "/v1/chat/completions", "{path}");
            assert_eq!((&asked.body["model"], &asked.body["stream"]), (&json!("other"), &json!(true)));
            assert_eq!(asked.body["n"], Value::Null);
            assert!(asked.body["messages"].to_string().contains("hi"), "{path}: {}", asked.body);
        }
        let plain = asked("/v1/completions", r#"{"model":"small","prompt":"hi"}"#).unwrap_or_else(|f| panic!("{f}"));
        assert_eq!((plain.path, &plain.body["prompt"]), ("/v1/completions", &json!("hi")));
        for (path, body) in [
            ("/v1/embeddings", r#"{"model":"small","input":"hi"}"#),
            ("/api/embed", r#"{"model":"small","input":"hi"}"#),
            ("/v1/models", ""),
            ("/v1/chat/completions", "{\"model\":"),
        ] {
            let failure = asked(path, body).err().unwrap_or_else(|| panic!("{path} is refused"));
            assert_eq!(failure.code, ErrorCode::InvalidArgument, "{path}");
        }
        let mut cut = capture(KeyId::OWN, "/v1/chat/completions", "{}");
        cut.entry.request.kept = Kept::Cut;
        assert!(question(&context, &cut, "other".to_owned()).is_err());
        context.close().await;
    }
}
