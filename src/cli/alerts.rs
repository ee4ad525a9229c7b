//! `flm alerts`: who is told of security events (SPEC §5.10).

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::audit_logs::{name, named};
use super::output::Output;
use super::session::Session;
use super::span;
use super::table::{Table, facts, or_dash, time};
use crate::config::files;
use crate::types::alert::{
    AlertRules, AlertTarget, ChannelId, ChannelState, ChannelView, DeliveryView, Inbox, PrivateHosts,
};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::alerts::{
    AddAlertChannel, ChannelChanges, ChannelSettled, EditAlertChannel, ListAlertChannels, ListDeliveries, ListInbox,
    MarkRead, RemoveAlertChannel, SecretChange, TestAlertChannel,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::secret::Secret;
use crate::types::text::escape;

/// Largest file with a secret in it.
const SECRET_FILE: u64 = 4_096;

#[derive(Debug, Subcommand)]
pub(super) enum AlertsCommand {
    /// List channels, what waits for them, and what became of their last alert
    #[command(after_help = "Example:\n  flm alerts list")]
    List,
    /// Add a channel: it tells what happens from now on
    #[command(
        subcommand,
        after_help = "Example:\n  flm alerts add webhook --id ops --url https://alerts.example.org/flm --severity high"
    )]
    Add(AddCommand),
    /// Change what is given of a channel
    #[command(after_help = "Examples:\n  flm alerts edit ops --severity medium --type block-added,key-changed\n  \
                            flm alerts edit ops --off\n  flm alerts edit ops --new-secret")]
    Edit(EditArguments),
    /// Remove a channel; what it has not told yet is not told
    #[command(after_help = "Example:\n  flm alerts remove ops")]
    Remove {
        /// Which
        #[arg(value_parser = ChannelId::parse)]
        id: ChannelId,
    },
    /// Send a test alert, once and at once
    #[command(after_help = "Example:\n  flm alerts test ops")]
    Test {
        /// Which
        #[arg(value_parser = ChannelId::parse)]
        id: ChannelId,
    },
    /// List what became of alerts, newest first
    #[command(after_help = "Example:\n  flm alerts deliveries ops --limit 20")]
    Deliveries {
        /// Only of this channel
        #[arg(value_parser = ChannelId::parse)]
        id: Option<ChannelId>,
        /// How many, at most 1000
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// List the alerts of the console's inbox, newest first
    #[command(after_help = "Example:\n  flm alerts inbox --unread")]
    Inbox {
        /// Only those that nobody has read
        #[arg(long)]
        unread: bool,
        /// How many, at most 1000
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
    },
    /// Mark alerts of the inbox as read
    #[command(after_help = "Examples:\n  flm alerts read 17 18\n  flm alerts read --all")]
    Read {
        /// Their numbers
        #[arg(required_unless_present = "all")]
        numbers: Vec<u64>,
        /// All of them
        #[arg(long, conflicts_with = "numbers")]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AddCommand {
    /// A POST with JSON, signed with HMAC-SHA256 (docs/alerts.md shows how to check it)
    #[command(
        after_help = "Example:\n  flm alerts add webhook --id ops --url https://alerts.example.org/flm --group 5m"
    )]
    Webhook {
        #[command(flatten)]
        common: Common,
        /// Where it is sent
        #[arg(long)]
        url: String,
        /// The host may be private: on this machine or in your own network
        #[arg(long)]
        private: bool,
        /// File whose first line is the signing secret, '-' for stdin [default: one is made and shown once]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// A push message by ntfy
    #[command(after_help = "Example:\n  flm alerts add ntfy --id phone --topic flm-4f9c2a71b0e8 --severity high")]
    Ntfy {
        #[command(flatten)]
        common: Common,
        /// The topic; on a public server whoever knows it reads along
        #[arg(long)]
        topic: String,
        /// The server
        #[arg(long, default_value = "https://ntfy.sh")]
        server: String,
        /// The server may be private: on this machine or in your own network
        #[arg(long)]
        private: bool,
        /// File whose first line is an access token, '-' for stdin
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },
    /// A program of this machine, without a shell: the event as JSON on stdin, 10 s
    #[command(
        after_help = "Example:\n  flm alerts add command --id mail -- /usr/local/bin/alert-by-mail ops@example.org"
    )]
    Command {
        #[command(flatten)]
        common: Common,
        /// The program, as an absolute path, and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
        words: Vec<String>,
    },
    /// The console's inbox, with a notification of its terminal; every home has one
    #[command(after_help = "Example:\n  flm alerts add terminal --id console --severity medium")]
    Terminal {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// Your name for it: a-z, 0-9, '.', '_' and '-'
    #[arg(long, value_parser = ChannelId::parse)]
    id: ChannelId,
    /// The least severity: low, medium, high or critical
    #[arg(long, default_value = "high", value_parser = named::<Severity>)]
    severity: Severity,
    /// Only events of these types, such as key-changed [default: all]
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',', value_parser = named::<AuditKind>)]
    kinds: Vec<AuditKind>,
    /// Equal events within this span become one alert; none groups nothing
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = group)]
    group: Duration,
    /// Most alerts in an hour; what is beyond waits and becomes one
    #[arg(long, value_name = "N", default_value_t = 60)]
    per_hour: u32,
}

impl Common {
    fn rules(&self) -> AlertRules {
        AlertRules {
            severity: self.severity,
            kinds: self.kinds.clone(),
            group: self.group,
            per_hour: self.per_hour,
            state: ChannelState::On,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct EditArguments {
    /// Which
    #[arg(value_parser = ChannelId::parse)]
    id: ChannelId,
    /// The least severity: low, medium, high or critical
    #[arg(long, value_parser = named::<Severity>)]
    severity: Option<Severity>,
    /// Only events of these types, such as key-changed
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',', value_parser = named::<AuditKind>)]
    kinds: Option<Vec<AuditKind>>,
    /// Events of every type
    #[arg(long, conflicts_with = "kinds")]
    all_types: bool,
    /// Equal events within this span become one alert; none groups nothing
    #[arg(long, value_name = "SPAN", value_parser = group)]
    group: Option<Duration>,
    /// Most alerts in an hour; what is beyond waits and becomes one
    #[arg(long, value_name = "N")]
    per_hour: Option<u32>,
    /// Use it again
    #[arg(long, conflicts_with = "off")]
    on: bool,
    /// Do not use it for now
    #[arg(long)]
    off: bool,
    /// Of a webhook: where it is sent
    #[arg(long)]
    url: Option<String>,
    /// Of a webhook: make a new signing secret and show it once
    #[arg(long, conflicts_with = "secret_file")]
    new_secret: bool,
    /// Of a webhook: file whose first line is the signing secret, '-' for stdin
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Of ntfy: the server
    #[arg(long)]
    server: Option<String>,
    /// Of ntfy: the topic
    #[arg(long)]
    topic: Option<String>,
    /// Of ntfy: file whose first line is an access token, '-' for stdin; an empty one takes it away
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The host may be private
    #[arg(long, conflicts_with = "public")]
    private: bool,
    /// The host must be public
    #[arg(long)]
    public: bool,
    /// Of a command: the program, as an absolute path, and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    words: Vec<String>,
}

fn group(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "none" | "0" | "0s" => Ok(Duration::ZERO),
        text => span::parse(text).map_err(|rule| format!("{rule}; none groups nothing")),
    }
}

impl AlertsCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List => {
                let channels = session.call(ListAlertChannels {}).await?;
                Ok(Output::new(&channels, listing(&channels)))
            }
            Self::Add(command) => {
                let settled = session.call(command.call()?).await?;
                Ok(told(&settled, "added"))
            }
            Self::Edit(arguments) => {
                let settled = session.call(arguments.call()?).await?;
                Ok(told(&settled, "changed"))
            }
            Self::Remove { id } => {
                let view = session.call(RemoveAlertChannel { id }).await?;
                Ok(Output::new(&view, format!("alert channel {} removed", view.id)))
            }
            Self::Test { id } => {
                let delivery = session.call(TestAlertChannel { id }).await?;
                let text = format!("the test alert of {} arrived", escape(&delivery.channel));
                Ok(Output::new(&delivery, text))
            }
            Self::Deliveries { id, limit } => {
                let deliveries = session.call(ListDeliveries { channel: id, limit }).await?;
                Ok(Output::new(&deliveries, delivered(&deliveries)))
            }
            Self::Inbox { unread, limit } => {
                let mut inbox = session.call(ListInbox { limit }).await?;
                if unread {
                    inbox.alerts.retain(|alert| alert.read.is_none());
                }
                Ok(Output::new(&inbox, inbox_table(&inbox)))
            }
            Self::Read { numbers, all: _ } => {
                let marked = session.call(MarkRead { numbers }).await?;
                let text = format!("{marked} alerts marked as read");
                Ok(Output::new(&serde_json::json!({ "marked": marked }), text))
            }
        }
    }
}

impl AddCommand {
    fn call(self) -> Outcome<AddAlertChannel> {
        let (common, target) = match self {
            Self::Webhook { common, url, private, secret_file } => {
                let secret = secret_file.as_deref().map(secret_of).transpose()?;
                (common, AlertTarget::Webhook { url, private: hosts(private), secret })
            }
            Self::Ntfy { common, topic, server, private, token_file } => {
                let token = token_file.as_deref().map(secret_of).transpose()?;
                (common, AlertTarget::Ntfy { server, topic, private: hosts(private), token })
            }
            Self::Command { common, words } => {
                let mut words = words.into_iter();
                let program = words.next().unwrap_or_default();
                (common, AlertTarget::Command { program, arguments: words.collect() })
            }
            Self::Terminal { common } => (common, AlertTarget::Terminal),
        };
        Ok(AddAlertChannel { rules: common.rules(), id: common.id, target })
    }
}

impl EditArguments {
    fn call(self) -> Outcome<EditAlertChannel> {
        let secret = match (&self.secret_file, self.new_secret) {
            (Some(file), _) => SecretChange::Set(secret_of(file)?),
            (None, true) => SecretChange::Renew,
            (None, false) => SecretChange::Keep,
        };
        let mut words = self.words.into_iter();
        let program = words.next();
        let changes = ChannelChanges {
            severity: self.severity,
            kinds: if self.all_types { Some(Vec::new()) } else { self.kinds },
            group: self.group,
            per_hour: self.per_hour,
            state: match (self.on, self.off) {
                (true, _) => Some(ChannelState::On),
                (_, true) => Some(ChannelState::Off),
                _ => None,
            },
            url: self.url,
            secret,
            server: self.server,
            topic: self.topic,
            token: self.token_file.as_deref().map(secret_of).transpose()?,
            private: match (self.private, self.public) {
                (true, _) => Some(PrivateHosts::Allowed),
                (_, true) => Some(PrivateHosts::Refused),
                _ => None,
            },
            arguments: program.as_ref().map(|_| words.collect()),
            program,
        };
        if changes == ChannelChanges::default() {
            return Err(Failure::new(ErrorCode::InvalidArgument, "nothing is given that should change")
                .hint("flm alerts edit --help lists what can be given"));
        }
        Ok(EditAlertChannel { id: self.id, changes: Box::new(changes) })
    }
}

fn hosts(private: bool) -> PrivateHosts {
    if private { PrivateHosts::Allowed } else { PrivateHosts::Refused }
}

/// The first line of a file, or of stdin: a secret on the command line would be in the shell's history and in the list of
/// processes.
fn secret_of(file: &Path) -> Outcome<Secret> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(SECRET_FILE).read_to_end(&mut bytes).map_err(|error| {
            Failure::new(ErrorCode::IoError, format!("the secret cannot be read from stdin: {error}"))
                .hint("give a file instead of '-'")
        })?;
        bytes
    } else {
        files::read_limited(file, SECRET_FILE)?
    };
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::new(ErrorCode::InvalidArgument, format!("{} is no text", escape(&file.to_string_lossy())))
            .hint("the secret is its first line")
    })?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().trim().to_owned()))
}

fn told(settled: &ChannelSettled, what: &str) -> Output {
    let view = &settled.view;
    let mut text = format!("alert channel {} {what}\n", view.id);
    text.push_str(&facts([
        ("kind", view.kind.name().to_owned()),
        ("goes to", view.place.clone()),
        ("severity", format!("{} and above", name(&view.rules.severity))),
        ("types", types(&view.rules.kinds)),
        ("grouped", if view.rules.group.is_zero() { "no".to_owned() } else { within(view.rules.group) }),
        ("at most", format!("{} an hour", view.rules.per_hour)),
        ("state", name(&view.rules.state)),
    ]));
    if let Some(secret) = &settled.secret {
        text.push_str(&format!("\n\nsigning secret, shown this once: {}", secret.expose()));
    }
    Output::new(settled, text).note(format!("try it with: flm alerts test {}", view.id))
}

fn types(kinds: &[AuditKind]) -> String {
    if kinds.is_empty() { "all".to_owned() } else { kinds.iter().map(name).collect::<Vec<_>>().join(", ") }
}

fn within(span: Duration) -> String {
    format!("equal events within {} s", span.as_secs())
}

fn listing(channels: &[ChannelView]) -> String {
    let mut table = Table::new(&["ID", "KIND", "GOES TO", "SEVERITY", "TYPES", "STATE", "WAITING", "LAST ALERT"]);
    for channel in channels {
        table.row([
            channel.id.to_string(),
            channel.kind.name().to_owned(),
            channel.place.clone(),
            name(&channel.rules.severity),
            types(&channel.rules.kinds),
            name(&channel.rules.state),
            channel.waiting.to_string(),
            channel.last.as_ref().map_or_else(|| "-".to_owned(), |last| format!("{} {}", time(last.at), outcome(last))),
        ]);
    }
    table.or("no alert channels: add one with 'flm alerts add webhook --id NAME --url URL'")
}

fn outcome(delivery: &DeliveryView) -> String {
    match &delivery.fault {
        None => "arrived".to_owned(),
        Some(fault) => format!("failed: {fault}"),
    }
}

fn delivered(deliveries: &[DeliveryView]) -> String {
    let mut table = Table::new(&["TIME", "CHANNEL", "EVENTS", "TRIES", "WHAT", "OUTCOME"]);
    for delivery in deliveries {
        table.row([
            time(delivery.at),
            delivery.channel.clone(),
            delivery.events.to_string(),
            delivery.attempts.to_string(),
            delivery.summary.clone(),
            outcome(delivery),
        ]);
    }
    table.or("no alert was sent yet: try a channel with 'flm alerts test ID'")
}

fn inbox_table(inbox: &Inbox) -> String {
    let mut table = Table::new(&["NUMBER", "TIME", "SEVERITY", "TYPE", "EVENTS", "ADDRESS", "READ", "DETAILS"]);
    for alert in &inbox.alerts {
        table.row([
            alert.number.to_string(),
            time(alert.at),
            name(&alert.severity),
            name(&alert.kind),
            alert.events.to_string(),
            or_dash(alert.address),
            if alert.read.is_some() { "yes" } else { "no" }.to_owned(),
            alert.details.clone(),
        ]);
    }
    table.or("no alerts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_grouping_may_be_none() {
        assert_eq!(group("none"), Ok(Duration::ZERO));
        assert_eq!(group("5m"), Ok(Duration::from_secs(300)));
        assert!(group("5").expect_err("no unit").contains("none groups nothing"));
    }
}
