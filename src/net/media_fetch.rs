//! Fetches an image that a request only names, so that no engine ever dials an address of a client's choice (SPEC §4.6).
//!
//! Called by `proxy` when the setting `media.fetch_remote` is on. Must never connect to an address that it has not checked, follow a
//! redirect, send anything of the client's, or read more than it was told to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_ENCODING};
use http::{HeaderValue, Method, StatusCode};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::Stream;
use super::egress::{Egress, Reach};
use super::exchange::exchange;
use super::message::MessageFault;
use super::web_address::{AddressFault, WebAddress};
use crate::types::address::{canonical, is_public};
use crate::types::egress::EgressMode;

/// Addresses of one name that are tried.
const MAX_TRIED: usize = 3;

/// A boxed future.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is known of a name before anything is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its addresses, to be checked.
    Addresses(Vec<SocketAddr>),
    /// Tor looks it up where it leaves the network: no address of this side can come of it (tor(1),
    /// `ClientRejectInternalAddresses`; exits refuse private ones by `ExitPolicyRejectPrivate`).
    ByTor,
    /// A SOCKS5 proxy would look it up, in a network that nobody here can check.
    Unchecked,
}

/// How hosts are looked up and reached. The one seam between fetching and the way out. Tests put a network of their own here.
pub trait Network: Send + Sync {
    /// What is known of a name, asked for once per image.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Found>>;

    /// Connects to exactly this address.
    fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>>;

    /// Connects to a name of which nothing but [`Found::ByTor`] is known.
    fn connect_by_name<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<TcpStream>>;
}

/// The way out that the operator chose (SPEC §7).
#[derive(Debug, Clone)]
struct ChosenWay(Egress);

impl Network for ChosenWay {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Found>> {
        Box::pin(async move {
            Ok(match self.0.look_up(host, port).await.map_err(io::Error::other)? {
                Some(addresses) => Found::Addresses(addresses),
                None if self.0.status().mode == EgressMode::Tor => Found::ByTor,
                None => Found::Unchecked,
            })
        })
    }

    fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let host = address.ip().to_string();
            let stream = self.0.open(&host, address.port(), Reach::ByMode).await.map_err(io::Error::other)?;
            // A public address of this very machine leads to services that trust what comes from it.
            if stream.local_addr()?.ip() == address.ip() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the address is this machine's own"));
            }
            Ok(stream)
        })
    }

    fn connect_by_name<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<TcpStream>> {
        Box::pin(async move { self.0.open_by_name(host, port).await.map_err(io::Error::other) })
    }
}

/// Fetches images.
#[derive(Clone)]
pub struct MediaFetcher {
    network: Arc<dyn Network>,
}

impl std::fmt::Debug for MediaFetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MediaFetcher")
    }
}

/// Why an image was not fetched. Says nothing about what is behind an address that may not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Not an address that FLM fetches from.
    #[error("{0}")]
    Url(&'static str),
    /// The host is, or resolves to, an address that nobody outside may reach.
    #[error("the host is not on the public internet")]
    Forbidden,
    /// Nobody on this side learns which address is connected to.
    #[error("the egress proxy would look the host up, so that its address cannot be checked: send the image inline")]
    Unchecked,
    /// The name is not known.
    #[error("the name of the host cannot be resolved")]
    Unresolved,
    /// No connection, or it broke off.
    #[error("the host cannot be reached: {0}")]
    Network(String),
    /// A redirect.
    #[error("the host redirects, which is not followed: send the final address")]
    Redirect,
    /// Another status than 200.
    #[error("the host answers with status {0}")]
    Status(u16),
    /// The answer is compressed although nobody asked for that.
    #[error("the host sends an encoding that nobody asked for")]
    Encoded,
    /// Larger than allowed.
    #[error("it is larger than {0} bytes")]
    TooLarge(usize),
    /// Not in time.
    #[error("it did not come in time")]
    Timeout,
}

impl MediaFetcher {
    /// Fetches the way that the operator chose.
    #[must_use]
    pub fn by(egress: Egress) -> Self {
        Self::new(Arc::new(ChosenWay(egress)))
    }

    /// Fetches over a network.
    #[must_use]
    pub fn new(network: Arc<dyn Network>) -> Self {
        Self { network }
    }

    /// Fetches the bytes behind an address until `deadline`. What they are is the caller's to check.
    ///
    /// # Errors
    /// See [`FetchError`]. Dropping the future closes the connection.
    pub async fn fetch(&self, url: &str, limit: usize, deadline: Instant) -> Result<Bytes, FetchError> {
        let url = WebAddress::parse(url)?;
        let fetched = tokio::time::timeout_at(deadline, async {
            let tcp = match self.checked(&url).await? {
                Some(addresses) => self.connect(&addresses).await?,
                None => self.network.connect_by_name(&url.host, url.port).await.map_err(|error| refused(&error))?,
            };
            let stream = url.secure(tcp).await.map_err(|error| FetchError::Network(error.to_string()))?;
            get(stream, &url, limit).await
        });
        fetched.await.unwrap_or(Err(FetchError::Timeout))
    }

    /// Resolves once. One forbidden address among several condemns the name: it is made to get past a check. `None` when there
    /// are no addresses on this side to check.
    async fn checked(&self, url: &WebAddress) -> Result<Option<Vec<SocketAddr>>, FetchError> {
        let found = match url.host.parse::<IpAddr>() {
            Ok(address) => Found::Addresses(vec![SocketAddr::new(address, url.port)]),
            Err(_name) => self.network.resolve(&url.host, url.port).await.map_err(|error| {
                tracing::debug!(%error, "the name of an image's host was not resolved");
                FetchError::Unresolved
            })?,
        };
        let addresses = match found {
            Found::Addresses(addresses) => addresses,
            Found::ByTor => return Ok(None),
            Found::Unchecked => return Err(FetchError::Unchecked),
        };
        if addresses.is_empty() {
            return Err(FetchError::Unresolved);
        }
        if addresses.iter().any(|address| !is_public(address.ip())) {
            return Err(FetchError::Forbidden);
        }
        Ok(Some(addresses))
    }

    /// Connects to the very addresses that were checked; no name is looked up again.
    async fn connect(&self, addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
        let mut failure = FetchError::Unresolved;
        for address in addresses.iter().take(MAX_TRIED) {
            let address = SocketAddr::new(canonical(address.ip()), address.port());
            match self.network.connect(address).await.map_err(|error| refused(&error)) {
                Err(fault) if fault != FetchError::Forbidden => failure = fault,
                decided => return decided,
            }
        }
        Err(failure)
    }
}

fn refused(error: &io::Error) -> FetchError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => FetchError::Forbidden,
        _ => FetchError::Network(error.to_string()),
    }
}

impl From<AddressFault> for FetchError {
    fn from(fault: AddressFault) -> Self {
        match fault {
            AddressFault::Text(why) => Self::Url(why),
            AddressFault::Disguised => Self::Forbidden,
        }
    }
}

async fn get(stream: Stream, url: &WebAddress, limit: usize) -> Result<Bytes, FetchError> {
    let network = |fault: MessageFault| FetchError::Network(fault.to_string());
    let wanted = (ACCEPT, HeaderValue::from_static("image/png, image/jpeg, image/webp"));
    let exchanged = exchange(stream, url, Method::GET, [wanted].into_iter(), Bytes::new()).await;
    let (head, mut connection) = exchanged.map_err(network)?;
    if head.status.is_redirection() {
        return Err(FetchError::Redirect);
    }
    if head.status != StatusCode::OK {
        return Err(FetchError::Status(head.status.as_u16()));
    }
    if head.fields.get(&CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(FetchError::Encoded);
    }
    if connection.left().is_some_and(|length| length > limit as u64) {
        return Err(FetchError::TooLarge(limit));
    }
    let mut bytes = BytesMut::new();
    while let Some(data) = std::future::poll_fn(|cx| connection.poll_body(cx)).await {
        let data = data.map_err(network)?;
        if bytes.len() + data.len() > limit {
            return Err(FetchError::TooLarge(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tasks::Tasks;
    use std::sync::Mutex;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Answers each question of a name with the next list of addresses, and leads every connection to one place.
    struct Staged {
        answers: Mutex<Vec<Vec<IpAddr>>>,
        place: Option<SocketAddr>,
        asked: Mutex<Vec<String>>,
        dialled: Mutex<Vec<SocketAddr>>,
    }

    impl Staged {
        fn new(answers: Vec<Vec<IpAddr>>, place: Option<SocketAddr>) -> Arc<Self> {
            Arc::new(Self { answers: Mutex::new(answers), place, asked: Mutex::default(), dialled: Mutex::default() })
        }
    }

    impl Network for Staged {
        fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Found>> {
            self.asked.lock().expect("a lock").push(host.to_owned());
            let mut answers = self.answers.lock().expect("a lock");
            let next = if answers.len() > 1 { answers.remove(0) } else { answers.first().cloned().unwrap_or_default() };
            let addresses = next.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            Box::pin(std::future::ready(Ok(Found::Addresses(addresses))))
        }

        fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>> {
            self.dialled.lock().expect("a lock").push(address);
            Box::pin(async move {
                match self.place {
                    Some(place) => TcpStream::connect(place).await,
                    None => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody is there")),
                }
            })
        }

        fn connect_by_name<'a>(&'a self, _host: &'a str, _port: u16) -> Boxed<'a, io::Result<TcpStream>> {
            Box::pin(std::future::ready(Err(io::Error::other("every name of this network has addresses"))))
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    async fn fetch(network: &Arc<Staged>, url: &str) -> Result<Bytes, FetchError> {
        MediaFetcher::new(network.clone()).fetch(url, 1000, Instant::now() + PATIENCE).await
    }

    /// A host that gives one answer to whoever comes.
    async fn host(answer: &'static str) -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new();
        tasks.spawn_until_end("host", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).to_ascii_lowercase();
                assert!(
                    head.starts_with("get /a.png?b=c http/1.1\r\n") && head.contains("host: images.example\r\n"),
                    "{head}"
                );
                assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
                // Whoever refuses the answer leaves before its end.
                let _left = stream.write_all(answer.as_bytes()).await;
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn no_spelling_of_a_private_address_is_ever_dialled() {
        let network = Staged::new(vec![vec![ip("127.0.0.1")]], None);
        for url in [
            "http://127.0.0.1/a.png",
            "http://127.1/a.png",
            "http://2130706433/a.png",
            "http://0177.0.0.1/a.png",
            "http://0x7f.0.0.1/a.png",
            "http://0x7f000001/a.png",
            "http://017700000001/",
            "http://0.0.0.0/",
            "http://0/",
            "http://10.0.0.1:8080/",
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.169.254./latest/meta-data/",
            "http://100.64.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[fc00::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://[64:ff9b::169.254.169.254]/",
            "https://localhost/",
            "http://localtest.me/",
            "http://printer.lan/",
        ] {
            assert_eq!(fetch(&network, url).await, Err(FetchError::Forbidden), "{url}");
        }
        for url in [
            "ftp://images.example/a.png",
            "file:///etc/passwd",
            "gopher://images.example/",
            "http://user:secret@images.example/",
            "http://images.example@127.0.0.1/",
            "http://images.example:99999/",
            "http://images.example:0/",
            "http:///a.png",
            "http://a b/",
            "//images.example/a.png",
            "http://[fe80::1%25eth0]/",
            "http://images.example\\@127.0.0.1/",
        ] {
            assert!(matches!(fetch(&network, url).await, Err(FetchError::Url(_) | FetchError::Forbidden)), "{url}");
        }
        let long = format!("http://images.example/{}", "a".repeat(5000));
        assert!(matches!(fetch(&network, &long).await, Err(FetchError::Url(_))));
        assert_eq!(*network.dialled.lock().expect("a lock"), []);
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_condemns_a_name() {
        let network = Staged::new(vec![vec![ip("93.184.216.34"), ip("127.0.0.1")]], None);
        assert_eq!(fetch(&network, "http://images.example/").await, Err(FetchError::Forbidden));
        assert_eq!(*network.dialled.lock().expect("a lock"), []);
        let nothing = Staged::new(vec![vec![]], None);
        assert_eq!(fetch(&nothing, "http://images.example/").await, Err(FetchError::Unresolved));
    }

    #[tokio::test]
    async fn a_rebinding_name_is_asked_once_and_the_checked_address_is_dialled() {
        let (place, _tasks) = host("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nimage").await;
        let network = Staged::new(vec![vec![ip("93.184.216.34")], vec![ip("127.0.0.1")]], Some(place));
        let fetched = fetch(&network, "http://images.example/a.png?b=c#fragment").await;
        assert_eq!(fetched, Ok(Bytes::from_static(b"image")));
        assert_eq!(*network.asked.lock().expect("a lock"), ["images.example"]);
        assert_eq!(*network.dialled.lock().expect("a lock"), [SocketAddr::new(ip("93.184.216.34"), 80)]);
    }

    #[tokio::test]
    async fn redirects_large_answers_and_other_oddities_end_the_fetch() {
        for (answer, error) in [
            ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", FetchError::Redirect),
            ("HTTP/1.1 307 x\r\nlocation: /b.png\r\ncontent-length: 0\r\n\r\n", FetchError::Redirect),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", FetchError::Status(404)),
            ("HTTP/1.1 204 No Content\r\n\r\n", FetchError::Status(204)),
            ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", FetchError::Encoded),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\nx", FetchError::TooLarge(1000)),
        ] {
            let (place, _tasks) = host(answer).await;
            let network = Staged::new(vec![vec![ip("93.184.216.34")]], Some(place));
            assert_eq!(fetch(&network, "http://images.example/a.png?b=c").await, Err(error), "{answer}");
        }
        let endless: &'static str = Box::leak(
            format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
                "3e8\r\n".to_owned() + &"x".repeat(1000) + "\r\n1\r\nx\r\n"
            )
            .into_boxed_str(),
        );
        let (place, _tasks) = host(endless).await;
        let network = Staged::new(vec![vec![ip("93.184.216.34")]], Some(place));
        assert_eq!(fetch(&network, "http://images.example/a.png?b=c").await, Err(FetchError::TooLarge(1000)));
        let (place, _tasks) = host("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let network = Staged::new(vec![vec![ip("93.184.216.34")]], Some(place));
        assert!(matches!(fetch(&network, "http://images.example/a.png?b=c").await, Err(FetchError::Network(_))));
        let refused = Staged::new(vec![vec![ip("93.184.216.34"), ip("1.1.1.1")]], None);
        assert!(matches!(fetch(&refused, "http://images.example/").await, Err(FetchError::Network(_))));
        assert_eq!(refused.dialled.lock().expect("a lock").len(), 2, "each checked address is tried");
    }

    #[tokio::test]
    async fn a_host_that_says_nothing_is_left_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let network = Staged::new(vec![vec![ip("93.184.216.34")]], listener.local_addr().ok());
        let deadline = Instant::now() + Duration::from_millis(50);
        let fetched = MediaFetcher::new(network).fetch("http://images.example/", 1000, deadline).await;
        assert_eq!(fetched, Err(FetchError::Timeout));
    }
}
