//! What every role starts with: folder, genesis, keys, network configuration, signals.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::file;
use perturb_ledger::Genesis;
use perturb_p2p as p2p;
use perturb_types::{HotkeyPair, NetworkId};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::keys;

/// Bytes of a genesis file that are read: a full subnet's snapshot in JSON is far below.
const MAX_GENESIS_BYTES: u64 = 16 * 1024 * 1024;

/// A role's ground: the genesis file and the network it names.
pub struct Role {
    /// The genesis file.
    pub genesis: Genesis,
    /// The network.
    pub network: NetworkId,
}

/// Reads a genesis file.
///
/// # Errors
/// It cannot be read, or is not a valid genesis file.
pub fn read_genesis(path: &Path) -> Result<Genesis> {
    let named = || format!("genesis file {}", path.display());
    let bytes = file::read(path, MAX_GENESIS_BYTES).wrap_err_with(named)?;
    Genesis::load(&bytes).wrap_err_with(named)
}

impl Role {
    /// Makes the data folder and reads the genesis file.
    ///
    /// # Errors
    /// Folder or file, a subnet that is not the configured one, or the development beacon where it must not be.
    pub fn prepare(config: &Config) -> Result<Self> {
        std::fs::create_dir_all(&config.data_dir)
            .wrap_err_with(|| format!("data folder {}", config.data_dir.display()))?;
        let genesis = read_genesis(&config.genesis)?;
        if let Some(netuid) = config.netuid
            && netuid != genesis.netuid
        {
            bail!(
                "NETUID is {netuid}, but the genesis file {} is of subnet {}",
                config.genesis.display(),
                genesis.netuid
            );
        }
        check_beacon(&genesis, config.development)?;
        let network = genesis.network_id();
        Ok(Self { genesis, network })
    }

    /// The hotkey of this process.
    ///
    /// # Errors
    /// No secret, or one that cannot be used.
    pub fn hotkey(&self, config: &Config) -> Result<HotkeyPair> {
        Ok(keys::hotkey(config)?)
    }

    /// The network configuration of a role.
    ///
    /// # Errors
    /// A key file or an address that cannot be used.
    pub fn network(
        &self,
        config: &Config,
        role: p2p::Role,
        hotkey: Option<HotkeyPair>,
        authority: Arc<dyn p2p::Authority>,
    ) -> Result<p2p::Config> {
        let key = p2p::NetworkKey::from_seed(*keys::network(&config.data_dir)?);
        let mut net = p2p::Config::new(key, self.network, role, authority);
        net.hotkey = hotkey;
        net.dev_loopback = config.dev_loopback;
        if role != p2p::Role::Miner {
            net.listen = listen(config.p2p_listen)?;
        }
        net.bootnodes = config
            .bootnodes
            .iter()
            .map(|b| b.parse().map_err(|e| eyre!("bootnode `{b}` is no multiaddress: {e}")))
            .collect::<Result<_>>()?;
        Ok(net)
    }
}

/// The genesis of Bittensor's main chain, *finney*, as Polkadot.js' registry of networks and the SDK have it.
const FINNEY: &str = "2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03";

/// The genesis of its public test chain, as `wss://test.finney.opentensor.ai` answers.
const FINNEY_TEST: &str = "8f9cf856bf558a14440e75569c9e58594757048d7b3a84b5d25f6bd978263105";

/// Refuses the development beacon on a public chain, and elsewhere unless the operator asks for it: whose
/// rounds are checked would be known to everybody beforehand.
fn check_beacon(genesis: &Genesis, development: bool) -> Result<()> {
    if !genesis.beacon.is_development() {
        return Ok(());
    }
    let chain = genesis.chain_genesis.to_string();
    if [FINNEY, FINNEY_TEST].contains(&chain.as_str()) {
        bail!("the genesis file names the development beacon, whose secret is known, on a public chain ({chain})");
    }
    if !development {
        bail!("the genesis file names the development beacon, whose secret is known: say --development to take part");
    }
    Ok(())
}

fn listen(addr: SocketAddr) -> Result<Vec<p2p::Multiaddr>> {
    let ip = match addr {
        SocketAddr::V4(a) => format!("/ip4/{}", a.ip()),
        SocketAddr::V6(a) => format!("/ip6/{}", a.ip()),
    };
    let port = addr.port();
    [format!("{ip}/tcp/{port}"), format!("{ip}/udp/{port}/quic-v1")]
        .iter()
        .map(|t| t.parse().map_err(|e| eyre!("address `{t}`: {e}")))
        .collect()
}

/// The addresses a bootnode prints for others to use.
pub fn announce(network: &p2p::NetworkHandle, config: &Config) -> Vec<String> {
    let id = network.peer_id();
    listen(config.p2p_listen)
        .map(|list| list.into_iter().map(|a| format!("{a}/p2p/{id}")).collect())
        .unwrap_or_default()
}

/// A token that SIGINT or SIGTERM cancels.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn stop_on_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut int, mut term) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(stop)
}

/// Starts the network.
///
/// # Errors
/// An address that cannot be listened on (with the option that changes it), or anything else of
/// [`p2p::NetError`].
pub async fn join(net: p2p::Config) -> Result<(p2p::NetworkHandle, tokio::sync::mpsc::Receiver<p2p::NetworkEvent>)> {
    p2p::Network::start(net).await.map_err(|error| match error {
        p2p::NetError::Listen { .. } => eyre!("{error} Choose another address with --p2p-listen"),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use perturb_challenge::rules::Rules;
    use perturb_types::Beacon;

    use super::*;
    use crate::localnet::plan::Plan;

    #[test]
    fn the_development_beacon_needs_the_operators_word_and_is_never_taken_on_a_public_chain() {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { rules: Rules::subnet(), ..Plan::new(dir.path(), 7, 1, 0, 1).unwrap() };
        let mut genesis = crate::validator::tests::world::genesis(&plan);
        assert!(check_beacon(&genesis, false).is_err());
        check_beacon(&genesis, true).unwrap();
        for public in [FINNEY, FINNEY_TEST] {
            genesis.chain_genesis = public.parse().unwrap();
            genesis.beacon = Beacon::DEVELOPMENT;
            assert!(check_beacon(&genesis, true).is_err(), "{public}");
            genesis.beacon = Beacon::QUICKNET;
            check_beacon(&genesis, false).unwrap();
        }
    }
}
