//! The translators of streams, from every kind of engine into every dialect.
#![no_main]

use flm::wire::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile::openai_stream(data);
    hostile::ollama_stream(data);
});
