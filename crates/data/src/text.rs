//! Words, shingles and scripts of texts, for comparisons.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization as _;

/// Scripts by the names of `--script`, with the Unicode scripts that each holds.
static SCRIPTS: LazyLock<Vec<(&str, Option<Regex>)>> = LazyLock::new(|| {
    let scripts = [
        ("latin", r"\p{Latin}"),
        ("cyrillic", r"\p{Cyrillic}"),
        ("greek", r"\p{Greek}"),
        ("arabic", r"\p{Arabic}"),
        ("hebrew", r"\p{Hebrew}"),
        ("devanagari", r"\p{Devanagari}"),
        ("thai", r"\p{Thai}"),
        ("hangul", r"\p{Hangul}"),
        ("kana", r"[\p{Hiragana}\p{Katakana}]"),
        ("han", r"\p{Han}"),
    ];
    scripts.into_iter().map(|(name, pattern)| (name, Regex::new(pattern).ok())).collect()
});

/// Names of the scripts that [`script`] tells apart.
pub const SCRIPT_NAMES: [&str; 10] =
    ["latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai", "hangul", "kana", "han"];

/// The script that most letters of a text belong to; `None` for a text without a letter of a known
/// script.
///
/// ```
/// use wsd_data::text::script;
/// assert_eq!(script("What does привет mean in English?"), Some("latin"));
/// assert_eq!(script("你好吗"), Some("han"));
/// assert_eq!(script("2 + 2 = 4"), None);
/// ```
#[must_use]
pub fn script(text: &str) -> Option<&'static str> {
    let count = |pattern: &Option<Regex>| pattern.as_ref().map_or(0, |pattern| pattern.find_iter(text).count());
    let counted = SCRIPTS.iter().map(|(name, pattern)| (*name, count(pattern))).filter(|(_, count)| *count > 0);
    // The first of equals.
    counted.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(name, _)| name)
}

/// The words of a text for comparisons: runs of letters and digits of the compatibility form (NFKC)
/// in lower case. A character of a script without spaces is a word by itself.
///
/// ```
/// assert_eq!(wsd_data::text::words("Don't  PANIC, ①: 你好"), ["don", "t", "panic", "1", "你", "好"]);
/// ```
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in text.nfkc().flat_map(char::to_lowercase) {
        let is_alone = is_spaceless(c);
        if (is_alone || !c.is_alphanumeric()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.push(c);
        }
        if is_alone {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Tells whether a character is of Chinese or Japanese writing, which has no spaces between words.
fn is_spaceless(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}'
        | '\u{20000}'..='\u{323AF}')
}

/// The text that equal prompts share: their words, separated by single spaces.
#[must_use]
pub fn normalized(text: &str) -> String {
    words(text).join(" ")
}

/// Hashes of the distinct runs of `len` characters of a normalized text; a shorter text is one run.
#[must_use]
pub fn shingles(normalized: &str, len: usize) -> BTreeSet<u64> {
    let chars: Vec<char> = normalized.chars().collect();
    chars.windows(len.clamp(1, chars.len().max(1))).map(|run| hash(run.iter().map(|&c| u64::from(c)))).collect()
}

/// A hash of a text's words, the same for equal prompts.
#[must_use]
pub fn fingerprint(text: &str) -> u64 {
    hash(normalized(text).bytes().map(u64::from))
}

/// FNV-1a over numbers, mixed once more so that all bits differ.
fn hash(values: impl Iterator<Item = u64>) -> u64 {
    let folded = values.fold(0xCBF2_9CE4_8422_2325_u64, |hash, value| (hash ^ value).wrapping_mul(0x0100_0000_01B3));
    wsd_core::splitmix64(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_are_the_same_list() {
        assert!(SCRIPTS.iter().map(|(name, _)| *name).eq(SCRIPT_NAMES));
        assert!(SCRIPTS.iter().all(|(_, pattern)| pattern.is_some()));
    }

    #[test]
    fn short_texts_have_one_shingle() {
        assert_eq!((shingles("ab", 5).len(), shingles("", 5).len(), shingles("abcdef", 5).len()), (1, 0, 2));
        assert_eq!(shingles("aaaaaaaa", 5).len(), 1);
    }
}
