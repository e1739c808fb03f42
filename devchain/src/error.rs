//! What can go wrong.

use sp_core::H256;
use std::path::PathBuf;

/// A genesis file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// The text is no JSON, or a field is missing, unknown or of the wrong type.
    #[error("genesis: not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not an ss58 address.
    #[error("genesis: {0:?} is not an ss58 address")]
    Address(String),
    /// The netuid is 0 (root) or does not fit the storage index.
    #[error("genesis: netuid {0} is not between 1 and 4095")]
    Netuid(u16),
    /// The same netuid twice.
    #[error("genesis: subnet {0} occurs twice")]
    DuplicateSubnet(u16),
    /// A number of mechanisms that storage indices cannot express.
    #[error("genesis: {0} mechanisms; 1 to 16 are possible")]
    Mechanisms(u8),
    /// A number of epochs from commit to reveal that the chain does not allow.
    #[error("genesis: {0} epochs from commit to reveal; 1 to 100 are possible")]
    RevealPeriod(u64),
    /// A beacon too fast or too slow.
    #[error("genesis: the beacon's period of {0} ms is not between 100 ms and an hour")]
    BeaconPeriod(u64),
    /// More neurons than a subnet can have.
    #[error("genesis: {0} neurons in one subnet; at most 4096 are possible")]
    TooManyNeurons(usize),
    /// The same hotkey twice in one subnet.
    #[error("genesis: hotkey {0} occurs twice in one subnet")]
    DuplicateHotkey(String),
    /// An amount of TAO that does not fit 64 bits of rao.
    #[error("genesis: {0} TAO are more than 64 bits of rao")]
    Amount(u64),
}

/// A state file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process uses the folder.
    #[error("{0}: another development chain runs in this folder")]
    Locked(PathBuf),
    /// A record does not match its checksum, or is not what it should be.
    #[error("{path}: corrupt at byte {offset}: {what}; delete the folder to start a new chain")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the record starts.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The folder holds a chain with another genesis than the one asked for.
    #[error("{path}: holds the chain with genesis {found:?}, but the genesis file makes {expected:?}")]
    OtherGenesis {
        /// The file.
        path: PathBuf,
        /// Genesis hash of the stored chain.
        found: H256,
        /// Genesis hash of the file.
        expected: H256,
    },
}

/// A runtime call or block that failed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No such block, or its state has been pruned.
    #[error("unknown block: {0:?}, or its state is no longer kept")]
    UnknownBlock(H256),
    /// The runtime panicked on this input.
    #[error("the runtime failed: {0}")]
    Runtime(String),
    /// The runtime offers no such function.
    #[error("the runtime has no function {0:?} for callers from outside")]
    UnknownFunction(String),
    /// The argument bytes are not what the function takes.
    #[error("arguments of {0}: wrong encoding")]
    Arguments(String),
    /// The state database lacks something it must have.
    #[error("state: {0}")]
    State(String),
    /// The block could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the chain did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The genesis cannot be used.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The stored chain cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The first state could not be made.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The port could not be opened.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A method name was registered twice (a bug).
    #[error("JSON-RPC: {0}")]
    Rpc(String),
}
