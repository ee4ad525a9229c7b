//! Model profiles in force, and how one is put into a request for one engine (SPEC §8.2): the client's own values win
//! unless the profile pins them.
//!
//! Called by `relay` for each candidate, since engines have different words for the same thing. A model without a
//! profile costs a look into an empty table.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::engines::adapter::{OwnParameters, ParameterWords};
use crate::engines::inference_route::InferenceRoute;
use crate::types::ids::EngineId;
use crate::types::profile::ProfileView;
use crate::wire::json_body::{BodyFault, Edit, JsonBody};

/// Profiles by engine and model.
#[derive(Debug, Default)]
pub struct ProfileTable {
    engines: HashMap<EngineId, HashMap<String, Profile>>,
}

/// A profile, ready to be put into requests.
#[derive(Debug)]
pub(super) struct Profile {
    values: Vec<ProfileValue>,
}

#[derive(Debug)]
struct ProfileValue {
    name: String,
    value: Value,
    /// The value as it is written.
    json: String,
    pinned: bool,
}

/// The two names of one thing: a client that gives either has given its own value.
const ANSWER_LENGTH: [&str; 2] = ["max_tokens", "max_completion_tokens"];

/// Ollama's own parameters stand in this object.
const OPTIONS: &str = "options";

impl ProfileTable {
    /// A table of the given profiles.
    #[must_use]
    pub fn new(profiles: Vec<ProfileView>) -> Self {
        let mut engines: HashMap<EngineId, HashMap<String, Profile>> = HashMap::new();
        for ProfileView { engine, model, parameters, .. } in profiles {
            let values = parameters
                .into_iter()
                .map(|parameter| ProfileValue {
                    name: parameter.name,
                    json: parameter.value.to_string(),
                    value: parameter.value,
                    pinned: parameter.pinned,
                })
                .collect();
            engines.entry(engine).or_default().insert(model, Profile { values });
        }
        Self { engines }
    }

    /// The profile of a model on an engine.
    pub(super) fn find(&self, engine: &EngineId, model: &str) -> Option<&Profile> {
        if self.engines.is_empty() {
            return None;
        }
        self.engines.get(engine)?.get(model)
    }
}

impl Profile {
    /// The body with the profile's values in it, in OpenAI's words and the engine's own.
    pub(super) fn apply(
        &self,
        body: &JsonBody,
        route: InferenceRoute,
        words: &ParameterWords,
    ) -> Result<JsonBody, BodyFault> {
        if !route.writes_text() {
            return Ok(body.clone());
        }
        let given = |field: &str| body.raw(field).is_some_and(|raw| raw != "null");
        let in_options = words.own == OwnParameters::Options;
        let mut options: Map<String, Value> =
            if in_options { body.value(OPTIONS, "an object")?.unwrap_or_default() } else { Map::new() };
        let mut options_changed = false;
        let mut edits: Vec<Edit<'_>> = Vec::with_capacity(self.values.len() + 1);
        for ProfileValue { name, value, json, pinned } in &self.values {
            let field = match name.as_str() {
                "repeat_penalty" => words.repeat_penalty,
                "context_length" => words.context_length,
                own if in_options && !is_openai(own) => {
                    // Ollama's clients write them at either place, and the one beside OpenAI's wins.
                    let beside = given(own);
                    if *pinned || !(beside || options.contains_key(own)) {
                        options.insert(own.to_owned(), value.clone());
                        options_changed = true;
                        edits.extend(beside.then_some(Edit::Remove(own)));
                    }
                    continue;
                }
                same => Some(same),
            };
            // What an engine has no word for was refused when the profile was saved for it.
            let Some(field) = field else { continue };
            let synonyms: &[&str] = if field == ANSWER_LENGTH[0] { &ANSWER_LENGTH } else { &[] };
            let own = given(field) || options.contains_key(field) || synonyms.iter().any(|synonym| given(synonym));
            if own && !pinned {
                continue;
            }
            edits.push(Edit::Set(field, Cow::Borrowed(json)));
            edits.extend(synonyms.iter().filter(|synonym| **synonym != field).map(|synonym| Edit::Remove(synonym)));
        }
        if options_changed {
            edits.push(Edit::Set(OPTIONS, Cow::Owned(Value::from(options).to_string())));
        }
        Ok(body.with(&edits))
    }
}

/// Fields that every engine takes at the top of a request.
fn is_openai(name: &str) -> bool {
    const FIELDS: [&str; 9] = [
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "reasoning_effort",
        "response_format",
    ];
    FIELDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::clock::UnixMillis;
    use crate::types::profile::Parameter;

    const OLLAMA: ParameterWords = ParameterWords {
        repeat_penalty: Some("repeat_penalty"),
        context_length: Some("num_ctx"),
        own: OwnParameters::Options,
    };
    const VLLM: ParameterWords = ParameterWords {
        repeat_penalty: Some("repetition_penalty"),
        context_length: None,
        own: OwnParameters::TopLevel,
    };

    fn applied(parameters: &[(&str, Value, bool)], words: &ParameterWords, body: &Value) -> Value {
        let parameters = parameters
            .iter()
            .map(|(name, value, pinned)| Parameter { name: (*name).into(), value: value.clone(), pinned: *pinned })
            .collect();
        let engine = EngineId::parse("e").expect("id");
        let view = ProfileView {
            id: 1,
            engine: engine.clone(),
            model: "m".into(),
            label: "l".into(),
            parameters,
            updated: UnixMillis(0),
        };
        let table = ProfileTable::new(vec![view]);
        assert!(table.find(&engine, "other").is_none());
        let body = JsonBody::parse(body.to_string().into()).expect("parses");
        let profile = table.find(&engine, "m").expect("a profile");
        let body = profile.apply(&body, InferenceRoute::Chat, words).expect("applies");
        serde_json::from_slice(body.bytes()).expect("JSON")
    }

    #[test]
    fn the_clients_own_values_win_unless_they_are_pinned() {
        let profile = [("temperature", json!(0.2), false), ("top_p", json!(0.5), true), ("stop", json!("x"), false)];
        assert_eq!(
            applied(&profile, &VLLM, &json!({"temperature": 1, "top_p": 1, "stop": null})),
            json!({"temperature": 1, "top_p": 0.5, "stop": "x"})
        );
        assert_eq!(applied(&profile, &VLLM, &json!({})), json!({"temperature": 0.2, "top_p": 0.5, "stop": "x"}));
    }

    #[test]
    fn both_names_of_the_answers_length_are_the_clients_own() {
        let newer = json!({"max_completion_tokens": 5});
        assert_eq!(applied(&[("max_tokens", json!(9), false)], &VLLM, &newer), newer);
        assert_eq!(applied(&[("max_tokens", json!(9), true)], &VLLM, &newer), json!({"max_tokens": 9}));
    }

    #[test]
    fn each_engine_gets_its_own_words_and_none_that_it_lacks() {
        let profile = [
            ("repeat_penalty", json!(1.1), false),
            ("context_length", json!(8192), false),
            ("mirostat", json!(2), false),
            ("num_gpu", json!(1), true),
        ];
        assert_eq!(
            applied(&profile, &VLLM, &json!({})),
            json!({"repetition_penalty": 1.1, "mirostat": 2, "num_gpu": 1})
        );
        assert_eq!(
            applied(&profile, &OLLAMA, &json!({"options": {"mirostat": 1, "num_gpu": 9, "num_ctx": 4096}})),
            json!({"options": {"mirostat": 1, "num_gpu": 1, "num_ctx": 4096}, "repeat_penalty": 1.1}),
            "what the client says in options is its own too"
        );
        let profile = [("top_k", json!(40), false), ("min_p", json!(0.1), true)];
        assert_eq!(
            applied(&profile, &OLLAMA, &json!({"top_k": 5, "min_p": 0.9})),
            json!({"top_k": 5, "options": {"min_p": 0.1}}),
            "and so is what stands beside OpenAI's fields"
        );
    }
}
