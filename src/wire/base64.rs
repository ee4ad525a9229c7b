//! Base64 (RFC 4648 §4) as data: URLs carry it: writing, the size of what is written, and its first bytes.
//!
//! Called for images inside of requests. Must never decode more than it is asked for: images of many MiB pass through as they came.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends bytes in base64, padded.
pub fn encode(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let (first, second, third) =
            (group[0], group.get(1).copied().unwrap_or_default(), group.get(2).copied().unwrap_or_default());
        let bits = u32::from(first) << 16 | u32::from(second) << 8 | u32::from(third);
        for place in 0..4 {
            if place > group.len() {
                out.push('=');
            } else {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]));
            }
        }
    }
}

/// How many bytes a text stands for; `None` when it is no base64. Padding may be left out, and of the URL-safe alphabet both letters
/// are taken, as engines do.
#[must_use]
pub fn decoded_length(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    let fits = digits.len() % 4 != 1 && padding <= 2 && (padding == 0 || text.len().is_multiple_of(4));
    (fits && digits.bytes().all(|digit| value(digit).is_some())).then_some(digits.len() * 3 / 4)
}

/// The first bytes of a text, at most `count`: fewer where it ends, or where it is no base64.
#[must_use]
pub fn first_bytes(text: &str, count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count + 2);
    let mut bits: u32 = 0;
    let mut held = 0;
    for digit in text.bytes().map_while(value) {
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held & 0xff) as u8);
            if out.len() == count {
                break;
            }
        }
    }
    out
}

fn value(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rfcs_examples_come_out_right() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut out = String::new();
            encode(bytes.as_bytes(), &mut out);
            assert_eq!(out, text);
            assert_eq!(decoded_length(text), Some(bytes.len()), "{text}");
            assert_eq!(first_bytes(text, 100), bytes.as_bytes(), "{text}");
        }
    }

    #[test]
    fn what_is_no_base64_has_no_length() {
        for text in ["a", "aGk=x", "aGk===", "a GE=", "aGk\n", "=", "ä", "aGkx=", "aaaaa"] {
            assert_eq!(decoded_length(text), None, "{text:?}");
        }
        assert_eq!(decoded_length("aGk"), Some(2), "without padding");
    }

    proptest! {
        #[test]
        fn what_is_written_has_its_length_and_its_first_bytes(bytes: Vec<u8>, count in 0_usize..20) {
            let mut text = String::new();
            encode(&bytes, &mut text);
            prop_assert_eq!(decoded_length(&text), Some(bytes.len()));
            prop_assert_eq!(first_bytes(&text, count.max(1)), &bytes[..bytes.len().min(count.max(1))]);
        }
    }
}
