//! The layers that the networks share.
//!
//! Convolutions ask for deterministic kernels and never for TF32 (see [`crate::net`]). Matrix products
//! have no such argument: libtorch takes full fp32 unless the environment says otherwise, and
//! [`crate::tensor`] refuses an environment that does. Where no gradient is wanted, activations overwrite
//! their input: the values are the same and the memory is touched once less.

use super::layout::{Layout, Parameters, Slot};
use crate::error::ModelError;
use tch::Tensor;

/// How a convolution or pooling is padded, by the library the weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// PyTorch's: `((stride − 1) + (kernel − 1))/2` zeros on every side.
    Symmetric,
    /// None at all.
    None,
    /// TensorFlow's SAME: as many zeros as make `⌈side/stride⌉` outputs, the odd one at the end.
    Same,
}

/// The activation of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    Silu,
    /// `x·Φ(x)` with the error function.
    Gelu,
    /// The same by the hyperbolic tangent.
    GeluTanh,
}

impl Activation {
    /// Applies it.
    pub(crate) fn apply(self, mut x: Tensor) -> Result<Tensor, ModelError> {
        let gelu = |approximate| -> Result<Tensor, ModelError> { Ok(x.f_gelu(approximate)?) };
        match self {
            Self::Silu if x.requires_grad() => Ok(x.f_silu()?),
            Self::Silu => Ok(x.f_silu_()?),
            Self::Gelu => gelu("none"),
            Self::GeluTanh => gelu("tanh"),
        }
    }
}

/// A two-dimensional convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    weight: Slot,
    bias: Option<Slot>,
    kernel: i64,
    stride: i64,
    groups: i64,
    padding: Padding,
}

/// Size of a convolution: channels in and out, kernel side, stride, groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvSize {
    pub(crate) input: i64,
    pub(crate) output: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) groups: i64,
}

impl ConvSize {
    fn shape(self) -> [i64; 4] {
        [self.output, self.input / self.groups, self.kernel, self.kernel]
    }
}

impl Conv {
    /// With a bias of its own.
    pub(crate) fn new(layout: &mut Layout, name: &str, size: ConvSize, padding: Padding) -> Self {
        let weight = layout.tensor(format!("{name}.weight"), &size.shape());
        let bias = layout.tensor(format!("{name}.bias"), &[size.output]);
        Self::with(size, padding, weight, bias)
    }

    /// Without padding, with a bias of its own: for patches.
    pub(crate) fn unpadded(layout: &mut Layout, name: &str, size: ConvSize) -> Self {
        Self::new(layout, name, size, Padding::None)
    }

    /// Followed by a batch normalisation.
    pub(crate) fn normalised(
        layout: &mut Layout,
        name: &str,
        norm: &str,
        size: ConvSize,
        padding: Padding,
        epsilon: f64,
    ) -> Self {
        let weight = layout.tensor(format!("{name}.weight"), &size.shape());
        let bias = layout.batch_norm(norm, weight, size.output, epsilon);
        Self::with(size, padding, weight, bias)
    }

    fn with(size: ConvSize, padding: Padding, weight: Slot, bias: Slot) -> Self {
        let ConvSize { kernel, stride, groups, .. } = size;
        Self { weight, bias: Some(bias), kernel, stride, groups, padding }
    }

    /// `N×C×H×W` to `N×C'×H'×W'`.
    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let (_, _, height, width) = x.size4()?;
        let [(top, bottom), (left, right)] = [height, width].map(|side| self.pad(side));
        if top == bottom && left == right {
            return self.convolve(p, x, [top, left]);
        }
        self.convolve(p, &x.f_constant_pad_nd([left, right, top, bottom])?, [0, 0])
    }

    /// Zeros before and after a side.
    fn pad(&self, side: i64) -> (i64, i64) {
        match self.padding {
            Padding::None => (0, 0),
            Padding::Symmetric => {
                let each = (self.stride - 1 + self.kernel - 1) / 2;
                (each, each)
            }
            Padding::Same => {
                let outputs = (side + self.stride - 1) / self.stride;
                let total = ((outputs - 1) * self.stride + self.kernel - side).max(0);
                (total / 2, total - total / 2)
            }
        }
    }

    fn convolve(&self, p: &Parameters, x: &Tensor, padding: [i64; 2]) -> Result<Tensor, ModelError> {
        let (benchmark, deterministic, cudnn, tf32) = (false, true, true, false);
        Ok(x.f_internal_convolution(
            p.get(self.weight),
            self.bias.map(|slot| p.get(slot)),
            [self.stride, self.stride],
            padding,
            [1, 1],
            false,
            [0, 0],
            self.groups,
            benchmark,
            deterministic,
            cudnn,
            tf32,
        )?)
    }
}

/// A linear layer over the last dimension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    weight: Slot,
    bias: Option<Slot>,
}

impl Linear {
    pub(crate) fn new(layout: &mut Layout, name: &str, input: i64, output: i64) -> Self {
        let weight = layout.tensor(format!("{name}.weight"), &[output, input]);
        let bias = layout.tensor(format!("{name}.bias"), &[output]);
        Self { weight, bias: Some(bias) }
    }

    /// Without a bias.
    pub(crate) fn plain(layout: &mut Layout, name: &str, input: i64, output: i64) -> Self {
        Self { weight: layout.tensor(format!("{name}.weight"), &[output, input]), bias: None }
    }

    /// Scales the outputs by `gamma`, one factor for each.
    pub(crate) fn scaled(&self, layout: &mut Layout, gamma: Slot) {
        layout.layer_scale(self.weight, self.bias, gamma);
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(x.f_linear(p.get(self.weight), self.bias.map(|slot| p.get(slot)))?)
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    weight: Slot,
    bias: Slot,
    channels: i64,
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn new(layout: &mut Layout, name: &str, channels: i64, epsilon: f64) -> Self {
        let weight = layout.tensor(format!("{name}.weight"), &[channels]);
        let bias = layout.tensor(format!("{name}.bias"), &[channels]);
        Self { weight, bias, channels, epsilon }
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let (weight, bias) = (Some(p.get(self.weight)), Some(p.get(self.bias)));
        Ok(x.f_layer_norm([self.channels], weight, bias, self.epsilon, false)?)
    }
}

/// Two linear layers with an activation between them (`name.fc1`, `name.fc2`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mlp {
    widen: Linear,
    pub(crate) narrow: Linear,
    activation: Activation,
}

impl Mlp {
    pub(crate) fn new(layout: &mut Layout, name: &str, width: i64, hidden: i64, activation: Activation) -> Self {
        let widen = Linear::new(layout, &format!("{name}.fc1"), width, hidden);
        let narrow = Linear::new(layout, &format!("{name}.fc2"), hidden, width);
        Self { widen, narrow, activation }
    }

    pub(crate) fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor, ModelError> {
        let hidden = self.activation.apply(self.widen.forward(p, x)?)?;
        self.narrow.forward(p, &hidden)
    }
}

/// `x + shortcut`, in the memory of `x` where no gradient is wanted.
pub(crate) fn residual(mut x: Tensor, shortcut: &Tensor) -> Result<Tensor, ModelError> {
    Ok(if x.requires_grad() { x.f_add(shortcut)? } else { x.f_add_(shortcut)? })
}

/// `N×C×H×W` to `N×H×W×C`.
pub(crate) fn channels_last(x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.f_permute([0_i64, 2, 3, 1])?)
}

/// `N×H×W×C` to `N×C×H×W`.
pub(crate) fn channels_first(x: &Tensor) -> Result<Tensor, ModelError> {
    Ok(x.f_permute([0_i64, 3, 1, 2])?)
}

/// Queries, keys and values (each `N×heads×T×d`) of `x` (`N×T×C`) by one linear layer.
pub(crate) fn queries_keys_values(
    p: &Parameters,
    qkv: &Linear,
    x: &Tensor,
    heads: i64,
) -> Result<(Tensor, Tensor, Tensor), ModelError> {
    let (batch, tokens, width) = x.size3()?;
    let all = qkv.forward(p, x)?.f_reshape([batch, tokens, 3, heads, width / heads])?;
    let all = all.f_permute([2_i64, 0, 3, 1, 4])?;
    Ok((all.f_select(0, 0)?, all.f_select(0, 1)?, all.f_select(0, 2)?))
}

/// `N×heads×T×d` to `N×T×C`.
pub(crate) fn join_heads(x: &Tensor) -> Result<Tensor, ModelError> {
    let (batch, heads, tokens, each) = x.size4()?;
    Ok(x.f_transpose(1, 2)?.f_reshape([batch, tokens, heads * each])?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_zero_at_the_end() {
        let mut layout = Layout::default();
        let mut pad = |kernel, stride, side| {
            let size = ConvSize { input: 1, output: 1, kernel, stride, groups: 1 };
            Conv::new(&mut layout, "c", size, Padding::Same).pad(side)
        };
        assert_eq!(pad(3, 2, 224), (0, 1));
        assert_eq!(pad(3, 2, 225), (1, 1));
        assert_eq!(pad(5, 2, 228), (1, 2));
        assert_eq!(pad(3, 1, 7), (1, 1));
        assert_eq!(pad(1, 1, 7), (0, 0));
        assert_eq!(pad(1, 2, 7), (0, 0));
    }

    #[test]
    fn activations_leave_an_input_that_needs_a_gradient_alone() {
        let x = Tensor::from_slice(&[1.0_f64, -2.0]).set_requires_grad(true);
        let y = Activation::Silu.apply(x.shallow_clone()).unwrap();
        assert_eq!(x.double_value(&[0]), 1.0);
        assert!((y.double_value(&[0]) - 0.731_058_578_630_004_9).abs() < 1e-12);
    }
}
