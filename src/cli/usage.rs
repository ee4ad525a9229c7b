//! `flm usage`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::output::Output;
use super::session::Session;
use super::span;
use super::table::{Table, or_dash, time};
use crate::types::calls::usage::ShowUsage;
use crate::types::failure::Outcome;
use crate::types::usage::{UsageBy, UsageReport, UsageRow};

#[derive(Debug, Args)]
pub(super) struct UsageArguments {
    /// What to sum by
    #[arg(long, default_value = "model")]
    by: ByName,
    /// How far back, such as 24h or 30d
    #[arg(long, value_name = "SPAN", value_parser = span::parse, default_value = "30d")]
    since: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ByName {
    Key,
    Model,
    Engine,
    Day,
}

impl UsageArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let by = match self.by {
            ByName::Key => UsageBy::Key,
            ByName::Model => UsageBy::Model,
            ByName::Engine => UsageBy::Engine,
            ByName::Day => UsageBy::Day,
        };
        let report = session.call(ShowUsage { by, since: self.since }).await?;
        let output = Output::new(&report, listing(&report));
        if report.total.estimated == 0 {
            return Ok(output);
        }
        Ok(output.note(format!(
            "~ tokens of {} requests were counted as they came, because their engine told none",
            report.total.estimated
        )))
    }
}

fn listing(report: &UsageReport) -> String {
    let title = match report.by {
        UsageBy::Key => "KEY",
        UsageBy::Model => "MODEL",
        UsageBy::Engine => "ENGINE",
        UsageBy::Day => "DAY",
    };
    if report.rows.is_empty() {
        return format!("nothing was used since {}", time(report.since));
    }
    let mut table =
        Table::new(&[title, "REQUESTS", "FAILED", "TOKENS IN", "CACHED", "TOKENS OUT", "TTFT", "TOK/S", "LATENCY"]);
    for row in &report.rows {
        let name = match &row.label {
            Some(label) => format!("{} ({label})", row.name),
            None => row.name.clone(),
        };
        table.row(cells(name, row));
    }
    if report.rows.len() > 1 {
        table.row(cells("total".to_owned(), &UsageRow::new(String::new(), None, report.total)));
    }
    table.or("")
}

fn cells(name: String, row: &UsageRow) -> [String; 9] {
    let sums = &row.sums;
    // What was estimated is marked, as in the note below the table.
    let estimated = if sums.estimated > 0 { "~" } else { "" };
    let millis = |value: Option<f64>| or_dash(value.map(|ms| format!("{ms:.0} ms")));
    [
        name,
        sums.requests.to_string(),
        sums.failed.to_string(),
        sums.prompt_tokens.to_string(),
        sums.cached_tokens.to_string(),
        format!("{estimated}{}", sums.completion_tokens),
        millis(row.ttft_ms),
        or_dash(row.tokens_per_second.map(|rate| format!("{rate:.1}"))),
        millis(row.latency_ms),
    ]
}
