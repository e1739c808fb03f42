//! Against a ledger of four founders: what is agreed there, and what only looks like it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use perturb_challenge::rules::Rules;
use perturb_ledger::agreed::offer_keys;
use perturb_ledger::archive::Archive;
use perturb_ledger::genesis::{Aggregation, ChallengeSpec, Genesis, GenesisDelegation, Parameters, Timeouts};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::seeds::{self, Lots};
use perturb_ledger::tx::{Delegation, Neuron, Readiness, Snapshot};
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{
    Certificate, ChainReference, Ledger, MemoryStore, ProposalInput, Pulse, Transaction, VoteKind, query,
    vote_sign_bytes,
};
use perturb_types::round::{AnswerCommit, commitment};
use perturb_types::{Beacon, ChallengeId, ConsensusPair, RoundCommits, RoundOpen, RoundPair, Signed};

use super::*;
use crate::attack::tests::Linear;
use crate::model::{Levels, Model, ModelError, Passes, Pull};

/// The time that an answer has, milliseconds.
const DEADLINE_MS: u32 = 1000;

/// Some time after every block here.
fn soon_after() -> u64 {
    10_000
}

fn much_later() -> u64 {
    10_000_000
}

fn hot(i: u8) -> HotkeyPair {
    HotkeyPair::from_seed(&[i; 32]).unwrap()
}

fn pair(i: u8) -> ConsensusPair {
    ConsensusPair::from_seed(&[10 + i; 32])
}

fn reference(number: u64, epoch_index: u64) -> ChainReference {
    ChainReference { number, hash: Digest([number as u8; 32]), epoch_index }
}

fn snapshot(reference: ChainReference) -> Snapshot {
    let neuron = |i: u8| Neuron {
        uid: i.into(),
        hotkey: hot(i).hotkey(),
        coldkey: [i; 32],
        stake_rao: if i < 20 { 5000 } else { 0 },
        permit: i < 20,
    };
    Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: (1..=5).chain(21..=22).map(neuron).collect(),
    }
}

/// Challenges of the network.
const CHALLENGES: u16 = 12;

/// One of several challenges, which differ in nothing: a validator has one open round in each.
fn spec(id: u16) -> ChallengeSpec {
    ChallengeSpec {
        id: ChallengeId(id),
        mechanism: 0,
        rules: Rules { deadline_ms: DEADLINE_MS, ..Rules::subnet() },
        model: "linear".into(),
        model_digest: Digest([2; 32]),
        source: "demo:1:100".into(),
        source_fingerprint: Digest([3; 32]),
        source_len: 100,
        interval_ms: 1000,
        miners_per_round: 8,
        aggregation: Aggregation::Quantile,
        min_confidence: 50_000,
    }
}

fn genesis() -> Genesis {
    let zero = NetworkId([0; 32]);
    let ms = 100;
    let timeouts = Timeouts {
        propose_ms: ms,
        propose_delta_ms: ms,
        prevote_ms: ms,
        prevote_delta_ms: ms,
        precommit_ms: ms,
        precommit_delta_ms: ms,
    };
    Genesis {
        chain_genesis: Digest([1; 32]),
        netuid: 2,
        beacon: Beacon::DEVELOPMENT,
        time_ms: 1000,
        snapshot: snapshot(reference(1, 0)),
        delegations: (1..=4).map(|i| GenesisDelegation::of(&Delegation::sign(&zero, &hot(i), &pair(i), 0))).collect(),
        owner: hot(31).hotkey(),
        challenges: (0..CHALLENGES).map(spec).collect(),
        parameters: Parameters {
            min_stake_rao: 1000,
            power: PowerRule::Equal,
            block_interval_ms: 1000,
            max_block_transactions: 100,
            max_block_bytes: 1 << 20,
            max_rounds_per_epoch: 100,
            open_round_blocks: 50,
            burn_uid: 0,
            timeouts,
            spot_checks: Default::default(),
            reputation: Default::default(),
            draws: Default::default(),
            min_work: 0,
            order_delay_blocks: 1,
            proposal_age_ms: 2_000,
        },
    }
}

/// The network.
struct Net {
    genesis: Genesis,
    ledger: Ledger<MemoryStore>,
}

impl Net {
    fn new() -> Self {
        let genesis = genesis();
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&genesis).unwrap());
        Self { ledger: Ledger::new(genesis.clone(), store).unwrap(), genesis }
    }

    fn id(&self) -> NetworkId {
        self.genesis.network_id()
    }

    fn step(&mut self, transactions: Vec<Transaction>, closes: Option<u64>) {
        let head = self.ledger.head();
        let reference = closes.map_or_else(|| head.reference.clone(), |index| reference(10 * index, index));
        let input = ProposalInput {
            time_ms: head.time_ms + 10,
            proposer: pair(1).public(),
            snapshot: closes.map(|_| snapshot(reference.clone())),
            reference,
            transactions,
        };
        let wanted = input.transactions.len() + usize::from(closes.is_some());
        let (block, executed) = self.ledger.propose(input).unwrap();
        assert_eq!(block.body.transactions.len(), wanted);
        let (height, digest) = (block.header.height, executed.digest());
        let bytes = vote_sign_bytes(&self.id(), VoteKind::Precommit, height, 0, Some(digest));
        let members = (1..=5).map(pair).filter(|p| self.ledger.validators().by_key(&p.public()).is_some());
        let signatures = members.map(|p| (p.public(), p.sign(&bytes))).collect();
        let commit = self.ledger.commit(executed, Certificate::new(height, 0, digest, signatures)).unwrap();
        self.ledger.store_mut().commit(&commit);
    }

    /// The first round of a validator in a challenge.
    fn round(v: u8, challenge: u16) -> RoundId {
        RoundId { validator: hot(v).hotkey(), challenge: ChallengeId(challenge), seq: 0 }
    }

    /// Opens a round of an image with both miners.
    fn open(&mut self, v: u8, challenge: u16, png: &[u8]) -> RoundId {
        let (id, round) = (self.id(), Self::round(v, challenge));
        let (epoch, _, seed) = seeds::drawing(self.ledger.store(), &round.validator).unwrap().unwrap();
        let miners = Lots::draw(&RoundPair::of(&pair(v)), &id, seed, &round).miners;
        let open = RoundOpen { round, epoch, image: Digest::of(png), miners, opened_ms: 0 };
        self.step(vec![Transaction::RoundOpen(Signed::sign(&pair(v), &id, open).into_envelope())], None);
        round
    }

    fn bind(&mut self, v: u8, round: RoundId, commits: Vec<Option<AnswerCommit>>) {
        let commits = Signed::sign(&pair(v), &self.id(), RoundCommits { round, commits });
        self.step(vec![Transaction::RoundCommits(commits.into_envelope())], None);
    }

    fn rows(&self, keys: &[Vec<u8>]) -> AgreedRows {
        AgreedRows::collect(self.ledger.store(), keys).unwrap().unwrap()
    }

    fn offer(&self, round: RoundId) -> MinerRequest {
        let agreed = encode::encode(&self.rows(&offer_keys(&round)));
        MinerRequest::Offer { round: round.into(), agreed }
    }

    fn fetch(&self, round: RoundId) -> MinerRequest {
        let agreed = encode::encode(&self.rows(&offer_keys(&round)[..1]));
        MinerRequest::Fetch { round: round.into(), agreed }
    }

    fn handovers(&self, from: u64) -> MinerRequest {
        let list = self.ledger.store().handovers_from(from, wire::MAX_HANDOVERS).unwrap();
        MinerRequest::Handovers { handovers: list.iter().map(|h| encode::encode(h).into()).collect() }
    }

    /// An epoch closes after which the fifth validator is in the set.
    fn fifth_joins(&mut self) {
        let joins = Delegation::sign(&self.id(), &hot(5), &pair(5), 0);
        self.step(vec![Transaction::KeyDelegation(Box::new(joins))], None);
        let epoch = self.ledger.head().epoch;
        let ready = |i: u8| {
            let ready = Readiness { hotkey: hot(i).hotkey(), epoch };
            Transaction::Readiness(Signed::sign(&pair(i), &self.genesis.network_id(), ready).into_envelope())
        };
        self.step((1..=5).map(ready).collect(), Some(epoch + 1));
        // The pulse that gives the epoch its seed.
        let awaited = query::awaited_pulses(self.ledger.store()).unwrap();
        let pulses = awaited.into_iter().map(|round| Transaction::Pulse(Pulse::of_development(round).unwrap()));
        self.step(pulses.collect(), None);
        assert_eq!(self.ledger.validators().len(), 5);
    }
}

/// A linear model that takes its time.
struct Slow(Linear);

impl Model for Slow {
    fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
        std::thread::sleep(Duration::from_millis(2));
        self.0.logits(images)
    }
    fn float_logits(&mut self, images: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
        std::thread::sleep(Duration::from_millis(2));
        self.0.float_logits(images)
    }
    fn gradients(&mut self, images: &[&Levels], pulls: &[Pull]) -> Result<Passes, ModelError> {
        std::thread::sleep(Duration::from_millis(2));
        self.0.gradients(images, pulls)
    }
}

fn image(value: u8) -> Pixels {
    Pixels::new(32, 32, (0..32 * 32 * 3).map(|i| value + (i % 7) as u8).collect()).unwrap()
}

/// Flips [`image`]\(100) easily and [`image`]\(10) not at all.
fn model() -> Loaded {
    let linear = Linear::with_margin(vec![1.0; 32 * 32 * 3], &image(100), 200.0);
    Loaded { name: "linear".into(), digest: Digest([2; 32]), model: Box::new(Slow(linear)) }
}

fn miner(genesis: &Genesis, clock: fn() -> u64) -> Service {
    let attack = attack::by_name("ours", &attack::Options::default()).unwrap();
    let sets = Follower::open(genesis, None).unwrap();
    Service::new(hot(21), attack, vec![model()], Drill::honest(), sets, clock)
}

fn waits() -> Waits {
    Arc::new(|| true)
}

fn ask(service: &Service, v: u8, request: &MinerRequest) -> MinerResponse {
    let bytes = wire::to_cbor("request", request).unwrap();
    let reply = service.answer(&hot(v).hotkey(), &bytes, &waits()).unwrap();
    wire::from_cbor("response", &reply, wire::MAX_MINER_RESPONSE_BYTES).unwrap()
}

fn challenge(round: RoundId, png: &[u8]) -> MinerRequest {
    MinerRequest::Challenge(Box::new(Challenge { round: round.into(), image: png.to_vec(), label: 0 }))
}

fn declined(response: &MinerResponse) -> Option<Decline> {
    match response {
        MinerResponse::Declined { code, .. } => Some(*code),
        _ => None,
    }
}

fn bound(response: MinerResponse) -> AnswerCommit {
    let MinerResponse::Announce { commit, signature } = response else { panic!("{response:?}") };
    AnswerCommit { commit: wire::digest(&commit).unwrap(), signature: wire::fixed("signature", &signature).unwrap() }
}

fn wait_for_the_deadline() {
    std::thread::sleep(Duration::from_millis(u64::from(DEADLINE_MS)));
}

#[test]
fn an_agreed_round_is_worked_on_once_and_its_answer_shown_on_proof_of_the_commitment() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let round = net.open(1, 0, &png);
    let offer = net.offer(round);
    assert_eq!(ask(&service, 1, &offer), MinerResponse::Ready);
    let commit = bound(ask(&service, 1, &challenge(round, &png)));
    assert_eq!(declined(&ask(&service, 1, &challenge(round, &png))), Some(Decline::NotAgreed), "once");
    assert_eq!(declined(&ask(&service, 1, &offer)), Some(Decline::BadChallenge), "once");
    assert_eq!(declined(&ask(&service, 1, &net.fetch(round))), Some(Decline::Early), "others could hand it in");
    wait_for_the_deadline();
    assert_eq!(declined(&ask(&service, 1, &net.fetch(round))), Some(Decline::NotAgreed), "it is not bound yet");
    assert_eq!(declined(&ask(&service, 2, &net.fetch(round))), Some(Decline::BadChallenge), "another's round");
    net.bind(1, round, vec![Some(commit), None]);
    let MinerResponse::Image { png: answer } = ask(&service, 1, &net.fetch(round)) else { panic!("no image") };
    let shown = commitment(&net.id(), &round, &hot(21).hotkey(), &Digest::of(&answer));
    assert_eq!(shown, commit.commit);
}

/// A validator that leaves a commitment out, or gives it another's place, sees no answer.
#[test]
fn without_its_own_commitment_in_its_place_a_miner_shows_nothing() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let round = net.open(1, 0, &png);
    ask(&service, 1, &net.offer(round));
    bound(ask(&service, 1, &challenge(round, &png)));
    // The other miner is the validator's own.
    let own = AnswerStatement::of(&net.id(), round, Digest::of(&png), &hot(22).hotkey(), &Digest([1; 32]));
    net.bind(1, round, vec![None, Some(own.sign(&hot(22), &net.id()))]);
    wait_for_the_deadline();
    assert_eq!(declined(&ask(&service, 1, &net.fetch(round))), Some(Decline::NotAgreed));
}

/// Whoever hands a challenge on has no round of its own that is agreed.
#[test]
fn nothing_is_done_for_an_opening_that_no_block_has() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let round = net.open(1, 0, &png);
    // Without an offer; for a round that is open, but of another image; of another validator.
    assert_eq!(declined(&ask(&service, 1, &challenge(round, &png))), Some(Decline::NotAgreed));
    assert_eq!(ask(&service, 1, &net.offer(round)), MinerResponse::Ready);
    let other = image(101).encode_png().unwrap();
    assert_eq!(declined(&ask(&service, 1, &challenge(round, &other))), Some(Decline::NotAgreed));
    assert_eq!(declined(&ask(&service, 2, &net.offer(round))), Some(Decline::BadChallenge));
    assert_eq!(declined(&ask(&service, 2, &challenge(round, &png))), Some(Decline::BadChallenge));
    // A round that nobody opened: the state shows that it is absent.
    assert_eq!(declined(&ask(&service, 2, &net.offer(Net::round(2, 0)))), Some(Decline::NotAgreed));
    assert_eq!(service.counts().answered, 0);
}

/// A state of one's own making, certified by random keys, by too few, or by a certificate of another header.
#[test]
fn a_made_up_state_is_not_believed() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let round = net.open(1, 0, &png);
    let forged = |change: &dyn Fn(&mut AgreedRows)| {
        let mut rows = net.rows(&offer_keys(&round));
        change(&mut rows);
        let agreed = encode::encode(&rows);
        declined(&ask(&service, 1, &MinerRequest::Offer { round: round.into(), agreed }))
    };
    let sign = |rows: &mut AgreedRows, keys: &[ConsensusPair]| {
        let (height, digest) = (rows.header.height, rows.header.digest(&net.id()));
        let bytes = vote_sign_bytes(&net.id(), VoteKind::Precommit, height, 0, Some(digest));
        let signatures = keys.iter().map(|k| (k.public(), k.sign(&bytes))).collect();
        rows.certificate = Certificate::new(height, 0, digest, signatures);
    };
    let random: Vec<_> = (100..104).map(pair).collect();
    let own: Vec<_> = (1..=2).map(pair).collect();
    for (forgery, why) in [
        (forged(&|rows| sign(rows, &random)), "random keys"),
        (forged(&|rows| sign(rows, &own)), "half of the set"),
        (forged(&|rows| rows.header.state_root = Digest([1; 32])), "another state"),
        (forged(&|rows| rows.header.time_ms += 1), "another header"),
        (forged(&|rows| rows.rows[0].value.as_mut().unwrap()[0] ^= 1), "another row"),
        (forged(&|rows| rows.rows.swap(0, 1)), "other keys"),
        (forged(&|rows| rows.rows.truncate(1)), "no specification"),
    ] {
        assert_eq!(forgery, Some(Decline::NotAgreed), "{why}");
    }
    assert_eq!(ask(&service, 1, &net.offer(round)), MinerResponse::Ready);
}

/// What was agreed once is not agreed for ever: old rows could show a round that ended long ago.
#[test]
fn an_old_header_shows_nothing() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    let service = miner(&net.genesis, much_later);
    let round = net.open(1, 0, &png);
    assert_eq!(declined(&ask(&service, 1, &net.offer(round))), Some(Decline::NotAgreed));
}

#[test]
fn a_round_whose_miners_are_bound_or_that_asks_others_is_not_worked_on() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let round = net.open(1, 0, &png);
    let own = AnswerStatement::of(&net.id(), round, Digest::of(&png), &hot(22).hotkey(), &Digest([1; 32]));
    net.bind(1, round, vec![None, Some(own.sign(&hot(22), &net.id()))]);
    assert_eq!(declined(&ask(&service, 1, &net.offer(round))), Some(Decline::BadChallenge));
}

#[test]
fn a_miner_follows_the_sets_by_handovers_and_keeps_the_newest() {
    let (mut net, png) = (Net::new(), image(100).encode_png().unwrap());
    net.fifth_joins();
    let round = net.open(5, 0, &png);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("set");
    let made = |file: &std::path::Path| {
        let attack = attack::by_name("ours", &attack::Options::default()).unwrap();
        let sets = Follower::open(&net.genesis, Some(file.to_path_buf())).unwrap();
        Service::new(hot(21), attack, vec![model()], Drill::honest(), sets, soon_after)
    };
    let service = made(&file);
    assert_eq!(ask(&service, 5, &net.offer(round)), MinerResponse::Need { from: 1 });
    // A handover that the set did not certify leads nowhere.
    let mut forged = net.ledger.store().handovers_from(1, 1).unwrap();
    forged[0].certificate.signatures.truncate(2);
    let forged = MinerRequest::Handovers { handovers: vec![encode::encode(&forged[0]).into()] };
    assert_eq!(ask(&service, 5, &forged), MinerResponse::Need { from: 1 });
    assert_eq!(ask(&service, 5, &net.handovers(1)), MinerResponse::Need { from: 3 });
    assert_eq!(ask(&service, 5, &net.offer(round)), MinerResponse::Ready);
    let many = MinerRequest::Handovers { handovers: vec![Vec::new().into(); wire::MAX_HANDOVERS + 1] };
    assert_eq!(declined(&ask(&service, 5, &many)), Some(Decline::BadChallenge));
    drop(service);
    assert_eq!(ask(&made(&file), 5, &net.offer(round)), MinerResponse::Ready, "the set was kept");
    std::fs::write(&file, b"damaged").unwrap();
    assert_eq!(ask(&made(&file), 5, &net.offer(round)), MinerResponse::Need { from: 1 });
}

/// One asker's hopeless images, as many at once as it likes, against another's good ones.
#[test]
fn hopeless_work_of_one_asker_takes_no_answer_from_another() {
    let mut net = Net::new();
    let (good, hopeless) = (image(100).encode_png().unwrap(), image(10).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let bad: Vec<RoundId> = (0..CHALLENGES).map(|challenge| net.open(1, challenge, &hopeless)).collect();
    let fine: Vec<RoundId> = (0..4).map(|challenge| net.open(2, challenge, &good)).collect();
    for (v, round) in bad.iter().map(|r| (1, r)).chain(fine.iter().map(|r| (2, r))) {
        assert_eq!(ask(&service, v, &net.offer(*round)), MinerResponse::Ready);
    }
    std::thread::scope(|scope| {
        for part in bad.chunks(2) {
            let (service, hopeless) = (&service, &hopeless);
            scope.spawn(move || part.iter().for_each(|round| drop(ask(service, 1, &challenge(*round, hopeless)))));
        }
        for round in &fine {
            std::thread::sleep(Duration::from_millis(100));
            let began = Instant::now();
            bound(ask(&service, 2, &challenge(*round, &good)));
            assert!(began.elapsed() < Duration::from_millis(u64::from(DEADLINE_MS)), "{:?}", began.elapsed());
        }
    });
}

#[test]
fn work_ends_when_its_asker_leaves() {
    let (mut net, hopeless) = (Net::new(), image(10).encode_png().unwrap());
    let service = miner(&net.genesis, soon_after);
    let round = net.open(1, 0, &hopeless);
    ask(&service, 1, &net.offer(round));
    let left = Instant::now() + Duration::from_millis(100);
    let waits: Waits = Arc::new(move || Instant::now() < left);
    let bytes = wire::to_cbor("request", &challenge(round, &hopeless)).unwrap();
    service.answer(&hot(1).hotkey(), &bytes, &waits);
    assert!(Instant::now() < left + Duration::from_millis(400), "long before the deadline");
}
