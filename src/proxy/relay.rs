//! Last stage: puts the request to an engine, and to the next one until the first byte (SPEC §3.5, §3.8).
//!
//! [`attempt`] is one future that owns engine call and failover. If it gives the engine's first event before the
//! heartbeat time, a failure is an ordinary status; otherwise 200 is answered, the body takes the same future
//! over, writes comments while it waits, and a later failure is told inside the stream. In-flight count, connection
//! and account are values inside it: dropping the body drops the engine's work.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::account::Stage;
use super::budget;
use super::exchange::{Answer, Exchange, Parsed, Resolved};
use super::limits::{AbsentModels, Revoking};
use super::passed::Passed;
use super::prompt::{self, PromptVariables};
use super::queue;
use super::refusal::Refusal;
use super::stream::Stream;
use super::worker::Worker;
use crate::engines::adapter::{AnswerReader, Delivery, EngineError, EngineFault, EngineRequest, Prepared, Session};
use crate::engines::manage::ManageError;
use crate::engines::registry::InFlight;
use crate::engines::residency::Brought;
use crate::engines::resolution::Candidate;
use crate::engines::slots::Slot;
use crate::guard::key_table::KeyEntry;
use crate::net::message::Fields;
use crate::net::pool::{Answered, Repeat, SendError, UpstreamBody};
use crate::types::audit::AuditEvent;
use crate::types::ids::EngineId;
use crate::types::request::{TokenSource, TokenUsage};
use crate::types::text::escape;
use crate::wire::client::ClientWriter;
use crate::wire::json_body::JsonBody;

/// Largest whole answer that is buffered: a batch of embeddings can be tens of MiB.
const MAX_ANSWER: usize = 64 << 20;
/// Largest error document that is read.
const MAX_FAULT: usize = 64 << 10;

/// What an attempt needs, owned, so that a stream's body can take it over.
pub(super) struct Order {
    pub(super) worker: Arc<Worker>,
    resolved: Resolved,
    first_byte: Duration,
    gap: Duration,
    pub(super) queue_length: u32,
    pub(super) queue_wait: Duration,
    circuit_failures: u32,
    absent_models: AbsentModels,
    /// What each engine is told of the request's trace.
    trace_fields: Vec<(HeaderName, HeaderValue)>,
    /// What is told if the key's budget is spent when its turn comes.
    pub(super) spent: Option<Box<AuditEvent>>,
}

impl Order {
    /// Where it may run, in order.
    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.resolved.candidates
    }

    /// On whose behalf.
    pub(super) fn key(&self) -> &KeyEntry {
        &self.resolved.parsed.key
    }
}

/// An engine that has begun to answer.
pub(super) struct Started {
    pub(super) trace: Trace,
    pub(super) reader: Box<dyn AnswerReader>,
    pub(super) body: UpstreamBody,
    /// What the client gets first.
    pub(super) out: Vec<Bytes>,
    /// What is wrong with the answer after that.
    pub(super) fault: Option<Refusal>,
    pub(super) gap: Duration,
    pub(super) in_flight: InFlight,
}

/// Which engine was tried last, and when.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace {
    /// With its own name for the model.
    asked: Option<(EngineId, Arc<str>)>,
    sent: Option<Instant>,
    first_byte: Option<Instant>,
    first_token: Option<Instant>,
}

/// No engine could serve it.
pub(super) struct Failed {
    pub(super) trace: Trace,
    pub(super) refusal: Refusal,
}

/// The future of a streamed attempt.
pub(super) type Attempt = Pin<Box<dyn Future<Output = Result<Started, Failed>> + Send>>;

impl Trace {
    /// The engine that was tried last.
    fn engine(&self) -> Option<&EngineId> {
        self.asked.as_ref().map(|(engine, _)| engine)
    }

    /// Writes what happened into the account.
    pub(super) fn note(&self, account: &mut super::account::Account) {
        if let Some((engine, model)) = &self.asked {
            account.asked(engine.clone(), model.clone());
        }
        for (stage, at) in
            [(Stage::Sent, self.sent), (Stage::FirstByte, self.first_byte), (Stage::FirstToken, self.first_token)]
        {
            if let Some(at) = at {
                account.mark_at(stage, at);
            }
        }
    }
}

/// Answers a resolved request.
pub(super) async fn answer(exchange: &mut Exchange, mut resolved: Resolved) -> Result<Answer, Refusal> {
    inject_prompt(exchange, &mut resolved)?;
    let delivery = resolved.parsed.delivery;
    let client = std::mem::take(&mut resolved.parsed.client);
    let order = Order {
        worker: exchange.peer.worker.clone(),
        spent: budget::spent_meanwhile(exchange, &resolved.parsed.key),
        resolved,
        first_byte: exchange.limits.engine_first_byte,
        gap: exchange.limits.engine_gap,
        queue_length: exchange.limits.queue_length,
        queue_wait: exchange.limits.queue_wait,
        circuit_failures: exchange.limits.circuit_failures,
        absent_models: exchange.limits.absent_models,
        trace_fields: exchange.account.trace_fields(),
    };
    if order.resolved.only_loads() {
        return Box::pin(load_only(exchange, &order, client)).await;
    }
    match delivery {
        Delivery::Whole => whole(exchange, order, client).await,
        Delivery::Stream { .. } => stream(exchange, order, client).await,
        Delivery::Bytes => sound(exchange, order).await,
    }
}

/// The answer to a request that had nothing to say: its client's dialect tells that the model is there.
const LOADED: Bytes = Bytes::from_static(
    br#"{"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}"#,
);

/// Has the model brought into memory, and nothing more. One that is there, or whose engine does not tell, is answered for at
/// once.
async fn load_only(exchange: &mut Exchange, order: &Order, mut client: ClientWriter) -> Result<Answer, Refusal> {
    let mut last = None;
    for candidate in order.candidates() {
        let id = &candidate.engine.record.id;
        exchange.account.asked(id.clone(), candidate.model().clone());
        let loaded = if candidate.target.residency.is_absent() { load(order, candidate).await } else { Ok(()) };
        match loaded {
            Ok(()) => {
                let body = client.whole(LOADED).map_err(|fault| unreadable(Some(id), &fault.to_string()))?;
                return Ok(Answer::json(body));
            }
            Err(Miss::Next(refusal) | Miss::Final(refusal)) => last = Some(refusal),
        }
    }
    Err(last.unwrap_or_else(|| Refusal::engine_unavailable("No engine can serve this model now.")))
}

async fn whole(exchange: &mut Exchange, order: Order, mut client: ClientWriter) -> Result<Answer, Refusal> {
    let mut trace = Trace::default();
    let result = first_that_serves(&order, &mut trace, take_whole).await;
    trace.note(&mut exchange.account);
    let WholeAnswer { document, media_type, usage, in_flight } = result?;
    exchange.account.tokens(usage, exchange.account.latest());
    // Whoever waits for the slot is asked whether the budget is spent (SPEC §5.7): not before it says so.
    drop(in_flight);
    let body = client.whole(document).map_err(|fault| unreadable(trace.engine(), &fault.to_string()))?;
    Ok(Answer::Document { status: StatusCode::OK, content_type: media_type, body })
}

/// Relays a sound as it comes: nothing in it can be read, counted or mended.
async fn sound(exchange: &mut Exchange, order: Order) -> Result<Answer, Refusal> {
    let revoked = revoked(exchange, &order);
    let mut trace = Trace::default();
    let result = first_that_serves(&order, &mut trace, begin_sound).await;
    trace.note(&mut exchange.account);
    let Sound { content_type, first, body, in_flight } = result?;
    let passed = Passed::begun(first, body, in_flight, order.gap, revoked);
    Ok(Answer::Passed { status: StatusCode::OK, content_type: Some(content_type), body: Box::new(passed) })
}

/// What ends an answer when its key is revoked.
fn revoked(exchange: &Exchange, order: &Order) -> CancellationToken {
    match exchange.limits.revoking {
        Revoking::EndsStreams => order.resolved.parsed.key.counts.ended.clone(),
        Revoking::LetsStreamsEnd => CancellationToken::new(),
    }
}

async fn stream(exchange: &mut Exchange, order: Order, client: ClientWriter) -> Result<Answer, Refusal> {
    let heartbeat = exchange.limits.heartbeat;
    let revoked = revoked(exchange, &order);
    let mut attempt: Attempt = Box::pin(attempt(order));
    let stream = match tokio::time::timeout(heartbeat, &mut attempt).await {
        Ok(Ok(started)) => Stream::flowing(started, client, exchange.id, revoked, heartbeat),
        Ok(Err(Failed { trace, refusal })) => {
            trace.note(&mut exchange.account);
            return Err(refusal);
        }
        Err(_elapsed) => Stream::waiting(attempt, client, exchange.id, revoked, heartbeat),
    };
    Ok(Answer::Events(Box::new(stream)))
}

/// One try over all candidates, up to the first bytes for the client.
async fn attempt(order: Order) -> Result<Started, Failed> {
    let mut trace = Trace::default();
    match first_that_serves(&order, &mut trace, begin_stream).await {
        Ok(Begun { reader, body, out, fault, in_flight }) => {
            Ok(Started { trace, reader, body, out, fault, gap: order.gap, in_flight })
        }
        Err(refusal) => Err(Failed { trace, refusal }),
    }
}

/// Why one engine did not serve.
enum Miss {
    /// The next one may.
    Next(Refusal),
    /// No other would.
    Final(Refusal),
}

impl From<EngineFault> for Miss {
    fn from(fault: EngineFault) -> Self {
        let retryable = fault.retryable;
        let refusal = Refusal::from(fault);
        if retryable { Self::Next(refusal) } else { Self::Final(refusal) }
    }
}

/// An engine's answer with status 200, and what reads it.
struct Accepted200 {
    reader: Box<dyn AnswerReader>,
    fields: Fields,
    body: UpstreamBody,
    in_flight: InFlight,
    deadline: tokio::time::Instant,
}

/// Tries the candidates in order; the last miss is the refusal.
async fn first_that_serves<T>(
    order: &Order,
    trace: &mut Trace,
    take: impl AsyncFn(&Order, &mut Trace, Accepted200) -> Result<T, Miss>,
) -> Result<T, Refusal> {
    let mut last: Option<Refusal> = None;
    let mut tried = Vec::new();
    loop {
        let (at, slot) = match queue::slot(order, &tried).await {
            Ok(Some(found)) => found,
            Ok(None) => break,
            // What an engine said tells more than that the others are busy.
            Err(refusal) => return Err(last.unwrap_or(refusal)),
        };
        let Some(candidate) = order.candidates().get(at) else { break };
        trace.asked = Some((candidate.engine.record.id.clone(), candidate.model().clone()));
        let result = match call(order, trace, candidate, slot).await {
            Ok(accepted) => take(order, trace, accepted).await,
            Err(miss) => Err(miss),
        };
        match result {
            Ok(taken) => return Ok(taken),
            Err(Miss::Final(refusal)) => return Err(refusal),
            Err(Miss::Next(refusal)) => {
                tracing::info!(engine = %candidate.engine.record.id, reason = %refusal.message, "trying the next engine");
                last = Some(refusal);
                tried.push(at);
            }
        }
    }
    Err(last.unwrap_or_else(|| Refusal::engine_unavailable("No engine can serve this model now.")))
}

/// Sends the request to one engine and waits for a head with status 200.
async fn call(order: &Order, trace: &mut Trace, candidate: &Candidate, slot: Slot) -> Result<Accepted200, Miss> {
    let Parsed { inference, media, extras, delivery, .. } = order.resolved.parsed.as_ref();
    let engine = &candidate.engine;
    let shared = &order.worker.shared;
    let body = with_profile(order, candidate)?;
    let prepared = engine
        .adapter
        .prepare(&EngineRequest {
            route: inference.route,
            body: &body,
            files: &media.files,
            extras: extras.as_deref(),
            model: candidate.model(),
            delivery: *delivery,
            api_key: engine.api_key.as_ref(),
        })
        .map_err(|error| match error {
            // Another engine may offer it.
            crate::engines::adapter::PrepareError::NotOffered(_) => Miss::Next(error.into()),
            _ => Miss::Final(error.into()),
        })?;
    let in_flight = InFlight::in_slot(engine.clone(), slot, candidate.target.residency.use_it());
    budget::still_open(order, &engine.record.id).map_err(Miss::Final)?;
    if order.absent_models == AbsentModels::AreLoaded && candidate.target.residency.is_absent() {
        // Boxed: it is rare, and every stream would carry its state else.
        Box::pin(load(order, candidate)).await?;
    }
    let Prepared { mut request, reader } = prepared;
    request.fields.extend(order.trace_fields.iter().cloned());
    let now = tokio::time::Instant::now();
    trace.sent = Some(shared.clock.monotonic_at(now.into_std()));
    let deadline = now + order.first_byte;
    let sent =
        tokio::time::timeout_at(deadline, order.worker.pool.send(&engine.upstream, request, Repeat::Harmless)).await;
    let id = &engine.record.id;
    let answered = match sent {
        Err(_elapsed) => {
            failed(order, candidate);
            return Err(Miss::Next(no_first_byte(id, order.first_byte)));
        }
        Ok(Err(error)) => {
            let reason = error.to_string();
            shared.registry.observed(id, Err(&EngineError::Network(reason.clone())));
            let refusal = match error {
                SendError::Connect { .. } => {
                    Refusal::engine_unavailable(format!("The engine '{id}' does not answer: {reason}."))
                }
                SendError::BeforeAnswer { .. } => Refusal::engine_error(format!("The engine '{id}' failed: {reason}.")),
            };
            return Err(Miss::Next(refusal));
        }
        Ok(Ok(answered)) => answered,
    };
    if answered.status != StatusCode::OK {
        // Boxed: it is rare, and every stream would carry its state else.
        return Err(Box::pin(read_fault(order, candidate, answered, deadline)).await);
    }
    shared.registry.observed(id, Ok(()));
    candidate.target.circuit.succeeded();
    if let Some(conversation) = &order.resolved.conversation {
        shared.affinity.served(conversation, id);
    }
    let Answered { fields, body, .. } = answered;
    Ok(Accepted200 { reader, fields, body, in_flight, deadline })
}

/// Has the engine bring the model into memory; of all requests that need it at once, one asks.
async fn load(order: &Order, candidate: &Candidate) -> Result<(), Miss> {
    let (engine, model) = (&candidate.engine, candidate.model());
    let id = &engine.record.id;
    let ask = async {
        tracing::info!(engine = %id, model = %escape(model), "loading a model on demand");
        let session = Session {
            pool: &order.worker.pool,
            upstream: &engine.upstream,
            api_key: engine.api_key.as_ref(),
            deadline: order.first_byte,
        };
        match engine.adapter.load(session, model).await {
            Ok(()) => {
                order.worker.shared.registry.reread_models(id);
                Ok(Brought::Loaded)
            }
            Err(ManageError::NotOffered(_)) => Ok(Brought::NotOffered),
            Err(error) => Err(error),
        }
    };
    candidate.target.residency.load_once(ask).await.map_err(|error| {
        let reason = escape(&error.to_string()).into_owned();
        Miss::Next(Refusal::engine_unavailable(format!("The engine '{id}' could not load the model: {reason}.")))
    })
}

/// Counts a failure that says that the engine cannot serve now; after too many in a row it gets no requests for a while.
fn failed(order: &Order, candidate: &Candidate) {
    let shared = &order.worker.shared;
    if let Some(rest) = candidate.target.circuit.failed(shared.clock.monotonic(), order.circuit_failures) {
        let (id, model) = (&candidate.engine.record.id, candidate.model());
        tracing::warn!(engine = %id, model = %escape(model), seconds = rest.as_secs(), "fails again and again: gets no requests");
        shared.registry.failing(id, format!("{} failed {} times in a row", escape(model), order.circuit_failures));
    }
}

async fn read_fault(order: &Order, candidate: &Candidate, answered: Answered, deadline: tokio::time::Instant) -> Miss {
    let Answered { status, fields, body } = answered;
    let limited = http_body_util::Limited::new(body, MAX_FAULT).collect();
    // An error document that does not come is an error all the same.
    let document = match tokio::time::timeout_at(deadline, limited).await {
        Ok(Ok(document)) => document.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let fault = candidate.engine.adapter.fault(status, &fields.map(), &document);
    match (fault.status, fault.retry_after) {
        (429 | 503, Some(seconds)) => {
            let wish = Duration::from_secs(seconds.into());
            candidate.target.circuit.rest(order.worker.shared.clock.monotonic(), wish);
        }
        (502..=504, _) => failed(order, candidate),
        _ => {}
    }
    fault.into()
}

/// An answer that was read to its end.
struct WholeAnswer {
    document: Bytes,
    media_type: &'static str,
    usage: TokenUsage,
    /// Its place at the engine, until its tokens are counted.
    in_flight: InFlight,
}

/// Reads a whole answer.
async fn take_whole(order: &Order, trace: &mut Trace, accepted: Accepted200) -> Result<WholeAnswer, Miss> {
    let Accepted200 { mut reader, mut body, in_flight, mut deadline, .. } = accepted;
    let id = in_flight.engine().record.id.clone();
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_elapsed) if first.is_none() => return Err(Miss::Next(no_first_byte(&id, order.first_byte))),
            Err(_elapsed) => return Err(Miss::Final(stalled(&id, order.gap))),
            Ok(None) => break,
            Ok(Some(Err(error))) if first.is_none() => return Err(Miss::Next(broke_off(&id, &error.to_string()))),
            Ok(Some(Err(error))) => return Err(Miss::Final(broke_off(&id, &error.to_string()))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        trace.first_byte.get_or_insert_with(|| order.worker.shared.clock.monotonic());
        if rest.len() + data.len() > MAX_ANSWER {
            return Err(Miss::Final(Refusal::engine_error(format!(
                "The answer of the engine '{id}' is larger than {MAX_ANSWER} bytes."
            ))));
        }
        match &first {
            None => first = Some(data),
            Some(begun) => {
                if rest.is_empty() {
                    rest.extend_from_slice(begun);
                }
                rest.extend_from_slice(&data);
            }
        }
        // Most answers come in one piece.
        if body.is_end_stream() {
            break;
        }
        deadline = tokio::time::Instant::now() + order.gap;
    }
    let whole = if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() };
    let document = reader.whole(whole)?;
    Ok(WholeAnswer { document, media_type: reader.media_type(), usage: usage(reader.as_ref()), in_flight })
}

/// A sound that has begun to come.
struct Sound {
    content_type: HeaderValue,
    first: Bytes,
    body: UpstreamBody,
    in_flight: InFlight,
}

/// Media types under which engines send sounds (OpenAI's API reference, Create speech: mp3, opus, aac, flac, wav, pcm). Nothing else is told on:
/// a page would be one of FLM's own to a browser.
const SOUNDS: &[&str] = &[
    "audio/mpeg",
    "audio/mp3",
    "audio/opus",
    "audio/ogg",
    "audio/aac",
    "audio/flac",
    "audio/x-flac",
    "audio/wav",
    "audio/x-wav",
    "audio/wave",
    "audio/vnd.wave",
    "audio/pcm",
    "audio/l16",
    "audio/basic",
    "audio/mp4",
    "audio/webm",
    "application/octet-stream",
];

/// Reads a sound up to its first bytes.
async fn begin_sound(order: &Order, trace: &mut Trace, accepted: Accepted200) -> Result<Sound, Miss> {
    let Accepted200 { fields, mut body, in_flight, deadline, .. } = accepted;
    let content_type = fields.get(&CONTENT_TYPE);
    let id = in_flight.engine().record.id.clone();
    let told = content_type.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (true, Some(content_type)) = (SOUNDS.contains(&essence.as_str()), content_type.clone()) else {
        let shown = escape(&super::sanity::cut(told, 80)).into_owned();
        let why = format!("The engine '{id}' answered with '{shown}' instead of a sound.");
        return Err(Miss::Final(Refusal::engine_error(why)));
    };
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => return Err(Miss::Next(no_first_byte(&id, order.first_byte))),
            Ok(None) => {
                return Err(Miss::Final(Refusal::engine_error(format!("The engine '{id}' sent an empty sound."))));
            }
            Ok(Some(Err(error))) => return Err(Miss::Next(broke_off(&id, &error.to_string()))),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(first) = frame.into_data() else { continue };
        if !first.is_empty() {
            trace.first_byte.get_or_insert_with(|| order.worker.shared.clock.monotonic());
            return Ok(Sound { content_type, first, body, in_flight });
        }
    }
}

/// A streamed answer that has begun.
struct Begun {
    reader: Box<dyn AnswerReader>,
    body: UpstreamBody,
    out: Vec<Bytes>,
    fault: Option<Refusal>,
    in_flight: InFlight,
}

/// Reads a streamed answer up to the first bytes for the client. A fault that came together with them is told after them,
/// as it is when it comes later.
async fn begin_stream(order: &Order, trace: &mut Trace, accepted: Accepted200) -> Result<Begun, Miss> {
    let Accepted200 { mut reader, mut body, in_flight, deadline, .. } = accepted;
    let id = in_flight.engine().record.id.clone();
    let clock = &order.worker.shared.clock;
    let mut out = Vec::with_capacity(4);
    let mut read = Ok(());
    while out.is_empty() {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Err(_elapsed) => return Err(Miss::Next(no_first_byte(&id, order.first_byte))),
            Ok(Some(Err(error))) => return Err(Miss::Next(broke_off(&id, &error.to_string()))),
            Ok(Some(Ok(frame))) => frame.into_data().ok(),
            Ok(None) => None,
        };
        let Some(data) = frame else {
            read = reader.finish(&mut out);
            break;
        };
        trace.first_byte.get_or_insert_with(|| clock.monotonic());
        read = reader.push(data, &mut out);
        if read.is_err() {
            break;
        }
    }
    let fault = match read {
        Err(fault) if out.is_empty() => return Err(fault.into()),
        read => read.err().map(Refusal::from),
    };
    if reader.progress().deltas > 0 {
        trace.first_token = Some(clock.monotonic());
    }
    Ok(Begun { reader, body, out, fault, in_flight })
}

/// Places the key's or the route's prompt before the client's messages (SPEC §8.1).
pub(super) fn inject_prompt(exchange: &Exchange, resolved: &mut Resolved) -> Result<(), Refusal> {
    let shared = &exchange.peer.worker.shared;
    let prompts = shared.prompts.load();
    let parsed = &mut resolved.parsed;
    let view = &parsed.key.record.view;
    let Some(template) = prompts.find(parsed.inference.name, view.id) else { return Ok(()) };
    let variables = PromptVariables { now: shared.clock.wall(), model: &parsed.model, key_label: &view.label };
    let edit = prompt::injection(&parsed.body, &prompt::render(template, variables))?;
    parsed.body = parsed.body.with(&[edit]);
    Ok(())
}

/// The body with the profile that the candidate's model has, if any (SPEC §8.2).
fn with_profile<'a>(order: &'a Order, candidate: &Candidate) -> Result<Cow<'a, JsonBody>, Miss> {
    let Parsed { inference, body, .. } = order.resolved.parsed.as_ref();
    let engine = &candidate.engine;
    let profiles = order.worker.shared.profiles.load();
    match profiles.find(&engine.record.id, candidate.model()) {
        None => Ok(Cow::Borrowed(body)),
        Some(profile) => {
            let applied = profile.apply(body, inference.route, &engine.adapter.info().parameters);
            applied.map(Cow::Owned).map_err(|fault| Miss::Final(fault.into()))
        }
    }
}

/// Tokens of an answer: the engine's own count, else the deltas that were seen (SPEC, accounting).
pub(super) fn usage(reader: &dyn AnswerReader) -> TokenUsage {
    let progress = reader.progress();
    match progress.usage {
        Some(usage) => usage,
        None if progress.deltas > 0 => {
            TokenUsage { completion: progress.deltas, source: TokenSource::Estimated, ..TokenUsage::default() }
        }
        None => TokenUsage::default(),
    }
}

fn no_first_byte(id: &EngineId, limit: Duration) -> Refusal {
    Refusal::engine_timeout(format!("The engine '{id}' sent nothing for {} s.", limit.as_secs()))
}

pub(super) fn stalled(id: &EngineId, gap: Duration) -> Refusal {
    Refusal::engine_timeout(format!("The engine '{id}' stopped in the middle of its answer for {} s.", gap.as_secs()))
}

/// An answer that cannot be put into the client's words.
pub(super) fn unreadable(id: Option<&EngineId>, reason: &str) -> Refusal {
    let id = id.map_or("", EngineId::as_str);
    Refusal::engine_error(format!("The engine '{id}' sent an answer that FLM cannot read: {reason}."))
}

pub(super) fn broke_off(id: &EngineId, reason: &str) -> Refusal {
    Refusal::engine_error(format!("The engine '{id}' broke its answer off: {reason}."))
}
