//! Alerts: security events on their way to the people who should hear of them (SPEC §5.10).
//!
//! ```text
//! writer ─► Tap (bounded, never waits) ─► dispatcher ─► one grouper and one courier per channel ─► webhook, ntfy, …
//! ```
//!
//! The writer hands rows over after they are on disk; a channel that cannot deliver keeps them as sums, and the audit log
//! itself is what a restart goes on from. The owner of the home starts [`Alerts`]; operations change its channels. Must
//! never slow the writer down, tell a secret, or run a shell.

mod command;
mod courier;
mod dispatcher;
mod grouping;
mod message;
mod ntfy;
mod retry;
mod tap;
mod terminal;
mod webhook;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use dispatcher::{Alerts, try_channel};
pub use message::{Message, summary};
pub use tap::Tap;

use crate::net::egress::Egress;
use crate::storage::SecurityStore;
use crate::telemetry::live::Hub;
use crate::types::alert::AlertTarget;
use crate::types::clock::Clock;

/// How long one try may take (SPEC §5.10).
const TRY_LIMIT: Duration = Duration::from_secs(10);

/// What channels deliver with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The way out.
    pub egress: Egress,
    /// The inbox, the channels' marks and the delivery log.
    pub store: SecurityStore,
    /// Where consoles are told.
    pub hub: Hub,
    /// The time.
    pub clock: Clock,
}

/// Why an alert did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For people; may quote outside text.
    pub reason: String,
    /// Whether another try may help.
    pub again: Again,
}

/// Whether another try may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It may.
    Soon,
    /// It may, but not before this span is over.
    After(Duration),
    /// It will not.
    Never,
}

impl Fault {
    fn new(again: Again, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), again }
    }
}

type Delivering<'a> = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>;

/// Delivers one message, once.
///
/// # Errors
/// Why it did not arrive, and whether another try may help.
pub async fn deliver(tools: &Tools, target: &AlertTarget, message: &Message) -> Result<(), Fault> {
    // The one list of channels: each is a file of its own.
    let delivering: Delivering<'_> = match target {
        AlertTarget::Webhook { url, private, secret } => {
            Box::pin(webhook::deliver(tools, url, *private, secret.as_ref(), message))
        }
        AlertTarget::Ntfy { server, topic, private, token } => Box::pin(ntfy::deliver(
            tools,
            ntfy::Place { server, topic, private: *private, token: token.as_ref() },
            message,
        )),
        AlertTarget::Command { program, arguments } => Box::pin(command::deliver(program, arguments, message)),
        AlertTarget::Terminal => Box::pin(terminal::deliver(tools, message)),
    };
    delivering.await
}
