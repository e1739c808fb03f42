//! EfficientNet and EfficientNetV2: stages of inverted bottlenecks.
//!
//! ```text
//! stem     conv 3×3, stride 2, BN, SiLU
//! stages   of blocks; the first block of a stage has its stride and changes the channels
//!   Inverted   1×1 expand, k×k depthwise, squeeze-and-excitation, 1×1 project
//!   Separable  k×k depthwise, squeeze-and-excitation, 1×1 project
//!   Fused      k×k expand, 1×1 project
//!   Plain      k×k
//! head     conv 1×1, BN, SiLU, mean over positions, linear
//! ```
//!
//! Each convolution has a BN and, but for the projections, SiLU. A block that keeps its shape adds its
//! input. Squeeze-and-excitation: mean over positions, 1×1 to a quarter of the block's *input* channels,
//! SiLU, 1×1 back, sigmoid, product. timm and torchvision agree on all of it and have the same tensors
//! in the same order; they differ in names and, for timm's `tf_` models, in the padding.
//!
//! Sources: arXiv:1905.11946, arXiv:2104.00298; timm `efficientnet.py`, torchvision `efficientnet.py`.

use super::layers::{Activation, Conv, ConvSize, Linear, Padding, residual};
use super::layout::{Layout, Parameters};
use crate::error::ModelError;
use tch::Tensor;

/// The kinds of block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Expanding, depthwise, projecting; with squeeze-and-excitation.
    Inverted,
    /// Depthwise, projecting; with squeeze-and-excitation.
    Separable,
    /// Expanding by a full convolution, projecting.
    Fused,
    /// One full convolution.
    Plain,
}

/// A stage: equal blocks, the first of which changes stride and channels.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// What its blocks are.
    pub kind: BlockKind,
    /// How many.
    pub repeats: i64,
    /// Side of the kernel.
    pub kernel: i64,
    /// Stride of the first block.
    pub stride: i64,
    /// Inner channels over input channels.
    pub expansion: i64,
    /// Output channels.
    pub channels: i64,
}

/// Whose names the weights have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// timm's.
    Timm,
    /// torchvision's.
    Torchvision,
}

/// One EfficientNet.
#[derive(Debug, Clone, Copy)]
pub struct EfficientNetConfig {
    /// Channels of the stem.
    pub stem: i64,
    /// The stages.
    pub stages: &'static [Stage],
    /// Channels of the head.
    pub features: i64,
    /// ε of the batch normalisations.
    pub epsilon: f64,
    /// Padding of the convolutions.
    pub padding: Padding,
    /// Names of the tensors.
    pub naming: Naming,
}

#[derive(Debug)]
struct Block {
    expand: Option<Conv>,
    spatial: Conv,
    squeeze: Option<(Conv, Conv)>,
    project: Option<Conv>,
    skip: bool,
}

/// An EfficientNet without its weights.
#[derive(Debug)]
pub(crate) struct EfficientNet {
    stem: Conv,
    blocks: Vec<Block>,
    head: Conv,
    classifier: Linear,
}

impl EfficientNet {
    pub(crate) fn new(config: &EfficientNetConfig, classes: i64, layout: &mut Layout) -> Self {
        let full = |input, output, kernel, stride| ConvSize { input, output, kernel, stride, groups: 1 };
        let conv = |layout: &mut Layout, (name, norm): (&str, &str), size| {
            Conv::normalised(layout, name, norm, size, config.padding, config.epsilon)
        };
        let last = config.stages.len() + 1;
        let (stem_names, head_names, classifier) = match config.naming {
            Naming::Timm => {
                (("conv_stem".to_owned(), "bn1".to_owned()), ("conv_head".to_owned(), "bn2".to_owned()), "classifier")
            }
            Naming::Torchvision => (
                ("features.0.0".to_owned(), "features.0.1".to_owned()),
                (format!("features.{last}.0"), format!("features.{last}.1")),
                "classifier.1",
            ),
        };
        let stem = conv(layout, (&stem_names.0, &stem_names.1), full(3, config.stem, 3, 2));
        let mut channels = config.stem;
        let mut blocks = Vec::new();
        for (s, stage) in config.stages.iter().enumerate() {
            for b in 0..stage.repeats {
                let names = match config.naming {
                    Naming::Timm => Names::timm(stage.kind, &format!("blocks.{s}.{b}")),
                    Naming::Torchvision => Names::torchvision(stage.kind, &format!("features.{}.{b}", s + 1)),
                };
                let stride = if b == 0 { stage.stride } else { 1 };
                blocks.push(Block::new(config, stage, channels, stride, &names, layout));
                channels = stage.channels;
            }
        }
        let head = conv(layout, (&head_names.0, &head_names.1), full(channels, config.features, 1, 1));
        let classifier = Linear::new(layout, classifier, config.features, classes);
        Self { stem, blocks, head, classifier }
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let mut x = Activation::Silu.apply(self.stem.forward(p, x)?)?;
        for block in &self.blocks {
            x = block.forward(p, x)?;
        }
        let x = Activation::Silu.apply(self.head.forward(p, &x)?)?;
        self.classifier.forward(p, &crate::net::pool(&x)?)
    }
}

impl Block {
    fn new(
        config: &EfficientNetConfig,
        stage: &Stage,
        input: i64,
        stride: i64,
        names: &Names,
        layout: &mut Layout,
    ) -> Self {
        let output = stage.channels;
        let inner = input * stage.expansion;
        let padding = config.padding;
        let normalised = |layout: &mut Layout, (name, norm): &(String, String), size| {
            Conv::normalised(layout, name, norm, size, padding, config.epsilon)
        };
        let size = |input, output, kernel, stride, groups| ConvSize { input, output, kernel, stride, groups };
        let expand =
            (stage.kind == BlockKind::Inverted).then(|| normalised(layout, &names.expand, size(input, inner, 1, 1, 1)));
        let spatial = match stage.kind {
            BlockKind::Inverted | BlockKind::Separable => size(inner, inner, stage.kernel, stride, inner),
            BlockKind::Fused => size(input, inner, stage.kernel, stride, 1),
            BlockKind::Plain => size(input, output, stage.kernel, stride, 1),
        };
        let spatial = normalised(layout, &names.spatial, spatial);
        let squeeze = matches!(stage.kind, BlockKind::Inverted | BlockKind::Separable).then(|| {
            let narrow = (input / 4).max(1);
            let (reduce, restore) = &names.squeeze;
            (
                Conv::new(layout, reduce, size(inner, narrow, 1, 1, 1), padding),
                Conv::new(layout, restore, size(narrow, inner, 1, 1, 1), padding),
            )
        });
        let project =
            (stage.kind != BlockKind::Plain).then(|| normalised(layout, &names.project, size(inner, output, 1, 1, 1)));
        Self { expand, spatial, squeeze, project, skip: stride == 1 && input == output }
    }

    fn forward(&self, p: &Parameters, input: Tensor) -> Result<Tensor, ModelError> {
        let mut x = match &self.expand {
            Some(expand) => {
                let inner = Activation::Silu.apply(expand.forward(p, &input)?)?;
                Activation::Silu.apply(self.spatial.forward(p, &inner)?)?
            }
            None => Activation::Silu.apply(self.spatial.forward(p, &input)?)?,
        };
        if let Some((reduce, restore)) = &self.squeeze {
            let mean = x.f_mean_dim([2_i64, 3].as_slice(), true, x.kind())?;
            let narrow = Activation::Silu.apply(reduce.forward(p, &mean)?)?;
            let gate = restore.forward(p, &narrow)?.f_sigmoid()?;
            // The product's gradient needs both factors: overwrite only where none is wanted.
            x = if x.requires_grad() { x.f_mul(&gate)? } else { x.f_mul_(&gate)? };
        }
        if let Some(project) = &self.project {
            x = project.forward(p, &x)?;
        }
        if self.skip { residual(x, &input) } else { Ok(x) }
    }
}

/// Names of a block's layers: (convolution, batch normalisation), and the two of the squeeze.
struct Names {
    expand: (String, String),
    spatial: (String, String),
    squeeze: (String, String),
    project: (String, String),
}

impl Names {
    fn timm(kind: BlockKind, block: &str) -> Self {
        let pair = |conv: &str, norm: &str| (format!("{block}.{conv}"), format!("{block}.{norm}"));
        let squeeze = pair("se.conv_reduce", "se.conv_expand");
        let (expand, spatial, project) = match kind {
            BlockKind::Inverted => (pair("conv_pw", "bn1"), pair("conv_dw", "bn2"), pair("conv_pwl", "bn3")),
            BlockKind::Separable => (pair("", ""), pair("conv_dw", "bn1"), pair("conv_pw", "bn2")),
            BlockKind::Fused => (pair("", ""), pair("conv_exp", "bn1"), pair("conv_pwl", "bn2")),
            BlockKind::Plain => (pair("", ""), pair("conv", "bn1"), pair("", "")),
        };
        Self { expand, spatial, squeeze, project }
    }

    /// torchvision numbers the parts of a block that exist.
    fn torchvision(kind: BlockKind, block: &str) -> Self {
        let part = |index: usize| (format!("{block}.block.{index}.0"), format!("{block}.block.{index}.1"));
        let squeeze = |index: usize| (format!("{block}.block.{index}.fc1"), format!("{block}.block.{index}.fc2"));
        match kind {
            BlockKind::Inverted => Self { expand: part(0), spatial: part(1), squeeze: squeeze(2), project: part(3) },
            BlockKind::Separable => Self { expand: part(0), spatial: part(0), squeeze: squeeze(1), project: part(2) },
            BlockKind::Fused | BlockKind::Plain => {
                Self { expand: part(0), spatial: part(0), squeeze: squeeze(0), project: part(1) }
            }
        }
    }
}
