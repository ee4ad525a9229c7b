//! The forms that there are: their fields, their rules, and the operation that a correct one asks for.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::tui::overlays::alert_form::{self, ChannelForm};
use crate::tui::overlays::form::{Choice, Edited, Field, Form, Submit, Value};
use crate::tui::overlays::{asking_forms, legacy, profile_form};
use crate::tui::state::State;
use crate::tui::text;
use crate::types::address::parse_network;
use crate::types::calls::addresses::{AddBlock, AddNetwork, NetworkList};
use crate::types::calls::engines::{AddEngine, EditEngine};
use crate::types::calls::keys::{CaptureSwitch, CreateKey, EditKey};
use crate::types::calls::models::PullModel;
use crate::types::calls::proxy::StartListener;
use crate::types::capture::LONGEST_CAPTURE;
use crate::types::engine::{EngineKind, EngineRecord};
use crate::types::ids::{CanonicalModel, EngineId, KeyId};
use crate::types::key::{KeyLimits, Priority};
use crate::types::listener::ListenerConfig;

/// Which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormKind {
    /// Register an engine.
    AddEngine,
    /// Change where and how an engine is reached.
    EditEngine(EngineId),
    /// Make an API key.
    CreateKey,
    /// Capture the bodies of a key.
    Capture(KeyId),
    /// Block an address.
    Block,
    /// Block the networks of a file.
    ImportBlocks,
    /// Write the block list to a file.
    ExportBlocks,
    /// Add to the allow list or the trusted list.
    Network(NetworkList),
    /// Add an address that was seen to one of these lists.
    Allow,
    /// Choose the route of a new prompt.
    NewPrompt,
    /// Start the proxy on another port.
    Port(ListenerConfig),
    /// Edit the profile of a model.
    Profile(CanonicalModel),
    /// Fetch a model.
    Pull,
    /// How the chat tester asks.
    Chat,
    /// How models are compared.
    Compare,
    /// Write a comparison to a file.
    Export,
    /// Choose the folder of the old program.
    MoveIn,
    /// Choose the kind of a new alert channel.
    ChannelKind,
    /// Add or change an alert channel.
    Channel(ChannelForm),
}

/// What is wrong, with the number of the field.
pub(in crate::tui) type Faults = Vec<(usize, String)>;

/// A form to register an engine.
#[must_use]
pub fn add_engine(state: &State) -> Form {
    let known = state.world.kinds.value.as_deref().unwrap_or_default();
    let mut options: Vec<Choice> =
        known.iter().map(|kind| Choice { value: kind.kind.to_string(), label: kind.title.clone() }).collect();
    if options.is_empty() {
        // Before the list of kinds is read there is still the dialect that every engine speaks.
        options.push(Choice { value: "openai".to_owned(), label: "OpenAI-compatible".to_owned() });
    }
    let mut fields = vec![
        Field::choice("form.engine.kind", "form.engine.kind_hint", options),
        Field::text("form.engine.id", "form.engine.id_hint", ""),
    ];
    fields.extend(engine_place(state, None));
    let kind = FormKind::AddEngine;
    kind.changed(state, 0, &mut fields);
    Form::new(kind, fields)
}

/// A form to change where and how an engine is reached.
#[must_use]
pub fn edit_engine(state: &State, record: &EngineRecord) -> Form {
    Form::new(FormKind::EditEngine(record.id.clone()), engine_place(state, Some(record)))
}

/// The fields that say where and how an engine is reached.
fn engine_place(state: &State, record: Option<&EngineRecord>) -> Vec<Field> {
    let text = |of: fn(&EngineRecord) -> Option<String>| record.and_then(of).unwrap_or_default();
    let mut direct = Field::choice(
        "form.engine.direct",
        "form.engine.direct_hint",
        vec![
            Choice { value: "no".to_owned(), label: state.words.say("form.no").into_owned() },
            Choice { value: "yes".to_owned(), label: state.words.say("form.yes").into_owned() },
        ],
    );
    if let Value::Choice { at, .. } = &mut direct.value {
        *at = usize::from(record.is_some_and(|record| record.direct));
    }
    vec![
        Field::text("form.engine.url", "form.engine.url_hint", &text(|record| Some(record.url.clone()))),
        Field::text(
            "form.engine.key_variable",
            "form.engine.key_variable_hint",
            &text(|record| record.api_key_env.clone()),
        ),
        direct,
        Field::text("form.engine.slots", "form.engine.slots_hint", &text(|record| record.slots.map(|n| n.to_string()))),
    ]
}

/// A form that asks for a file of networks to block, and how long.
#[must_use]
pub fn import_blocks() -> Form {
    Form::new(
        FormKind::ImportBlocks,
        vec![
            Field::text("form.export.file", "form.import.file_hint", ""),
            Field::text("form.block.duration", "form.block.duration_hint", ""),
        ],
    )
}

/// A form that asks where the block list is to be written to.
#[must_use]
pub fn export_blocks(state: &State) -> Form {
    let path = state.export_folder.join(format!("flm-blocklist-{}.txt", state.words.stamp(state.now)));
    let file = Field::text("form.export.file", "form.export.file_hint", &path.to_string_lossy());
    Form::new(FormKind::ExportBlocks, vec![file])
}

/// A form to make a key.
#[must_use]
pub fn create_key(state: &State) -> Form {
    let limits = KeyLimits::default();
    let priorities = [("normal", "form.key.normal"), ("high", "form.key.high"), ("low", "form.key.low")];
    Form::new(
        FormKind::CreateKey,
        vec![
            Field::text("form.key.label", "form.key.label_hint", ""),
            Field::text("form.key.expires", "form.key.expires_hint", ""),
            Field::text("form.key.rpm", "form.key.rpm_hint", &limits.requests_per_minute.to_string()),
            Field::text("form.key.burst", "form.key.burst_hint", &limits.burst.to_string()),
            Field::text("form.key.tokens", "form.key.tokens_hint", ""),
            Field::text("form.key.parallel", "form.key.parallel_hint", ""),
            Field::text("form.key.models", "form.key.models_hint", ""),
            Field::choice(
                "form.key.priority",
                "form.key.priority_hint",
                priorities
                    .iter()
                    .map(|(value, label)| Choice {
                        value: (*value).to_owned(),
                        label: state.words.say(label).into_owned(),
                    })
                    .collect(),
            ),
        ],
    )
}

/// A form to capture the bodies of a key for a while, or to end that.
#[must_use]
pub fn capture(id: KeyId, captures_now: bool) -> Form {
    let span = if captures_now { "off" } else { "1h" };
    Form::new(FormKind::Capture(id), vec![Field::text("form.capture.span", "form.capture.span_hint", span)])
}

/// A form to block an address, filled in where one is known.
#[must_use]
pub fn block(address: Option<IpAddr>, reason: &str) -> Form {
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    Form::new(
        FormKind::Block,
        vec![
            Field::text("form.block.network", "form.block.network_hint", &address),
            Field::text("form.block.duration", "form.block.duration_hint", "24h"),
            Field::text("form.block.reason", "form.block.reason_hint", reason),
        ],
    )
}

/// A form to add to a list of networks.
#[must_use]
pub fn network(list: NetworkList) -> Form {
    Form::new(
        FormKind::Network(list),
        vec![
            Field::text("form.block.network", "form.block.network_hint", ""),
            Field::text("form.network.note", "form.network.note_hint", ""),
        ],
    )
}

/// A form to add the address of an event to the trusted list, or to the allow list.
#[must_use]
pub fn allow(state: &State, address: IpAddr) -> Form {
    let choice =
        |value: &str, key: &'static str| Choice { value: value.to_owned(), label: state.words.say(key).into_owned() };
    // The first entry of the allow list shuts everybody else out: said where it is chosen.
    let first = state.world.allowed.value.as_ref().is_none_or(Vec::is_empty);
    let allowed = if first { "form.network.first_allowed" } else { "blocklist.allowed" };
    let lists = vec![choice(TRUSTED, "blocklist.trusted"), choice(ALLOWED, allowed)];
    Form::new(
        FormKind::Allow,
        vec![
            Field::text("form.block.network", "form.block.network_hint", &address.to_string()),
            Field::choice("form.network.list", "form.network.list_hint", lists),
            Field::text("form.network.note", "form.network.note_hint", ""),
        ],
    )
}

/// Values of the lists in the form.
const TRUSTED: &str = "trusted";
const ALLOWED: &str = "allowed";

/// A form to choose a route, and a key where the prompt is for one key only.
#[must_use]
pub fn new_prompt(state: &State) -> Form {
    let routes = state.world.prompt_routes.value.as_deref().unwrap_or_default();
    let plain = |value: &String| Choice { value: value.clone(), label: value.clone() };
    let mut options: Vec<Choice> = routes.iter().map(plain).collect();
    if options.is_empty() {
        options.push(plain(&"chat.completions".to_owned()));
    }
    let mut keys = vec![Choice { value: String::new(), label: state.words.say("form.prompt.every_key").into_owned() }];
    for key in state.world.keys.value.iter().flatten().filter(|key| key.revoked.is_none()) {
        keys.push(Choice { value: key.id.to_string(), label: format!("{} ({})", key.label, key.id) });
    }
    Form::new(
        FormKind::NewPrompt,
        vec![
            Field::choice("form.prompt.route", "form.prompt.route_hint", options),
            Field::choice("form.prompt.key", "form.prompt.key_hint", keys),
        ],
    )
}

/// A form to start the proxy on another port than the one that is taken.
#[must_use]
pub fn other_port(config: ListenerConfig, free: Option<&str>) -> Form {
    let field = Field::text("form.port.port", "form.port.port_hint", free.unwrap_or_default());
    Form::new(FormKind::Port(config), vec![field])
}

/// A form to have an engine fetch a model; `None` when no engine is registered. The engine and the name of an earlier
/// try are filled in.
#[must_use]
pub fn pull_model(state: &State, engine: Option<&EngineId>, model: &str) -> Option<Form> {
    let options: Vec<Choice> = state
        .world
        .engines
        .iter()
        .map(|view| Choice { value: view.record.id.to_string(), label: view.record.id.to_string() })
        .collect();
    let at = options.iter().position(|choice| engine.is_some_and(|id| choice.value == id.as_str())).unwrap_or(0);
    if options.is_empty() {
        return None;
    }
    let mut engines = Field::choice("form.pull.engine", "form.pull.engine_hint", options);
    if let Value::Choice { at: chosen, .. } = &mut engines.value {
        *chosen = at;
    }
    Some(Form::new(FormKind::Pull, vec![engines, Field::text("form.pull.model", "form.pull.model_hint", model)]))
}

impl FormKind {
    /// The key of its title.
    #[must_use]
    pub fn title(&self) -> &'static str {
        match self {
            Self::AddEngine => "form.engine.title",
            Self::EditEngine(_) => "form.engine.edit_title",
            Self::ImportBlocks => "form.import.title",
            Self::ExportBlocks => "form.export_blocks.title",
            Self::CreateKey => "form.key.title",
            Self::Capture(_) => "form.capture.title",
            Self::Block => "form.block.title",
            Self::Network(NetworkList::Allow) => "form.network.allow_title",
            Self::Network(NetworkList::Trusted) => "form.network.trusted_title",
            Self::Allow => "command.allow_source",
            Self::NewPrompt => "form.prompt.title",
            Self::Port(_) => "form.port.title",
            Self::Profile(_) => "form.profile.title",
            Self::Pull => "form.pull.title",
            Self::Chat => "form.chat.title",
            Self::Compare => "form.compare.title",
            Self::Export => "form.export.title",
            Self::MoveIn => "legacy.title",
            Self::ChannelKind | Self::Channel(ChannelForm::Add(_)) => "form.alert.add_title",
            Self::Channel(ChannelForm::Edit(..)) => "form.alert.edit_title",
        }
    }

    /// The key of its button.
    #[must_use]
    pub fn deed(&self) -> &'static str {
        match self {
            Self::AddEngine | Self::Network(_) | Self::Allow | Self::Channel(ChannelForm::Add(_)) => "button.add",
            Self::ChannelKind | Self::MoveIn => "button.next",
            Self::CreateKey => "button.create",
            Self::Block | Self::ImportBlocks => "button.block",
            Self::NewPrompt => "button.edit",
            Self::Port(_) => "button.start",
            Self::Profile(_) | Self::EditEngine(_) | Self::Channel(ChannelForm::Edit(..)) => "button.save",
            Self::Capture(_) | Self::Chat | Self::Compare => "button.use",
            Self::Export | Self::ExportBlocks => "button.write",
            Self::Pull => "button.pull",
        }
    }

    /// A field was changed: fields that follow from it and are not the person's own yet follow.
    pub fn changed(&self, state: &State, field: usize, fields: &mut [Field]) {
        if *self == Self::Export {
            asking_forms::follow_kind(field, fields);
        }
        if *self != Self::AddEngine || field != 0 {
            return;
        }
        let kind = fields[0].get().to_owned();
        let taken = |id: &str| state.world.engines.iter().any(|engine| engine.record.id.as_str() == id);
        let mut id = kind.clone();
        let mut number = 2;
        while taken(&id) {
            id = format!("{kind}-{number}");
            number += 1;
        }
        let port = state.world.kinds.value.iter().flatten().find(|info| info.kind.as_str() == kind);
        let url = match port.map(|info| info.default_port).filter(|port| *port != 0) {
            Some(port) => format!("http://127.0.0.1:{port}"),
            None => "http://127.0.0.1:".to_owned(),
        };
        for (field, text) in [(1, id), (2, url)] {
            if let Some(field) = fields.get_mut(field).filter(|field| field.edited == Edited::No) {
                field.value = Value::Text(crate::tui::widgets::input::LineInput::with(&text));
            }
        }
    }

    /// Parses the fields into what they ask for, or says what is wrong with which.
    pub fn build(&self, state: &State, fields: &[Field]) -> Result<Submit, Faults> {
        let mut faults = Faults::new();
        let get = |number: usize| fields.get(number).map_or("", Field::get);
        let submit = match self {
            Self::AddEngine => add_engine_call(state, &get, &mut faults),
            Self::EditEngine(id) => {
                let call =
                    |(url, api_key_env, direct, slots)| EditEngine { id: id.clone(), url, api_key_env, direct, slots };
                Some(Submit::Call(call(engine_place_of(state, 0, &get, &mut faults)).into()))
            }
            Self::ImportBlocks => {
                let duration = match get(1) {
                    "" => None,
                    text => span(state, 1, text, &mut faults),
                };
                if get(0).is_empty() {
                    faults.push((0, state.words.say("form.export.file_rule").into_owned()));
                }
                Some(Submit::Import { path: get(0).to_owned(), duration })
            }
            Self::ExportBlocks => asking_forms::export_blocks(state, get(0), &mut faults),
            Self::CreateKey => create_key_call(state, &get, &mut faults),
            Self::Capture(id) => capture_switch(state, get(0), &mut faults).map(|switch| {
                let call = EditKey { id: *id, label: None, limits: None, expires: None, capture: Some(switch) };
                Submit::Call(call.into())
            }),
            Self::Block => {
                let network = network_of(state, get(0), &mut faults);
                let duration = match get(1) {
                    "" => None,
                    text => span(state, 1, text, &mut faults),
                };
                network.map(|network| Submit::Call(AddBlock { network, duration, reason: get(2).to_owned() }.into()))
            }
            Self::Network(list) => {
                let network = network_of(state, get(0), &mut faults);
                network.map(|network| Submit::Call(AddNetwork { list: *list, network, note: get(1).to_owned() }.into()))
            }
            Self::Allow => {
                let network = network_of(state, get(0), &mut faults);
                let list = if get(1) == ALLOWED { NetworkList::Allow } else { NetworkList::Trusted };
                network.map(|network| Submit::Call(AddNetwork { list, network, note: get(2).to_owned() }.into()))
            }
            Self::NewPrompt => Some(Submit::EditPrompt(match get(1) {
                "" => get(0).to_owned(),
                key => format!("{}@{key}", get(0)),
            })),
            Self::Pull => {
                let engine = EngineId::parse(get(0)).ok();
                if get(1).is_empty() {
                    faults.push((1, state.words.say("form.pull.model_rule").into_owned()));
                }
                engine.map(|engine| Submit::Pull(PullModel { model: get(1).to_owned(), engine: Some(engine) }))
            }
            Self::Chat => Some(asking_forms::chat(state, fields, &mut faults)),
            Self::Compare => asking_forms::compare(state, fields, &mut faults),
            Self::Export => asking_forms::export_file(state, fields, &mut faults),
            Self::MoveIn => legacy::build(state, get(0), &mut faults),
            Self::ChannelKind => alert_form::kind(get(0)).map(Submit::NewChannel),
            Self::Channel(form) => alert_form::build(state, form, fields, &mut faults),
            Self::Profile(model) => Some(profile_form::build(state, model, fields, &mut faults)),
            Self::Port(config) => port(state, 0, get(0), &mut faults).map(|port| {
                let config = ListenerConfig { port, ..config.clone() };
                Submit::Call(StartListener { config: Some(config), unnamed: Vec::new() }.into())
            }),
        };
        match submit {
            Some(submit) if faults.is_empty() => Ok(submit),
            _ => Err(faults),
        }
    }
}

fn add_engine_call<'a>(state: &State, get: &impl Fn(usize) -> &'a str, faults: &mut Faults) -> Option<Submit> {
    let id = match EngineId::parse(get(1)) {
        Err(_) => fault(state, 1, "form.engine.id_rule", faults),
        Ok(id) if state.world.engines.iter().any(|engine| engine.record.id == id) => {
            fault(state, 1, "form.engine.id_taken", faults)
        }
        Ok(id) => Some(id),
    };
    let (url, api_key_env, direct, slots) = engine_place_of(state, 2, get, faults);
    let kind = EngineKind(get(0).to_owned().into());
    Some(Submit::Call(AddEngine { id: id?, kind, url, api_key_env, direct, slots }.into()))
}

/// URL, variable with the key, whether it is reached directly, and slots.
type EnginePlace = (String, Option<String>, bool, Option<NonZeroU32>);

/// What the fields of [`engine_place`] say, from the field `first` on.
fn engine_place_of<'a>(
    state: &State,
    first: usize,
    get: &impl Fn(usize) -> &'a str,
    faults: &mut Faults,
) -> EnginePlace {
    let url = get(first).trim_end_matches('/').to_owned();
    if !is_base_url(&url) {
        faults.push((first, state.words.say("form.engine.url_rule").into_owned()));
    }
    let variable = get(first + 1);
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !variable.chars().all(name) || variable.starts_with(|c: char| c.is_ascii_digit()) {
        faults.push((first + 1, state.words.say("form.engine.key_variable_rule").into_owned()));
    }
    let slots = optional(state, first + 3, get(first + 3), faults).and_then(NonZeroU32::new);
    (url, (!variable.is_empty()).then(|| variable.to_owned()), get(first + 2) == "yes", slots)
}

fn create_key_call<'a>(state: &State, get: &impl Fn(usize) -> &'a str, faults: &mut Faults) -> Option<Submit> {
    let label = get(0);
    if !(1..=80).contains(&label.chars().count()) {
        faults.push((0, state.words.say("form.key.label_rule").into_owned()));
    } else if state.world.keys.value.iter().flatten().any(|key| key.revoked.is_none() && key.label == label) {
        faults.push((0, state.words.say("form.key.label_taken").into_owned()));
    }
    let expires_in = match get(1) {
        "" => None,
        text => span(state, 1, text, faults),
    };
    let requests_per_minute = number(state, 2, get(2), 0, faults);
    let burst = number(state, 3, get(3), 0, faults);
    let tokens_per_day = optional(state, 4, get(4), faults);
    let max_parallel = optional(state, 5, get(5), faults);
    let models = get(6).split(',').map(str::trim).filter(|glob| !glob.is_empty()).map(str::to_owned).collect();
    let limits = KeyLimits {
        requests_per_minute: requests_per_minute?,
        burst: burst?,
        tokens_per_day,
        max_parallel,
        models,
        priority: match get(7) {
            "high" => Priority::High,
            "low" => Priority::Low,
            _ => Priority::Normal,
        },
        ..KeyLimits::default()
    };
    Some(Submit::Call(CreateKey { label: label.to_owned(), expires_in, limits }.into()))
}

fn capture_switch(state: &State, text: &str, faults: &mut Faults) -> Option<CaptureSwitch> {
    if text.eq_ignore_ascii_case("off") {
        return Some(CaptureSwitch::Off);
    }
    match span(state, 0, text, faults)? {
        span if span > LONGEST_CAPTURE => fault(state, 0, "form.capture.rule", faults),
        span => Some(CaptureSwitch::For(span)),
    }
}

pub(in crate::tui) fn fault<T>(state: &State, field: usize, key: &'static str, faults: &mut Faults) -> Option<T> {
    faults.push((field, state.words.say(key).into_owned()));
    None
}

pub(in crate::tui) fn span(state: &State, field: usize, text: &str, faults: &mut Faults) -> Option<Duration> {
    text::parse_span(text).or_else(|| fault(state, field, "form.span_rule", faults))
}

pub(in crate::tui) fn number<T: std::str::FromStr + PartialOrd + From<u8>>(
    state: &State,
    field: usize,
    text: &str,
    least: u8,
    faults: &mut Faults,
) -> Option<T> {
    let parsed = text.parse().ok().filter(|number| *number >= T::from(least));
    if parsed.is_none() {
        faults.push((field, state.words.fill("form.number_rule", &[("least", &least.to_string())])));
    }
    parsed
}

pub(in crate::tui) fn port(state: &State, field: usize, text: &str, faults: &mut Faults) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0).or_else(|| fault(state, field, "form.port.rule", faults))
}

fn network_of(state: &State, text: &str, faults: &mut Faults) -> Option<ipnet::IpNet> {
    parse_network(text).ok().or_else(|| fault(state, 0, "form.block.network_rule", faults))
}

pub(in crate::tui) fn optional<T: std::str::FromStr + PartialOrd + From<u8>>(
    state: &State,
    field: usize,
    text: &str,
    faults: &mut Faults,
) -> Option<T> {
    if text.is_empty() { None } else { number(state, field, text, 1, faults) }
}

/// `http(s)://host[:port]` without path, query and user.
fn is_base_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let port = authority.rsplit_once(':').is_none_or(|(_, port)| port.ends_with(']') || port.parse::<u16>().is_ok());
    scheme && bare && port && !authority.contains('@') && uri.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::is_base_url;

    #[test]
    fn an_engine_url_is_scheme_host_and_port_only() {
        for good in ["http://127.0.0.1:8080", "https://gpu.lan", "http://[::1]:1234"] {
            assert!(is_base_url(good), "{good}");
        }
        for bad in ["", "127.0.0.1:8080", "ftp://x", "http://x/v1", "http://u@x", "http://127.0.0.1:", "http://x:99999"]
        {
            assert!(!is_base_url(bad), "{bad}");
        }
    }
}
