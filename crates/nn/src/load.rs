//! Loading a checkpoint onto a device.

use crate::checkpoint::Checkpoint;
use crate::cpu::{Cpu, CpuOptions};
use crate::cuda::Cuda;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::format::Format;
use crate::kernels::KvFormat;
#[cfg(feature = "candle")]
use crate::tensors::Tensors;

/// Loads the model of a checkpoint onto `device`, with its matrices in `dtype`; by default a CPU and
/// an NVIDIA GPU keep the formats of the file. `kv` is the number format of cached keys and values;
/// by default a CPU caches half precision, and other devices the type they compute in.
///
/// # Errors
/// Those of the executor; [`Error::DeviceNotBuilt`] for a device that this program lacks;
/// [`Error::KvFormat`] for a `kv` on a device that has no choice.
///
/// ```
/// use wsd_nn::{Checkpoint, Device, load};
///
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
/// let model = load(Device::Cpu, &Checkpoint::open(&folder)?, None, None)?;
/// assert_eq!(model.slots(), 0);
/// # Ok::<_, wsd_nn::Error>(())
/// ```
pub fn load(
    device: Device,
    checkpoint: &Checkpoint,
    dtype: Option<Format>,
    kv: Option<KvFormat>,
) -> Result<Box<dyn Executor>> {
    let chosen =
        |device: &str| kv.map_or(Ok(()), |kv| Err(Error::KvFormat { kv: kv.name(), device: device.to_owned() }));
    match device {
        Device::Cuda(number) => {
            chosen(&device.to_string())?;
            return Ok(Box::new(Cuda::load(checkpoint, number, dtype)?));
        }
        Device::Auto if kv.is_none() => {
            if let Ok(model) = Cuda::load(checkpoint, 0, dtype) {
                return Ok(Box::new(model));
            }
        }
        _ => {}
    }
    #[cfg(feature = "candle")]
    if let Some(opened) = open(device)?.filter(|_| device != Device::Auto || kv.is_none()) {
        chosen(&device.to_string())?;
        return Ok(Box::new(Tensors::load(checkpoint, &opened, dtype)?));
    }
    if let Some(feature) = device.missing_feature() {
        return Err(Error::DeviceNotBuilt { device: device.to_string(), feature });
    }
    Ok(Box::new(Cpu::load_with(checkpoint, CpuOptions { dtype, kv, ..CpuOptions::default() })?))
}

/// Opens a device for candle. Returns `None` for devices that this crate's CPU kernels serve, and
/// for those that this program was built without.
#[cfg(feature = "candle")]
fn open(device: Device) -> Result<Option<candle_core::Device>> {
    let opened = match device {
        Device::Auto => {
            let gpus = [Device::Metal];
            return Ok(gpus.into_iter().find_map(|device| open(device).ok().flatten()));
        }
        Device::Cpu => return Ok(None),
        _ if device.missing_feature().is_some() => return Ok(None),
        Device::Candle => Ok(candle_core::Device::Cpu),
        Device::Cuda(_) => return Ok(None),
        Device::Metal => candle_core::Device::new_metal(0),
    };
    let missing =
        |error: candle_core::Error| Error::DeviceMissing { device: device.to_string(), reason: error.to_string() };
    opened.map(Some).map_err(missing)
}
