//! Requests as a player makes them.

use std::time::{Duration, Instant};

use reqwest::{Client, Url};
use rustls::crypto::ring;

/// Longer than any answer may be held.
const PATIENCE: Duration = Duration::from_secs(90);

/// Makes requests on connections that are kept.
#[derive(Clone)]
pub struct Fetcher(Client);

/// An answer.
pub struct Fetched {
    /// Where it came from in the end.
    pub url: Url,
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Fetched {
    /// # Errors
    /// When it is no text: a sentence.
    pub fn text(&self) -> Result<String, String> {
        String::from_utf8(self.body.clone()).map_err(|_| format!("{} is not in UTF-8", self.url))
    }
}

impl Fetcher {
    /// # Errors
    /// When no connections can be made: a sentence.
    pub fn new() -> Result<Self, String> {
        // What reqwest then takes; another that is installed already does as well.
        let _ = ring::default_provider().install_default();
        let client = Client::builder().timeout(PATIENCE).user_agent("corecast-check-hls").build();
        client.map(Self).map_err(|error| format!("no connections can be made: {error}"))
    }

    /// # Errors
    /// When there is no answer: a sentence.
    pub async fn get(&self, url: &Url) -> Result<Fetched, String> {
        let since = Instant::now();
        let failed = |error: reqwest::Error| format!("{url} cannot be fetched: {}", error.without_url());
        let answer = self.0.get(url.clone()).send().await.map_err(failed)?;
        let (status, from) = (answer.status().as_u16(), answer.url().clone());
        let content_type = answer.headers().get(http::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body = answer.bytes().await.map_err(failed)?.to_vec();
        Ok(Fetched { url: from, status, content_type, body, took: since.elapsed() })
    }
}
