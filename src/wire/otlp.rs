//! Spans of ended requests as an OTLP document (`ExportTraceServiceRequest` in JSON,
//! github.com/open-telemetry/opentelemetry-proto, docs/specification.md), named after OpenTelemetry's conventions for HTTP
//! and generative AI.
//!
//! Called by `daemon`, which sends it. Must never hold what is in a request's or an answer's body.

use std::borrow::Borrow;

use serde_json::{Value, json};

use crate::types::request::{Progress, RequestEnd, RequestRow, StageTimes};
use crate::types::text::escape;
use crate::types::trace::{ClientIs, RequestTrace, Sampled, TracePlace};

/// `Span.SpanKind` of trace.proto.
#[derive(Clone, Copy)]
enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// `Status.StatusCode` of trace.proto: an error; what went well is left unset, as the conventions have it.
const STATUS_ERROR: u32 = 2;

/// Methods that a span may be named after; others are outside text (HTTP conventions, `http.request.method`).
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// The place in its trace of a request that ended and is recorded.
#[must_use]
pub fn recorded(row: &RequestRow) -> Option<(&RequestTrace, TracePlace<'_>)> {
    let trace = row.trace.as_deref()?;
    let client = if row.key.is_some() { ClientIs::Known } else { ClientIs::Stranger };
    let place = trace.place(client);
    (place.sampled == Sampled::Yes && row.progress != Progress::Running).then_some((trace, place))
}

/// The document for all recorded requests among `rows`. `fresh` gives random ids for the spans of stages, never 0.
#[must_use]
pub fn document(rows: &[impl Borrow<RequestRow>], version: &str, fresh: &mut impl FnMut() -> u64) -> Value {
    let mut spans = Vec::new();
    for row in rows.iter().map(Borrow::borrow) {
        if let Some((trace, place)) = recorded(row) {
            Writer { row, trace, place, fresh: &mut *fresh, spans: &mut spans }.write();
        }
    }
    let resource = [text("service.name", "flm"), text("service.version", version)];
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "flm", "version": version}, "spans": spans}],
    }]})
}

struct Writer<'a, F> {
    row: &'a RequestRow,
    trace: &'a RequestTrace,
    place: TracePlace<'a>,
    fresh: &'a mut F,
    spans: &'a mut Vec<Value>,
}

impl<F: FnMut() -> u64> Writer<'_, F> {
    fn write(&mut self) {
        let row = self.row;
        let Progress::Ended { end, took_us } = row.progress else { return };
        let method = METHODS.into_iter().find(|known| *known == row.method);
        let name = [Some(method.unwrap_or("HTTP")), row.route.as_deref()];
        let name = name.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let mut span =
            self.span(self.trace.request, self.place.parent, Kind::Server, &name, (0, took_us), &self.attributes(end));
        if let Some(state) = self.place.state {
            span["traceState"] = state.into();
        }
        // A client's mistake is no error of the server (HTTP conventions, "Status").
        if row.status >= 500 || end == RequestEnd::EngineFailed {
            span["status"] = json!({"code": STATUS_ERROR});
        }
        self.spans.push(span);
        let last = self.stages(&row.stages);
        if let Some(sent) = row.stages.sent {
            let span = self.call(end, u64::from(sent), took_us.max(last));
            self.spans.push(span);
        }
    }

    /// A span for each stage that was left; answers when the last one was, in microseconds.
    fn stages(&mut self, stages: &StageTimes) -> u64 {
        let mut began = 0;
        for (name, left) in [
            ("screen", stages.screened),
            ("authenticate", stages.authenticated),
            ("read body", stages.parsed),
            ("resolve model", stages.resolved),
            ("wait for a slot", stages.sent),
        ] {
            let Some(left) = left.map(u64::from) else { continue };
            let id = (self.fresh)();
            let span = self.span(id, Some(self.trace.request), Kind::Internal, name, (began, left), &[]);
            self.spans.push(span);
            began = left;
        }
        began
    }

    /// The engine's part, from the request's sending to the end of the answer.
    fn call(&self, end: RequestEnd, sent: u64, ended: u64) -> Value {
        let row = self.row;
        let mut attributes = self.of_model();
        attributes.extend(row.engine.as_ref().map(|engine| text("flm.engine", engine.as_str())));
        let operation = self.operation().unwrap_or("call");
        let name = match row.model.as_deref() {
            Some(model) => format!("{operation} {}", escape(model)),
            None => operation.to_owned(),
        };
        let times = (sent, ended);
        let mut span = self.span(self.trace.call, Some(self.trace.request), Kind::Client, &name, times, &attributes);
        let events = [("first byte", row.stages.first_byte), ("first token", row.stages.first_token)];
        let events = events
            .into_iter()
            .filter_map(|(name, at)| Some(json!({"timeUnixNano": self.nanoseconds(at?.into()), "name": name})));
        span["events"] = events.collect();
        if end == RequestEnd::EngineFailed {
            span["status"] = json!({"code": STATUS_ERROR});
        }
        span
    }

    fn span(
        &self,
        id: u64,
        parent: Option<u64>,
        kind: Kind,
        name: &str,
        (began, ended): (u64, u64),
        attributes: &[Value],
    ) -> Value {
        let mut span = json!({
            "traceId": format!("{:032x}", self.place.trace),
            "spanId": format!("{id:016x}"),
            "name": name,
            "kind": kind as u8,
            "startTimeUnixNano": self.nanoseconds(began),
            "endTimeUnixNano": self.nanoseconds(ended.max(began)),
            "attributes": attributes,
        });
        if let Some(parent) = parent {
            span["parentSpanId"] = format!("{parent:016x}").into();
        }
        span
    }

    /// A time after the request's head, as OTLP writes it: a number of 64 bits in a string.
    fn nanoseconds(&self, after_us: u64) -> String {
        let began = u128::try_from(self.row.at.0).unwrap_or_default() * 1_000_000;
        (began + u128::from(after_us) * 1_000).to_string()
    }

    fn attributes(&self, end: RequestEnd) -> Vec<Value> {
        let row = self.row;
        let mut all = vec![
            text("http.request.method", METHODS.into_iter().find(|known| *known == row.method).unwrap_or("_OTHER")),
            text("url.path", &escape(&row.path)),
            text("client.address", &row.client.to_string()),
            number("http.request.body.size", row.bytes_in),
            number("http.response.body.size", row.bytes_out),
            text("flm.request.id", row.id.as_str()),
            text("flm.end", end_name(end)),
            json!({"key": "flm.stream", "value": {"boolValue": row.stream}}),
        ];
        all.extend(row.route.as_deref().map(|route| text("http.route", route)));
        all.extend((row.status > 0).then(|| number("http.response.status_code", row.status.into())));
        all.extend(row.error_code.as_deref().map(|code| text("error.type", &escape(code))));
        all.extend(row.user_agent.as_deref().map(|agent| text("user_agent.original", &escape(agent))));
        all.extend(row.key.map(|key| text("flm.key.id", key.as_str())));
        all.extend(row.engine.as_ref().map(|engine| text("flm.engine", engine.as_str())));
        all.extend(self.of_model());
        all
    }

    fn of_model(&self) -> Vec<Value> {
        let row = self.row;
        let mut all = Vec::new();
        all.extend(self.operation().map(|operation| text("gen_ai.operation.name", operation)));
        all.extend(row.model.as_deref().map(|model| text("gen_ai.request.model", &escape(model))));
        if row.tokens.total() > 0 {
            all.push(number("gen_ai.usage.input_tokens", row.tokens.prompt));
            all.push(number("gen_ai.usage.output_tokens", row.tokens.completion));
        }
        all
    }

    /// What is asked of the model; `None` for routes that the conventions have no word for.
    fn operation(&self) -> Option<&'static str> {
        match self.row.route.as_deref()? {
            "chat.completions" | "responses" | "messages" | "api.chat" => Some("chat"),
            "completions" | "api.generate" => Some("text_completion"),
            "embeddings" | "api.embed" | "api.embeddings" => Some("embeddings"),
            _ => None,
        }
    }
}

fn end_name(end: RequestEnd) -> &'static str {
    match end {
        RequestEnd::Completed => "completed",
        RequestEnd::Refused => "refused",
        RequestEnd::EngineFailed => "engine_failed",
        RequestEnd::ClientLeft => "client_left",
        RequestEnd::Cancelled => "cancelled",
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::clock::UnixMillis;
    use crate::types::ids::{EngineId, KeyId};
    use crate::types::request::TokenUsage;
    use crate::types::trace::TraceParent;

    const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn row(key: Option<&str>) -> RequestRow {
        let trace = RequestTrace::new(TraceParent::parse(PARENT), Some(b"v=1"), (7, (8 << 64) | 9), Sampled::Yes);
        RequestRow {
            at: UnixMillis(1_800_000_000_000),
            key: key.map(|id| KeyId::parse(id).expect("an id")),
            route: Some("chat.completions".into()),
            model: Some("tiny\u{1b}[31m".into()),
            engine: Some(EngineId::parse("lab").expect("an id")),
            tokens: TokenUsage { prompt: 3, completion: 4, ..TokenUsage::default() },
            stages: StageTimes {
                screened: Some(10),
                authenticated: Some(20),
                parsed: Some(30),
                resolved: Some(40),
                sent: Some(1_040),
                first_byte: Some(5_000),
                first_token: Some(6_000),
            },
            progress: Progress::Ended { end: RequestEnd::Completed, took_us: 9_000 },
            trace: Some(Box::new(trace)),
            ..RequestRow::example(1)
        }
    }

    fn spans(rows: &[RequestRow]) -> Vec<Value> {
        let mut next = 100;
        let mut fresh = || {
            next += 1;
            next
        };
        let document = document(rows, "1.2.3", &mut fresh);
        document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().expect("spans").clone()
    }

    fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
        let all = span["attributes"].as_array().expect("attributes");
        all.iter().find(|attribute| attribute["key"] == key).map_or(&Value::Null, |found| &found["value"])
    }

    #[test]
    fn a_request_is_a_span_with_one_for_each_stage_and_one_for_the_engine() {
        let spans = spans(&[row(Some("Ab12Cd34"))]);
        let told: Vec<_> = spans
            .iter()
            .map(|span| {
                let time = |name: &str| {
                    let time: u64 = span[name].as_str().expect("a text").parse().expect("a number");
                    time - 1_800_000_000_000_000_000
                };
                (span["name"].as_str().expect("a name"), time("startTimeUnixNano"), time("endTimeUnixNano"))
            })
            .collect();
        let wanted = [
            ("POST chat.completions", 0, 9_000_000),
            ("screen", 0, 10_000),
            ("authenticate", 10_000, 20_000),
            ("read body", 20_000, 30_000),
            ("resolve model", 30_000, 40_000),
            ("wait for a slot", 40_000, 1_040_000),
            ("chat tiny\\x1b[31m", 1_040_000, 9_000_000),
        ];
        assert_eq!(told, wanted);
        let server = &spans[0];
        assert_eq!(server["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((&server["parentSpanId"], &server["traceState"]), (&"00f067aa0ba902b7".into(), &"v=1".into()));
        assert!(spans[1..].iter().all(|span| span["parentSpanId"] == server["spanId"]), "{spans:#?}");
        assert_eq!(spans[6]["spanId"], "0000000000000009", "what the engine was told");
        assert_eq!(spans[6]["events"][1]["name"], "first token");
        assert_eq!(attribute(server, "gen_ai.usage.output_tokens"), &json!({"intValue": "4"}));
        assert_eq!(attribute(server, "flm.engine"), &json!({"stringValue": "lab"}));
        assert_eq!(server["status"], Value::Null);
    }

    #[test]
    fn a_stranger_is_in_no_trace_of_others_and_only_what_failed_is_an_error() {
        let refused = RequestRow {
            status: 401,
            error_code: Some("invalid_api_key".into()),
            method: "EVIL".into(),
            route: None,
            stages: StageTimes { screened: Some(5), ..StageTimes::default() },
            progress: Progress::Ended { end: RequestEnd::Refused, took_us: 9 },
            ..row(None)
        };
        let told = spans(&[refused]);
        assert_eq!(told.len(), 2, "no engine was asked");
        assert_eq!((&told[0]["traceId"], &told[0]["parentSpanId"]), (&format!("{:032x}", 7).into(), &Value::Null));
        assert_eq!(told[0]["name"], "HTTP");
        assert_eq!(attribute(&told[0], "http.request.method"), &json!({"stringValue": "_OTHER"}));
        assert_eq!((&told[0]["status"], &told[0]["traceState"]), (&Value::Null, &Value::Null));
        let failed = RequestRow {
            progress: Progress::Ended { end: RequestEnd::EngineFailed, took_us: 9_000 },
            ..row(Some("Ab12Cd34"))
        };
        let told = spans(&[failed]);
        assert_eq!((&told[0]["status"]["code"], &told[6]["status"]["code"]), (&2.into(), &2.into()));
    }

    #[test]
    fn what_is_not_recorded_is_not_told() {
        let unsampled = RequestTrace::new(None, None, (7, 8), Sampled::No);
        let rows = [
            RequestRow { trace: None, ..row(Some("Ab12Cd34")) },
            RequestRow { trace: Some(Box::new(unsampled)), ..row(Some("Ab12Cd34")) },
            RequestRow { progress: Progress::Running, ..row(Some("Ab12Cd34")) },
        ];
        assert_eq!(spans(&rows), Vec::<Value>::new());
    }
}
