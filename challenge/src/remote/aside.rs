//! Requests beside the thread that waits for them.
//!
//! A request cannot be broken off from outside. Where somebody may say stop, it runs on a thread of its
//! own, and who waits looks around meanwhile; a thread that nobody waits for any longer ends with its
//! request, whose time is bounded.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::pace::Until;

/// Time between two looks: what a stop may have to wait.
const LOOK: Duration = Duration::from_millis(100);

/// Runs something that takes a bounded time; none where it was over before.
pub(super) fn aside<T: Send + 'static>(until: &Until, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !until.stoppable() {
        return Some(run());
    }
    let (to, from) = sync_channel(1);
    // Who has gone needs no answer.
    thread::Builder::new().name("request".into()).spawn(move || to.send(run())).ok()?;
    loop {
        match from.recv_timeout(LOOK) {
            Ok(done) => return Some(done),
            Err(RecvTimeoutError::Timeout) if !until.over() => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_is_told_to_stop_waits_no_longer() {
        let stop = Arc::new(AtomicBool::new(false));
        let (said, begun) = (stop.clone(), stop.clone());
        let until = Until::default().unless(move || said.load(Ordering::SeqCst));
        // It would wait for ever: what it waits for is sent only when the test is over.
        let (end, ended) = sync_channel::<()>(0);
        let done = aside(&until, move || {
            begun.store(true, Ordering::SeqCst);
            ended.recv().is_ok()
        });
        assert_eq!(done, None);
        drop(end);
    }

    #[test]
    fn what_is_done_in_time_is_given_back() {
        assert_eq!(aside(&Until::default(), || 7), Some(7));
        assert_eq!(aside(&Until::default().unless(|| false), || 7), Some(7));
    }
}
