//! NVIDIA's driver, compiler and matrix products, over their C interfaces.
//!
//! Kernels read and write device memory only. Host memory is read and written by the copies below,
//! which are complete when they return.

#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fmt::Display;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{result, sys};

use super::{Device, Launch, Operand, Products};
use crate::cuda::{compiler, libraries};
use crate::error::{Error, Result};
use crate::format::Format;

/// Bytes of scratch of matrix products, as NVIDIA advises for its newest processors.
const WORKSPACE_BYTES: usize = 32 << 20;
/// The oldest compute capability with the instructions that the kernels use.
const OLDEST_ARCH: u32 = 80;
/// The oldest version of the driver's interface.
const OLDEST_DRIVER: i32 = 12000;
/// Bytes of page-locked host memory, through which reads are twice as fast as without.
const STAGING_BYTES: usize = 4 << 20;

/// A GPU with a stream of work.
pub(super) struct Nvidia {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    blas: blas_sys::cublasHandle_t,
    workspace: sys::CUdeviceptr,
    /// The address of `STAGING_BYTES` of page-locked host memory.
    staging: Mutex<usize>,
    arch: u32,
    name: String,
}

// SAFETY: the handles may be used from any thread; each function first makes the context current on its thread.
unsafe impl Send for Nvidia {}
// SAFETY: the driver's interface is thread-safe, and one stream orders the work.
unsafe impl Sync for Nvidia {}

impl Nvidia {
    /// The number of GPUs; 0 without a driver.
    pub(super) fn count() -> usize {
        let count = libraries::load().ok().and_then(|()| result::init().ok()).map(|()| result::device::get_count());
        count.and_then(|count| usize::try_from(count.ok()?).ok()).unwrap_or(0)
    }

    /// Opens the GPU with this number.
    pub(super) fn open(number: usize) -> Result<Self> {
        let missing = |reason: String| Error::DeviceMissing { device: format!("cuda:{number}"), reason };
        libraries::load().map_err(missing)?;
        let fault = |error: &dyn Display| missing(error.to_string());
        result::init().map_err(|error| fault(&error))?;
        let mut version = 0;
        // SAFETY: the driver writes one integer.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(|error| fault(&error))?;
        if version < OLDEST_DRIVER {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(missing(format!("its driver supports CUDA {major}.{minor}, and 12.0 or later is needed")));
        }
        let count = result::device::get_count().map_err(|error| fault(&error))?;
        let ordinal = i32::try_from(number).ok().filter(|number| *number < count);
        let ordinal = ordinal.ok_or_else(|| missing(format!("the driver has {count} GPUs, numbered from 0")))?;
        let device = result::device::get(ordinal).map_err(|error| fault(&error))?;
        // SAFETY: `device` comes from the driver.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(|error| fault(&error));
        let major = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let arch = (major * 10 + minor) as u32;
        let name = result::device::get_name(device).map_err(|error| fault(&error))?;
        if arch < OLDEST_ARCH {
            return Err(missing(format!("{name} has compute capability {major}.{minor}, and 8.0 or later is needed")));
        }
        // SAFETY: the context is retained until `self` is dropped, and is current while the others are made.
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(|error| fault(&error))?;
            result::ctx::set_current(context).map_err(|error| fault(&error))?;
            let stream =
                result::stream::create(result::stream::StreamKind::NonBlocking).map_err(|error| fault(&error))?;
            let blas = blas::create_handle().map_err(|error| fault(&error))?;
            let workspace = result::malloc_sync(WORKSPACE_BYTES).map_err(|error| fault(&error))?;
            let staging = result::malloc_host(STAGING_BYTES, 0).map_err(|error| fault(&error))?;
            ptr::write_bytes(staging.cast::<u8>(), 0, STAGING_BYTES);
            let staging = Mutex::new(staging as usize);
            let set = [
                blas_sys::cublasSetStream_v2(blas, stream.cast()),
                blas_sys::cublasSetWorkspace_v2(blas, workspace as *mut c_void, WORKSPACE_BYTES),
            ];
            set.into_iter().try_for_each(|status| status.result()).map_err(|error| fault(&error))?;
            let name = format!("cuda:{number} ({name})");
            Ok(Self { device, context, stream, blas, workspace, staging, arch, name })
        }
    }

    /// Makes the context current on this thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed)
    }
}

impl Device for Nvidia {
    fn name(&self) -> &str {
        &self.name
    }

    fn arch(&self) -> u32 {
        self.arch
    }

    fn memory(&self) -> Result<(usize, usize)> {
        self.bind()?;
        result::mem_get_info().map_err(failed)
    }

    fn alloc(&self, bytes: usize) -> Result<Option<u64>> {
        self.bind()?;
        // SAFETY: the memory is cleared before its address is known to anyone.
        unsafe {
            let Ok(address) = result::malloc_sync(bytes) else { return Ok(None) };
            // On this stream, as the driver does not order the default one with it.
            result::memset_d8_async(address, 0, bytes, self.stream).map_err(failed)?;
            Ok(Some(address))
        }
    }

    fn free(&self, address: u64) {
        if self.bind().is_ok() {
            // SAFETY: the address came from `alloc`, and the driver waits for work that uses it.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the owner of the memory has checked the range. A copy from pageable memory has read it when the call
        // returns.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream) }.map_err(failed)
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        if bytes.is_empty() {
            // SAFETY: the stream lives as long as `self`.
            return unsafe { result::stream::synchronize(self.stream) }.map_err(failed);
        }
        let staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, part) in bytes.chunks_mut(STAGING_BYTES).enumerate() {
            // SAFETY: the owner of the memory has checked the range; the part is no longer than the staging memory,
            // which no one else uses while it is locked. The stream is idle before it is read.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(*staging as *mut u8, part.len());
                let from = address + (index * STAGING_BYTES) as u64;
                result::memcpy_dtoh_async(staged, from, self.stream).map_err(failed)?;
                result::stream::synchronize(self.stream).map_err(failed)?;
                part.copy_from_slice(staged);
            }
        }
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: both are device addresses, whose ranges their owners have checked.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(failed)
    }

    fn compile(&self, source: &str) -> Result<usize> {
        self.bind()?;
        // SAFETY: the driver checks and copies the image.
        let load = |code: &[u8]| unsafe { result::module::load_data(code.as_ptr().cast()) };
        if let Some(module) = compiler::cached(source, self.arch).and_then(|code| load(&code).ok()) {
            return Ok(module as usize);
        }
        let code = compiler::compile(source, self.arch)?;
        load(&code).map(|module| module as usize).map_err(failed)
    }

    fn unload(&self, module: usize) {
        if self.bind().is_ok() {
            // SAFETY: the module came from `compile`, and its kernels are used only by its owner.
            let _ = unsafe { result::module::unload(module as sys::CUmodule) };
        }
    }

    fn kernel(&self, module: usize, name: &str) -> Result<usize> {
        self.bind()?;
        let name = CString::new(name).map_err(failed)?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(module as sys::CUmodule, name) };
        function.map(|function| function as usize).map_err(failed)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        let mut overlap = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let [x, y, z] = launch.grid;
        let config = sys::CUlaunchConfig {
            gridDimX: x,
            gridDimY: y,
            gridDimZ: z,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: self.stream,
            attrs: &raw mut overlap,
            numAttrs: u32::from(launch.overlaps && self.arch >= 90),
        };
        let mut params = [launch.args.as_ptr().cast_mut().cast::<c_void>()];
        self.bind()?;
        // SAFETY: the driver copies the parameter before it returns. Its size is that of the kernel's, which the source
        // asserts.
        unsafe {
            sys::cuLaunchKernelEx(
                &raw const config,
                launch.kernel as sys::CUfunction,
                params.as_mut_ptr(),
                ptr::null_mut(),
            )
        }
        .result()
        .map_err(failed)
    }

    fn multiply(&self, p: &Products) -> Result<()> {
        self.bind()?;
        let (scale, old) = (p.scale, if p.adds { 1.0f32 } else { 0.0 });
        let kind = match p.format {
            Format::BF16 => blas_sys::cudaDataType::CUDA_R_16BF,
            Format::F16 => blas_sys::cudaDataType::CUDA_R_16F,
            _ => blas_sys::cudaDataType::CUDA_R_32F,
        };
        let order = |operand: &Operand| match operand.is_transposed {
            true => blas_sys::cublasOperation_t::CUBLAS_OP_T,
            false => blas_sys::cublasOperation_t::CUBLAS_OP_N,
        };
        // The library reads matrices column after column: it computes the transposed product, from `b` and `a`.
        let [columns, rows, inner] = [p.columns, p.rows, p.inner].map(|size| size as i32);
        let [b, a, out] = [&p.b, &p.a, &p.out].map(|operand| (operand.address, operand.stride as i32));
        let steps = [&p.b, &p.a, &p.out].map(|operand| operand.step as i64);
        let (scale, old) = ((&raw const scale).cast(), (&raw const old).cast());
        let float = blas_sys::cudaDataType::CUDA_R_32F;
        let arithmetic = blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let algorithm = blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT;
        let [a_at, b_at] = [a.0 as *const c_void, b.0 as *const c_void];
        let (first, second) = (order(&p.b), order(&p.a));
        // SAFETY: the factors are in host memory and read before the call returns; the others are device addresses.
        unsafe {
            if p.count == 1 {
                blas::gemm_ex(
                    self.blas,
                    first,
                    second,
                    columns,
                    rows,
                    inner,
                    scale,
                    b_at,
                    kind,
                    b.1,
                    a_at,
                    kind,
                    a.1,
                    old,
                    out.0 as *mut c_void,
                    float,
                    out.1,
                    arithmetic,
                    algorithm,
                )
            } else {
                blas::gemm_strided_batched_ex(
                    self.blas,
                    first,
                    second,
                    columns,
                    rows,
                    inner,
                    scale,
                    b_at,
                    kind,
                    b.1,
                    steps[0],
                    a_at,
                    kind,
                    a.1,
                    steps[1],
                    old,
                    out.0 as *mut c_void,
                    float,
                    out.1,
                    steps[2],
                    p.count as i32,
                    arithmetic,
                    algorithm,
                )
            }
        }
        .map_err(failed)
    }

    fn record(&self, queue: &mut dyn FnMut() -> Result<()>) -> Result<usize> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the capture ends on every path; the graph is instantiated once and then destroyed.
        unsafe {
            result::stream::begin_capture(self.stream, mode).map_err(failed)?;
            let queued = queue();
            let graph = result::stream::end_capture(self.stream).map_err(failed)?;
            let flags = sys::CUgraphInstantiate_flags(0);
            let executable = queued.and_then(|()| result::graph::instantiate(graph, flags).map_err(failed));
            result::graph::destroy(graph).map_err(failed)?;
            executable.map(|executable| executable as usize)
        }
    }

    fn replay(&self, graph: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: graph and stream are alive, and so is the memory that the executor recorded it with.
        unsafe { result::graph::launch(graph as sys::CUgraphExec, self.stream) }.map_err(failed)
    }

    fn forget(&self, graph: usize) {
        if self.bind().is_ok() {
            // SAFETY: the graph came from `record`, and its owner launches it no more.
            let _ = unsafe { result::graph::exec_destroy(graph as sys::CUgraphExec) };
        }
    }
}

impl Drop for Nvidia {
    fn drop(&mut self) {
        // SAFETY: all that is on the device holds it, so nothing uses these handles any more.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = blas::destroy_handle(self.blas);
            let _ = result::free_sync(self.workspace);
            let _ = result::free_host(*self.staging.get_mut().unwrap_or_else(PoisonError::into_inner) as *mut c_void);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

fn failed(error: impl Display) -> Error {
    Error::DeviceFailed { reason: error.to_string() }
}
