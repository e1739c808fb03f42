//! Each file in `fixtures/` is what the code writes for fixed keys and values, and reads back.
//!
//! `UPDATE_FIXTURES=1` writes them anew: a change of the protocol, never a detail.

use std::path::PathBuf;

use perturb_challenge::pixels::Pixels;
use perturb_challenge::rules::TransformRules;
use perturb_challenge::transform::Transform;
use perturb_consensus::wire::{Beacon, Gossip, Peer, Request, SignedProposal, SignedVote};
use perturb_ledger::receipt::{Effect, Receipt, ReceiptProof};
use perturb_ledger::seeds::Lots;
use perturb_ledger::verdict::{CheckVerdict, Checked, Finding};
use perturb_ledger::{Anchor, Pulse, Transaction, VoteKind};
use perturb_types::encode::{Domain, digest_of, encode, signing_bytes};
use perturb_types::round::{AnswerCommit, AnswerStatement, Meaning, TransformSecret, image_number};
use perturb_types::vrf::{Draw, Purpose};
use perturb_types::wire::{self, Decline, MinerRequest, MinerResponse};
use perturb_types::{
    ChallengeId, ConsensusPair, Digest, Entry, Envelope, HotkeyPair, Measurement, Millionths, NetworkId, Reason,
    RoundId, RoundOpen, RoundPair, RoundResult, RoundReveal, RoundSkip, Signed,
};

pub const NET: NetworkId = NetworkId([9; 32]);

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(format!("{name}.hex"))
}

pub fn read(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("fixtures/{name}.hex: {e}"));
    hex::decode(text.trim()).unwrap()
}

pub fn consensus(seed: u8) -> ConsensusPair {
    ConsensusPair::from_seed(&[seed; 32])
}

pub fn hotkey(seed: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&[seed; 32]).unwrap()
}

pub fn round() -> RoundId {
    RoundId { validator: hotkey(1).hotkey(), challenge: ChallengeId(2), seq: 3 }
}

/// SHA-256 of the answered PNG.
const ANSWER: Digest = Digest([0xbb; 32]);

pub fn statement() -> AnswerStatement {
    AnswerStatement::of(&NET, round(), Digest([0xaa; 32]), &hotkey(8).hotkey(), &ANSWER)
}

/// sr25519 signatures differ each time they are made: the pinned one is read.
pub fn bound() -> AnswerCommit {
    AnswerCommit { commit: statement().commit, signature: read("answer-signature").try_into().unwrap() }
}

fn anchor() -> Anchor {
    let digest = |b| Digest([b; 32]);
    Anchor { epoch: 3, height: 258, header: digest(7), state_root: digest(8), certificate: digest(9) }
}

/// What draws with this seed.
pub const SEED: Digest = Digest([5; 32]);

pub fn lots() -> Lots {
    Lots::draw(&RoundPair::of(&consensus(1)), &NET, SEED, &round())
}

fn image_draw() -> Draw {
    Draw { purpose: Purpose::Image, challenge: round().challenge, seed: SEED, seq: round().seq }
}

fn reveal() -> Signed<RoundReveal> {
    let reveal = RoundReveal { round: round(), images: lots().images };
    Signed::sign(&consensus(1), &NET, reveal)
}

fn skip() -> Signed<RoundSkip> {
    Signed::sign(&consensus(1), &NET, RoundSkip { round: round(), epoch: 5, images: lots().images })
}

pub fn open() -> Signed<RoundOpen> {
    let open = RoundOpen { round: round(), epoch: 5, image: Digest([0xaa; 32]), miners: lots().miners, opened_ms: 6 };
    Signed::sign(&consensus(1), &NET, open)
}

fn result() -> Signed<RoundResult> {
    let measurement =
        Measurement { level: 1, sum_squares: 100, changed: 100, channels: 12_288, ssim: Millionths(999_000) };
    let entry = Entry {
        miner: hotkey(8).hotkey(),
        answer: Some(ANSWER),
        measurement,
        predicted: 4,
        margin: 500_000,
        meaning: Meaning::NotAsked,
        time_ms: 500,
        reason: Reason::Success,
        score: Millionths(951_123),
    };
    let result = RoundResult {
        round: round(),
        open: open().digest(),
        images: lots().images,
        skipped: vec![4],
        source_index: 11,
        transform: TransformSecret::of(&NET, &lots().value, 1),
        label: 3,
        entries: vec![entry],
    };
    Signed::sign(&consensus(1), &NET, result)
}

/// The transformed image of the document, with its sides.
fn transformed_image() -> Vec<u8> {
    let rules = TransformRules { flip: true, crop: 2, brightness: 8, field: 24, cells: 3 };
    let source = Pixels::new(11, 9, (0..297).map(|k| ((31 * k + 7) % 256) as u8).collect()).unwrap();
    let image = Transform::derive(&TransformSecret([7; 32]), &rules).apply(&source);
    [&image.width.to_le_bytes()[..], &image.height.to_le_bytes()[..], &image.rgb[..]].concat()
}

fn transaction() -> Transaction {
    Transaction::RoundOpen(open().into_envelope())
}

fn check_verdict() -> Transaction {
    let v = CheckVerdict {
        hotkey: hotkey(2).hotkey(),
        round: round(),
        result: Digest([0xee; 32]),
        verdict: Checked::Fails(Finding::Label),
    };
    Transaction::CheckVerdict(Signed::sign(&consensus(2), &NET, v).into_envelope())
}

/// Round 1000, as quicknet published it.
fn pulse() -> Pulse {
    let signature = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";
    Pulse { round: 1000, signature: hex::decode(signature).unwrap().try_into().unwrap() }
}

fn receipts() -> Vec<Receipt> {
    let scored = Effect::Scored { round: round(), counted: vec![(hotkey(8).hotkey(), Millionths(951_123))] };
    let of = |effect| Receipt { transaction: transaction().digest(&NET), effect };
    let weights = vec![(ChallengeId(2), vec![(4, Some(hotkey(8).hotkey()), 65_535)])];
    let closed = Effect::Closed { epoch: 5, weights, next_validators: Digest([0xdd; 32]) };
    vec![of(Effect::Applied), of(scored), of(closed)]
}

fn beacon() -> Signed<Beacon> {
    Signed::sign(&consensus(1), &NET, Beacon { height: 12, peer: Peer([4; 32]), sent_ms: 1_700_000_000_123 })
}

pub fn cbor<T: serde::Serialize>(message: &T) -> Vec<u8> {
    wire::to_cbor("fixture", message).unwrap()
}

pub fn wire_round() -> wire::WireRound {
    round().into()
}

/// Name and bytes of every fixture that this test makes.
fn all() -> Vec<(&'static str, Vec<u8>)> {
    let vote = SignedVote::sign(&consensus(1), &NET, VoteKind::Precommit, 12, 0, Some(Digest([0xcc; 32])));
    let proposal = SignedProposal::sign(&consensus(1), &NET, 12, 0, Digest([0xcc; 32]), None);
    let pinned = bound();
    let round_key = RoundPair::of(&consensus(1)).public();
    let delegation = encode(&(hotkey(1).hotkey(), consensus(1).public(), round_key, 0u64));
    vec![
        ("answer-commit", signing_bytes(Domain::AnswerCommit, &NET, &encode(&(round(), hotkey(8).hotkey(), ANSWER)))),
        ("answer-statement", signing_bytes(Domain::Answer, &NET, &encode(&statement()))),
        (
            "announce",
            cbor(&MinerResponse::Announce { commit: pinned.commit.0.to_vec(), signature: pinned.signature.to_vec() }),
        ),
        ("image", cbor(&MinerResponse::Image { png: b"\x89PNG".to_vec() })),
        ("declined", cbor(&MinerResponse::Declined { code: Decline::UnknownModel, why: "demo only".into() })),
        ("lot-draw", signing_bytes(Domain::Lot, &NET, &encode(&image_draw()))),
        ("lot", encode(&lots().images)),
        ("lot-value", lots().value.to_vec()),
        ("transform-secret", TransformSecret::of(&NET, &lots().value, 1).0.to_vec()),
        ("image-number", image_number(&NET, &lots().value, 1).to_le_bytes().to_vec()),
        ("round-reveal", encode(&Transaction::RoundReveal(reveal().into_envelope()))),
        ("round-skip", encode(&Transaction::RoundSkip(skip().into_envelope()))),
        ("transformed-image", transformed_image()),
        ("round-open-digest", open().digest().0.to_vec()),
        ("round-result", encode(result().envelope())),
        ("transaction", encode(&transaction())),
        ("transaction-digest", transaction().digest(&NET).0.to_vec()),
        ("check-verdict", encode(&check_verdict())),
        ("receipt", encode(&receipts()[1])),
        ("receipt-digest", receipts()[1].digest(&NET).0.to_vec()),
        ("receipt-proof", encode(&ReceiptProof::make(&NET, &receipts(), 1).unwrap())),
        ("results-root", perturb_ledger::receipt::root(&NET, &receipts()).0.to_vec()),
        ("pulse", encode(&Transaction::Pulse(pulse()))),
        ("draw", digest_of(Domain::SpotCheck, &NET, &(pulse().signature, round(), Digest([0xcc; 32]))).0.to_vec()),
        ("vote", encode(&Gossip::Vote(vote))),
        ("proposal", encode(&Gossip::Proposal(proposal))),
        ("beacon", encode(beacon().envelope())),
        ("delegation-statement", signing_bytes(Domain::Delegation, &NET, &delegation)),
        ("anchor", anchor().to_bytes().to_vec()),
        ("sync-body", encode(&Request::Body { digest: Digest([0xcc; 32]) })),
        ("sync-blocks", encode(&Request::Blocks { from: 7, count: 64 })),
    ]
}

#[test]
fn every_fixture_is_what_the_code_writes() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    if update && !path("answer-signature").exists() {
        let made = statement().sign(&hotkey(8), &NET);
        std::fs::write(path("answer-signature"), hex::encode(made.signature) + "\n").unwrap();
    }
    for (name, bytes) in all().into_iter().chain(crate::miners::all()) {
        if update {
            std::fs::write(path(name), hex::encode(&bytes) + "\n").unwrap();
        }
        assert_eq!(hex::encode(read(name)), hex::encode(bytes), "fixtures/{name}.hex");
    }
}

#[test]
fn the_pinned_messages_read_back() {
    let response = |name: &str| wire::from_cbor::<MinerResponse>("response", &read(name), 4096).unwrap();
    assert!(matches!(response("announce"), MinerResponse::Announce { .. }));
    assert!(matches!(response("image"), MinerResponse::Image { .. }));
    assert!(matches!(response("declined"), MinerResponse::Declined { code: Decline::UnknownModel, .. }));
    let fetch = wire::from_cbor::<MinerRequest>("request", &read("fetch"), 1 << 16).unwrap();
    assert!(matches!(fetch, MinerRequest::Fetch { round, .. } if RoundId::try_from(&round).unwrap() == self::round()));
    let envelope: Envelope = borsh::from_slice(&read("round-result")).unwrap();
    assert_eq!(*envelope.open::<RoundResult>(&NET).unwrap(), *result());
    assert_eq!(Transaction::decode(&read("transaction")).unwrap(), transaction());
    assert_eq!(Transaction::decode(&read("check-verdict")).unwrap(), check_verdict());
    let Gossip::Vote(vote) = Gossip::decode(&read("vote")).unwrap() else { panic!("not a vote") };
    let Gossip::Proposal(proposal) = Gossip::decode(&read("proposal")).unwrap() else { panic!("not a proposal") };
    assert!(vote.verify(&NET) && proposal.verify(&NET));
    assert_eq!(Anchor::from_bytes(&read("anchor")).unwrap(), anchor());
}

#[test]
fn the_pinned_pulse_is_quicknets_and_draws_by_its_digest() {
    let Transaction::Pulse(pulse) = Transaction::decode(&read("pulse")).unwrap() else { panic!("not a pulse") };
    assert!(pulse.verify(&perturb_types::Beacon::QUICKNET));
    let drawn = |rate| perturb_ledger::draw::is_drawn(rate, &NET, &pulse.signature, &round(), &Digest([0xcc; 32]));
    let lot = u64::from_be_bytes(read("draw")[..8].try_into().unwrap());
    // The least rate, in millionths, that draws it.
    let least = u32::try_from(((u128::from(lot) * 1_000_000) >> 64) + 1).unwrap();
    assert!(drawn(least) && !drawn(least - 1));
}

#[test]
fn the_pinned_answer_is_its_miners_and_nobody_elses() {
    let signature: [u8; 64] = read("answer-signature").try_into().unwrap();
    assert!(statement().verify(&hotkey(8).hotkey(), &NET, &signature));
    assert!(!statement().verify(&hotkey(1).hotkey(), &NET, &signature));
    assert!(!statement().verify(&hotkey(8).hotkey(), &NetworkId([8; 32]), &signature));
    for at in 0..64 {
        let mut flipped = signature;
        flipped[at] ^= 1;
        assert!(!statement().verify(&hotkey(8).hotkey(), &NET, &flipped), "byte {at}");
    }
}

#[test]
fn the_pinned_receipt_is_proved_by_hand() {
    use perturb_types::Digest as D;
    // As the document says it: leaves, then inner nodes, then the count.
    let leaf = |d: D| sha256(&[&[0], &d.0]);
    let inner = |a: [u8; 32], b: [u8; 32]| sha256(&[&[1], &a, &b]);
    let [a, b, c] = [0, 1, 2].map(|i: usize| leaf(digest_of(Domain::Receipt, &NET, &receipts()[i])));
    let root = sha256(&[&[2], &3u64.to_le_bytes(), &inner(inner(a, b), c)]);
    assert_eq!(root.to_vec(), read("results-root"));
    let proof: ReceiptProof = borsh::from_slice(&read("receipt-proof")).unwrap();
    assert_eq!(proof.path.siblings, [Digest(a), Digest(c)]);
    assert!(proof.verify(&NET, &Digest(root)) && !proof.verify(&NET, &Digest(a)));
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Digest::of(&parts.concat()).0
}
