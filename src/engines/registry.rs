//! The registered engines, their models and their state in memory; resolves a model name to engines in order.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::adapter::{Adapter, EngineError, EngineModel};
use crate::net::pool::Pool;
use crate::net::upstream::{InvalidUpstream, Upstream};
use crate::telemetry::live::Hub;
use crate::types::clock::Clock;
use crate::types::engine::{EngineKind, EngineRecord, EngineState, EngineView, HealthPoint, ModelView};
use crate::types::ids::{CanonicalModel, EngineId};
use crate::types::secret::Secret;

/// Every adapter, in the order in which detection asks them. Adding an engine adds a line here.
pub static ADAPTERS: &[&dyn Adapter] = &[];

/// The adapter of a kind.
pub fn adapter(kind: &EngineKind) -> Option<&'static dyn Adapter> {
    let _ = kind;
    todo!()
}

/// A registered engine as the relay uses it.
pub struct Engine {
    /// What is stored.
    pub record: EngineRecord,
    /// Its dialect.
    pub adapter: &'static dyn Adapter,
    /// Where it is.
    pub upstream: Upstream,
    /// Its own key, read from the environment when it was registered.
    pub api_key: Option<Secret>,
    /// Requests running on it; counted by [`InFlight`].
    pub in_flight: AtomicU32,
}

/// Counts one request on an engine until dropped.
pub struct InFlight(pub Arc<Engine>);

/// One way to serve a request.
#[derive(Clone)]
pub struct Candidate {
    /// Where.
    pub engine: Arc<Engine>,
    /// The engine's own name for the model.
    pub model: Arc<str>,
    /// Canonical name, for key globs and logs.
    pub canonical: CanonicalModel,
}

/// What a name means.
pub enum Resolution {
    /// Engines to try in order: serving ones first, fewest requests in flight first (SPEC §3.5).
    Candidates(Vec<Candidate>),
    /// Known, but no engine that has it serves now: 503 `engine_unavailable`.
    Unavailable {
        /// The engines that have it, with the reason.
        engines: Vec<(EngineId, String)>,
    },
    /// Unknown: 404 `model_not_found`, naming near matches, best first, at most 3.
    Unknown {
        /// Near matches as listed names.
        near: Vec<String>,
    },
}

/// All engines. Cloned freely; reading never locks.
#[derive(Clone)]
pub struct Registry {}

impl Registry {
    /// An empty registry that publishes changes on `hub`.
    pub fn new(hub: Hub, clock: Clock) -> Self {
        let _ = (hub, clock);
        todo!()
    }
    /// Adds or replaces an engine; its key variable is read through `variable`.
    pub fn put(&self, record: EngineRecord, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), InvalidUpstream> {
        let _ = (record, variable);
        todo!()
    }
    /// Removes an engine; running requests end by themselves.
    pub fn remove(&self, id: &EngineId) -> bool {
        let _ = id;
        todo!()
    }
    /// One engine.
    pub fn engine(&self, id: &EngineId) -> Option<Arc<Engine>> {
        let _ = id;
        todo!()
    }
    /// Everything about every engine, by id.
    pub fn views(&self) -> Vec<EngineView> {
        todo!()
    }
    /// All models, by listed name.
    pub fn models(&self) -> Arc<Vec<ModelView>> {
        todo!()
    }
    /// Resolves `flm://ENGINE/MODEL`, an exact bare name, then `ENGINE/MODEL`. `allowed` filters by the key's globs.
    pub fn resolve(&self, name: &str, allowed: &dyn Fn(&CanonicalModel) -> bool) -> Resolution {
        let _ = (name, allowed);
        todo!()
    }
    /// Checks an engine: state machine, latency history, models; publishes what changed; answers the point to store.
    pub async fn check(&self, id: &EngineId, pool: &Pool) -> Option<HealthPoint> {
        let _ = (id, pool);
        todo!()
    }
    /// Tells the state machine of a failure or success seen by the relay, so that a dead engine is known at once.
    pub fn observed(&self, id: &EngineId, seen: Result<(), &EngineError>) {
        let _ = (id, seen);
        todo!()
    }
    /// For tests and the state machine: what an engine listed.
    pub fn set_models(&self, id: &EngineId, models: Vec<EngineModel>, state: EngineState) {
        let _ = (id, models, state);
        todo!()
    }
}
