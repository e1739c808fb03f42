//! Which challenges run: those of the agreed state, as they are added, changed and removed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::{Result, bail, eyre};
use perturb_challenge::construct::Wanted;
use perturb_challenge::source::ImageSource;
use perturb_ledger::{ChallengeSpec, query};
use perturb_miner::drill::errands::Errands;
use perturb_p2p::NetworkHandle;
use perturb_types::{ChallengeId, Hotkey, NetworkId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use super::checks::Checks;
use super::driver::DriverHandle;
use super::evidence::{Evidence, Rooms};
use super::rounds::{Counters, Rounds};
use super::stuck::Stuck;
use crate::keys::Signer;
use crate::outside::{self, Outside};

/// Time between two looks at the agreed challenges.
const EVERY: Duration = Duration::from_secs(2);

/// What every challenge's services share.
#[derive(Clone)]
pub struct Shared {
    /// The network's id.
    pub id: NetworkId,
    /// This validator.
    pub me: Hotkey,
    /// Signs with its consensus key.
    pub signer: Signer,
    /// The agreed state.
    pub agreed: Arc<Agreed>,
    /// Images.
    pub evidence: Evidence,
    /// The network.
    pub network: NetworkHandle,
    /// The way to consensus.
    pub driver: DriverHandle,
    /// What was done.
    pub counters: Arc<Counters>,
    /// Models, images and judges from outside.
    pub outside: Outside,
    /// In a drill: the images that its own miner wants others to be asked about.
    pub errands: Option<Errands>,
}

/// The first pause before a challenge that cannot be run here is tried again, and the longest.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

struct Running {
    spec: ChallengeSpec,
    stop: CancellationToken,
}

/// Runs the agreed challenges until `stop`.
///
/// # Errors
/// The disk, or a service that failed.
pub async fn run(shared: Shared, stop: CancellationToken) -> Result<()> {
    let mut running: BTreeMap<ChallengeId, Running> = BTreeMap::new();
    let mut services: JoinSet<Result<()>> = JoinSet::new();
    loop {
        let agreed = query::challenges(shared.agreed.database())?;
        running.retain(|id, r| {
            let stays = agreed.iter().any(|spec| spec == &r.spec);
            if !stays {
                tracing::info!(challenge = %id, "the challenge was changed or removed");
                r.stop.cancel();
            }
            stays
        });
        for spec in agreed {
            if let Entry::Vacant(place) = running.entry(spec.id) {
                let token = stop.child_token();
                services.spawn(serve(shared.clone(), spec.clone(), token.clone()));
                place.insert(Running { spec, stop: token });
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
            Some(ended) = services.join_next(), if !services.is_empty() => ended??,
        }
    }
    services.shutdown().await;
    Ok(())
}

/// Serves one challenge until `stop`. Where its weights were not pulled, its image set is away, or
/// either is not the agreed one, the validator goes on without it, in consensus and in other
/// challenges, and looks again: one model must not take validators away from the chain.
async fn serve(shared: Shared, spec: ChallengeSpec, stop: CancellationToken) -> Result<()> {
    let mut pause = TRY_AGAIN.0;
    let (rounds, checks) = loop {
        // Reads weights and large files, asks servers.
        match tokio::task::block_in_place(|| prepare(&shared, &spec, &stop)) {
            Ok(ready) => break ready,
            Err(error) => {
                let again_s = pause.as_secs();
                tracing::error!(challenge = %spec.id, again_s, error = %format!("{error:#}"), "cannot run this challenge");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(TRY_AGAIN.1);
    };
    let meaning = &spec.rules.semantic;
    tracing::info!(challenge = %spec.id, model = %spec.model, source = %spec.source, %meaning, "running a challenge");
    // Each on a task of its own: where one computes or waits for a server, the other goes on.
    let mut parts = JoinSet::new();
    parts.spawn(rounds.run());
    parts.spawn(checks.run());
    while let Some(ended) = parts.join_next().await {
        ended??;
    }
    Ok(())
}

fn prepare(shared: &Shared, spec: &ChallengeSpec, stop: &CancellationToken) -> Result<(Rounds, Checks)> {
    let classifier = shared.outside.classifier(&spec.model, spec.model_digest)?;
    let source = source(shared, spec)?;
    let semantics = shared.outside.judge(&spec.rules.semantic, classifier.as_ref())?;
    let labels = outside::labels(classifier.as_ref());
    let wanted = Wanted::new(&spec.rules, source.as_ref(), labels.as_ref()).map_err(|e| eyre!(e))?;
    let rounds = Rounds {
        stuck: Stuck::default(),
        id: shared.id,
        challenge: spec.id,
        rules: spec.rules.clone(),
        interval: Duration::from_millis(u64::from(spec.interval_ms)),
        places: usize::from(spec.miners_per_round),
        me: shared.me,
        signer: shared.signer.clone(),
        classifier: classifier.clone(),
        source: source.clone(),
        semantics: semantics.clone(),
        wanted: wanted.clone(),
        agreed: shared.agreed.clone(),
        database: shared.agreed.database().clone(),
        rooms: Rooms::new(shared.evidence.clone()),
        network: shared.network.clone(),
        driver: shared.driver.clone(),
        counters: shared.counters.clone(),
        errands: shared.errands.clone(),
        stop: stop.clone(),
    };
    let checks = Checks {
        shared: shared.clone(),
        spec: spec.clone(),
        classifier,
        source,
        semantics,
        wanted,
        stop: stop.clone(),
    };
    Ok((rounds, checks))
}

/// The agreed image set, wherever it lies here; `perturb_challenge::source` lists the texts.
fn source(shared: &Shared, spec: &ChallengeSpec) -> Result<Arc<dyn ImageSource>> {
    let source = shared.outside.source(&spec.source)?;
    if source.fingerprint() != spec.source_fingerprint {
        let (agreed, found) = (spec.source_fingerprint, source.fingerprint());
        bail!("the network agreed on image set {agreed}, `{}` is {found}", spec.source);
    }
    if source.len() != spec.source_len {
        bail!("the network agreed on {} images, `{}` has {}", spec.source_len, spec.source, source.len());
    }
    Ok(source)
}
