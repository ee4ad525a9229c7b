//! A whole owner of a home of its own, in this process: what the operator changes and what the proxy then does.

use bytes::Bytes;
use flm::config::paths::{HomePaths, PathOverrides};
use flm::control::Operator;
use flm::daemon::in_process::InProcess;
use flm::daemon::owner::{OwnerOptions, Purpose};
use flm::net::egress::Egress;
use flm::net::message::Outgoing;
use flm::net::pool::{Pool, PoolConfig, Repeat, UpstreamBody};
use flm::net::upstream::Upstream;
use flm::operations::context::ContextOptions;
use flm::telemetry::tasks::Tasks;
use flm::types::calls::engines::AddEngine;
use flm::types::calls::keys::CreateKey;
use flm::types::calls::models::RefreshModels;
use flm::types::calls::proxy::StartListener;
use flm::types::calls::{Call, Permission};
use flm::types::clock::Clock;
use flm::types::engine::EngineKind;
use flm::types::failure::Outcome;
use flm::types::ids::{EngineId, KeyId};
use flm::types::key::KeyLimits;
use flm::types::listener::{ListenerConfig, OwnerKind};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::fake_engine::{FakeEngine, PATIENCE};
use crate::{Answer, answered};

/// A home in a temporary folder, with a clock of its own.
pub(crate) struct OwnHome {
    pub(crate) paths: HomePaths,
    pub(crate) clock: Clock,
    _folder: tempfile::TempDir,
}

/// Its running owner.
pub(crate) struct Running {
    pub(crate) operator: Operator,
    owner: Option<InProcess>,
    base: Upstream,
    client: Pool,
    _tasks: Tasks,
}

impl OwnHome {
    pub(crate) fn at(clock: Clock) -> Self {
        // A socket's path is short (unix(7)), so the folder is below /tmp whatever TMPDIR says.
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        let overrides = PathOverrides { home: Some(folder.path().to_owned()), ..PathOverrides::default() };
        Self { paths: HomePaths::resolve(&overrides).expect("resolves"), clock, _folder: folder }
    }

    /// Starts an owner with a listener on a free port.
    pub(crate) async fn start(&self) -> Running {
        self.start_with(&[]).await
    }

    /// The same with these variables in the environment.
    pub(crate) async fn start_with(&self, variables: &[(&str, &str)]) -> Running {
        let owner = self.try_start(variables).await.expect("starts");
        let operator = Operator::in_process(owner.dialer(), Permission::Full);
        let config = ListenerConfig { port: 0, ..ListenerConfig::default() };
        let listener =
            operator.call(StartListener { config: Some(config), unnamed: Vec::new() }).await.expect("listens");
        // It asks engines for their models by itself, but not before the first request can come.
        operator.call(RefreshModels {}).await.expect("asks the engines");
        let tasks = Tasks::new();
        Running {
            operator,
            owner: Some(owner),
            base: Upstream::parse(&listener.addresses[0]).expect("a URL"),
            client: Pool::new(PoolConfig::default(), Egress::direct(), tasks.clone()),
            _tasks: tasks,
        }
    }

    /// Starts an owner without a listener, if it can.
    pub(crate) async fn try_start(&self, variables: &[(&str, &str)]) -> Outcome<InProcess> {
        let own = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = OwnerOptions {
            paths: self.paths.clone(),
            kind: OwnerKind::InProcess,
            context: ContextOptions {
                variables: own.chain([("FLM_ENGINE_DETECT_AT_START".to_owned(), "false".to_owned())]).collect(),
                clock: self.clock.clone(),
                ..ContextOptions::from_process()
            },
            incoming: None,
            purpose: Purpose::Serve,
        };
        let started = tokio::time::timeout(PATIENCE * 2, InProcess::start(options)).await.expect("in time");
        Ok(started?.expect("the home is free"))
    }
}

impl Running {
    pub(crate) async fn call<C: Call>(&self, call: C) -> C::Output {
        self.operator.call(call).await.unwrap_or_else(|failure| panic!("{}: {failure}", C::NAME))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.base.address().parse().expect("an address")
    }

    pub(crate) async fn engine(&self, id: &str, kind: &'static str, engine: &FakeEngine) -> EngineId {
        let id = EngineId::parse(id).expect("id");
        let call = AddEngine {
            id: id.clone(),
            kind: EngineKind::named(kind),
            url: engine.url(),
            api_key_env: None,
            direct: false,
            slots: None,
        };
        self.call(call).await;
        id
    }

    /// Makes a key and answers its id and text.
    pub(crate) async fn key(&self, label: &str, limits: KeyLimits) -> (KeyId, String) {
        let created = self.call(CreateKey { label: label.to_owned(), expires_in: None, limits }).await;
        (created.view.id, created.key.expose().to_owned())
    }

    pub(crate) async fn open(&self, key: &str, path: &str, body: &Value) -> http::Response<UpstreamBody> {
        let fields = vec![
            (AUTHORIZATION, format!("Bearer {key}").parse().expect("a value")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ];
        let body = Bytes::from(body.to_string());
        let request = Outgoing { method: Method::POST, target: path.to_owned().into(), fields, body };
        let sent = tokio::time::timeout(PATIENCE, self.client.send(&self.base, request, Repeat::ByMethod)).await;
        answered(sent.expect("in time").expect("an answer"))
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> Answer {
        let (parts, body) = self.open(key, path, body).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time").expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Ends the owner as `flm proxy stop --all` does and waits until it is gone.
    pub(crate) async fn end(mut self) {
        let owner = self.owner.take();
        tokio::task::spawn_blocking(move || drop(owner)).await.expect("ends");
    }
}
