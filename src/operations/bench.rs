//! Measures the own endpoint with streams (SPEC §2 `flm bench`).
//!
//! Every stream is a real request over the real listener, so what is measured is what a client on this machine sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{interval, timeout};

use super::chat::check_model;
use super::context::Context;
use super::own_chat::OwnChat;
use super::own_endpoint::OwnEndpoint;
use super::progress::Reporter;
use crate::types::bench::{BenchError, BenchProgress, BenchReport};
use crate::types::calls::chat::{Bench, Chat};
use crate::types::chat::{ChatAnswer, ChatDelivery, Sampling};
use crate::types::engine::Capability;
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::request::TokenSource;
use crate::types::spread::Spread;

/// Under which label its requests show.
const LABEL: &str = "flm bench";
/// Asked when nobody says what: any model answers it at length, so that the limit on tokens ends the answer.
const PROMPT: &str = "Describe, in many sentences, a walk along a river from its spring to the sea.";
/// Most streams at once: above it the measuring side would be what is measured.
const MOST_STREAMS: u32 = 256;
/// Longest measurement.
const LONGEST: u64 = 24 * 3600;
/// How long requests that were begun in time may still run when the time is over.
const GRACE: Duration = Duration::from_mins(2);
/// Pause of a stream after a failure, so that an endpoint that refuses is not flooded.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
/// How often progress is told.
const TELL: Duration = Duration::from_millis(250);
/// Different errors that are told apart; an engine may put anything into its messages.
const ERRORS: usize = 20;

/// What was measured so far.
#[derive(Default)]
struct Found {
    answers: Vec<Measured>,
    errors: BTreeMap<String, u64>,
    failed: u64,
}

/// One whole answer.
struct Measured {
    first_token_ms: Option<f64>,
    total_ms: f64,
    tokens_per_second: Option<f64>,
    completion: u64,
    source: TokenSource,
}

/// Measures; tells how far it is four times a second. Dropping the future ends the engine's work.
///
/// # Errors
/// `INVALID_ARGUMENT` for numbers that make no sense; `NOT_FOUND` when no proxy runs or no model chats; what the endpoint
/// answered to the first request, which is not measured.
pub async fn run(context: &Arc<Context>, call: Bench, reporter: Reporter<Bench>) -> Outcome<BenchReport> {
    check(&call)?;
    let endpoint = OwnEndpoint::open(context, LABEL)?;
    let model = match &call.model {
        Some(model) => model.clone(),
        None => first_chat_model(context)?,
    };
    let chat = Chat {
        model: model.clone(),
        prompt: call.prompt.clone().unwrap_or_else(|| PROMPT.to_owned()),
        delivery: ChatDelivery::Streamed,
        sampling: Sampling { max_tokens: Some(call.max_tokens), ..Sampling::default() },
        ..Chat::default()
    };
    reporter.send(&BenchProgress::WarmingUp { model: model.clone() }).await;
    ask(&endpoint, &chat).await?;

    let clock = &endpoint.clock;
    let started = clock.monotonic();
    let until = started + Duration::from_secs(call.seconds);
    let mut found = Found::default();
    let mut running: FuturesUnordered<_> = (0..call.concurrency).map(|_| measured(&endpoint, &chat, None)).collect();
    let mut ticks = interval(TELL);
    let last = started + Duration::from_secs(call.seconds) + GRACE;
    let mut ended = started;
    while !running.is_empty() {
        let left = last.saturating_duration_since(clock.monotonic());
        tokio::select! {
            outcome = timeout(left, running.next()) => {
                let Ok(Some(outcome)) = outcome else { break };
                ended = clock.monotonic();
                let pause = outcome.is_err().then_some(AFTER_FAILURE);
                found.note(outcome);
                if ended < until {
                    running.push(measured(&endpoint, &chat, pause));
                }
            }
            _ = ticks.tick() => reporter.tell(&found.progress(started, clock.monotonic())),
        }
    }
    Ok(found.report(&endpoint, model, call.concurrency, ended.saturating_duration_since(started), running.len()))
}

fn check(call: &Bench) -> Outcome<()> {
    let wrong = |what: &str| Err(Failure::new(ErrorCode::InvalidArgument, what));
    if let Some(model) = &call.model {
        check_model(model)?;
    }
    if !(1..=MOST_STREAMS).contains(&call.concurrency) {
        return wrong("the number of streams at once must be 1 to 256");
    }
    if !(1..=LONGEST).contains(&call.seconds) {
        return wrong("a measurement lasts 1 second to 24 hours");
    }
    if call.max_tokens == 0 {
        return wrong("an answer has at least one token");
    }
    Ok(())
}

/// A model that chats: one in memory before the others, as loading is not what is measured.
pub(super) fn first_chat_model(context: &Context) -> Outcome<String> {
    let models = context.registry.models();
    let chats = || models.iter().filter(|model| model.available && model.capabilities.contains(&Capability::Chat));
    let loaded = chats().find(|model| model.loaded == Some(true));
    loaded.or_else(|| chats().next()).map(|model| model.listed_as.to_string()).ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, "no engine has a model that chats now")
            .hint("see the state of the engines with: flm engines list")
    })
}

async fn ask(endpoint: &OwnEndpoint, chat: &Chat) -> Outcome<ChatAnswer> {
    let mut running = OwnChat::begin(endpoint, chat).await?;
    while running.next().await?.is_some() {}
    Ok(running.end())
}

async fn measured(endpoint: &OwnEndpoint, chat: &Chat, pause: Option<Duration>) -> Outcome<Measured> {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
    let answer = ask(endpoint, chat).await?;
    Ok(Measured {
        first_token_ms: answer.timing.first_token_ms,
        total_ms: answer.timing.total_ms,
        tokens_per_second: answer.timing.tokens_per_second,
        completion: answer.usage.completion,
        source: answer.usage.source,
    })
}

impl Found {
    fn note(&mut self, outcome: Outcome<Measured>) {
        match outcome {
            Ok(answer) => self.answers.push(answer),
            Err(failure) => {
                self.failed += 1;
                let known = self.errors.len() < ERRORS || self.errors.contains_key(&failure.message);
                let message = if known { failure.message } else { "others".to_owned() };
                *self.errors.entry(message).or_default() += 1;
            }
        }
    }

    fn tokens(&self) -> u64 {
        self.answers.iter().map(|answer| answer.completion).sum()
    }

    fn progress(&self, started: Instant, now: Instant) -> BenchProgress {
        BenchProgress::Measuring {
            elapsed_ms: u64::try_from(now.saturating_duration_since(started).as_millis()).unwrap_or(u64::MAX),
            completed: self.answers.len() as u64,
            failed: self.failed,
            tokens: self.tokens(),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn report(
        self,
        endpoint: &OwnEndpoint,
        model: String,
        concurrency: u32,
        elapsed: Duration,
        unfinished: usize,
    ) -> BenchReport {
        let (completed, tokens) = (self.answers.len() as u64, self.tokens());
        let per_second = |count: u64| if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() };
        let estimated = self.answers.iter().filter(|answer| answer.source == TokenSource::Estimated).count();
        let mut errors: Vec<_> =
            self.errors.into_iter().map(|(message, count)| BenchError { message, count }).collect();
        errors.sort_by_key(|error| std::cmp::Reverse(error.count));
        BenchReport {
            model,
            endpoint: endpoint.url.clone(),
            concurrency,
            elapsed_ms: elapsed.as_secs_f64() * 1000.0,
            completed,
            errors,
            unfinished: unfinished as u64,
            requests_per_second: per_second(completed),
            completion_tokens: tokens,
            estimated: estimated as u64,
            tokens_per_second: per_second(tokens),
            first_token_ms: Spread::of(self.answers.iter().filter_map(|answer| answer.first_token_ms)),
            total_ms: Spread::of(self.answers.iter().map(|answer| answer.total_ms)),
            stream_tokens_per_second: Spread::of(self.answers.iter().filter_map(|answer| answer.tokens_per_second)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Bench {
        Bench { model: None, concurrency: 1, seconds: 1, max_tokens: 1, prompt: None }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        assert_eq!(check(&call()), Ok(()));
        for bad in [
            Bench { concurrency: 0, ..call() },
            Bench { concurrency: 257, ..call() },
            Bench { seconds: 0, ..call() },
            Bench { seconds: LONGEST + 1, ..call() },
            Bench { max_tokens: 0, ..call() },
            Bench { model: Some(" ".to_owned()), ..call() },
        ] {
            assert_eq!(check(&bad).expect_err("refused").code, ErrorCode::InvalidArgument, "{bad:?}");
        }
    }

    #[test]
    fn errors_are_counted_by_what_they_say_and_their_number_is_bounded() {
        let mut found = Found::default();
        let failed = |message: String| Err(Failure::new(ErrorCode::EngineApiError, message));
        for number in 0..100 {
            found.note(failed(format!("error {number}")));
            found.note(failed("error 0".to_owned()));
        }
        assert_eq!((found.failed, found.errors.len()), (200, ERRORS + 1));
        assert_eq!((found.errors["error 0"], found.errors["others"]), (101, 80));
    }
}
