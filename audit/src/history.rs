//! From a point that the reader trusts to every certified header.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::state::{self, SET};
use perturb_ledger::{Certificate, Genesis, Handover, Header, LightError, Trust, ValidatorSet};
use perturb_types::{Digest, NetworkId};

use crate::error::AuditError;
use crate::source::Ask;

/// Handovers that are followed: one an epoch of 72 minutes for more than ten years.
pub const MAX_HANDOVERS: usize = 100_000;

/// What the reader trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustAnchor {
    /// A genesis file, whose hash is the network id.
    Genesis(Box<Genesis>),
    /// One header of a network, by height and digest.
    Header {
        /// The network.
        network: NetworkId,
        /// The header's height.
        height: u64,
        /// Its digest.
        digest: Digest,
    },
}

impl TrustAnchor {
    /// The network.
    pub fn network(&self) -> NetworkId {
        match self {
            Self::Genesis(genesis) => genesis.network_id(),
            Self::Header { network, .. } => *network,
        }
    }
}

/// The first known set, with what shows it: in full, so that a bundle needs nothing else.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Start {
    /// The genesis (tag 0); it hashes to the network id.
    Genesis(Box<Genesis>),
    /// A trusted header and the set after it (tag 1).
    Header {
        /// The header.
        header: Box<Header>,
        /// The set of the next height, which the header names.
        next: ValidatorSet,
    },
}

impl Start {
    /// The trust that it gives, and the point it rests on, for the reader to compare.
    ///
    /// # Errors
    /// It contradicts itself.
    pub fn trust(&self, network: &NetworkId) -> Result<(Trust, u64, Digest), AuditError> {
        match self {
            Self::Genesis(genesis) => {
                let found = genesis.network_id();
                if found != *network {
                    return Err(LightError::Network { height: 0, found, expected: *network }.into());
                }
                let first = genesis_commit(genesis)?;
                Ok((Trust::genesis(genesis)?, 0, first.digest))
            }
            Self::Header { header, next } => {
                let point = (header.height, header.digest(network));
                Ok((Trust::header(*network, point, header, next.clone())?, point.0, point.1))
            }
        }
    }
}

/// A header that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The header.
    pub header: Header,
    /// Its digest.
    pub digest: Digest,
    /// Its certificate; none for genesis.
    pub certificate: Option<Certificate>,
    /// Power that signed, and all power.
    pub power: (u64, u64),
}

/// Every set since a trusted point, each shown by a handover.
#[derive(Clone, Debug)]
pub struct History {
    start: Start,
    point: (u64, Digest),
    /// The trusts, by rising first height; the first is the start's.
    trusts: Vec<Trust>,
    handovers: Vec<Handover>,
}

impl History {
    /// Follows handovers from a start.
    ///
    /// # Errors
    /// The start contradicts itself, or a handover is not certified by the set before it.
    pub fn new(network: &NetworkId, start: Start, handovers: Vec<Handover>) -> Result<Self, AuditError> {
        let (trust, height, digest) = start.trust(network)?;
        let mut history = Self { start, point: (height, digest), trusts: vec![trust], handovers: Vec::new() };
        handovers.into_iter().try_for_each(|h| history.push(h))?;
        Ok(history)
    }

    fn push(&mut self, handover: Handover) -> Result<(), AuditError> {
        let mut trust = self.newest().clone();
        trust.advance(&handover)?;
        self.trusts.push(trust);
        self.handovers.push(handover);
        Ok(())
    }

    fn newest(&self) -> &Trust {
        // There is always the start's.
        &self.trusts[self.trusts.len() - 1]
    }

    /// Asks a node for everything since the anchor.
    ///
    /// # Errors
    /// The node does not answer, or its answers do not lead on from the anchor.
    pub fn load(anchor: &TrustAnchor, node: Ask<'_>) -> Result<Self, AuditError> {
        let mut history = match anchor {
            TrustAnchor::Genesis(genesis) => {
                Self::new(&genesis.network_id(), Start::Genesis(genesis.clone()), Vec::new())?
            }
            TrustAnchor::Header { network, height, digest } => {
                let (header, _) = node.header(Some(*height))?;
                let found = header.digest(network);
                if found != *digest {
                    return Err(LightError::Anchor { height: *height, found, expected: *digest }.into());
                }
                let next = set_after(node, network, &header)?;
                Self::new(network, Start::Header { header: Box::new(header), next }, Vec::new())?
            }
        };
        history.follow(node)?;
        Ok(history)
    }

    /// The history that another node has from the same start.
    ///
    /// # Errors
    /// As for [`History::load`].
    pub fn of(&self, node: Ask<'_>) -> Result<Self, AuditError> {
        let mut history = Self::new(&self.network(), self.start.clone(), Vec::new())?;
        history.follow(node)?;
        Ok(history)
    }

    fn follow(&mut self, node: Ask<'_>) -> Result<(), AuditError> {
        loop {
            let (handovers, more) = node.handovers(self.newest().from())?;
            let none = handovers.is_empty();
            for handover in handovers {
                self.push(handover)?;
            }
            if !more || none {
                return Ok(());
            }
            if self.handovers.len() > MAX_HANDOVERS {
                return Err(AuditError::Usage(format!(
                    "more than {MAX_HANDOVERS} handovers: begin from a later trusted header (--trust)"
                )));
            }
        }
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.newest().network()
    }

    /// The point everything rests on: height and header's digest.
    pub fn point(&self) -> (u64, Digest) {
        self.point
    }

    /// What shows the first set.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The genesis, where everything rests on one.
    pub fn genesis(&self) -> Option<&Genesis> {
        match &self.start {
            Start::Genesis(genesis) => Some(genesis),
            Start::Header { .. } => None,
        }
    }

    /// The set that certifies a height.
    ///
    /// # Errors
    /// The height is not above the trusted point.
    pub fn at(&self, height: u64) -> Result<&Trust, LightError> {
        let known = self.trusts.partition_point(|t| t.from() <= height);
        let before = || LightError::Before { height, from: self.point.0.saturating_add(1) };
        known.checked_sub(1).and_then(|i| self.trusts.get(i)).ok_or_else(before)
    }

    /// The handovers that lead to a height: those whose headers stand below it.
    pub fn until(&self, height: u64) -> &[Handover] {
        let count = self.handovers.partition_point(|h| h.header.height < height);
        &self.handovers[..count]
    }

    /// Checks a header under its height's set. The trusted header itself needs no certificate.
    ///
    /// # Errors
    /// See [`LightError`].
    pub fn check(&self, header: Header, certificate: Option<Certificate>) -> Result<Checked, AuditError> {
        let (network, height) = (self.network(), header.height);
        let digest = header.digest(&network);
        if (height, digest) == self.point {
            // Genesis has none, whatever somebody gives for it.
            let certificate = certificate.filter(|_| height > 0);
            return Ok(Checked { header, digest, certificate, power: (0, 0) });
        }
        if height == self.point.0 {
            return Err(LightError::Anchor { height, found: digest, expected: self.point.1 }.into());
        }
        let trust = self.at(height)?;
        let Some(given) = &certificate else {
            return Err(AuditError::invalid(format!("header {height}"), "it comes without a certificate"));
        };
        let signed = trust.check(&header, given)?;
        Ok(Checked { header, digest, certificate, power: (signed, trust.set().total()) })
    }

    /// Asks for a header and checks it; `None` for the newest.
    ///
    /// # Errors
    /// No answer, or it does not hold.
    pub fn header(&self, node: Ask<'_>, height: Option<u64>) -> Result<Checked, AuditError> {
        let (header, certificate) = node.header(height)?;
        self.check(header, certificate)
    }
}

/// The set after a trusted header: from the state after it; where the node no longer has that, from
/// the handover that brought it, or from the newest state. Its hash stands in the header, so it does
/// not matter who says it.
fn set_after(node: Ask<'_>, network: &NetworkId, header: &Header) -> Result<ValidatorSet, AuditError> {
    let fits = |set: &ValidatorSet| set.hash(network) == header.next_validators;
    let at = |header: &Header| -> Option<ValidatorSet> {
        let proofs = node.rows(header.height, &header.state_root, &[SET.to_vec()]).ok()?;
        let set = state::parse(SET, proofs.first()?.value.as_ref()?).ok()?;
        fits(&set).then_some(set)
    };
    if let Some(set) = at(header) {
        return Ok(set);
    }
    let mut from = 0;
    while from <= header.height {
        let (handovers, more) = node.handovers(from)?;
        if let Some(handover) = handovers.iter().find(|h| fits(&h.next)) {
            return Ok(handover.next.clone());
        }
        match handovers.last().and_then(|h| h.header.height.checked_add(1)) {
            Some(next) if more && next > from => from = next,
            _ => break,
        }
    }
    let (newest, _) = node.header(None)?;
    let what = || format!("the validator set after header {}", header.height);
    at(&newest).ok_or_else(|| AuditError::NotHeld { node: node.0.name().into(), what: what() })
}
