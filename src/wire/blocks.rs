//! An answer as blocks that never overlap: reasoning, text and tool calls, each with a start, its pieces and an end.
//!
//! Called by the writers of dialects whose streams are such blocks. OpenAI's chunks may mix the fragments of parallel
//! calls; here one call is told at a time and the others wait for their turn. Must never hold back text.

use crate::wire::openai_chunk::{Call, CallState, Calls, Piece};
use crate::wire::openai_tap::StreamFault;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Reasoning,
    Text,
    /// The call at this place.
    Call(usize),
}

/// A block to be written; `call` is there for calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) block: Block,
    pub(crate) call: Option<&'a Call>,
}

/// Writes blocks in one dialect.
pub(crate) trait BlockWriter {
    /// A block begins.
    fn open(&mut self, told: Told<'_>, out: &mut Vec<u8>);
    /// The open block goes on.
    fn piece(&mut self, block: Block, text: &str, out: &mut Vec<u8>);
    /// The open block ends.
    fn close(&mut self, told: Told<'_>, out: &mut Vec<u8>);
}

/// Puts an answer into blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    open: Option<Block>,
    pub(crate) calls: Calls,
}

impl Blocks {
    /// Takes what a chunk adds.
    ///
    /// # Errors
    /// A piece belongs to a call that was told to its end already.
    pub(crate) fn add(
        &mut self,
        piece: &Piece<'_>,
        writer: &mut impl BlockWriter,
        out: &mut Vec<u8>,
    ) -> Result<(), StreamFault> {
        for (block, text) in [(Block::Reasoning, &piece.reasoning), (Block::Text, &piece.content)] {
            if let Some(text) = text {
                if self.open != Some(block) {
                    self.close(writer, out);
                    self.tell_waiting(writer, out)?;
                    self.open(block, writer, out);
                }
                writer.piece(block, text, out);
            }
        }
        for call in &piece.calls {
            let place = self.calls.add(call)?;
            self.tell(place, writer, out);
        }
        Ok(())
    }

    /// The answer has ended: everything is told.
    ///
    /// # Errors
    /// A call never got a name.
    pub(crate) fn end(&mut self, writer: &mut impl BlockWriter, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        self.close(writer, out);
        self.tell_waiting(writer, out)
    }

    /// Passes on what there is of a call, when it is its turn.
    fn tell(&mut self, place: usize, writer: &mut impl BlockWriter, out: &mut Vec<u8>) {
        if self.open != Some(Block::Call(place)) {
            let open_call = match self.open {
                Some(Block::Call(open)) => Some(open),
                Some(Block::Text | Block::Reasoning) | None => None,
            };
            // The open call is told first, to its end, which a whole value is.
            let is_busy = open_call.and_then(|open| self.calls.get(open)).is_some_and(|call| !call.is_whole());
            // Without a name there is nothing to open yet.
            let is_nameless = self.calls.get(place).is_none_or(|call| call.name.is_empty());
            if is_busy || is_nameless || self.calls.unfinished_before(place, open_call) {
                return;
            }
            self.close(writer, out);
            self.open(Block::Call(place), writer, out);
        }
        self.write_rest(place, writer, out);
    }

    fn open(&mut self, block: Block, writer: &mut impl BlockWriter, out: &mut Vec<u8>) {
        if let Block::Call(place) = block
            && let Some(call) = self.calls.at(place)
        {
            call.state = CallState::Open;
        }
        writer.open(self.told(block), out);
        self.open = Some(block);
    }

    fn close(&mut self, writer: &mut impl BlockWriter, out: &mut Vec<u8>) {
        let Some(block) = self.open.take() else { return };
        if let Block::Call(place) = block {
            self.write_rest(place, writer, out);
            if let Some(call) = self.calls.at(place) {
                call.state = CallState::Closed;
            }
        }
        writer.close(self.told(block), out);
    }

    /// Tells the calls that waited for their turn, each whole.
    fn tell_waiting(&mut self, writer: &mut impl BlockWriter, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        while let Some(place) = self.calls.unfinished() {
            if self.calls.get(place).is_some_and(|call| call.name.is_empty()) {
                return Err(StreamFault::Garbage("a tool call without a name".to_owned()));
            }
            self.open(Block::Call(place), writer, out);
            self.close(writer, out);
        }
        Ok(())
    }

    /// Writes what has come of a call's arguments and was not written yet.
    fn write_rest(&mut self, place: usize, writer: &mut impl BlockWriter, out: &mut Vec<u8>) {
        let Some(call) = self.calls.at(place) else { return };
        if call.written < call.arguments.len() {
            writer.piece(Block::Call(place), &call.arguments[call.written..], out);
            call.written = call.arguments.len();
        }
    }

    fn told(&self, block: Block) -> Told<'_> {
        let call = match block {
            Block::Call(place) => self.calls.get(place),
            Block::Text | Block::Reasoning => None,
        };
        Told { block, call }
    }
}
