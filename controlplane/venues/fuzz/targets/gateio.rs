//! Whatever bytes come from Gate.io: `cargo +nightly fuzz run gateio` in `controlplane/venues`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| venues::fuzz::fuzz_one(shared::venue::Venue::Gateio, bytes));
