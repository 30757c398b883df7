//! The kernels of a model: sources with the model's sizes as constants, compiled when the model is
//! loaded and kept in a cache on disk.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use super::args::{
    AnglesArgs, AttentionArgs, ChooseArgs, CopyArgs, EmbedArgs, FinishArgs, GateArgs, HeadsArgs, LinearArgs,
    NarrowArgs, NormArgs, WidenArgs,
};
use super::driver::{Arguments, Gpu, Kernel, Module};
use super::matrix;
use crate::activation::Activation;
use crate::arch::Blueprint;
use crate::error::{Error, Result};
use crate::format::Format;

/// Types and instructions of NVIDIA's processors, for which an emulator has others.
const PRIMITIVES: &str = include_str!("kernels/primitives.cuh");
const SOURCES: [&str; 4] = [
    include_str!("kernels/weights.cuh"),
    include_str!("kernels/linear.cuh"),
    include_str!("kernels/rows.cuh"),
    include_str!("kernels/attention.cuh"),
];

/// Rows that a linear layer's kernel takes at once, by the number of groups of eight.
pub(super) const MOST_ROWS: usize = 32;

/// The last step of a linear layer's kernel; the numbers are those of `linear.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Epilogue {
    /// Floats, with bias and soft cap.
    Out,
    /// Rotated queries and keys, and values, each in its place.
    Heads,
    /// The sum with the residual stream, and the input of the next norm.
    Residual,
    /// The gated product.
    Gate,
}

/// The kernels of a model.
pub(super) struct Kernels {
    linear: HashMap<(Format, Epilogue, usize), Kernel<LinearArgs>>,
    embed: HashMap<Format, Kernel<EmbedArgs>>,
    widen: HashMap<Format, Kernel<WidenArgs>>,
    pub(super) angles: Kernel<AnglesArgs>,
    pub(super) norm: Kernel<NormArgs>,
    pub(super) place_heads: Kernel<HeadsArgs>,
    pub(super) gate: Kernel<GateArgs>,
    pub(super) narrow_rows: Kernel<NarrowArgs>,
    pub(super) finish: Kernel<FinishArgs>,
    pub(super) choose: Kernel<ChooseArgs>,
    pub(super) copy_pages: Kernel<CopyArgs>,
    pub(super) move_positions: Kernel<CopyArgs>,
    pub(super) attend: Kernel<AttentionArgs>,
    /// Attention of many rows of one chain, for the sizes of heads it exists for.
    pub(super) attend_chain: Option<Kernel<AttentionArgs>>,
    _module: Module,
}

/// The formats and last steps of a model's linear layers.
pub(super) type Uses = BTreeSet<(&'static str, Epilogue)>;

/// The needs of a model, from which its kernels follow.
pub(super) struct Request<'a> {
    pub(super) blueprint: &'a Blueprint,
    /// The type of activations: F32, BF16 or F16.
    pub(super) compute: Format,
    pub(super) uses: &'a Uses,
    pub(super) embedding: Format,
}

impl Request<'_> {
    fn formats(&self) -> BTreeSet<&'static str> {
        self.uses.iter().map(|(format, _)| *format).chain([self.embedding.name()]).collect()
    }

    /// True if the kernel for many rows of a chain exists; its source has the same condition.
    fn has_chains(&self) -> bool {
        let head = self.blueprint.head_dim;
        self.compute != Format::F32 && head.is_multiple_of(16) && head <= 128
    }

    /// The whole source.
    pub(super) fn source(&self, arch: u32) -> String {
        let blueprint = self.blueprint;
        let compute = match self.compute {
            Format::BF16 => 1,
            Format::F16 => 2,
            _ => 0,
        };
        let activation = match blueprint.activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::Gelu => 2,
            // Only experts have it, which this executor refuses.
            Activation::ClampedSilu => 0,
        };
        let constants = [
            ("ARCH", arch as usize),
            ("COMPUTE", compute),
            ("HEAD", blueprint.head_dim),
            ("HEAD_STRIDE", head_stride(blueprint)),
            ("HEADS_Q", blueprint.heads),
            ("KV_HEADS", blueprint.kv_heads),
            ("GROUP", group(blueprint)),
            ("ACTIVATION", activation),
            ("GATED", usize::from(blueprint.gated)),
        ];
        let mut source = String::new();
        for (name, value) in constants {
            let _ = writeln!(source, "#define {name} {value}");
        }
        let _ = writeln!(source, "#ifndef EMULATED\n{PRIMITIVES}\n#endif\n{}", SOURCES.join("\n"));
        for name in self.formats() {
            let format = Format::parse(name).unwrap_or(Format::F32);
            let _ = writeln!(source, "struct {name} {{\n  {}\n}};", matrix::describe(format));
        }
        source.push_str(&self.entries().join("\n"));
        source
    }

    /// The definition of every kernel.
    fn entries(&self) -> Vec<String> {
        let mut entries = Vec::new();
        for (format, epilogue) in self.uses {
            for groups in groups(format) {
                let name = linear_name(format, *epilogue, *groups);
                entries.push(entry::<LinearArgs>(
                    &name,
                    &format!("linear<{format}, {}, {groups}>", *epilogue as i32),
                    2,
                ));
            }
        }
        for format in self.formats() {
            entries.push(entry::<EmbedArgs>(&format!("embed_{format}"), &format!("embed<{format}>"), 1));
            entries.push(entry::<WidenArgs>(&format!("widen_{format}"), &format!("widen_rows<{format}>"), 1));
        }
        entries.extend([
            entry::<AnglesArgs>("k_angles", "angles", 1),
            entry::<NormArgs>("k_norm", "norm", 1),
            entry::<HeadsArgs>("k_place_heads", "place_heads", 1),
            entry::<GateArgs>("k_gate", "gate", 1),
            entry::<NarrowArgs>("k_narrow_rows", "narrow_rows", 1),
            entry::<FinishArgs>("k_finish", "finish", 1),
            entry::<ChooseArgs>("k_choose", "choose", 1),
            entry::<CopyArgs>("k_copy_pages", "copy_pages", 1),
            entry::<CopyArgs>("k_move_positions", "move_positions", 1),
            entry::<AttentionArgs>("k_attend", "attend", 1),
        ]);
        entries.extend(self.has_chains().then(|| entry::<AttentionArgs>("k_attend_chain", "attend_chain", 1)));
        entries
    }
}

/// Values of a head in the cache: padded to whole loads of eight.
pub(super) fn head_stride(blueprint: &Blueprint) -> usize {
    blueprint.head_dim.next_multiple_of(8)
}

/// Query heads that one block of the attention kernel serves: a divisor of those that share keys.
pub(super) fn group(blueprint: &Blueprint) -> usize {
    let shared = blueprint.heads / blueprint.kv_heads;
    let most = (512 / head_stride(blueprint)).clamp(1, 8);
    (1..=most).rev().find(|group| shared.is_multiple_of(*group)).unwrap_or(1)
}

/// Numbers of groups of eight rows that the kernel of a format is compiled for.
fn groups(format: &str) -> &'static [usize] {
    match format {
        "F32" => &[1],
        "F16" | "BF16" => &[1, 2],
        _ => &[1, 2, 4],
    }
}

/// The most rows that one launch of a format's kernel takes.
pub(super) fn most_rows(format: Format) -> usize {
    8 * groups(format.name()).last().copied().unwrap_or(1)
}

fn linear_name(format: &str, epilogue: Epilogue, groups: usize) -> String {
    format!("linear_{format}_{}_{groups}", epilogue as i32)
}

/// Defines a kernel; `ENTRY` asserts the size of its parameter.
fn entry<A: Arguments>(name: &str, call: &str, blocks: usize) -> String {
    format!("ENTRY({}, {}, {}, {blocks}, {name}, ({call}))", A::NAME, size_of::<A>(), A::THREADS)
}

impl Kernels {
    /// Compiles or loads the kernels of a model.
    pub(super) fn load(gpu: &Gpu, request: &Request<'_>) -> Result<Self> {
        let module = gpu.compile(&request.source(gpu.arch()))?;
        let mut linear = HashMap::new();
        for (name, epilogue) in request.uses {
            let format = Format::parse(name).unwrap_or(Format::F32);
            for groups in groups(name) {
                linear.insert((format, *epilogue, *groups), module.kernel(&linear_name(name, *epilogue, *groups))?);
            }
        }
        let (mut embed, mut widen) = (HashMap::new(), HashMap::new());
        for name in request.formats() {
            let format = Format::parse(name).unwrap_or(Format::F32);
            embed.insert(format, module.kernel(&format!("embed_{name}"))?);
            widen.insert(format, module.kernel(&format!("widen_{name}"))?);
        }
        Ok(Self {
            linear,
            embed,
            widen,
            angles: module.kernel("k_angles")?,
            norm: module.kernel("k_norm")?,
            place_heads: module.kernel("k_place_heads")?,
            gate: module.kernel("k_gate")?,
            narrow_rows: module.kernel("k_narrow_rows")?,
            finish: module.kernel("k_finish")?,
            choose: module.kernel("k_choose")?,
            copy_pages: module.kernel("k_copy_pages")?,
            move_positions: module.kernel("k_move_positions")?,
            attend: module.kernel("k_attend")?,
            attend_chain: request.has_chains().then(|| module.kernel("k_attend_chain")).transpose()?,
            _module: module,
        })
    }

    /// The kernel for a number of rows, and the most rows it takes.
    pub(super) fn linear(&self, format: Format, epilogue: Epilogue, rows: usize) -> Result<Kernel<LinearArgs>> {
        let sizes = groups(format.name());
        let groups = sizes.iter().find(|groups| 8 * **groups >= rows).or(sizes.last()).copied().unwrap_or(1);
        self.linear.get(&(format, epilogue, groups)).copied().ok_or_else(|| missing(format))
    }

    pub(super) fn embed(&self, format: Format) -> Result<Kernel<EmbedArgs>> {
        self.embed.get(&format).copied().ok_or_else(|| missing(format))
    }

    pub(super) fn widen(&self, format: Format) -> Result<Kernel<WidenArgs>> {
        self.widen.get(&format).copied().ok_or_else(|| missing(format))
    }
}

fn missing(format: Format) -> Error {
    Error::DeviceFailed { reason: format!("no kernel was compiled for {}", format.name()) }
}
