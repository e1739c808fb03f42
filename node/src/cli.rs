//! The command line. Secrets are never taken here: they come from the environment or from files.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::AnchorPolicy;
use crate::localnet::plan::TEMPO;
use crate::localnet::scenario::Scenario;
use serde::Serialize;

pub use crate::keys::KeysCommand;

/// Perturb: a validator network that pays for adversarial examples.
#[derive(Debug, Parser)]
#[command(name = "perturb", version, propagate_version = true)]
pub struct Cli {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands, by role.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a validator.
    Validator(ValidatorArgs),
    /// Run a miner.
    Miner(MinerArgs),
    /// Run a bootnode.
    Bootnode(BootnodeArgs),
    /// Run a whole network of processes on this machine and watch it.
    Localnet(LocalnetArgs),
    /// Make, bring in, delegate, rotate and check keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Train and inspect models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Look at an image set: its size, labels and fingerprint, as a challenge's configuration names them.
    Images(ImagesArgs),
    /// Ask a running validator how it is.
    Status(StatusArgs),
    /// Score an adversarial image as a validator would.
    Score(ScoreArgs),
    /// Attack images, and judge what was found as a validator would.
    Attack(AttackArgs),
    /// Look after a node's database.
    #[command(subcommand)]
    Db(DbCommand),
    /// Take a snapshot of a stopped node's state, or begin a node from one.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Give orders to a network that one owns: challenges, parameters, versions.
    Owner(OwnerArgs),
}

/// Options shared by every role. Each can also come from the environment or the TOML file.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct CommonArgs {
    /// TOML file with any of these options (underscores for dashes).
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Folder for everything this process keeps [env PERTURB_DATA_DIR] [default: perturb-data].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The network's genesis file [env PERTURB_GENESIS] [default: genesis.json].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genesis: Option<PathBuf>,
    /// Multiaddress of a bootnode, repeatable [env PERTURB_BOOTNODES].
    #[arg(long = "bootnode", value_name = "MULTIADDR")]
    #[serde(rename = "bootnodes", skip_serializing_if = "Vec::is_empty")]
    pub bootnodes: Vec<String>,
    /// Address that the network listens on; TCP and QUIC use the same port
    /// [env PERTURB_P2P_LISTEN] [default: 0.0.0.0:9000].
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2p_listen: Option<SocketAddr>,
    /// Exempt loopback from the per-address limits: for networks on one machine only
    /// [env PERTURB_DEV_LOOPBACK].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev_loopback: Option<bool>,
    /// Take part in a network whose genesis file names the development beacon: everybody can foresee what its
    /// rounds draw. Never on a public chain [env PERTURB_DEVELOPMENT].
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub development: Option<bool>,
    /// WebSocket address of a Subtensor node, repeatable [env SUBTENSOR_ENDPOINT, comma-separated].
    #[arg(long = "subtensor-endpoint", value_name = "URL")]
    #[serde(rename = "subtensor_endpoints", skip_serializing_if = "Vec::is_empty")]
    pub subtensor_endpoints: Vec<String>,
    /// The subnet's number; must be the genesis file's [env NETUID].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netuid: Option<u16>,
    /// File with the hotkey's secret: a BIP39 phrase, 32 bytes of hex, a secret URI, or a wallet's file
    /// [env PERTURB_HOTKEY_FILE] [default: DATA_DIR/hotkey].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotkey_file: Option<PathBuf>,
    /// In its place a wallet of Bittensor's tools, by name [env PERTURB_WALLET].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet: Option<String>,
    /// The hotkey's name in the wallet [env PERTURB_WALLET_HOTKEY] [default: default].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallet_hotkey: Option<String>,
    /// The folder of all wallets [env PERTURB_WALLETS] [default: .bittensor/wallets in the home folder].
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wallets: Option<PathBuf>,
    /// File with the password of an encrypted hotkey; without it the terminal is asked
    /// [env PERTURB_PASSWORD_FILE].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Address of /livez, /readyz and /metrics [env PERTURB_HTTP_LISTEN] [default: 127.0.0.1:9615].
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<SocketAddr>,
    /// Torch threads [env PERTURB_TORCH_THREADS] [default: 1].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torch_threads: Option<u16>,
    /// Where models run: `cpu`, `auto`, `cuda` or `cuda:N` [env PERTURB_DEVICE] [default: cpu].
    #[arg(long, value_name = "DEVICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// `perturb validator`.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct ValidatorArgs {
    /// Shared options.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonArgs,
    /// Address of the JSON-RPC server [env PERTURB_RPC_LISTEN] [default: 127.0.0.1:8545].
    #[arg(long, value_name = "ADDR:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc_listen: Option<SocketAddr>,
    /// File with the drand beacon that weights are timelocked by, for development chains:
    /// `{"public_key": HEX, "genesis_ms": N, "period_ms": N}` [env PERTURB_BEACON_FILE] [default: quicknet].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon_file: Option<PathBuf>,
    /// How closed epochs are anchored on the chain; a commitment takes the place of the hotkey's earlier one, a
    /// remark costs a fee [env PERTURB_ANCHOR] [default: none].
    #[arg(long, value_name = "HOW")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor: Option<AnchorPolicy>,
    /// Every how many epochs; an anchor covers those before it [env PERTURB_ANCHOR_EVERY_EPOCHS] [default: 1].
    #[arg(long, value_name = "EPOCHS", value_parser = clap::value_parser!(u64).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchor_every_epochs: Option<u64>,
    /// Blocks behind from which a snapshot is fetched instead
    /// [env PERTURB_SNAPSHOT_AFTER_BLOCKS] [default: 5000].
    #[arg(long, value_name = "BLOCKS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_after_blocks: Option<u64>,
    /// Closed epochs whose blocks are kept [env PERTURB_KEEP_BLOCK_EPOCHS] [default: all].
    #[arg(long, value_name = "EPOCHS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_block_epochs: Option<u64>,
    /// Closed epochs whose states are kept, for replays [env PERTURB_KEEP_STATE_EPOCHS] [default: 8].
    #[arg(long, value_name = "EPOCHS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_state_epochs: Option<u64>,
    /// MiB of images that are kept, a quarter of it for copies of others' images; a round is opened only
    /// with room for all its images [env PERTURB_MAX_IMAGE_MIB] [default: 4096].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_image_mib: Option<u64>,
    /// Interface of the language model that judges meaning, where a challenge asks for one: `ollama` or
    /// `openai` [env PERTURB_LLM_API] [default: ollama].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_api: Option<String>,
    /// Its base address [env PERTURB_LLM_URL] [default: http://127.0.0.1:11434].
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_url: Option<String>,
    /// File with the key that it asks for [env PERTURB_LLM_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub llm_key_file: Option<PathBuf>,
    /// Misbehave on purpose (local networks): `equivocate` contradicts each of its own votes, `errands` asks miners
    /// about others' images for a miner of its own. Several, separated by commas.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
    /// Folder that a miner and a validator of one owner share, for the drill with errands.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_dir: Option<PathBuf>,
}

/// `perturb miner`.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct MinerArgs {
    /// Shared options.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonArgs,
    /// The attack: `ours`, `baseline` or another of `perturb attack`'s [env PERTURB_ATTACK] [default: ours].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    /// A model to have ready besides those of the genesis file, repeatable [env PERTURB_MODELS,
    /// comma-separated].
    #[arg(long = "model", value_name = "NAME")]
    #[serde(rename = "models", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Misbehave on purpose (local networks): `garbage`, `padding`, `ties`, `errands` with --drill-dir, or `slow`
    /// with --drill-delay-ms.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<String>,
    /// Folder that a miner and a validator of one owner share, for the drill with errands.
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_dir: Option<PathBuf>,
    /// How long a slow drill waits, milliseconds.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill_delay_ms: Option<u64>,
}

/// `perturb bootnode`.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct BootnodeArgs {
    /// Shared options.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonArgs,
}

/// `perturb localnet`.
#[derive(Debug, Clone, Args)]
pub struct LocalnetArgs {
    /// Validators.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub validators: u16,
    /// Miners: the gradient attacker, a weaker one, garbage, slow, and so on round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub miners: u16,
    /// Epochs with weights before the end.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub epochs: u16,
    /// Blocks of the chain in an epoch, a second each.
    #[arg(long, value_name = "BLOCKS", default_value_t = TEMPO, value_parser = clap::value_parser!(u16).range(15..=360))]
    pub tempo: u16,
    /// The rules that answers are scored by: `subnet` or `whitepaper`.
    #[arg(long, default_value = "subnet")]
    pub rules: String,
    /// Seed of all keys and of the demo data.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The subnet takes weights by timelocked commits alone.
    #[arg(long)]
    pub commit_reveal: bool,
    /// Play what may happen on the chain, in place of counted epochs.
    #[arg(long, value_name = "NAME", conflicts_with = "drill")]
    pub scenario: Option<Scenario>,
    /// Leave the network running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Kill, cut off and restart parts of it on the way.
    #[arg(long)]
    pub drill: bool,
    /// Folder for the processes' data and logs; emptied first.
    #[arg(long, default_value = "localnet")]
    pub dir: PathBuf,
    /// The dev chain's binary [default: beside this one].
    #[arg(long)]
    pub devchain: Option<PathBuf>,
}

/// `perturb model`.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Draw the demo images, train the demo classifier and write its weights.
    TrainDemo {
        /// The safetensors file to write.
        #[arg(long, default_value = "model/weights/demo.safetensors")]
        out: PathBuf,
        /// Seed of data and training.
        #[arg(long)]
        seed: Option<u64>,
        /// Torch threads.
        #[arg(long, default_value_t = 2)]
        threads: u16,
    },
    /// Draw images of the demo set as PNGs named INDEX-CLASS.png.
    Draw {
        /// The folder; made where missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seed of the set.
        #[arg(long)]
        seed: u64,
        /// The first image.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Images.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        count: u64,
    },
    /// Tell what the table says of a model; or check a weights file against the demo architecture and
    /// report its digest and accuracy.
    Inspect {
        /// A demo network's safetensors file [default: the embedded one].
        file: Option<PathBuf>,
        /// A model of the table in its place.
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        model: Option<String>,
        /// List its tensors too.
        #[arg(long, requires = "model")]
        tensors: bool,
    },
    /// The models of the table.
    List,
    /// Fetch a model's weights from the hub into its usual cache [env HF_HUB_CACHE, HF_HOME,
    /// HF_ENDPOINT]; only the pinned file is accepted.
    Pull {
        /// The model.
        model: String,
        /// Commit of the repository, in place of the pinned one.
        #[arg(long, value_name = "COMMIT", requires = "sha256")]
        revision: Option<String>,
        /// SHA-256 of model.safetensors, in place of the pinned one.
        #[arg(long, value_name = "HEX", requires = "revision")]
        sha256: Option<String>,
        /// The cache's folder.
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
    },
    /// Check weights against the table: digest, names, shapes and values of all tensors.
    Verify {
        /// The model.
        model: String,
        /// The weights, all shards in order [default: what was pulled].
        files: Vec<PathBuf>,
        /// The expected SHA-256, in place of the pinned one.
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        /// The cache's folder.
        #[arg(long, value_name = "DIR", conflicts_with = "files")]
        cache: Option<PathBuf>,
    },
    /// Minimal dense flip levels of the demo classifier over held-out images.
    Histogram {
        /// Images.
        #[arg(long, default_value_t = 1000)]
        images: u64,
    },
}

/// `perturb images`.
#[derive(Debug, Clone, Args)]
pub struct ImagesArgs {
    /// `demo:SEED:LEN`, `folder:PATH`, `imagenet-100:SPLIT@REVISION`, `parquet:PATH` or an https URL.
    pub source: String,
    /// Write image N as PNG: needs --out.
    #[arg(long, value_name = "N", requires = "out")]
    pub image: Option<u64>,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `perturb status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The validator's JSON-RPC address.
    #[arg(long, default_value = "http://127.0.0.1:8545")]
    pub rpc: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `perturb db`.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Check every block, certificate and row of a stopped node's database.
    Check {
        /// The node's data folder.
        #[arg(long, value_name = "DIR", default_value = "perturb-data")]
        data_dir: PathBuf,
        /// The network's genesis file.
        #[arg(long, value_name = "FILE", default_value = "genesis.json")]
        genesis: PathBuf,
    },
}

/// `perturb snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Write the state after a block into a new folder.
    Export {
        /// The node's data folder.
        #[arg(long, value_name = "DIR", default_value = "perturb-data")]
        data_dir: PathBuf,
        /// The network's genesis file.
        #[arg(long, value_name = "FILE", default_value = "genesis.json")]
        genesis: PathBuf,
        /// The block: the newest one (the default), or the end of an epoch that is kept.
        #[arg(long)]
        height: Option<u64>,
        /// The folder to make.
        out: PathBuf,
    },
    /// Check a snapshot and begin a node from it, in a data folder without a database.
    Import {
        /// The node's data folder.
        #[arg(long, value_name = "DIR", default_value = "perturb-data")]
        data_dir: PathBuf,
        /// The network's genesis file.
        #[arg(long, value_name = "FILE", default_value = "genesis.json")]
        genesis: PathBuf,
        /// A header that you know from elsewhere: the snapshot's own, or one that changed the set.
        #[arg(long, value_name = "HEIGHT:HASH", value_parser = crate::snapshot::point)]
        trust: Option<(u64, perturb_types::Digest)>,
        /// The snapshot's folder.
        folder: PathBuf,
    },
}

/// `perturb owner`.
#[derive(Debug, Clone, Args)]
pub struct OwnerArgs {
    /// A validator's JSON-RPC address.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8545")]
    pub rpc: String,
    /// File with the owner's hotkey secret.
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Height from which on the order holds: later than now by the network's delay of orders.
    #[arg(long, global = true, value_name = "HEIGHT", conflicts_with = "blocks")]
    pub at: Option<u64>,
    /// Or: so many blocks after the network's delay of orders.
    #[arg(long, global = true, default_value_t = 20)]
    pub blocks: u64,
    /// What to order.
    #[command(subcommand)]
    pub command: OwnerCommand,
}

/// The orders.
#[derive(Debug, Clone, Subcommand)]
pub enum OwnerCommand {
    /// Show the owner, the next nonce, and the orders that wait for their height.
    Show,
    /// Add a challenge.
    AddChallenge {
        /// JSON of the challenge, as in a genesis file.
        file: PathBuf,
    },
    /// Change a challenge; its open rounds end without blame.
    UpdateChallenge {
        /// JSON of the challenge, as in a genesis file.
        file: PathBuf,
    },
    /// End a challenge.
    RemoveChallenge {
        /// Its number.
        id: u16,
    },
    /// Require a program version.
    RequireVersion {
        /// As in 1.2.3.
        version: String,
    },
    /// Set the numbers that the whole network shares.
    SetParameters {
        /// JSON of all parameters, as in a genesis file.
        file: PathBuf,
    },
    /// Take back an order that waits.
    Revoke {
        /// Its nonce.
        nonce: u64,
    },
    /// Hand the network over.
    SetOwner {
        /// The new owner's hotkey, ss58.
        hotkey: String,
    },
}

/// `perturb score`.
#[derive(Debug, Clone, Args)]
pub struct ScoreArgs {
    /// The clean image, 8-bit RGB PNG.
    #[arg(required_unless_present = "pairs")]
    pub clean: Option<PathBuf>,
    /// The adversarial image.
    #[arg(required_unless_present = "pairs")]
    pub adversarial: Option<PathBuf>,
    /// Many at once: lines of clean image, adversarial image and milliseconds, separated by tabs; one JSON
    /// report a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["clean", "adversarial", "time_ms"])]
    pub pairs: Option<PathBuf>,
    /// `subnet` or `whitepaper`.
    #[arg(long, default_value = "subnet")]
    pub rules: String,
    /// Response time, milliseconds.
    #[arg(long, required_unless_present = "pairs")]
    pub time_ms: Option<u32>,
    /// ε of the 0..1 pixel range, in place of the preset's.
    #[arg(long)]
    pub epsilon: Option<f64>,
    /// `demo`, a model of `perturb model list`, NAME=FILE, a TorchScript file (.pt, .pt@SIDE) or a demo network's
    /// safetensors file; without it the flip is taken as given.
    #[arg(long)]
    pub model: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `perturb attack`.
#[derive(Debug, Clone, Args)]
pub struct AttackArgs {
    /// Clean images, 8-bit RGB PNG.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// `demo`, a model of `perturb model list`, NAME=FILE, a TorchScript file (.pt, .pt@SIDE) or a demo network's
    /// safetensors file.
    #[arg(long, default_value = "demo")]
    pub model: String,
    /// `subnet` or `whitepaper`.
    #[arg(long, default_value = "subnet")]
    pub rules: String,
    /// ours, baseline, fgsm, pgd, apgd-ce, apgd-dlr, apgd-t, deepfool, fmn, fab, fab-t, square or autoattack.
    #[arg(long, default_value = "ours")]
    pub attack: String,
    /// Time for each image, milliseconds [default: the rules' deadline].
    #[arg(long)]
    pub budget_ms: Option<u32>,
    /// Forward and backward passes for each image.
    #[arg(long, default_value_t = 100_000)]
    pub passes: u32,
    /// Radius of the ball, 8-bit levels [default: every level that counts, lowest first].
    #[arg(long)]
    pub epsilon: Option<f32>,
    /// Steps, iterations or queries [default: the authors'].
    #[arg(long)]
    pub steps: Option<u32>,
    /// pgd: step as a share of the radius; fmn: its first step in units of the pixel range.
    #[arg(long)]
    pub step_size: Option<f32>,
    /// Starts [default: the authors'].
    #[arg(long)]
    pub restarts: Option<u32>,
    /// A number of your own: other numbers give other bytes; 0 leaves the answer as it was found.
    #[arg(long, default_value_t = 0)]
    pub salt: u64,
    /// Images attacked at once; they share the time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: u16,
    /// cpu, auto, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub device: perturb_model::DeviceChoice,
    /// Torch threads.
    #[arg(long, default_value_t = 1)]
    pub threads: u16,
    /// Folder for the adversarial images and the amplified differences; made where missing.
    #[arg(long, value_name = "DIR", default_value = "adversarial")]
    pub out: PathBuf,
    /// Write a page with all pictures and numbers.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
}
