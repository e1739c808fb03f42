//! Tests of the hub client against a server on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::fetch::Client;
use super::*;
use sha2::{Digest as _, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const REPOSITORY: &str = "timm/a-model.in1k";

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
    _folder: tempfile::TempDir,
    cache: Cache,
}

fn folder() -> Folder {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path().to_owned());
    Folder { _folder: folder, cache }
}

fn fetch(endpoint: &str, cache: &Cache, revision: &str, file: &PinnedFile) -> Result<PathBuf, HubError> {
    Client::new(endpoint).unwrap().file(cache, REPOSITORY, revision, file, 1 << 20, &mut |_, _| {})
}

fn body() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn a_pinned_file_is_fetched_through_redirects_and_found_again_where_the_hub_keeps_it() {
    let (endpoint, seen) = server(|(path, _)| match path.as_str() {
        "/storage" => answer("200 OK", "content-length: 400000\r\n", &body()),
        _ => {
            answer("302 Found", &format!("location: /storage\r\nx-repo-commit: {COMMIT}\r\ncontent-length: 0\r\n"), b"")
        }
    });
    let Folder { _folder, cache } = folder();
    let file = pinned_file(&body());
    assert_eq!(cache.find(REPOSITORY, "main", &file).unwrap(), None);
    let path = fetch(&endpoint, &cache, "main", &file).unwrap();
    let place = cache.root().join("models--timm--a-model.in1k");
    assert_eq!(path, place.join("snapshots").join(COMMIT).join("model.safetensors"));
    assert_eq!(std::fs::read(&path).unwrap(), body());
    assert_eq!(path.canonicalize().unwrap(), place.join("blobs").join(&file.sha256).canonicalize().unwrap());
    assert_eq!(std::fs::read_to_string(place.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(cache.find(REPOSITORY, "main", &file).unwrap().as_ref(), Some(&path));
    assert_eq!(cache.find(REPOSITORY, COMMIT, &file).unwrap().as_ref(), Some(&path));
    assert_eq!(seen.lock().unwrap()[0].0, "/timm/a-model.in1k/resolve/main/model.safetensors");
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[test]
fn other_bytes_are_refused_named_and_deleted() {
    let (endpoint, _) = server(|_| whole(b"something else"));
    let Folder { _folder, cache } = folder();
    let file = pinned_file(&body());
    let error = fetch(&endpoint, &cache, COMMIT, &file).unwrap_err();
    let HubError::Mismatch { found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((found, expected), (&hex(b"something else"), &file.sha256));
    let blobs = cache.root().join("models--timm--a-model.in1k/blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
    assert_eq!(cache.find(REPOSITORY, COMMIT, &file).unwrap(), None);
}

#[test]
fn a_file_that_was_changed_in_the_cache_is_refused() {
    let (endpoint, _) = server(|_| whole(&body()));
    let Folder { _folder, cache } = folder();
    let file = pinned_file(&body());
    let path = fetch(&endpoint, &cache, COMMIT, &file).unwrap();
    std::fs::write(path.canonicalize().unwrap(), b"changed").unwrap();
    assert!(matches!(cache.find(REPOSITORY, COMMIT, &file), Err(HubError::Mismatch { .. })));
}

#[test]
fn what_broke_off_goes_on_where_it_ended() {
    let (endpoint, seen) = server(|(_, from)| match from {
        None => whole(&body())[..150_000].to_vec(),
        Some(from) => {
            let rest = body()[*from..].to_vec();
            answer("206 Partial Content", &format!("content-length: {}\r\n", rest.len()), &rest)
        }
    });
    let Folder { _folder, cache } = folder();
    let file = pinned_file(&body());
    assert!(matches!(fetch(&endpoint, &cache, COMMIT, &file), Err(HubError::Unavailable { .. })));
    let path = fetch(&endpoint, &cache, COMMIT, &file).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), body());
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0].1, None);
    assert!(seen[1].1.is_some_and(|from| from > 100_000), "{seen:?}");
}

#[test]
fn a_body_without_end_stops_at_the_limit() {
    let (endpoint, _) = server(|_| answer("200 OK", "", &vec![7; 3 << 20]));
    let Folder { _folder, cache } = folder();
    let error = fetch(&endpoint, &cache, COMMIT, &pinned_file(&body())).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}

#[test]
fn strange_answers_are_errors() {
    let location = |to: &str| answer("302 Found", &format!("location: {to}\r\ncontent-length: 0\r\n"), b"");
    let answers = [
        (location("file:///etc/passwd"), "redirect"),
        (location("/again"), "too many redirects"),
        (answer("404 Not Found", "content-length: 0\r\n", b""), "404"),
        (answer("200 OK", "content-length: 2\r\nx-repo-commit: ../../x\r\n", b"hi"), "names no commit"),
    ];
    for (bytes, part) in answers {
        let (endpoint, _) = server(move |_| bytes.clone());
        let Folder { _folder, cache } = folder();
        let error = fetch(&endpoint, &cache, "main", &pinned_file(b"hi")).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let Folder { _folder, cache } = folder();
    let error = fetch("http://127.0.0.1:1", &cache, COMMIT, &pinned_file(b"hi")).unwrap_err();
    assert!(matches!(error, HubError::Unavailable { .. }), "{error}");
}

#[test]
fn names_that_are_paths_are_refused() {
    let Folder { _folder, cache } = folder();
    for repository in ["../x", "a/../b", "/etc", "a", "a/b/c", "a/", ".a/b"] {
        assert!(cache.repository(repository).is_err(), "{repository}");
    }
    for name in ["../model", "", ".hidden", "a/b"] {
        let file = PinnedFile { name: name.into(), sha256: hex(b"") };
        assert!(super::cache::file_name(&file).is_err(), "{name}");
    }
}

#[test]
fn models_without_a_pin_or_of_another_library_say_what_to_do() {
    let Folder { _folder, cache } = folder();
    let told = |name: &str| pulled(crate::zoo::find(name).unwrap(), None, &cache).unwrap_err().to_string();
    assert!(told("test_vit.r160_in1k").contains("--sha256"));
    assert!(told("efficientnet_v2_l.imagenet1k_v1").contains("torchvision_weights.py"));
    assert!(told("swin_tiny_patch4_window7_224.ms_in1k").contains("perturb model pull"));
}
