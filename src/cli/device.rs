//! The device, for every command that computes.

use candle_core::Device;

use crate::device::DeviceChoice;
use crate::execute::Precision;
use crate::ghn::Ghn;

/// The flag `--device`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DeviceFlag {
    /// Where to compute: auto takes a GPU that works, else the CPU
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value = "auto")]
    pub device: DeviceChoice,
}

impl DeviceFlag {
    /// The device; which one it is goes to stderr.
    pub fn open(self) -> anyhow::Result<Device> {
        let (device, line) = self.device.open()?;
        eprintln!("{line}");
        Ok(device)
    }
}

/// The hypernetwork on the device that the flag names.
pub fn on(ghn: Ghn, flag: DeviceFlag) -> anyhow::Result<Ghn> {
    let device = flag.open()?;
    Ok(if device.is_cpu() { ghn } else { ghn.to_device(&device)? })
}

/// The flag `--precision`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct PrecisionFlag {
    /// Numbers that networks run in on a GPU: f32, bf16 or f16; norms, softmax and sums are f32 in any case, and the
    /// CPU knows f32 only [default: f32]
    #[arg(long, value_name = "f32|bf16|f16")]
    pub precision: Option<Precision>,
}

/// Whether networks can run in `precision` on `device`.
pub fn check(precision: Precision, device: &Device) -> anyhow::Result<()> {
    if device.is_cpu() && precision != Precision::F32 {
        anyhow::bail!(
            "--precision {precision}: on the CPU networks run in f32 only; on a GPU they can run in less"
        );
    }
    Ok(())
}
