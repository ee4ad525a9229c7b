//! Names near to a wrong one, for "did you mean".
//!
//! Called by [`crate::engines::registry`]. Must never cost more than a bounded time, whatever a client sends.

use crate::types::text::escape;

/// Suggestions told to a client.
const AT_MOST: usize = 3;

/// A wrong name is compared up to this many characters; real model names are shorter.
const COMPARED: usize = 96;

/// The names nearest to `wanted`, best first, at most three, escaped.
pub(super) fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = wanted.chars().take(COMPARED).flat_map(char::to_lowercase).collect();
    let wanted_text: String = wanted.iter().collect();
    let mut scored: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let candidate: Vec<char> = name.chars().take(COMPARED).flat_map(char::to_lowercase).collect();
            let candidate_text: String = candidate.iter().collect();
            // A part of the name is what people type most often; short parts are in everything.
            let part = wanted.len() >= 3 && candidate_text.contains(&wanted_text)
                || candidate.len() >= 3 && wanted_text.contains(&candidate_text);
            if part {
                return Some((candidate.len().abs_diff(wanted.len()), name));
            }
            let distance = edits(&wanted, &candidate);
            (distance <= 2.max(wanted.len() / 3)).then_some((distance + 1, name))
        })
        .collect();
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().take(AT_MOST).map(|(_, name)| escape(name).into_owned()).collect()
}

/// Levenshtein's distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_parts_are_found_best_first() {
        let names = ["llama3.2:3b", "qwen3:8b", "mistral-small", "llama3.1:8b"];
        assert_eq!(near("lama3.2:3b", names.into_iter())[0], "llama3.2:3b");
        assert_eq!(near("mistral", names.into_iter()), ["mistral-small"]);
        assert_eq!(near("QWEN3", names.into_iter())[0], "qwen3:8b");
        assert!(near("gpt-4o", names.into_iter()).is_empty());
    }

    #[test]
    fn suggestions_are_escaped() {
        assert_eq!(near("abc", ["abc\u{1b}[31m"].into_iter()), ["abc\\x1b[31m"]);
    }

    #[test]
    fn distances_are_levenshteins() {
        let distance = |a: &str, b: &str| edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!([distance("kitten", "sitting"), distance("", "ab"), distance("a", "a")], [3, 2, 0]);
    }
}
