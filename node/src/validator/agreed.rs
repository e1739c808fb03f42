//! The newest agreed state, as the validator's services read it.

use perturb_ledger::images::{MAX_SKIPS, UnrevealedRow};
use perturb_ledger::{Genesis, StoreError, query, seeds};
use perturb_storage::Database;
use perturb_types::{ChallengeId, Hotkey};

use super::lots::Drawing;

/// What a round needs to know.
pub struct RoundState {
    /// The epoch in the making.
    pub epoch: u64,
    /// The next number that the agreed state expects of this validator.
    pub next_seq: u64,
    /// Whether this validator may open no further round in this epoch.
    pub at_cap: bool,
    /// Whether it may skip another round in this epoch.
    pub may_skip: bool,
    /// Whether its last round is open.
    pub open: bool,
    /// The round that ran out and whose images it has not shown.
    pub unrevealed: Option<UnrevealedRow>,
    /// With what it draws; `None` until the seed of an epoch is known in which it has a round key.
    pub drawing: Option<Drawing>,
    /// Whether it is in the set: the rounds of others are in no block, and their numbers would be lost.
    pub member: bool,
    /// Miners that could be asked: registered, without a permit.
    pub miners: usize,
}

/// Reads the agreed state.
pub struct Agreed {
    database: Database,
    genesis: Genesis,
}

impl Agreed {
    /// The state in a database.
    pub fn new(database: Database, genesis: Genesis) -> Self {
        Self { database, genesis }
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
    pub fn round_state(&self, challenge: ChallengeId, validator: &Hotkey) -> Result<RoundState, StoreError> {
        let db = &self.database;
        let meta = query::meta(db)?;
        let row = query::sequence(db, challenge, validator)?;
        let (opened, skipped) = if row.epoch == meta.epoch { (row.opened, row.skipped) } else { (0, 0) };
        let drawing = seeds::drawing(db, validator)?;
        Ok(RoundState {
            epoch: meta.epoch,
            next_seq: row.next,
            at_cap: opened >= query::parameters(db)?.max_rounds_per_epoch,
            may_skip: skipped < MAX_SKIPS,
            open: row.open,
            unrevealed: query::unrevealed(db, challenge, validator)?,
            drawing: drawing.map(|(epoch, key, seed)| Drawing { epoch, seed, key, miners: row.miners_number() }),
            member: query::validators(db)?.by_hotkey(validator).is_some(),
            miners: query::snapshot(db)?.neurons.iter().filter(|n| !n.permit).count(),
        })
    }
}
