//! The parsers of server-sent events and of lines.
#![no_main]

use flm::wire::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile::sse(data);
    hostile::ndjson(data);
});
