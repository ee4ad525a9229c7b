//! Tables `alert_channels`, `alert_deliveries` and `alert_inbox` (SPEC §5.10, §10). Secrets of channels are encrypted
//! with the rest of `security.db`.

use std::time::Duration;

use rusqlite::{Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::audit_logs::{rank, severity};
use super::columns::{from_json, json, name, named, number, parsed_or_none, unsigned};
use super::error::StorageError;
use super::security_store::SecurityStore;
use crate::types::alert::{
    AlertChannel, AlertRules, AlertTarget, ChannelId, ChannelState, DeliveryView, Inbox, InboxAlert,
};
use crate::types::audit::AuditKind;
use crate::types::clock::UnixMillis;

/// Deliveries and inbox alerts that are kept, whatever their age.
const KEPT: u32 = 5_000;
/// Longest list that is read.
const LARGEST_PAGE: u32 = 1_000;
const DEFAULT_PAGE: u32 = 100;

/// The column `settings`: the target, and the rules but for the severity.
#[derive(Serialize, Deserialize)]
struct Settings {
    #[serde(flatten)]
    target: AlertTarget,
    #[serde(default)]
    kinds: Vec<AuditKind>,
    #[serde(default)]
    group: Option<u64>,
    #[serde(default)]
    per_hour: Option<u32>,
    #[serde(default)]
    state: ChannelState,
}

impl SecurityStore {
    /// All channels, by name. One whose settings this version cannot read is an error that names it.
    pub async fn alert_channels(&self) -> Result<Vec<AlertChannel>, StorageError> {
        self.database
            .read("reading alert channels", |connection| {
                let mut statement = connection.prepare_cached("SELECT * FROM alert_channels ORDER BY id")?;
                statement.query_map([], channel)?.collect()
            })
            .await
    }

    /// Adds or replaces a channel.
    pub async fn put_alert_channel(&self, channel: AlertChannel) -> Result<(), StorageError> {
        self.database
            .write("storing an alert channel", move |transaction| {
                let AlertChannel { id, target, rules, created, through } = channel;
                let kind = target.kind();
                let settings = Settings {
                    target,
                    kinds: rules.kinds,
                    group: Some(rules.group.as_secs()),
                    per_hour: Some(rules.per_hour),
                    state: rules.state,
                };
                transaction
                    .execute(
                        "INSERT OR REPLACE INTO alert_channels (id, kind, settings, severity, created, through)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                        params![
                            id.as_str(),
                            name(&kind)?,
                            json(&settings)?,
                            rank(rules.severity),
                            created.0,
                            number(through)
                        ],
                    )
                    .map(|_| ())
            })
            .await
    }

    /// Removes a channel; false when there was none. Its deliveries stay.
    pub async fn remove_alert_channel(&self, id: &ChannelId) -> Result<bool, StorageError> {
        let id = id.clone();
        self.database
            .write("removing an alert channel", move |transaction| {
                transaction.execute("DELETE FROM alert_channels WHERE id = ?1", [id.as_str()]).map(|rows| rows > 0)
            })
            .await
    }

    /// Notes that a channel has dealt with the audit log up to `through`.
    pub async fn settle_alerts(&self, id: &ChannelId, through: u64) -> Result<(), StorageError> {
        let id = id.clone();
        self.database
            .write("noting what a channel has told", move |transaction| settle(transaction, &id, through))
            .await
    }

    /// Writes down what became of an alert, and up to where its channel has dealt with the audit log: both or none.
    /// Answers the number of the delivery.
    pub async fn add_delivery(&self, delivery: DeliveryView, through: Option<u64>) -> Result<u64, StorageError> {
        self.database
            .write("noting what became of an alert", move |transaction| {
                let id = ChannelId::parse(&delivery.channel).ok();
                transaction.execute(
                    "INSERT INTO alert_deliveries (at, channel, events, attempts, fault, first, last, summary)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    params![
                        delivery.at.0,
                        delivery.channel,
                        number(delivery.events),
                        delivery.attempts,
                        delivery.fault,
                        number(delivery.first),
                        number(delivery.last),
                        delivery.summary
                    ],
                )?;
                let added = transaction.last_insert_rowid();
                transaction.execute("DELETE FROM alert_deliveries WHERE number <= ?1 - ?2", params![added, KEPT])?;
                if let (Some(id), Some(through)) = (id, through) {
                    settle(transaction, &id, through)?;
                }
                Ok(u64::try_from(added).unwrap_or(0))
            })
            .await
    }

    /// What became of alerts, newest first.
    pub async fn deliveries(&self, channel: Option<ChannelId>, limit: u32) -> Result<Vec<DeliveryView>, StorageError> {
        self.database
            .read("reading deliveries", move |connection| {
                let one = "SELECT * FROM alert_deliveries WHERE channel = ?1 ORDER BY number DESC LIMIT ?2";
                let all = "SELECT * FROM alert_deliveries WHERE ?1 IS NULL ORDER BY number DESC LIMIT ?2";
                let mut statement = connection.prepare_cached(if channel.is_some() { one } else { all })?;
                let id = channel.as_ref().map(ChannelId::as_str);
                statement.query_map(params![id, page(limit)], delivery)?.collect()
            })
            .await
    }

    /// Puts an alert into the inbox and answers it with its number.
    pub async fn add_inbox_alert(&self, alert: InboxAlert) -> Result<InboxAlert, StorageError> {
        self.database
            .write("putting an alert into the inbox", move |transaction| {
                transaction.execute(
                    "INSERT INTO alert_inbox (at, kind, severity, events, first, last, address, details, read)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                    params![
                        alert.at.0,
                        name(&alert.kind)?,
                        rank(alert.severity),
                        number(alert.events),
                        number(alert.first),
                        number(alert.last),
                        alert.address.map(|address| address.to_string()),
                        alert.details,
                        alert.read.map(|at| at.0)
                    ],
                )?;
                let added = transaction.last_insert_rowid();
                transaction.execute("DELETE FROM alert_inbox WHERE number <= ?1 - ?2", params![added, KEPT])?;
                Ok(InboxAlert { number: u64::try_from(added).unwrap_or(0), ..alert })
            })
            .await
    }

    /// The newest alerts of the inbox.
    pub async fn inbox(&self, limit: u32) -> Result<Inbox, StorageError> {
        self.database
            .read("reading the inbox", move |connection| {
                let unread: i64 = connection
                    .prepare_cached("SELECT count(*) FROM alert_inbox WHERE read IS NULL")?
                    .query_row([], |row| row.get(0))?;
                let mut statement =
                    connection.prepare_cached("SELECT * FROM alert_inbox ORDER BY number DESC LIMIT ?1")?;
                let alerts = statement.query_map([page(limit)], inbox_alert)?.collect::<Result<_, _>>()?;
                Ok(Inbox { unread: u64::try_from(unread).unwrap_or(0), alerts })
            })
            .await
    }

    /// Marks alerts as read, all when none is named; answers how many were unread.
    pub async fn mark_alerts_read(&self, numbers: Vec<u64>, now: UnixMillis) -> Result<u64, StorageError> {
        self.database
            .write("marking alerts as read", move |transaction| {
                if numbers.is_empty() {
                    let rows = transaction.execute("UPDATE alert_inbox SET read = ?1 WHERE read IS NULL", [now.0])?;
                    return Ok(rows as u64);
                }
                let mut statement = transaction
                    .prepare_cached("UPDATE alert_inbox SET read = ?1 WHERE number = ?2 AND read IS NULL")?;
                let mut marked = 0;
                for one in numbers {
                    marked += statement.execute(params![now.0, number(one)])? as u64;
                }
                Ok(marked)
            })
            .await
    }

    /// Forgets deliveries and inbox alerts that are older than `keep`.
    pub async fn trim_alerts(&self, now: UnixMillis, keep: Duration) -> Result<(), StorageError> {
        let before = now.minus(keep).0;
        self.database
            .write("forgetting old alerts", move |transaction| {
                transaction.execute("DELETE FROM alert_deliveries WHERE at < ?1", [before])?;
                transaction.execute("DELETE FROM alert_inbox WHERE at < ?1", [before]).map(|_| ())
            })
            .await
    }
}

fn settle(transaction: &Transaction<'_>, id: &ChannelId, through: u64) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached("UPDATE alert_channels SET through = ?2 WHERE id = ?1 AND through < ?2")?;
    statement.execute(params![id.as_str(), number(through)]).map(|_| ())
}

fn page(limit: u32) -> u32 {
    if limit == 0 { DEFAULT_PAGE } else { limit.min(LARGEST_PAGE) }
}

fn channel(row: &Row<'_>) -> rusqlite::Result<AlertChannel> {
    let settings: Settings = from_json(row, "settings")?;
    let default = AlertRules::default();
    Ok(AlertChannel {
        id: named(row, "id")?,
        target: settings.target,
        rules: AlertRules {
            severity: severity(row)?,
            kinds: settings.kinds,
            group: settings.group.map_or(default.group, Duration::from_secs),
            per_hour: settings.per_hour.unwrap_or(default.per_hour),
            state: settings.state,
        },
        created: UnixMillis(row.get("created")?),
        through: unsigned(row, "through")?,
    })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<DeliveryView> {
    Ok(DeliveryView {
        number: unsigned(row, "number")?,
        at: UnixMillis(row.get("at")?),
        channel: row.get("channel")?,
        events: unsigned(row, "events")?,
        first: unsigned(row, "first")?,
        last: unsigned(row, "last")?,
        attempts: row.get("attempts")?,
        summary: row.get("summary")?,
        fault: row.get("fault")?,
    })
}

fn inbox_alert(row: &Row<'_>) -> rusqlite::Result<InboxAlert> {
    Ok(InboxAlert {
        number: unsigned(row, "number")?,
        at: UnixMillis(row.get("at")?),
        kind: named(row, "kind")?,
        severity: severity(row)?,
        events: unsigned(row, "events")?,
        first: unsigned(row, "first")?,
        last: unsigned(row, "last")?,
        address: parsed_or_none(row, "address")?,
        details: row.get("details")?,
        read: row.get::<_, Option<i64>>("read")?.map(UnixMillis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::security_store::tests::store;
    use crate::types::alert::PrivateHosts;
    use crate::types::audit::Severity;
    use crate::types::secret::Secret;

    fn id(text: &str) -> ChannelId {
        ChannelId::parse(text).expect("a name")
    }

    fn webhook() -> AlertChannel {
        AlertChannel {
            id: id("ops"),
            target: AlertTarget::Webhook {
                url: "https://alerts.example/x".into(),
                private: PrivateHosts::Allowed,
                secret: Some(Secret::new("whsec".into())),
            },
            rules: AlertRules {
                severity: Severity::Medium,
                kinds: vec![AuditKind::KeyChanged],
                group: Duration::from_secs(5),
                per_hour: 7,
                state: ChannelState::Off,
            },
            created: UnixMillis(1),
            through: 3,
        }
    }

    #[tokio::test]
    async fn a_home_begins_with_the_consoles_channel_and_others_are_kept_as_they_are() {
        let (_folder, store) = store();
        let all = store.alert_channels().await.expect("reads");
        assert_eq!((all.len(), all[0].id.as_str(), &all[0].target), (1, "console", &AlertTarget::Terminal));
        assert_eq!(all[0].rules, AlertRules::default());
        store.put_alert_channel(webhook()).await.expect("stores");
        assert_eq!(store.alert_channels().await.expect("reads")[1], webhook());
        for through in [9, 4] {
            store.settle_alerts(&id("ops"), through).await.expect("notes");
        }
        assert_eq!(store.alert_channels().await.expect("reads")[1].through, 9, "it never goes back");
        assert!(store.remove_alert_channel(&id("ops")).await.expect("removes"));
        assert!(!store.remove_alert_channel(&id("ops")).await.expect("is gone"));
    }

    #[tokio::test]
    async fn deliveries_are_listed_by_channel_and_forgotten_by_age() {
        let (_folder, store) = store();
        store.put_alert_channel(webhook()).await.expect("stores");
        for (at, channel) in [(10, "ops"), (20, "phone"), (30, "ops")] {
            let one = DeliveryView {
                number: 0,
                at: UnixMillis(at),
                channel: channel.into(),
                events: 2,
                first: 4,
                last: 8,
                attempts: 1,
                summary: "two".into(),
                fault: (at == 30).then(|| "refused".to_owned()),
            };
            store.add_delivery(one, Some(8)).await.expect("notes");
        }
        assert_eq!(store.alert_channels().await.expect("reads")[1].through, 8);
        let times = |list: Vec<DeliveryView>| list.into_iter().map(|one| one.at.0).collect::<Vec<_>>();
        assert_eq!(times(store.deliveries(None, 0).await.expect("reads")), [30, 20, 10]);
        assert_eq!(times(store.deliveries(Some(id("ops")), 1).await.expect("reads")), [30]);
        store.trim_alerts(UnixMillis(25), Duration::from_millis(5)).await.expect("trims");
        assert_eq!(times(store.deliveries(None, 0).await.expect("reads")), [30, 20]);
    }

    #[tokio::test]
    async fn the_inbox_counts_what_is_unread() {
        let (_folder, store) = store();
        let mut numbers = Vec::new();
        for at in 1..=3 {
            let alert = InboxAlert {
                number: 0,
                at: UnixMillis(at),
                kind: AuditKind::BlockAdded,
                severity: Severity::High,
                events: 1,
                first: 1,
                last: 1,
                address: "192.0.2.1".parse().ok(),
                details: "blocked".into(),
                read: None,
            };
            numbers.push(store.add_inbox_alert(alert).await.expect("stores").number);
        }
        assert_eq!(store.inbox(1).await.expect("reads").unread, 3);
        assert_eq!(store.mark_alerts_read(vec![numbers[1], 99], UnixMillis(5)).await.expect("marks"), 1);
        let inbox = store.inbox(0).await.expect("reads");
        let read: Vec<_> = inbox.alerts.iter().map(|alert| alert.read.is_some()).collect();
        assert_eq!((inbox.unread, read), (2, vec![false, true, false]));
        assert_eq!(store.mark_alerts_read(Vec::new(), UnixMillis(6)).await.expect("marks"), 2);
        assert_eq!(store.inbox(0).await.expect("reads").unread, 0);
    }
}
