//! The weights of every validator of a mechanism as a validator node reads them, as JSON: `{"uid": [[uid, value], …]}`.
//!
//! Usage: `weights URL NETUID MECID BLOCK_HASH`, for `make sdk-check`, which compares them with what the SDK reads.

use perturb_chain::{BlockHash, ChainClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: weights URL NETUID MECID BLOCK_HASH");
    let (url, netuid, mecid) = (next()?, next()?.parse()?, next()?.parse()?);
    let block: BlockHash = serde_json::from_value(next()?.into())?;
    let client = ChainClient::connect(&[url]).await?;
    let weights = client.all_weights(netuid, mecid, Some(block)).await?;
    println!("{}", serde_json::to_string(&weights)?);
    Ok(())
}
