//! The collector: every quarter second while there is traffic, takes the workers' rows, publishes them and the
//! rates on the live lane, and hands them on for the request log. Without traffic it sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::histogram::Counts;
use super::live::Hub;
use super::metrics::{Metrics, Sums};
use super::request_lane::RequestLane;
use super::tasks::Tasks;
use crate::types::clock::{Clock, UnixMillis};
use crate::types::live::{LiveEvent, Traffic};
use crate::types::request::{Progress, RequestRow};

/// How often rows are taken (TUI.md, "Metrics path").
const PERIOD: Duration = Duration::from_millis(250);
/// Rows kept for snapshots and `requests/list`.
const RECENT: usize = 1000;
/// Rows published per period: a console shows no more; the rest is counted as dropped, and stays in the log.
const PUBLISHED: usize = 64;
/// Seconds of history in [`Traffic`]; also the span of its quantiles.
const HISTORY: usize = 60;
/// Minutes over which blocked requests are counted.
const BLOCKED_MINUTES: usize = 60;

/// What the collector keeps for readers.
#[derive(Debug, Default)]
pub(super) struct Collected {
    recent: Mutex<VecDeque<Arc<RequestRow>>>,
    traffic: Mutex<Traffic>,
}

impl Metrics {
    /// The newest requests, newest first.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<RequestRow> {
        let recent = self.collected.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().take(limit).map(|row| RequestRow::clone(row)).collect()
    }

    /// Counters and rates as last published.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.collected.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the collector: publishes request rows and traffic on `hub`, keeps the newest rows, and hands every
    /// ended row to `log`, which sheds what it has no room for.
    /// `moved` is called after counters were looked at, for what is counted elsewhere; `ended` gets the ended rows too,
    /// and must not wait.
    pub fn collect(
        self: &Arc<Self>,
        hub: Hub,
        clock: Clock,
        tasks: &Tasks,
        log: RequestLane,
        moved: impl Fn() + Send + Sync + 'static,
        ended: impl Fn(&[Arc<RequestRow>]) + Send + Sync + 'static,
    ) {
        let (moved, ended) = (Box::new(moved), Box::new(ended));
        let (metrics, rates) = (self.clone(), Rates::default());
        let collector = Collector { metrics, hub, clock, log, moved, ended, rates, unpublished: 0, unlogged: 0 };
        tasks.spawn_until_end("traffic collector", collector.run());
    }
}

/// What gets the rows of requests that ended, besides the log.
type Ended = Box<dyn Fn(&[Arc<RequestRow>]) + Send + Sync>;

struct Collector {
    metrics: Arc<Metrics>,
    hub: Hub,
    clock: Clock,
    log: RequestLane,
    moved: Box<dyn Fn() + Send + Sync>,
    ended: Ended,
    rates: Rates,
    /// Rows that consoles did not get, because there were too many.
    unpublished: u64,
    /// Rows that the log did not get, because it was slow.
    unlogged: u64,
}

/// Rates over the last minute, one step per second.
#[derive(Debug, Default)]
struct Rates {
    /// What had been counted at the last step.
    last: Sums,
    requests: VecDeque<u32>,
    latency: VecDeque<Counts>,
    tokens: VecDeque<u32>,
    /// Blocked requests per minute, newest last, with the minute's number.
    blocked: VecDeque<(i64, u64)>,
}

impl Collector {
    async fn run(mut self) {
        loop {
            self.metrics.wake().notified().await;
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut next_step = Instant::now() + Duration::from_secs(1);
            let mut quiet_steps = 0;
            // A minute after the last request every rate is back at zero.
            while quiet_steps <= HISTORY {
                ticks.tick().await;
                let rows = self.take_rows();
                let sums = self.metrics.sums();
                if Instant::now() >= next_step {
                    next_step += Duration::from_secs(1);
                    let moved = sums.requests() != self.rates.last.requests() || sums.in_flight > 0 || rows > 0;
                    quiet_steps = if moved { 0 } else { quiet_steps + 1 };
                    self.rates.step(&sums, self.clock.wall());
                }
                self.publish(&sums);
                (self.moved)();
            }
        }
    }

    /// Takes, keeps, publishes and logs rows; answers how many there were.
    fn take_rows(&mut self) -> usize {
        let (mut rows, dropped) = self.metrics.take_rows();
        self.unpublished += dropped;
        if rows.is_empty() {
            return 0;
        }
        rows.sort_by_key(|row| row.at);
        if self.hub.listeners() > 0 {
            let skipped = rows.len().saturating_sub(PUBLISHED);
            self.unpublished += skipped as u64;
            for row in &rows[skipped..] {
                self.hub.publish(LiveEvent::Request(Box::new(RequestRow::clone(row))));
            }
        }
        self.keep(&rows);
        let count = rows.len();
        rows.retain(|row| row.progress != Progress::Running);
        (self.ended)(&rows);
        let shed = self.log.offer(rows);
        if shed > 0 {
            self.unlogged += shed as u64;
            tracing::warn!(rows = shed, total = self.unlogged, "the request log is slow: rows were shed");
        }
        count
    }

    fn keep(&self, rows: &[Arc<RequestRow>]) {
        let mut recent = self.metrics.collected.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // In a flood most rows would be pushed out again before anybody could look; the end of a stream that is shown
        // as running is never passed over.
        let passed_over = rows.len().saturating_sub(RECENT);
        for (at, row) in rows.iter().enumerate() {
            let known = row.stream && row.progress != Progress::Running;
            if let Some(old) = known.then(|| recent.iter_mut().rev().find(|old| old.id == row.id)).flatten() {
                old.clone_from(row);
                continue;
            }
            if at < passed_over {
                continue;
            }
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(row.clone());
        }
    }

    fn publish(&self, sums: &Sums) {
        let mut traffic = self.rates.traffic(sums);
        traffic.dropped_events = self.unpublished + self.hub.dropped();
        let mut last = self.metrics.collected.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.at = last.at;
        if traffic != *last {
            traffic.at = self.clock.wall();
            last.clone_from(&traffic);
            drop(last);
            self.hub.publish(LiveEvent::Traffic(Box::new(traffic)));
        }
    }
}

impl Rates {
    fn step(&mut self, sums: &Sums, now: UnixMillis) {
        let requests = sums.requests() - self.last.requests();
        push(&mut self.requests, u32::try_from(requests).unwrap_or(u32::MAX), HISTORY);
        push(&mut self.latency, sums.latency.since(&self.last.latency), HISTORY);
        let tokens = sums.tokens_seen - self.last.tokens_seen;
        push(&mut self.tokens, u32::try_from(tokens).unwrap_or(u32::MAX), HISTORY);
        let minute = now.0 / 60_000;
        let blocked = sums.refused_by_address - self.last.refused_by_address;
        if blocked > 0 {
            match self.blocked.back_mut() {
                Some((at, count)) if *at == minute => *count += blocked,
                _ => push(&mut self.blocked, (minute, blocked), BLOCKED_MINUTES),
            }
        }
        self.blocked.retain(|(at, _)| minute - at < i64::try_from(BLOCKED_MINUTES).unwrap_or(i64::MAX));
        self.last.clone_from(sums);
    }

    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    fn traffic(&self, sums: &Sums) -> Traffic {
        let mut minute = Counts::default();
        for second in &self.latency {
            minute.add(second);
        }
        let quantile = |per_cent| minute.quantile_us(per_cent).map(|us| us as f32 / 1000.0);
        let whole = |known: &VecDeque<u32>| {
            let mut history = vec![0; HISTORY - known.len()];
            history.extend(known);
            history
        };
        Traffic {
            at: UnixMillis::default(),
            requests_total: sums.requests(),
            requests_per_second: self.requests.back().copied().unwrap_or(0) as f32,
            history: whole(&self.requests),
            p95_ms: quantile(95),
            p50_ms: quantile(50),
            active_streams: sums.streams,
            in_flight: sums.in_flight,
            tokens_per_second: self.tokens.back().copied().unwrap_or(0) as f32,
            token_history: whole(&self.tokens),
            refused_total: sums.refused + sums.refused_connections,
            blocked_last_hour: u32::try_from(self.blocked.iter().map(|(_, count)| count).sum::<u64>())
                .unwrap_or(u32::MAX),
            errors_total: sums.by_class[5],
            connections: sums.connections,
            dropped_events: 0,
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T, limit: usize) {
    if ring.len() == limit {
        ring.pop_front();
    }
    ring.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::live::Delivery;
    use crate::types::request::{RequestEnd, TokenUsage};

    fn row(id: u128, progress: Progress) -> RequestRow {
        RequestRow {
            tokens: TokenUsage { completion: 5, ..TokenUsage::default() },
            bytes_in: 1,
            bytes_out: 2,
            progress,
            ..RequestRow::example(id)
        }
    }

    const ENDED: Progress = Progress::Ended { end: RequestEnd::Completed, took_us: 1500 };

    #[tokio::test(start_paused = true)]
    async fn rows_and_rates_reach_consoles_and_the_log_and_then_it_sleeps() {
        let metrics = Metrics::new(2);
        let hub = Hub::new();
        let tasks = Tasks::new();
        let (log, mut logged) = RequestLane::new(4);
        metrics.collect(hub.clone(), Clock::stepped(UnixMillis(0)), &tasks, log, || {}, |_rows| {});
        let mut console = hub.subscribe();
        let shard = metrics.shard(1);
        let stream = shard.stream_started();
        shard.row(row(1, Progress::Running), false);
        let Delivery::Event(first) = console.next().await else { panic!("an event") };
        assert!(matches!(&*first.event, LiveEvent::Request(row) if row.progress == Progress::Running));
        drop(stream);
        shard.row(row(1, ENDED), false);
        assert_eq!(logged.recv().await.expect("a batch").take().len(), 1);
        let recent = metrics.recent(10);
        assert_eq!(recent.len(), 1, "the running row was replaced");
        assert_eq!(recent[0].progress, ENDED);
        let mut quiet = tokio::time::interval(Duration::from_secs(70));
        quiet.tick().await;
        quiet.tick().await;
        let traffic = metrics.traffic();
        assert_eq!(traffic.requests_total, 1);
        assert_eq!(traffic.active_streams, 0);
        assert_eq!(traffic.history, vec![0; HISTORY], "a minute later the sparkline is flat");
        assert_eq!(traffic.token_history, vec![0; HISTORY]);
        let number = hub.sequence();
        quiet.tick().await;
        assert_eq!(hub.sequence(), number, "without traffic nothing is published");
        tasks.shutdown(Duration::from_secs(1)).await;
    }

    #[test]
    fn a_flood_of_refused_requests_leaves_room_for_those_that_are_served() {
        let metrics = Metrics::new(1);
        let refused = Progress::Ended { end: RequestEnd::Refused, took_us: 1 };
        for id in 0..10_000 {
            metrics.shard(0).row(row(id, refused), true);
        }
        metrics.shard(0).row(row(10_000, ENDED), false);
        let (rows, dropped) = metrics.take_rows();
        assert_eq!(rows.iter().filter(|row| row.progress == ENDED).count(), 1);
        assert_eq!(rows.len() as u64 + dropped, 10_001);
        assert_eq!(metrics.sums().refused, 10_000, "all are counted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_shed_for_consoles_and_counted() {
        let metrics = Metrics::new(1);
        let hub = Hub::new();
        let tasks = Tasks::new();
        let (log, mut logged) = RequestLane::new(1000);
        metrics.collect(hub.clone(), Clock::stepped(UnixMillis(0)), &tasks, log, || {}, |_rows| {});
        let mut console = hub.subscribe();
        for id in 0..1000 {
            metrics.shard(0).row(row(id, ENDED), false);
        }
        assert_eq!(logged.recv().await.expect("a batch").take().len(), 1000);
        let mut shown = 0;
        loop {
            let Delivery::Event(event) = console.next().await else { panic!("an event") };
            match &*event.event {
                LiveEvent::Request(_) => shown += 1,
                LiveEvent::Traffic(traffic) => {
                    assert_eq!(traffic.dropped_events, 1000 - PUBLISHED as u64);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(shown, PUBLISHED);
        tasks.shutdown(Duration::from_secs(1)).await;
    }
}
