//! Chains of models of one vocabulary, each of which proposes tokens to the larger ones.
//!
//! Every level writes its own text: it checks what lower levels propose against its own choices, so
//! that what it hands up is distributed as its own samples are, whatever was proposed to it. All
//! levels draw the same random number at a position, which makes equal distributions choose equal
//! tokens. Each level chooses among its sources, the bare model among them, round by round; the best
//! chain of SpecRouter (arXiv 2505.07680) results from these choices by the recursion of
//! [`pace`].

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::level::{Candidate, Level, Origin};
use super::lookup::{Lookup, Rest};
use super::plan::{Action, MAX_PROPOSED, Offer, Request, pace, powers};
use super::proposal::{Drafted, Growth, Proposal, Verdict};
use crate::acceptance::{Acceptance, Hint};
use crate::{Call, CallKind, Guide, Proposed, Result, Sampled, Sampling, Source, Step, StepTime, Stop, Terms, Token};

/// The time of a step below which a model proposes several tokens per question, in seconds.
const SHORT_STEP: f64 = 0.0005;
/// The share of second choices among wrong proposals that is presumed where trees are considered.
const SECOND_SHARE: f64 = 0.4;
/// The most tokens that are computed along with a round; more are a prefill.
const PREFILL: usize = 32;

/// Levels from the smallest to the target, which is the last.
pub(super) struct Chain {
    levels: Vec<Level>,
    top_logprobs: usize,
    /// Calls that were not yet reported.
    calls: Vec<Call>,
    /// Seconds of all calls so far.
    clock: f64,
}

/// The proposals of text sources, by the index of the source; empty for models.
type Texts = Vec<Vec<(Token, Hint)>>;

/// A plan of the next round: the action, and what texts propose.
pub(super) struct Plan {
    pub(super) action: Action,
    texts: Texts,
}

/// The conditions of proposals for a level above.
struct Demand {
    request: Request,
    /// The step time of the level above.
    above: StepTime,
    /// Acceptance by the level above.
    acceptance: Acceptance,
    /// True if second choices are wanted.
    seconds: bool,
}

impl Chain {
    /// A chain whose target is the last of `levels`. With `texts` the target also takes proposals from
    /// prompt and answer, and from the rest of a draft.
    pub(super) fn new(mut levels: Vec<Level>, terms: &Terms, texts: Option<Rest>) -> Self {
        // Two models may have one name; their acceptance is remembered apart.
        let key = |level: &Level| (level.seat, format!("{} {}", level.seat.name(), level.name()));
        let keys: Vec<_> = levels.iter().map(key).collect();
        let prompt = levels.last().map_or(0, Level::prompt);
        let sampling = terms.sampling.for_seat(crate::Seat::BASE, prompt);
        let target = levels.len().saturating_sub(1);
        for (index, level) in levels.iter_mut().enumerate() {
            level.planner.is_unbounded = index < target;
            // Draws depend on the position, so that other prompts would draw other numbers.
            level.sampling = if level.prompt() == prompt { sampling.clone() } else { Sampling::default() };
            let below = if level.choices { &keys[..index] } else { &[] };
            for (below, (seat, key)) in below.iter().enumerate() {
                level.add(Source::Model(*seat), Origin::Level(below), key);
            }
        }
        if let Some((target, rest)) = levels.last_mut().zip(texts) {
            target.add(Source::Lookup, Origin::Lookup(Lookup::default()), Source::Lookup.name());
            target.add(Source::Rest, Origin::Rest(rest), Source::Rest.name());
        }
        Self { levels, top_logprobs: terms.top_logprobs, calls: Vec::new(), clock: 0.0 }
    }

    pub(super) fn target(&mut self) -> &mut Level {
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    /// Puts all levels under the target's guide.
    pub(super) fn set_guide(&mut self, guide: Option<&Guide>) {
        let prompt = self.target().prompt();
        for level in &mut self.levels {
            level.guide = guide.map(|guide| guide.moved(prompt, level.prompt()));
        }
    }

    /// Takes the calls that were not yet reported.
    pub(super) fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Plans the next round of the target.
    pub(super) fn plan(&mut self, remaining: usize) -> Plan {
        self.plan_of(self.levels.len() - 1, remaining)
    }

    fn plan_of(&mut self, index: usize, remaining: usize) -> Plan {
        let level = &self.levels[index];
        let alone = |count| Plan { action: Action::Alone(count), texts: Vec::new() };
        let Some(time) = level.profile.step_time().filter(|_| level.profile.knows_single_steps()) else {
            return alone(1.min(remaining));
        };
        if level.sources.is_empty() {
            return alone(remaining);
        }
        // The step that reads the prompt checks nothing.
        if level.uncomputed() > PREFILL {
            return alone(level.planner.alone(time, &[], remaining));
        }
        let texts = self.texts(index);
        let level = &self.levels[index];
        let offers = level.sources.iter().zip(&texts).map(|(source, text)| match source.origin {
            Origin::Level(below) => self.model_offer(below, time, &source.acceptance, level.answer()),
            Origin::Lookup(_) | Origin::Rest(_) => text_offer(text, &source.acceptance),
        });
        let offers: Vec<_> = offers.collect();
        Plan { action: self.levels[index].planner.choose(time, &offers, remaining), texts }
    }

    /// Collects the proposals of a level's text sources.
    fn texts(&mut self, index: usize) -> Texts {
        let mut sources = std::mem::take(&mut self.levels[index].sources);
        let list = self.levels[index].session.tokens();
        let texts = sources.iter_mut().map(|Candidate { origin, .. }| match origin {
            Origin::Level(_) => Vec::new(),
            Origin::Lookup(lookup) => {
                lookup.extend(list);
                lookup.propose(list, MAX_PROPOSED)
            }
            Origin::Rest(rest) => rest.propose(list, MAX_PROPOSED),
        });
        let texts = texts.collect();
        self.levels[index].sources = sources;
        texts
    }

    /// The offer of the level `below` to one with the step time `above`.
    fn model_offer(&self, below: usize, above: StepTime, acceptance: &Acceptance, answer: &[Token]) -> Offer {
        let level = &self.levels[below];
        let (time, lacking) = (level.time_below(above), level.lacking(answer));
        let space = level.space_after(answer);
        let is_long = lacking > PREFILL;
        let per_token = level.profile.prefill_time().unwrap_or(time.further);
        Offer {
            paths: powers(acceptance.mean(), MAX_PROPOSED.min(space)),
            per_token: self.pace_of(below, time, answer),
            once: if is_long { 0.0 } else { time.further * (lacking - 1) as f64 },
            prefill: if is_long { per_token * lacking as f64 } else { 0.0 },
            evidence: acceptance.evidence(),
            is_model: true,
        }
    }

    /// The least seconds per token of a level with the step time `time`, by the recursion over its
    /// models.
    fn pace_of(&self, index: usize, time: StepTime, answer: &[Token]) -> f64 {
        let models = self.levels[index].sources.iter().filter_map(|source| match source.origin {
            Origin::Level(below) => Some(self.model_offer(below, time, &source.acceptance, answer)),
            Origin::Lookup(_) | Origin::Rest(_) => None,
        });
        let models: Vec<_> = models.map(|offer| Offer { once: 0.0, prefill: 0.0, ..offer }).collect();
        pace(time, &models)
    }

    /// Runs a round of the target. Returns its own steps: the accepted tokens, and one more. Its list
    /// stays as it was.
    pub(super) async fn round(&mut self, plan: Plan, request: Request) -> Result<Vec<Step>> {
        self.round_of(self.levels.len() - 1, plan.texts, request).await
    }

    async fn round_of(&mut self, index: usize, texts: Texts, request: Request) -> Result<Vec<Step>> {
        let (started, level) = (self.clock, &self.levels[index]);
        let time = level.profile.step_time().unwrap_or(StepTime::new(0.0, 0.0));
        let source = &level.sources[request.offer];
        let drafted: Vec<Drafted> = match source.origin {
            Origin::Level(below) => {
                let wrong = 1.0 - source.acceptance.mean();
                let seconds = level.trees && request.worth * wrong * SECOND_SHARE > time.further;
                let acceptance = source.acceptance.clone();
                let demand = Demand { request, above: time, acceptance, seconds };
                let answer = level.answer().to_vec();
                self.produce(below, answer, demand).await?
            }
            Origin::Lookup(_) | Origin::Rest(_) => {
                texts[request.offer].iter().take(request.count).copied().map(Drafted::from).collect()
            }
        };
        let mut proposal = Proposal::chain(request.offer, &drafted)?;
        let level = &self.levels[index];
        if level.trees {
            let acceptances: Vec<_> = level.sources.iter().map(|source| &source.acceptance).collect();
            let (worth, further) = (request.worth, time.further);
            let growth = Growth { worth, further, nodes: MAX_PROPOSED, depth: request.most };
            proposal.add_seconds(&acceptances, growth)?;
            for (source, text) in texts.iter().enumerate().filter(|(source, _)| *source != request.offer) {
                proposal.add_branch(source, text, acceptances[source], growth)?;
            }
        }
        let verdict = self.check(index, &proposal).await?;
        let tokens = verdict.steps.iter().filter(|step| matches!(step, Step::Token(_))).count();
        let seconds = self.clock - started;
        self.levels[index].planner.record_round(request, tokens, seconds, time.alone);
        Ok(verdict.steps)
    }

    /// Lets a level compare a proposal with its own choices, in one step.
    async fn check(&mut self, index: usize, proposal: &Proposal) -> Result<Verdict> {
        let is_target = index + 1 == self.levels.len();
        let top_logprobs = if is_target { self.top_logprobs } else { 0 };
        let level = &mut self.levels[index];
        let generation = level.generation(1, top_logprobs);
        let (from, started) = (level.session.tokens().len(), std::time::Instant::now());
        let rows = proposal.tree().len() + level.uncomputed();
        let choices = if proposal.is_chain() {
            level.session.append(proposal.tree().tokens());
            let choices = level.session.choices(from, &generation).await?;
            level.session.truncate(from);
            choices
        } else {
            level.session.tree_choices(proposal.tree(), &generation).await?
        };
        let seconds = level.profile.record(rows, started.elapsed().as_secs_f64());
        let verdict = proposal.judge(choices, |source, hint, is_right| level.learn(source, hint, is_right));
        let proposals = level.sources.iter().enumerate().map(|(index, source)| Proposed {
            by: source.source,
            tokens: proposal.count(index),
            accepted: verdict.accepted.iter().filter(|&&other| other == index).count(),
        });
        self.clock += seconds;
        self.calls.push(Call {
            accepted: Some(verdict.accepted.len()),
            proposals: proposals.filter(|proposed| proposed.tokens > 0).collect(),
            ..Call::new(level.seat, CallKind::Check, proposal.tree().len() + 1, seconds)
        });
        Ok(verdict)
    }

    /// Lets a level continue `answer`, as far as its tokens are expected to be worth their cost.
    fn produce(&mut self, index: usize, answer: Vec<Token>, demand: Demand) -> BoxFuture<'_, Result<Vec<Drafted>>> {
        async move {
            self.levels[index].follow(&answer);
            let time = self.levels[index].time_below(demand.above);
            let cost = self.pace_of(index, time, &answer) + demand.above.further;
            let (mut drafted, mut reached, mean) = (Vec::new(), 1.0, demand.acceptance.mean());
            let most = demand.request.most.min(self.levels[index].space());
            while drafted.len() < most {
                let (new, has_ended) = self.advance(index, most - drafted.len(), &demand).await?;
                reached = new.iter().fold(reached, |reached, item| reached * demand.acceptance.of(item.hint));
                drafted.extend(new);
                if has_ended || reached * mean * demand.request.worth <= cost {
                    break;
                }
            }
            drafted.truncate(most);
            Ok(drafted)
        }
        .boxed()
    }

    /// Lets a level write some of its own tokens, at most `most` beyond what a round yields. Returns
    /// them and whether its text has ended.
    async fn advance(&mut self, index: usize, most: usize, demand: &Demand) -> Result<(Vec<Drafted>, bool)> {
        let plan = self.plan_of(index, most);
        let steps = match plan.action {
            Action::Alone(_) => self.write(index, most, demand).await?,
            Action::Propose(request) => self.round_of(index, plan.texts, request).await?,
        };
        let level = &mut self.levels[index];
        let mut new = Vec::new();
        for step in steps {
            let Step::Token(sampled) = step else { return Ok((new, true)) };
            if matches!(plan.action, Action::Propose(_)) {
                level.session.append(&[sampled.token]);
            }
            new.push(drafted(&sampled));
        }
        level.mark_computed();
        Ok((new, false))
    }

    /// Lets a level decode alone: one token, or several if its steps are short.
    async fn write(&mut self, index: usize, most: usize, demand: &Demand) -> Result<Vec<Step>> {
        let level = &mut self.levels[index];
        let is_short = level.profile.step_time().is_some_and(|time| time.alone < SHORT_STEP);
        let max_tokens = if is_short { demand.request.count.clamp(1, most) } else { 1 };
        let top_logprobs = if demand.seconds { 2 } else { 0 };
        let generation = level.generation(max_tokens, top_logprobs);
        let lacking = level.uncomputed();
        let written = level.session.write(&generation).await?;
        let tokens = written.tokens.len();
        let seconds = level.profile.record_writing(lacking, tokens.max(1), written.seconds);
        level.planner.record_alone(tokens, seconds);
        self.clock += seconds;
        self.calls.push(Call::new(level.seat, CallKind::Generate, tokens, seconds));
        let end = (tokens < max_tokens).then_some(Step::End(Stop::End));
        Ok(written.tokens.into_iter().map(Step::Token).chain(end).collect())
    }
}

/// The offer of tokens at hand.
fn text_offer(text: &[(Token, Hint)], acceptance: &Acceptance) -> Offer {
    let paths = text.iter().scan(1.0, |reached, (_, hint)| {
        *reached *= acceptance.of(*hint);
        Some(*reached)
    });
    Offer { paths: paths.collect(), evidence: acceptance.evidence(), ..Offer::default() }
}

/// A proposed token of a model with its probability, and the best other token if alternatives are
/// known.
fn drafted(sampled: &Sampled) -> Drafted {
    let probability = sampled.logprob.map_or(0.0, f64::exp);
    let other = sampled.top.iter().find(|(token, _)| *token != sampled.token);
    let second = other.map(|&(token, logprob)| (token, Hint::Second(logprob.exp())));
    Drafted { token: sampled.token, hint: Hint::Probability(probability), second }
}
