//! A request's head as detectors see it, and the cheap look that spares ordinary ones everything else.
//!
//! One pass over path, query and header values asks for bytes and beginnings of words that some attack needs. What has
//! none of them is not decoded, not split and not tokenised; that is every request of an ordinary client.

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, Method, Uri};

use super::decode::{Plus, Views};

/// What detectors look at. Bodies are never part of it: prompts hold code and SQL (SPEC §5.4).
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// All headers; credentials among them are passed over.
    pub headers: &'a HeaderMap,
    /// Largest body that the endpoint takes, in bytes.
    pub body_limit: u64,
}

/// Where a piece of a head stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    Path,
    /// The whole query.
    Query,
    /// One value of the query, or its name.
    Parameter,
    Header(&'a HeaderName),
    /// One value of the cookies.
    Cookie,
}

impl Place<'_> {
    /// For people.
    pub(super) fn title(self) -> String {
        match self {
            Self::Path => "path".to_owned(),
            Self::Query | Self::Parameter => "query".to_owned(),
            Self::Header(name) => format!("header {name}"),
            Self::Cookie => "cookie".to_owned(),
        }
    }
}

/// A piece of the head that is worth a look, decoded.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) place: Place<'a>,
    pub(super) views: Views,
    /// The name before it, for values of query and cookies, in lower case.
    pub(super) name: String,
}

// Bytes that some attack needs, by place. A byte with none of them is ordinary everywhere.
/// `'`, backtick, `<`, `>`, `{`, `}`, `$`, `|`, `\`, `%`, `^`, `#`, `!`, control and other non-ASCII bytes.
const RARE: u8 = 1;
/// `"` and `*`: ordinary in headers that browsers and content negotiation write.
const NEGOTIATED: u8 = 2;
/// `(`, `)`, `;`: ordinary in agents and cookies, not in a path or a value of a query.
const STRUCTURE: u8 = 4;
/// `+` and blank: words may follow one another.
const BLANK: u8 = 8;
/// `&`, `[`, `]`: ordinary in cookies only.
const LINK: u8 = 16;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let class = match byte as u8 {
            b'\''
            | b'`'
            | b'<'
            | b'>'
            | b'{'
            | b'}'
            | b'$'
            | b'|'
            | b'\\'
            | b'%'
            | b'^'
            | b'#'
            | b'!'
            | 0..=31
            | 127..=255 => RARE,
            b'"' | b'*' => NEGOTIATED,
            b'(' | b')' | b';' => STRUCTURE,
            b'[' | b']' | b'&' => LINK,
            b'+' | b' ' => BLANK,
            _ => 0,
        };
        classes[byte] = class;
        byte += 1;
    }
    classes
};

/// Four letters in a row that attacks are made of: not evidence, only a reason to look closer.
const BEGINNINGS: &[[u8; 4]] = &[
    *b"sele", *b"unio", *b"slee", *b"wait", *b"benc", *b"havi", *b"exec", *b"orde", *b"grou", *b" or ", *b"and ",
    *b"etc/", *b"etc\\", *b"proc", *b"/roo", *b"/log", *b"win.", *b"boot", *b"em32", *b"winn", *b"ows/", *b"c:/w",
    *b"jndi", *b"ro0a", *b"aaea", *b"gasv", *b"ipt:", *b"php:", *b"file", *b"zip:", *b"har:", *b"lob:", *b"ect:",
    *b"ata:", *b"dict", *b"goph", *b".254", *b"eval", *b"ldap", *b"rmi:", *b".ssh", *b".git", *b".svn", *b".env",
    *b".aws", *b".hta", *b".htp", *b"id_r", *b"nfig", *b"/bin", *b"__pr", *b"roto", *b"assl", *b"-inf", *b".bak",
    *b".sql", *b"cgi-", *b".hg/", *b".ds_", *b"0x2e", *b"inet", *b"/dev", *b"drop", *b"inse", *b"upda", *b"dele",
    *b"decl", *b"shut", *b"trun", *b"alte", *b";cat", *b"; ca", *b";cur", *b"; cu", *b";wge", *b"; wg", *b"; id",
    *b"; ls", *b";ls ", *b"; na", *b"; pi", *b";pin", *b"; ba", *b"; sh", *b"; ec", *b"; rm", *b"; wh", *b";who",
    *b"cmd=", *b"wget", *b"whoa", *b"uid=", *b"meta", *b".npm", *b".doc", *b".kub", *b"shad", *b"pass", *b"serv",
    *b".jsp", *b".php", *b".asp", *b"/sam", *b"nmap", *b"acun", *b"aced", *b"/var", *b"ttpd",
];

/// Where four letters fall in a filter of 65,536 bits.
pub(super) const fn slot(gram: u32) -> usize {
    // Multiplicative hash (Knuth, TAOCP 3, §6.4) to 16 bits.
    (gram.wrapping_mul(0x9E37_79B1) >> 16) as usize
}

/// A bit for each slot that a beginning falls into: one look spares nearly every comparison.
const FILTER: [u64; 1024] = {
    let mut filter = [0; 1024];
    let mut at = 0;
    while at < BEGINNINGS.len() {
        let slot = slot(u32::from_be_bytes(BEGINNINGS[at]));
        filter[slot / 64] |= 1 << (slot % 64);
        at += 1;
    }
    filter
};

/// Whether a text needs a closer look; `tolerated` are classes that are ordinary where it stands.
fn is_suspicious(text: &[u8], tolerated: u8) -> bool {
    let (mut gram, mut seen, mut before) = (0_u32, 0_u8, 0_u8);
    for byte in text {
        seen |= CLASSES[usize::from(*byte)];
        let folded = byte.to_ascii_lowercase();
        gram = gram << 8 | u32::from(folded);
        let pair = match folded {
            b'.' => before == b'.',
            b'-' => before == b'-' && tolerated & NEGOTIATED == 0,
            b'*' => before == b'/' && tolerated & NEGOTIATED == 0,
            b'(' => before.is_ascii_alphanumeric() || before == b'_',
            _ => false,
        };
        let slot = slot(gram);
        if pair || FILTER[slot / 64] >> (slot % 64) & 1 == 1 && BEGINNINGS.contains(&gram.to_be_bytes()) {
            return true;
        }
        before = folded;
    }
    seen & !tolerated != 0
}

/// Headers whose values are lists and parameters by their definition (RFC 9110 §12, RFC 9651, Fetch).
fn is_negotiation(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "content-type"
            | "cache-control"
            | "connection"
            | "te"
            | "if-none-match"
            | "if-match"
            | "priority"
            | "keep-alive"
    ) || name.starts_with("sec-")
}

/// Headers that hold credentials: never evidence, never quoted (SPEC §5.11).
fn is_credential(name: &HeaderName) -> bool {
    *name == AUTHORIZATION
        || *name == PROXY_AUTHORIZATION
        || matches!(name.as_str(), "x-api-key" | "api-key" | "x-goog-api-key" | "openai-api-key")
}

/// Longest value of a query that is tried as base64 without another reason.
const BASE64_MOST: usize = 512;

/// The pieces of a head that are worth a look, decoded; empty for an ordinary request.
pub(super) fn pieces<'a>(head: &Head<'a>) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let path = head.uri.path();
    if is_suspicious(path.as_bytes(), 0) || path.contains(';') {
        pieces.push(piece(Place::Path, path.as_bytes(), Plus::Plus));
    }
    if let Some(query) = head.uri.query() {
        of_query(query, &mut pieces);
    }
    for (name, value) in head.headers {
        let value = value.as_bytes();
        if is_credential(name) {
            continue;
        }
        if *name == COOKIE {
            of_cookies(value, &mut pieces);
            continue;
        }
        let tolerated = if is_negotiation(name) {
            BLANK | STRUCTURE | NEGOTIATED
        } else if *name == USER_AGENT {
            BLANK | STRUCTURE
        } else {
            BLANK
        };
        if is_suspicious(value, tolerated) || *name == USER_AGENT && lists_outside(value) {
            pieces.push(piece(Place::Header(name), value, Plus::Plus));
        }
    }
    pieces
}

/// Whether an agent has a `;` outside of brackets: its parts are listed inside (RFC 9110 §10.1.5).
fn lists_outside(agent: &[u8]) -> bool {
    if memchr::memchr(b';', agent).is_none() {
        return false;
    }
    let mut depth = 0_u32;
    agent.iter().any(|byte| {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        *byte == b';' && depth == 0
    })
}

fn piece<'a>(place: Place<'a>, raw: &[u8], plus: Plus) -> Piece<'a> {
    Piece { place, views: Views::of(raw, plus), name: String::new() }
}

fn of_query(query: &str, pieces: &mut Vec<Piece<'_>>) {
    let mut whole = query.contains("&&") || query.contains("&#") || query.contains("&lt") || !query.contains('=');
    whole &= is_suspicious(query.as_bytes(), 0) || query.contains('&');
    if whole {
        pieces.push(piece(Place::Query, query.as_bytes(), Plus::Blank));
    }
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or(("", pair));
        let bytes = value.as_bytes();
        let encoded =
            (16..BASE64_MOST).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'=');
        if is_suspicious(bytes, 0) || encoded || is_suspicious(name.as_bytes(), 0) || is_command_name(name) {
            let name = Views::of(name.as_bytes(), Plus::Blank).final_text().to_owned();
            pieces.push(Piece { name, ..piece(Place::Parameter, bytes, Plus::Blank) });
        }
    }
}

/// Names that a shell left behind by an intruder takes its commands by.
pub(super) fn is_command_name(name: &str) -> bool {
    ["cmd", "exec", "command", "execute", "shell", "system", "run", "ping", "ip"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

fn of_cookies(value: &[u8], pieces: &mut Vec<Piece<'_>>) {
    for pair in value.split(|byte| *byte == b';') {
        if !is_suspicious(pair, BLANK | STRUCTURE | LINK) {
            continue;
        }
        let place = memchr::memchr(b'=', pair);
        let (name, value) = place.map_or((&[][..], pair), |at| (&pair[..at], &pair[at + 1..]));
        let name = Views::of(name.trim_ascii(), Plus::Plus).final_text().to_owned();
        pieces.push(Piece { name, ..piece(Place::Cookie, value, Plus::Plus) });
    }
}
