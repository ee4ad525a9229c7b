//! What each thing of the old program becomes: pure, and the same for every home.
//!
//! Called by the operations of this folder, after the folder was read and before it is compared with the home. The shape
//! that is understood is in docs/migration.md; what is not understood becomes a note and is never lost in silence.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cells::{Fields, is_set, note_value, time};
use super::source::{DATABASE_NAMES, Source};
use crate::engines::registry::{ADAPTERS, adapter};
use crate::guard::key_text::{self, KeyText};
use crate::net::upstream::Upstream;
use crate::types::calls::legacy::{LegacyFate, LegacyItem, LegacyKind};
use crate::types::clock::UnixMillis;
use crate::types::engine::EngineKind;
use crate::types::ids::{CanonicalModel, EngineId, KeyId};
use crate::types::profile::{self, Parameter};
use crate::types::secret::Secret;
use crate::types::text::{escape, is_hostile};

/// Longest label and alias, as the operations on them allow.
const LABEL_LENGTH: usize = 80;
const NAME_LENGTH: usize = 256;
/// Longest prompt in bytes, as for `flm api prompts set`.
const PROMPT_LENGTH: usize = 64 << 10;

/// Engines of one kind that are told apart by a number: more than one machine serves.
pub(super) const MOST_ENGINES: u32 = 1_000;

/// An engine that old APIs used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedEngine {
    pub(super) id: EngineId,
    pub(super) kind: EngineKind,
    pub(super) url: String,
}

/// The name of an old API, for the model that it served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedAlias {
    pub(super) name: String,
    pub(super) engine: Option<EngineId>,
    pub(super) model: String,
}

/// The parameters of an old API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MovedProfile {
    pub(super) engine: EngineId,
    pub(super) model: String,
    pub(super) label: String,
    pub(super) parameters: Vec<Parameter>,
}

/// A key whose text was in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MovedKey {
    pub(super) id: KeyId,
    pub(super) label: String,
    pub(super) last4: String,
    /// Globs; empty is every model.
    pub(super) models: Vec<String>,
    /// The system prompt of its API.
    pub(super) prompt: Option<String>,
    pub(super) requests_per_minute: Option<u32>,
    pub(super) created: Option<UnixMillis>,
    pub(super) expires: Option<UnixMillis>,
}

/// Everything but the keys' texts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) engines: Vec<MovedEngine>,
    pub(super) aliases: Vec<MovedAlias>,
    pub(super) profiles: Vec<MovedProfile>,
    pub(super) settings: BTreeMap<String, String>,
    /// What is not moved, and what there is to say about the rest.
    pub(super) remarks: Vec<LegacyItem>,
}

/// What the old program's data becomes, its keys still in clear.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) moved: Moved,
    pub(super) keys: Vec<(MovedKey, Secret)>,
}

/// An old API as its keys need it.
struct OldApi {
    name: String,
    models: Vec<String>,
    prompt: Option<String>,
}

/// Maps everything. `now` decides which keys have ended.
pub(super) fn map(source: &Source, now: UnixMillis) -> Draft {
    let mut mapping = Mapping { moved: Moved::default(), apis: BTreeMap::new() };
    mapping.config(&source.config);
    let table = |name: &str| source.database.tables.get(name).into_iter().flatten();
    for (number, row) in table("apis").enumerate() {
        mapping.api(number + 1, Fields::of_row("apis", row));
    }
    for row in table("user_settings") {
        mapping.user_setting(Fields::of_row("user_settings", row));
    }
    let mut keys: Vec<(MovedKey, Secret)> = Vec::new();
    for (number, row) in table("api_keys").enumerate() {
        mapping.key(number + 1, Fields::of_row("api_keys", row), now, &mut keys);
    }
    for (name, rows) in &source.database.others {
        mapping.remark(
            LegacyKind::Note,
            name,
            LegacyFate::Noted,
            format!("a table that FLM does not know, {rows} rows"),
        );
    }
    Draft { moved: mapping.moved, keys }
}

struct Mapping {
    moved: Moved,
    /// By id, as the keys name them.
    apis: BTreeMap<String, OldApi>,
}

impl Mapping {
    fn remark(&mut self, kind: LegacyKind, name: &str, fate: LegacyFate, detail: impl Into<String>) {
        self.moved.remarks.push(LegacyItem { kind, name: name.to_owned(), fate, detail: detail.into() });
    }

    fn api(&mut self, number: usize, mut fields: Fields) {
        let name = fields.text(&["name", "label", "title", "api_name"]).unwrap_or_else(|| format!("api {number}"));
        let id = fields.text(&["id", "api_id"]).unwrap_or_else(|| number.to_string());
        fields.drop_all(&[
            "created_at",
            "updated_at",
            "created",
            "updated",
            "status",
            "enabled",
            "is_active",
            "active",
        ]);
        if let Some(port) = fields.text(&["port"]) {
            let detail =
                format!("its clients used port {port}: they now use the one address of FLM (flm proxy status)");
            self.remark(LegacyKind::Note, &name, LegacyFate::Noted, detail);
        }
        if fields.text(&["enable_auth", "auth", "require_key"]).is_some_and(|on| !is_set(&on)) {
            let detail = "it answered without a key: FLM always asks for one (flm api-keys create --label LABEL)";
            self.remark(LegacyKind::Note, &name, LegacyFate::Noted, detail);
        }
        let prompt = fields.text(&["system_prompt", "prompt"]).filter(|text| !text.trim().is_empty());
        let kind = fields.text(&["engine_type", "engine", "provider", "backend", "type"]);
        let url = fields.text(&["base_url", "engine_url", "url", "endpoint"]);
        let engine = self.engine(&name, kind.as_deref(), url.as_deref());
        let Some(model) = fields.text(&["model", "model_name", "model_id"]).filter(|model| is_name(model)) else {
            self.remark(LegacyKind::Alias, &name, LegacyFate::NotMovable, "it names no model");
            fields.note_rest(&name, &mut self.moved.remarks);
            return;
        };
        let mut models = vec![format!("flm://*/{model}")];
        models.extend(self.alias(&name, engine.as_ref(), &model));
        if let Some(text) = fields.text(&["engine_config", "parameters", "params", "options"]) {
            self.profile(&name, engine.as_ref(), &model, &text);
        }
        let prompt = prompt.filter(|text| {
            let fault = match (text.len() <= PROMPT_LENGTH, crate::proxy::prompt::unknown_variable(text)) {
                (false, _) => "its system prompt is longer than FLM allows (64 KiB)",
                (true, Some(_)) => "its system prompt has a {{variable}} that FLM does not know",
                (true, None) => return true,
            };
            self.remark(LegacyKind::Prompt, &name, LegacyFate::NotMovable, fault);
            false
        });
        fields.note_rest(&name, &mut self.moved.remarks);
        self.apis.insert(id, OldApi { name, models, prompt });
    }

    /// The engine behind an API: one entry for each address.
    fn engine(&mut self, api: &str, kind: Option<&str>, url: Option<&str>) -> Option<EngineId> {
        let told = kind.unwrap_or("openai");
        let Some(kind) = engine_kind(told) else {
            let detail =
                format!("the engine {told:?} is none that FLM knows: add it with flm engines add --kind openai");
            self.remark(LegacyKind::Engine, api, LegacyFate::NotMovable, detail);
            return None;
        };
        let port = adapter(&kind).and_then(|adapter| adapter.info().ports.first().copied());
        let url = match (url, port) {
            (Some(url), _) => {
                let url = url.trim().trim_end_matches('/');
                url.strip_suffix("/v1").unwrap_or(url).trim_end_matches('/').to_owned()
            }
            (None, Some(port)) => format!("http://127.0.0.1:{port}"),
            (None, None) => {
                self.remark(LegacyKind::Engine, api, LegacyFate::NotMovable, "it says not where its engine is");
                return None;
            }
        };
        if let Err(error) = Upstream::parse(&url) {
            self.remark(LegacyKind::Engine, api, LegacyFate::NotMovable, error.to_string());
            return None;
        }
        if let Some(known) = self.moved.engines.iter().find(|known| same_place(&known.url, &url)) {
            return Some(known.id.clone());
        }
        let taken = |id: &str| self.moved.engines.iter().any(|engine| engine.id.as_str() == id);
        let id = (1..=MOST_ENGINES).map(|number| numbered(kind.as_str(), number)).find(|id| !taken(id))?;
        let id = EngineId::parse(&id).ok()?;
        self.moved.engines.push(MovedEngine { id: id.clone(), kind, url });
        Some(id)
    }

    /// The name of an API becomes an alias, so that clients may ask for it; answers the alias.
    fn alias(&mut self, api: &str, engine: Option<&EngineId>, model: &str) -> Option<String> {
        let name: String = api.split_whitespace().collect::<Vec<_>>().join("-");
        if name == model {
            return None;
        }
        if !is_name(&name) || name.starts_with(CanonicalModel::SCHEME) {
            let detail = "a request cannot carry this name: clients ask for the model itself";
            self.remark(LegacyKind::Alias, api, LegacyFate::NotMovable, detail);
            return None;
        }
        if let Some(other) = self.moved.aliases.iter().find(|other| other.name == name) {
            let same = other.engine.as_ref() == engine && other.model == model;
            let detail =
                if same { "the same API twice" } else { "another API of this name was first, with another model" };
            self.remark(LegacyKind::Alias, api, LegacyFate::Duplicate, detail);
            return same.then_some(name);
        }
        self.moved.aliases.push(MovedAlias { name: name.clone(), engine: engine.cloned(), model: model.to_owned() });
        Some(name)
    }

    fn profile(&mut self, api: &str, engine: Option<&EngineId>, model: &str, text: &str) {
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            let detail = format!("parameters: {}", note_value("parameters", text));
            self.remark(LegacyKind::Note, api, LegacyFate::Noted, detail);
            return;
        };
        let Some(engine) = engine else {
            if !fields.is_empty() {
                self.remark(LegacyKind::Profile, api, LegacyFate::NotMovable, "its engine is not moved");
            }
            return;
        };
        let words = self
            .moved
            .engines
            .iter()
            .find(|moved| moved.id == *engine)
            .and_then(|moved| adapter(&moved.kind))
            .map(|adapter| adapter.info().parameters);
        let mut parameters: Vec<Parameter> = Vec::new();
        for (old, value) in fields {
            let name = parameter_name(&old);
            let known = profile::PARAMETERS.iter().any(|known| known.name == name);
            let taken = match name {
                "repeat_penalty" => words.is_some_and(|words| words.repeat_penalty.is_some()),
                "context_length" => words.is_some_and(|words| words.context_length.is_some()),
                _ => true,
            };
            let parameter = Parameter { name: name.to_owned(), value: value.clone(), pinned: false };
            let fits = profile::check(std::slice::from_ref(&parameter));
            let twice = parameters.iter().any(|other| other.name == name);
            match (known && taken && !twice, fits) {
                (true, Ok(())) => parameters.push(parameter),
                (true, Err(why)) => {
                    self.remark(LegacyKind::Profile, api, LegacyFate::NotMovable, format!("{old}: {why}"));
                }
                (false, _) => {
                    let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let detail = format!("{old} = {}", note_value(&old, &shown));
                    self.remark(LegacyKind::Note, api, LegacyFate::Noted, detail);
                }
            }
        }
        if parameters.is_empty() {
            return;
        }
        if self.moved.profiles.iter().any(|other| other.engine == *engine && other.model == model) {
            let detail = format!("another API of {model} was first: a model has one profile");
            self.remark(LegacyKind::Profile, api, LegacyFate::Duplicate, detail);
            return;
        }
        self.moved.profiles.push(MovedProfile {
            engine: engine.clone(),
            model: model.to_owned(),
            label: label(api),
            parameters,
        });
    }

    fn key(&mut self, number: usize, mut fields: Fields, now: UnixMillis, keys: &mut Vec<(MovedKey, Secret)>) {
        let api = fields.text(&["api_id", "api"]).and_then(|id| self.apis.get(&id));
        let told = fields.text(&["label", "name", "description", "title"]);
        let name = match (told, api) {
            (Some(told), _) => label(&told),
            (None, Some(api)) => label(&format!("old key {number} of {}", api.name)),
            (None, None) => format!("old key {number}"),
        };
        let (mut models, prompt) = api.map_or_else(Default::default, |api| (api.models.clone(), api.prompt.clone()));
        models.sort();
        let made = fields.text(&["created_at", "created"]).and_then(|text| time(&text));
        let expires = fields.text(&["expires_at", "expires", "expiry"]);
        let off = fields.text(&["is_active", "active", "enabled"]).is_some_and(|on| !is_set(&on))
            || fields.text(&["revoked", "revoked_at", "disabled"]).is_some_and(|on| is_set(&on));
        let rate = fields.text(&["rate_limit", "requests_per_minute", "rpm"]).and_then(|text| text.parse().ok());
        fields.drop_all(&["id", "updated_at", "updated", "last_used", "last_used_at", "usage_count"]);
        let marked = fields.text(&["encrypted", "is_encrypted"]).is_some_and(|on| is_set(&on));
        let sealed = fields.take(&["encrypted_key", "key_encrypted", "ciphertext", "nonce"]).is_some();
        let hashed = fields.take(&["key_hash", "hash"]).is_some();
        let text = fields.secret(&["key", "api_key", "key_value", "token", "secret", "plain_key", "key_text"]);
        fields.note_rest(&name, &mut self.moved.remarks);
        let mut refuse = |fate, detail: &str| self.remark(LegacyKind::Key, &name, fate, detail);
        let fresh = "make a new one: flm api-keys create --label LABEL";
        if off {
            return refuse(LegacyFate::NotMovable, "the old program had it switched off");
        }
        let ends = match expires.as_deref().map(time) {
            Some(None) => return refuse(LegacyFate::NotMovable, &format!("its end cannot be read; {fresh}")),
            ends => ends.flatten(),
        };
        if ends.is_some_and(|ends| ends <= now) {
            return refuse(LegacyFate::NotMovable, "it has ended");
        }
        let text = match text {
            Some(text) if !marked && !looks_sealed(text.expose()) => text,
            Some(_) => return refuse(LegacyFate::NotMovable, &format!("it is encrypted; {fresh}")),
            None if sealed => return refuse(LegacyFate::NotMovable, &format!("it is encrypted; {fresh}")),
            None if hashed => {
                return refuse(LegacyFate::NotMovable, &format!("only a hash of another kind was kept; {fresh}"));
            }
            None => return refuse(LegacyFate::NotMovable, &format!("it has no text; {fresh}")),
        };
        let id = match key_text::parse(text.expose()) {
            KeyText::Parsed(parsed) => Some(parsed.id),
            KeyText::Damaged | KeyText::Foreign => key_text::foreign_id(text.expose()),
        };
        let Some(id) = id else {
            let least = key_text::FOREIGN_SHORTEST;
            let detail =
                format!("it is too easily guessed (a key has at least {least} letters, digits and signs); {fresh}");
            return refuse(LegacyFate::NotMovable, &detail);
        };
        if let Some((first, _)) = keys.iter_mut().find(|(first, _)| first.id == id) {
            // What either could reach, the one key goes on reaching.
            if models.is_empty() || first.models.is_empty() {
                first.models.clear();
            } else {
                first.models.extend(models);
                first.models.sort();
                first.models.dedup();
            }
            let detail = format!("the same key as {:?}, which stands for both", first.label);
            return refuse(LegacyFate::Duplicate, &detail);
        }
        let characters: Vec<char> = text.expose().chars().collect();
        let last4 = characters[characters.len().saturating_sub(4)..].iter().collect();
        keys.push((
            MovedKey {
                id,
                label: name,
                last4,
                models,
                prompt,
                requests_per_minute: rate,
                created: made,
                expires: ends,
            },
            text,
        ));
    }

    fn user_setting(&mut self, mut fields: Fields) {
        fields.drop_all(&["id", "user_id", "created_at", "updated_at"]);
        let Some(key) = fields.text(&["key", "name", "setting"]) else {
            fields.note_rest("user_settings", &mut self.moved.remarks);
            return;
        };
        let value = fields.text(&["value", "setting_value"]).unwrap_or_default();
        fields.note_rest(&key, &mut self.moved.remarks);
        // Values were stored as JSON by some versions.
        let value = serde_json::from_str::<String>(&value).unwrap_or(value);
        self.setting(&key, &value);
    }

    /// `config.json`, its objects flattened: `server.port`.
    fn config(&mut self, fields: &serde_json::Map<String, Value>) {
        let mut waiting: Vec<(String, &Value)> = fields.iter().map(|(key, value)| (key.clone(), value)).collect();
        waiting.reverse();
        while let Some((key, value)) = waiting.pop() {
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    waiting.extend(inner.iter().rev().map(|(name, value)| (format!("{key}.{name}"), value)));
                }
                Value::Array(engines) if key == "engines" => {
                    for engine in engines {
                        self.listed_engine(engine);
                    }
                }
                Value::Null => {}
                _ if DATABASE_NAMES.contains(&key.as_str()) => {}
                Value::String(text) => self.setting(&key, text),
                other => self.setting(&key, &other.to_string()),
            }
        }
    }

    fn listed_engine(&mut self, engine: &Value) {
        let text = |names: &[&str]| names.iter().find_map(|name| engine.get(*name)?.as_str());
        let kind = text(&["type", "kind", "engine_type", "provider"]);
        let name = text(&["name", "id"]).or(kind).unwrap_or("engine of config.json");
        // The remark, if any, is made there.
        let _engine = self.engine(name, kind.or(Some(name)), text(&["url", "base_url", "endpoint"]));
    }

    fn setting(&mut self, key: &str, value: &str) {
        let last = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
        let known = match last.as_str() {
            "language" | "locale" | "lang" | "preferred_language" => {
                Some(("preferred_language", value.to_ascii_lowercase().chars().take(2).collect()))
            }
            "theme" => Some(("console.theme", value.to_ascii_lowercase())),
            "log_level" | "loglevel" => {
                let level = value.to_ascii_lowercase();
                Some(("log.level", if level == "warning" { "warn".to_owned() } else { level }))
            }
            "proxy_port" | "server_port" => Some(("proxy.port", value.to_owned())),
            "port" if key.contains("server") || key.contains("proxy") => Some(("proxy.port", value.to_owned())),
            _ => None,
        };
        match known {
            Some((name, value)) if crate::config::settings::Settings::check(name, &value).is_ok() => {
                self.moved.settings.insert(name.to_owned(), value);
            }
            Some((name, value)) => {
                let detail = format!("{} is no value for {name}", note_value(key, &value));
                self.remark(LegacyKind::Setting, key, LegacyFate::NotMovable, detail);
            }
            None if matches!(last.as_str(), "host" | "bind" | "listen")
                && !matches!(value, "127.0.0.1" | "localhost") =>
            {
                let detail = format!(
                    "it listened on {}: FLM is reached from this machine until you start it with TLS (flm proxy start --mode packaged-ca --bind 0.0.0.0)",
                    note_value(key, value)
                );
                self.remark(LegacyKind::Setting, key, LegacyFate::NotMovable, detail);
            }
            None => self.remark(LegacyKind::Note, key, LegacyFate::Noted, note_value(key, value)),
        }
    }
}

/// `ollama`, then `ollama-2`.
pub(super) fn numbered(name: &str, number: u32) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}-{number}") }
}

/// Whether two base URLs mean the same place; this machine has two names.
pub(super) fn same_place(one: &str, other: &str) -> bool {
    let place = |url: &str| {
        Upstream::parse(url).ok().map(|upstream| {
            let host = if upstream.host == "localhost" { "127.0.0.1".to_owned() } else { upstream.host };
            (upstream.scheme, host, upstream.port)
        })
    };
    place(one).is_some() && place(one) == place(other)
}

fn engine_kind(told: &str) -> Option<EngineKind> {
    let plain: String = told.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = match plain.as_str() {
        "llamaserver" | "llamacppserver" | "ggml" => "llamacpp",
        "openaicompatible" | "custom" | "other" => "openai",
        plain => plain,
    };
    ADAPTERS.iter().map(|adapter| &adapter.info().kind).find(|kind| kind.as_str() == plain).cloned()
}

fn parameter_name(old: &str) -> &str {
    match old {
        "num_ctx" | "n_ctx" | "context_size" | "max_context" => "context_length",
        "num_predict" | "n_predict" | "max_new_tokens" => "max_tokens",
        "repetition_penalty" => "repeat_penalty",
        same => same,
    }
}

/// A name that a request can carry, and that means only itself among a key's globs.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LENGTH
        && !name.chars().any(|c| c.is_whitespace() || c == '*' || is_hostile(c))
}

/// A label as keys and profiles take it.
fn label(text: &str) -> String {
    let plain: String = escape(text.trim()).chars().take(LABEL_LENGTH).collect();
    if plain.is_empty() { "moved".to_owned() } else { plain }
}

/// What encryption libraries put in front of what they encrypted.
fn looks_sealed(text: &str) -> bool {
    ["gAAAAA", "enc:", "ENC(", "$argon2", "$2a$", "$2b$", "vault:"].iter().any(|start| text.starts_with(start))
}
