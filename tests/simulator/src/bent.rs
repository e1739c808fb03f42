//! Rules of the ledger broken on purpose, for everybody alike.
//!
//! Nobody's code is changed. Nodes and referee begin from a number, or read a row, as a ledger with the
//! broken rule would have it; so they agree block by block, and nothing but a rule that the oracle
//! restates from its own words can tell.

use perturb_ledger::genesis::Parameters;
use perturb_ledger::spot::FreshRow;
use perturb_ledger::state::{OpenRow, all_open_prefix, check_prefix, fresh_prefix, parse, round_after, work_prefix};
use perturb_ledger::store::{Row, StoreError};
use perturb_ledger::verdict::{CheckRow, Checked, Finding};
use perturb_ledger::work::WorkRow;
use perturb_ledger::{MemoryStore, StateStore, query};
use perturb_types::encode;
use perturb_types::round::commitment;
use perturb_types::{Digest, Hotkey, RoundId};

use crate::app;

/// A rule of the ledger that is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LedgerBug {
    /// None.
    #[default]
    None,
    /// A result is drawn by a pulse that may be known when it is agreed: the delay of the draws is gone.
    KnownPulse,
    /// A draw ignores the result: it is made of the pulse and the round's name alone, so that whoever
    /// learns the pulse can try results, and who opens a round knows what is drawn of its numbers.
    ResultIgnored,
    /// Who cannot tell counts as if the round held: two thirds of all are needed for a strike, as they
    /// were once, and members that know nothing shield a liar.
    UnknownShields,
    /// One member's word strikes: whatever the others say or are still to say counts as the same.
    OneAccuser,
    /// Who is idle is never dropped: the median from which on it would be is gone.
    IdleStays,
    /// Who did less than the most is idle, where half of the median is enough: whatever is less counts as
    /// nothing.
    OnlyTheBusiest,
    /// A result is taken whose answers nobody was bound to: miners bind themselves to other bytes, and an
    /// open round is read as though it had been to those that its result shows.
    UnboundAnswers,
}

impl LedgerBug {
    /// Changes the numbers that the network begins with.
    pub fn plant(self, parameters: &mut Parameters) {
        match self {
            Self::KnownPulse => parameters.draws.delay_ms = 1,
            Self::IdleStays => parameters.min_work = 0,
            _ => {}
        }
    }

    /// What a miner binds itself to that will show `answer`.
    pub fn bound(self, answer: Digest) -> Digest {
        if self == Self::UnboundAnswers { Digest::of(&answer.0) } else { answer }
    }

    /// A row as it is read by its key.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn value(self, store: &MemoryStore, key: &[u8], row: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        match (self, round_after(all_open_prefix(), key), &row) {
            (Self::UnboundAnswers, Some(round), Some(bytes)) => Ok(Some(shown(store, &round, parse(key, bytes)?)?)),
            _ => Ok(row),
        }
    }

    /// Rows as they are read under a prefix.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn scan(self, store: &MemoryStore, prefix: &[u8], mut rows: Vec<Row>) -> Result<Vec<Row>, StoreError> {
        if self == Self::None {
            return Ok(rows);
        }
        let most = if prefix == work_prefix() { most_rounds(&rows)? } else { 0 };
        for (key, bytes) in &mut rows {
            match self {
                Self::ResultIgnored if prefix == fresh_prefix() => {
                    let row: FreshRow = parse(key, bytes)?;
                    *bytes = encode::encode(&FreshRow { result: Digest([0; 32]), ..row });
                }
                Self::UnknownShields if prefix == check_prefix() => {
                    let mut row: CheckRow = parse(key, bytes)?;
                    let unknown = row.verdicts.values_mut().filter(|v| **v == Checked::Unknown);
                    unknown.for_each(|v| *v = Checked::Holds);
                    *bytes = encode::encode(&row);
                }
                Self::OneAccuser if prefix == check_prefix() => {
                    let mut row: CheckRow = parse(key, bytes)?;
                    if row.verdicts.values().any(|v| matches!(v, Checked::Fails(_))) {
                        let members = query::validators(store)?;
                        row.verdicts = members.iter().map(|m| (m.hotkey, Checked::Fails(Finding::Label))).collect();
                    }
                    *bytes = encode::encode(&row);
                }
                Self::OnlyTheBusiest if prefix == work_prefix() => {
                    let row: WorkRow = parse(key, bytes)?;
                    let rounds = if row.rounds < most { 0 } else { row.rounds };
                    *bytes = encode::encode(&WorkRow { rounds, ..row });
                }
                _ => {}
            }
        }
        Ok(rows)
    }
}

fn most_rounds(rows: &[Row]) -> Result<u64, StoreError> {
    let rounds = rows.iter().map(|(key, bytes)| parse::<WorkRow>(key, bytes).map(|row| row.rounds));
    Ok(rounds.collect::<Result<Vec<u64>, StoreError>>()?.into_iter().max().unwrap_or(0))
}

/// An open round whose miners are bound to what its result will show.
fn shown(store: &MemoryStore, round: &RoundId, row: OpenRow) -> Result<Vec<u8>, StoreError> {
    let Some((header, _)) = store.newest()? else { return Ok(encode::encode(&row)) };
    let commits = row.commits.as_ref().map(|bound| {
        let show = |(i, (miner, bound)): (usize, (&Hotkey, &Option<Digest>))| {
            bound.map(|_| commitment(&header.network, round, miner, &app::answer(round, i)))
        };
        row.miners.iter().zip(bound).enumerate().map(show).collect()
    });
    Ok(encode::encode(&OpenRow { commits, ..row }))
}
