//! Small networks of every architecture, for tests and `make parity`: nobody has trained them.
//!
//! Together they have each kind of block, both paddings, both namings, odd sides, windows that shift and
//! windows as large as the image.

use super::efficientnet::{BlockKind, EfficientNetConfig, Naming, Stage};
use super::layers::Padding;
use super::preprocess::{HALF, IMAGENET, Preprocessing};
use super::swin::SwinConfig;
use super::table::{Architecture, ModelSpec, Origin, stage};

use BlockKind::{Fused, Inverted, Plain, Separable};

/// B5's stages at a quarter of B0's width and half of its depth.
const B: &[Stage] = &[
    stage(Separable, 1, 3, 1, 1, 8),
    stage(Inverted, 1, 3, 2, 6, 8),
    stage(Inverted, 1, 5, 2, 6, 16),
    stage(Inverted, 2, 3, 2, 6, 24),
    stage(Inverted, 2, 5, 1, 6, 32),
    stage(Inverted, 2, 5, 2, 6, 48),
    stage(Inverted, 1, 3, 1, 6, 80),
];

/// V2-M's stages at a quarter of its width and a fifth of its depth.
const V2: &[Stage] = &[
    stage(Plain, 1, 3, 1, 1, 8),
    stage(Fused, 1, 3, 2, 4, 16),
    stage(Fused, 1, 3, 2, 4, 24),
    stage(Inverted, 2, 3, 2, 4, 40),
    stage(Inverted, 3, 3, 1, 6, 48),
    stage(Inverted, 4, 3, 2, 6, 80),
    stage(Inverted, 1, 3, 1, 6, 128),
];

const fn small(name: &'static str, architecture: Architecture, preprocessing: Preprocessing) -> ModelSpec {
    let train_side = preprocessing.crop;
    ModelSpec {
        name,
        origin: Origin::Torchvision { file: "none" },
        architecture,
        preprocessing,
        train_side,
        classes: 10,
        parameters: 0,
        top1: 0,
    }
}

const fn efficientnet(stages: &'static [Stage], features: i64, padding: Padding, naming: Naming) -> Architecture {
    Architecture::EfficientNet(EfficientNetConfig { stem: 8, stages, features, epsilon: 1e-3, padding, naming })
}

const MODELS: &[ModelSpec] = &[
    small(
        "small/tf_efficientnet_b",
        efficientnet(B, 320, Padding::Same, Naming::Timm),
        Preprocessing::shortest(66, 61, IMAGENET),
    ),
    small(
        "small/torchvision_efficientnet_b",
        efficientnet(B, 320, Padding::Symmetric, Naming::Torchvision),
        Preprocessing::shortest(61, 61, IMAGENET),
    ),
    small(
        "small/tf_efficientnetv2",
        efficientnet(V2, 1280, Padding::Same, Naming::Timm),
        Preprocessing::squash(64, HALF),
    ),
    small(
        "small/torchvision_efficientnet_v2",
        efficientnet(V2, 1280, Padding::Symmetric, Naming::Torchvision),
        Preprocessing::shortest(64, 64, HALF),
    ),
    small(
        "small/swin",
        Architecture::Swin(SwinConfig { side: 64, window: 4, width: 16, depths: &[2, 2, 2], heads: &[2, 4, 8] }),
        Preprocessing::shortest(70, 64, IMAGENET),
    ),
];

/// The small networks.
#[must_use]
pub fn small_models() -> &'static [ModelSpec] {
    MODELS
}
