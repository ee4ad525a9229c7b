//! The demo (SPEC §1.1): a temporary home, an engine inside this process, and scripted clients, good and hostile,
//! that send real HTTP through the whole pipeline. Listener, pipeline and console know no demo; no view is fed
//! directly, and the person's own data is never touched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::demo_engine::{self, CHAT_MODELS, EMBEDDING_MODEL};
use super::random::Random;
use crate::config::files;
use crate::config::paths::{KeyOrigin, PathOverrides};
use crate::control::request::Home;
use crate::guard::key_text;
use crate::operations::context::Context;
use crate::operations::progress::Reporter;
use crate::operations::{keys, proxy};
use crate::telemetry::tasks::Tasks;
use crate::types::calls::keys::CreateKey;
use crate::types::calls::proxy::StartListener;
use crate::types::engine::{EngineKind, EngineOrigin, EngineRecord};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::EngineId;
use crate::types::key::KeyLimits;
use crate::types::listener::ListenerConfig;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// No request of the script takes longer; the slowest model needs half of it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Two addresses of the loopback network that hostile clients come from, so that they can be told apart.
const GUESSER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SCANNER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// What scanners of the internet ask for first.
const SCANNED: &[&str] = &["/.env", "/wp-login.php", "/.git/config", "/phpmyadmin/", "/v1/../../etc/passwd", "/admin"];

const QUESTIONS: &[&str] = &[
    "Why does a proxy need a key?",
    "Write a haiku about a quiet fan.",
    "Summarise the last meeting in three sentences.",
    "What is the difference between p50 and p95?",
    "Explain back-pressure to a plumber.",
];

/// A temporary home, removed when dropped.
#[derive(Debug)]
pub(super) struct DemoHome {
    home: Home,
    folder: PathBuf,
}

impl DemoHome {
    /// Makes an empty home that nobody else can guess or read.
    ///
    /// # Errors
    /// When the folder for temporary files cannot be written.
    pub(super) fn make() -> Outcome<Self> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|error| {
            Failure::new(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
        })?;
        let folder = std::env::temp_dir().join(format!("flm-demo-{:016x}", u64::from_ne_bytes(random)));
        files::private_dir(&folder)?;
        let mut home = Home::resolve(PathOverrides { home: Some(folder.clone()), ..PathOverrides::default() })?;
        // Never the person's own database key, which the environment may name.
        home.paths.key_file = home.paths.keys_dir().join("security.key");
        home.paths.key_origin = KeyOrigin::Home;
        home.paths.passphrase_credential = None;
        Ok(Self { home, folder })
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }
}

impl Drop for DemoHome {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "the demo's folder stays behind");
        }
    }
}

/// Starts engine, listener and clients. All of them end with `tasks`.
///
/// # Errors
/// When no port is free, and of the operations that make the keys.
pub(super) async fn start(context: &Arc<Context>, seed: u64, tasks: &Tasks) -> Outcome<()> {
    let no_port = |error: std::io::Error| {
        Failure::new(ErrorCode::IoError, format!("the demo's engine finds no free port: {error}"))
    };
    let engine = demo_engine::start(seed, tasks).await.map_err(no_port)?;
    let id = EngineId::parse("demo").map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))?;
    let record = EngineRecord {
        id: id.clone(),
        kind: EngineKind::named("openai"),
        url: format!("http://{engine}"),
        api_key_env: None,
        direct: true,
        slots: None,
        origin: EngineOrigin::Demo,
        created: context.clock.wall(),
    };
    // In memory only: it ends with this process.
    context
        .registry
        .put(record, &|_| None)
        .map_err(|error| Failure::new(ErrorCode::Internal, escape(&error.to_string())))?;
    context.registry.check(&id, &context.pool).await;

    let config = ListenerConfig { port: 0, ..ListenerConfig::default() };
    let listener = {
        let call = StartListener { config: Some(config), unnamed: Vec::new() };
        proxy::start(context, call, Reporter::unheard()).await?
    };
    let endpoint = SocketAddr::new(listener.config.bind, listener.config.port);
    let laptop = key(context, "laptop").await?;
    let agent = key(context, "coding agent").await?;
    let search = key(context, "search index").await?;
    let client = |number| Client { endpoint, random: Random::new(seed ^ number) };
    tasks.spawn_until_end("demo laptop", laptop_chats(client(1), laptop));
    tasks.spawn_until_end("demo agent", agent_streams(client(2), agent));
    tasks.spawn_until_end("demo search", search_embeds(client(3), search.clone()));
    tasks.spawn_until_end("demo mistakes", mistakes(client(4), search));
    tasks.spawn_until_end("demo guesser", guesses_keys(client(5)));
    tasks.spawn_until_end("demo scanner", scans(client(6)));
    Ok(())
}

async fn key(context: &Context, label: &str) -> Outcome<Secret> {
    let call = CreateKey { label: label.to_owned(), expires_in: None, limits: KeyLimits::default() };
    Ok(keys::create(context, call).await?.key)
}

/// Short questions to any model, a second or two apart.
async fn laptop_chats(mut client: Client, key: Secret) {
    loop {
        client.pause(700, 2_600).await;
        let model = client.random.pick(CHAT_MODELS).name;
        let (question, tokens) = (*client.random.pick(QUESTIONS), client.random.between(15, 90));
        let stream = client.random.between(0, 3) > 0;
        client.chat(&key, model, question, tokens, stream).await;
    }
}

/// Long streams, one after the other.
async fn agent_streams(mut client: Client, key: Secret) {
    loop {
        client.pause(300, 1_500).await;
        let model = client.random.pick(CHAT_MODELS).name;
        let tokens = client.random.between(200, 400);
        client.chat(&key, model, "Refactor this module and explain each step.", tokens, true).await;
    }
}

/// Small batches of embeddings.
async fn search_embeds(mut client: Client, key: Secret) {
    loop {
        client.pause(900, 3_000).await;
        for _ in 0..client.random.between(1, 4) {
            let body = serde_json::json!({ "model": EMBEDDING_MODEL, "input": client.random.pick(QUESTIONS) });
            client.post(None, Some(&key), "/v1/embeddings", &body.to_string()).await;
        }
    }
}

/// What honest people get wrong: a model that does not exist, broken JSON, no key.
async fn mistakes(mut client: Client, key: Secret) {
    loop {
        client.pause(6_000, 14_000).await;
        let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}"#;
        match client.random.between(0, 2) {
            0 => client.post(None, Some(&key), "/v1/chat/completions", body).await,
            1 => client.post(None, Some(&key), "/v1/chat/completions", r#"{"model":"#).await,
            _ => client.post(None, None, "/v1/chat/completions", body).await,
        }
    }
}

/// Made-up keys of the right form, from an address of its own.
async fn guesses_keys(mut client: Client) {
    loop {
        client.pause(4_000, 9_000).await;
        let random = &mut client.random;
        let (_, wrong) = key_text::write(&mut || random.byte());
        client.get(GUESSER, Some(&wrong), "/v1/models", "python-requests/2.32").await;
    }
}

/// Paths that scanners try, from an address of its own.
async fn scans(mut client: Client) {
    loop {
        client.pause(5_000, 11_000).await;
        let path = *client.random.pick(SCANNED);
        client.get(SCANNER, None, path, "Mozilla/5.0 zgrab/0.x").await;
    }
}

/// A client as simple as one can be: one connection for each request, HTTP/1.1 written by hand, since hostile ones
/// need their own source address and paths that no library would send.
struct Client {
    endpoint: SocketAddr,
    random: Random,
}

impl Client {
    /// Keeps the rate bounded: never shorter than `least` milliseconds.
    async fn pause(&mut self, least: u64, most: u64) {
        sleep(Duration::from_millis(self.random.between(least, most))).await;
    }

    async fn chat(&self, key: &Secret, model: &str, question: &str, tokens: u64, stream: bool) {
        let body = serde_json::json!({
            "model": model,
            "messages": [{ "role": "user", "content": question }],
            "max_tokens": tokens,
            "stream": stream,
        });
        self.post(None, Some(key), "/v1/chat/completions", &body.to_string()).await;
    }

    async fn post(&self, from: Option<Ipv4Addr>, key: Option<&Secret>, path: &str, body: &str) {
        let head = self.head("POST", path, key, "openai-python/2.1");
        let length = body.len();
        self.exchange(from, &format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
    }

    async fn get(&self, from: Ipv4Addr, key: Option<&Secret>, path: &str, agent: &str) {
        self.exchange(Some(from), &format!("{}\r\n", self.head("GET", path, key, agent))).await;
    }

    fn head(&self, method: &str, path: &str, key: Option<&Secret>, agent: &str) -> String {
        let authorization = key.map_or_else(String::new, |key| format!("Authorization: Bearer {}\r\n", key.expose()));
        let host = self.endpoint;
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n{authorization}"
        )
    }

    /// Sends and reads to the end. What goes wrong is the demo's to show, not to tell.
    async fn exchange(&self, from: Option<Ipv4Addr>, request: &str) {
        let exchange = async {
            let socket = TcpSocket::new_v4()?;
            if let Some(from) = from {
                socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
            }
            let mut stream = socket.connect(self.endpoint).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = [0; 4096];
            while stream.read(&mut answer).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a client of the demo was cut off"),
            Err(_elapsed) => tracing::debug!("a client of the demo gave up"),
        }
    }
}
