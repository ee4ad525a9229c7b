//! Changing the key of `security.db` (SPEC §2 `flm security rekey`, §5.12).
//!
//! Called by `control::offline`, which holds the home's lock: nobody has the databases open. The steps are a list, so
//! that a test can cut them off after each: whenever this is killed, the old key or the new one opens the database, and
//! `unlock` knows which. Must never write into the database that is there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::backup::{self, Originals, Plan, Told};
use super::unlock::{self, PassphraseFile, pending, rekeyed, retired, shown};
use crate::config::files;
use crate::config::paths::{HomePaths, KeyOrigin};
use crate::guard::passphrase::Stretching;
use crate::storage::{Adoption, Contents, DatabaseFile, DatabaseKey, ReadAccess, newest_schema};
use crate::types::calls::backup::{BackupProgress, BackupReason, BackupStage, KeySource, NewKey, Rekeyed};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;

/// A change of the key.
#[derive(Debug, Clone)]
pub struct Rekeying {
    /// Where the new key comes from.
    pub to: NewKey,
    /// The passphrase of this home, when it has one.
    pub passphrase: Option<Secret>,
}

/// Whether this home's key may be changed to a passphrase or a key file. Before anybody types one.
///
/// # Errors
/// `INVALID_ARGUMENT` when the key is not FLM's to write.
pub fn may_change(paths: &HomePaths, passphrase: bool) -> Outcome<()> {
    match paths.key_origin {
        KeyOrigin::Credential => Err(Failure::new(
            ErrorCode::InvalidArgument,
            "the key comes from the systemd credential flm-db-key, which FLM cannot write",
        )
        .hint(
            "stop the unit, decrypt the key into a file (systemd-creds decrypt), change it with \
             FLM_DB_KEY_FILE=FILE flm security rekey, and encrypt the file again (systemd-creds encrypt)",
        )),
        KeyOrigin::Variable if passphrase => Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("the key comes from {}, which FLM_DB_KEY_FILE names", shown(&paths.key_file)),
        )
        .hint("move that file to keys/security.key in the home, unset FLM_DB_KEY_FILE, and try again")),
        _ => Ok(()),
    }
}

/// Changes the key of a home that nobody has open; `hold` is what keeps it so.
///
/// # Errors
/// `INVALID_ARGUMENT` when the key is not FLM's to write, `CANCELLED`, a full disk, or that the database cannot be
/// opened. The old key opens it then.
pub async fn rekey(
    paths: &HomePaths,
    rekeying: Rekeying,
    now: UnixMillis,
    tell: impl FnMut(BackupProgress) + Send + 'static,
    hold: impl Send + 'static,
) -> Outcome<Rekeyed> {
    let paths = paths.clone();
    let work = move |told: Told<'_>, stop: &Arc<AtomicBool>| {
        // Until the work ends, also when nobody waits for it any more.
        let _held = hold;
        run(&paths, &rekeying, now, told, stop)
    };
    backup::while_awaited("changing the key", tell, work).await
}

fn run(
    paths: &HomePaths,
    rekeying: &Rekeying,
    now: UnixMillis,
    told: Told<'_>,
    stop: &Arc<AtomicBool>,
) -> Outcome<Rekeyed> {
    may_change(paths, matches!(rekeying.to, NewKey::Passphrase(_)))?;
    if let NewKey::Passphrase(passphrase) = &rekeying.to {
        backup::check_passphrase(passphrase)?;
    }
    let old = unlock::unlock(paths, rekeying.passphrase.as_ref())?;
    let mut change = Change { paths, old: old.key, stop, new: None };
    change.check_schema()?;
    let folder = paths.backups_dir();
    let plan = Plan { folder: &folder, reason: BackupReason::BeforeRekey, now, seal_under: None };
    backup::write(&Originals { paths, key: &change.old }, &plan, told, stop)?;
    for step in STEPS {
        let done = step(&mut change, &rekeying.to, told);
        if let Err(failure) = done {
            change.give_up();
            return Err(failure);
        }
    }
    // From here on the database is under the new key. What fails now, the next start does.
    let source = change.promote(&rekeying.to).map_err(|failure| Failure {
        message: format!(
            "{} is under the new key, which the next start puts in its place: {}",
            shown(&paths.security_db),
            failure.message
        ),
        ..failure
    })?;
    // Later than the one before, so that it is the newest.
    let plan = Plan { reason: BackupReason::AfterRekey, now: now.plus(Duration::from_millis(1)), ..plan };
    let new = change.new_key()?.clone();
    let after = backup::write(&Originals { paths, key: &new }, &plan, told, stop);
    if let Err(failure) = &after {
        tracing::warn!(%failure, "no backup could be made under the new key");
    }
    let listing = backup::listing(&folder, Some(&new.fingerprint()))?;
    let old_key = (old.source != KeySource::Passphrase).then(|| retired(&paths.key_file));
    Ok(Rekeyed {
        source,
        fingerprint: new.fingerprint(),
        old_key: old_key.map(|file| file.to_string_lossy().into_owned()),
        old_backups: listing.backups.into_iter().filter(|backup| !backup.opens).map(|backup| backup.path).collect(),
        backup: after.ok().map(|backup| backup.path),
    })
}

/// A change of the key on its way.
struct Change<'a> {
    paths: &'a HomePaths,
    old: DatabaseKey,
    stop: &'a Arc<AtomicBool>,
    new: Option<DatabaseKey>,
}

type Step = fn(&mut Change<'_>, &NewKey, Told<'_>) -> Outcome<()>;

/// What is done before the database is under the new key; the last step is the one that counts.
const STEPS: [Step; 4] = [
    |change, to, _told| change.make_key(to),
    |change, _to, told| change.copy(told),
    |change, _to, _told| change.write_back(),
    |change, _to, _told| change.replace(),
];

impl Change<'_> {
    fn check_schema(&self) -> Outcome<()> {
        let database = self.database(&self.old);
        let (found, known) = (database.schema(ReadAccess::Live)?, newest_schema(Contents::Security));
        if found == known {
            return Ok(());
        }
        let path = shown(&self.paths.security_db);
        let what = match found {
            0 => format!("{path} does not exist yet, so it has no key to change"),
            _ => format!("{path} has schema version {found}, and its key can be changed at version {known}"),
        };
        Err(Failure::new(ErrorCode::InvalidArgument, what)
            .hint("start the proxy once with this version: flm proxy start"))
    }

    fn database<'k>(&'k self, key: &'k DatabaseKey) -> DatabaseFile<'k> {
        DatabaseFile { path: &self.paths.security_db, contents: Contents::Security, key: Some(key) }
    }

    fn new_key(&self) -> Outcome<&DatabaseKey> {
        self.new.as_ref().ok_or_else(|| Failure::new(ErrorCode::Internal, "the new key was not made"))
    }

    /// Lays the new key, or how it is made, beside the old one.
    fn make_key(&mut self, to: &NewKey) -> Outcome<()> {
        let key_file = &self.paths.key_file;
        self.new = Some(match to {
            NewKey::KeyFile => {
                let key = DatabaseKey::random(key_file)?;
                key.write(&pending(key_file))?;
                key
            }
            NewKey::Passphrase(passphrase) => {
                let (stretching, place) = (Stretching::new(backup::random_salt()?), self.paths.passphrase_file());
                let bytes = stretching.stretch(passphrase.expose()).map_err(|fault| {
                    Failure::new(ErrorCode::Internal, format!("the passphrase could not be used: {fault}"))
                })?;
                let key = DatabaseKey::from_bytes(bytes, &place);
                PassphraseFile { stretching, fingerprint: key.fingerprint() }.write(&pending(&place))?;
                key
            }
        });
        Ok(())
    }

    /// Copies the database under the new key and looks through the copy.
    fn copy(&mut self, told: Told<'_>) -> Outcome<()> {
        let new = self.new_key()?;
        let path = rekeyed(&self.paths.security_db);
        files::remove(&path)?;
        let copy = DatabaseFile { path: &path, contents: Contents::Security, key: Some(new) };
        let stage = BackupStage::Security;
        let mut tell = |done, total| told(BackupProgress { stage, done, total });
        self.database(&self.old).copy_to(&copy, ReadAccess::Live, &mut tell)?;
        copy.adopt(&Adoption { chain_key: Some(self.old.chain_key()), revoked: Vec::new() })?;
        let found = copy.inspect(ReadAccess::Finished, self.stop)?;
        match found.faults.first() {
            None => Ok(()),
            Some(fault) => Err(Failure::new(
                ErrorCode::DbError,
                format!("{} is damaged, so its key was not changed: {fault}", shown(&self.paths.security_db)),
            )
            .hint("restore a backup first: flm security backup list")),
        }
    }

    /// Leaves nothing of the old database outside its file: a log that stayed would be replayed into the new one.
    fn write_back(&mut self) -> Outcome<()> {
        self.database(&self.old).write_back()?;
        for suffix in ["-wal", "-shm"] {
            let mut file = self.paths.security_db.clone().into_os_string();
            file.push(suffix);
            files::remove(&PathBuf::from(file))?;
        }
        Ok(())
    }

    /// The moment of the change: one rename.
    fn replace(&mut self) -> Outcome<()> {
        Ok(files::put_in_place(&rekeyed(&self.paths.security_db), &self.paths.security_db)?)
    }

    fn promote(&self, to: &NewKey) -> Outcome<KeySource> {
        let source = match to {
            NewKey::Passphrase(_) => KeySource::Passphrase,
            NewKey::KeyFile => KeySource::KeyFile,
        };
        unlock::promote(self.paths, source)?;
        unlock::source(self.paths)
    }

    /// Throws away what was made; only litter stays where that fails, which the next start removes.
    fn give_up(&self) {
        for file in
            [rekeyed(&self.paths.security_db), pending(&self.paths.key_file), pending(&self.paths.passphrase_file())]
        {
            let _litter = files::remove(&file);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::operations::backup::tests::{TestHome, add_key, back_up};
    use crate::operations::lock;
    use crate::operations::restore;
    use crate::types::calls::backup::{CreateBackup, LockState, Restoration};

    const PASSPHRASE: &str = "correct horse battery";

    fn passphrase() -> Secret {
        Secret::new(PASSPHRASE.into())
    }

    async fn change(home: &TestHome, to: NewKey, typed: Option<Secret>) -> Outcome<Rekeyed> {
        let rekeying = Rekeying { to, passphrase: typed };
        rekey(&home.paths, rekeying, UnixMillis(1_000_000), |_progress| {}, ()).await
    }

    async fn used_home() -> TestHome {
        let home = TestHome::new();
        let context = home.open().await;
        add_key(&context, "one").await;
        context.close().await;
        home
    }

    fn fingerprint(home: &TestHome) -> String {
        DatabaseKey::read(&home.paths.key_file).expect("reads").0.fingerprint()
    }

    #[tokio::test]
    async fn a_new_key_opens_everything_and_the_chain_is_whole() {
        let home = used_home().await;
        let old = fingerprint(&home);
        let rekeyed = change(&home, NewKey::KeyFile, None).await.expect("changes");
        assert_eq!(rekeyed.fingerprint, fingerprint(&home));
        assert_ne!(rekeyed.fingerprint, old);
        assert_eq!(home.labels(None).await, ["one"], "and rows from before and after verify");
        let context = home.open().await;
        add_key(&context, "two").await;
        context.close().await;
        assert_eq!(home.labels(None).await, ["two", "one"]);

        // A backup from before is restored with the old key, which is kept, and comes under the new one.
        assert_eq!(rekeyed.old_backups.len(), 1);
        let newest = backup::listing(&home.paths.backups_dir(), Some(&rekeyed.fingerprint)).expect("lists").backups;
        assert_eq!((newest[0].opens, Some(&newest[0].path)), (true, rekeyed.backup.as_ref()));
        let restoration = Restoration { backup: rekeyed.old_backups[0].clone().into(), ..Restoration::default() };
        let restored = restore::restore(&home.paths, restoration, UnixMillis(2_000_000), |_| {}, ()).await;
        assert!(restored.expect("restores").rekeyed);
        assert_eq!(home.labels(None).await, ["one"]);
    }

    #[tokio::test]
    async fn a_passphrase_takes_the_place_of_the_key_file_and_back() {
        let home = used_home().await;
        let rekeyed = change(&home, NewKey::Passphrase(passphrase()), None).await.expect("changes");
        assert_eq!(rekeyed.source, KeySource::Passphrase);
        assert!(!home.paths.key_file.exists());
        assert!(unlock::passphrase_wanted(&home.paths).expect("looks"));
        assert!(matches!(lock::closed(&home.paths).expect("looks").state, LockState::Locked));
        for wrong in [None, Some("something else")] {
            let failure = home.open_with(wrong).await.err().expect("locked");
            assert_eq!(failure.code, ErrorCode::InvalidArgument);
            assert!(failure.message.contains("passphrase"), "{}", failure.message);
        }
        assert_eq!(home.labels(Some(PASSPHRASE)).await, ["one"]);
        // A service gets it handed over, with the line end that an editor left.
        let mut served = TestHome { paths: home.paths.clone(), folder: tempfile::tempdir().expect("folder") };
        let credential = served.folder.path().join("flm-db-passphrase");
        files::replace(&credential, format!("{PASSPHRASE}\n").as_bytes(), files::Audience::Owner).expect("writes");
        served.paths.passphrase_credential = Some(credential);
        assert!(!unlock::passphrase_wanted(&served.paths).expect("looks"));
        assert_eq!(served.labels(None).await, ["one"]);

        // Its backups open with the passphrase, also where nothing else is known.
        let context = home.open_with(Some(PASSPHRASE)).await.expect("opens");
        let backup = back_up(&context, CreateBackup::default()).await.expect("backs up").path;
        context.close().await;
        let other = TestHome::new();
        other.paths.prepare().expect("prepares");
        let restoration =
            Restoration { backup: backup.into(), backup_passphrase: Some(passphrase()), ..Restoration::default() };
        restore::restore(&other.paths, restoration, UnixMillis(2_000_000), |_| {}, ()).await.expect("restores");
        assert_eq!(other.labels(None).await, ["one"]);

        let rekeyed = change(&home, NewKey::KeyFile, Some(passphrase())).await.expect("changes back");
        assert_eq!(rekeyed.source, KeySource::KeyFile);
        assert_eq!(home.labels(None).await, ["one"]);
    }

    #[tokio::test]
    async fn a_kill_after_any_step_leaves_a_home_that_opens() {
        // What stands after the steps of `STEPS`, and after each rename of `promote`.
        for (to, typed) in [(NewKey::KeyFile, None), (NewKey::Passphrase(passphrase()), Some(PASSPHRASE))] {
            for steps in 0..=STEPS.len() {
                let home = used_home().await;
                let old = fingerprint(&home);
                let (paths, to) = (home.paths.clone(), to.clone());
                let work = move || {
                    let key = unlock::unlock(&paths, None).expect("opens").key;
                    let stop = Arc::default();
                    let mut change = Change { paths: &paths, old: key, stop: &stop, new: None };
                    for step in &STEPS[..steps] {
                        step(&mut change, &to, &mut |_| ControlFlow::Continue(())).expect("goes on");
                    }
                };
                tokio::task::spawn_blocking(work).await.expect("runs");
                let changed = steps == STEPS.len();
                assert_eq!(home.labels(if changed { typed } else { None }).await, ["one"], "after {steps} steps");
                let status = lock::closed(&home.paths).expect("looks");
                assert!(!status.change_pending, "after {steps} steps");
                match (changed, typed) {
                    (true, Some(_)) => assert_eq!(status.source, KeySource::Passphrase),
                    (true, None) => assert_ne!(fingerprint(&home), old),
                    (false, _) => assert_eq!(fingerprint(&home), old),
                }
                if changed {
                    assert_eq!(home.labels(typed).await, ["one"], "and again");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_kill_between_the_renames_of_the_key_is_brought_to_an_end() {
        // Key file retired, new one not yet in its place.
        let home = used_home().await;
        change(&home, NewKey::KeyFile, None).await.expect("changes");
        files::rename(&home.paths.key_file, &pending(&home.paths.key_file)).expect("undoes the last rename");
        assert_eq!(home.labels(None).await, ["one"]);
        // Passphrase in place, old key file not yet retired.
        change(&home, NewKey::Passphrase(passphrase()), None).await.expect("changes");
        files::rename(&retired(&home.paths.key_file), &home.paths.key_file).expect("undoes the last rename");
        assert_eq!(home.labels(Some(PASSPHRASE)).await, ["one"]);
        assert!(!home.paths.key_file.exists());
    }

    #[tokio::test]
    async fn a_change_that_is_broken_off_leaves_the_old_key() {
        let home = used_home().await;
        let old = fingerprint(&home);
        let paths = home.paths.clone();
        let work = move || {
            let rekeying = Rekeying { to: NewKey::KeyFile, passphrase: None };
            let mut security = 0;
            let mut told = |progress: BackupProgress| {
                // The first copies are the backup's.
                security += u32::from(progress.stage == BackupStage::Security);
                if security > 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            run(&paths, &rekeying, UnixMillis(1_000_000), &mut told, &Arc::default())
        };
        let failure = tokio::task::spawn_blocking(work).await.expect("runs").expect_err("is broken off");
        assert_eq!(failure.code, ErrorCode::Cancelled);
        assert_eq!(fingerprint(&home), old);
        assert!(!lock::closed(&home.paths).expect("looks").change_pending);
        assert_eq!(home.labels(None).await, ["one"]);
    }

    #[tokio::test]
    async fn a_key_that_is_not_flms_to_write_is_refused() {
        let mut home = used_home().await;
        home.paths.key_origin = KeyOrigin::Credential;
        let failure = change(&home, NewKey::KeyFile, None).await.expect_err("refused");
        assert!(failure.hint.expect("hint").contains("systemd-creds"));
        home.paths.key_origin = KeyOrigin::Variable;
        let failure = change(&home, NewKey::Passphrase(passphrase()), None).await.expect_err("refused");
        assert!(failure.hint.expect("hint").contains("FLM_DB_KEY_FILE"));
        change(&home, NewKey::KeyFile, None).await.expect("a named file is rewritten");
    }
}
