//! What a run leaves behind: the table for people, `summary.json` for programs.

use std::collections::BTreeMap;
use std::path::Path;

use color_eyre::eyre::{Context, Result, bail};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use perturb_types::{Digest, Hotkey};
use serde::Serialize;

use super::plan::Kind;
use crate::report::{EpochMiner, EpochReport};

/// `summary.json`.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// The epochs, in order.
    pub epochs: Vec<Epoch>,
    /// Seconds of each phase, and in a drill of each recovery.
    pub timings: BTreeMap<String, f64>,
    /// Versions of the parts.
    pub versions: BTreeMap<String, String>,
    /// The validators' JSON-RPC addresses.
    pub rpc: BTreeMap<Hotkey, String>,
    /// The development chain's JSON-RPC address.
    pub chain: String,
    /// The miners.
    pub miners: BTreeMap<Hotkey, Miner>,
    /// What a drill did and saw, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drill: Vec<DrillStep>,
}

/// One epoch.
#[derive(Debug, Serialize)]
pub struct Epoch {
    /// Its number.
    pub epoch: u64,
    /// Height of the closing block.
    pub height: u64,
    /// Each validator's state root after it.
    pub state_roots: BTreeMap<Hotkey, Digest>,
    /// The agreed vector.
    pub weights_agreed: BTreeMap<Hotkey, u16>,
    /// What each validator has on chain.
    pub weights_on_chain: BTreeMap<Hotkey, BTreeMap<Hotkey, u16>>,
    /// Answers that entered the histories.
    pub results: u64,
}

/// A miner.
#[derive(Debug, Serialize)]
pub struct Miner {
    /// What it is.
    pub kind: Kind,
    /// Its running mean at the end, 0 to 1.
    pub mean_score: f64,
}

/// One thing a drill did.
#[derive(Debug, Clone, Serialize)]
pub struct DrillStep {
    /// What.
    pub what: String,
    /// Seconds until the network was whole again.
    pub recovered_s: f64,
}

impl Summary {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let temporary = path.with_extension("json.new");
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&temporary, text + "\n").wrap_err_with(|| format!("{}", temporary.display()))?;
        std::fs::rename(&temporary, path).wrap_err_with(|| format!("{}", path.display()))
    }

    /// Checks what a run must show: equal roots everywhere and the agreed vector on chain.
    ///
    /// # Errors
    /// The first epoch and validator that differ.
    pub fn check(&self) -> Result<()> {
        for e in &self.epochs {
            let mut roots = e.state_roots.values();
            if let Some(first) = roots.next()
                && roots.any(|r| r != first)
            {
                bail!("epoch {}: the validators' state roots differ: {:?}", e.epoch, e.state_roots);
            }
            if let Some((v, on_chain)) = e.weights_on_chain.iter().find(|(_, w)| **w != e.weights_agreed) {
                bail!("epoch {}: {v} has {on_chain:?} on chain, agreed was {:?}", e.epoch, e.weights_agreed);
            }
        }
        Ok(())
    }
}

/// The closing table of one epoch, best miner first.
pub fn table(
    report: &EpochReport,
    on_chain: &BTreeMap<Hotkey, u16>,
    names: &BTreeMap<Hotkey, (String, Kind)>,
    running: &BTreeMap<Hotkey, f64>,
) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "miner",
        "kind",
        "uid",
        "results",
        "mean score",
        "aggregate",
        "confidence",
        "share",
        "u16 agreed",
        "u16 on chain",
    ]);
    let weight = |h: &Hotkey| report.weights.get(h).copied().unwrap_or(0);
    let mean = |h: &Hotkey| running.get(h).copied().unwrap_or(0.0);
    let mut rows: Vec<_> = names.iter().collect();
    rows.sort_by(|(a, _), (b, _)| weight(b).cmp(&weight(a)).then(mean(b).total_cmp(&mean(a))));
    for (hotkey, (name, kind)) in rows {
        let m = report.miners.iter().find(|m| m.hotkey == *hotkey);
        let number = |f: &dyn Fn(&EpochMiner) -> String| m.map_or("–".to_owned(), f);
        table.add_row([
            format!("{name} {}…", hotkey.short()),
            kind.name().to_owned(),
            number(&|m| m.uid.to_string()),
            number(&|m| m.results.to_string()),
            format!("{:.4}", mean(hotkey)),
            number(&|m| format!("{:.4}", m.aggregate)),
            number(&|m| format!("{:.3}", m.confidence)),
            number(&|m| format!("{:.2} %", m.share * 100.0)),
            weight(hotkey).to_string(),
            on_chain.get(hotkey).copied().unwrap_or(0).to_string(),
        ]);
    }
    for i in 2..10 {
        if let Some(c) = table.column_mut(i) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn epoch(roots: [u8; 2], chain: u16) -> Epoch {
        let (a, b, m) = (Hotkey([1; 32]), Hotkey([2; 32]), Hotkey([3; 32]));
        Epoch {
            epoch: 0,
            height: 9,
            state_roots: [(a, Digest([roots[0]; 32])), (b, Digest([roots[1]; 32]))].into(),
            weights_agreed: [(m, 65535)].into(),
            weights_on_chain: [(a, [(m, chain)].into())].into(),
            results: 1,
        }
    }

    #[test]
    fn a_differing_root_or_weight_fails_the_run() {
        let ok = Summary { epochs: vec![epoch([5, 5], 65535)], ..Summary::default() };
        ok.check().unwrap();
        let fork = Summary { epochs: vec![epoch([5, 6], 65535)], ..Summary::default() };
        assert!(fork.check().unwrap_err().to_string().contains("state roots differ"));
        let weights = Summary { epochs: vec![epoch([5, 5], 1)], ..Summary::default() };
        assert!(weights.check().unwrap_err().to_string().contains("on chain"));
    }
}
