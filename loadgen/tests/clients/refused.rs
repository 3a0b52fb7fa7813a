//! Levels that cannot begin: each says what is wrong and what to do, and none shows a secret.

use crate::fakes::{self, Act, http};
use crate::level::job;
use loadgen::job::{Job, Progress};
use loadgen::level;
use loadgen::plan::LEVELS;
use std::net::{SocketAddr, TcpListener, UdpSocket};

#[track_caller]
fn check(job: &Job, expected: &[&str]) {
    let refused = level::run(job, &LEVELS[0], &Progress::default()).expect_err("it cannot begin");
    let line = refused.to_string();
    for part in expected {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert!(!line.contains('\n') && !line.contains(SECRET), "{line}");
}

const SECRET: &str = "tb_live_secret";

fn over_tcp(target: SocketAddr) -> Job {
    let mut job = job(&[target]);
    job.credentials.key = SECRET.to_owned();
    job
}

fn over_udp(target: SocketAddr) -> Job {
    let mut job = over_tcp(target);
    job.targets[0].udp = job.targets[0].tcp.take();
    job
}

/// An address that was free a moment ago.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

fn says(status: &'static str) -> Job {
    over_tcp(fakes::tcp("\r\n\r\n", move |_| Act::Say(http(status, "because"))))
}

#[test]
fn over_http() {
    check(&over_tcp(nobody()), &["t0", "127.0.0.1", "refused", "ports"]);
    check(&says("401 Who"), &["wrong key", "t0", "401", "give a key"]);
    check(&says("403 No"), &["wrong key", "403"]);
    check(&says("404 What"), &["t0", "BTC", "/assets"]);
    check(&says("500 Oh"), &["500", "because"]);
    check(&over_tcp(fakes::tcp("\r\n\r\n", |_| Act::Say(b"220 mail\r\n".to_vec()))), &["t0", "HTTP"]);
    check(&over_tcp(fakes::tcp("\r\n\r\n", |_| Act::Close)), &["t0"]);
}

#[test]
fn over_udp_there_is_silence_or_nobody() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    check(&over_udp(silent.local_addr().expect("bound")), &["no reply", "t0", "key id", "secret"]);
    check(&over_udp(nobody()), &["t0", "refused"]);
    let skewed = fakes::udp(|request| fakes::frame_reply(request, 10, 0, 0));
    check(&over_udp(skewed), &["t0", "clock"]);
}

#[test]
fn by_the_job_itself() {
    let good = says("200 OK");
    check(&Job { targets: Vec::new(), ..good.clone() }, &["no target"]);
    check(&Job { assets: Vec::new(), ..good.clone() }, &["asset"]);
    check(&Job { cpus: vec![100_000], ..good.clone() }, &["CPU 100000", "choose from"]);
    let mut broken = good;
    broken.credentials.key = format!("{SECRET}\r\nX: y");
    check(&broken, &["key"]);
}
