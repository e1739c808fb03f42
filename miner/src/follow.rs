//! The validator sets, as a miner follows them.
//!
//! A miner keeps no state: it knows the founders from its genesis file, or the set that it came to last,
//! and takes every later set from a handover that the set before certified. Handovers come from
//! validators, and none of them has to be believed. What was come to is kept in a file, so that a
//! restart needs only what changed since.
//!
//! What this cannot see: a former set that signs a second history behind its own handover
//! ([`perturb_ledger::light`]). A miner that was led there works for nobody until the file is removed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_ledger::genesis::GenesisError;
use perturb_ledger::light::Trust;
use perturb_ledger::{Genesis, Handover, ValidatorSet};
use perturb_types::{NetworkId, encode};

/// Bytes of the file: 256 members of 72 bytes each, and room.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// The file's content.
#[derive(BorshSerialize, BorshDeserialize)]
struct Kept {
    network: NetworkId,
    from: u64,
    set: ValidatorSet,
}

/// The newest known set of a network.
pub struct Follower {
    trust: Mutex<Trust>,
    file: Option<PathBuf>,
}

impl Follower {
    /// Begins where the file ends, or with the founders where there is none of this network.
    ///
    /// # Errors
    /// The genesis makes no network.
    pub fn open(genesis: &Genesis, file: Option<PathBuf>) -> Result<Self, GenesisError> {
        let founders = Trust::genesis(genesis)?;
        let trust = file.as_deref().and_then(|path| read(path, &founders)).unwrap_or(founders);
        Ok(Self { trust: Mutex::new(trust), file })
    }

    /// The newest known set.
    pub fn trust(&self) -> Trust {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows handovers as far as they hold; returns the height from which on more are needed.
    pub fn follow(&self, handovers: &[Handover]) -> u64 {
        let mut trust = self.trust();
        let began = trust.from();
        for handover in handovers.iter().filter(|h| h.header.height >= began) {
            if let Err(error) = trust.advance(handover) {
                tracing::info!(%error, "a handover is not followed");
                break;
            }
        }
        let from = trust.from();
        if from > began {
            self.keep(&trust);
            let mut newest = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
            // Another validator may have led further meanwhile.
            if newest.from() < from {
                *newest = trust;
            }
        }
        self.trust().from()
    }

    fn keep(&self, trust: &Trust) {
        let Some(path) = &self.file else { return };
        let kept = Kept { network: trust.network(), from: trust.from(), set: trust.set().clone() };
        // What cannot be kept is followed again after a restart.
        if let Err(error) = write(path, &encode::encode(&kept)) {
            tracing::warn!(path = %path.display(), %error, "the validator set cannot be kept");
        }
    }
}

/// Whole under another name first: a crash leaves the file before or the new one.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

fn read(path: &Path, founders: &Trust) -> Option<Trust> {
    let bytes = fs::read(path).ok()?;
    let kept: Result<Kept, _> = encode::decode("validator set", &bytes, MAX_KEPT_BYTES);
    match kept {
        Ok(kept) if kept.network == founders.network() && kept.from >= founders.from() => {
            Trust::kept(kept.network, kept.from, kept.set).ok()
        }
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "begins with the founders again");
            None
        }
    }
}
