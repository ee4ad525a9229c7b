//! [`Connection`]: one HTTP/1.1 connection to an upstream, one exchange at a time, driven by whoever uses it.
//!
//! Used by [`super::pool`] and [`super::media_fetch`]. There is no task and no lock: bytes are read where they are wanted,
//! onto the stack, so that a connection between two pieces of a stream holds no buffer. Nothing polls it while it idles in
//! the pool, so a peer that closes is seen at the next use ([`Connection::rest`]) or when the pool sweeps. Why this is not
//! hyper's client: docs/adr/0012.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::connect::Stream;
use super::decoder::{Decoded, Decoder};
use super::message::{self, AnswerHead, Fields, Framing, MessageFault, Persistence};

/// Most bytes that one read takes. It is room on the stack of the thread.
const PIECE: usize = 16 << 10;
/// Interim answers (1xx) before one answer. A server has a reason for two: 100 and 103.
const MAX_INTERIM: usize = 16;

/// A connection. Dropping it closes it.
pub(super) struct Connection {
    stream: Stream,
    /// What of a request's body is not written although its answer has begun.
    unsent: Bytes,
    /// Frames the answer that is being read.
    decoder: Decoder,
    /// What of its body came with its head.
    arrived: Bytes,
    /// What is wrong after `arrived`.
    fault: Option<MessageFault>,
    persistence: Persistence,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
}

/// Why no answer began.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) fault: MessageFault,
    pub(super) heard: Heard,
}

/// Whether the other side said anything to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Not a byte: the connection ended.
    Nothing,
    /// Something.
    Something,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("persistence", &self.persistence).finish_non_exhaustive()
    }
}

impl Connection {
    /// A connection over an open stream.
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            unsent: Bytes::new(),
            decoder: Decoder::new(Framing::Length(0)),
            arrived: Bytes::new(),
            fault: None,
            persistence: Persistence::Keeps,
        }
    }

    /// Sends a request and waits for the head of its answer. Dropping the future leaves the connection unusable. An answer may begin
    /// before the body was sent; the rest is then sent while the answer is read.
    ///
    /// # Errors
    /// The connection is unusable then.
    pub(super) async fn send(&mut self, method: &Method, head: &[u8], body: &Bytes) -> Result<Begun, Unanswered> {
        // Until an answer has been read to its end.
        self.persistence = Persistence::Closes;
        let mut sending = Sending { head, body, sent: 0, seen: Vec::new(), looked_at: 0, interim: 0, ended: Ok(()) };
        poll_fn(|cx| self.poll_send(method, &mut sending, cx)).await
    }

    fn poll_send(
        &mut self,
        method: &Method,
        sending: &mut Sending<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Begun, Unanswered>> {
        sending.poll_write(&mut self.stream, cx);
        loop {
            let mut room = [const { MaybeUninit::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut room);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece));
            match read {
                // What the system said when writing failed tells more than that nothing can be read.
                Ok(()) if piece.filled().is_empty() => {
                    let fault =
                        if sending.heard() == Heard::Nothing { MessageFault::Closed } else { MessageFault::Cut };
                    return Poll::Ready(Err(sending.failed(fault)));
                }
                Err(error) => return Poll::Ready(Err(sending.failed(error.into()))),
                Ok(()) => {}
            }
            match self.begin(method, sending, piece.filled()) {
                Ok(None) => {}
                Ok(Some(begun)) => return Poll::Ready(Ok(begun)),
                Err(fault) => return Poll::Ready(Err(Unanswered { fault, heard: Heard::Something })),
            }
        }
    }

    /// Looks for the head of the answer in what has come, `piece` last.
    fn begin(
        &mut self,
        method: &Method,
        sending: &mut Sending<'_>,
        piece: &[u8],
    ) -> Result<Option<Begun>, MessageFault> {
        let mut kept = std::mem::take(&mut sending.seen);
        if !kept.is_empty() {
            kept.extend_from_slice(piece);
        }
        let bytes = if kept.is_empty() { piece } else { &kept };
        let mut at = 0;
        loop {
            let Some(head) = message::read_answer(&bytes[at..], sending.looked_at, method)? else {
                sending.looked_at = bytes.len() - at;
                if kept.is_empty() {
                    kept = piece[at..].to_vec();
                } else {
                    kept.drain(..at);
                }
                sending.seen = kept;
                return Ok(None);
            };
            let AnswerHead { status, fields, framing, persistence, length } = head;
            at += length;
            sending.looked_at = 0;
            if status.is_informational() {
                sending.interim += 1;
                if sending.interim > MAX_INTERIM {
                    return Err(MessageFault::Interim);
                }
                continue;
            }
            self.unsent = sending.rest()?;
            self.decoder = Decoder::new(framing);
            self.persistence = if sending.ended.is_ok() { persistence } else { Persistence::Closes };
            self.take(&bytes[at..]);
            return Ok(Some(Begun { status, fields }));
        }
    }

    fn take(&mut self, piece: &[u8]) {
        let Decoded { data, used, fault } = self.decoder.decode(piece);
        if used < piece.len() || fault.is_some() {
            // It goes on where nothing was asked, or with nonsense.
            self.persistence = Persistence::Closes;
        }
        self.arrived = data;
        self.fault = fault;
    }

    /// The next bytes of the answer's body; `None` at its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, MessageFault>>> {
        loop {
            if !self.arrived.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.arrived))));
            }
            if let Some(fault) = self.fault.take() {
                self.persistence = Persistence::Closes;
                return Poll::Ready(Some(Err(fault)));
            }
            if self.decoder.has_ended() {
                return Poll::Ready(None);
            }
            self.poll_unsent(cx);
            let mut room = [const { MaybeUninit::uninit() }; PIECE];
            let mut piece = ReadBuf::uninit(&mut room);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece)) {
                Err(error) => self.fault = Some(error.into()),
                Ok(()) if piece.filled().is_empty() => self.fault = self.decoder.closed().err(),
                Ok(()) => self.take(piece.filled()),
            }
        }
    }

    /// Goes on with a request whose answer began early.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.unsent) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) if written > 0 => drop(self.unsent.split_to(written)),
                Poll::Ready(Ok(_) | Err(_)) => {
                    // It wants no more: its answer says why.
                    self.persistence = Persistence::Closes;
                    self.unsent.clear();
                }
            }
        }
        // TLS keeps what was written until it is told to pass it on.
        if let Poll::Ready(Err(_)) = Pin::new(&mut self.stream).poll_flush(cx) {
            self.persistence = Persistence::Closes;
        }
    }

    /// Whether everything that will come of the answer's body has been given.
    pub(super) fn has_ended(&self) -> bool {
        self.decoder.has_ended() && self.arrived.is_empty() && self.fault.is_none()
    }

    /// Whether nothing more of the answer's body has to be read from the stream.
    pub(super) fn has_come(&self) -> bool {
        self.decoder.has_ended() && self.fault.is_none()
    }

    /// How much of the answer's body is still to be given, where its framing tells.
    pub(super) fn left(&self) -> Option<u64> {
        Some(self.decoder.left()? + self.arrived.len() as u64)
    }

    /// Takes what has come of an answer that [`Self::has_come`].
    pub(super) fn take_arrived(&mut self) -> Bytes {
        std::mem::take(&mut self.arrived)
    }

    /// Whether it can take a request now: its last exchange has ended well, and the other side has neither closed it nor
    /// said anything since. Nobody is woken by it later.
    pub(super) fn rest(&mut self) -> bool {
        if self.persistence == Persistence::Closes || !self.unsent.is_empty() || !self.has_ended() {
            return false;
        }
        let mut room = [const { MaybeUninit::uninit() }; 1];
        let mut byte = ReadBuf::uninit(&mut room);
        let mut nobody = Context::from_waker(Waker::noop());
        let silent = Pin::new(&mut self.stream).poll_read(&mut nobody, &mut byte).is_pending();
        if !silent {
            self.persistence = Persistence::Closes;
        }
        silent
    }
}

/// A request on its way.
struct Sending<'a> {
    head: &'a [u8],
    body: &'a Bytes,
    /// How much of both is written.
    sent: usize,
    /// What came of a head that is not complete.
    seen: Vec<u8>,
    /// How much of that was looked through.
    looked_at: usize,
    /// Interim answers that came.
    interim: usize,
    /// What became of the writing: with a fault there may be an answer all the same.
    ended: io::Result<()>,
}

impl Sending<'_> {
    fn total(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Writes as much as the stream takes.
    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) {
        while self.sent < self.total() && self.ended.is_ok() {
            let written = match self.sent.checked_sub(self.head.len()) {
                None => {
                    let both = [IoSlice::new(&self.head[self.sent..]), IoSlice::new(self.body)];
                    Pin::new(&mut *stream).poll_write_vectored(cx, &both)
                }
                Some(sent) => Pin::new(&mut *stream).poll_write(cx, &self.body[sent..]),
            };
            match written {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.ended = Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => self.sent += written,
                Poll::Ready(Err(error)) => self.ended = Err(error),
            }
        }
        // TLS keeps what was written until it is told to pass it on.
        if let Poll::Ready(Err(error)) = Pin::new(stream).poll_flush(cx)
            && self.ended.is_ok()
        {
            self.ended = Err(error);
        }
    }

    fn heard(&self) -> Heard {
        if self.seen.is_empty() && self.interim == 0 { Heard::Nothing } else { Heard::Something }
    }

    fn failed(&mut self, fault: MessageFault) -> Unanswered {
        let fault = std::mem::replace(&mut self.ended, Ok(())).err().map_or(fault, MessageFault::Io);
        Unanswered { fault, heard: self.heard() }
    }

    /// What of the body is not written now that the answer begins.
    fn rest(&self) -> Result<Bytes, MessageFault> {
        match self.sent.checked_sub(self.head.len()) {
            None => Err(MessageFault::Unasked),
            Some(_) if self.ended.is_err() => Ok(Bytes::new()),
            Some(sent) => Ok(self.body.slice(sent..)),
        }
    }
}
