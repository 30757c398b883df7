//! Loading a checkpoint onto a device.

use crate::checkpoint::Checkpoint;
use crate::cpu::{Cpu, CpuOptions};
use crate::cuda::{Cuda, CudaOptions};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::format::Format;
use crate::kernels::KvFormat;
#[cfg(feature = "candle")]
use crate::tensors::Tensors;

/// A model on a device.
pub struct Loaded {
    /// The model.
    pub executor: Box<dyn Executor>,
    /// The device, for people: its name, the product of a GPU, and the reason where `auto` has passed a
    /// GPU over.
    pub device: String,
    /// True for a GPU, where the model has a stream of work of its own.
    pub has_stream: bool,
}

/// Loads the model of a checkpoint onto `device`, with its matrices in `dtype`; by default a CPU and
/// an NVIDIA GPU keep the formats of the file. `kv` is the number format of cached keys and values;
/// by default a CPU caches half precision, and a GPU the type of activations.
///
/// # Errors
/// Those of the executor; [`Error::DeviceNotBuilt`] for a device that this program lacks;
/// [`Error::KvFormat`] for a `kv` on a device of candle.
///
/// ```
/// use wsd_nn::{Checkpoint, Device, load};
///
/// # let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
/// let model = load(&Device::Cpu, &Checkpoint::open(&folder)?, None, None)?;
/// assert_eq!((model.executor.slots(), model.device.as_str()), (0, "cpu"));
/// # Ok::<_, wsd_nn::Error>(())
/// ```
pub fn load(device: &Device, checkpoint: &Checkpoint, dtype: Option<Format>, kv: Option<KvFormat>) -> Result<Loaded> {
    let mut passed_over = None;
    let options = CudaOptions { dtype, kv };
    match device {
        Device::Cuda(numbers) => return Ok(on_gpu(Cuda::load(checkpoint, numbers, options)?)),
        Device::Auto => match Cuda::load(checkpoint, &[], options) {
            Ok(model) => return Ok(on_gpu(model)),
            Err(error) => passed_over = Cuda::has_driver().then(|| error.to_string()),
        },
        _ => {}
    }
    #[cfg(feature = "candle")]
    if let Some(opened) = open(device)?.filter(|_| *device != Device::Auto || kv.is_none()) {
        if let Some(kv) = kv {
            return Err(Error::KvFormat { kv: kv.name(), device: device.to_string() });
        }
        let name = if opened.is_metal() { Device::Metal } else { Device::Candle };
        let executor = Box::new(Tensors::load(checkpoint, &opened, dtype)?);
        return Ok(Loaded { executor, device: name.to_string(), has_stream: false });
    }
    if let Some(feature) = device.missing_feature() {
        return Err(Error::DeviceNotBuilt { device: device.to_string(), feature });
    }
    let executor = Box::new(Cpu::load_with(checkpoint, CpuOptions { dtype, kv, ..CpuOptions::default() })?);
    Ok(Loaded { executor, device: on_cpu(passed_over.as_deref()), has_stream: false })
}

fn on_gpu(model: Cuda) -> Loaded {
    let device = model.device();
    Loaded { executor: Box::new(model), device, has_stream: true }
}

/// Names the CPU, with the first line of the reason why a GPU was passed over.
fn on_cpu(passed_over: Option<&str>) -> String {
    let reason = passed_over.and_then(|reason| reason.lines().next());
    let reason = reason.map(|reason| format!(", as the GPU was passed over: {reason}")).unwrap_or_default();
    format!("{}{reason}", Device::Cpu)
}

/// Opens a device for candle. Returns `None` for devices that this crate's CPU kernels serve, and
/// for those that this program was built without.
#[cfg(feature = "candle")]
fn open(device: &Device) -> Result<Option<candle_core::Device>> {
    let opened = match device {
        Device::Auto => {
            let gpus = [Device::Metal];
            return Ok(gpus.into_iter().find_map(|device| open(&device).ok().flatten()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_passed_over_is_told_in_a_line() {
        assert_eq!(on_cpu(None), "cpu");
        let missing = Error::DeviceMissing { device: "cuda:0".into(), reason: "libnvrtc.so was not found".into() };
        let told = on_cpu(Some(&missing.to_string()));
        assert!(told.starts_with("cpu, as the GPU was passed over: ") && told.contains("libnvrtc.so"), "{told}");
        assert_eq!(told.lines().count(), 1);
    }
}
