//! Files of named tensors in the safetensors format.
//!
//! In: tensors by name with text metadata. Out: a file whose bytes depend on its content alone.

use crate::files::write_atomically;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors by name, with the file's text metadata.
#[derive(Clone, Debug, Default)]
pub struct TensorFile {
    /// Tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The `__metadata__` of the format.
    pub metadata: BTreeMap<String, String>,
}

/// Reads a safetensors file.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] naming the file where it is truncated or not of the format.
pub fn read_tensors(path: &Path) -> Result<TensorFile> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    parse_tensors(path, &bytes)
}

/// Parses the content of a safetensors file; `path` serves messages.
pub(super) fn parse_tensors(path: &Path, bytes: &[u8]) -> Result<TensorFile> {
    let damaged = |reason: &dyn std::fmt::Display| {
        Error::format(path, format!("not a whole safetensors file ({} bytes): {reason}", bytes.len()))
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| damaged(&e))?;
    let metadata = header.metadata().clone().unwrap_or_default();
    Ok(TensorFile { tensors: tensors.into_iter().collect(), metadata: metadata.into_iter().collect() })
}

/// Writes tensors as safetensors; wider types first, then by name, so that equal content gives equal bytes.
///
/// # Errors
/// [`Error::Io`] naming the path, or a tensor whose type the file cannot hold (f16, f32, f64, i64, u32 and u8 can).
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size_in_bytes()));
    let mut entries = vec![format!("\"__metadata__\":{}", json(metadata)?)];
    let mut data = Vec::new();
    for (name, tensor) in order {
        let start = data.len();
        let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
        let kind = match tensor.dtype() {
            DType::F16 => {
                data.extend_from_slice(&safetensors::View::data(&flat));
                "F16"
            }
            DType::F32 => append(&mut data, &flat.to_vec1::<f32>()?, |v| v.to_le_bytes(), "F32"),
            DType::F64 => append(&mut data, &flat.to_vec1::<f64>()?, |v| v.to_le_bytes(), "F64"),
            DType::I64 => append(&mut data, &flat.to_vec1::<i64>()?, |v| v.to_le_bytes(), "I64"),
            DType::U32 => append(&mut data, &flat.to_vec1::<u32>()?, |v| v.to_le_bytes(), "U32"),
            DType::U8 => append(&mut data, &flat.to_vec1::<u8>()?, |v| v.to_le_bytes(), "U8"),
            other => return Err(Error::Tensor(format!("tensor {name} is {other:?}, which is not written"))),
        };
        let (name, dims, range) = (json(name)?, json(&tensor.dims())?, json(&[start, data.len()])?);
        entries.push(format!("{name}:{{\"dtype\":\"{kind}\",\"shape\":{dims},\"data_offsets\":{range}}}"));
    }
    let mut header = format!("{{{}}}", entries.join(","));
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let length = (header.len() as u64).to_le_bytes();
    write_atomically(path, &[&length[..], header.as_bytes(), &data].concat())
}

fn append<T: Copy, const N: usize>(
    data: &mut Vec<u8>,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
    kind: &'static str,
) -> &'static str {
    data.reserve(values.len() * N);
    for &value in values {
        data.extend_from_slice(&bytes(value));
    }
    kind
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Tensor(format!("header of a tensor file: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let tensors: BTreeMap<String, Tensor> = [
            ("a|\"quoted\"".to_string(), Tensor::new(&[[1f32, -2.5], [3.0, 4.0]], &Device::Cpu).unwrap()),
            ("b".to_string(), Tensor::new(&[1f64, 2.0, 3.0], &Device::Cpu).unwrap()),
            ("c".to_string(), Tensor::new(7u8, &Device::Cpu).unwrap()),
        ]
        .into();
        let metadata: BTreeMap<String, String> = [("k".to_string(), "a \"value\"".to_string())].into();
        write_tensors(&path, &tensors, &metadata).unwrap();
        let read = read_tensors(&path).unwrap();
        assert_eq!(read.metadata, metadata);
        assert_eq!(read.tensors.keys().collect::<Vec<_>>(), tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &tensors {
            assert_eq!(format!("{}", read.tensors[name]), format!("{tensor}"));
        }
        let bytes = std::fs::read(&path).unwrap();
        write_tensors(&path, &tensors, &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tensors.safetensors");
        let tensors = [("a".to_string(), Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap())].into();
        write_tensors(&path, &tensors, &BTreeMap::new()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            let message = parse_tensors(&path, &bytes[..length]).unwrap_err().to_string();
            assert!(message.contains("tensors.safetensors"), "{message}");
        }
    }
}
