//! Validators and miners of any number whose histories are written directly, so that many epochs
//! close by the real code without a signature.

use perturb_challenge::history::RingHistory;

use super::*;
use crate::epoch;
use crate::execute::Executor;
use crate::reputation::Reputation;
use crate::seeds::SeedsRow;
use crate::state::{HistoryRow, history_key, reputation_key};
use crate::validators::ValidatorSet;

pub(super) const SPEC: ChallengeId = ChallengeId(0);

pub(super) struct Town {
    pub(super) net: Net,
    store: MemoryStore,
    /// Each miner's coldkey, where it is not its own.
    pub(super) owners: Vec<Option<u8>>,
}

impl Town {
    /// So many founders of equal stake and so many miners; histories of two.
    pub(super) fn new(validators: u8, miners: u8) -> Self {
        let hot = |i: u8| HotkeyPair::from_seed(&[i; 32]).unwrap();
        let mut net = Net::new();
        net.hotkeys = (0..validators).map(|i| hot(1 + i)).collect();
        net.keys = (0..validators).map(|i| ConsensusPair::from_seed(&[1 + i; 32])).collect();
        net.miners = (0..miners).map(|i| hot(101 + i)).collect();
        net.genesis.snapshot = Net::snapshot_of(&net.hotkeys, &net.miners, reference(1, 0));
        let founder = |(h, k)| GenesisDelegation::of(&Delegation::sign(&ZERO, h, k, 0));
        net.genesis.delegations = net.hotkeys.iter().zip(&net.keys).map(founder).collect();
        let mut store = MemoryStore::default();
        store.commit(&genesis_commit(&net.genesis).unwrap());
        Self { net, store, owners: vec![None; usize::from(miners)] }
    }

    /// Makes the genesis anew after its numbers were changed.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Parameters)) -> Self {
        change(&mut self.net.genesis.parameters);
        self.store = MemoryStore::default();
        self.store.commit(&genesis_commit(&self.net.genesis).unwrap());
        self
    }

    /// What happens after genesis, in one block that never ends.
    pub(super) fn run(&self) -> Run<'_> {
        Run {
            town: self,
            beacon: true,
            x: Executor::new(self.net.id(), &self.net.genesis.beacon, &self.store, 1).unwrap(),
        }
    }
}

pub(super) struct Run<'t> {
    pub(super) town: &'t Town,
    /// Whether the beacon gives each epoch its seed.
    pub(super) beacon: bool,
    pub(super) x: Executor<'t, MemoryStore>,
}

impl Run<'_> {
    pub(super) fn validator(&self, v: usize) -> Hotkey {
        self.town.net.hotkeys[v].hotkey()
    }

    pub(super) fn miner(&self, m: usize) -> Hotkey {
        self.town.net.miners[m].hotkey()
    }

    /// In this epoch a validator's scores of a miner have this mean.
    pub(super) fn measure(&mut self, v: usize, m: usize, mean: u32) {
        let ring = RingHistory { processed: 10, scores: vec![mean; 2] };
        let row = HistoryRow { ring, fresh: self.x.frame.meta.epoch };
        self.x.state.put(history_key(SPEC, &self.miner(m), &self.validator(v)), &row);
        self.x.state.accept();
    }

    /// It says that it is ready.
    pub(super) fn ready(&mut self, v: usize) {
        let key = state::ready_key(self.x.frame.meta.epoch, &self.validator(v));
        self.x.state.put(key, &());
        self.x.state.accept();
    }

    pub(super) fn set_standing(&mut self, v: usize, standing: u32) {
        let row = Reputation { standing, ..Reputation::default() };
        self.x.state.put(reputation_key(&self.validator(v)), &row);
        self.x.state.accept();
    }

    pub(super) fn standing(&self, v: usize) -> u32 {
        let row: Option<Reputation> = self.x.state.get(&reputation_key(&self.validator(v))).unwrap();
        row.unwrap_or_default().standing
    }

    /// Closes the epoch; its record.
    pub(super) fn close(&mut self) -> epoch::EpochRecord {
        let number = self.x.frame.meta.epoch;
        let mut snapshot = self.town.net.snapshot(reference(number + 2, number + 1));
        for (m, owner) in self.town.owners.iter().enumerate() {
            let hotkey = self.miner(m);
            for n in snapshot.neurons.iter_mut().filter(|n| n.hotkey == hotkey) {
                n.coldkey = owner.map_or(n.coldkey, |o| [o; 32]);
            }
        }
        epoch::close(&mut self.x, &snapshot).unwrap();
        if self.beacon {
            let seeds: SeedsRow = self.x.state.must(state::SEEDS).unwrap();
            self.x.take_seed(seeds.waiting[0].pulse, &[number as u8; 48]).unwrap();
            self.x.state.accept();
        }
        self.x.state.get(&state::epoch_key(number, SPEC)).unwrap().unwrap()
    }

    pub(super) fn set(&self) -> &ValidatorSet {
        &self.x.frame.set
    }

    pub(super) fn is_member(&self, v: usize) -> bool {
        self.set().by_hotkey(&self.validator(v)).is_some()
    }
}

/// The agreed score of a miner.
pub(super) fn score(record: &epoch::EpochRecord, miner: &Hotkey) -> Option<u32> {
    let found = record.miners.iter().find(|m| m.hotkey == *miner)?;
    found.aggregate.as_ref().map(|a| a.score.0)
}
