//! API keys: making, listing, editing, revoking, rotating (SPEC §5.1).

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::Context;
use super::usage;
use crate::guard::{key_hash, key_text};
use crate::telemetry::hashing::HashingError;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::keys::{
    CaptureSwitch, CreateKey, EditKey, EnsureFirstKey, Expiry, ListKeys, RevokeKey, RotateKey, ShowKey,
};
use crate::types::capture::LONGEST_CAPTURE;
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::KeyId;
use crate::types::key::{CreatedKey, KeyLimits, KeyRecord, KeyView};
use crate::types::live::Noun;
use crate::types::secret::Secret;
use crate::types::text::{escape, is_hostile};

/// Longest label in characters: it fits a table column and a log line.
const LABEL_LENGTH: usize = 80;
/// Most globs of one kind on a key: each is tried on every request.
const GLOBS: usize = 64;
/// Longest glob in bytes, as long as the longest model name that is kept.
const GLOB_LENGTH: usize = 256;
/// Label of the key that the first start makes.
const FIRST_LABEL: &str = "first key";

/// Makes a key.
///
/// # Errors
/// `INVALID_ARGUMENT` for a label that is empty, too long or taken, and for limits that make no sense.
pub async fn create(context: &Context, call: CreateKey) -> Outcome<CreatedKey> {
    let label = checked_label(&call.label)?;
    check_limits(&call.limits)?;
    let _changing = context.begin_change().await?;
    let keys = context.stores.security.keys().await?;
    refuse_taken_label(&keys, &label, None)?;
    let expires = call.expires_in.map(|span| checked_expiry(context, span)).transpose()?;
    let created = insert(context, &keys, label, call.limits, expires).await?;
    finish(context, &created.view, "made").await;
    Ok(created)
}

/// Lists keys, newest first, revoked ones last.
pub async fn list(context: &Context, _call: ListKeys) -> Outcome<Vec<KeyView>> {
    store_key_use(context).await?;
    let mut views: Vec<_> = context.stores.security.keys().await?.into_iter().map(|record| record.view).collect();
    count_today(context, &mut views).await?;
    views.sort_by_key(|view| (view.revoked.is_some(), std::cmp::Reverse((view.created, view.id))));
    Ok(views)
}

/// Shows one key.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn show(context: &Context, call: ShowKey) -> Outcome<KeyView> {
    store_key_use(context).await?;
    let mut view = find(context.stores.security.keys().await?, call.id)?.view;
    count_today(context, std::slice::from_mut(&mut view)).await?;
    Ok(view)
}

/// Changes label, limits, expiry or capture of bodies; in force when this returns.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` for a revoked key, a bad label, limits or span, or a capture of more than 24 hours.
pub async fn edit(context: &Context, call: EditKey) -> Outcome<KeyView> {
    let label = call.label.as_deref().map(checked_label).transpose()?;
    if let Some(limits) = &call.limits {
        check_limits(limits)?;
    }
    let capture = call.capture.map(|switch| checked_capture(context, switch)).transpose()?;
    let is_edited = label.is_some() || call.limits.is_some() || call.expires.is_some();
    let _changing = context.begin_change().await?;
    let keys = context.stores.security.keys().await?;
    if let Some(label) = &label {
        refuse_taken_label(&keys, label, Some(call.id))?;
    }
    let mut record = find(keys, call.id)?;
    refuse_revoked(&record.view)?;
    if let Some(label) = label {
        record.view.label = label;
    }
    if let Some(limits) = call.limits {
        record.view.limits = limits;
    }
    match call.expires {
        None => {}
        Some(Expiry::Never) => record.view.expires = None,
        Some(Expiry::In(span)) => record.view.expires = Some(checked_expiry(context, span)?),
    }
    if let Some((until, _)) = &capture {
        record.view.capture_until = *until;
    }
    update(context, &record).await?;
    if is_edited || capture.is_none() {
        finish(context, &record.view, "edited").await;
    }
    if let Some((_, what)) = &capture {
        finish(context, &record.view, what).await;
    }
    Ok(record.view)
}

/// Revokes a key: refused from now on; its running streams are ended by the proxy (SPEC §5.1).
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` when it is revoked already.
pub async fn revoke(context: &Context, call: RevokeKey) -> Outcome<KeyView> {
    let _changing = context.begin_change().await?;
    let mut record = find(context.stores.security.keys().await?, call.id)?;
    refuse_revoked(&record.view)?;
    record.view.revoked = Some(context.clock.wall());
    update(context, &record).await?;
    finish(context, &record.view, "revoked").await;
    Ok(record.view)
}

/// Makes a new key with the same label, limits and expiry, and revokes the old one.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_ARGUMENT` when it is revoked already.
pub async fn rotate(context: &Context, call: RotateKey) -> Outcome<CreatedKey> {
    let _changing = context.begin_change().await?;
    let keys = context.stores.security.keys().await?;
    let mut old = find(keys.clone(), call.id)?;
    refuse_revoked(&old.view)?;
    let label = old.view.label.clone();
    // The label is unique among keys that work, and a revocation is final. So the new key first stands under a
    // passing label: whatever fails between, a key with these limits works.
    let passing = format!("{label} (replaces {})", old.view.id);
    let mut created = insert(context, &keys, passing, old.view.limits.clone(), old.view.expires).await?;
    old.view.revoked = Some(context.clock.wall());
    update(context, &old).await?;
    created.view.label = label;
    let hash = find(context.stores.security.keys().await?, created.view.id)?.hash;
    update(context, &KeyRecord { view: created.view.clone(), hash }).await?;
    finish(context, &old.view, "revoked by rotation").await;
    finish(context, &created.view, "made by rotation").await;
    Ok(created)
}

/// Makes the first key of a home; `None` when one was ever made.
pub async fn ensure_first(context: &Context, _call: EnsureFirstKey) -> Outcome<Option<CreatedKey>> {
    let _changing = context.begin_change().await?;
    let keys = context.stores.security.keys().await?;
    if !keys.is_empty() {
        return Ok(None);
    }
    let created = insert(context, &keys, FIRST_LABEL.to_owned(), KeyLimits::default(), None).await?;
    finish(context, &created.view, "made at the first start").await;
    Ok(Some(created))
}

/// Draws and hashes a key and puts it into store and guard. The caller holds the change.
async fn insert(
    context: &Context,
    keys: &[KeyRecord],
    label: String,
    limits: KeyLimits,
    expires: Option<UnixMillis>,
) -> Outcome<CreatedKey> {
    let (id, key) = draw(keys)?;
    let text = key.clone();
    let hash = context
        .hashing
        .run(move || key_hash::hash(text.expose()))
        .await
        .map_err(|error| match error {
            HashingError::Busy => Failure::new(ErrorCode::Internal, error.to_string()).hint("try again in a second"),
            HashingError::Gone => Failure::new(ErrorCode::Internal, error.to_string()),
        })?
        .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    let last4 = key.expose().get(key_text::KEY_LENGTH - 4..).unwrap_or_default();
    let view = KeyView { expires, ..KeyView::unused(id, label, last4, limits, context.clock.wall()) };
    let record = KeyRecord { view: view.clone(), hash };
    context.stores.security.insert_key(record.clone()).await?;
    if let Some(live) = &context.live {
        live.proxy.guard.put_key(record);
    }
    Ok(CreatedKey { key, view })
}

fn draw(keys: &[KeyRecord]) -> Outcome<(KeyId, Secret)> {
    loop {
        let (id, key) = draw_any()?;
        // 62^8 ids: a second draw is for correctness, not for luck.
        if id != KeyId::OWN && keys.iter().all(|record| record.view.id != id) {
            return Ok((id, key));
        }
    }
}

/// Draws a key from the system's random numbers.
///
/// # Errors
/// When the system gives none.
pub(super) fn draw_any() -> Outcome<(KeyId, Secret)> {
    let mut pool = zeroize::Zeroizing::new([0_u8; 256]);
    let mut next = pool.len();
    let mut failed = None;
    let drawn = key_text::write(&mut || {
        if next == pool.len() {
            if let Err(error) = getrandom::fill(&mut *pool) {
                failed = Some(error);
                // Lets `write` end; what it wrote is thrown away below.
                pool.fill(0);
            }
            next = 0;
        }
        next += 1;
        pool[next - 1]
    });
    match failed {
        None => Ok(drawn),
        Some(error) => Err(Failure::new(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))),
    }
}

async fn update(context: &Context, record: &KeyRecord) -> Outcome<()> {
    if !context.stores.security.update_key(record.view.clone()).await? {
        return Err(unknown(record.view.id));
    }
    if let Some(live) = &context.live {
        live.proxy.guard.put_key(record.clone());
    }
    Ok(())
}

async fn finish(context: &Context, view: &KeyView, what: &str) {
    let details = format!("key {} ({}) {what}", view.id, escape(&view.label));
    let event = AuditEvent {
        key: Some(view.id),
        ..AuditEvent::new(context.clock.wall(), AuditKind::KeyChanged, Severity::Medium, details)
    };
    context.record_event(event).await;
    context.changed(Noun::Keys);
}

/// Writes the uses that the guard has seen to the store, as the keeper does every minute: a list shows them all.
pub async fn store_key_use(context: &Context) -> Outcome<()> {
    if let Some(live) = &context.live {
        let used = live.proxy.guard.take_used_keys();
        if !used.is_empty() {
            context.stores.security.touch_keys(used).await?;
        }
    }
    Ok(())
}

/// Fills in what each key has used of its day: from the guard, which counts, else from what is stored.
async fn count_today(context: &Context, views: &mut [KeyView]) -> Outcome<()> {
    let now = context.clock.wall();
    let stored = match &context.live {
        Some(_) => BTreeMap::new(),
        None => usage::spent_today(context, now).await?,
    };
    for view in views {
        view.tokens_today = Some(match &context.live {
            Some(live) => live.proxy.guard.key(view.id).map_or(0, |key| key.counts.tokens.state(now).spent),
            None => stored.get(&view.id).copied().unwrap_or(0),
        });
    }
    Ok(())
}

pub(super) fn find(keys: Vec<KeyRecord>, id: KeyId) -> Outcome<KeyRecord> {
    keys.into_iter().find(|record| record.view.id == id).ok_or_else(|| unknown(id))
}

fn unknown(id: KeyId) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no API key {id}")).hint("list them with: flm api-keys list")
}

fn refuse_revoked(view: &KeyView) -> Outcome<()> {
    match view.revoked {
        None => Ok(()),
        Some(_) => Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("key {} ({}) is revoked, and that is final", view.id, escape(&view.label)),
        )
        .hint("make a new one with: flm api-keys create --label LABEL")),
    }
}

fn refuse_taken_label(keys: &[KeyRecord], label: &str, except: Option<KeyId>) -> Outcome<()> {
    let taken = keys
        .iter()
        .map(|record| &record.view)
        .find(|view| view.revoked.is_none() && view.label == label && Some(view.id) != except);
    match taken {
        None => Ok(()),
        Some(view) => Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the label {:?} belongs to key {}", escape(label), view.id),
        )
        .hint("choose another label, or give that key a new secret with: flm api-keys rotate ID")),
    }
}

fn checked_label(label: &str) -> Outcome<String> {
    let label = label.trim();
    let length = label.chars().count();
    if length == 0 || length > LABEL_LENGTH {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("a label has 1 to {LABEL_LENGTH} characters, not {length}"),
        )
        .hint("name the program or person that will use the key"));
    }
    if label.chars().any(is_hostile) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the label {:?} holds control characters", escape(label)),
        )
        .hint("use letters, digits, spaces and signs"));
    }
    Ok(label.to_owned())
}

fn check_limits(limits: &KeyLimits) -> Outcome<()> {
    let wrong = |message: String, hint: &str| Err(Failure::new(ErrorCode::InvalidArgument, message).hint(hint));
    if limits.rights.is_empty() {
        return wrong(
            "a key without any right could do nothing".to_owned(),
            "give it at least one: infer, metrics, manage or passthrough",
        );
    }
    if limits.burst == 0 && limits.requests_per_minute > 0 {
        return wrong("a burst of 0 would refuse every request".to_owned(), "use 1 or more");
    }
    if limits.max_parallel == Some(0) || limits.tokens_per_day == Some(0) {
        return wrong(
            "a limit of 0 requests or tokens would refuse every request".to_owned(),
            "leave the limit out, or revoke the key",
        );
    }
    for (what, globs) in [("models", &limits.models), ("routes", &limits.routes)] {
        if globs.len() > GLOBS {
            return wrong(
                format!("{} globs for {what} are too many", globs.len()),
                "use at most 64; * matches any run of characters",
            );
        }
        if let Some(bad) =
            globs.iter().find(|glob| glob.is_empty() || glob.len() > GLOB_LENGTH || glob.chars().any(is_hostile))
        {
            return wrong(
                format!("{:?} is no glob for {what}", escape(bad)),
                "write 1 to 256 characters, such as flm://ollama/* or /v1/embeddings",
            );
        }
    }
    // It would be a key that may do nothing.
    if let Some(bad) = limits.routes.iter().find(|glob| !glob.starts_with(['/', '*'])) {
        return wrong(
            format!("{:?} matches no route: a route is a path", escape(bad)),
            "write paths, such as /v1/chat/completions or /v1/*",
        );
    }
    Ok(())
}

fn checked_expiry(context: &Context, span: Duration) -> Outcome<UnixMillis> {
    if span < Duration::from_secs(1) {
        return Err(Failure::new(ErrorCode::InvalidArgument, "a key that expires at once is of no use")
            .hint("give a span such as 30m, 12h or 90d"));
    }
    Ok(context.clock.wall().plus(span))
}

/// Until when bodies are captured, and how the audit log tells it.
fn checked_capture(context: &Context, switch: CaptureSwitch) -> Outcome<(Option<UnixMillis>, String)> {
    let CaptureSwitch::For(span) = switch else {
        return Ok((None, "no longer has its bodies captured".to_owned()));
    };
    if span < Duration::from_secs(1) || span > LONGEST_CAPTURE {
        let message = "bodies are captured for at most 24 hours at a time, and for at least a second";
        return Err(Failure::new(ErrorCode::InvalidArgument, message)
            .hint("give a span such as 30m, 2h or 24h, and set it again when it is over"));
    }
    let minutes = span.as_secs().div_ceil(60);
    Ok((Some(context.clock.wall().plus(span)), format!("has its bodies captured for {minutes} min")))
}
