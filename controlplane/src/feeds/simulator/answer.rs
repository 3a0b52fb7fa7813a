//! The REST side of a simulated exchange: the venue's own answers, and everything that can be wrong with them.

use super::exchange::Exchange;
use super::fault::{Nonsense, RestCondition};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use shared::price::Price;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use venues::protocol::Instrument;
use venues::simulate::market::MarketQuote;

/// Stands in an answer for what no price can hold, until the text is made.
const MARK: Price = Price::new(987_654_321_987_654_321, 0);
/// What is put in its place.
const ABSURD: &str = "1e308";

/// The venue's own REST interface.
pub async fn rest(State(exchange): State<Arc<Exchange>>, uri: Uri) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let number = exchange.tally().count(path, tuning::clock::now());
    let (condition, delay_ms) = {
        let conditions = exchange.conditions();
        let conditions = conditions.borrow();
        (conditions.rest, conditions.rest_delay_ms)
    };
    if delay_ms > 0 {
        sleep(Duration::from_millis(delay_ms.into())).await;
    }
    match condition {
        RestCondition::Good => {
            let (status, body) = exchange.answer(path, |quote| *quote);
            told(status, body)
        }
        RestCondition::Down => (StatusCode::SERVICE_UNAVAILABLE, "down").into_response(),
        RestCondition::Garbage => {
            let page = "<!doctype html><title>Sorry</title><p>We will be back soon.";
            ([(header::CONTENT_TYPE, "text/html")], page).into_response()
        }
        RestCondition::Limited(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())], "slow down").into_response()
        }
        RestCondition::Hang => half(exchange.answer(path, |quote| *quote).1),
        RestCondition::Nonsense(what) => {
            let (status, body) = nonsense(&exchange, path, what.of(number));
            told(status, body)
        }
    }
}

fn told(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A whole head, half of `body`, and then nothing for as long as the client stays.
fn half(body: String) -> Response {
    let length = body.len();
    let first = Bytes::from(body).slice(..length / 2);
    let pieces = stream::iter([Ok::<Bytes, Infallible>(first)]).chain(stream::pending());
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    (headers, Body::from_stream(pieces)).into_response()
}

/// An answer of the right shape that says what cannot be.
fn nonsense(exchange: &Exchange, path: &str, what: Nonsense) -> (u16, String) {
    let all = |price: fn(Price) -> Price| {
        exchange.answer(path, |quote| {
            let (last, bid, ask) = (price(quote.last), price(quote.bid), price(quote.ask));
            MarketQuote { last, bid, ask, ..*quote }
        })
    };
    match what {
        Nonsense::All | Nonsense::Zero => all(|price| Price::new(0, price.exponent())),
        Nonsense::Negative => all(|price| Price::new(-price.mantissa(), price.exponent())),
        Nonsense::Huge => {
            let (status, body) = all(|_| MARK);
            (status, body.replace(&MARK.to_string(), ABSURD))
        }
        Nonsense::Wrong => {
            let (status, body) = exchange.answer(path, |quote| *quote);
            (status, misnamed(&exchange.listed, path, body))
        }
    }
}

/// `body` under the name of an instrument that `path` does not name, where it names one.
fn misnamed(listed: &[Instrument], path: &str, body: String) -> String {
    let is_named = |one: &&Instrument| path.contains(&one.rest_name) || path.contains(&one.name);
    // The longest: `ETHUSDT` is not `ETHUSD`.
    let asked = listed.iter().filter(is_named).max_by_key(|one| one.rest_name.len());
    let other = listed.iter().find(|one| !is_named(one));
    match (asked, other) {
        (Some(asked), Some(other)) => body.replace(&asked.rest_name, &other.rest_name),
        _ => body,
    }
}
