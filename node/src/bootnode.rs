//! `perturb bootnode`: a rendezvous point and nothing else.

use std::sync::Arc;

use color_eyre::eyre::Result;
use perturb_p2p as p2p;
use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::role::{self, Role};

/// Runs until a signal.
///
/// # Errors
/// A file that cannot be read, or an address that cannot be listened on.
pub async fn run(config: Config) -> Result<()> {
    let role = Role::prepare(&config)?;
    let stop = role::stop_on_signal()?;
    let mut net = role.network(&config, p2p::Role::Bootnode, None, Arc::new(p2p::AllowAll))?;
    net.known_peers.clear();
    let (network, mut events) = role::join(net).await?;
    let ready = Arc::new(|| Ok(()));
    crate::http::start(config.http_listen, ready, Registry::default(), stop.clone()).await?;
    for addr in role::announce(&network, &config) {
        println!("listening {addr}");
    }
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv() => match event {
                None => break,
                Some(p2p::NetworkEvent::PeerUp(peer)) => {
                    tracing::info!(peer = %peer.peer_id, role = ?peer.role, "registered peer connected");
                }
                Some(other) => tracing::debug!(?other, "network"),
            },
        }
    }
    network.shutdown().await;
    Ok(())
}
