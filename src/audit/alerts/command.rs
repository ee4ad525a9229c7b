//! Commands: a program of this machine with the message as JSON on stdin (SPEC §5.10). No shell, nothing of FLM's own
//! environment, and 10 s, after which it is killed with everything that it started.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::{Again, Fault, Message, TRY_LIMIT};
use crate::types::text::escape;

/// What the program finds programs with; FLM's own may hold secrets and is not handed on.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Of what the program says on stderr.
const TOLD: usize = 300;

/// Runs it once.
pub(super) async fn deliver(program: &str, arguments: &[String], message: &Message) -> Result<(), Fault> {
    run(program, arguments, message, TRY_LIMIT).await
}

async fn run(program: &str, arguments: &[String], message: &Message, limit: Duration) -> Result<(), Fault> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .env("FLM_ALERT_ID", &message.id)
        .env("FLM_ALERT_CHANNEL", message.channel.as_str())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Fault::new(Again::Soon, format!("{} cannot be started: {error}", escape(program))))?;
    // Also kills the group when this future is dropped: the owner ends, or the channel was changed.
    let group = Group(child.id());
    match tokio::time::timeout(limit, attend(&mut child, message)).await {
        Ok(ended) => {
            // Whatever it left running on purpose may go on.
            group.leave();
            ended
        }
        Err(_elapsed) => {
            drop(group);
            Err(Fault::new(Again::Soon, format!("it did not end within {} s and was killed", limit.as_secs())))
        }
    }
}

/// Feeds it, listens to what it complains about, and waits for its end.
async fn attend(child: &mut Child, message: &Message) -> Result<(), Fault> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let json = message.json();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read is no fault.
            let _unread = stdin.write_all(&json).await;
            let _unread = stdin.shutdown().await;
        }
    };
    let mut said = Vec::new();
    let listen = async {
        let Some(mut stderr) = stderr else { return };
        let mut piece = [0; 1024];
        while let Ok(count) = stderr.read(&mut piece).await
            && count > 0
        {
            let room = TOLD.saturating_sub(said.len());
            said.extend_from_slice(&piece[..count.min(room)]);
        }
    };
    let ended = {
        let (feed, listen) = (std::pin::pin!(feed), std::pin::pin!(listen));
        let mut talk = std::pin::pin!(futures_util::future::join(feed, listen));
        let mut talking = true;
        loop {
            tokio::select! {
                biased;
                _both = &mut talk, if talking => talking = false,
                ended = child.wait() => break ended,
            }
        }
    };
    let status = ended.map_err(|error| Fault::new(Again::Soon, format!("its end was not seen: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let said = if said.trim().is_empty() { String::new() } else { format!(": {}", escape(said.trim())) };
    Err(Fault::new(Again::Soon, format!("it ended with {status}{said}")))
}

/// The program and what it started; killed when dropped.
struct Group(Option<u32>);

impl Group {
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(pid) = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else { return };
        // An error says that nobody of the group is left.
        let _all_gone = kill_process_group(pid, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::alert::ChannelId;
    use crate::types::clock::UnixMillis;

    fn message() -> Message {
        Message::test(&ChannelId::parse("run").expect("a name"), UnixMillis(5))
    }

    /// A script of its own, written by another process: while this one holds it open, a child that another test begins would
    /// inherit the handle, and nobody could run it ("text file busy").
    fn script(folder: &tempfile::TempDir, text: &str) -> String {
        let path = folder.path().join("script");
        let text = format!("#!/bin/sh\n{text}\n");
        let written = std::process::Command::new("/bin/sh")
            .args(["-c", r#"printf %s "$2" > "$1" && chmod 700 "$1""#, "sh"])
            .arg(&path)
            .arg(&text)
            .status();
        assert!(written.expect("a shell").success());
        path.to_string_lossy().into_owned()
    }

    #[tokio::test]
    async fn it_gets_the_event_its_arguments_as_they_are_and_nothing_of_flms_environment() {
        let folder = tempfile::tempdir().expect("folder");
        let out = folder.path().join("out").to_string_lossy().into_owned();
        let program = script(&folder, "cat > \"$1.in\"; env > \"$1.env\"; printf '%s' \"$2\" > \"$1.arg\"");
        let hostile = "$(touch /tmp/never); `id` | x".to_owned();
        run(&program, &[out.clone(), hostile.clone()], &message(), Duration::from_secs(10)).await.expect("runs");
        let read = |suffix: &str| std::fs::read_to_string(format!("{out}.{suffix}")).expect(suffix);
        assert_eq!(read("arg"), hostile);
        assert_eq!(read("in").as_bytes(), message().json());
        let names: Vec<_> = read("env").lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
        let known = ["PATH", "LANG", "FLM_ALERT_ID", "FLM_ALERT_CHANNEL", "PWD", "OLDPWD", "SHLVL", "_"];
        assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_its_children() {
        let folder = tempfile::tempdir().expect("folder");
        let pids = folder.path().join("pids");
        let text = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
        let fault =
            run(&script(&folder, &text), &[], &message(), Duration::from_millis(700)).await.expect_err("killed");
        assert!(fault.reason.contains("was killed"), "{}", fault.reason);
        let pids = std::fs::read_to_string(pids).expect("it ran");
        for pid in pids.split_whitespace() {
            // Killed; a zombie whose parent has not looked yet counts as gone.
            let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
                Err(_) => true,
            };
            let waiting = async {
                while !gone() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap_or_else(|_| panic!("{pid} lives"));
        }
    }

    #[tokio::test]
    async fn its_complaint_is_told_made_safe_and_what_does_not_read_is_fine() {
        let folder = tempfile::tempdir().expect("folder");
        let fault = run(&script(&folder, "printf 'no \\033[2J mail' >&2; exit 3"), &[], &message(), TRY_LIMIT).await;
        let fault = fault.expect_err("failed");
        assert!(fault.reason.contains("exit status: 3: no \\x1b[2J mail"), "{}", fault.reason);
        run(&script(&folder, "exec <&-; exit 0"), &[], &message(), TRY_LIMIT).await.expect("runs");
        // What goes on in the background neither holds it up nor is killed.
        run(&script(&folder, "sleep 1 & exit 0"), &[], &message(), TRY_LIMIT).await.expect("runs");
        assert!(
            run("/nowhere/x", &[], &message(), TRY_LIMIT)
                .await
                .expect_err("is not there")
                .reason
                .contains("/nowhere/x")
        );
    }
}
