//! Whatever bytes come from Bybit: `cargo +nightly fuzz run bybit` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Bybit, bytes));
