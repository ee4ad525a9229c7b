//! [`exchange`]: one request on a connection of its own, for what goes out once in a while.
//!
//! Called by [`super::post`] and [`super::media_fetch`], which dial. Says who asks, and that nothing may be compressed. Must
//! never follow a redirect.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderName, HeaderValue, Method};

use super::connect::Stream;
use super::connection::{Begun, Connection};
use super::message::{self, MessageFault, Outgoing};
use super::web_address::WebAddress;

/// What every such request says of itself, whatever its caller gives.
const OWN: [(HeaderName, &str); 2] =
    [(ACCEPT_ENCODING, "identity"), (USER_AGENT, concat!("flm/", env!("CARGO_PKG_VERSION")))];

/// Sends a request and answers with the head of its answer; the body is read from the connection, which closes when it is
/// dropped.
///
/// # Errors
/// When the connection breaks, or what comes is no answer.
pub(super) async fn exchange(
    stream: Stream,
    address: &WebAddress,
    method: Method,
    fields: impl Iterator<Item = (HeaderName, HeaderValue)>,
    body: Bytes,
) -> Result<(Begun, Connection), MessageFault> {
    let own = OWN.map(|(name, value)| (name, HeaderValue::from_static(value)));
    let fields = fields.filter(|(name, _)| own.iter().all(|(own, _)| own != name)).chain(own.clone()).collect();
    let request = Outgoing { method, target: Cow::Owned(address.target.to_string()), fields, body };
    let written = message::write_request(&request, &address.host_header)?;
    let mut connection = Connection::new(stream);
    let sent = connection.send(&request.method, &written, &request.body).await;
    let head = sent.map_err(|unanswered| unanswered.fault)?;
    Ok((head, connection))
}
