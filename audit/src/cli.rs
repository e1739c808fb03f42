//! The command line.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use perturb_audit::bundle::{self, Known};
use perturb_audit::error::{AuditError, Verdict};
use perturb_audit::http::Http;
use perturb_audit::replay::Mode;
use perturb_audit::report::Report;
use perturb_audit::source::Source;
use perturb_audit::{Bundle, Nodes, TrustAnchor, anchors, cert, replay, root, round, score, verify, weights};
use perturb_ledger::Genesis;
use perturb_types::{ChallengeId, Digest, Hotkey, NetworkId, RoundId};

/// Bytes of a genesis file: a full subnet's neurons.
const MAX_GENESIS_BYTES: u64 = 16 << 20;

/// Checks what a Perturb network says of itself: certificates, scores, rounds, weights. Exit codes:
/// 0 proved, 1 invalid, 2 usage, 3 unavailable, 4 untrusted.
#[derive(Parser)]
#[command(name = "perturb-audit", version)]
pub struct Cli {
    /// Print JSON instead of a tree.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    trust: TrustArgs,
    /// A node's JSON-RPC URL; give several to compare them.
    #[arg(long = "node", global = true, value_name = "URL")]
    nodes: Vec<String>,
    /// Seconds that one request may take.
    #[arg(long, global = true, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

/// Where trust begins: a genesis file, or a network id with one trusted header.
#[derive(Args)]
struct TrustArgs {
    /// The network's genesis file; its hash is the network id.
    #[arg(long, global = true, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// The network id, in hex.
    #[arg(long, global = true, value_name = "ID")]
    network: Option<NetworkId>,
    /// A trusted header.
    #[arg(long, global = true, value_name = "HEIGHT:DIGEST", value_parser = point)]
    trust: Option<(u64, Digest)>,
}

/// Which chain, and where in it.
#[derive(Args)]
struct ChainArgs {
    /// A chain node's JSON-RPC URL over HTTP; several are asked in order.
    #[arg(long = "chain", value_name = "URL", required = true)]
    chains: Vec<String>,
    /// The chain's block; the newest finalized one without.
    #[arg(long, value_name = "HASH")]
    at: Option<Digest>,
    /// The subnet, where no genesis file says it.
    #[arg(long)]
    netuid: Option<u16>,
}

impl ChainArgs {
    fn netuid(&self, genesis: Option<&Genesis>) -> Result<u16, AuditError> {
        let netuid = self.netuid.or_else(|| genesis.map(|g| g.netuid));
        netuid.ok_or_else(|| usage("no genesis file names the subnet: give --netuid"))
    }
}

#[derive(Subcommand)]
enum Command {
    /// A certified header, handed over from what is trusted; which nodes agree.
    Root {
        /// The height; the newest without.
        height: Option<u64>,
        /// Save the proof as a bundle.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// A certificate: every signature, voting power, who is missing, equivocations.
    Cert {
        /// The height.
        height: u64,
    },
    /// What an epoch came to for a miner, or that it is not in the record.
    Score {
        /// The miner's hotkey (ss58).
        #[arg(long)]
        miner: Hotkey,
        /// The epoch.
        #[arg(long)]
        epoch: u64,
        /// The challenge.
        #[arg(long, default_value_t = 0)]
        challenge: u16,
        /// Save the proof as a bundle.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// One signed round in its blocks.
    Round {
        /// The validator's hotkey (ss58).
        validator: Hotkey,
        /// The round's number.
        seq: u64,
        /// The challenge.
        #[arg(long, default_value_t = 0)]
        challenge: u16,
        /// Save the proof as a bundle.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// The agreed vector against what each validator has on chain.
    Weights {
        /// The epoch.
        #[arg(long)]
        epoch: u64,
        /// The challenge.
        #[arg(long, default_value_t = 0)]
        challenge: u16,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// What validators anchored on the chain, against the certified history.
    Anchors {
        /// The epoch that is to be covered; without, whatever there is.
        #[arg(long)]
        epoch: Option<u64>,
        #[command(flatten)]
        chain: ChainArgs,
    },
    /// An epoch computed again, bit for bit; needs the genesis file.
    Replay {
        /// The epoch.
        #[arg(long)]
        epoch: u64,
        /// The arithmetic only; signatures are left to the quorum that checked them.
        #[arg(long)]
        fast: bool,
    },
    /// A bundle, without any node.
    Verify {
        /// The file.
        file: PathBuf,
    },
}

fn point(text: &str) -> Result<(u64, Digest), String> {
    let (height, digest) = text.split_once(':').ok_or("expected HEIGHT:DIGEST")?;
    Ok((height.parse().map_err(|e| format!("height: {e}"))?, digest.parse().map_err(|e| format!("{e}"))?))
}

fn usage(why: impl ToString) -> AuditError {
    AuditError::Usage(why.to_string())
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, AuditError> {
    let failed = |e: std::io::Error| usage(format!("cannot read {}: {e}", path.display()));
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(usage(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

impl TrustArgs {
    fn genesis(&self) -> Result<Option<Genesis>, AuditError> {
        let Some(path) = &self.genesis else { return Ok(None) };
        let genesis = Genesis::load(&read(path, MAX_GENESIS_BYTES)?)?;
        match self.network {
            Some(id) if id != genesis.network_id() => {
                Err(AuditError::Untrusted(format!("the genesis file makes network {}, not {id}", genesis.network_id())))
            }
            _ => Ok(Some(genesis)),
        }
    }

    fn anchor(&self, genesis: Option<&Genesis>) -> Result<TrustAnchor, AuditError> {
        let network = self.network.or_else(|| genesis.map(Genesis::network_id));
        match (self.trust, network, genesis) {
            (Some((height, digest)), Some(network), _) => Ok(TrustAnchor::Header { network, height, digest }),
            (None, _, Some(genesis)) => Ok(TrustAnchor::Genesis(Box::new(genesis.clone()))),
            _ => Err(usage("nothing to trust: give --genesis FILE, or --network ID with --trust HEIGHT:DIGEST")),
        }
    }

    fn known(&self, genesis: Option<&Genesis>) -> Known {
        Known { network: self.network.or_else(|| genesis.map(Genesis::network_id)), point: self.trust }
    }
}

fn nodes(urls: &[String], timeout: Duration) -> Result<Nodes, AuditError> {
    let open = |url: &String| Http::new(url, timeout).map(|node| Box::new(node) as Box<dyn Source>);
    urls.iter().map(open).collect::<Result<_, _>>().map(Nodes)
}

/// Saves a bundle if one was asked for; a proof that cannot be written is no success.
fn save((mut report, bundle): (Report, Option<Bundle>), out: Option<PathBuf>) -> Report {
    use perturb_audit::report::Step;
    let (Some(path), Verdict::Ok) = (out, report.verdict) else { return report };
    let written = match bundle {
        Some(bundle) => fs::write(&path, bundle.to_bytes()).map_err(|e| e.to_string()),
        None => Err("there is nothing to prove about a trusted point".into()),
    };
    match written {
        Ok(()) => report.steps.push(Step::ok(format!("saved as {}", path.display()))),
        Err(e) => {
            report.verdict = Verdict::Usage;
            report.steps.push(Step::bad(format!("cannot write {}: {e}", path.display())));
        }
    }
    report
}

fn ask(cli: Cli) -> Result<Report, AuditError> {
    let genesis = cli.trust.genesis()?;
    if let Command::Verify { file } = &cli.command {
        let bytes = read(file, bundle::MAX_BYTES as u64)?;
        return Ok(verify::run(&file.display().to_string(), &bytes, &cli.trust.known(genesis.as_ref())));
    }
    let anchor = cli.trust.anchor(genesis.as_ref())?;
    let timeout = Duration::from_secs(cli.timeout);
    let asked = nodes(&cli.nodes, timeout)?;
    if asked.0.is_empty() {
        return Err(usage("no node to ask: give --node URL"));
    }
    Ok(match cli.command {
        Command::Root { height, out } => save(root::run(&anchor, &asked, height), out),
        Command::Cert { height } => cert::run(&anchor, &asked, height),
        Command::Score { miner, epoch, challenge, out } => {
            save(score::run(&anchor, &asked, epoch, ChallengeId(challenge), &miner), out)
        }
        Command::Round { validator, seq, challenge, out } => {
            let id = RoundId { validator, challenge: ChallengeId(challenge), seq };
            save(round::run(&anchor, &asked, &id), out)
        }
        Command::Weights { epoch, challenge, chain } => {
            let question = weights::Question {
                epoch,
                challenge: ChallengeId(challenge),
                netuid: chain.netuid(genesis.as_ref())?,
                chain_genesis: genesis.as_ref().map(|g| g.chain_genesis),
                at: chain.at,
            };
            weights::run(&anchor, &asked, &nodes(&chain.chains, timeout)?, &question)
        }
        Command::Anchors { epoch, chain } => {
            let question = anchors::Question {
                epoch,
                netuid: chain.netuid(genesis.as_ref())?,
                chain_genesis: genesis.as_ref().map(|g| g.chain_genesis),
                at: chain.at,
            };
            anchors::run(&anchor, &asked, &nodes(&chain.chains, timeout)?, &question)
        }
        Command::Replay { epoch, fast } => {
            let genesis = genesis.ok_or_else(|| usage("replay needs the rules of the network: give --genesis"))?;
            let mode = if fast { Mode::Fast } else { Mode::Exact };
            replay::run(&anchor, &genesis, &asked, epoch, mode)
        }
        // Answered above.
        Command::Verify { .. } => return Err(usage("verify asks no node")),
    })
}

/// Runs a command; what cannot be asked becomes a report too.
pub fn run(cli: Cli) -> Report {
    ask(cli).unwrap_or_else(|error| Report::failed("perturb-audit", Vec::new(), &error))
}
