//! Loading, unloading, pulling and deleting models: what adapters answer, and what they share.
//!
//! Called by the adapters, by `operations` for the operator and by the relay's load on demand. Must never pretend:
//! what an engine cannot do is an error that says what to do instead.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use crate::engines::adapter::{AdapterInfo, EngineError};
use crate::engines::ask::Answer;
use crate::types::engine::TransferProgress;

/// How often an engine that works by itself is asked how far it is. Often enough for a bar that moves; one small
/// answer each.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Takes what a pull has come to. Never waits.
pub type Report<'a> = &'a (dyn Fn(TransferProgress) + Send + Sync);

/// Why an engine did not do something with a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    /// This engine, or this version or start of it, has no way to; says what to do instead.
    #[error("{0}")]
    NotOffered(String),
    /// It does not have or find the model.
    #[error("it has no model of that name: {0}")]
    UnknownModel(String),
    /// It tried or refused; its words, made safe to show.
    #[error("{0}")]
    Refused(String),
    /// The question itself failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ManageError {
    /// An engine that has no such thing at all.
    pub(super) fn never(info: &AdapterInfo, what: &str, instead: &str) -> Self {
        Self::NotOffered(format!("{} cannot {what} over its API; {instead}", info.title))
    }
}

/// The document of a 200 answer. 404 is an unknown model, any other 4xx a refusal, 5xx the engine's own failure to do
/// it.
pub(super) fn done(answer: &Answer, path: &str) -> Result<Value, ManageError> {
    match answer.status {
        StatusCode::NOT_FOUND => Err(ManageError::UnknownModel(answer.reason())),
        // Of these the question's own errors say more.
        StatusCode::OK
        | StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::SERVICE_UNAVAILABLE => Ok(answer.document(path)?),
        _ => Err(ManageError::Refused(answer.reason())),
    }
}

/// The sums of several files that are fetched at once.
#[derive(Debug, Default)]
pub(super) struct Files(std::collections::BTreeMap<String, (u64, u64)>);

impl Files {
    /// Notes one file. Either number may be unknown yet.
    pub(super) fn note(&mut self, file: &str, completed: Option<u64>, total: Option<u64>) {
        let known = self.0.entry(file.to_owned()).or_default();
        *known = (completed.unwrap_or(known.0), total.unwrap_or(known.1));
    }

    /// How far all of them are together.
    pub(super) fn progress(&self, stage: String) -> TransferProgress {
        let sum = |pick: fn(&(u64, u64)) -> u64| self.0.values().map(pick).fold(0_u64, u64::saturating_add);
        let total = sum(|file| file.1);
        TransferProgress { stage, completed: sum(|file| file.0), total: (total > 0).then_some(total) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_count_together_and_a_total_that_is_not_told_is_not_made_up() {
        let mut files = Files::default();
        files.note("a", None, None);
        assert_eq!(files.progress("x".to_owned()).total, None);
        files.note("a", None, Some(100));
        files.note("b", Some(20), Some(50));
        files.note("a", Some(30), None);
        let told = files.progress("x".to_owned());
        assert_eq!((told.completed, told.total), (50, Some(150)));
    }
}
