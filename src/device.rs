//! Where hypernetworks and networks compute: the CPU, or an NVIDIA GPU if foretell was built with the feature `cuda`.
//!
//! In: `auto`, `cpu`, `cuda` or `cuda:N`. Out: candle's device, and a line that says which one it is. A device of a GPU
//! is one stream: what threads give it runs in the order in which they give it. Tensors of two streams do not mix.

use std::str::FromStr;

use candle_core::{DType, Device, DeviceLocation, Tensor};

use crate::{Error, Result};

/// A choice of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU, if it works, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    /// ```
    /// use foretell::device::DeviceChoice;
    /// assert_eq!("cuda:1".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(1));
    /// ```
    fn from_str(text: &str) -> Result<DeviceChoice> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                number.map(DeviceChoice::Cuda).ok_or_else(|| {
                    Error::Config(format!("{text} is no device, expected auto, cpu, cuda or cuda:N"))
                })
            }
        }
    }
}

impl DeviceChoice {
    /// The device, and a line that says what it is, or why it is not a GPU.
    ///
    /// # Errors
    /// If a GPU was asked for and none works.
    pub fn open(self) -> Result<(Device, String)> {
        let cpu = |why: &str| Ok((Device::Cpu, format!("device: CPU{why}")));
        let number = match self {
            DeviceChoice::Cpu => return cpu(""),
            DeviceChoice::Auto => 0,
            DeviceChoice::Cuda(number) => number,
        };
        if !cfg!(feature = "cuda") {
            if self == DeviceChoice::Auto {
                return cpu("");
            }
            let message =
                "--device cuda: this foretell was built without CUDA; build it with --features cuda";
            return Err(Error::Config(message.into()));
        }
        match working_gpu(number) {
            Ok(device) => {
                let line = format!("device: {}", name(&device));
                Ok((device, line))
            }
            Err(reason) if self == DeviceChoice::Auto => cpu(&format!(" (no GPU works: {reason})")),
            Err(reason) => Err(Error::Config(format!("--device cuda:{number}: {reason}"))),
        }
    }
}

/// The GPU of this number, once it has added two numbers.
fn working_gpu(number: usize) -> Result<Device, String> {
    let first_line = |error: candle_core::Error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let device = stream(number).map_err(first_line)?;
    let sum = || Tensor::ones(2, DType::F32, &device)?.sum_all()?.to_scalar::<f32>();
    match sum().map_err(first_line)? {
        2.0 => Ok(device),
        other => Err(format!("1 + 1 is {other} there")),
    }
}

/// A stream of its own on a GPU.
fn stream(number: usize) -> candle_core::Result<Device> {
    #[cfg(feature = "cuda")]
    return crate::kernels::stream(number);
    #[cfg(not(feature = "cuda"))]
    Device::new_cuda_with_stream(number)
}

/// Another stream on the GPU of `device`, which computes beside it; the CPU is its own.
///
/// # Errors
/// If the device fails.
pub fn beside(device: &Device) -> Result<Device> {
    Ok(match device.location() {
        DeviceLocation::Cuda { gpu_id } => stream(gpu_id)?,
        _ => device.clone(),
    })
}

/// Memory of a device that is free, in bytes; none where nobody says.
pub fn free_bytes(device: &Device) -> Option<usize> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return gpu.cuda_stream().context().mem_get_info().ok().map(|(free, _)| free);
    }
    let _ = device;
    None
}

/// A device in words.
pub fn name(device: &Device) -> String {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        let stream = gpu.cuda_stream();
        let context = stream.context();
        let name = context.name().unwrap_or_else(|_| "an unnamed GPU".into());
        return format!("GPU {}, {name}", context.ordinal());
    }
    match device {
        Device::Cpu => "CPU".into(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_wrong_ones_named() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
        }
        for text in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("expected auto, cpu, cuda or cuda:N"), "{error}");
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_runs_on_the_cpu_and_says_so_when_a_gpu_is_asked_for() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu] {
            let (device, line) = choice.open().unwrap();
            assert!(device.is_cpu() && line == "device: CPU");
            assert!(beside(&device).unwrap().is_cpu() && free_bytes(&device).is_none());
        }
        assert!(DeviceChoice::Cuda(0).open().unwrap_err().to_string().contains("built without CUDA"));
    }
}
