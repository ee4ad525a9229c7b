//! The folders and files of a home (SPEC §1.3).
//!
//! Called by the front ends before anything is opened, and by the owner. Must never open or change a file except
//! in [`HomePaths::prepare`].
//!
//! Two decisions that are easy to undo by accident:
//! - Socket and lock are inside the data folder, never in `XDG_RUNTIME_DIR`: logind deletes that folder when the
//!   user's last session ends, while the daemon lives on (SPEC §1.2), and cron or `sudo -u` do not set the variable.
//!   One home has one lock and one socket, whoever asks.
//! - A socket path that is too long is an error, not a hashed name in `/tmp`: there, another user could be first.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use crate::config::files::{self, PRIVATE_DIR};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

/// Bytes that a socket's path may have, without the closing NUL: `sun_path` has 108 on Linux (unix(7)) and 104 on
/// macOS (`sys/un.h`).
const LONGEST_SOCKET_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Names of the credentials that a systemd unit hands over: the key, or the passphrase that it is made from (SPEC §5.12).
const CREDENTIAL: &str = "flm-db-key";
const PASSPHRASE_CREDENTIAL: &str = "flm-db-passphrase";

/// Where the path of the key file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrigin {
    /// `$CREDENTIALS_DIRECTORY/flm-db-key`: FLM cannot write it.
    Credential,
    /// `FLM_DB_KEY_FILE`.
    Variable,
    /// Neither names one: `keys/security.key`, or a passphrase when `keys/passphrase` is there.
    Home,
}

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
    /// Its key file: a systemd credential, `FLM_DB_KEY_FILE`, or `keys/security.key` in the data folder.
    pub key_file: PathBuf,
    /// Who named the key file.
    pub key_origin: KeyOrigin,
    /// A passphrase that a systemd unit hands over, when there is one.
    pub passphrase_credential: Option<PathBuf>,
    /// `FLM_CONTROL_GROUP`: the group whose members may use the control socket too, for the system unit (SPEC §4.10).
    pub control_group: Option<String>,
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

/// The platform's folders for FLM, and the folder that relative paths start from.
#[derive(Debug, Clone)]
struct Platform {
    config: PathBuf,
    data: PathBuf,
    logs: PathBuf,
}

impl Platform {
    /// The folders of this user by the `directories` crate; `None` without a home folder.
    fn of_this_user() -> Option<Self> {
        let folders = ProjectDirs::from("", "", "flm")?;
        let data = folders.data_local_dir().to_owned();
        Some(Self {
            config: folders.config_dir().to_owned(),
            // Only Linux has a folder for state; elsewhere logs live beside the data.
            logs: folders.state_dir().unwrap_or(&data).join("logs"),
            data,
        })
    }
}

impl HomePaths {
    /// Works out all paths. Makes nothing.
    ///
    /// With a home (`--home`, else `FLM_HOME`), `flm.toml`, databases and keys are in it, and `logs` and `run` below.
    ///
    /// # Errors
    /// When there is no home folder, the current folder is gone, or the control socket's path would be too long.
    pub fn resolve(overrides: &PathOverrides) -> Outcome<Self> {
        let here = env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self::resolve_with(overrides, Platform::of_this_user(), &here, |name| env::var_os(name))
    }

    fn resolve_with(
        overrides: &PathOverrides,
        platform: Option<Platform>,
        here: &Path,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Outcome<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // A daemon changes its working folder, so every path is absolute.
        let absolute = |path: PathBuf| here.join(path);

        let folders = match overrides.home.clone().or_else(|| variable("FLM_HOME")).map(absolute) {
            Some(home) => Platform { config: home.clone(), logs: home.join("logs"), data: home },
            None => platform.ok_or_else(|| {
                Failure::new(ErrorCode::IoError, "this user has no home folder, so there is no place for FLM's data")
                    .hint("name a folder with --home DIR or FLM_HOME")
            })?,
        };
        let credential =
            |name| variable("CREDENTIALS_DIRECTORY").map(|dir| dir.join(name)).filter(|file: &PathBuf| file.exists());
        let (key_file, key_origin) = match (credential(CREDENTIAL), variable("FLM_DB_KEY_FILE")) {
            (Some(file), _) => (file, KeyOrigin::Credential),
            (None, Some(file)) => (absolute(file), KeyOrigin::Variable),
            (None, None) => (folders.data.join("keys").join("security.key"), KeyOrigin::Home),
        };
        let paths = Self {
            run_dir: folders.data.join("run"),
            config_db: overrides.config_db.clone().map_or_else(|| folders.data.join("config.db"), absolute),
            security_db: overrides.security_db.clone().map_or_else(|| folders.data.join("security.db"), absolute),
            key_file,
            key_origin,
            passphrase_credential: credential(PASSPHRASE_CREDENTIAL),
            config_dir: folders.config,
            data_dir: folders.data,
            log_dir: folders.logs,
            control_group: variable("FLM_CONTROL_GROUP").and_then(|name| name.into_os_string().into_string().ok()),
        };
        let socket = paths.socket();
        let length = socket.as_os_str().as_bytes().len();
        if length > LONGEST_SOCKET_PATH {
            return Err(Failure::new(
                ErrorCode::IoError,
                format!(
                    "the control socket's path {} has {length} bytes, and this system allows {LONGEST_SOCKET_PATH}",
                    escape(&socket.to_string_lossy())
                ),
            )
            .hint("choose a folder with a shorter path with --home DIR or FLM_HOME"));
        }
        Ok(paths)
    }

    /// `flm.toml`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config_dir.join("flm.toml")
    }

    /// Control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    /// Lock of the owner.
    #[must_use]
    pub fn owner_lock(&self) -> PathBuf {
        self.run_dir.join("owner.lock")
    }

    /// The folder of keys, apart from the databases so that copies of them leave it out.
    #[must_use]
    pub fn keys_dir(&self) -> PathBuf {
        self.data_dir.join("keys")
    }

    /// How the key is made from a passphrase, when it is. Holds nothing secret.
    #[must_use]
    pub fn passphrase_file(&self) -> PathBuf {
        self.keys_dir().join("passphrase")
    }

    /// Backups that FLM makes by itself.
    #[must_use]
    pub fn backups_dir(&self) -> PathBuf {
        self.data_dir.join("backups")
    }

    /// Makes the folders with their modes and repairs wider ones; answers what it repaired.
    ///
    /// The folder of a database given by `--db-path-…` is made when absent, but never narrowed: it may be shared.
    ///
    /// # Errors
    /// When a folder cannot be made, is a file, or belongs to another user.
    pub fn prepare(&self) -> Outcome<Vec<String>> {
        let mut repaired = Vec::new();
        // The group passes through to the socket and lists nothing.
        let own_dir = if self.control_group.is_some() { files::passage_dir } else { files::private_dir };
        repaired.extend(own_dir(&self.data_dir)?);
        repaired.extend(own_dir(&self.run_dir)?);
        if self.key_file.starts_with(&self.data_dir)
            && let Some(folder) = self.key_file.parent()
        {
            repaired.extend(files::private_dir(folder)?);
        }
        repaired.extend(files::narrow(&self.backups_dir(), PRIVATE_DIR)?);
        files::make_dir(&self.config_dir)?;
        files::make_dir(&self.log_dir)?;
        for database in [&self.config_db, &self.security_db] {
            if let Some(folder) = database.parent() {
                files::make_dir(folder)?;
            }
        }
        Ok(repaired)
    }

    /// The one folder that names this home to people: the one given by `--home`, else the data folder.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.data_dir
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn platform() -> Platform {
        Platform {
            config: "/u/.config/flm".into(),
            data: "/u/.local/share/flm".into(),
            logs: "/u/.local/state/flm/logs".into(),
        }
    }

    fn resolve(overrides: &PathOverrides, variables: &[(&str, &str)]) -> Outcome<HomePaths> {
        HomePaths::resolve_with(overrides, Some(platform()), Path::new("/here"), |name| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        })
    }

    #[test]
    fn without_a_home_the_platform_decides() {
        let paths = resolve(&PathOverrides::default(), &[("FLM_HOME", "")]).expect("resolves");
        assert_eq!(paths.config_file(), Path::new("/u/.config/flm/flm.toml"));
        assert_eq!(paths.config_db, Path::new("/u/.local/share/flm/config.db"));
        assert_eq!(paths.key_file, Path::new("/u/.local/share/flm/keys/security.key"));
        assert_eq!(paths.log_dir, Path::new("/u/.local/state/flm/logs"));
        assert_eq!(paths.home(), Path::new("/u/.local/share/flm"));
    }

    #[test]
    fn a_home_moves_everything_and_the_flag_beats_the_variable() {
        let flag = PathOverrides { home: Some("flag".into()), ..PathOverrides::default() };
        let paths = resolve(&flag, &[("FLM_HOME", "/variable")]).expect("resolves");
        for path in
            [&paths.config_dir, &paths.data_dir, &paths.log_dir, &paths.run_dir, &paths.config_db, &paths.key_file]
        {
            assert!(path.starts_with("/here/flag"), "{}", path.display());
        }
        let paths = resolve(&PathOverrides::default(), &[("FLM_HOME", "/variable")]).expect("resolves");
        assert_eq!(paths.home(), Path::new("/variable"));
    }

    #[test]
    fn single_databases_move_alone() {
        let overrides = PathOverrides {
            security_db: Some("/vault/s.db".into()),
            config_db: Some("c.db".into()),
            ..PathOverrides::default()
        };
        let paths = resolve(&overrides, &[]).expect("resolves");
        assert_eq!(paths.security_db, Path::new("/vault/s.db"));
        assert_eq!(paths.config_db, Path::new("/here/c.db"));
        assert_eq!(paths.key_file, Path::new("/u/.local/share/flm/keys/security.key"));
    }

    #[test]
    fn the_key_comes_from_a_credential_then_from_the_variable() {
        let credentials = tempfile::tempdir().expect("folder");
        let folder = credentials.path().to_str().expect("text");
        let variables = [("CREDENTIALS_DIRECTORY", folder), ("FLM_DB_KEY_FILE", "/run/secrets/flm")];
        let none = PathOverrides::default();
        assert_eq!(resolve(&none, &variables).expect("resolves").key_file, Path::new("/run/secrets/flm"));
        files::replace(&credentials.path().join(CREDENTIAL), b"", files::Audience::Owner).expect("writes");
        let paths = resolve(&none, &variables).expect("resolves");
        assert_eq!((paths.key_file, paths.key_origin), (credentials.path().join(CREDENTIAL), KeyOrigin::Credential));
        assert_eq!(paths.passphrase_credential, None);
    }

    #[test]
    fn the_runtime_folder_of_a_session_is_never_used() {
        let with = resolve(&PathOverrides::default(), &[("XDG_RUNTIME_DIR", "/run/user/1")]).expect("resolves");
        let without = resolve(&PathOverrides::default(), &[]).expect("resolves");
        assert_eq!(with, without);
    }

    #[test]
    fn a_socket_path_that_the_system_cannot_bind_is_a_clear_failure() {
        let overrides =
            PathOverrides { home: Some(format!("/{}", "x".repeat(100)).into()), ..PathOverrides::default() };
        let failure = resolve(&overrides, &[]).expect_err("too long");
        assert!(failure.message.contains("control.sock") && failure.message.contains("bytes"), "{}", failure.message);
        assert!(failure.hint.expect("hint").contains("--home"));
    }

    #[test]
    fn a_user_without_a_home_folder_is_told_to_name_one() {
        let failure = HomePaths::resolve_with(&PathOverrides::default(), None, Path::new("/"), |_| None)
            .expect_err("nowhere to go");
        assert!(failure.hint.expect("hint").contains("FLM_HOME"));
    }

    #[test]
    fn preparing_makes_private_folders_and_reports_what_was_wide() {
        let folder = tempfile::tempdir().expect("folder");
        let overrides = PathOverrides { home: Some(folder.path().join("home")), ..PathOverrides::default() };
        let paths = resolve(&overrides, &[]).expect("resolves");
        assert_eq!(paths.prepare().expect("prepares"), Vec::<String>::new());
        for private in [&paths.data_dir, &paths.run_dir, &paths.data_dir.join("keys")] {
            assert_eq!(std::fs::metadata(private).expect("made").permissions().mode() & 0o777, 0o700);
        }
        std::fs::set_permissions(&paths.data_dir, std::fs::Permissions::from_mode(0o755)).expect("widens");
        let repaired = paths.prepare().expect("repairs");
        assert_eq!(repaired.len(), 1);
        assert!(repaired[0].contains("0755"), "{repaired:?}");
    }
}
