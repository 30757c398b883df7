//! The devices a model can run on, by name.

use std::fmt::{self, Display, Formatter};
use std::mem::discriminant;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A device to run a model on.
///
/// # Examples
/// ```
/// use wsd_nn::Device;
///
/// assert_eq!("cuda:1".parse::<Device>()?, Device::Cuda(vec![1]));
/// assert_eq!("cuda:0,1".parse::<Device>()?.to_string(), "cuda:0,1");
/// assert_eq!(Device::default().to_string(), "auto");
/// assert!("tpu".parse::<Device>().is_err());
/// # Ok::<_, wsd_nn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Device {
    /// NVIDIA GPUs, as many as the model needs, if their driver and libraries are there, or another GPU
    /// that this program is built for, else this crate's kernels on the CPU.
    #[default]
    Auto,
    /// This crate's kernels on the CPU, with weights in any format.
    Cpu,
    /// candle on the CPU, with the BLAS library this program is built with. It serves as a check on
    /// the other devices.
    Candle,
    /// The NVIDIA GPUs with these numbers, which divide the layers of a model; without numbers as many
    /// as the model needs, from the first one on.
    Cuda(Vec<usize>),
    /// The Apple GPU.
    Metal,
}

/// A row of the table of devices.
struct Entry {
    /// The name, which is also that of the cargo feature.
    name: &'static str,
    /// The spelling of one of several devices of this kind; commas divide the numbers of more.
    numbered: Option<&'static str>,
    device: Device,
}

/// Every device, in the order of help and messages.
static DEVICES: [Entry; 5] = [
    Entry { name: "auto", numbered: None, device: Device::Auto },
    Entry { name: "cpu", numbered: None, device: Device::Cpu },
    Entry { name: "candle", numbered: None, device: Device::Candle },
    Entry { name: "cuda", numbered: Some("cuda:N"), device: Device::Cuda(Vec::new()) },
    Entry { name: "metal", numbered: None, device: Device::Metal },
];

impl Device {
    /// Iterates over the spellings of all devices, for help and messages.
    ///
    /// # Examples
    /// ```
    /// assert!(wsd_nn::Device::spellings().any(|name| name == "cuda:N"));
    /// ```
    pub fn spellings() -> impl Iterator<Item = &'static str> {
        DEVICES.iter().flat_map(|entry| [Some(entry.name), entry.numbered]).flatten()
    }

    /// The name without a number.
    fn name(&self) -> &'static str {
        let is_own = |entry: &&Entry| discriminant(&entry.device) == discriminant(self);
        DEVICES.iter().find(is_own).map_or("", |entry| entry.name)
    }

    /// Returns the cargo feature this device needs, if this program was built without it.
    pub(crate) fn missing_feature(&self) -> Option<&'static str> {
        let is_built = match self {
            Self::Auto | Self::Cpu | Self::Cuda(_) => true,
            Self::Candle => cfg!(feature = "candle"),
            Self::Metal => cfg!(feature = "metal"),
        };
        (!is_built).then(|| self.name())
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, number) = text.split_once(':').map_or((text, None), |(name, number)| (name, Some(number)));
        let device = DEVICES.iter().find(|entry| entry.name == name).map(|entry| entry.device.clone());
        let device = match (device, number) {
            (device, None) => device,
            (Some(Self::Cuda(_)), Some(numbers)) => parse_numbers(numbers).map(Self::Cuda),
            _ => None,
        };
        let known = || Self::spellings().collect::<Vec<_>>().join(", ");
        device.ok_or_else(|| Error::UnknownDevice { name: text.to_owned(), known: known() })
    }
}

/// Reads numbers, each of which is there once.
fn parse_numbers(text: &str) -> Option<Vec<usize>> {
    let numbers: Vec<usize> = text.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let is_new = |index: usize| !numbers[..index].contains(&numbers[index]);
    (0..numbers.len()).all(is_new).then_some(numbers)
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
            Self::Cuda(numbers) if !numbers.is_empty() => {
                let numbers: Vec<_> = numbers.iter().map(usize::to_string).collect();
                write!(f, "{}:{}", self.name(), numbers.join(","))
            }
            _ => f.write_str(self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let cards = [vec![], vec![0], vec![3], vec![1, 0]].map(Device::Cuda);
        for device in cards.into_iter().chain([Device::Auto, Device::Cpu, Device::Candle, Device::Metal]) {
            let name = device.to_string();
            assert_eq!(name.parse::<Device>().unwrap(), device);
            assert!(Device::spellings().any(|known| name.split(':').next() == Some(known)), "{name}");
        }
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:0,", "cuda:1,1", "cuda1", "cpu:0"] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{name}`")) && error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn a_device_that_was_not_built_names_its_feature() {
        for device in [Device::Candle, Device::Cuda(vec![1]), Device::Metal] {
            let Some(feature) = device.missing_feature() else { continue };
            let error = Error::DeviceNotBuilt { device: device.to_string(), feature }.to_string();
            assert!(error.contains(&device.to_string()) && error.contains(&format!("--features {feature}")), "{error}");
        }
    }
}
