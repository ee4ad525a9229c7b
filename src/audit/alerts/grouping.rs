//! [`Grouper`]: turns rows into messages: what a channel tells, what becomes one, and when (SPEC §5.10). Pure: it is told
//! the time.
//!
//! The first event of a kind and severity is told at once. What is equal to it within the rules' span becomes one message at
//! the end of that span. Past the hourly cap everything waits and becomes one message. Memory is bounded by the number of
//! kinds and severities, whatever comes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::types::alert::{AlertRules, ChannelState};
use crate::types::audit::{AuditKind, AuditRow, Severity};
use crate::types::clock::UnixMillis;

/// Rows of a group that a message quotes: the first and the newest.
const QUOTED: usize = 5;
/// The span of the cap.
const HOUR: Duration = Duration::from_secs(3600);

/// Equal events: same kind and severity.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What happened.
    pub kind: AuditKind,
    /// How much it matters.
    pub severity: Severity,
    /// How often.
    pub events: u64,
    /// When the first happened.
    pub first_at: UnixMillis,
    /// When the last happened.
    pub last_at: UnixMillis,
    /// The first in the audit log; 0 when it is not there.
    pub first: u64,
    /// The last in the audit log; 0 when it is not there.
    pub last: u64,
    /// Some of them, oldest first.
    pub quoted: Vec<AuditRow>,
}

impl Group {
    /// A group of one row.
    pub fn of(row: AuditRow) -> Self {
        let event = &row.event;
        Self {
            kind: event.kind,
            severity: event.severity,
            events: 1,
            first_at: event.at,
            last_at: event.at,
            first: row.sequence,
            last: row.sequence,
            quoted: vec![row],
        }
    }

    fn add(&mut self, row: AuditRow) {
        self.events += 1;
        self.last_at = self.last_at.max(row.event.at);
        self.last = self.last.max(row.sequence);
        if self.quoted.len() == QUOTED {
            // The first shows how it began, the rest how it is now.
            self.quoted.remove(1);
        }
        self.quoted.push(row);
    }
}

/// A kind and a severity have a place each, worst first.
type Place = (std::cmp::Reverse<Severity>, AuditKind);

#[derive(Debug)]
struct Waiting {
    group: Group,
    due: UnixMillis,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// These groups are one message.
    Tell {
        /// Worst first.
        groups: Vec<Group>,
        /// Rows that were lost on the way here and may have been worth telling.
        missed: u64,
    },
    /// Nothing before this time.
    At(UnixMillis),
    /// Nothing until rows come.
    Idle,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Grouper {
    waiting: BTreeMap<Place, Waiting>,
    /// Until when equal events wait.
    quiet: BTreeMap<Place, UnixMillis>,
    /// When messages of the last hour were told, oldest first; never longer than the cap.
    told: VecDeque<UnixMillis>,
    missed: u64,
    /// The newest row that was looked at.
    seen: u64,
    /// The first row of the message that is being delivered.
    delivering: Option<u64>,
}

impl Grouper {
    /// Nothing waits; rows up to `through` are dealt with.
    pub(super) fn new(through: u64) -> Self {
        Self {
            waiting: BTreeMap::new(),
            quiet: BTreeMap::new(),
            told: VecDeque::new(),
            missed: 0,
            seen: through,
            delivering: None,
        }
    }

    /// Takes a row. One that was looked at already, or that the rules leave out, changes nothing.
    pub(super) fn add(&mut self, row: &AuditRow, rules: &AlertRules, now: UnixMillis) {
        // A row without a number could not be recorded, so there is no order to keep.
        if row.sequence != 0 {
            if row.sequence <= self.seen {
                return;
            }
            self.seen = row.sequence;
        }
        let event = &row.event;
        let wanted = rules.state == ChannelState::On
            && event.severity >= rules.severity
            && (rules.kinds.is_empty() || rules.kinds.contains(&event.kind));
        if !wanted {
            return;
        }
        let place = (std::cmp::Reverse(event.severity), event.kind);
        if let Some(waiting) = self.waiting.get_mut(&place) {
            waiting.group.add(row.clone());
        } else {
            let due = self.quiet.get(&place).copied().unwrap_or(now).max(now);
            self.waiting.insert(place, Waiting { group: Group::of(row.clone()), due });
        }
    }

    /// Rows up to `through` are not to be looked at any more; what waits already stays.
    pub(super) fn skip_to(&mut self, through: u64) {
        self.seen = self.seen.max(through);
    }

    /// The rules have changed: what waits for the end of a span waits no longer.
    pub(super) fn release(&mut self, now: UnixMillis) {
        self.quiet.clear();
        for waiting in self.waiting.values_mut() {
            waiting.due = waiting.due.min(now);
        }
    }

    /// Notes rows that were lost on the way here.
    pub(super) fn miss(&mut self, rows: u64) {
        self.missed = self.missed.saturating_add(rows);
    }

    /// What is to be done now. Groups that are told have left; [`Grouper::settled`] must follow.
    pub(super) fn next(&mut self, rules: &AlertRules, now: UnixMillis) -> Next {
        let Some(first_due) = self.waiting.values().map(|waiting| waiting.due).min() else { return Next::Idle };
        while self.told.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.told.pop_front();
        }
        let cap = usize::try_from(rules.per_hour.max(1)).unwrap_or(usize::MAX);
        if self.told.len() >= cap {
            // A smaller cap counts from now on, so the one that makes room is not always the oldest.
            let makes_room = self.told.get(self.told.len() - cap).copied().unwrap_or(now);
            return Next::At(makes_room.plus(HOUR).max(first_due));
        }
        if first_due > now {
            return Next::At(first_due);
        }
        let due: Vec<Place> =
            self.waiting.iter().filter(|(_, waiting)| waiting.due <= now).map(|(place, _)| *place).collect();
        let mut groups = Vec::with_capacity(due.len());
        for place in due {
            if let Some(waiting) = self.waiting.remove(&place) {
                self.quiet.insert(place, now.plus(rules.group));
                groups.push(waiting.group);
            }
        }
        self.told.push_back(now);
        self.delivering = groups.iter().map(|group| group.first).min();
        Next::Tell { groups, missed: std::mem::take(&mut self.missed) }
    }

    /// The last message arrived or was given up.
    pub(super) fn settled(&mut self) {
        self.delivering = None;
    }

    /// Rows up to this one are dealt with.
    pub(super) fn through(&self) -> u64 {
        let open = self.waiting.values().map(|waiting| waiting.group.first).chain(self.delivering);
        // Rows without a number are not in the log that a restart reads.
        open.filter(|first| *first != 0).min().map_or(self.seen, |first| (first - 1).min(self.seen))
    }

    /// Events that wait.
    pub(super) fn events(&self) -> u64 {
        self.waiting.values().map(|waiting| waiting.group.events).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::audit::AuditEvent;

    const SECOND: i64 = 1_000;

    fn row(sequence: u64, kind: AuditKind, severity: Severity) -> AuditRow {
        let at = UnixMillis(i64::try_from(sequence).expect("small"));
        AuditRow { sequence, event: AuditEvent::new(at, kind, severity, format!("row {sequence}")) }
    }

    fn at(seconds: i64) -> UnixMillis {
        UnixMillis(seconds * SECOND)
    }

    fn told(next: Next) -> Vec<(AuditKind, u64)> {
        match next {
            Next::Tell { groups, .. } => groups.into_iter().map(|group| (group.kind, group.events)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_event_is_told_at_once_and_equal_ones_become_one_at_the_end_of_the_span() {
        let (rules, mut grouper) = (AlertRules::default(), Grouper::new(0));
        assert_eq!(grouper.next(&rules, at(0)), Next::Idle);
        grouper.add(&row(1, AuditKind::BlockAdded, Severity::High), &rules, at(0));
        assert_eq!(told(grouper.next(&rules, at(0))), [(AuditKind::BlockAdded, 1)]);
        for sequence in 2..=500 {
            grouper.add(&row(sequence, AuditKind::BlockAdded, Severity::High), &rules, at(1));
        }
        assert_eq!(grouper.next(&rules, at(1)), Next::At(at(60)));
        // Something else does not wait for it.
        grouper.add(&row(501, AuditKind::KeyChanged, Severity::Critical), &rules, at(2));
        assert_eq!(told(grouper.next(&rules, at(2))), [(AuditKind::KeyChanged, 1)]);
        let Next::Tell { groups, .. } = grouper.next(&rules, at(60)) else { panic!("due") };
        assert_eq!((groups[0].events, groups[0].first, groups[0].last), (499, 2, 500));
        let quoted: Vec<_> = groups[0].quoted.iter().map(|row| row.sequence).collect();
        assert_eq!(quoted, [2, 497, 498, 499, 500], "how it began and how it is now");
        assert_eq!(grouper.next(&rules, at(60)), Next::Idle);
        // After the span of silence the next one is told at once again.
        grouper.add(&row(600, AuditKind::BlockAdded, Severity::High), &rules, at(200));
        assert_eq!(told(grouper.next(&rules, at(200))), [(AuditKind::BlockAdded, 1)]);
    }

    #[test]
    fn severity_kinds_and_the_switch_leave_rows_out() {
        let rules = AlertRules { kinds: vec![AuditKind::KeyChanged], ..AlertRules::default() };
        let mut grouper = Grouper::new(0);
        grouper.add(&row(1, AuditKind::KeyChanged, Severity::Medium), &rules, at(0));
        grouper.add(&row(2, AuditKind::BlockAdded, Severity::Critical), &rules, at(0));
        let off = AlertRules { state: ChannelState::Off, ..rules.clone() };
        grouper.add(&row(3, AuditKind::KeyChanged, Severity::Critical), &off, at(0));
        assert_eq!((grouper.next(&rules, at(0)), grouper.through()), (Next::Idle, 3));
        grouper.add(&row(3, AuditKind::KeyChanged, Severity::Critical), &rules, at(0));
        assert_eq!(grouper.next(&rules, at(0)), Next::Idle, "it was looked at before");
        grouper.add(&row(4, AuditKind::KeyChanged, Severity::Critical), &rules, at(0));
        assert_eq!(told(grouper.next(&rules, at(0))), [(AuditKind::KeyChanged, 1)]);
    }

    #[test]
    fn past_the_cap_everything_waits_and_becomes_one_message() {
        let rules = AlertRules { per_hour: 2, group: Duration::ZERO, ..AlertRules::default() };
        let mut grouper = Grouper::new(0);
        for (sequence, second) in [(1, 0), (2, 10)] {
            grouper.add(&row(sequence, AuditKind::RuleHit, Severity::High), &rules, at(second));
            assert_eq!(told(grouper.next(&rules, at(second))).len(), 1);
        }
        grouper.add(&row(3, AuditKind::RuleHit, Severity::High), &rules, at(20));
        grouper.add(&row(4, AuditKind::KeyChanged, Severity::High), &rules, at(30));
        grouper.add(&row(5, AuditKind::TorUnreachable, Severity::Critical), &rules, at(40));
        assert_eq!(grouper.next(&rules, at(40)), Next::At(at(3600)));
        let worst_first = [(AuditKind::TorUnreachable, 1), (AuditKind::KeyChanged, 1), (AuditKind::RuleHit, 1)];
        assert_eq!(told(grouper.next(&rules, at(3600))), worst_first);
    }

    #[test]
    fn a_restart_goes_on_from_the_oldest_row_that_is_not_told() {
        let (rules, mut grouper) = (AlertRules::default(), Grouper::new(7));
        assert_eq!(grouper.through(), 7);
        grouper.add(&row(10, AuditKind::RuleHit, Severity::High), &rules, at(0));
        grouper.add(&row(11, AuditKind::RuleHit, Severity::Low), &rules, at(0));
        assert_eq!(grouper.through(), 9);
        told(grouper.next(&rules, at(0)));
        grouper.add(&row(12, AuditKind::KeyChanged, Severity::High), &rules, at(0));
        assert_eq!(grouper.through(), 9, "row 10 is on its way");
        grouper.settled();
        assert_eq!((grouper.through(), grouper.events()), (11, 1));
        grouper.add(&row(0, AuditKind::Maintenance, Severity::Critical), &rules, at(0));
        assert_eq!(grouper.through(), 11, "a row that is not in the log holds nothing up");
    }

    #[test]
    fn a_flood_takes_no_more_memory_than_there_are_kinds() {
        let (rules, mut grouper) = (AlertRules { severity: Severity::Low, ..AlertRules::default() }, Grouper::new(0));
        for sequence in 1..=100_000 {
            let severity = if sequence % 2 == 0 { Severity::High } else { Severity::Low };
            grouper.add(&row(sequence, AuditKind::AuthenticationFailed, severity), &rules, at(0));
        }
        grouper.miss(3);
        assert_eq!((grouper.waiting.len(), grouper.events()), (2, 100_000));
        assert!(grouper.waiting.values().all(|waiting| waiting.group.quoted.len() == QUOTED));
        let Next::Tell { missed, .. } = grouper.next(&rules, at(0)) else { panic!("due") };
        assert_eq!(missed, 3);
    }
}
