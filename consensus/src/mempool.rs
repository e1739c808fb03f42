//! Transactions that wait for a block.
//!
//! Admission is by the ledger on the newest state: what executes there, or may once others have
//! ([`TxError::is_early`]: a result whose opening is still waiting here), waits; what was used
//! already or can never execute does not. After each commit everything is judged again.
//!
//! Everything is bounded: the whole, and each author's part, so that a flood of one validator
//! cannot crowd out the others. An author is somebody who cannot be made up: keys that no hotkey has
//! registered yet share one part. Own transactions are told again until a block has them.

use std::collections::{BTreeMap, HashMap, HashSet};

use perturb_ledger::execute::TxError;
use perturb_ledger::{Ledger, StateStore, Transaction};
use perturb_types::{Digest, encode};

use crate::Millis;

/// Transactions in all: several blocks' worth.
const MAX_TRANSACTIONS: usize = 8192;

/// Transactions of one author: the rounds of some minutes.
const MAX_PER_AUTHOR: usize = 256;

/// Milliseconds until an own transaction is told again.
const REPEAT_MS: Millis = 2_000;

/// Own transactions told again at one tick.
const REPEATS_PER_TICK: usize = 16;

/// Why a transaction was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nobody's fault: known, used, full, or of another time.
    Ignore(String),
    /// It could never be valid: a forged or malformed one.
    Reject(String),
}

struct Waiting {
    transaction: Transaction,
    digest: Digest,
    author: Digest,
    /// For own ones: when to tell it again.
    repeat_at: Option<Millis>,
}

/// The transactions, by arrival.
#[derive(Default)]
pub(crate) struct Mempool {
    waiting: BTreeMap<u64, Waiting>,
    known: HashSet<Digest>,
    authors: HashMap<Digest, usize>,
    next: u64,
    version: u64,
}

/// The author of what is signed by a key that nobody has registered yet: such keys cost nothing.
const STRANGERS: Digest = Digest([0xff; 32]);

/// Whose quota a transaction counts against.
fn author(transaction: &Transaction) -> Digest {
    match transaction {
        Transaction::RoundOpen(e)
        | Transaction::RoundResult(e)
        | Transaction::Readiness(e)
        | Transaction::RoundCommits(e)
        | Transaction::RoundReveal(e)
        | Transaction::RoundSkip(e)
        | Transaction::CheckVerdict(e) => Digest(e.signer.0),
        // Not the key: a hotkey can delegate to any number of them.
        Transaction::KeyDelegation(d) => Digest(d.hotkey.0),
        // Not whoever tells it: only the key itself can make evidence against it, and any amount of it.
        Transaction::Evidence(e) => Digest(e.key().0),
        // Nobody's: only the one true pulse of a round that is waited for is let in.
        Transaction::OwnerAction(_) | Transaction::EpochClose { .. } | Transaction::Pulse(_) => Digest([0; 32]),
    }
}

/// Keys before readiness before openings before commitments before results: what depends on what.
fn rank(transaction: &Transaction) -> u8 {
    match transaction {
        Transaction::KeyDelegation(_)
        | Transaction::OwnerAction(_)
        | Transaction::Evidence(_)
        | Transaction::Pulse(_) => 0,
        Transaction::Readiness(_) | Transaction::RoundReveal(_) => 1,
        Transaction::RoundOpen(_) | Transaction::RoundSkip(_) => 2,
        Transaction::RoundCommits(_) => 3,
        Transaction::RoundResult(_) | Transaction::CheckVerdict(_) => 4,
        Transaction::EpochClose { .. } => 5,
    }
}

impl Mempool {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What waits, by arrival.
    pub fn waiting(&self) -> impl Iterator<Item = &Transaction> {
        self.waiting.values().map(|w| &w.transaction)
    }

    /// Another number after each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Takes a transaction in, if the ledger has a use for it.
    pub fn admit<S: StateStore>(
        &mut self,
        ledger: &Ledger<S>,
        transaction: Transaction,
        own: Option<Millis>,
    ) -> Result<(), Refused> {
        let digest = transaction.digest(&ledger.network());
        if self.known.contains(&digest) {
            return Err(Refused::Ignore("known".into()));
        }
        if matches!(transaction, Transaction::EpochClose { .. }) {
            return Err(Refused::Reject("an epoch is closed by a proposer alone".into()));
        }
        let mut author = author(&transaction);
        let full = |author: &Digest| own.is_none() && self.authors.get(author).copied().unwrap_or(0) >= MAX_PER_AUTHOR;
        let too_many = || Err(Refused::Ignore("too many of this author are waiting".into()));
        if full(&author) {
            return too_many();
        }
        if self.waiting.len() >= MAX_TRANSACTIONS {
            return Err(Refused::Ignore("the mempool is full".into()));
        }
        match ledger.check_transaction(&transaction) {
            Ok(()) => {}
            Err(e) if e.is_early() && matches!(transaction, Transaction::Readiness(_)) => {
                author = STRANGERS;
                if full(&author) {
                    return too_many();
                }
            }
            Err(e) if e.is_early() => {}
            Err(e @ (TxError::Envelope(_) | TxError::ForgedPulse(_))) => return Err(Refused::Reject(e.to_string())),
            // Anything else may look different from a state that is ahead or behind.
            Err(e) => return Err(Refused::Ignore(e.to_string())),
        }
        *self.authors.entry(author).or_default() += 1;
        self.known.insert(digest);
        let repeat_at = own.map(|now| now.saturating_add(REPEAT_MS));
        self.waiting.insert(self.next, Waiting { transaction, digest, author, repeat_at });
        self.next += 1;
        self.version += 1;
        Ok(())
    }

    /// Candidates for a block: by what depends on what, then by arrival. What does not execute yet
    /// is left out by the ledger. Of delegations and evidence, which come first and cost their author
    /// nothing, a block gets one of each author: they could fill it.
    pub fn offer(&self) -> Vec<Transaction> {
        let mut first = HashSet::new();
        let mut is_offered = |w: &Waiting| match w.transaction {
            Transaction::KeyDelegation(_) | Transaction::Evidence(_) => first.insert(w.author),
            _ => true,
        };
        let offered = self.waiting.iter().filter(|(_, w)| is_offered(w));
        let mut out: Vec<(u8, u64)> = offered.map(|(i, w)| (rank(&w.transaction), *i)).collect();
        out.sort_unstable();
        out.into_iter().filter_map(|(_, i)| Some(self.waiting.get(&i)?.transaction.clone())).collect()
    }

    /// Judges everything again on a new state and drops what has done its work.
    pub fn recheck<S: StateStore>(&mut self, ledger: &Ledger<S>) {
        let gone: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, w)| ledger.check_transaction(&w.transaction).is_err_and(|e| !e.is_early()))
            .map(|(i, _)| *i)
            .collect();
        for i in gone {
            let Some(w) = self.waiting.remove(&i) else { continue };
            self.version += 1;
            self.known.remove(&w.digest);
            if let Some(count) = self.authors.get_mut(&w.author) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.authors.remove(&w.author);
                }
            }
        }
    }

    /// Own transactions that are due to be told again.
    pub fn due(&mut self, now: Millis) -> Vec<Vec<u8>> {
        let due = self.waiting.values_mut().filter(|w| w.repeat_at.is_some_and(|at| at <= now));
        due.take(REPEATS_PER_TICK)
            .map(|w| {
                w.repeat_at = Some(now.saturating_add(REPEAT_MS));
                encode::encode(&w.transaction)
            })
            .collect()
    }
}
