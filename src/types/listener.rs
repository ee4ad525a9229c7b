//! Listeners: where the proxy can be reached and in which state it is (SPEC §4.8, §6).

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::certificate::TlsStatus;
use super::clock::UnixMillis;
use super::egress::EgressStatus;

/// How clients reach the proxy (SPEC §6). The name of a TLS mode as `tls/modes` declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct TlsMode(pub String);

impl TlsMode {
    /// Plain HTTP, for loopback.
    pub const LOCAL_HTTP: &'static str = "local-http";
    /// A self-signed certificate.
    pub const DEV_SELFSIGNED: &'static str = "dev-selfsigned";
    /// A certificate of the home's own certificate authority.
    pub const PACKAGED_CA: &'static str = "packaged-ca";
    /// A certificate that the operator brings as files.
    pub const CERTIFICATE_FILES: &'static str = "certificate-files";
    /// A certificate from an ACME directory.
    pub const HTTPS_ACME: &'static str = "https-acme";

    /// Plain HTTP, for loopback.
    #[must_use]
    pub fn local_http() -> Self {
        Self(Self::LOCAL_HTTP.to_owned())
    }
}

/// What a listener is started with; stored in `proxy_profiles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ListenerConfig {
    /// How clients reach it.
    pub mode: TlsMode,
    /// Address to bind.
    pub bind: IpAddr,
    /// Port to bind. With TLS on, plain HTTP is answered there with the way to `https_port`.
    pub port: u16,
    /// Port for TLS; `None` is the one after `port`, or that of the mode (SPEC §6).
    #[serde(default)]
    pub https_port: Option<u16>,
    /// Files of the operator's own certificate, for the mode that takes them.
    #[serde(default)]
    pub certificate: Option<CertificateFiles>,
    /// Plain HTTP on an address that is not loopback, knowingly (SPEC §6).
    #[serde(default)]
    pub insecure_plain_http: bool,
}

impl ListenerConfig {
    /// 127.0.0.1:8484 (SPEC §4.8: 8080 and 8000 belong to engines).
    pub const DEFAULT_PORT: u16 = 8484;
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            mode: TlsMode::local_http(),
            bind: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            port: Self::DEFAULT_PORT,
            https_port: None,
            certificate: None,
            insecure_plain_http: false,
        }
    }
}

/// Where the operator's own certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CertificateFiles {
    /// The chain as PEM, the leaf first. Absolute.
    pub chain: PathBuf,
    /// The private key as PEM. Absolute.
    pub key: PathBuf,
}

/// A part of a listener that a setting may decide (`proxy.mode`, `proxy.bind`, `proxy.port` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ListenerPart {
    /// How clients reach it.
    Mode,
    /// The address.
    Bind,
    /// The port.
    Port,
    /// The port for TLS.
    HttpsPort,
    /// The files of a certificate.
    Certificate,
}

/// A listener's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum ListenerPhase {
    /// Holds its ports and waits for its first certificate; only the plain port answers.
    Obtaining,
    /// Accepts connections.
    Running,
    /// Refuses new connections; streams get up to 30 s (SPEC §4.8).
    Draining {
        /// Connections that are left.
        connections: u32,
    },
    /// Does not run.
    Stopped,
    /// Could not start or died.
    Failed {
        /// Why.
        reason: String,
    },
}

impl ListenerPhase {
    /// Whether it holds its ports and serves, or is about to: what can be stopped, and need not be started.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Obtaining)
    }
}

/// A listener as status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ListenerStatus {
    /// What it was started with; the port is the real one, never 0.
    pub config: ListenerConfig,
    /// Where in its life it is.
    pub phase: ListenerPhase,
    /// Base URLs that a person can use, never `0.0.0.0` (SPEC §4.10).
    pub addresses: Vec<String>,
    /// When it started.
    pub started: Option<UnixMillis>,
    /// How its certificate fares; `None` for plain HTTP.
    #[serde(default)]
    pub tls: Option<TlsStatus>,
}

/// How far the endpoint is reached (SPEC §5, head).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exposure {
    /// From this machine only: keys and limits guard.
    #[default]
    Local,
    /// By others too: everything guards.
    Public,
}

/// Why new work is refused to protect the machine (SPEC §5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Overload {
    /// FLM's own cores are at their end.
    Processor {
        /// Percent of them that FLM used when it began.
        percent: u64,
    },
    /// The machine has too little memory.
    Memory {
        /// Megabytes that were free when it began.
        free_megabytes: u64,
    },
    /// The control group that FLM runs in leaves too little memory.
    ControlGroup {
        /// Megabytes that it left when it began.
        free_megabytes: u64,
    },
}

impl std::fmt::Display for Overload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Processor { percent } => write!(f, "FLM itself uses {percent} % of its cores"),
            Self::Memory { free_megabytes } => write!(f, "the machine has {free_megabytes} MB of memory left"),
            Self::ControlGroup { free_megabytes } => {
                write!(f, "the control group leaves FLM {free_megabytes} MB of memory")
            }
        }
    }
}

/// How the process that owns the home runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OwnerKind {
    /// A daemon of its own.
    Daemon,
    /// Inside the console's process (`--in-process`).
    InProcess,
}

/// What `flm proxy status` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProxyStatus {
    /// Version of the owner.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// How it runs.
    pub owner: OwnerKind,
    /// When it started.
    pub started: UnixMillis,
    /// The folder it owns.
    pub home: String,
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
    /// How it reaches the world (SPEC §7).
    pub egress: EgressStatus,
    /// How far the endpoint is reached, and so what guards it.
    #[serde(default)]
    pub exposure: Exposure,
    /// Why new work is refused to protect the machine; `None` when it is not (SPEC §5.8).
    #[serde(default)]
    pub overload: Option<Overload>,
    /// Rules of the security policy that only tell what they would have done, by their names.
    #[serde(default)]
    pub simulating: Vec<String>,
    /// Whether this is the demo (SPEC §1.1).
    pub demo: bool,
    /// Why changes are refused, when the home is read-only (SPEC §5.12).
    pub read_only: Option<String>,
    /// Why the last reload was refused, with line and column where `flm.toml` is at fault; the state before it is in
    /// force. `None` when it was not.
    pub reload_fault: Option<String>,
    /// Settings that were changed and are in force only after a restart.
    pub needs_restart: Vec<String>,
}
