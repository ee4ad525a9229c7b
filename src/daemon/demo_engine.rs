//! The demo's engine: a real HTTP server on loopback that speaks OpenAI's shape and makes its text up at the speed
//! of a model. Registered with `EngineOrigin::Demo`, so that it is marked wherever it shows.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::random::Random;
use crate::telemetry::tasks::Tasks;

/// A model with its speed.
pub(super) struct DemoModel {
    pub(super) name: &'static str,
    /// Milliseconds to the first token.
    first: u64,
    /// Milliseconds between tokens.
    between: u64,
}

/// Models that chat: a small fast one to a large slow one, at speeds seen on a laptop's GPU.
pub(super) const CHAT_MODELS: &[DemoModel] = &[
    DemoModel { name: "demo-small:1b", first: 60, between: 9 },
    DemoModel { name: "demo-chat:8b", first: 180, between: 24 },
    DemoModel { name: "demo-thinker:32b", first: 650, between: 70 },
];
/// The model that embeds.
pub(super) const EMBEDDING_MODEL: &str = "demo-embed";
/// Length of an embedding: enough to look like one.
const DIMENSIONS: usize = 64;
/// Tokens of an answer when the client names no limit.
const DEFAULT_TOKENS: u64 = 64;
/// Largest body: the demo's clients send a line.
const BODY_LIMIT: usize = 1 << 20;
const WORDS: &[&str] = &[
    "the", "model", "answers", "with", "care", "and", "a", "little", "patience", "while", "every", "token", "finds",
    "its", "place", "in", "this", "quiet", "stream", "of", "words", "that", "nobody", "has", "to", "read", "twice",
];

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Starts the engine on a free port of loopback.
///
/// # Errors
/// When no port is free.
pub(super) async fn start(seed: u64, tasks: &Tasks) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let owner = tasks.clone();
    tasks.spawn_until_end("demo engine", async move {
        let mut random = Random::new(seed);
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let seed = random.next();
            owner.spawn_until_end("demo engine connection", async move {
                let service =
                    service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, seed).await) });
                let connection =
                    http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "the demo's engine lost a connection");
                }
            });
        }
    });
    Ok(address)
}

async fn answer(request: Request<Incoming>, seed: u64) -> Answer {
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/health") => json_answer(StatusCode::OK, &json!({ "status": "ok" })),
        (&Method::GET, "/v1/models") => json_answer(StatusCode::OK, &models()),
        (&Method::POST, path @ ("/v1/chat/completions" | "/v1/embeddings")) => {
            let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
                return fault(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
            };
            match serde_json::from_slice::<Value>(&body.to_bytes()) {
                Ok(body) if path == "/v1/embeddings" => embed(&body, seed).await,
                Ok(body) => chat(&body, seed).await,
                Err(error) => fault(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        }
        _ => fault(StatusCode::NOT_FOUND, "no such path"),
    }
}

fn models() -> Value {
    let names = CHAT_MODELS.iter().map(|model| model.name).chain([EMBEDDING_MODEL]);
    let data: Vec<_> =
        names.map(|id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "demo" })).collect();
    json!({ "object": "list", "data": data })
}

async fn embed(body: &Value, seed: u64) -> Answer {
    sleep(Duration::from_millis(15)).await;
    let mut random = Random::new(seed);
    let mut vector = || (0..DIMENSIONS).map(|_| f64::from(random.byte()) / 255.0 - 0.5).collect::<Vec<_>>();
    let inputs = body["input"].as_array().map_or(1, Vec::len);
    let data: Vec<_> =
        (0..inputs).map(|index| json!({ "object": "embedding", "index": index, "embedding": vector() })).collect();
    let usage = json!({ "prompt_tokens": 8 * inputs, "total_tokens": 8 * inputs });
    json_answer(StatusCode::OK, &json!({ "object": "list", "model": EMBEDDING_MODEL, "data": data, "usage": usage }))
}

/// What is left of a streamed answer.
struct Telling {
    model: &'static DemoModel,
    random: Random,
    sent: u64,
    tokens: u64,
    part: Part,
}

enum Part {
    Words,
    Usage,
    Done,
    Over,
}

async fn chat(body: &Value, seed: u64) -> Answer {
    let Some(model) = CHAT_MODELS.iter().find(|model| body["model"] == model.name) else {
        return fault(StatusCode::NOT_FOUND, "the demo has no such model");
    };
    let tokens = body["max_tokens"].as_u64().unwrap_or(DEFAULT_TOKENS).clamp(1, 2_000);
    let telling = Telling { model, random: Random::new(seed), sent: 0, tokens, part: Part::Words };
    if body["stream"] == true {
        let events = stream::unfold(telling, |mut telling| async move {
            let event = telling.event().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(event))), telling))
        });
        return respond(StatusCode::OK, "text/event-stream", StreamBody::new(events).boxed_unsync());
    }
    sleep(Duration::from_millis(model.first + model.between * tokens)).await;
    let mut random = telling.random;
    let words: Vec<_> = (0..tokens).map(|_| *random.pick(WORDS)).collect();
    let message = json!({ "role": "assistant", "content": words.join(" ") });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "length" });
    json_answer(
        StatusCode::OK,
        &json!({
            "id": "demo", "object": "chat.completion", "created": 0, "model": model.name,
            "choices": [choice], "usage": usage(tokens),
        }),
    )
}

impl Telling {
    async fn event(&mut self) -> Option<String> {
        let chunk = |choices: Value, usage: Value| {
            let model = self.model.name;
            let chunk = json!({ "id": "demo", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices, "usage": usage });
            format!("data: {chunk}\n\n")
        };
        match self.part {
            Part::Words => {
                let wait = if self.sent == 0 { self.model.first } else { self.model.between };
                sleep(Duration::from_millis(wait)).await;
                self.sent += 1;
                let last = self.sent == self.tokens;
                let word = format!("{} ", self.random.pick(WORDS));
                let finish = if last { json!("length") } else { Value::Null };
                let event =
                    chunk(json!([{ "index": 0, "delta": { "content": word }, "finish_reason": finish }]), Value::Null);
                if last {
                    self.part = Part::Usage;
                }
                Some(event)
            }
            Part::Usage => {
                let event = chunk(json!([]), usage(self.tokens));
                self.part = Part::Done;
                Some(event)
            }
            Part::Done => {
                self.part = Part::Over;
                Some("data: [DONE]\n\n".to_owned())
            }
            Part::Over => None,
        }
    }
}

fn usage(tokens: u64) -> Value {
    const PROMPT: u64 = 24;
    json!({ "prompt_tokens": PROMPT, "completion_tokens": tokens, "total_tokens": PROMPT + tokens })
}

fn fault(status: StatusCode, message: &str) -> Answer {
    json_answer(
        status,
        &json!({ "error": { "message": message, "type": "invalid_request_error", "param": null, "code": null } }),
    )
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    respond(status, "application/json", Full::new(Bytes::from(body.to_string())).boxed_unsync())
}

fn respond(status: StatusCode, content_type: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
