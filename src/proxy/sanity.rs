//! Second stage: is the head one that makes sense? A body of one coding, one Host, a name that is ours, a path without tricks.
//!
//! Paths are matched exactly later and never joined to an engine's URL; what looks like a trick is refused here,
//! once, before anything else looks at the path (SPEC §5.14).

use std::net::IpAddr;
use std::sync::OnceLock;

use http::Version;
use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;

use super::account::Stage;
use super::exchange::{Accepted, Exchange, Screened};
use super::framing::FramedTwice;
use super::refusal::Refusal;

/// Longest path and query (SECURITY.md §H: own limit, hyper's is 64 KiB).
const MAX_TARGET: usize = 8 << 10;

/// Checks the head.
pub(super) fn check(exchange: &mut Exchange, accepted: Accepted) -> Result<Screened, Refusal> {
    let parts = accepted.parts;
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        return Err(Refusal::uri_too_long(MAX_TARGET));
    }
    // After a head that others may read differently nothing on its connection can be trusted (RFC 9112 §11.2).
    coding(&parts).inspect_err(|_| exchange.ends_connection())?;
    if !names_loopback(&parts) {
        let named = named_host(&parts).inspect_err(|_| exchange.ends_connection())?;
        if let Some(host) = named.as_ref().map(Authority::host) {
            if !is_this_machine(host) && exchange.peer.worker.shared.guard.exposure().notice() {
                exchange.went_public("a request named a host that is not this machine");
            }
            if !is_own_name(host, &exchange.limits.allowed_hosts) {
                return Err(Refusal::host_not_allowed(&cut(host, 100)));
            }
        }
    }
    if has_path_tricks(parts.uri.path()) {
        return Err(Refusal::not_found(parts.method.as_str(), &cut(parts.uri.path(), 100)));
    }
    exchange.account.mark(Stage::Screened);
    Ok(Screened { parts })
}

/// RFC 9112 §6.3: who tells a length and a coding of a body may mean to smuggle a request. §6.1: a coding that is not understood is
/// 501. Only `chunked` is, alone and once: hyper takes any list that
/// ends with it and leaves the rest of the list to whoever reads the body. HTTP/2 has none.
fn coding(parts: &Parts) -> Result<(), Refusal> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        _ if parts.extensions.get::<FramedTwice>().is_some() => {
            Err(Refusal::bad_request("The head tells both a Content-Length and a Transfer-Encoding; send one."))
        }
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Refusal::not_implemented("The only transfer coding that is understood is 'chunked', alone.")),
    }
}

/// Whether the request names `127.0.0.1` or `localhost`, with a port or without, and no other host: most do, and need no
/// parser to be known.
fn names_loopback(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), parts.uri.authority()) else { return false };
    let host = host.as_bytes();
    let rest = host.strip_prefix(b"127.0.0.1").or_else(|| host.strip_prefix(b"localhost"));
    rest.is_some_and(|rest| {
        rest.is_empty()
            || rest
                .strip_prefix(b":")
                .is_some_and(|port| (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit))
    })
}

/// The one host that the request names: RFC 9112 §3.2 wants exactly one `Host` in HTTP/1.1, and an absolute-form
/// target must agree with it.
fn named_host(parts: &Parts) -> Result<Option<Authority>, Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Refusal::bad_request("The request names two hosts.")),
        (Some(value), None) => Some(
            Authority::try_from(value.as_bytes()).map_err(|_| Refusal::bad_request("The Host header is not valid."))?,
        ),
        (None, _) => None,
    };
    let target = parts.uri.authority().cloned();
    match (header, target) {
        (Some(header), Some(target)) if header != target => {
            Err(Refusal::bad_request("The request's target and its Host header name different hosts."))
        }
        (Some(host), _) | (None, Some(host)) => Ok(Some(host)),
        (None, None) if parts.version == Version::HTTP_11 => Err(Refusal::bad_request("The Host header is missing.")),
        (None, None) => Ok(None),
    }
}

/// Whether a host says that the client is on this machine (SPEC §5, head: what is not is foreign).
fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || host.eq_ignore_ascii_case(machine_name())
}

/// Whether a host is one of the own names. Addresses are: no foreign web page can be reached under one, and only
/// names can be rebound (SECURITY.md §H, Host confusion).
#[must_use]
pub fn is_own_name(host: &str, allowed: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let own = machine_name();
    let is = |name: &str| match name.strip_prefix("*.") {
        // As a wildcard certificate has it: exactly one label in its place (RFC 6125 §6.4.3).
        Some(above) => {
            host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(above))
        }
        None => !name.is_empty() && host.eq_ignore_ascii_case(name),
    };
    is(own)
        || host.strip_suffix(".local").is_some_and(|stem| stem.eq_ignore_ascii_case(own))
        || allowed.iter().any(|name| is(name))
}

/// The machine's host name; read once, since it takes a system call.
pub(super) fn machine_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// Dot segments, empty segments, backslashes and their encoded forms (SECURITY.md §H, path tricks).
fn has_path_tricks(path: &str) -> bool {
    let bytes = path.as_bytes();
    if memchr::memchr3(b'%', b'\\', b'.', bytes).is_none() && !path.contains("//") {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    let encoded_slash_elsewhere = lower.contains("%2f") && !lower.starts_with("/v1/models/");
    lower.contains("//")
        || lower.contains('\\')
        || ["%2e", "%5c", "%00", "%25"].iter().any(|trick| lower.contains(trick))
        || encoded_slash_elsewhere
        || lower.split('/').any(|segment| segment == "." || segment == "..")
}

/// The first `limit` bytes, at a character's border.
pub(super) fn cut(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 25.
    #[test]
    fn path_tricks_are_seen_and_ordinary_paths_are_not() {
        for path in [
            "/v1/../admin",
            "/%2e%2e/x",
            "//v1/models",
            "/v1//models",
            "/v1\\models",
            "/v1/%2Fengine",
            "/a/./b",
            "/%5c",
            "/..",
            "/v1/models/%2e%2e/x",
            "/%252e",
        ] {
            assert!(has_path_tricks(path), "{path}");
        }
        for path in
            ["/", "/v1/models", "/v1/chat/completions", "/v1/models/hf.co%2Fuser%2Fm:q4", "/v1/models/a.b/c.gguf"]
        {
            assert!(!has_path_tricks(path), "{path}");
        }
    }

    #[test]
    fn loopback_is_known_without_a_parser_and_nothing_else_is() {
        let request = |target: &str, hosts: &[&'static str]| {
            let mut parts = http::Request::get(target).body(()).expect("a request").into_parts().0;
            for host in hosts {
                parts.headers.append(HOST, http::HeaderValue::from_static(host));
            }
            parts
        };
        for host in ["127.0.0.1", "127.0.0.1:8484", "localhost", "localhost:1"] {
            let parts = request("/v1/models", &[host]);
            assert!(names_loopback(&parts), "{host}");
            let named = named_host(&parts).expect("valid").expect("a host");
            assert!(is_this_machine(named.host()) && is_own_name(named.host(), &[]), "{host}");
        }
        for host in
            ["127.0.0.10", "127.0.0.1.evil", "localhost.evil", "127.0.0.1:", "127.0.0.1:123456", "127.0.0.1:x", ""]
        {
            assert!(!names_loopback(&request("/v1/models", &[host])), "{host}");
        }
        assert!(!names_loopback(&request("/v1/models", &["localhost", "localhost"])));
        assert!(!names_loopback(&request("/v1/models", &[])));
        assert!(!names_loopback(&request("http://evil/v1/models", &["localhost"])));
    }

    #[test]
    fn addresses_and_own_names_are_ours_and_others_must_be_allowed() {
        let allowed = vec!["models.example.org".to_owned()];
        for host in ["127.0.0.1", "[::1]", "localhost", "LOCALHOST", "192.0.2.7", "Models.Example.Org", machine_name()]
        {
            assert!(is_own_name(host, &allowed), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "", "models.example.org.evil"] {
            assert!(!is_own_name(host, &allowed), "{host}");
        }
    }
}
