//! What of an old program's data this home does not have yet: only that is added, and nothing that is here is changed.
//!
//! Called by the operations of this folder. Pure, so that a plan and what is then done are one computation.

use std::collections::{BTreeMap, BTreeSet};

use super::mapping::{MOST_ENGINES, Moved, MovedKey, numbered, same_place};
use crate::storage::{ConfigImport, ImportedProfile};
use crate::types::alias::{AliasOrder, AliasView};
use crate::types::calls::legacy::{LegacyFate, LegacyItem, LegacyKind};
use crate::types::clock::UnixMillis;
use crate::types::engine::{EngineOrigin, EngineRecord};
use crate::types::ids::{CanonicalModel, EngineId};
use crate::types::key::KeyRecord;
use crate::types::profile::ProfileView;
use crate::types::prompt::PromptView;

/// The route whose prompt a key's old system prompt becomes.
const PROMPT_ROUTE: &str = "chat.completions";

/// What the home holds now.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub(super) engines: Vec<EngineRecord>,
    /// Ids of moved engines that would be FLM itself.
    pub(super) own: BTreeSet<EngineId>,
    pub(super) aliases: Vec<AliasView>,
    pub(super) profiles: Vec<ProfileView>,
    pub(super) prompts: Vec<PromptView>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) keys: Vec<KeyRecord>,
}

/// What is to be added, and what there is to say about everything.
#[derive(Debug, Default)]
pub(super) struct Additions {
    pub(super) config: ConfigImport,
    pub(super) keys: Vec<MovedKey>,
    pub(super) items: Vec<LegacyItem>,
}

impl Additions {
    fn tell(&mut self, kind: LegacyKind, name: impl Into<String>, fate: LegacyFate, detail: impl Into<String>) {
        self.items.push(LegacyItem { kind, name: name.into(), fate, detail: detail.into() });
    }

    /// Whether there is anything to add.
    pub(super) fn is_empty(&self) -> bool {
        self.config == ConfigImport::default() && self.keys.is_empty()
    }
}

/// Compares.
pub(super) fn compare<'a>(
    present: &Present,
    moved: &Moved,
    keys: impl Iterator<Item = &'a MovedKey>,
    now: UnixMillis,
) -> Additions {
    let mut additions = Additions::default();
    let names = engines(present, moved, now, &mut additions);
    aliases(present, moved, &names, now, &mut additions);
    profiles(present, moved, &names, &mut additions);
    for (key, value) in &moved.settings {
        if let Some(kept) = present.settings.get(key) {
            additions.tell(LegacyKind::Setting, key, LegacyFate::Exists, format!("it stays {kept}"));
        } else {
            additions.config.settings.push((key.clone(), value.clone()));
            additions.tell(LegacyKind::Setting, key, LegacyFate::Moves, format!("= {value}"));
        }
    }
    for key in keys {
        add_key(present, key, &mut additions);
    }
    additions.items.extend(moved.remarks.iter().cloned());
    additions
}

/// Answers the name that each moved engine has in this home.
fn engines(
    present: &Present,
    moved: &Moved,
    now: UnixMillis,
    additions: &mut Additions,
) -> BTreeMap<EngineId, EngineId> {
    let mut names = BTreeMap::new();
    for engine in &moved.engines {
        if present.own.contains(&engine.id) {
            let detail = format!("{} is FLM's own address: it would send requests to itself", engine.url);
            additions.tell(LegacyKind::Engine, engine.id.as_str(), LegacyFate::NotMovable, detail);
            continue;
        }
        if let Some(here) = present.engines.iter().find(|here| same_place(&here.url, &engine.url)) {
            let detail = format!("{} is registered as {}", engine.url, here.id);
            additions.tell(LegacyKind::Engine, engine.id.as_str(), LegacyFate::Exists, detail);
            names.insert(engine.id.clone(), here.id.clone());
            continue;
        }
        let taken = |id: &str| {
            let known = present.engines.iter().chain(&additions.config.engines);
            known.map(|engine| engine.id.as_str()).any(|known| known == id)
        };
        let id = (1..=MOST_ENGINES).map(|number| numbered(engine.id.as_str(), number)).find(|id| !taken(id));
        let Some(id) = id.and_then(|id| EngineId::parse(&id).ok()) else { continue };
        additions.tell(
            LegacyKind::Engine,
            id.as_str(),
            LegacyFate::Moves,
            format!("{} at {}", engine.kind, engine.url),
        );
        names.insert(engine.id.clone(), id.clone());
        additions.config.engines.push(EngineRecord {
            id,
            kind: engine.kind.clone(),
            url: engine.url.clone(),
            api_key_env: None,
            direct: false,
            slots: None,
            origin: EngineOrigin::Manual,
            created: now,
        });
    }
    names
}

fn aliases(
    present: &Present,
    moved: &Moved,
    names: &BTreeMap<EngineId, EngineId>,
    now: UnixMillis,
    additions: &mut Additions,
) {
    for alias in &moved.aliases {
        let engine = alias.engine.as_ref().and_then(|engine| names.get(engine));
        let target = match engine {
            Some(engine) => format!("{}{engine}/{}", CanonicalModel::SCHEME, alias.model),
            None => alias.model.clone(),
        };
        if let Some(here) = present.aliases.iter().find(|here| *here.name == *alias.name) {
            let detail = format!("it stays an alias of {}", here.targets.join(", "));
            additions.tell(LegacyKind::Alias, &alias.name, LegacyFate::Exists, detail);
            continue;
        }
        // An alias of an alias would be refused by hand too.
        let is_alias = |name: &str| {
            present.aliases.iter().any(|here| *here.name == *name)
                || moved.aliases.iter().any(|other| other.name == name)
        };
        let is_target = present.aliases.iter().any(|here| here.targets.iter().any(|target| **target == *alias.name))
            || moved.aliases.iter().any(|other| other.engine.is_none() && other.model == alias.name);
        if is_alias(&target) || is_target {
            let detail =
                format!("{target} or the name itself is an alias already: set it by hand with flm aliases set");
            additions.tell(LegacyKind::Alias, &alias.name, LegacyFate::NotMovable, detail);
            continue;
        }
        additions.tell(LegacyKind::Alias, &alias.name, LegacyFate::Moves, format!("for {target}"));
        additions.config.aliases.push(AliasView {
            name: alias.name.as_str().into(),
            targets: vec![target.into()],
            order: AliasOrder::Balanced,
            updated: now,
        });
    }
}

fn profiles(present: &Present, moved: &Moved, names: &BTreeMap<EngineId, EngineId>, additions: &mut Additions) {
    for profile in &moved.profiles {
        let Some(engine) = names.get(&profile.engine) else {
            additions.tell(LegacyKind::Profile, &profile.label, LegacyFate::NotMovable, "its engine is not moved");
            continue;
        };
        let of = format!("of {} on {engine}", profile.model);
        if present.profiles.iter().any(|here| here.engine == *engine && here.model == profile.model) {
            additions.tell(LegacyKind::Profile, &profile.label, LegacyFate::Exists, format!("the profile {of} stays"));
            continue;
        }
        let values: Vec<_> = profile.parameters.iter().map(|p| format!("{} {}", p.name, p.value)).collect();
        additions.tell(LegacyKind::Profile, &profile.label, LegacyFate::Moves, format!("{of}: {}", values.join(", ")));
        additions.config.profiles.push(ImportedProfile {
            engine: engine.clone(),
            model: profile.model.clone(),
            label: profile.label.clone(),
            parameters: profile.parameters.clone(),
        });
    }
}

fn add_key(present: &Present, key: &MovedKey, additions: &mut Additions) {
    if let Some(prompt) = &key.prompt {
        let api_id = format!("{PROMPT_ROUTE}@{}", key.id);
        if present.prompts.iter().any(|here| here.api_id == api_id) {
            additions.tell(LegacyKind::Prompt, &api_id, LegacyFate::Exists, "it stays as it is");
        } else {
            let detail = format!("in front of the chats of the key {:?}", key.label);
            additions.tell(LegacyKind::Prompt, &api_id, LegacyFate::Moves, detail);
            additions.config.prompts.push((api_id, prompt.clone()));
        }
    }
    if let Some(here) = present.keys.iter().find(|here| here.view.id == key.id) {
        let state = if here.view.revoked.is_some() { ", and revoked" } else { "" };
        let detail = format!("it is here as {} ({}){state}", here.view.id, here.view.label);
        additions.tell(LegacyKind::Key, &key.label, LegacyFate::Exists, detail);
        return;
    }
    let taken = |label: &str| {
        let here = present.keys.iter().filter(|here| here.view.revoked.is_none()).map(|here| here.view.label.as_str());
        here.chain(additions.keys.iter().map(|key| key.label.as_str())).any(|known| known == label)
    };
    let mut label = key.label.clone();
    for number in 2_u32.. {
        if !taken(&label) {
            break;
        }
        // The number must fit behind the longest label.
        let short: String = key.label.chars().take(70).collect();
        label = format!("{short} ({number})");
    }
    let models = if key.models.is_empty() { "every model".to_owned() } else { key.models.join(", ") };
    let detail = format!("as {} ({label}), ends in {}, for {models}; clients go on using it", key.id, key.last4);
    additions.tell(LegacyKind::Key, &key.label, LegacyFate::Moves, detail);
    additions.keys.push(MovedKey { label, ..key.clone() });
}
