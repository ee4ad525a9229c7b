//! `flm chat`, `flm bench` and `flm models compare`: real requests through the real proxy, in front of fake engines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::engine_scripts as scripts;
use crate::fake_engine::{FakeEngine, Reply, Script, Step};
use crate::home::{Home, PATIENCE, wait_until};
use crate::{redacted, run, text};

/// The model of the recordings.
const MODEL: &str = "flm-tiny";

/// A home whose proxy stands in front of one engine, on a runtime of its own.
struct Place {
    home: Home,
    engine: FakeEngine,
    runtime: Runtime,
}

fn place(script: Script) -> Place {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(script));
    let home = Home::new();
    home.start_proxy();
    home.answer(&["engines", "add", "--kind", "llamacpp", "--id", "lab", "--url", &engine.url()]);
    home.answer(&["models", "refresh"]);
    Place { home, engine, runtime }
}

/// A stream of these words.
fn words(words: &[&str]) -> Vec<String> {
    let chunk = |delta: Value, end: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": end});
        let chunk =
            json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let mut all: Vec<_> = words.iter().map(|word| chunk(json!({ "content": word }), Value::Null)).collect();
    all.push(chunk(json!({}), json!("stop")));
    let usage = json!({"prompt_tokens": 3, "completion_tokens": words.len(), "total_tokens": 3 + words.len()});
    let last = json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [],
        "usage": usage});
    all.push(format!("data: {last}\n\n"));
    all.push("data: [DONE]\n\n".to_owned());
    all
}

fn says(spoken: &[&str]) -> Reply {
    let pieces = words(spoken);
    Reply::stream(&pieces.iter().map(String::as_str).collect::<Vec<_>>())
}

fn chats(reply: Reply) -> Script {
    scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply)
}

#[test]
fn an_answer_comes_whole_or_in_pieces_with_its_request_id_and_times() {
    let place = place(scripts::llamacpp());
    let whole = place.home.answer(&["chat", "--model", MODEL, "--prompt", "hi"]);
    assert_eq!((&whole["status"], &whole["usage"]["source"]), (&json!(200), &json!("engine")));
    assert!(
        !whole["text"].as_str().expect("text").is_empty() && whole["timing"]["first_token_ms"].is_null(),
        "{whole}"
    );
    assert!(whole["timing"]["total_ms"].as_f64().expect("a time") > 0.0, "{whole}");

    let ended = run(&place.home, &["chat", "--model", MODEL, "--prompt", "hi", "--stream", "--format", "json"]);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, progress) = lines.split_last().expect("lines");
    let id = last["data"]["request_id"].as_str().expect("an id");
    assert_eq!(progress[0]["progress"], json!({"begun": {"status": 200, "request_id": id}}));
    let told: String = progress[1..].iter().filter_map(|line| line["progress"]["text"].as_str()).collect();
    assert_eq!(last["data"]["text"], told.as_str());
    assert!(progress.len() > 3 && last["data"]["timing"]["first_token_ms"].is_f64(), "{last}");

    // It went the way of every request.
    wait_until("the request is logged under its id and its key's label", PATIENCE, || {
        let requests = place.home.answer(&["logs", "requests", "--since", "1h"]).to_string();
        requests.contains(id) && requests.contains("flm chat")
    });
    let used = place.home.answer(&["usage", "--by", "key"]);
    assert_eq!((&used["rows"][0]["label"], &used["rows"][0]["requests"]), (&json!("flm itself"), &json!(2)));
    assert_eq!(place.home.answer(&["api-keys", "list"]), json!([]), "its key is in no list");
}

#[test]
fn a_person_reads_the_words_on_stdout_and_the_rest_on_stderr() {
    let place = place(chats(says(&["Blue ", "light\n", "scatters."])));
    let ended = run(&place.home, &["chat", "--model", MODEL, "--prompt", "hi", "--stream", "--format", "text"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "Blue light\nscatters.\n"), "{}", ended.err);
    assert!(ended.err.starts_with("req_") && ended.err.contains(" · 200 · first token "), "{}", ended.err);
    assert!(ended.err.contains("3 + 3 tokens"), "{}", ended.err);
}

#[test]
fn the_question_comes_from_stdin_a_file_or_nowhere() {
    let place = place(chats(says(&["ok"])));
    let mut command = place.home.flm(&["chat", "--model", MODEL, "--stream", "--format", "text"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all("why?".as_bytes()).expect("writes");
    assert!(child.wait_with_output().expect("ends").status.success());
    let file = place.home.path().join("question.txt");
    std::fs::write(&file, "from a file").expect("writes");
    text(&place.home, &["chat", "--model", MODEL, "--stream", "--prompt-file", file.to_str().expect("UTF-8")]);
    let asked: Vec<_> = place.engine.seen().asked.iter().map(|asked| asked.json()["messages"][0].clone()).collect();
    let asked: Vec<_> = asked.iter().filter_map(|message| message["content"].as_str()).collect();
    assert_eq!(asked, ["why?", "from a file"]);
    let error = run(&place.home, &["chat", "--model", MODEL]).error();
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("INVALID_ARGUMENT"), &json!("there is no question to ask"))
    );
}

#[test]
fn a_refusal_shows_status_code_message_request_id_and_a_hint() {
    let place = place(scripts::llamacpp());
    let ended = run(&place.home, &["chat", "--model", "nobody-has-it", "--prompt", "hi", "--format", "json"]);
    let error = ended.error();
    assert_eq!((ended.code, &error["code"]), (1, &json!("NOT_FOUND")));
    let message = error["message"].as_str().expect("text");
    assert!(message.starts_with("the endpoint answered 404 model_not_found: The model 'nobody-has-it'"), "{message}");
    assert!(error["request_id"].as_str().expect("an id").starts_with("req_"), "{error}");
    let ended = run(&place.home, &["chat", "--model", "nobody-has-it", "--prompt", "hi", "--format", "text"]);
    assert!(ended.err.contains("\nrequest: req_") && ended.err.contains("hint: list the models with"), "{}", ended.err);
}

#[test]
fn an_answer_that_breaks_off_says_so_after_what_came() {
    let place = place(chats(says(&["one ", "two ", "three"]).cut_after(2, Step::Die)));
    let ended = run(&place.home, &["chat", "--model", MODEL, "--prompt", "hi", "--stream", "--format", "text"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, "one two \n"), "{}", ended.err);
    assert!(ended.err.contains("the answer broke off with") && ended.err.contains("request: req_"), "{}", ended.err);
}

#[test]
fn without_a_proxy_it_says_how_to_start_one() {
    let home = Home::new();
    for command in [
        &["chat", "--model", "m", "--prompt", "hi"][..],
        &["bench"],
        &["models", "compare", "a", "b", "--prompt", "hi"],
    ] {
        let ended = run(&home, command);
        let error = ended.error_of_the_end();
        assert_eq!((ended.code, &error["hint"]), (1, &json!("start it with: flm proxy start")), "{error}");
    }
    let place = place(scripts::llamacpp());
    // A second listener.
    place.home.start_proxy();
    for _ in 0..2 {
        let port = place.home.proxy_port().expect("a listener").to_string();
        // With one of two listeners gone, the other is asked; with none, it says so.
        place.home.answer(&["chat", "--model", MODEL, "--prompt", "hi"]);
        place.home.answer(&["proxy", "stop", "--port", &port]);
    }
    let error = run(&place.home, &["chat", "--model", MODEL, "--prompt", "hi"]).error();
    assert_eq!(error["hint"], "start one with: flm proxy start");
}

#[test]
fn ctrl_c_ends_the_engines_work_and_so_does_a_reader_that_leaves() {
    for leaving in ["ctrl-c", "closed pipe"] {
        let place = place(chats(says(&["one ", "two ", "three"]).cut_after(2, Step::Stall)));
        let mut command = place.home.flm(&["chat", "--model", MODEL, "--prompt", "hi", "--stream", "--format", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        while !lines.next().expect("a line").expect("text").contains("two") {}
        if leaving == "ctrl-c" {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
            kill_process(pid, Signal::INT).expect("signals");
            let last: Value = serde_json::from_str(&lines.last().expect("a line").expect("text")).expect("JSON");
            assert_eq!(last["error"]["code"], "CANCELLED", "{last}");
            assert_eq!(child.wait().expect("ends").code(), Some(1));
        } else {
            // The command itself is gone: what it held is closed.
            child.kill().expect("kills");
            child.wait().expect("ends");
        }
        place.runtime.block_on(place.engine.wait_until(|seen| seen.left == 1));
    }
}

#[test]
fn a_reader_like_head_ends_it_quietly() {
    let gate = tokio_util::sync::CancellationToken::new();
    let mut reply = says(&["one ", "two ", "three ", "four"]);
    reply.steps.insert(1, Step::Until(gate.clone()));
    let place = place(chats(reply));
    let mut command = place.home.flm(&["chat", "--model", MODEL, "--prompt", "hi", "--stream", "--format", "json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    while !lines.next().expect("a line").expect("text").contains("one") {}
    drop(lines);
    gate.cancel();
    let output = child.wait_with_output().expect("ends");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn the_responses_route_and_pictures_are_asked_as_clients_ask() {
    let streams = |asked: &crate::fake_engine::Asked| asked.json()["stream"] == true;
    let script = scripts::llamacpp().first_when(Method::POST, "/v1/chat/completions", streams, says(&["Blue."]));
    let place = place(script);
    let answer = place.home.answer(&["chat", "--model", MODEL, "--prompt", "hi", "--responses"]);
    // The recording ends at its length.
    assert_eq!((&answer["status"], &answer["finish_reason"]), (&json!(200), &json!("incomplete")));
    let streamed =
        run(&place.home, &["chat", "--model", MODEL, "--prompt", "hi", "--responses", "--stream", "--format", "text"]);
    assert_eq!((streamed.code, streamed.out.as_str()), (0, "Blue.\n"), "{}", streamed.err);
    wait_until("the route is logged", PATIENCE, || {
        place.home.answer(&["logs", "requests", "--since", "1h"]).to_string().contains("/v1/responses")
    });
    let picture = place.home.path().join("picture");
    std::fs::write(&picture, b"not a picture").expect("writes");
    let path = picture.to_str().expect("UTF-8");
    let error = run(&place.home, &["chat", "--model", MODEL, "--prompt", "hi", "--image", path]).error();
    assert!(error["message"].as_str().expect("text").contains("is not a PNG"), "{error}");
    let error = run(&place.home, &["chat", "--model", MODEL, "--prompt", "x", "--image-url", "http://a/b.png"]).error();
    assert!(error["message"].as_str().expect("text").contains("the endpoint answered 4"), "{error}");
}

#[test]
fn a_measurement_counts_answers_errors_and_percentiles() {
    let place = place(chats(says(&["one ", "two ", "three"])));
    let ended = run(&place.home, &["bench", "--duration", "1s", "--concurrency", "2", "--format", "json"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["progress"], json!({"stage": "warming_up", "model": MODEL}));
    let report = &lines.last().expect("a report")["data"];
    let completed = report["completed"].as_u64().expect("a count");
    assert!(completed > 2 && report["completion_tokens"].as_u64() == Some(completed * 3), "{report}");
    assert_eq!((&report["errors"], &report["unfinished"]), (&json!([]), &json!(0)));
    for spread in ["first_token_ms", "total_ms"] {
        let value = |name: &str| report[spread][name].as_f64().expect("a number");
        assert!(value("least") <= value("p50") && value("p50") <= value("p99") && value("p99") <= value("most"));
    }
    // The first request, which is not measured, is one more.
    let asked = place.engine.seen().asked.iter().filter(|asked| asked.method == Method::POST).count() as u64;
    assert_eq!(asked, completed + 1);
    let error = run(&place.home, &["bench", "--concurrency", "0"]).error_of_the_end();
    assert_eq!(error["code"], "INVALID_ARGUMENT");
    let error = run(&place.home, &["bench", "--model", "nobody-has-it"]).error_of_the_end();
    assert!(error["message"].as_str().expect("text").contains("404 model_not_found"), "{error}");
}

#[test]
fn models_are_compared_saved_shown_exported_and_deleted() {
    let place = place(chats(says(&["Blue ", "light."])));
    let ended = run(
        &place.home,
        &["models", "compare", MODEL, "nobody-has-it", "--prompt", "why?", "--runs", "2", "--save", "--format", "json"],
    );
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let last: Value = serde_json::from_str(ended.out.lines().last().expect("a line")).expect("JSON");
    let (id, models) = (&last["data"]["id"], &last["data"]["models"]);
    assert_eq!((id, &models[0]["medians"]["completion_tokens"]), (&json!(1), &json!(2.0)));
    assert_eq!(models[0]["runs"][1]["answer"]["text"], "Blue light.");
    assert!(models[1]["runs"][0]["failed"]["message"].as_str().expect("text").contains("404"), "{models}");
    assert!(ended.out.contains(r#""told":{"text":"Blue "}"#), "every word is told: {}", ended.out);

    assert_eq!(place.home.answer(&["models", "comparisons", "list"])[0]["models"], json!([MODEL, "nobody-has-it"]));
    assert_eq!(place.home.answer(&["models", "comparisons", "show", "1"]), last["data"]);
    let markdown = run(&place.home, &["models", "comparisons", "export", "1"]).out;
    assert!(
        markdown.starts_with("# Models compared\n") && markdown.contains("```text\nBlue light.\n```"),
        "{markdown}"
    );
    let file = place.home.path().join("compared.json");
    let path = file.to_str().expect("UTF-8");
    place.home.answer(&["models", "comparisons", "export", "1", "--as", "json", "--output", path]);
    let exported: Value = serde_json::from_slice(&std::fs::read(&file).expect("reads")).expect("JSON");
    assert_eq!(exported, last["data"]);
    let shown = redacted(&place.home, &text(&place.home, &["models", "comparisons", "list"]));
    let row: Vec<_> = shown.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["1", "[time]", "2", "flm-tiny,", "nobody-has-it", "why?"]);
    place.home.answer(&["models", "comparisons", "delete", "1"]);
    let error = run(&place.home, &["models", "comparisons", "show", "1"]).error();
    assert_eq!(error["code"], "NOT_FOUND");
    let error = run(&place.home, &["models", "compare", MODEL, "--prompt", "x"]).error_of_the_end();
    assert!(error["message"].as_str().expect("text").starts_with("2 to 4 models"), "{error}");
}

#[test]
fn the_key_of_a_call_dies_with_it() {
    let place = place(chats(says(&["one ", "two"]).cut_after(1, Step::Stall)));
    // What the engine sees is not the key, so the key is looked for where the proxy shows it: among running requests.
    let mut command = place.home.flm(&["chat", "--model", MODEL, "--prompt", "hi", "--stream", "--format", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    while !lines.next().expect("a line").expect("text").contains("one") {}
    assert_eq!(place.home.answer(&["api-keys", "list"]), json!([]), "not even while it is in use");
    child.kill().expect("kills");
    child.wait().expect("ends");
    wait_until("the request is logged as left", PATIENCE, || {
        place.home.answer(&["logs", "requests", "--since", "1h"]).to_string().contains("client_left")
    });
    assert_eq!(place.home.answer(&["api-keys", "list"]), json!([]));
}

#[test]
fn what_the_model_is_told_before_goes_first_on_both_routes() {
    let place = place(chats(says(&["ok"])));
    let chat = ["chat", "--model", MODEL, "--prompt", "hi", "--system", "Be brief.", "--stream"];
    text(&place.home, &chat);
    let asked = place.engine.seen().asked.last().expect("a request").json();
    let wanted = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]);
    assert_eq!(asked["messages"], wanted);
    text(&place.home, &[chat.as_slice(), &["--responses"]].concat());
    let asked = place.engine.seen().asked.last().expect("a request").json();
    assert!(asked.to_string().contains("Be brief."), "{asked}");
}

#[test]
fn settings_of_client_programs_are_told_and_tried() {
    let streams = |asked: &crate::fake_engine::Asked| asked.json()["stream"] == true;
    let place = place(scripts::llamacpp().first_when(
        Method::POST,
        "/v1/chat/completions",
        streams,
        says(&["Blue ", "light."]),
    ));
    let url = format!("http://127.0.0.1:{}", place.home.proxy_port().expect("a listener"));
    for (client, base) in [
        ("claude", ""),
        ("codex", "/v1"),
        ("opencode", "/v1"),
        ("open-webui", "/v1"),
        ("continue", "/v1"),
        ("openai-python", "/v1"),
        ("openai-js", "/v1"),
        ("anthropic-python", ""),
        ("ollama-python", ""),
        ("curl", ""),
    ] {
        let guide = place.home.answer(&["connect", client, "--test"]);
        assert_eq!((&guide["base_url"], &guide["model"]), (&json!(format!("{url}{base}")), &json!(MODEL)), "{client}");
        assert_eq!(guide["trial"]["status"], 200, "{client}");
        assert!(guide["tried"].is_string(), "{client} was run, and with a version");
    }
    assert_eq!(place.home.answer(&["api-keys", "list"]), json!([]));
    let shown: Vec<_> =
        ["claude", "codex", "opencode", "open-webui", "continue", "openai-python", "ollama-python", "curl"]
            .map(|client| text(&place.home, &["connect", client]).replace(&url, "[url]"))
            .into();
    insta::assert_snapshot!("connect", shown.join("\n────\n"));

    let key = place.home.answer(&["api-keys", "create", "--label", "laptop"]);
    let id = key["view"]["id"].as_str().expect("an id");
    let ended = run(&place.home, &["connect", "claude", "--key", id, "--format", "text"]);
    assert!(ended.out.contains(&format!("flm_{id}_…")) && ended.err.contains("keeps only its hash"), "{}", ended.out);
    place.home.answer(&["api-keys", "revoke", id]);
    for (arguments, words) in [
        (&["connect", "claude", "--key", id][..], "is in force"),
        (&["connect", "emacs"], "no client program is known as"),
        (&["connect", "curl", "--test", "--model", "nobody-has-it"], "404 model_not_found"),
    ] {
        let error = run(&place.home, arguments).error();
        assert!(error["message"].as_str().expect("text").contains(words), "{error}");
    }
    let error = run(&Home::new(), &["connect", "curl"]).error();
    assert_eq!(error["hint"], "start it with: flm proxy start");
}
