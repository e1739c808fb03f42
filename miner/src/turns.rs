//! Whose turn it is at the model.
//!
//! A model works for one asker at a time, and an asker has one model at a time. Of those who wait the
//! one goes next that was served least for its power (start-time fair queueing): after any while, askers
//! who all wanted more have had time in proportion to their power, whatever they asked for. Time that
//! was not asked for is not saved up. The queue is bounded; where it is full, whoever was served most
//! for its power makes room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use perturb_types::Hotkey;

/// Whether an asker still waits for the answer.
pub type Waits = Arc<dyn Fn() -> bool + Send + Sync>;

/// Challenges that wait in all: several askers of a full set, whose deadlines bind long before.
const MAX_WAITING: usize = 32;

/// Challenges of one asker that wait: its next round may begin while the last one is worked on.
const MAX_PER_ASKER: usize = 2;

/// Time between two looks whether an asker has left.
const LOOK: Duration = Duration::from_millis(50);

/// Askers remembered: more than a set has members.
const MAX_SERVED: usize = 1024;

/// Parts of a microsecond of service per unit of power: powers are at most some 10^13.
const SCALE: u128 = 1 << 64;

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// Others who were served less for their power fill the queue, or the asker its part of it.
    Full,
    /// The time is up, or the asker has left.
    Over,
}

struct Wait {
    ticket: u64,
    asker: Hotkey,
    power: u64,
    model: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<Wait>,
    busy: BTreeSet<usize>,
    running: BTreeSet<Hotkey>,
    /// Service for power, in virtual time.
    served: BTreeMap<Hotkey, u128>,
    /// The virtual time at which the newest turn began.
    floor: u128,
    next: u64,
}

impl State {
    fn of(&self, asker: &Hotkey) -> u128 {
        self.served.get(asker).copied().unwrap_or(self.floor).max(self.floor)
    }

    /// The ticket whose turn it is at a model.
    fn next_at(&self, model: usize) -> Option<u64> {
        if self.busy.contains(&model) {
            return None;
        }
        let ready = self.waiting.iter().filter(|w| w.model == model && !self.running.contains(&w.asker));
        ready.min_by_key(|w| (self.of(&w.asker), w.ticket)).map(|w| w.ticket)
    }

    /// A waiting asker's turn begins.
    fn begin(&mut self, ticket: u64, asker: Hotkey, model: usize) {
        self.waiting.retain(|w| w.ticket != ticket);
        self.floor = self.of(&asker);
        self.busy.insert(model);
        self.running.insert(asker);
    }

    /// An asker's turn ends, after so long.
    fn end(&mut self, asker: Hotkey, power: u64, model: usize, took: Duration) {
        let cost = took.as_micros().saturating_mul(SCALE) / u128::from(power);
        let served = self.of(&asker).saturating_add(cost);
        self.served.insert(asker, served);
        if self.served.len() > MAX_SERVED {
            let floor = self.floor;
            self.served.retain(|_, served| *served > floor);
        }
        self.busy.remove(&model);
        self.running.remove(&asker);
    }

    /// Makes room for an asker.
    fn admit(&mut self, asker: &Hotkey) -> Result<(), NoTurn> {
        if self.waiting.iter().filter(|w| w.asker == *asker).count() >= MAX_PER_ASKER {
            return Err(NoTurn::Full);
        }
        if self.waiting.len() >= MAX_WAITING {
            let most = self.waiting.iter().max_by_key(|w| (self.of(&w.asker), w.ticket));
            let Some(most) = most.filter(|w| self.of(&w.asker) > self.of(asker)) else { return Err(NoTurn::Full) };
            let ticket = most.ticket;
            self.waiting.retain(|w| w.ticket != ticket);
        }
        Ok(())
    }
}

/// The models and those who wait for them.
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
    /// Per model, the power that waits for it.
    load: Vec<Arc<AtomicU64>>,
}

/// A turn at a model, until it is dropped.
pub struct Turn<'a> {
    turns: &'a Turns,
    asker: Hotkey,
    power: u64,
    model: usize,
    began: Instant,
}

impl Turns {
    /// Nobody waits for any of so many models.
    pub fn new(models: usize) -> Self {
        let load = (0..models).map(|_| Arc::default()).collect();
        Self { state: Mutex::default(), changed: Condvar::new(), load }
    }

    /// The power that waits for a model.
    pub fn load(&self, model: usize) -> Arc<AtomicU64> {
        self.load.get(model).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, state: &State) {
        for (model, load) in self.load.iter().enumerate() {
            let powers = state.waiting.iter().filter(|w| w.model == model).map(|w| w.power);
            load.store(powers.fold(0, u64::saturating_add), Ordering::SeqCst);
        }
        self.changed.notify_all();
    }

    /// Waits for a turn at a model, until `until` and for as long as the asker waits.
    ///
    /// # Errors
    /// There is none.
    pub fn take(
        &self,
        asker: Hotkey,
        power: u64,
        model: usize,
        until: Instant,
        waits: &Waits,
    ) -> Result<Turn<'_>, NoTurn> {
        let power = power.max(1);
        let mut state = self.lock();
        state.admit(&asker)?;
        let ticket = state.next;
        state.next += 1;
        state.waiting.push(Wait { ticket, asker, power, model });
        self.changed(&state);
        loop {
            if !state.waiting.iter().any(|w| w.ticket == ticket) {
                return Err(NoTurn::Full);
            }
            let now = Instant::now();
            let is_over = now >= until || !waits();
            if is_over || state.next_at(model) == Some(ticket) {
                match is_over {
                    true => state.waiting.retain(|w| w.ticket != ticket),
                    false => state.begin(ticket, asker, model),
                }
                self.changed(&state);
                drop(state);
                if is_over {
                    return Err(NoTurn::Over);
                }
                return Ok(Turn { turns: self, asker, power, model, began: now });
            }
            let pause = LOOK.min(until.saturating_duration_since(now));
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Turn<'_> {
    /// Its asker's power.
    pub fn power(&self) -> u64 {
        self.power
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let mut state = self.turns.lock();
        state.end(self.asker, self.power, self.model, took);
        self.turns.changed(&state);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn asker(i: u8) -> Hotkey {
        Hotkey([i; 32])
    }

    fn here() -> Waits {
        Arc::new(|| true)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn time_goes_by_power_among_those_who_always_want_more() {
        let (powers, mut had) = ([1, 3], [0u32; 2]);
        let mut state = State::default();
        for ticket in 0..400 {
            // Whoever does not wait asks again.
            for (i, power) in powers.iter().enumerate() {
                if state.waiting.iter().all(|w| w.asker != asker(i as u8)) {
                    let wait = Wait { ticket: 2 * ticket + i as u64, asker: asker(i as u8), power: *power, model: 0 };
                    state.waiting.push(wait);
                }
            }
            let next = state.next_at(0).unwrap();
            let i = (next % 2) as usize;
            state.begin(next, asker(i as u8), 0);
            assert_eq!(state.next_at(0), None, "one at a time");
            state.end(asker(i as u8), powers[i], 0, Duration::from_millis(5));
            had[i] += 1;
        }
        assert_eq!(had, [100, 300]);
    }

    #[test]
    fn who_comes_late_has_saved_nothing_up() {
        let turns = Turns::new(1);
        for _ in 0..5 {
            let turn = turns.take(asker(1), 1, 0, soon(), &here()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
            drop(turn);
        }
        let state = turns.lock();
        assert_eq!(state.of(&asker(2)), state.floor);
        assert!(state.floor > 0 && state.of(&asker(1)) > state.floor);
    }

    #[test]
    fn an_asker_that_leaves_or_is_late_leaves_the_queue() {
        let turns = Turns::new(1);
        let first = turns.take(asker(1), 1, 0, soon(), &here()).unwrap();
        let late = turns.take(asker(2), 1, 0, Instant::now() + Duration::from_millis(20), &here());
        assert_eq!(late.err(), Some(NoTurn::Over));
        let gone: Waits = Arc::new(|| false);
        assert_eq!(turns.take(asker(3), 1, 0, soon(), &gone).err(), Some(NoTurn::Over));
        assert_eq!(turns.load(0).load(Ordering::SeqCst), 0);
        drop(first);
        assert!(turns.take(asker(2), 1, 0, soon(), &here()).is_ok());
    }

    /// The queue is full of askers with little power who were served; one with more gets in all the same.
    #[test]
    fn a_full_queue_makes_room_for_who_was_served_less() {
        let mut state = State { floor: 10, ..State::default() };
        for i in 0..MAX_WAITING as u8 {
            state.admit(&asker(i)).unwrap();
            state.served.insert(asker(i), 100 + u128::from(i));
            state.waiting.push(Wait { ticket: i.into(), asker: asker(i), power: 1, model: 0 });
        }
        state.served.insert(asker(200), 1000);
        assert_eq!(state.admit(&asker(200)), Err(NoTurn::Full), "it was served most");
        state.admit(&asker(201)).unwrap();
        assert!(state.waiting.len() == MAX_WAITING - 1 && state.waiting.iter().all(|w| w.ticket != 31));
        state.waiting.push(Wait { ticket: 99, asker: asker(0), power: 1, model: 0 });
        assert_eq!(state.admit(&asker(0)), Err(NoTurn::Full), "two of one asker wait already");
    }

    #[test]
    fn an_asker_has_one_model_at_a_time() {
        let turns = Turns::new(2);
        let first = turns.take(asker(1), 1, 0, soon(), &here()).unwrap();
        let until = Instant::now() + Duration::from_millis(20);
        assert_eq!(turns.take(asker(1), 1, 1, until, &here()).err(), Some(NoTurn::Over));
        assert!(turns.take(asker(2), 1, 1, soon(), &here()).is_ok());
        drop(first);
        assert!(turns.take(asker(1), 1, 1, soon(), &here()).is_ok());
    }
}
