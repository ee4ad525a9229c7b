//! What every command has: the home, the format, and the way to the operator.

use std::ops::ControlFlow;

use super::output::Format;
use super::prompt;
use crate::control::request::Home;
use crate::control::{Operator, Step, offline};
use crate::types::calls::{Call, LongCall, Permission};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// One run of a command.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) home: Home,
    pub(super) format: Format,
}

impl Session {
    /// Runs one operation: at the owner when there is one, else here.
    pub(super) async fn call<C: Call>(&self, call: C) -> Outcome<C::Output> {
        let operator = self.operator().await?;
        let outcome = operator.call(call).await;
        operator.close().await;
        outcome
    }

    /// Runs an operation that takes long and hands on how far it is; Ctrl-C ends it.
    pub(super) async fn follow<C: LongCall>(&self, call: C, mut told: impl FnMut(C::Progress)) -> Outcome<C::Output> {
        let told = |progress| {
            told(progress);
            ControlFlow::Continue(())
        };
        // Nobody breaks it off.
        self.follow_until(call, told).await?.ok_or_else(|| Failure::new(ErrorCode::Internal, "an operation was left"))
    }

    /// The same, until `told` says that nobody reads any more, which ends the operation: then there is no result.
    pub(super) async fn follow_until<C: LongCall>(
        &self,
        call: C,
        mut told: impl FnMut(C::Progress) -> ControlFlow<()>,
    ) -> Outcome<Option<C::Output>> {
        let operator = self.operator().await?;
        Self::follow_on(operator, call, &mut told).await
    }

    /// The same with an operator that is there, which is closed at the end.
    pub(super) async fn follow_on<C: LongCall>(
        operator: Operator,
        call: C,
        told: &mut dyn FnMut(C::Progress) -> ControlFlow<()>,
    ) -> Outcome<Option<C::Output>> {
        let outcome = follow_at(&operator, &call, told).await;
        operator.close().await;
        outcome
    }

    /// Whether somebody wants to know how far a command is whose one JSON document is what programs read.
    pub(super) fn tells_progress(&self) -> bool {
        matches!(self.format, Format::Text | Format::Jsonl)
    }

    /// An operator for more than one operation; close it at the end.
    pub(super) async fn operator(&self) -> Outcome<Operator> {
        let home = &self.home;
        let passphrase = unlocked(home).await?.passphrase;
        Operator::connect_with(&home.paths, Permission::Full, passphrase).await
    }

    /// The owner's operator, for operations that need a running proxy.
    pub(super) async fn running(&self) -> Outcome<Operator> {
        Operator::attach(&self.home.paths, Permission::Full).await?.ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, "no proxy runs for this home").hint("start it with: flm proxy start")
        })
    }
}

/// The home with its passphrase, asked for when it is locked with one and nobody has it open.
pub(super) async fn unlocked(home: &Home) -> Outcome<Home> {
    let mut home = home.clone();
    let wanted = home.passphrase.is_none() && offline::passphrase_wanted(&home.paths)?;
    if wanted && Operator::attach(&home.paths, Permission::Full).await?.is_none() {
        home.passphrase = Some(prompt::passphrase("Passphrase of this home: ")?);
    }
    Ok(home)
}

/// Runs an operation that takes long and hands on how far it is, until `told` says that nobody reads any more; Ctrl-C ends it.
pub(super) async fn follow_at<C: LongCall>(
    operator: &Operator,
    call: &C,
    mut told: impl FnMut(C::Progress) -> ControlFlow<()>,
) -> Outcome<Option<C::Output>> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    // Looked at first each time: it hears from its first look on, which is before anything is asked.
    let mut following = tokio::select! {
        biased;
        heard = &mut interrupted => return Err(cancelled(heard.is_err())),
        following = operator.follow(call) => following?,
    };
    loop {
        // Leaving it ends it.
        tokio::select! {
            biased;
            heard = &mut interrupted => return Err(cancelled(heard.is_err())),
            step = following.next() => match step? {
                Step::Progress(progress) => if told(progress).is_break() {
                    return Ok(None);
                },
                Step::Done(output) => return Ok(Some(output)),
            },
        }
    }
}

fn cancelled(unheard: bool) -> Failure {
    if unheard {
        return Failure::new(ErrorCode::Internal, "the system does not let this command hear Ctrl-C");
    }
    Failure::new(ErrorCode::Cancelled, "cancelled: it was not finished").hint("run the same command again to go on")
}
