//! What every command has: the home, the format, and the way to the operator.

use super::output::Format;
use crate::control::Operator;
use crate::control::request::Home;
use crate::types::calls::{Call, Permission};
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
        let operator = Operator::connect(&self.home.paths, Permission::Full).await?;
        let outcome = operator.call(call).await;
        operator.close().await;
        outcome
    }

    /// The owner's operator, for operations that need a running proxy.
    pub(super) async fn running(&self) -> Outcome<Operator> {
        Operator::attach(&self.home.paths, Permission::Full).await?.ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, "no proxy runs for this home").hint("start it with: flm proxy start")
        })
    }
}
