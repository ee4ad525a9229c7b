//! [`ProxyService`]: one listener, started and stopped on its own (SPEC §4.8).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connection::Incoming;
use super::sanity::machine_name;
use super::shared::ProxyShared;
use super::worker::Workers;
use crate::guard::exposure::Listening;
use crate::telemetry::tasks::Tasks;
use crate::types::address::url_host;
use crate::types::clock::UnixMillis;
use crate::types::listener::{ListenerConfig, ListenerPhase, ListenerStatus};

/// Connections that the system may hold before they are accepted.
const BACKLOG: u32 = 1024;
/// A pause after accepting failed for lack of file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

/// A running listener. Dropping it stops it without patience.
pub struct ProxyService {
    config: ListenerConfig,
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
    /// # Errors
    /// See [`ListenError`].
    pub fn start(
        mut config: ListenerConfig,
        shared: Arc<ProxyShared>,
        workers: &Workers,
        tasks: &Tasks,
    ) -> Result<Self, ListenError> {
        let listener = bind(&config)?;
        let local = listener.local_addr().map_err(|error| refused(&config, &error))?;
        config.port = local.port();
        let service = Self {
            addresses: usable_addresses(local),
            started: shared.clock.wall(),
            tasks: tasks.child(),
            draining: CancellationToken::new(),
            killed: CancellationToken::new(),
            open: Arc::default(),
            _listening: shared.guard.exposure().listening(config.bind),
            config,
        };
        let acceptor = Acceptor {
            listener,
            shared,
            workers: workers.clone(),
            draining: service.draining.clone(),
            killed: service.killed.clone(),
            open: service.open.clone(),
        };
        service.tasks.spawn("acceptor", acceptor.run());
        tracing::info!(%local, "listening");
        Ok(service)
    }

    /// What status shows.
    #[must_use]
    pub fn status(&self) -> ListenerStatus {
        let phase = if self.draining.is_cancelled() {
            ListenerPhase::Draining { connections: self.open.count.load(Ordering::Acquire) }
        } else {
            ListenerPhase::Running
        };
        ListenerStatus {
            config: self.config.clone(),
            phase,
            addresses: self.addresses.clone(),
            started: Some(self.started),
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
        let trusted = self.shared.guard.trusted(peer.ip());
        let exempt = trusted || limits.trusted_proxies.trusts(peer.ip());
        let per_address = (!exempt).then_some(limits.connections_per_address);
        let permit = match self.shared.connections.admit(peer.ip(), limits.connections, per_address) {
            Ok(permit) => permit,
            Err(too_many) => {
                tracing::debug!(%peer, ?too_many, "a connection was refused");
                self.shared.metrics.connection_refused();
                // As much as fits into the socket's empty buffer: this never waits (SPEC §5.8).
                if let Err(error) = stream.try_write(OVERLOADED) {
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
            open: Open::new(&self.open),
            draining: self.draining.clone(),
            killed: self.killed.clone(),
        };
        if !self.workers.take(incoming) {
            self.shared.metrics.connection_refused();
        }
    }
}

fn bind(config: &ListenerConfig) -> Result<TcpListener, ListenError> {
    let address = SocketAddr::new(config.bind, config.port);
    let open = || {
        let socket = match config.bind {
            IpAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            IpAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        // A restart must not wait for connections of the last run that linger in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::PortInUse { bind: config.bind, port: config.port },
        _ => refused(config, &error),
    })
}

fn refused(config: &ListenerConfig, error: &std::io::Error) -> ListenError {
    ListenError::Refused { bind: config.bind, port: config.port, reason: error.to_string() }
}

/// Base URLs that a person can use (SPEC §4.10): never an unspecified address.
fn usable_addresses(local: SocketAddr) -> Vec<String> {
    let port = local.port();
    let url = |host: &str| format!("http://{host}:{port}");
    match local.ip() {
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
    }
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
        let of = |text: &str| usable_addresses(text.parse().expect("address"));
        assert_eq!(of("127.0.0.1:8484"), ["http://127.0.0.1:8484"]);
        assert_eq!(of("[::1]:8484"), ["http://[::1]:8484"]);
        let all = of("0.0.0.0:8484");
        assert_eq!(all[0], "http://localhost:8484");
        assert!(all.iter().all(|address| !address.contains("0.0.0.0")), "{all:?}");
    }
}
