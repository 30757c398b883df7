//! Compression of the tables of the vocabulary: an embedding `(vocab, hidden)`, and a head of its own,
//! become products of a matrix `(vocab, rank)` and a small one, whose frequent rows may be kept as they
//! are. [`FACTORIZATIONS`] is the table of methods.

mod direction;
mod svd;
mod usage;
mod weighted;

use serde::{Deserialize, Serialize};
use serde_json::json;
use wsd_nn::arch::{
    self, Blueprint, EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, EMBEDDING_RANK, Factors, HEAD_FACTOR, HEAD_KEPT,
    HEAD_RANK, Head, KEPT_TOKENS,
};
use wsd_nn::{Checkpoint, Format, Tensor, Weights};

pub use self::usage::Usage;

use crate::error::{Error, Result};
use crate::matrix::transposed;

/// Ranks that follow from a share are multiples of this: the engine stores matrices of such widths in
/// tiles.
const RANK_UNIT: usize = 4;

/// A matrix by its rows, and the settings of its factorization.
pub struct Table<'a> {
    /// The values, `(rows, width)`.
    pub values: &'a [f32],
    /// The width.
    pub width: usize,
    /// The rank of the product, from 1 to the width.
    pub rank: usize,
    /// Passes over the rows, for methods that learn.
    pub epochs: usize,
    /// The seed of the order of rows.
    pub seed: u64,
    /// The occurrences of the token of each row; empty where no texts were read.
    pub counts: &'a [u64],
    /// The second moment of the inputs of a head with these rows, `(width, width)`; empty where there
    /// is none.
    pub moment: &'a [f32],
}

/// A matrix as a product.
#[derive(Clone, Debug)]
pub struct Factored {
    /// `(rows, rank)`.
    pub rows: Vec<f32>,
    /// `(width, rank)`; the matrix is about `rows` times its transpose.
    pub factor: Vec<f32>,
    /// Rows by their numbers, and what is added to each, `(numbers, width)`.
    pub kept: (Vec<u32>, Vec<f32>),
}

impl Factored {
    /// The product of a matrix `(rows, rank)` and one of `(width, rank)`.
    #[must_use]
    pub fn new(rows: Vec<f32>, factor: Vec<f32>) -> Self {
        Self { rows, factor, kept: Default::default() }
    }

    /// Adds to some rows of `width` values what they lack of those of a table.
    fn keep(&mut self, values: &[f32], width: usize, numbers: &[u32]) {
        let image = self.product(width);
        let row = |number: &u32| *number as usize * width..(*number as usize + 1) * width;
        let own = numbers.iter().flat_map(row).map(|index| values[index] - image[index]).collect();
        self.kept = (numbers.to_vec(), own);
    }

    /// The matrix, `(rows, width)`.
    fn product(&self, width: usize) -> Vec<f32> {
        let mut image = direction::product(&self.rows, &self.factor, width);
        for (row, own) in self.kept.0.iter().zip(self.kept.1.chunks_exact(width)) {
            image[*row as usize * width..][..width].iter_mut().zip(own).for_each(|(value, own)| *value += own);
        }
        image
    }
}

/// A method of factoring a table.
pub struct Factorization {
    /// The name on the command line.
    pub name: &'static str,
    /// One line about it, with its source.
    pub about: &'static str,
    /// True if it reads the usage of the table by texts.
    pub needs_texts: bool,
    /// Computes the factors; reports finished passes and their number.
    pub factor: fn(&Table<'_>, &mut dyn FnMut(usize, usize)) -> Factored,
}

/// All methods; the first is the default.
pub static FACTORIZATIONS: &[&Factorization] = &[&direction::DIRECTION, &svd::SVD, &weighted::WEIGHTED];

impl Factorization {
    /// The method of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        FACTORIZATIONS.iter().copied().find(|entry| entry.name == name)
    }
}

/// The likeness of a table and its product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Likeness {
    /// The mean cosine of a row and its image.
    pub cosine: f64,
    /// The root of the mean squared difference of values.
    pub rmse: f64,
}

/// Compares a table, `(rows, width)`, with its product.
#[must_use]
pub fn likeness(values: &[f32], width: usize, factored: &Factored) -> Likeness {
    let image = factored.product(width);
    let (mut cosine, mut squares) = (0.0, 0.0);
    for (row, image) in values.chunks_exact(width).zip(image.chunks_exact(width)) {
        cosine += direction::cosine(row, image);
        squares += row.iter().zip(image).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    let rows = values.len() / width.max(1);
    Likeness { cosine: cosine / rows.max(1) as f64, rmse: (squares / values.len().max(1) as f64).sqrt() }
}

/// The sizes of a compression.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// The rank of the products.
    Rank(usize),
    /// The share of a table's values that its product has at most, above 0.
    Share(f64),
}

impl Size {
    /// The rank for a table of a model that keeps `kept` rows.
    fn rank(self, blueprint: &Blueprint, kept: usize) -> Result<usize> {
        let (rows, width) = (blueprint.vocab, blueprint.hidden);
        match self {
            Self::Rank(rank) if (1..=width).contains(&rank) => Ok(rank),
            Self::Rank(rank) => Err(Error::setting("rank", format!("from 1 to the model's width, {width}"), rank)),
            Self::Share(share) if share > 0.0 && share <= 1.0 => {
                let (whole, of_rank) = ((rows * width) as f64, (rows + width) as f64);
                let of_kept = (kept * width) as f64;
                match ((share * whole - of_kept).max(0.0) / of_rank) as usize {
                    0 => {
                        let least = (of_rank + of_kept) / whole;
                        Err(Error::setting("share", format!("at least {least:.4}, that of rank 1"), share))
                    }
                    rank @ 1..RANK_UNIT => Ok(rank),
                    rank => Ok(rank / RANK_UNIT * RANK_UNIT),
                }
            }
            Self::Share(share) => Err(Error::setting("share", "above 0 and at most 1", share)),
        }
    }
}

/// The settings of a compression.
pub struct CompressOptions {
    /// The method.
    pub method: &'static Factorization,
    /// The size.
    pub size: Size,
    /// Passes over the rows, for methods that learn.
    pub epochs: usize,
    /// The seed.
    pub seed: u64,
    /// The use of the tables by texts, for methods that read it, and for kept rows.
    pub usage: Option<Usage>,
    /// The number of rows, those of the most frequent tokens, that stay as they are.
    pub kept: usize,
}

impl CompressOptions {
    /// Checks that a model can be compressed with these settings.
    ///
    /// # Errors
    /// A rank or a share outside its limits; a model whose tables are products already.
    pub fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.fit(checkpoint).map(drop)
    }

    /// The blueprint of a model that can be compressed, and the rank of its products.
    fn fit(&self, checkpoint: &Checkpoint) -> Result<(Blueprint, usize)> {
        let blueprint = whole(checkpoint)?;
        if self.kept >= blueprint.vocab {
            return Err(Error::setting("keep", format!("below the vocabulary's {}", blueprint.vocab), self.kept));
        }
        let rank = self.size.rank(&blueprint, self.kept)?;
        Ok((blueprint, rank))
    }

    /// The tokens whose rows are kept, ascending.
    fn kept_tokens(&self, counts: &[u64]) -> Vec<u32> {
        let mut tokens: Vec<u32> = (0..counts.len() as u32).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(counts[*token as usize]));
        tokens.truncate(self.kept);
        tokens.sort_unstable();
        tokens
    }
}

/// The blueprint of a model whose tables are no products.
fn whole(checkpoint: &Checkpoint) -> Result<Blueprint> {
    let shape = |name: &str| checkpoint.weights.get(name).map(|tensor| tensor.shape.as_slice());
    let blueprint = arch::blueprint(&checkpoint.config)?.with_heads(shape);
    if blueprint.factors != Factors::default() {
        return Err(Error::setting("model", "a model of whole tables", "one that is compressed already"));
    }
    Ok(blueprint)
}

/// One compressed table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompressedTable {
    /// The name of its tensor.
    pub name: String,
    /// The rank of the product.
    pub rank: usize,
    /// Values of the table and of its product.
    pub values: [usize; 2],
    /// Rows that are kept.
    #[serde(default)]
    pub kept: usize,
    /// The likeness of both.
    #[serde(flatten)]
    pub likeness: Likeness,
}

/// Returns a model whose tables of the vocabulary are products, in F32, and a description of each.
/// Calls `report` with the name of a table, finished passes and their number, before the first too.
///
/// # Errors
/// A rank or a share outside its limits; a method without the usage it needs; a model whose tables are
/// products already, or that lacks its tables.
pub fn compress(
    checkpoint: &Checkpoint,
    options: &CompressOptions,
    mut report: impl FnMut(&str, usize, usize),
) -> Result<(Checkpoint, Vec<CompressedTable>)> {
    let (blueprint, rank) = options.fit(checkpoint)?;
    if options.method.needs_texts && options.usage.is_none() {
        return Err(Error::setting("method", "one that needs no texts where there are none", options.method.name));
    }
    if options.kept > 0 && options.usage.is_none() {
        return Err(Error::setting("keep", "0 where there are no texts", options.kept));
    }
    let width = blueprint.hidden;
    let head = Head::VOCABULARY.weight();
    let has_own_head = !blueprint.tied && blueprint.head(Head::VOCABULARY).is_some();
    let Usage { mut counts, moment } = options.usage.clone().unwrap_or_default();
    let kept = options.kept_tokens(&counts);
    // What a product does to these rows does not matter.
    kept.iter().for_each(|token| counts[*token as usize] = 0);
    let mut tables = vec![(EMBEDDING, EMBEDDING_FACTOR, EMBEDDING_KEPT, EMBEDDING_RANK)];
    tables.extend(has_own_head.then_some((&*head, HEAD_FACTOR, HEAD_KEPT, HEAD_RANK)));
    let mut compressed = checkpoint.clone();
    let mut tensors: Vec<Tensor> = checkpoint.weights.iter().cloned().collect();
    let mut about = Vec::new();
    for (name, factor_name, kept_name, key) in tables {
        let found = checkpoint.weights.require(&[(name.to_owned(), vec![blueprint.vocab, width])])?;
        let values = found[0].to_f32();
        let is_head = name == head || !has_own_head;
        let moment = if is_head { &moment[..] } else { &[] };
        let (epochs, seed) = (options.epochs, options.seed);
        let table = Table { values: &values, width, rank, epochs, seed, counts: &counts, moment };
        report(name, 0, options.epochs);
        let mut factored = (options.method.factor)(&table, &mut |done, all| report(name, done, all));
        factored.keep(&values, width, &kept);
        let Factored { rows, factor, kept: own } = &factored;
        about.push(CompressedTable {
            name: name.to_owned(),
            rank,
            values: [values.len(), rows.len() + factor.len() + own.1.len()],
            kept: kept.len(),
            likeness: likeness(&values, width, &factored),
        });
        let tensor = |name: &str, shape: Vec<usize>, values: &[f32]| -> Result<Tensor> {
            Ok(Tensor::new(name, Format::F32, shape, Format::F32.quantize(values)?)?)
        };
        tensors.push(tensor(name, vec![blueprint.vocab, rank], rows)?);
        tensors.push(if factor_name == HEAD_FACTOR {
            tensor(factor_name, vec![rank, width], &transposed(factor, rank))?
        } else {
            tensor(factor_name, vec![width, rank], factor)?
        });
        if !kept.is_empty() {
            tensors.push(tensor(kept_name, vec![kept.len(), width], &own.1)?);
            compressed.config.insert(KEPT_TOKENS.into(), json!(kept));
        }
        compressed.config.insert(key.into(), json!(rank));
    }
    compressed.weights = Weights::new(&*checkpoint.name, tensors);
    Ok((compressed, about))
}

#[cfg(test)]
mod tests;
