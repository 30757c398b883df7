//! The kernels of a model: sources with the model's sizes as constants, compiled when the model is
//! loaded and kept in a cache on disk.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use super::args::{
    AnglesArgs, AttentionArgs, CandidatesArgs, ChooseArgs, CopyArgs, EmbedArgs, ExpertsArgs, FinishArgs, GateArgs,
    GatherArgs, HeadsArgs, LinearArgs, NarrowArgs, NormArgs, RouteArgs, WidenArgs,
};
use super::driver::{Arguments, Gpu, Kernel, Module};
use super::matrix;
use super::pages::PAGE;
use crate::activation::Activation;
use crate::arch::{Blueprint, Experts};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::kernels::KvFormat;

/// Types and instructions of NVIDIA's processors, for which an emulator has others.
pub(super) const PRIMITIVES: &str = include_str!("kernels/primitives.cuh");
/// The operations of all threads of a block together.
pub(super) const BLOCK: &str = include_str!("kernels/block.cuh");
/// Numbers in memory.
pub(super) const NUMBERS: &str = include_str!("kernels/numbers.cuh");
const SOURCES: [&str; 9] = [
    BLOCK,
    NUMBERS,
    include_str!("kernels/weights.cuh"),
    include_str!("kernels/cache.cuh"),
    include_str!("kernels/linear.cuh"),
    include_str!("kernels/experts.cuh"),
    include_str!("kernels/rows.cuh"),
    include_str!("kernels/candidates.cuh"),
    include_str!("kernels/attention.cuh"),
];

/// Rows that a linear layer's kernel takes at once, by the number of groups of eight.
pub(super) const MOST_ROWS: usize = 32;

/// Experts of a token that the kernel which chooses them has room for.
pub(super) const MOST_USED: usize = 64;

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

/// The kernels of a mixture of experts.
pub(super) struct ExpertKernels {
    linear: HashMap<(Format, Epilogue, usize), Kernel<ExpertsArgs>>,
    pub(super) route: Kernel<RouteArgs>,
    pub(super) gather: Kernel<GatherArgs>,
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
    pub(super) find_candidates: Kernel<CandidatesArgs>,
    pub(super) copy_pages: Kernel<CopyArgs>,
    pub(super) move_positions: Kernel<CopyArgs>,
    pub(super) attend: Kernel<AttentionArgs>,
    /// Attention of many rows of one chain, for the sizes of heads it exists for.
    pub(super) attend_chain: Option<Kernel<AttentionArgs>>,
    /// Those of experts, for a model that has them.
    pub(super) experts: Option<ExpertKernels>,
    _module: Module,
}

/// The formats and last steps of a model's linear layers.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    pub(super) linear: BTreeSet<(&'static str, Epilogue)>,
    /// Those of experts.
    pub(super) experts: BTreeSet<(&'static str, Epilogue)>,
}

impl Uses {
    /// Both together.
    pub(super) fn join(mut self, other: Self) -> Self {
        self.linear.extend(other.linear);
        self.experts.extend(other.experts);
        self
    }
}

/// The types of numbers in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Types {
    /// Activations, and matrices that are no blocks: F32, BF16 or F16.
    pub(super) compute: Format,
    /// Cached keys and values.
    pub(super) kv: KvFormat,
}

impl Types {
    /// Bytes of an activation.
    pub(super) fn value_bytes(self) -> usize {
        self.compute.block_bytes()
    }

    /// Bytes of the keys or the values of a head in a page.
    fn run_bytes(self, blueprint: &Blueprint) -> usize {
        let values = head_stride(blueprint);
        let row = match self.kv {
            KvFormat::F32 => 4 * values,
            KvFormat::F16 | KvFormat::BF16 => 2 * values,
            KvFormat::Q8_0 => values + 2 * values.div_ceil(SCALED),
        };
        PAGE * row
    }

    /// Bytes of a page in a layer.
    pub(super) fn page_bytes(self, blueprint: &Blueprint) -> usize {
        2 * blueprint.kv_heads * self.run_bytes(blueprint)
    }
}

/// Cached bytes that share a scale.
const SCALED: usize = 32;

/// The needs of a model, from which its kernels follow.
pub(super) struct Request<'a> {
    pub(super) blueprint: &'a Blueprint,
    pub(super) types: Types,
    pub(super) uses: &'a Uses,
    pub(super) embedding: Format,
}

impl Request<'_> {
    fn formats(&self) -> BTreeSet<&'static str> {
        let uses = self.uses.linear.iter().chain(&self.uses.experts);
        uses.map(|(format, _)| *format).chain([self.embedding.name()]).collect()
    }

    /// True if the kernel for many rows of a chain exists; its source has the same condition.
    fn has_chains(&self) -> bool {
        let head = self.blueprint.head_dim;
        self.types.compute != Format::F32 && head.is_multiple_of(16) && head <= 128
    }

    /// The whole source.
    pub(super) fn source(&self, arch: u32) -> String {
        let blueprint = self.blueprint;
        let compute = match self.types.compute {
            Format::BF16 => 1,
            Format::F16 => 2,
            _ => 0,
        };
        let kv = match self.types.kv {
            KvFormat::F32 => 0,
            KvFormat::BF16 => 1,
            KvFormat::F16 => 2,
            KvFormat::Q8_0 => 3,
        };
        let activation = match blueprint.activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
            Activation::Gelu => 2,
            Activation::ClampedSilu => 3,
        };
        let experts = blueprint.experts;
        let constants = [
            ("ARCH", arch as usize),
            ("COMPUTE", compute),
            ("KV", kv),
            ("RUN_BYTES", self.types.run_bytes(blueprint)),
            ("HEAD", blueprint.head_dim),
            ("HEAD_STRIDE", head_stride(blueprint)),
            ("HEADS_Q", blueprint.heads),
            ("KV_HEADS", blueprint.kv_heads),
            ("GROUP", group(blueprint)),
            ("ACTIVATION", activation),
            ("GATED", usize::from(blueprint.gated)),
            ("EXPERTS", experts.map_or(0, |experts| experts.count)),
            ("EXPERTS_USED", experts.map_or(0, |experts| experts.used)),
            ("EXPERTS_NORMALIZED", experts.map_or(0, |experts| usize::from(experts.normalized))),
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
        for (format, epilogue, groups) in sizes(&self.uses.linear) {
            let call = format!("linear<{format}, {}, {groups}>", epilogue as i32);
            entries.push(entry::<LinearArgs>(&linear_name("linear", (format, epilogue, groups)), &call, 2));
        }
        for (format, epilogue, groups) in sizes(&self.uses.experts) {
            let call = format!("linear_of_experts<{format}, {}, {groups}>", epilogue as i32);
            entries.push(entry::<ExpertsArgs>(&linear_name("experts", (format, epilogue, groups)), &call, 2));
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
            entry::<CandidatesArgs>("k_find_candidates", "find_candidates", 1),
            entry::<CopyArgs>("k_copy_pages", "copy_pages", 1),
            entry::<CopyArgs>("k_move_positions", "move_positions", 1),
            entry::<AttentionArgs>("k_attend", "attend", 1),
        ]);
        if self.blueprint.experts.is_some() {
            entries.push(entry::<RouteArgs>("k_route", "route", 1));
            entries.push(entry::<GatherArgs>("k_gather_rows", "gather_rows", 1));
        }
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

/// Every kernel of these uses: format, last step and groups.
fn sizes(uses: &BTreeSet<(&'static str, Epilogue)>) -> impl Iterator<Item = (&'static str, Epilogue, usize)> {
    uses.iter().flat_map(|(format, epilogue)| groups(format).iter().map(|groups| (*format, *epilogue, *groups)))
}

/// The groups of the smallest kernel of a format for a number of rows, else of the largest.
fn groups_for(format: Format, rows: usize) -> usize {
    let sizes = groups(format.name());
    sizes.iter().find(|groups| 8 * **groups >= rows).or(sizes.last()).copied().unwrap_or(1)
}

/// Rows of the kernel of a format that a step of this many rows takes.
pub(super) fn rows_at_once(format: Format, rows: usize) -> usize {
    8 * groups_for(format, rows)
}

/// The most groups that the choices of experts make, of at most `most` choices each.
pub(super) fn most_groups(rows: usize, experts: &Experts, most: usize) -> usize {
    let choices = rows * experts.used;
    choices.min(experts.count + choices / most)
}

fn linear_name(kind: &str, (format, epilogue, groups): (&str, Epilogue, usize)) -> String {
    format!("{kind}_{format}_{}_{groups}", epilogue as i32)
}

/// Defines a kernel; `ENTRY` asserts the size of its parameter.
pub(super) fn entry<A: Arguments>(name: &str, call: &str, blocks: usize) -> String {
    format!("ENTRY({}, {}, {}, {blocks}, {name}, ({call}))", A::NAME, size_of::<A>(), A::THREADS)
}

impl Kernels {
    /// Compiles or loads the kernels of a model.
    pub(super) fn load(gpu: &Gpu, request: &Request<'_>) -> Result<Self> {
        let module = gpu.compile(&request.source(gpu.arch()))?;
        let linear = load_linear(&module, "linear", &request.uses.linear)?;
        let experts = request.blueprint.experts.map(|_| ExpertKernels::load(&module, &request.uses.experts));
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
            find_candidates: module.kernel("k_find_candidates")?,
            copy_pages: module.kernel("k_copy_pages")?,
            move_positions: module.kernel("k_move_positions")?,
            attend: module.kernel("k_attend")?,
            attend_chain: request.has_chains().then(|| module.kernel("k_attend_chain")).transpose()?,
            experts: experts.transpose()?,
            _module: module,
        })
    }

    /// The kernel for a number of rows, and the most rows it takes.
    pub(super) fn linear(&self, format: Format, epilogue: Epilogue, rows: usize) -> Result<Kernel<LinearArgs>> {
        self.linear.get(&(format, epilogue, groups_for(format, rows))).copied().ok_or_else(|| missing(format))
    }

    pub(super) fn embed(&self, format: Format) -> Result<Kernel<EmbedArgs>> {
        self.embed.get(&format).copied().ok_or_else(|| missing(format))
    }

    pub(super) fn widen(&self, format: Format) -> Result<Kernel<WidenArgs>> {
        self.widen.get(&format).copied().ok_or_else(|| missing(format))
    }
}

impl ExpertKernels {
    fn load(module: &Module, uses: &BTreeSet<(&'static str, Epilogue)>) -> Result<Self> {
        Ok(Self {
            linear: load_linear(module, "experts", uses)?,
            route: module.kernel("k_route")?,
            gather: module.kernel("k_gather_rows")?,
        })
    }

    /// The kernel for groups of at most `rows` rows.
    pub(super) fn linear(&self, format: Format, epilogue: Epilogue, rows: usize) -> Result<Kernel<ExpertsArgs>> {
        self.linear.get(&(format, epilogue, groups_for(format, rows))).copied().ok_or_else(|| missing(format))
    }
}

/// Kernels of linear layers of one kind.
fn load_linear<A: Arguments>(
    module: &Module,
    kind: &str,
    uses: &BTreeSet<(&'static str, Epilogue)>,
) -> Result<HashMap<(Format, Epilogue, usize), Kernel<A>>> {
    let load = |(name, epilogue, groups)| {
        let format = Format::parse(name).unwrap_or(Format::F32);
        Ok(((format, epilogue, groups), module.kernel(&linear_name(kind, (name, epilogue, groups)))?))
    };
    sizes(uses).map(load).collect()
}

fn missing(format: Format) -> Error {
    Error::DeviceFailed { reason: format!("no kernel was compiled for {}", format.name()) }
}
