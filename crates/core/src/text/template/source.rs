//! Changes to a template's source before the engine compiles it. Lines stay where they are, so that
//! errors report the right one.

use super::namespace;

/// Returns the source with line breaks normalized as in jinja2, `generation` tags replaced by
/// scopes, and assignments to attributes passed through [`namespace::FILTER`].
pub(super) fn prepared(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut edits: Vec<Edit> = source.match_indices("{%").flat_map(|(start, _)| edits(&source, start + 2)).collect();
    edits.sort_by_key(|edit| edit.start);
    let mut prepared = String::with_capacity(source.len());
    let mut done = 0;
    for Edit { start, end, text } in edits {
        if start >= done {
            prepared.push_str(&source[done..start]);
            prepared.push_str(&text);
            done = end;
        }
    }
    prepared.push_str(&source[done..]);
    prepared
}

/// A replacement of the bytes `start..end` by `text`.
struct Edit {
    start: usize,
    end: usize,
    text: String,
}

/// Returns the edits of the tag whose content begins at byte `inside`.
///
/// Text that only looks like a tag, in a comment or a string, is edited too, so that no assignment
/// can be hidden from the filter.
fn edits(source: &str, inside: usize) -> Vec<Edit> {
    let tag = source[inside..].trim_start_matches(['-', '+']).trim_start();
    let start = source.len() - tag.len();
    let word = tag.find(|letter: char| !letter.is_ascii_lowercase()).map_or(tag, |end| &tag[..end]);
    let after = &tag[word.len()..];
    let end = start + word.len();
    match word {
        "generation" | "endgeneration" if after.trim_start().trim_start_matches(['-', '+']).starts_with("%}") => {
            // The tag marks the assistant's words for training. It prints nothing but opens a
            // scope.
            vec![Edit { start, end, text: word.replace("generation", "with") }]
        }
        "set" => filter_assignment(after, end),
        _ => Vec::new(),
    }
}

/// Turns `{% set a.b = value %}` into `{% set a.b = (value)|stored %}`; [`namespace`] explains the
/// reason.
fn filter_assignment(after: &str, offset: usize) -> Vec<Edit> {
    let Some(length) = tag_length(after) else { return Vec::new() };
    let statement = after[..length].trim_end_matches(['-', '+']);
    let Some(target_end) = statement.find(['=', '|']).or(Some(statement.len())) else { return Vec::new() };
    if !statement[..target_end].contains('.') || target_end == statement.len() {
        return Vec::new();
    }
    let filter = format!("|{}", namespace::FILTER);
    let close = offset + statement.len();
    if statement[target_end..].starts_with('|') {
        return vec![Edit { start: close, end: close, text: filter }];
    }
    let open = offset + target_end + 1;
    vec![
        Edit { start: open, end: open, text: "(".to_owned() },
        Edit { start: close, end: close, text: format!("){filter}") },
    ]
}

/// Returns the number of bytes before the first `%}` outside of strings.
fn tag_length(tag: &str) -> Option<usize> {
    let mut quote = None;
    let mut letters = tag.char_indices();
    while let Some((place, letter)) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => {
                letters.next();
            }
            (Some(open), _) if open == letter => quote = None,
            (None, '\'' | '"') => quote = Some(letter),
            (None, '%') if tag[place..].starts_with("%}") => return Some(place),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::prepared;

    #[test]
    fn only_line_breaks_scopes_and_attributes_are_edited() {
        for (source, expected) in [
            ("a\r\nb\rc\n", "a\nb\nc\n"),
            ("{%- generation -%}x{%endgeneration%}", "{%- with -%}x{%endwith%}"),
            (
                "{% generations %}{% generation x %}{{ generation }}",
                "{% generations %}{% generation x %}{{ generation }}",
            ),
            ("{% set x = a.b == 1 %}{% set x %}{% endset %}", "{% set x = a.b == 1 %}{% set x %}{% endset %}"),
            ("{%- set ns.x = '%}' ~ a -%}b", "{%- set ns.x =( '%}' ~ a )|stored-%}b"),
            ("{% set ns.x, ns . y=1, 2 %}", "{% set ns.x, ns . y=(1, 2 )|stored%}"),
            ("{% set ns.x %}{% set ns.x | default(ns) +%}", "{% set ns.x %}{% set ns.x | default(ns) |stored+%}"),
            ("{% set ns.x = 'a", "{% set ns.x = 'a"),
        ] {
            assert_eq!(prepared(source), expected);
        }
    }
}
