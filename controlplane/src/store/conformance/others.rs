//! Parameters, asset lists, months' use and the audit trail.

use super::{Bench, audit, on_every_store};
use crate::store::{AssetRow, MonthUse, NAME_BYTES_MAX, PAGE_MAX, PARAMETER_BYTES_MAX, StoreError, USE_ROWS_MAX};
use std::collections::BTreeMap;
use std::sync::Arc;

on_every_store!(
    parameters_are_set_all_or_none,
    a_parameter_changed_in_between_is_left_alone,
    a_reload_is_noted_once_each,
    an_asset_list_is_replaced_as_a_whole,
    a_batch_is_added_once,
    batches_of_many_writers_add_up,
    the_trail_is_read_from_its_end,
);

type Texts = BTreeMap<String, Option<String>>;

fn texts(pairs: &[(&str, Option<&str>)]) -> Texts {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned))).collect()
}

async fn parameters_are_set_all_or_none(bench: Bench) {
    let store = &bench.store;
    let longest = "x".repeat(PARAMETER_BYTES_MAX);
    let set = texts(&[("log_level", Some("error")), ("odd \"name\" \u{2603}", Some("")), ("long", Some(&longest))]);
    let entries = [audit("params.put"), audit("params.put")];
    store.put_parameters(&set, &texts(&[("log_level", None)]), &entries).await.expect("set");
    let wanted: BTreeMap<String, String> =
        set.iter().map(|(name, value)| (name.clone(), value.clone().expect("a value"))).collect();
    assert_eq!(store.parameters().await, Ok(wanted.clone()));
    assert_eq!(store.audit_page(None, 9).await.expect("entries").len(), 2);

    for bad in [
        texts(&[("log_level", Some("warn")), ("other", Some("a\0b"))]),
        texts(&[("log_level", None), ("other", Some(&format!("{longest}x")))]),
        texts(&[("log_level", None), (&"n".repeat(NAME_BYTES_MAX + 1), Some("1"))]),
    ] {
        let refused = store.put_parameters(&bad, &Texts::new(), &entries).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
        assert_eq!(store.parameters().await, Ok(wanted.clone()));
    }
    store.put_parameters(&texts(&[("long", None), ("absent", None)]), &Texts::new(), &[]).await.expect("unset");
    assert_eq!(store.parameters().await.expect("parameters").len(), 2);
    assert_eq!(store.audit_page(None, 9).await.expect("entries").len(), 2);
}

async fn a_parameter_changed_in_between_is_left_alone(bench: Bench) {
    let store = &bench.store;
    let seen = texts(&[("mode", None)]);
    let mut tries = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (store, seen) = (Arc::clone(store), seen.clone());
        let set = texts(&[("mode", Some(&number.to_string()))]);
        tries.spawn(async move { store.put_parameters(&set, &seen, &[audit("params.put")]).await });
    }
    let done = tries.join_all().await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    assert!(done.iter().all(|done| matches!(done, Ok(()) | Err(StoreError::Conflict(_)))), "{done:?}");
    assert_eq!(store.audit_page(None, 9).await.expect("entries").len(), 1);
    // Nothing else in the way either: what is expected may be more than what is changed.
    let other = texts(&[("other", Some("1"))]);
    let refused = store.put_parameters(&other, &seen, &[]).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
}

async fn a_reload_is_noted_once_each(bench: Bench) {
    assert_eq!(bench.store.pulse().await.expect("a pulse").reloads, 0);
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let store = Arc::clone(&bench.store);
        tries.spawn(async move { store.note_reload(&audit("params.reload")).await.expect("noted") });
    }
    let mut numbers = tries.join_all().await;
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let pulse = bench.store.pulse().await.expect("a pulse");
    assert_eq!((pulse.reloads, pulse.keys), (5, 0));
}

async fn an_asset_list_is_replaced_as_a_whole(bench: Bench) {
    let row = |exchange: &str, asset: &str, enabled| AssetRow {
        exchange: exchange.to_owned(),
        asset: asset.to_owned(),
        enabled,
    };
    let store = &bench.store;
    let gate = [row("gateio", "trx", true), row("gateio", "BNB", false), row("gateio", "o'1\"", true)];
    store.put_asset_map("gateio", &gate, &audit("assets.put")).await.expect("a list");
    store.put_asset_map("okx", &[row("okx", "kas", true)], &audit("assets.put")).await.expect("a list");
    let wanted = [gate[1].clone(), gate[2].clone(), gate[0].clone(), row("okx", "kas", true)];
    assert_eq!(store.asset_map().await.as_deref(), Ok(&wanted[..]));

    for bad in [
        vec![row("okx", "a", true), row("okx", "a", false)],
        vec![row("kraken", "a", true)],
        vec![row("okx", "a\0", true)],
        vec![row("okx", &"a".repeat(NAME_BYTES_MAX + 1), true)],
        (0..4_001).map(|number| row("okx", &number.to_string(), true)).collect(),
    ] {
        let refused = store.put_asset_map("okx", &bad, &audit("assets.put")).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_) | StoreError::Conflict(_))), "{refused:?}");
    }
    let longest: Vec<AssetRow> = (0..4_000).map(|number| row("okx", &format!("a{number:04}"), true)).collect();
    store.put_asset_map("okx", &longest, &audit("assets.put")).await.expect("a long list");
    store.put_asset_map("gateio", &[], &audit("assets.put")).await.expect("no list");
    assert_eq!(store.asset_map().await, Ok(longest));
    assert_eq!(store.audit_page(None, 9).await.expect("entries").len(), 4);
}

fn uses(rows: &[(u32, u32, u64)]) -> Vec<MonthUse> {
    rows.iter().map(|(key, month, requests)| MonthUse { key: *key, month: *month, requests: *requests }).collect()
}

async fn a_batch_is_added_once(bench: Bench) {
    let store = &bench.store;
    let most = i64::MAX.cast_unsigned();
    // Writer, batch, what it adds; the totals of the keys it names.
    for (writer, batch, rows, totals) in [
        ("a", 1, uses(&[(1, 24_000, 5), (2, 24_000, 7), (1, 24_000, 1)]), uses(&[(1, 24_000, 6), (2, 24_000, 7)])),
        ("a", 1, uses(&[(1, 24_000, 6), (2, 24_000, 7)]), uses(&[(1, 24_000, 6), (2, 24_000, 7)])),
        ("b", 1, uses(&[(1, 24_000, 10)]), uses(&[(1, 24_000, 16)])),
        ("a", 2, uses(&[(1, 24_001, 3), (1, 24_000, 4)]), uses(&[(1, 24_000, 20), (1, 24_001, 3)])),
        ("a", 1, uses(&[(9, 24_000, 3)]), uses(&[])),
        ("a", 7, uses(&[(1, 24_000, most)]), uses(&[(1, 24_000, most)])),
        ("a", 8, uses(&[(1, 24_000, most), (1, 24_000, most)]), uses(&[(1, 24_000, most)])),
        ("a", 9, uses(&[]), uses(&[])),
        ("a", 10, uses(&[(u32::MAX, u32::MAX, 0)]), uses(&[(u32::MAX, u32::MAX, 0)])),
    ] {
        let told = store.add_month_use(writer, batch, &rows).await;
        // The sum of two that do not fit one column is a caller's fault, not a total.
        let wanted =
            if batch == 8 { Err(StoreError::Invalid(format!("{} is above {most}", most * 2))) } else { Ok(totals) };
        assert_eq!(told, wanted, "{writer} {batch}");
    }
    assert_eq!(store.month_use(24_000, &[2, 1, 77]).await, Ok(uses(&[(1, 24_000, most), (2, 24_000, 7)])));
    assert_eq!(store.month_use(24_002, &[1]).await, Ok(Vec::new()));
    assert_eq!(store.month_use(24_000, &[]).await, Ok(Vec::new()));
    for (batch, rows) in [(0, uses(&[])), (i64::MIN, uses(&[])), (1, vec![uses(&[(1, 1, 1)])[0]; USE_ROWS_MAX + 1])] {
        let refused = store.add_month_use("c", batch, &rows).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
}

async fn batches_of_many_writers_add_up(bench: Bench) {
    let other = bench.other().unwrap_or_else(|| Arc::clone(&bench.store));
    let mut writers = tokio::task::JoinSet::new();
    let count = u32::try_from(USE_ROWS_MAX).expect("a count") / 5;
    for writer in 0..4_u32 {
        let store = Arc::clone(if writer % 2 == 0 { &bench.store } else { &other });
        writers.spawn(async move {
            for batch in 1..=3 {
                // Each in another order, so that writers meet each other coming the other way.
                let mut rows: Vec<MonthUse> =
                    (1..=count).map(|key| MonthUse { key, month: 9, requests: key.into() }).collect();
                rows.rotate_left((writer * 97) as usize);
                for _ in 0..2 {
                    store.add_month_use(&format!("w{writer}"), batch, &rows).await.expect("added");
                }
            }
        });
    }
    writers.join_all().await;
    let keys: Vec<u32> = (1..=count).collect();
    let totals = bench.store.month_use(9, &keys).await.expect("totals");
    assert_eq!(totals.len(), keys.len());
    assert!(totals.iter().all(|total| total.requests == u64::from(total.key) * 12));
}

async fn the_trail_is_read_from_its_end(bench: Bench) {
    for number in 0..5 {
        bench.store.audit(&audit(&format!("it's {number}"))).await.expect("an entry");
    }
    let mut actions = Vec::new();
    let mut before = None;
    loop {
        let page = bench.store.audit_page(before, 2).await.expect("a page");
        let Some((last, _)) = page.last() else { break };
        before = Some(*last);
        actions.extend(page.into_iter().map(|(_, entry)| {
            assert_eq!(entry, audit(&entry.action));
            entry.action
        }));
    }
    assert_eq!(actions, ["it's 4", "it's 3", "it's 2", "it's 1", "it's 0"]);
    assert_eq!(bench.store.audit_page(Some(i64::MIN), PAGE_MAX).await, Ok(Vec::new()));
    assert_eq!(bench.store.audit_page(None, 0).await, Ok(Vec::new()));
}
