//! Fetching a pinned file.

use super::HubError;
use super::cache::{Cache, digest, file_name};
use super::pins::{PinnedFile, is_hex, shown};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{Response, StatusCode};

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
pub const ENDPOINT: &str = "https://huggingface.co";

/// Redirects that are followed: the hub's to its storage, and a moved repository's.
const MAX_REDIRECTS: usize = 5;

/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 18;

/// How long a connection, an answer's beginning and each piece of it may take.
const PATIENCE: Duration = Duration::from_secs(60);

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

    /// Fetches a file of at most `limit` bytes into the cache and gives its path there.
    pub(crate) fn file(
        &self,
        cache: &Cache,
        repository: &str,
        revision: &str,
        file: &PinnedFile,
        limit: u64,
        progress: &mut impl FnMut(u64, Option<u64>),
    ) -> Result<std::path::PathBuf, HubError> {
        let folders = cache.repository(repository)?;
        let url = format!("{}/{repository}/resolve/{revision}/{}", self.endpoint, file_name(file)?);
        let blob = folders.blobs.join(&file.sha256);
        let partial = folders.blobs.join(format!("{}.incomplete", file.sha256));
        std::fs::create_dir_all(&folders.blobs).map_err(at(&folders.blobs))?;
        let mut out = OpenOptions::new().read(true).append(true).create(true).open(&partial).map_err(at(&partial))?;
        match out.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HubError::Busy { path: partial }),
            Err(TryLockError::Error(source)) => return Err(HubError::Io { path: partial, source }),
        }
        let have = out.seek(SeekFrom::End(0)).map_err(at(&partial))?;
        let (mut response, commit) = self.open(&url, have)?;
        let begin = match response.status() {
            StatusCode::PARTIAL_CONTENT => have,
            // All of it is here already, or what is here is not its beginning: the digest will tell.
            StatusCode::RANGE_NOT_SATISFIABLE => have,
            StatusCode::OK => 0,
            status => {
                return Err(HubError::Answer { url, why: format!("HTTP status {}", status.as_u16()) });
            }
        };
        let commit = match (commit, is_hex(revision, 40)) {
            // Whatever the answer says: what was asked for is what its bytes are held against.
            (_, true) => revision.to_owned(),
            (Some(commit), false) => commit,
            (None, false) => {
                return Err(HubError::Answer { url, why: "the answer names no commit".to_owned() });
            }
        };
        if begin < have {
            out.set_len(begin).map_err(at(&partial))?;
        }
        if response.status() != StatusCode::RANGE_NOT_SATISFIABLE {
            let total = response.body().content_length().map(|length| begin + length);
            let mut body = response.body_mut().as_reader();
            copy(&mut body, &mut out, &partial, &url, begin, total, limit, progress)?;
        }
        out.sync_all().map_err(at(&partial))?;
        let found = digest(&partial)?;
        if found != file.sha256 {
            std::fs::remove_file(&partial).map_err(at(&partial))?;
            return Err(HubError::Mismatch { origin: url, found, expected: file.sha256.clone() });
        }
        std::fs::rename(&partial, &blob).map_err(at(&blob))?;
        folders.link(revision, &commit, file)
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

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::Io { path, source }
}

/// Appends a body to a file, and stops at the limit.
#[expect(clippy::too_many_arguments, reason = "the parts of one loop, called once")]
fn copy(
    body: &mut impl Read,
    out: &mut File,
    path: &Path,
    url: &str,
    begin: u64,
    total: Option<u64>,
    limit: u64,
    progress: &mut impl FnMut(u64, Option<u64>),
) -> Result<(), HubError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = begin;
    loop {
        let read = body
            .read(&mut chunk)
            .map_err(|error| HubError::Unavailable { url: url.to_owned(), why: error.to_string() })?;
        if read == 0 {
            let short = total.filter(|total| done < *total);
            let cut =
                |total| HubError::Unavailable { url: url.to_owned(), why: format!("{done} of {total} bytes came") };
            return short.map_or(Ok(()), |total| Err(cut(total)));
        }
        done += read as u64;
        if done > limit {
            let why = format!("more than {limit} bytes, which is more than the model has");
            return Err(HubError::Answer { url: url.to_owned(), why });
        }
        out.write_all(&chunk[..read]).map_err(at(path))?;
        progress(done, total);
    }
}
