//! ntfy: a short message to a topic, published as JSON to the server's root, so that every character survives
//! (docs.ntfy.sh/publish, "Publish as JSON").

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::message::{Occasion, word};
use super::{Again, Fault, Message, Tools, webhook};
use crate::types::alert::PrivateHosts;
use crate::types::audit::Severity;
use crate::types::secret::Secret;

/// Where it goes.
pub(super) struct Place<'a> {
    pub(super) server: &'a str,
    pub(super) topic: &'a str,
    pub(super) private: PrivateHosts,
    pub(super) token: Option<&'a Secret>,
}

/// Longest message; ntfy makes a file of what is longer than 4096 bytes.
const LONGEST: usize = 1_000;

/// Sends it once.
pub(super) async fn deliver(tools: &Tools, place: Place<'_>, message: &Message) -> Result<(), Fault> {
    let mut headers = HeaderMap::new();
    if let Some(token) = place.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| Fault::new(Again::Never, "the token cannot be a header"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let body = document(place.topic, message).to_string().into();
    webhook::send(tools, place.server, place.private, headers, body).await
}

fn document(topic: &str, message: &Message) -> serde_json::Value {
    let (priority, tag) = match message.severity() {
        Severity::Low => (2, "information_source"),
        Severity::Medium => (3, "information_source"),
        Severity::High => (4, "warning"),
        Severity::Critical => (5, "rotating_light"),
    };
    let title = match message.occasion {
        Occasion::Test => "FLM: test".to_owned(),
        Occasion::Event => format!("FLM: {}", word(&message.severity())),
    };
    let text: String = format!("{}\n{}", message.text(), message.details()).chars().take(LONGEST).collect();
    json!({ "topic": topic, "title": title, "message": text, "priority": priority, "tags": [tag] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::alert::ChannelId;
    use crate::types::clock::UnixMillis;

    #[test]
    fn a_message_is_a_title_a_text_and_a_priority() {
        let message = Message::test(&ChannelId::parse("phone").expect("a name"), UnixMillis(5));
        let document = document("flm-x", &message);
        assert_eq!((&document["topic"], &document["priority"]), (&json!("flm-x"), &json!(2)));
        assert!(document["message"].as_str().expect("text").contains("a test of the alert channel phone"));
    }
}
