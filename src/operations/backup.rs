//! Backups: both databases and a sealed manifest in a folder of their own (SPEC §5.12, §10).
//!
//! Called for the command, by the keeper once a day, and before a database is migrated or its key is changed. Must never
//! hold up a writer, nor leave a backup that is not whole: it is built beside its place, flushed and renamed.

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::context::{Context, blocking_panicked};
use super::lock;
use super::manifest::{self, FORMAT, MANIFEST, SealedManifest};
use super::progress::Reporter;
use super::unlock::{PassphraseFile, shown};
use crate::audit::{Head, SignedHead};
use crate::config::files::{self, Audience, FileError};
use crate::config::paths::HomePaths;
use crate::guard::passphrase;
use crate::storage::{Contents, DatabaseFile, DatabaseKey, ReadAccess, newest_schema};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::backup::{
    BackedUpDatabase, BackedUpKey, BackupListing, BackupManifest, BackupProgress, BackupReason, BackupStage,
    BackupView, CreateBackup, KeySource, ListBackups,
};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;
use crate::types::text::hex;

/// Backups that the home's own folder keeps (SPEC §5.12).
const KEPT: usize = 3;
/// Names in a backup.
pub(super) const CONFIG: &str = "config.db";
pub(super) const SECURITY: &str = "security.db";
/// How the name of a backup begins, and how one that is not whole ends.
const PREFIX: &str = "flm-";
const UNFINISHED: &str = ".unfinished";
/// Space that a backup leaves on the disk, bytes: the databases go on growing.
const SPACE_LEFT: u64 = 16 << 20;
/// Shortest passphrase that a key is sealed under: whoever has the file can try as often as he likes.
pub(super) const SHORTEST_PASSPHRASE: usize = 12;
/// How often a backup is made by itself.
const DAILY: Duration = Duration::from_hours(24);

/// Hears how far it is, and may break it off.
pub(super) type Told<'a> = &'a mut dyn FnMut(BackupProgress) -> ControlFlow<()>;

/// What a backup is made of.
pub(super) struct Originals<'a> {
    pub(super) paths: &'a HomePaths,
    pub(super) key: &'a DatabaseKey,
}

/// How a backup is made.
pub(super) struct Plan<'a> {
    pub(super) folder: &'a Path,
    pub(super) reason: BackupReason,
    pub(super) now: UnixMillis,
    /// Passphrase that the key is sealed under.
    pub(super) seal_under: Option<&'a Secret>,
}

/// Makes a backup.
///
/// # Errors
/// `CANCELLED`, a full disk, or that a database cannot be read; nothing is left of it then.
pub async fn create(context: &Context, call: CreateBackup, reporter: Reporter<CreateBackup>) -> Outcome<BackupView> {
    if let Some(passphrase) = &call.passphrase {
        check_passphrase(passphrase)?;
    }
    let folder = call.folder.as_ref().map(PathBuf::from);
    if folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
        return Err(Failure::new(ErrorCode::InvalidArgument, "the folder for the backup is not an absolute path")
            .hint("give the whole path, such as /mnt/backups"));
    }
    let sealed = call.passphrase.is_some();
    let tell = move |progress| reporter.tell(&progress);
    let view = make(context, folder, BackupReason::Manual, call.passphrase, tell).await?;
    let severity = if sealed { Severity::High } else { Severity::Low };
    let with = if sealed { ", with the key sealed under a passphrase" } else { "" };
    let details = format!("backup made in {}{with}", shown(Path::new(&view.path)));
    if context.stores.security.read_only().is_none() {
        context.record(AuditKind::Maintenance, severity, details).await;
    }
    Ok(view)
}

/// Lists the backups in the home's own folder, newest first.
///
/// # Errors
/// When the folder cannot be listed.
pub async fn list(context: &Context, _call: ListBackups) -> Outcome<BackupListing> {
    let (folder, fingerprint) = (context.paths.backups_dir(), context.stores.security.key().fingerprint());
    tokio::task::spawn_blocking(move || listing(&folder, Some(&fingerprint)))
        .await
        .map_err(|_| blocking_panicked("listing the backups"))?
}

/// The same of a home that nobody has open, without opening its databases. Blocks.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list_closed(paths: &HomePaths) -> Outcome<BackupListing> {
    let fingerprint = lock::closed(paths).ok().and_then(|status| status.fingerprint);
    listing(&paths.backups_dir(), fingerprint.as_deref())
}

/// When the next daily backup is due; now when it is late or there is none.
///
/// # Errors
/// When the folder cannot be listed.
pub async fn next_daily(context: &Context) -> Outcome<UnixMillis> {
    let newest = list(context, ListBackups {}).await?.backups.into_iter().map(|backup| backup.manifest.made).max();
    Ok(newest.map_or(context.clock.wall(), |made| made.plus(DAILY)))
}

/// Makes the daily backup: called by the keeper.
///
/// # Errors
/// As [`create`].
pub async fn daily(context: &Context) -> Outcome<BackupView> {
    make(context, None, BackupReason::Daily, None, |_progress| {}).await
}

/// Makes the backup that what an old program left is added to: in a folder of its own, where the daily ones do not push it
/// out.
///
/// # Errors
/// As [`create`].
pub(super) async fn before_legacy(
    context: &Context,
    folder: &Path,
    tell: impl FnMut(BackupProgress) + Send + 'static,
) -> Outcome<BackupView> {
    make(context, Some(folder.to_owned()), BackupReason::BeforeLegacy, None, tell).await
}

async fn make(
    context: &Context,
    folder: Option<PathBuf>,
    reason: BackupReason,
    passphrase: Option<Secret>,
    tell: impl FnMut(BackupProgress) + Send + 'static,
) -> Outcome<BackupView> {
    // One at a time, so that what one leaves unfinished can be told from what another is making; the job holds it, since it
    // goes on until its next look when nobody waits any more.
    let making = context.backing_up.clone().lock_owned().await;
    let (paths, key, now) = (context.paths.clone(), context.stores.security.key().clone(), context.clock.wall());
    let work = move |told: Told<'_>, stop: &Arc<AtomicBool>| {
        let _making = making;
        let home = paths.backups_dir();
        let plan = Plan { folder: folder.as_deref().unwrap_or(&home), reason, now, seal_under: passphrase.as_ref() };
        write(&Originals { paths: &paths, key: &key }, &plan, told, stop)
    };
    while_awaited("making a backup", tell, work).await
}

/// Runs a blocking job that goes through whole databases, and tells how far it is. Dropping the future, as when whoever asked
/// leaves, ends the job at its next look; what it holds it holds until then.
///
/// # Errors
/// The job's own, or that it panicked, which `what` names.
pub(super) async fn while_awaited<T: Send + 'static>(
    what: &'static str,
    mut tell: impl FnMut(BackupProgress) + Send + 'static,
    work: impl FnOnce(Told<'_>, &Arc<AtomicBool>) -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    let stop = Arc::new(AtomicBool::new(false));
    let _stopping = StopOnDrop(stop.clone());
    let job = move || {
        let mut told = |progress| {
            tell(progress);
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        work(&mut told, &stop)
    };
    tokio::task::spawn_blocking(job).await.map_err(|_| blocking_panicked(what))?
}

/// Tells a blocking job that nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes a backup before the schema of a database is changed. `None` when nothing is to be changed, or a backup of
/// the same state is there. Blocks.
///
/// # Errors
/// As [`create`]. A database that cannot be opened is left for whoever opens it to tell.
pub(super) fn before_migration(paths: &HomePaths, key: &DatabaseKey, now: UnixMillis) -> Outcome<Option<BackupView>> {
    let config = DatabaseFile { path: &paths.config_db, contents: Contents::Settings, key: None };
    let security = DatabaseFile { path: &paths.security_db, contents: Contents::Security, key: Some(key) };
    let schemas = [&config, &security].map(|file| file.schema(ReadAccess::Live).map(|found| (found, file.contents)));
    let [Ok(config_schema), Ok(security_schema)] = schemas else { return Ok(None) };
    let older = |(found, contents): (u32, Contents)| found > 0 && found < newest_schema(contents);
    // Without one of the two there is no home to speak of.
    let both = config_schema.0 > 0 && security_schema.0 > 0;
    if !both || !(older(config_schema) || older(security_schema)) {
        return Ok(None);
    }
    let head = security.audit_head(ReadAccess::Live)?.map_or(0, |(number, _)| number);
    let same = |backup: &BackupView| {
        let manifest = &backup.manifest;
        let schemas = (manifest.config.schema, manifest.security.schema);
        manifest.audit_rows == head && schemas == (config_schema.0, security_schema.0)
    };
    // A migration that fails at every start must not push out what was backed up before.
    if listing(&paths.backups_dir(), Some(&key.fingerprint()))?.backups.iter().any(same) {
        return Ok(None);
    }
    let folder = paths.backups_dir();
    let plan = Plan { folder: &folder, reason: BackupReason::BeforeMigration, now, seal_under: None };
    let mut unheard = |_progress| ControlFlow::Continue(());
    write(&Originals { paths, key }, &plan, &mut unheard, &Arc::default()).map(Some)
}

/// Writes a backup. Blocks.
pub(super) fn write(
    originals: &Originals<'_>,
    plan: &Plan<'_>,
    told: Told<'_>,
    stop: &Arc<AtomicBool>,
) -> Outcome<BackupView> {
    let home = originals.paths.backups_dir();
    let own = plan.folder == home;
    if own {
        files::private_dir(&home)?;
        remove_unfinished(&home)?;
    } else {
        files::make_dir(plan.folder)?;
    }
    check_space(originals.paths, plan.folder)?;
    let (path, building) = free_name(plan)?;
    files::make_dir(&building)?;
    let built = build(originals, plan, &building, told, stop)
        .and_then(|manifest| Ok(files::put_in_place(&building, &path).map(|()| manifest)?));
    let manifest = match built {
        Ok(manifest) => manifest,
        Err(failure) => {
            // The first failure is the one to tell; what stays is removed by the next backup.
            let _litter = files::remove_tree(&building);
            return Err(failure);
        }
    };
    if own {
        prune(&home)?;
    }
    Ok(BackupView { path: path.to_string_lossy().into_owned(), manifest, opens: true })
}

fn build(
    Originals { paths, key }: &Originals<'_>,
    plan: &Plan<'_>,
    building: &Path,
    told: Told<'_>,
    stop: &Arc<AtomicBool>,
) -> Outcome<BackupManifest> {
    let (config_copy, security_copy) = (building.join(CONFIG), building.join(SECURITY));
    let config = DatabaseFile { path: &config_copy, contents: Contents::Settings, key: None };
    let security = DatabaseFile { path: &security_copy, contents: Contents::Security, key: Some(key) };
    for (copy, original, stage) in
        [(&config, &paths.config_db, BackupStage::Settings), (&security, &paths.security_db, BackupStage::Security)]
    {
        let original = DatabaseFile { path: original, ..*copy };
        original.copy_to(copy, ReadAccess::Live, &mut |done, total| told(BackupProgress { stage, done, total }))?;
    }
    // Bodies are kept for two days, backups for longer.
    security.forget_captures()?;
    let head = security.audit_head(ReadAccess::Finished)?;
    let config = checked(&config, told, stop)?;
    let security = checked(&security, told, stop)?;
    let signed = head.map(|(sequence, code)| SignedHead::sign_with(key, Head { sequence, code }, plan.now).to_string());
    let passphrase_file = paths.passphrase_file();
    let uses_passphrase = super::unlock::source(paths)? == KeySource::Passphrase;
    let manifest = BackupManifest {
        format: FORMAT,
        flm: env!("CARGO_PKG_VERSION").to_owned(),
        made: plan.now,
        reason: plan.reason,
        config,
        security,
        audit_rows: head.map_or(0, |(number, _)| number),
        audit_head: signed,
        key: BackedUpKey {
            fingerprint: key.fingerprint(),
            passphrase: uses_passphrase
                .then(|| PassphraseFile::read(&passphrase_file))
                .transpose()?
                .map(|file| file.stretching.to_string()),
            sealed: plan.seal_under.map(|passphrase| seal_key(key, passphrase)).transpose()?,
        },
    };
    let content = manifest::write(&manifest, key)?;
    files::replace(&building.join(MANIFEST), content.as_bytes(), Audience::Owner)?;
    Ok(manifest)
}

/// Looks through a copy and takes its sum.
fn checked(copy: &DatabaseFile<'_>, told: Told<'_>, stop: &Arc<AtomicBool>) -> Outcome<BackedUpDatabase> {
    let found = copy.inspect(ReadAccess::Finished, stop)?;
    if let Some(fault) = found.faults.first() {
        let what = format!("{} is damaged, so it was not backed up: {fault}", name_of(copy.contents));
        return Err(Failure::new(ErrorCode::DbError, what).hint(
            "see what is wrong with flm check --verbose, then restore the last good backup: flm security backup list",
        ));
    }
    let (sha256, bytes) = sum(copy.path, told)?;
    Ok(BackedUpDatabase { schema: found.schema, bytes, sha256 })
}

pub(super) fn name_of(contents: Contents) -> &'static str {
    match contents {
        Contents::Settings => CONFIG,
        Contents::Security => SECURITY,
    }
}

/// SHA-256 of a file, and its size.
pub(super) fn sum(path: &Path, told: Told<'_>) -> Outcome<(String, u64)> {
    let total = files::size(path)?;
    let mut file = files::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let length = file.read(&mut piece).map_err(|error| FileError::new("read", path, error))?;
        if length == 0 {
            break;
        }
        hash.update(&piece[..length]);
        done += length as u64;
        if told(BackupProgress { stage: BackupStage::Checking, done, total }).is_break() {
            return Err(Failure::new(ErrorCode::Cancelled, "checking was cancelled"));
        }
    }
    Ok((hex(&hash.finalize()), done))
}

fn seal_key(key: &DatabaseKey, passphrase: &Secret) -> Outcome<String> {
    let salt = random_salt()?;
    passphrase::seal(key.expose(), passphrase.expose(), salt)
        .map_err(|fault| Failure::new(ErrorCode::Internal, format!("the key could not be sealed: {fault}")))
}

pub(super) fn random_salt() -> Outcome<[u8; 16]> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the system gives no random numbers: {error}")))?;
    Ok(salt)
}

/// # Errors
/// `INVALID_ARGUMENT` for a passphrase that is too short.
pub(super) fn check_passphrase(passphrase: &Secret) -> Outcome<()> {
    let length = passphrase.expose().chars().count();
    if length >= SHORTEST_PASSPHRASE {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::InvalidArgument,
        format!("the passphrase has {length} characters, and whoever has the file can try as often as he likes"),
    )
    .hint(format!("use at least {SHORTEST_PASSPHRASE}: four or five random words are easy to remember")))
}

fn check_space(paths: &HomePaths, folder: &Path) -> Outcome<()> {
    let size = |path: &Path| -> Outcome<u64> { Ok(if files::exists(path)? { files::size(path)? } else { 0 }) };
    let mut needed = SPACE_LEFT;
    for database in [&paths.config_db, &paths.security_db] {
        needed += size(database)? + size(&wal_of(database))?;
    }
    let free = files::free_space(folder)?;
    if free >= needed {
        return Ok(());
    }
    let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(Failure::new(
        ErrorCode::IoError,
        format!("a backup in {} needs {} MB, and {} MB are free", shown(folder), megabytes(needed), megabytes(free)),
    )
    .hint("free some space, or choose a folder on another disk: flm security backup create --output DIR"))
}

fn wal_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// The backup's folder, and the one in which it is built.
fn free_name(plan: &Plan<'_>) -> Outcome<(PathBuf, PathBuf)> {
    let time = jiff::Timestamp::from_millisecond(plan.now.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let stem = format!("{PREFIX}{}-{}", time.strftime("%Y%m%d-%H%M%SZ"), plan.reason);
    for number in 1_u32.. {
        let name = if number == 1 { stem.clone() } else { format!("{stem}-{number}") };
        let (path, building) = (plan.folder.join(&name), plan.folder.join(format!(".{name}{UNFINISHED}")));
        if !files::exists(&path)? && !files::exists(&building)? {
            return Ok((path, building));
        }
    }
    Err(Failure::new(ErrorCode::Internal, "no name is left for a backup"))
}

/// Removes what a backup left that was killed.
fn remove_unfinished(folder: &Path) -> Outcome<()> {
    for path in files::entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(&format!(".{PREFIX}")) && name.ends_with(UNFINISHED) {
            files::remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Removes all but the newest backups of the home's own folder.
fn prune(folder: &Path) -> Outcome<()> {
    for old in listing(folder, None)?.backups.into_iter().skip(KEPT) {
        files::remove_tree(Path::new(&old.path))?;
    }
    Ok(())
}

/// The backups in a folder, newest first. Without a fingerprint none is said to open.
pub(super) fn listing(folder: &Path, fingerprint: Option<&str>) -> Outcome<BackupListing> {
    let mut listing = BackupListing { folder: folder.to_string_lossy().into_owned(), ..BackupListing::default() };
    for path in files::entries(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(PREFIX) || !path.is_dir() {
            continue;
        }
        let text = path.to_string_lossy().into_owned();
        match manifest::read(&path) {
            Ok(SealedManifest { manifest, .. }) => {
                let opens = fingerprint.is_some_and(|ours| ours == manifest.key.fingerprint);
                listing.backups.push(BackupView { path: text, manifest, opens });
            }
            Err(failure) => listing.unreadable.push((text, failure.message)),
        }
    }
    listing.backups.sort_by_key(|backup| std::cmp::Reverse((backup.manifest.made, backup.path.clone())));
    Ok(listing)
}

/// Heads of the audit log that backups hold, for verification.
pub(super) fn heads(folder: &Path) -> Vec<SignedHead> {
    match listing(folder, None) {
        Ok(listing) => listing
            .backups
            .iter()
            .filter_map(|backup| backup.manifest.audit_head.as_deref())
            .flat_map(SignedHead::all_in)
            .collect(),
        Err(failure) => {
            tracing::warn!(%failure, "the backups could not be searched for heads of the audit log");
            Vec::new()
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::paths::PathOverrides;
    use crate::operations::context::ContextOptions;
    use crate::operations::{audit_log, keys};
    use crate::storage::SecurityStore;
    use crate::types::calls::audit::VerifyAudit;
    use crate::types::calls::keys::{CreateKey, ListKeys};
    use crate::types::clock::Clock;
    use crate::types::key::KeyLimits;

    /// A home of its own that lives as long as this.
    pub(in crate::operations) struct TestHome {
        pub(in crate::operations) folder: tempfile::TempDir,
        pub(in crate::operations) paths: HomePaths,
    }

    impl TestHome {
        pub(in crate::operations) fn new() -> Self {
            let folder = tempfile::tempdir_in("/tmp").expect("folder");
            let overrides = PathOverrides { home: Some(folder.path().join("home")), ..PathOverrides::default() };
            Self { paths: HomePaths::resolve(&overrides).expect("resolves"), folder }
        }

        pub(in crate::operations) async fn open(&self) -> Context {
            self.open_with(None).await.expect("opens")
        }

        pub(in crate::operations) async fn open_with(&self, passphrase: Option<&str>) -> Outcome<Context> {
            let passphrase = passphrase.map(|text| Secret::new(text.to_owned()));
            let options = ContextOptions { passphrase, variables: Vec::new(), ..ContextOptions::from_process() };
            Context::open(self.paths.clone(), options).await
        }

        /// Labels of the keys, newest first, revoked ones in brackets.
        pub(in crate::operations) async fn labels(&self, passphrase: Option<&str>) -> Vec<String> {
            let context = self.open_with(passphrase).await.expect("opens");
            let keys = keys::list(&context, ListKeys {}).await.expect("lists");
            let verdict = audit_log::verify(&context, VerifyAudit {}).await.expect("verifies");
            assert_eq!(verdict.broken_at, None, "the chain is whole");
            context.close().await;
            let label = |view: &crate::types::key::KeyView| match view.revoked {
                None => view.label.clone(),
                Some(_) => format!("({})", view.label),
            };
            keys.iter().map(label).collect()
        }
    }

    pub(in crate::operations) async fn add_key(context: &Context, label: &str) -> crate::types::ids::KeyId {
        let call = CreateKey { label: label.into(), expires_in: None, limits: KeyLimits::default() };
        keys::create(context, call).await.expect("makes a key").view.id
    }

    pub(in crate::operations) fn reporter() -> Reporter<CreateBackup> {
        Reporter::new(crate::operations::progress::lane().0)
    }

    pub(in crate::operations) async fn back_up(context: &Context, call: CreateBackup) -> Outcome<BackupView> {
        create(context, call, reporter()).await
    }

    #[tokio::test]
    async fn a_backup_is_whole_private_sealed_and_made_beside_a_writer() {
        let home = TestHome::new();
        let context = home.open().await;
        add_key(&context, "one").await;
        let view = back_up(&context, CreateBackup::default()).await.expect("backs up");
        // The original goes on meanwhile and after.
        add_key(&context, "two").await;
        let folder = Path::new(&view.path);
        let mode = |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
        assert_eq!((mode(folder), mode(folder.parent().expect("folder"))), (0o700, 0o700));
        let mut names = files::names(folder).expect("lists");
        names.sort();
        assert_eq!(names, [CONFIG, MANIFEST, SECURITY], "one file each, and no key");
        for name in names {
            assert_eq!(mode(&folder.join(&name)), 0o600, "{name}");
        }
        let sealed = manifest::read(folder).expect("reads");
        assert_eq!(sealed.manifest, view.manifest);
        assert!(sealed.is_genuine(context.stores.security.key()));
        assert!(!sealed.is_genuine(&DatabaseKey::random(Path::new("key")).expect("draws")));
        assert!(view.manifest.audit_rows > 0);
        let head: SignedHead = view.manifest.audit_head.as_deref().expect("a head").parse().expect("parses");
        assert_eq!(head.head.sequence, view.manifest.audit_rows);
        assert!(head.is_of(context.stores.security.key()));

        let listing = list(&context, ListBackups {}).await.expect("lists");
        assert_eq!((listing.backups.len(), listing.backups[0].opens), (1, true));
        let verdict = audit_log::verify(&context, VerifyAudit {}).await.expect("verifies");
        assert_eq!((verdict.heads, verdict.broken_at), (1, None), "the backup's head is compared");
        context.close().await;
    }

    #[tokio::test]
    async fn the_home_keeps_three_and_what_is_elsewhere_stays() {
        let home = TestHome::new();
        let context = home.open().await;
        let elsewhere = home.folder.path().join("usb");
        let folder = Some(elsewhere.to_string_lossy().into_owned());
        for _ in 0..2 {
            let call = CreateBackup { folder: folder.clone(), passphrase: None };
            back_up(&context, call).await.expect("backs up");
        }
        // What a killed one left.
        let litter = home.paths.backups_dir().join(".flm-20200101-000000Z-daily.unfinished");
        files::make_dir(&litter).expect("makes");
        let mut made = Vec::new();
        for _ in 0..5 {
            made.push(back_up(&context, CreateBackup::default()).await.expect("backs up").path);
        }
        let kept: Vec<_> = list(&context, ListBackups {}).await.expect("lists").backups;
        let kept: Vec<_> = kept.into_iter().map(|backup| backup.path).collect();
        assert_eq!(kept, [made[4].clone(), made[3].clone(), made[2].clone()]);
        assert_eq!(files::entries(&elsewhere).expect("lists").len(), 2);
        assert!(!litter.exists());
        context.close().await;
    }

    #[tokio::test]
    async fn whoever_leaves_ends_the_work_and_nothing_stays() {
        let home = TestHome::new();
        let context = home.open().await;
        let (paths, key) = (home.paths.clone(), context.stores.security.key().clone());
        let work = move || {
            let folder = paths.backups_dir();
            let plan = Plan { folder: &folder, reason: BackupReason::Manual, now: UnixMillis(0), seal_under: None };
            let mut told = |_| ControlFlow::Break(());
            write(&Originals { paths: &paths, key: &key }, &plan, &mut told, &Arc::default())
        };
        let failure = tokio::task::spawn_blocking(work).await.expect("runs").expect_err("is broken off");
        assert_eq!(failure.code, ErrorCode::Cancelled);
        assert_eq!(files::names(&home.paths.backups_dir()).expect("lists"), Vec::<String>::new());
        context.close().await;
    }

    #[tokio::test]
    async fn a_short_passphrase_and_a_relative_folder_are_refused() {
        let home = TestHome::new();
        let context = home.open().await;
        for call in [
            CreateBackup { passphrase: Some(Secret::new("short".into())), folder: None },
            CreateBackup { passphrase: None, folder: Some("somewhere".into()) },
        ] {
            let failure = back_up(&context, call).await.expect_err("refused");
            assert_eq!(failure.code, ErrorCode::InvalidArgument);
            assert!(failure.hint.is_some());
        }
        context.close().await;
    }

    #[tokio::test]
    async fn the_next_daily_backup_is_due_a_day_after_the_last() {
        let home = TestHome::new();
        let options = ContextOptions {
            clock: Clock::stepped(UnixMillis(1_000)),
            variables: Vec::new(),
            ..ContextOptions::from_process()
        };
        let context = Context::open(home.paths.clone(), options).await.expect("opens");
        assert_eq!(next_daily(&context).await.expect("looks"), UnixMillis(1_000), "there is none");
        daily(&context).await.expect("backs up");
        assert_eq!(next_daily(&context).await.expect("looks"), UnixMillis(1_000).plus(DAILY));
        context.close().await;
    }

    /// A home with a key whose `security.db` is of version 4.
    async fn age(home: &TestHome) {
        let context = home.open().await;
        add_key(&context, "kept").await;
        let record = context.stores.security.keys().await.expect("reads").remove(0);
        context.close().await;
        files::remove(&home.paths.security_db).expect("removes");
        let earlier = SecurityStore::open_earlier(&home.paths.security_db, &home.paths.key_file, 4);
        earlier.insert_key(record).await.expect("stores");
        earlier.close().await.expect("closes");
    }

    #[tokio::test]
    async fn a_migration_is_preceded_by_a_backup_once() {
        let home = TestHome::new();
        age(&home).await;
        let context = home.open().await;
        let listing = list(&context, ListBackups {}).await.expect("lists");
        let manifests: Vec<_> = listing.backups.iter().map(|backup| &backup.manifest).collect();
        assert_eq!(manifests.len(), 1);
        assert_eq!((manifests[0].reason, manifests[0].security.schema), (BackupReason::BeforeMigration, 4));
        assert_eq!(context.stores.security.read_only(), None);
        context.close().await;
        home.open().await.close().await;
        assert_eq!(listing_of(&home).len(), 1, "nothing to migrate, nothing to back up");
    }

    fn listing_of(home: &TestHome) -> Vec<BackupView> {
        listing(&home.paths.backups_dir(), None).expect("lists").backups
    }

    #[tokio::test]
    async fn without_room_for_a_backup_nothing_is_migrated_and_keys_are_still_read() {
        let home = TestHome::new();
        age(&home).await;
        // A file where the folder of backups should be.
        files::replace(&home.paths.backups_dir(), b"", Audience::Owner).expect("writes");
        let context = home.open().await;
        let reason = context.stores.security.read_only().expect("only reads");
        assert!(reason.contains("no backup could be made"), "{reason}");
        assert_eq!(keys::list(&context, ListKeys {}).await.expect("reads").len(), 1);
        assert_eq!(context.begin_change().await.expect_err("refused").code, ErrorCode::ReadOnly);
        context.close().await;
        files::remove(&home.paths.backups_dir()).expect("mends");
        assert_eq!(home.labels(None).await, ["kept"]);
    }
}
