//! The standalone auditor: checks what a Perturb network says of itself, without being part of it.
//!
//! It trusts a genesis file, or one header by height and digest, and nothing else. Nodes are asked
//! over JSON-RPC ([`source`], [`http`]); what they say is proved here: validator sets are handed over
//! from certificate to certificate ([`history`]), rows of the state by Merkle proofs, transactions by
//! their blocks. So it does not matter whom one asks; one honest node among several suffices.
//!
//! - [`root`], [`cert`]: a certified header, a certificate taken apart;
//! - [`score`], [`round`]: what an epoch came to for a miner, one signed round; both as a
//!   [`bundle`], a file that verifies without any node;
//! - [`weights`]: the agreed vector against what each validator put on [`chain`];
//! - [`anchors`]: what validators anchored on the chain, against the certified history;
//! - [`replay`]: an epoch computed again, from the histories at its start to the u16 of its weights.
//!
//! [`report`] says how it went, [`error`] with which exit code.

pub mod anchors;
pub mod bundle;
pub mod cert;
pub mod chain;
pub mod error;
pub mod history;
pub mod http;
pub mod nodes;
pub mod replay;
pub mod report;
pub mod root;
pub mod round;
pub mod score;
pub mod source;
pub mod verify;
pub mod weights;

pub use bundle::Bundle;
pub use error::{AuditError, Verdict};
pub use history::{History, TrustAnchor};
pub use nodes::Nodes;
pub use report::Report;
