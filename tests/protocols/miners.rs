//! What a miner reads and writes, as fixtures: a round shown as agreed, its sets, its commitments. The
//! state is made up, everything that proves it is real, so that each of them verifies.

use perturb_challenge::rules::Rules;
use perturb_ledger::agreed::{self, AgreedError, AgreedRows, offer_keys};
use perturb_ledger::block::PROTOCOL;
use perturb_ledger::genesis::{Aggregation, ChallengeSpec};
use perturb_ledger::light::{Handover, LightError, Trust};
use perturb_ledger::proofs::StateProof;
use perturb_ledger::state::OpenRow;
use perturb_ledger::{
    Certificate, ChainReference, Header, MemoryStore, Validator, ValidatorSet, VoteKind, vote_sign_bytes,
};
use perturb_types::encode::encode;
use perturb_types::wire::{self, MinerRequest, MinerResponse};
use perturb_types::{ConsensusKey, Digest, RoundCommits, RoundPair, Signed};

use crate::fixtures::{NET, SEED, bound, cbor, consensus, hotkey, open, read, round, statement, wire_round};

/// Height of the header that shows the rows.
const HEIGHT: u64 = 12;

/// The first four seeds; the second set has a fifth.
fn set(members: u8) -> ValidatorSet {
    let member = |i: u8| Validator { hotkey: hotkey(i).hotkey(), key: consensus(i).public(), power: 1 };
    ValidatorSet::new((1..=members).map(member).collect()).unwrap()
}

fn spec() -> ChallengeSpec {
    ChallengeSpec {
        id: round().challenge,
        mechanism: 0,
        rules: Rules::subnet(),
        model: "demo".into(),
        model_digest: Digest([6; 32]),
        source: "demo:1:100".into(),
        source_fingerprint: Digest([7; 32]),
        source_len: 100,
        interval_ms: 60_000,
        miners_per_round: 1,
        aggregation: Aggregation::Quantile,
        min_confidence: 50_000,
    }
}

fn open_row(is_bound: bool) -> OpenRow {
    let open = open();
    OpenRow {
        open: open.digest(),
        image: open.image,
        key: RoundPair::of(&consensus(1)).public(),
        seed: SEED,
        miners: vec![hotkey(8).hotkey()],
        height: 9,
        commits: is_bound.then(|| vec![Some(statement().commit)]),
    }
}

fn certify(header: &Header, members: u8) -> Certificate {
    let digest = header.digest(&NET);
    let bytes = vote_sign_bytes(&NET, VoteKind::Precommit, header.height, 0, Some(digest));
    let sign = |i: u8| (consensus(i).public(), consensus(i).sign(&bytes));
    Certificate::new(header.height, 0, digest, (1..=members).map(sign).collect())
}

fn header(height: u64, state_root: Digest, (now, next): (u8, u8)) -> Header {
    Header {
        protocol: PROTOCOL,
        network: NET,
        height,
        parent: Digest([1; 32]),
        parent_certificate: Digest([2; 32]),
        time_ms: 1_700_000_000_123,
        proposer: ConsensusKey([3; 32]),
        transactions_root: Digest([4; 32]),
        transactions: 5,
        state_root,
        results_root: Digest([7; 32]),
        validators: set(now).hash(&NET),
        next_validators: set(next).hash(&NET),
        epoch: 5,
        reference: ChainReference { number: 11, hash: Digest([12; 32]), epoch_index: 13 },
    }
}

/// Certified by four of the five members.
fn rows(keys: &[Vec<u8>], is_bound: bool) -> AgreedRows {
    let [open, challenge] = offer_keys(&round());
    let mut state =
        vec![(open, encode(&open_row(is_bound))), (challenge, encode(&spec())), (b"meta".to_vec(), vec![1])];
    state.sort();
    let (store, root) = MemoryStore::restored(HEIGHT, &state).unwrap();
    let header = header(HEIGHT, root, (5, 5));
    let rows = keys.iter().map(|key| StateProof::make(&store, HEIGHT, key).unwrap()).collect();
    AgreedRows { certificate: certify(&header, 4), header, rows }
}

fn offered() -> AgreedRows {
    rows(&offer_keys(&round()), false)
}

fn fetched() -> AgreedRows {
    rows(&offer_keys(&round())[..1], true)
}

/// From four members to five.
fn handover() -> Handover {
    let header = header(8, Digest([6; 32]), (4, 5));
    Handover { certificate: certify(&header, 3), header, next: set(5) }
}

fn commits() -> Signed<RoundCommits> {
    Signed::sign(&consensus(1), &NET, RoundCommits { round: round(), commits: vec![Some(bound())] })
}

/// Name and bytes of every fixture of this protocol that is made here.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let handovers = vec![encode(&handover()).into()];
    vec![
        ("offer", cbor(&MinerRequest::Offer { round: wire_round(), agreed: encode(&offered()) })),
        ("handovers", cbor(&MinerRequest::Handovers { handovers })),
        ("ready", cbor(&MinerResponse::Ready)),
        ("need", cbor(&MinerResponse::Need { from: 9 })),
        ("fetch", cbor(&MinerRequest::Fetch { round: wire_round(), agreed: encode(&fetched()) })),
        ("round-commits", encode(commits().envelope())),
    ]
}

/// Trust in the four, and in the five that they hand over to.
fn trusts() -> (Trust, Trust) {
    let four = Trust::kept(NET, 1, set(4)).unwrap();
    let mut five = four.clone();
    five.advance(&handover()).unwrap();
    (four, five)
}

#[test]
fn the_pinned_offer_is_taken_after_its_handover_and_the_fetch_shows_the_commitment() {
    let (four, five) = trusts();
    let request = |name: &str| wire::from_cbor::<MinerRequest>("request", &read(name), 1 << 16).unwrap();
    let MinerRequest::Offer { agreed, .. } = request("offer") else { panic!("no offer") };
    let offer: AgreedRows = borsh::from_slice(&agreed).unwrap();
    let missing = agreed::offered(&offer, &round(), &four).unwrap_err();
    assert!(matches!(missing, AgreedError::Light(LightError::Set { .. })), "{missing}");
    let (row, shown) = agreed::offered(&offer, &round(), &five).unwrap();
    assert_eq!((row, shown), (open_row(false), spec()));
    let MinerRequest::Fetch { agreed, .. } = request("fetch") else { panic!("no fetch") };
    let fetch: AgreedRows = borsh::from_slice(&agreed).unwrap();
    let row = agreed::opened(&fetch, &round(), &five).unwrap();
    assert_eq!(row.commits, Some(vec![Some(bound().commit)]));
    // One is not the other, nor another round's.
    assert_eq!(agreed::offered(&fetch, &round(), &five), Err(AgreedError::Keys));
    let other = perturb_types::RoundId { seq: 4, ..round() };
    assert_eq!(agreed::opened(&fetch, &other, &five), Err(AgreedError::Keys));
}

#[test]
fn any_flipped_bit_of_an_offer_is_refused_or_changes_nothing_that_is_shown() {
    let (_, five) = trusts();
    let bytes = encode(&offered());
    let honest = agreed::offered(&offered(), &round(), &five).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let Ok(rows) = borsh::from_slice::<AgreedRows>(&flipped) else { continue };
        if let Ok(shown) = agreed::offered(&rows, &round(), &five) {
            assert!(shown == honest, "byte {at}");
        }
    }
}

#[test]
fn a_row_that_is_absent_is_not_agreed() {
    let (_, five) = trusts();
    let other = perturb_types::RoundId { seq: 4, ..round() };
    let absent = rows(&offer_keys(&other), false);
    assert!(matches!(agreed::offered(&absent, &other, &five), Err(AgreedError::Absent(_))));
}
