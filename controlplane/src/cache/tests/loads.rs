//! Much that is loaded at once, and a hash that is brought forward.

use super::*;
use crate::cache::load::{Loads, Shown};
use crate::cache::names::{API_KEY, SYNC_CURSOR, USAGE_BY_ASSET};

/// Rows loaded at once: some pipelines full.
const ROWS: usize = 3_000;

fn soon_ms() -> u64 {
    tuning::clock::now().wall_ms + 3_600_000
}

fn row_name(index: usize) -> CacheKey {
    CacheKey::new(USAGE_LOG, &format!("row-{index}")).expect("a name")
}

async fn found(cache: &dyn Cache, key: &CacheKey) -> Option<Value> {
    cache.get(key).await.expect("an answer").map(|(value, _)| value)
}

pub async fn much_is_loaded(cache: &dyn Cache) {
    let (index, asset) = (key("usage_logs:index"), CacheKey::new(USAGE_BY_ASSET, "BTC").expect("a name"));
    let api_key = CacheKey::new(API_KEY, "0a").expect("a name");
    let ends_ms = soon_ms();
    let members: Vec<(String, i64)> = (0..ROWS).map(|at| (format!("{at:05}"), at as i64)).collect();
    let load = || {
        let mut loads = Loads::default();
        for at in 0..ROWS {
            let fields = [
                ("number", Shown::Number(at as u64)),
                ("text", Shown::Text("\u{20ac}\r\n")),
                ("none", Shown::Text("")),
            ];
            loads.fields(&row_name(at), &fields, ends_ms).expect("room");
        }
        let members: Vec<(&str, i64)> = members.iter().map(|(member, score)| (member.as_str(), *score)).collect();
        loads.members(&index, &members[..900]).expect("room");
        loads.members(&asset, &members[..5]).expect("room");
        loads.text(&api_key, "{}", ends_ms).expect("room");
        loads
    };
    // Twice is as good as once; the second time other types are in the way.
    for turn in 0..2 {
        assert_eq!(cache.load(load()).await, Ok(()), "turn {turn}");
        for at in [0, 1, 511, 512, ROWS - 1] {
            let expected = hash(&[("number", &at.to_string()), ("text", "\u{20ac}\r\n"), ("none", "")]);
            let (value, left_ms) = cache.get(&row_name(at)).await.expect("an answer").expect("a row");
            assert_eq!(value, expected);
            assert!(left_ms.is_some_and(|left_ms| (3_000_000..=3_600_000).contains(&left_ms)), "{left_ms:?}");
        }
        assert_eq!(found(cache, &index).await, Some(Value::Sorted(members[..900].to_vec())));
        let (value, left_ms) = cache.get(&asset).await.expect("an answer").expect("a set");
        assert_eq!(value, Value::Sorted(members[..5].to_vec()));
        assert!(left_ms.is_some_and(|left_ms| left_ms > 92 * 24 * 3_600_000));
        assert_eq!(found(cache, &api_key).await, Some(text("{}")));
        cache.delete(&row_name(512)).await.expect("deleted");
    }
    let mut loads = Loads::default();
    loads.trim(&index, 400, 450).expect("room");
    loads.trim(&asset, 2, 1_000).expect("room");
    loads.delete(&api_key).expect("room");
    // Its end is over.
    loads.fields(&row_name(0), &[("number", Shown::Number(1))], 1).expect("room");
    for at in 1..ROWS {
        loads.delete(&row_name(at)).expect("room");
    }
    assert_eq!(cache.load(loads).await, Ok(()));
    assert_eq!(found(cache, &index).await, Some(Value::Sorted(members[450..900].to_vec())));
    assert_eq!(found(cache, &asset).await, Some(Value::Sorted(members[2..5].to_vec())));
    for gone in [api_key, row_name(0), row_name(7)] {
        assert_eq!(found(cache, &gone).await, None, "{gone}");
    }
    for set in [index, asset] {
        assert_eq!(cache.delete(&set).await, Ok(true));
    }
    // What may not stand is refused before anything is sent.
    let mut loads = Loads::default();
    assert!(loads.text(&key("usage_logs:index"), "x", ends_ms).is_err());
    assert!(loads.fields(&row_name(0), &[], ends_ms).is_err());
    assert!(loads.members(&key("usage_logs:index"), &[("a", SCORE_MAX + 1)]).is_err());
    assert_eq!((loads.count(), cache.load(loads).await), (0, Ok(())));
}

pub async fn a_hash_is_brought_forward(cache: &dyn Cache) {
    let cursor = CacheKey::fixed(SYNC_CURSOR);
    let number = |number| [("number", News::Number(number)), ("text", News::Text(format!("t{number}")))];
    assert_eq!(cache.advance(&cursor, ("epoch", "a"), &number(1)).await, Ok(false), "nothing stands there");
    assert_eq!(found(cache, &cursor).await, None);
    cache.put(&cursor, &hash(&[("epoch", "a")])).await.expect("written");
    for (guard, news, done, expected) in [
        ("b", 5, false, hash(&[("epoch", "a")])),
        ("a", 5, true, hash(&[("epoch", "a"), ("number", "5"), ("text", "t5")])),
        ("a", 4, true, hash(&[("epoch", "a"), ("number", "5"), ("text", "t4")])),
        (
            "a",
            SCORE_MAX - 1,
            true,
            hash(&[("epoch", "a"), ("number", "9007199254740991"), ("text", "t9007199254740991")]),
        ),
    ] {
        assert_eq!(cache.advance(&cursor, ("epoch", guard), &number(news)).await, Ok(done), "{guard} {news}");
        assert_eq!(found(cache, &cursor).await, Some(expected), "{guard} {news}");
    }
    assert_eq!(cache.delete(&cursor).await, Ok(true));
    assert!(matches!(cache.advance(&key("price:BTC"), ("a", "b"), &[]).await, Err(CacheError::Refused(_))));
}
