//! What rounds are drawn with: one seed for all, and a round key for each member.
//!
//! The round keys of an epoch are fixed when the epoch before closes: those of its members. Its seed
//! follows from the first pulse that `pulse_stride` divides and that is signed at least `delay_ms` after
//! the closing block's time: nobody who still could choose a key knows it. Until that pulse is in a block,
//! the pair of seed and keys that was active stays so; a later close does not replace a pair that waits.
//! Of those whose pulse is out the newest becomes active, and older ones go. A pulse that never comes
//! takes the pair that waits for it with it, and nobody is to blame.
//!
//! The first seed follows from the network's id: the founders' keys are in it.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::beacon::SIGNATURE_BYTES;
use perturb_types::encode::{self, Domain};
use perturb_types::vrf::{Draw, Purpose};
use perturb_types::{Digest, Hotkey, Lot, NetworkId, RoundId, RoundKey, RoundPair};

use crate::draw::{PulseRow, drawing_round};
use crate::execute::{Executor, TxError, invalid};
use crate::state::{self, KeyRow, SEEDS, key_key, pulse_key, round_key_epoch, round_key_key, round_keys_prefix};
use crate::store::{StateStore, StoreError};
use crate::validators::ValidatorSet;

/// A seed that waits for its pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WaitingSeed {
    /// Of which epoch.
    pub epoch: u64,
    /// The round of the beacon that gives it.
    pub pulse: u64,
}

/// The seeds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SeedsRow {
    /// The epoch whose seed and round keys are active.
    pub epoch: u64,
    /// Its seed.
    pub seed: Digest,
    /// Those that wait, by rising epoch.
    pub waiting: Vec<WaitingSeed>,
}

impl SeedsRow {
    /// Where a network begins.
    #[must_use]
    pub fn first(network: &NetworkId) -> Self {
        Self { epoch: 0, seed: encode::digest(Domain::Seed, network, &[]), waiting: Vec::new() }
    }
}

/// The seed that a pulse gives an epoch.
#[must_use]
pub fn seed(network: &NetworkId, signature: &[u8; SIGNATURE_BYTES], epoch: u64) -> Digest {
    encode::digest_of(Domain::Seed, network, &(signature, epoch))
}

/// The lots of a round.
#[derive(Clone, Copy, Debug)]
pub struct Lots {
    /// Draws the miners.
    pub miners: Lot,
    /// Draws the images.
    pub images: Lot,
    /// What `images` says.
    pub value: [u8; 32],
}

impl Lots {
    /// Draws for a round that follows one that was opened.
    #[must_use]
    pub fn draw(pair: &RoundPair, network: &NetworkId, seed: Digest, round: &RoundId) -> Self {
        Self::draw_for(pair, network, seed, round, round.seq)
    }

    /// Draws for a round whose miners the lot of another number draws ([`state::SeqRow::miners_number`]).
    #[must_use]
    pub fn draw_for(pair: &RoundPair, network: &NetworkId, seed: Digest, round: &RoundId, miners: u64) -> Self {
        let of = |purpose, seq| Draw { purpose, challenge: round.challenge, seed, seq };
        let (_, miners) = pair.draw(network, &of(Purpose::Miners, miners));
        let (value, images) = pair.draw(network, &of(Purpose::Image, round.seq));
        Self { miners, images, value }
    }
}

impl<S: StateStore + ?Sized> Executor<'_, S> {
    fn seeds(&self) -> Result<SeedsRow, StoreError> {
        self.state.must(SEEDS)
    }

    /// Fixes the round keys of an epoch that begins, and the pulse that gives its seed.
    pub(crate) fn begin_seed(&mut self, epoch: u64, set: &ValidatorSet) -> Result<(), TxError> {
        for member in set.iter() {
            let row: Option<KeyRow> = self.state.get(&key_key(&member.hotkey))?;
            if let Some(row) = row {
                self.state.put(round_key_key(epoch, &member.hotkey), &row.round_key);
            }
        }
        let mut seeds = self.seeds()?;
        let pulse = drawing_round(self.beacon(), &self.parameters().draws, &self.draws()?, self.time_ms());
        let key = pulse_key(pulse);
        if !self.state.has(&key)? {
            // No rounds wait for it, or none yet: the last height lies before the first.
            self.state.put(key, &PulseRow { first: self.height(), last: 0 });
        }
        seeds.waiting.push(WaitingSeed { epoch, pulse });
        self.state.put(SEEDS.to_vec(), &seeds);
        Ok(())
    }

    /// A pulse is in a block: the newest seed that waits for it becomes active.
    pub(crate) fn take_seed(&mut self, pulse: u64, signature: &[u8; SIGNATURE_BYTES]) -> Result<(), TxError> {
        let mut seeds = self.seeds()?;
        let Some(epoch) = seeds.waiting.iter().filter(|w| w.pulse == pulse).map(|w| w.epoch).max() else {
            return Ok(());
        };
        (seeds.epoch, seeds.seed) = (epoch, seed(&self.network(), signature, epoch));
        seeds.waiting.retain(|w| w.epoch > epoch);
        self.keep_seeds(&seeds)
    }

    /// Whether the open epoch's own seed has not come: an older one is active still.
    pub(crate) fn seed_is_late(&self) -> Result<bool, StoreError> {
        Ok(self.seeds()?.epoch < self.frame.meta.epoch)
    }

    /// A pulse is given up.
    pub(crate) fn lose_seed(&mut self, pulse: u64) -> Result<(), TxError> {
        let mut seeds = self.seeds()?;
        if seeds.waiting.iter().any(|w| w.pulse == pulse) {
            seeds.waiting.retain(|w| w.pulse != pulse);
            self.keep_seeds(&seeds)?;
        }
        Ok(())
    }

    /// Stores the seeds, and drops the round keys that no seed goes with.
    fn keep_seeds(&mut self, seeds: &SeedsRow) -> Result<(), TxError> {
        self.state.put(SEEDS.to_vec(), seeds);
        let used = |epoch| epoch == seeds.epoch || seeds.waiting.iter().any(|w| w.epoch == epoch);
        Ok(self.state.retain(round_keys_prefix(), |key| round_key_epoch(key).is_some_and(used))?)
    }

    /// What a lot of a round says, drawn with this key and seed, for this purpose and number.
    pub(crate) fn open_lot(
        &self,
        round: &RoundId,
        (purpose, seq): (Purpose, u64),
        (key, seed): (&RoundKey, Digest),
        lot: &Lot,
    ) -> Result<[u8; 32], TxError> {
        let draw = Draw { purpose, challenge: round.challenge, seed, seq };
        let what = match purpose {
            Purpose::Miners => "miners",
            Purpose::Image => "images",
        };
        let value = key.open(&self.network(), &draw, lot);
        value.ok_or_else(|| TxError::Invalid(format!("round {round}: the lot of its {what} is none of its key")))
    }

    /// Key and seed with which a validator draws in an epoch, which has to be the active one.
    pub(crate) fn draws_with(&self, what: &str, epoch: u64, validator: &Hotkey) -> Result<(RoundKey, Digest), TxError> {
        let seeds = self.seeds()?;
        if epoch > seeds.epoch {
            return Err(TxError::Early(format!("{what}: the seed of epoch {epoch} is not known yet")));
        }
        if epoch < seeds.epoch {
            return invalid(format!("{what}: epoch {} draws now, not {epoch}", seeds.epoch));
        }
        let key: Option<RoundKey> = self.state.get(&round_key_key(epoch, validator))?;
        match key {
            Some(key) => Ok((key, seeds.seed)),
            None => Err(TxError::Early(format!("{what}: it has no round key in epoch {epoch}"))),
        }
    }
}

/// The seeds of an agreed state; none before the first block.
///
/// # Errors
/// The store cannot be read.
pub fn seeds<S: StateStore + ?Sized>(store: &S) -> Result<Option<SeedsRow>, StoreError> {
    state::read(store, SEEDS)
}

/// Key and seed with which a validator draws now, and the epoch that they are of.
///
/// # Errors
/// The store cannot be read.
pub fn drawing<S: StateStore + ?Sized>(
    store: &S,
    validator: &Hotkey,
) -> Result<Option<(u64, RoundKey, Digest)>, StoreError> {
    let Some(seeds) = seeds(store)? else { return Ok(None) };
    let key: Option<RoundKey> = state::read(store, &round_key_key(seeds.epoch, validator))?;
    Ok(key.map(|key| (seeds.epoch, key, seeds.seed)))
}
