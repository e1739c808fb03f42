//! A network in memory: three closed epochs, sets that change, a double vote, an outlier.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

pub mod server;

use perturb_audit::source::{Local, Source};
use perturb_audit::{AuditError, Nodes, TrustAnchor};
use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_ledger::genesis::{Aggregation, Draws, GenesisDelegation, SpotChecks, Timeouts};
use perturb_ledger::images;
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::proofs::{Tree, key_hash};
use perturb_ledger::seeds::{self, Lots, SeedsRow};
use perturb_ledger::tx::{Delegation, Order, OwnerAction, Readiness};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::verdict::{CheckVerdict, Checked};
use perturb_ledger::{
    Block, Certificate, ChainReference, ChallengeSpec, Commit, DoubleVote, Equivocation, Executed, Genesis, Ledger,
    MemoryStore, Neuron, Parameters, ProposalInput, Pulse, Snapshot, Transaction, VoteKind, query, receipt,
    vote_sign_bytes,
};
use perturb_types::round::{AnswerStatement, Meaning};
use perturb_types::{
    Beacon, ChallengeId, ConsensusPair, Digest, Hotkey, HotkeyPair, Measurement, Millionths, NetworkId, Reason,
    RoundCommits, RoundId, RoundOpen, RoundPair, RoundResult, RoundSkip, Signed,
};
use serde_json::Value;

pub const CHALLENGE: ChallengeId = ChallengeId(0);

/// The height that the double vote was given at, and by which validator.
pub const FAULT: (u64, usize) = (5, 1);

pub struct World {
    pub hotkeys: Vec<HotkeyPair>,
    pub keys: Vec<ConsensusPair>,
    pub miners: Vec<HotkeyPair>,
    pub genesis: Genesis,
    pub ledger: Ledger<MemoryStore>,
    /// Who is no longer registered where an epoch closes from now on.
    pub gone: Vec<Hotkey>,
    seqs: Vec<u64>,
}

/// A result signed by a validator.
pub fn sign_as(network: &NetworkId, v: usize, result: RoundResult) -> Transaction {
    let key = ConsensusPair::from_seed(&[11 + v as u8; 32]);
    Transaction::RoundResult(Signed::sign(&key, network, result).into_envelope())
}

fn hot(i: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&[i; 32]).unwrap()
}

fn snapshot(hotkeys: &[HotkeyPair], miners: &[HotkeyPair], reference: ChainReference) -> Snapshot {
    let neuron = |(uid, (p, permit)): (usize, (&HotkeyPair, bool))| Neuron {
        uid: uid as u16,
        hotkey: p.hotkey(),
        coldkey: [uid as u8; 32],
        stake_rao: if permit { 5000 } else { 0 },
        permit,
    };
    let all = hotkeys.iter().map(|p| (p, true)).chain(miners.iter().map(|p| (p, false)));
    Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: all.enumerate().map(neuron).collect(),
    }
}

fn reference(epoch_index: u64) -> ChainReference {
    let number = 10 * (epoch_index + 1);
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

impl World {
    /// Four founders, a fifth with a permit, three miners; histories of two.
    pub fn new() -> Self {
        let hotkeys: Vec<_> = (1..=5).map(hot).collect();
        let keys: Vec<_> = (11..=15).map(|i| ConsensusPair::from_seed(&[i; 32])).collect();
        let miners: Vec<_> = (21..=23).map(hot).collect();
        let ms = 1000;
        let genesis = Genesis {
            chain_genesis: Digest([1; 32]),
            netuid: 2,
            time_ms: 1000,
            snapshot: snapshot(&hotkeys, &miners, reference(0)),
            delegations: (0..4)
                .map(|i| GenesisDelegation::of(&Delegation::sign(&NetworkId([0; 32]), &hotkeys[i], &keys[i], 0)))
                .collect(),
            owner: hot(31).hotkey(),
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
                miners_per_round: 8,
                aggregation: Aggregation::Quantile,
                min_confidence: 50_000,
            }],
            parameters: Parameters {
                min_stake_rao: 1000,
                power: PowerRule::Equal,
                block_interval_ms: 1000,
                max_block_transactions: 100,
                max_block_bytes: 1 << 20,
                max_rounds_per_epoch: 4,
                open_round_blocks: 3,
                burn_uid: 0,
                timeouts: Timeouts {
                    propose_ms: ms,
                    propose_delta_ms: ms,
                    prevote_ms: ms,
                    prevote_delta_ms: ms,
                    precommit_ms: ms,
                    precommit_delta_ms: ms,
                },
                // Half of the rounds are checked.
                spot_checks: SpotChecks { rate: 500_000, window_blocks: 4, margin_tolerance: 50_000 },
                reputation: Default::default(),
                min_work: 10,
                proposal_age_ms: 10_000,
                order_delay_blocks: 1,
                draws: Draws { delay_ms: 20, pulse_stride: 1, retention_blocks: 100 },
            },
            beacon: Beacon { genesis_ms: 0, period_ms: 100, ..Beacon::DEVELOPMENT },
        };
        Self::of(genesis)
    }

    /// Another history of the same network. (The founders' signatures differ each time they are made.)
    pub fn beside(&self) -> Self {
        Self::of(self.genesis.clone())
    }

    /// Another network: the genesis with a change.
    pub fn with(change: impl FnOnce(&mut Genesis)) -> Self {
        let mut genesis = Self::new().genesis;
        change(&mut genesis);
        Self::of(genesis)
    }

    fn of(genesis: Genesis) -> Self {
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&genesis).unwrap());
        let ledger = Ledger::new(genesis.clone(), store).unwrap();
        Self {
            hotkeys: (1..=5).map(hot).collect(),
            keys: (11..=15).map(|i| ConsensusPair::from_seed(&[i; 32])).collect(),
            miners: (21..=23).map(hot).collect(),
            genesis,
            ledger,
            gone: Vec::new(),
            seqs: vec![0; 5],
        }
    }

    /// Epochs 0 to 2 closed, two blocks into epoch 3.
    ///
    /// Heights: 1 delegation and rounds, 2 rounds, 3 closes epoch 0 (the fifth validator joins);
    /// 4 an opening that nobody closes, 5 and 6 rounds and evidence, 7 closes epoch 1 (one leaves
    /// it); 8 and 9 rounds and the owner's orders (other rules, two more challenges), 10 removes one
    /// of them and closes epoch 2; 11, 12.
    pub fn epochs() -> Self {
        let mut w = Self::new();
        let join = Delegation::sign(&w.id(), &w.hotkeys[4], &w.keys[4], 0);
        let mut txs = vec![Transaction::KeyDelegation(Box::new(join))];
        txs.extend(w.rounds(&[0, 1, 2, 3]));
        w.step(txs);
        let txs = w.rounds(&[0, 1, 2, 3]);
        w.step(txs);
        let ready: Vec<_> = (0..5).map(|v| w.ready(v)).collect();
        w.close(ready);

        let open = w.open(2);
        w.step(vec![Transaction::RoundOpen(open.into_envelope())]);
        let txs = w.rounds(&[0, 1, 3, 4]);
        w.step(txs);
        let mut txs = w.rounds(&[0, 1, 3, 4]);
        txs.push(w.evidence());
        w.step(txs);
        // The second validator is silent: the others are enough, it is left out.
        let ready: Vec<_> = [0, 1, 3, 4].map(|v| w.ready(v)).to_vec();
        w.close(ready);

        let mut txs = w.rounds(&[0, 1, 3, 4]);
        txs.push(Transaction::RoundOpen(w.open(4).into_envelope()));
        w.step(txs);
        let spec = w.genesis.challenges[0].clone();
        let burning = ChallengeSpec { rules: Rules { burn: 100_000, ..spec.rules.clone() }, ..spec.clone() };
        let added =
            |id| Order::AddChallenge(Box::new(ChallengeSpec { id: ChallengeId(id), mechanism: 1, ..spec.clone() }));
        let mut txs =
            vec![w.order(0, Order::UpdateChallenge(Box::new(burning))), w.order(1, added(1)), w.order(2, added(2))];
        // The last one's round is open.
        txs.extend(w.rounds(&[0, 1, 3]));
        w.step(txs);
        let mut txs: Vec<_> = [0, 1, 3, 4].map(|v| w.ready(v)).to_vec();
        txs.push(w.order(3, Order::RemoveChallenge(ChallengeId(1))));
        w.close(txs);
        w.step(vec![]);
        let txs = w.rounds(&[0]);
        w.step(txs);
        w
    }

    pub fn id(&self) -> NetworkId {
        self.genesis.network_id()
    }

    pub fn anchor(&self) -> TrustAnchor {
        TrustAnchor::Genesis(Box::new(self.genesis.clone()))
    }

    pub fn miner(&self, i: usize) -> Hotkey {
        self.miners[i].hotkey()
    }

    pub fn digest(&self, height: u64) -> Digest {
        self.ledger.store().block(height).unwrap().0.header.digest(&self.id())
    }

    /// One honest node.
    pub fn node(&self) -> Local<MemoryStore> {
        Local { name: "honest".into(), archive: self.ledger.store().clone() }
    }

    pub fn nodes(&self) -> Nodes {
        Nodes(vec![Box::new(self.node())])
    }

    pub fn open(&mut self, v: usize) -> Signed<RoundOpen> {
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: CHALLENGE, seq: self.seqs[v] };
        self.seqs[v] += 1;
        let open = RoundOpen {
            round,
            epoch: seeds::drawing(self.ledger.store(), &round.validator).unwrap().map_or(0, |(epoch, ..)| epoch),
            image: Digest([round.seq as u8; 32]),
            miners: self.lots(v, &round).miners,
            opened_ms: 0,
        };
        Signed::sign(&self.keys[v], &self.id(), open)
    }

    /// The lots of a round that is opened now.
    fn lots(&self, v: usize, round: &RoundId) -> Lots {
        let (network, pair) = (self.id(), RoundPair::of(&self.keys[v]));
        let drawing = seeds::drawing(self.ledger.store(), &round.validator).unwrap();
        let seed = drawing.map_or_else(|| SeedsRow::first(&network).seed, |(.., seed)| seed);
        Lots::draw(&pair, &network, seed, round)
    }

    /// The first miner flips at level 1, the second at level 2, the third is silent. The fourth
    /// validator says that everybody was slow: an outlier.
    pub fn result(&self, v: usize, open: &Signed<RoundOpen>) -> RoundResult {
        let rules = &self.genesis.challenges[0].rules;
        let entries = self.miners.iter().enumerate().map(|(i, miner)| {
            if i == 2 {
                return Verdict::absent(rules, 3, miner.hotkey(), Reason::ResponseMissing, 0);
            }
            let level = 1 + i as u8;
            let measurement = Measurement {
                level,
                sum_squares: 100 * u64::from(level).pow(2),
                changed: 100,
                channels: 12_288,
                ssim: Millionths(999_000),
            };
            let verdict = Verdict {
                reason: Reason::Success,
                measurement,
                predicted: 4,
                margin_millionths: 500_000,
                semantic: Meaning::NotAsked,
            };
            let digest = Digest::of(format!("{v} {} {i}", open.round.seq).as_bytes());
            verdict.entry(rules, 3, miner.hotkey(), digest, if v == 3 { 15_000 } else { 500 + 50 * v as u32 }, false)
        });
        let lots = self.lots(v, &open.round);
        let upcoming =
            images::upcoming(self.ledger.store(), &self.id(), (CHALLENGE, 100), open.round.validator, &lots.value);
        let (source_index, transform) = upcoming.unwrap()[0];
        RoundResult {
            round: open.round,
            open: open.digest(),
            images: lots.images,
            skipped: vec![],
            source_index,
            transform,
            label: 3,
            entries: entries.collect(),
        }
    }

    /// What the miners bind themselves to for the answers of a result.
    pub fn bind(&self, v: usize, open: &Signed<RoundOpen>, result: &RoundResult) -> Transaction {
        let commits = self.miners.iter().zip(&result.entries).map(|(miner, entry)| {
            let (round, image) = (open.round, open.image);
            let bind = |answer| AnswerStatement::of(&self.id(), round, image, &miner.hotkey(), &answer);
            entry.answer.map(|answer| bind(answer).sign(miner, &self.id()))
        });
        let commits = RoundCommits { round: open.round, commits: commits.collect() };
        Transaction::RoundCommits(Signed::sign(&self.keys[v], &self.id(), commits).into_envelope())
    }

    /// Opening, commitments and result of a whole round of each.
    pub fn rounds(&mut self, validators: &[usize]) -> Vec<Transaction> {
        let mut out = Vec::new();
        for v in validators {
            let open = self.open(*v);
            let result = self.result(*v, &open);
            let bound = self.bind(*v, &open, &result);
            let result = sign_as(&self.id(), *v, result);
            out.extend([Transaction::RoundOpen(open.into_envelope()), bound, result]);
        }
        out
    }

    /// A round of this number none of whose images serves.
    pub fn skip(&self, v: usize, seq: u64) -> Transaction {
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: CHALLENGE, seq };
        let skip = RoundSkip { round, epoch: 0, images: self.lots(v, &round).images };
        Transaction::RoundSkip(Signed::sign(&self.keys[v], &self.id(), skip).into_envelope())
    }

    pub fn ready(&self, v: usize) -> Transaction {
        let ready = Readiness { hotkey: self.hotkeys[v].hotkey(), epoch: self.ledger.head().epoch };
        Transaction::Readiness(Signed::sign(&self.keys[v], &self.id(), ready).into_envelope())
    }

    /// What members say of the rounds that are checked in the next block, by who says it and whose round
    /// it is.
    pub fn verdicts(&self, of: impl Fn(usize, usize) -> Option<Checked>) -> Vec<Transaction> {
        let mut out = Vec::new();
        let (next, window) = (self.ledger.head().height + 1, self.ledger.parameters().spot_checks.window_blocks);
        for (round, row) in query::checks(self.ledger.store()).unwrap() {
            if row.drawn + window <= next {
                continue;
            }
            let accused = self.hotkeys.iter().position(|h| h.hotkey() == round.validator).unwrap();
            for (by, pair) in self.keys.iter().enumerate() {
                let Some(verdict) = of(by, accused) else { continue };
                let hotkey = self.hotkeys[by].hotkey();
                let v = CheckVerdict { hotkey, round, result: row.fresh.result, verdict };
                out.push(Transaction::CheckVerdict(Signed::sign(pair, &self.id(), v).into_envelope()));
            }
        }
        out
    }

    pub fn order(&self, nonce: u64, order: Order) -> Transaction {
        Transaction::OwnerAction(Box::new(OwnerAction::sign(
            &self.id(),
            &hot(31),
            order,
            nonce,
            self.ledger.head().height + 2,
            100,
        )))
    }

    fn evidence(&self) -> Transaction {
        let (height, v) = FAULT;
        let digests = [Some(Digest([1; 32])), Some(Digest([2; 32]))];
        let signed = |digest| self.keys[v].sign(&vote_sign_bytes(&self.id(), VoteKind::Prevote, height, 0, digest));
        Transaction::Evidence(Box::new(Equivocation::Votes(DoubleVote {
            key: self.keys[v].public(),
            kind: VoteKind::Prevote,
            height,
            round: 0,
            digests,
            signatures: digests.map(signed),
        })))
    }

    /// Those members sign that are asked to.
    pub fn certify(&self, height: u64, digest: Digest, who: impl Fn(usize) -> bool) -> Certificate {
        let bytes = vote_sign_bytes(&self.id(), VoteKind::Precommit, height, 0, Some(digest));
        let member = |k: &ConsensusPair| self.ledger.validators().by_key(&k.public()).is_some();
        let signers = self.keys.iter().enumerate().filter(|(i, k)| member(k) && who(*i));
        Certificate::new(height, 0, digest, signers.map(|(_, k)| (k.public(), k.sign(&bytes))).collect())
    }

    fn input(&self, transactions: Vec<Transaction>) -> ProposalInput {
        ProposalInput {
            time_ms: self.ledger.head().time_ms + 10,
            proposer: self.keys[0].public(),
            reference: self.ledger.head().reference.clone(),
            snapshot: None,
            transactions,
        }
    }

    fn propose(&self, input: ProposalInput) -> (Block, Executed) {
        let wanted = input.transactions.len() + usize::from(input.snapshot.is_some());
        let (block, executed) = self.ledger.propose(input).unwrap();
        assert_eq!(block.body.transactions.len(), wanted, "every transaction has to execute");
        (block, executed)
    }

    fn commit(&mut self, block: &Block, executed: Executed) {
        // The first validator never signs: somebody is missing, and the quorum holds.
        let certificate = self.certify(block.header.height, executed.digest(), |i| i != 0);
        let commit = self.ledger.commit(executed, certificate).unwrap();
        self.ledger.store_mut().commit(&commit);
    }

    /// The pulses that are waited for: half a round of the beacon after the blocks that closed the rounds.
    fn pulses(&self) -> impl Iterator<Item = Transaction> {
        let awaited = query::awaited_pulses(self.ledger.store()).unwrap();
        awaited.into_iter().map(|round| Transaction::Pulse(Pulse::of_development(round).unwrap()))
    }

    pub fn step(&mut self, mut transactions: Vec<Transaction>) {
        transactions.extend(self.pulses());
        let (block, executed) = self.propose(self.input(transactions));
        self.commit(&block, executed);
    }

    fn closing(&self, transactions: Vec<Transaction>) -> ProposalInput {
        let reference = reference(self.ledger.head().reference.epoch_index + 1);
        let mut snapshot = snapshot(&self.hotkeys, &self.miners, reference.clone());
        snapshot.neurons.retain(|n| !self.gone.contains(&n.hotkey));
        ProposalInput { snapshot: Some(snapshot), reference, ..self.input(transactions) }
    }

    pub fn close(&mut self, mut transactions: Vec<Transaction>) {
        transactions.extend(self.pulses());
        let (block, executed) = self.propose(self.closing(transactions));
        self.commit(&block, executed);
    }

    /// A block whose outcome a quorum agreed to change: `change` gets what the rules made. With
    /// `closes` it closes the epoch.
    pub fn lie(&mut self, closes: bool, change: impl FnOnce(&mut Commit)) {
        let rounds = self.rounds(&[0, 1]);
        let input = if closes { self.closing(rounds) } else { self.input(rounds) };
        let (block, executed) = self.propose(input);
        let mut store = self.ledger.store().clone();
        let height = block.header.height;
        let members = self.certify(height, executed.digest(), |_| true);
        let mut commit = self.ledger.commit(executed, members).unwrap();
        change(&mut commit);
        let leaves = commit.values.iter().map(|(k, v)| (key_hash(k), v.clone()));
        let (root, tree) = Tree::new(&store).put_value_set(leaves, height).unwrap();
        commit.tree = tree;
        let network = self.genesis.network_id();
        for (receipt, transaction) in commit.receipts.iter_mut().zip(&commit.block.body.transactions) {
            receipt.transaction = transaction.digest(&network);
        }
        let header = &mut commit.block.header;
        header.transactions = commit.block.body.transactions.len() as u32;
        header.transactions_root = commit.block.body.root(&network);
        header.state_root = Digest(root.0);
        header.results_root = receipt::root(&self.genesis.network_id(), &commit.receipts);
        commit.digest = header.digest(&self.genesis.network_id());
        // The set of the height before this block: rebuilt from the store it stands on.
        let before = Ledger::new(self.genesis.clone(), store.clone()).unwrap();
        let after = std::mem::replace(&mut self.ledger, before);
        commit.certificate = Some(self.certify(height, commit.digest, |_| true));
        drop(after);
        store.commit(&commit);
        self.ledger = Ledger::new(self.genesis.clone(), store).unwrap();
    }
}

/// A node that changes its answers: `twist` gets the method and the honest answer.
pub struct Twisted<F> {
    pub inner: Local<MemoryStore>,
    pub twist: F,
}

impl<F: Fn(&str, Value) -> Value> Source for Twisted<F> {
    fn name(&self) -> &str {
        "twisted"
    }

    fn call(&self, method: &str, params: Value) -> Result<Value, AuditError> {
        Ok((self.twist)(method, self.inner.call(method, params)?))
    }
}

/// The text of a hex value with one digit of its bytes changed.
pub fn flip(value: &mut Value, at: usize) {
    let text = value.as_str().unwrap();
    let mut bytes = hex::decode(text).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 1;
    *value = Value::String(hex::encode(bytes));
}
