//! Detection on a world of fakes: many engines, one that hangs, programs without server, FLM itself.

use std::net::SocketAddr;
use std::time::Duration;

use flm::engines::detection::{BinarySeen, DETECTION_LIMIT, EngineProcessController, ProcessSeen, detect};
use flm::types::clock::Clock;
use flm::types::engine::{EngineKind, EngineState};
use serde_json::json;

use crate::engine_scripts as scripts;
use crate::fake_engine::{FakeEngine, Reply, Script};
use crate::pool;

fn process(program: &str, port: u16, parent: Option<&str>) -> ProcessSeen {
    let arguments = ["serve", "--host", "0.0.0.0", "--port"].map(str::to_owned);
    ProcessSeen {
        pid: 1,
        program: program.into(),
        arguments: arguments.into_iter().chain([port.to_string()]).collect(),
        parent: parent.map(str::to_owned),
    }
}

#[tokio::test]
async fn all_engines_are_found_side_by_side_with_dead_hosts_among_them() {
    let llamacpp = FakeEngine::start(scripts::llamacpp()).await;
    let locked = FakeEngine::start(scripts::llamacpp_locked()).await;
    let vllm = FakeEngine::start(scripts::vllm()).await;
    let ollama = FakeEngine::start(scripts::ollama()).await;
    let lmstudio = FakeEngine::start(scripts::lmstudio()).await;
    let hangs = FakeEngine::start(Script::new(Reply::stream(&[]).after(Duration::from_mins(10)))).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port that accepts and never answers");
    let silent_port = silent.local_addr().expect("an address").port();
    let mut processes = vec![
        process("llama-server", llamacpp.address.port(), None),
        process("llama-server", locked.address.port(), Some("bash")),
        process("vllm", vllm.address.port(), None),
        process("llama-server", silent_port, None),
    ];
    // Many that hang: asked one after the other they would take far longer than the limit.
    processes.extend((0..3).map(|_| process("llama-server", hangs.address.port(), None)));
    let controller = EngineProcessController {
        variables: vec![("OLLAMA_HOST".into(), format!("0.0.0.0:{}", ollama.address.port()))],
        processes,
        lmstudio_port: Some(lmstudio.address.port()),
        binaries: vec![
            BinarySeen { program: "ollama".into(), path: "/usr/bin/ollama".into() },
            BinarySeen { program: "lms".into(), path: "/opt/lms".into() },
        ],
        ..EngineProcessController::default()
    };
    let report = detect(&controller, None, &pool(), &Clock::system()).await;
    assert!(u128::from(report.took_ms) < DETECTION_LIMIT.as_millis(), "{} ms", report.took_ms);
    let mut found: Vec<(&str, u16, u32)> = report
        .engines
        .iter()
        .map(|engine| {
            let port = engine.url.as_deref().and_then(|url| url.rsplit(':').next()).and_then(|port| port.parse().ok());
            (engine.kind.as_str(), port.unwrap_or(0), engine.models)
        })
        .collect();
    found.sort_unstable();
    let mut expected = vec![
        ("llamacpp", llamacpp.address.port(), 1),
        ("llamacpp", locked.address.port(), 0),
        ("lmstudio", lmstudio.address.port(), 2),
        ("ollama", ollama.address.port(), 2),
        ("vllm", vllm.address.port(), 1),
    ];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let by_kind = |kind: &str| report.engines.iter().find(|engine| engine.kind.as_str() == kind).expect("found");
    assert_eq!(by_kind("ollama").binary.as_deref(), Some("/usr/bin/ollama"));
    assert_eq!(by_kind("ollama").evidence, "OLLAMA_HOST");
    assert!(by_kind("ollama").url.as_deref().is_some_and(|url| url.starts_with("http://127.0.0.1:")));
    assert_eq!(by_kind("vllm").version.as_deref(), Some("0.32.0"));
    assert!(
        report.engines.iter().any(
            |engine| matches!(&engine.state, EngineState::ErrorApi { reason } if reason.contains("--api-key-env"))
        )
    );
}

#[tokio::test]
async fn a_program_without_a_server_is_installed_only() {
    let controller = EngineProcessController {
        binaries: vec![BinarySeen { program: "llama-server".into(), path: "/usr/bin/llama-server".into() }],
        ..EngineProcessController::default()
    };
    let report = detect(&controller, None, &pool(), &Clock::system()).await;
    assert_eq!(report.engines.len(), 1);
    assert_eq!((&report.engines[0].state, &report.engines[0].url), (&EngineState::InstalledOnly, &None));
    let other = EngineKind::named("vllm");
    assert!(detect(&controller, Some(&other), &pool(), &Clock::system()).await.engines.is_empty());
}

#[tokio::test]
async fn flm_itself_and_children_of_ollama_are_never_asked() {
    let own = FakeEngine::start(scripts::llamacpp()).await;
    let child = FakeEngine::start(scripts::llamacpp()).await;
    let controller = EngineProcessController {
        processes: vec![
            process("llama-server", own.address.port(), None),
            process("llama-server", child.address.port(), Some("ollama")),
        ],
        own_listeners: vec![SocketAddr::from(([127, 0, 0, 1], own.address.port()))],
        ..EngineProcessController::default()
    };
    assert!(detect(&controller, None, &pool(), &Clock::system()).await.engines.is_empty());
    assert!(own.seen().asked.is_empty() && child.seen().asked.is_empty());
}

/// A fingerprint decides, not the place nor one answer: Ollama speaks OpenAI's dialect too.
#[tokio::test]
async fn an_ollama_that_lists_models_as_openai_does_where_vllm_was_expected_is_still_ollama() {
    let listed = json!({"object": "list", "data": [{"id": "tiny:latest", "object": "model", "owned_by": "library"}]});
    let ollama = FakeEngine::start(scripts::ollama().get("/v1/models", Reply::json(200, &listed))).await;
    let controller = EngineProcessController {
        processes: vec![process("vllm", ollama.address.port(), None)],
        ..EngineProcessController::default()
    };
    let report = detect(&controller, None, &pool(), &Clock::system()).await;
    let found: Vec<_> = report.engines.iter().map(|engine| (engine.kind.as_str(), engine.models)).collect();
    assert_eq!(found, [("ollama", 2)]);
}
