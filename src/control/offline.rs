//! What takes a home without an owner: restoring a backup, changing the key of `security.db`; and what tells of a home
//! whose databases cannot be opened.
//!
//! Called by `cli`. Holds the home's lock from the first look to the audit row, so that nobody opens what is about to be
//! replaced. Must never run beside an owner.

use std::sync::Arc;

use super::ownership::{self, Claim, OwnerLock};
use super::request::Home;
use crate::config::paths::HomePaths;
use crate::operations::context::{Context, ContextOptions};
use crate::operations::rekey::Rekeying;
use crate::operations::{backup, check, lock, rekey, restore, unlock};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::backup::{
    BackupListing, BackupProgress, LockStatus, NewKey, Rekeyed, Restoration, RestoredBackup,
};
use crate::types::calls::check::CheckReport;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;
use crate::types::text::escape;

/// Lines of progress that wait for the front end.
const LANE: usize = 16;

/// Whether somebody has to type a passphrase before the databases of a home without an owner are opened.
///
/// # Errors
/// When its folder of keys cannot be looked at.
pub fn passphrase_wanted(paths: &HomePaths) -> Outcome<bool> {
    unlock::passphrase_wanted(paths)
}

/// Whether a backup opens only with a passphrase of its own.
///
/// # Errors
/// When it is no backup.
pub fn backup_passphrase_wanted(paths: &HomePaths, restoration: &Restoration) -> Outcome<bool> {
    restore::wants_passphrase(paths, restoration)
}

/// Whether the key may be changed, before anybody types a passphrase.
///
/// # Errors
/// When it is not FLM's to write, or somebody owns the home.
pub async fn may_rekey(paths: &HomePaths, to_passphrase: bool) -> Outcome<()> {
    refuse_owned(paths).await?;
    rekey::may_change(paths, to_passphrase)
}

/// Fails when somebody owns the home.
///
/// # Errors
/// `PROXY_ALREADY_RUNNING`.
pub async fn refuse_owned(paths: &HomePaths) -> Outcome<()> {
    match ownership::connect(paths).await? {
        None => Ok(()),
        Some(_connection) => Err(owned()),
    }
}

/// Restores a backup. Dropping the future before the databases are replaced leaves everything as it was.
///
/// # Errors
/// `PROXY_ALREADY_RUNNING` when somebody owns the home; of the backup and the disk.
pub async fn restore(
    home: &Home,
    restoration: Restoration,
    tell: impl FnMut(BackupProgress) + Send + 'static,
) -> Outcome<RestoredBackup> {
    let lock = take(&home.paths).await?;
    let passphrase = restoration.passphrase.clone();
    let options = ContextOptions { passphrase, ..ContextOptions::from_process() };
    let now = options.clock.wall();
    let restored = restore::restore(&home.paths, restoration, now, tell, lock.clone()).await?;
    let in_place = |failure: Failure| Failure {
        message: format!("the backup is in place, but the home does not open: {}", failure.message),
        ..failure
    };
    let context = Context::open(home.paths.clone(), options).await.map_err(in_place)?;
    let made = jiff::Timestamp::from_millisecond(restored.manifest.made.0).unwrap_or_default();
    let details = format!(
        "the backup {} of {made} took the place of the databases; {} revoked keys stay revoked",
        escape(&restored.path),
        restored.revoked
    );
    context.record(AuditKind::Restored, Severity::High, details).await;
    context.close().await;
    drop(lock);
    Ok(restored)
}

/// Changes the key of `security.db`. Dropping the future before the database is replaced leaves the old key.
///
/// # Errors
/// `PROXY_ALREADY_RUNNING` when somebody owns the home; of the key, the databases and the disk.
pub async fn rekey(
    home: &Home,
    to: NewKey,
    passphrase: Option<Secret>,
    tell: impl FnMut(BackupProgress) + Send + 'static,
) -> Outcome<Rekeyed> {
    let lock = take(&home.paths).await?;
    let next = match &to {
        NewKey::KeyFile => None,
        NewKey::Passphrase(passphrase) => Some(passphrase.clone()),
    };
    let options = ContextOptions { passphrase: next, ..ContextOptions::from_process() };
    let now = options.clock.wall();
    let rekeyed = rekey::rekey(&home.paths, Rekeying { to, passphrase }, now, tell, lock.clone()).await?;
    let context = Context::open(home.paths.clone(), options).await?;
    let details = format!("the key of security.db was changed; it comes from: {}", rekeyed.source);
    context.record(AuditKind::Maintenance, Severity::High, details).await;
    context.close().await;
    drop(lock);
    Ok(rekeyed)
}

/// Where the key comes from, of a home without an owner.
///
/// # Errors
/// When the files cannot be looked at.
pub async fn lock_status(paths: &HomePaths) -> Outcome<LockStatus> {
    let paths = paths.clone();
    blocking(move || lock::closed(&paths)).await?
}

/// The backups of a home, whatever state its databases are in.
///
/// # Errors
/// When their folder cannot be listed.
pub async fn backups(paths: &HomePaths) -> Outcome<BackupListing> {
    let paths = paths.clone();
    blocking(move || backup::list_closed(&paths)).await?
}

/// What can be checked of a home whose databases cannot be opened.
///
/// # Errors
/// Of FLM itself.
pub async fn check(paths: &HomePaths, why: Failure) -> Outcome<CheckReport> {
    let paths = paths.clone();
    blocking(move || check::without_databases(&paths, &why)).await
}

/// Runs one of the two above: hands on how far it is, and Ctrl-C ends it.
///
/// # Errors
/// `CANCELLED`, or the work's own.
pub async fn interruptible<T, W>(
    work: impl FnOnce(Box<dyn FnMut(BackupProgress) + Send>) -> W,
    mut told: impl FnMut(BackupProgress),
) -> Outcome<T>
where
    W: Future<Output = Outcome<T>>,
{
    let (lane, mut progress) = tokio::sync::mpsc::channel(LANE);
    let mut work = std::pin::pin!(work(Box::new(move |progress| {
        // Full: the next tells more.
        let _dropped = lane.try_send(progress);
    })));
    loop {
        tokio::select! {
            biased;
            ended = &mut work => return ended,
            Some(progress) = progress.recv() => told(progress),
            interrupted = tokio::signal::ctrl_c() => {
                return Err(match interrupted {
                    Ok(()) => Failure::new(ErrorCode::Cancelled, "cancelled: the databases are as they were"),
                    Err(error) => {
                        Failure::new(ErrorCode::Internal, format!("the system does not let this command hear Ctrl-C: {error}"))
                    }
                });
            }
        }
    }
}

async fn take(paths: &HomePaths) -> Outcome<Arc<OwnerLock>> {
    match ownership::claim(paths).await? {
        Claim::Free(lock) => Ok(Arc::new(lock)),
        Claim::Owned(_connection) => Err(owned()),
    }
}

fn owned() -> Failure {
    Failure::new(ErrorCode::ProxyAlreadyRunning, "a proxy has the databases of this home open")
        .hint("end it, then try again: flm proxy stop --all")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_panicked| Failure::new(ErrorCode::Internal, "looking at the home failed inside FLM"))
}
