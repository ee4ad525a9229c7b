//! [`DnsClient`]: asks name servers and changes records, over TCP by the way that [`super::egress`] decides (SPEC §7).
//!
//! Called by `tls/acme`, to put challenges into the DNS and to see whether the world can see them. Over TCP only, which
//! every name server answers (RFC 7766 §5): datagrams would go past the egress proxy. Not a resolver for connections:
//! those are resolved by the system or the proxy.

pub mod message;
pub mod tsig;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use self::message::{Answer, Change, Data, Kind, Malformed, Name, Recursion};
use self::tsig::{Key, NotSigned};
use super::egress::{DialError, Egress, Reach};
use crate::config::files;
use crate::config::kinds::host_and_port;
use crate::types::clock::UnixMillis;

/// How long one question may take, connection included, where no proxy is in between.
const PATIENCE: Duration = Duration::from_secs(5);
/// Port of name servers.
const PORT: u16 = 53;
/// What the system resolves with.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Largest such file that makes sense, bytes.
const RESOLV_CONF_MAX: u64 = 64 << 10;
/// Codes of an answer (RFC 1035 §4.1.1).
const FINE: u8 = 0;
const NO_SUCH_NAME: u8 = 3;

/// A name server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameServer {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Port, 53 mostly.
    pub port: u16,
}

impl NameServer {
    /// Reads `host:port`; `None` when the text is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        host_and_port(text).map(|(host, port)| Self { host: host.to_owned(), port })
    }

    /// Those that this system resolves with. Blocks.
    #[must_use]
    pub fn of_system() -> Vec<Self> {
        let text = files::read_limited(Path::new(RESOLV_CONF), RESOLV_CONF_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let hosts = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
        let hosts = hosts.filter(|rest| rest.starts_with(char::is_whitespace));
        // With a zone, as link-local ones are written, no connection could be opened.
        let hosts = hosts.map(str::trim).filter(|host| host.parse::<std::net::IpAddr>().is_ok());
        hosts.map(|host| Self { host: host.to_owned(), port: PORT }).collect()
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", crate::types::text::escape(&self.host), self.port)
        }
    }
}

/// Why a name server told nothing.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// It cannot be reached.
    #[error("the name server {server} cannot be reached: {fault}")]
    Unreachable {
        /// Which.
        server: NameServer,
        /// Why.
        #[source]
        fault: DialError,
    },
    /// The connection broke.
    #[error("the name server {server} broke off: {fault}")]
    Broken {
        /// Which.
        server: NameServer,
        /// How.
        #[source]
        fault: std::io::Error,
    },
    /// It took too long.
    #[error("the name server {server} did not answer within {} s", .limit.as_secs())]
    Slow {
        /// Which.
        server: NameServer,
        /// How long it had.
        limit: Duration,
    },
    /// It answered something else.
    #[error("the name server {server}: {fault}")]
    Malformed {
        /// Which.
        server: NameServer,
        /// What it is.
        #[source]
        fault: Malformed,
    },
    /// It refused.
    #[error("the name server {server} refused with {}", code_name(*.code))]
    Refused {
        /// Which.
        server: NameServer,
        /// Code of its answer.
        code: u8,
    },
    /// Its answer does not count.
    #[error("the name server {server}: {fault}")]
    NotSigned {
        /// Which.
        server: NameServer,
        /// Why.
        #[source]
        fault: NotSigned,
    },
}

/// Names of RFC 1035 §4.1.1 and RFC 2136 §2.2.
fn code_name(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL (it has a fault of its own)".to_owned(),
        3 => "NXDOMAIN (it knows no such name)".to_owned(),
        4 => "NOTIMP (it cannot do that)".to_owned(),
        5 => "REFUSED (its configuration does not allow it)".to_owned(),
        9 => "NOTAUTH (it is not the zone's server, or does not accept the key)".to_owned(),
        10 => "NOTZONE (the name is not in that zone)".to_owned(),
        other => format!("code {other}"),
    }
}

/// Asks name servers.
#[derive(Debug, Clone)]
pub struct DnsClient {
    egress: Egress,
}

impl DnsClient {
    /// One whose connections take the way of `egress`.
    #[must_use]
    pub fn new(egress: Egress) -> Self {
        Self { egress }
    }

    /// Texts of a name, with those of the name that it stands for where the server tells; empty when there are none.
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn texts(
        &self,
        server: &NameServer,
        name: &Name,
        recursion: Recursion,
    ) -> Result<Vec<Vec<u8>>, DnsError> {
        let answer = self.ask(server, name, Kind::Txt, recursion).await?;
        let text = |record: message::Record| match record.data {
            Data::Text(text) => Some(text),
            Data::Name(_) | Data::Zone => None,
        };
        Ok(answer.answers.into_iter().filter_map(text).collect())
    }

    /// Asks for records of a kind; that there is no such name is an answer as well.
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn ask(
        &self,
        server: &NameServer,
        name: &Name,
        kind: Kind,
        recursion: Recursion,
    ) -> Result<Answer, DnsError> {
        let id = number();
        let bytes = self.exchange(server, &message::query(id, name, kind, recursion)).await?;
        let answer = self.read(server, &bytes, id)?;
        match answer.code {
            FINE | NO_SUCH_NAME => Ok(answer),
            code => Err(DnsError::Refused { server: server.clone(), code }),
        }
    }

    /// The zone that a name is in, as that server sees it, and the name itself or what it stands for; `None` when the
    /// server knows no zone above it.
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn zone(
        &self,
        server: &NameServer,
        name: &Name,
        recursion: Recursion,
    ) -> Result<Option<(Name, Name)>, DnsError> {
        let (mut asked, mut real) = (name.clone(), name.clone());
        loop {
            let answer = self.ask(server, &asked, Kind::Soa, recursion).await?;
            if asked == real {
                for record in &answer.answers {
                    if let (Kind::Cname, Data::Name(target)) = (record.kind, &record.data)
                        && record.owner == real
                    {
                        real = target.clone();
                    }
                }
            }
            let heads = answer.answers.iter().chain(&answer.authority).filter(|record| record.kind == Kind::Soa);
            // Resolvers that know nothing answer with the root's.
            if let Some(head) = heads.map(|record| &record.owner).find(|owner| !owner.is_root()) {
                return Ok(Some((head.clone(), real)));
            }
            match asked.parent().filter(|parent| !parent.is_root()) {
                Some(parent) => asked = parent,
                None => return Ok(None),
            }
        }
    }

    /// The servers of a zone.
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn servers(&self, server: &NameServer, zone: &Name) -> Result<Vec<NameServer>, DnsError> {
        let answer = self.ask(server, zone, Kind::Ns, Recursion::Desired).await?;
        let host = |record: message::Record| match (record.kind, record.data) {
            (Kind::Ns, Data::Name(host)) => Some(NameServer { host: host.to_string(), port: PORT }),
            _ => None,
        };
        Ok(answer.answers.into_iter().filter_map(host).collect())
    }

    /// Changes a TXT record of a zone (RFC 2136), signed.
    ///
    /// # Errors
    /// See [`DnsError`]; an answer without the server's signature counts as none.
    pub async fn update(
        &self,
        server: &NameServer,
        key: &Key,
        (zone, name): (&Name, &Name),
        text: &str,
        change: Change,
        now: UnixMillis,
    ) -> Result<(), DnsError> {
        let id = number();
        let signed = key.sign(message::update(id, zone, name, text, change), now);
        let bytes = self.exchange(server, &signed.message).await?;
        let answer = self.read(server, &bytes, id)?;
        let checked = key.check(&answer, &bytes, &signed);
        match (answer.code, checked) {
            (FINE, Ok(())) => Ok(()),
            // What it has against the signature says more than the code.
            (_, Err(fault @ NotSigned::Refused(_))) | (FINE, Err(fault)) => {
                Err(DnsError::NotSigned { server: server.clone(), fault })
            }
            (code, _) => Err(DnsError::Refused { server: server.clone(), code }),
        }
    }

    #[expect(clippy::unused_self, reason = "reads as part of the exchange")]
    fn read(&self, server: &NameServer, bytes: &[u8], id: u16) -> Result<Answer, DnsError> {
        message::parse(bytes, id).map_err(|fault| DnsError::Malformed { server: server.clone(), fault })
    }

    /// RFC 1035 §4.2.2: a length of two bytes comes before each message.
    async fn exchange(&self, server: &NameServer, message: &[u8]) -> Result<Vec<u8>, DnsError> {
        let limit = PATIENCE + self.egress.allowance(&server.host, Reach::ByMode);
        let exchanged = async {
            let stream = self.egress.open(&server.host, server.port, Reach::ByMode).await;
            let mut stream = stream.map_err(|fault| DnsError::Unreachable { server: server.clone(), fault })?;
            let talk = async {
                let mut framed = u16::try_from(message.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
                framed.extend(message);
                stream.write_all(&framed).await?;
                let length = stream.read_u16().await?;
                let mut answer = vec![0; usize::from(length)];
                stream.read_exact(&mut answer).await?;
                Ok(answer)
            };
            talk.await.map_err(|fault| DnsError::Broken { server: server.clone(), fault })
        };
        timeout(limit, exchanged).await.unwrap_or_else(|_| Err(DnsError::Slow { server: server.clone(), limit }))
    }
}

/// A number for a message. It need not be hard to guess: over TCP nobody else can answer.
fn number() -> u16 {
    fastrand::u16(..)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::telemetry::tasks::Tasks;

    /// A server that answers each message with what `answer` makes of it.
    async fn server(answer: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> (NameServer, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("an address").port();
        let tasks = Tasks::new();
        tasks.spawn_until_end("name server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let length = stream.read_u16().await.expect("a length");
                let mut asked = vec![0; usize::from(length)];
                stream.read_exact(&mut asked).await.expect("a message");
                let told = answer(asked);
                stream.write_u16(u16::try_from(told.len()).expect("short")).await.expect("writes");
                stream.write_all(&told).await.expect("writes");
            }
        });
        (NameServer { host: "127.0.0.1".into(), port }, tasks)
    }

    /// The question with its answers, all about the question's name.
    fn about(asked: &[u8], code: u8, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut told = asked.to_vec();
        (told[2], told[3], told[7]) = (0x80, code, u8::try_from(records.len()).expect("few"));
        for (kind, data) in records {
            told.extend(b"\xc0\x0c");
            told.extend(kind.to_be_bytes());
            told.extend(b"\0\x01\0\0\0\x3c");
            told.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
            told.extend(*data);
        }
        told
    }

    /// A head alone: neither question nor records.
    fn bare(asked: &[u8], code: u8) -> Vec<u8> {
        vec![asked[0], asked[1], 0xa8, code, 0, 0, 0, 0, 0, 0, 0, 0]
    }

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[tokio::test]
    async fn texts_of_a_name_come_and_that_there_is_none_is_no_error() {
        let client = DnsClient::new(Egress::direct());
        let (full, _tasks) = server(|asked| about(&asked, 0, &[(16, b"\x03one"), (16, b"\x02tw\x01o")])).await;
        let texts = client.texts(&full, &name("a.example"), Recursion::Desired).await.expect("answers");
        assert_eq!(texts, [b"one", b"two"]);
        let (empty, _tasks) = server(|asked| about(&asked, NO_SUCH_NAME, &[])).await;
        assert!(client.texts(&empty, &name("a.example"), Recursion::Desired).await.expect("answers").is_empty());
        let (angry, _tasks) = server(|asked| about(&asked, 5, &[])).await;
        let refused = client.texts(&angry, &name("a.example"), Recursion::Desired).await.expect_err("refuses");
        assert!(refused.to_string().contains("REFUSED"), "{refused}");
    }

    #[tokio::test]
    async fn the_zone_of_a_name_is_the_first_head_above_it() {
        let client = DnsClient::new(Egress::direct());
        let (there, _tasks) = server(|asked| {
            // `example` with its length, at the begin of the question: the zone itself is asked for.
            let records: &[(u16, &[u8])] = if asked[12] == 7 { &[(6, &[0; 22])] } else { &[] };
            about(&asked, 0, records)
        })
        .await;
        let (zone, real) = client
            .zone(&there, &name("_acme-challenge.llm.example"), Recursion::Desired)
            .await
            .expect("answers")
            .expect("a zone");
        assert_eq!((zone, real), (name("example"), name("_acme-challenge.llm.example")));
    }

    #[tokio::test]
    async fn a_change_counts_only_when_the_server_signed_that_it_was_made() {
        let client = DnsClient::new(Egress::direct());
        let now = UnixMillis(1_790_000_000_000);
        let key = tsig::tests::key("c2VjcmV0");
        let (zone, record) = (name("example"), name("_acme-challenge.example"));
        let (silent, _tasks) = server(|asked| bare(&asked, 0)).await;
        let update = |server: NameServer, key: Key| {
            let (client, zone, record) = (client.clone(), zone.clone(), record.clone());
            async move { client.update(&server, &key, (&zone, &record), "v", Change::Add { ttl: 60 }, now).await }
        };
        let unsigned = update(silent, key.clone()).await.expect_err("not signed");
        assert!(unsigned.to_string().contains("signature"), "{unsigned}");
        let (refusing, _tasks) = server(|asked| bare(&asked, 9)).await;
        let refused = update(refusing, key).await.expect_err("refused");
        assert!(refused.to_string().contains("NOTAUTH"), "{refused}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("listens").local_addr().expect("an address").port();
        let server = NameServer { host: "127.0.0.1".into(), port: gone };
        let client = DnsClient::new(Egress::direct());
        let error = client.texts(&server, &name("a.example"), Recursion::Desired).await.expect_err("nobody there");
        assert!(error.to_string().contains(&format!("127.0.0.1:{gone}")), "{error}");
    }
}
