//! Keys and tiers: what is stored comes back, numbers grow in the order of commits, clashes change nothing.

use super::{Bench, audit, new_key, on_every_store};
use crate::store::{KeyChange, KeyRow, NAME_BYTES_MAX, NewKey, PAGE_MAX, Pulse, StoreError, TierRow};
use std::collections::BTreeSet;
use std::sync::Arc;

on_every_store!(
    a_key_comes_back_as_it_was_given,
    what_cannot_be_stored_is_refused_and_changes_nothing,
    one_hash_is_one_key_whoever_is_first,
    a_rotated_key_has_one_heir,
    a_key_is_revoked_and_shortened_but_never_lengthened,
    changes_are_told_in_order_and_by_pages,
    what_an_operator_writes_is_noticed,
    tiers_are_seeded_put_and_ordered,
    pollers_miss_no_change_of_many_writers,
);

async fn a_key_comes_back_as_it_was_given(bench: Bench) {
    let odd = [
        "",
        "it's \"quoted\"; DROP TABLE api_keys; --",
        "\u{1F511} \u{202e}schlüssel\n\t",
        &"x".repeat(NAME_BYTES_MAX),
    ];
    for (number, name) in (1..).zip(odd) {
        let full = NewKey {
            name: name.to_owned(),
            hint: name.to_owned(),
            limit_per_second: Some(1 + u32::from(number)),
            limit_per_month: Some(i64::MAX.cast_unsigned()),
            permissions: Some(u16::MAX),
            expires_time_ms: Some(i64::MAX.cast_unsigned()),
            ..new_key(number)
        };
        let made = bench.store.create_key(&full, None, &audit("key.create")).await.expect("a key");
        assert_eq!(made.id, u32::from(number));
        let wanted = KeyRow {
            id: u32::from(number),
            hash: [number; 32],
            hint: name.to_owned(),
            name: name.to_owned(),
            tier: "pro".to_owned(),
            limit_per_second: Some(1 + u32::from(number)),
            limit_per_month: Some(i64::MAX.cast_unsigned()),
            permissions: Some(u16::MAX),
            udp_secret: [number; 16],
            created_time_ms: made.created_time_ms,
            expires_time_ms: Some(i64::MAX.cast_unsigned()),
            revoked_time_ms: None,
            rotated_to: None,
            change: made.change,
        };
        assert_eq!(made, wanted);
        assert_eq!(bench.store.key(made.id).await, Ok(Some(made)));
    }
    let plain = bench.store.create_key(&new_key(200), None, &audit("key.create")).await.expect("a key");
    assert_eq!((plain.limit_per_second, plain.limit_per_month, plain.permissions), (None, None, None));
    assert_eq!(bench.store.key(u32::MAX).await, Ok(None));
    assert_eq!(bench.store.audit_page(None, 10).await.expect("entries").len(), 5);
}

async fn what_cannot_be_stored_is_refused_and_changes_nothing(bench: Bench) {
    let before = bench.store.pulse().await.expect("a pulse");
    let plain = || new_key(1);
    let invalid = [
        NewKey { name: "x".repeat(NAME_BYTES_MAX + 1), ..plain() },
        NewKey { name: "a\0b".to_owned(), ..plain() },
        NewKey { limit_per_second: Some(0), ..plain() },
        NewKey { limit_per_second: Some(u32::MAX), ..plain() },
        NewKey { limit_per_month: Some(u64::MAX), ..plain() },
        NewKey { expires_time_ms: Some(u64::MAX), ..plain() },
    ];
    for key in &invalid {
        let refused = bench.store.create_key(key, None, &audit("key.create")).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    }
    let unknown =
        bench.store.create_key(&NewKey { tier: "none".to_owned(), ..plain() }, None, &audit("key.create")).await;
    assert!(matches!(unknown, Err(StoreError::Conflict(_))), "{unknown:?}");
    let no_row = bench.store.create_key(&plain(), Some((7, 1)), &audit("key.rotate")).await;
    assert_eq!(no_row, Err(StoreError::NotFound));
    let no_row = bench.store.change_key(7, KeyChange::Revoke { time_ms: 1 }, &audit("key.revoke")).await;
    assert_eq!(no_row, Err(StoreError::NotFound));
    // The change and its audit row are one: without the one there is not the other.
    let long = crate::store::AuditEntry { after: "x".repeat(1 << 20), ..audit("key.create") };
    let refused = bench.store.create_key(&plain(), None, &long).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");

    assert_eq!(bench.store.keys(0, PAGE_MAX).await, Ok(Vec::new()));
    assert_eq!(bench.store.audit_page(None, PAGE_MAX).await, Ok(Vec::new()));
    assert_eq!(bench.store.pulse().await, Ok(before));
    assert_eq!(bench.store.health().refused, 10);
}

async fn one_hash_is_one_key_whoever_is_first(bench: Bench) {
    let mut tries = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&bench.store);
        tries.spawn(async move { store.create_key(&new_key(9), None, &audit("key.create")).await });
    }
    let done = tries.join_all().await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{done:?}");
    assert!(done.iter().all(|done| matches!(done, Ok(_) | Err(StoreError::Conflict(_)))), "{done:?}");
    assert_eq!(bench.store.keys(0, PAGE_MAX).await.expect("keys").len(), 1);
    assert_eq!(bench.store.audit_page(None, PAGE_MAX).await.expect("entries").len(), 1);
}

async fn a_rotated_key_has_one_heir(bench: Bench) {
    let old = bench.store.create_key(&new_key(1), None, &audit("key.create")).await.expect("a key");
    let mut tries = tokio::task::JoinSet::new();
    for number in 2..6 {
        let store = Arc::clone(&bench.store);
        let replaces = Some((old.id, 5_000 + u64::from(number)));
        tries.spawn(async move { store.create_key(&new_key(number), replaces, &audit("key.rotate")).await });
    }
    let (heirs, refused): (Vec<_>, Vec<_>) = tries.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((heirs.len(), refused.len()), (1, 3), "{refused:?}");
    assert!(refused.iter().all(|why| matches!(why, Err(StoreError::Conflict(_)))), "{refused:?}");
    let heir = heirs.into_iter().next().expect("one").expect("good");
    let old = bench.store.key(old.id).await.expect("an answer").expect("a row");
    assert_eq!(old.rotated_to, Some(heir.id));
    assert_eq!(old.expires_time_ms, Some(5_000 + u64::from(heir.hash[0])));
    assert!(old.change > heir.change);

    // A key that ends earlier anyway does not live longer for being rotated; one that is revoked has no heir.
    let short = NewKey { expires_time_ms: Some(10), ..new_key(20) };
    let short = bench.store.create_key(&short, None, &audit("key.create")).await.expect("a key");
    bench.store.create_key(&new_key(21), Some((short.id, 99)), &audit("key.rotate")).await.expect("an heir");
    let short = bench.store.key(short.id).await.expect("an answer").expect("a row");
    assert_eq!(short.expires_time_ms, Some(10));
    bench.store.change_key(heir.id, KeyChange::Revoke { time_ms: 1 }, &audit("key.revoke")).await.expect("revoked");
    let refused = bench.store.create_key(&new_key(22), Some((heir.id, 99)), &audit("key.rotate")).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
}

async fn a_key_is_revoked_and_shortened_but_never_lengthened(bench: Bench) {
    let key = bench.store.create_key(&new_key(1), None, &audit("key.create")).await.expect("a key");
    let mut last = key.change;
    for (change, expires, revoked) in [
        (KeyChange::Expire { time_ms: 500 }, Some(500), None),
        (KeyChange::Expire { time_ms: 600 }, Some(500), None),
        (KeyChange::Expire { time_ms: 400 }, Some(400), None),
        (KeyChange::Revoke { time_ms: 70 }, Some(400), Some(70)),
        (KeyChange::Revoke { time_ms: 80 }, Some(400), Some(70)),
    ] {
        let row = bench.store.change_key(key.id, change, &audit("key.change")).await.expect("a row");
        assert_eq!((row.expires_time_ms, row.revoked_time_ms), (expires, revoked), "{change:?}");
        assert!(row.change > last, "{change:?}");
        last = row.change;
        assert_eq!(bench.store.key(key.id).await, Ok(Some(row)));
    }
    let beyond = KeyChange::Expire { time_ms: u64::MAX };
    let refused = bench.store.change_key(key.id, beyond, &audit("key.change")).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
}

async fn changes_are_told_in_order_and_by_pages(bench: Bench) {
    for number in 1..=10 {
        bench.store.create_key(&new_key(number), None, &audit("key.create")).await.expect("a key");
    }
    bench.store.change_key(3, KeyChange::Revoke { time_ms: 1 }, &audit("key.revoke")).await.expect("revoked");
    for limit in [1, 3, 10, 11, usize::MAX] {
        let (mut by_change, mut by_id): (Vec<KeyRow>, Vec<KeyRow>) = Default::default();
        loop {
            let page =
                bench.store.keys_changed(by_change.last().map_or(0, |row| row.change), limit).await.expect("a page");
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            by_change.extend(page);
        }
        loop {
            let page = bench.store.keys(by_id.last().map_or(0, |row| row.id), limit).await.expect("a page");
            if page.is_empty() {
                break;
            }
            by_id.extend(page);
        }
        let ids = |rows: &[KeyRow]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(&by_change), [1, 2, 4, 5, 6, 7, 8, 9, 10, 3]);
        assert_eq!(ids(&by_id), (1..=10).collect::<Vec<_>>());
        assert!(by_change.is_sorted_by(|a, b| a.change < b.change));
    }
    assert_eq!(bench.store.keys(0, 0).await, Ok(Vec::new()));
    let last = bench.store.keys_changed(0, PAGE_MAX).await.expect("a page").last().map(|row| row.change);
    assert!(bench.store.pulse().await.expect("a pulse").keys >= last.expect("rows"));
}

async fn what_an_operator_writes_is_noticed(bench: Bench) {
    let key = bench.store.create_key(&new_key(1), None, &audit("key.create")).await.expect("a key");
    let mut before = bench.store.pulse().await.expect("a pulse").keys;
    for sql in [
        "UPDATE api_keys SET limit_per_second = 77 WHERE id = 1",
        "UPDATE rate_limit_template SET limit_per_second = 78 WHERE name = 'demo'",
        "INSERT INTO rate_limit_template VALUES ('own', 2, 1, NULL, 0, 1)",
        "DELETE FROM rate_limit_template WHERE name = 'own'",
    ] {
        let Some(done) = bench.sql(sql).await else { return };
        assert_eq!(done, "", "{sql}");
        let after = bench.store.pulse().await.expect("a pulse").keys;
        assert!(after > before, "{sql}");
        before = after;
    }
    let changed = bench.store.keys_changed(key.change, PAGE_MAX).await.expect("a page");
    assert_eq!(changed.iter().map(|row| row.limit_per_second).collect::<Vec<_>>(), [Some(77)]);
    // A row that is gone would be no news for anybody.
    assert_ne!(bench.sql("DELETE FROM api_keys").await.as_deref(), Some(""));
    assert_eq!(bench.store.keys(0, PAGE_MAX).await.expect("keys").len(), 1);
}

async fn tiers_are_seeded_put_and_ordered(bench: Bench) {
    let names =
        async || bench.store.tiers().await.expect("tiers").into_iter().map(|tier| tier.name).collect::<Vec<_>>();
    assert_eq!(names().await, ["demo", "basic", "stress", "pro", "enterprise"]);
    let demo = &bench.store.tiers().await.expect("tiers")[0];
    assert_eq!((demo.limit_per_second, demo.limit_per_second_performance, demo.permissions), (3, Some(1_000), 7));

    let before = bench.store.pulse().await.expect("a pulse");
    let own = TierRow {
        name: "a 'tier' of our own \u{1F47B}".to_owned(),
        rank: 2,
        limit_per_second: 1,
        limit_per_second_performance: None,
        limit_per_month: i64::MAX.cast_unsigned(),
        permissions: 5,
    };
    bench.store.put_tier(&own, &audit("tier.put")).await.expect("a tier");
    let own = TierRow { limit_per_second: 12, limit_per_second_performance: Some(13), ..own };
    bench.store.put_tier(&own, &audit("tier.put")).await.expect("a tier");
    assert_eq!(names().await, ["demo", "basic", "stress", &own.name, "pro", "enterprise"]);
    assert!(bench.store.tiers().await.expect("tiers").contains(&own));
    let after = bench.store.pulse().await.expect("a pulse");
    assert!(after.keys > before.keys);

    for bad in [
        TierRow { rank: 4, ..own.clone() },
        TierRow { limit_per_second: 0, ..own.clone() },
        TierRow { limit_per_second_performance: Some(0), ..own.clone() },
        TierRow { limit_per_month: u64::MAX, ..own.clone() },
        TierRow { name: String::new(), ..own.clone() },
        TierRow { name: "x".repeat(NAME_BYTES_MAX + 1), ..own.clone() },
    ] {
        let refused = bench.store.put_tier(&bad, &audit("tier.put")).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{bad:?}: {refused:?}");
    }
    assert_eq!(bench.store.pulse().await, Ok(after));
    assert_eq!(bench.store.audit_page(None, PAGE_MAX).await.expect("entries").len(), 2);
}

/// Writers on two nodes, and one who looks all the time: following the numbers it learns of every key, and sees none
/// whose number is below one it has seen already.
async fn pollers_miss_no_change_of_many_writers(bench: Bench) {
    let stores = [Arc::clone(&bench.store), bench.other().unwrap_or_else(|| Arc::clone(&bench.store))];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4_u8 {
        let store = Arc::clone(&stores[usize::from(writer % 2)]);
        writers.spawn(async move {
            for number in 0..10 {
                let key = new_key(1 + writer * 10 + number);
                store.create_key(&key, None, &audit("key.create")).await.expect("a key");
            }
        });
    }
    let (mut seen, mut after) = (BTreeSet::new(), 0);
    let deadline = tokio::time::Instant::now() + harness::PATIENCE;
    while seen.len() < 40 {
        assert!(tokio::time::Instant::now() < deadline, "only {seen:?}");
        let Pulse { keys, .. } = bench.store.pulse().await.expect("a pulse");
        if keys > after {
            let page = bench.store.keys_changed(after, PAGE_MAX).await.expect("a page");
            assert!(page.iter().all(|row| row.change > after && seen.insert(row.id)), "a key was told of twice");
            after = page.last().map_or(after, |row| row.change).max(keys);
        }
    }
    writers.join_all().await;
}
