//! The history of a real ledger, for tests: a founder, a second validator who comes and goes, a miner.
//!
//! An epoch has three blocks. The second validator joins with block 3 and leaves with block 9: these
//! two blocks change the set. Every block opens and closes a round of the founder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_ledger::block::ChainReference;
use perturb_ledger::genesis::{Aggregation, ChallengeSpec, Draws, Genesis, GenesisDelegation, Parameters, Timeouts};
use perturb_ledger::images;
use perturb_ledger::ledger::{Ledger, ProposalInput, genesis_commit};
use perturb_ledger::seeds::{self, Lots};
use perturb_ledger::tx::{Delegation, Neuron, Readiness, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{Certificate, Commit, MemoryStore, StateStore, Transaction, VoteKind, query, vote_sign_bytes};
use perturb_types::{
    Beacon, ChallengeId, ConsensusPair, Digest, HotkeyPair, NetworkId, Reason, RoundId, RoundOpen, RoundPair,
    RoundResult, Signed,
};

/// Blocks of an epoch.
pub const EPOCH: u64 = 3;

pub struct History {
    pub hotkeys: [HotkeyPair; 2],
    pub keys: [ConsensusPair; 2],
    pub miner: HotkeyPair,
    pub genesis: Genesis,
}

fn reference(number: u64, epoch_index: u64) -> ChainReference {
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

/// The metagraph; the second validator has its permit until the third epoch ends.
fn snapshot(hotkeys: &[HotkeyPair; 2], miner: &HotkeyPair, reference: ChainReference) -> Snapshot {
    let neuron = |uid: u16, hotkey: &HotkeyPair, permit: bool| Neuron {
        uid,
        hotkey: hotkey.hotkey(),
        coldkey: [uid as u8; 32],
        stake_rao: 5000,
        permit,
    };
    let second = reference.epoch_index < 3;
    Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: vec![neuron(0, &hotkeys[0], true), neuron(1, miner, false), neuron(2, &hotkeys[1], second)],
    }
}

impl History {
    /// The network of subnet 2.
    pub fn new() -> Self {
        Self::of_subnet(2)
    }

    /// The same people on another subnet: another network.
    pub fn of_subnet(netuid: u16) -> Self {
        let hotkeys = [1, 4].map(|i| HotkeyPair::from_seed(&[i; 32]).unwrap());
        let miner = HotkeyPair::from_seed(&[2; 32]).unwrap();
        let keys = [3, 5].map(|i| ConsensusPair::from_seed(&[i; 32]));
        let ms = 100;
        let timeouts = Timeouts {
            propose_ms: ms,
            propose_delta_ms: ms,
            prevote_ms: ms,
            prevote_delta_ms: ms,
            precommit_ms: ms,
            precommit_delta_ms: ms,
        };
        let genesis = Genesis {
            chain_genesis: Digest([1; 32]),
            netuid,
            time_ms: 1000,
            snapshot: snapshot(&hotkeys, &miner, reference(1, 0)),
            delegations: vec![GenesisDelegation::of(&Delegation::sign(&NetworkId([0; 32]), &hotkeys[0], &keys[0], 0))],
            owner: hotkeys[0].hotkey(),
            challenges: vec![ChallengeSpec {
                id: ChallengeId(0),
                mechanism: 0,
                rules: Rules::subnet().with_history_len(1),
                model: "demo".into(),
                model_digest: Digest([2; 32]),
                source: "demo:1:100".into(),
                source_fingerprint: Digest([3; 32]),
                source_len: 100,
                interval_ms: 1000,
                miners_per_round: 8,
                aggregation: Aggregation::Quantile,
                min_confidence: 0,
            }],
            parameters: Parameters {
                min_stake_rao: 1000,
                power: PowerRule::Equal,
                block_interval_ms: ms,
                max_block_transactions: 100,
                max_block_bytes: 1 << 20,
                max_rounds_per_epoch: 9,
                open_round_blocks: 9,
                burn_uid: 0,
                timeouts,
                spot_checks: Default::default(),
                reputation: Default::default(),
                min_work: 10,
                proposal_age_ms: 10_000,
                order_delay_blocks: 1,
                draws: Draws { delay_ms: 1_000, pulse_stride: 1, retention_blocks: 3_600 },
            },
            beacon: Beacon::DEVELOPMENT,
        };
        Self { hotkeys, keys, miner, genesis }
    }

    pub fn id(&self) -> NetworkId {
        self.genesis.network_id()
    }

    /// The founder's round of this number.
    pub fn round(&self, seq: u64) -> RoundId {
        RoundId { validator: self.hotkeys[0].hotkey(), challenge: ChallengeId(0), seq }
    }

    fn round_transactions<S: StateStore>(&self, store: &S, seq: u64) -> [Transaction; 2] {
        let (id, round) = (self.id(), self.round(seq));
        let drawing = seeds::drawing(store, &round.validator).unwrap().unwrap();
        let lots = Lots::draw(&RoundPair::of(&self.keys[0]), &id, drawing.2, &round);
        let images = images::upcoming(store, &id, (round.challenge, 100), round.validator, &lots.value).unwrap();
        let (source_index, transform) = images[0];
        let (epoch, image, miners) = (drawing.0, Digest([seq as u8; 32]), lots.miners);
        let open = RoundOpen { round, epoch, image, miners, opened_ms: 0 };
        let open = Signed::sign(&self.keys[0], &id, open);
        let rules = &self.genesis.challenges[0].rules;
        // The second validator is asked as well once it has lost its permit.
        let asked = query::snapshot(store).unwrap().neurons.into_iter().filter(|n| !n.permit);
        let entries = asked.map(|n| Verdict::absent(rules, 3, n.hotkey, Reason::ResponseMissing, 0)).collect();
        let (open_digest, skipped) = (open.digest(), vec![]);
        let (open, images) = (open, lots.images);
        let result =
            RoundResult { round, open: open_digest, images, skipped, source_index, transform, label: 3, entries };
        let result = Signed::sign(&self.keys[0], &id, result);
        [Transaction::RoundOpen(open.into_envelope()), Transaction::RoundResult(result.into_envelope())]
    }

    /// Genesis and the blocks up to this height, and the store that they lead to.
    pub fn commits(&self, to: u64) -> (Vec<Commit>, MemoryStore) {
        let zero = genesis_commit(&self.genesis).unwrap();
        let mut store = MemoryStore::default();
        store.commit(&zero);
        let mut ledger = Ledger::new(self.genesis.clone(), store).unwrap();
        let mut commits = vec![zero];
        for height in 1..=to {
            let commit = self.next(&mut ledger);
            assert_eq!(commit.height, height);
            ledger.store_mut().commit(&commit);
            commits.push(commit);
        }
        (commits, std::mem::take(ledger.store_mut()))
    }

    /// The block after a ledger's newest one; the caller commits it to the ledger's store.
    pub fn next<S: StateStore>(&self, ledger: &mut Ledger<S>) -> Commit {
        let (height, epoch) = (ledger.head().height + 1, ledger.head().epoch);
        let closes = height.is_multiple_of(EPOCH);
        let at = if closes { reference(height * 10, height / EPOCH) } else { ledger.head().reference.clone() };
        let mut transactions = self.round_transactions(ledger.store(), height - 1).to_vec();
        if height == 1 {
            let delegation = Delegation::sign(&self.id(), &self.hotkeys[1], &self.keys[1], 0);
            transactions.push(Transaction::KeyDelegation(Box::new(delegation)));
        }
        if closes {
            for (hotkey, key) in self.hotkeys.iter().zip(&self.keys).take(if epoch < 3 { 2 } else { 1 }) {
                let ready = Signed::sign(key, &self.id(), Readiness { hotkey: hotkey.hotkey(), epoch });
                transactions.push(Transaction::Readiness(ready.into_envelope()));
            }
        }
        let input = ProposalInput {
            time_ms: ledger.head().time_ms + 10,
            proposer: self.keys[0].public(),
            snapshot: closes.then(|| snapshot(&self.hotkeys, &self.miner, at.clone())),
            reference: at,
            transactions,
        };
        let set = ledger.validators().clone();
        let (_, executed) = ledger.propose(input).unwrap();
        let bytes = vote_sign_bytes(&ledger.network(), VoteKind::Precommit, height, 0, Some(executed.digest()));
        let signers = self.keys.iter().filter(|key| set.by_key(&key.public()).is_some());
        let signatures = signers.map(|key| (key.public(), key.sign(&bytes))).collect();
        let certificate = Certificate::new(height, 0, executed.digest(), signatures);
        ledger.commit(executed, certificate).unwrap()
    }
}
