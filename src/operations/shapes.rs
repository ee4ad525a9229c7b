//! The published shape of what operations answer, and so commands and the admin API (SPEC §2): docs/schemas/commands.json.
//!
//! Compiled for tests only: they write that file or compare it, and check answers of the real programs against it.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::types::calls::Call;
use crate::types::calls::{
    addresses, aliases, audit, authority, chat, comparisons, connect, doctor, engines, firewall, keys, legacy, models,
    policy, profiles, prompts, proxy, replay, requests, settings, usage,
};
use crate::types::doctor::DoctorReport;

/// Version of the shapes, as `control::protocol` has it; scripts/check-versions.sh compares them.
const SHAPE: &str = "1.0";

/// Name and shape of what one operation answers.
type Answer = fn(&mut SchemaGenerator) -> (&'static str, Schema);

fn answer<C: Call>(generator: &mut SchemaGenerator) -> (&'static str, Schema)
where
    C::Output: JsonSchema,
{
    (C::NAME, generator.subschema_for::<C::Output>())
}

/// Everything, as it is published.
fn published() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let answers: &[Answer] = &[
        answer::<addresses::AddBlock>,
        answer::<addresses::AddNetwork>,
        answer::<addresses::ClearBlocks>,
        answer::<addresses::ListBlocks>,
        answer::<addresses::ListNetworks>,
        answer::<addresses::RemoveBlock>,
        answer::<addresses::RemoveNetwork>,
        answer::<aliases::ListAliases>,
        answer::<aliases::RemoveAlias>,
        answer::<aliases::SetAlias>,
        answer::<audit::ArchiveAudit>,
        answer::<audit::ListAudit>,
        answer::<audit::VerifyAudit>,
        answer::<authority::InitAuthority>,
        answer::<authority::InstallAuthority>,
        answer::<authority::ShowAuthority>,
        answer::<chat::Bench>,
        answer::<comparisons::ListComparisons>,
        answer::<comparisons::ShowComparison>,
        answer::<connect::Connect>,
        answer::<doctor::Diagnose>,
        answer::<engines::AddEngine>,
        answer::<engines::DetectEngines>,
        answer::<engines::EngineHealth>,
        answer::<engines::ListEngines>,
        answer::<engines::RemoveEngine>,
        answer::<firewall::PreviewFirewall>,
        answer::<keys::CreateKey>,
        answer::<keys::EditKey>,
        answer::<keys::ListKeys>,
        answer::<keys::RevokeKey>,
        answer::<keys::RotateKey>,
        answer::<keys::ShowKey>,
        answer::<legacy::ApplyLegacy>,
        answer::<legacy::ConvertLegacy>,
        answer::<legacy::PlanLegacy>,
        answer::<models::ListModels>,
        answer::<models::RefreshModels>,
        answer::<models::ShowModel>,
        answer::<policy::SetPolicy>,
        answer::<policy::ShowPolicy>,
        answer::<profiles::DeleteProfile>,
        answer::<profiles::ListProfiles>,
        answer::<profiles::SaveProfile>,
        answer::<prompts::DeletePrompt>,
        answer::<prompts::ListPrompts>,
        answer::<prompts::PromptHistory>,
        answer::<prompts::SetPrompt>,
        answer::<prompts::ShowPrompt>,
        answer::<proxy::EndOwner>,
        answer::<proxy::Reload>,
        answer::<proxy::StartListener>,
        answer::<proxy::Status>,
        answer::<proxy::StopListener>,
        answer::<replay::ReplayRequests>,
        answer::<replay::SecurityStats>,
        answer::<requests::ListRequests>,
        answer::<settings::ListSettings>,
        answer::<settings::SetSetting>,
        answer::<settings::ShowPaths>,
        answer::<settings::ShowSetting>,
        answer::<usage::ShowUsage>,
    ];
    let mut named: Vec<(&str, Schema)> = answers.iter().map(|answer| answer(&mut generator)).collect();
    // What a command makes of an answer and of what it sees itself.
    named.push(("doctor/report", generator.subschema_for::<DoctorReport>()));
    named.push(("keys/leak", generator.subschema_for::<keys::LeakOutcome>()));
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
        ],
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
