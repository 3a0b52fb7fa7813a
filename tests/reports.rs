//! Reports as their readers get them from the real service: every format, pages that make the whole, groups and zones,
//! encodings, whose usage one sees, and totals over UDP. On PostgreSQL and on a SQLite file.

use harness::eventually;
use harness::history::database::Database;
use harness::http::{self, Reply};
use harness::planted::{FORMULA, KEY, NODE, Planted};
use harness::service::{ENGINES, Service, migrate};
use harness::udp::{ask, ask_before_probe};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Planted rows: three pages of json.
const ROWS: u64 = 2_500;

/// Price requests that a client counts itself.
const ASKED: u64 = 24;

const HEAD: &str = "time_ms,key_id,asset,protocol,endpoint,status,tier,node,requests";

struct World {
    service: Service,
    planted: Planted,
}

impl World {
    /// A report by the administrator, which must be whole.
    fn report(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.report_at("lrs_tcp", path, headers)
    }

    fn report_at(&self, port: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let bearer = format!("Bearer {}", self.service.admin_key());
        let headers: Vec<_> = [("Authorization", bearer.as_str())].iter().chain(headers).copied().collect();
        let streamed = http::download(self.service.address(port), path, &headers);
        assert_eq!((streamed.reply.status, streamed.is_whole), (200, true), "{path}: {}", streamed.reply.text());
        streamed.reply
    }

    fn planted(&self, rest: &str) -> Reply {
        self.report(&self.planted.path("usage", rest), &[])
    }

    fn json(&self, rest: &str) -> Value {
        self.planted(rest).json()
    }
}

fn requests(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["requests"].as_u64().expect("a number")).sum()
}

fn rows(page: &Value) -> &[Value] {
    page["rows"].as_array().expect("rows")
}

fn formats(world: &World) {
    let Planted { from_ms, rows, requests, .. } = world.planted;
    let csv = world.planted("&format=csv");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let disposition = csv.header("content-disposition").expect("a name");
    assert!(disposition.starts_with("attachment; filename=\"usage_20") && disposition.is_ascii(), "{disposition}");
    assert_eq!(csv.header("vary"), Some("Accept, Accept-Encoding"));
    let text = csv.text();
    let first = format!("{HEAD}\r\n{from_ms},{KEY},'{FORMULA},tcp,/price,404,local,'{NODE},1\r\n");
    assert!(text.starts_with(&first), "{}", text.chars().take(300).collect::<String>());
    assert_eq!(text.matches("\r\n").count(), text.matches('\n').count());
    for (rest, mark) in [("", "'"), ("&raw=1", "")] {
        let reply = world.planted(&format!("&format=csv{rest}"));
        let mut reader = csv::ReaderBuilder::new().terminator(csv::Terminator::CRLF).from_reader(&reply.body[..]);
        let records: Vec<_> = reader.records().collect::<Result<_, _>>().expect("rows of one length");
        let sum: u64 = records.iter().map(|record| record[8].parse::<u64>().expect("a number")).sum();
        assert_eq!((records.len() as u64, sum), (rows, requests));
        assert_eq!((&records[0][2], &records[0][7]), (&*format!("{mark}{FORMULA}"), &*format!("{mark}{NODE}")));
    }
    let tsv = world.planted("&format=tsv").text();
    assert!(tsv.starts_with(&HEAD.replace(',', "\t")), "{tsv}");
    assert!(tsv.lines().all(|line| line.split('\t').count() == 9) && tsv.lines().count() as u64 == rows + 1);
    let text = world.planted("&format=text&tz=Europe/Berlin").text();
    assert!(text.starts_with("time") && text.ends_with(&format!("\n{rows} lines, {requests} requests\n")), "{text}");
    let html = world.report(&world.planted.path("usage", ""), &[("Accept", "text/html")]);
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    let page = html.text();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</body></html>\n"));
    assert!(page.contains("<svg ") && page.contains("<b>3,750</b>requests"), "{page}");
}

fn pages_make_the_whole(world: &World) {
    let whole = world.planted("&format=ndjson").text();
    let whole: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!((whole.len() as u64, requests(&whole)), (world.planted.rows, world.planted.requests));
    let (mut paged, mut path) = (Vec::new(), world.planted.path("usage", "&limit=999"));
    loop {
        let reply = world.report(&path, &[]);
        let page = reply.json();
        assert_eq!((&page["report"], &page["from_ms"]), (&json!("usage"), &json!(world.planted.from_ms)));
        paged.extend_from_slice(rows(&page));
        let Some(link) = reply.header("link") else {
            assert_eq!(page["next_cursor"], Value::Null);
            break;
        };
        let next = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect("a link");
        assert!(next.contains(page["next_cursor"].as_str().expect("a cursor")));
        next.clone_into(&mut path);
    }
    assert!(paged == whole, "pages make the whole, each line once and in order");
    let other = world.report_at("lpo_tcp", &world.planted.path("usage", "&format=ndjson"), &[]);
    assert_eq!(other.text().lines().count(), whole.len(), "the price port has the same");
}

fn groups_and_filters(world: &World) {
    let all = world.planted.requests;
    for (rest, lines) in [
        ("&group_by=asset", 2),
        ("&group_by=protocol", 2),
        ("&group_by=status", 2),
        ("&group_by=key", 1),
        ("&group_by=tier,node", 1),
        ("&interval=minute", 42),
        ("&interval=hour", 1),
        ("&group_by=asset&interval=hour&tz=Asia/Kolkata", 4),
    ] {
        let page = world.json(rest);
        assert_eq!((requests(rows(&page)), rows(&page).len()), (all, lines), "{rest}: {page}");
    }
    let of = |rest: &str| requests(rows(&world.json(&format!("&interval=day{rest}"))));
    assert_eq!(of("&status=200") + of("&status=404"), all);
    assert_eq!(of("&protocol=tcp") + of("&protocol=udp"), all);
    assert_eq!((of("&node=@planted"), of("&tier=local"), of("&tier=rest"), of("&node=other")), (all, all, 0, 0));
    assert!(0 < of("&asset=BTC") && of("&asset=BTC") < all);
    let summary = world.report(&world.planted.path("summary", ""), &[]).json();
    assert_eq!((&summary["requests"], &summary["by_protocol"]["tcp"]), (&json!(all), &json!(world.planted.rows / 2)));
    let csv = world.report(&world.planted.path("summary", "&format=csv"), &[]).text();
    assert!(csv.contains(&format!("total,requests,{all}\r\n")), "{csv}");
}

fn encodings_and_heads(world: &World) {
    let path = world.planted.path("usage", "&format=csv");
    let plain = world.report(&path, &[]);
    assert_eq!(plain.header("content-encoding"), None);
    for (name, magic) in [("gzip", &[0x1f, 0x8b][..]), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd])] {
        let packed = world.report(&path, &[("Accept-Encoding", name)]);
        assert_eq!(packed.header("content-encoding"), Some(name));
        assert!(packed.body.starts_with(magic) && packed.body.len() * 4 < plain.body.len(), "{}", packed.body.len());
    }
    let bearer = format!("Bearer {}", world.service.admin_key());
    let address = world.service.address("lrs_tcp");
    let head = http::request(address, "HEAD", &path, &[("Authorization", &bearer)]);
    assert_eq!((head.status, head.header("content-type")), (200, plain.header("content-type")));
    let options = http::request(address, "OPTIONS", "/reports/usage", &[]);
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

fn own_usage(world: &World) {
    let (service, lrs) = (&world.service, world.service.address("lrs_tcp"));
    let ((id, key), (_, basic)) = (service.new_key("enterprise"), service.new_key("basic"));
    let get = |key: &str, path: &str| http::get(lrs, path, &[("X-API-Key", key)]);
    for (key, path, status, code) in [
        (basic.as_str(), "/reports/usage", 403, "not_permitted"),
        ("tb_live_nobody", "/reports/usage", 401, "key_invalid"),
        (key.as_str(), "/reports/usage?key_id=77777", 403, "not_permitted"),
    ] {
        let reply = get(key, path);
        assert_eq!((reply.status, reply.code()), (status, code.to_owned()), "{path}: {}", reply.text());
    }
    assert_eq!(http::get(lrs, "/reports/usage", &[]).code(), "key_missing");
    for _ in 0..ASKED {
        let price = http::get(service.address("lpo_tcp"), "/price?asset=BTC", &[("X-API-Key", &key)]);
        assert_eq!(price.status, 200, "{}", price.text());
    }
    let page = eventually("every request to be reported", || {
        let page = get(&key, "/reports/usage?asset=BTC").json();
        (requests(rows(&page)) >= ASKED).then_some(page)
    });
    assert_eq!(requests(rows(&page)), ASKED);
    assert!(rows(&page).iter().all(|row| row["key_id"] == id && row["endpoint"] == "/price"), "{page}");
    // Reports are usage too.
    eventually("reports to be reported", || {
        let page = get(&key, "/reports/usage?group_by=asset").json();
        (requests(rows(&page)) > ASKED).then_some(())
    });
    totals_over_udp(service.address("lrs_udp"), &key, &basic);
}

fn totals_over_udp(address: SocketAddr, key: &str, basic: &str) {
    let pad = "x".repeat(100);
    let good = format!(r#"{{"key":"{key}","report":"usage","asset":"BTC","id":7,"pad":"{pad}"}}"#);
    let reply: Value = serde_json::from_slice(&ask(address, good.as_bytes())).expect("JSON");
    assert_eq!((&reply["id"], &reply["requests"]), (&json!(7), &json!(ASKED)), "{reply}");
    assert_eq!((&reply["by_protocol"]["tcp"], &reply["by_status"]["200"]), (&json!(ASKED), &json!(ASKED)), "{reply}");
    let object = |fields: &str| format!(r#"{{"key":"{key}",{fields}"id":8}}"#);
    for (request, expected) in [
        (object(r#""report":"summary","#), Some("parameter_invalid")),
        (object(r#""report":"usage","format":"csv","#), Some("parameter_invalid")),
        (object(r#""report":"usage","from":5,"#), Some("parameter_invalid")),
        (object(""), Some("parameter_invalid")),
        (format!(r#"{{"key":"{basic}","report":"usage","id":8}}"#), Some("not_permitted")),
        (r#"{"key":"tb_live_nobody","report":"usage","id":8}"#.to_owned(), None),
        (r#"{"report":"usage","id":8}"#.to_owned(), None),
        ("{}".to_owned(), None),
        ("nonsense".to_owned(), None),
        (object(&format!(r#""report":"usage","pad":"{}","#, "x".repeat(512))), None),
        (format!("\u{54}\u{52}{good}"), None),
    ] {
        let reply = ask_before_probe(address, request.as_bytes(), good.as_bytes());
        let code = reply.as_ref().map(|reply| {
            let value: Value = serde_json::from_slice(reply).expect("JSON");
            (value["id"] == 8).then(|| value["code"].as_str().expect("a code").to_owned())
        });
        match expected {
            Some(expected) => {
                assert_eq!(code.flatten().as_deref(), Some(expected), "{request}");
                assert!(reply.is_some_and(|reply| reply.len() <= request.len()), "{request}");
            }
            None => assert_eq!(code, None, "{request}"),
        }
    }
}

fn are_noted(database: &Database) {
    let whole = "SELECT count(*) FROM report_usage_logs WHERE report = 'usage' AND format = 'csv' AND lines = 2500 \
                 AND status = 200 AND key_id = 0";
    eventually("reports to be noted", || (database.number(whole) >= 5).then_some(()));
    let secrets = "SELECT count(*) FROM report_usage_logs WHERE query LIKE '%tb_live%'";
    assert_eq!(database.number(secrets), 0);
    let datagrams = "SELECT count(*) FROM report_usage_logs WHERE protocol = 'udp' AND key_id > 0";
    eventually("datagrams to be noted", || (database.number(datagrams) >= 1).then_some(()));
}

fn read_reports(engine: &str, database: &Database) {
    migrate(&database.url());
    let planted = Planted::plant(database, ROWS, 1_000);
    let service = Service::demo_with(engine, &[("DATABASE_URL", &database.url()), ("TB_SHARDS", "2")]);
    service.await_price("BTC", 1);
    let world = World { service, planted };
    formats(&world);
    pages_make_the_whole(&world);
    groups_and_filters(&world);
    encodings_and_heads(&world);
    own_usage(&world);
    are_noted(database);
}

#[test]
fn reports_from_postgresql() {
    read_reports(ENGINES[1], &Database::new_postgres());
}

#[test]
fn reports_from_a_sqlite_file() {
    let folder = tempfile::tempdir().expect("a folder");
    read_reports(ENGINES[0], &Database::Sqlite(folder.path().join("a.sqlite")));
}

#[test]
fn the_role_of_prices_alone_has_no_reports() {
    let service = Service::demo_with(ENGINES[1], &[("SERVER_TYPE", "LPO")]);
    assert_eq!((&service.ready()["lrs_tcp"], &service.ready()["lrs_udp"]), (&Value::Null, &Value::Null));
    let reply = service.admin("/reports/usage");
    assert_eq!((reply.status, reply.code()), (404, "not_found".to_owned()));
}
