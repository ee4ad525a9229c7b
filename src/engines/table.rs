//! One immutable picture of all engines: what a request reads without a lock, and what the next picture is made from.
//!
//! Called by [`crate::engines::registry`] alone. Must never change after it was published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engines::adapter::{EngineModel, ModelSlots};
use crate::engines::registry::Engine;
use crate::engines::residency::Residency;
use crate::engines::resolution::{self, Allowed, ByName, Named, Target};
use crate::engines::slots::Slots;
use crate::engines::state::Health;
use crate::types::alias::{AliasOrder, AliasView};
use crate::types::clock::{Clock, UnixMillis};
use crate::types::engine::{Capability, EngineLoad, EngineState, EngineView, ModelView};
use crate::types::ids::{CanonicalModel, EngineId};

/// Checks whose latency is kept for the console's sparkline ([`EngineView`]).
const HISTORY: usize = 60;

/// All that is known of one engine.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) engine: Arc<Engine>,
    pub(super) health: Health,
    pub(super) models: Arc<Vec<EngineModel>>,
    /// The same as requests find them.
    pub(super) targets: Vec<Arc<Target>>,
    /// When the list of models was read; `None` makes the next check read it.
    pub(super) models_read: Option<UnixMillis>,
    pub(super) version: Option<String>,
    /// Whether it was asked who it is since it last failed.
    pub(super) identified: bool,
    pub(super) history: Vec<u32>,
    pub(super) checked: Option<UnixMillis>,
}

impl Entry {
    pub(super) fn new(engine: Arc<Engine>, now: UnixMillis) -> Self {
        Self {
            engine,
            health: Health::starting(EngineState::Unchecked, now),
            models: Arc::default(),
            targets: Vec::new(),
            models_read: None,
            version: None,
            identified: false,
            history: Vec::new(),
            checked: None,
        }
    }

    /// Takes a new list of models. Slots, circuits and residencies of models that are still there go
    /// on.
    pub(super) fn list(&mut self, models: Vec<EngineModel>, clock: &Clock) {
        let targets = models.iter().map(|model| {
            let known = self.targets.iter().find(|target| target.canonical.model == model.name);
            let own = known.map(|target| &target.slots).filter(|slots| !Arc::ptr_eq(slots, &self.engine.slots));
            let shared = &self.engine.slots;
            let slots = match (self.engine.record.slots, model.slots, own) {
                (Some(_), _, _) | (None, ModelSlots::Untold, _) => shared.clone(),
                (None, ModelSlots::Shared(count), _) => {
                    shared.resize(count);
                    shared.clone()
                }
                (None, ModelSlots::Own(count), Some(own)) => {
                    own.resize(count);
                    own.clone()
                }
                (None, ModelSlots::Own(count), None) => Slots::new(count),
            };
            let residency = known.map_or_else(|| Residency::new(clock.clone()), |target| target.residency.clone());
            residency.listed(model.loaded);
            Arc::new(Target {
                canonical: CanonicalModel { engine: self.engine.record.id.clone(), model: model.name.clone() },
                capabilities: model.capabilities.clone(),
                slots,
                circuit: known.map(|target| target.circuit.clone()).unwrap_or_default(),
                residency,
            })
        });
        self.targets = targets.collect();
        self.models = Arc::new(models);
    }

    /// The engine's slots, and those that single models have of their own.
    fn all_slots(&self) -> impl Iterator<Item = &Arc<Slots>> {
        let own = self.targets.iter().map(|target| &target.slots);
        std::iter::once(&self.engine.slots).chain(own.filter(|slots| !Arc::ptr_eq(slots, &self.engine.slots)))
    }

    pub(super) fn remember(&mut self, latency_ms: Option<u32>) {
        if self.history.len() >= HISTORY {
            self.history.remove(0);
        }
        // 0 marks a failed check, so a faster one counts as a millisecond.
        self.history.push(latency_ms.map_or(0, |ms| ms.max(1)));
    }

    pub(super) fn view(&self) -> EngineView {
        let known: Vec<bool> = self.models.iter().filter_map(|model| model.loaded).collect();
        EngineView {
            record: self.engine.record.clone(),
            state: self.health.state.clone(),
            version: self.version.clone(),
            models: u32::try_from(self.models.len()).unwrap_or(u32::MAX),
            models_loaded: (!known.is_empty())
                .then(|| u32::try_from(known.iter().filter(|loaded| **loaded).count()).unwrap_or(u32::MAX)),
            in_flight: self.engine.in_flight.load(Ordering::Relaxed),
            queued: self.all_slots().map(|slots| slots.waiting()).sum(),
            slots: self.slots(),
            capabilities: self.capabilities(),
            latency_history: self.history.clone(),
            checked: self.checked,
        }
    }

    /// How busy it is.
    pub(super) fn load(&self) -> EngineLoad {
        let mut waiting: Vec<_> = self.all_slots().flat_map(|slots| slots.waiters(EngineLoad::SHOWN)).collect();
        waiting.truncate(EngineLoad::SHOWN);
        EngineLoad {
            engine: self.engine.record.id.clone(),
            in_flight: self.engine.in_flight.load(Ordering::Relaxed),
            queued: self.all_slots().map(|slots| slots.waiting()).sum(),
            slots: self.slots(),
            waiting,
        }
    }

    /// How many requests it runs at once, all models together.
    fn slots(&self) -> u32 {
        let own: u32 = self.all_slots().skip(1).map(|slots| slots.limit()).sum();
        if own == 0 { self.engine.slots.limit() } else { own }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        if self.models.is_empty() {
            return self.engine.adapter.info().capabilities.iter().copied().collect();
        }
        self.models.iter().flat_map(|model| model.capabilities.iter().copied()).collect()
    }
}

/// An alias with the models that its targets mean now.
pub(super) struct Alias {
    /// Each with its tier, in the operator's order; a model that two targets mean is in it once.
    pub(super) targets: Vec<(Arc<Target>, u8)>,
    /// How lists show it: the first model behind it, under the alias' name. `None` when no target is known.
    pub(super) shown: Option<ModelView>,
}

impl Alias {
    fn of(view: &AliasView, by_name: &ByName, models: &[ModelView]) -> Self {
        let mut targets: Vec<(Arc<Target>, u8)> = Vec::new();
        for (place, name) in view.targets.iter().enumerate() {
            let tier = match view.order {
                AliasOrder::Balanced => 0,
                AliasOrder::FirstServing => u8::try_from(place).unwrap_or(u8::MAX),
            };
            for target in resolution::owners(by_name, name) {
                if !targets.iter().any(|(known, _)| Arc::ptr_eq(known, target)) {
                    targets.push((target.clone(), tier));
                }
            }
        }
        let first = targets.first().and_then(|(first, _)| models.iter().find(|model| model.name == first.canonical));
        let available = |(target, _): &(Arc<Target>, u8)| {
            models.iter().any(|model| model.available && model.name == target.canonical)
        };
        let shown = first.map(|first| ModelView {
            listed_as: view.name.clone(),
            available: targets.iter().any(available),
            ..first.clone()
        });
        Self { targets, shown }
    }

    /// Whether a key may use any of its targets.
    pub(super) fn is_allowed(&self, name: &str, allowed: Allowed<'_>) -> bool {
        self.targets.iter().any(|(target, _)| allowed(Named { canonical: &target.canonical, alias: Some(name) }))
    }
}

/// Engines, their models, and the index of names.
#[derive(Default)]
pub(super) struct Table {
    pub(super) engines: BTreeMap<EngineId, Entry>,
    pub(super) models: Arc<Vec<ModelView>>,
    /// The models of this name, by engine. Found for every request.
    pub(super) by_name: ByName,
    pub(super) aliases: BTreeMap<Arc<str>, Alias>,
}

impl Table {
    /// A picture of these engines under these names.
    pub(super) fn of(engines: BTreeMap<EngineId, Entry>, aliases: &[AliasView]) -> Self {
        let mut by_name = ByName::new();
        for target in engines.values().flat_map(|entry| entry.targets.iter()) {
            let owners = by_name.entry(target.canonical.model.clone()).or_default();
            // An engine that lists a name twice has one model of that name.
            if owners.last().is_none_or(|last| last.canonical.engine != target.canonical.engine) {
                owners.push(target.clone());
            }
        }
        let mut models = Vec::new();
        for (id, entry) in &engines {
            for model in entry.models.iter() {
                let unique = by_name.get(&model.name).is_none_or(|owners| owners.len() == 1)
                    && !aliases.iter().any(|alias| alias.name == model.name);
                models.push(ModelView {
                    name: CanonicalModel { engine: id.clone(), model: model.name.clone() },
                    listed_as: if unique { model.name.clone() } else { format!("{id}/{}", model.name).into() },
                    kind: entry.engine.record.kind.clone(),
                    capabilities: model.capabilities.clone(),
                    context_length: model.context_length,
                    size_bytes: model.size_bytes,
                    parameters: model.parameters.clone(),
                    quantization: model.quantization.clone(),
                    loaded: model.loaded,
                    available: entry.health.state.serves(),
                });
            }
        }
        models.sort_by(|a, b| a.listed_as.cmp(&b.listed_as));
        let named = |view: &AliasView| (view.name.clone(), Alias::of(view, &by_name, &models));
        let aliases = aliases.iter().map(named).collect();
        Self { engines, models: Arc::new(models), by_name, aliases }
    }
}
