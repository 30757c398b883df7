//! The child: runs mutated inputs until its time is over.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use crate::mutation::{Random, mutated};
use crate::targets::Target;

/// The file with the input that is being run.
pub(crate) const CURRENT: &str = "current";
/// The file with the number of inputs run so far.
pub(crate) const COUNT: &str = "count";
/// The folder of inputs with outcomes of their own.
pub(crate) const CORPUS: &str = "corpus";

pub(crate) fn run(target: &'static Target, folder: &Path, seed: u64, time: Duration) -> Result<()> {
    let run = target.open()?;
    let corpus_folder = folder.join(CORPUS);
    fs_err::create_dir_all(&corpus_folder)?;
    let mut corpus = (target.seeds)()?;
    for entry in fs_err::read_dir(&corpus_folder)? {
        corpus.push(fs_err::read(entry?.path())?);
    }
    let mut outcomes = HashSet::new();
    for input in &corpus {
        outcomes.insert(kind(&run(input)));
    }
    let (mut random, started, mut count) = (Random::new(seed), Instant::now(), 0u64);
    while started.elapsed() < time {
        let [one, other] = [(); 2].map(|()| random.below(corpus.len()));
        let input = mutated(&mut random, &corpus[one], &corpus[other]);
        fs_err::write(folder.join(CURRENT), &input)?;
        if outcomes.insert(kind(&run(&input))) {
            fs_err::write(corpus_folder.join(name(&input)), &input)?;
            corpus.push(input);
        }
        count += 1;
        if count.is_multiple_of(16) {
            fs_err::write(folder.join(COUNT), count.to_string())?;
        }
    }
    Ok(fs_err::write(folder.join(COUNT), count.to_string())?)
}

/// Returns a name for an input, from its bytes.
pub(crate) fn name(input: &[u8]) -> String {
    Sha256::digest(input).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the words of an outcome without what varies: numbers, and quoted parts.
fn kind(outcome: &str) -> String {
    let mut kind = String::new();
    for (index, part) in outcome.split(['`', '"', '\'']).enumerate() {
        if index % 2 == 0 {
            kind.extend(part.chars().filter(|letter| letter.is_ascii_alphabetic() || *letter == ' ').take(80));
        }
    }
    kind.truncate(240);
    kind
}
