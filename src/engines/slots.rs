//! [`Slots`]: how many requests an engine, or one of its models, runs at once, and the queue before them (SPEC §3.8).
//!
//! Called by the relay for every request. While a slot is free this is one compare-and-swap; the queue's lock is taken
//! only when all slots are busy. Waiters are served by their key's priority; within one priority keys take turns, so
//! that a key with a hundred requests does not hold up one with a single request.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::types::clock::UnixMillis;
use crate::types::engine::Waiting;
use crate::types::ids::KeyId;
use crate::types::key::Priority;

/// Longest advice to a client that was turned away, as `retry-after` allows (SPEC §4.4).
const LONGEST_ADVICE: Duration = Duration::from_secs(120);
/// Time per place before any was measured: an answer of a small model on a slow machine.
const FIRST_GUESS: Duration = Duration::from_secs(2);

/// Slots and the queue before them.
#[derive(Debug)]
pub struct Slots {
    limit: AtomicU32,
    running: AtomicU32,
    /// Length of the queue, readable without its lock. Written under it.
    waiting: AtomicU32,
    queue: Mutex<Queue>,
}

/// A slot; free again when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

/// On whose behalf a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimant {
    /// Keys of one priority take turns.
    pub key: KeyId,
    /// Higher ones go first.
    pub priority: Priority,
    /// When it began to wait, for people.
    pub since: UnixMillis,
}

/// A place in the queue; given up when dropped. Resolves to a slot.
#[derive(Debug)]
pub struct Place {
    slots: Arc<Slots>,
    rank: Rank,
    granted: oneshot::Receiver<Slot>,
}

/// The queue is as long as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull {
    /// When a retry may find a place, by how fast the queue moved of late.
    pub retry_after: Duration,
}

/// Order in the queue: priority, then turn, then arrival.
type Rank = (Reverse<Priority>, u64, u64);

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Rank, Waiter>,
    /// Of the keys that wait: the last turn they were given, and how many requests they have here.
    keys: HashMap<KeyId, (u64, u32)>,
    /// The turn that was served last (start-time fair queueing: Goyal, Vin, Cheng 1996, with requests of one size).
    turn: u64,
    arrivals: u64,
    /// When a waiter was last served; `None` while nobody waits.
    served: Option<Instant>,
    /// Time from one waiter served to the next, smoothed over about eight.
    pace: Option<Duration>,
}

#[derive(Debug)]
struct Waiter {
    claimant: Claimant,
    grant: oneshot::Sender<Slot>,
}

impl Queue {
    fn add(&mut self, claimant: Claimant, grant: oneshot::Sender<Slot>) -> Rank {
        self.arrivals += 1;
        // The pace is measured while somebody waits: an idle time before says nothing about it.
        self.served.get_or_insert_with(Instant::now);
        let (last, count) = self.keys.entry(claimant.key).or_insert((self.turn, 0));
        *last = (*last).max(self.turn) + 1;
        *count += 1;
        let rank = (Reverse(claimant.priority), *last, self.arrivals);
        self.waiting.insert(rank, Waiter { claimant, grant });
        rank
    }

    fn take(&mut self, rank: &Rank) -> Option<Waiter> {
        let waiter = self.waiting.remove(rank)?;
        if self.waiting.is_empty() {
            self.served = None;
        }
        if let Some((_, count)) = self.keys.get_mut(&waiter.claimant.key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&waiter.claimant.key);
            }
        }
        Some(waiter)
    }

    fn first(&mut self) -> Option<Waiter> {
        let rank = *self.waiting.first_key_value()?.0;
        self.turn = self.turn.max(rank.1);
        let now = Instant::now();
        if let Some(before) = self.served.replace(now) {
            let took = now - before;
            self.pace = Some(self.pace.map_or(took, |pace| (pace * 7 + took) / 8));
        }
        self.take(&rank)
    }

    /// How long the next to come would wait.
    fn expected_wait(&self) -> Duration {
        let places = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.pace.unwrap_or(FIRST_GUESS).saturating_mul(places).min(LONGEST_ADVICE)
    }
}

impl Slots {
    /// That many slots, all free; at least one.
    #[must_use]
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(limit.max(1)),
            running: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: Mutex::default(),
        })
    }

    /// Changes the number of slots. Fewer than run now: no new one is given until enough have ended.
    pub fn resize(self: &Arc<Self>, limit: u32) {
        let before = self.limit.swap(limit.max(1), Ordering::SeqCst);
        if limit > before {
            self.serve();
        }
    }

    /// How many there are.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are taken.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A slot, if one is free and nobody waits for it.
    #[must_use]
    pub fn try_take(self: &Arc<Self>) -> Option<Slot> {
        (self.waiting.load(Ordering::SeqCst) == 0 && self.count_one()).then(|| Slot(self.clone()))
    }

    /// Joins the queue of at most `length` waiters.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn join(self: &Arc<Self>, claimant: Claimant, length: u32) -> Result<Place, QueueFull> {
        let (grant, granted) = oneshot::channel();
        let rank = {
            let mut queue = self.lock();
            if u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX) >= length {
                return Err(QueueFull { retry_after: queue.expected_wait() });
            }
            let rank = queue.add(claimant, grant);
            self.note_length(&queue);
            rank
        };
        // A slot that became free before the length was seen has not been handed over by whoever freed it.
        self.serve();
        Ok(Place { slots: self.clone(), rank, granted })
    }

    /// Those who wait, in the order in which they are served.
    #[must_use]
    pub fn waiters(&self, at_most: usize) -> Vec<Waiting> {
        if self.waiting() == 0 {
            return Vec::new();
        }
        let waiting = |waiter: &Waiter| {
            let Claimant { key, priority, since } = waiter.claimant;
            Waiting { key, priority, since }
        };
        self.lock().waiting.values().take(at_most).map(waiting).collect()
    }

    /// Counts one running request unless all slots are taken.
    fn count_one(&self) -> bool {
        let limit = self.limit.load(Ordering::SeqCst);
        let next = |running: u32| (running < limit).then_some(running + 1);
        self.running.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next).is_ok()
    }

    /// Hands free slots to those who wait.
    fn serve(self: &Arc<Self>) {
        let mut unwanted = Vec::new();
        let mut queue = self.lock();
        while !queue.waiting.is_empty() && self.count_one() {
            let Some(waiter) = queue.first() else { break };
            self.note_length(&queue);
            // One who left at this very moment gives the slot back: below, when the lock is free.
            unwanted.extend(waiter.grant.send(Slot(self.clone())).err());
        }
        drop(queue);
        drop(unwanted);
    }

    fn note_length(&self, queue: &Queue) {
        self.waiting.store(u32::try_from(queue.waiting.len()).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.serve();
        }
    }
}

impl Place {
    /// How long one who came now would wait, by how fast the queue moved of late.
    #[must_use]
    pub fn expected_wait(&self) -> Duration {
        self.slots.lock().expected_wait()
    }

    /// How many are served before it.
    #[must_use]
    pub fn ahead(&self) -> u32 {
        u32::try_from(self.slots.lock().waiting.range(..self.rank).count()).unwrap_or(u32::MAX)
    }
}

impl Future for Place {
    type Output = Slot;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        match Pin::new(&mut self.granted).poll(cx) {
            Poll::Ready(Ok(slot)) => Poll::Ready(slot),
            // The sender lives in the queue until it grants.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A slot that was granted and not picked up goes on when the receiver is dropped, after this.
        let mut queue = self.slots.lock();
        if queue.take(&self.rank).is_some() {
            self.slots.note_length(&queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(letter: char) -> KeyId {
        KeyId::parse(&letter.to_string().repeat(8)).expect("an id")
    }

    fn of(letter: char, priority: Priority) -> Claimant {
        Claimant { key: key(letter), priority, since: UnixMillis(0) }
    }

    /// The slot of a place, if it was granted by now.
    fn granted(place: &mut Place) -> Option<Slot> {
        let waker = std::task::Waker::noop();
        match Pin::new(place).poll(&mut Context::from_waker(waker)) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    /// Serves everyone in the queue one after the other, and answers in which order.
    fn order(slots: &Arc<Slots>, first: Slot, mut places: Vec<(&'static str, Place)>) -> Vec<&'static str> {
        let mut served = Vec::new();
        let mut held = first;
        while !places.is_empty() {
            drop(held);
            let next = places.iter_mut().enumerate().find_map(|(at, (_, place))| Some((at, granted(place)?)));
            let (at, slot) = next.expect("one was served");
            served.push(places.remove(at).0);
            assert_eq!(slots.running(), 1);
            held = slot;
        }
        served
    }

    #[tokio::test]
    async fn a_free_slot_is_taken_at_once_and_given_back() {
        let slots = Slots::new(2);
        let (one, two) = (slots.try_take(), slots.try_take());
        assert!(one.is_some() && two.is_some());
        assert!(slots.try_take().is_none());
        drop(one);
        assert_eq!(slots.running(), 1);
        assert!(slots.try_take().is_some());
    }

    #[tokio::test]
    async fn higher_priorities_go_first_and_keys_of_one_priority_take_turns() {
        let slots = Slots::new(1);
        let running = slots.try_take().expect("free");
        let join = |name, claimant| (name, slots.join(claimant, 64).expect("a place"));
        let places = vec![
            join("low", of('l', Priority::Low)),
            join("a1", of('a', Priority::Normal)),
            join("a2", of('a', Priority::Normal)),
            join("a3", of('a', Priority::Normal)),
            join("b1", of('b', Priority::Normal)),
            join("c1", of('c', Priority::Normal)),
            join("b2", of('b', Priority::Normal)),
            join("high", of('h', Priority::High)),
        ];
        assert_eq!(places.iter().map(|(_, place)| place.ahead()).collect::<Vec<_>>(), [7, 1, 4, 6, 2, 3, 5, 0]);
        assert_eq!(order(&slots, running, places), ["high", "a1", "b1", "c1", "a2", "b2", "a3", "low"]);
        assert_eq!((slots.running(), slots.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn one_who_leaves_gives_up_the_place_or_the_slot_that_was_granted() {
        let slots = Slots::new(1);
        let running = slots.try_take().expect("free");
        let left = slots.join(of('a', Priority::Normal), 64).expect("a place");
        let granted_and_left = slots.join(of('b', Priority::Normal), 64).expect("a place");
        let mut stays = slots.join(of('c', Priority::Normal), 64).expect("a place");
        drop(left);
        assert_eq!((slots.waiting(), stays.ahead()), (2, 1));
        drop(running);
        assert_eq!((slots.running(), slots.waiting()), (1, 1));
        drop(granted_and_left);
        assert!(granted(&mut stays).is_some());
    }

    #[tokio::test]
    async fn nobody_overtakes_the_queue() {
        let slots = Slots::new(1);
        let running = slots.try_take().expect("free");
        let _place = slots.join(of('a', Priority::Normal), 64).expect("a place");
        drop(running);
        assert!(slots.try_take().is_none(), "the slot belongs to the one who waited");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_tells_when_to_come_back_by_how_fast_it_moves() {
        let slots = Slots::new(1);
        let mut running = slots.try_take();
        let refused = slots.join(of('a', Priority::Normal), 0).expect_err("full");
        assert_eq!(refused.retry_after, FIRST_GUESS);
        let mut places: Vec<_> = (0..5).map(|_| slots.join(of('a', Priority::Normal), 5).expect("a place")).collect();
        for place in &mut places[..4] {
            tokio::time::advance(Duration::from_secs(7)).await;
            drop(running.take());
            running = granted(place);
            assert!(running.is_some());
        }
        let refused = slots.join(of('a', Priority::Normal), 1).expect_err("full");
        assert_eq!(refused.retry_after, Duration::from_secs(14), "one waits, and every place takes 7 s");
    }

    #[tokio::test]
    async fn more_slots_serve_those_who_wait_and_fewer_let_the_running_end() {
        let slots = Slots::new(1);
        let running = slots.try_take().expect("free");
        let mut place = slots.join(of('a', Priority::Normal), 64).expect("a place");
        slots.resize(2);
        let second = granted(&mut place).expect("there are two now");
        slots.resize(1);
        drop(running);
        assert!(slots.try_take().is_none());
        drop(second);
        assert!(slots.try_take().is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        Join(u8, u8),
        EndRunning(usize),
        Leave(usize),
        Pick,
        Resize(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Take),
            (0_u8..4, 0_u8..3).prop_map(|(key, priority)| Step::Join(key, priority)),
            any::<usize>().prop_map(Step::EndRunning),
            any::<usize>().prop_map(Step::Leave),
            Just(Step::Pick),
            (1_u32..5).prop_map(Step::Resize),
        ]
    }

    proptest! {
        #[test]
        fn no_slot_is_lost_and_none_idles_while_somebody_waits(steps in prop::collection::vec(step(), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
            let _inside = runtime.enter();
            let slots = Slots::new(2);
            let (mut running, mut places): (Vec<Slot>, Vec<Place>) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Take => running.extend(slots.try_take()),
                    Step::Join(letter, priority) => {
                        let priority = [Priority::Low, Priority::Normal, Priority::High][usize::from(priority)];
                        places.extend(slots.join(of(char::from(b'a' + letter), priority), 20));
                    }
                    Step::EndRunning(at) if !running.is_empty() => drop(running.remove(at % running.len())),
                    Step::Leave(at) if !places.is_empty() => drop(places.remove(at % places.len())),
                    Step::Pick => places.retain_mut(|place| granted(place).is_none_or(|slot| { running.push(slot); false })),
                    Step::Resize(limit) => slots.resize(limit),
                    Step::EndRunning(_) | Step::Leave(_) => {}
                }
                prop_assert!(slots.waiting() == 0 || slots.running() >= slots.limit(), "a slot idles");
                prop_assert!(slots.running() as usize >= running.len());
            }
            places.clear();
            running.clear();
            prop_assert_eq!((slots.running(), slots.waiting()), (0, 0));
            let queue = slots.lock();
            prop_assert!(queue.waiting.is_empty() && queue.keys.is_empty());
        }
    }
}
