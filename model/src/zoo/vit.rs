//! The vision transformer.
//!
//! ```text
//! patches  conv s×s, stride s; one token per patch
//! tokens   a class token before them, plus learned positions
//! blocks   x + attention(LayerNorm(x)); x + mlp(LayerNorm(x)), GELU
//! head     LayerNorm, the class token, linear
//! ```
//!
//! Sources: arXiv:2010.11929; timm `vision_transformer.py`.

use super::layers::{Activation, Conv, ConvSize, LayerNorm, Linear, Mlp, join_heads, queries_keys_values, residual};
use super::layout::{Layout, Parameters, Slot};
use crate::error::ModelError;
use tch::Tensor;

/// ε of the layer normalisations.
const EPSILON: f64 = 1e-6;

/// One vision transformer.
#[derive(Debug, Clone, Copy)]
pub struct VitConfig {
    /// Side of the input, pixels.
    pub side: i64,
    /// Side of a patch, pixels.
    pub patch: i64,
    /// Width of a token.
    pub width: i64,
    /// Blocks.
    pub depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Inner width of the two linear layers over the token's.
    pub widening: i64,
}

#[derive(Debug)]
struct Block {
    attention_norm: LayerNorm,
    qkv: Linear,
    project: Linear,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

/// A vision transformer without its weights.
#[derive(Debug)]
pub(crate) struct Vit {
    class_token: Slot,
    positions: Slot,
    patches: Conv,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    config: VitConfig,
}

impl Vit {
    pub(crate) fn new(config: &VitConfig, classes: i64, layout: &mut Layout) -> Self {
        let VitConfig { side, patch, width, depth, .. } = *config;
        let tokens = (side / patch) * (side / patch) + 1;
        let class_token = layout.tensor("cls_token", &[1, 1, width]);
        let positions = layout.tensor("pos_embed", &[1, tokens, width]);
        let size = ConvSize { input: 3, output: width, kernel: patch, stride: patch, groups: 1 };
        let patches = Conv::unpadded(layout, "patch_embed.proj", size);
        let blocks = (0..depth).map(|b| Block::new(config, &format!("blocks.{b}"), layout)).collect();
        let norm = LayerNorm::new(layout, "norm", width, EPSILON);
        let head = Linear::new(layout, "head", width, classes);
        Self { class_token, positions, patches, blocks, norm, head, config: *config }
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let patches = self.patches.forward(p, x)?.f_flatten(2, 3)?.f_transpose(1, 2)?;
        let (batch, _, width) = patches.size3()?;
        let class_token = p.get(self.class_token).f_expand([batch, 1, width], false)?;
        let mut x = Tensor::f_cat(&[class_token, patches], 1)?.f_add(p.get(self.positions))?;
        for block in &self.blocks {
            x = block.forward(p, x, self.config.heads)?;
        }
        // The other tokens do not reach the logits: normalising the class token alone is the same.
        let class_token = x.f_select(1, 0)?;
        self.head.forward(p, &self.norm.forward(p, &class_token)?)
    }
}

impl Block {
    fn new(config: &VitConfig, name: &str, layout: &mut Layout) -> Self {
        let width = config.width;
        Self {
            attention_norm: LayerNorm::new(layout, &format!("{name}.norm1"), width, EPSILON),
            qkv: Linear::new(layout, &format!("{name}.attn.qkv"), width, 3 * width),
            project: Linear::new(layout, &format!("{name}.attn.proj"), width, width),
            mlp_norm: LayerNorm::new(layout, &format!("{name}.norm2"), width, EPSILON),
            mlp: Mlp::new(layout, &format!("{name}.mlp"), width, config.widening * width, Activation::Gelu),
        }
    }

    fn forward(&self, p: &Parameters, x: Tensor, heads: i64) -> Result<Tensor, ModelError> {
        let (q, k, v) = queries_keys_values(p, &self.qkv, &self.attention_norm.forward(p, &x)?, heads)?;
        let mixed = self.project.forward(p, &join_heads(&attention(&q, &k, &v)?)?)?;
        let x = residual(mixed, &x)?;
        residual(self.mlp.forward(p, &self.mlp_norm.forward(p, &x)?)?, &x)
    }
}

/// `softmax(q·kᵀ/√d)·v`.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
    if q.device().is_cuda() {
        // The fused CUDA kernels accumulate gradients in no fixed order.
        let (_, _, _, each) = q.size4()?;
        let scores = q.f_mul_scalar((each as f64).sqrt().recip())?.f_matmul(&k.f_transpose(-2, -1)?)?;
        return Ok(scores.f_softmax(-1, None)?.f_matmul(v)?);
    }
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)?)
}
