//! A home of its own for each test, and the real programs on it.
//!
//! Nothing of the person who runs the tests is read or touched: the environment is emptied, and whatever owns the home
//! at the end is stopped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use portable_pty::CommandBuilder;
use serde_json::Value;
use tempfile::TempDir;

use crate::terminal::Terminal;

#[path = "schema.rs"]
pub(crate) mod schema;

/// How long a program may take for what is done at once: far more than it needs, since machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A home in a temporary folder.
pub(crate) struct Home {
    folder: TempDir,
}

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Self {
        // A socket's path is short (unix(7)), so the folder is below /tmp whatever TMPDIR says.
        Self { folder: tempfile::Builder::new().prefix("flm-").tempdir_in("/tmp").expect("a folder") }
    }

    /// An empty one whose next owner listens on a free port instead of the default one.
    pub(crate) fn on_a_free_port() -> Self {
        let home = Self::new();
        home.start_proxy();
        home.end_owner();
        home
    }

    /// One that was used before: the console has no first key to show.
    pub(crate) fn in_use() -> Self {
        let home = Self::on_a_free_port();
        home.create_key("earlier");
        home
    }

    /// Ends whatever owns this home, and waits until it is gone.
    pub(crate) fn end_owner(&self) {
        let Some(pid) = self.owner() else { return };
        drop(self.flm(&["proxy", "stop", "--all"]).stdout(Stdio::null()).stderr(Stdio::null()).status());
        let began = Instant::now();
        // Part of Drop, so it gives up without a panic.
        while is_running(pid) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn environment(&self) -> [(&'static str, String); 6] {
        let home = self.path().to_str().expect("UTF-8").to_owned();
        [
            ("HOME", home.clone()),
            ("FLM_HOME", home),
            // Engines that happen to run on this machine are none of a test's business.
            ("FLM_ENGINE_DETECT_AT_START", "false".to_owned()),
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TERM", "xterm-256color".to_owned()),
        ]
    }

    /// `flm` with these arguments.
    pub(crate) fn flm(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flm"));
        command.args(arguments).env_clear().envs(self.environment()).stdin(Stdio::null());
        command
    }

    /// Runs `flm` and answers its `data`; it must succeed.
    #[track_caller]
    pub(crate) fn answer(&self, arguments: &[&str]) -> Value {
        let output = self.flm(arguments).args(["--format", "json"]).output().expect("runs flm");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "flm {arguments:?} ended with {}: {out}{err}", output.status);
        // What takes long tells its progress first, a line each.
        let last = out.trim_end().lines().last().unwrap_or_default();
        let answer: Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {out:?}"));
        schema::check(arguments, &answer);
        answer["data"].clone()
    }

    /// Starts the proxy in the background on a free port and answers its base URL.
    #[track_caller]
    pub(crate) fn start_proxy(&self) -> String {
        self.answer(&["proxy", "start", "--port", "0"]);
        let port = self.proxy_port().expect("a listener");
        format!("http://127.0.0.1:{port}")
    }

    /// The port of the first listener, if one runs.
    pub(crate) fn proxy_port(&self) -> Option<u16> {
        let status = self.answer(&["proxy", "status"]);
        status["listeners"][0]["config"]["port"].as_u64().and_then(|port| u16::try_from(port).ok())
    }

    /// Makes a key and answers its text.
    #[track_caller]
    pub(crate) fn create_key(&self, label: &str) -> String {
        let created = self.answer(&["api-keys", "create", "--label", label]);
        created["key"].as_str().expect("the key's text").to_owned()
    }

    /// Registers an engine.
    #[track_caller]
    pub(crate) fn add_engine(&self, kind: &str, id: &str, port: u16) {
        let url = format!("http://127.0.0.1:{port}");
        self.answer(&["engines", "add", "--kind", kind, "--id", id, "--url", &url]);
    }

    /// `flm-tui` with these arguments, ready to be started on a terminal.
    pub(crate) fn console_command(&self, arguments: &[&str]) -> CommandBuilder {
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_flm-tui"));
        command.args(arguments);
        self.at_home(command)
    }

    /// Any program with this home's environment.
    pub(crate) fn at_home(&self, mut command: CommandBuilder) -> CommandBuilder {
        command.env_clear();
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.cwd(self.path());
        command
    }

    /// `flm-tui` on a terminal of this size.
    pub(crate) fn console(&self, arguments: &[&str], columns: u16, rows: u16) -> Terminal {
        Terminal::start(self.console_command(arguments), columns, rows)
    }

    /// Process id of the daemon that owns this home, if one does.
    pub(crate) fn owner(&self) -> Option<u32> {
        let output = self.flm(&["proxy", "status", "--format", "json"]).output().ok()?;
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        answer["data"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_owner();
    }
}

/// Whether a process runs; one that has ended and was not yet reaped does not. Until the last of its threads is gone,
/// a killed one still holds its sockets, although its first thread is a zombie already.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1) {
        return true;
    }
    // The state follows the name, which ends with the last `)` (proc(5)).
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until something comes true, with a bound; for what no program announces.
#[track_caller]
pub(crate) fn wait_until(what: &str, bound: Duration, mut wanted: impl FnMut() -> bool) {
    let began = Instant::now();
    while !wanted() {
        assert!(began.elapsed() < bound, "not within {bound:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
