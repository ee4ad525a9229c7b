//! Where the key of `security.db` comes from, whether it is open, and who may use the files of a home (SPEC §2
//! `flm security lock-status`, §5.12).
//!
//! Called with an owner and without one, also when the databases cannot be opened. Must never repair anything: starting
//! does, and this tells what it would find.

use std::path::{Path, PathBuf};

use super::context::{Context, blocking_panicked};
use super::unlock::{self, PassphraseFile, pending, rekeyed};
use crate::config::files::{self, PRIVATE_DIR, PRIVATE_FILE};
use crate::config::paths::{HomePaths, KeyOrigin};
use crate::storage::{Contents, DatabaseFile, DatabaseKey};
use crate::types::calls::backup::{GuardedFile, KeySource, LockState, LockStatus, ShowLock};
use crate::types::failure::Outcome;

/// The state of a home whose databases are open.
///
/// # Errors
/// When the files cannot be looked at.
pub async fn show(context: &Context, _call: ShowLock) -> Outcome<LockStatus> {
    let (paths, key) = (context.paths.clone(), context.stores.security.key().clone());
    let read_only = context.stores.security.read_only();
    let state = match &context.live {
        Some(live) => LockState::Open { pid: live.host.status().pid },
        None => LockState::Ready,
    };
    let work = move || {
        let mut status = describe(&paths, state)?;
        status.fingerprint = Some(key.fingerprint());
        status.read_only = read_only;
        Ok(status)
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| blocking_panicked("looking at the key"))?
}

/// The state of a home that nobody has open. Opens nothing that a passphrase locks. Blocks.
///
/// # Errors
/// When the files cannot be looked at.
pub fn closed(paths: &HomePaths) -> Outcome<LockStatus> {
    let mut status = describe(paths, LockState::Absent)?;
    let database = |key| DatabaseFile { path: &paths.security_db, contents: Contents::Security, key: Some(key) };
    let exists = files::exists(&paths.security_db)? && files::size(&paths.security_db)? > 0;
    if status.source == KeySource::Passphrase {
        status.fingerprint = PassphraseFile::read(&paths.passphrase_file()).ok().map(|file| file.fingerprint);
        status.state = if exists { LockState::Locked } else { LockState::Absent };
        return Ok(status);
    }
    let failing = |reason: String| LockState::Failing { reason };
    let key = if files::exists(&paths.key_file)? { Some(DatabaseKey::read(&paths.key_file)) } else { None };
    status.state = match (&key, exists) {
        (None | Some(Ok(_)), false) => LockState::Absent,
        (None, true) => failing("its key file does not exist".to_owned()),
        (Some(Err(error)), _) => failing(error.to_string()),
        (Some(Ok((key, _))), true) => match database(key).opens() {
            Ok(true) => LockState::Ready,
            Ok(false) if status.change_pending => {
                failing("a change of the key was broken off: the next start brings it to an end".to_owned())
            }
            Ok(false) => failing("the key does not open it, or it is damaged".to_owned()),
            Err(error) => failing(error.to_string()),
        },
    };
    status.fingerprint = key.and_then(Result::ok).map(|(key, _)| key.fingerprint());
    Ok(status)
}

fn describe(paths: &HomePaths, state: LockState) -> Outcome<LockStatus> {
    let source = unlock::source(paths)?;
    let key_file = match source {
        KeySource::Passphrase => paths.passphrase_file(),
        _ => paths.key_file.clone(),
    };
    let leftovers = [pending(&paths.key_file), pending(&paths.passphrase_file()), rekeyed(&paths.security_db)];
    let mut change_pending = false;
    for file in &leftovers {
        change_pending |= files::exists(file)?;
    }
    Ok(LockStatus {
        database: text(&paths.security_db),
        source,
        key_file: text(&key_file),
        fingerprint: None,
        state,
        read_only: None,
        change_pending,
        files: guarded_files(paths)?,
    })
}

/// Files and folders with secrets that are there.
///
/// # Errors
/// When one cannot be looked at.
pub(super) fn guarded_files(paths: &HomePaths) -> Outcome<Vec<GuardedFile>> {
    let folders = [paths.data_dir.clone(), paths.run_dir.clone(), paths.keys_dir(), paths.backups_dir()];
    let mut found = Vec::new();
    for folder in folders {
        found.extend(guarded(&folder, PRIVATE_DIR)?);
    }
    let mut secret = vec![paths.passphrase_file(), paths.socket()];
    // A credential is systemd's: root owns it, and its folder guards it.
    if paths.key_origin != KeyOrigin::Credential {
        secret.push(paths.key_file.clone());
        secret.push(unlock::retired(&paths.key_file));
    }
    for database in [&paths.config_db, &paths.security_db] {
        for suffix in ["", "-wal", "-shm"] {
            let mut file = database.clone().into_os_string();
            file.push(suffix);
            secret.push(PathBuf::from(file));
        }
    }
    for file in secret {
        found.extend(guarded(&file, PRIVATE_FILE)?);
    }
    Ok(found)
}

fn guarded(path: &Path, allowed: u32) -> Outcome<Option<GuardedFile>> {
    const ROOT: u32 = 0;
    let Some(found) = files::ownership(path)? else { return Ok(None) };
    let fault = if found.owner != found.me && found.owner != ROOT && found.me != ROOT {
        Some(format!("it belongs to user {}, and FLM runs as user {}", found.owner, found.me))
    } else if found.mode & 0o777 & !allowed != 0 {
        Some(format!("other users can use it: it should be {allowed:04o}"))
    } else {
        None
    };
    Ok(Some(GuardedFile { path: text(path), mode: format!("{:04o}", found.mode), fault }))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
