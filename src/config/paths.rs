//! The folders and files of a home (SPEC §1.3).

use std::path::{Path, PathBuf};

/// Where everything of one home is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomePaths {
    /// `flm.toml`, user themes, key map.
    pub config_dir: PathBuf,
    /// Databases and keys; mode 0700.
    pub data_dir: PathBuf,
    /// Log files and crash reports.
    pub log_dir: PathBuf,
    /// Control socket and owner lock; mode 0700.
    pub run_dir: PathBuf,
    /// Settings database.
    pub config_db: PathBuf,
    /// Encrypted database.
    pub security_db: PathBuf,
    /// Its key file.
    pub key_file: PathBuf,
}

/// What the command line says about paths.
#[derive(Debug, Clone, Default)]
pub struct PathOverrides {
    /// `--home DIR` or `FLM_HOME`.
    pub home: Option<PathBuf>,
    /// `--db-path-config`.
    pub config_db: Option<PathBuf>,
    /// `--db-path-security`.
    pub security_db: Option<PathBuf>,
}

impl HomePaths {
    /// Works out all paths. Makes nothing.
    pub fn resolve(overrides: &PathOverrides) -> Result<Self, crate::types::failure::Failure> {
        let _ = overrides;
        todo!()
    }
    /// `flm.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.config_dir.join("flm.toml")
    }
    /// Control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
    /// Lock of the owner.
    pub fn owner_lock(&self) -> PathBuf {
        self.run_dir.join("owner.lock")
    }
    /// Makes the folders with their modes and repairs wider ones; answers what it repaired.
    pub fn prepare(&self) -> Result<Vec<String>, crate::types::failure::Failure> {
        todo!()
    }
    /// The one folder given by `--home`, when everything is in it.
    pub fn home(&self) -> &Path {
        &self.data_dir
    }
}
