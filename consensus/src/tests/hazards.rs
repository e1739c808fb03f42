//! What goes wrong with an engine like this one, each with the rule that prevents it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use perturb_ledger::{Equivocation, StateStore as _, VoteKind};

use super::*;
use crate::candidates::{Candidates, Seen};
use crate::guard::Step;
use crate::record::{Record, Wait};
use crate::wire::{Gossip, SignedProposal, SignedVote};

fn prevote(net: &Net, i: usize, height: u64, round: u32, digest: Option<Digest>) -> Vec<u8> {
    let id = net.keys.genesis.network_id();
    encode::encode(&Gossip::Vote(SignedVote::sign(&net.keys.pairs[i], &id, VoteKind::Prevote, height, round, digest)))
}

/// Steps one node's machine without carrying anything out.
pub(super) fn bare(net: &mut Net, i: usize, event: Event) -> Vec<Action> {
    let now = net.now;
    net.nodes[i].machine.as_mut().unwrap().step(now, event)
}

pub(super) fn gossip(topic: Topic, from: usize, bytes: Vec<u8>) -> Event {
    Event::Gossip { id: 1, topic, from: peer(from), bytes }
}

fn verdict(actions: &[Action]) -> &Verdict {
    actions.iter().find_map(|a| if let Action::Verdict { verdict, .. } = a { Some(verdict) } else { None }).unwrap()
}

/// A node that was never started, with a log and a guard of its own.
pub(super) fn restarted(
    net: &Net,
    i: usize,
    records: Vec<Vec<u8>>,
    guard: Option<GuardMark>,
) -> (Machine<MemoryStore>, Vec<Action>) {
    let ledger = Ledger::new(net.keys.genesis.clone(), net.nodes[i].disk.store.clone()).unwrap();
    let config =
        Config { pair: net.keys.pairs[i].clone(), peer: peer(i), startup_grace_ms: 500, planted: Default::default() };
    let mut machine = Machine::new(config, ledger).unwrap();
    let actions = machine.step(net.now, Event::Start { records, guard });
    (machine, actions)
}

/// Fires a lone machine's timers until `end`; gives every action with its time.
fn alone(machine: &mut Machine<MemoryStore>, first: Vec<Action>, start: u64, end: u64) -> Vec<Action> {
    let (mut timers, mut all, mut now) = (BTreeMap::new(), Vec::new(), start);
    let mut actions = first;
    loop {
        for action in &actions {
            match action {
                Action::SetTimer { id, at } => {
                    timers.insert(*id, *at);
                }
                Action::CancelTimer { id } => {
                    timers.remove(id);
                }
                _ => {}
            }
        }
        all.append(&mut actions);
        let Some((id, at)) = timers.iter().min_by_key(|(id, at)| (**at, **id)).map(|(id, at)| (*id, *at)) else {
            break;
        };
        now = now.max(at);
        if now > end {
            break;
        }
        timers.remove(&id);
        actions = machine.step(now, Event::Timer(id));
    }
    all
}

pub(super) fn own_votes(actions: &[Action]) -> Vec<(usize, SignedVote)> {
    let vote = |(i, a): (usize, &Action)| match a {
        Action::Broadcast { topic: Topic::Consensus, bytes } => match Gossip::decode(bytes).unwrap() {
            Gossip::Vote(v) => Some((i, v)),
            _ => None,
        },
        _ => None,
    };
    actions.iter().enumerate().filter_map(vote).collect()
}

#[test]
fn a_log_that_contradicts_what_is_derived_halts_the_node() {
    let net = Net::new(4, 4, 1);
    let id = net.keys.genesis.network_id();
    let me = &net.keys.pairs[0];
    let other = SignedVote::sign(me, &id, VoteKind::Prevote, 1, 0, Some(Digest([7; 32])));
    // Without a proposal the timeout derives nil, but the log says that a block was voted for.
    let log = [Record::Vote(other), Record::Timeout { wait: Wait::Propose, round: 0 }];
    let (mut machine, actions) = restarted(&net, 0, log.iter().map(Record::encode).collect(), None);
    assert!(matches!(actions.last(), Some(Action::Halt { .. })), "{:?}", actions.last());
    assert!(own_votes(&actions).is_empty(), "nothing of it leaves the node");
    assert!(machine.step(net.now + 10_000, Event::Timer(TimerId::Tick)).is_empty(), "a halted node does nothing");
}

#[test]
fn a_damaged_log_halts_the_node() {
    let net = Net::new(4, 4, 1);
    let (_, actions) = restarted(&net, 0, vec![vec![0xff; 9]], None);
    assert!(matches!(actions.as_slice(), [Action::Halt { .. }]));
}

#[test]
fn log_sync_and_guard_come_before_the_first_broadcast_of_a_vote() {
    let net = Net::new(4, 4, 2);
    let (mut machine, first) = restarted(&net, 0, Vec::new(), None);
    let actions = alone(&mut machine, first, net.now, net.now + 4_000);
    let (at, vote) = own_votes(&actions).into_iter().next().expect("a lone node prevotes nil");
    let record = Record::Vote(vote.clone()).encode();
    let place = |wanted: &dyn Fn(&Action) -> bool| actions.iter().position(wanted).expect("it is there");
    let logged = place(&|a| matches!(a, Action::AppendLog { record: r, .. } if *r == record));
    let guarded =
        place(&|a| matches!(a, Action::Guard { mark: m, .. } if (m.step, m.digest) == (Step::Prevote, vote.digest)));
    let synced = (logged..at).find(|i| matches!(actions[*i], Action::SyncLog)).expect("synced in between");
    assert!(logged < synced && synced < guarded && guarded < at, "{logged} {synced} {guarded} {at}");
}

#[test]
fn what_is_said_again_is_the_same_bytes() {
    let net = Net::new(4, 4, 3);
    let (mut machine, first) = restarted(&net, 0, Vec::new(), None);
    let actions = alone(&mut machine, first, net.now, net.now + 12_000);
    let votes: Vec<SignedVote> = own_votes(&actions).into_iter().map(|(_, v)| v).collect();
    assert!(votes.len() >= 3, "{} votes", votes.len());
    assert!(votes.windows(2).all(|w| w[0] == w[1]), "one position, one signature");
    let guards = actions.iter().filter(|a| matches!(a, Action::Guard { .. })).count();
    assert_eq!(guards, 1, "the file is written once for it");
}

#[test]
fn a_node_whose_log_lost_a_signature_follows_without_voting_until_the_height_is_over() {
    let mut net = Net::new(4, 4, 4);
    let guard = GuardMark { height: 1, round: 0, step: Step::Precommit, digest: Some(Digest([9; 32])) };
    net.nodes[0].disk.guard = Some(guard);
    (0..4).for_each(|i| net.start(i));
    assert!(!net.nodes[0].machine.as_ref().unwrap().status().voting);
    // The harness refuses what the guard's file forbids, so reaching the end shows the silence.
    net.until("the height passes", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
    assert!(net.nodes[0].machine.as_ref().unwrap().status().voting);
    assert!(net.nodes[0].disk.guard.unwrap().height > 1, "it votes again");
}

#[test]
fn early_messages_are_verified_first_and_one_sender_cannot_fill_the_queue() {
    let mut net = Net::new(5, 4, 5);
    net.start(0);
    let verdicts: Vec<Verdict> = (0..40)
        .map(|round| {
            let bytes = prevote(&net, 1, 2, round, None);
            verdict(&bare(&mut net, 0, gossip(Topic::Consensus, 1, bytes))).clone()
        })
        .collect();
    let taken = verdicts.iter().filter(|v| **v == Verdict::Accept).count();
    assert_eq!(taken, 8, "a quota per sender and height");
    let honest = prevote(&net, 2, 2, 0, None);
    assert_eq!(*verdict(&bare(&mut net, 0, gossip(Topic::Consensus, 2, honest))), Verdict::Accept);
    let stranger = prevote(&net, 4, 2, 0, None);
    assert!(matches!(verdict(&bare(&mut net, 0, gossip(Topic::Consensus, 4, stranger))), Verdict::Ignore(_)));
    let Gossip::Vote(mut forged) = Gossip::decode(&prevote(&net, 3, 2, 0, None)).unwrap() else { panic!() };
    forged.round = 1;
    let actions = bare(&mut net, 0, gossip(Topic::Consensus, 3, encode::encode(&Gossip::Vote(forged))));
    assert!(matches!(verdict(&actions), Verdict::Reject(_)));
    assert!(actions.iter().any(|a| matches!(a, Action::Penalise { .. })));
    let far = prevote(&net, 3, 900, 0, None);
    assert!(matches!(verdict(&bare(&mut net, 0, gossip(Topic::Consensus, 3, far))), Verdict::Ignore(_)));
}

#[test]
fn a_proposal_of_another_than_the_proposer_is_not_followed() {
    let mut net = Net::new(4, 4, 6);
    net.start(0);
    let id = net.keys.genesis.network_id();
    let order: Vec<_> = net.nodes[0].machine.as_ref().unwrap().ledger().validators().iter().map(|v| v.key).collect();
    for (height, expected) in [(1u64, 1usize), (2, 2)] {
        for pair in net.keys.pairs.clone() {
            let proposal = SignedProposal::sign(&pair, &id, height, 0, Digest([height as u8; 32]), None);
            let bytes = encode::encode(&Gossip::Proposal(proposal));
            let actions = bare(&mut net, 0, gossip(Topic::Consensus, 1, bytes));
            let accepted = *verdict(&actions) == Verdict::Accept;
            assert_eq!(accepted, pair.public() == order[expected], "height {height}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    // One genesis: the hotkeys' signatures in it are randomised.
    let keys = keys(4, 4);
    let run = || {
        let mut net = Net::of(keys.clone(), 77);
        (0..4).for_each(|i| net.start(i));
        net.until("heights", 60_000, |n| n.heights().iter().all(|h| *h >= 8));
        (net.now, net.decided.clone())
    };
    assert_eq!(run(), run());
}

/// Runs three validators while the fourth key sends, in every height, what `contradict` makes for the
/// height and round 0; whether it is caught in a block as `caught` wants it.
fn is_caught(contradict: impl Fn(&Net, u64) -> Vec<Vec<u8>>, caught: impl Fn(&Equivocation) -> bool) -> bool {
    let mut net = Net::new(4, 4, 8);
    (0..3).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| (0..3).all(|i| n.height(i) >= 2));
    for _ in 0..6 {
        let at = net.height(0);
        for bytes in contradict(&net, at + 1) {
            (0..3).for_each(|i| net.step(i, gossip(Topic::Consensus, 3, bytes.clone())));
        }
        net.until("another height", 60_000, |n| (0..3).all(|i| n.height(i) > at));
    }
    net.until("some more", 60_000, |n| n.height(0) >= 12);
    let store = net.nodes[0].machine.as_ref().unwrap().ledger().store();
    let key = net.keys.pairs[3].public();
    let found = |t: &Transaction| matches!(t, Transaction::Evidence(e) if e.key() == key && caught(e));
    (1..=net.height(0)).any(|h| store.block(h).unwrap().0.body.transactions.iter().any(found))
}

#[test]
fn two_votes_of_one_validator_become_evidence_in_a_block() {
    let votes =
        |net: &Net, height| vec![prevote(net, 3, height, 0, Some(Digest([1; 32]))), prevote(net, 3, height, 0, None)];
    assert!(is_caught(votes, |e| matches!(e, Equivocation::Votes(_))));
    let one = |net: &Net, height| vec![prevote(net, 3, height, 0, Some(Digest([1; 32]))); 2];
    assert!(!is_caught(one, |_| true), "the same vote twice is no fault");
}

#[test]
fn two_proposals_of_one_validator_become_evidence_in_a_block() {
    let proposals = |net: &Net, height| {
        let (id, key) = (net.keys.genesis.network_id(), net.keys.pairs[3].public());
        if net.nodes[0].machine.as_ref().unwrap().proposer(height, 0) != key {
            return vec![];
        }
        let proposal = |i| {
            let proposal = SignedProposal::sign(&net.keys.pairs[3], &id, height, 0, Digest([i; 32]), None);
            encode::encode(&Gossip::Proposal(proposal))
        };
        vec![proposal(1), proposal(2)]
    };
    assert!(is_caught(proposals, |e| matches!(e, Equivocation::Proposals(_))));
}

#[test]
fn bodies_that_are_never_gossiped_are_pulled() {
    let mut net = Net::new(4, 4, 9);
    net.lost = vec![Topic::Blocks];
    (0..4).for_each(|i| net.start(i));
    net.until("heights", 60_000, |n| n.heights().iter().all(|h| *h >= 8));
}

#[test]
fn a_body_is_asked_of_the_proposer_then_of_a_prevoter_then_of_anyone() {
    let (proposer, voter, digest) =
        (ConsensusPair::from_seed(&[1; 32]).public(), ConsensusPair::from_seed(&[2; 32]).public(), Digest([5; 32]));
    let mut candidates = Candidates::default();
    candidates.start(1);
    let seen = Seen { round: 0, proposer, fresh: true, arrived: 0, logged: false };
    assert!(candidates.proposed(1, digest, seen));
    candidates.voted(digest, voter);
    let peer_of = |key: &perturb_types::ConsensusKey| Some(if *key == proposer { peer(1) } else { peer(2) });
    let others = [peer(3)];
    let mut ask = |now, id| candidates.pull(now, &digest, id, peer_of, &others);
    assert_eq!(ask(0, 1), Some(peer(1)));
    assert_eq!(ask(1, 2), None, "one at a time");
    assert_eq!(ask(1_000, 3), Some(peer(2)), "the proposer is silent");
    assert_eq!(ask(2_000, 4), Some(peer(3)));
    assert_eq!(ask(3_000, 5), Some(peer(1)), "then again from the first");
}

#[test]
fn with_a_fifth_of_all_messages_lost_it_goes_on() {
    for seed in 0..3 {
        let mut net = Net::new(4, 4, 200 + seed);
        net.loss = 20;
        (0..4).for_each(|i| net.start(i));
        net.until("heights", 300_000, |n| n.heights().iter().all(|h| *h >= 12));
    }
}

/// What a node that begins does about a range with this first block.
fn first_of_a_range(change: impl FnOnce(&mut perturb_ledger::Block, &mut perturb_ledger::Certificate)) -> Vec<Action> {
    let mut net = Net::new(4, 4, 10);
    (0..3).for_each(|i| net.start(i));
    net.until("heights", 60_000, |n| n.height(0) >= 6);
    net.start(3);
    let store = net.nodes[0].disk.store.clone();
    let (mut block, certificate) = store.block(1).unwrap().clone();
    let mut certificate = certificate.unwrap();
    change(&mut block, &mut certificate);
    // The machine asks whoever claims to be further.
    let actions = bare(&mut net, 3, Event::PeerStatus { peer: peer(0), height: 6 });
    let mut all = actions;
    net.now += 200;
    all.extend(bare(&mut net, 3, Event::Timer(TimerId::Tick)));
    let id = all.iter().find_map(|a| if let Action::Ask { id, .. } = a { Some(*id) } else { None }).expect("it asks");
    let bytes = encode::encode(&Response::range([(encode::encode(&block), encode::encode(&certificate))]));
    bare(&mut net, 3, Event::Response { id, from: peer(0), bytes: Some(bytes) })
}

#[test]
fn a_block_of_a_range_counts_only_with_a_quorum_behind_it() {
    let actions = first_of_a_range(|_, _| {});
    assert!(actions.iter().any(|a| matches!(a, Action::Commit(_))), "{actions:?}");
    let actions = first_of_a_range(|_, certificate| certificate.signatures.truncate(1));
    assert!(actions.iter().any(|a| matches!(a, Action::Penalise { .. })), "{actions:?}");
    assert!(!actions.iter().any(|a| matches!(a, Action::Commit(_))), "{actions:?}");
}

#[test]
fn a_certified_header_with_another_body_is_the_peers_fault_and_not_this_nodes() {
    let actions = first_of_a_range(|block, _| {
        let snapshot = Box::new(snapshot(&[], reference(9, 1)));
        block.body.transactions.push(Transaction::EpochClose { epoch: 0, snapshot });
    });
    assert!(actions.iter().any(|a| matches!(a, Action::Penalise { .. })), "{actions:?}");
    assert!(!actions.iter().any(|a| matches!(a, Action::Diverged { .. } | Action::Halt { .. })), "{actions:?}");
}

#[test]
fn a_chain_that_goes_away_after_its_last_tip_does_not_stop_the_blocks() {
    // How many heard the last tip before the chain fell silent, and whether it closes an epoch.
    for (heard, epoch) in [(4, 0), (2, 0), (1, 0), (4, 1), (2, 1)] {
        let mut net = Net::new(4, 4, 60 + heard as u64);
        (0..4).for_each(|i| net.start(i));
        net.until("a start", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
        net.away = true;
        (0..heard).for_each(|i| net.step(i, Event::ChainTip(reference(5, epoch))));
        let at = net.height(0);
        net.until("blocks go on", 30_000, |n| n.heights().iter().all(|h| *h >= at + 8));
        // It comes back, and what was missed is made up for.
        net.away = false;
        net.set_tip(reference(9, 1));
        net.until("the epoch closes", 30_000, |n| {
            n.nodes.iter().all(|n| n.machine.as_ref().unwrap().ledger().head().epoch == 1)
        });
    }
}

#[test]
fn a_header_with_another_body_does_not_speak_for_the_block() {
    let mut net = Net::new(4, 4, 12);
    (0..4).for_each(|i| net.start(i));
    net.until("a start", 60_000, |n| n.heights().iter().all(|h| *h >= 2));
    let store = &net.nodes[0].machine.as_ref().unwrap().ledger().store();
    let head = net.nodes[0].machine.as_ref().unwrap().ledger().head().clone();
    assert!(store.block(head.height).is_some());
    let reference = head.reference.clone();
    let key = net.nodes[0].machine.as_ref().unwrap().proposer(head.height + 1, 0);
    let input = perturb_ledger::ProposalInput {
        time_ms: head.time_ms + 5,
        proposer: key,
        reference,
        snapshot: None,
        transactions: Vec::new(),
    };
    let (block, _) = net.nodes[0].machine.as_ref().unwrap().ledger().propose(input).unwrap();
    let id = net.keys.genesis.network_id();
    let proposer = net.keys.pairs.iter().find(|p| p.public() == key).unwrap().clone();
    let digest = block.header.digest(&id);
    let proposal = SignedProposal::sign(&proposer, &id, head.height + 1, 0, digest, None);
    let who = (0..4).find(|i| net.keys.pairs[*i].public() != key && net.height(*i) == head.height).unwrap();
    bare(&mut net, who, gossip(Topic::Consensus, 3, encode::encode(&Gossip::Proposal(proposal))));
    let mut foreign = block.clone();
    foreign.body.parent_certificate = None;
    let actions = bare(&mut net, who, gossip(Topic::Blocks, 3, encode::encode(&foreign)));
    assert!(matches!(verdict(&actions), Verdict::Reject(_)), "{actions:?}");
    // The block itself is still welcome.
    let actions = bare(&mut net, who, gossip(Topic::Blocks, 3, encode::encode(&block)));
    assert_eq!(verdict(&actions), &Verdict::Accept);
}

#[test]
fn own_votes_that_come_back_do_not_make_a_lost_log_whole() {
    let mut net = Net::new(4, 4, 13);
    let lost = GuardMark { height: 1, round: 0, step: Step::Precommit, digest: Some(Digest([5; 32])) };
    let (mut machine, first) = restarted(&net, 0, vec![], Some(lost));
    // The height starts; the node follows it, and says so in its log first of all.
    let actions = alone(&mut machine, first, net.now, net.now + 1_000);
    let mut records: Vec<Vec<u8>> = actions
        .iter()
        .filter_map(|a| if let Action::AppendLog { record, .. } = a { Some(record.clone()) } else { None })
        .collect();
    assert_eq!(Record::decode(&records[0]).unwrap(), Record::Following);
    assert!(own_votes(&actions).is_empty());
    // One of its lost votes comes back from the others and is logged; then it restarts.
    let id = net.keys.genesis.network_id();
    let back = SignedVote::sign(&net.keys.pairs[0], &id, VoteKind::Precommit, 1, 0, Some(Digest([5; 32])));
    records.push(Record::Vote(back).encode());
    net.now += 1_000;
    let (mut machine, first) = restarted(&net, 0, records, Some(lost));
    let actions = alone(&mut machine, first, net.now, net.now + 20_000);
    assert!(own_votes(&actions).is_empty(), "it must go on without voting");
    assert!(!actions.iter().any(|a| matches!(a, Action::Halt { .. })), "{actions:?}");
}

#[test]
fn a_certified_block_that_does_not_execute_shows_that_the_own_state_is_wrong() {
    let mut net = Net::new(4, 4, 14);
    (0..4).for_each(|i| net.start(i));
    net.until("heights", 60_000, |n| n.heights().iter().all(|h| *h >= 3));
    net.crash(3);
    net.until("more heights", 60_000, |n| (0..3).all(|i| n.height(i) >= 6));
    // A row that no block reads at the start, but that the next ones do: a round's number.
    let key = perturb_ledger::state::ready_key(0, &net.keys.hotkeys[1].hotkey());
    let mut commit = genesis_commit(&net.keys.genesis).unwrap();
    commit.values = vec![(key, Some(vec![]))];
    commit.tree = Default::default();
    let height = net.nodes[3].disk.store.newest().unwrap().unwrap().0.height;
    let (block, certificate) = net.nodes[3].disk.store.block(height).unwrap().clone();
    (commit.height, commit.block, commit.certificate) = (height, block, certificate);
    net.nodes[3].disk.store.commit(&commit);
    net.submit(1, &ready(&net, 1, 0));
    let at = net.height(0);
    net.until("the readiness is in a block", 60_000, |n| n.height(0) >= at + 3);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        net.start(3);
        net.until("it catches up", 60_000, |n| n.height(3) >= at + 3);
    }));
    let text = *outcome.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("node 3 diverged"), "{text}");
}
