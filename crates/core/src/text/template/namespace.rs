//! What a template may keep in a `namespace`.
//!
//! A namespace is the one thing in a template that changes: through it a loop could nest lists without limit, or put a
//! namespace into itself, and whoever prints, compares or drops that exhausts the stack. So attributes get copies of
//! plain data, nested to a limit.

use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The filter's name.
pub(super) const GUARD: &str = "stored";
const MAX_DEPTH: usize = 64;

/// A copy of `value` that shares nothing that can change.
pub(super) fn stored(state: &State, value: Value) -> Result<Value, Error> {
    copy(state, value, 0)
}

fn copy(state: &State, value: Value, depth: usize) -> Result<Value, Error> {
    state.consume_fuel(1)?;
    if depth > MAX_DEPTH {
        return Err(refused(format!("a value kept in a namespace nests deeper than {MAX_DEPTH}")));
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
        ValueKind::Plain => Err(refused("a namespace keeps data, not functions".to_owned())),
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
        environment.add_filter(super::GUARD, super::stored);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.render_str(&format!("{{% set ns = namespace(a=1) %}}{body}"), ())
    }

    #[test]
    fn data_is_kept_as_it_was() {
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
