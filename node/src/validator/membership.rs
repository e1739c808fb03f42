//! Staying a member: registers the consensus key where it is not, and says in each epoch that this
//! validator will be there in the next one.

use std::sync::Arc;
use std::time::Duration;

use color_eyre::eyre::Result;
use perturb_consensus::Verdict;
use perturb_ledger::tx::{Delegation, Readiness};
use perturb_ledger::{Transaction, query};
use perturb_types::{ConsensusPair, HotkeyPair, Signed};
use tokio_util::sync::CancellationToken;

use super::agreed::Agreed;
use super::bytes_of;
use super::driver::DriverHandle;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Runs until `stop`.
///
/// # Errors
/// The state cannot be read.
pub async fn run(
    agreed: Arc<Agreed>,
    hotkey: HotkeyPair,
    pair: ConsensusPair,
    driver: DriverHandle,
    stop: CancellationToken,
) -> Result<()> {
    let network = agreed.genesis().network_id();
    let me = hotkey.hotkey();
    let machine = driver.status();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let (height, network_height) = {
            let m = machine.borrow();
            (m.height, m.network_height)
        };
        // A node that has not caught up would speak about an old epoch.
        if network_height > height + 2 {
            continue;
        }
        let db = agreed.database();
        let registered = query::registered_key(db, &me)?;
        let transaction = match &registered {
            Some(row) if row.key == pair.public() => {
                let epoch = query::meta(db)?.epoch;
                if query::is_ready(db, epoch, &me)? {
                    continue;
                }
                let ready = Signed::sign(&pair, &network, Readiness { hotkey: me, epoch });
                Transaction::Readiness(ready.into_envelope())
            }
            other => {
                let permitted = query::snapshot(db)?.neuron(&me).is_some_and(|n| n.permit);
                if !permitted {
                    continue;
                }
                let sequence = other.as_ref().map_or(0, |row| row.sequence + 1);
                Transaction::KeyDelegation(Box::new(Delegation::sign(&network, &hotkey, &pair, sequence)))
            }
        };
        let name = transaction.name();
        if let Verdict::Reject(why) = driver.submit(bytes_of(&transaction)).await {
            tracing::warn!(transaction = name, %why, "refused");
        }
    }
}
