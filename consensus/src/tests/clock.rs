//! How old a block may be when it is proposed, and clocks that differ.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use perturb_ledger::{Block, ProposalInput, VoteKind};

use super::hazards::{bare, gossip, own_votes, restarted};
use super::*;
use crate::record::{Record, Wait};
use crate::wire::{Gossip, SignedProposal, SignedVote};

/// The age bound of round 0 in these networks.
const AGE_MS: u64 = 10_000;

/// A height in progress at one honest node, `who`; the test speaks for the others.
struct Scene {
    net: Net,
    who: usize,
    height: u64,
}

impl Scene {
    /// Three heights were decided; `who` has begun the next, and none of its timers has fired since. It is
    /// not the proposer of the first two rounds.
    fn new(seed: u64) -> Self {
        let mut net = Net::new(4, 4, seed);
        (0..4).for_each(|i| net.start(i));
        let free = |n: &Net, i: usize| {
            let machine = n.nodes[i].machine.as_ref().unwrap();
            let (key, height) = (n.keys.pairs[i].public(), n.height(i) + 1);
            let status = machine.status();
            height > 3
                && (status.round, status.step) == (Some(0), "propose")
                && (0..2).all(|round| machine.proposer(height, round) != key)
        };
        net.until("a height begins", 60_000, |n| (0..4).any(|i| free(n, i)));
        let who = (0..4).find(|i| free(&net, *i)).unwrap();
        let height = net.height(who) + 1;
        Self { net, who, height }
    }

    fn machine(&self) -> &Machine<MemoryStore> {
        self.net.nodes[self.who].machine.as_ref().unwrap()
    }

    fn id(&self) -> NetworkId {
        self.net.keys.genesis.network_id()
    }

    /// The pair of a round's proposer.
    fn proposer(&self, round: u32) -> ConsensusPair {
        let key = self.machine().proposer(self.height, round);
        self.net.keys.pairs.iter().find(|p| p.public() == key).unwrap().clone()
    }

    /// A block that is `age_ms` old now (and one millisecond after its parent at the earliest).
    fn block(&self, age_ms: u64) -> (Block, Digest) {
        let head = self.machine().ledger().head();
        let input = ProposalInput {
            time_ms: (self.net.now - age_ms).max(head.time_ms + 1),
            proposer: self.proposer(0).public(),
            reference: head.reference.clone(),
            snapshot: None,
            transactions: Vec::new(),
        };
        let (block, _) = self.machine().ledger().propose(input).unwrap();
        let digest = block.header.digest(&self.id());
        (block, digest)
    }

    fn proposal(&self, round: u32, digest: Digest, pol: Option<u32>) -> Event {
        let proposal = SignedProposal::sign(&self.proposer(round), &self.id(), self.height, round, digest, pol);
        gossip(Topic::Consensus, 3, encode::encode(&Gossip::Proposal(proposal)))
    }

    fn body(&self, block: &Block) -> Event {
        gossip(Topic::Blocks, 3, encode::encode(block))
    }

    /// Feeds the node and gives its own votes of one kind: (round, what for).
    fn feed(&mut self, events: Vec<Event>, kind: VoteKind) -> Vec<(u32, Option<Digest>)> {
        let actions: Vec<Action> = events.into_iter().flat_map(|e| self.carry_out(e)).collect();
        let votes = own_votes(&actions).into_iter().map(|(_, v)| v);
        votes.filter(|v| v.step == kind).map(|v| (v.round, v.digest)).collect()
    }

    /// Steps the node and keeps its log.
    fn carry_out(&mut self, event: Event) -> Vec<Action> {
        let actions = bare(&mut self.net, self.who, event);
        for action in &actions {
            if let Action::AppendLog { height, record } = action {
                self.net.nodes[self.who].disk.synced.push((*height, record.clone()));
            }
        }
        actions
    }

    /// The other three vote alike.
    fn votes(&self, kind: VoteKind, round: u32, digest: Option<Digest>) -> Vec<Event> {
        let others = (0..4).filter(|i| *i != self.who);
        let vote = |i: usize| SignedVote::sign(&self.net.keys.pairs[i], &self.id(), kind, self.height, round, digest);
        others.map(|i| gossip(Topic::Consensus, i, encode::encode(&Gossip::Vote(vote(i))))).collect()
    }

    /// The wait for precommits of round 0 is over.
    fn precommits_are_over(&self) -> Event {
        Event::Timer(TimerId::Engine { height: self.height, round: 0, wait: Wait::Precommit })
    }

    /// The node begins again from its log, `after_ms` later.
    fn restart(&mut self, after_ms: u64) {
        self.net.now += after_ms;
        let records = &self.net.nodes[self.who].disk.synced;
        let records = records.iter().filter(|(h, _)| *h == self.height).map(|(_, r)| r.clone()).collect();
        let guard = self.net.nodes[self.who].disk.guard;
        let (machine, _) = restarted(&self.net, self.who, records, guard);
        self.net.nodes[self.who].machine = Some(machine);
    }
}

const PREVOTE: VoteKind = VoteKind::Prevote;

#[test]
fn a_block_that_was_dated_back_is_prevoted_nil_at_once_and_one_in_time_is_not() {
    for (age, voted) in [(0, true), (AGE_MS, true), (AGE_MS + 1, false)] {
        let mut s = Scene::new(1);
        s.net.now += 60_000;
        let (block, digest) = s.block(age);
        let votes = s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE);
        assert_eq!(votes, [(0, voted.then_some(digest))], "{age} ms old");
    }
}

#[test]
fn what_counts_is_when_the_signed_proposal_came_and_not_the_body() {
    let mut s = Scene::new(2);
    s.net.now += 60_000;
    let (block, digest) = s.block(AGE_MS);
    assert!(s.feed(vec![s.proposal(0, digest, None)], PREVOTE).is_empty());
    s.net.now += 20_000;
    // The proposal comes again, as it does with every vote of its proposer: the first copy counts.
    let votes = s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE);
    assert_eq!(votes, [(0, Some(digest))]);
    // The other way round: a body that was here early makes no late proposal timely.
    let mut s = Scene::new(2);
    s.net.now += 60_000;
    let (block, digest) = s.block(AGE_MS);
    assert!(s.feed(vec![s.body(&block)], PREVOTE).is_empty());
    s.net.now += 1;
    assert_eq!(s.feed(vec![s.proposal(0, digest, None)], PREVOTE), [(0, None)]);
}

#[test]
fn a_node_that_dies_between_proposal_and_body_decides_as_if_it_had_not() {
    for (age, voted) in [(AGE_MS, true), (AGE_MS + 1, false)] {
        let mut s = Scene::new(3);
        s.net.now += 60_000;
        let (block, digest) = s.block(age);
        assert!(s.feed(vec![s.proposal(0, digest, None)], PREVOTE).is_empty());
        s.restart(30_000);
        let votes = s.feed(vec![s.body(&block)], PREVOTE);
        assert_eq!(votes, [(0, voted.then_some(digest))], "{age} ms old");
    }
}

#[test]
fn a_node_that_dies_after_its_nil_does_not_vote_for_the_old_block_when_it_is_back() {
    let mut s = Scene::new(4);
    s.net.now += 60_000;
    let (block, digest) = s.block(AGE_MS + 1);
    assert_eq!(s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE), [(0, None)]);
    s.restart(1_000);
    let again = s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE);
    assert!(again.iter().all(|vote| *vote == (0, None)), "{again:?}");
}

#[test]
fn a_quorum_that_found_a_block_in_time_is_followed_whatever_the_own_clock_says() {
    let mut s = Scene::new(5);
    s.net.now += 60_000;
    let (block, digest) = s.block(AGE_MS + 5_000);
    assert_eq!(s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE), [(0, None)]);
    let votes = s.votes(PREVOTE, 0, Some(digest));
    assert_eq!(s.feed(votes, VoteKind::Precommit), [(0, Some(digest))], "a quorum's prevotes lock");
    let votes = s.votes(VoteKind::Precommit, 0, Some(digest));
    let actions: Vec<Action> = votes.into_iter().flat_map(|e| s.carry_out(e)).collect();
    assert!(actions.iter().any(|a| matches!(a, Action::Commit(c) if c.digest == digest)));
}

/// Round 1 at a node that prevoted a block in round 0, in time, which got no quorum.
fn second_round(seed: u64) -> (Scene, Block, Digest) {
    let mut s = Scene::new(seed);
    let (block, digest) = s.block(0);
    assert_eq!(s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE), [(0, Some(digest))]);
    s.net.now += 60_000;
    let nil = s.votes(VoteKind::Precommit, 0, None);
    s.feed(nil, PREVOTE);
    s.net.now += 1_000;
    s.feed(vec![s.precommits_are_over()], PREVOTE);
    assert_eq!(s.machine().status().round, Some(1));
    (s, block, digest)
}

#[test]
fn a_block_that_was_in_time_once_is_too_old_when_it_is_freshly_proposed_a_minute_later() {
    let (mut s, _, digest) = second_round(6);
    assert_eq!(s.feed(vec![s.proposal(1, digest, None)], PREVOTE), [(1, None)]);
}

#[test]
fn a_proposal_of_a_round_to_come_is_judged_by_when_it_came_also_where_the_block_is_known() {
    let mut s = Scene::new(7);
    let (block, digest) = s.block(0);
    assert_eq!(s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE), [(0, Some(digest))]);
    s.net.now += 60_000;
    let mut events = vec![s.proposal(1, digest, None)];
    events.extend(s.votes(PREVOTE, 0, None));
    events.extend(s.votes(VoteKind::Precommit, 0, None));
    assert!(s.feed(events, PREVOTE).is_empty());
    s.net.now += 1_000;
    assert_eq!(s.feed(vec![s.precommits_are_over()], PREVOTE), [(1, None)]);
}

#[test]
fn a_proposal_with_a_valid_round_is_voted_for_however_old_it_is() {
    let (mut s, _, digest) = second_round(8);
    // Late prevotes of round 0: there was a quorum after all, which this node did not see in time.
    let polka = s.votes(PREVOTE, 0, Some(digest)).split_off(1);
    s.feed(polka, PREVOTE);
    assert_eq!(s.feed(vec![s.proposal(1, digest, Some(0))], PREVOTE), [(1, Some(digest))]);
    // Without the quorum, to claim a valid round helps nobody: the wait for a proposal goes on.
    let (mut s, _, digest) = second_round(8);
    assert!(s.feed(vec![s.proposal(1, digest, Some(0))], PREVOTE).is_empty());
}

#[test]
fn the_bound_grows_with_the_rounds() {
    let (mut s, ..) = second_round(9);
    let (block, digest) = s.block(AGE_MS + 2_000);
    assert_eq!(s.feed(vec![s.proposal(1, digest, None), s.body(&block)], PREVOTE), [(1, Some(digest))]);
    let (mut s, ..) = second_round(9);
    let (block, digest) = s.block(AGE_MS + 2_001);
    assert_eq!(s.feed(vec![s.proposal(1, digest, None), s.body(&block)], PREVOTE), [(1, None)]);
}

#[test]
fn proposals_of_the_next_height_are_judged_by_when_they_came_too() {
    let mut s = Scene::new(10);
    s.net.now += 60_000;
    let (block, digest) = s.block(AGE_MS + 1);
    // The node begins the height anew from nothing: the proposal is here before the height starts.
    s.net.nodes[s.who].disk.synced.retain(|(h, _)| *h != s.height);
    s.restart(0);
    assert_eq!(s.machine().status().round, None);
    assert!(s.feed(vec![s.proposal(0, digest, None), s.body(&block)], PREVOTE).is_empty());
    s.net.now += 1_000;
    let begins = s.feed(vec![Event::Timer(TimerId::NextHeight), Event::Timer(TimerId::Tick)], PREVOTE);
    assert_eq!(begins, [(0, None)]);
    let logged = s.net.nodes[s.who].disk.synced.iter().map(|(_, r)| Record::decode(r).unwrap());
    assert_eq!(logged.filter(|r| matches!(r, Record::Arrived { .. })).count(), 1);
}

#[test]
fn after_a_stall_of_minutes_the_first_new_block_has_a_new_time() {
    let mut net = Net::new(4, 4, 11);
    (0..4).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
    net.cut = vec![0, 1, 2, 3];
    let end = net.now + 300_000;
    while net.now < end {
        net.advance();
    }
    net.cut.clear();
    let at = *net.heights().iter().max().unwrap();
    // What was prevoted by a quorum before the stall may still be decided, with its old time.
    net.until("they go on", 120_000, |n| n.heights().iter().all(|h| *h >= at + 2));
    let head = net.nodes[0].machine.as_ref().unwrap().ledger().head().clone();
    assert!(head.time_ms + AGE_MS >= end, "{} ms old", end - head.time_ms);
}

#[test]
fn a_parent_whose_time_is_ahead_is_followed_by_one_millisecond() {
    let mut net = Net::new(4, 4, 12);
    // One clock is ahead by almost as much as a block's time may be.
    net.skews = vec![0, 0, 0, 1_900];
    (0..4).for_each(|i| net.start(i));
    net.until("heights", 120_000, |n| n.heights().iter().all(|h| *h >= 12));
    let store = net.nodes[0].disk.store.clone();
    let times: Vec<u64> = (1..=12).map(|h| store.block(h).unwrap().0.header.time_ms).collect();
    assert!(times.windows(2).all(|w| w[0] < w[1]));
    assert!(times.windows(2).any(|w| w[1] == w[0] + 1), "{times:?}");
}

#[test]
fn clocks_that_differ_by_more_than_the_bound_cost_rounds_and_not_the_network() {
    for skews in [vec![0, 0, 0, -14_000], vec![0, 0, 14_000, 14_000], vec![-7_000, 0, 7_000, 14_000]] {
        let mut net = Net::new(4, 4, 13);
        net.skews = skews.clone();
        (0..4).for_each(|i| net.start(i));
        net.until("heights", 900_000, |n| n.heights().iter().all(|h| *h >= 8));
    }
}

#[test]
fn who_began_a_height_late_makes_nobody_wait_when_it_proposes() {
    let interval = u64::from(Net::new(4, 4, 0).keys.genesis.parameters.block_interval_ms);
    for late in (1..10).map(|part| interval * part / 10) {
        let mut net = Net::new(4, 4, late);
        (0..4).for_each(|i| net.start(i));
        net.until("some heights", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
        net.crash(0);
        net.until("the others go on", 60_000, |n| n.height(1) >= 6);
        let at = net.now + late;
        net.until("a part of the interval", 60_000, |n| n.now >= at);
        net.start(0);
        let back = net.height(1) + 4;
        net.until("it is back", 60_000, |n| n.height(0) >= back);
        let mut times = Vec::new();
        for height in back + 1..back + 20 {
            net.until("a height", 60_000, |n| n.height(1) >= height);
            times.push(net.now);
        }
        let most = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(most <= interval * 6 / 5, "{late} ms late: a height took {most} ms of {interval}");
    }
}
