//! Fetching a pinned file.

use super::HubError;
use super::cache::{Repository, file_name};
use super::disk::{Partial, at};
use super::pins::{PinnedFile, is_hex, shown};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode};

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
pub const ENDPOINT: &str = "https://huggingface.co";

/// Redirects that are followed: the hub's to its storage, and a moved repository's.
const MAX_REDIRECTS: usize = 5;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 18;

/// How long a connection, an answer's beginning and each piece of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fewest bytes a second on average, once [`PATIENCE`] has passed: half a gigabyte in nine hours. Each
/// piece in time is not enough, a byte a minute would never end.
const LEAST_RATE: u64 = 1 << 14;

/// A file to fetch.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Where it goes.
    pub(crate) folders: &'a Repository,
    /// `OWNER/NAME`.
    pub(crate) repository: &'a str,
    /// A commit, or `main`.
    pub(crate) revision: &'a str,
    /// Its name and digest.
    pub(crate) file: &'a PinnedFile,
    /// Most bytes that it may have.
    pub(crate) limit: u64,
}

/// What an answer brought.
struct Received {
    /// Bytes that were there before and stayed.
    kept: u64,
    /// The commit that the revision is.
    commit: String,
}

/// A client of one hub.
pub(crate) struct Client {
    endpoint: String,
    agent: ureq::Agent,
}

/// The hub's address: `HF_ENDPOINT`, or its own.
#[must_use]
pub fn standard_endpoint() -> String {
    std::env::var("HF_ENDPOINT").ok().filter(|value| !value.is_empty()).unwrap_or_else(|| ENDPOINT.to_owned())
}

impl Client {
    pub(crate) fn new(endpoint: &str) -> Result<Self, HubError> {
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(HubError::Malformed { what: "URL of http or https", value: shown(endpoint) });
        }
        let mut config = ureq::Agent::config_builder();
        if endpoint.starts_with("http://") {
            // A hub without TLS is a mirror close by: no proxy between.
            config = config.proxy(None);
        }
        let config = config
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .timeout_per_read(Some(PATIENCE))
            .http_status_as_error(false)
            // The commit is in the hub's own answer, before it redirects.
            .max_redirects(0)
            .build();
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), agent: config.into() })
    }

    /// Fetches a file into the cache and gives its blob's path there.
    pub(crate) fn file(
        &self,
        wanted: &Wanted<'_>,
        progress: &mut impl FnMut(u64, Option<u64>),
    ) -> Result<PathBuf, HubError> {
        let Wanted { folders, repository, revision, file, limit } = *wanted;
        let url = format!("{}/{repository}/resolve/{revision}/{}", self.endpoint, file_name(file)?);
        let blob = folders.blob(file)?;
        let lock = folders.lock(file)?;
        std::fs::create_dir_all(&folders.blobs).map_err(at(&folders.blobs))?;
        // A name of our own: what the hub's client has begun is the hub's client's.
        let mut partial = Partial::open(folders.blobs.join(format!("{}.perturb.incomplete", file.sha256)))?;
        if partial.length()? > limit {
            partial.clear()?;
        }
        let mut received = self.receive(&url, wanted, &mut partial, progress)?;
        let mut found = partial.digest()?;
        if found != file.sha256 && received.kept > 0 {
            // What had arrived before may be the wrong part: a server answers for its own bytes only.
            partial.clear()?;
            received = self.receive(&url, wanted, &mut partial, progress)?;
            found = partial.digest()?;
        }
        if found != file.sha256 {
            partial.delete()?;
            return Err(HubError::Mismatch { origin: url, found, expected: file.sha256.clone() });
        }
        partial.name(&blob)?;
        folders.link(revision, &received.commit, file, &lock)?;
        Ok(blob)
    }

    /// Asks for what is still missing and adds it to `partial`.
    fn receive(
        &self,
        url: &str,
        wanted: &Wanted<'_>,
        partial: &mut Partial,
        progress: &mut impl FnMut(u64, Option<u64>),
    ) -> Result<Received, HubError> {
        let have = partial.length()?;
        let refuse = |why: String| HubError::Answer { url: url.to_owned(), why };
        let (mut response, commit) = self.open(url, have)?;
        let kept = match response.status() {
            StatusCode::PARTIAL_CONTENT if have > 0 => have,
            // All of it is here already, or what is here is not its beginning: the digest will tell.
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => have,
            StatusCode::OK => 0,
            status => return Err(refuse(format!("HTTP status {}", status.as_u16()))),
        };
        let commit = match (commit, is_hex(wanted.revision, 40)) {
            // Whatever the answer says: what was asked for is what its bytes are held against.
            (_, true) => wanted.revision.to_owned(),
            (Some(commit), false) => commit,
            (None, false) => return Err(refuse("the answer names no commit".to_owned())),
        };
        if kept < have {
            partial.clear()?;
        }
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            let total = response.body().content_length().map(|length| kept.saturating_add(length));
            let outcome = copy(&mut response.body_mut().as_reader(), partial, url, kept, total, wanted.limit, progress);
            if matches!(outcome, Err(HubError::Answer { .. })) {
                // What goes beyond the limit is no beginning of the file.
                partial.clear()?;
            }
            outcome?;
        }
        Ok(Received { kept, commit })
    }

    /// Asks for a file from byte `from` on, following redirects; gives the commit that the hub named.
    fn open(&self, url: &str, from: u64) -> Result<(Response<ureq::Body>, Option<String>), HubError> {
        let mut url = url.to_owned();
        let mut commit = None;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let response =
                request.call().map_err(|error| HubError::Unavailable { url: url.clone(), why: error.to_string() })?;
            let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
            commit = commit.or_else(|| header("x-repo-commit").filter(|commit| is_hex(commit, 40)).map(str::to_owned));
            if !response.status().is_redirection() {
                return Ok((response, commit));
            }
            let location = header("location").unwrap_or_default();
            url = self.redirected(&url, location)?;
        }
        Err(HubError::Answer { url, why: "too many redirects".to_owned() })
    }

    /// Where a redirect leads: nowhere without TLS if the hub itself has it.
    fn redirected(&self, from: &str, location: &str) -> Result<String, HubError> {
        let next = if location.starts_with('/') && !location.starts_with("//") {
            let host = from.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            format!("{host}{location}")
        } else {
            location.to_owned()
        };
        let secure = next.starts_with("https://");
        if secure || (next.starts_with("http://") && self.endpoint.starts_with("http://")) {
            return Ok(next);
        }
        Err(HubError::Answer { url: from.to_owned(), why: format!("a redirect to `{}`", shown(location)) })
    }
}

/// Adds a body to what has arrived, and stops at the limit or where it comes too slowly.
fn copy(
    body: &mut impl Read,
    partial: &mut Partial,
    url: &str,
    kept: u64,
    total: Option<u64>,
    limit: u64,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<(), HubError> {
    let begin = Instant::now();
    let broken = |why: String| HubError::Unavailable { url: url.to_owned(), why };
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = kept;
    loop {
        let read = body.read(&mut chunk).map_err(|error| broken(error.to_string()))?;
        if read == 0 {
            return match total.filter(|total| done < *total) {
                Some(total) => Err(broken(format!("{done} of {total} bytes came"))),
                None => Ok(()),
            };
        }
        done += read as u64;
        if done > limit {
            let why = format!("more than {limit} bytes, which is more than the model has");
            return Err(HubError::Answer { url: url.to_owned(), why });
        }
        partial.append(&chunk[..read])?;
        progress(done, total);
        if too_slow(done - kept, begin.elapsed()) {
            return Err(broken(format!("less than {LEAST_RATE} bytes a second came")));
        }
    }
}

/// Whether so many bytes in this time are too few.
fn too_slow(bytes: u64, elapsed: Duration) -> bool {
    elapsed > PATIENCE && bytes < elapsed.as_secs().saturating_mul(LEAST_RATE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_server_that_drips_is_given_up_after_a_while() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert!(!too_slow(1, Duration::from_secs(59)));
        assert!(too_slow(1_000, minutes(2)));
        assert!(too_slow(10 * 60 * LEAST_RATE - 1, minutes(10)));
        assert!(!too_slow(10 * 60 * LEAST_RATE, minutes(10)));
        assert!(!too_slow(500 << 20, minutes(60)));
    }
}
