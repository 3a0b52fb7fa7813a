//! Partitions by day on PostgreSQL: made ahead, by several at once, past rows that came before them; and a database of
//! the first version that holds rows.

use super::usage_write::{check_sums, now_ms, row, rows, span};
use super::{Bench, new_database};
use crate::store::postgres::PgStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Committed, Migrated, Store, StoreError, UsageRow, UsageWrite, schema};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Executor};
use std::str::FromStr;
use std::sync::Arc;
use tokio::task::JoinSet;
use tuning::clock;

const DAY_MS: u64 = 86_400_000;

/// Names of the days' partitions that there are, without what they begin with, and rows in the rest.
async fn days(bench: &Bench) -> (Vec<String>, String) {
    let names = "SELECT coalesce(string_agg(replace(inhrelid::regclass::text, 'usage_logs_', ''), ' ' ORDER BY \
                 inhrelid::regclass::text), '') FROM pg_inherits WHERE inhparent = 'usage_logs'::regclass AND \
                 inhrelid::regclass::text <> 'usage_logs_rest'";
    let names = bench.ask(names).await.split_whitespace().map(str::to_owned).collect();
    (names, bench.ask("SELECT count(*)::text FROM usage_logs_rest").await)
}

/// Today's name, and those of other days beside it.
fn named(days: &[i64]) -> Vec<String> {
    let now = i64::try_from(now_ms()).expect("a time");
    let name = |days: &i64| {
        let time = jiff::Timestamp::from_millisecond(now + days * 86_400_000).expect("a time");
        time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%d").to_string()
    };
    days.iter().map(name).collect()
}

#[tokio::test]
async fn days_are_made_ahead_and_within_a_month() {
    let bench = Bench::server().await;
    assert_eq!(days(&bench).await, (Vec::new(), "0".to_owned()));
    bench.store.commit_usage(span("n1", 1, 0, 0), &[]).await.expect("nothing");
    assert_eq!(days(&bench).await, (named(&[0, 1]), "0".to_owned()));
    let now_ms = now_ms();
    let times = [now_ms - 3 * DAY_MS, now_ms - 31 * DAY_MS, now_ms - 33 * DAY_MS, now_ms + 3 * DAY_MS, 0, u64::MAX];
    let odd: Vec<UsageRow> = (0..).zip(times).map(|(offset, time_ms)| row("n1", 1, offset, time_ms)).collect();
    assert_eq!(bench.store.add_usage(&odd).await, Ok(6));
    assert_eq!(days(&bench).await, (named(&[-31, -3, 0, 1]), "4".to_owned()));
    assert_eq!(check_sums(&bench).await.0, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_make_days_at_once() {
    let bench = Bench::server().await;
    let mut nodes = JoinSet::new();
    for number in 0..6_u64 {
        let store = bench.other().expect("another");
        nodes.spawn(async move {
            let node = format!("n{number}");
            let mut mine = rows(&node, 1, 0, 1_100);
            for (days, row) in (0..7).cycle().zip(&mut mine) {
                row.record.first_time_ms -= days * DAY_MS;
            }
            store.commit_usage(span(&node, 1, 0, 1_100), &mine).await
        });
    }
    for done in nodes.join_all().await {
        assert_eq!(done, Ok(Committed::Done));
    }
    assert_eq!(days(&bench).await, (named(&[-6, -5, -4, -3, -2, -1, 0, 1]), "0".to_owned()));
    assert_eq!(check_sums(&bench).await.0, 6_600);
}

/// Rows of a day that was not there when they came are moved; where they are too many they stay, and none is lost.
#[tokio::test]
async fn a_day_whose_rows_came_before_it() {
    for (count, moved) in [(300_i64, true), (50_001, false)] {
        let bench = Bench::server().await;
        let insert = format!(
            "INSERT INTO usage_logs SELECT {} + i % 1000, 9, i, 1, 200, 1, 'n0', '', 'tcp', '/price', 'local' FROM \
             generate_series(1, {count}) AS i; INSERT INTO usage_hours SELECT time_ms - time_ms % 3600000, key_id, \
             status, sum(requests), asset, protocol, endpoint, tier, node FROM usage_logs GROUP BY 1, 2, 3, 5, 6, 7, 8, \
             9; INSERT INTO usage_minutes SELECT time_ms - time_ms % 60000, key_id, status, sum(requests), asset, \
             protocol, endpoint, tier, node FROM usage_logs GROUP BY 1, 2, 3, 5, 6, 7, 8, 9",
            now_ms()
        );
        drop(as_owner(&bench, insert).await);
        let new = rows("n1", 1, 0, 1_200);
        assert_eq!(bench.store.commit_usage(span("n1", 1, 0, 1_200), &new).await, Ok(Committed::Done));
        let (names, rest) = days(&bench).await;
        let wanted = if moved { (named(&[0, 1]), "0".to_owned()) } else { (named(&[1]), (count + 1_200).to_string()) };
        assert_eq!((names, rest), wanted);
        assert_eq!(check_sums(&bench).await.0, u64::try_from(count).expect("a count") + 1_200);
        assert_eq!(bench.store.add_usage(&new).await, Ok(0));
    }
}

/// A reader that keeps a day in use delays its end, and nobody else for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_reads_holds_back_pruning_alone() {
    let bench = Bench::server().await;
    let mut old = rows("n1", 1, 0, 50);
    old.iter_mut().for_each(|row| row.record.first_time_ms -= 5 * DAY_MS);
    bench.store.add_usage(&old).await.expect("rows");
    let options = PgConnectOptions::from_str(bench.url().expect("an address")).expect("an address");
    let mut reader = options.connect().await.expect("a connection");
    reader.execute(sqlx::raw_sql("BEGIN; SELECT count(*) FROM usage_logs")).await.expect("a count");
    assert_eq!(bench.store.prune_usage(now_ms() - 2 * DAY_MS).await, Ok(0));
    // A day that is missing is not made while the rest is in use; rows come all the same.
    let new = rows("n1", 2, 0, 1_200);
    assert_eq!(bench.store.commit_usage(span("n1", 2, 0, 1_200), &new).await, Ok(Committed::Done));
    reader.execute(sqlx::raw_sql("COMMIT")).await.expect("an end");
    reader.close().await.expect("an end");
    let mut left = 50;
    while left > 0 {
        left -= bench.store.prune_usage(now_ms() - 2 * DAY_MS).await.expect("pruned").max(1);
        left = left
            .min(bench.ask("SELECT count(*)::text FROM usage_logs WHERE segment = 1").await.parse().expect("a number"));
    }
    assert_eq!(bench.ask("SELECT count(*)::text FROM usage_logs").await, "1200");
}

/// Runs SQL past the store, as the database's owner.
pub(super) async fn as_owner(bench: &Bench, sql: String) -> PgConnection {
    let options = PgConnectOptions::from_str(bench.url().expect("an address")).expect("an address");
    let mut link = options.connect().await.expect("a connection");
    link.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(sql))).await.expect("done");
    link
}

/// What a server does where a day takes too long to make: its time is over as it is in a statement that is cancelled.
/// The rows go to the rest, the store is well, and the next writer does not try at once.
#[tokio::test]
async fn a_day_that_takes_too_long_to_make_holds_nobody_up() {
    let bench = Bench::server().await;
    // As attaching does that has a large rest to look through.
    let slow = "CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); END $$; \
                CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slowly()";
    drop(as_owner(&bench, slow.to_owned()).await);
    for segment in 1..=3 {
        let new = rows("n1", segment, 0, 1_200);
        assert_eq!(bench.store.commit_usage(span("n1", segment, 0, 1_200), &new).await, Ok(Committed::Done));
    }
    let health = bench.store.health();
    assert_eq!((health.unreachable, health.away_since_ms), (0, None));
    assert_eq!(days(&bench).await, (Vec::new(), "3600".to_owned()));
}

/// A service whose user owns nothing and may make nothing, but read and write.
#[tokio::test]
async fn a_user_without_the_owners_rights() {
    let bench = Bench::server().await;
    let url = bench.url().expect("an address").to_owned();
    let name = format!("service_{}", url.rsplit('/').next().expect("a name"));
    let role = format!("CREATE ROLE {name} LOGIN PASSWORD 'p'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}");
    let mut owner = as_owner(&bench, role).await;
    let options = PgConnectOptions::from_str(&url).expect("an address").username(&name).password("p");
    let (new, mut old) = (rows("n1", 1, 0, 1_200), rows("n1", 2, 0, 50));
    old.iter_mut().for_each(|row| row.record.first_time_ms -= 5 * DAY_MS);
    bench.store.add_usage(&old).await.expect("rows");
    // May read: has nothing made and nothing removed.
    let reader = PgStore::lazy(options.clone());
    let refused = reader.prune_usage(now_ms() - DAY_MS).await;
    assert!(matches!(&refused, Err(StoreError::Invalid(why)) if why.contains("GRANT")), "{refused:?}");
    assert_eq!((reader.health().unreachable, reader.health().away_since_ms), (0, None));
    assert!(reader.add_usage(&new).await.is_err());
    let make = "SELECT usage_logs_make_day(20000)";
    assert_eq!(reader.ask(make).await, Ok("the user may not INSERT into usage_logs".to_owned()));
    // What the README tells.
    let rights = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}; GRANT USAGE ON ALL SEQUENCES IN \
         SCHEMA public TO {name}; DROP TABLE usage_logs_{}, usage_logs_{}",
        named(&[0])[0],
        named(&[1])[0]
    );
    owner.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(rights))).await.expect("done");
    let service = PgStore::lazy(options);
    assert_eq!(service.commit_usage(span("n1", 1, 0, 1_200), &new).await, Ok(Committed::Done));
    assert_eq!(days(&bench).await, (named(&[-5, 0, 1]), "0".to_owned()));
    while service.prune_usage(now_ms() - DAY_MS).await.expect("pruned") > 0 {}
    assert_eq!(days(&bench).await, (named(&[0, 1]), "0".to_owned()));
    owner.close().await.expect("an end");
}

/// A node whose clock is far ahead of the server's removes no more than one whose clock is right.
#[tokio::test]
async fn a_clock_that_is_ahead_removes_nothing_before_its_time() {
    let bench = Bench::server().await;
    let mut all = rows("n1", 1, 0, 50);
    for (days, row) in [0, 1, 5, 40].into_iter().cycle().zip(&mut all) {
        row.record.first_time_ms -= days * DAY_MS;
    }
    bench.store.add_usage(&all).await.expect("rows");
    let kept_ms = 20 * DAY_MS;
    for (ahead_ms, left) in [(100 * DAY_MS, 38), (5_000 * DAY_MS, 38)] {
        let now_ms = clock::now().wall_ms + ahead_ms;
        let before_ms = now_ms - kept_ms;
        let prune = format!("DO $$ BEGIN WHILE usage_logs_prune({before_ms}, {now_ms}, 10) > 0 LOOP END LOOP; END $$");
        drop(as_owner(&bench, prune).await);
        assert_eq!(bench.ask("SELECT count(*)::text FROM usage_logs").await, left.to_string());
    }
    // Its position is kept by the server's clock.
    bench.store.commit_usage(span("n1", 1, 0, 50), &all).await.expect("rows");
    let age =
        "SELECT (abs(extract(epoch FROM clock_timestamp()) * 1000 - last_time_ms) < 60000)::text FROM usage_cursors";
    assert_eq!(bench.ask(age).await, "true");
}

/// Rows that a database of the first version holds: of three days, two nodes, and a time that is far off.
const ROWS_BEFORE: &str = "INSERT INTO usage_logs (node, segment, record_offset, time_ms, key_id, asset, protocol, \
    endpoint, status, tier, requests) VALUES ('n1', 1, 0, 1793500000000, 7, 'BTC', 'tcp', '/price', 200, 'local', 3), \
    ('n1', 1, 1, 1793500000001, 7, 'BTC', 'tcp', '/price', 200, 'local', 4), ('n1', 1, 2, 1793500070000, 7, 'BTC', \
    'tcp', '/price', 200, 'local', 5), ('n2', 1, 0, 1793500000000, 7, '', 'udp', 'udp-json', 401, 'local', 1), ('n2', \
    1, 1, 1793600000000, 7, 'ETH', 'tcp', '/price', 200, 'rest', 1), ('n2', 1, 2, 1793700000000, 0, 'ETH', 'tcp', \
    '/price', 200, 'rest', 9223372036854775), ('n2', 1, 3, 9223372036854775807, 0, 'ETH', 'tcp', '/price', 200, \
    'rest', 1)";

async fn is_brought_along(bench: &Bench) {
    assert_eq!(bench.store.migrate().await, Ok(Migrated { from: Some(1), to: 3 }));
    assert_eq!(check_sums(bench).await, (7, 15 + 9_223_372_036_854_775));
    let first = "SELECT node || segment || record_offset || asset || protocol || endpoint || status || tier || \
                 requests || key_id FROM usage_logs WHERE time_ms = 1793500000001";
    assert_eq!(bench.ask(first).await, "n111BTCtcp/price200local47");
    let mut again = row("n1", 1, 1, 1_793_500_000_001);
    again.record.requests = 4;
    assert_eq!(bench.store.add_usage(&[again]).await, Ok(0));
    assert_eq!(bench.store.migrate().await, Ok(Migrated { from: Some(3), to: 3 }));
}

#[tokio::test]
async fn a_server_of_the_first_version_keeps_its_rows() {
    let (server, url) = new_database().await;
    let options = PgConnectOptions::from_str(&url).expect("an address");
    let mut link = options.clone().connect().await.expect("a connection");
    schema::migrate(&mut link, &schema::first(&schema::for_postgres())).await.expect("the first version");
    link.execute(sqlx::raw_sql(ROWS_BEFORE)).await.expect("rows");
    link.close().await.expect("an end");
    let store: Arc<dyn Store> = Arc::new(PgStore::lazy(options));
    let bench = Bench { store, place: super::Place::Server { server, url } };
    is_brought_along(&bench).await;
    let (names, rest) = days(&bench).await;
    assert_eq!(rest, "1");
    for day in ["20261101", "20261102", "20261103"] {
        assert!(names.iter().any(|name| name == day), "{names:?}");
    }
}

#[tokio::test]
async fn a_file_of_the_first_version_keeps_its_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.sqlite");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let mut link = options.connect().await.expect("the file");
    let mut first = schema::first(&schema::for_sqlite());
    first.set_locking(false);
    schema::migrate(&mut link, &first).await.expect("the first version");
    link.execute(sqlx::raw_sql(ROWS_BEFORE)).await.expect("rows");
    link.close().await.expect("an end");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::file(&path));
    is_brought_along(&Bench { store, place: super::Place::File { _directory: directory, path } }).await;
}
