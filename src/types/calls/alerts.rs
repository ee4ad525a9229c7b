//! Operations on alert channels, their deliveries and the console's inbox (SPEC §2 `flm alerts`, §5.10).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::call;
use crate::types::alert::{
    AlertRules, AlertTarget, ChannelId, ChannelState, ChannelView, DeliveryView, Inbox, PrivateHosts,
};
use crate::types::audit::{AuditKind, Severity};
use crate::types::secret::Secret;

/// Lists channels, without secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListAlertChannels {}
call!(ListAlertChannels, "alerts/list", Reads, Vec<ChannelView>);

/// Adds a channel. It tells what happens from now on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddAlertChannel {
    /// Its name.
    pub id: ChannelId,
    /// Where its alerts go.
    pub target: AlertTarget,
    /// Which, and how often.
    #[serde(default)]
    pub rules: AlertRules,
}
call!(AddAlertChannel, "alerts/add", Changes, ChannelSettled);

/// A channel that was added or changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ChannelSettled {
    /// The channel.
    pub view: ChannelView,
    /// The signing secret that was made for it: shown this once.
    pub secret: Option<Secret>,
}

/// What becomes of a webhook's signing secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretChange {
    /// It stays.
    #[default]
    Keep,
    /// A new one is made and shown once.
    Renew,
    /// It becomes this one.
    Set(Secret),
}

/// Changes what is given of a channel; the rest stays. Its kind cannot change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EditAlertChannel {
    /// Which.
    pub id: ChannelId,
    /// What.
    pub changes: Box<ChannelChanges>,
}
call!(EditAlertChannel, "alerts/edit", Changes, ChannelSettled);

/// Parts of a channel that may change; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelChanges {
    /// The least severity.
    pub severity: Option<Severity>,
    /// Only these kinds; empty is all.
    pub kinds: Option<Vec<AuditKind>>,
    /// Span in which equal events become one alert.
    pub group: Option<Duration>,
    /// Most alerts in an hour.
    pub per_hour: Option<u32>,
    /// Whether it is used.
    pub state: Option<ChannelState>,
    /// Of a webhook.
    pub url: Option<String>,
    /// Of a webhook.
    pub secret: SecretChange,
    /// Of ntfy.
    pub server: Option<String>,
    /// Of ntfy.
    pub topic: Option<String>,
    /// Of ntfy; empty takes it away.
    pub token: Option<Secret>,
    /// Of webhook and ntfy.
    pub private: Option<PrivateHosts>,
    /// Of a command.
    pub program: Option<String>,
    /// Of a command.
    pub arguments: Option<Vec<String>>,
}

/// Removes a channel; what it had not told yet is not told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveAlertChannel {
    /// Which.
    pub id: ChannelId,
}
call!(RemoveAlertChannel, "alerts/remove", Destroys, ChannelView);

/// Sends a test alert once, at once, past all rules, and waits for what becomes of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TestAlertChannel {
    /// Which.
    pub id: ChannelId,
}
call!(TestAlertChannel, "alerts/test", Changes, DeliveryView);

/// Lists what became of alerts, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListDeliveries {
    /// Only of this channel.
    pub channel: Option<ChannelId>,
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ListDeliveries, "alerts/deliveries", Reads, Vec<DeliveryView>);

/// Reads the newest alerts of the inbox.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListInbox {
    /// How many, at most 1000; 0 is 100.
    pub limit: u32,
}
call!(ListInbox, "alerts/inbox", Reads, Inbox);

/// Marks alerts of the inbox as read and answers how many were unread.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MarkRead {
    /// Which; empty is all.
    pub numbers: Vec<u64>,
}
call!(MarkRead, "alerts/read", Changes, u64);
