//! The reader of engines' HTTP/1.1 answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flm::net::hostile::answer(data));
