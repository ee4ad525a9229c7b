//! `flm logs`.

use std::time::Duration;

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use super::span;
use super::table::{Table, or_dash, time};
use crate::types::calls::requests::ListRequests;
use crate::types::clock::Clock;
use crate::types::failure::Outcome;
use crate::types::request::RequestRow;

#[derive(Debug, Subcommand)]
pub(super) enum LogsCommand {
    /// List recent requests, newest first
    #[command(after_help = "Example:\n  flm logs requests --since 1h --format jsonl")]
    Requests {
        /// Only requests of the last SPAN
        #[arg(long, value_name = "SPAN", value_parser = span::parse)]
        since: Option<Duration>,
        /// How many, at most 1000
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
}

impl LogsCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let Self::Requests { since, limit } = self;
        let mut rows = session.call(ListRequests { limit }).await?;
        if let Some(span) = since {
            let from = Clock::system().wall().minus(span);
            rows.retain(|row| row.at >= from);
        }
        Ok(Output::new(&rows, listing(&rows)))
    }
}

fn listing(rows: &[RequestRow]) -> String {
    let mut table =
        Table::new(&["TIME", "STATUS", "PATH", "MODEL", "ENGINE", "KEY", "CLIENT", "TOKENS", "TTFT", "LATENCY", "ID"]);
    for row in rows {
        table.row([
            time(row.at),
            if row.status == 0 { "-".to_owned() } else { row.status.to_string() },
            row.path.to_string(),
            or_dash(row.model.as_ref()),
            or_dash(row.engine.as_ref()),
            or_dash(row.key_label.as_ref()),
            row.client.to_string(),
            row.tokens.total().to_string(),
            or_dash(row.ttft_ms().map(milliseconds)),
            or_dash(row.latency_ms().map(milliseconds)),
            row.id.to_string(),
        ]);
    }
    table.or("no requests")
}

fn milliseconds(value: f64) -> String {
    format!("{value:.1} ms")
}
