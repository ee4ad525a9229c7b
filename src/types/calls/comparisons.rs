//! Operations on comparisons of models (SPEC §2 `flm models compare`, §9.2).

use serde::{Deserialize, Serialize};

use super::{call, long_call};
use crate::types::chat::Sampling;
use crate::types::comparison::{CompareProgress, Comparison, ComparisonEntry};

/// Asks models the same question at once. Leaving it ends the engines' work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareModels {
    /// 2 to 4 names under which clients may ask for them.
    pub models: Vec<String>,
    /// The question.
    pub prompt: String,
    /// How often each is asked, at least 1.
    pub runs: u32,
    /// How the models pick their words.
    #[serde(default)]
    pub sampling: Sampling,
    /// What becomes of the result.
    #[serde(default)]
    pub keeping: Keeping,
}
long_call!(CompareModels, "comparisons/run", Changes, Comparison, CompareProgress);

/// What becomes of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keeping {
    /// It is told, and nothing else: prompts and answers are not stored unasked.
    #[default]
    Told,
    /// It is saved too, prompt and answers included.
    Saved,
}

/// Saves a comparison that was made before; answers it with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaveComparison {
    /// What is saved.
    pub comparison: Comparison,
}
call!(SaveComparison, "comparisons/save", Changes, Comparison);

/// Lists saved comparisons, newest first.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListComparisons {}
call!(ListComparisons, "comparisons/list", Reads, Vec<ComparisonEntry>);

/// Shows a saved comparison.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ShowComparison {
    /// Its number.
    pub id: i64,
}
call!(ShowComparison, "comparisons/show", Reads, Comparison);

/// Deletes a saved comparison for good.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct DeleteComparison {
    /// Its number.
    pub id: i64,
}
call!(DeleteComparison, "comparisons/delete", Destroys, ());
