//! The folder in which the firewall's changes are kept: what a rollback needs, how far the last change is, and a log.
//!
//! The folder is inside the home's data folder and belongs to whoever runs the privileged step: root. The home's owner can
//! read `state.json` and `log.jsonl` (0600, theirs) and cannot change `saved.json` (0600, root's), so that nobody who got
//! hold of FLM's account decides which rules root loads at the next rollback. Root reaches every file through the open
//! folder, never by its path, since a part of that path belongs to the other user.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::at_start;
use super::hands::{Kept, Saved};
use crate::config::files::{self, FileError};
use crate::types::clock::UnixMillis;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{
    Exactness, FirewallLogLine, FirewallPhase, FirewallPlan, FirewallRecord, FirewallStatus, Lasting, TakenBackCause,
    Watch,
};

/// Name of the folder inside the data folder.
pub(super) const FOLDER: &str = "firewall";

/// Lines of the log that a status carries.
const SHOWN_LINES: usize = 50;

/// Bytes of the log after which it is put aside; one older file is kept.
const LOG_MAX: u64 = 256 * 1024;

/// Bytes of a record that are read; rulesets of large machines have some hundred kilobytes.
const RECORD_MAX: u64 = 64 * 1024 * 1024;

/// Changes that can be taken back one after the other.
pub(super) const KEPT_CHANGES: usize = 8;

/// A change that is in force, with what takes it back. The last one is the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) id: String,
    pub(super) at: UnixMillis,
    pub(super) backend: String,
    pub(super) plan: FirewallPlan,
    /// The start of the machine in which it was put in force; `None` when its rules are in files of the firewall's own.
    pub(super) boot: Option<String>,
    /// Whether its rules outlive a restart.
    #[serde(default)]
    pub(super) lasting: Lasting,
    /// The machine before it.
    pub(super) before: Saved,
    /// FLM's own rules once they were in force: whether they still are.
    pub(super) own: Option<String>,
    /// When it was confirmed.
    pub(super) confirmed: Option<UnixMillis>,
}

impl Change {
    /// Notes that its rules outlive a restart.
    pub(super) fn outlives_restarts(&mut self, kept: Kept) {
        self.lasting = Lasting::OverRestarts;
        if kept == Kept::ByFirewall {
            self.boot = None;
        }
    }

    /// What people see of it.
    pub(super) fn record(&self, phase: FirewallPhase) -> FirewallRecord {
        FirewallRecord {
            id: self.id.clone(),
            backend: self.backend.clone(),
            plan: self.plan.clone(),
            applied: self.at,
            boot: self.boot.clone(),
            lasting: self.lasting,
            phase,
        }
    }
}

/// What the home's owner sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Shown {
    last: Option<FirewallRecord>,
    in_force: Option<FirewallRecord>,
}

/// The folder, open.
#[derive(Debug)]
pub(super) struct Folder {
    dir: OwnedFd,
    path: PathBuf,
    /// Whose home it is.
    owner: (Uid, Gid),
}

impl Folder {
    /// Opens it for the privileged step, and makes it when it is not there.
    ///
    /// # Errors
    /// When the data folder is not there, or something that is not root's stands in the place of the folder.
    pub(super) fn prepare(path: &Path) -> Outcome<Self> {
        let data = path.parent().unwrap_or(Path::new("/"));
        let failed = |operation: &'static str, error: rustix::io::Errno| -> Failure {
            FileError::new(operation, path, error.into()).into()
        };
        let parent = rustix::fs::open(data, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Failure::from(FileError::new("open", data, error.into())))?;
        let home = rustix::fs::fstat(&parent).map_err(|error| failed("look at", error))?;
        match rustix::fs::mkdirat(&parent, FOLDER, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed("make", error)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&parent, FOLDER, flags, Mode::empty()).map_err(|error| failed("open", error))?;
        let made = rustix::fs::fstat(&dir).map_err(|error| failed("look at", error))?;
        if made.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Failure::new(
                ErrorCode::IoError,
                format!("{} belongs to user {}, not to root", path.display(), made.st_uid),
            )
            .hint("FLM as root trusts nothing in it: find out what it is, move it away and try again"));
        }
        let owner = (Uid::from_raw(home.st_uid), Gid::from_raw(home.st_gid));
        // The group of the home's owner may pass through, where that is not root.
        let (mode, group) =
            if home.st_uid == made.st_uid { (Mode::RWXU, None) } else { (Mode::RWXU | Mode::XGRP, Some(owner.1)) };
        rustix::fs::fchown(&dir, None, group)
            .and_then(|()| rustix::fs::fchmod(&dir, mode))
            .map_err(|error| failed("set the mode of", error))?;
        Ok(Self { dir, path: path.to_owned(), owner })
    }

    /// A file inside, by way of the open folder.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        inside(&self.dir, name)
    }

    /// Takes the right to change something, which one process has at a time.
    ///
    /// # Errors
    /// When another one has it.
    pub(super) fn lock(&self) -> Outcome<File> {
        let file = files::open_private(&self.at("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                Err(Failure::new(ErrorCode::InvalidArgument, "another change of the firewall is under way")
                    .hint("see how far it is with: flm firewall status"))
            }
            Err(std::fs::TryLockError::Error(error)) => {
                Err(FileError::new("lock", self.path.join("lock"), error).into())
            }
        }
    }

    /// The changes in force, oldest first.
    pub(super) fn changes(&self) -> Outcome<Vec<Change>> {
        Ok(read_json(&self.at("saved.json"))?.unwrap_or_default())
    }

    /// Notes the changes in force. On disk when it returns.
    pub(super) fn keep_changes(&self, changes: &[Change]) -> Outcome<()> {
        self.write("saved.json", changes, None)
    }

    /// Notes how far the last change is, for the home's owner; what is in force is the newest confirmed one.
    pub(super) fn show(&self, last: FirewallRecord, changes: &[Change]) -> Outcome<()> {
        let newest = changes.iter().rev().find_map(|change| Some((change, change.confirmed?)));
        let in_force = newest.map(|(change, since)| change.record(FirewallPhase::InForce { since }));
        self.write("state.json", &Shown { last: Some(last), in_force }, Some(self.owner))
    }

    /// Adds a line to the log.
    pub(super) fn log(&self, at: UnixMillis, id: &str, text: impl Into<String>) -> Outcome<()> {
        let path = self.at("log.jsonl");
        if files::exists(&path)? && files::size(&path)? > LOG_MAX {
            files::rename(&path, &self.at("log.1.jsonl"))?;
        }
        let line = FirewallLogLine { at, id: id.to_owned(), text: text.into() };
        let mut file = files::open_private_append(&path)?;
        let told = self.path.join("log.jsonl");
        rustix::fs::fchown(&file, Some(self.owner.0), Some(self.owner.1))
            .map_err(|error| FileError::new("give away", &told, error.into()))?;
        let line = json(&line)?;
        Ok(writeln!(file, "{line}").and_then(|()| file.sync_all()).map_err(|e| FileError::new("write", told, e))?)
    }

    /// Replaces a file at once; nobody ever sees it with another owner or mode than it is to have.
    fn write<T: Serialize + ?Sized>(&self, name: &str, value: &T, owner: Option<(Uid, Gid)>) -> Outcome<()> {
        let told = |operation: &'static str| {
            let path = self.path.join(name);
            move |error: std::io::Error| FileError::new(operation, path, error)
        };
        let temporary = format!(".{name}.{}.tmp", std::process::id());
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(files::PRIVATE_FILE)
            .custom_flags(i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0))
            .open(self.at(&temporary))
            .map_err(told("write"))?;
        if let Some((user, group)) = owner {
            rustix::fs::fchown(&file, Some(user), Some(group)).map_err(|error| told("give away")(error.into()))?;
        }
        file.write_all(json(value)?.as_bytes()).and_then(|()| file.sync_all()).map_err(told("write"))?;
        rustix::fs::renameat(&self.dir, &temporary, &self.dir, name).map_err(|error| told("replace")(error.into()))?;
        Ok(rustix::fs::fsync(&self.dir).map_err(|error| told("flush")(error.into()))?)
    }

    /// Gives a file that was just made to the home's owner.
    pub(super) fn give_away(&self, name: &str) -> Outcome<()> {
        let (user, group) = self.owner;
        Ok(rustix::fs::chownat(&self.dir, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| FileError::new("give away", self.path.join(name), error.into()))?)
    }

    /// Forgets a file; it may be gone already.
    pub(super) fn forget(&self, name: &str) {
        let _gone = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
    }
}

/// What is in the folder, for the home's owner. Nothing at all when FLM never changed the firewall.
///
/// # Errors
/// When it may not be read.
pub(super) fn status(folder: &Path) -> Outcome<FirewallStatus> {
    let shown: Shown = read_json(&folder.join("state.json"))?.unwrap_or_default();
    let log = files::read_if_exists(&folder.join("log.jsonl"))?.unwrap_or_default();
    let lines: Vec<_> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    let now = boot();
    let was_loaded_at_start = Path::new(at_start::MARK).exists();
    let is_gone = |record: &FirewallRecord| {
        let is_back = record.lasting == Lasting::OverRestarts && was_loaded_at_start;
        record.boot.as_ref().is_some_and(|boot| *boot != now) && !is_back
    };
    let in_force_then =
        |record: &FirewallRecord| matches!(record.phase, FirewallPhase::Pending { .. } | FirewallPhase::InForce { .. });
    let last = shown.last.map(|last| {
        let phase = if in_force_then(&last) && is_gone(&last) { FirewallPhase::Gone } else { last.phase };
        FirewallRecord { phase, ..last }
    });
    Ok(FirewallStatus {
        last,
        in_force: shown.in_force.filter(|record| !is_gone(record)),
        watch: Watch::Unwatched,
        loaded: None,
        log: lines.into_iter().skip(from).collect(),
        folder: folder.to_owned(),
    })
}

/// Names this start of the machine (random(4)); empty where the system does not tell.
pub(super) fn boot() -> String {
    files::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}

/// A file inside an open folder: a path that is short enough for a socket, and that nobody can bend.
pub(super) fn inside(dir: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// How a folder is opened through which one may pass without listing it.
#[cfg(target_os = "linux")]
const REACH: OFlags = OFlags::PATH;
/// Elsewhere FLM changes no firewall.
#[cfg(not(target_os = "linux"))]
const REACH: OFlags = OFlags::RDONLY;

/// Opens a folder only to reach what is in it.
pub(super) fn open_path(folder: &Path) -> std::io::Result<OwnedFd> {
    let flags = REACH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

fn json<T: Serialize + ?Sized>(value: &T) -> Outcome<String> {
    serde_json::to_string(value).map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("a record of the firewall cannot be written: {error}"))
    })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Outcome<Option<T>> {
    if !files::exists(path)? {
        return Ok(None);
    }
    let bytes = files::read_limited(path, RECORD_MAX)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("{} cannot be read: {error}", path.display()))
            .hint("it is of another version or damaged: take FLM's rules out by hand ('flm firewall preview' shows how), then remove it")
    })
}

/// The sentence of the log for rules that were taken back.
pub(super) fn taken_back(cause: TakenBackCause, exactness: Exactness) -> String {
    let why = match cause {
        TakenBackCause::Unconfirmed => "nobody confirmed them in time",
        TakenBackCause::Asked => "asked for",
        TakenBackCause::Failed => "they could not be put in force as a whole",
        TakenBackCause::Interrupted => "whoever watched over them was ended",
    };
    let how = match exactness {
        Exactness::Exact => "the machine's rules are what they were before",
        Exactness::OthersChanged => "others changed their rules meanwhile, which stay",
    };
    format!("taken back ({why}); {how}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn change(id: &str) -> Change {
        Change {
            id: id.to_owned(),
            at: UnixMillis(1),
            backend: "nftables".to_owned(),
            boot: Some(boot()),
            lasting: Lasting::UntilRestart,
            plan: FirewallPlan { ports: vec![8484], networks: Vec::new(), ssh: Vec::new() },
            before: Saved { snapshot: "rules".to_owned(), own: std::collections::BTreeMap::new() },
            own: None,
            confirmed: Some(UnixMillis(2)),
        }
    }

    #[test]
    fn records_are_private_from_their_first_byte_and_are_read_back() {
        let data = tempfile::tempdir().expect("a folder");
        let path = data.path().join(FOLDER);
        assert_eq!(status(&path).expect("reads").last, None, "a home without a folder has no change");
        let folder = Folder::prepare(&path).expect("a folder");
        folder.keep_changes(&[change("1")]).expect("writes");
        let until = UnixMillis(61_000);
        folder.show(change("2").record(FirewallPhase::Pending { until }), &[change("1")]).expect("writes");
        folder.log(UnixMillis(3), "2", "applied").expect("logs");
        folder.log(UnixMillis(4), "2", "confirmed").expect("logs");
        for (name, mode) in [("", 0o700), ("saved.json", 0o600), ("state.json", 0o600), ("log.jsonl", 0o600)] {
            let found = std::fs::metadata(path.join(name)).expect(name).mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        let status = status(&path).expect("reads");
        assert_eq!(status.pending_until(), Some(until));
        assert_eq!(status.in_force.expect("in force").id, "1");
        let texts: Vec<_> = status.log.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["applied", "confirmed"]);
        assert_eq!(folder.changes().expect("reads"), [change("1")]);
        let _held = folder.lock().expect("free");
        assert!(folder.lock().expect_err("held").message.contains("under way"));
    }

    #[test]
    fn rules_that_do_not_outlive_a_restart_are_gone_after_one() {
        let data = tempfile::tempdir().expect("a folder");
        let path = data.path().join(FOLDER);
        let folder = Folder::prepare(&path).expect("a folder");
        for (boot, phase) in [(Some("another start".to_owned()), FirewallPhase::Gone), (None, in_force())] {
            let change = Change { boot, ..change("1") };
            folder.show(change.record(in_force()), std::slice::from_ref(&change)).expect("writes");
            let status = status(&path).expect("reads");
            assert_eq!(status.in_force.is_some(), phase != FirewallPhase::Gone);
            assert_eq!(status.last.expect("a change").phase, phase);
        }
    }

    fn in_force() -> FirewallPhase {
        FirewallPhase::InForce { since: UnixMillis(2) }
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_is_not_followed() {
        let data = tempfile::tempdir().expect("a folder");
        let elsewhere = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(elsewhere.path(), data.path().join(FOLDER)).expect("a link");
        assert_eq!(Folder::prepare(&data.path().join(FOLDER)).expect_err("refused").code, ErrorCode::IoError);
        assert_eq!(std::fs::read_dir(elsewhere.path()).expect("reads").count(), 0);
    }
}
