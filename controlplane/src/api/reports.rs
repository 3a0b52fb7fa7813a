//! `GET /reports/usage` and `GET /reports/summary`: one's own usage with one's own key, anyone's with the
//! administrator's.
//!
//! An asking with a key takes one from its allowance and counts as usage like a price. What lines a report has, and how
//! they look, is known elsewhere; here is who may ask, in which form the answer goes out, and what its head says. An
//! answer in one piece is made before its head, so that a database that is away is a 503; a stream's first page too.

mod body;
mod datagrams;
mod negotiate;
mod opening;

pub use self::datagrams::{bind, serve as serve_datagrams};

use super::account::{Answered, count, has_body, rate_fields};
use super::caller::key_text;
use super::problem::{AdminCode, Problem};
use super::{ApiState, Shared};
use crate::keys::{admit, identify};
use crate::reports::desk::{Place, ReportDesk, Work};
use crate::reports::format::{LineWriter, summary as summary_format};
use crate::reports::log::{Asked, Note};
use crate::reports::query::{Asking, Encoded, Fault, Format, LIMIT_MAX, Report, ReportQuery, Scope};
use crate::reports::source::{Page, ReportSource, page};
use crate::reports::stream::{Broken, Encoding, Part, encoded, parts, pump};
use crate::reports::summary;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::json;
use shared::code::Code;
use shared::key::{KeyRecord, Permissions};
use shared::moment::Moment;
use shared::tick::Tier;
use shared::usage::{Endpoint, PROTOCOL_TCP};
use std::fmt::Write;
use std::sync::Arc;
use tuning::clock;

/// The routes.
pub(super) fn routes() -> Router<Arc<ApiState>> {
    Router::new().route("/reports/usage", asked(Report::Usage)).route("/reports/summary", asked(Report::Summary))
}

/// What answers whoever asks for this report.
fn asked(report: Report) -> MethodRouter<Arc<ApiState>> {
    get(move |state, method, version, target, headers, Query(pairs)| {
        answer(state, Wish { report, method, version, target, headers, pairs })
    })
}

/// What a request says.
struct Wish {
    report: Report,
    method: Method,
    version: Version,
    target: Uri,
    headers: HeaderMap,
    pairs: Vec<(String, String)>,
}

/// Answers, counts the answer and begins its note.
async fn answer(State(state): Shared, wish: Wish) -> Response {
    let Some(desk) = state.reports.clone() else { return Problem::from(Code::NotFound).into_response() };
    let now = clock::now();
    let keys = state.keys.current();
    let caller = match has_body(&wish.headers) {
        true => Err(Code::BodyNotAllowed),
        false => identify(&keys, key_text(&wish.headers), Permissions::REPORTS, now),
    };
    let (record, outcome) = match caller {
        Err(Code::KeyInvalid) if state.admin.is_carried(&wish.headers) => {
            (None, made(&state, &desk, &wish, None, now).await)
        }
        Err(code) => (None, Err(code.into())),
        Ok(record) => {
            let outcome = match admit(&keys, record, now) {
                Ok(_) => made(&state, &desk, &wish, Some(record), now).await,
                Err(code) => Err(code.into()),
            };
            // What the database says is for the administrator; the service's log has it too.
            let why = "Reports cannot be read now, and prices do not need to: try again shortly.";
            (Some(record), outcome.map_err(|problem| problem.reworded(AdminCode::StoreUnavailable, why)))
        }
    };
    let mut response = outcome.unwrap_or_else(IntoResponse::into_response);
    if let Some(record) = record {
        rate_fields(&state, record, now, &mut response);
    }
    let status = response.status().as_u16();
    // What no price can have, a database that is away, counts as what it comes to.
    let code = response.extensions().get::<Code>().copied().or((status == 503).then_some(Code::Overloaded));
    let key = record.map_or(0, |record| record.id.0);
    let (protocol, endpoint, tier) = (PROTOCOL_TCP, Endpoint::Report, Tier::Local);
    let answered = Answered { key, symbol: None, status, code, protocol, endpoint, tier };
    count(&state, answered, now);
    response
}

/// Makes the answer of a caller who may ask: the administrator where there is no record.
async fn made(
    state: &ApiState,
    desk: &Arc<ReportDesk>,
    wish: &Wish,
    record: Option<&KeyRecord>,
    now: Moment,
) -> Result<Response, Problem> {
    let key = record.map_or(0, |record| record.id.0);
    let (report, node) = (wish.report.name(), state.facts.node.as_str());
    let asked = Asked { time_ms: now.wall_ms, key, report, protocol: "tcp", node };
    let mut note = Note::begin(&desk.trail, asked);
    let scope = record.map_or(Scope::Admin, |record| Scope::Own(record.id.0));
    let refused = |note: &mut Note, problem: Problem| {
        note.answered(problem.status());
        note.complete();
        problem
    };
    let asking = Asking { scope, now_ms: now.wall_ms, retention_days: desk.retention_days() };
    let read = ReportQuery::parse(wish.report, &wish.pairs, &asking);
    let chosen = read.and_then(|query| {
        let format = query.format.unwrap_or_else(|| negotiate::format(&wish.headers));
        query.fits(format).map(|()| (query, format))
    });
    let (query, format) = chosen.map_err(|faults| refused(&mut note, faulty(&faults)))?;
    note.about(&query, format.name());
    let outcome = match (wish.report, format) {
        _ if wish.method == Method::HEAD => {
            // Nobody will ask for the body that it has not.
            note.complete();
            Ok(Made::head())
        }
        (Report::Usage, Format::Json) => json_page(state, desk, wish, &query, key).await,
        (Report::Usage, _) if wish.version < Version::HTTP_11 => {
            let why = "A report of this length ends with the connection in HTTP/1.0, whole or not: ask with HTTP/1.1, or \
                       for pages of format=json.";
            Err(Problem::saying(Code::RequestMalformed, why))
        }
        (Report::Usage, _) => stream(state, desk, wish, &query, format, key).await,
        (Report::Summary, _) => whole_summary(state, desk, wish, &query, format, key).await,
    };
    let made = outcome.map_err(|problem| refused(&mut note, problem))?;
    note.answered(200);
    Ok(made.response(&query, format, note))
}

/// The faults of a query as one problem.
fn faulty(faults: &[Fault]) -> Problem {
    let first = faults.first().map_or(Code::ParameterInvalid, |fault| fault.code);
    let is_one = faults.iter().all(|fault| fault.code == first);
    let code = match faults.iter().any(|fault| fault.code == Code::NotPermitted) {
        true => Code::NotPermitted,
        false if is_one => first,
        false => Code::ParameterInvalid,
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let errors: Vec<_> = faults
        .iter()
        .map(|fault| json!({ "parameter": fault.parameter, "code": fault.code.name(), "detail": fault.to_string() }))
        .collect();
    Problem::saying(code, told.join("; ")).with("errors", json!(errors))
}

/// An answer that was made, or has begun to be.
struct Made {
    parts: tokio::sync::mpsc::Receiver<Part>,
    place: Option<Place>,
    encoding: Encoding,
    length: Option<usize>,
    link: Option<String>,
}

impl Made {
    /// An answer without a body, and without the work that it would be.
    fn head() -> Self {
        Self { length: None, ..Self::whole(Vec::new(), 0, 0, Encoding::Identity) }
    }

    /// An answer in one piece.
    fn whole(bytes: Vec<u8>, lines: u64, plain_bytes: u64, encoding: Encoding) -> Self {
        let (sender, receiver) = parts();
        let length = Some(bytes.len());
        // There is room for one, and its reader is here.
        let _ = sender.try_send(Part { bytes, lines, plain_bytes, is_last: true });
        Self { parts: receiver, place: None, encoding, length, link: None }
    }

    fn response(self, query: &ReportQuery, format: Format, note: Note) -> Response {
        let mut response = body::of(self.parts, note, self.place).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        let named = [
            (header::CONTENT_DISPOSITION, Some(disposition(query, format))),
            (header::LINK, self.link),
            (header::CONTENT_LENGTH, self.length.map(|length| length.to_string())),
            (header::CONTENT_ENCODING, self.encoding.name().map(str::to_owned)),
        ];
        for (name, value) in named {
            headers.extend(value.and_then(|value| HeaderValue::from_str(&value).ok()).map(|value| (name, value)));
        }
        if format == Format::Html {
            let alone = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(alone));
        }
        headers.insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        response
    }
}

/// How the answer is to be kept, with a name of our own making: report and days.
fn disposition(query: &ReportQuery, format: Format) -> String {
    let day = |time_ms| query.zone.wall(time_ms).0.date();
    let (first, last) =
        (day(query.filter.from_ms), day(query.filter.to_ms.saturating_sub(1).max(query.filter.from_ms)));
    let days = if first == last { first.to_string() } else { format!("{first}_{last}") };
    let name = format!("{}_{days}.{}", query.report.name(), format.extension());
    let how = if format.is_read_in_place() { "inline" } else { "attachment" };
    format!("{how}; filename=\"{name}\"; filename*=UTF-8''{name}")
}

/// Refuses where there is no place.
fn place(desk: &ReportDesk, work: Work, key: u32) -> Result<Place, Problem> {
    desk.place(work, key).ok_or_else(too_many)
}

fn too_many() -> Problem {
    Problem::saying(Code::Overloaded, "Too many reports are being made: try again shortly.")
}

/// What work came to, where it came to an end.
fn ended<T>(outcome: Option<Result<T, Problem>>) -> Result<T, Problem> {
    outcome.unwrap_or_else(|| Err(Problem::saying(Code::Draining, "The process is going away: ask another node.")))
}

/// One page of json.
async fn json_page(
    state: &ApiState,
    desk: &ReportDesk,
    wish: &Wish,
    query: &ReportQuery,
    key: u32,
) -> Result<Made, Problem> {
    let _place = place(desk, Work::Page, key)?;
    let turn = desk.turn(Work::Page).await.ok_or_else(too_many)?;
    let (store, asked) = (Arc::clone(&state.store), query.clone());
    let encoding = negotiate::encoding(&wish.headers);
    let working = desk.work(async move {
        let _turn = turn;
        let Page { lines, next } = page(&*store, &asked, asked.limit.unwrap_or(LIMIT_MAX)).await?;
        let (from_ms, to_ms) = (asked.filter.from_ms, asked.filter.to_ms);
        let mut text = format!("{{\"report\":\"usage\",\"from_ms\":{from_ms},\"to_ms\":{to_ms},\"rows\":").into_bytes();
        LineWriter::new(Format::Json, &asked).write(&lines, &mut text).map_err(unwritten)?;
        let next = next.map(|cursor| cursor.to_string());
        text.extend(format!(",\"next_cursor\":{}}}\n", json!(next)).into_bytes());
        let (plain_bytes, lines) = (text.len() as u64, lines.len() as u64);
        let bytes = encoded(text, encoding).await.map_err(unwritten)?;
        Ok((Made::whole(bytes, lines, plain_bytes, encoding), next))
    });
    let (made, next) = ended(working.outcome().await)?;
    let link = next.map(|cursor| format!("<{}>; rel=\"next\"", next_target(&wish.target, &wish.pairs, &cursor)));
    Ok(Made { link, ..made })
}

fn unwritten(error: std::io::Error) -> Problem {
    Problem::saying(Code::Overloaded, format!("The report could not be written: {error}"))
}

/// The same request with another cursor.
fn next_target(target: &Uri, pairs: &[(String, String)], cursor: &str) -> String {
    let mut next = target.path().to_owned();
    let others = pairs.iter().filter(|(name, _)| name != "cursor").map(|(name, value)| (name.as_str(), value.as_str()));
    for (place, (name, value)) in others.chain([("cursor", cursor)]).enumerate() {
        next.push(if place == 0 { '?' } else { '&' });
        // Writing to a string does not fail.
        let _ = write!(next, "{}={}", Encoded(name), Encoded(value));
    }
    next
}

/// A report as it comes, however long.
async fn stream(
    state: &ApiState,
    desk: &Arc<ReportDesk>,
    wish: &Wish,
    query: &ReportQuery,
    format: Format,
    key: u32,
) -> Result<Made, Problem> {
    let place = place(desk, Work::Stream, key)?;
    let (store, asked) = (Arc::clone(&state.store), Arc::new(query.clone()));
    let (page_store, page_query) = (Arc::clone(&store), Arc::clone(&asked));
    let begun = desk.work(async move {
        let mut source = ReportSource::new(store, asked);
        let first = source.next_page().await?.unwrap_or_default();
        let opening = match format {
            Format::Html => Some(opening::of_lines(&*page_store, &page_query).await?),
            _ => None,
        };
        Ok((source, first, opening))
    });
    let (source, first, opening) = ended(begun.outcome().await)?;
    let encoding = negotiate::encoding(&wish.headers);
    let (sender, receiver) = parts();
    let (writer, counted) = (LineWriter::new(format, query), Arc::clone(desk));
    desk.spawn(async move {
        match pump(first, source, writer, opening, encoding, &sender).await {
            Ok(()) => {}
            Err(Broken::Gone) => counted.count_abandoned(),
            Err(why) => {
                counted.count_broken();
                tracing::warn!(%why, key, "a report broke off while it was sent; its reader sees no end of it");
            }
        }
    });
    Ok(Made { parts: receiver, place: Some(place), encoding, length: None, link: None })
}

/// A summary, in one piece in every format.
async fn whole_summary(
    state: &ApiState,
    desk: &ReportDesk,
    wish: &Wish,
    query: &ReportQuery,
    format: Format,
    key: u32,
) -> Result<Made, Problem> {
    let _place = place(desk, Work::Page, key)?;
    let turn = desk.turn(Work::Page).await.ok_or_else(too_many)?;
    let (store, asked) = (Arc::clone(&state.store), query.clone());
    let encoding = negotiate::encoding(&wish.headers);
    let working = desk.work(async move {
        let _turn = turn;
        let summary = summary::read(&*store, &asked).await?;
        let opening = match format {
            Format::Html => Some(opening::of_summary(&*store, &asked, &summary).await?),
            _ => None,
        };
        let mut text = Vec::new();
        summary_format::write(format, &asked, &summary, opening.as_ref(), &mut text).map_err(unwritten)?;
        let plain_bytes = text.len() as u64;
        let bytes = encoded(text, encoding).await.map_err(unwritten)?;
        Ok(Made::whole(bytes, 0, plain_bytes, encoding))
    });
    ended(working.outcome().await)
}
