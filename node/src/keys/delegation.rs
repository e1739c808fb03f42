//! A delegation in a file: the statement by which a hotkey delegates to a consensus key, in JSON.
//!
//! The consensus key's half is made where that key is, the hotkey's where the hotkey is: on the same
//! machine, on another one, or by the node itself. A node takes the one that waits in its data folder.

use std::path::{Path, PathBuf};

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::file;
use perturb_ledger::tx::Delegation;
use perturb_types::{ConsensusKey, ConsensusPair, Hotkey, HotkeyPair, NetworkId, RoundKey};
use serde::{Deserialize, Serialize};

/// Bytes of a file: all its fields have lengths of their own.
const MAX_FILE_BYTES: u64 = 4096;

/// A delegation whose hotkey may still have to sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelegationFile {
    /// The network it is for.
    pub network: NetworkId,
    /// Who delegates.
    pub hotkey: Hotkey,
    /// To which key.
    pub key: ConsensusKey,
    /// With which round key.
    pub round_key: RoundKey,
    /// Above every earlier one of the hotkey.
    pub sequence: u64,
    /// The first epoch that the key is to sign in; as soon as possible where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_epoch: Option<u64>,
    /// The consensus key's signature, hex of 64 bytes.
    pub acceptance: String,
    /// The round key's signature, hex of 64 bytes.
    pub possession: String,
    /// The hotkey's signature, hex of 64 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

fn signature(text: &str) -> Option<[u8; 64]> {
    let mut out = [0u8; 64];
    hex::decode_to_slice(text, &mut out).ok()?;
    Some(out)
}

impl DelegationFile {
    /// The consensus key's half.
    pub fn accept(
        network: NetworkId,
        hotkey: Hotkey,
        key: &ConsensusPair,
        sequence: u64,
        from_epoch: Option<u64>,
    ) -> Self {
        let d = Delegation::accept(&network, hotkey, key, sequence);
        let (acceptance, possession) = (hex::encode(d.acceptance), hex::encode(d.possession));
        let (key, round_key) = (d.key, d.round_key);
        Self { network, hotkey, key, round_key, sequence, from_epoch, acceptance, possession, signature: None }
    }

    /// Adds the hotkey's half.
    ///
    /// # Errors
    /// The hotkey is another one, or the consensus key's half does not verify.
    pub fn endorse(&mut self, hotkey: &HotkeyPair) -> Result<()> {
        if hotkey.hotkey() != self.hotkey {
            bail!("the delegation is for hotkey {}, and this is {}", self.hotkey, hotkey.hotkey());
        }
        let half = self.halves()?;
        if !half.is_accepted(&self.network) {
            bail!("the signature of the consensus key or its round key does not verify");
        }
        self.signature = Some(hex::encode(half.endorse(&self.network, hotkey).signature));
        Ok(())
    }

    fn halves(&self) -> Result<Delegation> {
        let field = |text: &str, what| signature(text).ok_or_else(|| eyre!("its {what} is not 64 bytes in hex"));
        Ok(Delegation {
            hotkey: self.hotkey,
            key: self.key,
            round_key: self.round_key,
            sequence: self.sequence,
            signature: match &self.signature {
                Some(text) => field(text, "signature")?,
                None => [0; 64],
            },
            acceptance: field(&self.acceptance, "acceptance")?,
            possession: field(&self.possession, "possession")?,
        })
    }

    /// The delegation, both halves verified; `None` where the hotkey has not signed yet.
    ///
    /// # Errors
    /// A signature that does not verify.
    pub fn verified(&self) -> Result<Option<Delegation>> {
        let d = self.halves()?;
        if !d.is_accepted(&self.network) {
            bail!("the signature of the consensus key or its round key does not verify");
        }
        if self.signature.is_none() {
            return Ok(None);
        }
        if !d.verify(&self.network) {
            bail!("the hotkey's signature does not verify");
        }
        Ok(Some(d))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read or is no delegation.
    pub fn read(path: &Path) -> Result<Self> {
        let named = || format!("delegation file {}", path.display());
        let bytes = file::read(path, MAX_FILE_BYTES).wrap_err_with(named)?;
        serde_json::from_slice(&bytes).wrap_err_with(named)
    }

    /// Writes a new file.
    ///
    /// # Errors
    /// It exists, or cannot be written.
    pub fn create(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        Ok(perturb_wallet::create(path, text.as_bytes())?)
    }
}

/// Where a node looks for the delegation to its next key.
pub fn waiting(data_dir: &Path) -> PathBuf {
    data_dir.join("delegation.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_delegation_is_made_in_two_places_and_nothing_in_it_can_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (hotkey, key) = (HotkeyPair::from_seed(&[1; 32]).unwrap(), ConsensusPair::from_seed(&[2; 32]));
        let request = DelegationFile::accept(NetworkId([3; 32]), hotkey.hotkey(), &key, 7, Some(12));
        assert_eq!(request.verified().unwrap(), None);
        let path = dir.path().join("request");
        request.create(&path).unwrap();
        let mut file = DelegationFile::read(&path).unwrap();
        assert_eq!(file, request);
        assert!(file.endorse(&HotkeyPair::from_seed(&[9; 32]).unwrap()).is_err(), "another hotkey");
        file.endorse(&hotkey).unwrap();
        let d = file.verified().unwrap().unwrap();
        assert!(d.verify(&NetworkId([3; 32])) && d.sequence == 7 && d.key == key.public());
        for changed in [
            DelegationFile { sequence: 8, ..file.clone() },
            DelegationFile { network: NetworkId([4; 32]), ..file.clone() },
            DelegationFile { acceptance: hex::encode([0; 64]), ..file.clone() },
            DelegationFile { signature: Some("12".into()), ..file.clone() },
        ] {
            assert!(changed.verified().is_err());
        }
    }
}
