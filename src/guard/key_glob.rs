//! Globs of a key over canonical model names and aliases, and over paths: `*` is any run of characters.

/// Whether `pattern` matches the whole of `text`. No pattern can make it slow.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// Whether any of `patterns` matches; no patterns match everything.
#[must_use]
pub fn allowed(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_any_run_and_the_rest_is_literal() {
        for (pattern, text, expected) in [
            ("flm://ollama/*", "flm://ollama/llama3:8b", true),
            ("flm://*/llama*", "flm://vllm/llama-3", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "a-b-c", false),
            ("a", "ab", false),
            ("a*a", "a", false),
            ("[a]", "a", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn no_patterns_allow_everything() {
        assert!(allowed(&[], "anything"));
        assert!(!allowed(&["x".to_owned()], "y"));
    }
}
