//! Time, as what blocks sees it, and how long it may go on; tests bring their own clocks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that one can also sleep by.
pub trait Pace: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Wall(Instant);

impl Default for Wall {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Pace for Wall {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// How long work that blocks may go on: up to a moment, and while nobody says stop. It is looked at
/// before each step that may take long, and such a step gets no more time than is left.
#[derive(Clone, Default)]
pub struct Until {
    end: Option<(Arc<dyn Pace>, Duration)>,
    stop: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl fmt::Debug for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Until").field("left", &self.left()).finish_non_exhaustive()
    }
}

impl Until {
    /// For a time from now on, by the machine's clock. The default has no end.
    #[must_use]
    pub fn within(time: Duration) -> Self {
        Self::by(Arc::new(Wall::default()), time)
    }

    /// For a time from now on, by another clock.
    #[must_use]
    pub fn by(pace: Arc<dyn Pace>, time: Duration) -> Self {
        let end = pace.now().saturating_add(time);
        Self { end: Some((pace, end)), stop: None }
    }

    /// The same, and no longer once `stop` says yes.
    #[must_use]
    pub fn unless(mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.stop = Some(Arc::new(stop));
        self
    }

    /// The time that is left; none when it is over.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        if self.stop.as_ref().is_some_and(|stop| stop()) {
            return None;
        }
        match &self.end {
            None => Some(Duration::MAX),
            Some((pace, end)) => end.checked_sub(pace.now()).filter(|left| !left.is_zero()),
        }
    }

    /// Whether somebody may say stop, so that it can be over before its moment.
    #[must_use]
    pub const fn stoppable(&self) -> bool {
        self.stop.is_some()
    }

    /// Whether it is over.
    #[must_use]
    pub fn over(&self) -> bool {
        self.left().is_none()
    }
}

/// A clock that moves by its sleeps alone.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Virtual(std::sync::Mutex<Duration>);

#[cfg(test)]
impl Pace for Virtual {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sleep(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += time;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn it_ends_at_its_moment_or_when_somebody_says_stop() {
        let (pace, stop) = (Arc::new(Virtual::default()), Arc::new(AtomicBool::new(false)));
        let said = stop.clone();
        let until = Until::by(pace.clone(), Duration::from_secs(3)).unless(move || said.load(Ordering::SeqCst));
        assert_eq!(until.left(), Some(Duration::from_secs(3)));
        pace.sleep(Duration::from_secs(2));
        assert_eq!(until.left(), Some(Duration::from_secs(1)));
        stop.store(true, Ordering::SeqCst);
        assert!(until.over());
        stop.store(false, Ordering::SeqCst);
        pace.sleep(Duration::from_secs(1));
        assert!(until.over());
        assert_eq!(Until::default().left(), Some(Duration::MAX));
    }
}
