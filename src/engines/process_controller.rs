//! [`EngineProcessController`]: the engines' programs and running processes, and the places that they and the environment point to.
//!
//! Called by [`crate::engines::detection`]. Must never name a place on another machine.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engines::adapter::Adapter;
use crate::engines::detection::Place;
use crate::types::engine::EngineKind;

/// What runs here and what is installed here, looked at once; detection goes through the places that it points to. Shared by threads
/// as it is; tests hand in their own.
#[derive(Debug, Clone, Default)]
pub struct EngineProcessController {
    /// Environment variables.
    pub variables: Vec<(String, String)>,
    /// Running processes.
    pub processes: Vec<ProcessSeen>,
    /// Programs of engines that were found.
    pub binaries: Vec<BinarySeen>,
    /// The port in LM Studio's `http-server-config.json`.
    pub lmstudio_port: Option<u16>,
    /// Addresses of this machine beside loopback; what is not here is never contacted.
    pub own_addresses: Vec<IpAddr>,
    /// Whether default ports are tried.
    pub default_ports: bool,
    /// FLM's own listeners, never taken for an engine.
    pub own_listeners: Vec<SocketAddr>,
}

/// A running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSeen {
    /// Process id.
    pub pid: u32,
    /// Program's file name.
    pub program: String,
    /// Arguments after the program.
    pub arguments: Vec<String>,
    /// Program name of the parent.
    pub parent: Option<String>,
}

/// A program of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinarySeen {
    /// File name.
    pub program: String,
    /// Full path.
    pub path: String,
}

/// Whether an address is one of this machine's: only such can be bound to; nothing is sent.
#[must_use]
pub fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

impl EngineProcessController {
    /// This machine, now. Blocks for some milliseconds: call it off the runtime.
    #[must_use]
    pub fn look(own_listeners: Vec<SocketAddr>) -> Self {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let processes = processes();
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        let lmstudio = home.as_deref().map(lmstudio_home);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let binaries = binaries(&path, home.as_deref(), lmstudio.as_deref());
        let lmstudio_port = lmstudio.as_deref().and_then(lmstudio_port);
        let mut controller = Self {
            variables,
            processes,
            binaries,
            lmstudio_port,
            default_ports: true,
            own_listeners,
            ..Self::default()
        };
        controller.own_addresses = controller
            .pointers()
            .into_iter()
            .filter_map(|pointer| pointer.host.parse::<IpAddr>().ok())
            .filter(|address| is_of_this_machine(*address))
            .collect();
        controller
    }

    /// The places where these engines may answer, each once, the surest evidence first.
    pub(super) fn places(&self, adapters: &[&'static dyn Adapter]) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let mut add = |address: IpAddr, port: u16, expected: EngineKind, evidence: String| {
            let own = self.own_listeners.iter().any(|own| {
                own.port() == port && (own.ip() == address || own.ip().is_unspecified() || own.ip().is_loopback())
            });
            let known = places.iter().any(|place| place.address == address && place.port == port);
            if !own && !known && port != 0 {
                places.push(Place { address, port, expected, evidence });
            }
        };
        for pointer in self.pointers() {
            if adapters.iter().any(|adapter| adapter.info().kind == pointer.kind)
                && let Some(address) = self.local(&pointer.host)
            {
                add(address, pointer.port, pointer.kind, pointer.evidence);
            }
        }
        if self.default_ports {
            for adapter in adapters {
                let info = adapter.info();
                for port in info.ports {
                    add(Ipv4Addr::LOCALHOST.into(), *port, info.kind.clone(), format!("port {port}"));
                }
            }
        }
        places
    }

    /// The address to contact for a host that an engine listens on; `None` when it is not this machine's.
    fn local(&self, host: &str) -> Option<IpAddr> {
        if host.eq_ignore_ascii_case("localhost") {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        let address: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        if address.is_unspecified() {
            // Listening on all addresses includes loopback; ":: " takes IPv4 too on every system with defaults.
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        (address.is_loopback() || self.own_addresses.contains(&address)).then_some(address)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// What variables, files and processes say about where engines listen.
    fn pointers(&self) -> Vec<Pointer> {
        let mut pointers: Vec<Pointer> = self.processes.iter().filter_map(of_process).collect();
        if let Some((host, port)) = self.variable("OLLAMA_HOST").and_then(ollama_host) {
            pointers.push(Pointer { kind: OLLAMA, host, port, evidence: "OLLAMA_HOST".to_owned() });
        }
        let (host, port) = (self.variable("LLAMA_ARG_HOST"), self.variable("LLAMA_ARG_PORT"));
        if host.is_some() || port.is_some() {
            pointers.push(Pointer {
                kind: LLAMACPP,
                host: host.unwrap_or("127.0.0.1").to_owned(),
                port: port.and_then(|port| port.parse().ok()).unwrap_or(8080),
                evidence: if port.is_some() { "LLAMA_ARG_PORT" } else { "LLAMA_ARG_HOST" }.to_owned(),
            });
        }
        if let Some(port) = self.lmstudio_port {
            let evidence = "LM Studio's server settings".to_owned();
            pointers.push(Pointer { kind: LMSTUDIO, host: "127.0.0.1".to_owned(), port, evidence });
        }
        pointers
    }
}

const OLLAMA: EngineKind = EngineKind::named("ollama");
const LLAMACPP: EngineKind = EngineKind::named("llamacpp");
const VLLM: EngineKind = EngineKind::named("vllm");
const LMSTUDIO: EngineKind = EngineKind::named("lmstudio");

struct Pointer {
    kind: EngineKind,
    host: String,
    port: u16,
    evidence: String,
}

/// `OLLAMA_HOST` as Ollama reads it (`envconfig/config.go`): scheme and port optional; `http` means port 80, `https`
/// 443, a bare host 11434. Only plain HTTP is used on this machine.
fn ollama_host(text: &str) -> Option<(String, u16)> {
    let text = text.trim().trim_matches(['"', '\'']);
    let (default, rest) = match text.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some(_) => return None,
        None => (11434, text),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']')?;
        (host, after.strip_prefix(':'))
    } else if authority.matches(':').count() > 1 {
        // A bare IPv6 address.
        (authority, None)
    } else {
        authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    let port = match port {
        None | Some("") => default,
        // Ollama falls back to its default when the port is no number.
        Some(port) => port.parse().unwrap_or(default),
    };
    Some((if host.is_empty() { "127.0.0.1" } else { host }.to_owned(), port))
}

/// What a process says about where it listens; `None` when it is no engine of its own.
fn of_process(process: &ProcessSeen) -> Option<Pointer> {
    let evidence = format!("process {}", process.pid);
    let option = |names: &[&str]| argument(&process.arguments, names);
    let has = |word: &str| process.arguments.iter().any(|argument| argument == word);
    let pointer = |kind: EngineKind, host: &str, port: u16| {
        let host = option(&["--host"]).unwrap_or(host).to_owned();
        let port = option(&["--port"]).map_or(Some(port), |port| port.parse().ok())?;
        Some(Pointer { kind, host, port, evidence: evidence.clone() })
    };
    let llama = process.program == "llama-server" || (process.program == "llama" && has("serve"));
    if llama {
        // Ollama and routers start llama-server on ports of their own (ENGINES.md §2).
        let child = process.parent.as_deref().is_some_and(|parent| {
            let parent = parent.to_ascii_lowercase();
            parent.starts_with("ollama") || parent.starts_with("llama")
        });
        return if child { None } else { pointer(LLAMACPP, "127.0.0.1", 8080) };
    }
    let vllm = (process.program == "vllm" || process.arguments.iter().any(|a| a.ends_with("/vllm"))) && has("serve")
        || has("vllm.entrypoints.openai.api_server");
    if vllm {
        return pointer(VLLM, "127.0.0.1", 8000);
    }
    // Its address is in OLLAMA_HOST of its own environment; without it, the default.
    if process.program == "ollama" && has("serve") {
        return Some(Pointer { kind: OLLAMA, host: "127.0.0.1".to_owned(), port: 11434, evidence });
    }
    if process.program == "llmster" || process.program.eq_ignore_ascii_case("lm studio") {
        return Some(Pointer { kind: LMSTUDIO, host: "127.0.0.1".to_owned(), port: 1234, evidence });
    }
    None
}

/// The value of `--name value` or `--name=value`, the last one given.
fn argument<'a>(arguments: &'a [String], names: &[&str]) -> Option<&'a str> {
    let mut found = None;
    for (index, argument) in arguments.iter().enumerate() {
        for name in names {
            if argument == name {
                found = arguments.get(index + 1).map(String::as_str);
            } else if let Some(value) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                found = Some(value);
            }
        }
    }
    found
}

fn processes() -> Vec<ProcessSeen> {
    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System, UpdateKind};
    let kind = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always);
    let mut system = match System::new_with_specifics(RefreshKind::nothing()) {
        Ok(system) => system,
        Err(fault) => {
            tracing::warn!(%fault, "running processes cannot be listed; detection goes on without them");
            return Vec::new();
        }
    };
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind.without_tasks());
    let program = |process: &sysinfo::Process| {
        // The kernel cuts a process's name to 15 characters; the command line has all of it.
        let first = process.cmd().first().map(Path::new).and_then(Path::file_name);
        first.unwrap_or(process.name()).to_string_lossy().into_owned()
    };
    let own = std::process::id();
    system
        .processes()
        .values()
        .filter(|process| process.pid().as_u32() != own)
        .map(|process| ProcessSeen {
            pid: process.pid().as_u32(),
            program: program(process),
            arguments: process.cmd().iter().skip(1).map(|part| part.to_string_lossy().into_owned()).collect(),
            parent: process.parent().and_then(|parent| system.process(parent)).map(program),
        })
        .filter(|process| of_process(process).is_some())
        .collect()
}

/// Places where installers put programs although they are not on PATH.
fn known_places(home: Option<&Path>, lmstudio: Option<&Path>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = ["/usr/local/bin", "/usr/bin", "/opt/homebrew/bin", "/opt/llama.cpp/bin"]
        .into_iter()
        .map(PathBuf::from)
        .collect();
    places.extend(home.map(|home| home.join(".local/bin")));
    places.extend(lmstudio.map(|lmstudio| lmstudio.join("bin")));
    places
}

fn binaries(path: &OsStr, home: Option<&Path>, lmstudio: Option<&Path>) -> Vec<BinarySeen> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    folders.extend(known_places(home, lmstudio));
    let mut seen = Vec::new();
    for adapter in crate::engines::registry::ADAPTERS {
        for program in adapter.info().binaries {
            if let Some(found) = folders.iter().map(|folder| folder.join(program)).find(|file| is_program(file)) {
                seen.push(BinarySeen { program: (*program).to_owned(), path: found.to_string_lossy().into_owned() });
            }
        }
    }
    seen
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

/// LM Studio's home (ENGINES.md §2): the content of `~/.lmstudio-home-pointer`, else the older place if present.
fn lmstudio_home(home: &Path) -> PathBuf {
    let pointed = std::fs::read_to_string(home.join(".lmstudio-home-pointer")).ok();
    if let Some(pointed) = pointed.map(|text| PathBuf::from(text.trim())).filter(|path| path.is_absolute()) {
        return pointed;
    }
    let older = home.join(".cache/lm-studio");
    if older.is_dir() { older } else { home.join(".lmstudio") }
}

fn lmstudio_port(lmstudio: &Path) -> Option<u16> {
    let text = std::fs::read(lmstudio.join(".internal/http-server-config.json")).ok()?;
    let config: Value = serde_json::from_slice(&text).ok()?;
    u16::try_from(config.get("port")?.as_u64()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::registry::ADAPTERS;

    fn process(program: &str, arguments: &str, parent: Option<&str>) -> ProcessSeen {
        ProcessSeen {
            pid: 7,
            program: program.into(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            parent: parent.map(str::to_owned),
        }
    }

    fn places(controller: &EngineProcessController) -> Vec<String> {
        let places = controller.places(ADAPTERS);
        places.iter().map(|p| format!("{} {} {} {}", p.expected, p.address, p.port, p.evidence)).collect()
    }

    #[test]
    fn ollama_host_is_read_as_ollama_reads_it() {
        for (text, host, port) in [
            ("0.0.0.0", "0.0.0.0", 11434),
            ("192.168.1.5:8000", "192.168.1.5", 8000),
            (":9000", "127.0.0.1", 9000),
            ("http://h", "h", 80),
            ("http://h:81/path", "h", 81),
            ("[::1]:77", "::1", 77),
            ("::1", "::1", 11434),
            ("h:x", "h", 11434),
        ] {
            assert_eq!(ollama_host(text), Some((host.to_owned(), port)), "{text}");
        }
        assert_eq!(ollama_host("ftp://h"), None);
    }

    #[test]
    fn processes_say_where_they_listen() {
        let controller = EngineProcessController {
            processes: vec![
                process("llama-server", "-m x --port 9000 --host 0.0.0.0", Some("bash")),
                process("llama-server", "--port 50001", Some("ollama")),
                process("llama-server", "--port 50002", Some("llama-server")),
                process("python3", "/usr/bin/vllm serve m --port=8001", None),
                process("python3", "-m vllm.entrypoints.openai.api_server", None),
            ],
            ..EngineProcessController::default()
        };
        assert_eq!(
            places(&controller),
            ["llamacpp 127.0.0.1 9000 process 7", "vllm 127.0.0.1 8001 process 7", "vllm 127.0.0.1 8000 process 7"]
        );
    }

    #[test]
    fn another_machine_is_never_contacted_and_an_own_address_only_when_named() {
        let own: IpAddr = "192.168.1.5".parse().expect("an address");
        let mut controller = EngineProcessController {
            variables: vec![("OLLAMA_HOST".into(), "192.168.1.5".into())],
            ..EngineProcessController::default()
        };
        assert!(places(&controller).is_empty());
        controller.own_addresses = vec![own];
        assert_eq!(places(&controller), ["ollama 192.168.1.5 11434 OLLAMA_HOST"]);
        controller.variables[0].1 = "example.org".into();
        assert!(places(&controller).is_empty());
    }

    #[test]
    fn default_ports_are_tried_once_each_and_never_flms_own() {
        let controller = EngineProcessController {
            default_ports: true,
            processes: vec![process("llama-server", "", None)],
            own_listeners: vec!["127.0.0.1:8000".parse().expect("an address")],
            ..EngineProcessController::default()
        };
        assert_eq!(
            places(&controller),
            [
                "llamacpp 127.0.0.1 8080 process 7",
                "ollama 127.0.0.1 11434 port 11434",
                "llamacpp 127.0.0.1 9931 port 9931",
                "lmstudio 127.0.0.1 1234 port 1234",
            ]
        );
    }

    #[test]
    fn lm_studios_own_files_tell_its_port() {
        let home = tempfile::tempdir().expect("a folder");
        let internal = home.path().join(".lmstudio/.internal");
        std::fs::create_dir_all(&internal).expect("a folder");
        let file = internal.join("http-server-config.json");
        crate::config::files::replace(&file, br#"{"port":4321}"#, crate::config::files::Audience::Owner)
            .expect("a file");
        assert_eq!(lmstudio_port(&lmstudio_home(home.path())), Some(4321));
    }

    #[test]
    fn looking_at_this_machine_finds_processes_without_failing() {
        fn shared_by_threads<T: Send + Sync>(value: T) -> T {
            value
        }
        let controller = shared_by_threads(EngineProcessController::look(Vec::new()));
        assert!(controller.default_ports);
        assert!(controller.variables.iter().any(|(name, _)| name == "PATH"));
    }

    #[test]
    fn addresses_of_this_machine_are_told_from_others() {
        let is_own = |address: &str| is_of_this_machine(address.parse().expect("an address"));
        assert!(is_own("127.0.0.1") && !is_own("203.0.113.1") && !is_own("2001:db8::1"));
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_found_on_path_first_then_in_known_places_and_only_where_they_can_be_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let put = |path: &str, mode: u32| {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            crate::config::files::replace(&file, b"#!/bin/sh\n", crate::config::files::Audience::Owner)
                .expect("a file");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("a mode");
            file.to_string_lossy().into_owned()
        };
        let on_path = put("bin/vllm", 0o755);
        put("home/.local/bin/vllm", 0o755);
        put("bin/lms", 0o644);
        let known = put("lmstudio/bin/lms", 0o755);
        let path = folder.path().join("bin");
        let (home, lmstudio) = (folder.path().join("home"), folder.path().join("lmstudio"));
        let seen = binaries(path.as_os_str(), Some(&home), Some(&lmstudio));
        let of = |program: &str| seen.iter().find(|seen| seen.program == program).map(|seen| seen.path.clone());
        assert_eq!((of("vllm"), of("lms")), (Some(on_path), Some(known)));
    }

    /// A real process of that name, as the system tells of it.
    #[cfg(unix)]
    #[test]
    fn a_server_that_runs_on_this_machine_is_seen_with_its_port() {
        use std::os::unix::process::CommandExt as _;
        let mut server = std::process::Command::new("sh")
            .arg0("llama-server")
            .args(["-c", "read -r line", "sh", "--port", "39187"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let looked = EngineProcessController::look(Vec::new());
        drop(server.stdin.take());
        server.wait().expect("ends");
        let seen = looked.processes.iter().find(|seen| seen.pid == server.id());
        let seen = seen.unwrap_or_else(|| panic!("{} is not among {:?}", server.id(), looked.processes));
        assert_eq!(seen.program, "llama-server");
        assert!(places(&looked).contains(&format!("llamacpp 127.0.0.1 39187 process {}", server.id())), "{looked:?}");
    }
}
