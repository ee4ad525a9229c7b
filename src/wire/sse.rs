//! Server-sent events: splits a byte stream into whole event blocks, whatever the borders of its pieces.
//!
//! Called by [`crate::wire::openai_tap`] for every piece of every stream, so the common case (a piece that ends where
//! an event ends) must neither copy nor look at a byte twice. Must never hold back more than one unfinished
//! event, nor more than [`MAX_EVENT`].

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Longest event that is waited for. The largest real ones are chunks with log probabilities or inline audio,
/// well under 1 MiB; an engine that sends this much without a blank line is broken.
pub const MAX_EVENT: usize = 8 * 1024 * 1024;

/// An event or line grew beyond its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {limit} bytes came without an end of event")]
pub struct TooLong {
    /// The limit in bytes.
    pub limit: usize,
}

/// Cuts pieces at the borders of events. Keeps the unfinished rest for the next piece.
#[derive(Debug)]
pub struct Splitter {
    tail: BytesMut,
    /// How much of `tail` was searched for a border already, so that a long event costs linear time.
    searched: usize,
    limit: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::with_limit(MAX_EVENT)
    }
}

impl Splitter {
    /// A splitter at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for events of up to `limit` bytes: those with whole images in them.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { tail: BytesMut::new(), searched: 0, limit }
    }

    /// Takes a piece; answers all events that are whole now, as one run of bytes (empty when there is none).
    ///
    /// A piece that begins and ends with whole events is answered as it is, without copying.
    pub fn push(&mut self, piece: Bytes) -> Result<Bytes, TooLong> {
        if self.tail.is_empty() {
            let Some(end) = last_border(&piece) else {
                return self.keep(&piece);
            };
            if end < piece.len() {
                self.keep(&piece[end..])?;
                return Ok(piece.slice(..end));
            }
            return Ok(piece);
        }
        // A border is at most three bytes, so two of the searched ones can be its beginning.
        let from = self.searched.saturating_sub(2);
        self.tail.extend_from_slice(&piece);
        if let Some(end) = last_border(&self.tail[from..]) {
            let whole = self.tail.split_to(from + end).freeze();
            self.searched = self.tail.len();
            return Ok(whole);
        }
        self.searched = self.tail.len();
        self.within_limit()
    }

    /// The body has ended: the unfinished rest, if any.
    pub fn finish(&mut self) -> Option<Bytes> {
        self.searched = 0;
        (!self.tail.is_empty()).then(|| self.tail.split().freeze())
    }

    fn keep(&mut self, rest: &[u8]) -> Result<Bytes, TooLong> {
        self.tail.extend_from_slice(rest);
        self.searched = self.tail.len();
        self.within_limit()
    }

    fn within_limit(&self) -> Result<Bytes, TooLong> {
        if self.tail.len() > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        Ok(Bytes::new())
    }
}

/// The end of the last blank line in `bytes`: an event ends at `\n\n` or `\n\r\n` (which `\r\n\r\n` ends with).
fn last_border(bytes: &[u8]) -> Option<usize> {
    if bytes.ends_with(b"\n\n") || bytes.ends_with(b"\n\r\n") {
        return Some(bytes.len());
    }
    let mut end = bytes.len();
    while let Some(newline) = memchr::memrchr(b'\n', &bytes[..end]) {
        let before = &bytes[..newline];
        if before.ends_with(b"\n") || before.ends_with(b"\n\r") {
            return Some(newline + 1);
        }
        end = newline;
    }
    None
}

/// What the lines of a block hold besides its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// At most one `data:` line, and comments: may be passed on as it is.
    Plain,
    /// `event:`, `id:`, `retry:`, unknown fields or several `data:` lines: must be written anew for a client
    /// of a chat stream (SPEC §4.4).
    Decorated,
}

/// One event block: its lines up to and including the blank one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<'a> {
    /// Where it stands in the run of bytes.
    pub range: Range<usize>,
    /// The content of its `data:` lines, joined by newlines; `None` when it has none (comments).
    pub data: Option<Cow<'a, [u8]>>,
    /// The content of its `event:` line.
    pub name: Option<&'a [u8]>,
    /// Whether it can be passed on as it is.
    pub framing: Framing,
}

/// The blocks of a run as [`Splitter::push`] answers it. A last block without a blank line is given too.
#[must_use]
pub fn blocks(run: &[u8]) -> Blocks<'_> {
    Blocks { run, at: 0 }
}

/// Iterator over [`Block`]s.
#[derive(Debug, Clone)]
pub struct Blocks<'a> {
    run: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        if self.at >= self.run.len() {
            return None;
        }
        let start = self.at;
        let mut block = Block { range: start..start, data: None, name: None, framing: Framing::Plain };
        while self.at < self.run.len() {
            let rest = &self.run[self.at..];
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
            self.at = (self.at + length + 1).min(self.run.len());
            if line.is_empty() {
                break;
            }
            read_line(line, &mut block);
        }
        block.range.end = self.at;
        Some(block)
    }
}

fn read_line<'a>(line: &'a [u8], block: &mut Block<'a>) {
    if let Some(value) = line.strip_prefix(b"data:") {
        let value = value.strip_prefix(b" ").unwrap_or(value);
        block.data = Some(match block.data.take() {
            None => Cow::Borrowed(value),
            Some(earlier) => {
                block.framing = Framing::Decorated;
                let mut joined = earlier.into_owned();
                joined.push(b'\n');
                joined.extend_from_slice(value);
                Cow::Owned(joined)
            }
        });
    } else if !line.starts_with(b":") {
        block.framing = Framing::Decorated;
        if let Some(name) = line.strip_prefix(b"event:") {
            block.name = Some(name.strip_prefix(b" ").unwrap_or(name));
        }
    }
}

/// Writes data as one event. Line ends inside JSON are only white space, so they become spaces.
#[must_use]
pub fn event(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 8);
    out.extend_from_slice(b"data: ");
    let start = out.len();
    out.extend_from_slice(data);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
    out.freeze()
}

/// Keeps proxies and clients awake while nothing comes; every reader of server-sent events skips comments.
pub const COMMENT: Bytes = Bytes::from_static(b": waiting\n\n");

/// The event that ends a stream of OpenAI's API.
pub const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]]) -> Vec<u8> {
        let mut splitter = Splitter::new();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&splitter.push(Bytes::copy_from_slice(piece)).expect("short"));
        }
        out.extend_from_slice(&splitter.finish().unwrap_or_default());
        out
    }

    #[test]
    fn a_piece_of_whole_events_is_passed_without_copying() {
        let piece = Bytes::from_static(b"data: {}\n\ndata: [DONE]\n\n");
        let out = Splitter::new().push(piece.clone()).expect("short");
        assert_eq!(out.as_ptr(), piece.as_ptr());
        assert_eq!(out, piece);
    }

    #[test]
    fn an_unfinished_event_waits_for_its_end() {
        let mut splitter = Splitter::new();
        assert_eq!(&splitter.push(Bytes::from_static(b"data: 1\n\ndata: 2\r\n\r")).expect("short")[..], b"data: 1\n\n");
        assert_eq!(&splitter.push(Bytes::from_static(b"\ndata: 3")).expect("short")[..], b"data: 2\r\n\r\n");
        assert_eq!(splitter.finish().as_deref(), Some(&b"data: 3"[..]));
    }

    #[test]
    fn an_endless_event_is_a_fault() {
        let mut splitter = Splitter::new();
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        let fault = (0..20).find_map(|_| splitter.push(piece.clone()).err());
        assert_eq!(fault, Some(TooLong { limit: MAX_EVENT }));
    }

    #[test]
    fn blocks_tell_data_names_and_framing() {
        let run = b": ping\n\ndata: a\n\nevent: error\r\ndata: b\r\ndata:c\r\n\r\nid: 7\n\n";
        let seen: Vec<_> =
            blocks(run).map(|b| (b.data.map(Cow::into_owned), b.name.map(<[u8]>::to_vec), b.framing)).collect();
        assert_eq!(
            seen,
            [
                (None, None, Framing::Plain),
                (Some(b"a".to_vec()), None, Framing::Plain),
                (Some(b"b\nc".to_vec()), Some(b"error".to_vec()), Framing::Decorated),
                (None, None, Framing::Decorated),
            ]
        );
    }

    proptest! {
        #[test]
        fn borders_of_pieces_never_change_the_content(
            content in proptest::collection::vec(prop_oneof![
                Just("data: {\"a\":1}"), Just("\n"), Just("\n\n"), Just("\r\n"), Just("\r\n\r\n"),
                Just(": ping"), Just("id: 1"), Just("data: é"),
            ], 0..40),
            cuts in proptest::collection::vec(0usize..400, 0..12),
        ) {
            let whole: Vec<u8> = content.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.push(0);
            cuts.push(whole.len());
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &whole[w[0]..w[1]]).collect();
            prop_assert_eq!(split(&pieces), whole.clone());

            let at_once: Vec<_> = blocks(&whole).map(|b| b.data.map(Cow::into_owned)).collect();
            let mut splitter = Splitter::new();
            let mut one_by_one = Vec::new();
            for piece in &pieces {
                let run = splitter.push(Bytes::copy_from_slice(piece)).expect("short");
                one_by_one.extend(blocks(&run).map(|b| b.data.map(Cow::into_owned)));
            }
            if let Some(rest) = splitter.finish() {
                one_by_one.extend(blocks(&rest).map(|b| b.data.map(Cow::into_owned)));
            }
            // An empty line more or less makes an empty block, which carries nothing.
            prop_assert_eq!(
                one_by_one.into_iter().flatten().collect::<Vec<_>>(),
                at_once.into_iter().flatten().collect::<Vec<_>>()
            );
        }
    }
}
