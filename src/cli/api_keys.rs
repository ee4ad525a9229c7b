//! `flm api-keys`.

use clap::{Args, Subcommand, ValueEnum};

use super::leak::{self, Consent};
use super::output::Output;
use super::session::Session;
use super::span;
use super::table::{Table, facts, or_dash, time};
use crate::types::calls::keys::{CaptureSwitch, CreateKey, EditKey, Expiry, ListKeys, RevokeKey, RotateKey, ShowKey};
use crate::types::clock::Clock;
use crate::types::failure::Outcome;
use crate::types::ids::KeyId;
use crate::types::key::{CreatedKey, KeyLimits, KeyView, Priority, Right};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key; it is shown this once
    #[command(
        after_help = "Example:\n  flm api-keys create --label laptop --expires 90d --rpm 60 --models 'flm://ollama/*'"
    )]
    Create {
        /// Your name for it
        #[arg(long)]
        label: String,
        #[command(flatten)]
        limits: LimitArguments,
    },
    /// List keys, newest first, revoked ones last
    #[command(after_help = "Example:\n  flm api-keys list")]
    List,
    /// Show one key
    #[command(after_help = "Example:\n  flm api-keys show Ab12Cd34")]
    Show {
        /// The 8 characters after flm_
        #[arg(value_parser = KeyId::parse)]
        id: KeyId,
    },
    /// Change a key; what is not named stays as it is
    #[command(
        after_help = "Examples:\n  flm api-keys edit Ab12Cd34 --rpm 120 --label desk\n  flm api-keys edit Ab12Cd34 --expires never --tokens-per-day none\n  flm api-keys edit Ab12Cd34 --capture 2h    # keep bodies; read them with: flm logs captures\n  flm api-keys edit Ab12Cd34 --capture off"
    )]
    Edit {
        /// The 8 characters after flm_
        #[arg(value_parser = KeyId::parse)]
        id: KeyId,
        /// New name
        #[arg(long)]
        label: Option<String>,
        /// Keep the bodies of its requests and answers for this long, at most 24h; off ends it
        #[arg(long, value_name = "SPAN|off", value_parser = capture)]
        capture: Option<CaptureSwitch>,
        #[command(flatten)]
        limits: LimitArguments,
    },
    /// Revoke a key for good; its running streams end
    #[command(
        after_help = "Examples:\n  flm api-keys revoke Ab12Cd34\n  flm api-keys revoke Ab12Cd34 --ban-addresses\n\nA key that leaked: --ban-addresses shows what it did and which addresses would be blocked, and asks;\nin scripts --yes agrees beforehand. Addresses that used another valid key within 7 days are left out."
    )]
    Revoke {
        /// The 8 characters after flm_
        #[arg(value_parser = KeyId::parse)]
        id: KeyId,
        /// Also block the addresses that used it, until lifted; shows them first and asks
        #[arg(long)]
        ban_addresses: bool,
        /// Do not ask
        #[arg(long, requires = "ban_addresses")]
        yes: bool,
    },
    /// Make a new key with the same name and limits, and revoke the old one
    #[command(after_help = "Example:\n  flm api-keys rotate Ab12Cd34")]
    Rotate {
        /// The 8 characters after flm_
        #[arg(value_parser = KeyId::parse)]
        id: KeyId,
    },
}

#[derive(Debug, Args)]
pub(super) struct LimitArguments {
    /// How long it works, such as 90d; never takes an end away
    #[arg(long, value_name = "SPAN", value_parser = expiry)]
    expires: Option<Expiry>,
    /// Requests per minute; 0 is no limit
    #[arg(long, value_name = "N")]
    rpm: Option<u32>,
    /// Tokens per day; none takes the limit away
    #[arg(long, value_name = "N", value_parser = limit_or_none::<u64>)]
    tokens_per_day: Option<Limit<u64>>,
    /// Requests at once; none takes the limit away
    #[arg(long, value_name = "N", value_parser = limit_or_none::<u32>)]
    max_parallel: Option<Limit<u32>>,
    /// Place in an engine's queue
    #[arg(long)]
    priority: Option<PriorityName>,
    /// Models that it may use: canonical names, with * for any characters
    #[arg(long, value_name = "GLOB", num_args = 1.., value_delimiter = ',')]
    models: Option<Vec<String>>,
    /// Paths that it may use, such as /v1/chat/completions, with * for any characters
    #[arg(long, value_name = "GLOB", num_args = 1.., value_delimiter = ',')]
    routes: Option<Vec<String>>,
    /// What it may do
    #[arg(long, value_name = "RIGHT", num_args = 1.., value_delimiter = ',')]
    rights: Option<Vec<RightName>>,
}

/// A limit as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit<T> {
    /// No limit.
    None,
    /// This one.
    Of(T),
}

impl<T> From<Limit<T>> for Option<T> {
    fn from(limit: Limit<T>) -> Self {
        match limit {
            Limit::None => None,
            Limit::Of(value) => Some(value),
        }
    }
}

fn limit_or_none<T: std::str::FromStr>(text: &str) -> Result<Limit<T>, String> {
    if text == "none" {
        return Ok(Limit::None);
    }
    text.parse().map(Limit::Of).map_err(|_| "write a whole number, or none".to_owned())
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    span::parse(text).map(Expiry::In).map_err(|rule| format!("{rule}; or never"))
}

fn capture(text: &str) -> Result<CaptureSwitch, String> {
    if text == "off" {
        return Ok(CaptureSwitch::Off);
    }
    span::parse(text).map(CaptureSwitch::For).map_err(|rule| format!("{rule}; or off"))
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PriorityName {
    Low,
    Normal,
    High,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RightName {
    Infer,
    Metrics,
    Manage,
    Passthrough,
}

impl LimitArguments {
    /// `None` when no limit is named.
    fn over(&self, limits: &KeyLimits) -> Option<KeyLimits> {
        let mut new = limits.clone();
        if let Some(rpm) = self.rpm {
            new.requests_per_minute = rpm;
        }
        if let Some(limit) = self.tokens_per_day {
            new.tokens_per_day = limit.into();
        }
        if let Some(limit) = self.max_parallel {
            new.max_parallel = limit.into();
        }
        if let Some(priority) = self.priority {
            new.priority = match priority {
                PriorityName::Low => Priority::Low,
                PriorityName::Normal => Priority::Normal,
                PriorityName::High => Priority::High,
            };
        }
        if let Some(models) = &self.models {
            new.models.clone_from(models);
        }
        if let Some(routes) = &self.routes {
            new.routes.clone_from(routes);
        }
        if let Some(rights) = &self.rights {
            new.rights = rights
                .iter()
                .map(|right| match right {
                    RightName::Infer => Right::Infer,
                    RightName::Metrics => Right::Metrics,
                    RightName::Manage => Right::Manage,
                    RightName::Passthrough => Right::Passthrough,
                })
                .collect();
        }
        (new != *limits).then_some(new)
    }
}

impl KeysCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Create { label, limits } => {
                let default = KeyLimits::default();
                let expires_in = match limits.expires {
                    None | Some(Expiry::Never) => None,
                    Some(Expiry::In(span)) => Some(span),
                };
                let call = CreateKey { label, expires_in, limits: limits.over(&default).unwrap_or(default) };
                Ok(created(&session.call(call).await?))
            }
            Self::List => {
                let keys = session.call(ListKeys {}).await?;
                Ok(Output::new(&keys, listing(&keys)))
            }
            Self::Show { id } => Ok(shown(&session.call(ShowKey { id }).await?)),
            Self::Edit { id, label, capture, limits } => {
                let now = session.call(ShowKey { id }).await?;
                let call = EditKey { id, label, limits: limits.over(&now.limits), expires: limits.expires, capture };
                Ok(shown(&session.call(call).await?))
            }
            Self::Revoke { id, ban_addresses: true, yes } => {
                leak::revoke(session, id, if yes { Consent::Given } else { Consent::Asked }).await
            }
            Self::Revoke { id, .. } => {
                let view = session.call(RevokeKey { id }).await?;
                Ok(Output::new(&view, format!("key {id} is revoked")))
            }
            Self::Rotate { id } => Ok(created(&session.call(RotateKey { id }).await?)),
        }
    }
}

fn created(created: &CreatedKey) -> Output {
    Output::new(created, created.key.expose())
        .note("keep it safe: it is not stored and cannot be shown again\nuse it as: Authorization: Bearer flm_…")
}

fn shown(view: &KeyView) -> Output {
    let limits = &view.limits;
    let globs = |globs: &[String]| if globs.is_empty() { "all".to_owned() } else { globs.join(" ") };
    let rights: Vec<String> = limits.rights.iter().map(name).collect();
    let text = facts([
        ("id", view.id.to_string()),
        ("label", view.label.clone()),
        ("ends with", view.last4.clone()),
        ("state", state(view)),
        ("made", time(view.created)),
        ("last used", view.last_used.map_or_else(|| "never".to_owned(), time)),
        ("requests per minute", limit(u64::from(limits.requests_per_minute))),
        ("tokens per day", or_dash(limits.tokens_per_day)),
        ("tokens today", or_dash(view.tokens_today)),
        ("at once", or_dash(limits.max_parallel)),
        ("priority", name(&limits.priority)),
        ("models", globs(&limits.models)),
        ("routes", globs(&limits.routes)),
        ("rights", rights.join(" ")),
        ("bodies", bodies(view)),
    ]);
    Output::new(view, text)
}

fn listing(keys: &[KeyView]) -> String {
    let mut table = Table::new(&["ID", "LABEL", "STATE", "REQUESTS/MIN", "LAST USED", "MADE"]);
    for view in keys {
        table.row([
            view.id.to_string(),
            view.label.clone(),
            state(view),
            limit(u64::from(view.limits.requests_per_minute)),
            view.last_used.map_or_else(|| "never".to_owned(), time),
            time(view.created),
        ]);
    }
    table.or("no API keys: make one with 'flm api-keys create --label LABEL'")
}

fn state(view: &KeyView) -> String {
    let state = match (view.revoked, view.expires) {
        (Some(at), _) => format!("revoked {}", time(at)),
        (None, Some(at)) => format!("expires {}", time(at)),
        (None, None) => "works".to_owned(),
    };
    match view.captures_at(Clock::system().wall()) {
        Some(_) => format!("{state}, captured"),
        None => state,
    }
}

/// Whether the bodies of its requests are captured.
fn bodies(view: &KeyView) -> String {
    match view.captures_at(Clock::system().wall()) {
        Some(until) => format!("captured until {}", time(until)),
        None => "not captured".to_owned(),
    }
}

fn limit(value: u64) -> String {
    if value == 0 { "no limit".to_owned() } else { value.to_string() }
}

/// The name under which a value is written in JSON.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
