//! Whatever bytes come from Coinbase: `cargo +nightly fuzz run coinbase` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Coinbase, bytes));
