//! The training loop.
//!
//! Every step follows from the settings, the seed and the last checkpoint, so an interrupted run
//! that is resumed ends with bit-identical parameters.

mod objective_learner;
pub(crate) mod pace;
mod training_loop;

use crate::error::Result;
use crate::reference;
use crate::task::Task;
use crate::trainer::Trainer;
use objective_learner::ObjectiveLearner;
pub use training_loop::{Finished, Reporter};
pub(crate) use training_loop::{Learner, Step, TrainingLoop, broken, diverged};

/// Runs a training task, resuming from the latest checkpoint in its folder if there is one.
///
/// ```
/// use std::sync::atomic::AtomicBool;
/// use wsd_nn::{Checkpoint, arch};
/// use wsd_train::{Choice, Example, Finished, Layout, Objective, Sequence, Steps, Task, Term, Trainer, run};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../nn/tests/fixtures/llama");
/// # let checkpoint = Checkpoint::open(folder.as_ref())?;
/// # let output = tempfile::tempdir()?;
///
/// let blueprint = arch::blueprint(&checkpoint.config)?;
/// let weights = Layout::new(&blueprint).read(&checkpoint)?;
/// let rows = (0..10).map(|row| Example::of(Sequence::targets_from(1, vec![row, row + 1, row + 2])));
/// let objective = Choice::of(Objective::find("pretrain").unwrap());
/// let mut task = Task {
///     folder: output.path().into(),
///     terms: vec![Term::new(&objective, rows.collect())],
///     steps: Steps { max_steps: Some(8), learning_rate: 0.01, logging_steps: 1, ..Steps::default() },
///     seed: 1,
///     stop: &AtomicBool::new(false),
/// };
/// let mut trainer = Trainer::try_new(&blueprint, weights, &Default::default())?;
/// assert_eq!(run(&mut task, &mut trainer, &mut ())?, Finished::Completed);
/// assert_eq!(trainer.state.step, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// I/O errors; [`crate::Error::Diverged`] for a loss, a gradient or a parameter that is no longer a finite
/// number, and [`crate::Error::Setting`] for an objective that `trainer` has not the numbers for. The last
/// checkpoint then stays intact.
pub fn run(task: &mut Task<'_>, trainer: &mut Trainer, reporter: &mut dyn Reporter) -> Result<Finished> {
    prepare(task, trainer, reporter)?;
    let training = TrainingLoop { folder: &task.folder, steps: &task.steps, stop: task.stop };
    training.run(&mut ObjectiveLearner::new(task, trainer), reporter)
}

/// Computes what a run needs before its first step, the reference model's log-probabilities, unless it is
/// there. [`run`] does this itself; a caller does it before to tell it apart from the steps, which may be
/// stopped and resumed.
///
/// # Errors
/// I/O errors; [`crate::Error::Setting`] for an objective that `trainer` has not the numbers for;
/// [`wsd_nn::Error::DeviceMemory`] for a GPU with too little memory.
pub fn prepare(task: &mut Task<'_>, trainer: &mut Trainer, reporter: &mut dyn Reporter) -> Result<()> {
    trainer.check(&task.terms)?;
    trainer.require_memory(&task.terms)?;
    reference::fill(task, trainer, &mut |text| reporter.note(text))
}
