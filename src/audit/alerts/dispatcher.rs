//! [`Alerts`]: the running channels of an owner. Hands rows from the tap to every channel's desk, goes on after a restart
//! from the audit log, and changes channels while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::courier::{self, Desk};
use super::{Message, Tap, Tools, deliver};
use crate::storage::StorageError;
use crate::telemetry::tasks::Tasks;
use crate::types::alert::{AlertChannel, ChannelId, ChannelState, DeliveryView};
use crate::types::audit::AuditRow;
use crate::types::calls::audit::ExportAudit;
use crate::types::text::escape;

/// How old a row may be that is told after a restart.
const OLDEST: Duration = Duration::from_secs(3600);
/// Rows that are looked at after a restart at most, and at once.
const CATCH_UP: (u32, u32) = (10_000, 1_000);
/// How often marks that moved are stored, besides with each delivery.
const MARKS: Duration = Duration::from_secs(60);

/// The running channels. Cloned freely.
#[derive(Clone)]
pub struct Alerts {
    shared: Arc<Shared>,
}

struct Shared {
    tools: Tools,
    tap: Tap,
    /// Ends before the store is closed.
    tasks: Tasks,
    /// By name. Held for a look or a change, never across an await.
    running: Mutex<BTreeMap<ChannelId, Running>>,
}

struct Running {
    channel: AlertChannel,
    desk: Arc<Desk>,
    /// Ends the channel's task.
    ending: CancellationToken,
}

impl fmt::Debug for Alerts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alerts").field("channels", &self.running().len()).finish_non_exhaustive()
    }
}

impl Alerts {
    /// Starts the channels on the current runtime. What they had not told before the owner ended, as far as it is not
    /// too old, is told now.
    #[must_use]
    pub fn start(tap: &Tap, tools: Tools, tasks: &Tasks, channels: Vec<AlertChannel>) -> Self {
        let shared = Shared { tools, tap: tap.clone(), tasks: tasks.clone(), running: Mutex::default() };
        let alerts = Self { shared: Arc::new(shared) };
        alerts.set(channels);
        if let Some(batches) = tap.connect() {
            tasks.spawn("alerts", alerts.clone().dispatch(batches, tasks.ending().clone()));
        }
        alerts
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Running>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes exactly these channels run. What waits for one that stays is kept; a changed one only measures rows after
    /// its mark by its new rules.
    pub fn set(&self, channels: Vec<AlertChannel>) {
        let wanted = channels.iter().filter(|channel| channel.rules.state == ChannelState::On);
        self.shared.tap.want(wanted.map(|channel| channel.rules.severity).min());
        let mut running = self.running();
        running.retain(|id, known| {
            let stays = channels.iter().any(|channel| channel.id == *id);
            if !stays {
                known.ending.cancel();
            }
            stays
        });
        for channel in channels {
            let desk = match running.get(&channel.id) {
                Some(known) if known.channel.target == channel.target && known.channel.rules == channel.rules => {
                    continue;
                }
                Some(known) => {
                    known.ending.cancel();
                    known.desk.change(channel.rules.clone(), channel.through);
                    known.desk.clone()
                }
                None => Arc::new(Desk::new(&channel, self.shared.tools.clock.clone())),
            };
            let ending = self.shared.tasks.ending().child_token();
            let task = courier::run(desk.clone(), channel.clone(), self.shared.tools.clone(), ending.clone());
            self.shared.tasks.spawn("alert channel", task);
            running.insert(channel.id.clone(), Running { channel, desk, ending });
        }
    }

    /// Events that wait for a channel; 0 when it does not run.
    #[must_use]
    pub fn waiting(&self, id: &ChannelId) -> u64 {
        self.running().get(id).map_or(0, |running| running.desk.waiting())
    }

    fn desks(&self) -> Vec<(ChannelId, Arc<Desk>)> {
        self.running().iter().map(|(id, running)| (id.clone(), running.desk.clone())).collect()
    }

    async fn dispatch(self, mut batches: mpsc::Receiver<Vec<AuditRow>>, ending: CancellationToken) {
        // Rows that come meanwhile wait in the tap; those that are read here as well are looked at once.
        if let Err(error) = self.catch_up().await {
            tracing::warn!(error = %escape(&error.to_string()), "alerts do not go on from the audit log");
        }
        let mut marks = tokio::time::interval(MARKS);
        marks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                batch = batches.recv() => match batch {
                    Some(rows) => self.hand_out(&rows),
                    None => break,
                },
                _ = marks.tick() => self.store_marks().await,
            }
        }
        // What is still in the tap is in the audit log, and told after the restart.
        self.store_marks().await;
    }

    fn hand_out(&self, rows: &[AuditRow]) {
        let missed = self.shared.tap.take_missed();
        for (_, desk) in self.desks() {
            desk.add(rows.iter(), missed);
        }
    }

    async fn catch_up(&self) -> Result<(), StorageError> {
        let (since, severity) = {
            let running = self.running();
            let on =
                || running.values().map(|one| &one.channel).filter(|channel| channel.rules.state == ChannelState::On);
            let Some(since) = on().map(|channel| channel.through).min() else { return Ok(()) };
            (since, on().map(|channel| channel.rules.severity).min())
        };
        let tools = &self.shared.tools;
        let mut call = ExportAudit {
            after: since,
            severity,
            since: Some(tools.clock.wall().minus(OLDEST)),
            ..ExportAudit::default()
        };
        let mut looked = 0;
        while looked < CATCH_UP.0 {
            let (rows, next) = tools.store.audit_export(call.clone(), CATCH_UP.1).await?;
            looked += CATCH_UP.1;
            for (_, desk) in self.desks() {
                desk.add(rows.iter().map(|chained| &chained.row), 0);
            }
            match next {
                Some(after) => call.after = after,
                None => break,
            }
        }
        Ok(())
    }

    async fn store_marks(&self) {
        for (id, desk) in self.desks() {
            let Some(through) = desk.moved() else { continue };
            if let Err(error) = self.shared.tools.store.settle_alerts(&id, through).await {
                tracing::debug!(channel = %id, error = %escape(&error.to_string()), "a mark was not stored");
            }
        }
    }
}

/// Tries a channel once and writes down what became of it.
pub async fn try_channel(tools: &Tools, channel: &AlertChannel) -> DeliveryView {
    let message = Message::test(&channel.id, tools.clock.wall());
    let fault = deliver(tools, &channel.target, &message).await.err().map(|fault| fault.reason);
    courier::note(tools, courier::delivery(tools, &message, 1, fault), None).await
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::audit::AuditLog;
    use crate::net::egress::Egress;
    use crate::storage::SecurityStore;
    use crate::telemetry::live::Hub;
    use crate::types::alert::{AlertRules, AlertTarget, PrivateHosts};
    use crate::types::audit::{AuditEvent, AuditKind, Severity};
    use crate::types::clock::{Clock, UnixMillis};
    use crate::types::secret::Secret;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A receiver that answers with a status of its own to each request, and what it was sent.
    struct Receiver {
        place: SocketAddr,
        seen: mpsc::Receiver<(String, serde_json::Value)>,
        _tasks: Tasks,
    }

    impl Receiver {
        async fn answering(statuses: &'static [u16]) -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
            let place = listener.local_addr().expect("an address");
            let (sender, seen) = mpsc::channel(64);
            let tasks = Tasks::new();
            tasks.spawn_until_end("receiver", async move {
                for number in 0.. {
                    let (mut stream, _) = listener.accept().await.expect("accepts");
                    let (head, body) = read(&mut stream).await;
                    let status = statuses[number.min(statuses.len() - 1)];
                    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.expect("answers");
                    let body = serde_json::from_slice(&body).expect("JSON");
                    if sender.send((head, body)).await.is_err() {
                        return;
                    }
                }
            });
            Self { place, seen, _tasks: tasks }
        }

        async fn next(&mut self) -> (String, serde_json::Value) {
            tokio::time::timeout(PATIENCE, self.seen.recv()).await.expect("in time").expect("a request")
        }
    }

    async fn read(stream: &mut tokio::net::TcpStream) -> (String, Vec<u8>) {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut piece).await.expect("reads");
            bytes.extend_from_slice(&piece[..count]);
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = String::from_utf8(bytes[..end].to_vec()).expect("text").to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if bytes.len() >= end + 4 + length.parse::<usize>().expect("a number") {
                return (head, bytes.split_off(end + 4));
            }
        }
    }

    struct Owner {
        folder: tempfile::TempDir,
        store: SecurityStore,
        tools: Tools,
        tasks: Tasks,
        writing: Tasks,
        log: AuditLog,
        alerts: Alerts,
    }

    impl Owner {
        async fn start(folder: tempfile::TempDir, channels: Vec<AlertChannel>) -> Self {
            let store =
                SecurityStore::open(&folder.path().join("security.db"), &folder.path().join("key")).expect("opens");
            for channel in channels {
                store.put_alert_channel(channel).await.expect("stores");
            }
            let (tasks, writing, hub, clock) = (Tasks::new(), Tasks::new(), Hub::new(), Clock::system());
            let log = AuditLog::start(store.clone(), hub.clone(), &writing, clock.clone()).await.expect("starts");
            let tools = Tools { egress: Egress::direct(), store: store.clone(), hub, clock };
            let channels = store.alert_channels().await.expect("reads");
            let alerts = Alerts::start(&log.tap(), tools.clone(), &tasks, channels);
            Self { folder, store, tools, tasks, writing, log, alerts }
        }

        async fn record(&self, kind: AuditKind, severity: Severity, details: &str) {
            let event = AuditEvent::new(self.tools.clock.wall(), kind, severity, details);
            self.log.sink().record_acknowledged(event).await;
        }

        async fn end(self) -> tempfile::TempDir {
            self.tasks.shutdown(PATIENCE).await;
            self.writing.shutdown(PATIENCE).await;
            self.store.close().await.expect("closes");
            self.folder
        }
    }

    fn webhook(place: SocketAddr, rules: AlertRules) -> AlertChannel {
        AlertChannel {
            id: ChannelId::parse("hook").expect("a name"),
            target: AlertTarget::Webhook {
                url: format!("http://{place}/alerts"),
                private: PrivateHosts::Allowed,
                secret: Some(Secret::new("s3cret".into())),
            },
            rules,
            created: UnixMillis(1),
            through: 0,
        }
    }

    async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let waiting = async {
            loop {
                if let Some(found) = look().await {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"))
    }

    #[tokio::test]
    async fn an_event_arrives_signed_and_what_became_of_it_is_written_down() {
        let mut receiver = Receiver::answering(&[500, 200]).await;
        let folder = tempfile::tempdir().expect("folder");
        let owner = Owner::start(folder, vec![webhook(receiver.place, AlertRules::default())]).await;
        owner.record(AuditKind::RuleHit, Severity::Low, "nobody wants it").await;
        owner.record(AuditKind::BlockAdded, Severity::High, "192.0.2.1 blocked").await;
        let (_, first) = receiver.next().await;
        let (head, body) = receiver.next().await;
        assert_eq!((&body["id"], &body["events"]), (&first["id"], &serde_json::json!(1)), "tried again as it was");
        assert_eq!(body["groups"][0]["quoted"][0]["details"], "192.0.2.1 blocked");
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).expect(name).to_owned();
        let timestamp: i64 = header("x-flm-timestamp: ").parse().expect("a number");
        let raw = serde_json::to_vec(&body).expect("writes");
        let signature = crate::audit::alerts::webhook::signature(&Secret::new("s3cret".into()), timestamp, &raw);
        assert_eq!(header("x-flm-signature: "), signature);
        assert_eq!(header("x-flm-delivery: "), body["id"]);
        let noted = until("the delivery", async || {
            owner.store.deliveries(ChannelId::parse("hook").ok(), 0).await.expect("reads").pop()
        })
        .await;
        assert_eq!((noted.events, noted.attempts, noted.first, noted.fault), (1, 2, 2, None));
        // The console heard of it too: every home has its channel.
        let inbox = owner.store.inbox(0).await.expect("reads");
        assert_eq!((inbox.unread, inbox.alerts[0].details.as_str()), (1, "192.0.2.1 blocked"));
        owner.end().await;
    }

    /// Case 44.
    #[tokio::test]
    async fn a_thousand_events_for_a_dead_receiver_wait_as_a_sum_and_hold_nobody_up() {
        let dead = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
            listener.local_addr().expect("an address")
        };
        let folder = tempfile::tempdir().expect("folder");
        let owner = Owner::start(folder, vec![webhook(dead, AlertRules::default())]).await;
        for number in 0..1_000 {
            let event = AuditEvent::new(UnixMillis(1), AuditKind::KeyChanged, Severity::High, number.to_string());
            owner.log.sink().record(event);
        }
        owner.record(AuditKind::KeyChanged, Severity::High, "last").await;
        let hook = ChannelId::parse("hook").expect("a name");
        until("all of them to wait", async || (owner.alerts.waiting(&hook) == 1_001).then_some(())).await;
        // A mended channel takes over what waits, without a restart.
        let mut receiver = Receiver::answering(&[200]).await;
        owner.alerts.set(vec![webhook(receiver.place, AlertRules { group: Duration::ZERO, ..AlertRules::default() })]);
        let mut told = 0;
        while told < 1_001 {
            told += receiver.next().await.1["events"].as_u64().expect("a number");
        }
        assert_eq!(told, 1_001);
        owner.end().await;
    }

    #[tokio::test]
    async fn what_was_not_told_before_a_restart_is_told_after_it_and_nothing_twice() {
        let mut receiver = Receiver::answering(&[200]).await;
        let rules = AlertRules { group: Duration::from_secs(600), ..AlertRules::default() };
        let folder = tempfile::tempdir().expect("folder");
        let owner = Owner::start(folder, vec![webhook(receiver.place, rules)]).await;
        owner.record(AuditKind::BlockAdded, Severity::High, "told").await;
        assert_eq!(receiver.next().await.1["groups"][0]["quoted"][0]["details"], "told");
        owner.record(AuditKind::BlockAdded, Severity::High, "waits for the end of the span").await;
        let folder = owner.end().await;
        let owner = Owner::start(folder, Vec::new()).await;
        let (_, body) = receiver.next().await;
        assert_eq!(body["groups"][0]["quoted"][0]["details"], "waits for the end of the span");
        assert_eq!(body["events"], 1);
        owner.end().await;
    }

    #[tokio::test]
    async fn a_refusal_for_good_is_given_up_at_once_and_a_removed_channel_tells_nothing() {
        let mut receiver = Receiver::answering(&[410]).await;
        let folder = tempfile::tempdir().expect("folder");
        let owner = Owner::start(folder, vec![webhook(receiver.place, AlertRules::default())]).await;
        owner.record(AuditKind::BlockAdded, Severity::High, "x").await;
        receiver.next().await;
        let hook = ChannelId::parse("hook").expect("a name");
        let noted =
            until("the delivery", async || owner.store.deliveries(Some(hook.clone()), 0).await.expect("reads").pop())
                .await;
        assert_eq!((noted.attempts, noted.fault.as_deref()), (1, Some("the receiver answered 410")));
        owner.alerts.set(Vec::new());
        owner.record(AuditKind::KeyChanged, Severity::Critical, "y").await;
        let folder = owner.end().await;
        assert!(receiver.seen.try_recv().is_err());
        drop(folder);
    }
}
