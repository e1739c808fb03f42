//! Signing a hotkey's calls (weights, plain or timelocked; anchors), sending them and waiting until they are finalized.
//!
//! Signing and sending are two steps, so that a caller can save the signed bytes in between: the
//! same bytes may be sent any number of times and land at most once. The nonce is that of a
//! block, never of the pool: two extrinsics signed for one purpose share it, and only one of
//! them can land. The era is 64 blocks from the finalized head.

use std::sync::Arc;

use perturb_types::{Hotkey, HotkeyPair};
use serde::{Deserialize, Serialize};
use subxt::Metadata;
use subxt::config::{DefaultExtrinsicParams, DefaultExtrinsicParamsBuilder, Hasher as _};
use subxt::dynamic::Value;
use subxt::error::DispatchError;
use subxt::events::Phase;
use subxt::rpcs::methods::legacy::TransactionStatus;
use subxt::utils::{AccountId32, MultiSignature};

use crate::call::{NamedCall, WeightsCall, check, plain_call};
use crate::commit::{self, Commit};
use crate::error::one_line;
use crate::extensions;
use crate::link::{At, Config, Link};
use crate::{AnchorCall, BlockHash, ChainClient, ChainError, SubmitError};

/// Blocks that a signed extrinsic may be included in: about 13 minutes of Subtensor, enough to
/// outlast a busy pool, short enough to know soon that it can land no more.
pub const ERA_BLOCKS: u64 = 64;
/// An extrinsic that is signed and not necessarily sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedExtrinsic {
    /// The encoded extrinsic.
    #[serde(with = "crate::hash::hex_bytes")]
    pub bytes: Vec<u8>,
    /// Its hash.
    pub hash: BlockHash,
    /// The account nonce it uses.
    pub nonce: u64,
    /// The finalized height it was signed at.
    pub signed_at: u64,
    /// The first block that can no longer include it.
    pub expires_at: u64,
    /// The weights that it commits to; `None` for everything else.
    #[serde(default)]
    pub commit: Option<Commit>,
}

impl std::fmt::Debug for SignedExtrinsic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedExtrinsic")
            .field("hash", &self.hash)
            .field("nonce", &self.nonce)
            .field("signed_at", &self.signed_at)
            .field("expires_at", &self.expires_at)
            .field("commit", &self.commit)
            .finish_non_exhaustive()
    }
}

/// A finalized, successful extrinsic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    /// Height of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: BlockHash,
    /// Its place in the block.
    #[serde(default)]
    pub index: u32,
    /// Its own hash.
    pub extrinsic_hash: BlockHash,
}

/// A hotkey as a signer of extrinsics. It also signs with keys that have no 32-byte seed, which
/// subxt's own signer cannot hold.
struct HotkeySigner<'a>(&'a HotkeyPair);

impl subxt::transactions::Signer<Config> for HotkeySigner<'_> {
    fn account_id(&self) -> AccountId32 {
        AccountId32(self.0.hotkey().0)
    }

    fn sign(&self, payload: &[u8]) -> MultiSignature {
        MultiSignature::Sr25519(self.0.sign_raw(payload))
    }
}

/// What is signed besides the call: the nonce, an era from that block, and the values of
/// extensions that subxt does not know.
pub(crate) fn params(
    nonce: u64,
    number: u64,
    hash: BlockHash,
    custom: Vec<(String, Value)>,
) -> DefaultExtrinsicParams<Config> {
    let era = DefaultExtrinsicParamsBuilder::<Config>::new().nonce(nonce).mortal_from_unchecked(
        ERA_BLOCKS,
        number,
        hash.to_h256(),
    );
    custom.into_iter().fold(era, |params, (name, value)| params.custom_extension(name, value)).build()
}

impl Link {
    /// The account's nonce at a block; at the best one if `None`.
    pub(crate) async fn nonce(&self, account: &[u8; 32], at: Option<BlockHash>) -> Result<u64, ChainError> {
        let what = "AccountNonceApi_account_nonce";
        let at = at.map(BlockHash::to_h256);
        let bytes = self.ask(what, self.legacy().state_call(what, Some(account), at)).await?;
        if !matches!(bytes.len(), 2 | 4 | 8) {
            return Err(self.decode_error(what, format_args!("{} bytes", bytes.len())));
        }
        Ok(bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }
}

impl ChainClient {
    /// Signs the call that sets plain weights, for the finalized head, without sending it; with `nonce`, or the
    /// account's nonce at the best block if `None`.
    ///
    /// # Errors
    /// The chain is away, or its runtime has no such call or an extension that cannot be
    /// encoded (then nothing is signed).
    pub async fn sign_weights(
        &self,
        pair: &HotkeyPair,
        call: &WeightsCall,
        nonce: Option<u64>,
    ) -> Result<SignedExtrinsic, SubmitError> {
        check(call)?;
        let link = self.link().await?;
        self.sign(&link, pair, nonce, None, |metadata| plain_call(call, metadata)).await
    }

    /// Signs a call that commits to the weights, timelocked until the chain reveals them; otherwise as
    /// [`ChainClient::sign_weights`].
    ///
    /// # Errors
    /// As there; or the subnet runs no epochs, or its chain follows another beacon than the options name.
    pub async fn sign_commit(
        &self,
        pair: &HotkeyPair,
        call: &WeightsCall,
        nonce: Option<u64>,
    ) -> Result<SignedExtrinsic, SubmitError> {
        check(call)?;
        let link = self.link().await?;
        let (commit, bytes) = self.make_commit(&link, pair.hotkey(), call).await?;
        self.sign(&link, pair, nonce, Some(commit), |metadata| {
            commit::commit_call(call, &bytes, commit.round, metadata)
        })
        .await
    }

    /// Signs an anchor's call with this nonce, for the finalized head, without sending it.
    ///
    /// # Errors
    /// As [`ChainClient::sign_weights`].
    pub async fn sign_anchor(
        &self,
        pair: &HotkeyPair,
        call: &AnchorCall,
        nonce: u64,
    ) -> Result<SignedExtrinsic, SubmitError> {
        let call = call.call()?;
        let link = self.link().await?;
        self.sign(&link, pair, Some(nonce), None, |_| Ok(call)).await
    }

    async fn sign(
        &self,
        link: &Arc<Link>,
        pair: &HotkeyPair,
        nonce: Option<u64>,
        commit: Option<Commit>,
        call: impl FnOnce(&Metadata) -> Result<NamedCall, SubmitError>,
    ) -> Result<SignedExtrinsic, SubmitError> {
        let (number, hash) = link.finalized().await?;
        let at = link.at(number, hash).await?;
        let custom = extensions::values_for(at.metadata_ref())?;
        let NamedCall { pallet, name, fields } = call(at.metadata_ref())?;
        let nonce = match nonce {
            Some(nonce) => nonce,
            None => link.nonce(&pair.hotkey().0, None).await?,
        };
        let params = params(nonce, number, hash, custom);
        let payload = subxt::dynamic::tx(pallet, name, fields);
        let cannot = |e: subxt::error::ExtrinsicError| SubmitError::CannotEncode(one_line(e));
        let transactions = at.tx();
        let signed = {
            let mut signable = transactions.create_v4_signable_offline(&payload, params).map_err(cannot)?;
            signable.sign(&HotkeySigner(pair)).map_err(cannot)?
        };
        Ok(SignedExtrinsic {
            hash: signed.hash().into(),
            bytes: signed.into_encoded(),
            nonce,
            signed_at: number,
            expires_at: number.saturating_add(ERA_BLOCKS),
            commit,
        })
    }

    /// Sends a signed extrinsic and waits until it is finalized; `on_block` is told the block
    /// that first includes it. Sending the same one again does no harm.
    ///
    /// # Errors
    /// The refusal, or [`SubmitError::outcome_is_unknown`] ones when the wait ended early.
    pub async fn broadcast(
        &self,
        signed: &SignedExtrinsic,
        mut on_block: impl FnMut(BlockHash) + Send,
    ) -> Result<Submitted, SubmitError> {
        let _one_at_a_time = self.submitting().lock().await;
        let link = self.link().await?;
        let what = "author_submitAndWatchExtrinsic";
        let limit = self.options().finality_timeout();
        let sending = link.legacy().author_submit_and_watch_extrinsic(&signed.bytes);
        let mut statuses = match tokio::time::timeout(self.options().request_timeout(), sending).await {
            Ok(Ok(statuses)) => statuses,
            Ok(Err(subxt::rpcs::Error::User(e))) => {
                return Err(SubmitError::from_rpc(&e).unwrap_or_else(|| link.classify(what, e).into()));
            }
            Ok(Err(e)) => return Err(link.classify(what, e).into()),
            Err(_) => {
                let after_ms = self.options().request_timeout_ms;
                return Err(ChainError::Timeout { endpoint: link.endpoint(), what: what.into(), after_ms }.into());
            }
        };
        let finalized = async {
            loop {
                match statuses.next().await {
                    Some(Ok(TransactionStatus::Finalized(hash))) => return Ok(BlockHash::from(hash)),
                    Some(Ok(TransactionStatus::InBlock(hash))) => on_block(hash.into()),
                    Some(Ok(TransactionStatus::Usurped(_))) => return Err(SubmitError::NonceTaken),
                    Some(Ok(TransactionStatus::Dropped)) => return Err(SubmitError::Dropped),
                    // A reason is not given here; validity is checked when it is sent again.
                    Some(Ok(TransactionStatus::Invalid)) => return Err(SubmitError::Dropped),
                    Some(Ok(TransactionStatus::FinalityTimeout(_))) => {
                        return Err(SubmitError::NotFinalizedInTime {
                            extrinsic: signed.hash,
                            after_ms: self.options().finality_timeout_ms,
                        });
                    }
                    Some(Ok(
                        TransactionStatus::Future
                        | TransactionStatus::Ready
                        | TransactionStatus::Broadcast(_)
                        | TransactionStatus::Retracted(_),
                    )) => {}
                    Some(Err(e)) => return Err(link.classify(what, e).into()),
                    None => return Err(link.classify(what, "the subscription ended").into()),
                }
            }
        };
        let block = tokio::time::timeout(limit, finalized).await.map_err(|_| SubmitError::NotFinalizedInTime {
            extrinsic: signed.hash,
            after_ms: self.options().finality_timeout_ms,
        })??;
        outcome(&link, block, signed.hash).await
    }

    /// The finalized head of the node in use, with a hotkey's nonce there.
    ///
    /// # Errors
    /// The chain is away or answers with an error.
    pub(crate) async fn account(&self, hotkey: Hotkey) -> Result<Account, ChainError> {
        let link = self.link().await?;
        let (height, hash) = link.finalized().await?;
        let nonce = link.nonce(&hotkey.0, Some(hash)).await?;
        Ok(Account { link, height, nonce })
    }

    /// Signs, sends, and waits until the weights are finalized. Whoever must survive a crash
    /// in between uses [`crate::Submitter`].
    ///
    /// # Errors
    /// As [`ChainClient::sign_weights`] and [`ChainClient::broadcast`].
    pub async fn submit_weights(
        &self,
        pair: &HotkeyPair,
        netuid: u16,
        mecid: u8,
        weights: &[(u16, u16)],
        version_key: u64,
    ) -> Result<Submitted, SubmitError> {
        let call = WeightsCall { netuid, mecid, weights: weights.to_vec(), version_key };
        let signed = self.sign_weights(pair, &call, None).await?;
        self.broadcast(&signed, |_| {}).await
    }
}

/// A hotkey's account at the finalized head of one node.
pub(crate) struct Account {
    link: Arc<Link>,
    /// The finalized height.
    pub(crate) height: u64,
    /// The nonce there.
    pub(crate) nonce: u64,
}

impl Account {
    /// Looks for an extrinsic that can land no more in all finalized blocks that could hold it; `None` where it is in
    /// none. Bodies are compared, so that a node without the state of those blocks can tell as well.
    ///
    /// # Errors
    /// The chain is away, or it may land yet; or it landed and its call failed.
    pub(crate) async fn find(&self, signed: &SignedExtrinsic) -> Result<Option<Submitted>, SubmitError> {
        let link = &self.link;
        if self.nonce <= signed.nonce && self.height < signed.expires_at {
            return Err(link.inconsistent(format_args!("extrinsic {} may land yet", signed.hash)).into());
        }
        for number in signed.signed_at.saturating_add(1)..=self.height.min(signed.expires_at) {
            let block = link.hash_at(number).await?;
            let block = block.ok_or_else(|| link.inconsistent(format_args!("no finalized block {number}")))?;
            let Some(index) = place(link, block, |bytes| bytes == signed.bytes).await? else { continue };
            return match outcome(link, block, signed.hash).await {
                // It stands there; how its call fared nobody can say any more.
                Err(SubmitError::Chain(ChainError::StatePruned { .. })) => {
                    let extrinsic_hash = signed.hash;
                    Ok(Some(Submitted { block_number: number, block_hash: block, index, extrinsic_hash }))
                }
                outcome => outcome.map(Some),
            };
        }
        Ok(None)
    }
}

/// The place of an extrinsic in a block.
async fn place(link: &Link, block: BlockHash, is_it: impl Fn(&[u8]) -> bool) -> Result<Option<u32>, ChainError> {
    let body = link.ask("chain_getBlock", link.legacy().chain_get_block(Some(block.to_h256()))).await?;
    let body = body.ok_or_else(|| ChainError::NoSuchBlock { endpoint: link.endpoint(), block })?;
    let index = body.block.extrinsics.iter().position(|x| is_it(&x.0));
    Ok(index.and_then(|i| u32::try_from(i).ok()))
}

/// How the extrinsic fared in its block, from the block's events.
async fn outcome(link: &Link, block: BlockHash, extrinsic: BlockHash) -> Result<Submitted, SubmitError> {
    let number =
        link.number_of(block).await?.ok_or_else(|| ChainError::NoSuchBlock { endpoint: link.endpoint(), block })?;
    let at = link.at(number, block).await?;
    let hasher = at.hasher();
    let index = place(link, block, |bytes| BlockHash::from(hasher.hash(bytes)) == extrinsic)
        .await?
        .ok_or_else(|| link.inconsistent(format_args!("block {block} lacks extrinsic {extrinsic}")))?;
    let events = link.ask("System.Events", at.events().fetch()).await?;
    for event in events.iter() {
        let event = event.map_err(|e| link.decode_error("System.Events", e))?;
        if event.phase() != Phase::ApplyExtrinsic(index) || event.pallet_name() != "System" {
            continue;
        }
        match event.event_name() {
            "ExtrinsicSuccess" => {
                let block_number = number;
                return Ok(Submitted { block_number, block_hash: block, index, extrinsic_hash: extrinsic });
            }
            "ExtrinsicFailed" => return Err(failure(link, &at, event.field_bytes())),
            _ => {}
        }
    }
    Err(link.inconsistent(format_args!("block {block} has no outcome of extrinsic {extrinsic}")).into())
}

fn failure(link: &Link, at: &At, bytes: &[u8]) -> SubmitError {
    match DispatchError::decode_from(bytes, at.metadata()) {
        Ok(DispatchError::Module(module)) => match module.details() {
            Ok(details) => SubmitError::from_dispatch(details.pallet.name(), &details.variant.name),
            Err(e) => SubmitError::Dispatch(one_line(e)),
        },
        Ok(other) => SubmitError::Dispatch(one_line(other)),
        Err(e) => link.decode_error("System.ExtrinsicFailed", e).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_hotkey_signs_as_subxts_own_signer_does_with_or_without_a_seed() {
        use subxt::transactions::Signer as _;
        use subxt_signer::sr25519::{Keypair, Signature, verify};
        let pair = HotkeyPair::from_seed(&[7; 32]).unwrap();
        let theirs = Keypair::from_secret_key([7; 32]).unwrap().public_key();
        for pair in [HotkeyPair::from_expanded(&pair.expanded()).unwrap(), pair] {
            let signer = HotkeySigner(&pair);
            assert_eq!(signer.account_id().0, theirs.0);
            let MultiSignature::Sr25519(signature) = signer.sign(b"payload") else { panic!("another scheme") };
            assert!(verify(&Signature(signature), b"payload", &theirs));
        }
    }

    #[test]
    fn a_signed_extrinsic_reads_back_from_json() {
        let signed = SignedExtrinsic {
            bytes: vec![1, 2, 3],
            hash: BlockHash([9; 32]),
            nonce: 4,
            signed_at: 10,
            expires_at: 74,
            commit: None,
        };
        let json = serde_json::to_string(&signed).unwrap();
        assert!(json.contains("\"010203\""));
        assert_eq!(serde_json::from_str::<SignedExtrinsic>(&json).unwrap(), signed);
    }
}
