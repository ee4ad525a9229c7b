//! Webhooks: the message as JSON in a POST, signed so that the receiver knows who sent it and when.
//!
//! `x-flm-signature: v1=HEX` is HMAC-SHA256 under the channel's secret over `TIMESTAMP.BODY`, with the timestamp of
//! `x-flm-timestamp` (seconds since 1970). A receiver refuses what is older than five minutes and what it has seen
//! (`x-flm-delivery`); each try is signed anew. docs/alerts.md shows how to check it.

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sha2::Sha256;

use super::{Again, Fault, Message, TRY_LIMIT, Tools};
use crate::net::post::{Hosts, PostError, Posted, post};
use crate::net::web_address::WebAddress;
use crate::types::alert::PrivateHosts;
use crate::types::secret::Secret;
use crate::types::text::{escape, hex};

pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("x-flm-timestamp");
pub(super) const SIGNATURE: HeaderName = HeaderName::from_static("x-flm-signature");
pub(super) const DELIVERY: HeaderName = HeaderName::from_static("x-flm-delivery");

/// Sends it once.
pub(super) async fn deliver(
    tools: &Tools,
    url: &str,
    private: PrivateHosts,
    secret: Option<&Secret>,
    message: &Message,
) -> Result<(), Fault> {
    let body = message.json();
    let timestamp = tools.clock.wall().0.div_euclid(1000);
    let mut headers = HeaderMap::new();
    headers.insert(TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(DELIVERY, ascii(&message.id)?);
    if let Some(secret) = secret {
        headers.insert(SIGNATURE, ascii(&signature(secret, timestamp, &body))?);
    }
    send(tools, url, private, headers, body).await
}

/// `v1=` and HMAC-SHA256(secret, `TIMESTAMP.BODY`) in lower-case hexadecimal.
pub(super) fn signature(secret: &Secret, timestamp: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length; the error cannot happen.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { return String::new() };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    let code: [u8; 32] = mac.finalize().into_bytes().into();
    format!("v1={}", hex(&code))
}

fn ascii(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text).map_err(|_| Fault::new(Again::Never, "a header cannot be written"))
}

/// Sends JSON to an address and takes any 2xx for an arrival.
pub(super) async fn send(
    tools: &Tools,
    url: &str,
    private: PrivateHosts,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<(), Fault> {
    let address = WebAddress::parse(url).map_err(|fault| Fault::new(Again::Never, fault.to_string()))?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let hosts = match private {
        PrivateHosts::Refused => Hosts::Public,
        PrivateHosts::Allowed => Hosts::Any,
    };
    match post(&tools.egress, &address, hosts, headers, body, TRY_LIMIT).await {
        Ok(posted) => judge(&posted),
        Err(error @ PostError::NotPublic { .. }) => {
            Err(Fault::new(Again::Never, format!("{error}: allow it with --private if it is yours")))
        }
        Err(error) => Err(Fault::new(Again::Soon, error.to_string())),
    }
}

fn judge(posted: &Posted) -> Result<(), Fault> {
    let status = posted.status;
    if status.is_success() {
        return Ok(());
    }
    let said = if posted.body.is_empty() { String::new() } else { format!(": {}", escape(&posted.body)) };
    let reason = format!("the receiver answered {}{said}", status.as_u16());
    let passes = status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    Err(Fault::new(
        match posted.retry_after {
            _ if !passes => Again::Never,
            Some(span) => Again::After(span),
            None => Again::Soon,
        },
        reason,
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_signature_is_that_of_an_independent_implementation() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac whsec_test
        let expected = "v1=38877139021993b830af32feea6e18a8da83eb2f6e49ee50bd9e4cf4ca4d3789";
        assert_eq!(signature(&Secret::new("whsec_test".into()), 1_700_000_000, b"{\"a\":1}"), expected);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let posted = |status: u16, retry_after| Posted {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after,
            body: "no\u{1b}[2J".into(),
        };
        assert_eq!(judge(&posted(204, None)), Ok(()));
        for (status, after, again) in [
            (302, None, Again::Never),
            (400, None, Again::Never),
            (410, Some(Duration::from_secs(1)), Again::Never),
            (429, Some(Duration::from_secs(9)), Again::After(Duration::from_secs(9))),
            (500, None, Again::Soon),
        ] {
            let fault = judge(&posted(status, after)).expect_err("refused");
            assert_eq!(fault.again, again, "{status}");
            assert!(fault.reason.ends_with("no\\x1b[2J"), "{}", fault.reason);
        }
    }
}
