//! DNS provider `acme-dns`: a server that does nothing but answer challenges, to which `_acme-challenge` points by CNAME
//! (github.com/joohoi/acme-dns).

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::provider::{Fault, Provider, Record};
use crate::net::web::Web;
use crate::types::secret::Secret;
use crate::types::text::escape;

/// An account at an acme-dns server.
#[derive(Debug)]
pub(super) struct AcmeDns {
    pub(super) web: Web,
    pub(super) url: String,
    pub(super) user: String,
    pub(super) password: Secret,
    pub(super) subdomain: String,
}

impl AcmeDns {
    async fn update(&self, record: &Record) -> Result<(), Fault> {
        const CHECK: &str =
            "check acme.dns.user, acme.dns.acme_dns_subdomain and the password against what the registration told";
        let wrong = |error: http::Error| Fault::new(error.to_string(), CHECK);
        let body = json!({ "subdomain": self.subdomain, "txt": record.value }).to_string();
        let request = Request::post(format!("{}/update", self.url.trim_end_matches('/')))
            .header("x-api-user", &self.user)
            .header("x-api-key", self.password.expose())
            .header(CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(wrong)?;
        let answer = self.web.send(request).await;
        let answer = answer.map_err(|error| {
            Fault::new(escape(&error.to_string()), "check acme.dns.acme_dns_url, and that the server runs")
        })?;
        if answer.status().is_success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(answer.body()).chars().take(200).collect();
        Err(Fault::new(format!("it answered {}: {}", answer.status(), escape(said.trim())), CHECK))
    }
}

impl Provider for AcmeDns {
    fn name(&self) -> &'static str {
        "acme-dns"
    }

    fn set<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(self.update(record))
    }

    /// Its API cannot remove: it keeps the last two values, and each new one pushes the oldest out. Nothing else is ever
    /// served there.
    fn remove<'a>(&'a self, _record: &'a Record) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::net::connect::Trust;
    use crate::net::dns::message::Name;
    use crate::net::egress::Egress;
    use crate::telemetry::tasks::Tasks;
    use crate::tls::acme::provider::tests::api;

    #[tokio::test]
    async fn the_value_is_sent_for_the_accounts_subdomain_and_a_refusal_told() {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (url, _tasks) = api(asked.clone(), |head| {
            if head.to_ascii_lowercase().contains("x-api-key: password\r\n") {
                (200, r#"{"txt":"value"}"#)
            } else {
                (401, r#"{"error":"forbidden"}"#)
            }
        })
        .await;
        let account = |password: &str| AcmeDns {
            web: Web::new(Trust::System, Egress::direct(), Tasks::new()),
            url: url.clone(),
            user: "c36f50e8".into(),
            password: Secret::new(password.into()),
            subdomain: "8e5700ea".into(),
        };
        let record =
            Record { name: Name::parse("_acme-challenge.llm.example").expect("a name"), value: "value".into() };
        account("password").set(&record).await.expect("sets");
        account("password").remove(&record).await.expect("has nothing to do");
        let asked = asked.lock().expect("not poisoned").clone();
        let [update] = asked.as_slice() else { panic!("{asked:?}") };
        assert!(update.starts_with("POST /update ") && update.contains("x-api-user: c36f50e8\r\n"), "{update}");
        assert!(update.ends_with(r#"{"subdomain":"8e5700ea","txt":"value"}"#), "{update}");
        let fault = account("another").set(&record).await.expect_err("refused");
        assert!(fault.reason.contains("401") && fault.reason.contains("forbidden"), "{}", fault.reason);
        assert!(!fault.reason.contains("another") && fault.hint.contains("acme.dns.user"));
    }
}
