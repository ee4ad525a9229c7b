//! [`Stream`]: the body of a streamed answer. Reads the engine's body through its reader, writes the
//! client's dialect, and owns everything that must end when the client goes away (SPEC §4.3).

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::account::{Account, Stage};
use super::refusal::{Refusal, RefusedBy};
use super::relay::{self, Attempt, Failed, Started};
use crate::types::ids::RequestId;
use crate::types::request::RequestEnd;
use crate::wire::client::ClientWriter;

/// How long an engine's body may stay open after its answer was complete. The end is waited for because the connection
/// can be used again only then; a client that reads to the end of the body (openai-node does) must not wait with it.
const LINGER: Duration = Duration::from_millis(100);

/// A streamed answer.
pub(super) struct Stream {
    phase: Phase,
    /// Puts what the engine says into the client's words.
    client: ClientWriter,
    id: RequestId,
    /// Set by `finish` before the body is handed to hyper.
    account: Option<Account>,
    out: VecDeque<Bytes>,
    bytes_out: u64,
    /// Fires when something is due; what, is decided by looking at the phase.
    timer: Pin<Box<Sleep>>,
    heartbeat: Duration,
    /// Fires when the key is revoked.
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
}

enum Phase {
    /// No engine has sent anything yet.
    Waiting(Attempt),
    /// The engine sends.
    Flowing { started: Box<Started>, last: Instant },
    /// Everything for the client is in `out`.
    Ended,
}

impl Stream {
    /// A stream whose engine has begun in time.
    pub(super) fn flowing(
        started: Started,
        client: ClientWriter,
        id: RequestId,
        revoked: CancellationToken,
        heartbeat: Duration,
    ) -> Self {
        let now = Instant::now();
        let due = now + started.gap;
        Self::new(Phase::Flowing { started: Box::new(started), last: now }, client, due, id, revoked, heartbeat)
    }

    /// A stream that is answered before its engine is.
    pub(super) fn waiting(
        attempt: Attempt,
        client: ClientWriter,
        id: RequestId,
        revoked: CancellationToken,
        heartbeat: Duration,
    ) -> Self {
        let due = Instant::now() + heartbeat;
        let mut stream = Self::new(Phase::Waiting(attempt), client, due, id, revoked, heartbeat);
        stream.out.extend(stream.client.heartbeat());
        stream
    }

    fn new(
        phase: Phase,
        client: ClientWriter,
        due: Instant,
        id: RequestId,
        revoked: CancellationToken,
        heartbeat: Duration,
    ) -> Self {
        Self {
            phase,
            client,
            id,
            account: None,
            out: VecDeque::with_capacity(4),
            bytes_out: 0,
            timer: Box::pin(tokio::time::sleep_until(due)),
            heartbeat,
            revoked: Box::pin(revoked.cancelled_owned()),
        }
    }

    /// The media type of the stream.
    pub(super) fn media_type(&self) -> &'static str {
        self.client.stream_type()
    }

    /// Hands over the account: from here on the stream ends it.
    pub(super) fn own(&mut self, mut account: Account) {
        if let Phase::Flowing { started, .. } = &self.phase {
            started.trace.note(&mut account);
        }
        account.note(|row| row.status = 200);
        account.streams();
        self.account = Some(account);
    }

    /// The next bytes for the client; `None` at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                self.bytes_out += bytes.len() as u64;
                if let Some(account) = &mut self.account {
                    account.went_out(&bytes);
                }
                return Poll::Ready(Some(bytes));
            }
            let moved = match &mut self.phase {
                Phase::Ended => {
                    self.account = None;
                    return Poll::Ready(None);
                }
                Phase::Waiting(attempt) => match attempt.as_mut().poll(cx) {
                    Poll::Ready(Ok(started)) => {
                        self.begin(started);
                        true
                    }
                    Poll::Ready(Err(Failed { trace, refusal })) => {
                        if let Some(account) = &mut self.account {
                            trace.note(account);
                        }
                        self.fail(&refusal);
                        true
                    }
                    Poll::Pending => false,
                },
                Phase::Flowing { .. } => self.poll_engine(cx),
            };
            if moved {
                continue;
            }
            if self.revoked.as_mut().poll(cx).is_ready() {
                self.cancel();
                continue;
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer_fired();
        }
    }

    /// Reads one piece of the engine's answer; true when something changed.
    fn poll_engine(&mut self, cx: &mut Context<'_>) -> bool {
        let Phase::Flowing { started, last } = &mut self.phase else { return false };
        if !started.out.is_empty() {
            let first = std::mem::take(&mut started.out);
            self.deliver(first);
            return true;
        }
        if let Some(fault) = started.fault.take() {
            self.fail(&fault);
            return true;
        }
        let frame = match Pin::new(&mut started.body).poll_frame(cx) {
            Poll::Pending => return false,
            Poll::Ready(frame) => frame,
        };
        let id = &started.in_flight.engine().record.id;
        let mut out = Vec::new();
        let outcome = match frame {
            Some(Ok(frame)) => {
                *last = Instant::now();
                let Ok(data) = frame.into_data() else { return true };
                started.reader.push(data, &mut out).map(|()| Go::On).map_err(Refusal::from)
            }
            None => started.reader.finish(&mut out).map(|()| Go::End).map_err(Refusal::from),
            // Nothing is missing to the client.
            Some(Err(_)) if started.reader.progress().done => Ok(Go::End),
            Some(Err(error)) => Err(relay::broke_off(id, &error.to_string())),
        };
        let progress = started.reader.progress();
        if let Some(account) = &mut self.account {
            let deltas = progress.deltas;
            if deltas > 0 && !account.has_first_token() {
                account.mark(Stage::FirstToken);
            }
            account.tokens_so_far(deltas);
        }
        if !self.deliver(out) {
            return true;
        }
        match outcome {
            Ok(Go::On) => {}
            Ok(Go::End) => self.end(RequestEnd::Completed),
            Err(refusal) => self.fail(&refusal),
        }
        true
    }

    /// Puts events into the client's words, and waits no longer than [`LINGER`] for an engine that has said everything;
    /// false when the stream has failed over them.
    fn deliver(&mut self, events: Vec<Bytes>) -> bool {
        for run in events {
            if let Err(fault) = self.client.push(run, &mut self.out) {
                let engine = match &self.phase {
                    Phase::Flowing { started, .. } => Some(&started.in_flight.engine().record.id),
                    Phase::Waiting(_) | Phase::Ended => None,
                };
                let refusal = relay::unreadable(engine, &fault.to_string());
                self.fail(&refusal);
                return false;
            }
        }
        if let Phase::Flowing { started, last } = &self.phase
            && started.reader.progress().done
        {
            self.timer.as_mut().reset(*last + LINGER);
        }
        true
    }

    fn begin(&mut self, started: Started) {
        if let Some(account) = &mut self.account {
            started.trace.note(account);
        }
        let last = Instant::now();
        self.timer.as_mut().reset(last + started.gap);
        self.phase = Phase::Flowing { started: Box::new(started), last };
    }

    /// The timer is armed once per gap, not once per piece: when it fires, the last piece tells whether it is due.
    fn timer_fired(&mut self) {
        match &self.phase {
            Phase::Ended => {}
            Phase::Waiting(_) => {
                self.out.extend(self.client.heartbeat());
                let due = Instant::now() + self.heartbeat;
                self.timer.as_mut().reset(due);
            }
            Phase::Flowing { started, .. } if started.reader.progress().done => self.end(RequestEnd::Completed),
            Phase::Flowing { started, last } => {
                let due = *last + started.gap;
                if due > Instant::now() {
                    self.timer.as_mut().reset(due);
                } else {
                    let refusal = relay::stalled(&started.in_flight.engine().record.id, started.gap);
                    self.fail(&refusal);
                }
            }
        }
    }

    /// Tells a failure inside the stream, in the client's words (SPEC §4.3).
    fn fail(&mut self, refusal: &Refusal) {
        self.client.fail(&refusal.told(&self.id), &mut self.out);
        self.count_tokens();
        self.phase = Phase::Ended;
        if let Some(mut account) = self.take_account() {
            account.refused(refusal.status.as_u16(), refusal.code.clone(), RefusedBy::Engine);
        }
    }

    /// The key was revoked: the stream ends as one that failed, and so does the engine's work.
    fn cancel(&mut self) {
        let refusal = Refusal::permission_denied("The API key of this stream was revoked.");
        self.client.fail(&refusal.told(&self.id), &mut self.out);
        self.end(RequestEnd::Cancelled);
    }

    fn end(&mut self, end: RequestEnd) {
        self.count_tokens();
        self.phase = Phase::Ended;
        if let Some(mut account) = self.take_account() {
            account.end(end);
        }
    }

    /// The account of a stream whose last pieces wait for the client in `out`.
    fn take_account(&mut self) -> Option<Account> {
        let mut account = self.account.take()?;
        let pending: usize = self.out.iter().map(Bytes::len).sum();
        account.note(|row| row.bytes_out = self.bytes_out + pending as u64);
        for piece in &self.out {
            account.went_out(piece);
        }
        Some(account)
    }

    fn count_tokens(&mut self) {
        if let (Phase::Flowing { started, .. }, Some(account)) = (&self.phase, &mut self.account) {
            account.tokens(relay::usage(started.reader.as_ref()), account.now());
        }
    }
}

enum Go {
    On,
    End,
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Still owning the account means that nobody read to the end: the client went away, and dropping the
        // engine's body and connection below stops its work.
        self.count_tokens();
        if let Some(account) = &mut self.account {
            account.note(|row| row.bytes_out = self.bytes_out);
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}
