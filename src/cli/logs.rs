//! `flm logs`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::output::{self, Output};
use super::session::Session;
use super::span;
use super::table::{Table, facts, or_dash, time};
use crate::types::calls::captures::{CapturePage, ClearCaptures, ListCaptures, ShowCapture};
use crate::types::calls::logs::ReadLogs;
use crate::types::calls::requests::ListRequests;
use crate::types::calls::settings::{SetSetting, SettingSource};
use crate::types::capture::{Capture, CapturedSize, Kept};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::failure::Outcome;
use crate::types::ids::{InvalidId, KeyId, RequestId};
use crate::types::request::RequestRow;
use crate::types::text::escape;

/// How long `--follow` waits before it looks for new lines again.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct LogsArguments {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    /// Log this much from now on: error, warn, info, debug or trace; works while the proxy runs
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// Log another amount for a part of FLM, such as proxy=debug; none takes all of them away
    #[arg(long, value_name = "PART=LEVEL,…")]
    target: Option<String>,
    /// Only lines of this level and above
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "trace"])]
    min: Option<String>,
    /// Only lines of the last SPAN
    #[arg(long, value_name = "SPAN", value_parser = span::parse)]
    since: Option<Duration>,
    /// How many lines, at most 1000
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Go on with new lines until interrupted
    #[arg(long, short = 'f')]
    follow: bool,
}

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
    /// List requests whose bodies were captured, newest first
    #[command(
        after_help = "Examples:\n  flm api-keys edit Ab12Cd34 --capture 2h   # first: capture what this key asks and gets\n  flm logs captures --key Ab12Cd34\n  flm logs captures clear\n\nBodies are prompts and answers in clear. They are kept for 48 hours, 100 MB of them at most, in the\nencrypted security.db and in no backup. docs/logs.md says more."
    )]
    Captures(CapturesArguments),
    /// Show what a captured request sent and got
    #[command(
        after_help = "Examples:\n  flm logs capture req_0123456789abcdefghjk\n  flm logs capture req_0123456789abcdefghjk --format json | jq -r .data.request_text | jq ."
    )]
    Capture {
        /// As in flm logs captures, and as clients are told in x-request-id
        #[arg(value_name = "REQUEST_ID", value_parser = request_id)]
        id: RequestId,
    },
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct CapturesArguments {
    #[command(subcommand)]
    command: Option<CapturesCommand>,
    /// Only those of this key
    #[arg(long, value_name = "KEY_ID", value_parser = KeyId::parse)]
    key: Option<KeyId>,
    /// How many, at most 1000
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

#[derive(Debug, Subcommand)]
enum CapturesCommand {
    /// Delete captured bodies for good
    #[command(after_help = "Examples:\n  flm logs captures clear\n  flm logs captures clear --key Ab12Cd34")]
    Clear {
        /// Only those of this key
        #[arg(long, value_name = "KEY_ID", value_parser = KeyId::parse)]
        key: Option<KeyId>,
    },
}

fn request_id(text: &str) -> Result<RequestId, InvalidId> {
    text.to_owned().try_into()
}

impl LogsArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self.command {
            Some(LogsCommand::Requests { since, limit }) => requests(session, since, limit).await,
            Some(LogsCommand::Capture { id }) => {
                let capture = session.call(ShowCapture { id }).await?;
                Ok(Output::new(&capture, exchange(&capture)))
            }
            Some(LogsCommand::Captures(arguments)) => arguments.run(session).await,
            None => {
                let changed = self.change(session).await?;
                match changed {
                    Some(output) if !self.follow => Ok(output),
                    _ => self.read(session).await,
                }
            }
        }
    }

    /// Stores what is to be logged; `None` when nothing of it was asked for.
    async fn change(&self, session: &Session) -> Outcome<Option<Output>> {
        let wanted = [("log.level", self.level.clone()), ("log.targets", self.targets())];
        let mut views = Vec::new();
        for (key, value) in wanted {
            let Some(value) = value else { continue };
            views.push(session.call(SetSetting { key: key.to_owned(), value }).await?);
        }
        if views.is_empty() {
            return Ok(None);
        }
        let told: Vec<_> = views.iter().map(|view| format!("{} = {}", view.key, escape(&view.value))).collect();
        let overridden = views
            .iter()
            .find(|view| matches!(view.source, SettingSource::Flag | SettingSource::Environment | SettingSource::File));
        let output = Output::new(&views, told.join("\n"));
        Ok(Some(match overridden {
            Some(view) => output.note(format!("stored, but a stronger layer still sets {}", view.key)),
            None => output,
        }))
    }

    fn targets(&self) -> Option<String> {
        let text = self.target.as_deref()?.trim();
        Some(if text.eq_ignore_ascii_case("none") { String::new() } else { text.to_owned() })
    }

    async fn read(&self, session: &Session) -> Outcome<Output> {
        let since = self.since.map(|span| Clock::system().wall().minus(span));
        let operator = session.operator().await?;
        let call = ReadLogs { since, after: None, limit: self.limit };
        let outcome: Outcome<Output> = async {
            let mut page = operator.call(call).await?;
            page.lines.retain(|line| self.shows(line));
            if !self.follow {
                return Ok(Output::new(&page.lines, page.lines.iter().map(text).collect::<Vec<_>>().join("\n")));
            }
            let mut gone = std::pin::pin!(output::reader_gone());
            loop {
                for line in page.lines.iter().filter(|line| self.shows(line)) {
                    if output::item(session.format, line, &text(line))?.is_break() {
                        return Ok(Output::nothing());
                    }
                }
                let full = page.lines.len() >= 1000;
                if !full {
                    tokio::select! {
                        () = &mut gone => return Ok(Output::nothing()),
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
                page = operator.call(ReadLogs { since: None, after: Some(page.next), limit: 1000 }).await?;
            }
        }
        .await;
        operator.close().await;
        outcome
    }

    fn shows(&self, line: &Value) -> bool {
        let rank = |level: &str| ["trace", "debug", "info", "warn", "error"].iter().position(|known| *known == level);
        let Some(least) = self.min.as_deref().and_then(rank) else { return true };
        line["level"].as_str().map(str::to_ascii_lowercase).and_then(|level| rank(&level)).is_none_or(|is| is >= least)
    }
}

impl CapturesArguments {
    async fn run(self, session: &Session) -> Outcome<Output> {
        if let Some(CapturesCommand::Clear { key }) = self.command {
            let count = session.call(ClearCaptures { key }).await?;
            return Ok(Output::new(&count, format!("{count} captured requests deleted")));
        }
        let page = session.call(ListCaptures { key: self.key, limit: self.limit }).await?;
        let output = Output::new(&page, captured(&page));
        Ok(if page.lost > 0 {
            output.note(format!("{} more were lost since the start: the disk is slow", page.lost))
        } else {
            output
        })
    }
}

fn captured(page: &CapturePage) -> String {
    let mut table = Table::new(&["TIME", "KEY", "STATUS", "PATH", "MODEL", "REQUEST", "ANSWER", "ID"]);
    for entry in &page.captures {
        table.row([
            time(entry.at),
            entry.key.to_string(),
            if entry.status == 0 { "-".to_owned() } else { entry.status.to_string() },
            entry.path.clone(),
            or_dash(entry.model.as_ref()),
            size(entry.request),
            size(entry.answer),
            entry.id.to_string(),
        ]);
    }
    table.or("nothing captured: capture a key with 'flm api-keys edit ID --capture 2h'")
}

fn size(size: CapturedSize) -> String {
    match size.kept {
        Kept::Whole => format!("{} B", size.bytes),
        Kept::Cut => format!("{} B, cut", size.bytes),
        Kept::Binary => format!("{} B, no text", size.bytes),
    }
}

/// An exchange for people; bodies keep their lines.
fn exchange(capture: &Capture) -> String {
    let entry = &capture.entry;
    let head = facts([
        ("id", entry.id.to_string()),
        ("time", time(entry.at)),
        ("key", entry.key.to_string()),
        ("request", format!("{} {}", entry.method, entry.path)),
        ("model", or_dash(entry.model.as_ref())),
        ("status", if entry.status == 0 { "-".to_owned() } else { entry.status.to_string() }),
    ]);
    let body = |name: &str, bytes: CapturedSize, text: &str| {
        let lines: Vec<_> = text.lines().map(escape).collect();
        format!("{name} ({})\n{}", size(bytes), lines.join("\n"))
    };
    let asked = body("REQUEST", entry.request, &capture.request_text);
    let got = body("ANSWER", entry.answer, &capture.answer_text);
    format!("{head}\n\n{asked}\n\n{got}")
}

/// A line for people: time, level, part, message, and what else it says.
fn text(line: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let at = line["timestamp"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let at = at.map_or_else(|| "-".to_owned(), |at| time(UnixMillis(at.as_millisecond())));
    let message = line["fields"].get("message").or(line.get("message")).map(word).unwrap_or_default();
    let mut out = format!("{at} {:5} {} {message}", word(&line["level"]), word(&line["target"]));
    for (name, value) in line["fields"].as_object().into_iter().flatten().filter(|(name, _)| *name != "message") {
        out.push_str(&format!(" {name}={}", word(value)));
    }
    escape(&out).into_owned()
}

async fn requests(session: &Session, since: Option<Duration>, limit: u32) -> Outcome<Output> {
    let mut rows = session.call(ListRequests { limit }).await?;
    if let Some(span) = since {
        let from = Clock::system().wall().minus(span);
        rows.retain(|row| row.at >= from);
    }
    Ok(Output::new(&rows, listing(&rows)))
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
