//! Who stays, who comes, who waits.

use super::*;
use shared::asset::Symbol;
use shared::quote::Currency;
use venues::protocol::Instrument;

fn id(index: usize) -> AssetId {
    AssetId::new(index).expect("an id")
}

fn market(index: usize) -> Market {
    let (base, quote) = (Symbol::new(format!("A{index}").as_bytes()), Symbol::new(b"USD"));
    let (base, quote, name) = (base.expect("a symbol"), quote.expect("a symbol"), format!("A{index}-USD"));
    let instrument = Instrument { rest_name: name.clone(), name, base, quote, trading: true };
    Market { asset: id(index), currency: Currency::Usd, instrument }
}

/// Shares of a venue that holds `capacity` names on a connection and takes 20 operations an hour, if it counts them,
/// besides those kept back.
struct World {
    shares: Shares,
    mono_ns: u64,
}

impl World {
    fn new(capacity: usize, counts: bool) -> Self {
        let mut limits = venues::protocol(shared::venue::Venue::Okx, venues::VenueSettings::default()).limits();
        limits.names_per_connection = capacity;
        limits.operations_per_hour = counts.then_some(2 * RESUBSCRIBES_PER_HOUR_MAX as usize + 20);
        Self { shares: Shares::new(&limits), mono_ns: 5 * HOUR_NS }
    }

    /// Deals `lasting` and `on_demand`, and shows who is where: `0,1 | 2 | +3` for three that wait.
    #[track_caller]
    fn check(&mut self, lasting: &[usize], on_demand: &[usize], expected: &str) {
        let markets: Vec<Market> = lasting.iter().chain(on_demand).map(|index| market(*index)).collect();
        let lasting = lasting.iter().map(|index| id(*index)).collect();
        self.shares.deal(&markets, &lasting, self.mono_ns);
        let numbers = |markets: Vec<Market>| {
            markets.iter().map(|market| market.asset.index().to_string()).collect::<Vec<_>>().join(",")
        };
        let mut shown: Vec<String> = self.shares.each().map(numbers).collect();
        if self.shares.waiting() > 0 {
            shown.push(format!("+{}", self.shares.waiting()));
        }
        assert_eq!(shown.join(" | "), expected);
    }
}

#[test]
fn who_comes_and_goes_moves_nobody_else() {
    let mut world = World::new(3, false);
    world.check(&[0, 1, 2, 3], &[], "0,1,2 | 3");
    world.check(&[0, 1, 2, 3], &[4, 5], "0,1,2 | 3,4,5");
    world.check(&[0, 2, 3], &[4, 5], "0,2 | 3,4,5");
    world.check(&[0, 2, 3], &[5, 6, 7], "0,2,6 | 3,5,7");
    world.check(&[0, 2], &[], "0,2 | ");
    world.check(&[0, 2, 8, 9], &[], "0,2,8 | 9");
}

#[test]
fn there_is_no_end_of_connections_but_the_bound() {
    let mut world = World::new(1, false);
    let many: Vec<usize> = (0..CONNECTIONS_MAX + 2).collect();
    world.shares.deal(&many.iter().map(|index| market(*index)).collect::<Vec<_>>(), &BTreeSet::new(), 0);
    assert_eq!((world.shares.each().count(), world.shares.waiting()), (CONNECTIONS_MAX, 2));
}

#[test]
fn a_market_that_is_another_now_is_changed_at_once() {
    let mut world = World::new(10, true);
    world.check(&(0..10).collect::<Vec<_>>(), &[], "0,1,2,3,4,5,6,7,8,9");
    let mut other = market(3);
    other.currency = Currency::Usdt;
    let markets: Vec<Market> = (0..10).map(|index| if index == 3 { other.clone() } else { market(index) }).collect();
    world.shares.deal(&markets, &(0..10).map(id).collect(), world.mono_ns);
    assert_eq!(world.shares.each().next().expect("a place")[3], other);
}

#[test]
fn where_the_venue_counts_changes_on_demand_wait_for_their_turn() {
    let mut world = World::new(100, true);
    let lasting: Vec<usize> = (0..14).collect();
    let shown = "0,1,2,3,4,5,6,7,8,9,10,11,12,13";
    world.check(&lasting, &[], shown);
    // Of 20 operations a new connection would take 14; each name more is a change now and one more name then.
    world.check(&lasting, &[20, 21, 22, 23], &format!("{shown},20,21,22 | +1"));
    // Nobody wants them any more; they stay until there is a turn, and are no news when they are wanted again.
    world.check(&lasting, &[], &format!("{shown},20,21,22"));
    world.check(&lasting, &[21, 23], &format!("{shown},20,21,22 | +1"));
    // What the parameters ask for never waits.
    world.check(&(0..15).collect::<Vec<_>>(), &[], &format!("{shown},14,20,21,22"));
    world.mono_ns += HOUR_NS;
    world.check(&lasting, &[24], &format!("{shown},21,22 | +1"));
    world.mono_ns += HOUR_NS;
    world.check(&lasting, &[24], &format!("{shown},24"));
}

#[test]
fn no_hour_sees_more_operations_than_the_venue_takes() {
    let mut world = World::new(12, true);
    // By connection: its markets, and when how many of them changed and were there.
    let mut before: Vec<BTreeSet<AssetId>> = Vec::new();
    let mut told: Vec<Vec<(u64, usize, usize)>> = Vec::new();
    for step in 0_usize..2_000 {
        world.mono_ns += HOUR_NS / 97;
        // Another set of assets is asked for every time.
        let on_demand: Vec<Market> = (0..1 + step % 9).map(|index| market(step * 7 % 1_000 + index)).collect();
        world.shares.deal(&on_demand, &BTreeSet::new(), world.mono_ns);
        for (at, markets) in world.shares.each().enumerate() {
            let now: BTreeSet<AssetId> = markets.iter().map(|market| market.asset).collect();
            if at == before.len() {
                before.push(BTreeSet::new());
                told.push(Vec::new());
            }
            let changes = if told[at].is_empty() { 0 } else { now.symmetric_difference(&before[at]).count() };
            told[at].push((world.mono_ns, changes, now.len()));
            before[at] = now;
            let recent = told[at].iter().filter(|(then, ..)| world.mono_ns - then < HOUR_NS);
            let (changes, most) = recent.fold((0, 0), |(sum, most), (_, changes, len)| (sum + changes, most.max(*len)));
            assert!(changes + most <= 20, "{changes} changes of up to {most} in the hour before step {step}");
        }
    }
    assert!(told.concat().iter().map(|(_, changes, _)| changes).sum::<usize>() > 100, "it does change");
}
