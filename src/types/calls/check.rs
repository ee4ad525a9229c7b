//! `flm check` (SPEC §2, §10).

use serde::{Deserialize, Serialize};

use super::long_call;
use crate::types::failure::ErrorCode;

/// Looks at everything that a home needs, and changes nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Check {}
long_call!(Check, "check/run", Reads, CheckReport, CheckProgress);

/// What is being looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckProgress {
    /// Name of the check.
    pub check: String,
}

/// How a check came out, from fine to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// It could not be looked at.
    Skipped,
    /// It works, and wants a look.
    Warning,
    /// It does not work, or is not safe.
    Failed,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CheckItem {
    /// Its name, such as `security.db integrity`.
    pub name: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found, in a line.
    pub finding: String,
    /// More lines, for `--verbose`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What kind of fault, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
}

impl CheckItem {
    /// A check that came out so.
    #[must_use]
    pub fn new(name: impl Into<String>, verdict: Verdict, finding: impl Into<String>) -> Self {
        let (name, finding) = (name.into(), finding.into());
        Self { name, verdict, finding, details: Vec::new(), hint: None, code: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds lines for `--verbose`.
    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// Adds what kind of fault it is.
    #[must_use]
    pub fn code(mut self, code: ErrorCode) -> Self {
        self.code = Some(code);
        self
    }
}

/// What `flm check` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct CheckReport {
    /// The worst of all.
    pub verdict: Verdict,
    /// In the order in which they were looked at.
    pub checks: Vec<CheckItem>,
}

impl CheckReport {
    /// The report of these checks.
    #[must_use]
    pub fn of(checks: Vec<CheckItem>) -> Self {
        let verdict = checks.iter().map(|item| item.verdict).max().unwrap_or(Verdict::Fine);
        // What could not be looked at is no fault of the home.
        Self { verdict: if verdict == Verdict::Skipped { Verdict::Fine } else { verdict }, checks }
    }

    /// The exit status of the command: 0 when nothing failed, 2 when a database or the disk is at fault, else 1 (SPEC §2).
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        let failed = self.checks.iter().filter(|item| item.verdict == Verdict::Failed);
        failed.map(|item| item.code.map_or(1, ErrorCode::exit_status)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_gives_verdict_and_exit_status() {
        let item = |verdict| CheckItem::new("x", verdict, "");
        let report = CheckReport::of(vec![item(Verdict::Fine), item(Verdict::Skipped)]);
        assert_eq!((report.verdict, report.exit_status()), (Verdict::Fine, 0));
        let report = CheckReport::of(vec![item(Verdict::Skipped), item(Verdict::Warning)]);
        assert_eq!((report.verdict, report.exit_status()), (Verdict::Warning, 0));
        let report = CheckReport::of(vec![item(Verdict::Failed), item(Verdict::Warning)]);
        assert_eq!((report.verdict, report.exit_status()), (Verdict::Failed, 1));
        let report = CheckReport::of(vec![item(Verdict::Failed).code(ErrorCode::DbError), item(Verdict::Failed)]);
        assert_eq!(report.exit_status(), 2);
    }
}
