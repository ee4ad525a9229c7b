//! Forms to add and to change alert channels. Secrets are never filled in: what is left empty stays as it is.

use crate::tui::overlays::form::{Choice, Field, Form, Submit, Value};
use crate::tui::overlays::forms::{Faults, FormKind, fault, number};
use crate::tui::state::State;
use crate::tui::text;
use crate::types::alert::{AlertKind, AlertRules, AlertTarget, ChannelId, ChannelView, PrivateHosts};
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::alerts::{AddAlertChannel, ChannelChanges, EditAlertChannel, SecretChange};
use crate::types::secret::Secret;

/// Which of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelForm {
    /// A new channel.
    Add(AlertKind),
    /// A channel that is there.
    Edit(ChannelId, AlertKind),
}

impl ChannelForm {
    fn kind(&self) -> AlertKind {
        match self {
            Self::Add(kind) | Self::Edit(_, kind) => *kind,
        }
    }

    /// The number of the first field of its kind: only a new channel is named.
    fn first(&self) -> usize {
        usize::from(matches!(self, Self::Add(_)))
    }
}

/// Fields of the kind itself.
fn own_fields(kind: AlertKind) -> usize {
    match kind {
        AlertKind::Webhook => 3,
        AlertKind::Ntfy => 4,
        AlertKind::Command => 2,
        AlertKind::Terminal => 0,
    }
}

/// A form to choose the kind of a new channel.
#[must_use]
pub fn choose_kind(state: &State) -> Form {
    let options = AlertKind::ALL.map(|kind| choice(state, kind.name(), kind_key(kind)));
    Form::new(FormKind::ChannelKind, vec![Field::choice("form.alert.kind", "form.alert.kind_hint", options.into())])
}

/// The kind of that name.
#[must_use]
pub fn kind(name: &str) -> Option<AlertKind> {
    AlertKind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// The key of a kind's name.
#[must_use]
pub fn kind_key(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Webhook => "alerts.webhook",
        AlertKind::Ntfy => "alerts.ntfy",
        AlertKind::Command => "alerts.command",
        AlertKind::Terminal => "alerts.terminal",
    }
}

/// A form to add a channel.
#[must_use]
pub fn add(state: &State, kind: AlertKind) -> Form {
    let taken = |id: &str| state.world.channels.value.iter().flatten().any(|channel| channel.id.as_str() == id);
    let mut id = kind.name().to_owned();
    let mut number = 2;
    while taken(&id) {
        id = format!("{}-{number}", kind.name());
        number += 1;
    }
    let mut fields = vec![Field::text("form.alert.id", "form.alert.id_hint", &id)];
    let server = if kind == AlertKind::Ntfy { "https://ntfy.sh" } else { "" };
    own(state, kind, server, PrivateHosts::Refused, &mut fields);
    rules(state, &AlertRules::default(), &mut fields);
    Form::new(FormKind::Channel(ChannelForm::Add(kind)), fields)
}

/// A form to change a channel.
#[must_use]
pub fn edit(state: &State, channel: &ChannelView) -> Form {
    let mut fields = Vec::new();
    own(state, channel.kind, "", channel.private.unwrap_or_default(), &mut fields);
    rules(state, &channel.rules, &mut fields);
    Form::new(FormKind::Channel(ChannelForm::Edit(channel.id.clone(), channel.kind)), fields)
}

fn choice(state: &State, value: &str, key: &'static str) -> Choice {
    Choice { value: value.to_owned(), label: state.words.say(key).into_owned() }
}

fn own(state: &State, kind: AlertKind, server: &str, private: PrivateHosts, fields: &mut Vec<Field>) {
    let hosts = || {
        let options = vec![choice(state, "no", "form.no"), choice(state, "yes", "form.yes")];
        chosen(
            Field::choice("form.alert.private", "form.alert.private_hint", options),
            usize::from(private == PrivateHosts::Allowed),
        )
    };
    match kind {
        AlertKind::Webhook => {
            fields.push(Field::text("form.alert.url", "form.alert.url_hint", ""));
            fields.push(hosts());
            fields.push(Field::text("form.alert.secret", "form.alert.secret_hint", ""));
        }
        AlertKind::Ntfy => {
            fields.push(Field::text("form.alert.server", "form.alert.server_hint", server));
            fields.push(Field::text("form.alert.topic", "form.alert.topic_hint", ""));
            fields.push(hosts());
            fields.push(Field::text("form.alert.token", "form.alert.token_hint", ""));
        }
        AlertKind::Command => {
            fields.push(Field::text("form.alert.program", "form.alert.program_hint", ""));
            fields.push(Field::text("form.alert.arguments", "form.alert.arguments_hint", ""));
        }
        AlertKind::Terminal => {}
    }
}

fn rules(state: &State, rules: &AlertRules, fields: &mut Vec<Field>) {
    let severities = ["low", "medium", "high", "critical"];
    let keys = ["severity.low", "severity.medium", "severity.high", "severity.critical"];
    let options = severities.iter().zip(keys).map(|(value, key)| choice(state, value, key)).collect();
    let at = severity_place(rules.severity);
    fields.push(chosen(Field::choice("form.alert.severity", "form.alert.severity_hint", options), at));
    let kinds: Vec<String> = rules.kinds.iter().filter_map(|kind| name(*kind)).collect();
    fields.push(Field::text("form.alert.types", "form.alert.types_hint", &kinds.join(", ")));
    let group = rules.group.as_secs();
    let group = if group == 0 { String::new() } else { format!("{group}s") };
    fields.push(Field::text("form.alert.group", "form.alert.group_hint", &group));
    fields.push(Field::text("form.alert.per_hour", "form.alert.per_hour_hint", &rules.per_hour.to_string()));
}

fn chosen(mut field: Field, place: usize) -> Field {
    if let Value::Choice { at, .. } = &mut field.value {
        *at = place;
    }
    field
}

fn severity_place(severity: Severity) -> usize {
    match severity {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
        Severity::Critical => 3,
    }
}

fn name(kind: AuditKind) -> Option<String> {
    serde_json::to_value(kind).ok()?.as_str().map(|name| name.replace('_', "-"))
}

/// Parses the fields into a call, or says what is wrong with which.
pub fn build(state: &State, form: &ChannelForm, fields: &[Field], faults: &mut Faults) -> Option<Submit> {
    let get = |number: usize| fields.get(number).map_or("", Field::get);
    let kind = form.kind();
    let rules = build_rules(state, form.first() + own_fields(kind), &get, faults);
    match form {
        ChannelForm::Add(_) => {
            let id = match ChannelId::parse(get(0)) {
                Ok(id) => Some(id),
                Err(_) => fault(state, 0, "form.alert.id_rule", faults),
            };
            let target = new_target(state, kind, &get, faults);
            Some(Submit::Call(AddAlertChannel { id: id?, target: target?, rules: rules? }.into()))
        }
        ChannelForm::Edit(id, _) => {
            let rules = rules?;
            let changes = ChannelChanges {
                severity: Some(rules.severity),
                kinds: Some(rules.kinds),
                group: Some(rules.group),
                per_hour: Some(rules.per_hour),
                ..changed_target(kind, &get)
            };
            Some(Submit::Call(EditAlertChannel { id: id.clone(), changes: Box::new(changes) }.into()))
        }
    }
}

fn build_rules<'a>(
    state: &State,
    first: usize,
    get: &impl Fn(usize) -> &'a str,
    faults: &mut Faults,
) -> Option<AlertRules> {
    let severity = match get(first) {
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "critical" => Severity::Critical,
        _ => Severity::High,
    };
    let named = |word: &str| {
        serde_json::from_value(serde_json::Value::String(word.to_ascii_lowercase().replace('-', "_"))).ok()
    };
    let words = get(first + 1).split(',').map(str::trim).filter(|word| !word.is_empty());
    let kinds: Option<Vec<AuditKind>> = words.map(named).collect();
    let kinds = kinds.or_else(|| fault(state, first + 1, "form.alert.types_rule", faults));
    let group = match get(first + 2) {
        "" | "0" | "0s" => Some(std::time::Duration::ZERO),
        span => text::parse_span(span)
            .filter(|span| *span <= AlertRules::LONGEST_GROUP)
            .or_else(|| fault(state, first + 2, "form.alert.group_rule", faults)),
    };
    let per_hour = number::<u32>(state, first + 3, get(first + 3), 1, faults)
        .filter(|number| *number <= AlertRules::MOST_PER_HOUR)
        .or_else(|| fault(state, first + 3, "form.alert.per_hour_rule", faults));
    Some(AlertRules { severity, kinds: kinds?, group: group?, per_hour: per_hour?, ..AlertRules::default() })
}

fn hosts(text: &str) -> PrivateHosts {
    if text == "yes" { PrivateHosts::Allowed } else { PrivateHosts::Refused }
}

fn secret(text: &str) -> Option<Secret> {
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

fn arguments(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn new_target<'a>(
    state: &State,
    kind: AlertKind,
    get: &impl Fn(usize) -> &'a str,
    faults: &mut Faults,
) -> Option<AlertTarget> {
    let mut needed = |field: usize| {
        if get(field).is_empty() {
            return fault(state, field, "form.alert.needed", faults);
        }
        Some(get(field).to_owned())
    };
    Some(match kind {
        AlertKind::Webhook => AlertTarget::Webhook { url: needed(1)?, private: hosts(get(2)), secret: secret(get(3)) },
        AlertKind::Ntfy => {
            let (server, topic) = (needed(1), needed(2));
            AlertTarget::Ntfy { server: server?, topic: topic?, private: hosts(get(3)), token: secret(get(4)) }
        }
        AlertKind::Command => AlertTarget::Command { program: needed(1)?, arguments: arguments(get(2)) },
        AlertKind::Terminal => AlertTarget::Terminal,
    })
}

/// What is empty stays.
fn changed_target<'a>(kind: AlertKind, get: &impl Fn(usize) -> &'a str) -> ChannelChanges {
    let given = |field: usize| Some(get(field).to_owned()).filter(|text| !text.is_empty());
    match kind {
        AlertKind::Webhook => ChannelChanges {
            url: given(0),
            private: Some(hosts(get(1))),
            secret: secret(get(2)).map_or(SecretChange::Keep, SecretChange::Set),
            ..ChannelChanges::default()
        },
        AlertKind::Ntfy => ChannelChanges {
            server: given(0),
            topic: given(1),
            private: Some(hosts(get(2))),
            token: secret(get(3)),
            ..ChannelChanges::default()
        },
        AlertKind::Command => ChannelChanges {
            arguments: given(1).map(|text| arguments(&text)),
            program: given(0),
            ..ChannelChanges::default()
        },
        AlertKind::Terminal => ChannelChanges::default(),
    }
}
