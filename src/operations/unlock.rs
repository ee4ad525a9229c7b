//! The key of `security.db`: from a systemd credential, a key file or a passphrase (SPEC §5.12); and what a change of it
//! that was broken off left behind.
//!
//! Called before the databases are opened, always off the runtime. Must never replace a key that opens the database.

use std::path::{Path, PathBuf};

use crate::config::files::{self, Audience};
use crate::config::paths::{HomePaths, KeyOrigin};
use crate::guard::passphrase::{PassphraseFault, Stretching};
use crate::storage::{Contents, DatabaseFile, DatabaseKey};
use crate::types::calls::backup::KeySource;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;
use crate::types::text::escape;

/// Longest passphrase, bytes: what a person types, and some more.
const LONGEST_PASSPHRASE: u64 = 4096;
/// Longest file that says how a passphrase is used, bytes.
const LONGEST_FILE: u64 = 1024;

/// The key, and where it came from.
pub(super) struct Unlocked {
    pub(super) key: DatabaseKey,
    pub(super) source: KeySource,
    /// What was repaired on the way, for log and audit log.
    pub(super) repaired: Vec<String>,
}

/// How a passphrase becomes the key, and how the key is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PassphraseFile {
    pub(super) stretching: Stretching,
    pub(super) fingerprint: String,
}

impl PassphraseFile {
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let content = files::read_private(path, LONGEST_FILE)?.content;
        let text = String::from_utf8_lossy(&content).into_owned();
        let damaged = |fault: PassphraseFault| {
            let what = format!("{}: {fault}", shown(path));
            Failure::new(ErrorCode::DbError, what).hint("put the file back from your copy of the keys folder")
        };
        let (stretching, fingerprint) =
            text.trim().split_once('\n').ok_or_else(|| damaged(PassphraseFault::Damaged))?;
        Ok(Self { stretching: stretching.trim().parse().map_err(damaged)?, fingerprint: fingerprint.trim().to_owned() })
    }

    pub(super) fn write(&self, path: &Path) -> Outcome<()> {
        if let Some(folder) = path.parent() {
            files::make_dir(folder)?;
        }
        let text = format!("{}\n{}\n", self.stretching, self.fingerprint);
        Ok(files::replace(path, text.as_bytes(), Audience::Owner)?)
    }

    /// The key that this passphrase makes; `None` when it is another passphrase.
    pub(super) fn key(&self, passphrase: &Secret, path: &Path) -> Outcome<Option<DatabaseKey>> {
        let bytes = self.stretching.stretch(passphrase.expose()).map_err(|fault| {
            Failure::new(ErrorCode::Internal, format!("the passphrase could not be used: {fault}"))
                .hint("free some memory and try again: it takes 64 MiB")
        })?;
        let key = DatabaseKey::from_bytes(bytes, path);
        Ok((key.fingerprint() == self.fingerprint).then_some(key))
    }
}

/// Where the key is to come from, told from the files that are there.
pub(super) fn source(paths: &HomePaths) -> Outcome<KeySource> {
    Ok(match paths.key_origin {
        KeyOrigin::Credential => KeySource::Credential,
        KeyOrigin::Variable => KeySource::NamedFile,
        KeyOrigin::Home if files::exists(&paths.passphrase_file())? => KeySource::Passphrase,
        KeyOrigin::Home => KeySource::KeyFile,
    })
}

/// Whether somebody has to type a passphrase before the databases can be opened.
///
/// # Errors
/// When the folder of keys cannot be looked at.
pub fn passphrase_wanted(paths: &HomePaths) -> Outcome<bool> {
    if paths.key_origin != KeyOrigin::Home || paths.passphrase_credential.is_some() {
        return Ok(false);
    }
    let file = paths.passphrase_file();
    Ok(files::exists(&file)? || files::exists(&pending(&file))?)
}

/// Where a new key, or how it is made, lies until the database is under it.
pub(super) fn pending(file: &Path) -> PathBuf {
    with_suffix(file, ".new")
}

/// Where what a change replaced is kept.
pub(super) fn retired(file: &Path) -> PathBuf {
    with_suffix(file, ".old")
}

/// The database under its new key, until it takes the place of the old.
pub(super) fn rekeyed(database: &Path) -> PathBuf {
    with_suffix(database, ".rekey")
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Finds the key, after bringing a change of it to its end that was broken off. Blocks.
///
/// # Errors
/// When there is none, it cannot be read or trusted, or the passphrase is missing or another.
pub(super) fn unlock(paths: &HomePaths, passphrase: Option<&Secret>) -> Outcome<Unlocked> {
    let done = finish_change(paths, passphrase)?;
    let mut unlocked = unlock_as_is(paths, passphrase)?;
    unlocked.repaired.splice(0..0, done);
    Ok(unlocked)
}

/// The same, whatever a change that was broken off left behind.
pub(super) fn unlock_as_is(paths: &HomePaths, passphrase: Option<&Secret>) -> Outcome<Unlocked> {
    let source = source(paths)?;
    if source == KeySource::Passphrase {
        // A change to a passphrase was broken off after it was done.
        if files::exists(&paths.key_file)? {
            files::rename(&paths.key_file, &retired(&paths.key_file))?;
        }
        let key = by_passphrase(paths, &paths.passphrase_file(), passphrase)?.ok_or_else(|| wrong_passphrase(paths))?;
        return Ok(Unlocked { key, source, repaired: Vec::new() });
    }
    let (key, repair) = DatabaseKey::load_or_make(&paths.key_file, &paths.security_db)?;
    Ok(Unlocked { key, source, repaired: repair.into_iter().collect() })
}

/// A change of the key is over when the database is under the new one: then the new key takes its place, and until then
/// it is thrown away. Answers what it did.
fn finish_change(paths: &HomePaths, passphrase: Option<&Secret>) -> Outcome<Vec<String>> {
    let (new_key, new_passphrase) = (pending(&paths.key_file), pending(&paths.passphrase_file()));
    let (has_key, has_passphrase) = (files::exists(&new_key)?, files::exists(&new_passphrase)?);
    if !has_key && !has_passphrase {
        return Ok(Vec::new());
    }
    let opens = |key: &DatabaseKey| {
        DatabaseFile { path: &paths.security_db, contents: Contents::Security, key: Some(key) }.opens()
    };
    let old = match source(paths)? {
        KeySource::Passphrase => None,
        _ if files::exists(&paths.key_file)? => Some(DatabaseKey::read(&paths.key_file)?.0),
        _ => None,
    };
    if let Some(old) = old
        && opens(&old)?
    {
        return discard_change(paths);
    }
    if has_key && opens(&DatabaseKey::read(&new_key)?.0)? {
        promote(paths, KeySource::KeyFile)?;
        return Ok(vec!["a change of the database key that was broken off is done: the new key file is in use".into()]);
    }
    if has_passphrase
        && let Some(key) = by_passphrase(paths, &new_passphrase, passphrase)?
        && opens(&key)?
    {
        promote(paths, KeySource::Passphrase)?;
        return Ok(vec![
            "a change of the database key that was broken off is done: the new passphrase is in use".into(),
        ]);
    }
    if source(paths)? == KeySource::Passphrase {
        let key = by_passphrase(paths, &paths.passphrase_file(), passphrase)?.ok_or_else(|| wrong_passphrase(paths))?;
        if opens(&key)? {
            return discard_change(paths);
        }
    }
    Err(Failure::new(
        ErrorCode::DbError,
        format!("a change of the key of {} was broken off, and neither the old key nor the new one opens it", shown(&paths.security_db)),
    )
    .hint("nothing was removed: restore a backup with flm security backup restore --file BACKUP, or put the key file back"))
}

fn discard_change(paths: &HomePaths) -> Outcome<Vec<String>> {
    files::remove(&rekeyed(&paths.security_db))?;
    files::remove(&pending(&paths.key_file))?;
    files::remove(&pending(&paths.passphrase_file()))?;
    Ok(vec!["a change of the database key was broken off before it was done: the old key stays".into()])
}

/// Puts the new key, or how it is made, in the place of the old. Each step leaves a state that [`unlock`] understands.
pub(super) fn promote(paths: &HomePaths, to: KeySource) -> Outcome<()> {
    let (key_file, passphrase_file) = (&paths.key_file, &paths.passphrase_file());
    let retire = |file: &Path| -> Outcome<()> {
        if files::exists(file)? {
            files::put_in_place(file, &retired(file))?;
        }
        Ok(())
    };
    if to == KeySource::Passphrase {
        retire(passphrase_file)?;
        files::put_in_place(&pending(passphrase_file), passphrase_file)?;
        retire(key_file)
    } else {
        retire(passphrase_file)?;
        retire(key_file)?;
        Ok(files::put_in_place(&pending(key_file), key_file)?)
    }
}

/// The key that the passphrase makes, as the file says; `None` when it is another passphrase.
fn by_passphrase(paths: &HomePaths, file: &Path, typed: Option<&Secret>) -> Outcome<Option<DatabaseKey>> {
    let handed_over = paths.passphrase_credential.as_deref().map(read_passphrase).transpose()?;
    let passphrase = handed_over.as_ref().or(typed).ok_or_else(|| {
        Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} is locked with a passphrase, and nobody is here to type it", shown(&paths.security_db)),
        )
        .hint("start it from a terminal, or hand the passphrase over as the systemd credential flm-db-passphrase")
    })?;
    PassphraseFile::read(file)?.key(passphrase, file)
}

fn read_passphrase(file: &Path) -> Outcome<Secret> {
    let content = files::read_private(file, LONGEST_PASSPHRASE)?.content;
    let text = std::str::from_utf8(&content).map_err(|_| {
        Failure::new(ErrorCode::InvalidArgument, format!("{} is no text in UTF-8", shown(file)))
            .hint("make the credential from the passphrase alone: systemd-creds encrypt --name=flm-db-passphrase")
    })?;
    // A line end is what an editor or echo put there.
    Ok(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn wrong_passphrase(paths: &HomePaths) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("the passphrase does not open {}", shown(&paths.security_db)))
        .hint("type it again; without it nobody can read the database, and a backup made --with-key has a passphrase of its own")
}

pub(super) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}
