//! Good sets, and everything that can be wrong with one.

use super::*;
use crate::config::layers::{Profile, SettingArgs};

fn rows(lines: &[(&str, &str)]) -> Rows {
    let parameters = lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Rows { parameters, assets: Vec::new() }
}

fn mapped(exchange: &str, asset: &str, enabled: bool) -> AssetRow {
    AssetRow { exchange: exchange.to_owned(), asset: asset.to_owned(), enabled }
}

fn good(rows: &Rows) -> Checked {
    check(rows, &Base::default()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

/// The names of what is refused, sorted.
#[track_caller]
fn check_faults(lines: &[(&str, &str)], expected: &[&str]) {
    let faults = check(&rows(lines), &Base::default()).expect_err("a fault");
    let mut names: Vec<&str> = faults.iter().map(|fault| fault.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, expected, "{faults:#?}");
    assert!(faults.iter().all(|fault| !fault.bounds.is_empty() && !fault.meaning.is_empty()));
}

#[test]
fn with_no_rows_everything_stands_at_the_replaced_system_s_values() {
    let Checked { parameters, standing } = good(&Rows::default());
    assert_eq!((parameters.adaptive.max_concurrent, parameters.adaptive.success_threshold_permille), (6_000, 500));
    assert_eq!((parameters.db_max_open, parameters.db_max_idle), (150, 75));
    assert_eq!(parameters.cache_timeouts, CacheTimeouts::default());
    assert_eq!((parameters.http_idle_timeout_s, parameters.http_read_timeout_s), (300, 5));
    assert_eq!((parameters.cache_ttl_s, parameters.log_level), (9, Level::INFO));
    assert_eq!(parameters.prewarm, [const { None }; 7]);
    assert_eq!(standing.len(), name::all().count(), "every parameter stands somewhere");
    assert!(standing.values().all(|standing| standing.origin == Origin::Default));
}

#[test]
fn every_name_of_the_replaced_system_is_known() {
    let plain = "adaptive_max_concurrent adaptive_success_threshold adaptive_throttle_delay_ms udp_max_concurrent_lpo \
        udp_max_concurrent_lrs db_max_open_conns db_max_idle_conns cache_pool_size cache_min_idle_conns \
        cache_dial_timeout_ms cache_read_timeout_ms cache_write_timeout_ms sqs_batch_size sqs_flush_ms sqs_buffer_size \
        sqs_timeout_ms http_idle_timeout_seconds http_read_timeout_seconds http_write_timeout_seconds cache_ttl_seconds \
        log_level prewarm_assets prewarm_interval kraken_prewarm_interval_minutes kraken_prewarm_offset_seconds ADMIN_KEY \
        system_mode coinbase_prewarm_assets gemini_prewarm_assets kraken_prewarm_assets gateio_prewarm_assets \
        cryptocom_prewarm_assets bybit_prewarm_assets okx_prewarm_assets";
    let mut names: Vec<&str> = plain.split_whitespace().collect();
    let mut known: Vec<&str> = name::all().map(|parameter| parameter.name).collect();
    names.sort_unstable();
    known.sort_unstable();
    assert_eq!(known, names);
    for parameter in name::all() {
        assert!(!parameter.meaning.is_empty() && !parameter.bounds().is_empty(), "{}", parameter.name);
        assert!(!matches!(parameter.effect, name::Effect::None("")), "{}", parameter.name);
        // What stands by default is a row like any other.
        good(&rows(&[(parameter.name, &parameter.default())]).unless_unset(parameter));
    }
}

impl Rows {
    /// No rows where the default is "not set" and may not be written down.
    fn unless_unset(self, parameter: &Parameter) -> Self {
        if parameter.default().is_empty() { Self::default() } else { self }
    }
}

#[test]
fn values_are_read_as_they_were_written_in_the_old_table() {
    let set = good(&rows(&[
        ("adaptive_success_threshold", "0.50"),
        ("http_idle_timeout_seconds", " 60 "),
        ("log_level", "error"),
        ("okx_prewarm_assets", "btc, eth,rndr"),
        ("kraken_prewarm_assets", "none"),
        ("gemini_prewarm_assets", ""),
        ("system_mode", "performance"),
    ]));
    assert_eq!(set.parameters.adaptive.success_threshold_permille, 500);
    assert_eq!(set.parameters.http_idle_timeout_s, 60);
    assert_eq!((set.parameters.mode, set.parameters.log_level), (SystemMode::Performance, Level::ERROR));
    assert_eq!(set.standing["okx_prewarm_assets"].text, "BTC,ETH,RNDR");
    assert_eq!(set.parameters.prewarm[Venue::Kraken.index()], Some(Vec::new()));
    assert_eq!(set.parameters.prewarm[Venue::Gemini.index()], None, "empty is not set");
    assert_eq!(set.standing["okx_prewarm_assets"].origin, Origin::Store);
    for (text, permille) in [("0", 0), ("1", 1_000), ("1.000", 1_000), ("0.05", 50), ("0.123", 123)] {
        assert_eq!(share(text).map(|(value, _)| value), Some(permille), "{text}");
    }
}

#[test]
fn what_cannot_be_is_told_all_at_once() {
    check_faults(&[("cache_ttl_seconds", "0")], &["cache_ttl_seconds"]);
    for bad in ["", "-1", "+5", "5s", "5.0", "301", "99999999999999999999", "nine", "٩"] {
        check_faults(&[("cache_ttl_seconds", bad)], &["cache_ttl_seconds"]);
    }
    for bad in ["", "1.001", "-0.5", "0.5000", ".5", "0.", "50%", "2", "0.5e1"] {
        check_faults(&[("adaptive_success_threshold", bad)], &["adaptive_success_threshold"]);
    }
    check_faults(&[("log_level", "loud"), ("system_mode", "turbo")], &["log_level", "system_mode"]);
    check_faults(&[("sqs_batch_size", "11"), ("no_such", "1")], &["no_such", "sqs_batch_size"]);
    check_faults(&[("okx_prewarm_assets", "BTC,,ETH")], &["okx_prewarm_assets"]);
    check_faults(&[("prewarm_assets", "B-T-C")], &["prewarm_assets"]);
    check_faults(&[("okx_prewarm_assets", &["BTC"; 1_001].join(","))], &["okx_prewarm_assets"]);
    check_faults(&[("ADMIN_KEY", "too-short")], &["ADMIN_KEY"]);
    check_faults(&[("ADMIN_KEY", "sha256:abc")], &["ADMIN_KEY"]);
}

#[test]
fn one_bad_value_of_a_whole_table_refuses_the_set() {
    let defaults = || name::all().filter(|parameter| !parameter.default().is_empty());
    let mut table: Vec<(&str, String)> = defaults().map(|parameter| (parameter.name, parameter.default())).collect();
    let lines = |table: &[(&'static str, String)]| Rows {
        parameters: table.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        assets: Vec::new(),
    };
    good(&lines(&table));
    for index in 0..table.len() {
        let before = std::mem::replace(&mut table[index].1, "?".to_owned());
        let faults = check(&lines(&table), &Base::default()).expect_err("a fault");
        assert_eq!(faults.iter().map(|fault| fault.name.as_str()).collect::<Vec<_>>(), [table[index].0]);
        table[index].1 = before;
    }
}

#[test]
fn rules_between_parameters_hold() {
    check_faults(&[("db_max_open_conns", "10")], &["db_max_idle_conns"]);
    check_faults(
        &[("cache_pool_size", "1"), ("db_max_idle_conns", "151")],
        &["cache_min_idle_conns", "db_max_idle_conns"],
    );
    good(&rows(&[("db_max_open_conns", "10"), ("db_max_idle_conns", "10")]));
    // One that is refused by itself is not judged with others.
    check_faults(&[("db_max_open_conns", "0")], &["db_max_open_conns"]);
    let list = |from: usize| (from..from + 1_000).map(|index| format!("A{index}")).collect::<Vec<_>>().join(",");
    let lists: Vec<(&str, String)> =
        name::PREWARM.iter().zip((0..).step_by(1_000)).map(|(list_of, from)| (list_of.name, list(from))).collect();
    let lines: Vec<(&str, &str)> = lists.iter().map(|(name, text)| (*name, text.as_str())).collect();
    check_faults(&lines, &["*_prewarm_assets"]);
}

#[test]
fn a_venue_s_list_is_the_nearest_that_is_set() {
    let settings = crate::config::load(Profile::Demo, &SettingArgs::default(), |name| match name {
        "OKX_PREWARM_ASSETS" | "GEMINI_PREWARM_ASSETS" => Some("SET".into()),
        "CACHE_TTL_SECONDS" => Some("20".into()),
        _ => None,
    });
    let base = Base::of(&settings.expect("good settings"));
    let mut sheet = rows(&[("prewarm_assets", "OLD"), ("coinbase_prewarm_assets", "OWN"), ("cache_ttl_seconds", "30")]);
    sheet.assets = vec![
        mapped("gateio", "btc", true),
        mapped("GATEIO", "ETH", true),
        mapped("gateio", "SOL", false),
        mapped("gemini", "MAP", true),
        mapped("nobody", "?", false),
    ];
    let set = check(&sheet, &base).expect("a good set");
    let of = |venue: Venue| {
        let standing = &set.standing[name::PREWARM[venue.index()].name];
        (standing.text.as_str(), standing.origin)
    };
    assert_eq!(of(Venue::Coinbase), ("OWN", Origin::Store));
    assert_eq!(of(Venue::Gemini), ("OLD", Origin::PrewarmAssets));
    assert_eq!(of(Venue::Gateio), ("BTC,ETH", Origin::ExchangeAssetMap));
    assert_eq!(of(Venue::Okx), ("SET", Origin::Setting));
    assert_eq!(of(Venue::Bybit).1, Origin::Default);
    assert_eq!(set.parameters.prewarm[Venue::Bybit.index()], None);
    assert_eq!(set.parameters.cache_ttl_s, 30, "a row beats a setting");
    let bare = check(&Rows::default(), &base).expect("a good set");
    assert_eq!((bare.parameters.cache_ttl_s, bare.standing["cache_ttl_seconds"].origin), (20, Origin::Setting));
}

#[test]
fn rows_of_the_asset_map_are_held_to_their_bounds() {
    let assets = vec![mapped("binance", "BTC", true), mapped("okx", "B-C", true), mapped("okx", "", true)];
    let mut sheet = Rows { assets, ..Rows::default() };
    sheet.assets.extend((0..1_001).map(|index| mapped("bybit", &format!("A{index}"), true)));
    let faults = check(&sheet, &Base::default()).expect_err("faults");
    assert_eq!(faults.len(), 4, "{faults:#?}");
    assert!(faults.iter().all(|fault| fault.name == "exchange_asset_map"));
}

#[test]
fn an_administrator_s_key_is_kept_and_shown_as_nothing_that_opens() {
    let canary = "canary-key-0123456789";
    let clear = good(&rows(&[("ADMIN_KEY", canary)]));
    let stored = stored_form("ADMIN_KEY", canary);
    assert!(stored.starts_with("sha256:") && stored.len() == 71);
    let hashed = good(&rows(&[("ADMIN_KEY", &stored)]));
    assert_eq!(clear.parameters.admin_key_hash, hashed.parameters.admin_key_hash);
    assert_eq!(clear.parameters.admin_key_hash, Some(hash_text(canary.as_bytes())));
    assert_eq!(clear.standing["ADMIN_KEY"].text, MASK);
    let faults =
        check(&rows(&[("ADMIN_KEY", "canary"), ("ADMIN_KEYS", canary)]), &Base::default()).expect_err("faults");
    assert!(!format!("{faults:?} {:?}", clear.standing).contains("canary"), "{faults:?}");
    assert_eq!(stored_form("log_level", " warn "), "warn");
}

#[test]
fn profiles_write_the_numbers_and_the_level_alone() {
    for (mode, level) in
        [(SystemMode::Performance, "error"), (SystemMode::Standard, "info"), (SystemMode::Demo, "warn")]
    {
        let written: Vec<_> = name::profile(mode).collect();
        assert_eq!(written.len(), 22, "{written:?}");
        let set: Vec<(&str, &str)> =
            written.iter().filter_map(|(name, text)| Some((*name, text.as_deref()?))).collect();
        let set = good(&rows(&set));
        assert_eq!((set.parameters.mode, set.standing["log_level"].text.as_str()), (mode, level));
        assert_eq!(set.parameters.adaptive.max_concurrent, 6_000);
        assert!(written.iter().all(|(name, _)| !name.contains("prewarm") && *name != "ADMIN_KEY"));
    }
}
