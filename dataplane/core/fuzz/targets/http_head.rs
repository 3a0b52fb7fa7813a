//! Whatever bytes come over a connection, and however they are torn: `cargo +nightly fuzz run http_head` in
//! `dataplane/core` (`-- -dict=fuzz/http.dict` helps). The first byte says how long the pieces are; whole and torn, the
//! answers must be the same.
#![no_main]

#[path = "../../tests/world/mod.rs"]
mod world;

use dataplane_core::shard::Then;
use std::cell::RefCell;
use world::{World, record};

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::with(vec![record(1, "k", 16_000_000)], 1, 80));
}

/// Sends `input` in pieces on a new connection. Answers all bytes sent, and how it ended.
fn play(world: &mut World, input: &[u8], piece: usize) -> (Vec<u8>, Then) {
    let mut connection = world.connect(1);
    let (mut sent, mut unread, mut then) = (Vec::new(), Vec::new(), Then::Read);
    'pieces: for bytes in input.chunks(piece) {
        unread.extend_from_slice(bytes);
        loop {
            let outcome = world.serve(&mut connection, &unread);
            sent.extend_from_slice(&outcome.sent);
            (unread, then) = (outcome.rest, outcome.step.then);
            match then {
                Then::Read | Then::Write => break,
                Then::WriteAndClose | Then::HandOver => break 'pieces,
                Then::Wait => {
                    world.pass_ms(30_000);
                    world.shard.idle_tick(world.now, &mut world.ready);
                    assert_eq!(world.ready.streams.drain(..).count(), 1);
                }
            }
        }
    }
    world.shard.close_stream(&mut connection);
    (sent, then)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((piece, input)) = bytes.split_first() else { return };
    WORLD.with_borrow_mut(|world| {
        // Each input finds a full allowance.
        world.pass_ms(5_000);
        let whole = play(world, input, input.len().max(1));
        world.pass_ms(0);
        assert_eq!(play(world, input, usize::from(*piece) + 1), whole);
        assert_eq!(world.shard.counters().waiting, 0);
        let _ = world.usage();
    });
});
