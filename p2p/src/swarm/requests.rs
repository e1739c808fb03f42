//! Requests in both directions: who may ask what, how often, and how the answer finds its way.

use std::time::Duration;

use futures::FutureExt;
use libp2p::PeerId;
use libp2p::request_response::{self, Message, OutboundFailure, ResponseChannel};
use tokio::sync::{mpsc, oneshot};

use super::{Exchange, Task};
use crate::behaviour::may_ask;
use crate::codec::{Answer, Ask};
use crate::events::{NetworkEvent, ReplyChannel, Request};
use crate::handle::RequestError;
use crate::metrics::add;
use crate::protocols::{Decline, Protocol};

/// Time between two looks whether a peer that asked is still there.
const GONE_LOOK: Duration = Duration::from_millis(250);

impl Task {
    /// Sends a request of the application.
    pub(super) fn ask(
        &mut self,
        peer: PeerId,
        protocol: Protocol,
        ask: Ask,
        reply: oneshot::Sender<Result<Vec<u8>, RequestError>>,
    ) {
        if let Err(e) = self.may_send(&peer, protocol, ask.data.len()) {
            let _ = reply.send(Err(e));
            return;
        }
        add(&self.counters.requests_out, 1);
        add(&self.counters.requests_out_bytes, ask.data.len());
        // The session has a connection, so this never dials.
        let id = self.swarm.behaviour_mut().protocol_mut(protocol).send_request(&peer, ask);
        self.requests.insert((protocol, id), reply);
    }

    fn may_send(&mut self, peer: &PeerId, protocol: Protocol, size: usize) -> Result<(), RequestError> {
        let Some(session) = self.sessions.get(peer) else { return Err(RequestError::NotConnected(*peer)) };
        if !may_ask(self.config.role, session.info.role, protocol) {
            return Err(RequestError::NotAllowed(protocol));
        }
        let limit = protocol.max_request_bytes();
        if size > limit {
            return Err(RequestError::TooLarge { protocol, size, limit });
        }
        if self.requests.len() >= self.config.limits.pending_requests {
            // Those whose asker has given up make room first.
            self.requests.retain(|_, reply| !reply.is_closed());
            if self.requests.len() >= self.config.limits.pending_requests {
                return Err(RequestError::Busy);
            }
        }
        if !self.rates.outbound(peer, protocol) {
            return Err(RequestError::RateLimited);
        }
        Ok(())
    }

    pub(super) fn on_request_event(&mut self, protocol: Protocol, event: Exchange) {
        match event {
            request_response::Event::Message { peer, message, .. } => match message {
                Message::Request { request, channel, .. } => self.on_request(peer, protocol, request.data, channel),
                Message::Response { request_id, response } => {
                    if let Ok(data) = &response {
                        add(&self.counters.responses_in_bytes, data.len());
                    }
                    if let Some(reply) = self.requests.remove(&(protocol, request_id)) {
                        let _ = reply.send(response.map_err(RequestError::Declined));
                    }
                }
            },
            request_response::Event::OutboundFailure { request_id, error, peer, .. } => {
                add(&self.counters.requests_failed, 1);
                let error = match error {
                    OutboundFailure::Timeout => RequestError::Timeout(protocol.timeout()),
                    OutboundFailure::DialFailure => RequestError::NotConnected(peer),
                    other => RequestError::Failed(other.to_string()),
                };
                if let Some(reply) = self.requests.remove(&(protocol, request_id)) {
                    let _ = reply.send(Err(error));
                }
            }
            request_response::Event::InboundFailure { peer, error, .. } => {
                add(&self.counters.requests_failed, 1);
                tracing::debug!(%peer, %protocol, %error, "a peer's request failed");
            }
            request_response::Event::ResponseSent { .. } => {}
        }
    }

    fn on_request(&mut self, peer: PeerId, protocol: Protocol, data: Vec<u8>, channel: ResponseChannel<Answer>) {
        add(&self.counters.requests_in, 1);
        add(&self.counters.requests_in_bytes, data.len());
        let decline = |task: &mut Self, channel, why| task.respond(protocol, channel, Err(why));
        let info = match self.sessions.get(&peer) {
            Some(s) if may_ask(s.info.role, self.config.role, protocol) => s.info.clone(),
            _ => {
                add(&self.counters.requests_unauthorised, 1);
                return decline(self, channel, Decline::NotAuthorised);
            }
        };
        if !self.rates.inbound(&peer, protocol) {
            add(&self.counters.requests_rate_limited, 1);
            return decline(self, channel, Decline::RateLimited);
        }
        let (sender, answer) = oneshot::channel();
        if self.replies.len() >= self.config.limits.pending_replies {
            add(&self.counters.requests_busy, 1);
            return decline(self, channel, Decline::Busy);
        }
        let request = Request { peer: info, protocol, data, reply: ReplyChannel { sender } };
        match self.events.try_send(NetworkEvent::Request(request)) {
            Ok(()) => self.replies.push(
                async move {
                    // The engine gives up on the channel after the same time, and when the peer is gone:
                    // then nobody waits, and whoever works on the answer can stop.
                    let gone = async {
                        while channel.is_open() {
                            tokio::time::sleep(GONE_LOOK).await;
                        }
                        Ok(Err(Decline::Internal))
                    };
                    let answered = async {
                        tokio::select! {
                            answer = answer => answer,
                            gone = gone => gone,
                        }
                    };
                    let answer = tokio::time::timeout(protocol.timeout(), answered).await;
                    let answer = match answer {
                        Ok(Ok(answer)) => answer,
                        Ok(Err(_)) => Err(Decline::Internal),
                        Err(_) => Err(Decline::Busy),
                    };
                    (protocol, peer, channel, answer)
                }
                .boxed(),
            ),
            Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => {
                add(&self.counters.requests_busy, 1);
                decline(self, channel, Decline::Busy);
            }
        }
    }

    pub(super) fn on_reply(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        channel: ResponseChannel<Answer>,
        answer: Answer,
    ) {
        let limit = protocol.max_response_bytes();
        let answer = match answer {
            Ok(data) if data.len() > limit => {
                tracing::error!(%peer, %protocol, size = data.len(), limit, "an answer is over the protocol's limit");
                Err(Decline::TooLarge)
            }
            other => other,
        };
        self.respond(protocol, channel, answer);
    }

    pub(super) fn respond(&mut self, protocol: Protocol, channel: ResponseChannel<Answer>, answer: Answer) {
        let size = answer.as_ref().map_or(0, Vec::len);
        // An error means that the peer is gone or the time is up.
        if self.swarm.behaviour_mut().protocol_mut(protocol).send_response(channel, answer).is_ok() {
            add(&self.counters.responses_out_bytes, size);
        }
    }
}
