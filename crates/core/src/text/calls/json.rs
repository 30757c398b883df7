//! A scanner of JSON that may be incomplete.

use std::ops::Range;

/// The length of the white space at the start of a text.
pub(super) fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Returns the end of the JSON value at the start of `text`, white space before it included; `None`
/// while it is incomplete. Brackets inside one another are counted, not matched.
pub(super) fn value_end(text: &str) -> Option<usize> {
    let start = blanks(text);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (true, _) => continue,
            (false, b'"') => in_string = true,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') if depth == 0 => return Some(at),
            (false, b'}' | b']') => depth -= 1,
            // A number or a word ends before what follows it.
            (false, b',' | b' ' | b'\n' | b'\t' | b'\r') if depth == 0 => return Some(at),
            (false, _) => continue,
        }
        if depth == 0 && !in_string && matches!(byte, b'"' | b'}' | b']') {
            return Some(at + 1);
        }
    }
    None
}

/// A field of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    /// The place of its value in the text; open at the end while it is incomplete.
    pub(super) value: Range<usize>,
    pub(super) is_complete: bool,
}

/// An object that may be incomplete.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) fields: Vec<Field>,
    /// The place behind its closing brace, or of what cannot stand in an object.
    pub(super) end: Option<usize>,
    /// True for a text that stopped being an object at `end`.
    pub(super) is_broken: bool,
}

/// Reads the object at `at`; `None` where no object stands there. More text adds to it and changes
/// nothing that was read.
pub(super) fn object(text: &str, at: usize) -> Option<Object> {
    let mut at = at + text.get(at..)?.find(|letter: char| !letter.is_whitespace())?;
    if !text[at..].starts_with('{') {
        return None;
    }
    at += 1;
    let mut object = Object::default();
    loop {
        at += blanks(&text[at..]);
        match text[at..].chars().next() {
            Some('}') => {
                object.end = Some(at + 1);
                return Some(object);
            }
            Some(',') => at += 1,
            Some('"') => {
                let Some(length) = value_end(&text[at..]) else { return Some(object) };
                let Ok(name) = serde_json::from_str(&text[at..at + length]) else { break };
                let colon = at + length + blanks(&text[at + length..]);
                match text[colon..].chars().next() {
                    Some(':') => at = colon + 1,
                    Some(_) => break,
                    None => return Some(object),
                }
                at += blanks(&text[at..]);
                let end = value_end(&text[at..]).map(|length| at + length);
                let value = at..end.unwrap_or(text.len());
                object.fields.push(Field { name, value, is_complete: end.is_some() });
                let Some(end) = end else { return Some(object) };
                at = end;
            }
            Some(_) => break,
            None => return Some(object),
        }
    }
    (object.end, object.is_broken) = (Some(at), true);
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        for (text, end) in [
            ("{\"a\": \"}\"} x", Some(10)),
            (" [1, [2]], 3", Some(9)),
            ("\"a\\\"b\" ", Some(6)),
            ("12, 3", Some(2)),
            ("true}", Some(4)),
            ("12", None),
            ("{\"a\": {", None),
            ("\"a\\\"", None),
            ("", None),
        ] {
            assert_eq!(value_end(text), end, "{text}");
        }
    }

    #[test]
    fn any_beginning_of_an_object_can_be_read() {
        let whole = " {\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\"]}} ;";
        for end in 1..=whole.len() {
            let Some(object) = object(&whole[..end], 0) else {
                assert!(end < 2);
                continue;
            };
            let texts: Vec<_> = object.fields.iter().map(|field| &whole[field.value.clone()]).collect();
            assert_eq!(object.end, (end >= 44).then_some(44), "{end}");
            assert!(texts.first().is_none_or(|text| "\"f\"".starts_with(text)));
            assert!(texts.get(1).is_none_or(|text| "{\"a\": [1, \"}\"]}".starts_with(text)));
        }
        assert!(object("[1]", 0).is_none() && object("", 0).is_none());
        for (text, place) in [("{1: 2}", 1), ("{\"a\" 1", 1), ("{\"a\": 1; 2", 9), ("{\"a\": 1, é", 9)] {
            let object = object(text, 0).unwrap();
            assert_eq!((object.is_broken, object.end), (true, Some(place)), "{text}");
        }
    }
}
