//! Whatever bytes come from Crypto.com: `cargo +nightly fuzz run cryptocom` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Cryptocom, bytes));
