use super::*;

fn with_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

#[test]
fn every_index_runs_once_on_any_number_of_threads() {
    for threads in 1..6 {
        with_threads(threads, || {
            Workers::awake(Simd::detect(), |workers| {
                for (count, grain) in [(0, 1), (1, 1), (2, 7), (5, 1), (64, 3), (1000, 10), (7, 7), (3, 1)].repeat(50) {
                    let mut runs = vec![0; count];
                    workers.chunks(&mut runs, 1, grain, |index, runs| runs[0] += index + 1);
                    assert!(runs.iter().enumerate().all(|(index, runs)| *runs == index + 1), "{runs:?}");
                    let seen = AtomicUsize::new(0);
                    workers.share(count, grain, |range| {
                        seen.fetch_add(range.len(), Ordering::Relaxed);
                    });
                    assert_eq!(seen.into_inner(), count);
                }
            });
        });
    }
}

#[test]
fn the_last_chunk_may_be_short() {
    let mut items: Vec<usize> = vec![0; 23];
    with_threads(3, || {
        Workers::awake(Simd::detect(), |workers| {
            workers.chunks(&mut items, 5, 1, |index, items| items.fill(index + items.len()))
        });
    });
    assert_eq!(items[..20], [5, 6, 7, 8].map(|value| [value; 5]).concat());
    assert_eq!(items[20..], [7; 3]);
}

#[test]
fn a_panic_reaches_the_leader_and_the_workers_go_on() {
    with_threads(3, || {
        Workers::awake(Simd::detect(), |workers| {
            for bad in 0..30 {
                let lead = || workers.share(30, 1, |range| assert!(range.start != bad, "bad"));
                assert!(catch_unwind(AssertUnwindSafe(lead)).is_err());
                let seen = AtomicUsize::new(0);
                workers.share(30, 1, |_| {
                    seen.fetch_add(1, Ordering::Relaxed);
                });
                assert_eq!(seen.into_inner(), 30);
            }
        });
    });
}

#[test]
fn all_threads_of_a_pool_may_lead_steps_at_once() {
    use rayon::prelude::*;
    let sums: Vec<usize> = with_threads(2, || {
        let step = |_| {
            Workers::awake(Simd::detect(), |workers| {
                let sum = AtomicUsize::new(0);
                workers.share(100, 3, |range| {
                    sum.fetch_add(range.sum::<usize>(), Ordering::Relaxed);
                });
                sum.into_inner()
            })
        };
        (0..64).into_par_iter().map(step).collect()
    });
    assert!(sums.iter().all(|sum| *sum == 4950));
}
