//! [`Upstream`]: where an engine is, parsed once.

use http::HeaderValue;

/// How to speak to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// HTTP/1.1 over TLS.
    Https,
}

/// A parsed base URL `http(s)://host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `Host` header: the engine's own address, never the client's (ENGINES.md §5, Auth).
    pub host_header: HeaderValue,
}

/// Why a base URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no base URL of an engine: {reason}; write http://host:port or https://host:port")]
pub struct InvalidUpstream {
    /// The text, cut to 200 characters.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Upstream {
    /// Parses a base URL; a path other than `/`, a query, user or password is refused.
    pub fn parse(url: &str) -> Result<Self, InvalidUpstream> {
        let _ = url;
        todo!()
    }
}
