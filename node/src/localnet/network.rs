//! The running processes and what can be asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use color_eyre::eyre::{Context, Result, bail, eyre};
use futures::future::join_all;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::core::params::ArrayParams;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use perturb_chain::{Beacon, ChainClient};
use perturb_types::{Digest, Hotkey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::plan::{Kind, Member, NETUID, Plan, STAKE_TAO};
use super::process::{Process, Spec};
use crate::report::{EpochReport, Status, ValidatorReport};

/// How long a process may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The file with the dev chain's beacon.
const BEACON_FILE: &str = "beacon.json";

/// MiB of images that a validator keeps in a drill: a quarter of one padded answer.
pub(super) const DRILL_IMAGE_MIB: u64 = 1;

/// Bytes of a node's metrics that are read: some hundred lines.
const MAX_METRICS_BYTES: u64 = 1 << 20;

/// How long a validator may take to answer.
const RPC_TIMEOUT: Duration = Duration::from_secs(3);

/// The processes of a local network.
pub struct Network {
    /// Names, keys, ports.
    pub plan: Plan,
    /// The dev chain.
    pub chain: Process,
    /// Another chain from the same genesis, and its address.
    pub decoy: Option<(Process, String)>,
    /// The bootnode.
    pub bootnode: Process,
    /// The validators, in the plan's order; `None` for one that has not been started.
    pub validators: Vec<Option<Process>>,
    /// The miners.
    pub miners: Vec<Process>,
    client: ChainClient,
    rpc: Vec<HttpClient>,
    chain_url: String,
    bootnode_addr: String,
}

fn sibling(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe().wrap_err("where is this program?")?;
    Ok(me.with_file_name(name))
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|s| (*s).to_owned()).collect()
}

fn path(p: &Path) -> String {
    p.display().to_string()
}

impl Network {
    /// Starts everything but the validators that are absent from genesis.
    ///
    /// # Errors
    /// A process cannot be started or does not say that it listens.
    pub async fn start(plan: Plan, devchain: Option<&Path>) -> Result<Self> {
        let program = match devchain {
            Some(p) => p.to_owned(),
            None => sibling("perturb-devchain")?,
        };
        let (chain, chain_url) = start_chain(&plan, &program, "devchain", plan.chain.port()).await?;
        let decoy = if plan.decoy { Some(start_chain(&plan, &program, "decoy", 0).await?) } else { None };
        let client = ChainClient::connect(std::slice::from_ref(&chain_url)).await?;

        let beacon = serde_json::to_vec_pretty(&beacon_of(plan.chain).await?)?;
        std::fs::write(plan.dir.join(BEACON_FILE), beacon)?;
        let genesis = plan.dir.join("genesis.json");
        super::genesis::write(&plan, &client, &genesis).await?;

        let mut args = strings(&["bootnode"]);
        args.extend(common(&plan.bootnode, &genesis));
        let spec = Spec { name: "bootnode".into(), program: sibling("perturb")?, args, dir: plan.dir.clone() };
        let (bootnode, line) = spec.start_and_listen(START_PATIENCE).await?;
        let bootnode_addr = line
            .strip_prefix("listening ")
            .ok_or_else(|| eyre!("the bootnode said `{line}` instead of where it listens"))?
            .trim()
            .to_owned();

        let rpc = plan.validators.iter().map(|v| client_of(v.rpc)).collect::<Result<_>>()?;
        let mut this = Self {
            validators: (0..plan.validators.len()).map(|_| None).collect(),
            miners: Vec::new(),
            plan,
            chain,
            decoy,
            bootnode,
            client,
            rpc,
            chain_url,
            bootnode_addr,
        };
        for i in 0..this.plan.founders {
            this.start_validator(i)?;
        }
        for i in 0..this.plan.miners.len() {
            let spec = this.miner_spec(i)?;
            this.miners.push(spec.start()?);
        }
        Ok(this)
    }

    fn joining(&self, role: &str, member: &Member) -> Vec<String> {
        let mut args = strings(&[role, "--bootnode", &self.bootnode_addr, "--subtensor-endpoint", &self.chain_url]);
        args.extend(common(member, &self.plan.dir.join("genesis.json")));
        args
    }

    fn miner_spec(&self, i: usize) -> Result<Spec> {
        let m = &self.plan.miners[i];
        let mut args = self.joining("miner", m);
        args.extend(m.kind.map(Kind::args).unwrap_or_default());
        if m.kind == Some(Kind::Errands) {
            args.extend(strings(&["--drill-dir", &path(&self.plan.errands())]));
        }
        Ok(Spec { name: m.name.clone(), program: sibling("perturb")?, args, dir: self.plan.dir.clone() })
    }

    /// Starts a validator of the plan.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_validator(&mut self, i: usize) -> Result<()> {
        self.start_validator_with(i, &[])
    }

    /// Starts a validator of the plan with more options.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_validator_with(&mut self, i: usize, more: &[&str]) -> Result<()> {
        let v = &self.plan.validators[i];
        let mut args = self.joining("validator", v);
        if let Some((_, url)) = self.decoy.as_ref().filter(|_| i == 0) {
            // Endpoints are tried in their order: this one comes first.
            args.splice(1..1, strings(&["--subtensor-endpoint", url]));
        }
        let beacon = self.plan.dir.join(BEACON_FILE);
        args.extend(strings(&["--rpc-listen", &v.rpc.to_string(), "--beacon-file", &path(&beacon)]));
        // The first pays for remarks, so that both kinds of anchor are seen.
        args.extend(strings(&["--anchor", if i == 0 { "remark" } else { "commitment" }]));
        if self.plan.is_drill() {
            // Who comes late finds no block of the first epochs, and must begin with a snapshot.
            args.extend(strings(&["--keep-block-epochs", "0"]));
            // Images of some forty rounds: fewer than an epoch has, so that their limit is met.
            args.extend(strings(&["--max-image-mib", &DRILL_IMAGE_MIB.to_string()]));
        }
        args.extend(strings(more));
        let spec = Spec { name: v.name.clone(), program: sibling("perturb")?, args, dir: self.plan.dir.clone() };
        self.validators[i] = Some(spec.start()?);
        Ok(())
    }

    /// Fails if a process ended by itself.
    ///
    /// # Errors
    /// Which one, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.chain.check()?;
        self.bootnode.check()?;
        for p in self.validators.iter_mut().flatten().chain(&mut self.miners) {
            p.check()?;
        }
        Ok(())
    }

    /// What the first validator that answers knows of the members.
    pub async fn members(&self) -> Vec<ValidatorReport> {
        for client in &self.rpc {
            if let Ok(members) = client.request("perturb_validators", rpc_params![]).await {
                return members;
            }
        }
        Vec::new()
    }

    /// The way to the first validator's JSON-RPC.
    ///
    /// # Errors
    /// There is no validator.
    pub fn first_rpc(&self) -> Result<HttpClient> {
        self.rpc.first().cloned().ok_or_else(|| eyre!("no validator"))
    }

    /// What the running validators measure under a name, one number each.
    pub async fn measured(&self, name: &str) -> Vec<u64> {
        let running = self.plan.validators.iter().zip(&self.validators).filter(|(_, process)| process.is_some());
        let texts = join_all(running.map(|(v, _)| metrics_of(v.http))).await;
        let value =
            |text: &String| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        texts.iter().flatten().filter_map(value).collect()
    }

    /// What every validator says; `None` for one that does not answer.
    pub async fn statuses(&self) -> Vec<Option<Status>> {
        join_all(self.rpc.iter().map(|c| async { c.request::<Status, _>("perturb_status", rpc_params![]).await.ok() }))
            .await
    }

    async fn reports(&self, epoch: u64) -> BTreeMap<Hotkey, EpochReport> {
        let asked =
            join_all(self.rpc.iter().map(|c| async move {
                c.request::<Option<EpochReport>, _>("perturb_epoch", rpc_params![epoch]).await
            }))
            .await;
        let keys = self.plan.validators.iter().map(|v| v.hotkey.hotkey());
        keys.zip(asked).filter_map(|(k, r)| Some((k, r.ok()??))).collect()
    }

    /// Closed epoch `next` (or the first closed one), once every validator that answers and is a member has it: one
    /// that has lost its permit may stand where it was cut off.
    pub async fn closed_epoch(&self, next: Option<u64>) -> Option<(EpochReport, BTreeMap<Hotkey, Digest>)> {
        let statuses = self.statuses().await;
        let newest = statuses.iter().flatten().map(|s| s.epoch).max()?;
        let epoch = next.unwrap_or(newest.checked_sub(1)?);
        if epoch >= newest {
            return None;
        }
        let reports = self.reports(epoch).await;
        let members = statuses.iter().flatten().filter(|s| s.member);
        let first = reports.values().next()?.clone();
        if members.into_iter().any(|s| !reports.contains_key(&s.hotkey)) {
            return None;
        }
        Some((first, reports.iter().map(|(v, r)| (*v, r.state_root)).collect()))
    }

    /// Hotkeys of the running validators that may put weights on chain for this epoch: those that
    /// have it.
    pub async fn members_of(&self, report: &EpochReport) -> BTreeSet<Hotkey> {
        self.reports(report.epoch).await.into_keys().collect()
    }

    /// Every validator's weights as the chain has them, newer than `since`, uids resolved to hotkeys.
    ///
    /// # Errors
    /// The chain is away.
    pub async fn weights_on_chain(&self, netuid: u16, since: u64) -> Result<BTreeMap<Hotkey, BTreeMap<Hotkey, u16>>> {
        let snapshot = self.client.snapshot(netuid, None).await?;
        let updated = self.client.last_update(netuid, 0, Some(snapshot.block_hash)).await?;
        let all = self.client.all_weights(netuid, 0, Some(snapshot.block_hash)).await?;
        let mut out = BTreeMap::new();
        for (uid, weights) in all {
            let Some(validator) = snapshot.by_uid(uid) else { continue };
            if updated.get(usize::from(uid)).is_none_or(|at| *at < since) {
                continue;
            }
            let named = weights.iter().filter_map(|(u, w)| Some((snapshot.by_uid(*u)?.hotkey, *w))).collect();
            out.insert(validator.hotkey, named);
        }
        Ok(out)
    }

    /// Hotkeys that the chain lets set weights: those with a permit and stake enough.
    ///
    /// # Errors
    /// The chain is away.
    pub async fn able_to_set_weights(&self, netuid: u16) -> Result<BTreeSet<Hotkey>> {
        let snapshot = self.client.snapshot(netuid, None).await?;
        let able = snapshot.neurons.into_iter().filter(|n| n.permit && n.stake_rao >= STAKE_TAO * 1_000_000_000);
        Ok(able.map(|n| n.hotkey).collect())
    }

    /// How many validators have weights on a mechanism.
    ///
    /// # Errors
    /// The chain is away.
    pub async fn rows_of(&self, netuid: u16, mecid: u8) -> Result<usize> {
        Ok(self.client.all_weights(netuid, mecid, None).await?.values().filter(|row| !row.is_empty()).count())
    }

    /// A call of the dev chain's JSON-RPC.
    ///
    /// # Errors
    /// It refuses, or is away.
    pub async fn dev(&self, method: &str, parameters: &[serde_json::Value]) -> Result<serde_json::Value> {
        let mut params = ArrayParams::new();
        for parameter in parameters {
            params.insert(parameter)?;
        }
        client_of(self.plan.chain)?.request(method, params).await.wrap_err_with(|| method.to_owned())
    }

    /// Ends everything, miners first.
    pub async fn stop(&mut self) {
        let all = self.miners.iter_mut().chain(self.validators.iter_mut().flatten());
        join_all(all.map(Process::stop)).await;
        let _ = self.bootnode.stop().await;
        let _ = self.chain.stop().await;
        if let Some((decoy, _)) = &mut self.decoy {
            let _ = decoy.stop().await;
        }
    }

    /// The subnet's number; the dev chain's only one.
    pub fn netuid(&self) -> u16 {
        NETUID
    }
}

fn client_of(addr: SocketAddr) -> Result<HttpClient> {
    HttpClientBuilder::default()
        .request_timeout(RPC_TIMEOUT)
        .build(format!("http://{addr}"))
        .wrap_err_with(|| format!("RPC client for {addr}"))
}

/// What a node measures, as its metrics' text; `None` where it does not answer.
async fn metrics_of(addr: SocketAddr) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(addr).await.ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut text = String::new();
        stream.take(MAX_METRICS_BYTES).read_to_string(&mut text).await.ok()?;
        Some(text)
    };
    tokio::time::timeout(RPC_TIMEOUT, ask).await.ok()?
}

/// Starts a chain from the plan's genesis; returns it with its address.
async fn start_chain(plan: &Plan, program: &Path, name: &str, port: u16) -> Result<(Process, String)> {
    let dir = plan.dir.join(name);
    std::fs::create_dir_all(&dir)?;
    let genesis = dir.join("genesis.json");
    std::fs::write(&genesis, serde_json::to_vec_pretty(&plan.chain_genesis())?)?;
    let (port, block_ms) = (port.to_string(), plan.chain_block_ms.to_string());
    let (genesis, data) = (path(&genesis), path(&dir));
    let args = ["--rpc-port", &port, "--block-time-ms", &block_ms, "--genesis", &genesis, "--data-dir", &data];
    let spec = Spec { name: name.into(), program: program.to_owned(), args: strings(&args), dir: plan.dir.clone() };
    let (chain, line) = spec.start_and_listen(START_PATIENCE).await?;
    let url = line.split_whitespace().find(|w| w.starts_with("ws://"));
    let url = url.ok_or_else(|| eyre!("{name} said `{line}` instead of where it listens"))?.to_owned();
    Ok((chain, url))
}

/// The beacon that the dev chain plays.
async fn beacon_of(chain: SocketAddr) -> Result<Beacon> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Info {
        public_key: String,
        genesis_time: u64,
        period_ms: u64,
    }
    let info: Info = client_of(chain)?.request("dev_beacon", rpc_params![]).await.wrap_err("the dev chain's beacon")?;
    let mut public_key = [0; 96];
    hex::decode_to_slice(info.public_key.trim_start_matches("0x"), &mut public_key).wrap_err("the beacon's key")?;
    Ok(Beacon { public_key, genesis_ms: info.genesis_time.saturating_mul(1000), period_ms: info.period_ms })
}

fn common(m: &Member, genesis: &Path) -> Vec<String> {
    strings(&[
        "--data-dir",
        &path(&m.dir),
        "--genesis",
        &path(genesis),
        "--p2p-listen",
        &m.p2p.to_string(),
        "--http-listen",
        &m.http.to_string(),
        "--dev-loopback",
        "true",
        "--development",
        "true",
        "--torch-threads",
        "1",
    ])
}

/// Waits until `holds` says so, asking every quarter of a second.
///
/// # Errors
/// It never did.
pub async fn eventually(what: &str, patience: Duration, mut holds: impl AsyncFnMut() -> bool) -> Result<()> {
    let end = tokio::time::Instant::now() + patience;
    while !holds().await {
        if tokio::time::Instant::now() > end {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}
