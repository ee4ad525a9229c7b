//! `flm doctor`: works on a home that nothing else works on, since that is when it is asked for.

use std::io::IsTerminal as _;
use std::path::Path;

use super::output::Output;
use super::session::Session;
use super::table::{Table, facts, or_dash, time};
use crate::config::files::{self, FileKind};
use crate::config::paths::HomePaths;
use crate::control::protocol;
use crate::types::calls::doctor::{Diagnose, Diagnosis};
use crate::types::calls::settings::SettingSource;
use crate::types::clock::Clock;
use crate::types::doctor::{DoctorReport, FileView, Finding, TerminalFacts, Weight};
use crate::types::egress::EgressState;
use crate::types::engine::EngineState;
use crate::types::failure::{Failure, Outcome};
use crate::types::listener::ListenerPhase;
use crate::types::redact::redact;
use crate::types::text::escape;

/// Open files below which the connections that FLM allows do not fit: `limits.connections` is 4096.
const OPEN_FILES: u64 = 4_096;
/// Free bytes below which databases and logs are at risk.
const DISK_FREE: u64 = 512 << 20;
/// Days of a certificate below which somebody should look: it is renewed when 30 are left.
const CERTIFICATE_DAYS: u64 = 7;

pub(super) async fn run(session: &Session) -> Outcome<Output> {
    // Before anything is opened or repaired: the modes as they were.
    let files = look(&session.home.paths);
    let (home, failure) = match session.call(Diagnose {}).await {
        Ok(diagnosis) => (Some(diagnosis), None),
        Err(failure) => (None, Some(Failure { message: redact(&failure.message), ..failure })),
    };
    let mut report = DoctorReport {
        version: protocol::VERSION.to_owned(),
        terminal: terminal(),
        files,
        home,
        failure,
        findings: Vec::new(),
    };
    report.findings = findings(&report);
    let text = describe(&report);
    Ok(Output::new(&report, text))
}

fn terminal() -> TerminalFacts {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let multiplexer = [("TMUX", "tmux"), ("STY", "screen"), ("ZELLIJ", "zellij")];
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    TerminalFacts {
        interactive: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
        term: variable("TERM"),
        color: variable("COLORTERM"),
        no_color: variable("NO_COLOR").is_some(),
        locale: ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable),
        ssh: variable("SSH_CONNECTION").is_some(),
        multiplexer: multiplexer
            .into_iter()
            .find(|(name, _)| variable(name).is_some())
            .map(|(_, name)| name.to_owned()),
        size: size.map(|size| (size.ws_col, size.ws_row)),
    }
}

fn look(paths: &HomePaths) -> Vec<FileView> {
    let (config_file, socket, lock) = (paths.config_file(), paths.socket(), paths.owner_lock());
    let all: [(&str, &Path); 9] = [
        ("settings folder", &paths.config_dir),
        ("flm.toml", &config_file),
        ("data folder", &paths.data_dir),
        ("settings database", &paths.config_db),
        ("encrypted database", &paths.security_db),
        ("its key", &paths.key_file),
        ("control socket", &socket),
        ("lock", &lock),
        ("logs", &paths.log_dir),
    ];
    let me = rustix::process::geteuid().as_raw();
    all.into_iter()
        .map(|(name, path)| {
            let facts = files::facts(path).ok().flatten();
            FileView {
                name: name.to_owned(),
                path: path.to_string_lossy().into_owned(),
                kind: facts.map(|facts| kind(facts.kind).to_owned()),
                mode: facts.map(|facts| format!("{:04o}", facts.mode)),
                bytes: facts.filter(|facts| facts.kind == FileKind::File).map(|facts| facts.size),
                own: facts.map(|facts| facts.owner == me),
            }
        })
        .collect()
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Folder => "folder",
        FileKind::Link => "link",
        FileKind::Socket => "socket",
        FileKind::Other => "other",
    }
}

fn findings(report: &DoctorReport) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |weight, what: String, next: &str| found.push(Finding { weight, what, next: next.to_owned() });
    if let Some(failure) = &report.failure {
        find(Weight::Problem, failure.message.clone(), failure.hint.as_deref().unwrap_or("see the log"));
    }
    for file in &report.files {
        let wide =
            file.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok()).is_some_and(|m| m & 0o077 != 0);
        if wide && matches!(file.name.as_str(), "data folder" | "settings database" | "encrypted database" | "its key")
        {
            let what = format!("the {} was open to other users ({})", file.name, or_dash(file.mode.as_deref()));
            find(
                Weight::Warning,
                what,
                "FLM narrows it when it opens the home; look at who else could read it until now",
            );
        }
        if file.own == Some(false) {
            find(
                Weight::Warning,
                format!("the {} belongs to another user", file.name),
                "run flm as the user who owns the home, or give it to this one (chown)",
            );
        }
    }
    if report.terminal.locale.as_deref().is_none_or(|locale| !locale.to_ascii_uppercase().contains("UTF")) {
        let what = "the locale is not UTF-8: the console draws with ASCII characters".to_owned();
        find(Weight::Hint, what, "set LANG to a locale such as C.UTF-8, or console.ascii to off");
    }
    if let Some(home) = &report.home {
        home_findings(report, home, &mut find);
    }
    found.sort();
    found
}

fn home_findings(report: &DoctorReport, home: &Diagnosis, find: &mut impl FnMut(Weight, String, &str)) {
    if home.process.version != report.version {
        let what = format!("this command is version {}, the proxy {}", report.version, home.process.version);
        find(Weight::Problem, what, "restart the proxy: flm proxy stop --all; flm proxy start");
    }
    if home.process.open_files.is_some_and(|files| files < OPEN_FILES) {
        let what = format!("only {} files may be open at once", or_dash(home.process.open_files));
        find(Weight::Warning, what, "raise it before the proxy starts: ulimit -n 8192, or LimitNOFILE= in the unit");
    }
    if home.process.disk_free.is_some_and(|free| free < DISK_FREE) {
        let what = format!("only {} are free on the disk of the databases", bytes(home.process.disk_free.unwrap_or(0)));
        find(Weight::Warning, what, "free some space: what cannot be written is refused");
    }
    for database in &home.databases {
        if let Some(why) = &database.read_only {
            find(Weight::Problem, format!("{} only reads: {why}", database.name), "see docs/troubleshooting.md");
        }
    }
    match &home.proxy {
        None => find(Weight::Hint, "no proxy runs".to_owned(), "start it with: flm proxy start"),
        Some(status) => {
            if status.listeners.is_empty() {
                find(Weight::Hint, "the proxy has no listener".to_owned(), "start one with: flm proxy start");
            }
            if let Some(why) = &status.reload_fault {
                find(
                    Weight::Problem,
                    format!("the last reload was refused: {why}"),
                    "mend it, then: flm proxy reload --all",
                );
            }
            if let Some(why) = &status.overload {
                find(Weight::Problem, format!("new work is refused: {why}"), "see what else runs on this machine");
            }
            if !status.needs_restart.is_empty() {
                let what = format!("changed, but not in force yet: {}", status.needs_restart.join(", "));
                find(Weight::Warning, what, "restart: flm proxy stop --all; flm proxy start");
            }
            for listener in &status.listeners {
                let port = listener.config.port;
                if let ListenerPhase::Failed { reason } = &listener.phase {
                    find(
                        Weight::Problem,
                        format!("the listener on {port} failed: {reason}"),
                        "flm proxy start --port PORT",
                    );
                }
                let tls = listener.tls.as_ref();
                if let Some(why) = tls.and_then(|tls| tls.last_error.as_ref()) {
                    find(Weight::Problem, format!("the certificate of {port}: {why}"), "flm proxy status tells more");
                }
                let left = tls.and_then(|tls| tls.certificate.as_ref()).map(|c| c.not_after.since(home.process.now));
                if let Some(days) = left.map(|left| left.as_secs() / 86_400).filter(|days| *days < CERTIFICATE_DAYS) {
                    let what = format!("the certificate of {port} ends in {days} days");
                    find(Weight::Warning, what, "see why it was not renewed: flm proxy status");
                }
            }
        }
    }
    if matches!(home.egress.state, EgressState::Unreachable | EgressState::FallenBack) {
        let what = format!("the egress proxy cannot be reached: {}", or_dash(home.egress.last_error.as_deref()));
        find(Weight::Problem, what, "start it, or see docs/egress.md");
    }
    if home.engines.is_empty() {
        find(Weight::Problem, "no engine is registered".to_owned(), "look for some: flm engines detect --fresh");
    }
    for engine in &home.engines {
        let why = match &engine.state {
            EngineState::ErrorNetwork { reason, .. } | EngineState::ErrorApi { reason } => reason.clone(),
            EngineState::InstalledOnly => "it does not run".to_owned(),
            _ => continue,
        };
        let what = format!("the engine {} does not serve: {}", engine.id, redact(&why));
        find(Weight::Problem, what, "start it, or remove it: flm engines remove ID");
    }
    if home.counts.keys == 0 {
        find(Weight::Hint, "no API key works".to_owned(), "make one: flm api-keys create --label LABEL");
    }
}

fn describe(report: &DoctorReport) -> String {
    let terminal = &report.terminal;
    let mut sections = vec![(
        "",
        facts([
            ("flm", report.version.clone()),
            ("told at", time(Clock::system().wall())),
            ("terminal", or_dash(terminal.term.as_deref())),
            (
                "colours",
                if terminal.no_color { "off (NO_COLOR)".to_owned() } else { or_dash(terminal.color.as_deref()) },
            ),
            ("size", or_dash(terminal.size.map(|(columns, rows)| format!("{columns}x{rows}")))),
            ("locale", or_dash(terminal.locale.as_deref())),
            ("over SSH", if terminal.ssh { "yes" } else { "no" }.to_owned()),
            ("inside", or_dash(terminal.multiplexer.as_deref())),
        ]),
    )];
    let mut table = Table::new(&["FILE", "MODE", "SIZE", "PATH"]);
    for file in &report.files {
        let mode = file.mode.clone().unwrap_or_else(|| "absent".to_owned());
        let owner = if file.own == Some(false) { " (of another user)" } else { "" };
        table.row([
            file.name.clone(),
            mode + owner,
            file.bytes.map_or_else(|| "-".to_owned(), bytes),
            file.path.clone(),
        ]);
    }
    sections.push(("files", table.or("")));
    if let Some(home) = &report.home {
        describe_home(home, &mut sections);
    }
    let mut findings = Table::new(&["", "WHAT", "NEXT"]);
    for finding in &report.findings {
        findings.row([weight(finding.weight).to_owned(), finding.what.clone(), finding.next.clone()]);
    }
    sections.push(("findings", findings.or("nothing: all is well")));
    let told =
        sections.into_iter().map(|(title, text)| if title.is_empty() { text } else { format!("[{title}]\n{text}") });
    told.collect::<Vec<_>>().join("\n\n")
}

fn describe_home(home: &Diagnosis, sections: &mut Vec<(&'static str, String)>) {
    let process = &home.process;
    sections.push((
        "process that answers",
        facts([
            ("version", process.version.clone()),
            ("process", process.pid.to_string()),
            (
                "runs as",
                if home.proxy.is_some() { "the owner of the home" } else { "this command: no proxy runs" }.to_owned(),
            ),
            ("system", format!("{} on {}", process.system, process.architecture)),
            ("cores", process.cores.to_string()),
            ("memory", format!("{} of {} available", bytes(process.memory_available), bytes(process.memory))),
            ("disk", process.disk_free.map_or_else(|| "-".to_owned(), |free| format!("{} free", bytes(free)))),
            ("open files", process.open_files.map_or_else(|| "no limit".to_owned(), |most| format!("at most {most}"))),
            ("clock", format!("{} ({})", time(process.now), process.zone)),
            ("variables", if process.variables.is_empty() { "-".to_owned() } else { process.variables.join(", ") }),
        ]),
    ));
    if let Some(status) = &home.proxy {
        let mut table = Table::new(&["PORT", "MODE", "ADDRESSES", "CERTIFICATE UNTIL"]);
        for listener in &status.listeners {
            let until = listener.tls.as_ref().and_then(|tls| tls.certificate.as_ref()).map(|c| time(c.not_after));
            let mode = listener.config.mode.0.clone();
            table.row([listener.config.port.to_string(), mode, listener.addresses.join(" "), or_dash(until)]);
        }
        sections.push(("listeners", table.or("none")));
        sections.push(("exposure", format!("{:?}", status.exposure).to_lowercase()));
    }
    let endpoint = home.egress.endpoint.as_deref().unwrap_or("no proxy");
    sections.push((
        "egress",
        format!("{} ({}), {:?}", home.egress.mode.name(), escape(endpoint), home.egress.state).to_lowercase(),
    ));
    let mut table = Table::new(&["DATABASE", "SIZE", "SCHEMA", "NEWEST"]);
    for database in &home.databases {
        let (schema, newest) = (database.schema.to_string(), database.newest_schema.to_string());
        table.row([database.name.clone(), bytes(database.bytes), schema, newest]);
    }
    sections.push(("databases", table.or("")));
    let counts = &home.counts;
    sections.push((
        "home",
        format!(
            "{} keys that work, {} ended; {} aliases, {} profiles, {} prompts, {} blocked networks",
            counts.keys, counts.keys_ended, counts.aliases, counts.profiles, counts.prompts, counts.blocks
        ),
    ));
    let mut table = Table::new(&["ENGINE", "KIND", "VERSION", "STATE", "MODELS", "URL"]);
    for engine in &home.engines {
        let version = or_dash(engine.version.as_deref());
        let row = [engine.id.to_string(), engine.kind.clone(), version, state(&engine.state)];
        let [id, kind, version, state] = row;
        table.row([id, kind, version, state, engine.models.to_string(), engine.url.clone()]);
    }
    sections.push(("engines", table.or("none")));
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for setting in home.settings.iter().filter(|setting| setting.source != SettingSource::Default) {
        table.row([setting.key.clone(), setting.value.clone(), format!("{:?}", setting.source).to_lowercase()]);
    }
    sections.push(("settings that are not the default", table.or("none")));
    let log = if home.log.is_empty() { "none".to_owned() } else { home.log.join("\n") };
    sections.push(("last warnings and errors", log));
}

fn state(state: &EngineState) -> String {
    match state {
        EngineState::InstalledOnly => "does not run".to_owned(),
        EngineState::Unchecked => "not checked yet".to_owned(),
        EngineState::RunningHealthy { latency_ms } => format!("healthy, {latency_ms} ms"),
        EngineState::RunningDegraded { latency_ms, reason } => format!("degraded, {latency_ms} ms: {}", redact(reason)),
        EngineState::ErrorNetwork { reason, failures } => format!("unreachable {failures} times: {}", redact(reason)),
        EngineState::ErrorApi { reason } => format!("wrong answers: {}", redact(reason)),
    }
}

fn weight(weight: Weight) -> &'static str {
    match weight {
        Weight::Problem => "PROBLEM",
        Weight::Warning => "warning",
        Weight::Hint => "hint",
    }
}

fn bytes(count: u64) -> String {
    const STEPS: [(&str, u64); 3] = [("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)];
    match STEPS.into_iter().find(|(_, size)| count >= *size) {
        #[expect(clippy::cast_precision_loss, reason = "one digit after the point is told")]
        Some((unit, size)) => format!("{:.1} {unit}", count as f64 / size as f64),
        None => format!("{count} B"),
    }
}
