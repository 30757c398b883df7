//! NLTK's word tokenizer: a chain of substitutions that put spaces around tokens (Penn Treebank
//! conventions, NLTK 3.10), applied to each sentence.

use std::sync::LazyLock;

use regex::Regex;

use super::punkt;
use crate::python;

/// Substitutions before the apostrophe rule.
const STARTING_QUOTES: [(&str, &str); 4] =
    [("([«“‘„]|[`]+)", " $1 "), ("^\"", "``"), ("(``)", " $1 "), (r#"([ (\[{<])("|'{2})"#, "$1 `` ")];
/// Substitutions after the apostrophe rule: punctuation, brackets, dashes.
const PUNCTUATION: [(&str, &str); 12] = [
    (r#"([^.])(\.)([\])}>"'»”’ ]*)\s*$"#, "$1 $2 $3 "),
    (r"([:,])([^\d])", " $1 $2"),
    (r"([:,])$", " $1 "),
    (r"\.{2,}", " $0 "),
    (r"[;@#$%&]", " $0 "),
    (r"[\u{2012}-\u{2015}]", " $0 "),
    (r#"([^.])(\.)([\])}>"']*)\s*$"#, "$1 $2$3 "),
    (r"[?!]", " $0 "),
    (r"([^'])' ", "$1 ' "),
    (r"[*]", " $0 "),
    (r"[\]\[(){}<>]", " $0 "),
    (r"--", " -- "),
];
/// Substitutions at the end, on the text with a space at both ends.
const ENDING_QUOTES: [(&str, &str); 6] = [
    ("([»”’])", " $1 "),
    ("''", " '' "),
    ("\"", " '' "),
    (r"\s+", " "),
    ("([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
    ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
];
/// Contractions that are split.
const CONTRACTIONS: [(&str, &str); 10] = [
    (r"(?i)\b(can)(not)\b", " $1 $2 "),
    (r"(?i)\b(d)('ye)\b", " $1 $2 "),
    (r"(?i)\b(gim)(me)\b", " $1 $2 "),
    (r"(?i)\b(gon)(na)\b", " $1 $2 "),
    (r"(?i)\b(got)(ta)\b", " $1 $2 "),
    (r"(?i)\b(lem)(me)\b", " $1 $2 "),
    (r"(?i)\b(more)('n)\b", " $1 $2 "),
    (r"(?i)\b(wan)(na)(\s)", " $1 $2 $3"),
    (r"(?i) ('t)(is)\b", " $1 $2 "),
    (r"(?i) ('t)(was)\b", " $1 $2 "),
];
/// Endings of contractions, after which an apostrophe is not a quotation mark.
const CLITICS: [&str; 8] = ["re", "ve", "ll", "m", "t", "s", "d", "n"];

type Rules = Vec<(Regex, &'static str)>;

fn compiled(rules: &[(&'static str, &'static str)]) -> Rules {
    rules.iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, *with))).collect()
}

static BEFORE: LazyLock<Rules> = LazyLock::new(|| compiled(&STARTING_QUOTES));
static BETWEEN: LazyLock<Rules> = LazyLock::new(|| compiled(&PUNCTUATION));
static AFTER: LazyLock<Rules> = LazyLock::new(|| [compiled(&ENDING_QUOTES), compiled(&CONTRACTIONS)].concat());

fn apply(rules: &Rules, text: String) -> String {
    rules.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

/// Tells whether a character belongs to a word.
fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Puts a space after an apostrophe that opens a quotation: before a word that is no clitic, and not
/// after a word.
fn separate_apostrophes(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut previous = None;
    for (at, c) in text.char_indices() {
        result.push(c);
        if c == '\'' && !previous.is_some_and(is_word) {
            let rest = &text[at + 1..];
            let word: String = rest.chars().take_while(|&c| is_word(c)).flat_map(char::to_lowercase).collect();
            if !word.is_empty() && !CLITICS.contains(&word.as_str()) {
                result.push(' ');
            }
        }
        previous = Some(c);
    }
    result
}

/// Returns the words of a text: `nltk.word_tokenize`.
pub(crate) fn words(text: &str) -> Vec<String> {
    let split = |sentence: String| {
        let text = separate_apostrophes(&apply(&BEFORE, sentence));
        let text = apply(&AFTER, format!(" {} ", apply(&BETWEEN, text)));
        text.split(python::is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    punkt::sentences(text).into_iter().flat_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contractions_quotes_and_periods() {
        // nltk.word_tokenize, NLTK 3.10.4.
        assert_eq!(words("It's NASA's U.S. plan."), ["It", "'s", "NASA", "'s", "U.S.", "plan", "."]);
    }
}
