//! Steps and actions: the simulated driver.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use perturb_consensus::wire::{MAX_RANGE_BLOCKS, Response, Topic};
use perturb_consensus::{Action, Event, Verdict};
use perturb_ledger::Commit;
use perturb_types::encode;
use rand::Rng;

use super::{Happening, Message, World, index};
use crate::byzantine::{Answer, Said, Scene, Strategy};
use crate::host::HostBug;
use crate::oracle::Violation;
use crate::stats::Stats;

/// Milliseconds after which a request without an answer has failed.
const ASK_TIMEOUT_MS: u64 = 10_000;

/// Milliseconds for which an accused peer stays disconnected.
const DROPPED_MS: u64 = 1_000;

impl World {
    /// A gossiped message arrives.
    pub(super) fn hear(&mut self, i: usize, message: &Rc<Message>, again: bool) -> Result<(), Violation> {
        if self.actors[i].machine.is_none() {
            return Ok(());
        }
        let first = self.actors[i].seen.insert(message.id);
        if !first && !again {
            return Ok(());
        }
        self.stats.messages += 1;
        self.stats.consensus_messages += u64::from(message.topic == Topic::Consensus);
        let (topic, bytes) = (message.topic, message.bytes.clone());
        if topic == Topic::Consensus {
            self.oracle.came(i, self.actors[i].clock(self.now), &bytes);
        }
        self.lie(i, |strategy, scene| strategy.hear(scene, topic, &message.bytes));
        let from = self.actors[message.author].name;
        let event = Event::Gossip { id: message.id, topic, from, bytes };
        // Nobody relays a message twice: with many nodes, copies would make ever more copies.
        if self.step(i, event)? && first && self.network.relays() {
            for to in 0..self.actors.len() {
                if to != i && to != message.author {
                    self.carry(i, to, message, 0);
                }
            }
        }
        Ok(())
    }

    /// Puts a message on the wire from one actor to another.
    fn carry(&mut self, from: usize, to: usize, message: &Rc<Message>, after_ms: u64) {
        if self.is_dropped(from, to) {
            return;
        }
        for (copy, delay) in self.network.deliveries(&mut self.rng, from, to).into_iter().enumerate() {
            let what = Happening::Gossip { message: message.clone(), again: copy > 0 };
            self.at(self.now + self.lag_ms + after_ms + delay, to, what);
        }
    }

    fn is_dropped(&self, a: usize, b: usize) -> bool {
        self.dropped.get(&(a.min(b), a.max(b))).is_some_and(|until| *until > self.now)
    }

    fn message(&mut self, author: usize, topic: Topic, bytes: Vec<u8>) -> Rc<Message> {
        self.number += 1;
        Rc::new(Message { id: self.number, author, topic, bytes })
    }

    fn say(&mut self, author: usize, said: Vec<Said>) {
        for said in said {
            match said.topic {
                Topic::Consensus => self.oracle.heard(&self.cast, &said.bytes),
                Topic::Blocks => self.oracle.block(&self.cast, &said.bytes),
                Topic::Rounds | Topic::Status => {}
            }
            let message = self.message(author, said.topic, said.bytes);
            self.carry(author, said.to, &message, said.after_ms);
        }
    }

    /// Lets an actor's strategies act, and sends what they say.
    pub(super) fn lie(&mut self, i: usize, act: impl Fn(&mut Box<dyn Strategy>, &mut Scene<'_>) -> Vec<Said>) {
        if self.actors[i].lies.is_empty() {
            return;
        }
        let others = (0..self.actors.len()).filter(|j| *j != i).collect::<Vec<_>>();
        let mut lies = std::mem::take(&mut self.actors[i].lies);
        for (kind, strategy) in &mut lies {
            let Some(machine) = self.actors[i].machine.as_ref() else { break };
            let key = self.actors[i].key;
            let mut scene = Scene { rng: &mut self.rng, cast: &self.cast, me: key, others: others.clone(), machine };
            let said = act(strategy, &mut scene);
            *self.stats.lies.entry(kind.name()).or_default() += said.len() as u64;
            self.say(i, said);
        }
        self.actors[i].lies = lies;
    }

    /// Feeds an event to a machine and executes what it orders; true where a message was accepted.
    pub(super) fn step(&mut self, i: usize, event: Event) -> Result<bool, Violation> {
        match event {
            Event::ChainTip(tip) if !self.chain.hear(i, &tip) => Ok(false),
            event => self.feed(i, event),
        }
    }

    pub(super) fn feed(&mut self, i: usize, event: Event) -> Result<bool, Violation> {
        self.trace.events += 1;
        self.lag_ms = 0;
        let mut accepted = false;
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let clock = self.actors[i].clock(self.now);
            let Some(machine) = self.actors[i].machine.as_mut() else { return Ok(accepted) };
            let began = self.options.charged.then(Instant::now);
            let mut actions = machine.step(clock, event);
            if let Some(began) = began {
                // Whole milliseconds are charged, fractions by chance: on average the same.
                let micros = began.elapsed().as_micros() as u64;
                let extra = u64::from(self.rng.random_range(0..1000) < micros % 1000);
                self.stats.charged_us += micros;
                self.actors[i].busy_until = self.now.max(self.actors[i].busy_until) + micros / 1000 + extra;
                self.lag_ms = self.actors[i].busy_until - self.now;
            }
            if self.plan.host_bug == HostBug::SpeaksFirst {
                actions.sort_by_key(|a| !matches!(a, Action::Broadcast { .. }));
            }
            for action in actions {
                if self.burn(i, &action)? {
                    return Ok(accepted);
                }
                accepted |= matches!(&action, Action::Verdict { verdict: Verdict::Accept, .. });
                events.extend(self.act(i, action)?);
                if self.actors[i].machine.is_none() {
                    return Ok(accepted);
                }
            }
        }
        if let Some(machine) = &self.actors[i].machine
            && self.actors[i].is_honest()
        {
            self.oracle.holds(i, &machine.load())?;
        }
        Ok(accepted)
    }

    fn act(&mut self, i: usize, action: Action) -> Result<Option<Event>, Violation> {
        let (now, key) = (self.now, self.actors[i].key);
        if self.actors[i].disk.full
            && matches!(action, Action::AppendLog { .. } | Action::SyncLog | Action::Guard { .. } | Action::Commit(_))
        {
            self.stop_for_space(i)?;
            return Ok(None);
        }
        match action {
            Action::AppendLog { height, record } => {
                self.trace.note(&[now, i as u64, 1, height], &record, || format!("{now} {i} logs at {height}"));
                self.actors[i].disk.append(height, record);
            }
            Action::SyncLog => self.actors[i].disk.sync(),
            Action::Guard { mark, .. } => {
                let actor = &self.actors[i];
                self.oracle.guards((i, actor.damaged), key, actor.disk.guard, &mark)?;
                self.actors[i].disk.guard = Some(mark);
            }
            Action::Broadcast { topic, bytes } => self.broadcast(i, topic, bytes)?,
            Action::Ask { id, to, bytes } => self.ask(i, id, index(&to), bytes),
            Action::Answer { id, bytes } => self.answer(i, id, bytes),
            Action::ServeRange { id, from, count } => {
                let store = &self.actors[i].disk.store;
                let blocks: Vec<_> = (from..from + u64::from(count.min(MAX_RANGE_BLOCKS)))
                    .map_while(|h| {
                        let (block, certificate) = store.block(h)?;
                        Some((encode::encode(&block), encode::encode(&certificate?)))
                    })
                    .collect();
                self.answer(i, id, encode::encode(&Response::range(blocks)));
            }
            Action::SetTimer { id, at } => {
                let (boot, due) = (self.actors[i].boots, self.actors[i].true_time(at).max(now));
                self.actors[i].timers.insert(id, at);
                self.at(due, i, Happening::Timer { boot, id, at });
            }
            Action::CancelTimer { id } => {
                self.actors[i].timers.remove(&id);
            }
            Action::Commit(commit) => return self.commit(i, &commit).map(Some),
            Action::ChainQuery { reference, snapshot } => {
                let answer = self.chain.answer(&self.cast, i, &reference, snapshot);
                let (boot, delay) = (self.actors[i].boots, self.rng.random_range(10..200));
                let event = Box::new(Event::ChainAnswer { reference, answer });
                self.at(now + delay, i, Happening::Event { boot, event });
            }
            Action::Verdict { .. } => {}
            Action::Penalise { peer, reason, .. } => self.accuse(i, index(&peer), &reason)?,
            Action::Diverged { reason, .. } => self.halted(i, &reason, "restored: the state was not the agreed one")?,
            Action::Halt { reason } => self.halted(i, &reason, "restored: the state could not be read")?,
        }
        Ok(None)
    }

    fn broadcast(&mut self, i: usize, topic: Topic, bytes: Vec<u8>) -> Result<(), Violation> {
        let now = self.now;
        self.trace.note(&[now, i as u64, 2, topic as u64], &bytes, || {
            let what = match perturb_consensus::wire::Gossip::decode(&bytes) {
                Ok(message) if topic == Topic::Consensus => super::judge::describe(&message),
                _ => format!("{} bytes", bytes.len()),
            };
            format!("{now} {i} says on {topic:?}: {what}")
        });
        if topic == Topic::Consensus && self.actors[i].is_honest() {
            self.oracle.says(&self.cast, self.actors[i].key, &bytes, &self.actors[i].disk)?;
        }
        if topic == Topic::Consensus
            && let Ok(perturb_consensus::wire::Gossip::Proposal(p)) = perturb_consensus::wire::Gossip::decode(&bytes)
        {
            self.proposed_ms.entry(p.height).or_insert(now);
        }
        if topic == Topic::Blocks {
            self.oracle.block(&self.cast, &bytes);
        }
        if let Some(said) = self.bent(i, topic, &bytes) {
            self.say(i, said);
            return Ok(());
        }
        if !self.actors[i].is_honest() && topic == Topic::Consensus {
            self.oracle.heard(&self.cast, &bytes);
        }
        let message = self.message(i, topic, bytes);
        for to in 0..self.actors.len() {
            if to != i {
                self.carry(i, to, &message, 0);
            }
        }
        Ok(())
    }

    /// What a liar sends instead of an own broadcast.
    fn bent(&mut self, i: usize, topic: Topic, bytes: &[u8]) -> Option<Vec<Said>> {
        let mut lies = std::mem::take(&mut self.actors[i].lies);
        let others = (0..self.actors.len()).filter(|j| *j != i).collect::<Vec<_>>();
        let mut out = None;
        if let Some(machine) = self.actors[i].machine.as_ref() {
            let key = self.actors[i].key;
            for (kind, strategy) in &mut lies {
                let mut scene =
                    Scene { rng: &mut self.rng, cast: &self.cast, me: key, others: others.clone(), machine };
                if let Some(said) = strategy.say(&mut scene, topic, bytes) {
                    *self.stats.lies.entry(kind.name()).or_default() += said.len().max(1) as u64;
                    out = Some(said);
                    break;
                }
            }
        }
        self.actors[i].lies = lies;
        out
    }

    fn ask(&mut self, i: usize, id: u64, to: usize, bytes: Vec<u8>) {
        let (boot, from) = (self.actors[i].boots, self.actors[i].name);
        let silence = Event::Response { id, from: super::peer(to), bytes: None };
        self.at(self.now + ASK_TIMEOUT_MS, i, Happening::Event { boot, event: Box::new(silence) });
        if to >= self.actors.len() || self.is_dropped(i, to) {
            return;
        }
        self.number += 1;
        let name = self.number;
        self.requests.insert(name, (i, boot, id));
        if let Some(delay) = self.network.deliveries(&mut self.rng, i, to).first() {
            let boot = self.actors[to].boots;
            let event = Box::new(Event::Request { id: name, from, bytes });
            self.at(self.now + delay, to, Happening::Event { boot, event });
        }
    }

    fn answer(&mut self, i: usize, name: u64, bytes: Vec<u8>) {
        let Some((asker, boot, id)) = self.requests.remove(&name) else { return };
        let mut answer = Answer::Kept;
        let mut lies = std::mem::take(&mut self.actors[i].lies);
        if let Some(machine) = self.actors[i].machine.as_ref() {
            let key = self.actors[i].key;
            for (kind, strategy) in &mut lies {
                let mut scene = Scene { rng: &mut self.rng, cast: &self.cast, me: key, others: Vec::new(), machine };
                answer = strategy.answer(&mut scene, &bytes);
                if !matches!(answer, Answer::Kept) {
                    Stats::count(&mut self.stats.lies, kind.name());
                    break;
                }
            }
        }
        self.actors[i].lies = lies;
        let bytes = match answer {
            Answer::Kept => bytes,
            Answer::Dropped => return,
            Answer::Other(bytes) => bytes,
        };
        if self.is_dropped(i, asker) {
            return;
        }
        if let Some(delay) = self.network.deliveries(&mut self.rng, i, asker).first() {
            let event = Box::new(Event::Response { id, from: self.actors[i].name, bytes: Some(bytes) });
            self.at(self.now + delay, asker, Happening::Event { boot, event });
        }
    }

    fn accuse(&mut self, i: usize, of: usize, reason: &str) -> Result<(), Violation> {
        let now = self.now;
        self.trace.note(&[now, i as u64, 3, of as u64], &[], || format!("{now} {i} accuses {of}: {reason}"));
        let innocent = |a: &super::Actor| a.is_honest() && !a.damaged;
        if innocent(&self.actors[i]) && self.actors.get(of).is_some_and(innocent) {
            return Err(Violation { rule: "no blame", what: format!("actor {i} accuses actor {of}: {reason}") });
        }
        Stats::count(&mut self.stats.remedies, "accusations");
        self.dropped.insert((i.min(of), i.max(of)), now + DROPPED_MS);
        Ok(())
    }

    pub(super) fn commit(&mut self, i: usize, commit: &Commit) -> Result<Event, Violation> {
        let (now, height) = (self.now, commit.height);
        self.trace.note(&[now, i as u64, 4, height], &commit.digest.0, || {
            let round = commit.certificate.as_ref().map_or(0, |c| c.round);
            let set = commit.block.header.next_validators != commit.block.header.validators;
            let more = if set { ", the set changes" } else { "" };
            format!("{now} {i} commits {height} {} of round {round}{more}", commit.digest.short())
        });
        let first = height > self.oracle.height();
        if !self.actors[i].damaged {
            self.oracle.commits(&self.cast, i, commit)?;
        }
        self.actors[i].disk.store.commit(commit);
        self.actors[i].disk.clear(height);
        if height.is_multiple_of(4) {
            let copy = self.actors[i].disk.store.copy();
            self.actors[i].backups.push(copy);
            if self.actors[i].backups.len() > 2 {
                self.actors[i].backups.remove(0);
            }
        }
        if let Some(proposed) = self.proposed_ms.get(&height) {
            self.finality_ms.push((self.now + self.lag_ms).saturating_sub(*proposed));
        }
        if first {
            self.decided_first(commit);
        }
        Ok(Event::Committed { height })
    }
}
