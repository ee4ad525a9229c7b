//! `flm security`: address lists; the rest is in files of its own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use ipnet::IpNet;

use super::audit_logs::{AuditCommand, AuditFilter, name};
use super::authority::AuthorityCommand;
use super::backup::{self, BackupCommand, RekeyTo};
use super::certificate::CertificateCommand;
use super::output::Output;
use super::policy::PolicyCommand;
use super::prompts;
use super::session::Session;
use super::span;
use super::table::{Table, or_dash, time};
use crate::control::Operator;
use crate::types::address::{BlockEntry, ListedNetwork, parse_blocks, parse_network, write_blocks};
use crate::types::calls::addresses::{
    AddBlock, AddNetwork, ClearBlocks, ImportBlocks, ListBlocks, ListNetworks, NetworkList, RemoveBlock, RemoveNetwork,
};
use crate::types::calls::replay::{ReplayReport, ReplayRequests, SecurityCounts, SecurityStats};
use crate::types::clock::Clock;
use crate::types::failure::Outcome;
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
    /// Count what the audit log holds: types, severities, rules, addresses
    #[command(after_help = "Example:\n  flm security stats --since 24h")]
    Stats {
        /// Only events of the last SPAN
        #[arg(long, value_name = "SPAN", value_parser = span::parse)]
        since: Option<Duration>,
    },
    /// Tell what the rules would have blocked in a recorded request log
    #[command(after_help = "Example:\n  flm security replay requests.jsonl")]
    Replay {
        /// One JSON object a line, as flm logs requests --format jsonl writes it
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// The chained log of security events
    #[command(subcommand, after_help = "Example:\n  flm security audit-logs verify")]
    AuditLogs(AuditCommand),
    /// The newest security events, oldest first, and what comes
    #[command(after_help = "Example:\n  flm security events --follow --severity high")]
    Events(AuditFilter),
    /// Copies of both databases: make, list, restore
    #[command(subcommand, after_help = "Example:\n  flm security backup create")]
    Backup(BackupCommand),
    /// Give security.db a new key; the proxy must not run
    #[command(
        after_help = "Examples:\n  flm proxy stop --all\n  flm security rekey\n  flm security rekey --to passphrase"
    )]
    Rekey {
        /// Where the new key comes from [default: where the old one came from]
        #[arg(long, value_enum, value_name = "SOURCE")]
        to: Option<RekeyTo>,
    },
    /// Where the key of security.db comes from, whether it is open, and who may use the files
    #[command(after_help = "Example:\n  flm security lock-status")]
    LockStatus,
    /// The certificate authority of this home (mode packaged-ca), and who trusts it
    #[command(subcommand, after_help = "Example:\n  flm security ca show")]
    Ca(AuthorityCommand),
    /// The listeners' certificates
    #[command(subcommand, after_help = "Example:\n  flm security certificate status")]
    Certificate(CertificateCommand),
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
    /// Block every network of a file, such as a published list; what is blocked already stays as it is
    #[command(
        after_help = "Examples:\n  flm security ip-blocklist import drop.txt --for 7d\n  curl -s https://lists.example.org/drop.txt | flm security ip-blocklist import -\n\nOne address or CIDR block a line; what stands behind # or ; is the reason."
    )]
    Import {
        /// The file, or - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How long [default: until it is lifted]
        #[arg(long = "for", value_name = "SPAN", value_parser = span::parse)]
        duration: Option<Duration>,
    },
    /// Print all blocks as import takes them, without the time that is left
    #[command(after_help = "Example:\n  flm security ip-blocklist export > blocks.txt")]
    Export,
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

impl SecurityCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Policy(command) => command.run(session).await,
            Self::Ca(command) => command.run(session).await,
            Self::Backup(command) => command.run(session).await,
            Self::Rekey { to } => backup::rekey(session, to).await,
            Self::LockStatus => backup::lock_status(session).await,
            Self::Certificate(command) => command.run(session).await,
            Self::IpBlocklist(command) => command.run(session).await,
            Self::IpAllowlist(command) => command.run(session, NetworkList::Allow).await,
            Self::IpTrusted(command) => command.run(session, NetworkList::Trusted).await,
            Self::Stats { since } => {
                let since = since.map(|span| Clock::system().wall().minus(span));
                let counts = session.call(SecurityStats { since }).await?;
                Ok(Output::new(&counts, counted(&counts)))
            }
            Self::Replay { file } => {
                let path = std::path::absolute(&file).unwrap_or(file).to_string_lossy().into_owned();
                let report = session.call(ReplayRequests { path }).await?;
                Ok(Output::new(&report, replayed(&report)))
            }
            Self::AuditLogs(command) => command.run(session).await,
            Self::Events(filter) => filter.events(session).await,
        }
    }
}

impl BlocklistCommand {
    async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List => {
                let entries = all(session).await?;
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
            Self::Import { file, duration } => {
                let networks = parse_blocks(&prompts::read(&file, "the list")?)?;
                let read = networks.len();
                let blocked = session.call(ImportBlocks { networks, duration }).await?;
                let text = format!("{blocked} of {read} networks are new and blocked");
                Ok(Output::new(&serde_json::json!({ "read": read, "blocked": blocked }), text))
            }
            Self::Export => Ok(Output::document(write_blocks(&all(session).await?))),
        }
    }
}

/// The whole block list, which comes in pages.
async fn all(session: &Session) -> Outcome<Vec<BlockEntry>> {
    let operator = session.operator().await?;
    let entries = pages(&operator).await;
    operator.close().await;
    entries
}

async fn pages(operator: &Operator) -> Outcome<Vec<BlockEntry>> {
    let mut entries = Vec::new();
    loop {
        let offset = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let page = operator.call(ListBlocks { offset, limit: PAGE }).await?;
        let got = page.entries.len();
        entries.extend(page.entries);
        // A list that shrinks meanwhile ends with an empty page.
        if got == 0 || entries.len() as u64 >= page.total {
            return Ok(entries);
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

fn counted(counts: &SecurityCounts) -> String {
    let mut table = Table::new(&["WHAT", "NAME", "COUNT"]);
    for (what, group) in [("type", &counts.kinds), ("severity", &counts.severities), ("rule", &counts.rules)] {
        for (name, count) in group {
            table.row([what.to_owned(), name.clone(), count.to_string()]);
        }
    }
    for (address, count) in &counts.sources {
        table.row(["address".to_owned(), address.to_string(), count.to_string()]);
    }
    for hour in &counts.hours {
        table.row(["hour".to_owned(), time(hour.start), hour.events.to_string()]);
    }
    table.or("no events")
}

fn replayed(report: &ReplayReport) -> String {
    let mut lines = vec![format!(
        "{} requests: {} met a rule, {} blocks would have come about, {} requests refused by them",
        report.requests,
        report.scored,
        report.blocks.len(),
        report.refused
    )];
    lines.extend(report.rules.iter().map(|(rule, count)| format!("  {rule}: {count}")));
    for block in &report.blocks {
        let (at, network, minutes) = (time(block.at), block.network, block.minutes);
        lines.push(format!("{at}  {network} for {minutes} min, score {}", block.score));
        lines.extend(block.why.iter().map(|why| format!("    {}", escape(why))));
    }
    if let Some((line, why)) = &report.first_unreadable {
        lines.push(format!("{} lines were no request; the first is line {line}: {}", report.unreadable, escape(why)));
    }
    lines.join("\n")
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
