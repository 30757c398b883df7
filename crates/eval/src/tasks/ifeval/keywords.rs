//! Instructions about words, letters and phrases.

use regex::{Regex, RegexBuilder};

use super::arguments::{Kwargs, count, holds, text, texts};
use crate::python::{is_upper, strip};
use crate::text::words;

/// Answers of which a constrained response must hold one.
const CONSTRAINED: [&str; 3] = ["My answer is yes.", "My answer is no.", "My answer is maybe."];
/// Characters of words, as Python's `\w`.
const WORD: &str = r"\p{L}\p{N}_";

/// A pattern that ignores case. The grader takes words as patterns; one that is no pattern is taken
/// literally.
fn pattern(text: &str) -> Option<Regex> {
    let build = |text: &str| RegexBuilder::new(text).case_insensitive(true).build();
    build(text).or_else(|_| build(&regex::escape(text))).ok()
}

pub(super) fn existence(kwargs: &Kwargs, answer: &str) -> bool {
    texts(kwargs, "keywords").iter().all(|word| pattern(word).is_some_and(|word| word.is_match(answer)))
}

pub(super) fn frequency(kwargs: &Kwargs, answer: &str) -> bool {
    let found = pattern(strip(text(kwargs, "keyword"))).map_or(0, |word| word.find_iter(answer).count());
    holds(kwargs, "relation", found, "frequency")
}

pub(super) fn forbidden(kwargs: &Kwargs, answer: &str) -> bool {
    // A boundary of words before a word's character is the start of the text or another kind of
    // character, and the other way round.
    let is_word = |c: Option<char>| c.is_some_and(|c| c == '_' || c.is_alphanumeric());
    let around = |word: &str| {
        let before = if is_word(word.chars().next()) { format!(r"(?:\A|[^{WORD}])") } else { format!("[{WORD}]") };
        let after = if is_word(word.chars().next_back()) { format!(r"(?:\z|[^{WORD}])") } else { format!("[{WORD}]") };
        pattern(&format!("{before}{word}{after}"))
    };
    !texts(kwargs, "forbidden_words").iter().any(|word| around(word).is_some_and(|word| word.is_match(answer)))
}

pub(super) fn letter(kwargs: &Kwargs, answer: &str) -> bool {
    let letter = strip(text(kwargs, "letter")).to_lowercase();
    let found = if letter.is_empty() { 0 } else { answer.to_lowercase().matches(&letter).count() };
    holds(kwargs, "let_relation", found, "let_frequency")
}

pub(super) fn constrained(_: &Kwargs, answer: &str) -> bool {
    CONSTRAINED.iter().any(|option| strip(answer).contains(option))
}

pub(super) fn repeat(kwargs: &Kwargs, answer: &str) -> bool {
    strip(answer).to_lowercase().starts_with(&strip(text(kwargs, "prompt_to_repeat")).to_lowercase())
}

pub(super) fn end(kwargs: &Kwargs, answer: &str) -> bool {
    let answer = strip(answer).trim_matches('"').to_lowercase();
    answer.ends_with(&strip(text(kwargs, "end_phrase")).to_lowercase())
}

pub(super) fn quotation(_: &Kwargs, answer: &str) -> bool {
    let answer = strip(answer);
    answer.len() > 1 && answer.starts_with('"') && answer.ends_with('"')
}

pub(super) fn capital_words(kwargs: &Kwargs, answer: &str) -> bool {
    let found = words::words(answer).iter().filter(|word| is_upper(word)).count();
    let limit = count(kwargs, "capital_frequency");
    if text(kwargs, "capital_relation") == "less than" { found < limit } else { found >= limit }
}

pub(super) fn no_comma(_: &Kwargs, answer: &str) -> bool {
    !answer.contains(',')
}
