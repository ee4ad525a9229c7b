//! Models side by side on one prompt, and what was saved of it (SPEC §2 `flm models compare`, §9.2).

use std::sync::Arc;

use futures_util::future::join_all;

use super::chat::{check_model, no_prompt};
use super::context::Context;
use super::own_chat::OwnChat;
use super::own_endpoint::OwnEndpoint;
use super::progress::Reporter;
use crate::types::calls::chat::{Chat, ChatProgress};
use crate::types::calls::comparisons::{
    CompareModels, DeleteComparison, Keeping, ListComparisons, SaveComparison, ShowComparison,
};
use crate::types::chat::{ChatAnswer, ChatDelivery};
use crate::types::comparison::{
    COMPARED, CompareProgress, CompareTold, ComparedModel, ComparedRun, Comparison, ComparisonEntry, MOST_RUNS,
};
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Under which label its requests show.
const LABEL: &str = "flm compare";
/// Largest comparison that is saved: a document of this size still opens at once.
const LARGEST: usize = 4 * 1024 * 1024;

/// Asks all models at once, run after run, and tells every word as it comes. A run that fails is told and does not stop the
/// others. Dropping the future ends the engines' work.
///
/// # Errors
/// `INVALID_ARGUMENT` for fewer than 2 or more than 4 models, no prompt or too many runs; `NOT_FOUND` when no proxy runs.
pub async fn run(
    context: &Arc<Context>,
    call: CompareModels,
    reporter: Reporter<CompareModels>,
) -> Outcome<Comparison> {
    check(&call)?;
    let endpoint = OwnEndpoint::open(context, LABEL)?;
    let mut runs: Vec<Vec<ComparedRun>> = vec![Vec::new(); call.models.len()];
    for run in 1..=call.runs {
        let (endpoint, call, reporter) = (&endpoint, &call, &reporter);
        let all = (0..call.models.len()).map(|model| one(endpoint, call, reporter, model, run));
        for (kept, ended) in runs.iter_mut().zip(join_all(all).await) {
            kept.push(ended);
        }
    }
    let models = call.models.iter().cloned().zip(runs).map(|(model, runs)| ComparedModel::new(model, runs)).collect();
    let comparison = Comparison {
        id: None,
        created: context.clock.wall(),
        prompt: call.prompt,
        sampling: call.sampling,
        runs: call.runs,
        models,
    };
    match call.keeping {
        Keeping::Told => Ok(comparison),
        Keeping::Saved => save(context, SaveComparison { comparison }).await,
    }
}

/// Saves a comparison.
///
/// # Errors
/// `INVALID_ARGUMENT` for one that nobody could have run, or that is too large.
pub async fn save(context: &Context, call: SaveComparison) -> Outcome<Comparison> {
    let comparison = call.comparison;
    let size = serde_json::to_vec(&comparison).map_or(usize::MAX, |document| document.len());
    if size > LARGEST || !COMPARED.contains(&comparison.models.len()) || !(1..=MOST_RUNS).contains(&comparison.runs) {
        return Err(Failure::new(ErrorCode::InvalidArgument, "a comparison of that shape or size is not saved")
            .hint("compare 2 to 4 models, with at most 4 MiB of answers; export larger ones to a file"));
    }
    let _changing = context.begin_change().await?;
    let id = context.stores.config.add_comparison(comparison.clone()).await?;
    Ok(Comparison { id: Some(id), ..comparison })
}

/// Lists saved comparisons, newest first.
pub async fn list(context: &Context, _call: ListComparisons) -> Outcome<Vec<ComparisonEntry>> {
    Ok(context.stores.config.comparisons().await?)
}

/// Shows a saved comparison.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn show(context: &Context, call: ShowComparison) -> Outcome<Comparison> {
    context.stores.config.comparison(call.id).await?.ok_or_else(|| unknown(call.id))
}

/// Deletes a saved comparison.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn delete(context: &Context, call: DeleteComparison) -> Outcome<()> {
    let _changing = context.begin_change().await?;
    if context.stores.config.delete_comparison(call.id).await? { Ok(()) } else { Err(unknown(call.id)) }
}

fn check(call: &CompareModels) -> Outcome<()> {
    let wrong = |what: String| Failure::new(ErrorCode::InvalidArgument, what);
    if !COMPARED.contains(&call.models.len()) {
        let (least, most) = (COMPARED.start(), COMPARED.end());
        return Err(wrong(format!("{least} to {most} models can be compared, not {}", call.models.len()))
            .hint("flm models compare MODEL MODEL --prompt TEXT"));
    }
    call.models.iter().try_for_each(|model| check_model(model))?;
    if call.prompt.trim().is_empty() {
        return Err(no_prompt());
    }
    if !(1..=MOST_RUNS).contains(&call.runs) {
        return Err(wrong(format!("each model can be asked 1 to {MOST_RUNS} times")));
    }
    Ok(())
}

fn unknown(id: i64) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no saved comparison {id}"))
        .hint("list them with: flm models comparisons list")
}

/// One run of one model.
async fn one(
    endpoint: &OwnEndpoint,
    call: &CompareModels,
    reporter: &Reporter<CompareModels>,
    model: usize,
    run: u32,
) -> ComparedRun {
    let tell = |told| reporter.send(CompareProgress { model, run, told });
    tell(CompareTold::Begun).await;
    let chat = Chat {
        model: call.models[model].clone(),
        prompt: call.prompt.clone(),
        delivery: ChatDelivery::Streamed,
        sampling: call.sampling,
        ..Chat::default()
    };
    let asked: Outcome<ChatAnswer> = async {
        let mut running = OwnChat::begin(endpoint, &chat).await?;
        while let Some(piece) = running.next().await? {
            match piece {
                ChatProgress::Begun { .. } => {}
                ChatProgress::Text(text) => tell(CompareTold::Text(text)).await,
                ChatProgress::Reasoning(text) => tell(CompareTold::Reasoning(text)).await,
            }
        }
        Ok(running.end())
    }
    .await;
    let ended = match asked {
        Ok(answer) => ComparedRun::Answer(Box::new(answer)),
        Err(failure) => ComparedRun::Failed(failure),
    };
    tell(CompareTold::Ended(ended.clone())).await;
    ended
}
