//! Names for the leaves of a state, and the first field in which two of one name differ.

use perturb_ledger::epoch::{EpochRecord, MinerRecord};
use perturb_ledger::outliers::OutlierRow;
use perturb_ledger::reputation::Reputation;
use perturb_ledger::state::{HistoryRow, Meta, SeqRow};
use perturb_ledger::work::WorkRow;
use perturb_types::{Digest, Hotkey};
use serde::Serialize;

/// The first leaf in which the agreed state is not what the rules make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The block after which it differs.
    pub height: u64,
    /// The leaf, and the field in it.
    pub leaf: String,
    /// What was agreed.
    pub agreed: String,
    /// What the rules make.
    pub recomputed: String,
}

/// A number in the key's next bytes, big endian.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |n, b| (n << 8) | u64::from(*b))
}

fn hotkey(bytes: &[u8]) -> String {
    <[u8; 32]>::try_from(bytes).map_or_else(|_| hex::encode(bytes), |b| Hotkey(b).to_string())
}

/// A key of the state for people, e.g. `history/0/<miner>/<validator>`.
pub fn name(key: &[u8]) -> String {
    let parts = |prefix: &str, sizes: &[usize]| {
        let mut rest = key.strip_prefix(prefix.as_bytes())?;
        let mut out = prefix.trim_end_matches('/').to_owned();
        for size in sizes {
            let (part, tail) = rest.split_at_checked(*size)?;
            rest = tail.strip_prefix(b"/").unwrap_or(tail);
            out.push('/');
            out.push_str(&if *size == 32 { hotkey(part) } else { number(part).to_string() });
        }
        rest.is_empty().then_some(out)
    };
    let known = parts("history/", &[2, 32, 32])
        .or_else(|| parts("epoch/", &[8, 2]))
        .or_else(|| parts("seq/", &[2, 32]))
        .or_else(|| parts("open/", &[2, 32, 8]))
        .or_else(|| parts("challenge/", &[2]))
        .or_else(|| parts("key/", &[32]))
        .or_else(|| parts("ready/", &[8, 32]))
        .or_else(|| parts("reputation/", &[32]))
        .or_else(|| parts("order/", &[8, 8]))
        .or_else(|| parts("fresh/", &[2, 32, 8]))
        .or_else(|| parts("check/", &[2, 32, 8]))
        .or_else(|| parts("fault/", &[2, 32, 8]))
        .or_else(|| parts("struck/", &[2, 32]))
        .or_else(|| parts("outlier/", &[2, 32]))
        .or_else(|| parts("work/", &[32]))
        .or_else(|| parts("idle/", &[32]));
    let plain = || std::str::from_utf8(key).ok().filter(|t| t.chars().all(|c| c.is_ascii_graphic())).map(str::to_owned);
    known.or_else(plain).unwrap_or_else(|| hex::encode(key))
}

/// Histories come before what is computed from them, and both before the rest.
pub fn rank(key: &[u8]) -> u8 {
    match key {
        k if k.starts_with(b"history/") => 0,
        k if k.starts_with(b"epoch/") => 1,
        _ => 2,
    }
}

type Fields = Vec<(String, String)>;

fn field(name: impl Into<String>, value: impl ToString) -> (String, String) {
    (name.into(), value.to_string())
}

fn history(row: &HistoryRow) -> Fields {
    let mut out = vec![field("processed", row.ring.processed), field("fresh", row.fresh)];
    out.push(field("scores held", row.ring.scores.len()));
    out.extend(row.ring.scores.iter().enumerate().map(|(i, s)| field(format!("scores[{i}]"), s)));
    out
}

fn miner(m: &MinerRecord) -> Fields {
    let at = |what: &str| format!("miner {} {what}", m.hotkey);
    let mut out = vec![field(at("uid"), m.uid), field(at("answers"), m.processed)];
    for c in &m.contributions {
        out.push(field(at(&format!("contribution of {}", c.validator)), format!("{} by {}", c.mean, c.weight)));
    }
    match &m.aggregate {
        None => out.push(field(at("score"), "none")),
        Some(a) => {
            if let Some(from) = m.kept {
                out.push(field(at("score kept from epoch"), from));
            }
            for outlier in &a.rejected {
                out.push(field(at(&format!("outlier {outlier}")), "rejected"));
            }
            out.push(field(at("score"), a.score));
            out.push(field(at("spread"), a.spread));
            out.push(field(at("confidence"), a.confidence));
        }
    }
    out
}

/// In the order of the computation: contributions, outliers, scores, then shares, then the vector.
fn record(r: &EpochRecord) -> Fields {
    let mut out = vec![
        field("epoch", r.epoch),
        field("height", r.height),
        field("mechanism", r.mechanism),
        field("snapshot block", r.snapshot_block),
        field("version key", r.version_key),
        field("results", r.results),
        field("weight of the whole set", r.total),
        field("miners", r.miners.len()),
    ];
    out.extend(r.miners.iter().flat_map(miner));
    let count = |c: &OutlierRow| format!("for {} of {} owners", c.rejected, c.owners);
    out.extend(r.outliers.iter().map(|o| field(format!("outlier {}", o.validator), count(&o.count))));
    out.extend(r.miners.iter().map(|m| field(format!("miner {} share", m.hotkey), m.share)));
    let named = |h: &Option<Hotkey>| h.map_or_else(|| "nobody".into(), |h| h.to_string());
    out.extend(
        r.weights.iter().map(|(uid, h, w)| field(format!("weight of uid {uid}"), format!("{w} ({})", named(h)))),
    );
    out
}

fn meta(m: &Meta) -> Fields {
    vec![
        field("epoch", m.epoch),
        field("reference", format!("{:?}", m.reference)),
        field("epoch start", m.epoch_start),
        field("owner", m.owner),
        field("owner nonce", m.owner_nonce),
        field("required version", format!("{:?}", m.required_version)),
        field("results", m.results),
    ]
}

fn fields(key: &[u8], value: &[u8]) -> Option<Fields> {
    let text = name(key);
    let kind = text.split('/').next().unwrap_or_default();
    match kind {
        "history" => borsh::from_slice(value).ok().map(|row| history(&row)),
        "epoch" => borsh::from_slice(value).ok().map(|row| record(&row)),
        "meta" => borsh::from_slice(value).ok().map(|row| meta(&row)),
        "reputation" => borsh::from_slice::<Reputation>(value).ok().map(|row| {
            vec![
                field("standing", row.standing),
                field("faults of the epoch", format!("{:?}", row.epoch)),
                field("faults before", format!("{:?}", row.past)),
            ]
        }),
        "outlier" => borsh::from_slice::<OutlierRow>(value)
            .ok()
            .map(|row| vec![field("owners that reject", row.rejected), field("owners", row.owners)]),
        "work" => borsh::from_slice::<WorkRow>(value)
            .ok()
            .map(|row| vec![field("rounds", row.rounds), field("verdicts", row.verdicts)]),
        "seq" => borsh::from_slice::<SeqRow>(value).ok().map(|row| {
            vec![
                field("next", row.next),
                field("epoch", row.epoch),
                field("opened", row.opened),
                field("open", row.open),
                field("passed", row.passed),
            ]
        }),
        _ => None,
    }
}

fn whole(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "no row".into(), |v| format!("{} bytes, sha256 {}", v.len(), Digest::of(v)))
}

/// Where two values of one key differ first; `None` where they are the same.
pub fn first(height: u64, key: &[u8], agreed: Option<&[u8]>, recomputed: Option<&[u8]>) -> Option<Difference> {
    if agreed == recomputed {
        return None;
    }
    let leaf = name(key);
    let both = || Some((fields(key, agreed?)?, fields(key, recomputed?)?));
    if let Some((one, other)) = both() {
        let nothing = || ("end".to_owned(), "nothing".to_owned());
        for i in 0..one.len().max(other.len()) {
            let (a, b) = (one.get(i).cloned().unwrap_or_else(nothing), other.get(i).cloned().unwrap_or_else(nothing));
            if a == b {
                continue;
            }
            // A field that only one of them has: name it, and say what the other has there.
            let (place, agreed, recomputed) = if a.0 == b.0 {
                (a.0, a.1, b.1)
            } else {
                (b.0.clone(), format!("{}: {}", a.0, a.1), format!("{}: {}", b.0, b.1))
            };
            return Some(Difference { height, leaf: format!("{leaf}: {place}"), agreed, recomputed });
        }
    }
    Some(Difference { height, leaf, agreed: whole(agreed), recomputed: whole(recomputed) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use perturb_challenge::history::RingHistory;
    use perturb_ledger::state::{epoch_key, history_key, open_key};
    use perturb_types::{ChallengeId, encode};

    #[test]
    fn a_key_is_named_for_people() {
        let (m, v) = (Hotkey([1; 32]), Hotkey([2; 32]));
        assert_eq!(name(&history_key(ChallengeId(3), &m, &v)), format!("history/3/{m}/{v}"));
        assert_eq!(name(&open_key(ChallengeId(3), &v, 258)), format!("open/3/{v}/258"));
        assert_eq!(name(&epoch_key(7, ChallengeId(0))), "epoch/7/0");
        assert_eq!(name(b"meta"), "meta");
        assert_eq!(name(b"set/parent"), "set/parent");
        assert_eq!(name(&[0xff, 0]), "ff00");
        assert_eq!(name(b"history/short"), "history/short");
    }

    #[test]
    fn the_first_field_that_differs_is_named() {
        let key = history_key(ChallengeId(0), &Hotkey([1; 32]), &Hotkey([2; 32]));
        let row = |scores: &[u32]| {
            encode::encode(&HistoryRow { ring: RingHistory { processed: 9, scores: scores.to_vec() }, fresh: 1 })
        };
        let (a, b) = (row(&[1, 2, 3]), row(&[1, 5, 4]));
        assert_eq!(first(4, &key, Some(&a), Some(&a)), None);
        let d = first(4, &key, Some(&a), Some(&b)).unwrap();
        assert!(d.leaf.ends_with("scores[1]"), "{}", d.leaf);
        assert_eq!((d.height, d.agreed.as_str(), d.recomputed.as_str()), (4, "2", "5"));
        assert_eq!(first(4, &key, None, Some(&b)).unwrap().agreed, "no row");
        assert!(first(4, b"set", Some(&[1]), Some(&[2])).unwrap().agreed.starts_with("1 bytes"));
    }
}
