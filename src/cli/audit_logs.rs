//! `flm security audit-logs` and `flm security events`: the chained log of security events (SPEC §5.9).

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::csv;
use super::output::{self, Format, Output};
use super::session::Session;
use super::span;
use super::table::{Table, or_dash, time};
use crate::config::files::Replacement;
use crate::types::audit::{AuditKind, AuditRow, Severity};
use crate::types::calls::audit::{ArchiveAudit, AuditVerdict, ExportAudit, ExportedAudit, ListAudit, VerifyAudit};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::{LiveEvent, LiveLine};
use crate::types::text::escape;

/// Events that `events` begins with.
const NEWEST: u32 = 50;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List events, newest first
    #[command(after_help = "Example:\n  flm security audit-logs list --severity high --since 24h")]
    List(AuditFilter),
    /// Write events into a file, oldest first, with their codes: --format csv or json
    #[command(after_help = "Example:\n  flm security audit-logs export --format csv --output audit.csv --since 30d")]
    Export {
        /// The file; one that is there is replaced when the export is complete
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        wanted: WantedEvents,
    },
    /// Recompute the chain over every row, and compare it with the heads in the daemon's log and in the backups
    #[command(after_help = "Example:\n  flm security audit-logs verify")]
    Verify,
    /// Replace old rows by an anchor that the chain goes on from; export them first, they do not come back
    #[command(after_help = "Example:\n  flm security audit-logs archive --before 90d")]
    Archive {
        /// A day such as 2026-01-31, or an age such as 90d
        #[arg(long, value_name = "DAY|SPAN", value_parser = before)]
        before: Before,
    },
}

/// Up to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// A point in time.
    At(UnixMillis),
    /// This long ago.
    Ago(Duration),
}

fn before(text: &str) -> Result<Before, String> {
    if let Ok(date) = text.parse::<jiff::civil::Date>() {
        let midnight = date.to_zoned_datetime(jiff::tz::TimeZone::system()).map_err(|error| error.to_string())?;
        return Ok(Before::At(UnixMillis(midnight.timestamp().as_millisecond())));
    }
    span::parse(text).map(Before::Ago).map_err(|rule| format!("write a day such as 2026-01-31, or an age: {rule}"))
}

/// Which events.
#[derive(Debug, Args)]
pub(super) struct WantedEvents {
    /// Only this severity and above: low, medium, high or critical
    #[arg(long, value_parser = named::<Severity>)]
    severity: Option<Severity>,
    /// Only this address
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Only this type, such as key-changed
    #[arg(long = "type", value_parser = named::<AuditKind>)]
    kind: Option<AuditKind>,
    /// Only events of the last SPAN
    #[arg(long, value_name = "SPAN", value_parser = span::parse)]
    since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(super) struct AuditFilter {
    #[command(flatten)]
    wanted: WantedEvents,
    /// How many, at most 1000 [default: 100, of events 50]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Go on with new events until interrupted; needs a running proxy
    #[arg(long)]
    follow: bool,
}

/// Parses a value by its name in JSON.
pub(super) fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let name = text.to_ascii_lowercase().replace('-', "_");
    serde_json::from_value(serde_json::Value::String(name)).map_err(|error| {
        let text = error.to_string();
        let known = text.split_once("expected one of ").map(|(_, known)| known.replace('`', ""));
        known.map_or(text, |known| format!("write one of {known}"))
    })
}

impl AuditCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Verify => verify(session).await,
            Self::List(filter) if filter.follow => follow(session, &filter, 100).await,
            Self::List(filter) => {
                let rows = session.call(filter.call(100)).await?;
                Ok(Output::new(&rows, listing(&rows)))
            }
            Self::Export { output, wanted } => {
                let since = wanted.since();
                let WantedEvents { severity, ip: address, kind, .. } = wanted;
                export(session, output, ExportAudit { after: 0, severity, address, kind, since }).await
            }
            Self::Archive { before } => {
                let before = match before {
                    Before::At(at) => at,
                    Before::Ago(span) => Clock::system().wall().minus(span),
                };
                let archived = session.call(ArchiveAudit { before }).await?;
                let text = match archived.rows {
                    0 => "nothing is that old: no row was archived".to_owned(),
                    rows => format!("{rows} rows up to number {} are archived; the chain goes on", archived.through),
                };
                Ok(Output::new(&archived, text))
            }
        }
    }
}

impl WantedEvents {
    fn since(&self) -> Option<UnixMillis> {
        self.since.map(|span| Clock::system().wall().minus(span))
    }
}

impl AuditFilter {
    fn call(&self, limit: u32) -> ListAudit {
        ListAudit {
            severity: self.wanted.severity,
            address: self.wanted.ip,
            kind: self.wanted.kind,
            since: self.wanted.since(),
            limit: self.limit.unwrap_or(limit),
            ..ListAudit::default()
        }
    }

    fn shows(&self, row: &AuditRow) -> bool {
        let (event, wanted) = (&row.event, &self.wanted);
        wanted.severity.is_none_or(|least| event.severity >= least)
            && wanted.kind.is_none_or(|kind| event.kind == kind)
            && wanted.ip.is_none_or(|ip| event.address == Some(ip))
    }

    /// The newest events in the order in which they happened, and what comes.
    pub(super) async fn events(self, session: &Session) -> Outcome<Output> {
        if self.follow {
            return follow(session, &self, NEWEST).await;
        }
        let mut rows = session.call(self.call(NEWEST)).await?;
        rows.reverse();
        Ok(Output::new(&rows, listing(&rows)))
    }
}

/// Prints what is there, then every new row, until the proxy ends or the person interrupts.
async fn follow(session: &Session, filter: &AuditFilter, limit: u32) -> Outcome<Output> {
    let operator = session.running().await?;
    // Subscribed before the list is asked for, so that nothing falls between.
    let mut events = operator.events().await?;
    let mut last = 0;
    let mut tell = |rows: &[&AuditRow]| -> Outcome<ControlFlow<()>> {
        for row in rows {
            let shown = row.sequence > last && filter.shows(row);
            last = last.max(row.sequence);
            let text = || cells(row).map(|cell| escape(&cell).into_owned()).join("  ");
            if shown && output::item(session.format, row, &text())?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    let listed = operator.call(filter.call(limit)).await?;
    let mut read = tell(&listed.iter().rev().collect::<Vec<_>>())?;
    let mut gone = std::pin::pin!(output::reader_gone());
    while read.is_continue() {
        let line = tokio::select! {
            () = &mut gone => return Ok(Output::nothing()),
            line = events.next() => line,
        };
        let Some(line) = line else { break };
        read = match &line {
            LiveLine::Snapshot { snapshot, dropped } if *dropped > 0 => {
                tell(&snapshot.audit.iter().rev().collect::<Vec<_>>())?
            }
            LiveLine::Event(event) => match &*event.event {
                LiveEvent::Audit(row) => tell(&[row])?,
                _ => read,
            },
            LiveLine::Snapshot { .. } => read,
        };
    }
    if read.is_break() {
        return Ok(Output::nothing());
    }
    Err(Failure::new(ErrorCode::IoError, "the proxy has ended").hint("start it again with: flm proxy start"))
}

/// Writes page after page into the file, which takes its place when it is complete.
async fn export(session: &Session, path: PathBuf, mut call: ExportAudit) -> Outcome<Output> {
    let mut file = Replacement::begin(&path)?;
    let csv = session.format == Format::Csv;
    file.write(
        if csv { csv::line(&COLUMNS).into_bytes() } else { b"{\"version\":\"1.0\",\"data\":[".to_vec() }.as_slice(),
    )?;
    let mut rows: u64 = 0;
    let operator = session.operator().await?;
    let written: Outcome<()> = async {
        loop {
            let page = operator.call(call.clone()).await?;
            for exported in &page.rows {
                if csv {
                    file.write(csv::line(&record(exported)).as_bytes())?;
                } else {
                    let separator = if rows == 0 { "\n" } else { ",\n" };
                    // Values of `types` always serialise.
                    let json = serde_json::to_string(exported).unwrap_or_default();
                    file.write(format!("{separator}{json}").as_bytes())?;
                }
                rows += 1;
            }
            match page.next {
                Some(after) => call.after = after,
                None => return Ok(()),
            }
        }
    }
    .await;
    operator.close().await;
    written?;
    if !csv {
        file.write(b"\n]}\n")?;
    }
    file.finish()?;
    let shown = path.to_string_lossy().into_owned();
    let text = format!("{rows} rows written to {}", escape(&shown));
    Ok(Output::new(&serde_json::json!({ "rows": rows, "file": shown }), text))
}

const COLUMNS: [&str; 13] = [
    "number",
    "time",
    "severity",
    "type",
    "request_id",
    "address",
    "key",
    "endpoint",
    "engine",
    "status",
    "latency_ms",
    "details",
    "code",
];

fn record(exported: &ExportedAudit) -> [String; 13] {
    let event = &exported.row.event;
    let text = |value: Option<String>| value.unwrap_or_default();
    let at = jiff::Timestamp::from_millisecond(event.at.0).map_or_else(|_| event.at.0.to_string(), |at| at.to_string());
    [
        exported.row.sequence.to_string(),
        at,
        name(&event.severity),
        name(&event.kind),
        text(event.request_id.map(|id| id.to_string())),
        text(event.address.map(|address| address.to_string())),
        text(event.key.map(|key| key.to_string())),
        text(event.endpoint.clone()),
        text(event.engine.as_ref().map(ToString::to_string)),
        text(event.status.map(|status| status.to_string())),
        text(event.latency_ms.map(|latency| latency.to_string())),
        event.details.clone(),
        exported.code.clone(),
    ]
}

async fn verify(session: &Session) -> Outcome<Output> {
    let verdict = session.call(VerifyAudit {}).await?;
    match &verdict.broken_at {
        None => Ok(Output::new(&verdict, told(&verdict))),
        Some((row, reason)) => Err(Failure::new(
            ErrorCode::DbError,
            format!("the audit log does not fit its chain at row {row}: {reason}"),
        )
        .hint("somebody or something changed security.db outside FLM: keep a copy of the file before you go on")),
    }
}

fn told(verdict: &AuditVerdict) -> String {
    let mut lines = vec![format!("{} rows, the chain is whole", verdict.rows)];
    if verdict.archived > 0 {
        lines.push(format!("{} rows before them are archived, and their anchors fit", verdict.archived));
    }
    lines.push(format!("{} heads of the daemon's log and of backups fit", verdict.heads));
    if verdict.foreign_heads > 0 {
        lines.push(format!("{} heads there are of another home, or were changed", verdict.foreign_heads));
    }
    let health = &verdict.health;
    if health.shed > 0 {
        lines.push(format!("{} events were shed since the proxy started: more came than can be written", health.shed));
    }
    if health.unwritten > 0 {
        lines.push(format!("{} events could not be written", health.unwritten));
    }
    if let Some(why) = &health.failing {
        lines.push(format!("new rows cannot be written now, it is tried again: {}", escape(why)));
    }
    lines.join("\n")
}

fn listing(rows: &[AuditRow]) -> String {
    let mut table = Table::new(&["NUMBER", "TIME", "SEVERITY", "TYPE", "ADDRESS", "DETAILS"]);
    for row in rows {
        table.row(cells(row));
    }
    table.or("no events")
}

fn cells(row: &AuditRow) -> [String; 6] {
    let event = &row.event;
    [
        row.sequence.to_string(),
        time(event.at),
        name(&event.severity),
        name(&event.kind),
        or_dash(event.address),
        event.details.clone(),
    ]
}

/// The name under which a value is written in JSON.
pub(super) fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_or_a_day_says_what_is_archived() {
        assert_eq!(before("90d"), Ok(Before::Ago(Duration::from_secs(90 * 86_400))));
        assert!(matches!(before("2026-01-31"), Ok(Before::At(_))));
        assert!(before("yesterday").expect_err("no time").contains("2026-01-31"));
    }
}
