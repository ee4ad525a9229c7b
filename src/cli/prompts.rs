//! `flm api prompts`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use super::table::{Table, time};
use crate::config::files;
use crate::types::calls::prompts::{DeletePrompt, ListPrompts, SetPrompt, ShowPrompt};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::prompt::PromptView;
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum ApiCommand {
    /// Prompts that are put in front of requests
    #[command(subcommand, after_help = "Example:\n  flm api prompts list")]
    Prompts(PromptsCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum PromptsCommand {
    /// List the current prompts
    #[command(after_help = "Example:\n  flm api prompts list")]
    List,
    /// Show one prompt
    #[command(after_help = "Example:\n  flm api prompts show --api-id chat.completions")]
    Show {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
    },
    /// Save a new version; in force for the next request
    #[command(after_help = "Example:\n  flm api prompts set --api-id chat.completions --file prompt.txt")]
    Set {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
        /// File with the template, or - for stdin; double braces are filled in, such as {{date}} or {{model}}
        #[arg(long)]
        file: PathBuf,
    },
    /// Delete a prompt; its history stays
    #[command(after_help = "Example:\n  flm api prompts delete --api-id chat.completions")]
    Delete {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
    },
}

impl PromptsCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List => {
                let prompts = session.call(ListPrompts {}).await?;
                Ok(Output::new(&prompts, listing(&prompts)))
            }
            Self::Show { api_id } => {
                let prompt = session.call(ShowPrompt { api_id }).await?;
                let text = prompt.text.lines().map(escape).collect::<Vec<_>>().join("\n");
                Ok(Output::new(&prompt, text))
            }
            Self::Set { api_id, file } => {
                let text = read(&file)?;
                let prompt = session.call(SetPrompt { api_id, text }).await?;
                let text = format!("prompt {} saved as version {}", prompt.api_id, prompt.version);
                Ok(Output::new(&prompt, text))
            }
            Self::Delete { api_id } => {
                session.call(DeletePrompt { api_id: api_id.clone() }).await?;
                let text = format!("prompt {} deleted", escape(&api_id));
                Ok(Output::new(&serde_json::json!({ "deleted": api_id }), text))
            }
        }
    }
}

fn read(file: &Path) -> Outcome<String> {
    if file != Path::new("-") {
        return Ok(files::read_to_string(file)?);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::new(ErrorCode::IoError, format!("the prompt could not be read from stdin: {error}"))
    })?;
    Ok(text)
}

fn listing(prompts: &[PromptView]) -> String {
    /// Characters of the text that fit a table.
    const SHOWN: usize = 60;
    let mut table = Table::new(&["API ID", "VERSION", "SAVED", "TEXT"]);
    for prompt in prompts {
        let text: String = prompt.text.chars().take(SHOWN).collect();
        table.row([prompt.api_id.clone(), prompt.version.to_string(), time(prompt.updated), text]);
    }
    table.or("no prompts: save one with 'flm api prompts set --api-id chat.completions --file FILE'")
}
