//! What validators anchored on the chain, against the certified history.
//!
//! A later anchor covers the epochs before it, since each header names its parent. So the latest commitment, which is
//! all that the chain's state keeps, is enough. Remarks, and commitments that newer ones replaced, stay in their blocks;
//! nodes say where, and the blocks are looked at. What the chain's node says of its blocks is believed, as in [`chain`].
//!
//! [`chain`]: crate::chain

pub mod posted;

use std::collections::{BTreeMap, BTreeSet};

use perturb_ledger::{Anchor, AnchorKind, AnchorPlace, ValidatorSet};
use perturb_types::{Digest, Hotkey};
use serde::Serialize;
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::error::{AuditError, Verdict};
use crate::history::{Checked, History, TrustAnchor};
use crate::nodes::Nodes;
use crate::report::{Report, Step};
use crate::root;

/// Anchors of each node that are looked up in blocks: the newest, or the first that cover the epoch asked for.
const LOOKED_UP: usize = 4;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The epoch that is to be covered; none for whatever there is.
    pub epoch: Option<u64>,
    /// The subnet.
    pub netuid: u16,
    /// The genesis hash of the chain, where it is known.
    pub chain_genesis: Option<Digest>,
    /// The chain's block; none for the newest finalized one.
    pub at: Option<Digest>,
}

/// An anchor that is on the chain.
struct Found {
    hotkey: Hotkey,
    anchor: Anchor,
    /// The chain's block that it is in.
    block: u64,
    kind: AnchorKind,
}

/// What is said of validators, and what was found.
type OnChain = (Vec<Step>, Vec<Found>);

/// The latest commitments.
fn commitments(chain: &Chain<'_>, netuid: u16, set: &BTreeSet<Hotkey>) -> Result<OnChain, AuditError> {
    let (mut steps, mut found) = (Vec::new(), Vec::new());
    for hotkey in set {
        let commitment = match chain.commitment(netuid, hotkey) {
            Ok(commitment) => commitment,
            // One hotkey may have what nobody here can read; a node that does not answer is another matter.
            Err(error) if error.verdict() == Verdict::Invalid => {
                steps.push(Step::note(format!("{hotkey}: {error}")));
                continue;
            }
            Err(error) => return Err(error),
        };
        match commitment {
            None => steps.push(Step::note(format!("{hotkey} has no commitment"))),
            Some(commitment) => match posted::in_commitment(&commitment) {
                None => steps.push(Step::note(format!("{hotkey} has a commitment about something else"))),
                Some(anchor) => {
                    let block = u64::from(commitment.block);
                    found.push(Found { hotkey: *hotkey, anchor, block, kind: AnchorKind::Commitment });
                }
            },
        }
    }
    Ok((steps, found))
}

/// Where nodes say that more are, without what `known` has.
fn places(nodes: &Nodes, epoch: Option<u64>, set: &BTreeSet<Hotkey>, known: &[Found]) -> (Vec<Step>, Vec<AnchorPlace>) {
    let (mut steps, mut wanted) = (Vec::new(), Vec::new());
    for node in &nodes.0 {
        let said = node.call("perturb_anchors", json!([])).and_then(|said| {
            serde_json::from_value::<Vec<AnchorPlace>>(said)
                .map_err(|e| AuditError::invalid(format!("anchors of {}", node.name()), e))
        });
        let mut said = match said {
            Ok(said) => said,
            Err(error) => {
                steps.push(Step::note(format!("{} names no anchors: {error}", node.name())));
                continue;
            }
        };
        let is_known = |p: &AnchorPlace| known.iter().any(|f| (f.hotkey, f.anchor.epoch) == (p.hotkey, p.epoch));
        said.retain(|place| set.contains(&place.hotkey) && !is_known(place) && !wanted.contains(place));
        said.sort_by_key(|place| place.epoch);
        match epoch {
            Some(epoch) => wanted.extend(said.into_iter().filter(|place| place.epoch >= epoch).take(LOOKED_UP)),
            None => wanted.extend(said.into_iter().rev().take(LOOKED_UP)),
        }
    }
    (steps, wanted)
}

/// Looks anchors up in the chain's blocks.
fn looked_up(chain: &Chain<'_>, netuid: u16, places: &[AnchorPlace]) -> OnChain {
    let (mut steps, mut found) = (Vec::new(), Vec::new());
    for place in places {
        let AnchorPlace { epoch, hotkey, block_number: block, index, kind, .. } = *place;
        let at = format!("anchor of epoch {epoch}, said to be in chain block {block}, extrinsic {index}");
        match chain.extrinsic(block, &place.block_hash, index) {
            Err(error) => steps.push(Step::note(format!("{at}: {error}"))),
            Ok(bytes) => match posted::in_extrinsic(&bytes, &hotkey, kind, netuid) {
                Err(why) => steps.push(Step::note(format!("{at}: {why}"))),
                Ok(anchor) => found.push(Found { hotkey, anchor, block, kind }),
            },
        }
    }
    (steps, found)
}

/// What an anchor is worth beside the certified history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Worth {
    /// Everything in it is certified.
    Holds,
    /// Header and state root are certified; nobody has the next header, which names the certificate.
    HoldsWithoutCertificate,
    /// It cannot be compared: too old for what the reader trusts, or nobody has the header.
    Unknown,
    /// It names something else than what is certified.
    Contradicts,
}

impl Worth {
    fn holds(self) -> bool {
        matches!(self, Self::Holds | Self::HoldsWithoutCertificate)
    }
}

/// Holds an anchor against the certified header of its height, and the next one.
fn check(history: &History, nodes: &Nodes, anchor: &Anchor) -> (Vec<Step>, Worth) {
    let header = |height: u64| nodes.first(&mut Vec::new(), |node| history.header(node, Some(height)));
    let checked: Checked = match header(anchor.height) {
        Ok(checked) => checked,
        Err(error) => return (vec![Step::note(format!("it cannot be compared: {error}"))], Worth::Unknown),
    };
    let mut steps = Vec::new();
    let mut compare = |what: &str, anchored: Digest, certified: Digest| {
        steps.push(match anchored == certified {
            true => Step::ok(format!("{what} {anchored} is the certified one")),
            false => Step::bad(format!("{what} {anchored} is anchored, certified is {certified}")),
        });
        anchored == certified
    };
    let mut same = compare("header", anchor.header, checked.digest);
    same &= compare("state root", anchor.state_root, checked.header.state_root);
    let next = header(anchor.height.saturating_add(1));
    let mut worth = Worth::Holds;
    match next {
        Ok(next) => same &= compare("certificate", anchor.certificate, next.header.parent_certificate),
        // Only what closed epochs is kept for ever.
        Err(error) => {
            worth = Worth::HoldsWithoutCertificate;
            steps.push(Step::note(format!("the certificate's digest cannot be compared: {error}")));
        }
    }
    if checked.header.epoch.checked_sub(1) != Some(anchor.epoch) {
        same = false;
        steps.push(Step::bad(format!("block {} is not the end of epoch {}", anchor.height, anchor.epoch)));
    }
    (steps, if same { worth } else { Worth::Contradicts })
}

/// What all found anchors come to.
struct Judged {
    /// One step for each different anchor, with those who made it.
    steps: Vec<Step>,
    values: Vec<Value>,
    /// The newest epoch with an anchor that holds.
    covered: Option<u64>,
    /// Who anchored something else than the certified history.
    contradicting: BTreeSet<Hotkey>,
}

fn judge(history: &History, nodes: &Nodes, found: &[Found]) -> Judged {
    let mut by_anchor: BTreeMap<(u64, Vec<u8>), Vec<&Found>> = BTreeMap::new();
    for f in found {
        by_anchor.entry((f.anchor.epoch, f.anchor.to_bytes().to_vec())).or_default().push(f);
    }
    let (mut steps, mut values) = (Vec::new(), Vec::new());
    let (mut covered, mut contradicting) = (None, BTreeSet::new());
    for of_one in by_anchor.values() {
        let Some(anchor) = of_one.first().map(|f| f.anchor) else { continue };
        let (parts, worth) = check(history, nodes, &anchor);
        let who = of_one.iter().map(|f| Step::note(format!("{} by {} in chain block {}", f.hotkey, f.kind, f.block)));
        let text = format!("epoch {}, closed by block {}: {} anchors", anchor.epoch, anchor.height, of_one.len());
        let step = match worth {
            Worth::Contradicts => Step::bad(text),
            Worth::Unknown => Step::note(text),
            Worth::Holds | Worth::HoldsWithoutCertificate => Step::ok(text),
        };
        steps.push(step.with(parts).with(who));
        if worth.holds() {
            covered = covered.max(Some(anchor.epoch));
        }
        if worth == Worth::Contradicts {
            contradicting.extend(of_one.iter().map(|f| f.hotkey));
        }
        values.extend(of_one.iter().map(|f| {
            json!({
                "hotkey": f.hotkey, "kind": f.kind, "chain_block": f.block, "epoch": anchor.epoch,
                "height": anchor.height, "header": anchor.header, "state_root": anchor.state_root,
                "certificate": anchor.certificate, "worth": worth,
            })
        }));
    }
    Judged { steps, values, covered, contradicting }
}

/// What the anchors say of the history as a whole. A member can anchor whatever it likes, so that less than a third of
/// the power proves nothing against the history and is only named; a third or more was promised not to lie.
fn verdict(judged: &Judged, set: &ValidatorSet, epoch: Option<u64>, steps: &mut Vec<Step>) -> Verdict {
    let members = set.iter().filter(|member| judged.contradicting.contains(&member.hotkey));
    let power: u64 = members.map(|member| member.power).sum();
    if power > 0 {
        let names: Vec<String> = judged.contradicting.iter().map(ToString::to_string).collect();
        let text = format!("power {power} of {} anchored another history: {}", set.total(), names.join(", "));
        steps.push(Step::bad(text));
    }
    let third = u128::from(power) * 3 >= u128::from(set.total());
    match judged.covered.filter(|covered| epoch.is_none_or(|wanted| *covered >= wanted)) {
        _ if power > 0 && third => Verdict::Invalid,
        Some(epoch) => {
            steps.push(Step::ok(format!("every epoch up to {epoch} is anchored: each header names its parent")));
            Verdict::Ok
        }
        None => {
            let wanted = epoch.map_or_else(|| "no anchor".into(), |e| format!("no anchor of epoch {e} or later"));
            steps.push(Step::bad(format!("{wanted} holds")));
            Verdict::Unavailable
        }
    }
}

/// `anchors`: everything that the validators of the newest set have anchored.
pub fn run(trusted: &TrustAnchor, nodes: &Nodes, chains: &Nodes, q: &Question) -> Report {
    let title = q.epoch.map_or_else(|| "anchors".into(), |epoch| format!("anchors that cover epoch {epoch}"));
    let mut steps = Vec::new();
    let loaded = nodes.first(&mut steps, |node| {
        let history = History::load(trusted, node)?;
        let newest = history.header(node, None)?;
        Ok((history, newest))
    });
    let (history, newest) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return Report::failed(title, steps, &error),
    };
    steps.extend(root::trust_steps(&history, newest.header.height));
    steps.push(root::header_step(&newest));
    let set = match history.at(newest.header.height.saturating_add(1)) {
        Ok(trust) => trust.set(),
        Err(error) => return Report::failed(title, steps, &error.into()),
    };
    let hotkeys: BTreeSet<Hotkey> = set.iter().map(|member| member.hotkey).collect();
    let on_chain = chains.first_believed(&mut steps, |node| {
        let chain = Chain::at(node.0, q.chain_genesis.as_ref(), q.at)?;
        let (mut said, mut found) = commitments(&chain, q.netuid, &hotkeys)?;
        let (more, wanted) = places(nodes, q.epoch, &hotkeys, &found);
        said.extend(more);
        let (more, others) = looked_up(&chain, q.netuid, &wanted);
        said.extend(more);
        found.extend(others);
        Ok((chain.hash, chain.number, said, found))
    });
    let (hash, number, said, found) = match on_chain {
        Ok(found) => found,
        Err(error) => return Report::failed(title, steps, &error),
    };
    let mut judged = judge(&history, nodes, &found);
    let text = format!("{} anchors of {} validators at chain block {number} ({hash})", found.len(), set.len());
    steps.push(Step::ok(text).with(said).with(std::mem::take(&mut judged.steps)));
    let verdict = verdict(&judged, set, q.epoch, &mut steps);
    let agreed = root::agreed(&history, nodes, (newest.header.height, newest.digest), &mut steps);
    let result = json!({
        "chain_block": number, "chain_hash": hash, "covered": judged.covered,
        "contradicting": judged.contradicting, "anchors": judged.values,
    });
    Report::new(if verdict == Verdict::Ok { agreed } else { verdict }, title, steps, result)
}
