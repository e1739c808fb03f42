//! Votes, quorums and locks, restated from the paper (Buchman, Kwon, Milosevic: "The latest gossip
//! on BFT consensus", algorithm 1).

use std::collections::{BTreeMap, BTreeSet};

use perturb_consensus::GuardMark;
use perturb_consensus::guard::Step;
use perturb_ledger::{Certificate, VoteKind, vote_sign_bytes};
use perturb_types::Digest;
use perturb_types::keys::verify_ed25519;

use super::{Judged, Powers, Violation, broken};
use crate::cast::Cast;

pub(super) type Ballot = (u64, u32, VoteKind, Option<Digest>);

/// Who voted so, by round, step (precommit or not) and value.
type Ballots = BTreeMap<(u32, bool, Option<Digest>), BTreeSet<usize>>;

/// All votes given, and what honest keys are bound to.
pub(super) struct Votes {
    liars: BTreeSet<usize>,
    ballots: BTreeMap<u64, Ballots>,
    /// What each honest key signed: (key, height, round, step).
    signed: BTreeMap<(usize, u64, u32, Step), Option<Digest>>,
    /// The last precommit for a block: (key, height) to (round, block).
    locks: BTreeMap<(usize, u64), (u32, Digest)>,
}

fn is_quorum(set: &Powers, voters: &BTreeSet<usize>) -> bool {
    let total: u128 = set.values().sum();
    let power: u128 = voters.iter().filter_map(|v| set.get(v)).sum();
    power * 3 > total * 2
}

impl Votes {
    pub fn new(liars: BTreeSet<usize>) -> Self {
        Self { liars, ballots: BTreeMap::new(), signed: BTreeMap::new(), locks: BTreeMap::new() }
    }

    /// A vote exists.
    pub fn count(&mut self, key: usize, height: u64, round: u32, kind: VoteKind, digest: Option<Digest>) {
        let place = (round, kind == VoteKind::Precommit, digest);
        self.ballots.entry(height).or_default().entry(place).or_default().insert(key);
    }

    /// Whether votes alike come to a quorum of a set.
    pub fn has_quorum(&self, set: &Powers, (height, round, kind, digest): Ballot) -> bool {
        let place = (round, kind == VoteKind::Precommit, digest);
        let voters = self.ballots.get(&height).and_then(|b| b.get(&place));
        voters.is_some_and(|v| is_quorum(set, v))
    }

    /// An honest key says something signed.
    pub fn sign(&mut self, key: usize, place: (u64, u32, Step), digest: Option<Digest>) -> Judged {
        if self.liars.contains(&key) {
            return Ok(());
        }
        let (height, round, step) = place;
        let known = *self.signed.entry((key, height, round, step)).or_insert(digest);
        if known != digest {
            return broken(
                "one signature",
                format!("key {key} says two things for {step:?} at height {height} round {round}"),
            );
        }
        Ok(())
    }

    /// A key votes, as its guard says; what kind of vote, if it is one.
    pub fn given(&mut self, key: usize, mark: &GuardMark) -> Option<VoteKind> {
        let kind = match mark.step {
            Step::Proposal => return None,
            Step::Prevote => VoteKind::Prevote,
            Step::Precommit => VoteKind::Precommit,
        };
        self.count(key, mark.height, mark.round, kind, mark.digest);
        Some(kind)
    }

    /// A key votes, as its guard says: it must be a member, and bound by what it did before.
    pub fn own(&mut self, key: usize, mark: &GuardMark, sets: &BTreeMap<u64, Powers>) -> Judged {
        let Some(kind) = self.given(key, mark) else { return Ok(()) };
        let (height, round) = (mark.height, mark.round);
        let (Some(digest), false) = (mark.digest, self.liars.contains(&key)) else { return Ok(()) };
        let Some(set) = sets.range(..=height).next_back().map(|(_, s)| s.clone()) else { return Ok(()) };
        if !set.contains_key(&key) {
            return broken("one signature", format!("key {key} votes at height {height} and is no member"));
        }
        if kind == VoteKind::Precommit {
            if !self.has_quorum(&set, (height, round, VoteKind::Prevote, Some(digest))) {
                let what =
                    format!("key {key} precommits at height {height} round {round} without a quorum of prevotes");
                return broken("quorum of prevotes", what);
            }
            self.locks.insert((key, height), (round, digest));
            return Ok(());
        }
        let Some((locked_round, locked)) = self.locks.get(&(key, height)).copied() else { return Ok(()) };
        let released =
            (locked_round..round).any(|r| self.has_quorum(&set, (height, r, VoteKind::Prevote, Some(digest))));
        if locked != digest && locked_round < round && !released {
            let what = format!(
                "key {key} prevotes {} at height {height} round {round}, locked on {} since round {locked_round}",
                digest.short(),
                locked.short()
            );
            return broken("lock", what);
        }
        Ok(())
    }
}

/// A certificate is a quorum of different members' signatures over exactly this block; who signed.
pub(super) fn check_certificate(
    cast: &Cast,
    set: &Powers,
    c: &Certificate,
    height: u64,
    digest: Digest,
) -> Result<BTreeSet<usize>, Violation> {
    let wrong = |what| Err(Violation { rule: "certificate", what });
    if c.height != height || c.digest != digest {
        return wrong(format!("height {height}: the certificate is for another block"));
    }
    let bytes = vote_sign_bytes(&cast.network, VoteKind::Precommit, height, c.round, Some(digest));
    let mut signers = BTreeSet::new();
    for (key, signature) in &c.signatures {
        match cast.of_key(key) {
            Some(i) if verify_ed25519(key, &bytes, signature) => signers.insert(i),
            _ => return wrong(format!("height {height}: a signature does not verify")),
        };
    }
    if !is_quorum(set, &signers) {
        return wrong(format!("height {height}: {signers:?} are no quorum of {set:?}"));
    }
    Ok(signers)
}
