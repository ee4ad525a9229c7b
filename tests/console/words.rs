//! Words: every key is there in every language with the same placeholders, and none is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flm::tui::text::Plural;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Keys and texts of a language file: nested maps with quoted values, which is all that these files use.
fn read(path: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut above: Vec<String> = Vec::new();
    for line in std::fs::read_to_string(path).expect("reads").lines().filter(|line| !line.starts_with("_version")) {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let (key, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("{}: {line}", path.display()));
        above.truncate(depth);
        above.push(key.trim_matches('"').to_owned());
        if !value.trim().is_empty() {
            let value: String = serde_json::from_str(value.trim()).unwrap_or_else(|_| panic!("quoted: {line}"));
            let before = found.insert(above.join("."), value);
            assert!(before.is_none(), "{}: {line} twice", path.display());
        }
    }
    found
}

pub(crate) fn languages() -> BTreeMap<String, BTreeMap<String, String>> {
    let files = std::fs::read_dir(root().join("i18n")).expect("lists").filter_map(Result::ok);
    files
        .map(|file| (file.path().file_stem().expect("name").to_string_lossy().into_owned(), read(&file.path())))
        .collect()
}

/// What stands between `%{` and `}`.
fn inside(text: &str) -> impl Iterator<Item = &str> {
    text.split("%{").skip(1).map(|rest| rest.split('}').next().unwrap_or_default())
}

/// The values that are put in; words that only follow a count are not among them.
fn placeholders(text: &str) -> BTreeSet<&str> {
    inside(text).filter(|name| !name.contains('?')).collect()
}

fn sources(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).expect("lists").filter_map(Result::ok) {
        if entry.path().is_dir() {
            sources(&entry.path(), into);
        } else {
            into.push_str(&std::fs::read_to_string(entry.path()).expect("reads"));
        }
    }
}

#[test]
fn every_language_has_every_key_with_the_same_placeholders() {
    let all = languages();
    let english = &all["en"];
    assert!(all.len() >= 2 && english.len() > 300);
    for (language, words) in &all {
        let missing: Vec<_> = english.keys().filter(|key| !words.contains_key(*key)).collect();
        let extra: Vec<_> = words.keys().filter(|key| !english.contains_key(*key)).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{language}: missing {missing:?}, extra {extra:?}");
        for (key, text) in words {
            assert_eq!(placeholders(text), placeholders(&english[key]), "{language}: {key}");
            assert!(!text.is_empty(), "{language}: {key} is empty");
        }
    }
}

#[test]
fn every_key_of_the_sources_exists_and_every_word_is_used() {
    let english = languages().remove("en").expect("English");
    let mut text = String::new();
    sources(&root().join("src/tui"), &mut text);
    let used: BTreeSet<&str> = text.split('"').filter(|piece| english.contains_key(*piece)).collect();
    let unused: Vec<_> = english.keys().filter(|key| !used.contains(key.as_str())).collect();
    assert!(unused.is_empty(), "never used: {unused:?}");
    // A literal that looks like a key of a known group must be one.
    let groups: BTreeSet<&str> = english.keys().filter_map(|key| key.split('.').next()).collect();
    let names = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.' || c.is_ascii_digit();
    let unknown: Vec<_> = text
        .split('"')
        .filter(|piece| piece.contains('.') && piece.chars().all(names) && !piece.ends_with('.'))
        .filter(|piece| groups.contains(piece.split('.').next().unwrap_or_default()))
        .filter(|piece| !english.contains_key(*piece) && Path::new(piece).extension().is_none_or(|end| end != "toml"))
        .collect();
    assert!(unknown.is_empty(), "no words for: {unknown:?}");
}

#[test]
fn values_are_given_for_every_placeholder() {
    // The names of values stand in the sources as ("name", …); a placeholder without one is never filled.
    let english = languages().remove("en").expect("English");
    let mut text = String::new();
    sources(&root().join("src/tui"), &mut text);
    for (key, words) in &english {
        for name in inside(words).map(|inside| inside.split('?').next().unwrap_or_default()) {
            assert!(text.contains(&format!("(\"{name}\", ")), "{key}: %{{{name}}} is never filled");
        }
    }
}

#[test]
fn words_follow_the_count_that_they_stand_behind() {
    for (language, words) in languages() {
        let plural = Plural::named(&words["language.plural"]);
        for (key, text) in &words {
            for (name, forms) in inside(text).filter_map(|inside| inside.split_once('?')) {
                assert_eq!(forms.split('|').count(), plural.forms(), "{language}: {key}: {name}?{forms}");
            }
        }
    }
    // "1 streams": a plural behind a count is one of two forms.
    let english = &languages()["en"];
    let names = english.values().flat_map(|text| inside(text));
    let counts: BTreeSet<&str> = names.filter_map(|inside| Some(inside.split_once('?')?.0)).collect();
    for (key, text) in english {
        for (name, rest) in text.split("%{").skip(1).filter_map(|rest| rest.split_once("} ")) {
            let word: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
            assert!(!counts.contains(name) || !word.ends_with('s'), "{key}: {name} {word}");
        }
    }
}
