//! The device, for every command that asks a hypernetwork.

use candle_core::Device;

use crate::device::DeviceChoice;
use crate::ghn::Ghn;

/// The flag `--device`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DeviceFlag {
    /// Where the hypernetwork computes: auto takes a GPU that works, else the CPU
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value = "auto")]
    pub device: DeviceChoice,
}

impl DeviceFlag {
    /// The device; which one it is goes to stderr where foretell can use GPUs.
    pub fn open(self) -> anyhow::Result<Device> {
        let (device, line) = self.device.open()?;
        if let Some(line) = line {
            eprintln!("{line}");
        }
        Ok(device)
    }
}

/// The hypernetwork on the device that the flag names.
pub fn on(ghn: Ghn, flag: DeviceFlag) -> anyhow::Result<Ghn> {
    let device = flag.open()?;
    Ok(if device.is_cpu() { ghn } else { ghn.to_device(&device)? })
}
