//! One configuration from four places: flag over environment over TOML file over default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use perturb_chain::Beacon;
use perturb_challenge::file;
use perturb_model::{DeviceChoice, ModelError};
use perturb_storage::{Options, Retention};
use serde::{Deserialize, Serialize};

/// Bytes of a TOML file.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Bytes of a beacon's file: a key and two numbers.
const MAX_BEACON_BYTES: u64 = 4096;

/// How a validator anchors closed epochs on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AnchorPolicy {
    /// Not at all.
    None,
    /// As the hotkey's commitment on the subnet: free, and only the latest stays in the chain's state.
    Commitment,
    /// As a remark: it costs a fee.
    Remark,
}

/// What a role runs with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Folder for everything this process keeps.
    pub data_dir: PathBuf,
    /// The network's genesis file.
    pub genesis: PathBuf,
    /// Bootnodes' multiaddresses.
    pub bootnodes: Vec<String>,
    /// Where the network listens (TCP and QUIC).
    pub p2p_listen: SocketAddr,
    /// Loopback is exempt from the per-address limits.
    pub dev_loopback: bool,
    /// A network whose randomness everybody can foresee is taken.
    pub development: bool,
    /// WebSocket addresses of Subtensor nodes.
    pub subtensor_endpoints: Vec<String>,
    /// The drand beacon that weights are timelocked by (JSON), in place of quicknet.
    pub beacon_file: Option<PathBuf>,
    /// How closed epochs are anchored on the chain: `none`, `commitment` or `remark`.
    pub anchor: AnchorPolicy,
    /// Every how many epochs.
    pub anchor_every_epochs: u64,
    /// The subnet, if the operator wants it checked against the genesis file.
    pub netuid: Option<u16>,
    /// File with the hotkey's secret.
    pub hotkey_file: Option<PathBuf>,
    /// A wallet with the hotkey, by name.
    pub wallet: Option<String>,
    /// The hotkey's name in it.
    pub wallet_hotkey: Option<String>,
    /// The folder of all wallets.
    pub wallets: Option<PathBuf>,
    /// File with the password of an encrypted hotkey.
    pub password_file: Option<PathBuf>,
    /// Health and metrics.
    pub http_listen: SocketAddr,
    /// JSON-RPC (validators).
    pub rpc_listen: SocketAddr,
    /// Torch threads.
    pub torch_threads: u16,
    /// Where models run: `cpu`, `auto`, `cuda` or `cuda:N`.
    pub device: String,
    /// Blocks behind from which a validator fetches a snapshot instead.
    pub snapshot_after_blocks: u64,
    /// Closed epochs whose blocks a validator keeps; all of them where nothing is said.
    pub keep_block_epochs: Option<u64>,
    /// Closed epochs whose states a validator keeps for replays.
    pub keep_state_epochs: u64,
    /// MiB of images that a validator keeps.
    pub max_image_mib: u64,
    /// Where this machine has the image set that the network knows by another text.
    pub image_sources: BTreeMap<String, String>,
    /// The interface of the language model that judges meaning: `ollama` or `openai`.
    pub llm_api: String,
    /// Its base address.
    pub llm_url: String,
    /// File with the key that it asks for.
    pub llm_key_file: Option<PathBuf>,
    /// Models that a miner has ready besides those of the genesis file.
    pub models: Vec<String>,
    /// The miner's attack.
    pub attack: String,
    /// The miner's misbehaviour.
    pub drill: Option<String>,
    /// The folder that a miner and a validator of one owner share in a drill.
    pub drill_dir: Option<PathBuf>,
    /// How long a slow drill waits, milliseconds.
    pub drill_delay_ms: u64,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "perturb-data".into(),
            genesis: "genesis.json".into(),
            bootnodes: Vec::new(),
            p2p_listen: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9000),
            dev_loopback: false,
            development: false,
            subtensor_endpoints: Vec::new(),
            beacon_file: None,
            // It takes the place of what the hotkey may have committed there for another purpose.
            anchor: AnchorPolicy::None,
            anchor_every_epochs: 1,
            netuid: None,
            hotkey_file: None,
            wallet: None,
            wallet_hotkey: None,
            wallets: None,
            password_file: None,
            http_listen: loopback(9615),
            rpc_listen: loopback(8545),
            torch_threads: 1,
            // What every machine has and every machine computes alike.
            device: "cpu".into(),
            // Some minutes of fetching blocks.
            snapshot_after_blocks: 5_000,
            keep_block_epochs: None,
            keep_state_epochs: 8,
            // Some hundred rounds of 64 answers of incompressible noise at 224×224, which wait for their draw.
            max_image_mib: 4096,
            image_sources: BTreeMap::new(),
            llm_api: "ollama".into(),
            llm_url: "http://127.0.0.1:11434".into(),
            llm_key_file: None,
            models: Vec::new(),
            attack: "ours".into(),
            drill: None,
            drill_dir: None,
            drill_delay_ms: 2000,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is not there.
    #[error("configuration file {0} cannot be read: {1}; check the path")]
    File(PathBuf, std::io::Error),
    /// A value of the wrong kind, or an option nobody knows.
    #[error("configuration: {0}")]
    Value(Box<figment::Error>),
    /// Something that the role cannot do without.
    #[error("configuration: {0}")]
    Missing(String),
}

impl Config {
    /// The device that models run on.
    ///
    /// # Errors
    /// A text that names none, or one that is not here.
    pub fn device(&self) -> Result<tch::Device, ModelError> {
        self.device.parse::<DeviceChoice>()?.resolve()
    }

    /// The beacon that weights are timelocked by.
    ///
    /// # Errors
    /// A file that cannot be read, or is no beacon.
    pub fn beacon(&self) -> Result<Beacon, ConfigError> {
        let Some(path) = &self.beacon_file else { return Ok(Beacon::QUICKNET) };
        let text = file::read_text(path, MAX_BEACON_BYTES).map_err(|e| ConfigError::File(path.clone(), e))?;
        serde_json::from_str(&text).map_err(|e| ConfigError::Missing(format!("{} is no beacon: {e}", path.display())))
    }

    /// What a validator keeps of the past.
    pub fn retention(&self) -> Retention {
        let blocks_epochs = self.keep_block_epochs.unwrap_or(u64::MAX);
        Retention { blocks_epochs, state_epochs: self.keep_state_epochs, ..Retention::default() }
    }

    /// How a validator's database is opened: a replay of n epochs begins with the end of the one before.
    pub fn storage(&self) -> Options {
        Options {
            kept_epochs: self.keep_state_epochs.saturating_add(1),
            max_image_bytes: self.max_image_mib.saturating_mul(1 << 20),
            ..Options::default()
        }
    }

    /// Reads the configuration of a role from its flags, the environment, and the TOML file.
    ///
    /// Environment: `PERTURB_<OPTION>`, and the documented `SUBTENSOR_ENDPOINT` and `NETUID`.
    ///
    /// # Errors
    /// An unreadable file, a value of the wrong kind, an unknown option.
    pub fn load(flags: &impl Serialize, file: Option<&Path>) -> Result<Self, ConfigError> {
        let lists = |name: &str| -> Option<Vec<String>> {
            let text = std::env::var(name).ok()?;
            Some(text.split(',').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect())
        };
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            let text = file::read_text(path, MAX_FILE_BYTES).map_err(|e| ConfigError::File(path.into(), e))?;
            figment = figment.merge(Toml::string(&text));
        }
        figment = figment.merge(Env::prefixed("PERTURB_").ignore(&["bootnodes", "models", "config"]));
        if let Some(list) = lists("PERTURB_BOOTNODES") {
            figment = figment.merge(("bootnodes", list));
        }
        if let Some(list) = lists("PERTURB_MODELS") {
            figment = figment.merge(("models", list));
        }
        if let Some(list) = lists("SUBTENSOR_ENDPOINT") {
            figment = figment.merge(("subtensor_endpoints", list));
        }
        if let Ok(netuid) = std::env::var("NETUID") {
            let netuid: u16 = netuid
                .trim()
                .parse()
                .map_err(|_| ConfigError::Missing(format!("NETUID `{netuid}` is no subnet number")))?;
            figment = figment.merge(("netuid", netuid));
        }
        figment.merge(Serialized::defaults(flags)).extract().map_err(|e| ConfigError::Value(Box::new(e)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::result_large_err)]
    use super::*;
    use crate::cli::{CommonArgs, ValidatorArgs};
    use figment::Jail;

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        Jail::expect_with(|jail| {
            jail.create_file("c.toml", "torch_threads = 3\nattack = \"baseline\"\ndata_dir = \"from-file\"\n")?;
            jail.set_env("PERTURB_DATA_DIR", "from-env");
            jail.set_env("PERTURB_TORCH_THREADS", "4");
            jail.set_env("SUBTENSOR_ENDPOINT", "ws://a:1, ws://b:2");
            jail.set_env("NETUID", "7");
            let common = CommonArgs { torch_threads: Some(5), ..CommonArgs::default() };
            let flags = ValidatorArgs { common, ..ValidatorArgs::default() };
            let c = Config::load(&flags, Some(Path::new("c.toml"))).unwrap();
            assert_eq!(c.torch_threads, 5);
            assert_eq!(c.data_dir, PathBuf::from("from-env"));
            assert_eq!(c.attack, "baseline");
            assert_eq!(c.http_listen, Config::default().http_listen);
            assert_eq!(c.subtensor_endpoints, ["ws://a:1", "ws://b:2"]);
            assert_eq!(c.netuid, Some(7));
            Ok(())
        });
    }

    #[test]
    fn a_misspelt_option_and_a_missing_file_are_named() {
        Jail::expect_with(|jail| {
            jail.create_file("c.toml", "torch_treads = 3\n")?;
            let e = Config::load(&ValidatorArgs::default(), Some(Path::new("c.toml"))).unwrap_err();
            assert!(e.to_string().contains("torch_treads"), "{e}");
            let e = Config::load(&ValidatorArgs::default(), Some(Path::new("none.toml"))).unwrap_err();
            assert!(e.to_string().contains("none.toml"), "{e}");
            Ok(())
        });
    }
}
