//! `flm models`.

use clap::Subcommand;

use super::comparisons::{CompareArguments, ComparisonsCommand};
use super::output::{Output, ProgressLine};
use super::session::Session;
use super::table::{Table, facts, or_dash};
use crate::types::calls::models::{
    DeleteModel, ListModels, LoadModel, PullModel, RefreshModels, ShowModel, UnloadModel,
};
use crate::types::engine::{Capability, ModelView, TransferProgress};
use crate::types::failure::Outcome;
use crate::types::ids::EngineId;
use crate::types::text::escape;

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
    /// Show what is known of a model
    #[command(after_help = "Example:\n  flm models show llama3.2:3b")]
    Show {
        /// Its name as listed, or `flm://ENGINE_ID/MODEL`
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Load a model into its engine's memory, to stay until it is unloaded
    #[command(after_help = "Example:\n  flm models load llama3.2:3b")]
    Load {
        /// Its name as listed, or `flm://ENGINE_ID/MODEL`
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Take a model out of its engine's memory
    #[command(after_help = "Example:\n  flm models unload flm://ollama/llama3.2:3b")]
    Unload {
        /// Its name as listed, or `flm://ENGINE_ID/MODEL`
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Have an engine fetch a model; Ctrl-C ends it
    ///
    /// The engine fetches it by itself, on its own way to the world: FLM's egress setting does not reach that far.
    #[command(after_help = "Example:\n  flm models pull llama3.2:3b --engine ollama")]
    Pull {
        /// The engine's own name for it
        #[arg(value_name = "MODEL")]
        model: String,
        /// Which engine, when there are several
        #[arg(long, value_name = "ID", value_parser = EngineId::parse)]
        engine: Option<EngineId>,
    },
    /// Delete a model from its engine's disk for good
    #[command(after_help = "Example:\n  flm models delete llama3.2:3b")]
    Delete {
        /// Its name as listed, or `flm://ENGINE_ID/MODEL`
        #[arg(value_name = "MODEL")]
        model: String,
    },
    /// Ask 2 to 4 models the same question at once, with times and medians; Ctrl-C ends it
    #[command(
        after_help = "Example:\n  flm models compare llama3.2:3b qwen3:8b --prompt 'Why is the sky blue?' --runs 3 --save"
    )]
    Compare(CompareArguments),
    /// Saved comparisons
    #[command(subcommand, after_help = "Example:\n  flm models comparisons list")]
    Comparisons(ComparisonsCommand),
}

impl ModelsCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List { engine } => {
                let models = session.call(ListModels { engine }).await?;
                Ok(Output::new(&models, listing(&models)))
            }
            Self::Refresh => {
                let models = session.call(RefreshModels {}).await?;
                Ok(Output::new(&models, listing(&models)))
            }
            Self::Show { model } => {
                let models = session.call(ShowModel { model }).await?;
                let texts: Vec<_> = models.iter().map(details).collect();
                Ok(Output::new(&models, texts.join("\n\n")))
            }
            Self::Load { model } => {
                let mut line = ProgressLine::new(session.format);
                let outcome = session
                    .follow(LoadModel { model }, |told| {
                        let text = format!("{} loads; this can take minutes", escape(&told.asked.to_string()));
                        line.show(&told, "loading", &text);
                    })
                    .await;
                line.end();
                let model = outcome?;
                Ok(Output::new(&model, format!("{} is loaded", escape(&model.name.to_string()))))
            }
            Self::Unload { model } => {
                let model = session.call(UnloadModel { model }).await?;
                Ok(Output::new(&model, format!("{} is unloaded", escape(&model.name.to_string()))))
            }
            Self::Pull { model, engine } => {
                let mut line = ProgressLine::new(session.format);
                let outcome = session
                    .follow(PullModel { model, engine }, |told| line.show(&told, &told.stage, &bar(&told)))
                    .await;
                line.end();
                let models = outcome?;
                Ok(Output::new(&models, listing(&models)))
            }
            Self::Compare(arguments) => arguments.run(session).await,
            Self::Comparisons(command) => command.run(session).await,
            Self::Delete { model } => {
                let deleted = session.call(DeleteModel { model }).await?;
                let text = format!("{} is deleted", escape(&deleted.to_string()));
                Ok(Output::new(&serde_json::json!({ "deleted": deleted.to_string() }), text))
            }
        }
    }
}

/// Cells of a bar: with both numbers beside it, a line fits into 80 columns.
const BAR: u64 = 24;

/// `[####------] 41%  1.2 GB of 2.9 GB  pulling 58065875508d`.
fn bar(told: &TransferProgress) -> String {
    let stage = escape(&told.stage);
    match told.total.filter(|total| *total > 0) {
        Some(total) => {
            let done = told.completed.min(total);
            let share = |of: u64| u128::from(done) * u128::from(of) / u128::from(total);
            let filled = usize::try_from(share(BAR)).unwrap_or(0);
            let empty = usize::try_from(BAR).unwrap_or(0).saturating_sub(filled);
            let cells = format!("{}{}", "#".repeat(filled), "-".repeat(empty));
            format!("[{cells}] {:3}%  {} of {}  {stage}", share(100), size(done), size(total))
        }
        None if told.completed > 0 => format!("{}  {stage}", size(told.completed)),
        None => stage.into_owned(),
    }
}

fn details(model: &ModelView) -> String {
    let can: Vec<_> = model.capabilities.iter().copied().map(capability).collect();
    facts([
        ("model", model.listed_as.to_string()),
        ("canonical", model.name.to_string()),
        ("engine", format!("{} ({})", model.name.engine, model.kind)),
        ("can", if can.is_empty() { "-".to_owned() } else { can.join(", ") }),
        ("context", or_dash(model.context_length.map(|tokens| format!("{tokens} tokens")))),
        ("size", or_dash(model.size_bytes.map(size))),
        ("parameters", or_dash(model.parameters.as_ref())),
        ("quantization", or_dash(model.quantization.as_ref())),
        ("loaded", or_dash(model.loaded.map(yes_or_no))),
        ("available", yes_or_no(model.available).to_owned()),
    ])
}

/// `audio in`: the name in JSON, with blanks.
fn capability(capability: Capability) -> String {
    let name = serde_json::to_value(capability).ok();
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().replace('_', " ")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn told(completed: u64, total: Option<u64>) -> String {
        bar(&TransferProgress { stage: "pulling".to_owned(), completed, total })
    }

    #[test]
    fn a_bar_shows_what_is_known_and_fits_into_a_terminal() {
        assert_eq!(told(0, None), "pulling");
        assert_eq!(told(5, None), "5 B  pulling");
        assert_eq!(told(500_000, Some(1_000_000)), "[############------------]  50%  500000 B of 1.0 MB  pulling");
        assert_eq!(told(9, Some(4)), "[########################] 100%  4 B of 4 B  pulling");
        assert!(told(u64::MAX, Some(u64::MAX)).starts_with("[####"));
    }
}
