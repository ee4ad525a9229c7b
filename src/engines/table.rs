//! One immutable picture of all engines: what a request reads without a lock, and what the next picture is made from.
//!
//! Called by [`crate::engines::registry`] alone. Must never change after it was published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engines::adapter::EngineModel;
use crate::engines::registry::{Engine, Target};
use crate::engines::state::Health;
use crate::types::clock::UnixMillis;
use crate::types::engine::{Capability, EngineState, EngineView, ModelView};
use crate::types::ids::{CanonicalModel, EngineId};

/// Checks whose latency is kept for the console's sparkline ([`EngineView`]).
const HISTORY: usize = 60;

/// All that is known of one engine.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) engine: Arc<Engine>,
    pub(super) health: Health,
    pub(super) models: Arc<Vec<EngineModel>>,
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
            models_read: None,
            version: None,
            identified: false,
            history: Vec::new(),
            checked: None,
        }
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
            queued: 0,
            capabilities: self.capabilities(),
            latency_history: self.history.clone(),
            checked: self.checked,
        }
    }

    fn capabilities(&self) -> BTreeSet<Capability> {
        if self.models.is_empty() {
            return self.engine.adapter.info().capabilities.iter().copied().collect();
        }
        self.models.iter().flat_map(|model| model.capabilities.iter().copied()).collect()
    }
}

/// Engines, their models, and the index of bare names.
#[derive(Default)]
pub(super) struct Table {
    pub(super) engines: BTreeMap<EngineId, Entry>,
    pub(super) models: Arc<Vec<ModelView>>,
    /// The models of this name, by engine. Found for every request.
    pub(super) by_name: HashMap<Arc<str>, Vec<Arc<Target>>>,
}

impl Table {
    /// A picture of these engines.
    pub(super) fn of(engines: BTreeMap<EngineId, Entry>) -> Self {
        let mut by_name: HashMap<Arc<str>, Vec<Arc<Target>>> = HashMap::new();
        for (id, entry) in &engines {
            for model in entry.models.iter() {
                let owners = by_name.entry(model.name.clone()).or_default();
                // An engine that lists a name twice has one model of that name.
                if owners.last().is_none_or(|last| last.canonical.engine != *id) {
                    owners.push(Arc::new(Target {
                        canonical: CanonicalModel { engine: id.clone(), model: model.name.clone() },
                        capabilities: model.capabilities.clone(),
                    }));
                }
            }
        }
        let mut models = Vec::new();
        for (id, entry) in &engines {
            for model in entry.models.iter() {
                let unique = by_name.get(&model.name).is_none_or(|owners| owners.len() == 1);
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
        Self { engines, models: Arc::new(models), by_name }
    }
}
