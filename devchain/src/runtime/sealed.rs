//! Opening the timelocked fields of commitments.
//!
//! At the beginning of every block each commitment with such a field is looked at. A field whose round is on the chain
//! goes: its content into `RevealedCommitments`, or, if it does not open, into a field of the kind
//! `TimelockRevealFailed`. A commitment without any field left is removed.

use super::commitments::{
    CommitmentInfo, CommitmentOf, Config, Data, Event, Pallet, Registration, RevealFailure, RevealedCommitments,
    TimelockedIndex,
};
use super::drand::Pulses;
use super::primitives::NetUid;
use super::{Runtime, SubtensorModule};
use crate::timelock;
use frame_support::BoundedVec;

/// Contents kept of one hotkey.
const MAX_REVEALED: usize = 10;

impl<T: Config> Pallet<T> {
    /// Open what can be opened in this block.
    pub(super) fn open_commitments() {
        for (netuid, who) in TimelockedIndex::<T>::get() {
            let Some(commitment) = CommitmentOf::<T>::get(netuid, &who) else {
                Self::forget(netuid, &who);
                continue;
            };
            let before = commitment.info.fields.len();
            let (mut fields, mut opened, mut failed) = (Vec::with_capacity(before), vec![], vec![]);
            for field in commitment.info.fields {
                let Data::TimelockEncrypted { encrypted, reveal_round } = field else {
                    fields.push(field);
                    continue;
                };
                let Some(pulse) = Pulses::<Runtime>::get(reveal_round) else {
                    fields.push(Data::TimelockEncrypted { encrypted, reveal_round });
                    continue;
                };
                match timelock::open(&encrypted, &pulse.signature) {
                    Some(content) if !content.is_empty() => opened.push(content),
                    other => {
                        let empty = other.map_or(RevealFailure::Decrypt, |_| RevealFailure::EmptyPlaintext);
                        failed.push((reveal_round, empty));
                        fields.push(Data::TimelockRevealFailed { encrypted, reveal_round });
                    }
                }
            }
            if opened.is_empty() && failed.is_empty() {
                continue;
            }
            let waits = fields.iter().any(|field| matches!(field, Data::TimelockEncrypted { .. }));
            if fields.is_empty() {
                CommitmentOf::<T>::remove(netuid, &who);
            } else {
                let info = CommitmentInfo { fields: BoundedVec::truncate_from(fields) };
                CommitmentOf::<T>::insert(netuid, &who, Registration { info, ..commitment });
            }
            if !waits {
                Self::forget(netuid, &who);
            }
            Self::keep(netuid, &who, opened);
            for (reveal_round, error) in failed {
                let who = who.clone();
                Self::deposit_event(Event::CommitmentRevealFailed { netuid, who, reveal_round, error });
            }
        }
    }

    fn keep(netuid: NetUid, who: &T::AccountId, opened: Vec<Vec<u8>>) {
        if opened.is_empty() {
            return;
        }
        let block = SubtensorModule::current_block();
        let mut kept = RevealedCommitments::<T>::get(netuid, who).unwrap_or_default();
        for content in opened {
            kept.push((content, block));
            Self::deposit_event(Event::CommitmentRevealed { netuid, who: who.clone() });
        }
        kept.drain(..kept.len().saturating_sub(MAX_REVEALED));
        RevealedCommitments::<T>::insert(netuid, who, kept);
    }

    fn forget(netuid: NetUid, who: &T::AccountId) {
        TimelockedIndex::<T>::mutate(|index| index.remove(&(netuid, who.clone())));
    }
}
