//! Nobody's answer can be handed on: what miners are bound to before they show anything.

use perturb_types::round::{AnswerCommit, commitment};

use super::*;

/// The first round of validator 0, its opening in a block.
struct Opened {
    net: Net,
    ls: [Ledger<MemoryStore>; 2],
    open: Signed<RoundOpen>,
    result: RoundResult,
    commits: RoundCommits,
}

impl Opened {
    fn new() -> Self {
        let net = Net::new();
        let mut ls = pair(&net);
        let open = net.open(0, 0, 0);
        let (result, commits) = (net.result(0, &open), net.commits(&open, &net.result(0, &open)));
        let input = net.input(&ls[0], vec![Transaction::RoundOpen(open.envelope().clone())]);
        net.step(&mut ls, input);
        Self { net, ls, open, result, commits }
    }

    /// What the miner binds itself to for these bytes.
    fn bind(&self, miner: usize, answer: &Digest) -> AnswerCommit {
        let (pair, open) = (&self.net.miners[miner], &self.open);
        let s = AnswerStatement::of(&self.net.id(), open.round, open.image, &pair.hotkey(), answer);
        s.sign(pair, &self.net.id())
    }

    fn why(&self, transaction: &Transaction) -> String {
        self.ls[0].check_transaction(transaction).unwrap_err().to_string()
    }

    fn agree(&mut self, commits: RoundCommits) {
        let bound = self.net.bind(0, commits);
        let input = self.net.input(&self.ls[0], vec![bound]);
        assert_eq!(self.net.step(&mut self.ls, input).body.transactions.len(), 1);
    }

    /// The result where miner `i` is said to have answered with these bytes, scored as miner 0.
    fn handed_on(&self, i: usize, answer: Digest) -> RoundResult {
        let mut result = self.result.clone();
        let miner = result.entries[i].miner;
        result.entries[i] = Entry { miner, answer: Some(answer), ..result.entries[0].clone() };
        result
    }
}

/// The proxy: the validator sees the honest miner's answer and pays its own miner, the third, for it.
/// Its miner signs whatever helps. Whatever it does, either no block takes it or the honest miner is paid.
#[test]
fn bytes_that_were_seen_earn_nothing_and_do_not_spoil_the_honest_answer() {
    let mut world = Opened::new();
    let seen = world.result.entries[0].answer.unwrap();
    world.agree(world.commits.clone());
    // Its own miner was bound to nothing, and comes too late.
    let proxied = world.net.sign(0, world.handed_on(2, seen));
    assert!(world.why(&proxied).contains("bound to none"), "{}", world.why(&proxied));
    let mut late = world.commits.clone();
    late.commits[2] = Some(world.bind(2, &seen));
    let late = world.net.bind(0, late);
    assert!(world.why(&late).contains("bound already"), "{}", world.why(&late));
    let honest = world.net.sign(0, world.result.clone());
    let input = world.net.input(&world.ls[0], vec![honest]);
    world.net.step(&mut world.ls, input);
    let standings = query::standings(world.ls[0].store(), ChallengeId(0)).unwrap();
    assert!(standings[&world.net.miners[0].hotkey()].mean > 900_000);
    assert_eq!(standings[&world.net.miners[2].hotkey()].mean, 0);
}

/// It repeats the honest commitment under its own signature: nothing that it can show fits.
#[test]
fn a_repeated_commitment_is_bound_to_nothing_that_can_be_shown() {
    let mut world = Opened::new();
    let seen = world.result.entries[0].answer.unwrap();
    let copied = world.commits.commits[0].unwrap().commit;
    let s = AnswerStatement { round: world.open.round, image: world.open.image, commit: copied };
    let mut commits = world.commits.clone();
    commits.commits[2] = Some(s.sign(&world.net.miners[2], &world.net.id()));
    world.agree(commits);
    let same = world.net.sign(0, world.handed_on(2, seen));
    assert!(world.why(&same).contains("not the one it was bound to"), "no duplicate either: {}", world.why(&same));
    // Silent about it, the honest miner's result stands as it is.
    world.ls[0].check_transaction(&world.net.sign(0, world.result.clone())).unwrap();
}

/// Withheld commitments: a result with answers needs them, and without them it is one of silence.
#[test]
fn without_commitments_a_result_holds_no_answer() {
    let world = Opened::new();
    let early = world.ls[0].check_transaction(&world.net.sign(0, world.result.clone())).unwrap_err();
    assert!(early.is_early(), "{early}");
    let mut silent = world.result.clone();
    let rules = &world.net.genesis.challenges[0].rules;
    for e in &mut silent.entries {
        *e = Verdict::absent(rules, 3, e.miner, Reason::ResponseMissing, 0);
    }
    world.ls[0].check_transaction(&world.net.sign(0, silent)).unwrap();
}

#[test]
fn commitments_are_signed_by_their_miners_for_this_round_and_image_and_given_once() {
    let mut world = Opened::new();
    let bad = |change: &dyn Fn(&mut RoundCommits)| {
        let mut commits = world.commits.clone();
        change(&mut commits);
        world.why(&world.net.bind(0, commits))
    };
    assert!(bad(&|c| c.commits[0].as_mut().unwrap().signature[3] ^= 1).contains("never signed"));
    assert!(bad(&|c| c.commits[0].as_mut().unwrap().commit.0[3] ^= 1).contains("never signed"));
    assert!(bad(&|c| c.commits.swap(0, 1)).contains("never signed"));
    assert!(bad(&|c| c.commits.truncate(2)).contains("2 commitments for 3 miners"));
    assert!(bad(&|c| c.commits = vec![None; 3]).contains("of nobody"));
    let other = AnswerStatement { round: world.open.round, image: Digest([9; 32]), commit: Digest([1; 32]) };
    let of_other_image = other.sign(&world.net.miners[0], &world.net.id());
    assert!(bad(&|c| c.commits[0] = Some(of_other_image)).contains("never signed"));
    assert!(world.ls[0].check_transaction(&world.net.bind(1, world.commits.clone())).is_err(), "not its round");
    let later = RoundCommits { round: world.net.round(0, 1), ..world.commits.clone() };
    assert!(world.ls[0].check_transaction(&world.net.bind(0, later)).unwrap_err().is_early());
    world.agree(world.commits.clone());
    assert!(world.why(&world.net.bind(0, world.commits.clone())).contains("bound already"));
    let closed = world.net.sign(0, world.result.clone());
    let input = world.net.input(&world.ls[0], vec![closed]);
    world.net.step(&mut world.ls, input);
    assert!(!world.ls[0].check_transaction(&world.net.bind(0, world.commits.clone())).unwrap_err().is_early());
}

/// One image in two rounds: what was shown in the first fits no commitment of the second.
#[test]
fn a_commitment_of_another_round_with_the_same_image_is_none() {
    let net = Net::new();
    let mut ls = pair(&net);
    let first = net.open(0, 0, 0);
    let mut second = net.open(1, 0, 0).into_value();
    second.image = first.image;
    let second = Signed::sign(&net.keys[1], &net.id(), second);
    let opens = [&first, &second].map(|open| Transaction::RoundOpen(open.envelope().clone()));
    let input = net.input(&ls[0], opens.to_vec());
    net.step(&mut ls, input);
    let shown = net.commits(&first, &net.result(0, &first));
    let replayed = net.bind(1, RoundCommits { round: second.round, ..shown.clone() });
    assert!(ls[0].check_transaction(&replayed).unwrap_err().to_string().contains("never signed"));
    let bytes = net.result(0, &first).entries[0].answer.unwrap();
    let miner = net.miners[0].hotkey();
    assert_ne!(commitment(&net.id(), &second.round, &miner, &bytes), shown.commits[0].unwrap().commit);
}

/// Found by the simulator: a validator opens one round twice, and a proposal that was not decided had the
/// other opening. What was verified beside that one does not hold beside the one that was agreed.
#[test]
fn what_was_verified_beside_an_opening_that_was_not_agreed_is_verified_again() {
    let net = Net::new();
    let mut ls = pair(&net);
    let first = net.open(0, 0, 0);
    let other =
        Signed::sign(&net.keys[0], &net.id(), RoundOpen { image: Digest([9; 32]), ..first.clone().into_value() });
    let bound = net.bind(0, net.commits(&other, &net.result(0, &other)));
    let opening = |open: &Signed<RoundOpen>| Transaction::RoundOpen(open.envelope().clone());
    let (block, _) = ls[0].propose(net.input(&ls[0], vec![opening(&other), bound.clone()])).unwrap();
    assert_eq!(block.body.transactions.len(), 2, "a proposal that nobody decides");
    let input = net.input(&ls[0], vec![opening(&first), bound.clone()]);
    assert_eq!(net.step(&mut ls, input).body.transactions.len(), 1);
    for l in &ls {
        assert!(l.check_transaction(&bound).unwrap_err().to_string().contains("never signed"));
    }
}

/// The validator may say that a bound answer was not shown; not that its signature was bad.
#[test]
fn an_answer_that_was_not_shown_is_missing_and_its_signature_is_no_excuse() {
    let mut world = Opened::new();
    world.agree(world.commits.clone());
    let rules = world.net.genesis.challenges[0].rules.clone();
    let said = |reason| {
        let mut result = world.result.clone();
        result.entries[0] = Verdict::absent(&rules, 3, result.entries[0].miner, reason, 500);
        world.ls[0].check_transaction(&world.net.sign(0, result))
    };
    said(Reason::ResponseMissing).unwrap();
    assert!(said(Reason::BadSignature).unwrap_err().to_string().contains("verified"));
}

#[test]
fn the_state_proves_what_miners_are_bound_to() {
    let mut world = Opened::new();
    let key = state::open_key(ChallengeId(0), &world.open.round.validator, 0);
    let row = |world: &Opened| {
        let height = world.ls[0].head().height;
        let proof = StateProof::make(world.ls[0].store(), height, &key).unwrap();
        assert!(proof.verify(&world.ls[0].head().state_root));
        borsh::from_slice::<state::OpenRow>(&proof.value.unwrap()).unwrap()
    };
    assert_eq!(row(&world).commits, None);
    world.agree(world.commits.clone());
    let expected: Vec<_> = world.commits.commits.iter().map(|c| c.map(|c| c.commit)).collect();
    assert_eq!(row(&world).commits, Some(expected));
}
