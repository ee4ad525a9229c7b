//! `flm models` at fake engines: what is done with a model there, with progress, and ended by Ctrl-C; the same with and
//! without a daemon.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::engine_scripts as scripts;
use crate::fake_engine::{FakeEngine, Reply, Script, Step};
use crate::home::Home;
use crate::{run, text};

/// A home with one engine that runs on a runtime of its own.
struct Place {
    home: Home,
    engine: FakeEngine,
    runtime: Runtime,
}

/// Whether a daemon owns the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Daemon,
    Nobody,
}

fn place(kind: &str, script: Script, owner: Owner) -> Place {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(script));
    let home = Home::new();
    if owner == Owner::Daemon {
        home.start_proxy();
    }
    home.answer(&["engines", "add", "--kind", kind, "--id", "lab", "--url", &engine.url()]);
    Place { home, engine, runtime }
}

#[test]
fn a_pull_tells_its_progress_in_lines_and_ends_with_the_models() {
    for owner in [Owner::Daemon, Owner::Nobody] {
        let place = place("ollama", scripts::ollama(), owner);
        let ended = run(&place.home, &["models", "pull", "tiny", "--format", "json"]);
        // The fake has no model of that name; the engine's words come through.
        assert_eq!((ended.code, ended.error_of_the_end()["code"].as_str()), (1, Some("NOT_FOUND")), "{owner:?}");

        let ended = run(&place.home, &["models", "pull", "tiny:latest", "--format", "json"]);
        assert_eq!(ended.code, 0, "{owner:?}: {}{}", ended.out, ended.err);
        let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let (last, progress) = lines.split_last().expect("lines");
        assert_eq!(progress.len(), 8, "{owner:?}");
        assert_eq!(progress[3]["progress"], json!({"stage": "pulling 58065875508d", "completed": 400, "total": 400}));
        assert_eq!((&last["version"], &last["data"][0]["listed_as"]), (&json!("1.0"), &json!("tiny:latest")));

        let shown = text(&place.home, &["models", "pull", "tiny:latest"]);
        assert!(shown.contains("tiny:latest") && !shown.contains("pulling"), "progress is no result: {shown}");
    }
}

#[test]
fn ctrl_c_ends_a_pull_at_the_engine() {
    for owner in [Owner::Daemon, Owner::Nobody] {
        let stalled = Reply::recorded("ollama/0.33.0-documented/pull").cut_after(3, Step::Stall);
        let place = place("ollama", scripts::ollama().first(Method::POST, "/api/pull", stalled), owner);
        let mut command = place.home.flm(&["models", "pull", "tiny:latest", "--format", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        while !lines.next().expect("a line").expect("text").contains("\"completed\":100") {}
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::INT).expect("signals");
        let last: Value = serde_json::from_str(&lines.last().expect("a line").expect("text")).expect("JSON");
        assert_eq!(last["error"]["code"], "CANCELLED", "{owner:?}: {last}");
        assert_eq!(child.wait().expect("ends").code(), Some(1), "{owner:?}");
        place.runtime.block_on(place.engine.wait_until(|seen| seen.left == 1));
    }
}

#[test]
fn a_pull_that_was_left_is_ended_at_a_router_too() {
    for owner in [Owner::Daemon, Owner::Nobody] {
        let item =
            json!({"id": "user/repo:Q4", "owned_by": "llamacpp", "status": {"value": "downloading", "progress": {}}});
        let script = scripts::llamacpp_router_that_loads()
            .first(Method::POST, "/models/unload", Reply::json(200, &json!({"success": true})))
            .first(Method::GET, "/v1/models", Reply::json(200, &json!({"object": "list", "data": [item]})));
        let place = place("llamacpp", script, owner);
        let mut command = place.home.flm(&["models", "pull", "user/repo:Q4", "--format", "json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        lines.next().expect("progress").expect("text");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::INT).expect("signals");
        assert_eq!(child.wait().expect("ends").code(), Some(1), "{owner:?}");
        let told = |asked: &crate::fake_engine::Asked| {
            asked.path == "/models/unload" && asked.json()["model"] == "user/repo:Q4"
        };
        place.runtime.block_on(place.engine.wait_until(|seen| seen.asked.iter().any(told)));
    }
}

#[test]
fn models_are_shown_loaded_unloaded_and_deleted_by_any_of_their_names() {
    let place = place("ollama", scripts::ollama(), Owner::Daemon);
    for name in ["tiny:latest", "lab/tiny:latest", "flm://lab/tiny:latest"] {
        let ended = run(&place.home, &["models", "load", name, "--format", "json"]);
        assert_eq!(ended.code, 0, "{name}: {}", ended.out);
        let model = place.home.answer(&["models", "unload", name]);
        assert_eq!(model["name"]["model"], "tiny:latest", "{name}");
    }
    let shown = text(&place.home, &["models", "show", "embed:latest"]);
    assert!(shown.contains("flm://lab/embed:latest") && shown.contains("embeddings"), "{shown}");
    assert_eq!(place.home.answer(&["models", "delete", "tiny:latest"])["deleted"], "flm://lab/tiny:latest");
    let log = place.home.answer(&["security", "audit-logs", "list", "--limit", "50"]).to_string();
    assert!(log.contains("model flm://lab/tiny:latest deleted"), "{log}");
    let ended = run(&place.home, &["models", "show", "none"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (1, Some("NOT_FOUND")));
}

#[test]
fn what_cannot_be_done_says_why_and_what_to_do() {
    let place = place("vllm", scripts::vllm(), Owner::Nobody);
    let error = run(&place.home, &["models", "unload", "flm-tiny"]).error();
    assert_eq!(error["code"], "ENGINE_API_ERROR");
    assert!(error["message"].as_str().expect("text").contains("VLLM_SERVER_DEV_MODE=1"), "{error}");
}

#[test]
fn a_name_that_two_engines_have_must_be_told_apart() {
    let place = place("ollama", scripts::ollama(), Owner::Nobody);
    let url = place.engine.url();
    let second = url.replace("127.0.0.1", "localhost");
    place.home.answer(&["engines", "add", "--kind", "ollama", "--id", "other", "--url", &second]);
    let error = run(&place.home, &["models", "unload", "tiny:latest"]).error();
    assert_eq!(error["code"], "INVALID_ARGUMENT");
    assert!(error["hint"].as_str().expect("text").contains("flm://other/tiny:latest"), "{error}");
    let error = run(&place.home, &["models", "pull", "tiny:latest"]).error();
    assert!(error["hint"].as_str().expect("text").contains("--engine"), "{error}");
}
