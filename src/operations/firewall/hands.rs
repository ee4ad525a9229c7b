//! [`Hands`]: how a backend changes the machine, where it can. Used by the privileged step and its watchdog only.
//!
//! What every backend promises: [`Hands::apply`] and [`Hands::restore`] never leave a moment without the rules for the SSH
//! sessions of the plan, restoring touches nothing but FLM's own rules, and both can be done again after they were broken off.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engines::adapter::BoxFuture;
use crate::types::failure::Outcome;
use crate::types::firewall::FirewallPlan;

/// The state before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// All rules of the machine, without what moves by itself: what a rollback is compared with.
    pub(super) snapshot: String,
    /// FLM's own part, in the backend's pieces: what a rollback puts back.
    pub(super) own: BTreeMap<String, String>,
}

/// How long rules last by themselves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lasts {
    /// They are in files of the firewall's own from the first moment on.
    OverRestarts,
    /// Until the machine starts again, unless they are confirmed.
    OnceConfirmed(Settle),
}

/// Has the machine start with the rules of this plan, or without any of FLM's. Changes no rule that is in force; fine when
/// it was done already. The failure says why they end with a restart.
pub(super) type Settle = fn(Option<FirewallPlan>) -> BoxFuture<'static, Outcome<Kept>>;

/// Where confirmed rules are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// In files of the firewall's own, which it reads whenever it starts.
    ByFirewall,
    /// In files that a unit of systemd's loads when the machine starts.
    ByUnit,
}

/// What a backend does to the machine. As root; each waits for programs.
pub(super) struct Hands {
    /// How long its rules last.
    pub(super) lasts: Lasts,
    /// Whether its rules would count now; the failure says why not.
    pub(super) ready: fn() -> BoxFuture<'static, Outcome<()>>,
    /// The state now, with all that a rollback needs.
    pub(super) save: fn() -> BoxFuture<'static, Outcome<Saved>>,
    /// All rules of the machine, in a form that can be compared.
    pub(super) snapshot: fn() -> BoxFuture<'static, Outcome<String>>,
    /// Puts a plan in force in place of FLM's earlier rules; the state before comes along.
    pub(super) apply: fn(FirewallPlan, Saved) -> BoxFuture<'static, Outcome<()>>,
    /// Puts FLM's own part back as it was saved.
    pub(super) restore: fn(Saved) -> BoxFuture<'static, Outcome<()>>,
    /// The text of FLM's own rules as the machine has them; empty when it has none.
    pub(super) own: fn() -> BoxFuture<'static, Outcome<String>>,
}
