//! Newline-delimited JSON: splits a byte stream into whole lines, whatever the borders of its pieces.
//!
//! Called by `engines::ollama` and `control`. Must never hold back more than one unfinished line.

use bytes::{Bytes, BytesMut};

use crate::wire::sse::{MAX_EVENT, TooLong};

/// Cuts pieces at line ends. Keeps the unfinished rest for the next piece.
#[derive(Debug, Default)]
pub struct LineSplitter {
    tail: BytesMut,
}

impl LineSplitter {
    /// A splitter at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a piece; answers all lines that are whole now, as one run of bytes (empty when there is none).
    pub fn push(&mut self, piece: &Bytes) -> Result<Bytes, TooLong> {
        let Some(end) = memchr::memrchr(b'\n', piece) else {
            self.tail.extend_from_slice(piece);
            if self.tail.len() > MAX_EVENT {
                return Err(TooLong { limit: MAX_EVENT });
            }
            return Ok(Bytes::new());
        };
        let (whole, rest) = (piece.slice(..=end), piece.slice(end + 1..));
        if self.tail.is_empty() {
            self.tail.extend_from_slice(&rest);
            return Ok(whole);
        }
        self.tail.extend_from_slice(&whole);
        let run = self.tail.split().freeze();
        self.tail.extend_from_slice(&rest);
        Ok(run)
    }

    /// The body has ended: the last line, if it had no line end.
    pub fn finish(&mut self) -> Option<Bytes> {
        (!self.tail.is_empty()).then(|| self.tail.split().freeze())
    }
}

/// The lines of a run that hold more than white space.
pub fn lines(run: &[u8]) -> impl Iterator<Item = &[u8]> {
    run.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_endless_line_is_a_fault() {
        let mut splitter = LineSplitter::new();
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        let fault = (0..20).find_map(|_| splitter.push(&piece).err());
        assert_eq!(fault, Some(TooLong { limit: MAX_EVENT }));
    }

    proptest! {
        #[test]
        fn borders_of_pieces_never_change_the_lines(
            whole in "[a-z\n\r]{0,200}", cuts in proptest::collection::vec(0usize..200, 0..10),
        ) {
            let whole = whole.into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut splitter = LineSplitter::new();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for window in cuts.windows(2) {
                let run = splitter.push(&Bytes::copy_from_slice(&whole[window[0]..window[1]])).expect("short");
                seen.extend(lines(&run).map(<[u8]>::to_vec));
            }
            seen.extend(splitter.finish().iter().flat_map(|rest| lines(rest)).map(<[u8]>::to_vec));
            prop_assert_eq!(seen, lines(&whole).map(<[u8]>::to_vec).collect::<Vec<_>>());
        }
    }
}
