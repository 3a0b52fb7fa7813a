//! A venue of our own making answers the roster: by name, by frame, or not at all.

use super::*;
use shared::asset::Symbol;
use shared::quote::Currency;
use shared::venue::Venue;
use venues::VenueSettings;
use venues::protocol::Instrument;

const START: Moment = Moment { mono_ns: 1_000_000_000_000, wall_ms: 1_793_500_000_000 };
const SETTLE_MS: u64 = 2_000;
const RETRY_MS: u64 = 600_000;

fn symbol(text: &str) -> Symbol {
    Symbol::new(text.as_bytes()).expect("good")
}

fn markets(count: usize) -> Vec<Market> {
    let market = |index: usize| {
        let name = format!("A{index}/USD");
        let (base, quote) = (symbol(&format!("A{index}")), symbol("USD"));
        let instrument = Instrument { rest_name: name.clone(), name, base, quote, trading: true };
        Market { asset: id(index), currency: Currency::Usd, instrument }
    };
    (0..count).map(market).collect()
}

fn id(index: usize) -> AssetId {
    AssetId::new(index).expect("small")
}

fn protocol() -> Box<dyn VenueProtocol> {
    venues::protocol(Venue::Kraken, VenueSettings::default())
}

fn roster(count: usize, names_per_frame: usize) -> Roster {
    Roster::new(&markets(count), names_per_frame, &|_| None)
}

/// Everything that is to be asked now: for each frame whether it subscribes, and the names in it.
fn asked(roster: &mut Roster, now: Moment) -> Vec<(bool, Vec<String>)> {
    let mut frames = Vec::new();
    while roster.has_frames() {
        frames.extend(roster.next_frames(&*protocol(), now));
    }
    let read = |frame: String| {
        let subscribes = frame.contains(r#""method":"subscribe""#);
        let names = frame.split('"').filter(|part| part.contains('/')).map(str::to_owned).collect();
        (subscribes, names)
    };
    frames.into_iter().map(read).collect()
}

/// Plays a venue until nothing more is asked. `refuses_name`: the bad names are refused one by one and the others
/// acknowledged; otherwise one bad name refuses its whole frame, with or without saying which. Answers the refused
/// assets and how many frames it took.
fn play(roster: &mut Roster, bad: &[usize], refuses_name: bool, says_which: bool) -> (Vec<AssetId>, usize) {
    let bad_names: Vec<String> = bad.iter().map(|index| format!("A{index}/USD")).collect();
    let (mut refused, mut frames, mut now) = (Vec::new(), 0, START);
    for _round in 0..200 {
        for (_, names) in asked(roster, now) {
            frames += 1;
            let culprits: Vec<&String> = names.iter().filter(|name| bad_names.contains(name)).collect();
            for culprit in &culprits {
                let name = says_which.then_some(culprit.as_str());
                refused.extend(roster.refused(name, None, now, SETTLE_MS, RETRY_MS));
                if !refuses_name {
                    break;
                }
            }
            if refuses_name || culprits.is_empty() {
                let good = names.iter().filter(|name| !culprits.contains(name));
                good.for_each(|name| roster.acked(Some(name), None));
            }
        }
        now = now.plus_ms(SETTLE_MS);
        roster.settle(now);
        roster.rested(now).into_iter().for_each(|asset| roster.ask_anew(asset));
        if !roster.has_frames() && roster.count(Standing::Asked) == 0 {
            break;
        }
    }
    (refused, frames)
}

#[test]
fn names_are_asked_for_in_batches() {
    let mut roster = roster(7, 3);
    let sizes: Vec<usize> = asked(&mut roster, START).iter().map(|(_, names)| names.len()).collect();
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(roster.count(Standing::Asked), 7);
}

#[track_caller]
fn check_refusals(count: usize, batch: usize, bad: &[usize], refuses_name: bool, says_which: bool, frames_max: usize) {
    let mut roster = roster(count, batch);
    let (mut refused, frames) = play(&mut roster, bad, refuses_name, says_which);
    refused.sort_unstable();
    assert_eq!(refused, bad.iter().map(|index| id(*index)).collect::<Vec<_>>(), "exactly the bad ones");
    assert_eq!(roster.count(Standing::Acked), count - bad.len(), "nobody is silenced by another's refusal");
    assert_eq!(roster.count(Standing::Resting), bad.len());
    assert!(frames <= frames_max, "{frames} frames");
}

#[test]
fn a_refusal_by_name_costs_nobody_else_a_frame() {
    check_refusals(20, 10, &[3, 4, 17], true, true, 2);
}

#[test]
fn a_frame_refused_for_one_named_member_is_asked_again_without_it() {
    // Ten names, one bad: the frame, then two halves of the other nine.
    check_refusals(10, 10, &[3], false, true, 3);
    check_refusals(40, 20, &[0, 19, 20, 39], false, true, 30);
}

#[test]
fn a_frame_refused_without_a_name_is_halved_until_the_bad_one_stands_alone() {
    check_refusals(16, 16, &[5], false, false, 12);
    check_refusals(50, 50, &[0, 49], false, false, 40);
    check_refusals(3, 1, &[1], false, false, 5);
}

#[test]
fn one_nameless_refusal_of_a_lone_name_may_be_a_rate_limit() {
    let mut roster = roster(1, 1);
    asked(&mut roster, START);
    assert_eq!(roster.refused(None, None, START, SETTLE_MS, RETRY_MS), None);
    let later = START.plus_ms(SETTLE_MS);
    assert_eq!(roster.rested(later), [id(0)]);
    roster.ask_anew(id(0));
    assert_eq!(asked(&mut roster, later), [(true, vec!["A0/USD".to_owned()])]);
    assert_eq!(roster.refused(None, None, later, SETTLE_MS, RETRY_MS), Some(id(0)));
    assert_eq!(roster.rested(later.plus_ms(RETRY_MS - 1)), []);
    assert_eq!(roster.rested(later.plus_ms(RETRY_MS)), [id(0)], "refused is not for ever");
}

#[test]
fn an_acknowledgement_belongs_to_its_own_request() {
    let mut roster = roster(4, 2);
    let _ = asked(&mut roster, START);
    roster.acked(None, Some(99));
    assert_eq!(roster.count(Standing::Acked), 0, "not one of ours");
    roster.acked(None, Some(2));
    assert_eq!([2, 3].map(|index| roster.standing(id(index))), [Some(Standing::Acked); 2]);
    assert_eq!(roster.count(Standing::Asked), 2);
    roster.settle(START);
    roster.acked(None, Some(2));
    assert_eq!(roster.count(Standing::Asked), 2, "a late repetition does not acknowledge another request");
}

#[test]
fn silence_is_noticed_after_its_time_and_ended_by_a_delivery() {
    let mut roster = roster(3, 3);
    let _ = asked(&mut roster, START);
    assert!(roster.delivered(id(0)), "the first");
    assert!(!roster.delivered(id(0)));
    roster.acked(Some("a1/usd"), None);
    assert_eq!(roster.silent(START.plus_ms(19_999), 20_000), []);
    assert_eq!(roster.silent(START.plus_ms(20_000), 20_000), [(id(1), 0), (id(2), 0)], "acknowledged is not alive");
    roster.count_resubscribe(id(1));
    roster.ask_anew(id(1));
    let frames = asked(&mut roster, START.plus_ms(20_000));
    let alone = vec!["A1/USD".to_owned()];
    assert_eq!(frames, [(false, alone.clone()), (true, alone)], "the venue believes that it has a subscription");
    assert_eq!(roster.silent(START.plus_ms(40_000), 20_000), [(id(1), 1), (id(2), 0)]);
    assert!(roster.delivered(id(1)));
    assert_eq!(roster.silent(START.plus_ms(90_000), 20_000), [(id(2), 0)]);
}

#[test]
fn a_refused_name_that_delivers_after_all_is_live() {
    let mut roster = roster(2, 2);
    let _ = asked(&mut roster, START);
    roster.refused(Some("A0/USD"), None, START, SETTLE_MS, RETRY_MS);
    assert_eq!(roster.standing(id(0)), Some(Standing::Resting));
    assert!(roster.delivered(id(0)));
    assert_eq!(roster.standing(id(0)), Some(Standing::Live));
}

#[test]
fn a_change_ends_what_is_gone_and_asks_for_what_is_new() {
    let mut roster = roster(3, 10);
    let _ = asked(&mut roster, START);
    let mut next = markets(5);
    next.remove(0);
    next[0].instrument.name = "A1/USDT".to_owned();
    roster.change(&next, true);
    let frames = asked(&mut roster, START);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(frames, [(false, names(&["A0/USD", "A1/USD"])), (true, names(&["A1/USDT", "A3/USD", "A4/USD"]))]);
    assert_eq!(roster.standing(id(0)), None);
}

#[test]
fn known_refusals_rest_on_a_new_connection() {
    let again_ns = START.plus_ms(5_000).mono_ns;
    let mut roster = Roster::new(&markets(3), 3, &|asset| (asset == id(1)).then_some(again_ns));
    assert_eq!(asked(&mut roster, START)[0].1, ["A0/USD", "A2/USD"]);
    assert_eq!(roster.rested(START.plus_ms(5_000)), [id(1)]);
}
