//! A level over UDP, in both forms, one by one and in trains.

use crate::fakes::{self, frame_reply, price};
use crate::level::{adds_up, job, run, wait_until, while_running};
use loadgen::job::{DatagramFormat, Job, Pace, Progress};
use loadgen::outcome::Tally;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

/// What the level offers.
const DUE: u64 = 200;

/// A job over UDP alone.
fn udp_job(target: SocketAddr) -> Job {
    let mut job = job(&[target]);
    job.targets[0].udp = job.targets[0].tcp.take();
    job
}

/// The tally of a level whose replies after the first are made by `script` of their number and the request.
fn against(wanted: impl FnOnce(&mut Job), mut script: impl FnMut(u64, &[u8]) -> Vec<u8> + Send + 'static) -> Tally {
    let mut asked = 0;
    let target = fakes::udp(move |request| {
        asked += 1;
        match (asked, request.first()) {
            (1, Some(b'{')) => object(request, 1, 0),
            (1, _) => frame_reply(request, 0, 1, 0),
            _ => script(asked, request),
        }
    });
    let mut job = udp_job(target);
    wanted(&mut job);
    let tally = run(&job).targets.remove(0).udp.expect("driven");
    adds_up(&tally);
    tally
}

/// What follows a name in a JSON request, up to the next comma, brace or space.
fn value<'a>(request: &'a str, name: &str) -> &'a str {
    let rest = request.split_once(name).expect(name).1;
    rest[..rest.find([',', '}', ' ']).expect("an end")].trim_matches('"')
}

/// The right reply to a JSON request.
fn object(request: &[u8], sequence: u64, age_ms: u64) -> Vec<u8> {
    let request = std::str::from_utf8(request).expect("text");
    let (asset, id) = (value(request, "\"asset\":"), value(request, "\"id\":"));
    price(asset, sequence, age_ms).replacen('{', &format!("{{\"id\":{id},"), 1).into_bytes()
}

#[track_caller]
fn check(
    format: DatagramFormat,
    script: impl FnMut(u64, &[u8]) -> Vec<u8> + Send + 'static,
    column: fn(&Tally) -> u64,
    fault: &str,
) {
    let tally = against(|job| job.format = format, script);
    assert_eq!((column(&tally), tally.sent, tally.unsent), (DUE, DUE, 0), "{tally:?}");
    match tally.faults.first() {
        Some(line) => assert!(line.contains(fault) && !fault.is_empty(), "{line}"),
        None => assert_eq!(fault, ""),
    }
}

#[test]
fn frames() {
    use DatagramFormat::Binary;
    check(Binary, |number, request| frame_reply(request, 0, number, 40), |tally| tally.answered, "");
    check(Binary, |number, request| frame_reply(request, 0, number, 6_000), |tally| tally.wrong, "ms old");
    check(Binary, |_, request| frame_reply(request, 1, 0, 0), |tally| tally.wrong, "404");
    for status in [2, 3, 5, 6, 7, 8, 12] {
        check(Binary, move |_, request| frame_reply(request, status, 0, 0), |tally| tally.refused, "in a frame");
    }
    let unsigned = |number, request: &[u8]| {
        let mut reply = frame_reply(request, 0, number, 0);
        reply[63] ^= 1;
        reply
    };
    check(Binary, unsigned, |tally| tally.wrong, "not signed");
}

#[test]
fn objects() {
    use DatagramFormat::Json;
    check(Json, |number, request| object(request, number, 40), |tally| tally.answered, "");
    check(Json, |number, request| object(request, number, 6_000), |tally| tally.wrong, "ms old");
    let other = |number, request: &[u8]| {
        let text = String::from_utf8(object(request, number, 0)).expect("text");
        ["BTC", "ETH", "SOL"].iter().fold(text, |text, asset| text.replace(asset, "DOGE")).into_bytes()
    };
    check(Json, other, |tally| tally.wrong, "DOGE");
    let status = |status: u16| {
        move |_, request: &[u8]| {
            let id = value(std::str::from_utf8(request).expect("text"), "\"id\":").to_owned();
            format!("{{\"id\":{id},\"status\":{status},\"code\":\"x\"}}").into_bytes()
        }
    };
    check(Json, status(429), |tally| tally.refused, "429");
    check(Json, status(404), |tally| tally.wrong, "404");
}

#[test]
fn a_sequence_that_goes_back_is_wrong() {
    let tally = against(|_| {}, |number, request| frame_reply(request, 0, 1_000_000 - number, 0));
    assert!(tally.answered >= 12 && tally.wrong > DUE / 2, "{tally:?}");
}

#[test]
fn what_is_not_answered_is_lost_and_what_answers_nothing_changes_nothing() {
    let brief = |job: &mut Job| job.lost_after = Duration::from_millis(100);
    // Every second request; then all, with the id of another socket's time.
    let half = |number: u64, request: &[u8]| {
        if number.is_multiple_of(2) { frame_reply(request, 0, number, 0) } else { Vec::new() }
    };
    let tally = against(|job| job.lost_after = Duration::from_secs(1), half);
    assert!(tally.answered > 0 && tally.lost > 0 && tally.sent + tally.unsent == DUE, "{tally:?}");
    let other = |number, request: &[u8]| {
        let mut request = request.to_vec();
        request[15] ^= 0x40;
        frame_reply(&request, 0, number, 0)
    };
    let tally = against(brief, other);
    assert_eq!((tally.lost, tally.sent + tally.unsent), (tally.sent, DUE), "{tally:?}");
}

#[test]
fn trains_and_windows() {
    for (format, pace, train) in [
        (DatagramFormat::Binary, Pace::Open, 8),
        (DatagramFormat::Json, Pace::Open, 8),
        (DatagramFormat::Binary, Pace::Closed, 16),
        (DatagramFormat::Json, Pace::Closed, 3),
        (DatagramFormat::Binary, Pace::Closed, 1),
    ] {
        let script = |number, request: &[u8]| match request.first() {
            Some(b'{') => object(request, number, 0),
            _ => frame_reply(request, 0, number, 0),
        };
        let wanted = |job: &mut Job| {
            (job.format, job.pace, job.train) = (format, pace, train);
            job.lost_after = Duration::from_secs(2);
        };
        let tally = against(wanted, script);
        assert!(tally.answered > 0 && tally.answered == tally.sent, "{format:?} {pace:?} {train}: {tally:?}");
        if pace == Pace::Open {
            // A train whose time came is whole.
            assert_eq!((tally.sent, tally.unsent), (DUE, 0), "{format:?}");
        }
    }
}

#[test]
fn a_port_that_nobody_listens_on_any_more_is_a_fault() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let target = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut bytes = [0; 64];
        let (_, from) = socket.recv_from(&mut bytes).expect("the probe");
        socket.send_to(&frame_reply(&bytes, 0, 1, 0), from).expect("sent");
    });
    let mut job = udp_job(target);
    job.lost_after = Duration::from_millis(100);
    let tally = run(&job).targets.remove(0).udp.expect("driven");
    adds_up(&tally);
    assert_eq!((tally.answered, tally.sent + tally.unsent), (0, DUE), "{tally:?}");
    assert!(tally.broken >= 1 && tally.faults[0].contains("nobody listens"), "{tally:?}");
}

/// The tally of a level that ends early, by what `end` does, while a target is silent that replied to `REPLIES` requests.
fn silenced(wanted: impl FnOnce(&mut Job), end: impl FnOnce(&Progress)) -> Tally {
    let mut asked = 0;
    let target = fakes::udp(move |request| {
        asked += 1;
        // The first is the probe.
        if asked <= REPLIES + 1 { frame_reply(request, 0, asked, 0) } else { Vec::new() }
    });
    let mut job = udp_job(target);
    job.duration = Duration::from_secs(600);
    wanted(&mut job);
    let progress = Progress::default();
    let outcome = while_running(&job, &progress, || {
        wait_until(|| progress.sent.load(Relaxed) >= 5 * REPLIES);
        end(&progress);
    });
    let tally = outcome.targets[0].udp.clone().expect("driven");
    adds_up(&tally);
    assert!(outcome.stopped && tally.answered + tally.late <= REPLIES && tally.sent >= REPLIES, "{tally:?}");
    tally
}

const REPLIES: u64 = 20;

#[test]
fn what_a_dead_target_owes_is_lost() {
    let tally = silenced(|job| job.lost_after = Duration::from_millis(500), Progress::target_gone);
    assert!(tally.sent >= 5 * REPLIES && tally.lost >= 4 * REPLIES, "{tally:?}");
}

#[test]
fn who_stops_a_level_leaves_out_only_what_could_still_be_in_time() {
    // The last hundred requests took a fifth of a second.
    let tally = silenced(|job| job.late_after = Duration::from_millis(20), Progress::stop);
    assert!(tally.lost > 0, "{tally:?}");
    let tally = silenced(|_| {}, Progress::stop);
    assert_eq!(tally.lost, 0, "{tally:?}");
}

#[test]
fn both_protocols_at_once_each_have_the_whole_rate() {
    let right = |request: &str| fakes::Act::Say(fakes::http("200 OK", &price(fakes::asset_of(request), 1, 0)));
    let mut job = udp_job(fakes::udp(|request| frame_reply(request, 0, 1, 0)));
    job.targets[0].tcp = Some(fakes::tcp("\r\n\r\n", right));
    let target = run(&job).targets.remove(0);
    for tally in [target.tcp.expect("driven"), target.udp.expect("driven")] {
        adds_up(&tally);
        assert_eq!((tally.answered, tally.unsent), (DUE, 0), "{tally:?}");
    }
}

#[test]
fn the_other_address_family_is_driven_alike() {
    let target = fakes::udp_at("[::1]:0", |request| frame_reply(request, 0, 1, 0));
    let tally = run(&udp_job(target)).targets.remove(0).udp.expect("driven");
    assert_eq!((tally.answered, tally.unsent), (DUE, 0), "{tally:?}");
}
