//! [`HeadLines`]: sees heads that frame their body twice, by a length and by a transfer coding (RFC 9112 §6.3). hyper goes by the
//! coding and takes the length away before anybody can see it; whatever stands in front of FLM may have gone by the length.
//!
//! Used by `connection` on what is read of HTTP/1.1, heads and bodies alike, and asked by `sanity` about requests with a coding only,
//! which few have. It knows no more of HTTP than how lines begin: a body with such lines can at most have a later request in chunks
//! of its own connection refused.

/// Longest beginning of a line that matters.
const LONGEST: usize = CODING.len();
const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";
/// The end of a head as every client writes it.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// In a request's extensions: its head, or one before it on the connection, framed its body twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct FramedTwice;

/// How the lines of a stream begin, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct HeadLines {
    start: [u8; LONGEST],
    /// How much of it the running line has.
    length: usize,
    /// What the lines since the last empty one told; an empty one ends a head.
    has_length: bool,
    has_coding: bool,
    framed_twice: bool,
}

impl HeadLines {
    /// Takes what came; answers whether any head so far framed its body twice.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        let from = self.harmless(bytes);
        self.walk(&bytes[from..]);
        self.framed_twice
    }

    /// How much of what came need not be walked, line by line: up to the end of a head, where nothing has begun before that matters
    /// and no coding is named. Most requests come in one piece and have none.
    fn harmless(&mut self, bytes: &[u8]) -> usize {
        let goes_on = matches!(self.start[..self.length], [b'c' | b'C' | b't' | b'T', ..]);
        if goes_on || self.has_length || self.has_coding || names_a_coding(bytes) {
            return 0;
        }
        let Some(end) = memchr::memmem::rfind(bytes, HEAD_END) else { return 0 };
        // A line begins.
        self.length = 0;
        end + HEAD_END.len()
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes);
            let line = &bytes[..end.unwrap_or(bytes.len())];
            let wanted = line.len().min(LONGEST - self.length);
            self.start[self.length..self.length + wanted].copy_from_slice(&line[..wanted]);
            self.length += wanted;
            let Some(end) = end else { break };
            self.ended();
            bytes = &bytes[end + 1..];
        }
    }

    fn ended(&mut self) {
        let start = &self.start[..self.length];
        let begins = |name: &[u8]| start.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if matches!(start, [] | [b'\r']) {
            (self.has_length, self.has_coding) = (false, false);
        } else {
            self.has_length |= begins(LENGTH);
            self.has_coding |= begins(CODING);
            self.framed_twice |= self.has_length && self.has_coding;
        }
        self.length = 0;
    }
}

/// Whether [`CODING`] may stand in there, by the rarest two letters of it that are neighbours.
fn names_a_coding(bytes: &[u8]) -> bool {
    memchr::memchr2_iter(b'f', b'F', bytes).any(|at| at > 0 && matches!(bytes[at - 1], b's' | b'S'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_out_never_changes_the_answer(
            lines in proptest::collection::vec(
                prop::sample::select(vec![
                    "POST / HTTP/1.1", "", "", "Content-Length: 5", "transfer-encoding: chunked", "TRANSFER-ENCODING:x",
                    "c", "trans", "host: sfsf", "{\"a\": 1}", "x-content-length: 1",
                ]),
                0..24,
            ),
            ends in proptest::collection::vec(prop::sample::select(vec!["\r\n", "\r\n", "\n", ""]), 24),
            pieces in proptest::collection::vec(1_usize..60, 1..12),
        ) {
            let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
            let (mut quick, mut walked) = (HeadLines::default(), HeadLines::default());
            let mut rest = text.as_bytes();
            for size in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, left) = rest.split_at((*size).min(rest.len()));
                rest = left;
                walked.walk(piece);
                prop_assert_eq!(quick.take(piece), walked.framed_twice, "{:?}", text);
            }
        }
    }

    fn framed_twice(text: &str, piece: usize) -> bool {
        let mut lines = HeadLines::default();
        text.as_bytes().chunks(piece).fold(false, |_, bytes| lines.take(bytes))
    }

    #[test]
    fn a_head_with_both_is_seen_however_it_is_cut_and_written() {
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nhost: x\r\ncontent-length:5\r\n\r\n",
            "POST / HTTP/1.1\nCONTENT-LENGTH: 5\nTRANSFER-ENCODING: chunked\n\n",
            "\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            for piece in 1..=head.len() {
                assert!(framed_twice(head, piece), "{head:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn one_of_them_others_and_those_of_two_heads_are_none() {
        for head in [
            "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nx-content-length: 5\r\ncontent-transfer-encoding: a\r\ncontent-length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nx: content-length: 5\r\ntransfer-encodings: a\r\ntransfer-encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 60\r\n\r\n{\"content\": \"transfer-encoding: chunked\"}",
        ] {
            for piece in 1..=head.len() {
                assert!(!framed_twice(head, piece), "{head:?} in pieces of {piece}");
            }
        }
    }
}
