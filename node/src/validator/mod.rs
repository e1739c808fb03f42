//! `perturb validator`: consensus, rounds, weights, and what it tells about itself.

pub mod agreed;
pub mod anchors;
pub mod challenges;
pub mod checks;
pub mod driver;
pub mod equivocate;
pub mod errands;
pub mod evidence;
pub mod exchange;
pub mod faults;
pub mod lots;
pub mod membership;
pub mod optimistic;
pub mod pending;
pub mod pulses;
pub mod restore;
pub mod rounds;
pub mod rpc;
pub mod snapshots;
pub mod stuck;
#[cfg(test)]
pub(crate) mod tests;
pub mod view;
pub mod weights;

use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_chain::submitter::{Submissions, Submitter};
use perturb_chain::view::ChainView;
use perturb_chain::{Anchorer, Anchors, BlockHash, ChainClient, ChainOptions, FileStore};
use perturb_consensus::{Event, Machine};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::{ChainReference, Ledger};
use perturb_miner::drill::errands::Errands;
use perturb_p2p::{self as p2p, Decline, NetworkEvent, NetworkHandle, Protocol};
use perturb_storage::{Database, SigningGuard};
use perturb_types::{ConsensusPair, Digest, NetworkId, encode};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::keys::{Keyring, Signer};
use crate::metagraph::Metagraph;
use crate::outside::Outside;
use crate::role::{self, Role};
use crate::{http, keys, metrics};
use agreed::Agreed;
use challenges::Shared;
use driver::{Driver, DriverHandle, Input, peer_name};
use equivocate::Equivocator;
use evidence::Evidence;
use faults::Faults;
use membership::Member;
use rounds::Counters;
use snapshots::Superseded;
use snapshots::fetch::Fetcher;
use snapshots::peers::Connected;
use snapshots::shelf::Shelf;
use view::NodeView;

/// Vectors that wait for the submitter: one per mechanism.
const VECTOR_QUEUE: usize = 16;

/// Time between two storings of the known peers.
const REMEMBER_PEERS: Duration = Duration::from_secs(30);

/// How long the parts may take to end once one of them has.
const SETTLE: Duration = Duration::from_secs(5);

/// How long they may take to end when the node does: one in the midst of a computation is left behind.
const GRACE: Duration = Duration::from_secs(10);

/// Runs until a signal, or until the node must not go on. Where its state is wrong it sets that aside
/// and begins again from the others'.
///
/// # Errors
/// Configuration, keys, disk, an address in use; or why consensus stopped this node.
pub async fn run(config: Config) -> Result<()> {
    let data_dir = config.data_dir.clone();
    match serve(config).await {
        Err(error) if error.is::<Superseded>() => {
            tracing::info!("{error}");
            let cause = restore::start_again(&[]);
            Err(eyre!("a snapshot waits in {}; start the node again: {cause}", data_dir.display()))
        }
        Err(error) => Err(match restore::wrong_state(&error) {
            Some(why) => restore::begin_anew(&data_dir, &why),
            None => error,
        }),
        ended => ended,
    }
}

async fn serve(config: Config) -> Result<()> {
    let role = Role::prepare(&config)?;
    let hotkey = role.hotkey(&config)?;
    let me = hotkey.hotkey();
    let keyring = Arc::new(Keyring::open(&config.data_dir)?);
    perturb_model::set_threads(usize::from(config.torch_threads));

    let database = Database::open(&config.data_dir, &role.network, config.storage())?;
    if database.height()?.is_none() {
        database.commit(&genesis_commit(&role.genesis)?)?;
    }
    let guards: Vec<SigningGuard> =
        keyring.iter().map(|pair| SigningGuard::open(&database, pair.public())).collect::<Result<_, _>>()?;
    let signer = Signer::new(keyring.clone(), me, database.clone());
    let pair = signer.pair()?;
    let ledger = Ledger::new(role.genesis.clone(), database.clone())?;

    let stop = role::stop_on_signal()?;
    let expected = BlockHash(role.genesis.chain_genesis.0);
    let options =
        ChainOptions { expected_genesis: Some(expected), beacon: config.beacon()?, ..ChainOptions::default() };
    let client = ChainClient::new(&config.subtensor_endpoints, options)?;
    let (netuid, min_stake_rao) = (role.genesis.netuid, role.genesis.min_stake_rao());
    let metagraph = Metagraph::follow(client.clone(), netuid, min_stake_rao, Some(database.clone()), stop.clone());

    let mut net = role.network(&config, p2p::Role::Validator, Some(hotkey.clone()), metagraph.clone())?;
    net.known_peers = known_peers(&database)?;
    let (network, events) = role::join(net).await?;
    let machine_config = perturb_consensus::Config {
        pair: pair.clone(),
        peer: peer_name(&network.peer_id()),
        startup_grace_ms: perturb_consensus::STARTUP_GRACE_MS,
        planted: perturb_consensus::Planted::Nothing,
    };
    let spare = keyring.iter().zip(&guards).filter(|(other, _)| other.public() != pair.public());
    let spare = spare.map(|(other, guard)| (other.clone(), driver::last_mark(guard)));
    let machine = Machine::new(machine_config, ledger)?.with_spare_keys(me, spare);
    let faults = Arc::new(Faults::default());
    let disk = driver::Disk { database: database.clone(), guards };
    let (driver, handle) = Driver::new(machine, disk, metagraph.clone(), network.clone(), faults.clone());

    let (equivocator, errands) = drills(&config, &pair, role.network)?;
    let driver = driver.equivocating(equivocator);
    let agreed = Arc::new(Agreed::new(database.clone(), role.genesis.clone()));
    let counters = Arc::new(Counters::default());
    let (submissions_tx, submissions) = watch::channel(Submissions::default());
    let (anchors_tx, anchored) = watch::channel(Anchors::default());
    let view = Arc::new(NodeView {
        id: role.network,
        me,
        signer: signer.clone(),
        agreed: agreed.clone(),
        network: network.clone(),
        metagraph: metagraph.clone(),
        machine: handle.status(),
        submissions: submissions.clone(),
        anchors: anchored.clone(),
        counters: counters.clone(),
        driver: handle.clone(),
    });
    let ready = view.clone();
    let mut registry = Registry::with_prefix("perturb");
    metrics::register(&mut registry, view.clone());
    faults.register(&mut registry);
    http::start(config.http_listen, Arc::new(move || ready.ready()), registry, stop.clone()).await?;
    let rpc = rpc::start(config.rpc_listen, view).await?;
    tracing::info!(hotkey = %me, network = %role.network, peer = %network.peer_id(), "validator started");

    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let shelf = Arc::new(Shelf::open(database.clone(), config.data_dir.join("snapshots"))?);
    tasks.spawn(pump(events, handle.clone(), database.clone(), shelf.clone(), stop.clone()));
    tasks.spawn(snapshots::keep(shelf, config.retention(), handle.status(), stop.clone()));
    let peers = Arc::new(Connected { network: network.clone(), faults });
    let fetcher = Fetcher::new(peers, database.clone(), role.genesis.clone(), config.snapshot_after_blocks);
    tasks.spawn(snapshots::follow(fetcher, handle.status(), stop.clone()));
    tasks.spawn(follow_chain(metagraph.view(), handle.clone(), stop.clone()));
    let evidence = Evidence::new(database.clone(), me);
    tasks.spawn(evidence.clone().keep(stop.clone()));
    let shared = Shared {
        id: role.network,
        me,
        signer: signer.clone(),
        agreed: agreed.clone(),
        evidence,
        network: network.clone(),
        driver: handle.clone(),
        counters: counters.clone(),
        outside: Outside::new(&config)?,
        errands,
    };
    tasks.spawn(challenges::run(shared, stop.clone()));
    tasks.spawn(pending::run(database.clone(), me, signer.clone(), role.network, handle.clone(), stop.clone()));
    let delegation = keys::delegation::waiting(&config.data_dir);
    let member = Member { agreed: agreed.clone(), hotkey: hotkey.clone(), signer, delegation };
    tasks.spawn(membership::run(member, handle.clone(), stop.clone()));
    tasks.spawn(remember_peers(database, network.clone(), stop.clone()));
    tasks.spawn(pulses::run(agreed.clone(), me, client.clone(), handle.clone(), stop.clone()));
    let (vectors, queue) = mpsc::channel(VECTOR_QUEUE);
    tasks.spawn(weights::run(agreed.clone(), me, client.clone(), handle.status(), vectors, stop.clone()));
    let (due, to_anchor) = mpsc::channel(anchors::QUEUE);
    let policy = anchors::Policy { how: config.anchor, every: config.anchor_every_epochs };
    let anchoring = anchors::run(agreed, me, policy, handle.status(), anchored, due);
    let anchorer = Anchorer::open(client.clone(), config.data_dir.join("anchors"), hotkey.clone())?;
    let anchorer = anchorer.run(to_anchor, metagraph.view(), submissions, anchors_tx);
    let stopped = stop.clone();
    tasks.spawn(async move {
        let both = async { tokio::try_join!(anchoring, async { anchorer.await.wrap_err("anchors") }) };
        tokio::select! {
            biased;
            () = stopped.cancelled() => return Ok(()),
            outcome = both => drop(outcome?),
        }
        // Without a policy there is soon nothing left to do, which is no reason for the node to end.
        stopped.cancelled().await;
        Ok(())
    });
    let store = Arc::new(FileStore::open(config.data_dir.join("weights"))?);
    let submitter = Submitter::new(client, store, hotkey);
    let chain_view = metagraph.view();
    let stopped = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            outcome = submitter.run(queue, chain_view, submissions_tx) => Ok(outcome?),
            () = stopped.cancelled() => Ok(()),
        }
    });
    let driver_stop = stop.clone();
    tasks.spawn(async move { Ok(driver.run(driver_stop).await?) });

    // The first task that ends takes the node with it: none of them ends before `stop` by itself.
    let first = tasks.join_next().await;
    let asked = stop.is_cancelled();
    stop.cancel();
    let outcome = why_it_ended(first, &mut tasks, asked).await;
    network.shutdown().await;
    let _ = rpc.stop();
    // Somebody may be waiting for an image server or a language model on a thread of its own.
    if tokio::time::timeout(GRACE, tasks.shutdown()).await.is_err() {
        tracing::warn!("a part of the node did not end in time and is left behind");
    }
    outcome
}

/// Misbehaviour on purpose, for local networks.
fn drills(config: &Config, pair: &ConsensusPair, network: NetworkId) -> Result<(Option<Equivocator>, Option<Errands>)> {
    let (mut equivocator, mut errands) = (None, None);
    for drill in config.drill.iter().flat_map(|drills| drills.split(',')) {
        if !config.dev_loopback {
            bail!("--drill {drill} is for local networks: it needs --dev-loopback");
        }
        match drill {
            "equivocate" => {
                tracing::warn!("a drill: this validator contradicts each of its votes, and will be caught");
                equivocator = Some(Equivocator { pair: pair.clone(), network });
            }
            "errands" => errands = Some(crate::miner::errands(config)?),
            other => bail!("unknown drill `{other}`: a validator knows `equivocate` and `errands`"),
        }
    }
    Ok((equivocator, errands))
}

/// The failure that ended the node. A part that fails takes others with it, which then end without
/// a complaint and may be seen first: so all are asked, unless the end was asked for.
async fn why_it_ended(
    first: Option<Result<Result<()>, tokio::task::JoinError>>,
    tasks: &mut JoinSet<Result<()>>,
    asked: bool,
) -> Result<()> {
    let mut ended = first;
    while let Some(part) = ended {
        part.unwrap_or_else(|e| Err(eyre!("a part of the node ended unexpectedly: {e}")))?;
        if asked {
            return Ok(());
        }
        ended = tokio::time::timeout(SETTLE, tasks.join_next()).await.ok().flatten();
    }
    Err(eyre!("a part of the node ended by itself"))
}

/// From the network to the machine and the services.
async fn pump(
    mut events: mpsc::Receiver<NetworkEvent>,
    driver: DriverHandle,
    database: Database,
    shelf: Arc<Shelf>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            event = events.recv() => event,
        };
        match event {
            None if stop.is_cancelled() => return Ok(()),
            None => bail!("the network has stopped"),
            Some(NetworkEvent::Gossip(g)) => driver.send(Input::Gossip(g)).await,
            Some(NetworkEvent::Request(r)) => match r.protocol {
                Protocol::Sync => driver.send(Input::Request(r)).await,
                Protocol::Snapshot => snapshots::serve(&shelf, r),
                Protocol::Blob => serve_blob(&database, r),
                Protocol::Challenge | Protocol::Handshake => r.reply.decline(Decline::NotAuthorised),
            },
            Some(NetworkEvent::PeerUp(peer)) => {
                tracing::info!(peer = %peer.peer_id, role = ?peer.role, "connected");
            }
            Some(NetworkEvent::PeerDown { peer, why }) => {
                tracing::info!(peer = %peer.peer_id, role = ?peer.role, %why, "disconnected");
                driver.send(Input::Event(Event::PeerGone(peer_name(&peer.peer_id)))).await;
            }
            Some(NetworkEvent::Refused { peer_id, refusal, .. }) => {
                tracing::warn!(peer = %peer_id, %refusal, "refused");
            }
            Some(NetworkEvent::Listening(addr)) => tracing::info!(%addr, "listening"),
        }
    }
}

/// An image by digest, for validators: the request is the 32 bytes of the digest.
fn serve_blob(database: &Database, request: p2p::Request) {
    let Ok(digest) = <[u8; 32]>::try_from(request.data.as_slice()) else {
        return request.reply.decline(Decline::Malformed);
    };
    match database.blob(&Digest(digest)) {
        Ok(Some(png)) => request.reply.answer(png),
        Ok(None) => request.reply.decline(Decline::NotFound),
        Err(error) => {
            tracing::error!(%error, "an image cannot be read");
            request.reply.decline(Decline::Internal);
        }
    }
}

async fn follow_chain(
    mut view: watch::Receiver<ChainView>,
    driver: DriverHandle,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let tip = *view.borrow_and_update();
        if tip.connected && tip.number > 0 {
            let hash = Digest(tip.hash.0);
            let reference = ChainReference { number: tip.number, hash, epoch_index: tip.epoch_index };
            driver.send(Input::Event(Event::ChainTip(reference))).await;
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = view.changed() => changed.wrap_err("the view of the chain has ended")?,
        }
    }
}

fn known_peers(database: &Database) -> Result<Vec<p2p::Multiaddr>> {
    let stored: Vec<String> = database.row("known-peers")?.unwrap_or_default();
    Ok(stored.iter().filter_map(|a| a.parse().ok()).collect())
}

/// Remembers the address book, so that a restart finds the others while the bootnode is away.
async fn remember_peers(database: Database, network: NetworkHandle, stop: CancellationToken) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REMEMBER_PEERS) => {}
        }
        if let Ok(known) = network.known_peers().await {
            let text: Vec<String> = known.iter().map(ToString::to_string).collect();
            database.put_row("known-peers", &text)?;
        }
    }
}

/// The bytes of an own transaction.
pub(crate) fn bytes_of(transaction: &perturb_ledger::Transaction) -> Vec<u8> {
    encode::encode(transaction)
}
