//! What a model's name means: alias, `flm://ENGINE/MODEL`, bare name, `ENGINE/MODEL`, in this order (SPEC §3.5), and
//! which engine comes first.
//!
//! Called by [`crate::engines::registry`] with the picture in force. Pure: no I/O, no lock.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engines::circuit::Circuit;
use crate::engines::near::near;
use crate::engines::registry::Engine;
use crate::engines::residency::Residency;
use crate::engines::slots::Slots;
use crate::engines::table::{Entry, Table};
use crate::types::engine::{Capability, EngineState};
use crate::types::ids::{CanonicalModel, EngineId};

/// One way to serve a request.
#[derive(Clone)]
pub struct Candidate {
    /// Where.
    pub engine: Arc<Engine>,
    /// Which of its models, and what it can do.
    pub target: Arc<Target>,
    /// Candidates of a higher tier are tried when none of a lower one serves.
    pub tier: u8,
}

impl Candidate {
    /// The engine's own name for the model.
    #[must_use]
    pub fn model(&self) -> &Arc<str> {
        &self.target.canonical.model
    }
}

/// A model of an engine as requests find it: made when the engine's list is read, shared by every request after.
#[derive(Debug)]
pub struct Target {
    /// Canonical name, for key globs and logs.
    pub canonical: CanonicalModel,
    /// What it can do, as far as the engine tells.
    pub capabilities: BTreeSet<Capability>,
    /// What it may run at once: the engine's slots, or its own where the engine tells.
    pub slots: Arc<Slots>,
    /// Whether it failed of late.
    pub circuit: Arc<Circuit>,
    /// Whether it is in the engine's memory.
    pub residency: Arc<Residency>,
}

/// A model as a name finds it; what a key's globs are matched with.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The model.
    pub canonical: &'a CanonicalModel,
    /// The alias that was asked for, if it was one.
    pub alias: Option<&'a str>,
}

/// Whether a key may use a model; what it may not use does not exist for it.
pub type Allowed<'a> = &'a dyn Fn(Named<'_>) -> bool;

/// What a name means.
pub enum Resolution {
    /// Engines to try in order: by tier, healthy ones first, fewest requests in flight first (SPEC §3.5). Never empty.
    Candidates(Vec<Candidate>),
    /// Known, but no engine that has it serves now: 503 `engine_unavailable`.
    Unavailable {
        /// The engines that have it, with the reason, made safe to show.
        engines: Vec<(EngineId, String)>,
    },
    /// Unknown: 404 `model_not_found`, naming near matches, best first, at most 3.
    Unknown {
        /// Near matches as listed names, made safe to show.
        near: Vec<String>,
    },
}

/// Resolves a name for those that `allowed` lets through.
pub(super) fn resolve(table: &Table, name: &str, allowed: Allowed<'_>) -> Resolution {
    let (mut candidates, mut down): (Vec<Candidate>, Vec<&Entry>) = (Vec::new(), Vec::new());
    let mut offer = |target: &Arc<Target>, tier: u8, alias: Option<&str>| {
        if !allowed(Named { canonical: &target.canonical, alias }) {
            return;
        }
        let Some(entry) = table.engines.get(&target.canonical.engine) else { return };
        if entry.health.state.serves() {
            candidates.push(Candidate { engine: entry.engine.clone(), target: target.clone(), tier });
        } else {
            down.push(entry);
        }
    };
    if let Some(alias) = table.aliases.get(name) {
        for (target, tier) in &alias.targets {
            offer(target, *tier, Some(name));
        }
    } else {
        for target in owners(&table.by_name, name) {
            offer(target, 0, None);
        }
    }
    if candidates.is_empty() && down.is_empty() {
        let models = table.models.iter().filter(|model| allowed(Named { canonical: &model.name, alias: None }));
        let aliases = table.aliases.iter().filter(|(name, alias)| alias.is_allowed(name, allowed));
        let listed = models.map(|model| &*model.listed_as).chain(aliases.map(|(name, _)| &**name));
        return Resolution::Unknown { near: near(name, listed) };
    }
    if candidates.is_empty() {
        let why = |entry: &Entry| (entry.engine.record.id.clone(), why_not(&entry.health.state));
        return Resolution::Unavailable { engines: down.into_iter().map(why).collect() };
    }
    if candidates.len() > 1 {
        candidates.sort_by_cached_key(|candidate| {
            let entry = table.engines.get(&candidate.engine.record.id);
            let healthy = entry.is_some_and(|entry| matches!(entry.health.state, EngineState::RunningHealthy { .. }));
            (candidate.tier, !healthy, candidate.engine.in_flight.load(Ordering::Relaxed))
        });
    }
    Resolution::Candidates(candidates)
}

/// The models of each name, by engine.
pub(super) type ByName = HashMap<Arc<str>, Vec<Arc<Target>>>;

/// The models that a name means, aliases aside.
pub(super) fn owners<'a>(by_name: &'a ByName, name: &str) -> &'a [Arc<Target>] {
    let bare = |model: &str| by_name.get(model).map(Vec::as_slice);
    // Ollama's own clients leave the tag "latest" out.
    let tagged = |model: &str| format!("{model}:latest");
    let on = |engine: &str, model: &str| {
        let known = |model: &str| {
            let owners = by_name.get(model)?;
            let place = owners.iter().position(|target| target.canonical.engine.as_str() == engine)?;
            Some(&owners[place..=place])
        };
        known(model).or_else(|| known(&tagged(model)))
    };
    if let Some(canonical) = CanonicalModel::parse(name) {
        return on(canonical.engine.as_str(), &canonical.model).unwrap_or_default();
    }
    bare(name)
        .or_else(|| name.split_once('/').and_then(|(engine, model)| on(engine, model)))
        .or_else(|| bare(&tagged(name)))
        .unwrap_or_default()
}

fn why_not(state: &EngineState) -> String {
    match state {
        EngineState::InstalledOnly => "installed, but not running".to_owned(),
        EngineState::ErrorNetwork { reason, .. } | EngineState::ErrorApi { reason } => reason.clone(),
        _ => "not serving".to_owned(),
    }
}
