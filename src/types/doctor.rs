//! The whole report of `flm doctor`: what the command sees itself, what the home's owner says, and what follows from it.

use serde::{Deserialize, Serialize};

use super::calls::doctor::Diagnosis;
use super::failure::Failure;

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DoctorReport {
    /// Version of the command that asks.
    pub version: String,
    /// Where it runs.
    pub terminal: TerminalFacts,
    /// Folders and files of the home.
    pub files: Vec<FileView>,
    /// The home and whoever owns it; `None` when that could not be looked at.
    pub home: Option<Diagnosis>,
    /// Why not.
    pub failure: Option<Failure>,
    /// What is worth a look, the worst first; empty when all is well.
    pub findings: Vec<Finding>,
}

/// What the command knows of its terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TerminalFacts {
    /// Whether stdin and stdout are a terminal: without one the console cannot open.
    pub interactive: bool,
    /// `TERM`.
    pub term: Option<String>,
    /// `COLORTERM`.
    pub color: Option<String>,
    /// Whether `NO_COLOR` asks for none.
    pub no_color: bool,
    /// The locale that decides language and ASCII drawing.
    pub locale: Option<String>,
    /// Whether it came over SSH.
    pub ssh: bool,
    /// The terminal multiplexer around it, such as tmux.
    pub multiplexer: Option<String>,
    /// Columns and rows.
    pub size: Option<(u16, u16)>,
}

/// One folder or file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FileView {
    /// What it is for.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// `file`, `folder`, `socket`, `link`, `other`; `None` when it is not there.
    pub kind: Option<String>,
    /// Permission bits in octal.
    pub mode: Option<String>,
    /// Bytes.
    pub bytes: Option<u64>,
    /// Whether it belongs to the user who asks.
    pub own: Option<bool>,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Something does not work.
    Problem,
    /// Something may not be as it is meant.
    Warning,
    /// Good to know.
    Hint,
}

/// Something worth a look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What was found.
    pub what: String,
    /// What to do next.
    pub next: String,
}
