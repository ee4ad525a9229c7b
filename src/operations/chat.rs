//! One question to a model through the own endpoint (SPEC §2 `flm chat`, §9.2 chat tester).

use std::sync::Arc;

use super::context::Context;
use super::own_chat::OwnChat;
use super::own_endpoint::OwnEndpoint;
use super::progress::Reporter;
use crate::types::calls::chat::Chat;
use crate::types::chat::ChatAnswer;
use crate::types::failure::{ErrorCode, Failure, Outcome};

/// Under which label its requests show.
const LABEL: &str = "flm chat";

/// Asks, tells the answer as it comes, and answers it whole. Dropping the future ends the engine's work.
///
/// # Errors
/// `INVALID_ARGUMENT` without a model or a question; `NOT_FOUND` when no proxy runs; what the endpoint answered.
pub async fn send(context: &Arc<Context>, call: Chat, reporter: Reporter<Chat>) -> Outcome<ChatAnswer> {
    check_model(&call.model)?;
    if call.prompt.trim().is_empty() && call.images.is_empty() && call.audio.is_none() {
        return Err(no_prompt());
    }
    let endpoint = OwnEndpoint::open(context, LABEL)?;
    let mut chat = OwnChat::begin(&endpoint, &call).await?;
    while let Some(piece) = chat.next().await? {
        reporter.send(&piece).await;
    }
    Ok(chat.end())
}

/// A request without a model's name is refused here: the endpoint's own words are for clients.
pub(super) fn check_model(model: &str) -> Outcome<()> {
    if model.trim().is_empty() {
        return Err(Failure::new(ErrorCode::InvalidArgument, "the name of the model is missing")
            .hint("list the models with: flm models list"));
    }
    Ok(())
}

/// There is nothing to ask.
pub(super) fn no_prompt() -> Failure {
    Failure::new(ErrorCode::InvalidArgument, "there is no question to ask")
        .hint("give it with --prompt TEXT or --prompt-file FILE, or pipe it in")
}
