//! Moving in from the old prototype: plan, convert, apply (SPEC §10).
//!
//! A plan and an application are the same computation: the folder is read (`source`), mapped to what FLM stores
//! (`mapping`), and compared with the home (`difference`). An application writes a journal first, makes a backup,
//! adds what is missing to `config.db` in one transaction, and then the keys to `security.db` in another: a client sees
//! nothing of it before all of it is there. Killed anywhere, the next run adds what is still missing. Left before anything is
//! stored, it never was.

mod cells;
mod difference;
mod journal;
mod mapping;
mod source;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::difference::{Additions, Present, compare};
use self::journal::{Conversion, HashedKey, Journal, log, log_file};
use self::mapping::{Draft, Moved};
use self::source::Source;
use super::context::{Context, blocking_panicked};
use super::progress::Reporter;
use super::{backup, engines, limits, loading, settings};
use crate::config::files;
use crate::guard::key_hash;
use crate::net::upstream::Upstream;
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::calls::backup::BackupProgress;
use crate::types::calls::legacy::{
    ApplyLegacy, Confirmation, ConvertLegacy, LegacyFate, LegacyItem, LegacyKind, LegacyProgress, LegacyReport,
    LegacyStage, LegacyWork, PlanLegacy,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::key::{KeyLimits, KeyRecord, KeyView};
use crate::types::live::Noun;
use crate::types::text::escape;

/// Hears how far an application is.
type Told = Arc<dyn Fn(LegacyProgress) + Send + Sync>;

/// A point of an application, told when it is reached: where a test kills it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing is written yet.
    Ready,
    /// The journal holds what is moved.
    Begun,
    /// The backup is made.
    Copied,
    /// The journal knows the backup.
    CopiesNoted,
    /// `config.db` has everything.
    ConfigStored,
    /// `security.db` has the keys.
    KeysStored,
    /// A running proxy has it all, and so has the audit log.
    Published,
    /// The journal says that it has ended.
    Finished,
}

/// Says what would be moved.
///
/// # Errors
/// `NOT_FOUND` for a folder without anything of the old program, `INVALID_ARGUMENT` for files that cannot be read.
pub async fn plan(context: &Context, call: PlanLegacy) -> Outcome<LegacyReport> {
    let (source, draft) = read(context, &call.source).await?;
    let now = context.clock.wall();
    let present = present(context, &draft.moved).await?;
    let additions = compare(&present, &draft.moved, draft.keys.iter().map(|(key, _)| key), now);
    Ok(report(LegacyStage::Planned, call.source, source.database_name, source.fingerprint, additions.items))
}

/// Converts, with the keys hashed, into a folder of its own.
///
/// # Errors
/// As [`plan`], and when that folder cannot be written.
pub async fn convert(context: &Context, call: ConvertLegacy) -> Outcome<LegacyReport> {
    let (source, draft) = read(context, &call.source).await?;
    let unheard: Told = Arc::new(|_progress| {});
    let conversion = hash(context, call.source, source, draft, &unheard).await?;
    let present = present(context, &conversion.moved).await?;
    let now = context.clock.wall();
    let additions = compare(&present, &conversion.moved, conversion.keys.iter().map(|key| &key.key), now);
    let Conversion { source, database, fingerprint, .. } = conversion.clone();
    let folder = PathBuf::from(call.tmp);
    let path = blocking("writing the conversion", move || conversion.write(&folder)).await?;
    let told = report(LegacyStage::Converted, source, database, fingerprint, additions.items);
    Ok(LegacyReport { conversion: Some(text(&path)), ..told })
}

/// Moves what this home does not have yet. Whoever leaves before anything is stored ends it, and it never was; what is stored
/// later is stored whole.
///
/// # Errors
/// As [`plan`]; `INVALID_ARGUMENT` without a confirmation, or while the migration of another folder is not finished;
/// `CANCELLED`.
pub async fn apply(
    context: &Arc<Context>,
    call: ApplyLegacy,
    reporter: Reporter<ApplyLegacy>,
) -> Outcome<LegacyReport> {
    let left = CancellationToken::new();
    let _leaving = left.clone().drop_guard();
    let told: Told = Arc::new(move |progress| reporter.tell(&progress));
    // A task of its own: what is begun is taken back or brought to its end, whoever leaves.
    let moving = apply_in_steps(context.clone(), call, told, left, |_step| {});
    context.tasks.spawn("migration", moving).await.map_err(|_| blocking_panicked("moving in"))?
}

async fn apply_in_steps(
    context: Arc<Context>,
    call: ApplyLegacy,
    told: Told,
    left: CancellationToken,
    mut reached: impl FnMut(Step) + Send,
) -> Outcome<LegacyReport> {
    let _changing = context.begin_change().await?;
    match prepare(&context, call, &told, &left, &mut reached).await {
        Ok(Prepared::Whole(report)) => Ok(report),
        Ok(Prepared::Moving(moving)) => {
            told(LegacyProgress { stage: LegacyWork::Storing, done: 0, total: 0 });
            store(&context, *moving, &mut reached).await
        }
        Err(failure) if failure.code == ErrorCode::Cancelled => {
            // The backup that was being made ends at its next look.
            let _ended = context.backing_up.lock().await;
            let paths = context.paths.clone();
            blocking("forgetting a migration", move || Journal::forget_unstored(&paths)).await?;
            Err(failure)
        }
        Err(failure) => Err(failure),
    }
}

/// Does what takes long, unless whoever asked leaves.
async fn unless_left<T>(left: &CancellationToken, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        biased;
        () = left.cancelled() => {
            Err(Failure::new(ErrorCode::Cancelled, "the migration was cancelled; nothing was changed"))
        }
        outcome = work => outcome,
    }
}

/// What is known before anything is stored.
enum Prepared {
    /// There is nothing to do.
    Whole(LegacyReport),
    /// This is to be stored.
    Moving(Box<Moving>),
}

/// A migration of which the journal knows and both databases are backed up.
struct Moving {
    conversion: Conversion,
    additions: Additions,
    journal: Journal,
    /// The backup, when this run made it.
    copied: Option<String>,
    resumed: bool,
    now: UnixMillis,
}

impl Conversion {
    fn applied(&self, items: Vec<LegacyItem>) -> LegacyReport {
        let (source, database) = (self.source.clone(), self.database.clone());
        report(LegacyStage::Applied, source, database, self.fingerprint.clone(), items)
    }
}

/// Reads, hashes, compares, writes the journal and backs up.
async fn prepare(
    context: &Context,
    call: ApplyLegacy,
    told: &Told,
    left: &CancellationToken,
    reached: &mut (dyn FnMut(Step) + Send),
) -> Outcome<Prepared> {
    told(LegacyProgress { stage: LegacyWork::Reading, done: 0, total: 0 });
    let paths = context.paths.clone();
    let earlier = blocking("reading the journal", move || Journal::read(&paths)).await?;
    let unfinished = earlier.filter(|journal| journal.finished.is_none());
    if let Some(other) = unfinished.as_ref().filter(|journal| journal.source != call.source) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the migration from {} was broken off and is not finished", escape(&other.source)),
        )
        .hint("finish that one first: flm migrate legacy apply --source that folder --confirm"));
    }
    let conversion = unless_left(left, conversion(context, &call, unfinished.as_ref(), told)).await?;
    let present = present(context, &conversion.moved).await?;
    let now = context.clock.wall();
    let additions = compare(&present, &conversion.moved, conversion.keys.iter().map(|key| &key.key), now);
    let resumed = unfinished.is_some();
    if call.confirmation == Confirmation::Missing {
        let moves = additions.items.iter().filter(|item| item.fate == LegacyFate::Moves).count();
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{moves} things would be added to this home; nothing was changed"),
        )
        .hint("see them with: flm migrate legacy plan; then add --confirm"));
    }
    if additions.is_empty() && !resumed {
        return Ok(Prepared::Whole(conversion.applied(additions.items)));
    }
    reached(Step::Ready);

    let mut journal = unfinished.unwrap_or_else(|| Journal::begin(conversion.clone(), now));
    journal.fingerprint.clone_from(&conversion.fingerprint);
    journal.conversion = Some(conversion.clone());
    for item in additions.items.iter().filter(|item| item.fate == LegacyFate::Moves) {
        let item = LegacyItem { fate: LegacyFate::Moved, ..item.clone() };
        if !journal.adding.contains(&item) {
            journal.adding.push(item);
        }
    }
    write(context, &journal).await?;
    note(context, vec![format!("begun: {}", conversion.source)]).await?;
    reached(Step::Begun);
    let copied = match journal.backup {
        Some(_) => None,
        None => Some(unless_left(left, back_up(context, &journal, told)).await?),
    };
    Ok(Prepared::Moving(Box::new(Moving { conversion, additions, journal, copied, resumed, now })))
}

/// Stores it, hands it to a running proxy, and says in the journal that it has ended.
async fn store(context: &Context, moving: Moving, reached: &mut (dyn FnMut(Step) + Send)) -> Outcome<LegacyReport> {
    let Moving { conversion, mut additions, mut journal, copied, resumed, now } = moving;
    if let Some(path) = copied {
        reached(Step::Copied);
        // From here on the migration is begun: the next run finishes it, whatever happens to this one.
        journal.backup = Some(path.clone());
        write(context, &journal).await?;
        note(context, vec![format!("both databases backed up in {path}")]).await?;
    }
    reached(Step::CopiesNoted);

    store_config(context, &mut additions, now).await?;
    reached(Step::ConfigStored);
    let records = records(&additions, &conversion.keys, now);
    context.stores.security.import_keys(records.clone()).await?;
    reached(Step::KeysStored);
    publish(context, &journal).await?;
    reached(Step::Published);

    for item in &mut additions.items {
        let added = |other: &&LegacyItem| (other.kind, &other.name) == (item.kind, &item.name);
        if let (LegacyFate::Moves | LegacyFate::Exists, Some(told)) = (item.fate, journal.adding.iter().find(added)) {
            *item = told.clone();
        }
    }
    let mut lines: Vec<String> = additions.items.iter().map(line).collect();
    lines.push("finished".to_owned());
    note(context, lines).await?;
    journal.conversion = None;
    journal.finished = Some(now);
    write(context, &journal).await?;
    reached(Step::Finished);
    let told = conversion.applied(additions.items);
    Ok(LegacyReport { backup: journal.backup, log: Some(text(&log_file(&context.paths))), resumed, ..told })
}

/// What is moved: read and hashed now, or as an earlier run or a conversion left it.
async fn conversion(
    context: &Context,
    call: &ApplyLegacy,
    unfinished: Option<&Journal>,
    told: &Told,
) -> Outcome<Conversion> {
    let begun = unfinished.and_then(|journal| journal.conversion.clone());
    let (source, draft) = match (read(context, &call.source).await, begun) {
        (Ok((source, _)), Some(begun)) if source.fingerprint == begun.fingerprint => return Ok(begun),
        // The old folder is gone, and all of it that is needed is in the journal.
        (Err(_), Some(begun)) => return Ok(begun),
        (read, _) => read?,
    };
    let Some(tmp) = &call.tmp else { return hash(context, call.source.clone(), source, draft, told).await };
    let folder = PathBuf::from(tmp);
    let mut converted = blocking("reading the conversion", move || Conversion::read(&folder)).await?;
    if converted.fingerprint != source.fingerprint {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the conversion in {} was made of other data than {} holds now", escape(tmp), escape(&call.source)),
        )
        .hint("convert again: flm migrate legacy convert, or leave --tmp out"));
    }
    converted.source.clone_from(&call.source);
    Ok(converted)
}

async fn read(context: &Context, folder: &str) -> Outcome<(Source, Draft)> {
    let (folder, now) = (PathBuf::from(folder), context.clock.wall());
    blocking("reading the old program's folder", move || {
        let source = source::read(&folder)?;
        let draft = mapping::map(&source, now);
        Ok((source, draft))
    })
    .await
}

/// Hashes every key. The texts end here.
async fn hash(context: &Context, folder: String, source: Source, draft: Draft, told: &Told) -> Outcome<Conversion> {
    let total = draft.keys.len();
    let mut keys = Vec::with_capacity(total);
    for (key, text) in draft.keys {
        let count = |keys: usize| u64::try_from(keys).unwrap_or(u64::MAX);
        told(LegacyProgress { stage: LegacyWork::Hashing, done: count(keys.len()), total: count(total) });
        // One after the other: a running proxy needs these threads too.
        let hash = context
            .hashing
            .run(move || key_hash::hash(text.expose()))
            .await
            .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()).hint("try again in a second"))?
            .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
        keys.push(HashedKey { key, hash });
    }
    tracing::debug!(folder = %source.folder.display(), keys = keys.len(), "old program's data converted");
    Ok(Conversion::new(folder, source.database_name, source.fingerprint, draft.moved, keys))
}

/// What the home holds.
async fn present(context: &Context, moved: &Moved) -> Outcome<Present> {
    let config = &context.stores.config;
    let own = moved.engines.iter().filter(|engine| {
        Upstream::parse(&engine.url).is_ok_and(|upstream| engines::refuse_self(context, &upstream).is_err())
    });
    Ok(Present {
        own: own.map(|engine| engine.id.clone()).collect(),
        engines: config.engines().await?,
        aliases: config.aliases().await?,
        profiles: config.profiles().await?,
        prompts: config.prompts().await?,
        settings: config.settings().await?.into_iter().collect(),
        keys: context.stores.security.keys().await?,
    })
}

/// Backs both databases up in the migration's own folder; answers where.
async fn back_up(context: &Context, journal: &Journal, told: &Told) -> Outcome<String> {
    let folder = journal.backup_folder(&context.paths);
    if files::exists(&folder)? {
        // Of a run that was killed before it changed anything.
        files::remove_tree(&folder)?;
    }
    let told = told.clone();
    let tell = move |BackupProgress { done, total, .. }| {
        told(LegacyProgress { stage: LegacyWork::Copying, done, total });
    };
    Ok(backup::before_legacy(context, &folder, tell).await?.path)
}

/// Adds everything to `config.db`, once settings are known to fit together.
async fn store_config(context: &Context, additions: &mut Additions, now: UnixMillis) -> Outcome<()> {
    let import = std::mem::take(&mut additions.config);
    let mut database: std::collections::BTreeMap<_, _> = context.stores.config.settings().await?.into_iter().collect();
    database.extend(import.settings.iter().cloned());
    let file = settings::read_file(context).await?;
    let newer = context.settings.build(file.clone(), database)?;
    context.stores.config.import(import, now).await?;
    limits::publish(&newer, context.live.as_ref());
    context.settings.store(newer, file);
    Ok(())
}

fn records(additions: &Additions, hashed: &[HashedKey], now: UnixMillis) -> Vec<KeyRecord> {
    let defaults = KeyLimits::default();
    let records = additions.keys.iter().filter_map(|key| {
        let hash = hashed.iter().find(|hashed| hashed.key.id == key.id)?.hash.clone();
        let view = KeyView {
            expires: key.expires,
            ..KeyView::unused(
                key.id,
                key.label.clone(),
                key.last4.clone(),
                KeyLimits {
                    requests_per_minute: key.requests_per_minute.unwrap_or(defaults.requests_per_minute),
                    models: key.models.clone(),
                    ..defaults.clone()
                },
                key.created.unwrap_or(now),
            )
        };
        Some(KeyRecord { view, hash })
    });
    records.collect()
}

/// Hands everything to a running proxy, and tells the audit log and consoles.
async fn publish(context: &Context, journal: &Journal) -> Outcome<()> {
    context.registry.set_aliases(context.stores.config.aliases().await?);
    loading::put_engines(context, context.stores.config.engines().await?);
    if let Some(live) = &context.live {
        live.proxy.prompts.store(loading::prompt_table(context).await?);
        live.proxy.profiles.store(loading::profile_table(context).await?);
        for record in context.stores.security.keys().await? {
            live.proxy.guard.put_key(record);
        }
    }
    for item in journal.adding.iter().filter(|item| item.kind == LegacyKind::Key) {
        let details = format!("key {} moved from the old program {}", escape(&item.name), escape(&item.detail));
        context.record(AuditKind::KeyChanged, Severity::Medium, details).await;
    }
    let details = format!("{} things moved from the old program in {}", journal.adding.len(), escape(&journal.source));
    context
        .record_event(AuditEvent::new(context.clock.wall(), AuditKind::Maintenance, Severity::Medium, details))
        .await;
    for noun in [Noun::Keys, Noun::Prompts, Noun::Profiles, Noun::Aliases, Noun::Settings] {
        context.changed(noun);
    }
    context.status_changed();
    Ok(())
}

async fn write(context: &Context, journal: &Journal) -> Outcome<()> {
    let (paths, journal) = (context.paths.clone(), journal.clone());
    blocking("writing the journal", move || journal.write(&paths)).await
}

async fn note(context: &Context, lines: Vec<String>) -> Outcome<()> {
    let (paths, now) = (context.paths.clone(), context.clock.wall());
    blocking("writing the log of the migration", move || log(&paths, now, lines.into_iter())).await
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| blocking_panicked(what))?
}

fn line(item: &LegacyItem) -> String {
    format!("{:?} {:?} {:?}: {}", item.fate, item.kind, item.name, item.detail)
}

fn report(
    stage: LegacyStage,
    source: String,
    database: Option<String>,
    fingerprint: String,
    items: Vec<LegacyItem>,
) -> LegacyReport {
    LegacyReport {
        stage,
        source,
        database,
        fingerprint,
        items,
        conversion: None,
        backup: None,
        log: None,
        resumed: false,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
