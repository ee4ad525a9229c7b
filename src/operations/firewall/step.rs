//! The step that changes the machine: runs as root in a process of its own, does one thing and ends (ADR 0016).
//!
//! Order is everything here: the state before is on disk and a watchdog is armed before the first rule changes, and the
//! watchdog is told only after the new rules were looked at. Whatever ends this process meanwhile closes its pipe to the
//! watchdog, which then takes everything back.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::hands::{Hands, Lasts, Settle};
use super::record::{self, Change, Folder, KEPT_CHANGES};
use super::watch::{SOCKET, WATCH_COMMAND, Watched, Word};
use super::{BACKENDS, Backend, sessions, system};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{
    Exactness, FirewallDone, FirewallOrder, FirewallPhase, FirewallPlan, FirewallStep, Lasting, Reach, TakenBackCause,
};

/// The hidden command under which both programs do this step.
pub const STEP_COMMAND: &str = "__firewall-step";

/// How long a watchdog may take to say that it is armed: it reads a file and binds a socket.
const ARMING: Duration = Duration::from_secs(10);

/// Longest deadline, in seconds.
const DEADLINE_MAX: u32 = 3600;

/// Carries an order out.
///
/// # Errors
/// When this process is not root's, another change waits for its confirmation, or the machine refuses: the state is as it
/// was before then.
pub async fn carry_out(order: FirewallOrder, clock: &Clock) -> Outcome<FirewallDone> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "changing the firewall takes root"));
    }
    let folder = Folder::prepare(&order.folder)?;
    let _lock = folder.lock()?;
    let changes = folder.changes()?;
    let is_watched = is_watched(&order.folder).await;
    let pending = changes.last().is_some_and(|change| change.confirmed.is_none());
    if pending && is_watched {
        return Err(Failure::new(ErrorCode::InvalidArgument, "rules of FLM wait for their confirmation")
            .hint("keep them with 'flm firewall confirm', or take them back with 'flm firewall rollback'"));
    }
    match order.step {
        FirewallStep::Rollback { reach } => {
            let reach = match reach {
                Reach::Last => 1,
                Reach::All => changes.len(),
            };
            if changes.is_empty() {
                return Ok(FirewallDone::NothingToTakeBack);
            }
            let exactness = take_back(&folder, changes, reach, TakenBackCause::Asked, clock).await?;
            Ok(FirewallDone::TakenBack { exactness })
        }
        FirewallStep::Apply { .. } if pending => Err(Failure::new(
            ErrorCode::InvalidArgument,
            "rules of FLM were never confirmed, and nothing watches over them any more",
        )
        .hint("take them back first: flm firewall rollback")),
        FirewallStep::Apply { backend, plan, deadline_seconds } => {
            apply(&folder, &order.folder, changes, &backend, plan, deadline_seconds, clock).await
        }
    }
}

async fn apply(
    folder: &Folder,
    path: &Path,
    mut changes: Vec<Change>,
    backend: &str,
    mut plan: FirewallPlan,
    deadline_seconds: u32,
    clock: &Clock,
) -> Outcome<FirewallDone> {
    let (backend, hands) = with_hands(backend)?;
    if let Some(other) = changes.last().filter(|change| change.backend != backend.name) {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("rules of FLM are in force in {}, and would be twice there with {}", other.backend, backend.name),
        )
        .hint("take them back first: flm firewall rollback --all"));
    }
    (hands.ready)().await?;
    plan.ssh.extend(sessions::live());
    plan.ssh.sort_unstable();
    plan.ssh.dedup();
    if let Some(last) = changes.last()
        && last.plan == plan
        && last.own == Some((hands.own)().await?)
    {
        return Ok(FirewallDone::Unchanged);
    }

    let now = clock.wall();
    let change = Change {
        id: now.0.to_string(),
        at: now,
        backend: backend.name.to_owned(),
        plan: plan.clone(),
        boot: matches!(hands.lasts, Lasts::OnceConfirmed(_)).then(record::boot),
        lasting: match hands.lasts {
            Lasts::OverRestarts => Lasting::OverRestarts,
            Lasts::OnceConfirmed(_) => Lasting::UntilRestart,
        },
        before: (hands.save)().await?,
        own: None,
        confirmed: None,
    };
    let (id, before) = (change.id.clone(), change.before.clone());
    // The oldest state is the one without FLM, which the last rollback brings back.
    if changes.len() == KEPT_CHANGES {
        changes.remove(1);
    }
    changes.push(change);
    folder.keep_changes(&changes)?;
    folder.log(now, &id, format!("{}: saved the state, about to apply", backend.name))?;

    let watched =
        Watched { folder: path.to_owned(), id: id.clone(), deadline_seconds: deadline_seconds.clamp(1, DEADLINE_MAX) };
    let armed = match Watchdog::arm(&watched).await {
        Ok(watchdog) => watchdog,
        Err(failure) => {
            // Nothing was changed yet.
            changes.pop();
            folder.keep_changes(&changes)?;
            return Err(failure);
        }
    };
    let applied = async {
        (hands.apply)(plan.clone(), before).await?;
        let own = (hands.own)().await?;
        holds(&own, &plan)?;
        if let Some(last) = changes.last_mut() {
            last.own = Some(own);
        }
        folder.keep_changes(&changes)
    }
    .await;
    match applied {
        Ok(()) => match armed.tell("applied").await? {
            Word::Counting { until } => Ok(FirewallDone::Applied { until }),
            word => Err(told(word, "the watchdog took the new rules back at once")),
        },
        Err(failure) => {
            let word = armed.tell("failed").await?;
            Err(told(word, &failure.message))
        }
    }
}

fn with_hands(name: &str) -> Outcome<(&'static Backend, &'static Hands)> {
    let backend = BACKENDS.iter().find(|backend| backend.name == name);
    backend.and_then(|backend| Some((*backend, backend.hands.as_ref()?))).ok_or_else(|| {
        Failure::new(ErrorCode::InvalidArgument, format!("FLM does not apply rules of {name}, it only shows them"))
            .hint("run what 'flm firewall preview' shows yourself")
    })
}

/// Has the machine start with the rules of a change that was just confirmed.
///
/// # Errors
/// Why they end with a restart all the same.
pub(super) async fn have_last(change: &mut Change) -> Outcome<()> {
    if let Some(settle) = settling(&change.backend)? {
        change.outlives_restarts(settle(Some(change.plan.clone())).await?);
    }
    Ok(())
}

/// Has the machine start with what is in force now that other rules were taken back.
async fn start_with(changes: &[Change], backend: &str) -> Outcome<()> {
    let Some(settle) = settling(backend)? else { return Ok(()) };
    let lasting = changes.iter().rev().find(|change| change.confirmed.is_some());
    let plan = lasting.filter(|change| change.lasting == Lasting::OverRestarts).map(|change| change.plan.clone());
    settle(plan).await.map(drop)
}

fn settling(backend: &str) -> Outcome<Option<Settle>> {
    Ok(match with_hands(backend)?.1.lasts {
        Lasts::OverRestarts => None,
        Lasts::OnceConfirmed(settle) => Some(settle),
    })
}

/// Whether the machine has the rules of a change now.
///
/// # Errors
/// When the firewall does not tell.
pub(super) async fn are_loaded(backend: &str, plan: &FirewallPlan) -> Outcome<bool> {
    let own = (with_hands(backend)?.1.own)().await?;
    Ok(!own.is_empty() && holds(&own, plan).is_ok())
}

/// Whether the rules as the machine has them name every session and every port.
fn holds(own: &str, plan: &FirewallPlan) -> Outcome<()> {
    let sessions = plan.ssh.iter().map(|ssh| ssh.from.to_string());
    let wanted = sessions.chain(plan.ports.iter().map(u16::to_string));
    match wanted.into_iter().find(|wanted| !own.contains(wanted.as_str())) {
        None => Ok(()),
        Some(missing) => Err(Failure::new(
            ErrorCode::IoError,
            format!("the firewall took the rules, but {missing} is not in what it has now"),
        )),
    }
}

fn told(word: Word, why: &str) -> Failure {
    match word {
        Word::Back { exactness } => {
            let how = match exactness {
                Exactness::Exact => "the rules are what they were before",
                Exactness::OthersChanged => "FLM's rules are what they were before; others changed theirs meanwhile",
            };
            Failure::new(ErrorCode::IoError, format!("the rules could not be put in force: {why}; {how}"))
                .hint("mend what the message says and apply again; 'flm firewall preview' shows what is asked for")
        }
        Word::Stuck { why: stuck } => Failure::new(
            ErrorCode::IoError,
            format!("the rules could not be put in force ({why}) and not be taken back ({stuck})"),
        )
        .hint("'flm firewall rollback' tries again; 'flm firewall preview' shows how to take them back by hand"),
        Word::Armed | Word::Kept | Word::Counting { .. } => {
            Failure::new(ErrorCode::Internal, format!("the watchdog of the firewall answered out of turn ({why})"))
                .hint("see with 'flm firewall status' what is in force")
        }
    }
}

/// Puts the state before the last `count` changes back and notes it. Tries again where the machine refuses at first:
/// another program may hold the firewall's lock.
pub(super) async fn take_back(
    folder: &Folder,
    mut changes: Vec<Change>,
    count: usize,
    cause: TakenBackCause,
    clock: &Clock,
) -> Outcome<Exactness> {
    const TRIES: u32 = 5;
    const PAUSE: Duration = Duration::from_secs(1);
    let first = changes.len().saturating_sub(count.max(1));
    let (Some(oldest), Some(newest)) = (changes.get(first).cloned(), changes.last().cloned()) else {
        return Err(Failure::new(ErrorCode::NotFound, "there is no rule of FLM to take back"));
    };
    let (_, hands) = with_hands(&oldest.backend)?;
    let mut tries = 0;
    let restored = loop {
        tries += 1;
        let restored = async {
            (hands.restore)(oldest.before.clone()).await?;
            // What would come back with the next start of the machine is not taken back. Where nothing was ever made to last there
            // is nothing to forget.
            let lasted = changes[first..].iter().any(|change| change.lasting == Lasting::OverRestarts);
            if lasted { start_with(&changes[..first], &oldest.backend).await } else { Ok(()) }
        };
        match restored.await {
            Err(failure) if tries < TRIES => {
                folder.log(
                    clock.wall(),
                    &newest.id,
                    format!("taking back failed, tried again: {}", failure.message),
                )?;
                // Nothing announces that another program lets go of the firewall.
                tokio::time::sleep(PAUSE).await;
            }
            ended => break ended,
        }
    };
    let at = clock.wall();
    if let Err(failure) = restored {
        folder.log(at, &newest.id, format!("could not be taken back: {}", failure.message))?;
        folder.show(newest.record(FirewallPhase::Stuck { at, why: failure.message.clone() }), &changes)?;
        return Err(failure.hint("try again with 'flm firewall rollback'; 'flm firewall preview' shows how by hand"));
    }
    let exactness = match (hands.snapshot)().await {
        Ok(now) if now == oldest.before.snapshot => Exactness::Exact,
        _ => Exactness::OthersChanged,
    };
    changes.truncate(first);
    folder.keep_changes(&changes)?;
    folder.log(at, &newest.id, record::taken_back(cause, exactness))?;
    folder.show(newest.record(FirewallPhase::TakenBack { at, cause, exactness }), &changes)?;
    Ok(exactness)
}

/// Whether a watchdog listens.
async fn is_watched(folder: &Path) -> bool {
    let Ok(dir) = record::open_path(folder) else { return false };
    UnixStream::connect(record::inside(&dir, SOCKET)).await.is_ok()
}

/// A watchdog that is armed and waits for a word.
struct Watchdog {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    // Not waited for: it outlives this process.
    _child: Child,
}

impl Watchdog {
    /// Starts one and waits until it is armed: as a unit of systemd's where that rules the machine, so that neither the end
    /// of a login session nor that of a service takes it along, else as a process in a session of its own.
    async fn arm(watched: &Watched) -> Outcome<Self> {
        let program = std::env::current_exe().map_err(|error| failed(&error.to_string()))?;
        if system::rules_the_machine() {
            let mut unit = Command::new(system::find("systemd-run").unwrap_or_else(|| "systemd-run".into()));
            unit.args(["--quiet", "--pipe", "--collect", "--service-type=exec"]);
            unit.arg(format!("--unit=flm-firewall-{}", watched.id)).arg("--").arg(&program).arg(WATCH_COMMAND);
            match Self::start(unit, watched).await {
                Ok(watchdog) => return Ok(watchdog),
                Err(failure) => {
                    tracing::warn!(why = failure.message, "systemd does not run the watchdog; started without it");
                }
            }
        }
        let mut plain = Command::new(program);
        plain.arg(WATCH_COMMAND);
        Self::start(plain, watched).await
    }

    async fn start(mut command: Command, watched: &Watched) -> Outcome<Self> {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(&error.to_string()))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no pipes"));
        };
        let mut watchdog = Self { stdin, stdout: BufReader::new(stdout), _child: child };
        let order = serde_json::to_string(watched).map_err(|error| failed(&error.to_string()))?;
        let armed = async {
            watchdog.say(&order).await?;
            watchdog.hear().await
        };
        match tokio::time::timeout(ARMING, armed).await {
            Ok(Ok(Word::Armed)) => Ok(watchdog),
            Ok(Ok(_)) => Err(failed("it answered out of turn")),
            Ok(Err(failure)) => Err(failure),
            Err(_elapsed) => Err(failed("it did not answer in time")),
        }
    }

    /// Tells it how applying went, and hears what it made of that.
    async fn tell(mut self, word: &str) -> Outcome<Word> {
        self.say(word).await?;
        self.hear().await
    }

    async fn say(&mut self, line: &str) -> Outcome<()> {
        let line = format!("{line}\n");
        self.stdin.write_all(line.as_bytes()).await.map_err(|error| failed(&error.to_string()))
    }

    async fn hear(&mut self) -> Outcome<Word> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).await.map_err(|error| failed(&error.to_string()))?;
        serde_json::from_str(&line).map_err(|_| failed("it ended without a word"))
    }
}

fn failed(why: &str) -> Failure {
    Failure::new(ErrorCode::IoError, format!("the watchdog that takes unconfirmed rules back does not run: {why}"))
        .hint("nothing was changed: without it no rule is put in force")
}
