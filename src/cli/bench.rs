//! `flm bench`.

use std::time::Duration;

use clap::Args;

use super::output::{Output, ProgressLine};
use super::session::Session;
use super::span;
use super::table::{Table, facts, or_dash};
use crate::types::bench::{BenchProgress, BenchReport};
use crate::types::calls::chat::Bench;
use crate::types::failure::Outcome;
use crate::types::spread::Spread;
use crate::types::text::escape;

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// Which model [default: the first one that chats, a loaded one before the others]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Streams at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    concurrency: u32,
    /// How long new requests are begun, such as 30s or 5m
    #[arg(long, value_name = "SPAN", value_parser = span::parse, default_value = "10s")]
    duration: Duration,
    /// Longest answer in tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_tokens: u32,
    /// What is asked [default: a question that any model answers at length]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
}

impl BenchArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let call = Bench {
            model: self.model,
            concurrency: self.concurrency,
            seconds: self.duration.as_secs(),
            max_tokens: self.max_tokens,
            prompt: self.prompt,
        };
        let mut line = ProgressLine::new(session.format);
        let outcome = session
            .follow(call, |told| {
                let (stage, text) = shown(&told);
                line.show(&told, stage, &text);
            })
            .await;
        line.end();
        let report = outcome?;
        let mut output = Output::new(&report, text(&report));
        if report.estimated > 0 {
            let (estimated, completed) = (report.estimated, report.completed);
            output = output.note(format!(
                "tokens of {estimated} of {completed} answers were counted as they came, because the engine told none"
            ));
        }
        Ok(output)
    }
}

fn shown(told: &BenchProgress) -> (&'static str, String) {
    match told {
        BenchProgress::WarmingUp { model } => ("warming up", format!("warming up: one answer of {}", escape(model))),
        BenchProgress::Measuring { elapsed_ms, completed, failed, tokens } => {
            let seconds = elapsed_ms / 1000;
            ("measuring", format!("measuring: {seconds} s, {completed} answers, {tokens} tokens, {failed} failed"))
        }
    }
}

fn text(report: &BenchReport) -> String {
    let failed: u64 = report.errors.iter().map(|error| error.count).sum();
    let mut out = facts([
        ("model", report.model.clone()),
        ("endpoint", report.endpoint.clone()),
        ("streams at once", report.concurrency.to_string()),
        ("time", format!("{:.1} s", report.elapsed_ms / 1000.0)),
        ("answers", format!("{} ({:.2} a second)", report.completed, report.requests_per_second)),
        ("tokens", format!("{} ({:.1} a second)", report.completion_tokens, report.tokens_per_second)),
        ("failed", failed.to_string()),
        ("unfinished", report.unfinished.to_string()),
    ]);
    let mut table = Table::new(&["", "P50", "P95", "P99", "LEAST", "MOST"]);
    for (name, spread, unit) in [
        ("first token", report.first_token_ms, " ms"),
        ("whole answer", report.total_ms, " ms"),
        ("tok/s of a stream", report.stream_tokens_per_second, ""),
    ] {
        let cell = |value: fn(&Spread) -> f64| or_dash(spread.as_ref().map(|s| format!("{:.1}{unit}", value(s))));
        // The best of a rate is its most: its percentiles are told from the slow end, like those of times.
        table.row([
            name.to_owned(),
            cell(|s| s.p50),
            cell(|s| s.p95),
            cell(|s| s.p99),
            cell(|s| s.least),
            cell(|s| s.most),
        ]);
    }
    out.push_str("\n\n");
    out.push_str(&table.or(""));
    for error in &report.errors {
        out.push_str(&format!("\nfailed {} times: {}", error.count, escape(&error.message)));
    }
    out
}
