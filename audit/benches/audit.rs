//! Speed of an audit: a certificate of 100 validators, an epoch replayed, a bundle verified.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use divan::Bencher;
use divan::counter::ItemsCount;
use perturb_audit::bundle::{Bundle, Claim};
use perturb_audit::cert;
use perturb_audit::history::Start;
use perturb_audit::replay::{Engine, Exact, Fast, bind};
use perturb_audit::{History, TrustAnchor, score, source};
use perturb_challenge::rules::Rules;
use perturb_challenge::used::Used;
use perturb_challenge::verify::Verdict;
use perturb_ledger::archive::{Archive, state_root};
use perturb_ledger::genesis::{Aggregation, Draws, GenesisDelegation, Timeouts};
use perturb_ledger::images::Pass;
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::seeds::{Lots, SeedsRow};
use perturb_ledger::store::Row;
use perturb_ledger::tx::Delegation;
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{
    Block, Certificate, ChainReference, ChallengeSpec, Genesis, Header, Ledger, MemoryStore, Neuron, Parameters,
    ProposalInput, Snapshot, Transaction, VoteKind, vote_sign_bytes,
};
use perturb_types::round::{AnswerStatement, Meaning, TransformSecret};
use perturb_types::{
    Beacon, ChallengeId, ConsensusPair, Digest, Entry, HotkeyPair, Measurement, Millionths, NetworkId, Reason,
    RoundCommits, RoundId, RoundOpen, RoundPair, RoundResult, Signed,
};

/// Answers of a round.
const MINERS: u16 = 250;
/// Blocks of the replayed stretch, each with one round of every validator.
const BLOCKS: u64 = 4;
const CHALLENGE: ChallengeId = ChallengeId(0);

fn main() {
    divan::main();
}

fn pair(kind: u8, i: u16) -> HotkeyPair {
    let mut seed = [kind; 32];
    seed[..2].copy_from_slice(&i.to_le_bytes());
    HotkeyPair::from_seed(&seed).unwrap()
}

struct Net {
    hotkeys: Vec<HotkeyPair>,
    keys: Vec<ConsensusPair>,
    miners: Vec<HotkeyPair>,
    genesis: Genesis,
}

fn snapshot(hotkeys: &[HotkeyPair], miners: &[HotkeyPair], epoch_index: u64) -> Snapshot {
    let all = hotkeys.iter().map(|p| (p, true)).chain(miners.iter().map(|p| (p, false)));
    let neurons = (0u16..).zip(all).map(|(uid, (p, permit))| Neuron {
        uid,
        hotkey: p.hotkey(),
        coldkey: Digest::of(&uid.to_le_bytes()).0,
        stake_rao: 5000,
        permit,
    });
    Snapshot {
        reference: ChainReference { number: 1 + epoch_index, hash: Digest([1; 32]), epoch_index },
        tempo: 360,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: neurons.collect(),
    }
}

fn parameters() -> Parameters {
    let ms = 1000;
    Parameters {
        min_stake_rao: 1000,
        power: PowerRule::Equal,
        block_interval_ms: ms,
        max_block_transactions: 100,
        max_block_bytes: 1 << 20,
        max_rounds_per_epoch: 100,
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
        draws: Draws { delay_ms: 1_000, pulse_stride: 1, retention_blocks: 3_600 },
    }
}

impl Net {
    fn new(validators: u16, miners: u16) -> Self {
        let hotkeys: Vec<_> = (0..validators).map(|i| pair(1, i)).collect();
        let keys: Vec<_> = (0..validators).map(|i| ConsensusPair::from_seed(pair(4, i).seed().unwrap())).collect();
        let miners: Vec<_> = (0..miners).map(|i| pair(2, i)).collect();
        let delegate = |(h, k)| GenesisDelegation::of(&Delegation::sign(&NetworkId([0; 32]), h, k, 0));
        let genesis = Genesis {
            chain_genesis: Digest([1; 32]),
            netuid: 1,
            time_ms: 1000,
            snapshot: snapshot(&hotkeys, &miners, 0),
            delegations: hotkeys.iter().zip(&keys).map(delegate).collect(),
            owner: pair(3, 0).hotkey(),
            challenges: vec![ChallengeSpec {
                id: CHALLENGE,
                mechanism: 0,
                rules: Rules::subnet().with_history_len(2),
                model: "demo".into(),
                model_digest: Digest([2; 32]),
                source: "demo:1:100".into(),
                source_fingerprint: Digest([3; 32]),
                source_len: 100,
                interval_ms: 1000,
                miners_per_round: MINERS,
                aggregation: Aggregation::Quantile,
                min_confidence: 50_000,
            }],
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

    /// The lots of a round, and the image of one whose validator has closed all before it.
    fn lots(&self, v: usize, round: &RoundId) -> (Lots, u64) {
        let (net, pair) = (self.genesis.network_id(), RoundPair::of(&self.keys[v]));
        let seed = SeedsRow::first(&net).seed;
        let mut pass = Pass::new(Used::new(self.genesis.challenges[0].source_len), BTreeMap::new());
        let mut of = |seq| {
            let lots = Lots::draw(&pair, &net, seed, &RoundId { seq, ..*round });
            (lots, pass.draw(&net, &lots.value, 1).unwrap()[0])
        };
        (0..=round.seq).map(&mut of).last().unwrap()
    }

    /// Opening, commitments and result of one validator's round, every answer a success at level 1.
    fn round(&self, v: usize, seq: u64) -> [Transaction; 3] {
        let (net, rules) = (self.genesis.network_id(), &self.genesis.challenges[0].rules);
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: CHALLENGE, seq };
        let (lots, source_index) = self.lots(v, &round);
        let open = RoundOpen { round, epoch: 0, image: Digest([v as u8; 32]), miners: lots.miners, opened_ms: 0 };
        let open = Signed::sign(&self.keys[v], &net, open);
        let entries = (0u32..).zip(&self.miners).map(|(i, miner)| {
            let (ssim, changed) = (Millionths(999_000), 100 + i);
            let measurement = Measurement { level: 1, sum_squares: changed.into(), changed, channels: 12_288, ssim };
            let verdict = Verdict {
                reason: Reason::Success,
                measurement,
                predicted: 4,
                margin_millionths: 500_000,
                semantic: Meaning::NotAsked,
            };
            let digest = Digest::of(format!("{v} {seq} {i}").as_bytes());
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

    fn certify(&self, height: u64, digest: Digest) -> Certificate {
        let bytes = vote_sign_bytes(&self.genesis.network_id(), VoteKind::Precommit, height, 0, Some(digest));
        Certificate::new(height, 0, digest, self.keys.iter().map(|k| (k.public(), k.sign(&bytes))).collect())
    }

    fn step(&self, ledger: &mut Ledger<MemoryStore>, transactions: Vec<Transaction>, closes: bool) {
        let snapshot = closes.then(|| snapshot(&self.hotkeys, &self.miners, 1));
        let wanted = transactions.len() + usize::from(closes);
        let reference = snapshot.as_ref().map_or_else(|| ledger.head().reference.clone(), |s| s.reference.clone());
        let input = ProposalInput {
            time_ms: ledger.head().time_ms + 10,
            proposer: self.keys[0].public(),
            reference,
            snapshot,
            transactions,
        };
        let (block, executed) = ledger.propose(input).unwrap();
        assert_eq!(block.body.transactions.len(), wanted, "every transaction has to execute");
        let certificate = self.certify(block.header.height, executed.digest());
        let commit = ledger.commit(executed, certificate).unwrap();
        ledger.store_mut().commit(&commit);
    }

    /// A closed epoch of [`BLOCKS`] blocks of rounds and the one that closes it.
    fn epoch(&self) -> Ledger<MemoryStore> {
        let mut ledger = self.ledger();
        for seq in 0..BLOCKS {
            let rounds = (0..self.keys.len()).flat_map(|v| self.round(v, seq)).collect();
            self.step(&mut ledger, rounds, false);
        }
        self.step(&mut ledger, vec![], true);
        ledger
    }
}

/// A header with a certificate of 100 validators, who all signed.
fn certified_by_100() -> (Net, Ledger<MemoryStore>, Header, Certificate) {
    let net = Net::new(100, 3);
    let mut ledger = net.ledger();
    net.step(&mut ledger, vec![], false);
    let (block, certificate) = ledger.store().block(1).unwrap().clone();
    (net, ledger, block.header, certificate.unwrap())
}

#[divan::bench]
fn check_certificate_of_100(bencher: Bencher<'_, '_>) {
    let (net, _, header, certificate) = certified_by_100();
    let start = Start::Genesis(Box::new(net.genesis.clone()));
    let history = History::new(&net.genesis.network_id(), start, vec![]).unwrap();
    bencher.bench_local(|| {
        let checked = history.check(header.clone(), Some(certificate.clone())).unwrap();
        assert_eq!(checked.power, (100, 100));
    });
}

#[divan::bench]
fn take_certificate_of_100_apart(bencher: Bencher<'_, '_>) {
    let (net, _, _, certificate) = certified_by_100();
    let start = Start::Genesis(Box::new(net.genesis.clone()));
    let history = History::new(&net.genesis.network_id(), start, vec![]).unwrap();
    let trust = history.at(1).unwrap();
    bencher.bench_local(|| {
        let members = cert::members(trust, &certificate);
        assert!(members.iter().all(|m| m.2 == cert::Signature::Signed));
    });
}

struct Epoch {
    net: Net,
    ledger: Ledger<MemoryStore>,
    first: Header,
    rows: Vec<Row>,
    blocks: Vec<(Block, Certificate)>,
    results: u64,
}

impl Epoch {
    fn new() -> Self {
        let net = Net::new(4, MINERS);
        let ledger = net.epoch();
        let rows = ledger.store().rows_at(0, None, usize::MAX).unwrap().unwrap().rows;
        let mut blocks = ledger.store().blocks().cloned();
        let first = blocks.next().unwrap().0.header;
        let blocks: Vec<_> = blocks.map(|(block, certificate)| (block, certificate.unwrap())).collect();
        let results = 4 * BLOCKS * u64::from(MINERS);
        Self { net, ledger, first, rows, blocks, results }
    }

    /// Blocks bound to their headers and executed, to the records.
    fn replay(&self, engine: &mut dyn Engine) {
        let network = self.net.genesis.network_id();
        let mut parent = self.first.digest(&network);
        for (block, certificate) in &self.blocks {
            parent = bind(&network, &parent, block).unwrap();
            assert!(engine.apply(block, certificate).unwrap().is_none());
        }
        assert_eq!(engine.results(), self.results);
        assert_eq!(engine.records().unwrap().len(), 1);
    }
}

/// Decoding, binding, rules, verdicts, histories, results roots, aggregation, ranks, u16.
#[divan::bench(sample_count = 20)]
fn replay_fast(bencher: Bencher<'_, '_>) {
    let epoch = Epoch::new();
    bencher.counter(ItemsCount::new(epoch.results)).bench_local(|| {
        let mut engine = Fast::new(&epoch.net.genesis, &epoch.first, &epoch.rows).unwrap();
        epoch.replay(&mut engine);
    });
}

/// The ledger's own executor: also every signature and state root.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn replay_exact(bencher: Bencher<'_, '_>) {
    let epoch = Epoch::new();
    bencher.counter(ItemsCount::new(epoch.results)).bench_local(|| {
        let mut engine = Exact::new(&epoch.net.genesis, &epoch.first, None, &epoch.rows).unwrap();
        epoch.replay(&mut engine);
    });
}

/// The state that an epoch begins with, proved by its rebuilt root.
#[divan::bench(sample_count = 20)]
fn rebuild_state_root_of_1000_histories(bencher: Bencher<'_, '_>) {
    let epoch = Epoch::new();
    let height = epoch.ledger.head().height;
    let rows = epoch.ledger.store().rows_at(height, None, usize::MAX).unwrap().unwrap().rows;
    bencher.bench_local(|| assert_eq!(state_root(&rows).unwrap(), epoch.ledger.head().state_root));
}

/// A miner's score of 250, from the file's bytes.
#[divan::bench(sample_count = 20)]
fn verify_score_bundle(bencher: Bencher<'_, '_>) {
    let epoch = Epoch::new();
    let anchor = TrustAnchor::Genesis(Box::new(epoch.net.genesis.clone()));
    let node = source::Local { name: "local".into(), archive: epoch.ledger.store().clone() };
    let nodes = perturb_audit::Nodes(vec![Box::new(node)]);
    let miner = epoch.net.miners[7].hotkey();
    let (_, bundle) = score::run(&anchor, &nodes, 0, CHALLENGE, &miner);
    let bundle = bundle.unwrap();
    assert!(matches!(bundle.claim, Claim::Score { .. }));
    let bytes = bundle.to_bytes();
    bencher.counter(divan::counter::BytesCount::new(bytes.len())).bench_local(|| {
        Bundle::from_bytes(&bytes).unwrap().verify().unwrap();
    });
}
