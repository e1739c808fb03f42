//! Servers on this machine: JSON-RPC over plain HTTP, and whatever a hostile one sends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use perturb_ledger::MemoryStore;
use perturb_ledger::serve::answer;
use serde_json::{Value, json};

/// A server that hands every connection to `handle`; it ends with the test's process.
pub fn raw(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || handle(stream));
        }
    });
    url
}

/// The body of one request.
pub fn request(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(n) = line.strip_prefix("content-length:") {
            length = n.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

pub fn respond(mut stream: &TcpStream, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// A server of methods: a value, or a JSON-RPC error's code and message.
pub fn methods(answer: impl Fn(&str, &Value) -> Result<Value, (i32, String)> + Send + Sync + 'static) -> String {
    raw(move |stream| {
        let Some(body) = request(&stream) else { return };
        let request: Value = serde_json::from_slice(&body).unwrap();
        let reply = match answer(request["method"].as_str().unwrap(), &request["params"]) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": message } })
            }
        };
        respond(&stream, reply.to_string().as_bytes());
    })
}

/// A node that serves an archive.
pub fn node(store: MemoryStore) -> String {
    methods(move |method, params| answer(&store, method, params).map_err(|e| (e.code(), e.to_string())))
}
