//! What every command answers, as JSON and as text, pinned in two snapshots: one home, one story, with what differs from run to
//! run (times, numbers, random ids, columns' widths) taken out. What depends on the machine (`doctor`, `check`, `expose-check`,
//! `firewall`, `engines detect`, `bench`, `security ca`) has tests of its own.

use serde_json::{Value, json};

use crate::fake_engine::{FakeEngine, Reply, Script};
use crate::home::{Home, schema};
use crate::run;

/// The story. `{…}` is put in: the engine's URL, the key's id, the folder of files. A line that begins with `!` must fail.
const STORY: &str = "
version
config path
config get log.level
config set log.level warn
!config set log.level loud
config unset log.level
config unset log.level
!config unset no.such.setting
!config get no.such.setting
engines list
engines add --kind openai --id lab --url {engine}
!engines add --kind openai --id lab --url {engine}
!proxy status
!proxy stop
proxy start --port 0
proxy status
proxy reload --all
models refresh
engines list
!engines health nobody
models list
models show demo
!models show nobody
!models load demo
!models unload demo
!models pull lab/demo
!models delete demo
aliases list
aliases set fast lab/demo
aliases list
chat --model fast --prompt hello
models comparisons list
!models comparisons show 7
!models comparisons export 7
!models comparisons delete 7
aliases remove fast
!aliases remove fast
model-profiles list
model-profiles save --engine lab --model demo --label calm --params {files}/profile.json
model-profiles list
model-profiles delete --id 1
!model-profiles delete --id 1
api prompts list
api prompts set --api-id chat.completions --file {files}/one.txt
api prompts set --api-id chat.completions --file {files}/two.txt
api prompts list
api prompts show --api-id chat.completions
api prompts history --api-id chat.completions
api prompts diff --api-id chat.completions --from 1 --to 2
api prompts restore --api-id chat.completions --version 1
api prompts delete --api-id chat.completions
!api prompts show --api-id chat.completions
api-keys list
api-keys show {key}
api-keys edit {key} --priority high --rpm 30
!api-keys show zzzzzzzz
!api-keys revoke zzzzzzzz
!api-keys rotate zzzzzzzz
security policy show
security policy validate --json {files}/policy.json
security policy set --json {files}/policy.json
!security policy validate --json {files}/profile.json
security ip-blocklist list
security ip-blocklist add 203.0.113.7 --for 2h --reason story
security ip-blocklist list
security ip-blocklist unblock 203.0.113.7
!security ip-blocklist unblock 203.0.113.7
security ip-blocklist add 2001:db8::/32 --reason story
security ip-blocklist export
security ip-blocklist clear
security ip-blocklist import {files}/blocks.txt --for 1h
!security ip-blocklist import {files}/one.txt
security ip-blocklist export
security ip-blocklist clear
security ip-allowlist list
security ip-allowlist add 127.0.0.0/8
security ip-allowlist list
security ip-allowlist remove 127.0.0.0/8
security ip-trusted list
security ip-trusted add 198.51.100.0/24
security ip-trusted remove 198.51.100.0/24
security audit-logs list --limit 3
security audit-logs export --output {files}/audit.json
security audit-logs archive --before 90d
security events
security stats
security lock-status
!security replay {files}/empty.jsonl
!security ca show
security certificate status
!security certificate renew
alerts list
alerts add webhook --id ops --url https://alerts.example.org/flm
alerts add ntfy --id phone --topic flm-4f9c2a71b0e8
alerts add command --id mail -- /bin/true
!alerts add command --id mail -- /bin/true
alerts edit ops --severity critical
alerts list
alerts deliveries
alerts inbox
alerts read --all
alerts remove phone
!alerts remove phone
usage --by model
logs requests
logs --level info
security backup list
!security backup restore --file {files}/nowhere
!migrate legacy plan --source {files}/nothing
api-keys revoke {key}
engines remove lab
!engines remove lab
!tui
proxy stop --all
";

fn engine() -> Script {
    let model = json!({"id": "demo", "object": "model", "owned_by": "test"});
    let whole = json!({
        "id": "c", "object": "chat.completion", "created": 0, "model": "demo",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    });
    Script::new(Reply::json(404, &json!({"error": {"message": "no such path"}})))
        .get("/v1/models", Reply::json(200, &json!({"object": "list", "data": [model]})))
        .post("/v1/chat/completions", Reply::json(200, &whole))
}

/// Tells the story in one format.
fn told(engine: &FakeEngine, format: &str) -> String {
    let home = Home::new();
    let files = home.path().join("files");
    for (name, text) in [
        ("profile.json", r#"{"temperature": 0.2, "pinned": ["temperature"]}"#),
        ("policy.json", r#"{"honeypot_paths": ["/old-login.php"]}"#),
        ("one.txt", "Answer in one sentence."),
        ("two.txt", "Answer in two sentences."),
        ("empty.jsonl", ""),
        ("blocks.txt", "# a list\n203.0.113.0/24  # scanners\n2001:db8:1::1 ; SBL1\n"),
    ] {
        std::fs::create_dir_all(&files).expect("a folder");
        std::fs::write(files.join(name), text).expect("writes");
    }
    let key = home.create_key("story");
    let id = &key[4..12];
    let mut told = String::new();
    for line in STORY.lines().filter(|line| !line.is_empty()) {
        let (fails, line) = line.strip_prefix('!').map_or((false, line), |line| (true, line));
        let line_told = line.replace("{engine}", &engine.url()).replace("{key}", id);
        let line_told = line_told.replace("{files}", files.to_str().expect("UTF-8"));
        let (before, after) = line_told.split_once(" -- ").map_or((&*line_told, None), |(b, a)| (b, Some(a)));
        let mut words: Vec<&str> = before.split(' ').chain(["--format", format]).collect();
        words.extend(after.into_iter().flat_map(|after| ["--", after]));
        let ended = run(&home, &words);
        assert_eq!(ended.code != 0, fails, "flm {line}: {}{}", ended.out, ended.err);
        let answer = match serde_json::from_str::<Value>(&ended.out) {
            Ok(answer) if format == "json" && answer.is_object() => {
                schema::check(&words, &answer);
                format!("{:#}\n", shortened(answer))
            }
            _ => ended.out + &ended.err,
        };
        let answer = answer.replace(home.path().to_str().expect("UTF-8"), "[home]").replace(id, "[key]");
        let answer = lasting(&answer.replace(&key[key.len() - 4..], "[last four]"));
        told.push_str(&format!("$ flm {line}\nexit {}\n{answer}\n", ended.code));
    }
    told
}

/// The first two of each list: the rest has the same form.
fn shortened(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().take(2).map(shortened).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, shortened(value))).collect(),
        other => other,
    }
}

/// What stays from run to run: numbers are `#`, long codes `[code]`, columns two blanks apart.
fn lasting(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        out.push_str(&line[..indent]);
        let mut words = Vec::new();
        for word in line.trim().split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let (bare, end) = word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
            let digits = bare.bytes().filter(u8::is_ascii_digit).count();
            // Behind these a code follows, however few digits chance gave it.
            let marked = words.last().is_some_and(|before: &String| matches!(&**before, "req_" | "whsec_"));
            words.push(if marked || bare.len() >= 8 && digits > 1 && digits < bare.len() {
                format!("[code]{end}")
            } else {
                let mut lasting = String::new();
                for c in bare.chars() {
                    match c {
                        '0'..='9' if lasting.ends_with('#') => {}
                        '0'..='9' => lasting.push('#'),
                        other => lasting.push(other),
                    }
                }
                lasting + end
            });
        }
        let mut line = words.concat();
        while line.contains("#.#") {
            line = line.replace("#.#", "#");
        }
        while line.contains("   ") {
            line = line.replace("   ", "  ");
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

#[test]
fn every_command_answers_as_it_did_in_json_and_in_text() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(engine()));
    insta::assert_snapshot!("json", told(&engine, "json"));
    insta::assert_snapshot!("text", told(&engine, "text"));
}

#[test]
fn what_differs_from_run_to_run_is_taken_out_and_nothing_else() {
    let line = "  at 2026-11-30 12:00:01  took 12.5 ms   flm://lab/demo  a9B8c7D6e5F4g3  port 8484";
    assert_eq!(lasting(line), "  at #-#-# #:#:#  took # ms  flm://lab/demo  [code]  port #\n");
    assert_eq!(
        lasting("\"id\": \"req_hdkvwqnzbmxtpcarse4f\", req_hdkvwqnzbmxtpcarsegf"),
        "\"id\": \"req_[code]\", req_[code]\n"
    );
}
