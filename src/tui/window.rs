//! The part of a long list that is kept: some pages around the selection, read from the store by key, and what happens live
//! at its head.
//!
//! Rows are told apart by their keys and never by their places, so that nothing that arrives or goes moves the selection. At
//! most [`KEPT`] rows are held however long the list is.

use std::collections::VecDeque;

use crate::tui::effect::Ticket;
use crate::types::failure::{Failure, Outcome};

/// Most rows that are held.
pub const KEPT: usize = 2_000;

/// Rows of a page.
pub const PAGE: u32 = 200;

/// A page is asked for when the selection is so near to the end of what is held: several screens, so that whoever scrolls
/// does not wait.
const AHEAD: usize = 120;

/// A row of such a list.
pub trait Listed {
    /// What tells rows apart.
    type Key: PartialEq + Clone;

    /// What tells it apart.
    fn key(&self) -> Self::Key;
}

/// How the list goes on beyond what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// Not at all: this is its end.
    Reached,
    /// There may be more.
    More,
    /// There may be more, and reading it failed: tried again when the person moves.
    Failed,
}

/// Whether the list takes what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// It does.
    #[default]
    Runs,
    /// The person stopped it.
    Paused,
}

impl Flow {
    /// The other one.
    #[must_use]
    pub fn toggled(self) -> Self {
        match self {
            Self::Runs => Self::Paused,
            Self::Paused => Self::Runs,
        }
    }
}

/// What a list does while things happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It stands still, as the person wanted.
    Paused,
    /// The selection stays at what is newest.
    Follows,
    /// The selection stays where the person is.
    Stays,
}

impl Standing {
    /// What a list does whose flow is this, and whose selection stays at what is newest or does not.
    #[must_use]
    pub fn of(flow: Flow, follows: bool) -> Self {
        match flow {
            Flow::Paused => Self::Paused,
            Flow::Runs if follows => Self::Follows,
            Flow::Runs => Self::Stays,
        }
    }
}

/// Which page is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The rows before the first one.
    Top,
    /// The rows behind the last one.
    Bottom,
    /// The first rows of the list, in the place of what is held.
    Start,
    /// The last rows of the list, in the place of what is held.
    End,
    /// The rows from a certain one on, in the place of what is held.
    Around,
}

/// What is held of a long list.
#[derive(Debug)]
pub struct Window<R> {
    rows: VecDeque<R>,
    /// Counts down with every row that comes before the others, and up with every one that goes: what was drawn keeps its
    /// place on the screen.
    base: i64,
    top: Edge,
    bottom: Edge,
    asked: Option<(Ticket, Ask)>,
    failure: Option<Failure>,
}

impl<R> Default for Window<R> {
    fn default() -> Self {
        Self { rows: VecDeque::new(), base: 0, top: Edge::Reached, bottom: Edge::More, asked: None, failure: None }
    }
}

impl<R: Listed> Window<R> {
    /// The rows that are held.
    #[must_use]
    pub fn rows(&self) -> &VecDeque<R> {
        &self.rows
    }

    /// Place of the first row that is held, on a scale of its own that no arrival moves.
    #[must_use]
    pub fn base(&self) -> i64 {
        self.base
    }

    /// How the list goes on before the first row.
    #[must_use]
    pub fn top(&self) -> Edge {
        self.top
    }

    /// How the list goes on behind the last row.
    #[must_use]
    pub fn bottom(&self) -> Edge {
        self.bottom
    }

    /// Which page is on its way.
    #[must_use]
    pub fn asked(&self) -> Option<Ask> {
        self.asked.map(|(_, ask)| ask)
    }

    /// Whether the person, at the selected row, looks at where the page that is on its way will be.
    #[must_use]
    pub fn keeps_waiting(&self, selected: Option<usize>) -> bool {
        match self.asked() {
            Some(Ask::Top) => selected == Some(0),
            Some(Ask::Bottom) => selected.is_none_or(|at| at + 1 == self.rows.len()),
            Some(Ask::Start | Ask::End | Ask::Around) => true,
            None => false,
        }
    }

    /// Why the last page could not be read.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The place of a row.
    #[must_use]
    pub fn find(&self, key: &R::Key) -> Option<usize> {
        self.rows.iter().position(|row| row.key() == *key)
    }

    /// Holds other rows; answers the call that is no longer wanted.
    pub fn replace(&mut self, rows: VecDeque<R>, top: Edge, bottom: Edge) -> Option<Ticket> {
        let left = self.asked.take().map(|(ticket, _)| ticket);
        *self = Self { rows, top, bottom, ..Self::default() };
        left
    }

    /// Which page is needed where the selection is, when none is on its way.
    #[must_use]
    pub fn wanted(&self, selected: usize) -> Option<Ask> {
        if self.asked.is_some() {
            None
        } else if self.rows.is_empty() {
            (self.top == Edge::More || self.bottom == Edge::More).then_some(Ask::Start)
        } else if self.bottom == Edge::More && selected + AHEAD >= self.rows.len() {
            Some(Ask::Bottom)
        } else if self.top == Edge::More && selected < AHEAD {
            Some(Ask::Top)
        } else {
            None
        }
    }

    /// A page is on its way.
    pub fn ask(&mut self, ticket: Ticket, ask: Ask) {
        self.asked = Some((ticket, ask));
    }

    /// The person moves: what failed is tried again.
    pub fn retry(&mut self) {
        for edge in [&mut self.top, &mut self.bottom] {
            if *edge == Edge::Failed {
                *edge = Edge::More;
            }
        }
    }

    /// What was on its way does not come any more; answers its call.
    pub fn forget(&mut self) -> Option<Ticket> {
        self.asked.take().map(|(ticket, _)| ticket)
    }

    /// Stands still: what comes at the head is read when the person goes there.
    pub fn cut_off(&mut self) {
        if self.top == Edge::Reached {
            self.top = Edge::More;
        }
    }

    /// What is held begins where the list begins.
    pub fn at_start(&mut self) {
        self.top = Edge::Reached;
    }

    /// Takes a page that was asked for; answers which, or `None` when it is not that of this call. A page with fewer rows
    /// than `full` ends the list.
    pub fn take(&mut self, ticket: Ticket, outcome: Outcome<Vec<R>>, full: usize) -> Option<Ask> {
        let (_, ask) = self.asked.take_if(|(asked, _)| *asked == ticket)?;
        let rows = match outcome {
            Ok(rows) => rows,
            Err(failure) => {
                self.failure = Some(failure);
                match ask {
                    Ask::Top => self.top = Edge::Failed,
                    Ask::Bottom => self.bottom = Edge::Failed,
                    // What is held stays; an empty window would ask for ever.
                    Ask::Start | Ask::End | Ask::Around if self.rows.is_empty() => {
                        (self.top, self.bottom) = (Edge::Reached, Edge::Failed);
                    }
                    Ask::Start | Ask::End | Ask::Around => {}
                }
                return Some(ask);
            }
        };
        self.failure = None;
        let beyond = if rows.len() < full { Edge::Reached } else { Edge::More };
        match ask {
            Ask::Top => {
                self.top = beyond;
                let new: Vec<R> = rows.into_iter().filter(|row| self.find(&row.key()).is_none()).collect();
                if new.is_empty() {
                    self.top = Edge::Reached;
                }
                self.base -= signed(new.len());
                for row in new.into_iter().rev() {
                    self.rows.push_front(row);
                }
                self.trim_bottom(KEPT);
            }
            Ask::Bottom => {
                self.bottom = beyond;
                let new: Vec<R> = rows.into_iter().filter(|row| self.find(&row.key()).is_none()).collect();
                if new.is_empty() {
                    self.bottom = Edge::Reached;
                }
                self.rows.extend(new);
                self.trim_top(KEPT);
            }
            Ask::Start => {
                self.replace(rows.into(), Edge::Reached, beyond);
            }
            Ask::End => {
                self.replace(rows.into(), beyond, Edge::Reached);
            }
            Ask::Around => {
                self.replace(rows.into(), Edge::More, beyond);
            }
        }
        Some(ask)
    }

    /// Something happened at the head of the list: the row comes before the first one for which `is_behind` holds, and the
    /// end of what is held that is farther from the selection is let go.
    pub fn arrive(&mut self, row: R, selected: usize, most: usize, is_behind: impl Fn(&R) -> bool) {
        let place = self.rows.iter().position(is_behind).unwrap_or(self.rows.len());
        self.rows.insert(place, row);
        self.base -= 1;
        if selected + 1 > self.rows.len() / 2 {
            self.trim_top(KEPT);
        } else {
            self.trim_bottom(most.clamp(1, KEPT));
        }
    }

    /// A row is another now.
    pub fn row_mut(&mut self, key: &R::Key) -> Option<&mut R> {
        self.rows.iter_mut().find(|row| row.key() == *key)
    }

    fn trim_top(&mut self, most: usize) {
        let surplus = self.rows.len().saturating_sub(most);
        if surplus > 0 {
            self.rows.drain(..surplus);
            self.base += signed(surplus);
            self.top = Edge::More;
        }
    }

    fn trim_bottom(&mut self, most: usize) {
        if self.rows.len() > most {
            self.rows.truncate(most);
            self.bottom = Edge::More;
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::failure::ErrorCode;

    impl Listed for u64 {
        type Key = Self;

        fn key(&self) -> Self {
            *self
        }
    }

    const FULL: usize = PAGE as usize;

    /// A list from 1,000,000 down to 1 whose first rows are held.
    fn head() -> Window<u64> {
        let mut window = Window::default();
        window.replace((999_801..=1_000_000).rev().collect(), Edge::Reached, Edge::More);
        window
    }

    /// Answers what the window wants, as a store would.
    fn turn(window: &mut Window<u64>, selected: usize) -> Option<Ask> {
        let ask = window.wanted(selected)?;
        window.ask(Ticket(1), ask);
        assert_eq!(window.wanted(selected), None, "one page at a time");
        let (first, last) = (window.rows[0], window.rows[window.rows.len() - 1]);
        let page: Vec<u64> = match ask {
            Ask::Bottom => (1..last).rev().take(FULL).collect(),
            Ask::Top => (first + 1..=1_000_000).take(FULL).collect::<Vec<_>>().into_iter().rev().collect(),
            _ => (1..=1_000_000).rev().take(FULL).collect(),
        };
        window.take(Ticket(1), Ok(page), FULL)
    }

    #[test]
    fn it_slides_over_a_long_list_and_holds_few_rows() {
        let mut window = head();
        assert_eq!(window.wanted(0), None, "the end is far");
        let mut row = 1_000_000;
        while row > 990_000 {
            row -= 1;
            let selected = window.find(&row).expect("the selected row is held");
            turn(&mut window, selected);
            assert!(window.rows().len() <= KEPT);
            let place = window.find(&row).expect("still held");
            let scale = window.base() + i64::try_from(place).expect("small");
            assert_eq!(scale, i64::try_from(1_000_000 - row).expect("small"), "its place does not move");
        }
        assert_eq!(window.top(), Edge::More);
        while row < 1_000_000 {
            row += 1;
            let selected = window.find(&row).expect("the selected row is held");
            turn(&mut window, selected);
        }
        assert_eq!(
            (window.top(), window.bottom()),
            (Edge::Reached, Edge::More),
            "a page that is not full ends the list"
        );
        assert_eq!(window.rows()[0], 1_000_000);
    }

    #[test]
    fn what_arrives_at_the_head_lets_go_of_what_is_far_from_the_selection() {
        let mut window = head();
        let chosen = 999_900;
        for number in 1_000_001..1_010_000 {
            if window.top() != Edge::Reached {
                break;
            }
            let selected = window.find(&chosen).expect("held");
            window.arrive(number, selected, KEPT, |row| *row <= number);
        }
        assert!(window.find(&chosen).is_some(), "the selected row stays");
        assert_eq!(window.top(), Edge::More, "when the selection is far down, the head is let go");
        let mut following = head();
        for number in 1_000_001..1_001_000 {
            following.arrive(number, 0, 500, |row| *row <= number);
        }
        assert_eq!((following.rows().len(), following.rows()[0], following.bottom()), (500, 1_000_999, Edge::More));
    }

    #[test]
    fn a_page_that_failed_is_asked_for_again_when_the_person_moves() {
        let mut window = head();
        window.ask(Ticket(4), Ask::Bottom);
        assert_eq!(window.take(Ticket(3), Ok(Vec::new()), FULL), None, "not its answer");
        let failure = Failure::new(ErrorCode::DbError, "the disk is gone");
        assert_eq!(window.take(Ticket(4), Err(failure), FULL), Some(Ask::Bottom));
        assert_eq!(window.failure().map(|failure| failure.message.as_str()), Some("the disk is gone"));
        assert_eq!(window.wanted(199), None, "not at once");
        window.retry();
        assert_eq!(window.wanted(199), Some(Ask::Bottom));
    }
}
