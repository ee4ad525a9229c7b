//! The forms of the chat tester and of comparisons: how models are asked, and where a comparison is written to.

use std::path::Path;

use crate::tui::overlays::form::{Choice, Edited, Field, Form, Submit, Value};
use crate::tui::overlays::forms::{Faults, FormKind, fault, optional};
use crate::tui::state::State;
use crate::tui::tab_models::chat::ChatSettings;
use crate::tui::tab_models::compare::Stage;
use crate::tui::widgets::input::LineInput;
use crate::types::chat::{ChatRoute, Sampling};
use crate::types::comparison::{Comparison, MOST_RUNS};

/// A form with how the chat tester asks now.
#[must_use]
pub fn chat_settings(state: &State) -> Form {
    let settings = &state.models.chat.settings;
    let mut fields = vec![Field::text("form.chat.system", "form.chat.system_hint", &settings.system)];
    fields.extend(sampling_fields(settings.sampling));
    let options = [ChatRoute::Completions, ChatRoute::Responses]
        .map(|route| Choice { value: route.path().to_owned(), label: route.path().to_owned() });
    let mut route = Field::choice("column.route", "form.prompt.route_hint", options.to_vec());
    if let Value::Choice { at, .. } = &mut route.value {
        *at = usize::from(settings.route == ChatRoute::Responses);
    }
    fields.push(route);
    Form::new(FormKind::Chat, fields)
}

/// A form with how models are compared now.
#[must_use]
pub fn compare_settings(state: &State) -> Form {
    let compare = &state.models.compare;
    let mut fields = vec![Field::text("form.compare.runs", "form.compare.runs_hint", &compare.runs.to_string())];
    fields.extend(sampling_fields(compare.sampling));
    Form::new(FormKind::Compare, fields)
}

/// A form that asks where a comparison is to be written to, with a name that says when it was made.
#[must_use]
pub fn export(state: &State, comparison: &Comparison) -> Form {
    let options = [("md", "Markdown"), ("json", "JSON")]
        .map(|(value, label)| Choice { value: value.to_owned(), label: label.to_owned() });
    let name = format!("flm-comparison-{}.md", state.words.stamp(comparison.created));
    let path = state.export_folder.join(name);
    Form::new(
        FormKind::Export,
        vec![
            Field::choice("form.export.kind", "form.export.kind_hint", options.to_vec()),
            Field::text("form.export.file", "form.export.file_hint", &path.to_string_lossy()),
        ],
    )
}

/// The file's name follows the kind of document while it is not the person's own.
pub(super) fn follow_kind(changed: usize, fields: &mut [Field]) {
    let [kind, file] = fields else { return };
    if changed == 0 && file.edited == Edited::No {
        let path = Path::new(file.get()).with_extension(kind.get());
        file.value = Value::Text(LineInput::with(&path.to_string_lossy()));
    }
}

fn sampling_fields(sampling: Sampling) -> [Field; 3] {
    let text = |value: Option<String>| value.unwrap_or_default();
    [
        Field::text(
            "form.profile.temperature",
            "form.chat.temperature_hint",
            &text(sampling.temperature.map(|value| value.to_string())),
        ),
        Field::text(
            "form.profile.max_tokens",
            "form.chat.max_tokens_hint",
            &text(sampling.max_tokens.map(|value| value.to_string())),
        ),
        Field::text("form.chat.seed", "form.chat.seed_hint", &text(sampling.seed.map(|value| value.to_string()))),
    ]
}

/// Reads the three fields of [`sampling_fields`], which follow the first field of both forms.
fn sampling(state: &State, fields: &[Field], faults: &mut Faults) -> Sampling {
    let get = |number: usize| fields.get(number).map_or("", Field::get);
    let temperature = match get(1) {
        "" => None,
        text => text.parse::<f64>().ok().filter(|value| (0.0..=2.0).contains(value)).or_else(|| {
            let values = [("least", "0"), ("most", "2")];
            faults.push((1, state.words.fill("form.profile.number_rule", &values)));
            None
        }),
    };
    let seed = match get(3) {
        "" => None,
        text => text.parse().ok().or_else(|| fault(state, 3, "form.chat.seed_rule", faults)),
    };
    Sampling { temperature, max_tokens: optional(state, 2, get(2), faults), seed }
}

/// What a correct form of the chat tester does.
pub(super) fn chat(state: &State, fields: &[Field], faults: &mut Faults) -> Submit {
    let get = |number: usize| fields.get(number).map_or("", Field::get);
    let route = if get(4) == ChatRoute::Responses.path() { ChatRoute::Responses } else { ChatRoute::Completions };
    let settings = ChatSettings { system: get(0).to_owned(), sampling: sampling(state, fields, faults), route };
    Submit::Chat(Box::new(settings))
}

/// What a correct form of comparisons does.
pub(super) fn compare(state: &State, fields: &[Field], faults: &mut Faults) -> Option<Submit> {
    let typed = fields.first().map_or("", Field::get).parse::<u32>();
    let sampling = sampling(state, fields, faults);
    if let Some(runs) = typed.ok().filter(|runs| (1..=MOST_RUNS).contains(runs)) {
        return Some(Submit::Compare { runs, sampling });
    }
    let values = [("least", "1"), ("most", &*MOST_RUNS.to_string())];
    faults.push((0, state.words.fill("form.profile.whole_rule", &values)));
    None
}

/// What a correct form of an export of the block list does.
pub(super) fn export_blocks(state: &State, path: &str, faults: &mut Faults) -> Option<Submit> {
    if path.is_empty() || path.ends_with('/') {
        return fault(state, 0, "form.export.file_rule", faults);
    }
    Some(Submit::ExportBlocks(path.to_owned()))
}

/// What a correct form of an export does.
pub(super) fn export_file(state: &State, fields: &[Field], faults: &mut Faults) -> Option<Submit> {
    let get = |number: usize| fields.get(number).map_or("", Field::get);
    let path = get(1);
    if path.is_empty() || path.ends_with('/') {
        return fault(state, 1, "form.export.file_rule", faults);
    }
    let Stage::Whole(comparison) = &state.models.compare.stage else {
        return fault(state, 1, "compare.nothing_whole", faults);
    };
    let content = if get(0) == "json" {
        serde_json::to_string_pretty(comparison).map_err(|error| faults.push((0, error.to_string()))).ok()?
    } else {
        comparison.to_markdown(&state.words.exact(comparison.created))
    };
    Some(Submit::Write { path: path.to_owned(), content })
}
