//! Model profiles: defaults for one model on one engine, and values that the client cannot change (SPEC §8.2).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clock::UnixMillis;
use super::ids::EngineId;

/// The name under which a file of parameters lists the pinned ones.
pub const PINNED: &str = "pinned";

/// Fields of a request that a profile never sets: they are what the request is about, or decide how it is answered.
const RESERVED: &[&str] = &[
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "functions",
    "n",
    "user",
    "options",
    "max_completion_tokens",
    PINNED,
];

/// Parameters that FLM knows, with what they must be; everything else is the engine's own and passed on as it is.
pub const PARAMETERS: &[Known] = &[
    Known { name: "temperature", rule: Rule::Number { least: 0.0, most: 2.0 } },
    Known { name: "top_p", rule: Rule::Number { least: 0.0, most: 1.0 } },
    Known { name: "max_tokens", rule: Rule::Whole { least: 1, most: 10_000_000 } },
    Known { name: "stop", rule: Rule::Texts },
    Known { name: "repeat_penalty", rule: Rule::Number { least: 0.0, most: 10.0 } },
    Known { name: "context_length", rule: Rule::Whole { least: 1, most: 100_000_000 } },
    Known { name: "presence_penalty", rule: Rule::Number { least: -2.0, most: 2.0 } },
    Known { name: "frequency_penalty", rule: Rule::Number { least: -2.0, most: 2.0 } },
    Known { name: "min_p", rule: Rule::Number { least: 0.0, most: 1.0 } },
    Known { name: "top_k", rule: Rule::Whole { least: 0, most: 1_000_000 } },
];

/// A parameter that FLM knows.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name in profiles; engines may call it otherwise.
    pub name: &'static str,
    /// What it must be.
    pub rule: Rule,
}

/// What a parameter must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// A number.
    Number {
        /// Smallest.
        least: f64,
        /// Largest.
        most: f64,
    },
    /// A whole number.
    Whole {
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
    },
    /// A text, or up to 16 of them.
    Texts,
}

impl Rule {
    /// Whether a value fits.
    #[must_use]
    pub fn holds(self, value: &Value) -> bool {
        const MOST_TEXTS: usize = 16;
        let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty() && text.len() <= 256);
        match self {
            Self::Number { least, most } => value.as_f64().is_some_and(|number| (least..=most).contains(&number)),
            Self::Whole { least, most } => value.as_u64().is_some_and(|number| (least..=most).contains(&number)),
            Self::Texts => match value {
                Value::Array(texts) => (1..=MOST_TEXTS).contains(&texts.len()) && texts.iter().all(is_text),
                text => is_text(text),
            },
        }
    }

    /// What a value must be, to end the sentence "it must be …".
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Number { least, most } => format!("a number from {least} to {most}"),
            Self::Whole { least, most } => format!("a whole number from {least} to {most}"),
            Self::Texts => "a text, or a list of 1 to 16 texts".to_owned(),
        }
    }
}

/// One value of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Parameter {
    /// One of [`PARAMETERS`], or the engine's own name.
    pub name: String,
    /// What is sent.
    pub value: Value,
    /// Whether the client's own value is replaced.
    pub pinned: bool,
}

/// Checks the parameters of a profile; says what is wrong with the first that is.
///
/// # Errors
/// A sentence for people that names the parameter and its rule.
pub fn check(parameters: &[Parameter]) -> Result<(), String> {
    const MOST: usize = 64;
    const LONGEST: usize = 16 << 10;
    if parameters.is_empty() {
        return Err("a profile without any parameter does nothing".to_owned());
    }
    if parameters.len() > MOST {
        return Err(format!("a profile has at most {MOST} parameters, not {}", parameters.len()));
    }
    for (index, Parameter { name, value, .. }) in parameters.iter().enumerate() {
        let is_name = !name.is_empty()
            && name.len() <= 64
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !is_name {
            return Err("a parameter's name has 1 to 64 letters, digits, '_', '-' or '.'".to_owned());
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("a profile cannot set {name:?}: it belongs to the request"));
        }
        if parameters[..index].iter().any(|other| other.name == *name) {
            return Err(format!("the parameter {name:?} stands there twice"));
        }
        if let Some(known) = PARAMETERS.iter().find(|known| known.name == name)
            && !known.rule.holds(value)
        {
            return Err(format!("{name} must be {}", known.rule.describe()));
        }
        if value.is_null() || value.to_string().len() > LONGEST {
            return Err(format!("the value of {name:?} is null or longer than {LONGEST} bytes"));
        }
    }
    Ok(())
}

/// Reads a file of parameters: an object of names and values, with the list `pinned` of the names that the client
/// cannot change.
///
/// # Errors
/// A sentence for people.
pub fn parse(text: &str) -> Result<Vec<Parameter>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("the parameters are not JSON: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("the parameters must be a JSON object such as {\"temperature\": 0.2}".to_owned());
    };
    let pinned: Vec<String> = match fields.get(PINNED) {
        None => Vec::new(),
        Some(list) => serde_json::from_value(list.clone())
            .map_err(|_| "\"pinned\" must be a list of names such as [\"temperature\"]".to_owned())?,
    };
    if let Some(unset) = pinned.iter().find(|name| !fields.contains_key(name.as_str())) {
        return Err(format!("{unset:?} is pinned but has no value"));
    }
    let parameters: Vec<_> = fields
        .into_iter()
        .filter(|(name, _)| name != PINNED)
        .map(|(name, value)| Parameter { pinned: pinned.contains(&name), name, value })
        .collect();
    check(&parameters)?;
    Ok(parameters)
}

/// A profile as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ProfileView {
    /// Its number.
    pub id: i64,
    /// The engine.
    pub engine: EngineId,
    /// The engine's own name for the model; outside text.
    pub model: String,
    /// The operator's name for it.
    pub label: String,
    /// Its values.
    pub parameters: Vec<Parameter>,
    /// When it was saved.
    pub updated: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_values_and_the_pinned_ones() {
        let parameters =
            parse(r#"{"temperature": 0.2, "stop": ["a"], "mirostat": 2, "pinned": ["temperature"]}"#).expect("fits");
        let told: Vec<_> = parameters.iter().map(|p| (p.name.as_str(), p.pinned)).collect();
        assert_eq!(told, [("temperature", true), ("stop", false), ("mirostat", false)]);
    }

    #[test]
    fn wrong_files_are_refused_with_the_rule() {
        for (text, part) in [
            ("[]", "a JSON object"),
            ("{", "not JSON"),
            ("{}", "does nothing"),
            (r#"{"temperature": 3}"#, "from 0 to 2"),
            (r#"{"temperature": "warm"}"#, "a number"),
            (r#"{"max_tokens": 1.5}"#, "a whole number"),
            (r#"{"stop": [""]}"#, "1 to 16 texts"),
            (r#"{"model": "x"}"#, "belongs to the request"),
            (r#"{"max_completion_tokens": 1}"#, "belongs to the request"),
            (r#"{"top_p": 1, "pinned": ["top_k"]}"#, "has no value"),
            (r#"{"top_p": 1, "pinned": true}"#, "a list of names"),
            (r#"{"own": null}"#, "null"),
            (r#"{"a b": 1}"#, "letters, digits"),
        ] {
            let fault = parse(text).expect_err(text);
            assert!(fault.contains(part), "{part} in {fault}");
        }
    }
}
