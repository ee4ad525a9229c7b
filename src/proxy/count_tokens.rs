//! `POST /v1/messages/count_tokens`: asks the engine that would answer, and guesses only where none can count (SPEC §4.1).
//!
//! Called by the pipeline after the model is resolved, so that rights and prompts are those of the real request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::exchange::{Answer, Exchange, Resolved};
use super::refusal::Refusal;
use super::relay;
use crate::engines::adapter::Session;
use crate::engines::registry::InFlight;
use crate::wire::token_estimate;

/// Tells how the count came about: `engine`, or `estimate`.
const COUNTED_BY: HeaderName = HeaderName::from_static("x-flm-token-count");

/// Time for an engine to count. Counting needs no model's work: tokenisers take milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers with `{"input_tokens": n}`.
pub(super) async fn answer(exchange: &mut Exchange, mut resolved: Resolved) -> Result<Answer, Refusal> {
    // The prompt that the real request would get is part of what it costs.
    resolved.parsed.inference.name = "messages";
    relay::inject_prompt(exchange, &mut resolved)?;
    let (tokens, by) = if let Some(tokens) = by_engine(exchange, &resolved).await {
        (tokens, "engine")
    } else {
        let chat: Value = serde_json::from_slice(resolved.parsed.body.bytes()).unwrap_or_default();
        (token_estimate::prompt_tokens(&chat), "estimate")
    };
    exchange.headers.push((COUNTED_BY, HeaderValue::from_static(by)));
    Ok(Answer::json(Bytes::from(json!({"input_tokens": tokens}).to_string())))
}

/// The first engine that can tell.
async fn by_engine(exchange: &Exchange, resolved: &Resolved) -> Option<u64> {
    let pool = &exchange.peer.worker.pool;
    for candidate in &resolved.candidates {
        let engine = &candidate.engine;
        let _in_flight = InFlight::on(engine.clone());
        let session =
            Session { pool, upstream: &engine.upstream, api_key: engine.api_key.as_ref(), deadline: DEADLINE };
        match engine.adapter.count_tokens(session, &resolved.parsed.body, candidate.model()).await {
            Ok(Some(tokens)) => return Some(tokens),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(engine = %engine.record.id, %error, "an engine could not count a prompt's tokens");
            }
        }
    }
    None
}
