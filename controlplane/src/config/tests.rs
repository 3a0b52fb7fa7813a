//! What the settings promise: precedence, and every fault told at once.

use super::layers::{Origin, Profile, SettingArgs};
use super::{BadSettings, Role, Settings, catalogue, inspect, load, without_effect};
use clap::{Args, Command, FromArgMatches};
use dataplane_engine::EngineChoice;
use shared::key::KeyId;
use shared::venue::{Venue, VenueSet};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::time::Duration;

/// Flags as on a command line.
fn args(flags: &[&str]) -> SettingArgs {
    let command = SettingArgs::augment_args(Command::new("test").no_binary_name(true));
    let matches = command.try_get_matches_from(flags).expect("flags that are known");
    SettingArgs::from_arg_matches(&matches).expect("flags that are read")
}

fn load_with(profile: Profile, flags: &[&str], environment: &[(&str, &str)]) -> Result<Settings, BadSettings> {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    load(profile, &args(flags), |name| environment.get(name).map(OsString::from))
}

/// Settings out of a file with this text.
fn load_file(text: &str, environment: &[(&str, &str)]) -> Result<Settings, BadSettings> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("its text");
    load_with(Profile::Serve, &["--config", file.path().to_str().expect("a path")], environment)
}

/// The names of the faults, in order.
#[track_caller]
fn check_faults(result: Result<Settings, BadSettings>, expected: &[&str]) {
    let faults = result.err().map(|bad| bad.0).unwrap_or_default();
    assert_eq!(faults.iter().map(|fault| fault.name.as_str()).collect::<Vec<_>>(), expected, "{faults:#?}");
}

#[test]
fn every_default_is_good() {
    for profile in [Profile::Serve, Profile::Demo] {
        check_faults(load_with(profile, &[], &[]), &[]);
    }
    let settings = load_with(Profile::Serve, &[], &[]).expect("the defaults");
    assert_eq!((settings.tcp_port_lpo, settings.udp_port_lpo, settings.health_port_lrs), (8080, 2679, 9091));
    assert_eq!((settings.bind.to_string().as_str(), settings.role), ("0.0.0.0", Role::AppReportServer));
    assert_eq!((settings.fresh, settings.drain_wait), (Duration::from_secs(9), Duration::from_secs(35)));
    let demo = load_with(Profile::Demo, &["--any-port"], &[]).expect("the demo's defaults");
    assert_eq!((demo.bind.to_string().as_str(), demo.tcp_port_lpo, demo.drain_wait), ("127.0.0.1", 0, Duration::ZERO));
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let file = "tcp_port_lpo = 1\nudp_port_lpo = 2\ntcp_port_lrs = \"3\"\nokx_prewarm_assets = [\"btc\", \"eth\"]\n";
    let path = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(path.path(), file).expect("its text");
    let flags = ["--config", path.path().to_str().expect("a path"), "--tcp-port-lpo", "11", "--any-port"];
    let environment = [("TCP_PORT_LPO", "21"), ("UDP_PORT_LPO", "22"), ("TCP_PORT_LRS", " ")];
    let settings = load_with(Profile::Serve, &flags, &environment).expect("good settings");
    let ports = [settings.tcp_port_lpo, settings.udp_port_lpo, settings.tcp_port_lrs, settings.health_port_lpo];
    assert_eq!(ports, [11, 22, 3, 0], "flag, environment, file, --any-port; an empty variable is not set");
    let okx = settings.prewarm[6].as_ref().expect("a list");
    assert_eq!(okx.iter().map(|symbol| symbol.as_str()).collect::<Vec<_>>(), ["BTC", "ETH"]);
    let (layers, _) = inspect(Profile::Serve, &args(&flags), |_| None);
    assert_eq!(layers.text(&catalogue::TCP_PORT_LPO), ("11", &Origin::Flag));
    assert_eq!(layers.text(&catalogue::UDP_PORT_LPO), ("2", &Origin::File(path.path().to_owned())));
}

#[test]
fn each_bad_value_is_refused() {
    let bad = [
        ("SERVER_TYPE", &["LRS", "WEBHOOK_SERVER", "lpo"][..]),
        ("BIND_ADDRESS", &["here", "256.0.0.1", "127.0.0.1:80"]),
        ("TCP_PORT_LPO", &["65536", "-1", "+1", "80a", "8 0"]),
        ("HEALTH_PORT_LRS", &["99999999999999999999"]),
        ("CLUSTER_NODE", &["a b", "ä"]),
        ("ADMIN_KEY", &["short", "with a space in the middle"]),
        ("TB_ENGINE", &["kqueue", "EPOLL"]),
        ("TB_SHARDS", &["0", "64", "two"]),
        ("TB_STEERING", &["rss", "CPU"]),
        ("TB_CONTROL_CPUS", &["1-", "3-1", "1,,2", "9999", "a"]),
        ("CACHE_TTL_SECONDS", &["0", "301", "9.5"]),
        ("GEMINI_API", &["v1"]),
        ("VENUE_REST_GAP_MS", &["-1", "60001", "fast"]),
        ("VENUES", &["mtgox", "coinbase,,kraken"]),
        ("KRAKEN_WS_URL", &["ws://example.com/", "https://example.com", "nonsense"]),
        ("KRAKEN_REST_URL", &["http://example.com", "wss://example.com", "https://user:canary@example.com"]),
        ("DRAIN_WAIT_SECONDS", &["46"]),
        ("LOG_LEVEL", &["loud"]),
        ("LOG_FORMAT", &["xml"]),
        ("OKX_PREWARM_ASSETS", &["BTC,", "BTC-USD", "ABCDEFGHIJKLMNOPQ"]),
    ];
    for (name, values) in bad {
        for value in values {
            check_faults(load_with(Profile::Serve, &[], &[(name, value)]), &[name]);
        }
    }
}

#[test]
fn a_rival_engine_is_taken_where_it_is_built_in_and_the_fault_says_how_to_build_it() {
    for (name, built_in) in [("monoio", cfg!(feature = "monoio")), ("glommio", cfg!(feature = "glommio"))] {
        match load_with(Profile::Serve, &[], &[("TB_ENGINE", name)]) {
            Ok(settings) => assert!(built_in && EngineChoice::from_name(name) == Some(settings.engine)),
            Err(bad) => {
                assert!(!built_in && bad.to_string().contains("not in this binary: cargo build"), "{name}: {bad}")
            }
        }
    }
}

#[test]
fn a_secret_s_name_is_taken_where_it_can_be_fetched() {
    const ARN: &str = "arn:aws:secretsmanager:eu-west-2:1:secret:name-x";
    let (aurora, region) = (("AURORA_URL", "host:5432"), ("AWS_REGION", "eu-west-1"));
    let (secret, arn) = (("DB_SECRET_NAME", "name"), ("DB_SECRET_NAME", ARN));
    for (environment, without, with) in [
        (&[secret, region][..], &["DB_SECRET_NAME"][..], &[][..]),
        (&[aurora, secret, region], &["AURORA_URL", "DB_SECRET_NAME"], &[]),
        (&[aurora, arn], &["AURORA_URL", "DB_SECRET_NAME"], &[]),
        (&[aurora, region], &["AURORA_URL"], &["DB_SECRET_NAME"]),
        (&[secret], &["DB_SECRET_NAME"], &["AWS_REGION"]),
        (&[("AURORA_URL", "host:99999"), secret], &["AURORA_URL", "DB_SECRET_NAME"], &["AURORA_URL", "AWS_REGION"]),
    ] {
        let expected = if crate::secrets::BUILT_IN { with } else { without };
        match load_with(Profile::Serve, &[], environment) {
            Ok(settings) => {
                let place = if environment.contains(&arn) { "eu-west-2" } else { "eu-west-1" };
                assert!(expected.is_empty() && settings.database.secret_region == place, "{environment:?}");
            }
            Err(bad) => {
                let names: Vec<&str> = bad.0.iter().map(|fault| fault.name.as_str()).collect();
                assert_eq!(names.iter().collect::<BTreeSet<_>>(), expected.iter().collect(), "{environment:?}: {bad}");
                assert!(crate::secrets::BUILT_IN || bad.to_string().contains("cargo build --release --features aws"));
            }
        }
        // Beside DATABASE_URL they may stand, and do nothing.
        let beside: Vec<_> = environment.iter().copied().chain([("DATABASE_URL", "sqlite::memory:")]).collect();
        let is_good = !environment.iter().any(|(_, value)| value.ends_with("99999"));
        assert_eq!(load_with(Profile::Serve, &[], &beside).is_ok(), is_good, "{environment:?}");
    }
}

#[test]
fn detail_is_kept_for_longer_than_a_queue_keeps_it() {
    let queue = ("SQS_USAGE_LOG_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/1/usage");
    let days = |text| ("USAGE_RETENTION_DAYS", text);
    check_faults(load_with(Profile::Serve, &[], &[days("1")]), &[]);
    for (text, with) in [("14", &["USAGE_RETENTION_DAYS"][..]), ("15", &[])] {
        let expected = if crate::secrets::BUILT_IN { with } else { &["SQS_USAGE_LOG_QUEUE_URL"] };
        check_faults(load_with(Profile::Serve, &[], &[queue, days(text)]), expected);
    }
}

#[test]
fn all_faults_are_told_at_once_and_secrets_are_not() {
    let environment =
        [("TCP_PORT_LPO", "70000"), ("TB_ENGINE", "kqueue"), ("TB_SHARDS", "0"), ("ADMIN_KEY", "tooshort-canary")];
    let flags = ["--udp-port-lpo", "x"];
    let bad = load_with(Profile::Serve, &flags, &environment).expect_err("refused");
    assert_eq!(bad.0.len(), 5);
    let said = bad.to_string();
    for part in ["TCP_PORT_LPO", "70000", "environment", "0 to 65535", "prices over HTTP", "UDP_PORT_LPO", "flag"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn a_file_s_own_faults_are_told_too() {
    check_faults(
        load_file("tcp_port_lpo = 70000\nnonsense = 1\ntb_shards = true\n", &[]),
        &["nonsense", "TB_SHARDS", "TCP_PORT_LPO"],
    );
    check_faults(load_file("tcp_port_lpo = \n", &[]), &["--config"]);
    check_faults(load_with(Profile::Serve, &["--config", "/no/such/file"], &[]), &["--config"]);
    let said = load_file("admin_key = \"canary-canary-canary\nx", &[]).expect_err("refused").to_string();
    assert!(said.contains("line 2") && !said.contains("canary"), "{said}");
    let said = load_file("admin_kee = \"canary-canary-canary\"\n", &[]).expect_err("refused").to_string();
    assert!(said.contains("admin_kee") && !said.contains("canary"), "{said}");
}

#[test]
fn keys_come_from_the_file() {
    let hash = "ab".repeat(32);
    let table = |id: &str, more: &str| format!("[[keys]]\nid = {id}\nlimit = 1000\n{more}\n");
    let good =
        table("7", &format!("sha256 = \"{hash}\"\nudp_secret = \"{}\"\npermissions = [\"prices\"]", "0f".repeat(16)));
    let settings = load_file(&good, &[]).expect("a good key");
    let key = &settings.keys[0];
    assert_eq!((key.record.id, key.limit_per_second, key.permissions), (KeyId(7), Some(1000), Some(1)));
    assert_eq!((key.record.hash, key.record.udp_secret), ([0xab; 32], [0x0f; 16]));
    let tiered = format!("[[keys]]\nid = 7\nsha256 = \"{hash}\"\ntier = \"pro\"\n");
    let key = &load_file(&tiered, &[]).expect("a key of a tier").keys[0];
    assert_eq!((key.tier.as_deref(), key.limit_per_second, key.permissions), (Some("pro"), None, None));

    let sha = format!("sha256 = \"{hash}\"");
    let other = format!("sha256 = \"{}\"", "cd".repeat(32));
    for (text, expected) in [
        (table("0", &sha), &["keys[0].id"][..]),
        (table("4294967296", &sha), &["keys[0].id"]),
        (table("1", ""), &["keys[0].sha256"]),
        (table("1", "sha256 = \"ab\""), &["keys[0].sha256"]),
        (table("1", &sha) + &table("1", &other), &["keys[1].id"]),
        (table("1", &sha) + &table("2", &sha), &["keys[1].sha256"]),
        (table("1", &format!("{sha}\nudp_secret = \"canary\"")), &["keys[0].udp_secret"]),
        (table("1", &format!("{sha}\npermissions = [\"all\"]")), &["keys[0].permissions"]),
        (table("1", &format!("{sha}\nexpires_at_ms = -1")), &["keys[0].expires_at_ms"]),
        (table("1", &format!("{sha}\ntext = \"tb_live_canary\"")), &["keys[0].text"]),
        (table("1", &sha).replace("limit = 1000", "limit = 16000001"), &["keys[0].limit"]),
        (table("1", &sha).replace("limit = 1000", ""), &["keys[0].limit"]),
        (table("1", &format!("{sha}\ntier = \"\"")), &["keys[0].tier"]),
        ("keys = 1\n".to_owned(), &["keys"]),
    ] {
        let result = load_file(&text, &[]);
        assert!(!result.as_ref().err().map(ToString::to_string).unwrap_or_default().contains("canary"));
        check_faults(result, expected);
    }
}

#[test]
fn a_wrong_list_of_keys_does_not_fill_the_screen() {
    let text: String = (0..1_000).map(|id| format!("[[keys]]\nid = {id}\n")).collect();
    let bad = load_file(&text, &[]).expect_err("refused");
    assert!(bad.0.len() <= 20, "{} faults", bad.0.len());
}

#[test]
fn names_are_unique_and_agree_with_each_other() {
    let mut seen = std::collections::HashSet::new();
    for setting in catalogue::all() {
        assert!(seen.insert(setting.name), "{} twice", setting.name);
        assert!(!setting.bounds.is_empty() && !setting.meaning.is_empty(), "{}", setting.name);
        if let Some(flag) = setting.flag {
            let plain = setting.name.trim_start_matches("TB_").to_ascii_lowercase().replace('_', "-");
            assert_eq!(flag, plain, "the flag is the name without TB_, in lower case");
        }
        assert_eq!(setting.secret, setting.flag.is_none(), "{}: no secret on a command line", setting.name);
    }
}

#[test]
fn control_cpus_are_numbers_and_ranges() {
    let cpus = |text| load_with(Profile::Serve, &["--control-cpus", text], &[]).expect("good").control_cpus;
    assert_eq!(cpus("0,2-4,3"), [0, 2, 3, 4]);
    assert_eq!(cpus("7"), [7]);
}

#[test]
fn choices_are_read() {
    let flags = ["--venues", "kraken, okx", "--okx-ws-url", "ws://127.0.0.1:9000/ws"];
    let settings = load_with(Profile::Serve, &flags, &[]).expect("good");
    assert_eq!(settings.venues, VenueSet::EMPTY.with(Venue::Kraken).with(Venue::Okx));
    assert_eq!(settings.endpoints.ws(Venue::Okx), Some("ws://127.0.0.1:9000/ws"));
    let flags = ["--engine", "io_uring", "--server-type", "LPO", "--shards", "3", "--okx-prewarm-assets", "none"];
    let settings = load_with(Profile::Serve, &flags, &[]).expect("good");
    assert_eq!((settings.engine, settings.role, settings.shards), (EngineChoice::IoUring, Role::Lpo, Some(3)));
    assert_eq!(settings.prewarm[6].as_deref(), Some(&[][..]));
    assert_eq!(settings.prewarm[0], None, "the built-in list");
}

#[test]
fn names_that_do_nothing_are_known() {
    let set = |name: &str| (name == "HEALTH_PORT_WEBHOOK" || name == "PREWARM_ASSETS").then(|| OsString::from("x"));
    assert_eq!(without_effect(set).collect::<Vec<_>>(), ["HEALTH_PORT_WEBHOOK", "PREWARM_ASSETS"]);
}

#[test]
fn a_key_in_the_place_of_its_hash_is_not_shown() {
    let bad = load_file("[[keys]]\nid = 1\nlimit = 1\nsha256 = \"tb_live_canary\"\nudp_secret = \"canary\"\n", &[]);
    let said = bad.map(drop).expect_err("not a hash").to_string();
    assert!(said.contains("keys[0].sha256") && said.contains("keys[0].udp_secret"), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn credentials_show_nowhere_whatever_setting_they_were_put_into() {
    let canary = "postgres://canary:canary@host/db";
    for setting in catalogue::all() {
        let (layers, faults) =
            inspect(Profile::Serve, &SettingArgs::default(), |name| (name == setting.name).then(|| canary.into()));
        let text = super::fault::shown(setting, layers.text(setting).0);
        assert!(!format!("{text} {}", BadSettings(faults)).contains("canary"), "{}", setting.name);
        if setting.secret {
            let settings = load_with(Profile::Serve, &[], &[(setting.name, canary)]);
            assert!(!format!("{settings:?}").contains("canary"), "{}", setting.name);
        }
    }
}
