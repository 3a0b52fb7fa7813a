//! Whatever bytes come from Gemini: `cargo +nightly fuzz run gemini` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Gemini, bytes));
