//! Proposals: a tree of tokens, each with its source and the knowledge of its acceptance.

use crate::acceptance::{Acceptance, Hint};
use crate::{Result, Step, Token, Tree};

/// A token that a source proposes.
#[derive(Clone, Debug)]
pub(super) struct Drafted {
    pub(super) token: Token,
    pub(super) hint: Hint,
    /// The second choice at its position.
    pub(super) second: Option<(Token, Hint)>,
}

impl From<(Token, Hint)> for Drafted {
    fn from((token, hint): (Token, Hint)) -> Self {
        Self { token, hint, second: None }
    }
}

/// A token at a vertex, by the index of its source.
#[derive(Clone, Copy, Debug)]
struct Guess {
    source: usize,
    /// The vertex after which the token is expected.
    parent: u32,
    token: Token,
    hint: Hint,
}

/// The bounds of a tree's growth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// Seconds that an accepted token is worth.
    pub(super) worth: f64,
    /// Seconds that each node costs the checking model.
    pub(super) further: f64,
    /// The most nodes.
    pub(super) nodes: usize,
    /// The longest path.
    pub(super) depth: usize,
}

/// A tree of proposed tokens.
#[derive(Debug, Default)]
pub(super) struct Proposal {
    tree: Tree,
    /// Index of the source of each node.
    sources: Vec<usize>,
    /// Everything that is learned from a check: the nodes, and second choices that are none.
    guesses: Vec<Guess>,
}

/// The result of a check.
#[derive(Debug)]
pub(super) struct Verdict {
    /// The model's own steps: the accepted tokens, and one more.
    pub(super) steps: Vec<Step>,
    /// The sources of the accepted tokens.
    pub(super) accepted: Vec<usize>,
}

impl Proposal {
    /// A single branch by one source.
    pub(super) fn chain(source: usize, drafted: &[Drafted]) -> Result<Self> {
        let mut proposal = Self::default();
        for (vertex, item) in drafted.iter().enumerate() {
            let parent = vertex as u32;
            proposal.push(Guess { source, parent, token: item.token, hint: item.hint })?;
            if let Some((token, hint)) = item.second {
                proposal.guesses.push(Guess { source, parent, token, hint });
            }
        }
        Ok(proposal)
    }

    fn push(&mut self, guess: Guess) -> Result<u32> {
        let vertex = self.tree.push(guess.parent, guess.token)?;
        self.sources.push(guess.source);
        self.guesses.push(guess);
        Ok(vertex)
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Tells whether it is a single branch.
    pub(super) fn is_chain(&self) -> bool {
        self.tree.depth() == self.tree.len()
    }

    /// The number of nodes of each source.
    pub(super) fn count(&self, source: usize) -> usize {
        self.sources.iter().filter(|&&other| other == source).count()
    }

    /// Adds second choices as leaves, the likeliest first, as long as they are worth their cost.
    pub(super) fn add_seconds(&mut self, acceptances: &[&Acceptance], growth: Growth) -> Result<()> {
        let mut reached = vec![1.0; self.tree.len() + 1];
        for guess in self.guesses.iter().filter(|guess| !matches!(guess.hint, Hint::Second(_))) {
            if let Some(vertex) = self.tree.child(guess.parent, guess.token) {
                reached[vertex as usize] = reached[guess.parent as usize] * acceptances[guess.source].of(guess.hint);
            }
        }
        let seconds = self.guesses.iter().filter(|guess| matches!(guess.hint, Hint::Second(_)));
        let gain = |guess: &Guess| reached[guess.parent as usize] * acceptances[guess.source].of(guess.hint);
        let mut seconds: Vec<_> = seconds.map(|guess| (gain(guess), *guess)).collect();
        seconds.sort_by(|one, other| other.0.total_cmp(&one.0));
        for (gain, guess) in seconds {
            let pays = gain * growth.worth > growth.further && self.tree.len() < growth.nodes;
            if pays && self.tree.child(guess.parent, guess.token).is_none() {
                self.tree.push(guess.parent, guess.token)?;
                self.sources.push(guess.source);
            }
        }
        Ok(())
    }

    /// Adds the branch of another source, as far as it is worth its cost.
    pub(super) fn add_branch(
        &mut self,
        source: usize,
        tokens: &[(Token, Hint)],
        acceptance: &Acceptance,
        growth: Growth,
    ) -> Result<()> {
        let (mut parent, mut reached) = (0, 1.0);
        for &(token, hint) in tokens.iter().take(growth.depth) {
            reached *= acceptance.of(hint);
            let guess = Guess { source, parent, token, hint };
            parent = match self.tree.child(parent, token) {
                Some(vertex) => {
                    self.guesses.push(guess);
                    vertex
                }
                None if reached * growth.worth > growth.further && self.tree.len() < growth.nodes => {
                    self.push(guess)?
                }
                None => break,
            };
        }
        Ok(())
    }

    /// Follows the model's choices, one per vertex, and reports for each guess on the way whether it
    /// was right.
    pub(super) fn judge(&self, choices: Vec<Step>, mut learn: impl FnMut(usize, Hint, bool)) -> Verdict {
        let (mut steps, mut accepted, mut vertex) = (Vec::new(), Vec::new(), 0);
        let mut choices: Vec<_> = choices.into_iter().map(Some).collect();
        while let Some(step) = choices.get_mut(vertex as usize).and_then(Option::take) {
            let chosen = match &step {
                Step::Token(sampled) => Some(sampled.token),
                Step::End(_) => None,
            };
            steps.push(step);
            for guess in self.guesses.iter().filter(|guess| guess.parent == vertex) {
                learn(guess.source, guess.hint, chosen == Some(guess.token));
            }
            match chosen.and_then(|token| self.tree.child(vertex, token)) {
                Some(child) => {
                    accepted.push(self.sources[child as usize - 1]);
                    vertex = child;
                }
                None => break,
            }
        }
        Verdict { steps, accepted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampled;

    fn drafted() -> Vec<Drafted> {
        let second = |token, probability| Some((token, Hint::Second(probability)));
        vec![
            Drafted { token: 5, hint: Hint::Probability(0.6), second: second(6, 0.35) },
            Drafted { token: 7, hint: Hint::Probability(0.9), second: second(8, 0.02) },
        ]
    }

    fn choices(tokens: &[Token]) -> Vec<Step> {
        let step = |&token| Step::Token(Sampled { token, logprob: None, top: vec![] });
        tokens.iter().map(step).collect()
    }

    const GROWTH: Growth = Growth { worth: 1.0, further: 0.1, nodes: 8, depth: 8 };

    #[test]
    fn second_choices_that_pay_become_leaves() {
        let mut proposal = Proposal::chain(0, &drafted()).unwrap();
        assert!(proposal.is_chain());
        let acceptance = Acceptance::default();
        proposal.add_seconds(&[&acceptance], GROWTH).unwrap();
        assert_eq!((proposal.tree().tokens(), proposal.tree().parents()), (&[5, 7, 6][..], &[0, 1, 0][..]));
        assert!(!proposal.is_chain());
        let mut learned = Vec::new();
        let verdict = proposal.judge(choices(&[6, 1, 1, 9]), |source, hint, right| learned.push((source, hint, right)));
        assert_eq!((verdict.steps, verdict.accepted), (choices(&[6, 9]), vec![0]));
        assert_eq!(learned, [(0, Hint::Probability(0.6), false), (0, Hint::Second(0.35), true)]);
    }

    #[test]
    fn branches_of_two_sources_share_their_prefix() {
        let mut proposal = Proposal::chain(0, &drafted()).unwrap();
        let branch = [(5, Hint::Match(9)), (4, Hint::Match(10)), (3, Hint::Match(11))];
        proposal.add_branch(1, &branch, &Acceptance::default(), GROWTH).unwrap();
        assert_eq!((proposal.tree().tokens(), proposal.tree().parents()), (&[5, 7, 4, 3][..], &[0, 1, 1, 3][..]));
        assert_eq!((proposal.count(0), proposal.count(1)), (2, 2));
        let mut right = [0, 0];
        let verdict = proposal.judge(choices(&[5, 4, 1, 3, 2]), |source, hint, is_right| {
            right[source] += usize::from(is_right && !matches!(hint, Hint::Second(_)));
        });
        assert_eq!((verdict.steps, verdict.accepted), (choices(&[5, 4, 3, 2]), vec![0, 1, 1]));
        assert_eq!(right, [1, 3], "both sources are right about the token they share");
    }
}
