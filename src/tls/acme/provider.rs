//! [`Provider`]: sets and removes TXT records somewhere. One file per kind; a new one is a line in [`super::plan`].

use futures_util::future::BoxFuture;

use super::error::AcmeError;
use crate::net::dns::message::Name;

/// How long others may keep a record, seconds: it is gone within minutes, and providers take no less.
pub(super) const TTL: u32 = 60;

/// A TXT record that proves a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// `_acme-challenge.` and the domain.
    pub(super) name: Name,
    /// The digest of the key authorization (RFC 8555 §8.4).
    pub(super) value: String,
}

/// Sets and removes TXT records. A name may carry several: a domain and its wildcard share it.
pub(super) trait Provider: Send + Sync + std::fmt::Debug {
    /// As the setting names it.
    fn name(&self) -> &'static str;

    /// Adds a record; those that are there stay.
    fn set<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>>;

    /// Removes exactly this record; fine when it is not there. Asked on every way out, also when setting it failed or was
    /// broken off.
    fn remove<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, Result<(), Fault>>;
}

/// Why a provider did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// What it said, made safe to show.
    pub(super) reason: String,
    /// What to do.
    pub(super) hint: String,
}

impl Fault {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }

    pub(super) fn into_error(self, provider: &dyn Provider, action: &'static str, record: &Record) -> AcmeError {
        let Self { reason, hint } = self;
        AcmeError::Provider { provider: provider.name(), action, name: record.name.to_string(), reason, hint }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use crate::telemetry::tasks::Tasks;

    /// A service that answers each request by its head; what it was asked, bodies included, is kept.
    pub(in crate::tls::acme) async fn api(
        asked: Arc<Mutex<Vec<String>>>,
        answer: impl Fn(&str) -> (u16, &'static str) + Send + 'static,
    ) -> (String, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let tasks = Tasks::new();
        tasks.spawn_until_end("service", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = String::new();
                let body = loop {
                    let mut piece = [0; 4096];
                    let read = stream.read(&mut piece).await.expect("reads");
                    text.push_str(std::str::from_utf8(&piece[..read]).expect("text"));
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let head = head.to_ascii_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    if body.len() >= length.map_or(0, |length| length.parse().expect("a number")) {
                        break body.len();
                    }
                };
                let (status, body) = answer(&text[..text.len() - body]);
                asked.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await.expect("writes");
                stream.write_all(body.as_bytes()).await.expect("writes");
            }
        });
        (base, tasks)
    }
}
