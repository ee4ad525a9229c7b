//! [`WebAddress`]: a whole `http` or `https` address, parsed once: images that a request names, webhooks.
//!
//! Used by [`super::media_fetch`] and [`super::post`]. Must never take a host for a name that a resolver reads as an
//! address.

use std::io;
use std::net::IpAddr;

use http::{HeaderValue, Uri};
use tokio::net::TcpStream;

use super::connect::{self, Stream};
use super::upstream::Scheme;

/// Longest address that is looked at.
const MAX_URL: usize = 4 << 10;

/// An address that may be dialled, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAddress {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `Host` header.
    pub host_header: HeaderValue,
    /// Path and query.
    pub target: Uri,
}

/// Why a text is no address that may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// What is wrong with it.
    #[error("{0}")]
    Text(&'static str),
    /// The host is an IPv4 address in disguise.
    #[error("its host is a number, which resolvers read as an address: write the address with four parts")]
    Disguised,
}

impl WebAddress {
    /// Parses an address; a fragment is left out, user and password are refused.
    ///
    /// # Errors
    /// See [`AddressFault`].
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let fault = AddressFault::Text;
        if text.len() > MAX_URL {
            return Err(fault("its address is longer than 4096 bytes"));
        }
        // Without the fragment, which is never sent.
        let text = text.trim_matches(' ').split('#').next().unwrap_or_default();
        let uri: Uri = text.parse().map_err(|_| fault("its address is not a valid URL"))?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            _ => return Err(fault("its address must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or(fault("its address names no host"))?;
        if authority.as_str().contains('@') {
            return Err(fault("user and password do not belong into an address"));
        }
        // `Authority::port` says None for a port out of range too.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("" | ":") => default_port,
            Some(rest) => rest
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or(fault("its port is not valid"))?,
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_owned();
        if host.is_empty() {
            return Err(fault("its address names no host"));
        }
        if host.parse::<IpAddr>().is_err() && is_numeric(&host) {
            return Err(AddressFault::Disguised);
        }
        let host_header = HeaderValue::from_str(authority.as_str()).map_err(|_| fault("its host is not valid"))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse().map_err(|_| fault("its path is not valid"))?;
        Ok(Self { scheme, host, port, host_header, target })
    }

    /// Scheme, host and port, without what may hold a secret: for people.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", self.host_header.to_str().unwrap_or(&self.host))
    }

    /// Speaks TLS over an open connection where the scheme asks for it. Without a deadline of its own.
    ///
    /// # Errors
    /// See [`connect::secure`].
    pub(super) async fn secure(&self, tcp: TcpStream) -> io::Result<Stream> {
        match self.scheme {
            Scheme::Http => Ok(Box::new(tcp)),
            Scheme::Https => Ok(Box::new(connect::secure(tcp, &self.host).await?)),
        }
    }
}

/// Whether a host is an IPv4 address in disguise: resolvers read `2130706433`, `0177.0.0.1`, `0x7f.1` and `127.1` as addresses
/// (WHATWG URL, "ends in a number").
fn is_numeric(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|b| b.is_ascii_digit())
        || hexadecimal.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_tells_neither_path_nor_query() {
        let address = WebAddress::parse("https://hooks.example:8443/T0/s3cret?key=1#x").expect("parses");
        assert_eq!(address.origin(), "https://hooks.example:8443");
        assert_eq!(address.target, "/T0/s3cret?key=1");
        assert_eq!(WebAddress::parse("http://[::1]/x").expect("parses").origin(), "http://[::1]");
        for bad in ["", "ftp://x", "https://u:p@x/", "http://127.1/", "https://x:0/", "/x"] {
            assert!(WebAddress::parse(bad).is_err(), "{bad:?}");
        }
    }
}
