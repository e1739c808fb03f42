//! The client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::pace::{Pace, Wall};

/// How much a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Time of one try, from resolving the name to the last byte.
    pub timeout: Duration,
    /// Tries in all, at least 1.
    pub tries: u32,
    /// Pause before the second try; it doubles.
    pub pause: Duration,
}

/// A request that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not an address of http or https.
    #[error("`{0}` is no URL of http or https")]
    Url(String),
    /// An answer with another status than 200.
    #[error("{url}: HTTP status {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The status.
        status: u16,
    },
    /// No answer, or one that is too long or broke off.
    #[error("{url}: {why}")]
    Transport {
        /// What was asked.
        url: String,
        /// What happened.
        why: String,
    },
}

impl ClientError {
    /// Whether another try may end otherwise: no answer, or the server's own trouble.
    #[must_use]
    pub const fn passing(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Transport { .. } => true,
        }
    }
}

/// A blocking client. Redirects are not followed, and no proxy is taken from the environment: what is
/// asked is what the operator named.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    patience: Patience,
    pace: Arc<dyn Pace>,
    bearer: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// Checks that a text is an address of http or https, and takes slashes off its end.
///
/// # Errors
/// It is none.
pub fn base(url: &str) -> Result<&str, ClientError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match rest {
        Some(host) if !host.is_empty() && url.bytes().all(|b| b.is_ascii_graphic()) => Ok(url.trim_end_matches('/')),
        _ => Err(ClientError::Url(url.to_owned())),
    }
}

impl Client {
    /// A client by the machine's clock.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self::with_pace(patience, Arc::new(Wall::default()))
    }

    /// A client by another clock.
    #[must_use]
    pub fn with_pace(patience: Patience, pace: Arc<dyn Pace>) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(patience.timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .build();
        Self { agent: config.into(), patience, pace, bearer: None }
    }

    /// The same client, naming itself by a key.
    #[must_use]
    pub fn with_bearer(mut self, key: Option<String>) -> Self {
        self.bearer = key.map(|k| format!("Bearer {k}"));
        self
    }

    /// Its clock.
    #[must_use]
    pub fn pace(&self) -> &dyn Pace {
        self.pace.as_ref()
    }

    /// Gets at most `most` bytes.
    ///
    /// # Errors
    /// The last try's.
    pub fn get(&self, url: &str, most: u64) -> Result<Vec<u8>, ClientError> {
        self.with_tries(|| {
            let mut request = self.agent.get(url);
            if let Some(key) = &self.bearer {
                request = request.header("authorization", key.as_str());
            }
            body(url, request.call(), most)
        })
    }

    /// Posts a JSON text and gets at most `most` bytes.
    ///
    /// # Errors
    /// The last try's.
    pub fn post(&self, url: &str, json: &str, most: u64) -> Result<Vec<u8>, ClientError> {
        self.with_tries(|| {
            let mut request = self.agent.post(url).content_type("application/json");
            if let Some(key) = &self.bearer {
                request = request.header("authorization", key.as_str());
            }
            body(url, request.send(json), most)
        })
    }

    fn with_tries(&self, mut ask: impl FnMut() -> Result<Vec<u8>, ClientError>) -> Result<Vec<u8>, ClientError> {
        let mut pause = self.patience.pause;
        for _ in 1..self.patience.tries {
            match ask() {
                Err(e) if e.passing() => {
                    self.pace.sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                other => return other,
            }
        }
        ask()
    }
}

fn body(
    url: &str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    most: u64,
) -> Result<Vec<u8>, ClientError> {
    let transport = |e: ureq::Error| ClientError::Transport { url: url.to_owned(), why: e.to_string() };
    let mut response = sent.map_err(transport)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(ClientError::Status { url: url.to_owned(), status });
    }
    response.body_mut().with_config().limit(most).read_to_vec().map_err(transport)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::testing::{Reply, Server, Virtual};
    use super::*;

    fn client(pace: &Arc<Virtual>) -> Client {
        let patience = Patience { timeout: Duration::from_secs(10), tries: 3, pause: Duration::from_secs(1) };
        Client::with_pace(patience, pace.clone())
    }

    #[test]
    fn a_servers_trouble_is_tried_again_with_growing_pauses() {
        let pace = Arc::new(Virtual::default());
        let server = Server::start(|r| if r.number < 2 { Reply::status(503) } else { Reply::ok("done") });
        assert_eq!(client(&pace).get(&server.url("/x"), 100).unwrap(), b"done");
        assert_eq!((server.requests(), pace.now()), (3, Duration::from_secs(3)));
        assert!(matches!(client(&pace).get(&server.url("/x"), 3), Err(ClientError::Transport { .. })), "too long");
    }

    #[test]
    fn a_refusal_is_not_asked_again_and_a_redirect_is_not_followed() {
        let pace = Arc::new(Virtual::default());
        for status in [404, 302] {
            let server = Server::start(move |_| Reply::status(status));
            let refused = client(&pace).post(&server.url("/y"), "{}", 100).unwrap_err();
            assert!(matches!(refused, ClientError::Status { status: s, .. } if s == status), "{refused}");
            assert_eq!(server.requests(), 1);
        }
        assert_eq!(pace.now(), Duration::ZERO);
    }

    #[test]
    fn nobody_there_is_an_error_after_the_tries() {
        let pace = Arc::new(Virtual::default());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = client(&pace).get(&format!("http://{closed}/"), 10).unwrap_err();
        assert!(refused.passing(), "{refused}");
        assert_eq!(pace.now(), Duration::from_secs(3));
    }

    #[test]
    fn only_http_is_spoken() {
        for url in ["ftp://a", "http://", "file:///etc/hosts", "http://a b"] {
            assert!(base(url).is_err(), "{url}");
        }
        assert_eq!(base("https://a/b/").unwrap(), "https://a/b");
    }
}
