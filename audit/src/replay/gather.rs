//! What a replay begins with, each piece proved.

use perturb_ledger::archive::state_root;
use perturb_ledger::ledger::genesis_commit;
use perturb_ledger::store::Row;
use perturb_ledger::{Block, Genesis};
use perturb_types::{Digest, NetworkId};

use crate::error::AuditError;
use crate::history::{Checked, History};
use crate::source::Ask;

/// The header an epoch begins at and the one that closed it, both checked: the last with this
/// epoch in the making before, and the first with a later one.
///
/// # Errors
/// No answer; or the epoch is not closed, or closed before the trusted point.
pub fn closing(history: &History, node: Ask<'_>, epoch: u64) -> Result<(Checked, Checked), AuditError> {
    let newest = history.header(node, None)?;
    if newest.header.epoch <= epoch {
        let what = format!("the close of epoch {epoch}: epoch {} is in the making", newest.header.epoch);
        return Err(AuditError::NotHeld { node: node.0.name().into(), what });
    }
    let first = history.header(node, Some(history.point().0))?;
    let start = match epoch.checked_sub(1) {
        // Epoch 0 begins with the network.
        None if first.header.height == 0 => first.clone(),
        Some(before) if first.header.epoch < epoch => search(history, node, before, first.clone(), newest.clone())?,
        _ if first.header.epoch == epoch && closes(history, node, &first)? => first.clone(),
        _ => {
            return Err(AuditError::Untrusted(format!(
                "epoch {epoch} begins before the trusted header {}: begin from an earlier one",
                first.header.height
            )));
        }
    };
    let close = search(history, node, epoch, start.clone(), newest)?;
    Ok((start, close))
}

/// Whether a trusted header is the one that closed the epoch before its own: its block says so.
fn closes(history: &History, node: Ask<'_>, header: &Checked) -> Result<bool, AuditError> {
    let (block, _) = node.block(header.header.height)?;
    let digest = bind(&history.network(), &header.header.parent, &block)?;
    let last = block.body.transactions.last();
    Ok(digest == header.digest && matches!(last, Some(perturb_ledger::Transaction::EpochClose { .. })))
}

fn pruned(node: Ask<'_>, oldest: u64) -> AuditError {
    AuditError::Pruned { node: node.0.name().into(), what: "the beginning of the epoch".into(), oldest }
}

/// The first header whose epoch is above `epoch`: not `low`'s, at the latest `high`'s.
fn search(
    history: &History,
    node: Ask<'_>,
    epoch: u64,
    mut low: Checked,
    mut high: Checked,
) -> Result<Checked, AuditError> {
    while high.header.height.saturating_sub(low.header.height) > 1 {
        let middle = low.header.height + (high.header.height - low.header.height) / 2;
        let checked = match history.header(node, Some(middle)) {
            // Where the node's past begins is at least as good a place to look.
            Err(AuditError::Pruned { oldest, .. }) if middle < oldest && oldest <= high.header.height => {
                let first = history.header(node, Some(oldest))?;
                // Nothing below it can be seen, so it must be the closing block itself.
                if first.header.epoch > epoch {
                    let ends = first.header.epoch == epoch + 1 && closes(history, node, &first)?;
                    return if ends { Ok(first) } else { Err(pruned(node, oldest)) };
                }
                first
            }
            checked => checked?,
        };
        if checked.header.epoch > epoch { high = checked } else { low = checked }
    }
    Ok(high)
}

/// All rows of the state after a checked header, whose root is the header's.
///
/// # Errors
/// No answer, or rows of another state.
pub fn start(history: &History, genesis: &Genesis, node: Ask<'_>, at: &Checked) -> Result<Vec<Row>, AuditError> {
    let height = at.header.height;
    let rows: Vec<Row> = if height == 0 && history.genesis().is_some() {
        let values = genesis_commit(genesis)?.values;
        values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    } else {
        node.state(height)?
    };
    let root = state_root(&rows)?;
    if root != at.header.state_root {
        let why = format!("the rows make root {root}, the header says {}", at.header.state_root);
        return Err(AuditError::invalid(format!("state at height {height} of {}", node.0.name()), why));
    }
    Ok(rows)
}

/// Compares a block with its header, and the header with its parent; returns its digest.
///
/// # Errors
/// The body is another's, or the header does not follow.
pub fn bind(network: &NetworkId, parent: &Digest, block: &Block) -> Result<Digest, AuditError> {
    let h = &block.header;
    let wrong = |why: &str| Err(AuditError::invalid(format!("block {}", h.height), why));
    if h.parent != *parent {
        return wrong("it does not follow the block before it");
    }
    if !block.is_whole(network) {
        return wrong("its body is not the one that its header names");
    }
    Ok(h.digest(network))
}
