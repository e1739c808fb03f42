//! What a library keeps of one public image, and what making it costs.
//!
//! A change is kept in the coordinates of the public image. Which transform came is known exactly: the set is
//! public, so it can be searched for. Here it is given, which favours the library.

use std::ops::Range;

use perturb_challenge::classifier::predict;
use perturb_challenge::pixels::{CHANNELS, Pixels};
use perturb_challenge::rules::{Rules, gates};
use perturb_challenge::transform::Transform;
use perturb_miner::attack::ours::Ours;
use perturb_miner::loss::Loss;
use perturb_miner::metered::{Metered, Spent};
use perturb_miner::model::{Levels, Model, ModelError, Pull};
use perturb_types::round::TransformSecret;

use crate::machine::NIGHT;
use crate::play::{attack, blind};

/// Transforms in each step of making a change that holds under many.
pub const DRAWS: u64 = 8;
/// Transforms on which it is tried; nearly all of them must flip, or the next level is made as well.
pub const PROBES: u64 = 12;
/// Levels at which one is made at most.
const LEVELS: u8 = 3;
/// Shares of its values that are tried, thousandths, those that matter most.
const SHARES: [usize; 6] = [1000, 500, 200, 70, 25, 8];

/// A round's clean side as a miner gets it, and what only the library's maker looks up.
pub struct Came {
    /// How the public image was changed.
    pub transform: Transform,
    /// The image that came.
    pub pixels: Pixels,
    /// The model's label.
    pub label: u16,
    /// For each of its channel values, where in the public image it comes from.
    pub origins: Vec<usize>,
}

impl Came {
    /// What comes when `secret` is drawn; of the cut and side of `like`, where that is given.
    pub fn new(
        model: &mut dyn Model,
        (rules, source): (&Rules, &Pixels),
        like: Option<&Transform>,
        secret: u64,
    ) -> Result<Self, ModelError> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&secret.to_le_bytes());
        let mut transform = Transform::derive(&TransformSecret(bytes), &rules.transform);
        if let Some(like) = like {
            (transform.flip, transform.left, transform.top) = (like.flip, like.left, like.top);
        }
        let pixels = transform.apply(source);
        let row = model.logits(&[&pixels])?.pop().unwrap_or_default();
        let label = predict(&row, 0).map_err(|e| ModelError::Failed(e.to_string()))?.class;
        let origins = origins(source, &pixels, &transform);
        Ok(Self { transform, pixels, label, origins })
    }
}

fn origins(source: &Pixels, came: &Pixels, transform: &Transform) -> Vec<usize> {
    let cropped = came.width < source.width;
    let (left, top) = if cropped { (usize::from(transform.left), usize::from(transform.top)) } else { (0, 0) };
    let (width, stride) = (came.width as usize, source.width as usize);
    let mut out = Vec::with_capacity(came.rgb.len());
    for y in 0..came.height as usize {
        for x in 0..width {
            let x = if transform.flip { width - 1 - x } else { x };
            let at = ((y + top) * stride + x + left) * CHANNELS;
            out.extend(at..at + CHANNELS);
        }
    }
    out
}

/// A change of the public image.
#[derive(Clone, Debug)]
pub struct Change {
    /// Levels, interleaved RGB, rows first.
    pub levels: Vec<i16>,
    /// How much each value matters, and which way; by this it is made sparser.
    pub slope: Vec<f32>,
}

impl Change {
    /// The part of it that matters most, `thousandths` of its values, on the image that came.
    pub fn on(&self, came: &Came, thousandths: usize) -> Pixels {
        let at = |i: usize| came.origins[i];
        let mut changed: Vec<usize> = (0..came.origins.len()).filter(|i| self.levels[at(*i)] != 0).collect();
        if thousandths < 1000 {
            changed.sort_by(|a, b| self.slope[at(*b)].abs().total_cmp(&self.slope[at(*a)].abs()));
            changed.truncate(changed.len() * thousandths / 1000);
        }
        let mut out = came.pixels.clone();
        for i in changed {
            out.rgb[i] = (i16::from(out.rgb[i]) + self.levels[at(i)]).clamp(0, 255) as u8;
        }
        out
    }
}

/// Changes that hold under many transforms.
pub struct Robust {
    /// One a level, lowest first.
    pub changes: Vec<Change>,
    /// The one of them, and the share of its values, that is worth most unseen.
    pub best: (usize, usize),
}

impl Robust {
    /// What is tried first of them: the best, a part more and a part less of it, and the whole level below.
    pub fn first(&self) -> Vec<(&Change, usize)> {
        let (level, share) = self.best;
        let at = SHARES.iter().position(|s| *s == share).unwrap_or(0);
        let below = level.checked_sub(1).and_then(|l| self.changes.get(l)).map(|change| (change, 1000));
        let near = SHARES.iter().take(at + 2).skip(at.saturating_sub(1));
        let here = near.filter_map(|share| self.changes.get(level).map(|change| (change, *share)));
        below.into_iter().chain(here).collect()
    }

    /// The one that is sent unseen.
    pub fn sent(&self, came: &Came) -> Option<Pixels> {
        self.changes.get(self.best.0).map(|change| change.on(came, self.best.1))
    }

    /// Made for the cut and side of `like`, or for all of them: sign steps along the sum of the gradients at many
    /// draws. One for each level from the lowest up, until nearly every draw is flipped.
    pub fn make(
        model: &mut dyn Model,
        (rules, source): (&Rules, &Pixels),
        like: Option<&Transform>,
        secrets: Range<u64>,
    ) -> Result<(Self, Spent), ModelError> {
        let mut model = Metered::new(model, u64::MAX, None);
        let probes = (secrets.end - PROBES..secrets.end)
            .map(|s| Came::new(&mut model, (rules, source), like, s))
            .collect::<Result<Vec<_>, _>>()?;
        let mut sum = vec![0.0; source.rgb.len()];
        let (mut changes, mut best, mut most) = (Vec::new(), (0, 1000), 0.0);
        for level in (gates::min_level(rules)..).take(usize::from(LEVELS)) {
            let change =
                climb(&mut model, (rules, source), (like, secrets.start..secrets.end - PROBES), level, &mut sum)?;
            let mut flips = 0;
            for share in SHARES {
                let mut worth = 0.0;
                for came in &probes {
                    let outcome = blind(&mut model, rules, came, change.on(came, share))?;
                    worth += outcome.score;
                    flips += u64::from(share == 1000 && outcome.level > 0);
                }
                if worth > most {
                    (best, most) = ((changes.len(), share), worth);
                }
            }
            changes.push(change);
            if flips + 1 >= PROBES {
                break;
            }
        }
        Ok((Self { changes, best }, model.spent()))
    }
}

/// A change of `level` that leads away from the label at as many draws as possible; `sum` is where it goes on from.
fn climb(
    model: &mut dyn Model,
    of: (&Rules, &Pixels),
    (like, secrets): (Option<&Transform>, Range<u64>),
    level: u8,
    sum: &mut [f32],
) -> Result<Change, ModelError> {
    let level = i16::from(level);
    let along = |sum: &[f32]| Change {
        levels: sum.iter().map(|s| if *s == 0.0 { 0 } else { level * s.signum() as i16 }).collect(),
        slope: sum.to_vec(),
    };
    for first in secrets.step_by(DRAWS as usize) {
        let came = (first..first + DRAWS).map(|s| Came::new(model, of, like, s)).collect::<Result<Vec<_>, _>>()?;
        let change = along(sum);
        let images: Vec<Levels> = came.iter().map(|c| Levels::from(&change.on(c, 1000))).collect();
        let pulls: Vec<Pull> =
            came.iter().enumerate().map(|(image, c)| Pull { image, label: c.label, loss: Loss::Margin }).collect();
        let passes = model.gradients(&images.iter().collect::<Vec<_>>(), &pulls)?;
        sum.iter_mut().for_each(|s| *s *= 0.95);
        for (came, pulled) in came.iter().zip(&passes.pulled) {
            let size: f32 = pulled.gradient.iter().map(|g| g.abs()).sum::<f32>().max(1e-12);
            // Those that hold already pull less.
            let weight = if pulled.value > 0.1 { 0.2 } else { 1.0 } / size;
            came.origins.iter().zip(&pulled.gradient).for_each(|(at, g)| sum[*at] += g * weight);
        }
    }
    Ok(along(sum))
}

/// Answers to other brightnesses and fields of the cut and side of `like`, nearest to the image that came first: our
/// own attack's, made where time is free.
pub fn answers(
    model: &mut dyn Model,
    (rules, source): (&Rules, &Pixels),
    (to, like): (&Came, &Transform),
    secrets: Range<u64>,
) -> Result<(Vec<Change>, Spent), ModelError> {
    let mut model = Metered::new(model, u64::MAX, None);
    let mut kept = Vec::new();
    for secret in secrets {
        let came = Came::new(&mut model, (rules, source), Some(like), secret)?;
        let Some(answer) = attack(&mut model, NIGHT, rules, &came, &Ours::default())?.1 else { continue };
        let mut levels = vec![0; source.rgb.len()];
        for (at, (a, c)) in came.origins.iter().zip(answer.rgb.iter().zip(&came.pixels.rgb)) {
            levels[*at] = i16::from(*a) - i16::from(*c);
        }
        let slope = levels.iter().map(|l| f32::from(*l)).collect();
        let far: u64 = came.pixels.rgb.iter().zip(&to.pixels.rgb).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
        kept.push((far, Change { levels, slope }));
    }
    kept.sort_by_key(|(far, _)| *far);
    Ok((kept.into_iter().map(|(_, change)| change).collect(), model.spent()))
}
