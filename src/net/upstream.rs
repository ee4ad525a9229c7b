//! [`Upstream`]: where an engine is, parsed once.

use http::{HeaderValue, Uri};

use super::egress::Reach;

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
    /// Which way it may be reached.
    pub reach: Reach,
}

/// Why a base URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} is no base URL of an engine: {reason}; write http://host:port or https://host:port")]
pub struct InvalidUpstream {
    /// The text, without user and password, cut to 200 characters.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Upstream {
    /// Parses a base URL; a path other than `/`, a query, user or password is refused.
    pub fn parse(url: &str) -> Result<Self, InvalidUpstream> {
        let fault = |reason| InvalidUpstream { url: shown(url), reason };
        let uri: Uri = url.trim().parse().map_err(|_| fault("it is not a URL"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(_) => return Err(fault("the scheme must be http or https")),
            None => return Err(fault("the scheme is missing")),
        };
        let authority = uri.authority().ok_or_else(|| fault("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(fault("user and password do not belong in it; name a variable with --api-key-env"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(fault("it must end after the port, without path or query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(fault("the host is missing"));
        }
        let default = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        // `Authority::port` says None for a port out of range too, so the text after the host is looked at.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            None | Some("") => default,
            Some(rest) => rest
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .ok_or_else(|| fault("the port must be 1 to 65535"))?,
        };
        if port == 0 {
            return Err(fault("the port must be 1 to 65535"));
        }
        let host_header = HeaderValue::from_str(authority.as_str()).map_err(|_| fault("the host is not valid"))?;
        Ok(Self { scheme, host, port, host_header, reach: Reach::ByMode })
    }

    /// The same, reached as `reach` says.
    #[must_use]
    pub fn reached(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// `host:port`, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The URL for messages: cut, and without user and password, which do not belong into a log.
fn shown(url: &str) -> String {
    let url = match url.rsplit_once('@') {
        Some((before, host)) => {
            format!("{}…@{host}", before.split_inclusive("//").next().filter(|s| s.ends_with("//")).unwrap_or(""))
        }
        None => url.to_owned(),
    };
    url.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_parsed_with_their_default_ports() {
        for (url, host, port) in [
            ("http://127.0.0.1:11434", "127.0.0.1", 11434),
            ("http://127.0.0.1:11434/", "127.0.0.1", 11434),
            ("https://models.lan", "models.lan", 443),
            ("http://[::1]:8080", "::1", 8080),
            ("http://gpu", "gpu", 80),
        ] {
            let upstream = Upstream::parse(url).expect(url);
            assert_eq!((upstream.host.as_str(), upstream.port), (host, port), "{url}");
        }
        assert_eq!(Upstream::parse("http://[::1]:8080").expect("parses").address(), "[::1]:8080");
    }

    #[test]
    fn a_refusal_never_repeats_a_password() {
        for url in ["http://user:hunter2@host", "user:hunter2@host"] {
            let refusal = Upstream::parse(url).expect_err("refused").to_string();
            assert!(!refusal.contains("hunter2") && refusal.contains("host"), "{refusal}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for url in [
            "",
            "127.0.0.1:80",
            "ftp://x",
            "http://",
            "http://x/v1",
            "http://x?y",
            "http://u:p@x",
            "http://x:0",
            "http://x:99999",
            "http://x y",
            "http:///",
        ] {
            assert!(Upstream::parse(url).is_err(), "{url:?}");
        }
    }
}
