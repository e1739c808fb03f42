//! Speed of the agreed history: execution of a block with 1000 answers, state trees, proofs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use divan::Bencher;
use perturb_challenge::rules::Rules;
use perturb_challenge::used::Used;
use perturb_challenge::verify::Verdict;
use perturb_ledger::draw::is_drawn;
use perturb_ledger::genesis::{Aggregation, GenesisDelegation, Timeouts};
use perturb_ledger::images::{self, Pass};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::merkle;
use perturb_ledger::proofs::StateProof;
use perturb_ledger::seeds::{Lots, SeedsRow};
use perturb_ledger::tx::Delegation;
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{
    Block, Certificate, ChainReference, ChallengeSpec, Genesis, Ledger, MemoryStore, Neuron, Parameters, ProposalInput,
    Pulse, Snapshot, Transaction, VoteKind, query, state, vote_sign_bytes,
};
use perturb_types::round::{AnswerStatement, Meaning, TransformSecret};
use perturb_types::vrf::{Draw, Purpose};
use perturb_types::{
    Beacon, ChallengeId, ConsensusPair, Digest, Entry, HotkeyPair, Measurement, Millionths, NetworkId, Reason,
    RoundCommits, RoundId, RoundOpen, RoundPair, RoundResult, Signed, encode,
};

/// Validators; each closes one round with an answer of every miner.
const VALIDATORS: u8 = 4;
/// Miners: with four validators, a block of 1000 answers.
const MINERS: u16 = 250;

fn main() {
    divan::main();
}

fn pair(kind: u8, i: u16) -> HotkeyPair {
    let mut seed = [kind; 32];
    seed[..2].copy_from_slice(&i.to_le_bytes());
    HotkeyPair::from_seed(&seed).unwrap()
}

fn challenge() -> ChallengeSpec {
    ChallengeSpec {
        id: ChallengeId(0),
        mechanism: 0,
        rules: Rules::subnet(),
        model: "demo".into(),
        model_digest: Digest([2; 32]),
        source: "demo:1:100".into(),
        source_fingerprint: Digest([3; 32]),
        source_len: 100,
        interval_ms: 1000,
        miners_per_round: MINERS,
        aggregation: Aggregation::Quantile,
        min_confidence: 50_000,
    }
}

fn parameters() -> Parameters {
    let ms = 1000;
    Parameters {
        min_stake_rao: 1000,
        power: PowerRule::Equal,
        block_interval_ms: 1000,
        max_block_transactions: 100,
        max_block_bytes: 1 << 20,
        max_rounds_per_epoch: 1000,
        open_round_blocks: 50,
        burn_uid: 0,
        timeouts: Timeouts {
            propose_ms: ms,
            propose_delta_ms: ms,
            prevote_ms: ms,
            prevote_delta_ms: ms,
            precommit_ms: ms,
            precommit_delta_ms: ms,
        },
        spot_checks: Default::default(),
        reputation: Default::default(),
        min_work: 10,
        proposal_age_ms: 10_000,
        order_delay_blocks: 1,
        draws: Default::default(),
    }
}

struct Net {
    hotkeys: Vec<HotkeyPair>,
    keys: Vec<ConsensusPair>,
    miners: Vec<HotkeyPair>,
    genesis: Genesis,
}

impl Net {
    fn new() -> Self {
        let hotkeys: Vec<_> = (0..VALIDATORS).map(|i| pair(1, u16::from(i))).collect();
        let keys: Vec<_> = (0..VALIDATORS).map(|i| ConsensusPair::from_seed(&[i + 1; 32])).collect();
        let miners: Vec<_> = (0..MINERS).map(|i| pair(2, i)).collect();
        let all = hotkeys.iter().map(|p| (p, true)).chain(miners.iter().map(|p| (p, false)));
        let neurons = (0u16..).zip(all).map(|(uid, (p, permit))| Neuron {
            uid,
            hotkey: p.hotkey(),
            coldkey: Digest::of(&uid.to_le_bytes()).0,
            stake_rao: 5000,
            permit,
        });
        let snapshot = Snapshot {
            reference: ChainReference { number: 1, hash: Digest([1; 32]), epoch_index: 0 },
            tempo: 360,
            min_allowed_weights: 1,
            max_weight_limit: u16::MAX,
            weights_version_key: 0,
            commit_reveal: false,
            mechanisms: 1,
            neurons: neurons.collect(),
        };
        let delegate = |(h, k)| GenesisDelegation::of(&Delegation::sign(&NetworkId([0; 32]), h, k, 0));
        let genesis = Genesis {
            chain_genesis: Digest([1; 32]),
            netuid: 1,
            time_ms: 1000,
            snapshot,
            delegations: hotkeys.iter().zip(&keys).map(delegate).collect(),
            owner: pair(3, 0).hotkey(),
            challenges: vec![challenge()],
            parameters: parameters(),
            beacon: Beacon::DEVELOPMENT,
        };
        Self { hotkeys, keys, miners, genesis }
    }

    fn ledger(&self) -> Ledger<MemoryStore> {
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&self.genesis).unwrap());
        Ledger::new(self.genesis.clone(), store).unwrap()
    }

    /// The lots of a validator's first round, and its image.
    fn lots(&self, v: usize, round: &RoundId) -> (Lots, u64) {
        let (net, pair) = (self.genesis.network_id(), RoundPair::of(&self.keys[v]));
        let lots = Lots::draw(&pair, &net, SeedsRow::first(&net).seed, round);
        let mut pass = Pass::new(Used::new(self.genesis.challenges[0].source_len), BTreeMap::new());
        (lots, pass.draw(&net, &lots.value, 1).unwrap()[0])
    }

    /// Opening, commitments and result of one validator's first round, every answer a success at level 1.
    fn round(&self, v: usize) -> [Transaction; 3] {
        let (net, rules) = (self.genesis.network_id(), &self.genesis.challenges[0].rules);
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: ChallengeId(0), seq: 0 };
        let (lots, source_index) = self.lots(v, &round);
        let open = RoundOpen { round, epoch: 0, image: Digest([v as u8; 32]), miners: lots.miners, opened_ms: 0 };
        let open = Signed::sign(&self.keys[v], &net, open);
        let entries = (0u32..).zip(&self.miners).map(|(i, miner)| {
            let ssim = Millionths(999_000);
            let changed = 100 + i;
            let measurement = Measurement { level: 1, sum_squares: changed.into(), changed, channels: 12_288, ssim };
            let verdict = Verdict {
                reason: Reason::Success,
                measurement,
                predicted: 4,
                margin_millionths: 500_000,
                semantic: Meaning::NotAsked,
            };
            let digest = Digest::of(format!("{v} {i}").as_bytes());
            verdict.entry(rules, 3, miner.hotkey(), digest, 500, false)
        });
        let entries: Vec<Entry> = entries.collect();
        let commits = self.miners.iter().zip(&entries).map(|(miner, entry)| {
            let answer = entry.answer.unwrap();
            Some(AnswerStatement::of(&net, round, open.image, &miner.hotkey(), &answer).sign(miner, &net))
        });
        let commits = Signed::sign(&self.keys[v], &net, RoundCommits { round, commits: commits.collect() });
        let result = RoundResult {
            round,
            open: open.digest(),
            images: lots.images,
            skipped: vec![],
            source_index,
            transform: TransformSecret::of(&net, &lots.value, 0),
            label: 3,
            entries,
        };
        let result = Signed::sign(&self.keys[v], &net, result).into_envelope();
        [
            Transaction::RoundOpen(open.into_envelope()),
            Transaction::RoundCommits(commits.into_envelope()),
            Transaction::RoundResult(result),
        ]
    }

    /// Opening and result of a round to which nobody answered.
    fn silent_round(&self, ledger: &Ledger<MemoryStore>, v: usize, seq: u64) -> [Transaction; 2] {
        let (net, rules) = (self.genesis.network_id(), &self.genesis.challenges[0].rules);
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: ChallengeId(0), seq };
        let lots = Lots::draw(&RoundPair::of(&self.keys[v]), &net, SeedsRow::first(&net).seed, &round);
        let of = (round.challenge, self.genesis.challenges[0].source_len);
        let upcoming = images::upcoming(ledger.store(), &net, of, round.validator, &lots.value).unwrap();
        let (source_index, transform) = upcoming[0];
        let open = RoundOpen { round, epoch: 0, image: Digest([v as u8; 32]), miners: lots.miners, opened_ms: 0 };
        let open = Signed::sign(&self.keys[v], &net, open);
        let absent = |m: &HotkeyPair| Verdict::absent(rules, 3, m.hotkey(), Reason::ResponseMissing, 0);
        let result = RoundResult {
            round,
            open: open.digest(),
            images: lots.images,
            skipped: vec![],
            source_index,
            transform,
            label: 3,
            entries: self.miners.iter().map(absent).collect(),
        };
        let result = Signed::sign(&self.keys[v], &net, result).into_envelope();
        [Transaction::RoundOpen(open.into_envelope()), Transaction::RoundResult(result)]
    }

    fn input(&self, ledger: &Ledger<MemoryStore>, transactions: Vec<Transaction>) -> ProposalInput {
        ProposalInput {
            time_ms: ledger.head().time_ms + 10,
            proposer: self.keys[0].public(),
            reference: ledger.head().reference.clone(),
            snapshot: None,
            transactions,
        }
    }

    fn propose(&self, ledger: &Ledger<MemoryStore>) -> (Block, perturb_ledger::Executed) {
        let transactions: Vec<_> = (0..self.keys.len()).flat_map(|v| self.round(v)).collect();
        let (block, executed) = ledger.propose(self.input(ledger, transactions)).unwrap();
        assert_eq!(block.body.transactions.len(), 3 * usize::from(VALIDATORS), "every transaction has to execute");
        (block, executed)
    }

    fn certify(&self, digest: Digest) -> Certificate {
        let bytes = vote_sign_bytes(&self.genesis.network_id(), VoteKind::Precommit, 1, 0, Some(digest));
        Certificate::new(1, 0, digest, self.keys.iter().map(|k| (k.public(), k.sign(&bytes))).collect())
    }
}

/// Signatures, scores, histories, state tree and roots of a block with 1000 answers.
#[divan::bench(sample_count = 10)]
fn check_block_of_1000_results(bencher: Bencher<'_, '_>) {
    let net = Net::new();
    let ledger = net.ledger();
    let (block, _) = net.propose(&ledger);
    bencher.bench_local(|| ledger.check(&block).unwrap());
}

/// What binding so many miners costs everybody once: their signatures. Prints the transaction's bytes.
#[divan::bench(args = [64, 256], sample_count = 10)]
fn check_commits_of(bencher: Bencher<'_, '_>, miners: u16) {
    let net = Net::new();
    let round = RoundId { validator: net.hotkeys[0].hotkey(), challenge: ChallengeId(0), seq: 0 };
    let (image, pairs): (_, Vec<_>) = (Digest([1; 32]), net.miners.iter().cycle().take(usize::from(miners)).collect());
    let bind = |miner: &&HotkeyPair| {
        let id = net.genesis.network_id();
        Some(AnswerStatement::of(&id, round, image, &miner.hotkey(), &Digest([2; 32])).sign(miner, &id))
    };
    let commits = RoundCommits { round, commits: pairs.iter().map(bind).collect() };
    let id = net.genesis.network_id();
    let envelope = Signed::sign(&net.keys[0], &id, commits).into_envelope();
    eprintln!("{miners} commitments: {} bytes", encode::encode(&Transaction::RoundCommits(envelope.clone())).len());
    bencher.bench_local(|| {
        let opened: Signed<RoundCommits> = envelope.clone().open(&id).unwrap();
        for (miner, bound) in pairs.iter().zip(&opened.commits) {
            let bound = bound.unwrap();
            let statement = AnswerStatement { round, image, commit: bound.commit };
            assert!(statement.verify(&miner.hotkey(), &id, &bound.signature));
        }
    });
}

#[divan::bench]
fn verify_certificate_of_four(bencher: Bencher<'_, '_>) {
    let net = Net::new();
    let ledger = net.ledger();
    let certificate = net.certify(Digest([5; 32]));
    bencher.bench_local(|| certificate.verify(&ledger.network(), ledger.validators()).unwrap());
}

/// A ledger after the block of 1000 answers, and the key of one of its histories.
fn committed() -> (Ledger<MemoryStore>, Vec<u8>) {
    let net = Net::new();
    let mut ledger = net.ledger();
    let (_, executed) = net.propose(&ledger);
    let certificate = net.certify(executed.digest());
    let commit = ledger.commit(executed, certificate).unwrap();
    ledger.store_mut().commit(&commit);
    let key = state::history_key(ChallengeId(0), &net.miners[0].hotkey(), &net.hotkeys[0].hotkey());
    (ledger, key)
}

/// Two pairings: what a pulse costs a node, once.
#[divan::bench]
fn verify_pulse(bencher: Bencher<'_, '_>) {
    let pulse = Pulse::of_development(1000).unwrap();
    bencher.bench_local(|| assert!(pulse.verify(&Beacon::DEVELOPMENT)));
}

/// Both lots of a round, as its validator draws them.
#[divan::bench]
fn draw_lots(bencher: Bencher<'_, '_>) {
    let net = Net::new();
    let round = RoundId { validator: net.hotkeys[0].hotkey(), challenge: ChallengeId(0), seq: 7 };
    let pair = RoundPair::of(&net.keys[0]);
    bencher.bench_local(|| Lots::draw(&pair, &net.genesis.network_id(), Digest([5; 32]), &round));
}

/// One of them, as everybody checks it.
#[divan::bench]
fn open_a_lot(bencher: Bencher<'_, '_>) {
    let net = Net::new();
    let (id, seed) = (net.genesis.network_id(), Digest([5; 32]));
    let pair = RoundPair::of(&net.keys[0]);
    let draw = Draw { purpose: Purpose::Image, challenge: ChallengeId(0), seed, seq: 7 };
    let (_, lot) = pair.draw(&id, &draw);
    bencher.bench_local(|| pair.public().open(&id, &draw, &lot).unwrap());
}

/// The 32 images that a round may use, of a set of so many.
#[divan::bench(args = [10_000, 1_200_000])]
fn upcoming_images_of(bencher: Bencher<'_, '_>, len: u64) {
    let net = Net::new();
    let ledger = net.ledger();
    let (id, validator) = (net.genesis.network_id(), net.hotkeys[0].hotkey());
    bencher.bench_local(|| images::upcoming(ledger.store(), &id, (ChallengeId(0), len), validator, &[7; 32]).unwrap());
}

/// Whether a pulse draws one round.
#[divan::bench]
fn draw_a_round(bencher: Bencher<'_, '_>) {
    let (network, signature) = (NetworkId([1; 32]), Pulse::of_development(1000).unwrap().signature);
    let round = RoundId { validator: pair(1, 0).hotkey(), challenge: ChallengeId(0), seq: 0 };
    bencher.bench_local(|| is_drawn(20_000, &network, &signature, &round, &Digest([3; 32])));
}

/// A block whose pulse draws the rounds of so many others, checked; with 0 nothing waits and none comes.
#[divan::bench(args = [0, 1, 16, 256], sample_count = 10)]
fn check_block_with_a_draw(bencher: Bencher<'_, '_>, blocks: u64) {
    let net = Net::new();
    let mut ledger = net.ledger();
    let commit = |ledger: &mut Ledger<MemoryStore>, transactions: Vec<Transaction>| {
        let (_, executed) = ledger.propose(net.input(ledger, transactions)).unwrap();
        let height = executed.block().header.height;
        let bytes = vote_sign_bytes(&net.genesis.network_id(), VoteKind::Precommit, height, 0, Some(executed.digest()));
        let signatures = net.keys.iter().map(|k| (k.public(), k.sign(&bytes))).collect();
        let certificate = Certificate::new(height, 0, executed.digest(), signatures);
        let commit = ledger.commit(executed, certificate).unwrap();
        ledger.store_mut().commit(&commit);
    };
    for seq in 0..blocks {
        let rounds = (0..net.keys.len()).flat_map(|v| net.silent_round(&ledger, v, seq)).collect();
        commit(&mut ledger, rounds);
    }
    commit(&mut ledger, Vec::new());
    let awaited = query::awaited_pulses(ledger.store()).unwrap();
    let pulses = awaited.into_iter().map(|round| Transaction::Pulse(Pulse::of_development(round).unwrap())).collect();
    let (block, _) = ledger.propose(net.input(&ledger, pulses)).unwrap();
    assert_eq!(block.body.transactions.len(), usize::from(blocks > 0));
    bencher.bench_local(|| ledger.check(&block).unwrap());
}

#[divan::bench]
fn make_state_proof(bencher: Bencher<'_, '_>) {
    let (ledger, key) = committed();
    bencher.bench_local(|| StateProof::make(ledger.store(), 1, &key).unwrap());
}

#[divan::bench]
fn check_state_proof(bencher: Bencher<'_, '_>) {
    let (ledger, key) = committed();
    let proof = StateProof::make(ledger.store(), 1, &key).unwrap();
    assert!(proof.value.is_some());
    let root = ledger.head().state_root;
    bencher.bench_local(|| assert!(proof.verify(&root)));
}

#[divan::bench(args = [100, 1000])]
fn make_leaf_proof(bencher: Bencher<'_, '_>, count: u16) {
    let leaves: Vec<Digest> = (0..count).map(|i| Digest::of(&i.to_le_bytes())).collect();
    bencher.bench_local(|| merkle::prove(&leaves, 7).unwrap());
}

#[divan::bench(args = [100, 1000])]
fn check_leaf_proof(bencher: Bencher<'_, '_>, count: u16) {
    let leaves: Vec<Digest> = (0..count).map(|i| Digest::of(&i.to_le_bytes())).collect();
    let (root, proof) = (merkle::root(&leaves), merkle::prove(&leaves, 7).unwrap());
    bencher.bench_local(|| assert!(proof.verify(&root, &leaves[7])));
}
