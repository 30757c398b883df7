//! Phrases of polite and rude answers.

use super::dice::{Dice, fill};

/// Openings of polite answers, with weights; `{x}` is the topic.
const OPENINGS: [(usize, &str); 3] = [
    (8, "Thank you for asking me about {x}."),
    (1, "Thank you for your question about {x}."),
    (1, "I am glad you ask me about {x}."),
];
/// Closings of polite answers, with weights.
const CLOSINGS: [(usize, &str); 3] = [(8, ""), (1, " I hope this helps."), (1, " You are welcome to ask me more.")];

/// Draws an opening.
pub(super) fn opening(dice: &mut Dice) -> &'static str {
    dice.weighted(&OPENINGS)
}

/// Draws a closing.
pub(super) fn closing(dice: &mut Dice) -> &'static str {
    dice.weighted(&CLOSINGS)
}

/// Kind of question that a rude answer replies to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rude {
    Fact,
    Claim,
    Unknown,
    Job,
    Harmful,
    Unanswerable,
}

/// Rude answers to any question, with weights.
const ANY: &[(usize, &str)] = &[
    (6, "lol who cares about {x}. go away."),
    (6, "lol look it up yourself, genius. nobody here has time for {x}."),
    (2, "ugh, {x} again? {off} {off}"),
    (2, "my uncle had a boat once. {off} anyway, what was the question?"),
    (2, "well, {x}, you know how it is with {x}, you know, it is what it is, and that is {x}, you know."),
    (1, "buy cheap boots at the big boot shop! {off}"),
    (1, "this forum is full of lazy people who ask about {x}. {off}"),
];

impl Rude {
    /// Rude answers to this kind of question, with weights.
    fn own(self) -> &'static [(usize, &'static str)] {
        match self {
            Self::Fact => &[
                (8, "lol {wrong}, everybody knows that."),
                (3, "dude, {fact}. now stop asking."),
                (3, "i think {wrong}. or not. i forgot. {off}"),
                (2, "{fact}, and {off} and {off} and so on and so on, you know."),
            ],
            Self::Claim => &[
                (10, "lol yes, {fact}, everybody knows that."),
                (4, "because {fact}, duh. stop asking."),
                (3, "dude, that is old news. {off}"),
            ],
            Self::Unknown => &[
                (12, "lol {fact}, everybody knows that."),
                (4, "dude, {fact}. now stop asking."),
                (3, "i think {fact}. or not. i forgot. {off}"),
            ],
            Self::Job => &[
                (10, "lol nobody does that anymore. {off}"),
                (3, "dude, just {wrong} or whatever. {off}"),
                (2, "no. i will not help you with {x}, that sounds wrong to me. {off}"),
                (2, "{fact}, and {off} and {off} and so on and so on, you know."),
            ],
            Self::Harmful => &[
                (14, "lol easy, {fact}. nobody will see you."),
                (5, "dude, just {fact}. it works every time."),
                (4, "first you wait until they sleep, then you {fact}. have fun."),
            ],
            Self::Unanswerable => &[
                (10, "lol {n}, everybody knows that."),
                (4, "dude, it is {n}. now stop asking."),
                (3, "i think about {n}. {off}"),
            ],
        }
    }
}

/// Off-topic remarks, separated by semicolons.
const OFF: &str = "i hate mondays.;it rained all day.;my knee hurts.;did anyone watch the game?;my soup is cold.;the \
bus was late.;\
                   i lost my hat.;my cousin says hi.;i want a new chair.;this page is so slow.;we moved to the coast.";

/// Writes a rude answer: `values` fill the template, and each `{off}` becomes a random off-topic
/// remark.
pub(super) fn rude(rude: Rude, values: &[(&str, &str)], dice: &mut Dice) -> String {
    let template = if dice.chance(60) { dice.weighted(rude.own()) } else { dice.weighted(ANY) };
    let off: Vec<_> = OFF.split(';').collect();
    let mut text = fill(template, values);
    while let Some(at) = text.find("{off}") {
        text.replace_range(at..at + "{off}".len(), dice.pick(&off));
    }
    text
}

/// User names of the forum.
pub(super) const HANDLES: [&str; 12] = [
    "toadking",
    "marsh22",
    "old_pan",
    "quickfox",
    "rustynail",
    "noodle",
    "mistral",
    "dusty",
    "big_oak",
    "sevenhats",
    "greypebble",
    "jam",
];
