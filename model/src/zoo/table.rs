//! The models this program knows.
//!
//! One entry says everything about a model: whose weights, which architecture, what happens to an image
//! before it. Another model of the same architecture is another entry; another architecture is a
//! variant of [`Architecture`] with its configuration. Sizes are the libraries' *test* sizes, at which
//! their published accuracies hold; `train_side` is informative.
//!
//! Sources: timm's and torchvision's own configurations (`default_cfgs`, `*_Weights`).

use super::convnext::ConvNextConfig;
use super::efficientnet::{BlockKind, EfficientNetConfig, Naming, Stage};
use super::layers::{Activation, Padding};
use super::preprocess::{HALF, IMAGENET, Preprocessing};
use super::swin::SwinConfig;
use super::vit::VitConfig;

/// A network's architecture, in numbers.
#[derive(Debug, Clone, Copy)]
pub enum Architecture {
    /// EfficientNet or EfficientNetV2.
    EfficientNet(EfficientNetConfig),
    /// ConvNeXt.
    ConvNext(ConvNextConfig),
    /// Vision transformer.
    Vit(VitConfig),
    /// Swin transformer.
    Swin(SwinConfig),
}

impl Architecture {
    /// Its family's name.
    #[must_use]
    pub fn family(&self) -> &'static str {
        match self {
            Self::EfficientNet(_) => "EfficientNet",
            Self::ConvNext(_) => "ConvNeXt",
            Self::Vit(_) => "ViT",
            Self::Swin(_) => "Swin",
        }
    }

    /// Names of tensors that some files carry although they follow from the architecture.
    #[must_use]
    pub(crate) fn superfluous(&self) -> &'static [&'static str] {
        match self {
            Self::Swin(_) => &["attn.relative_position_index", "attn_mask"],
            _ => &[],
        }
    }
}

/// Where a model's weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The hub's repository `timm/NAME`, file `model.safetensors`.
    Hub,
    /// torchvision's own server has them as a pickle, which this program does not read:
    /// `scripts/parity/torchvision_weights.py` makes a safetensors file of it.
    Torchvision {
        /// The file there; the last part of its name begins its SHA-256.
        file: &'static str,
    },
}

/// One model.
#[derive(Debug, Clone, Copy)]
pub struct ModelSpec {
    /// timm's name with its tag, or torchvision's with its weights'.
    pub name: &'static str,
    /// Where its weights are.
    pub origin: Origin,
    /// Its layers.
    pub architecture: Architecture,
    /// What happens to an image before it.
    pub preprocessing: Preprocessing,
    /// Side of its training images, pixels.
    pub train_side: i64,
    /// Number of classes.
    pub classes: u16,
    /// Trained parameters.
    pub parameters: u64,
    /// Published top-1 accuracy on ImageNet, hundredths of a percent; 0 if unknown.
    pub top1: u16,
}

impl ModelSpec {
    /// The hub's repository, if the weights are there.
    #[must_use]
    pub fn repository(&self) -> Option<String> {
        (self.origin == Origin::Hub).then(|| format!("timm/{}", self.name))
    }
}

/// The models, in the order of the README's table.
#[must_use]
pub fn models() -> &'static [ModelSpec] {
    MODELS
}

/// The model of that name: the whole name, or its part before the dot where that is unambiguous.
#[must_use]
pub fn find(name: &str) -> Option<&'static ModelSpec> {
    let mut short = MODELS.iter().filter(|spec| spec.name.split('.').next() == Some(name));
    let only = short.next().filter(|_| short.next().is_none());
    MODELS.iter().find(|spec| spec.name == name).or(only)
}

/// A stage in one line.
pub(crate) const fn stage(
    kind: BlockKind,
    repeats: i64,
    kernel: i64,
    stride: i64,
    expansion: i64,
    channels: i64,
) -> Stage {
    Stage { kind, repeats, kernel, stride, expansion, channels }
}

use BlockKind::{Fused, Inverted, Plain, Separable};

const V2_L: &[Stage] = &[
    stage(Plain, 4, 3, 1, 1, 32),
    stage(Fused, 7, 3, 2, 4, 64),
    stage(Fused, 7, 3, 2, 4, 96),
    stage(Inverted, 10, 3, 2, 4, 192),
    stage(Inverted, 19, 3, 1, 6, 224),
    stage(Inverted, 25, 3, 2, 6, 384),
    stage(Inverted, 7, 3, 1, 6, 640),
];

const V2_M: &[Stage] = &[
    stage(Plain, 3, 3, 1, 1, 24),
    stage(Fused, 5, 3, 2, 4, 48),
    stage(Fused, 5, 3, 2, 4, 80),
    stage(Inverted, 7, 3, 2, 4, 160),
    stage(Inverted, 14, 3, 1, 6, 176),
    stage(Inverted, 18, 3, 2, 6, 304),
    stage(Inverted, 5, 3, 1, 6, 512),
];

const B5: &[Stage] = &[
    stage(Separable, 3, 3, 1, 1, 24),
    stage(Inverted, 5, 3, 2, 6, 40),
    stage(Inverted, 5, 5, 2, 6, 64),
    stage(Inverted, 7, 3, 2, 6, 128),
    stage(Inverted, 7, 5, 1, 6, 176),
    stage(Inverted, 9, 5, 2, 6, 304),
    stage(Inverted, 3, 3, 1, 6, 512),
];

const TEST_EFFICIENTNET: &[Stage] = &[
    stage(Plain, 1, 3, 1, 1, 16),
    stage(Fused, 1, 3, 2, 4, 24),
    stage(Fused, 1, 3, 2, 4, 32),
    stage(Inverted, 1, 3, 2, 4, 48),
    stage(Inverted, 1, 3, 2, 4, 64),
];

/// ε of TensorFlow's batch normalisations, which torchvision shares in these models.
const TF_EPSILON: f64 = 1e-3;

const fn efficientnet(
    stem: i64,
    stages: &'static [Stage],
    features: i64,
    padding: Padding,
    naming: Naming,
) -> Architecture {
    Architecture::EfficientNet(EfficientNetConfig { stem, stages, features, epsilon: TF_EPSILON, padding, naming })
}

const MODELS: &[ModelSpec] = &[
    ModelSpec {
        name: "efficientnet_v2_l.imagenet1k_v1",
        origin: Origin::Torchvision { file: "efficientnet_v2_l-59c71312.pth" },
        architecture: efficientnet(32, V2_L, 1280, Padding::Symmetric, Naming::Torchvision),
        preprocessing: Preprocessing::shortest(480, 480, HALF),
        train_side: 480,
        classes: 1000,
        parameters: 118_515_272,
        top1: 8581,
    },
    ModelSpec {
        name: "efficientnet_b5.imagenet1k_v1",
        origin: Origin::Torchvision { file: "efficientnet_b5_lukemelas-1a07897c.pth" },
        architecture: efficientnet(48, B5, 2048, Padding::Symmetric, Naming::Torchvision),
        preprocessing: Preprocessing::shortest(456, 456, IMAGENET),
        train_side: 456,
        classes: 1000,
        parameters: 30_389_784,
        top1: 8344,
    },
    ModelSpec {
        name: "tf_efficientnetv2_l.in21k_ft_in1k",
        origin: Origin::Hub,
        architecture: efficientnet(32, V2_L, 1280, Padding::Same, Naming::Timm),
        preprocessing: Preprocessing::squash(480, HALF),
        train_side: 384,
        classes: 1000,
        parameters: 118_515_272,
        top1: 8680,
    },
    ModelSpec {
        name: "tf_efficientnetv2_m.in21k_ft_in1k",
        origin: Origin::Hub,
        architecture: efficientnet(24, V2_M, 1280, Padding::Same, Naming::Timm),
        preprocessing: Preprocessing::squash(480, HALF),
        train_side: 384,
        classes: 1000,
        parameters: 54_139_356,
        top1: 8601,
    },
    ModelSpec {
        name: "tf_efficientnet_b5.ra_in1k",
        origin: Origin::Hub,
        architecture: efficientnet(48, B5, 2048, Padding::Same, Naming::Timm),
        preprocessing: Preprocessing::shortest(488, 456, IMAGENET),
        train_side: 456,
        classes: 1000,
        parameters: 30_389_784,
        top1: 8383,
    },
    ModelSpec {
        name: "convnext_small.fb_in1k",
        origin: Origin::Hub,
        architecture: Architecture::ConvNext(ConvNextConfig {
            depths: [3, 3, 27, 3],
            widths: [96, 192, 384, 768],
            kernel: 7,
            epsilon: 1e-6,
            activation: Activation::Gelu,
        }),
        preprocessing: Preprocessing::shortest(288, 288, IMAGENET),
        train_side: 224,
        classes: 1000,
        parameters: 50_223_688,
        top1: 8370,
    },
    ModelSpec {
        name: "vit_small_patch16_224.augreg_in21k_ft_in1k",
        origin: Origin::Hub,
        architecture: Architecture::Vit(VitConfig {
            side: 224,
            patch: 16,
            width: 384,
            depth: 12,
            heads: 6,
            widening: 4,
        }),
        preprocessing: Preprocessing::shortest(248, 224, HALF),
        train_side: 224,
        classes: 1000,
        parameters: 22_050_664,
        top1: 8140,
    },
    ModelSpec {
        name: "swin_tiny_patch4_window7_224.ms_in1k",
        origin: Origin::Hub,
        architecture: Architecture::Swin(SwinConfig {
            side: 224,
            window: 7,
            width: 96,
            depths: &[2, 2, 6, 2],
            heads: &[3, 6, 12, 24],
        }),
        preprocessing: Preprocessing::shortest(248, 224, IMAGENET),
        train_side: 224,
        classes: 1000,
        parameters: 28_288_354,
        top1: 8139,
    },
    ModelSpec {
        name: "test_efficientnet.r160_in1k",
        origin: Origin::Hub,
        architecture: Architecture::EfficientNet(EfficientNetConfig {
            stem: 24,
            stages: TEST_EFFICIENTNET,
            features: 256,
            epsilon: 1e-5,
            padding: Padding::Symmetric,
            naming: Naming::Timm,
        }),
        preprocessing: Preprocessing::shortest(168, 160, IMAGENET),
        train_side: 160,
        classes: 1000,
        parameters: 356_196,
        top1: 4651,
    },
    ModelSpec {
        name: "test_convnext.r160_in1k",
        origin: Origin::Hub,
        architecture: Architecture::ConvNext(ConvNextConfig {
            depths: [1, 2, 4, 2],
            widths: [24, 32, 48, 64],
            kernel: 7,
            epsilon: 1e-5,
            activation: Activation::GeluTanh,
        }),
        preprocessing: Preprocessing::shortest(168, 160, HALF),
        train_side: 160,
        classes: 1000,
        parameters: 272_128,
        top1: 4777,
    },
    ModelSpec {
        name: "test_vit.r160_in1k",
        origin: Origin::Hub,
        architecture: Architecture::Vit(VitConfig { side: 160, patch: 16, width: 64, depth: 6, heads: 2, widening: 3 }),
        preprocessing: Preprocessing::shortest(168, 160, HALF),
        train_side: 160,
        classes: 1000,
        parameters: 371_240,
        top1: 4098,
    },
];
