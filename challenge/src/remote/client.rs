//! The client.

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ureq::unversioned::transport::DefaultConnector;

use super::aside::aside;
use super::{Reach, cut};
use crate::pace::{Pace, Until, Wall};

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
    /// Not an address of http or https, or more than one.
    #[error("`{0}` is no plain URL of http or https: without a user, a query or a fragment")]
    Url(String),
    /// A key that everybody on the way could read.
    #[error("`{0}` would be sent the key in the clear: https is needed, or a server on this machine")]
    KeyInTheClear(String),
    /// No time was left.
    #[error("{0}: no time is left to ask")]
    Late(String),
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
            Self::Url(_) | Self::KeyInTheClear(_) | Self::Late(_) => false,
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

/// Checks that a text is a plain address of http or https, and takes slashes off its end. It has no user
/// and password, which would be told in every error, and neither query nor fragment, into which the
/// paths behind it would vanish.
///
/// # Errors
/// It is none.
pub fn base(url: &str) -> Result<&str, ClientError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'@' | b'?' | b'#' | b'\\');
    match rest {
        Some(host) if !host.is_empty() && url.bytes().all(plain) => Ok(url.trim_end_matches('/')),
        _ => Err(ClientError::Url(url.rsplit('@').next().unwrap_or_default().to_owned())),
    }
}

/// Whether what is sent to an address stays on this machine or is encrypted.
fn private(base: &str) -> bool {
    let Some(rest) = base.strip_prefix("http://") else { return true };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

impl Client {
    /// A client by the machine's clock.
    #[must_use]
    pub fn new(patience: Patience, reach: Reach) -> Self {
        Self::with_pace(patience, reach, Arc::new(Wall::default()))
    }

    /// A client by another clock.
    #[must_use]
    pub fn with_pace(patience: Patience, reach: Reach, pace: Arc<dyn Pace>) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).proxy(None).build();
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), reach);
        Self { agent, patience, pace, bearer: None }
    }

    /// The same client, naming itself by a key to the servers of one address.
    ///
    /// # Errors
    /// The key would be sent in the clear to another machine.
    pub fn with_bearer(mut self, base: &str, key: Option<String>) -> Result<Self, ClientError> {
        if key.is_some() && !private(base) {
            return Err(ClientError::KeyInTheClear(base.to_owned()));
        }
        self.bearer = key.map(|k| format!("Bearer {k}"));
        Ok(self)
    }

    /// The same client with other patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
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
    /// The last try's, or no time is left.
    pub fn get(&self, url: &str, most: u64, until: &Until) -> Result<Vec<u8>, ClientError> {
        self.with_tries(url, None, most, until)
    }

    /// Posts a JSON text and gets at most `most` bytes.
    ///
    /// # Errors
    /// The last try's, or no time is left.
    pub fn post(&self, url: &str, json: &str, most: u64, until: &Until) -> Result<Vec<u8>, ClientError> {
        self.with_tries(url, Some(json), most, until)
    }

    fn with_tries(&self, url: &str, json: Option<&str>, most: u64, until: &Until) -> Result<Vec<u8>, ClientError> {
        let late = || ClientError::Late(url.to_owned());
        let ask = || {
            let timeout = self.patience.timeout.min(until.left().ok_or_else(late)?);
            let (client, url, json) = (self.clone(), url.to_owned(), json.map(str::to_owned));
            aside(until, move || client.once(&url, json.as_deref(), most, timeout)).ok_or_else(late)?
        };
        let mut pause = self.patience.pause;
        for _ in 1..self.patience.tries {
            match ask() {
                Err(e) if e.passing() => {
                    self.pace.sleep(until.left().map_or(Duration::ZERO, |left| pause.min(left)));
                    pause = pause.saturating_mul(2);
                }
                other => return other,
            }
        }
        ask()
    }

    fn once(&self, url: &str, json: Option<&str>, most: u64, timeout: Duration) -> Result<Vec<u8>, ClientError> {
        let (key, timeout) = (self.bearer.as_deref(), Some(timeout));
        let sent = match json {
            None => {
                let request = self.agent.get(url).config().timeout_global(timeout).build();
                key.into_iter().fold(request, |r, key| r.header("authorization", key)).call()
            }
            Some(json) => {
                let request = self.agent.post(url).content_type("application/json");
                let request = request.config().timeout_global(timeout).build();
                key.into_iter().fold(request, |r, key| r.header("authorization", key)).send(json)
            }
        };
        body(url, sent, most)
    }
}

fn body(
    url: &str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    most: u64,
) -> Result<Vec<u8>, ClientError> {
    let transport = |why: String| ClientError::Transport { url: url.to_owned(), why };
    let mut response = sent.map_err(|e| transport(cut(e)))?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(ClientError::Status { url: url.to_owned(), status });
    }
    // Counted here, behind whatever unpacks on the way; the client's own limit lies before it.
    let mut bytes = Vec::new();
    let mut reader = response.body_mut().as_reader().take(most.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|e| transport(cut(e)))?;
    if bytes.len() as u64 > most {
        return Err(transport(format!("an answer of more than {most} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::testing::{Reply, Server, Virtual};
    use super::*;

    fn client(pace: &Arc<Virtual>) -> Client {
        let patience = Patience { timeout: Duration::from_secs(10), tries: 3, pause: Duration::from_secs(1) };
        Client::with_pace(patience, Reach::Anywhere, pace.clone())
    }

    #[test]
    fn a_servers_trouble_is_tried_again_with_growing_pauses() {
        let pace = Arc::new(Virtual::default());
        let server = Server::start(|r| if r.number < 2 { Reply::status(503) } else { Reply::ok("done") });
        assert_eq!(client(&pace).get(&server.url("/x"), 100, &Until::default()).unwrap(), b"done");
        assert_eq!((server.requests(), pace.now()), (3, Duration::from_secs(3)));
        assert!(
            matches!(client(&pace).get(&server.url("/x"), 3, &Until::default()), Err(ClientError::Transport { .. })),
            "too long"
        );
    }

    #[test]
    fn a_refusal_is_not_asked_again_and_a_redirect_is_not_followed() {
        let pace = Arc::new(Virtual::default());
        for status in [404, 302] {
            let server = Server::start(move |_| Reply::status(status));
            let refused = client(&pace).post(&server.url("/y"), "{}", 100, &Until::default()).unwrap_err();
            assert!(matches!(refused, ClientError::Status { status: s, .. } if s == status), "{refused}");
            assert_eq!(server.requests(), 1);
        }
        assert_eq!(pace.now(), Duration::ZERO);
    }

    #[test]
    fn nobody_there_is_an_error_after_the_tries() {
        let pace = Arc::new(Virtual::default());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let refused = client(&pace).get(&format!("http://{closed}/"), 10, &Until::default()).unwrap_err();
        assert!(refused.passing(), "{refused}");
        assert_eq!(pace.now(), Duration::from_secs(3));
    }

    #[test]
    fn nobody_is_asked_when_time_is_over_and_no_longer_than_is_left() {
        let pace = Arc::new(Virtual::default());
        let server = Server::start(|_| Reply::status(503));
        // The first try, a pause of a second, the second try, and no time for the pause behind it.
        let until = Until::by(pace.clone(), Duration::from_millis(1_500));
        let late = client(&pace).get(&server.url("/x"), 100, &until).unwrap_err();
        assert_eq!(late, ClientError::Late(server.url("/x")));
        assert_eq!((server.requests(), pace.now()), (2, Duration::from_millis(1_500)));
        let stopped = Until::default().unless(|| true);
        assert!(matches!(client(&pace).get(&server.url("/x"), 100, &stopped), Err(ClientError::Late(_))));
        assert_eq!(server.requests(), 2);
    }

    #[test]
    fn the_machines_of_ones_own_networks_are_not_asked_for_others() {
        let pace = Arc::new(Virtual::default());
        let server = Server::start(|_| Reply::ok("secret"));
        let patience = Patience { timeout: Duration::from_secs(10), tries: 1, pause: Duration::ZERO };
        let client = Client::with_pace(patience, Reach::Public, pace);
        for host in [server.url("/"), server.url("/").replace("127.0.0.1", "localhost")] {
            let refused = client.get(&host, 100, &Until::default()).unwrap_err().to_string();
            assert!(refused.contains("only the operator may name"), "{refused}");
        }
        assert_eq!(server.requests(), 0);
    }

    #[test]
    fn an_answer_is_as_long_as_is_allowed_and_no_longer() {
        let pace = Arc::new(Virtual::default());
        let server = Server::start(|_| Reply::ok("done"));
        assert_eq!(client(&pace).get(&server.url("/x"), 4, &Until::default()).unwrap(), b"done");
        let refused = client(&pace).get(&server.url("/x"), 3, &Until::default()).unwrap_err().to_string();
        assert!(refused.contains("more than 3 bytes"), "{refused}");
    }

    #[test]
    fn a_key_is_not_sent_in_the_clear_to_another_machine() {
        let with = |url: &str| {
            let pace = Arc::new(Virtual::default());
            client(&pace).with_bearer(url, Some("key".into())).map(|_| ())
        };
        for url in ["https://a", "http://127.0.0.1:11434", "http://localhost/v1", "http://[::1]:80/x"] {
            assert_eq!(with(url), Ok(()), "{url}");
        }
        for url in ["http://a", "http://10.0.0.1", "http://localhost.example:80/v1", "http://127.0.0.1.example"] {
            assert_eq!(with(url), Err(ClientError::KeyInTheClear(url.into())));
        }
        assert!(client(&Arc::default()).with_bearer("http://a", None).is_ok());
    }

    #[test]
    fn only_http_is_spoken_and_only_to_a_plain_address() {
        for url in ["ftp://a", "http://", "file:///etc/hosts", "http://a b", "http://a?b", "http://a/#b", "http://a\\b"]
        {
            assert!(base(url).is_err(), "{url}");
        }
        let refused = base("https://user:pass@a").unwrap_err().to_string();
        assert!(!refused.contains("pass"), "a password is not repeated: {refused}");
        assert_eq!(base("https://a/b/").unwrap(), "https://a/b");
    }
}
