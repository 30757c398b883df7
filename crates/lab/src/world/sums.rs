//! Worked word sums.

use super::dice::{Dice, fill};
use super::names::first_name;

/// A story of some things of which more come or some go.
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
        "{who} has {a} {goods}. Then {who} {changes} {b}. How many {goods} does {who} have now?",
        "{who} has {a} {goods} and {changes} {b}. How many {goods} are there in the end?",
        "In the morning {who} has {a} {goods}. At night {who} {changes} {b}. How many {goods} is that?",
        "{who} fills a basket with {a} {goods}. Later {who} {changes} {b}. How many {goods} remain?",
        "{who} takes {a} {goods} to the market and {changes} {b} there. How many {goods} does {who} bring home?",
        "On Monday {who} has {a} {goods}. On Tuesday {who} {changes} {b}. How many {goods} does that make?",
        "{a} {goods} lie on the table of {who}. Then {who} {changes} {b}. How many {goods} are on it now?",
        "{who} keeps {a} {goods} in a box. This week {who} {changes} {b}. What does the box hold now?",
        "{who} owns {a} {goods}. Today {who} {changes} {b}. Tell me how many {goods} {who} has now.",
        "At noon {who} counts {a} {goods}. Then {who} {changes} {b}. What is the number of {goods} now?",
    ],
    &[
        "{who} brings {a} {goods} from home and later {changes} {b}. With how many {goods} does {who} end up?",
        "The bag of {who} holds {a} {goods}. After that {who} {changes} {b}. Say how many {goods} there are.",
    ],
];

impl Sum {
    /// A sum told in the words of the web (0) or of the evaluation (1).
    pub(super) fn new(told: usize, dice: &mut Dice) -> Self {
        let one = |list: &'static str, dice: &mut Dice| dice.pick(&list.split(';').collect::<Vec<_>>());
        let (small, b, grows) = (dice.between(2, 9), dice.between(2, 9), dice.chance(50));
        let (a, total) = if grows { (small, small + b) } else { (small + b, small) };
        let (sign, changes) = if grows { ("+", one(GAINS, dice)) } else { ("-", one(LOSSES, dice)) };
        let (goods, who) = (one(GOODS, dice), first_name(dice));
        let [a, b] = [a, b].map(|number| number.to_string());
        let values = [("who", who.as_str()), ("goods", goods), ("changes", changes), ("a", &a), ("b", &b)];
        Self {
            question: fill(dice.pick(STORIES[told]), &values),
            worked: format!("Let us reckon it up together: {a} {sign} {b} = {total}. The answer is {total}."),
            total: total as u32,
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
        let (a, b) = (dice.between(2, 9), dice.between(2, 9));
        if dice.chance(50) { format!("{a} + {b} = {}.", a + b) } else { format!("{} - {b} = {a}.", a + b) }
    };
    (0..12).map(|_| line(dice)).collect::<Vec<_>>().join(" ")
}
