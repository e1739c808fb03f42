//! A certified header: handed over from what the reader trusts, and who of several nodes agrees.

use std::collections::BTreeMap;

use perturb_types::Digest;
use serde_json::{Value, json};

use crate::bundle::{Bundle, Claim};
use crate::error::Verdict;
use crate::history::{Checked, History, TrustAnchor};
use crate::nodes::{self, Nodes};
use crate::report::{Report, Step};
use crate::source::Ask;

/// What leads from the trusted point to a height, as steps.
pub fn trust_steps(history: &History, height: u64) -> Vec<Step> {
    let (at, digest) = history.point();
    let from = match history.genesis() {
        Some(_) => format!("genesis of network {}", history.network()),
        None => format!("trusted header {at} ({digest}) of network {}", history.network()),
    };
    let count = history.until(height).len();
    let mut steps = vec![Step::ok(from)];
    if let Ok(trust) = history.at(height) {
        let set = trust.set();
        steps.push(Step::ok(format!(
            "{count} handovers of the validator set, each certified by the set before it: {} members since height {}",
            set.len(),
            trust.from()
        )));
    }
    steps
}

/// A checked header as a step.
pub fn header_step(checked: &Checked) -> Step {
    let h = &checked.header;
    let power = match (&checked.certificate, checked.power) {
        (_, (0, 0)) => "it is the trusted point".to_owned(),
        (Some(c), (signed, total)) => {
            format!("{} signatures, power {signed} of {total}, round {}", c.signatures.len(), c.round)
        }
        (None, _) => "no certificate".to_owned(),
    };
    Step::ok(format!("header {} {}", h.height, checked.digest)).with([
        Step::ok(power),
        Step::note(format!("state root {}", h.state_root)),
        Step::note(format!("epoch {} in the making, chain block {}", h.epoch, h.reference.number)),
    ])
}

/// A checked header for programs.
pub fn header_value(checked: &Checked) -> Value {
    let h = &checked.header;
    json!({
        "height": h.height, "digest": checked.digest, "network": h.network, "state_root": h.state_root,
        "time_ms": h.time_ms, "epoch": h.epoch, "validators": h.validators, "next_validators": h.next_validators,
        "power": checked.power.0, "total": checked.power.1,
        "round": checked.certificate.as_ref().map(|c| c.round),
        "trust": format!("{}:{}", h.height, checked.digest),
    })
}

/// Asks every node for one header that was checked: who says the same, who has another certified
/// history (`false`), who says nothing that holds. Nothing where there is only one node.
pub fn agreement(history: &History, nodes: &Nodes, (height, digest): (u64, Digest)) -> Option<(Step, bool)> {
    if nodes.0.len() < 2 {
        return None;
    }
    let (mut steps, mut same, mut other) = (Vec::new(), 0, 0);
    // A node with another history may have other sets: it is judged by the handovers that it has.
    let ask = |node: Ask<'_>| match history.header(node, Some(height)) {
        Err(e) if e.verdict() == Verdict::Untrusted => history.of(node)?.header(node, Some(height)),
        other => other,
    };
    for (name, answer) in nodes.each(ask) {
        match answer {
            Ok(checked) if checked.digest == digest => same += 1,
            Ok(checked) => {
                other += 1;
                steps.push(Step::bad(format!("{name} has another certified history: {}", checked.digest)));
            }
            Err(error) => steps.push(Step::note(format!("{name}: {error}"))),
        }
    }
    let text = format!("{same} of {} nodes have header {height} {digest}", nodes.0.len());
    let step = if other == 0 { Step::ok(text) } else { Step::bad(text) };
    Some((step.with(steps), other == 0))
}

/// Adds the agreement of the nodes to a report's steps; the verdict where everything else holds.
pub fn agreed(history: &History, nodes: &Nodes, at: (u64, Digest), steps: &mut Vec<Step>) -> Verdict {
    match agreement(history, nodes, at) {
        None => Verdict::Ok,
        Some((step, agreed)) => {
            steps.push(step);
            if agreed { Verdict::Ok } else { Verdict::Invalid }
        }
    }
}

/// `root <height>`; `None` for the newest header of the first node that answers.
pub fn run(anchor: &TrustAnchor, nodes: &Nodes, height: Option<u64>) -> (Report, Option<Bundle>) {
    let title = height.map_or_else(|| "root of the newest block".into(), |h| format!("root {h}"));
    // All nodes are asked for one height, also where the newest is wanted.
    let mut wanted = height;
    let mut answers = Vec::new();
    for node in &nodes.0 {
        let one = Ask(node.as_ref());
        let answer = History::load(anchor, one).and_then(|history| {
            let checked = history.header(one, wanted)?;
            Ok((history, checked))
        });
        if let Ok((_, checked)) = &answer {
            wanted.get_or_insert(checked.header.height);
        }
        answers.push((node.name(), answer));
    }
    let (mut steps, mut by_digest) = (Vec::new(), BTreeMap::<Digest, Vec<&str>>::new());
    let mut found = None;
    let verdict = nodes::worst(answers.iter().filter_map(|(_, a)| a.as_ref().err()));
    for (name, answer) in answers {
        match answer {
            Ok((history, checked)) => {
                by_digest.entry(checked.digest).or_default().push(name);
                steps.push(Step::ok(format!("{name}: header {} {}", checked.header.height, checked.digest)));
                found.get_or_insert((history, checked));
            }
            Err(error) => steps.push(Step::bad(format!("{name}: {error}"))),
        }
    }
    let Some((history, checked)) = found else {
        return (Report::new(verdict, title, steps, Value::Null), None);
    };
    steps.extend(trust_steps(&history, checked.header.height));
    steps.push(header_step(&checked));
    let agreed = by_digest.len() == 1;
    let agreeing = by_digest.values().map(Vec::len).sum::<usize>();
    if agreed {
        steps.push(Step::ok(format!("{agreeing} of {} nodes agree", nodes.0.len())));
    } else {
        let sides = by_digest.iter().map(|(d, names)| Step::bad(format!("{d}: {}", names.join(", "))));
        steps.push(Step::bad("two histories are certified for one height: see `cert`").with(sides));
    }
    let mut result = header_value(&checked);
    if agreed && checked.header.height > 0 {
        steps
            .push(Step::note(format!("to begin here next time: --trust {}:{}", checked.header.height, checked.digest)));
    }
    result["nodes"] = json!(by_digest);
    let verdict = if agreed { Verdict::Ok } else { Verdict::Invalid };
    let bundle = checked.certificate.clone().filter(|_| checked.power.1 > 0).map(|certificate| {
        let header = Box::new(checked.header);
        Bundle::new(&history, Claim::Root { header, certificate })
    });
    (Report::new(verdict, title, steps, result), bundle)
}
