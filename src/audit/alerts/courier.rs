//! [`Desk`]: what waits for one channel, and the task that delivers it, one message at a time. While a message is tried
//! again, what comes meanwhile becomes sums, so that a dead receiver costs no memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::grouping::{Grouper, Next};
use super::message::summary;
use super::{Message, Tools, deliver, retry};
use crate::types::alert::{AlertChannel, AlertRules, DeliveryView};
use crate::types::audit::AuditRow;
use crate::types::clock::{Clock, UnixMillis};
use crate::types::live::{LiveEvent, Noun};
use crate::types::text::escape;

/// What waits for a channel. Shared by the dispatcher, which adds, and the channel's task.
#[derive(Debug)]
pub(super) struct Desk {
    /// Held for a look or a note, never across an await.
    state: Mutex<State>,
    /// Rung when rows came.
    wake: Notify,
    clock: Clock,
    /// Spans are measured from here, so that a clock that is set does not change them.
    origin: Instant,
}

#[derive(Debug)]
struct State {
    grouper: Grouper,
    rules: AlertRules,
    /// On its way, and how often it was tried: outlives the task that delivers it.
    current: Option<(Arc<Message>, u32)>,
    /// The mark that the store has.
    stored: u64,
}

/// What the task does next.
enum Work {
    Deliver(Arc<Message>, u32),
    Wait(Duration),
    Sleep,
}

impl Desk {
    pub(super) fn new(channel: &AlertChannel, clock: Clock) -> Self {
        let state = State {
            grouper: Grouper::new(channel.through),
            rules: channel.rules.clone(),
            current: None,
            stored: channel.through,
        };
        let origin = clock.monotonic();
        Self { state: Mutex::new(state), wake: Notify::new(), clock, origin }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(0).plus(self.clock.monotonic().saturating_duration_since(self.origin))
    }

    /// Takes rows, and how many were lost before them.
    pub(super) fn add<'a>(&self, rows: impl Iterator<Item = &'a AuditRow>, missed: u64) {
        let now = self.now();
        {
            let mut state = self.state();
            let State { grouper, rules, .. } = &mut *state;
            rows.for_each(|row| grouper.add(row, rules, now));
            grouper.miss(missed);
        }
        self.wake.notify_one();
    }

    /// Takes other rules; only rows after `through` are measured by them.
    pub(super) fn change(&self, rules: AlertRules, through: u64) {
        let (now, mut state) = (self.now(), self.state());
        state.rules = rules;
        state.grouper.skip_to(through);
        state.grouper.release(now);
    }

    /// Events that wait or are on their way.
    pub(super) fn waiting(&self) -> u64 {
        let state = self.state();
        state.grouper.events() + state.current.as_ref().map_or(0, |(message, _)| message.events())
    }

    /// The mark for the store, when it has moved since the last call.
    pub(super) fn moved(&self) -> Option<u64> {
        let mut state = self.state();
        let through = state.grouper.through();
        (through > state.stored).then(|| {
            state.stored = through;
            through
        })
    }

    fn next(&self, channel: &AlertChannel) -> Work {
        let (now, mut state) = (self.now(), self.state());
        if let Some((message, tried)) = &state.current {
            return Work::Deliver(message.clone(), *tried);
        }
        let State { grouper, rules, current, .. } = &mut *state;
        match grouper.next(rules, now) {
            Next::Tell { groups, missed } => {
                let message = Arc::new(Message::new(&channel.id, groups, missed, self.clock.wall()));
                *current = Some((message.clone(), 0));
                Work::Deliver(message, 0)
            }
            Next::At(due) => Work::Wait(due.since(now)),
            Next::Idle => Work::Sleep,
        }
    }

    fn tried(&self, count: u32) {
        if let Some((_, tried)) = &mut self.state().current {
            *tried = count;
        }
    }

    fn settled(&self) -> u64 {
        let mut state = self.state();
        state.current = None;
        state.grouper.settled();
        state.stored = state.grouper.through();
        state.stored
    }
}

/// Delivers what comes to the desk until `ending`; a message that is on its way then stays on the desk.
pub(super) async fn run(desk: Arc<Desk>, channel: AlertChannel, tools: Tools, ending: CancellationToken) {
    loop {
        let serve = async {
            match desk.next(&channel) {
                Work::Deliver(message, tried) => attempt(&desk, &channel, &tools, &message, tried + 1).await,
                Work::Wait(span) => {
                    tokio::select! {
                        () = tokio::time::sleep(span) => {}
                        () = desk.wake.notified() => {}
                    }
                }
                Work::Sleep => desk.wake.notified().await,
            }
        };
        tokio::select! {
            biased;
            () = ending.cancelled() => return,
            () = serve => {}
        }
    }
}

/// One try, and the pause after it.
async fn attempt(desk: &Desk, channel: &AlertChannel, tools: &Tools, message: &Message, number: u32) {
    let fault = match deliver(tools, &channel.target, message).await {
        Ok(()) => None,
        Err(fault) => {
            desk.tried(number);
            if let Some(pause) = retry::pause(channel.target.kind(), number, fault.again, fastrand::f64()) {
                let why = escape(&fault.reason).into_owned();
                tracing::debug!(channel = %channel.id, try_number = number, why, "an alert did not arrive; trying again");
                tokio::time::sleep(pause).await;
                return;
            }
            Some(fault.reason)
        }
    };
    if let Some(reason) = &fault {
        tracing::warn!(channel = %channel.id, tries = number, why = %escape(reason), "an alert was given up");
    }
    let through = desk.settled();
    note(tools, delivery(tools, message, number, fault), Some(through)).await;
}

/// What became of a message.
pub(super) fn delivery(tools: &Tools, message: &Message, attempts: u32, fault: Option<String>) -> DeliveryView {
    let (first, last) = message.rows();
    DeliveryView {
        number: 0,
        at: tools.clock.wall(),
        channel: message.channel.to_string(),
        events: message.events(),
        first,
        last,
        attempts,
        summary: summary(&message.groups),
        fault: fault.map(|fault| escape(&fault).into_owned()),
    }
}

/// Writes a delivery down and tells consoles; answers it with its number.
pub(super) async fn note(tools: &Tools, delivery: DeliveryView, through: Option<u64>) -> DeliveryView {
    let number = match tools.store.add_delivery(delivery.clone(), through).await {
        Ok(number) => number,
        Err(error) => {
            tracing::warn!(error = %escape(&error.to_string()), "what became of an alert could not be written down");
            0
        }
    };
    tools.hub.publish(LiveEvent::Changed(Noun::Alerts));
    DeliveryView { number, ..delivery }
}
