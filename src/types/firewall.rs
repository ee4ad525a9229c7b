//! What is done to the machine's firewall, and how far it is (SPEC §2 `flm firewall`): shared by the operations, the
//! privileged step that changes the machine, and both front ends.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::clock::UnixMillis;

/// How long rules stay in force without being confirmed, in seconds (issue: 60 s).
pub const DEADLINE_SECONDS: u32 = 60;

/// An operator's own way in, which no rule may ever close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SshSession {
    /// Where the operator comes from.
    pub from: IpAddr,
    /// Port of the SSH server.
    pub port: u16,
}

impl SshSession {
    /// Reads `SSH_CONNECTION`: client address and port, server address and port (sshd(8)).
    #[must_use]
    pub fn parse(connection: &str) -> Option<Self> {
        let mut words = connection.split_ascii_whitespace();
        let from = words.next()?.parse().ok()?;
        let port = words.nth(2)?.parse().ok()?;
        Some(Self { from, port })
    }
}

impl fmt::Display for SshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to port {}", self.from, self.port)
    }
}

/// What is to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallPlan {
    /// Ports of the listeners, ascending.
    pub ports: Vec<u16>,
    /// Who may connect to them; empty is everyone.
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// SSH sessions that stay let in, whatever the rest says.
    pub ssh: Vec<SshSession>,
}

/// How much of what FLM did is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// The last change: what was in force before it is in force again, FLM's own rules of before included.
    Last,
    /// Every change: no rule of FLM is left.
    All,
}

/// The one step that takes privileges. Handed as JSON to a process that runs as root and does nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum FirewallStep {
    /// Puts rules in force; they are taken back unless they are confirmed.
    Apply {
        /// Which firewall.
        backend: String,
        /// What is let in.
        plan: FirewallPlan,
        /// Seconds until they are taken back.
        deadline_seconds: u32,
    },
    /// Takes back what was confirmed, or what nobody watches any more.
    Rollback {
        /// How much.
        reach: Reach,
    },
}

/// [`FirewallStep`] with the place of its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallOrder {
    /// `firewall` in the data folder of the home.
    pub folder: PathBuf,
    /// What to do.
    #[serde(flatten)]
    pub step: FirewallStep,
}

/// What the privileged step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum FirewallDone {
    /// The rules are in force until then, or until they are confirmed.
    Applied {
        /// When they are taken back.
        until: UnixMillis,
    },
    /// They were in force and confirmed already; nothing was changed.
    Unchanged,
    /// They were taken back.
    TakenBack {
        /// Whether the machine's rules are now what they were before.
        exactness: Exactness,
    },
    /// There was nothing of FLM to take back.
    NothingToTakeBack,
}

/// How the rules of the machine compare with those saved before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exactness {
    /// They are the same, byte for byte (counters left out).
    Exact,
    /// FLM's are as before; others changed theirs meanwhile, which were left alone.
    OthersChanged,
}

/// Why rules were taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TakenBackCause {
    /// Nobody confirmed them in time.
    Unconfirmed,
    /// Somebody asked for it.
    Asked,
    /// They could not be put in force as a whole.
    Failed,
    /// Whoever put them in force, or watched over them, was ended.
    Interrupted,
}

/// How far a change is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum FirewallPhase {
    /// In force, and taken back at that time unless confirmed.
    Pending {
        /// When it is taken back.
        until: UnixMillis,
    },
    /// In force and confirmed.
    InForce {
        /// When it was confirmed.
        since: UnixMillis,
    },
    /// Taken back.
    TakenBack {
        /// When.
        at: UnixMillis,
        /// Why.
        cause: TakenBackCause,
        /// Whether the machine's rules were what they were before.
        exactness: Exactness,
    },
    /// The machine was restarted, and the rules are not there any more: they were to last until then only, or were not
    /// put in force again.
    Gone,
    /// It should have been taken back and could not be.
    Stuck {
        /// When it was given up.
        at: UnixMillis,
        /// Why.
        why: String,
    },
}

/// How long confirmed rules last by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lasting {
    /// Until the machine starts again.
    #[default]
    UntilRestart,
    /// They are there again after every start of the machine.
    OverRestarts,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallRecord {
    /// Tells changes apart.
    pub id: String,
    /// Which firewall.
    pub backend: String,
    /// What was let in.
    pub plan: FirewallPlan,
    /// When it was put in force.
    pub applied: UnixMillis,
    /// The start of the machine in which it was put in force; `None` when its rules are in files of the firewall's own.
    pub boot: Option<String>,
    /// Whether its rules outlive a restart.
    #[serde(default)]
    pub lasting: Lasting,
    /// How far it is.
    #[serde(flatten)]
    pub phase: FirewallPhase,
}

/// Whether a process counts down to the taking back of a pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// One does.
    Watched,
    /// None does: nothing is pending, or it was killed.
    Unwatched,
}

/// A line of the firewall's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallLogLine {
    /// When.
    pub at: UnixMillis,
    /// Of which change.
    pub id: String,
    /// What happened, for people.
    pub text: String,
}

/// What FLM did to the firewall of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FirewallStatus {
    /// The last change.
    pub last: Option<FirewallRecord>,
    /// What is in force and confirmed.
    pub in_force: Option<FirewallRecord>,
    /// Whether the last change is pending and counted down.
    pub watch: Watch,
    /// Whether the machine has the rules now that are said to be in force or pending; `None` when there are none, or the one
    /// who asked may not look, which takes root.
    #[serde(default)]
    pub loaded: Option<bool>,
    /// The newest lines of the log, oldest first.
    pub log: Vec<FirewallLogLine>,
    /// Where log and records are.
    pub folder: PathBuf,
}

impl FirewallStatus {
    /// When a pending change is taken back; `None` when none is pending.
    #[must_use]
    pub fn pending_until(&self) -> Option<UnixMillis> {
        match self.last.as_ref()?.phase {
            FirewallPhase::Pending { until } => Some(until),
            _ => None,
        }
    }
}
