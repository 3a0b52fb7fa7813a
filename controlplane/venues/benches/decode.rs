//! What reading one frame of a venue costs: medians of interleaved rounds, in nanoseconds of CPU.
//!
//! The frames are those the venue's simulator sends for a walking market; a list of instruments is the large body of the
//! REST interface. Here the JSON library, its SIMD (chosen at compile time) and the allocator show; the shards, which
//! neither read JSON of this kind nor allocate, do not. The allocator is the service's own; with
//! `RUSTFLAGS='--cfg allocator="system"'` it is the C library's, or whatever `LD_PRELOAD` puts in its place.
//!
//! `cargo bench -p trinity-venues --bench decode [-- --rounds=N] [PART OF A CASE'S NAME…]`
#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

#[path = "../../../dataplane/core/benches/answer/rounds.rs"]
mod rounds;

use rounds::Case;
use shared::venue::Venue;
use std::hint::black_box;
use venues::protocol::VenueEvent;
use venues::simulate::market::Market;
use venues::simulate::{rest_simulator, simulator};
use venues::{VenueSettings, protocol};

#[cfg(not(allocator = "system"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Frames read in one round, and instrument lists, which are some hundred times as long.
const FRAMES: usize = 20_000;
const LISTS: usize = 40;

const NOW_MS: u64 = 1_793_500_000_123;

/// What a subscribed connection hears: some hundreds of frames, from the venue's snapshot on.
fn frames(venue: Venue) -> Vec<String> {
    let (mut market, settings) = (Market::new(21), VenueSettings::default());
    let (protocol, mut simulator) = (protocol(venue, settings), simulator(venue, settings));
    let listed = market.listed(venue).to_vec();
    let limits = protocol.limits();
    let names: Vec<&str> = listed
        .iter()
        .filter(|one| one.trading)
        .take(limits.names_per_connection)
        .map(|one| one.name.as_str())
        .collect();
    let mut heard = simulator.greeting(NOW_MS);
    let groups = names.chunks(limits.names_per_frame).zip((1..).step_by(10));
    let requests = groups.flat_map(|(group, request)| protocol.subscribe(group, request));
    for request in protocol.greeting().into_iter().chain(requests) {
        heard.extend(simulator.receive(&request, &listed, &[], NOW_MS));
    }
    for round in 1..=4 {
        for (position, instrument) in listed.iter().enumerate() {
            let shown = market.step(venue, position).expect("listed");
            heard.extend(simulator.quote(instrument, &shown, NOW_MS + round * 2_000));
        }
    }
    heard
}

fn frame_case(venue: Venue) -> Case<'static> {
    let (frames, mut protocol) = (frames(venue), protocol(venue, VenueSettings::default()));
    let bytes = frames.iter().map(String::len).sum::<usize>() / frames.len();
    let decode = move |turn: usize| {
        let turn = turn % frames.len();
        if turn == 0 {
            protocol.reset();
        }
        protocol.decode(frames[turn].as_bytes(), &mut |event| {
            assert!(!matches!(event, VenueEvent::Malformed { .. }), "{}", frames[turn]);
            black_box(event);
        });
    };
    Case { name: format!("{} frame of {bytes} bytes", venue.name()), count: FRAMES, once: Box::new(decode) }
}

fn list_case(venue: Venue) -> Case<'static> {
    let (market, protocol) = (Market::new(21), protocol(venue, VenueSettings::default()));
    let requests = protocol.instruments();
    let rest = rest_simulator(venue);
    let (status, body) = rest.get(&requests[0].path, market.listed(venue), market.quotes(venue), NOW_MS);
    let bytes = body.len();
    let decode = move |_| {
        black_box(protocol.decode_instruments(status, body.as_bytes()).expect("a list"));
    };
    Case { name: format!("{} list of {bytes} bytes", venue.name()), count: LISTS, once: Box::new(decode) }
}

fn main() {
    // `cargo test` runs benches too, without this flag: there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut cases: Vec<Case<'_>> = Venue::ALL.into_iter().map(frame_case).collect();
    cases.extend(Venue::ALL.into_iter().map(list_case));
    rounds::show(cases);
}
