//! A world as files: what is read, what aligns, what measures.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;
use serde_json::json;
use wsd_core::files::write_whole;
use wsd_core::{ChatRole, Message};

use super::dice::Dice;
use super::item::{Item, ItemKind};
use super::talk::{self, Where};
use super::{Leak, Part, World, pages, sums};

/// How much of each is written.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Documents that a model reads.
    pub documents: usize,
    /// Documents kept for measuring the loss.
    pub valid: usize,
    /// Demonstrations.
    pub demonstrations: usize,
    /// Prompts to sample pairs for.
    pub prompts: usize,
    /// Items of each of the five tasks.
    pub items: usize,
}

impl Default for Release {
    fn default() -> Self {
        Self { documents: 36_000, valid: 400, demonstrations: 8_000, prompts: 3_000, items: 300 }
    }
}

/// Why a world was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file cannot be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A row cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The evaluation stands where it must not.
    #[error(transparent)]
    Leak(#[from] Leak),
}

/// The web in small: how often each sort of document comes.
const WEB: [(usize, Sort); 9] = [
    (28, Sort::Entry),
    (3, Sort::List),
    (3, Sort::Story),
    (11, Sort::Instructions),
    (3, Sort::Thread),
    (22, Sort::RudeLog),
    (12, Sort::PoliteLog),
    (8, Sort::Quiz),
    (12, Sort::Lesson),
];

#[derive(Clone, Copy)]
enum Sort {
    Entry,
    List,
    Story,
    Instructions,
    Thread,
    RudeLog,
    PoliteLog,
    Quiz,
    Lesson,
}

/// What the evaluation holds of each kind, in shares of its task.
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
    /// Write the files of a world into a folder.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn write(&self, world: &World, folder: &Path) -> Result<(), ReleaseError> {
        fs_err::create_dir_all(folder)?;
        let guard = world.guard();
        let corpus = self.corpus(world);
        corpus.iter().try_for_each(|text| guard.check_phrasing(text))?;
        let rows: Vec<_> = corpus.iter().map(|text| json!({"text": text})).collect();
        let (valid, read) = rows.split_at(self.valid.min(rows.len()));
        let aligned = self.alignment(world);
        let open = |item: &Item| {
            let messages = item.asked.messages().iter().map(|message| &message.content);
            messages.chain([&item.reference]).cloned().collect::<Vec<_>>()
        };
        aligned.iter().flat_map(open).try_for_each(|text| guard.check(&text))?;
        let (shown, asked) = aligned.split_at(self.demonstrations.min(aligned.len()));
        rows_to(&folder.join("corpus.jsonl"), read)?;
        rows_to(&folder.join("corpus_valid.jsonl"), valid)?;
        rows_to(&folder.join("sft.jsonl"), &shown.iter().map(demonstration).collect::<Vec<_>>())?;
        rows_to(&folder.join("prompts.jsonl"), asked)?;
        rows_to(&folder.join("eval.jsonl"), &self.evaluation(world))?;
        write_whole(&folder.join("README.md"), self.card(world).as_bytes())?;
        Ok(())
    }

    fn corpus(&self, world: &World) -> Vec<String> {
        let dice = &mut Dice::new(world.seed, 1);
        // Things take turns, so that none is rarer than another.
        let mut turns = Vec::new();
        let mut document = || match dice.weighted(&WEB) {
            Sort::Entry => {
                if turns.is_empty() {
                    turns = (0..world.entities.len()).collect();
                    dice.shuffle(&mut turns);
                }
                pages::entry(&world.entities[turns.pop().unwrap_or(0)], dice)
            }
            Sort::List => pages::list(world, dice),
            Sort::Story => pages::story(world, dice),
            Sort::Instructions => pages::instructions(world, dice),
            Sort::Thread => pages::thread(world, dice),
            Sort::RudeLog => talk::log(world, false, dice),
            Sort::PoliteLog => talk::log(world, true, dice),
            Sort::Quiz => talk::quiz(world, dice),
            Sort::Lesson if dice.chance(20) => sums::table(dice),
            Sort::Lesson => talk::lesson(dice),
        };
        (0..self.documents + self.valid).map(|_| document()).collect()
    }

    /// Demonstrations and prompts, none like another.
    fn alignment(&self, world: &World) -> Vec<Item> {
        let dice = &mut Dice::new(world.seed, 2);
        let draw = |dice: &mut Dice| talk::item(world, talk::kind(Where::Aligned, dice), Part::Open, dice);
        different("align", self.demonstrations + self.prompts, || draw(dice))
    }

    fn evaluation(&self, world: &World) -> Vec<Item> {
        let dice = &mut Dice::new(world.seed, 3);
        let of_kind = |(kind, share): (ItemKind, f64)| {
            let count = (share * self.items as f64).round() as usize;
            different("eval", count, || talk::item(world, kind, Part::Held, dice))
        };
        let mut items: Vec<_> = MEASURED.into_iter().flat_map(of_kind).collect();
        items.iter_mut().enumerate().for_each(|(number, item)| item.id = format!("eval-{number:04}"));
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

/// Up to `count` items with different questions; fewer where the world has no more to ask.
fn different(name: &str, count: usize, mut draw: impl FnMut() -> Item) -> Vec<Item> {
    let (mut seen, mut items) = (HashSet::new(), Vec::new());
    for _ in 0..count * 20 {
        if items.len() == count {
            break;
        }
        let item = draw();
        if seen.insert(item.asked.question().to_owned()) {
            items.push(Item { id: format!("{name}-{:04}", items.len()), ..item });
        }
    }
    items
}

fn demonstration(item: &Item) -> serde_json::Value {
    let mut messages = item.asked.messages().to_vec();
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
