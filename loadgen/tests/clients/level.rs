//! A level over TCP: every request ends in one column, and the right one.

use crate::fakes::{self, Act, asset_of, http, price};
use loadgen::job::{Credentials, DatagramFormat, Job, Pace, Progress, Target};
use loadgen::level;
use loadgen::outcome::{LevelOutcome, Tally};
use loadgen::plan::Level;
use shared::asset::Symbol;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const END: &str = "\r\n\r\n";
const LEVEL: Level = Level { number: 1, connections: 4, rate: 500 };
/// What [`LEVEL`] offers in the time of [`job`].
const DUE: u64 = 200;
/// So long that no machine is that slow.
const AGES: Duration = Duration::from_secs(30);

/// A job that finds nothing late or lost: a test that wants either sets its own limit.
pub fn job(tcp: &[SocketAddr]) -> Job {
    let name = |(number, tcp): (usize, &SocketAddr)| Target { name: format!("t{number}"), tcp: Some(*tcp), udp: None };
    Job {
        targets: tcp.iter().enumerate().map(name).collect(),
        credentials: Credentials { key: "k".to_owned(), udp_key_id: fakes::KEY.id, udp_secret: fakes::KEY.secret },
        pace: Pace::Open,
        pipeline: 64,
        train: 1,
        format: DatagramFormat::Binary,
        assets: ["BTC", "ETH", "SOL"].map(|text| Symbol::new(text.as_bytes()).expect("a symbol")).to_vec(),
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(400),
        late_after: AGES,
        lost_after: AGES,
        age_max: Duration::from_secs(5),
        cpus: Vec::new(),
        threads: 2,
    }
}

/// Every request that was due ended in one column.
#[track_caller]
pub fn adds_up(tally: &Tally) {
    let Tally { sent, answered, late, wrong, refused, lost, .. } = *tally;
    assert_eq!(sent, answered + late + wrong + refused + lost, "{tally:?}");
    assert_eq!(tally.latency_ns.len(), answered + late);
    assert_eq!(tally.age_ms.len(), answered + late);
}

pub fn run(job: &Job) -> LevelOutcome {
    level::run(job, &LEVEL, &Progress::default()).expect("a level that begins")
}

/// The tally of a level against one server whose answers after the first (which the probe gets) are made by `script`.
fn against(job: impl FnOnce(&mut Job), script: impl Fn(u64, &str) -> Act + Send + Sync + 'static) -> Tally {
    let asked = AtomicU64::new(0);
    let target = fakes::tcp(END, move |request| match asked.fetch_add(1, Relaxed) {
        0 => Act::Say(http("200 OK", &price(asset_of(request), 1, 0))),
        number => script(number, asset_of(request)),
    });
    let mut wanted = self::job(&[target]);
    job(&mut wanted);
    let tally = run(&wanted).targets.remove(0).tcp.expect("driven");
    adds_up(&tally);
    tally
}

/// What every request of a level that was served one way ended as.
#[track_caller]
fn check(script: impl Fn(u64, &str) -> Act + Send + Sync + 'static, column: fn(&Tally) -> u64, fault: &str) {
    let tally = against(|_| {}, script);
    assert_eq!((column(&tally), tally.sent, tally.unsent), (DUE, DUE, 0), "{tally:?}");
    assert!(tally.bytes_in > 0);
    match tally.faults.first() {
        Some(line) => assert!(line.contains(fault) && !fault.is_empty(), "{line}"),
        None => assert_eq!(fault, ""),
    }
}

#[test]
fn right_answers() {
    check(|number, asset| Act::Say(http("200 OK", &price(asset, number, 5_000))), |tally| tally.answered, "");
}

#[test]
fn another_asset() {
    let say = |number, _: &str| Act::Say(http("200 OK", &price("DOGE", number, 0)));
    check(say, |tally| tally.wrong, "DOGE");
}

#[test]
fn too_old_a_price() {
    let say = |number, asset: &str| Act::Say(http("200 OK", &price(asset, number, 5_001)));
    check(say, |tally| tally.wrong, "5001 ms old");
}

#[test]
fn no_currency() {
    let say = |number, asset: &str| Act::Say(http("200 OK", &price(asset, number, 0).replace("USD", "")));
    check(say, |tally| tally.wrong, "currency");
}

#[test]
fn another_status() {
    check(|_, _| Act::Say(http("500 Oh", "no")), |tally| tally.wrong, "status 500: no");
}

#[test]
fn refusals() {
    for status in ["401 Who", "403 No", "429 Slowly", "503 Later"] {
        check(move |_, _| Act::Say(http(status, "")), |tally| tally.refused, &status[..3]);
    }
}

#[test]
fn late_answers() {
    let script = |number, asset: &str| Act::Pause(Duration::from_millis(2), http("200 OK", &price(asset, number, 0)));
    let tally = against(|job| job.late_after = Duration::from_millis(1), script);
    assert_eq!((tally.late, tally.answered), (DUE, 0), "{tally:?}");
    assert!(tally.latency_ns.min() >= 1_000_000);
}

#[test]
fn a_sequence_must_not_go_back_on_one_connection_for_one_asset() {
    // Downwards over all connections and assets, so downwards on each; the first of each is right.
    let say = |number: u64, asset: &str| Act::Say(http("200 OK", &price(asset, 1_000_000 - number, 0)));
    let tally = against(|_| {}, say);
    let firsts = LEVEL.connections as u64 * 3;
    assert_eq!((tally.answered, tally.wrong), (firsts, DUE - firsts), "{tally:?}");
    assert!(tally.faults[0].contains("sequence"), "{:?}", tally.faults);
}

#[test]
fn silence_is_loss_and_a_full_pipeline_keeps_the_rest_from_being_sent() {
    let tally = against(
        |job| {
            job.lost_after = Duration::from_millis(150);
            job.pipeline = 2;
        },
        |_, _| Act::Ignore,
    );
    assert_eq!((tally.answered, tally.lost, tally.sent + tally.unsent), (0, tally.sent, DUE), "{tally:?}");
    assert!(tally.sent >= 8 && tally.unsent > 0, "{tally:?}");
    assert!(tally.faults[0].contains("no answer within 150 ms"), "{:?}", tally.faults);
}

#[test]
fn a_connection_that_is_closed_costs_what_was_in_flight_and_is_opened_again() {
    let script = |number: u64, asset: &str| {
        if number.is_multiple_of(20) { Act::Close } else { Act::Say(http("200 OK", &price(asset, number, 0))) }
    };
    let tally = against(|_| {}, script);
    assert!(tally.broken > 1 && tally.answered > 20 && tally.lost > 1, "{tally:?}");
    assert_eq!(tally.sent + tally.unsent, DUE);
}

#[test]
fn an_end_that_comes_with_an_answer_is_seen_at_once() {
    // Two requests at a time: the first is answered, the second ends the connection.
    let script = |number: u64, asset: &str| {
        if number.is_multiple_of(2) { Act::Close } else { Act::Say(http("200 OK", &price(asset, number, 0))) }
    };
    let begin = Instant::now();
    let tally = against(|job| (job.pace, job.pipeline) = (Pace::Closed, 2), script);
    assert!(tally.broken > 1 && tally.answered > 0 && tally.lost > 0, "{tally:?}");
    assert!(begin.elapsed() < AGES, "what was in flight was waited for");
}

/// An answer that says it is the last of its connection.
fn last(asset: &str) -> Act {
    let answer = String::from_utf8(http("200 OK", &price(asset, 1, 0))).expect("text");
    Act::Last(answer.replacen("\r\n", "\r\nconnection: Close\r\n", 1).into_bytes())
}

#[test]
fn an_end_that_was_announced_costs_nothing() {
    let tally = against(|job| job.pipeline = 1, |_, asset| last(asset));
    assert_eq!((tally.answered, tally.unsent, tally.broken), (DUE, 0, 0), "{tally:?}");
    // What was sent behind the last request that is answered has no answer.
    let tally = against(|job| (job.pace, job.pipeline) = (Pace::Closed, 2), |_, asset| last(asset));
    assert!(tally.answered > 0 && tally.lost > 0 && tally.broken > 0, "{tally:?}");
}

#[test]
fn a_key_that_an_answer_repeats_is_not_told() {
    const CANARY: &str = "tb_canary_0123456789";
    let wanted = |job: &mut Job| job.credentials.key = CANARY.to_owned();
    let echo = |request: &str| {
        let body = format!("{} you said: {request}", "x".repeat(20));
        // To the probe nothing is told.
        Act::Say(http("429 Too Many Requests", &body))
    };
    let mut job = job(&[fakes::tcp(END, echo)]);
    wanted(&mut job);
    let tally = run(&job).targets.remove(0).tcp.expect("driven");
    assert!(tally.refused > 0 && tally.faults[0].contains("not shown"), "{:?}", tally.faults);
    job.targets[0].tcp = Some(fakes::tcp(END, |request| Act::Say(http("418 Teapot", request))));
    let refused = level::run(&job, &LEVEL, &Progress::default()).expect_err("no level").to_string();
    assert!(refused.contains("418") && !format!("{refused} {:?}", tally.faults).contains(CANARY), "{refused}");
}

#[test]
fn garbage_breaks_the_connection() {
    let tally = against(|_| {}, |_, _| Act::Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
    assert!(tally.broken > 1 && tally.lost == tally.sent, "{tally:?}");
    assert!(tally.faults[0].contains("HTTP"), "{:?}", tally.faults);
}

/// A server that answers one request and then is gone: where it was.
fn leaves() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the probe");
        drop(listener);
        fakes::serve(stream, END, &(Arc::new(right) as fakes::Script));
    });
    address
}

fn right(request: &str) -> Act {
    Act::Say(http("200 OK", &price(asset_of(request), 1, 0)))
}

#[test]
fn a_target_that_is_gone_costs_only_its_own_requests() {
    let (gone, there) = (leaves(), fakes::tcp(END, right));
    let mut targets = run(&job(&[gone, there])).targets;
    let (there, gone) = (targets.remove(1).tcp.expect("driven"), targets.remove(0).tcp.expect("driven"));
    assert_eq!((there.answered, there.unsent), (DUE / 2, 0), "{there:?}");
    assert_eq!((gone.sent, gone.unsent), (0, DUE / 2), "{gone:?}");
    assert!(gone.broken > 1 && gone.faults[0].contains("refused"), "{gone:?}");
}

#[test]
fn a_target_that_comes_back_is_met_again() {
    let (gone, there) = (leaves(), fakes::tcp(END, right));
    let mut wanted = job(&[gone, there]);
    wanted.duration = AGES;
    let progress = Progress::default();
    let outcome = while_running(&wanted, &progress, || {
        wait_until(|| progress.answered.load(Relaxed) >= 20);
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        fakes::tcp_at(gone, END, move |request| {
            counted.fetch_add(1, Relaxed);
            right(request)
        });
        wait_until(|| count.load(Relaxed) >= 20);
        progress.stop();
    });
    let back = outcome.targets[0].tcp.as_ref().expect("driven");
    adds_up(back);
    assert!(back.broken > 0 && back.answered > 0 && outcome.stopped, "{back:?}");
}

/// The outcome of a level while which `meanwhile` was done.
pub fn while_running(job: &Job, progress: &Progress, meanwhile: impl FnOnce()) -> LevelOutcome {
    thread::scope(|scope| {
        let level = scope.spawn(|| level::run(job, &LEVEL, progress).expect("a level"));
        meanwhile();
        level.join().expect("an outcome")
    })
}

#[track_caller]
pub fn wait_until(is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < AGES, "it never came");
        thread::yield_now();
    }
}

#[test]
fn what_was_meant_for_a_pause_of_the_server_counts_from_then() {
    const PAUSE: Duration = Duration::from_millis(400);
    let slow = |pace: Pace| {
        let script = |number: u64, asset: &str| {
            let answer = http("200 OK", &price(asset, number, 0));
            if number == 20 { Act::Pause(PAUSE, answer) } else { Act::Say(answer) }
        };
        let wanted = |job: &mut Job| {
            (job.pace, job.pipeline, job.threads) = (pace, 1, 1);
            job.duration = Duration::from_secs(1);
            // All at one server: what is meant for the three other connections is not held up.
        };
        let tally = against(wanted, script);
        tally.latency_ns.count_between(PAUSE.as_nanos() as u64 / 4, u64::MAX)
    };
    // 125 requests a second are meant for the connection that hangs, 37 of them in the first three quarters of the pause.
    let (open, closed) = (slow(Pace::Open), slow(Pace::Closed));
    assert!(open >= 30, "{open} of the open schedule's requests show the pause");
    assert!(closed < open, "{closed} of the closed loop's do");
}

#[test]
fn a_closed_loop_is_answered_and_checked_alike() {
    let tally = against(
        |job| (job.pace, job.pipeline) = (Pace::Closed, 3),
        |number, asset| if number < 50 { right(&format!("asset={asset}")) } else { Act::Say(http("429 Slowly", "")) },
    );
    assert!(tally.answered > 0 && tally.refused > 0 && tally.unsent == 0, "{tally:?}");
}

#[test]
fn a_level_that_is_stopped_keeps_what_it_has() {
    let target = fakes::tcp(END, right);
    let mut wanted = job(&[target]);
    wanted.duration = Duration::from_secs(600);
    let (progress, begin) = (Progress::default(), Instant::now());
    let outcome = while_running(&wanted, &progress, || {
        wait_until(|| progress.answered.load(Relaxed) >= 20);
        progress.stop();
    });
    assert!(begin.elapsed() < AGES * 2);
    assert!(outcome.stopped && outcome.elapsed < AGES);
    let tally = outcome.targets[0].tcp.as_ref().expect("driven");
    adds_up(tally);
    assert!(tally.answered >= 20 && tally.lost == 0, "{tally:?}");
    assert!(progress.sent.load(Relaxed) >= progress.answered.load(Relaxed));
}

#[test]
fn a_level_that_is_stopped_while_it_warms_up_counted_nothing() {
    // Stopped long before the warm-up ends, and so near its end that the count would begin while answers are waited for.
    for warm_up in [Duration::from_secs(600), Duration::from_millis(60)] {
        let asked = AtomicU64::new(0);
        let silent = fakes::tcp(END, move |request| match asked.fetch_add(1, Relaxed) {
            0 => right(request),
            _ => Act::Ignore,
        });
        let mut wanted = job(&[silent]);
        (wanted.warm_up, wanted.duration) = (warm_up, Duration::from_secs(600));
        let progress = Progress::default();
        let outcome = while_running(&wanted, &progress, || {
            wait_until(|| progress.sent.load(Relaxed) > 0);
            progress.stop();
        });
        let tally = outcome.targets[0].tcp.as_ref().expect("driven");
        adds_up(tally);
        assert!(outcome.stopped, "{tally:?}");
        if warm_up > AGES {
            assert_eq!((tally.sent, tally.unsent, outcome.elapsed), (0, 0, Duration::ZERO), "{tally:?}");
        }
    }
}

#[test]
fn the_warm_up_is_left_out() {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let target = fakes::tcp(END, move |request| {
        counted.fetch_add(1, Relaxed);
        right(request)
    });
    let mut wanted = job(&[target]);
    wanted.warm_up = Duration::from_millis(400);
    let outcome = run(&wanted);
    assert_eq!(outcome.targets[0].tcp.as_ref().map(|tally| (tally.sent, tally.unsent)), Some((DUE, 0)));
    assert_eq!(count.load(Relaxed), 1 + 2 * DUE, "the probe, the warm-up, and what is counted");
    assert_eq!(outcome.elapsed, wanted.duration);
    assert!(outcome.behind_ns.len() >= DUE && !outcome.generator_cpu.is_zero());
}

#[test]
fn the_other_address_family_is_driven_alike() {
    let target = fakes::tcp_at("[::1]:0", END, right);
    let tally = run(&job(&[target])).targets.remove(0).tcp.expect("driven");
    assert_eq!((tally.answered, tally.unsent), (DUE, 0), "{tally:?}");
}
