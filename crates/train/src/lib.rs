//! The trainer of `wsd`: next tokens, answers, preferences.
//!
//! [`run()`] is the loop. An [`Objective`] grades examples by log-probabilities; a [`TrainableModel`]
//! carries the gradient on to the weights; an [`Adapter`] carries it on to the parameters; an
//! [`Optimizer`] updates these. Objectives, adapters and optimizers are entries of the tables
//! [`OBJECTIVES`], [`ADAPTERS`] and [`OPTIMIZERS`]: a new one is a file and a line in its table,
//! and run files, the command line and the tests follow.

pub mod adapt;
pub mod adapters;
mod checksum;
pub mod compress;
pub mod cues;
pub mod data;
pub mod draft_head;
mod encoder;
mod error;
pub mod events;
mod example;
mod export;
pub mod fidelity;
mod initialization;
mod layout;
mod matrix;
pub mod merge;
mod metrics;
mod model;
mod objectives;
mod optimizers;
mod order;
mod reference;
mod run;
mod run_file;
mod run_lock;
mod schedule;
pub mod sensitivity;
mod state;
mod steps;
mod svd;
mod switch;
mod task;
mod trainer;
mod update;
mod vocabulary;

pub use adapters::{ADAPTERS, Adapter, AdapterEntry, LowRank, Peft, Trained};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use example::{Example, Sequence};
pub use export::{name_reward_head, save_checkpoint, save_folder, save_tensors};
pub use initialization::{INITIALIZER_RANGE, random};
pub use layout::{Layout, Place, REWARD};
pub use metrics::{FILE as METRICS_FILE, Means, Metrics};
pub use model::{DraftBase, DraftExample, DraftLoss, DraftModel, ModelOptions, Pass, TrainableModel};
pub use objectives::{
    Loss, LossInput, LossOutput, Measure, Needs, OBJECTIVES, Objective, TargetTokens, Totals, Weight,
};
pub use optimizers::{OPTIMIZERS, Optimizer, OptimizerEntry, StepInput};
pub use order::Order;
pub use reference::remove_reference;
pub use run::{Finished, Reporter, prepare, run};
pub use run_file::{DataTable, ModelTable, ObjectiveTable, RunFile};
pub use run_lock::RunLock;
pub use schedule::{Decay, Schedule};
pub use state::{EarlyStopping, State, saved, set_aside_damaged};
pub use steps::Steps;
pub use switch::{Fit, OneSided, Position, fit_switch};
pub use task::Task;
pub use trainer::{Choice, Term, Trainer, TrainerOptions};
pub use vocabulary::{VocabularyOptions, train_tokenizer};
