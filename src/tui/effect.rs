//! Effects: what an update asks of the world outside, and the courier that carries operator calls out.
//!
//! The console's only I/O besides the terminal. `update` answers [`Effect`]s; the loop in `tui` hands calls to
//! the [`Courier`], whose tasks send the answer back as an action. Must never touch the state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::files::{self, Audience};
use crate::control::firewall::{self, Asking};
use crate::control::{Operator, Step};
use crate::telemetry::tasks::Tasks;
use crate::tui::action::Action;
use crate::tui::{Attached, Connect, ConsoleEnd};
use crate::types::calls::addresses::{
    AddBlock, AddNetwork, ClearBlocks, ImportBlocks, ListBlocks, ListNetworks, RemoveBlock, RemoveNetwork,
};
use crate::types::calls::alerts::{
    AddAlertChannel, EditAlertChannel, ListAlertChannels, ListInbox, MarkRead, RemoveAlertChannel, TestAlertChannel,
};
use crate::types::calls::audit::ListAudit;
use crate::types::calls::backup::{BackupProgress, CreateBackup};
use crate::types::calls::captures::{ClearCaptures, ListCaptures, ReplayCapture, ShowCapture};
use crate::types::calls::chat::{Chat, ChatProgress};
use crate::types::calls::comparisons::{
    CompareModels, DeleteComparison, ListComparisons, SaveComparison, ShowComparison,
};
use crate::types::calls::engines::{AddEngine, DetectEngines, EditEngine, EngineHealth, ListEngineKinds, RemoveEngine};
use crate::types::calls::expose::ExposeCheck;
use crate::types::calls::firewall::{DecideFirewall, PreviewFirewall, RecordFirewall, ShowFirewall};
use crate::types::calls::keys::{
    CreateKey, EditKey, EnsureFirstKey, ListKeys, PreviewLeak, RevokeKey, RevokeLeaked, RotateKey,
};
use crate::types::calls::legacy::{ApplyLegacy, LegacyProgress, PlanLegacy};
use crate::types::calls::models::{DeleteModel, LoadModel, LoadProgress, PullModel, RefreshModels, UnloadModel};
use crate::types::calls::policy::{SetPolicy, ShowPolicy};
use crate::types::calls::profiles::{DeleteProfile, ListProfiles, SaveProfile};
use crate::types::calls::prompts::{
    DeletePrompt, ListPromptRoutes, ListPrompts, PreviewPrompt, PromptHistory, SetPrompt,
};
use crate::types::calls::proxy::{Reload, StartListener, StopListener};
use crate::types::calls::publish::CheckPublish;
use crate::types::calls::replay::SecurityStats;
use crate::types::calls::requests::PageRequests;
use crate::types::calls::settings::{ListSettings, SetSetting, UnsetSetting};
use crate::types::calls::usage::ShowUsage;
use crate::types::calls::{Access, Call, LongCall};
use crate::types::clock::Clock;
use crate::types::comparison::CompareProgress;
use crate::types::engine::TransferProgress;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::firewall::{FirewallDone, FirewallOrder};
use crate::types::text::escape;

/// Names one call, so that a form knows its answer from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What an update asks for.
#[derive(Debug)]
pub enum Effect {
    /// Run an operation and answer with the ticket.
    Call {
        /// Comes back in the answer.
        ticket: Ticket,
        /// What to run.
        request: Request,
    },
    /// Leave a call on its way: one that only reads or takes long ends, of any other the answer is not waited for.
    Leave(Ticket),
    /// Put text on the clipboard of the person's terminal (OSC 52).
    Copy(String),
    /// Write a file that is not there yet; answered with [`Action::Written`].
    Write {
        /// Comes back in the answer.
        ticket: Ticket,
        /// Which file.
        path: PathBuf,
        /// What it is to hold.
        content: String,
    },
    /// Read a text file; answered with [`Action::FileRead`].
    Read {
        /// Comes back in the answer.
        ticket: Ticket,
        /// Which file.
        path: PathBuf,
    },
    /// Make the person's terminal call them (`console.notify`).
    Notify(Notification),
    /// Draw everything anew.
    Repaint,
    /// Give the terminal back and stop until continued.
    Suspend,
    /// Report mouse clicks or leave the mouse to the terminal.
    Mouse(MouseUse),
    /// Leave the console.
    End(ConsoleEnd),
}

/// Who gets the mouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MouseUse {
    /// The console: clicks and wheel.
    Console,
    /// The terminal: selecting text.
    Terminal,
}

/// What a terminal does to call its person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// A message of the desktop (OSC 9), which some terminals show; escaped.
    pub message: Option<String>,
    /// The bell.
    pub bell: Bell,
}

/// Whether the bell rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bell {
    /// It rings.
    Rings,
    /// It does not.
    Silent,
}

/// An operation's answer.
#[derive(Debug)]
pub struct Answer {
    /// Of the call.
    pub ticket: Ticket,
    /// What came back.
    pub reply: Reply,
}

/// How far a call is that takes long.
#[derive(Debug)]
pub struct Progressed {
    /// Of the call.
    pub ticket: Ticket,
    /// What it tells.
    pub told: Told,
}

/// What calls that take long tell on their way.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A model is being loaded.
    Load(LoadProgress),
    /// A model is being fetched.
    Transfer(TransferProgress),
    /// A model answers.
    Chat(ChatProgress),
    /// Models answer the same question.
    Compare(CompareProgress),
    /// Databases are copied.
    Backup(BackupProgress),
    /// What the old program left is moved in.
    Legacy(LegacyProgress),
}

impl From<LegacyProgress> for Told {
    fn from(progress: LegacyProgress) -> Self {
        Self::Legacy(progress)
    }
}

impl From<BackupProgress> for Told {
    fn from(progress: BackupProgress) -> Self {
        Self::Backup(progress)
    }
}

impl From<ChatProgress> for Told {
    fn from(progress: ChatProgress) -> Self {
        Self::Chat(progress)
    }
}

impl From<CompareProgress> for Told {
    fn from(progress: CompareProgress) -> Self {
        Self::Compare(progress)
    }
}

impl From<LoadProgress> for Told {
    fn from(progress: LoadProgress) -> Self {
        Self::Load(progress)
    }
}

impl From<TransferProgress> for Told {
    fn from(progress: TransferProgress) -> Self {
        Self::Transfer(progress)
    }
}

/// Runs a call that takes long, and hands on how far it is.
async fn follow_call<C: LongCall>(
    operator: &Operator,
    call: &C,
    ticket: Ticket,
    answers: &mpsc::Sender<Action>,
) -> Outcome<C::Output>
where
    Told: From<C::Progress>,
{
    let mut following = operator.follow(call).await?;
    loop {
        match following.next().await? {
            Step::Done(output) => return Ok(output),
            Step::Progress(progress) => {
                let told = Progressed { ticket, told: progress.into() };
                // An error only says that the console has ended.
                let _console_gone = answers.send(Action::Progressed(Box::new(told))).await;
            }
        }
    }
}

macro_rules! requests {
    (short { $($name:ident),* $(,)? } long { $($long:ident),* $(,)? }) => {
        /// A call of the operator as a value.
        #[derive(Debug, Clone)]
        pub enum Request {
            $(#[doc = concat!("See `", stringify!($name), "`.")] $name($name),)*
            $(#[doc = concat!("See `", stringify!($long), "`.")] $long($long),)*
            /// The one step that root takes. No operation of the owner: this process asks for it.
            FirewallOrder(FirewallOrder),
        }

        /// A call with its outcome.
        #[derive(Debug)]
        pub enum Reply {
            $(#[doc = concat!("Of `", stringify!($name), "`.")] $name($name, Outcome<<$name as Call>::Output>),)*
            $(#[doc = concat!("Of `", stringify!($long), "`.")] $long($long, Outcome<<$long as Call>::Output>),)*
            /// Of a step that root took.
            FirewallOrder(FirewallOrder, Outcome<FirewallDone>),
        }

        impl From<FirewallOrder> for Request {
            fn from(order: FirewallOrder) -> Self {
                Self::FirewallOrder(order)
            }
        }

        $(impl From<$name> for Request {
            fn from(call: $name) -> Self {
                Self::$name(call)
            }
        })*
        $(impl From<$long> for Request {
            fn from(call: $long) -> Self {
                Self::$long(call)
            }
        })*

        impl Request {
            /// The name of each call with what it does to the home.
            pub const ALL: &[(&str, Access)] =
                &[$((stringify!($name), $name::ACCESS),)* $((stringify!($long), $long::ACCESS),)*];

            /// What it does to the home.
            #[must_use]
            pub fn access(&self) -> Access {
                match self {
                    $(Self::$name(_) => $name::ACCESS,)*
                    $(Self::$long(_) => $long::ACCESS,)*
                    Self::FirewallOrder(_) => Access::Changes,
                }
            }

            /// The reply when it could not even be sent.
            #[must_use]
            pub fn failed(self, failure: Failure) -> Reply {
                match self {
                    $(Self::$name(call) => Reply::$name(call, Err(failure)),)*
                    $(Self::$long(call) => Reply::$long(call, Err(failure)),)*
                    Self::FirewallOrder(order) => Reply::FirewallOrder(order, Err(failure)),
                }
            }

            async fn run(self, operator: &Operator, ticket: Ticket, answers: &mpsc::Sender<Action>) -> Reply {
                match self {
                    $(Self::$name(call) => {
                        let outcome = operator.call(call.clone()).await;
                        Reply::$name(call, outcome)
                    })*
                    $(Self::$long(call) => {
                        let outcome = follow_call(operator, &call, ticket, answers).await;
                        Reply::$long(call, outcome)
                    })*
                    Self::FirewallOrder(order) => {
                        // The terminal shows the console: nobody can be asked for a password in it.
                        let outcome = firewall::carry_out(&order, Asking::Nowhere).await;
                        Reply::FirewallOrder(order, outcome)
                    }
                }
            }
        }

        impl Reply {
            /// Why it failed, if it did.
            #[must_use]
            pub fn failure(&self) -> Option<&Failure> {
                match self {
                    $(Self::$name(_, outcome) => outcome.as_ref().err(),)*
                    $(Self::$long(_, outcome) => outcome.as_ref().err(),)*
                    Self::FirewallOrder(_, outcome) => outcome.as_ref().err(),
                }
            }
        }
    };
}

requests! {
    short {
    AddAlertChannel, AddBlock, AddEngine, AddNetwork, CheckPublish, ClearBlocks, ClearCaptures, CreateKey, DecideFirewall, DeleteComparison,
    DeleteModel, DeleteProfile, DeletePrompt, DetectEngines, EditAlertChannel, EditEngine, EditKey, EngineHealth, EnsureFirstKey, ExposeCheck,
    ImportBlocks, ListAlertChannels, ListAudit, ListBlocks, ListCaptures, ListComparisons, ListEngineKinds, ListInbox, ListKeys, ListNetworks,
    ListProfiles, ListPromptRoutes, ListPrompts, ListSettings, MarkRead, PageRequests, PlanLegacy, PreviewFirewall, PreviewLeak, PreviewPrompt, PromptHistory,
    RecordFirewall, RefreshModels, Reload, RemoveAlertChannel, RemoveBlock, RemoveEngine, RemoveNetwork, RevokeKey, RevokeLeaked,
    RotateKey, SaveComparison, SaveProfile, SecurityStats, SetPolicy, SetPrompt, SetSetting, ShowCapture, ShowComparison, ShowFirewall,
    ShowPolicy, ShowUsage, StartListener, StopListener, TestAlertChannel, UnloadModel, UnsetSetting,
    }
    long { ApplyLegacy, Chat, CompareModels, CreateBackup, LoadModel, PullModel, ReplayCapture }
}

/// How long to wait before the first, second, … new attempt to reach the owner; the last one repeats.
const BACK_OFF_MS: [u64; 6] = [100, 250, 500, 1_000, 2_000, 5_000];

/// Carries calls to the operator and answers back. Every call is a task of its own, so a slow one (a detection)
/// holds up nothing.
#[derive(Debug)]
pub struct Courier {
    /// Ends with the console; dropping a call's task cancels the call at the owner.
    tasks: Tasks,
    /// Answers, read by the loop.
    answers: mpsc::Sender<Action>,
    /// The operator in use; written by the live lane's task, `None` until the owner answered once.
    operator: watch::Receiver<Option<Operator>>,
    /// Ends the calls on their way.
    leaving: BTreeMap<Ticket, CancellationToken>,
}

impl Courier {
    /// Starts the task that reaches the owner, follows its live lane into `live`, and reaches it again whenever it
    /// is lost.
    #[must_use]
    pub fn start(
        tasks: Tasks,
        clock: Clock,
        connect: Arc<Connect>,
        answers: mpsc::Sender<Action>,
        live: mpsc::Sender<Action>,
    ) -> Self {
        let (slot, operator) = watch::channel(None);
        tasks.spawn_until_end("console live lane", follow(clock, connect, slot, live));
        Self { tasks, answers, operator, leaving: BTreeMap::new() }
    }

    /// Runs a call; its answer arrives as an action.
    pub fn send(&mut self, ticket: Ticket, request: Request) {
        let operator = self.operator.borrow().clone();
        let answers = self.answers.clone();
        let left = CancellationToken::new();
        // Those of calls that were answered have nobody who listens any more; there are few calls at once.
        self.leaving.retain(|known, _| ticket.0.saturating_sub(known.0) < REMEMBERED_CALLS);
        self.leaving.insert(ticket, left.clone());
        self.tasks.spawn_until_end("console call", async move {
            let reply = match operator {
                Some(operator) => tokio::select! {
                    reply = request.run(&operator, ticket, &answers) => reply,
                    () = left.cancelled() => return,
                },
                None => request.failed(Failure::new(ErrorCode::IoError, "the proxy is not reached yet")),
            };
            // An error only says that the console has ended.
            let _console_gone = answers.send(Action::Answered(Box::new(Answer { ticket, reply }))).await;
        });
    }

    /// Writes a file that is not there yet; the answer arrives as an action. The disk may be slow, and the loop waits
    /// for nothing but its terminal.
    pub fn write(&self, ticket: Ticket, path: PathBuf, content: String) {
        let answers = self.answers.clone();
        self.tasks.spawn_until_end("console file", async move {
            let target = path.clone();
            let written = tokio::task::spawn_blocking(move || write_new(&target, &content)).await;
            let outcome = written.unwrap_or_else(|error| Err(Failure::new(ErrorCode::Internal, error.to_string())));
            // An error only says that the console has ended.
            let _console_gone = answers.send(Action::Written { ticket, path, outcome }).await;
        });
    }

    /// Reads a text file; the answer arrives as an action.
    pub fn read(&self, ticket: Ticket, path: PathBuf) {
        let answers = self.answers.clone();
        self.tasks.spawn_until_end("console file", async move {
            let read = tokio::task::spawn_blocking(move || read_text(&path)).await;
            let outcome = read.unwrap_or_else(|error| Err(Failure::new(ErrorCode::Internal, error.to_string())));
            // An error only says that the console has ended.
            let _console_gone = answers.send(Action::FileRead { ticket, outcome }).await;
        });
    }

    /// Leaves a call; its answer never comes.
    pub fn leave(&mut self, ticket: Ticket) {
        if let Some(left) = self.leaving.remove(&ticket) {
            left.cancel();
        }
    }
}

/// Writes a file; one that is there already stays as it is.
fn write_new(path: &Path, content: &str) -> Outcome<()> {
    if files::exists(path)? {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!("{} exists already", escape(&path.to_string_lossy())),
        )
        .hint("choose another name"));
    }
    files::replace(path, content.as_bytes(), Audience::Everyone)?;
    Ok(())
}

/// Reads a text file of bounded size.
fn read_text(path: &Path) -> Outcome<String> {
    let bytes = files::read_limited(path, LARGEST_FILE)?;
    String::from_utf8(bytes).map_err(|_| {
        let name = path.to_string_lossy();
        Failure::new(ErrorCode::InvalidArgument, format!("{} is no text in UTF-8", escape(&name)))
    })
}

/// Largest file that is read, bytes: a hundred thousand networks with reasons.
const LARGEST_FILE: u64 = 16 << 20;

/// Newer calls after which one can no longer be left: a long one is left from its own box, which lies above all else.
const REMEMBERED_CALLS: u64 = 1024;

async fn follow(
    clock: Clock,
    connect: Arc<Connect>,
    slot: watch::Sender<Option<Operator>>,
    live: mpsc::Sender<Action>,
) {
    let mut attempt: u32 = 0;
    loop {
        let failure = match attach(&connect, &slot, &live, &mut attempt).await {
            Ok(ConsoleGone) => return,
            Err(failure) => failure,
        };
        let index = usize::try_from(attempt).unwrap_or(usize::MAX).min(BACK_OFF_MS.len() - 1);
        let pause = Duration::from_millis(BACK_OFF_MS[index]);
        attempt = attempt.saturating_add(1);
        let retry_at = clock.wall().plus(pause);
        if live.send(Action::Lost { failure, attempt, retry_at }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// The loop no longer listens.
struct ConsoleGone;

async fn attach(
    connect: &Arc<Connect>,
    slot: &watch::Sender<Option<Operator>>,
    live: &mpsc::Sender<Action>,
    attempt: &mut u32,
) -> Result<ConsoleGone, Failure> {
    let Attached { operator, origin } = connect().await?;
    let mut events = operator.events().await?;
    slot.send_replace(Some(operator));
    if live.send(Action::Attached(origin)).await.is_err() {
        return Ok(ConsoleGone);
    }
    while let Some(line) = events.next().await {
        *attempt = 0;
        if live.send(Action::Live(Box::new(line))).await.is_err() {
            return Ok(ConsoleGone);
        }
    }
    Err(Failure::new(ErrorCode::IoError, "the proxy's process ended or its connection broke"))
}
