//! The devices a model can run on, by name.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use crate::error::{Error, Result};

/// A device to run a model on.
///
/// # Examples
/// ```
/// use wsd_nn::Device;
///
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(1));
/// assert_eq!(Device::default().to_string(), "auto");
/// assert!("tpu".parse::<Device>().is_err());
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Device {
    /// A GPU if this program is built for one and the machine has one, else this crate's kernels on
    /// the CPU.
    #[default]
    Auto,
    /// This crate's kernels on the CPU, with weights in any format.
    Cpu,
    /// candle on the CPU, with the BLAS library this program is built with. It serves as a check on
    /// the other devices.
    Candle,
    /// The NVIDIA GPU with this number.
    Cuda(usize),
    /// The Apple GPU.
    Metal,
}

/// The devices without a number, by name.
const NAMED: [(&str, Device); 4] =
    [("auto", Device::Auto), ("cpu", Device::Cpu), ("candle", Device::Candle), ("metal", Device::Metal)];

impl Device {
    /// The spellings of all devices, for help and messages.
    pub const NAMES: &'static str = "auto, cpu, candle, cuda, cuda:N, metal";

    /// Returns the cargo feature this device needs, if this program was built without it.
    pub(crate) fn missing_feature(self) -> Option<&'static str> {
        let (feature, is_built) = match self {
            Self::Auto | Self::Cpu => return None,
            Self::Candle => ("candle", cfg!(feature = "candle")),
            Self::Cuda(_) => ("cuda", cfg!(feature = "cuda")),
            Self::Metal => ("metal", cfg!(feature = "metal")),
        };
        (!is_built).then_some(feature)
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, device)| *device);
        let numbered = || match name.strip_prefix("cuda")? {
            "" => Some(Self::Cuda(0)),
            number => number.strip_prefix(':')?.parse().ok().map(Self::Cuda),
        };
        let unknown = || Error::UnknownDevice { name: name.to_owned(), known: Self::NAMES };
        named.or_else(numbered).ok_or_else(unknown)
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
        match (self, NAMED.iter().find(|(_, device)| device == self)) {
            (Self::Cuda(number), _) => write!(f, "cuda:{number}"),
            (_, Some((name, _))) => f.write_str(name),
            (_, None) => Err(fmt::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for device in [Device::Auto, Device::Cpu, Device::Candle, Device::Cuda(0), Device::Cuda(3), Device::Metal] {
            let name = device.to_string();
            assert_eq!(name.parse::<Device>().unwrap(), device);
            assert!(Device::NAMES.contains(name.trim_end_matches(":0").trim_end_matches(":3")), "{name}");
        }
        assert_eq!("cuda".parse::<Device>().unwrap(), Device::Cuda(0));
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda1", "cpu:0"] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_device_that_was_not_built_names_its_feature() {
        for device in [Device::Candle, Device::Cuda(1), Device::Metal] {
            let Some(feature) = device.missing_feature() else { continue };
            let error = Error::DeviceNotBuilt { device: device.to_string(), feature }.to_string();
            assert!(error.contains(&device.to_string()) && error.contains(&format!("--features {feature}")), "{error}");
        }
    }
}
