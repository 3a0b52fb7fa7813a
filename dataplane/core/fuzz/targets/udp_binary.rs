//! Whatever binary datagram comes: `cargo +nightly fuzz run udp_binary` in `dataplane/core`. The first byte says whether
//! the MAC is made good, for the fuzzer cannot; only then may there be an answer, and it is one frame.
#![no_main]

#[path = "../../tests/world/mod.rs"]
mod world;

use std::cell::RefCell;
use world::{KEYS, World, secret, sign};

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, tail)) = bytes.split_first() else { return };
    let mut request = [b"TB", tail].concat();
    let key = u32::from(choice >> 1);
    let is_signed = choice & 1 == 1 && request.len() == 64 && (1..=KEYS.len() as u32).contains(&key);
    if is_signed {
        request[4..8].copy_from_slice(&key.to_le_bytes());
        sign(&mut request, &secret(key));
    }
    WORLD.with_borrow_mut(|world| {
        world.pass_ms(1);
        let reply = world.datagram(&request);
        // Key 4 has expired.
        assert_eq!(reply.len(), if is_signed && key != 4 { 64 } else { 0 });
        let _ = world.usage();
    });
});
