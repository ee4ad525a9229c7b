//! Sounds, images and ranks (SPEC §4.1, §4.6): every route through engines that can and engines that cannot, and what is refused before
//! any engine is troubled.

use std::time::Duration;

use bytes::Bytes;
use flm::proxy::limits::ProxyLimits;
use flm::types::key::KeyLimits;
use flm::types::request::{RequestEnd, TokenSource};
use flm::wire::multipart::{self, IsFile, Written};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};
use crate::media_scripts::{self, IMAGE_EVENTS, MODEL, PNG, SRT, TRANSCRIPT_EVENTS, WAV};
use crate::{Answer, Proxy};

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
const TRANSLATIONS: &str = "/v1/audio/translations";
const EDITS: &str = "/v1/images/edits";

/// A part of a client's form.
fn file<'a>(name: &'static str, content: &'a [u8]) -> Written<'a> {
    // What a client calls it tells nothing.
    Written { name, file: Some(("../../etc/passwd", "text/html")), content }
}

fn field<'a>(name: &'static str, text: &'a str) -> Written<'a> {
    Written { name, file: None, content: text.as_bytes() }
}

impl Proxy {
    fn form(&self, path: &str, parts: &[Written<'_>]) -> Request<Full<Bytes>> {
        let (media_type, body) = multipart::write(parts, || 42);
        self.raw(path, &media_type, body)
    }

    fn raw(&self, path: &str, media_type: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = self.request(Method::POST, path, None);
        request.headers_mut().insert("content-type", media_type.parse().expect("a value"));
        *request.body_mut() = Full::new(body);
        request
    }
}

/// A proxy with the strict server behind it.
async fn staged(limits: ProxyLimits, key_limits: KeyLimits) -> (Proxy, FakeEngine) {
    let proxy = Proxy::with(limits, key_limits);
    let engine = FakeEngine::start(media_scripts::media()).await;
    proxy.engine("m", "openai", &engine).await;
    (proxy, engine)
}

/// Status, code and param of a refusal.
fn told(answer: &Answer) -> (u16, String, Option<String>) {
    let error = &answer.json()["error"];
    let text = |name: &str| error[name].as_str().map(str::to_owned);
    (answer.status.as_u16(), text("code").unwrap_or_default(), text("param"))
}

fn refusal(status: u16, code: &str, param: Option<&str>) -> (u16, String, Option<String>) {
    (status, code.to_owned(), param.map(str::to_owned))
}

fn good(path: &str) -> Value {
    match path {
        "/v1/rerank" => json!({"model": MODEL, "query": "hello", "documents": ["word", "hello there"]}),
        "/v1/images/generations" => json!({"model": MODEL, "prompt": "a cat"}),
        _ => json!({"model": MODEL, "input": "hello", "voice": "alloy"}),
    }
}

#[tokio::test]
async fn a_recording_is_transcribed_in_every_format_and_the_engine_gets_a_form_of_flms_own() {
    let (proxy, engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    for (path, format, media_type, says) in [
        (TRANSCRIPTIONS, None, "application/json", "\"text\":\"hello there\""),
        (TRANSCRIPTIONS, Some("json"), "application/json", "\"text\":\"hello there\""),
        (TRANSCRIPTIONS, Some("verbose_json"), "application/json", "\"segments\""),
        (TRANSCRIPTIONS, Some("text"), "text/plain; charset=utf-8", "hello there\n"),
        (TRANSCRIPTIONS, Some("srt"), "text/plain; charset=utf-8", SRT),
        (TRANSCRIPTIONS, Some("vtt"), "text/plain; charset=utf-8", "WEBVTT\n\nhello there\n"),
        (TRANSLATIONS, None, "application/json", "\"text\":\"hello there\""),
        (TRANSLATIONS, Some("srt"), "text/plain; charset=utf-8", SRT),
    ] {
        let mut parts = vec![file("file", WAV), field("model", MODEL), field("temperature", "0.2"), field("evil", "x")];
        parts.extend(format.map(|format| field("response_format", format)));
        let answer = proxy.send(proxy.form(path, &parts)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, Some(media_type)),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains(says), "{format:?}: {}", answer.text());
        let asked = engine.seen().asked.pop().expect("asked");
        assert_eq!(asked.path, path);
        let seen = media_scripts::parts(&asked).expect("a form");
        let mut names: Vec<&str> = seen.iter().map(|part| part.name.as_str()).collect();
        names.retain(|name| *name != "response_format");
        assert_eq!(names, ["model", "temperature", "file"], "what no route knows is left out");
        let audio = seen.iter().find(|part| part.is_file == IsFile::File).expect("a file");
        assert_eq!(&audio.content[..], WAV);
        let body = asked.body.to_vec();
        assert!(memchr::memmem::find(&body, b"filename=\"audio.wav\"\r\ncontent-type: audio/wav").is_some());
        assert!(
            memchr::memmem::find(&body, b"passwd").is_none()
                && memchr::memmem::find(&body, b"flm-000000000000000000000000000000000000000000002a").is_none()
        );
        assert!(!asked.headers.contains_key("authorization"), "the client's key stays here");
    }
    let row = proxy.row(|row| row.route.as_deref() == Some("audio.transcriptions") && row.tokens.prompt == 14).await;
    assert_eq!((row.tokens.completion, row.tokens.source, row.model.as_deref()), (4, TokenSource::Engine, Some(MODEL)));
    assert!(row.bytes_in > WAV.len() as u64 && row.engine.is_some());
    let row = proxy.row(|row| row.route.as_deref() == Some("audio.translations") && row.tokens.prompt == 0).await;
    assert_eq!(row.tokens, flm::types::request::TokenUsage::default(), "SRT tells no counts, and none are made up");
}

#[tokio::test]
async fn streams_of_transcripts_images_and_speech_pass_event_by_event() {
    let (proxy, _engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    let audio = [file("file", WAV), field("model", MODEL), field("stream", "true")];
    let image = [file("image", PNG), field("model", MODEL), field("prompt", "a hat"), field("stream", "true")];
    let mut generation = good("/v1/images/generations");
    generation["stream"] = true.into();
    let mut speech = good("/v1/audio/speech");
    speech["stream_format"] = "sse".into();
    for (request, events, tokens) in [
        (proxy.form(TRANSCRIPTIONS, &audio), TRANSCRIPT_EVENTS.concat(), (14, 4)),
        (proxy.form(EDITS, &image), IMAGE_EVENTS.concat(), (50, 50)),
        (proxy.request(Method::POST, "/v1/images/generations", Some(&generation)), IMAGE_EVENTS.concat(), (50, 50)),
        (proxy.request(Method::POST, "/v1/audio/speech", Some(&speech)), "speech.audio.done".to_owned(), (3, 9)),
    ] {
        let path = request.uri().path().to_owned();
        let answer = proxy.send(request).await;
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"), "{path}");
        assert!(answer.text().contains(&events), "{path}: {}", answer.text());
        let row = proxy.row(|row| row.path == path && row.tokens.prompt > 0).await;
        assert_eq!((row.tokens.prompt, row.tokens.completion, row.stream), (tokens.0, tokens.1, true), "{path}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_or_was_never_one_is_told_in_the_clients_words() {
    let cut = Reply::stream(TRANSCRIPT_EVENTS).cut_after(1, Step::Die);
    let document = Reply::json(200, &json!({"text": "all at once"}));
    for (reply, end) in [(cut, "\"code\":\"engine_error\""), (document, "transcript.text.done")] {
        let proxy = Proxy::start();
        let script = media_scripts::media().first(Method::POST, TRANSCRIPTIONS, reply);
        let engine = FakeEngine::start(script).await;
        proxy.engine("m", "openai", &engine).await;
        let parts = [file("file", WAV), field("model", MODEL), field("stream", "true")];
        let answer = proxy.send(proxy.form(TRANSCRIPTIONS, &parts)).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("transcript.text.delta") && answer.text().contains(end), "{}", answer.text());
    }
}

#[tokio::test]
async fn images_are_made_and_edited() {
    let (proxy, engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    let mut asked = good("/v1/images/generations");
    asked["style"] = "vivid".into();
    let answer = proxy.post("/v1/images/generations", &asked).await;
    assert_eq!((answer.status.as_u16(), answer.json()["data"][0]["b64_json"].as_str()), (200, Some("iVBORw0KGgo=")));
    assert_eq!(engine.seen().asked.pop().expect("asked").json(), asked, "JSON passes as it came");
    let parts = [
        file("image[]", PNG),
        file("image[]", PNG),
        file("mask", PNG),
        field("prompt", "a hat"),
        field("n", "2"),
        field("model", MODEL),
    ];
    let answer = proxy.send(proxy.form(EDITS, &parts)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = media_scripts::parts(engine.seen().asked.last().expect("asked")).expect("a form");
    let names: Vec<&str> = seen.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["model", "prompt", "n", "image[]", "image[]", "mask"]);
    for route in ["images.generations", "images.edits"] {
        let row = proxy.row(|row| row.route.as_deref() == Some(route)).await;
        assert_eq!((row.tokens.prompt, row.tokens.completion), (50, 50), "{route}");
    }
}

#[tokio::test]
async fn speech_passes_byte_by_byte_and_nothing_but_sound_does() {
    let gate = CancellationToken::new();
    let mut slow = media_scripts::reply("audio/wav", &[b"RIFF"]);
    slow.steps.extend([Step::Until(gate.clone()), Step::Send(Bytes::from_static(b"rest\n\n"))]);
    let page = media_scripts::reply("text/html", &[b"<script>"]);
    let script = media_scripts::media()
        .first_when(Method::POST, "/v1/audio/speech", |asked| asked.json()["input"] == "slow", slow)
        .first_when(Method::POST, "/v1/audio/speech", |asked| asked.json()["input"] == "page", page)
        .first_when(
            Method::POST,
            "/v1/audio/speech",
            |asked| asked.json()["input"] == "nothing",
            media_scripts::reply("audio/mpeg", &[]),
        );
    let proxy = Proxy::start();
    let engine = FakeEngine::start(script).await;
    proxy.engine("m", "openai", &engine).await;
    let say = |input: &str| json!({"model": MODEL, "input": input, "voice": "alloy"});

    let answer = proxy.post("/v1/audio/speech", &say("hello")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("audio/mpeg")));
    assert_eq!(&answer.body[..], b"ID3\x04\0\n\n\xff\xfb\n\x90\0\n");
    assert!(answer.header("x-request-id").is_some());
    let row = proxy.ended(RequestEnd::Completed).await;
    assert_eq!(
        (row.tokens, row.bytes_out),
        (flm::types::request::TokenUsage::default(), 13),
        "line ends in a sound are no tokens"
    );

    let mut body = proxy.open(proxy.request(Method::POST, "/v1/audio/speech", Some(&say("slow")))).await.into_body();
    let first =
        tokio::time::timeout(PATIENCE, body.frame()).await.expect("before the engine goes on").expect("a frame");
    assert_eq!(first.expect("no error").into_data().expect("data"), "RIFF");
    gate.cancel();
    let rest = tokio::time::timeout(PATIENCE, body.collect()).await.expect("in time").expect("a body").to_bytes();
    assert_eq!(rest, "rest\n\n");
    for input in ["page", "nothing"] {
        let answer = proxy.post("/v1/audio/speech", &say(input)).await;
        assert_eq!(told(&answer), refusal(502, "engine_error", None), "{input}");
    }
}

#[tokio::test]
async fn documents_are_ranked_by_every_engine_that_can() {
    for (kind, script, model, first, tokens) in [
        ("openai", media_scripts::media(), MODEL, 1, 20),
        ("vllm", engine_scripts::vllm_embed(), "flm-embed", 1, 20),
        ("llamacpp", engine_scripts::llamacpp_rerank(), "flm-embed", 0, 27),
    ] {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine("r", kind, &engine).await;
        let mut asked = good("/v1/rerank");
        asked["model"] = model.into();
        asked["top_n"] = 2.into();
        let answer = proxy.post("/v1/rerank", &asked).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        assert_eq!(answer.json()["results"][0]["index"], first, "{kind}");
        assert_eq!(engine.seen().asked.last().expect("asked").json(), asked, "{kind}");
        let row = proxy.ended(RequestEnd::Completed).await;
        assert_eq!((row.tokens.prompt, row.tokens.completion), (tokens, 0), "{kind}");
    }
}

/// A good request for a route and a model.
fn request(proxy: &Proxy, path: &str, model: &str) -> Request<Full<Bytes>> {
    match path {
        TRANSCRIPTIONS | TRANSLATIONS => proxy.form(path, &[file("file", WAV), field("model", model)]),
        EDITS => proxy.form(path, &[file("image", PNG), field("model", model), field("prompt", "x")]),
        _ => {
            let mut body = good(path);
            body["model"] = model.into();
            proxy.request(Method::POST, path, Some(&body))
        }
    }
}

const ROUTES: [&str; 6] =
    ["/v1/rerank", "/v1/images/generations", EDITS, TRANSCRIPTIONS, TRANSLATIONS, "/v1/audio/speech"];

#[tokio::test]
async fn what_a_model_or_an_engine_cannot_is_said_clearly_and_not_tried_again() {
    let proxy = Proxy::start();
    let ollama = FakeEngine::start(engine_scripts::ollama()).await;
    proxy.engine("ollama", "ollama", &ollama).await;
    let lmstudio = FakeEngine::start(engine_scripts::lmstudio()).await;
    proxy.engine("lms", "lmstudio", &lmstudio).await;
    let before = (ollama.seen().asked.len(), lmstudio.seen().asked.len());
    for path in ROUTES {
        for model in ["tiny:latest", "tiny"] {
            let answer = proxy.send(request(&proxy, path, model)).await;
            assert_eq!(told(&answer), refusal(422, "unsupported_modalities", Some("model")), "{path} {model}");
        }
    }
    assert_eq!((ollama.seen().asked.len(), lmstudio.seen().asked.len()), before, "no engine was troubled");

    let hears = json!({"modalities": {"vision": false, "audio": true}, "build_info": "b11434", "total_slots": 1});
    let hearing = engine_scripts::llamacpp().first(Method::GET, "/props", Reply::json(200, &hears));
    for (kind, script, model, paths, words) in [
        (
            "vllm",
            engine_scripts::vllm(),
            "flm-tiny",
            &["/v1/rerank", TRANSCRIPTIONS, TRANSLATIONS][..],
            "does not offer this route",
        ),
        ("llamacpp", engine_scripts::llamacpp(), "flm-tiny", &["/v1/rerank"][..], "--reranking"),
        ("llamacpp", hearing, "flm-tiny", &[TRANSLATIONS][..], "has no route /v1/audio/translations"),
    ] {
        let proxy = Proxy::start();
        let engine = FakeEngine::start(script).await;
        proxy.engine("e", kind, &engine).await;
        for path in paths {
            let answer = proxy.send(request(&proxy, path, model)).await;
            assert_eq!(told(&answer), refusal(501, "not_implemented", None), "{kind} {path}");
            assert!(answer.text().contains(words), "{}", answer.text());
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{kind} {path}");
        }
    }
}

#[tokio::test]
async fn rights_budgets_and_unknown_models_hold_on_every_route() {
    let models = KeyLimits { models: vec!["flm://other/*".to_owned()], ..KeyLimits::default() };
    let (proxy, engine) = staged(ProxyLimits::default(), models).await;
    let before = engine.seen().asked.len();
    for path in ROUTES {
        let answer = proxy.send(request(&proxy, path, MODEL)).await;
        assert_eq!(told(&answer), refusal(403, "model_not_allowed", Some("model")), "{path}");
        let answer = proxy.send(request(&proxy, path, "no-such")).await;
        assert_eq!(told(&answer), refusal(404, "model_not_found", Some("model")), "{path}");
    }
    let routes = KeyLimits { routes: vec!["/v1/chat/*".to_owned()], ..KeyLimits::default() };
    let (other, other_engine) = staged(ProxyLimits::default(), routes).await;
    for path in ROUTES {
        let answer = other.send(request(&other, path, MODEL)).await;
        assert_eq!(told(&answer), refusal(403, "permission_denied", None), "{path}");
    }
    assert_eq!(
        (engine.seen().asked.len(), other_engine.seen().asked.len()),
        (before, before),
        "no engine was troubled"
    );

    let budget = KeyLimits { tokens_per_day: Some(1), ..KeyLimits::default() };
    let (spender, _engine) = staged(ProxyLimits::default(), budget).await;
    assert_eq!(spender.send(request(&spender, TRANSCRIPTIONS, MODEL)).await.status, 200);
    for path in ROUTES {
        let answer = spender.send(request(&spender, path, MODEL)).await;
        assert_eq!(told(&answer), refusal(429, "budget_exceeded", None), "{path}");
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{path}");
    }
}

#[tokio::test]
async fn a_form_goes_to_the_next_engine_when_the_first_fails() {
    let proxy = Proxy::start();
    let busy = Reply::json(503, &json!({"error": {"message": "loading"}}));
    let first = FakeEngine::start(media_scripts::media().first(Method::POST, TRANSCRIPTIONS, busy)).await;
    let second = FakeEngine::start(media_scripts::media()).await;
    proxy.engine("a", "openai", &first).await;
    proxy.engine("b", "openai", &second).await;
    for _ in 0..2 {
        let answer = proxy.send(request(&proxy, TRANSCRIPTIONS, MODEL)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(second.seen().asked.iter().filter(|asked| asked.path == TRANSCRIPTIONS).count(), 2);
}

/// Path, parts, and status, code and param of the refusal.
type WrongForm<'a> = (&'a str, Vec<Written<'a>>, (u16, &'a str, Option<&'a str>));

#[tokio::test]
async fn wrong_forms_are_refused_with_the_field_and_no_engine_is_troubled() {
    let (proxy, engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    proxy.shared.guard.set_policy(crate::no_address_limits());
    let before = engine.seen().asked.len();
    let (model, sound, image, prompt) =
        (field("model", MODEL), file("file", WAV), file("image", PNG), field("prompt", "x"));
    let mut cases: Vec<WrongForm<'_>> = Vec::new();
    for path in [TRANSCRIPTIONS, TRANSLATIONS] {
        cases.extend([
            (path, vec![model], (400, "invalid_request", Some("file"))),
            (path, vec![sound], (400, "invalid_model", Some("model"))),
            (path, vec![sound, field("model", "")], (400, "invalid_model", Some("model"))),
            (path, vec![sound, model, model], (400, "invalid_request", Some("model"))),
            (path, vec![sound, sound, model], (400, "invalid_request", Some("file"))),
            (path, vec![field("file", "RIFF"), model], (400, "invalid_request", Some("file"))),
            (path, vec![file("file", PNG), model], (415, "unsupported_media_type", Some("file"))),
            (path, vec![file("file", b""), model], (415, "unsupported_media_type", Some("file"))),
            (path, vec![file("file", b"<html>"), model], (415, "unsupported_media_type", Some("file"))),
            (path, vec![sound, file("other", WAV), model], (400, "invalid_request", Some("other"))),
            (path, vec![sound, model, field("temperature", "hot")], (400, "invalid_request", Some("temperature"))),
            (path, vec![sound, model, field("stream", "perhaps")], (400, "invalid_request", Some("stream"))),
            (
                path,
                vec![sound, model, field("response_format", "html")],
                (400, "invalid_request", Some("response_format")),
            ),
            (path, vec![sound, model, file("prompt", b"x")], (400, "invalid_request", Some("prompt"))),
            (
                path,
                vec![sound, model, Written { name: "prompt", file: None, content: b"\xff" }],
                (400, "invalid_request", Some("prompt")),
            ),
        ]);
    }
    let references = field("known_speaker_references[]", "http://169.254.169.254/");
    cases.push((
        TRANSCRIPTIONS,
        vec![sound, model, references],
        (400, "invalid_request", Some("known_speaker_references[]")),
    ));
    cases.extend([
        (EDITS, vec![model, prompt], (400, "invalid_request", Some("image"))),
        (EDITS, vec![image, prompt], (400, "invalid_model", Some("model"))),
        (EDITS, vec![file("image", b"GIF89a"), model, prompt], (415, "unsupported_media_type", Some("image"))),
        (EDITS, vec![image, file("mask", WAV), model, prompt], (415, "unsupported_media_type", Some("mask"))),
        (EDITS, vec![image, file("mask", PNG), file("mask", PNG), model], (400, "invalid_request", Some("mask"))),
        (EDITS, vec![image, model, prompt, field("n", "many")], (400, "invalid_request", Some("n"))),
        (
            EDITS,
            [vec![file("image[]", PNG); 17], vec![model, prompt]].concat(),
            (400, "invalid_request", Some("image")),
        ),
    ]);
    for (path, parts, (status, code, param)) in &cases {
        let answer = proxy.send(proxy.form(path, parts)).await;
        let names: Vec<&str> = parts.iter().map(|part| part.name).collect();
        assert_eq!(told(&answer), refusal(*status, code, *param), "{path} {names:?}: {}", answer.text());
    }

    let (media_type, body) = multipart::write(&[sound, model], || 7);
    for path in [TRANSCRIPTIONS, TRANSLATIONS, EDITS] {
        for (media_type, body, wanted) in [
            (media_type.as_str(), body.slice(..body.len() / 2), refusal(400, "invalid_request", None)),
            (media_type.as_str(), body.slice(..body.len() - 4), refusal(400, "invalid_request", None)),
            (media_type.as_str(), Bytes::new(), refusal(400, "invalid_request", None)),
            (media_type.as_str(), Bytes::from_static(b"hello"), refusal(400, "invalid_request", None)),
            ("multipart/form-data; boundary=other", body.clone(), refusal(400, "invalid_request", None)),
            ("multipart/form-data", body.clone(), refusal(400, "invalid_request", None)),
            ("multipart/form-data; boundary=a; boundary=b", body.clone(), refusal(400, "invalid_request", None)),
            ("application/json", body.clone(), refusal(415, "unsupported_media_type", None)),
            ("multipart/mixed; boundary=x", body.clone(), refusal(415, "unsupported_media_type", None)),
            ("audio/wav", Bytes::from_static(WAV), refusal(415, "unsupported_media_type", None)),
        ] {
            let answer = proxy.send(proxy.raw(path, media_type, body)).await;
            assert_eq!(told(&answer), wanted, "{path} {media_type}: {}", answer.text());
        }
        let mut encoded = proxy.raw(path, &media_type, body.clone());
        encoded.headers_mut().insert("content-encoding", "gzip".parse().expect("a value"));
        assert_eq!(told(&proxy.send(encoded).await), refusal(415, "unsupported_media_type", None), "{path}");
    }
    assert_eq!(engine.seen().asked.len(), before, "no engine was troubled");
}

#[tokio::test]
async fn files_and_images_over_their_limits_are_refused_at_the_byte() {
    let (proxy, engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    let sound = |size: usize| [WAV, &vec![0; size - WAV.len()]].concat();
    let image = |size: usize| [PNG, &vec![0; size - PNG.len()]].concat();
    let model = field("model", MODEL);
    let fits = sound(25 << 20);
    assert_eq!(proxy.send(proxy.form(TRANSCRIPTIONS, &[file("file", &fits), model])).await.status, 200);
    assert_eq!(media_scripts::parts(engine.seen().asked.last().expect("asked")).expect("a form")[1].content, fits);
    let over = sound((25 << 20) + 1);
    for path in [TRANSCRIPTIONS, TRANSLATIONS] {
        let answer = proxy.send(proxy.form(path, &[file("file", &over), model])).await;
        assert_eq!(told(&answer), refusal(413, "payload_too_large", Some("file")), "{path}");
    }
    let prompt = field("prompt", "x");
    let (fits, over) = (image(8 << 20), image((8 << 20) + 1));
    assert_eq!(proxy.send(proxy.form(EDITS, &[file("image", &fits), model, prompt])).await.status, 200);
    let answer = proxy.send(proxy.form(EDITS, &[file("image", &over), model, prompt])).await;
    assert_eq!(told(&answer), refusal(413, "payload_too_large", Some("image")));
    let answer = proxy.send(proxy.form(EDITS, &[file("image", &fits), file("mask", &over), model, prompt])).await;
    assert_eq!(told(&answer), refusal(413, "payload_too_large", Some("mask")));

    // Announced beyond what any form may be: refused before it is read.
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary=x\r\ncontent-length: 40000000\r\n\r\n--x\r\n",
        proxy.key
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut status = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("in time").expect("reads");
    assert_eq!(&status, b"HTTP/1.1 413");
}

/// A chat about an image.
fn look(url: &str) -> Value {
    let parts = json!([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]);
    json!({"model": MODEL, "messages": [{"role": "user", "content": parts}], "max_tokens": 8})
}

#[tokio::test]
async fn images_inside_of_messages_are_known_by_their_bytes_in_every_dialect() {
    let (proxy, engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    let before = engine.seen().asked.len();
    let path = Some("messages[0].content[1].image_url.url");
    let mut large = String::from("data:image/png;base64,");
    flm::wire::base64::encode(&[PNG, &vec![0; (8 << 20) + 1 - PNG.len()]].concat(), &mut large);
    for (url, wanted) in [
        ("data:image/png;base64,R0lGODlhAQABAA==", refusal(415, "unsupported_media_type", path)),
        ("data:image/png;base64,%%%", refusal(400, "invalid_request", path)),
        ("data:image/png,raw", refusal(400, "invalid_request", path)),
        ("/etc/passwd", refusal(415, "unsupported_media_type", path)),
        (&large, refusal(413, "payload_too_large", path)),
    ] {
        assert_eq!(told(&proxy.post("/v1/chat/completions", &look(url)).await), wanted, "{url:.60}");
    }
    let source = json!({"type": "base64", "media_type": "image/png", "data": "R0lGODlhAQABAA=="});
    let anthropic = json!({"model": MODEL, "max_tokens": 8,
        "messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]});
    let answer = proxy.post("/v1/messages", &anthropic).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error"]["type"].as_str()), (415, Some("invalid_request_error")));
    let responses = json!({"model": MODEL, "input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:image/png;base64,R0lGODlhAQABAA=="}]}]});
    assert_eq!(proxy.post("/v1/responses", &responses).await.status, 415);
    let ollama =
        json!({"model": MODEL, "messages": [{"role": "user", "content": "look", "images": ["R0lGODlhAQABAA=="]}]});
    assert_eq!(proxy.post("/api/chat", &ollama).await.status, 415);
    assert_eq!(engine.seen().asked.len(), before, "no engine was troubled");
}

#[tokio::test]
async fn an_image_for_a_model_without_eyes_is_refused_before_the_engine_is_asked() {
    let proxy = Proxy::start();
    let engine = FakeEngine::start(engine_scripts::llamacpp()).await;
    proxy.engine("l", "llamacpp", &engine).await;
    let before = engine.seen().asked.len();
    let mut chat = look("data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==");
    chat["model"] = "flm-tiny".into();
    let answer = proxy.post("/v1/chat/completions", &chat).await;
    assert_eq!(told(&answer), refusal(422, "unsupported_modalities", Some("model")));
    assert!(answer.text().contains("images in messages"), "{}", answer.text());
    assert_eq!(engine.seen().asked.len(), before);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_an_upload_troubles_no_engine() {
    let (proxy, engine) = staged(ProxyLimits::default(), KeyLimits::default()).await;
    let before = engine.seen().asked.len();
    let (media_type, body) = multipart::write(&[file("file", WAV), field("model", MODEL)], || 7);
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
        proxy.key,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    stream.write_all(&body[..body.len() / 2]).await.expect("writes");
    stream.flush().await.expect("writes");
    drop(stream);
    let row = proxy.row(|row| row.route.as_deref() == Some("audio.transcriptions")).await;
    assert_ne!(row.status, 200, "{row:?}");
    assert_eq!(engine.seen().asked.len(), before);
    assert_eq!(proxy.send(request(&proxy, TRANSCRIPTIONS, MODEL)).await.status, 200, "others are served");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_sound_ends_the_engines_work() {
    let mut endless = media_scripts::reply("audio/mpeg", &[b"ID3"]);
    endless.steps.push(Step::Stall);
    let proxy = Proxy::start();
    let engine = FakeEngine::start(media_scripts::media().first(Method::POST, "/v1/audio/speech", endless)).await;
    proxy.engine("m", "openai", &engine).await;
    let mut body =
        proxy.open(proxy.request(Method::POST, "/v1/audio/speech", Some(&good("/v1/audio/speech")))).await.into_body();
    tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("no error");
    drop(body);
    engine.wait_until(|seen| seen.left == 1).await;
    let row = proxy.ended(RequestEnd::ClientLeft).await;
    assert_eq!((row.route.as_deref(), row.bytes_out), (Some("audio.speech"), 3));
}

#[tokio::test]
async fn an_upload_that_makes_no_progress_is_ended() {
    let limits = ProxyLimits { body_idle: Duration::from_millis(100), ..ProxyLimits::default() };
    let (proxy, _engine) = staged(limits, KeyLimits::default()).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("connects");
    let head = format!(
        "POST {EDITS} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 1000\r\n\r\n--x\r\n",
        proxy.key
    );
    stream.write_all(head.as_bytes()).await.expect("writes");
    let mut status = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut status)).await.expect("in time").expect("reads");
    assert_eq!(&status, b"HTTP/1.1 408");
}
