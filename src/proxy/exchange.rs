//! The values that the stages hand on: each stage takes one and gives the next, so that authenticating before
//! screening does not compile (ARCHITECTURE.md, "A request").

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::account::Account;
use super::client_address::is_forwarded;
use super::cors;
use super::door::Door;
use super::limits::ProxyLimits;
use super::media::Media;
use super::passed::Passed;
use super::route::{Endpoint, Inference, known_path};
use super::rules::Watch;
use super::sanity::cut;
use super::stream::Stream;
use super::trace;
use super::worker::Worker;
use crate::engines::adapter::{Delivery, EmptyRequests};
use crate::engines::affinity::Conversation;
use crate::engines::resolution::Candidate;
use crate::guard::Standing;
use crate::guard::gcra::RateDecision;
use crate::guard::key_table::KeyEntry;
use crate::types::clock::UnixMillis;
use crate::types::ids::{KeyId, RequestId};
use crate::types::request::{Progress, RequestRow, StageTimes, TokenUsage};
use crate::types::text::redact_keys;
use crate::wire::client::{ClientWriter, ErrorShape};
use crate::wire::json_body::JsonBody;
use crate::wire::multipart::Boundary;
use crate::wire::pivot::{Extras, Work};

/// What is known of a connection before any request.
#[derive(Debug)]
pub(super) struct Peer {
    /// The thread that serves it.
    pub(super) worker: Arc<Worker>,
    /// Canonical address of the other side, or of whom a trusted proxy speaks for (PROXY protocol).
    pub(super) address: IpAddr,
    /// Who told it.
    pub(super) told: AddressBy,
    /// What is spoken on the port that it came to.
    pub(super) door: Arc<Door>,
    /// Fires when its listener stops.
    pub(super) draining: CancellationToken,
    /// Ends it after what runs on it, over HTTP/2: HTTP/1.1 says that in a header.
    ending: Option<CancellationToken>,
    /// The key that was last accepted on it, and of whom. Spares its further requests the lock of the key, which is shared by all
    /// workers; whether an accepted key is told is decided there ([`KeyCounts::tells_use`](crate::guard::key_table::KeyCounts::tells_use)).
    accepted: Mutex<Option<(KeyId, IpAddr)>>,
    /// What its client program called itself last.
    agent: Mutex<Option<Arc<str>>>,
}

impl Peer {
    /// A connection on which no key has been presented.
    pub(super) fn new(
        worker: Arc<Worker>,
        address: IpAddr,
        told: AddressBy,
        door: Arc<Door>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            worker,
            address,
            told,
            door,
            draining,
            ending: None,
            accepted: Mutex::new(None),
            agent: Mutex::new(None),
        }
    }

    /// The same over HTTP/2, whose connection ends when `ending` fires.
    pub(super) fn over_http2(self, ending: CancellationToken) -> Self {
        Self { ending: Some(ending), ..self }
    }

    /// Whether the connection, or a header of a request on it, says that somebody forwards: then loopback means nothing
    /// (SPEC §5, head).
    pub(super) fn forwards(&self, headers: &HeaderMap) -> bool {
        self.told == AddressBy::ProxyProtocol || is_forwarded(headers)
    }

    /// What an address that comes over this connection may: privileges of loopback need one that nobody forwards for.
    pub(super) fn standing(&self, client: IpAddr, headers: &HeaderMap) -> Standing {
        let is_trusted = self.worker.shared.guard.trusted(client);
        if is_trusted && !(client.is_loopback() && self.forwards(headers)) {
            Standing::Trusted
        } else {
            Standing::Ordinary
        }
    }

    /// What a client program calls itself, cut: one text for all requests of a connection that say the same.
    fn agent(&self, told: &[u8]) -> Arc<str> {
        let mut last = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(same) if same.as_bytes() == told => same.clone(),
            _ => last.insert(cut(&String::from_utf8_lossy(told), 120).into()).clone(),
        }
    }

    /// Notes an accepted key; answers whether that is news on this connection (SPEC §5.9).
    pub(super) fn authenticates(&self, key: KeyId, client: IpAddr) -> bool {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.replace((key, client)) != Some((key, client))
    }
}

/// Who told the address of a connection's other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressBy {
    /// The system.
    Socket,
    /// A trusted proxy: its loopback is not this machine's.
    ProxyProtocol,
}

/// What stays with a request over all stages.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) peer: Arc<Peer>,
    /// Limits as they were when the request came: a reload changes the next one.
    pub(super) limits: Arc<ProxyLimits>,
    /// Whose request it is (SPEC §5, `trusted_proxies`).
    pub(super) client: IpAddr,
    /// Whether the client is trusted.
    pub(super) standing: Standing,
    pub(super) id: RequestId,
    /// When its head was read.
    pub(super) at: UnixMillis,
    pub(super) account: Account,
    /// The browser's origin, when it is allowed to read the answer.
    pub(super) allowed_origin: Option<HeaderValue>,
    /// Limit per minute and state of the key's rate, for `x-ratelimit-*`.
    pub(super) rate: Option<(u32, RateDecision)>,
    /// The key, once authenticated.
    pub(super) key: Option<Arc<KeyEntry>>,
    /// How the client's API writes errors.
    pub(super) errors: ErrorShape,
    /// What rules found and is not scored yet.
    pub(super) watch: Watch,
    /// Headers that the answer gets beside those of every answer.
    pub(super) headers: Vec<(http::HeaderName, HeaderValue)>,
}

impl Exchange {
    /// Begins the account of a request.
    pub(super) fn open(peer: Arc<Peer>, request: &Parts) -> Box<Self> {
        let shared = &peer.worker.shared;
        let limits = shared.limits.load_full();
        let client = limits.trusted_proxies.client(peer.address, &request.headers);
        let id = RequestId::from_random(fastrand::u128(..));
        let at = shared.clock.wall();
        let row = Box::new(RequestRow {
            id,
            at,
            client,
            key: None,
            key_label: None,
            method: method_name(&request.method),
            path: path(request.uri.path()),
            route: None,
            model: None,
            engine: None,
            status: 0,
            error_code: None,
            stream: false,
            tokens: TokenUsage::default(),
            bytes_in: 0,
            bytes_out: 0,
            stages: StageTimes::default(),
            progress: Progress::Running,
            user_agent: request.headers.get(http::header::USER_AGENT).map(|agent| peer.agent(agent.as_bytes())),
            trace: trace::begin(limits.traces, &request.headers),
        });
        let account = Account::open(row, shared.clock.clone(), peer.worker.shard.clone());
        let allowed_origin = cors::allowed_origin(&request.headers, &limits);
        let errors = ErrorShape::of_path(request.uri.path());
        Box::new(Self {
            limits,
            client,
            standing: Standing::Ordinary,
            id,
            at,
            account,
            allowed_origin,
            rate: None,
            key: None,
            errors,
            watch: Watch::default(),
            headers: Vec::new(),
            peer,
        })
    }

    /// The connection ends with the answer, over HTTP/2 with the last of those that run.
    pub(super) fn ends_connection(&mut self) {
        match &self.peer.ending {
            Some(ending) => ending.cancel(),
            None => self.headers.push((CONNECTION, HeaderValue::from_static("close"))),
        }
    }
}

/// A path, without an allocation for those that are often asked for; what looks like a key in another one is cut.
fn path(path: &str) -> Cow<'static, str> {
    known_path(path).map_or_else(|| redact_keys(&cut(path, 256)).into_owned().into(), Cow::Borrowed)
}

/// A method's name, without an allocation for those that clients use.
fn method_name(method: &Method) -> Cow<'static, str> {
    match *method {
        Method::POST => "POST".into(),
        Method::GET => "GET".into(),
        Method::HEAD => "HEAD".into(),
        Method::OPTIONS => "OPTIONS".into(),
        _ => cut(method.as_str(), 16).into(),
    }
}

/// The address may come in.
#[derive(Debug)]
pub(super) struct Accepted {
    /// Boxed, here and further on: what goes from stage to stage would be copied by each.
    pub(super) parts: Box<Parts>,
}

/// The address is not too fast; host, path and headers make sense.
#[derive(Debug)]
pub(super) struct Screened {
    pub(super) parts: Box<Parts>,
}

/// The key is right and not too fast.
#[derive(Debug)]
pub(super) struct Authenticated {
    pub(super) parts: Box<Parts>,
    pub(super) key: Arc<KeyEntry>,
    /// Requests of the key that run now, this included.
    pub(super) running: u32,
}

/// The key may use the route.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) key: Arc<KeyEntry>,
    pub(super) endpoint: Endpoint,
    /// What separates the parts of its form, where the route takes one.
    pub(super) boundary: Option<Boundary>,
}

/// The body is a JSON object that names a model, in OpenAI's shape whatever the client speaks.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) key: Arc<KeyEntry>,
    pub(super) inference: Inference,
    pub(super) body: JsonBody,
    /// Files and images beside it or in it.
    pub(super) media: Media,
    /// What the client's dialect says beyond the body.
    pub(super) extras: Option<Box<Extras>>,
    pub(super) model: Arc<str>,
    pub(super) delivery: Delivery,
    /// Writes the answer in the client's dialect.
    pub(super) client: ClientWriter,
}

/// Engines that can serve it, in order.
pub(super) struct Resolved {
    pub(super) parsed: Box<Parsed>,
    pub(super) candidates: Vec<Candidate>,
    /// What it continues, when several engines could serve it.
    pub(super) conversation: Option<Conversation>,
}

impl Resolved {
    /// Whether an Ollama client only wants the model in memory, and no engine that may be asked takes that as a request.
    pub(super) fn only_loads(&self) -> bool {
        let native = self.parsed.extras.as_ref().and_then(|extras| extras.ollama.as_ref());
        let by_request = |candidate: &Candidate| candidate.engine.adapter.info().empty_requests == EmptyRequests::Load;
        native.is_some_and(|native| native.work == Work::Load) && !self.candidates.iter().any(by_request)
    }
}

/// What the client gets when nothing refused.
#[derive(Debug)]
pub(super) enum Answer {
    /// A whole document.
    Document { status: StatusCode, content_type: &'static str, body: Bytes },
    /// A stream in the client's framing.
    Events(Box<Stream>),
    /// What an engine answered, as it wrote it.
    Passed { status: StatusCode, content_type: Option<HeaderValue>, body: Box<Passed> },
    /// A status and nothing else; preflights add their own headers.
    Empty { status: StatusCode, headers: Vec<(http::HeaderName, HeaderValue)> },
}

impl Answer {
    pub(super) fn json(body: Bytes) -> Self {
        Self::Document { status: StatusCode::OK, content_type: "application/json", body }
    }
}
