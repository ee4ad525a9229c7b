//! The contract of engine adapters, run on each against its recordings; detection with a dead host among the living.
#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

#[path = "../support/engine_scripts.rs"]
mod engine_scripts;
#[expect(dead_code, reason = "other test binaries use the rest")]
#[path = "../support/fake_engine.rs"]
mod fake_engine;

mod contract;
mod detecting;
mod health;
mod manage;

use std::time::Duration;

use bytes::Bytes;
use flm::engines::adapter::{Adapter, AnswerProgress, Delivery, EngineFault, EngineRequest, PrepareError, Session};
use flm::engines::inference_route::InferenceRoute;
use flm::engines::registry::ADAPTERS;
use flm::net::egress::Egress;
use flm::net::pool::{Answered, Pool, PoolConfig, Repeat};
use flm::net::upstream::Upstream;
use flm::telemetry::tasks::Tasks;
use flm::types::secret::Secret;
use flm::wire::json_body::JsonBody;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::fake_engine::FakeEngine;

/// The adapter of a kind.
pub(crate) fn adapter(kind: &str) -> &'static dyn Adapter {
    ADAPTERS.iter().copied().find(|adapter| adapter.info().kind.as_str() == kind).expect("an adapter")
}

/// A pool as a worker has it.
pub(crate) fn pool() -> Pool {
    Pool::new(PoolConfig::default(), Egress::direct(), Tasks::new())
}

/// An engine's answer as the client gets it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) text: String,
    pub(crate) progress: AnswerProgress,
    /// What ended it badly.
    pub(crate) fault: Option<EngineFault>,
}

impl Got {
    /// The answer of a whole request.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("a JSON answer")
    }

    /// The chunks of a stream.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        let data = self.text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).expect("a chunk")).collect()
    }

    /// The text that the chunks add up to.
    pub(crate) fn content(&self, field: &str) -> String {
        self.chunks()
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"][field].as_str().map(str::to_owned))
            .collect()
    }
}

/// Asks a question as a session of an adapter.
pub(crate) async fn with_session<T>(engine: &FakeEngine, question: impl AsyncFnOnce(Session<'_>) -> T) -> T {
    let pool = pool();
    let upstream = Upstream::parse(&engine.url()).expect("a URL");
    let session = Session { pool: &pool, upstream: &upstream, api_key: None, deadline: Duration::from_secs(5) };
    question(session).await
}

/// Does what the relay does with one candidate: prepare, send, read.
pub(crate) async fn exchange(
    adapter: &dyn Adapter,
    engine: &FakeEngine,
    route: InferenceRoute,
    body: &Value,
    model: &str,
) -> Result<Got, PrepareError> {
    let json = JsonBody::parse(Bytes::from(body.to_string())).expect("a JSON object");
    let delivery = if body["stream"] == true {
        Delivery::Stream { usage_wanted: body["stream_options"]["include_usage"] == true }
    } else {
        Delivery::Whole
    };
    let key = Secret::new("engine-key".to_owned());
    let mut prepared = adapter.prepare(&EngineRequest {
        route,
        body: &json,
        files: &[],
        extras: None,
        model,
        delivery,
        api_key: Some(&key),
    })?;
    let upstream = Upstream::parse(&engine.url()).expect("a URL");
    let sent = pool().send(&upstream, prepared.request, Repeat::ByMethod).await;
    let Answered { status, fields, body: mut incoming } = sent.expect("an answer");
    let mut out: Vec<Bytes> = Vec::new();
    let mut fault = None;
    let mut whole = Vec::new();
    let streams = status == 200 && delivery != Delivery::Whole;
    while let Some(Ok(frame)) = incoming.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        if !streams {
            whole.extend_from_slice(&data);
        } else if let Err(told) = prepared.reader.push(data, &mut out) {
            fault = Some(told);
            break;
        }
    }
    if status != 200 {
        fault = Some(adapter.fault(status, &fields.map(), &whole));
    } else if !streams {
        match prepared.reader.whole(Bytes::from(whole)) {
            Ok(body) => out.push(body),
            Err(told) => fault = Some(told),
        }
    } else if fault.is_none() {
        fault = prepared.reader.finish(&mut out).err();
    }
    let text = String::from_utf8(out.concat()).expect("text");
    Ok(Got { text, progress: prepared.reader.progress(), fault })
}
