//! The program from outside: its JSON-RPC, its refusals, its folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod calls;
mod commits;
mod development;
mod epochs;
mod killed;
mod upgrade;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jsonrpsee::core::ClientError;
use jsonrpsee::core::client::ClientT;
use jsonrpsee::core::params::ArrayParams;
use jsonrpsee::rpc_params;
use jsonrpsee::ws_client::{WsClient, WsClientBuilder};
use perturb_devchain::runtime::RuntimeEvent;
use scale::Decode;
use serde_json::{Value, json};
use sp_io::hashing::twox_128;

const NETUID: u16 = 2;
/// A chain that does not come up at all fails the test, a slow machine does not.
const PATIENCE: Duration = Duration::from_secs(60);
/// With 512 blocks kept, what a test was told of stays readable for 15 s.
const BLOCK_TIME_MS: &str = "30";

/// The program, killed with SIGKILL when dropped.
struct Chain {
    child: Child,
    genesis: String,
    rpc: WsClient,
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Chain {
    /// Starts the program on a folder; what it says instead, if it does not start.
    async fn open(folder: &Path, subnet: &Value) -> Result<Self, String> {
        Self::open_with(folder, &json!({"subnets": [subnet]})).await
    }

    /// The same with a whole genesis file.
    async fn open_with(folder: &Path, content: &Value) -> Result<Self, String> {
        let genesis = folder.join("genesis.json");
        std::fs::write(&genesis, content.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_perturb-devchain"));
        command.args(["--rpc-port", "0", "--block-time-ms", BLOCK_TIME_MS, "--genesis"]).arg(genesis);
        command.arg("--data-dir").arg(folder.join("chain"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["listening", url, "genesis", genesis] = words[..] else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert!(!child.wait().unwrap().success());
            return Err(said);
        };
        let rpc = WsClientBuilder::new().connection_timeout(PATIENCE).build(url).await.unwrap();
        Ok(Self { child, genesis: genesis.to_owned(), rpc })
    }

    async fn start(folder: &Path, subnet: &Value) -> Self {
        Self::open(folder, subnet).await.unwrap_or_else(|said| panic!("{said}"))
    }

    async fn ask(&self, method: &str, params: ArrayParams) -> Value {
        self.rpc.request(method, params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The error of a request that must fail: code, message, data.
    async fn refused(&self, method: &str, params: ArrayParams) -> (i32, String) {
        match self.rpc.request::<Value, _>(method, params).await {
            Err(ClientError::Call(error)) => {
                let data: Value = error.data().map_or(Value::Null, |data| serde_json::from_str(data.get()).unwrap());
                (error.code(), data.as_str().unwrap_or(error.message()).to_owned())
            }
            other => panic!("{method}: {other:?}"),
        }
    }

    /// A storage value of `SubtensorModule` at a block, `None` where there is none.
    async fn stored<T: Decode>(&self, item: &str, suffix: &[u8], at: &Value) -> Option<T> {
        self.stored_in("SubtensorModule", item, suffix, at).await
    }

    /// A storage value of any pallet at a block.
    async fn stored_in<T: Decode>(&self, pallet: &str, item: &str, suffix: &[u8], at: &Value) -> Option<T> {
        let key = storage_key(pallet, item, suffix);
        let value = self.ask("state_getStorage", rpc_params![key, at]).await;
        value.as_str().map(|text| T::decode(&mut &unhex(text)[..]).unwrap())
    }

    /// The events of a block.
    async fn events(&self, at: &Value) -> Vec<RuntimeEvent> {
        let value = self.ask("state_getStorage", rpc_params![storage_key("System", "Events", &[]), at]).await;
        type Records = Vec<frame_system::EventRecord<RuntimeEvent, sp_core::H256>>;
        let records = Records::decode(&mut &unhex(value.as_str().unwrap())[..]).unwrap();
        records.into_iter().map(|record| record.event).collect()
    }

    async fn head(&self) -> Value {
        self.ask("chain_getFinalizedHead", rpc_params![]).await
    }

    async fn number(&self, hash: &Value) -> u64 {
        let header = self.ask("chain_getHeader", rpc_params![hash]).await;
        let text = header["number"].as_str().unwrap_or_else(|| panic!("no block {hash}"));
        u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
    }

    /// The hash of a block that may not be made yet.
    async fn block_at(&self, number: u64) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let hash = self.ask("chain_getBlockHash", rpc_params![number]).await;
            if !hash.is_null() {
                return hash;
            }
            assert!(tokio::time::Instant::now() < deadline, "no block {number}");
        }
    }
}

/// In hex, from the names and the hashed keys: as clients build it, without the runtime's own types.
fn storage_key(pallet: &str, item: &str, suffix: &[u8]) -> String {
    let key = [&twox_128(pallet.as_bytes())[..], &twox_128(item.as_bytes()), suffix].concat();
    format!("0x{}", hex::encode(key))
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.strip_prefix("0x").unwrap()).unwrap()
}

fn account(seed: u8) -> String {
    format!("0x{}", hex::encode([seed; 32]))
}
