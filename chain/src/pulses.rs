//! Rounds of the drand beacon that the chain has: the pallet `Drand`, filled by offchain workers.
//!
//! The real chain keeps 216,000 rounds, a week of quicknet's. A round that it skipped is gone there for
//! good: the pallet stores only what is above the last stored. What is read here is a claim until its
//! signature is verified, so that the best block does as well as a finalized one.

use subxt::ext::scale_decode::DecodeAsType;

use crate::read::Reader;
use crate::{ChainClient, ChainError};

/// Rounds asked for at once.
pub const MAX_PULSES: usize = 16;

/// A stored round.
#[derive(Debug, DecodeAsType)]
#[decode_as_type(crate_path = "subxt::ext::scale_decode")]
struct Stored {
    round: u64,
    signature: Vec<u8>,
}

impl ChainClient {
    /// The signatures of those of a beacon's rounds that the best block's state has; the first
    /// [`MAX_PULSES`] are looked up. A runtime without the pallet has none.
    ///
    /// # Errors
    /// The chain is away, or its entry is not what it should be.
    pub async fn pulses(&self, rounds: &[u64]) -> Result<Vec<(u64, Vec<u8>)>, ChainError> {
        let link = self.link().await?;
        let (number, hash) = link.best().await?;
        let reader = Reader::at(link, number, hash).await?;
        let mut out = Vec::new();
        for round in rounds.iter().take(MAX_PULSES) {
            let stored: Option<Stored> = reader.of_pallet("Drand", "Pulses", (*round,)).await?;
            out.extend(stored.filter(|s| s.round == *round).map(|s| (s.round, s.signature)));
        }
        Ok(out)
    }
}
