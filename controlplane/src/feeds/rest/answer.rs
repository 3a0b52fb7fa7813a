//! What a venue's answer says of each market that it was asked about, and who is told.
//!
//! What nobody listens to over the WebSocket is not on the board: its price goes to whoever asked.

use super::RestAnswer;
use super::queue::Answered;
use crate::feeds::board::{Check, feed_quote};
use crate::feeds::plan::Market;
use crate::feeds::slot::VenueContext;
use shared::asset::resolve_alias;
use shared::moment::Moment;
use shared::quote::Route;
use venues::protocol::{Instrument, VenueEvent, VenueProtocol, VenueQuote};

/// What an answer says of one market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// This.
    Quote(Box<VenueQuote>),
    /// That the venue has no price for it.
    Refused,
    /// Nothing.
    Nothing,
}

/// An answer, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// By market.
    pub said: Vec<Said>,
    /// What is wrong with it, for people.
    pub fault: Option<String>,
}

/// Reads an answer. With a list of everything a venue trades it takes milliseconds.
#[must_use]
pub fn read(protocol: &dyn VenueProtocol, answer: &RestAnswer, markets: &[Market]) -> Reading {
    let instruments: Vec<&Instrument> = markets.iter().map(|market| &market.instrument).collect();
    let mut reading = Reading { said: vec![Said::Nothing; markets.len()], fault: None };
    protocol.decode_tickers(answer.status, &answer.body, &instruments, &mut |event| match event {
        VenueEvent::Quote(quote) => {
            let of = |market: &Market| {
                let instrument = &market.instrument;
                resolve_alias(instrument.base) == resolve_alias(quote.base) && instrument.quote == quote.quote
            };
            if let Some(index) = markets.iter().position(of) {
                let has_price = [quote.last, quote.bid, quote.ask].iter().any(|field| field.price().is_some());
                reading.said[index] = if has_price { Said::Quote(Box::new(quote)) } else { Said::Refused };
            }
        }
        VenueEvent::Refused { name, reason, .. } => {
            // Without a name it is the request that was refused (a rate limit, the server's fault), not an instrument.
            for (market, said) in markets.iter().zip(&mut reading.said) {
                if name == Some(market.instrument.name.as_str()) {
                    *said = Said::Refused;
                }
            }
            reading.fault = Some(reason.to_owned());
        }
        VenueEvent::Malformed { reason } => reading.fault = Some(reason),
        _ => {}
    });
    if reading.said.iter().all(|said| *said == Said::Nothing) && reading.fault.is_none() {
        reading.fault = Some(format!("no price in an answer of status {}", answer.status));
    }
    reading
}

impl Reading {
    /// Whether the venue said something of a market that was asked about, be it that it has no price for it.
    #[must_use]
    pub fn is_of_use(&self) -> bool {
        self.said.iter().any(|said| *said != Said::Nothing)
    }

    /// Puts it on the venue's board; answers what became of each market.
    #[must_use]
    pub fn hand_over(self, context: &VenueContext, markets: &[Market], asked: Moment) -> Vec<Answered> {
        let now = tuning::clock::now();
        let is_of_use = self.is_of_use();
        let mut state = context.board.lock();
        let has_quote = self.said.iter().any(|said| matches!(said, Said::Quote(_)));
        state.counters.rest_errors += u64::from(!is_of_use);
        if let Some(fault) = self.fault.filter(|_| !has_quote) {
            state.fault(&format!("REST: {fault}"), now);
        }
        let told = markets.iter().zip(self.said).map(|(market, said)| match said {
            Said::Nothing => Answered::Failed,
            Said::Refused => {
                let again = now.plus_ms(context.timing.refused_retry_ms);
                state.rest_refused(market.asset, again.mono_ns);
                Answered::Refused
            }
            Said::Quote(quote) => match state.rest_quote(market.asset, &quote, asked.mono_ns, now) {
                None => {
                    let quote = feed_quote(context.venue, market, &quote, true, Route::Rest, now);
                    Answered::Priced(Some(Box::new(quote)))
                }
                Some(check) => {
                    if check == Check::Suspect {
                        let name = &market.instrument.name;
                        tracing::warn!(venue = %context.venue, name, "REST contradicts a silent subscription");
                    }
                    Answered::Priced(None)
                }
            },
        });
        let told = told.collect();
        state.flush();
        told
    }
}
