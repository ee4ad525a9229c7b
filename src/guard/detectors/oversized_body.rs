//! A body that announces more than the endpoint takes (SPEC §5.5): no client sends one twice.

use http::header::CONTENT_LENGTH;

use super::Sight;

pub(super) fn look(sight: &Sight<'_>) -> Option<String> {
    let length: u64 = sight.head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    (length > sight.head.body_limit)
        .then(|| format!("a body of {length} bytes; the limit is {}", sight.head.body_limit))
}
