//! Reading the weights of large models, strictly and once.
//!
//! A model has one safetensors file or several (shards), which come from outside. As with
//! [`crate::weights`], only what can be accounted for is accepted: a bounded header, byte ranges that
//! tile the data, exactly the tensors of the layout with their shapes and types, finite values, positive
//! variances, each tensor in one file. The data is read from front to back, hashed on the way, and never
//! held as a whole beside the tensors: what is hashed is what is used.

use super::layout::{ParameterKind, ParameterSpec};
use crate::error::{ModelError, WeightsError};
use crate::weights::{Entry, check_ranges, malformed, parse_header, printable};
use perturb_challenge::file;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Largest accepted header: 1548 tensors with long names take 200 KiB.
const MAX_HEADER_BYTES: u64 = 4 << 20;

/// Most shards of a model.
const MAX_FILES: usize = 64;

/// Most bytes of a tensor that is passed over: a Swin's largest mask takes 2 MB.
const MAX_SUPERFLUOUS_BYTES: u64 = 16 << 20;

/// Bytes that a file may have for its header and for tensors that are passed over.
const SPARE_BYTES: u64 = 16 << 20;

/// Bytes read at once where they are not kept.
const CHUNK_BYTES: usize = 1 << 16;

/// What [`read`] found.
#[derive(Debug)]
pub(crate) struct Contents {
    /// One tensor for each parameter, in order; `None` where a counter is absent.
    pub(crate) tensors: Vec<Option<Tensor>>,
    /// The SHA-256 of the file; of several, that of their digests in order.
    pub(crate) digest: [u8; 32],
}

/// Why a file could not be used.
enum Fault {
    Io(std::io::Error),
    Weights(WeightsError),
    Torch(tch::TchError),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Weights(malformed("cut off")),
            _ => Self::Io(error),
        }
    }
}

impl From<WeightsError> for Fault {
    fn from(error: WeightsError) -> Self {
        Self::Weights(error)
    }
}

impl From<tch::TchError> for Fault {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error)
    }
}

/// Most bytes of one file of a model with these tensors: twice what they take as 32-bit floats (a
/// counter has eight bytes), and something for the rest.
pub(crate) fn size_limit(specs: &[ParameterSpec]) -> u64 {
    let values = specs.iter().fold(0_u64, |sum, spec| sum.saturating_add(spec.values()));
    values.saturating_mul(8).saturating_add(SPARE_BYTES)
}

/// Reads exactly the parameters `specs` of the model `model` from `files`. Tensors whose name contains
/// one of `superfluous` are passed over.
///
/// # Errors
/// `Read` if a file cannot be read, `ZooWeights` with the first thing that does not fit.
pub(crate) fn read(
    model: &str,
    files: &[PathBuf],
    specs: &[ParameterSpec],
    superfluous: &[&str],
) -> Result<Contents, ModelError> {
    let refuse = |origin: &Path, problem| ModelError::ZooWeights {
        origin: origin.display().to_string(),
        model: model.to_owned(),
        problem,
    };
    let first = files.first().ok_or_else(|| ModelError::Input("no weights file".to_owned()))?;
    if files.len() > MAX_FILES {
        return Err(ModelError::Input(format!("{} weights files, at most {MAX_FILES} are accepted", files.len())));
    }
    let mut reader = Reader {
        specs,
        index: specs.iter().enumerate().map(|(at, spec)| (spec.name.as_str(), at)).collect(),
        superfluous,
        tensors: specs.iter().map(|_| None).collect(),
    };
    let mut digests = Vec::with_capacity(files.len());
    for path in files {
        let digest = reader.file(path).map_err(|fault| match fault {
            Fault::Io(source) => ModelError::Read { path: path.clone(), source },
            Fault::Weights(problem) => refuse(path, problem),
            Fault::Torch(error) => error.into(),
        })?;
        digests.push(digest);
    }
    let absent =
        |(spec, tensor): &(&ParameterSpec, &Option<Tensor>)| tensor.is_none() && spec.kind != ParameterKind::Counter;
    if let Some((spec, _)) = specs.iter().zip(&reader.tensors).find(absent) {
        let expected = spec.shape.iter().map(|side| side.unsigned_abs()).collect();
        return Err(refuse(first, WeightsError::Missing { name: spec.name.clone(), expected }));
    }
    let digest = match digests.as_slice() {
        [only] => *only,
        several => Sha256::digest(several.concat()).into(),
    };
    Ok(Contents { tensors: reader.tensors, digest })
}

/// Tensors found so far.
struct Reader<'a> {
    specs: &'a [ParameterSpec],
    index: HashMap<&'a str, usize>,
    superfluous: &'a [&'a str],
    tensors: Vec<Option<Tensor>>,
}

impl Reader<'_> {
    /// Reads one file to its end and gives its SHA-256.
    fn file(&mut self, path: &Path) -> Result<[u8; 32], Fault> {
        let (file, length) = file::open_regular(path, size_limit(self.specs))?;
        let mut input = Hashed { inner: BufReader::with_capacity(1 << 20, file), hash: Sha256::new() };
        let mut prefix = [0; 8];
        input.read_exact(&mut prefix)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > MAX_HEADER_BYTES {
            let what = format!("the header claims {header_bytes} bytes, at most {MAX_HEADER_BYTES} are accepted");
            return Err(malformed(what).into());
        }
        let mut header = vec![0; header_bytes as usize];
        input.read_exact(&mut header)?;
        let entries = parse_header(&header)?;
        check_ranges(&entries, length.saturating_sub(8 + header_bytes))?;
        let mut entries: Vec<(String, Entry)> = entries.into_iter().collect();
        entries.sort_by_key(|(_, entry)| entry.data_offsets);
        for (name, entry) in &entries {
            self.tensor(&mut input, name, entry)?;
        }
        Ok(input.hash.finalize().into())
    }

    /// Reads the bytes of one entry, which are next.
    fn tensor(&mut self, input: &mut Hashed, name: &str, entry: &Entry) -> Result<(), Fault> {
        let bytes = entry.data_offsets.1 - entry.data_offsets.0;
        let Some(&at) = self.index.get(name) else {
            if self.superfluous.iter().any(|part| name.contains(part)) {
                if bytes > MAX_SUPERFLUOUS_BYTES {
                    return Err(malformed(format!("tensor {} has {bytes} bytes", printable(name))).into());
                }
                return input.skip(bytes);
            }
            return Err(WeightsError::Unknown { name: printable(name), found: short(&entry.shape) }.into());
        };
        let spec = &self.specs[at];
        let name = || spec.name.clone();
        let (dtype, width) = if spec.kind == ParameterKind::Counter { ("I64", 8) } else { ("F32", 4) };
        if entry.dtype != dtype {
            return Err(WeightsError::Type { name: name(), found: printable(&entry.dtype) }.into());
        }
        let expected: Vec<u64> = spec.shape.iter().map(|side| side.unsigned_abs()).collect();
        if entry.shape != expected {
            return Err(WeightsError::Shape { name: name(), expected, found: short(&entry.shape) }.into());
        }
        if bytes != spec.values() * width {
            return Err(malformed(format!("tensor {} has {bytes} bytes", spec.name)).into());
        }
        if self.tensors[at].is_some() {
            return Err(malformed(format!("tensor {} is there twice", spec.name)).into());
        }
        let mut raw = vec![0; bytes as usize];
        input.read_exact(&mut raw)?;
        let kind = if spec.kind == ParameterKind::Counter { Kind::Int64 } else { Kind::Float };
        let tensor = Tensor::f_from_data_size(&raw, &spec.shape, kind)?;
        let all = |condition: Tensor| -> Result<bool, Fault> { Ok(condition.f_all()?.f_int64_value(&[])? != 0) };
        if kind == Kind::Float && !all(tensor.f_isfinite()?)? {
            return Err(WeightsError::NotFinite { name: name() }.into());
        }
        let variance = spec.kind == ParameterKind::Statistic && spec.name.ends_with("running_var");
        if variance && !all(tensor.f_gt(0.0)?)? {
            return Err(WeightsError::NotPositive { name: name() }.into());
        }
        self.tensors[at] = Some(tensor.f_to_device(Device::Cpu)?);
        Ok(())
    }
}

/// A foreign shape, shortened for an error message.
fn short(shape: &[u64]) -> Vec<u64> {
    shape.iter().copied().take(8).collect()
}

/// A file whose bytes are hashed as they are read.
struct Hashed {
    inner: BufReader<File>,
    hash: Sha256,
}

impl Hashed {
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), Fault> {
        self.inner.read_exact(buffer)?;
        self.hash.update(&*buffer);
        Ok(())
    }

    /// Reads `bytes` without keeping them.
    fn skip(&mut self, mut bytes: u64) -> Result<(), Fault> {
        let mut chunk = vec![0; CHUNK_BYTES];
        while bytes > 0 {
            let part = bytes.min(CHUNK_BYTES as u64);
            self.read_exact(&mut chunk[..part as usize])?;
            bytes -= part;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
