//! Jobs side by side, within bounds: so many in all, so many about one validator. A job that hangs holds
//! its own lane; a validator whose rounds all hang holds its few.

use std::collections::BTreeMap;
use std::future::Future;

use perturb_types::{Hotkey, RoundId};
use tokio::task::{Id, JoinError, JoinSet};

/// Jobs at once.
pub(super) const LANES: usize = 8;

/// Of these, about one validator's rounds.
pub(super) const LANES_EACH: usize = 2;

/// The jobs that run.
pub(super) struct Lanes<T> {
    jobs: JoinSet<T>,
    rounds: BTreeMap<Id, RoundId>,
}

impl<T: Send + 'static> Lanes<T> {
    pub fn new() -> Self {
        Self { jobs: JoinSet::new(), rounds: BTreeMap::new() }
    }

    /// Whether a job about a round may start: there is room, and none about it runs.
    pub fn has_room(&self, round: &RoundId) -> bool {
        let of = |validator: &Hotkey| self.rounds.values().filter(|r| r.validator == *validator).count();
        self.rounds.len() < LANES
            && of(&round.validator) < LANES_EACH
            && !self.rounds.values().any(|running| running == round)
    }

    /// Starts a job.
    pub fn start(&mut self, round: RoundId, job: impl Future<Output = T> + Send + 'static) {
        let id = self.jobs.spawn(job).id();
        self.rounds.insert(id, round);
    }

    /// The next job that ends; never where none runs.
    ///
    /// # Errors
    /// It panicked or was stopped.
    pub async fn next(&mut self) -> Result<(RoundId, T), JoinError> {
        loop {
            let Some(ended) = self.jobs.join_next_with_id().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
            let round = self.rounds.remove(&id);
            let (_, value) = ended?;
            if let Some(round) = round {
                return Ok((round, value));
            }
        }
    }
}
