//! The command line of `perturb keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use perturb_types::{ConsensusKey, Hotkey};

/// Where a hotkey is kept.
#[derive(Debug, Clone, Default, Args)]
pub struct PlaceArgs {
    /// A key file: hex, a BIP39 phrase, a secret URI, or a wallet's own file.
    #[arg(value_name = "FILE", conflicts_with = "wallet")]
    pub file: Option<PathBuf>,
    /// Or a wallet of Bittensor's tools.
    #[arg(long, value_name = "NAME")]
    pub wallet: Option<String>,
    /// The hotkey's name in it [default: default].
    #[arg(long = "wallet-hotkey", visible_alias = "hotkey", value_name = "NAME", requires = "wallet")]
    pub hotkey: Option<String>,
    /// The folder of all wallets [default: .bittensor/wallets in the home folder].
    #[arg(long, value_name = "DIR", requires = "wallet")]
    pub wallets: Option<PathBuf>,
    /// File with the password of an encrypted key; without it the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// The node whose consensus key it is about.
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// The node's data folder.
    #[arg(long, value_name = "DIR", default_value = "perturb-data")]
    pub data_dir: PathBuf,
    /// The network's genesis file.
    #[arg(long, value_name = "FILE", default_value = "genesis.json")]
    pub genesis: PathBuf,
    /// Number of the delegation, above every earlier one of the hotkey [default: seconds since 1970].
    #[arg(long)]
    pub sequence: Option<u64>,
}

/// `perturb keys`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a new random hotkey, in a file or in a wallet.
    New {
        /// Where.
        #[command(flatten)]
        place: PlaceArgs,
        /// Encrypt it, as a wallet's file.
        #[arg(long)]
        encrypt: bool,
    },
    /// Bring in a hotkey from a BIP39 phrase, a seed in hex, a secret URI or a wallet's file.
    Import {
        /// Where it is to be kept.
        #[command(flatten)]
        place: PlaceArgs,
        /// File to read it from; without it standard input, or the terminal without showing it.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Encrypt it, as a wallet's file.
        #[arg(long)]
        encrypt: bool,
        /// Allow keys that everybody knows, such as //Alice.
        #[arg(long)]
        development: bool,
    },
    /// Show the public side of a hotkey, or of all keys in a data folder.
    Show {
        /// Which hotkey.
        #[command(flatten)]
        place: PlaceArgs,
        /// A node's data folder: its consensus keys, and the delegation that waits.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "wallet"])]
        data_dir: Option<PathBuf>,
    },
    /// Delegate from a hotkey to a consensus key: write the statement that both have signed.
    Delegate {
        /// The hotkey.
        #[command(flatten)]
        place: PlaceArgs,
        /// What `keys rotate --address` wrote on the node's machine; then no data folder is needed.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["data_dir", "genesis", "sequence", "founder"])]
        request: Option<PathBuf>,
        /// The node.
        #[command(flatten)]
        node: NodeArgs,
        /// Which of the node's consensus keys, where it has several (`keys show --data-dir` lists them).
        #[arg(long, value_name = "HEX", conflicts_with = "request")]
        key: Option<ConsensusKey>,
        /// For the genesis file of a network that is about to begin, as one of its founders.
        #[arg(long)]
        founder: bool,
        /// The file to write; without it the statement is printed.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a node's next consensus key; the node begins to sign with it when an epoch's set names it.
    Rotate {
        /// The hotkey, if it is to sign here; a running node signs with its own otherwise.
        #[command(flatten)]
        place: PlaceArgs,
        /// The hotkey's address, where its secret is on another machine [default: of DATA_DIR/hotkey].
        #[arg(long, value_name = "SS58", conflicts_with_all = ["file", "wallet"])]
        address: Option<Hotkey>,
        /// The first epoch that the new key is to sign in [default: the next one].
        #[arg(long, value_name = "EPOCH")]
        from_epoch: Option<u64>,
        /// The node.
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Check that a hotkey opens and is the one it should be; or a delegation, or a signature.
    Verify {
        /// The hotkey.
        #[command(flatten)]
        place: PlaceArgs,
        /// The address that it should have, or that should have signed.
        #[arg(long, value_name = "SS58")]
        address: Option<Hotkey>,
        /// A delegation's file to check in its place.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "wallet", "message"])]
        delegation: Option<PathBuf>,
        /// The genesis file of the network that the delegation should be for.
        #[arg(long, value_name = "FILE", requires = "delegation")]
        genesis: Option<PathBuf>,
        /// A file that was signed.
        #[arg(long, value_name = "FILE", requires = "signature", requires = "address", conflicts_with_all = ["file", "wallet"])]
        message: Option<PathBuf>,
        /// Its signature, hex of 64 bytes.
        #[arg(long, value_name = "HEX", requires = "message")]
        signature: Option<String>,
    },
}
