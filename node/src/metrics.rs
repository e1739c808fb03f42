//! Metrics in OpenMetrics text, read from the node's view when they are asked for.

use std::fmt;
use std::sync::Arc;

use perturb_ledger::query;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::validator::view::NodeView;

struct Live(Arc<NodeView>);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

impl Live {
    /// What waits for pulses of the beacon, and what became of the rounds that waited.
    fn draws(&self) -> Vec<(&'static str, &'static str, u64)> {
        let db = self.0.agreed.database();
        let (Ok(draws), Ok(awaited)) = (query::draws(db), query::awaited_pulses(db)) else { return Vec::new() };
        vec![
            ("pulses_awaited", "Rounds of the beacon that agreed rounds wait for", awaited.len() as u64),
            ("rounds_drawn", "Rounds that a pulse drew to be checked again, since genesis", draws.drawn),
            ("rounds_spared", "Rounds that a pulse did not draw, since genesis", draws.spared),
            ("rounds_undrawn", "Rounds whose pulse never came, since genesis", draws.expired),
        ]
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Ok(s) = self.0.status() else { return Ok(()) };
        let gauges: [(&str, &str, u64); 18] = [
            ("height", "Height of the newest agreed block", s.height),
            ("oldest_block", "Lowest height whose block is held", s.oldest_block),
            ("epoch", "Epoch in the making", s.epoch),
            ("member", "1 if a member of the current set", u64::from(s.member)),
            ("syncing", "1 while fetching blocks", u64::from(s.syncing)),
            ("mempool_transactions", "Transactions waiting for a block", s.mempool as u64),
            ("peers_validators", "Connected validators", s.peers.validators as u64),
            ("peers_miners", "Connected miners", s.peers.miners as u64),
            ("chain_connected", "1 while new chain blocks arrive", u64::from(s.chain.connected)),
            ("chain_finalized", "Newest final block of the chain", s.chain.finalized),
            ("epoch_results", "Answers that entered the histories in this epoch", s.epoch_results),
            ("rounds_opened", "Own rounds opened since the start", s.rounds.opened),
            ("rounds_closed", "Own rounds closed since the start", s.rounds.closed),
            ("answers_judged", "Answers judged since the start", s.rounds.answers),
            ("checks_open", "Drawn rounds whose window is not over", s.checks as u64),
            ("checks_hold", "Drawn rounds that this validator found to hold since the start", s.verdicts[0]),
            ("checks_fail", "Drawn rounds that it found to fail since the start", s.verdicts[1]),
            ("checks_unknown", "Drawn rounds that it could not judge since the start", s.verdicts[2]),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in self.draws() {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let images = self.0.agreed.database().image_use();
        let gauges = [
            ("images_bytes", "Bytes of own rounds' images", images.own),
            ("images_copies_bytes", "Bytes of copies of others' images", images.copies),
            ("images_reserved_bytes", "Bytes reserved for the images of rounds in progress", images.reserved),
        ];
        let counters = [
            ("images_dropped", "Rounds whose images went to make room", images.dropped),
            ("images_refused", "Times that a round was not opened for want of room for its images", images.refused),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        for (name, value) in self.0.network.metrics().iter() {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(
                &format!("network_{name}"),
                "Counter of the network",
                None,
                gauge.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Registers everything that a validator measures.
pub fn register(registry: &mut Registry, view: Arc<NodeView>) {
    registry.register_collector(Box::new(Live(view)));
}
