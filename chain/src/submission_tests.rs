//! The submission machine against a pretended chain: it lands once, whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::ChainError;

const WEIGHTS: [(u16, u16); 2] = [(3, 65_535), (7, 100)];

fn agreed() -> AgreedVector {
    AgreedVector {
        call: WeightsCall { netuid: 1, mecid: 0, weights: WEIGHTS.to_vec(), version_key: 0 },
        epoch: 5,
        reference_block: 100,
        expires_after_epoch: None,
    }
}

fn signed(nonce: u64, at: u64) -> SignedExtrinsic {
    SignedExtrinsic {
        bytes: vec![1],
        hash: BlockHash([1; 32]),
        nonce,
        signed_at: at,
        expires_at: at + 64,
        commit: None,
    }
}

fn facts(finalized: u64) -> ChainFacts {
    ChainFacts {
        finalized,
        epoch_index: 6,
        uid: Some(2),
        on_chain: vec![(3, 1)],
        last_update: 50,
        rate_limit: 10,
        finalized_nonce: 4,
        best_nonce: 4,
        commit_reveal: false,
        waiting: Vec::new(),
    }
}

fn submitted(block_number: u64) -> Submitted {
    Submitted { block_number, block_hash: BlockHash([2; 32]), index: 1, extrinsic_hash: BlockHash([1; 32]) }
}

fn away() -> SubmitError {
    SubmitError::Chain(ChainError::Away { endpoint: "ws://h".into(), reason: "gone".into(), retry_in_ms: 1 })
}

#[test]
fn the_usual_way_looks_signs_sends_and_reads_back() {
    let mut s = Submission::new(agreed());
    assert_eq!(s.next(110), Step::Look);
    s.apply(Event::Looked(facts(110)));
    assert_eq!(s.next(110), Step::Sign { nonce: 4, commit: false });
    s.apply(Event::Signed(signed(4, 110)));
    assert_eq!(s.next(110), Step::Send(signed(4, 110)));
    s.apply(Event::InBlock(BlockHash([2; 32])));
    s.apply(Event::Finalized(submitted(112)));
    assert_eq!(s.next(112), Step::ReadBack(submitted(112)));
    s.apply(Event::ReadBack(vec![(7, 100), (3, 65_535)]));
    assert_eq!(s.state, State::ReadBack { block_number: 112, submitted: Some(submitted(112)) });
    assert!(s.is_over() && s.has_landed());
    assert_eq!(s.next(113), Step::Done);
}

#[test]
fn a_restart_looks_first_and_sends_nothing_if_the_vector_has_landed() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    // Saved, sent, and killed before the answer came.
    let json = serde_json::to_string(&s).unwrap();
    let mut s: Submission = serde_json::from_str(&json).unwrap();
    assert_eq!(s.next(113), Step::Look);
    s.apply(Event::Looked(ChainFacts { on_chain: WEIGHTS.to_vec(), last_update: 112, ..facts(113) }));
    assert_eq!(s.state, State::ReadBack { block_number: 112, submitted: None });
}

#[test]
fn a_restart_sends_the_same_bytes_again_if_they_have_not_landed() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    let mut s: Submission = serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap();
    s.apply(Event::Looked(facts(113)));
    assert_eq!(s.next(113), Step::Send(signed(4, 110)));
}

#[test]
fn the_same_vector_of_an_earlier_epoch_does_not_count_as_landed() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(ChainFacts { on_chain: WEIGHTS.to_vec(), last_update: 99, ..facts(110) }));
    assert_eq!(s.next(110), Step::Sign { nonce: 4, commit: false });
}

#[test]
fn nothing_is_signed_anew_while_the_old_extrinsic_may_still_land() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    s.apply(Event::Refused(SubmitError::NotFinalizedInTime { extrinsic: BlockHash([1; 32]), after_ms: 1 }, 111));
    // In the best chain, not finalized: wait.
    assert_eq!(s.next(111), Step::WaitForBlock(112));
    s.apply(Event::Looked(ChainFacts { best_nonce: 5, ..facts(112) }));
    assert_eq!(s.next(112), Step::WaitForBlock(113));
    // Finalized, and our vector is not there: it failed in its block. Only now sign anew.
    s.apply(Event::Looked(ChainFacts { best_nonce: 5, finalized_nonce: 5, ..facts(113) }));
    assert_eq!((&s.state, s.next(113)), (&State::Due, Step::Look));
    s.apply(Event::Looked(ChainFacts { best_nonce: 5, finalized_nonce: 5, ..facts(113) }));
    assert_eq!(s.next(113), Step::Sign { nonce: 5, commit: false });
}

#[test]
fn nothing_is_signed_while_another_extrinsic_of_ours_is_not_finalized() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(ChainFacts { best_nonce: 5, ..facts(110) }));
    assert_eq!(s.next(110), Step::WaitForBlock(111));
}

#[test]
fn an_extrinsic_whose_era_is_over_is_signed_anew() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    s.apply(Event::Refused(away(), 110));
    s.apply(Event::Looked(facts(172)));
    assert_eq!(s.next(172), Step::Send(signed(4, 110)), "block 173 may still include it");
    s.apply(Event::Refused(away(), 172));
    s.apply(Event::Looked(facts(173)));
    assert_eq!(s.state, State::Due);
}

#[test]
fn an_outage_uses_up_no_attempt_and_the_chain_is_looked_at_when_it_returns() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    for _ in 0..1_000 {
        s.apply(Event::Refused(away(), 110));
        assert_eq!(s.next(110), Step::Look);
    }
    assert_eq!(s.attempts, 0);
    assert!(matches!(s.state, State::Signed { .. }));
}

#[test]
fn a_refusal_for_the_rate_limit_waits_until_the_limit_has_passed() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(ChainFacts { last_update: 105, rate_limit: 100, ..facts(110) }));
    s.apply(Event::Signed(signed(4, 110)));
    s.apply(Event::Refused(SubmitError::TooFast, 110));
    assert_eq!(s.state, State::Due);
    assert_eq!(s.next(110), Step::WaitForBlock(204), "accepted in block 205, the one after 204");
    assert_eq!(s.next(204), Step::Look);
}

#[test]
fn waits_grow_and_the_vector_is_given_up_in_the_end() {
    let mut s = Submission::new(agreed());
    let mut height = 110;
    let mut waits = Vec::new();
    while !s.is_over() {
        s.apply(Event::Looked(facts(height)));
        if matches!(s.next(height), Step::Sign { .. }) {
            s.apply(Event::Signed(signed(4, height)));
        }
        s.apply(Event::Refused(SubmitError::NoPermit, height));
        if let Step::WaitForBlock(n) = s.next(height) {
            waits.push(n - height);
            height = n;
        }
    }
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 16]);
    assert_eq!(s.attempts, MAX_ATTEMPTS);
    let State::Failed { reason } = &s.state else { panic!() };
    assert!(reason.contains("no validator permit") && reason.contains("after 32 attempts"), "{reason}");
}

#[test]
fn a_lasting_refusal_ends_it_with_what_to_do() {
    for error in [SubmitError::NotRegistered, SubmitError::OtherBeacon, SubmitError::OldVersionKey] {
        let mut s = Submission::new(agreed());
        s.apply(Event::Looked(facts(110)));
        s.apply(Event::Signed(signed(4, 110)));
        s.apply(Event::Refused(error.clone(), 110));
        let State::Failed { reason } = &s.state else { panic!("{error}") };
        assert!(reason.contains(error.what_it_means()));
    }
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(ChainFacts { uid: None, ..facts(110) }));
    assert!(matches!(s.state, State::Failed { .. }));
}

#[test]
fn a_vector_too_late_for_its_epoch_is_given_up_before_it_is_signed() {
    let mut s = Submission::new(AgreedVector { expires_after_epoch: Some(6), ..agreed() });
    s.apply(Event::Looked(facts(110)));
    assert_eq!(s.next(110), Step::Sign { nonce: 4, commit: false });
    let mut s = Submission::new(AgreedVector { expires_after_epoch: Some(5), ..agreed() });
    s.apply(Event::Looked(facts(110)));
    assert!(matches!(s.state, State::Failed { .. }));
}

#[test]
fn weights_that_read_back_differently_are_a_failure() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    s.apply(Event::Finalized(submitted(112)));
    s.apply(Event::ReadBack(vec![(3, 65_535)]));
    assert!(matches!(s.state, State::Failed { .. }));
}

fn commit() -> Commit {
    Commit { digest: perturb_types::Digest([9; 32]), round: 1000, reveal_block: 130 }
}

fn signed_commit(nonce: u64, at: u64) -> SignedExtrinsic {
    SignedExtrinsic { commit: Some(commit()), ..signed(nonce, at) }
}

/// Commit-reveal is on, and the chain holds our commit of block 112 where `waiting`.
fn committed_facts(finalized: u64, waiting: bool) -> ChainFacts {
    let of_us = WaitingCommit { digest: commit().digest, block: 112 };
    ChainFacts { commit_reveal: true, waiting: if waiting { vec![of_us] } else { vec![] }, ..facts(finalized) }
}

fn committed() -> Submission {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(committed_facts(110, false)));
    assert_eq!(s.next(110), Step::Sign { nonce: 4, commit: true });
    s.apply(Event::Signed(signed_commit(4, 110)));
    s.apply(Event::Finalized(submitted(112)));
    s
}

#[test]
fn where_commits_are_demanded_the_vector_waits_for_its_reveal_and_is_read_back() {
    let mut s = committed();
    assert_eq!(s.next(112), Step::WaitForBlock(130));
    assert_eq!(s.next(130), Step::Look);
    // The pulse is not on the chain yet.
    s.apply(Event::Looked(committed_facts(130, true)));
    assert_eq!(s.next(130), Step::WaitForBlock(131));
    s.apply(Event::Looked(ChainFacts { on_chain: WEIGHTS.to_vec(), ..committed_facts(132, false) }));
    assert_eq!(s.state, State::ReadBack { block_number: 132, submitted: Some(submitted(112)) });
}

#[test]
fn the_same_weights_of_an_earlier_epoch_are_not_taken_for_the_reveal() {
    let mut s = committed();
    s.apply(Event::Looked(ChainFacts { on_chain: WEIGHTS.to_vec(), last_update: 112, ..committed_facts(131, true) }));
    assert!(!s.is_over(), "the commit still waits");
}

#[test]
fn a_commit_found_on_the_chain_after_a_crash_is_not_made_again() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(committed_facts(110, false)));
    s.apply(Event::Signed(signed_commit(4, 110)));
    let mut s: Submission = serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap();
    let same_before = ChainFacts { on_chain: WEIGHTS.to_vec(), last_update: 112, ..committed_facts(114, true) };
    s.apply(Event::Looked(same_before));
    assert_eq!(s.state, State::Committed { commit: commit(), block_number: 112, submitted: None });
    assert_eq!(s.next(114), Step::WaitForBlock(130));
}

#[test]
fn a_commit_that_the_chain_drops_is_made_again() {
    let mut s = committed();
    s.apply(Event::Looked(committed_facts(131, false)));
    assert_eq!(s.state, State::Due);
    assert!(s.last_error.as_ref().unwrap().contains("did not reveal"));
    s.apply(Event::Looked(committed_facts(133, false)));
    assert_eq!(s.next(133), Step::Sign { nonce: 4, commit: true });
}

#[test]
fn a_node_behind_the_commit_does_not_make_it_look_dropped() {
    let mut s = committed();
    s.apply(Event::Looked(committed_facts(111, false)));
    assert!(matches!(s.state, State::Committed { .. }));
}

#[test]
fn the_switch_thrown_on_the_way_changes_the_form_and_not_the_vector() {
    let mut s = Submission::new(agreed());
    s.apply(Event::Looked(facts(110)));
    s.apply(Event::Signed(signed(4, 110)));
    s.apply(Event::Refused(SubmitError::CommitRevealEnabled, 111));
    s.apply(Event::Looked(committed_facts(112, false)));
    assert_eq!(s.next(112), Step::Sign { nonce: 4, commit: true });
    s.apply(Event::Signed(signed_commit(4, 112)));
    s.apply(Event::Refused(SubmitError::CommitRevealDisabled, 113));
    s.apply(Event::Looked(facts(120)));
    assert_eq!(s.next(120), Step::Sign { nonce: 4, commit: false });
}

/// A chain with one account: blocks include what is in the pool, finality lags.
#[derive(Default)]
struct Chain {
    height: u64,
    lag: u64,
    nonce: u64,
    landed: Vec<(u64, SignedExtrinsic)>,
    pool: Vec<SignedExtrinsic>,
    /// Blocks from a commit to its reveal, where commits are demanded.
    reveal_after: Option<u64>,
}

impl Chain {
    fn finalized(&self) -> u64 {
        self.height.saturating_sub(self.lag)
    }

    fn block(&mut self) {
        self.height += 1;
        for x in std::mem::take(&mut self.pool) {
            if x.nonce == self.nonce && self.height < x.expires_at {
                self.nonce += 1;
                self.landed.push((self.height, x));
            }
        }
    }

    fn facts(&self) -> ChainFacts {
        let finalized = self.finalized();
        let last = self.landed.iter().rev().find(|(h, _)| *h <= finalized);
        let revealed = |h: u64| h + self.reveal_after.unwrap_or(0) <= finalized;
        let used = self.landed.iter().filter(|(h, _)| *h <= finalized).count() as u64;
        ChainFacts {
            finalized,
            epoch_index: 0,
            uid: Some(0),
            on_chain: last.filter(|(h, _)| revealed(*h)).map(|_| WEIGHTS.to_vec()).unwrap_or_default(),
            last_update: last.map_or(0, |(h, _)| *h),
            rate_limit: 0,
            finalized_nonce: used,
            best_nonce: self.nonce,
            commit_reveal: self.reveal_after.is_some(),
            waiting: last
                .filter(|(h, x)| x.commit.is_some() && !revealed(*h))
                .map(|(block, _)| WaitingCommit { digest: commit().digest, block: *block })
                .into_iter()
                .collect(),
        }
    }
}

proptest! {
    /// Crashes, lost answers, lost sends and outages in any order: the vector lands exactly once.
    #[test]
    fn the_vector_lands_exactly_once(
        choices in prop::collection::vec(0u8..8, 1..200),
        lag in 0u64..4,
        reveal_after in prop::option::of(1u64..40),
    ) {
        let mut chain = Chain { height: 110, lag, reveal_after, ..Chain::default() };
        let mut s = Submission::new(agreed());
        let mut saved = serde_json::to_string(&s).unwrap();
        // After the trouble the chain behaves, so that it must finish.
        let trouble = choices.into_iter().chain(std::iter::repeat_n(7, 400));
        for choice in trouble {
            if s.is_over() {
                break;
            }
            match s.next(chain.finalized()) {
                Step::Look if choice == 0 => s.apply(Event::Refused(away(), chain.finalized())),
                Step::Look => s.apply(Event::Looked(chain.facts())),
                Step::WaitForBlock(_) => chain.block(),
                Step::Sign { nonce, commit: false } => s.apply(Event::Signed(signed(nonce, chain.finalized()))),
                Step::Sign { nonce, commit: true } => {
                    s.apply(Event::Signed(signed_commit(nonce, chain.finalized())));
                }
                Step::Send(x) => {
                    // 1: lost on the way. Others: it reaches the pool.
                    if choice != 1 {
                        chain.pool.push(x.clone());
                    }
                    if choice >= 3 {
                        for _ in 0..=lag {
                            chain.block();
                        }
                    }
                    match chain.landed.iter().find(|(_, l)| *l == x) {
                        // 3: the answer is lost. 4: refused afterwards by a stale pool.
                        Some((h, _)) if choice > 4 && *h <= chain.finalized() => {
                            s.apply(Event::Finalized(submitted(*h)));
                        }
                        _ if choice == 4 => s.apply(Event::Refused(SubmitError::NonceUsed, chain.finalized())),
                        _ if choice == 2 => s.apply(Event::Refused(SubmitError::AlreadyInPool, chain.finalized())),
                        _ => s.apply(Event::Refused(away(), chain.finalized())),
                    }
                }
                Step::ReadBack(_) => s.apply(Event::ReadBack(WEIGHTS.to_vec())),
                Step::Done => break,
            }
            if choice == 5 {
                // A crash before the save: back to what was saved last.
                s = serde_json::from_str(&saved).unwrap();
            } else {
                saved = serde_json::to_string(&s).unwrap();
            }
            if choice == 6 {
                s = serde_json::from_str(&saved).unwrap();
            }
            prop_assert!(chain.landed.len() <= 1, "landed twice: {:?}", chain.landed);
        }
        prop_assert!(s.has_landed(), "{:?}", s);
        prop_assert_eq!(chain.landed.len(), 1);
    }
}
