//! The newest agreed state, as the validator's services read it.

use std::net::IpAddr;

use perturb_challenge::sampling::Candidate;
use perturb_ledger::query::{self, Standing};
use perturb_ledger::{Genesis, StoreError};
use perturb_p2p::{NetworkHandle, PeerInfo};
use perturb_storage::Database;
use perturb_types::{ChallengeId, Hotkey};

/// What a round needs to know.
pub struct RoundState {
    /// The epoch in the making.
    pub epoch: u64,
    /// The next number that the agreed state expects of this validator.
    pub next_seq: u64,
    /// Whether this validator may open no further round now.
    pub at_cap: bool,
    /// Whether it is in the set: the rounds of others are in no block, and their numbers would be lost.
    pub member: bool,
    /// The miners that could be asked: registered, without a permit.
    pub candidates: Vec<Candidate>,
}

/// Reads the agreed state.
pub struct Agreed {
    database: Database,
    genesis: Genesis,
    dev_loopback: bool,
}

impl Agreed {
    /// The state in a database. With `dev_loopback` miners on loopback are no address group.
    pub fn new(database: Database, genesis: Genesis, dev_loopback: bool) -> Self {
        Self { database, genesis, dev_loopback }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The genesis file.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What a round of `validator` needs.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn round_state(
        &self,
        challenge: ChallengeId,
        validator: &Hotkey,
        network: &NetworkHandle,
    ) -> Result<RoundState, StoreError> {
        let meta = query::meta(&self.database)?;
        let row = query::sequence(&self.database, challenge, validator)?;
        let parameters = query::parameters(&self.database)?;
        let opened = if row.epoch == meta.epoch { row.opened } else { 0 };
        let standings = query::standings(&self.database, challenge)?;
        let snapshot = query::snapshot(&self.database)?;
        let candidates = snapshot.neurons.iter().filter(|n| !n.permit).map(|n| Candidate {
            uid: n.uid,
            hotkey: n.hotkey,
            coldkey: n.coldkey,
            ip_group: network.peer_of(&n.hotkey).and_then(|p| self.ip_group(&p)),
            processed: standings.get(&n.hotkey).copied().unwrap_or(Standing::default()).processed,
        });
        Ok(RoundState {
            epoch: meta.epoch,
            next_seq: row.next,
            member: query::validators(&self.database)?.by_hotkey(validator).is_some(),
            at_cap: opened >= parameters.max_rounds_per_epoch || row.open >= parameters.max_open_rounds,
            candidates: candidates.collect(),
        })
    }

    /// The /24 or /48 that a peer comes from.
    fn ip_group(&self, peer: &PeerInfo) -> Option<[u8; 16]> {
        let ip = perturb_p2p::ip_of(&peer.addr)?;
        if self.dev_loopback && ip.is_loopback() {
            return None;
        }
        Some(match ip {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                std::net::Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped().octets()
            }
            IpAddr::V6(v6) => {
                let mut o = v6.octets();
                o[6..].fill(0);
                o
            }
        })
    }
}
