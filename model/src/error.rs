//! What can go wrong with a model, in words an operator can act on.

use std::path::PathBuf;

/// A model file, input or device that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file could not be read.
    #[error("model file {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("model file {}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read but does not hold the weights of the architecture.
    #[error(
        "model file {origin} does not fit the {architecture}: {problem}; give a file written by \
         `perturb model train-demo`, or none to use the embedded weights"
    )]
    Weights {
        /// Path of the file, or `(embedded)`.
        origin: String,
        /// Name of the architecture that was to be loaded.
        architecture: &'static str,
        /// The first thing that does not fit.
        problem: WeightsError,
    },
    /// The files were read but do not hold the weights of a model of the table.
    #[error(
        "{origin} does not hold the weights of {model}: {problem}; `perturb model list` names the models and \
         `perturb model pull {model}` gets their weights"
    )]
    ZooWeights {
        /// The file.
        origin: String,
        /// The model that was to be loaded.
        model: String,
        /// The first thing that does not fit.
        problem: WeightsError,
    },
    /// A name that is not in the table.
    #[error("no model is called {name}; `perturb model list` names them")]
    UnknownModel {
        /// The name given.
        name: String,
    },
    /// A file's SHA-256 is not the expected one.
    #[error(
        "{origin} has SHA-256 {found}, but {expected} is expected: it is another file, or a damaged one; \
         not used. `perturb model pull` mends what lies in the hub's cache"
    )]
    Digest {
        /// The file.
        origin: String,
        /// The digest of its bytes, hexadecimal.
        found: String,
        /// The digest it should have.
        expected: String,
    },
    /// A TorchScript file that cannot be used.
    #[error("TorchScript file {origin}: {problem}")]
    TorchScript {
        /// The file.
        origin: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An image or tensor that the model cannot take.
    #[error("model input: {0}")]
    Input(String),
    /// Logits that are not one row for each image.
    #[error("model output: {0}")]
    Output(String),
    /// The asked-for device does not exist here.
    #[error(
        "CUDA device {asked} was asked for, but libtorch sees {available}; use the CPU or install the CUDA libtorch"
    )]
    NoDevice {
        /// Index that was asked for.
        asked: usize,
        /// Number of CUDA devices libtorch can use.
        available: usize,
    },
    /// The environment makes products of fp32 numbers less exact than fp32.
    #[error(
        "{variable}={value} makes products less exact than fp32, and verdicts with them; unset it, or set it to {harmless}"
    )]
    Precision {
        /// The environment's variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// A value that changes nothing.
        harmless: &'static str,
    },
    /// Weights that could not be got.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// libtorch refused an operation.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// An option outside its bounds.
    #[error("option {name} = {value} is not allowed; give {allowed}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// The value given.
        value: String,
        /// The values allowed.
        allowed: &'static str,
    },
}

/// Why bytes are not the weights of an architecture: the first mismatch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// More bytes than any file of this architecture has.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// Largest accepted size, in bytes.
        limit: u64,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("it is no complete safetensors file ({0})")]
    Malformed(String),
    /// A tensor is absent.
    #[error("tensor {name} is missing, expected with shape {expected:?}")]
    Missing {
        /// Name of the tensor.
        name: String,
        /// Shape it should have.
        expected: Vec<u64>,
    },
    /// A tensor the architecture does not have.
    #[error("tensor {name} with shape {found:?} is unknown")]
    Unknown {
        /// Name of the tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<u64>,
    },
    /// A tensor of another shape.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Shape it should have.
        expected: Vec<u64>,
        /// Its shape in the file.
        found: Vec<u64>,
    },
    /// A tensor that is not stored in 32-bit floats.
    #[error("tensor {name} has type {found}, expected F32")]
    Type {
        /// Name of the tensor.
        name: String,
        /// Its type in the file.
        found: String,
    },
    /// A variance that is not positive.
    #[error("tensor {name} holds a variance that is not positive")]
    NotPositive {
        /// Name of the tensor.
        name: String,
    },
    /// A weight that is infinite or not a number.
    #[error("tensor {name} holds a value that is not finite")]
    NotFinite {
        /// Name of the tensor.
        name: String,
    },
}

/// libtorch appends a C++ backtrace to its messages; the first line says what is wrong.
fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
