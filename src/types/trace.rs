//! The trace that a request belongs to (W3C Trace Context, www.w3.org/TR/trace-context): what a client sent, and what FLM
//! adds to it.
//!
//! Made by `proxy` for each request while traces are exported, carried by its row, written by `wire::otlp`.

/// Longest `tracestate` that is passed on (W3C Trace Context §3.3.1.5: at least 512 characters).
const MAX_STATE: usize = 512;

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// Whether a trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampled {
    /// It is.
    Yes,
    /// It is not; its ids are passed on all the same.
    No,
}

impl Sampled {
    /// The flags byte of a `traceparent`.
    fn flags(self) -> u8 {
        match self {
            Self::Yes => 1,
            Self::No => 0,
        }
    }
}

/// What a client's `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace: u128,
    /// The client's span; never 0.
    pub span: u64,
    /// Whether the client records it.
    pub sampled: Sampled,
}

impl TraceParent {
    /// Reads a header; `None` for what the standard calls invalid, which starts a new trace.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (head, rest) = header.split_at_checked(LENGTH)?;
        let text = std::str::from_utf8(head).ok()?;
        let lower_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = [version.len(), trace.len(), span.len(), flags.len()];
        if parts.next().is_some() || lengths != [2, 32, 16, 2] || version == "ff" {
            return None;
        }
        // A later version may say more after another hyphen (§4.3).
        if !(rest.is_empty() || version != "00" && rest[0] == b'-') {
            return None;
        }
        if ![version, trace, span, flags].into_iter().all(lower_hex) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let sampled = if u8::from_str_radix(flags, 16).ok()? & 1 == 1 { Sampled::Yes } else { Sampled::No };
        Some(Self { trace, span, sampled })
    }
}

/// How a request is traced, from its head on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTrace {
    /// What the client sent. Believed once the client is authenticated: a stranger writes into nobody's trace.
    pub parent: Option<TraceParent>,
    /// The client's `tracestate`; outside text of visible ASCII, only with a parent.
    pub state: Option<Box<str>>,
    /// The trace that begins here when there is no parent; never 0.
    pub own: u128,
    /// FLM's span for the whole request; never 0.
    pub request: u64,
    /// FLM's span for the call to the engine, which is the engine's parent; never 0.
    pub call: u64,
    /// What the dice of `traces.sample_percent` said, for traces that begin here.
    pub chosen: Sampled,
}

/// A request's place in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracePlace<'a> {
    /// The trace.
    pub trace: u128,
    /// The client's span.
    pub parent: Option<u64>,
    /// The client's `tracestate`.
    pub state: Option<&'a str>,
    /// Whether it is recorded.
    pub sampled: Sampled,
}

/// Whether a client is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIs {
    /// Its key was right.
    Known,
    /// Anybody.
    Stranger,
}

impl RequestTrace {
    /// Begins with two fresh random numbers.
    #[must_use]
    pub fn new(parent: Option<TraceParent>, state: Option<&[u8]>, random: (u128, u128), chosen: Sampled) -> Self {
        let visible = |state: &&[u8]| {
            let fits = (1..=MAX_STATE).contains(&state.len());
            fits && state.iter().all(|byte| matches!(byte, b' '..=b'~'))
        };
        let state = parent.and(state).filter(visible).and_then(|state| std::str::from_utf8(state).ok());
        let half = |shift: u32| u64::try_from(random.1 >> shift & u128::from(u64::MAX)).unwrap_or(1).max(1);
        Self { parent, state: state.map(Into::into), own: random.0.max(1), request: half(64), call: half(0), chosen }
    }

    /// Where the request stands.
    #[must_use]
    pub fn place(&self, client: ClientIs) -> TracePlace<'_> {
        match self.parent {
            Some(TraceParent { trace, span, sampled }) if client == ClientIs::Known => {
                TracePlace { trace, parent: Some(span), state: self.state.as_deref(), sampled }
            }
            _ => TracePlace { trace: self.own, parent: None, state: None, sampled: self.chosen },
        }
    }

    /// The `traceparent` for the engine. Only known clients get as far as an engine.
    #[must_use]
    pub fn for_engine(&self) -> String {
        let TracePlace { trace, sampled, .. } = self.place(ClientIs::Known);
        format!("00-{trace:032x}-{:016x}-{:02x}", self.call, sampled.flags())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    #[test]
    fn a_parent_is_read_as_the_standard_says() {
        let parent = TraceParent { trace: TRACE, span: 0x00f0_67aa_0ba9_02b7, sampled: Sampled::Yes };
        assert_eq!(TraceParent::parse(GOOD.as_bytes()), Some(parent));
        let unsampled = GOOD.replace("-01", "-02");
        assert_eq!(TraceParent::parse(unsampled.as_bytes()).map(|parent| parent.sampled), Some(Sampled::No));
        let later = format!("{}-what.comes", GOOD.replacen("00", "cc", 1));
        assert_eq!(TraceParent::parse(later.as_bytes()), Some(parent));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!("{}.more", GOOD.replacen("00", "cc", 1)),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &GOOD.replace("00f067aa0ba902b7", "0000000000000000"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &GOOD.replace("4bf9", "+bf9"),
            &GOOD.replace("4bf9", "é9"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_known_client_is_followed_and_a_stranger_begins_a_trace_of_its_own() {
        let parent = TraceParent::parse(GOOD.as_bytes());
        let trace = RequestTrace::new(parent, Some(b"vendor=1"), (7, (8 << 64) | 9), Sampled::No);
        assert_eq!((trace.request, trace.call), (8, 9));
        let known = trace.place(ClientIs::Known);
        assert_eq!((known.trace, known.parent.is_some(), known.state), (TRACE, true, Some("vendor=1")));
        assert_eq!(known.sampled, Sampled::Yes, "the client's word");
        let stranger = trace.place(ClientIs::Stranger);
        assert_eq!((stranger.trace, stranger.parent, stranger.state, stranger.sampled), (7, None, None, Sampled::No));
        assert_eq!(trace.for_engine(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000009-01");
        let alone = RequestTrace::new(None, Some(b"vendor=1"), (0, 0), Sampled::Yes);
        assert_eq!((alone.own, alone.request, alone.call, alone.state.as_deref()), (1, 1, 1, None), "no id is 0");
    }

    #[test]
    fn a_state_that_could_break_a_header_is_left_out() {
        let parent = TraceParent::parse(GOOD.as_bytes());
        for bad in [&b""[..], b"a=1\r\nx: y", b"a=\xff", &[b'a'; 513]] {
            let trace = RequestTrace::new(parent, Some(bad), (1, 1), Sampled::Yes);
            assert_eq!(trace.state, None, "{bad:?}");
        }
    }
}
