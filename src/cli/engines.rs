//! `flm engines`.

use std::num::NonZeroU32;

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use super::span;
use super::table::{Table, facts, or_dash, time};
use crate::types::calls::engines::{AddEngine, DetectEngines, EngineHealth, ListEngines, RemoveEngine};
use crate::types::engine::{DetectionReport, EngineKind, EngineState, EngineView, HealthPoint};
use crate::types::failure::Outcome;
use crate::types::ids::EngineId;

#[derive(Debug, Subcommand)]
pub(super) enum EnginesCommand {
    /// Look for engines on this machine and register what answers
    #[command(after_help = "Example:\n  flm engines detect --engine ollama --fresh")]
    Detect {
        /// Look for this kind only: ollama, vllm, lmstudio or llamacpp
        #[arg(long, value_name = "KIND")]
        engine: Option<String>,
        /// Look now, even if the last look is less than five minutes old
        #[arg(long)]
        fresh: bool,
    },
    /// List registered engines with their state
    #[command(after_help = "Example:\n  flm engines list --format json")]
    List,
    /// Register an engine by hand
    #[command(
        after_help = "Example:\n  flm engines add --kind openai --id lab --url http://10.0.0.5:8000 --api-key-env LAB_KEY"
    )]
    Add {
        /// Which kind: ollama, vllm, lmstudio, llamacpp, or openai for any other OpenAI-compatible server
        #[arg(long)]
        kind: String,
        /// Your name for it: a-z, 0-9, '.', '_' and '-'
        #[arg(long, value_parser = EngineId::parse)]
        id: EngineId,
        /// Base URL.
        #[arg(long, help = "http(s)://host[:port]")]
        url: String,
        /// Environment variable of the proxy that holds the engine's own API key
        #[arg(long, value_name = "VAR")]
        api_key_env: Option<String>,
        /// Reach it directly, even with an egress proxy
        #[arg(long)]
        direct: bool,
        /// Requests that it runs at once [default: what it tells, else the setting engine.slots]
        #[arg(long, value_name = "N")]
        slots: Option<NonZeroU32>,
    },
    /// Remove an engine from the registry; the program itself is not touched
    #[command(after_help = "Example:\n  flm engines remove lab")]
    Remove {
        /// Which one
        #[arg(value_parser = EngineId::parse)]
        id: EngineId,
    },
    /// Check engines now and show their health history
    #[command(after_help = "Example:\n  flm engines health ollama --since 6h")]
    Health {
        /// Which one [default: all]
        #[arg(value_parser = EngineId::parse)]
        id: Option<EngineId>,
        /// How far back
        #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span::parse)]
        since: std::time::Duration,
    },
}

impl EnginesCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::Detect { engine, fresh } => {
                let kind = engine.map(|name| EngineKind(name.into()));
                let report = session.call(DetectEngines { kind, fresh }).await?;
                Ok(Output::new(&report, detection(&report)))
            }
            Self::List => {
                let views = session.call(ListEngines {}).await?;
                Ok(Output::new(&views, engines(&views)))
            }
            Self::Add { kind, id, url, api_key_env, direct, slots } => {
                let kind = EngineKind(kind.into());
                let view = session.call(AddEngine { id, kind, url, api_key_env, direct, slots }).await?;
                Ok(Output::new(&view, added(&view)))
            }
            Self::Remove { id } => {
                session.call(RemoveEngine { id: id.clone() }).await?;
                Ok(Output::new(&serde_json::json!({ "removed": id }), format!("engine {id} removed")))
            }
            Self::Health { id, since } => {
                let points = session.call(EngineHealth { id, since }).await?;
                Ok(Output::new(&points, health(&points)))
            }
        }
    }
}

fn detection(report: &DetectionReport) -> String {
    let mut table = Table::new(&["KIND", "URL", "STATE", "VERSION", "MODELS", "FOUND BY"]);
    for engine in &report.engines {
        table.row([
            engine.kind.to_string(),
            or_dash(engine.url.as_ref().or(engine.binary.as_ref())),
            state(&engine.state),
            or_dash(engine.version.as_ref()),
            engine.models.to_string(),
            engine.evidence.clone(),
        ]);
    }
    let found = table.or(
        "no engine found: start one (such as 'ollama serve'), or add one with: flm engines add --kind KIND --id ID --url URL",
    );
    if report.cached {
        return format!("{found}\n\nlooked at {}; look again with --fresh", time(report.at));
    }
    found
}

fn engines(views: &[EngineView]) -> String {
    let mut table = Table::new(&["ID", "KIND", "URL", "STATE", "VERSION", "MODELS", "IN FLIGHT"]);
    for view in views {
        table.row([
            view.record.id.to_string(),
            view.record.kind.to_string(),
            view.record.url.clone(),
            state(&view.state),
            or_dash(view.version.as_ref()),
            view.models.to_string(),
            view.in_flight.to_string(),
        ]);
    }
    table.or("no engine is registered: look for some with 'flm engines detect'")
}

fn added(view: &EngineView) -> String {
    facts([
        ("engine", view.record.id.to_string()),
        ("url", view.record.url.clone()),
        ("state", state(&view.state)),
        ("models", view.models.to_string()),
    ])
}

fn health(points: &[HealthPoint]) -> String {
    let mut table = Table::new(&["TIME", "ENGINE", "LATENCY", "REASON"]);
    for point in points {
        table.row([
            time(point.at),
            point.engine.to_string(),
            or_dash(point.latency_ms.map(|ms| format!("{ms} ms"))),
            or_dash(point.reason.as_ref()),
        ]);
    }
    table.or("no check in that span")
}

/// A state in a few words.
fn state(state: &EngineState) -> String {
    match state {
        EngineState::InstalledOnly => "installed, not running".to_owned(),
        EngineState::Unchecked => "not checked yet".to_owned(),
        EngineState::RunningHealthy { latency_ms } => format!("healthy ({latency_ms} ms)"),
        EngineState::RunningDegraded { latency_ms, reason } => format!("degraded ({latency_ms} ms): {reason}"),
        EngineState::ErrorNetwork { reason, failures } => format!("unreachable ({failures}x): {reason}"),
        EngineState::ErrorApi { reason } => format!("wrong answers: {reason}"),
    }
}
