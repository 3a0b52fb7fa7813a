//! Asking over HTTP: one kept connection, `/prices` for any number of assets.

use super::super::service::{ServiceArgs, read_json, refused_with};
use super::Answer;
use anyhow::Context;
use shared::asset::Symbol;
use std::time::Duration;

/// Port of prices over HTTP.
const PORT: u16 = 8_080;

/// Patience for one answer; the service gives it in well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// An HTTP client of one service.
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Client {
    /// A client of this service.
    pub fn new(service: &ServiceArgs) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).build().context("cannot set up an HTTP client")?;
        Ok(Self { http, base: service.base(PORT), key: service.key.clone() })
    }

    /// Asks for `assets`, stale prices included.
    pub async fn ask(&self, assets: &[Symbol]) -> anyhow::Result<Answer> {
        let names: Vec<&str> = assets.iter().map(Symbol::as_str).collect();
        let url = format!("{}/prices?assets={}&ignore_unknown=1&allow_stale=1", self.base, names.join(","));
        let sent = self.http.get(url).bearer_auth(&self.key).send().await;
        let sent = sent.map_err(reqwest::Error::without_url);
        let response =
            sent.with_context(|| format!("no answer from {}: check --target and that it runs", self.base))?;
        let status = response.status();
        let body = response.bytes().await.context("the answer broke off")?;
        let mut object = read_json(&body)?;
        if !status.is_success() {
            return Err(refused_with(status.as_u16(), &object));
        }
        let mut answer = Answer::default();
        answer.add(&mut object);
        Ok(answer)
    }
}
