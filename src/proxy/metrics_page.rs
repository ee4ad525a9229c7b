//! `GET /metrics`: counters in Prometheus' text format (version 0.0.4). Labels come only from known names
//! (SPEC §5.13).

use bytes::Bytes;
use http::StatusCode;

use super::exchange::{Answer, Exchange};
use crate::telemetry::histogram::{BUCKETS, Counts, upper_bound_us};
use crate::telemetry::metrics::Sums;
use crate::types::engine::EngineView;

/// Writes the page.
pub(super) fn answer(exchange: &Exchange) -> Answer {
    let shared = &exchange.peer.worker.shared;
    let page = render(&shared.metrics.sums(), &shared.registry.views());
    Answer::Document {
        status: StatusCode::OK,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        body: Bytes::from(page),
    }
}

/// The page's text.
fn render(sums: &Sums, engines: &[EngineView]) -> String {
    let mut out = String::with_capacity(8 << 10);
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in samples {
            out.push_str(&format!("{name}{labels} {value}\n"));
        }
    };
    let one = |value: u64| vec![(String::new(), exact(value))];
    let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let by_class: Vec<_> = classes
        .iter()
        .zip(sums.by_class)
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| (format!("{{status=\"{class}\"}}"), exact(count)))
        .collect();
    family("flm_requests_total", "counter", "Requests ended, by class of status.", &by_class);
    family("flm_requests_refused_total", "counter", "Requests refused by a stage.", &one(sums.refused));
    family(
        "flm_requests_refused_by_address_total",
        "counter",
        "Requests refused by block list or allow list.",
        &one(sums.refused_by_address),
    );
    family(
        "flm_connections_refused_total",
        "counter",
        "Connections refused by limits.",
        &one(sums.refused_connections),
    );
    family("flm_clients_left_total", "counter", "Requests whose client went away.", &one(sums.client_left));
    family(
        "flm_tokens_total",
        "counter",
        "Tokens, by direction.",
        &[
            ("{direction=\"prompt\"}".to_owned(), exact(sums.prompt_tokens)),
            ("{direction=\"completion\"}".to_owned(), exact(sums.completion_tokens)),
        ],
    );
    family("flm_request_body_bytes_total", "counter", "Bytes of request bodies.", &one(sums.bytes_in));
    family("flm_answer_body_bytes_total", "counter", "Bytes of answer bodies.", &one(sums.bytes_out));
    family("flm_requests_in_flight", "gauge", "Requests running now.", &one(sums.in_flight.into()));
    family("flm_streams_active", "gauge", "Streams running now.", &one(sums.streams.into()));
    family("flm_connections_open", "gauge", "Open client connections.", &one(sums.connections.into()));
    let up: Vec<_> =
        engines.iter().map(|engine| (label(engine), if engine.state.serves() { 1.0 } else { 0.0 })).collect();
    family("flm_engine_up", "gauge", "1 when requests may be sent to the engine.", &up);
    let in_flight: Vec<_> = engines.iter().map(|engine| (label(engine), f64::from(engine.in_flight))).collect();
    family("flm_engine_requests_in_flight", "gauge", "Requests running on the engine.", &in_flight);
    family(
        "flm_build_info",
        "gauge",
        "Always 1; the version is a label.",
        &[(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0)],
    );
    histogram(
        &mut out,
        "flm_request_duration_seconds",
        "Head to last byte of requests that were served.",
        &sums.latency,
    );
    histogram(&mut out, "flm_time_to_first_token_seconds", "Head to first token.", &sums.first_token);
    out
}

/// Engine ids hold no character that a label would have to escape.
fn label(engine: &EngineView) -> String {
    format!("{{engine=\"{}\",kind=\"{}\"}}", engine.record.id, engine.record.kind)
}

fn histogram(out: &mut String, name: &str, help: &str, counts: &Counts) {
    out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
    let mut so_far = 0;
    for (at, count) in counts.buckets.iter().enumerate() {
        so_far += count;
        // One bound per power of two: Prometheus interpolates between them.
        if at % 4 == 0 && at + 1 < BUCKETS {
            out.push_str(&format!("{name}_bucket{{le=\"{}\"}} {so_far}\n", seconds(upper_bound_us(at))));
        }
    }
    let total = counts.total();
    out.push_str(&format!("{name}_bucket{{le=\"+Inf\"}} {total}\n"));
    out.push_str(&format!("{name}_sum {}\n{name}_count {total}\n", seconds(counts.sum_us)));
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' samples are floats")]
fn exact(value: u64) -> f64 {
    value as f64
}

fn seconds(us: u64) -> f64 {
    exact(us) / 1e6
}
