//! Each refusal for its own cause, in the pool and in the block, and what stands on the chain after success.

use jsonrpsee::core::client::SubscriptionClientT;
use jsonrpsee::rpc_params;
use perturb_devchain::runtime::extensions::{
    CheckNonce, CheckShieldedTxValidity, DrandPriority, SubtensorTransactionExtension, SudoTransactionExtension,
};
use perturb_devchain::runtime::primitives::{MechId, NetUid};
use perturb_devchain::runtime::subtensor::{Call, Error, Event};
use perturb_devchain::runtime::{Runtime, RuntimeCall, RuntimeEvent, TxExtension, UncheckedExtrinsic, VERSION};
use scale::{Decode, Encode};
use serde_json::{Value, json};
use sp_core::{Pair as _, sr25519};
use sp_io::hashing::blake2_256;
use sp_runtime::generic::Era;
use sp_runtime::{DispatchError, MultiAddress, MultiSignature};

use super::{Chain, NETUID, account, unhex};

const TAO: u64 = 1_000_000_000;

pub(super) fn pair(seed: u8) -> sr25519::Pair {
    sr25519::Pair::from_seed(&[seed; 32])
}

pub(super) fn hotkey(seed: u8) -> String {
    format!("0x{}", hex::encode(pair(seed).public().0))
}

/// Uid 0 validates; uid 1 has stake but no permit; uids 2 and 3 have neither.
fn subnet() -> Value {
    let neuron = |seed: u8, stake: u64, permit: bool| {
        let address = sp_core::crypto::Ss58Codec::to_ss58check(&pair(seed).public());
        json!({"hotkey": address, "coldkey": address, "stake": stake, "validator_permit": permit})
    };
    json!({
        "netuid": NETUID, "mechanisms": 2, "min_allowed_weights": 2, "max_weights_limit": 40_000,
        "weights_version_key": 7,
        "neurons": [neuron(1, 2000, true), neuron(2, 1500, false), neuron(3, 0, false), neuron(4, 0, false)],
    })
}

/// What an extrinsic is signed over and with.
#[derive(Clone)]
pub(super) struct Signing {
    who: u8,
    nonce: u32,
    era: Era,
    birth: Vec<u8>,
    genesis: Vec<u8>,
    pub(super) spec_version: u32,
}

impl Signing {
    pub(super) fn new(chain: &Chain, who: u8, nonce: u32) -> Self {
        let genesis = unhex(&chain.genesis);
        let (era, birth) = (Era::Immortal, genesis.clone());
        Self { who, nonce, era, birth, genesis, spec_version: VERSION.spec_version }
    }

    /// The extrinsic, in hex; `spoil` is put over the signature.
    pub(super) fn sign(&self, call: impl Into<RuntimeCall>, spoil: u8) -> String {
        let call = call.into();
        let extension: TxExtension = (
            (
                frame_system::CheckNonZeroSender::new(),
                frame_system::CheckSpecVersion::new(),
                frame_system::CheckTxVersion::new(),
                frame_system::CheckGenesis::new(),
                frame_system::CheckEra::from(self.era),
                CheckNonce(self.nonce),
                frame_system::CheckWeight::new(),
            ),
            (
                pallet_transaction_payment::ChargeTransactionPayment::from(0),
                SudoTransactionExtension,
                CheckShieldedTxValidity,
                SubtensorTransactionExtension,
                DrandPriority,
            ),
            frame_metadata_hash_extension::CheckMetadataHash::new(false),
        );
        let implicit = [
            &self.spec_version.to_le_bytes()[..],
            &VERSION.transaction_version.to_le_bytes(),
            &self.genesis,
            &self.birth,
            &[0],
        ];
        let payload = [call.encode(), extension.encode(), implicit.concat()].concat();
        let signed = if payload.len() > 256 { blake2_256(&payload).to_vec() } else { payload };
        let mut signature = pair(self.who).sign(&signed);
        signature.0[3] ^= spoil;
        let who = MultiAddress::Id(pair(self.who).public().into());
        let extrinsic = UncheckedExtrinsic::new_signed(call, who, MultiSignature::Sr25519(signature), extension);
        format!("0x{}", hex::encode(extrinsic.encode()))
    }
}

fn weights(mecid: u8, dests: &[u16], values: &[u16], version_key: u64) -> Call<Runtime> {
    weights_on(NETUID, mecid, dests, values, version_key)
}

fn weights_on(netuid: u16, mecid: u8, dests: &[u16], values: &[u16], version_key: u64) -> Call<Runtime> {
    let (dests, weights) = (dests.to_vec(), values.to_vec());
    Call::set_mechanism_weights { netuid: NetUid(netuid), mecid: MechId(mecid), dests, weights, version_key }
}

impl Chain {
    async fn nonce(&self, who: u8) -> u32 {
        let address = sp_core::crypto::Ss58Codec::to_ss58check(&pair(who).public());
        u32::try_from(self.ask("system_accountNextIndex", rpc_params![address]).await.as_u64().unwrap()).unwrap()
    }

    /// Submit, and wait for the finalized block: its hash, and the pallet's error if the call failed there.
    pub(super) async fn land(&self, who: u8, call: impl Into<RuntimeCall>) -> (Value, Option<String>) {
        let extrinsic = Signing::new(self, who, self.nonce(who).await).sign(call, 0);
        let (submit, end) = ("author_submitAndWatchExtrinsic", "author_unwatchExtrinsic");
        let mut statuses = self.rpc.subscribe::<Value, _>(submit, rpc_params![extrinsic], end).await.unwrap();
        let block = loop {
            let status = tokio::time::timeout(super::PATIENCE, statuses.next()).await.unwrap().unwrap().unwrap();
            if let Some(hash) = status.get("finalized") {
                break hash.clone();
            }
        };
        let failed = self.events(&block).await.into_iter().find_map(|event| match event {
            RuntimeEvent::System(frame_system::Event::ExtrinsicFailed { dispatch_error, .. }) => Some(dispatch_error),
            _ => None,
        });
        let name = failed.map(|error| match error {
            DispatchError::Module(module) if module.index == 7 => {
                format!("{:?}", Error::<Runtime>::decode(&mut &module.error[..]).unwrap())
            }
            other => panic!("{other:?}"),
        });
        (block, name)
    }

    pub(super) async fn pool_says(&self, extrinsic: String) -> (i32, String) {
        self.refused("author_submitExtrinsic", rpc_params![extrinsic]).await
    }
}

#[tokio::test]
async fn every_cause_has_its_own_error_in_the_block() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    // Stake enough to pass the pool: of a stranger here, and of the validator on the root network.
    chain.ask("dev_setStake", rpc_params![NETUID, hotkey(9), 2000 * TAO]).await;
    chain.ask("dev_setStake", rpc_params![0, hotkey(1), 2000 * TAO]).await;
    let plain = Call::set_weights { netuid: NetUid(NETUID), dests: vec![1], weights: vec![], version_key: 7 };
    let cases = [
        // Commit-reveal is on where nobody switched it off, and comes first: on the root network too.
        (1, weights_on(0, 0, &[1, 2], &[1, 1], 7), "CommitRevealEnabled"),
        (1, weights(0, &[1, 2], &[1], 7), "WeightVecNotEqualSize"),
        (1, plain, "WeightVecNotEqualSize"),
        (1, weights(2, &[1, 2], &[1, 1], 7), "MechanismDoesNotExist"),
        (1, weights(0, &[0, 1, 2, 3, 4], &[1; 5], 7), "UidsLengthExceedUidsInSubNet"),
        (9, weights(0, &[1, 2], &[1, 1], 7), "HotKeyNotRegisteredInSubNet"),
        (1, weights(0, &[1, 2], &[1, 1], 6), "IncorrectWeightVersionKey"),
        (2, weights(0, &[0, 2], &[1, 1], 7), "NeuronNoValidatorPermit"),
        (1, weights(0, &[1, 1], &[1, 1], 7), "DuplicateUids"),
        (1, weights(0, &[1, 4], &[1, 1], 7), "UidVecContainInvalidOne"),
        (1, weights(0, &[1], &[1], 7), "WeightVecLengthIsLow"),
        (1, weights(0, &[1, 2], &[65_535, 1], 7), "MaxWeightExceeded"),
    ];
    for (who, call, expected) in cases {
        let text = format!("{call:?}");
        assert_eq!(chain.land(who, call).await.1.as_deref(), Some(expected), "{text}");
    }
    chain.ask("dev_setCommitReveal", rpc_params![NETUID, true]).await;
    let last = chain.land(1, weights(0, &[1, 2], &[1, 1], 7)).await;
    assert_eq!(last.1.as_deref(), Some("CommitRevealEnabled"));
    let none: Option<Vec<(u16, u16)>> = chain.stored("Weights", &[2, 0, 0, 0], &last.0).await;
    assert_eq!(none, None, "nothing of what failed was stored");
}

#[tokio::test]
async fn weights_stand_upscaled_under_bittensors_names_and_older_blocks_keep_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    let (first, error) = chain.land(1, weights(0, &[1, 2], &[100, 50], 7)).await;
    assert_eq!(error, Some("MaxWeightExceeded".to_owned()), "two thirds are above 40000 of 65535");
    let (second, error) = chain.land(1, weights(0, &[1, 2], &[100, 90], 9)).await;
    assert_eq!(error, None, "a newer version key is accepted");
    let (third, error) = chain.land(1, weights(1, &[3, 2], &[7, 7], 7)).await;
    assert_eq!(error, None);
    let (fourth, _) = chain.land(1, weights(0, &[2, 3], &[65_535, 65_535], 7)).await;
    let is = |event: &RuntimeEvent| matches!(event, RuntimeEvent::SubtensorModule(Event::WeightsSet(index, 0)) if index.0 == 4098);
    assert_eq!(chain.events(&third).await.iter().filter(|event| is(event)).count(), 1);

    // Storage index 2 is the main mechanism of subnet 2, 4098 its second one; then uid 0.
    let (main, other) = ([2, 0, 0, 0], [2, 16, 0, 0]);
    type Row = Vec<(u16, u16)>;
    assert_eq!(chain.stored::<Row>("Weights", &main, &first).await, None);
    // 90 / 100 of 65535 is 58981.5, which rounds up.
    let upscaled = Some(vec![(1, 65_535), (2, 58_982)]);
    assert_eq!(chain.stored::<Row>("Weights", &main, &second).await, upscaled);
    assert_eq!(chain.stored::<Row>("Weights", &other, &second).await, None);
    assert_eq!(chain.stored::<Row>("Weights", &other, &third).await, Some(vec![(3, 65_535), (2, 65_535)]));
    assert_eq!(chain.stored::<Row>("Weights", &main, &third).await, upscaled, "mechanisms do not touch each other");
    assert_eq!(chain.stored::<Row>("Weights", &main, &fourth).await, Some(vec![(2, 65_535), (3, 65_535)]));
    for (block, index) in [(&second, &main[..2]), (&third, &other[..2])] {
        let updates: Vec<u64> = chain.stored("LastUpdate", index, block).await.unwrap();
        assert_eq!(updates[0], chain.number(block).await);
    }
    // After SIGKILL all of it is there still, and the nonce counts the failed call too.
    drop(chain);
    let chain = Chain::start(folder.path(), &subnet()).await;
    assert_eq!(chain.stored::<Row>("Weights", &main, &second).await, upscaled);
    assert_eq!(chain.stored::<Row>("Weights", &main, &chain.head().await).await, Some(vec![(2, 65_535), (3, 65_535)]));
    assert_eq!(chain.nonce(1).await, 4);
    assert_eq!(chain.events(&third).await.iter().filter(|event| is(event)).count(), 1);
}

#[tokio::test]
async fn the_pool_refuses_what_it_can_see_with_the_codes_of_a_real_node() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    let good = || weights(0, &[1, 2], &[1, 1], 7);
    let right = Signing::new(&chain, 1, 0);
    let bad_proof = (1010, "Transaction has a bad signature".to_owned());
    assert_eq!(chain.pool_says(right.sign(good(), 1)).await, bad_proof, "a spoiled signature");
    let wrong_genesis = Signing { genesis: vec![9; 32], ..right.clone() };
    assert_eq!(chain.pool_says(wrong_genesis.sign(good(), 0)).await, bad_proof, "another chain's genesis");
    let wrong_version = Signing { spec_version: VERSION.spec_version - 1, ..right.clone() };
    assert_eq!(chain.pool_says(wrong_version.sign(good(), 0)).await, bad_proof, "an older runtime");

    let birth = chain.number(&chain.head().await).await;
    let hash = chain.block_at(birth).await;
    let mortal = Signing { era: Era::mortal(4, birth), birth: unhex(hash.as_str().unwrap()), ..right.clone() };
    chain.block_at(birth + 5).await;
    assert_eq!(chain.pool_says(mortal.sign(good(), 0)).await, bad_proof, "its mortality has ended");

    assert_eq!(chain.pool_says("0x00".to_owned()).await.0, 1002, "no extrinsic");
    let whole = right.sign(good(), 0);
    assert_eq!(chain.pool_says(format!("{whole}00")).await.0, 1002, "a byte too many");

    let of = |who: u8| Signing::new(&chain, who, 0);
    assert_eq!(chain.pool_says(of(3).sign(good(), 0)).await, (1010, "Custom error: 1".to_owned()), "no stake");
    let axon = |ip: u128, port: u16| Call::serve_axon {
        netuid: NetUid(NETUID),
        version: 1,
        ip,
        port,
        ip_type: 4,
        protocol: 0,
        placeholder1: 0,
        placeholder2: 0,
    };
    let public = 0x0102_0304;
    for (who, call, code) in [(9, axon(public, 80), 10), (3, axon(0x7f00_0001, 80), 11), (3, axon(public, 0), 13)] {
        let text = format!("{call:?}");
        assert_eq!(chain.pool_says(of(who).sign(call, 0)).await, (1010, format!("Custom error: {code}")), "{text}");
    }

    // A nonce that is not up yet waits; then both go in. Then it is outdated, and the rate limit counts.
    let later = Signing { nonce: 1, ..right.clone() }.sign(weights(1, &[1, 2], &[1, 1], 7), 0);
    chain.ask("author_submitExtrinsic", rpc_params![&later]).await;
    assert_eq!(chain.ask("author_pendingExtrinsics", rpc_params![]).await, json!([&later]));
    assert_eq!(chain.pool_says(later).await.0, 1013, "it waits already");
    assert_eq!(chain.land(1, good()).await.1, None);
    let head = chain.number(&chain.head().await).await;
    chain.block_at(head + 1).await;
    assert_eq!(chain.nonce(1).await, 2);
    assert_eq!(chain.pool_says(right.sign(good(), 0)).await, (1010, "Transaction is outdated".to_owned()));
    chain.ask("dev_setWeightsRateLimit", rpc_params![NETUID, 1000]).await;
    let soon = Signing { nonce: 2, ..right }.sign(good(), 0);
    assert_eq!(chain.pool_says(soon).await, (1010, "Custom error: 6".to_owned()), "too fast");
    assert_eq!(chain.ask("author_pendingExtrinsics", rpc_params![]).await, json!([]));

    chain.ask("dev_setFault", rpc_params![json!({"refuse_extrinsics": true})]).await;
    assert_eq!(chain.pool_says(of(4).sign(good(), 0)).await.0, 1016);
    assert_eq!(chain.refused("dev_setStake", rpc_params![77, account(1), 1]).await.0, 5001);
}
