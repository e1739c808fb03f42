//! A network in memory: six heights, two closed epochs, a set that changes. The same in every run.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use perturb_challenge::used::Used;
use perturb_challenge::verify::Verdict;
use perturb_ledger::images::Pass;
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::seeds::{Lots, SeedsRow};
use perturb_ledger::tx::{Order, Readiness};
use perturb_ledger::verdict::{CheckVerdict, Checked, Finding};
use perturb_ledger::{
    Block, Certificate, ChainReference, DoubleVote, Equivocation, Executed, Genesis, Ledger, MemoryStore,
    ProposalInput, Pulse, Snapshot, Transaction, VoteKind, query, vote_sign_bytes,
};
use perturb_types::round::{Meaning, TransformSecret};
use perturb_types::{
    ChallengeId, ConsensusPair, Digest, Measurement, Millionths, NetworkId, Reason, RoundCommits, RoundId, RoundOpen,
    RoundPair, RoundResult, Signed,
};

use crate::origin;
use crate::people::Signer;

/// The one challenge.
pub const CHALLENGE: ChallengeId = ChallengeId(0);

/// The players and their history.
pub struct World {
    /// Validators; the fifth joins with epoch 1.
    pub hotkeys: Vec<Signer>,
    /// Their consensus keys.
    pub keys: Vec<ConsensusPair>,
    /// Miners.
    pub miners: Vec<Signer>,
    /// The owner.
    pub owner: Signer,
    /// Where it begins.
    pub genesis: Genesis,
    /// Its id.
    pub network: NetworkId,
    /// The store after each height, from 0.
    pub stores: Vec<MemoryStore>,
    /// Every block with its certificate, from height 1.
    pub blocks: Vec<(Block, Certificate)>,
}

/// The one world; made on first use.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

/// A finalized block of the chain.
pub fn reference(epoch_index: u64) -> ChainReference {
    let number = 10 * (epoch_index + 1);
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

impl World {
    fn new() -> Self {
        let hotkeys: Vec<_> = (1..=5).map(Signer::of).collect();
        let keys: Vec<_> = (11..=15).map(|i| ConsensusPair::from_seed(&[i; 32])).collect();
        let miners: Vec<_> = (21..=23).map(Signer::of).collect();
        let owner = Signer::of(31);
        let genesis = origin::genesis(&hotkeys, &keys, &miners, &owner);
        let network = genesis.network_id();
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&genesis).unwrap());
        let mut world =
            Self { hotkeys, keys, miners, owner, genesis, network, stores: vec![store], blocks: Vec::new() };
        world.live();
        world
    }

    fn live(&mut self) {
        let joins = self.hotkeys[4].delegate(&self.network, &self.keys[4], 0);
        let mut txs = vec![Transaction::KeyDelegation(Box::new(joins))];
        txs.extend((0..4).flat_map(|v| self.whole(v, 0, 0)));
        self.step(txs, None);
        let mut txs: Vec<_> = (0..3).flat_map(|v| self.whole(v, 1, 0)).collect();
        txs.extend([self.evidence(), self.order(Order::SetRequiredVersion(0, 1, 0), 0, 4)]);
        txs.push(Transaction::RoundOpen(self.open(3, 1, 0).into_envelope()));
        self.step(txs, None);
        let ready = (0..5).map(|v| self.ready(v, 0)).collect();
        self.step(ready, Some(1));
        // The pulse that gives epoch 1 its seed comes last: the first seed draws these.
        let mut txs = [0, 1].map(|v| self.whole(v, 2, 0)).concat();
        txs.extend(self.verdicts());
        self.step(txs, None);
        // The second validator is silent and leaves the set.
        let ready = [0, 2, 3, 4].map(|v| self.ready(v, 1)).to_vec();
        self.step(ready, Some(2));
        self.step(Vec::new(), None);
    }

    /// A ledger that stands at a height.
    pub fn ledger(&self, height: usize) -> Ledger<MemoryStore> {
        Ledger::new(self.genesis.clone(), self.stores[height].clone()).unwrap()
    }

    /// The subnet at a block of the chain.
    pub fn snapshot(&self, reference: ChainReference) -> Snapshot {
        origin::snapshot(&self.hotkeys, &self.miners, reference)
    }

    /// The lots of a round under the first seed, which draws all of the world's.
    pub fn lots(&self, v: usize, seq: u64) -> Lots {
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: CHALLENGE, seq };
        let seed = SeedsRow::first(&self.network).seed;
        Lots::draw(&RoundPair::of(&self.keys[v]), &self.network, seed, &round)
    }

    /// The image of a round whose validator has closed all before it.
    fn image(&self, v: usize, seq: u64) -> u64 {
        let mut pass = Pass::new(Used::new(self.genesis.challenges[0].source_len), BTreeMap::new());
        (0..=seq.min(8)).map(|seq| pass.draw(&self.network, &self.lots(v, seq).value, 1).unwrap()[0]).last().unwrap()
    }

    /// A signed opening.
    pub fn open(&self, v: usize, seq: u64, epoch: u64) -> Signed<RoundOpen> {
        let round = RoundId { validator: self.hotkeys[v].hotkey(), challenge: CHALLENGE, seq };
        let (image, miners) = (Digest([seq as u8; 32]), self.lots(v, seq).miners);
        let open = RoundOpen { round, epoch, image, miners, opened_ms: 0 };
        Signed::sign(&self.keys[v], &self.network, open)
    }

    /// The first miner flips at level 1, the second at level 2, the third is silent.
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
            verdict.entry(rules, 3, miner.hotkey(), digest, 500, false)
        });
        let lots = self.lots(v, open.round.seq);
        RoundResult {
            round: open.round,
            open: open.digest(),
            images: lots.images,
            skipped: vec![],
            source_index: self.image(v, open.round.seq),
            transform: TransformSecret::of(&self.network, &lots.value, 0),
            label: 3,
            entries: entries.collect(),
        }
    }

    /// What the miners bind themselves to for the answers of a result.
    pub fn commits(&self, open: &RoundOpen, result: &RoundResult) -> RoundCommits {
        let commits = self.miners.iter().zip(&result.entries).map(|(miner, entry)| {
            entry.answer.map(|answer| miner.bind(&self.network, open.round, open.image, &answer))
        });
        RoundCommits { round: open.round, commits: commits.collect() }
    }

    /// Commitments, signed.
    pub fn sign_commits(&self, v: usize, commits: RoundCommits) -> Transaction {
        Transaction::RoundCommits(Signed::sign(&self.keys[v], &self.network, commits).into_envelope())
    }

    /// A result, signed.
    pub fn sign_result(&self, v: usize, result: RoundResult) -> Transaction {
        Transaction::RoundResult(Signed::sign(&self.keys[v], &self.network, result).into_envelope())
    }

    /// Opening, commitments and result of a round.
    pub fn whole(&self, v: usize, seq: u64, epoch: u64) -> Vec<Transaction> {
        let open = self.open(v, seq, epoch);
        let result = self.result(v, &open);
        let bound = self.sign_commits(v, self.commits(&open, &result));
        vec![Transaction::RoundOpen(open.into_envelope()), bound, self.sign_result(v, result)]
    }

    /// A validator's readiness.
    pub fn ready(&self, v: usize, epoch: u64) -> Transaction {
        let ready = Readiness { hotkey: self.hotkeys[v].hotkey(), epoch };
        Transaction::Readiness(Signed::sign(&self.keys[v], &self.network, ready).into_envelope())
    }

    /// A member's verdict on a drawn round.
    pub fn say(&self, v: usize, round: RoundId, result: Digest, verdict: Checked) -> Transaction {
        let word = CheckVerdict { hotkey: self.hotkeys[v].hotkey(), round, result, verdict };
        Transaction::CheckVerdict(Signed::sign(&self.keys[v], &self.network, word).into_envelope())
    }

    /// What three members say of every round that is drawn now: no two the same.
    fn verdicts(&self) -> Vec<Transaction> {
        let said = [Checked::Holds, Checked::Fails(Finding::Label), Checked::Unknown];
        let mut out = Vec::new();
        for (round, row) in self.stores.last().map(query::checks).unwrap().unwrap() {
            let others = (0..5).filter(|v| self.hotkeys[*v].hotkey() != round.validator);
            out.extend(others.zip(said).map(|(v, said)| self.say(v, round, row.fresh.result, said)));
        }
        out
    }

    /// An order of the owner.
    pub fn order(&self, order: Order, nonce: u64, effective: u64) -> Transaction {
        Transaction::OwnerAction(Box::new(self.owner.order(&self.network, order, nonce, effective, 100)))
    }

    /// The fourth validator has voted twice.
    pub fn evidence(&self) -> Transaction {
        let digests = [Some(Digest([1; 32])), Some(Digest([2; 32]))];
        let signed = |digest| self.keys[3].sign(&vote_sign_bytes(&self.network, VoteKind::Prevote, 1, 0, digest));
        Transaction::Evidence(Box::new(Equivocation::Votes(DoubleVote {
            key: self.keys[3].public(),
            kind: VoteKind::Prevote,
            height: 1,
            round: 0,
            digests,
            signatures: digests.map(signed),
        })))
    }

    /// The input for the next block of a ledger; with `closes`, the chain has come to that epoch index.
    pub fn input(
        &self,
        ledger: &Ledger<MemoryStore>,
        transactions: Vec<Transaction>,
        closes: Option<u64>,
    ) -> ProposalInput {
        let reference = closes.map_or_else(|| ledger.head().reference.clone(), reference);
        ProposalInput {
            time_ms: ledger.head().time_ms.saturating_add(10),
            proposer: self.keys[0].public(),
            snapshot: closes.map(|_| self.snapshot(reference.clone())),
            reference,
            transactions,
        }
    }

    /// Every member but the first signs: somebody is missing, and the quorum holds.
    pub fn certify(&self, ledger: &Ledger<MemoryStore>, executed: &Executed) -> Certificate {
        let (height, digest) = (executed.block().header.height, executed.digest());
        let bytes = vote_sign_bytes(&self.network, VoteKind::Precommit, height, 0, Some(digest));
        let members = self.keys.iter().skip(1).filter(|k| ledger.validators().by_key(&k.public()).is_some());
        Certificate::new(height, 0, digest, members.map(|k| (k.public(), k.sign(&bytes))).collect())
    }

    /// The pulses that a ledger waits for.
    pub fn pulses(&self, ledger: &Ledger<MemoryStore>) -> Vec<Transaction> {
        let awaited = query::awaited_pulses(ledger.store()).unwrap();
        awaited.into_iter().map(|round| Transaction::Pulse(Pulse::of_development(round).unwrap())).collect()
    }

    fn step(&mut self, mut transactions: Vec<Transaction>, closes: Option<u64>) {
        let mut ledger = self.ledger(self.stores.len() - 1);
        transactions.extend(self.pulses(&ledger));
        let wanted = transactions.len() + usize::from(closes.is_some());
        let (block, executed) = ledger.propose(self.input(&ledger, transactions, closes)).unwrap();
        assert_eq!(block.body.transactions.len(), wanted, "every transaction of the world executes");
        let certificate = self.certify(&ledger, &executed);
        let commit = ledger.commit(executed, certificate.clone()).unwrap();
        ledger.store_mut().commit(&commit);
        self.stores.push(ledger.store().clone());
        self.blocks.push((block, certificate));
    }
}
