//! Word problems with worked sums.

use super::dice::{Dice, fill};
use super::names::first_name;
use super::query::{Forms, Phrasing};

/// A word problem: one addition or subtraction in a short story.
pub(super) struct Sum {
    pub(super) question: String,
    pub(super) worked: String,
    pub(super) total: u32,
}

const GOODS: &str = "apples;eggs;coins;nails;buttons;candles;plums;nuts;shells;beads;stamps;pears";
const GAINS: &str = "buys;finds;picks up;is given";
const LOSSES: &str = "sells;loses;gives away;drops";
/// First sentences of a story. Openings, events and questions combine freely.
const OPENINGS: Forms = Forms {
    web: &[
        "{who} has {a} {goods}.",
        "{who} owns {a} {goods}.",
        "In the morning {who} has {a} {goods}.",
        "On Monday {who} has {a} {goods}.",
        "At noon {who} counts {a} {goods}.",
        "{who} fills a basket with {a} {goods}.",
        "{who} takes {a} {goods} to the market.",
        "{who} brings {a} {goods} from home.",
        "{who} keeps {a} {goods} in a box.",
        "{a} {goods} lie on the table of {who}.",
        "The bag of {who} holds {a} {goods}.",
        "There are {a} {goods} in the house of {who}.",
        "Here are {a} {goods}, and {who} has them all.",
        "My neighbour {who} has {a} {goods} on the shelf.",
        "{who} starts the day with {a} {goods}.",
        "Under the bed of {who} are {a} {goods}.",
        "An old chest of {who} is filled with {a} {goods}.",
        "A trunk of {who} is packed with {a} {goods}.",
        "{who} arrives with {a} {goods}.",
        "Beside {who} stand {a} {goods} in a row.",
        "Last year {who} had {a} {goods}, no more and no less.",
        "With {a} {goods} in a sack {who} goes to town.",
        "Everybody knows that {who} has {a} {goods}.",
        "{a} {goods} are all that {who} has.",
        "It is raining, and {who} sits at home with {a} {goods}.",
        "Look at {who}, who has {a} {goods} today.",
        "The drawer of {who} is full: {a} {goods} are in it.",
        "So {who} carries {a} {goods} up the hill.",
        "{who} shows {a} {goods} to a friend.",
        "In the cellar of {who} there are {a} {goods}.",
    ],
    dev: &[],
    held: &[
        "On the ship of {who} there are {a} {goods}.",
        "{who} packs {a} {goods} for a long journey.",
        "Early in spring {who} has {a} {goods}.",
    ],
};
/// Sentences that tell of the change.
const EVENTS: Forms = Forms {
    web: &[
        "Then {who} {changes} {b}.",
        "Later {who} {changes} {b}.",
        "Today {who} {changes} {b}.",
        "After that {who} {changes} {b}.",
        "At night {who} {changes} {b}.",
        "On Tuesday {who} {changes} {b}.",
        "This week {who} {changes} {b} of them.",
        "Now {who} {changes} {b} {goods}.",
        "On the way {who} {changes} {b}.",
        "An hour before supper {who} {changes} {b}.",
        "As luck would have it, {who} {changes} {b} {goods}.",
        "Around midnight {who} {changes} {b}.",
        "All of a sudden {who} {changes} {b} {goods}.",
        "What happens? {who} {changes} {b}.",
        "Believe it or not, {who} {changes} {b}.",
        "In the afternoon {who} {changes} {b} {goods}.",
        "It so happens that {who} {changes} {b}.",
        "And then {who} {changes} {b} of them.",
        "Behind the mill {who} {changes} {b} {goods}.",
        "Before long {who} {changes} {b}.",
    ],
    dev: &[],
    held: &["On the road to town {who} {changes} {b}.", "By evening {who} {changes} {b} {goods}."],
};
/// Closing questions.
const QUESTIONS: Forms = Forms {
    web: &[
        "How many {goods} does {who} have now?",
        "How many {goods} are there in the end?",
        "How many {goods} is that?",
        "How many {goods} remain?",
        "How many {goods} does that make?",
        "How many {goods} does {who} bring home?",
        "With how many {goods} does {who} end up?",
        "How many does {who} have?",
        "Tell me how many {goods} {who} has now.",
        "Say how many {goods} there are.",
        "What is the number of {goods} now?",
        "{who} wants to know how many that makes.",
        "To how many {goods} does that come?",
        "Please count the {goods} of {who} again.",
        "Work out the number of {goods} that {who} has.",
        "And how many {goods} is it then?",
        "Can you say how many there are?",
        "So how many {goods} should {who} have?",
        "Find out how many {goods} are there.",
        "What will {who} count?",
    ],
    dev: &[],
    held: &["What number of {goods} does {who} have after this?", "Now count: how many {goods} are with {who}?"],
};

impl Sum {
    /// Draws a problem in the wording of the corpus or of the evaluation.
    pub(super) fn new(phrasing: Phrasing, dice: &mut Dice) -> Self {
        let one = |list: &'static str, dice: &mut Dice| dice.pick(&list.split(';').collect::<Vec<_>>());
        let (small, b, grows) = (dice.between(2, 9), dice.between(2, 9), dice.chance(50));
        let (a, total) = if grows { (small, small + b) } else { (small + b, small) };
        let (sign, changes) = if grows { ("+", one(GAINS, dice)) } else { ("-", one(LOSSES, dice)) };
        let (goods, who) = (one(GOODS, dice), first_name(dice));
        let (a, b) = (a.to_string(), b.to_string());
        let values = [("who", who.as_str()), ("goods", goods), ("changes", changes), ("a", &a), ("b", &b)];
        Self {
            question: fill(&[OPENINGS, EVENTS, QUESTIONS].map(|part| dice.pick(part.of(phrasing))).join(" "), &values),
            worked: format!("Let us reckon number by number: {a} {sign} {b} = {total}. The answer is {total}."),
            total: total as u32,
        }
    }
}

/// Templates used in the evaluation only.
pub(super) fn held_forms() -> impl Iterator<Item = &'static &'static str> {
    [OPENINGS, EVENTS, QUESTIONS].into_iter().flat_map(|forms| forms.held)
}

/// Lines of an addition and subtraction table.
pub(super) fn table(dice: &mut Dice) -> String {
    let line = |dice: &mut Dice| {
        let (a, b) = (dice.between(2, 9), dice.between(2, 9));
        if dice.chance(50) { format!("{a} + {b} = {}.", a + b) } else { format!("{} - {b} = {a}.", a + b) }
    };
    (0..12).map(|_| line(dice)).collect::<Vec<_>>().join(" ")
}
