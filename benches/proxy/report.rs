//! Medians, spreads and ratios of what was measured, as one Markdown table.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::Fault;

/// What one visit to one target found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// CPU µs per request, many connections.
    pub(crate) request_us: f64,
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
    /// Memory per held stream, KiB.
    pub(crate) held_kib: f64,
    /// Processors that other programs kept busy meanwhile, at most.
    pub(crate) others_cores: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, row) in ROWS.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{} {:.1}", row.name, (row.of)(self))?;
        }
        Ok(())
    }
}

/// A line of the table.
struct Row {
    name: &'static str,
    of: fn(&Figures) -> f64,
}

const ROWS: [Row; 10] = [
    Row { name: "CPU µs/request (32 connections)", of: |figures| figures.request_us },
    Row { name: "CPU µs/request (1 connection)", of: |figures| figures.request_us_single },
    Row { name: "CPU µs/chunk (64 streams at 100/s)", of: |figures| figures.chunk_us },
    Row { name: "CPU µs/chunk (flood)", of: |figures| figures.flood_chunk_us },
    Row { name: "requests/s (flood)", of: |figures| figures.requests_per_second },
    Row { name: "chunks/s (flood)", of: |figures| figures.chunks_per_second },
    Row { name: "p50 µs (1 connection)", of: |figures| figures.p50_us },
    Row { name: "p99 µs (1 connection)", of: |figures| figures.p99_us },
    Row { name: "KiB per held stream", of: |figures| figures.held_kib },
    Row { name: "cores used by others", of: |figures| figures.others_cores },
];

/// The shape that FLM has, and so the baseline of its ratios (docs/adr/0004-runtime-shape.md).
const BASELINE: &str = "per-core";
/// A baseline dearer than this times nginx would flatter FLM.
const BASELINE_OVER_NGINX: f64 = 1.3;
/// What FLM may cost of the baseline's CPU, per request and per chunk.
const FLM_OVER_BASELINE: f64 = 1.35;
/// What FLM may add to the baseline's median at one connection, in µs.
const FLM_ADDED_P50_US: f64 = 20.0;

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

    fn median(&self, target: &str, of: fn(&Figures) -> f64) -> Option<f64> {
        self.spread(target, of).map(|(_least, median, _most)| median)
    }

    fn spread(&self, target: &str, of: fn(&Figures) -> f64) -> Option<(f64, f64, f64)> {
        let mut values: Vec<f64> = self.visits.get(target)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        Some((*values.first()?, values[values.len() / 2], *values.last()?))
    }

    /// The table with medians, least and most, and what follows from them.
    pub(crate) fn render(&self, workers: usize) -> Result<String, Fault> {
        let mut text = String::new();
        let rounds = self.visits.values().map(Vec::len).max().unwrap_or(0);
        writeln!(text, "{workers} workers, {rounds} interleaved rounds: median (least–most)\n")?;
        writeln!(text, "| | {} |", self.order.join(" | "))?;
        writeln!(text, "|---|{}", "---:|".repeat(self.order.len()))?;
        for row in &ROWS {
            write!(text, "| {} |", row.name)?;
            for target in &self.order {
                match self.spread(target, row.of) {
                    Some((least, median, most)) => {
                        let digits = usize::from(median < 1000.0);
                        write!(text, " {median:.digits$} ({least:.digits$}–{most:.digits$}) |")?;
                    }
                    None => write!(text, " |")?,
                }
            }
            writeln!(text)?;
        }
        self.ratios(&mut text)?;
        Ok(text)
    }

    fn ratios(&self, text: &mut String) -> Result<(), Fault> {
        let of_request: fn(&Figures) -> f64 = |figures| figures.request_us;
        let of_chunk: fn(&Figures) -> f64 = |figures| figures.chunk_us;
        let of_flood_chunk: fn(&Figures) -> f64 = |figures| figures.flood_chunk_us;
        let of_p50: fn(&Figures) -> f64 = |figures| figures.p50_us;
        writeln!(text)?;
        if let (Some(baseline), Some(nginx)) = (self.median(BASELINE, of_request), self.median("nginx", of_request)) {
            let ratio = baseline / nginx;
            let verdict = if ratio <= BASELINE_OVER_NGINX { "the run counts" } else { "THE RUN DOES NOT COUNT" };
            writeln!(text, "baseline / nginx, CPU per request: {ratio:.2} (at most {BASELINE_OVER_NGINX}): {verdict}")?;
        }
        let pairs = [("request", of_request), ("chunk", of_chunk), ("chunk in a flood", of_flood_chunk)];
        for (name, of) in pairs {
            if let (Some(flm), Some(baseline)) = (self.median("flm", of), self.median(BASELINE, of)) {
                let ratio = flm / baseline;
                let verdict = if ratio <= FLM_OVER_BASELINE { "met" } else { "MISSED" };
                writeln!(text, "flm / baseline, CPU per {name}: {ratio:.2} (at most {FLM_OVER_BASELINE}): {verdict}")?;
            }
        }
        if let (Some(flm), Some(baseline)) = (self.median("flm", of_p50), self.median(BASELINE, of_p50)) {
            let added = flm - baseline;
            let verdict = if added <= FLM_ADDED_P50_US { "met" } else { "MISSED" };
            writeln!(
                text,
                "flm - baseline, p50 at one connection: {added:.1} µs (at most {FLM_ADDED_P50_US}): {verdict}"
            )?;
        }
        Ok(())
    }
}
