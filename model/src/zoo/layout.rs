//! What a network's parameters are called, and what becomes of them once they are read.
//!
//! A network is built without weights: each layer asks a [`Layout`] for its tensors by name and shape
//! and keeps the [`Slot`]s. The layout is therefore the list that a weights file is held against, and
//! the network itself is plain data that threads share. [`Layout::finish`] then turns what was read
//! into [`Parameters`], applying what does not depend on the input once instead of at each pass:
//!
//! - batch normalisation goes into the convolution before it: `w·γ/√(σ²+ε)`, `β − μ·γ/√(σ²+ε)`;
//! - a layer scale goes into the linear layer before it: `γ·w`, `γ·b`;
//! - a table of relative positions becomes the bias of each pair of positions in a window.
//!
//! All of that is computed in `f64` and rounded once.

use crate::error::ModelError;
use tch::{Device, Kind, Tensor};

/// Index of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// What a tensor of a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    /// A trained 32-bit float.
    Trained,
    /// A statistic of batch normalisation, a 32-bit float; variances must be positive.
    Statistic,
    /// The number of batches seen in training, a 64-bit integer: not used, may be absent.
    Counter,
}

/// One tensor of a weights file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Name in the file.
    pub name: String,
    /// Shape, outermost dimension first; empty for a scalar.
    pub shape: Vec<i64>,
    /// What it is for.
    pub kind: ParameterKind,
}

impl ParameterSpec {
    /// How many values it holds.
    #[must_use]
    pub fn values(&self) -> u64 {
        self.shape.iter().map(|side| side.unsigned_abs()).product()
    }
}

/// What is computed from the read tensors before the first pass.
#[derive(Debug, Clone, Copy)]
enum Preparation {
    BatchNorm { weight: Slot, gamma: Slot, beta: Slot, mean: Slot, variance: Slot, epsilon: f64 },
    LayerScale { weight: Slot, bias: Option<Slot>, gamma: Slot },
    RelativePositions { table: Slot, window: i64 },
}

/// The parameters that a network asks for, in its own order (which is the library's).
#[derive(Debug, Default)]
pub(crate) struct Layout {
    specs: Vec<ParameterSpec>,
    preparations: Vec<Preparation>,
}

impl Layout {
    /// A parameter that is used as it is.
    pub(crate) fn tensor(&mut self, name: impl Into<String>, shape: &[i64]) -> Slot {
        self.push(name.into(), shape, ParameterKind::Trained)
    }

    fn push(&mut self, name: String, shape: &[i64], kind: ParameterKind) -> Slot {
        self.specs.push(ParameterSpec { name, shape: shape.to_vec(), kind });
        Slot(self.specs.len() - 1)
    }

    /// The batch normalisation `name` of the convolution whose weight is `weight`; gives the slot of
    /// the bias that the convolution has from then on.
    pub(crate) fn batch_norm(&mut self, name: &str, weight: Slot, channels: i64, epsilon: f64) -> Slot {
        let shape = [channels];
        let gamma = self.tensor(format!("{name}.weight"), &shape);
        let beta = self.tensor(format!("{name}.bias"), &shape);
        let mean = self.push(format!("{name}.running_mean"), &shape, ParameterKind::Statistic);
        let variance = self.push(format!("{name}.running_var"), &shape, ParameterKind::Statistic);
        self.push(format!("{name}.num_batches_tracked"), &[], ParameterKind::Counter);
        self.preparations.push(Preparation::BatchNorm { weight, gamma, beta, mean, variance, epsilon });
        beta
    }

    /// Scales the outputs of the linear layer (`weight`, `bias`) by `gamma`.
    pub(crate) fn layer_scale(&mut self, weight: Slot, bias: Option<Slot>, gamma: Slot) {
        self.preparations.push(Preparation::LayerScale { weight, bias, gamma });
    }

    /// The table of relative positions `name` for `heads` heads in windows of `window`×`window`. The
    /// slot holds `1×heads×window²×window²` after [`Self::finish`].
    pub(crate) fn relative_positions(&mut self, name: impl Into<String>, heads: i64, window: i64) -> Slot {
        let side = 2 * window - 1;
        let table = self.tensor(name, &[side * side, heads]);
        self.preparations.push(Preparation::RelativePositions { table, window });
        table
    }

    /// The tensors, in order.
    pub(crate) fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The parameters ready for use, from one tensor for each of [`Self::specs`] (`None` where a
    /// counter is absent), in the precision `kind` and on `device`.
    ///
    /// # Errors
    /// `Input` if a tensor is missing or overflows, `Torch` if libtorch refuses.
    pub(crate) fn finish(
        &self,
        tensors: Vec<Option<Tensor>>,
        kind: Kind,
        device: Device,
    ) -> Result<Parameters, ModelError> {
        if tensors.len() != self.specs.len() {
            return Err(ModelError::Input(format!("{} tensors, expected {}", tensors.len(), self.specs.len())));
        }
        let mut values = Vec::with_capacity(tensors.len());
        for (tensor, spec) in tensors.into_iter().zip(&self.specs) {
            values.push(match (tensor, spec.kind) {
                (_, ParameterKind::Counter) => Tensor::new(),
                (Some(tensor), _) => tensor,
                (None, _) => return Err(ModelError::Input(format!("tensor {} was not given", spec.name))),
            });
        }
        for preparation in &self.preparations {
            prepare(preparation, &mut values)?;
        }
        for (value, spec) in values.iter_mut().zip(&self.specs).filter(|(value, _)| value.defined()) {
            *value = value.f_to_device(device)?.f_to_kind(kind)?.f_contiguous()?;
            // Finite in the file, but perhaps not after what was worked into it, or in this precision.
            if value.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
                return Err(ModelError::Input(format!(
                    "tensor {} overflows once normalisation and scales are worked into it",
                    spec.name
                )));
            }
        }
        Ok(Parameters(values))
    }
}

/// Computes on the host in `f64`; what is no longer needed is released.
fn prepare(preparation: &Preparation, values: &mut [Tensor]) -> Result<(), ModelError> {
    let double = |values: &[Tensor], slot: Slot| values[slot.0].f_to_kind(Kind::Double);
    match *preparation {
        Preparation::BatchNorm { weight, gamma, beta, mean, variance, epsilon } => {
            let scale = double(values, gamma)?.f_div(&double(values, variance)?.f_add_scalar(epsilon)?.f_sqrt()?)?;
            let shift = double(values, beta)?.f_sub(&double(values, mean)?.f_mul(&scale)?)?;
            values[weight.0] = double(values, weight)?.f_mul(&scale.f_reshape([-1_i64, 1, 1, 1])?)?;
            values[beta.0] = shift;
            for slot in [gamma, mean, variance] {
                values[slot.0] = Tensor::new();
            }
        }
        Preparation::LayerScale { weight, bias, gamma } => {
            let scale = double(values, gamma)?;
            values[weight.0] = double(values, weight)?.f_mul(&scale.f_reshape([-1_i64, 1])?)?;
            if let Some(bias) = bias {
                values[bias.0] = double(values, bias)?.f_mul(&scale)?;
            }
            values[gamma.0] = Tensor::new();
        }
        Preparation::RelativePositions { table, window } => {
            let area = window * window;
            let index = Tensor::f_from_slice(&relative_position_index(window))?;
            let bias = values[table.0].f_index_select(0, &index)?.f_reshape([area, area, -1])?;
            values[table.0] = bias.f_permute([2_i64, 0, 1])?.f_unsqueeze(0)?.f_contiguous()?;
        }
    }
    Ok(())
}

/// For each pair of positions of a window (row by row), the row of the table that holds its bias: the
/// difference of the rows counts `2·window − 1`, the difference of the columns one.
fn relative_position_index(window: i64) -> Vec<i64> {
    let positions = || (0..window).flat_map(move |row| (0..window).map(move |column| (row, column)));
    positions()
        .flat_map(|(row, column)| {
            positions().map(move |(other_row, other_column)| {
                (row - other_row + window - 1) * (2 * window - 1) + column - other_column + window - 1
            })
        })
        .collect()
}

/// A network's parameters, ready for use. Immutable; clones share storage.
pub(crate) struct Parameters(Vec<Tensor>);

impl Parameters {
    /// The tensor of a slot of the same layout.
    pub(crate) fn get(&self, slot: Slot) -> &Tensor {
        &self.0[slot.0]
    }

    /// Another set of handles on the same storage.
    pub(crate) fn share(&self) -> Self {
        Self(
            self.0.iter().map(|tensor| if tensor.defined() { tensor.shallow_clone() } else { Tensor::new() }).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn relative_positions_name_the_rows_of_the_table() {
        // A window of 2×2: the pair of a position with itself is the table's middle.
        let index = relative_position_index(2);
        assert_eq!(index.len(), 16);
        assert!((0..4).all(|i| index[i * 4 + i] == 4));
        // From (0,0) to (1,1): row and column difference −1, the table's first row.
        assert_eq!(index[3], 0);
        assert_eq!(index[12], 8);
    }

    #[test]
    fn batch_normalisation_becomes_weight_and_bias() {
        let mut layout = Layout::default();
        let weight = layout.tensor("conv.weight", &[2, 1, 1, 1]);
        let bias = layout.batch_norm("bn", weight, 2, 0.5);
        assert_eq!(layout.specs().len(), 6);
        let t = |values: &[f32]| Some(Tensor::from_slice(values));
        let conv = Some(Tensor::from_slice(&[2.0_f32, -3.0]).reshape([2, 1, 1, 1]));
        let tensors = vec![conv, t(&[4.0, 1.0]), t(&[0.5, 0.0]), t(&[1.0, 2.0]), t(&[3.5, 0.5]), None];
        let parameters = layout.finish(tensors, Kind::Double, Device::Cpu).unwrap();
        let values = |slot| Vec::<f64>::try_from(parameters.get(slot).flatten(0, -1)).unwrap();
        assert_eq!(values(weight), [4.0, -3.0]);
        assert_eq!(values(bias), [-1.5, -2.0]);
    }

    #[test]
    fn weights_that_overflow_only_once_they_are_folded_are_an_error() {
        let mut layout = Layout::default();
        let weight = layout.tensor("conv.weight", &[1, 1, 1, 1]);
        layout.batch_norm("bn", weight, 1, 0.0);
        let t = |value: f32| Some(Tensor::from_slice(&[value]));
        let tensors = |gamma| {
            let conv = Some(Tensor::from_slice(&[1e30_f32]).reshape([1, 1, 1, 1]));
            vec![conv, t(gamma), t(0.0), t(0.0), t(1.0), None]
        };
        assert!(layout.finish(tensors(1e8), Kind::Float, Device::Cpu).is_ok());
        let error = layout.finish(tensors(1e9), Kind::Float, Device::Cpu).err().unwrap().to_string();
        assert!(error.contains("conv.weight overflows"), "{error}");
        assert!(layout.finish(tensors(1e9), Kind::Double, Device::Cpu).is_ok());
    }

    #[test]
    fn a_missing_tensor_is_an_error() {
        let mut layout = Layout::default();
        layout.tensor("a", &[1]);
        assert!(layout.finish(vec![None], Kind::Float, Device::Cpu).is_err());
        assert!(layout.finish(vec![], Kind::Float, Device::Cpu).is_err());
    }
}
