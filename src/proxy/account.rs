//! [`Account`]: one request's row, from its head to its end, however it ends.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};

use crate::guard::key_table::KeyEntry;
use crate::guard::rates::InFlight;
use crate::guard::token_day::Reservation;
use crate::telemetry::captures::Recorder;
use crate::telemetry::metrics::{Counted, Shard};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::ids::EngineId;
use crate::types::request::{Progress, RequestEnd, RequestRow, TokenUsage};
use crate::types::usage::UsageSums;

use super::refusal::RefusedBy;
use super::trace;

/// Counts a request while it runs and notes it when it ends. Dropped before an end was told, it notes that the
/// client went away.
#[derive(Debug)]
pub(super) struct Account {
    /// What is known so far; taken by the end.
    row: Option<Box<RequestRow>>,
    started: Instant,
    /// When a stage ended last.
    latest: Instant,
    clock: Clock,
    shard: Arc<Shard>,
    key: Option<KeyInFlight>,
    _in_flight: Counted,
    stream: Option<Counted>,
    /// Answer tokens that were counted as they came.
    tokens_came: u64,
    /// The engine's own name for the model that it was asked for.
    served: Option<Arc<str>>,
    /// The request's place in its key's budget.
    place: Option<Reservation>,
    /// Its place among its address's requests.
    of_address: Option<InFlight>,
    /// Its bodies, when those of its key are captured.
    bodies: Option<Box<Recorder>>,
}

/// A stage whose end is timed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    Screened,
    Authenticated,
    Parsed,
    Resolved,
    Sent,
    FirstByte,
    FirstToken,
}

/// Counts a request against its key's `max_parallel` until dropped.
#[derive(Debug)]
struct KeyInFlight(Arc<KeyEntry>);

impl Drop for KeyInFlight {
    fn drop(&mut self) {
        self.0.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Account {
    pub(super) fn open(row: Box<RequestRow>, clock: Clock, shard: Arc<Shard>) -> Self {
        let started = clock.monotonic();
        let in_flight = shard.request_started();
        Self {
            row: Some(row),
            started,
            latest: started,
            clock,
            shard,
            key: None,
            _in_flight: in_flight,
            stream: None,
            tokens_came: 0,
            served: None,
            place: None,
            of_address: None,
            bodies: None,
        }
    }

    /// Whether the client asked for a stream.
    pub(super) fn is_stream(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.stream)
    }

    /// Changes what is known. Does nothing after the end.
    pub(super) fn note(&mut self, change: impl FnOnce(&mut RequestRow)) {
        if let Some(row) = &mut self.row {
            change(row);
        }
    }

    /// What the engine is told of the request's trace.
    pub(super) fn trace_fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.row.as_ref().map(|row| trace::for_engine(row)).unwrap_or_default()
    }

    /// The request's path.
    pub(super) fn path(&self) -> Option<String> {
        self.row.as_ref().map(|row| row.path.to_string())
    }

    /// The engine that was asked, or would be.
    pub(super) fn engine(&self) -> Option<EngineId> {
        self.row.as_ref().and_then(|row| row.engine.clone())
    }

    /// How long the request has taken so far.
    pub(super) fn milliseconds(&self) -> u32 {
        let took = self.clock.monotonic().saturating_duration_since(self.started);
        u32::try_from(took.as_millis()).unwrap_or(u32::MAX)
    }

    /// Whether the first token was timed.
    pub(super) fn has_first_token(&self) -> bool {
        self.row.as_ref().is_none_or(|row| row.stages.first_token.is_some())
    }

    /// Times the end of a stage, the first time only.
    pub(super) fn mark(&mut self, stage: Stage) {
        let now = self.clock.monotonic();
        self.mark_at(stage, now);
    }

    /// The same for a time taken elsewhere.
    pub(super) fn mark_at(&mut self, stage: Stage, at: Instant) {
        self.latest = at;
        let us = u32::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u32::MAX);
        self.note(|row| {
            let stages = &mut row.stages;
            let slot = match stage {
                Stage::Screened => &mut stages.screened,
                Stage::Authenticated => &mut stages.authenticated,
                Stage::Parsed => &mut stages.parsed,
                Stage::Resolved => &mut stages.resolved,
                Stage::Sent => &mut stages.sent,
                Stage::FirstByte => &mut stages.first_byte,
                Stage::FirstToken => &mut stages.first_token,
            };
            slot.get_or_insert(us);
        });
    }

    /// Names the key and counts the request against its `max_parallel`; answers how many run now, this included.
    pub(super) fn belongs_to(&mut self, key: &Arc<KeyEntry>) -> u32 {
        let running = key.counts.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.key = Some(KeyInFlight(key.clone()));
        self.note(|row| {
            row.key = Some(key.record.view.id);
            row.key_label = Some(key.label.clone());
        });
        running
    }

    /// Keeps the request's place in its key's budget until the end.
    pub(super) fn holds(&mut self, place: Reservation) {
        self.place = Some(place);
    }

    /// Keeps the request's place among its address's until the end.
    pub(super) fn counted_for_address(&mut self, place: InFlight) {
        self.of_address = Some(place);
    }

    /// Keeps the bodies until the end, and hands them over then.
    pub(super) fn captures(&mut self, recorder: Recorder) {
        self.bodies = Some(Box::new(recorder));
    }

    /// The request's body, as the client sent it.
    pub(super) fn came_in(&mut self, body: &[u8]) {
        if let Some(bodies) = &mut self.bodies {
            bodies.asked(body);
        }
    }

    /// A piece of the answer's body, as the client gets it.
    pub(super) fn went_out(&mut self, piece: &[u8]) {
        if let Some(bodies) = &mut self.bodies {
            bodies.answered(piece);
        }
    }

    /// Names the engine that was asked last, and its own name for the model.
    pub(super) fn asked(&mut self, engine: EngineId, model: Arc<str>) {
        self.note(|row| row.engine = Some(engine));
        self.served = Some(model);
    }

    /// The stream begins: shows the row while it runs.
    pub(super) fn streams(&mut self) {
        self.stream = Some(self.shard.stream_started());
        if let Some(row) = &self.row {
            self.shard.row(RequestRow::clone(row), false);
        }
    }

    /// Ends with an answer.
    pub(super) fn end(&mut self, end: RequestEnd) {
        self.settle(end, false);
    }

    /// Ends with a refusal.
    pub(super) fn refused(&mut self, status: u16, code: Cow<'static, str>, by: RefusedBy) {
        self.note(|row| {
            // A stream that has begun keeps its 200: the error was told inside it.
            if row.status == 0 {
                row.status = status;
            }
            row.error_code = Some(code);
        });
        let end = if by == RefusedBy::Engine { RequestEnd::EngineFailed } else { RequestEnd::Refused };
        self.settle(end, by == RefusedBy::AddressList);
    }

    /// Answer tokens so far; what is new counts for the rate of tokens.
    pub(super) fn tokens_so_far(&mut self, tokens: u64) {
        let fresh = tokens.saturating_sub(self.tokens_came);
        if fresh > 0 {
            self.tokens_came = tokens;
            self.shard.tokens_came(fresh);
        }
    }

    /// The time.
    pub(super) fn now(&self) -> UnixMillis {
        self.clock.wall()
    }

    /// When a stage ended last, without reading a clock.
    pub(super) fn latest(&self) -> UnixMillis {
        let began = self.row.as_ref().map_or(UnixMillis::default(), |row| row.at);
        began.plus(self.latest.saturating_duration_since(self.started))
    }

    /// Tokens of the answer, which ended at `at`; counted against the key's day.
    pub(super) fn tokens(&mut self, usage: TokenUsage, at: UnixMillis) {
        self.tokens_so_far(usage.completion);
        self.note(|row| row.tokens = usage);
        if let Some(KeyInFlight(key)) = &self.key
            && usage.total() > 0
        {
            // Without a budget too: one that the key is given later today counts what was used before.
            key.counts.tokens.spend(usage.total(), at);
        }
    }

    fn settle(&mut self, end: RequestEnd, refused_by_address: bool) {
        let Some(mut row) = self.row.take() else { return };
        let took = self.clock.monotonic().saturating_duration_since(self.started);
        let ended = row.at.plus(took);
        row.progress = Progress::Ended { end, took_us: micros(took) };
        if let (Some(sums), Some(key), Some(model), Some(engine)) =
            (UsageSums::of(&row), row.key, self.served.take(), &row.engine)
        {
            self.shard.used(ended, key, model, engine.clone(), sums);
        }
        if let Some(bodies) = self.bodies.take() {
            bodies.send(&row);
        }
        self.shard.row(row, refused_by_address);
        self.stream = None;
        // What was used is counted by now: the place in the budget is free only after that.
        self.place = None;
        self.of_address = None;
        self.key = None;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle(RequestEnd::ClientLeft, false);
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
