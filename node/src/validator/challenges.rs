//! Which challenges run: those of the agreed state, as they are added, changed and removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::{Result, WrapErr, bail, eyre};
use perturb_challenge::classifier::Classifier;
use perturb_challenge::construct::Wanted;
use perturb_challenge::source::ImageSource;
use perturb_ledger::{ChallengeSpec, query};
use perturb_p2p::NetworkHandle;
use perturb_types::{ChallengeId, ConsensusPair, Hotkey, NetworkId};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use super::checks::Checks;
use super::driver::DriverHandle;
use super::rounds::{Counters, Rounds};
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
    /// Its consensus key.
    pub pair: ConsensusPair,
    /// The agreed state.
    pub agreed: Arc<Agreed>,
    /// The network.
    pub network: NetworkHandle,
    /// The way to consensus.
    pub driver: DriverHandle,
    /// What was done.
    pub counters: Arc<Counters>,
    /// Images and judges from outside.
    pub outside: Outside,
}

struct Running {
    spec: ChallengeSpec,
    stop: CancellationToken,
}

/// Runs the agreed challenges until `stop`.
///
/// # Errors
/// At the start: a model or image set that is not the agreed one. Later: the disk, or a service that
/// failed. A challenge that is added later and cannot be run here is left to the others.
pub async fn run(shared: Shared, stop: CancellationToken) -> Result<()> {
    let mut running: BTreeMap<ChallengeId, Running> = BTreeMap::new();
    let mut services: JoinSet<Result<()>> = JoinSet::new();
    let mut first = true;
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
            if running.contains_key(&spec.id) {
                continue;
            }
            let token = stop.child_token();
            match start(&shared, &spec, &mut services, &token) {
                Ok(()) => {}
                Err(error) if first => return Err(error),
                Err(error) => {
                    tracing::error!(challenge = %spec.id, error = %format!("{error:#}"), "cannot run this challenge");
                }
            }
            running.insert(spec.id, Running { spec, stop: token });
        }
        first = false;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(EVERY) => {}
            Some(ended) = services.join_next(), if !services.is_empty() => ended??,
        }
    }
    services.shutdown().await;
    Ok(())
}

fn start(
    shared: &Shared,
    spec: &ChallengeSpec,
    services: &mut JoinSet<Result<()>>,
    stop: &CancellationToken,
) -> Result<()> {
    let classifier = classifier(spec)?;
    let named = || format!("challenge {}", spec.id);
    // Large files may have to be read once.
    let source = tokio::task::block_in_place(|| source(shared, spec))?;
    let semantics = shared.outside.judge(&spec.rules.semantic, classifier.as_ref()).wrap_err_with(named)?;
    let labels = outside::labels(classifier.as_ref());
    let wanted =
        Wanted::new(&spec.rules, source.as_ref(), labels.as_ref()).map_err(|e| eyre!(e)).wrap_err_with(named)?;
    let rounds = Rounds {
        id: shared.id,
        challenge: spec.id,
        rules: spec.rules.clone(),
        interval: Duration::from_millis(u64::from(spec.interval_ms)),
        places: usize::from(spec.miners_per_round),
        me: shared.me,
        pair: shared.pair.clone(),
        classifier: classifier.clone(),
        source: source.clone(),
        semantics: semantics.clone(),
        wanted,
        agreed: shared.agreed.clone(),
        database: shared.agreed.database().clone(),
        network: shared.network.clone(),
        driver: shared.driver.clone(),
        counters: shared.counters.clone(),
    };
    let checks = Checks { shared: shared.clone(), spec: spec.clone(), classifier, source, semantics };
    let meaning = &spec.rules.semantic;
    tracing::info!(challenge = %spec.id, model = %spec.model, source = %spec.source, %meaning, "running a challenge");
    services.spawn(rounds.run(stop.clone()));
    services.spawn(checks.run(stop.clone()));
    Ok(())
}

fn classifier(spec: &ChallengeSpec) -> Result<Arc<dyn Classifier>> {
    // The agreed state names a model, never a file of this machine.
    let named = spec.model == "demo" || perturb_model::zoo::find(&spec.model).is_some();
    if !named {
        bail!("challenge {}: this version does not know the model `{}`", spec.id, spec.model);
    }
    let device = perturb_model::DeviceChoice::Auto.resolve()?;
    let model = perturb_model::open(&spec.model, Some(spec.model_digest.0), device)
        .wrap_err_with(|| format!("challenge {}", spec.id))?;
    let model: Box<dyn Classifier> = model;
    Ok(Arc::from(model))
}

/// The agreed image set, wherever it lies here; `perturb_challenge::source` lists the texts.
fn source(shared: &Shared, spec: &ChallengeSpec) -> Result<Arc<dyn ImageSource>> {
    let source = shared.outside.source(&spec.source).wrap_err_with(|| format!("challenge {}", spec.id))?;
    if source.fingerprint() != spec.source_fingerprint {
        bail!(
            "challenge {}: the network agreed on image set {}, `{}` is {}",
            spec.id,
            spec.source_fingerprint,
            spec.source,
            source.fingerprint()
        );
    }
    Ok(source)
}
