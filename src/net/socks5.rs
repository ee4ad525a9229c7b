//! The client's half of SOCKS5 (RFC 1928) with user and password (RFC 1929): negotiation and CONNECT.
//!
//! Called by [`super::egress`] alone, which bounds both steps in time, each on its own. Must never resolve a name, send a
//! step before the answer to the one before it, read a byte of what comes after the handshake, or put user or password
//! into an error. Why this is not a crate: docs/adr (SOCKS5 client).

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::types::secret::Secret;

/// RFC 1928, section 3.
const VERSION: u8 = 5;
/// RFC 1929, section 2.
const PASSWORD_VERSION: u8 = 1;
/// "NO AUTHENTICATION REQUIRED".
const NO_AUTHENTICATION: u8 = 0;
/// "USERNAME/PASSWORD".
const USER_AND_PASSWORD: u8 = 2;
/// "NO ACCEPTABLE METHODS".
const NO_METHOD: u8 = 0xFF;
/// CONNECT.
const CONNECT: u8 = 1;
/// ATYP of an IPv4 address.
const IPV4: u8 = 1;
/// ATYP of a name.
const NAME: u8 = 3;
/// ATYP of an IPv6 address.
const IPV6: u8 = 4;

/// User and password of a proxy. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Secret,
    password: Secret,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// Says that user or password cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("user and password of a SOCKS5 proxy have 1 to 255 bytes each (RFC 1929)")]
pub struct InvalidCredentials;

impl Credentials {
    /// Checks the lengths that the protocol allows.
    ///
    /// # Errors
    /// When either is empty or longer than 255 bytes.
    pub fn new(user: Secret, password: Secret) -> Result<Self, InvalidCredentials> {
        let fits = |secret: &Secret| (1..=255).contains(&secret.expose().len());
        if fits(&user) && fits(&password) { Ok(Self { user, password }) } else { Err(InvalidCredentials) }
    }

    /// The message of RFC 1929, section 2.
    fn message(&self) -> Zeroizing<Vec<u8>> {
        let mut message = Zeroizing::new(Vec::with_capacity(3 + 255 + 255));
        message.push(PASSWORD_VERSION);
        for secret in [&self.user, &self.password] {
            // The constructor has seen to it that the length is a byte.
            message.push(u8::try_from(secret.expose().len()).unwrap_or(u8::MAX));
            message.extend_from_slice(secret.expose().as_bytes());
        }
        message
    }
}

/// What the client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Step {
    /// The TCP connection to the proxy.
    #[error("the connection")]
    Dial,
    /// The choice of a method.
    #[error("the choice of a method")]
    Method,
    /// The verdict on user and password.
    #[error("the verdict on user and password")]
    Password,
    /// The reply to CONNECT.
    #[error("the reply to CONNECT")]
    Reply,
}

/// What a proxy says when it does not connect (RFC 1928, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 1.
    #[error("general failure")]
    General,
    /// 2.
    #[error("its rules do not allow it")]
    NotAllowed,
    /// 3.
    #[error("the network cannot be reached")]
    Network,
    /// 4.
    #[error("the host cannot be reached or found")]
    Host,
    /// 5.
    #[error("the destination refused the connection")]
    Refused,
    /// 6.
    #[error("the way is too long (TTL expired)")]
    TimeToLive,
    /// 7.
    #[error("it does not know CONNECT")]
    Command,
    /// 8.
    #[error("it does not know this kind of address")]
    AddressType,
}

impl Refusal {
    fn of(reply: u8) -> Option<Self> {
        Some(match reply {
            1 => Self::General,
            2 => Self::NotAllowed,
            3 => Self::Network,
            4 => Self::Host,
            5 => Self::Refused,
            6 => Self::TimeToLive,
            7 => Self::Command,
            8 => Self::AddressType,
            _ => return None,
        })
    }
}

/// What went wrong with a proxy.
#[derive(Debug, thiserror::Error)]
pub enum SocksFault {
    /// No connection to it.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// It was silent.
    #[error("it did not send {0} in time")]
    Silent(Step),
    /// It closed the connection, or sent less than it should have.
    #[error("it closed the connection before {0}")]
    Closed(Step),
    /// The connection to it broke.
    #[error("the connection to it broke before {step}: {source}")]
    Broken {
        /// What was waited for.
        step: Step,
        /// What the system said.
        source: io::Error,
    },
    /// An HTTP server listens there.
    #[error("an HTTP server answers there, not a SOCKS5 proxy")]
    Http,
    /// It speaks another version or protocol.
    #[error("it answers with version {0}, not 5: it is no SOCKS5 proxy")]
    Version(u8),
    /// It wants user and password, and none are set.
    #[error("it does not let anybody in without user and password")]
    CredentialsWanted,
    /// It takes neither user and password nor nobody.
    #[error("it takes no method of authentication that FLM offers")]
    NoMethod,
    /// It chose what was not offered.
    #[error("it chose the method of authentication {0}, which was not offered")]
    UnofferedMethod(u8),
    /// It refused user and password.
    #[error("it refused user and password")]
    WrongCredentials,
    /// It answered user and password with nonsense.
    #[error("it answers user and password with version {0}, not 1")]
    PasswordVersion(u8),
    /// It did not connect.
    #[error("it did not connect: {0}")]
    Refused(Refusal),
    /// It answered CONNECT with nonsense.
    #[error("its reply to CONNECT has the code {0}, which means nothing")]
    UnknownReply(u8),
    /// It answered CONNECT with an address of no kind.
    #[error("its reply to CONNECT has an address of kind {0}, which there is not")]
    UnknownAddress(u8),
    /// The host name does not fit into the protocol.
    #[error("the host name has more than 255 bytes, which SOCKS5 cannot carry")]
    NameTooLong,
}

impl SocksFault {
    /// Whether the proxy itself is at fault, rather than one destination.
    #[must_use]
    pub fn is_of_proxy(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::NameTooLong | Self::Silent(Step::Reply))
    }

    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Silent(Step::Dial) => {
                "start the proxy (for Tor: systemctl start tor), or name where it listens with --socks5-endpoint HOST:PORT"
            }
            Self::Silent(Step::Reply) | Self::Refused(_) => {
                "an open port is not a ready Tor: look at the proxy's own log, and whether the destination runs"
            }
            Self::CredentialsWanted | Self::WrongCredentials | Self::NoMethod => {
                "set egress.user, and the password with --socks5-password-env VARIABLE or --socks5-password-file FILE"
            }
            Self::NameTooLong => "correct the host name",
            Self::Silent(_)
            | Self::Closed(_)
            | Self::Broken { .. }
            | Self::Http
            | Self::Version(_)
            | Self::UnofferedMethod(_)
            | Self::PasswordVersion(_)
            | Self::UnknownReply(_)
            | Self::UnknownAddress(_) => {
                "check that --socks5-endpoint names the port of a SOCKS5 proxy and not that of another program"
            }
        }
    }
}

/// Agrees with the proxy on who is there. Without a deadline of its own.
pub(super) async fn negotiate<S>(stream: &mut S, credentials: Option<&Credentials>) -> Result<(), SocksFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let offer: &[u8] = match credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        // Without authentication too: a proxy that wants none is not to be told a password.
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
    };
    send(stream, offer, Step::Method).await?;
    let [version, method] = receive(stream, Step::Method).await?;
    check_version(version, method)?;
    match (method, credentials) {
        (NO_AUTHENTICATION, _) => Ok(()),
        (USER_AND_PASSWORD, Some(credentials)) => {
            send(stream, &credentials.message(), Step::Password).await?;
            match receive(stream, Step::Password).await? {
                [PASSWORD_VERSION, 0] => Ok(()),
                [PASSWORD_VERSION, _] => Err(SocksFault::WrongCredentials),
                [version, _] => Err(SocksFault::PasswordVersion(version)),
            }
        }
        (NO_METHOD, None) => Err(SocksFault::CredentialsWanted),
        (NO_METHOD, Some(_)) => Err(SocksFault::NoMethod),
        (method, _) => Err(SocksFault::UnofferedMethod(method)),
    }
}

/// Has the proxy connect to a host, whose name it resolves itself. Without a deadline of its own.
pub(super) async fn connect<S>(stream: &mut S, host: &str, port: u16) -> Result<(), SocksFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, &request(host, port)?, Step::Reply).await?;
    let [version, reply] = receive(stream, Step::Reply).await?;
    check_version(version, reply)?;
    if reply != 0 {
        return Err(Refusal::of(reply).map_or(SocksFault::UnknownReply(reply), SocksFault::Refused));
    }
    let [_reserved, kind] = receive(stream, Step::Reply).await?;
    // The address that the proxy connected from is of no use, but its bytes must not stay in front of the answer's.
    match kind {
        IPV4 => receive::<_, { 4 + 2 }>(stream, Step::Reply).await.map(drop),
        IPV6 => receive::<_, { 16 + 2 }>(stream, Step::Reply).await.map(drop),
        NAME => {
            let [length] = receive(stream, Step::Reply).await?;
            for _ in 0..usize::from(length) + 2 {
                let [_byte] = receive(stream, Step::Reply).await?;
            }
            Ok(())
        }
        kind => Err(SocksFault::UnknownAddress(kind)),
    }
}

/// The message of RFC 1928, section 4. A name is sent as a name: looking it up here would tell others about it.
fn request(host: &str, port: u16) -> Result<Vec<u8>, SocksFault> {
    let mut message = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            message.push(IPV4);
            message.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            message.push(IPV6);
            message.extend_from_slice(&address.octets());
        }
        Err(_name) => {
            let length = u8::try_from(host.len()).map_err(|_| SocksFault::NameTooLong)?;
            message.extend_from_slice(&[NAME, length]);
            message.extend_from_slice(host.as_bytes());
        }
    }
    message.extend_from_slice(&port.to_be_bytes());
    Ok(message)
}

fn check_version(version: u8, next: u8) -> Result<(), SocksFault> {
    match (version, next) {
        (VERSION, _) => Ok(()),
        // The first letters of "HTTP/1.1 400 Bad Request".
        (b'H', b'T') => Err(SocksFault::Http),
        _ => Err(SocksFault::Version(version)),
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8], step: Step) -> Result<(), SocksFault> {
    stream.write_all(message).await.map_err(|source| broken(step, source))?;
    stream.flush().await.map_err(|source| broken(step, source))
}

/// Reads exactly so many bytes: what follows belongs to whoever speaks through the proxy.
async fn receive<S: AsyncRead + Unpin, const N: usize>(stream: &mut S, step: Step) -> Result<[u8; N], SocksFault> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(|source| broken(step, source))?;
    Ok(bytes)
}

fn broken(step: Step, source: io::Error) -> SocksFault {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => SocksFault::Closed(step),
        _ => SocksFault::Broken { step, source },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn credentials() -> Credentials {
        Credentials::new(Secret::new("ada".to_owned()), Secret::new("lovelace".to_owned())).expect("fits")
    }

    /// Lets a client meet a proxy that says these bytes whatever it hears; answers what it heard.
    fn meet(says: &[u8], credentials: Option<&Credentials>, host: &str) -> (Result<(), SocksFault>, Vec<u8>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut client, mut proxy) = duplex(4096);
            proxy.write_all(says).await.expect("writes");
            proxy.shutdown().await.expect("ends");
            let met = async {
                negotiate(&mut client, credentials).await?;
                connect(&mut client, host, 443).await
            };
            let result = met.await;
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("reads");
            drop(client);
            let mut heard = Vec::new();
            proxy.read_to_end(&mut heard).await.expect("reads");
            (result, heard, rest)
        })
    }

    #[test]
    fn a_name_is_sent_as_a_name_and_what_follows_the_reply_is_left_alone() {
        let (result, heard, rest) = meet(b"\x05\0\x05\0\0\x01\0\0\0\0\0\x00220 mail", None, "models.test");
        result.expect("connects");
        assert_eq!(heard, b"\x05\x01\0\x05\x01\0\x03\x0bmodels.test\x01\xbb");
        assert_eq!(rest, b"220 mail");
    }

    #[test]
    fn addresses_are_sent_as_addresses() {
        let (_, heard, _) = meet(b"\x05\0\x05\0\0\x03\x01x\0\0", None, "203.0.113.9");
        assert!(heard.ends_with(b"\x05\x01\0\x01\xcb\0\x71\x09\x01\xbb"), "{heard:?}");
        let (result, heard, _) = meet(b"\x05\0\x05\0\0\x04................\0\0", None, "2001:db8::1");
        assert!(heard.ends_with(b"\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb"), "{heard:?}");
        result.expect("connects");
    }

    #[test]
    fn user_and_password_are_told_only_to_a_proxy_that_wants_them() {
        let (result, heard, _) = meet(b"\x05\x02\x01\0\x05\0\0\x01\0\0\0\0\0\0", Some(&credentials()), "a.test");
        result.expect("connects");
        assert!(heard.starts_with(b"\x05\x02\0\x02\x01\x03ada\x08lovelace\x05\x01"), "{heard:?}");
        let (_, heard, _) = meet(b"\x05\0\x05\0\0\x01\0\0\0\0\0\0", Some(&credentials()), "a.test");
        assert!(!heard.windows(3).any(|window| window == b"ada"), "{heard:?}");
    }

    #[test]
    fn every_lie_has_its_own_fault_and_a_next_step_and_none_tells_a_password() {
        let own = credentials();
        for (says, with, expected) in [
            (&b""[..], None, "closed the connection before the choice of a method"),
            (b"\x05", None, "closed the connection before the choice of a method"),
            (b"\x04\0", None, "version 4"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", None, "an HTTP server"),
            (b"\x05\xff", None, "without user and password"),
            (b"\x05\xff", Some(&own), "no method of authentication"),
            (b"\x05\x02", None, "method of authentication 2, which was not offered"),
            (b"\x05\x01", Some(&own), "method of authentication 1, which was not offered"),
            (b"\x05\x02\x01\x01", Some(&own), "refused user and password"),
            (b"\x05\x02\x05\0", Some(&own), "version 5, not 1"),
            (b"\x05\x02\x01", Some(&own), "before the verdict on user and password"),
            (b"\x05\0\x05\x01", None, "general failure"),
            (b"\x05\0\x05\x05", None, "the destination refused"),
            (b"\x05\0\x05\x63", None, "the code 99"),
            (b"\x05\0\x04\0", None, "version 4"),
            (b"\x05\0\x05\0\0\x09", None, "an address of kind 9"),
            (b"\x05\0\x05\0\0\x01\0\0", None, "closed the connection before the reply"),
            (b"\x05\0\x05\0\0\x03\xffshort", None, "closed the connection before the reply"),
        ] {
            let fault = meet(says, with, "a.test").0.expect_err(expected);
            let told = format!("{fault} {fault:?} {}", fault.hint());
            assert!(told.contains(expected), "{told} does not say {expected:?}");
            assert!(!told.contains("lovelace") && !told.contains("ada"), "{told}");
            assert!(!fault.hint().is_empty());
        }
        assert!(matches!(request(&"x".repeat(256), 1), Err(SocksFault::NameTooLong)));
        assert!(!format!("{own:?}").contains("ada"));
    }

    #[test]
    fn credentials_that_the_protocol_cannot_carry_are_refused() {
        let secret = |length: usize| Secret::new("x".repeat(length));
        for (user, password) in [(0, 1), (1, 0), (256, 1), (1, 256)] {
            Credentials::new(secret(user), secret(password)).expect_err("refused");
        }
        Credentials::new(secret(255), secret(255)).expect("fits");
    }

    proptest! {
        /// Whatever a proxy says: an answer, no panic, and never more than 255 bytes of name and the fixed parts read.
        #[test]
        fn no_answer_of_a_proxy_does_harm(says in proptest::collection::vec(any::<u8>(), 0..600), asked: bool) {
            let own = credentials();
            let (result, _, rest) = meet(&says, asked.then_some(&own), "a.test");
            if result.is_ok() {
                prop_assert!(says.len() - rest.len() <= 2 + 2 + 4 + 1 + 255 + 2);
            }
        }
    }
}
