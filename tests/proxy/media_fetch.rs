//! Images that requests only name (SPEC §4.6): refused by default, fetched by FLM and nobody else where the operator wants it, and never from
//! where nobody outside may look.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use flm::net::media_fetch::{Boxed, Found, MediaFetcher, Network};
use flm::proxy::limits::{ProxyLimits, RemoteMedia};
use flm::types::clock::Clock;
use flm::types::key::KeyLimits;
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Script};
use crate::media_scripts::{self, PNG};
use crate::{Answer, Proxy};

/// Knows some names, and leads every connection to one host on loopback, telling where it was meant to go.
struct Staged {
    host: SocketAddr,
    dialled: Mutex<Vec<SocketAddr>>,
}

impl Network for Staged {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Found>> {
        let address: Option<IpAddr> = match host {
            "images.example" => Some([93, 184, 216, 34].into()),
            "rebound.example" => Some([127, 0, 0, 1].into()),
            "metadata.example" => Some([169, 254, 169, 254].into()),
            _ => None,
        };
        let answer = address.map(|address| Found::Addresses(vec![SocketAddr::new(address, port)]));
        Box::pin(std::future::ready(answer.ok_or_else(|| io::Error::other("no such name"))))
    }

    fn connect(&self, address: SocketAddr) -> Boxed<'_, io::Result<TcpStream>> {
        self.dialled.lock().expect("a lock").push(address);
        Box::pin(TcpStream::connect(self.host))
    }

    fn connect_by_name<'a>(&'a self, _host: &'a str, _port: u16) -> Boxed<'a, io::Result<TcpStream>> {
        Box::pin(std::future::ready(Err(io::Error::other("every name of this network has addresses"))))
    }
}

struct Stage {
    proxy: Proxy,
    engine: FakeEngine,
    images: FakeEngine,
    network: Arc<Staged>,
}

impl Stage {
    /// A vLLM, which does not tell that its model has no eyes, behind a proxy; a host of images on the staged internet.
    async fn new(remote_media: RemoteMedia) -> Self {
        let redirect = {
            let mut reply = Reply::json(302, &Value::Null);
            reply.headers.insert("location", "http://127.0.0.1/secret".parse().expect("a value"));
            reply
        };
        let images = Script::new(Reply::json(404, &json!({})))
            .get("/a.png", media_scripts::reply("image/png", &[PNG]))
            .get("/page", media_scripts::reply("image/png", &[b"<html>"]))
            .get("/large", media_scripts::reply("image/png", &[&[0; 3000]]))
            .get("/away", redirect);
        let images = FakeEngine::start(images).await;
        let network = Arc::new(Staged { host: images.address, dialled: Mutex::default() });
        let limits = ProxyLimits { remote_media, image_bytes: 2000, ..ProxyLimits::default() };
        let fetcher = MediaFetcher::new(network.clone());
        let proxy = Proxy::staged(Clock::system(), limits, KeyLimits::default(), fetcher);
        // The recordings are of a model without eyes: they would refuse the image.
        let answer = Reply::recorded("vllm/0.32.0/chat");
        let engine =
            FakeEngine::start(engine_scripts::vllm().first(Method::POST, "/v1/chat/completions", answer)).await;
        proxy.engine("v", "vllm", &engine).await;
        Self { proxy, engine, images, network }
    }

    /// What the engine was asked for beyond its health.
    fn asked(&self) -> Vec<String> {
        let asked = self.engine.seen().asked.into_iter().filter(|asked| asked.method == Method::POST);
        asked.map(|asked| String::from_utf8_lossy(&asked.body).into_owned()).collect()
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.network.dialled.lock().expect("a lock").clone()
    }
}

/// The same request in each dialect that has words for an address, and the path that its refusal names.
fn dialects(url: &str) -> [(&'static str, Value, &'static str); 4] {
    let anthropic = json!({"model": "flm-tiny", "max_tokens": 8, "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": url}}]}]});
    [
        ("/v1/chat/completions", chat(url), "messages[0].content[1].image_url.url"),
        ("/v1/messages", anthropic.clone(), "messages[0].content[0].source.url"),
        ("/v1/messages/count_tokens", anthropic, "messages[0].content[0].source.url"),
        (
            "/v1/responses",
            json!({"model": "flm-tiny", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
            "input[0].content[0].image_url",
        ),
    ]
}

fn chat(url: &str) -> Value {
    json!({"model": "flm-tiny", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}]}]})
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn nothing_is_fetched_by_default_and_the_refusal_names_the_setting() {
    let stage = Stage::new(RemoteMedia::Refused).await;
    for (path, body, param) in dialects("http://images.example/a.png") {
        let answer = stage.proxy.post(path, &body).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(message(&answer).contains("media.fetch_remote"), "{path}: {}", answer.text());
        if !path.starts_with("/v1/messages") {
            assert_eq!(answer.json()["error"]["param"], param, "{path}");
        }
    }
    for body in [
        json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "x"}], "kv_transfer_params": {"remote_host": "10.0.0.1"}}),
        json!({"model": "flm-tiny", "messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://images.example/v"}}]}]}),
        json!({"model": "flm-tiny", "messages": [{"role": "user", "content": [{"type": "image_url", "IMAGE_URL": {"URL": "file:///etc/passwd"}}]}]}),
    ] {
        let answer = stage.proxy.post("/v1/chat/completions", &body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["error"]["code"].as_str()),
            (400, Some("invalid_request")),
            "{body}"
        );
    }
    assert_eq!((stage.asked(), stage.dialled()), (Vec::new(), Vec::new()));
    let talks =
        json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "read https://example.org/a.png"}]});
    assert_eq!(stage.proxy.post("/v1/chat/completions", &talks).await.status, 200, "text may name what it likes");
}

#[tokio::test]
async fn flm_fetches_the_image_and_the_engine_gets_it_inline_in_every_dialect() {
    let stage = Stage::new(RemoteMedia::Fetched).await;
    let mut inline = String::from("data:image/png;base64,");
    flm::wire::base64::encode(PNG, &mut inline);
    for (path, body, _) in dialects("http://images.example:8080/a.png?size=1#top") {
        let before = stage.asked().len();
        let answer = stage.proxy.post(path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let asked = stage.asked();
        assert_eq!(asked.len(), before + 1, "{path}");
        let last = asked.last().expect("asked");
        assert!(last.contains(&inline) && !last.contains("images.example"), "{path}: {last}");
    }
    let public = SocketAddr::from(([93, 184, 216, 34], 8080));
    assert_eq!(stage.dialled(), [public; 4]);
    let fetched = stage.images.seen().asked;
    assert_eq!(fetched[0].path, "/a.png?size=1");
    let mut names: Vec<&str> = fetched[0].headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"], "nothing of the client's goes there");
}

#[tokio::test]
async fn several_images_keep_their_places() {
    let stage = Stage::new(RemoteMedia::Fetched).await;
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let inline = "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQ==";
    let body = json!({"model": "flm-tiny", "messages": [
        {"role": "user", "content": [image("http://images.example/a.png"), {"type": "text", "text": "and"}, image(inline)]},
        {"role": "user", "content": [image("http://images.example/a.png")]},
    ]});
    assert_eq!(stage.proxy.post("/v1/chat/completions", &body).await.status, 200);
    let asked: Value = serde_json::from_str(stage.asked().last().expect("asked")).expect("JSON");
    let url = |message: usize, part: usize| {
        asked["messages"][message]["content"][part]["image_url"]["url"].as_str().unwrap_or_default()
    };
    assert!(
        url(0, 0).starts_with("data:image/png;base64,iVBOR") && url(1, 0).starts_with("data:image/png;base64,iVBOR")
    );
    assert_eq!((url(0, 2), asked["messages"][0]["content"][1]["text"].as_str()), (inline, Some("and")));
}

/// Case 31.
#[tokio::test]
async fn no_address_that_nobody_outside_may_reach_is_dialled() {
    let stage = Stage::new(RemoteMedia::Fetched).await;
    for url in [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://0x7f000001/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://100.64.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[fc00::1]/",
        "http://[fe80::1]/",
        "http://rebound.example/",
        "http://metadata.example/",
        "http://unknown.example/",
        "https://user:password@images.example/a.png",
        "ftp://images.example/a.png",
        "file:///etc/passwd",
    ] {
        for (path, body, _) in dialects(url) {
            let answer = stage.proxy.post(path, &body).await;
            assert_eq!(answer.status, 400, "{path} {url}: {}", answer.text());
            assert!(!answer.text().contains("127.0.0.1:"), "{}", answer.text());
        }
    }
    assert_eq!((stage.asked(), stage.dialled()), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn what_is_fetched_must_be_an_image_of_the_right_size_at_that_very_address() {
    let stage = Stage::new(RemoteMedia::Fetched).await;
    for (url, status, words) in [
        ("http://images.example/away", 400, "redirect"),
        ("http://images.example/none", 400, "404"),
        ("http://images.example/page", 415, "not a PNG, JPEG or WebP"),
        ("http://images.example/large", 400, "larger than 2000 bytes"),
    ] {
        let answer = stage.proxy.post("/v1/chat/completions", &chat(url)).await;
        assert_eq!(answer.status, status, "{url}: {}", answer.text());
        assert!(message(&answer).contains(words), "{url}: {}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "messages[0].content[1].image_url.url", "{url}");
    }
    assert_eq!(stage.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn only_images_of_requests_that_will_be_served_are_fetched() {
    let stage = Stage::new(RemoteMedia::Fetched).await;
    let mut unknown = chat("http://images.example/a.png");
    unknown["model"] = "no-such".into();
    assert_eq!(stage.proxy.post("/v1/chat/completions", &unknown).await.status, 404);
    let many: Vec<Value> =
        (0..17).map(|_| json!({"type": "image_url", "image_url": {"url": "http://images.example/a.png"}})).collect();
    let many = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": many}]});
    let answer = stage.proxy.post("/v1/chat/completions", &many).await;
    assert_eq!((answer.status.as_u16(), message(&answer).contains("at most 16")), (400, true), "{}", answer.text());
    // Beside an image that would be fetched, something that nobody fetches.
    let mut beside = chat("http://images.example/a.png");
    beside["tools"] = json!([{"type": "mcp", "server_url": "http://127.0.0.1:1"}]);
    let answer = stage.proxy.post("/v1/chat/completions", &beside).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["param"].as_str()), (400, Some("tools[0].server_url")));
    let ollama = json!({"model": "flm-tiny", "messages": [{"role": "user", "content": "x", "images": ["http://images.example/a.png"]}]});
    assert_eq!(stage.proxy.post("/api/chat", &ollama).await.status, 400, "Ollama's API has no words for an address");
    assert_eq!((stage.asked(), stage.dialled()), (Vec::new(), Vec::new()));
}
