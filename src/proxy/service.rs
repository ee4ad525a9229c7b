//! [`ProxyService`]: one listener, started and stopped on its own (SPEC §4.8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use super::connection::Incoming;
use super::door::{Door, Hsts};
use super::sanity::machine_name;
use super::shared::ProxyShared;
use super::worker::Workers;
use crate::guard::exposure::Listening;
use crate::guard::{AddressVerdict, Standing};
use crate::telemetry::tasks::Tasks;
use crate::tls::challenges::Challenges;
use crate::tls::resolver::Resolver;
use crate::types::address::{canonical, url_host};
use crate::types::certificate::TlsStatus;
use crate::types::clock::UnixMillis;
use crate::types::listener::{ListenerConfig, ListenerPhase, ListenerStatus, TlsMode};

/// Connections that the system may hold before they are accepted.
const BACKLOG: u32 = 1024;
/// A pause after accepting failed for lack of file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that an address may hold which is told on each that it may not come in.
const REFUSED_CONNECTIONS: u32 = 8;

/// What a connection over the limits is told before it is closed.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 118\r\n\r\n\
{\"error\":{\"message\":\"Too many connections.\",\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\",\"request_id\":null}}";

/// Why a listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program holds the port.
    #[error("port {port} on {bind} is taken")]
    PortInUse {
        /// Where.
        bind: IpAddr,
        /// Which port.
        port: u16,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {bind}:{port}: {reason}")]
    Refused {
        /// Where.
        bind: IpAddr,
        /// Which port.
        port: u16,
        /// What the system said.
        reason: String,
    },
}

/// What a listener with TLS is started with.
#[derive(Debug)]
pub struct Encryption {
    /// Certificate and handshake.
    pub resolver: Arc<Resolver>,
    /// What the plain port answers to a certificate authority.
    pub challenges: Arc<Challenges>,
    /// Names that clients call, for the status; the system knows its own.
    pub names: Vec<String>,
}

/// The TLS side of a listener.
struct Encrypted {
    resolver: Arc<Resolver>,
    /// The port, held but closed until there is a certificate.
    held: Mutex<Option<TcpSocket>>,
    /// How its certificate fares; the daemon tells.
    status: Mutex<TlsStatus>,
}

/// A running listener. Dropping it stops it without patience.
pub struct ProxyService {
    config: ListenerConfig,
    encrypted: Option<Encrypted>,
    shared: Arc<ProxyShared>,
    workers: Workers,
    addresses: Vec<String>,
    started: UnixMillis,
    /// Its acceptor.
    tasks: Tasks,
    draining: CancellationToken,
    killed: CancellationToken,
    /// Connections that are open; told when one ends.
    open: Arc<OpenConnections>,
    /// Counts it for how far the endpoint is reached.
    _listening: Listening,
}

#[derive(Debug, Default)]
struct OpenConnections {
    count: AtomicU32,
    ended: tokio::sync::Notify,
}

/// Counts one connection of a listener until dropped.
#[derive(Debug)]
pub(super) struct Open(Arc<OpenConnections>);

impl Open {
    fn new(open: &Arc<OpenConnections>) -> Self {
        open.count.fetch_add(1, Ordering::AcqRel);
        Self(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

impl ProxyService {
    /// Binds and begins to accept. Port 0 takes a free one; the status tells which. Checks of mode and bind
    /// address (SPEC §6) are the caller's (`operations`).
    ///
    /// With `encryption` the plain port shows the way to the TLS port, which is held and stays closed until
    /// [`ProxyService::open_tls`].
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn start(
        mut config: ListenerConfig,
        encryption: Option<Encryption>,
        shared: Arc<ProxyShared>,
        workers: &Workers,
        tasks: &Tasks,
    ) -> Result<Self, ListenError> {
        let listener = listen(bind(config.bind, config.port)?, config.bind, config.port)?;
        config.port = port_of(&config, listener.local_addr())?;
        let mut names = Vec::new();
        let (door, encrypted) = match encryption {
            None => (Door::Clear, None),
            Some(Encryption { resolver, challenges, names: known }) => {
                names = known;
                let socket = bind(config.bind, config.https_port.unwrap_or(0))?;
                let https_port = port_of(&config, socket.local_addr())?;
                config.https_port = Some(https_port);
                shared.served.add(https_port, &resolver);
                let encrypted =
                    Encrypted { resolver, held: Mutex::new(Some(socket)), status: Mutex::new(TlsStatus::default()) };
                (Door::Signpost { https_port, challenges }, Some(encrypted))
            }
        };
        let service = Self {
            addresses: match (&encrypted, config.https_port) {
                (Some(_), Some(port)) => usable_addresses("https", SocketAddr::new(config.bind, port), &names),
                _ => usable_addresses("http", SocketAddr::new(config.bind, config.port), &names),
            },
            encrypted,
            started: shared.clock.wall(),
            tasks: tasks.child(),
            draining: CancellationToken::new(),
            killed: CancellationToken::new(),
            open: Arc::default(),
            _listening: shared.guard.exposure().listening(config.bind),
            shared,
            workers: workers.clone(),
            config,
        };
        service.accept(listener, door);
        Ok(service)
    }

    /// Serves this certificate from the next handshake on and opens the TLS port when it is still closed.
    ///
    /// # Errors
    /// When another program took the port since it was held.
    pub fn open_tls(&self, certificate: crate::tls::certificate::Certificate) -> Result<(), ListenError> {
        let Some(encrypted) = &self.encrypted else { return Ok(()) };
        encrypted.resolver.serve(certificate);
        let held = encrypted.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = held {
            let listener = listen(socket, self.config.bind, self.config.https_port.unwrap_or(0))?;
            let hsts = hsts_of(&self.config);
            self.accept(listener, Door::Encrypted { resolver: encrypted.resolver.clone(), hsts });
        }
        Ok(())
    }

    /// Tells how the certificate fares; answers whether that is new.
    pub fn tell_tls(&self, status: TlsStatus) -> bool {
        let Some(encrypted) = &self.encrypted else { return false };
        let mut told = encrypted.status.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *told != status;
        *told = status;
        news
    }

    /// Tells what is being done to obtain a certificate.
    pub fn tell_progress(&self, step: &str) {
        if let Some(encrypted) = &self.encrypted {
            encrypted.status.lock().unwrap_or_else(PoisonError::into_inner).progress = Some(step.to_owned());
        }
    }

    /// Waits until it is told to stop.
    pub async fn stopping(&self) {
        self.draining.cancelled().await;
    }

    fn accept(&self, listener: TcpListener, door: Door) {
        let acceptor = Acceptor {
            listener,
            shared: self.shared.clone(),
            workers: self.workers.clone(),
            door: Arc::new(door),
            draining: self.draining.clone(),
            killed: self.killed.clone(),
            open: self.open.clone(),
        };
        tracing::info!(local = ?acceptor.listener.local_addr().ok(), "listening");
        self.tasks.spawn("acceptor", acceptor.run());
    }

    /// What status shows.
    #[must_use]
    pub fn status(&self) -> ListenerStatus {
        let phase = if self.draining.is_cancelled() {
            ListenerPhase::Draining { connections: self.open.count.load(Ordering::Acquire) }
        } else if self.encrypted.as_ref().is_some_and(|encrypted| encrypted.resolver.certificate().is_none()) {
            ListenerPhase::Obtaining
        } else {
            ListenerPhase::Running
        };
        ListenerStatus {
            config: self.config.clone(),
            phase,
            addresses: self.addresses.clone(),
            started: Some(self.started),
            tls: self
                .encrypted
                .as_ref()
                .map(|encrypted| encrypted.status.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        }
    }

    /// Refuses new connections at once, lets running requests end, and cuts what is left after `patience`.
    pub async fn stop(&self, patience: Duration) {
        self.draining.cancel();
        // The acceptor closes the port as it ends.
        self.tasks.shutdown(Duration::from_secs(1)).await;
        let drained = async {
            loop {
                let ended = self.open.ended.notified();
                tokio::pin!(ended);
                // Registered before looking, so that an end in between is not missed.
                ended.as_mut().enable();
                if self.open.count.load(Ordering::Acquire) == 0 {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(patience, drained).await.is_err() {
            tracing::warn!(
                connections = self.open.count.load(Ordering::Acquire),
                "cutting connections that did not end"
            );
        }
        self.killed.cancel();
    }
}

impl Drop for ProxyService {
    fn drop(&mut self) {
        self.draining.cancel();
        self.killed.cancel();
        self.tasks.ending().cancel();
    }
}

struct Acceptor {
    listener: TcpListener,
    shared: Arc<ProxyShared>,
    workers: Workers,
    door: Arc<Door>,
    draining: CancellationToken,
    killed: CancellationToken,
    open: Arc<OpenConnections>,
}

impl Acceptor {
    async fn run(self) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.draining.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Hands a connection to a worker, or drops it: a refused connection costs as little as can be.
    fn admit(&self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let limits = self.shared.limits.load();
        let peer_address = canonical(peer.ip());
        let trusted = self.shared.guard.trusted(peer_address);
        let exempt = trusted || limits.trusted_proxies.trusts(peer.ip());
        let now = self.shared.clock.wall();
        let verdict = self.shared.guard.address(peer_address, Standing::Ordinary, now);
        // Enough to be told so; the places are for others.
        let most = match verdict {
            AddressVerdict::Allowed => limits.connections_per_address,
            AddressVerdict::Blocked(_) | AddressVerdict::NotAllowed => REFUSED_CONNECTIONS,
        };
        let per_address = (!exempt).then_some(most.min(limits.connections_per_address));
        let permit = match self.shared.connections.admit(peer.ip(), limits.connections, per_address) {
            Ok(permit) => permit,
            Err(too_many) => {
                tracing::debug!(%peer, ?too_many, "a connection was refused");
                self.shared.metrics.connection_refused();
                if verdict == AddressVerdict::Allowed && self.shared.connections.tells(too_many, now) {
                    self.shared.audit.record(too_many.event(&limits, peer_address, now));
                }
                // As much as fits into the socket's empty buffer: this never waits (SPEC §5.8). A client that begins
                // with a handshake would not understand it.
                if !matches!(*self.door, Door::Encrypted { .. })
                    && let Err(error) = stream.try_write(OVERLOADED)
                {
                    tracing::debug!(%peer, %error, "a refused connection was not told why");
                }
                return;
            }
        };
        // Streams are written in small pieces that must not wait for one another.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
        }
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "a connection could not be handed to a worker");
                return;
            }
        };
        let incoming = Incoming {
            stream,
            peer,
            permit,
            door: self.door.clone(),
            open: Open::new(&self.open),
            draining: self.draining.clone(),
            killed: self.killed.clone(),
        };
        if !self.workers.take(incoming) {
            self.shared.metrics.connection_refused();
        }
    }
}

/// Takes a port without listening to it yet.
fn bind(address: IpAddr, port: u16) -> Result<TcpSocket, ListenError> {
    let open = || {
        let socket = match address {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for connections of the last run that linger in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(address, port))?;
        Ok(socket)
    };
    open().map_err(|error| not_listening(address, port, &error))
}

fn listen(socket: TcpSocket, address: IpAddr, port: u16) -> Result<TcpListener, ListenError> {
    socket.listen(BACKLOG).map_err(|error| not_listening(address, port, &error))
}

fn port_of(config: &ListenerConfig, local: std::io::Result<SocketAddr>) -> Result<u16, ListenError> {
    local.map(|local| local.port()).map_err(|error| not_listening(config.bind, config.port, &error))
}

fn not_listening(bind: IpAddr, port: u16, error: &std::io::Error) -> ListenError {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::PortInUse { bind, port },
        _ => ListenError::Refused { bind, port, reason: error.to_string() },
    }
}

/// SPEC §6: only with a certificate that browsers trust, and on the port that the header speaks about (RFC 6797 §8.3).
fn hsts_of(config: &ListenerConfig) -> Hsts {
    if config.mode.0 == TlsMode::HTTPS_ACME && config.https_port == Some(443) { Hsts::BySetting } else { Hsts::Never }
}

/// Base URLs that a person can use (SPEC §4.10): never an unspecified address. Names that others know come first.
fn usable_addresses(scheme: &str, local: SocketAddr, names: &[String]) -> Vec<String> {
    let port = match (scheme, local.port()) {
        ("http", 80) | ("https", 443) => String::new(),
        (_, port) => format!(":{port}"),
    };
    let url = |host: &str| format!("{scheme}://{host}{port}");
    let mut addresses: Vec<String> = names.iter().map(|name| url(name)).collect();
    addresses.extend(match local.ip() {
        ip if ip.is_loopback() => vec![url(&url_host(ip))],
        ip if ip.is_unspecified() => {
            let mut addresses = vec![url("localhost")];
            addresses.extend(lan_address(ip).map(|lan| url(&url_host(lan))));
            let name = machine_name();
            if !name.is_empty() && name != "localhost" {
                addresses.push(url(name));
            }
            addresses
        }
        ip => vec![url(&url_host(ip))],
    });
    addresses
}

/// The own address towards the world. Connecting a UDP socket chooses a route and sends nothing; the addresses
/// are for documentation (RFC 5737, RFC 3849).
fn lan_address(family: IpAddr) -> Option<IpAddr> {
    let (from, towards): (IpAddr, IpAddr) = match family {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect((towards, 9)).ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified() && !local.is_loopback()).then_some(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsts_is_for_https_acme_on_port_443_alone() {
        let of = |mode: &str, https_port| {
            hsts_of(&ListenerConfig { mode: TlsMode(mode.to_owned()), https_port, ..ListenerConfig::default() })
        };
        assert_eq!(of(TlsMode::HTTPS_ACME, Some(443)), Hsts::BySetting);
        assert_eq!(of(TlsMode::HTTPS_ACME, Some(8443)), Hsts::Never, "the header speaks about 443 alone");
        // Their certificates are not trusted by every browser: with the header nobody could get past a warning.
        for mode in [TlsMode::PACKAGED_CA, TlsMode::DEV_SELFSIGNED, TlsMode::CERTIFICATE_FILES] {
            assert_eq!(of(mode, Some(443)), Hsts::Never, "{mode}");
        }
        assert_eq!(of(TlsMode::LOCAL_HTTP, None), Hsts::Never);
    }

    #[test]
    fn the_word_to_a_refused_connection_is_a_whole_answer() {
        let text = std::str::from_utf8(OVERLOADED).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len()))
                || head.ends_with(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
        let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(document["error"]["code"], "overloaded");
    }

    #[test]
    fn addresses_are_ones_that_a_person_can_use() {
        let of = |text: &str| usable_addresses("http", text.parse().expect("address"), &[]);
        assert_eq!(of("127.0.0.1:8484"), ["http://127.0.0.1:8484"]);
        assert_eq!(of("[::1]:8484"), ["http://[::1]:8484"]);
        let encrypted = |text: &str| usable_addresses("https", text.parse().expect("address"), &[]);
        assert_eq!(encrypted("127.0.0.1:443"), ["https://127.0.0.1"]);
        assert_eq!(encrypted("[::1]:8485"), ["https://[::1]:8485"]);
        let all = of("0.0.0.0:8484");
        assert_eq!(all[0], "http://localhost:8484");
        assert!(all.iter().all(|address| !address.contains("0.0.0.0")), "{all:?}");
    }
}
