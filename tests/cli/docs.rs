//! Runs the code blocks of the documents (docs/documentation-policy.md): each document in a home of its own, block after
//! block, with an engine that answers and a receiver of alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flm::types::audit::{AuditKind, Severity};
use flm::types::failure::ErrorCode;
use portable_pty::CommandBuilder;
use serde_json::{Value, json};

use crate::documents::{self, Block, Mark, root};
use crate::fake_engine::{Asked, FakeEngine, PATIENCE, Reply, Script};
use crate::home::Home;
use crate::terminal::Terminal;

/// Models that the documents name.
const MODELS: [&str; 2] = ["llama3.2:3b", "qwen3:8b"];
/// Programs that others wrote and that documents call: what stands for them here.
const STUBS: [(&str, &str); 2] = [
    ("alert-by-mail", "#!/bin/sh\ncat >/dev/null\n"),
    ("tailscale", "#!/bin/sh\nif [ \"$1\" = ip ]; then echo 127.0.0.1; fi\n"),
];
/// Typed where a block that is run on a terminal is asked for a passphrase.
const PASSPHRASE: &str = "many words of a document";

#[test]
fn every_block_of_every_document_is_marked_and_most_are_run() {
    let (mut run, mut all) = (0, 0);
    for document in documents::all() {
        for Block { line, mark, text, .. } in documents::read(&document) {
            match mark {
                Mark::Run(_) => run += 1,
                Mark::RunBy(file) => {
                    run += 1;
                    let by = std::fs::read_to_string(root().join(&file));
                    let by = by.unwrap_or_else(|error| panic!("{document}:{line}: {file}: {error}"));
                    let line_of_it = text.lines().next().unwrap_or_default().trim();
                    let says_so = by.contains(&format!("\"{document}\"")) || by.contains(line_of_it);
                    assert!(says_so, "{document}:{line}: {file} does not run it");
                }
                Mark::NoRun(_) => {}
                Mark::Drawing => continue,
                Mark::None => {
                    panic!("{document}:{line}: say `run`, `run-by FILE` or `norun: REASON` after the language")
                }
            }
            all += 1;
        }
    }
    assert!(all > 50, "the scan found only {all} blocks");
    assert!(run * 100 >= all * 80, "{run} of {all} blocks are run; at least 80 % must be");
}

#[test]
fn marks_are_read_as_the_policy_has_them() {
    let found = documents::blocks(
        "```sh run\na\n```\ntext\n```sh norun: takes an hour\nb\n```\n```json\n{}\n```\n```sh norun:\n```\n\
         ```json run as alert\n{}\n```\n```nginx run-by tests/x.rs\n```\n```sh runs\n```\n```text\n```\n```\n```\n",
    );
    let marks: Vec<_> = found.into_iter().map(|block| (block.line, block.mark)).collect();
    let wanted = [
        (1, Mark::Run(String::new())),
        (5, Mark::NoRun("takes an hour".into())),
        (8, Mark::None),
        (11, Mark::None),
        (13, Mark::Run("as alert".into())),
        (16, Mark::RunBy("tests/x.rs".into())),
        (18, Mark::None),
        (20, Mark::Drawing),
        (22, Mark::None),
    ];
    assert_eq!(marks, wanted);
}

/// An engine with the models of the documents, which says a few words and takes alerts.
fn engine() -> Script {
    let models: Vec<_> = MODELS.iter().map(|id| json!({"id": id, "object": "model", "owned_by": "test"})).collect();
    let chunk = |delta: Value, end: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": end});
        let chunk =
            json!({"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let pieces = [
        chunk(json!({"role": "assistant", "content": "It "}), json!(null)),
        chunk(json!({"content": "scatters."}), json!(null)),
        chunk(json!({}), json!("stop")),
        "data: [DONE]\n\n".to_owned(),
    ];
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let whole = json!({
        "id": "c", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "It scatters."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    });
    Script::new(Reply::json(404, &json!({"error": {"message": "no such path"}})))
        .get("/v1/models", Reply::json(200, &json!({"object": "list", "data": models})))
        .post_when("/v1/chat/completions", |body| body["stream"] == true, Reply::stream(&pieces))
        .post("/v1/chat/completions", Reply::json(200, &whole))
        .post("/flm", Reply::json(200, &json!({})))
}

/// A port that is free now: documents start the proxy without naming one.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Where a document's blocks are run.
struct Place<'a> {
    home: Home,
    port: u16,
    https_port: u16,
    programs: PathBuf,
    key: String,
    engine: &'a FakeEngine,
}

impl<'a> Place<'a> {
    fn new(engine: &'a FakeEngine) -> Self {
        let home = Home::new();
        let programs = home.path().join("programs");
        std::fs::create_dir(&programs).expect("a folder");
        symlink(env!("CARGO_BIN_EXE_flm"), programs.join("flm")).expect("links");
        for (name, text) in STUBS {
            std::fs::write(programs.join(name), text).expect("writes");
            std::fs::set_permissions(programs.join(name), PermissionsExt::from_mode(0o755)).expect("sets the mode");
        }
        // What documents name by a path within the repository.
        symlink(root().join("tests"), home.path().join("tests")).expect("links");
        home.answer(&["engines", "add", "--kind", "openai", "--id", "ollama", "--url", &engine.url()]);
        let key = home.create_key("documents");
        Self { home, port: free_port(), https_port: free_port(), programs, key, engine }
    }

    /// A block with what is here in place of what stands for it in documents.
    fn put_in(&self, text: &str) -> String {
        let mut text = text
            .replace("8484", &self.port.to_string())
            .replace("8485", &self.https_port.to_string())
            .replace("/usr/local/bin/alert-by-mail", self.programs.join("alert-by-mail").to_str().expect("UTF-8"))
            .replace("--url https://alerts.example.org", &format!("--private --url {}", self.engine.url()));
        if text.contains("/mnt/usb") {
            let stick = self.home.path().join("usb");
            std::fs::create_dir_all(&stick).expect("a folder");
            text = text.replace("/mnt/usb", stick.to_str().expect("UTF-8"));
        }
        if text.contains("Ab12Cd34") {
            text = text.replace("Ab12Cd34", &self.key[4..12]);
        }
        let backup = "~/.local/share/flm/backups/flm-20260131-031500Z-daily";
        if text.contains(backup) {
            let listed = self.home.answer(&["security", "backup", "list"]);
            let path = listed["backups"][0]["path"].as_str().unwrap_or_else(|| panic!("a backup in {listed}"));
            text = text.replace(backup, path);
        }
        // What follows goes on until somebody ends it; that it still runs after a moment is what is wanted.
        let follow = |line: &str| {
            if !line.contains("--follow") {
                return format!("{line}\n");
            }
            format!("if timeout 1 {line}\nthen false; else [ $? = 124 ]; fi\n")
        };
        text.lines().map(follow).collect()
    }

    fn environment(&self) -> Vec<(String, String)> {
        let flm = self.home.flm(&[]);
        let given = flm.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
        let mut all: Vec<_> = given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.retain(|(name, _)| name != "PATH");
        all.push(("PATH".to_owned(), format!("{}:/usr/bin:/bin", self.programs.display())));
        all.push(("FLM_PROXY_PORT".to_owned(), self.port.to_string()));
        all.push(("FLM_PROXY_HTTPS_PORT".to_owned(), self.https_port.to_string()));
        all.push(("FLM_KEY".to_owned(), self.key.clone()));
        all
    }

    fn shell(&self, text: &str) -> Result<(), String> {
        let output = Command::new("/bin/sh")
            .args(["-euc", &self.put_in(text)])
            .env_clear()
            .envs(self.environment())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(format!("{}\n{out}{err}", output.status))
    }

    /// The same where somebody sits who types the passphrase that is asked for.
    fn on_a_terminal(&self, text: &str) -> Result<(), String> {
        let mut command = CommandBuilder::new("/bin/sh");
        command.args(["-euc", &format!("{}\necho the-end", self.put_in(text))]);
        command.env_clear();
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.cwd(self.home.path());
        let mut terminal = Terminal::start(command, 100, 40);
        const QUESTIONS: [(&str, &str); 4] =
            [("home: ", PASSPHRASE), ("key: ", PASSPHRASE), ("again: ", PASSPHRASE), ("[y/N] ", "y")];
        let mut answered = 0;
        loop {
            let question = |text: &str| QUESTIONS.into_iter().find(|(question, _)| text.ends_with(question));
            let ready = |text: &str| text.len() > answered && question(text).is_some();
            let ended = |text: &str| text.contains("the-end") || text.contains("error:");
            let received = || String::from_utf8_lossy(&terminal.screen().received).into_owned();
            terminal.wait_until("a question or the end", PATIENCE * 6, |screen| {
                let text = String::from_utf8_lossy(&screen.received);
                ready(&text) || ended(&text)
            });
            let text = received();
            if ended(&text) {
                let status = terminal.wait_until_ended(PATIENCE);
                return if status.success() { Ok(()) } else { Err(text) };
            }
            answered = text.len();
            terminal.send(&format!("{}\r", question(&text).map(|(_, answer)| answer).unwrap_or_default()));
        }
    }

    /// A message that a channel of its own got, and what signs it.
    fn alert(&self) -> (String, Asked) {
        let url = format!("{}/flm", self.engine.url());
        let added = self.home.answer(&[
            "alerts",
            "add",
            "webhook",
            "--id",
            "documents",
            "--private",
            "--url",
            &url,
            "--severity",
            "low",
        ]);
        self.home.answer(&["alerts", "test", "documents"]);
        self.home.answer(&["alerts", "remove", "documents"]);
        let seen = self.engine.seen();
        let asked = seen.asked.iter().rev().find(|asked| asked.json()["channel"] == "documents").expect("it came");
        (added["secret"].as_str().unwrap_or_else(|| panic!("a secret in {added}")).to_owned(), asked.clone())
    }

    fn python(&self, text: &str) -> Result<(), String> {
        let (secret, asked) = self.alert();
        let headers: serde_json::Map<_, _> = asked
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()))
            .collect();
        let check = format!(
            "import json\nheaders, body, seen = json.loads({headers:?}), {body:?}.encode(), set()\n\
             assert not is_genuine({secret:?} + 'x', headers, body, seen), 'another secret'\n\
             assert not is_genuine({secret:?}, headers, body + b' ', seen), 'another body'\n\
             assert is_genuine({secret:?}, headers, body, seen), 'the real one'\n\
             assert not is_genuine({secret:?}, headers, body, seen), 'a second time'\n",
            headers = Value::from(headers).to_string(),
            body = String::from_utf8_lossy(&asked.body),
        );
        let output = Command::new("/usr/bin/python3").args(["-c", &format!("{text}\n{check}")]).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn run(&self, block: &Block, more: &str) -> Result<(), String> {
        match (block.language.as_str(), more) {
            // A daemon that has just begun has not asked its engine yet; a reader types slower than that.
            ("sh", "") => self.shell(&format!("flm models refresh >/dev/null\n{}", block.text)),
            ("sh", "on a terminal") => self.on_a_terminal(&block.text),
            ("python", "as receiver") => self.python(&block.text),
            ("json", "as alert") => {
                let shown: Value = serde_json::from_str(&block.text).map_err(|error| error.to_string())?;
                let (shown, sent) = (fields(&shown, ""), fields(&self.alert().1.json(), ""));
                // Of an event, a document shows what its reader needs.
                let missing: Vec<_> = sent.difference(&shown).filter(|name| !name.contains("quoted/")).collect();
                let invented: Vec<_> =
                    shown.difference(&sent).filter(|name| !name.ends_with("quoted//address")).collect();
                if missing.is_empty() && invented.is_empty() {
                    return Ok(());
                }
                Err(format!("not shown: {missing:?}; never sent: {invented:?}"))
            }
            ("json", "") => {
                std::fs::write(self.home.path().join("block.json"), &block.text).map_err(|error| error.to_string())?;
                self.shell("flm security policy validate --json block.json")
            }
            ("toml", "") => {
                let file = self.home.path().join("flm.toml");
                std::fs::write(&file, &block.text).map_err(|error| error.to_string())?;
                let outcome = self.shell("flm config list");
                std::fs::remove_file(&file).map_err(|error| error.to_string())?;
                outcome
            }
            (other, more) => {
                Err(format!("nothing here runs a block of {other:?} {more}: mark it norun, with the reason"))
            }
        }
    }
}

/// Whether a document stops the proxy, or asks it about certificates, before it says how to start it.
fn takes_a_running_proxy_for_granted(blocks: &[Block]) -> bool {
    let run = blocks.iter().filter(|block| matches!(block.mark, Mark::Run(_)));
    let text: String = run.map(|block| block.text.as_str()).collect();
    let first = |words: &str| text.find(words).unwrap_or(usize::MAX);
    first("flm proxy stop").min(first("flm security certificate")) < first("flm proxy start")
}

/// Every field's name with those that it is in.
fn fields(value: &Value, within: &str) -> BTreeSet<String> {
    match value {
        Value::Object(object) => {
            let inner = object.iter().flat_map(|(name, value)| {
                let name = format!("{within}/{name}");
                std::iter::once(name.clone()).chain(fields(value, &name)).collect::<Vec<_>>()
            });
            inner.collect()
        }
        Value::Array(items) => items.iter().flat_map(|item| fields(item, &format!("{within}/"))).collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn blocks_that_are_marked_so_run() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(engine()));
    // A machine without them can still build and test FLM.
    let missing: Vec<_> =
        ["curl", "python3"].into_iter().filter(|program| !Path::new("/usr/bin").join(program).exists()).collect();
    let mut faults = Vec::new();
    for document in documents::all() {
        let blocks = documents::read(&document);
        if !blocks.iter().any(|block| matches!(block.mark, Mark::Run(_))) {
            continue;
        }
        let place = Place::new(&engine);
        if takes_a_running_proxy_for_granted(&blocks) {
            place.shell("flm proxy start").expect("starts");
        }
        for block in blocks {
            let Mark::Run(more) = &block.mark else { continue };
            let needs = |program: &str| {
                block.text.contains(&format!("{program} ")) || block.language == "python" && program == "python3"
            };
            if missing.iter().any(|program| needs(program)) {
                continue;
            }
            if let Err(why) = place.run(&block, more) {
                faults.push(format!("{document}:{}:\n{}{why}", block.line, block.text));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n---\n"));
}

#[test]
fn links_within_the_repository_lead_somewhere() {
    let mut dead = Vec::new();
    let mut count = 0;
    for file in documents::files() {
        let text = std::fs::read_to_string(&file).expect("reads");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            count += 1;
            if !file.parent().expect("a folder").join(target).exists() {
                dead.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(count > 20, "only {count} links were found");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A row behind an empty line, or with a cell too few, is not shown as one.
#[test]
fn every_table_of_every_document_is_whole() {
    let cells = |row: &str| row.replace("\\|", "").matches('|').count();
    let mut broken = Vec::new();
    for document in documents::all() {
        let text = std::fs::read_to_string(root().join(&document)).expect("reads");
        // Code has no tables.
        let text: String = text.split("```").step_by(2).collect();
        let lines: Vec<&str> = text.lines().collect();
        for at in 1..lines.len() {
            let (before, row) = (lines[at - 1], lines[at]);
            let begins = row.starts_with('|') && !before.starts_with('|');
            let rule = lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
            if begins && !rule || row.starts_with('|') && !begins && cells(row) != cells(before) {
                broken.push(format!("{document}: {row}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Every attack case of the study that came before the code has a test that names it (`/// Case N`), and a row in the audit.
#[test]
fn every_attack_case_has_a_test_that_names_it_and_a_row_in_the_audit() {
    let text: String = sources().into_iter().map(|(_, text)| text).collect();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let named = |number: u32| {
        let names = |line: &str| {
            let after = line.strip_prefix("/// Case ").and_then(|rest| rest.strip_prefix(&number.to_string()));
            after.is_some_and(|rest| rest.starts_with(['.', ':']))
        };
        lines.iter().enumerate().any(|(at, line)| {
            names(line) && lines[at..lines.len().min(at + 8)].iter().any(|line| line.ends_with("test]"))
        })
    };
    let audit = std::fs::read_to_string(root().join("docs/audit/security.md")).expect("reads");
    let faults: Vec<u32> =
        (1..=46).filter(|number| !named(*number) || !audit.contains(&format!("\n| {number} |"))).collect();
    assert_eq!(faults, Vec::<u32>::new(), "cases without a test that names them, or without a row");
    assert!(!named(47));
}

/// A table of proofs is worth nothing once one of them is gone or has another name.
#[test]
fn every_test_that_an_audit_names_exists() {
    let sources = sources();
    let modules: BTreeSet<&str> =
        sources.iter().flat_map(|(path, _)| path.iter().filter_map(|part| part.to_str())).map(stem).collect();
    let functions: BTreeSet<&str> =
        sources.iter().flat_map(|(_, text)| text.lines()).filter_map(|line| line.split_once("fn ")).map(name).collect();
    let (mut count, mut gone) = (0, Vec::new());
    for entry in std::fs::read_dir(root().join("docs/audit")).expect("lists").map_while(Result::ok) {
        let audit = std::fs::read_to_string(entry.path()).expect("reads");
        for named in audit.split('`').skip(1).step_by(2).filter(|quoted| names_a_test(quoted)) {
            count += 1;
            let last = named.rsplit("::").next().unwrap_or_default();
            if !functions.contains(last) && !modules.contains(last) {
                gone.push(format!("{}: {named}", entry.path().display()));
            }
        }
    }
    assert!(gone.is_empty(), "{gone:#?}");
    assert!(count > 600 && !functions.contains("nobody_wrote_this_one_yet"), "{count}");
}

/// A panel that asks for what nobody tells stays empty, and a rule never fires. The document tells all that the page has
/// (`tests/proxy/metrics.rs`).
#[test]
fn dashboard_and_alert_rules_name_only_metrics_labels_and_kinds_that_there_are() {
    let document = std::fs::read_to_string(root().join("docs/monitoring.md")).expect("reads");
    let told: BTreeMap<&str, BTreeSet<&str>> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .filter(|(series, _)| series.starts_with("flm_"))
        .map(|(series, _)| series.split_once('{').unwrap_or((series, "")))
        .map(|(name, labels)| (name, labels.trim_end_matches('}').split(',').collect()))
        .collect();
    let mut asked = BTreeSet::new();
    for file in ["assets/monitoring/flm-dashboard.json", "assets/monitoring/flm-alerts.yml"] {
        let text = std::fs::read_to_string(root().join(file)).expect("reads");
        for (at, _) in text.match_indices("flm_") {
            let name = &text[at..][..text[at..].find(|c: char| c != '_' && !c.is_ascii_lowercase()).expect("an end")];
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            let labels = told.get(family).unwrap_or_else(|| panic!("{file}: nothing tells {name}"));
            asked.insert(family.to_owned());
            let Some(selector) = text[at + name.len()..].strip_prefix('{') else { continue };
            for wanted in selector.split('}').next().unwrap_or_default().split(',') {
                let (label, value) = wanted.split_once('=').unwrap_or_else(|| panic!("{file}: {name}: {wanted}"));
                assert!(label == "instance" || labels.contains(label), "{file}: {name} has no label {label}");
                let value = value.trim_matches(['"', '\\']);
                let known = match label {
                    "kind" if family == "flm_audit_events_total" => is_a::<AuditKind>(value),
                    "severity" => is_a::<Severity>(value),
                    _ => true,
                };
                assert!(known, "{file}: {name} never has {label} {value}");
            }
        }
        let labels: BTreeSet<&str> = told.values().flatten().copied().chain(["instance", "le"]).collect();
        for by in text.split(" by (").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(by.split(", ").all(|label| labels.contains(label)), "{file}: by ({by})");
        }
    }
    assert!(asked.len() > 20, "the scan found only {asked:?}");
}

fn is_a<T: serde::de::DeserializeOwned>(name: &str) -> bool {
    serde_json::from_value::<T>(name.into()).is_ok()
}

#[test]
fn the_glossary_is_in_order_whole_and_in_the_consoles_words() {
    let glossary = std::fs::read_to_string(root().join("docs/glossary.md")).expect("reads");
    let console = std::fs::read_to_string(root().join("i18n/ja.yml")).expect("reads");
    let rows = glossary.lines().filter(|line| line.starts_with("| ")).skip(1);
    let rows: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    assert!(rows.len() > 50, "{}", rows.len());
    for row in &rows {
        assert!(row.len() == 4 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        let in_brackets = row[1].starts_with('（');
        assert!(in_brackets != console.contains(row[1]), "{row:?}: the console says otherwise");
    }
    let words: Vec<String> = rows.iter().map(|row| row[0].to_lowercase()).collect();
    assert!(words.is_sorted(), "not in the order of the alphabet");
}

#[test]
fn the_document_for_scripts_tells_every_error_code_and_what_it_ends_with() {
    let document = std::fs::read_to_string(root().join("docs/scripting.md")).expect("reads");
    let told: BTreeSet<(&str, &str)> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(code, rest)| (code, rest.split(' ').next().unwrap_or_default()))
        .collect();
    let published: Value = serde_json::from_str(include_str!("../../docs/schemas/commands.json")).expect("JSON");
    let codes = published["$defs"]["ErrorCode"]["oneOf"].as_array().expect("all codes");
    let codes = codes.iter().filter_map(|code| code["const"].as_str());
    let status = |code: &str| serde_json::from_value::<ErrorCode>(code.into()).expect("a code").exit_status();
    let wanted: BTreeSet<_> = codes.map(|code| (code, if status(code) == 1 { "1" } else { "2" })).collect();
    assert_eq!(told, wanted);
}

/// A path of files or modules to a function, or a name as long as a sentence.
fn names_a_test(quoted: &str) -> bool {
    let last = quoted.rsplit("::").next().unwrap_or_default();
    quoted.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_:./".contains(&byte))
        && (quoted.contains("::") || quoted.matches('_').count() >= 4)
        && last.starts_with(|first: char| first.is_ascii_lowercase())
        && !last.contains([':', '.', '/'])
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".rs").unwrap_or(file)
}

fn name<'a>((_, after): (&str, &'a str)) -> &'a str {
    let end = after.find(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric()).unwrap_or(after.len());
    &after[..end]
}

/// Every source file and every test, by its path.
fn sources() -> Vec<(PathBuf, String)> {
    fn read(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("lists").map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                read(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("reads");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    for folder in ["src", "tests"] {
        read(&root().join(folder), &mut found);
    }
    found
}
