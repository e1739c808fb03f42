//! Keys, genesis and blocks of a market: one proposer, and every member signs.

use perturb_challenge::rules::Rules;
use perturb_ledger::genesis::{
    Aggregation, ChallengeSpec, Draws, Genesis, GenesisDelegation, Parameters, SpotChecks, Timeouts,
};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::tx::{Delegation, Neuron, Readiness, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{
    Certificate, ChainReference, Executed, Ledger, MemoryStore, ProposalInput, Transaction, VoteKind, vote_sign_bytes,
};
use perturb_types::encode::{self, Domain};
use perturb_types::{Beacon, ConsensusPair, Digest, NetworkId, Signed};

use super::{Fault, Setting};
use crate::cast::{CHALLENGE, Signer, reference};

/// Milliseconds from one block to the next.
const BLOCK_MS: u64 = 1000;

/// The owner's number among the signers.
const OWNER: usize = 0;

/// A network whose blocks are made at once.
pub(super) struct Stage {
    pub validators: Vec<(Signer, ConsensusPair)>,
    pub miners: Vec<Signer>,
    pub network: NetworkId,
    pub ledger: Ledger<MemoryStore>,
    stakes: Vec<u64>,
    chain: ChainReference,
}

impl Stage {
    /// The stage of a setting, at genesis.
    pub fn new(setting: &Setting) -> Result<Self, Fault> {
        let stakes: Vec<u64> = setting.validators.iter().map(|v| v.stake).collect();
        let validators: Vec<(Signer, ConsensusPair)> =
            (0..stakes.len()).map(|i| (Signer::of(11, i), ConsensusPair::from_seed(&seed(i)))).collect();
        let miners: Vec<Signer> = (0..setting.miners.len()).map(|i| Signer::of(13, i)).collect();
        let chain = reference(1, 0);
        let zero = NetworkId([0; 32]);
        let genesis = Genesis {
            chain_genesis: Digest([1; 32]),
            netuid: 2,
            time_ms: 1000,
            snapshot: snapshot(&validators, &stakes, &miners, chain.clone()),
            delegations: validators.iter().map(|v| GenesisDelegation::of(&delegation(&zero, v))).collect(),
            owner: Signer::of(14, OWNER).hotkey(),
            challenges: vec![challenge(setting)],
            parameters: parameters(setting),
            beacon: Beacon { genesis_ms: 0, period_ms: BLOCK_MS, ..Beacon::DEVELOPMENT },
        };
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&genesis).map_err(Fault::new)?);
        let ledger = Ledger::new(genesis, store).map_err(Fault::new)?;
        Ok(Self { validators, miners, network: ledger.network(), ledger, stakes, chain })
    }

    /// One more block. Every transaction has to be taken: whoever is refused has no aim to be measured.
    pub fn block(&mut self, transactions: Vec<Transaction>) -> Result<(), Fault> {
        self.chain = reference(self.chain.number + 1, self.chain.epoch_index);
        self.make(transactions, None)
    }

    /// Everybody says that it is there, and the epoch closes.
    pub fn close(&mut self) -> Result<(), Fault> {
        let epoch = self.ledger.head().epoch;
        let ready = |(hotkey, pair): &(Signer, ConsensusPair)| {
            let ready = Signed::sign(pair, &self.network, Readiness { hotkey: hotkey.hotkey(), epoch });
            Transaction::Readiness(ready.into_envelope())
        };
        let ready = self.validators.iter().map(ready).collect();
        self.block(ready)?;
        self.chain = reference(self.chain.number + 1, self.chain.epoch_index + 1);
        let snapshot = snapshot(&self.validators, &self.stakes, &self.miners, self.chain.clone());
        self.make(Vec::new(), Some(snapshot))
    }

    fn make(&mut self, transactions: Vec<Transaction>, snapshot: Option<Snapshot>) -> Result<(), Fault> {
        let wanted = transactions.len() + usize::from(snapshot.is_some());
        for transaction in &transactions {
            self.ledger
                .check_transaction(transaction)
                .map_err(|e| Fault::new(format!("{}: {e}", transaction.name())))?;
        }
        let input = ProposalInput {
            time_ms: self.ledger.head().time_ms + BLOCK_MS,
            proposer: self.proposer()?,
            reference: self.chain.clone(),
            snapshot,
            transactions,
        };
        let (block, executed) = self.ledger.propose(input).map_err(Fault::new)?;
        if block.body.transactions.len() != wanted {
            return Err(Fault::new(format!("{} of {wanted} transactions were taken", block.body.transactions.len())));
        }
        let certificate = self.certify(&executed);
        let commit = self.ledger.commit(executed, certificate).map_err(Fault::new)?;
        self.ledger.store_mut().commit(&commit);
        Ok(())
    }

    fn proposer(&self) -> Result<perturb_types::ConsensusKey, Fault> {
        self.ledger.validators().iter().next().map(|v| v.key).ok_or_else(|| Fault::new("the set is empty"))
    }

    fn certify(&self, executed: &Executed) -> Certificate {
        let height = executed.block().header.height;
        let bytes = vote_sign_bytes(&self.network, VoteKind::Precommit, height, 0, Some(executed.digest()));
        let members = self.validators.iter().filter(|v| self.ledger.validators().by_key(&v.1.public()).is_some());
        let signatures = members.map(|(_, pair)| (pair.public(), pair.sign(&bytes))).collect();
        Certificate::new(height, 0, executed.digest(), signatures)
    }
}

fn seed(i: usize) -> [u8; 32] {
    let mut seed = [12u8; 32];
    seed[..8].copy_from_slice(&(i as u64).to_le_bytes());
    seed
}

fn delegation(network: &NetworkId, (hotkey, pair): &(Signer, ConsensusPair)) -> Delegation {
    let (who, key, sequence) = (hotkey.hotkey(), pair.public(), 0u64);
    let statement = encode::encode(&(who, key, sequence));
    Delegation {
        hotkey: who,
        key,
        sequence,
        signature: hotkey.sign(Domain::Delegation, network, &statement),
        acceptance: pair.sign(&encode::signing_bytes(Domain::DelegationAccept, network, &statement)),
    }
}

/// Validators first, then miners, each with a coldkey of its own: two hotkeys of one owner are the
/// same to the ledger as two owners who agree.
fn snapshot(
    validators: &[(Signer, ConsensusPair)],
    stakes: &[u64],
    miners: &[Signer],
    reference: ChainReference,
) -> Snapshot {
    let permitted = validators.iter().zip(stakes).map(|((hotkey, _), stake)| (hotkey, stake * 1_000_000_000, true));
    let others = miners.iter().map(|hotkey| (hotkey, 0, false));
    let neuron = |(uid, (hotkey, stake_rao, permit)): (usize, (&Signer, u64, bool))| Neuron {
        uid: uid as u16,
        hotkey: hotkey.hotkey(),
        coldkey: seed(1000 + uid),
        stake_rao,
        permit,
    };
    Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: permitted.chain(others).enumerate().map(neuron).collect(),
    }
}

fn challenge(setting: &Setting) -> ChallengeSpec {
    ChallengeSpec {
        id: CHALLENGE,
        mechanism: 0,
        rules: Rules::subnet().with_history_len(setting.history),
        model: "simulated".into(),
        model_digest: Digest([2; 32]),
        source: "demo:1:100".into(),
        source_fingerprint: Digest([3; 32]),
        interval_ms: 1000,
        miners_per_round: setting.miners.len() as u16,
        aggregation: Aggregation::Quantile,
        min_confidence: 50_000,
    }
}

fn parameters(setting: &Setting) -> Parameters {
    Parameters {
        min_stake_rao: 1_000_000_000,
        power: PowerRule::Stake { max_share: 333_333 },
        block_interval_ms: BLOCK_MS as u32,
        max_block_transactions: 4096,
        max_block_bytes: 2 << 20,
        max_rounds_per_epoch: 10_000,
        max_open_rounds: 4,
        open_round_blocks: 20,
        burn_uid: 0,
        timeouts: Timeouts {
            propose_ms: 1000,
            propose_delta_ms: 200,
            prevote_ms: 500,
            prevote_delta_ms: 200,
            precommit_ms: 500,
            precommit_delta_ms: 200,
        },
        spot_checks: SpotChecks { rate: setting.check_rate, window_blocks: 10, margin_tolerance: 50_000 },
        reputation: Default::default(),
        min_work: setting.min_work,
        proposal_age_ms: 2_000,
        order_delay_blocks: 1,
        draws: Draws { delay_ms: 1, pulse_stride: 1, retention_blocks: 100 },
    }
}
