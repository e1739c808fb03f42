//! Failing on purpose, so that a client's behaviour in trouble can be tried.
//!
//! Connections reach the JSON-RPC server through a pipe of ours, which can hold bytes back and cut the line.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Longest delay and longest cut: an hour.
pub(crate) const MAX_FAULT_MS: u64 = 3_600_000;

/// Bytes taken from a connection at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// Which faults are on. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Refuse every transaction.
    pub refuse_extrinsics: bool,
    /// Hold back everything that arrives for this long (ms).
    pub delay_ms: u64,
    /// Cut all connections now, and refuse new ones for this long (ms).
    pub drop_connections_ms: u64,
    /// Make no blocks.
    pub stop_blocks: bool,
}

/// The switch for [`Fault`]s.
pub(crate) struct Faults {
    current: watch::Sender<Fault>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { current: watch::Sender::new(Fault::default()) }
    }
}

impl Faults {
    /// What is on.
    pub(crate) fn current(&self) -> Fault {
        *self.current.borrow()
    }

    /// Switch to these faults and no others.
    pub(crate) fn set(&self, fault: Fault) {
        self.current.send_replace(fault);
    }

    /// Let connections in again.
    fn end_cut(&self) {
        self.current.send_modify(|fault| fault.drop_connections_ms = 0);
    }

    /// Wait until connections are to be cut, and return for how long.
    pub(crate) async fn cut(&self) -> Duration {
        let mut current = self.current.subscribe();
        let length = current.wait_for(|fault| fault.drop_connections_ms > 0).await.map(|f| f.drop_connections_ms);
        match length {
            Ok(length) => Duration::from_millis(length.min(MAX_FAULT_MS)),
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// End every cut after its time.
    pub(crate) async fn heal(&self) {
        loop {
            let cut = self.cut().await;
            tokio::time::sleep(cut).await;
            self.end_cut();
        }
    }

    /// Carry bytes between a connection and the server until either ends or the line is cut.
    pub(crate) async fn pipe(&self, outside: TcpStream, inside: DuplexStream) {
        let (outside_read, outside_write) = outside.into_split();
        let (inside_read, inside_write) = tokio::io::split(inside);
        tokio::select! {
            _ = self.carry(outside_read, inside_write, true) => {}
            _ = self.carry(inside_read, outside_write, false) => {}
            _ = self.cut() => {}
        }
    }

    async fn carry(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        delayed: bool,
    ) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = from.read(&mut chunk).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            let delay = self.current().delay_ms.min(MAX_FAULT_MS);
            if delayed && delay > 0 {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            to.write_all(&chunk[..count]).await?;
            to.flush().await?;
        }
    }
}
