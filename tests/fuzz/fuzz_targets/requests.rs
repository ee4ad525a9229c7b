//! The translators of requests, one per dialect.
#![no_main]

use flm::wire::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for dialect in hostile::DIALECTS {
        hostile::request(dialect, data);
    }
    hostile::request_for_ollama(data);
});
