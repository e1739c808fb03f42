//! The Swin transformer: attention in windows that shift from block to block.
//!
//! ```text
//! patches  conv 4×4, stride 4, LayerNorm
//! stages   from the second on: 2×2 neighbours side by side (4C), LayerNorm, linear to 2C; then blocks
//!   block    x + attention in windows(LayerNorm(x)); x + mlp(LayerNorm(x)), GELU
//! head     LayerNorm, mean over positions, linear
//! ```
//!
//! Every second block rolls the image by half a window first; positions that came together only by
//! rolling get −100 added to their scores. A stage that is no larger than the window has one window of
//! its own size and never shifts. The bias of a pair of positions comes from a learned table by their
//! difference.
//!
//! Sources: arXiv:2103.14030; timm `swin_transformer.py`.

use super::layers::{
    Activation, Conv, ConvSize, LayerNorm, Linear, Mlp, channels_last, join_heads, queries_keys_values, residual,
};
use super::layout::{Layout, Parameters, Slot};
use crate::error::ModelError;
use tch::{Device, Kind, Tensor};

/// ε of the layer normalisations.
const EPSILON: f64 = 1e-5;

/// Inner width of the two linear layers over the stage's.
const WIDENING: i64 = 4;

/// Side of a patch, pixels.
const PATCH: i64 = 4;

/// Added to the score of positions that are no neighbours.
const APART: f64 = -100.0;

/// One Swin transformer.
#[derive(Debug, Clone, Copy)]
pub struct SwinConfig {
    /// Side of the input, pixels: a multiple of 4·2^(stages − 1), and each stage of its window.
    pub side: i64,
    /// Side of a window, positions.
    pub window: i64,
    /// Width of the first stage; each further one doubles it.
    pub width: i64,
    /// Blocks of each stage.
    pub depths: &'static [i64],
    /// Attention heads of each stage.
    pub heads: &'static [i64],
}

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    relative_bias: Slot,
    qkv: Linear,
    project: Linear,
    mlp_norm: LayerNorm,
    mlp: Mlp,
    heads: i64,
    shift: i64,
}

#[derive(Debug)]
struct Stage {
    merge: Option<(LayerNorm, Linear)>,
    blocks: Vec<Block>,
    side: i64,
    window: i64,
}

/// A Swin transformer without its weights.
#[derive(Debug)]
pub(crate) struct Swin {
    patches: Conv,
    patch_norm: LayerNorm,
    stages: Vec<Stage>,
    norm: LayerNorm,
    head: Linear,
}

impl Swin {
    pub(crate) fn new(config: &SwinConfig, classes: i64, layout: &mut Layout) -> Self {
        let size = ConvSize { input: 3, output: config.width, kernel: PATCH, stride: PATCH, groups: 1 };
        let patches = Conv::unpadded(layout, "patch_embed.proj", size);
        let patch_norm = LayerNorm::new(layout, "patch_embed.norm", config.width, EPSILON);
        let (mut side, mut width) = (config.side / PATCH, config.width);
        let mut stages = Vec::new();
        for (s, (&depth, &heads)) in config.depths.iter().zip(config.heads).enumerate() {
            let name = format!("layers.{s}");
            let merge = (s > 0).then(|| {
                let norm = LayerNorm::new(layout, &format!("{name}.downsample.norm"), 4 * width, EPSILON);
                let linear = Linear::plain(layout, &format!("{name}.downsample.reduction"), 4 * width, 2 * width);
                (norm, linear)
            });
            if s > 0 {
                (side, width) = (side / 2, 2 * width);
            }
            let (window, step) = if side <= config.window { (side, 0) } else { (config.window, config.window / 2) };
            let blocks = (0..depth)
                .map(|b| {
                    let shift = if b % 2 == 0 { 0 } else { step };
                    Block::new(&format!("{name}.blocks.{b}"), width, heads, window, shift, layout)
                })
                .collect();
            stages.push(Stage { merge, blocks, side, window });
        }
        let norm = LayerNorm::new(layout, "norm", width, EPSILON);
        let head = Linear::new(layout, "head.fc", width, classes);
        Self { patches, patch_norm, stages, norm, head }
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let mut x = self.patch_norm.forward(p, &channels_last(&self.patches.forward(p, x)?)?)?;
        for stage in &self.stages {
            if let Some((norm, linear)) = &stage.merge {
                x = linear.forward(p, &norm.forward(p, &neighbours(&x)?)?)?;
            }
            let mask = match stage.blocks.iter().find(|block| block.shift > 0) {
                Some(block) => Some(apart(stage, block.shift, x.kind(), x.device())?),
                None => None,
            };
            for block in &stage.blocks {
                x = block.forward(p, x, stage.window, mask.as_ref())?;
            }
        }
        let features = self.norm.forward(p, &x)?.f_mean_dim([1_i64, 2].as_slice(), false, x.kind())?;
        self.head.forward(p, &features)
    }
}

/// `N×H×W×C` to `N×H/2×W/2×4C`: of each 2×2 square the left column, then the right one.
fn neighbours(x: &Tensor) -> Result<Tensor, ModelError> {
    let (batch, height, width, channels) = x.size4()?;
    let squares = x.f_reshape([batch, height / 2, 2, width / 2, 2, channels])?;
    Ok(squares.f_permute([0_i64, 1, 3, 4, 2, 5])?.f_flatten(3, -1)?)
}

/// `N×H×W×C` to `(N·windows)×window²×C`, window by window.
fn to_windows(x: &Tensor, window: i64) -> Result<Tensor, ModelError> {
    let (batch, height, width, channels) = x.size4()?;
    let parts = x.f_reshape([batch, height / window, window, width / window, window, channels])?;
    Ok(parts.f_permute([0_i64, 1, 3, 2, 4, 5])?.f_reshape([-1, window * window, channels])?)
}

/// The inverse of [`to_windows`] for an image of `height`×`width` positions.
fn from_windows(x: &Tensor, window: i64, height: i64, width: i64) -> Result<Tensor, ModelError> {
    let (_, _, channels) = x.size3()?;
    let parts = x.f_reshape([-1, height / window, width / window, window, window, channels])?;
    Ok(parts.f_permute([0_i64, 1, 3, 2, 4, 5])?.f_reshape([-1, height, width, channels])?)
}

/// For each window of a shifted image and each pair of its positions: 0 for neighbours, [`APART`] for
/// those that the roll brought together. `windows×1×window²×window²`.
fn apart(stage: &Stage, shift: i64, kind: Kind, device: Device) -> Result<Tensor, ModelError> {
    let (side, window) = (stage.side, stage.window);
    // The strip of a row or column: untouched windows, the last window's old part, what was rolled in.
    // By operations alone: a trace would forget data.
    let at = Tensor::f_arange(side, (Kind::Int64, device))?;
    let strip = at.f_ge(side - window)?.f_to_kind(Kind::Int64)?.f_add(&at.f_ge(side - shift)?)?;
    let regions = strip.f_mul_scalar(3)?.f_unsqueeze(1)?.f_add(&strip)?.f_reshape([1, side, side, 1])?;
    let regions = to_windows(&regions, window)?.f_squeeze_dim(2)?;
    let differ = regions.f_unsqueeze(1)?.f_ne_tensor(&regions.f_unsqueeze(2)?)?;
    Ok(differ.f_to_kind(kind)?.f_mul_scalar(APART)?.f_unsqueeze(1)?)
}

impl Block {
    fn new(name: &str, width: i64, heads: i64, window: i64, shift: i64, layout: &mut Layout) -> Self {
        Self {
            attention_norm: LayerNorm::new(layout, &format!("{name}.norm1"), width, EPSILON),
            relative_bias: layout.relative_positions(
                format!("{name}.attn.relative_position_bias_table"),
                heads,
                window,
            ),
            qkv: Linear::new(layout, &format!("{name}.attn.qkv"), width, 3 * width),
            project: Linear::new(layout, &format!("{name}.attn.proj"), width, width),
            mlp_norm: LayerNorm::new(layout, &format!("{name}.norm2"), width, EPSILON),
            mlp: Mlp::new(layout, &format!("{name}.mlp"), width, WIDENING * width, Activation::Gelu),
            heads,
            shift,
        }
    }

    fn forward(&self, p: &Parameters, x: Tensor, window: i64, mask: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let (_, height, width, _) = x.size4()?;
        let mut inner = self.attention_norm.forward(p, &x)?;
        if self.shift > 0 {
            inner = inner.f_roll([-self.shift, -self.shift], [1, 2])?;
        }
        let inner = self.attend(p, &to_windows(&inner, window)?, mask.filter(|_| self.shift > 0))?;
        let mut inner = from_windows(&inner, window, height, width)?;
        if self.shift > 0 {
            inner = inner.f_roll([self.shift, self.shift], [1, 2])?;
        }
        let x = residual(inner, &x)?;
        residual(self.mlp.forward(p, &self.mlp_norm.forward(p, &x)?)?, &x)
    }

    /// Attention within each of the windows `x` (`(N·windows)×T×C`).
    fn attend(&self, p: &Parameters, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let (all, tokens, width) = x.size3()?;
        let (q, k, v) = queries_keys_values(p, &self.qkv, x, self.heads)?;
        let scale = ((width / self.heads) as f64).sqrt().recip();
        let scores = q.f_mul_scalar(scale)?.f_matmul(&k.f_transpose(-2, -1)?)?;
        let mut scores = residual(scores, p.get(self.relative_bias))?;
        if let Some(mask) = mask {
            let (windows, _, _, _) = mask.size4()?;
            let by_image = scores.f_reshape([all / windows, windows, self.heads, tokens, tokens])?;
            scores = residual(by_image, mask)?.f_reshape([all, self.heads, tokens, tokens])?;
        }
        let mixed = scores.f_softmax(-1, None)?.f_matmul(&v)?;
        self.project.forward(p, &join_heads(&mixed)?)
    }
}
