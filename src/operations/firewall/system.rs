//! The machine's own programs and files, as the backends use them. Called as root by the privileged step and its watchdog.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::config::files::{self, Audience, FileError};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// Where system administration programs are, PATH or not: what runs as root is never looked for elsewhere.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long one program may take; firewall programs take well under a second, and firewalld a few where it is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Characters of a program's complaint that are told.
const COMPLAINT: usize = 600;

/// The program's path; `None` when the machine has none.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

/// The program's path as text.
///
/// # Errors
/// `NOT_FOUND` when the machine has no such program.
pub(super) fn path(program: &str) -> Outcome<String> {
    find(program).map(|path| path.display().to_string()).ok_or_else(|| missing(program))
}

fn missing(program: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("this machine has no {program}"))
        .hint("install it, or name another firewall with --backend")
}

/// Whether systemd is this machine's first process, and this one is in the same network and files: in a container or a
/// namespace its units would be about another firewall.
pub(super) fn rules_the_machine() -> bool {
    let same = |kind: &str| {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
        of("self").is_some_and(|own| of("1") == Some(own))
    };
    Path::new("/run/systemd/system").exists() && same("net") && same("mnt")
}

/// Runs a program to its end and answers what it wrote to stdout.
///
/// # Errors
/// `NOT_FOUND` when the machine has no such program, `IO_ERROR` when it fails or does not end.
pub(super) async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Outcome<String> {
    let path = find(program).ok_or_else(|| missing(program))?;
    let shown = format!("{program} {}", arguments.join(" "));
    let failed = |why: String| Failure::new(ErrorCode::IoError, format!("{}: {why}", shown.trim_end()));
    let mut command = Command::new(path);
    // Nothing of the caller's environment reaches a program that runs as root.
    command.args(arguments).env_clear().env("PATH", FOLDERS.join(":")).env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let stdin = child.stdin.take();
    let feeding = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that does not read to the end says why on stderr.
            let _unread = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, async { tokio::join!(feeding, child.wait_with_output()).1 }).await;
    let output = ended
        .map_err(|_| failed(format!("it did not end within {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint: String = String::from_utf8_lossy(&output.stderr).chars().take(COMPLAINT).collect();
    let lines: Vec<_> = complaint.lines().map(escape).collect();
    Err(failed(format!("{} {}", output.status, lines.join("; "))))
}

/// Replaces a file of the system at once and keeps its owner and mode.
pub(super) fn rewrite(path: &Path, content: &str) -> Outcome<()> {
    let before = std::fs::metadata(path).map_err(|error| FileError::new("read", path, error))?;
    files::replace(path, content.as_bytes(), Audience::Owner)?;
    let owner = std::os::unix::fs::chown(path, Some(before.uid()), Some(before.gid()));
    let mode = std::fs::Permissions::from_mode(before.mode() & 0o7777);
    owner
        .and_then(|()| std::fs::set_permissions(path, mode))
        .map_err(|error| FileError::new("give its mode back to", path, error).into())
}
