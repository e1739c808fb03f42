//! What must hold whatever happens, restated independently of the code that has to keep it.
//!
//! | rule | what it says |
//! |---|---|
//! | agreement | no two nodes commit different blocks at a height |
//! | certificate | what is committed has signatures of more than two thirds of the power |
//! | validity | a committed block executes on the referee's ledger to the roots it names |
//! | one signature | an honest key never signs two things for one height, round and step |
//! | log first | what an honest node says stands in its synced log and in its guard |
//! | quorum of prevotes | an honest precommit for a block has a quorum of prevotes behind it |
//! | lock | after a precommit, a prevote for another block needs a later quorum for that block |
//! | age | an honest prevote for a new block finds its time close behind the own clock |
//! | proposer | only the round's proposer is followed |
//! | rounds | round numbers are contiguous, each closed round has an entry for each miner |
//! | scores | with liars under a third of the set, every aggregate lies within the honest contributions, or is kept for four epochs |
//! | work | who runs next to no rounds, or checks next to none, loses its place, if the others are a quorum; nobody else does |
//! | checks | only liars fail spot checks, by verdicts of more than a third of all power that outweigh the others two to one |
//! | draws | a round is checked if, and only if, a pulse draws it that was signed after its result was agreed |
//! | inclusion | what an honest validator closes gets into a block |
//! | bounds | no queue exceeds its bound |
//! | no blame | honest nodes do not accuse each other |
//! | no halt | honest nodes with whole disks never stop |
//! | liveness | after healing everyone decides again |

mod age;
mod checks;
mod draws;
pub mod powers;
mod state;
mod votes;

use std::collections::{BTreeMap, BTreeSet};

use perturb_consensus::guard::Step;
use perturb_consensus::record::Record;
use perturb_consensus::wire::{Gossip, SignedProposal, SignedVote};
use perturb_consensus::{GuardMark, Load};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::{Commit, Ledger, StateStore, VoteKind};
use perturb_types::Digest;

use crate::cast::Cast;
use crate::disk::Disk;
use crate::store::Store;
use votes::Votes;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its name in the table above.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// A violation, if there is one.
pub type Judged = Result<(), Violation>;

pub(crate) fn broken(rule: &'static str, what: impl Into<String>) -> Judged {
    Err(Violation { rule, what: what.into() })
}

/// Members of a validator set: their index in the cast and their power.
pub(crate) type Powers = BTreeMap<usize, u128>;

/// The judge.
pub struct Oracle {
    referee: Ledger<Store>,
    by_stake: bool,
    sets: BTreeMap<u64, Powers>,
    decided: BTreeMap<u64, (Digest, u32)>,
    /// How many heights each signed, of those certificates that were seen first.
    signed: BTreeMap<usize, u64>,
    votes: Votes,
    ages: age::Ages,
    liars: BTreeSet<usize>,
    /// Votes at heights whose set is not known yet: of nodes with a damaged disk, whose commits are not
    /// taken as the agreed history, where such a node was the first to come so far. They are judged when
    /// another comes there, by the votes that there are then.
    early: Vec<(usize, GuardMark)>,
    state: state::StateOracle,
    draws: draws::DrawOracle,
}

impl Oracle {
    /// A judge who knows who lies. `None` where the cast's genesis makes no network.
    pub fn new(cast: &Cast, by_stake: bool, liars: BTreeSet<usize>) -> Option<Self> {
        let store = Store::of(&genesis_commit(&cast.genesis).ok()?, cast.broken);
        let referee = Ledger::new(cast.genesis.clone(), store).ok()?;
        let mut oracle = Self {
            referee,
            by_stake,
            sets: BTreeMap::new(),
            decided: BTreeMap::new(),
            signed: BTreeMap::new(),
            votes: Votes::new(liars.clone()),
            ages: age::Ages::default(),
            liars: liars.clone(),
            early: Vec::new(),
            state: state::StateOracle::new(liars),
            draws: draws::DrawOracle::default(),
        };
        oracle.take_set(cast).ok()?;
        Some(oracle)
    }

    /// The agreed history so far.
    pub fn referee(&self) -> &Ledger<Store> {
        &self.referee
    }

    /// Rounds for which liars were struck so far.
    pub fn failed_checks(&self) -> u64 {
        self.state.checks.struck.len() as u64
    }

    /// Rounds that pulses drew, that they spared, and that no pulse came for.
    pub fn draws(&self) -> [u64; 3] {
        self.draws.counts()
    }

    /// Aggregated scores judged so far.
    pub fn aggregates(&self) -> u64 {
        self.state.aggregates
    }

    /// The highest height that anybody committed.
    pub fn height(&self) -> u64 {
        self.referee.head().height
    }

    /// The round in which a height was decided.
    pub fn decided_round(&self, height: u64) -> Option<u32> {
        self.decided.get(&height).map(|(_, round)| *round)
    }

    /// How many heights a founder signed.
    pub fn signed(&self, key: usize) -> u64 {
        self.signed.get(&key).copied().unwrap_or(0)
    }

    /// The members of the set of the next height.
    pub fn members(&self) -> Option<&Powers> {
        self.sets.last_key_value().map(|(_, set)| set)
    }

    fn take_set(&mut self, cast: &Cast) -> Judged {
        let mut members = Vec::new();
        for v in self.referee.validators().iter() {
            let Some(i) = cast.hotkeys.iter().position(|h| h.hotkey() == v.hotkey) else {
                return broken("validity", format!("{} became a validator", v.hotkey));
            };
            if cast.pairs[i].public() != v.key {
                return broken("validity", format!("validator {i} has a key that is not its own"));
            }
            members.push((i, v.power));
        }
        let powers = powers::of(self.by_stake, members.iter().map(|(i, _)| cast.stakes[*i]).collect());
        if let Some(((i, power), mine)) = members.iter().zip(&powers).find(|((_, p), mine)| u128::from(*p) != **mine) {
            return broken("validity", format!("validator {i} has power {power}, it should have {mine}"));
        }
        let set = members.iter().map(|(i, _)| *i).zip(powers).collect();
        let height = self.referee.head().height + 1;
        self.sets.insert(height, set);
        let (now, early) = std::mem::take(&mut self.early).into_iter().partition(|(_, mark)| mark.height <= height);
        self.early = early;
        let now: Vec<(usize, GuardMark)> = now;
        now.iter().try_for_each(|(key, mark)| self.votes.own(*key, mark, &self.sets))
    }

    /// A node is about to rely on a signature of its own: its guard's file is given a new mark.
    /// `damaged`: its disk has lied to it.
    pub fn guards(
        &mut self,
        (actor, damaged): (usize, bool),
        key: usize,
        old: Option<GuardMark>,
        new: &GuardMark,
    ) -> Judged {
        if let Some(old) = old.filter(|old| old.forbids(new)) {
            return broken("one signature", format!("actor {actor} signs {new} after its guard saw {old}"));
        }
        if !damaged && new.step == Step::Prevote && !self.liars.contains(&key) && !self.was_prevoted(new) {
            self.ages.prevoted(actor, new)?;
        }
        if new.height > self.height() + 1 {
            if !damaged {
                return broken("one signature", format!("actor {actor} signs {new}, far ahead of what is decided"));
            }
            self.early.push((key, *new));
            self.votes.given(key, new);
            return Ok(());
        }
        self.votes.own(key, new, &self.sets)
    }

    /// Whether a quorum prevoted the block in an earlier round.
    fn was_prevoted(&self, mark: &GuardMark) -> bool {
        let Some((_, set)) = self.sets.range(..=mark.height).next_back() else { return true };
        let prevoted = |r| self.votes.has_quorum(set, (mark.height, r, VoteKind::Prevote, mark.digest));
        (0..mark.round).any(prevoted)
    }

    /// A block was said, whoever made it.
    pub fn block(&mut self, cast: &Cast, bytes: &[u8]) {
        self.ages.block(cast, bytes);
    }

    /// A message came to an actor, by its own clock.
    pub fn came(&mut self, actor: usize, clock: u64, bytes: &[u8]) {
        if let Ok(Gossip::Proposal(proposal)) = Gossip::decode(bytes) {
            self.ages.came(actor, clock, &proposal);
        }
    }

    /// A liar said something.
    pub fn heard(&mut self, cast: &Cast, bytes: &[u8]) {
        if let Ok(Gossip::Vote(vote)) = Gossip::decode(bytes)
            && vote.verify(&cast.network)
            && let Some(key) = cast.of_key(&vote.voter)
        {
            self.votes.count(key, vote.height, vote.round, vote.step, vote.digest);
        }
    }

    /// An honest actor says something of its own on the consensus topic.
    pub fn says(&mut self, cast: &Cast, key: usize, bytes: &[u8], disk: &Disk) -> Judged {
        let me = cast.pairs[key].public();
        let (record, mark, digest) = match Gossip::decode(bytes) {
            Ok(Gossip::Vote(v)) if v.voter == me => (Record::Vote(v.clone()), mark_of(&v), v.digest),
            Ok(Gossip::Proposal(p)) if p.proposer == me => (Record::Proposal(p.clone()), place_of(&p), Some(p.digest)),
            _ => return Ok(()),
        };
        self.votes.sign(key, mark, digest)?;
        // The log of a committed height is gone: what it settled is on disk.
        let committed = disk.store.newest().ok().flatten().map_or(0, |(h, _)| h.height);
        if mark.0 > committed && !disk.has_synced(&record) {
            return broken("log first", format!("node {key} says {mark:?} before its log is synced"));
        }
        if disk.guard.is_none_or(|g| g.position() < mark) {
            return broken("log first", format!("node {key} says {mark:?}, its guard knows {:?}", disk.guard));
        }
        Ok(())
    }

    /// An actor commits a block.
    pub fn commits(&mut self, cast: &Cast, actor: usize, commit: &Commit) -> Judged {
        let height = commit.height;
        let Some(certificate) = &commit.certificate else {
            return broken("certificate", format!("actor {actor} commits height {height} without one"));
        };
        let known = self.decided.get(&height).map(|(digest, _)| *digest);
        if known.is_some_and(|d| d != commit.digest) {
            return broken("agreement", format!("actor {actor} commits another block at height {height}"));
        }
        let Some(set) = self.sets.get(&height) else {
            return broken("agreement", format!("actor {actor} commits height {height} before its parent"));
        };
        let signers = votes::check_certificate(cast, set, certificate, height, commit.digest)?;
        if known.is_some() {
            return Ok(());
        }
        let executed = match self.referee.check(&commit.block) {
            Ok(executed) => executed,
            Err(e) => return broken("validity", format!("height {height}: {e}")),
        };
        if executed.digest() != commit.digest {
            return broken("validity", format!("height {height}: the block has another digest"));
        }
        let own = match self.referee.commit(executed, certificate.clone()) {
            Ok(own) => own,
            Err(e) => return broken("validity", format!("height {height}: {e}")),
        };
        if own.values != commit.values || own.receipts != commit.receipts {
            return broken("validity", format!("actor {actor} writes other rows at height {height} than the referee"));
        }
        self.referee.store().commit(&own);
        self.decided.insert(height, (commit.digest, certificate.round));
        signers.into_iter().for_each(|key| *self.signed.entry(key).or_default() += 1);
        self.state.block(cast, set, &commit.block, self.referee.store())?;
        self.draws.block(cast, &commit.block, self.referee.store())?;
        self.take_set(cast)
    }

    /// The sizes of a machine's tables.
    pub fn holds(&self, actor: usize, load: &Load) -> Judged {
        let bounds = [
            ("transactions", load.transactions, 8192),
            ("blocks", load.blocks, 48 + 4),
            ("peers", load.peers, 512),
            ("range", load.range, 64),
            ("early", load.early, 2 * 48),
            ("messages", load.messages, 2 * 256 * 256),
            ("timers", load.timers, 64),
        ];
        match bounds.iter().find(|(_, held, bound)| held > bound) {
            Some((what, held, bound)) => {
                broken("bounds", format!("actor {actor} holds {held} {what}, at most {bound}"))
            }
            None => Ok(()),
        }
    }
}

fn mark_of(v: &SignedVote) -> (u64, u32, Step) {
    let step = match v.step {
        perturb_ledger::VoteKind::Prevote => Step::Prevote,
        perturb_ledger::VoteKind::Precommit => Step::Precommit,
    };
    (v.height, v.round, step)
}

fn place_of(p: &SignedProposal) -> (u64, u32, Step) {
    (p.height, p.round, Step::Proposal)
}
