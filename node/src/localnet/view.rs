//! The live view: heights, round, peers, results per second, running scores, epoch progress.
//! On a terminal it redraws in place; elsewhere it prints a line every few seconds.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use perturb_types::Hotkey;

use super::plan::Kind;
use crate::report::Status;

/// Time between two lines where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Window over which results per second are counted.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// The view.
pub struct View {
    names: BTreeMap<Hotkey, (String, Kind)>,
    live: Option<Live>,
    last_plain: Option<Instant>,
    answers: Vec<(Instant, u64)>,
    began: Instant,
}

struct Live {
    all: MultiProgress,
    head: ProgressBar,
    epoch: ProgressBar,
    validators: Vec<ProgressBar>,
    miners: ProgressBar,
}

impl View {
    /// A view of so many validators.
    pub fn new(names: BTreeMap<Hotkey, (String, Kind)>, validators: usize) -> Self {
        let live = std::io::stdout().is_terminal().then(|| Live::new(validators));
        Self { names, live, last_plain: None, answers: Vec::new(), began: Instant::now() }
    }

    /// Says something that stays on the screen.
    pub fn say(&self, line: &str) {
        match &self.live {
            // Where the terminal is gone there is nobody to tell.
            Some(l) => drop(l.all.println(line)),
            None => println!("{line}"),
        }
    }

    /// Clears the live part.
    pub fn end(&self) {
        if let Some(l) = &self.live {
            drop(l.all.clear());
        }
    }

    fn rate(&mut self, now: Instant, statuses: &[Option<Status>]) -> f64 {
        let total = statuses.iter().flatten().map(|s| s.rounds.answers).sum();
        self.answers.push((now, total));
        self.answers.retain(|(at, _)| now.duration_since(*at) <= RATE_WINDOW);
        match (self.answers.first(), self.answers.last()) {
            (Some((t0, a0)), Some((t1, a1))) if t1 > t0 => {
                a1.saturating_sub(*a0) as f64 / t1.duration_since(*t0).as_secs_f64()
            }
            _ => 0.0,
        }
    }

    fn scores(&self, status: &Status) -> String {
        let mut miners: Vec<_> = status.miners.iter().filter(|m| self.names.contains_key(&m.hotkey)).collect();
        miners.sort_by(|a, b| b.mean_score.total_cmp(&a.mean_score).then(a.uid.cmp(&b.uid)));
        let shown: Vec<String> = miners
            .iter()
            .take(8)
            .filter_map(|m| self.names.get(&m.hotkey).map(|(_, kind)| format!("{} {:.3}", kind.name(), m.mean_score)))
            .collect();
        if shown.is_empty() { "no scores yet".into() } else { shown.join("  ") }
    }

    /// Shows what the validators say now; `None` for one that does not answer.
    pub fn show(&mut self, statuses: &[Option<Status>], names: &[String]) {
        let now = Instant::now();
        let rate = self.rate(now, statuses);
        let Some(best) = statuses.iter().flatten().max_by_key(|s| s.height) else { return };
        let scores = self.scores(best);
        let head = format!(
            "epoch {}  height {}  {rate:.1} results/s  {} in this epoch  chain block {}{}",
            best.epoch,
            best.height,
            best.epoch_results,
            best.chain.finalized,
            if best.chain.connected { "" } else { " (away)" },
        );
        let Some(live) = &self.live else {
            if self.last_plain.is_none_or(|t| now.duration_since(t) >= PLAIN_EVERY) {
                self.last_plain = Some(now);
                let heights: Vec<String> =
                    statuses.iter().map(|s| s.as_ref().map_or("–".into(), |s| s.height.to_string())).collect();
                println!(
                    "{:5.0}s  {head}  heights {}  {scores}",
                    self.began.elapsed().as_secs_f64(),
                    heights.join("/")
                );
            }
            return;
        };
        live.head.set_message(head);
        live.epoch.set_length(u64::from(best.chain.tempo.max(1)));
        live.epoch.set_position(best.chain.into_epoch);
        for ((bar, status), name) in live.validators.iter().zip(statuses).zip(names) {
            bar.set_message(match status {
                None => format!("{name:<12} away"),
                Some(s) => format!(
                    "{name:<12} height {:>5} round {}  peers {}v {}m  mempool {:>3}  rounds {:>4}  root {}{}",
                    s.height,
                    s.round_text(),
                    s.peers.validators,
                    s.peers.miners,
                    s.mempool,
                    s.rounds.closed,
                    s.state_root.short(),
                    if s.syncing {
                        "  syncing"
                    } else if !s.member {
                        "  not a member"
                    } else {
                        ""
                    },
                ),
            });
        }
        live.miners.set_message(scores);
    }
}

impl Live {
    fn new(validators: usize) -> Self {
        let all = MultiProgress::new();
        let line = |template: &str| {
            let bar = all.add(ProgressBar::new(1));
            // A template that does not parse leaves indicatif's own style.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("█▉ "));
            }
            bar
        };
        Self {
            head: line("{msg}"),
            epoch: line("subnet epoch {bar:45} block {pos} of {len}"),
            validators: (0..validators).map(|_| line("  {msg}")).collect(),
            miners: line("running scores: {msg}"),
            all,
        }
    }
}
