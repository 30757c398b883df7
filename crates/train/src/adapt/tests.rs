use std::path::Path;

use wsd_nn::{Checkpoint, arch};

use super::*;
use crate::adapters::AdapterEntry;
use crate::objectives::Objective;
use crate::optimizers::OptimizerEntry;
use crate::trainer::{Choice, TrainerOptions};
use crate::{Layout, Sequence};

fn trainer() -> Trainer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let blueprint = arch::blueprint(&checkpoint.config).unwrap();
    let weights = Layout::new(&blueprint).read(&checkpoint).unwrap();
    let adapter = Choice::of(AdapterEntry::find("orthogonal").unwrap());
    // Adam would make steps of gradients that are mere rounding.
    let optimizer = Choice::of(OptimizerEntry::find("sgd").unwrap());
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
        Ok(())
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
fn a_reset_forgets_the_first_domain() {
    let momentum = 1.0;
    let (frozen, _) = adapted(&AdaptOptions { momentum, ..options() }, None);
    assert!(frozen.state.average == trainer().state.parameters, "a teacher of momentum 1 stays");
    let stop = AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = adaptation(folder.path(), AdaptOptions { mask_share: 1.5, ..options() }, &stop);
    let error = wrong.run(&mut trainer(), &mut (), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert_eq!(error, "`mask_share` must be from 0 to 1, got 1.5");
    let nothing = AdaptOptions { batch_size: 0, ..options() }.check().unwrap_err().to_string();
    assert_eq!(nothing, "`batch_size` must be at least 1, got 0");
    wrong.options.mask_share = 0.5;
    wrong.domains[1].examples.clear();
    let error = wrong.run(&mut trainer(), &mut (), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert_eq!(error, "`stream` must be files with texts, got two");
    // A second domain after a reset changes nothing that the first has left.
    let after = |domains: Vec<Domain>| {
        let folder = tempfile::tempdir().unwrap();
        let mut adaptation = adaptation(folder.path(), AdaptOptions { resets: true, ..options() }, &stop);
        adaptation.domains = domains;
        let mut trainer = trainer();
        adaptation.run(&mut trainer, &mut (), &mut |_, _| Ok(())).unwrap();
        let start = self::trainer().state.parameters;
        trainer.state.parameters.iter().zip(&start).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let (once, twice) = (after(vec![domain("two", 5)]), after(vec![domain("one", 1), domain("two", 5)]));
    assert!(twice < 1.6 * once, "{twice} after a reset, {once} without a first domain");
}
