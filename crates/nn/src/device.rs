//! The devices a model can run on, by name.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::checkpoint::Checkpoint;
use crate::cpu::{Cpu, CpuOptions};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::format::Format;
#[cfg(feature = "candle")]
use crate::tensors::Tensors;

/// What a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Device {
    /// A GPU where this program is built for one and there is one; else this crate's kernels on the CPU.
    #[default]
    Auto,
    /// This crate's kernels on the CPU, with weights in any format.
    Cpu,
    /// candle on the CPU, with the BLAS library that this program is built with: a check on the others.
    Candle,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
    /// Apple's GPU.
    Metal,
}

impl Device {
    /// The cargo feature that it needs, and whether this program was built with it.
    fn feature(self) -> Option<(&'static str, bool)> {
        match self {
            Self::Auto | Self::Cpu => None,
            Self::Candle => Some(("candle", cfg!(feature = "candle"))),
            Self::Cuda(_) => Some(("cuda", cfg!(feature = "cuda"))),
            Self::Metal => Some(("metal", cfg!(feature = "metal"))),
        }
    }

    /// The model of a checkpoint on this device, its matrices in `dtype`.
    pub(crate) fn load(self, checkpoint: &Checkpoint, dtype: Option<Format>) -> Result<Box<dyn Executor + Sync>> {
        #[cfg(feature = "candle")]
        if let Some(device) = self.open()? {
            return Ok(Box::new(Tensors::load(checkpoint, &device, dtype)?));
        }
        if let Some((feature, false)) = self.feature() {
            return Err(Error::DeviceNotBuilt { device: self, feature });
        }
        Ok(Box::new(Cpu::load_with(checkpoint, CpuOptions { dtype, ..CpuOptions::default() })?))
    }

    /// The device as candle knows it; `None` where this crate's kernels are to run, or the program was built without it.
    #[cfg(feature = "candle")]
    fn open(self) -> Result<Option<candle_core::Device>> {
        let opened = match self {
            Self::Auto => {
                let gpus = [Self::Cuda(0), Self::Metal];
                return Ok(gpus.into_iter().find_map(|device| device.open().ok().flatten()));
            }
            Self::Cpu => return Ok(None),
            _ if self.feature().is_some_and(|(_, built)| !built) => return Ok(None),
            Self::Candle => Ok(candle_core::Device::Cpu),
            Self::Cuda(number) => candle_core::Device::new_cuda(number),
            Self::Metal => candle_core::Device::new_metal(0),
        };
        opened.map(Some).map_err(|error| Error::DeviceMissing { device: self, reason: error.to_string() })
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "candle" => Self::Candle,
            "cuda" => Self::Cuda(0),
            "metal" => Self::Metal,
            _ => {
                let number = name.strip_prefix("cuda:").and_then(|number| number.parse().ok());
                Self::Cuda(number.ok_or_else(|| Error::UnknownDevice { name: name.to_owned() })?)
            }
        })
    }
}

impl TryFrom<String> for Device {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl Display for Device {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Candle => f.write_str("candle"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::Metal => f.write_str("metal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for device in [Device::Auto, Device::Cpu, Device::Candle, Device::Cuda(0), Device::Cuda(3), Device::Metal] {
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0"] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_device_that_was_not_built_names_its_feature() {
        for device in [Device::Candle, Device::Cuda(1), Device::Metal] {
            let Some((feature, false)) = device.feature() else { continue };
            let error = Error::DeviceNotBuilt { device, feature }.to_string();
            assert!(error.contains(&device.to_string()) && error.contains(&format!("--features {feature}")), "{error}");
        }
    }
}
