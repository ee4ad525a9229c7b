//! Checks what `flm` answers against the published schema, docs/schemas/commands.json: the part of JSON Schema (draft
//! 2020-12) that it uses. A keyword that is not known here fails, so that nothing is passed over.

use std::sync::OnceLock;

use serde_json::{Map, Value};

fn published() -> &'static Value {
    static PUBLISHED: OnceLock<Value> = OnceLock::new();
    PUBLISHED.get_or_init(|| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas/commands.json");
        serde_json::from_slice(&std::fs::read(path).expect("the published schema")).expect("JSON")
    })
}

/// Checks one whole answer of a command.
#[track_caller]
pub(crate) fn check(arguments: &[&str], answer: &Value) {
    let published = published();
    let whole = Value::Object(published.as_object().expect("a schema").clone());
    if let Err(fault) = fits(&whole, answer, "the answer") {
        panic!("flm {arguments:?}: {fault}");
    }
    let Some(data) = answer.get("data") else { return };
    let words = arguments.join(" ");
    // The longest name that the command line begins with.
    let named = published["commands"].as_object().into_iter().flatten().filter(|(command, _)| {
        words.strip_prefix(command.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    });
    let (command, schema) = named
        .max_by_key(|(command, _)| command.len())
        .unwrap_or_else(|| panic!("what flm {words} answers is not published"));
    if let Err(fault) = fits(schema, data, "data") {
        panic!("flm {words} answers another shape than is published for {command}: {fault}");
    }
}

/// Whether a value fits a schema; where and why not.
fn fits(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let Value::Object(schema) = schema else {
        return if *schema == Value::Bool(true) { Ok(()) } else { Err(format!("{place}: nothing may stand here")) };
    };
    for (keyword, rule) in schema {
        keyword_fits(schema, keyword, rule, value, place)?;
    }
    Ok(())
}

fn keyword_fits(
    schema: &Map<String, Value>,
    keyword: &str,
    rule: &Value,
    value: &Value,
    place: &str,
) -> Result<(), String> {
    let wrong = |why: String| Err(format!("{place}: {why} ({value})"));
    let rules = || rule.as_array().map(Vec::as_slice).unwrap_or_default();
    match keyword {
        "$schema"
        | "title"
        | "description"
        | "default"
        | "format"
        | "answers"
        | "commands"
        | "$defs"
        | "examples"
        | "unevaluatedProperties" => Ok(()),
        "$ref" => {
            let target = rule.as_str().and_then(|path| published().pointer(path.strip_prefix('#')?));
            fits(target.ok_or_else(|| format!("{place}: {rule} leads nowhere"))?, value, place)
        }
        "type" => {
            let names: Vec<&str> = match rule {
                Value::String(name) => vec![name],
                names => names.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
            };
            if names.iter().any(|name| is_a(name, value)) { Ok(()) } else { wrong(format!("it is no {names:?}")) }
        }
        "properties" => {
            let Some(fields) = value.as_object() else { return Ok(()) };
            for (name, rule) in rule.as_object().into_iter().flatten() {
                if let Some(field) = fields.get(name) {
                    fits(rule, field, &format!("{place}.{name}"))?;
                }
            }
            Ok(())
        }
        "required" => {
            let Some(fields) = value.as_object() else { return Ok(()) };
            match rules().iter().filter_map(Value::as_str).find(|name| !fields.contains_key(*name)) {
                Some(name) => wrong(format!("{name} is missing")),
                None => Ok(()),
            }
        }
        "additionalProperties" => {
            let known = schema.get("properties").and_then(Value::as_object);
            for (name, field) in value.as_object().into_iter().flatten() {
                if known.is_none_or(|known| !known.contains_key(name)) {
                    fits(rule, field, &format!("{place}.{name}"))?;
                }
            }
            Ok(())
        }
        "items" => {
            let skipped = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
            let mut items = value.as_array().into_iter().flatten().enumerate().skip(skipped);
            items.try_for_each(|(at, item)| fits(rule, item, &format!("{place}[{at}]")))
        }
        "prefixItems" => {
            let mut items = value.as_array().into_iter().flatten().zip(rules()).enumerate();
            items.try_for_each(|(at, (item, rule))| fits(rule, item, &format!("{place}[{at}]")))
        }
        "enum" if rules().contains(value) => Ok(()),
        "enum" => wrong(format!("it is none of {rule}")),
        "const" if rule == value => Ok(()),
        "const" => wrong(format!("it is not {rule}")),
        "allOf" => rules().iter().try_for_each(|rule| fits(rule, value, place)),
        "anyOf" | "oneOf" => {
            let outcomes: Vec<_> = rules().iter().map(|rule| fits(rule, value, place)).collect();
            let fitting = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
            let enough = if keyword == "oneOf" { fitting == 1 } else { fitting > 0 };
            if enough {
                return Ok(());
            }
            let why: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            wrong(format!("it fits {fitting} of {}: {}", rules().len(), why.join("; ")))
        }
        "minimum" if value.as_f64() >= rule.as_f64() || !value.is_number() => Ok(()),
        "maximum" if value.as_f64() <= rule.as_f64() || !value.is_number() => Ok(()),
        "minimum" | "maximum" => wrong(format!("{keyword} is {rule}")),
        "minLength" | "maxLength" | "minItems" | "maxItems" => {
            let (Some(limit), Some(length)) = (
                rule.as_u64(),
                value.as_str().map(|text| text.chars().count()).or_else(|| value.as_array().map(Vec::len)),
            ) else {
                return Ok(());
            };
            let length = length as u64;
            let holds = if keyword.starts_with("min") { length >= limit } else { length <= limit };
            if holds { Ok(()) } else { wrong(format!("{keyword} is {limit}")) }
        }
        "uniqueItems" => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let twice = items.iter().enumerate().any(|(at, item)| items[..at].contains(item));
            if twice { wrong("something stands there twice".to_owned()) } else { Ok(()) }
        }
        unknown => Err(format!("{place}: this checker does not know the keyword {unknown}")),
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[test]
fn the_checker_finds_what_does_not_fit() {
    use serde_json::json;
    let schema = json!({
        "type": "object",
        "properties": {"a": {"type": ["integer", "null"], "minimum": 2}, "b": {"oneOf": [{"const": "x"}, {"type": "array"}]}},
        "required": ["a"],
        "additionalProperties": false,
    });
    for good in [json!({"a": 2}), json!({"a": null, "b": "x"}), json!({"a": 9, "b": [1]})] {
        assert_eq!(fits(&schema, &good, "v"), Ok(()));
    }
    for (bad, part) in [
        (json!([]), "no [\"object\"]"),
        (json!({}), "a is missing"),
        (json!({"a": 1}), "minimum"),
        (json!({"a": "2"}), "v.a"),
        (json!({"a": 2, "b": "y"}), "fits 0 of 2"),
        (json!({"a": 2, "c": 1}), "v.c: nothing may stand here"),
    ] {
        let fault = fits(&schema, &bad, "v").expect_err("does not fit");
        assert!(fault.contains(part), "{part} in {fault}");
    }
    assert!(fits(&json!({"not": true}), &json!(1), "v").is_err(), "a keyword that nobody checks");
}
