//! [`Passed`]: the body of an answer that is relayed as the engine wrote it, piece by piece.
//!
//! Made by `passthrough` and, for sounds, by `relay`; polled through `answer`. An answer that breaks off is broken off for the client too: no word of
//! FLM's fits into bytes of an unknown shape. Dropping it closes the engine's connection, which ends its work.

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
use super::relay;
use crate::engines::own_routes::Effect;
use crate::engines::registry::InFlight;
use crate::net::pool::UpstreamBody;
use crate::types::request::RequestEnd;
use crate::wire::usage_finder::UsageFinder;

/// Why a relayed body ended before its end; hyper closes the connection, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the engine's answer broke off: {0}")]
pub(super) struct BrokenOff(String);

/// A relayed answer.
pub(super) struct Passed {
    /// What was read of it before it was handed over.
    first: Option<Bytes>,
    body: UpstreamBody,
    in_flight: InFlight,
    /// Set by `finish` before the body is handed to hyper; taken by the end.
    account: Option<Account>,
    counts: Option<UsageFinder>,
    bytes_out: u64,
    /// What is told at the next poll: until then hyper writes out what the client was given.
    broken: Option<BrokenOff>,
    gap: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Passed {
    /// Relays `body`; tokens are looked for where a model works.
    pub(super) fn new(
        body: UpstreamBody,
        in_flight: InFlight,
        effect: Effect,
        gap: Duration,
        revoked: CancellationToken,
    ) -> Self {
        let counts = (effect == Effect::Infers).then(UsageFinder::default);
        Self::with(None, body, in_flight, counts, gap, revoked)
    }

    /// Relays a sound whose first bytes were read. No tokens are in it to be counted.
    pub(super) fn begun(
        first: Bytes,
        body: UpstreamBody,
        in_flight: InFlight,
        gap: Duration,
        revoked: CancellationToken,
    ) -> Self {
        Self::with(Some(first), body, in_flight, None, gap, revoked)
    }

    fn with(
        first: Option<Bytes>,
        body: UpstreamBody,
        in_flight: InFlight,
        counts: Option<UsageFinder>,
        gap: Duration,
        revoked: CancellationToken,
    ) -> Self {
        let last = Instant::now();
        Self {
            first,
            body,
            in_flight,
            account: None,
            counts,
            bytes_out: 0,
            broken: None,
            gap,
            last,
            timer: Box::pin(tokio::time::sleep_until(last + gap)),
            revoked: Box::pin(revoked.cancelled_owned()),
        }
    }

    /// Hands over the account: from here on the body ends it.
    pub(super) fn own(&mut self, account: Account) {
        self.account = Some(account);
    }

    /// The next bytes for the client; `None` at the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        loop {
            if self.account.is_none() {
                return Poll::Ready(None);
            }
            if let Some(first) = self.first.take() {
                return Poll::Ready(Some(Ok(self.note(first))));
            }
            if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
                match frame {
                    None => {
                        self.end(RequestEnd::Completed);
                        return Poll::Ready(None);
                    }
                    Some(Err(error)) => {
                        let refusal = relay::broke_off(&self.in_flight.engine().record.id, &error.to_string());
                        return self.fail(&refusal, cx);
                    }
                    Some(Ok(frame)) => {
                        self.last = Instant::now();
                        // Trailers of an engine are not for the client.
                        let Ok(data) = frame.into_data() else { continue };
                        return Poll::Ready(Some(Ok(self.note(data))));
                    }
                }
            }
            if self.revoked.as_mut().poll(cx).is_ready() {
                self.end(RequestEnd::Cancelled);
                return self.break_off("the API key was revoked".to_owned(), cx);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Armed once per gap: the last piece tells whether it is due.
            let due = self.last + self.gap;
            if due <= Instant::now() {
                let refusal = relay::stalled(&self.in_flight.engine().record.id, self.gap);
                return self.fail(&refusal, cx);
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn note(&mut self, data: Bytes) -> Bytes {
        self.bytes_out += data.len() as u64;
        if let Some(account) = &mut self.account {
            account.went_out(&data);
        }
        if let Some(counts) = &mut self.counts {
            counts.push(&data);
            if let Some(account) = &mut self.account
                && !account.has_first_token()
            {
                account.mark(Stage::FirstToken);
            }
        }
        data
    }

    fn settle(&mut self) -> Option<Account> {
        let mut account = self.account.take()?;
        if let Some(counts) = self.counts.take() {
            account.tokens(counts.usage(), account.now());
        }
        account.note(|row| row.bytes_out = self.bytes_out);
        Some(account)
    }

    fn end(&mut self, end: RequestEnd) {
        if let Some(mut account) = self.settle() {
            account.end(end);
        }
    }

    fn fail(&mut self, refusal: &Refusal, cx: &Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(mut account) = self.settle() {
            account.refused(refusal.status.as_u16(), refusal.code.clone(), RefusedBy::Engine);
        }
        self.break_off(refusal.message.clone(), cx)
    }

    /// Hyper throws away what it has not written when a body fails, so it gets a turn to write first.
    fn break_off(&mut self, why: String, cx: &Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        self.broken = Some(BrokenOff(why));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Not read to the end: the client went away, which the account notes as it is dropped.
        drop(self.settle());
    }
}

impl std::fmt::Debug for Passed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passed").field("bytes_out", &self.bytes_out).finish_non_exhaustive()
    }
}
