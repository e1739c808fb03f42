//! The subnet as this node's own chain endpoint sees it: the finalized head, the newest snapshot,
//! and who may be what.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use perturb_chain::snapshot::MetagraphSnapshot;
use perturb_chain::view::ChainView;
use perturb_chain::{BlockHash, ChainClient, ChainError};
use perturb_consensus::ChainAnswer;
use perturb_ledger::{ChainReference, Neuron, Snapshot, StoreError, query};
use perturb_p2p::{Authority, Denial, Role};
use perturb_storage::Database;
use perturb_types::{Digest, Hotkey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Time between two refreshes of the snapshot that admits peers.
const REFRESH: Duration = Duration::from_secs(10);

/// The subnet, followed in the background.
pub struct Metagraph {
    client: ChainClient,
    netuid: u16,
    min_stake_rao: u64,
    view: watch::Receiver<ChainView>,
    snapshot: RwLock<Option<Arc<MetagraphSnapshot>>>,
    /// Chain block at which each hotkey last had what a validator needs, for as long as that counts.
    entitled: RwLock<BTreeMap<Hotkey, u64>>,
    /// The agreed state, where this node has it: who votes, and who is who while the chain is away.
    agreed: Option<Database>,
}

impl Metagraph {
    /// Follows the subnet until `stop`. Members need `min_stake_rao`. `agreed`: the agreed state of a validator.
    pub fn follow(
        client: ChainClient,
        netuid: u16,
        min_stake_rao: u64,
        agreed: Option<Database>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let view = client.subscribe_finalized(netuid);
        let (snapshot, entitled) = (RwLock::new(None), RwLock::default());
        let this = Arc::new(Self { client, netuid, min_stake_rao, view, snapshot, entitled, agreed });
        let refresher = this.clone();
        tokio::spawn(async move {
            loop {
                let pause = match refresher.refresh().await {
                    Ok(()) => REFRESH,
                    Err(error) => {
                        tracing::debug!(%error, "the metagraph was not read");
                        Duration::from_secs(1)
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
        this
    }

    async fn refresh(&self) -> Result<(), ChainError> {
        let fresh = Arc::new(self.client.snapshot(self.netuid, None).await?);
        note_entitled(&mut self.entitled.write().unwrap_or_else(PoisonError::into_inner), &fresh, self.min_stake_rao);
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        Ok(())
    }

    /// The client.
    pub fn client(&self) -> &ChainClient {
        &self.client
    }

    /// The subnet.
    pub fn netuid(&self) -> u16 {
        self.netuid
    }

    /// The finalized head, as a watch.
    pub fn view(&self) -> watch::Receiver<ChainView> {
        self.view.clone()
    }

    /// The newest snapshot read.
    pub fn newest(&self) -> Option<Arc<MetagraphSnapshot>> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The snapshot at a block.
    ///
    /// # Errors
    /// The chain is away or no longer holds that block's state.
    pub async fn at(&self, hash: BlockHash) -> Result<MetagraphSnapshot, ChainError> {
        self.client.snapshot(self.netuid, Some(hash)).await
    }
}

/// Keeps who has what a validator needs, and for a tempo longer who had it: a validator set is fixed for an epoch, so
/// who loses permit or stake within it goes on voting and opening rounds until the epoch closes.
fn note_entitled(entitled: &mut BTreeMap<Hotkey, u64>, fresh: &MetagraphSnapshot, min_stake_rao: u64) {
    let now = fresh.block_number;
    let standing = |n: &perturb_chain::Neuron| Some((n.permit, n.stake_rao));
    let able = fresh.neurons.iter().filter(|n| admits(standing(n), min_stake_rao, Role::Validator).is_ok());
    entitled.extend(able.map(|n| (n.hotkey, now)));
    let registered = |hotkey: &Hotkey| fresh.neuron(hotkey).is_some();
    entitled.retain(|hotkey, at| at.saturating_add(u64::from(fresh.tempo)) >= now && registered(hotkey));
}

impl Metagraph {
    /// Whether a hotkey is still to be heard as a validator, whatever the chain says of it now.
    fn is_heard(&self, hotkey: &Hotkey) -> Result<bool, StoreError> {
        if self.entitled.read().unwrap_or_else(PoisonError::into_inner).contains_key(hotkey) {
            return Ok(true);
        }
        match &self.agreed {
            Some(database) => Ok(query::validators(database)?.by_hotkey(hotkey).is_some()),
            None => Ok(false),
        }
    }

    fn judge(&self, hotkey: &Hotkey, role: Role) -> Result<Result<(), String>, StoreError> {
        if role == Role::Validator && self.is_heard(hotkey)? {
            return Ok(Ok(()));
        }
        let standing = match (self.newest(), &self.agreed) {
            (Some(chain), _) => chain.neuron(hotkey).map(|n| (n.permit, n.stake_rao)),
            (None, Some(agreed)) => query::snapshot(agreed)?.neuron(hotkey).map(|n| (n.permit, n.stake_rao)),
            (None, None) => return Ok(Err("cannot be judged: the metagraph is not known yet".into())),
        };
        Ok(admits(standing, self.min_stake_rao, role))
    }
}

impl Authority for Metagraph {
    /// While neither the chain nor the agreed state says who is registered nobody is admitted: a
    /// stranger must not get in because the chain is away.
    fn allows(&self, hotkey: &Hotkey, role: Role) -> Result<(), Denial> {
        let judged = self.judge(hotkey, role).unwrap_or_else(|error| {
            tracing::error!(%error, "the agreed state cannot be read: nobody is admitted");
            Err("cannot be judged now".into())
        });
        judged.map_err(|why| Denial(format!("{hotkey} {why}")))
    }
}

/// Validators need permit and stake, miners a registration.
fn admits(standing: Option<(bool, u64)>, min_stake_rao: u64, role: Role) -> Result<(), String> {
    match (role, standing) {
        (_, None) => Err("is not registered on the subnet".into()),
        (Role::Validator, Some((false, _))) => Err("has no validator permit".into()),
        (Role::Validator, Some((_, stake))) if stake < min_stake_rao => {
            Err(format!("has a stake of {stake} rao, at least {min_stake_rao} are needed"))
        }
        _ => Ok(()),
    }
}

/// A snapshot as the ledger has it.
pub fn to_ledger(s: &MetagraphSnapshot) -> Snapshot {
    Snapshot {
        reference: ChainReference { number: s.block_number, hash: Digest(s.block_hash.0), epoch_index: s.epoch_index },
        tempo: s.tempo,
        min_allowed_weights: s.hyper.min_allowed_weights,
        max_weight_limit: s.hyper.max_weights_limit,
        weights_version_key: s.hyper.weights_version_key,
        commit_reveal: s.hyper.commit_reveal,
        mechanisms: s.hyper.mechanism_count,
        neurons: s
            .neurons
            .iter()
            .map(|n| Neuron {
                uid: n.uid,
                hotkey: n.hotkey,
                coldkey: n.coldkey,
                stake_rao: n.stake_rao,
                permit: n.permit,
            })
            .collect(),
    }
}

impl Metagraph {
    /// Whether a reference lies on the finalized chain, with the snapshot there if it is wanted.
    pub async fn answer(&self, reference: &ChainReference, snapshot: bool) -> ChainAnswer {
        match self.look(reference, snapshot).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, number = reference.number, "the chain could not be asked");
                ChainAnswer::Unavailable
            }
        }
    }

    async fn look(&self, reference: &ChainReference, snapshot: bool) -> Result<ChainAnswer, ChainError> {
        let hash = match self.client.finalized_on_chain(reference.number).await? {
            None => return Ok(ChainAnswer::Ahead),
            Some(hash) if hash.0 != reference.hash.0 => return Ok(ChainAnswer::NotOnChain),
            Some(hash) => hash,
        };
        if self.client.epoch_index(self.netuid, Some(hash)).await? != reference.epoch_index {
            return Ok(ChainAnswer::NotOnChain);
        }
        if !snapshot {
            return Ok(ChainAnswer::OnChain { snapshot: None });
        }
        Ok(ChainAnswer::OnChain { snapshot: Some(to_ledger(&self.at(hash).await?)) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn strangers_and_validators_below_the_minimum_are_told_why_not() {
        let why = |role, standing| admits(standing, 1000, role).unwrap_err();
        for role in [Role::Validator, Role::Miner] {
            assert!(why(role, None).contains("not registered"));
        }
        assert!(why(Role::Validator, Some((false, 5000))).contains("permit"));
        let poor = why(Role::Validator, Some((true, 999)));
        assert!(poor.contains("999") && poor.contains("1000"), "{poor}");
        admits(Some((true, 1000)), 1000, Role::Validator).unwrap();
        admits(Some((false, 0)), 1000, Role::Miner).unwrap();
    }

    #[test]
    fn who_loses_permit_or_stake_stays_for_a_tempo_and_who_is_deregistered_does_not() {
        let hotkey = |uid: u16| Hotkey([uid as u8; 32]);
        let at = |block_number, standings: &[(bool, u64)]| {
            let neurons = standings.iter().zip(0..).map(|(&(permit, stake_rao), uid)| perturb_chain::Neuron {
                uid,
                hotkey: hotkey(uid),
                coldkey: [0; 32],
                stake_rao,
                permit,
                registered_at: 0,
            });
            let hyper = perturb_chain::Hyper {
                min_allowed_weights: 1,
                max_weights_limit: u16::MAX,
                weights_version_key: 0,
                weights_rate_limit: 0,
                commit_reveal: false,
                mechanism_count: 1,
                activity_cutoff: None,
                null_consensus: false,
            };
            let (block_hash, epoch_index, tempo) = (BlockHash([1; 32]), 3, 45);
            MetagraphSnapshot {
                netuid: 2,
                block_number,
                block_hash,
                epoch_index,
                tempo,
                neurons: neurons.collect(),
                hyper,
            }
        };
        let mut entitled = BTreeMap::new();
        note_entitled(&mut entitled, &at(100, &[(true, 1000), (true, 1000), (false, 5000), (true, 999)]), 1000);
        assert_eq!(entitled.keys().copied().collect::<Vec<_>>(), [hotkey(0), hotkey(1)]);
        note_entitled(&mut entitled, &at(145, &[(false, 1000), (true, 0)]), 1000);
        assert_eq!(entitled.len(), 2, "an epoch may last as long as a tempo");
        note_entitled(&mut entitled, &at(146, &[(false, 1000)]), 1000);
        assert!(entitled.is_empty());
        note_entitled(&mut entitled, &at(150, &[(true, 1000)]), 1000);
        note_entitled(&mut entitled, &at(151, &[]), 1000);
        assert!(entitled.is_empty(), "a uid that another one has");
    }
}
