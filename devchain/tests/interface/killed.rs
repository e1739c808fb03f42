//! The program killed while it makes blocks: whatever a client was told of is there afterwards.

use jsonrpsee::rpc_params;
use serde_json::{Value, json};

use super::{Chain, NETUID, account, storage_key};

fn subnet() -> Value {
    json!({"netuid": NETUID, "tempo": 3})
}

/// What a client can see of a block: its header (with the state's root), its body, its events.
async fn block(chain: &Chain, hash: &Value) -> [Value; 3] {
    [
        chain.ask("chain_getHeader", rpc_params![hash]).await,
        chain.ask("chain_getBlock", rpc_params![hash]).await,
        chain.ask("state_getStorage", rpc_params![storage_key("System", "Events", &[]), hash]).await,
    ]
}

#[tokio::test]
async fn a_killed_chain_has_every_block_that_a_client_was_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut told: Vec<(Value, [Value; 3])> = vec![];
    let mut genesis = None;
    for round in 0..5u8 {
        let chain = Chain::start(folder.path(), &subnet()).await;
        assert_eq!(genesis.get_or_insert_with(|| chain.genesis.clone()), &chain.genesis);
        for (hash, seen) in &told {
            assert_eq!(&block(&chain, hash).await, seen, "round {round}");
            assert!(!seen[0].is_null() && !seen[2].is_null(), "{hash}");
            let number = &seen[0]["number"];
            assert_eq!(&chain.ask("chain_getBlockHash", rpc_params![number]).await, hash);
        }
        // A change is answered with its block; the head moves on by itself.
        let done = chain.ask("dev_registerHotkey", rpc_params![NETUID, account(round + 1), account(99)]).await;
        assert_eq!(done["uid"], json!(round), "the neurons of the rounds before are there");
        let mut hashes = vec![done["block"].clone()];
        // Ended by SIGKILL, each round at another point: at once, or some requests later.
        for _ in 0..round * 20 {
            hashes.push(chain.head().await);
        }
        hashes.dedup();
        for hash in hashes {
            let seen = block(&chain, &hash).await;
            told.push((hash, seen));
        }
    }
}

#[tokio::test]
async fn a_damaged_log_stops_the_start_with_file_and_offset_and_a_torn_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let chain = Chain::start(folder.path(), &subnet()).await;
    let done = chain.ask("dev_registerHotkey", rpc_params![NETUID, account(1), account(99)]).await;
    let seen = block(&chain, &done["block"]).await;
    drop(chain);
    let log = folder.path().join("chain").join("chain.log");
    let whole = std::fs::read(&log).unwrap();

    // As a power cut leaves it: part of a record's head, or a file that grew before its data arrived.
    for tail in [&whole[..11], &[0; 4096]] {
        std::fs::write(&log, [&whole[..], tail].concat()).unwrap();
        let chain = Chain::start(folder.path(), &subnet()).await;
        assert_eq!(block(&chain, &done["block"]).await, seen);
    }

    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for damaged in [&flipped[..], &[], &whole[..100]] {
        std::fs::write(&log, damaged).unwrap();
        let Err(said) = Chain::open(folder.path(), &subnet()).await else {
            panic!("a log of {} bytes was taken", damaged.len());
        };
        assert!(said.contains("chain.log") && said.contains("corrupt at byte"), "{said}");
        assert_eq!(std::fs::read(&log).unwrap(), damaged, "the log is left as it was");
    }
}
