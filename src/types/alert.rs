//! Alerts: who is told of security events, by what rules, and what became of it (SPEC §5.10).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audit::{AuditKind, Severity};
use super::clock::UnixMillis;
use super::ids::InvalidId;
use super::secret::Secret;

/// The operator's name for an alert channel: 1 to 32 of `a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelId(Arc<str>);

impl ChannelId {
    /// Parses a name.
    ///
    /// # Errors
    /// When it is empty, too long or holds other characters.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let starts_well = text.bytes().next().is_some_and(plain);
        if starts_well && text.len() <= 32 && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-')) {
            return Ok(Self(text.into()));
        }
        Err(InvalidId {
            what: "channel id",
            value: text.chars().take(80).collect(),
            rule: "use 1 to 32 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit",
        })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ChannelId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<ChannelId> for String {
    fn from(id: ChannelId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a channel's host may be in a private network or on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrivateHosts {
    /// Only hosts of the public internet.
    #[default]
    Refused,
    /// Any host; one of the own network is reached straight, whatever the egress mode.
    Allowed,
}

/// Where a channel's alerts go, secrets in clear: for the store, and on the way there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum AlertTarget {
    /// A POST that is signed with HMAC-SHA256.
    Webhook {
        /// `http://` or `https://`; may hold a secret in path or query, so it is never shown whole.
        url: String,
        /// Whether the host may be private.
        #[serde(default)]
        private: PrivateHosts,
        /// What deliveries are signed with; `None` has one made.
        #[serde(default)]
        secret: Option<Secret>,
    },
    /// A topic of an ntfy server.
    Ntfy {
        /// Base URL of the server.
        server: String,
        /// The topic; on a public server whoever knows it reads along, so it is never shown whole.
        topic: String,
        /// Whether the server may be private.
        #[serde(default)]
        private: PrivateHosts,
        /// Access token, where the server wants one.
        #[serde(default)]
        token: Option<Secret>,
    },
    /// A program of this machine, started without a shell.
    Command {
        /// Absolute path.
        program: String,
        /// Its arguments, as they are.
        #[serde(default)]
        arguments: Vec<String>,
    },
    /// The inbox of the console, and a notification of its terminal.
    Terminal,
}

impl AlertTarget {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> AlertKind {
        match self {
            Self::Webhook { .. } => AlertKind::Webhook,
            Self::Ntfy { .. } => AlertKind::Ntfy,
            Self::Command { .. } => AlertKind::Command,
            Self::Terminal => AlertKind::Terminal,
        }
    }
}

/// The kind of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A signed POST.
    Webhook,
    /// ntfy.
    Ntfy,
    /// A program.
    Command,
    /// The console.
    Terminal,
}

impl AlertKind {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::Webhook, Self::Ntfy, Self::Command, Self::Terminal];

    /// Its name in commands and stores.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Ntfy => "ntfy",
            Self::Command => "command",
            Self::Terminal => "terminal",
        }
    }
}

/// Whether a channel is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelState {
    /// It is.
    #[default]
    On,
    /// Its events are let go.
    Off,
}

/// Which events a channel tells, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct AlertRules {
    /// The least severity.
    pub severity: Severity,
    /// Only these kinds; empty is all.
    pub kinds: Vec<AuditKind>,
    /// After an alert, equal events (same kind and severity) of this span become one alert at its end.
    #[serde(with = "seconds")]
    #[schemars(with = "u64")]
    pub group: Duration,
    /// Most alerts in an hour; what is beyond waits and becomes one.
    pub per_hour: u32,
    /// Whether it is used.
    pub state: ChannelState,
}

impl AlertRules {
    /// Longest span of grouping.
    pub const LONGEST_GROUP: Duration = Duration::from_secs(24 * 3600);
    /// Most alerts in an hour that may be allowed.
    pub const MOST_PER_HOUR: u32 = 3600;
}

impl Default for AlertRules {
    fn default() -> Self {
        Self {
            severity: Severity::High,
            kinds: Vec::new(),
            group: Duration::from_secs(60),
            per_hour: 60,
            state: ChannelState::On,
        }
    }
}

/// A duration as whole seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(span.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

/// A channel as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertChannel {
    /// Its name.
    pub id: ChannelId,
    /// Where its alerts go.
    pub target: AlertTarget,
    /// Which, and how often.
    pub rules: AlertRules,
    /// When it was added.
    pub created: UnixMillis,
    /// Rows of the audit log up to this number are dealt with.
    pub through: u64,
}

/// A channel as it is shown: without secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChannelView {
    /// Its name.
    pub id: ChannelId,
    /// Its kind.
    pub kind: AlertKind,
    /// Where its alerts go, as far as it may be shown.
    pub place: String,
    /// Whether its host may be private; `None` where it has none.
    pub private: Option<PrivateHosts>,
    /// Which, and how often.
    #[serde(flatten)]
    pub rules: AlertRules,
    /// When it was added.
    pub created: UnixMillis,
    /// Events that wait to be told.
    pub waiting: u64,
    /// What became of its last alert.
    pub last: Option<DeliveryView>,
}

/// What became of an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeliveryView {
    /// Its number.
    pub number: u64,
    /// When it arrived or was given up.
    pub at: UnixMillis,
    /// The channel.
    pub channel: String,
    /// How many events it told.
    pub events: u64,
    /// The first of them in the audit log; 0 when it is not there.
    pub first: u64,
    /// The last of them in the audit log; 0 when it is not there.
    pub last: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// What it said in short.
    pub summary: String,
    /// Why it did not arrive; `None` when it did. May quote outside text.
    pub fault: Option<String>,
}

/// A group of equal events in the console's inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct InboxAlert {
    /// Its number.
    pub number: u64,
    /// When the last event of it happened.
    pub at: UnixMillis,
    /// What happened.
    pub kind: AuditKind,
    /// How much it matters.
    pub severity: Severity,
    /// How often.
    pub events: u64,
    /// The first event in the audit log; 0 when it is not there.
    pub first: u64,
    /// The last event in the audit log; 0 when it is not there.
    pub last: u64,
    /// The client's address in the last event.
    pub address: Option<IpAddr>,
    /// The last event's line for people; may quote outside text.
    pub details: String,
    /// When it was read.
    pub read: Option<UnixMillis>,
}

/// The newest alerts of the inbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Inbox {
    /// How many are unread, whether they are among `alerts` or not.
    pub unread: u64,
    /// Newest first.
    pub alerts: Vec<InboxAlert>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_survive_the_store_and_old_ones_get_what_came_later() {
        let target = AlertTarget::Webhook {
            url: "https://alerts.example/x".into(),
            private: PrivateHosts::Allowed,
            secret: Some(Secret::new("s".into())),
        };
        let json = serde_json::to_string(&target).expect("writes");
        assert_eq!(serde_json::from_str::<AlertTarget>(&json).expect("reads"), target);
        assert!(!format!("{target:?}").contains("\"s\""), "a secret is not shown by accident");
        let old: AlertTarget = serde_json::from_str(r#"{"kind":"command","program":"/bin/x"}"#).expect("reads");
        assert_eq!(old, AlertTarget::Command { program: "/bin/x".into(), arguments: Vec::new() });
        let rules: AlertRules = serde_json::from_str(r#"{"group":5}"#).expect("reads");
        assert_eq!((rules.group, rules.per_hour), (Duration::from_secs(5), 60));
    }

    #[test]
    fn names_of_channels_are_plain() {
        assert!(ChannelId::parse("ops-1").is_ok());
        for bad in ["", "-x", "A", "a/b", "a b", &"a".repeat(33)] {
            assert!(ChannelId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
