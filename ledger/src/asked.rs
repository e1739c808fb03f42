//! The miners of rounds, which their validators cannot choose.
//!
//! They are drawn when an opening is executed, from the agreed snapshot, by the value of its miner lot:
//! registered neurons without a permit, one for each coldkey, a part of the places for those of whom few
//! answers were counted ([`perturb_challenge::sampling`]). Who was registered after the active seed's keys
//! were fixed is not among them: a hotkey could be made for lots that are known. The row of the open round
//! names them by rising uid, and result and commitments are judged by that row.

use perturb_challenge::sampling::{Candidate, sample};
use perturb_types::vrf::Purpose;
use perturb_types::{ChallengeId, Digest, Hotkey, RoundKey, RoundOpen};

use crate::execute::{Executor, TxError};
use crate::genesis::ChallengeSpec;
use crate::state::{AskedRow, asked_key, asked_prefix, hotkey_after};
use crate::store::{StateStore, StoreError};
use crate::tx::Snapshot;

impl<S: StateStore + ?Sized> Executor<'_, S> {
    /// The miners that an opening asks, by the lot of this number; at least one.
    pub(crate) fn asked(
        &self,
        spec: &ChallengeSpec,
        open: &RoundOpen,
        (key, seed): (&RoundKey, Digest),
        number: u64,
    ) -> Result<Vec<Hotkey>, TxError> {
        let round = open.round;
        let value = self.open_lot(&round, (Purpose::Miners, number), (key, seed), &open.miners)?;
        let mut candidates = Vec::new();
        for neuron in self.frame.snapshot.neurons.iter().filter(|n| !n.permit) {
            let row: AskedRow = self.state.get(&asked_key(spec.id, &neuron.hotkey))?.unwrap_or_default();
            if row.since <= open.epoch {
                let (uid, hotkey, coldkey) = (neuron.uid, neuron.hotkey, neuron.coldkey);
                candidates.push(Candidate { uid, hotkey, coldkey, processed: row.processed });
            }
        }
        let picked = sample(&spec.rules, &value, &candidates, usize::from(spec.miners_per_round));
        let miners: Vec<Hotkey> = picked.iter().filter_map(|i| Some(candidates.get(*i)?.hotkey)).collect();
        if miners.is_empty() {
            return Err(TxError::Early(format!("round {round}: nobody is there to be asked")));
        }
        Ok(miners)
    }

    /// A validator has counted so many answers of a miner: the most that any has.
    pub(crate) fn count_processed(
        &mut self,
        id: ChallengeId,
        miner: &Hotkey,
        processed: u64,
    ) -> Result<(), StoreError> {
        let key = asked_key(id, miner);
        let row: AskedRow = self.state.get(&key)?.unwrap_or_default();
        if row.processed < processed {
            self.state.put(key, &AskedRow { processed, ..row });
        }
        Ok(())
    }

    /// Who is registered in the epoch that begins, and was not in the one that closes, is a newcomer; also who comes
    /// back.
    pub(crate) fn renew_asked(&mut self, id: ChallengeId, snapshot: &Snapshot) -> Result<(), TxError> {
        let prefix = asked_prefix(id);
        let stays = |miner| snapshot.neuron(&miner).is_some();
        self.state.retain(&prefix, |key| hotkey_after(&prefix, key).is_some_and(stays))?;
        let since = self.frame.meta.epoch.saturating_add(1);
        for new in snapshot.neurons.iter().filter(|n| self.frame.snapshot.neuron(&n.hotkey).is_none()) {
            self.state.put(asked_key(id, &new.hotkey), &AskedRow { since, processed: 0 });
        }
        Ok(())
    }
}
