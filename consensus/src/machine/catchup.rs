//! Catching up and helping others to: beacons, range requests, bodies on request.

use perturb_ledger::{Block, BlockError, Certificate, StateStore};
use perturb_types::encode;
use perturb_types::envelope::Signed;

use super::{Machine, Phase};
use crate::event::{Action, Misdeed};
use crate::wire::{
    Beacon, MAX_CERTIFICATE_BYTES, MAX_RANGE_BLOCKS, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Peer, Request, Response,
    Topic,
};

/// Why a block of a range cannot be committed.
enum Unfit {
    /// The peer's fault.
    Theirs(Misdeed, String),
    /// The own store's: it cannot be read.
    Own(String),
    /// A quorum certified the block and it does not execute here: the own state is wrong.
    Diverged(String),
}

impl Unfit {
    fn theirs(misdeed: Misdeed, e: impl ToString) -> Self {
        Self::Theirs(misdeed, e.to_string())
    }
}

impl<S: StateStore> Machine<S> {
    pub(super) fn send_beacon(&mut self) {
        self.last_beacon = Some(self.now);
        // Rises with every beacon, also within one millisecond.
        self.beacons_sent = self.now.max(self.beacons_sent.saturating_add(1));
        let beacon = Beacon { height: self.ledger.head().height, peer: self.config.peer, sent_ms: self.beacons_sent };
        let signed = Signed::sign(&self.config.pair, &self.network, beacon);
        self.push(Action::Broadcast { topic: Topic::Status, bytes: encode::encode(signed.envelope()) });
    }

    /// Asks for a range where this node is behind.
    pub(super) fn plan_range(&mut self) {
        if matches!(self.phase, Phase::Stopped | Phase::Committing { .. }) {
            return;
        }
        let head = self.ledger.head().height;
        let id = self.next_ask + 1;
        if let Some(asked) = self.sync.plan(self.now, head, id) {
            self.next_ask = id;
            let bytes = encode::encode(&Request::Blocks { from: asked.from, count: asked.count });
            self.push(Action::Ask { id, to: asked.peer, bytes });
        }
    }

    pub(super) fn on_request(&mut self, id: u64, from: Peer, bytes: &[u8]) {
        match encode::decode::<Request>("request", bytes, MAX_REQUEST_BYTES) {
            Ok(Request::Body { digest }) => {
                let body = self.candidates.get(&digest).and_then(|c| c.block.as_ref()).map(encode::encode);
                self.push(Action::Answer { id, bytes: encode::encode(&Response::Body(body)) });
            }
            Ok(Request::Blocks { from: first, count }) => {
                let have = self.ledger.head().height;
                if first == 0 || first > have || count == 0 {
                    self.push(Action::Answer { id, bytes: encode::encode(&Response::Blocks(Vec::new())) });
                } else {
                    let left = u16::try_from(have - first + 1).unwrap_or(u16::MAX);
                    let count = count.min(MAX_RANGE_BLOCKS).min(left);
                    self.push(Action::ServeRange { id, from: first, count });
                }
            }
            Err(e) => {
                self.push(Action::Penalise { peer: from, misdeed: Misdeed::Request, reason: e.to_string() });
                self.push(Action::Answer { id, bytes: encode::encode(&Response::Body(None)) });
            }
        }
    }

    pub(super) fn on_response(&mut self, id: u64, from: Peer, bytes: Option<Vec<u8>>) {
        let response = bytes.map(|b| encode::decode::<Response>("response", &b, MAX_RESPONSE_BYTES));
        if let Some(digest) = self.candidates.answered(id, &from) {
            match response {
                Some(Ok(Response::Body(Some(bytes)))) => {
                    let block = encode::decode::<Block>("block", &bytes, Topic::Blocks.max_bytes());
                    match block {
                        Ok(block) if block.header.digest(&self.network) == digest && block.is_whole(&self.network) => {
                            self.candidates.body(digest, block);
                        }
                        Ok(_) => self.blame(from, Misdeed::Block, "another block than asked for"),
                        Err(e) => self.blame(from, Misdeed::Answer, &e.to_string()),
                    }
                }
                Some(Ok(Response::Blocks(_))) => {
                    self.blame(from, Misdeed::Answer, "a range where a body was asked for")
                }
                Some(Err(e)) => self.blame(from, Misdeed::Answer, &e.to_string()),
                Some(Ok(Response::Body(None))) | None => {}
            }
            return;
        }
        let Some(asked) = self.sync.take(id, &from) else { return };
        match response {
            Some(Ok(Response::Blocks(blocks))) if !blocks.is_empty() => {
                if blocks.len() > usize::from(asked.count) {
                    self.sync.failed(self.now, &from);
                    self.blame(from, Misdeed::Answer, "more blocks than asked for");
                    return;
                }
                self.sync.queue.extend(blocks.into_iter().map(|(block, certificate)| (from, block, certificate)));
            }
            Some(Err(e)) => {
                self.sync.failed(self.now, &from);
                self.blame(from, Misdeed::Answer, &e.to_string());
            }
            _ => self.sync.failed(self.now, &from),
        }
    }

    fn blame(&mut self, peer: Peer, misdeed: Misdeed, reason: &str) {
        self.push(Action::Penalise { peer, misdeed, reason: reason.to_owned() });
    }

    /// Commits the next block of a range. True if something moved.
    pub(super) fn apply_queued(&mut self) -> bool {
        let Some((from, block, certificate)) = self.sync.queue.pop_front() else { return false };
        match self.verify_queued(&block, &certificate) {
            Ok(None) => true,
            Ok(Some((executed, certificate))) => {
                self.sync_log();
                // No block interval while catching up: the next height starts at once.
                self.commit(executed, certificate, 0);
                true
            }
            Err(Unfit::Own(reason)) => {
                self.halt(format!("the own store fails: {reason}"));
                false
            }
            Err(Unfit::Diverged(reason)) => {
                self.diverged(self.ledger.head().height + 1, reason);
                false
            }
            Err(Unfit::Theirs(misdeed, reason)) => {
                self.sync.queue.clear();
                self.sync.failed(self.now, &from);
                self.blame(from, misdeed, &reason);
                true
            }
        }
    }

    /// The block and its certificate, verified; `None` where this node has the height already.
    #[allow(clippy::type_complexity)]
    fn verify_queued(
        &self,
        block: &[u8],
        certificate: &[u8],
    ) -> Result<Option<(perturb_ledger::Executed, Certificate)>, Unfit> {
        let block: Block =
            encode::decode("block", block, Topic::Blocks.max_bytes()).map_err(|e| Unfit::theirs(Misdeed::Answer, e))?;
        let certificate: Certificate = encode::decode("certificate", certificate, MAX_CERTIFICATE_BYTES)
            .map_err(|e| Unfit::theirs(Misdeed::Answer, e))?;
        let next = self.ledger.head().height + 1;
        if block.header.height < next {
            return Ok(None);
        }
        let digest = block.header.digest(&self.network);
        if block.header.height != next || certificate.height != next || certificate.digest != digest {
            let why = format!("a block of height {} where {next} was asked for", block.header.height);
            return Err(Unfit::Theirs(Misdeed::Answer, why));
        }
        // A certificate speaks for the header alone: with another body under it the peer lies, and says
        // nothing of this node's state.
        if !block.is_whole(&self.network) {
            return Err(Unfit::theirs(Misdeed::Block, "a body that its header does not name"));
        }
        certificate
            .verify(&self.network, self.ledger.validators())
            .map_err(|e| Unfit::theirs(Misdeed::Certificate, e))?;
        let executed = self.ledger.check(&block).map_err(|e| match e {
            BlockError::Store(e) => Unfit::Own(e.to_string()),
            // More than two thirds executed it to other roots, or more than a third lies.
            e => Unfit::Diverged(e.to_string()),
        })?;
        Ok(Some((executed, certificate)))
    }
}
