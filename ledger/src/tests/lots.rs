//! Images, transforms and miners that a validator cannot choose.

use std::collections::BTreeSet;

use perturb_types::vrf::{Draw, Purpose};
use perturb_types::{Lot, RoundReveal, RoundSkip};

use super::*;
use crate::images::{self, MAX_SKIPS, REVEAL_BLOCKS};
use crate::seeds::{self, Lots};
use crate::state::{pages_of, used_key};
use crate::store::StateStore;

const SPEC: ChallengeId = ChallengeId(0);

/// A network whose state says what is drawn: nothing is kept beside it.
struct World {
    net: Net,
    ls: [Ledger<MemoryStore>; 2],
    /// Further keys of validators.
    others: Vec<ConsensusPair>,
}

impl World {
    fn new(change: impl FnOnce(&mut Net)) -> Self {
        let mut net = Net::new();
        net.genesis.challenges[0].source_len = 12;
        net.genesis.parameters.max_rounds_per_epoch = 100;
        change(&mut net);
        Self { ls: pair(&net), net, others: Vec::new() }
    }

    fn store(&self) -> &MemoryStore {
        self.ls[0].store()
    }

    fn step(&mut self, txs: Vec<Transaction>) -> usize {
        let input = self.net.input(&self.ls[0], txs);
        self.certified(input).body.transactions.len()
    }

    fn hotkey(&self, v: usize) -> Hotkey {
        self.net.hotkeys[v].hotkey()
    }

    /// The next round of a validator, and its lots as they are drawn now.
    fn draw(&self, v: usize) -> (RoundId, u64, Lots) {
        let validator = self.hotkey(v);
        let row = query::sequence(self.store(), SPEC, &validator).unwrap();
        let round = RoundId { validator, challenge: SPEC, seq: row.next };
        let (epoch, key, seed) = seeds::drawing(self.store(), &validator).unwrap().unwrap();
        let pairs = self.net.keys.iter().chain(&self.others).map(RoundPair::of);
        let pair = pairs.into_iter().find(|pair| pair.public() == key).unwrap();
        (round, epoch, Lots::draw_for(&pair, &self.net.id(), seed, &round, row.miners_number()))
    }

    fn upcoming(&self, v: usize, lots: &Lots) -> Vec<(u64, TransformSecret)> {
        let len = self.net.genesis.challenges[0].source_len;
        images::upcoming(self.store(), &self.net.id(), (SPEC, len), self.hotkey(v), &lots.value).unwrap()
    }

    /// The key that signs for a validator now.
    fn signer(&self, v: usize) -> &ConsensusPair {
        let key = self.ls[0].validators().by_hotkey(&self.hotkey(v)).unwrap().key;
        self.net.keys.iter().chain(&self.others).find(|pair| pair.public() == key).unwrap()
    }

    fn open(&self, v: usize) -> (Signed<RoundOpen>, Lots) {
        let (round, epoch, lots) = self.draw(v);
        let open = RoundOpen { round, epoch, image: Digest([9; 32]), miners: lots.miners, opened_ms: 0 };
        (Signed::sign(self.signer(v), &self.net.id(), open), lots)
    }

    fn opens(&mut self, v: usize) -> (Signed<RoundOpen>, Lots) {
        let (open, lots) = self.open(v);
        assert_eq!(self.step(vec![Transaction::RoundOpen(open.envelope().clone())]), 1);
        (open, lots)
    }

    /// The result of an open round to which nobody answered, after so many images were passed over.
    fn silent(&self, v: usize, open: &Signed<RoundOpen>, lots: &Lots, skipped: usize) -> RoundResult {
        let mut drawn: Vec<_> = self.upcoming(v, lots).into_iter().take(skipped + 1).collect();
        let (source_index, transform) = drawn.pop().unwrap();
        let row = query::open_round(self.store(), SPEC, &self.hotkey(v), open.round.seq).unwrap().unwrap();
        let rules = &self.net.genesis.challenges[0].rules;
        let absent = |m: &Hotkey| Verdict::absent(rules, 3, *m, Reason::ResponseMissing, 0);
        RoundResult {
            round: open.round,
            open: open.digest(),
            images: lots.images,
            skipped: drawn.into_iter().map(|(image, _)| image).collect(),
            source_index,
            transform,
            label: 3,
            entries: row.miners.iter().map(absent).collect(),
        }
    }

    fn sign(&self, v: usize, result: RoundResult) -> Transaction {
        Transaction::RoundResult(Signed::sign(self.signer(v), &self.net.id(), result).into_envelope())
    }

    /// A whole round in two blocks; the images that it has used.
    fn round(&mut self, v: usize, skipped: usize) -> Vec<u64> {
        let (open, lots) = self.opens(v);
        let result = self.silent(v, &open, &lots, skipped);
        let images = result.skipped.iter().copied().chain([result.source_index]).collect();
        let result = self.sign(v, result);
        assert_eq!(self.step(vec![result]), 1);
        images
    }

    fn reveal(&self, v: usize) -> Transaction {
        let owed = query::unrevealed(self.store(), SPEC, &self.hotkey(v)).unwrap().unwrap();
        let round = RoundId { validator: self.hotkey(v), challenge: SPEC, seq: owed.seq };
        let pairs = self.net.keys.iter().chain(&self.others).map(RoundPair::of);
        let pair = pairs.into_iter().find(|pair| pair.public() == owed.key).unwrap();
        let images = Lots::draw(&pair, &self.net.id(), owed.seed, &round).images;
        let reveal = RoundReveal { round, images };
        Transaction::RoundReveal(Signed::sign(self.signer(v), &self.net.id(), reveal).into_envelope())
    }

    fn run_out(&mut self) {
        for _ in 0..self.net.genesis.parameters.open_round_blocks {
            self.step(vec![]);
        }
    }

    fn failed_checks(&self, v: usize) -> u64 {
        query::reputation(self.store(), &self.hotkey(v)).unwrap().epoch.failed_checks
    }

    fn why(&self, transaction: &Transaction) -> String {
        self.ls[0].check_transaction(transaction).unwrap_err().to_string()
    }

    /// An epoch closes; those given say that they are ready.
    fn close(&mut self, number: u64, index: u64, ready: &[usize]) {
        self.close_with(number, index, ready, |_| true);
    }

    /// Closes the epoch with those neurons who stay.
    fn close_with(&mut self, number: u64, index: u64, ready: &[usize], stays: impl Fn(&Hotkey) -> bool) {
        let epoch = self.ls[0].head().epoch;
        let said = |v: &usize| {
            let key = query::registered_key(self.store(), &self.hotkey(*v)).unwrap().unwrap().key;
            let pair = self.net.keys.iter().chain(&self.others).find(|pair| pair.public() == key).unwrap();
            let ready = Readiness { hotkey: self.hotkey(*v), epoch };
            Transaction::Readiness(Signed::sign(pair, &self.net.id(), ready).into_envelope())
        };
        let txs: Vec<_> = ready.iter().map(said).collect();
        let reference = reference(number, index);
        let mut snapshot = self.net.snapshot(reference.clone());
        snapshot.neurons.retain(|n| stays(&n.hotkey));
        let snapshot = Some(snapshot);
        let input = ProposalInput { snapshot, reference, ..self.net.input(&self.ls[0], txs) };
        self.certified(input);
    }

    /// A block that whoever is a member signs, whatever key it has.
    fn certified(&mut self, mut input: ProposalInput) -> Block {
        input.proposer = self.ls[0].validators().iter().next().unwrap().key;
        let (block, executed) = self.ls[0].propose(input).unwrap();
        let checked = self.ls[1].check(&block).unwrap();
        let bytes =
            vote_sign_bytes(&self.net.id(), VoteKind::Precommit, block.header.height, 0, Some(executed.digest()));
        let members = self.net.keys.iter().chain(&self.others);
        let members = members.filter(|k| self.ls[0].validators().by_key(&k.public()).is_some());
        let signatures = members.map(|k| (k.public(), k.sign(&bytes))).collect();
        let certificate = Certificate::new(block.header.height, 0, executed.digest(), signatures);
        for (l, e) in self.ls.iter_mut().zip([executed, checked]) {
            let commit = l.commit(e, certificate.clone()).unwrap();
            l.store_mut().commit(&commit);
        }
        block
    }

    /// The pulses that are waited for come.
    fn pulses(&mut self) {
        let awaited = query::awaited_pulses(self.store()).unwrap();
        let pulses = awaited.into_iter().map(|round| Transaction::Pulse(Pulse::of_development(round).unwrap()));
        let input = self.net.input(&self.ls[0], pulses.collect());
        self.certified(input);
    }

    fn active(&self) -> u64 {
        seeds::drawing(self.store(), &self.hotkey(1)).unwrap().unwrap().0
    }
}

/// The network's promise, told from blocks alone: over five passes, with images passed over, a round that
/// ran out, a new key and a member that joins, no image is used twice in a pass, and all are used.
#[test]
fn no_image_is_used_twice_in_a_pass_and_its_last_ones_are_used_too() {
    let mut w = World::new(|net| net.genesis.parameters.spot_checks.rate = 0);
    let mut used: Vec<u64> = Vec::new();
    for seq in 0..9 {
        used.extend(w.round(0, usize::from(seq % 4 == 1)));
    }
    // One runs out and is shown: all that it drew are used.
    let (_, lots) = w.opens(0);
    used.extend(w.upcoming(0, &lots).into_iter().map(|(image, _)| image));
    w.run_out();
    let reveal = w.reveal(0);
    assert_eq!(w.step(vec![reveal]), 1);
    // Another key, and a fifth member; the old pair draws until the pulse is there.
    let next = ConsensusPair::from_seed(&[77; 32]);
    let rotation = Delegation::sign(&w.net.id(), &w.net.hotkeys[0], &next, 1);
    let joins = Delegation::sign(&w.net.id(), &w.net.hotkeys[4], &w.net.keys[4], 0);
    w.others.push(next);
    assert_eq!(w.step([rotation, joins].map(|d| Transaction::KeyDelegation(Box::new(d))).to_vec()), 2);
    w.close(5, 1, &[0, 1, 2, 3, 4]);
    assert_eq!((w.ls[0].validators().len(), w.active()), (5, 0));
    used.extend(w.round(0, 0));
    for _ in 0..6 {
        w.step(vec![]);
    }
    w.pulses();
    assert_eq!(w.active(), 1, "the new key draws now");
    while used.len() < 60 {
        used.extend(w.round(0, 0));
    }
    for pass in used.chunks(12) {
        let all: BTreeSet<u64> = pass.iter().copied().collect();
        assert_eq!(all, (0..12).collect(), "each once: {pass:?}");
    }
    assert_ne!(used[..12], used[12..24], "and in another order");
    assert_eq!(w.round(4, 0).len(), 1, "who has joined draws from a pass of its own");
}

#[test]
fn who_states_another_image_or_transform_than_was_drawn_is_refused() {
    let mut w = World::new(|_| ());
    let (open, lots) = w.opens(0);
    let honest = w.silent(0, &open, &lots, 1);
    let said = |change: &dyn Fn(&mut RoundResult)| {
        let mut result = honest.clone();
        change(&mut result);
        w.why(&w.sign(0, result))
    };
    assert!(said(&|r| r.source_index = (r.source_index + 1) % 12).contains("not those that were drawn"));
    assert!(said(&|r| r.skipped[0] = (r.skipped[0] + 1) % 12).contains("not those that were drawn"));
    assert!(said(&|r| r.transform.0[0] ^= 1).contains("transform"));
    assert!(said(&|r| r.skipped.clear()).contains("transform"), "the secret of another attempt");
    assert!(said(&|r| r.skipped = vec![0; 32]).contains("more images"));
    assert!(said(&|r| r.images = lots.miners).contains("none of its key"), "the lot of its miners");
    let draw = Draw { purpose: Purpose::Image, challenge: SPEC, seed: Digest([0; 32]), seq: 0 };
    let other: Lot = RoundPair::of(&w.net.keys[0]).draw(&w.net.id(), &draw).1;
    assert!(said(&|r| r.images = other).contains("none of its key"), "under another seed");
    let of_another = RoundPair::of(&w.net.keys[1]).draw(&w.net.id(), &draw).1;
    assert!(said(&|r| r.images = of_another).contains("none of its key"));
    let honest = w.sign(0, honest);
    assert_eq!(w.step(vec![honest]), 1);
}

#[test]
fn the_miners_are_drawn_by_whoever_executes_the_opening() {
    let mut w = World::new(|net| net.genesis.challenges[0].miners_per_round = 1);
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        let (open, lots) = w.opens(0);
        let row = query::open_round(w.store(), SPEC, &w.hotkey(0), open.round.seq).unwrap().unwrap();
        assert_eq!(row.miners.len(), 1);
        seen.extend(row.miners.clone());
        let mut friend = w.silent(0, &open, &lots, 0);
        friend.entries[0].miner = w.net.miners.iter().map(HotkeyPair::hotkey).find(|m| *m != row.miners[0]).unwrap();
        assert!(w.why(&w.sign(0, friend)).contains("not the miners that were drawn"));
        let result = w.silent(0, &open, &lots, 0);
        let result = w.sign(0, result);
        assert_eq!(w.step(vec![result]), 1);
    }
    assert_eq!(seen.len(), 3, "everybody's turn comes");
    let (open, lots) = w.open(0);
    let forged = RoundOpen { miners: lots.images, ..(*open).clone() };
    let forged = Signed::sign(&w.net.keys[0], &w.net.id(), forged);
    assert!(w.why(&Transaction::RoundOpen(forged.into_envelope())).contains("none of its key"));
}

/// Who knows a seed cannot choose a key for it: neither a delegation before the close nor one after it,
/// while the seed waits, changes with what is drawn once the seed is there.
#[test]
fn keys_of_an_epoch_are_fixed_before_its_seed_is_known() {
    let mut w = World::new(|_| ());
    let round_key = |w: &World| seeds::drawing(w.store(), &w.hotkey(0)).unwrap().unwrap().1;
    let old = round_key(&w);
    let keys: Vec<_> = (70..73).map(|i| ConsensusPair::from_seed(&[i; 32])).collect();
    let delegate = |w: &World, i: usize| {
        Transaction::KeyDelegation(Box::new(Delegation::sign(&w.net.id(), &w.net.hotkeys[0], &keys[i], 1 + i as u64)))
    };
    w.others.extend(keys.clone());
    let first = delegate(&w, 0);
    assert_eq!(w.step(vec![first]), 1);
    assert_eq!(round_key(&w), old, "the active pair stays");
    w.close(5, 1, &[0, 1, 2, 3]);
    let second = delegate(&w, 1);
    let input = w.net.input(&w.ls[0], vec![second]);
    w.certified(input);
    assert_eq!((round_key(&w), w.active()), (old, 0), "no seed yet: the old pair draws");
    // Another epoch closes meanwhile: what waits is not replaced.
    w.close(6, 2, &[0, 1, 2, 3]);
    let third = delegate(&w, 2);
    let input = w.net.input(&w.ls[0], vec![third]);
    w.certified(input);
    let waiting: state::Meta = query::meta(w.store()).unwrap();
    assert_eq!(waiting.epoch, 2);
    for _ in 0..20 {
        let input = w.net.input(&w.ls[0], vec![]);
        w.certified(input);
    }
    w.pulses();
    assert_eq!(w.active(), 2, "the newest of those whose pulse is out");
    assert_eq!(round_key(&w), RoundPair::of(&keys[1]).public(), "as it was when epoch 1 closed");
}

#[test]
fn an_opening_of_an_old_pair_is_void_and_its_number_is_not_used() {
    let mut w = World::new(|_| ());
    let (old, _) = w.open(0);
    let early = RoundOpen { epoch: 1, ..(*old).clone() };
    let early = Transaction::RoundOpen(Signed::sign(&w.net.keys[0], &w.net.id(), early).into_envelope());
    assert!(w.ls[0].check_transaction(&early).unwrap_err().is_early(), "the seed of epoch 1 is still to come");
    w.close(5, 1, &[0, 1, 2, 3]);
    for _ in 0..6 {
        w.step(vec![]);
    }
    w.pulses();
    let old = Transaction::RoundOpen(old.envelope().clone());
    let error = w.ls[0].check_transaction(&old).unwrap_err();
    assert!(!error.is_early() && error.to_string().contains("epoch 1 draws now"), "{error}");
    assert_eq!(query::sequence(w.store(), SPEC, &w.hotkey(0)).unwrap().next, 0);
    w.round(0, 0);
    let faults = query::reputation(w.store(), &w.hotkey(0)).unwrap().epoch;
    assert_eq!((faults.unclosed, faults.failed_checks), (0, 0));
}

#[test]
fn a_round_that_ran_out_owes_its_images_before_the_next_one_and_not_for_ever() {
    let mut w = World::new(|_| ());
    let (_, _) = w.opens(0);
    let (second, _) = w.open(0);
    let second = Transaction::RoundOpen(second.envelope().clone());
    assert!(w.ls[0].check_transaction(&second).unwrap_err().is_early(), "one at a time");
    w.run_out();
    let early = w.ls[0].check_transaction(&second).unwrap_err();
    assert!(early.is_early() && early.to_string().contains("has not shown its images"), "{early}");
    let reveal = w.reveal(0);
    let Transaction::RoundReveal(envelope) = &reveal else { panic!() };
    let honest: RoundReveal = *envelope.clone().open::<RoundReveal>(&w.net.id()).unwrap();
    let said = |reveal: RoundReveal| {
        w.why(&Transaction::RoundReveal(Signed::sign(w.signer(0), &w.net.id(), reveal).into_envelope()))
    };
    assert!(said(RoundReveal { images: w.draw(0).2.images, ..honest }).contains("none of its key"));
    let foreign = Transaction::RoundReveal(Signed::sign(w.signer(1), &w.net.id(), honest).into_envelope());
    assert!(w.ls[0].check_transaction(&foreign).is_err());
    assert_eq!(w.step(vec![reveal.clone()]), 1);
    assert!(w.why(&reveal).contains("owes nothing"));
    assert_eq!(w.failed_checks(0), 0, "paid");
    // The next one is never shown.
    w.opens(0);
    w.run_out();
    let late = w.reveal(0);
    for _ in 0..REVEAL_BLOCKS {
        assert_eq!(w.failed_checks(0), 0);
        w.step(vec![]);
    }
    assert_eq!(w.failed_checks(0), 1);
    assert!(w.why(&late).contains("owes nothing"));
    w.round(0, 0);
}

/// Nobody looks at a round that was not closed: which image it showed is its validator's word alone.
#[test]
fn a_reveal_leaves_nothing_to_choose() {
    let mut w = World::new(|net| net.genesis.challenges[0].source_len = 1000);
    let (_, lots) = w.opens(0);
    let drawn: BTreeSet<u64> = w.upcoming(0, &lots).into_iter().map(|(image, _)| image).collect();
    w.run_out();
    let reveal = w.reveal(0);
    assert_eq!(w.step(vec![reveal]), 1);
    assert_eq!(drawn.len(), 32);
    for _ in 0..30 {
        assert!(w.round(0, 0).iter().all(|image| !drawn.contains(image)), "whatever was shown is used up");
    }
}

#[test]
fn who_is_no_longer_registered_leaves_no_pass() {
    let mut w = World::new(|_| ());
    w.round(0, 0);
    w.round(1, 0);
    let rows = |w: &World, v: usize| {
        let of = |prefix: Vec<u8>| w.store().scan(&prefix).unwrap().len();
        (of(used_key(SPEC, &w.hotkey(v))) == 1, of(pages_of(SPEC, &w.hotkey(v))))
    };
    assert_eq!((rows(&w, 0), rows(&w, 1)), ((true, 1), (true, 1)));
    let gone = w.hotkey(0);
    w.close_with(5, 1, &[1, 2, 3], |hotkey| *hotkey != gone);
    assert_eq!((rows(&w, 0), rows(&w, 1)), ((false, 0), (true, 1)));
}

#[test]
fn who_is_no_member_any_more_is_not_blamed_for_what_it_cannot_show() {
    let mut w = World::new(|_| ());
    w.opens(0);
    w.run_out();
    w.close(200, 1, &[1, 2, 3]);
    assert!(w.ls[0].validators().by_hotkey(&w.hotkey(0)).is_none());
    for _ in 0..REVEAL_BLOCKS {
        w.step(vec![]);
    }
    assert_eq!(query::unrevealed(w.store(), SPEC, &w.hotkey(0)).unwrap(), None);
    assert_eq!(w.failed_checks(0), 0);
}

#[test]
fn a_round_none_of_whose_images_serves_is_skipped_a_few_times_in_an_epoch() {
    let mut w = World::new(|net| net.genesis.challenges[0].source_len = 1000);
    let skip = |w: &World| {
        let (round, epoch, lots) = w.draw(0);
        let skip = RoundSkip { round, epoch, images: lots.images };
        Transaction::RoundSkip(Signed::sign(w.signer(0), &w.net.id(), skip).into_envelope())
    };
    let mut used = BTreeSet::new();
    for _ in 0..MAX_SKIPS {
        used.extend(w.upcoming(0, &w.draw(0).2).into_iter().map(|(image, _)| image));
        let skip = skip(&w);
        assert_eq!(w.step(vec![skip]), 1);
    }
    assert_eq!(used.len(), 32 * MAX_SKIPS as usize, "all of them are used up");
    assert!(w.ls[0].check_transaction(&skip(&w)).unwrap_err().is_early());
    let images = w.round(0, 0);
    assert!(!used.contains(&images[0]));
    let row = query::sequence(w.store(), SPEC, &w.hotkey(0)).unwrap();
    assert_eq!((row.next, row.skipped, row.open), (5, MAX_SKIPS, false));
    let faults = query::reputation(w.store(), &w.hotkey(0)).unwrap().epoch;
    assert_eq!((faults.unclosed, faults.failed_checks), (0, 0));
}

#[test]
fn another_set_begins_all_passes_anew_and_nothing_is_owed_of_the_old_one() {
    for changes in [false, true] {
        let mut w = World::new(|_| ());
        let images: Vec<u64> = (0..10).flat_map(|_| w.round(0, 0)).collect();
        w.opens(0);
        w.run_out();
        let mut spec = w.net.genesis.challenges[0].clone();
        if changes {
            spec.source_fingerprint = Digest([8; 32]);
        }
        let height = w.ls[0].head().height;
        let order = Order::UpdateChallenge(Box::new(spec));
        let order = OwnerAction::sign(&w.net.id(), &w.net.owner, order, 0, height + 2, height + 50);
        assert_eq!(w.step(vec![Transaction::OwnerAction(Box::new(order))]), 1);
        w.step(vec![]);
        assert_eq!(query::unrevealed(w.store(), SPEC, &w.hotkey(0)).unwrap(), None);
        assert_eq!(w.failed_checks(0), 0);
        let next: Vec<u64> = (0..2).flat_map(|_| w.round(0, 0)).collect();
        let again = next.iter().filter(|image| images.contains(image)).count();
        if !changes {
            assert_eq!(again, 0, "the pass goes on");
        }
        let pages = w.store().scan(b"page/").unwrap().len();
        assert_eq!(pages, 1);
    }
}

/// Nobody looks at a skip: it changes the images alone.
#[test]
fn a_skip_draws_no_other_miners() {
    let mut w = World::new(|net| net.genesis.challenges[0].source_len = 1000);
    w.round(0, 0);
    let lot = w.draw(0).2.miners;
    for _ in 0..2 {
        let (round, epoch, lots) = w.draw(0);
        let skip = RoundSkip { round, epoch, images: lots.images };
        let skip = Transaction::RoundSkip(Signed::sign(w.signer(0), &w.net.id(), skip).into_envelope());
        assert_eq!(w.step(vec![skip]), 1);
        assert_eq!(w.draw(0).2.miners.point, lot.point);
    }
    let (round, epoch, lots) = w.draw(0);
    let pair = RoundPair::of(&w.net.keys[0]);
    let seed = seeds::drawing(w.store(), &w.hotkey(0)).unwrap().unwrap().2;
    let redrawn = Lots::draw(&pair, &w.net.id(), seed, &round);
    let open = RoundOpen { round, epoch, image: Digest([9; 32]), miners: redrawn.miners, opened_ms: 0 };
    let open = Transaction::RoundOpen(Signed::sign(w.signer(0), &w.net.id(), open).into_envelope());
    assert!(w.why(&open).contains("the lot of its miners is none of its key"));
    assert_ne!(lots.miners.point, redrawn.miners.point);
    w.round(0, 0);
    assert_eq!(w.draw(0).0.seq, 4);
    let seed = seeds::drawing(w.store(), &w.hotkey(0)).unwrap().unwrap().2;
    let (round, _, lots) = w.draw(0);
    assert_eq!(lots.miners.point, Lots::draw(&pair, &w.net.id(), seed, &round).miners.point, "its own again");
}

/// The active seed is known when a hotkey is made: one that comes first could be looked for.
#[test]
fn a_miner_registered_after_the_seed_is_not_drawn_by_it() {
    let mut w = World::new(|_| ());
    let new = w.net.miners[0].hotkey();
    let is_asked = |w: &mut World| {
        let (open, _) = w.opens(1);
        let round = open.round;
        let row = query::open_round(w.store(), SPEC, &round.validator, round.seq).unwrap().unwrap();
        row.miners.contains(&new)
    };
    assert!(is_asked(&mut w), "it was there when the network began");
    w.run_out();
    w.close_with(5, 1, &[0, 1, 2, 3], |hotkey| *hotkey != new);
    for _ in 0..6 {
        w.step(vec![]);
    }
    w.pulses();
    assert_eq!(w.active(), 1);
    w.close(10, 2, &[0, 1, 2, 3]);
    for _ in 0..REVEAL_BLOCKS {
        w.step(vec![]);
    }
    assert_eq!(w.active(), 1);
    assert!(!is_asked(&mut w), "it is registered, and came after the seed");
    w.run_out();
    w.pulses();
    assert_eq!(w.active(), 2);
    let reveal = w.reveal(1);
    assert_eq!(w.step(vec![reveal]), 1);
    assert!(is_asked(&mut w));
}
