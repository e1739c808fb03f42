//! Trouble on purpose: what a network must survive, and how long it takes to be whole again.

use std::time::{Duration, Instant};

use color_eyre::eyre::{Result, eyre};
use perturb_miner::drill::errands::Errands;
use perturb_storage::{Database, Options};
use perturb_types::ConsensusKey;

use super::Run;
use super::pace::Pace;
use super::plan::Kind;
use super::summary::DrillStep;
use crate::cli::LocalnetArgs;
use crate::keys::consensus::make_next;
use crate::keys::delegation::{DelegationFile, waiting};
use crate::report::{EpochReport, Status};

/// How long any one recovery may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the chain stays away: several of its blocks, within one epoch.
const CHAIN_AWAY: Duration = Duration::from_secs(12);

/// What the honest miner keeps of its score at the least: an epoch has few rounds, and not the same images.
const LEAST_KEPT: f64 = 0.75;

/// Epochs that the play needs: trouble, pruning, the fifth validator's registration, its first votes.
const LEAST_EPOCHS: u64 = 4;

fn height(statuses: &[Option<Status>]) -> u64 {
    statuses.iter().flatten().map(|s| s.height).max().unwrap_or(0)
}

fn miners_of(statuses: &[Option<Status>]) -> Vec<usize> {
    statuses.iter().flatten().map(|s| s.peers.miners).collect()
}

impl Run {
    fn did(&mut self, what: &str, recovered: Duration) {
        let recovered_s = recovered.as_secs_f64();
        self.view.say(&format!("drill: {what}: whole again after {recovered_s:.1} s"));
        self.summary.drill.push(DrillStep { what: what.to_owned(), recovered_s });
    }

    /// Plays the drill and records at least the asked epochs.
    ///
    /// # Errors
    /// Something did not recover.
    pub async fn drill(&mut self, args: &LocalnetArgs) -> Result<Vec<EpochReport>> {
        let founders = self.network.plan.founders;
        let miners = self.network.plan.miners.len();
        let all_up = move |s: &[Option<Status>]| {
            s.iter().flatten().count() >= founders
                && s.iter().flatten().all(|s| s.height >= 3 && s.peers.miners >= miners)
        };
        self.until("the network stands", PATIENCE, all_up).await?;

        self.killed_validator().await?;
        self.absent_miner().await?;
        self.damaged_validator().await?;
        let key = self.next_key().await?;
        // What the rounds of an epoch rest on is held until they were drawn: the second close prunes the first epoch.
        let mut reports = vec![self.next_epoch().await?, self.next_epoch().await?];
        self.late_validator().await?;
        self.chain_away().await?;
        self.bootnode_gone().await?;
        reports.push(self.next_epoch().await?);
        self.key_changed(key).await?;
        let late = founders;
        let votes =
            move |s: &[Option<Status>]| s.get(late).and_then(Option::as_ref).is_some_and(|s| s.member && !s.syncing);
        let waited = self.until("the fifth validator votes", PATIENCE, votes).await?;
        self.did("the fifth validator is a member and votes", waited);
        let pace = Pace::watch(self.network.first_rpc()?);
        self.caught().await?;
        while (reports.len() as u64) < u64::from(args.epochs).max(LEAST_EPOCHS) {
            reports.push(self.next_epoch().await?);
        }
        self.padded(&reports).await?;
        self.tied(&reports).await?;
        self.errands(&reports).await?;
        self.kept_pace(&pace)?;
        Ok(reports)
    }

    /// SIGKILL in the middle of an epoch, and a start on the same folder.
    async fn killed_validator(&mut self) -> Result<()> {
        let middle = u64::from(self.network.plan.tempo) / 3;
        let in_the_middle = move |s: &[Option<Status>]| s.iter().flatten().any(|s| s.chain.into_epoch >= middle);
        let epoch = self.network.plan.epoch();
        self.until("the middle of an epoch", PATIENCE + epoch, in_the_middle).await?;
        let victim = self.network.plan.founders - 1;
        let process = self.network.validators.get_mut(victim).and_then(Option::as_mut);
        process.ok_or_else(|| eyre!("no such validator"))?.kill().await?;
        let at = height(&self.look().await);
        self.until("blocks go on without the killed validator", PATIENCE, |s| height(s) >= at + 5).await?;
        let process = self.network.validators.get_mut(victim).and_then(Option::as_mut);
        process.ok_or_else(|| eyre!("no such validator"))?.restart()?;
        let back = move |s: &[Option<Status>]| {
            let top = height(s);
            s.get(victim).and_then(Option::as_ref).is_some_and(|v| !v.syncing && v.height + 1 >= top)
        };
        let waited = self.until("the killed validator is back", PATIENCE, back).await?;
        self.did("a validator was killed with SIGKILL in the middle of an epoch and started again", waited);
        Ok(())
    }

    /// A bit of one row flips in a validator's database: it must notice, set the database aside, and
    /// come back with the others' state.
    async fn damaged_validator(&mut self) -> Result<()> {
        let victim = self.network.plan.founders - 1;
        let dir = self.network.plan.validators[victim].dir.clone();
        let genesis = crate::role::read_genesis(&self.network.plan.dir.join("genesis.json"))?;
        let process = self.network.validators.get_mut(victim).and_then(Option::as_mut);
        process.ok_or_else(|| eyre!("no such validator"))?.stop().await?;
        let database = Database::open(&dir, &genesis.network_id(), Options::default())?;
        if !database.flip_bit_under(b"history/")? {
            return Err(eyre!("the validator has no history to damage"));
        }
        drop(database);
        let process = self.network.validators.get_mut(victim).and_then(Option::as_mut);
        process.ok_or_else(|| eyre!("no such validator"))?.restart()?;
        let aside = move || {
            std::fs::read_dir(&dir)
                .is_ok_and(|d| d.flatten().any(|e| e.file_name().to_string_lossy().starts_with("quarantine-")))
        };
        let whole = move |s: &[Option<Status>]| {
            let top = height(s);
            aside()
                && s.get(victim).and_then(Option::as_ref).is_some_and(|v| v.member && !v.syncing && v.height + 1 >= top)
        };
        let waited = self.until("the damaged validator has restored itself", PATIENCE, whole).await?;
        self.did("a bit flipped in a validator's database: it set that aside and restored itself", waited);
        Ok(())
    }

    /// The first validator gets its next consensus key, as `perturb keys rotate` makes it, and starts again.
    async fn next_key(&mut self) -> Result<ConsensusKey> {
        let network = crate::role::read_genesis(&self.network.plan.dir.join("genesis.json"))?.network_id();
        let member = self.network.plan.validators.first().ok_or_else(|| eyre!("no validator"))?;
        let key = make_next(&member.dir)?;
        // Not signed by the hotkey: the node that has it does that.
        let file = DelegationFile::accept(network, member.hotkey.hotkey(), &key, 1, None);
        file.create(&waiting(&member.dir))?;
        let process = self.network.validators.first_mut().and_then(Option::as_mut);
        let process = process.ok_or_else(|| eyre!("no such validator"))?;
        process.stop().await?;
        process.restart()?;
        Ok(key.public())
    }

    async fn key_changed(&mut self, key: ConsensusKey) -> Result<()> {
        let signs = move |s: &[Option<Status>]| {
            let top = height(s);
            let first = s.first().and_then(Option::as_ref);
            first.is_some_and(|v| v.consensus_key == key && v.member && !v.syncing && v.height + 1 >= top)
        };
        let waited = self.until("the validator signs with its next consensus key", PATIENCE, signs).await?;
        self.did("a validator changed its consensus key with the epoch", waited);
        Ok(())
    }

    async fn absent_miner(&mut self) -> Result<()> {
        let all = self.network.plan.miners.len();
        let Some(i) = all.checked_sub(1) else { return Ok(()) };
        if let Some(m) = self.network.miners.get_mut(i) {
            m.stop().await?;
        }
        self.until("the miner is gone", PATIENCE, |s| miners_of(s).iter().any(|n| *n < all)).await?;
        if let Some(m) = self.network.miners.get_mut(i) {
            m.restart()?;
        }
        let waited = self.until("the miner is back", PATIENCE, |s| miners_of(s).iter().all(|n| *n >= all)).await?;
        self.did("a miner disappeared and came back", waited);
        Ok(())
    }

    /// A validator absent from genesis joins with an empty folder. The others have pruned the first
    /// epochs' blocks, so it begins with a snapshot.
    async fn late_validator(&mut self) -> Result<()> {
        let i = self.network.plan.founders;
        let errands = self.network.plan.errands();
        let errands = errands.to_str().ok_or_else(|| eyre!("the folder's name is no text"))?.to_owned();
        self.network.start_validator_with(i, &["--drill", "equivocate,errands", "--drill-dir", &errands])?;
        let up = move |s: &[Option<Status>]| {
            let top = height(s);
            s.get(i).and_then(Option::as_ref).is_some_and(|v| !v.syncing && v.height + 2 >= top)
        };
        let waited = self.until("the fifth validator has caught up", PATIENCE, up).await?;
        let status = self.look().await.into_iter().nth(i).flatten();
        let oldest = status.map_or(0, |s| s.oldest_block);
        if oldest <= 1 {
            return Err(eyre!("the fifth validator has all blocks, which the others should have pruned"));
        }
        let what =
            format!("a fifth validator joined with an empty data folder: snapshot of height {oldest}, then blocks");
        self.did(&what, waited);
        Ok(())
    }

    /// The fifth validator contradicts its own votes: the others' evidence must come into the state.
    async fn caught(&mut self) -> Result<()> {
        let began = Instant::now();
        let liar = self.network.plan.validators.get(self.network.plan.founders).map(|v| v.hotkey.hotkey());
        let network = &self.network;
        super::network::eventually("the evidence against the fifth validator is in the state", PATIENCE, async || {
            network.members().await.iter().any(|v| Some(v.hotkey) == liar && v.equivocations.iter().sum::<u64>() > 0)
        })
        .await?;
        let proofs: u64 = self
            .network
            .members()
            .await
            .iter()
            .filter(|v| Some(v.hotkey) == liar)
            .map(|v| v.equivocations.iter().sum::<u64>())
            .sum();
        self.did(
            &format!("the fifth validator contradicted its votes: {proofs} proofs of it are in the agreed state"),
            began.elapsed(),
        );
        Ok(())
    }

    /// A miner pads all its answers to 4 MiB, and no validator has room for two of them: they are not taken,
    /// the stores stay within their limit, and rounds go on there.
    async fn padded(&mut self, reports: &[EpochReport]) -> Result<()> {
        let began = Instant::now();
        let network = &self.network;
        super::network::eventually("the validators' images have met their limit", PATIENCE, async || {
            network.measured("perturb_images_dropped_total").await.iter().any(|rounds| *rounds > 0)
        })
        .await?;
        let most = self.network.measured("perturb_images_bytes").await.into_iter().max().unwrap_or(0);
        if most > super::network::DRILL_IMAGE_MIB << 20 {
            return Err(eyre!("a validator keeps {most} bytes of images, more than it may"));
        }
        // Not the late one: who asks about others' images may have lost its place by now.
        let founders = self.network.plan.founders;
        let before: Vec<u64> = self.look().await.iter().map(|s| s.as_ref().map_or(0, |s| s.rounds.closed)).collect();
        let more = move |s: &[Option<Status>]| {
            let founders = s.iter().zip(&before).take(founders);
            founders.into_iter().all(|(s, before)| s.as_ref().is_some_and(|s| s.rounds.closed >= before + 2))
        };
        self.until("everybody closes rounds with a full store", PATIENCE, more).await?;
        let most_paid = self.aggregates(reports, Kind::Padding).fold(0.0, f64::max);
        if most_paid > 0.0 {
            return Err(eyre!("the padding miner has aggregate {most_paid}"));
        }
        let what =
            format!("a miner padded its answers to 4 MiB: none was taken, at most {most} bytes of images are kept");
        self.did(&what, began.elapsed());
        Ok(())
    }

    /// What a kind of miner was worth in each epoch that ranked it.
    fn aggregates<'a>(&self, reports: &'a [EpochReport], kind: Kind) -> impl Iterator<Item = f64> + use<'a> {
        let miner = self.network.plan.miners.iter().find(|m| m.kind == Some(kind)).map(|m| m.hotkey.hotkey());
        reports.iter().flat_map(|r| &r.miners).filter(move |m| Some(m.hotkey) == miner).map(|m| m.aggregate)
    }

    /// A miner leaves two wrong classes as good as equal: whoever looks again must find no fault with those who judged.
    async fn tied(&mut self, reports: &[EpochReport]) -> Result<()> {
        let began = Instant::now();
        let plan = &self.network.plan;
        let founders: Vec<_> = plan.validators.iter().take(plan.founders).map(|v| v.hotkey.hotkey()).collect();
        let members = self.network.members().await;
        let struck = members.iter().find(|v| founders.contains(&v.hotkey) && v.failed_checks.iter().sum::<u64>() > 0);
        if let Some(struck) = struck {
            return Err(eyre!("the honest validator {} failed checks", struck.hotkey));
        }
        let held: u64 = self.network.measured("perturb_checks_hold").await.into_iter().sum();
        let worth = self.aggregates(reports, Kind::Ties).fold(0.0, f64::max);
        if held == 0 || worth == 0.0 {
            return Err(eyre!("ties were worth {worth}, and {held} rounds were found to hold: nothing was shown"));
        }
        let what = format!("a miner aimed at ties: {held} times a drawn round was found to hold, no honest one failed");
        self.did(&what, began.elapsed());
        Ok(())
    }

    /// The fifth validator asks about others' images for a miner of its own, which gets nothing from it; the honest
    /// miner keeps what it had, and heights keep their pace.
    async fn errands(&mut self, reports: &[EpochReport]) -> Result<()> {
        let began = Instant::now();
        let fetched = Errands::open(&self.network.plan.errands())?.answered();
        let gained = self.aggregates(reports, Kind::Errands).fold(0.0, f64::max);
        if fetched == 0 || gained > 0.0 {
            return Err(eyre!("{fetched} answers were fetched for others' images, and were worth {gained}"));
        }
        let honest: Vec<f64> = self.aggregates(reports, Kind::Gradient).collect();
        let [first, .., last] = honest[..] else { return Err(eyre!("no two epochs ranked the gradient miner")) };
        if last < first * LEAST_KEPT {
            return Err(eyre!("the gradient miner fell from {first:.3} to {last:.3}"));
        }
        let what = format!(
            "a validator asked about others' images for a miner of its own: {fetched} answers came, all too late; \
             the honest miner went from {first:.3} to {last:.3}"
        );
        self.did(&what, began.elapsed());
        Ok(())
    }

    /// Heights keep their pace beside all of this.
    fn kept_pace(&mut self, pace: &Pace) -> Result<()> {
        let genesis = crate::role::read_genesis(&self.network.plan.dir.join("genesis.json"))?;
        let idle = u64::from(genesis.parameters.block_interval_ms);
        let took = pace.percentile(95).ok_or_else(|| eyre!("no heights were seen"))?;
        if took * 5 > idle * 6 {
            return Err(eyre!("a twentieth of the heights took longer than {took} ms; idle ones take {idle} ms"));
        }
        self.did(&format!("19 of 20 heights took {took} ms at the most beside it, of {idle} ms"), Duration::ZERO);
        Ok(())
    }

    async fn chain_away(&mut self) -> Result<()> {
        let began = Instant::now();
        self.network.chain.stop().await?;
        let at = height(&self.look().await);
        let away = move |s: &[Option<Status>]| began.elapsed() >= CHAIN_AWAY && height(s) >= at + 5;
        self.until("blocks go on without the chain", PATIENCE, away).await?;
        self.network.chain.restart_and_listen(Duration::from_secs(30)).await?;
        let back = |s: &[Option<Status>]| s.iter().flatten().all(|s| s.chain.connected);
        let waited = self.until("everybody sees the chain again", PATIENCE, back).await?;
        self.did(&format!("the chain was away for {} s", CHAIN_AWAY.as_secs()), waited);
        Ok(())
    }

    async fn bootnode_gone(&mut self) -> Result<()> {
        self.network.bootnode.stop().await?;
        let at = height(&self.look().await);
        let waited = self.until("blocks go on without the bootnode", PATIENCE, |s| height(s) >= at + 5).await?;
        self.did("the bootnode was stopped for good", waited);
        Ok(())
    }
}
