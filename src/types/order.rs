//! How a list that is read page by page is ordered, and where a page lies in it.

use serde::{Deserialize, Serialize};

/// Which way a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Smallest first.
    Ascending,
    /// Largest first; of times the newest.
    #[default]
    Descending,
}

impl Order {
    /// The other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Ascending => Self::Descending,
            Self::Descending => Self::Ascending,
        }
    }
}

/// Where a page lies in a sorted list: beside a row that the caller has, which is named by its key, so that rows that come
/// and go elsewhere move nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "at", content = "row")]
pub enum Place<K> {
    /// The first rows of the list.
    #[default]
    Start,
    /// The last rows of the list.
    End,
    /// The rows that come after this one.
    Behind(K),
    /// The rows that come before this one, the nearest.
    Before(K),
}

impl<K> Place<K> {
    /// Whether the page is looked for from the list's end towards its start. The rows are answered in the list's order in
    /// any case.
    #[must_use]
    pub fn goes_back(&self) -> bool {
        matches!(self, Self::End | Self::Before(_))
    }
}
