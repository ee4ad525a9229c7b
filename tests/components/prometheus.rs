//! A real Prometheus scrapes FLM, has the shipped alert rules, and answers every question of the shipped dashboard.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::home::{Home, wait_until};
use crate::{documents, engine_scripts, fake_engine::FakeEngine, free_port, get};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/monitoring/flm-alerts.yml");
const DASHBOARD: &str = include_str!("../../assets/monitoring/flm-dashboard.json");

/// Prometheus scrapes once a second here; it needs a while to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Prometheus {
    child: Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself; both calls fail then, and there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    fn scraping(target: &str) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let config = data.path().join("prometheus.yml");
        let block = documents::run_by("tests/components/prometheus.rs", "docs/monitoring.md", "# prometheus.yml");
        let block = block.replace("flm-alerts.yml", RULES).replace("127.0.0.1:8484", target);
        let text = format!("global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n{block}");
        std::fs::write(&config, text).expect("writes");
        promtool(&["check", "config", config.to_str().expect("UTF-8")]);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts Prometheus: run scripts/install-test-components.sh");
        Self { child, port, _data: data }
    }

    fn ask(&self, path: &str) -> Option<Value> {
        get(self.port, path).filter(|answer| answer["status"] == "success").map(|answer| answer["data"].clone())
    }
}

fn promtool(arguments: &[&str]) -> String {
    let output = Command::new("promtool")
        .args(arguments)
        .output()
        .expect("runs promtool: run scripts/install-test-components.sh");
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{arguments:?}: {told}");
    told
}

fn page(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("sets a bound");
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("asks");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

#[test]
#[ignore = "needs Prometheus: run scripts/install-test-components.sh"]
fn prometheus_scrapes_flm_loads_the_rules_and_answers_the_dashboard() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let fake = runtime.block_on(FakeEngine::start(engine_scripts::llamacpp()));
    let home = Home::new();
    let url = home.start_proxy();
    let address = url.strip_prefix("http://").expect("plain HTTP").to_owned();
    home.add_engine("llamacpp", "chat", fake.address.port());
    let key = home.create_key("metrics");
    let body = r#"{"model":"flm-tiny","messages":[{"role":"user","content":"hi"}]}"#;
    wait_until("a chat is served", PATIENCE, || {
        let mut stream = TcpStream::connect(&address).expect("connects");
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200")
    });

    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs promtool: run scripts/install-test-components.sh");
    check.stdin.take().expect("a pipe").write_all(page(&address).as_bytes()).expect("gives the page");
    let output = check.wait_with_output().expect("ends");
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && told.trim().is_empty(), "promtool has something to say: {told}");
    promtool(&["check", "rules", RULES]);

    let prometheus = Prometheus::scraping(&address);
    wait_until("the target is up", PATIENCE, || {
        prometheus.ask("/api/v1/targets").is_some_and(|targets| targets["activeTargets"][0]["health"] == "up")
    });
    let mut rules = Value::Null;
    wait_until("all rules are evaluated", PATIENCE, || {
        rules = prometheus.ask("/api/v1/rules").unwrap_or_default();
        let rules = rules["groups"][0]["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    let written = std::fs::read_to_string(RULES).expect("reads").matches("- alert:").count();
    assert_eq!(rules["groups"][0]["rules"].as_array().map(Vec::len), Some(written));

    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() > 10);
    let server = format!("http://{}:{}", Ipv4Addr::LOCALHOST, prometheus.port);
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets")) {
        let question = target["expr"].as_str().expect("an expression");
        let question = question.replace("$instance", ".*").replace("$__rate_interval", "1m");
        let answer = promtool(&["query", "instant", &server, &question]);
        // A rate needs two scrapes and something that counted; a gauge has a value at once.
        if !question.contains("rate(") && !question.contains("increase(") {
            assert!(answer.contains("=>"), "{question} has no answer");
        }
    }
}

/// With `tests/fixtures/alert-rules.yml`, which says when.
#[test]
#[ignore = "needs Prometheus: run scripts/install-test-components.sh"]
fn each_alert_rule_fires_after_its_time_and_not_before() {
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/alert-rules.yml");
    promtool(&["test", "rules", cases]);
    let (rules, cases) = (std::fs::read_to_string(RULES), std::fs::read_to_string(cases).expect("reads"));
    let rules = rules.expect("reads");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(cases.contains(&format!("alertname=\"{alert}\"")), "no case makes {alert} fire");
    }
}
