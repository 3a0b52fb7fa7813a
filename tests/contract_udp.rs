//! Prices over UDP as the contract promises them, on both engines: both encodings, silence, and never an amplifier.

use harness::service::{ENGINES, Service};
use harness::udp::{ask, ask_before_probe, frame, mac, reply_frame};
use serde_json::{Value, json};
use shared::code::Code;
use std::time::{SystemTime, UNIX_EPOCH};

fn on_each_engine(test: impl Fn(&Service)) {
    for engine in ENGINES {
        let service = Service::demo(engine);
        service.await_price("BTC", 2);
        test(&service);
    }
}

fn json_request(service: &Service, rest: &str) -> String {
    format!("{{\"key\":\"{}\",{rest}}}", service.stress_key())
}

fn ask_json(service: &Service, rest: &str) -> Value {
    let request = json_request(service, rest);
    let reply = ask(service.address("lpo_udp"), request.as_bytes());
    assert!(reply.len() <= 3 * request.len(), "{} bytes for {}", reply.len(), request.len());
    serde_json::from_slice(&reply).expect("a JSON reply")
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

#[test]
fn the_json_form_answers_and_errs_as_promised() {
    on_each_engine(|service| {
        let price = ask_json(service, "\"asset\":\"btc\",\"id\":7");
        assert_eq!((&price["id"], &price["asset"], &price["currency"]), (&json!(7), &json!("BTC"), &json!("USD")));
        assert!(price["price"].as_str().is_some() && price["sequence"].as_u64() > Some(0), "{price}");
        assert_eq!(price["simulated"], true);
        let unknown = ask_json(service, "\"asset\":\"NOSUCHCOIN\",\"id\":8");
        assert_eq!(unknown, json!({"id": 8, "status": 404, "code": "asset_unknown"}));
        let pad = "x".repeat(300);
        let many = ask_json(service, &format!("\"assets\":[\"BTC\",\"ETH\"],\"id\":9,\"pad\":\"{pad}\""));
        assert_eq!(many["prices"].as_array().map(Vec::len), Some(2), "{many}");
        let short = ask_json(service, "\"assets\":[\"BTC\",\"ETH\",\"SOL\",\"XRP\",\"DOGE\"],\"id\":10");
        assert_eq!(short["code"], "reply_too_long", "{short}");
    });
}

#[test]
fn the_binary_form_answers_and_is_signed() {
    on_each_engine(|service| {
        let (id, secret) = service.udp_key();
        let request = frame(id, &secret, "BTC", 42, now_ms());
        let reply = reply_frame(&secret, &ask(service.address("lpo_udp"), bytemuck::bytes_of(&request)));
        assert_eq!((reply.status, reply.currency), (0, 1));
        assert_eq!(u64::from_le_bytes(reply.request_id), 42);
        assert_eq!(u16::from_le_bytes(reply.flags) & 4, 4, "simulated");
        assert!(i64::from_le_bytes(reply.mantissa) > 0 && u16::from_le_bytes(reply.sources) >= 2);
        let unknown = frame(id, &secret, "NOSUCHCOIN", 43, now_ms());
        let reply = reply_frame(&secret, &ask(service.address("lpo_udp"), bytemuck::bytes_of(&unknown)));
        assert_eq!(reply.status, Code::AssetUnknown.number());
        for skew in [now_ms() - 31_000, now_ms() + 31_000] {
            let request = frame(id, &secret, "BTC", 44, skew);
            let reply = reply_frame(&secret, &ask(service.address("lpo_udp"), bytemuck::bytes_of(&request)));
            assert_eq!(reply.status, Code::ClockSkew.number());
        }
    });
}

#[test]
fn who_is_not_known_gets_silence() {
    on_each_engine(|service| {
        let (id, secret) = service.udp_key();
        let address = service.address("lpo_udp");
        let probe = json_request(service, "\"asset\":\"BTC\",\"id\":1");
        let good = frame(id, &secret, "BTC", 1, now_ms());
        let bytes = bytemuck::bytes_of(&good);
        let mut wrong_mac = bytes.to_vec();
        wrong_mac[45] ^= 1;
        let mut reply_magic = bytes.to_vec();
        reply_magic[..2].copy_from_slice(&0x5254_u16.to_le_bytes());
        let mut stranger = frame(id - 99, &secret, "BTC", 1, now_ms());
        stranger.mac = mac(&secret, &bytemuck::bytes_of(&stranger)[..40]);
        let silent: [(&str, Vec<u8>); 9] = [
            ("empty", Vec::new()),
            ("one byte", b"{".to_vec()),
            ("not JSON", b"hello".to_vec()),
            ("wrong key", br#"{"key":"tb_live_wrong","asset":"BTC","id":1}"#.to_vec()),
            ("no key", br#"{"asset":"BTC","id":1}"#.to_vec()),
            ("wrong MAC", wrong_mac),
            ("reply magic", reply_magic),
            ("unknown key id", bytemuck::bytes_of(&stranger).to_vec()),
            ("too long", vec![b'{'; 600]),
        ];
        for (what, request) in silent {
            assert_eq!(ask_before_probe(address, &request, probe.as_bytes()), None, "{what}");
        }
        harness::eventually("silence to be counted", || {
            let engine = service.admin("/admin/engine").json();
            let silent = |shard: &Value| shard["datagrams_silent"].as_u64().unwrap_or(0);
            (engine["shards"].as_array()?.iter().map(silent).sum::<u64>() >= 9).then_some(())
        });
    });
}

#[test]
fn an_error_is_never_longer_than_its_request() {
    on_each_engine(|service| {
        for rest in ["\"asset\":\"\"", "\"asset\":5", "\"id\":1", "\"asset\":\"B-C\",\"id\":18446744073709551615"] {
            let request = json_request(service, rest);
            let probe = json_request(service, "\"asset\":\"BTC\",\"id\":1");
            let reply = ask_before_probe(service.address("lpo_udp"), request.as_bytes(), probe.as_bytes());
            assert!(reply.is_none_or(|reply| reply.len() <= request.len()), "{rest}");
        }
    });
}
