//! Methods of Python's strings and lists that the engine lacks or implements differently.

use minijinja::value::{Kwargs, StringInput, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// The methods whose parameters Python also accepts by name, with these names.
const KEYWORDS: &[(&str, &[&str])] =
    &[("split", &["sep", "maxsplit"]), ("rsplit", &["sep", "maxsplit"]), ("splitlines", &["keepends"])];

/// Calls a method that the engine does not know.
pub(super) fn call_method(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let arguments = &positional(method, arguments)?[..];
    match (value.as_str(), value.kind()) {
        (Some(text), _) => match string_method(state, text, method, arguments)? {
            Some(answer) => Ok(answer),
            None => pycompat::unknown_method_callback(state, value, method, arguments),
        },
        (None, ValueKind::Seq) if method == "index" => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
            state.consume_fuel(items.len() as u64)?;
            items.iter().position(|item| item == wanted).map(Value::from).ok_or_else(|| refused("value is not in list"))
        }
        (None, ValueKind::Seq | ValueKind::Map) if method == "copy" => {
            let () = from_args(arguments)?;
            Ok(value.clone())
        }
        _ => pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

/// Applies the filter `trim`: Python's `str.strip` of the value as text.
pub(super) fn trim(value: &Value, letters: Option<&str>) -> String {
    let text = value.to_string();
    strip(&text, letters, Ends::Both).to_owned()
}

/// Applies the test `sequence`, true for every value that Python can index, including text and
/// undefined values.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
}

/// Applies the test `iterable`; `none` is not.
pub(super) fn is_iterable(value: &Value) -> bool {
    is_sequence(value) || value.kind() == ValueKind::Iterable
}

/// Implements Python's `str.rstrip()`.
pub(super) fn strip_end(text: &str) -> &str {
    strip(text, None, Ends::Right)
}

/// Implements Python's `str.strip()`.
pub(super) fn strip_both(text: &str) -> &str {
    strip(text, None, Ends::Both)
}

fn string_method(state: &State, text: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (letters,): (Option<&str>,) = from_args(arguments)?;
            let ends = match method {
                "strip" => Ends::Both,
                "lstrip" => Ends::Left,
                _ => Ends::Right,
            };
            Value::from(strip(text, letters, ends))
        }
        "split" | "rsplit" => split(text, method == "rsplit", arguments)?,
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(arguments)?;
            lines(text, keep_ends.unwrap_or(false)).into_iter().collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let separator = non_empty(separator)?;
            let parts = if method == "partition" { text.split_once(separator) } else { text.rsplit_once(separator) };
            Value::from(Tuple::from(match (parts, method) {
                (Some((before, after)), _) => [before, separator, after].map(Value::from),
                (None, "partition") => [text, "", ""].map(Value::from),
                (None, _) => ["", "", text].map(Value::from),
            }))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "ljust" | "rjust" | "zfill" => pad(state, text, method, arguments)?,
        "format" => {
            pay_for_format(state, text, arguments)?;
            return Ok(None);
        }
        "index" => {
            let (wanted,): (&str,) = from_args(arguments)?;
            let place = text.find(wanted).ok_or_else(|| refused("substring not found"))?;
            Value::from(text[..place].chars().count())
        }
        "isspace" => {
            let () = from_args(arguments)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        _ => return Ok(None),
    }))
}

#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Left,
    Right,
    Both,
}

fn strip<'a>(text: &'a str, letters: Option<&str>, ends: Ends) -> &'a str {
    let drops = |letter: char| letters.map_or_else(|| is_space(letter), |letters| letters.contains(letter));
    let text = if ends == Ends::Right { text } else { text.trim_start_matches(drops) };
    if ends == Ends::Left { text } else { text.trim_end_matches(drops) }
}

/// Tells whether a character is white space in Python, which includes the separators U+001C to
/// U+001F; Unicode's property does not.
fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

fn split(text: &str, from_the_right: bool, arguments: &[Value]) -> Result<Value, Error> {
    let (separator, limit): (Option<&str>, Option<i64>) = from_args(arguments)?;
    let pieces = usize::try_from(limit.unwrap_or(-1)).map_or(usize::MAX, |limit| limit.saturating_add(1));
    if let Some(separator) = separator {
        let separator = non_empty(separator)?;
        return Ok(if from_the_right {
            let mut parts: Vec<&str> = text.rsplitn(pieces, separator).collect();
            parts.reverse();
            parts.into_iter().collect()
        } else {
            text.splitn(pieces, separator).collect()
        });
    }
    let mut parts = Vec::new();
    let near = if from_the_right { Ends::Right } else { Ends::Left };
    let mut rest = strip(text, None, near);
    while !rest.is_empty() {
        let cut = if from_the_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(cut) = cut.filter(|_| parts.len() + 1 < pieces) else {
            // When the limit is reached, the last piece keeps the white space at its far end.
            parts.push(rest);
            break;
        };
        let (before, after) = rest.split_at(cut);
        let (part, remaining) = if from_the_right {
            let after = after.strip_prefix(is_space).unwrap_or(after);
            (after, before)
        } else {
            (before, after)
        };
        parts.push(part);
        rest = strip(remaining, None, near);
    }
    if from_the_right {
        parts.reverse();
    }
    Ok(parts.into_iter().collect())
}

fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    const BREAKS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(BREAKS).unwrap_or(rest.len());
        let after = &rest[end..];
        let width = if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        lines.push(&rest[..if keep_ends { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    lines
}

fn pad(state: &State, text: &str, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<char>) = from_args(arguments)?;
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    state.consume_fuel(missing as u64)?;
    let (sign, digits) = text.split_at(usize::from(method == "zfill" && text.starts_with(['+', '-'])));
    let padding = fill.unwrap_or(if method == "zfill" { '0' } else { ' ' }).to_string().repeat(missing);
    Ok(Value::from(if method == "ljust" { format!("{text}{padding}") } else { format!("{sign}{padding}{digits}") }))
}

/// Pays for the text that `str.format` builds before it is built: the engine charges for it only
/// afterwards. A field is as long as its width and its precision, or as its argument; a fill
/// character takes up to 4 bytes.
fn pay_for_format(state: &State, pattern: &str, arguments: &[Value]) -> Result<(), Error> {
    let mut longest = 0;
    let named = |argument: &Value| -> Result<Vec<Value>, Error> {
        let keywords = Kwargs::try_from(argument.clone())?;
        keywords.args().map(|name| keywords.peek(name)).collect()
    };
    for argument in arguments {
        let values = if argument.is_kwargs() { named(argument)? } else { vec![argument.clone()] };
        for value in &values {
            let text = StringInput::new(state, value)?;
            state.consume_fuel(text.as_str().len() as u64 / 64)?;
            longest = longest.max(text.as_str().len() as u64);
        }
    }
    let mut bytes = 0u64;
    for field in pattern.split('{').skip(1) {
        let specification = field.split('}').next().and_then(|field| field.split_once(':')).map_or("", |parts| parts.1);
        let digits = specification.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
        let widths = digits.map(|digits| digits.parse().unwrap_or(u64::MAX)).fold(0u64, u64::saturating_add);
        bytes = bytes.saturating_add(longest).saturating_add(widths.saturating_mul(4));
    }
    state.consume_fuel(bytes / 64)
}

/// Converts arguments given by name into positional ones.
fn positional(method: &str, arguments: &[Value]) -> Result<Vec<Value>, Error> {
    let known = KEYWORDS.iter().find(|(name, _)| *name == method);
    let (Some((_, names)), Some((last, rest))) = (known, arguments.split_last()) else {
        return Ok(arguments.to_vec());
    };
    if !last.is_kwargs() {
        return Ok(arguments.to_vec());
    }
    let keywords = Kwargs::try_from(last.clone())?;
    let mut placed = rest.to_vec();
    for name in names.iter().skip(rest.len()) {
        placed.push(keywords.get::<Option<Value>>(name)?.unwrap_or_else(|| Value::from(())));
    }
    keywords.assert_all_used()?;
    Ok(placed)
}

fn non_empty(separator: &str) -> Result<&str, Error> {
    if separator.is_empty() { Err(refused("empty separator")) } else { Ok(separator) }
}

fn refused(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    #[test]
    fn methods_return_what_python_returns() {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(super::call_method);
        environment.add_filter("trim", super::trim);
        environment.add_test("sequence", super::is_sequence);
        environment.add_test("iterable", super::is_iterable);
        for (expression, expected) in [
            // The expected strings are those that jinja2 3.1.6 prints for the same expressions.
            (
                "'\\x1ca\\x1c '.strip() ~ '|' ~ '\\x1ca '|trim ~ '|' ~ 'xax'.lstrip('x') ~ ' a '.rstrip(none)",
                "a|a|ax a",
            ),
            ("'  a b  c '.split(none, 1)", "['a', 'b  c ']"),
            ("'  a b  c '.rsplit(none, 1)", "['  a b', 'c']"),
            ("' a '.split(none, 0) + ' a '.rsplit(maxsplit=0)", "['a ', ' a']"),
            ("'a\\x1cb'.split() + ' '.split()", "['a', 'b']"),
            ("'a-b-c'.split('-', maxsplit=1) + 'a-b-c'.rsplit('-', 1)", "['a', 'b-c', 'a-b', 'c']"),
            ("'a,b,c'.partition(',') + 'a,b,c'.rpartition(',') ", "('a', ',', 'b,c', 'a,b', ',', 'c')"),
            ("'a'.partition(',') + 'a'.rpartition(',')", "('a', '', '', '', '', 'a')"),
            ("'a\\r\\nb\\x0bc\\n'.splitlines()", "['a', 'b', 'c']"),
            ("'a\\r\\nb'.splitlines(keepends=true)", "['a\\r\\n', 'b']"),
            ("'ab'.removeprefix('a') ~ 'ab'.removesuffix('b') ~ 'ab'.removeprefix('x')", "baab"),
            ("'a'.ljust(3) ~ '|' ~ 'a'.rjust(3, '.') ~ '-7'.zfill(4) ~ 'abc'.ljust(-1)", "a  |..a-007abc"),
            ("'éb'.index('b') + ['a', 'b'].index('b')", "2"),
            ("{'a': 1}.copy() ~ {'a': 1}.get('b', 2) ~ 'a-b'.replace('-', '+')", "{'a': 1}2a+b"),
            ("missing is sequence and 'a' is sequence and {} is sequence and 1 is not sequence", "True"),
            ("missing is iterable and 'a' is iterable and range(2) is iterable and none is not iterable", "True"),
            ("none|trim", "None"),
            ("'{:>4}|{:.2f}|{x}'.format('e', 1.5, x=[1])", "   e|1.50|[1]"),
        ] {
            assert_eq!(
                environment.render_str(&format!("{{{{ {expression} }}}}"), ()).unwrap(),
                expected,
                "{expression}"
            );
        }
        for expression in [
            "'a'.split('')",
            "'a'.partition('')",
            "'a'.index('b')",
            "[].index(1)",
            "[].append(1)",
            "'a'.split(x=1)",
            "'a'.zip()",
        ] {
            environment.render_str(&format!("{{{{ {expression} }}}}"), ()).unwrap_err();
        }
    }
}
