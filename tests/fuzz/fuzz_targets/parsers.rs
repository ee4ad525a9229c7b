//! The parsers of server-sent events, lines, forms and images in messages.
#![no_main]

use flm::wire::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile::sse(data);
    hostile::ndjson(data);
    hostile::form(data);
    hostile::images(data);
});
