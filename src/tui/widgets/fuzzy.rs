//! Fuzzy search: what fits and how well, in the order of the things.
//!
//! Called by the list of models, the palette and the picker.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

/// The things whose text fits what is wanted, with how well; all of them when nothing is wanted.
#[must_use]
pub fn fitting<T>(things: impl IntoIterator<Item = T>, wanted: &str, text: impl Fn(&T) -> String) -> Vec<(u32, T)> {
    let wanted = wanted.trim();
    if wanted.is_empty() {
        return things.into_iter().map(|thing| (0, thing)).collect();
    }
    let pattern = Pattern::parse(wanted, CaseMatching::Ignore, Normalization::Smart);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut letters = Vec::new();
    things
        .into_iter()
        .filter_map(|thing| {
            let text = text(&thing);
            Some((pattern.score(Utf32Str::new(&text, &mut letters), &mut matcher)?, thing))
        })
        .collect()
}

/// As [`fitting`], the best first; what fits equally well keeps its order.
#[must_use]
pub fn best<T>(things: impl IntoIterator<Item = T>, wanted: &str, text: impl Fn(&T) -> String) -> Vec<T> {
    let mut found = fitting(things, wanted, text);
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    found.into_iter().map(|(_, thing)| thing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_stands_first_and_without_a_wish_everything_keeps_its_order() {
        let names = ["qwen3:14b", "llama3.1:8b", "nomic-embed-text"];
        assert_eq!(best(names, "lam8", |name| (*name).to_owned()), ["llama3.1:8b"]);
        assert_eq!(best(names, " ", |name| (*name).to_owned()), names);
        assert!(best(names, "zzz", |name| (*name).to_owned()).is_empty());
    }
}
