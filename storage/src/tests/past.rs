//! The archive and the check, on the history of a real ledger with one validator and one miner.

use perturb_challenge::rules::Rules;
use perturb_challenge::verify::Verdict;
use perturb_ledger::archive::Archive;
use perturb_ledger::genesis::{Aggregation, ChallengeSpec, Genesis, GenesisDelegation, Parameters, Timeouts};
use perturb_ledger::ledger::{Ledger, ProposalInput, genesis_commit};
use perturb_ledger::tx::{Delegation, Neuron, Readiness, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{Transaction, VoteKind, vote_sign_bytes};
use perturb_types::round::TransformSecret;
use perturb_types::{ChallengeId, ConsensusPair, HotkeyPair, Reason, RoundId, RoundOpen, RoundResult, Signed, encode};

use super::*;
use crate::check::Fault;

struct Lonely {
    hotkey: HotkeyPair,
    key: ConsensusPair,
    miner: HotkeyPair,
    genesis: Genesis,
}

fn reference(number: u64, epoch_index: u64) -> ChainReference {
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

impl Lonely {
    fn new() -> Self {
        let hotkey = HotkeyPair::from_seed(&[1; 32]).unwrap();
        let miner = HotkeyPair::from_seed(&[2; 32]).unwrap();
        let key = ConsensusPair::from_seed(&[3; 32]);
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
            netuid: 2,
            time_ms: 1000,
            snapshot: Self::snapshot(&hotkey, &miner, reference(1, 0)),
            delegations: vec![GenesisDelegation::of(&Delegation::sign(&NetworkId([0; 32]), &hotkey, &key, 0))],
            owner: hotkey.hotkey(),
            challenges: vec![ChallengeSpec {
                id: ChallengeId(0),
                mechanism: 0,
                rules: Rules::subnet().with_history_len(1),
                model: "demo".into(),
                model_digest: Digest([2; 32]),
                source: "demo:1:100".into(),
                source_fingerprint: Digest([3; 32]),
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
                max_open_rounds: 2,
                open_round_blocks: 9,
                burn_uid: 0,
                timeouts,
                spot_checks: Default::default(),
                reputation: Default::default(),
            },
        };
        Self { hotkey, key, miner, genesis }
    }

    fn snapshot(hotkey: &HotkeyPair, miner: &HotkeyPair, reference: ChainReference) -> Snapshot {
        let neuron = |uid: u16, hotkey: &HotkeyPair, permit: bool| Neuron {
            uid,
            hotkey: hotkey.hotkey(),
            coldkey: [uid as u8; 32],
            stake_rao: 5000,
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
            neurons: vec![neuron(0, hotkey, true), neuron(1, miner, false)],
        }
    }

    fn round(&self, seq: u64) -> [Transaction; 2] {
        let id = self.genesis.network_id();
        let round = RoundId { validator: self.hotkey.hotkey(), challenge: ChallengeId(0), seq };
        let secret = TransformSecret([7; 32]);
        let open = RoundOpen {
            round,
            epoch: 0,
            image: Digest([seq as u8; 32]),
            transform: secret.commitment(&id, &round),
            miners: vec![self.miner.hotkey()],
            opened_ms: 0,
        };
        let open = Signed::sign(&self.key, &id, open);
        let rules = &self.genesis.challenges[0].rules;
        let entries = vec![Verdict::absent(rules, 3, self.miner.hotkey(), Reason::ResponseMissing, 0)];
        let result =
            RoundResult { round, open: open.digest(), transform: secret, source_index: seq, label: 3, entries };
        let result = Signed::sign(&self.key, &id, result);
        [Transaction::RoundOpen(open.into_envelope()), Transaction::RoundResult(result.into_envelope())]
    }

    /// Six blocks, two closed epochs, in RocksDB and in memory.
    fn history(&self, dir: &Path) -> (Database, MemoryStore) {
        let db = Database::open(dir, &self.genesis.network_id(), Options::default()).unwrap();
        let mut memory = MemoryStore::default();
        let zero = genesis_commit(&self.genesis).unwrap();
        db.commit(&zero).unwrap();
        memory.commit(&zero);
        let mut ledger = Ledger::new(self.genesis.clone(), db.clone()).unwrap();
        for height in 1..=6u64 {
            let closes = height % 3 == 0;
            let at = if closes { reference(height * 10, height / 3) } else { ledger.head().reference.clone() };
            let mut transactions = self.round(height - 1).to_vec();
            if let (Transaction::RoundOpen(_), true) = (&transactions[0], ledger.head().epoch > 0) {
                transactions.clear();
            }
            if closes {
                let ready = Readiness { hotkey: self.hotkey.hotkey(), epoch: ledger.head().epoch };
                let signed = Signed::sign(&self.key, &self.genesis.network_id(), ready);
                transactions.push(Transaction::Readiness(signed.into_envelope()));
            }
            let input = ProposalInput {
                time_ms: ledger.head().time_ms + 10,
                proposer: self.key.public(),
                snapshot: closes.then(|| Self::snapshot(&self.hotkey, &self.miner, at.clone())),
                reference: at,
                transactions,
            };
            let (_, executed) = ledger.propose(input).unwrap();
            let bytes = vote_sign_bytes(&ledger.network(), VoteKind::Precommit, height, 0, Some(executed.digest()));
            let signature = (self.key.public(), self.key.sign(&bytes));
            let certificate = Certificate::new(height, 0, executed.digest(), vec![signature]);
            let commit = ledger.commit(executed, certificate).unwrap();
            db.commit(&commit).unwrap();
            memory.commit(&commit);
        }
        (db, memory)
    }
}

#[test]
fn the_archive_of_rocksdb_answers_as_the_one_in_memory() {
    let (lonely, dir) = (Lonely::new(), tempfile::tempdir().unwrap());
    let (db, memory) = lonely.history(dir.path());
    assert_eq!(db.network().unwrap(), memory.network().unwrap());
    assert_eq!(db.tip().unwrap(), 6);
    for height in 0..=7 {
        assert_eq!(db.block_at(height).unwrap(), memory.block_at(height).unwrap());
        assert_eq!(db.receipts_at(height).unwrap(), memory.receipts_at(height).unwrap());
    }
    assert_eq!(db.epoch_heights().unwrap(), [0, 3, 6]);
    for height in [0, 3, 6] {
        let whole = memory.rows_at(height, None, usize::MAX).unwrap().unwrap();
        assert_eq!(db.rows_at(height, None, usize::MAX).unwrap().unwrap(), whole);
        // In small pages it is the same.
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = db.rows_at(height, after.as_deref(), 100).unwrap().unwrap();
            after = page.rows.last().map(|(key, _)| key.clone());
            paged.extend(page.rows);
            if !page.more {
                break;
            }
        }
        assert_eq!(paged, whole.rows);
    }
    assert!(db.rows_at(4, None, usize::MAX).unwrap().is_none(), "not held is not empty");
    for seq in 0..7 {
        let round = RoundId { validator: lonely.hotkey.hotkey(), challenge: ChallengeId(0), seq };
        assert_eq!(db.round_places(&round).unwrap(), memory.round_places(&round).unwrap(), "round {seq}");
    }
    assert_eq!(db.handovers_from(0, 10).unwrap(), memory.handovers_from(0, 10).unwrap());
    let proof = db.proof_at(5, b"meta").unwrap().unwrap();
    assert!(proof.verify(&db.header(5).unwrap().unwrap().state_root));
    assert!(db.proof_at(7, b"meta").unwrap().is_none());
}

#[test]
fn the_oldest_copies_of_the_state_go() {
    let (lonely, dir) = (Lonely::new(), tempfile::tempdir().unwrap());
    drop(lonely.history(dir.path()));
    let options = Options { kept_epochs: 2, ..Options::default() };
    let db = Database::open(dir.path(), &lonely.genesis.network_id(), options).unwrap();
    let mut batch = rocksdb::WriteBatch::default();
    let mut again = genesis_commit(&lonely.genesis).unwrap();
    again.height = 9;
    // The next closing block.
    again.block.body.transactions =
        vec![Transaction::EpochClose { epoch: 2, snapshot: Box::new(lonely.genesis.snapshot.clone()) }];
    db.put_past(&mut batch, &again).unwrap();
    db.write(crate::failpoint::Write::Row, batch, true).unwrap();
    assert_eq!(db.epoch_heights().unwrap(), [6, 9]);
    assert!(db.rows_at(3, None, usize::MAX).unwrap().is_none());
    assert!(!db.rows_at(6, None, usize::MAX).unwrap().unwrap().rows.is_empty());
}

#[test]
fn a_check_names_the_first_fault() {
    let lonely = Lonely::new();
    let checked = |spoil: &dyn Fn(&Database)| {
        let dir = tempfile::tempdir().unwrap();
        let (db, _) = lonely.history(dir.path());
        spoil(&db);
        db.check(&lonely.genesis, |_| {})
    };
    let seen = checked(&|_| {}).unwrap();
    assert_eq!((seen.blocks, seen.signatures, seen.copies), (7, 6, 3));
    assert!(seen.transactions > 0 && seen.rows > 0);

    let fault = checked(&|db| assert!(db.flip_bit_under(b"key/").unwrap())).unwrap_err();
    assert!(matches!(&fault, Fault::State { height: 6, what } if what.contains("row key/")), "{fault}");
    let remove = |db: &Database, family, height: u64| {
        let mut batch = rocksdb::WriteBatch::default();
        batch.delete_cf(db.family(family).unwrap(), height.to_be_bytes());
        db.write(crate::failpoint::Write::Row, batch, true).unwrap();
    };
    let fault = checked(&|db| remove(db, crate::database::BLOCKS, 4)).unwrap_err();
    assert!(matches!(&fault, Fault::Block { height: 4, .. }), "{fault}");
    let fault = checked(&|db| remove(db, crate::database::CERTIFICATES, 2)).unwrap_err();
    assert!(matches!(&fault, Fault::Block { height: 2, what } if what.contains("certificate")), "{fault}");
    let fault = checked(&|db| {
        db.put_synced(crate::failpoint::Write::Row, crate::database::RECEIPTS, &1u64.to_be_bytes(), &[0; 4]).unwrap()
    });
    assert!(matches!(&fault, Err(Fault::Block { height: 1, what }) if what.contains("receipts")), "{fault:?}");
    let swap = |db: &Database| {
        let block = db.block(2).unwrap().unwrap();
        db.put_synced(
            crate::failpoint::Write::Row,
            crate::database::BLOCKS,
            &3u64.to_be_bytes(),
            &encode::encode(&block),
        )
        .unwrap();
    };
    assert!(matches!(checked(&swap), Err(Fault::Block { height: 3, .. })));
}
