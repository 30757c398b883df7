//! Threads that divide a batch.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Floats of a gradient that are summed at once.
const CHUNK: usize = 1 << 14;

/// The buffers of one thread.
pub(super) trait Buffers: Default + Send {
    /// The thread's sum of gradients with respect to the weights.
    fn gradient(&mut self) -> &mut Vec<f32>;
}

/// Threads with their buffers.
pub(super) struct WorkerThreads<W> {
    workers: Vec<W>,
    pool: rayon::ThreadPool,
}

impl<W: Buffers> WorkerThreads<W> {
    /// Starts threads, at least one.
    ///
    /// # Errors
    /// [`Error::Threads`].
    pub(super) fn try_new(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| Error::Threads { threads, reason: error.to_string() })?;
        Ok(Self { workers: (0..threads).map(|_| W::default()).collect(), pool })
    }

    /// Divides items by their numbers of tokens, lets each thread `work` on its share, and returns all
    /// outputs in order. Sets a `gradient` to the sum of those of the threads, in their order; without
    /// one, those of the threads are empty.
    pub(super) fn run<T: Sync, O: Send>(
        &mut self,
        (items, tokens): (&[T], impl Fn(&T) -> usize),
        gradient: Option<&mut [f32]>,
        work: impl Fn(&mut W, &[T]) -> Vec<O> + Sync,
    ) -> Vec<O> {
        let Self { workers, pool } = self;
        let (shares, len) = (shares(items, tokens, workers.len()), gradient.as_ref().map_or(0, |sum| sum.len()));
        let work = |(worker, share): (&mut W, &[T])| {
            worker.gradient().clear();
            worker.gradient().resize(len, 0.0);
            work(worker, share)
        };
        pool.install(|| {
            let outputs: Vec<_> = workers.par_iter_mut().zip(shares).map(work).collect();
            let parts: Vec<&[f32]> = workers.iter_mut().map(|worker| &**worker.gradient()).collect();
            if let Some(gradient) = gradient {
                gradient.par_chunks_mut(CHUNK).enumerate().for_each(|(index, sum)| {
                    sum.fill(0.0);
                    for part in &parts {
                        sum.iter_mut().zip(&part[index * CHUNK..]).for_each(|(sum, part)| *sum += part);
                    }
                });
            }
            outputs.into_iter().flatten().collect()
        })
    }
}

/// Divides items into consecutive runs of about equal numbers of tokens, one per thread.
fn shares<T>(items: &[T], tokens: impl Fn(&T) -> usize, threads: usize) -> Vec<&[T]> {
    let total: usize = items.iter().map(&tokens).sum();
    let (mut rest, mut seen) = (items, 0);
    let mut take = |thread: usize| {
        let wanted = total * (thread + 1) / threads;
        let mut len = 0;
        // An item across a border belongs to the side that holds more of its tokens.
        while let Some(tokens) = rest.get(len).map(&tokens) {
            if seen + tokens / 2 > wanted && thread + 1 < threads {
                break;
            }
            seen += tokens;
            len += 1;
        }
        let (share, others) = rest.split_at(len);
        rest = others;
        share
    };
    (0..threads).map(&mut take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_in_one_share() {
        let items: Vec<_> = (1..40).map(|i| i * 37 % 500 + 1).collect();
        for threads in 1..6 {
            let shares = shares(&items, |tokens| *tokens, threads);
            assert_eq!(shares.len(), threads);
            assert_eq!(shares.concat(), items);
        }
        assert!(shares(&[], |tokens| *tokens, 3).iter().all(|share| share.is_empty()));
    }
}
