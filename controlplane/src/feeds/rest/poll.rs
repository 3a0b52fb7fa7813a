//! Polls over REST what the WebSocket leaves stale, and checks what has been quiet for long.
//!
//! What is due is the board's knowledge; this file asks, one request at a time inside the venue's pace, and gives the
//! answers back to the board.

use super::RestAnswer;
use crate::feeds::board::{Board, Check};
use crate::feeds::plan::Market;
use crate::feeds::rest::{RestClient, RestFault};
use crate::feeds::slot::VenueContext;
use crate::feeds::stop::Stop;
use crate::feeds::timing::{TICKER_BYTES_MAX, duration_ms};
use shared::asset::resolve_alias;
use shared::moment::Moment;
use std::sync::Arc;
use tokio::time::sleep;
use venues::protocol::{Instrument, RestRequest, VenueEvent, VenueProtocol};

/// Asks for prices until told to stop.
pub async fn run(context: Arc<VenueContext>, client: Arc<RestClient>, mut stop: Stop) {
    let protocol = context.protocol();
    loop {
        tokio::select! {
            biased;
            () = stop.ordered() => return,
            () = sleep(duration_ms(context.timing.tick_ms)) => {}
        }
        while client.is_ready() {
            let limit = protocol.limits().names_per_rest_request.max(1);
            let markets = context.board.lock().take_polls(tuning::clock::now(), &context.timing, limit);
            if markets.is_empty() {
                break;
            }
            let instruments: Vec<&Instrument> = markets.iter().map(|market| &market.instrument).collect();
            let request = protocol.tickers(&instruments);
            let asked = tuning::clock::now();
            let answer = tokio::select! {
                biased;
                () = stop.ordered() => return,
                answer = ask(&context, &client, &request) => answer,
            };
            if let Some(answer) = answer {
                take(&context, &*protocol, &answer, &markets, asked);
            }
        }
    }
}

/// One request; a failure is noted.
async fn ask(context: &VenueContext, client: &RestClient, request: &RestRequest) -> Option<RestAnswer> {
    context.board.lock().counters.rest_requests += 1;
    let fault = match client.get(request, TICKER_BYTES_MAX, duration_ms(context.timing.rest_ms)).await {
        Ok(answer) => return Some(answer),
        Err(fault) => fault,
    };
    let mut state = context.board.lock();
    state.counters.rest_errors += 1;
    state.counters.rest_limited += u64::from(matches!(fault, RestFault::Limited(_)));
    state.fault(&fault.to_string(), tuning::clock::now());
    None
}

/// Gives the quotes of an answer to the board.
fn take(context: &VenueContext, protocol: &dyn VenueProtocol, answer: &RestAnswer, markets: &[Market], asked: Moment) {
    let now = tuning::clock::now();
    let instruments: Vec<&Instrument> = markets.iter().map(|market| &market.instrument).collect();
    let board: &Board = &context.board;
    let mut state = board.lock();
    let (mut quotes, mut fault) = (0, None);
    let mut refused = Vec::new();
    protocol.decode_tickers(answer.status, &answer.body, &instruments, &mut |event| match event {
        VenueEvent::Quote(quote) => {
            let of = |market: &&Market| {
                let instrument = &market.instrument;
                resolve_alias(instrument.base) == resolve_alias(quote.base) && instrument.quote == quote.quote
            };
            if let Some(market) = markets.iter().find(of) {
                quotes += 1;
                let check = state.rest_quote(market.asset, &quote, asked.mono_ns, now);
                if check == Some(Check::Suspect) {
                    let name = &market.instrument.name;
                    tracing::warn!(venue = %context.venue, name, "REST contradicts a silent subscription");
                }
            }
        }
        VenueEvent::Refused { name, reason, .. } => {
            // Without a name it is the request that was refused (a rate limit, the server's fault), not an instrument.
            let named = |market: &&Market| name == Some(market.instrument.name.as_str());
            refused.extend(markets.iter().filter(named).map(|market| market.asset));
            fault = Some(reason.to_owned());
        }
        VenueEvent::Malformed { reason } => fault = Some(reason),
        _ => {}
    });
    if quotes == 0 {
        state.counters.rest_errors += 1;
        let text = fault.unwrap_or_else(|| format!("no price in an answer of status {}", answer.status));
        state.fault(&format!("REST: {text}"), now);
    }
    for asset in refused {
        state.rest_refused(asset, now.plus_ms(context.timing.refused_retry_ms).mono_ns);
    }
    state.flush();
}
