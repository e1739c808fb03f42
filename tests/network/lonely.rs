//! A network of one validator whose chain is away: enough to try what can happen to a node's disk,
//! ports and keys.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use perturb_challenge::rules::Rules;
use perturb_challenge::source::{DemoSource, ImageSource};
use perturb_ledger::genesis::{Aggregation, ChallengeSpec, Draws, Genesis, GenesisDelegation, Parameters, Timeouts};
use perturb_ledger::tx::Delegation;
use perturb_ledger::validators::PowerRule;
use perturb_ledger::{ChainReference, Neuron, Snapshot};
use perturb_types::{Beacon, ChallengeId, ConsensusPair, Digest, HotkeyPair, NetworkId};

use crate::program;

const SECRET: [u8; 32] = [1; 32];
const CONSENSUS: [u8; 32] = [2; 32];

/// The longest that anything may take: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An address that nothing listens on. Each test process has a loopback address of its own, so that
/// two that run at once are not given the same port.
pub fn free() -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let mine = std::net::Ipv4Addr::new(127, 1 + a % 100, b, c.clamp(1, 254));
    TcpListener::bind((mine, 0)).unwrap().local_addr().unwrap()
}

/// A network of one validator.
pub fn genesis() -> Genesis {
    let (hotkey, key) = (HotkeyPair::from_seed(&SECRET).unwrap(), ConsensusPair::from_seed(&CONSENSUS));
    let reference = ChainReference { number: 1, hash: Digest([1; 32]), epoch_index: 0 };
    let neuron = Neuron { uid: 0, hotkey: hotkey.hotkey(), coldkey: [0; 32], stake_rao: 5000, permit: true };
    let snapshot = Snapshot {
        reference,
        tempo: 10,
        min_allowed_weights: 1,
        max_weight_limit: u16::MAX,
        weights_version_key: 0,
        commit_reveal: false,
        mechanisms: 1,
        neurons: vec![neuron],
    };
    let weights = include_bytes!("../../model/weights/demo.safetensors");
    let challenge = ChallengeSpec {
        id: ChallengeId(0),
        mechanism: 0,
        rules: Rules::subnet(),
        model: "demo".into(),
        model_digest: Digest::of(weights),
        source: "demo:1:100".into(),
        source_fingerprint: DemoSource::new(1, 100).fingerprint(),
        source_len: 100,
        interval_ms: 1000,
        miners_per_round: 8,
        aggregation: Aggregation::Quantile,
        min_confidence: 50_000,
    };
    let timeouts = Timeouts {
        propose_ms: 500,
        propose_delta_ms: 100,
        prevote_ms: 100,
        prevote_delta_ms: 100,
        precommit_ms: 100,
        precommit_delta_ms: 100,
    };
    let parameters = Parameters {
        min_stake_rao: 1000,
        power: PowerRule::Equal,
        block_interval_ms: 20,
        max_block_transactions: 100,
        max_block_bytes: 1 << 20,
        max_rounds_per_epoch: 4,
        open_round_blocks: 5,
        burn_uid: 0,
        timeouts,
        spot_checks: Default::default(),
        reputation: Default::default(),
        min_work: 10,
        proposal_age_ms: 10_000,
        order_delay_blocks: 1,
        draws: Draws { delay_ms: 1_000, pulse_stride: 1, retention_blocks: 3_600 },
    };
    Genesis {
        chain_genesis: Digest([1; 32]),
        netuid: 2,
        time_ms: 1000,
        snapshot,
        delegations: vec![GenesisDelegation::of(&Delegation::sign(&NetworkId([0; 32]), &hotkey, &key, 0))],
        owner: hotkey.hotkey(),
        challenges: vec![challenge],
        parameters,
        beacon: Beacon::DEVELOPMENT,
    }
}

/// The validator's ground.
pub struct Lonely {
    _dir: tempfile::TempDir,
    /// Its data folder.
    pub data: PathBuf,
    genesis: PathBuf,
    /// Where it answers.
    pub rpc: SocketAddr,
}

impl Lonely {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, file) = (dir.path().join("data"), dir.path().join("genesis.json"));
        fs::create_dir(&data).unwrap();
        fs::write(&file, serde_json::to_vec(&genesis()).unwrap()).unwrap();
        let this = Self { data, genesis: file, rpc: free(), _dir: dir };
        this.give_key(&this.data);
        this
    }

    /// Changes the genesis file to that of another subnet, which is another network.
    pub fn be_of_subnet(&self, netuid: u16) {
        let mut genesis: serde_json::Value = serde_json::from_slice(&fs::read(&self.genesis).unwrap()).unwrap();
        genesis["netuid"] = netuid.into();
        fs::write(&self.genesis, genesis.to_string()).unwrap();
    }

    /// Puts the consensus key into a data folder.
    pub fn give_key(&self, data: &Path) {
        fs::write(data.join("consensus-key"), hex::encode(CONSENSUS)).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(data.join("consensus-key"), private).unwrap();
    }

    /// Arguments of `perturb validator`; a flag given again in `extra` replaces the one here.
    pub fn args(&self, data: &Path, extra: &[(&str, &str)]) -> Vec<String> {
        let given = |flag: &str, usual: String| {
            let value = extra.iter().find(|(f, _)| *f == flag).map_or(usual, |(_, v)| (*v).to_owned());
            [flag.to_owned(), value]
        };
        let mut args = vec!["validator".to_owned()];
        args.extend(given("--data-dir", data.display().to_string()));
        args.extend(given("--genesis", self.genesis.display().to_string()));
        args.extend(given("--subtensor-endpoint", format!("ws://{}", free())));
        args.extend(given("--p2p-listen", free().to_string()));
        args.extend(given("--http-listen", free().to_string()));
        args.extend(given("--rpc-listen", self.rpc.to_string()));
        args.extend(given("--dev-loopback", "true".into()));
        args.extend(given("--development", "true".into()));
        args
    }

    /// A command with the validator's environment: the secret is never an argument.
    pub fn environment(command: &mut Command) -> &mut Command {
        command
            .env("VALIDATOR_SECRET_KEY", hex::encode(SECRET))
            .env("NO_COLOR", "1")
            .env("RUST_LOG", "info")
            .env_remove("SUBTENSOR_ENDPOINT")
            .env_remove("NETUID")
            .stdin(Stdio::null())
    }

    /// Starts the validator.
    pub fn start(&self, extra: &[(&str, &str)]) -> Running {
        let mut command = Command::new(program("perturb"));
        command.args(self.args(&self.data, extra));
        Running::spawn(Self::environment(&mut command))
    }

    /// The agreed height, once the validator answers.
    pub fn height(&self) -> Option<u64> {
        let out = Command::new(program("perturb"))
            .args(["status", "--json", "--rpc", &format!("http://{}", self.rpc)])
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&out.stdout).ok()?["height"].as_u64()
    }

    /// Waits until the validator has gone beyond a height.
    pub fn until_height(&self, running: &mut Running, above: u64) -> u64 {
        let start = Instant::now();
        loop {
            if let Some(height) = self.height().filter(|h| *h > above) {
                return height;
            }
            if let Some(status) = running.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", running.said());
            }
            assert!(start.elapsed() < PATIENCE, "never above height {above}");
        }
    }
}

/// A process, killed with the test.
pub struct Running {
    pub child: Child,
    /// Both streams: a pipe that nobody reads would stop it.
    log: tempfile::NamedTempFile,
}

impl Running {
    /// Starts a command.
    pub fn spawn(command: &mut Command) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let writer = fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        let child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
        Self { child, log }
    }

    /// What it has said so far.
    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log.path()).unwrap()).into_owned()
    }

    /// Waits for its end and returns what it said.
    pub fn output(mut self) -> String {
        self.child.wait().unwrap();
        self.said()
    }

    /// Waits until it has ended by itself with a failure, and returns what it said.
    pub fn failure(mut self) -> String {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let said = self.said();
                assert!(!status.success(), "it should have failed: {said}");
                assert!(!said.contains("panicked"), "{said}");
                return said;
            }
            assert!(start.elapsed() < PATIENCE, "it still runs");
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether somebody listens there.
pub fn listens(at: SocketAddr) -> bool {
    TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok()
}
