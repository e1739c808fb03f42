//! Who plays: validators, miners, keys, stakes, and the genesis that names them.
//!
//! Everything follows from the seed. sr25519 signatures are randomised in a node; here their nonce
//! follows from key and message, so that one seed gives one history, byte for byte.

use perturb_challenge::rules::Rules;
use perturb_ledger::genesis::{
    Aggregation, ChallengeSpec, Draws, Genesis, GenesisDelegation, Parameters, SpotChecks, Timeouts,
};
use perturb_ledger::tx::{Delegation, Neuron, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{ChainReference, Transaction};
use perturb_types::encode::{self, Domain};
use perturb_types::round::{AnswerCommit, AnswerStatement};
use perturb_types::{Beacon, ChallengeId, ConsensusPair, Digest, Hotkey, NetworkId, RoundId};
use rand_core_06::{CryptoRng, RngCore};

use crate::bent::LedgerBug;
use crate::plan::Plan;

/// The one challenge.
pub const CHALLENGE: ChallengeId = ChallengeId(0);

/// From this median on who does less than half of it is idle: an epoch has room for some rounds more.
pub const MIN_WORK: u64 = 6;

/// Miners of the network.
pub const MINERS: usize = 4;

/// Milliseconds between two blocks.
pub const BLOCK_INTERVAL_MS: u32 = 500;

/// Milliseconds by which a fresh proposal's time may lie behind in round 0: little more than clocks and
/// wires differ by, so that every slow node shows whether rounds are all that it costs.
pub const PROPOSAL_AGE_MS: u32 = 2_000;
/// Rounds of a million that are checked at most.
const CHECK_RATE: u32 = 660_000;

/// From a result to its draw, at least: four heights.
pub const DRAW_DELAY_MS: u32 = 2_000;

/// Rounds of the beacon, of a second each, from one draw to the next.
pub const DRAW_STRIDE: u32 = 2;

/// Blocks that a result waits for its pulse: less than a run has, so that some are given up.
pub const DRAW_RETENTION_BLOCKS: u64 = 16;

/// A hotkey that signs the same message with the same bytes.
#[derive(Clone)]
pub struct Signer(schnorrkel::Keypair);

/// No randomness: the nonce follows from the secret and the message alone.
struct NoRandomness;

impl RngCore for NoRandomness {
    fn next_u32(&mut self) -> u32 {
        0
    }
    fn next_u64(&mut self) -> u64 {
        0
    }
    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core_06::Error> {
        dest.fill(0);
        Ok(())
    }
}

impl CryptoRng for NoRandomness {}

impl Signer {
    /// The signer of a number.
    pub(crate) fn of(kind: u8, number: usize) -> Self {
        let mut seed = [kind; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        // Any 32 bytes are a mini secret.
        let mini = schnorrkel::MiniSecretKey::from_bytes(&seed);
        let mini = mini.unwrap_or_else(|_| schnorrkel::MiniSecretKey::generate_with(NoRandomness));
        Self(mini.expand_to_keypair(schnorrkel::ExpansionMode::Ed25519))
    }

    /// The public key.
    pub fn hotkey(&self) -> Hotkey {
        Hotkey(self.0.public.to_bytes())
    }

    /// An sr25519 signature that differs only with the message.
    pub fn sign(&self, domain: Domain, network: &NetworkId, payload: &[u8]) -> [u8; 64] {
        let context = schnorrkel::signing_context(b"substrate");
        let transcript = context.bytes(&encode::signing_bytes(domain, network, payload));
        self.0.sign(schnorrkel::context::attach_rng(transcript, NoRandomness)).to_bytes()
    }

    /// What it binds itself to for an answer.
    pub fn bind(&self, network: &NetworkId, round: RoundId, image: Digest, answer: &Digest) -> AnswerCommit {
        self.bind_to(network, AnswerStatement::of(network, round, image, &self.hotkey(), answer))
    }

    /// Signs a statement as it is, whosever commitment it names.
    pub fn bind_to(&self, network: &NetworkId, statement: AnswerStatement) -> AnswerCommit {
        let signature = self.sign(Domain::Answer, network, &encode::encode(&statement));
        AnswerCommit { commit: statement.commit, signature }
    }
}

/// What two networks that are played differ in.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Stakes of the validators, TAO.
    pub stakes: Vec<u64>,
    /// How many of them, from the first on, are founders.
    pub founders: usize,
    /// Miners of the network.
    pub miners: usize,
    /// Who loses its permit with the first epoch that closes.
    pub leaver: Option<usize>,
    /// Scores of a history.
    pub history: u32,
    /// The numbers.
    pub parameters: Parameters,
}

/// The players of one run.
pub struct Cast {
    /// Validators' hotkeys; who is no founder joins later.
    pub hotkeys: Vec<Signer>,
    /// Their consensus keys.
    pub pairs: Vec<ConsensusPair>,
    /// The miners' hotkeys.
    pub miners: Vec<Signer>,
    /// The owner of the network.
    pub owner: Signer,
    /// Stakes in TAO, in the order of `hotkeys`.
    pub stakes: Vec<u64>,
    /// Who loses its permit with the first epoch that closes.
    pub leaver: Option<usize>,
    /// Where the network begins.
    pub genesis: Genesis,
    /// Its id.
    pub network: NetworkId,
    /// The rule of the ledger that is broken for everybody.
    pub broken: LedgerBug,
}

impl Cast {
    /// The cast of a plan: its founders and one that joins.
    pub fn new(plan: &Plan) -> Self {
        let mut parameters = parameters(check_rate(plan.founders));
        if !plan.by_stake {
            parameters.power = PowerRule::Equal;
        }
        plan.ledger_bug.plant(&mut parameters);
        let setup = Setup {
            stakes: plan.stakes.clone(),
            founders: plan.founders,
            miners: MINERS,
            leaver: plan.leaver,
            history: 2,
            parameters,
        };
        Self { broken: plan.ledger_bug, ..Self::of(setup) }
    }

    /// The cast of a setup.
    pub fn of(setup: Setup) -> Self {
        let count = setup.stakes.len();
        let mut cast = Self {
            hotkeys: (0..count).map(|i| Signer::of(1, i)).collect(),
            pairs: (0..count).map(|i| ConsensusPair::from_seed(&pair_seed(i))).collect(),
            miners: (0..setup.miners).map(|i| Signer::of(3, i)).collect(),
            owner: Signer::of(4, 0),
            stakes: setup.stakes.clone(),
            leaver: setup.leaver,
            genesis: blank_genesis(&setup),
            network: NetworkId([0; 32]),
            broken: LedgerBug::None,
        };
        cast.genesis.owner = cast.owner.hotkey();
        cast.genesis.snapshot = cast.snapshot(reference(1, 0));
        let zero = NetworkId([0; 32]);
        cast.genesis.delegations =
            (0..setup.founders).map(|i| GenesisDelegation::of(&cast.delegation(&zero, i))).collect();
        cast.network = cast.genesis.network_id();
        cast
    }

    /// A delegation of a validator to its key, for a network.
    fn delegation(&self, network: &NetworkId, i: usize) -> Delegation {
        let half = Delegation::accept(network, self.hotkeys[i].hotkey(), &self.pairs[i], 0);
        Delegation { signature: self.hotkeys[i].sign(Domain::Delegation, network, &half.statement()), ..half }
    }

    /// The transaction by which a validator registers its key.
    pub fn register(&self, i: usize) -> Transaction {
        Transaction::KeyDelegation(Box::new(self.delegation(&self.network, i)))
    }

    /// The subnet at a block of the chain.
    pub fn snapshot(&self, reference: ChainReference) -> Snapshot {
        let left = |i| self.leaver == Some(i) && reference.epoch_index > 0;
        let validators = self.hotkeys.iter().zip(&self.stakes).enumerate().map(|(i, (hotkey, stake))| Neuron {
            uid: i as u16,
            hotkey: hotkey.hotkey(),
            coldkey: [i as u8; 32],
            stake_rao: if left(i) { 0 } else { stake * 1_000_000_000 },
            permit: !left(i),
        });
        let first = self.hotkeys.len();
        let miners = self.miners.iter().enumerate().map(|(i, miner)| Neuron {
            uid: (first + i) as u16,
            hotkey: miner.hotkey(),
            coldkey: [200 + i as u8; 32],
            stake_rao: 0,
            permit: false,
        });
        Snapshot {
            tempo: 10,
            min_allowed_weights: 1,
            max_weight_limit: u16::MAX,
            weights_version_key: 0,
            commit_reveal: false,
            mechanisms: 1,
            neurons: validators.chain(miners).collect(),
            reference,
        }
    }

    /// The validator with a consensus key.
    pub fn of_key(&self, key: &perturb_types::ConsensusKey) -> Option<usize> {
        self.pairs.iter().position(|p| p.public() == *key)
    }
}

fn pair_seed(i: usize) -> [u8; 32] {
    let mut seed = [2u8; 32];
    seed[..8].copy_from_slice(&(i as u64).to_le_bytes());
    seed
}

/// A finalized block of the simulated chain.
pub fn reference(number: u64, epoch_index: u64) -> ChainReference {
    ChainReference { number, hash: Digest::of(&number.to_le_bytes()), epoch_index }
}

/// A third of all rounds, so that every run has some. Each is judged by every member: with many of them
/// fewer rounds, or verdicts would fill the blocks.
fn check_rate(founders: usize) -> u32 {
    (3_200_000 / founders.max(1) as u32).min(CHECK_RATE)
}

/// The numbers of a network that checks so many of a million rounds.
pub fn parameters(check_rate: u32) -> Parameters {
    Parameters {
        min_stake_rao: 1_000_000_000_000,
        power: PowerRule::Stake { max_share: 250_000 },
        block_interval_ms: BLOCK_INTERVAL_MS,
        max_block_transactions: 100,
        max_block_bytes: 1 << 20,
        max_rounds_per_epoch: 200,
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
        spot_checks: SpotChecks { rate: check_rate, window_blocks: 20, margin_tolerance: 50_000 },
        reputation: Default::default(),
        min_work: MIN_WORK as u32,
        proposal_age_ms: PROPOSAL_AGE_MS,
        order_delay_blocks: 3,
        // A draw some heights after a result, and one every two seconds.
        draws: Draws { delay_ms: DRAW_DELAY_MS, pulse_stride: DRAW_STRIDE, retention_blocks: DRAW_RETENTION_BLOCKS },
    }
}

fn blank_genesis(setup: &Setup) -> Genesis {
    Genesis {
        chain_genesis: Digest([1; 32]),
        netuid: 2,
        time_ms: 1000,
        snapshot: Snapshot {
            reference: reference(1, 0),
            tempo: 10,
            min_allowed_weights: 1,
            max_weight_limit: u16::MAX,
            weights_version_key: 0,
            commit_reveal: false,
            mechanisms: 1,
            neurons: Vec::new(),
        },
        delegations: Vec::new(),
        owner: Hotkey([0; 32]),
        challenges: vec![ChallengeSpec {
            id: CHALLENGE,
            mechanism: 0,
            rules: Rules::subnet().with_history_len(setup.history),
            model: "simulated".into(),
            model_digest: Digest([2; 32]),
            source: "demo:1:100".into(),
            source_fingerprint: Digest([3; 32]),
            // A pass over it ends within a run.
            source_len: 7,
            interval_ms: 1000,
            // One place more: who loses its permit is asked as well.
            miners_per_round: setup.miners as u16 + 1,
            aggregation: Aggregation::Quantile,
            min_confidence: 50_000,
        }],
        parameters: setup.parameters.clone(),
        beacon: Beacon { genesis_ms: 0, period_ms: 1000, ..Beacon::DEVELOPMENT },
    }
}
