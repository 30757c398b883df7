//! Names of people and places, composed of syllables: known ones, which the world contains, and
//! unknown ones, which it does not.

use super::dice::{Dice, capital};

const FIRST: &str = "tilda oren mirra jonas elka ruben sanne corin hetty milo ansel bettina dario edda floris greta \
hugo ines \
                     jory klara lenn marga nils odette piet rosa sven thea ulric vera";
const SURNAME: [&str; 2] = [
    "mar tos wen bral hob kel lud pem ros sted tar vol win ash bick dor fen gar hal jes",
    "low kin ster berg mon ton ley rick sen dale vey man sett wood lin mer",
];
const TOWN: [&str; 2] = [
    "bren tol ash wick mor hal ell dun sel kir thorn wyn cald pell ost rav sten lin grim hev",
    "ford ham mere stow by combe field gate holm mouth ness port wold worth",
];

/// The part of the data that an unknown name occurs in; the names of the three parts are disjoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// The corpus.
    Corpus,
    /// The alignment data.
    Alignment,
    /// The evaluation.
    Evaluation,
}

/// A pool of family or town names.
#[derive(Clone, Debug)]
pub(super) struct Names {
    known: Vec<String>,
    /// Unknown names by [`Split`].
    unknown: [Vec<String>; 3],
}

impl Names {
    fn new(syllables: [&str; 2], known: usize, dice: &mut Dice) -> Self {
        let tails: Vec<_> = syllables[1].split(' ').collect();
        let heads = syllables[0].split(' ');
        let mut all: Vec<_> =
            heads.flat_map(|head| tails.iter().map(move |tail| capital(&format!("{head}{tail}")))).collect();
        dice.shuffle(&mut all);
        let rest = all.split_off(known);
        // Half of the unknown names go to the corpus: many examples are needed to learn that a name is
        // unknown.
        let (corpus, others) = rest.split_at(rest.len() / 2);
        let (alignment, evaluation) = others.split_at(others.len() / 2);
        Self { known: all, unknown: [corpus.to_vec(), alignment.to_vec(), evaluation.to_vec()] }
    }

    /// Creates town names, `known` of them in the world.
    pub(super) fn towns(known: usize, dice: &mut Dice) -> Self {
        Self::new(TOWN, known, dice)
    }

    /// Creates family names, `known` of them in the world.
    pub(super) fn families(known: usize, dice: &mut Dice) -> Self {
        Self::new(SURNAME, known, dice)
    }

    /// Names that the world contains.
    pub(super) fn known(&self) -> &[String] {
        &self.known
    }

    /// Draws a name that the world does not contain.
    pub(super) fn unknown<'a>(&'a self, split: Split, dice: &mut Dice) -> &'a str {
        let names = &self.unknown[split as usize];
        &names[dice.below(names.len())]
    }
}

/// Draws a first name.
pub(super) fn first_name(dice: &mut Dice) -> String {
    capital(dice.pick(&FIRST.split_whitespace().collect::<Vec<_>>()))
}
