//! A step of the scheduler: a forward pass over what the plan chose, and proposals of the draft head.

use std::time::Instant;

use rayon::prelude::*;
use wsd_core::{Error, Layer, Tree};

use super::Scheduler;
use crate::arch::Head;
use crate::engine::pace::Load;
use crate::engine::plan::Plan;
use crate::engine::questions::{Output, Vectors};
use crate::engine::work::{Piece, Work};
use crate::executor::{Answer, Ask};

/// Hidden states that a head is applied to at once, which bounds the memory of a long scoring.
const PROJECT_ROWS: usize = 32;

impl Scheduler {
    /// Runs one step.
    pub(super) fn step(&mut self) {
        let plan = self.plan();
        let mut pieces = self.pieces(&plan);
        if pieces.is_empty() {
            return;
        }
        self.steps += 1;
        let steps = self.steps;
        self.count(|activity| activity.steps = steps);
        pieces.iter().for_each(|piece| self.works[piece.work].ran = steps);
        let started = Instant::now();
        let runs: Vec<_> = pieces.iter().filter(|piece| !piece.range.is_empty()).cloned().collect();
        if let Err(error) = self.forward(&runs) {
            return self.fail_all(&runs, &error.to_string());
        }
        for piece in pieces.iter_mut().filter(|piece| piece.range.is_empty()) {
            // Fewer than planned where paths are unlikely.
            piece.rows = self.propose(piece.work);
        }
        self.settle(&plan, &pieces, started.elapsed().as_secs_f64());
        let (done, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.works).into_iter().partition(Work::is_done);
        self.works = left;
        // Whoever reads an answer finds the numbers that follow it.
        self.report();
        done.into_iter().for_each(|work| work.finish(&self.card.name));
    }

    /// The parts of works that a plan names.
    pub(super) fn pieces(&self, plan: &Plan) -> Vec<Piece> {
        plan.pieces.iter().map(|(work, positions)| self.piece(*work, *positions)).collect()
    }

    /// The next positions of a work, or the tree that it waits for.
    fn piece(&self, index: usize, positions: usize) -> Piece {
        let work = &self.works[index];
        let cached = self.cache.tokens(work.place.slot).len();
        if work.due_tree().is_some() {
            return Piece { work: index, range: cached..cached, rows: positions };
        }
        let range = work.next_range(cached, positions);
        let rows = work.span(&range).rows.len();
        Piece { work: index, range, rows }
    }

    /// Runs the positions of works through the model and gives them their outputs.
    fn forward(&mut self, pieces: &[Piece]) -> crate::Result<()> {
        if pieces.is_empty() {
            return Ok(());
        }
        let spans: Vec<_> = pieces.iter().map(|piece| self.works[piece.work].span(&piece.range)).collect();
        let asks = self.asks(pieces);
        let answers = asks.map_or(Ok(None), |asks| self.executor.answer(&spans, &asks))?;
        let outcome = match answers {
            Some(answers) => Outcome::Answers(answers),
            None => Outcome::Hidden(self.executor.forward(&spans)?),
        };
        for piece in pieces {
            let work = &self.works[piece.work];
            let (tokens, tree) = work.cacheable(&piece.range);
            self.cache.extend(work.place.slot, tokens, tree);
        }
        match outcome {
            Outcome::Hidden(hidden) => self.deliver(hidden, pieces),
            Outcome::Answers(answers) => {
                let mut first = 0;
                for piece in pieces {
                    let (works, executor) = (&mut self.works, &mut self.executor);
                    let vector = |index| executor.answered_logits(first + index);
                    works[piece.work].take_answers(&answers[first..first + piece.rows], vector)?;
                    first += piece.rows;
                }
                Ok(())
            }
        }
    }

    /// Takes in the time of a step: for the pace of later ones, and to the account of each client.
    fn settle(&mut self, plan: &Plan, pieces: &[Piece], seconds: f64) {
        let shares = self.shares(pieces);
        if let Some(sessions) = plan.sessions {
            let cost = shares[plan.first..].iter().map(|(_, cost)| cost).sum();
            self.pace.observe(Load { sessions, cost }, seconds);
        }
        self.accounts.charge(&shares, seconds);
        pieces.iter().for_each(|piece| self.accounts.count(self.works[piece.work].place.slot, piece.rows));
    }

    /// The clients of the parts of a step, and the costs of these.
    pub(super) fn shares(&self, pieces: &[Piece]) -> Vec<(u64, f64)> {
        let share =
            |piece: &Piece| (self.works[piece.work].place.scope.client, self.pace.cost(piece.range.len(), piece.rows));
        pieces.iter().map(share).collect()
    }

    /// The questions about all rows of a step, if a device may answer all of them.
    fn asks(&self, pieces: &[Piece]) -> Option<Vec<Ask>> {
        // The draft head needs the features themselves.
        let drafts =
            |piece: &Piece| self.drafter.as_ref().is_some_and(|it| it.follows(self.works[piece.work].place.slot));
        if pieces.iter().any(drafts) {
            return None;
        }
        let asks = pieces.iter().map(|piece| self.works[piece.work].asks(piece.rows));
        Some(asks.collect::<Option<Vec<_>>>()?.concat())
    }

    /// Delivers the output vectors of each work: hidden states, or head outputs, projected in
    /// blocks of `PROJECT_ROWS`.
    fn deliver(&mut self, mut hidden: Vec<f32>, pieces: &[Piece]) -> crate::Result<()> {
        let width = self.executor.blueprint().hidden;
        self.observe(&hidden, pieces)?;
        let mut by_index: Vec<_> = self.works.iter_mut().map(Some).collect();
        // Pieces have the same order as the rows in `hidden`.
        let works = pieces.iter().filter_map(|piece| Some((by_index[piece.work].take()?, piece.rows)));
        let mut works: Vec<_> = works.filter(|(_, rows)| *rows > 0).collect();
        let (mut rest, outputs) = (&mut hidden[..], &mut self.outputs);
        for alike in works.chunk_by_mut(|(one, _), (other, _)| one.output() == other.output()) {
            let rows: usize = alike.iter().map(|(_, rows)| rows).sum();
            let (hidden, later) = std::mem::take(&mut rest).split_at_mut(rows * width);
            rest = later;
            let head = match alike[0].0.output() {
                Output::Hidden(_) => None,
                Output::Head(head) => Some(head),
                Output::Inner(_) => Some(Head::VOCABULARY),
            };
            match head {
                None => drop(read(alike, Vectors { floats: hidden, width })),
                Some(head) => {
                    let mut alike = alike;
                    for hidden in hidden.chunks(PROJECT_ROWS * width) {
                        self.executor.project(head, hidden, outputs)?;
                        let rows = hidden.len() / width;
                        let width = outputs.len() / rows;
                        alike = read(alike, Vectors { floats: outputs, width });
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives the features of a step to the draft head.
    fn observe(&mut self, hidden: &[f32], pieces: &[Piece]) -> crate::Result<()> {
        let Some(drafter) = &mut self.drafter else { return Ok(()) };
        let (width, mut rest) = (self.executor.blueprint().hidden, hidden);
        for piece in pieces {
            let (own, later) = rest.split_at(piece.rows * width);
            rest = later;
            let work = &self.works[piece.work];
            if matches!(work.output(), Output::Hidden(Layer::Final) | Output::Head(_)) {
                drafter.observe(work.place.slot, work.list(), own)?;
            }
        }
        Ok(())
    }

    /// Lets the draft head propose to a work, whose answer an error is. Returns the rows that it took.
    fn propose(&mut self, index: usize) -> usize {
        let work = &mut self.works[index];
        let proposed = match (&mut self.drafter, work.due_tree()) {
            (Some(drafter), Some(shape)) => drafter.propose(&mut *self.executor, work.place.slot, work.tokens(), shape),
            _ => Ok((Tree::default(), 0)),
        };
        let rows = proposed.as_ref().map_or(0, |(_, rows)| *rows);
        let engine = &self.card.name;
        let tree = proposed.map(|(tree, _)| tree);
        work.take_tree(tree.map_err(|error| Error::Engine { engine: engine.clone(), message: error.to_string() }));
        rows
    }

    /// Fails the works of a step that the executor could not complete, and drops their caches,
    /// whose contents are unknown.
    fn fail_all(&mut self, pieces: &[Piece], message: &str) {
        let mut works: Vec<_> = std::mem::take(&mut self.works).into_iter().map(Some).collect();
        let failed: Vec<_> = pieces.iter().filter_map(|piece| works[piece.work].take()).collect();
        for slot in failed.iter().map(|work| work.place.slot) {
            self.cache.forget(&mut *self.executor, slot);
            self.drafter.iter_mut().for_each(|drafter| drafter.close(slot));
        }
        self.works = works.into_iter().flatten().collect();
        self.report();
        let error = || Error::Engine { engine: self.card.name.clone(), message: message.to_owned() };
        failed.into_iter().for_each(|work| work.fail(error()));
    }
}

/// The result of a step.
enum Outcome {
    /// The hidden states of the wanted rows.
    Hidden(Vec<f32>),
    /// Answers to questions about the wanted rows.
    Answers(Vec<Answer>),
}

/// Distributes vectors to works in order, at most the missing rows of each, which then process them
/// in parallel. Returns the works that still miss rows.
fn read<'s, 'w>(works: &'s mut [(&'w mut Work, usize)], vectors: Vectors<'_>) -> &'s mut [(&'w mut Work, usize)] {
    let width = vectors.width;
    let (mut parts, mut rest, mut served) = (Vec::new(), vectors.floats, 0);
    for (work, lacking) in works.iter_mut() {
        let rows = (*lacking).min(rest.len() / width);
        if rows == 0 {
            break;
        }
        let (floats, later) = std::mem::take(&mut rest).split_at_mut(rows * width);
        rest = later;
        *lacking -= rows;
        served += usize::from(*lacking == 0);
        parts.push((work, floats));
    }
    let take = |(work, floats): (&mut &mut Work, &mut [f32])| work.take(Vectors { floats, width });
    // One work is not worth the hand-over to another thread.
    if parts.len() == 1 {
        parts.into_iter().for_each(take)
    } else {
        parts.into_par_iter().for_each(take)
    }
    &mut works[served..]
}
