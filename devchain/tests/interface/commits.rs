//! Commit-reveal: what a commit leaves on the chain, when it is opened, and each refusal for its own cause.

use frame_support::BoundedVec;
use jsonrpsee::rpc_params;
use perturb_devchain::beacon::QUICKNET_KEY;
use perturb_devchain::runtime::commitments::{self, CommitmentInfo, Data};
use perturb_devchain::runtime::primitives::{MechId, NetUid, NetUidStorageIndex};
use perturb_devchain::runtime::reveal::Payload;
use perturb_devchain::runtime::subtensor::{Call, CommitBytes, Event, TimelockedCommit};
use perturb_devchain::runtime::{Runtime, RuntimeEvent};
use perturb_devchain::timelock::seal;
use scale::Encode;
use serde_json::{Value, json};
use sp_core::{H256, Pair as _};
use sp_io::hashing::{blake2_256, twox_64};
use sp_runtime::AccountId32;
use std::path::Path;

use super::calls::{Signing, hotkey, pair};
use super::{Chain, NETUID, PATIENCE};

const MAIN: u16 = NETUID;
const SECOND: u16 = 4096 + NETUID;
const TAO: u64 = 1_000_000_000;
/// Published by quicknet's nodes for round 1000.
const ROUND_1000: &str =
    "0xb44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

/// Uids 0 to 2 validate, uid 3 mines. Epochs stand still until a test sets the tempo.
async fn start(folder: &Path, beacon: Value) -> Chain {
    let neuron = |seed: u8, stake: u64| {
        let address = sp_core::crypto::Ss58Codec::to_ss58check(&pair(seed).public());
        json!({"hotkey": address, "coldkey": address, "stake": stake, "validator_permit": stake > 0})
    };
    let subnet = json!({
        "netuid": NETUID, "mechanisms": 2, "tempo": 0, "weights_version_key": 7, "commit_reveal": true,
        "neurons": [neuron(1, 2000), neuron(2, 2000), neuron(3, 2000), neuron(4, 0)],
    });
    let chain = Chain::open_with(folder, &json!({"beacon": beacon, "subnets": [subnet]})).await.unwrap();
    // The first block brings the newest round.
    chain.block_at(1).await;
    chain
}

fn who(seed: u8) -> AccountId32 {
    pair(seed).public().into()
}

fn payload(seed: u8, uids: &[u16], values: &[u16]) -> Vec<u8> {
    let (uids, values) = (uids.to_vec(), values.to_vec());
    Payload { hotkey: pair(seed).public().0.to_vec(), uids, values, version_key: 7 }.encode()
}

fn commit(mecid: u8, bytes: &[u8], reveal_round: u64) -> Call<Runtime> {
    commit_on(NETUID, mecid, bytes, reveal_round, 4)
}

fn commit_on(netuid: u16, mecid: u8, bytes: &[u8], reveal_round: u64, version: u16) -> Call<Runtime> {
    Call::commit_timelocked_mechanism_weights {
        netuid: NetUid(netuid),
        mecid: MechId(mecid),
        commit: CommitBytes::try_from(bytes.to_vec()).unwrap(),
        reveal_round,
        commit_reveal_version: version,
    }
}

fn key(index: u16, epoch: u64) -> Vec<u8> {
    let concat = |bytes: &[u8]| [&twox_64(bytes)[..], bytes].concat();
    [concat(&index.to_le_bytes()), concat(&epoch.to_le_bytes())].concat()
}

fn weights_key(index: u16, uid: u16) -> Vec<u8> {
    [index.to_le_bytes(), uid.to_le_bytes()].concat()
}

/// What a client learns of the beacon.
struct Known {
    public_key: [u8; 96],
    last: u64,
}

impl Chain {
    async fn beacon(&self) -> Known {
        let answer = self.ask("dev_beacon", rpc_params![]).await;
        let public_key = super::unhex(answer["publicKey"].as_str().unwrap()).try_into().unwrap();
        Known { public_key, last: answer["lastStoredRound"].as_u64().unwrap() }
    }

    async fn round(&self, round: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.beacon().await.last < round {
            assert!(tokio::time::Instant::now() < deadline, "no round {round}");
        }
    }

    /// Let one epoch run, and no other for a thousand blocks; its block.
    async fn epoch(&self) -> Value {
        let last: u64 = self.stored("LastEpochBlock", &NETUID.to_le_bytes(), &self.head().await).await.unwrap_or(0);
        let tempo = self.number(&self.head().await).await + 5 - last;
        self.ask("dev_setTempo", rpc_params![NETUID, tempo]).await;
        let block = self.block_at(last + tempo).await;
        self.ask("dev_setTempo", rpc_params![NETUID, 0]).await;
        block
    }

    async fn waiting(&self, index: u16, epoch: u64, at: &Value) -> Vec<TimelockedCommit<AccountId32>> {
        self.stored("TimelockedWeightCommits", &key(index, epoch), at).await.unwrap_or_default()
    }

    async fn weights(&self, index: u16, uid: u16, at: &Value) -> Option<Vec<(u16, u16)>> {
        self.stored("Weights", &weights_key(index, uid), at).await
    }

    /// Who was revealed in a block, and on which storage index.
    async fn revealed(&self, at: &Value) -> Vec<(u16, AccountId32)> {
        let revealed = |event| match event {
            RuntimeEvent::SubtensorModule(Event::TimelockedWeightsRevealed(index, who)) => Some((index.0, who)),
            _ => None,
        };
        self.events(at).await.into_iter().filter_map(revealed).collect()
    }
}

#[tokio::test]
async fn commits_become_the_right_weights_in_their_epoch_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let own = json!({"secret_seed": "of this test", "period_ms": 200});
    let chain = start(folder.path(), own.clone()).await;
    let beacon = chain.beacon().await;
    // Six seconds from now: all commits below are on the chain long before.
    let round = beacon.last + 30;
    let rng = rand::rngs::OsRng;
    let sealed = |bytes: &[u8]| seal(&beacon.public_key, round, bytes, rng).unwrap();

    let good = sealed(&payload(1, &[1, 3], &[100, 50]));
    let (block, error) = chain.land(1, commit(0, &good, round)).await;
    assert_eq!(error, None);
    let committed = chain.number(&block).await;
    let event = Event::TimelockedWeightsCommitted(who(1), NetUidStorageIndex(MAIN), H256(blake2_256(&good)), round);
    assert!(chain.events(&block).await.contains(&RuntimeEvent::SubtensorModule(event)));
    let updates: Vec<u64> = chain.stored("LastUpdate", &MAIN.to_le_bytes(), &block).await.unwrap();
    assert_eq!(updates[0], committed, "a commit counts as an update");

    let second = sealed(&payload(1, &[3], &[9]));
    assert_eq!(chain.land(1, commit(1, &second, round)).await.1, None);
    // The chain takes all of these; none of them will be weights.
    let of_another = sealed(&payload(1, &[1, 3], &[1, 1]));
    let twice_the_same_uid = sealed(&payload(2, &[3, 3], &[1, 1]));
    let for_another_round = seal(&beacon.public_key, round - 1, &payload(2, &[3], &[1]), rng).unwrap();
    let mut spoiled = sealed(&payload(2, &[3], &[1]));
    spoiled[120] ^= 1;
    for bytes in [&of_another[..], &twice_the_same_uid, &for_another_round, &spoiled, b"no commit", &[]] {
        assert_eq!(chain.land(2, commit(0, bytes, round)).await.1, None);
    }
    // Of two good ones the later counts.
    for value in [1, 2] {
        let bytes = sealed(&payload(3, &[0, 3], &[value, 2]));
        assert_eq!(chain.land(3, commit(0, &bytes, round)).await.1, None);
    }
    let head = chain.head().await;
    let waiting = chain.waiting(MAIN, 0, &head).await;
    assert_eq!(waiting.len(), 9);
    assert_eq!(waiting[0], (who(1), committed, CommitBytes::try_from(good).unwrap(), round));
    assert_eq!(chain.waiting(SECOND, 0, &head).await.len(), 1);

    drop(chain);
    let chain = start(folder.path(), own).await;
    assert_eq!(chain.waiting(MAIN, 0, &chain.head().await).await, waiting);
    chain.round(round).await;
    let block = chain.epoch().await;
    let number = chain.number(&block).await;
    let before = chain.block_at(number - 1).await;
    assert_eq!(chain.weights(MAIN, 0, &before).await, None);
    assert_eq!(chain.waiting(MAIN, 0, &before).await.len(), 9);

    assert_eq!(chain.stored::<u64>("SubnetEpochIndex", &NETUID.to_le_bytes(), &block).await, Some(1));
    assert_eq!(chain.weights(MAIN, 0, &block).await, Some(vec![(1, 65_535), (3, 32_768)]));
    assert_eq!(chain.weights(MAIN, 1, &block).await, None);
    assert_eq!(chain.weights(MAIN, 2, &block).await, Some(vec![(0, 65_535), (3, 65_535)]));
    assert_eq!(chain.weights(SECOND, 0, &block).await, Some(vec![(3, 65_535)]));
    let expected = [(MAIN, who(1)), (MAIN, who(3)), (MAIN, who(3)), (SECOND, who(1))];
    assert_eq!(chain.revealed(&block).await, expected);
    assert_eq!(chain.waiting(MAIN, 0, &block).await, []);
    let updates: Vec<u64> = chain.stored("LastUpdate", &MAIN.to_le_bytes(), &block).await.unwrap();
    assert_eq!(updates[0], committed, "revealing is no update");
}

#[tokio::test]
async fn each_wrong_commit_has_its_own_error() {
    let folder = tempfile::tempdir().unwrap();
    let chain = start(folder.path(), json!({"period_ms": 200})).await;
    chain.ask("dev_setStake", rpc_params![NETUID, hotkey(9), 2000 * TAO]).await;
    let far = u64::MAX;
    let pool = async |seed: u8, call| chain.pool_says(Signing::new(&chain, seed, 0).sign(call, 0)).await;
    assert_eq!(pool(4, commit(0, b"x", far)).await, (1010, "Custom error: 1".to_owned()), "no stake");
    let last = chain.beacon().await.last;
    assert_eq!(pool(1, commit(0, b"x", last - 1)).await, (1010, "Custom error: 15".to_owned()), "an old round");

    let cases = [
        (1, commit_on(77, 0, b"x", far, 4), "MechanismDoesNotExist"),
        (1, commit(2, b"x", far), "MechanismDoesNotExist"),
        (1, commit_on(NETUID, 0, b"x", far, 3), "IncorrectCommitRevealVersion"),
        (9, commit(0, b"x", far), "HotKeyNotRegisteredInSubNet"),
    ];
    // Stake on the root network counts on every subnet, so the pool lets a commit for one that does not exist through.
    chain.ask("dev_setStake", rpc_params![0, hotkey(1), 20_000 * TAO]).await;
    for (seed, call, expected) in cases {
        assert_eq!(chain.land(seed, call).await.1.as_deref(), Some(expected));
    }
    for _ in 0..10 {
        assert_eq!(chain.land(1, commit(0, b"x", far)).await.1, None);
    }
    assert_eq!(chain.land(1, commit(0, b"x", far)).await.1.as_deref(), Some("TooManyUnrevealedCommits"));
    assert_eq!(chain.land(1, commit(1, b"x", far)).await.1, None, "each mechanism has its own ten");
    assert_eq!(chain.land(2, commit(0, b"x", far)).await.1, None, "and each hotkey");
    chain.ask("dev_setWeightsRateLimit", rpc_params![NETUID, 10_000]).await;
    assert_eq!(chain.land(1, commit(0, b"x", far)).await.1.as_deref(), Some("CommittingWeightsTooFast"));
    chain.ask("dev_setCommitReveal", rpc_params![NETUID, false]).await;
    assert_eq!(chain.land(1, commit(0, b"x", far)).await.1.as_deref(), Some("CommitRevealDisabled"));
}

#[tokio::test]
async fn a_commit_waits_for_its_round_within_its_epoch_and_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let chain = start(folder.path(), json!("quicknet")).await;
    assert_eq!(chain.beacon().await.public_key, QUICKNET_KEY);
    let rng = rand::rngs::OsRng;
    let (one, two) = (payload(1, &[3], &[1]), payload(2, &[3], &[1]));
    let known = seal(&QUICKNET_KEY, 1000, &one, rng).unwrap();
    let never = seal(&QUICKNET_KEY, 1001, &two, rng).unwrap();
    assert_eq!(chain.land(1, commit(0, &known, 1000)).await.1, None);
    assert_eq!(chain.land(2, commit(0, &never, 1001)).await.1, None);

    let block = chain.epoch().await;
    assert_eq!(chain.revealed(&block).await, []);
    assert_eq!(chain.waiting(MAIN, 0, &block).await.len(), 2, "neither round is there");
    assert_eq!(chain.refused("dev_putPulse", rpc_params![1001, ROUND_1000]).await.0, 5001, "another round's signature");
    let done = chain.ask("dev_putPulse", rpc_params![1000, ROUND_1000]).await;
    assert_eq!(chain.beacon().await.last, 1000);
    let next = chain.block_at(chain.number(&done["block"]).await + 1).await;
    assert_eq!(chain.weights(MAIN, 0, &done["block"]).await, None);
    assert_eq!(chain.revealed(&next).await, [(MAIN, who(1))]);
    assert_eq!(chain.weights(MAIN, 0, &next).await, Some(vec![(3, 65_535)]));
    assert_eq!(chain.waiting(MAIN, 0, &next).await.len(), 1);

    let block = chain.epoch().await;
    assert_eq!(chain.waiting(MAIN, 0, &block).await, [], "its epoch is over");
    assert_eq!(chain.weights(MAIN, 1, &block).await, None);
}

#[tokio::test]
async fn a_commit_by_hash_is_revealed_by_its_neuron_in_one_epoch_only() {
    let folder = tempfile::tempdir().unwrap();
    let chain = start(folder.path(), json!({})).await;
    let (uids, values, salt) = (vec![1u16, 3], vec![50u16, 100], vec![7u16, 8]);
    let hash = |seed: u8, salt: &[u16]| H256(blake2_256(&(who(seed), MAIN, &uids, &values, salt, 7u64).encode()));
    let commit = |commit_hash| Call::commit_weights { netuid: NetUid(NETUID), commit_hash };
    let reveal = |salt: &[u16]| Call::reveal_weights {
        netuid: NetUid(NETUID),
        uids: uids.clone(),
        values: values.clone(),
        salt: salt.to_vec(),
        version_key: 7,
    };
    let pool = async |nonce: u32, call| chain.pool_says(Signing::new(&chain, 1, nonce).sign(call, 0)).await;
    assert_eq!(pool(0, reveal(&salt)).await, (1010, "Custom error: 16".to_owned()), "nothing committed");
    let (block, error) = chain.land(1, commit(hash(1, &salt))).await;
    assert_eq!(error, None);
    let event = Event::WeightsCommitted(who(1), NetUidStorageIndex(MAIN), hash(1, &salt));
    assert!(chain.events(&block).await.contains(&RuntimeEvent::SubtensorModule(event)));
    assert_eq!(pool(1, reveal(&salt)).await, (1010, "Custom error: 17".to_owned()), "too early");
    chain.epoch().await;
    assert_eq!(pool(1, reveal(&[9])).await, (1010, "Custom error: 16".to_owned()), "other weights than committed");
    let (block, error) = chain.land(1, reveal(&salt)).await;
    assert_eq!(error, None);
    assert_eq!(chain.weights(MAIN, 0, &block).await, Some(vec![(1, 32_768), (3, 65_535)]));
    let event = Event::WeightsRevealed(who(1), NetUidStorageIndex(MAIN), hash(1, &salt));
    assert!(chain.events(&block).await.contains(&RuntimeEvent::SubtensorModule(event)));
    assert_eq!(pool(2, reveal(&salt)).await, (1010, "Custom error: 16".to_owned()), "revealed already");

    assert_eq!(chain.land(1, commit(hash(1, &salt))).await.1, None);
    chain.epoch().await;
    chain.epoch().await;
    assert_eq!(pool(3, reveal(&salt)).await, (1010, "Custom error: 17".to_owned()), "its epoch is over");
    chain.ask("dev_setWeightsRateLimit", rpc_params![NETUID, 10_000]).await;
    assert_eq!(pool(3, commit(hash(1, &salt))).await, (1010, "Custom error: 6".to_owned()), "too fast");
}

#[tokio::test]
async fn a_timelocked_commitment_is_opened_at_its_round_or_marked_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    let chain = start(folder.path(), json!("quicknet")).await;
    let field = |encrypted: Vec<u8>| Data::TimelockEncrypted {
        encrypted: BoundedVec::truncate_from(encrypted),
        reveal_round: 1000,
    };
    let set = |fields: Vec<Data>| {
        let info = Box::new(CommitmentInfo { fields: BoundedVec::truncate_from(fields) });
        commitments::Call::<Runtime>::set_commitment { netuid: NetUid(NETUID), info }
    };
    let sealed = seal(&QUICKNET_KEY, 1000, b"the answer", rand::rngs::OsRng).unwrap();
    assert_eq!(chain.land(1, set(vec![field(sealed)])).await.1, None);
    let digest = Data::Sha256([7; 32]);
    assert_eq!(chain.land(2, set(vec![digest.clone(), field(b"no ciphertext".to_vec())])).await.1, None);
    let done = chain.ask("dev_putPulse", rpc_params![1000, ROUND_1000]).await;
    let number = chain.number(&done["block"]).await + 1;
    let block = chain.block_at(number).await;

    let suffix = |seed: u8| {
        let account = who(seed).encode();
        [&NETUID.to_le_bytes()[..], &twox_64(&account), &account].concat()
    };
    type Kept = Vec<(Vec<u8>, u64)>;
    let revealed = chain.stored_in::<Kept>("Commitments", "RevealedCommitments", &suffix(1), &block).await;
    assert_eq!(revealed, Some(vec![(b"the answer".to_vec(), number)]));
    type Commitment = commitments::Registration<u64, u32>;
    let left = chain.stored_in::<Commitment>("Commitments", "CommitmentOf", &suffix(1), &block).await;
    assert_eq!(left, None, "nothing is left of a commitment that was opened whole");
    let failed = Data::TimelockRevealFailed {
        encrypted: BoundedVec::truncate_from(b"no ciphertext".to_vec()),
        reveal_round: 1000,
    };
    let left = chain.stored_in::<Commitment>("Commitments", "CommitmentOf", &suffix(2), &block).await.unwrap();
    assert_eq!(left.info.fields.into_inner(), [digest, failed]);
    let events = chain.events(&block).await;
    let revealed = commitments::Event::CommitmentRevealed { netuid: NetUid(NETUID), who: who(1) };
    assert!(events.contains(&RuntimeEvent::Commitments(revealed)));
}
