//! Answers between two wrong classes.
//!
//! Two machines, and one machine with two batch sizes, differ in a logit's last bits. A miner that leaves the
//! two best wrong classes as good as equal has another class recorded by the one that judges than by those who
//! look again, and would have honest validators struck if they had to find the same.

use perturb_challenge::pixels::Pixels;

use crate::attack::mix;
use crate::model::Model;

/// Images that one call of the model compares.
const BATCH: u64 = 16;

/// Calls at the most: the deadline may end it before.
const CALLS: u64 = 24;

/// By how much, logits, both classes lead the label: enough for success to stay certain.
const LEAD: f32 = 0.2;

/// How far the two best wrong classes lie apart, where both lead the label by enough.
fn gap(logits: &[f32], label: u16) -> Option<f32> {
    let own = *logits.get(usize::from(label))?;
    let mut wrong: Vec<f32> =
        logits.iter().enumerate().filter(|(i, _)| *i != usize::from(label)).map(|(_, z)| *z).collect();
    wrong.sort_by(|a, b| b.total_cmp(a));
    let [first, second, ..] = wrong[..] else { return None };
    (second - own >= LEAD).then_some(first - second)
}

/// One channel of a small square moves by a level, no further from the clean image than the answer is.
fn moved(clean: &Pixels, answer: &Pixels, most: u8, seed: u64) -> Pixels {
    let (width, height) = (clean.width as usize, clean.height as usize);
    let pick = |i: u64, n: usize| (mix(seed, i) % n.max(1) as u64) as usize;
    let (side, channel, up) = (1 + pick(0, 8.min(width).min(height)), pick(1, 3), pick(2, 2) == 1);
    let (left, top) = (pick(3, width - side + 1), pick(4, height - side + 1));
    let mut next = answer.clone();
    for at in (top..top + side).flat_map(|y| (left..left + side).map(move |x| (y * width + x) * 3 + channel)) {
        let (x, c) = (next.rgb[at], clean.rgb[at]);
        let to = if up { x.saturating_add(1) } else { x.saturating_sub(1) };
        if to.abs_diff(c) <= most {
            next.rgb[at] = to;
        }
    }
    next
}

/// Moves an answer towards a tie, for as long as the model may be asked.
pub(super) fn tie(model: &mut dyn Model, clean: &Pixels, label: u16, answer: Pixels, salt: u64) -> Pixels {
    let most = clean.rgb.iter().zip(&answer.rgb).map(|(c, x)| c.abs_diff(*x)).max().unwrap_or(0);
    let mut best = (f32::INFINITY, answer);
    for call in 0..CALLS {
        let tried: Vec<Pixels> = (0..BATCH).map(|i| moved(clean, &best.1, most, salt ^ mix(call, i))).collect();
        let Ok(rows) = model.logits(&tried.iter().collect::<Vec<_>>()) else { break };
        for (image, logits) in tried.into_iter().zip(rows) {
            if let Some(gap) = gap(&logits, label).filter(|gap| *gap < best.0) {
                best = (gap, image);
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::model::{Levels, ModelError, Passes, Pull};

    /// Class 1 grows with red, class 2 with blue.
    struct Colours;

    impl Model for Colours {
        fn logits(&mut self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ModelError> {
            let mean = |p: &Pixels, c: usize| {
                p.rgb.iter().skip(c).step_by(3).map(|x| f32::from(*x)).sum::<f32>() / (p.rgb.len() / 3) as f32
            };
            Ok(images.iter().map(|p| vec![mean(p, 1) - 4.0, mean(p, 0), mean(p, 2)]).collect())
        }

        fn float_logits(&mut self, _: &[&Levels]) -> Result<Vec<Vec<f32>>, ModelError> {
            Err(ModelError::Failed("not asked".into()))
        }

        fn gradients(&mut self, _: &[&Levels], _: &[Pull]) -> Result<Passes, ModelError> {
            Err(ModelError::Failed("not asked".into()))
        }
    }

    #[test]
    fn two_wrong_classes_come_as_near_as_the_deadline_allows() {
        let clean = Pixels::new(16, 16, vec![100; 16 * 16 * 3]).unwrap();
        let mut answer = clean.clone();
        answer.rgb.iter_mut().step_by(3).for_each(|red| *red += 2);
        let of = |p: &Pixels| Colours.logits(&[p]).unwrap().remove(0);
        let tied = tie(&mut Colours, &clean, 0, answer.clone(), 7);
        assert!(gap(&of(&tied), 0).unwrap() < gap(&of(&answer), 0).unwrap() / 2.0);
        assert!(tied.rgb.iter().zip(&clean.rgb).all(|(x, c)| x.abs_diff(*c) <= 2), "within the same level");
    }
}
