//! `perturb owner`: the owner's orders, signed here with the owner's hotkey and sent to a validator,
//! which spreads them; a quorum agrees on them in a block, and they hold from the stated height on.

use std::path::Path;
use std::time::Duration;

use color_eyre::eyre::{Context, Result, bail, eyre};
use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::{HttpClient, HttpClientBuilder};
use jsonrpsee::rpc_params;
use perturb_challenge::file;
use perturb_ledger::tx::{Order, OwnerAction};
use perturb_ledger::{ChallengeSpec, Parameters, Transaction};
use perturb_types::{ChallengeId, Hotkey, encode};
use serde::de::DeserializeOwned;

use crate::cli::{OwnerArgs, OwnerCommand};
use crate::keys;
use crate::report::Orders;

/// Bytes of a file with a challenge or parameters.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Signs and sends an order, or shows those that wait.
///
/// # Errors
/// No validator answers, the key is not the owner's, or the order is refused.
pub async fn run(args: OwnerArgs) -> Result<()> {
    let client = HttpClientBuilder::default()
        .request_timeout(Duration::from_secs(5))
        .build(&args.rpc)
        .wrap_err_with(|| format!("`{}` is no RPC address", args.rpc))?;
    let orders: Orders = client.request("perturb_orders", rpc_params![]).await.wrap_err_with(|| {
        format!("no validator answers at {}; is it running, and is this its --rpc-listen?", args.rpc)
    })?;
    let order = match &args.command {
        OwnerCommand::Show => {
            print!("{}", text(&orders));
            return Ok(());
        }
        OwnerCommand::AddChallenge { file } => Order::AddChallenge(Box::new(json::<ChallengeSpec>(file)?)),
        OwnerCommand::UpdateChallenge { file } => Order::UpdateChallenge(Box::new(json::<ChallengeSpec>(file)?)),
        OwnerCommand::RemoveChallenge { id } => Order::RemoveChallenge(ChallengeId(*id)),
        OwnerCommand::RequireVersion { version } => version_order(version)?,
        OwnerCommand::SetParameters { file } => Order::SetParameters(Box::new(json::<Parameters>(file)?)),
        OwnerCommand::Revoke { nonce } => Order::Revoke(*nonce),
        OwnerCommand::SetOwner { hotkey } => {
            Order::SetOwner(hotkey.parse::<Hotkey>().map_err(|e| eyre!("`{hotkey}` is no hotkey: {e}"))?)
        }
    };
    send(&client, &args, &orders, order).await
}

async fn send(client: &HttpClient, args: &OwnerArgs, orders: &Orders, order: Order) -> Result<()> {
    let Some(file) = &args.key_file else {
        bail!("an order is signed with the owner's hotkey: name it with --key-file")
    };
    let key = keys::hotkey_file(file)?;
    if key.hotkey() != orders.owner {
        bail!("{} is not the owner of this network, {} is", key.hotkey(), orders.owner);
    }
    // The blocks named are those in which one has to take it up.
    let now = orders.height.saturating_add(orders.delay);
    let effective = args.at.unwrap_or_else(|| now.saturating_add(args.blocks));
    let expires = effective.saturating_sub(orders.delay);
    let action = OwnerAction::sign(&orders.network, &key, order, orders.nonce, effective, expires);
    let bytes = encode::encode(&Transaction::OwnerAction(Box::new(action)));
    let verdict: String = client.request("perturb_submit", rpc_params![hex::encode(bytes)]).await?;
    println!("order {} sent: {verdict}; it holds from height {effective} on (now {})", orders.nonce, orders.height);
    println!("`perturb owner show` lists it once a block has it");
    Ok(())
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let named = || format!("{}", path.display());
    let bytes = file::read(path, MAX_FILE_BYTES).wrap_err_with(named)?;
    serde_json::from_slice(&bytes).wrap_err_with(named)
}

fn version_order(text: &str) -> Result<Order> {
    let parts: Vec<u16> = text.split('.').map(str::parse).collect::<Result<_, _>>().unwrap_or_default();
    match parts.as_slice() {
        [major, minor, patch] => Ok(Order::SetRequiredVersion(*major, *minor, *patch)),
        _ => bail!("`{text}` is no version: write three numbers, as in 1.2.3"),
    }
}

fn text(orders: &Orders) -> String {
    let mut out = format!(
        "owner    {}\nnetwork  {}\nheight   {}\nnonce    {}\ndelay    {} blocks\n",
        orders.owner, orders.network, orders.height, orders.nonce, orders.delay
    );
    if orders.waiting.is_empty() {
        out.push_str("no order waits\n");
    }
    for order in &orders.waiting {
        out.push_str(&format!("order {} from height {} on: {}\n", order.nonce, order.height, order.order));
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_version_is_three_numbers() {
        assert_eq!(version_order("1.20.3").unwrap(), Order::SetRequiredVersion(1, 20, 3));
        for bad in ["", "1.2", "1.2.3.4", "1.2.x", "1.2.70000"] {
            assert!(version_order(bad).is_err(), "{bad}");
        }
    }
}
