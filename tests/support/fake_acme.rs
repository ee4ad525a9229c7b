//! A strict little ACME directory on a loopback port (RFC 8555, RFC 9773), over TLS with an authority of its own.
//!
//! Included by test binaries with `#[path]`. It checks what a real one checks: nonces are good once, requests are signed by the
//! account's key and name their URL, challenges are really looked at, the request for a certificate names what was ordered. It
//! can be told to misbehave, and tells what it was asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use flm::telemetry::tasks::Tasks;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How it behaves; all of it can be changed while it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Manner {
    /// Refuses the nonce of every n-th signed request, although it is good.
    pub(crate) refuses_nonce_every: Option<u64>,
    /// Answers each order with this problem, status and `Retry-After`.
    pub(crate) refuses_orders: Option<(u16, &'static str, &'static str, Option<u64>)>,
    /// Never answers an order.
    pub(crate) hangs: bool,
    /// Advises to renew in this window of seconds from 1970 on.
    pub(crate) advises: Option<(i64, i64)>,
    /// Only takes accounts that are bound to an external one.
    pub(crate) wants_binding: bool,
    /// Days from now on between which its certificates are valid, if not 0 to 90.
    pub(crate) valid: Option<(i64, i64)>,
    /// Offers no challenge but this one.
    pub(crate) offers_only: Option<&'static str>,
}

/// Where the world looks for what proves a domain.
#[derive(Clone, Default)]
pub(crate) struct World {
    /// Answers port 80 of every domain.
    pub(crate) port_80: Option<Arc<dyn Fn() -> Option<u16> + Send + Sync>>,
    /// Folder with a file per TXT record: its name, and its values as lines.
    pub(crate) zone: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Account {
    jwk: Value,
    contact: Value,
}

#[derive(Debug)]
struct Order {
    account: String,
    names: Vec<String>,
    status: &'static str,
    chain: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    nonces: BTreeSet<String>,
    signed: u64,
    accounts: HashMap<String, Account>,
    orders: BTreeMap<usize, Order>,
    /// Of order and number of the name: what went wrong.
    problems: HashMap<(usize, usize), Option<Value>>,
    asked: Vec<String>,
    replaced: Vec<String>,
    manner: Manner,
    made: usize,
}

struct Shared {
    state: Mutex<State>,
    world: World,
    base: String,
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

/// A running one; ends when it is dropped.
pub(crate) struct FakeAcme {
    /// URL of the directory.
    pub(crate) directory: String,
    shared: Arc<Shared>,
    tasks: Tasks,
    /// It runs on threads of its own, so that tests may block.
    _runtime: tokio::runtime::Runtime,
}

impl Drop for FakeAcme {
    fn drop(&mut self) {
        self.tasks.ending().cancel();
    }
}

impl FakeAcme {
    pub(crate) fn start(world: World, manner: Manner) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("listens");
        let address = listener.local_addr().expect("an address");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(rcgen::DnType::CommonName, "fake ACME root");
        (params.not_before, params.not_after) = (days(-1), days(3_650));
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a root");
        let issuer = Issuer::new(params, key);
        let acceptor = acceptor(&issuer);
        let base = format!("https://localhost:{}", address.port());
        let state = Mutex::new(State { manner, ..State::default() });
        let shared = Arc::new(Shared { state, world, base: base.clone(), issuer, root: root.pem() });
        let tasks = Tasks::new();
        {
            let _guard = runtime.enter();
            tasks.spawn_until_end("ACME directory", serve(listener, acceptor, shared.clone(), tasks.clone()));
        }
        Self { directory: format!("{base}/directory"), shared, tasks, _runtime: runtime }
    }

    /// The root that both the directory and its certificates lead to, as PEM.
    pub(crate) fn root(&self) -> &str {
        &self.shared.root
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// Changes how it behaves.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state().manner);
    }

    /// Paths that were asked for, each with its method.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.ends_with(path)).count()
    }

    /// Contacts of the accounts.
    pub(crate) fn contacts(&self) -> Vec<Value> {
        self.state().accounts.values().map(|account| account.contact.clone()).collect()
    }

    /// Certificates that orders said they replace.
    pub(crate) fn replaced(&self) -> Vec<String> {
        self.state().replaced.clone()
    }

    /// Forgets all accounts, as after their time.
    pub(crate) fn forget_accounts(&self) {
        self.state().accounts.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn days(from_now: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc() + time::Duration::days(from_now)
}

fn acceptor(issuer: &Issuer<'static, KeyPair>) -> TlsAcceptor {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("params");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (params.not_before, params.not_after) = (days(-1), days(90));
    let key = KeyPair::generate().expect("a key");
    let chain: Vec<CertificateDer<'static>> = vec![params.signed_by(&key, issuer).expect("a leaf").der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>, tasks: Tasks) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        tasks.spawn_until_end("ACME connection", async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let service = hyper::service::service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // The client left.
            let _broken = served.await;
        });
    }
}

/// An answer before it has its nonce.
struct Told {
    status: u16,
    body: String,
    headers: Vec<(&'static str, String)>,
}

impl Told {
    fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string(), headers: vec![("content-type", "application/json".to_owned())] }
    }

    fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let body = problem(kind, detail);
        Self { headers: vec![("content-type", "application/problem+json".to_owned())], ..Self::json(status, &body) }
    }

    fn with(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

fn problem(kind: &str, detail: &str) -> Value {
    json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail })
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = parts.uri.path().to_owned();
    shared.state().asked.push(format!("{} {path}", parts.method));
    let hangs = shared.state().manner.hangs && path == "/new-order";
    if hangs {
        std::future::pending::<()>().await;
    }
    let told = match (&parts.method, path.as_str()) {
        (&Method::GET, "/directory") => Told::json(200, &directory(shared)),
        (&Method::HEAD, "/new-nonce") => Told { status: 200, body: String::new(), headers: Vec::new() },
        (&Method::GET, advice) if advice.starts_with("/renewal-info/") => advise(shared),
        (&Method::POST, _) => {
            let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok());
            match signed(shared, &path, kind, &body) {
                Ok((account, payload)) => act(shared, &path, account, &payload).await,
                Err(told) => told,
            }
        }
        _ => Told::problem(404, "malformed", "there is nothing here"),
    };
    let nonce = {
        let mut state = shared.state();
        state.made += 1;
        let nonce = Base64UrlUnpadded::encode_string(format!("nonce {}", state.made).as_bytes());
        state.nonces.insert(nonce.clone());
        nonce
    };
    let mut response =
        Response::builder().status(told.status).header("replay-nonce", nonce).header("cache-control", "no-store");
    for (name, value) in told.headers {
        response = response.header(name, value);
    }
    response.body(Full::from(told.body)).expect("an answer")
}

fn directory(shared: &Shared) -> Value {
    let base = &shared.base;
    let state = shared.state();
    let mut directory = json!({
        "newNonce": format!("{base}/new-nonce"),
        "newAccount": format!("{base}/new-account"),
        "newOrder": format!("{base}/new-order"),
        "revokeCert": format!("{base}/revoke-cert"),
        "keyChange": format!("{base}/key-change"),
        "meta": { "termsOfService": format!("{base}/terms"), "externalAccountRequired": state.manner.wants_binding },
    });
    if state.manner.advises.is_some() {
        directory["renewalInfo"] = json!(format!("{base}/renewal-info"));
    }
    directory
}

fn advise(shared: &Shared) -> Told {
    let Some((start, end)) = shared.state().manner.advises else {
        return Told::problem(404, "malformed", "no advice is given");
    };
    let at = |seconds: i64| {
        let time = time::OffsetDateTime::from_unix_timestamp(seconds).expect("a time");
        let (date, clock) = (time.date(), time.time());
        format!("{date}T{:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second())
    };
    let window = json!({ "suggestedWindow": { "start": at(start), "end": at(end) } });
    Told::json(200, &window).with("retry-after", "21600".to_owned())
}

/// Checks a signed request: nonce, URL, key, signature (RFC 8555 §6.2). Answers the account, or the new one's key, and the
/// payload.
fn signed(
    shared: &Shared,
    path: &str,
    kind: Option<&str>,
    body: &[u8],
) -> Result<(Result<String, Value>, Value), Told> {
    let malformed = |detail: &str| Told::problem(400, "malformed", detail);
    if kind != Some("application/jose+json") {
        return Err(Told::problem(415, "malformed", "the content type is not application/jose+json"));
    }
    let decode = |text: &str| Base64UrlUnpadded::decode_vec(text).map_err(|_| malformed("not base64url"));
    let whole: Value = serde_json::from_slice(body).map_err(|_| malformed("no JSON"))?;
    let part = |name: &str| whole[name].as_str().ok_or_else(|| malformed("a part is missing"));
    let (protected, payload, signature) = (part("protected")?, part("payload")?, part("signature")?);
    let head: Value = serde_json::from_slice(&decode(protected)?).map_err(|_| malformed("the head is no JSON"))?;
    if head["alg"] != "ES256" {
        return Err(Told::problem(400, "badSignatureAlgorithm", "only ES256"));
    }
    if head["url"] != json!(format!("{}{path}", shared.base)) {
        return Err(Told::problem(401, "unauthorized", "the signed URL is another one"));
    }
    let mut state = shared.state();
    state.signed += 1;
    let refused = state.manner.refuses_nonce_every.is_some_and(|every| state.signed.is_multiple_of(every));
    let good = head["nonce"].as_str().is_some_and(|nonce| state.nonces.remove(nonce));
    if !good || refused {
        return Err(Told::problem(400, "badNonce", "that nonce is not good"));
    }
    let (account, jwk) = match (head["kid"].as_str(), head["jwk"].is_object()) {
        (Some(kid), false) => match state.accounts.get(kid) {
            Some(account) => (Ok(kid.to_owned()), account.jwk.clone()),
            None => return Err(Told::problem(400, "accountDoesNotExist", "there is no such account")),
        },
        (None, true) if path == "/new-account" => (Err(head["jwk"].clone()), head["jwk"].clone()),
        _ => return Err(malformed("either kid or jwk, whichever the resource takes")),
    };
    if !verifies(&jwk, format!("{protected}.{payload}").as_bytes(), &decode(signature)?) {
        return Err(Told::problem(400, "malformed", "the signature is wrong"));
    }
    let payload = decode(payload)?;
    let payload = if payload.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&payload).map_err(|_| malformed("no JSON"))?
    };
    Ok((account, payload))
}

fn verifies(jwk: &Value, message: &[u8], signature: &[u8]) -> bool {
    let coordinate =
        |name: &str| Base64UrlUnpadded::decode_vec(jwk[name].as_str().unwrap_or_default()).unwrap_or_default();
    let point = [&[4][..], &coordinate("x"), &coordinate("y")].concat();
    if signature.len() != 64 {
        return false;
    }
    // The verifier wants ASN.1: two integers without needless zeros, and with one where they would look negative.
    let integer = |bytes: &[u8]| {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        let mut bytes = bytes[first..].to_vec();
        if bytes[0] & 0x80 != 0 {
            bytes.insert(0, 0);
        }
        [&[2, u8::try_from(bytes.len()).expect("short")][..], &bytes].concat()
    };
    let both = [integer(&signature[..32]), integer(&signature[32..])].concat();
    let der = [&[0x30, u8::try_from(both.len()).expect("short")][..], &both].concat();
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == rustls::SignatureScheme::ECDSA_NISTP256_SHA256)
        .flat_map(|(_, verifiers)| verifiers.iter())
        .any(|verifier| verifier.verify_signature(&point, message, &der).is_ok())
}

/// RFC 7638.
fn thumbprint(jwk: &Value) -> String {
    let canonical = format!(r#"{{"crv":{},"kty":{},"x":{},"y":{}}}"#, jwk["crv"], jwk["kty"], jwk["x"], jwk["y"]);
    Base64UrlUnpadded::encode_string(&Sha256::digest(canonical))
}

async fn act(shared: &Arc<Shared>, path: &str, account: Result<String, Value>, payload: &Value) -> Told {
    let number = |text: &str| text.parse::<usize>().unwrap_or(usize::MAX);
    let pieces: Vec<&str> = path.split('/').skip(1).collect();
    let account = match account {
        Err(jwk) => return new_account(shared, jwk, payload),
        Ok(account) => account,
    };
    match pieces.as_slice() {
        ["new-order"] => new_order(shared, &account, payload),
        ["account", _] => {
            if let Some(known) = shared.state().accounts.get_mut(&account) {
                known.contact = payload["contact"].clone();
            }
            Told::json(200, &json!({ "status": "valid" }))
        }
        ["order", id] => order(shared, number(id)),
        ["authz", id, name] => authorization(shared, &account, number(id), number(name)),
        ["challenge", id, name, kind] => challenge(shared, &account, (number(id), number(name)), kind).await,
        ["finalize", id] => finalize(shared, number(id), payload),
        ["certificate", id] => match shared.state().orders.get(&number(id)).and_then(|order| order.chain.clone()) {
            Some(chain) => Told {
                status: 200,
                body: chain,
                headers: vec![("content-type", "application/pem-certificate-chain".into())],
            },
            None => Told::problem(404, "malformed", "no such certificate"),
        },
        _ => Told::problem(404, "malformed", "there is nothing here"),
    }
}

fn new_account(shared: &Shared, jwk: Value, payload: &Value) -> Told {
    let mut state = shared.state();
    if payload["termsOfServiceAgreed"] != true {
        return Told::problem(403, "userActionRequired", "the terms are not accepted");
    }
    if state.manner.wants_binding && !payload["externalAccountBinding"].is_object() {
        return Told::problem(403, "externalAccountRequired", "an external account is needed");
    }
    let url = format!("{}/account/{}", shared.base, state.accounts.len() + 1);
    state.accounts.insert(url.clone(), Account { jwk, contact: payload["contact"].clone() });
    Told::json(201, &json!({ "status": "valid" })).with("location", url)
}

fn new_order(shared: &Shared, account: &str, payload: &Value) -> Told {
    let mut state = shared.state();
    if let Some((status, kind, detail, retry)) = state.manner.refuses_orders {
        let told = Told::problem(status, kind, detail);
        return match retry {
            Some(seconds) => told.with("retry-after", seconds.to_string()),
            None => told,
        };
    }
    let names: Vec<String> = payload["identifiers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|identifier| identifier["value"].as_str().unwrap_or_default().to_owned())
        .collect();
    state.replaced.extend(payload["replaces"].as_str().map(str::to_owned));
    let id = state.orders.len();
    state.orders.insert(id, Order { account: account.to_owned(), names, status: "pending", chain: None });
    drop(state);
    let mut told = order(shared, id);
    if let Some(replaces) = payload["replaces"].as_str() {
        let mut body: Value = serde_json::from_str(&told.body).expect("JSON");
        body["replaces"] = json!(replaces);
        told.body = body.to_string();
    }
    Told { status: 201, ..told }.with("location", format!("{}/order/{id}", shared.base))
}

fn order(shared: &Shared, id: usize) -> Told {
    let base = &shared.base;
    let state = shared.state();
    let Some(order) = state.orders.get(&id) else { return Told::problem(404, "malformed", "no such order") };
    let identifiers: Vec<Value> = order.names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
    let authorizations: Vec<String> = (0..order.names.len()).map(|name| format!("{base}/authz/{id}/{name}")).collect();
    let mut body = json!({
        "status": order.status,
        "identifiers": identifiers,
        "authorizations": authorizations,
        "finalize": format!("{base}/finalize/{id}"),
    });
    if order.chain.is_some() {
        body["certificate"] = json!(format!("{base}/certificate/{id}"));
    }
    Told::json(200, &body)
}

fn token(id: usize, name: usize) -> String {
    Base64UrlUnpadded::encode_string(format!("token of order {id}, name {name}").as_bytes())
}

fn authorization(shared: &Shared, account: &str, id: usize, name: usize) -> Told {
    let state = shared.state();
    let Some(text) =
        state.orders.get(&id).filter(|order| order.account == account).and_then(|order| order.names.get(name))
    else {
        return Told::problem(404, "malformed", "no such authorization");
    };
    let outcome = state.problems.get(&(id, name));
    let status = match outcome {
        None => "pending",
        Some(None) => "valid",
        Some(Some(_)) => "invalid",
    };
    let wildcard = text.strip_prefix("*.");
    let kinds: &[&str] = match (state.manner.offers_only.as_ref(), wildcard) {
        (Some(only), _) => std::slice::from_ref(only),
        (None, Some(_)) => &["dns-01"],
        (None, None) => &["http-01", "dns-01", "tls-alpn-01"],
    };
    let challenges: Vec<Value> = kinds
        .iter()
        .map(|kind| {
            let url = format!("{}/challenge/{id}/{name}/{kind}", shared.base);
            let mut challenge = json!({ "type": kind, "url": url, "status": status, "token": token(id, name) });
            if let Some(Some(problem)) = outcome {
                challenge["error"] = problem.clone();
            }
            challenge
        })
        .collect();
    let mut body = json!({
        "identifier": { "type": "dns", "value": wildcard.unwrap_or(text) },
        "status": status,
        "challenges": challenges,
    });
    if wildcard.is_some() {
        body["wildcard"] = json!(true);
    }
    Told::json(200, &body)
}

/// Looks at once, as a real one does a little later.
async fn challenge(shared: &Arc<Shared>, account: &str, (id, name): (usize, usize), kind: &str) -> Told {
    let (domain, key_authorization) = {
        let state = shared.state();
        let Some(domain) = state.orders.get(&id).and_then(|order| order.names.get(name)).cloned() else {
            return Told::problem(404, "malformed", "no such challenge");
        };
        let Some(account) = state.accounts.get(account) else {
            return Told::problem(400, "accountDoesNotExist", "there is no such account");
        };
        (domain, format!("{}.{}", token(id, name), thumbprint(&account.jwk)))
    };
    let seen = match kind {
        "http-01" => look_by_http(shared, &domain, &token(id, name), &key_authorization).await,
        _ => look_by_dns(&shared.world, &domain, &key_authorization),
    };
    let mut state = shared.state();
    state.problems.insert((id, name), seen.err());
    let names = state.orders.get(&id).map_or(0, |order| order.names.len());
    let outcomes: Vec<Option<bool>> =
        (0..names).map(|name| state.problems.get(&(id, name)).map(Option::is_none)).collect();
    let status = match outcomes.as_slice() {
        all if all.iter().all(|outcome| *outcome == Some(true)) => "ready",
        some if some.contains(&Some(false)) => "invalid",
        _ => "pending",
    };
    if let Some(order) = state.orders.get_mut(&id) {
        order.status = status;
    }
    let url = format!("{}/challenge/{id}/{name}/{kind}", shared.base);
    Told::json(200, &json!({ "type": kind, "url": url, "status": "processing", "token": token(id, name) }))
}

async fn look_by_http(shared: &Arc<Shared>, domain: &str, token: &str, expected: &str) -> Result<(), Value> {
    let Some(port_80) = shared.world.port_80.clone() else {
        return Err(problem("dns", &format!("no address for {domain}")));
    };
    let port = tokio::task::spawn_blocking(move || port_80()).await.expect("looks");
    let Some(port) = port else { return Err(problem("connection", "nobody answers on port 80")) };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let fetched = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match tokio::time::timeout(Duration::from_secs(10), fetched).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(problem("connection", &format!("{domain}: {error}"))),
        Err(_elapsed) => return Err(problem("connection", &format!("{domain}: timeout"))),
    };
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    if answer.starts_with("HTTP/1.1 200") && body.trim_end() == expected {
        return Ok(());
    }
    Err(problem(
        "unauthorized",
        &format!("{domain} answered something else: {}", answer.lines().next().unwrap_or_default()),
    ))
}

fn look_by_dns(world: &World, domain: &str, key_authorization: &str) -> Result<(), Value> {
    let name = format!("_acme-challenge.{}", domain.strip_prefix("*.").unwrap_or(domain));
    let expected = Base64UrlUnpadded::encode_string(&Sha256::digest(key_authorization));
    let values = txt(world, &name);
    if values.contains(&expected) {
        return Ok(());
    }
    Err(problem("unauthorized", &format!("{name} has the TXT records {values:?}")))
}

/// The TXT records of a name.
pub(crate) fn txt(world: &World, name: &str) -> Vec<String> {
    let file = world.zone.as_ref().map(|zone| zone.join(name));
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn finalize(shared: &Shared, id: usize, payload: &Value) -> Told {
    let mut state = shared.state();
    let (from, to) = state.manner.valid.unwrap_or((0, 90));
    state.made += 1;
    let serial = state.made;
    let Some(order) = state.orders.get_mut(&id) else { return Told::problem(404, "malformed", "no such order") };
    if order.status != "ready" {
        return Told::problem(403, "orderNotReady", "the domains are not proved");
    }
    let der = Base64UrlUnpadded::decode_vec(payload["csr"].as_str().unwrap_or_default()).unwrap_or_default();
    let request = CertificateSigningRequestParams::from_der(&der.as_slice().into());
    let Ok(mut request) = request else { return Told::problem(400, "badCSR", "the request does not parse") };
    let mut asked: Vec<String> = request
        .params
        .subject_alt_names
        .iter()
        .map(|name| match name {
            SanType::DnsName(name) => name.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    let mut ordered = order.names.clone();
    asked.sort();
    ordered.sort();
    if asked != ordered {
        return Told::problem(400, "badCSR", "the request names something else than the order");
    }
    request.params.use_authority_key_identifier_extension = true;
    request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    request.params.serial_number = Some(SerialNumber::from(serial as u64));
    // A little earlier: clocks differ, and what begins now is not valid yet for a slow one.
    request.params.not_before = days(from) - time::Duration::hours(1);
    request.params.not_after = days(to);
    let leaf = request.signed_by(&shared.issuer).expect("signs");
    order.chain = Some(leaf.pem());
    order.status = "valid";
    drop(state);
    self::order(shared, id)
}

/// A name server over TCP that tells the TXT records of the world's zone.
pub(crate) struct FakeDns {
    pub(crate) address: SocketAddr,
    tasks: Tasks,
    _runtime: tokio::runtime::Runtime,
}

impl Drop for FakeDns {
    fn drop(&mut self) {
        self.tasks.ending().cancel();
    }
}

impl FakeDns {
    pub(crate) fn start(world: World) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("listens");
        let address = listener.local_addr().expect("an address");
        let tasks = Tasks::new();
        {
            let _guard = runtime.enter();
            tasks.spawn_until_end("name server", async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    // Whoever leaves early is not waited for.
                    let _left = tell(&mut stream, &world).await;
                }
            });
        }
        Self { address, tasks, _runtime: runtime }
    }
}

async fn tell(stream: &mut TcpStream, world: &World) -> std::io::Result<()> {
    let length = stream.read_u16().await?;
    let mut asked = vec![0; usize::from(length)];
    stream.read_exact(&mut asked).await?;
    let (mut labels, mut at) = (Vec::new(), 12);
    while asked[at] > 0 {
        let end = at + 1 + usize::from(asked[at]);
        labels.push(String::from_utf8_lossy(&asked[at + 1..end]).into_owned());
        at = end;
    }
    let values = txt(world, &labels.join("."));
    let mut told = asked.clone();
    (told[2], told[3], told[7]) = (0x84, 0, u8::try_from(values.len()).expect("few"));
    for value in &values {
        told.extend(b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c");
        told.extend((u16::try_from(value.len()).expect("short") + 1).to_be_bytes());
        told.push(u8::try_from(value.len()).expect("short"));
        told.extend(value.as_bytes());
    }
    stream.write_u16(u16::try_from(told.len()).expect("short")).await?;
    stream.write_all(&told).await
}
