//! `flm migrate legacy`: moving in from the old program (SPEC §10).

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::output::{Output, ProgressLine};
use super::session::Session;
use super::table::Table;
use crate::types::calls::legacy::{
    ApplyLegacy, Confirmation, ConvertLegacy, LegacyFate, LegacyItem, LegacyKind, LegacyProgress, LegacyReport,
    LegacyStage, PlanLegacy,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// From the old prototype: its config.json and its SQLite database
    #[command(subcommand, after_help = "Example:\n  flm migrate legacy plan --source ~/.old-flm")]
    Legacy(LegacyCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum LegacyCommand {
    /// Say what would be moved, and what cannot be; changes nothing
    #[command(after_help = "Example:\n  flm migrate legacy plan --source ~/.old-flm")]
    Plan(SourceArgument),
    /// Convert into a folder of its own, keys hashed, to look at it; changes nothing else
    #[command(after_help = "Example:\n  flm migrate legacy convert --source ~/.old-flm --tmp ~/converted")]
    Convert {
        #[command(flatten)]
        source: SourceArgument,
        /// Folder for the result
        #[arg(long, value_name = "DIR")]
        tmp: PathBuf,
    },
    /// Back up both databases, then add what this home does not have; may be run again at any time, and Ctrl-C ends it before
    /// anything is stored
    #[command(after_help = "Example:\n  flm migrate legacy apply --source ~/.old-flm --confirm")]
    Apply {
        #[command(flatten)]
        source: SourceArgument,
        /// Folder with a conversion, instead of converting now
        #[arg(long, value_name = "DIR")]
        tmp: Option<PathBuf>,
        /// Really do it
        #[arg(long)]
        confirm: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct SourceArgument {
    /// The old program's folder
    #[arg(long, value_name = "DIR")]
    source: PathBuf,
}

impl MigrateCommand {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let Self::Legacy(command) = self;
        let report = match command {
            LegacyCommand::Plan(source) => session.call(PlanLegacy { source: absolute(&source.source)? }).await?,
            LegacyCommand::Convert { source, tmp } => {
                session.call(ConvertLegacy { source: absolute(&source.source)?, tmp: absolute(&tmp)? }).await?
            }
            LegacyCommand::Apply { source, tmp, confirm } => {
                let tmp = tmp.as_deref().map(absolute).transpose()?;
                let confirmation = if confirm { Confirmation::Given } else { Confirmation::Missing };
                let call = ApplyLegacy { source: absolute(&source.source)?, tmp, confirmation };
                let mut line = ProgressLine::new(session.format);
                let applied = session.follow(call, |progress| show(session, &mut line, &progress)).await;
                line.end();
                applied?
            }
        };
        Ok(Output::new(&report, describe(&report)).note(note(&report)))
    }
}

fn show(session: &Session, line: &mut ProgressLine, progress: &LegacyProgress) {
    if !session.tells_progress() {
        return;
    }
    let stage = progress.stage.to_string();
    let text = match (progress.done * 100).checked_div(progress.total) {
        Some(percent) => format!("{stage} {percent} %"),
        None => stage.clone(),
    };
    line.show(progress, &stage, &text);
}

/// The daemon works in another folder than whoever asks.
fn absolute(path: &Path) -> Outcome<String> {
    let fault = |why: String| {
        let shown = escape(&path.to_string_lossy()).into_owned();
        Failure::new(ErrorCode::InvalidArgument, format!("the folder {shown} cannot be named: {why}"))
            .hint("give it as an absolute path of UTF-8 text")
    };
    let absolute = std::path::absolute(path).map_err(|error| fault(error.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| fault("its name is no text".to_owned()))
}

fn describe(report: &LegacyReport) -> String {
    let mut table = Table::new(&["", "WHAT", "NAME", "DETAILS"]);
    for item in &report.items {
        table.row([fate(item.fate).to_owned(), kind(item.kind).to_owned(), item.name.clone(), item.detail.clone()]);
    }
    let from = match &report.database {
        Some(database) => format!("{} ({})", escape(&report.source), escape(database)),
        None => escape(&report.source).into_owned(),
    };
    let mut text = format!("old program: {from}\n\n{}\n\n{}", table.or("nothing was found"), counts(&report.items));
    for (name, path) in [("conversion", &report.conversion), ("backup", &report.backup), ("log", &report.log)] {
        if let Some(path) = path {
            text.push_str(&format!("\n{name}: {}", escape(path)));
        }
    }
    text
}

fn counts(items: &[LegacyItem]) -> String {
    let fates = [
        LegacyFate::Moves,
        LegacyFate::Moved,
        LegacyFate::Exists,
        LegacyFate::Duplicate,
        LegacyFate::NotMovable,
        LegacyFate::Noted,
    ];
    let counted = fates.into_iter().filter_map(|wanted| {
        let count = items.iter().filter(|item| item.fate == wanted).count();
        (count > 0).then(|| format!("{count} {}", fate(wanted)))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn note(report: &LegacyReport) -> String {
    let moves = report.items.iter().any(|item| item.fate == LegacyFate::Moves);
    match report.stage {
        LegacyStage::Planned if moves => {
            "nothing was changed; to do it: flm migrate legacy apply --source DIR --confirm".to_owned()
        }
        LegacyStage::Planned => "nothing was changed, and there is nothing to move".to_owned(),
        LegacyStage::Converted => {
            "this home was not changed; the conversion holds hashes of keys: delete it when it is no longer needed"
                .to_owned()
        }
        LegacyStage::Applied if report.resumed => "an earlier run was broken off; this one finished it".to_owned(),
        LegacyStage::Applied if report.backup.is_none() => "this home has all of it already".to_owned(),
        LegacyStage::Applied => {
            "moved keys go on working; replace them by keys of FLM when you can: flm api-keys rotate ID".to_owned()
        }
    }
}

fn fate(fate: LegacyFate) -> &'static str {
    match fate {
        LegacyFate::Moves => "moves",
        LegacyFate::Moved => "moved",
        LegacyFate::Exists => "here already",
        LegacyFate::Duplicate => "duplicate",
        LegacyFate::NotMovable => "NOT MOVABLE",
        LegacyFate::Noted => "note",
    }
}

fn kind(kind: LegacyKind) -> &'static str {
    match kind {
        LegacyKind::Engine => "engine",
        LegacyKind::Alias => "alias",
        LegacyKind::Profile => "profile",
        LegacyKind::Key => "key",
        LegacyKind::Prompt => "prompt",
        LegacyKind::Setting => "setting",
        LegacyKind::Note => "-",
    }
}
