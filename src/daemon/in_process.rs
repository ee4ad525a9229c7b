//! An owner on a thread of this process, for `--in-process`, the demo and tests: a front end that waits for its
//! terminal never holds it up.

use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::owner::{Owner, OwnerOptions, Start};
use crate::control::dialer::{self, Dialer};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// A running owner. Dropping it tells it to end and waits: its listeners drain first.
#[derive(Debug)]
pub struct InProcess {
    dialer: Dialer,
    ending: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl InProcess {
    /// Starts an owner; `None` when another process owns the home already.
    ///
    /// # Errors
    /// Of [`Owner::start`], and when the system gives no thread.
    pub async fn start(mut options: OwnerOptions) -> Outcome<Option<Self>> {
        let (dialer, incoming) = dialer::pair();
        options.incoming = Some(incoming);
        let (tell, told) = oneshot::channel();
        let no_thread = |error: std::io::Error| {
            Failure::new(ErrorCode::Internal, format!("the system gives no thread for the proxy: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let thread = std::thread::Builder::new()
            .name("flm-owner".to_owned())
            .spawn(move || runtime.block_on(run(options, tell)))
            .map_err(no_thread)?;
        let started = told.await.unwrap_or_else(|_panicked| {
            Err(Failure::new(ErrorCode::Internal, "the proxy could not start inside this process"))
        })?;
        Ok(started.map(|ending| Self { dialer, ending, thread: Some(thread) }))
    }

    /// Whether it has ended, because somebody told it to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Opens connections to it.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.ending.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the proxy panicked");
        }
    }
}

async fn run(options: OwnerOptions, tell: oneshot::Sender<Outcome<Option<CancellationToken>>>) {
    let (answer, owner) = match Owner::start(options).await {
        Ok(Start::Owner(owner)) => (Ok(Some(owner.ending())), Some(owner)),
        Ok(Start::OwnedByAnother) => (Ok(None), None),
        Err(failure) => (Err(failure), None),
    };
    // Whoever asked may have gone meanwhile; then nobody will ever end this owner.
    let wanted = tell.send(answer).is_ok();
    if let Some(owner) = owner {
        if !wanted {
            owner.ending().cancel();
        }
        owner.run().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::files;
    use crate::config::paths::{HomePaths, PathOverrides};
    use crate::control::{Attachment, Operator};
    use crate::daemon::owner::Purpose;
    use crate::net::egress::Egress;
    use crate::net::message::Outgoing;
    use crate::net::pool::{Pool, PoolConfig, Repeat};
    use crate::net::upstream::Upstream;
    use crate::operations::context::ContextOptions;
    use crate::storage::SecurityStore;
    use crate::telemetry::tasks::Tasks;
    use crate::types::address::parse_network;
    use crate::types::calls::Permission;
    use crate::types::calls::addresses::{AddBlock, ListBlocks};
    use crate::types::calls::audit::{ListAudit, VerifyAudit};
    use crate::types::calls::keys::{CreateKey, EnsureFirstKey, ListKeys};
    use crate::types::calls::proxy::{EndOwner, StartListener, Status};
    use crate::types::key::KeyLimits;
    use crate::types::listener::{ListenerConfig, OwnerKind};
    use crate::types::live::{LiveEvent, LiveLine, Noun};

    /// Far more than anything here takes: a bound, not a wait.
    const BOUND: Duration = Duration::from_secs(20);

    struct Place {
        paths: HomePaths,
        _folder: tempfile::TempDir,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir_in("/tmp").expect("folder");
        let overrides = PathOverrides { home: Some(folder.path().to_owned()), ..PathOverrides::default() };
        Place { paths: HomePaths::resolve(&overrides).expect("resolves"), _folder: folder }
    }

    async fn start(place: &Place, purpose: Purpose) -> Option<InProcess> {
        let options = OwnerOptions {
            paths: place.paths.clone(),
            kind: OwnerKind::InProcess,
            context: ContextOptions { variables: Vec::new(), ..ContextOptions::from_process() },
            incoming: None,
            purpose,
        };
        tokio::time::timeout(BOUND, InProcess::start(options)).await.expect("in time").expect("starts")
    }

    async fn line(events: &mut crate::control::EventStream) -> Option<LiveLine> {
        tokio::time::timeout(BOUND, events.next()).await.expect("in time")
    }

    #[tokio::test]
    async fn both_ways_to_an_owner_speak_the_same_protocol() {
        let place = place();
        let owner = start(&place, Purpose::Demo { seed: 1 }).await.expect("the home is free");
        let near = Operator::in_process(owner.dialer(), Permission::Full);
        let far = Operator::attach(&place.paths, Permission::Full).await.expect("connects").expect("it serves");
        assert_eq!((near.attachment(), far.attachment()), (Attachment::InProcess, Attachment::Daemon));
        let call = CreateKey { label: "x".to_owned(), expires_in: None, limits: KeyLimits::default() };
        near.call(call.clone()).await.expect("makes a key");
        let (one, other) = (near.call(ListKeys {}).await, far.call(ListKeys {}).await);
        assert_eq!(one, other);
        assert_eq!(near.call(call.clone()).await, far.call(call).await, "the label is taken, however one asks");
        assert!(start(&place, Purpose::Serve).await.is_none(), "a second owner finds the first");
    }

    #[tokio::test]
    async fn a_read_only_connection_may_look_and_nothing_else() {
        let place = place();
        let owner = start(&place, Purpose::Demo { seed: 1 }).await.expect("the home is free");
        let operator = Operator::in_process(owner.dialer(), Permission::ReadOnly);
        let before = operator.call(ListKeys {}).await.expect("reading is allowed");
        for refused in [
            operator.call(EnsureFirstKey {}).await.map(drop),
            operator.call(EndOwner {}).await,
            operator.call(StartListener { config: None, unnamed: Vec::new() }).await.map(drop),
        ] {
            assert_eq!(refused.expect_err("refused").code, ErrorCode::ReadOnly);
        }
        assert_eq!(operator.call(ListKeys {}).await.expect("reads").len(), before.len());
    }

    #[tokio::test]
    async fn the_live_lane_begins_with_a_snapshot_and_ends_with_the_owner() {
        let place = place();
        let owner = start(&place, Purpose::Demo { seed: 1 }).await.expect("the home is free");
        let operator = Operator::in_process(owner.dialer(), Permission::Full);
        let mut events = operator.events().await.expect("subscribes");
        let Some(LiveLine::Snapshot { snapshot, dropped: 0 }) = line(&mut events).await else { panic!("a snapshot") };
        assert!(snapshot.status.demo && snapshot.engines.len() == 1, "{snapshot:?}");

        let network = parse_network("203.0.113.9").expect("a network");
        let call = AddBlock { network, duration: Some(Duration::from_secs(1)), reason: String::new() };
        operator.call(call).await.expect("blocks");
        let mut last = snapshot.sequence;
        let mut changes = 0;
        // Once when it is put there, once when its second has passed: nobody asked.
        while changes < 2 {
            let Some(LiveLine::Event(event)) = line(&mut events).await else { panic!("an event") };
            assert_eq!(event.sequence, last + 1, "no gap");
            last = event.sequence;
            changes += u32::from(matches!(*event.event, LiveEvent::Changed(Noun::Blocklist)));
        }
        let page = operator.call(ListBlocks { offset: 0, limit: 10 }).await.expect("lists");
        assert_eq!(page.total, 0, "the block has lifted itself");

        operator.call(EndOwner {}).await.expect("ends");
        let mut ending = false;
        while let Some(line) = line(&mut events).await {
            ending = matches!(&line, LiveLine::Event(event) if matches!(*event.event, LiveEvent::Ending));
        }
        assert!(ending, "the last event says so");
        assert_eq!(operator.call(Status {}).await.expect_err("it is gone").code, ErrorCode::IoError);
    }

    #[tokio::test]
    async fn changes_survive_the_owner_and_are_in_the_verified_audit_log() {
        let place = place();
        let owner = start(&place, Purpose::Demo { seed: 1 }).await.expect("the home is free");
        let operator = Operator::in_process(owner.dialer(), Permission::Full);
        let config = ListenerConfig { port: 0, ..ListenerConfig::default() };
        let second = operator.call(StartListener { config: Some(config), unnamed: Vec::new() }).await.expect("listens");
        let same = operator.call(StartListener { config: Some(second.config.clone()), unnamed: Vec::new() }).await;
        assert_eq!(same.expect_err("it runs").code, ErrorCode::ProxyAlreadyRunning);
        let keys = operator.call(ListKeys {}).await.expect("lists").len();
        tokio::task::spawn_blocking(move || drop(owner)).await.expect("ends");

        let alone = Operator::connect(&place.paths, Permission::Full).await.expect("the home is free");
        assert_eq!(alone.attachment(), Attachment::Alone);
        assert_eq!(alone.call(ListKeys {}).await.expect("lists").len(), keys);
        let verdict = alone.call(VerifyAudit {}).await.expect("verifies");
        assert_eq!(verdict.broken_at, None);
        let rows = alone.call(ListAudit::default()).await.expect("lists");
        assert!(rows.iter().any(|row| row.event.details.contains(&second.config.port.to_string())), "{rows:?}");
        assert_eq!(alone.call(Status {}).await.expect_err("none runs").code, ErrorCode::NotFound);
        alone.close().await;
    }

    async fn listen(operator: &Operator) -> Upstream {
        let config = ListenerConfig { port: 0, ..ListenerConfig::default() };
        let call = StartListener { config: Some(config), unnamed: Vec::new() };
        let listener = operator.call(call).await.expect("listens");
        Upstream::parse(&listener.addresses[0]).expect("a URL")
    }

    async fn models(base: &Upstream, key: &str) -> http::StatusCode {
        let tasks = Tasks::new();
        let client = Pool::new(PoolConfig::default(), Egress::direct(), tasks.clone());
        let bearer = format!("Bearer {key}").parse().expect("a value");
        let request = Outgoing {
            method: http::Method::GET,
            target: "/v1/models".into(),
            fields: vec![(http::header::AUTHORIZATION, bearer)],
            body: bytes::Bytes::new(),
        };
        let answer = client.send(base, request, Repeat::ByMethod);
        tokio::time::timeout(BOUND, answer).await.expect("in time").expect("an answer").status
    }

    #[tokio::test]
    async fn after_a_migration_that_broke_half_way_existing_keys_are_served_and_changes_refused() {
        let place = place();
        let owner = start(&place, Purpose::Serve).await.expect("the home is free");
        let operator = Operator::in_process(owner.dialer(), Permission::Full);
        let call = CreateKey { label: "x".to_owned(), expires_in: None, limits: KeyLimits::default() };
        let key = operator.call(call.clone()).await.expect("makes a key").key;
        let base = listen(&operator).await;
        assert_eq!(models(&base, key.expose()).await, http::StatusCode::OK);
        tokio::task::spawn_blocking(move || drop(owner)).await.expect("ends");

        // As the version before left it, with something where the last step's last statement wants to be.
        let (database, key_file) = (&place.paths.security_db, &place.paths.key_file);
        let store = SecurityStore::open(database, key_file).expect("opens");
        let record = store.keys().await.expect("reads").remove(0);
        store.close().await.expect("closes");
        files::remove(database).expect("removes");
        let store = SecurityStore::open_earlier(database, key_file, 4);
        store.insert_key(record).await.expect("stores");
        store.tamper("CREATE TABLE alert_deliveries (a)").await.expect("stands in the way");
        store.close().await.expect("closes");

        let owner = start(&place, Purpose::Serve).await.expect("starts all the same");
        let operator = Operator::in_process(owner.dialer(), Permission::Full);
        let why = operator.call(Status {}).await.expect("answers").read_only.expect("says why it only reads");
        assert!(why.contains("from schema version 4 to 5"), "{why}");
        let base = listen(&operator).await;
        assert_eq!(models(&base, key.expose()).await, http::StatusCode::OK, "the key that is there");
        assert_eq!(models(&base, "flm_wrong").await, http::StatusCode::UNAUTHORIZED);
        let failure = operator.call(call).await.expect_err("refused");
        assert_eq!(failure.code, ErrorCode::ReadOnly);
        assert!(failure.hint.expect("hint").contains("flm security backup"));
        tokio::task::spawn_blocking(move || drop(owner)).await.expect("ends");

        // Mended: the next start migrates, and everything is as it was.
        let store = SecurityStore::open(database, key_file).expect("opens");
        assert!(store.read_only().is_some());
        store.tamper("DROP TABLE alert_deliveries").await.expect("mends");
        store.close().await.expect("closes");
        let owner = start(&place, Purpose::Serve).await.expect("starts");
        let operator = Operator::in_process(owner.dialer(), Permission::Full);
        assert_eq!(operator.call(Status {}).await.expect("answers").read_only, None);
        assert_eq!(operator.call(ListKeys {}).await.expect("lists").len(), 1);
        assert_eq!(operator.call(VerifyAudit {}).await.expect("verifies").broken_at, None);
    }
}
