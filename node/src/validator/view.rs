//! What this validator tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use perturb_chain::Anchors;
use perturb_chain::submission::{State, Submission};
use perturb_chain::submitter::Submissions;
use perturb_challenge::shares::WHOLE;
use perturb_consensus::Status as MachineStatus;
use perturb_ledger::archive::Archive;
use perturb_ledger::{AnchorPlace, ReceiptProof, StateStore, StoreError, epoch, query};
use perturb_p2p::{NetworkHandle, Role};
use perturb_storage::StorageError;
use perturb_types::{ChallengeId, Hotkey, NetworkId, encode};
use tokio::sync::watch;

use super::agreed::Agreed;
use super::anchors;
use super::driver::DriverHandle;
use super::rounds::Counters;
use super::rpc::{Peer, ReceiptEvidence};
use crate::keys::Signer;
use crate::metagraph::Metagraph;
use crate::report::{ChainStatus, EpochMiner, EpochReport, Peers, Rounds, Running, Status, WeightsReport};

/// Everything the RPC, the health check and the metrics read.
pub struct NodeView {
    /// The network's id.
    pub id: NetworkId,
    /// This validator.
    pub me: Hotkey,
    /// Signs with its consensus key.
    pub signer: Signer,
    /// The agreed state.
    pub agreed: Arc<Agreed>,
    /// The network.
    pub network: NetworkHandle,
    /// The chain.
    pub metagraph: Arc<Metagraph>,
    /// The machine.
    pub machine: watch::Receiver<MachineStatus>,
    /// The weights.
    pub submissions: watch::Receiver<Submissions>,
    /// The anchors.
    pub anchors: watch::Receiver<Anchors>,
    /// The rounds.
    pub counters: Arc<Counters>,
    /// The way to consensus.
    pub driver: DriverHandle,
}

/// The newest epoch that landed for every mechanism.
fn landed_epoch(submissions: &Submissions) -> Option<u64> {
    let mut newest: BTreeMap<u8, Option<u64>> = BTreeMap::new();
    for s in submissions.values() {
        let landed = s.has_landed().then_some(s.agreed.epoch);
        let of_mechanism = newest.entry(s.agreed.call.mecid).or_default();
        *of_mechanism = landed.max(*of_mechanism);
    }
    newest.into_values().min().flatten()
}

fn weights_report(s: &Submission) -> WeightsReport {
    let state = match &s.state {
        State::Due => "due".into(),
        State::Signed { .. } => "signed".into(),
        State::InBlock { .. } => "in a block".into(),
        State::Finalized { submitted } => format!("final in block {}", submitted.block_number),
        State::Committed { commit, block_number, .. } => {
            format!("committed in block {block_number}, revealed from block {} on", commit.reveal_block)
        }
        State::ReadBack { block_number, .. } => format!("on chain, read back at block {block_number}"),
        State::Failed { reason } => format!("given up: {reason}"),
    };
    let error = if s.is_over() { None } else { s.last_error.clone() };
    WeightsReport { mechanism: s.agreed.call.mecid, epoch: s.agreed.epoch, state, error }
}

impl NodeView {
    fn peer_counts(&self) -> Peers {
        let peers = self.network.peers();
        let of = |role: Role| peers.iter().filter(|p| p.role == role).count();
        Peers { validators: of(Role::Validator), miners: of(Role::Miner) }
    }

    /// Whether this validator does its job.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        let m = self.machine.borrow();
        if m.is_behind() {
            return Err(format!("fetching blocks: at height {}, the network is at {}", m.height, m.network_height));
        }
        drop(m);
        let lonely = self.agreed.genesis().delegations.len() > 1 && self.peer_counts().validators == 0;
        if lonely { Err("no other validator is connected".into()) } else { Ok(()) }
    }

    /// `perturb_status`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn status(&self) -> Result<Status, StoreError> {
        let db = self.agreed.database();
        let machine = self.machine.borrow().clone();
        let meta = query::meta(db)?;
        let (set, key) = (query::validators(db)?, self.signer.pair()?.public());
        let snapshot = query::snapshot(db)?;
        let challenge = self.agreed.genesis().challenges.first().map_or(ChallengeId(0), |c| c.id);
        let standings = query::standings(db, challenge)?;
        let header = db.newest()?.map(|(h, _)| h);
        let chain = *self.metagraph.view().borrow();
        let tempo = snapshot.tempo;
        let since = chain.number.saturating_sub(snapshot.reference.number);
        let miners = snapshot.neurons.iter().filter(|n| !n.permit).map(|n| {
            let s = standings.get(&n.hotkey).copied().unwrap_or_default();
            Running { uid: n.uid, hotkey: n.hotkey, results: s.results, mean_score: s.mean as f64 / 1e6 }
        });
        let submissions = self.submissions.borrow().clone();
        let endpoints = self.metagraph.client().health().borrow().clone();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            network: self.id,
            hotkey: self.me,
            consensus_key: key,
            peer_id: self.network.peer_id().to_string(),
            height: machine.height,
            block: machine.digest,
            state_root: header.map(|h| h.state_root).unwrap_or_default(),
            block_time_ms: machine.time_ms,
            oldest_block: Archive::oldest(db)?.block.max(1),
            round: machine.round,
            epoch: meta.epoch,
            member: set.by_key(&key).is_some(),
            validators: set.len(),
            syncing: machine.is_behind(),
            mempool: machine.mempool,
            peers: self.peer_counts(),
            chain: ChainStatus {
                connected: chain.connected,
                finalized: chain.number,
                epoch_index: chain.epoch_index,
                into_epoch: if tempo == 0 { 0 } else { since.min(u64::from(tempo)) },
                tempo,
            },
            rounds: Rounds {
                opened: self.counters.opened.load(Ordering::Relaxed),
                closed: self.counters.closed.load(Ordering::Relaxed),
                answers: self.counters.answers.load(Ordering::Relaxed),
            },
            epoch_results: meta.results,
            miners: miners.collect(),
            checks: query::checks(db)?.len(),
            verdicts: [&self.counters.holds, &self.counters.fails, &self.counters.unknown]
                .map(|count| count.load(Ordering::Relaxed)),
            standing: f64::from(query::reputation(db, &self.me)?.standing) / 1e6,
            idle_until: query::idle_until(db, &self.me)?,
            weights_epoch: landed_epoch(&submissions),
            weights: submissions.values().map(weights_report).collect(),
            anchor: anchors::newest_in_words(&self.anchors.borrow()),
            endpoints: if endpoints.len() > 1 { endpoints } else { Vec::new() },
        })
    }

    /// `perturb_epoch`.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn epoch(&self, n: u64) -> Result<Option<EpochReport>, StorageError> {
        let db = self.agreed.database();
        let challenge = self.agreed.genesis().challenges.first().map_or(ChallengeId(0), |c| c.id);
        let ledger = |e: StoreError| StorageError::Ledger(e.to_string());
        let Some(record) = epoch::record(db, n, challenge).map_err(ledger)? else { return Ok(None) };
        let header = db.held_header(record.height)?;
        let weights: BTreeMap<Hotkey, u16> =
            record.weights.iter().filter_map(|(_, hotkey, w)| Some(((*hotkey)?, *w))).collect();
        let part = |x: u32| f64::from(x) / 1e6;
        let miners = record.miners.iter().map(|m| EpochMiner {
            uid: m.uid,
            hotkey: m.hotkey,
            results: m.processed,
            aggregate: m.aggregate.as_ref().map_or(0.0, |a| part(a.score.0)),
            confidence: m.aggregate.as_ref().map_or(0.0, |a| part(a.confidence.0)),
            share: m.share as f64 / WHOLE as f64,
            weight: weights.get(&m.hotkey).copied().unwrap_or(0),
            kept_from: m.kept,
        });
        Ok(Some(EpochReport {
            epoch: n,
            height: record.height,
            state_root: header.state_root,
            results: record.results,
            snapshot_block: record.snapshot_block,
            miners: miners.collect(),
            weights,
        }))
    }

    /// `perturb_receipt`.
    ///
    /// # Errors
    /// The history cannot be read.
    pub fn receipt(&self, height: u64, index: usize) -> Result<Option<ReceiptEvidence>, StorageError> {
        let db = self.agreed.database();
        let (header, certificate) = (db.header(height)?, db.certificate(height)?);
        let (Some(header), Some(certificate), Some(receipts)) = (header, certificate, db.receipts(height)?) else {
            // Pruned, or never there.
            return db.held_block(height).map(|_| None);
        };
        Ok(ReceiptProof::make(&self.id, &receipts, index).map(|proof| ReceiptEvidence {
            header: hex::encode(encode::encode(&header)),
            certificate: hex::encode(encode::encode(&certificate)),
            proof: hex::encode(encode::encode(&proof)),
        }))
    }

    /// `perturb_anchors`.
    pub fn anchors(&self) -> Vec<AnchorPlace> {
        anchors::places(&self.anchors.borrow(), self.me)
    }

    /// `perturb_peers`.
    pub fn peers(&self) -> Vec<Peer> {
        let peer = |p: &perturb_p2p::PeerInfo| Peer {
            peer_id: p.peer_id.to_string(),
            hotkey: p.hotkey.map(|h| h.to_string()),
            role: format!("{:?}", p.role).to_lowercase(),
            address: p.addr.to_string(),
        };
        self.network.peers().iter().map(peer).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use perturb_chain::{AgreedVector, WeightsCall};

    use super::*;

    fn submissions(list: &[(u8, u64, bool)]) -> Submissions {
        let one = |&(mecid, epoch, landed): &(u8, u64, bool)| {
            let call = WeightsCall { netuid: 1, mecid, weights: vec![(0, 1)], version_key: 0 };
            let agreed = AgreedVector { call, epoch, reference_block: 0, expires_after_epoch: None };
            let mut s = Submission::new(agreed);
            if landed {
                s.state = State::ReadBack { block_number: 1, submitted: None };
            }
            (s.key(), s)
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn an_epoch_counts_as_landed_where_all_mechanisms_have_it() {
        assert_eq!(landed_epoch(&submissions(&[])), None);
        assert_eq!(landed_epoch(&submissions(&[(0, 3, true), (0, 4, false)])), Some(3));
        assert_eq!(landed_epoch(&submissions(&[(0, 3, true), (0, 4, true), (1, 3, true), (1, 4, false)])), Some(3));
        assert_eq!(landed_epoch(&submissions(&[(0, 4, true), (1, 4, false)])), None);
    }
}
