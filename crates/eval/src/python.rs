//! String operations with the meaning they have in Python, in which the official graders are
//! written.

/// Tells whether Python's `str.isspace` is true for a character: Unicode white space, and the four
/// separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}

/// Removes white space from both ends: `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Tells whether a text has a cased character and no lower-case one: `str.isupper()`.
pub(crate) fn is_upper(text: &str) -> bool {
    let mut cased = text.chars().filter(|c| c.is_uppercase() || c.is_lowercase() || is_title(*c)).peekable();
    cased.peek().is_some() && cased.all(char::is_uppercase)
}

/// Tells whether a text has a cased character and no upper-case one: `str.islower()`.
pub(crate) fn is_lower(text: &str) -> bool {
    let mut cased = text.chars().filter(|c| c.is_uppercase() || c.is_lowercase() || is_title(*c)).peekable();
    cased.peek().is_some() && cased.all(char::is_lowercase)
}

/// Tells whether a character is a digraph in title case (Unicode category Lt).
fn is_title(c: char) -> bool {
    matches!(c, '\u{1C5}' | '\u{1C8}' | '\u{1CB}' | '\u{1F2}' | '\u{1F88}'..='\u{1F8F}' | '\u{1F98}'..='\u{1F9F}'
        | '\u{1FA8}'..='\u{1FAF}' | '\u{1FBC}' | '\u{1FCC}' | '\u{1FFC}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_those_of_python() {
        assert!(is_upper("A 1!") && !is_upper("1!") && !is_upper("Ab") && !is_upper("ǅ"));
        assert!(is_lower("a ª") && !is_lower("") && !is_lower("aB"));
        assert_eq!(strip("\u{1C}\u{A0} a \n"), "a");
    }
}
