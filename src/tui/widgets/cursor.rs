//! A place in a list that sticks to its row, not to its number, while rows come and go around it.

use crate::tui::action::Command;

/// What the first row means to a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstRow {
    /// A row like any other.
    #[default]
    Ordinary,
    /// "The newest": a cursor there stays at the top when rows arrive above.
    Newest,
}

/// A selected row of a list whose rows are told apart by `K`.
#[derive(Debug, Clone)]
pub struct Cursor<K> {
    anchor: Option<K>,
    index: usize,
    first: FirstRow,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self { anchor: None, index: 0, first: FirstRow::Ordinary }
    }
}

impl<K: PartialEq + Clone> Cursor<K> {
    /// A cursor that follows the newest row while it is at the top.
    #[must_use]
    pub fn following() -> Self {
        Self { first: FirstRow::Newest, ..Self::default() }
    }

    /// Where it is among these rows: at its own row, or, when that is gone, where it was.
    pub fn place<T>(&self, rows: &[&T], key: impl Fn(&T) -> K) -> usize {
        let own = self.anchor.as_ref().and_then(|anchor| rows.iter().position(|row| key(row) == *anchor));
        own.unwrap_or(self.index.min(rows.len().saturating_sub(1)))
    }

    /// Selects a row by number.
    pub fn select<T>(&mut self, index: usize, rows: &[&T], key: impl Fn(&T) -> K) {
        self.index = index.min(rows.len().saturating_sub(1));
        let stays_at_top = self.index == 0 && self.first == FirstRow::Newest;
        self.anchor = if stays_at_top { None } else { rows.get(self.index).map(|row| key(row)) };
    }

    /// Moves by a command of lists; others leave it where it is.
    pub fn step<T>(&mut self, command: Command, page: usize, rows: &[&T], key: impl Fn(&T) -> K) {
        let at = self.place(rows, &key);
        let to = moved(at, command, page, rows.len());
        if let Some(to) = to {
            self.select(to, rows, key);
        }
    }

    /// Goes back to the top.
    pub fn top(&mut self) {
        self.anchor = None;
        self.index = 0;
    }

    /// Goes to the last row.
    pub fn at_last(&mut self) {
        self.anchor = None;
        self.index = usize::MAX;
    }

    /// Goes to the row of this key.
    pub fn at(&mut self, key: K) {
        self.anchor = Some(key);
    }

    /// Whether it stays at the newest row.
    pub fn follows(&self) -> bool {
        self.first == FirstRow::Newest && self.anchor.is_none() && self.index == 0
    }
}

/// Where a move command leads in a list of `length` rows with `page` rows in view; `None` for other commands.
#[must_use]
pub fn moved(at: usize, command: Command, page: usize, length: usize) -> Option<usize> {
    let last = length.saturating_sub(1);
    let page = page.saturating_sub(1).max(1);
    Some(match command {
        Command::Up => at.saturating_sub(1),
        Command::Down => (at + 1).min(last),
        Command::First => 0,
        Command::Last => last,
        Command::PageUp => at.saturating_sub(page),
        Command::PageDown => (at + page).min(last),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_with_its_row_when_rows_arrive_above() {
        let mut cursor = Cursor::following();
        cursor.step(Command::Down, 10, &[&3, &2, &1], |row| *row);
        assert_eq!(cursor.place(&[&5, &4, &3, &2, &1], |row| *row), 3);
        assert!(!cursor.follows());
    }

    #[test]
    fn at_the_top_it_follows_the_newest() {
        let mut cursor = Cursor::following();
        cursor.step(Command::Down, 10, &[&3, &2, &1], |row| *row);
        cursor.step(Command::First, 10, &[&3, &2, &1], |row| *row);
        assert!(cursor.follows());
        assert_eq!(cursor.place(&[&5, &4, &3, &2, &1], |row| *row), 0);
    }

    #[test]
    fn when_its_row_is_gone_it_stays_where_it_was() {
        let mut cursor = Cursor::default();
        cursor.step(Command::Last, 10, &[&"a", &"b", &"c"], |row| *row);
        assert_eq!(cursor.place(&[&"a", &"b"], |row| *row), 1);
        assert_eq!(cursor.place(&[] as &[&&str], |row| *row), 0);
    }
}
