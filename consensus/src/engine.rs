//! The one module that knows the BFT engine.
//!
//! The engine is a pure state machine: an input goes in, effects come out through a generator and
//! each is answered on the spot. Here the effects become [`Output`]s in the order in which they
//! happened, and signatures are made and checked.
//!
//! Rules this wrapper keeps:
//!
//! - An effect is never answered with an error: `process!` would swallow it and go on as if it had
//!   worked. Trouble becomes [`Output::Fault`], which stops the node.
//! - The engine's own clock is never used (`target_time` is `None`): the machine paces heights.
//! - A panic inside the engine means a broken invariant: nothing here catches it.

mod context;
mod convert;

use std::collections::BTreeSet;
use std::convert::Infallible;

use arc_malachitebft_core_consensus::{
    Effect, Error, Input, LivenessMsg, LocallyProposedValue, Params, ProposedValue, Resumable as _, Resume,
    SignedConsensusMsg, State, process,
};
use arc_malachitebft_core_types::{
    NilOrVal, Round, ThresholdParam, ThresholdParams, Validity, ValueOrigin, ValuePayload, VoteExtensionPolicy,
    VoteType,
};
use perturb_types::{ConsensusKey, ConsensusPair, Digest, NetworkId, encode};

pub(crate) use context::Set;
use context::{Address, BareProposal, BareVote, BlockId, Ctx, Height};

use crate::guard::{Guard, GuardMark, Step};
use crate::machine::Config;
use crate::planted::Planted;
use crate::record::{Record, Wait};
use crate::wire::{Gossip, SignedProposal, SignedVote};

/// Heights for which the engine itself holds early messages: the machine admits the next one only.
const QUEUED_HEIGHTS: usize = 2;

/// Early messages held per height and validator (the engine's documents ask for at least 8·n).
pub(crate) const QUEUED_PER_VALIDATOR: usize = 8;

/// What the engine wants done, in order.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// Stop all timeouts.
    CancelAll,
    /// Stop one.
    Cancel { wait: Wait, round: u32 },
    /// Start one; its length follows from the parameters.
    Schedule { wait: Wait, round: u32 },
    /// A round begins.
    RoundStarted { round: u32 },
    /// Log a record. `signed` is set where it holds a signature of this node.
    Log { record: Record, signed: Option<GuardMark>, fresh: bool },
    /// Send a message of this node for the first time.
    Publish(Gossip),
    /// Send identical bytes again.
    Republish(Gossip),
    /// This node proposes: a block is wanted.
    GetValue { round: u32 },
    /// Send this block's bytes again.
    Restream { digest: Digest },
    /// A quorum of precommits for one block.
    Decided { height: u64, round: u32, digest: Digest, signatures: Vec<(ConsensusKey, [u8; 64])> },
    /// Contradicting signatures seen in the decided height.
    Evidence { votes: Vec<(SignedVote, SignedVote)>, proposals: Vec<(SignedProposal, SignedProposal)> },
    /// The node must stop.
    Fault(String),
}

/// The engine with this node's key and guard.
pub(crate) struct Engine {
    state: State<Ctx>,
    handler: Handler,
}

struct Handler {
    network: NetworkId,
    pair: ConsensusPair,
    guard: Guard,
    /// Digests of the records that are on disk already; only used while replaying.
    on_disk: BTreeSet<Digest>,
    replaying: bool,
    /// The message being fed: its signature was verified before it was let through.
    verified: Option<Gossip>,
    out: Vec<Output>,
}

impl Engine {
    /// An engine that waits at `height`; nothing happens before [`Engine::start_height`].
    pub fn new(network: NetworkId, config: &Config, guard: Guard, height: u64, set: Set) -> Self {
        let pair = config.pair.clone();
        let mut threshold_params = ThresholdParams::default();
        if config.planted == Planted::LowQuorum {
            threshold_params.quorum = ThresholdParam::F_PLUS_ONE;
        }
        let params = Params {
            address: Address(pair.public()),
            threshold_params,
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        let per_height = perturb_types::limits::MAX_VALIDATORS * QUEUED_PER_VALIDATOR;
        let state = State::new(Ctx, Height(height), set, params, QUEUED_HEIGHTS, per_height);
        let handler = Handler {
            network,
            pair,
            guard,
            on_disk: BTreeSet::new(),
            replaying: false,
            verified: None,
            out: Vec::new(),
        };
        Self { state, handler }
    }

    /// The height it works at.
    pub fn height(&self) -> u64 {
        self.state.height().0
    }

    /// The round it is in; `None` before the height was started.
    pub fn round(&self) -> Option<u32> {
        self.state.round().as_u32()
    }

    /// Propose, prevote, precommit, commit; for people.
    pub fn step(&self) -> &'static str {
        let driver = &self.state.driver;
        if self.round().is_none() {
            "waiting"
        } else if driver.step_is_propose() {
            "propose"
        } else if driver.step_is_prevote() {
            "prevote"
        } else if driver.step_is_precommit() {
            "precommit"
        } else {
            "commit"
        }
    }

    /// Whether a value may still be proposed in this round.
    pub fn is_proposing(&self) -> bool {
        self.state.driver.step_is_propose()
    }

    /// Starts a height. `vote` is false for a node that only follows.
    pub fn start_height(&mut self, height: u64, set: Set, vote: bool) -> Vec<Output> {
        self.state.params.enabled = vote;
        self.handler.guard.forget_below(height);
        self.feed(Input::StartHeight(Height(height), set, false, None, VoteExtensionPolicy::Disabled))
    }

    /// Starts a height from its log: inputs are fed again, nothing is published, and what is
    /// re-derived must be what the log says.
    pub fn replay(&mut self, height: u64, set: Set, vote: bool, records: &[Record]) -> Vec<Output> {
        let me = self.handler.pair.public();
        for record in records {
            if let Some(mark) = own_mark(&self.handler.network, &me, record) {
                self.handler.guard.remember(mark);
            }
        }
        self.handler.on_disk = records.iter().map(|r| Digest::of(&r.encode())).collect();
        self.handler.replaying = true;
        let mut out = self.start_height(height, set, vote);
        let inputs: Vec<Input<Ctx>> = records.iter().filter_map(|r| convert::input(height, r)).collect();
        self.state.index_wal_entries(&inputs);
        for input in inputs {
            out.extend(self.feed(input));
        }
        self.state.reset_entries_index();
        self.handler.replaying = false;
        self.handler.on_disk.clear();
        out
    }

    /// A verified message from the network.
    pub fn gossip(&mut self, message: Gossip) -> Vec<Output> {
        self.handler.verified = Some(message.clone()).filter(|m| matches!(m, Gossip::Vote(_) | Gossip::Proposal(_)));
        let out = self.feed(match message {
            Gossip::Vote(m) => Input::Vote(convert::vote(&m)),
            Gossip::Proposal(m) => Input::Proposal(convert::proposal(&m)),
            Gossip::Polka(m) => Input::PolkaCertificate(convert::polka(&m)),
            Gossip::Round(m) => Input::RoundCertificate(convert::round_entry(&m)),
        });
        self.handler.verified = None;
        out
    }

    /// This node's own proposal for a round it proposes in.
    pub fn propose(&mut self, round: u32, digest: Digest) -> Vec<Output> {
        let height = self.state.height();
        self.feed(Input::Propose(LocallyProposedValue::new(height, Round::new(round), BlockId(digest))))
    }

    /// The verdict on a value proposed in `round`.
    pub fn verdict(&mut self, round: u32, proposer: ConsensusKey, digest: Digest, valid: bool) -> Vec<Output> {
        let value = ProposedValue {
            height: self.state.height(),
            round: Round::new(round),
            valid_round: Round::Nil,
            proposer: Address(proposer),
            value: BlockId(digest),
            validity: Validity::from_bool(valid),
        };
        self.feed(Input::ProposedValue(value, ValueOrigin::Consensus))
    }

    /// A timeout elapsed.
    pub fn timeout(&mut self, wait: Wait, round: u32) -> Vec<Output> {
        self.feed(Input::TimeoutElapsed(convert::timeout(wait, round)))
    }

    fn feed(&mut self, input: Input<Ctx>) -> Vec<Output> {
        let Self { state, handler } = self;
        let result: Result<(), Error<Ctx>> =
            process!(input: input, state: state, metrics: &(), with: effect => handler.handle(effect));
        match result {
            Ok(()) => {}
            Err(e @ (Error::ReplayDivergence(..) | Error::UnexpectedResume(..) | Error::DecisionNotFound(..))) => {
                handler.out.push(Output::Fault(e.to_string()));
            }
            // The engine refused an input; it holds the state it had.
            Err(e) => tracing::warn!(error = %e, "the engine refused an input"),
        }
        std::mem::take(&mut handler.out)
    }
}

/// What `record` shows this node to have signed.
fn own_mark(network: &NetworkId, me: &ConsensusKey, record: &Record) -> Option<GuardMark> {
    match record {
        Record::Vote(v) if v.voter == *me => Some(vote_mark(v)),
        Record::Proposal(p) if p.proposer == *me => Some(proposal_mark(network, p)),
        _ => None,
    }
}

fn vote_mark(v: &SignedVote) -> GuardMark {
    let step = match v.step {
        perturb_ledger::VoteKind::Prevote => Step::Prevote,
        perturb_ledger::VoteKind::Precommit => Step::Precommit,
    };
    GuardMark { height: v.height, round: v.round, step, digest: v.digest }
}

fn proposal_mark(network: &NetworkId, p: &SignedProposal) -> GuardMark {
    let digest = encode::digest_of(encode::Domain::Proposal, network, &(p.digest, p.pol_round));
    GuardMark { height: p.height, round: p.round, step: Step::Proposal, digest: Some(digest) }
}

impl Handler {
    fn handle(&mut self, effect: Effect<Ctx>) -> Result<Resume<Ctx>, Infallible> {
        Ok(match effect {
            Effect::CancelAllTimeouts(r) => self.push(Output::CancelAll, r),
            Effect::CancelTimeout(t, r) => match convert::wait(&t) {
                Some((wait, round)) => self.push(Output::Cancel { wait, round }, r),
                None => r.resume_with(()),
            },
            Effect::ScheduleTimeout(t, r) => match convert::wait(&t) {
                Some((wait, round)) => self.push(Output::Schedule { wait, round }, r),
                None => r.resume_with(()),
            },
            Effect::StartRound(_, round, _, _, r) => {
                let round = round.as_u32().unwrap_or(0);
                self.push(Output::RoundStarted { round }, r)
            }
            Effect::PublishConsensusMsg(m, r) => self.publish(convert::message(&m), r),
            Effect::PublishLivenessMsg(m, r) => {
                let message = match m {
                    LivenessMsg::Vote(v) => convert::message(&SignedConsensusMsg::Vote(v)),
                    LivenessMsg::PolkaCertificate(c) => Some(Gossip::Polka(convert::to_polka(&c))),
                    LivenessMsg::SkipRoundCertificate(c) => Some(Gossip::Round(convert::to_round_entry(&c))),
                };
                self.publish(message, r)
            }
            Effect::RepublishVote(v, r) => self.republish(convert::message(&SignedConsensusMsg::Vote(v)), r),
            Effect::RepublishRoundCertificate(c, r) => {
                self.republish(Some(Gossip::Round(convert::to_round_entry(&c))), r)
            }
            Effect::GetValue(_, round, _, r) => self.push(Output::GetValue { round: round.as_u32().unwrap_or(0) }, r),
            Effect::RestreamProposal(_, _, _, _, id, r) if !self.replaying => {
                self.push(Output::Restream { digest: id.0 }, r)
            }
            Effect::RestreamProposal(.., r) => r.resume_with(()),
            // Blocks of a range are verified and committed by the machine, not by the engine.
            Effect::CertVerifiedSyncValue(_, _, r) => r.resume_with(()),
            Effect::CertRejectedSyncValue(_, _, _, r) => r.resume_with(()),
            Effect::Decide(c, _, r) => {
                let decided = Output::Decided {
                    height: c.height.0,
                    round: c.round.as_u32().unwrap_or(0),
                    digest: c.value_id.0,
                    signatures: c.commit_signatures.iter().map(|s| (s.address.0, s.signature)).collect(),
                };
                self.push(decided, r)
            }
            Effect::Finalize(_, _, evidence, r) => {
                let (votes, proposals) = convert::evidence(&evidence);
                if votes.is_empty() && proposals.is_empty() {
                    r.resume_with(())
                } else {
                    self.push(Output::Evidence { votes, proposals }, r)
                }
            }
            Effect::SignVote(vote, r) => r.resume_with(self.sign_vote(vote)),
            Effect::SignProposal(proposal, r) => r.resume_with(self.sign_proposal(proposal)),
            Effect::VerifySignature(m, key, r) => {
                let known = self.verified.as_ref().is_some_and(|v| convert::any_message(&m) == *v);
                r.resume_with(convert::is_of(&m, &key) && (known || convert::verifies(&self.network, &m)))
            }
            Effect::VerifyCommitCertificate(c, set, thresholds, r) => {
                r.resume_with(convert::verify_commit(&self.network, &c, &set, thresholds))
            }
            Effect::VerifyExtendedCommitCertificate(c, set, thresholds, _, r) => {
                r.resume_with(convert::verify_commit(&self.network, &c.trim_vote_extensions(), &set, thresholds))
            }
            Effect::VerifyPolkaCertificate(c, set, thresholds, r) => {
                r.resume_with(convert::verify_polka(&self.network, &c, &set, thresholds))
            }
            Effect::VerifyRoundCertificate(c, set, thresholds, r) => {
                r.resume_with(convert::verify_round(&self.network, &c, &set, thresholds))
            }
            Effect::WalAppend(_, input, r) => {
                self.log(&input);
                r.resume_with(())
            }
            // Vote extensions are disabled at every height.
            Effect::ExtendVote(_, _, _, _, r) => r.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => {
                r.resume_with(Err(arc_malachitebft_core_consensus::VoteExtensionError::InvalidVoteExtension))
            }
        })
    }

    fn push<R: arc_malachitebft_core_consensus::Resumable<Ctx, Value = ()>>(
        &mut self,
        output: Output,
        resume: R,
    ) -> Resume<Ctx> {
        self.out.push(output);
        resume.resume_with(())
    }

    fn publish<R: arc_malachitebft_core_consensus::Resumable<Ctx, Value = ()>>(
        &mut self,
        message: Option<Gossip>,
        resume: R,
    ) -> Resume<Ctx> {
        if let Some(message) = message.filter(|_| !self.replaying) {
            self.out.push(Output::Publish(message));
        }
        resume.resume_with(())
    }

    fn republish<R: arc_malachitebft_core_consensus::Resumable<Ctx, Value = ()>>(
        &mut self,
        message: Option<Gossip>,
        resume: R,
    ) -> Resume<Ctx> {
        if let Some(message) = message.filter(|_| !self.replaying) {
            self.out.push(Output::Republish(message));
        }
        resume.resume_with(())
    }

    fn log(&mut self, input: &Input<Ctx>) {
        let Some(record) = convert::record(input) else { return };
        let fresh = !(self.replaying && self.on_disk.contains(&Digest::of(&record.encode())));
        let signed = own_mark(&self.network, &self.pair.public(), &record);
        if fresh || signed.is_some() {
            self.out.push(Output::Log { record, signed, fresh });
        }
    }

    /// Asks the guard. After a refusal the node stops; what the engine gets back never leaves it.
    fn admit(&mut self, mark: GuardMark) -> bool {
        match self.guard.admit(mark) {
            Ok(()) => true,
            Err(conflict) => {
                self.out.push(Output::Fault(conflict.to_string()));
                false
            }
        }
    }

    fn sign_vote(&mut self, vote: BareVote) -> arc_malachitebft_core_types::SignedMessage<Ctx, BareVote> {
        let step = convert::vote_step(vote.kind);
        let digest = match vote.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(id) => Some(id.0),
        };
        let (height, round) = (vote.height.0, vote.round.as_u32().unwrap_or(0));
        let mark = GuardMark {
            height,
            round,
            step: if vote.kind == VoteType::Prevote { Step::Prevote } else { Step::Precommit },
            digest,
        };
        let signature = if self.admit(mark) {
            SignedVote::sign(&self.pair, &self.network, step, height, round, digest).signature
        } else {
            [0; 64]
        };
        arc_malachitebft_core_types::SignedMessage::new(vote, signature)
    }

    fn sign_proposal(
        &mut self,
        proposal: BareProposal,
    ) -> arc_malachitebft_core_types::SignedMessage<Ctx, BareProposal> {
        let (height, round) = (proposal.height.0, proposal.round.as_u32().unwrap_or(0));
        let (digest, pol) = (proposal.value.0, proposal.pol_round.as_u32());
        let blank =
            SignedProposal { height, round, digest, pol_round: pol, proposer: self.pair.public(), signature: [0; 64] };
        let signature = if self.admit(proposal_mark(&self.network, &blank)) {
            SignedProposal::sign(&self.pair, &self.network, height, round, digest, pol).signature
        } else {
            [0; 64]
        };
        arc_malachitebft_core_types::SignedMessage::new(proposal, signature)
    }
}
