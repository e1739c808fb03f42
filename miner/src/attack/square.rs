//! Square: Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box
//! adversarial attack via random search", ECCV 2020, Algorithms 1 and 2 for L∞. It asks for logits
//! alone and lives on the 8-bit grid (ε is taken down to a whole level):
//!
//! ```text
//! x̂ = x + ε · vertical stripes of random sign, one per column and channel      section 3.4
//! h⁽ⁱ⁾ = side of a square that covers the share p⁽ⁱ⁾ of the image               Alg. 1, line 3
//! δ: ±2ε on that square at a random place, one sign per channel                Alg. 2
//! x̂ ← proj(x̂ + δ) where the margin loss falls or the label changes              Alg. 1, lines 5 to 8
//! ```
//!
//! p⁽⁰⁾ = 0.8 is halved at 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10 000 queries, rescaled to
//! the number of queries (5000 as in AutoAttack). The loss is the margin z_y − max z_j.

use perturb_challenge::pixels::Pixels;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::float::{at_each_radius, stream};
use super::{Attack, Context, MAX_STEPS, Options};
use crate::model::ModelError;

/// p⁽⁰⁾.
const SHARE: f64 = 0.8;

/// Queries, of 10 000, after which p is halved.
const HALVINGS: [u64; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/// Random search with squares.
#[derive(Clone, Copy, Debug)]
pub struct Square {
    /// ε in levels; all levels that count, one after the other, where it is not given.
    pub epsilon: Option<f32>,
    /// Queries of one start.
    pub queries: u32,
    /// Starts.
    pub restarts: u32,
}

/// One image under way.
struct Searcher {
    task: usize,
    image: Pixels,
    /// Lead of the best other class, millionths: minus the margin loss.
    lead: i64,
    rng: ChaCha8Rng,
}

/// p⁽ⁱ⁾ before query `i` of `queries`.
fn share(i: u32, queries: u32) -> f64 {
    let scaled = u64::from(i) * 10_000 / u64::from(queries.max(1));
    let halvings = HALVINGS.iter().filter(|h| scaled > **h).count();
    SHARE / f64::from(1_u32 << halvings)
}

/// `x` moved by `by` levels, within `epsilon` of `c` and the pixel range.
fn moved(x: u8, c: u8, by: i16, epsilon: u8) -> u8 {
    let to = i16::from(x) + by;
    to.clamp(i16::from(c.saturating_sub(epsilon)), i16::from(c.saturating_add(epsilon))) as u8
}

fn random_sign(rng: &mut ChaCha8Rng) -> i16 {
    if rng.random::<bool>() { 1 } else { -1 }
}

fn stripes(clean: &Pixels, epsilon: u8, rng: &mut ChaCha8Rng) -> Pixels {
    let row = clean.width as usize * 3;
    let signs: Vec<i16> = (0..row).map(|_| random_sign(rng) * i16::from(epsilon)).collect();
    let mut image = clean.clone();
    for (x, by) in image.rgb.iter_mut().zip(signs.iter().cycle()) {
        *x = moved(*x, *x, *by, epsilon);
    }
    image
}

/// Algorithm 2, projected.
fn with_square(clean: &Pixels, image: &Pixels, epsilon: u8, share: f64, rng: &mut ChaCha8Rng) -> Pixels {
    let (width, height) = (clean.width as usize, clean.height as usize);
    let side = ((share * (width * height) as f64).sqrt().round() as usize).clamp(1, width.min(height));
    let top = rng.random_range(0..=height - side);
    let left = rng.random_range(0..=width - side);
    let by: [i16; 3] = std::array::from_fn(|_| 2 * i16::from(epsilon) * random_sign(rng));
    let mut next = image.clone();
    for y in top..top + side {
        let from = (y * width + left) * 3;
        let span = from..from + side * 3;
        for ((x, c), by) in next.rgb[span.clone()].iter_mut().zip(&clean.rgb[span]).zip(by.iter().cycle()) {
            *x = moved(*x, *c, *by, epsilon);
        }
    }
    next
}

impl Square {
    /// With these options.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            epsilon: options.epsilon,
            queries: options.steps.unwrap_or(5000).min(MAX_STEPS),
            restarts: options.restarts.unwrap_or(1).clamp(1, MAX_STEPS),
        }
    }

    fn start(&self, context: &mut Context<'_>, epsilon: u8, restart: u32) -> Result<(), ModelError> {
        let mut searchers: Vec<Searcher> = context
            .open()
            .into_iter()
            .map(|task| {
                let mut rng = stream(context, task, restart);
                let image = stripes(context.task(task).clean, epsilon, &mut rng);
                Searcher { task, image, lead: i64::MIN, rng }
            })
            .collect();
        for i in 0..=self.queries {
            let next: Vec<(usize, Pixels)> = searchers
                .iter_mut()
                .map(|s| {
                    let clean = context.task(s.task).clean;
                    // The stripes themselves are the first query.
                    let image = if i == 0 {
                        s.image.clone()
                    } else {
                        with_square(clean, &s.image, epsilon, share(i - 1, self.queries), &mut s.rng)
                    };
                    (s.task, image)
                })
                .collect();
            let trials = context.probe(next.clone())?;
            for ((s, (_, image)), trial) in searchers.iter_mut().zip(next).zip(trials) {
                let lead = trial.lead.unwrap_or(i64::MIN);
                if lead > s.lead || lead >= 0 {
                    (s.lead, s.image) = (lead, image);
                }
            }
            searchers.retain(|s| context.best(s.task).is_none());
            if searchers.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

impl Attack for Square {
    fn name(&self) -> &'static str {
        "square"
    }

    fn search(&self, context: &mut Context<'_>) -> Result<(), ModelError> {
        at_each_radius(context, self.epsilon, |context, epsilon, _| {
            for restart in 0..self.restarts {
                self.start(context, epsilon as u8, restart)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_share_is_halved_on_the_papers_schedule() {
        assert_eq!(share(0, 10_000), 0.8);
        assert_eq!(share(10, 10_000), 0.8);
        assert_eq!(share(11, 10_000), 0.4);
        assert_eq!(share(51, 10_000), 0.2);
        assert_eq!(share(9_999, 10_000), 0.8 / 512.0);
        // Rescaled: 26 of 5000 are 52 of 10 000.
        assert_eq!(share(26, 5_000), 0.2);
    }

    #[test]
    fn stripes_and_squares_stay_in_the_ball_and_squares_cover_their_share() {
        let clean = Pixels::new(20, 10, (0..600).map(|i| (i * 7 % 256) as u8).collect()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let striped = stripes(&clean, 4, &mut rng);
        let within = |image: &Pixels| clean.rgb.iter().zip(&image.rgb).all(|(a, b)| a.abs_diff(*b) <= 4);
        assert!(within(&striped));
        for _ in 0..50 {
            let next = with_square(&clean, &striped, 4, 0.18, &mut rng);
            assert!(within(&next));
            // √(0.18 · 200) = 6 pixels a side.
            let changed = striped.rgb.iter().zip(&next.rgb).filter(|(a, b)| a != b).count();
            assert!(changed <= 6 * 6 * 3);
        }
        let whole = with_square(&clean, &striped, 4, 1.0, &mut rng);
        assert!(within(&whole));
    }
}
