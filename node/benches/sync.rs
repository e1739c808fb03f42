//! Catching up: blocks a second from a peer's range answers to synced commits in RocksDB, through the
//! same machine and storage as in the node; beside it the bare work, signatures and execution in memory.
//! Four validators; each block opens and closes one round of six answers.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::VecDeque;

use divan::Bencher;
use divan::counter::ItemsCount;
use perturb::localnet::genesis;
use perturb::localnet::plan::Plan;
use perturb_challenge::verify::Verdict;
use perturb_consensus::wire::{MAX_RANGE_BYTES, Peer, Request, Response};
use perturb_consensus::{Action, Config, Event, Machine, Planted, TimerId};
use perturb_ledger::images;
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::seeds::{self, Lots};
use perturb_ledger::{
    Block, Certificate, ChainReference, Genesis, Ledger, MemoryStore, Neuron, ProposalInput, Snapshot, StateStore,
    Transaction, VoteKind, vote_sign_bytes,
};
use perturb_storage::{Database, Options};
use perturb_types::{ChallengeId, Digest, Reason, RoundId, RoundOpen, RoundPair, RoundResult, Signed, encode};

/// Blocks to fetch.
const BLOCKS: u64 = 500;

/// Validators.
const FOUNDERS: u16 = 4;

fn main() {
    divan::main();
}

/// A history, and the ones who made it.
struct History {
    plan: Plan,
    genesis: Genesis,
    blocks: Vec<(Block, Certificate)>,
    _dir: tempfile::TempDir,
}

fn snapshot(plan: &Plan) -> Snapshot {
    let all = plan.validators.iter().chain(&plan.miners).enumerate();
    let neurons = all.map(|(uid, member)| Neuron {
        uid: uid as u16,
        hotkey: member.hotkey.hotkey(),
        coldkey: [uid as u8; 32],
        stake_rao: if member.kind.is_none() { 5000 * 1_000_000_000 } else { 0 },
        permit: member.kind.is_none(),
    });
    Snapshot {
        reference: ChainReference { number: 1, hash: Digest([1; 32]), epoch_index: 0 },
        tempo: 360,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: neurons.collect(),
    }
}

impl History {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan::new(dir.path(), 1, FOUNDERS, 0, 6).unwrap();
        let genesis = genesis::of(&plan, Digest([1; 32]), snapshot(&plan)).unwrap();
        let mut this = Self { plan, genesis, blocks: Vec::new(), _dir: dir };
        this.write();
        this
    }

    /// One round of a validator, opened and closed.
    fn round(&self, store: &MemoryStore, who: usize, seq: u64) -> [Transaction; 2] {
        let (id, member) = (self.genesis.network_id(), &self.plan.validators[who]);
        let pair = self.plan.consensus(member);
        let round = RoundId { validator: member.hotkey.hotkey(), challenge: ChallengeId(0), seq };
        let (epoch, _, seed) = seeds::drawing(store, &round.validator).unwrap().unwrap();
        let lots = Lots::draw(&RoundPair::of(&pair), &id, seed, &round);
        let of = (round.challenge, self.genesis.challenges[0].source_len);
        let (source_index, transform) = images::upcoming(store, &id, of, round.validator, &lots.value).unwrap()[0];
        let miners: Vec<_> = self.plan.miners.iter().map(|m| m.hotkey.hotkey()).collect();
        let rules = &self.genesis.challenges[0].rules;
        let entries = miners.iter().map(|m| Verdict::absent(rules, 3, *m, Reason::ResponseMissing, 0)).collect();
        let image = Digest::of(&[seq.to_le_bytes().as_slice(), &[who as u8]].concat());
        let open = RoundOpen { round, epoch, image, miners: lots.miners, opened_ms: 0 };
        let open = Signed::sign(&pair, &id, open);
        let (images, skipped) = (lots.images, vec![]);
        let result =
            RoundResult { round, open: open.digest(), images, skipped, source_index, transform, label: 3, entries };
        let result = Signed::sign(&pair, &id, result);
        [Transaction::RoundOpen(open.into_envelope()), Transaction::RoundResult(result.into_envelope())]
    }

    fn write(&mut self) {
        let mut ledger = self.ledger();
        let pairs: Vec<_> = self.plan.validators.iter().map(|v| self.plan.consensus(v)).collect();
        for height in 1..=BLOCKS {
            let who = (height % u64::from(FOUNDERS)) as usize;
            let input = ProposalInput {
                time_ms: ledger.head().time_ms + 1000,
                proposer: pairs[who].public(),
                snapshot: None,
                reference: ledger.head().reference.clone(),
                transactions: self.round(ledger.store(), who, (height - 1) / u64::from(FOUNDERS)).to_vec(),
            };
            let (_, executed) = ledger.propose(input).unwrap();
            let bytes = vote_sign_bytes(&ledger.network(), VoteKind::Precommit, height, 0, Some(executed.digest()));
            let signatures = pairs.iter().map(|p| (p.public(), p.sign(&bytes))).collect();
            let certificate = Certificate::new(height, 0, executed.digest(), signatures);
            let commit = ledger.commit(executed, certificate.clone()).unwrap();
            assert_eq!(commit.block.body.transactions.len(), 2, "the round is in");
            ledger.store_mut().commit(&commit);
            self.blocks.push((commit.block, certificate));
        }
    }

    /// A ledger at genesis, in memory.
    fn ledger(&self) -> Ledger<MemoryStore> {
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&self.genesis).unwrap());
        Ledger::new(self.genesis.clone(), store).unwrap()
    }

    fn range(&self, request: &[u8]) -> Vec<u8> {
        let Ok(Request::Blocks { from, count }) = encode::decode("request", request, 64) else {
            panic!("it asks for something else")
        };
        let blocks = self.blocks.iter().skip(from as usize - 1).take(usize::from(count));
        let response = Response::range(blocks.map(|(b, c)| (encode::encode(b), encode::encode(c))));
        let bytes = encode::encode(&response);
        assert!(bytes.len() <= MAX_RANGE_BYTES + (1 << 20));
        bytes
    }
}

/// The node's machine on RocksDB, fed by one peer.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn fetched(bencher: Bencher) {
    let history = History::new();
    bencher.counter(ItemsCount::new(BLOCKS)).bench_local(|| {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path(), &history.genesis.network_id(), Options::default()).unwrap();
        database.commit(&genesis_commit(&history.genesis).unwrap()).unwrap();
        let ledger = Ledger::new(history.genesis.clone(), database.clone()).unwrap();
        let pair = history.plan.consensus(&history.plan.validators[0]);
        let config = Config { pair, peer: Peer([1; 32]), startup_grace_ms: 1000, planted: Planted::Nothing };
        let mut machine = Machine::new(config, ledger).unwrap();
        let (peer, mut now) = (Peer([2; 32]), 1_000_000);
        let mut events = VecDeque::from([
            Event::Start { records: Vec::new(), guard: None },
            Event::PeerStatus { peer, height: BLOCKS },
        ]);
        while machine.status().height < BLOCKS {
            let event = events.pop_front().unwrap_or(Event::Timer(TimerId::Tick));
            now += 10;
            for action in machine.step(now, event) {
                match action {
                    Action::AppendLog { height, record } => database.append_log(height, &record).unwrap(),
                    Action::SyncLog => database.sync_log().unwrap(),
                    Action::Ask { id, to, bytes } => {
                        events.push_back(Event::Response { id, from: to, bytes: Some(history.range(&bytes)) });
                    }
                    Action::Commit(commit) => {
                        database.commit(&commit).unwrap();
                        events.push_back(Event::Committed { height: commit.height });
                    }
                    Action::Penalise { reason, .. } | Action::Halt { reason } => panic!("{reason}"),
                    _ => {}
                }
            }
        }
        let root = database.newest().unwrap().unwrap().0.state_root;
        assert_eq!(root, history.blocks.last().unwrap().0.header.state_root);
    });
}

/// Signatures and execution alone, in memory.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn bare(bencher: Bencher) {
    let history = History::new();
    bencher.counter(ItemsCount::new(BLOCKS)).bench_local(|| {
        let mut ledger = history.ledger();
        for (block, certificate) in &history.blocks {
            certificate.verify(&ledger.network(), ledger.validators()).unwrap();
            let executed = ledger.check(block).unwrap();
            let commit = ledger.commit(executed, certificate.clone()).unwrap();
            ledger.store_mut().commit(&commit);
        }
    });
}
