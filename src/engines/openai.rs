//! Any other OpenAI-compatible server, added by hand (SPEC §3.1).
//!
//! Called through `registry::ADAPTERS`. Must never be tried by detection: it would recognise every engine.

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::engines::adapter::{
    Adapter, AdapterInfo, BoxFuture, EmptyRequests, EngineError, EngineFault, EngineModel, EngineRequest, Identity,
    ModelSlots, OwnParameters, ParameterWords, PrepareError, Prepared, Session,
};
use crate::engines::compatible::{self, Choices, Dialect, Strictness, UsageCounts};
use crate::engines::fault;
use crate::engines::own_routes::{OwnRoute, infers, reads};
use crate::types::engine::{Capability, EngineKind};
use crate::wire::form::Word;

/// The adapter.
pub(super) struct OpenAi;

static INFO: AdapterInfo = AdapterInfo {
    kind: EngineKind::named("openai"),
    title: "OpenAI-compatible server",
    ports: &[],
    binaries: &[],
    address_variables: &[],
    capabilities: &[
        Capability::Chat,
        Capability::Completions,
        Capability::Stream,
        Capability::Embeddings,
        Capability::Tools,
        Capability::Reasoning,
        Capability::Vision,
        Capability::AudioIn,
        Capability::AudioOut,
        Capability::Images,
        Capability::Rerank,
    ],
    parameters: ParameterWords { repeat_penalty: None, context_length: None, own: OwnParameters::TopLevel },
    empty_requests: EmptyRequests::Nothing,
    own_routes: OWN_ROUTES,
};

/// What OpenAI's API and its imitations have in common.
static OWN_ROUTES: &[OwnRoute] = &[
    reads("/v1/models"),
    infers("/v1/chat/completions"),
    infers("/v1/completions"),
    infers("/v1/embeddings"),
    infers("/v1/responses"),
    infers("/v1/messages"),
    infers("/v1/rerank"),
    infers("/v1/images/generations"),
    infers("/v1/audio/speech"),
];

static DIALECT: Dialect = Dialect {
    info: &INFO,
    choices: Choices::Many,
    usage_counts: UsageCounts::Everything,
    strictness: Strictness::Lenient,
    words: compatible::effort_only,
    lacks: &[],
    // Many servers of this kind are vLLM's kin, and OpenAI's own ignores what it does not know.
    form_words: Word::Vllm,
};

impl Adapter for OpenAi {
    fn info(&self) -> &'static AdapterInfo {
        &INFO
    }

    fn identify<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Option<Identity>, EngineError>> {
        Box::pin(async move {
            let Some(answer) = compatible::probe(session, "/v1/models").await? else { return Ok(None) };
            if answer.status == StatusCode::UNAUTHORIZED {
                return Ok(Some(compatible::identity(None, true)));
            }
            let lists = answer.json().is_some_and(|document| document.get("data").is_some_and(Value::is_array));
            Ok((answer.status == StatusCode::OK && lists).then_some(Identity { version: None, locked: false }))
        })
    }

    fn check<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<(), EngineError>> {
        Box::pin(async move { compatible::listed(session).await.map(|_models| ()) })
    }

    fn models<'a>(&'a self, session: Session<'a>) -> BoxFuture<'a, Result<Vec<EngineModel>, EngineError>> {
        Box::pin(async move { Ok(compatible::listed(session).await?.iter().filter_map(model).collect()) })
    }

    fn prepare(&self, request: &EngineRequest<'_>) -> Result<Prepared, PrepareError> {
        compatible::prepare(&DIALECT, request)
    }

    fn fault(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> EngineFault {
        fault::from_answer(&INFO, status, headers, body)
    }
}

fn model(item: &Value) -> Option<EngineModel> {
    Some(EngineModel {
        name: compatible::text(item, "/id")?.into(),
        capabilities: INFO.capabilities.iter().copied().collect(),
        // Names that servers of this kind use: vLLM's, OpenRouter's and TabbyAPI's.
        context_length: ["/max_model_len", "/context_length", "/parameters/max_seq_len"]
            .iter()
            .find_map(|pointer| compatible::tokens(item, pointer)),
        size_bytes: None,
        parameters: None,
        quantization: None,
        loaded: None,
        slots: ModelSlots::Untold,
    })
}
