//! `GET /metrics`: counters in Prometheus' text format (version 0.0.4). Labels come only from known engines, models, keys,
//! routes and rules (SPEC §5.13). Names, units and meanings are promised in docs/monitoring.md: they are not changed, only
//! added to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::exchange::{Answer, Exchange};
use crate::telemetry::histogram::{BUCKETS, Counts, upper_bound_us};
use crate::telemetry::metrics::{RouteCounts, Sums};
use crate::telemetry::usage::UsedBy;
use crate::types::audit::{AuditKind, Severity};
use crate::types::calls::audit::AuditHealth;
use crate::types::clock::UnixMillis;
use crate::types::engine::{EngineState, EngineView};
use crate::types::text::escape;
use crate::types::usage::UsageSums;

/// Status classes in the order of [`Sums::by_class`].
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// What is not known is summed under it.
const OTHER: &str = "other";

/// What the page tells.
struct Told {
    sums: Sums,
    by_route: Vec<RouteCounts>,
    used: Vec<(UsedBy, UsageSums)>,
    engines: Vec<EngineView>,
    events: Vec<(AuditKind, Severity, u64)>,
    audit_waiting: usize,
    audit: AuditHealth,
    blocks: u64,
    certificates: Vec<(u16, UnixMillis)>,
    overloaded: bool,
    public: bool,
    /// Exported and dropped.
    traces: (u64, u64),
    captures_lost: u64,
}

/// Writes the page.
pub(super) fn answer(exchange: &Exchange) -> Answer {
    let shared = &exchange.peer.worker.shared;
    let models = shared.registry.models();
    let known: BTreeSet<(&str, &str)> =
        models.iter().map(|model| (model.name.engine.as_str(), &*model.name.model)).collect();
    // What a key named and no engine lists is outside text without end.
    let mut used: BTreeMap<UsedBy, UsageSums> = BTreeMap::new();
    for (mut by, sums) in shared.metrics.used_since_start() {
        if !known.contains(&(by.engine.as_str(), &*by.model)) {
            by.model = OTHER.into();
        }
        *used.entry(by).or_default() += sums;
    }
    let page = render(&Told {
        sums: shared.metrics.sums(),
        by_route: shared.metrics.by_route(),
        used: used.into_iter().collect(),
        engines: shared.registry.views(),
        events: shared.audit.recorded(),
        audit_waiting: shared.audit.waiting(),
        audit: shared.audit.health(),
        blocks: shared.guard.blocks(0, 0, shared.clock.wall()).total,
        certificates: shared.served.ends(),
        overloaded: shared.guard.overload().is_some(),
        public: shared.guard.is_public(),
        traces: shared.metrics.traces().sums(),
        captures_lost: shared.captures.lost(),
    });
    Answer::Document {
        status: StatusCode::OK,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body: Bytes::from(page),
    }
}

/// A page being written.
struct Page(String);

impl Page {
    /// Begins a family. `kind` is `counter`, `gauge` or `histogram`.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Family { page: &mut self.0, name }
    }

    fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, "counter", help).sample(&[], exact(value));
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: f64) {
        self.family(name, "gauge", help).sample(&[], value);
    }

    fn histogram(&mut self, name: &'static str, help: &str, counts: &Counts) {
        let out = self.family(name, "histogram", help).page;
        let mut so_far = 0;
        let mut write = |suffix: &str, value: &str| out.push_str(&format!("{name}{suffix} {value}\n"));
        for (at, count) in counts.buckets.iter().enumerate() {
            so_far += count;
            // One bound per power of two: Prometheus interpolates between them.
            if at % 4 == 0 && at + 1 < BUCKETS {
                write(&format!("_bucket{{le=\"{}\"}}", seconds(upper_bound_us(at))), &so_far.to_string());
            }
        }
        let total = counts.total().to_string();
        write("_bucket{le=\"+Inf\"}", &total);
        write("_sum", &seconds(counts.sum_us).to_string());
        write("_count", &total);
    }
}

/// A family whose samples are being written.
struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.page.push_str(self.name);
        for (nth, (label, value)) in labels.iter().enumerate() {
            self.page.push(if nth == 0 { '{' } else { ',' });
            self.page.push_str(label);
            self.page.push_str("=\"");
            // Outside text such as an engine's name for a model: whoever looks at the page has a terminal too (SPEC §5.13).
            for character in escape(value).chars() {
                match character {
                    '\\' => self.page.push_str("\\\\"),
                    '"' => self.page.push_str("\\\""),
                    other => self.page.push(other),
                }
            }
            self.page.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        self.page.push_str(&format!("{end} {value}\n"));
    }
}

/// The page's text.
fn render(told: &Told) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    requests(&mut page, &told.sums, &told.by_route);
    usage(&mut page, &told.used);
    engines(&mut page, &told.engines);
    guard(&mut page, told);
    let mut build = page.family("flm_build_info", "gauge", "Always 1; the version is a label.");
    build.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.0
}

fn requests(page: &mut Page, sums: &Sums, by_route: &[RouteCounts]) {
    let mut family = page.family("flm_requests_total", "counter", "Requests ended, by class of status.");
    for (class, count) in CLASSES.iter().zip(sums.by_class).filter(|(_, count)| *count > 0) {
        family.sample(&[("status", class)], exact(count));
    }
    let help = "Requests ended, by route and class of status; route \"none\" is what matched no route.";
    let mut family = page.family("flm_route_requests_total", "counter", help);
    for counts in by_route {
        let route = counts.route.as_deref().unwrap_or("none");
        for (class, count) in CLASSES.iter().zip(counts.by_class).filter(|(_, count)| *count > 0) {
            family.sample(&[("route", route), ("status", class)], exact(count));
        }
    }
    page.counter("flm_requests_refused_total", "Requests refused by a stage.", sums.refused);
    let help = "Requests refused by block list or allow list.";
    page.counter("flm_requests_refused_by_address_total", help, sums.refused_by_address);
    let help = "Refusals that waited for their turn, as they do in a flood.";
    page.counter("flm_refusals_delayed_total", help, sums.delayed);
    page.counter("flm_connections_refused_total", "Connections refused by limits.", sums.refused_connections);
    page.counter("flm_clients_left_total", "Requests whose client went away.", sums.client_left);
    let mut family = page.family("flm_tokens_total", "counter", "Tokens, by direction.");
    family.sample(&[("direction", "prompt")], exact(sums.prompt_tokens));
    family.sample(&[("direction", "completion")], exact(sums.completion_tokens));
    page.counter("flm_request_body_bytes_total", "Bytes of request bodies.", sums.bytes_in);
    page.counter("flm_answer_body_bytes_total", "Bytes of answer bodies.", sums.bytes_out);
    page.gauge("flm_requests_in_flight", "Requests running now.", sums.in_flight.into());
    page.gauge("flm_streams_active", "Streams running now.", sums.streams.into());
    page.gauge("flm_connections_open", "Open client connections.", sums.connections.into());
    let help = "Head to last byte of requests that were not refused.";
    page.histogram("flm_request_duration_seconds", help, &sums.latency);
    page.histogram("flm_time_to_first_token_seconds", "Head to first token.", &sums.first_token);
}

fn usage(page: &mut Page, used: &[(UsedBy, UsageSums)]) {
    let help = "Requests that an engine was asked, by key, model and engine.";
    let mut family = page.family("flm_usage_requests_total", "counter", help);
    for (by, sums) in used {
        family.sample(&labels(by), exact(sums.requests));
    }
    let mut family = page.family("flm_usage_failed_total", "counter", "Those of them whose engine failed.");
    for (by, sums) in used {
        family.sample(&labels(by), exact(sums.failed));
    }
    let help = "Tokens of ended requests, by key, model, engine and direction.";
    let mut family = page.family("flm_usage_tokens_total", "counter", help);
    for (by, sums) in used {
        for (direction, tokens) in [("prompt", sums.prompt_tokens), ("completion", sums.completion_tokens)] {
            let [key, model, engine] = labels(by);
            family.sample(&[key, model, engine, ("direction", direction)], exact(tokens));
        }
    }
}

fn labels(by: &UsedBy) -> [(&'static str, &str); 3] {
    [("key", by.key.as_str()), ("model", &by.model), ("engine", by.engine.as_str())]
}

fn engines(page: &mut Page, engines: &[EngineView]) {
    let mut family = |name, help, value: &dyn Fn(&EngineView) -> Option<f64>| {
        let mut family = page.family(name, "gauge", help);
        for engine in engines {
            if let Some(value) = value(engine) {
                let (id, kind) = (engine.record.id.as_str(), engine.record.kind.as_str());
                family.sample(&[("engine", id), ("kind", kind)], value);
            }
        }
    };
    let flag = |holds: bool| Some(f64::from(u8::from(holds)));
    family("flm_engine_up", "1 when requests may be sent to the engine.", &|engine| flag(engine.state.serves()));
    family("flm_engine_degraded", "1 when the engine answers slowly, or with 429 or 503.", &|engine| {
        flag(matches!(engine.state, EngineState::RunningDegraded { .. }))
    });
    family("flm_engine_check_latency_seconds", "Latency of the last good health check.", &|engine| {
        engine.state.latency_ms().map(|latency| f64::from(latency) / 1e3)
    });
    family("flm_engine_models", "Models that the engine lists.", &|engine| Some(engine.models.into()));
    family("flm_engine_requests_in_flight", "Requests running on the engine.", &|engine| Some(engine.in_flight.into()));
    family("flm_engine_requests_queued", "Requests waiting for a slot of the engine.", &|engine| {
        Some(engine.queued.into())
    });
    family("flm_engine_slots", "Requests that the engine runs at once.", &|engine| Some(engine.slots.into()));
}

fn guard(page: &mut Page, told: &Told) {
    let help = "Security events by kind and severity: blocks, detections, keys refused, changes.";
    let mut family = page.family("flm_audit_events_total", "counter", help);
    for (kind, severity, count) in &told.events {
        family.sample(&[("kind", &word(kind)), ("severity", &word(severity))], exact(*count));
    }
    page.gauge(
        "flm_audit_events_waiting",
        "Security events that wait to be written.",
        exact(told.audit_waiting as u64),
    );
    let help = "Security events that were shed because too many waited.";
    page.counter("flm_audit_events_shed_total", help, told.audit.shed);
    let help = "Security events that could not be written at all.";
    page.counter("flm_audit_events_unwritten_total", help, told.audit.unwritten);
    let failing = f64::from(u8::from(told.audit.failing.is_some()));
    page.gauge("flm_audit_failing", "1 while security events cannot be written.", failing);
    page.gauge("flm_blocked_networks", "Entries of the block list in force.", exact(told.blocks));
    let help = "When the certificate of the TLS port ends, in seconds since 1970.";
    let mut family = page.family("flm_certificate_expires_timestamp_seconds", "gauge", help);
    for (port, end) in &told.certificates {
        family.sample(&[("port", &port.to_string())], exact(u64::try_from(end.0).unwrap_or_default()) / 1e3);
    }
    let overloaded = f64::from(u8::from(told.overloaded));
    page.gauge("flm_overloaded", "1 while new work is refused to protect the machine.", overloaded);
    let public = f64::from(u8::from(told.public));
    let (exported, dropped) = told.traces;
    page.counter("flm_traces_exported_total", "Traces that the collector of traces took.", exported);
    let help = "Traces that were dropped: the queue was full, or the collector did not take them.";
    page.counter("flm_traces_dropped_total", help, dropped);
    let help = "Captured exchanges that were lost because the disk was slow.";
    page.counter("flm_captures_lost_total", help, told.captures_lost);
    page.gauge("flm_exposure_public", "1 when the endpoint is guarded as one that strangers reach.", public);
}

/// A value of a closed list as JSON writes it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or(OTHER).to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' samples are floats")]
fn exact(value: u64) -> f64 {
    value as f64
}

fn seconds(us: u64) -> f64 {
    exact(us) / 1e6
}
