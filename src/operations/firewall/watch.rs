//! The watchdog: takes rules back that nobody confirms (ADR 0016).
//!
//! A process of its own, in a session of its own, as root, that holds all it needs in memory. It hears of the new rules
//! through a pipe from the step that makes them, and of the operator's decision through a socket that only root and the
//! home's owner may use. Every way in which it can be told to end, and every way in which the step can end early, takes the
//! rules back; only the word `keep` keeps them.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use super::record::{self, Change, Folder};
use super::step;
use crate::types::calls::firewall::Decision;
use crate::types::clock::{Clock, UnixMillis};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{Exactness, FirewallPhase, TakenBackCause};

/// The hidden command under which both programs watch.
pub const WATCH_COMMAND: &str = "__firewall-watch";

/// The watchdog's socket in the firewall's folder.
pub(super) const SOCKET: &str = "watch.sock";

/// How long applying may take: a step that hangs is as good as one that ended.
const APPLYING: Duration = Duration::from_secs(120);

/// How long somebody at the socket may take for a word.
const WORD: Duration = Duration::from_secs(5);

/// What it watches over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Watched {
    /// Where the records are.
    pub(super) folder: PathBuf,
    /// Which change.
    pub(super) id: String,
    /// Seconds until it is taken back.
    pub(super) deadline_seconds: u32,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub(super) enum Word {
    /// Rules may be changed now.
    Armed,
    /// The rules are in force until then.
    Counting {
        /// When they are taken back.
        until: UnixMillis,
    },
    /// The rules stay.
    Kept,
    /// The rules were taken back.
    Back {
        /// How well.
        exactness: Exactness,
    },
    /// The rules could not be taken back.
    Stuck {
        /// Why.
        why: String,
    },
}

/// What ended the watch.
enum End {
    Keep,
    Back(TakenBackCause),
}

/// Watches over one change, as ordered on stdin, and ends with it.
///
/// # Errors
/// When the order or the records cannot be read: nothing was changed then.
pub async fn watch(clock: &Clock) -> Outcome<()> {
    // A session of its own: a terminal that goes away takes its processes along. systemd has given one already.
    let _leader_already = rustix::process::setsid();
    prefer_to_live();
    let mut terminated = heard(SignalKind::terminate())?;
    let mut interrupted = heard(SignalKind::interrupt())?;
    let mut hung_up = heard(SignalKind::hangup())?;

    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| unreadable(&error.to_string()))?;
    let stdin = pipe::Receiver::from_owned_fd(stdin).map_err(|error| unreadable(&error.to_string()))?;
    let mut stdin = BufReader::new(stdin).lines();
    let order = stdin.next_line().await.ok().flatten().unwrap_or_default();
    let watched: Watched = serde_json::from_str(&order).map_err(|error| unreadable(&error.to_string()))?;
    let folder = Folder::prepare(&watched.folder)?;
    let changes = folder.changes()?;
    let mut changes = Some(changes)
        .filter(|changes| changes.last().is_some_and(|last| last.id == watched.id))
        .ok_or_else(|| unreadable("the records do not know the change"))?;
    folder.forget(SOCKET);
    let socket = UnixListener::bind(folder.at(SOCKET)).map_err(|error| unreadable(&error.to_string()))?;
    folder.give_away(SOCKET)?;
    say(&Word::Armed);

    let applied = tokio::select! {
        word = stdin.next_line() => word.ok().flatten().unwrap_or_default(),
        () = tokio::time::sleep(APPLYING) => String::new(),
        _ = terminated.recv() => String::new(),
        _ = interrupted.recv() => String::new(),
    };
    let cause = match applied.as_str() {
        "applied" => None,
        "failed" => Some(TakenBackCause::Failed),
        _ => Some(TakenBackCause::Interrupted),
    };
    if let Some(cause) = cause {
        say(&back(&folder, changes, cause, clock).await);
        folder.forget(SOCKET);
        return Ok(());
    }

    // The step has looked at the rules since, and noted how they look.
    changes = folder.changes().unwrap_or(changes);
    let deadline = Duration::from_secs(u64::from(watched.deadline_seconds));
    let until = clock.wall().plus(deadline);
    let ending = tokio::time::sleep(deadline);
    let noted = changes.last().map_or(Ok(()), |last| {
        folder.log(
            clock.wall(),
            &last.id,
            format!("applied; taken back in {} s unless confirmed", watched.deadline_seconds),
        )?;
        folder.show(last.record(FirewallPhase::Pending { until }), &changes)
    });
    if let Err(failure) = noted {
        tracing::warn!(why = failure.message, "a change of the firewall could not be noted");
    }
    say(&Word::Counting { until });
    drop(stdin);

    tokio::pin!(ending);
    let (end, mut asked) = loop {
        tokio::select! {
            () = &mut ending => break (End::Back(TakenBackCause::Unconfirmed), None),
            _ = terminated.recv() => break (End::Back(TakenBackCause::Interrupted), None),
            _ = interrupted.recv() => break (End::Back(TakenBackCause::Interrupted), None),
            // The terminal that it came from is gone, which is what it is there for.
            _ = hung_up.recv() => {}
            Ok((mut stream, _)) = socket.accept() => {
                // Somebody who connects and says nothing does not hold the deadline up.
                let word = tokio::select! {
                    () = &mut ending => break (End::Back(TakenBackCause::Unconfirmed), None),
                    word = tokio::time::timeout(WORD, word_of(&mut stream)) => word.unwrap_or_default(),
                };
                match word.as_str() {
                    "keep" => break (End::Keep, Some(stream)),
                    "take_back" => break (End::Back(TakenBackCause::Asked), Some(stream)),
                    _ => answer(Some(&mut stream), &Word::Counting { until }).await,
                }
            }
        }
    };
    let word = match end {
        End::Keep => keep(&folder, &mut changes, clock).await,
        End::Back(cause) => back(&folder, changes, cause, clock).await,
    };
    folder.forget(SOCKET);
    answer(asked.as_mut(), &word).await;
    Ok(())
}

async fn keep(folder: &Folder, changes: &mut [Change], clock: &Clock) -> Word {
    let now = clock.wall();
    let noted = async {
        let Some(last) = changes.last_mut() else { return Err(unreadable("the change is not known")) };
        last.confirmed = Some(now);
        // First of all, so that they stay whatever ends this process while the rest is done.
        note_kept(folder, changes, now)?;
        let Some(last) = changes.last_mut() else { return Ok(()) };
        let id = last.id.clone();
        let said = match step::have_last(last).await {
            Ok(()) => "confirmed: the rules stay, also after a restart of the machine".to_owned(),
            Err(failure) => format!("confirmed: the rules stay until the machine is restarted ({})", failure.message),
        };
        folder.log(now, &id, said)?;
        note_kept(folder, changes, now)
    };
    match noted.await {
        Ok(()) => Word::Kept,
        // They stay all the same: somebody said so.
        Err(failure) => Word::Stuck { why: format!("the rules stay, which could not be noted: {}", failure.message) },
    }
}

fn note_kept(folder: &Folder, changes: &[Change], since: UnixMillis) -> Outcome<()> {
    folder.keep_changes(changes)?;
    changes.last().map_or(Ok(()), |last| folder.show(last.record(FirewallPhase::InForce { since }), changes))
}

async fn back(folder: &Folder, changes: Vec<Change>, cause: TakenBackCause, clock: &Clock) -> Word {
    match step::take_back(folder, changes, 1, cause, clock).await {
        Ok(exactness) => Word::Back { exactness },
        Err(failure) => Word::Stuck { why: failure.message },
    }
}

fn heard(kind: SignalKind) -> Outcome<tokio::signal::unix::Signal> {
    signal(kind).map_err(|error| unreadable(&format!("signals are not heard: {error}")))
}

/// Where memory is short, another process is ended first (proc(5), `oom_score_adj`).
fn prefer_to_live() {
    let adjusted = std::fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj");
    // A kernel without it ends whom it wants.
    let _unadjusted = adjusted.and_then(|mut file| std::io::Write::write_all(&mut file, b"-900"));
}

/// To the step, which may be gone.
fn say(word: &Word) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let _step_gone = writeln!(stdout, "{}", text(word)).and_then(|()| stdout.flush());
}

async fn answer(stream: Option<&mut UnixStream>, word: &Word) {
    if let Some(stream) = stream {
        let line = format!("{}\n", text(word));
        let _asker_gone = tokio::time::timeout(WORD, stream.write_all(line.as_bytes())).await;
    }
}

fn text(word: &Word) -> String {
    serde_json::to_string(word).unwrap_or_default()
}

async fn word_of(stream: &mut UnixStream) -> String {
    let mut word = String::new();
    let mut reader = BufReader::new(stream.take(64));
    let _incomplete = reader.read_line(&mut word).await;
    word.trim().to_owned()
}

fn unreadable(why: &str) -> Failure {
    Failure::new(ErrorCode::IoError, format!("the watchdog of the firewall cannot begin: {why}"))
}

/// Tells a running watchdog what the operator decided; `None` when none runs, or it ended before it heard.
pub(super) async fn decide(folder: &Path, decision: Decision) -> Option<Word> {
    let word = match decision {
        Decision::Keep => "keep",
        Decision::TakeBack => "take_back",
    };
    ask(folder, word).await
}

/// Whether a watchdog counts.
pub(super) async fn counts(folder: &Path) -> bool {
    ask(folder, "look").await.is_some()
}

async fn ask(folder: &Path, word: &str) -> Option<Word> {
    // The home's owner may pass through the folder without listing it.
    let dir = record::open_path(folder).ok()?;
    let mut stream = UnixStream::connect(record::inside(&dir, SOCKET)).await.ok()?;
    stream.write_all(format!("{word}\n").as_bytes()).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}
