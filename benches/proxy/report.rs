//! Medians, spreads, ratios and verdicts of what was measured, as Markdown tables, and the ratios as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::measure::{median, spread};
use crate::{Fault, Shape};

/// What one visit to one target found; 0 is what was not measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// CPU µs per request, many connections.
    pub(crate) request_us: f64,
    /// CPU µs per request over TLS, many connections.
    pub(crate) request_tls_us: f64,
    /// CPU µs per request, one connection.
    pub(crate) request_us_single: f64,
    /// CPU µs per chunk, paced streams.
    pub(crate) chunk_us: f64,
    /// CPU µs per chunk, streams without pause.
    pub(crate) flood_chunk_us: f64,
    /// Requests a second, many connections.
    pub(crate) requests_per_second: f64,
    /// Chunks a second, streams without pause.
    pub(crate) chunks_per_second: f64,
    /// Median latency at one connection, µs.
    pub(crate) p50_us: f64,
    /// 99th percentile of it, µs.
    pub(crate) p99_us: f64,
    /// Median time to the first token at one connection, µs.
    pub(crate) first_token_us: f64,
    /// Memory per held stream, KiB.
    pub(crate) held_kib: f64,
    /// Memory per held stream over TLS, KiB.
    pub(crate) held_tls_kib: f64,
    /// Processors that other programs kept busy meanwhile, at most.
    pub(crate) others_cores: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in ROWS.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            if (row.of)(self) > 0.0 {
                write!(f, "{separator}{} {:.1}", row.name, (row.of)(self))?;
            }
        }
        Ok(())
    }
}

/// A line of the table.
struct Row {
    name: &'static str,
    of: fn(&Figures) -> f64,
}

const ROWS: [Row; 13] = [
    Row { name: "CPU µs/request (32 connections)", of: |figures| figures.request_us },
    Row { name: "CPU µs/request over TLS (32 connections)", of: |figures| figures.request_tls_us },
    Row { name: "CPU µs/request (1 connection)", of: |figures| figures.request_us_single },
    Row { name: "CPU µs/chunk (64 streams at 100/s)", of: |figures| figures.chunk_us },
    Row { name: "CPU µs/chunk (flood)", of: |figures| figures.flood_chunk_us },
    Row { name: "requests/s (flood)", of: |figures| figures.requests_per_second },
    Row { name: "chunks/s (flood)", of: |figures| figures.chunks_per_second },
    Row { name: "p50 µs (1 connection)", of: |figures| figures.p50_us },
    Row { name: "p99 µs (1 connection)", of: |figures| figures.p99_us },
    Row { name: "µs to the first token (1 connection)", of: |figures| figures.first_token_us },
    Row { name: "KiB per held stream", of: |figures| figures.held_kib },
    Row { name: "KiB per held stream over TLS", of: |figures| figures.held_tls_kib },
    Row { name: "cores used by others", of: |figures| figures.others_cores },
];

/// A baseline dearer than this times nginx would flatter FLM.
const BASELINE_OVER_NGINX: f64 = 1.3;

/// How FLM is held against another program.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    /// So many times its cost, at most.
    Times,
    /// So many times what it gets through, at least.
    AtLeast,
    /// So much more, at most.
    Added,
    /// So much, whatever the others take.
    Own,
}

/// A promise: issue 8's limit, and the one that issue 2 gave before it.
struct Promise {
    /// Its name in JSON.
    key: &'static str,
    name: &'static str,
    of: fn(&Figures) -> f64,
    measure: Measure,
    limit: Option<f64>,
    before: Option<f64>,
}

const fn promise(
    (key, name): (&'static str, &'static str),
    of: fn(&Figures) -> f64,
    measure: Measure,
    (limit, before): (Option<f64>, Option<f64>),
) -> Promise {
    Promise { key, name, of, measure, limit, before }
}

const PROMISES: [Promise; 10] = [
    promise(
        ("request", "CPU per request, 32 connections"),
        |figures| figures.request_us,
        Measure::Times,
        (Some(1.15), Some(1.35)),
    ),
    promise(
        ("request_tls", "CPU per request over TLS, 32 connections"),
        |figures| figures.request_tls_us,
        Measure::Times,
        (Some(1.15), None),
    ),
    promise(
        ("request_single", "CPU per request, 1 connection"),
        |figures| figures.request_us_single,
        Measure::Times,
        (None, None),
    ),
    promise(
        ("chunk", "CPU per chunk, 64 streams at 100/s"),
        |figures| figures.chunk_us,
        Measure::Times,
        (Some(1.05), Some(1.35)),
    ),
    promise(
        ("chunk_flood", "CPU per chunk, flood"),
        |figures| figures.flood_chunk_us,
        Measure::Times,
        (None, Some(1.35)),
    ),
    promise(
        ("chunk_flood_rate", "chunks/s, flood"),
        |figures| figures.chunks_per_second,
        Measure::AtLeast,
        (Some(1.3), None),
    ),
    promise(
        ("p50", "p50 at 1 connection, added µs"),
        |figures| figures.p50_us,
        Measure::Added,
        (Some(10.0), Some(20.0)),
    ),
    promise(
        ("first_token", "time to the first token, added µs"),
        |figures| figures.first_token_us,
        Measure::Added,
        (Some(20.0), None),
    ),
    promise(("held", "KiB per held stream"), |figures| figures.held_kib, Measure::Own, (Some(20.0), Some(36.0))),
    promise(
        ("held_tls", "KiB per held stream over TLS"),
        |figures| figures.held_tls_kib,
        Measure::Own,
        (Some(32.0), None),
    ),
];

impl Promise {
    /// FLM beside another program.
    fn beside(&self, flm: f64, other: f64) -> f64 {
        match self.measure {
            Measure::Times | Measure::AtLeast => flm / other,
            Measure::Added => flm - other,
            Measure::Own => flm,
        }
    }

    fn verdict(&self, value: f64, limit: Option<f64>) -> &'static str {
        match (limit, self.measure) {
            (None, _) => "",
            (Some(limit), Measure::AtLeast) if value >= limit => "met",
            (Some(limit), Measure::Times | Measure::Added | Measure::Own) if value <= limit => "met",
            (Some(_), _) => "MISSED",
        }
    }

    /// The worse of two for FLM.
    fn worse(&self, one: f64, other: f64) -> f64 {
        if self.measure == Measure::AtLeast { one.min(other) } else { one.max(other) }
    }
}

/// All visits, by target in the order of the first round.
#[derive(Debug, Default)]
pub(crate) struct Table {
    order: Vec<String>,
    visits: BTreeMap<String, Vec<Figures>>,
}

impl Table {
    /// Adds a visit.
    pub(crate) fn add(&mut self, target: &str, figures: Figures) {
        if !self.order.iter().any(|known| known == target) {
            self.order.push(target.to_owned());
        }
        self.visits.entry(target.to_owned()).or_default().push(figures);
    }

    /// A figure of every visit to a target; none when it was not measured.
    fn values(&self, target: &str, of: fn(&Figures) -> f64) -> Vec<f64> {
        self.visits.get(target).into_iter().flatten().map(of).filter(|value| *value > 0.0).collect()
    }

    /// FLM beside another program: the median of what each round says by itself, and what the medians say.
    fn beside(&self, promise: &Promise, other: &str) -> Option<(f64, f64)> {
        let (flm, other) = (self.values("flm", promise.of), self.values(other, promise.of));
        if flm.is_empty() || other.is_empty() {
            return None;
        }
        let own: Vec<f64> = flm.iter().zip(&other).map(|(flm, other)| promise.beside(*flm, *other)).collect();
        Some((median(&own), promise.beside(median(&flm), median(&other))))
    }

    /// What FLM costs as times of each baseline: below 1 is less than it, for rates too.
    pub(crate) fn ratios(&self) -> serde_json::Value {
        let mut shapes = serde_json::Map::new();
        for shape in [Shape::PerCore, Shape::WorkStealing].map(Shape::name) {
            let mut ratios = serde_json::Map::new();
            for promise in &PROMISES {
                let (flm, other) = (self.values("flm", promise.of), self.values(shape, promise.of));
                let own = flm.iter().zip(&other).map(|(flm, other)| flm / other).collect::<Vec<_>>();
                let ratio = if promise.measure == Measure::AtLeast { 1.0 / median(&own) } else { median(&own) };
                if ratio.is_finite() {
                    ratios.insert(promise.key.to_owned(), ((ratio * 1000.0).round() / 1000.0).into());
                }
            }
            if !ratios.is_empty() {
                shapes.insert(shape.to_owned(), ratios.into());
            }
        }
        serde_json::json!({"rounds": self.rounds(), "ratios": shapes})
    }

    fn rounds(&self) -> usize {
        self.visits.values().map(Vec::len).max().unwrap_or(0)
    }

    /// The table with medians, least and most, and what follows from them.
    pub(crate) fn render(&self, workers: usize) -> Result<String, Fault> {
        let mut text = String::new();
        writeln!(text, "{workers} workers, {} interleaved rounds: median (least–most)\n", self.rounds())?;
        writeln!(text, "| | {} |", self.order.join(" | "))?;
        writeln!(text, "|---|{}", "---:|".repeat(self.order.len()))?;
        for row in &ROWS {
            let values: Vec<_> = self.order.iter().map(|target| self.values(target, row.of)).collect();
            if values.iter().all(Vec::is_empty) {
                continue;
            }
            write!(text, "| {} |", row.name)?;
            for values in values {
                let told = if values.is_empty() { String::new() } else { spread(&values) };
                write!(text, " {told} |")?;
            }
            writeln!(text)?;
        }
        writeln!(text)?;
        self.verdicts(&mut text)?;
        Ok(text)
    }

    fn verdicts(&self, text: &mut String) -> Result<(), Fault> {
        let baselines: Vec<&String> =
            self.order.iter().filter(|target| Shape::parse(target.as_str()).is_ok()).collect();
        let request = PROMISES[0].of;
        for baseline in &baselines {
            let ratio = median(&self.values(baseline, request)) / median(&self.values("nginx", request));
            if ratio.is_finite() {
                let verdict = if ratio <= BASELINE_OVER_NGINX { "the run counts" } else { "THE RUN DOES NOT COUNT" };
                writeln!(
                    text,
                    "{baseline} / nginx, CPU per request: {ratio:.2} (at most {BASELINE_OVER_NGINX}): {verdict}"
                )?;
            }
        }
        let others: Vec<&String> = self.order.iter().filter(|target| *target != "flm").collect();
        if self.order.len() == others.len() || baselines.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\nFLM beside each: the median of the rounds' own, and (what the medians say). Judged by the worse of the baselines.\n"
        )?;
        let names: Vec<&str> = others.iter().map(|name| name.as_str()).collect();
        writeln!(text, "| FLM beside | limit | before | {} | verdict | before |", names.join(" | "))?;
        writeln!(text, "|---|---:|---:|{}---|---|", "---:|".repeat(names.len()))?;
        for promise in &PROMISES {
            let told = |other: &str| self.beside(promise, other);
            let judged = baselines.iter().filter_map(|baseline| told(baseline)).map(|(own, _)| own);
            let Some(worst) = judged.reduce(|one, other| promise.worse(one, other)) else { continue };
            let digits = if matches!(promise.measure, Measure::Times | Measure::AtLeast) { 2 } else { 1 };
            let limit = |limit: Option<f64>| limit.map(|limit| limit.to_string()).unwrap_or_default();
            write!(text, "| {} | {} | {} |", promise.name, limit(promise.limit), limit(promise.before))?;
            for other in &names {
                match told(other) {
                    None => write!(text, " |")?,
                    // Beside a limit that is FLM's own: what the other takes.
                    Some(_) if promise.measure == Measure::Own => {
                        write!(text, " {:.1} |", median(&self.values(other, promise.of)))?;
                    }
                    Some((own, of_medians)) => write!(text, " {own:.digits$} ({of_medians:.digits$}) |")?,
                }
            }
            let verdicts = [promise.limit, promise.before].map(|limit| promise.verdict(worst, limit));
            writeln!(text, " {worst:.digits$} {} | {} |", verdicts[0], verdicts[1])?;
        }
        Ok(())
    }
}
