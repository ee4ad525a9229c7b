//! `flm check`.

use std::borrow::Cow;
use std::ops::ControlFlow;

use clap::Args;

use super::output::{Output, ProgressLine};
use super::session::Session;
use super::style::{self, Tone};
use crate::control::offline;
use crate::types::calls::check::{Check, CheckItem, CheckProgress, CheckReport, Verdict};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::text::escape;

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Show what is fine in full too
    #[arg(long)]
    verbose: bool,
}

impl CheckArguments {
    pub(super) async fn run(self, session: &Session) -> Outcome<Output> {
        let report = match session.operator().await {
            Ok(operator) => {
                let mut line = ProgressLine::new(session.format);
                let mut told = |progress: CheckProgress| {
                    if !session.tells_progress() {
                        return ControlFlow::Continue(());
                    }
                    line.show(&progress, &progress.check, &format!("checking {}", progress.check));
                    ControlFlow::Continue(())
                };
                let report = Session::follow_on(operator, Check {}, &mut told).await;
                line.end();
                // Nobody breaks it off.
                report?.ok_or_else(|| Failure::new(ErrorCode::Internal, "the check was left"))?
            }
            // What keeps the databases shut is what was asked for.
            Err(failure) if failure.code != ErrorCode::Cancelled => {
                offline::check(&session.home.paths, failure).await?
            }
            Err(failure) => return Err(failure),
        };
        let text = told(&report, self.verbose);
        Ok(Output::new(&report, text).exit(report.exit_status()))
    }
}

fn told(report: &CheckReport, verbose: bool) -> String {
    let width = report.checks.iter().map(|item| item.name.len()).max().unwrap_or(0);
    let mut lines = Vec::new();
    for CheckItem { name, verdict, finding, details, hint, .. } in &report.checks {
        let mark = match verdict {
            Verdict::Fine => "ok  ",
            Verdict::Skipped => "-   ",
            Verdict::Warning => "warn",
            Verdict::Failed => "FAIL",
        };
        let mark = Tone::of(mark).map_or(Cow::Borrowed(mark), |tone| style::paint(mark, tone));
        lines.push(format!("{mark}  {name:width$}  {finding}"));
        let hint = hint.iter().filter(|_| *verdict >= Verdict::Warning).map(|hint| format!("hint: {}", escape(hint)));
        let details = details.iter().filter(|_| verbose).map(|line| escape(line).into_owned());
        lines.extend(details.chain(hint).map(|line| format!("      {:width$}  {line}", "")));
    }
    let count = |verdict| report.checks.iter().filter(|item| item.verdict == verdict).count();
    lines.push(match (count(Verdict::Failed), count(Verdict::Warning)) {
        (0, 0) => "everything is as it should be".to_owned(),
        (0, warnings) => format!("nothing failed, {warnings} to look at"),
        (failed, warnings) => format!("{failed} failed, {warnings} more to look at"),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_for_verbose_and_hints_for_what_is_not_fine() {
        let report = CheckReport::of(vec![
            CheckItem::new("key", Verdict::Fine, "key file").details(vec!["/a".into()]).hint("never shown"),
            CheckItem::new("disk space", Verdict::Failed, "1 MB").hint("free some"),
        ]);
        let text = told(&report, false);
        assert_eq!(
            text,
            "ok    key         key file\nFAIL  disk space  1 MB\n                  hint: free some\n1 failed, 0 more to look at"
        );
        assert!(told(&report, true).contains("/a"));
    }
}
