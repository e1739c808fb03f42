//! `perturb localnet`: a whole network of processes on this machine.
//!
//! One dev chain, one bootnode, validators and miners, each a process of its own with its own folder,
//! keys and sockets on loopback. This command starts them, shows them, reads the weights back from
//! the chain, checks that everybody agrees, and ends them.

pub mod drill;
pub mod genesis;
pub mod network;
pub mod pace;
pub mod plan;
pub mod process;
pub mod scenario;
pub mod summary;
pub mod view;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Context, Result, bail, eyre};
use perturb_challenge::rules::Rules;
use perturb_types::Hotkey;
use tokio::time::sleep;

use crate::cli::LocalnetArgs;
use crate::report::{EpochReport, Status};
use network::Network;
use plan::{Kind, NETUID, Plan};
use summary::{Epoch, Miner, Summary};
use view::View;

/// Time between two looks at the validators.
const POLL: Duration = Duration::from_millis(500);

/// How long one epoch may take beyond its own length before the run has failed.
const EPOCH_PATIENCE: Duration = Duration::from_secs(150);

/// What the run knows so far.
pub struct Run {
    /// The processes.
    pub network: Network,
    /// The view.
    pub view: View,
    /// What will be written.
    pub summary: Summary,
    names: BTreeMap<Hotkey, (String, Kind)>,
    validator_names: Vec<String>,
    began: Instant,
}

/// Runs the network until enough epochs have their weights on chain.
///
/// # Errors
/// Something that should hold does not; the message says which process and what.
pub async fn run(args: LocalnetArgs) -> Result<()> {
    let began = Instant::now();
    let rules =
        Rules::by_name(&args.rules).ok_or_else(|| eyre!("unknown rules `{}`: `subnet` or `whitepaper`", args.rules))?;
    if args.dir.exists() {
        std::fs::remove_dir_all(&args.dir).wrap_err_with(|| format!("cannot empty {}", args.dir.display()))?;
    }
    std::fs::create_dir_all(&args.dir).wrap_err_with(|| format!("cannot make {}", args.dir.display()))?;
    let late = u16::from(args.drill);
    let plan = Plan::new(&args.dir, args.seed, args.validators, late, args.miners)?;
    let plan = Plan { rules, commit_reveal: args.commit_reveal, tempo: args.tempo, ..plan };
    let plan = match args.scenario {
        Some(scenario) => scenario.prepare(plan),
        None => plan,
    };
    let names: BTreeMap<Hotkey, (String, Kind)> =
        plan.miners.iter().filter_map(|m| Some((m.hotkey.hotkey(), (m.name.clone(), m.kind?)))).collect();
    let validator_names: Vec<String> = plan.validators.iter().map(|v| v.name.clone()).collect();

    let stop = crate::role::stop_on_signal()?;
    let network = Network::start(plan, args.devchain.as_deref()).await?;
    let mut summary = Summary::default();
    summary.versions.insert("perturb".into(), env!("CARGO_PKG_VERSION").into());
    summary.rpc = network.plan.validators.iter().map(|v| (v.hotkey.hotkey(), format!("http://{}", v.rpc))).collect();
    summary.chain = format!("http://{}", network.plan.chain);
    summary.timings.insert("start_s".into(), began.elapsed().as_secs_f64());
    let view = View::new(names.clone(), validator_names.len());
    view.say(&format!(
        "{} validators, {} miners, seed {}; data and logs in {}",
        args.validators,
        args.miners,
        args.seed,
        args.dir.display()
    ));
    let mut run = Run { network, view, summary, names, validator_names, began };

    let outcome = tokio::select! {
        outcome = run.play(&args) => outcome,
        () = stop.cancelled() => Err(color_eyre::eyre::eyre!("interrupted")),
    };
    run.view.end();
    if outcome.is_ok() && args.keep {
        run.summary.write(&args.dir.join("summary.json"))?;
        println!("leaving the network running; Ctrl-C ends it");
        println!("status: perturb status --rpc http://{}", run.network.plan.validators[0].rpc);
        stop.cancelled().await;
    }
    run.network.stop().await;
    let written = run.summary.write(&args.dir.join("summary.json"));
    outcome?;
    written?;
    println!("summary: {}", args.dir.join("summary.json").display());
    Ok(())
}

impl Run {
    async fn play(&mut self, args: &LocalnetArgs) -> Result<()> {
        let reports = match args.scenario {
            Some(scenario) => self.scenario(scenario).await?,
            None if args.drill => self.drill(args).await?,
            None => self.epochs(u64::from(args.epochs)).await?,
        };
        self.finish(reports).await
    }

    /// Waits for so many further epochs with weights, and records each.
    ///
    /// # Errors
    /// A process died, or an epoch did not close or land in time.
    pub async fn epochs(&mut self, count: u64) -> Result<Vec<EpochReport>> {
        let mut reports = Vec::new();
        for _ in 0..count {
            let report = self.next_epoch().await?;
            reports.push(report);
        }
        Ok(reports)
    }

    /// Looks at the validators once and shows them.
    pub async fn look(&mut self) -> Vec<Option<Status>> {
        let statuses = self.network.statuses().await;
        self.view.show(&statuses, &self.validator_names);
        statuses
    }

    /// Waits until a condition on the validators' statuses holds.
    ///
    /// # Errors
    /// It did not hold in time, or a process died by itself.
    pub async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&[Option<Status>]) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        loop {
            self.network.check()?;
            let statuses = self.look().await;
            if holds(&statuses) {
                return Ok(began.elapsed());
            }
            if began.elapsed() > patience {
                bail!(
                    "{what}: not within {} s; the logs are in {}",
                    patience.as_secs(),
                    self.network.plan.dir.display()
                );
            }
            sleep(POLL).await;
        }
    }

    /// The next epoch that this run has not recorded, once its weights are on chain everywhere.
    ///
    /// # Errors
    /// A process died, or the epoch did not close or land in time.
    pub async fn next_epoch(&mut self) -> Result<EpochReport> {
        let next = self.summary.epochs.last().map(|e| e.epoch + 1);
        let mut found = None;
        let patience = self.network.plan.epoch() + EPOCH_PATIENCE;
        let began = Instant::now();
        while found.is_none() {
            self.network.check()?;
            self.look().await;
            found = self.network.closed_epoch(next).await;
            if found.is_none() && began.elapsed() > patience {
                bail!(
                    "no epoch closed within {} s; the logs are in {}",
                    patience.as_secs(),
                    self.network.plan.dir.display()
                );
            }
            if found.is_none() {
                sleep(POLL).await;
            }
        }
        let Some((report, roots)) = found else { bail!("no epoch closed") };
        let closed = began.elapsed();
        let on_chain = self.on_chain(&report).await?;
        self.view.say(&format!(
            "epoch {} closed at height {} with {} results; weights of {} validators read back from the chain{}",
            report.epoch,
            report.height,
            report.results,
            on_chain.len(),
            if report.miners.is_empty() { " (nobody eligible yet: all to the burn uid)" } else { "" },
        ));
        self.summary.timings.insert(format!("epoch_{}_closed_s", report.epoch), closed.as_secs_f64());
        self.summary.timings.insert(format!("epoch_{}_on_chain_s", report.epoch), self.began.elapsed().as_secs_f64());
        self.summary.epochs.push(Epoch {
            epoch: report.epoch,
            height: report.height,
            state_roots: roots,
            weights_agreed: report.weights.clone(),
            weights_on_chain: on_chain,
            results: report.results,
        });
        Ok(report)
    }

    /// Reads from the chain until every running member's weights are the agreed ones.
    async fn on_chain(&mut self, report: &EpochReport) -> Result<BTreeMap<Hotkey, BTreeMap<Hotkey, u16>>> {
        let began = Instant::now();
        loop {
            self.network.check()?;
            self.look().await;
            let weights = self.network.weights_on_chain(NETUID, report.snapshot_block).await.unwrap_or_default();
            let mut expected = self.network.members_of(report).await;
            let able = self.network.able_to_set_weights(NETUID).await.unwrap_or_default();
            expected.retain(|validator| able.contains(validator));
            let done = expected.iter().all(|v| weights.get(v).is_some_and(|w| *w == report.weights));
            if done && !expected.is_empty() {
                return Ok(weights.into_iter().filter(|(v, _)| expected.contains(v)).collect());
            }
            if began.elapsed() > EPOCH_PATIENCE {
                bail!(
                    "epoch {}: the agreed weights are not on chain: agreed {:?}, on chain {weights:?}",
                    report.epoch,
                    report.weights
                );
            }
            sleep(POLL).await;
        }
    }

    async fn finish(&mut self, reports: Vec<EpochReport>) -> Result<()> {
        let statuses = self.look().await;
        let running: BTreeMap<Hotkey, f64> = statuses
            .iter()
            .flatten()
            .max_by_key(|s| s.height)
            .map(|s| s.miners.iter().map(|m| (m.hotkey, m.mean_score)).collect())
            .unwrap_or_default();
        for (hotkey, (_, kind)) in &self.names {
            let mean_score = running.get(hotkey).copied().unwrap_or(0.0);
            self.summary.miners.insert(*hotkey, Miner { kind: *kind, mean_score });
        }
        self.view.end();
        if let (Some(report), Some(epoch)) = (reports.last(), self.summary.epochs.last()) {
            let nothing = BTreeMap::new();
            let on_chain = epoch.weights_on_chain.values().next().unwrap_or(&nothing);
            println!("\nepoch {} (closed at height {})", report.epoch, report.height);
            println!("{}", summary::table(report, on_chain, &self.names, &running));
            println!("state roots after height {}:", epoch.height);
            for (v, root) in &epoch.state_roots {
                let name = self.network.plan.validators.iter().find(|m| m.hotkey.hotkey() == *v);
                println!("  {:<12} {root}", name.map_or("?", |m| m.name.as_str()));
            }
        }
        for step in &self.summary.drill {
            println!("drill: {} (whole again after {:.1} s)", step.what, step.recovered_s);
        }
        self.summary.timings.insert("total_s".into(), self.began.elapsed().as_secs_f64());
        self.summary.check()?;
        self.verdict()?;
        let way = if self.network.plan.commit_reveal { " (committed, and revealed by it)" } else { "" };
        println!(
            "all state roots equal, agreed weights on chain{way}, {:.0} s in all",
            self.began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    /// The gradient attacker ahead of the weaker one, garbage and padding with nothing: what the network exists for.
    /// The slow miner attacks as the gradient attacker does; on a busy machine chance decides between them.
    fn verdict(&self) -> Result<()> {
        let Some(last) = self.summary.epochs.last() else { bail!("no epoch was recorded") };
        let weight = |kind: Kind| {
            self.names
                .iter()
                .filter(|(_, (_, k))| *k == kind)
                .filter_map(|(h, _)| last.weights_agreed.get(h))
                .max()
                .copied()
        };
        for kind in [Kind::Garbage, Kind::Padding, Kind::Errands] {
            if let Some(w) = weight(kind).filter(|w| *w > 0) {
                bail!("the {} miner ended with weight {w}", kind.name());
            }
        }
        let (gradient, slow, weak) = (weight(Kind::Gradient), weight(Kind::Slow), weight(Kind::Weak));
        let present = self.names.values().any(|(_, kind)| *kind == Kind::Gradient);
        if present && (gradient <= weak || gradient.max(slow) != Some(u16::MAX)) {
            bail!("the gradient attackers did not end first: {:?}", last.weights_agreed);
        }
        Ok(())
    }
}
