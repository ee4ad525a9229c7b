//! Which engine and proxy ports answer from where, with or without a key (SPEC §2 `flm expose-check`).
//!
//! Only addresses that the kernel lists as this machine's own are dialled, straight and by number. That a port answers
//! here at the address of an interface says that it is bound there; what a firewall, a router or a container in front of
//! it lets through cannot be seen from inside.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};

use super::context::{Context, blocking_panicked};
use super::own_endpoint::trust_in;
use crate::engines::registry::ADAPTERS;
use crate::net::connect::Trust;
use crate::net::egress::Egress;
use crate::net::message::Outgoing;
use crate::net::pool::{Pool, PoolConfig, Repeat, SendError};
use crate::net::upstream::Upstream;
use crate::tls::machine::Machine;
use crate::types::address::{canonical, is_public};
use crate::types::audit::Severity;
use crate::types::calls::expose::{
    AddressReach, AnswerSeen, ExposeCheck, ExposeFinding, ExposeReport, KeyNeed, LocalAddress, PortSeen, Problem,
    Service,
};
use crate::types::engine::EngineKind;
use crate::types::failure::Outcome;
use crate::types::ids::EngineId;
use crate::types::listener::ListenerPhase;

/// How long one address may take to connect, and to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions at the same time.
const SIDE_BY_SIDE: usize = 16;
/// What engines and FLM answer to whoever may use them. Ollama guards nothing, so any of its routes tells the same.
const ASKED: &str = "/v1/models";

/// A port to ask.
struct Candidate {
    service: Service,
    /// What asks it: a pool for each way of knowing certificates.
    pool: Pool,
    encryption: Encryption,
}

/// How a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    Tls,
}

/// Looks. Changes nothing.
pub async fn check(context: &Context, _call: ExposeCheck) -> Outcome<ExposeReport> {
    let machine =
        tokio::task::spawn_blocking(Machine::now).await.map_err(|_| blocking_panicked("listing addresses"))?;
    let addresses: Vec<_> = machine.addresses().into_iter().map(local).collect();
    let (candidates, elsewhere) = candidates(context, &addresses)?;
    let heard = hear(&candidates, &addresses).await;
    let mut ports = Vec::new();
    for (port, candidate) in candidates {
        let mut answers: Vec<_> = heard
            .iter()
            .filter(|(asked, ..)| *asked == port)
            .filter_map(|(_, at, heard)| Some((*at, (*heard)?)))
            .collect();
        if answers.is_empty() {
            continue;
        }
        answers.sort_by_key(|(at, _)| (at.reach, at.address));
        let speaks = answers.iter().any(|(_, heard)| heard.speaks);
        let service = match candidate.service {
            // Nobody said that there is an engine but its usual port.
            Service::Engine { id: None, .. } if !speaks => Service::Unknown,
            service => service,
        };
        ports.push(PortSeen {
            port,
            service,
            encrypted: candidate.encryption == Encryption::Tls,
            answers: answers.into_iter().map(|(at, heard)| AnswerSeen { at, key: heard.key }).collect(),
        });
    }
    let mut findings: Vec<_> = ports.iter().filter_map(finding).collect();
    findings.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.port));
    Ok(ExposeReport { addresses, ports, findings, elsewhere })
}

/// Asks every port at every address.
async fn hear(
    candidates: &BTreeMap<u16, Candidate>,
    addresses: &[LocalAddress],
) -> Vec<(u16, LocalAddress, Option<Heard>)> {
    let mut questions = Vec::with_capacity(candidates.len() * addresses.len());
    for (port, candidate) in candidates {
        for at in addresses {
            questions.push(async move { (*port, *at, ask(candidate, *port, at.address).await) });
        }
    }
    let mut heard = Vec::with_capacity(questions.len());
    while !questions.is_empty() {
        let some = questions.split_off(questions.len().saturating_sub(SIDE_BY_SIDE));
        heard.extend(join_all(some).await);
    }
    heard
}

fn local(address: IpAddr) -> LocalAddress {
    let reach = match canonical(address) {
        ip if ip.is_loopback() => AddressReach::Loopback,
        ip if is_public(ip) => AddressReach::Public,
        _ => AddressReach::Private,
    };
    LocalAddress { address, reach }
}

/// Every port that is worth a question, and the engines that are elsewhere.
fn candidates(context: &Context, own: &[LocalAddress]) -> Outcome<(BTreeMap<u16, Candidate>, Vec<EngineId>)> {
    let mut found = BTreeMap::new();
    let mut elsewhere = Vec::new();
    let plain = pool(context, Trust::default());
    let in_clear = |service| Candidate { service, pool: plain.clone(), encryption: Encryption::None };
    for adapter in ADAPTERS {
        let info = adapter.info();
        for port in info.ports {
            let service = Service::Engine { kind: info.kind.clone(), id: None };
            found.insert(*port, in_clear(service));
        }
    }
    for view in context.registry.views() {
        let record = view.record;
        let Ok(upstream) = Upstream::parse(&record.url) else { continue };
        let here = match upstream.host.parse::<IpAddr>() {
            Ok(ip) => canonical(ip).is_loopback() || own.iter().any(|local| local.address == canonical(ip)),
            // Other names are not looked up: the answer could lead elsewhere.
            Err(_name) => upstream.host.eq_ignore_ascii_case("localhost"),
        };
        if here {
            let service = Service::Engine { kind: record.kind, id: Some(record.id) };
            found.insert(upstream.port, in_clear(service));
        } else {
            elsewhere.push(record.id);
        }
    }
    if let Some(live) = &context.live {
        for listener in live.host.status().listeners {
            if listener.phase != ListenerPhase::Running {
                continue;
            }
            let encrypted = listener.tls.is_some();
            if encrypted {
                let port = listener.config.https_port.unwrap_or(listener.config.port.saturating_add(1));
                let pool = pool(context, trust_in(&listener)?);
                found.insert(port, Candidate { service: Service::Proxy, pool, encryption: Encryption::Tls });
                // The plain port only shows the way, and takes no key.
                found.remove(&listener.config.port);
            } else {
                found.insert(listener.config.port, in_clear(Service::Proxy));
            }
        }
    }
    Ok((found, elsewhere))
}

/// Asks straight: a proxy could not reach this machine's own addresses, and must not be asked to.
fn pool(context: &Context, trust: Trust) -> Pool {
    let config = PoolConfig { connect_timeout: PATIENCE, idle_per_upstream: 0, ..PoolConfig::default() };
    Pool::trusting(trust, config, Egress::direct(), context.tasks.clone())
}

/// What a port said.
#[derive(Debug, Clone, Copy)]
struct Heard {
    key: KeyNeed,
    /// Whether it speaks as an engine or FLM does.
    speaks: bool,
}

/// Asks one port at one address, without a key; `None` when nobody answers.
async fn ask(candidate: &Candidate, port: u16, address: IpAddr) -> Option<Heard> {
    let scheme = match candidate.encryption {
        Encryption::Tls => "https",
        Encryption::None => "http",
    };
    let url = format!("{scheme}://{}", SocketAddr::new(address, port));
    let upstream = Upstream::parse(&url).ok()?;
    let fields = [(USER_AGENT, concat!("flm/", env!("CARGO_PKG_VERSION"))), (ACCEPT, "application/json")];
    let request = Outgoing {
        method: Method::GET,
        target: ASKED.into(),
        fields: fields.map(|(name, value)| (name, HeaderValue::from_static(value))).into(),
        body: Bytes::new(),
    };
    match tokio::time::timeout(2 * PATIENCE, candidate.pool.send(&upstream, request, Repeat::ByMethod)).await {
        Ok(Ok(response)) => {
            let json = response.fields.get(&http::header::CONTENT_TYPE);
            let json = json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
            let (key, speaks) = match response.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (KeyNeed::Key, json),
                status if status.is_success() => (KeyNeed::None, json),
                _ => (KeyNeed::Unknown, false),
            };
            Some(Heard { key, speaks })
        }
        Ok(Err(SendError::Connect { .. })) => None,
        // It took the connection.
        Ok(Err(SendError::BeforeAnswer { .. })) | Err(_) => Some(Heard { key: KeyNeed::Unknown, speaks: false }),
    }
}

/// What is wrong with a port, if something is.
fn finding(seen: &PortSeen) -> Option<ExposeFinding> {
    let open = |answer: &&AnswerSeen| answer.key == KeyNeed::None;
    let outside: Vec<_> = seen.answers.iter().filter(|answer| answer.at.reach > AddressReach::Loopback).collect();
    let public = outside.iter().any(|answer| answer.at.reach == AddressReach::Public);
    let proxy_open = seen.service == Service::Proxy && seen.answers.iter().any(|answer| open(&answer));
    if outside.is_empty() && !proxy_open {
        return None;
    }
    let (problem, severity) = match &seen.service {
        Service::Proxy if proxy_open => (Problem::ProxyOpen, Severity::Critical),
        Service::Proxy if seen.encrypted => return None,
        Service::Proxy => (Problem::ProxyInClear, if public { Severity::Critical } else { Severity::High }),
        Service::Engine { .. } if outside.iter().any(open) => {
            (Problem::EngineOpen, if public { Severity::Critical } else { Severity::High })
        }
        Service::Engine { .. } => (Problem::EngineReachable, if public { Severity::High } else { Severity::Medium }),
        Service::Unknown => (Problem::UnknownService, Severity::Low),
    };
    let addresses = match problem {
        Problem::ProxyOpen => seen.answers.iter().filter(open).map(|answer| answer.at.address).collect(),
        _ => outside.iter().map(|answer| answer.at.address).collect(),
    };
    Some(ExposeFinding {
        severity,
        problem,
        port: seen.port,
        service: seen.service.clone(),
        addresses,
        mend: mend(problem, &seen.service, seen.port),
    })
}

/// Commands and settings that mend it (ENGINES.md §2, §5).
fn mend(problem: Problem, service: &Service, port: u16) -> Vec<String> {
    let firewall = format!("sudo ufw deny {port}/tcp");
    let mut steps = match (problem, service) {
        (Problem::ProxyInClear, _) => {
            return vec![
                "flm proxy stop --all && flm proxy start --mode packaged-ca --bind 0.0.0.0".to_owned(),
                "flm proxy start --bind 127.0.0.1".to_owned(),
                "flm firewall preview".to_owned(),
            ];
        }
        (Problem::ProxyOpen, _) => {
            return vec!["flm proxy stop --all".to_owned(), "flm security policy show".to_owned()];
        }
        (_, Service::Engine { kind, .. }) => engine_mend(kind, port),
        (_, Service::Proxy | Service::Unknown) => vec![format!("sudo ss -ltnp 'sport = :{port}'")],
    };
    steps.push(firewall);
    steps
}

fn engine_mend(kind: &EngineKind, port: u16) -> Vec<String> {
    match kind.as_str() {
        "ollama" => vec![
            format!("OLLAMA_HOST=127.0.0.1:{port} ollama serve"),
            format!(
                "sudo systemctl edit ollama   ([Service] Environment=\"OLLAMA_HOST=127.0.0.1:{port}\"), then: sudo systemctl \
                 restart ollama"
            ),
        ],
        "vllm" => vec![
            format!("vllm serve MODEL --host 127.0.0.1 --port {port}"),
            "--api-key guards /v1 only: /metrics and /tokenize stay open".to_owned(),
        ],
        "llamacpp" => vec![format!("llama-server --host 127.0.0.1 --port {port}   (and unset LLAMA_ARG_HOST)")],
        "lmstudio" => vec![
            format!("lms server stop && lms server start --port {port} --bind 127.0.0.1"),
            "LM Studio: Developer > Server Settings > Serve on Local Network: off".to_owned(),
        ],
        _ => vec!["start it with its address set to 127.0.0.1".to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(service: Service, encrypted: bool, answers: &[(&str, KeyNeed)]) -> PortSeen {
        let answer = |(address, key): &(&str, KeyNeed)| AnswerSeen {
            at: local(address.parse().expect("an address")),
            key: *key,
        };
        PortSeen { port: 11434, service, encrypted, answers: answers.iter().map(answer).collect() }
    }

    fn engine(kind: &'static str) -> Service {
        Service::Engine { kind: EngineKind::named(kind), id: None }
    }

    #[test]
    fn how_bad_it_is_depends_on_who_reaches_it_and_on_the_key() {
        let loopback = ("127.0.0.1", KeyNeed::None);
        for (service, encrypted, answers, expected) in [
            (engine("ollama"), false, vec![loopback], None),
            (
                engine("ollama"),
                false,
                vec![loopback, ("192.168.1.5", KeyNeed::None)],
                Some((Problem::EngineOpen, Severity::High)),
            ),
            (engine("vllm"), false, vec![("8.8.8.8", KeyNeed::None)], Some((Problem::EngineOpen, Severity::Critical))),
            (
                engine("vllm"),
                false,
                vec![("192.168.1.5", KeyNeed::Key)],
                Some((Problem::EngineReachable, Severity::Medium)),
            ),
            (Service::Proxy, false, vec![("127.0.0.1", KeyNeed::Key)], None),
            (Service::Proxy, true, vec![("8.8.8.8", KeyNeed::Key)], None),
            (Service::Proxy, false, vec![("192.168.1.5", KeyNeed::Key)], Some((Problem::ProxyInClear, Severity::High))),
            (Service::Proxy, true, vec![loopback], Some((Problem::ProxyOpen, Severity::Critical))),
            (
                Service::Unknown,
                false,
                vec![("192.168.1.5", KeyNeed::Unknown)],
                Some((Problem::UnknownService, Severity::Low)),
            ),
        ] {
            let found = finding(&seen(service.clone(), encrypted, &answers));
            assert_eq!(found.map(|found| (found.problem, found.severity)), expected, "{service:?} {answers:?}");
        }
    }

    #[test]
    fn every_kind_of_engine_has_a_mend_of_its_own() {
        let general = engine_mend(&EngineKind::named("openai"), 1);
        for adapter in ADAPTERS.iter().filter(|adapter| !adapter.info().ports.is_empty()) {
            let steps = engine_mend(&adapter.info().kind, 1);
            assert!(steps != general && steps[0].contains("127.0.0.1"), "{}: {steps:?}", adapter.info().kind);
        }
    }

    #[test]
    fn addresses_are_sorted_by_who_reaches_them() {
        for (address, reach) in [
            ("127.0.0.1", AddressReach::Loopback),
            ("::1", AddressReach::Loopback),
            ("10.1.2.3", AddressReach::Private),
            ("fd00::1", AddressReach::Private),
            ("100.64.0.1", AddressReach::Private),
            ("8.8.8.8", AddressReach::Public),
            ("2606:4700::1", AddressReach::Public),
        ] {
            assert_eq!(local(address.parse().expect("an address")).reach, reach, "{address}");
        }
    }
}
