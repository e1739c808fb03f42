//! A light client: from a network's beginning, or one trusted header, to any certified header,
//! without the blocks between.
//!
//! A header names the set that certifies it and the set that certifies the next. Where the two
//! differ, a [`Handover`] shows the header, its certificate by the old set, and the new set in full,
//! which hashes to what the header says. So a reader who has the founders (their set follows from
//! the genesis file, which hashes to the network id) and every handover since knows the set of each
//! height, and checks any header with one certificate.
//!
//! What this cannot see: a former set that signs a second history behind its own handover. Two
//! certified headers of one height show that; ask more than one node.

use borsh::{BorshDeserialize, BorshSerialize};
use perturb_types::{Digest, NetworkId};

use crate::block::{Header, PROTOCOL};
use crate::certificate::{Certificate, CertificateError};
use crate::genesis::{Genesis, GenesisError};
use crate::validators::{SetError, ValidatorSet};

/// A certified header after which another set certifies, with that set.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Handover {
    /// The last header of the old set.
    pub header: Header,
    /// Its certificate.
    pub certificate: Certificate,
    /// The set of the next height.
    pub next: ValidatorSet,
}

/// Why a header or a handover is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LightError {
    /// Another network's header.
    #[error("header {height} belongs to network {found}, the trusted network is {expected}")]
    Network {
        /// Its height.
        height: u64,
        /// Its network.
        found: NetworkId,
        /// The trusted one.
        expected: NetworkId,
    },
    /// A header of a protocol that this version does not know.
    #[error("header {height} has protocol {found}, this version knows {PROTOCOL}")]
    Protocol {
        /// Its height.
        height: u64,
        /// Its protocol.
        found: u32,
    },
    /// The header given for a trusted height is not the trusted one.
    #[error("header {height} is {found}, the trusted one is {expected}")]
    Anchor {
        /// The trusted height.
        height: u64,
        /// The given header's digest.
        found: Digest,
        /// The trusted digest.
        expected: Digest,
    },
    /// A header from before what is trusted.
    #[error("header {height} lies before {from}, the first height whose set is known")]
    Before {
        /// Its height.
        height: u64,
        /// The first height of the known set.
        from: u64,
    },
    /// A header of a set that no handover led to.
    #[error("header {height} names the set {found}, the set known for it is {expected}: a handover is missing")]
    Set {
        /// Its height.
        height: u64,
        /// The hash in the header.
        found: Digest,
        /// The known set's.
        expected: Digest,
    },
    /// A next set that is not the one the header names.
    #[error("header {height} hands over to {expected}, the set given is {found}")]
    Next {
        /// The header's height.
        height: u64,
        /// Hash of the set given.
        found: Digest,
        /// The hash in the header.
        expected: Digest,
    },
    /// A list of members that is no set.
    #[error("the set after header {height}: {error}")]
    Members {
        /// The header's height.
        height: u64,
        /// What is wrong with it.
        error: SetError,
    },
    /// A certificate of something else.
    #[error("header {height} is {header}, the certificate is for {certificate}")]
    Other {
        /// The header's height.
        height: u64,
        /// The header's digest.
        header: Digest,
        /// What the certificate names.
        certificate: Digest,
    },
    /// A certificate that does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl LightError {
    /// Whether the data may be in order and only leads to no trusted point; everything else is
    /// proved wrong.
    pub fn is_untrusted(&self) -> bool {
        matches!(
            self,
            Self::Network { .. } | Self::Protocol { .. } | Self::Anchor { .. } | Self::Before { .. } | Self::Set { .. }
        )
    }
}

/// A network, and the set that certifies it from some height on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    network: NetworkId,
    from: u64,
    set: ValidatorSet,
    hash: Digest,
}

impl Trust {
    /// Trust in a genesis file: compare its network id with the one you know.
    ///
    /// # Errors
    /// The file makes no network.
    pub fn genesis(genesis: &Genesis) -> Result<Self, GenesisError> {
        genesis.validate()?;
        let (network, set) = (genesis.network_id(), genesis.founders()?);
        Ok(Self { network, from: 1, hash: set.hash(&network), set })
    }

    /// Trust in one header of a network, by its height and digest; `next` is the set after it.
    ///
    /// # Errors
    /// The header is not the trusted one, or the set not the one it names.
    pub fn header(
        network: NetworkId,
        (height, digest): (u64, Digest),
        header: &Header,
        next: ValidatorSet,
    ) -> Result<Self, LightError> {
        let found = header.digest(&network);
        if header.height != height || found != digest {
            return Err(LightError::Anchor { height, found, expected: digest });
        }
        named(&network, header)?;
        let hash = successor(&network, header, &next)?;
        // A header at the end of the numbers has no successor.
        Ok(Self { network, from: height.saturating_add(1), set: next, hash })
    }

    /// Trust that was kept: the set that an earlier trust had come to. Nothing of it is checked again
    /// but that it is a set.
    ///
    /// # Errors
    /// A list of members that is no set.
    pub fn kept(network: NetworkId, from: u64, set: ValidatorSet) -> Result<Self, SetError> {
        set.validate()?;
        Ok(Self { network, from, hash: set.hash(&network), set })
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The first height that the set certifies.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// The set.
    pub fn set(&self) -> &ValidatorSet {
        &self.set
    }

    /// Checks that the set certifies a header; returns the power that signed.
    ///
    /// # Errors
    /// See [`LightError`].
    pub fn check(&self, header: &Header, certificate: &Certificate) -> Result<u64, LightError> {
        let height = header.height;
        named(&self.network, header)?;
        if height < self.from {
            return Err(LightError::Before { height, from: self.from });
        }
        if header.validators != self.hash {
            return Err(LightError::Set { height, found: header.validators, expected: self.hash });
        }
        let digest = header.digest(&self.network);
        if certificate.digest != digest || certificate.height != height {
            return Err(LightError::Other { height, header: digest, certificate: certificate.digest });
        }
        Ok(certificate.verify(&self.network, &self.set)?)
    }

    /// Follows a handover to the next set.
    ///
    /// # Errors
    /// See [`LightError`]; nothing changes then.
    pub fn advance(&mut self, handover: &Handover) -> Result<(), LightError> {
        let header = &handover.header;
        self.check(header, &handover.certificate)?;
        let hash = successor(&self.network, header, &handover.next)?;
        self.from = header.height.saturating_add(1);
        self.set = handover.next.clone();
        self.hash = hash;
        Ok(())
    }
}

fn named(network: &NetworkId, header: &Header) -> Result<(), LightError> {
    let height = header.height;
    if header.network != *network {
        return Err(LightError::Network { height, found: header.network, expected: *network });
    }
    if header.protocol != PROTOCOL {
        return Err(LightError::Protocol { height, found: header.protocol });
    }
    Ok(())
}

/// The hash of the set after a header, which has to be the one it names.
fn successor(network: &NetworkId, header: &Header, next: &ValidatorSet) -> Result<Digest, LightError> {
    let (height, found) = (header.height, next.hash(network));
    if found != header.next_validators {
        return Err(LightError::Next { height, found, expected: header.next_validators });
    }
    next.validate().map_err(|error| LightError::Members { height, error })?;
    Ok(found)
}
