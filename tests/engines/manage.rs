//! Loading, unloading, pulling and deleting models, on every adapter.

use std::sync::Mutex;

use flm::engines::adapter::EngineError;
use flm::engines::manage::ManageError;
use flm::types::engine::TransferProgress;
use http::Method;
use serde_json::{Value, json};

use crate::engine_scripts as scripts;
use crate::fake_engine::{FakeEngine, Reply, Script, Step};
use crate::{adapter, with_session};

/// What one adapter is asked to do with a model.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Load,
    Unload,
    Pull,
    Delete,
}

/// Does it, with everything that a pull reported.
async fn manage(
    kind: &str,
    engine: &FakeEngine,
    verb: Verb,
    model: &str,
) -> (Result<(), ManageError>, Vec<TransferProgress>) {
    let told = Mutex::new(Vec::new());
    let report = |progress| told.lock().expect("no panic").push(progress);
    let adapter = adapter(kind);
    let outcome = with_session(engine, async |session| match verb {
        Verb::Load => adapter.load(session, model).await,
        Verb::Unload => adapter.unload(session, model).await,
        Verb::Pull => adapter.pull(session, model, &report).await,
        Verb::Delete => adapter.delete(session, model).await,
    })
    .await;
    (outcome, told.into_inner().expect("no panic"))
}

/// The bodies that were sent to a path.
fn sent(engine: &FakeEngine, method: &Method, path: &str) -> Vec<Value> {
    let seen = engine.seen().asked;
    seen.iter()
        .filter(|asked| asked.method == method && asked.path == path)
        .map(crate::fake_engine::Asked::json)
        .collect()
}

#[tokio::test]
async fn ollama_loads_and_unloads_by_requests_without_a_prompt() {
    let engine = FakeEngine::start(scripts::ollama()).await;
    manage("ollama", &engine, Verb::Load, "tiny:latest").await.0.expect("loads");
    manage("ollama", &engine, Verb::Unload, "tiny:latest").await.0.expect("unloads");
    let asked = sent(&engine, &Method::POST, "/api/generate");
    assert_eq!(
        asked,
        [
            json!({"model": "tiny:latest", "keep_alive": -1, "stream": false}),
            json!({"model": "tiny:latest", "keep_alive": 0, "stream": false})
        ]
    );
}

#[tokio::test]
async fn an_embedding_model_of_ollama_loads_by_its_own_route() {
    let engine = FakeEngine::start(scripts::ollama()).await;
    manage("ollama", &engine, Verb::Load, "embed:latest").await.0.expect("loads");
    let asked = sent(&engine, &Method::POST, "/api/embed");
    assert_eq!(asked, [json!({"model": "embed:latest", "keep_alive": -1, "input": []})]);
}

#[tokio::test]
async fn a_pull_of_ollama_counts_all_its_files_whatever_the_chunk_borders() {
    let engine = FakeEngine::start(scripts::ollama()).await;
    let (outcome, told) = manage("ollama", &engine, Verb::Pull, "tiny:latest").await;
    outcome.expect("pulls");
    let told: Vec<_> = told.iter().map(|told| (told.stage.as_str(), told.completed, told.total)).collect();
    assert_eq!(
        told,
        [
            ("pulling manifest", 0, None),
            ("pulling 58065875508d", 0, Some(400)),
            ("pulling 58065875508d", 100, Some(400)),
            ("pulling 58065875508d", 400, Some(400)),
            ("pulling a406579cd136", 500, Some(500)),
            ("verifying sha256 digest", 500, Some(500)),
            ("writing manifest", 500, Some(500)),
            ("success", 500, Some(500)),
        ]
    );
}

#[tokio::test]
async fn a_pull_that_fails_or_is_cut_is_no_success() {
    let engine = FakeEngine::start(scripts::ollama()).await;
    let unknown = manage("ollama", &engine, Verb::Pull, "none").await.0;
    assert!(matches!(unknown, Err(ManageError::UnknownModel(_))), "{unknown:?}");

    let pull = Reply::recorded("ollama/0.33.0-documented/pull");
    let ended =
        scripts::ollama().first(Method::POST, "/api/pull", Reply { steps: pull.steps[..4].to_vec(), ..pull.clone() });
    let outcome = manage("ollama", &FakeEngine::start(ended).await, Verb::Pull, "tiny:latest").await.0;
    assert!(matches!(&outcome, Err(ManageError::Refused(why)) if why.contains("pull again")), "{outcome:?}");

    let died = scripts::ollama().first(Method::POST, "/api/pull", pull.cut_after(3, Step::Die));
    let outcome = manage("ollama", &FakeEngine::start(died).await, Verb::Pull, "tiny:latest").await.0;
    assert!(matches!(outcome, Err(ManageError::Engine(EngineError::Network(_)))), "{outcome:?}");
}

#[tokio::test]
async fn leaving_a_pull_of_ollama_ends_it_there() {
    let pull = Reply::recorded("ollama/0.33.0-documented/pull").cut_after(3, Step::Stall);
    let engine = FakeEngine::start(scripts::ollama().first(Method::POST, "/api/pull", pull)).await;
    let begun = tokio_util::sync::CancellationToken::new();
    with_session(&engine, async |session| {
        let report = |told: TransferProgress| {
            if told.completed > 0 {
                begun.cancel();
            }
        };
        tokio::select! {
            outcome = adapter("ollama").pull(session, "tiny:latest", &report) => panic!("it stalls: {outcome:?}"),
            () = begun.cancelled() => {}
        }
    })
    .await;
    engine.wait_until(|seen| seen.left == 1).await;
}

#[tokio::test]
async fn ollama_deletes_and_says_when_there_is_nothing_to_delete() {
    let engine = FakeEngine::start(scripts::ollama()).await;
    manage("ollama", &engine, Verb::Delete, "tiny:latest").await.0.expect("deletes");
    let outcome = manage("ollama", &engine, Verb::Delete, "none").await.0;
    assert!(matches!(outcome, Err(ManageError::UnknownModel(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_router_has_loaded_only_when_its_list_says_so() {
    let engine = FakeEngine::start(scripts::llamacpp_router_that_loads()).await;
    manage("llamacpp", &engine, Verb::Load, "flm-tiny").await.0.expect("loads");
    assert_eq!(sent(&engine, &Method::POST, "/models/load"), [json!({"model": "flm-tiny"})]);
    let looks = engine.seen().asked.iter().filter(|asked| asked.path == "/v1/models").count();
    assert_eq!(looks, 3, "before, while it loads, and when it has loaded");
    manage("llamacpp", &engine, Verb::Load, "flm-tiny").await.0.expect("is loaded already");
    assert_eq!(sent(&engine, &Method::POST, "/models/load").len(), 1, "not asked again: the server would refuse");
    manage("llamacpp", &engine, Verb::Unload, "flm-tiny").await.0.expect("unloads");
    let outcome = manage("llamacpp", &engine, Verb::Load, "none").await.0;
    assert!(matches!(outcome, Err(ManageError::UnknownModel(_))), "{outcome:?}");
}

/// A router's list with one model in this state.
fn list(status: &Value) -> Reply {
    Reply::json(
        200,
        &json!({"object": "list", "data": [{"id": "user/repo:Q4", "owned_by": "llamacpp", "status": status}]}),
    )
}

#[tokio::test]
async fn a_router_that_fails_to_load_says_how_it_ended() {
    let script = Script::new(Reply::json(404, &json!({})))
        .in_turn(
            &Method::GET,
            "/v1/models",
            vec![
                list(&json!({"value": "unloaded"})),
                list(&json!({"value": "loading"})),
                list(&json!({"value": "unloaded", "failed": true, "exit_code": 1})),
            ],
        )
        .post("/models/load", Reply::recorded("llamacpp/b11434-router/load"));
    let outcome = manage("llamacpp", &FakeEngine::start(script).await, Verb::Load, "user/repo:Q4").await.0;
    assert!(matches!(&outcome, Err(ManageError::Refused(why)) if why.contains("exit code 1")), "{outcome:?}");
}

#[tokio::test]
async fn a_router_has_pulled_only_what_it_lists_afterwards() {
    let empty = Reply::json(200, &json!({"object": "list", "data": []}));
    let progress = json!({"value": "downloading", "progress": {
        "https://a.example/1.gguf": {"done": 40, "total": 100}, "https://a.example/2.gguf": {"done": 5, "total": 50}}});
    let script = |after: Reply| {
        Script::new(Reply::json(404, &json!({})))
            .get("/props", Reply::recorded("llamacpp/b11434-router/props"))
            .in_turn(&Method::GET, "/v1/models", vec![empty.clone(), list(&progress), empty.clone()])
            .get("/models", after)
            .post("/models", Reply::json(200, &json!({"success": true})))
    };
    let engine = FakeEngine::start(script(list(&json!({"value": "unloaded"})))).await;
    let (outcome, told) = manage("llamacpp", &engine, Verb::Pull, "user/repo:Q4").await;
    outcome.expect("pulls");
    let told: Vec<_> = told.iter().map(|told| (told.completed, told.total)).collect();
    assert_eq!(told, [(45, Some(150))]);

    // Build 11434 tells that a download of a model that does not exist has finished.
    let engine = FakeEngine::start(script(empty.clone())).await;
    let outcome = manage("llamacpp", &engine, Verb::Pull, "user/repo:Q4").await.0;
    assert!(matches!(&outcome, Err(ManageError::Refused(why)) if why.contains("USER/REPO")), "{outcome:?}");
}

#[tokio::test]
async fn a_pull_left_at_a_router_is_told_to_stop() {
    let engine = FakeEngine::start(scripts::llamacpp_router_that_loads()).await;
    with_session(&engine, async |session| adapter("llamacpp").cancel_pull(session, "flm-tiny").await)
        .await
        .expect("stops");
    assert_eq!(sent(&engine, &Method::POST, "/models/unload"), [json!({"model": "flm-tiny"})]);
}

#[tokio::test]
async fn lm_studio_loads_unloads_every_instance_and_downloads() {
    let engine = FakeEngine::start(scripts::lmstudio()).await;
    manage("lmstudio", &engine, Verb::Load, "tiny").await.0.expect("is loaded already");
    assert!(sent(&engine, &Method::POST, "/api/v1/models/load").is_empty(), "a second load makes a second instance");
    manage("lmstudio", &engine, Verb::Load, "embed").await.0.expect("loads");
    manage("lmstudio", &engine, Verb::Unload, "tiny").await.0.expect("unloads");
    let unknown = manage("lmstudio", &engine, Verb::Unload, "none").await.0;
    assert!(matches!(unknown, Err(ManageError::UnknownModel(_))), "{unknown:?}");
    let (outcome, told) = manage("lmstudio", &engine, Verb::Pull, "qwen/qwen3-4b-2507").await;
    outcome.expect("downloads");
    let told: Vec<_> = told.iter().map(|told| told.completed).collect();
    assert_eq!(told, [948, 1_139_572_501, 2_279_145_003]);
}

#[tokio::test]
async fn an_old_lm_studio_that_answers_200_to_everything_is_seen_through() {
    let script = Script::new(Reply::recorded("lmstudio/0.4.1-documented/unknown_path"));
    let engine = FakeEngine::start(script).await;
    for verb in [Verb::Load, Verb::Unload, Verb::Pull] {
        let outcome = manage("lmstudio", &engine, verb, "tiny").await.0;
        assert!(
            matches!(&outcome, Err(ManageError::NotOffered(why)) if why.contains("0.4.0")),
            "{verb:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn vllm_sleeps_and_wakes_where_it_was_started_for_that() {
    let engine = FakeEngine::start(scripts::vllm_that_sleeps()).await;
    manage("vllm", &engine, Verb::Unload, "flm-embed").await.0.expect("sleeps");
    let models = with_session(&engine, async |session| adapter("vllm").models(session).await).await.expect("lists");
    assert_eq!(models[0].loaded, Some(false), "its requests would hang");
    manage("vllm", &engine, Verb::Load, "flm-embed").await.0.expect("wakes");
    let posts: Vec<_> = engine
        .seen()
        .asked
        .iter()
        .filter(|asked| asked.method == Method::POST)
        .map(|asked| asked.path.clone())
        .collect();
    assert_eq!(posts, ["/sleep?level=1", "/wake_up"]);
}

#[tokio::test]
async fn what_an_engine_cannot_do_says_what_to_do_instead() {
    for (kind, script, verb, says) in [
        ("vllm", scripts::vllm as fn() -> Script, Verb::Unload, "VLLM_SERVER_DEV_MODE"),
        ("vllm", scripts::vllm, Verb::Pull, "start it with that model"),
        ("vllm", scripts::vllm, Verb::Delete, "Hugging Face cache"),
        ("lmstudio", scripts::lmstudio, Verb::Delete, "remove its files"),
        ("llamacpp", scripts::llamacpp, Verb::Unload, "start it without -m"),
        ("llamacpp", scripts::llamacpp, Verb::Pull, "start it without -m"),
        ("llamacpp", scripts::llamacpp, Verb::Delete, "start it without -m"),
        ("openai", scripts::llamacpp, Verb::Load, "load it in the engine"),
        ("openai", scripts::llamacpp, Verb::Unload, "stop it in the engine"),
        ("openai", scripts::llamacpp, Verb::Pull, "reads its models from"),
        ("openai", scripts::llamacpp, Verb::Delete, "remove its files"),
    ] {
        let engine = FakeEngine::start(script()).await;
        let outcome = manage(kind, &engine, verb, "flm-tiny").await.0;
        assert!(
            matches!(&outcome, Err(ManageError::NotOffered(why)) if why.contains(says)),
            "{kind} {verb:?}: {outcome:?}"
        );
        let changed = engine.seen().asked.iter().any(|asked| asked.method != Method::GET);
        assert!(!changed, "{kind} {verb:?} asked for a change");
    }
}
