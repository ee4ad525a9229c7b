//! DNS provider `cloudflare`: records of a zone at Cloudflare, by its API version 4 (developers.cloudflare.com/api).

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::provider::{Fault, Provider, Record, TTL};
use crate::net::dns::message::Name;
use crate::net::web::Web;
use crate::types::secret::Secret;
use crate::types::text::escape;

const API: &str = "https://api.cloudflare.com/client/v4";
const TOKEN: &str = "make a token with the permissions Zone:Read and DNS:Edit for that zone, and put it where acme.dns.secret_file says";

/// Zones at Cloudflare.
#[derive(Debug)]
pub(super) struct Cloudflare {
    web: Web,
    token: Secret,
    api: String,
}

/// What every answer looks like.
#[derive(Debug, Deserialize)]
struct Envelope<T> {
    success: bool,
    #[serde(default)]
    errors: Vec<Complaint>,
    result: Option<T>,
}

#[derive(Debug, Deserialize)]
struct Complaint {
    code: i64,
    message: String,
}

/// A zone or a record: its id is all that is of use.
#[derive(Debug, Deserialize)]
struct Item {
    id: String,
}

impl Cloudflare {
    pub(super) fn new(web: Web, token: Secret) -> Self {
        Self { web, token, api: API.to_owned() }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<T>, Fault> {
        let odd = |what: String| Fault::new(what, TOKEN);
        let mut token = HeaderValue::from_str(&format!("Bearer {}", self.token.expose()))
            .map_err(|_| odd("the token has characters that no token has".to_owned()))?;
        token.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.api))
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())))
            .map_err(|error| odd(error.to_string()))?;
        let answer = self.web.send(request).await.map_err(|error| {
            Fault::new(escape(&error.to_string()), "check this machine's way out: flm proxy status shows the egress")
        })?;
        let status = answer.status();
        let envelope: Envelope<T> = serde_json::from_slice(answer.body())
            .map_err(|_| odd(format!("its API answered {status} and not in its own form")))?;
        if envelope.success {
            return Ok(envelope.result);
        }
        let errors = envelope.errors.iter().map(|error| format!("{} (code {})", escape(&error.message), error.code));
        Err(odd(format!("its API answered {status}: {}", errors.collect::<Vec<_>>().join(", "))))
    }

    /// The id of the zone that a name is in.
    async fn zone(&self, name: &Name) -> Result<String, Fault> {
        // A zone is somewhere above the record, which itself is none.
        let above = std::iter::successors(name.parent(), Name::parent).take_while(|name| !name.is_root());
        for candidate in above {
            let found = self.call::<Vec<Item>>(Method::GET, &format!("/zones?name={candidate}"), None).await?;
            if let Some(zone) = found.unwrap_or_default().into_iter().next() {
                return in_path(zone.id);
            }
        }
        Err(Fault::new(format!("the token sees no zone that {name} is in"), TOKEN))
    }

    async fn add(&self, record: &Record) -> Result<(), Fault> {
        let zone = self.zone(&record.name).await?;
        let body = json!({
            "type": "TXT",
            "name": record.name.to_string(),
            "content": quoted(&record.value),
            "ttl": TTL,
            "comment": "ACME challenge, set by FLM",
        });
        self.call::<Item>(Method::POST, &format!("/zones/{zone}/dns_records"), Some(&body)).await.map(|_| ())
    }

    async fn delete(&self, record: &Record) -> Result<(), Fault> {
        #[derive(Deserialize)]
        struct Found {
            id: String,
            content: String,
        }
        let zone = self.zone(&record.name).await?;
        let list = format!("/zones/{zone}/dns_records?type=TXT&per_page=100&name={}", record.name);
        let found = self.call::<Vec<Found>>(Method::GET, &list, None).await?.unwrap_or_default();
        for one in found {
            if one.content.trim_matches('"') == record.value {
                let path = format!("/zones/{zone}/dns_records/{}", in_path(one.id)?);
                self.call::<Value>(Method::DELETE, &path, None).await?;
            }
        }
        Ok(())
    }
}

/// TXT contents stand in quotes (developers.cloudflare.com/dns/manage-dns-records/reference/dns-record-types, TXT).
fn quoted(value: &str) -> String {
    format!("\"{value}\"")
}

/// An id that may stand in a path: the API's are hexadecimal.
fn in_path(id: String) -> Result<String, Fault> {
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(id);
    }
    Err(Fault::new("its API answered an id of another form", TOKEN))
}

impl Provider for Cloudflare {
    fn name(&self) -> &'static str {
        "cloudflare"
    }

    fn set<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.add(record))
    }

    fn remove<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.delete(record))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::net::connect::Trust;
    use crate::net::egress::Egress;
    use crate::telemetry::tasks::Tasks;
    use crate::tls::acme::provider::tests::api;

    /// Answers in the form of the API's reference (developers.cloudflare.com/api, "List Zones", "Create DNS Record",
    /// "List DNS Records", "Delete DNS Record").
    fn answers(head: &str) -> (u16, &'static str) {
        const EMPTY: &str =
            r#"{"success":true,"errors":[],"messages":[],"result":[],"result_info":{"page":1,"count":0}}"#;
        const ZONE: &str = r#"{"success":true,"errors":[],"messages":[],"result":[{"id":"023e105f4ecef8ad9ca31a8372d0c353",
            "name":"example.org","status":"active","type":"full"}],"result_info":{"page":1,"count":1}}"#;
        const MADE: &str = r#"{"success":true,"errors":[],"messages":[],"result":{"id":"372e67954025e0ba6aaa6d586b9e0b59",
            "name":"_acme-challenge.llm.example.org","type":"TXT","content":"\"value\"","ttl":60}}"#;
        const LIST: &str = r#"{"success":true,"errors":[],"messages":[],"result":[
            {"id":"11111111111111111111111111111111","type":"TXT","content":"\"of somebody else\""},
            {"id":"372e67954025e0ba6aaa6d586b9e0b59","type":"TXT","content":"\"value\""}]}"#;
        const GONE: &str =
            r#"{"success":true,"errors":[],"messages":[],"result":{"id":"372e67954025e0ba6aaa6d586b9e0b59"}}"#;
        const DENIED: &str = r#"{"success":false,"errors":[{"code":9109,"message":"Invalid access token"}],"messages":[],"result":null}"#;
        match head {
            _ if !head.to_ascii_lowercase().contains("authorization: bearer t0ken\r\n") => (403, DENIED),
            _ if head.starts_with("GET /zones?name=example.org ") => (200, ZONE),
            _ if head.starts_with("GET /zones?name=") => (200, EMPTY),
            _ if head.starts_with("POST /zones/023e105f4ecef8ad9ca31a8372d0c353/dns_records ") => (200, MADE),
            _ if head.starts_with("GET /zones/023e105f4ecef8ad9ca31a8372d0c353/dns_records?") => (200, LIST),
            _ if head.starts_with("DELETE ") => (200, GONE),
            _ => (404, "<html>not the API</html>"),
        }
    }

    fn cloudflare(api: String, token: &str) -> Cloudflare {
        let web = Web::new(Trust::System, Egress::direct(), Tasks::new());
        Cloudflare { api, ..Cloudflare::new(web, Secret::new(token.into())) }
    }

    fn record() -> Record {
        Record { name: Name::parse("_acme-challenge.llm.example.org").expect("a name"), value: "value".into() }
    }

    #[tokio::test]
    async fn a_record_is_added_in_the_zone_above_it_and_only_that_record_removed() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (base, _tasks) = api(asked.clone(), answers).await;
        let cloudflare = cloudflare(base, "t0ken");
        cloudflare.set(&record()).await.expect("sets");
        cloudflare.remove(&record()).await.expect("removes");
        let asked = asked.lock().expect("not poisoned").clone();
        let made = asked.iter().find(|request| request.starts_with("POST")).expect("a record is made");
        assert!(made.contains(r#""content":"\"value\"""#) && made.contains(r#""type":"TXT""#), "{made}");
        let removed: Vec<_> = asked.iter().filter(|request| request.starts_with("DELETE")).collect();
        assert_eq!(removed.len(), 1, "what is somebody else's stays");
        assert!(removed[0].contains("/372e67954025e0ba6aaa6d586b9e0b59 "), "{removed:?}");
    }

    #[tokio::test]
    async fn a_wrong_token_and_a_foreign_zone_are_told_and_the_token_is_not() {
        let (base, _tasks) = api(Arc::default(), answers).await;
        let fault = cloudflare(base.clone(), "wrong").set(&record()).await.expect_err("denied");
        assert!(fault.reason.contains("Invalid access token") && fault.reason.contains("9109"), "{}", fault.reason);
        assert!(fault.hint.contains("DNS:Edit") && !fault.reason.contains("wrong"), "{}", fault.hint);
        let foreign = Record { name: Name::parse("_acme-challenge.llm.example.net").expect("a name"), ..record() };
        let fault = cloudflare(base.clone(), "t0ken").set(&foreign).await.expect_err("not its zone");
        assert!(fault.reason.contains("sees no zone"), "{}", fault.reason);
        let shown = format!("{:?}", cloudflare(base, "t0ken"));
        assert!(!shown.contains("t0ken"), "{shown}");
    }
}
