//! Sends a short document to an address of the operator's choice: alerts.
//!
//! Called by `audit::alerts`. Takes the way that the egress setting says, never follows a redirect, and reads no more of
//! the answer than a line to tell people. Without the operator's leave it dials no address that is not public, whatever
//! a name resolves to: it connects to the very address that was checked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use tokio::net::TcpStream;

use super::connect::Stream;
use super::egress::{DialError, Egress, Reach};
use super::exchange;
use super::message::MessageFault;
use super::web_address::WebAddress;
use crate::types::address::is_public;

/// Of an answer's body, for people.
const TOLD: usize = 300;

/// Addresses of one name that are tried.
const MAX_TRIED: usize = 3;

/// Which hosts may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// Those of the public internet.
    Public,
    /// Any; private ones straight.
    Any,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Status.
    pub status: StatusCode,
    /// How long the receiver wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of the body; outside text.
    pub body: String,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The operator did not allow private hosts for this.
    #[error("{host} is {address}, which is not an address of the public internet")]
    NotPublic {
        /// The host as it was written.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// No connection.
    #[error("no connection to {host}: {source}")]
    Dial {
        /// The host as it was written.
        host: String,
        /// Why.
        source: DialError,
    },
    /// The connection broke.
    #[error("{host} broke the connection: {reason}")]
    Broken {
        /// The host as it was written.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// Not in time.
    #[error("{host} did not answer within {} s", .limit.as_secs())]
    Timeout {
        /// The host as it was written.
        host: String,
        /// The limit.
        limit: Duration,
    },
}

/// Sends a body with headers; the whole exchange may take `limit`, and longer only by what an egress proxy takes.
///
/// # Errors
/// See [`PostError`]; any status is an answer. Dropping the future closes the connection.
pub async fn post(
    egress: &Egress,
    address: &WebAddress,
    hosts: Hosts,
    headers: HeaderMap,
    body: Bytes,
    limit: Duration,
) -> Result<Posted, PostError> {
    let reach = reach(hosts, address);
    let limit = limit + egress.allowance(&address.host, reach);
    let exchange = async {
        let tcp = dial(egress, address, hosts, reach).await?;
        let dial_failed = |source| PostError::Dial { host: address.host.clone(), source };
        let stream = address.secure(tcp).await.map_err(|error| dial_failed(DialError::Tls(error)))?;
        send(stream, address, headers, body).await
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(posted) => posted,
        Err(_elapsed) => Err(PostError::Timeout { host: address.host.clone(), limit }),
    }
}

/// A private address that is allowed is in the operator's own network, where no proxy leads.
fn reach(hosts: Hosts, address: &WebAddress) -> Reach {
    match address.host.parse::<IpAddr>() {
        Ok(ip) if hosts == Hosts::Any && !is_public(ip) => Reach::Direct,
        _ => Reach::ByMode,
    }
}

async fn dial(egress: &Egress, address: &WebAddress, hosts: Hosts, reach: Reach) -> Result<TcpStream, PostError> {
    let (host, port) = (&address.host, address.port);
    let failed = |source| PostError::Dial { host: host.clone(), source };
    let not_public = |address| PostError::NotPublic { host: host.clone(), address };
    if hosts == Hosts::Any {
        return egress.open(host, port, reach).await.map_err(failed);
    }
    let found = match host.parse::<IpAddr>() {
        Ok(ip) => Some(vec![SocketAddr::new(ip, port)]),
        Err(_name) => egress.look_up(host, port).await.map_err(failed)?,
    };
    // A proxy resolves the name, on its own side of the network.
    let Some(addresses) = found else { return egress.open(host, port, reach).await.map_err(failed) };
    // One private address among several is enough to doubt the name.
    if let Some(private) = addresses.iter().find(|address| !is_public(address.ip())) {
        return Err(not_public(private.ip()));
    }
    let mut last = DialError::NoAddress;
    for address in addresses.iter().take(MAX_TRIED) {
        match egress.open(&address.ip().to_string(), port, reach).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

async fn send(stream: Stream, address: &WebAddress, headers: HeaderMap, body: Bytes) -> Result<Posted, PostError> {
    let broken = |fault: MessageFault| PostError::Broken { host: address.host.clone(), reason: fault.to_string() };
    let fields = headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    let exchanged = exchange::exchange(stream, address, Method::POST, fields, body).await;
    let (head, mut connection) = exchanged.map_err(broken)?;
    let mut read = BytesMut::new();
    // The status is what matters: an answer that breaks off is still one.
    while read.len() < TOLD
        && let Some(Ok(data)) = std::future::poll_fn(|cx| connection.poll_body(cx)).await
    {
        read.extend_from_slice(&data);
    }
    read.truncate(TOLD);
    let retry_after = head.fields.get(&RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Ok(Posted {
        status: head.status,
        retry_after: retry_after.map(Duration::from_secs),
        body: String::from_utf8_lossy(&read).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::telemetry::tasks::Tasks;

    async fn receiver(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>, Tasks) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let place = listener.local_addr().expect("an address");
        let (heads, seen) = tokio::sync::mpsc::channel(8);
        let tasks = Tasks::new();
        tasks.spawn_until_end("receiver", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut read = vec![0; 4096];
                let count = stream.read(&mut read).await.expect("reads");
                heads.send(String::from_utf8_lossy(&read[..count]).into_owned()).await.expect("somebody looks");
                stream.write_all(answer.as_bytes()).await.expect("answers");
            }
        });
        (place, seen, tasks)
    }

    async fn posted(url: &str, hosts: Hosts, limit: Duration) -> Result<Posted, PostError> {
        let address = WebAddress::parse(url).expect("an address");
        post(&Egress::direct(), &address, hosts, HeaderMap::new(), Bytes::from_static(b"{}"), limit).await
    }

    #[tokio::test]
    async fn a_document_arrives_and_the_answer_is_told() {
        let answer = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 4\r\n\r\nslow";
        let (place, mut seen, _tasks) = receiver(answer).await;
        let posted =
            posted(&format!("http://{place}/hook?x=1"), Hosts::Any, Duration::from_secs(5)).await.expect("answers");
        assert_eq!((posted.status.as_u16(), posted.retry_after), (429, Some(Duration::from_secs(7))));
        assert_eq!(posted.body, "slow");
        let head = seen.recv().await.expect("a request");
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n") && head.ends_with("{}"), "{head}");
    }

    #[tokio::test]
    async fn without_leave_no_private_address_is_dialled_however_it_is_named() {
        let (place, mut seen, _tasks) = receiver("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            let url = format!("http://{host}:{}/", place.port());
            let refused = posted(&url, Hosts::Public, Duration::from_secs(5)).await.expect_err("refused");
            assert!(matches!(refused, PostError::NotPublic { .. }), "{host}: {refused}");
        }
        assert!(seen.try_recv().is_err(), "nothing came");
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed_and_silence_ends() {
        let (place, mut seen, _tasks) =
            receiver("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").await;
        let url = format!("http://{place}/");
        assert_eq!(posted(&url, Hosts::Any, Duration::from_secs(5)).await.expect("answers").status, StatusCode::FOUND);
        seen.recv().await.expect("the first");
        let (place, _seen, _tasks) = receiver("").await;
        let silent = posted(&format!("http://{place}/"), Hosts::Any, Duration::from_millis(200)).await;
        assert!(matches!(silent, Err(PostError::Timeout { .. } | PostError::Broken { .. })), "{silent:?}");
    }
}
