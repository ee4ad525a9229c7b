//! `flm model-profiles`.

use std::path::PathBuf;

use clap::Subcommand;

use super::output::Output;
use super::prompts::read;
use super::session::Session;
use super::table::{Table, time};
use crate::types::calls::profiles::{DeleteProfile, ListProfiles, SaveProfile};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::EngineId;
use crate::types::profile::{self, ProfileView};
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum ProfilesCommand {
    /// List profiles with their values; ! marks what the client cannot change
    #[command(after_help = "Example:\n  flm model-profiles list --engine ollama")]
    List {
        /// Only of this engine
        #[arg(long, value_name = "ID", value_parser = EngineId::parse)]
        engine: Option<EngineId>,
        /// Only of this model
        #[arg(long)]
        model: Option<String>,
    },
    /// Save the profile of a model, in place of the one that it has
    #[command(
        after_help = "Example:\n  echo '{\"temperature\": 0.2, \"max_tokens\": 512, \"pinned\": [\"max_tokens\"]}' |\n    flm model-profiles save --engine ollama --model llama3.2:3b --label careful --params -"
    )]
    Save {
        /// Engine that serves the model
        #[arg(long, value_name = "ID", value_parser = EngineId::parse)]
        engine: EngineId,
        /// The engine's own name for the model
        #[arg(long)]
        model: String,
        /// Your name for the profile
        #[arg(long)]
        label: String,
        /// File with a JSON object of parameters, or - for stdin; "pinned" lists those the client cannot change
        #[arg(long, value_name = "FILE")]
        params: PathBuf,
    },
    /// Delete a profile
    #[command(after_help = "Example:\n  flm model-profiles delete --id 1")]
    Delete {
        /// Its number, as the list shows it
        #[arg(long)]
        id: i64,
    },
}

impl ProfilesCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List { engine, model } => {
                let profiles = session.call(ListProfiles { engine, model }).await?;
                Ok(Output::new(&profiles, listing(&profiles)))
            }
            Self::Save { engine, model, label, params } => {
                let parameters = profile::parse(&read(&params, "the parameters")?)
                    .map_err(|why| Failure::new(ErrorCode::InvalidArgument, why).hint("see the example: --help"))?;
                let saved = session.call(SaveProfile { engine, model, label, parameters }).await?;
                let text = format!("profile {} saved for {} on {}", saved.id, escape(&saved.model), saved.engine);
                Ok(Output::new(&saved, text))
            }
            Self::Delete { id } => {
                let deleted = session.call(DeleteProfile { id }).await?;
                Ok(Output::new(&deleted, format!("profile {id} deleted")))
            }
        }
    }
}

fn listing(profiles: &[ProfileView]) -> String {
    let mut table = Table::new(&["ID", "ENGINE", "MODEL", "LABEL", "SAVED", "PARAMETERS"]);
    for profile in profiles {
        let values: Vec<_> = profile
            .parameters
            .iter()
            .map(|value| format!("{}{}={}", value.name, if value.pinned { "!" } else { "" }, value.value))
            .collect();
        table.row([
            profile.id.to_string(),
            profile.engine.to_string(),
            profile.model.clone(),
            profile.label.clone(),
            time(profile.updated),
            values.join(" "),
        ]);
    }
    table.or("no model profiles: save one with 'flm model-profiles save'")
}
