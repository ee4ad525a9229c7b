//! The form of a model profile: one field per value, each with a pin that keeps the client from changing it (SPEC §8.2).

use serde_json::Value;

use crate::tui::overlays::form::{Field, Form, Pin, Submit};
use crate::tui::overlays::forms::{Faults, FormKind};
use crate::tui::state::State;
use crate::types::calls::profiles::SaveProfile;
use crate::types::ids::CanonicalModel;
use crate::types::profile::{self, PARAMETERS, Parameter, ProfileView, Rule};

/// The parameters with a field of their own, in order, with the keys of label and hint.
const FIELDS: [(&str, &str, &str); 6] = [
    ("temperature", "form.profile.temperature", "form.profile.temperature_hint"),
    ("top_p", "form.profile.top_p", "form.profile.top_p_hint"),
    ("max_tokens", "form.profile.max_tokens", "form.profile.max_tokens_hint"),
    ("stop", "form.profile.stop", "form.profile.stop_hint"),
    ("repeat_penalty", "form.profile.repeat_penalty", "form.profile.repeat_penalty_hint"),
    ("context_length", "form.profile.context_length", "form.profile.context_length_hint"),
];

/// Field of the label.
const LABEL: usize = 0;
/// Field of everything without a field of its own.
const OWN: usize = FIELDS.len() + 1;

/// The profile of a model, as far as it is known.
#[must_use]
pub fn profile_of<'a>(state: &'a State, model: &CanonicalModel) -> Option<&'a ProfileView> {
    let profiles = state.world.profiles.value.iter().flatten();
    profiles.into_iter().find(|profile| profile.engine == model.engine && *profile.model == *model.model)
}

/// A form with what the model's profile holds now.
#[must_use]
pub fn edit(state: &State, model: CanonicalModel) -> Form {
    let known = profile_of(state, &model);
    let parameters = known.map(|profile| profile.parameters.as_slice()).unwrap_or_default();
    let label = known.map_or_else(|| model.model.to_string(), |profile| profile.label.clone());
    let mut fields = vec![Field::text("form.profile.label", "form.profile.label_hint", &label)];
    for (name, title, hint) in FIELDS {
        let value = parameters.iter().find(|parameter| parameter.name == name);
        let text = value.map(|parameter| written(&parameter.value)).unwrap_or_default();
        fields.push(Field::text(title, hint, &text).with_pin(pin(value.is_some_and(|value| value.pinned))));
    }
    let own: Vec<_> =
        parameters.iter().filter(|parameter| FIELDS.iter().all(|(name, ..)| *name != parameter.name)).collect();
    let pinned = own.iter().any(|parameter| parameter.pinned);
    let object: serde_json::Map<String, Value> =
        own.into_iter().map(|parameter| (parameter.name.clone(), parameter.value.clone())).collect();
    let text = if object.is_empty() { String::new() } else { Value::from(object).to_string() };
    fields.push(Field::text("form.profile.own", "form.profile.own_hint", &text).with_pin(pin(pinned)));
    Form::new(FormKind::Profile(model), fields)
}

fn pin(pinned: bool) -> Pin {
    if pinned { Pin::Set } else { Pin::Open }
}

/// A value as it is typed: texts without quotes where that is clear.
fn written(value: &Value) -> String {
    match value {
        Value::String(text)
            if !text.starts_with(['"', '[']) && !text.contains(|c: char| c == ',' || c.is_control()) =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

/// What a correct form asks for.
pub(super) fn build(state: &State, model: &CanonicalModel, fields: &[Field], faults: &mut Faults) -> Submit {
    let get = |number: usize| fields.get(number).map_or("", Field::get);
    let pinned = |number: usize| fields.get(number).and_then(|field| field.pin) == Some(Pin::Set);
    if !(1..=80).contains(&get(LABEL).chars().count()) {
        faults.push((LABEL, state.words.say("form.key.label_rule").into_owned()));
    }
    let mut parameters = Vec::new();
    for (number, (name, ..)) in (1..).zip(FIELDS) {
        let text = get(number);
        if text.is_empty() {
            continue;
        }
        let rule = PARAMETERS.iter().find(|known| known.name == name).map(|known| known.rule);
        match parse(text, rule).filter(|value| rule.is_none_or(|rule| rule.holds(value))) {
            Some(value) => parameters.push(Parameter { name: name.to_owned(), value, pinned: pinned(number) }),
            None => faults.push((number, told(state, rule))),
        }
    }
    if !get(OWN).is_empty() {
        match profile::parse(get(OWN)) {
            Ok(own) => parameters.extend(own.into_iter().map(|value| Parameter { pinned: pinned(OWN), ..value })),
            Err(_) => faults.push((OWN, state.words.say("form.profile.own_rule").into_owned())),
        }
    }
    if parameters.is_empty() && faults.is_empty() {
        faults.push((1, state.words.say("form.profile.nothing").into_owned()));
    }
    let (engine, name) = (model.engine.clone(), model.model.to_string());
    Submit::Call(SaveProfile { engine, model: name, label: get(LABEL).to_owned(), parameters }.into())
}

fn parse(text: &str, rule: Option<Rule>) -> Option<Value> {
    if rule != Some(Rule::Texts) || text.starts_with(['"', '[']) {
        return serde_json::from_str(text).ok();
    }
    let texts: Vec<Value> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(Value::from).collect();
    Some(Value::from(texts))
}

/// The rule in the person's language.
fn told(state: &State, rule: Option<Rule>) -> String {
    let range = |key, least: String, most: String| state.words.fill(key, &[("least", &least), ("most", &most)]);
    match rule {
        Some(Rule::Number { least, most }) => range("form.profile.number_rule", least.to_string(), most.to_string()),
        Some(Rule::Whole { least, most }) => range("form.profile.whole_rule", least.to_string(), most.to_string()),
        Some(Rule::Texts) | None => state.words.say("form.profile.stop_rule").into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_are_typed_with_commas_or_as_json() {
        let texts = Some(Rule::Texts);
        assert_eq!(parse("a, b", texts), Some(json!(["a", "b"])));
        assert_eq!(parse(r#"["a, b", "\n\n"]"#, texts), Some(json!(["a, b", "\n\n"])));
        assert_eq!(parse("0.5", Some(Rule::Number { least: 0.0, most: 1.0 })), Some(json!(0.5)));
        assert_eq!(parse("warm", Some(Rule::Number { least: 0.0, most: 1.0 })), None);
        for value in [json!("end"), json!(["a", "b"]), json!("a,b"), json!("\n"), json!(0.5)] {
            let typed = written(&value);
            let back = parse(&typed, if value.is_number() { None } else { texts });
            let same = back == Some(value.clone()) || back == Some(json!([value]));
            assert!(same, "{value} as {typed:?}");
        }
    }
}
