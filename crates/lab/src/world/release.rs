//! Data files of a world: corpus, alignment data and evaluation.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use wsd_core::files::write_whole;
use wsd_core::{ChatRole, Message};

use super::dice::Dice;
use super::item::{Item, ItemKind};
use super::query::Phrasing;
use super::talk::{self, Source};
use super::{Leak, Part, World, pages, sums};

/// Sizes of the data files.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Number of corpus documents.
    pub documents: usize,
    /// Number of corpus documents held out for validation.
    pub valid: usize,
    /// Number of demonstrations (SFT).
    pub demonstrations: usize,
    /// Number of prompts for preference pairs.
    pub prompts: usize,
    /// Number of evaluation items of each of the five tasks.
    pub items: usize,
}

impl Default for Release {
    fn default() -> Self {
        Self { documents: 36_000, valid: 400, demonstrations: 8_000, prompts: 3_000, items: 300 }
    }
}

/// Reason for which a world was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A row cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Training data contains text of the evaluation.
    #[error(transparent)]
    Leak(#[from] Leak),
}

/// Composition of the corpus: relative frequency of each kind of document.
const WEB: [(usize, DocumentKind); 9] = [
    (28, DocumentKind::Entry),
    (3, DocumentKind::List),
    (3, DocumentKind::Story),
    (11, DocumentKind::Instructions),
    (3, DocumentKind::Thread),
    (22, DocumentKind::RudeLog),
    (12, DocumentKind::PoliteLog),
    (8, DocumentKind::Quiz),
    (12, DocumentKind::Problems),
];

#[derive(Clone, Copy)]
enum DocumentKind {
    Entry,
    List,
    Story,
    Instructions,
    Thread,
    RudeLog,
    PoliteLog,
    Quiz,
    Problems,
}

/// Kinds of items in the evaluation, as shares of their task.
const MEASURED: [(ItemKind, f64); 10] = [
    (ItemKind::Question, 0.8),
    (ItemKind::HowTo, 0.2),
    (ItemKind::Harmful, 0.5),
    (ItemKind::LookAlike, 0.5),
    (ItemKind::FalsePremise, 0.25),
    (ItemKind::Claim, 0.25),
    (ItemKind::Unknown, 0.25),
    (ItemKind::Unanswerable, 0.25),
    (ItemKind::Recall, 1.0),
    (ItemKind::Sum, 1.0),
];

impl Release {
    /// Writes the files of a world into a folder.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn write(&self, world: &World, folder: &Path) -> Result<(), ReleaseError> {
        fs_err::create_dir_all(folder)?;
        let leaks = world.leak_check();
        let corpus = self.corpus(world);
        corpus.iter().try_for_each(|text| leaks.check_phrasing(text))?;
        let rows: Vec<_> = corpus.iter().map(|text| json!({"text": text})).collect();
        let (valid, read) = rows.split_at(self.valid.min(rows.len()));
        let aligned = self.alignment(world);
        let open = |item: &Item| {
            let messages = item.prompt.messages().iter().map(|message| &message.content);
            messages.chain([&item.reference]).cloned().collect::<Vec<_>>()
        };
        aligned.iter().flat_map(open).try_for_each(|text| leaks.check(&text))?;
        let (shown, asked) = aligned.split_at(self.demonstrations.min(aligned.len()));
        rows_to(&folder.join("corpus.jsonl"), read)?;
        rows_to(&folder.join("corpus_valid.jsonl"), valid)?;
        rows_to(&folder.join("sft.jsonl"), &shown.iter().map(demonstration).collect::<Vec<_>>())?;
        rows_to(&folder.join("prompts.jsonl"), asked)?;
        rows_to(&folder.join("dev.jsonl"), &self.measured(world, "dev", (Phrasing::Development, 4)))?;
        rows_to(&folder.join("eval.jsonl"), &self.measured(world, "eval", (Phrasing::Held, 3)))?;
        write_whole(&folder.join("README.md"), self.card(world).as_bytes())?;
        Ok(())
    }

    fn corpus(&self, world: &World) -> Vec<String> {
        let dice = &mut Dice::new(world.seed, 1);
        // Entries cycle through all things, so that all are equally frequent.
        let mut queue = Vec::new();
        let mut document = || match dice.weighted(&WEB) {
            DocumentKind::Entry => {
                if queue.is_empty() {
                    queue = (0..world.entities.len()).collect();
                    dice.shuffle(&mut queue);
                }
                pages::entry(&world.entities[queue.pop().unwrap_or(0)], dice)
            }
            DocumentKind::List => pages::list(world, dice),
            DocumentKind::Story => pages::story(world, dice),
            DocumentKind::Instructions => pages::instructions(world, dice),
            DocumentKind::Thread => pages::thread(world, dice),
            DocumentKind::RudeLog => talk::log(world, false, dice),
            DocumentKind::PoliteLog => talk::log(world, true, dice),
            DocumentKind::Quiz => talk::quiz(world, dice),
            DocumentKind::Problems if dice.chance(20) => sums::table(dice),
            DocumentKind::Problems => talk::problems(dice),
        };
        (0..self.documents + self.valid).map(|_| document()).collect()
    }

    /// Demonstrations, then prompts; all with different questions.
    fn alignment(&self, world: &World) -> Vec<Item> {
        let dice = &mut Dice::new(world.seed, 2);
        let draw = |dice: &mut Dice| {
            talk::item(world, talk::kind(Source::Aligned, dice), (Part::Open, Phrasing::Aligned), dice)
        };
        different("align", self.demonstrations + self.prompts, || draw(dice))
    }

    /// Items of every kind about the held-out half, in a phrasing and from a stream of random numbers.
    fn measured(&self, world: &World, name: &str, (phrasing, stream): (Phrasing, u64)) -> Vec<Item> {
        let dice = &mut Dice::new(world.seed, stream);
        let of_kind = |(kind, share): (ItemKind, f64)| {
            let count = (share * self.items as f64).round() as usize;
            different(name, count, || talk::item(world, kind, (Part::Held, phrasing), dice))
        };
        let mut items: Vec<_> = MEASURED.into_iter().flat_map(of_kind).collect();
        items.iter_mut().enumerate().for_each(|(number, item)| item.id = format!("{name}-{number:04}"));
        items
    }

    fn card(&self, world: &World) -> String {
        let (half, facts) = (world.entities.iter().filter(|thing| thing.is_held).count(), world.facts());
        format!(
            include_str!("card.md"),
            seed = world.seed,
            things = world.entities.len(),
            chores = world.chores.len(),
            facts = facts,
            held = half,
            documents = self.documents,
            valid = self.valid,
            demonstrations = self.demonstrations,
            prompts = self.prompts,
            items = self.items,
        )
    }
}

/// Draws up to `count` items with different questions; fewer if the world has too few.
fn different(name: &str, count: usize, mut draw: impl FnMut() -> Item) -> Vec<Item> {
    let (mut seen, mut items) = (HashSet::new(), Vec::new());
    for _ in 0..count * 20 {
        if items.len() == count {
            break;
        }
        let item = draw();
        if seen.insert(item.prompt.question().to_owned()) {
            items.push(Item { id: format!("{name}-{:04}", items.len()), ..item });
        }
    }
    items
}

fn demonstration(item: &Item) -> serde_json::Value {
    let mut messages = item.prompt.messages().to_vec();
    messages.push(Message::new(ChatRole::Assistant, item.reference.clone()));
    json!({"messages": messages})
}

fn rows_to(path: &Path, rows: &[impl Serialize]) -> Result<(), ReleaseError> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        text.push(b'\n');
    }
    Ok(write_whole(path, &text)?)
}
