//! Runs the code blocks of the documents (docs/documentation-policy.md): each document in a home of its own, block after
//! block, with an engine that answers.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::fake_engine::{FakeEngine, Reply, Script};
use crate::home::Home;

/// Documents whose blocks are marked, and so checked.
const DOCUMENTS: [&str; 13] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/audit-log.md",
    "docs/benchmarks.md",
    "docs/configuration.md",
    "docs/documentation-policy.md",
    "docs/egress.md",
    "docs/firewall.md",
    "docs/migration.md",
    "docs/testing.md",
    "docs/threat-model.md",
    "docs/troubleshooting.md",
];
/// Models that the documents name.
const MODELS: [&str; 2] = ["llama3.2:3b", "qwen3:8b"];

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    language: String,
    mark: Mark,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Mark {
    Run,
    /// With the reason.
    NoRun(String),
    /// A drawing, which nobody runs.
    Drawing,
    None,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in document.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => block.text.push_str(&format!("{line}\n")),
            (None, Some(info)) => {
                let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
                let mark = match (language, rest.trim()) {
                    ("mermaid" | "text", _) => Mark::Drawing,
                    (_, "run") => Mark::Run,
                    (_, rest) => match rest.strip_prefix("norun:").map(str::trim) {
                        Some(reason) if !reason.is_empty() => Mark::NoRun(reason.to_owned()),
                        _ => Mark::None,
                    },
                };
                open = Some(Block { line: number + 1, language: language.to_owned(), mark, text: String::new() });
            }
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a block is not closed");
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> Vec<Block> {
    blocks(&std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}")))
}

#[test]
fn every_block_is_marked_and_most_are_run() {
    let (mut run, mut all) = (0, 0);
    for document in DOCUMENTS {
        for block in read(document) {
            let line = block.line;
            match block.mark {
                Mark::Run => run += 1,
                Mark::NoRun(_) => {}
                Mark::Drawing => continue,
                Mark::None => panic!("{document}:{line}: say `run`, or `norun: REASON`, after the language"),
            }
            all += 1;
        }
    }
    assert!(all > 15, "the scan found only {all} blocks");
    assert!(run * 100 >= all * 80, "{run} of {all} blocks are run; at least 80 % must be");
}

#[test]
fn marks_are_read_as_the_policy_has_them() {
    let found =
        blocks("```sh run\na\n```\ntext\n```sh norun: takes an hour\nb\n```\n```json\n{}\n```\n```sh norun:\n```\n");
    let marks: Vec<_> = found.into_iter().map(|block| (block.line, block.mark)).collect();
    let wanted = [(1, Mark::Run), (5, Mark::NoRun("takes an hour".into())), (8, Mark::None), (11, Mark::None)];
    assert_eq!(marks, wanted);
}

/// An engine with the models of the documents, which says a few words.
fn engine() -> Script {
    let models: Vec<_> = MODELS.iter().map(|id| json!({"id": id, "object": "model", "owned_by": "test"})).collect();
    let chunk = |delta: serde_json::Value, end: serde_json::Value| {
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
}

/// A port that is free now: documents start the proxy without naming one.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Where a document's blocks are run.
struct Place {
    home: Home,
    port: u16,
    programs: PathBuf,
    key: String,
}

impl Place {
    fn new(engine: &FakeEngine) -> Self {
        let home = Home::new();
        let programs = home.path().join("programs");
        std::fs::create_dir(&programs).expect("a folder");
        symlink(env!("CARGO_BIN_EXE_flm"), programs.join("flm")).expect("links");
        // What documents name by a path within the repository.
        symlink(root().join("tests"), home.path().join("tests")).expect("links");
        home.answer(&["engines", "add", "--kind", "openai", "--id", "ollama", "--url", &engine.url()]);
        let key = home.create_key("documents");
        Self { home, port: free_port(), programs, key }
    }

    fn shell(&self, text: &str) -> Result<(), String> {
        let text = text.replace("8484", &self.port.to_string());
        let mut command = Command::new("/bin/sh");
        let flm = self.home.flm(&[]);
        command.env_clear();
        for (name, value) in flm.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let path = format!("{}:/usr/bin:/bin", self.programs.display());
        let output = command
            .args(["-euc", &text])
            .env("PATH", path)
            .env("FLM_PROXY_PORT", self.port.to_string())
            .env("FLM_KEY", &self.key)
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

    fn run(&self, block: &Block) -> Result<(), String> {
        match block.language.as_str() {
            // A daemon that has just begun has not asked its engine yet; a reader types slower than that.
            "sh" => self.shell(&format!("flm models refresh >/dev/null\n{}", block.text)),
            "json" => {
                std::fs::write(self.home.path().join("block.json"), &block.text).map_err(|error| error.to_string())?;
                self.shell("flm security policy validate --json block.json")
            }
            "toml" => {
                let file = self.home.path().join("flm.toml");
                std::fs::write(&file, &block.text).map_err(|error| error.to_string())?;
                let outcome = self.shell("flm config list");
                std::fs::remove_file(&file).map_err(|error| error.to_string())?;
                outcome
            }
            other => Err(format!("nothing here runs a block of {other:?}: mark it norun, with the reason")),
        }
    }
}

#[test]
fn blocks_that_are_marked_so_run() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let engine = runtime.block_on(FakeEngine::start(engine()));
    let curl = Path::new("/usr/bin/curl").exists();
    let mut faults = Vec::new();
    for document in DOCUMENTS {
        let place = Place::new(&engine);
        for block in read(document) {
            // A machine without curl can still build and test FLM.
            let lacking = block.text.contains("curl ") && !curl;
            if block.mark != Mark::Run || lacking {
                continue;
            }
            if let Err(why) = place.run(&block) {
                faults.push(format!("{document}:{}:\n{}{why}", block.line, block.text));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n---\n"));
}

#[test]
fn links_within_the_repository_lead_somewhere() {
    let mut dead = Vec::new();
    let mut files: Vec<PathBuf> =
        vec![root().join("README.md"), root().join("CONTRIBUTING.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "docs/adr"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("lists").map(|entry| entry.expect("entry").path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    let mut count = 0;
    for file in files {
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

/// Every attack case of the study that came before the code has a test that names it (`/// Case N`), and a row in the audit.
#[test]
fn every_attack_case_has_a_test_that_names_it_and_a_row_in_the_audit() {
    fn sources(folder: &Path, found: &mut String) {
        for entry in std::fs::read_dir(folder).expect("lists").map_while(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push_str(&std::fs::read_to_string(&path).expect("reads"));
            }
        }
    }
    let mut text = String::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut text);
    }
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
