//! The registered engines, their models and their state in memory; resolves a model name to engines in order.
//!
//! Called by `proxy` for every request (`resolve`, `observed`: no lock, no copy of the table), by `daemon` for health
//! checks, by `operations` for adding and removing. Must never contact an engine that is not registered (SPEC §3.7).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::engines::adapter::{Adapter, EngineError, EngineModel, Session};
use crate::engines::ask;
use crate::engines::llamacpp::LlamaCpp;
use crate::engines::lmstudio::LmStudio;
use crate::engines::ollama::Ollama;
use crate::engines::openai::OpenAi;
use crate::engines::residency::InUse;
use crate::engines::resolution::{self, Allowed, Named, Resolution, Target};
use crate::engines::slots::{Slot, Slots};
use crate::engines::state::{self, Event, Health, Thresholds};
use crate::engines::table::{Entry, Table};
use crate::engines::vllm::Vllm;
use crate::net::egress::Reach;
use crate::net::pool::Pool;
use crate::net::upstream::{InvalidUpstream, Upstream};
use crate::telemetry::live::Hub;
use crate::types::alias::AliasView;
use crate::types::clock::{Clock, UnixMillis};
use crate::types::engine::{EngineKind, EngineLoad, EngineRecord, EngineState, EngineView, HealthPoint, ModelView};
use crate::types::ids::EngineId;
use crate::types::live::LiveEvent;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// Every adapter, in the order in which detection asks them. Adding an engine adds a line here.
pub static ADAPTERS: &[&dyn Adapter] = &[&Ollama, &LlamaCpp, &Vllm, &LmStudio, &OpenAi];

/// Time for one question of a health check: below the 10 s between checks (SPEC §3.10), above the threshold of
/// "slow", so that a slow engine is told from a dead one.
const CHECK_DEADLINE: Duration = Duration::from_secs(5);

/// How old a list of models may grow. A list can cost a question per model (Ollama before it told capabilities), so it
/// is not read at every check.
const MODELS_MAX_AGE: Duration = Duration::from_secs(30);

/// Slots of an engine that does not tell (SPEC §3.8).
pub const DEFAULT_SLOTS: u32 = 4;

/// The adapter of a kind.
#[must_use]
pub fn adapter(kind: &EngineKind) -> Option<&'static dyn Adapter> {
    ADAPTERS.iter().copied().find(|adapter| adapter.info().kind == *kind)
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
    /// What it may run at once, models that tell their own number aside (SPEC §3.8).
    pub slots: Arc<Slots>,
}

/// Counts one request on an engine, and holds its slot, until dropped.
pub struct InFlight {
    engine: Arc<Engine>,
    _slot: Option<(Slot, InUse)>,
}

impl Engine {
    /// The field with the engine's own key, for a request to it.
    #[must_use]
    pub fn authorization(&self) -> Option<(http::HeaderName, http::HeaderValue)> {
        ask::authorization(self.api_key.as_ref())
    }
}

impl InFlight {
    /// Counts one question that needs no slot.
    #[must_use]
    pub fn on(engine: Arc<Engine>) -> Self {
        Self::new(engine, None)
    }

    /// Counts one request that runs in a slot.
    #[must_use]
    pub fn in_slot(engine: Arc<Engine>, slot: Slot, model: InUse) -> Self {
        Self::new(engine, Some((slot, model)))
    }

    fn new(engine: Arc<Engine>, slot: Option<(Slot, InUse)>) -> Self {
        engine.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { engine, _slot: slot }
    }

    /// The engine it runs on.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.engine.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why an engine cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The base URL.
    #[error(transparent)]
    Url(#[from] InvalidUpstream),
    /// No adapter has this name.
    #[error("{kind:?} is no kind of engine; use one of {known}")]
    UnknownKind {
        /// The name, made safe to show.
        kind: String,
        /// All names.
        known: String,
    },
}

/// All engines. Cloned freely; reading never locks.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    table: ArcSwap<Table>,
    aliases: Mutex<Vec<AliasView>>,
    /// What consoles were last told.
    told: Mutex<Vec<EngineLoad>>,
    default_slots: AtomicU32,
    /// Held while the next table is made from the last one, never across an await: writers are health checks and
    /// the operator, a few a second at most.
    writing: Mutex<()>,
    thresholds: ArcSwap<Thresholds>,
    hub: Hub,
    clock: Clock,
}

impl Shared {
    fn aliases(&self) -> MutexGuard<'_, Vec<AliasView>> {
        self.aliases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// An empty registry that publishes changes on `hub`.
    #[must_use]
    pub fn new(hub: Hub, clock: Clock) -> Self {
        let shared = Shared {
            table: ArcSwap::from_pointee(Table::default()),
            aliases: Mutex::default(),
            told: Mutex::default(),
            default_slots: AtomicU32::new(DEFAULT_SLOTS),
            writing: Mutex::new(()),
            thresholds: ArcSwap::from_pointee(Thresholds::default()),
            hub,
            clock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Sets when a state changes; running checks use it from their end on.
    pub fn set_thresholds(&self, thresholds: Thresholds) {
        self.shared.thresholds.store(Arc::new(thresholds));
    }

    /// Adds or replaces an engine; its key variable is read through `variable`.
    pub fn put(&self, record: EngineRecord, variable: &dyn Fn(&str) -> Option<String>) -> Result<(), RegisterError> {
        let adapter = adapter(&record.kind).ok_or_else(|| RegisterError::UnknownKind {
            kind: escape(record.kind.as_str()).into_owned(),
            known: ADAPTERS.iter().map(|adapter| adapter.info().kind.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let reach = if record.direct { Reach::Direct } else { Reach::ByMode };
        let upstream = Upstream::parse(&record.url)?.reached(reach);
        let api_key = record.api_key_env.as_deref().and_then(variable).map(|key| key.trim().to_owned());
        let api_key = api_key.filter(|key| !key.is_empty()).map(Secret::new);
        if let (Some(name), None) = (&record.api_key_env, &api_key) {
            tracing::warn!(engine = %record.id, variable = %escape(name), "the variable with the engine's key is not set");
        }
        let id = record.id.clone();
        let slots = record.slots.map_or_else(|| self.shared.default_slots.load(Ordering::Relaxed), NonZeroU32::get);
        let slots = Slots::new(slots);
        let engine = Arc::new(Engine { record, adapter, upstream, api_key, in_flight: AtomicU32::new(0), slots });
        let now = self.shared.clock.wall();
        self.change(|engines| {
            engines.insert(id.clone(), Entry::new(engine, now));
        });
        self.publish_engine(&id);
        Ok(())
    }

    /// Removes an engine; running requests end by themselves.
    pub fn remove(&self, id: &EngineId) -> bool {
        let mut removed = false;
        self.change(|engines| removed = engines.remove(id).is_some());
        if removed {
            self.shared.hub.publish(LiveEvent::EngineRemoved(id.clone()));
        }
        removed
    }

    /// One engine.
    #[must_use]
    pub fn engine(&self, id: &EngineId) -> Option<Arc<Engine>> {
        self.shared.table.load().engines.get(id).map(|entry| entry.engine.clone())
    }

    /// One engine's state.
    #[must_use]
    pub fn state(&self, id: &EngineId) -> Option<EngineState> {
        self.shared.table.load().engines.get(id).map(|entry| entry.health.state.clone())
    }

    /// Everything about every engine, by id.
    #[must_use]
    pub fn views(&self) -> Vec<EngineView> {
        self.shared.table.load().engines.values().map(Entry::view).collect()
    }

    /// All models, by listed name.
    #[must_use]
    pub fn models(&self) -> Arc<Vec<ModelView>> {
        self.shared.table.load().models.clone()
    }

    /// What a name means for those that `allowed` lets through: what a key may not use does not exist for it.
    #[must_use]
    pub fn resolve(&self, name: &str, allowed: Allowed<'_>) -> Resolution {
        resolution::resolve(&self.shared.table.load(), name, allowed)
    }

    /// The names that a list shows, aliases first: each with the model behind it.
    #[must_use]
    pub fn listed(&self, allowed: Allowed<'_>) -> Vec<ModelView> {
        let table = self.shared.table.load();
        let aliases = table.aliases.iter().filter(|(name, alias)| alias.is_allowed(name, allowed));
        let aliases = aliases.filter_map(|(_, alias)| alias.shown.clone());
        let models = table.models.iter().filter(|model| allowed(Named { canonical: &model.name, alias: None }));
        aliases.chain(models.cloned()).collect()
    }

    /// Sets the aliases in force.
    pub fn set_aliases(&self, aliases: Vec<AliasView>) {
        *self.shared.aliases() = aliases;
        self.change(|_engines| {});
    }

    /// Sets how many requests an engine runs at once when neither it nor its record tells (SPEC §3.8).
    pub fn set_default_slots(&self, slots: u32) {
        self.shared.default_slots.store(slots, Ordering::Relaxed);
        for entry in self.shared.table.load().engines.values() {
            if entry.engine.record.slots.is_none() {
                entry.engine.slots.resize(slots);
            }
        }
    }

    /// Checks an engine: state machine, latency history, models; publishes what changed; answers the point to store.
    /// `None` when there is no such engine (any more). Cancel-safe: nothing changes before the end.
    pub async fn check(&self, id: &EngineId, pool: &Pool) -> Option<HealthPoint> {
        let before = self.shared.table.load().engines.get(id)?.clone();
        let seen = self.ask(&before, pool).await;
        let now = self.shared.clock.wall();
        let thresholds = **self.shared.thresholds.load();
        let mut point = None;
        self.change(|engines| {
            // The engine may have been removed or replaced meanwhile.
            let Some(entry) = engines.get_mut(id).filter(|entry| Arc::ptr_eq(&entry.engine, &before.engine)) else {
                return;
            };
            entry.health = state::next(&entry.health, &seen.event, now, &thresholds);
            entry.checked = Some(now);
            entry.identified = seen.identified;
            if let Some(version) = seen.version {
                entry.version = Some(version);
            }
            if let Some(models) = seen.models {
                entry.models_read = Some(now);
                entry.list(models, &self.shared.clock);
            } else if !matches!(seen.event, Event::Good { .. }) {
                entry.models_read = None;
            }
            let (latency_ms, reason) = outcome(&seen.event, &entry.health);
            entry.remember(latency_ms);
            point = Some(HealthPoint { engine: id.clone(), at: now, latency_ms, reason });
        });
        if point.is_some() {
            self.publish_engine(id);
        }
        point
    }

    /// Tells the state machine of a failure or success seen by the relay, so that a dead engine is known before the next
    /// check. A success on an engine without trouble costs one load of a pointer.
    pub fn observed(&self, id: &EngineId, seen: Result<(), &EngineError>) {
        let event = match seen {
            Ok(()) => {
                let table = self.shared.table.load();
                if table.engines.get(id).is_none_or(|entry| entry.health.is_untroubled()) {
                    return;
                }
                Event::Answered
            }
            Err(EngineError::Network(reason)) => Event::Unreachable { reason: escape(reason).into_owned() },
            // One slow or refused request says little about the engine; the next check says more.
            Err(EngineError::Timeout(_) | EngineError::Busy { .. } | EngineError::Locked(_) | EngineError::Api(_)) => {
                return;
            }
        };
        self.advance(id, &event);
    }

    /// Moves the state machine of an engine.
    fn advance(&self, id: &EngineId, event: &Event) {
        let now = self.shared.clock.wall();
        let thresholds = **self.shared.thresholds.load();
        let mut changed = false;
        self.change(|engines| {
            if let Some(entry) = engines.get_mut(id) {
                let health = state::next(&entry.health, event, now, &thresholds);
                changed = health.state != entry.health.state;
                entry.health = health;
            }
        });
        if changed {
            self.publish_engine(id);
        }
    }

    /// Has the next check read the engine's models again, however young its list is: something was done to one.
    pub fn reread_models(&self, id: &EngineId) {
        self.change(|engines| {
            if let Some(entry) = engines.get_mut(id) {
                entry.models_read = None;
            }
        });
    }

    /// For tests: what an engine listed, and its state.
    pub fn set_models(&self, id: &EngineId, models: Vec<EngineModel>, state: EngineState) {
        let now = self.shared.clock.wall();
        self.change(|engines| {
            if let Some(entry) = engines.get_mut(id) {
                entry.list(models, &self.shared.clock);
                entry.models_read = Some(now);
                entry.health = Health::starting(state, now);
            }
        });
        self.publish_engine(id);
    }

    /// Models that FLM loaded and nobody used for that long, with their engines (SPEC §3.10).
    #[must_use]
    pub fn idle_models(&self, span: Duration) -> Vec<(Arc<Engine>, Arc<Target>)> {
        let table = self.shared.table.load();
        let of = |entry: &Entry| -> Vec<(Arc<Engine>, Arc<Target>)> {
            let idle = entry.targets.iter().filter(|target| target.residency.is_idle(span));
            idle.map(|target| (entry.engine.clone(), target.clone())).collect()
        };
        table.engines.values().flat_map(of).collect()
    }

    /// Tells of an engine that failed again and again, so that the operator sees why it gets no requests.
    pub fn failing(&self, id: &EngineId, reason: String) {
        let Some(state) = self.state(id) else { return };
        let latency = Duration::from_millis(state.latency_ms().unwrap_or(0).into());
        self.advance(id, &Event::Busy { latency, reason });
    }

    /// How busy the engines are, by id.
    #[must_use]
    pub fn load(&self) -> Vec<EngineLoad> {
        self.shared.table.load().engines.values().map(Entry::load).collect()
    }

    /// Tells consoles how busy the engines are, if that changed since they were last told.
    pub fn publish_load(&self) {
        let load = self.load();
        let mut told = self.shared.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != load {
            told.clone_from(&load);
            self.shared.hub.publish(LiveEvent::Load(load));
        }
    }

    /// Makes and publishes the next table. The list of models goes to consoles only when it changed.
    fn change(&self, edit: impl FnOnce(&mut BTreeMap<EngineId, Entry>)) {
        let _writing = self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.shared.table.load_full();
        let mut engines = last.engines.clone();
        edit(&mut engines);
        let next = Arc::new(Table::of(engines, &self.shared.aliases()));
        self.shared.table.store(next.clone());
        if next.models != last.models {
            self.shared.hub.publish(LiveEvent::Models(next.models.to_vec()));
        }
    }

    fn publish_engine(&self, id: &EngineId) {
        if let Some(entry) = self.shared.table.load().engines.get(id) {
            self.shared.hub.publish(LiveEvent::Engine(Box::new(entry.view())));
        }
    }

    async fn ask(&self, entry: &Entry, pool: &Pool) -> Seen {
        let engine = &entry.engine;
        let deadline = CHECK_DEADLINE + pool.allowance(&engine.upstream);
        let session = Session { pool, upstream: &engine.upstream, api_key: engine.api_key.as_ref(), deadline };
        let begin = self.shared.clock.monotonic();
        let answer = engine.adapter.check(session).await;
        let latency = self.shared.clock.monotonic().saturating_duration_since(begin);
        let mut seen = Seen { event: event_of(answer, latency), identified: false, version: None, models: None };
        if !matches!(seen.event, Event::Good { .. }) {
            return seen;
        }
        seen.identified = true;
        if !entry.identified {
            match engine.adapter.identify(session).await {
                Ok(Some(identity)) => seen.version = identity.version,
                Ok(None) => {
                    seen.event = Event::WrongShape {
                        reason: format!("something else than {} answers there", engine.adapter.info().title),
                    };
                    seen.identified = false;
                    return seen;
                }
                // The check was good: ask again next time.
                Err(_trouble) => seen.identified = false,
            }
        }
        let now = self.shared.clock.wall();
        if is_due(entry.models_read, now) {
            match engine.adapter.models(session).await {
                Ok(models) => seen.models = Some(models),
                Err(fault) => seen.event = event_of(Err(fault), latency),
            }
        }
        seen
    }
}

/// What a check saw.
struct Seen {
    event: Event,
    identified: bool,
    version: Option<String>,
    models: Option<Vec<EngineModel>>,
}

fn is_due(read: Option<UnixMillis>, now: UnixMillis) -> bool {
    read.is_none_or(|read| now.since(read) >= MODELS_MAX_AGE)
}

fn event_of(answer: Result<(), EngineError>, latency: Duration) -> Event {
    match answer {
        Ok(()) => Event::Good { latency },
        Err(EngineError::Network(reason)) => Event::Unreachable { reason: escape(&reason).into_owned() },
        Err(fault @ EngineError::Timeout(_)) => Event::Unreachable { reason: fault.to_string() },
        Err(fault @ EngineError::Busy { .. }) => Event::Busy { latency, reason: fault.to_string() },
        Err(fault @ (EngineError::Locked(_) | EngineError::Api(_))) => {
            Event::WrongShape { reason: escape(&fault.to_string()).into_owned() }
        }
    }
}

/// Latency and reason of a check as they are stored.
fn outcome(event: &Event, health: &Health) -> (Option<u32>, Option<String>) {
    match (event, &health.state) {
        (Event::Unreachable { reason } | Event::WrongShape { reason }, _) => (None, Some(reason.clone())),
        (_, EngineState::RunningDegraded { latency_ms, reason }) => (Some(*latency_ms), Some(reason.clone())),
        (_, state) => (state.latency_ms(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::adapter::ModelSlots;
    use crate::types::engine::EngineOrigin;

    fn registry(engines: &[(&str, &[&str], EngineState)]) -> Registry {
        let registry = Registry::new(Hub::new(), Clock::stepped(UnixMillis(0)));
        for (id, models, state) in engines {
            let id = EngineId::parse(id).expect("an id");
            registry.put(record(id.as_str()), &|_| None).expect("registers");
            let models = models.iter().map(|name| model(name)).collect();
            registry.set_models(&id, models, state.clone());
        }
        registry
    }

    fn record(id: &str) -> EngineRecord {
        EngineRecord {
            id: EngineId::parse(id).expect("an id"),
            kind: EngineKind::named("openai"),
            url: "http://127.0.0.1:9".into(),
            api_key_env: None,
            direct: false,
            slots: None,
            origin: EngineOrigin::Manual,
            created: UnixMillis(0),
        }
    }

    fn model(name: &str) -> EngineModel {
        EngineModel {
            name: name.into(),
            capabilities: std::collections::BTreeSet::new(),
            context_length: None,
            size_bytes: None,
            parameters: None,
            quantization: None,
            loaded: None,
            slots: ModelSlots::Untold,
        }
    }

    const HEALTHY: EngineState = EngineState::RunningHealthy { latency_ms: 1 };

    fn dead() -> EngineState {
        EngineState::ErrorNetwork { reason: "refused".into(), failures: 3 }
    }

    fn found(registry: &Registry, name: &str) -> Vec<String> {
        match registry.resolve(name, &|_named| true) {
            Resolution::Candidates(list) => {
                list.iter().map(|candidate| candidate.target.canonical.to_string()).collect()
            }
            Resolution::Unavailable { engines } => engines.iter().map(|(id, why)| format!("{id}: {why}")).collect(),
            Resolution::Unknown { near } => near.into_iter().map(|name| format!("near {name}")).collect(),
        }
    }

    #[test]
    fn names_are_resolved_in_the_order_of_the_specification() {
        let registry = registry(&[("a", &["m", "b/x", "l:latest"], HEALTHY), ("b", &["x", "m"], HEALTHY)]);
        for (name, expected) in [
            ("flm://b/m", vec!["flm://b/m"]),
            ("flm://c/m", vec![]),
            ("m", vec!["flm://a/m", "flm://b/m"]),
            ("b/x", vec!["flm://a/b/x"]),
            ("b/m", vec!["flm://b/m"]),
            ("l", vec!["flm://a/l:latest"]),
            ("a/l", vec!["flm://a/l:latest"]),
            ("latset", vec![]),
        ] {
            assert_eq!(found(&registry, name), expected, "{name}");
        }
    }

    #[test]
    fn a_bare_name_goes_to_the_engine_with_the_fewest_requests() {
        let registry = registry(&[
            ("a", &["m"], HEALTHY),
            ("b", &["m"], HEALTHY),
            ("slow", &["m"], EngineState::RunningDegraded { latency_ms: 1, reason: "slow".into() }),
            ("dead", &["m"], dead()),
        ]);
        let engine = registry.engine(&EngineId::parse("a").expect("an id")).expect("registered");
        let running = InFlight::on(engine);
        assert_eq!(found(&registry, "m"), ["flm://b/m", "flm://a/m", "flm://slow/m"]);
        drop(running);
        assert_eq!(found(&registry, "m"), ["flm://a/m", "flm://b/m", "flm://slow/m"]);
    }

    #[test]
    fn a_model_of_a_dead_engine_is_unavailable_and_says_why() {
        let registry = registry(&[("a", &["m"], dead())]);
        assert_eq!(found(&registry, "m"), ["a: refused"]);
    }

    #[test]
    fn a_model_that_the_key_may_not_use_does_not_exist_nor_is_it_suggested() {
        let registry = registry(&[("a", &["secret-model"], HEALTHY)]);
        assert_eq!(found(&registry, "secret-modle"), ["near secret-model"]);
        for name in ["secret-model", "secret-modle"] {
            assert!(matches!(registry.resolve(name, &|_named| false), Resolution::Unknown { near } if near.is_empty()));
        }
    }

    #[test]
    fn names_that_are_not_unique_are_listed_with_their_engine() {
        let registry = registry(&[("a", &["m", "only"], HEALTHY), ("b", &["m"], dead())]);
        let models = registry.models();
        let listed: Vec<(&str, bool)> = models.iter().map(|model| (&*model.listed_as, model.available)).collect();
        assert_eq!(listed, [("a/m", true), ("b/m", false), ("only", true)]);
    }

    #[tokio::test]
    async fn failures_seen_by_the_relay_count_up_to_the_threshold_and_the_change_is_told() {
        let hub = Hub::new();
        let registry = Registry::new(hub.clone(), Clock::stepped(UnixMillis(0)));
        let id = EngineId::parse("a").expect("an id");
        registry.put(record("a"), &|_| None).expect("registers");
        registry.set_models(&id, vec![model("m")], HEALTHY);
        let before = hub.sequence();
        registry.observed(&id, Ok(()));
        assert_eq!(hub.sequence(), before, "a success on a serving engine is no news");
        let failure = EngineError::Network("refused".into());
        for seen in [Err(&failure), Err(&failure), Ok(()), Err(&failure), Err(&failure)] {
            registry.observed(&id, seen);
            assert_eq!(registry.state(&id), Some(HEALTHY));
        }
        assert_eq!(hub.sequence(), before, "nothing to see yet");
        registry.observed(&id, Err(&failure));
        assert!(matches!(registry.state(&id), Some(EngineState::ErrorNetwork { .. })));
        // The engine, and its models that are not available any more.
        assert_eq!(hub.sequence(), before + 2);
        assert!(!registry.models()[0].available);
        registry.observed(&id, Ok(()));
        assert!(matches!(registry.state(&id), Some(EngineState::RunningDegraded { .. })));
    }

    #[test]
    fn an_unknown_kind_and_a_bad_url_are_refused() {
        let registry = Registry::new(Hub::new(), Clock::stepped(UnixMillis(0)));
        let mut wrong = record("a");
        wrong.kind = EngineKind::named("tgi");
        let error = registry.put(wrong, &|_| None).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "\"tgi\" is no kind of engine; use one of ollama, llamacpp, vllm, lmstudio, openai"
        );
        let mut wrong = record("a");
        wrong.url = "ftp://x".into();
        assert!(matches!(registry.put(wrong, &|_| None), Err(RegisterError::Url(_))));
    }

    #[test]
    fn every_kind_has_one_adapter() {
        for expected in ADAPTERS {
            let info = expected.info();
            assert_eq!(adapter(&info.kind).map(|found| found.info().title), Some(info.title));
        }
    }
}
