//! ConvNeXt.
//!
//! ```text
//! stem    conv 4×4, stride 4, LayerNorm over channels
//! stages  from the second on: LayerNorm, conv 2×2, stride 2; then blocks
//!   block   depthwise 7×7, LayerNorm, linear ×4, GELU, linear, layer scale γ, plus its input
//! head    mean over positions, LayerNorm, linear
//! ```
//!
//! The layer scale is part of the second linear layer here (see [`super::layout`]).
//!
//! Sources: arXiv:2201.03545; timm `convnext.py`.

use super::layers::{
    Activation, Conv, ConvSize, LayerNorm, Linear, Mlp, Padding, channels_first, channels_last, residual,
};
use super::layout::{Layout, Parameters};
use crate::error::ModelError;
use tch::Tensor;

/// Inner width of a block's two linear layers over its width.
const WIDENING: i64 = 4;

/// One ConvNeXt.
#[derive(Debug, Clone, Copy)]
pub struct ConvNextConfig {
    /// Blocks of each stage.
    pub depths: [i64; 4],
    /// Channels of each stage.
    pub widths: [i64; 4],
    /// Side of the depthwise kernels.
    pub kernel: i64,
    /// ε of the layer normalisations.
    pub epsilon: f64,
    /// Activation of the blocks.
    pub activation: Activation,
}

#[derive(Debug)]
struct Block {
    spatial: Conv,
    norm: LayerNorm,
    mlp: Mlp,
}

#[derive(Debug)]
struct Stage {
    downsample: Option<(LayerNorm, Conv)>,
    blocks: Vec<Block>,
}

/// A ConvNeXt without its weights.
#[derive(Debug)]
pub(crate) struct ConvNext {
    stem: Conv,
    stem_norm: LayerNorm,
    stages: Vec<Stage>,
    head_norm: LayerNorm,
    head: Linear,
}

/// A convolution that tiles its input without overlap.
fn patches(layout: &mut Layout, name: &str, input: i64, output: i64, side: i64) -> Conv {
    let size = ConvSize { input, output, kernel: side, stride: side, groups: 1 };
    Conv::unpadded(layout, name, size)
}

impl ConvNext {
    pub(crate) fn new(config: &ConvNextConfig, classes: i64, layout: &mut Layout) -> Self {
        let epsilon = config.epsilon;
        let stem = patches(layout, "stem.0", 3, config.widths[0], 4);
        let stem_norm = LayerNorm::new(layout, "stem.1", config.widths[0], epsilon);
        let mut channels = config.widths[0];
        let mut stages = Vec::new();
        for (s, (&depth, &width)) in config.depths.iter().zip(&config.widths).enumerate() {
            let name = format!("stages.{s}");
            let downsample = (s > 0).then(|| {
                let norm = LayerNorm::new(layout, &format!("{name}.downsample.0"), channels, epsilon);
                (norm, patches(layout, &format!("{name}.downsample.1"), channels, width, 2))
            });
            let blocks = (0..depth).map(|b| Block::new(config, &format!("{name}.blocks.{b}"), width, layout)).collect();
            stages.push(Stage { downsample, blocks });
            channels = width;
        }
        let head_norm = LayerNorm::new(layout, "head.norm", channels, epsilon);
        let head = Linear::new(layout, "head.fc", channels, classes);
        Self { stem, stem_norm, stages, head_norm, head }
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let mut x = normalise(p, &self.stem_norm, &self.stem.forward(p, x)?)?;
        for stage in &self.stages {
            if let Some((norm, conv)) = &stage.downsample {
                x = conv.forward(p, &normalise(p, norm, &x)?)?;
            }
            for block in &stage.blocks {
                x = block.forward(p, &x)?;
            }
        }
        let features = self.head_norm.forward(p, &crate::net::pool(&x)?)?;
        self.head.forward(p, &features)
    }
}

/// Layer normalisation over the channels of `N×C×H×W`.
fn normalise(p: &Parameters, norm: &LayerNorm, x: &Tensor) -> Result<Tensor, ModelError> {
    channels_first(&norm.forward(p, &channels_last(x)?)?)
}

impl Block {
    fn new(config: &ConvNextConfig, name: &str, width: i64, layout: &mut Layout) -> Self {
        let gamma = layout.tensor(format!("{name}.gamma"), &[width]);
        let size = ConvSize { input: width, output: width, kernel: config.kernel, stride: 1, groups: width };
        let spatial = Conv::new(layout, &format!("{name}.conv_dw"), size, Padding::Symmetric);
        let norm = LayerNorm::new(layout, &format!("{name}.norm"), width, config.epsilon);
        let mlp = Mlp::new(layout, &format!("{name}.mlp"), width, WIDENING * width, config.activation);
        mlp.narrow.scaled(layout, gamma);
        Self { spatial, norm, mlp }
    }

    fn forward(&self, p: &Parameters, input: &Tensor) -> Result<Tensor, ModelError> {
        let x = channels_last(&self.spatial.forward(p, input)?)?;
        let x = self.mlp.forward(p, &self.norm.forward(p, &x)?)?;
        residual(channels_first(&x)?, input)
    }
}
