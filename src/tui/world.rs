//! What the console knows of the home: the live snapshot with its events applied, and the pages of the stores.
//!
//! Owned by `state`, written by `update` only. Must never hold anything about the view.

use std::collections::{BTreeMap, VecDeque};

use crate::types::address::{BlockEntry, ListedNetwork};
use crate::types::alert::{ChannelView, Inbox, InboxAlert};
use crate::types::audit::AuditRow;
use crate::types::calls::addresses::NetworkList;
use crate::types::calls::captures::CapturePage;
use crate::types::calls::engines::EngineKindInfo;
use crate::types::calls::replay::SecurityCounts;
use crate::types::calls::settings::SettingView;
use crate::types::clock::UnixMillis;
use crate::types::comparison::ComparisonEntry;
use crate::types::engine::{EngineLoad, EngineView, HealthPoint, ModelView};
use crate::types::failure::{Failure, Outcome};
use crate::types::gpu::GpuView;
use crate::types::ids::EngineId;
use crate::types::key::KeyView;
use crate::types::listener::{ListenerPhase, ListenerStatus, ProxyStatus};
use crate::types::live::{LiveEvent, LiveLine, LiveSnapshot, Noun, Traffic};
use crate::types::profile::ProfileView;
use crate::types::prompt::PromptView;
use crate::types::request::RequestRow;
use crate::types::usage::{UsageBy, UsageReport};

/// Rows of requests and security events that are kept, as in a snapshot (`types::live`).
pub const KEPT_ROWS: usize = 500;

/// Checks of an engine that are kept: a week, one every ten seconds.
const KEPT_CHECKS: usize = 60_480;

/// How the console stands to the owner of the home.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// Not reached yet.
    Connecting,
    /// Live.
    Live,
    /// Lost or not to be reached; tried again by itself.
    Lost {
        /// Why.
        failure: Failure,
        /// How often it was tried.
        attempt: u32,
        /// When it is tried next.
        retry_at: UnixMillis,
    },
    /// The owner said that it ends.
    Ending,
}

/// A page of a store: what was last read and what went wrong since.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// What was last read.
    pub value: Option<T>,
    /// Why the last reading failed.
    pub failure: Option<Failure>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { value: None, failure: None }
    }
}

impl<T> Page<T> {
    /// Takes a reading; a failed one keeps what was read before.
    pub fn take(&mut self, outcome: Outcome<T>) {
        match outcome {
            Ok(value) => *self = Self { value: Some(value), failure: None },
            Err(failure) => self.failure = Some(failure),
        }
    }
}

/// Everything known.
#[derive(Debug)]
pub struct World {
    /// How the console stands to the owner.
    pub link: Link,
    /// Number of the last event applied.
    pub sequence: u64,
    /// Events that this console missed because it was slow.
    pub missed: u64,
    /// Owner and listeners.
    pub status: Option<ProxyStatus>,
    /// Engines by id.
    pub engines: Vec<EngineView>,
    /// How busy they are.
    pub load: Vec<EngineLoad>,
    /// Graphics processors of the machine.
    pub gpus: Vec<GpuView>,
    /// Models of all engines.
    pub models: Vec<ModelView>,
    /// Counters.
    pub traffic: Traffic,
    /// Newest first.
    pub requests: VecDeque<RequestRow>,
    /// Newest first.
    pub audit: VecDeque<AuditRow>,
    /// The block list.
    pub blocks: Page<Vec<BlockEntry>>,
    /// Blocks in force, which may be more than were read.
    pub blocks_total: u64,
    /// The allow list.
    pub allowed: Page<Vec<ListedNetwork>>,
    /// The trusted list.
    pub trusted: Page<Vec<ListedNetwork>>,
    /// API keys.
    pub keys: Page<Vec<KeyView>>,
    /// Prompts.
    pub prompts: Page<Vec<PromptView>>,
    /// Model profiles.
    pub profiles: Page<Vec<ProfileView>>,
    /// Saved comparisons, once somebody asked for them.
    pub comparisons: Page<Vec<ComparisonEntry>>,
    /// Security events of the last day, counted.
    pub security_counts: Page<SecurityCounts>,
    /// Sums of what was used, of the span that the Proxy tab shows.
    pub usage: BTreeMap<UsageBy, Page<UsageReport>>,
    /// Routes that take a prompt.
    pub prompt_routes: Page<Vec<String>>,
    /// Engine kinds for forms.
    pub kinds: Page<Vec<EngineKindInfo>>,
    /// Settings.
    pub settings: Page<Vec<SettingView>>,
    /// Health histories that were asked for.
    pub health: BTreeMap<EngineId, Page<Vec<HealthPoint>>>,
    /// Alerts that came into the inbox.
    pub inbox: Page<Inbox>,
    /// Who else is alerted.
    pub channels: Page<Vec<ChannelView>>,
    /// Captured exchanges, without their bodies.
    pub captures: Page<CapturePage>,
}

/// What an applied line touched, so that only what is on screen is drawn again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Everything.
    All,
    /// Engines.
    Engines,
    /// Models.
    Models,
    /// Owner and listeners; the header shows them.
    Status,
    /// Requests.
    Requests,
    /// Counters or unread alerts; the header shows them.
    Traffic,
    /// Security events.
    Audit,
    /// A store: read it again.
    Store(Noun),
    /// Nothing that is not known already.
    Nothing,
}

impl Default for World {
    fn default() -> Self {
        Self {
            link: Link::Connecting,
            sequence: 0,
            missed: 0,
            status: None,
            engines: Vec::new(),
            load: Vec::new(),
            gpus: Vec::new(),
            models: Vec::new(),
            traffic: Traffic::default(),
            requests: VecDeque::new(),
            audit: VecDeque::new(),
            blocks: Page::default(),
            blocks_total: 0,
            allowed: Page::default(),
            trusted: Page::default(),
            keys: Page::default(),
            prompts: Page::default(),
            profiles: Page::default(),
            comparisons: Page::default(),
            security_counts: Page::default(),
            usage: BTreeMap::new(),
            prompt_routes: Page::default(),
            kinds: Page::default(),
            settings: Page::default(),
            health: BTreeMap::new(),
            inbox: Page::default(),
            channels: Page::default(),
            captures: Page::default(),
        }
    }
}

impl World {
    /// Applies a line of the live lane.
    pub fn apply(&mut self, line: LiveLine) -> Touched {
        match line {
            LiveLine::Snapshot { snapshot, dropped } => {
                self.missed = self.missed.saturating_add(dropped);
                self.replace(*snapshot);
                Touched::All
            }
            LiveLine::Event(numbered) if numbered.sequence <= self.sequence => Touched::Nothing,
            LiveLine::Event(numbered) => {
                self.sequence = numbered.sequence;
                let event = std::sync::Arc::unwrap_or_clone(numbered.event);
                self.apply_event(event)
            }
        }
    }

    fn replace(&mut self, snapshot: LiveSnapshot) {
        self.link = Link::Live;
        self.sequence = snapshot.sequence;
        self.status = Some(snapshot.status);
        self.engines = snapshot.engines;
        self.engines.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        self.models = snapshot.models;
        self.load = snapshot.load;
        self.gpus = snapshot.gpus;
        self.traffic = snapshot.traffic;
        self.requests = snapshot.requests.into();
        self.audit = snapshot.audit.into();
    }

    /// A history that was read goes on with the checks that come after it.
    fn add_check(&mut self, view: &EngineView) {
        let history = self.health.get_mut(&view.record.id).and_then(|page| page.value.as_mut());
        let (Some(history), Some(at)) = (history, view.checked) else { return };
        if history.last().is_none_or(|last| last.at < at) {
            // One failure does not change the state yet; the newest of the short history tells, and 0 marks a failure.
            let latency_ms = view.latency_history.last().copied().filter(|ms| *ms > 0);
            let engine = view.record.id.clone();
            history.push(HealthPoint { engine, at, latency_ms, reason: None });
            let surplus = history.len().saturating_sub(KEPT_CHECKS);
            history.drain(..surplus);
        }
    }

    /// How busy the engines are, and who waits for them.
    fn take_load(&mut self, load: Vec<EngineLoad>) {
        for told in &load {
            if let Some(engine) = self.engines.iter_mut().find(|engine| engine.record.id == told.engine) {
                (engine.in_flight, engine.queued, engine.slots) = (told.in_flight, told.queued, told.slots);
            }
        }
        self.load = load;
    }

    fn apply_event(&mut self, event: LiveEvent) -> Touched {
        match event {
            LiveEvent::Engine(view) => {
                self.add_check(&view);
                match self.engines.binary_search_by(|known| known.record.id.cmp(&view.record.id)) {
                    Ok(index) => self.engines[index] = *view,
                    Err(index) => self.engines.insert(index, *view),
                }
                Touched::Engines
            }
            LiveEvent::EngineRemoved(id) => {
                self.engines.retain(|known| known.record.id != id);
                self.health.remove(&id);
                Touched::Engines
            }
            LiveEvent::Load(load) => {
                self.take_load(load);
                Touched::Engines
            }
            LiveEvent::Gpus(gpus) => {
                self.gpus = gpus;
                Touched::Engines
            }
            LiveEvent::Models(models) => {
                self.models = models;
                Touched::Models
            }
            LiveEvent::Status(status) => {
                self.status = Some(*status);
                Touched::Status
            }
            LiveEvent::Request(row) => {
                if let Some(known) = self.requests.iter_mut().find(|known| known.id == row.id) {
                    *known = *row;
                } else {
                    // Long requests are told late; the list stays in the order of their heads.
                    let place = self.requests.iter().position(|known| known.at <= row.at);
                    self.requests.insert(place.unwrap_or(self.requests.len()), *row);
                    self.requests.truncate(KEPT_ROWS);
                }
                Touched::Requests
            }
            LiveEvent::Traffic(traffic) => {
                self.traffic = *traffic;
                Touched::Traffic
            }
            LiveEvent::Audit(row) => {
                if self.audit.front().is_none_or(|newest| newest.sequence < row.sequence) {
                    self.audit.push_front(*row);
                    self.audit.truncate(KEPT_ROWS);
                }
                Touched::Audit
            }
            LiveEvent::Alert(alert) => {
                self.take_alert(*alert);
                Touched::Traffic
            }
            LiveEvent::Changed(noun) => Touched::Store(noun),
            LiveEvent::Ending => {
                self.link = Link::Ending;
                Touched::All
            }
        }
    }

    /// An alert came; reading the inbox again may have brought it already.
    fn take_alert(&mut self, alert: InboxAlert) {
        let inbox = self.inbox.value.get_or_insert_default();
        if alert.number != 0 && inbox.alerts.iter().any(|known| known.number == alert.number) {
            return;
        }
        inbox.unread = inbox.unread.saturating_add(1);
        inbox.alerts.insert(0, alert);
        inbox.alerts.truncate(KEPT_ROWS);
    }

    /// Until when bodies of any key are captured, if they are.
    #[must_use]
    pub fn captures_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        self.keys.value.iter().flatten().filter_map(|key| key.captures_at(now)).max()
    }

    /// Alerts that nobody has read.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.inbox.value.as_ref().map_or(0, |inbox| inbox.unread)
    }

    /// One of the two lists of networks.
    #[must_use]
    pub fn networks(&self, list: NetworkList) -> &Page<Vec<ListedNetwork>> {
        match list {
            NetworkList::Allow => &self.allowed,
            NetworkList::Trusted => &self.trusted,
        }
    }

    /// The listener that matters most: a running one, else the first.
    #[must_use]
    pub fn main_listener(&self) -> Option<&ListenerStatus> {
        let listeners = &self.status.as_ref()?.listeners;
        listeners.iter().find(|listener| listener.phase == ListenerPhase::Running).or_else(|| listeners.first())
    }

    /// The base URL that a client would use now.
    #[must_use]
    pub fn base_url(&self) -> Option<&str> {
        let listener = self.main_listener().filter(|listener| listener.phase == ListenerPhase::Running)?;
        listener.addresses.first().map(String::as_str)
    }
}
