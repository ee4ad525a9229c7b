//! Models side by side on one prompt: what each run gave, and medians (SPEC §2 `flm models compare`, §9.2).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::chat::{ChatAnswer, Sampling};
use super::clock::UnixMillis;
use super::failure::Failure;
use super::spread::median;
use super::text::escape;

/// Fewest and most models that stand side by side (SPEC §9.2).
pub const COMPARED: std::ops::RangeInclusive<usize> = 2..=4;
/// Most repeats.
pub const MOST_RUNS: u32 = 100;

/// A finished comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Comparison {
    /// Its number, once it is saved.
    #[serde(default)]
    pub id: Option<i64>,
    /// When it ended.
    pub created: UnixMillis,
    /// What was asked.
    pub prompt: String,
    /// How the models were to pick their words.
    pub sampling: Sampling,
    /// Runs per model.
    pub runs: u32,
    /// The models, in the order in which they were named.
    pub models: Vec<ComparedModel>,
}

/// One model of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ComparedModel {
    /// As it was named; outside text.
    pub model: String,
    /// Its runs, in order.
    pub runs: Vec<ComparedRun>,
    /// Medians over the runs that came whole.
    pub medians: Medians,
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComparedRun {
    /// A whole answer.
    Answer(Box<ChatAnswer>),
    /// It failed; the others go on.
    Failed(Failure),
}

/// Medians over runs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Medians {
    /// From request to first token, milliseconds.
    pub first_token_ms: Option<f64>,
    /// From request to end, milliseconds.
    pub total_ms: Option<f64>,
    /// Tokens per second after the first one.
    pub tokens_per_second: Option<f64>,
    /// Tokens of an answer.
    pub completion_tokens: Option<f64>,
}

/// What happens in a comparison as it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CompareProgress {
    /// Which model, counted from 0.
    pub model: usize,
    /// Which run of it, counted from 1.
    pub run: u32,
    /// What happened.
    pub told: CompareTold,
}

/// What happens in one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CompareTold {
    /// It begins.
    Begun,
    /// The next words; outside text.
    Text(String),
    /// The next thoughts; outside text.
    Reasoning(String),
    /// It has ended.
    Ended(ComparedRun),
}

/// A saved comparison in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ComparisonEntry {
    /// Its number.
    pub id: i64,
    /// When it ended.
    pub created: UnixMillis,
    /// The models; outside text.
    pub models: Vec<String>,
    /// The beginning of the prompt.
    pub prompt: String,
    /// Runs per model.
    pub runs: u32,
}

impl ComparedModel {
    /// A model with its runs.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
    pub fn new(model: String, runs: Vec<ComparedRun>) -> Self {
        let answers = || runs.iter().filter_map(ComparedRun::answer);
        let medians = Medians {
            first_token_ms: median(answers().filter_map(|answer| answer.timing.first_token_ms)),
            total_ms: median(answers().map(|answer| answer.timing.total_ms)),
            tokens_per_second: median(answers().filter_map(|answer| answer.timing.tokens_per_second)),
            completion_tokens: median(answers().map(|answer| answer.usage.completion as f64)),
        };
        Self { model, runs, medians }
    }
}

impl ComparedRun {
    /// The answer, if it came whole.
    #[must_use]
    pub fn answer(&self) -> Option<&ChatAnswer> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Failed(_) => None,
        }
    }
}

impl Comparison {
    /// The comparison as a Markdown document: the prompt, a table of medians, and the last answer of each model. What
    /// models wrote stands in fences that nothing in it can close.
    #[must_use]
    pub fn to_markdown(&self, time: &str) -> String {
        let mut out = format!("# Models compared\n\n{time}, runs per model: {}", self.runs);
        let mut add = |text: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _infallible = out.write_fmt(text);
        };
        let Sampling { temperature, max_tokens, seed } = self.sampling;
        for (name, value) in [
            ("temperature", temperature.map(|value| value.to_string())),
            ("most tokens", max_tokens.map(|value| value.to_string())),
            ("seed", seed.map(|value| value.to_string())),
        ] {
            if let Some(value) = value {
                add(format_args!(", {name} {value}"));
            }
        }
        add(format_args!("\n\n## Prompt\n\n{}\n\n## Medians\n\n", fenced(&self.prompt)));
        add(format_args!("| model | first token | tokens/s | tokens | total | failed |\n|---|---|---|---|---|---|\n"));
        for model in &self.models {
            let Medians { first_token_ms, total_ms, tokens_per_second, completion_tokens } = model.medians;
            let number = |value: Option<f64>, unit: &str| value.map_or("-".to_owned(), |v| format!("{v:.0}{unit}"));
            add(format_args!(
                "| {} | {} | {} | {} | {} | {} |\n",
                cell(&model.model),
                number(first_token_ms, " ms"),
                tokens_per_second.map_or("-".to_owned(), |rate| format!("{rate:.1}")),
                number(completion_tokens, ""),
                number(total_ms, " ms"),
                model.runs.iter().filter(|run| run.answer().is_none()).count(),
            ));
        }
        for model in &self.models {
            add(format_args!("\n## {}\n\n", cell(&model.model)));
            match model.runs.last() {
                Some(ComparedRun::Answer(answer)) => add(format_args!("{}\n", fenced(&answer.text))),
                Some(ComparedRun::Failed(failure)) => add(format_args!("Failed: {}\n", cell(&failure.message))),
                None => {}
            }
        }
        out
    }
}

/// Outside text in a cell or heading: one line, nothing that Markdown reads.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in escape(text).chars() {
        if matches!(c, '|' | '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Outside text in a code fence that is longer than any row of backticks in it.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let lines: Vec<_> = text.lines().map(escape).collect();
    format!("{fence}text\n{}\n{fence}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::chat::ChatTiming;
    use crate::types::failure::ErrorCode;
    use crate::types::request::{TokenSource, TokenUsage};

    fn answer(text: &str, first: f64, total: f64) -> ComparedRun {
        let usage = TokenUsage { prompt: 5, completion: 11, cached: 0, source: TokenSource::Engine };
        ComparedRun::Answer(Box::new(ChatAnswer {
            model: "m".to_owned(),
            status: 200,
            request_id: None,
            text: text.to_owned(),
            reasoning: String::new(),
            audio: None,
            finish_reason: Some("stop".to_owned()),
            usage,
            timing: ChatTiming::of(Some(first), total, usage.completion),
        }))
    }

    #[test]
    fn medians_leave_failed_runs_out() {
        let failed = ComparedRun::Failed(Failure::new(ErrorCode::EngineApiError, "gone"));
        let model =
            ComparedModel::new("m".to_owned(), vec![answer("a", 100.0, 1100.0), failed, answer("b", 300.0, 800.0)]);
        assert_eq!((model.medians.first_token_ms, model.medians.total_ms), (Some(200.0), Some(950.0)));
        assert_eq!(model.medians.tokens_per_second, Some(15.0));
        assert_eq!(ComparedModel::new("m".to_owned(), Vec::new()).medians, Medians::default());
    }

    #[test]
    fn markdown_holds_what_models_wrote_in_fences_that_they_cannot_close() {
        let comparison = Comparison {
            id: None,
            created: UnixMillis(0),
            prompt: "why?".to_owned(),
            sampling: Sampling { temperature: Some(0.5), max_tokens: None, seed: Some(7) },
            runs: 1,
            models: vec![
                ComparedModel::new("a|b".to_owned(), vec![answer("```\n# not a heading\x1b[31m", 10.0, 20.0)]),
                ComparedModel::new(
                    "c".to_owned(),
                    vec![ComparedRun::Failed(Failure::new(ErrorCode::EngineApiError, "no <b>"))],
                ),
            ],
        };
        let text = comparison.to_markdown("2026-11-26 20:00:00");
        assert!(text.contains("````text\n```\n# not a heading\\x1b[31m\n````\n"), "{text}");
        assert!(text.contains("| a\\|b | 10 ms | 1000.0 | 11 | 20 ms | 0 |"), "{text}");
        assert!(text.contains("Failed: no \\<b\\>") && text.contains(", temperature 0.5, seed 7\n"), "{text}");
    }
}
