//! The choice of what a step runs.

use super::accounts::Accounts;
use super::pace::{Pace, STEP_TOKENS};

/// The part of the tokens reserved for prompts, however many sessions are decoding.
pub(super) const PROMPT_TOKENS: usize = 32;

/// The most positions of a work that somebody waits for: a token, some that a draft wrote, a question.
const SHORT: usize = 32;
/// The outputs that a session reads before those of sessions that have read more.
const FIRST: usize = 8;
/// The outputs that a session reads before long works: a short answer, or the beginning of a long one.
const BEGINNING: usize = 64;

/// A work that may run in a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Index of the work.
    pub(super) work: usize,
    pub(super) client: u64,
    /// The last step that ran it.
    pub(super) ran: usize,
    /// Outputs that its session has read.
    pub(super) has_read: usize,
    /// Positions to run before those whose outputs it reads.
    pub(super) unread: usize,
    /// Positions whose outputs it reads.
    pub(super) read: usize,
    pub(super) kind: Kind,
}

/// The kind of positions whose outputs a work reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Positions of a list, of which a step may run any number.
    Chain,
    /// The vertices of a tree, which are run in one step.
    Tree,
    /// Expanded nodes of a tree that the draft head proposes in one step. Beside the output head its one
    /// layer costs next to nothing, as all pairs but the last were read in the steps of the prompt.
    Proposal,
}

/// The positions to run in a step.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// Works, each with its number of positions, or of rows of the output head for a proposal.
    pub(super) pieces: Vec<(usize, usize)>,
    /// The number of pieces that the step runs for; the rest must not make it much longer.
    pub(super) first: usize,
    /// The number of decoding sessions whose pace the step's time tells; `None` if it tells nothing.
    pub(super) sessions: Option<usize>,
}

impl Candidate {
    fn len(&self) -> usize {
        self.unread + self.read
    }

    /// True if it needs the next token.
    fn decodes(&self) -> bool {
        self.kind == Kind::Chain && self.len() == 1
    }

    /// True if it is longer than what somebody waits for and may be run in parts, or if its session is
    /// past its beginning.
    fn is_long(&self) -> bool {
        self.has_read >= BEGINNING || (self.kind == Kind::Chain && self.len() > SHORT)
    }

    /// The rank of a work by what its session has had, from 0 for one that begins; it grows by one with
    /// each doubling.
    fn rank(&self) -> u32 {
        if self.is_long() { u32::MAX } else { usize::BITS - (self.has_read / FIRST).leading_zeros() }
    }

    /// True if a step may run one of the positions that it reads by itself.
    fn is_divisible(&self) -> bool {
        self.kind == Kind::Chain && self.unread == 0
    }

    /// The fewest and the most positions that a step may run.
    fn limits(&self) -> (usize, usize) {
        match self.kind {
            Kind::Chain => (1, self.len()),
            Kind::Tree | Kind::Proposal if self.unread > 0 => (1, self.unread),
            Kind::Tree | Kind::Proposal => (self.read, self.read),
        }
    }

    /// The number of positions to run where `paid` are paid for: none, or as many as a step may run.
    fn positions(&self, paid: usize) -> usize {
        let (least, most) = self.limits();
        if paid == 0 { 0 } else { paid.min(most).max(least) }
    }

    /// True for positions that are run in one step and cost more than `cost`.
    fn exceeds(&self, cost: f64, pace: &Pace) -> bool {
        let (least, _) = self.limits();
        least > 1 && self.cost(least, pace) > cost
    }

    /// The cost of so many of its positions.
    fn cost(&self, positions: usize, pace: &Pace) -> f64 {
        let of_model = if self.kind == Kind::Proposal { 0 } else { positions };
        pace.cost(of_model, positions.saturating_sub(self.unread))
    }

    /// True if it computes a prompt, and waits for the first token.
    fn begins(&self) -> bool {
        self.unread > 0 && !self.decodes()
    }
}

impl Plan {
    /// Plans a step. Where one client has all works, it runs for those that decode, or else for
    /// prompts, and the others share what the pace allows. Where there are several, the one that has
    /// lately used the least time comes first with as much as the pace allows beside one session, then
    /// the next, and all that is long comes last, for which half is left: a client's token takes about
    /// the time of a short step, whatever the others ask, and a short answer does not take its turn with
    /// all long ones.
    pub(super) fn new(candidates: Vec<Candidate>, pace: &Pace, accounts: &Accounts) -> Self {
        let by_turns = accounts.are_several(candidates.iter().map(|candidate| candidate.client));
        let decoding = candidates.iter().filter(|candidate| candidate.decodes()).count();
        let sessions = if by_turns { 1 } else { decoding };
        let (first, mut others) = if by_turns { by_use(candidates, accounts, pace) } else { by_kind(candidates) };
        let must_measure = sessions > 0 && !first.is_empty() && pace.must_measure(sessions);
        if must_measure {
            others.clear();
        }
        let is_told = by_turns || decoding > 0 || first.is_empty();
        // A prompt that nobody decodes beside is treated as the token that it ends with.
        let beside = if is_told { sessions } else { 1 };
        let mut plan = Self { pieces: Vec::new(), first: first.len(), sessions: is_told.then_some(sessions) };
        let (mut tokens, mut cost) = (STEP_TOKENS, pace.most(beside));
        for (n, candidate) in first.iter().enumerate() {
            let share = tokens.div_ceil(first.len() + others.len() - n);
            let positions = if candidate.decodes() { 1 } else { candidate.positions(share) };
            tokens = tokens.saturating_sub(positions).max(if decoding > 0 { PROMPT_TOKENS } else { 0 });
            plan.pieces.push((candidate.work, positions));
        }
        let kept = if by_turns && others.iter().any(Candidate::is_long) { cost / 2.0 } else { 0.0 };
        for (n, candidate) in others.iter().enumerate() {
            let sharers = if by_turns { 1 } else { others.len() - n };
            let share = if candidate.is_long() { cost } else { cost - kept } / sharers as f64;
            // Beside another client's work a tree waits until it is paid for, or until its turn comes.
            if by_turns && !plan.pieces.is_empty() && candidate.exceeds(share, pace) {
                continue;
            }
            let paid = pace.positions(share, candidate.unread).min(tokens.div_ceil(sharers));
            let positions = candidate.positions(paid);
            if positions > 0 {
                tokens = tokens.saturating_sub(positions);
                cost -= candidate.cost(positions, pace);
                plan.pieces.push((candidate.work, positions));
            }
        }
        plan
    }
}

/// Puts the works in the order of their turns: first those whose sessions have had little, then by the
/// time that their clients have used, then by the last step that ran them. The first is returned apart if it
/// decodes, or, where the time of one session must be measured, the first of which a step can read one
/// position alone.
fn by_use(mut all: Vec<Candidate>, accounts: &Accounts, pace: &Pace) -> (Vec<Candidate>, Vec<Candidate>) {
    all.sort_by(|one, other| {
        let by_client = accounts.used(one.client).total_cmp(&accounts.used(other.client));
        one.rank().cmp(&other.rank()).then(by_client).then(one.ran.cmp(&other.ran))
    });
    let first = if pace.must_measure(1) {
        all.iter().position(Candidate::is_divisible)
    } else {
        all.first().filter(|candidate| candidate.decodes()).map(|_| 0)
    };
    let first = first.map(|index| Candidate { read: 1, ..all.remove(index) });
    (first.into_iter().collect(), all)
}

/// Puts the works that decode first, or else those that begin, in order of arrival.
fn by_kind(all: Vec<Candidate>) -> (Vec<Candidate>, Vec<Candidate>) {
    let is_first = if all.iter().any(Candidate::decodes) { Candidate::decodes } else { Candidate::begins };
    all.into_iter().partition(is_first)
}

#[cfg(test)]
mod tests {
    use super::super::pace::Load;
    use super::*;

    /// The cost of a row that is read, as a multiple of its position.
    const ROW: f64 = 3.0;

    fn candidate(work: usize, client: u64, (unread, read): (usize, usize)) -> Candidate {
        Candidate { work, client, ran: 0, has_read: 0, unread, read, kind: Kind::Chain }
    }

    /// A pace that knows the time of one session and of so many sessions.
    fn pace(sessions: usize) -> Pace {
        let mut pace = Pace::new(ROW);
        for sessions in [1, sessions] {
            pace.observe(Load { sessions, cost: 0.0 }, 0.001);
        }
        pace
    }

    #[test]
    fn all_sessions_of_one_client_decode_and_tokens_are_reserved_for_prompts() {
        let writers = 2 * STEP_TOKENS;
        let decoders = (0..writers).map(|work| candidate(work, 7, (0, 1)));
        let all: Vec<_> = decoders.chain([candidate(writers, 7, (150, 50))]).collect();
        let accounts = Accounts::default();
        let plan = Plan::new(all.clone(), &Pace::new(ROW), &accounts);
        assert_eq!(plan.pieces, (0..writers).map(|work| (work, 1)).collect::<Vec<_>>(), "alone, to measure its time");
        let plan = Plan::new(all, &pace(writers), &accounts);
        assert_eq!((plan.pieces.len(), plan.pieces[writers]), (writers + 1, (writers, PROMPT_TOKENS)));
        assert_eq!((plan.first, plan.sessions), (writers, Some(writers)));
    }

    #[test]
    fn prompts_of_one_client_are_not_held_back_by_rows() {
        let all = vec![candidate(0, 7, (0, 300)), candidate(1, 7, (90, 1)), candidate(2, 7, (300, 1))];
        let mut pace = pace(1);
        pace.observe(Load { sessions: 1, cost: 100.0 }, 0.010);
        let plan = Plan::new(all, &pace, &Accounts::default());
        // 30 is what 3 ms pay for.
        assert_eq!(plan, Plan { pieces: vec![(1, 86), (2, 85), (0, 8)], first: 2, sessions: None });
    }

    /// Steps of a device that takes 1 ms and 0.1 ms for each unit of cost. Returns the times of the steps
    /// in which a client decodes that asks in so many of 50 steps, beside others whose sessions have read
    /// so many outputs and that ask for the most, and the total that each client has used.
    fn crowd(others: &[(Kind, (usize, usize))], has_read: usize, often: usize) -> (Vec<f64>, Vec<f64>) {
        let (mut pace, mut accounts, mut times) = (Pace::new(ROW), Accounts::default(), Vec::new());
        let mut totals = vec![0.0; others.len() + 1];
        let mut ran = vec![0; others.len()];
        for step in 1..4000 {
            let busy = others.iter().enumerate().map(|(n, (kind, need))| Candidate {
                ran: ran[n],
                has_read,
                kind: *kind,
                ..candidate(n, n as u64, *need)
            });
            let mut all: Vec<_> = busy.collect();
            let asks = step % 50 < often;
            all.extend(asks.then_some(candidate(others.len(), others.len() as u64, (0, 1))));
            let plan = Plan::new(all.clone(), &pace, &accounts);
            let of = |piece: &(usize, usize)| {
                let candidate = all.iter().find(|candidate| candidate.work == piece.0).unwrap();
                (candidate.client, candidate.cost(piece.1, &pace))
            };
            let shares: Vec<_> = plan.pieces.iter().map(of).collect();
            let cost = |pieces: &[(u64, f64)]| pieces.iter().map(|piece| piece.1).sum::<f64>();
            let seconds = 0.001 + 0.0001 * cost(&shares);
            accounts.charge(&shares, seconds);
            shares.iter().for_each(|(client, share)| totals[*client as usize] += seconds * share / cost(&shares));
            plan.pieces.iter().filter(|piece| piece.0 < others.len()).for_each(|piece| ran[piece.0] = step);
            if let Some(sessions) = plan.sessions {
                pace.observe(Load { sessions, cost: cost(&shares[plan.first..]) }, seconds);
            }
            let has_turn = plan.pieces.iter().any(|piece| piece.0 == others.len());
            // The others may be measured in its stead.
            times.extend((asks && step > 100).then_some(if has_turn { seconds } else { f64::NAN }));
        }
        (times, totals)
    }

    #[test]
    fn a_client_that_asks_seldom_has_short_steps_whatever_others_ask() {
        let [decoding, scoring, prompt] = [(0, 1), (0, 500), (500, 1)].map(|need| (Kind::Chain, need));
        let trees = [(Kind::Tree, (0, 16)), (Kind::Proposal, (0, 40)), (Kind::Tree, (0, 30))];
        for others in [
            vec![decoding; 16],
            vec![scoring; 16],
            vec![prompt; 3],
            [decoding, scoring, prompt].repeat(5),
            trees.repeat(5),
            [decoding, scoring, prompt, trees[0], trees[1]].repeat(3),
        ] {
            let (times, totals) = crowd(&others, 0, 4);
            let long = times.iter().filter(|seconds| seconds.is_nan() || **seconds > 0.0014 * 3.5).count();
            assert!(long * 20 <= times.len(), "{long} of {} steps: {times:?}", times.len());
            let is_reader = |client: &usize| others[*client] == decoding;
            let (readers, bulk): (Vec<_>, Vec<_>) = (0..others.len()).partition(is_reader);
            let least = |clients: &[usize]| clients.iter().map(|client| totals[*client]).fold(f64::MAX, f64::min);
            let most = |clients: &[usize]| clients.iter().map(|client| totals[*client]).fold(0.0, f64::max);
            for alike in [&readers, &bulk] {
                assert!(most(alike) <= 1.25 * least(alike), "equal shares, whatever they ask: {totals:?}");
            }
            assert!(most(&bulk) <= 1.25 * least(&readers), "readers have no less: {totals:?}");
        }
    }

    #[test]
    fn sessions_of_one_client_take_turns() {
        let accounts = Accounts::default();
        let mut pace = pace(1);
        pace.observe(Load { sessions: 1, cost: 100.0 }, 0.030);
        // 10 is what 3 ms pay for: beside the first, two and a half rows.
        let mut ran = [0; 6];
        for step in 1..=3 {
            let all = (0..6).map(|n| Candidate { ran: ran[n], ..candidate(n, 1, (0, 1)) });
            let all = all.chain([Candidate { ran: 9, ..candidate(6, 2, (0, 1)) }]).collect();
            let plan = Plan::new(all, &pace, &accounts);
            plan.pieces.iter().for_each(|piece| ran[piece.0.min(5)] = step);
        }
        assert!(ran.iter().all(|step| *step > 0), "{ran:?}");
    }

    #[test]
    fn a_client_that_asks_often_seldom_waits_for_a_crowd() {
        for (need, has_read) in [((0, 500), 0), ((500, 1), 0), ((0, 1), BEGINNING), ((0, 9), BEGINNING)] {
            let (times, _) = crowd(&[(Kind::Chain, need); 16], has_read, 40);
            let waited = times.iter().filter(|seconds| seconds.is_nan()).count();
            assert!(waited * 20 <= times.len(), "{waited} of {} steps", times.len());
        }
    }

    #[test]
    fn sessions_that_have_read_less_come_first() {
        let mut accounts = Accounts::default();
        // The client of the first has used the most.
        accounts.charge(&[(0, 9.0), (1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)], 0.1);
        let read = [0, FIRST, 4 * FIRST - 1, BEGINNING, 0];
        let all = read.iter().enumerate();
        let all = all.map(|(n, read)| Candidate { has_read: *read, ..candidate(n, n as u64, (0, 1)) });
        let long = Candidate { has_read: 0, ..candidate(5, 1, (0, SHORT + 1)) };
        let (first, others) = by_use(all.chain([long]).collect(), &accounts, &pace(1));
        let order: Vec<_> = first.iter().chain(&others).map(|candidate| candidate.work).collect();
        assert_eq!(order, [4, 0, 1, 2, 3, 5]);
    }

    #[test]
    fn trees_are_counted_whole_and_tell_nothing_of_one_session() {
        let tree = |work, client| Candidate { kind: Kind::Tree, ..candidate(work, client, (0, 20)) };
        let (mut pace, accounts) = (Pace::new(ROW), Accounts::default());
        // The time of one session is unknown, and no tree can tell it.
        let trees = vec![tree(0, 1), tree(1, 2), tree(2, 2)];
        let plan = Plan::new(trees.clone(), &pace, &accounts);
        assert_eq!(plan, Plan { pieces: vec![(0, 20)], first: 0, sessions: Some(1) }, "a turn after the other");
        let plan = Plan::new([trees, vec![candidate(3, 3, (0, 9))]].concat(), &pace, &accounts);
        assert_eq!(plan, Plan { pieces: vec![(3, 1)], first: 1, sessions: Some(1) }, "one row measures it");
        pace.observe(Load { sessions: 1, cost: 0.0 }, 0.001);
        (0..4).for_each(|_| pace.observe(Load { sessions: 1, cost: 100.0 }, 0.002));
        pace.observe(Load { sessions: 1, cost: 100.0 }, 0.00301);
        // A cost of nearly 100 pays for one tree of 80.
        let plan = Plan::new(vec![tree(0, 1), tree(1, 2), candidate(2, 3, (0, 9))], &pace, &accounts);
        assert_eq!(plan.pieces, [(0, 20), (2, 5)], "the second waits, a list takes what is left");
        pace.observe(Load { sessions: 1, cost: 100.0 }, 0.030);
        assert_eq!(Plan::new(vec![tree(0, 1), tree(1, 2)], &pace, &accounts).pieces, [(0, 20)], "its turn");
        let decoder = candidate(2, 3, (0, 1));
        assert_eq!(Plan::new(vec![decoder, tree(0, 1)], &pace, &accounts).pieces, [(2, 1)]);
        let own = Candidate { client: 1, ..decoder };
        assert_eq!(Plan::new(vec![own, tree(0, 1)], &pace, &accounts).pieces, [(2, 1), (0, 20)], "of one client");
    }

    #[test]
    fn proposals_cost_the_rows_of_the_output_head() {
        let pace = pace(1);
        let proposal = Candidate { kind: Kind::Proposal, ..candidate(0, 1, (0, 20)) };
        let tree = Candidate { kind: Kind::Tree, ..proposal };
        assert_eq!([proposal, tree].map(|candidate| candidate.cost(20, &pace)), [60.0, 80.0]);
        let one = Candidate { read: 1, ..proposal };
        let plan = Plan::new(vec![one], &pace, &Accounts::default());
        assert_eq!(plan, Plan { pieces: vec![(0, 1)], first: 0, sessions: Some(0) }, "nobody decodes");
    }
}
