//! Attention of a step over its KV caches.
//!
//! A task is one token in one key and value head. Positions are attended to in blocks, the pages of
//! the cache, and the parts of blocks are merged in order, so that a long context can be shared among
//! threads without a difference in the bits.

use std::borrow::Cow;
use std::ops::Range;

use super::place::{Place, Visibility};
use crate::arch::Blueprint;
use crate::cache::{LayerCache, PAGE, Rows};
use crate::executor::Span;
use crate::kernels::{self, Attention, KvFormat, Simd, Workers};

/// Multiplications per piece of work.
const PER_PIECE: usize = 1 << 14;
/// Pieces of a step of many tokens: few, so that the tokens of a piece read a block while it is in
/// the processor's cache.
const PIECES: usize = 32;
/// Tasks that a thread finishes at a time.
const FINISHED: usize = 64;
/// Tasks from which a step keeps its threads busy with whole tasks.
const WHOLE_TASKS: usize = 64;

/// The attention of one layer.
pub(super) struct LayerAttention<'a> {
    pub(super) simd: Simd,
    pub(super) blueprint: &'a Blueprint,
    pub(super) format: KvFormat,
    /// The number of positions that a token sees.
    pub(super) window: usize,
    /// The sink of each query head; empty without sinks.
    pub(super) sinks: &'a [f32],
    /// The cache of each span.
    pub(super) caches: Vec<&'a LayerCache>,
    pub(super) places: &'a [Place],
    pub(super) spans: &'a [Span<'a>],
}

/// Some blocks of a task.
#[derive(Clone, Copy)]
struct Unit {
    task: usize,
    first_block: usize,
    last_block: usize,
}

/// Buffers of a piece of work.
#[derive(Default)]
struct Buffers {
    scores: Vec<f32>,
    part: Vec<f32>,
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl LayerAttention<'_> {
    /// Computes `(tokens, heads, head_dim)` from queries of the same shape. `parts` is scratch memory.
    pub(super) fn apply(&self, workers: &Workers<'_>, queries: &[f32], parts: &mut Vec<f32>, attended: &mut [f32]) {
        let (group, width) = (self.group(), self.width());
        let queries = self.padded(queries);
        let units = self.units();
        let len = kernels::part_len(group, width);
        parts.resize(units.len() * len, 0.0);
        let multiplications = 2 * group * width * self.positions() / units.len().max(1);
        let per_piece = PER_PIECE.div_ceil(multiplications.max(1)).max(units.len() / PIECES);
        workers.chunks(parts, per_piece * len, 1, |piece, parts| {
            let units = &units[piece * per_piece..][..parts.len() / len];
            self.attend(&queries, units, parts);
        });
        let floats = group * self.blueprint.head_dim;
        workers.chunks(attended, FINISHED * floats, 1, |piece, attended| {
            for (task, out) in (piece * FINISHED..).zip(attended.chunks_exact_mut(floats)) {
                self.finish(task, units.partition_point(|unit| unit.task < task), (&units, parts), out);
            }
        });
    }

    /// Merges the parts of a task, from its first unit on, and divides by the weights.
    fn finish(&self, task: usize, first: usize, (units, parts): (&[Unit], &[f32]), out: &mut [f32]) {
        let group = self.group();
        let sinks = if self.sinks.is_empty() { self.sinks } else { &self.sinks[self.head(task) * group..][..group] };
        let len = parts.len() / units.len();
        let count = units[first..].iter().take_while(|unit| unit.task == task).count();
        let parts = &parts[first * len..][..count * len];
        if count == 1 {
            return kernels::finish(parts, sinks, group, out);
        }
        let mut whole = parts[..len].to_vec();
        parts[len..].chunks_exact(len).for_each(|part| kernels::merge(&mut whole, part, group));
        kernels::finish(&whole, sinks, group, out);
    }

    /// Query heads per key and value head.
    fn group(&self) -> usize {
        self.blueprint.heads / self.blueprint.kv_heads
    }

    /// Width of a head in the cache.
    fn width(&self) -> usize {
        self.blueprint.head_dim.next_multiple_of(16)
    }

    fn head(&self, task: usize) -> usize {
        task % self.blueprint.kv_heads
    }

    fn place(&self, task: usize) -> &Place {
        &self.places[task / self.blueprint.kv_heads]
    }

    /// Queries with their heads padded to [`LayerAttention::width`].
    fn padded<'q>(&self, queries: &'q [f32]) -> Cow<'q, [f32]> {
        let (head_dim, width) = (self.blueprint.head_dim, self.width());
        if head_dim == width {
            return Cow::Borrowed(queries);
        }
        let mut padded = vec![0.0; queries.len() / head_dim * width];
        for (to, from) in padded.chunks_exact_mut(width).zip(queries.chunks_exact(head_dim)) {
            to[..head_dim].copy_from_slice(from);
        }
        Cow::Owned(padded)
    }

    /// The positions on its path that a token sees.
    fn seen(&self, place: &Place) -> Range<usize> {
        let end = place.position + 1;
        end.saturating_sub(self.window)..end
    }

    /// The number of positions that all tasks see.
    fn positions(&self) -> usize {
        self.places.iter().map(|place| self.seen(place).len()).sum::<usize>() * self.blueprint.kv_heads
    }

    /// All tasks, each as one unit, or few tasks as one unit per block.
    fn units(&self) -> Vec<Unit> {
        let tasks = self.places.len() * self.blueprint.kv_heads;
        let units = (0..tasks).flat_map(|task| {
            let seen = self.seen(self.place(task));
            let (first, last) = (seen.start / PAGE, (seen.end - 1) / PAGE);
            let step = if tasks < WHOLE_TASKS { 1 } else { last - first + 1 };
            (first..=last).step_by(step).map(move |block| Unit {
                task,
                first_block: block,
                last_block: last.min(block + step - 1),
            })
        });
        units.collect()
    }

    /// Computes the parts of units, block after block.
    fn attend(&self, queries: &[f32], units: &[Unit], parts: &mut [f32]) {
        let len = parts.len() / units.len();
        let blocks = units.iter().enumerate().flat_map(|(index, unit)| {
            (unit.first_block..=unit.last_block).map(move |block| (self.head(unit.task), block, index))
        });
        let mut blocks: Vec<_> = blocks.collect();
        // Units that read the same block do so one after the other.
        blocks.sort_unstable();
        let mut buffers = Buffers { part: vec![0.0; len], ..Buffers::default() };
        for (_, block, index) in blocks {
            let (unit, part) = (units[index], &mut parts[index * len..][..len]);
            if block == unit.first_block {
                self.attend_block(queries, (unit.task, block), &mut buffers, part);
            } else {
                let mut next = std::mem::take(&mut buffers.part);
                self.attend_block(queries, (unit.task, block), &mut buffers, &mut next);
                kernels::merge(part, &next, self.group());
                buffers.part = next;
            }
        }
    }

    /// Computes the part of one block of a task.
    fn attend_block(&self, queries: &[f32], (task, block): (usize, usize), buffers: &mut Buffers, part: &mut [f32]) {
        let place = self.place(task);
        let seen = self.seen(place);
        let positions = seen.start.max(block * PAGE)..seen.end.min((block + 1) * PAGE);
        let head = &self.caches[place.span].heads[self.head(task)];
        let Buffers { scores, keys, values, .. } = buffers;
        let floats = self.group() * self.width();
        let attention = Attention {
            queries: &queries[task * floats..][..floats],
            keys: self.rows(place, &head.keys, positions.clone(), keys),
            values: self.rows(place, &head.values, positions, values),
            format: self.format,
            width: self.width(),
            scale: self.blueprint.attention_scale,
            softcap: self.blueprint.attention_softcap,
        };
        kernels::attend(self.simd, attention, scores, part);
    }

    /// Returns the rows of positions on a token's path. Those of a path in a tree are gathered, so that
    /// attention reads them as it reads a chain, with equal bits.
    fn rows<'r>(&self, place: &Place, rows: &'r Rows, positions: Range<usize>, gathered: &'r mut Vec<u8>) -> &'r [u8] {
        let fork = self.spans[place.span].start;
        match &place.visibility {
            Visibility::Ancestors(ancestors) if positions.end > fork => {
                gathered.clear();
                for position in positions {
                    let cached = position.checked_sub(fork).map_or(position, |index| ancestors[index]);
                    rows.copy_row(cached, gathered);
                }
                gathered
            }
            _ => rows.get(positions),
        }
    }
}
