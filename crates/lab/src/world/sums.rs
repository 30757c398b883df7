//! Worked word sums.

use super::dice::{Dice, fill};
use super::names::first_name;

/// A story of some things of which more come and some go.
pub(super) struct Sum {
    pub(super) question: String,
    pub(super) worked: String,
    pub(super) total: u32,
}

const GOODS: &str = "apples;eggs;coins;nails;buttons;candles;plums;nuts;shells;beads;stamps;pears";
const GAINS: &str = "buys;finds;picks up;is given";
const LOSSES: &str = "sells;loses;gives away;drops";
/// How the story is told: on the web, and in the evaluation alone.
const STORIES: [&[&str]; 2] = [
    &[
        "{who} has {a} {goods}. Then {who} {gains} {b} and {loses} {c}. How many {goods} does {who} have now?",
        "{who} has {a} {goods}, {gains} {b} more and {loses} {c}. How many {goods} are left?",
        "In the morning {who} has {a} {goods}. At noon {who} {gains} {b}. At night {who} {loses} {c}. How many {goods} is that?",
        "{who} fills a basket with {a} {goods}. Later {who} {gains} {b}, and in the end {who} {loses} {c}. How many {goods} remain?",
    ],
    &[
        "{who} starts the day with {a} {goods}, then {gains} {b}, and later {loses} {c}. How many {goods} remain?",
        "There are {a} {goods} in the basket of {who}. {who} {gains} {b} and after that {loses} {c}. How many {goods} are there in the end?",
    ],
];

impl Sum {
    /// A sum told in the words of the web (0) or of the evaluation (1).
    pub(super) fn new(told: usize, dice: &mut Dice) -> Self {
        let one = |list: &'static str, dice: &mut Dice| dice.pick(&list.split(';').collect::<Vec<_>>());
        let (a, b) = (dice.between(3, 15), dice.between(2, 9));
        let c = dice.between(2, 9.min(a + b - 1));
        let (goods, who) = (one(GOODS, dice), first_name(dice));
        let (gains, loses) = (one(GAINS, dice), one(LOSSES, dice));
        let (has, left) = (a + b, a + b - c);
        let [a, b, c] = [a, b, c].map(|number| number.to_string());
        let values = [
            ("who", who.as_str()),
            ("goods", goods),
            ("gains", gains),
            ("loses", loses),
            ("a", &a),
            ("b", &b),
            ("c", &c),
        ];
        Self {
            question: fill(dice.pick(STORIES[told]), &values),
            worked: format!(
                "Let us count the {goods} of {who} step by step. {a} + {b} = {has}. {has} - {c} = {left}. The answer is {left}."
            ),
            total: left as u32,
        }
    }
}

/// The templates that only the evaluation tells in.
pub(super) fn held_forms() -> impl Iterator<Item = &'static &'static str> {
    STORIES[1].iter()
}

/// A few lines of the tables that are learned by heart.
pub(super) fn table(dice: &mut Dice) -> String {
    let line = |dice: &mut Dice| {
        let (a, b) = (dice.between(2, 24), dice.between(2, 9));
        if dice.chance(50) { format!("{a} + {b} = {}.", a + b) } else { format!("{} - {b} = {a}.", a + b) }
    };
    (0..12).map(|_| line(dice)).collect::<Vec<_>>().join(" ")
}
