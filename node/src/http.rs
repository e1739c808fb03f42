//! `/livez`, `/readyz`, `/metrics`.
//!
//! - `livez`: the process answers.
//! - `readyz`: it does its job (caught up and connected); 503 with the reason where it does not.
//! - `metrics`: OpenMetrics text.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, serve};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Says whether the process does its job.
pub type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot listen on {addr}: {source}; is another process there? choose another with {flag}")]
pub struct ListenError {
    /// The server.
    pub what: &'static str,
    /// The address.
    pub addr: SocketAddr,
    /// The flag that changes it.
    pub flag: &'static str,
    /// The system's word.
    pub source: std::io::Error,
}

struct Shared {
    ready: Ready,
    registry: Mutex<Registry>,
}

async fn readyz(State(s): State<Arc<Shared>>) -> impl IntoResponse {
    match (s.ready)() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

async fn metrics(State(s): State<Arc<Shared>>) -> impl IntoResponse {
    let mut text = String::new();
    let registry = s.registry.lock().unwrap_or_else(PoisonError::into_inner);
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// Starts the server; it ends with `stop`.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(
    addr: SocketAddr,
    ready: Ready,
    registry: Registry,
    stop: CancellationToken,
) -> Result<SocketAddr, ListenError> {
    let fail = |source| ListenError { what: "health and metrics", addr, flag: "--http-listen", source };
    let listener = TcpListener::bind(addr).await.map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let shared = Arc::new(Shared { ready, registry: Mutex::new(registry) });
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared);
    tokio::spawn(async move {
        if let Err(error) = serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::warn!(%error, "health and metrics ended");
        }
    });
    Ok(bound)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(addr: SocketAddr, path: &str) -> String {
        let mut s = tokio::net::TcpStream::connect(addr).await.unwrap();
        s.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut out = String::new();
        s.read_to_string(&mut out).await.unwrap();
        out
    }

    #[tokio::test]
    async fn health_says_why_not_and_a_taken_port_is_named() {
        let stop = CancellationToken::new();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let ready: Ready = Arc::new(|| Err("fetching blocks".into()));
        let addr = start(any, ready.clone(), Registry::default(), stop.clone()).await.unwrap();
        assert!(get(addr, "/livez").await.starts_with("HTTP/1.1 200"));
        let not = get(addr, "/readyz").await;
        assert!(not.starts_with("HTTP/1.1 503") && not.contains("fetching blocks"), "{not}");
        assert!(get(addr, "/metrics").await.contains("# EOF"));
        let e = start(addr, ready, Registry::default(), stop.clone()).await.unwrap_err();
        assert!(e.to_string().contains("--http-listen"), "{e}");
        stop.cancel();
    }
}
