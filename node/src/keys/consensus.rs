//! The consensus keys of a data folder: the one in use, and those before and after it.
//!
//! ```text
//! DATA_DIR/consensus-key            the first one, made on first use
//! DATA_DIR/consensus-key-HEX16      further ones, by the beginning of the public key
//! DATA_DIR/signing-guard[-HEX16]    what each of them signed last
//! DATA_DIR/delegation.json          the delegation to the next one (`super::delegation`)
//! ```
//!
//! Which one signs is agreed: the one that the validator set names for this hotkey. A key is made
//! together with its guard, and the two stay together for ever: a retired key's guard still knows what
//! the key signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use perturb_ledger::{StateStore, StoreError, query};
use perturb_storage::{Database, SigningGuard};
use perturb_types::{ConsensusKey, ConsensusPair, Hotkey, RoundKey, RoundPair};

use super::{KeyError, random_seed, read_or_make, read_seed, write_secret};

/// Consensus keys in one folder: nobody rotates that often without clearing up.
pub const MAX_KEYS: usize = 16;

const FIRST: &str = "consensus-key";

/// The first consensus key of a data folder, made on first use.
///
/// # Errors
/// The file cannot be read or written.
pub fn consensus(data_dir: &Path) -> Result<ConsensusPair, KeyError> {
    read_or_make(&data_dir.join(FIRST)).map(|s| ConsensusPair::from_seed(&s))
}

fn rotated(data_dir: &Path, key: &ConsensusKey) -> PathBuf {
    data_dir.join(format!("{FIRST}-{}", perturb_storage::key_tag(key)))
}

/// All consensus keys of a data folder; there is at least one.
#[derive(Clone, Debug)]
pub struct Keyring {
    first: ConsensusPair,
    others: Vec<ConsensusPair>,
}

impl Keyring {
    /// Reads the keys; the first one is made on first use.
    ///
    /// # Errors
    /// A file that cannot be read, that others can read, or that is not named after its key; too many.
    pub fn open(data_dir: &Path) -> Result<Self, KeyError> {
        let first = consensus(data_dir)?;
        let folder = |e| KeyError::Folder(data_dir.into(), e);
        let mut others = Vec::new();
        for entry in std::fs::read_dir(data_dir).map_err(folder)? {
            let path = entry.map_err(folder)?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if !name.strip_prefix(FIRST).is_some_and(|rest| rest.starts_with('-')) {
                continue;
            }
            let pair = ConsensusPair::from_seed(&*read_seed(&path)?);
            if rotated(data_dir, &pair.public()) != path {
                let why = format!("it holds consensus key {}, not the one of its name", pair.public());
                return Err(KeyError::Folder(path, std::io::Error::other(why)));
            }
            others.push(pair);
            if others.len() >= MAX_KEYS {
                return Err(KeyError::TooMany(data_dir.into(), others.len() + 1));
            }
        }
        others.sort_by_key(ConsensusPair::public);
        Ok(Self { first, others })
    }

    /// All of them, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &ConsensusPair> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The pair of a public key.
    pub fn get(&self, key: &ConsensusKey) -> Option<&ConsensusPair> {
        self.iter().find(|pair| pair.public() == *key)
    }

    /// The one that signs for a hotkey at the height after the newest block: that of the validator set;
    /// for who is no member the registered one; for who never was, the first.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn signer<S: StateStore + ?Sized>(&self, store: &S, hotkey: &Hotkey) -> Result<&ConsensusPair, StoreError> {
        let set = query::validators(store)?;
        if let Some(pair) = set.by_hotkey(hotkey).and_then(|member| self.get(&member.key)) {
            return Ok(pair);
        }
        let registered = query::registered_key(store, hotkey)?;
        Ok(registered.and_then(|row| self.get(&row.key)).unwrap_or(&self.first))
    }
}

/// Signs for a hotkey with the consensus key that the newest agreed state names.
#[derive(Clone)]
pub struct Signer {
    keys: Arc<Keyring>,
    hotkey: Hotkey,
    database: Database,
}

impl Signer {
    /// The signer of a hotkey, with the keys of its data folder.
    pub fn new(keys: Arc<Keyring>, hotkey: Hotkey, database: Database) -> Self {
        Self { keys, hotkey, database }
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn pair(&self) -> Result<ConsensusPair, StoreError> {
        self.keys.signer(&self.database, &self.hotkey).cloned()
    }

    /// The pair of a round key.
    pub fn round_pair(&self, key: &RoundKey) -> Option<RoundPair> {
        self.keys.iter().map(RoundPair::of).find(|pair| pair.public() == *key)
    }

    /// All keys.
    pub fn keys(&self) -> &Keyring {
        &self.keys
    }
}

/// Makes a further key of a data folder, its guard first: a key without one would have to be refused.
///
/// # Errors
/// Too many keys, or the disk.
pub fn make_next(data_dir: &Path) -> color_eyre::eyre::Result<ConsensusPair> {
    let keys = Keyring::open(data_dir)?;
    if keys.others.len() + 1 >= MAX_KEYS {
        return Err(KeyError::TooMany(data_dir.into(), keys.others.len() + 1).into());
    }
    let seed = random_seed();
    let pair = ConsensusPair::from_seed(&seed);
    SigningGuard::prepare(data_dir, pair.public())?;
    write_secret(&rotated(data_dir, &pair.public()), &seed)?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_further_key_is_found_again_with_its_guard_and_the_first_stays_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = consensus(dir.path()).unwrap().public();
        let next = make_next(dir.path()).unwrap().public();
        let keys = Keyring::open(dir.path()).unwrap();
        assert_eq!(keys.iter().map(ConsensusPair::public).collect::<Vec<_>>(), [first, next]);
        let guard = dir.path().join(format!("signing-guard-{}", perturb_storage::key_tag(&next)));
        assert!(guard.exists());
    }

    #[test]
    fn a_key_under_another_ones_name_is_refused_and_so_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        write_secret(&dir.path().join("consensus-key-0011223344556677"), &[9; 32]).unwrap();
        let e = Keyring::open(dir.path()).unwrap_err().to_string();
        assert!(e.contains("consensus-key-0011223344556677"), "{e}");
        std::fs::remove_file(dir.path().join("consensus-key-0011223344556677")).unwrap();
        for _ in 1..MAX_KEYS {
            make_next(dir.path()).unwrap();
        }
        assert!(make_next(dir.path()).unwrap_err().to_string().contains("16 consensus keys"));
        assert_eq!(Keyring::open(dir.path()).unwrap().iter().count(), MAX_KEYS);
    }
}
