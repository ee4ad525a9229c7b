//! Effects: what an update asks of the world outside, and the courier that carries operator calls out.
//!
//! The console's only I/O besides the terminal. `update` answers [`Effect`]s; the loop in `tui` hands calls to
//! the [`Courier`], whose tasks send the answer back as an action. Must never touch the state.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::control::Operator;
use crate::telemetry::tasks::Tasks;
use crate::tui::action::Action;
use crate::tui::{Attached, Connect, ConsoleEnd};
use crate::types::calls::addresses::{
    AddBlock, AddNetwork, ClearBlocks, ListBlocks, ListNetworks, RemoveBlock, RemoveNetwork,
};
use crate::types::calls::audit::ListAudit;
use crate::types::calls::engines::{AddEngine, DetectEngines, EngineHealth, ListEngineKinds, RemoveEngine};
use crate::types::calls::keys::{CreateKey, EnsureFirstKey, ListKeys, RevokeKey, RotateKey};
use crate::types::calls::models::RefreshModels;
use crate::types::calls::profiles::{DeleteProfile, ListProfiles, SaveProfile};
use crate::types::calls::prompts::{
    DeletePrompt, ListPromptRoutes, ListPrompts, PreviewPrompt, PromptHistory, SetPrompt,
};
use crate::types::calls::proxy::{Reload, StartListener, StopListener};
use crate::types::calls::settings::{ListSettings, SetSetting};
use crate::types::calls::usage::ShowUsage;
use crate::types::calls::{Access, Call};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};

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
    /// Put text on the clipboard of the person's terminal (OSC 52).
    Copy(String),
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

/// An operation's answer.
#[derive(Debug)]
pub struct Answer {
    /// Of the call.
    pub ticket: Ticket,
    /// What came back.
    pub reply: Reply,
}

macro_rules! requests {
    ($($name:ident),* $(,)?) => {
        /// A call of the operator as a value.
        #[derive(Debug, Clone)]
        pub enum Request { $(#[doc = concat!("See `", stringify!($name), "`.")] $name($name)),* }

        /// A call with its outcome.
        #[derive(Debug)]
        pub enum Reply {
            $(#[doc = concat!("Of `", stringify!($name), "`.")] $name($name, Outcome<<$name as Call>::Output>)),*
        }

        $(impl From<$name> for Request {
            fn from(call: $name) -> Self {
                Self::$name(call)
            }
        })*

        impl Request {
            /// What it does to the home.
            #[must_use]
            pub fn access(&self) -> Access {
                match self { $(Self::$name(_) => $name::ACCESS),* }
            }

            /// The reply when it could not even be sent.
            #[must_use]
            pub fn failed(self, failure: Failure) -> Reply {
                match self { $(Self::$name(call) => Reply::$name(call, Err(failure))),* }
            }

            async fn run(self, operator: &Operator) -> Reply {
                match self { $(Self::$name(call) => {
                    let outcome = operator.call(call.clone()).await;
                    Reply::$name(call, outcome)
                }),* }
            }
        }

        impl Reply {
            /// Why it failed, if it did.
            #[must_use]
            pub fn failure(&self) -> Option<&Failure> {
                match self { $(Self::$name(_, outcome) => outcome.as_ref().err()),* }
            }
        }
    };
}

requests! {
    AddBlock, AddEngine, AddNetwork, ClearBlocks, CreateKey, DeleteProfile, DeletePrompt, DetectEngines, EngineHealth, EnsureFirstKey,
    ListAudit, ListBlocks, ListEngineKinds, ListKeys, ListNetworks, ListProfiles, ListPromptRoutes, ListPrompts, ListSettings,
    PreviewPrompt, PromptHistory, RefreshModels, Reload, RemoveBlock, RemoveEngine, RemoveNetwork, RevokeKey, RotateKey, SaveProfile, SetPrompt,
    SetSetting, ShowUsage, StartListener, StopListener,
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
        Self { tasks, answers, operator }
    }

    /// Runs a call; its answer arrives as an action.
    pub fn send(&self, ticket: Ticket, request: Request) {
        let operator = self.operator.borrow().clone();
        let answers = self.answers.clone();
        self.tasks.spawn_until_end("console call", async move {
            let reply = match operator {
                Some(operator) => request.run(&operator).await,
                None => request.failed(Failure::new(ErrorCode::IoError, "the proxy is not reached yet")),
            };
            // An error only says that the console has ended.
            let _console_gone = answers.send(Action::Answered(Box::new(Answer { ticket, reply }))).await;
        });
    }
}

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
