//! A proof in one file, which verifies without any node, years later.
//!
//! ```text
//! magic     14 bytes   "perturb-bundle"
//! version   u16        1, little endian
//! body                 borsh of Bundle
//! checksum  32 bytes   SHA-256 of everything before
//! ```
//!
//! The checksum finds damage: no byte can change unnoticed. The proofs find lies: whoever writes a
//! new checksum still cannot show what no quorum certified. What remains free to the writer is which
//! quorum's signatures to keep, and what to ask about; both are shown when a bundle is verified.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_ledger::proofs::StateProof;
use perturb_ledger::{Certificate, Handover, Header, Inclusion};
use perturb_types::encode::{self, DecodeError};
use perturb_types::{ChallengeId, Digest, Hotkey, NetworkId, RoundId};

use crate::error::AuditError;
use crate::history::{Checked, History, Start};
use crate::round::{self, Round};
use crate::score::{self, Standing};

/// First bytes of a bundle.
pub const MAGIC: &[u8; 14] = b"perturb-bundle";

/// The version of the format.
pub const VERSION: u16 = 1;

/// Bytes of a bundle: handovers of years, and the largest record.
pub const MAX_BYTES: usize = 256 << 20;

/// Bytes before the body.
const HEAD: usize = MAGIC.len() + 2;

/// What a bundle shows.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum Claim {
    /// A certified header (tag 0).
    Root {
        /// The header.
        header: Box<Header>,
        /// Its certificate.
        certificate: Certificate,
    },
    /// What an epoch came to for a miner, or that it is not in the epoch's record (tag 1).
    Score {
        /// A header whose state has the record.
        header: Box<Header>,
        /// Its certificate.
        certificate: Certificate,
        /// The epoch.
        epoch: u64,
        /// The challenge.
        challenge: ChallengeId,
        /// The miner.
        miner: Hotkey,
        /// The epoch's record, or that there is none.
        record: Box<StateProof>,
    },
    /// A round in its blocks (tag 2).
    Round {
        /// The round.
        round: RoundId,
        /// Its opening.
        opened: Box<Inclusion>,
        /// What its miners are bound to.
        bound: Option<Box<Inclusion>>,
        /// Its result.
        closed: Option<Box<Inclusion>>,
    },
}

/// A claim with everything that leads to it from a point the reader may trust.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct Bundle {
    /// The network.
    pub network: NetworkId,
    /// The first known set.
    pub start: Start,
    /// Every handover from there to the claim's highest header.
    pub handovers: Vec<Handover>,
    /// What is claimed.
    pub claim: Claim,
}

/// What a reader knows from elsewhere: the network, and perhaps one of its headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The network id.
    pub network: Option<NetworkId>,
    /// Height and digest of a trusted header.
    pub point: Option<(u64, Digest)>,
}

/// What a verified bundle shows.
#[derive(Clone, Debug)]
pub enum Finding {
    /// A certified header.
    Root(Box<Checked>),
    /// What an epoch came to for a miner.
    Score {
        /// The header whose state shows it.
        header: Box<Checked>,
        /// The epoch.
        epoch: u64,
        /// The challenge.
        challenge: ChallengeId,
        /// The miner.
        miner: Hotkey,
        /// What it came to.
        standing: Box<Standing>,
    },
    /// A round.
    Round(Box<Round>),
}

impl Bundle {
    /// A claim with the part of a history that leads to it.
    pub fn new(history: &History, claim: Claim) -> Self {
        let handovers = history.until(claim.top()).to_vec();
        Self { network: history.network(), start: history.start().clone(), handovers, claim }
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend(encode::encode(self));
        let checksum = Digest::of(&out);
        out.extend_from_slice(&checksum.0);
        out
    }

    /// Reads a file's bytes; nothing in them is verified but the checksum.
    ///
    /// # Errors
    /// No bundle, another version, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuditError> {
        let wrong = |why: String| AuditError::invalid("bundle", why);
        if bytes.len() > MAX_BYTES {
            return Err(wrong(format!("{} bytes, at most {MAX_BYTES} are allowed", bytes.len())));
        }
        let Some((content, checksum)) = bytes.split_last_chunk::<32>() else {
            return Err(wrong(format!("only {} bytes", bytes.len())));
        };
        let Some((head, body)) = content.split_at_checked(HEAD) else {
            return Err(wrong(format!("only {} bytes", bytes.len())));
        };
        let Some(version) = head.strip_prefix(MAGIC.as_slice()) else {
            return Err(wrong("it does not begin like one".into()));
        };
        if version != VERSION.to_le_bytes() {
            return Err(wrong(format!("version {}, this program knows {VERSION}", hex::encode(version))));
        }
        if Digest::of(content).0 != *checksum {
            return Err(wrong("its checksum does not follow from its content: it was changed".into()));
        }
        encode::decode("bundle", body, MAX_BYTES).map_err(|e: DecodeError| wrong(e.to_string()))
    }

    /// Verifies everything in it, from its own start to its claim.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(&self) -> Result<(History, Finding), AuditError> {
        let history = History::new(&self.network, self.start.clone(), self.handovers.clone())?;
        if history.until(self.claim.top()).len() != self.handovers.len() {
            return Err(AuditError::invalid("bundle", "handovers that lead beyond the claim"));
        }
        let finding = self.claim.verify(&history)?;
        Ok((history, finding))
    }

    /// Whether its start is a point that the reader knows.
    ///
    /// # Errors
    /// [`AuditError::Untrusted`], with what to compare.
    pub fn rests_on(&self, known: &Known, history: &History) -> Result<(), AuditError> {
        let network = self.network;
        let untrusted = |why: String| Err(AuditError::Untrusted(why));
        match known.network {
            None => return untrusted(format!("nothing to trust was given: it claims network {network} (--network)")),
            Some(id) if id != network => return untrusted(format!("it is of network {network}, not of {id}")),
            Some(_) => {}
        }
        match (&self.start, known.point) {
            (Start::Genesis(_), _) => Ok(()),
            (Start::Header { .. }, Some(point)) if point == history.point() => Ok(()),
            (Start::Header { .. }, _) => {
                let (height, digest) = history.point();
                untrusted(format!("it begins at header {height}, digest {digest}: confirm it with --trust"))
            }
        }
    }
}

impl Claim {
    /// The highest header it needs.
    fn top(&self) -> u64 {
        match self {
            Self::Root { header, .. } | Self::Score { header, .. } => header.height,
            Self::Round { opened, bound, closed, .. } => {
                let later = [bound, closed].into_iter().flatten().map(|inclusion| inclusion.header.height);
                later.fold(opened.header.height, u64::max)
            }
        }
    }

    fn verify(&self, history: &History) -> Result<Finding, AuditError> {
        match self {
            Self::Root { header, certificate } => {
                let checked = history.check(header.as_ref().clone(), Some(certificate.clone()))?;
                certified(&checked).map(|()| Finding::Root(Box::new(checked)))
            }
            Self::Score { header, certificate, epoch, challenge, miner, record } => {
                let checked = history.check(header.as_ref().clone(), Some(certificate.clone()))?;
                certified(&checked)?;
                let standing = score::standing(&checked.header, *epoch, *challenge, miner, record)?;
                let (epoch, challenge, miner) = (*epoch, *challenge, *miner);
                Ok(Finding::Score { header: Box::new(checked), epoch, challenge, miner, standing: Box::new(standing) })
            }
            Self::Round { round, opened, bound, closed } => {
                let found = round::check(history, round, opened, bound.as_deref(), closed.as_deref())?;
                Ok(Finding::Round(Box::new(found)))
            }
        }
    }
}

/// The trusted header itself passes without its certificate; in a bundle nothing goes unchecked.
fn certified(checked: &Checked) -> Result<(), AuditError> {
    if checked.power.1 == 0 {
        let what = format!("header {}", checked.header.height);
        return Err(AuditError::invalid(what, "it is the bundle's start: nothing certifies it"));
    }
    Ok(())
}
