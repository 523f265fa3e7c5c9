//! Programs on an NVIDIA GPU: compiled at run time for the device at hand, launched on candle's stream.
//!
//! In: a [`Program`] and its inputs on the device. Out: its outputs there; nothing waits for the device. PTX is kept
//! in `$XDG_CACHE_HOME/foretell/ptx` (else `~/.cache/foretell/ptx`), named by source and architecture.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, DriverError, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, compile_ptx_with_opts};
use candle_core::{CudaStorage, DType, Device, Error, Layout, Result};
use sha2::{Digest, Sha256};

use super::program::{Argument, Buffer, Launch, Limits, Program, Source};
use crate::files::write_atomically;

/// Tables on the device, by the address of the host's copy, which is kept alive.
#[derive(Default)]
pub(super) struct Uploaded(Vec<(Arc<[u32]>, CudaSlice<u32>)>);

impl Uploaded {
    /// Index of a table, which is copied if it is not there yet.
    fn place(&mut self, device: &CudaDevice, table: &Arc<[u32]>) -> Result<usize> {
        if let Some(at) = self.0.iter().position(|(other, _)| Arc::ptr_eq(other, table)) {
            return Ok(at);
        }
        // Not even an empty table may lie nowhere.
        let words: &[u32] = if table.is_empty() { &[0] } else { table };
        self.0.push((table.clone(), device.clone_htod(words)?));
        Ok(self.0.len() - 1)
    }
}

/// A stream of its own on the GPU of this number. candle's own choice would be another stream for every thread, and a
/// thread could read what the stream of another one has not written yet.
pub(crate) fn stream(number: usize) -> Result<Device> {
    let device = CudaDevice::new_with_stream(number)?;
    // SAFETY: a device is one stream, its tensors are allocated, used and freed on it alone, and candle refuses
    // operations on tensors of two devices; so no order between streams has to be kept.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// What the device allows.
pub(super) fn limits(device: &CudaDevice) -> Result<Limits> {
    let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
    let shared_bytes = device.cuda_stream().context().attribute(attribute).map_err(refused)?;
    Ok(Limits { threads: 512, shared_bytes: shared_bytes.max(0) as u32 })
}

fn refused(error: DriverError) -> Error {
    Error::Cuda(Box::new(error))
}

/// The f32 values of a contiguous tensor.
pub(super) fn values<'a>(
    op: &'static str,
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, f32>> {
    if storage.dtype() != DType::F32 {
        candle_core::bail!("{op} on a GPU: f32 expected, found {:?}", storage.dtype());
    }
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("{op}: contiguous tensors expected");
    };
    Ok(storage.as_cuda_slice::<f32>()?.slice(start..end))
}

/// Device memory of a program's buffers.
enum Memory<'a> {
    Input(CudaView<'a, f32>),
    /// A copy of an input that did not start at a multiple of 16 bytes, as rows of four floats must.
    Aligned(CudaSlice<f32>),
    Table(usize),
    Own(CudaSlice<f32>),
}

/// Runs all launches of `program`; `inputs` in its order.
pub(super) fn run(
    device: &CudaDevice,
    program: &Program,
    inputs: Vec<CudaView<f32>>,
    uploaded: &mut Uploaded,
) -> Result<Vec<CudaSlice<f32>>> {
    let stream = device.cuda_stream();
    let mut given = inputs.into_iter();
    let mut memory = Vec::with_capacity(program.buffers.len());
    for buffer in &program.buffers {
        memory.push(match buffer {
            Buffer::Table(table) => Memory::Table(uploaded.place(device, table)?),
            Buffer::Input(len) => match given.next() {
                Some(input) if input.len() == *len => {
                    if is_aligned(&input, &stream) {
                        Memory::Input(input)
                    } else {
                        Memory::Aligned(stream.clone_dtod(&input).map_err(refused)?)
                    }
                }
                _ => candle_core::bail!("a GPU program wants another input of {len} values"),
            },
            Buffer::Scratch(len) | Buffer::Output(len) => {
                // SAFETY: the kernels write every value of their scratch and output buffers before it is read.
                Memory::Own(unsafe { stream.alloc::<f32>((*len).max(1)) }.map_err(refused)?)
            }
        });
    }
    for launch in &program.launches {
        execute(device, launch, &mut memory, uploaded)?;
    }
    let kept = program.buffers.iter().zip(memory);
    Ok(kept
        .filter_map(|(buffer, memory)| match (buffer, memory) {
            (Buffer::Output(_), Memory::Own(slice)) => Some(slice),
            _ => None,
        })
        .collect())
}

fn is_aligned(view: &CudaView<f32>, stream: &candle_core::cuda_backend::cudarc::driver::CudaStream) -> bool {
    use candle_core::cuda_backend::cudarc::driver::DevicePtr;
    view.device_ptr(stream).0.is_multiple_of(16)
}

fn execute(device: &CudaDevice, launch: &Launch, memory: &mut [Memory], uploaded: &Uploaded) -> Result<()> {
    let compiled = compiled(device, &launch.source)?;
    let function = device.get_or_load_custom_func(launch.kernel, &compiled.name, &compiled.ptx)?;
    // More than 48 KiB must be asked for.
    let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(attribute, launch.shared_bytes as i32).map_err(refused)?;
    let mut places: Vec<Option<&mut Memory>> = memory.iter_mut().map(Some).collect();
    let numbers: Vec<u32> = launch
        .arguments
        .iter()
        .map(|argument| match argument {
            Argument::Number(number) => *number,
            Argument::Buffer(_) => 0,
        })
        .collect();
    let mut builder = function.builder();
    for (argument, number) in launch.arguments.iter().zip(&numbers) {
        match *argument {
            Argument::Number(_) => builder.arg(number),
            Argument::Buffer(buffer) => match places[buffer].take() {
                Some(Memory::Input(view)) => builder.arg(&*view),
                Some(Memory::Aligned(slice)) => builder.arg(&*slice),
                Some(Memory::Table(at)) => builder.arg(&uploaded.0[*at].1),
                Some(Memory::Own(slice)) => builder.arg(slice),
                None => candle_core::bail!("{}: a buffer is passed twice", launch.kernel),
            },
        };
    }
    let [x, y] = launch.grid;
    let config = LaunchConfig {
        grid_dim: (x, y, 1),
        block_dim: (launch.threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: the op that made the launch gives the kernel the arguments of its signature and buffers of the sizes
    // that it reaches; the tests run the same launches with guarded buffers.
    unsafe { builder.launch(config) }.map_err(refused)?;
    Ok(())
}

/// A compiled source.
struct Compiled {
    name: String,
    ptx: String,
}

/// The PTX of a source for this device: from this process, from the disk, or from the compiler.
fn compiled(device: &CudaDevice, source: &Source) -> Result<Arc<Compiled>> {
    type Key = (&'static str, Vec<(&'static str, usize)>, (i32, i32));
    static COMPILED: LazyLock<Mutex<HashMap<Key, Arc<Compiled>>>> = LazyLock::new(Mutex::default);
    let capability = device.cuda_stream().context().compute_capability().map_err(refused)?;
    let key = (source.name, source.defines.clone(), capability);
    let mut known = COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(compiled) = known.get(&key) {
        return Ok(compiled.clone());
    }
    let architecture = format!("compute_{}{}", capability.0, capability.1);
    let text = source.text();
    let hash = Sha256::digest(format!("{architecture}\n{text}"));
    let hash: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}-{architecture}-{hash}", source.name.replace([' ', ','], "_"));
    let file = folder().map(|folder| folder.join(format!("{name}.ptx")));
    let ptx = match file.as_ref().and_then(|file| std::fs::read_to_string(file).ok()) {
        Some(ptx) => ptx,
        None => {
            let ptx = compile(source, &text, architecture)?;
            if let Some(file) = file {
                // Without a cache the next process compiles again: no reason to stop.
                let _ = file.parent().map(std::fs::create_dir_all);
                let _ = write_atomically(&file, ptx.as_bytes());
            }
            ptx
        }
    };
    let compiled = Arc::new(Compiled { name, ptx });
    known.insert(key, compiled.clone());
    Ok(compiled)
}

fn compile(source: &Source, text: &str, architecture: String) -> Result<String> {
    let options = CompileOptions {
        name: Some(source.name.into()),
        options: vec![format!("--gpu-architecture={architecture}"), "--std=c++17".into()],
        ..CompileOptions::default()
    };
    let ptx = compile_ptx_with_opts(text, options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => {
            Error::Msg(format!("{} does not compile: {}", source.name, log.to_string_lossy()))
        }
        other => Error::Cuda(Box::new(other)),
    })?;
    Ok(ptx.to_src())
}

/// Folder of compiled kernels; none where no home is known.
fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("foretell/ptx"))
}
