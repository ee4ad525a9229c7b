//! What a command line asks a program to become: a daemon or a console. Made by `cli`, carried out by `daemon` and
//! `tui`, handed over by the binaries.

use std::collections::BTreeMap;

use crate::config::paths::{HomePaths, PathOverrides};
use crate::types::calls::Permission;
use crate::types::calls::proxy::StartListener;
use crate::types::secret::Secret;

/// Which home.
#[derive(Debug, Clone)]
pub struct Home {
    /// Where everything is.
    pub paths: HomePaths,
    /// What the command line said about it: handed on to a daemon that is started.
    pub overrides: PathOverrides,
    /// The passphrase of `security.db`, when somebody typed it; for whoever becomes its owner.
    pub passphrase: Option<Secret>,
}

impl Home {
    /// Resolves the paths.
    ///
    /// # Errors
    /// When the platform has no home folder, or the path is too long for a socket.
    pub fn resolve(overrides: PathOverrides) -> crate::types::failure::Outcome<Self> {
        Ok(Self { paths: HomePaths::resolve(&overrides)?, overrides, passphrase: None })
    }
}

/// Run as a daemon.
#[derive(Debug, Clone)]
pub struct DaemonRequest {
    /// Of which home.
    pub home: Home,
    /// How it was started.
    pub stage: Stage,
    /// Settings of the command line, in force for as long as it runs (SPEC §1.4).
    pub settings: BTreeMap<String, String>,
}

/// How a daemon was started.
#[derive(Debug, Clone)]
pub enum Stage {
    /// By a front end, which waits for one line on stdout; the daemon leaves its session.
    Background,
    /// By a person or a service manager, who sees it run: it starts this listener, or the stored one.
    Foreground(StartListener),
}

/// Run as a console.
#[derive(Debug, Clone)]
pub struct ConsoleRequest {
    /// Of which home.
    pub home: Home,
    /// Who owns the home while nobody else does.
    pub owner: OwnerChoice,
    /// What the console may do.
    pub permission: Permission,
    /// How it looks.
    pub appearance: Appearance,
}

/// Who owns the home that a console shows, when it finds it without an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerChoice {
    /// A daemon that the console starts.
    Daemon,
    /// The console's own process.
    InProcess,
    /// The console's own process, over a temporary home (SPEC §1.1).
    Demo {
        /// Of the scripted clients.
        seed: u64,
    },
}

/// What the command line says about a console's looks; `None` leaves it to the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appearance {
    /// Its code, such as `en`.
    pub language: Option<String>,
    /// Name of a theme.
    pub theme: Option<String>,
    /// Draw with ASCII characters only.
    pub ascii: Option<bool>,
    /// Take the mouse.
    pub mouse: Option<bool>,
}
