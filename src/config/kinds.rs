//! Kinds of settings: how a value is written, checked and shown.
//!
//! Used by `config::table` to declare settings and by `config::settings` to read them. Must never read a layer.

use std::time::Duration;

use crate::types::address::parse_network;

/// What a setting may hold, with its built-in default.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Switch {
        /// Built-in default.
        default: bool,
    },
    /// A whole number.
    Count {
        /// Built-in default.
        default: u32,
        /// Smallest value.
        least: u32,
        /// Largest value.
        most: u32,
    },
    /// A span of time: `250ms`, `10s`, `5m`, `2h`, `90d`; a bare number is seconds.
    Span {
        /// Built-in default.
        default: Duration,
        /// Shortest.
        least: Duration,
        /// Longest.
        most: Duration,
    },
    /// A number of bytes: `32MiB`, `32KiB`, `2GiB`; a bare number is bytes.
    Size {
        /// Built-in default, bytes.
        default: u64,
        /// Smallest, bytes.
        least: u64,
        /// Largest, bytes.
        most: u64,
    },
    /// One of a few words.
    Choice {
        /// Built-in default.
        default: &'static str,
        /// The words.
        words: &'static [&'static str],
    },
    /// A text.
    Text {
        /// Built-in default.
        default: &'static str,
        /// What it must look like.
        rule: Rule,
    },
    /// Texts separated by commas; empty by default.
    List {
        /// What each must look like.
        rule: Rule,
    },
}

/// What a text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A file name without folder and suffix: letters, digits, `-` and `_`.
    Name,
    /// A host name or address without port.
    Host,
    /// A web origin: scheme, host and optional port, or `*`.
    Origin,
    /// An IP address.
    Address,
    /// An IP address or a CIDR block.
    Network,
    /// Host and port of a server; may be empty.
    Endpoint,
    /// A user name: up to 255 bytes without control characters; may be empty.
    UserName,
    /// The name of an environment variable; may be empty.
    Variable,
    /// An absolute path; may be empty.
    AbsolutePath,
    /// A domain name that the world may know; the first label may be `*`.
    Domain,
    /// An address for mail.
    Mail,
    /// The URL of a service: http or https, without user, password, query and fragment; may be empty.
    ServiceUrl,
    /// A part of FLM and how much of it is logged: `proxy=debug`.
    LogTarget,
}

/// A value that fits its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of a switch.
    Switch(bool),
    /// Of a count.
    Count(u32),
    /// Of a span.
    Span(Duration),
    /// Of a size, bytes.
    Size(u64),
    /// Of a choice.
    Choice(&'static str),
    /// Of a text.
    Text(String),
    /// Of a list.
    List(Vec<String>),
}

impl Kind {
    /// The built-in default.
    #[must_use]
    pub fn default_value(&self) -> Value {
        match *self {
            Self::Switch { default } => Value::Switch(default),
            Self::Count { default, .. } => Value::Count(default),
            Self::Span { default, .. } => Value::Span(default),
            Self::Size { default, .. } => Value::Size(default),
            Self::Choice { default, .. } => Value::Choice(default),
            Self::Text { default, .. } => Value::Text(default.to_owned()),
            Self::List { .. } => Value::List(Vec::new()),
        }
    }

    /// Reads a value; `None` when it breaks [`Kind::rule`].
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        match *self {
            Self::Switch { .. } => match text {
                "true" | "on" | "yes" | "1" => Some(Value::Switch(true)),
                "false" | "off" | "no" | "0" => Some(Value::Switch(false)),
                _ => None,
            },
            Self::Count { least, most, .. } => {
                text.parse().ok().filter(|n| (least..=most).contains(n)).map(Value::Count)
            }
            Self::Span { least, most, .. } => {
                parse_span(text).filter(|span| (least..=most).contains(span)).map(Value::Span)
            }
            Self::Size { least, most, .. } => {
                parse_size(text).filter(|size| (least..=most).contains(size)).map(Value::Size)
            }
            Self::Choice { words, .. } => words.iter().find(|word| **word == text).map(|word| Value::Choice(word)),
            Self::Text { rule, .. } => rule.holds(text).then(|| Value::Text(text.to_owned())),
            Self::List { rule } => {
                let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                items
                    .iter()
                    .all(|item| rule.holds(item))
                    .then(|| Value::List(items.into_iter().map(str::to_owned).collect()))
            }
        }
    }

    /// What a value must be, to end the sentence "it must be …".
    #[must_use]
    pub fn rule(&self) -> String {
        match *self {
            Self::Switch { .. } => "true or false".to_owned(),
            Self::Count { least, most, .. } => format!("a whole number from {least} to {most}"),
            Self::Span { least, most, .. } => {
                format!("a time such as 250ms, 10s, 5m, 2h or 7d, from {} to {}", show_span(least), show_span(most))
            }
            Self::Size { least, most, .. } => {
                format!("a size such as 512KiB or 32MiB, from {} to {}", show_size(least), show_size(most))
            }
            Self::Choice { words, .. } => format!("one of {}", words.join(", ")),
            Self::Text { rule, .. } => rule.describe().to_owned(),
            Self::List { rule } => format!("a list separated by commas, each {}", rule.describe()),
        }
    }
}

impl Value {
    /// The value as a person writes it; [`Kind::parse`] reads it back.
    #[must_use]
    pub fn show(&self) -> String {
        match self {
            Self::Switch(on) => on.to_string(),
            Self::Count(count) => count.to_string(),
            Self::Span(span) => show_span(*span),
            Self::Size(size) => show_size(*size),
            Self::Choice(word) => (*word).to_owned(),
            Self::Text(text) => text.clone(),
            Self::List(items) => items.join(", "),
        }
    }
}

impl Rule {
    fn holds(self, text: &str) -> bool {
        match self {
            Self::Name => {
                !text.is_empty()
                    && text.len() <= 64
                    && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            }
            Self::Host => is_host(text),
            Self::Address => text.parse::<std::net::IpAddr>().is_ok(),
            Self::Network => parse_network(text).is_ok(),
            Self::Endpoint => text.is_empty() || host_and_port(text).is_some(),
            Self::UserName => text.len() <= 255 && !text.chars().any(char::is_control),
            Self::Variable => {
                !text.starts_with(|c: char| c.is_ascii_digit())
                    && text.len() <= 128
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            }
            Self::AbsolutePath => text.is_empty() || (text.starts_with('/') && !text.chars().any(char::is_control)),
            Self::Domain => is_domain(text.strip_prefix("*.").unwrap_or(text)),
            Self::Mail => text.split_once('@').is_some_and(|(user, host)| {
                // What would begin another address or a header of a `mailto:` URL is refused (RFC 6068 §2).
                !user.is_empty()
                    && user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$'*+-/=^_`{|}~.".contains(&byte))
                    && is_domain(host)
            }),
            Self::ServiceUrl => text.is_empty() || is_service_url(text),
            Self::LogTarget => text.split_once('=').is_some_and(|(part, level)| {
                let plain = |c: char| c.is_ascii_lowercase() || matches!(c, '_' | ':');
                (1..=60).contains(&part.len())
                    && part.chars().all(plain)
                    && matches!(level, "error" | "warn" | "info" | "debug" | "trace")
            }),
            Self::Origin => {
                text == "*"
                    || text.split_once("://").is_some_and(|(scheme, rest)| {
                        matches!(scheme, "http" | "https") && is_host(without_port(rest).unwrap_or_default())
                    })
            }
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Name => "1 to 64 letters, digits, '-' or '_'",
            Self::Host => "a host name or address without scheme and port, such as llm.example.org",
            Self::Address => "an IP address such as 127.0.0.1, 0.0.0.0 or ::1",
            Self::Network => "an IP address or a CIDR block such as 10.0.0.0/8 or 2001:db8::/32",
            Self::Endpoint => "host and port such as 127.0.0.1:9050, proxy.lan:1080 or [::1]:1080, or empty",
            Self::UserName => "up to 255 bytes without control characters",
            Self::Variable => "the name of an environment variable, such as SOCKS_PASSWORD, or empty",
            Self::AbsolutePath => "an absolute path, or empty",
            Self::Domain => "a domain name such as llm.example.org or *.example.org",
            Self::Mail => "a mail address such as ops@example.org",
            Self::ServiceUrl => "a URL such as https://ca.example.org/acme/directory, or empty",
            Self::LogTarget => "a part of FLM and a level, such as proxy=debug or net::pool=trace",
            Self::Origin => "a web origin such as https://chat.example.org or http://localhost:3000, or *",
        }
    }
}

/// Host, without brackets, and port of `host:port`; `None` when the text is something else.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok().then_some((address, port)),
        None => (is_host(host) && !host.contains(':')).then_some((host, port)),
    }
}

/// Host name (RFC 1123 letters, with `_` as seen in LANs), IPv4 or IPv6 address, the latter with or without brackets.
fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if bare.contains(':') {
        return bare.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !text.is_empty()
        && text.len() <= 253
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !text.starts_with('.')
}

/// A name that a certificate can be for: labels of letters, digits and hyphens (RFC 1123 §2.1), at least two, and no address.
fn is_domain(text: &str) -> bool {
    text.len() <= 253
        && text.contains('.')
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
        && text.parse::<std::net::IpAddr>().is_err()
}

fn is_service_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    matches!(scheme, "http" | "https")
        && is_host(without_port(authority).unwrap_or_default())
        && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'"' | b'<' | b'>'))
}

/// The host of `host[:port]`; `None` when the port is none.
fn without_port(text: &str) -> Option<&str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => port.parse::<u16>().ok().map(|_| host),
        _ => Some(text),
    }
}

const SPAN_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse_span(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let unit = if unit.is_empty() { "s" } else { unit };
    let factor = SPAN_UNITS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(factor).map(Duration::from_millis)
}

fn show_span(span: Duration) -> String {
    let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (name, factor) =
        SPAN_UNITS.iter().find(|(_, factor)| millis > 0 && millis.is_multiple_of(*factor)).unwrap_or(&("s", 1_000));
    format!("{}{name}", millis / factor)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let factor = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
    number.checked_mul(factor)
}

fn show_size(size: u64) -> String {
    let (name, factor) =
        SIZE_UNITS.iter().find(|(_, factor)| size > 0 && size.is_multiple_of(*factor)).unwrap_or(&("B", 1));
    format!("{}{name}", size / factor)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Kind = Kind::Span {
        default: Duration::from_secs(10),
        least: Duration::from_millis(100),
        most: Duration::from_hours(1),
    };
    const SIZE: Kind = Kind::Size { default: 32 << 20, least: 1 << 10, most: 1 << 30 };

    #[test]
    fn spans_take_units_and_bare_seconds() {
        for (text, millis) in [("250ms", 250), ("10", 10_000), ("10 s", 10_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(SPAN.parse(text), Some(Value::Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "s", "10x", "-1s", "99ms", "2h", "99999999999999999999s", "18446744073709551615d", "1.5s"] {
            assert_eq!(SPAN.parse(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_take_binary_units_and_bare_bytes() {
        for (text, bytes) in [("2048", 2048), ("32MiB", 32 << 20), ("1 gib", 1 << 30)] {
            assert_eq!(SIZE.parse(text), Some(Value::Size(bytes)), "{text}");
        }
        for text in ["1", "2GiB", "32MB", "MiB"] {
            assert_eq!(SIZE.parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for (kind, text) in [(SPAN, "90s"), (SPAN, "5m"), (SPAN, "1500ms"), (SIZE, "1536KiB"), (SIZE, "1025")] {
            let value = kind.parse(text).expect("parses");
            assert_eq!(kind.parse(&value.show()), Some(value), "{text}");
        }
        assert_eq!(Value::Span(Duration::from_mins(5)).show(), "5m");
        assert_eq!(Value::Span(Duration::ZERO).show(), "0s");
        assert_eq!(Value::Size(32 << 20).show(), "32MiB");
    }

    #[test]
    fn lists_hold_only_items_that_fit() {
        let origins = Kind::List { rule: Rule::Origin };
        assert_eq!(
            origins.parse("https://a.example, http://localhost:3000,"),
            Some(Value::List(vec!["https://a.example".into(), "http://localhost:3000".into()]))
        );
        assert_eq!(origins.parse(""), Some(Value::List(Vec::new())));
        for bad in ["a.example", "https://a/path", "ftp://a", "https://a:port", "https://"] {
            assert_eq!(origins.parse(bad), None, "{bad}");
        }
        for (text, expected) in [
            ("127.0.0.1:9050", Some(("127.0.0.1", 9050))),
            ("[::1]:1080", Some(("::1", 1080))),
            ("proxy.lan:1", Some(("proxy.lan", 1))),
            ("::1:1080", None),
            ("proxy", None),
            ("proxy:0", None),
            ("proxy:99999", None),
            ("socks5://proxy:1", None),
            ("user@proxy:1", None),
            (":1", None),
        ] {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
        for (rule, good, bad) in [
            (
                Rule::Domain,
                &["llm.example.org", "*.example.org", "xn--bcher-kva.example"][..],
                &[
                    "example",
                    "*",
                    "*.*.example.org",
                    "a.*.example",
                    "192.0.2.1",
                    "a_b.example",
                    "-a.example",
                    "a..b",
                    "",
                ][..],
            ),
            (
                Rule::Mail,
                &["ops@example.org", "a.b+c@example.org"],
                &["", "@example.org", "ops", "ops@example", "a b@example.org", "a?cc=b@example.org", "a,b@example.org"],
            ),
            (
                Rule::ServiceUrl,
                &["", "https://ca.example.org/acme/directory", "http://127.0.0.1:4000", "https://[::1]:14000/dir"],
                &[
                    "ca.example.org",
                    "ftp://a/",
                    "https://",
                    "https://u:p@a/",
                    "https://a/?b",
                    "https://a:99999/",
                    "https://a/b c",
                ],
            ),
        ] {
            for text in good {
                assert!(rule.holds(text), "{rule:?} {text:?}");
            }
            for text in bad {
                assert!(!rule.holds(text), "{rule:?} {text:?}");
            }
        }
        let hosts = Kind::List { rule: Rule::Host };
        for good in ["llm.example.org", "192.0.2.1", "::1", "[2001:db8::1]", "my_box"] {
            assert!(hosts.parse(good).is_some(), "{good}");
        }
        for bad in ["a:80", "https://a", "a b", ".a", "[::1"] {
            assert!(hosts.parse(bad).is_none(), "{bad}");
        }
    }
}
