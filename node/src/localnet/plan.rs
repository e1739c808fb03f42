//! What a local network consists of: names, keys and ports, all from the seed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use color_eyre::eyre::{Context, Result, eyre};
use perturb_challenge::rules::Rules;
use perturb_types::{ConsensusPair, Digest, HotkeyPair};

use crate::keys;

/// The subnet of local networks.
pub const NETUID: u16 = 2;

/// Blocks of the dev chain per epoch, and their time: an epoch of about 45 s.
pub const TEMPO: u16 = 45;
/// Milliseconds per block of the dev chain.
pub const CHAIN_BLOCK_MS: u64 = 1000;

/// Stake of every validator in TAO: above the minimum of 1000.
pub const STAKE_TAO: u64 = 2000;

/// A miner's part in the play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The gradient attacker: level first, then sparsity.
    Gradient,
    /// A weaker attacker: dense sign-gradient steps.
    Weak,
    /// Wrong shape, out of range, clean image, forged signature, silence, in turn.
    Garbage,
    /// The gradient attacker, slow.
    Slow,
    /// A weaker attacker whose answers are padded to 4 MiB: in drills.
    Padding,
    /// A weaker attacker that leaves two wrong classes as good as equal: in drills.
    Ties,
    /// Computes nothing; a validator of its owner asks others about the image that came: in drills.
    Errands,
}

impl Kind {
    /// The four kinds, round and round.
    pub fn of(index: u16) -> Self {
        [Self::Gradient, Self::Weak, Self::Garbage, Self::Slow][usize::from(index) % 4]
    }

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gradient => "gradient",
            Self::Weak => "weak",
            Self::Garbage => "garbage",
            Self::Slow => "slow",
            Self::Padding => "padding",
            Self::Ties => "ties",
            Self::Errands => "errands",
        }
    }

    /// The arguments that make a miner of this kind.
    pub fn args(self) -> Vec<String> {
        let args: &[&str] = match self {
            Self::Gradient => &["--attack", "ours"],
            Self::Weak => &["--attack", "baseline"],
            Self::Garbage => &["--drill", "garbage"],
            Self::Slow => &["--attack", "ours", "--drill", "slow", "--drill-delay-ms", "1500"],
            Self::Padding => &["--attack", "baseline", "--drill", "padding"],
            Self::Ties => &["--attack", "baseline", "--drill", "ties"],
            Self::Errands => &["--drill", "errands"],
        };
        args.iter().map(|s| (*s).to_owned()).collect()
    }
}

/// One process with a key.
pub struct Member {
    /// `validator-1`, `miner-3`.
    pub name: String,
    /// Its data folder.
    pub dir: PathBuf,
    /// Its hotkey.
    pub hotkey: HotkeyPair,
    /// What it is, if a miner.
    pub kind: Option<Kind>,
    /// Where its network listens.
    pub p2p: SocketAddr,
    /// Health and metrics.
    pub http: SocketAddr,
    /// JSON-RPC (validators).
    pub rpc: SocketAddr,
}

/// Everything about a local network that follows from seed and size.
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The rules that answers are scored by.
    pub rules: Rules,
    /// Whether the subnet takes weights by timelocked commits alone.
    pub commit_reveal: bool,
    /// Blocks of the dev chain per epoch.
    pub tempo: u16,
    /// Milliseconds per block of the dev chain.
    pub chain_block_ms: u64,
    /// Whether the first validator's first endpoint is another chain from the same genesis.
    pub decoy: bool,
    /// Folder of everything.
    pub dir: PathBuf,
    /// The dev chain's port.
    pub chain: SocketAddr,
    /// The bootnode.
    pub bootnode: Member,
    /// The validators; in a drill the last one is absent from genesis.
    pub validators: Vec<Member>,
    /// How many of them are in genesis.
    pub founders: usize,
    /// The miners.
    pub miners: Vec<Member>,
}

/// A secret that follows from the seed. For local networks only: anyone can compute it.
pub fn seeded(seed: u64, what: &str) -> [u8; 32] {
    Digest::of(format!("perturb local network {seed}: {what}").as_bytes()).0
}

/// Finds a loopback port that is free for TCP and UDP. Ports are handed out once per plan: the
/// listeners are held until all are found, then released together.
struct Ports(Vec<(TcpListener, UdpSocket)>);

impl Ports {
    fn take(&mut self) -> Result<SocketAddr> {
        for _ in 0..64 {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).wrap_err("no free port on loopback")?;
            let addr = tcp.local_addr()?;
            if let Ok(udp) = UdpSocket::bind(addr) {
                self.0.push((tcp, udp));
                return Ok(addr);
            }
        }
        Err(eyre!("no loopback port is free for both TCP and UDP"))
    }
}

impl Plan {
    /// Makes the folders, writes the key files, and picks the ports.
    ///
    /// # Errors
    /// A folder or file cannot be written, or no port is free.
    pub fn new(dir: &Path, seed: u64, founders: u16, late: u16, miners: u16) -> Result<Self> {
        let mut ports = Ports(Vec::new());
        let mut member = |name: String, kind: Option<Kind>| -> Result<Member> {
            let data = dir.join(&name);
            let seed_bytes = seeded(seed, &name);
            keys::write_secret(&data.join("hotkey"), &seed_bytes)?;
            let hotkey = HotkeyPair::from_seed(&seed_bytes)?;
            Ok(Member { name, dir: data, hotkey, kind, p2p: ports.take()?, http: ports.take()?, rpc: ports.take()? })
        };
        let bootnode = member("bootnode".into(), None)?;
        let validators: Vec<Member> =
            (1..=founders + late).map(|i| member(format!("validator-{i}"), None)).collect::<Result<_>>()?;
        // Where trouble is played, more miners take part in it. Not the last one, which comes and goes.
        let mut kinds: Vec<Kind> = (0..miners).map(Kind::of).collect();
        if late > 0 {
            let last = kinds.len().saturating_sub(1);
            kinds.splice(last..last, [Kind::Padding, Kind::Ties, Kind::Errands]);
        }
        let miners: Vec<Member> =
            (1..).zip(kinds).map(|(i, kind)| member(format!("miner-{i}"), Some(kind))).collect::<Result<_>>()?;
        for v in &validators {
            keys::write_secret(&v.dir.join("consensus-key"), &seeded(seed, &format!("{} consensus", v.name)))?;
        }
        let chain = ports.take()?;
        let (rules, founders) = (Rules::subnet(), usize::from(founders));
        Ok(Self {
            seed,
            rules,
            commit_reveal: false,
            tempo: TEMPO,
            chain_block_ms: CHAIN_BLOCK_MS,
            decoy: false,
            dir: dir.into(),
            chain,
            bootnode,
            validators,
            founders,
            miners,
        })
    }

    /// The folder that the miner with errands shares with the late validator.
    pub fn errands(&self) -> PathBuf {
        self.dir.join("errands")
    }

    /// How long an epoch lasts.
    pub fn epoch(&self) -> Duration {
        Duration::from_millis(u64::from(self.tempo).saturating_mul(self.chain_block_ms))
    }

    /// Whether validators come later: trouble on purpose.
    pub fn is_drill(&self) -> bool {
        self.founders < self.validators.len()
    }

    /// The consensus key of a validator of this plan.
    pub fn consensus(&self, validator: &Member) -> ConsensusPair {
        ConsensusPair::from_seed(&seeded(self.seed, &format!("{} consensus", validator.name)))
    }

    /// The dev chain's genesis file: uids in the order validators, miners.
    pub fn chain_genesis(&self) -> serde_json::Value {
        let neuron = |m: &Member, stake: u64| {
            // A coldkey of its own for each: sampling takes one uid per coldkey and round.
            let cold = perturb_types::Hotkey(seeded(self.seed, &format!("{} coldkey", m.name)));
            serde_json::json!({
                "hotkey": m.hotkey.hotkey().to_string(),
                "coldkey": cold.to_string(),
                "stake": stake,
                "validator_permit": stake > 0,
                // For the fees of remarks.
                "balance_rao": if stake > 0 { 1_000_000_000 } else { 0 },
            })
        };
        let validators = self.validators.iter().map(|v| neuron(v, STAKE_TAO));
        let miners = self.miners.iter().map(|m| neuron(m, 0));
        serde_json::json!({
            "subnets": [{
                "netuid": NETUID,
                "tempo": self.tempo,
                "commit_reveal": self.commit_reveal,
                "neurons": validators.chain(miners).collect::<Vec<_>>(),
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_keys_and_no_port_twice() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = Plan::new(a.path(), 7, 3, 1, 5).unwrap();
        let two = Plan::new(b.path(), 7, 3, 1, 5).unwrap();
        let keys = |p: &Plan| -> Vec<_> { p.validators.iter().chain(&p.miners).map(|m| m.hotkey.hotkey()).collect() };
        assert_eq!(keys(&one), keys(&two));
        assert_eq!(one.chain_genesis(), two.chain_genesis());
        let mut ports: Vec<SocketAddr> =
            one.validators.iter().chain(&one.miners).flat_map(|m| [m.p2p, m.http, m.rpc]).collect();
        let n = ports.len();
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), n);
        let kinds: Vec<_> = one.miners.iter().map(|m| m.kind.unwrap().name()).collect();
        assert_eq!(kinds, ["gradient", "weak", "garbage", "slow", "padding", "ties", "errands", "gradient"]);
    }
}
