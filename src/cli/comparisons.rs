//! `flm models compare` and `flm models comparisons`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::chat::{SamplingArguments, no_question, question};
use super::output::{Output, ProgressLine, for_stdout};
use super::session::Session;
use super::table::{Table, or_dash, time};
use crate::config::files::{self, Audience};
use crate::types::calls::comparisons::{CompareModels, DeleteComparison, Keeping, ListComparisons, ShowComparison};
use crate::types::comparison::{CompareProgress, CompareTold, ComparedRun, Comparison};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    /// 2 to 4 names under which clients may ask for them
    #[arg(value_name = "MODEL", num_args = 1.., required = true)]
    models: Vec<String>,
    /// The question [default: read from stdin]
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file with the question
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// How often each is asked
    #[arg(long, value_name = "N", default_value_t = 1)]
    runs: u32,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// Save prompt, answers and numbers in this home
    #[arg(long)]
    save: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ComparisonsCommand {
    /// List saved comparisons, newest first
    #[command(after_help = "Example:\n  flm models comparisons list")]
    List,
    /// Show a saved comparison
    #[command(after_help = "Example:\n  flm models comparisons show 3")]
    Show {
        /// Its number
        #[arg(value_name = "NUMBER")]
        id: i64,
    },
    /// Write a saved comparison as a document
    #[command(after_help = "Example:\n  flm models comparisons export 3 --as markdown --output compared.md")]
    Export {
        /// Its number
        #[arg(value_name = "NUMBER")]
        id: i64,
        /// As what
        #[arg(long = "as", value_name = "KIND", default_value = "markdown")]
        kind: Document,
        /// Where to [default: stdout]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Delete a saved comparison for good
    #[command(after_help = "Example:\n  flm models comparisons delete 3")]
    Delete {
        /// Its number
        #[arg(value_name = "NUMBER")]
        id: i64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Document {
    /// For people
    Markdown,
    /// For programs
    Json,
}

impl CompareArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let prompt = question(self.prompt.as_deref(), self.prompt_file.as_deref())?.ok_or_else(no_question)?;
        let names = self.models.clone();
        let call = CompareModels {
            models: self.models,
            prompt,
            runs: self.runs,
            sampling: self.sampling.sampling(),
            keeping: if self.save { Keeping::Saved } else { Keeping::Told },
        };
        let mut line = ProgressLine::new(session.format);
        let mut running = Running { words: vec![0; names.len()], names, runs: self.runs };
        let outcome = session
            .follow(call, |told| {
                let text = running.shown(&told);
                // People see one line; programs get every word.
                let stage = format!("run {}", told.run);
                line.show(&told, &stage, &text);
            })
            .await;
        line.end();
        let comparison = outcome?;
        let output = Output::new(&comparison, text(&comparison));
        Ok(match comparison.id {
            Some(id) => {
                output.note(format!("saved as comparison {id}; see it again with: flm models comparisons show {id}"))
            }
            None => output,
        })
    }
}

/// What a person sees while it runs.
struct Running {
    names: Vec<String>,
    runs: u32,
    /// Pieces that came of each model in this run.
    words: Vec<u64>,
}

impl Running {
    fn shown(&mut self, told: &CompareProgress) -> String {
        if let Some(words) = self.words.get_mut(told.model) {
            match told.told {
                CompareTold::Begun => *words = 0,
                CompareTold::Text(_) | CompareTold::Reasoning(_) => *words += 1,
                CompareTold::Ended(_) => {}
            }
        }
        let each: Vec<_> =
            self.names.iter().zip(&self.words).map(|(name, words)| format!("{} {words}", escape(name))).collect();
        format!("run {} of {}: {} pieces", told.run, self.runs, each.join(", "))
    }
}

impl ComparisonsCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        match self {
            Self::List => {
                let saved = session.call(ListComparisons {}).await?;
                let mut table = Table::new(&["NUMBER", "TIME", "RUNS", "MODELS", "PROMPT"]);
                for entry in &saved {
                    table.row([
                        entry.id.to_string(),
                        time(entry.created),
                        entry.runs.to_string(),
                        entry.models.join(", "),
                        entry.prompt.chars().take(40).collect(),
                    ]);
                }
                let none = "no saved comparisons: flm models compare … --save makes one";
                Ok(Output::new(&saved, table.or(none)))
            }
            Self::Show { id } => {
                let comparison = session.call(ShowComparison { id }).await?;
                Ok(Output::new(&comparison, text(&comparison)))
            }
            Self::Export { id, kind, output } => {
                let comparison = session.call(ShowComparison { id }).await?;
                let document = match kind {
                    Document::Markdown => comparison.to_markdown(&time(comparison.created)),
                    Document::Json => serde_json::to_string_pretty(&comparison).map_err(|error| {
                        Failure::new(ErrorCode::Internal, format!("the comparison cannot be written: {error}"))
                    })?,
                };
                let Some(file) = output else {
                    return Ok(Output::document(document));
                };
                files::replace(&file, document.as_bytes(), Audience::Everyone)?;
                let text = format!("comparison {id} is in {}", file.display());
                Ok(Output::new(&serde_json::json!({ "file": file.display().to_string() }), text))
            }
            Self::Delete { id } => {
                session.call(DeleteComparison { id }).await?;
                Ok(Output::new(&serde_json::json!({ "deleted": id }), format!("comparison {id} is deleted")))
            }
        }
    }
}

fn text(comparison: &Comparison) -> String {
    let mut table = Table::new(&["MODEL", "FIRST TOKEN", "TOK/S", "TOKENS", "TOTAL", "FAILED"]);
    for model in &comparison.models {
        let medians = model.medians;
        let millis = |value: Option<f64>| or_dash(value.map(|ms| format!("{ms:.0} ms")));
        table.row([
            model.model.clone(),
            millis(medians.first_token_ms),
            or_dash(medians.tokens_per_second.map(|rate| format!("{rate:.1}"))),
            or_dash(medians.completion_tokens.map(|tokens| format!("{tokens:.0}"))),
            millis(medians.total_ms),
            model.runs.iter().filter(|run| run.answer().is_none()).count().to_string(),
        ]);
    }
    let mut out = table.or("");
    for model in &comparison.models {
        out.push_str(&format!("\n\n── {} ──\n", escape(&model.model)));
        match model.runs.last() {
            Some(ComparedRun::Answer(answer)) => out.push_str(&for_stdout(answer.text.trim_end())),
            Some(ComparedRun::Failed(failure)) => out.push_str(&format!("failed: {}", escape(&failure.message))),
            None => {}
        }
    }
    out
}
