//! [`Decoder`]: takes the framing off the body of an answer (RFC 9112 §6, §7), whatever pieces it comes in.
//!
//! Called by [`super::connection`] alone. Does no I/O and keeps no bytes: what has no framing goes out as soon as it came,
//! so that a stream that rests holds nothing.

use bytes::Bytes;

use super::message::{Framing, MessageFault};

/// Longest line that a chunk may begin with: its size and extensions, which no engine sends.
const MAX_CHUNK_LINE: u32 = 1 << 10;
/// Most bytes of trailers, which are dropped.
const MAX_TRAILERS: u32 = 16 << 10;

/// Takes the framing off.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// Bytes of framing in a row.
    overhead: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left; none: the body has ended.
    Length(u64),
    /// Until the connection is closed.
    UntilClose,
    /// In the digits of a chunk's size, and whether there was one.
    Size {
        size: u64,
        begun: bool,
    },
    /// Blanks between the size and what follows it.
    Blank(u64),
    /// An extension, which is passed over.
    Extension(u64),
    /// The line of the size ends.
    SizeEnd(u64),
    /// So many bytes of the chunk are left.
    Data(u64),
    /// The chunk ends.
    DataCarriage,
    DataEnd,
    /// A trailer or the last line begins.
    Trailers,
    /// In a trailer.
    Trailer,
    /// A trailer ends.
    TrailerEnd,
    /// The last line ends.
    LastEnd,
}

/// What came of a piece.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The body's own bytes.
    pub(super) data: Bytes,
    /// How many bytes of the piece belong to the body; the rest comes after its end.
    pub(super) used: usize,
    /// What is wrong after `data`.
    pub(super) fault: Option<MessageFault>,
}

impl Decoder {
    /// For a body that is framed so.
    pub(super) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { size: 0, begun: false },
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, overhead: 0 }
    }

    /// Whether all of it has come.
    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Length(0)
    }

    /// How much is still to come, where its framing tells.
    pub(super) fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The connection was closed.
    ///
    /// # Errors
    /// When that was too early.
    pub(super) fn closed(&mut self) -> Result<(), MessageFault> {
        match self.state {
            State::UntilClose | State::Length(0) => {
                self.state = State::Length(0);
                Ok(())
            }
            _ => Err(MessageFault::Cut),
        }
    }

    /// Takes a piece.
    pub(super) fn decode(&mut self, piece: &[u8]) -> Decoded {
        match self.state {
            State::UntilClose => Decoded { data: Bytes::copy_from_slice(piece), used: piece.len(), fault: None },
            State::Length(left) => {
                let used = within(left, piece.len());
                self.state = State::Length(left - used as u64);
                Decoded { data: Bytes::copy_from_slice(&piece[..used]), used, fault: None }
            }
            _ => self.decode_chunks(piece),
        }
    }

    /// What is in all chunks of a piece goes out together.
    fn decode_chunks(&mut self, piece: &[u8]) -> Decoded {
        let mut data = Vec::new();
        let mut used = 0;
        let mut fault = None;
        while used < piece.len() && !self.has_ended() {
            if let State::Data(left) = self.state {
                let length = within(left, piece.len() - used);
                data.extend_from_slice(&piece[used..used + length]);
                used += length;
                let left = left - length as u64;
                self.state = if left == 0 { State::DataCarriage } else { State::Data(left) };
                continue;
            }
            match self.step(piece[used]) {
                Ok(next) => self.state = next,
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
            used += 1;
        }
        Decoded { data: data.into(), used, fault }
    }

    /// One byte of framing.
    fn step(&mut self, byte: u8) -> Result<State, MessageFault> {
        self.overhead += 1;
        let limit = match self.state {
            State::Trailers | State::Trailer | State::TrailerEnd | State::LastEnd => MAX_TRAILERS,
            _ => MAX_CHUNK_LINE,
        };
        if self.overhead > limit {
            return Err(MessageFault::Chunk);
        }
        Ok(match (self.state, byte) {
            (State::Size { size, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                let size = size.checked_mul(16).ok_or(MessageFault::Chunk)? + u64::from(digit);
                State::Size { size, begun: true }
            }
            // Blanks are "bad whitespace", which recipients must take (RFC 9112 §7.1.1).
            (State::Size { size, begun: true } | State::Blank(size), b' ' | b'\t') => State::Blank(size),
            (State::Size { size, begun: true } | State::Blank(size) | State::Extension(size), b'\r') => {
                State::SizeEnd(size)
            }
            // Any other control character could be the end of a line to somebody.
            (State::Size { size, begun: true } | State::Blank(size), b';')
            | (State::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => State::Extension(size),
            (State::SizeEnd(size), b'\n') => {
                self.overhead = 0;
                if size == 0 { State::Trailers } else { State::Data(size) }
            }
            (State::DataCarriage, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => {
                self.overhead = 0;
                State::Size { size: 0, begun: false }
            }
            (State::Trailers, b'\r') => State::LastEnd,
            (State::Trailer, b'\r') => State::TrailerEnd,
            // A blank at the beginning would go on with the line before it, which is obsolete (RFC 9112 §5.2).
            (State::Trailers, b'!'..=b'~') | (State::Trailer, b'\t' | b' '..=b'~' | 0x80..) => State::Trailer,
            (State::TrailerEnd, b'\n') => State::Trailers,
            (State::LastEnd, b'\n') => State::Length(0),
            _ => return Err(MessageFault::Chunk),
        })
    }
}

/// The smaller of a count of the wire and a length of this machine.
fn within(left: u64, length: usize) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a body gives in one piece.
    fn whole(framing: Framing, body: &[u8]) -> (Bytes, usize, bool, bool) {
        let mut decoder = Decoder::new(framing);
        let Decoded { data, used, fault } = decoder.decode(body);
        (data, used, fault.is_some(), decoder.has_ended())
    }

    #[test]
    fn chunks_are_put_together_and_what_follows_is_left() {
        for (body, data, left) in [
            ("0\r\n\r\n", "", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nHTTP/1.1", "hello world", 8),
            ("A;a=b;c=\"d e\"\r\n0123456789\r\n000 ; x\r\n\r\n", "0123456789", 0),
            ("a \t\r\n0123456789\r\n0\r\nExpires: now\r\nx: y\r\n\r\n", "0123456789", 0),
            ("0000000000000001\r\nx\r\n0\r\n\r\n", "x", 0),
        ] {
            let (seen, used, faulty, ended) = whole(Framing::Chunked, body.as_bytes());
            assert_eq!((&seen[..], body.len() - used, faulty, ended), (data.as_bytes(), left, false, true), "{body:?}");
        }
    }

    #[test]
    fn what_came_before_a_fault_is_given_and_the_fault_is_told() {
        for (body, data) in [
            ("\r\n", ""),
            ("x\r\n", ""),
            (" 5\r\nhello", ""),
            ("+5\r\nhello", ""),
            ("-5\r\nhello", ""),
            ("0x5\r\nhello", ""),
            (";a\r\nhello", ""),
            ("5\nhello", ""),
            ("5\rhello", ""),
            ("5 5\r\nhello", ""),
            ("5;a\nhello", ""),
            ("5;a\0\r\nhello", ""),
            ("10000000000000000\r\nhello", ""),
            ("5\r\nhelloworld", "hello"),
            ("5\r\nhello\n0\r\n\r\n", "hello"),
            ("5\r\nhello\r0\r\n\r\n", "hello"),
            ("5\r\nhello\r\nz", "hello"),
            ("5\r\nhello\r\n0\r\n x\r\n\r\n", "hello"),
            ("5\r\nhello\r\n0\r\nx\n\r\n", "hello"),
            ("5\r\nhello\r\n0\r\nx\ry\r\n\r\n", "hello"),
            ("5\r\nhello\r\n0\r\n\rx", "hello"),
        ] {
            let (seen, _, faulty, ended) = whole(Framing::Chunked, body.as_bytes());
            assert_eq!((&seen[..], faulty, ended), (data.as_bytes(), true, false), "{body:?}");
        }
    }

    #[test]
    fn a_line_of_framing_and_trailers_have_limits_and_many_chunks_have_none() {
        let extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(MAX_CHUNK_LINE as usize));
        assert!(whole(Framing::Chunked, extension.as_bytes()).2);
        let zeros = format!("{}1\r\nx\r\n0\r\n\r\n", "0".repeat(MAX_CHUNK_LINE as usize));
        assert!(whole(Framing::Chunked, zeros.as_bytes()).2);
        let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(MAX_TRAILERS as usize / 6 + 1));
        assert!(whole(Framing::Chunked, trailers.as_bytes()).2);
        let many = format!("{}0\r\n\r\n", "1;a=b\r\nx\r\n".repeat(10_000));
        let (data, _, faulty, ended) = whole(Framing::Chunked, many.as_bytes());
        assert_eq!((data.len(), faulty, ended), (10_000, false, true));
    }

    #[test]
    fn a_length_ends_where_it_says_and_a_close_only_ends_what_it_may() {
        assert_eq!(whole(Framing::Length(5), b"hello world"), (Bytes::from_static(b"hello"), 5, false, true));
        assert_eq!(whole(Framing::Length(u64::MAX), b"x"), (Bytes::from_static(b"x"), 1, false, false));
        for (framing, body, whole) in [
            (Framing::Length(5), &b"hell"[..], false),
            (Framing::Length(5), b"hello", true),
            (Framing::UntilClose, b"hello", true),
            (Framing::Chunked, b"5\r\nhello\r\n", false),
            (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r", false),
            (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\n", true),
        ] {
            let mut decoder = Decoder::new(framing);
            decoder.decode(body);
            assert_eq!(decoder.closed().is_ok(), whole, "{framing:?} {body:?}");
            assert!(!whole || decoder.has_ended());
        }
    }
}
