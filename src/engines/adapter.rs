//! What an engine adapter is: one file, one static, one line in `registry::ADAPTERS`.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::engines::inference_route::InferenceRoute;
use crate::engines::manage::{ManageError, Report};
use crate::engines::own_routes::OwnRoute;
use crate::net::message::Outgoing;
use crate::net::pool::Pool;
use crate::net::upstream::Upstream;
use crate::types::engine::{Capability, EngineKind};
use crate::types::request::TokenUsage;
use crate::types::secret::Secret;
use crate::wire::form::FormFile;
use crate::wire::json_body::{BodyFault, JsonBody};
use crate::wire::pivot::Extras;
use crate::wire::translate::TranslateFault;

/// A boxed future, because adapters are trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What an adapter declares about its engine.
#[derive(Debug)]
pub struct AdapterInfo {
    /// `ollama`.
    pub kind: EngineKind,
    /// "Ollama".
    pub title: &'static str,
    /// Ports to look at, the default first; empty when it is only added by hand.
    pub ports: &'static [u16],
    /// Names of its programs on PATH.
    pub binaries: &'static [&'static str],
    /// Environment variables that may tell where it listens (see ENGINES.md §2).
    pub address_variables: &'static [&'static str],
    /// What it can do at best.
    pub capabilities: &'static [Capability],
    /// Its words for what a model profile sets (SPEC §8.2).
    pub parameters: ParameterWords,
    /// What it makes of a request without a message.
    pub empty_requests: EmptyRequests,
    /// What pass-through may reach of its own API; everything else is refused (SPEC §4.1).
    pub own_routes: &'static [OwnRoute],
}

/// What an engine makes of a request without a message, which Ollama's clients send to have a model loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyRequests {
    /// It loads the model, or unloads it.
    Load,
    /// Nothing that was meant: FLM has it load the model, where it can.
    Nothing,
}

/// An engine's words for the parameters of a model profile that are not the same everywhere (ENGINES.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterWords {
    /// The penalty for repeating; `None` when it takes none with a request.
    pub repeat_penalty: Option<&'static str>,
    /// Tokens of context; `None` when it is set where the engine or the model is started.
    pub context_length: Option<&'static str>,
    /// Where its own parameters stand.
    pub own: OwnParameters,
}

/// Where an engine reads parameters that OpenAI does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnParameters {
    /// Beside OpenAI's.
    TopLevel,
    /// In an object `options`, as Ollama does.
    Options,
}

/// Everything needed to ask one engine something. Adapters are handed it per call and never store it.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// Connections.
    pub pool: &'a Pool,
    /// Where it is.
    pub upstream: &'a Upstream,
    /// The engine's own key.
    pub api_key: Option<&'a Secret>,
    /// Time for the whole question.
    pub deadline: Duration,
}

/// Who answered (ENGINES.md §2, "Telling them apart").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The engine's own version, where it tells; outside text.
    pub version: Option<String>,
    /// It is this engine but wants a key.
    pub locked: bool,
}

/// A model as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineModel {
    /// The engine's own name; outside text.
    pub name: Arc<str>,
    /// What it can do, as far as the engine tells, else what the engine can at best.
    pub capabilities: BTreeSet<Capability>,
    /// Tokens.
    pub context_length: Option<u32>,
    /// Bytes on disk.
    pub size_bytes: Option<u64>,
    /// Such as `7B`.
    pub parameters: Option<String>,
    /// Such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// In memory now, where the engine tells.
    pub loaded: Option<bool>,
    /// Requests that it runs at once, where the engine tells (SPEC §3.8).
    pub slots: ModelSlots,
}

/// How many requests a model runs at once, as the engine tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModelSlots {
    /// It does not.
    #[default]
    Untold,
    /// The engine has that many for all its models together.
    Shared(u32),
    /// The model has that many for itself.
    Own(u32),
}

/// Why a question to an engine failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Not reachable.
    #[error("{0}")]
    Network(String),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// 429 or 503: it is there but busy or loading.
    #[error("it answers {status}: {reason}")]
    Busy {
        /// The status.
        status: u16,
        /// The engine's words; outside text.
        reason: String,
    },
    /// 401 or 403: it wants a key.
    #[error("it wants an API key (status {0})")]
    Locked(u16),
    /// Any other answer that has the wrong shape.
    #[error("{0}")]
    Api(String),
}

/// Whether the client asked for a stream, and whether for usage in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// One JSON document.
    Whole,
    /// Server-sent events.
    Stream {
        /// `stream_options.include_usage`; FLM always asks the engine and strips the chunk otherwise.
        usage_wanted: bool,
    },
    /// Bytes of a sound, passed on as they come.
    Bytes,
}

/// A request for one engine, in OpenAI's shape.
#[derive(Debug, Clone, Copy)]
pub struct EngineRequest<'a> {
    /// Which route.
    pub route: InferenceRoute,
    /// The body, whatever the client speaks.
    pub body: &'a JsonBody,
    /// Files beside it, where the route takes a form.
    pub files: &'a [FormFile],
    /// What the client's own dialect says beyond it.
    pub extras: Option<&'a Extras>,
    /// The engine's own name for the model.
    pub model: &'a str,
    /// What the client wants back.
    pub delivery: Delivery,
    /// The engine's own key.
    pub api_key: Option<&'a Secret>,
}

/// A request ready to be sent to an engine, with the reader for its answer.
pub struct Prepared {
    /// In the engine's dialect, with content type, accept and the engine's own authorization.
    pub request: Outgoing,
    /// Reads the answer back into OpenAI's shape.
    pub reader: Box<dyn AnswerReader>,
}

/// What has been seen of an answer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswerProgress {
    /// Usage as the engine told it.
    pub usage: Option<TokenUsage>,
    /// Chunks that carried content, reasoning or tool calls.
    pub deltas: u64,
    /// The engine said that it is done (`[DONE]` or `done:true`).
    pub done: bool,
}

/// A failure told by an engine, or made by FLM when the engine broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineFault {
    /// Status for the client: the engine's own 4xx, 502 for what is the engine's fault, 503, 504, 429.
    pub status: u16,
    /// Code of SPEC §4.4, such as `engine_error`, or the engine's own 4xx code as text.
    pub code: String,
    /// OpenAI's `type`, such as `invalid_request_error` or `server_error`.
    pub kind: String,
    /// The engine's words; outside text.
    pub message: String,
    /// OpenAI's `param`.
    pub param: Option<String>,
    /// Whether another engine may be tried (connect errors, 502, 503, 504 and a loading 503; never a llama.cpp
    /// 500 or 501, ENGINES.md §5).
    pub retryable: bool,
    /// `retry-after` of the engine in seconds.
    pub retry_after: Option<u32>,
}

/// Turns an engine's answer into OpenAI's shape. Fed by the relay, in order; does no I/O.
pub trait AnswerReader: Send {
    /// Turns a whole answer with status 200 into the client's document.
    fn whole(&mut self, body: Bytes) -> Result<Bytes, EngineFault>;

    /// Takes a piece of a streamed answer and appends what the client gets: server-sent events, each `Bytes`
    /// written at once. Pieces end anywhere. An error event of the engine is returned as a fault.
    fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) -> Result<(), EngineFault>;

    /// The engine's body has ended; appends what is missing, `data: [DONE]` included. A stream that was cut
    /// is a fault.
    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), EngineFault>;

    /// What has been seen so far.
    fn progress(&self) -> AnswerProgress;

    /// The media type of a whole answer.
    fn media_type(&self) -> &'static str {
        "application/json"
    }
}

/// Why a request cannot be put to an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The body is wrong whatever the engine: 400.
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// This engine has no such route: 501 `not_implemented`.
    #[error("{0}")]
    NotOffered(String),
    /// The engine would refuse this parameter: 400 `unsupported_parameter` with `param`.
    #[error("{message}")]
    Unsupported {
        /// The field.
        param: String,
        /// Why.
        message: String,
    },
}

impl From<TranslateFault> for PrepareError {
    fn from(fault: TranslateFault) -> Self {
        match fault {
            TranslateFault::Unreadable(reason) => BodyFault::Malformed(reason).into(),
            TranslateFault::WrongType(field, expected) => BodyFault::WrongType(field, expected).into(),
            TranslateFault::Unsupported { param, message } => Self::Unsupported { param, message },
        }
    }
}

/// One engine's dialect and manners.
pub trait Adapter: Send + Sync + 'static {
    /// What it declares.
    fn info(&self) -> &'static AdapterInfo;

    /// Asks whether this engine answers there; `Ok(None)` when something else does.
    fn identify<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Option<Identity>, EngineError>>;

    /// The cheapest question that shows it alive.
    fn check<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<(), EngineError>>;

    /// Its models.
    fn models<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Vec<EngineModel>, EngineError>>;

    /// Puts a request in OpenAI's shape into the engine's words.
    fn prepare(&self, request: &EngineRequest<'_>) -> Result<Prepared, PrepareError>;

    /// Counts the tokens of a chat request's prompt; `Ok(None)` when the engine has no way to tell.
    fn count_tokens<'a>(
        &'a self,
        _session: Session<'a>,
        _body: &'a JsonBody,
        _model: &'a str,
    ) -> BoxFuture<'a, Result<Option<u64>, EngineError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Brings a model into memory and answers when it is there; at once when it is there already. The session's
    /// deadline bounds the whole of it. Cancel-safe: an engine that has begun goes on or stops, as it does when a
    /// client leaves.
    fn load<'a>(&'a self, _session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(std::future::ready(Err(ManageError::never(self.info(), "load a model", "load it in the engine"))))
    }

    /// Takes a model out of memory; fine when it is not there.
    fn unload<'a>(&'a self, _session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(std::future::ready(Err(ManageError::never(self.info(), "unload a model", "stop it in the engine"))))
    }

    /// Fetches a model from where the engine gets them and answers when it can be used. The session's deadline bounds
    /// each silence of the engine. Dropping it leaves; see [`Adapter::cancel_pull`].
    fn pull<'a>(
        &'a self,
        _session: Session<'a>,
        _model: &'a str,
        _report: Report<'a>,
    ) -> BoxFuture<'a, Result<(), ManageError>> {
        let instead = "put it where the engine reads its models from";
        Box::pin(std::future::ready(Err(ManageError::never(self.info(), "fetch a model", instead))))
    }

    /// Tells an engine that fetches by itself to stop; asked after a pull was left. Nothing to do for engines that
    /// stop when the client leaves, and for those that have no way to be told.
    fn cancel_pull<'a>(&'a self, _session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Removes a model from the engine's disk for good.
    fn delete<'a>(&'a self, _session: Session<'a>, _model: &'a str) -> BoxFuture<'a, Result<(), ManageError>> {
        let instead = "remove its files where the engine keeps them";
        Box::pin(std::future::ready(Err(ManageError::never(self.info(), "delete a model", instead))))
    }

    /// Reads an answer whose status is not 200.
    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault;
}
