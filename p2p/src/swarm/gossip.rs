//! Gossip: who may write, how much, and the application's verdict.
//!
//! A message goes to the application only if its author proved a hotkey and a role that may write
//! on the topic; otherwise:
//!
//! | author | handed over by | outcome |
//! |---|---|---|
//! | proved, wrong role | anybody | reject |
//! | not proved | itself, handshake running | held until the handshake ends |
//! | not proved | itself, otherwise | reject |
//! | never met | a relay | ignore: the relay may know it, this node cannot judge |
//! | proved, sequence number seen or too old | anybody | ignore: a replay must not use up the author's rate |
//! | over its rate | anybody | ignore: the relay is not to blame |

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::gossipsub::{self, Message, MessageAcceptance, MessageId};
use perturb_types::Hotkey;

use super::{Task, may_publish};
use crate::config::Role;
use crate::events::{Gossip, GossipId, NetworkEvent, Verdict};
use crate::handle::PublishError;
use crate::metrics::add;
use crate::protocols::Topic;
use crate::replay::ReplayWindow;

/// Authors whose proof is remembered: more than the peers of the largest subnet.
const MAX_AUTHORS: usize = 1024;

/// What a peer id has proved to be.
struct Author {
    hotkey: Option<Hotkey>,
    role: Role,
    seen: Instant,
    window: ReplayWindow,
}

/// A message that waits for a handshake.
struct Held {
    id: MessageId,
    topic: Topic,
    message: Message,
}

#[derive(Default)]
pub(super) struct GossipState {
    authors: HashMap<PeerId, Author>,
    /// Messages at the application: who handed them over, and since when.
    verdicts: HashMap<MessageId, (PeerId, Instant)>,
    /// The same, oldest first.
    order: VecDeque<(Instant, MessageId)>,
    held: HashMap<PeerId, Vec<Held>>,
}

impl Task {
    pub(super) fn publish(&mut self, topic: Topic, data: Vec<u8>) -> Result<(), PublishError> {
        if !may_publish(self.config.role, topic) {
            return Err(PublishError::NotAllowed(topic));
        }
        let (size, limit) = (data.len(), topic.max_bytes());
        if size > limit {
            return Err(PublishError::TooLarge { topic, size, limit });
        }
        if !self.rates.author(&self.introducer.own) {
            return Err(PublishError::RateLimited);
        }
        let ident = topic.ident(&self.config.network);
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else {
            return Err(PublishError::NotAllowed(topic));
        };
        match gossip.publish(ident, data) {
            Ok(_) => {
                add(&self.counters.gossip_out, 1);
                add(&self.counters.gossip_out_bytes, size);
                Ok(())
            }
            Err(gossipsub::PublishError::NoPeersSubscribedToTopic) => Err(PublishError::NoPeers(topic)),
            Err(gossipsub::PublishError::AllQueuesFull(_)) => Err(PublishError::Busy),
            Err(gossipsub::PublishError::MessageTooLarge) => Err(PublishError::TooLarge { topic, size, limit }),
            Err(e) => Err(PublishError::Other(e.to_string())),
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event, now: Instant) {
        let gossipsub::Event::Message { propagation_source, message_id, message } = event else {
            return;
        };
        add(&self.counters.gossip_in, 1);
        add(&self.counters.gossip_in_bytes, message.data.len());
        let Some(topic) = Topic::of_hash(&message.topic, &self.config.network) else {
            self.settle(&message_id, &propagation_source, MessageAcceptance::Reject);
            return;
        };
        self.judge(propagation_source, message_id, topic, message, now);
    }

    /// Decides by author and rate; what passes goes to the application.
    fn judge(&mut self, source: PeerId, id: MessageId, topic: Topic, message: Message, now: Instant) {
        // The strict mode has verified the author's signature.
        let Some(author) = message.source else {
            self.settle(&id, &source, MessageAcceptance::Reject);
            return;
        };
        let Some(proved) = self.gossip.authors.get_mut(&author) else {
            return self.judge_stranger(source, author, Held { id, topic, message });
        };
        let (hotkey, role) = (proved.hotkey, proved.role);
        if !may_publish(role, topic) {
            add(&self.counters.gossip_wrong_role, 1);
            self.settle(&id, &source, MessageAcceptance::Reject);
            return;
        }
        if !proved.window.fresh(message.sequence_number.unwrap_or_default()) {
            add(&self.counters.gossip_replayed, 1);
            self.settle(&id, &source, MessageAcceptance::Ignore);
            return;
        }
        if !self.rates.author(&author) {
            add(&self.counters.gossip_rate_limited, 1);
            self.settle(&id, &source, MessageAcceptance::Ignore);
            return;
        }
        let gossip = Gossip { id: GossipId(id.clone()), topic, author, hotkey, role, source, data: message.data };
        if self.gossip.verdicts.len() >= self.config.limits.pending_verdicts
            || self.events.try_send(NetworkEvent::Gossip(gossip)).is_err()
        {
            add(&self.counters.gossip_overflow, 1);
            self.settle(&id, &source, MessageAcceptance::Ignore);
            return;
        }
        self.gossip.order.push_back((now, id.clone()));
        self.gossip.verdicts.insert(id, (source, now));
    }

    fn judge_stranger(&mut self, source: PeerId, author: PeerId, held: Held) {
        if author != source {
            add(&self.counters.gossip_unknown_author, 1);
            self.settle(&held.id, &source, MessageAcceptance::Ignore);
            return;
        }
        let running = self.links.contains_key(&author)
            && !self.sessions.contains_key(&author)
            && !self.closing.contains_key(&author);
        let waiting = self.gossip.held.get(&author).map_or(0, Vec::len);
        if running && waiting < self.config.limits.held_per_peer {
            self.gossip.held.entry(author).or_default().push(held);
            return;
        }
        add(&self.counters.gossip_unauthenticated, 1);
        self.settle(&held.id, &source, MessageAcceptance::Reject);
    }

    /// Remembers what a peer has proved. A hotkey has one peer id at a time.
    pub(super) fn learn_author(&mut self, peer: PeerId, hotkey: Option<Hotkey>, role: Role, now: Instant) {
        let authors = &mut self.gossip.authors;
        if hotkey.is_some() {
            authors.retain(|p, a| *p == peer || a.hotkey != hotkey);
        }
        if authors.len() >= MAX_AUTHORS && !authors.contains_key(&peer) {
            let stalest = authors.iter().filter(|(p, _)| !self.sessions.contains_key(p)).min_by_key(|(_, a)| a.seen);
            if let Some(stalest) = stalest.map(|(p, _)| *p) {
                authors.remove(&stalest);
            }
        }
        authors.insert(peer, Author { hotkey, role, seen: now, window: ReplayWindow::default() });
    }

    pub(super) fn forget_author(&mut self, peer: &PeerId) {
        self.gossip.authors.remove(peer);
    }

    /// The peer ids that a hotkey has proved.
    pub(super) fn peers_of(&self, hotkey: &Hotkey) -> Vec<PeerId> {
        self.gossip.authors.iter().filter(|(_, a)| a.hotkey.as_ref() == Some(hotkey)).map(|(p, _)| *p).collect()
    }

    /// Forgets authors that were not connected for a while.
    pub(super) fn forget_authors(&mut self, now: Instant) {
        let (sessions, memory) = (&self.sessions, self.config.timing.author_memory);
        self.gossip.authors.retain(|peer, author| {
            if sessions.contains_key(peer) {
                author.seen = now;
            }
            now.saturating_duration_since(author.seen) < memory
        });
    }

    /// Judges anew what was held for a peer: its handshake has ended.
    pub(super) fn release_held(&mut self, peer: &PeerId, now: Instant) {
        for held in self.gossip.held.remove(peer).unwrap_or_default() {
            if self.gossip.authors.contains_key(peer) {
                self.judge(*peer, held.id, held.topic, held.message, now);
            } else {
                add(&self.counters.gossip_unauthenticated, 1);
                self.settle(&held.id, peer, MessageAcceptance::Reject);
            }
        }
    }

    pub(super) fn on_verdict(&mut self, id: &MessageId, verdict: Verdict) {
        let Some((source, _)) = self.gossip.verdicts.remove(id) else { return };
        let (counter, acceptance) = match verdict {
            Verdict::Accept => (&self.counters.gossip_accepted, MessageAcceptance::Accept),
            Verdict::Ignore => (&self.counters.gossip_ignored, MessageAcceptance::Ignore),
            Verdict::Reject => (&self.counters.gossip_rejected, MessageAcceptance::Reject),
        };
        add(counter, 1);
        self.settle(id, &source, acceptance);
    }

    /// What the application did not judge in time counts as ignored.
    pub(super) fn expire_gossip(&mut self, now: Instant) {
        while let Some((since, id)) = self.gossip.order.front() {
            let late = now.saturating_duration_since(*since) >= self.config.timing.verdict;
            let judged = !self.gossip.verdicts.contains_key(id);
            if !late && !judged {
                break;
            }
            let Some((_, id)) = self.gossip.order.pop_front() else { break };
            if let Some((source, _)) = self.gossip.verdicts.remove(&id) {
                add(&self.counters.gossip_overflow, 1);
                self.settle(&id, &source, MessageAcceptance::Ignore);
            }
        }
    }

    fn settle(&mut self, id: &MessageId, source: &PeerId, acceptance: MessageAcceptance) {
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            gossip.report_message_validation_result(id, source, acceptance);
        }
    }

    /// Validators reach each other directly, whatever the mesh looks like, as long as they are few.
    pub(super) fn direct(&mut self, peer: &PeerId, role: Role) {
        let validators = self.sessions.values().filter(|s| s.info.role == Role::Validator).count();
        let few = validators <= self.config.limits.direct_validators;
        if self.config.role == Role::Validator
            && role == Role::Validator
            && few
            && let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut()
        {
            gossip.add_explicit_peer(peer);
        }
    }

    pub(super) fn not_direct(&mut self, peer: &PeerId) {
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            gossip.remove_explicit_peer(peer);
        }
    }
}
