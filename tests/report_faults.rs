//! What goes wrong with reports: questions that will not do, downloads that break off in the middle, readers that stop
//! reading, too many at once, and a database that is away. An answer that ended early never looks like a whole one.

use harness::eventually;
use harness::history::database::Database;
use harness::http::{self, Connection};
use harness::planted::Planted;
use harness::postgres::Postgres;
use harness::proxy::{Fault, Proxy};
use harness::service::{ENGINES, Service, migrate};

/// Rows of a download that is far longer than what is on its way between two sockets: some 16 MB.
const MANY: u64 = 160_000;

/// Downloads at once of the administrator, as the service's documentation has it.
const STREAMS_MAX: usize = 6;

/// Begins a download as the administrator and reads no more than its first bytes.
fn begin(service: &Service, path: &str) -> Connection {
    let address = service.address("lrs_tcp");
    let mut connection = Connection::open_narrow(address);
    let bearer = format!("Bearer {}", service.admin_key());
    connection.send(http::head("GET", address, path, &[("Authorization", &bearer)]).as_bytes());
    let mut first = [0; 64];
    connection.stream().peek(&mut first).expect("an answer begins");
    connection
}

fn get(service: &Service, path: &str) -> http::Streamed {
    http::download(service.address("lrs_tcp"), path, &[("Authorization", &format!("Bearer {}", service.admin_key()))])
}

#[test]
fn questions_that_will_not_do_are_told_why() {
    let service = Service::demo(ENGINES[1]);
    for (query, status, code, told) in [
        ("usage?format=xml", 400, "parameter_invalid", "json"),
        ("usage?from=yesterday", 400, "parameter_invalid", "from"),
        ("usage?from=1793500000000&to=1793400000000", 400, "parameter_invalid", "to"),
        ("usage?from=5", 400, "parameter_invalid", "from"),
        ("usage?limit=0", 400, "parameter_invalid", "limit"),
        ("usage?limit=1001", 400, "parameter_invalid", "1000"),
        ("usage?limit=99999999999999999999", 400, "parameter_invalid", "limit"),
        ("usage?format=csv&limit=10", 400, "parameter_invalid", "limit"),
        ("usage?cursor=zz", 400, "parameter_invalid", "cursor"),
        ("usage?cursor=", 400, "parameter_invalid", "cursor"),
        ("usage?group_by=colour", 400, "parameter_invalid", "group_by"),
        ("usage?interval=week", 400, "parameter_invalid", "interval"),
        ("usage?tz=Mars/Base", 400, "parameter_invalid", "tz"),
        ("usage?status=99", 400, "parameter_invalid", "status"),
        ("usage?protocol=sctp", 400, "parameter_invalid", "protocol"),
        ("usage?asset=A-B", 400, "asset_invalid", "asset"),
        ("usage?colour=red", 400, "parameter_invalid", "colour"),
        ("usage?limit=1&limit=2", 400, "parameter_invalid", "limit"),
        ("usage?key_id=x", 400, "parameter_invalid", "key_id"),
        ("summary?format=xml", 400, "parameter_invalid", "json"),
        ("nothing", 404, "not_found", ""),
    ] {
        for port in ["lpo_tcp", "lrs_tcp"] {
            let bearer = format!("Bearer {}", service.admin_key());
            let path = format!("/reports/{query}");
            let reply = http::get(service.address(port), &path, &[("Authorization", &bearer)]);
            assert_eq!((reply.status, reply.code().as_str()), (status, code), "{query}: {}", reply.text());
            assert!(reply.text().contains(told), "{query}: {}", reply.text());
        }
    }
    let posted = service.admin_request("POST", "/reports/usage", None);
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    let wrong = http::get(service.address("lrs_tcp"), "/reports/usage", &[("Authorization", "Bearer wrong")]);
    assert_eq!((wrong.status, wrong.code()), (401, "key_invalid".to_owned()));
    // Over HTTP/1.0 the end of a long answer cannot be told from a broken connection.
    let head =
        format!("GET /reports/usage?format=csv HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n", service.admin_key());
    let answer = http::exchange(service.address("lrs_tcp"), head.as_bytes());
    assert!(String::from_utf8_lossy(&answer).contains("request_malformed"), "{}", String::from_utf8_lossy(&answer));
}

/// A service over PostgreSQL with a proxy in between, and many rows.
struct Broken {
    database: Database,
    proxy: Proxy,
    service: Service,
    path: String,
}

impl Broken {
    fn start(engine: &str) -> Self {
        let server = Postgres::shared();
        let proxy = Proxy::start(server.address());
        let url = server.new_url_at(proxy.address());
        migrate(&url);
        let database = Database::Postgres(server, url.clone());
        let planted = Planted::plant(&database, MANY, 100);
        let service = Service::demo_with(engine, &[("DATABASE_URL", &url), ("TB_SHARDS", "2")]);
        service.await_price("BTC", 1);
        let path = planted.path("usage", "&format=csv");
        Self { database, proxy, service, path }
    }

    fn is_whole(&self) -> bool {
        let streamed = get(&self.service, &self.path);
        let lines = streamed.reply.body.iter().filter(|byte| **byte == b'\n').count() as u64;
        streamed.reply.status == 200 && streamed.is_whole && lines == MANY + 1
    }
}

#[test]
fn a_download_that_breaks_off_is_seen_to() {
    let mut broken = Broken::start(ENGINES[1]);
    assert!(broken.is_whole());
    // The database goes while the reader is slow: what has come is shown, its end is not.
    let mut reader = begin(&broken.service, &broken.path);
    broken.proxy.set(Fault::Refuse);
    let streamed = reader.read_streamed();
    assert!(!streamed.is_whole && streamed.reply.status == 200, "{}", streamed.reply.body.len());
    assert!(broken.service.log().contains("a report broke off"), "it is told of");
    // And before the first byte it is a refusal.
    let away = get(&broken.service, &broken.path).reply;
    assert_eq!((away.status, away.code().as_str()), (503, "store_unavailable"), "{}", away.text());
    assert!(away.header("retry-after").is_some());
    assert_eq!(broken.service.get("/price?asset=BTC").status, 200, "prices know nothing of it");
    broken.proxy.set(Fault::None);
    eventually("the database to be used again", || broken.is_whole().then_some(()));
    let noted = "SELECT count(*) FROM report_usage_logs WHERE format = 'csv' AND status = 200 AND lines < 160000 \
                 AND CAST(complete AS INTEGER) = 0";
    eventually("the broken download to be noted as incomplete", || (broken.database.number(noted) >= 1).then_some(()));
    // The process goes while the reader is slow.
    let mut reader = begin(&broken.service, &broken.path);
    broken.service.signal("KILL");
    assert!(!reader.read_streamed().is_whole);
    broken.service.wait();
}

#[test]
fn readers_that_stop_are_let_go_and_too_many_are_turned_away() {
    let broken = Broken::start(ENGINES[0]);
    let mut readers: Vec<_> = (0..STREAMS_MAX).map(|_| begin(&broken.service, &broken.path)).collect();
    let refused = get(&broken.service, &broken.path).reply;
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let page = broken.path.replace("&format=csv", "&limit=10");
    assert_eq!(get(&broken.service, &page).reply.status, 200, "pages have places of their own");
    assert_eq!(broken.service.get("/price?asset=BTC").status, 200);
    // Whoever goes away makes room at once.
    drop(readers.pop());
    eventually("a place", || broken.is_whole().then_some(()));
    // And so does whoever takes nothing any more, a while later.
    let noted = "SELECT count(*) FROM report_usage_logs WHERE status = 200 AND lines < 160000 AND format = 'csv' \
                 AND CAST(complete AS INTEGER) = 0";
    eventually("stalled readers to be let go", || (broken.database.number(noted) >= STREAMS_MAX as u64).then_some(()));
    assert!(readers.iter_mut().all(|reader| !reader.read_streamed().is_whole), "their downloads are not whole");
}
