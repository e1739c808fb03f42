//! `perturb status`: how a running validator is.

use std::time::Duration;

use color_eyre::eyre::{Context, Result};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::HttpClientBuilder;
use jsonrpsee::rpc_params;

use crate::cli::StatusArgs;
use crate::report::{CheckReport, Status, ValidatorReport};

/// Asks and prints.
///
/// # Errors
/// No validator answers there.
pub async fn run(args: StatusArgs) -> Result<()> {
    let client = HttpClientBuilder::default()
        .request_timeout(Duration::from_secs(5))
        .build(&args.rpc)
        .wrap_err_with(|| format!("`{}` is no RPC address", args.rpc))?;
    let status: Status = client.request("perturb_status", rpc_params![]).await.wrap_err_with(|| {
        format!("no validator answers at {}; is it running, and is this its --rpc-listen?", args.rpc)
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        let validators: Vec<ValidatorReport> = client.request("perturb_validators", rpc_params![]).await?;
        let checks: Vec<CheckReport> = client.request("perturb_checks", rpc_params![]).await?;
        print!("{}", text(&status, &validators, &checks));
    }
    Ok(())
}

fn text(s: &Status, validators: &[ValidatorReport], checks: &[CheckReport]) -> String {
    let doing = if s.syncing {
        "fetching blocks"
    } else if s.member {
        "voting"
    } else {
        "following (not a member of this epoch's set)"
    };
    let mut out = format!(
        "validator   {}\nversion     {}\nnetwork     {}\npeer        {}\nstate       {doing}\n\
         height      {} round {} epoch {}\nblock       {}\nstate root  {}\n\
         peers       {} validators, {} miners\nmempool     {} transactions\n\
         chain       {} at block {}, subnet epoch {} ({} of {} blocks)\n\
         rounds      {} opened, {} closed, {} answers judged\n",
        s.hotkey,
        s.version,
        s.network,
        s.peer_id,
        s.height,
        s.round_text(),
        s.epoch,
        s.block,
        s.state_root,
        s.peers.validators,
        s.peers.miners,
        s.mempool,
        if s.chain.connected { "connected" } else { "away" },
        s.chain.finalized,
        s.chain.epoch_index,
        s.chain.into_epoch,
        s.chain.tempo,
        s.rounds.opened,
        s.rounds.closed,
        s.rounds.answers,
    );
    // The newest of each mechanism says how things stand.
    for w in s.weights.iter().filter(|w| !s.weights.iter().any(|n| n.mechanism == w.mechanism && n.epoch > w.epoch)) {
        let error = w.error.as_ref().map(|e| format!(" (last: {e})")).unwrap_or_default();
        out.push_str(&format!("weights     mechanism {} epoch {}: {}{error}\n", w.mechanism, w.epoch, w.state));
    }
    if let Some(anchor) = &s.anchor {
        out.push_str(&format!("anchor      {anchor}\n"));
    }
    for e in &s.endpoints {
        let mark = if e.in_use { "in use, " } else { "" };
        out.push_str(&format!("endpoint    {}: {mark}{}\n", e.endpoint, e.health));
    }
    out.push_str(&format!("standing    {:.4}\n", s.standing));
    if let Some(epoch) = s.idle_until {
        out.push_str(&format!("idle        it did too little and may be a member again in epoch {epoch}\n"));
    }
    let [holds, fails, unknown] = s.verdicts;
    out.push_str(&format!(
        "checks      {} open; checked here: {holds} hold, {fails} fail, {unknown} not to be judged\n",
        s.checks
    ));
    for c in checks {
        let [fails, holds, unknown, silent] = c.power;
        let struck = if c.struck { ", struck" } else { "" };
        out.push_str(&format!(
            "check       round {} of {} until height {}: of {} power {fails} fails, {holds} holds, {unknown} cannot \
             tell, {silent} silent{struck}\n",
            c.seq, c.validator, c.over, c.total
        ));
    }
    for v in validators {
        let faults: Vec<String> = [
            ("unclosed rounds", v.unclosed),
            ("failed checks", v.failed_checks),
            ("missed votes", v.missed_votes),
            ("equivocations", v.equivocations),
        ]
        .iter()
        .filter(|(_, [now, before])| now + before > 0)
        .map(|(what, [now, before])| format!("{} {what}", now + before))
        .collect();
        let faults = if faults.is_empty() { "no faults".to_owned() } else { faults.join(", ") };
        let [rounds, verdicts] = v.work;
        let outlier = match v.outlier {
            [0, _] => String::new(),
            [rejected, owners] => format!(", outlier for {rejected} of {owners} owners of miners"),
        };
        out.push_str(&format!(
            "member      {} power {} standing {:.4}: {rounds} rounds and {verdicts} verdicts, {faults}{outlier}\n",
            v.hotkey, v.power, v.standing
        ));
    }
    for m in &s.miners {
        out.push_str(&format!(
            "miner       uid {:<4} {}  {:.6} over {} results\n",
            m.uid, m.hotkey, m.mean_score, m.results
        ));
    }
    out
}
