//! The values that a template may store in a `namespace`.
//!
//! A namespace is the only mutable value of a template. Through it a loop could nest lists without
//! limit, or store a namespace in itself; printing, comparing or dropping such a value would
//! overflow the stack. Attributes therefore get copies of plain data, nested up to a limit.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The name of the filter that assignments pass through.
pub(super) const FILTER: &str = "stored";
/// The deepest nesting accepted.
const MAX_DEPTH: usize = 64;

/// Copies `value` deeply, so that it shares no mutable part with the original.
pub(super) fn stored(state: &State, value: Value) -> Result<Value, Error> {
    copy(state, value, 0)
}

fn copy(state: &State, value: Value, depth: usize) -> Result<Value, Error> {
    state.consume_fuel(1)?;
    if depth > MAX_DEPTH {
        return Err(refused(format!("a value in a namespace nests deeper than {MAX_DEPTH}")));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked().map(|item| copy(state, item?, depth + 1));
            let items: Vec<Value> = items.collect::<Result<_, _>>()?;
            Ok(if value.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) })
        }
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()?.checked() {
                let key = key?;
                let item = copy(state, value.get_item(&key)?, depth + 1)?;
                pairs.push((copy(state, key, depth + 1)?, item));
            }
            Ok(Value::from_pairs(pairs))
        }
        ValueKind::Plain => Err(refused("a namespace holds data, not functions".to_owned())),
        _ => Ok(value),
    }
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    fn render(body: &str) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.add_filter(super::FILTER, super::stored);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.render_str(&format!("{{% set ns = namespace(a=1) %}}{body}"), ())
    }

    #[test]
    fn data_is_stored_unchanged() {
        for (value, expected) in [
            ("[1, (2, 'x'), {'k': none}]", "[1, (2, 'x'), {'k': None}]"),
            ("range(3)", "[0, 1, 2]"),
            ("missing", ""),
            ("ns", "{'a': 1}"),
            ("ns.items()", "[('a', 1)]"),
            ("[ns]|reverse", "[{'a': 1}]"),
        ] {
            let body = format!("{{% set ns.x = ({value})|stored %}}{{{{ ns.x }}}}");
            assert_eq!(render(&body).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn functions_are_refused() {
        render("{% set ns.x = range|stored %}").unwrap_err();
    }
}
