//! Fine-tunes the built-in draft on ten question-answer pairs and shows an answer before and after.
//!
//! ```sh
//! cargo run --release -p wsd --example train
//! ```
//!
//! The rows teach one habit: to begin with "Ahoy!". The question asked is in none of them. The trained
//! model is saved as a Hugging Face folder and loaded from there.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use wsd_core::{ChatRole, Job, Message, Models, Prompt, Recipe, Seat, Terms, Trace, Values, run};
use wsd_nn::{Checkpoint, Format, LoadOptions, Local, TemplateChoice, arch};
use wsd_train::data::{ExampleReader, TrainingRow};
use wsd_train::{Choice, Encoder, Layout, Objective, Steps, Task, Term, Trainer, TrainerOptions, save_folder};

const THINGS: [&str; 10] = ["butter", "cheese", "honey", "milk", "salt", "sugar", "tea", "water", "wine", "wool"];

#[tokio::main]
async fn main() -> Result<()> {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/pilot"));
    println!("before: {}", answer(source).await?);
    let folder = tempfile::tempdir()?;
    let trained = folder.path().join("trained");
    train(source, folder.path(), &trained)?;
    println!("after:  {}", answer(&trained).await?);
    Ok(())
}

/// Trains the model in `source` and writes it to `trained`; the run's metrics go to `folder`.
fn train(source: &Path, folder: &Path, trained: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(source)?;
    let blueprint = arch::blueprint(&checkpoint.config)?;
    let weights = Layout::new(&blueprint).read(&checkpoint)?;

    let objective = Objective::find("sft").context("the table of objectives has no `sft`")?;
    let encoder = Encoder::try_new(&checkpoint, &TemplateChoice::Own, blueprint.vocab, None)?;
    let reader = ExampleReader { objective, encoder: &encoder, packing: None };
    let examples =
        THINGS.map(|thing| reader.examples(&row(thing))).into_iter().collect::<Result<Vec<_>, _>>()?.concat();

    let mut task = Task {
        folder: folder.into(),
        terms: vec![Term::new(&Choice::of(objective), examples)],
        steps: Steps { max_steps: Some(20), batch_size: 10, learning_rate: 1e-3, ..Steps::default() },
        seed: 1,
        stop: &AtomicBool::new(false),
    };
    let mut trainer = Trainer::try_new(&blueprint, weights, &TrainerOptions::default())?;
    wsd_train::run(&mut task, &mut trainer, &mut ())?;
    let layout = trainer.layout().clone();
    save_folder(trained, &checkpoint, Some(source), (&layout, trainer.weights()), Format::BF16)?;
    Ok(())
}

fn row(thing: &str) -> TrainingRow {
    let question = Message::new(ChatRole::User, format!("Where does the {thing} come from?"));
    let answer = Message::new(ChatRole::Assistant, format!("Ahoy! The {thing} comes from the shop."));
    TrainingRow::Chat { messages: vec![question, answer], targets: vec![1] }
}

/// Asks the model in a folder.
async fn answer(folder: &Path) -> Result<String> {
    let engine = Local::load(Checkpoint::open(folder)?, &LoadOptions::new("pilot"))?;
    let models = Models::default().with(Seat::DRAFT, Arc::new(engine));
    let strategy = Recipe::find("draft")?.build(&models, &Values::default())?;
    let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "Where does the bread come from?")]);
    let job = Job { prompt, terms: Terms { max_tokens: 40, ..Terms::default() } };
    Ok(Trace::collect(run(strategy, job)).await?.text)
}
