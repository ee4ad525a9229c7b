//! A request without a user agent (SPEC §5.4): every client library sends one.

use http::header::USER_AGENT;

use super::{Sight, says_nothing};

pub(super) fn look(sight: &Sight<'_>) -> Option<String> {
    let named = sight.head.headers.get(USER_AGENT).is_some_and(|agent| {
        let agent = agent.as_bytes().trim_ascii();
        !agent.is_empty() && agent != b"-"
    });
    (!named && !says_nothing(sight.head)).then(|| "no user agent".to_owned())
}
