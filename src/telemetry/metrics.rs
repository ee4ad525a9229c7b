//! Counters: one shard per worker, written without a lock that anybody else wants, summed when somebody asks.
//!
//! Called by `proxy` (writes) and by `daemon` (reads, through [`super::collector`]).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::histogram::{Counts, Histogram};
use super::usage::{UsageMap, UsedSinceStart};
use crate::types::request::{Progress, RequestEnd, RequestRow};

/// Rows that wait in a shard for the collector; what comes on top is counted as dropped. The collector comes
/// every quarter second, so this is 16,384 requests a second and worker.
const ROWS_WAITING: usize = 4096;
/// Of these, the room that a flood of refused requests leaves to requests that are served: 4,096 refused ones a second and worker
/// are told one by one, all of them are counted.
const ROWS_FOR_THE_SERVED: usize = 3072;

/// All shards of one owner.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<Shard>>,
    /// Requests that no worker saw: connections refused by the listener.
    pub(super) refused_connections: AtomicU64,
    pub(super) collected: super::collector::Collected,
    pub(super) used: UsedSinceStart,
    traces: Arc<TraceCounts>,
}

/// The counters of one worker.
#[derive(Debug)]
pub struct Shard {
    gauges: Gauges,
    totals: Totals,
    rows: Mutex<Rows>,
    pub(super) usage: UsageMap,
    traces: Arc<TraceCounts>,
    wake: Arc<Notify>,
}

/// What became of the traces of ended requests.
#[derive(Debug, Default)]
pub struct TraceCounts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl TraceCounts {
    /// The collector has so many more.
    pub fn exported(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
    }

    /// So many more are lost.
    pub fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were exported, and how many dropped.
    #[must_use]
    pub fn sums(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Default)]
struct Gauges {
    in_flight: AtomicU32,
    streams: AtomicU32,
    connections: AtomicU32,
}

#[derive(Debug, Default)]
struct Totals {
    /// Ended requests by status class: index 1 is 1xx, … 5 is 5xx, 0 is "no status was sent".
    by_class: [AtomicU64; 6],
    refused: AtomicU64,
    refused_by_address: AtomicU64,
    delayed: AtomicU64,
    client_left: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    /// Answer tokens as they come, streams included: for the rate.
    tokens_seen: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    latency: Histogram,
    first_token: Histogram,
}

#[derive(Debug, Default)]
struct Rows {
    waiting: Vec<Arc<RequestRow>>,
    dropped: u64,
    /// Ended requests by route. Routes are a closed list of some twenty names: looking along it is cheap.
    by_route: Vec<RouteCounts>,
}

/// Ended requests of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteCounts {
    /// Its name, such as `chat.completions`; `None` for what matched no route.
    pub route: Option<Cow<'static, str>>,
    /// By status class, as in [`Sums::by_class`].
    pub by_class: [u64; 6],
}

impl RouteCounts {
    fn add(all: &mut Vec<Self>, route: Option<&Cow<'static, str>>, counts: [u64; 6]) {
        let known = all.iter().position(|known| known.route.as_ref() == route);
        let at = known.unwrap_or_else(|| {
            all.push(Self { route: route.cloned(), by_class: [0; 6] });
            all.len() - 1
        });
        for (sum, count) in all[at].by_class.iter_mut().zip(counts) {
            *sum += count;
        }
    }
}

/// A sum over all shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Ended requests by status class; see [`Shard`].
    pub by_class: [u64; 6],
    /// Requests that a stage refused.
    pub refused: u64,
    /// Requests that block list or allow list refused.
    pub refused_by_address: u64,
    /// Refusals that waited for their turn, as they do in a flood.
    pub delayed: u64,
    /// Connections refused by limits before a request was read.
    pub refused_connections: u64,
    /// Requests whose client went away.
    pub client_left: u64,
    /// Prompt tokens.
    pub prompt_tokens: u64,
    /// Answer tokens of ended requests.
    pub completion_tokens: u64,
    /// Answer tokens as they come, streams included.
    pub tokens_seen: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of answer bodies.
    pub bytes_out: u64,
    /// Latency of ended requests.
    pub latency: Counts,
    /// Time to first token.
    pub first_token: Counts,
    /// Requests running now.
    pub in_flight: u32,
    /// Streams running now.
    pub streams: u32,
    /// Open client connections.
    pub connections: u32,
}

impl Sums {
    /// All ended requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.by_class.iter().sum()
    }
}

/// Which gauge of a shard.
#[derive(Debug, Clone, Copy)]
enum Gauge {
    InFlight,
    Streams,
    Connections,
}

/// Keeps a gauge one up until dropped.
#[derive(Debug)]
pub struct Counted {
    shard: Arc<Shard>,
    gauge: Gauge,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shard.gauge(self.gauge).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counters for that many workers, at least one.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let traces = Arc::new(TraceCounts::default());
        let shard = || {
            Arc::new(Shard {
                gauges: Gauges::default(),
                totals: Totals::default(),
                rows: Mutex::default(),
                usage: UsageMap::default(),
                traces: traces.clone(),
                wake: wake.clone(),
            })
        };
        Arc::new(Self {
            shards: (0..workers.max(1)).map(|_| shard()).collect(),
            refused_connections: AtomicU64::new(0),
            collected: super::collector::Collected::default(),
            used: UsedSinceStart::default(),
            traces,
        })
    }

    /// The shard of a worker.
    #[must_use]
    pub fn shard(&self, worker: usize) -> Arc<Shard> {
        self.shards[worker % self.shards.len()].clone()
    }

    /// What became of traces.
    #[must_use]
    pub fn traces(&self) -> &Arc<TraceCounts> {
        &self.traces
    }

    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Counts a connection that the listener refused.
    pub fn connection_refused(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
        self.wake().notify_one();
    }

    /// Sums all shards.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums =
            Sums { refused_connections: self.refused_connections.load(Ordering::Relaxed), ..Sums::default() };
        for shard in &self.shards {
            shard.add_to(&mut sums);
        }
        sums
    }

    /// Ended requests of every route since the start, in order of their first request. Apart from [`Metrics::sums`], which
    /// many ask and which takes no lock.
    #[must_use]
    pub fn by_route(&self) -> Vec<RouteCounts> {
        let mut sums = Vec::new();
        for shard in &self.shards {
            for counts in &shard.rows.lock().unwrap_or_else(PoisonError::into_inner).by_route {
                RouteCounts::add(&mut sums, counts.route.as_ref(), counts.by_class);
            }
        }
        sums
    }

    /// Takes the rows that wait, and how many were dropped.
    pub(super) fn take_rows(&self) -> (Vec<Arc<RequestRow>>, u64) {
        let mut all = Vec::new();
        let mut dropped = 0;
        for shard in &self.shards {
            let mut rows = shard.rows.lock().unwrap_or_else(PoisonError::into_inner);
            all.append(&mut rows.waiting);
            dropped += std::mem::take(&mut rows.dropped);
        }
        (all, dropped)
    }

    /// Fires when something was counted after a quiet time.
    pub(super) fn wake(&self) -> &Notify {
        // All shards share one; there is always a shard.
        &self.shards[0].wake
    }
}

impl Shard {
    /// Counts a running request until the guard is dropped.
    pub fn request_started(self: &Arc<Self>) -> Counted {
        self.count(Gauge::InFlight)
    }

    /// Counts a running stream until the guard is dropped.
    pub fn stream_started(self: &Arc<Self>) -> Counted {
        self.count(Gauge::Streams)
    }

    /// Counts an open connection until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> Counted {
        self.count(Gauge::Connections)
    }

    /// Counts answer tokens when they come, before their request ends.
    pub fn tokens_came(&self, count: u64) {
        self.totals.tokens_seen.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a refusal that waits for its turn.
    pub fn refusal_delayed(&self) {
        self.totals.delayed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a row: one that runs is shown, one that ended is shown and counted.
    pub fn row(&self, row: impl Into<Arc<RequestRow>>, refused_by_address: bool) {
        let row = row.into();
        if let Progress::Ended { end, took_us } = row.progress {
            let totals = &self.totals;
            let class = usize::from(row.status / 100).min(5);
            totals.by_class[class].fetch_add(1, Ordering::Relaxed);
            match end {
                RequestEnd::Refused => {
                    totals.refused.fetch_add(1, Ordering::Relaxed);
                    totals.refused_by_address.fetch_add(u64::from(refused_by_address), Ordering::Relaxed);
                }
                RequestEnd::ClientLeft => {
                    totals.client_left.fetch_add(1, Ordering::Relaxed);
                }
                RequestEnd::Completed | RequestEnd::EngineFailed | RequestEnd::Cancelled => {}
            }
            // Refusals take microseconds and would hide what clients wait for.
            if end != RequestEnd::Refused {
                totals.latency.observe(Duration::from_micros(took_us));
            }
            if let Some(us) = row.stages.first_token {
                totals.first_token.observe(Duration::from_micros(u64::from(us)));
            }
            for (total, more) in [
                (&totals.prompt_tokens, row.tokens.prompt),
                (&totals.completion_tokens, row.tokens.completion),
                (&totals.bytes_in, row.bytes_in),
                (&totals.bytes_out, row.bytes_out),
            ] {
                if more > 0 {
                    total.fetch_add(more, Ordering::Relaxed);
                }
            }
        }
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if row.progress != Progress::Running {
            let mut counts = [0; 6];
            counts[usize::from(row.status / 100).min(5)] = 1;
            RouteCounts::add(&mut rows.by_route, row.route.as_ref(), counts);
        }
        let first = rows.waiting.is_empty();
        let refused = matches!(row.progress, Progress::Ended { end: RequestEnd::Refused, .. });
        let room = if refused { ROWS_WAITING - ROWS_FOR_THE_SERVED } else { ROWS_WAITING };
        if rows.waiting.len() < room {
            rows.waiting.push(row);
        } else {
            rows.dropped += 1;
            // Whether it was to be recorded is not asked: a flood that is shed here is past counting exactly.
            self.traces.dropped(u64::from(row.trace.is_some() && row.progress != Progress::Running));
        }
        drop(rows);
        // Only the first row after the collector has come wakes it: one wake-up for a whole batch.
        if first {
            self.wake.notify_one();
        }
    }

    fn count(self: &Arc<Self>, gauge: Gauge) -> Counted {
        self.gauge(gauge).fetch_add(1, Ordering::Relaxed);
        Counted { shard: self.clone(), gauge }
    }

    fn gauge(&self, gauge: Gauge) -> &AtomicU32 {
        match gauge {
            Gauge::InFlight => &self.gauges.in_flight,
            Gauge::Streams => &self.gauges.streams,
            Gauge::Connections => &self.gauges.connections,
        }
    }

    fn add_to(&self, sums: &mut Sums) {
        let totals = &self.totals;
        for (sum, class) in sums.by_class.iter_mut().zip(&totals.by_class) {
            *sum += class.load(Ordering::Relaxed);
        }
        sums.refused += totals.refused.load(Ordering::Relaxed);
        sums.refused_by_address += totals.refused_by_address.load(Ordering::Relaxed);
        sums.delayed += totals.delayed.load(Ordering::Relaxed);
        sums.client_left += totals.client_left.load(Ordering::Relaxed);
        sums.prompt_tokens += totals.prompt_tokens.load(Ordering::Relaxed);
        sums.completion_tokens += totals.completion_tokens.load(Ordering::Relaxed);
        sums.tokens_seen += totals.tokens_seen.load(Ordering::Relaxed);
        sums.bytes_in += totals.bytes_in.load(Ordering::Relaxed);
        sums.bytes_out += totals.bytes_out.load(Ordering::Relaxed);
        totals.latency.add_to(&mut sums.latency);
        totals.first_token.add_to(&mut sums.first_token);
        sums.in_flight += self.gauges.in_flight.load(Ordering::Relaxed);
        sums.streams += self.gauges.streams.load(Ordering::Relaxed);
        sums.connections += self.gauges.connections.load(Ordering::Relaxed);
    }
}
