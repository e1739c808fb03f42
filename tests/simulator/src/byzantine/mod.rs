//! Liars. A liar runs an honest machine and bends what comes out of it, adds what should not be
//! said, and answers requests as it likes; it signs with its own key only.

mod noise;
mod proposals;
mod sync;
mod voting;
mod wires;

use perturb_consensus::Machine;
use perturb_consensus::wire::{Gossip, Topic};
use perturb_types::{ConsensusPair, encode};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::app::{Checking, Style};
use crate::cast::Cast;
use crate::store::Store;

/// What a liar does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Different votes to different nodes.
    EquivocatesVotes,
    /// Different blocks to different nodes.
    EquivocatesProposals,
    /// Votes for every proposal, whatever it is locked on.
    IgnoresLocks,
    /// Proposes and keeps the body to itself, or gives it to few.
    WithholdsBodies,
    /// Sends a body that its header does not name.
    InvalidBodies,
    /// Says again what was said long ago, its own and others'.
    ReplaysOld,
    /// Votes for rounds and heights far ahead.
    FloodsFuture,
    /// Always votes nil.
    ForcesNil,
    /// Proposes blocks whose roots are wrong.
    FalseRoots,
    /// Its own miner always wins.
    FalseScores,
    /// Its results claim scores that do not follow.
    ForgedResults,
    /// Its measurements are not those of the images.
    FalseMeasurements,
    /// Opens rounds and closes none.
    NeverCloses,
    /// Leaves the others' transactions out of its blocks.
    Censors,
    /// Says nothing.
    Mute,
    /// Talks to some only.
    Selective,
    /// Says everything late.
    Late,
    /// Claims heights it does not have, and answers requests with rubbish.
    BadSync,
    /// Bytes that are no message.
    Garbage,
    /// Certificates that certify nothing.
    ForgedCertificates,
    /// Forged evidence, others' transactions bent, and a flood of its own.
    FloodsMempool,
    /// Says of honest rounds that they fail their check, and of liars' that they hold.
    FalseVerdicts,
    /// Says of every checked round that it cannot tell.
    CannotTell,
    /// Dates its blocks back as far as their parent lets it.
    BackDates,
    /// Pulses that the beacon never signed.
    ForgesPulses,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::EquivocatesVotes,
        Self::EquivocatesProposals,
        Self::IgnoresLocks,
        Self::WithholdsBodies,
        Self::InvalidBodies,
        Self::ReplaysOld,
        Self::FloodsFuture,
        Self::ForcesNil,
        Self::FalseRoots,
        Self::FalseScores,
        Self::ForgedResults,
        Self::FalseMeasurements,
        Self::NeverCloses,
        Self::Censors,
        Self::Mute,
        Self::Selective,
        Self::Late,
        Self::BadSync,
        Self::Garbage,
        Self::ForgedCertificates,
        Self::FloodsMempool,
        Self::FalseVerdicts,
        Self::CannotTell,
        Self::BackDates,
        Self::ForgesPulses,
    ];

    /// One at random.
    pub fn draw(rng: &mut ChaCha8Rng) -> Self {
        Self::ALL.choose(rng).copied().unwrap_or(Self::Mute)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::EquivocatesVotes => "equivocating votes",
            Self::EquivocatesProposals => "equivocating proposals",
            Self::IgnoresLocks => "ignored locks",
            Self::WithholdsBodies => "withheld bodies",
            Self::InvalidBodies => "valid header, invalid body",
            Self::ReplaysOld => "stale replay",
            Self::FloodsFuture => "future rounds and heights",
            Self::ForcesNil => "forced nil",
            Self::FalseRoots => "false roots",
            Self::FalseScores => "false scores within the rules",
            Self::ForgedResults => "forged results",
            Self::FalseMeasurements => "false measurements",
            Self::NeverCloses => "rounds never closed",
            Self::Censors => "censorship",
            Self::Mute => "silence",
            Self::Selective => "selective sending",
            Self::Late => "everything late",
            Self::BadSync => "false heights and bad answers",
            Self::Garbage => "garbage",
            Self::ForgedCertificates => "forged certificates",
            Self::FloodsMempool => "mempool flood and forged evidence",
            Self::FalseVerdicts => "false verdicts on checks",
            Self::CannotTell => "checks it cannot tell of",
            Self::BackDates => "blocks dated back",
            Self::ForgesPulses => "forged pulses",
        }
    }

    /// How it runs its rounds.
    pub fn style(self) -> Style {
        match self {
            Self::FalseScores => Style::Favours(3),
            Self::ForgedResults => Style::Forges,
            Self::FalseMeasurements => Style::Invents,
            Self::NeverCloses => Style::NeverCloses,
            _ => Style::Honest,
        }
    }

    /// What it says about drawn rounds.
    pub fn checking(self) -> Checking {
        match self {
            Self::FalseVerdicts => Checking::Lies,
            Self::CannotTell => Checking::Shrugs,
            Self::FalseMeasurements | Self::Mute | Self::Late => Checking::Silent,
            _ => Checking::Honest,
        }
    }

    /// What it does with messages.
    pub fn strategy(self) -> Box<dyn Strategy> {
        match self {
            Self::EquivocatesVotes => Box::new(voting::TwoVotes),
            Self::IgnoresLocks => Box::new(voting::VotesForAll::default()),
            Self::ForcesNil => Box::new(voting::Nil),
            Self::EquivocatesProposals => Box::new(proposals::Bent::new(proposals::Bend::Two)),
            Self::InvalidBodies => Box::new(proposals::Bent::new(proposals::Bend::Body)),
            Self::FalseRoots => Box::new(proposals::Bent::new(proposals::Bend::Roots)),
            Self::Censors => Box::new(proposals::Bent::new(proposals::Bend::Censored)),
            Self::BackDates => Box::new(proposals::Bent::new(proposals::Bend::Time)),
            Self::WithholdsBodies => Box::new(proposals::Withheld),
            Self::ReplaysOld => Box::new(noise::Replay::default()),
            Self::FloodsFuture => Box::new(noise::Future),
            Self::Garbage => Box::new(noise::Garbage),
            Self::ForgedCertificates => Box::new(noise::Certificates::default()),
            Self::FloodsMempool => Box::new(noise::MempoolFlood::default()),
            Self::ForgesPulses => Box::new(noise::ForgedPulses::default()),
            Self::FalseScores
            | Self::ForgedResults
            | Self::FalseMeasurements
            | Self::NeverCloses
            | Self::FalseVerdicts
            | Self::CannotTell => Box::new(wires::Plain),
            Self::Mute => Box::new(wires::Mute),
            Self::Selective => Box::new(wires::Selective),
            Self::Late => Box::new(wires::Late),
            Self::BadSync => Box::new(sync::BadSync),
        }
    }
}

/// A message that leaves a liar.
pub struct Said {
    /// To whom.
    pub to: usize,
    /// On which topic.
    pub topic: Topic,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Milliseconds before it leaves.
    pub after_ms: u64,
}

/// What becomes of an answer.
pub enum Answer {
    /// As the machine gave it.
    Kept,
    /// Nothing is sent.
    Dropped,
    /// Other bytes are sent.
    Other(Vec<u8>),
}

/// What a liar sees.
pub struct Scene<'a> {
    /// Its randomness.
    pub rng: &'a mut ChaCha8Rng,
    /// Everybody's names; only its own keys may be used.
    pub cast: &'a Cast,
    /// Its index.
    pub me: usize,
    /// The other actors.
    pub others: Vec<usize>,
    /// Its machine.
    pub machine: &'a Machine<Store>,
}

impl Scene<'_> {
    /// Its key.
    pub fn pair(&self) -> &ConsensusPair {
        &self.cast.pairs[self.me]
    }

    /// The height in progress.
    pub fn height(&self) -> u64 {
        self.machine.ledger().head().height + 1
    }

    /// The same bytes to everybody.
    pub fn to_all(&self, topic: Topic, bytes: &[u8]) -> Vec<Said> {
        self.others.iter().map(|to| Said { to: *to, topic, bytes: bytes.to_vec(), after_ms: 0 }).collect()
    }

    /// A consensus message to everybody.
    pub fn gossip(&self, message: &Gossip) -> Vec<Said> {
        self.to_all(Topic::Consensus, &encode::encode(message))
    }

    /// The others in two random halves.
    pub fn halves(&mut self) -> (Vec<usize>, Vec<usize>) {
        let mut all = self.others.clone();
        all.shuffle(self.rng);
        let rest = all.split_off(self.rng.random_range(0..=all.len()));
        (all, rest)
    }
}

/// A way to lie. Everything has an honest default.
pub trait Strategy {
    /// What is sent instead of an own broadcast; `None` leaves it as it is.
    fn say(&mut self, _scene: &mut Scene<'_>, _topic: Topic, _bytes: &[u8]) -> Option<Vec<Said>> {
        None
    }

    /// What is said on hearing something.
    fn hear(&mut self, _scene: &mut Scene<'_>, _topic: Topic, _bytes: &[u8]) -> Vec<Said> {
        Vec::new()
    }

    /// What is said now and then.
    fn tick(&mut self, _scene: &mut Scene<'_>) -> Vec<Said> {
        Vec::new()
    }

    /// What becomes of an answer to a request.
    fn answer(&mut self, _scene: &mut Scene<'_>, _bytes: &[u8]) -> Answer {
        Answer::Kept
    }
}
