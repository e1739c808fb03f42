//! A circuit breaker: who failed several times in a row is not asked for a while.
//!
//! After [`FAILURES`] failures in a row the circuit opens for [`FIRST_PAUSE`]; then one request may
//! try. If it fails too, the pause doubles, up to [`LONGEST_PAUSE`]; a success closes the circuit.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Failures in a row that open the circuit.
pub const FAILURES: u32 = 3;

/// The first pause: a service that starts again is back by then.
pub const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// The longest pause: what a validator may lose after its service came back.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    pause: Duration,
    /// Closed where there is none.
    open_until: Option<Duration>,
}

/// The breaker of one service. Times are those of one [`super::Pace`].
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

impl Breaker {
    /// Whether a request may be made now. While the circuit is open only one may, each time its pause
    /// is over: it is given the next pause for it.
    ///
    /// # Errors
    /// How long the circuit stays open.
    pub fn permit(&self, now: Duration) -> Result<(), Duration> {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match s.open_until {
            Some(until) if now < until => Err(until - now),
            Some(_) => {
                s.open_until = Some(now + s.pause);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What became of a request.
    pub fn record(&self, now: Duration, success: bool) {
        let mut s = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if success {
            *s = State::default();
            return;
        }
        s.failures = s.failures.saturating_add(1);
        if s.failures >= FAILURES {
            s.pause = if s.pause.is_zero() { FIRST_PAUSE } else { (s.pause * 2).min(LONGEST_PAUSE) };
            s.open_until = Some(now + s.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn three_failures_in_a_row_open_it_and_a_success_closes_it() {
        let b = Breaker::default();
        b.record(at(0), false);
        b.record(at(0), false);
        b.record(at(0), true);
        for _ in 0..FAILURES {
            assert_eq!(b.permit(at(1)), Ok(()));
            b.record(at(1), false);
        }
        assert_eq!(b.permit(at(2)), Err(at(4)));
        assert_eq!(b.permit(at(6)), Ok(()));
        b.record(at(6), true);
        assert_eq!(b.permit(at(6)), Ok(()));
        assert_eq!(b.permit(at(6)), Ok(()));
    }

    #[test]
    fn while_it_is_open_one_request_tries_at_a_time_and_the_pause_doubles() {
        let b = Breaker::default();
        (0..FAILURES).for_each(|_| b.record(at(0), false));
        assert_eq!(b.permit(at(5)), Ok(()));
        assert_eq!(b.permit(at(5)), Err(at(5)), "another one, while the first is under way");
        b.record(at(5), false);
        assert_eq!(b.permit(at(5)), Err(at(10)));
        for _ in 0..10 {
            b.record(at(100), false);
        }
        assert_eq!(b.permit(at(100)), Err(LONGEST_PAUSE));
    }
}
