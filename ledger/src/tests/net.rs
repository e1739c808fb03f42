//! A network of four founders, a fifth with a permit, and three miners.

use std::cell::RefCell;
use std::collections::BTreeMap;

use perturb_challenge::used::Used;

use super::*;
use crate::images::Pass;
use crate::seeds::{Lots, SeedsRow};

/// Lots and images.
type Drawn = Vec<(Lots, u64)>;

pub(super) struct Net {
    pub(super) hotkeys: Vec<HotkeyPair>,
    pub(super) keys: Vec<ConsensusPair>,
    pub(super) miners: Vec<HotkeyPair>,
    pub(super) owner: HotkeyPair,
    pub(super) genesis: Genesis,
    /// The seeds after the newest block; none before the first.
    seeds: RefCell<Option<SeedsRow>>,
    /// What validators drew for their rounds, by number, and the pass that it leads to.
    drawn: RefCell<BTreeMap<usize, (Pass, Drawn)>>,
}

pub(super) fn reference(number: u64, epoch_index: u64) -> ChainReference {
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

impl Net {
    /// Four founders, a fifth with a permit, three miners; histories of two.
    pub(super) fn new() -> Self {
        Self::of(4)
    }

    /// So many founders (fewer than 20), one more with a permit, three miners; histories of two.
    pub(super) fn of(founders: usize) -> Self {
        let hot = |i: u8| HotkeyPair::from_seed(&[i; 32]).unwrap();
        let hotkeys: Vec<_> = (1..=founders as u8 + 1).map(hot).collect();
        let keys: Vec<_> = (11..=founders as u8 + 11).map(|i| ConsensusPair::from_seed(&[i; 32])).collect();
        let miners: Vec<_> = (21..=23).map(hot).collect();
        let owner = hot(31);
        let rules = Rules::subnet().with_history_len(2);
        let genesis = Genesis {
            chain_genesis: Digest([1; 32]),
            netuid: 2,
            time_ms: 1000,
            snapshot: Self::snapshot_of(&hotkeys, &miners, reference(1, 0)),
            delegations: (0..founders)
                .map(|i| GenesisDelegation::of(&Delegation::sign(&ZERO, &hotkeys[i], &keys[i], 0)))
                .collect(),
            owner: owner.hotkey(),
            challenges: vec![ChallengeSpec {
                id: ChallengeId(0),
                mechanism: 0,
                rules,
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
                open_round_blocks: 5,
                burn_uid: 0,
                timeouts: Timeouts {
                    propose_ms: 1000,
                    propose_delta_ms: 500,
                    prevote_ms: 1000,
                    prevote_delta_ms: 500,
                    precommit_ms: 1000,
                    precommit_delta_ms: 500,
                },
                spot_checks: Default::default(),
                reputation: Default::default(),
                min_work: 10,
                proposal_age_ms: 10_000,
                order_delay_blocks: 1,
                draws: Draws { delay_ms: 50, pulse_stride: 2, retention_blocks: 100 },
            },
            // Before a pulse draws, five blocks go by: they are 10 ms apart.
            beacon: Beacon { genesis_ms: 0, period_ms: 100, ..Beacon::DEVELOPMENT },
        };
        let (seeds, drawn) = Default::default();
        Self { hotkeys, keys, miners, owner, genesis, seeds, drawn }
    }

    pub(super) fn snapshot_of(hotkeys: &[HotkeyPair], miners: &[HotkeyPair], reference: ChainReference) -> Snapshot {
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

    pub(super) fn snapshot(&self, reference: ChainReference) -> Snapshot {
        Self::snapshot_of(&self.hotkeys, &self.miners, reference)
    }

    pub(super) fn id(&self) -> NetworkId {
        self.genesis.network_id()
    }

    pub(super) fn ledger(&self) -> Ledger<MemoryStore> {
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&self.genesis).unwrap());
        Ledger::new(self.genesis.clone(), store).unwrap()
    }

    pub(super) fn round(&self, v: usize, seq: u64) -> RoundId {
        RoundId { validator: self.hotkeys[v].hotkey(), challenge: ChallengeId(0), seq }
    }

    /// The active seed, and the epoch it is of.
    pub(super) fn seed(&self) -> (u64, Digest) {
        let first = || SeedsRow::first(&self.id());
        let seeds = self.seeds.borrow_mut().get_or_insert_with(first).clone();
        (seeds.epoch, seeds.seed)
    }

    /// The lots of a round, drawn with the seed that was active when they were asked for first, and its
    /// image, where all rounds before it are closed.
    pub(super) fn lots(&self, v: usize, seq: u64) -> (Lots, u64) {
        let (seed, id) = (self.seed().1, self.id());
        let first = || Pass::new(Used::new(self.genesis.challenges[0].source_len), BTreeMap::new());
        let mut all = self.drawn.borrow_mut();
        let (pass, drawn) = all.entry(v).or_insert_with(|| (first(), Vec::new()));
        while drawn.len() as u64 <= seq {
            let round = self.round(v, drawn.len() as u64);
            let lots = Lots::draw(&RoundPair::of(&self.keys[v]), &id, seed, &round);
            drawn.push((lots, pass.draw(&id, &lots.value, 1).unwrap()[0]));
        }
        drawn[seq as usize]
    }

    /// `epoch` is the one in the making, for the reader; what is drawn with is the active pair.
    pub(super) fn open(&self, v: usize, seq: u64, _epoch: u64) -> Signed<RoundOpen> {
        let (round, miners) = (self.round(v, seq), self.lots(v, seq).0.miners);
        let open = RoundOpen { round, epoch: self.seed().0, image: Digest([seq as u8; 32]), miners, opened_ms: 0 };
        Signed::sign(&self.keys[v], &self.id(), open)
    }

    /// The first miner flips at level 1, the second at level 2, the third is silent.
    pub(super) fn result(&self, v: usize, open: &Signed<RoundOpen>) -> RoundResult {
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
        let (lots, source_index) = self.lots(v, open.round.seq);
        RoundResult {
            round: open.round,
            open: open.digest(),
            images: lots.images,
            transform: TransformSecret::of(&self.id(), &lots.value, 0),
            skipped: vec![],
            source_index,
            label: 3,
            entries: entries.collect(),
        }
    }

    /// What the miners bind themselves to for the answers of a result.
    pub(super) fn commits(&self, open: &Signed<RoundOpen>, result: &RoundResult) -> RoundCommits {
        let commits = self.miners.iter().zip(&result.entries).map(|(miner, entry)| {
            let (round, image) = (open.round, open.image);
            let bind = |answer| AnswerStatement::of(&self.id(), round, image, &miner.hotkey(), &answer);
            entry.answer.map(|answer| bind(answer).sign(miner, &self.id()))
        });
        RoundCommits { round: open.round, commits: commits.collect() }
    }

    pub(super) fn bind(&self, v: usize, commits: RoundCommits) -> Transaction {
        Transaction::RoundCommits(Signed::sign(&self.keys[v], &self.id(), commits).into_envelope())
    }

    pub(super) fn sign(&self, v: usize, result: RoundResult) -> Transaction {
        Transaction::RoundResult(Signed::sign(&self.keys[v], &self.id(), result).into_envelope())
    }

    /// Opening, commitments and result of a whole round.
    pub(super) fn whole(&self, v: usize, seq: u64, epoch: u64) -> [Transaction; 3] {
        let open = self.open(v, seq, epoch);
        let result = self.result(v, &open);
        let commits = self.bind(v, self.commits(&open, &result));
        [Transaction::RoundOpen(open.into_envelope()), commits, self.sign(v, result)]
    }

    pub(super) fn ready(&self, v: usize, epoch: u64) -> Transaction {
        let ready = Readiness { hotkey: self.hotkeys[v].hotkey(), epoch };
        Transaction::Readiness(Signed::sign(&self.keys[v], &self.id(), ready).into_envelope())
    }

    pub(super) fn input(&self, l: &Ledger<MemoryStore>, transactions: Vec<Transaction>) -> ProposalInput {
        ProposalInput {
            time_ms: l.head().time_ms + 10,
            proposer: self.keys[0].public(),
            reference: l.head().reference.clone(),
            snapshot: None,
            transactions,
        }
    }

    /// Every member of the set signs.
    pub(super) fn certify(&self, l: &Ledger<MemoryStore>, executed: &Executed) -> Certificate {
        let height = executed.block().header.height;
        let bytes = vote_sign_bytes(&self.id(), VoteKind::Precommit, height, 0, Some(executed.digest()));
        let members = self.keys.iter().filter(|k| l.validators().by_key(&k.public()).is_some());
        let signatures = members.map(|k| (k.public(), k.sign(&bytes))).collect();
        Certificate::new(height, 0, executed.digest(), signatures)
    }

    /// Proposes, checks on a second ledger, commits on both.
    pub(super) fn step(&self, ls: &mut [Ledger<MemoryStore>; 2], input: ProposalInput) -> Block {
        let (block, executed) = ls[0].propose(input).unwrap();
        let read = Block::decode(&encode::encode(&block)).unwrap();
        let checked = ls[1].check(&read).unwrap();
        let certificate = self.certify(&ls[0], &executed);
        certificate.verify(&self.id(), ls[0].validators()).unwrap();
        for (l, e) in ls.iter_mut().zip([executed, checked]) {
            let commit = l.commit(e, certificate.clone()).unwrap();
            l.store_mut().commit(&commit);
        }
        assert_eq!(ls[0].head(), ls[1].head());
        *self.seeds.borrow_mut() = state::read(ls[0].store(), state::SEEDS).unwrap();
        block
    }

    pub(super) fn step_empty(&self, ls: &mut [Ledger<MemoryStore>; 2]) -> Block {
        let input = self.input(&ls[0], vec![]);
        self.step(ls, input)
    }

    /// A block with the pulses that are waited for and other transactions.
    pub(super) fn draw(&self, ls: &mut [Ledger<MemoryStore>; 2], txs: Vec<Transaction>) -> Block {
        let awaited = query::awaited_pulses(ls[0].store()).unwrap();
        let pulses = awaited.into_iter().map(|round| Transaction::Pulse(Pulse::of_development(round).unwrap()));
        let input = self.input(&ls[0], pulses.chain(txs).collect());
        self.step(ls, input)
    }

    pub(super) fn close(
        &self,
        ls: &mut [Ledger<MemoryStore>; 2],
        number: u64,
        index: u64,
        txs: Vec<Transaction>,
    ) -> Block {
        let reference = reference(number, index);
        let input =
            ProposalInput { snapshot: Some(self.snapshot(reference.clone())), reference, ..self.input(&ls[0], txs) };
        self.step(ls, input)
    }
}

pub(super) fn pair(net: &Net) -> [Ledger<MemoryStore>; 2] {
    [net.ledger(), net.ledger()]
}
