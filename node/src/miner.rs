//! `perturb miner`: finds validators through a bootnode and answers their challenges.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use color_eyre::eyre::{Result, WrapErr as _, bail, eyre};
use perturb_chain::ChainClient;
use perturb_chain::options::ChainOptions;
use perturb_ledger::Genesis;
use perturb_miner::drill::Drill;
use perturb_miner::drill::errands::Errands;
use perturb_miner::service::Loaded;
use perturb_miner::tensor::TensorModel;
use perturb_miner::turns::Waits;
use perturb_miner::{Follower, Service, attack};
use perturb_model::Differentiable;
use perturb_p2p::{self as p2p, Decline, NetworkEvent, Protocol};
use perturb_types::Hotkey;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::config::Config;
use crate::metagraph::Metagraph;
use crate::role::{self, Role};

/// Requests answered at once; more are declined. Whose turn it is at the model is the service's word:
/// this bounds threads alone.
const MAX_REQUESTS: usize = 256;

/// Requests of one validator answered at once: its part of the threads.
const MAX_PER_VALIDATOR: usize = 4;

/// The file of the data folder with the newest known set.
const SETS: &str = "validator-set";

/// The folder that a miner and a validator of one owner share in a drill.
///
/// # Errors
/// None is named, or the disk.
pub(crate) fn errands(config: &Config) -> Result<Errands> {
    let dir = config.drill_dir.as_ref().ok_or_else(|| eyre!("errands need a folder: --drill-dir"))?;
    Errands::open(dir).wrap_err_with(|| dir.display().to_string())
}

fn drill(config: &Config) -> Result<Drill> {
    Ok(match config.drill.as_deref() {
        None => Drill::honest(),
        Some("garbage") => Drill::garbage(),
        Some("slow") => Drill::slow(Duration::from_millis(config.drill_delay_ms)),
        Some("padding") => Drill::padding(),
        Some("ties") => Drill::ties(),
        Some("errands") => Drill::errands(errands(config)?),
        Some(other) => bail!("unknown drill `{other}`: `garbage`, `slow`, `padding`, `ties` or `errands`"),
    })
}

/// The models of the genesis file's challenges, with exactly the agreed weights, and those of the
/// configuration.
fn models(config: &Config, genesis: &Genesis) -> Result<Vec<Loaded>> {
    let device = config.device()?;
    let agreed = genesis.challenges.iter().map(|c| (c.model.as_str(), Some(c.model_digest.0)));
    let named = config.models.iter().map(|name| (name.as_str(), None));
    let mut models: Vec<Loaded> = Vec::new();
    for (name, digest) in agreed.chain(named) {
        if models.iter().any(|m| m.name == name && digest.is_none_or(|d| d == m.digest.0)) {
            continue;
        }
        let classifier: Arc<dyn Differentiable> = Arc::from(perturb_model::open(name, digest, device)?);
        let digest = classifier.digest();
        models.push(Loaded { name: name.to_owned(), digest, model: Box::new(TensorModel::new(classifier)) });
    }
    Ok(models)
}

/// Runs until a signal.
///
/// # Errors
/// Configuration, keys, model, or an address that cannot be listened on.
pub async fn run(config: Config) -> Result<()> {
    let role = Role::prepare(&config)?;
    let pair = role.hotkey(&config)?;
    let Some(attack) = attack::by_name(&config.attack, &attack::Options::default()) else {
        bail!("unknown attack `{}`: one of {}", config.attack, attack::NAMES.join(", "));
    };
    perturb_model::set_threads(usize::from(config.torch_threads));
    let models = models(&config, &role.genesis)?;

    let stop = role::stop_on_signal()?;
    let hotkey = pair.hotkey();
    let client = ChainClient::new(&config.subtensor_endpoints, ChainOptions::default())?;
    let (netuid, min_stake_rao) = (role.genesis.netuid, role.genesis.min_stake_rao());
    let metagraph = Metagraph::follow(client, netuid, min_stake_rao, None, stop.clone());
    let net = role.network(&config, p2p::Role::Miner, Some(pair.clone()), metagraph)?;
    let (network, mut events) = role::join(net).await?;
    let sets = Follower::open(&role.genesis, Some(config.data_dir.join(SETS)))?;
    let service = Arc::new(Service::new(pair, attack, models, drill(&config)?, sets, unix_ms));

    let validators = Arc::new(AtomicU64::new(0));
    let seen = validators.clone();
    let ready = Arc::new(move || match seen.load(Ordering::Relaxed) {
        0 => Err("no validator is connected".to_owned()),
        _ => Ok(()),
    });
    let mut registry = Registry::with_prefix("perturb");
    registry.register("info", "Version of the program", ConstGauge::new(1u64));
    crate::http::start(config.http_listen, ready, registry, stop.clone()).await?;
    tracing::info!(%hotkey, attack = %config.attack, "miner started");

    let slots = Slots::default();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv() => event,
        };
        match event {
            None => break,
            Some(NetworkEvent::Request(request)) => answer(&service, &slots, request),
            Some(NetworkEvent::PeerUp(peer)) => {
                tracing::info!(peer = %peer.peer_id, role = ?peer.role, "connected");
                validators.store(count(&network), Ordering::Relaxed);
            }
            Some(NetworkEvent::PeerDown { peer, why }) => {
                tracing::info!(peer = %peer.peer_id, %why, "disconnected");
                validators.store(count(&network), Ordering::Relaxed);
            }
            Some(NetworkEvent::Refused { peer_id, refusal, .. }) => {
                tracing::warn!(peer = %peer_id, %refusal, "refused");
            }
            Some(_) => {}
        }
    }
    network.shutdown().await;
    let counts = service.counts();
    tracing::info!(counts.answered, counts.declined, "miner stopped");
    Ok(())
}

fn count(network: &p2p::NetworkHandle) -> u64 {
    network.peers().iter().filter(|p| p.role == p2p::Role::Validator).count() as u64
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// Who is being answered, and how often at once.
#[derive(Clone, Default)]
struct Slots(Arc<Mutex<HashMap<Hotkey, usize>>>);

/// A place among those who are answered, until it is dropped.
struct Slot(Slots, Hotkey);

impl Slots {
    fn take(&self, validator: Hotkey) -> Option<Slot> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(&validator).copied().unwrap_or(0);
        if own >= MAX_PER_VALIDATOR || held.values().sum::<usize>() >= MAX_REQUESTS {
            return None;
        }
        held.insert(validator, own + 1);
        Some(Slot(self.clone(), validator))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.1) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(held.remove(&self.1)),
        }
    }
}

fn answer(service: &Arc<Service>, slots: &Slots, request: p2p::Request) {
    let (Protocol::Challenge, Some(validator)) = (request.protocol, request.peer.hotkey) else {
        return request.reply.decline(Decline::NotAuthorised);
    };
    let Some(slot) = slots.take(validator) else {
        return request.reply.decline(Decline::Busy);
    };
    let service = service.clone();
    // The attack computes: it belongs on a blocking thread, not on the runtime's.
    tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let reply = Arc::new(request.reply);
        let asker = reply.clone();
        let waits: Waits = Arc::new(move || asker.is_open());
        let answered = service.answer(&validator, &request.data, &waits);
        if answered.is_none() {
            // A drill's silence: hold the reply back until the validator gives up.
            while waits() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        drop(waits);
        if let (Some(bytes), Some(reply)) = (answered, Arc::into_inner(reply)) {
            reply.answer(bytes);
        }
    });
}
