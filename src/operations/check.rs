//! `flm check`: looks at everything that a home needs, and changes nothing (SPEC §2, §10).
//!
//! Each check is a function below that answers one finding or several; a check that fails never keeps the next from
//! being looked at. [`without_databases`] is for a home whose databases cannot be opened: it tells why, and the rest.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::backup::{self, Told};
use super::context::{Context, blocking_panicked};
use super::port_holder::holder_of_port;
use super::progress::Reporter;
use super::{audit_log, lock, policy};
use crate::config::files;
use crate::config::paths::HomePaths;
use crate::storage::{Contents, DatabaseFile, DatabaseKey, ReadAccess, newest_schema};
use crate::types::calls::audit::VerifyAudit;
use crate::types::calls::backup::{GuardedFile, ListBackups, LockState, ShowLock};
use crate::types::calls::check::{Check, CheckItem, CheckProgress, CheckReport, Verdict};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{ListenerConfig, ListenerPhase, ListenerStatus};
use crate::types::text::escape;

/// Free bytes below which a check warns, and fails: the audit log alone may take 2 GB by default, and `SQLite` needs room
/// for its log to write at all.
const SPACE_WARNED: u64 = 1 << 30;
const SPACE_NEEDED: u64 = 64 << 20;
/// Age of the newest backup from which a check warns: the daily one was missed twice.
const BACKUP_AGE: Duration = Duration::from_hours(49);
/// How long before its end a certificate is warned of, when nothing renews it.
const CERTIFICATE_LEFT: Duration = Duration::from_hours(14 * 24);

/// Runs every check.
///
/// # Errors
/// Only when FLM itself fails: what is wrong with the home is in the report.
pub async fn run(context: &Context, _call: Check, reporter: Reporter<Check>) -> Outcome<CheckReport> {
    let tell = |check: &str| reporter.tell(&CheckProgress { check: check.to_owned() });
    let mut checks = Vec::new();
    tell("files");
    let paths = context.paths.clone();
    let files = tokio::task::spawn_blocking(move || (modes(&paths), disk_space(&paths)));
    let (modes, space) = files.await.map_err(|_| blocking_panicked("looking at the files"))?;
    checks.push(modes);
    checks.push(key(context).await);
    checks.push(writable(context));
    for contents in [Contents::Settings, Contents::Security] {
        tell(backup::name_of(contents));
        checks.push(database(context, contents).await);
    }
    tell("audit log");
    checks.push(audit_chain(context).await);
    checks.push(audit_writer(context));
    tell("settings");
    checks.push(security_policy(context).await);
    checks.push(settings(context));
    checks.push(space);
    checks.push(backups(context).await);
    tell("listeners");
    checks.extend(listeners(context).await);
    checks.push(certificates(context));
    Ok(CheckReport::of(checks))
}

/// What can be told of a home whose databases cannot be opened, and why they cannot. Blocks.
#[must_use]
pub fn without_databases(paths: &HomePaths, why: &Failure) -> CheckReport {
    let lock = match lock::closed(paths) {
        Ok(status) => {
            let item = |verdict, finding| CheckItem::new("key", verdict, finding);
            match status.state {
                LockState::Failing { reason } => {
                    item(Verdict::Failed, format!("{}: {reason}", status.source)).code(ErrorCode::DbError)
                }
                _ => item(Verdict::Fine, status.source.to_string()),
            }
        }
        Err(failure) => failed("key", &failure),
    };
    CheckReport::of(vec![failed("databases", why), modes(paths), lock, disk_space(paths)])
}

fn failed(name: &str, failure: &Failure) -> CheckItem {
    let item = CheckItem::new(name, Verdict::Failed, escape(&failure.message)).code(failure.code);
    match &failure.hint {
        Some(hint) => item.hint(hint.clone()),
        None => item,
    }
}

fn modes(paths: &HomePaths) -> CheckItem {
    const NAME: &str = "file modes";
    let files = match lock::guarded_files(paths) {
        Ok(files) => files,
        Err(failure) => return failed(NAME, &failure),
    };
    let line = |file: &GuardedFile| match &file.fault {
        Some(fault) => format!("{} has mode {}: {fault}", escape(&file.path), file.mode),
        None => format!("{} has mode {}", escape(&file.path), file.mode),
    };
    let details: Vec<String> = files.iter().map(line).collect();
    let faulty: Vec<&GuardedFile> = files.iter().filter(|file| file.fault.is_some()).collect();
    match faulty.as_slice() {
        [] => CheckItem::new(NAME, Verdict::Fine, format!("{} files and folders are private", files.len())),
        [first, ..] => CheckItem::new(NAME, Verdict::Failed, line(first))
            .hint("the next start repairs modes; an owner is changed with chown"),
    }
    .details(details)
}

async fn key(context: &Context) -> CheckItem {
    const NAME: &str = "key";
    match lock::show(context, ShowLock {}).await {
        Err(failure) => failed(NAME, &failure),
        Ok(status) if status.change_pending => {
            CheckItem::new(NAME, Verdict::Warning, format!("{}; a change of it was broken off", status.source))
                .hint("the next start brings it to an end: flm proxy stop --all, then flm proxy start")
        }
        Ok(status) => CheckItem::new(NAME, Verdict::Fine, status.source.to_string()).details(vec![format!(
            "{}, fingerprint {}",
            escape(&status.key_file),
            status.fingerprint.unwrap_or_default()
        )]),
    }
}

fn writable(context: &Context) -> CheckItem {
    const NAME: &str = "changes";
    let reasons = [context.stores.config.read_only(), context.stores.security.read_only()];
    match reasons.into_iter().flatten().next() {
        None => CheckItem::new(NAME, Verdict::Fine, "both databases can be written"),
        Some(reason) => CheckItem::new(NAME, Verdict::Failed, format!("read-only: {}", escape(&reason)))
            .code(ErrorCode::ReadOnly)
            .hint("existing keys are still served; free disk space or restore a backup (flm security backup list), then restart"),
    }
}

async fn database(context: &Context, contents: Contents) -> CheckItem {
    let name = backup::name_of(contents);
    let path: PathBuf = match contents {
        Contents::Settings => context.paths.config_db.clone(),
        Contents::Security => context.paths.security_db.clone(),
    };
    let key: Option<DatabaseKey> = match contents {
        Contents::Settings => None,
        Contents::Security => Some(context.stores.security.key().clone()),
    };
    let work = move |_told: Told<'_>, stop: &Arc<AtomicBool>| {
        let size = files::size(&path)?;
        let database = DatabaseFile { path: &path, contents, key: key.as_ref() };
        Ok((database.inspect(ReadAccess::Live, stop)?, size))
    };
    // Whoever asked may leave: a large database is looked through for minutes.
    let found = backup::while_awaited("looking through a database", |_progress| {}, work).await;
    let (found, size) = match found {
        Ok(found) => found,
        Err(failure) => return failed(name, &failure),
    };
    let known = newest_schema(contents);
    let schema = format!("schema version {} of {known}, {} KB", found.schema, size.div_ceil(1024));
    match found.faults.first() {
        Some(fault) => CheckItem::new(name, Verdict::Failed, format!("damaged: {}", escape(fault)))
            .code(ErrorCode::DbError)
            .details(found.faults.clone())
            .hint("restore the last good backup: flm security backup list"),
        None if found.schema < known => {
            CheckItem::new(name, Verdict::Warning, schema).hint("its migration failed: see changes")
        }
        None => CheckItem::new(name, Verdict::Fine, format!("sound, {schema}")),
    }
}

async fn audit_chain(context: &Context) -> CheckItem {
    const NAME: &str = "audit chain";
    match audit_log::verify(context, VerifyAudit {}).await {
        Err(failure) => failed(NAME, &failure),
        Ok(verdict) => match verdict.broken_at {
            None => {
                CheckItem::new(NAME, Verdict::Fine, format!("{} rows, the chain is whole", verdict.rows)).details(vec![
                    format!("{} rows are archived", verdict.archived),
                    format!("{} heads of the daemon's log and of backups fit", verdict.heads),
                ])
            }
            Some((row, why)) => CheckItem::new(
                NAME,
                Verdict::Failed,
                format!("does not fit at row {row}: {}", escape(&why)),
            )
            .code(ErrorCode::DbError)
            .hint("somebody or something changed security.db outside FLM: keep a copy of the file before you go on"),
        },
    }
}

fn audit_writer(context: &Context) -> CheckItem {
    const NAME: &str = "audit writer";
    let health = context.audit.health();
    let item = match health.failing {
        Some(why) => CheckItem::new(NAME, Verdict::Failed, format!("cannot write: {}", escape(&why)))
            .code(ErrorCode::DbError)
            .hint("it goes on trying; free disk space or look at the disk"),
        None if health.shed + health.unwritten > 0 => CheckItem::new(
            NAME,
            Verdict::Warning,
            format!("{} events were shed and {} could not be written", health.shed, health.unwritten),
        )
        .hint("more came than can be written, or the disk was full; the log says when"),
        None => CheckItem::new(NAME, Verdict::Fine, "writes every event"),
    };
    item.details(vec![format!("newest row {}", context.audit.head().sequence)])
}

async fn security_policy(context: &Context) -> CheckItem {
    match policy::stored(context).await {
        Ok(_policy) => CheckItem::new("security policy", Verdict::Fine, "can be read whole"),
        Err(failure) => failed("security policy", &failure),
    }
}

fn settings(context: &Context) -> CheckItem {
    const NAME: &str = "settings";
    if let Some(fault) = context.settings.fault() {
        return CheckItem::new(NAME, Verdict::Failed, format!("the last reload was refused: {}", escape(&fault)))
            .code(ErrorCode::ProxyInvalidConfig)
            .hint("mend it, then: flm proxy reload --all");
    }
    let settings = context.settings.load();
    let restart = context.settings.needing_restart();
    match settings.warnings() {
        [] if restart.is_empty() => CheckItem::new(NAME, Verdict::Fine, "all can be read"),
        [] => CheckItem::new(NAME, Verdict::Warning, format!("in force only after a restart: {}", restart.join(", ")))
            .hint("flm proxy stop --all, then flm proxy start"),
        warnings @ [first, ..] => CheckItem::new(NAME, Verdict::Warning, format!("not used: {}", escape(first)))
            .details(warnings.iter().map(|warning| escape(warning).into_owned()).collect())
            .hint("set it anew: flm config set KEY VALUE, or take it out: flm config unset KEY"),
    }
}

fn disk_space(paths: &HomePaths) -> CheckItem {
    const NAME: &str = "disk space";
    let free = match files::free_space(&paths.data_dir) {
        Ok(free) => free,
        Err(error) => return failed(NAME, &error.into()),
    };
    let finding = format!("{} MB are free for {}", free >> 20, escape(&paths.data_dir.to_string_lossy()));
    let hint = "free some space, or move the home to a larger disk; the audit log is kept within audit.size";
    match free {
        ..SPACE_NEEDED => CheckItem::new(NAME, Verdict::Failed, finding).code(ErrorCode::IoError).hint(hint),
        SPACE_NEEDED..SPACE_WARNED => CheckItem::new(NAME, Verdict::Warning, finding).hint(hint),
        _ => CheckItem::new(NAME, Verdict::Fine, finding),
    }
}

async fn backups(context: &Context) -> CheckItem {
    const NAME: &str = "backups";
    let listing = match backup::list(context, ListBackups {}).await {
        Ok(listing) => listing,
        Err(failure) => return failed(NAME, &failure),
    };
    let details = listing.backups.iter().map(|backup| escape(&backup.path).into_owned()).collect();
    let make = "make one: flm security backup create";
    let item = if let Some((path, why)) = listing.unreadable.first() {
        CheckItem::new(NAME, Verdict::Warning, format!("{} cannot be read: {}", escape(path), escape(why)))
            .hint("remove it, or put it back from a copy")
    } else if let Some(newest) = listing.backups.first() {
        let age = context.clock.wall().since(newest.manifest.made);
        if !newest.opens {
            CheckItem::new(NAME, Verdict::Warning, "the newest was made under another key").hint(make)
        } else if age > BACKUP_AGE {
            CheckItem::new(NAME, Verdict::Warning, format!("the newest is {} days old", age.as_secs() / 86_400))
                .hint(make)
        } else {
            let finding = format!("{} kept, the newest {} hours old", listing.backups.len(), age.as_secs() / 3600);
            CheckItem::new(NAME, Verdict::Fine, finding)
        }
    } else if context.live.is_some() {
        CheckItem::new(NAME, Verdict::Fine, "none yet; the proxy makes one a day").hint(make)
    } else {
        CheckItem::new(NAME, Verdict::Warning, "none").hint(make)
    };
    item.details(details)
}

async fn listeners(context: &Context) -> Vec<CheckItem> {
    if let Some(live) = &context.live {
        let running = live.host.status().listeners;
        if running.is_empty() {
            return vec![CheckItem::new("ports", Verdict::Skipped, "the proxy runs without a listener")];
        }
        return running.iter().map(running_listener).collect();
    }
    let stored = match context.stores.config.listeners().await {
        Ok(stored) => stored,
        Err(error) => return vec![failed("ports", &error.into())],
    };
    let look = move || stored.iter().flat_map(free_ports).collect::<Vec<_>>();
    let items = tokio::task::spawn_blocking(look).await.unwrap_or_default();
    if items.is_empty() { vec![CheckItem::new("ports", Verdict::Skipped, "no listener is stored")] } else { items }
}

fn running_listener(listener: &ListenerStatus) -> CheckItem {
    let name = format!("port {}", listener.config.port);
    match &listener.phase {
        ListenerPhase::Running => {
            CheckItem::new(name, Verdict::Fine, format!("serves {}", listener.addresses.join(", ")))
        }
        ListenerPhase::Obtaining => CheckItem::new(name, Verdict::Warning, "waits for its first certificate")
            .hint("flm security certificate status tells how far it is"),
        ListenerPhase::Draining { .. } => CheckItem::new(name, Verdict::Warning, "is being stopped"),
        ListenerPhase::Stopped => CheckItem::new(name, Verdict::Warning, "is stopped").hint("flm proxy start"),
        ListenerPhase::Failed { reason } => {
            CheckItem::new(name, Verdict::Failed, escape(reason)).hint("flm proxy start")
        }
    }
}

/// Whether the ports of a stored listener are free: nobody serves it now.
fn free_ports(config: &ListenerConfig) -> Vec<CheckItem> {
    let ports = std::iter::once(config.port).chain(config.https_port).filter(|port| *port != 0);
    let look = |port| {
        let name = format!("port {port}");
        match TcpListener::bind(SocketAddr::new(config.bind, port)) {
            Ok(_free_again) => CheckItem::new(name, Verdict::Fine, "is free for the stored listener"),
            Err(error) => {
                let who = holder_of_port(port).map_or_else(
                    || error.to_string(),
                    |holder| format!("{} (process {}) holds it", escape(&holder.program), holder.pid),
                );
                CheckItem::new(name, Verdict::Failed, format!("cannot be used: {who}"))
                    .code(ErrorCode::ProxyPortInUse)
                    .hint("end that program, or choose another port: flm proxy start --port N")
            }
        }
    };
    ports.map(look).collect()
}

fn certificates(context: &Context) -> CheckItem {
    const NAME: &str = "certificates";
    let Some(live) = &context.live else {
        return CheckItem::new(NAME, Verdict::Skipped, "no proxy runs; they are read when a listener starts");
    };
    let now = context.clock.wall();
    let mut served = Vec::new();
    for listener in live.host.status().listeners {
        let Some(tls) = listener.tls else { continue };
        let port = listener.config.https_port.unwrap_or(listener.config.port);
        let Some(certificate) = tls.certificate else {
            let why = tls.last_error.or(tls.progress).unwrap_or_else(|| "none yet".to_owned());
            return CheckItem::new(NAME, Verdict::Failed, format!("port {port} has none: {}", escape(&why)))
                .code(ErrorCode::ProxyCertFailed)
                .hint("see flm proxy status");
        };
        let left = certificate.not_after.since(now);
        let finding = format!("port {port}: {}", ends(certificate.not_after, now));
        if left.is_zero() {
            return CheckItem::new(NAME, Verdict::Failed, finding)
                .code(ErrorCode::ProxyCertFailed)
                .hint("flm proxy reload");
        }
        if let Some(error) = tls.last_error {
            return CheckItem::new(
                NAME,
                Verdict::Warning,
                format!("{finding}; it could not be renewed: {}", escape(&error)),
            )
            .hint("see flm proxy status; it is tried again");
        }
        if left < CERTIFICATE_LEFT && tls.next_renewal.is_none() {
            return CheckItem::new(NAME, Verdict::Warning, finding)
                .hint("renew it; the files are read again when they change");
        }
        served.push(finding);
    }
    match served.as_slice() {
        [] => CheckItem::new(NAME, Verdict::Skipped, "no listener has TLS"),
        [first, ..] => CheckItem::new(NAME, Verdict::Fine, first.clone()).details(served.clone()),
    }
}

fn ends(at: UnixMillis, now: UnixMillis) -> String {
    match at.since(now).as_secs() / 86_400 {
        0 if at <= now => "it has ended".to_owned(),
        0 => "it ends within a day".to_owned(),
        days => format!("it ends in {days} days"),
    }
}
