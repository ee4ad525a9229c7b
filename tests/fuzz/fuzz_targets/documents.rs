//! The translators of whole answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flm::wire::hostile::document(data));
