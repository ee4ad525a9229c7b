//! Who owns a home: whoever holds its lock (SPEC §1.2). The lock dies with its holder, so a socket without a holder
//! is stale and is cleaned up.

use std::fs::{File, TryLockError};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::config::files::{self, FileError};
use crate::config::paths::HomePaths;
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// How long a home may be between two owners: one that starts has no socket yet, one that ends has none any more,
/// and a command without an owner holds the lock for its one operation.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks. Only ever runs in that short state, which has no event to wait for: it may end with a socket
/// or with a lock.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The lock of a home. Dropping it gives the home free.
#[derive(Debug)]
pub struct OwnerLock {
    file: File,
}

/// What stands at a home.
#[derive(Debug)]
pub enum Claim {
    /// An owner serves; this is a connection to it.
    Owned(UnixStream),
    /// Nobody owned it; now the caller does.
    Free(OwnerLock),
}

/// Connects to the owner, or becomes it.
///
/// # Errors
/// When folders or lock cannot be made, or the home stays between two owners for too long.
pub async fn claim(paths: &HomePaths) -> Outcome<Claim> {
    // A member of the control group may use the socket of a home that is not theirs to prepare (SPEC §4.10).
    if let Ok(Some(stream)) = connect(paths).await {
        return Ok(Claim::Owned(stream));
    }
    // Folders first: a home that cannot be written says so here, with its path.
    let prepared = paths.clone();
    tokio::task::spawn_blocking(move || prepared.prepare())
        .await
        .map_err(|_| Failure::new(ErrorCode::Internal, "preparing the home failed inside FLM"))??;
    let looking = async {
        loop {
            if let Some(stream) = connect(paths).await? {
                return Ok(Claim::Owned(stream));
            }
            if let Some(lock) = OwnerLock::try_take(&paths.owner_lock())? {
                // Left behind by an owner that was killed.
                files::remove(&paths.socket())?;
                return Ok(Claim::Free(lock));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    match tokio::time::timeout(PATIENCE, looking).await {
        Ok(claim) => claim,
        Err(_elapsed) => Err(stuck(paths)),
    }
}

/// A connection to the owner; `None` when nobody listens.
///
/// # Errors
/// When the socket is there but may not be used.
pub async fn connect(paths: &HomePaths) -> Outcome<Option<UnixStream>> {
    use std::io::ErrorKind;
    let socket = paths.socket();
    match UnixStream::connect(&socket).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(FileError::new("connect to", socket, error).into()),
    }
}

impl OwnerLock {
    /// Takes the lock; `None` when somebody holds it.
    ///
    /// # Errors
    /// When the file cannot be opened or locked.
    pub fn try_take(path: &Path) -> Outcome<Option<Self>> {
        let mut file = files::open_private(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(FileError::new("lock", path, error).into()),
        }
        // For people only, who look who holds it; the lock itself is what counts.
        let noted = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        noted.map_err(|error| FileError::new("write", path, error))?;
        Ok(Some(Self { file }))
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // Closing the file would do; unlocking is said aloud because a child process may still hold a copy of it.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the home's lock cannot be released");
        }
    }
}

fn stuck(paths: &HomePaths) -> Failure {
    let lock = paths.owner_lock();
    let holder = files::read_to_string(&lock).unwrap_or_default();
    let who = match holder.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    };
    Failure::new(
        ErrorCode::IoError,
        format!("{who} holds the lock of this home ({}) but does not answer", lock.display()),
    )
    .hint("wait for it to end, or end it and try again; nothing is lost, since the lock goes with its process")
}
