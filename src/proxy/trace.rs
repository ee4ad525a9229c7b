//! Traces: what a request's head says about one, and what its engine is told (docs/monitoring.md, "Traces").
//!
//! Called when a request's account is opened and when an engine is asked. While no traces are exported it looks at nothing
//! and engines are told nothing. What became of a request is written into spans off the hot path, from its row.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::limits::Traces;
use crate::types::request::RequestRow;
use crate::types::trace::{RequestTrace, Sampled, TraceParent};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Begins a request's trace, or goes on with its client's.
pub(super) fn begin(traces: Traces, headers: &HeaderMap) -> Option<Box<RequestTrace>> {
    let Traces::Sampled { percent } = traces else { return None };
    let parent = only(headers, &TRACEPARENT).and_then(|value| TraceParent::parse(value.as_bytes()));
    let state = only(headers, &TRACESTATE).map(HeaderValue::as_bytes);
    let chosen = if fastrand::u8(0..100) < percent { Sampled::Yes } else { Sampled::No };
    let random = (fastrand::u128(..), fastrand::u128(..));
    Some(Box::new(RequestTrace::new(parent, state, random, chosen)))
}

/// A header that was sent once: of two that differ neither can be believed.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut all = headers.get_all(name).iter();
    all.next().filter(|_| all.next().is_none())
}

/// What the engine is told, so that its spans follow FLM's.
pub(super) fn for_engine(row: &RequestRow) -> Vec<(HeaderName, HeaderValue)> {
    let Some(trace) = &row.trace else { return Vec::new() };
    let parent = HeaderValue::try_from(trace.for_engine()).map(|value| (TRACEPARENT, value));
    let state = trace.state.as_deref().map(|state| HeaderValue::try_from(state).map(|value| (TRACESTATE, value)));
    parent.into_iter().chain(state.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: HeaderValue = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

    #[test]
    fn nothing_is_traced_until_it_is_asked_for_and_then_so_many_in_a_hundred() {
        let headers = HeaderMap::from_iter([(TRACEPARENT, PARENT)]);
        assert_eq!(begin(Traces::Off, &headers), None);
        let chosen = |percent| begin(Traces::Sampled { percent }, &headers).expect("a trace").chosen;
        for _ in 0..200 {
            assert_eq!((chosen(0), chosen(100)), (Sampled::No, Sampled::Yes));
        }
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::from_iter([(TRACEPARENT, PARENT)]);
        let begun = |headers: &HeaderMap| begin(Traces::Sampled { percent: 100 }, headers).expect("a trace");
        assert!(begun(&headers).parent.is_some());
        headers.append(TRACEPARENT, PARENT);
        assert_eq!(begun(&headers).parent, None);
    }

    #[test]
    fn an_engine_is_told_the_clients_trace_with_flm_as_its_parent() {
        let mut headers = HeaderMap::from_iter([(TRACEPARENT, PARENT)]);
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        let mut row = RequestRow::example(1);
        assert_eq!(for_engine(&row), []);
        row.trace = begin(Traces::Sampled { percent: 0 }, &headers);
        let told = for_engine(&row);
        let call = format!("{:016x}", row.trace.as_ref().expect("a trace").call);
        let wanted = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{call}-01");
        assert_eq!(told[0].1, wanted.as_str());
        assert_eq!(told[1], (TRACESTATE, HeaderValue::from_static("vendor=1")));
    }
}
