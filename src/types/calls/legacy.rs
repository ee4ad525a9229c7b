//! Moving in from the old prototype (SPEC §10, `flm migrate legacy`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{call, long_call};

/// Says what moving would do; changes nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanLegacy {
    /// Folder of the old program. Absolute.
    pub source: String,
}
call!(PlanLegacy, "legacy/plan", Reads, LegacyReport);

/// Converts what the old program kept and writes the result into a folder of its own; changes nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConvertLegacy {
    /// Folder of the old program. Absolute.
    pub source: String,
    /// Folder for the result. Absolute.
    pub tmp: String,
}
call!(ConvertLegacy, "legacy/convert", Reads, LegacyReport);

/// Whether the operator has seen the plan and wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    /// Not yet: nothing is changed.
    Missing,
    /// It is to be done.
    Given,
}

/// Moves everything that can be moved into this home, after a backup of both databases. Can be killed at any point and
/// run again: what is there already is left as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApplyLegacy {
    /// Folder of the old program. Absolute.
    pub source: String,
    /// Folder with a conversion made before; `None` converts now.
    pub tmp: Option<String>,
    /// Whether it is really to be done.
    pub confirmation: Confirmation,
}
long_call!(ApplyLegacy, "legacy/apply", Changes, LegacyReport, LegacyProgress);

/// How far a migration is on its way. Whoever leaves before [`LegacyWork::Storing`] ends it, and nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyProgress {
    /// What is being done.
    pub stage: LegacyWork,
    /// Keys or bytes done of this stage.
    pub done: u64,
    /// Keys or bytes of this stage; 0 when it is not known.
    pub total: u64,
}

/// Stages of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegacyWork {
    /// The old program's folder is read.
    Reading,
    /// Its keys are hashed.
    Hashing,
    /// Both databases are backed up.
    Copying,
    /// What is moved is added: this is not broken off any more.
    Storing,
}

impl fmt::Display for LegacyWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reading => "reading the old program",
            Self::Hashing => "hashing keys",
            Self::Copying => "backing up both databases",
            Self::Storing => "storing",
        })
    }
}

/// How far a migration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LegacyStage {
    /// Looked at only.
    Planned,
    /// Converted into a folder of its own.
    Converted,
    /// In this home.
    Applied,
}

/// What something of the old program becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LegacyKind {
    /// An engine.
    Engine,
    /// An alias.
    Alias,
    /// A model profile.
    Profile,
    /// An API key.
    Key,
    /// A prompt of one key.
    Prompt,
    /// A setting.
    Setting,
    /// Nothing: it is kept as a note in the log of the migration.
    Note,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LegacyFate {
    /// It would be moved.
    Moves,
    /// It was moved.
    Moved,
    /// This home has it, or something in its place, which stays as it is.
    Exists,
    /// The old program had it twice.
    Duplicate,
    /// It cannot be moved.
    NotMovable,
    /// It is kept as a note only.
    Noted,
}

/// One thing of the old program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LegacyItem {
    /// What it becomes.
    pub kind: LegacyKind,
    /// Its name; outside text.
    pub name: String,
    /// What happens to it.
    pub fate: LegacyFate,
    /// Why, or what changes for its users; outside text, never a secret.
    pub detail: String,
}

/// What a migration does, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LegacyReport {
    /// How far it went.
    pub stage: LegacyStage,
    /// The old program's folder.
    pub source: String,
    /// The database in it.
    pub database: Option<String>,
    /// SHA-256 of what was read, as hexadecimal digits.
    pub fingerprint: String,
    /// Everything that was found.
    pub items: Vec<LegacyItem>,
    /// File with the conversion, when one was written.
    pub conversion: Option<String>,
    /// Folder of the backup of both databases, when something was applied.
    pub backup: Option<String>,
    /// The log of the migration, when something was applied.
    pub log: Option<String>,
    /// Whether an earlier run of the same migration was broken off, and this one went on from there.
    pub resumed: bool,
}
