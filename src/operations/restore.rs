//! Restoring a backup: everything is checked first, what it takes the place of is kept (SPEC §5.12).
//!
//! Called by `control::offline`, which holds the home's lock: nobody has the databases open. Must never bring a revoked
//! key back, nor remove what was there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::backup::{self, Told};
use super::manifest::{self, SealedManifest};
use super::unlock::{self, PassphraseFile, shown};
use crate::audit::SignedHead;
use crate::config::files;
use crate::config::paths::HomePaths;
use crate::guard::passphrase::{self, PassphraseFault, Stretching};
use crate::storage::{Adoption, Contents, DatabaseFile, DatabaseKey, ReadAccess, newest_schema};
use crate::types::calls::backup::{
    BackedUpDatabase, BackupManifest, BackupProgress, BackupStage, KeySource, Restoration, RestoredBackup,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Whether a passphrase of the backup's own is needed: no key of this home opens it, and a passphrase does. Blocks.
///
/// # Errors
/// When it is no backup.
pub fn wants_passphrase(paths: &HomePaths, restoration: &Restoration) -> Outcome<bool> {
    let manifest = manifest::read(&folder_of(&restoration.backup)?)?.manifest;
    let key = &manifest.key;
    if restoration.key_file.is_some() || (key.sealed.is_none() && key.passphrase.is_none()) {
        return Ok(false);
    }
    if unlock::source(paths)? == KeySource::Passphrase {
        let ours = PassphraseFile::read(&paths.passphrase_file())?;
        return Ok(ours.fingerprint != key.fingerprint);
    }
    Ok(!own_key_files(paths).iter().any(|file| reads_as(file, &key.fingerprint)))
}

/// Restores a backup into a home that nobody has open; `hold` is what keeps it so.
///
/// # Errors
/// `INVALID_ARGUMENT` for what is no backup, was changed, is of a later version or opens with another key; `DB_ERROR`
/// when it is damaged; `CANCELLED`. The home is as it was then.
pub async fn restore(
    paths: &HomePaths,
    restoration: Restoration,
    now: UnixMillis,
    tell: impl FnMut(BackupProgress) + Send + 'static,
    hold: impl Send + 'static,
) -> Outcome<RestoredBackup> {
    let paths = paths.clone();
    let work = move |told: Told<'_>, stop: &Arc<AtomicBool>| {
        // Until the work ends, also when nobody waits for it any more.
        let _held = hold;
        run(&paths, &restoration, now, told, stop)
    };
    backup::while_awaited("restoring a backup", tell, work).await
}

fn run(
    paths: &HomePaths,
    restoration: &Restoration,
    now: UnixMillis,
    told: Told<'_>,
    stop: &Arc<AtomicBool>,
) -> Outcome<RestoredBackup> {
    let folder = folder_of(&restoration.backup)?;
    let sealed = manifest::read(&folder)?;
    check_schemas(&folder, &sealed.manifest)?;
    let (home_key, is_new) = home_key(paths, restoration)?;
    let backup_key = backup_key(paths, restoration, &sealed.manifest, &home_key)?;
    check_content(&folder, &sealed, &backup_key, told, stop)?;

    let manifest = sealed.manifest;
    check_space(paths, &manifest)?;
    let copies = Copies::of(paths);
    copies.remove()?;
    let prepared = prepare(paths, &folder, &copies, (&backup_key, &home_key), told);
    let (adopted, rekeyed) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            let _litter = copies.remove();
            return Err(failure);
        }
    };
    let kept = put_in_place(paths, &copies, &home_key, is_new, now)?;
    Ok(RestoredBackup {
        path: folder.to_string_lossy().into_owned(),
        manifest,
        kept: kept.map(|folder| folder.to_string_lossy().into_owned()),
        revoked: adopted.unwrap_or(0),
        replaced_readable: adopted.is_some(),
        rekeyed,
    })
}

/// The folder of a backup that is named by itself or by a file in it.
fn folder_of(backup: &Path) -> Outcome<PathBuf> {
    if !files::exists(backup)? {
        return Err(Failure::new(ErrorCode::NotFound, format!("there is no {}", shown(backup)))
            .hint("list the backups with: flm security backup list"));
    }
    let folder = if backup.is_dir() { backup } else { backup.parent().unwrap_or(backup) };
    Ok(folder.to_owned())
}

fn check_schemas(folder: &Path, manifest: &BackupManifest) -> Outcome<()> {
    for (contents, BackedUpDatabase { schema, .. }) in
        [(Contents::Settings, &manifest.config), (Contents::Security, &manifest.security)]
    {
        let known = newest_schema(contents);
        if *schema > known {
            let name = backup::name_of(contents);
            return Err(Failure::new(
                ErrorCode::InvalidArgument,
                format!(
                    "{} was made by FLM {}: its {name} has schema version {schema}, and this version of FLM knows up to {known}",
                    shown(folder),
                    manifest.flm
                ),
            )
            .hint("restore it with that version of FLM or a later one; nothing was changed"));
        }
    }
    Ok(())
}

/// The key that the restored database gets, and whether it has yet to be written.
fn home_key(paths: &HomePaths, restoration: &Restoration) -> Outcome<(DatabaseKey, bool)> {
    let source = unlock::source(paths)?;
    if source != KeySource::Passphrase && !files::exists(&paths.key_file)? {
        // A new machine, or the key file is lost: what is restored gets a new key.
        return Ok((DatabaseKey::random(&paths.key_file)?, true));
    }
    // A change of the key that cannot be brought to an end is over with the restoration.
    unlock::unlock_as_is(paths, restoration.passphrase.as_ref()).map(|unlocked| (unlocked.key, false))
}

fn own_key_files(paths: &HomePaths) -> [PathBuf; 3] {
    [paths.key_file.clone(), unlock::retired(&paths.key_file), unlock::pending(&paths.key_file)]
}

fn reads_as(file: &Path, fingerprint: &str) -> bool {
    file.exists() && DatabaseKey::read(file).is_ok_and(|(key, _)| key.fingerprint() == fingerprint)
}

fn backup_key(
    paths: &HomePaths,
    restoration: &Restoration,
    manifest: &BackupManifest,
    home_key: &DatabaseKey,
) -> Outcome<DatabaseKey> {
    let wanted = &manifest.key.fingerprint;
    if home_key.fingerprint() == *wanted {
        return Ok(home_key.clone());
    }
    if let Some(file) = &restoration.key_file {
        let (key, _) = DatabaseKey::read(file)?;
        if key.fingerprint() == *wanted {
            return Ok(key);
        }
        let what = format!("the key in {} does not open the backup", shown(file));
        return Err(Failure::new(ErrorCode::InvalidArgument, what)
            .hint("name the key file that the home had when the backup was made"));
    }
    if let Some(file) = own_key_files(paths).iter().find(|file| reads_as(file, wanted)) {
        return Ok(DatabaseKey::read(file)?.0);
    }
    let Some(passphrase) = &restoration.backup_passphrase else {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            "the backup was made under another key than this home has",
        )
        .hint("name the key file that it was made under with --key-file FILE; one made --with-key asks for its passphrase on a terminal"));
    };
    let origin = &restoration.backup;
    let refused = |fault: PassphraseFault| {
        Failure::new(ErrorCode::InvalidArgument, format!("the backup's key cannot be had: {fault}"))
            .hint("type the passphrase that the backup was made with; nothing was changed")
    };
    let bytes = match (&manifest.key.sealed, &manifest.key.passphrase) {
        (Some(sealed), _) => passphrase::unseal(sealed, passphrase.expose()).map_err(refused)?,
        (None, Some(how)) => {
            let stretching: Stretching = how.parse().map_err(refused)?;
            stretching.stretch(passphrase.expose()).map_err(refused)?
        }
        (None, None) => return Err(refused(PassphraseFault::Damaged)),
    };
    let key = DatabaseKey::from_bytes(bytes, origin);
    if key.fingerprint() == *wanted { Ok(key) } else { Err(refused(PassphraseFault::Wrong)) }
}

/// Sums, seal, integrity and the audit log's head, before anything is touched.
fn check_content(
    folder: &Path,
    sealed: &SealedManifest,
    key: &DatabaseKey,
    told: Told<'_>,
    stop: &Arc<AtomicBool>,
) -> Outcome<()> {
    let damaged = |what: String| {
        Failure::new(ErrorCode::DbError, format!("{} cannot be restored: {what}", shown(folder)))
            .hint("choose another backup: flm security backup list; nothing was changed")
    };
    if !sealed.is_genuine(key) {
        return Err(damaged("its manifest was changed after it was made".to_owned()));
    }
    let manifest = &sealed.manifest;
    let paths = [folder.join(backup::CONFIG), folder.join(backup::SECURITY)];
    let databases = [
        (DatabaseFile { path: &paths[0], contents: Contents::Settings, key: None }, &manifest.config),
        (DatabaseFile { path: &paths[1], contents: Contents::Security, key: Some(key) }, &manifest.security),
    ];
    for (database, expected) in databases {
        let name = backup::name_of(database.contents);
        let (sha256, bytes) = backup::sum(database.path, told)?;
        if sha256 != expected.sha256 || bytes != expected.bytes {
            return Err(damaged(format!("{name} is not the file that was written (its SHA-256 differs)")));
        }
        let found = database.inspect(ReadAccess::Finished, stop)?;
        if let Some(fault) = found.faults.first() {
            return Err(damaged(format!("{name} is damaged: {fault}")));
        }
        if found.schema != expected.schema {
            return Err(damaged(format!("{name} has schema version {} instead of {}", found.schema, expected.schema)));
        }
    }
    let head = databases[1].0.audit_head(ReadAccess::Finished)?;
    let noted = manifest.audit_head.as_deref().map(str::parse::<SignedHead>).transpose();
    let fits = match (&noted, head) {
        (Ok(Some(noted)), Some((number, code))) => {
            noted.is_of(key) && (noted.head.sequence, noted.head.code) == (number, code)
        }
        (Ok(None), None) => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(damaged("its audit log does not end where the manifest says".to_owned())) }
}

fn check_space(paths: &HomePaths, manifest: &BackupManifest) -> Outcome<()> {
    const SPACE_LEFT: u64 = 16 << 20;
    let needed = manifest.config.bytes + manifest.security.bytes + SPACE_LEFT;
    let free = files::free_space(&paths.data_dir)?;
    if free >= needed {
        return Ok(());
    }
    let what = format!("restoring needs {} MB, and {} MB are free", needed.div_ceil(1 << 20), free >> 20);
    Err(Failure::new(ErrorCode::IoError, what).hint("free some space and try again; nothing was changed"))
}

/// Where the restored databases lie until they take their places.
struct Copies {
    config: PathBuf,
    security: PathBuf,
}

impl Copies {
    fn of(paths: &HomePaths) -> Self {
        let beside = |database: &Path| {
            let mut name = database.as_os_str().to_owned();
            name.push(".restore");
            PathBuf::from(name)
        };
        Self { config: beside(&paths.config_db), security: beside(&paths.security_db) }
    }

    fn remove(&self) -> Outcome<()> {
        files::remove(&self.config)?;
        Ok(files::remove(&self.security)?)
    }
}

/// Copies both databases beside their places. Answers how many keys stay revoked, when that is known, and whether the
/// copy is under another key than the backup.
fn prepare(
    paths: &HomePaths,
    folder: &Path,
    copies: &Copies,
    (backup_key, home_key): (&DatabaseKey, &DatabaseKey),
    told: Told<'_>,
) -> Outcome<(Option<u64>, bool)> {
    let config = folder.join(backup::CONFIG);
    let config = DatabaseFile { path: &config, contents: Contents::Settings, key: None };
    let settings_copy = DatabaseFile { path: &copies.config, ..config };
    let stage = BackupStage::Settings;
    config.copy_to(&settings_copy, ReadAccess::Finished, &mut |done, total| {
        told(BackupProgress { stage, done, total })
    })?;
    let security = folder.join(backup::SECURITY);
    let security = DatabaseFile { path: &security, contents: Contents::Security, key: Some(backup_key) };
    let copy = DatabaseFile { path: &copies.security, key: Some(home_key), ..security };
    let stage = BackupStage::Security;
    security.copy_to(&copy, ReadAccess::Finished, &mut |done, total| told(BackupProgress { stage, done, total }))?;

    let rekeyed = backup_key.fingerprint() != home_key.fingerprint();
    let replaced = DatabaseFile { path: &paths.security_db, contents: Contents::Security, key: Some(home_key) };
    let is_there = files::exists(replaced.path)? && files::size(replaced.path)? > 0;
    let revoked = if is_there { replaced.revocations(ReadAccess::Live).ok() } else { Some(Vec::new()) };
    let known = revoked.is_some();
    let chain_key = rekeyed.then(|| backup_key.chain_key());
    let count = copy.adopt(&Adoption { chain_key, revoked: revoked.unwrap_or_default() })?;
    Ok((known.then_some(count), rekeyed))
}

/// Keeps what is there under a second name and renames the copies over it: at any time each database is a whole one.
fn put_in_place(
    paths: &HomePaths,
    copies: &Copies,
    home_key: &DatabaseKey,
    key_is_new: bool,
    now: UnixMillis,
) -> Outcome<Option<PathBuf>> {
    let time = jiff::Timestamp::from_millisecond(now.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let stamp = time.strftime("%Y%m%d-%H%M%SZ").to_string();
    if key_is_new {
        home_key.write(&paths.key_file)?;
    }
    let mut kept = None;
    let config = DatabaseFile { path: &paths.config_db, contents: Contents::Settings, key: None };
    let security = DatabaseFile { path: &paths.security_db, contents: Contents::Security, key: Some(home_key) };
    for (database, copy) in [(config, &copies.config), (security, &copies.security)] {
        let folder = database.path.parent().unwrap_or(Path::new(".")).join("replaced").join(&stamp);
        if files::exists(database.path)? {
            keep(&database, &folder)?;
            kept = Some(folder);
        }
        files::put_in_place(copy, database.path)?;
    }
    Ok(kept)
}

fn keep(database: &DatabaseFile<'_>, folder: &Path) -> Outcome<()> {
    // A damaged one is kept with its log as it is.
    if let Err(error) = database.write_back() {
        tracing::warn!(%error, "the database that is replaced could not be written back");
    }
    files::private_dir(folder.parent().unwrap_or(folder))?;
    files::private_dir(folder)?;
    let name = |suffix: &str| {
        let mut name = database.path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        name
    };
    files::keep_as(database.path, &folder.join(name("")))?;
    for suffix in ["-wal", "-shm"] {
        // A log that stays would be taken for that of the restored database.
        files::move_to(&database.path.with_file_name(name(suffix)), &folder.join(name(suffix)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::files::Audience;
    use crate::operations::backup::tests::{TestHome, add_key, back_up};
    use crate::operations::keys;
    use crate::types::calls::backup::CreateBackup;
    use crate::types::calls::keys::{CaptureSwitch, EditKey, RevokeKey, ShowKey};
    use crate::types::secret::Secret;

    const PASSPHRASE: &str = "correct horse battery";

    async fn restore_into(home: &TestHome, restoration: Restoration) -> Outcome<RestoredBackup> {
        restore(&home.paths, restoration, UnixMillis(1_000_000), |_progress| {}, ()).await
    }

    fn of(backup: &str) -> Restoration {
        Restoration { backup: backup.into(), ..Restoration::default() }
    }

    #[tokio::test]
    async fn a_restored_home_is_as_it_was_and_what_was_replaced_is_kept() {
        let home = TestHome::new();
        let context = home.open().await;
        let leaked = add_key(&context, "leaked").await;
        add_key(&context, "one").await;
        let backup = back_up(&context, CreateBackup::default()).await.expect("backs up").path;
        add_key(&context, "two").await;
        keys::revoke(&context, RevokeKey { id: leaked }).await.expect("revokes");
        context.close().await;

        let restored = restore_into(&home, of(&backup)).await.expect("restores");
        assert_eq!((restored.revoked, restored.replaced_readable, restored.rekeyed), (1, true, false));
        assert_eq!(home.labels(None).await, ["one", "(leaked)"], "a revocation is final");
        let kept = PathBuf::from(restored.kept.expect("kept"));
        let mut names = files::names(&kept).expect("lists");
        names.sort();
        assert_eq!(names, ["config.db", "security.db"]);
        let replaced = DatabaseFile {
            path: &kept.join("security.db"),
            contents: Contents::Security,
            key: Some(&DatabaseKey::read(&home.paths.key_file).expect("reads").0),
        };
        assert!(replaced.opens().expect("reads"));
        assert!(!home.paths.security_db.with_extension("db.restore").exists());
    }

    #[tokio::test]
    async fn a_capture_that_ran_when_the_backup_was_made_does_not_go_on() {
        let home = TestHome::new();
        let context = home.open().await;
        let id = add_key(&context, "one").await;
        let capture = Some(CaptureSwitch::For(std::time::Duration::from_hours(24)));
        keys::edit(&context, EditKey { id, label: None, limits: None, expires: None, capture }).await.expect("edits");
        let backup = back_up(&context, CreateBackup::default()).await.expect("backs up").path;
        context.close().await;
        restore_into(&home, of(&backup)).await.expect("restores");
        let context = home.open().await;
        let key = keys::show(&context, ShowKey { id }).await.expect("shows");
        assert_eq!(key.capture_until, None);
        context.close().await;
    }

    #[tokio::test]
    async fn a_sealed_backup_is_restored_on_another_machine_under_a_key_of_its_own() {
        let home = TestHome::new();
        let context = home.open().await;
        add_key(&context, "one").await;
        let folder = home.folder.path().join("usb").to_string_lossy().into_owned();
        let passphrase = Some(Secret::new(PASSPHRASE.into()));
        let call = CreateBackup { folder: Some(folder), passphrase: passphrase.clone() };
        let backup = back_up(&context, call).await.expect("backs up").path;
        context.close().await;

        let other = TestHome::new();
        other.paths.prepare().expect("prepares");
        assert!(wants_passphrase(&other.paths, &of(&backup)).expect("looks"));
        assert!(!wants_passphrase(&home.paths, &of(&backup)).expect("looks"), "its own key opens it");
        let failure = restore_into(&other, of(&backup)).await.expect_err("no key");
        assert!(failure.hint.expect("hint").contains("--key-file"));
        let wrong = Restoration { backup_passphrase: Some(Secret::new("something else".into())), ..of(&backup) };
        let failure = restore_into(&other, wrong).await.expect_err("wrong passphrase");
        assert_eq!(failure.code, ErrorCode::InvalidArgument);
        assert!(!other.paths.key_file.exists() && !other.paths.security_db.exists(), "nothing was changed");

        let restored = restore_into(&other, Restoration { backup_passphrase: passphrase, ..of(&backup) }).await;
        let restored = restored.expect("restores");
        assert!(restored.rekeyed && restored.kept.is_none());
        let keys = [&home, &other].map(|home| DatabaseKey::read(&home.paths.key_file).expect("reads").0.fingerprint());
        assert_ne!(keys[0], keys[1]);
        assert_eq!(other.labels(None).await, ["one"], "and its audit chain is whole");
    }

    #[tokio::test]
    async fn a_key_file_opens_a_backup_of_a_home_whose_key_is_lost() {
        let home = TestHome::new();
        let context = home.open().await;
        add_key(&context, "one").await;
        let backup = back_up(&context, CreateBackup::default()).await.expect("backs up").path;
        context.close().await;
        let copy = home.folder.path().join("copy.key");
        files::rename(&home.paths.key_file, &copy).expect("moves");
        assert!(home.open_with(None).await.is_err(), "the key is gone");
        let restoration = Restoration { key_file: Some(copy), ..of(&backup) };
        let restored = restore_into(&home, restoration).await.expect("restores");
        assert!(!restored.replaced_readable, "the new key does not open what was there");
        assert_eq!(home.labels(None).await, ["one"]);
    }

    #[tokio::test]
    async fn what_was_changed_damaged_or_is_newer_is_refused_and_nothing_is_touched() {
        let home = TestHome::new();
        let context = home.open().await;
        add_key(&context, "one").await;
        let backup = back_up(&context, CreateBackup::default()).await.expect("backs up").path;
        context.close().await;
        let before = files::read(&home.paths.security_db).expect("reads");
        let folder = Path::new(&backup);
        let manifest = files::read_to_string(&folder.join("manifest.json")).expect("reads");
        let write = |name: &str, content: &[u8]| {
            files::replace(&folder.join(name), content, Audience::Owner).expect("writes");
        };
        let known = newest_schema(Contents::Security);
        let newer = manifest.replace(&format!("\"schema\": {known}"), "\"schema\": 99");
        assert_ne!(newer, manifest);
        for (name, content, expected) in [
            ("manifest.json", newer, "schema version 99"),
            ("manifest.json", manifest.replace("\"manual\"", "\"daily\""), "its manifest was changed"),
            ("manifest.json", manifest.replace("\"format\": 1", "\"format\": 7"), "form 7"),
            ("manifest.json", "{}".to_owned(), "is no backup"),
        ] {
            write(name, content.as_bytes());
            let failure = restore_into(&home, of(&backup)).await.expect_err(expected);
            assert!(failure.message.contains(expected), "{}", failure.message);
            assert!(failure.hint.is_some(), "{expected}");
        }
        write("manifest.json", manifest.as_bytes());
        for name in ["config.db", "security.db"] {
            let content = files::read(&folder.join(name)).expect("reads");
            let mut damaged = content.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 1;
            write(name, &damaged);
            let failure = restore_into(&home, of(&backup)).await.expect_err("damaged");
            assert_eq!(failure.code, ErrorCode::DbError);
            assert!(failure.message.contains(name), "{}", failure.message);
            write(name, &content);
        }
        assert_eq!(files::read(&home.paths.security_db).expect("reads"), before);
        restore_into(&home, of(&backup)).await.expect("is whole again");
    }

    #[tokio::test]
    async fn a_damaged_home_is_restored_and_its_remains_are_kept() {
        let home = TestHome::new();
        let context = home.open().await;
        add_key(&context, "one").await;
        let backup = back_up(&context, CreateBackup::default()).await.expect("backs up").path;
        context.close().await;
        for database in [&home.paths.config_db, &home.paths.security_db] {
            files::replace(database, b"this is no database, only text that somebody wrote", Audience::Owner)
                .expect("ruins");
        }
        assert!(home.open_with(None).await.is_err());
        let restored = restore_into(&home, of(&backup)).await.expect("restores");
        assert!(!restored.replaced_readable);
        let kept = PathBuf::from(restored.kept.expect("kept")).join("security.db");
        assert!(files::read(&kept).expect("reads").starts_with(b"this is no database"));
        assert_eq!(home.labels(None).await, ["one"]);
    }
}
