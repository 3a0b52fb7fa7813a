//! Whatever JSON-like datagram comes: `cargo +nightly fuzz run udp_json` in `dataplane/core`. The key is `k`, so that the
//! fuzzer finds it; no reply may be more than three times its request, and no error longer than its request.
#![no_main]

#[path = "../../tests/world/mod.rs"]
mod world;

use std::cell::RefCell;
use world::{World, record};

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::with(vec![record(1, "k", 16_000_000)], 1, 0));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let request = [b"{", bytes].concat();
    WORLD.with_borrow_mut(|world| {
        world.pass_ms(1);
        let reply = world.datagram(&request);
        assert!(reply.len() <= 3 * request.len() && reply.len() <= 1_200 && (reply.is_empty() || request.len() <= 512));
        let text = std::str::from_utf8(&reply).expect("text");
        assert!(!text.contains("\"code\":") || reply.len() <= request.len(), "{text}");
        let mut key = request.windows(3).map(|window| window == b"\"k\"" || window.starts_with(b"\\u"));
        assert!(reply.is_empty() || key.any(|is_there| is_there), "{text}");
        let _ = world.usage();
    });
});
