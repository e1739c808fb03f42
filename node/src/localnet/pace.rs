//! How long heights take, as somebody sees them who asks a validator again and again. Not by the blocks' times: an
//! honest proposer that begins a part of an interval before the others has an earlier one, and holds nobody up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonrpsee::core::client::ClientT;
use jsonrpsee::http_client::HttpClient;
use jsonrpsee::rpc_params;
use tokio::task::JoinHandle;

use crate::report::Status;

/// Time between two questions: how exact the times are.
const EVERY: Duration = Duration::from_millis(50);

/// Milliseconds from the first question until each height was seen.
type Seen = BTreeMap<u64, u64>;

/// Watches a validator's heights until it is dropped.
pub struct Pace {
    seen: Arc<Mutex<Seen>>,
    watcher: JoinHandle<()>,
}

impl Pace {
    /// Begins to watch.
    pub fn watch(validator: HttpClient) -> Self {
        let seen = Arc::new(Mutex::new(Seen::new()));
        let (began, into) = (Instant::now(), seen.clone());
        let watcher = tokio::spawn(async move {
            loop {
                if let Ok(status) = validator.request::<Status, _>("perturb_status", rpc_params![]).await {
                    let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry(status.height).or_insert(began.elapsed().as_millis() as u64);
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        Self { seen, watcher }
    }

    /// Milliseconds that so many percent of the heights took at the most.
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        percentile(&self.seen.lock().unwrap_or_else(PoisonError::into_inner), percent)
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// Of the heights that were seen after the one before.
fn percentile(seen: &Seen, percent: usize) -> Option<u64> {
    let pairs = seen.iter().zip(seen.iter().skip(1)).filter(|((a, _), (b, _))| *a + 1 == **b);
    let mut took: Vec<u64> = pairs.map(|((_, a), (_, b))| b.saturating_sub(*a)).collect();
    took.sort_unstable();
    took.get((took.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_height_counts_where_the_one_before_was_seen() {
        let mut seen = Seen::from([(4, 0), (6, 9_000)]);
        seen.extend((7..=26).map(|h| (h, 9_000 + (h - 6) * 1_000)));
        seen.insert(27, 34_000);
        assert_eq!(percentile(&seen, 95), Some(1_000));
        assert_eq!(percentile(&seen, 100), Some(5_000));
        assert_eq!(percentile(&Seen::from([(3, 7)]), 95), None);
    }
}
