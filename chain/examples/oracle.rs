//! What this crate says of timelocked commits, for comparing with the official core: a JSON question a line on
//! standard input, its answer a line on standard output. `scripts/sdk_check/oracle.py` asks both.

use std::io::{BufRead as _, Write as _};

use perturb_chain::timelock::{Beacon, Payload, open, round_for, seal};
use perturb_chain::{EpochSchedule, Reveal};
use serde::Deserialize;
use serde_json::{Value, json};

/// A question.
#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
enum Question {
    /// When is a commit revealed that is made at this state?
    Reveal {
        block: u64,
        last_epoch_block: u64,
        pending_epoch_at: u64,
        epoch_index: u64,
        tempo: u16,
        blocks_since_last_step: u64,
        period: u64,
    },
    /// Which of quicknet's rounds opens a commit revealed in so many blocks?
    Round { now_ms: u64, blocks: u64, block_ms: u64 },
    /// A commit for one of quicknet's rounds.
    Seal { round: u64, hotkey: String, uids: Vec<u16>, values: Vec<u16>, version_key: u64 },
    /// What does this commit hold?
    Open { commit: String, signature: String },
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    hex::decode(text).map_err(|e| e.to_string())
}

fn answer(line: &str) -> Result<Value, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    Ok(match serde_json::from_str(line).map_err(|e| text(&e))? {
        Question::Reveal {
            block,
            last_epoch_block,
            pending_epoch_at,
            epoch_index,
            tempo,
            blocks_since_last_step,
            period,
        } => {
            let state =
                EpochSchedule { block, last_epoch_block, pending_epoch_at, epoch_index, tempo, blocks_since_last_step };
            let Reveal { commit_epoch, block } = state.reveal_after(period).map_err(|e| text(&e))?;
            json!({"commit_epoch": commit_epoch, "block": block})
        }
        Question::Round { now_ms, blocks, block_ms } => {
            json!({"round": round_for(&Beacon::QUICKNET, now_ms, blocks, block_ms)})
        }
        Question::Seal { round, hotkey, uids, values, version_key } => {
            let payload = Payload { hotkey: bytes(&hotkey)?, uids, values, version_key };
            json!({"commit": hex::encode(seal(&Beacon::QUICKNET, round, &payload).map_err(|e| text(&e))?)})
        }
        Question::Open { commit, signature } => {
            let p = open(&bytes(&commit)?, &bytes(&signature)?).map_err(|e| text(&e))?;
            json!({"hotkey": hex::encode(p.hotkey), "uids": p.uids, "values": p.values, "version_key": p.version_key})
        }
    })
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let said = answer(&line?).unwrap_or_else(|error| json!({"error": error}));
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(())
}
