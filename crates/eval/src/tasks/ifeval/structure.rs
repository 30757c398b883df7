//! Instructions about length and form.

use std::sync::LazyLock;

use regex::Regex;
use serde::de::IgnoredAny;

use super::arguments::{Kwargs, count, holds, text};
use crate::python::{is_space, strip};
use crate::text::punkt;

/// White space, as Python's `\s`.
const SPACE: &str = r"[\s\x1c-\x1f]";

/// Returns a pattern over [`SPACE`], which stands in it as `\s`.
fn pattern(text: &str) -> Option<Regex> {
    Regex::new(&text.replace(r"\s", SPACE)).ok()
}

/// Counts the matches of a pattern.
fn matches(pattern: &Option<Regex>, answer: &str) -> usize {
    pattern.as_ref().map_or(0, |pattern| pattern.find_iter(answer).count())
}

pub(super) fn sentences(kwargs: &Kwargs, answer: &str) -> bool {
    holds(kwargs, "relation", punkt::sentences(answer).len(), "num_sentences")
}

pub(super) fn paragraphs(kwargs: &Kwargs, answer: &str) -> bool {
    static MARK: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\s?\*\*\*\s?"));
    let Some(mark) = MARK.as_ref() else { return false };
    let parts: Vec<&str> = mark.split(answer).collect();
    let blank = |part: &&str| strip(part).is_empty();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    let ends = [parts.first(), parts.last().filter(|_| parts.len() > 1)];
    let blank_ends = ends.into_iter().flatten().filter(|part| blank(part)).count();
    !inner.iter().any(blank) && parts.len() - blank_ends == count(kwargs, "num_paragraphs")
}

pub(super) fn words(kwargs: &Kwargs, answer: &str) -> bool {
    static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\w+"));
    holds(kwargs, "relation", matches(&WORD, answer), "num_words")
}

pub(super) fn first_word(kwargs: &Kwargs, answer: &str) -> bool {
    let parts: Vec<&str> = answer.split("\n\n").collect();
    let written = parts.iter().filter(|part| !strip(part).is_empty()).count();
    let nth = count(kwargs, "nth_paragraph");
    if nth > written || nth == 0 {
        return false;
    }
    let Some(word) = strip(parts[nth - 1]).split(is_space).next().filter(|word| !word.is_empty()) else { return false };
    let word = word.trim_start_matches('\'').trim_start_matches('"');
    let word: String = word.chars().take_while(|c| !matches!(c, '.' | ',' | '?' | '!' | '\'' | '"')).collect();
    written == count(kwargs, "num_paragraphs") && word.to_lowercase() == text(kwargs, "first_word").to_lowercase()
}

pub(super) fn placeholders(kwargs: &Kwargs, answer: &str) -> bool {
    static BRACKETS: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\[.*?\]"));
    matches(&BRACKETS, answer) >= count(kwargs, "num_placeholders")
}

pub(super) fn postscript(kwargs: &Kwargs, answer: &str) -> bool {
    let marker = strip(text(kwargs, "postscript_marker"));
    let found = match marker {
        "P.P.S" => pattern(r"p\.\s?p\.\s?s"),
        "P.S." => pattern(r"p\.\s?s\."),
        marker => pattern(&marker.to_lowercase()),
    };
    matches(&found, &answer.to_lowercase()) > 0
}

pub(super) fn bullets(kwargs: &Kwargs, answer: &str) -> bool {
    static STARS: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"(?m)^\s*\*[^*].*$"));
    static DASHES: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"(?m)^\s*-.*$"));
    matches(&STARS, answer) + matches(&DASHES, answer) == count(kwargs, "num_bullets")
}

pub(super) fn highlights(kwargs: &Kwargs, answer: &str) -> bool {
    static SINGLE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\*[^\n*]*\*"));
    static DOUBLE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"\*\*[^\n*]*\*\*"));
    let written = |pattern: &Option<Regex>| {
        let inside = |found: regex::Match<'_>| !strip(found.as_str().trim_matches('*')).is_empty();
        pattern.as_ref().map_or(0, |pattern| pattern.find_iter(answer).filter(|found| inside(*found)).count())
    };
    written(&SINGLE) + written(&DOUBLE) >= count(kwargs, "num_highlights")
}

pub(super) fn sections(kwargs: &Kwargs, answer: &str) -> bool {
    let mark = strip(text(kwargs, "section_spliter"));
    let found = pattern(&format!(r"\s?{mark}\s?\d+\s?"));
    matches(&found, answer) >= count(kwargs, "num_sections")
}

pub(super) fn json(_: &Kwargs, answer: &str) -> bool {
    let mut text = strip(answer);
    for fence in ["```json", "```Json", "```JSON", "```"] {
        text = text.strip_prefix(fence).unwrap_or(text);
    }
    text = strip(text.strip_suffix("```").unwrap_or(text));
    serde_json::from_str::<IgnoredAny>(&without_constants(text)).is_ok()
}

/// Replaces `NaN` and `Infinity` outside of strings, which Python's reader takes for numbers.
fn without_constants(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string
            && let Some(after) = ["-Infinity", "Infinity", "NaN"].iter().find_map(|name| rest.strip_prefix(name))
        {
            result.push('0');
            rest = after;
            continue;
        }
        in_string ^= c == '"' && !escaped;
        escaped = in_string && c == '\\' && !escaped;
        result.push(c);
        rest = &rest[c.len_utf8()..];
    }
    result
}

pub(super) fn title(_: &Kwargs, answer: &str) -> bool {
    static TITLE: LazyLock<Option<Regex>> = LazyLock::new(|| pattern(r"<<[^\n]+>>"));
    let inside =
        |found: regex::Match<'_>| !strip(found.as_str().trim_start_matches('<').trim_end_matches('>')).is_empty();
    TITLE.as_ref().is_some_and(|title| title.find_iter(answer).any(inside))
}

pub(super) fn two_responses(_: &Kwargs, answer: &str) -> bool {
    let parts: Vec<&str> = answer.split("******").map(strip).collect();
    let inner = parts.get(1..parts.len() - 1).unwrap_or_default();
    let written: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
    inner.iter().all(|part| !part.is_empty()) && written.len() == 2 && written[0] != written[1]
}
