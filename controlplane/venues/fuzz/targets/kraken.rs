//! Whatever bytes come from Kraken: `cargo +nightly fuzz run kraken` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Kraken, bytes));
