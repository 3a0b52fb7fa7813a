//! `GET /docs`: what can be asked, and what each error code means, as one page that needs nothing else.
//!
//! The `type` of every problem document leads to its code's anchor here. Codes and their words come from the one list
//! that answers are made from, so the page cannot fall behind; which prices there are is not known here.

use super::problem::AdminCode;
use crate::reports::format::html::escaped;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use dataplane_core::render::usual_detail;
use shared::code::Code;
use std::fmt::Write;
use std::sync::LazyLock;

/// Highest code number that the binary datagram form has.
const BINARY_NUMBER_MAX: u8 = 13;

/// Whom a path is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Nobody,
    Caller,
    Admin,
}

/// Where a path is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// By a shard, on the price port only.
    Price,
    /// By the control plane, on the price port and its own.
    Both,
    /// There, and on the health ports.
    Everywhere,
    /// On the health ports only.
    Health,
}

/// One thing that can be asked.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The target, behind a method where that is not GET.
    pub(super) target: &'static str,
    pub(super) port: Port,
    pub(super) key: Key,
    does: &'static str,
}

const fn endpoint(target: &'static str, port: Port, key: Key, does: &'static str) -> Endpoint {
    Endpoint { target, port, key, does }
}

impl Endpoint {
    /// Its method, where `path` is its path.
    fn method_on(&self, path: &str) -> Option<&str> {
        let (method, target) = self.target.split_once(' ').unwrap_or(("GET", self.target));
        let (own, path) = (target.split('?').next().unwrap_or_default().split('/'), path.split('/'));
        let fits = own.clone().count() == path.clone().count()
            && own.zip(path).all(|(own, part)| own == part || own.starts_with('{'));
        fits.then_some(method)
    }
}

/// The methods that a path takes, for `Allow`.
pub(super) fn methods(path: &str) -> HeaderValue {
    let mut methods: Vec<&str> = ENDPOINTS.iter().filter_map(|endpoint| endpoint.method_on(path)).collect();
    if methods.is_empty() || methods.contains(&"GET") {
        methods.retain(|method| *method != "GET");
        methods.splice(..0, ["GET", "HEAD"]);
    }
    methods.push("OPTIONS");
    methods.dedup();
    HeaderValue::from_str(&methods.join(", ")).unwrap_or(HeaderValue::from_static("GET, HEAD, OPTIONS"))
}

/// Everything this version answers; what takes GET takes HEAD too.
pub(super) const ENDPOINTS: [Endpoint; 35] = [
    endpoint("/price?asset=BTC", Port::Price, Key::Caller, "One price. allow_stale=1 takes an old one too."),
    endpoint(
        "/price?asset=BTC&newer_than=SEQ&wait_ms=N",
        Port::Price,
        Key::Caller,
        "Waits up to N ms (at most 30000) for a higher sequence; 304 when none came. Another node's gets the price.",
    ),
    endpoint(
        "/price?asset=BTC&detail=1",
        Port::Both,
        Key::Caller,
        "One price with what each venue says, and why one is left out.",
    ),
    endpoint(
        "/prices?assets=BTC,ETH",
        Port::Price,
        Key::Caller,
        "Up to 64 prices of one table generation (assets=all: all there are); ignore_unknown=1 lists what has none now.",
    ),
    endpoint("/assets", Port::Both, Key::Nobody, "What can be asked for, by asset and by venue."),
    endpoint("/limits", Port::Both, Key::Caller, "The key's limit, what is left of it, and what it has asked."),
    endpoint(
        "/reports/usage?from=TIME&to=TIME&format=json",
        Port::Both,
        Key::Caller,
        "What was asked, when, how often: the key's own usage, or with the administrator's key anyone's (key_id=ID). \
         format=json, csv, tsv, text, ndjson or html, or Accept. from and to are Unix ms or RFC 3339; without them it is the \
         last 24 h. asset, protocol, status, tier and node choose; group_by=asset,status and interval=minute, hour or day \
         add up; tz=Europe/Berlin sets where days begin. json comes in pages (limit at most 1000, cursor, the header \
         Link), the others whole: an answer without its end is incomplete. Not where SERVER_TYPE=LPO.",
    ),
    endpoint(
        "/reports/summary?from=TIME&to=TIME&format=json",
        Port::Both,
        Key::Caller,
        "Totals of the same, percentiles of requests per minute, the assets most asked for; in the same formats.",
    ),
    endpoint("/docs", Port::Both, Key::Nobody, "This page."),
    endpoint("/admin/feeds", Port::Both, Key::Admin, "Each venue's session, and what became of its quotes."),
    endpoint("/admin/engine", Port::Both, Key::Admin, "The engine and why, who runs where, every shard's counters."),
    endpoint("/admin/usage?after=ID&limit=N", Port::Both, Key::Admin, "Totals of each key since the process started."),
    endpoint(
        "/admin/keys?after=ID&limit=N&tier=NAME&state=active",
        Port::Both,
        Key::Admin,
        "Stored keys by number, without secrets; the header Link leads on.",
    ),
    endpoint(
        "POST /admin/keys",
        Port::Both,
        Key::Admin,
        "Makes a key: {\"name\", \"tier\"}, and perhaps \"limit_per_second\", \"limit_per_month\", \"permissions\", \
         \"expires_time_ms\". Its text and UDP secret are in this answer alone.",
    ),
    endpoint(
        "POST /admin/keys/{id}/rotate",
        Port::Both,
        Key::Admin,
        "Makes a key in place of another, which works on for {\"overlap_hours\"}: 24, at most 720.",
    ),
    endpoint("POST /admin/keys/{id}/revoke", Port::Both, Key::Admin, "Refuses a key from now on, on every node."),
    endpoint("/admin/key-status?key_id=ID", Port::Both, Key::Admin, "How a key is stored, and how this node sees it."),
    endpoint(
        "/admin/invalidate-key?key_id=ID",
        Port::Both,
        Key::Admin,
        "Drops a key from cache and shards at once, and reads it anew from the database.",
    ),
    endpoint("POST /admin/invalidate-key?key_id=ID", Port::Both, Key::Admin, "The same."),
    endpoint(
        "/admin/params",
        Port::Both,
        Key::Admin,
        "Every parameter: value in force, row, origin, default, bounds, meaning, effect.",
    ),
    endpoint(
        "PUT /admin/params?reload=1",
        Port::Both,
        Key::Admin,
        "Changes rows, all or none: {\"name\":\"value\"}, null unsets; in force at the next reload, or with reload=1 at once.",
    ),
    endpoint(
        "/admin/reload-params",
        Port::Both,
        Key::Admin,
        "Validates the rows and brings them into force on every node.",
    ),
    endpoint("POST /admin/reload-params", Port::Both, Key::Admin, "The same."),
    endpoint(
        "/admin/system-mode?mode=performance",
        Port::Both,
        Key::Admin,
        "Writes a whole profile and brings it into force: performance, standard or demo.",
    ),
    endpoint("POST /admin/system-mode?mode=performance", Port::Both, Key::Admin, "The same."),
    endpoint("/admin/audit?before=ID&limit=N", Port::Both, Key::Admin, "Who changed what, when; newest first."),
    endpoint("/admin/cluster", Port::Both, Key::Admin, "Every node alive, and the 24 numbers that each tells."),
    endpoint(
        "/admin/cache/{key}",
        Port::Both,
        Key::Admin,
        "What stands in the cache under a documented name: type, lifetime, value.",
    ),
    endpoint(
        "PUT /admin/cache/{key}",
        Port::Both,
        Key::Admin,
        "Writes {\"value\": …} there: text, an object of texts, or [[\"member\", 1], …], as the name's pattern says.",
    ),
    endpoint("POST /admin/cache/{key}", Port::Both, Key::Admin, "The same."),
    endpoint("DELETE /admin/cache/{key}", Port::Both, Key::Admin, "Deletes what stands there."),
    endpoint("/livez", Port::Everywhere, Key::Nobody, "200 while every shard's loop turns."),
    endpoint(
        "/readyz",
        Port::Everywhere,
        Key::Nobody,
        "200 while requests should be sent here, else 503 with reasons.",
    ),
    endpoint("/health", Port::Everywhere, Key::Nobody, "The same as /readyz."),
    endpoint("/metrics", Port::Health, Key::Nobody, "Counters in the text form of Prometheus."),
];

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\"><title>Trinity Beast: reference</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-top:1px solid #ccc}
code{font:.9em ui-monospace,monospace}:target{background:#ffeaa0}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}:target{background:#554400}}
</style></head><body>
<h1>Trinity Beast</h1>
<p>Prices of crypto assets over HTTP/1.1 and UDP. A key goes into <code>Authorization: Bearer KEY</code> or
<code>X-API-Key: KEY</code>; the administrator's only into <code>Authorization</code>. Times are Unix milliseconds, prices
are decimal text.</p>
";

/// The page; its words are fixed, so it is made once.
static PAGE: LazyLock<String> = LazyLock::new(render);

/// `GET /docs`. Asks for no key: whoever was refused for want of one must be able to read why.
pub async fn page() -> Response {
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
            ),
        ),
    ];
    (fields, PAGE.as_str()).into_response()
}

fn render() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("<h2>What can be asked</h2>\n<table><tr><th>request</th><th>port</th><th>key</th><th></th></tr>\n");
    for Endpoint { target, port, key, does } in &ENDPOINTS {
        let port = match port {
            Port::Price => "prices",
            Port::Both => "prices, control",
            Port::Everywhere => "prices, control, health",
            Port::Health => "health",
        };
        let key = match key {
            Key::Nobody => "none",
            Key::Caller => "yours",
            Key::Admin => "administrator's",
        };
        let target = if target.contains(' ') { (*target).to_owned() } else { format!("GET {target}") };
        let (target, does) = (escaped(&target), escaped(does));
        // Writing to a string does not fail.
        let _ = writeln!(page, "<tr><td><code>{target}</code></td><td>{port}</td><td>{key}</td><td>{does}</td></tr>");
    }
    page.push_str(
        "</table>\n<p>Datagrams, one each way: <code>{\"key\":\"KEY\",\"asset\":\"BTC\",\"id\":7}</code>, or signed binary \
         frames of 64 bytes. A reply is at most three times its request: pad the request with <code>\"pad\":\"…\"</code>. \
         The reports' port answers <code>{\"key\":\"KEY\",\"report\":\"usage\",\"from\":TIME,\"to\":TIME,\"id\":7}</code> with \
         the range's totals; by_protocol and by_status are there where the reply has room.</p>\n\
         <h2>Errors</h2>\n<p>Over HTTP an error is a problem document (<code>application/problem+json</code>), in datagrams \
         a <code>status</code> and a <code>code</code>; the binary form has the number.</p>\n\
         <table><tr><th>code</th><th>HTTP</th><th>binary</th><th>meaning</th><th>what to do</th></tr>\n",
    );
    for code in Code::ALL {
        let number = Some(code.number()).filter(|number| *number <= BINARY_NUMBER_MAX);
        let number = number.map(|number| number.to_string()).unwrap_or_default();
        let (name, status) = (code.name(), code.status());
        let (title, detail) = (escaped(code.title()), escaped(usual_detail(code)));
        let _ = writeln!(
            page,
            "<tr id=\"{name}\"><td><a href=\"#{name}\"><code>{name}</code></a></td><td>{status}</td><td>{number}</td>\
             <td>{title}.</td><td>{detail}</td></tr>"
        );
    }
    page.push_str(
        "</table>\n<p>Administration has these besides, and answers values that will not do with status 422, the code \
         <code>parameter_invalid</code> and every fault in <code>errors</code>.</p>\n\
         <table><tr><th>code</th><th>HTTP</th><th>meaning</th><th>what to do</th></tr>\n",
    );
    for code in AdminCode::ALL {
        let (name, status, title, detail) = (code.name(), code.status(), code.title(), escaped(code.usual_detail()));
        let _ = writeln!(
            page,
            "<tr id=\"{name}\"><td><a href=\"#{name}\"><code>{name}</code></a></td><td>{status}</td><td>{title}.</td>\
             <td>{detail}</td></tr>"
        );
    }
    page.push_str("</table>\n</body></html>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_anchor_with_what_to_do() {
        for code in Code::ALL {
            let anchor = format!("<tr id=\"{}\">", code.name());
            assert_eq!(PAGE.matches(&anchor).count(), 1, "{anchor}");
            let row = PAGE.lines().find(|line| line.contains(&anchor)).expect("its row");
            for part in [escaped(code.title()), escaped(usual_detail(code)), format!("<td>{}</td>", code.status())] {
                assert!(row.contains(&part), "{part} in {row}");
            }
        }
    }

    #[test]
    fn administration_s_own_codes_have_theirs_and_no_name_twice() {
        for code in AdminCode::ALL {
            assert_eq!(PAGE.matches(&format!("<tr id=\"{}\">", code.name())).count(), 1, "{}", code.name());
            assert!(Code::ALL.into_iter().all(|other| other.name() != code.name()), "{}", code.name());
        }
    }

    #[test]
    fn the_page_needs_nothing_else() {
        for outside in ["http:", "https:", "src=", "url(", "@import", "<link", "<script"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        assert!(PAGE.starts_with("<!doctype html>") && PAGE.ends_with("</html>\n"));
        assert_eq!(escaped("a<b> & \"c\""), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
