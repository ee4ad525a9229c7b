//! Listeners and the owner itself (SPEC §4.8, §6).

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::certificates;
use super::context::{Context, ListenFault, Live, blocking_panicked};
use super::port_holder::holder_of_port;
use super::progress::Reporter;
use crate::config::settings::Settings;
use crate::config::table;
use crate::engines::process_controller::is_of_this_machine;
use crate::tls::modes::{self, Mode, Privacy, Usual};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::proxy::{EndOwner, Snapshot, StartListener, Status, StopListener};
use crate::types::certificate::Occasion;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::listener::{
    CertificateFiles, ListenerConfig, ListenerPart, ListenerPhase, ListenerStatus, ProxyStatus, TlsMode,
};
use crate::types::live::LiveSnapshot;
use crate::types::text::escape;

/// How many ports above a taken one are tried for the hint.
const PORTS_TRIED: u16 = 64;

/// Starts a listener; with TLS it waits for the first certificate, outside of the lock on changes. Dropping the future
/// ends that, and the listener with it.
///
/// # Errors
/// `PROXY_ALREADY_RUNNING`, `PROXY_PORT_IN_USE` that names the program holding the port and offers a free one,
/// `PROXY_INVALID_CONFIG` for a mode that this version lacks or plain HTTP on an open address, and what the mode says when there
/// is no certificate.
pub async fn start(
    context: &Arc<Context>,
    call: StartListener,
    told: Reporter<StartListener>,
) -> Outcome<ListenerStatus> {
    let left = CancellationToken::new();
    let _leaving = left.clone().drop_guard();
    // A task of its own, so that what is begun under the lock is finished, or taken back, whoever leaves.
    let starting = begin(context.clone(), call, told, left);
    context.tasks.spawn("start of a listener", starting).await.map_err(|_| blocking_panicked("starting a listener"))?
}

async fn begin(
    context: Arc<Context>,
    call: StartListener,
    told: Reporter<StartListener>,
    left: CancellationToken,
) -> Outcome<ListenerStatus> {
    let live = context.live()?;
    let opened = open(&context, live, call).await?;
    let port = opened.config.port;
    let certified = tokio::select! {
        biased;
        certified = live.host.certify(port, Occasion::Start, certificates::told_to(told)) => certified,
        () = left.cancelled() => Err(Failure::new(ErrorCode::Cancelled, "the start was broken off before there was a certificate")),
    };
    let kept = match certified {
        Ok(status) => keep(&context, live, status).await,
        Err(failure) => Err(failure),
    };
    context.status_changed();
    match kept {
        Ok(status) => Ok(status),
        Err(failure) => {
            // Without a certificate there is no listener, and never one in clear instead (SPEC §6). Somebody may have stopped it
            // already.
            let _gone_already = live.host.close(port).await;
            let severity = if failure.code == ErrorCode::Cancelled { Severity::Low } else { Severity::Medium };
            let details = format!("no listener on port {port}: {}", failure.message);
            context.record(AuditKind::CertificateChanged, severity, details).await;
            Err(failure)
        }
    }
}

/// Decides what the listener is and takes its ports.
async fn open(context: &Context, live: &Live, call: StartListener) -> Outcome<ListenerStatus> {
    // Also a home that only reads serves its keys (SPEC §5.12).
    let _changing = context.begin_start().await;
    let running = live.host.status().listeners;
    let mut config = match call.config {
        Some(config) => {
            let (names_port, names_certificate) = (config.https_port.is_some(), config.certificate.is_some());
            let config = with_settings(&context.settings.load(), config, &call.unnamed)?;
            let mode = check_mode(&config)?;
            if (names_port || names_certificate) && mode.privacy == Privacy::Clear {
                return Err(tls_options_without_tls(&config));
            }
            if names_certificate && mode.name != TlsMode::CERTIFICATE_FILES {
                let what = format!("mode {} has a certificate of its own: it takes none by --certificate", mode.name);
                return Err(Failure::new(ErrorCode::ProxyInvalidConfig, what)
                    .hint("serve yours with --mode certificate-files, or leave --certificate and --key out"));
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
    match live.host.open(config.clone()) {
        Ok(status) => Ok(status),
        Err(ListenFault::PortInUse(port)) => Err(port_in_use(&config, port).await),
        Err(ListenFault::Certificate(failure)) => Err(failure),
        Err(ListenFault::Refused { port, reason }) => Err(refused(&config, port, &reason)),
    }
}

/// Stores a listener that serves, and tells of it.
async fn keep(context: &Context, live: &Live, status: ListenerStatus) -> Outcome<ListenerStatus> {
    let _changing = context.begin_start().await;
    store_profiles(context, live, &status.config).await?;
    let ListenerConfig { mode, bind, port, https_port, insecure_plain_http, .. } = &status.config;
    let (severity, warning) = match insecure_plain_http {
        true => (Severity::High, "; keys and prompts travel in clear (--insecure-plain-http)"),
        false => (Severity::Low, ""),
    };
    let tls = https_port.map_or_else(String::new, |port| format!(", TLS on port {port}"));
    let details = format!("listener on {} started, mode {}{tls}{warning}", SocketAddr::new(*bind, *port), mode.0);
    context.record(AuditKind::ListenerChanged, severity, details).await;
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

/// The listener with what the settings, else its mode, say about parts that nobody named.
pub(super) fn with_settings(
    settings: &Settings,
    mut config: ListenerConfig,
    parts: &[ListenerPart],
) -> Outcome<ListenerConfig> {
    let wrong = |why: String| Failure::new(ErrorCode::ProxyInvalidConfig, why).hint("see it with: flm config list");
    if parts.contains(&ListenerPart::Mode) && settings.is_given(table::PROXY_MODE) {
        config.mode = TlsMode(settings.get(table::PROXY_MODE));
    }
    let usual = modes::find(&config.mode.0).map_or(Usual::Home, |mode| mode.usual);
    for part in parts {
        match part {
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
            ListenerPart::Bind => config.bind = usual.bind(),
            ListenerPart::Port => config.port = usual.port(),
            ListenerPart::Mode => {}
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

/// The mode of that name.
///
/// # Errors
/// `PROXY_INVALID_CONFIG` that names those that there are.
pub(super) fn known_mode(mode: &TlsMode) -> Outcome<&'static Mode> {
    modes::find(&mode.0).ok_or_else(|| {
        let names: Vec<_> = modes::MODES.iter().map(|mode| mode.name).collect();
        let unknown = escape(&mode.0);
        Failure::new(ErrorCode::ProxyInvalidConfig, format!("this version has no mode {unknown:?}"))
            .hint(format!("modes that it has: {}", names.join(", ")))
    })
}

/// SPEC §6: plain HTTP beyond loopback only when the operator says so.
fn check_mode(config: &ListenerConfig) -> Outcome<&'static Mode> {
    let mode = known_mode(&config.mode)?;
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
    let https_port = config.https_port.or_else(|| mode.usual.https_port(config.port));
    let https_port = https_port.ok_or_else(|| wrong("there is no port after 65535 for TLS".to_owned()))?;
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
    if *phase == ListenerPhase::Obtaining {
        return Failure::new(
            ErrorCode::ProxyAlreadyRunning,
            format!("the listener on port {} is obtaining its certificate", config.port),
        )
        .hint("see how far it is with 'flm proxy status'; 'flm proxy stop' ends it");
    }
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

fn refused(config: &ListenerConfig, port: u16, reason: &str) -> Failure {
    let place = SocketAddr::new(config.bind, port);
    let failure = Failure::new(ErrorCode::ProxyInvalidConfig, format!("cannot listen on {place}: {reason}"));
    // Unprivileged programs may not take ports below 1024 (ip(7), ip_unprivileged_port_start).
    if !(1..1024).contains(&port) || !is_of_this_machine(config.bind) {
        return failure.hint("choose an address of this machine with --bind, or leave it out for 127.0.0.1");
    }
    if config.mode.0 == TlsMode::HTTPS_ACME {
        return failure.hint(
            "ports below 1024 need a right: give it once with 'sudo setcap cap_net_bind_service=+ep FLM' (FLM: the path that \
             'command -v flm' shows), or have the router forward 80 and 443 to --port 8080 --https-port 8443",
        );
    }
    failure.hint("ports below 1024 need privileges: choose a port from 1024 up, such as --port 8484")
}

async fn port_in_use(config: &ListenerConfig, port: u16) -> Failure {
    let bind = config.bind;
    let looked = tokio::task::spawn_blocking(move || (holder_of_port(port), next_free_port(bind, port))).await;
    let (holder, free) = looked.unwrap_or((None, None));
    let who = match holder {
        Some(holder) => format!("{} (process {})", escape(&holder.program), holder.pid),
        None => "another program".to_owned(),
    };
    let option = if port == config.port { "--port" } else { "--https-port" };
    let failure = Failure::new(ErrorCode::ProxyPortInUse, format!("port {port} on {bind} is held by {who}"));
    if config.mode.0 == TlsMode::HTTPS_ACME && port == config.port {
        // Any other port would do for FLM, and none for the directory, which calls port 80.
        return failure.hint(
            "the ACME directory calls port 80: end that program, or have it send /.well-known/acme-challenge/ to another --port; or \
             prove the domain by DNS, with --acme-challenge dns-01 and any --port",
        );
    }
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
