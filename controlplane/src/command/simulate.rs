//! `simulate`: one venue's simulated exchange by itself, for whoever writes a client of that venue.

use super::{gemini_api, print, venue};
use crate::feeds::simulator::{SimulatorSettings, Simulators};
use anyhow::Context;
use clap::Args;
use shared::venue::{VENUE_COUNT, Venue, VenueSet};
use std::net::IpAddr;
use venues::VenueSettings;
use venues::gemini::GeminiApi;

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Which exchange to play
    #[arg(long, value_parser = venue)]
    venue: Venue,
    /// Port for WebSocket and REST; 0 for any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    bind: IpAddr,
    /// One seed, one market
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Invented assets to list besides, called C0, C1, ... (at most 5000)
    #[arg(long, default_value_t = 0)]
    invented: usize,
    /// Which of Gemini's interfaces to play
    #[arg(long, value_parser = gemini_api, default_value = "new")]
    gemini_api: GeminiApi,
}

/// Plays the exchange until interrupted.
pub fn run(args: &SimulateArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ports = [0; VENUE_COUNT];
        ports[args.venue.index()] = args.port;
        let settings = SimulatorSettings {
            seed: args.seed,
            venues: VenueSet::EMPTY.with(args.venue),
            settings: VenueSettings { gemini: args.gemini_api },
            bind: args.bind,
            ports,
            invented: args.invented,
            ..SimulatorSettings::default()
        };
        let simulators = Simulators::start(&settings)
            .await
            .context("the exchange did not start; choose another --port or --bind")?;
        for (venue, address) in simulators.addresses() {
            print(&format!(
                "simulated {venue}, seed {}: WebSocket ws://{address}/  REST http://{address}\n\
                 make it fail: curl -X POST 'http://{address}/simulator/fault?kind=silent'  (and kind=resume)\n",
                args.seed
            ))?;
        }
        tokio::signal::ctrl_c().await?;
        simulators.stop().await;
        Ok(())
    })
}
