//! `std::fs` with the path in every error, atomic replacement, and private modes from creation.
//!
//! Called by every room that touches the disk; `std::fs::write` and `File::create` are banned elsewhere. Must never
//! rely on the umask: it belongs to the whole process, and a change and its undoing leave a window.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::OFlags;

use crate::types::failure::{ErrorCode, Failure};
use crate::types::text::escape;

/// Mode of files with secrets: the owner reads and writes (SPEC §5.12).
pub const PRIVATE_FILE: u32 = 0o600;
/// Mode of folders with secrets (SPEC §5.12).
pub const PRIVATE_DIR: u32 = 0o700;
/// Mode of folders through which a group comes to what it may use (SPEC §4.10).
pub const PASSAGE_DIR: u32 = 0o710;
/// Mode of files that everyone may read, before the umask.
const SHARED_FILE: u32 = 0o644;

/// Most of a file that is read at once, bytes.
const FILE_LIMIT: u64 = 1 << 30;
/// Most of a text that is read at once, bytes: prompts and policies have kilobytes.
const TEXT_LIMIT: u64 = 64 << 20;

/// A file operation that failed: what was tried, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("could not {operation} {}", escape(&path.to_string_lossy()))]
pub struct FileError {
    /// What was tried, as a verb: "read", "write".
    pub operation: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl FileError {
    /// An error of `operation` on `path`.
    pub fn new(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self { operation, path: path.into(), source }
    }

    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let path = escape(&self.path.to_string_lossy()).into_owned();
        // `ErrorKind::FilesystemLoop` is not stable yet.
        if self.source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            return format!("{path} is a symbolic link, and FLM does not follow links here: put the file itself there");
        }
        match self.source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => {
                format!("{path} is on a read-only file system: give FLM a writable folder with --home DIR or FLM_HOME")
            }
            io::ErrorKind::PermissionDenied => format!(
                "this user may not {} {path}: check its owner and mode (ls -ld), or choose another folder with --home DIR or FLM_HOME",
                self.operation
            ),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("the disk or quota of {path} is full: free some space and try again; nothing was half written")
            }
            io::ErrorKind::NotADirectory => {
                format!("a part of {path} is a file where a folder is needed: move it aside or choose another --home")
            }
            io::ErrorKind::InvalidInput => "name a file".to_owned(),
            io::ErrorKind::FileTooLarge => {
                format!("{path} is no such file, or a device without an end: name another one")
            }
            io::ErrorKind::NotFound => format!("check that {path} exists and is spelled right"),
            _ => format!("check {path} and the disk that it is on"),
        }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(ErrorCode::IoError, format!("{error}: {}", error.source)).hint(error.hint())
    }
}

/// The result of a file operation.
pub type Files<T> = Result<T, FileError>;

/// Who may read a file that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Only its owner: mode 0600, whatever the umask.
    Owner,
    /// Whoever the umask lets, at most 0644.
    Everyone,
}

impl Audience {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => PRIVATE_FILE,
            Self::Everyone => SHARED_FILE,
        }
    }
}

/// What [`ensure_private_file`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was there.
    Existing,
    /// It was made, empty.
    Created,
}

/// Reads a whole file of at most 1 GiB: devices such as `/dev/zero` have no end.
pub fn read(path: &Path) -> Files<Vec<u8>> {
    fs::File::open(path).and_then(|file| up_to(file, FILE_LIMIT)).map_err(|e| FileError::new("read", path, e))
}

/// Reads a whole text file of at most 64 MiB; text that is not UTF-8 is an error of kind `InvalidData`.
pub fn read_to_string(path: &Path) -> Files<String> {
    fs::File::open(path).and_then(read_text).map_err(|e| FileError::new("read", path, e))
}

/// Reads a text, such as standard input, to its end; one of more than 64 MiB is an error of kind `FileTooLarge`.
pub fn read_text(stream: impl io::Read) -> io::Result<String> {
    let text = up_to(stream, TEXT_LIMIT)?;
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

fn up_to(stream: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(stream, limit + 1), &mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {} MiB", limit >> 20)));
    }
    Ok(content)
}

/// Reads a whole text file; `None` when there is none.
pub fn read_if_exists(path: &Path) -> Files<Option<String>> {
    match read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether something is at that path; a link counts even when it leads nowhere.
pub fn exists(path: &Path) -> Files<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) => Ok(false),
        Err(e) => Err(FileError::new("look at", path, e)),
    }
}

/// Names of what a folder holds, in no order; names that are not UTF-8 are left out.
pub fn names(folder: &Path) -> Files<Vec<String>> {
    let fault = |e| FileError::new("list", folder, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fault)? {
        names.extend(entry.map_err(fault)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// What is at a path, for people who ask why something does not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What kind of thing.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// User who owns it.
    pub owner: u32,
    /// Bytes.
    pub size: u64,
}

/// What kind of thing is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket.
    Socket,
    /// Something else.
    Other,
}

/// What is at a path, links not followed; `None` when nothing is.
pub fn facts(path: &Path) -> Files<Option<Facts>> {
    use std::os::unix::fs::FileTypeExt as _;
    match fs::symlink_metadata(path) {
        Ok(m) => {
            let kind = match m.file_type() {
                t if t.is_file() => FileKind::File,
                t if t.is_dir() => FileKind::Folder,
                t if t.is_symlink() => FileKind::Link,
                t if t.is_socket() => FileKind::Socket,
                _ => FileKind::Other,
            };
            Ok(Some(Facts { kind, mode: m.mode() & 0o7777, owner: m.uid(), size: m.len() }))
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(FileError::new("look at", path, e)),
    }
}

/// Reads the end of a file, at most `limit` bytes, from the beginning of a line on.
pub fn read_tail(path: &Path, limit: u64) -> Files<Vec<u8>> {
    use std::io::{Seek as _, SeekFrom};
    let fault = |e| FileError::new("read", path, e);
    let mut file = File::open(path).map_err(fault)?;
    let size = file.metadata().map_err(fault)?.len();
    let skipped = size.saturating_sub(limit);
    file.seek(SeekFrom::Start(skipped)).map_err(fault)?;
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).map_err(fault)?;
    if skipped > 0 {
        let line = content.iter().position(|byte| *byte == b'\n').map_or(content.len(), |at| at + 1);
        content.drain(..line);
    }
    Ok(content)
}

/// What tells that a file is another one or was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds of the last writing.
    written: (i64, i64),
    /// The same of the last change of its entry, such as its mode.
    changed: (i64, i64),
}

/// The stamp of the file that a path leads to, through links; `None` when there is none.
pub fn stamp(path: &Path) -> Files<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(m) => Ok(Some(Stamp {
            device: m.dev(),
            inode: m.ino(),
            size: m.size(),
            written: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("look at", path, e)),
    }
}

/// Why a file should not be started as a program: it is none, or others could put something else in its place. `None` when
/// nothing speaks against it.
pub fn program_fault(path: &Path) -> Files<Option<&'static str>> {
    const EXECUTABLE: u32 = 0o111;
    const WRITABLE_BY_OTHERS: u32 = 0o002;
    let file = match fs::metadata(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Some("there is no such file"));
        }
        Err(e) => return Err(FileError::new("look at", path, e)),
    };
    Ok(if !file.is_file() {
        Some("it is no file")
    } else if file.mode() & EXECUTABLE == 0 {
        Some("it is not executable")
    } else if file.mode() & WRITABLE_BY_OTHERS != 0 {
        Some("others may write to it")
    } else {
        None
    })
}

/// Size of a file in bytes.
pub fn size(path: &Path) -> Files<u64> {
    fs::metadata(path).map(|m| m.len()).map_err(|e| FileError::new("look at", path, e))
}

/// Replaces a file at once: readers see the old content or the new one, also after a crash or on a full disk.
///
/// Writes a temporary file in the same folder, flushes it to disk, renames it over `path` and flushes the folder.
/// On an error the temporary file is removed and the old content stays.
pub fn replace(path: &Path, content: &[u8], audience: Audience) -> Files<()> {
    refuse_devices(path)?;
    let temporary = beside(path);
    let written = write_new(&temporary, content, audience)
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| FileError::new("replace", path, e)));
    if let Err(error) = written {
        // The first error is the one to tell; a temporary file that stays is only litter.
        let _litter = fs::remove_file(&temporary);
        return Err(FileError { path: path.to_owned(), ..error });
    }
    sync_folder_of(path)
}

/// What is there may be replaced when it is a file: a file in the place of `/dev/zero` or `/dev/stdout` would break the machine for
/// everybody, and root may put one there.
fn refuse_devices(path: &Path) -> Files<()> {
    let is_file = fs::metadata(path).map_or(true, |found| found.is_file());
    if is_file && !path.starts_with("/dev") {
        return Ok(());
    }
    let why = io::Error::new(io::ErrorKind::InvalidInput, "it is a device, a folder or a pipe, and no file");
    Err(FileError::new("replace", path, why))
}

fn write_new(path: &Path, content: &[u8], audience: Audience) -> Files<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(audience.mode())
        .open(path)
        .map_err(|e| FileError::new("write", path, e))?;
    if audience == Audience::Owner {
        set_mode(&file, path, PRIVATE_FILE)?;
    }
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|e| FileError::new("write", path, e))
}

/// A file that takes the place of another only when it is complete: for content that is too large for memory. Mode 0600.
/// Dropped before [`Replacement::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<io::BufWriter<File>>,
}

impl Replacement {
    /// Begins beside `path`.
    pub fn begin(path: &Path) -> Files<Self> {
        refuse_devices(path)?;
        let temporary = beside(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(&temporary)
            .map_err(|e| FileError::new("write", path, e))?;
        set_mode(&file, path, PRIVATE_FILE)?;
        Ok(Self { path: path.to_owned(), temporary, file: Some(io::BufWriter::new(file)) })
    }

    /// Appends.
    pub fn write(&mut self, content: &[u8]) -> Files<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(content).map_err(|e| FileError::new("write", &self.path, e))
    }

    /// Flushes it to disk and puts it in place.
    pub fn finish(mut self) -> Files<()> {
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.flush()
            .and_then(|()| file.get_ref().sync_all())
            .map_err(|e| FileError::new("write", &self.path, e))
            .and_then(|()| {
                fs::rename(&self.temporary, &self.path).map_err(|e| FileError::new("replace", &self.path, e))
            })
            .inspect_err(|_told| {
                let _litter = fs::remove_file(&self.temporary);
            })?;
        sync_folder_of(&self.path)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // What cannot be removed is only litter.
            let _litter = fs::remove_file(&self.temporary);
        }
    }
}

/// A name for a file that is not complete, in the same folder.
fn beside(path: &Path) -> PathBuf {
    // Two writers of one process must not meet in one temporary file.
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{number}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Makes a rename or a new file survive a power cut.
fn sync_folder_of(path: &Path) -> Files<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| FileError::new("flush", folder, e))
}

/// Makes an empty private file when there is none, without following a link.
///
/// `SQLite` gives `-wal` and `-shm` the mode of the database, so a database made here is private in all its files
/// from its first byte.
pub fn ensure_private_file(path: &Path) -> Files<Found> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE_FILE).open(path) {
        Ok(file) => {
            set_mode(&file, path, PRIVATE_FILE)?;
            sync_folder_of(path)?;
            Ok(Found::Created)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(Found::Existing),
        Err(e) => Err(FileError::new("make", path, e)),
    }
}

/// Opens a private file for reading and writing, making it (0600) when absent; does not truncate. For locks.
pub fn open_private(path: &Path) -> Files<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE_FILE)
        .custom_flags(flags(OFlags::NOFOLLOW))
        .open(path)
        .map_err(|e| FileError::new("open", path, e))?;
    set_mode(&file, path, PRIVATE_FILE)?;
    Ok(file)
}

/// Opens a private file for appending, making it (0600) when absent. For logs.
pub fn open_private_append(path: &Path) -> Files<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE_FILE)
        .custom_flags(flags(OFlags::NOFOLLOW))
        .open(path)
        .map_err(|e| FileError::new("open", path, e))
}

/// A secret file as it was read.
#[derive(Debug)]
pub struct PrivateContent {
    /// What is in it; cleared when dropped.
    pub content: zeroize::Zeroizing<Vec<u8>>,
    /// What was repaired, for the log and the audit log.
    pub repaired: Option<String>,
}

/// Reads a file that only its owner may read (SPEC §5.12), as `ssh` reads a private key.
///
/// Refuses symbolic links and files of another user. A file of this user with a wider mode is narrowed to 0600 and
/// the repair is told. A file of root that this user cannot narrow (a systemd credential, a container's secret) is
/// taken when others can neither read nor write it. Checks look at the open file, so it cannot be swapped between.
///
/// # Errors
/// Besides I/O errors, `PermissionDenied` that says what is wrong with owner or mode.
pub fn read_private(path: &Path, limit: u64) -> Files<PrivateContent> {
    let refuse = |why: String| FileError::new("trust", path, io::Error::new(io::ErrorKind::PermissionDenied, why));
    // Without waiting: opening a pipe would hang until someone writes to it.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
        .open(path)
        .map_err(|e| FileError::new("read", path, e))?;
    let metadata = file.metadata().map_err(|e| FileError::new("look at", path, e))?;
    if !metadata.is_file() {
        return Err(refuse("it is not a regular file".to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    let me = rustix::process::geteuid().as_raw();
    let mut repaired = None;
    if metadata.uid() == me {
        if mode & 0o077 != 0 {
            set_mode(&file, path, PRIVATE_FILE)?;
            repaired = Some(format!(
                "{} had mode {mode:04o}, so other users could use it: set to 0600",
                escape(&path.to_string_lossy())
            ));
        }
    } else if metadata.uid() != 0 {
        return Err(refuse(format!("it belongs to user {}, and FLM runs as user {me}", metadata.uid())));
    } else if mode & 0o027 != 0 {
        return Err(refuse(format!("root owns it with mode {mode:04o}, so every user could use it; 0440 is enough")));
    }
    if metadata.len() > limit {
        let why = format!("it has {} bytes, and at most {limit} make sense", metadata.len());
        return Err(FileError::new("read", path, io::Error::new(io::ErrorKind::InvalidData, why)));
    }
    let mut content = zeroize::Zeroizing::new(Vec::with_capacity(usize::try_from(limit).unwrap_or(4096)));
    file.take(limit).read_to_end(&mut content).map_err(|e| FileError::new("read", path, e))?;
    Ok(PrivateContent { content, repaired })
}

/// A private key's file as it was found.
#[derive(Debug)]
pub enum KeyFile {
    /// What is in it; cleared when dropped.
    Private(zeroize::Zeroizing<Vec<u8>>),
    /// Others could read it.
    TooOpen {
        /// Its mode.
        mode: u32,
    },
    /// It belongs to somebody who is neither root nor this user.
    OfAnother {
        /// Who owns it.
        owner: u32,
        /// Who this user is.
        me: u32,
    },
}

/// Reads a private key that another program made and renews. Unlike [`read_private`] it follows links, since certificate
/// tools turn one to the newest key, and changes nothing: whose mode is too wide is told so, as `ssh` does.
///
/// # Errors
/// I/O errors, and `InvalidData` for a file that is larger than `limit` or none.
pub fn read_key_file(path: &Path, limit: u64) -> Files<KeyFile> {
    let file = open_regular(path)?;
    let metadata = file.metadata().map_err(|e| FileError::new("look at", path, e))?;
    let mode = metadata.mode() & 0o7777;
    let (owner, me) = (metadata.uid(), rustix::process::geteuid().as_raw());
    // A service's group may read what root owns, as packaged certificate tools set it up.
    let (too_wide, known) = if owner == me { (0o077, true) } else { (0o027, owner == 0 || me == 0) };
    if !known {
        return Ok(KeyFile::OfAnother { owner, me });
    }
    if mode & too_wide != 0 {
        return Ok(KeyFile::TooOpen { mode });
    }
    Ok(KeyFile::Private(zeroize::Zeroizing::new(read_to_limit(file, path, limit)?)))
}

/// Reads a whole file that somebody else wrote and that cannot sensibly be larger than `limit` bytes.
///
/// # Errors
/// I/O errors, and `InvalidData` for a file that is larger or none.
pub fn read_limited(path: &Path, limit: u64) -> Files<Vec<u8>> {
    read_to_limit(open_regular(path)?, path, limit)
}

/// Opens a file without waiting: a pipe would hang until someone writes to it.
fn open_regular(path: &Path) -> Files<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags(OFlags::NONBLOCK))
        .open(path)
        .map_err(|e| FileError::new("read", path, e))?;
    if !file.metadata().map_err(|e| FileError::new("look at", path, e))?.is_file() {
        let why = io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file");
        return Err(FileError::new("read", path, why));
    }
    Ok(file)
}

fn read_to_limit(file: File, path: &Path, limit: u64) -> Files<Vec<u8>> {
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(|e| FileError::new("read", path, e))?;
    if content.len() as u64 > limit {
        let why = io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {limit} bytes"));
        return Err(FileError::new("read", path, why));
    }
    Ok(content)
}

/// Makes a folder and its parents with mode 0700, or narrows the one that is there; answers what it repaired.
///
/// # Errors
/// Besides I/O errors, `PermissionDenied` when the folder belongs to another user (root may use any).
pub fn private_dir(path: &Path) -> Files<Option<String>> {
    own_dir(path, PRIVATE_DIR)
}

/// The same for a folder through which its group may pass without seeing what is in it (0710).
///
/// # Errors
/// As [`private_dir`].
pub fn passage_dir(path: &Path) -> Files<Option<String>> {
    own_dir(path, PASSAGE_DIR)
}

fn own_dir(path: &Path, allowed: u32) -> Files<Option<String>> {
    make_dir(path)?;
    let metadata = fs::metadata(path).map_err(|e| FileError::new("look at", path, e))?;
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && me != 0 {
        let why = format!("it belongs to user {}, and FLM runs as user {me}", metadata.uid());
        return Err(FileError::new("use", path, io::Error::new(io::ErrorKind::PermissionDenied, why)));
    }
    narrow(path, allowed)
}

/// Makes a folder and its parents with mode 0700; leaves one that is there as it is.
pub fn make_dir(path: &Path) -> Files<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(path).map_err(|e| FileError::new("make", path, e))?;
    // `recursive` is content with anything that exists, a file included.
    if fs::metadata(path).map_err(|e| FileError::new("look at", path, e))?.is_dir() {
        return Ok(());
    }
    Err(FileError::new("make", path, io::Error::from(io::ErrorKind::NotADirectory)))
}

/// Takes away what `allowed` does not allow; answers what it repaired. A path without anything is fine.
pub fn narrow(path: &Path, allowed: u32) -> Files<Option<String>> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(FileError::new("look at", path, e)),
    };
    let mode = metadata.mode() & 0o7777;
    let too_wide = mode & 0o777 & !allowed;
    if too_wide == 0 {
        return Ok(None);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & allowed))
        .map_err(|e| FileError::new("narrow the mode of", path, e))?;
    Ok(Some(format!(
        "{} had mode {mode:04o}, so other users could use it: set to {:04o}",
        escape(&path.to_string_lossy()),
        mode & allowed
    )))
}

/// Mode and owner of what a path leads to, without following a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ownership {
    /// The lower nine bits of the mode, and the sticky ones.
    pub mode: u32,
    /// The owner's number.
    pub owner: u32,
    /// This user's.
    pub me: u32,
}

/// Who may use what is at that path; `None` when there is nothing.
pub fn ownership(path: &Path) -> Files<Option<Ownership>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(Ownership {
            mode: metadata.mode() & 0o7777,
            owner: metadata.uid(),
            me: rustix::process::geteuid().as_raw(),
        })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("look at", path, e)),
    }
}

/// Bytes that this user may still write on the disk that holds a path.
pub fn free_space(path: &Path) -> Files<u64> {
    let disk = rustix::fs::statvfs(path).map_err(|e| FileError::new("measure the disk of", path, e.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Makes what was written to a file survive a power cut.
pub fn sync(path: &Path) -> Files<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| FileError::new("flush", path, e))
}

/// Puts a file or folder that is complete and flushed in the place of another, so that it survives a power cut. Within
/// one file system.
pub fn put_in_place(complete: &Path, place: &Path) -> Files<()> {
    fs::rename(complete, place).map_err(|e| FileError::new("replace", place, e))?;
    sync_folder_of(place)
}

/// Gives what a file holds a second name, by which it stays when the file is replaced: a link, or a copy of mode 0600 where
/// the file system has no links.
pub fn keep_as(file: &Path, name: &Path) -> Files<()> {
    match fs::hard_link(file, name) {
        Ok(()) => sync_folder_of(name),
        Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => copy(file, name),
        Err(e) => Err(FileError::new("keep a copy of", file, e)),
    }
}

/// Copies a file; the copy appears when it is complete, with mode 0600.
pub(super) fn copy(from: &Path, to: &Path) -> Files<()> {
    let mut source = open(from)?;
    let mut target = Replacement::begin(to)?;
    let mut piece = zeroize::Zeroizing::new(vec![0; 1 << 16]);
    loop {
        match source.read(&mut piece).map_err(|e| FileError::new("read", from, e))? {
            0 => return target.finish(),
            length => target.write(&piece[..length])?,
        }
    }
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Files<File> {
    File::open(path).map_err(|e| FileError::new("read", path, e))
}

/// What is in a folder, by name; empty when there is no folder.
pub fn entries(folder: &Path) -> Files<Vec<PathBuf>> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(FileError::new("list", folder, e)),
    };
    let mut found = Vec::new();
    for entry in listed {
        found.push(entry.map_err(|e| FileError::new("list", folder, e))?.path());
    }
    found.sort();
    Ok(found)
}

/// Removes a folder with everything in it, without following links; one that is not there is fine.
pub fn remove_tree(folder: &Path) -> Files<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(FileError::new("remove", folder, e)),
    }
}

/// Moves a file into another place, also onto another file system: the file is whole in one of the two at any time.
/// A file that is not there is fine.
pub fn move_to(from: &Path, to: &Path) -> Files<()> {
    match fs::rename(from, to) {
        Ok(()) => sync_folder_of(to),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            copy(from, to)?;
            remove(from)
        }
        Err(e) => Err(FileError::new("move", from, e)),
    }
}

/// Renames within one file system.
pub fn rename(from: &Path, to: &Path) -> Files<()> {
    fs::rename(from, to).map_err(|e| FileError::new("rename", from, e))
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Files<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(FileError::new("remove", path, e)),
    }
}

fn set_mode(file: &File, path: &Path, mode: u32) -> Files<()> {
    file.set_permissions(Permissions::from_mode(mode)).map_err(|e| FileError::new("set the mode of", path, e))
}

fn flags(flags: OFlags) -> i32 {
    // Open flags are small positive numbers on every platform.
    i32::try_from(flags.bits()).unwrap_or(0)
}
