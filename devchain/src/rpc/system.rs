//! `system_…`: what this node is, and nonces.

use super::{Account, Answer, Module};
use jsonrpsee::core::RegisterMethodError;
use serde_json::json;

pub(super) fn register(module: &mut Module) -> Result<(), RegisterMethodError> {
    module.register_method("system_chain", |_, _, _| "Perturb Development")?;
    module.register_method("system_chainType", |_, _, _| "Development")?;
    module.register_method("system_name", |_, _, _| env!("CARGO_PKG_NAME"))?;
    module.register_method("system_version", |_, _, _| env!("CARGO_PKG_VERSION"))?;
    module.register_method(
        "system_properties",
        |_, _, _| json!({ "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO" }),
    )?;
    module.register_method(
        "system_health",
        |_, _, _| json!({ "peers": 0, "isSyncing": false, "shouldHavePeers": false }),
    )?;
    module.register_method("system_accountNextIndex", |params, node, _| -> Answer<u32> {
        let Account(who) = params.one()?;
        Ok(node.next_nonce(&who)?)
    })?;
    module.register_alias("account_nextIndex", "system_accountNextIndex")
}
