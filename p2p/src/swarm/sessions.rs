//! Connections, handshakes, sessions and bans.
//!
//! A session belongs to a peer id and stands as long as one connection does. Of one hotkey there is
//! one session: **the newest proof wins**, because the usual reason for a second one is a restart
//! behind a line whose death nobody noticed, and nobody without the key can displace it. The older
//! session is closed; two nodes that share a hotkey therefore displace each other, slowed by their
//! backoff, and both logs say so.

use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{self, Message, OutboundRequestId, ResponseChannel};
use libp2p::swarm::ConnectionId;
use perturb_types::encode;

use super::{Exchange, Incoming, Link, Outgoing, Session, Stage, Task, jitter};
use crate::bans::Subject;
use crate::codec::{Answer, Ask};
use crate::config::{Denial, Role};
use crate::events::{DownReason, NetworkEvent, PeerInfo};
use crate::handshake::{MAX_MESSAGE_BYTES, Proof, Refusal, Request, Response, clip};
use crate::metrics::add;
use crate::protocols::{Decline, Protocol};
use perturb_types::Hotkey;

/// How long a refused peer may take to read why, before the connection is closed.
const REFUSAL_GRACE: std::time::Duration = std::time::Duration::from_secs(2);

impl Task {
    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, link: Link, now: Instant) {
        let inbound = link.inbound;
        self.links.entry(peer).or_default().insert(id, link);
        self.book.connected(&peer);
        self.closing.remove(&peer);
        self.on_bootnode_connected(&peer, id);
        if let Some(session) = self.sessions.get(&peer) {
            if session.info.hotkey.is_some() {
                self.swarm.behaviour_mut().gate.release(id);
            }
        } else if !inbound && !self.outgoing.contains_key(&peer) {
            self.begin(peer, now);
        }
    }

    pub(super) fn on_closed(&mut self, peer: PeerId, id: ConnectionId, now: Instant) {
        if let Some(links) = self.links.get_mut(&peer) {
            links.remove(&id);
            if !links.is_empty() {
                return;
            }
        }
        self.links.remove(&peer);
        self.outgoing.remove(&peer);
        self.incoming.remove(&peer);
        self.closing.remove(&peer);
        self.forget_told(&peer);
        let stable = self.config.timing.stable;
        let good = self.sessions.get(&peer).is_some_and(|s| now.saturating_duration_since(s.since) >= stable);
        self.end_session(&peer, DownReason::Disconnected);
        self.release_held(&peer, now);
        self.book.closed(&peer, good, now, jitter());
        self.on_bootnode_closed(&peer, good, now);
    }

    /// The dialer's first step.
    fn begin(&mut self, peer: PeerId, now: Instant) {
        let nonce: [u8; 32] = rand::random();
        self.outgoing.insert(peer, Outgoing { nonce, since: now, stage: Stage::AwaitHello });
        let hello = Request::Hello(self.introducer.hello(nonce));
        self.send_handshake(peer, &hello);
    }

    fn send_handshake(&mut self, peer: PeerId, request: &Request) {
        let ask = Ask::any(Protocol::Handshake, encode::encode(request));
        let id = self.swarm.behaviour_mut().handshake.send_request(&peer, ask);
        self.handshakes.insert(id, peer);
    }

    pub(super) fn on_handshake_event(&mut self, event: Exchange, now: Instant) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } => {
                    self.on_handshake_request(peer, &request.data, channel, now)
                }
                Message::Response { request_id, response } => {
                    self.on_handshake_response(peer, request_id, response, now);
                }
            },
            request_response::Event::OutboundFailure { peer, request_id, error, .. } => {
                self.handshakes.remove(&request_id);
                if self.outgoing.remove(&peer).is_some() && !self.sessions.contains_key(&peer) {
                    tracing::debug!(%peer, %error, "the handshake broke off");
                    self.disconnect(&peer);
                }
            }
            // A refused peer closes when it has read why; it gets a moment for it.
            request_response::Event::ResponseSent { .. } => {}
            request_response::Event::InboundFailure { peer, .. } => self.close_refused(&peer),
        }
    }

    fn close_refused(&mut self, peer: &PeerId) {
        if self.closing.remove(peer).is_some() && !self.sessions.contains_key(peer) {
            self.disconnect(peer);
        }
    }

    /// The listener's side.
    fn on_handshake_request(&mut self, peer: PeerId, bytes: &[u8], channel: ResponseChannel<Answer>, now: Instant) {
        if !self.rates.inbound(&peer, Protocol::Handshake) {
            return self.respond(Protocol::Handshake, channel, Err(Decline::RateLimited));
        }
        let result = match encode::decode::<Request>("handshake request", bytes, MAX_MESSAGE_BYTES) {
            Err(_) => Err((Refusal::Malformed, None)),
            Ok(Request::Hello(hello)) => self.introducer.check_hello(&hello).map_err(|e| (e, None)).map(|()| {
                let nonce: [u8; 32] = rand::random();
                self.incoming.insert(peer, Incoming { nonce, role: hello.role, since: now });
                Response::Hello(self.introducer.hello(nonce), self.introducer.prove(&peer, hello.nonce))
            }),
            Ok(Request::Prove(proof)) => self.on_proof(&peer, proof.as_ref(), now),
        };
        match result {
            Ok(response) => self.respond(Protocol::Handshake, channel, Ok(encode::encode(&response))),
            Err((refusal, hotkey)) => {
                self.respond(Protocol::Handshake, channel, Ok(encode::encode(&refusal.to_response())));
                self.blame(&peer, hotkey, &refusal, now);
                self.refuse(peer, refusal, now);
                if !self.sessions.contains_key(&peer) {
                    self.closing.insert(peer, now);
                }
            }
        }
    }

    /// Checks a proof against the nonce that is used up by it; the hotkey in the error was proved.
    fn on_proof(
        &mut self,
        peer: &PeerId,
        proof: Option<&Proof>,
        now: Instant,
    ) -> Result<Response, (Refusal, Option<Hotkey>)> {
        let incoming = self.incoming.remove(peer).ok_or((Refusal::NoHandshake, None))?;
        let hotkey = self.introducer.check_proof(peer, incoming.role, incoming.nonce, proof).map_err(|e| (e, None))?;
        self.admit(hotkey, incoming.role, now).map_err(|e| (e, hotkey))?;
        self.establish(*peer, hotkey, incoming.role, now);
        Ok(Response::Welcome)
    }

    /// Whether a proved identity is let in.
    fn admit(&self, hotkey: Option<Hotkey>, role: Role, now: Instant) -> Result<(), Refusal> {
        if let Some(hotkey) = hotkey
            && let Some((left, ban)) = self.bans.remaining(&Subject::Hotkey(hotkey), now)
        {
            return Err(Refusal::Banned { remaining_s: left.as_secs().max(1), reason: ban.reason.clone() });
        }
        self.authorised(hotkey, role).map_err(|denial| Refusal::NotAuthorised(denial.0))
    }

    fn authorised(&self, hotkey: Option<Hotkey>, role: Role) -> Result<(), Denial> {
        match hotkey {
            Some(hotkey) => self.config.authority.allows(&hotkey, role),
            None => self.config.authority.allows_anonymous(role),
        }
    }

    /// The dialer's side.
    fn on_handshake_response(&mut self, peer: PeerId, id: OutboundRequestId, response: Answer, now: Instant) {
        self.handshakes.remove(&id);
        let Some(outgoing) = self.outgoing.remove(&peer) else { return };
        let response = match response {
            Ok(bytes) => encode::decode::<Response>("handshake response", &bytes, MAX_MESSAGE_BYTES)
                .map_err(|_| Refusal::Malformed),
            Err(Decline::RateLimited) => Err(Refusal::RateLimited),
            Err(_) => Err(Refusal::Malformed),
        };
        let refusal = match (response, outgoing.stage) {
            (Ok(Response::Hello(hello, proof)), Stage::AwaitHello) => {
                let checked = self
                    .introducer
                    .check_hello(&hello)
                    .and_then(|()| self.introducer.check_proof(&peer, hello.role, outgoing.nonce, proof.as_ref()));
                match checked.and_then(|hotkey| self.admit(hotkey, hello.role, now).map(|()| hotkey)) {
                    Ok(hotkey) => {
                        let stage = Stage::AwaitWelcome { hotkey, role: hello.role };
                        self.outgoing.insert(peer, Outgoing { stage, ..outgoing });
                        // Its gossip may arrive before its welcome.
                        self.learn_author(peer, hotkey, hello.role, now);
                        let proof = Request::Prove(self.introducer.prove(&peer, hello.nonce));
                        return self.send_handshake(peer, &proof);
                    }
                    Err(refusal) => refusal,
                }
            }
            (Ok(Response::Welcome), Stage::AwaitWelcome { hotkey, role }) => {
                return self.establish(peer, hotkey, role, now);
            }
            (Ok(Response::Refused { code, text }), _) => Refusal::ByRemote { code, text: clip(&text) },
            (Ok(_), _) => Refusal::Malformed,
            (Err(refusal), _) => refusal,
        };
        // The dialed side did not ask for this: it is blamed for forgery alone.
        if matches!(refusal, Refusal::BadSignature { .. }) {
            self.blame(&peer, None, &refusal, now);
        }
        self.refuse(peer, refusal, now);
        if !self.sessions.contains_key(&peer) {
            self.disconnect(&peer);
        }
    }

    /// A handshake has failed: say so and do not come back too soon.
    fn refuse(&mut self, peer: PeerId, refusal: Refusal, now: Instant) {
        let counter = match refusal {
            Refusal::ByRemote { .. } => &self.counters.handshakes_refused_by_remote,
            _ => &self.counters.handshakes_refused,
        };
        add(counter, 1);
        let addr = self.links.get(&peer).and_then(|l| l.values().next()).map(|l| l.addr.clone());
        tracing::warn!(%peer, ?addr, code = refusal.code(), "handshake failed: {refusal}");
        if !self.sessions.contains_key(&peer) {
            self.forget_author(&peer);
        }
        self.release_held(&peer, now);
        self.book.refused(&peer, now, jitter());
        self.on_bootnode_refused(&peer, now);
        self.emit(NetworkEvent::Refused { peer_id: peer, addr, refusal });
    }

    /// Both sides have proved themselves.
    fn establish(&mut self, peer: PeerId, hotkey: Option<Hotkey>, role: Role, now: Instant) {
        self.learn_author(peer, hotkey, role, now);
        // A session without a hotkey costs nothing to make: it still counts as unproven for its IP.
        if hotkey.is_some() {
            for id in self.links.get(&peer).into_iter().flat_map(|l| l.keys()) {
                self.swarm.behaviour_mut().gate.release(*id);
            }
        }
        self.forgive(&peer, hotkey);
        if let Some(session) = self.sessions.get(&peer) {
            if session.info.hotkey == hotkey && session.info.role == role {
                self.close_stale_links(&peer);
                return self.release_held(&peer, now);
            }
            self.end_session(&peer, DownReason::Displaced);
            self.learn_author(peer, hotkey, role, now);
        }
        if let Some(older) = hotkey.and_then(|h| self.by_hotkey.get(&h).copied()).filter(|p| *p != peer) {
            tracing::warn!(%peer, %older, hotkey = ?hotkey, "the hotkey opened a newer session");
            self.end_session(&older, DownReason::Displaced);
            self.disconnect(&older);
        }
        let Some(addr) = self.links.get(&peer).and_then(|l| l.values().next()).map(|l| l.addr.clone()) else {
            return;
        };
        let info = PeerInfo { peer_id: peer, hotkey, role, addr };
        tracing::info!(%peer, ?role, hotkey = ?hotkey, addr = %info.addr, "session");
        add(&self.counters.handshakes_ok, 1);
        self.sessions.insert(peer, Session { info: info.clone(), since: now });
        if let Some(hotkey) = hotkey {
            self.by_hotkey.insert(hotkey, peer);
        }
        self.direct(&peer, role);
        self.publish_peers();
        self.emit(NetworkEvent::PeerUp(info));
        self.release_held(&peer, now);
        self.remember(&peer, now);
        self.on_bootnode_session(&peer, now);
    }

    /// A peer that proves itself again has restarted: what is much older than its newest
    /// connection is dead and only waits for a ping to fail. (Two nodes that dial each other at
    /// the same moment keep both connections.)
    fn close_stale_links(&mut self, peer: &PeerId) {
        let Some(links) = self.links.get(peer) else { return };
        let Some(newest) = links.values().map(|l| l.since).max() else { return };
        let age = self.config.timing.handshake;
        let stale = links.iter().filter(|(_, l)| newest.saturating_duration_since(l.since) > age);
        for id in stale.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.swarm.close_connection(id);
        }
    }

    pub(super) fn end_session(&mut self, peer: &PeerId, why: DownReason) {
        let Some(session) = self.sessions.remove(peer) else { return };
        if let Some(hotkey) = session.info.hotkey
            && self.by_hotkey.get(&hotkey) == Some(peer)
        {
            self.by_hotkey.remove(&hotkey);
        }
        if why != DownReason::Disconnected {
            self.forget_author(peer);
        }
        self.not_direct(peer);
        self.publish_peers();
        tracing::info!(%peer, hotkey = ?session.info.hotkey, "session ended: {why}");
        self.emit(NetworkEvent::PeerDown { peer: session.info, why });
    }

    /// Counts a failed attempt: against the hotkey if it was proved, else against peer id and IP.
    fn blame(&mut self, peer: &PeerId, hotkey: Option<Hotkey>, refusal: &Refusal, now: Instant) {
        // Being told again that one is banned is no new failure.
        if matches!(refusal, Refusal::Banned { .. }) {
            return;
        }
        let mut subjects = Vec::with_capacity(2);
        match hotkey {
            Some(hotkey) => subjects.push(Subject::Hotkey(hotkey)),
            None => {
                subjects.push(Subject::Peer(*peer));
                let gate = &self.swarm.behaviour().gate;
                let inbound = self.links.get(peer).into_iter().flat_map(|l| l.values()).find(|l| l.inbound);
                subjects.extend(inbound.and_then(|l| gate.subject(&l.addr)).map(Subject::Ip));
            }
        }
        for subject in subjects {
            if let Some(ban) = self.bans.fail(subject, &refusal.to_string(), now) {
                self.enforce(subject, &ban.reason);
            }
        }
    }

    fn forgive(&mut self, peer: &PeerId, hotkey: Option<Hotkey>) {
        self.bans.forgive(&Subject::Peer(*peer));
        if let Some(hotkey) = hotkey {
            self.bans.forgive(&Subject::Hotkey(hotkey));
            let gate = &self.swarm.behaviour().gate;
            let ips = self.links.get(peer).into_iter().flat_map(|l| l.values()).filter_map(|l| gate.subject(&l.addr));
            for ip in ips.collect::<Vec<_>>() {
                self.bans.forgive(&Subject::Ip(ip));
            }
        }
    }

    /// Puts a ban into force.
    pub(super) fn enforce(&mut self, subject: Subject, reason: &str) {
        tracing::warn!(?subject, reason, "banned");
        add(&self.counters.bans_imposed, 1);
        let peers = match subject {
            Subject::Peer(peer) => {
                self.end_session(&peer, DownReason::Banned(reason.to_owned()));
                self.forget_author(&peer);
                // Closes its connections too.
                self.swarm.behaviour_mut().blocked.block_peer(peer);
                return;
            }
            Subject::Hotkey(hotkey) => self.peers_of(&hotkey),
            Subject::Ip(ip) => {
                self.swarm.behaviour_mut().gate.ban(ip);
                // Proved sessions of the same address stay: a ban by IP is for those who proved nothing.
                let gate = &self.swarm.behaviour().gate;
                let here = |l: &Link| l.inbound && gate.subject(&l.addr) == Some(ip);
                let unproven = |p: &PeerId| !self.sessions.contains_key(p);
                self.links.iter().filter(|(p, l)| unproven(p) && l.values().any(here)).map(|(p, _)| *p).collect()
            }
        };
        for peer in peers {
            self.end_session(&peer, DownReason::Banned(reason.to_owned()));
            self.forget_author(&peer);
            self.disconnect(&peer);
        }
    }

    /// Asks the authority again about everybody.
    pub(super) fn recheck(&mut self) {
        let denied: Vec<(PeerId, Denial)> = self
            .sessions
            .iter()
            .filter_map(|(p, s)| Some((*p, self.authorised(s.info.hotkey, s.info.role).err()?)))
            .collect();
        for (peer, denial) in denied {
            self.end_session(&peer, DownReason::NoLongerAuthorised(denial.0));
            self.disconnect(&peer);
        }
    }

    /// Closes what has proved nothing in time.
    pub(super) fn expire_handshakes(&mut self, now: Instant) {
        let limit = self.config.timing.handshake;
        let old = |since: Instant| now.saturating_duration_since(since) >= limit;
        self.outgoing.retain(|_, o| !old(o.since));
        self.incoming.retain(|_, i| !old(i.since));
        let over: Vec<PeerId> = self
            .links
            .iter()
            .filter(|(p, l)| !self.sessions.contains_key(p) && l.values().all(|l| old(l.since)))
            .map(|(p, _)| *p)
            .collect();
        for peer in over {
            add(&self.counters.handshakes_timed_out, 1);
            if self.links.get(&peer).is_some_and(|l| l.values().any(|l| l.inbound)) {
                self.blame(&peer, None, &Refusal::NoHandshake, now);
            }
            self.disconnect(&peer);
        }
        let refused: Vec<PeerId> = self
            .closing
            .iter()
            .filter(|(_, since)| now.saturating_duration_since(**since) >= REFUSAL_GRACE)
            .map(|(p, _)| *p)
            .collect();
        for peer in refused {
            self.close_refused(&peer);
        }
    }
}
