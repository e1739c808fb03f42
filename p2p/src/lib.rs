//! The network: authenticated connections between bootnodes, validators, miners and observers.
//!
//! This crate moves bytes and says who sent them. It knows nothing of consensus or scores, keeps
//! nothing on disk, and lets nobody in whom the application ([`Authority`]) does not know.
//!
//! # Layers
//!
//! | layer | what |
//! |---|---|
//! | transport | TCP with noise and yamux; QUIC v1 |
//! | identity | ed25519 network key → peer id; sr25519 hotkey proved in the [`handshake`] |
//! | upkeep | identify (`/ipfs/id/1.0.0`, family `/perturb/1`), ping (`/ipfs/ping/1.0.0`) |
//! | discovery | rendezvous (`/rendezvous/1.0.0`) at bootnodes, namespace `/perturb/<network id>/<role>/1` |
//! | gossip | gossipsub (`/meshsub/1.x.0`), signed by the author, topics `/perturb/<network id>/<topic>/1` |
//! | requests | `/perturb/{handshake,challenge,sync,blob,body}/1`, one stream each, see [`protocols`] |
//!
//! # Rules
//!
//! 1. **Proof first.** Within [`Timing::handshake`] of a connection both sides prove their hotkey,
//!    bound to both peer ids and to a fresh nonce. Until then only the handshake, identify, ping
//!    and (at a bootnode) rendezvous are answered.
//! 2. **Roles.** Validators alone author consensus, blocks and rounds; validators alone challenge,
//!    miners alone are challenged; validators and observers may ask validators for sync, blob and body.
//! 3. **One session per hotkey**; the newest proof wins.
//! 4. **Gossip is judged before it travels.** Nothing is forwarded without [`Verdict::Accept`]. Ids
//!    are author and sequence number, so repeating identical bytes works; each number counts once.
//!    100 messages/s per author; the relay is not punished for an author's noise.
//! 5. **Direct lines.** Validators dial validators, miners dial validators and keep the connection;
//!    validators never dial miners and answer them over the connection they came in on.
//! 6. **Failures are counted**: ten within ten minutes ban the identity for an hour: the hotkey once
//!    proved, else peer id and IP. Five connections per IP that have
//!    proved no hotkey. See [`bans`].
//! 7. **Everything is bounded** ([`Limits`], [`Protocol`], [`Topic`]); no channel is unbounded.
//!
//! # Codes
//!
//! Handshake refusals: [`handshake::Refusal`] (1 version, 2 wrong network, 3 bad signature, 4 not
//! authorised, 5 proof missing, 6 no handshake or replay, 7 banned, 8 malformed, 9 rate limited, 10
//! own hotkey). Declined requests: [`Decline`] (1 not authorised, 2 rate limited, 3 busy, 4 not
//! found, 5 malformed, 6 too large, 7 internal).

pub mod bans;
mod behaviour;
mod book;
pub mod bootnode;
mod codec;
pub mod config;
pub mod events;
pub mod frames;
mod gate;
pub mod handle;
pub mod handshake;
mod metrics;
pub mod protocols;
mod rates;
mod replay;
mod swarm;

pub use config::{AllowAll, Authority, Config, Denial, Limits, NetworkKey, Role, Timing, ip_of};
pub use events::{DownReason, Gossip, GossipId, NetworkEvent, PeerInfo, ReplyChannel, Request, Verdict};
pub use handle::{NetworkHandle, PublishError, RequestError, Stopped, Target};
pub use handshake::Refusal;
pub use libp2p::{Multiaddr, PeerId};
pub use metrics::Metrics;
pub use protocols::{Decline, Protocol, Topic};
pub use swarm::{NetError, Network};

#[cfg(test)]
mod tests;
