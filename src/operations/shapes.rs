//! The published shape of what operations answer, and so commands and the admin API (SPEC §2): docs/schemas/commands.json.
//!
//! Compiled for tests only: they write that file or compare it, and check answers of the real programs against it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::catalogue;
use crate::types::address::BlockEntry;
use crate::types::calls::backup::{Rekeyed, RestoredBackup};
use crate::types::calls::keys::LeakOutcome;
use crate::types::doctor::DoctorReport;

/// Version of the shapes, as `control::protocol` has it; scripts/check-versions.sh compares them.
const SHAPE: &str = "1.0";

/// Commands that answer what an operation answers.
const COMMANDS: &[(&str, &str)] = &[
    ("alerts add command", "alerts/add"),
    ("alerts add ntfy", "alerts/add"),
    ("alerts add terminal", "alerts/add"),
    ("alerts add webhook", "alerts/add"),
    ("alerts deliveries", "alerts/deliveries"),
    ("alerts edit", "alerts/edit"),
    ("alerts inbox", "alerts/inbox"),
    ("alerts list", "alerts/list"),
    ("alerts remove", "alerts/remove"),
    ("alerts test", "alerts/test"),
    ("aliases list", "aliases/list"),
    ("aliases remove", "aliases/remove"),
    ("aliases set", "aliases/set"),
    ("api prompts history", "prompts/history"),
    ("api prompts list", "prompts/list"),
    ("api prompts restore", "prompts/set"),
    ("api prompts set", "prompts/set"),
    ("api prompts show", "prompts/show"),
    ("api-keys create", "keys/create"),
    ("api-keys edit", "keys/edit"),
    ("api-keys list", "keys/list"),
    ("api-keys rotate", "keys/rotate"),
    ("api-keys show", "keys/show"),
    ("bench", "bench/run"),
    ("chat", "chat/send"),
    ("check", "check/run"),
    ("config get", "settings/show"),
    ("config list", "settings/list"),
    ("config path", "settings/paths"),
    ("config set", "settings/set"),
    ("config unset", "settings/unset"),
    ("connect", "connect/show"),
    ("doctor", "doctor/report"),
    ("engines add", "engines/add"),
    ("engines detect", "engines/detect"),
    ("engines health", "engines/health"),
    ("engines list", "engines/list"),
    ("expose-check", "expose/check"),
    ("firewall apply", "firewall/status"),
    ("firewall confirm", "firewall/status"),
    ("firewall preview", "firewall/preview"),
    ("firewall rollback", "firewall/status"),
    ("firewall status", "firewall/status"),
    ("logs capture", "captures/show"),
    ("logs captures", "captures/list"),
    ("logs captures clear", "captures/clear"),
    ("logs requests", "requests/list"),
    ("migrate legacy apply", "legacy/apply"),
    ("migrate legacy convert", "legacy/convert"),
    ("migrate legacy plan", "legacy/plan"),
    ("model-profiles delete", "profiles/delete"),
    ("model-profiles list", "profiles/list"),
    ("model-profiles save", "profiles/save"),
    ("models compare", "comparisons/run"),
    ("models comparisons list", "comparisons/list"),
    ("models comparisons show", "comparisons/show"),
    ("models list", "models/list"),
    ("models load", "models/load"),
    ("models pull", "models/pull"),
    ("models refresh", "models/refresh"),
    ("models show", "models/show"),
    ("models unload", "models/unload"),
    ("proxy check", "proxy/check"),
    ("proxy reload", "proxy/reload"),
    ("proxy start", "proxy/start"),
    ("proxy status", "proxy/status"),
    ("security audit-logs archive", "audit/archive"),
    ("security audit-logs list", "audit/list"),
    ("security audit-logs verify", "audit/verify"),
    ("security backup create", "backup/create"),
    ("security backup list", "backup/list"),
    ("security backup restore", "backup/restore"),
    ("security ca init", "authority/init"),
    ("security ca install", "authority/install"),
    ("security ca show", "authority/show"),
    ("security ca uninstall", "authority/install"),
    ("security certificate renew", "certificates/renew"),
    ("security events", "audit/list"),
    ("security ip-allowlist add", "networks/add"),
    ("security ip-allowlist list", "networks/list"),
    ("security ip-blocklist add", "blocklist/add"),
    ("security ip-blocklist unblock", "blocklist/remove"),
    ("security ip-trusted add", "networks/add"),
    ("security ip-trusted list", "networks/list"),
    ("security lock-status", "lock/show"),
    ("security policy set", "policy/set"),
    ("security policy show", "policy/show"),
    ("security policy validate", "policy/validate"),
    ("security rekey", "security/rekey"),
    ("security replay", "security/replay"),
    ("security stats", "security/stats"),
    ("usage", "usage/show"),
];

/// Commands that print a document of their own in every format, or nothing.
const DOCUMENTS: [&str; 4] = ["completions", "security ip-blocklist export", "security policy schema", "tui"];

/// What each command answers as `data`; `false` where it answers none.
fn commands() -> Map<String, Value> {
    let of = |operation: &str| json!({ "$ref": format!("#/answers/{}", operation.replace('/', "~1")) });
    let object = |fields: &[(&str, Value)]| {
        let properties: Map<String, Value> =
            fields.iter().map(|(name, shape)| ((*name).to_owned(), shape.clone())).collect();
        let required: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    };
    let (text, count) = (json!({ "type": "string" }), json!({ "type": "integer", "minimum": 0 }));
    let yes = json!({ "const": true });
    let list = |item: Value| json!({ "type": "array", "items": item });
    let removed = object(&[("removed", text.clone())]);
    let deleted = object(&[("deleted", text.clone())]);
    let line = object(&[("change", json!({ "enum": ["same", "removed", "added"] })), ("text", text.clone())]);
    let own = [
        ("alerts read", object(&[("marked", count.clone())])),
        ("api prompts delete", deleted.clone()),
        (
            "api prompts diff",
            object(&[("api_id", text.clone()), ("from", count.clone()), ("to", count.clone()), ("lines", list(line))]),
        ),
        ("api-keys revoke", json!({ "anyOf": [of("keys/revoke"), of("keys/leak")] })),
        ("engines remove", removed.clone()),
        // A line of the log has the fields that its writer gave it; with --level the settings that were changed.
        ("logs", list(json!({ "type": "object" }))),
        ("man", object(&[("folder", text.clone())])),
        ("models comparisons delete", object(&[("deleted", count.clone())])),
        ("models comparisons export", object(&[("file", text.clone())])),
        ("models delete", deleted),
        ("proxy stop", json!({ "anyOf": [object(&[("stopped", yes.clone())]), object(&[("ended", yes)])] })),
        ("security audit-logs export", object(&[("rows", count.clone()), ("file", text.clone())])),
        (
            "security ca export",
            json!({ "anyOf": [of("authority/show"), object(&[("file", text.clone()), ("fingerprint", text.clone())])] }),
        ),
        (
            "security ca issue",
            object(&[
                ("certificate", json!({ "$ref": "#/$defs/CertificateView" })),
                ("chain", text.clone()),
                ("key", text.clone()),
            ]),
        ),
        (
            "security certificate status",
            list(object(&[
                ("port", count.clone()),
                ("mode", json!({ "$ref": "#/$defs/TlsMode" })),
                ("tls", json!({ "$ref": "#/$defs/TlsStatus" })),
            ])),
        ),
        ("security ip-allowlist remove", removed.clone()),
        ("security ip-blocklist clear", object(&[("lifted", count.clone())])),
        ("security ip-blocklist import", object(&[("read", count.clone()), ("blocked", count)])),
        ("security ip-blocklist list", list(json!({ "$ref": "#/$defs/BlockEntry" }))),
        ("security ip-trusted remove", removed),
        ("version", object(&[("version", text)])),
    ];
    let plain = COMMANDS.iter().map(|(command, operation)| (*command, of(operation)));
    let none = DOCUMENTS.into_iter().map(|command| (command, Value::Bool(false)));
    plain.chain(own).chain(none).map(|(command, shape)| (command.to_owned(), shape)).collect()
}

/// Everything, as it is published.
fn published() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut named: Vec<(&str, _)> =
        catalogue::ANSWERS.iter().map(|(name, shape)| (*name, shape(&mut generator))).collect();
    // What a command makes of an answer, what it sees itself, and what needs a home without an owner.
    named.push(("doctor/report", generator.subschema_for::<DoctorReport>()));
    named.push(("keys/leak", generator.subschema_for::<LeakOutcome>()));
    named.push(("backup/restore", generator.subschema_for::<RestoredBackup>()));
    named.push(("security/rekey", generator.subschema_for::<Rekeyed>()));
    generator.subschema_for::<BlockEntry>();
    named.sort_by_key(|(name, _)| *name);
    let answers: Map<String, Value> =
        named.into_iter().map(|(name, schema)| (name.to_owned(), schema.to_value())).collect();
    let failure = generator.subschema_for::<crate::types::failure::Failure>();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What flm answers: a command with --format json, and the admin API on the control socket",
        "oneOf": [
            {
                "type": "object",
                "properties": { "version": { "const": SHAPE }, "data": true },
                "required": ["version", "data"],
                "additionalProperties": false,
            },
            {
                "type": "object",
                "properties": { "error": failure },
                "required": ["error"],
                "additionalProperties": false,
            },
            {
                "description": "A line on the way of what takes long; the last line is the result.",
                "type": "object",
                "properties": { "progress": true },
                "required": ["progress"],
                "additionalProperties": false,
            },
        ],
        "commands": commands(),
        "answers": answers,
        "$defs": generator.take_definitions(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_shapes_are_those_of_the_types() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/commands.json");
        let wanted = format!("{:#}\n", published());
        if std::env::var_os("FLM_UPDATE_SCHEMAS").is_some() {
            crate::config::files::replace(&path, wanted.as_bytes(), crate::config::files::Audience::Everyone)
                .expect("writes");
        }
        let told = std::fs::read_to_string(&path).expect("reads");
        assert!(told == wanted, "docs/schemas/commands.json is not what the types say: run scripts/update-schemas.sh");
        assert!(!wanted.contains("Zeroizing"), "names of the program's insides are none of a reader's business");
    }
}
