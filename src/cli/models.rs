//! `flm models`.

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use super::table::{Table, or_dash};
use crate::types::calls::models::{ListModels, RefreshModels};
use crate::types::engine::ModelView;
use crate::types::failure::Outcome;
use crate::types::ids::EngineId;

#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// List models under the names that clients use
    #[command(after_help = "Example:\n  flm models list --engine ollama")]
    List {
        /// Only of this engine
        #[arg(long, value_name = "ID", value_parser = EngineId::parse)]
        engine: Option<EngineId>,
    },
    /// Ask every engine for its models now
    #[command(after_help = "Example:\n  flm models refresh")]
    Refresh,
}

impl ModelsCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let models = match self {
            Self::List { engine } => session.call(ListModels { engine }).await?,
            Self::Refresh => session.call(RefreshModels {}).await?,
        };
        Ok(Output::new(&models, listing(&models)))
    }
}

fn listing(models: &[ModelView]) -> String {
    let mut table = Table::new(&["MODEL", "ENGINE", "CONTEXT", "SIZE", "QUANT", "LOADED", "AVAILABLE"]);
    for model in models {
        table.row([
            model.listed_as.to_string(),
            model.name.engine.to_string(),
            or_dash(model.context_length),
            or_dash(model.size_bytes.map(size)),
            or_dash(model.quantization.as_ref()),
            or_dash(model.loaded.map(yes_or_no)),
            yes_or_no(model.available).to_owned(),
        ]);
    }
    table.or("no models: see 'flm engines list' for the engines that should have some")
}

fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// Bytes with one decimal, in units of 1000 as model pages write them.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{bytes} B"),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
