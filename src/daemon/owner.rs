//! [`Owner`]: one process, one home. Starts everything in order, runs until told to end, ends everything in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::hosting::{Hosting, Identity};
use super::runtime::WorkerThreads;
use super::{
    certificates, control_server, demo, egress_watch, health, keeper, key_watch, resources, settings_watch, traces,
};
use crate::audit::alerts::Alerts;
use crate::config::files;
use crate::config::paths::HomePaths;
use crate::config::table;
use crate::control::dialer::Incoming;
use crate::control::ownership::{Claim, OwnerLock, claim};
use crate::engines::affinity::Affinity;
use crate::guard::Guard;
use crate::net::media_fetch::MediaFetcher;
use crate::operations::context::{Context, ContextOptions, Live};
use crate::operations::keys::store_key_use;
use crate::operations::usage::store_usage;
use crate::operations::{alerts as operations_alerts, egress, limits, loading, policy, reload};
use crate::proxy::shared::{ProxyShared, ServedCertificates};
use crate::proxy::worker::Workers;
use crate::telemetry::captures::{CaptureLane, Ended};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_lane::{ROWS_FOR_THE_DISK, RequestLane};
use crate::telemetry::tasks::{ShutdownEnd, Tasks};
use crate::tls::machine::Machine;
use crate::tls::supply::Supply;
use crate::types::calls::proxy::Reload;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::OwnerKind;
use crate::types::live::LiveEvent;
use crate::types::request::RequestRow;
use crate::types::text::escape;

/// How long tasks may take once they are told to end: none of them waits for a client any more.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long clean-ups in the world may take at the end: DNS providers answer within seconds.
const CLEANING: Duration = Duration::from_secs(15);

/// What an owner is started with.
#[derive(Debug)]
pub struct OwnerOptions {
    /// Where everything is.
    pub paths: HomePaths,
    /// How it runs.
    pub kind: OwnerKind,
    /// Settings and environment.
    pub context: ContextOptions,
    /// In-memory connections of a front end in the same process.
    pub incoming: Option<Incoming>,
    /// What the owner is for.
    pub purpose: Purpose,
}

/// What an owner is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The operator's own engines.
    Serve,
    /// The demo: only its own engine, no look at this machine (SPEC §1.1).
    Demo {
        /// Of its clients.
        seed: u64,
    },
}

/// What came of a start.
pub enum Start {
    /// This process owns the home now.
    Owner(Box<Owner>),
    /// Another process does, and serves.
    OwnedByAnother,
}

/// The owner of a home.
pub struct Owner {
    context: Arc<Context>,
    hosting: Arc<Hosting>,
    workers: Workers,
    threads: WorkerThreads,
    /// Engine and clients of the demo: end first, so that nothing is waited for.
    demo: Tasks,
    /// Health and keeper: end when the listeners have drained.
    background: Tasks,
    /// Alert channels: end when nothing happens any more, before the store is closed.
    alerting: Tasks,
    /// Writes the request log and exports traces: ends when the last batch is written and sent.
    log: Tasks,
    /// Control connections: end last, since they tell how everything else ended.
    control: Tasks,
    lock: OwnerLock,
}

impl Owner {
    /// Claims the home and starts everything but listeners. Must be called on the runtime that it is to live on.
    ///
    /// # Errors
    /// Of folders, lock, databases, settings and socket; nothing is left running then.
    pub async fn start(options: OwnerOptions) -> Outcome<Start> {
        let OwnerOptions { paths, kind, context, incoming, purpose } = options;
        let lock = match claim(&paths).await? {
            Claim::Owned(_connection) => return Ok(Start::OwnedByAnother),
            Claim::Free(lock) => lock,
        };
        let mut context = Context::open(paths.clone(), context).await?;
        let settings = context.settings.load();
        for warning in settings.warnings() {
            tracing::warn!(warning, "stored setting not used");
        }
        limits::publish(&settings, None);
        // Before anything dials: FLM does not start when its way out is not there (SPEC §7).
        if let Err(failure) = egress::prove(&context).await {
            context.close().await;
            return Err(failure);
        }

        // Before threads are started, since it may fail. Whoever connects is answered when everything runs.
        let listener = control_server::bind(&paths)?;
        let count = worker_count(settings.get(table::PROXY_WORKERS));
        let (shared, captured) = share(&context, count).await?;
        let (workers, threads) = WorkerThreads::start(count, &shared).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("the system gives no threads for workers: {error}"))
                .hint("raise the limit on processes (ulimit -u), or set proxy.workers to a smaller number")
        })?;
        let hosting = Arc::new(Hosting {
            identity: Identity {
                kind,
                started: context.clock.wall(),
                home: paths.home().to_string_lossy().into_owned(),
                demo: matches!(purpose, Purpose::Demo { .. }),
            },
            proxy: shared.clone(),
            workers: workers.clone(),
            settings: context.settings.clone(),
            security: context.stores.security.clone(),
            audit: context.audit.clone(),
            hub: context.hub.clone(),
            gpus: arc_swap::ArcSwap::default(),
            supply: Arc::new(supply(&context)),
            tasks: Tasks::new(),
            listeners: Mutex::new(BTreeMap::new()),
            ending: CancellationToken::new(),
            drained: CancellationToken::new(),
        });
        let (blocks_changed, firewall_applied) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        // One that this version cannot read must not keep the proxy from serving.
        let channels = context.stores.security.alert_channels().await.unwrap_or_else(|error| {
            tracing::error!(error = %escape(&error.to_string()), "nobody is alerted: the channels cannot be read");
            Vec::new()
        });
        let alerting = Tasks::new();
        let alerts = Alerts::start(&context.audit.tap(), operations_alerts::tools(&context), &alerting, channels);
        let (proxy, host) = (shared.clone(), hosting.clone());
        context.live = Some(Live { proxy, host, alerts, blocks_changed, firewall_applied });
        let context = Arc::new(context);

        let (demo, background, log, control) = (Tasks::new(), Tasks::new(), Tasks::new(), Tasks::new());
        let (lane, logged) = RequestLane::new(ROWS_FOR_THE_DISK);
        let registry = context.registry.clone();
        let load = move || registry.publish_load();
        let (offer, traced) = traces::Offer::new(shared.metrics.traces().clone());
        let sampled = move |rows: &[Arc<RequestRow>]| offer.offer(rows);
        shared.metrics.collect(context.hub.clone(), context.clock.clone(), &background, lane, load, sampled);
        let (counts, ending) = (shared.metrics.traces().clone(), log.ending().clone());
        log.spawn("traces", traces::export(context.clone(), traced, counts, ending));
        log.spawn("request log", keeper::log_requests(context.clone(), logged));
        log.spawn("captures", keeper::store_captures(context.clone(), captured, log.ending().clone()));
        background.spawn_until_end("block expiry", keeper::lift_blocks(context.clone()));
        background.spawn_until_end("guard's decisions", keeper::store_decisions(context.clone()));
        background.spawn_until_end("firewall", keeper::note_firewall(context.clone()));
        background.spawn_until_end("key use", keeper::note_key_use(context.clone()));
        background.spawn_until_end("usage", keeper::note_usage(context.clone()));
        background.spawn_until_end("audit head", keeper::note_audit_head(context.clone()));
        background.spawn_until_end("trimming", keeper::trim(context.clone()));
        background.spawn_until_end("daily backup", keeper::back_up(context.clone()));
        background.spawn_until_end("settings file", settings_watch::watch(context.clone()));
        background.spawn_until_end("egress proxy", egress_watch::watch(context.clone()));
        background.spawn_until_end("certificates", certificates::watch(hosting.clone()));
        background.spawn_until_end("protection of the machine", resources::watch(context.clone(), count));
        background.spawn_until_end("surges of keys", key_watch::watch(context.clone()));
        background.spawn_until_end("engine health", health::check_engines(context.clone()));
        match purpose {
            Purpose::Serve => {
                background.spawn_until_end("graphics processors", health::watch_gpus(context.clone(), hosting.clone()));
                background.spawn_until_end("first detection", health::first_detection(context.clone()));
            }
            Purpose::Demo { seed } => demo::start(&context, seed, &demo).await?,
        }
        control.spawn("control server", control_server::serve(context.clone(), listener, incoming, control.clone()));
        tracing::info!(home = %paths.home().display(), pid = std::process::id(), "owner started");
        Ok(Start::Owner(Box::new(Self {
            context,
            hosting,
            workers,
            threads,
            demo,
            background,
            alerting,
            log,
            control,
            lock,
        })))
    }

    /// Everything an operation works on, for calls from within the process.
    #[must_use]
    pub fn context(&self) -> Arc<Context> {
        self.context.clone()
    }

    /// Ends the owner when it is cancelled: for signals.
    #[must_use]
    pub fn ending(&self) -> CancellationToken {
        self.hosting.ending.clone()
    }

    /// Waits until the owner is told to end, then drains and closes everything.
    pub async fn run(self) {
        self.hosting.ending.cancelled().await;
        tracing::info!("owner ends: listeners drain");
        end_tasks("demo", &self.demo).await;
        self.hosting.drain().await;
        self.workers.end();
        let threads = self.threads;
        if tokio::task::spawn_blocking(move || threads.join()).await.is_err() {
            tracing::error!("waiting for the workers failed");
        }
        end_tasks("listeners", &self.hosting.tasks).await;
        // The collector hands over its last batch and drops the senders; then the tasks of log and traces end by themselves.
        end_tasks("background", &self.background).await;
        // What was put into the world, such as a TXT record, is taken out again before the program is gone.
        if let ShutdownEnd::TimedOut(left) = self.hosting.supply.cleanups.shutdown(CLEANING).await {
            tracing::warn!(left, "not everything that was set for a certificate could be removed in time");
        }
        end_tasks("alerts", &self.alerting).await;
        end_tasks("request log and traces", &self.log).await;
        keeper::store_pending(&self.context).await;
        if let Err(failure) = store_key_use(&self.context).await {
            tracing::error!(%failure, "the last use of keys could not be stored");
        }
        if let Err(failure) = store_usage(&self.context).await {
            tracing::error!(%failure, "the last usage could not be stored");
        }
        self.context.hub.publish(LiveEvent::Ending);
        self.hosting.drained.cancel();
        end_tasks("control", &self.control).await;
        self.context.close().await;
        if let Err(error) = files::remove(&self.context.paths.socket()) {
            tracing::warn!(%error, "the control socket stays behind");
        }
        tracing::info!("owner ended");
        drop(self.lock);
    }
}

/// Reads settings and stores again; what is wrong keeps the old state and is logged (SPEC §4.9).
pub(super) async fn reload(context: &Context) {
    // How it went is told where it is decided; what comes before that is told here.
    if let Err(failure) = reload::reload(context, Reload { port: None }).await {
        tracing::warn!(%failure, "the signal to reload changed nothing");
    }
}

/// What the workers read, filled from the stores.
async fn share(context: &Context, workers: usize) -> Outcome<(Arc<ProxyShared>, Ended)> {
    let settings = context.settings.load();
    let guard = Arc::new(Guard::new(policy::for_start(context).await, process_key()?));
    limits::publish_exposure(&settings, &guard);
    loading::read_guard(context).await?.publish(&guard);
    loading::restore_failures(context, &guard).await?;
    loading::restore_budgets(context, &guard).await?;
    context.registry.set_thresholds(limits::engine_thresholds(&settings));
    context.registry.set_default_slots(settings.get(table::ENGINE_SLOTS));
    let (captures, ended) = CaptureLane::new();
    let shared = ProxyShared {
        guard,
        registry: context.registry.clone(),
        audit: context.audit.sink(),
        limits: arc_swap::ArcSwap::from_pointee(limits::proxy_limits(&settings)),
        prompts: arc_swap::ArcSwap::new(loading::prompt_table(context).await?),
        profiles: arc_swap::ArcSwap::new(loading::profile_table(context).await?),
        metrics: Metrics::new(workers),
        captures,
        hashing: context.hashing.clone(),
        fetcher: MediaFetcher::by(context.egress.clone()),
        clock: context.clock.clone(),
        connections: Arc::default(),
        affinity: Affinity::default(),
        served: ServedCertificates::default(),
        egress: context.egress.clone(),
    };
    Ok((Arc::new(shared), ended))
}

/// What gives listeners their certificates.
fn supply(context: &Context) -> Supply {
    let (settings, variables) = (context.settings.clone(), context.variables.clone());
    Supply {
        store: context.stores.security.clone(),
        clock: context.clock.clone(),
        machine: Box::new(Machine::now),
        settings: Box::new(move || settings.load()),
        challenges: Arc::default(),
        variable: Box::new(move |name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        }),
        egress: context.egress.clone(),
        cleanups: Tasks::new(),
        ordering: tokio::sync::Mutex::new(()),
    }
}

async fn end_tasks(what: &'static str, tasks: &Tasks) {
    if let ShutdownEnd::TimedOut(left) = tasks.shutdown(FAREWELL).await {
        tracing::warn!(what, left, "tasks still ran at the end");
    }
}

/// 0 is one worker for each core (see the settings table).
fn worker_count(setting: u32) -> usize {
    match usize::try_from(setting) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        Ok(count) => count,
    }
}

/// Keys the cache of verified keys; new for each process.
fn process_key() -> Outcome<[u8; 32]> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::new(ErrorCode::Internal, format!("the system gives no random numbers: {error}")))?;
    Ok(key)
}
