//! What a console's process does around the console: finds or starts the owner, reads the console's settings before
//! the first frame, and ends or leaves the owner afterwards (SPEC §1.2).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::Mutex;

use super::demo::DemoHome;
use super::in_process::InProcess;
use super::launch::log_files;
use super::owner::{OwnerOptions, Purpose};
use crate::config::files;
use crate::config::settings::{SettingLayers, Settings};
use crate::control::Operator;
use crate::control::launcher::{self, DaemonOrigin};
use crate::control::request::{ConsoleRequest, Home, OwnerChoice};
use crate::operations::context::ContextOptions;
use crate::storage::ConfigStore;
use crate::telemetry::logging::{self, LogGuard};
use crate::types::calls::Permission;
use crate::types::calls::proxy::EndOwner;
use crate::types::calls::settings::{ListSettings, SettingView};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::OwnerKind;

/// How the owner that a console reached came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerOrigin {
    /// A daemon that was started for this console.
    StartedHere,
    /// A daemon that ran before.
    AlreadyRan,
    /// A thread of this process.
    InProcess,
}

/// What happens to the owner when the console has ended. One in this process always ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// It is told to end.
    EndOwner,
    /// It stays.
    LeaveRunning,
}

/// Reaches the owner; see [`ConsoleSession::reach`].
pub type Reaching = Pin<Box<dyn Future<Output = Outcome<(Operator, OwnerOrigin)>> + Send>>;

/// One run of a console.
pub struct ConsoleSession {
    shared: Arc<Shared>,
    runtime: Runtime,
    /// Removes its home when dropped, after the owner has ended.
    demo: Option<DemoHome>,
    /// Written to the end by the owner's last words.
    _log: Option<LogGuard>,
}

struct Shared {
    home: Home,
    choice: OwnerChoice,
    permission: Permission,
    /// The owner in this process, once it was needed. Held while one starts, so that two calls start one.
    in_process: Mutex<Option<InProcess>>,
}

impl ConsoleSession {
    /// Prepares a console. Starts nothing yet: the first frame waits for nobody.
    ///
    /// # Errors
    /// When the system gives no event queue, or no folder for the demo.
    pub fn open(request: &ConsoleRequest) -> Outcome<Self> {
        let internal = |error: std::io::Error| {
            Failure::new(ErrorCode::Internal, format!("the system gives no threads for the console: {error}"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
        let demo = match request.owner {
            OwnerChoice::Demo { .. } => Some(DemoHome::make()?),
            OwnerChoice::Daemon | OwnerChoice::InProcess => None,
        };
        let home = demo.as_ref().map_or_else(|| request.home.clone(), |demo| demo.home().clone());
        let log = match request.owner {
            OwnerChoice::Daemon => None,
            OwnerChoice::InProcess | OwnerChoice::Demo { .. } => {
                home.paths.prepare()?;
                Some(logging::start_files(log_files(&home.paths)).map_err(internal)?)
            }
        };
        let shared = Arc::new(Shared {
            home,
            choice: request.owner,
            permission: request.permission,
            in_process: Mutex::new(None),
        });
        Ok(Self { shared, runtime, demo, _log: log })
    }

    /// Runs the console's future.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The way to the owner, started where that is needed. Each call of it is a fresh attempt.
    pub fn reach(&self) -> impl Fn() -> Reaching + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || {
            let shared = shared.clone();
            Box::pin(async move { shared.reach().await })
        }
    }

    /// All settings as far as they can be known before the owner is reached: from the owner that runs, else from
    /// file, environment and database. A fault leaves the defaults; the owner's start will tell it.
    pub fn settings(&self) -> Vec<SettingView> {
        self.runtime.block_on(self.shared.settings()).unwrap_or_else(|failure| {
            tracing::warn!(%failure, "the console starts with default settings");
            Settings::default().list()
        })
    }

    /// The time, as the owner in this process sees it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::system()
    }

    /// Where the person's own files are: themes, key map.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.shared.home.paths.config_dir.clone()
    }

    /// Where a panic report goes.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.shared.home.paths.log_dir.clone()
    }

    /// Ends or leaves the owner.
    ///
    /// # Errors
    /// When the owner does not end.
    pub fn finish(self, afterwards: Afterwards) -> Outcome<()> {
        let Self { shared, runtime, demo, _log } = self;
        let ended: Outcome<()> = runtime.block_on(async {
            if let Some(owner) = shared.in_process.lock().await.take() {
                // Waits until its listeners have drained.
                tokio::task::spawn_blocking(move || drop(owner))
                    .await
                    .map_err(|_| Failure::new(ErrorCode::Internal, "ending the proxy failed inside FLM"))?;
                return Ok(());
            }
            if afterwards == Afterwards::EndOwner
                && let Some(operator) = Operator::attach(&shared.home.paths, Permission::Full).await?
            {
                operator.call(EndOwner {}).await?;
            }
            Ok(())
        });
        drop(demo);
        ended
    }
}

impl Shared {
    async fn reach(&self) -> Outcome<(Operator, OwnerOrigin)> {
        match self.choice {
            OwnerChoice::Daemon => self.reach_daemon().await,
            OwnerChoice::InProcess => self.reach_in_process(Purpose::Serve).await,
            OwnerChoice::Demo { seed } => self.reach_in_process(Purpose::Demo { seed }).await,
        }
    }

    async fn reach_daemon(&self) -> Outcome<(Operator, OwnerOrigin)> {
        if self.permission == Permission::ReadOnly {
            // Starting a daemon would change something.
            let operator = Operator::attach(&self.home.paths, self.permission).await?;
            return operator.map(|operator| (operator, OwnerOrigin::AlreadyRan)).ok_or_else(|| {
                Failure::new(ErrorCode::NotFound, "no proxy runs for this home, and a read-only console starts none")
                    .hint("start it with 'flm proxy start', or open the console without --read-only")
            });
        }
        let (operator, origin) = launcher::start_daemon(&self.home, self.permission, &BTreeMap::new()).await?;
        let origin = match origin {
            DaemonOrigin::StartedHere => OwnerOrigin::StartedHere,
            DaemonOrigin::AlreadyRan => OwnerOrigin::AlreadyRan,
        };
        Ok((operator, origin))
    }

    async fn reach_in_process(&self, purpose: Purpose) -> Outcome<(Operator, OwnerOrigin)> {
        let mut slot = self.in_process.lock().await;
        if slot.as_ref().is_none_or(InProcess::has_ended) {
            *slot = InProcess::start(OwnerOptions {
                paths: self.home.paths.clone(),
                kind: OwnerKind::InProcess,
                context: ContextOptions { passphrase: self.home.passphrase.clone(), ..ContextOptions::from_process() },
                incoming: None,
                purpose,
            })
            .await?;
        }
        match &*slot {
            Some(owner) => Ok((Operator::in_process(owner.dialer(), self.permission), OwnerOrigin::InProcess)),
            None => self.reach_daemon().await,
        }
    }

    async fn settings(&self) -> Outcome<Vec<SettingView>> {
        let paths = &self.home.paths;
        // One that ends at this moment may be reached and not answer.
        if let Some(operator) = Operator::attach(paths, Permission::ReadOnly).await?
            && let Ok(settings) = operator.call(ListSettings {}).await
        {
            return Ok(settings);
        }
        let environment = SettingLayers::from_environment(ContextOptions::from_process().variables.into_iter());
        let file = SettingLayers::read_file(&paths.config_file())?;
        let mut layers = SettingLayers { environment, file, ..SettingLayers::default() };
        // Only looked at, since an owner that ends without a socket holds it still, for as long as its streams run.
        if files::exists(&paths.config_db)? {
            match ConfigStore::peek_settings(&paths.config_db) {
                Ok(stored) => layers.database = stored.into_iter().collect(),
                Err(error) => tracing::warn!(%error, "the console starts without the stored settings"),
            }
        }
        Ok(Settings::build(&layers)?.list())
    }
}
