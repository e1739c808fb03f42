//! An epoch computed again, bit for bit: from the proved histories at its start and its blocks to
//! outliers, ranks and the u16 of its weights.
//!
//! 1. The header that closed the epoch before (or genesis) and the one that closed the epoch are
//!    found by certified headers alone: `epoch` in a header never falls.
//! 2. All rows of the state at the start, whose rebuilt root is the header's.
//! 3. The blocks between. Each names its parent's digest and the last is certified, so all of them
//!    are; bodies hash to their headers' roots.
//! 4. Every block is executed and compared; then the epoch's records with their rows in the agreed
//!    state. The first leaf that differs is named.
//!
//! [`exact`] uses the ledger's own executor and verifies every signature again. [`fast`] restates the
//! arithmetic, and leaves signatures to the quorum that checked them.

pub mod checks;
mod close;
pub mod exact;
pub mod fast;
mod gather;
pub mod leaf;
mod lots;

use perturb_ledger::epoch::EpochRecord;
use perturb_ledger::state::epoch_key;
use perturb_ledger::store::{Change, Row};
use perturb_ledger::{Block, Certificate, Genesis};
use perturb_types::{ChallengeId, Hotkey, encode};
use serde_json::{Value, json};

use crate::error::{AuditError, Verdict};
use crate::history::{Checked, History, TrustAnchor};
use crate::nodes::Nodes;
use crate::report::{Report, Step};
use crate::root;
use crate::source::Ask;
pub use exact::Exact;
pub use fast::Fast;
pub use gather::{bind, closing, start};
pub use leaf::Difference;

/// How to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the ledger's own executor, with all signatures.
    Exact,
    /// The arithmetic alone.
    Fast,
}

/// A block whose agreed outcome is not what the rules make.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// What was noticed.
    pub what: String,
    /// Rows as the rules make them after the block.
    pub changes: Vec<Change>,
    /// The whole state as the rules make it, where it is known.
    pub rows: Option<Vec<Row>>,
}

/// Goes through an epoch block by block.
pub trait Engine {
    /// Takes the next block, whose body was compared with its header.
    ///
    /// # Errors
    /// The block cannot follow.
    fn apply(&mut self, block: &Block, certificate: &Certificate) -> Result<Option<Mismatch>, AuditError>;

    /// Answers that entered the histories so far.
    fn results(&self) -> u64;

    /// The records that the epoch's close came to.
    ///
    /// # Errors
    /// The own state cannot be read.
    fn records(&self) -> Result<Vec<(ChallengeId, EpochRecord)>, AuditError>;
}

/// A replayed epoch.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The header it begins at.
    pub start: Checked,
    /// The header that closed it.
    pub close: Checked,
    /// Transactions of its blocks.
    pub transactions: u64,
    /// Answers that entered the histories.
    pub results: u64,
    /// What it came to, by challenge; empty where something differs before its end.
    pub records: Vec<(ChallengeId, EpochRecord)>,
    /// The first leaf that was agreed otherwise.
    pub difference: Option<Difference>,
}

/// Computes an epoch again from what a node serves.
///
/// # Errors
/// The node does not hold what it takes, or what it serves does not lead from one certified header to
/// the other. A difference in what was agreed is no error.
pub fn replay(
    history: &History,
    genesis: &Genesis,
    node: Ask<'_>,
    epoch: u64,
    mode: Mode,
) -> Result<Replayed, AuditError> {
    if genesis.network_id() != history.network() {
        return Err(AuditError::Untrusted(format!("the genesis file makes network {}", genesis.network_id())));
    }
    let (first, close) = closing(history, node, epoch)?;
    let (begins, none) = (first.header.height, first.certificate.is_none());
    if begins > 0 && none {
        return Err(AuditError::invalid(format!("header {begins}"), "it comes without its certificate"));
    }
    let rows = start(history, genesis, node, &first)?;
    let mut engine: Box<dyn Engine> = match mode {
        Mode::Exact => Box::new(Exact::new(genesis, &first.header, first.certificate.clone(), &rows)?),
        Mode::Fast => Box::new(Fast::new(genesis, &first.header, &rows)?),
    };
    drop(rows);
    let mut done = Replayed { start: first, close, transactions: 0, results: 0, records: Vec::new(), difference: None };
    let (mut parent, last) = (done.start.digest, done.close.header.height);
    for height in done.start.header.height.saturating_add(1)..=last {
        let (block, certificate) = node.block(height)?;
        let digest = bind(&history.network(), &parent, &block)?;
        if height == last && digest != done.close.digest {
            return Err(AuditError::invalid(
                format!("block {height}"),
                "the blocks do not lead to the certified header",
            ));
        }
        let certificate = certificate.filter(|c| c.digest == digest && c.height == height);
        let certificate = certificate
            .ok_or_else(|| AuditError::invalid(format!("block {height}"), "it comes without its certificate"))?;
        if mode == Mode::Exact {
            history.check(block.header.clone(), Some(certificate.clone()))?;
        }
        done.transactions += block.body.transactions.len() as u64;
        if let Some(mismatch) = engine.apply(&block, &certificate)? {
            // Only a certified block can tell something about the network.
            let checked = history.check(block.header, Some(certificate))?;
            done.results = engine.results();
            done.difference = Some(locate(node, &checked, mismatch));
            return Ok(done);
        }
        parent = digest;
    }
    done.results = engine.results();
    compare(history, node, engine.as_ref(), epoch, &mut done)?;
    Ok(done)
}

/// Compares the records with the agreed state's rows, by proofs after the closing block, or, where
/// the node no longer has those, after its newest.
fn compare(
    history: &History,
    node: Ask<'_>,
    engine: &dyn Engine,
    epoch: u64,
    done: &mut Replayed,
) -> Result<(), AuditError> {
    done.records = engine.records()?;
    let keys: Vec<Vec<u8>> = done.records.iter().map(|(id, _)| epoch_key(epoch, *id)).collect();
    let close = &done.close.header;
    let proofs = match node.rows(close.height, &close.state_root, &keys) {
        Err(e) if e.verdict() == Verdict::Unavailable => {
            let newest = history.header(node, None)?;
            node.rows(newest.header.height, &newest.header.state_root, &keys)?
        }
        other => other?,
    };
    for (((_, record), key), proof) in done.records.iter().zip(&keys).zip(proofs) {
        let mine = encode::encode(record);
        if let Some(difference) = leaf::first(close.height, key, proof.value.as_deref(), Some(&mine)) {
            done.difference = Some(difference);
            return Ok(());
        }
    }
    Ok(())
}

/// Names the first leaf that was agreed otherwise: by proofs of the rows that should have changed,
/// or by the agreed state's rows.
fn locate(node: Ask<'_>, at: &Checked, mismatch: Mismatch) -> Difference {
    let (height, root) = (at.header.height, at.header.state_root);
    let keys: Vec<Vec<u8>> = mismatch.changes.iter().map(|(key, _)| key.clone()).collect();
    let mut unnamed = "a leaf that no changed row shows".to_owned();
    match node.rows(height, &root, &keys) {
        Err(error) => unnamed = format!("a leaf that cannot be named: {error}"),
        Ok(proofs) => {
            let pairs = proofs.iter().zip(&mismatch.changes);
            let found = pairs.filter_map(|(p, (key, value))| {
                leaf::first(height, key, p.value.as_deref(), value.as_deref()).map(|d| (leaf::rank(key), d))
            });
            // What comes first in the computation, not in the alphabet.
            if let Some((_, difference)) = found.min_by_key(|(rank, _)| *rank) {
                return difference;
            }
        }
    }
    if let Some(difference) = mismatch.rows.and_then(|mine| by_rows(node, at, &mine)) {
        return difference;
    }
    Difference { height, leaf: unnamed, agreed: "as certified".into(), recomputed: mismatch.what }
}

/// The first of all rows that differs.
fn by_rows(node: Ask<'_>, at: &Checked, mine: &[Row]) -> Option<Difference> {
    let height = at.header.height;
    let agreed = node.state(height).ok()?;
    if perturb_ledger::archive::state_root(&agreed).ok()? != at.header.state_root {
        return None;
    }
    let value = |rows: &[Row], key: &Vec<u8>| {
        rows.binary_search_by(|(k, _)| k.cmp(key)).ok().and_then(|i| rows.get(i)).map(|(_, v)| v.clone())
    };
    let mut keys: Vec<&Vec<u8>> = agreed.iter().chain(mine).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .find_map(|key| leaf::first(height, key, value(&agreed, key).as_deref(), value(mine, key).as_deref()))
}

fn record_step(id: ChallengeId, record: &EpochRecord) -> Step {
    let outliers: Vec<Step> = record
        .miners
        .iter()
        .filter_map(|m| m.aggregate.as_ref().map(|a| (m, a)))
        .flat_map(|(m, a)| a.rejected.iter().map(|v| Step::note(format!("outlier: {v} about miner {}", m.hotkey))))
        .collect();
    let often = record.outliers.iter().filter(|o| o.count.is_majority());
    let often = often.map(|o| {
        let (c, v) = (&o.count, &o.validator);
        Step::note(format!("{v} is an outlier for {} of {} owners of miners: checked more often", c.rejected, c.owners))
    });
    let kept = record.miners.iter().filter_map(|m| Some((m, m.kept?)));
    let kept = kept.map(|(m, from)| Step::note(format!("miner {} keeps its score of epoch {from}", m.hotkey)));
    let named = |h: &Option<Hotkey>| h.map_or_else(|| "no miner".into(), |h| h.to_string());
    let weights = record.weights.iter().map(|(uid, h, w)| Step::note(format!("uid {uid}: {w} ({})", named(h))));
    let scored = record.miners.iter().filter(|m| m.aggregate.is_some()).count();
    Step::ok(format!(
        "challenge {id}: {scored} of {} miners scored, the agreed record bit for bit",
        record.miners.len()
    ))
    .with(outliers)
    .with(often)
    .with(kept)
    .with([Step::ok("agreed vector").with(weights)])
}

/// `replay --epoch N`.
pub fn run(anchor: &TrustAnchor, genesis: &Genesis, nodes: &Nodes, epoch: u64, mode: Mode) -> Report {
    let title = format!("replay of epoch {epoch}");
    let mut steps = Vec::new();
    let found = nodes.first(&mut steps, |node| {
        let history = History::load(anchor, node)?;
        let done = replay(&history, genesis, node, epoch, mode)?;
        Ok((history, done))
    });
    let (history, done) = match found {
        Ok(found) => found,
        Err(error) => return Report::failed(title, steps, &error),
    };
    steps.extend(root::trust_steps(&history, done.close.header.height));
    steps.push(Step::ok(format!("start: header {} {}", done.start.header.height, done.start.digest)));
    steps.push(root::header_step(&done.close));
    let blocks = done.close.header.height - done.start.header.height;
    let checked = match mode {
        Mode::Exact => "every signature and root again",
        Mode::Fast => "arithmetic and results roots; signatures were left to the quorum",
    };
    let text = format!("{blocks} blocks, {} transactions, {} answers: {checked}", done.transactions, done.results);
    match &done.difference {
        None => {
            steps.push(Step::ok(text));
            steps.extend(done.records.iter().map(|(id, r)| record_step(*id, r)));
        }
        Some(d) => steps.push(
            Step::bad(format!("block {}: {}", d.height, d.leaf))
                .with([Step::bad(format!("agreed: {}", d.agreed)), Step::bad(format!("recomputed: {}", d.recomputed))]),
        ),
    }
    let vectors: Value = done
        .records
        .iter()
        .map(|(id, r)| (id.to_string(), json!(r.weights.iter().map(|(uid, _, w)| (uid, w)).collect::<Vec<_>>())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let result = json!({
        "epoch": epoch, "from": done.start.header.height, "to": done.close.header.height, "digest": done.close.digest,
        "transactions": done.transactions, "results": done.results, "weights": vectors, "difference": done.difference,
    });
    let agreed = root::agreed(&history, nodes, (done.close.header.height, done.close.digest), &mut steps);
    let verdict = if done.difference.is_none() { agreed } else { Verdict::Invalid };
    Report::new(verdict, title, steps, result)
}
