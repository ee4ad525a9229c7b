//! Listeners and the owner itself (SPEC §4.8, §6).

use std::net::{IpAddr, SocketAddr, TcpListener};

use super::context::{Context, ListenFault, Live};
use super::port_holder::holder_of_port;
use crate::config::settings::Settings;
use crate::config::table;
use crate::tls::modes::{self, Mode, Privacy};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::proxy::{EndOwner, Snapshot, StartListener, Status, StopListener};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{
    CertificateFiles, ListenerConfig, ListenerPart, ListenerPhase, ListenerStatus, ProxyStatus, TlsMode,
};
use crate::types::live::LiveSnapshot;
use crate::types::text::escape;

/// How many ports above a taken one are tried for the hint.
const PORTS_TRIED: u16 = 64;

/// Starts a listener.
///
/// # Errors
/// `PROXY_ALREADY_RUNNING`, `PROXY_PORT_IN_USE` that names the program holding the port and offers a free one,
/// `PROXY_INVALID_CONFIG` for a mode that this version lacks or plain HTTP on an open address.
pub async fn start(context: &Context, call: StartListener) -> Outcome<ListenerStatus> {
    let live = context.live()?;
    // Also a home that only reads serves its keys (SPEC §5.12).
    let _changing = context.begin_start().await;
    let running = live.host.status().listeners;
    let mut config = match call.config {
        Some(config) => {
            let names_tls = config.https_port.is_some() || config.certificate.is_some();
            let config = with_settings(&context.settings.load(), config, &call.unnamed)?;
            if names_tls && check_mode(&config)?.privacy == Privacy::Clear {
                return Err(tls_options_without_tls(&config));
            }
            config
        }
        None => stored_profile(context, &running).await?,
    };
    let mode = check_mode(&config)?;
    settle_tls(&mut config, mode)?;
    if let Some(same) = running.iter().find(|listener| listener.config.port == config.port) {
        return Err(already_running(same));
    }
    let status = match live.host.listen(config.clone()).await {
        Ok(status) => status,
        Err(ListenFault::PortInUse(port)) => return Err(port_in_use(config.bind, port, port != config.port).await),
        Err(ListenFault::Certificate(failure)) => {
            let details = format!("no listener on port {}: {}", config.port, failure.message);
            context.record(AuditKind::CertificateChanged, Severity::Medium, details).await;
            return Err(failure);
        }
        Err(ListenFault::Refused(reason)) => return Err(refused(&config, &reason)),
    };
    if let Err(failure) = store_profiles(context, live, &status.config).await {
        live.host.close(status.config.port).await?;
        return Err(failure);
    }
    let ListenerConfig { mode, bind, port, https_port, insecure_plain_http, .. } = &status.config;
    let (severity, warning) = match insecure_plain_http {
        true => (Severity::High, "; keys and prompts travel in clear (--insecure-plain-http)"),
        false => (Severity::Low, ""),
    };
    let tls = https_port.map_or_else(String::new, |port| format!(", TLS on port {port}"));
    let details = format!("listener on {} started, mode {}{tls}{warning}", SocketAddr::new(*bind, *port), mode.0);
    context.record(AuditKind::ListenerChanged, severity, details).await;
    context.status_changed();
    Ok(status)
}

/// Stops a listener and waits until its requests have ended.
///
/// # Errors
/// `NOT_FOUND` when none runs there; `INVALID_ARGUMENT` when several run and none is named.
pub async fn stop(context: &Context, call: StopListener) -> Outcome<()> {
    let live = context.live()?;
    let running: Vec<u16> = live.host.status().listeners.iter().map(|listener| listener.config.port).collect();
    let named = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    let port = match (call.port, running.as_slice()) {
        (Some(port), ports) if ports.contains(&port) => port,
        (None, [only]) => *only,
        (_, []) => {
            return Err(Failure::new(ErrorCode::NotFound, "no listener runs").hint("start one with: flm proxy start"));
        }
        (Some(port), ports) => {
            return Err(Failure::new(ErrorCode::NotFound, format!("no listener runs on port {port}"))
                .hint(format!("listeners run on: {}", named(ports))));
        }
        (None, ports) => {
            return Err(Failure::new(ErrorCode::InvalidArgument, "several listeners run")
                .hint(format!("name one with --port ({}), or end all with --all", named(ports))));
        }
    };
    live.host.close(port).await?;
    context.record(AuditKind::ListenerChanged, Severity::Low, format!("listener on port {port} stopped")).await;
    context.status_changed();
    Ok(())
}

/// Drains every listener and ends the owner.
pub async fn end(context: &Context, _call: EndOwner) -> Outcome<()> {
    let live = context.live()?;
    context.record(AuditKind::ListenerChanged, Severity::Low, "the operator ends the proxy").await;
    live.host.end().await;
    Ok(())
}

/// Answers owner and listeners.
pub async fn status(context: &Context, _call: Status) -> Outcome<ProxyStatus> {
    std::future::ready(context.live().map(|live| live.host.status())).await
}

/// The whole live state.
pub async fn snapshot(context: &Context, _call: Snapshot) -> Outcome<LiveSnapshot> {
    std::future::ready(context.live().map(|live| live.host.snapshot())).await
}

/// What the settings say, else the first stored listener that does not run yet, else the default.
async fn stored_profile(context: &Context, running: &[ListenerStatus]) -> Outcome<ListenerConfig> {
    let settings = context.settings.load();
    let configured = settings.is_given(table::PROXY_MODE)
        || settings.is_given(table::PROXY_BIND)
        || settings.is_given(table::PROXY_PORT)
        || settings.is_given(table::PROXY_HTTPS_PORT)
        || settings.is_given(table::PROXY_CERTIFICATE_FILE);
    if configured {
        let parts = [
            ListenerPart::Mode,
            ListenerPart::Bind,
            ListenerPart::Port,
            ListenerPart::HttpsPort,
            ListenerPart::Certificate,
        ];
        return with_settings(&settings, ListenerConfig::default(), &parts);
    }
    let stored = context.stores.config.listeners().await?;
    let idle = |config: &&ListenerConfig| running.iter().all(|listener| listener.config.port != config.port);
    match (stored.iter().find(idle), running.first()) {
        (Some(config), _) => Ok(config.clone()),
        (None, Some(listener)) => Err(already_running(listener)),
        (None, None) => Ok(ListenerConfig::default()),
    }
}

/// The listener with what the settings say about parts that nobody named.
fn with_settings(settings: &Settings, mut config: ListenerConfig, parts: &[ListenerPart]) -> Outcome<ListenerConfig> {
    let wrong = |why: String| Failure::new(ErrorCode::ProxyInvalidConfig, why).hint("see it with: flm config list");
    for part in parts {
        match part {
            ListenerPart::Mode if settings.is_given(table::PROXY_MODE) => {
                config.mode = TlsMode(settings.get(table::PROXY_MODE));
            }
            ListenerPart::Bind if settings.is_given(table::PROXY_BIND) => {
                let bind = settings.get(table::PROXY_BIND);
                let parsed = bind.parse();
                config.bind = parsed.map_err(|_| wrong(format!("proxy.bind is no address: {}", escape(&bind))))?;
            }
            ListenerPart::Port if settings.is_given(table::PROXY_PORT) => {
                let port = settings.get(table::PROXY_PORT);
                config.port = u16::try_from(port).map_err(|_| wrong(format!("proxy.port is no port: {port}")))?;
            }
            ListenerPart::HttpsPort => {
                let port = settings.get(table::PROXY_HTTPS_PORT);
                let parsed = u16::try_from(port).map_err(|_| wrong(format!("proxy.https_port is no port: {port}")))?;
                config.https_port = (parsed != 0).then_some(parsed);
            }
            ListenerPart::Certificate => {
                let (chain, key) = (settings.get(table::PROXY_CERTIFICATE_FILE), settings.get(table::PROXY_KEY_FILE));
                config.certificate = match (chain.is_empty(), key.is_empty()) {
                    (true, true) => None,
                    (false, false) => Some(CertificateFiles { chain: chain.into(), key: key.into() }),
                    _ => return Err(wrong("proxy.certificate_file and proxy.key_file go together".to_owned())),
                };
            }
            ListenerPart::Mode | ListenerPart::Bind | ListenerPart::Port => {}
        }
    }
    Ok(config)
}

/// Makes the store hold exactly the listeners that run now: what the next plain start brings back.
async fn store_profiles(context: &Context, live: &Live, started: &ListenerConfig) -> Outcome<()> {
    if context.stores.config.read_only().is_some() || context.stores.security.read_only().is_some() {
        // It serves as it is asked to, and remembers nothing.
        return Ok(());
    }
    let running = live.host.status().listeners;
    for stored in context.stores.config.listeners().await? {
        if running.iter().all(|listener| listener.config.port != stored.port) {
            context.stores.config.remove_listener(stored.port).await?;
        }
    }
    Ok(context.stores.config.put_listener(started.clone()).await?)
}

/// SPEC §6: plain HTTP beyond loopback only when the operator says so.
fn check_mode(config: &ListenerConfig) -> Outcome<&'static Mode> {
    let Some(mode) = modes::find(&config.mode.0) else {
        let names: Vec<_> = modes::MODES.iter().map(|mode| mode.name).collect();
        let unknown = escape(&config.mode.0);
        return Err(Failure::new(ErrorCode::ProxyInvalidConfig, format!("this version has no mode {unknown:?}"))
            .hint(format!("modes that it has: {}", names.join(", "))));
    };
    if mode.suits(config.bind) || config.insecure_plain_http {
        return Ok(mode);
    }
    Err(Failure::new(
        ErrorCode::ProxyInvalidConfig,
        format!("mode {} on {} would send API keys and prompts in clear over the network", mode.name, config.bind),
    )
    .hint(format!(
        "encrypt it: flm proxy start --mode packaged-ca --bind {}; or accept the risk with --insecure-plain-http",
        config.bind
    )))
}

/// Decides the port for TLS, and forgets what a mode in clear has no use for.
fn settle_tls(config: &mut ListenerConfig, mode: &Mode) -> Outcome<()> {
    if mode.privacy == Privacy::Clear {
        (config.https_port, config.certificate) = (None, None);
        return Ok(());
    }
    if config.mode.0 != TlsMode::CERTIFICATE_FILES {
        config.certificate = None;
    }
    // What is encrypted needs no leave to be in clear.
    config.insecure_plain_http = false;
    let wrong = |why: String| {
        Failure::new(ErrorCode::ProxyInvalidConfig, why).hint("choose the port for TLS with --https-port N")
    };
    let https_port = match (config.https_port, config.port) {
        (Some(port), _) => port,
        // A free port beside a free port.
        (None, 0) => 0,
        (None, port) => port.checked_add(1).ok_or_else(|| wrong("there is no port after 65535 for TLS".to_owned()))?,
    };
    if https_port == config.port && https_port != 0 {
        return Err(wrong(format!("port {https_port} cannot be both the plain port and the one for TLS")));
    }
    config.https_port = Some(https_port);
    Ok(())
}

fn tls_options_without_tls(config: &ListenerConfig) -> Failure {
    Failure::new(
        ErrorCode::ProxyInvalidConfig,
        format!("mode {} is plain HTTP: it takes neither --https-port nor --certificate", config.mode.0),
    )
    .hint("choose a mode with TLS, such as --mode packaged-ca")
}

fn already_running(listener: &ListenerStatus) -> Failure {
    let ListenerStatus { config, phase, addresses, .. } = listener;
    if matches!(phase, ListenerPhase::Draining { .. }) {
        return Failure::new(
            ErrorCode::ProxyAlreadyRunning,
            format!("the listener on port {} is still stopping", config.port),
        )
        .hint("its last requests have up to 30 s to end; try again then");
    }
    let address = addresses.first().cloned().unwrap_or_else(|| SocketAddr::new(config.bind, config.port).to_string());
    Failure::new(ErrorCode::ProxyAlreadyRunning, format!("the proxy already runs at {address}"))
        .hint("see it with 'flm proxy status', or start another listener with --port N")
}

fn refused(config: &ListenerConfig, reason: &str) -> Failure {
    let place = SocketAddr::new(config.bind, config.port);
    let failure = Failure::new(ErrorCode::ProxyInvalidConfig, format!("cannot listen on {place}: {reason}"));
    // Unprivileged programs may not take ports below 1024 (ip(7), ip_unprivileged_port_start).
    if config.port < 1024 {
        return failure.hint("ports below 1024 need privileges: choose a port from 1024 up, such as --port 8484");
    }
    failure.hint("choose an address of this machine with --bind, or leave it out for 127.0.0.1")
}

async fn port_in_use(bind: IpAddr, port: u16, for_tls: bool) -> Failure {
    let looked = tokio::task::spawn_blocking(move || (holder_of_port(port), next_free_port(bind, port))).await;
    let (holder, free) = looked.unwrap_or((None, None));
    let who = match holder {
        Some(holder) => format!("{} (process {})", escape(&holder.program), holder.pid),
        None => "another program".to_owned(),
    };
    let option = if for_tls { "--https-port" } else { "--port" };
    let failure = Failure::new(ErrorCode::ProxyPortInUse, format!("port {port} on {bind} is held by {who}"));
    match free {
        Some(free) => {
            failure.hint(format!("port {free} is free: flm proxy start {option} {free}")).suggest(free.to_string())
        }
        None => failure.hint(format!("end that program, or choose another port with {option} N")),
    }
}

/// The next port above `taken` that can be bound now.
pub(super) fn next_free_port(bind: IpAddr, taken: u16) -> Option<u16> {
    (1..=PORTS_TRIED).filter_map(|step| taken.checked_add(step)).find(|port| TcpListener::bind((bind, *port)).is_ok())
}
