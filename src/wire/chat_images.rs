//! Images and sounds inside of chat messages in the pivot's shape: where they stand, whether they are what FLM takes, and how a fetched
//! one is put in place of its address (SPEC §4.6).
//!
//! Called by `proxy` after a request is in the pivot's shape, so that one set of eyes sees every dialect. Must never be content with the
//! first of two equal keys: each is looked at.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::wire::base64;
use crate::wire::json_scan::{self, ScanFault};
use crate::wire::media_kind::{ENOUGH, MediaKind};
use crate::wire::remote_media::is_remote;

/// Images of one request; more are refused.
pub const MAX_IMAGES: usize = 64;

/// What messages hold beside text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Images that stand in the request.
    pub inline: usize,
    /// Images that are only named.
    pub remote: Vec<RemoteImage>,
    /// Sounds.
    pub audio: usize,
}

/// An image that is only named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImage {
    /// Such as `messages[0].content[1].image_url.url`.
    pub path: String,
    /// Where it is said to be; outside text.
    pub url: String,
    /// Where the JSON string of the address stands in the messages.
    place: Range<usize>,
}

/// What is wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageFault {
    /// The messages are no messages.
    #[error("the field '{path}' must be {expected}")]
    WrongType {
        /// Where.
        path: String,
        /// What is expected there.
        expected: &'static str,
    },
    /// The text after `base64,` is no base64.
    #[error("the image in '{path}' is not valid base64")]
    NotBase64 {
        /// Where.
        path: String,
    },
    /// Larger than allowed.
    #[error("the image in '{path}' is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Where.
        path: String,
        /// Bytes, decoded.
        limit: usize,
    },
    /// Its first bytes are of no format that FLM takes.
    #[error("the image in '{path}' is not a PNG, JPEG or WebP image: its first bytes say so, whatever its type")]
    UnknownFormat {
        /// Where.
        path: String,
    },
    /// More than [`MAX_IMAGES`].
    #[error("the messages hold more than {MAX_IMAGES} images, the first too many in '{path}'")]
    TooMany {
        /// Where.
        path: String,
    },
}

impl ImageFault {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::WrongType { path, .. }
            | Self::NotBase64 { path }
            | Self::TooLarge { path, .. }
            | Self::UnknownFormat { path }
            | Self::TooMany { path } => path,
        }
    }
}

/// Whether messages can hold an image or a sound at all. Costs one pass, so that requests without pay next to nothing.
#[must_use]
pub fn may_hold(messages: &str) -> bool {
    let bytes = messages.as_bytes();
    memchr::memchr2_iter(b'_', b'\\', bytes).any(|at| {
        let (before, rest) = (&bytes[..at], &bytes[at..]);
        rest.starts_with(b"\\u00")
            || before.ends_with(b"image") && rest.starts_with(b"_url")
            || before.ends_with(b"input") && rest.starts_with(b"_audio")
    })
}

/// Finds and checks what messages hold. `limit` is the size of one decoded image in bytes.
///
/// # Errors
/// See [`ImageFault`].
pub fn check(messages: &str, limit: usize) -> Result<Held, ImageFault> {
    let mut held = Held::default();
    for (number, message) in items(messages, "messages")?.into_iter().enumerate() {
        let at = format!("messages[{number}]");
        each_field(message, &at, |key, content| {
            if key != "content" || !content.starts_with('[') {
                return Ok(());
            }
            let at = format!("{at}.content");
            for (number, part) in items(content, &at)?.into_iter().enumerate() {
                if part.starts_with('{') {
                    look(messages, part, &format!("{at}[{number}]"), limit, &mut held)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(held)
}

/// Looks at one part of a message.
fn look(messages: &str, part: &str, at: &str, limit: usize, held: &mut Held) -> Result<(), ImageFault> {
    each_field(part, at, |key, value| {
        let at = format!("{at}.{key}");
        match &*key {
            "input_audio" => held.audio += 1,
            "image_url" if value.starts_with('"') => image(messages, value, at, limit, held)?,
            "image_url" if value.starts_with('{') => each_field(value, &at, |key, value| {
                if key == "url" {
                    image(messages, value, format!("{at}.url"), limit, held)?;
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })
}

fn image(messages: &str, value: &str, path: String, limit: usize, held: &mut Held) -> Result<(), ImageFault> {
    if held.inline + held.remote.len() == MAX_IMAGES {
        return Err(ImageFault::TooMany { path });
    }
    let Some(url) = string(value) else {
        return Err(ImageFault::WrongType { path, expected: "a string" });
    };
    if is_remote(&url) {
        let begin = value.as_ptr().addr() - messages.as_ptr().addr();
        let url = url.into_owned();
        held.remote.push(RemoteImage { path, url, place: begin..begin + value.len() });
        return Ok(());
    }
    // What is no data: URL may be base64 alone, which some engines take.
    let text = match url.split_once(',') {
        Some((head, text)) if head.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) => {
            if !head.to_ascii_lowercase().ends_with(";base64") {
                return Err(ImageFault::NotBase64 { path });
            }
            text
        }
        _ => &url,
    };
    let Some(length) = base64::decoded_length(text) else { return Err(ImageFault::NotBase64 { path }) };
    if length > limit {
        return Err(ImageFault::TooLarge { path, limit });
    }
    if MediaKind::of_image(&base64::first_bytes(text, ENOUGH)).is_none() {
        return Err(ImageFault::UnknownFormat { path });
    }
    held.inline += 1;
    Ok(())
}

/// The messages with `data:` URLs in place of addresses; `images` in the order of `remote`, each with its kind.
#[must_use]
pub fn put_in(messages: &str, remote: &[RemoteImage], images: &[(MediaKind, &[u8])]) -> String {
    let added: usize = images.iter().map(|(_, bytes)| bytes.len() / 3 * 4 + 64).sum();
    let mut out = String::with_capacity(messages.len() + added);
    let mut written = 0;
    for (image, (kind, bytes)) in remote.iter().zip(images) {
        out.push_str(&messages[written..image.place.start]);
        out.push_str("\"data:");
        out.push_str(kind.media_type());
        out.push_str(";base64,");
        base64::encode(bytes, &mut out);
        out.push('"');
        written = image.place.end;
    }
    out.push_str(&messages[written..]);
    out
}

/// The elements of a JSON array, as they are written.
fn items<'a>(json: &'a str, path: &str) -> Result<Vec<&'a str>, ImageFault> {
    let items: Result<Vec<&RawValue>, _> = serde_json::from_str(json);
    let wrong = |_| ImageFault::WrongType { path: path.to_owned(), expected: "an array" };
    Ok(items.map_err(wrong)?.into_iter().map(RawValue::get).collect())
}

/// Gives each field of a JSON object to `each`; other values have none.
fn each_field<'a>(
    json: &'a str,
    path: &str,
    mut each: impl FnMut(Cow<'a, str>, &'a str) -> Result<(), ImageFault>,
) -> Result<(), ImageFault> {
    enum Ended {
        Scan(ScanFault),
        Image(ImageFault),
    }
    impl From<ScanFault> for Ended {
        fn from(fault: ScanFault) -> Self {
            Self::Scan(fault)
        }
    }
    let result = json_scan::fields::<Ended>(json.as_bytes(), |field| {
        let key = &json[field.key.start - 1..=field.key.end];
        let Some(key) = string(key) else { return Ok(()) };
        each(key, &json[field.value]).map_err(Ended::Image)
    });
    match result {
        Ok(()) | Err(Ended::Scan(ScanFault::NotAnObject)) => Ok(()),
        Err(Ended::Image(fault)) => Err(fault),
        Err(Ended::Scan(_)) => Err(ImageFault::WrongType { path: path.to_owned(), expected: "valid JSON" }),
    }
}

/// A JSON string; borrowed where it has no escapes.
fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of a PNG.
    const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

    fn with(url: &str) -> String {
        format!(
            r#"[{{"role":"user","content":[{{"type":"text","text":"look"}},{{"type":"image_url","image_url":{{"url":{url}}}}}]}}]"#
        )
    }

    #[test]
    fn inline_images_are_known_by_their_first_bytes_and_remote_ones_by_their_place() {
        let found = check(&with(&format!("\"data:image/png;base64,{PNG}\"")), 100).expect("fine");
        assert_eq!((found.inline, found.remote.len()), (1, 0));
        // Escaped slashes, bare base64, and the short form.
        for url in
            [format!("\"data:image\\/png;base64,{PNG}\""), format!("\"{PNG}\""), format!("\"DATA:;BASE64,{PNG}\"")]
        {
            assert_eq!(check(&with(&url), 100).expect("fine").inline, 1, "{url}");
        }
        let short =
            format!(r#"[{{"content":[{{"im\u0061ge_url":"data:image/png;base64,{PNG}"}},{{"input_audio":{{}}}}]}}]"#);
        assert!(may_hold(&short));
        let found = check(&short, 100).expect("fine");
        assert_eq!((found.inline, found.audio), (1, 1));

        let messages = with(r#""https://example.org/a\u002epng""#);
        let found = check(&messages, 100).expect("fine").remote;
        assert_eq!(found[0].path, "messages[0].content[1].image_url.url");
        assert_eq!(found[0].url, "https://example.org/a.png");
        let put = put_in(&messages, &found, &[(MediaKind::Png, b"\x89PNG\r\n\x1a\n")]);
        assert_eq!(put, with("\"data:image/png;base64,iVBORw0KGgo=\""));
    }

    #[test]
    fn each_of_two_equal_keys_is_looked_at() {
        let twice = format!(
            r#"[{{"content":[{{"image_url":{{"url":"data:image/png;base64,{PNG}","url":"http://127.0.0.1/"}}}}]}}]"#
        );
        let found = check(&twice, 100).expect("fine");
        assert_eq!((found.inline, found.remote.len()), (1, 1));
    }

    #[test]
    fn wrong_images_are_named() {
        let path = "messages[0].content[1].image_url.url".to_owned();
        for (url, fault) in [
            ("3".to_owned(), ImageFault::WrongType { path: path.clone(), expected: "a string" }),
            ("\"data:image/png,x\"".to_owned(), ImageFault::NotBase64 { path: path.clone() }),
            ("\"data:image/png;base64,a%\"".to_owned(), ImageFault::NotBase64 { path: path.clone() }),
            ("\"data:image/png;base64,R0lGODlhAQABAA==\"".to_owned(), ImageFault::UnknownFormat { path: path.clone() }),
            ("\"data:image/png;base64,\"".to_owned(), ImageFault::UnknownFormat { path: path.clone() }),
            (format!("\"data:image/png;base64,{}\"", "iVBO".repeat(40)), ImageFault::TooLarge { path, limit: 100 }),
        ] {
            assert_eq!(check(&with(&url), 100), Err(fault), "{url}");
        }
        assert!(matches!(check("{}", 100), Err(ImageFault::WrongType { .. })));
        let many = format!("[{{\"content\":[{}]}}]", vec![r#"{"image_url":"http://a"}"#; MAX_IMAGES + 1].join(","));
        assert!(matches!(check(&many, 100), Err(ImageFault::TooMany { .. })));
        for other in [
            "[]",
            "[3]",
            r#"[{"content":"http://x"}]"#,
            r#"[{"content":[3,"x"]}]"#,
            r#"[{"content":[{"image_url":7}]}]"#,
        ] {
            assert_eq!(check(other, 100), Ok(Held::default()), "{other}");
        }
    }
}
