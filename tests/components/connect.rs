//! What `flm connect` prints, followed to the letter over TLS with FLM's own authority: each program answers with the settings,
//! and refuses the certificate without the step that makes it trust the authority.

use std::path::Path;
use std::process::{Command, Output};

use http::Method;
use serde_json::Value;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply, Step};
use crate::home::{Home, PATIENCE, wait_until};
use crate::llama_server::{component, components};

/// How the last step of a program's settings is run.
enum Run {
    Python,
    JavaScript,
    Shell,
}

impl Run {
    fn command(&self, text: &str) -> Command {
        let (program, arguments) = match self {
            Self::Python => (component("python/bin/python"), ["-c", text].to_vec()),
            // What stands in a program is a module: it is read from standard input by no library's loader.
            Self::JavaScript => (component("javascript/bin/node"), ["--input-type=module", "-e", text].to_vec()),
            Self::Shell => ("/bin/sh".into(), ["-c", text].to_vec()),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

struct Stage {
    home: Home,
    key: String,
    folder: tempfile::TempDir,
}

impl Stage {
    /// Runs something in the program's folder, with nothing of this machine's own trust.
    fn run(&self, mut command: Command, trust: Option<(&str, &str)>) -> Output {
        for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"]
        {
            command.env_remove(variable);
        }
        for variable in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(variable);
        }
        command.envs(trust).env("NO_PROXY", "localhost,127.0.0.1").current_dir(self.folder.path());
        command.output().expect("runs the program")
    }
}

/// The `export NAME="$PWD/FILE"` of a step, as name and value.
fn exported<'a>(text: &'a str, folder: &Path) -> (&'a str, String) {
    let (name, value) = text.strip_prefix("export ").and_then(|rest| rest.split_once('=')).expect("one variable");
    (name, value.trim_matches('"').replace("$PWD", folder.to_str().expect("UTF-8")))
}

#[test]
#[ignore = "needs client libraries and curl: run scripts/install-test-components.sh"]
fn settings_followed_to_the_letter_work_over_tls_and_not_without_the_trusted_root() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    let fake = runtime.block_on(FakeEngine::start(engine_scripts::llamacpp()));
    let home = Home::new();
    home.answer(&["proxy", "start", "--mode", "packaged-ca", "--port", "0"]);
    home.add_engine("llamacpp", "chat", fake.address.port());
    let key = home.create_key("connect");
    wait_until("the model is listed", PATIENCE, || home.answer(&["models", "list"]).to_string().contains("flm-tiny"));
    let folder = tempfile::tempdir().expect("a folder");
    // Where a project's own packages lie.
    std::os::unix::fs::symlink(components().join("javascript/node_modules"), folder.path().join("node_modules"))
        .expect("links");
    let stage = Stage { home, key, folder };
    let recorded: Value =
        serde_json::from_slice(&Reply::recorded("llamacpp/b11434/chat").body()).expect("a recorded answer");
    let said = recorded["choices"][0]["message"]["content"].as_str().expect("words").trim();

    for (client, run) in [
        ("openai-python", Run::Python),
        ("anthropic-python", Run::Python),
        ("ollama-python", Run::Python),
        ("openai-js", Run::JavaScript),
        ("curl", Run::Shell),
    ] {
        let guide = stage.home.answer(&["connect", client, "--model", "flm-tiny"]);
        assert!(guide["base_url"].as_str().is_some_and(|url| url.starts_with("https://")), "{guide}");
        let steps: Vec<&str> =
            guide["steps"].as_array().expect("steps").iter().map(|step| step["text"].as_str().expect("text")).collect();
        let [export, trust, program] = steps[..] else { panic!("{client}: {steps:?}") };
        let arguments: Vec<&str> = export.split(' ').skip(1).collect();
        let exported_root = stage.run(stage.home.flm(&arguments), None);
        assert!(exported_root.status.success(), "{export}: {}", String::from_utf8_lossy(&exported_root.stderr));
        let (variable, file) = exported(trust, stage.folder.path());
        let program = program.replace("YOUR_FLM_KEY", &stage.key);

        let without = stage.run(run.command(&program), None);
        let told = String::from_utf8_lossy(&[without.stdout, without.stderr].concat()).to_lowercase();
        assert!(!without.status.success(), "{client} trusts whatever it meets: {told}");
        // Ollama's library hides why it could not connect.
        assert!(client == "ollama-python" || told.contains("certificate"), "{client} without the root: {told}");
        let with = stage.run(run.command(&program), Some((variable, &file)));
        let (out, err) = (String::from_utf8_lossy(&with.stdout), String::from_utf8_lossy(&with.stderr));
        assert!(with.status.success(), "{client}: {err}");
        let content = match client {
            "curl" => serde_json::from_str::<Value>(&out).expect("JSON")["choices"][0]["message"]["content"].clone(),
            _ => Value::from(out.trim()),
        };
        assert_eq!(content.as_str().map(str::trim), Some(said), "{client}");
        std::fs::remove_file(&file).expect("the next client exports it again");
    }
}

/// How a program that speaks to FLM is run for one question and one answer, and its own switches for what it would send to
/// others than FLM.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("claude", "claude -p 'say hi'", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1"),
    ("codex", "codex exec --skip-git-repo-check 'say hi'", "CODEX_DISABLE_UPDATE_CHECK=1"),
    ("opencode", "opencode run 'say hi'", "OPENCODE_DISABLE_AUTOUPDATE=1"),
    ("continue", "cn -p 'say hi'", "CONTINUE_TELEMETRY_ENABLED=0"),
];

/// Longest that a program may take that gets no answer: some try again for minutes.
const WITHOUT_AN_ANSWER: u64 = 10;

/// A folder of a person's own, as the steps of `flm connect` make it.
struct Desk {
    folder: tempfile::TempDir,
    /// Lines for the shell that starts the program.
    shell: String,
}

impl Desk {
    /// Does what the steps say, but for the root of the authority and the last one, which starts the program.
    fn prepared(steps: &[Value], key: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shell = String::new();
        for step in steps {
            let (place, text) = (step["place"].as_str().expect("a place"), step["text"].as_str().expect("text"));
            let text = text.replace("YOUR_FLM_KEY", key);
            let file = place.split([' ', ';']).next().expect("a word");
            match place {
                _ if place.starts_with("in the shell") => shell = format!("{shell}{text}\n"),
                _ if place.starts_with("start it") => assert!(!text.is_empty()),
                _ => {
                    let file = folder.path().join(file.trim_start_matches("~/"));
                    std::fs::create_dir_all(file.parent().expect("a folder")).expect("makes it");
                    flm::config::files::replace(&file, text.as_bytes(), flm::config::files::Audience::Owner)
                        .expect("writes");
                }
            }
        }
        Self { folder, shell }
    }

    /// Runs a command in the shell; answers what it wrote and whether it ended well.
    fn run(&self, command: &str, switch: &str, seconds: u64) -> (bool, String) {
        let path =
            [component("javascript/bin"), component("programs/node_modules/.bin"), "/usr/bin".into(), "/bin".into()];
        let output = Command::new("timeout")
            .args(["--kill-after=5", &seconds.to_string(), "/bin/sh", "-c", &format!("{}exec {command}", self.shell)])
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", std::env::join_paths(path).expect("a path"))
            .env("NO_PROXY", "localhost,127.0.0.1")
            .envs(switch.split_once('='))
            .current_dir(self.folder.path())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("runs the program");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

#[test]
#[ignore = "needs Claude Code, Codex, opencode and Continue: run scripts/install-test-components.sh"]
fn programs_that_follow_their_settings_to_the_letter_get_their_answer_over_tls() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
    // An answer that was cut off is a failure to some of them.
    let mut whole = Reply::recorded("llamacpp/b11434/chat_stream_usage");
    for step in &mut whole.steps {
        if let Step::Send(bytes) = step {
            *bytes = String::from_utf8_lossy(bytes)
                .replace("\"finish_reason\":\"length\"", "\"finish_reason\":\"stop\"")
                .into();
        }
    }
    let said: String = String::from_utf8_lossy(&whole.body())
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    let script = engine_scripts::llamacpp().first(Method::POST, "/v1/chat/completions", whole);
    let fake = runtime.block_on(FakeEngine::start(script));
    let home = Home::new();
    home.answer(&["proxy", "start", "--mode", "packaged-ca", "--port", "0"]);
    home.add_engine("llamacpp", "chat", fake.address.port());
    let key = home.create_key("connect");
    wait_until("the model is listed", PATIENCE, || home.answer(&["models", "list"]).to_string().contains("flm-tiny"));
    let asked = || fake.seen().asked.iter().filter(|asked| asked.path == "/v1/chat/completions").count();

    for (client, command, switch) in PROGRAMS {
        let guide = home.answer(&["connect", client, "--model", "flm-tiny"]);
        let [export, trust, steps @ ..] = guide["steps"].as_array().expect("steps").as_slice() else {
            panic!("{client}: {guide}")
        };
        let mut desk = Desk::prepared(steps, &key);
        let export = export["text"].as_str().expect("a command");
        let mut exported = home.flm(&export.split(' ').skip(1).collect::<Vec<_>>());
        assert!(exported.current_dir(desk.folder.path()).status().expect("runs").success(), "{export}");

        let before = asked();
        let (well, told) = desk.run(command, switch, WITHOUT_AN_ANSWER);
        assert!(!(well && told.contains(said.trim())), "{client} trusts whatever it meets: {told}");
        assert_eq!(asked(), before, "{client} sends its words to whom it does not trust");
        desk.shell = format!("{}\n{}", trust["text"].as_str().expect("text"), desk.shell);
        let (well, told) = desk.run(command, switch, 60);
        assert!(well && told.contains(said.trim()), "{client}: {told}");
        assert!(asked() > before, "{client}");
    }
}
