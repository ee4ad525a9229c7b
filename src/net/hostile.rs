//! Entry point for hostile answers: it takes any bytes and must neither panic nor depend on how they are cut.
//!
//! Called by the property tests below, which `cargo test` runs with small inputs, and by the fuzz target `answers` in
//! `tests/fuzz`, which runs it for as long as one likes. Nothing of the product calls it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{Begun, Connection};

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// Nothing when it was refused before its body.
    head: Option<(StatusCode, HeaderMap)>,
    body: Vec<u8>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All of it was read, and the connection can be used again as far as its messages tell.
    Reusable,
    /// All of it was read.
    Closing,
    /// It was refused.
    Refused,
}

/// An engine that says these pieces, then nothing, whatever it hears.
struct Script {
    pieces: VecDeque<Bytes>,
    then: Then,
}

/// What it does after the last piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Closes,
    Waits,
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.then == Then::Closes { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        buffer.put_slice(&piece.split_to(piece.len().min(buffer.remaining())));
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Reads an answer that comes in pieces. `None` when it waits for more than came.
fn read(method: &Method, pieces: impl IntoIterator<Item = Bytes>, then: Then) -> Option<Seen> {
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let mut connection = Connection::new(Box::new(Script { pieces, then }));
    let exchange = async {
        let mut seen = Seen { head: None, body: Vec::new(), end: End::Refused };
        let Ok(Begun { status, fields }) = connection.send(method, b"GET / HTTP/1.1\r\n\r\n", &Bytes::new()).await
        else {
            return seen;
        };
        seen.head = Some((status, fields.map()));
        while let Some(data) = poll_fn(|cx| connection.poll_body(cx)).await {
            let Ok(data) = data else { return seen };
            assert!(!data.is_empty(), "a piece without a byte");
            seen.body.extend_from_slice(&data);
        }
        assert!(connection.has_ended());
        seen.end = if connection.rest() { End::Reusable } else { End::Closing };
        seen
    };
    match pin!(exchange).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(seen) => Some(seen),
        Poll::Pending => None,
    }
}

/// An answer of an engine: it is read or refused, and the same comes of it however it is cut. The first byte tells how long
/// the pieces are, and to which method it is the answer.
pub fn answer(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let method = if first & 128 == 0 { Method::POST } else { Method::HEAD };
    let length = usize::from(first % 40) + 1;
    for then in [Then::Closes, Then::Waits] {
        let whole = read(&method, [Bytes::copy_from_slice(data)], then);
        let cut = read(&method, data.chunks(length).map(Bytes::copy_from_slice), then);
        match (whole, cut) {
            (Some(whole), Some(cut)) => {
                assert_eq!((&whole.head, &whole.body), (&cut.head, &cut.body));
                // What comes after the end is seen with the end only when both come together.
                assert_eq!(whole.end == End::Refused, cut.end == End::Refused);
            }
            (whole, cut) => assert_eq!(whole, cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::TokioIo;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// An answer and what is in it.
    #[derive(Debug, Clone)]
    struct Written {
        method: Method,
        status: u16,
        body: Vec<u8>,
        bytes: Vec<u8>,
    }

    fn no_body(method: &Method, status: u16) -> bool {
        *method == Method::HEAD || matches!(status, 204 | 304)
    }

    /// Answers as RFC 9112 allows them.
    fn written() -> impl Strategy<Value = Written> {
        let method = prop_oneof![3 => Just(Method::POST), 2 => Just(Method::GET), 1 => Just(Method::HEAD)];
        let status = prop_oneof![4 => Just(200), 1 => Just(204), 1 => Just(304), 1 => Just(404), 1 => Just(503)];
        let interim = prop_oneof![3 => Just(""), 1 => Just("HTTP/1.1 100 Continue\r\n\r\n"),
            1 => Just("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 C\r\n\r\n")];
        let field =
            ("[a-z][a-z0-9-]{0,12}", "[!-~]([ !-~]{0,20}[!-~])?").prop_filter("a field of its own", |(name, _)| {
                !["connection", "content-length", "transfer-encoding", "trailer", "upgrade", "te"].contains(&&name[..])
            });
        let fields = proptest::collection::vec(field, 0..6);
        let chunk =
            (proptest::collection::vec(any::<u8>(), 1..60), prop_oneof![2 => Just(""), 1 => Just(";a=\"b c\"")]);
        let chunks = proptest::collection::vec(chunk, 0..6);
        let trailers = prop_oneof![3 => Just(""), 1 => Just("expires: never\r\nx: y\r\n")];
        let framing = 0..3_u8;
        (method, status, interim, fields, chunks, trailers, framing).prop_map(
            |(method, status, interim, fields, chunks, trailers, framing)| {
                let mut head = format!("{interim}HTTP/1.1 {status} Some Reason\r\n");
                for (name, value) in fields {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                let body = chunks.iter().flat_map(|(data, _)| data.iter().copied()).collect::<Vec<u8>>();
                let mut tail = Vec::new();
                match framing {
                    0 => {
                        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
                        tail.extend_from_slice(&body);
                    }
                    // RFC 9112 §6.1: not with a status that has no body.
                    1 if status != 204 => {
                        head.push_str("Transfer-Encoding: chunked\r\n");
                        for (data, extension) in &chunks {
                            tail.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                            tail.extend_from_slice(data);
                            tail.extend_from_slice(b"\r\n");
                        }
                        tail.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
                    }
                    _ => tail.extend_from_slice(&body),
                }
                let mut bytes = format!("{head}\r\n").into_bytes();
                let none = no_body(&method, status);
                if !none {
                    bytes.extend_from_slice(&tail);
                }
                Written { method, status, body: if none { Vec::new() } else { body }, bytes }
            },
        )
    }

    fn pieces(bytes: &[u8], lengths: &[usize]) -> Vec<Bytes> {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut out = Vec::new();
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            out.push(rest.split_to(rest.len().min((*length).max(1))));
        }
        out
    }

    /// What hyper's client makes of the same bytes; `None` when it refuses them.
    fn by_hyper(method: &Method, bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (client, mut engine) = tokio::io::duplex(1 << 20);
            let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.ok()?;
            let exchange = async move {
                let request = http::Request::builder().method(method).uri("/").body(Empty::<Bytes>::new()).ok()?;
                let asked = sender.send_request(request);
                let (answer, ()) = tokio::join!(asked, async {
                    // An answer before the request would not be one.
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(engine.read_u8().await.expect("a request"));
                    }
                    engine.write_all(bytes).await.expect("writes");
                    engine.shutdown().await.expect("ends");
                });
                let (head, body) = answer.ok()?.into_parts();
                let body = body.collect().await.ok()?.to_bytes().to_vec();
                drop(engine);
                Some((head.status, body))
            };
            let (seen, _ended) = tokio::join!(exchange, driver);
            seen
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn an_answer_is_read_as_it_was_meant_however_it_is_cut(
            written in written(),
            lengths in proptest::collection::vec(1..50_usize, 1..8),
        ) {
            let seen = read(&written.method, pieces(&written.bytes, &lengths), Then::Closes).expect("ends");
            let (status, _) = seen.head.clone().expect("a head");
            prop_assert_eq!((status.as_u16(), &seen.body), (written.status, &written.body));
            prop_assert!(seen.end != End::Refused);
            let whole = read(&written.method, [Bytes::from(written.bytes)], Then::Closes);
            prop_assert_eq!(whole, Some(seen));
        }

        #[test]
        fn an_answer_is_read_as_hyper_reads_it(written in written()) {
            let seen = read(&written.method, [Bytes::from(written.bytes.clone())], Then::Closes).expect("ends");
            let (status, _) = seen.head.expect("a head");
            prop_assert_eq!(by_hyper(&written.method, &written.bytes), Some((status, seen.body)));
        }

        #[test]
        fn a_damaged_answer_is_never_read_as_something_else_than_hyper_reads(
            written in written(),
            at in any::<proptest::sample::Index>(),
            damage in prop_oneof![
                Just("\r"), Just("\n"), Just("\0"), Just(" "), Just(":"), Just("0"), Just("f"), Just(";"), Just(","),
                Just("\r\n"), Just(""), Just("\r\n\r\n"), Just("Content-Length: 3\r\n"), Just("HTTP/1.0"),
                Just("Transfer-Encoding: chunked\r\n"),
            ],
            removed in 0..3_usize,
        ) {
            let mut bytes = written.bytes.clone();
            let at = at.index(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, damage.bytes());
            let seen = read(&written.method, [Bytes::from(bytes.clone())], Then::Closes).expect("ends");
            if let (Some((status, _)), true) = (seen.head, seen.end != End::Refused)
                && let Some((theirs, body)) = by_hyper(&written.method, &bytes)
            {
                prop_assert_eq!((status, seen.body), (theirs, body));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            answer(&data);
            let mut begun = vec![data.first().copied().unwrap_or_default()];
            begun.extend_from_slice(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            begun.extend_from_slice(&data);
            answer(&begun);
        }

        #[test]
        fn pieces_of_grammar_are_read_or_refused(
            first in any::<u8>(),
            words in proptest::collection::vec(prop_oneof![
                Just("HTTP/1.1 200 OK\r\n"), Just("HTTP/1.1 100 Continue\r\n\r\n"), Just("\r\n"), Just("\n"), Just("\r"),
                Just("content-length: 3\r\n"), Just("content-length: 4, 4\r\n"), Just("transfer-encoding: chunked\r\n"),
                Just("connection: close\r\n"), Just("3\r\nabc\r\n"), Just("3;x=y\r\n"), Just("0\r\n\r\n"), Just("0\r\n"),
                Just("abc"), Just(" "), Just("ffffffffffffffff\r\n"), Just("x: y\r\n"),
            ], 0..14),
        ) {
            let mut data = vec![first];
            data.extend_from_slice(words.concat().as_bytes());
            answer(&data);
        }
    }

    #[test]
    fn a_split_at_any_byte_changes_nothing() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2 \r\nlo\r\n00\r\nx: y\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        ] {
            let whole = read(&Method::GET, [Bytes::from_static(bytes)], Then::Closes).expect("ends");
            assert_eq!((&whole.body[..], whole.end != End::Refused), (&b"hello"[..], true));
            for at in 0..=bytes.len() {
                let bytes = Bytes::from_static(bytes);
                let cut = [bytes.slice(..at), bytes.slice(at..)];
                assert_eq!(read(&Method::GET, cut, Then::Closes).as_ref(), Some(&whole), "at {at}");
            }
        }
    }

    #[test]
    fn a_connection_is_used_again_only_after_a_clean_end() {
        for (bytes, method, end) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], Method::GET, End::Reusable),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Method::GET, End::Reusable),
            (b"HTTP/1.1 204 No Content\r\n\r\n", Method::DELETE, End::Reusable),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", Method::HEAD, End::Reusable),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Method::HEAD, End::Closing),
            (b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Method::GET, End::Closing),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", Method::GET, End::Closing),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", Method::GET, End::Closing),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", Method::GET, End::Closing),
        ] {
            let seen = read(&method, [Bytes::from_static(bytes)], Then::Waits).expect("ends");
            assert_eq!(seen.end, end, "{}", String::from_utf8_lossy(bytes));
            let closed = read(&method, [Bytes::from_static(bytes)], Then::Closes).expect("ends");
            assert_eq!(closed.end, End::Closing, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
