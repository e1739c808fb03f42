//! What this validator tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use perturb_chain::submission::State;
use perturb_chain::submitter::Submissions;
use perturb_challenge::shares::WHOLE;
use perturb_consensus::Status as MachineStatus;
use perturb_ledger::archive::Archive;
use perturb_ledger::{ReceiptProof, StateStore, StoreError, epoch, query};
use perturb_p2p::{NetworkHandle, Role};
use perturb_storage::StorageError;
use perturb_types::{ChallengeId, Hotkey, NetworkId, encode};
use tokio::sync::watch;

use super::agreed::Agreed;
use super::driver::DriverHandle;
use super::rounds::Counters;
use super::rpc::{Peer, ReceiptEvidence};
use crate::keys::Signer;
use crate::metagraph::Metagraph;
use crate::report::{ChainStatus, EpochMiner, EpochReport, Peers, Rounds, Running, Status};

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
    /// The rounds.
    pub counters: Arc<Counters>,
    /// The way to consensus.
    pub driver: DriverHandle,
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
        if m.network_height > m.height + 2 {
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
        let landed = self
            .submissions
            .borrow()
            .values()
            .filter_map(|s| matches!(s.state, State::ReadBack { .. }).then_some(s.agreed.epoch))
            .min();
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
            syncing: machine.network_height > machine.height + 2,
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
            standing: f64::from(query::reputation(db, &self.me)?.standing) / 1e6,
            weights_epoch: landed,
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
