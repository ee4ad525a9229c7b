//! Reloading without dropping a connection, and `flm.toml`, good and bad (SPEC §1.4, §4.9).

use flm::config::files::{self, Audience};
use flm::types::calls::audit::ListAudit;
use flm::types::calls::keys::EditKey;
use flm::types::calls::proxy::{Reload, Status};
use flm::types::calls::settings::{ReloadClass, SetSetting, SettingSource, ShowSetting};
use flm::types::clock::Clock;
use flm::types::failure::ErrorCode;
use flm::types::key::KeyLimits;
use flm::types::listener::ProxyStatus;
use flm::types::live::{LiveEvent, LiveLine};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, PATIENCE, Reply, Step};
use crate::owner::{OwnHome, Running};

fn write(home: &OwnHome, text: &str) {
    files::replace(&home.paths.config_file(), text.as_bytes(), Audience::Owner).expect("writes");
}

/// Follows the live lane until a status fits, as a console does.
async fn status(running: &Running, fits: impl Fn(&ProxyStatus) -> bool) -> ProxyStatus {
    let waiting = async {
        let mut events = running.operator.events().await.expect("subscribes");
        loop {
            let told = match events.next().await.expect("the owner lives") {
                LiveLine::Snapshot { snapshot, .. } => snapshot.status,
                LiveLine::Event(event) => match &*event.event {
                    LiveEvent::Status(status) => (**status).clone(),
                    _ => continue,
                },
            };
            if fits(&told) {
                return told;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("a status that fits")
}

async fn value(running: &Running, key: &str) -> (String, SettingSource) {
    let view = running.call(ShowSetting { key: key.to_owned() }).await;
    (view.value, view.source)
}

#[tokio::test]
async fn a_stream_goes_on_while_everything_is_read_again() {
    let home = OwnHome::at(Clock::system());
    let gate = CancellationToken::new();
    let mut reply = Reply::recorded("llamacpp/b11434/chat_stream");
    let pieces = reply.steps.len();
    reply.steps.insert(2, Step::Until(gate.clone()));
    let whole = reply.body();
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", reply);
    let engine = FakeEngine::start(script).await;
    let running = home.start().await;
    running.engine("lab", "llamacpp", &engine).await;
    let (id, key) = running.key("laptop", KeyLimits::default()).await;
    let chat = json!({"model": "flm-tiny", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut stream = running.open(&key, "/v1/chat/completions", &chat).await.into_body();
    let first = stream.frame().await.expect("a frame").expect("no fault").into_data().expect("data");

    write(&home, "[limits]\nconnections_per_address = 77\n");
    let report = running.call(Reload { port: None }).await;
    assert!(report.reloaded.len() >= 8, "{report:?}");
    assert_eq!(report.changed, ["limits.connections_per_address"]);
    let limits = KeyLimits { requests_per_minute: 5, ..KeyLimits::default() };
    running.call(EditKey { id, label: None, limits: Some(limits), expires: None, capture: None }).await;
    running.call(Reload { port: None }).await;

    gate.cancel();
    let mut text = first.to_vec();
    while let Some(frame) = stream.frame().await {
        text.extend_from_slice(&frame.expect("the stream was not dropped").into_data().expect("data"));
    }
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let deltas = |text: &str| text.matches("\"delta\"").count();
    assert!(pieces > 3 && deltas(&text) >= deltas(&String::from_utf8_lossy(&whole)) - 1, "{text}");
    running.end().await;
}

#[tokio::test]
async fn a_saved_file_takes_effect_by_itself_and_a_bad_one_keeps_the_old_state_and_says_where_it_is_wrong() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    assert_eq!(value(&running, "engine.gap_timeout").await, ("2m".to_owned(), SettingSource::Default));
    running.call(SetSetting { key: "engine.gap_timeout".into(), value: "90s".into() }).await;

    write(&home, "[engine]\ngap_timeout = \"3m\"\n[proxy]\nport = 9999\n");
    let told = status(&running, |status| !status.needs_restart.is_empty()).await;
    assert_eq!((told.needs_restart, told.reload_fault), (vec!["proxy.port".to_owned()], None));
    assert_eq!(value(&running, "engine.gap_timeout").await, ("3m".to_owned(), SettingSource::File));

    write(&home, "[engine]\ngap_timeout = \"fast\"\n");
    let told = status(&running, |status| status.reload_fault.is_some()).await;
    let fault = told.reload_fault.expect("a fault");
    assert!(fault.contains("flm.toml, line 2, column 15") && fault.contains("a time such as"), "{fault}");
    assert_eq!(value(&running, "engine.gap_timeout").await.0, "3m", "the old state stays");
    let refused = running.operator.call(Reload { port: None }).await.expect_err("still wrong");
    assert_eq!(refused.code, ErrorCode::ProxyInvalidConfig);
    let audit = running.call(ListAudit::default()).await;
    let told = audit.iter().filter(|row| row.event.details.contains("refused") && row.event.details.contains("line 2"));
    assert_eq!(told.count(), 2, "the watch and the command: {audit:?}");

    files::remove(&home.paths.config_file()).expect("removes");
    let told = status(&running, |status| status.reload_fault.is_none()).await;
    assert_eq!(told.needs_restart, Vec::<String>::new());
    assert_eq!(value(&running, "engine.gap_timeout").await, ("90s".to_owned(), SettingSource::Database));
    running.end().await;
}

#[tokio::test]
async fn mode_port_and_address_say_that_they_need_a_restart_and_a_port_without_listener_is_refused() {
    let home = OwnHome::at(Clock::system());
    let running = home.start().await;
    for (key, text) in [("proxy.mode", "local-http"), ("proxy.port", "9998"), ("proxy.bind", "::1")] {
        let view = running.call(SetSetting { key: key.into(), value: text.into() }).await;
        assert_eq!(view.reload, ReloadClass::Restart, "{key}");
    }
    let report = running.call(Reload { port: None }).await;
    assert_eq!(report.needs_restart, ["proxy.bind", "proxy.port"], "the mode is what it was");
    let port = running.call(Status {}).await.listeners[0].config.port;
    running.call(Reload { port: Some(port) }).await;
    let refused = running.operator.call(Reload { port: Some(1) }).await.expect_err("no listener there");
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert!(refused.hint.expect("a hint").contains(&port.to_string()));
    running.end().await;
}
