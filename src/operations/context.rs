//! [`Context`]: everything an operation works on, with or without a running proxy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{Mutex, MutexGuard, Notify};

use super::{backup, unlock};
use crate::audit::alerts::Alerts;
use crate::audit::{Acknowledgement, AuditLog};
use crate::config::paths::HomePaths;
use crate::config::settings::{SettingLayers, Settings};
use crate::engines::adapter::BoxFuture;
use crate::engines::registry::Registry;
use crate::net::egress::Egress;
use crate::net::pool::{Pool, PoolConfig};
use crate::proxy::shared::ProxyShared;
use crate::storage::{ConfigStore, SecurityStore};
use crate::telemetry::hashing::HashingThreads;
use crate::telemetry::live::Hub;
use crate::telemetry::tasks::{ShutdownEnd, Tasks};
use crate::types::audit::{AuditEvent, AuditKind, Severity};
use crate::types::certificate::Occasion;
use crate::types::clock::{Clock, UnixMillis};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{ListenerConfig, ListenerStatus, ProxyStatus};
use crate::types::live::{LiveEvent, LiveSnapshot, Noun};
use crate::types::secret::Secret;
use crate::types::text::escape;

/// How long tasks may take to end when a home is closed: they only have short things to finish.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Both databases of a home.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Settings, engines, prompts.
    pub config: ConfigStore,
    /// Keys, lists, logs; encrypted.
    pub security: SecurityStore,
}

/// What only the owner of a home can do. The daemon implements it: this room never imports it.
pub trait Host: Send + Sync + 'static {
    /// Owner and listeners now.
    fn status(&self) -> ProxyStatus;

    /// The state for a console's first frame.
    fn snapshot(&self) -> LiveSnapshot;

    /// Takes the ports and serves the plain one; the answered ports are the real ones. Checks of mode and address are done.
    /// With TLS its port stays closed until [`Host::certify`].
    ///
    /// # Errors
    /// See [`ListenFault`].
    fn open(&self, config: ListenerConfig) -> Result<ListenerStatus, ListenFault>;

    /// Gives the listener on that port its certificate and opens its TLS port; `told` hears how far it is. May take minutes. A
    /// listener without TLS has all it needs. Dropping the future ends it.
    fn certify(&self, port: u16, occasion: Occasion, told: Told) -> BoxFuture<'_, Outcome<ListenerStatus>>;

    /// Refuses new connections on the port, waits for the running ones and forgets the listener.
    fn close(&self, port: u16) -> BoxFuture<'_, Outcome<()>>;

    /// Looks at the listeners' certificates now, as it is done once a minute anyway; answers what is served anew.
    fn renew_certificates(&self) -> BoxFuture<'_, Outcome<Vec<String>>>;

    /// Tells the owner to end and waits until its listeners have drained.
    fn end(&self) -> BoxFuture<'_, ()>;
}

/// Hears how far something is; must not wait.
pub type Told = Box<dyn Fn(&str) + Send + Sync>;

/// Why a listener did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenFault {
    /// Some program holds this port.
    PortInUse(u16),
    /// TLS cannot be set up.
    Certificate(Failure),
    /// The system refused this port for another reason, in its words.
    Refused {
        /// Which port.
        port: u16,
        /// Why.
        reason: String,
    },
}

/// The live half of an owner's context.
pub struct Live {
    /// What the workers read: guard, registry, limits, prompts.
    pub proxy: Arc<ProxyShared>,
    /// The owner itself.
    pub host: Arc<dyn Host>,
    /// The running alert channels.
    pub alerts: Alerts,
    /// Rung when a block was added, so that the keeper sets its clock anew.
    pub blocks_changed: Arc<Notify>,
    /// Rung when rules were put in force in the machine's firewall, so that the keeper sees what becomes of them.
    pub firewall_applied: Arc<Notify>,
}

/// Settings in force with the layers that they were built from.
#[derive(Debug)]
pub struct SettingsInForce {
    values: ArcSwap<Settings>,
    /// What the process started with: a setting that needs a restart has this value until then.
    started: Settings,
    /// The layer of `flm.toml` that is in force.
    file: ArcSwap<BTreeMap<String, String>>,
    /// Why the last reload was refused, until one succeeds.
    fault: ArcSwapOption<String>,
    /// Flags and environment: fixed for the life of the process.
    fixed: SettingLayers,
}

impl SettingsInForce {
    /// The values now.
    pub fn load(&self) -> Arc<Settings> {
        self.values.load_full()
    }

    /// Puts new values in force, with the layer of `flm.toml` that they were built from.
    pub fn store(&self, settings: Settings, file: BTreeMap<String, String>) {
        self.values.store(Arc::new(settings));
        self.file.store(Arc::new(file));
    }

    /// The layer of `flm.toml` that is in force.
    pub fn file(&self) -> Arc<BTreeMap<String, String>> {
        self.file.load_full()
    }

    /// Why the last reload was refused; `None` when it was not.
    pub fn fault(&self) -> Option<Arc<String>> {
        self.fault.load_full()
    }

    /// Notes why a reload was refused, or that one succeeded.
    pub fn set_fault(&self, fault: Option<String>) {
        self.fault.store(fault.map(Arc::new));
    }

    /// Settings that differ from what the process started with and are in force only after a restart.
    pub fn needing_restart(&self) -> Vec<String> {
        self.started.needing_restart(&self.load()).into_iter().map(str::to_owned).collect()
    }

    /// Builds from the fixed layers, the given file layer and the given database layer.
    pub fn build(&self, file: BTreeMap<String, String>, database: BTreeMap<String, String>) -> Outcome<Settings> {
        Settings::build(&SettingLayers {
            flags: self.fixed.flags.clone(),
            environment: self.fixed.environment.clone(),
            file,
            database,
        })
    }
}

/// What a process that opens a home brings along.
#[derive(Debug)]
pub struct ContextOptions {
    /// Settings given on the command line.
    pub flags: BTreeMap<String, String>,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// The time.
    pub clock: Clock,
    /// The passphrase of `security.db`, when somebody typed it.
    pub passphrase: Option<Secret>,
}

impl ContextOptions {
    /// No flags, this process's environment, the system's clock.
    pub fn from_process() -> Self {
        Self {
            flags: BTreeMap::new(),
            // A variable that is no text cannot name a setting.
            variables: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            clock: Clock::system(),
            passphrase: None,
        }
    }
}

/// Everything an operation works on. The caller holds the home's lock for as long as this lives.
pub struct Context {
    /// Where everything is.
    pub paths: HomePaths,
    /// The databases.
    pub stores: Stores,
    /// Settings in force.
    pub settings: Arc<SettingsInForce>,
    /// Environment variables of this process: engines' keys, detection.
    pub variables: Vec<(String, String)>,
    /// Registered engines; without an owner they are checked when somebody asks.
    pub registry: Registry,
    /// The way to everything that is not on this machine.
    pub egress: Egress,
    /// Connections to engines for checks and detection, never for requests.
    pub pool: Pool,
    /// Where Argon2 runs.
    pub hashing: HashingThreads,
    /// The audit log.
    pub audit: AuditLog,
    /// Where changes are told to consoles; nobody listens without an owner.
    pub hub: Hub,
    /// The time.
    pub clock: Clock,
    /// Tasks that end with the context.
    pub tasks: Tasks,
    /// The proxy, when this process owns the home.
    pub live: Option<Live>,
    /// The audit log's writer: ends after everything that may still record.
    audit_tasks: Tasks,
    /// Held by every change from its first look to its audit row, so that two changes never cross.
    changing: Mutex<()>,
    /// Held while a backup is made, by the job that makes it.
    pub(super) backing_up: Arc<Mutex<()>>,
}

impl Context {
    /// Opens both databases and builds settings and registry. Must be called on a runtime.
    ///
    /// # Errors
    /// When a folder, file or database cannot be used, or a setting is wrong; each says how to mend it.
    pub async fn open(paths: HomePaths, options: ContextOptions) -> Outcome<Self> {
        let ContextOptions { flags, variables, clock, passphrase } = options;
        let opened = {
            let (paths, now) = (paths.clone(), clock.wall());
            tokio::task::spawn_blocking(move || open_stores(&paths, passphrase.as_ref(), now))
        };
        let (repaired, stores, file) = opened.await.map_err(|_| blocking_panicked("opening the home"))??;
        let database = stores.config.settings().await?.into_iter().collect();
        let fixed = SettingLayers {
            flags,
            environment: SettingLayers::from_environment(variables.iter().cloned()),
            ..SettingLayers::default()
        };
        let settings = Settings::build(&SettingLayers { file: file.clone(), database, ..fixed.clone() })?;
        let egress = build_egress(&settings, &variables, &clock).await?;

        let tasks = Tasks::new();
        let hub = Hub::new();
        let hashing = HashingThreads::start().map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("the system gives no threads for checking keys: {error}"))
                .hint("raise the limit on processes (ulimit -u) or end other programs")
        })?;
        let audit_tasks = Tasks::new();
        let audit = AuditLog::start(stores.security.clone(), hub.clone(), &audit_tasks, clock.clone()).await?;
        let context = Self {
            paths,
            settings: Arc::new(SettingsInForce {
                values: ArcSwap::from_pointee(settings.clone()),
                started: settings,
                file: ArcSwap::from_pointee(file),
                fault: ArcSwapOption::empty(),
                fixed,
            }),
            variables,
            registry: Registry::new(hub.clone(), clock.clone()),
            pool: Pool::new(PoolConfig::default(), egress.clone(), tasks.clone()),
            egress,
            stores,
            hashing,
            audit,
            hub,
            clock,
            tasks,
            audit_tasks,
            live: None,
            changing: Mutex::new(()),
            backing_up: Arc::new(Mutex::new(())),
        };
        super::loading::load_engines(&context).await?;
        for repair in repaired {
            tracing::warn!(repair, "file mode repaired");
            context.record(AuditKind::Maintenance, Severity::Medium, repair).await;
        }
        Ok(context)
    }

    /// Ends tasks, writes everything back and closes both databases. Operations that still run fail after it.
    pub async fn close(&self) {
        for tasks in [&self.tasks, &self.audit_tasks] {
            if let ShutdownEnd::TimedOut(left) = tasks.shutdown(CLOSE_PATIENCE).await {
                tracing::warn!(left, "tasks still ran when the home was closed");
            }
        }
        for closed in [self.stores.config.close().await, self.stores.security.close().await] {
            if let Err(error) = closed {
                tracing::error!(error = %escape(&error.to_string()), "a database was not closed cleanly");
            }
        }
    }

    /// Takes the right to change something. Held from the first look to the audit row.
    ///
    /// # Errors
    /// `READ_ONLY` when the encrypted database could not be brought to this version's schema.
    pub async fn begin_change(&self) -> Outcome<MutexGuard<'_, ()>> {
        if let Some(reason) = self.stores.security.read_only() {
            return Err(Failure::new(ErrorCode::ReadOnly, format!("this home is read-only: {reason}")).hint(
                "requests go on with the existing keys; free disk space, go back to the version of FLM that you had, or \
                 restore a backup (flm security backup list), then restart",
            ));
        }
        Ok(self.changing.lock().await)
    }

    /// The same for what a home that only reads still does: starting a listener.
    pub async fn begin_start(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// The live half, for operations that need a running owner.
    ///
    /// # Errors
    /// `NOT_FOUND` when no owner lives.
    pub fn live(&self) -> Outcome<&Live> {
        self.live.as_ref().ok_or_else(|| {
            Failure::new(ErrorCode::NotFound, "no proxy runs for this home").hint("start it with: flm proxy start")
        })
    }

    /// Writes an audit row and waits until it is on disk.
    pub async fn record(&self, kind: AuditKind, severity: Severity, details: impl Into<String>) {
        self.record_event(AuditEvent::new(self.clock.wall(), kind, severity, details)).await;
    }

    /// Writes an audit row that names more than a line of text, and waits until it is on disk.
    pub async fn record_event(&self, event: AuditEvent) {
        if self.audit.sink().record_acknowledged(event).await != Acknowledgement::Written {
            tracing::error!("a change was made, but its row in the audit log could not be written");
        }
    }

    /// Tells consoles that a store changed.
    pub fn changed(&self, noun: Noun) {
        self.hub.publish(LiveEvent::Changed(noun));
    }

    /// Tells consoles that listeners or read-only state changed.
    pub fn status_changed(&self) {
        if let Some(live) = &self.live {
            self.hub.publish(LiveEvent::Status(Box::new(live.host.status())));
        }
    }

    /// An environment variable of this process.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// Opens both databases, after a backup when their schema is about to change. Answers what was repaired, and the layer of
/// `flm.toml`.
fn open_stores(
    paths: &HomePaths,
    passphrase: Option<&Secret>,
    now: UnixMillis,
) -> Outcome<(Vec<String>, Stores, BTreeMap<String, String>)> {
    let mut repaired = paths.prepare()?;
    let unlocked = unlock::unlock(paths, passphrase)?;
    let withheld = match backup::before_migration(paths, &unlocked.key, now) {
        Ok(Some(backup)) => {
            tracing::info!(path = backup.path, "backup made before the databases are migrated");
            None
        }
        Ok(None) => None,
        Err(failure) => {
            tracing::error!(%failure, hint = failure.hint, "no backup could be made, so nothing is migrated");
            Some(format!("no backup could be made before it: {}", failure.message))
        }
    };
    let config = ConfigStore::open_unless_withheld(&paths.config_db, withheld.as_deref())?;
    let security = SecurityStore::open_with_key(&paths.security_db, unlocked.key, withheld.as_deref())?;
    repaired.extend(unlocked.repaired);
    repaired.extend(config.repaired().iter().cloned());
    repaired.extend(security.repaired());
    let file = SettingLayers::read_file(&paths.config_file())?;
    Ok((repaired, Stores { config, security }, file))
}

/// Off the runtime, since it may read a file.
async fn build_egress(settings: &Settings, variables: &[(String, String)], clock: &Clock) -> Outcome<Egress> {
    let (settings, variables, clock) = (settings.clone(), variables.to_vec(), clock.clone());
    let build = move || {
        let variable = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        super::egress::build(&settings, variable, &clock)
    };
    tokio::task::spawn_blocking(build).await.map_err(|_| blocking_panicked("reading the way out"))?
}

/// A fault of FLM itself: a blocking job panicked.
pub(super) fn blocking_panicked(what: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("{what} failed inside FLM")).hint("the log says more; please report it")
}
