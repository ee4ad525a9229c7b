//! What `flm connect` prints, followed to the letter over TLS with FLM's own authority: each program answers with the settings,
//! and refuses the certificate without the step that makes it trust the authority.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::engine_scripts;
use crate::fake_engine::{FakeEngine, Reply};
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
