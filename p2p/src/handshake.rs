//! The handshake: each side proves its hotkey to the other, bound to the connection's peer ids.
//!
//! It takes two requests of the dialer on [`crate::Protocol::Handshake`]:
//!
//! 1. `Hello` → `Hello`: protocol version, network id, role and a fresh nonce of each side; the
//!    listener's comes with its proof over the dialer's nonce.
//! 2. `Prove` (over the listener's nonce) → `Welcome`, or `Refused` with a code and a text.
//!
//! All messages are borsh of the enums below, at most [`MAX_MESSAGE_BYTES`]. A proof is the
//! hotkey's sr25519 signature (context `substrate`) over
//! `len(tag) ‖ "perturb/handshake/1" ‖ network id ‖ borsh(Statement)`, see
//! [`perturb_types::encode::signing_bytes`]. The [`Statement`] names the signer's role, hotkey and
//! peer id, the peer id of the one it talks to, and *that peer's* nonce. Noise and TLS have proved
//! the peer ids, so a statement is worth nothing on another connection, and a nonce is used once,
//! so it is worth nothing later.
//!
//! Validators and miners must prove a hotkey; bootnodes and observers may have none. Whether a
//! hotkey may play a role is not known here: [`crate::Authority`] decides.

use borsh::{BorshDeserialize, BorshSerialize};
use libp2p::PeerId;
use perturb_types::encode::{self, Domain};
use perturb_types::{Hotkey, HotkeyPair, NetworkId};

use crate::config::Role;

/// The version both sides must name.
pub const VERSION: u16 = 1;

/// Bytes of any handshake message: keys, a signature, a nonce and a short text.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Bytes of a refusal's text that are sent and read.
pub const MAX_TEXT_BYTES: usize = 256;

/// What a hotkey signs.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Statement {
    /// [`VERSION`].
    pub version: u16,
    /// The signer's role.
    pub role: Role,
    /// The signer's hotkey.
    pub hotkey: Hotkey,
    /// The signer's peer id (its multihash bytes).
    pub own_peer: Vec<u8>,
    /// The peer id of the one it proves itself to.
    pub remote_peer: Vec<u8>,
    /// The nonce that one sent.
    pub nonce: [u8; 32],
}

/// A hotkey with its signature over the [`Statement`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proof {
    /// The signer.
    pub hotkey: Hotkey,
    /// sr25519, 64 bytes.
    pub signature: [u8; 64],
}

/// How a side introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// The network it belongs to.
    pub network: NetworkId,
    /// The role it claims.
    pub role: Role,
    /// 32 fresh random bytes for the other side to sign.
    pub nonce: [u8; 32],
}

/// What the dialer sends.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Request {
    /// First (tag 0).
    Hello(Hello),
    /// Then (tag 1); `None` for a role without a hotkey.
    Prove(Option<Proof>),
}

/// What the listener answers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Response {
    /// To a `Hello` (tag 0), with the proof over the dialer's nonce.
    Hello(Hello, Option<Proof>),
    /// To a `Prove` (tag 1): the session stands.
    Welcome,
    /// To either (tag 2).
    Refused {
        /// [`Refusal::code`].
        code: u8,
        /// For people, at most [`MAX_TEXT_BYTES`].
        text: String,
    },
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Code 1.
    #[error("handshake version {theirs} is not supported, this side speaks {VERSION}")]
    Version {
        /// The version named.
        theirs: u16,
    },
    /// Code 2.
    #[error("wrong network: peer is on {theirs}, this side on {ours}")]
    WrongNetwork {
        /// Theirs.
        theirs: NetworkId,
        /// Ours.
        ours: NetworkId,
    },
    /// Code 3.
    #[error("the signature of {hotkey} does not cover this connection")]
    BadSignature {
        /// The hotkey claimed.
        hotkey: Hotkey,
    },
    /// Code 4.
    #[error("{0}")]
    NotAuthorised(String),
    /// Code 5.
    #[error("the role {0:?} must prove a hotkey")]
    ProofMissing(Role),
    /// Code 6: a proof without a running handshake, or for a nonce that was used before.
    #[error("no handshake is running with this nonce (expired, or a replay)")]
    NoHandshake,
    /// Code 7.
    #[error("banned for another {remaining_s} s: {reason}")]
    Banned {
        /// Seconds left.
        remaining_s: u64,
        /// Why.
        reason: String,
    },
    /// Code 8.
    #[error("the handshake message cannot be read")]
    Malformed,
    /// Code 9.
    #[error("too many handshakes")]
    RateLimited,
    /// Code 10.
    #[error("hotkey {0} is this node's own: the same key runs twice")]
    OwnHotkey(Hotkey),
    /// What the other side said.
    #[error("refused by the peer (code {code}): {text}")]
    ByRemote {
        /// Its code.
        code: u8,
        /// Its words.
        text: String,
    },
}

impl Refusal {
    /// The number on the wire.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Version { .. } => 1,
            Self::WrongNetwork { .. } => 2,
            Self::BadSignature { .. } => 3,
            Self::NotAuthorised(_) => 4,
            Self::ProofMissing(_) => 5,
            Self::NoHandshake => 6,
            Self::Banned { .. } => 7,
            Self::Malformed => 8,
            Self::RateLimited => 9,
            Self::OwnHotkey(_) => 10,
            Self::ByRemote { code, .. } => *code,
        }
    }

    pub(crate) fn to_response(&self) -> Response {
        Response::Refused { code: self.code(), text: clip(&self.to_string()) }
    }
}

/// At most [`MAX_TEXT_BYTES`] of a text, without control characters.
pub(crate) fn clip(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > MAX_TEXT_BYTES {
            break;
        }
        out.push(c);
    }
    out
}

/// The bytes a hotkey signs to prove itself.
pub fn statement_bytes(statement: &Statement) -> Vec<u8> {
    encode::encode(statement)
}

/// What this node says about itself in every handshake.
#[derive(Clone, Debug)]
pub(crate) struct Introducer {
    pub(crate) network: NetworkId,
    pub(crate) role: Role,
    pub(crate) own: PeerId,
    pub(crate) pair: Option<HotkeyPair>,
}

impl Introducer {
    pub(crate) fn hello(&self, nonce: [u8; 32]) -> Hello {
        Hello { version: VERSION, network: self.network, role: self.role, nonce }
    }

    /// This node's proof to `remote` over the nonce it sent.
    pub(crate) fn prove(&self, remote: &PeerId, nonce: [u8; 32]) -> Option<Proof> {
        let pair = self.pair.as_ref()?;
        let statement = Statement {
            version: VERSION,
            role: self.role,
            hotkey: pair.hotkey(),
            own_peer: self.own.to_bytes(),
            remote_peer: remote.to_bytes(),
            nonce,
        };
        let signature = pair.sign(Domain::Handshake, &self.network, &statement_bytes(&statement));
        Some(Proof { hotkey: pair.hotkey(), signature })
    }

    pub(crate) fn check_hello(&self, hello: &Hello) -> Result<(), Refusal> {
        if hello.version != VERSION {
            return Err(Refusal::Version { theirs: hello.version });
        }
        if hello.network != self.network {
            return Err(Refusal::WrongNetwork { theirs: hello.network, ours: self.network });
        }
        Ok(())
    }

    /// Checks what `remote` proves for `role` over the nonce that this node sent.
    pub(crate) fn check_proof(
        &self,
        remote: &PeerId,
        role: Role,
        nonce: [u8; 32],
        proof: Option<&Proof>,
    ) -> Result<Option<Hotkey>, Refusal> {
        let Some(proof) = proof else {
            return if role.needs_hotkey() { Err(Refusal::ProofMissing(role)) } else { Ok(None) };
        };
        let statement = Statement {
            version: VERSION,
            role,
            hotkey: proof.hotkey,
            own_peer: remote.to_bytes(),
            remote_peer: self.own.to_bytes(),
            nonce,
        };
        let bytes = statement_bytes(&statement);
        if !proof.hotkey.verify(Domain::Handshake, &self.network, &bytes, &proof.signature) {
            return Err(Refusal::BadSignature { hotkey: proof.hotkey });
        }
        if self.pair.as_ref().is_some_and(|p| p.hotkey() == proof.hotkey) {
            return Err(Refusal::OwnHotkey(proof.hotkey));
        }
        Ok(Some(proof.hotkey))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const NET: NetworkId = NetworkId([9; 32]);

    fn peer(n: u8) -> PeerId {
        crate::config::NetworkKey::from_seed([n; 32]).peer_id()
    }

    fn side(n: u8, role: Role) -> Introducer {
        let pair = Some(HotkeyPair::from_seed(&[n; 32]).unwrap());
        Introducer { network: NET, role, own: peer(n), pair }
    }

    #[test]
    fn a_proof_holds_for_its_role_connection_network_and_nonce_only() {
        let (a, b) = (side(1, Role::Validator), side(2, Role::Validator));
        let nonce = [7; 32];
        let proof = a.prove(&b.own, nonce).unwrap();
        let hotkey = a.pair.as_ref().unwrap().hotkey();
        let check = |role, nonce, proof: &Proof| b.check_proof(&a.own, role, nonce, Some(proof));
        let bad = || Err(Refusal::BadSignature { hotkey });
        assert_eq!(check(Role::Validator, nonce, &proof), Ok(Some(hotkey)));
        assert_eq!(check(Role::Miner, nonce, &proof), bad(), "another role");
        assert_eq!(check(Role::Validator, [8; 32], &proof), bad(), "a replayed nonce");
        assert_eq!(b.check_proof(&peer(3), Role::Validator, nonce, Some(&proof)), bad(), "another sender");
        let c = side(3, Role::Validator);
        assert_eq!(c.check_proof(&a.own, Role::Validator, nonce, Some(&proof)), bad(), "another receiver");
        let elsewhere = Introducer { network: NetworkId([8; 32]), ..b.clone() };
        assert_eq!(elsewhere.check_proof(&a.own, Role::Validator, nonce, Some(&proof)), bad(), "another network");
        let forged = Proof { signature: [1; 64], ..proof.clone() };
        assert_eq!(check(Role::Validator, nonce, &forged), bad(), "a forged signature");
        let stolen = Proof { hotkey: Hotkey([3; 32]), ..proof };
        assert!(check(Role::Validator, nonce, &stolen).is_err(), "another hotkey");
    }

    #[test]
    fn a_hello_of_another_network_or_version_is_refused_with_its_reason() {
        let a = side(1, Role::Validator);
        let hello = side(2, Role::Miner).hello([0; 32]);
        assert_eq!(a.check_hello(&hello), Ok(()));
        let other = Hello { network: NetworkId([8; 32]), ..hello.clone() };
        let refusal = a.check_hello(&other).unwrap_err();
        assert_eq!(refusal.code(), 2);
        assert!(refusal.to_string().contains("wrong network"));
        assert_eq!(a.check_hello(&Hello { version: 2, ..hello }).unwrap_err().code(), 1);
    }

    #[test]
    fn validators_and_miners_must_prove_and_bootnodes_need_not() {
        let a = side(1, Role::Validator);
        assert_eq!(a.check_proof(&peer(2), Role::Bootnode, [0; 32], None), Ok(None));
        assert_eq!(a.check_proof(&peer(2), Role::Observer, [0; 32], None), Ok(None));
        for role in [Role::Validator, Role::Miner] {
            assert_eq!(a.check_proof(&peer(2), role, [0; 32], None), Err(Refusal::ProofMissing(role)));
        }
    }

    #[test]
    fn the_node_recognises_its_own_hotkey_on_a_stranger() {
        let a = side(1, Role::Validator);
        let twin = Introducer { own: peer(5), ..a.clone() };
        let proof = twin.prove(&a.own, [1; 32]).unwrap();
        let refusal = a.check_proof(&twin.own, Role::Validator, [1; 32], Some(&proof)).unwrap_err();
        assert_eq!(refusal, Refusal::OwnHotkey(proof.hotkey));
    }

    #[test]
    fn the_signed_statement_is_pinned() {
        let statement = Statement {
            version: 1,
            role: Role::Miner,
            hotkey: Hotkey([0xaa; 32]),
            own_peer: peer(1).to_bytes(),
            remote_peer: peer(2).to_bytes(),
            nonce: [0xbb; 32],
        };
        let peer_hex = |n| hex::encode(peer(n).to_bytes());
        // Peer ids are identity multihashes of the protobuf of the ed25519 public key: 38 bytes.
        assert_eq!(peer_hex(1), "0024080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
        let expected = [
            "0100".to_owned(),
            "02".to_owned(),
            "aa".repeat(32),
            "26000000".to_owned(),
            peer_hex(1),
            "26000000".to_owned(),
            peer_hex(2),
            "bb".repeat(32),
        ]
        .concat();
        let bytes = statement_bytes(&statement);
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(hex::encode(&bytes), include_str!("../../fixtures/handshake-statement.hex").trim());
        let signed = encode::signing_bytes(Domain::Handshake, &NET, &bytes);
        assert_eq!(hex::encode(&signed), include_str!("../../fixtures/handshake-signed.hex").trim());
    }

    #[test]
    fn the_messages_are_pinned() {
        let hello = Hello { version: 1, network: NET, role: Role::Validator, nonce: [0xcc; 32] };
        let body = ["0100".to_owned(), "09".repeat(32), "01".to_owned(), "cc".repeat(32)].concat();
        assert_eq!(hex::encode(encode::encode(&Request::Hello(hello.clone()))), format!("00{body}"));
        assert_eq!(hex::encode(encode::encode(&Request::Prove(None))), "0100");
        assert_eq!(hex::encode(encode::encode(&Response::Hello(hello, None))), format!("00{body}00"));
        assert_eq!(hex::encode(encode::encode(&Response::Welcome)), "01");
        let refused = Response::Refused { code: 2, text: "no".into() };
        assert_eq!(hex::encode(encode::encode(&refused)), "0202020000006e6f");
    }

    #[test]
    fn every_message_fits_its_limit() {
        let a = side(1, Role::Validator);
        let refusal = Refusal::NotAuthorised("é\n".repeat(1000));
        assert!(encode::encode(&refusal.to_response()).len() <= MAX_MESSAGE_BYTES);
        let hello = Response::Hello(a.hello([0; 32]), a.prove(&peer(2), [0; 32]));
        assert!(encode::encode(&hello).len() <= MAX_MESSAGE_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = encode::decode::<Request>("request", &bytes, MAX_MESSAGE_BYTES);
            let _ = encode::decode::<Response>("response", &bytes, MAX_MESSAGE_BYTES);
        }
    }
}
