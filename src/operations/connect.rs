//! Settings of client programs for the own endpoint, and the request that each would send (SPEC §2 `flm connect`).
//!
//! `CLIENTS` is the one table: adding a program adds an entry. A version stands there only when that program was run
//! against FLM unmodified; tests/fixtures/clients says what was seen.

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::bench::first_chat_model;
use super::chat::check_model;
use super::context::Context;
use super::own_endpoint::{OwnEndpoint, address};
use crate::types::calls::connect::{Connect, ConnectGuide, ConnectStep, Trial, TrialReport};
use crate::types::failure::{ErrorCode, Failure, Outcome};
use crate::types::ids::KeyId;
use crate::types::listener::TlsMode;
use crate::types::text::escape;

/// Under which label its requests show.
const LABEL: &str = "flm connect";
/// Stands where the key goes: FLM keeps hashes of keys only.
const KEY: &str = "YOUR_FLM_KEY";
/// Stands where the model goes when there is none.
const MODEL: &str = "MODEL";
/// Longest answer of a trial that is read.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// A client program.
struct Client {
    name: &'static str,
    title: &'static str,
    /// The version that was run against FLM, or `None`.
    tried: Option<&'static str>,
    /// The variable that names a file with one more trusted root.
    root: &'static str,
    /// What follows the address in its base URL.
    base: &'static str,
    /// Path, more headers, and body of the request that it sends.
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: fn(&str) -> Value,
    /// Stands in every answer that came whole.
    whole: &'static str,
    steps: fn(&Place<'_>) -> Vec<ConnectStep>,
}

/// What settings are made of.
struct Place<'a> {
    base: &'a str,
    model: &'a str,
}

/// Every client program.
static CLIENTS: &[Client] = &[
    Client {
        name: "claude",
        title: "Claude Code",
        tried: Some("2.1.332"),
        root: "NODE_EXTRA_CA_CERTS",
        base: "",
        path: "/v1/messages?beta=true",
        headers: &[("anthropic-version", "2023-06-01")],
        body: |model| json!({"model": model, "max_tokens": 16, "stream": true, "messages": [hello()]}),
        whole: "message_stop",
        steps: |place| {
            // Background calls use a name of their own unless told otherwise, which no engine here has.
            let lines = [
                ("ANTHROPIC_BASE_URL", place.base),
                ("ANTHROPIC_AUTH_TOKEN", KEY),
                ("ANTHROPIC_MODEL", place.model),
                ("ANTHROPIC_SMALL_FAST_MODEL", place.model),
            ];
            vec![shell(&lines), step("start it in the same shell", "claude")]
        },
    },
    Client {
        name: "codex",
        title: "Codex CLI",
        tried: Some("0.171.0"),
        root: "SSL_CERT_FILE",
        base: "/v1",
        path: "/v1/responses",
        headers: &[],
        body: |model| {
            let input = json!([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]);
            json!({"model": model, "stream": true, "store": false, "max_output_tokens": 16, "input": input})
        },
        whole: "\"type\":\"response.",
        steps: |place| {
            let (base, model) = (quoted(place.base), quoted(place.model));
            let file = format!(
                "model = {model}\nmodel_provider = \"flm\"\n\n[model_providers.flm]\nname = \"FLM\"\nbase_url = {base}\n\
                 env_key = \"FLM_API_KEY\"\nwire_api = \"responses\""
            );
            vec![
                step("~/.codex/config.toml", file),
                shell(&[("FLM_API_KEY", KEY)]),
                step("start it in the same shell", "codex"),
            ]
        },
    },
    Client {
        name: "opencode",
        title: "opencode",
        tried: Some("1.18.33"),
        root: "NODE_EXTRA_CA_CERTS",
        base: "/v1",
        path: "/v1/chat/completions",
        headers: &[],
        body: streamed_chat,
        whole: "[DONE]",
        steps: |place| {
            let config = json!({
                "$schema": "https://opencode.ai/config.json",
                "provider": {"flm": {
                    "npm": "@ai-sdk/openai-compatible",
                    "name": "FLM",
                    "options": {"baseURL": place.base, "apiKey": "{env:FLM_API_KEY}"},
                    "models": {place.model: {"name": place.model}},
                }},
                "model": format!("flm/{}", place.model),
                "small_model": format!("flm/{}", place.model),
            });
            vec![
                step("opencode.json in the project, or ~/.config/opencode/opencode.json", format!("{config:#}")),
                shell(&[("FLM_API_KEY", KEY)]),
                step("start it in the same shell", "opencode"),
            ]
        },
    },
    Client {
        name: "open-webui",
        title: "Open WebUI",
        tried: Some("0.12.4"),
        root: "SSL_CERT_FILE",
        base: "/v1",
        path: "/v1/chat/completions",
        headers: &[],
        body: streamed_chat,
        whole: "[DONE]",
        steps: |place| {
            vec![
                shell(&[("OPENAI_API_BASE_URL", place.base), ("OPENAI_API_KEY", KEY)]),
                step("start it in the same shell", "open-webui serve"),
            ]
        },
    },
    Client {
        name: "continue",
        title: "Continue",
        tried: Some("1.5.47"),
        root: "NODE_EXTRA_CA_CERTS",
        base: "/v1",
        path: "/v1/chat/completions",
        headers: &[],
        body: streamed_chat,
        whole: "[DONE]",
        steps: |place| {
            let (base, model) = (quoted(place.base), quoted(place.model));
            // Without the first three lines it refuses the file.
            let file = format!(
                "name: FLM\nversion: 1.0.0\nschema: v1\nmodels:\n  - name: FLM\n    provider: openai\n    model: {model}\n    \
                 apiBase: {base}\n    apiKey: {KEY}"
            );
            vec![
                step("~/.continue/config.yaml; where there is one, add the entry to its models", file),
                step("start it in the same shell, or use it in the editor", "cn"),
            ]
        },
    },
    Client {
        name: "openai-python",
        title: "OpenAI's library for Python",
        tried: Some("3.54.0"),
        root: "SSL_CERT_FILE",
        base: "/v1",
        path: "/v1/chat/completions",
        headers: &[],
        body: whole_chat,
        whole: "\"choices\"",
        steps: |place| {
            vec![step(
                "in the program",
                format!(
                    "import openai\n\nclient = openai.OpenAI(base_url={}, api_key={KEY:?})\n\
                     answer = client.chat.completions.create(\n    model={},\n    \
                     messages=[{{\"role\": \"user\", \"content\": \"hi\"}}],\n)\nprint(answer.choices[0].message.content)",
                    quoted(place.base),
                    quoted(place.model)
                ),
            )]
        },
    },
    Client {
        name: "openai-js",
        title: "OpenAI's library for JavaScript",
        tried: Some("7.57.0"),
        root: "NODE_EXTRA_CA_CERTS",
        base: "/v1",
        path: "/v1/chat/completions",
        headers: &[],
        body: whole_chat,
        whole: "\"choices\"",
        steps: |place| {
            vec![step(
                "in the program",
                format!(
                    "import OpenAI from \"openai\";\n\nconst client = new OpenAI({{ baseURL: {}, apiKey: {KEY:?} }});\n\
                     const answer = await client.chat.completions.create({{\n  model: {},\n  \
                     messages: [{{ role: \"user\", content: \"hi\" }}],\n}});\nconsole.log(answer.choices[0].message.content);",
                    quoted(place.base),
                    quoted(place.model)
                ),
            )]
        },
    },
    Client {
        name: "anthropic-python",
        title: "Anthropic's library for Python",
        tried: Some("2.13.0"),
        root: "SSL_CERT_FILE",
        base: "",
        path: "/v1/messages",
        headers: &[("anthropic-version", "2023-06-01")],
        body: |model| json!({"model": model, "max_tokens": 16, "messages": [hello()]}),
        whole: "\"stop_reason\"",
        steps: |place| {
            vec![step(
                "in the program",
                format!(
                    "import anthropic\n\nclient = anthropic.Anthropic(base_url={}, api_key={KEY:?})\n\
                     answer = client.messages.create(\n    model={},\n    max_tokens=1024,\n    \
                     messages=[{{\"role\": \"user\", \"content\": \"hi\"}}],\n)\nprint(answer.content[0].text)",
                    quoted(place.base),
                    quoted(place.model)
                ),
            )]
        },
    },
    Client {
        name: "ollama-python",
        title: "Ollama's library for Python",
        tried: Some("0.6.3"),
        root: "SSL_CERT_FILE",
        base: "",
        path: "/api/chat",
        headers: &[],
        body: |model| json!({"model": model, "stream": false, "messages": [hello()], "options": {"num_predict": 16}}),
        whole: "\"done\":true",
        steps: |place| {
            vec![step(
                "in the program",
                format!(
                    "import ollama\n\nclient = ollama.Client(host={}, headers={{\"Authorization\": \"Bearer {KEY}\"}})\n\
                     answer = client.chat(\n    model={},\n    \
                     messages=[{{\"role\": \"user\", \"content\": \"hi\"}}],\n)\nprint(answer.message.content)",
                    quoted(place.base),
                    quoted(place.model)
                ),
            )]
        },
    },
    Client {
        name: "curl",
        title: "curl",
        tried: Some("7.88.1"),
        root: "CURL_CA_BUNDLE",
        base: "",
        path: "/v1/chat/completions",
        headers: &[],
        body: whole_chat,
        whole: "\"choices\"",
        steps: |place| {
            let body = json!({"model": place.model, "messages": [hello()]}).to_string();
            vec![step(
                "in a shell",
                format!(
                    "curl {} \\\n  -H 'Authorization: Bearer {KEY}' \\\n  -H 'Content-Type: application/json' \\\n  -d {}",
                    in_shell(&format!("{}/v1/chat/completions", place.base)),
                    in_shell(&body)
                ),
            )]
        },
    },
];

/// Tells the settings of a client program, and sends what it would send when asked to.
///
/// # Errors
/// `NOT_FOUND` for a program that is not in the table, for a key that is not in force, and when no proxy runs; what the
/// endpoint answered to the trial.
pub async fn show(context: &Context, call: Connect) -> Outcome<ConnectGuide> {
    let client = CLIENTS.iter().find(|client| client.name == call.client).ok_or_else(|| unknown(&call.client))?;
    let (url, mode) = address(context)?;
    if let Some(id) = call.key {
        check_key(context, id).await?;
    }
    let model = match (call.model, call.trial) {
        (Some(model), _) => model,
        (None, Trial::Sent) => first_chat_model(context)?,
        (None, Trial::None) => first_chat_model(context).unwrap_or_else(|_none_yet| MODEL.to_owned()),
    };
    check_model(&model)?;
    let base_url = format!("{}{}", by_name(&url, &mode), client.base);
    let trial = match call.trial {
        Trial::None => None,
        Trial::Sent => Some(send(context, client, &model).await?),
    };
    let mut steps = trust_steps(client, &mode);
    steps.extend((client.steps)(&Place { base: &base_url, model: &model }));
    if let Some(id) = call.key {
        for step in &mut steps {
            step.text = step.text.replace(KEY, &format!("flm_{id}_…"));
        }
    }
    Ok(ConnectGuide {
        client: client.name.to_owned(),
        title: client.title.to_owned(),
        tried: client.tried.map(str::to_owned),
        base_url,
        model,
        steps,
        trial,
    })
}

/// The address under the name that every program can check: some cannot check a root's limits on addresses (Claude Code and
/// opencode, which run on Bun).
fn by_name(url: &str, mode: &TlsMode) -> String {
    if mode.0 != TlsMode::PACKAGED_CA {
        return url.to_owned();
    }
    url.replacen("://127.0.0.1:", "://localhost:", 1).replacen("://[::1]:", "://localhost:", 1)
}

/// How the program comes to trust a listener whose certificate is signed by FLM's own authority.
fn trust_steps(client: &Client, mode: &TlsMode) -> Vec<ConnectStep> {
    if mode.0 != TlsMode::PACKAGED_CA {
        return Vec::new();
    }
    vec![
        step(
            "once, where FLM runs; then take the file to where the program runs",
            "flm security ca export --output flm-root.pem",
        ),
        shell_of(&[format!("export {}=\"$PWD/flm-root.pem\"", client.root)]),
    ]
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = CLIENTS.iter().map(|client| client.name).collect();
    Failure::new(ErrorCode::NotFound, format!("no client program is known as {:?}", escape(name)))
        .hint(format!("known are: {}", names.join(", ")))
}

async fn check_key(context: &Context, id: KeyId) -> Outcome<()> {
    let keys = context.stores.security.keys().await?;
    let now = context.clock.wall();
    let works = keys
        .iter()
        .map(|record| &record.view)
        .any(|view| view.id == id && view.revoked.is_none() && view.expires.is_none_or(|expires| expires > now));
    if works {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::NotFound, format!("no key {id} is in force"))
        .hint("list the keys with: flm api-keys list; make one with: flm api-keys create --label NAME"))
}

/// Sends what the program would send, and reads the answer to its end.
async fn send(context: &Context, client: &Client, model: &str) -> Outcome<TrialReport> {
    let endpoint = OwnEndpoint::open(context, LABEL)?;
    let started = endpoint.clock.monotonic();
    let body = (client.body)(model).to_string();
    let mut answer = endpoint.send(Method::POST, client.path, client.headers, body.into()).await?;
    if answer.status != StatusCode::OK {
        return Err(answer.refusal().await);
    }
    let (status, request_id) = (answer.status.as_u16(), answer.request_id());
    let mut read = Vec::new();
    while let Some(frame) = answer.body.frame().await {
        let broken = |error: &dyn std::fmt::Display| {
            let mut failure = Failure::new(ErrorCode::EngineApiError, format!("the answer broke off: {error}"))
                .hint("flm logs requests says how the request ended");
            failure.request_id.clone_from(&request_id);
            failure
        };
        if let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() > ANSWER_LIMIT {
            return Err(broken(&"it is longer than 1 MiB"));
        }
    }
    if memchr::memmem::find(&read, client.whole.as_bytes()).is_none() {
        let mut failure = Failure::new(
            ErrorCode::EngineApiError,
            format!("{} would not take the answer as whole: {:?} is missing in it", client.title, client.whole),
        )
        .hint("flm logs requests says how the request ended");
        failure.request_id = request_id;
        return Err(failure);
    }
    let took = endpoint.clock.monotonic().saturating_duration_since(started);
    let request = format!("POST {}", client.path);
    Ok(TrialReport { request, status, request_id, took_ms: took.as_secs_f64() * 1000.0 })
}

fn hello() -> Value {
    json!({"role": "user", "content": "hi"})
}

fn whole_chat(model: &str) -> Value {
    json!({"model": model, "max_tokens": 16, "messages": [hello()]})
}

fn streamed_chat(model: &str) -> Value {
    json!({"model": model, "max_tokens": 16, "stream": true, "messages": [hello()]})
}

fn step(place: &str, text: impl Into<String>) -> ConnectStep {
    ConnectStep { place: place.to_owned(), text: text.into() }
}

fn shell(variables: &[(&str, &str)]) -> ConnectStep {
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("export {name}={}", in_shell(value))).collect();
    shell_of(&lines)
}

fn shell_of(lines: &[String]) -> ConnectStep {
    step("in the shell that starts it", lines.join("\n"))
}

/// A text as one word of a POSIX shell.
fn in_shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text between double quotes, as JSON, TOML, YAML, Python and JavaScript read it.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_name_of_its_own_and_settings_with_address_model_and_key() {
        for (at, client) in CLIENTS.iter().enumerate() {
            assert!(CLIENTS[..at].iter().all(|other| other.name != client.name), "{} twice", client.name);
            let base = format!("http://127.0.0.1:8484{}", client.base);
            let steps = (client.steps)(&Place { base: &base, model: "a/b:c" });
            let all: String = steps.iter().map(|step| step.text.as_str()).collect();
            // Open WebUI lets the person choose among the models that it lists.
            let names_model = all.contains("a/b:c") || client.name == "open-webui";
            assert!(all.contains(&base) && all.contains(KEY) && names_model, "{}: {all}", client.name);
            assert_eq!((client.body)("m")["model"], "m", "{}", client.name);
        }
    }

    #[test]
    fn a_version_stands_only_where_a_recording_says_so() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/clients");
        for client in CLIENTS {
            let recording = std::fs::read_to_string(folder.join(format!("{}.json", client.name))).ok();
            let recorded = recording.map(|text| serde_json::from_str::<Value>(&text).expect("JSON"));
            assert_eq!(recorded.as_ref().map(|seen| &seen["version"]), client.tried.map(Value::from).as_ref());
            if let Some(seen) = recorded {
                assert_eq!(seen["result"], "ok", "{}", client.name);
                let path = client.path;
                let asked = seen["requests"].as_array().expect("requests").iter().any(|asked| asked["path"] == path);
                assert!(asked, "{} sends {path}", client.name);
            }
        }
    }

    #[test]
    fn the_root_of_flms_own_authority_is_part_of_the_settings_and_of_no_others() {
        for client in CLIENTS {
            assert_eq!(trust_steps(client, &TlsMode::local_http()), []);
            let steps = trust_steps(client, &TlsMode(TlsMode::PACKAGED_CA.to_owned()));
            assert!(steps[0].text.contains("flm security ca export") && steps[1].text.contains(client.root));
        }
    }

    #[test]
    fn an_authority_that_is_limited_to_addresses_is_called_by_name() {
        let own = TlsMode(TlsMode::PACKAGED_CA.to_owned());
        for (url, wanted) in [
            ("https://127.0.0.1:8485", "https://localhost:8485"),
            ("https://[::1]:8485", "https://localhost:8485"),
            ("https://192.168.7.1:8485", "https://192.168.7.1:8485"),
        ] {
            assert_eq!(by_name(url, &own), wanted);
        }
        assert_eq!(by_name("http://127.0.0.1:8484", &TlsMode::local_http()), "http://127.0.0.1:8484");
    }

    #[test]
    fn a_models_name_stays_one_word_and_one_string() {
        assert_eq!(in_shell("a'b $(x)"), r"'a'\''b $(x)'");
        assert_eq!(quoted("a\"b\n"), r#""a\"b\n""#);
    }
}
