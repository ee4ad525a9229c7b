//! DNS provider `exec`: a program of the operator's own sets and removes the record.
//!
//! It is called as `PROGRAM present|cleanup NAME VALUE`, without a shell, with a time limit, and with an environment that
//! holds `PATH`, `HOME`, `LANG`, the two variables that hooks of certbot read (`CERTBOT_DOMAIN`, `CERTBOT_VALIDATION`) and the
//! secret that the settings name as `FLM_DNS_SECRET`: nothing else of FLM's own environment is its business.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use super::provider::{Fault, Provider, Record};
use crate::config::files;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// How long one call may take: APIs of DNS providers answer within seconds.
const LIMIT: Duration = Duration::from_secs(30);
/// How much of what it complains is read, bytes.
const COMPLAINT: u64 = 4 << 10;
/// How much of that is shown.
const SHOWN: usize = 300;

/// A program.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) program: PathBuf,
    pub(super) secret: Option<Secret>,
}

impl Hook {
    async fn call(&self, action: &'static str, record: &Record) -> Result<(), Fault> {
        let hint = format!("try it by hand: {} {action} {} VALUE", self.shown(), record.name);
        let failed = |reason: String| Fault::new(reason, hint.clone());
        let name = record.name.to_string();
        let mut command = Command::new(&self.program);
        command
            .args([action, &name, &record.value])
            .env_clear()
            .envs(["PATH", "HOME", "LANG"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("CERTBOT_DOMAIN", name.strip_prefix("_acme-challenge.").unwrap_or(&name))
            .env("CERTBOT_VALIDATION", &record.value)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own, so that what it starts ends with it.
            .process_group(0)
            .kill_on_drop(true);
        if let Some(secret) = &self.secret {
            command.env("FLM_DNS_SECRET", secret.expose());
        }
        let unfit = |why: String| {
            let hint = "check acme.dns.command: the file must be there, executable, and no other user's to write";
            Fault::new(format!("{} cannot be started: {why}", self.shown()), hint)
        };
        // It has the secret, and FLM's own rights.
        let program = self.program.clone();
        let looked = tokio::task::spawn_blocking(move || files::program_fault(&program)).await;
        match looked.map_err(|error| failed(error.to_string()))? {
            Ok(None) => {}
            Ok(Some(fault)) => return Err(unfit(fault.to_owned())),
            Err(error) => return Err(unfit(error.to_string())),
        }
        let child = command.spawn().map_err(|error| unfit(error.to_string()))?;
        let mut group = Group(child);
        let complaint = group.0.stderr.take();
        let run = async {
            let mut said = Vec::new();
            if let Some(pipe) = complaint {
                let mut some = pipe.take(COMPLAINT);
                some.read_to_end(&mut said).await?;
                // It must not wait for somebody to read the rest.
                tokio::io::copy(&mut some.into_inner(), &mut tokio::io::sink()).await?;
            }
            group.0.wait().await.map(|status| (status, said))
        };
        let (status, said) = match tokio::time::timeout(LIMIT, run).await {
            Ok(ended) => ended.map_err(|error| failed(format!("{} was lost: {error}", self.shown())))?,
            Err(_elapsed) => {
                return Err(failed(format!(
                    "{} did not end within {} s and was killed",
                    self.shown(),
                    LIMIT.as_secs()
                )));
            }
        };
        if status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&said).trim().chars().take(SHOWN).collect();
        let said = if said.is_empty() { "it said nothing".into() } else { escape(&said) };
        Err(failed(format!("{} {action} ended with {status}: {said}", self.shown())))
    }

    fn shown(&self) -> String {
        escape(&self.program.to_string_lossy()).into_owned()
    }
}

/// A program with all that it started; killed when dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = id {
            // Fails when all of it has ended already.
            let _ended_already = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

impl Provider for Hook {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn set<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.call("present", record))
    }

    fn remove<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.call("cleanup", record))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::net::dns::message::Name;

    fn record() -> Record {
        Record { name: Name::parse("_acme-challenge.llm.example").expect("a name"), value: "va$(id)lue".into() }
    }

    fn hook(folder: &tempfile::TempDir, script: &str) -> Hook {
        let program = folder.path().join("hook");
        files::replace(&program, script.as_bytes(), files::Audience::Owner).expect("writes");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("executable");
        Hook { program, secret: Some(Secret::new("token".into())) }
    }

    #[tokio::test]
    async fn the_program_gets_name_value_and_secret_without_a_shell_and_nothing_else_of_the_environment() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = folder.path().join("told");
        let script = format!(
            "#!/bin/sh\nprintf '%s|' \"$@\" \"$CERTBOT_DOMAIN\" \"$CERTBOT_VALIDATION\" \"$FLM_DNS_SECRET\" \"$CARGO_MANIFEST_DIR\" >>{}\n",
            told.display()
        );
        let hook = hook(&folder, &script);
        hook.set(&record()).await.expect("sets");
        hook.remove(&record()).await.expect("removes");
        let told = files::read_to_string(&told).expect("told");
        let one =
            |action: &str| format!("{action}|_acme-challenge.llm.example|va$(id)lue|llm.example|va$(id)lue|token||");
        assert_eq!(told, one("present") + &one("cleanup"));
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_words() {
        let folder = tempfile::tempdir().expect("a folder");
        let hook = hook(&folder, "#!/bin/sh\necho 'no\x1b[31m such zone' >&2\nexit 3\n");
        let fault = hook.set(&record()).await.expect_err("fails");
        assert!(fault.reason.contains("no\\x1b[31m such zone") && fault.reason.contains('3'), "{}", fault.reason);
        assert!(fault.hint.contains("present _acme-challenge.llm.example"), "{}", fault.hint);
        std::fs::set_permissions(&hook.program, std::fs::Permissions::from_mode(0o777)).expect("open");
        let open = hook.set(&record()).await.expect_err("anybody could have written it");
        assert!(open.reason.contains("others may write to it"), "{}", open.reason);
        let gone = Hook { program: folder.path().join("gone"), secret: None };
        assert!(gone.set(&record()).await.expect_err("is not there").hint.contains("acme.dns.command"));
    }

    #[tokio::test]
    async fn a_program_that_is_broken_off_ends_with_all_that_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid = folder.path().join("pid");
        let script = format!("#!/bin/sh\nsleep 300 &\necho $! >{0}.new\nmv {0}.new {0}\nwait\n", pid.display());
        let hook = hook(&folder, &script);
        let record = record();
        let mut running = hook.set(&record);
        let started = async {
            while !files::exists(&pid).expect("looks") {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = &mut running => panic!("it ended: {ended:?}"),
            () = started => {}
        }
        drop(running);
        let pid = files::read_to_string(&pid).expect("reads");
        let child = rustix::process::Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process");
        let deadline = std::time::Duration::from_secs(10);
        let gone = async {
            // A zombie is gone too: nobody waits for it but the init of this container.
            let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
            while state().is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(deadline, gone).await.expect("killed in time");
    }
}
