//! `flm security`: address lists and the audit log.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::authority::AuthorityCommand;
use super::output::{self, Output};
use super::policy::PolicyCommand;
use super::session::Session;
use super::span;
use super::table::{Table, or_dash, time};
use crate::types::address::{BlockEntry, ListedNetwork, parse_network};
use crate::types::audit::{AuditKind, AuditRow, Severity};
use crate::types::calls::addresses::{
    AddBlock, AddNetwork, ClearBlocks, ListBlocks, ListNetworks, NetworkList, RemoveBlock, RemoveNetwork,
};
use crate::types::calls::audit::{ListAudit, VerifyAudit};
use crate::types::clock::Clock;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::live::{LiveEvent, LiveLine};
use crate::types::text::escape;

/// Entries of one page (see `ListBlocks`).
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum SecurityCommand {
    /// What guards the endpoint, and how strictly
    #[command(subcommand, after_help = "Example:\n  flm security policy show")]
    Policy(PolicyCommand),
    /// Addresses that are refused
    #[command(subcommand, after_help = "Example:\n  flm security ip-blocklist list")]
    IpBlocklist(BlocklistCommand),
    /// Addresses that may connect at all; an empty list lets everyone
    #[command(subcommand, after_help = "Example:\n  flm security ip-allowlist add 192.168.1.0/24")]
    IpAllowlist(NetworksCommand),
    /// Addresses that are never blocked automatically
    #[command(subcommand, after_help = "Example:\n  flm security ip-trusted add 192.168.1.10")]
    IpTrusted(NetworksCommand),
    /// The chained log of security events
    #[command(subcommand, after_help = "Example:\n  flm security audit-logs verify")]
    AuditLogs(AuditCommand),
    /// The certificate authority of this home (mode packaged-ca), and who trusts it
    #[command(subcommand, after_help = "Example:\n  flm security ca show")]
    Ca(AuthorityCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum BlocklistCommand {
    /// List blocks, newest first
    #[command(after_help = "Example:\n  flm security ip-blocklist list")]
    List,
    /// Block an address or a CIDR block
    #[command(after_help = "Example:\n  flm security ip-blocklist add 203.0.113.0/24 --for 2h --reason scanning")]
    Add {
        /// Address or CIDR block
        #[arg(value_name = "IP|CIDR", value_parser = parse_network)]
        network: IpNet,
        /// How long [default: until it is lifted]
        #[arg(long = "for", value_name = "SPAN", value_parser = span::parse)]
        duration: Option<Duration>,
        /// Why, for yourself
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Lift one block
    #[command(after_help = "Example:\n  flm security ip-blocklist unblock 203.0.113.0/24")]
    Unblock {
        /// Exactly the network of the entry
        #[arg(value_name = "IP|CIDR", value_parser = parse_network)]
        network: IpNet,
    },
    /// Lift all blocks
    #[command(after_help = "Example:\n  flm security ip-blocklist clear")]
    Clear,
}

#[derive(Debug, Subcommand)]
pub(super) enum NetworksCommand {
    /// List the entries
    #[command(after_help = "Examples:\n  flm security ip-allowlist list\n  flm security ip-trusted list")]
    List,
    /// Add an address or a CIDR block
    #[command(
        after_help = "Examples:\n  flm security ip-allowlist add 192.168.1.0/24 --note 'home network'\n  flm security ip-trusted add 192.168.1.0/24 --note 'home network'"
    )]
    Add {
        /// Address or CIDR block
        #[arg(value_name = "CIDR", value_parser = parse_network)]
        network: IpNet,
        /// A note for yourself
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Remove an entry
    #[command(
        after_help = "Examples:\n  flm security ip-allowlist remove 192.168.1.0/24\n  flm security ip-trusted remove 192.168.1.0/24"
    )]
    Remove {
        /// Exactly the network of the entry
        #[arg(value_name = "CIDR", value_parser = parse_network)]
        network: IpNet,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List events, newest first
    #[command(after_help = "Example:\n  flm security audit-logs list --severity high --since 24h")]
    List(AuditFilter),
    /// Recompute the chain over every row
    #[command(after_help = "Example:\n  flm security audit-logs verify")]
    Verify,
}

#[derive(Debug, Args)]
pub(super) struct AuditFilter {
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
    /// How many, at most 1000
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Go on with new events until interrupted; needs a running proxy
    #[arg(long)]
    follow: bool,
}

/// Parses a value by its name in JSON.
fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let name = text.to_ascii_lowercase().replace('-', "_");
    serde_json::from_value(serde_json::Value::String(name)).map_err(|error| error.to_string())
}

impl SecurityCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Policy(command) => command.run(session).await,
            Self::Ca(command) => command.run(session).await,
            Self::IpBlocklist(command) => command.run(session).await,
            Self::IpAllowlist(command) => command.run(session, NetworkList::Allow).await,
            Self::IpTrusted(command) => command.run(session, NetworkList::Trusted).await,
            Self::AuditLogs(AuditCommand::Verify) => verify(session).await,
            Self::AuditLogs(AuditCommand::List(filter)) if filter.follow => follow(session, &filter).await,
            Self::AuditLogs(AuditCommand::List(filter)) => {
                let rows = session.call(filter.call()).await?;
                let mut table = Table::new(&["NUMBER", "TIME", "SEVERITY", "TYPE", "ADDRESS", "DETAILS"]);
                for row in &rows {
                    table.row(cells(row));
                }
                Ok(Output::new(&rows, table.or("no events")))
            }
        }
    }
}

impl BlocklistCommand {
    async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List => {
                let mut entries = Vec::new();
                loop {
                    let offset = u32::try_from(entries.len()).unwrap_or(u32::MAX);
                    let page = session.call(ListBlocks { offset, limit: PAGE }).await?;
                    let (total, got) = (page.total, page.entries.len());
                    entries.extend(page.entries);
                    // A list that shrinks meanwhile ends with an empty page.
                    if got == 0 || entries.len() as u64 >= total {
                        break;
                    }
                }
                Ok(Output::new(&entries, blocks(&entries)))
            }
            Self::Add { network, duration, reason } => {
                let entry = session.call(AddBlock { network, duration, reason }).await?;
                let until =
                    entry.expires.map_or_else(|| "until it is lifted".to_owned(), |at| format!("until {}", time(at)));
                let text = format!("{} is blocked {until}", entry.network);
                Ok(Output::new(&entry, text))
            }
            Self::Unblock { network } => {
                let entry = session.call(RemoveBlock { network }).await?;
                let text = format!("{} is no longer blocked", entry.network);
                Ok(Output::new(&entry, text))
            }
            Self::Clear => {
                let lifted = session.call(ClearBlocks {}).await?;
                Ok(Output::new(&serde_json::json!({ "lifted": lifted }), format!("{lifted} blocks lifted")))
            }
        }
    }
}

impl NetworksCommand {
    async fn run(self, session: &Session, list: NetworkList) -> Outcome<Output> {
        match self {
            Self::List => {
                let entries = session.call(ListNetworks { list }).await?;
                Ok(Output::new(&entries, networks(&entries, list)))
            }
            Self::Add { network, note } => {
                let entry = session.call(AddNetwork { list, network, note }).await?;
                let text = format!("{} added", entry.network);
                Ok(Output::new(&entry, text))
            }
            Self::Remove { network } => {
                session.call(RemoveNetwork { list, network }).await?;
                Ok(Output::new(&serde_json::json!({ "removed": network }), format!("{network} removed")))
            }
        }
    }
}

impl AuditFilter {
    fn call(&self) -> ListAudit {
        ListAudit {
            severity: self.severity,
            address: self.ip,
            kind: self.kind,
            since: self.since.map(|span| Clock::system().wall().minus(span)),
            before: None,
            limit: self.limit,
        }
    }

    fn shows(&self, row: &AuditRow) -> bool {
        let event = &row.event;
        self.severity.is_none_or(|least| event.severity >= least)
            && self.kind.is_none_or(|kind| event.kind == kind)
            && self.ip.is_none_or(|ip| event.address == Some(ip))
    }
}

/// Prints what is there, then every new row, until the proxy ends or the person interrupts.
async fn follow(session: &Session, filter: &AuditFilter) -> Outcome<Output> {
    let operator = session.running().await?;
    // Subscribed before the list is asked for, so that nothing falls between.
    let mut events = operator.events().await?;
    let mut last = 0;
    let mut tell = |row: &AuditRow| {
        if row.sequence > last && filter.shows(row) {
            output::item(session.format, row, &cells(row).map(|cell| escape(&cell).into_owned()).join("  "));
        }
        last = last.max(row.sequence);
    };
    operator.call(filter.call()).await?.iter().rev().for_each(&mut tell);
    while let Some(line) = events.next().await {
        match line {
            LiveLine::Snapshot { snapshot, dropped } if dropped > 0 => snapshot.audit.iter().rev().for_each(&mut tell),
            LiveLine::Event(event) => {
                if let LiveEvent::Audit(row) = &*event.event {
                    tell(row);
                }
            }
            LiveLine::Snapshot { .. } => {}
        }
    }
    Err(Failure::new(ErrorCode::IoError, "the proxy has ended").hint("start it again with: flm proxy start"))
}

async fn verify(session: &Session) -> Outcome<Output> {
    let verdict = session.call(VerifyAudit {}).await?;
    match &verdict.broken_at {
        None => Ok(Output::new(&verdict, format!("{} rows, the chain is whole", verdict.rows))),
        Some((row, reason)) => Err(Failure::new(
            ErrorCode::DbError,
            format!("the audit log does not fit its chain at row {row}: {reason}"),
        )
        .hint("somebody or something changed security.db outside FLM: keep a copy of the file before you go on")),
    }
}

fn blocks(entries: &[BlockEntry]) -> String {
    let mut table = Table::new(&["NETWORK", "SINCE", "UNTIL", "BY", "REASON"]);
    for entry in entries {
        table.row([
            entry.network.to_string(),
            time(entry.created),
            entry.expires.map_or_else(|| "lifted by hand".to_owned(), time),
            name(&entry.source),
            or_dash(Some(&entry.reason).filter(|reason| !reason.is_empty())),
        ]);
    }
    table.or("nothing is blocked")
}

fn networks(entries: &[ListedNetwork], list: NetworkList) -> String {
    let mut table = Table::new(&["NETWORK", "SINCE", "NOTE"]);
    for entry in entries {
        table.row([
            entry.network.to_string(),
            time(entry.created),
            or_dash(Some(&entry.note).filter(|note| !note.is_empty())),
        ]);
    }
    table.or(match list {
        NetworkList::Allow => "the list is empty: everyone may connect",
        NetworkList::Trusted => "the list is empty: everyone may be blocked automatically",
    })
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
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
