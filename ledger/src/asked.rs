//! The miners of rounds, which their validators cannot choose.
//!
//! They are drawn when an opening is executed, from the agreed snapshot, by the value of its miner lot:
//! registered neurons without a permit, one for each coldkey, a part of the places for those of whom few
//! answers were counted ([`perturb_challenge::sampling`]). Who was registered after the active seed's keys were
//! fixed is not among them: a hotkey could be made for lots that are known. The row of the open round names them by rising
//! uid, and result and commitments are judged by that row.

use perturb_challenge::sampling::{Candidate, sample};
use perturb_types::vrf::{Draw, Purpose};
use perturb_types::{ChallengeId, Digest, Hotkey, RoundKey, RoundOpen};

use crate::execute::{Executor, TxError};
use crate::genesis::ChallengeSpec;
use crate::state::{AskedRow, asked_key, asked_miner, asked_prefix};
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
        let draw = Draw { purpose: Purpose::Miners, challenge: round.challenge, seed, seq: number };
        let value = key.open(&self.network(), &draw, &open.miners);
        let value = value
            .ok_or_else(|| TxError::Invalid(format!("round {round}: the lot of its miners is none of its key")))?;
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
        for (key, _) in self.state.scan(&asked_prefix(id))? {
            if asked_miner(id, &key).is_none_or(|miner| snapshot.neuron(&miner).is_none()) {
                self.state.delete(key);
            }
        }
        let since = self.frame.meta.epoch.saturating_add(1);
        for new in snapshot.neurons.iter().filter(|n| self.frame.snapshot.neuron(&n.hotkey).is_none()) {
            self.state.put(asked_key(id, &new.hotkey), &AskedRow { since, processed: 0 });
        }
        Ok(())
    }
}
