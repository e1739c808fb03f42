//! Who takes how much of the image store, and whose images go first. Pure bookkeeping; [`crate::images`]
//! does what it says on disk.
//!
//! An image belongs to a round. There are two shelves, each with a quota of its own, so that what others
//! make this node fetch takes nothing from what it must be able to show:
//!
//! - *own*, three quarters: the rounds that this validator runs. Before a round is opened, **room** is
//!   reserved for all that can come of it. Rounds that are *pinned* stay: those that the caller names
//!   (the agreed state still asks for them) and those that hold a room. Of the others the oldest go.
//! - *copies*, one quarter: images fetched to check other validators' rounds. Whoever is not pinned goes
//!   first, oldest first; then the oldest of the validator that takes most, so that one that names many
//!   images pushes out its own alone. A copy that goes can be fetched again.
//!
//! A whole round goes at a time: some of its images show nothing. Nothing goes for room that cannot be
//! made anyway.

use std::collections::{BTreeMap, BTreeSet};

use perturb_types::{ChallengeId, Hotkey, RoundId};

/// Bytes that an image counts besides its own: its rows in two families.
const ROW_BYTES: u64 = 256;

/// Bytes that an image counts.
pub(crate) const fn cost(png: usize) -> u64 {
    ROW_BYTES.saturating_add(png as u64)
}

/// Bytes that a round's images count at most: the clean one, and so many answers of so many bytes.
#[must_use]
pub const fn round_cost(clean: usize, answers: usize, answer_bytes: usize) -> u64 {
    cost(clean).saturating_add((answers as u64).saturating_mul(cost(answer_bytes)))
}

/// A part of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shelf {
    Own,
    Copies,
}

impl Shelf {
    pub(crate) const ALL: [Self; 2] = [Self::Own, Self::Copies];

    /// Its part of all bytes.
    pub(crate) const fn quota(self, all: u64) -> u64 {
        let copies = all / 4;
        match self {
            Self::Own => all - copies,
            Self::Copies => copies,
        }
    }
}

/// Where a round's images are: in the order of keys on disk, which is by age for each validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) shelf: Shelf,
    pub(crate) validator: Hotkey,
    /// The epoch that it is kept with.
    pub(crate) epoch: u64,
    /// The height at which it came.
    pub(crate) height: u64,
    pub(crate) challenge: ChallengeId,
    pub(crate) seq: u64,
}

impl Place {
    /// Bytes of a key.
    pub(crate) const BYTES: usize = 1 + 32 + 8 + 8 + 2 + 8;

    pub(crate) const fn new(shelf: Shelf, round: &RoundId, epoch: u64, height: u64) -> Self {
        Self { shelf, validator: round.validator, epoch, height, challenge: round.challenge, seq: round.seq }
    }

    pub(crate) const fn round(&self) -> RoundId {
        RoundId { validator: self.validator, challenge: self.challenge, seq: self.seq }
    }

    pub(crate) fn key(&self) -> Vec<u8> {
        let shelf = [self.shelf as u8];
        let (epoch, height) = (self.epoch.to_be_bytes(), self.height.to_be_bytes());
        let (challenge, seq) = (self.challenge.0.to_be_bytes(), self.seq.to_be_bytes());
        [&shelf[..], &self.validator.0, &epoch, &height, &challenge, &seq].concat()
    }

    pub(crate) fn read(key: &[u8]) -> Option<Self> {
        let (shelf, rest) = key.split_first()?;
        let (validator, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (height, rest) = rest.split_first_chunk()?;
        let (challenge, seq) = rest.split_first_chunk()?;
        Some(Self {
            shelf: Shelf::ALL.into_iter().find(|s| *s as u8 == *shelf)?,
            validator: Hotkey(*validator),
            epoch: u64::from_be_bytes(*epoch),
            height: u64::from_be_bytes(*height),
            challenge: ChallengeId(u16::from_be_bytes(*challenge)),
            seq: u64::from_be_bytes(seq.try_into().ok()?),
        })
    }
}

/// Bytes set aside for a round in progress.
#[derive(Debug, Default)]
struct Reserved {
    left: u64,
    round: Option<RoundId>,
}

/// What the image store holds, for people and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageUse {
    /// Bytes of own rounds' images.
    pub own: u64,
    /// Bytes of copies.
    pub copies: u64,
    /// Bytes reserved for rounds in progress.
    pub reserved: u64,
    /// Rounds whose images were dropped to make room, since the start.
    pub dropped: u64,
    /// Times that no room could be made for a round, since the start.
    pub refused: u64,
}

/// What is held, and for whom room is reserved.
#[derive(Debug, Default)]
pub(crate) struct Held {
    rounds: BTreeMap<Place, u64>,
    used: [u64; 2],
    rooms: BTreeMap<u64, Reserved>,
    next_room: u64,
    dropped: u64,
    refused: u64,
}

impl Held {
    pub(crate) fn usage(&self) -> ImageUse {
        let [own, copies] = self.used;
        ImageUse { own, copies, reserved: self.reserved(), dropped: self.dropped, refused: self.refused }
    }

    fn reserved(&self) -> u64 {
        self.rooms.values().map(|room| room.left).fold(0, u64::saturating_add)
    }

    /// An image came.
    pub(crate) fn add(&mut self, place: Place, bytes: u64) {
        *self.rounds.entry(place).or_default() += bytes;
        self.used[place.shelf as usize] += bytes;
    }

    /// A round's images are gone.
    pub(crate) fn remove(&mut self, place: &Place) {
        let bytes = self.rounds.remove(place).unwrap_or(0);
        let used = &mut self.used[place.shelf as usize];
        *used = used.saturating_sub(bytes);
    }

    /// They went to make room.
    pub(crate) const fn dropped(&mut self) {
        self.dropped = self.dropped.saturating_add(1);
    }

    /// No room could be made for a round.
    pub(crate) const fn refused(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }

    fn of(&self, shelf: Shelf) -> impl Iterator<Item = (&Place, u64)> {
        self.rounds.iter().filter(move |(place, _)| place.shelf == shelf).map(|(place, bytes)| (place, *bytes))
    }

    fn is_pinned(&self, place: &Place, pinned: &BTreeSet<RoundId>) -> bool {
        let round = place.round();
        let in_progress = || self.rooms.values().any(|room| room.round == Some(round));
        pinned.contains(&round) || (place.shelf == Shelf::Own && in_progress())
    }

    /// Rounds of epochs before this one that nothing pins.
    pub(crate) fn outlived(&self, before: u64, pinned: &BTreeSet<RoundId>) -> Vec<Place> {
        let old = self.rounds.keys().filter(|p| p.epoch < before && !self.is_pinned(p, pinned));
        old.copied().collect()
    }

    /// Who has to go from a shelf so that `wanted` more bytes, of the round at `for_round`, stay within
    /// the limit; `None` where that cannot be.
    pub(crate) fn victims(
        &self,
        shelf: Shelf,
        limit: u64,
        wanted: u64,
        for_round: Option<&Place>,
        pinned: &BTreeSet<RoundId>,
    ) -> Option<Vec<Place>> {
        let reserved = if shelf == Shelf::Own { self.reserved() } else { 0 };
        let all = self.used[shelf as usize].saturating_add(reserved).saturating_add(wanted);
        let mut over = all.saturating_sub(limit);
        let mut out = Vec::new();
        if over == 0 {
            return Some(out);
        }
        let others = self.of(shelf).filter(|(place, _)| Some(*place) != for_round);
        let (held, mut free): (Vec<_>, Vec<_>) = others.partition(|(place, _)| self.is_pinned(place, pinned));
        free.sort_by_key(|(place, _)| (place.epoch, place.height, **place));
        for (place, bytes) in free {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(bytes);
            out.push(*place);
        }
        if over > 0 && shelf == Shelf::Copies {
            let asker = for_round.map(|place| (place.validator, wanted + self.rounds.get(place).unwrap_or(&0)));
            over = heaviest_first(&held, asker, over, &mut out);
        }
        (over == 0).then_some(out)
    }

    /// Sets bytes aside.
    pub(crate) fn reserve(&mut self, bytes: u64) -> u64 {
        let id = self.next_room;
        self.next_room += 1;
        self.rooms.insert(id, Reserved { left: bytes, round: None });
        id
    }

    /// Changes what is set aside.
    pub(crate) fn set_room(&mut self, id: u64, bytes: u64) {
        self.rooms.entry(id).or_default().left = bytes;
    }

    /// What is set aside.
    pub(crate) fn room(&self, id: u64) -> u64 {
        self.rooms.get(&id).map_or(0, |room| room.left)
    }

    /// Says whose images the room is for; they stay while it does.
    pub(crate) fn room_of(&mut self, id: u64, round: &RoundId) {
        self.rooms.entry(id).or_default().round = Some(*round);
    }

    /// Frees what is left of a room.
    pub(crate) fn release(&mut self, id: u64) {
        self.rooms.remove(&id);
    }
}

/// Rounds with their bytes.
type Rounds<'a> = Vec<(&'a Place, u64)>;

/// Takes from the validator with most bytes its oldest round, until `over` bytes are found or it is the
/// asker itself that has most; returns what is missing.
fn heaviest_first(held: &[(&Place, u64)], asker: Option<(Hotkey, u64)>, mut over: u64, out: &mut Vec<Place>) -> u64 {
    let mut rows: BTreeMap<Hotkey, (u64, Rounds<'_>)> = BTreeMap::new();
    // Newest first, so that the oldest is taken from the end.
    for (place, bytes) in held.iter().rev() {
        let (sum, rounds) = rows.entry(place.validator).or_default();
        *sum += bytes;
        rounds.push((*place, *bytes));
    }
    if let Some((validator, bytes)) = asker {
        rows.entry(validator).or_default().0 += bytes;
    }
    while over > 0 {
        let Some((sum, rounds)) = rows.values_mut().max_by_key(|(sum, _)| *sum) else { break };
        let Some((place, bytes)) = rounds.pop() else { break };
        *sum = sum.saturating_sub(bytes);
        over = over.saturating_sub(bytes);
        out.push(*place);
    }
    over
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn round(validator: u8, seq: u64) -> RoundId {
        RoundId { validator: Hotkey([validator; 32]), challenge: ChallengeId(1), seq }
    }

    fn place(shelf: Shelf, validator: u8, seq: u64) -> Place {
        Place::new(shelf, &round(validator, seq), seq / 10, seq)
    }

    #[test]
    fn keys_sort_as_places_do_and_read_back() {
        let places = [place(Shelf::Own, 1, 3), place(Shelf::Own, 1, 300), place(Shelf::Copies, 0, 1)];
        let keys: Vec<_> = places.iter().map(Place::key).collect();
        assert!(places.is_sorted() && keys.is_sorted());
        assert!(keys.iter().zip(places).all(|(k, p)| k.len() == Place::BYTES && Place::read(k) == Some(p)));
        assert_eq!(Place::read(&keys[0][..58]), None);
        assert_eq!(Place::read(&[2; Place::BYTES]), None);
    }

    #[test]
    fn the_oldest_that_nothing_pins_go_and_none_for_room_that_cannot_be() {
        let mut held = Held::default();
        (0..10).for_each(|seq| held.add(place(Shelf::Own, 1, seq), 10));
        let pinned: BTreeSet<_> = [round(1, 0), round(1, 3)].into();
        let gone = held.victims(Shelf::Own, 100, 35, None, &pinned).unwrap();
        assert_eq!(gone.iter().map(|p| p.seq).collect::<Vec<_>>(), [1, 2, 4, 5]);
        assert_eq!(held.victims(Shelf::Own, 100, 81, None, &pinned), None, "two rounds are pinned");
        let id = held.reserve(20);
        held.room_of(id, &round(1, 9));
        assert_eq!(held.victims(Shelf::Own, 120, 71, None, &pinned), None, "nor what a room is for");
        assert_eq!(held.victims(Shelf::Own, 120, 70, None, &pinned).unwrap().len(), 7);
        held.release(id);
        assert_eq!(held.victims(Shelf::Own, 120, 20, None, &pinned), Some(vec![]));
    }

    proptest! {
        /// However many images one validator's rounds name, copies of others that take less than their
        /// part stay.
        #[test]
        fn who_names_much_pushes_out_its_own_copies(
            came in proptest::collection::vec((0u8..4, 0u64..6, 1u64..40), 1..200)
        ) {
            const LIMIT: u64 = 100;
            let (mut held, mut seq) = (Held::default(), 0);
            for (validator, step, bytes) in came {
                seq += step;
                let at = place(Shelf::Copies, validator, seq);
                let pinned = held.rounds.keys().map(Place::round).collect();
                let light: Vec<u8> = (0..4)
                    .filter(|v| {
                        let sum: u64 = held.of(Shelf::Copies).filter(|(p, _)| p.validator.0[0] == *v).map(|x| x.1).sum();
                        *v != validator && sum <= LIMIT / 4
                    })
                    .collect();
                if let Some(gone) = held.victims(Shelf::Copies, LIMIT, bytes, Some(&at), &pinned) {
                    for p in &gone {
                        prop_assert!(!light.contains(&p.validator.0[0]), "{p:?}");
                        held.remove(p);
                    }
                    held.add(at, bytes);
                }
                let sum: u64 = held.rounds.values().sum();
                prop_assert!(sum == held.used[1] && sum <= LIMIT);
            }
        }
    }
}
