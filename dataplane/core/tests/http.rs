//! HTTP through the seam: what a client sends, what it gets back, and what becomes of its connection.

mod world;

use world::{KEY, World, get};

#[test]
fn a_price() {
    let mut world = World::new();
    let reply = world.get("/price?asset=BTC", KEY);
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.body,
        "{\"asset\":\"BTC\",\"price\":\"67123.45\",\"currency\":\"USD\",\"source\":\"median\",\"sources\":5,\
         \"spread_bps\":\"1.8\",\"tier\":\"local\",\"exchange_time_ms\":1793499999940,\
         \"received_time_ms\":1793499999963,\"age_ms\":37,\"stale\":false,\"sequence\":4711}"
    );
    let _ = get("", "");
}
