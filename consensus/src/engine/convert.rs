//! Between the wire's types and the engine's, and the engine's certificates verified.

// The engine's error type is as large as it is.
#![allow(clippy::result_large_err)]

use arc_malachitebft_core_consensus::{ConsensusMsg, Input, MisbehaviorEvidence, ProposedValue, SignedConsensusMsg};
use arc_malachitebft_core_types as mbft;
use mbft::{
    CertificateError, CommitCertificate, CommitSignature, NilOrVal, PolkaCertificate, PolkaSignature, Round,
    RoundCertificate, RoundCertificateType, RoundSignature, SignedMessage, ThresholdParam, ThresholdParams, Timeout,
    TimeoutKind, ValidatorSet as _, Validity, ValueOrigin, VoteType,
};
use perturb_ledger::VoteKind;
use perturb_types::{ConsensusKey, Digest, NetworkId};

use super::context::{Address, BareProposal, BareVote, BlockId, Ctx, Height, Set};
use crate::record::{Record, Wait};
use crate::wire::{Gossip, Polka, RoundEntry, SignedProposal, SignedVote};

/// A round's number; votes are only ever cast in defined rounds.
fn number(round: Round) -> u32 {
    round.as_u32().unwrap_or(0)
}

fn value(digest: Option<Digest>) -> NilOrVal<BlockId> {
    digest.map_or(NilOrVal::Nil, |d| NilOrVal::Val(BlockId(d)))
}

fn digest(value: &NilOrVal<BlockId>) -> Option<Digest> {
    match value {
        NilOrVal::Nil => None,
        NilOrVal::Val(id) => Some(id.0),
    }
}

pub(super) fn vote_step(kind: VoteType) -> VoteKind {
    match kind {
        VoteType::Prevote => VoteKind::Prevote,
        VoteType::Precommit => VoteKind::Precommit,
    }
}

fn vote_type(step: VoteKind) -> VoteType {
    match step {
        VoteKind::Prevote => VoteType::Prevote,
        VoteKind::Precommit => VoteType::Precommit,
    }
}

pub(super) fn vote(m: &SignedVote) -> SignedMessage<Ctx, BareVote> {
    let bare = BareVote {
        kind: vote_type(m.step),
        height: Height(m.height),
        round: Round::new(m.round),
        value: value(m.digest),
        voter: Address(m.voter),
    };
    SignedMessage::new(bare, m.signature)
}

fn to_vote(m: &SignedMessage<Ctx, BareVote>) -> SignedVote {
    SignedVote {
        step: vote_step(m.message.kind),
        height: m.message.height.0,
        round: number(m.message.round),
        digest: digest(&m.message.value),
        voter: m.message.voter.0,
        signature: m.signature,
    }
}

pub(super) fn proposal(m: &SignedProposal) -> SignedMessage<Ctx, BareProposal> {
    let bare = BareProposal {
        height: Height(m.height),
        round: Round::new(m.round),
        value: BlockId(m.digest),
        pol_round: Round::from(m.pol_round),
        proposer: Address(m.proposer),
    };
    SignedMessage::new(bare, m.signature)
}

fn to_proposal(m: &SignedMessage<Ctx, BareProposal>) -> SignedProposal {
    SignedProposal {
        height: m.message.height.0,
        round: number(m.message.round),
        digest: m.message.value.0,
        pol_round: m.message.pol_round.as_u32(),
        proposer: m.message.proposer.0,
        signature: m.signature,
    }
}

pub(super) fn message(m: &SignedConsensusMsg<Ctx>) -> Option<Gossip> {
    Some(match m {
        SignedConsensusMsg::Vote(v) => Gossip::Vote(to_vote(v)),
        SignedConsensusMsg::Proposal(p) => Gossip::Proposal(to_proposal(p)),
    })
}

pub(super) fn polka(m: &Polka) -> PolkaCertificate<Ctx> {
    PolkaCertificate {
        height: Height(m.height),
        round: Round::new(m.round),
        value_id: BlockId(m.digest),
        polka_signatures: m.signatures.iter().map(|(k, s)| PolkaSignature::new(Address(*k), *s)).collect(),
    }
}

pub(super) fn to_polka(c: &PolkaCertificate<Ctx>) -> Polka {
    Polka {
        height: c.height.0,
        round: number(c.round),
        digest: c.value_id.0,
        signatures: c.polka_signatures.iter().map(|s| (s.address.0, s.signature)).collect(),
    }
}

pub(super) fn round_entry(m: &RoundEntry) -> RoundCertificate<Ctx> {
    RoundCertificate {
        height: Height(m.height),
        round: Round::new(m.round),
        cert_type: if m.precommits { RoundCertificateType::Precommit } else { RoundCertificateType::Skip },
        round_signatures: m
            .votes
            .iter()
            .map(|(step, d, key, s)| RoundSignature::new(vote_type(*step), value(*d), Address(*key), *s))
            .collect(),
    }
}

pub(super) fn to_round_entry(c: &RoundCertificate<Ctx>) -> RoundEntry {
    RoundEntry {
        height: c.height.0,
        round: number(c.round),
        precommits: c.cert_type == RoundCertificateType::Precommit,
        votes: c
            .round_signatures
            .iter()
            .map(|s| (vote_step(s.vote_type), digest(&s.value_id), s.address.0, s.signature))
            .collect(),
    }
}

pub(super) fn timeout(wait: Wait, round: u32) -> Timeout {
    let round = Round::new(round);
    match wait {
        Wait::Propose => Timeout::propose(round),
        Wait::Prevote => Timeout::prevote(round),
        Wait::Precommit => Timeout::precommit(round),
        Wait::Rebroadcast => Timeout::rebroadcast(round),
    }
}

/// `None` for the wait at a height's end, which is never used: `target_time` is `None`.
pub(super) fn wait(t: &Timeout) -> Option<(Wait, u32)> {
    let wait = match t.kind {
        TimeoutKind::Propose => Wait::Propose,
        TimeoutKind::Prevote => Wait::Prevote,
        TimeoutKind::Precommit => Wait::Precommit,
        TimeoutKind::Rebroadcast => Wait::Rebroadcast,
        TimeoutKind::FinalizeHeight(_) => return None,
    };
    Some((wait, number(t.round)))
}

/// The record of an input; `None` for inputs that need no log.
pub(super) fn record(input: &Input<Ctx>) -> Option<Record> {
    Some(match input {
        Input::Vote(v) => Record::Vote(to_vote(v)),
        Input::Proposal(p) => Record::Proposal(to_proposal(p)),
        Input::PolkaCertificate(c) => Record::Polka(to_polka(c)),
        Input::TimeoutElapsed(t) => {
            let (wait, round) = wait(t)?;
            Record::Timeout { wait, round }
        }
        Input::ProposedValue(v, _) => Record::Value {
            round: number(v.round),
            proposer: v.proposer.0,
            digest: v.value.0,
            valid: v.validity.is_valid(),
        },
        Input::StartHeight(..) | Input::Propose(_) | Input::RoundCertificate(_) | Input::SyncValueResponse(_) => {
            return None;
        }
    })
}

/// The input of a record; `None` for what is the machine's own.
pub(super) fn input(height: u64, record: &Record) -> Option<Input<Ctx>> {
    Some(match record {
        Record::Vote(v) => Input::Vote(vote(v)),
        Record::Proposal(p) => Input::Proposal(proposal(p)),
        Record::Polka(c) => Input::PolkaCertificate(polka(c)),
        Record::Timeout { wait, round } => Input::TimeoutElapsed(timeout(*wait, *round)),
        Record::Value { round, proposer, digest, valid } => Input::ProposedValue(
            ProposedValue {
                height: Height(height),
                round: Round::new(*round),
                valid_round: Round::Nil,
                proposer: Address(*proposer),
                value: BlockId(*digest),
                validity: Validity::from_bool(*valid),
            },
            ValueOrigin::Consensus,
        ),
        Record::Body(_) | Record::Following | Record::Arrived { .. } => return None,
    })
}

type Pairs = (Vec<(SignedVote, SignedVote)>, Vec<(SignedProposal, SignedProposal)>);

pub(super) fn evidence(evidence: &MisbehaviorEvidence<Ctx>) -> Pairs {
    let votes = evidence.votes.iter().flat_map(|(_, pairs)| pairs.iter().map(|(a, b)| (to_vote(a), to_vote(b))));
    let proposals =
        evidence.proposals.iter().flat_map(|(_, pairs)| pairs.iter().map(|(a, b)| (to_proposal(a), to_proposal(b))));
    (votes.collect(), proposals.collect())
}

/// A message that came, as it travelled.
pub(super) fn any_message(m: &SignedMessage<Ctx, ConsensusMsg<Ctx>>) -> Gossip {
    match &m.message {
        ConsensusMsg::Vote(v) => Gossip::Vote(to_vote(&SignedMessage::new(v.clone(), m.signature))),
        ConsensusMsg::Proposal(p) => Gossip::Proposal(to_proposal(&SignedMessage::new(p.clone(), m.signature))),
    }
}

/// Whether a message names this key as its author.
pub(super) fn is_of(m: &SignedMessage<Ctx, ConsensusMsg<Ctx>>, key: &ConsensusKey) -> bool {
    match &m.message {
        ConsensusMsg::Vote(v) => v.voter.0 == *key,
        ConsensusMsg::Proposal(p) => p.proposer.0 == *key,
    }
}

/// Whether a message's signature is its author's.
pub(super) fn verifies(network: &NetworkId, m: &SignedMessage<Ctx, ConsensusMsg<Ctx>>) -> bool {
    match any_message(m) {
        Gossip::Vote(v) => v.verify(network),
        Gossip::Proposal(p) => p.verify(network),
        _ => false,
    }
}

/// Sums the power behind votes: each of a member, each once, each signature checked.
fn certify(
    network: &NetworkId,
    set: &Set,
    threshold: ThresholdParam,
    votes: impl Iterator<Item = SignedVote>,
    bad: impl Fn(&SignedVote) -> CertificateError<Ctx>,
) -> Result<(), CertificateError<Ctx>> {
    let mut seen = std::collections::BTreeSet::new();
    let mut signed = 0u64;
    for vote in votes {
        let address = Address(vote.voter);
        if !seen.insert(vote.voter) {
            return Err(CertificateError::DuplicateVote(address));
        }
        let power = set.power(&vote.voter).ok_or(CertificateError::UnknownValidator(address))?;
        if !vote.verify(network) {
            return Err(bad(&vote));
        }
        signed = signed.checked_add(power).ok_or(CertificateError::VotingPowerOverflow { signed, added: power })?;
    }
    let total = set.total_voting_power();
    if threshold.is_met(signed, total) {
        Ok(())
    } else {
        Err(CertificateError::NotEnoughVotingPower { signed, total, expected: threshold.min_expected(total) })
    }
}

pub(super) fn verify_commit(
    network: &NetworkId,
    c: &CommitCertificate<Ctx>,
    set: &Set,
    thresholds: ThresholdParams,
) -> Result<(), CertificateError<Ctx>> {
    let votes = c.commit_signatures.iter().map(|s| SignedVote {
        step: VoteKind::Precommit,
        height: c.height.0,
        round: number(c.round),
        digest: Some(c.value_id.0),
        voter: s.address.0,
        signature: s.signature,
    });
    let bad =
        |v: &SignedVote| CertificateError::InvalidCommitSignature(CommitSignature::new(Address(v.voter), v.signature));
    certify(network, set, thresholds.quorum, votes, bad)
}

pub(super) fn verify_polka(
    network: &NetworkId,
    c: &PolkaCertificate<Ctx>,
    set: &Set,
    thresholds: ThresholdParams,
) -> Result<(), CertificateError<Ctx>> {
    let votes = c.polka_signatures.iter().map(|s| SignedVote {
        step: VoteKind::Prevote,
        height: c.height.0,
        round: number(c.round),
        digest: Some(c.value_id.0),
        voter: s.address.0,
        signature: s.signature,
    });
    let bad =
        |v: &SignedVote| CertificateError::InvalidPolkaSignature(PolkaSignature::new(Address(v.voter), v.signature));
    certify(network, set, thresholds.quorum, votes, bad)
}

pub(super) fn verify_round(
    network: &NetworkId,
    c: &RoundCertificate<Ctx>,
    set: &Set,
    thresholds: ThresholdParams,
) -> Result<(), CertificateError<Ctx>> {
    let precommits = c.cert_type == RoundCertificateType::Precommit;
    if let Some(s) = c.round_signatures.iter().find(|s| precommits && s.vote_type == VoteType::Prevote) {
        return Err(CertificateError::InvalidVoteType(s.address));
    }
    let votes = c.round_signatures.iter().map(|s| SignedVote {
        step: vote_step(s.vote_type),
        height: c.height.0,
        round: number(c.round),
        digest: digest(&s.value_id),
        voter: s.address.0,
        signature: s.signature,
    });
    let bad = |v: &SignedVote| {
        let signature = RoundSignature::new(vote_type(v.step), value(v.digest), Address(v.voter), v.signature);
        CertificateError::InvalidRoundSignature(signature)
    };
    let threshold = if precommits { thresholds.quorum } else { thresholds.honest };
    certify(network, set, threshold, votes, bad)
}
