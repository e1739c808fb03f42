//! Tests of the hub client against a server on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::fetch::{Client, Wanted};
use super::*;
use sha2::{Digest as _, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REPOSITORY: &str = "timm/a-model.in1k";

/// Most bytes of a file.
const LIMIT: u64 = 1 << 20;

/// A request: path and the first byte asked for.
type Request = (String, Option<usize>);

/// A server that answers each request by `answer` and remembers them. Its thread ends with the process.
fn server(answer: impl Fn(&Request) -> Vec<u8> + Send + 'static) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let request = request(&stream);
            let bytes = answer(&request);
            log.lock().unwrap().push(request);
            // A client that has gone away is no failure of the server's.
            let _ = stream.write_all(&bytes);
        }
    });
    (endpoint, seen)
}

fn request(stream: &TcpStream) -> Request {
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty());
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let mut from = None;
    for line in lines {
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = Some(range.trim_end_matches('-').parse().unwrap());
        }
    }
    (path, from)
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn whole(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("content-length: {}\r\nx-repo-commit: {COMMIT}\r\n", body.len()), body)
}

fn pinned_file(body: &[u8]) -> PinnedFile {
    PinnedFile { name: "model.safetensors".into(), sha256: hex(body) }
}

fn hex(body: &[u8]) -> String {
    perturb_types::Digest(Sha256::digest(body).into()).to_string()
}

struct Folder {
    folder: tempfile::TempDir,
    cache: Cache,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("hub"), folder.path().join("weights"));
        Self { folder, cache }
    }

    /// The test repository's folder.
    fn place(&self) -> PathBuf {
        self.cache.hub().join("models--timm--a-model.in1k")
    }

    fn blob(&self, file: &PinnedFile) -> PathBuf {
        self.place().join("blobs").join(&file.sha256)
    }

    fn partial(&self, file: &PinnedFile) -> PathBuf {
        self.place().join("blobs").join(format!("{}.perturb.incomplete", file.sha256))
    }

    /// A file of the user's that has nothing to do with the cache.
    fn other(&self) -> PathBuf {
        let path = self.folder.path().join("precious");
        std::fs::write(&path, b"precious").unwrap();
        path
    }

    fn holds(&self, file: &PinnedFile) -> bool {
        self.cache.repository(REPOSITORY).unwrap().holds(file, LIMIT).unwrap()
    }

    fn fetch(&self, endpoint: &str, revision: &str, file: &PinnedFile) -> Result<PathBuf, HubError> {
        let folders = self.cache.repository(REPOSITORY)?;
        let wanted = Wanted { folders: &folders, repository: REPOSITORY, revision, file, limit: LIMIT };
        Client::new(endpoint)?.file(&wanted, &mut |_, _| {})
    }
}

fn body() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// What a file's rest is answered with.
fn rest(from: usize) -> Vec<u8> {
    let rest = body()[from..].to_vec();
    answer("206 Partial Content", &format!("content-length: {}\r\n", rest.len()), &rest)
}

#[test]
fn a_pinned_file_is_fetched_through_redirects_and_lies_where_the_hub_keeps_it() {
    let (endpoint, seen) = server(|(path, _)| match path.as_str() {
        "/storage" => answer("200 OK", "content-length: 400000\r\n", &body()),
        _ => {
            answer("302 Found", &format!("location: /storage\r\nx-repo-commit: {COMMIT}\r\ncontent-length: 0\r\n"), b"")
        }
    });
    let folder = Folder::new();
    let file = pinned_file(&body());
    assert!(!folder.holds(&file));
    let blob = folder.fetch(&endpoint, "main", &file).unwrap();
    assert_eq!(blob, folder.blob(&file));
    assert_eq!(std::fs::read(&blob).unwrap(), body());
    let link = folder.place().join("snapshots").join(COMMIT).join("model.safetensors");
    assert_eq!(link.canonicalize().unwrap(), blob.canonicalize().unwrap());
    assert_eq!(std::fs::read_to_string(folder.place().join("refs/main")).unwrap(), COMMIT);
    assert!(folder.holds(&file));
    assert_eq!(seen.lock().unwrap()[0].0, "/timm/a-model.in1k/resolve/main/model.safetensors");
    assert_eq!(seen.lock().unwrap().len(), 2);
    let names = |part: &str| std::fs::read_dir(folder.place().join(part)).unwrap().count();
    assert_eq!([names("blobs"), names("refs"), names(&format!("snapshots/{COMMIT}"))], [1, 1, 1]);
}

#[test]
fn other_bytes_are_refused_named_and_deleted() {
    let (endpoint, _) = server(|_| whole(b"something else"));
    let folder = Folder::new();
    let file = pinned_file(&body());
    let error = folder.fetch(&endpoint, COMMIT, &file).unwrap_err();
    let HubError::Mismatch { found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((found, expected), (&hex(b"something else"), &file.sha256));
    assert_eq!(std::fs::read_dir(folder.place().join("blobs")).unwrap().count(), 0);
    assert!(!folder.holds(&file));
}

#[test]
fn a_fetch_heals_what_is_damaged_in_the_cache() {
    let (endpoint, _) = server(|_| whole(&body()));
    let folder = Folder::new();
    let file = pinned_file(&body());
    let blob = folder.fetch(&endpoint, COMMIT, &file).unwrap();
    std::fs::write(&blob, b"changed").unwrap();
    assert!(!folder.holds(&file));
    folder.fetch(&endpoint, COMMIT, &file).unwrap();
    assert_eq!(std::fs::read(&blob).unwrap(), body());
    assert!(folder.holds(&file));
}

#[test]
fn a_pipe_or_an_endless_file_in_a_blob_s_place_is_not_read_but_replaced() {
    let (endpoint, _) = server(|_| whole(&body()));
    let file = pinned_file(&body());
    let endless = |path: &Path| std::fs::File::create(path).unwrap().set_len(10 << 40).unwrap();
    let pipe = |path: &Path| {
        let made = crate::testing::pipe(path.parent().unwrap());
        std::fs::rename(made, path).unwrap();
    };
    let zero = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    for put in [&endless as &dyn Fn(&Path), &pipe, &zero] {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.place().join("blobs")).unwrap();
        put(&folder.blob(&file));
        assert!(!folder.holds(&file));
        folder.fetch(&endpoint, COMMIT, &file).unwrap();
        assert_eq!(std::fs::read(folder.blob(&file)).unwrap(), body());
    }
}

#[test]
fn what_broke_off_goes_on_where_it_ended() {
    let (endpoint, seen) = server(|(_, from)| match from {
        None => whole(&body())[..150_000].to_vec(),
        Some(from) => rest(*from),
    });
    let folder = Folder::new();
    let file = pinned_file(&body());
    assert!(matches!(folder.fetch(&endpoint, COMMIT, &file), Err(HubError::Unavailable { .. })));
    let path = folder.fetch(&endpoint, COMMIT, &file).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body());
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].1, None);
    assert!(seen[1].1.is_some_and(|from| from > 100_000), "{seen:?}");
}

/// A folder in which these bytes have arrived of the file.
fn arrived(bytes: &[u8], file: &PinnedFile) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.place().join("blobs")).unwrap();
    std::fs::write(folder.partial(file), bytes).unwrap();
    folder
}

#[test]
fn junk_that_had_arrived_is_not_blamed_on_the_next_server() {
    let file = pinned_file(&body());
    for name in ["206", "416"] {
        let (endpoint, seen) = server(move |(_, from)| match (from, name) {
            (None, _) => whole(&body()),
            (Some(from), "206") => rest(*from),
            (Some(_), _) => answer("416 Range Not Satisfiable", "content-length: 0\r\n", b""),
        });
        let folder = arrived(&[7; 1000], &file);
        let path = folder.fetch(&endpoint, COMMIT, &file).unwrap();
        assert_eq!(std::fs::read(path).unwrap(), body(), "{name}");
        let asked: Vec<_> = seen.lock().unwrap().iter().map(|(_, from)| *from).collect();
        assert_eq!(asked, [Some(1000), None], "{name}");
    }
}

#[test]
fn a_server_that_begins_anew_with_other_bytes_is_to_blame() {
    let (endpoint, seen) = server(|_| whole(b"something else"));
    let file = pinned_file(&body());
    let folder = arrived(&body()[..1000], &file);
    assert!(matches!(folder.fetch(&endpoint, COMMIT, &file), Err(HubError::Mismatch { .. })));
    // The answer began anew: nothing of what had arrived was in it, so it was asked once.
    assert_eq!(seen.lock().unwrap().len(), 1);
    assert!(!folder.partial(&file).exists());
}

#[test]
fn a_server_that_begins_anew_is_taken_at_its_word() {
    let (endpoint, seen) = server(|_| whole(&body()));
    let file = pinned_file(&body());
    let folder = arrived(&[7; 1000], &file);
    let path = folder.fetch(&endpoint, COMMIT, &file).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body());
    assert_eq!(seen.lock().unwrap()[0].1, Some(1000));
}

#[test]
fn a_file_that_had_arrived_whole_only_gets_its_name() {
    let (endpoint, _) = server(|_| answer("416 Range Not Satisfiable", "content-length: 0\r\n", b""));
    let file = pinned_file(&body());
    let folder = arrived(&body(), &file);
    let path = folder.fetch(&endpoint, COMMIT, &file).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body());
}

#[test]
fn a_body_without_end_stops_at_the_limit_and_leaves_nothing() {
    let (endpoint, seen) = server(|_| answer("200 OK", "", &vec![7; 3 << 20]));
    let folder = Folder::new();
    let file = pinned_file(&body());
    for _ in 0..2 {
        let error = folder.fetch(&endpoint, COMMIT, &file).unwrap_err().to_string();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
    }
    assert!(seen.lock().unwrap().iter().all(|(_, from)| from.is_none()));
}

#[test]
fn the_hub_client_s_lock_is_respected_and_its_partial_file_left_alone() {
    let (endpoint, seen) = server(|_| whole(&body()));
    let folder = Folder::new();
    let file = pinned_file(&body());
    let locks = folder.cache.hub().join(".locks/models--timm--a-model.in1k");
    std::fs::create_dir_all(&locks).unwrap();
    let lock = std::fs::File::create(locks.join(format!("{}.lock", file.sha256))).unwrap();
    lock.lock().unwrap();
    let theirs = folder.place().join("blobs").join(format!("{}.incomplete", file.sha256));
    std::fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    std::fs::write(&theirs, b"half").unwrap();
    assert!(matches!(folder.fetch(&endpoint, COMMIT, &file), Err(HubError::Busy { .. })));
    assert!(seen.lock().unwrap().is_empty());
    lock.unlock().unwrap();
    folder.fetch(&endpoint, COMMIT, &file).unwrap();
    assert_eq!(seen.lock().unwrap()[0].1, None);
    assert_eq!(std::fs::read(&theirs).unwrap(), b"half");
}

#[test]
fn nothing_is_written_through_a_link() {
    let (endpoint, _) = server(|_| whole(&body()));
    let file = pinned_file(&body());
    let symbolic = |to: &Path, at: &Path| std::os::unix::fs::symlink(to, at).unwrap();
    let hard = |to: &Path, at: &Path| std::fs::hard_link(to, at).unwrap();
    for link in [&symbolic as &dyn Fn(&Path, &Path), &hard] {
        let folder = Folder::new();
        let other = folder.other();
        let snapshot = folder.place().join("snapshots").join(COMMIT).join("model.safetensors");
        for path in [folder.partial(&file), folder.blob(&file), folder.place().join("refs/main"), snapshot] {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            link(&other, &path);
        }
        folder.fetch(&endpoint, "main", &file).unwrap();
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
        assert_eq!(std::fs::read(folder.blob(&file)).unwrap(), body());
        assert_eq!(std::fs::read_to_string(folder.place().join("refs/main")).unwrap(), COMMIT);
    }
    let folder = Folder::new();
    let locks = folder.cache.hub().join(".locks/models--timm--a-model.in1k");
    std::fs::create_dir_all(&locks).unwrap();
    symbolic(&folder.other(), &locks.join(format!("{}.lock", file.sha256)));
    assert!(matches!(folder.fetch(&endpoint, "main", &file), Err(HubError::Io { .. })));
}

#[test]
fn strange_answers_are_errors() {
    let location = |to: &str| answer("302 Found", &format!("location: {to}\r\ncontent-length: 0\r\n"), b"");
    let answers = [
        (location("file:///etc/passwd"), "redirect"),
        (location("/again"), "too many redirects"),
        (answer("404 Not Found", "content-length: 0\r\n", b""), "404"),
        (answer("206 Partial Content", "content-length: 2\r\n", b"hi"), "206"),
        (answer("416 Range Not Satisfiable", "content-length: 0\r\n", b""), "416"),
        (answer("200 OK", "content-length: 2\r\nx-repo-commit: ../../x\r\n", b"hi"), "names no commit"),
    ];
    for (bytes, part) in answers {
        let (endpoint, _) = server(move |_| bytes.clone());
        let error = Folder::new().fetch(&endpoint, "main", &pinned_file(b"hi")).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = Folder::new().fetch("http://127.0.0.1:1", COMMIT, &pinned_file(b"hi")).unwrap_err();
    assert!(matches!(error, HubError::Unavailable { .. }), "{error}");
}
