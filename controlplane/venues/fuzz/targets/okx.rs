//! Whatever bytes come from OKX: `cargo +nightly fuzz run okx` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Okx, bytes));
