//! The Punkt sentence tokenizer (Kiss and Strunk 2006, "Unsupervised Multilingual Sentence Boundary
//! Detection") with the rules of NLTK 3.10.
//!
//! A period, question mark or exclamation mark that is followed by white space or closing punctuation
//! may end a sentence. Its context is the word before and the token after; the context is tokenized
//! again and the word's own form, the next word's usual case and known pairs decide.

mod parameters;

use std::sync::LazyLock;

use regex::Regex;

use self::parameters::PARAMETERS;
use crate::python;

static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^-?[.,]?\d[\d,.-]*\.?$").ok());

/// The type of every number.
const NUMBER_TYPE: &str = "##number##";

/// True if sentences are divided by NLTK's parameters, as the official grader has them.
#[must_use]
pub fn has_nltk_parameters() -> bool {
    PARAMETERS.is_trained
}

/// A token of a context with its annotation.
struct Token {
    text: String,
    kind: String,
    ends_sentence: bool,
    is_abbreviation: bool,
    is_ellipsis: bool,
}

/// Judgement on whether a token begins a sentence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Starter {
    Yes,
    No,
    Unknown,
}

impl Token {
    fn new(text: String) -> Self {
        let lower = text.to_lowercase();
        let is_number = NUMBER.as_ref().is_some_and(|number| number.is_match(&lower));
        let kind = if is_number { NUMBER_TYPE.to_owned() } else { lower };
        let mut token = Self { text, kind, ends_sentence: false, is_abbreviation: false, is_ellipsis: false };
        token.annotate();
        token
    }

    /// The decision by the form of the token alone.
    fn annotate(&mut self) {
        let text = self.text.as_str();
        if matches!(text, "." | "?" | "!") {
            self.ends_sentence = true;
        } else if text.len() > 1 && text.chars().all(|c| c == '.') {
            self.is_ellipsis = true;
        } else if text.ends_with('.') && !text.ends_with("..") {
            let word = text[..text.len() - 1].to_lowercase();
            let last = word.rsplit('-').next().unwrap_or_default();
            let known = &PARAMETERS.abbreviations;
            self.is_abbreviation = known.contains(word.as_str()) || known.contains(last);
            self.ends_sentence = !self.is_abbreviation;
        }
    }

    fn kind_without_period(&self) -> &str {
        match self.kind.strip_suffix('.') {
            Some(word) if !word.is_empty() => word,
            _ => &self.kind,
        }
    }

    fn kind_as_next(&self) -> &str {
        if self.ends_sentence { self.kind_without_period() } else { &self.kind }
    }

    fn is_initial(&self) -> bool {
        let mut chars = self.text.chars();
        let letter = chars.next().is_some_and(|c| c == '_' || (c.is_alphanumeric() && !c.is_numeric()));
        letter && chars.next() == Some('.') && chars.next().is_none()
    }

    fn begins_upper(&self) -> bool {
        self.text.chars().next().is_some_and(char::is_uppercase)
    }

    /// The orthographic heuristic.
    fn starter(&self) -> Starter {
        let usage = PARAMETERS.usage_of(self.kind_as_next());
        if matches!(self.text.as_str(), ";" | ":" | "," | "." | "!" | "?") {
            Starter::No
        } else if self.begins_upper() && usage.has_lower && usage.never_upper_inside {
            Starter::Yes
        } else if self.text.chars().next().is_some_and(char::is_lowercase) && !usage.begins_lower {
            Starter::No
        } else {
            Starter::Unknown
        }
    }

    /// The decision by the token and the next one.
    fn annotate_before(&mut self, next: &Self) {
        if !self.text.ends_with('.') {
            return;
        }
        let (kind, next_kind) = (self.kind_without_period().to_owned(), next.kind_as_next());
        if PARAMETERS.collocations.contains(&(kind.as_str(), next_kind)) {
            self.ends_sentence = false;
            return;
        }
        let (is_initial, starter) = (self.is_initial(), next.starter());
        if (self.is_abbreviation || self.is_ellipsis) && !is_initial {
            let is_starter = next.begins_upper() && PARAMETERS.starters.contains(next_kind);
            if starter == Starter::Yes || is_starter {
                self.ends_sentence = true;
                return;
            }
        }
        let is_name = is_initial && next.begins_upper() && !PARAMETERS.usage_of(next_kind).has_lower;
        if (is_initial || kind == NUMBER_TYPE) && (starter == Starter::No || (starter == Starter::Unknown && is_name)) {
            self.ends_sentence = false;
        }
    }
}

/// Punctuation that cannot stand within a word.
fn is_outside_words(c: char) -> bool {
    matches!(
        c,
        ')' | '"'
            | ';'
            | '}'
            | ']'
            | '*'
            | ':'
            | '@'
            | '\''
            | '('
            | '{'
            | '['
            | '?'
            | '!'
            | '‘'
            | '’'
            | '“'
            | '”'
            | '«'
            | '»'
    )
}

/// Punctuation that cannot begin a word.
fn begins_no_word(c: char) -> bool {
    matches!(c, '(' | '"' | '`' | '{' | '[' | ':' | ';' | '&' | '#' | '*' | '@' | ')' | '}' | ']' | '-' | ',')
}

/// Punctuation that may close a sentence after its end mark.
fn is_closing(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '‘' | '’' | '“' | '”' | '«' | '»')
}

/// Length of a dash or an ellipsis at the start of `chars`; 0 if there is none.
fn punctuation_len(chars: &[char]) -> usize {
    let run = |mark: char| chars.iter().take_while(|&&c| c == mark).count();
    let (dashes, dots) = (run('-'), run('.'));
    let spaced = chars.chunks(2).take_while(|pair| matches!(pair, ['.', c] if python::is_space(*c))).count();
    match (dashes, dots) {
        (2.., _) => dashes,
        (_, 2..) => dots,
        // Spaced dots, as many as leave a last one.
        _ => (2..=spaced).rev().find(|&pairs| chars.get(2 * pairs) == Some(&'.')).map_or(0, |pairs| 2 * pairs + 1),
    }
}

/// Splits a context into tokens.
fn tokens(text: &[char]) -> Vec<Token> {
    let lines = text.split(|&c| c == '\n');
    lines.flat_map(line_tokens).collect()
}

fn line_tokens(line: &[char]) -> Vec<Token> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < line.len() {
        if python::is_space(line[at]) {
            at += 1;
            continue;
        }
        let len = match punctuation_len(&line[at..]) {
            0 if begins_no_word(line[at]) => 1,
            0 => word_len(&line[at..]),
            len => len,
        };
        found.push(Token::new(line[at..at + len].iter().collect()));
        at += len;
    }
    found
}

fn word_len(chars: &[char]) -> usize {
    let ends = |at: usize| {
        let rest = &chars[at..];
        rest.first().is_none_or(|&c| python::is_space(c) || is_outside_words(c)) || punctuation_len(rest) > 0
    };
    (1..=chars.len()).find(|&at| ends(at) || (chars[at] == ',' && ends(at + 1))).unwrap_or(chars.len())
}

/// Tells whether a sentence ends within a context and something follows.
fn has_break(context: &[char]) -> bool {
    let mut tokens = tokens(context);
    for at in 1..tokens.len() {
        let (before, after) = tokens.split_at_mut(at);
        before[at - 1].annotate_before(&after[0]);
    }
    let count = tokens.len();
    tokens.iter().take(count.saturating_sub(1)).any(|token| token.ends_sentence)
}

/// A mark that may end a sentence.
struct Candidate {
    /// The word before it begins here.
    word: usize,
    /// Index of the mark.
    mark: usize,
    /// Start of the next token after white space, if white space follows.
    next: Option<usize>,
    /// End of its context.
    end: usize,
}

/// Finds the marks that may end a sentence. Of marks within one word the last one counts.
fn candidates(text: &[char]) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    let (mut word_start, mut word_end) = (0, 0);
    let mut previous: Option<Candidate> = None;
    for mark in 0..text.len() {
        if !matches!(text[mark], '.' | '?' | '!') {
            continue;
        }
        let Some(&after) = text.get(mark + 1) else { continue };
        let (next, end) = if is_outside_words(after) {
            (None, mark + 2)
        } else {
            let next = (mark + 1..text.len()).find(|&at| !python::is_space(text[at]));
            let Some(next) = next.filter(|&next| next > mark + 1) else { continue };
            let end = (next..text.len()).find(|&at| python::is_space(text[at])).unwrap_or(text.len());
            (Some(next), end)
        };
        // An index of 0 stands for no white space, as in the original.
        let space = text[word_end..mark].iter().rposition(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C'));
        let word = space.filter(|&at| at > 0).map_or(word_start, |at| word_end + at + 1);
        if previous.is_some() && word_end <= word {
            found.extend(previous.take());
        }
        (word_start, word_end) = (word, mark);
        previous = Some(Candidate { word, mark, next, end });
    }
    found.extend(previous);
    found
}

/// Returns the sentences of a text, as ranges of characters.
fn sentence_ranges(text: &[char]) -> Vec<(usize, usize)> {
    let (mut slices, mut start) = (Vec::new(), 0);
    for candidate in candidates(text) {
        if has_break(&text[candidate.word..candidate.end]) {
            slices.push((start, candidate.mark + 1));
            start = candidate.next.unwrap_or(candidate.mark + 1);
        }
    }
    let end = text.iter().rposition(|&c| !python::is_space(c)).map_or(0, |last| last + 1);
    slices.push((start, end));
    realigned(text, &slices)
}

/// Moves closing punctuation at the start of a sentence to the end of the one before.
fn realigned(text: &[char], slices: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let (mut found, mut moved) = (Vec::new(), 0);
    for (index, &(start, end)) in slices.iter().enumerate() {
        let start = start + moved;
        let Some(&(next, next_end)) = slices.get(index + 1) else {
            found.extend((start < end).then_some((start, end)));
            break;
        };
        let rest = text.get(next..next_end.max(next)).unwrap_or_default();
        moved = 0;
        match closing(rest) {
            Some((closed, len)) => {
                found.push((start, next + closed));
                moved = len;
            }
            None => found.extend((start < end).then_some((start, end))),
        }
    }
    found
}

/// The closing punctuation at the start of a sentence: its length without and with white space.
fn closing(rest: &[char]) -> Option<(usize, usize)> {
    let run = rest.iter().take_while(|&&c| is_closing(c)).count();
    (1..=run).find_map(|len| {
        let spaces = rest[len..].iter().take_while(|&&c| python::is_space(c)).count();
        let is_end = len == rest.len() || rest[len..].starts_with(&['-', '-']);
        (spaces > 0 || is_end).then_some((len, len + spaces))
    })
}

/// Returns the sentences of a text.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    sentence_ranges(&chars).into_iter().map(|(start, end)| chars[start..end].iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abbreviations_initials_and_quotes() {
        // nltk.tokenize.sent_tokenize, NLTK 3.10.4.
        let text = "Dr. Smith went to Washington. He said \"hi.\" Then J. Bach left.";
        assert_eq!(sentences(text), ["Dr. Smith went to Washington.", "He said \"hi.\"", "Then J. Bach left."]);
        if has_nltk_parameters() {
            assert_eq!(sentences("Then Bach left... She ran."), ["Then Bach left... She ran."]);
        }
        assert_eq!(sentences(""), [""; 0]);
        assert_eq!(sentences("One"), ["One"]);
    }
}
