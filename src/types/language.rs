//! The languages that FLM speaks: one for each file of the folder `i18n`, as `build.rs` finds them.
//!
//! Used by the settings table, the arguments and the console; no other source names a language.

/// What may be asked for: `auto`, which is the system's, and every language.
pub const CHOICES: &[&str] = include!(concat!(env!("OUT_DIR"), "/languages.rs"));

/// The codes of all languages, sorted.
pub const LANGUAGES: &[&str] = CHOICES.split_at(1).1;

/// The language that every text falls back to.
pub const FALLBACK: &str = "en";

/// The language for what is asked for, such as `ja-JP` or `ja_JP.UTF-8`: the very one, or its parent.
#[must_use]
pub fn spoken(wanted: &str) -> Option<&'static str> {
    let whole = wanted.split('.').next().unwrap_or_default().replace('_', "-");
    let parent = whole.split('-').next().unwrap_or_default();
    let named = |name: &str| LANGUAGES.iter().find(|code| code.eq_ignore_ascii_case(name)).copied();
    named(&whole).or_else(|| named(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn territories_find_their_language_and_others_none() {
        assert!(LANGUAGES.contains(&FALLBACK) && CHOICES.len() == LANGUAGES.len() + 1);
        assert_eq!(spoken("ja_JP.UTF-8"), Some("ja"));
        assert_eq!(spoken("EN-gb"), Some("en"));
        for nobody in ["tlh", "", "auto", "e"] {
            assert_eq!(spoken(nobody), None, "{nobody}");
        }
    }
}
