//! PyTorch checkpoints as zip archives (`torch.save` since 1.6): nested Python objects with tensors.
//!
//! In: a `.pt` file. Out: its object tree, and any tensor of it on the CPU in f32 or f64, wherever it was saved.
//! Nothing is executed: the pickle is read as data.

use crate::{Error, Result};
use candle_core::pickle::{Object, Stack};
use candle_core::{Device, Tensor};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// An opened checkpoint.
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<Cursor<Vec<u8>>>,
    /// Folder of the archive: everything before `data.pkl`, with its slash.
    prefix: String,
}

impl Archive {
    /// Opens the content of a `.pt` file; `path` serves messages.
    ///
    /// # Errors
    /// [`Error::Format`] for anything but an intact zip archive with a `data.pkl`.
    pub fn open(path: &Path, bytes: Vec<u8>) -> Result<Archive> {
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| Error::format(path, format!("PyTorch checkpoint is truncated or damaged: {e}")))?;
        let mut prefix = None;
        for name in zip.file_names() {
            let name = name.map_err(|e| Error::format(path, format!("damaged archive: {e}")))?;
            if let Some(folder) = name.strip_suffix("data.pkl")
                && (folder.is_empty() || folder.ends_with('/'))
            {
                prefix = Some(folder.to_string());
            }
        }
        let prefix = prefix
            .ok_or_else(|| Error::format(path, "a zip archive without data.pkl is no PyTorch checkpoint"))?;
        let mut archive = Archive { path: path.to_path_buf(), zip, prefix };
        if archive.zip.index_for_name(&format!("{}byteorder", archive.prefix)).is_some() {
            let order = archive.record("byteorder")?;
            if order != b"little" {
                return Err(archive.error("written on a big-endian machine, which is not supported"));
            }
        }
        Ok(archive)
    }

    /// The error that names the file.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::format(&self.path, reason)
    }

    /// A record of the archive, whole and with the right checksum.
    fn record(&mut self, name: &str) -> Result<Vec<u8>> {
        let full = format!("{}{name}", self.prefix);
        let path = self.path.clone();
        let damaged = |e: &dyn std::fmt::Display| Error::format(&path, format!("record {full}: {e}"));
        let mut record = self.zip.by_name(&full).map_err(|e| damaged(&e))?;
        let mut bytes = Vec::new();
        record.read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
        Ok(bytes)
    }

    /// The root of the object tree.
    ///
    /// # Errors
    /// A damaged pickle, or one that uses what `torch.save` does not.
    pub fn root(&mut self) -> Result<Object> {
        let bytes = self.record("data.pkl")?;
        let mut stack = Stack::empty();
        stack
            .read_loop(&mut bytes.as_slice())
            .and_then(|()| stack.finalize())
            .map_err(|e| self.error(format!("cannot read data.pkl: {e}")))
    }

    /// A tensor of the tree, or `None` where `object` is none. Its device is ignored; halves become f32, integers f64.
    ///
    /// # Errors
    /// A missing or short record, an unknown type, or a layout outside its storage; `name` serves the message.
    pub fn tensor(&mut self, name: &str, object: &Object) -> Result<Option<Tensor>> {
        let Some(view) = View::of(object) else { return Ok(None) };
        let bytes = self.record(&format!("data/{}", view.key))?;
        let fail = |archive: &Archive, reason: String| archive.error(format!("tensor {name}: {reason}"));
        let width = match view.storage {
            "FloatStorage" | "IntStorage" => 4,
            "DoubleStorage" | "LongStorage" => 8,
            "HalfStorage" | "BFloat16Storage" => 2,
            other => return Err(fail(self, format!("storage type {other} is not supported"))),
        };
        let shape = view.shape.clone();
        let index = view.indices().filter(|index| index.iter().all(|&i| i < bytes.len() / width));
        let Some(index) = index else {
            return Err(fail(
                self,
                format!("shape {shape:?} does not fit its storage of {} values", bytes.len() / width),
            ));
        };
        let at = |i: usize| &bytes[i * width..(i + 1) * width];
        let four = |i: usize| <[u8; 4]>::try_from(at(i)).expect("four bytes wide");
        let eight = |i: usize| <[u8; 8]>::try_from(at(i)).expect("eight bytes wide");
        let two = |i: usize| u16::from_le_bytes([at(i)[0], at(i)[1]]);
        let device = &Device::Cpu;
        let single = |value: &dyn Fn(usize) -> f32| {
            Tensor::from_vec(index.iter().map(|&i| value(i)).collect::<Vec<f32>>(), shape.clone(), device)
        };
        let double = |value: &dyn Fn(usize) -> f64| {
            Tensor::from_vec(index.iter().map(|&i| value(i)).collect::<Vec<f64>>(), shape.clone(), device)
        };
        let tensor = match view.storage {
            "FloatStorage" => single(&|i| f32::from_le_bytes(four(i))),
            "IntStorage" => double(&|i| f64::from(i32::from_le_bytes(four(i)))),
            "DoubleStorage" => double(&|i| f64::from_le_bytes(eight(i))),
            "LongStorage" => double(&|i| i64::from_le_bytes(eight(i)) as f64),
            "BFloat16Storage" => single(&|i| f32::from_bits(u32::from(two(i)) << 16)),
            _ => single(&|i| half(two(i))),
        };
        Ok(Some(tensor?))
    }
}

/// IEEE half precision to single.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    sign * match exponent {
        0 => fraction * (2f32).powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * (2f32).powi(exponent - 15),
    }
}

/// A tensor as pickled: a strided view into a storage.
struct View<'a> {
    storage: &'a str,
    key: &'a str,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> View<'a> {
    fn of(object: &'a Object) -> Option<View<'a>> {
        let Object::Reduce { callable, args } = object else { return None };
        let (Object::Class { module_name, class_name }, Object::Tuple(args)) = (&**callable, &**args) else {
            return None;
        };
        match (module_name.as_str(), class_name.as_str()) {
            ("torch._utils", "_rebuild_tensor_v2") => {}
            ("torch._utils", "_rebuild_parameter") => return View::of(args.first()?),
            _ => return None,
        }
        let [Object::PersistentLoad(storage), offset, shape, strides, ..] = &args[..] else { return None };
        let Object::Tuple(storage) = &**storage else { return None };
        let [_, Object::Class { class_name, .. }, Object::Unicode(key), ..] = &storage[..] else {
            return None;
        };
        Some(View {
            storage: class_name,
            key,
            offset: size(offset)?,
            shape: sizes(shape)?,
            strides: sizes(strides)?,
        })
    }

    /// Positions in the storage, row-major; `None` where they are absurd.
    fn indices(&self) -> Option<Vec<usize>> {
        const LARGEST: usize = 1 << 31;
        if self.shape.len() != self.strides.len() {
            return None;
        }
        let count = self.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        if count > LARGEST || self.offset > LARGEST || self.strides.iter().any(|&stride| stride > LARGEST) {
            return None;
        }
        if count == 0 {
            return Some(Vec::new());
        }
        let mut indices = vec![self.offset];
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            indices = indices.iter().flat_map(|&base| (0..size).map(move |i| base + i * stride)).collect();
        }
        Some(indices)
    }
}

/// A non-negative integer.
pub(super) fn size(object: &Object) -> Option<usize> {
    match object {
        Object::Int(value) => usize::try_from(*value).ok(),
        Object::Long(value) => usize::try_from(*value).ok(),
        _ => None,
    }
}

/// A tuple or list of non-negative integers.
pub(super) fn sizes(object: &Object) -> Option<Vec<usize>> {
    match object {
        Object::Tuple(items) | Object::List(items) => items.iter().map(size).collect(),
        _ => None,
    }
}

/// A value of a dictionary by its text key.
pub(super) fn entry<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    let Object::Dict(entries) = object else { return None };
    entries.iter().find(|(k, _)| matches!(k, Object::Unicode(k) if k == key)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_all_kinds() {
        let cases =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x0001, 2f32.powi(-24)), (0x7bff, 65504.0), (0x0000, 0.0)];
        for (bits, value) in cases {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7c01).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
    }

    #[test]
    fn strided_views() {
        let view = |shape: &[usize], strides: &[usize]| View {
            storage: "FloatStorage",
            key: "0",
            offset: 1,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        assert_eq!(view(&[2, 3], &[1, 2]).indices().unwrap(), [1, 3, 5, 2, 4, 6]);
        assert_eq!(view(&[], &[]).indices().unwrap(), [1]);
        assert!(view(&[usize::MAX, 3], &[1, 2]).indices().is_none());
        assert!(view(&[2], &[1, 2]).indices().is_none());
    }
}
