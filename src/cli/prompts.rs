//! `flm api prompts`.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::output::Output;
use super::session::Session;
use super::table::{Table, time};
use crate::config::files;
use crate::types::calls::prompts::{DeletePrompt, ListPrompts, PromptHistory, SetPrompt, ShowPrompt};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::line_diff::{self, Line};
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
    #[command(after_help = "Example:\n  flm api prompts show --api-id chat.completions --version 2")]
    Show {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
        /// An earlier version [default: the one in force]
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
    /// List all versions of a prompt, newest first
    #[command(after_help = "Example:\n  flm api prompts history --api-id chat.completions")]
    History {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
    },
    /// Compare two versions of a prompt
    #[command(after_help = "Example:\n  flm api prompts diff --api-id chat.completions --from 1 --to 3")]
    Diff {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
        /// The older one [default: the one before --to]
        #[arg(long, value_name = "N")]
        from: Option<u32>,
        /// The newer one [default: the newest]
        #[arg(long, value_name = "N")]
        to: Option<u32>,
    },
    /// Save an earlier version again as the newest one
    #[command(after_help = "Example:\n  flm api prompts restore --api-id chat.completions --version 2")]
    Restore {
        /// Route, such as chat.completions; with @ and the id of a key for that key alone
        #[arg(long)]
        api_id: String,
        /// Which version
        #[arg(long, value_name = "N")]
        version: u32,
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
            Self::Show { api_id, version } => {
                let prompt = match version {
                    None => session.call(ShowPrompt { api_id }).await?,
                    Some(version) => {
                        let versions = session.call(PromptHistory { api_id: api_id.clone() }).await?;
                        find(versions, &api_id, version)?
                    }
                };
                let text = prompt.text.lines().map(escape).collect::<Vec<_>>().join("\n");
                Ok(Output::new(&prompt, text))
            }
            Self::History { api_id } => {
                let versions = session.call(PromptHistory { api_id }).await?;
                Ok(Output::new(&versions, listing(&versions)))
            }
            Self::Diff { api_id, from, to } => {
                let versions = session.call(PromptHistory { api_id: api_id.clone() }).await?;
                let newest = versions.first().map_or(1, |newest| newest.version);
                let to = find(versions.clone(), &api_id, to.unwrap_or(newest))?;
                if from.is_none() && to.version == 1 {
                    return Err(Failure::new(ErrorCode::InvalidArgument, "the first version has none before it")
                        .hint("name the two versions: --from N --to N"));
                }
                let from = find(versions, &api_id, from.unwrap_or(to.version.saturating_sub(1)))?;
                Ok(difference(&from, &to))
            }
            Self::Restore { api_id, version } => {
                let versions = session.call(PromptHistory { api_id: api_id.clone() }).await?;
                let text = find(versions, &api_id, version)?.text;
                let prompt = session.call(SetPrompt { api_id, text }).await?;
                let text = format!("version {version} of {} saved again as version {}", prompt.api_id, prompt.version);
                Ok(Output::new(&prompt, text))
            }
            Self::Set { api_id, file } => {
                let text = read(&file, "the prompt")?;
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

fn find(versions: Vec<PromptView>, api_id: &str, version: u32) -> Outcome<PromptView> {
    versions.into_iter().find(|prompt| prompt.version == version).ok_or_else(|| {
        let message = format!("the prompt {} has no version {version}", escape(api_id));
        Failure::new(ErrorCode::NotFound, message)
            .hint(format!("list its versions with: flm api prompts history --api-id {}", escape(api_id)))
    })
}

fn difference(from: &PromptView, to: &PromptView) -> Output {
    let lines = line_diff::diff(&from.text, &to.text);
    let text: Vec<_> = lines
        .iter()
        .map(|line| match line {
            Line::Same(text) => format!("  {}", escape(text)),
            Line::Old(text) => format!("- {}", escape(text)),
            Line::New(text) => format!("+ {}", escape(text)),
        })
        .collect();
    let told = |kind: &str, text: &str| serde_json::json!({ "change": kind, "text": text });
    let lines: Vec<_> = lines
        .iter()
        .map(|line| match line {
            Line::Same(text) => told("same", text),
            Line::Old(text) => told("removed", text),
            Line::New(text) => told("added", text),
        })
        .collect();
    let data = serde_json::json!({ "api_id": to.api_id, "from": from.version, "to": to.version, "lines": lines });
    let head = format!("--- {} version {}\n+++ {} version {}", from.api_id, from.version, to.api_id, to.version);
    Output::new(&data, format!("{}\n{}", head, text.join("\n")))
}

/// Reads a file, or stdin for `-`; `what` is told when stdin cannot be read.
pub(super) fn read(file: &Path, what: &str) -> Outcome<String> {
    if file != Path::new("-") {
        return Ok(files::read_to_string(file)?);
    }
    files::read_text(std::io::stdin())
        .map_err(|error| Failure::new(ErrorCode::IoError, format!("{what} could not be read from stdin: {error}")))
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
