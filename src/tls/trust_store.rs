//! Trust stores of operating systems: puts a root in, takes it out, and says how where it cannot (SPEC §6).
//!
//! A Linux store is a folder of anchors and a program that gathers them into a bundle. The anchor is named after the
//! root's fingerprint, so that nobody else's is ever touched; when the program fails the anchor goes again, and the bundle is
//! what it was. macOS and Windows get their commands shown.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::certificate::describe_pem;
use crate::config::files::{self, Audience, FileError};
use crate::types::calls::authority::{TrustAction, TrustReport, TrustSystem};
use crate::types::certificate::CertificateView;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// How long gathering the anchors may take: seconds on a slow disk.
const PATIENCE: Duration = Duration::from_mins(2);
/// As much of a program's complaint as helps.
const COMPLAINT: usize = 400;

/// A family of Linux distributions by its trust store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// For people.
    name: &'static str,
    /// Where anchors are put.
    anchors: &'static str,
    /// Gathers them after one came.
    gather: &'static [&'static str],
    /// Gathers them after one went.
    gather_anew: &'static [&'static str],
    /// What programs read.
    bundle: &'static str,
}

/// Found by the program that gathers; the first that is there counts.
const FAMILIES: &[Family] = &[
    // update-ca-certificates(8)
    Family {
        name: "Debian and Ubuntu",
        anchors: "/usr/local/share/ca-certificates",
        gather: &["/usr/sbin/update-ca-certificates"],
        gather_anew: &["/usr/sbin/update-ca-certificates", "--fresh"],
        bundle: "/etc/ssl/certs/ca-certificates.crt",
    },
    // update-ca-trust(8)
    Family {
        name: "Fedora and its kin",
        anchors: "/etc/pki/ca-trust/source/anchors",
        gather: &["/usr/bin/update-ca-trust", "extract"],
        gather_anew: &["/usr/bin/update-ca-trust", "extract"],
        bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    },
    // update-ca-trust(8) of Arch, where the folder has another name
    Family {
        name: "Arch Linux and its kin",
        anchors: "/etc/ca-certificates/trust-source/anchors",
        gather: &["/usr/bin/update-ca-trust", "extract"],
        gather_anew: &["/usr/bin/update-ca-trust", "extract"],
        bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    },
];

/// Programs that do not ask the system.
const OTHERS: &str = "Firefox, Chromium on Linux and Java have trust stores of their own: import the root there \
     (flm security ca export)";

impl Family {
    /// The family of this machine; `None` when it is none of those that are known.
    fn here() -> Option<&'static Self> {
        let there = |path: &str| Path::new(path).exists();
        FAMILIES.iter().find(|family| there(family.gather[0]) && there(family.anchors))
    }

    fn anchor(&self, root: &CertificateView) -> PathBuf {
        Path::new(self.anchors).join(anchor_name(root))
    }
}

/// `flm-` and the first eight digits of the fingerprint.
fn anchor_name(root: &CertificateView) -> String {
    let digits: String = root.fingerprint.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    format!("flm-{}.crt", digits.to_ascii_lowercase())
}

/// Whether this machine's trust store has the root; `None` when the store is of an unknown kind. Blocks.
#[must_use]
pub fn is_installed(root: &CertificateView) -> Option<bool> {
    Family::here().map(|family| family.anchor(root).exists())
}

/// Installs or removes a root, or says how. `exported` is a file with the root, for commands that are shown.
///
/// # Errors
/// `INVALID_ARGUMENT` for another fingerprint than expected, or where FLM may not or cannot do it: the hint names the
/// commands. `IO_ERROR` when the store cannot be written or its program fails; the store is as it was then.
pub async fn act(
    root: &CertificateView,
    pem: &str,
    exported: &Path,
    action: TrustAction,
    system: TrustSystem,
    dry_run: bool,
) -> Outcome<TrustReport> {
    let file = quoted(exported);
    let report = |store: &str, commands: Vec<String>, executed: bool| TrustReport {
        store: store.to_owned(),
        fingerprint: root.fingerprint.clone(),
        commands,
        executed,
        notes: vec![OTHERS.to_owned()],
    };
    let system_name =
        if cfg!(target_os = "macos") && system == TrustSystem::Here { TrustSystem::Macos } else { system };
    match system_name {
        TrustSystem::Macos => {
            let command = match action {
                TrustAction::Install => format!(
                    "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}"
                ),
                TrustAction::Uninstall => format!("sudo security remove-trusted-cert -d {file}"),
            };
            return Ok(report("macOS (run this there)", vec![command], false));
        }
        TrustSystem::Windows => {
            let command = match action {
                TrustAction::Install => format!("certutil -addstore -f Root {file}"),
                TrustAction::Uninstall => {
                    format!("certutil -delstore Root \"{}\"", root.subject.rsplit("CN=").next().unwrap_or_default())
                }
            };
            return Ok(report("Windows (run this there, as administrator)", vec![command], false));
        }
        TrustSystem::Here => {}
    }
    let Some(family) = Family::here() else {
        return Err(Failure::new(ErrorCode::NotFound, "this system's trust store is of no kind that FLM knows")
            .hint(format!("add {file} to it by hand; known are {}", names())));
    };
    let anchor = family.anchor(root);
    let commands = match action {
        TrustAction::Install => {
            vec![format!("sudo install -m 644 {file} {}", quoted(&anchor)), format!("sudo {}", family.gather.join(" "))]
        }
        TrustAction::Uninstall => {
            vec![format!("sudo rm -f {}", quoted(&anchor)), format!("sudo {}", family.gather_anew.join(" "))]
        }
    };
    if dry_run {
        return Ok(report(family.name, commands, false));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("changing the trust store of {} takes root, and FLM runs as another user", family.name),
        )
        .hint(format!("run: {}", commands.join(" && "))));
    }
    match action {
        TrustAction::Install => install(family, &anchor, root, pem).await?,
        TrustAction::Uninstall => {
            let before = files::read(&anchor).ok();
            files::remove(&anchor).map_err(unwritable)?;
            if let Err(failure) = run(family.gather_anew).await {
                if let Some(before) = before {
                    files::replace(&anchor, &before, Audience::Everyone)?;
                }
                return Err(failure);
            }
            if trusts(family, pem)? {
                return Err(Failure::new(
                    ErrorCode::IoError,
                    "the root is still in the bundle of trusted certificates",
                )
                .hint(format!("somebody installed it in another way too: look into {}", family.bundle)));
            }
        }
    }
    Ok(report(family.name, commands, true))
}

async fn install(family: &Family, anchor: &Path, root: &CertificateView, pem: &str) -> Outcome<()> {
    files::replace(anchor, pem.as_bytes(), Audience::Everyone).map_err(unwritable)?;
    // What is going to be trusted is what was shown, not what somebody put in its place.
    let written = describe_pem(&files::read_to_string(anchor)?);
    let done = match written {
        Ok(written) if written.fingerprint == root.fingerprint => run(family.gather).await,
        _ => Err(Failure::new(ErrorCode::IoError, "the file in the trust store is not the root that was put there")
            .hint("something else changes that folder: find out what, then try again")),
    };
    let trusted = done.and_then(|()| {
        if trusts(family, pem)? {
            return Ok(());
        }
        Err(Failure::new(ErrorCode::IoError, format!("the root did not come into {}", family.bundle))
            .hint("see what the system's own program says about it"))
    });
    if trusted.is_err() {
        files::remove(anchor)?;
        // The first failure is the one to tell.
        let _tidied = run(family.gather_anew).await;
    }
    trusted
}

fn unwritable(error: FileError) -> Failure {
    let Failure { message, .. } = error.into();
    Failure::new(ErrorCode::IoError, format!("the trust store cannot be changed: {message}")).hint(
        "the trust store is as it was; root must be able to write that folder: is it on a file system that is mounted read-only, or part \
         of a system image?",
    )
}

/// Whether the bundle holds the root.
fn trusts(family: &Family, pem: &str) -> Outcome<bool> {
    let body = |text: &str| -> String { text.lines().filter(|line| !line.starts_with("--")).collect() };
    let (bundle, wanted) = (files::read_to_string(Path::new(family.bundle))?, body(pem));
    Ok(bundle.split("-----END").any(|one| {
        one.split("-----BEGIN").last().is_some_and(|block| block.lines().skip(1).collect::<String>() == wanted)
    }))
}

async fn run(command: &[&str]) -> Outcome<()> {
    let shown = command.join(" ");
    let failed = |why: String| {
        Failure::new(ErrorCode::IoError, format!("{shown} failed: {why}"))
            .hint("the trust store is as it was; mend what the message says and try again")
    };
    let mut child = Command::new(command[0]);
    child.args(&command[1..]).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, child.output()).await;
    let output = ended
        .map_err(|_| failed(format!("it did not end within {} s", PATIENCE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint: String = String::from_utf8_lossy(&output.stderr).chars().take(COMPLAINT).collect();
    Err(failed(format!("{}: {}", output.status, escape(complaint.trim()))))
}

fn names() -> String {
    FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = escape(&path.to_string_lossy()).into_owned();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::UnixMillis;

    fn root() -> CertificateView {
        CertificateView {
            names: Vec::new(),
            subject: "O=FLM, CN=FLM certificate authority of box".into(),
            issuer: String::new(),
            not_before: UnixMillis(0),
            not_after: UnixMillis(1),
            fingerprint: "AB:CD:EF:01:23".into(),
        }
    }

    #[tokio::test]
    async fn other_systems_get_their_commands_shown_and_nothing_is_executed() {
        for (system, action, says) in [
            (TrustSystem::Macos, TrustAction::Install, "security add-trusted-cert -d -r trustRoot"),
            (TrustSystem::Macos, TrustAction::Uninstall, "security remove-trusted-cert"),
            (TrustSystem::Windows, TrustAction::Install, "certutil -addstore -f Root"),
            (
                TrustSystem::Windows,
                TrustAction::Uninstall,
                "certutil -delstore Root \"FLM certificate authority of box\"",
            ),
        ] {
            let report = act(&root(), "", Path::new("/tmp/my root.pem"), action, system, false).await.expect("shows");
            assert!(!report.executed);
            assert!(report.commands[0].contains(says), "{report:?}");
        }
    }

    #[test]
    fn the_anchor_is_named_after_the_fingerprint_and_paths_are_quoted() {
        assert_eq!(anchor_name(&root()), "flm-abcdef01.crt");
        assert_eq!(quoted(Path::new("/a/b-c.pem")), "/a/b-c.pem");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
