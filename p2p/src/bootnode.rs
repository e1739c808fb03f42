//! A bootnode: the same network with [`Role::Bootnode`], and somebody who takes its events.

use std::future::Future;

use crate::config::{Config, Role};
use crate::events::NetworkEvent;
use crate::protocols::Decline;
use crate::swarm::{NetError, Network};

/// Runs a bootnode until `stop` resolves. The configuration's role is set to
/// [`Role::Bootnode`]; `started` gets the handle once it listens.
///
/// # Errors
/// It cannot start: see [`NetError`].
pub async fn run(
    mut config: Config,
    started: impl FnOnce(crate::NetworkHandle),
    stop: impl Future<Output = ()>,
) -> Result<(), NetError> {
    config.role = Role::Bootnode;
    let (handle, mut events) = Network::start(config).await?;
    started(handle.clone());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            event = events.recv() => match event {
                Some(NetworkEvent::Request(request)) => request.reply.decline(Decline::NotAuthorised),
                Some(_) => {}
                None => return Ok(()),
            },
        }
    }
    handle.shutdown().await;
    Ok(())
}
