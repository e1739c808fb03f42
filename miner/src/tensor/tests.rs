#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::attack::{self, Context, Options, Task};
use crate::criterion::{Criterion, RuleCriterion};
use crate::loss::{Loss, margin};
use crate::metered::Metered;
use perturb_challenge::classifier::{Classifier, ClassifierError};
use perturb_challenge::demo;
use perturb_challenge::rules::Rules;
use perturb_model::TchClassifier;
use std::sync::atomic::{AtomicUsize, Ordering};

fn model() -> TensorModel {
    perturb_model::set_threads(1);
    TensorModel::new(Arc::new(TchClassifier::embedded(tch::Device::Cpu).unwrap()))
}

/// The demo images `from..` that the model gets right, with the model's label.
fn images(model: &mut dyn Model, from: u64, count: usize) -> Vec<(Pixels, u16)> {
    (from..)
        .map(|i| demo::draw(77, i).0)
        .map(|image| {
            let z = model.logits(&[&image]).unwrap().remove(0);
            let label = (0..z.len()).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap() as u16;
            (image, label)
        })
        .take(count)
        .collect()
}

fn pull(image: usize, label: u16, loss: Loss) -> Pull {
    Pull { image, label, loss }
}

#[test]
fn the_gradient_is_the_losses_in_the_pixels_own_order() {
    let mut m = model();
    let (image, label) = demo::draw(11, 3);
    let at = m.gradients(&[&Levels::from(&image)], &[pull(0, label, Loss::Margin)]).unwrap();
    let gradient = &at.pulled[0].gradient;
    assert_eq!(gradient.len(), image.rgb.len());
    assert_eq!(at.pulled[0].value, margin(&at.logits[0], label).unwrap().1);
    // Moving the values with the largest gradient along it must raise the margin, against it lower it.
    let mut order: Vec<usize> = (0..gradient.len()).collect();
    order.sort_by(|a, b| gradient[*b].abs().total_cmp(&gradient[*a].abs()));
    let moved = |by: i16| {
        let mut i = image.clone();
        for &p in &order[..200] {
            let d = if gradient[p] > 0.0 { by } else { -by };
            i.rgb[p] = (i16::from(i.rgb[p]) + d).clamp(0, 255) as u8;
        }
        i
    };
    let z = m.logits(&[&moved(2), &moved(-2)]).unwrap();
    assert!(margin(&z[0], label).unwrap().1 > margin(&z[1], label).unwrap().1);
}

#[test]
fn images_of_a_batch_keep_their_own_losses_whatever_their_sizes() {
    let mut m = model();
    let batch = images(&mut m, 0, 3);
    let small = Pixels::new(32, 40, vec![90; 32 * 40 * 3]).unwrap();
    let floats: Vec<Levels> = batch.iter().map(|(i, _)| Levels::from(i)).chain([Levels::from(&small)]).collect();
    let views: Vec<&Levels> = floats.iter().collect();
    let other = (batch[0].1 + 1) % 10;
    let pulls = [
        pull(3, 1, Loss::Margin),
        pull(0, batch[0].1, Loss::CrossEntropy),
        pull(2, batch[2].1, Loss::Dlr),
        pull(0, batch[0].1, Loss::Difference { target: other }),
    ];
    let together = m.gradients(&views, &pulls).unwrap();
    for (at, p) in pulls.iter().enumerate() {
        let alone = m.gradients(&[views[p.image]], &[Pull { image: 0, ..*p }]).unwrap();
        assert!((alone.pulled[0].value - together.pulled[at].value).abs() < 1e-4);
        let most = alone.pulled[0].gradient.iter().fold(0.0_f32, |m, g| m.max(g.abs()));
        let apart = alone.pulled[0].gradient.iter().zip(&together.pulled[at].gradient);
        assert!(apart.fold(0.0_f32, |m, (a, b)| m.max((a - b).abs())) < 1e-3 * most);
    }
    let plain: Vec<Vec<f32>> = m.float_logits(&views).unwrap();
    assert_eq!(plain.len(), 4);
    assert!(plain[0].iter().zip(&together.logits[0]).all(|(a, b)| (a - b).abs() < 1e-3));
    assert!(m.gradients(&views, &[pull(9, 0, Loss::Margin)]).is_err());
    assert!(m.gradients(&views, &[pull(0, 99, Loss::Margin)]).is_err());
}

#[test]
fn an_image_without_finite_logits_spoils_nobody_elses_gradient() {
    let mut m = model();
    let (good, label) = images(&mut m, 0, 1).remove(0);
    let good = Levels::from(&good);
    let bad = Levels { rgb: vec![f32::NAN; good.rgb.len()], ..good.clone() };
    let pulls = [pull(0, 0, Loss::Margin), pull(1, label, Loss::Margin)];
    let both = m.gradients(&[&bad, &good], &pulls).unwrap();
    let alone = m.gradients(&[&good], &[pull(0, label, Loss::Margin)]).unwrap();
    assert!(both.pulled[0].value.is_nan() && both.pulled[0].gradient.iter().all(|g| *g == 0.0));
    assert!((both.pulled[1].value - alone.pulled[0].value).abs() < 1e-4);
    assert!(both.pulled[1].gradient.iter().all(|g| g.is_finite()));
}

/// The demo classifier on a device that holds two images at once.
struct Small {
    inner: TchClassifier,
    refused: AtomicUsize,
}

impl Classifier for Small {
    fn name(&self) -> &str {
        "small"
    }
    fn digest(&self) -> perturb_types::Digest {
        self.inner.digest()
    }
    fn classes(&self) -> usize {
        10
    }
    fn logits(&self, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ClassifierError> {
        self.inner.logits(images)
    }
}

impl Differentiable for Small {
    fn forward(&self, x: &Tensor) -> Result<Tensor, perturb_model::ModelError> {
        if x.size()[0] > 2 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(perturb_model::ModelError::Input("CUDA out of memory. Tried to allocate".into()));
        }
        self.inner.forward(x)
    }
    fn device(&self) -> tch::Device {
        tch::Device::Cpu
    }
}

#[test]
fn a_device_that_runs_out_of_memory_gets_smaller_batches_and_the_answer_stays_whole() {
    let mut whole = model();
    let batch = images(&mut whole, 0, 7);
    let floats: Vec<Levels> = batch.iter().map(|(i, _)| Levels::from(i)).collect();
    let views: Vec<&Levels> = floats.iter().collect();
    let inner = TchClassifier::embedded(tch::Device::Cpu).unwrap();
    let device = Arc::new(Small { inner, refused: AtomicUsize::new(0) });
    let mut small = TensorModel::new(device.clone());
    let pulls: Vec<Pull> = batch.iter().enumerate().map(|(i, (_, label))| pull(i, *label, Loss::Margin)).collect();
    let (a, b) = (small.gradients(&views, &pulls).unwrap(), whole.gradients(&views, &pulls).unwrap());
    assert_eq!(a.logits.len(), 7);
    for (a, b) in a.pulled.iter().zip(&b.pulled) {
        assert!((a.value - b.value).abs() < 1e-4);
    }
    // 7 and 3 were refused; from then on single images.
    assert_eq!(device.refused.load(Ordering::Relaxed), 2);
    assert_eq!(small.limit, 1);
}

/// Worth, in millionths of the score without time, that `name` finds on each image.
fn worths(name: &str, batch: &[(Pixels, u16)]) -> Vec<u32> {
    let criterion = RuleCriterion::new(Rules::subnet());
    let mut metered = Metered::new(model(), 500 * batch.len() as u64, None);
    let tasks = batch.iter().map(|(clean, label)| Task { clean, label: *label, salt: 7 }).collect();
    let attack = attack::by_name(name, &Options::default()).unwrap();
    let found = attack::run(attack.as_ref(), Context::new(&mut metered, &criterion, tasks)).unwrap();
    for ((clean, _), found) in batch.iter().zip(&found) {
        if let Some(f) = found {
            assert!(criterion.gates(clean, &f.image).is_some(), "{name}");
        }
    }
    found.iter().map(|f| f.as_ref().map_or(0, |f| f.worth.score)).collect()
}

#[test]
fn on_the_demo_set_ours_scores_above_every_other_attack() {
    let batch = images(&mut model(), 0, 6);
    let mean = |w: &[u32]| w.iter().map(|x| u64::from(*x)).sum::<u64>() / w.len() as u64;
    let ours = worths("ours", &batch);
    assert!(ours.iter().filter(|w| **w > 0).count() >= 4, "{ours:?}");
    for name in attack::NAMES.into_iter().filter(|n| *n != "ours" && *n != "autoattack") {
        let theirs = worths(name, &batch);
        assert!(mean(&ours) > mean(&theirs), "ours {ours:?}, {name} {theirs:?}");
    }
}
