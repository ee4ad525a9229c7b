//! Heads of HTTP/1.1 messages (RFC 9112): writes a request's, reads an answer's, and decides how the answer's body is framed.
//!
//! Called by `connection` alone. Does no I/O. Must never guess: an answer that two readers could understand
//! differently is refused, because the next answer on the same connection would then begin at different places. Why this
//! is not hyper's client: docs/adr/0012.

use std::borrow::Cow;
use std::io;
use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use httparse::{Header, ParserConfig, Response, Status};

/// Largest head of an answer, bytes. The engines of ENGINES.md send less than 1 KiB; hyper's client took 400 KiB.
const MAX_HEAD: usize = 64 << 10;
/// Most fields of a head; hyper's client took as many.
const MAX_FIELDS: usize = 100;

/// What every answer begins with.
const BEGINNING: &[u8] = b"HTTP/1.";

/// Why a message of an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MessageFault {
    /// It ended between two messages.
    #[error("the connection was closed")]
    Closed,
    /// It ended within a message.
    #[error("the connection was closed in the middle of the answer")]
    Cut,
    /// The system could not read or write.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else speaks there.
    #[error("it does not answer in HTTP/1.1")]
    NotHttp,
    /// Syntax that RFC 9112 does not allow.
    #[error("the head of its answer is malformed: {0}")]
    Head(httparse::Error),
    /// Longer than any engine's.
    #[error("the head of its answer is larger than {MAX_HEAD} bytes or {MAX_FIELDS} fields")]
    HeadTooLarge,
    /// Two lengths, or one that is no number (RFC 9112 §6.3).
    #[error("the length of its answer is not clear")]
    Length,
    /// A coding that nobody asked for, or one beside a length (RFC 9112 §6.1).
    #[error("the transfer coding of its answer is not clear")]
    Coding,
    /// Another protocol, which nobody asked for.
    #[error("it switches to another protocol")]
    Switched,
    /// More interim answers than any server has a reason for.
    #[error("it sends interim answers without end")]
    Interim,
    /// An answer to a request that it has not read.
    #[error("it answered before it was asked")]
    Unasked,
    /// The framing of a chunk is wrong (RFC 9112 §7.1).
    #[error("a chunk of its answer is malformed")]
    Chunk,
    /// What FLM would have sent is no request.
    #[error("the request cannot be written: {0}")]
    Request(&'static str),
}

/// A request to an upstream. `Host`, `Content-Length` and what else belongs to a connection are set by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// Path and query, as they are written.
    pub target: Cow<'static, str>,
    /// Fields, each as it is written.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The whole body.
    pub body: Bytes,
}

/// The fields of an answer, as they came: most are never looked at, so they are found where one is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Bytes);

impl Fields {
    /// The first field of that name.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<HeaderValue> {
        let (_, value) = self.lines().find(|(found, _)| found.eq_ignore_ascii_case(name.as_str().as_bytes()))?;
        HeaderValue::from_bytes(value).ok()
    }

    /// All fields.
    #[must_use]
    pub fn map(&self) -> HeaderMap {
        let fields = self.lines().filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        });
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(name, value);
        }
        map
    }

    /// Names and values. They were parsed once, so that nothing has to be checked again.
    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }
}

/// How long the body of an answer is (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Exactly so many bytes, zero where the answer has no body.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection is closed.
    UntilClose,
}

/// Whether a connection can carry another exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persistence {
    /// It can.
    Keeps,
    /// It cannot.
    Closes,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
    pub(super) framing: Framing,
    pub(super) persistence: Persistence,
    /// How many bytes it took.
    pub(super) length: usize,
}

/// Writes the head of a request.
///
/// # Errors
/// When its target has characters that would end its line.
pub(super) fn write_request(request: &Outgoing, host: &HeaderValue) -> Result<Vec<u8>, MessageFault> {
    let Outgoing { method, target, fields, body } = request;
    if !target.starts_with('/') || target.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(MessageFault::Request("its target is no path"));
    }
    let length: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut head = Vec::with_capacity(target.len() + host.len() + length + 96);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    head.extend_from_slice(host.as_bytes());
    head.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        if [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            continue;
        }
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    // A method that is expected to have a body says so when it has none (RFC 9110 §8.6).
    if !body.is_empty() || matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        head.extend_from_slice(b"content-length: ");
        put_number(&mut head, body.len());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    let at = out.len();
    loop {
        // A decimal digit fits a byte.
        out.push(b'0' + u8::try_from(number % 10).unwrap_or_default());
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[at..].reverse();
}

/// Reads the head that `bytes` begin with, of an answer to a request with `method`; `None` when it is not complete.
/// `looked_at` is how many bytes an earlier call has seen, so that a head in small pieces is not read anew for each.
///
/// # Errors
/// When it cannot be the head of an answer, however it goes on, or is ambiguous.
pub(super) fn read_answer(bytes: &[u8], looked_at: usize, method: &Method) -> Result<Option<AnswerHead>, MessageFault> {
    let known = bytes.len().min(BEGINNING.len());
    if bytes[..known] != BEGINNING[..known] {
        return Err(MessageFault::NotHttp);
    }
    let within = &bytes[..bytes.len().min(MAX_HEAD)];
    let incomplete = || if bytes.len() < MAX_HEAD { Ok(None) } else { Err(MessageFault::HeadTooLarge) };
    if !ends(within, looked_at) {
        return incomplete();
    }
    let mut fields = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_FIELDS];
    let mut answer = Response::new(&mut []);
    // Neither obsolete folding nor a space before a colon is allowed (RFC 9112 §5.1, §5.2).
    let read = ParserConfig::default().parse_response_with_uninit_headers(&mut answer, within, &mut fields);
    let length = match read {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return incomplete(),
        Err(httparse::Error::TooManyHeaders) => return Err(MessageFault::HeadTooLarge),
        Err(fault) => return Err(MessageFault::Head(fault)),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(MessageFault::Head(httparse::Error::Status))?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(MessageFault::Switched);
    }
    let mut about = About { length: None, chunked: false, closes: answer.version != Some(1) };
    for field in answer.headers.iter() {
        about.note(field.name, field.value)?;
    }
    let (framing, persistence) = about.decide(status, method)?;
    // Without the line of the status.
    let begin = answer.headers.first().map_or(length, |first| first.name.as_ptr().addr() - within.as_ptr().addr());
    let fields = Fields(Bytes::copy_from_slice(&within[begin..length]));
    Ok(Some(AnswerHead { status, fields, framing, persistence, length }))
}

/// Whether there is an empty line; bytes before `looked_at` were searched before.
fn ends(bytes: &[u8], looked_at: usize) -> bool {
    // The end of a line may have been the last byte of what came before.
    let begin = looked_at.saturating_sub(2).min(bytes.len());
    memchr::memchr_iter(b'\n', &bytes[begin..]).any(|at| {
        let rest = &bytes[begin + at + 1..];
        rest.starts_with(b"\n") || rest.starts_with(b"\r\n")
    })
}

/// What the fields of a head say about its body and its connection.
struct About {
    length: Option<u64>,
    chunked: bool,
    closes: bool,
}

impl About {
    fn note(&mut self, name: &str, value: &[u8]) -> Result<(), MessageFault> {
        let is = |known: &HeaderName| name.eq_ignore_ascii_case(known.as_str());
        if is(&CONTENT_LENGTH) {
            // The same length several times, in fields or in a list, is one length (RFC 9110 §8.6).
            for part in value.split(|byte| *byte == b',') {
                let length = number(part.trim_ascii()).ok_or(MessageFault::Length)?;
                if self.length.replace(length).is_some_and(|other| other != length) {
                    return Err(MessageFault::Length);
                }
            }
        } else if is(&TRANSFER_ENCODING) {
            // FLM sends no TE field, so that nothing but `chunked`, once, may come.
            if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(MessageFault::Coding);
            }
            self.chunked = true;
        } else if is(&CONNECTION) {
            let mut options = value.split(|byte| *byte == b',');
            self.closes |= options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
        Ok(())
    }

    /// RFC 9112 §6.3, with the ambiguous cases refused.
    fn decide(self, status: StatusCode, method: &Method) -> Result<(Framing, Persistence), MessageFault> {
        let framing = match (self.length, self.chunked) {
            (Some(_), true) => return Err(MessageFault::Coding),
            _ if has_no_body(status, method) => Framing::Length(0),
            (Some(length), false) => Framing::Length(length),
            (None, true) => Framing::Chunked,
            (None, false) => Framing::UntilClose,
        };
        let closes = self.closes || framing == Framing::UntilClose;
        Ok((framing, if closes { Persistence::Closes } else { Persistence::Keeps }))
    }
}

fn has_no_body(status: StatusCode, method: &Method) -> bool {
    *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A number of digits and nothing else; `None` when it does not fit.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ACCEPT, CONTENT_TYPE};

    fn request(method: Method, target: &'static str) -> Outgoing {
        Outgoing { method, target: Cow::Borrowed(target), fields: Vec::new(), body: Bytes::new() }
    }

    fn host() -> HeaderValue {
        HeaderValue::from_static("engine:1")
    }

    fn read(text: &str) -> Result<AnswerHead, MessageFault> {
        read_answer(text.as_bytes(), 0, &Method::POST).map(|head| head.expect("complete"))
    }

    #[test]
    fn a_request_is_written_with_the_fields_of_its_connection_and_no_others() {
        let mut request = request(Method::POST, "/v1/chat/completions?a=b");
        request.body = Bytes::from(vec![b'x'; 1024]);
        for (name, value) in [
            (CONTENT_TYPE, "application/json"),
            (HOST, "client.test"),
            (CONNECTION, "upgrade"),
            (TRANSFER_ENCODING, "chunked"),
            (CONTENT_LENGTH, "7"),
            (ACCEPT, "*/*"),
        ] {
            request.fields.push((name, HeaderValue::from_static(value)));
        }
        let head = write_request(&request, &host()).expect("is written");
        assert_eq!(
            String::from_utf8(head).expect("text"),
            "POST /v1/chat/completions?a=b HTTP/1.1\r\nhost: engine:1\r\ncontent-type: application/json\r\n\
             accept: */*\r\ncontent-length: 1024\r\n\r\n"
        );
    }

    #[test]
    fn only_methods_that_expect_a_body_tell_that_there_is_none() {
        for (method, says) in [(Method::POST, true), (Method::PUT, true), (Method::GET, false), (Method::DELETE, false)]
        {
            let head = write_request(&request(method.clone(), "/"), &host()).expect("is written");
            let head = String::from_utf8(head).expect("text");
            assert_eq!(head.contains("content-length: 0\r\n"), says, "{method}");
        }
    }

    #[test]
    fn a_target_that_is_no_path_is_not_sent() {
        for target in ["*", "", "http://other/", "/a b", "/a\r\nx: y", "/é"] {
            assert!(write_request(&request(Method::GET, target), &host()).is_err(), "{target:?}");
        }
    }

    #[test]
    fn the_framing_is_what_rfc_9112_says() {
        use Framing::{Chunked, Length, UntilClose};
        use Persistence::{Closes, Keeps};
        for (head, framing, persistence) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Length(5), Keeps),
            ("HTTP/1.1 200 OK\ncontent-length: 5\n\n", Length(5), Keeps),
            ("HTTP/1.1 200\r\nContent-Length:0\r\n\r\n", Length(0), Keeps),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", Length(5), Keeps),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", Length(5), Keeps),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: Foo, Close\r\n\r\n", Length(5), Closes),
            ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n", Length(5), Closes),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", Chunked, Keeps),
            ("HTTP/1.1 200 OK\r\n\r\n", UntilClose, Closes),
            ("HTTP/1.1 204 No Content\r\n\r\n", Length(0), Keeps),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", Length(0), Keeps),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", Length(0), Keeps),
        ] {
            let read = read(head).expect(head);
            assert_eq!((read.framing, read.persistence, read.length), (framing, persistence, head.len()), "{head}");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        let asked = read_answer(head.as_bytes(), 0, &Method::HEAD).expect("is read").expect("complete");
        assert_eq!(asked.framing, Length(0));
    }

    #[test]
    fn what_is_ambiguous_or_malformed_is_refused() {
        for head in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5,\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0x5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        ] {
            assert!(read(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn a_head_is_read_when_its_last_byte_has_come_and_not_before() {
        let head = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: 5\r\n\r\n";
        for cut in 0..head.len() {
            for looked_at in [0, cut.saturating_sub(1), cut] {
                let read = read_answer(&head[..cut], looked_at.min(cut), &Method::GET);
                assert!(matches!(read, Ok(None)), "{cut}");
            }
            assert!(read_answer(head, cut, &Method::GET).expect("is read").is_some(), "{cut}");
        }
    }

    #[test]
    fn fields_are_found_whatever_their_case_and_come_in_order() {
        let head = "HTTP/1.1 200 OK\r\nServer: a:b \r\ncontent-length:0\nX-One: \r\nx-one: 2\r\n\r\n";
        let fields = read(head).expect("is read").fields;
        let get = |name: &'static str| fields.get(&HeaderName::from_static(name));
        assert_eq!(get("server").expect("a field"), "a:b");
        assert_eq!(get("x-one").expect("a field"), "");
        assert_eq!(get("x-two"), None);
        let map = fields.map();
        let all: Vec<_> = map.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(all, [("server", &b"a:b"[..]), ("content-length", b"0"), ("x-one", b""), ("x-one", b"2")]);
    }

    #[test]
    fn a_head_has_limits() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(MAX_HEAD));
        assert!(matches!(read(&long), Err(MessageFault::HeadTooLarge)));
        let unended = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(MAX_HEAD));
        assert!(matches!(read(&unended), Err(MessageFault::HeadTooLarge)));
        let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert_eq!(read(&fields(MAX_FIELDS)).expect("fits").fields.lines().count(), MAX_FIELDS);
        assert!(matches!(read(&fields(MAX_FIELDS + 1)), Err(MessageFault::HeadTooLarge)));
    }
}
