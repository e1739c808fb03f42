//! What happens in a run, as data: drawn from the seed, replayed, and shrunk.

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use perturb_consensus::Planted;

use crate::app::APP_MS;
use crate::bent::LedgerBug;
use crate::byzantine::Kind;
use crate::host::HostBug;

/// Milliseconds of virtual time at which every run begins.
pub const BEGIN_MS: u64 = 1_000_000;

/// Something that goes wrong for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, milliseconds after the beginning.
    pub at_ms: u64,
    /// For how long.
    pub for_ms: u64,
    /// What.
    pub what: What,
}

/// The actions at which a node can be made to lose power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Any.
    Any,
    /// A record is appended to the log.
    Append,
    /// The log is synced.
    Sync,
    /// The guard's file is written.
    Guard,
    /// A height is committed.
    Commit,
    /// A message leaves.
    Say,
}

impl Point {
    const ALL: [Self; 6] = [Self::Any, Self::Append, Self::Sync, Self::Guard, Self::Commit, Self::Say];

    fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self::ALL.choose(rng).copied().unwrap_or(Self::Any)
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A node loses power at one of its next actions; what was not synced may be lost.
    Crash {
        /// Who.
        actor: usize,
        /// Which actions count.
        point: Point,
        /// Of these, how many still succeed: the crash hits at the next one.
        fuse: u32,
    },
    /// Two sides that do not hear each other; one-way: only the first is deaf.
    Partition {
        /// Who is on the first side.
        side: Vec<usize>,
        /// Whether the other side still hears the first.
        one_way: bool,
    },
    /// More messages are lost: per thousand.
    Storm {
        /// How many of a thousand.
        loss: u32,
    },
    /// A node's messages come late.
    Slow {
        /// Who.
        actor: usize,
        /// By how much.
        extra_ms: u64,
    },
    /// Chain nodes do not answer, and announce nothing.
    ChainAway {
        /// Whose; all where none is named.
        actor: Option<usize>,
    },
    /// Writes fail: the node stops, and starts again when there is room.
    FullDisk {
        /// Who.
        actor: usize,
    },
    /// The operator puts an older copy of the database back. The guard is not part of it.
    Rollback {
        /// Who.
        actor: usize,
    },
    /// A bit of the synced log flips while the node is down.
    LogBit {
        /// Who.
        actor: usize,
    },
    /// A bit of a row of the state flips while the node runs.
    StateBit {
        /// Who.
        actor: usize,
    },
}

impl What {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::Partition { one_way: false, .. } => "partition",
            Self::Partition { one_way: true, .. } => "one-way partition",
            Self::Storm { .. } => "storm of losses",
            Self::Slow { .. } => "slow node",
            Self::ChainAway { .. } => "chain away",
            Self::FullDisk { .. } => "full disk",
            Self::Rollback { .. } => "database rolled back",
            Self::LogBit { .. } => "bit flipped in the log",
            Self::StateBit { .. } => "bit flipped in the state",
        }
    }
}

/// How the wires behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wires {
    /// Shortest delay.
    pub base_ms: u64,
    /// What is added at most.
    pub jitter_ms: u64,
    /// Messages of a thousand that are lost.
    pub loss: u32,
    /// Messages of a thousand that come twice.
    pub twice: u32,
    /// Whether accepted messages are forwarded, as gossip does.
    pub relay: bool,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed of everything that is drawn while it runs.
    pub seed: u64,
    /// Validators at the beginning; one more joins.
    pub founders: usize,
    /// Stakes in TAO; the last is the joiner's.
    pub stakes: Vec<u64>,
    /// Power by capped stake, or equal.
    pub by_stake: bool,
    /// The founder that loses its permit when the epoch closes.
    pub leaver: Option<usize>,
    /// Liars and what they do.
    pub liars: Vec<(usize, Vec<Kind>)>,
    /// A validator of which two honest copies run.
    pub twin: Option<usize>,
    /// The one whose memory may fail (a log, a database): it cannot vote at a height whose signatures
    /// it has lost, so it counts among the faulty.
    pub forgetful: Option<usize>,
    /// Clocks of the actors, milliseconds off the true time.
    pub skews: Vec<i64>,
    /// The wires.
    pub wires: Wires,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// When the epoch index rises, milliseconds after the beginning.
    pub closes_ms: Vec<u64>,
    /// Milliseconds between two looks of a validator's services.
    pub look_ms: u64,
    /// After this everything works, milliseconds after the beginning.
    pub heal_ms: u64,
    /// A rule broken in the machine.
    pub planted: Planted,
    /// A rule broken in the host.
    pub host_bug: HostBug,
    /// A rule broken in everybody's ledger.
    pub ledger_bug: LedgerBug,
}

impl Plan {
    /// The plan of a seed for a network of `founders`.
    pub fn draw(seed: u64, founders: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (founders as u64) << 48);
        let actors = founders + 1;
        let by_stake = rng.random_bool(0.6);
        let stakes = (0..actors).map(|_| rng.random_range(1_000..20_000)).collect();
        let leaver = (founders > 4 && rng.random_bool(0.5)).then(|| rng.random_range(0..founders));
        let mut plan = Self {
            seed,
            founders,
            stakes,
            by_stake,
            leaver,
            liars: Vec::new(),
            twin: None,
            forgetful: None,
            skews: (0..actors).map(|_| rng.random_range(-700..=700)).collect(),
            wires: Wires {
                base_ms: rng.random_range(1..40),
                jitter_ms: rng.random_range(1..160),
                loss: if rng.random_bool(0.5) { 0 } else { rng.random_range(1..120) },
                twice: if rng.random_bool(0.5) { 0 } else { rng.random_range(1..100) },
                relay: rng.random_bool(0.5),
            },
            faults: Vec::new(),
            closes_ms: Vec::new(),
            look_ms: APP_MS,
            heal_ms: 0,
            planted: Planted::Nothing,
            host_bug: HostBug::None,
            ledger_bug: LedgerBug::None,
        };
        plan.draw_liars(&mut rng);
        plan.draw_faults(&mut rng);
        plan
    }

    /// A plan in which nothing goes wrong, for measurements.
    pub fn calm(seed: u64, founders: usize, wires: Wires) -> Self {
        let mut plan = Self::draw(seed, 4);
        plan.founders = founders;
        plan.stakes = vec![2_000; founders + 1];
        (plan.leaver, plan.twin, plan.forgetful) = (None, None, None);
        plan.liars.clear();
        plan.faults.clear();
        plan.closes_ms.clear();
        plan.skews = vec![0; founders + 1];
        plan.heal_ms = 1;
        plan.look_ms = 8 * APP_MS;
        plan.wires = wires;
        plan
    }

    fn draw_liars(&mut self, rng: &mut ChaCha8Rng) {
        let mut order: Vec<usize> = (0..=self.founders).collect();
        order.shuffle(rng);
        if rng.random_bool(0.4) {
            self.forgetful = order.iter().copied().find(|i| self.tolerates(&[*i]));
        }
        // The one that joins is honest: one that is cut off for its lies would never be a member, and
        // every run is to have a change of the set.
        order.retain(|i| Some(*i) != self.forgetful && *i != self.founders);
        let wanted = if rng.random_bool(0.85) { self.founders } else { 0 };
        for actor in order {
            if self.liars.len() >= wanted {
                return;
            }
            let mut with: Vec<usize> = self.liars.iter().map(|l| l.0).chain(self.forgetful).collect();
            with.push(actor);
            if !self.tolerates(&with) {
                continue;
            }
            let mut kinds = vec![Kind::draw(rng)];
            if rng.random_bool(0.4) {
                kinds.push(Kind::draw(rng));
            }
            kinds.dedup();
            self.liars.push((actor, kinds));
        }
        // Twins count as a liar; they take the place of one.
        if rng.random_bool(0.15)
            && let Some((actor, _)) = self.liars.pop()
        {
            self.twin = Some(actor);
        }
    }

    /// Whether these together hold less than a third of the power in both validator sets.
    fn tolerates(&self, liars: &[usize]) -> bool {
        let first: Vec<usize> = (0..self.founders).collect();
        let second: Vec<usize> = (0..=self.founders).filter(|i| Some(*i) != self.leaver).collect();
        [first, second].iter().all(|set| {
            let powers = crate::oracle::powers::of(self.by_stake, set.iter().map(|i| self.stakes[*i]).collect());
            let total: u128 = powers.iter().sum();
            let bad: u128 = set.iter().zip(&powers).filter(|(i, _)| liars.contains(i)).map(|(_, p)| p).sum();
            bad * 3 < total
        })
    }

    /// Validators that are neither liars nor twins.
    pub fn honest(&self) -> Vec<usize> {
        (0..=self.founders).filter(|i| self.twin != Some(*i) && !self.liars.iter().any(|(liar, _)| liar == i)).collect()
    }

    fn draw_faults(&mut self, rng: &mut ChaCha8Rng) {
        let honest = self.honest();
        let window = 1_500..9_000u64;
        let someone = |rng: &mut ChaCha8Rng| honest.choose(rng).copied().unwrap_or(0);
        let mut faults = vec![
            Fault {
                at_ms: rng.random_range(window.clone()),
                for_ms: rng.random_range(300..4_000),
                what: What::Crash { actor: someone(rng), point: Point::draw(rng), fuse: rng.random_range(0..4) },
            },
            Fault {
                at_ms: rng.random_range(window.clone()),
                for_ms: rng.random_range(500..4_000),
                what: self.draw_partition(rng),
            },
        ];
        for _ in 0..rng.random_range(0..4) {
            let actor = someone(rng);
            let what = match rng.random_range(0..12) {
                0 | 1 => What::Crash { actor, point: Point::draw(rng), fuse: rng.random_range(0..8) },
                2 => self.draw_partition(rng),
                3 => What::Storm { loss: rng.random_range(100..500) },
                4 => What::Slow { actor, extra_ms: rng.random_range(200..1_500) },
                5 => What::ChainAway { actor: Some(actor) },
                6 => What::ChainAway { actor: None },
                7 => What::FullDisk { actor },
                8..11 if self.forgetful.is_some() => {
                    let actor = self.forgetful.unwrap_or(actor);
                    match rng.random_range(0..3) {
                        0 => What::Rollback { actor },
                        1 => What::LogBit { actor },
                        _ => What::StateBit { actor },
                    }
                }
                _ => What::Crash { actor, point: Point::Any, fuse: rng.random_range(0..200) },
            };
            faults.push(Fault { at_ms: rng.random_range(window.clone()), for_ms: rng.random_range(300..4_000), what });
        }
        faults.sort_by_key(|f| f.at_ms);
        self.heal_ms = faults.iter().map(|f| f.at_ms + f.for_ms).max().unwrap_or(0).max(10_000) + 500;
        self.faults = faults;
        self.closes_ms = vec![rng.random_range(5_000..9_500)];
        if rng.random_bool(0.5) {
            self.closes_ms.push(self.closes_ms[0] + rng.random_range(3_000..6_000));
        }
    }

    fn draw_partition(&self, rng: &mut ChaCha8Rng) -> What {
        let mut all: Vec<usize> = (0..=self.founders).collect();
        all.shuffle(rng);
        all.truncate(rng.random_range(1..=self.founders / 2 + 1));
        all.sort_unstable();
        What::Partition { side: all, one_way: rng.random_bool(0.35) }
    }
}
