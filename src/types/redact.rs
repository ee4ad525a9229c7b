//! Takes out of a text what could be a secret, before it is handed to somebody else (`flm doctor`).
//!
//! Logs and settings hold no secret by design (SPEC §5.11); this is the second net under it. What is taken out is
//! replaced by a word, so that the rest can still be read.

/// What stands in place of a secret.
pub const HIDDEN: &str = "(hidden)";

/// Beginnings of keys and tokens, by which those who make them want them to be found.
const BEGINNINGS: [&str; 10] =
    ["flm_", "sk-", "sk_", "hf_", "ghp_", "gho_", "github_pat_", "xoxb-", "AKIA", "eyJhbGciOi"];
/// Words after which a secret follows.
const WORDS: [&str; 8] = ["bearer", "basic", "password", "passphrase", "secret", "token", "api_key", "apikey"];

/// The text without keys, tokens, passwords and the user part of addresses.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut follows_word = false;
    for piece in text.split_inclusive(ends_word) {
        let (word, end) = match piece.char_indices().next_back().filter(|(_, last)| ends_word(*last)) {
            Some((at, _)) => piece.split_at(at),
            None => (piece, ""),
        };
        if word.is_empty() {
            out.push_str(end);
            // "token = x" and "Bearer: x" go on over signs and blanks; the end of a sentence or list ends it.
            follows_word &= matches!(end, " " | "=" | ":" | "\"" | "'");
            continue;
        }
        if follows_word || is_key(word) {
            out.push_str(HIDDEN);
        } else {
            out.push_str(&without_user(word));
        }
        follows_word = WORDS.iter().any(|known| word.eq_ignore_ascii_case(known));
        out.push_str(end);
    }
    out
}

fn ends_word(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '"' | '\'' | '=' | ',' | ';' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>' | '&' | '?')
        || c == ':'
}

fn is_key(word: &str) -> bool {
    const SHORTEST: usize = 12;
    BEGINNINGS.iter().any(|begin| word.match_indices(begin).any(|(at, _)| word.len() - at >= SHORTEST))
}

/// `//user:password@host` without what stands before the `@`. A colon has cut the text before it came here.
fn without_user(word: &str) -> String {
    match word.rsplit_once('@') {
        Some((before, host)) if before.starts_with("//") => format!("//{HIDDEN}@{host}"),
        // The password, after the colon that cut.
        Some((_, host)) if !host.is_empty() => format!("{HIDDEN}@{host}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_secret_is_gone_and_the_rest_can_be_read() {
        for (text, told) in [
            ("key flm_Ab12Cd34_0123456789 refused", "key (hidden) refused"),
            (r#"{"authorization":"Bearer abc.def"}"#, r#"{"authorization":"Bearer (hidden)"}"#),
            ("password = hunter2, then", "password = (hidden), then"),
            ("url=http://user:pa55@10.0.0.1:8000/v1", "url=http://user:(hidden)@10.0.0.1:8000/v1"),
            ("//root@host", "//(hidden)@host"),
            ("/v1/models?key=sk-0123456789abcdef&x=1", "/v1/models?key=(hidden)&x=1"),
            ("prompt and token counts: 17 of 20", "prompt and token (hidden): 17 of 20"),
            ("engine ollama answers at http://127.0.0.1:11434", "engine ollama answers at http://127.0.0.1:11434"),
            ("", ""),
        ] {
            assert_eq!(redact(text), told, "{text}");
        }
    }
}
