//! [`Egress`]: the one decision of which way a connection takes, and the only place that opens one (SPEC §7).
//!
//! | destination | direct | tor, socks5 |
//! |---|---|---|
//! | this machine (loopback, `localhost`) | straight | straight |
//! | registered with `--direct` | straight | straight, when its address is private; else it fails |
//! | everything else | straight | through the proxy, which also resolves the name |
//!
//! Used by [`super::pool`] and [`super::connect`], and by whoever needs a bare stream (ACME, media, alerts); the owner of
//! a home proves the proxy at its start and watches it. Must never look a name up that the proxy is to resolve, nor go
//! straight because the proxy failed unless the operator asked for that ([`OnOutage::GoDirect`]).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::socks5::{self, Credentials, SocksFault, Step};
use crate::types::address::{canonical, is_private};
use crate::types::clock::Clock;
use crate::types::egress::{EgressMode, EgressState, EgressStatus, OnOutage};
use crate::types::text::escape;

/// Connection and negotiation with the proxy (SPEC §7).
pub const NEGOTIATION_LIMIT: Duration = Duration::from_secs(2);
/// How often a negotiation is tried before the proxy counts as unreachable (SPEC §7).
pub const NEGOTIATION_TRIES: u32 = 3;
/// Between two tries (SPEC §7).
pub const NEGOTIATION_PAUSE: Duration = Duration::from_secs(1);
/// How long the proxy may take to connect to a destination (SPEC §7: readiness).
pub const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// What opening a connection through the proxy may take: all tries with their pauses, then CONNECT.
const ALLOWANCE: Duration = Duration::from_secs(3 * 2 + 2 + 20);
/// Things that happened and that nobody took yet; more are dropped, the oldest first.
const EVENTS: usize = 32;

/// How a destination may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reach {
    /// As the egress mode says.
    #[default]
    ByMode,
    /// Straight, also with a proxy: an engine in the operator's own network, registered with `--direct`.
    Direct,
}

/// A SOCKS5 proxy as the operator configured it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Tor, or another one. [`EgressMode::Direct`] is no proxy.
    pub mode: EgressMode,
    /// Its host name or address, IPv6 without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password.
    pub credentials: Option<Credentials>,
    /// What becomes of connections while it cannot be reached.
    pub on_outage: OnOutage,
}

impl ProxyConfig {
    fn endpoint(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", escape(&self.host), self.port),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The system refused, or the name was not found.
    #[error("{0}")]
    Direct(io::Error),
    /// The proxy failed, or did not connect.
    #[error("the SOCKS5 proxy at {endpoint}: {fault}")]
    Proxy {
        /// `host:port` of the proxy.
        endpoint: String,
        /// What it did.
        #[source]
        fault: SocksFault,
    },
    /// `--direct` is for the operator's own network.
    #[error("it is registered with --direct, but {address} is no private address")]
    NotPrivate {
        /// What the name was resolved to, or was.
        address: IpAddr,
    },
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// TLS could not be agreed on.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

impl DialError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Proxy { fault, .. } => fault.hint(),
            Self::NotPrivate { .. } => "register the engine again without --direct, so that it is reached by the proxy",
            Self::Direct(_) | Self::NoAddress => "check that it runs and that its address is spelled right",
            Self::Tls(_) => "check that the port speaks TLS and that its certificate is trusted on this machine",
        }
    }
}

/// Something about the proxy that the operator should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressEvent {
    /// It cannot be reached any more: connections fail.
    Unreachable(String),
    /// It cannot be reached: connections go straight.
    FellBack(String),
    /// It can be reached again.
    Recovered,
}

/// The way out. Cloned freely; all clones share what is known about the proxy.
#[derive(Debug, Clone)]
pub struct Egress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    proxy: Option<ProxyConfig>,
    clock: Clock,
    /// Held for a look or a note only, once per new connection through the proxy.
    health: Mutex<Health>,
    /// Rung when the status changed.
    changed: Notify,
    /// Names that were looked up here.
    look_ups: AtomicU64,
}

#[derive(Debug, Default)]
struct Health {
    status: EgressStatus,
    events: Vec<EgressEvent>,
}

/// Which way a connection takes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way<'a> {
    /// Straight, the system resolves.
    Straight,
    /// To this machine, without asking anybody for an address.
    Loopback(Vec<IpAddr>),
    /// Straight, if the address is private.
    Private,
    /// Through the proxy.
    Proxy(&'a ProxyConfig),
}

impl Egress {
    /// Everything straight.
    #[must_use]
    pub fn direct() -> Self {
        Self::of(None, Clock::system())
    }

    /// Through a proxy.
    #[must_use]
    pub fn through(proxy: ProxyConfig, clock: Clock) -> Self {
        Self::of(Some(proxy), clock)
    }

    fn of(proxy: Option<ProxyConfig>, clock: Clock) -> Self {
        let status = proxy.as_ref().map_or_else(EgressStatus::default, |proxy| EgressStatus {
            mode: proxy.mode,
            endpoint: Some(proxy.endpoint()),
            on_outage: proxy.on_outage,
            state: EgressState::Untried,
            ..EgressStatus::default()
        });
        let health = Mutex::new(Health { status, events: Vec::new() });
        Self { shared: Arc::new(Shared { proxy, clock, health, changed: Notify::new(), look_ups: AtomicU64::new(0) }) }
    }

    /// How the world is reached now.
    #[must_use]
    pub fn status(&self) -> EgressStatus {
        self.health().status.clone()
    }

    /// Whether there is no proxy.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared.proxy.is_none()
    }

    /// Rings when the status changed or something happened.
    #[must_use]
    pub fn changed(&self) -> &Notify {
        &self.shared.changed
    }

    /// Takes what happened since the last call, in order.
    #[must_use]
    pub fn take_events(&self) -> Vec<EgressEvent> {
        std::mem::take(&mut self.health().events)
    }

    /// How many names were looked up on this machine.
    #[must_use]
    pub fn look_ups(&self) -> u64 {
        self.shared.look_ups.load(Ordering::Relaxed)
    }

    /// How much longer than a straight connection one to this host may take.
    #[must_use]
    pub fn allowance(&self, host: &str, reach: Reach) -> Duration {
        if matches!(self.way(host, reach), Way::Proxy(_)) { ALLOWANCE } else { Duration::ZERO }
    }

    /// The addresses of a host that is reached straight; `None` when the proxy is to resolve it.
    ///
    /// # Errors
    /// When the system finds none.
    pub async fn look_up(&self, host: &str, port: u16) -> Result<Option<Vec<SocketAddr>>, DialError> {
        match self.way(host, Reach::ByMode) {
            Way::Proxy(_) => Ok(None),
            Way::Loopback(addresses) => Ok(Some(addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect())),
            Way::Straight | Way::Private => self.resolve(host, port).await.map(Some),
        }
    }

    /// Opens a connection. Straight ones have no deadline here; the proxy's steps have those of SPEC §7.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn open(&self, host: &str, port: u16, reach: Reach) -> Result<TcpStream, DialError> {
        let stream = match self.way(host, reach) {
            Way::Straight => self.straight(host, port).await?,
            Way::Loopback(addresses) => dial_any(addresses.into_iter().map(|ip| SocketAddr::new(ip, port))).await?,
            Way::Private => {
                let addresses = self.resolve(host, port).await?;
                if let Some(other) = addresses.iter().find(|address| !is_private(address.ip())) {
                    return Err(DialError::NotPrivate { address: other.ip() });
                }
                dial_any(addresses).await?
            }
            Way::Proxy(proxy) => self.by_proxy(proxy, proxy.on_outage, host, port).await?,
        };
        // Heads and bodies are written whole: waiting for more would only delay them.
        stream.set_nodelay(true).map_err(DialError::Direct)?;
        Ok(stream)
    }

    /// Opens a connection through the proxy, which resolves the name, or none: never straight, also not in an outage with
    /// [`OnOutage::GoDirect`]. For names that a client chose, whose addresses nobody here may check.
    ///
    /// # Errors
    /// See [`DialError`]; `NoAddress` when there is no proxy.
    pub async fn open_by_name(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        let Some(proxy) = &self.shared.proxy else { return Err(DialError::NoAddress) };
        let stream = self.by_proxy(proxy, OnOutage::Refuse, host, port).await?;
        stream.set_nodelay(true).map_err(DialError::Direct)?;
        Ok(stream)
    }

    /// Tries to reach the proxy as often as SPEC §7 says; fine when there is none. With [`OnOutage::GoDirect`] a
    /// failure is noted and not returned.
    ///
    /// # Errors
    /// When the proxy cannot be reached.
    pub async fn prove(&self) -> Result<(), DialError> {
        let Some(proxy) = &self.shared.proxy else { return Ok(()) };
        match self.negotiated(proxy, NEGOTIATION_TRIES).await {
            Err(fault) if proxy.on_outage == OnOutage::Refuse => {
                Err(DialError::Proxy { endpoint: proxy.endpoint(), fault })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Looks once whether the proxy can be reached, so that outage and recovery are seen without traffic.
    pub async fn probe(&self) {
        if let Some(proxy) = &self.shared.proxy {
            let tries = if self.is_out() { 1 } else { NEGOTIATION_TRIES };
            // What came of it is in the status.
            let _noted = self.negotiated(proxy, tries).await;
        }
    }

    fn way(&self, host: &str, reach: Reach) -> Way<'_> {
        let Some(proxy) = &self.shared.proxy else { return Way::Straight };
        if host.eq_ignore_ascii_case("localhost") {
            return Way::Loopback(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        match host.parse::<IpAddr>().map(canonical) {
            // The unspecified address connects to this machine (ip(7)).
            Ok(address) if address.is_loopback() || address.is_unspecified() => Way::Loopback(vec![address]),
            _ => match reach {
                Reach::Direct => Way::Private,
                Reach::ByMode => Way::Proxy(proxy),
            },
        }
    }

    async fn straight(&self, host: &str, port: u16) -> Result<TcpStream, DialError> {
        dial_any(self.resolve(host, port).await?).await
    }

    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        self.shared.look_ups.fetch_add(1, Ordering::Relaxed);
        Ok(tokio::net::lookup_host((host, port)).await.map_err(DialError::Direct)?.collect())
    }

    async fn by_proxy(
        &self,
        proxy: &ProxyConfig,
        on_outage: OnOutage,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, DialError> {
        let failed = |fault| DialError::Proxy { endpoint: proxy.endpoint(), fault };
        let goes_direct = on_outage == OnOutage::GoDirect;
        if goes_direct && self.is_out() {
            // The watch finds out when it is back.
            return self.straight(host, port).await;
        }
        // A known outage has been tried often enough.
        let tries = if self.is_out() { 1 } else { NEGOTIATION_TRIES };
        let mut stream = match self.negotiated(proxy, tries).await {
            Ok(stream) => stream,
            Err(_noted) if goes_direct => return self.straight(host, port).await,
            Err(fault) => return Err(failed(fault)),
        };
        let connected = timeout_at(Instant::now() + CONNECT_LIMIT, socks5::connect(&mut stream, host, port)).await;
        match connected.unwrap_or(Err(SocksFault::Silent(Step::Reply))) {
            Ok(()) => {
                self.note_ready();
                Ok(stream)
            }
            Err(fault) => {
                self.note_error(&fault.to_string());
                Err(failed(fault))
            }
        }
    }

    /// A connection to the proxy that has been negotiated, and what it tells about the proxy noted.
    async fn negotiated(&self, proxy: &ProxyConfig, tries: u32) -> Result<TcpStream, SocksFault> {
        let mut left = tries;
        loop {
            left = left.saturating_sub(1);
            match negotiate_once(proxy).await {
                Ok(stream) => {
                    self.note_negotiated();
                    return Ok(stream);
                }
                Err(fault) if left == 0 => {
                    self.note_outage(proxy, &fault.to_string());
                    return Err(fault);
                }
                Err(_again) => sleep(NEGOTIATION_PAUSE).await,
            }
        }
    }

    fn is_out(&self) -> bool {
        matches!(self.health().status.state, EgressState::Unreachable | EgressState::FallenBack)
    }

    fn note_negotiated(&self) {
        let now = self.shared.clock.wall();
        self.note(|health| {
            let was = std::mem::replace(&mut health.status.state, EgressState::Reached);
            health.status.negotiated = Some(now);
            if matches!(was, EgressState::Unreachable | EgressState::FallenBack) {
                health.status.last_error = None;
                health.push(EgressEvent::Recovered);
            }
        });
    }

    fn note_ready(&self) {
        let now = self.shared.clock.wall();
        self.note(|health| {
            health.status.ready.get_or_insert(now);
            health.status.last_error = None;
        });
    }

    fn note_error(&self, error: &str) {
        self.note(|health| health.status.last_error = Some(error.to_owned()));
    }

    fn note_outage(&self, proxy: &ProxyConfig, error: &str) {
        let (state, event) = match proxy.on_outage {
            OnOutage::Refuse => (EgressState::Unreachable, EgressEvent::Unreachable(error.to_owned())),
            OnOutage::GoDirect => (EgressState::FallenBack, EgressEvent::FellBack(error.to_owned())),
        };
        self.note(|health| {
            health.status.last_error = Some(error.to_owned());
            // Each outage is told once. The proxy has to become ready anew after it.
            if std::mem::replace(&mut health.status.state, state) != state {
                health.status.ready = None;
                health.push(event);
            }
        });
    }

    /// Changes what is known, and rings when a person would see a difference.
    fn note(&self, change: impl FnOnce(&mut Health)) {
        let mut health = self.health();
        let before = EgressStatus { negotiated: None, ..health.status.clone() };
        change(&mut health);
        let differs = before != EgressStatus { negotiated: None, ..health.status.clone() };
        drop(health);
        if differs {
            self.shared.changed.notify_one();
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn push(&mut self, event: EgressEvent) {
        if self.events.len() == EVENTS {
            self.events.remove(0);
        }
        self.events.push(event);
    }
}

async fn negotiate_once(proxy: &ProxyConfig) -> Result<TcpStream, SocksFault> {
    let deadline = Instant::now() + NEGOTIATION_LIMIT;
    let dialed = timeout_at(deadline, TcpStream::connect((proxy.host.as_str(), proxy.port))).await;
    let mut stream = dialed.map_err(|_| SocksFault::Silent(Step::Dial))?.map_err(SocksFault::Unreachable)?;
    let negotiated = timeout_at(deadline, socks5::negotiate(&mut stream, proxy.credentials.as_ref())).await;
    negotiated.map_err(|_| SocksFault::Silent(Step::Method))??;
    Ok(stream)
}

/// Tries the addresses one after the other.
async fn dial_any(addresses: impl IntoIterator<Item = SocketAddr>) -> Result<TcpStream, DialError> {
    let mut last = DialError::NoAddress;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = DialError::Direct(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through() -> Egress {
        let proxy = ProxyConfig {
            mode: EgressMode::Socks5,
            host: "127.0.0.1".to_owned(),
            port: 1,
            credentials: None,
            on_outage: OnOutage::Refuse,
        };
        Egress::through(proxy, Clock::system())
    }

    #[test]
    fn this_machine_is_reached_straight_and_private_engines_only_when_they_are_said_to_be() {
        let egress = through();
        for host in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost", "0.0.0.0"] {
            assert!(matches!(egress.way(host, Reach::ByMode), Way::Loopback(_)), "{host}");
        }
        for host in ["192.168.1.5", "10.0.0.1", "8.8.8.8", "gpu.lan", "localhost.evil.test", "2130706433", "fe80::1"] {
            assert!(matches!(egress.way(host, Reach::ByMode), Way::Proxy(_)), "{host}");
            assert_eq!(egress.way(host, Reach::Direct), Way::Private, "{host}");
        }
        assert_eq!(Egress::direct().way("8.8.8.8", Reach::ByMode), Way::Straight);
        assert_eq!(egress.allowance("8.8.8.8", Reach::ByMode), ALLOWANCE);
        assert_eq!(egress.allowance("127.0.0.1", Reach::ByMode), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_direct_engine_with_a_public_address_is_not_connected_to() {
        let error = through().open("203.0.113.9", 80, Reach::Direct).await.expect_err("public");
        assert!(matches!(error, DialError::NotPrivate { .. }), "{error}");
        assert!(error.hint().contains("without --direct"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_proxy_is_tried_three_times_a_second_apart_and_told_once() {
        let egress = through();
        let begin = Instant::now();
        let error = egress.prove().await.expect_err("nothing listens there");
        assert!(begin.elapsed() >= NEGOTIATION_PAUSE * 2, "{:?}", begin.elapsed());
        assert!(error.hint().contains("start the proxy"), "{}", error.hint());
        let begin = Instant::now();
        egress.open("models.test", 80, Reach::ByMode).await.expect_err("still nothing");
        assert!(begin.elapsed() < NEGOTIATION_PAUSE, "a known outage is not waited for");
        assert!(matches!(egress.take_events().as_slice(), [EgressEvent::Unreachable(_)]));
        assert_eq!(egress.status().state, EgressState::Unreachable);
        assert_eq!(egress.look_ups(), 0);
    }
}
