use std::path::Path;

use wsd_nn::{Checkpoint, arch};

use super::*;
use crate::adapters::AdapterEntry;
use crate::objectives::Objective;
use crate::optimizers::{OPTIMIZERS, OptimizerEntry};
use crate::trainer::{Choice, TrainerOptions};
use crate::{Layout, Sequence};

/// The end of a domain that nobody watches.
fn unwatched(_: &mut Trainer, _: usize) -> Result<()> {
    Ok(())
}

fn trainer() -> Trainer {
    // Adam would make steps of gradients that are mere rounding.
    trainer_with("sgd")
}

fn trainer_with(optimizer: &str) -> Trainer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let blueprint = arch::blueprint(&checkpoint.config).unwrap();
    let weights = Layout::new(&blueprint).read(&checkpoint).unwrap();
    let adapter = Choice::of(AdapterEntry::find("orthogonal").unwrap());
    let optimizer = Choice::of(OptimizerEntry::find(optimizer).unwrap());
    let options = TrainerOptions { adapter, optimizer, ..TrainerOptions::default() };
    Trainer::try_new(&blueprint, weights, &options).unwrap()
}

fn domain(name: &str, stride: usize) -> Domain {
    let text = |row: usize| (0..24).map(|at| ((row * 7 + at * stride) % 97 + 3) as u32).collect();
    let examples = (0..10).map(|row| Example::of(Sequence::targets_from(1, text(row)))).collect();
    Domain { name: name.into(), examples }
}

fn adaptation<'a>(folder: &Path, options: AdaptOptions, stop: &'a AtomicBool) -> Adaptation<'a> {
    let loss = Term::new(&Choice::of(Objective::find("distill").unwrap()), Vec::new());
    Adaptation { folder: folder.into(), domains: vec![domain("one", 1), domain("two", 5)], loss, options, stop }
}

fn options() -> AdaptOptions {
    let (learning_rate, mask_share, momentum) = (0.5, 0.4, 0.9);
    AdaptOptions {
        batch_size: 3,
        learning_rate,
        mask_share,
        mask_token: 1,
        momentum,
        resets: false,
        save_steps: 2,
        seed: 4,
    }
}

struct StopAt<'a>(usize, &'a AtomicBool);

impl Reporter for StopAt<'_> {
    fn progress(&mut self, row: &serde_json::Map<String, serde_json::Value>, _: usize, _: f64) {
        if row["step"] == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// The end of an adaptation that was stopped at a step, if it is given.
fn adapted(options: &AdaptOptions, stop_at: Option<usize>) -> (Trainer, Vec<usize>) {
    let (folder, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let (mut ends, mut trainer_now) = (Vec::new(), trainer());
    let adaptation = adaptation(folder.path(), options.clone(), &stop);
    let mut ended = |_: &mut Trainer, index| {
        ends.push(index);
        Ok::<_, Error>(())
    };
    if let Some(step) = stop_at {
        let finished = adaptation.run(&mut trainer_now, &mut StopAt(step, &stop), &mut ended).unwrap();
        assert_eq!(finished, Finished::Stopped);
        stop.store(false, Ordering::Relaxed);
        trainer_now = trainer();
    }
    assert_eq!(adaptation.run(&mut trainer_now, &mut (), &mut ended).unwrap(), Finished::Completed);
    (trainer_now, ends)
}

#[test]
fn a_stopped_stream_ends_with_the_same_bits() {
    for resets in [false, true] {
        let options = AdaptOptions { resets, ..options() };
        let (whole, ends) = adapted(&options, None);
        assert_eq!((whole.state.step, ends), (8, vec![0, 1]));
        // Step 4 is the end of the first domain, which is looked at again.
        let (resumed, ends) = adapted(&options, Some(4));
        assert_eq!(ends, [0, 0, 1]);
        assert!(resumed.state.parameters == whole.state.parameters && resumed.state.average == whole.state.average);
    }
}

#[test]
fn without_masks_a_student_stays_with_its_teacher() {
    let (still, _) = adapted(&AdaptOptions { mask_share: 0.0, ..options() }, None);
    let (moved, _) = adapted(&options(), None);
    let start = trainer().state.parameters;
    let far = |one: &[f32]| one.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far(&moved.state.average) > 1e-3 && far(&moved.state.parameters) > far(&moved.state.average));
    let (mut still, mut moved, mut source) = (still, moved, trainer());
    let term = |trainer: &mut Trainer| {
        let mut term = Term::new(&Choice::of(Objective::find("pretrain").unwrap()), domain("one", 1).examples);
        term.evaluation = Vec::new();
        trainer.teacher_loss(&term, 4).unwrap()
    };
    source.state.average = source.state.parameters.clone();
    let before = term(&mut source);
    let [still, moved] = [term(&mut still), term(&mut moved)].map(|after| (after - before).abs());
    assert!(still < 0.2 * moved && moved > 1e-3, "{still} without masks, {moved} with");
}

#[test]
fn a_teacher_of_momentum_one_stays() {
    let (frozen, _) = adapted(&AdaptOptions { momentum: 1.0, ..options() }, None);
    assert!(frozen.state.average == trainer().state.parameters);
}

#[test]
fn wrong_options_and_domains_are_refused() {
    let stop = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = adaptation(folder.path(), AdaptOptions { mask_share: 1.5, ..options() }, &stop);
    let error = wrong.run(&mut trainer(), &mut (), &mut unwatched).unwrap_err().to_string();
    assert_eq!(error, "`mask_share` must be from 0 to 1, got 1.5");
    let nothing = AdaptOptions { batch_size: 0, ..options() }.check().unwrap_err().to_string();
    assert_eq!(nothing, "`batch_size` must be at least 1, got 0");
    wrong.options.mask_share = 0.5;
    wrong.domains[1].examples.clear();
    let error = wrong.run(&mut trainer(), &mut (), &mut unwatched).unwrap_err().to_string();
    assert_eq!(error, "`stream` must be files with texts, got two");
}

/// The parameters and the teacher after domains, with masks that do not depend on the step.
fn after(optimizer: &str, resets: bool, domains: Vec<Domain>) -> [Vec<f32>; 2] {
    let (folder, stop) = (tempfile::tempdir().unwrap(), AtomicBool::new(false));
    let options = AdaptOptions { resets, mask_share: 1.0, learning_rate: 1e-2, ..options() };
    let mut adaptation = adaptation(folder.path(), options, &stop);
    adaptation.domains = domains;
    let mut trainer = trainer_with(optimizer);
    adaptation.run(&mut trainer, &mut (), &mut unwatched).unwrap();
    [trainer.state.parameters, trainer.state.average]
}

/// Moments and their bias correction begin anew too, so that the second domain is the only one.
#[test]
fn a_reset_forgets_the_first_domain() {
    for entry in OPTIMIZERS {
        let both = || vec![domain("one", 1), domain("two", 5)];
        let alone = after(entry.name, true, vec![domain("two", 5)]);
        assert!(after(entry.name, true, both()) == alone, "{}", entry.name);
        assert!(after(entry.name, false, both()) != alone, "{}", entry.name);
    }
}
