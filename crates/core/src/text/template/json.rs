//! The template filter `tojson` as transformers defines it: Python's `json.dumps`, without escapes
//! for HTML.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

/// The deepest nesting accepted. A template can nest values without limit in a loop, which would
/// overflow the stack.
const MAX_DEPTH: usize = 64;

/// Applies the filter. Its options are `ensure_ascii`, `indent`, `separators` and `sort_keys`.
#[allow(clippy::needless_pass_by_value, reason = "the engine's calling convention")]
pub(super) fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let mut writer = Writer::new(state, &options)?;
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

/// Turns JSON into a value of the engine. Recursion is bounded, because JSON is parsed with a limit of
/// its own.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (None, Some(number)) => Value::from(number),
            (None, None) => Value::from(number.as_f64().unwrap_or_default()),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(value).collect(),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), value(field))))
        }
    }
}

struct Writer<'a> {
    state: &'a State<'a, 'a>,
    text: String,
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl<'a> Writer<'a> {
    fn new(state: &'a State<'a, 'a>, options: &Kwargs) -> Result<Self, Error> {
        let option = |name| options.get::<Option<Value>>(name).map(Option::unwrap_or_default);
        let ensure_ascii = option("ensure_ascii")?.is_true();
        let indent = option("indent")?;
        let separators = option("separators")?;
        let sort_keys = option("sort_keys")?.is_true();
        options.assert_all_used()?;
        let indent = match indent.kind() {
            ValueKind::Undefined | ValueKind::None => None,
            ValueKind::String => Some(indent.to_string()),
            // Limited, because the output grows with it.
            _ => Some(" ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize)),
        };
        let (item_separator, key_separator) = match separators.kind() {
            ValueKind::Undefined | ValueKind::None => {
                (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
            }
            _ => (separators.get_item_by_index(0)?.to_string(), separators.get_item_by_index(1)?.to_string()),
        };
        Ok(Self { state, text: String::new(), ensure_ascii, indent, item_separator, key_separator, sort_keys })
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(refused(format!("a value nests deeper than {MAX_DEPTH}")));
        }
        // Fuel is consumed while writing, because values can double in size at each level of
        // nesting.
        self.state.consume_fuel(1 + value.as_str().map_or(0, str::len) as u64 / 16)?;
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                self.container(['[', ']'], items.len(), depth, |writer, place| writer.value(&items[place], depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
                if self.sort_keys {
                    keys.sort();
                }
                self.container(['{', '}'], keys.len(), depth, |writer, place| {
                    let key = &keys[place];
                    writer.key(key)?;
                    writer.pay(writer.key_separator.len())?;
                    writer.text.push_str(&writer.key_separator);
                    writer.value(&value.get_item(key)?, depth + 1)
                })?;
            }
            kind => return Err(refused(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.string(key.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                self.text.push('"');
                self.value(key, 0)?;
                self.text.push('"');
            }
            kind => return Err(refused(format!("a key cannot be a {kind}"))),
        }
        Ok(())
    }

    fn container(
        &mut self,
        [open, close]: [char; 2],
        length: usize,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        for place in 0..length {
            if place > 0 {
                self.pay(self.item_separator.len())?;
                self.text.push_str(&self.item_separator);
            }
            self.line(depth + 1)?;
            item(self, place)?;
        }
        if length > 0 {
            self.line(depth)?;
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.pay(indent.len() * depth)?;
            self.text.push('\n');
            self.text.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    /// Pays for bytes that are about to be written.
    fn pay(&self, bytes: usize) -> Result<(), Error> {
        self.state.consume_fuel(bytes as u64 / 64)
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for letter in string.chars() {
            match letter {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                letter if letter < ' ' || (self.ensure_ascii && letter > '~') => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.text, "\\u{unit:04x}");
                    }
                }
                letter => self.text.push(letter),
            }
        }
        self.text.push('"');
    }
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::BadSerialization, reason)
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    fn render(source: &str) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.add_filter("tojson", super::tojson);
        environment.set_fuel(Some(100_000));
        environment.render_str(source, ())
    }

    #[test]
    fn text_equals_that_of_json_dumps() {
        // The expected strings are those that transformers 5 prints for the same expressions.
        for (source, expected) in [
            ("{{ [1, {'a': none, 'b': true}]|tojson }}", r#"[1, {"a": null, "b": true}]"#),
            ("{{ [1, {'a': []}]|tojson(indent=2) }}", "[\n  1,\n  {\n    \"a\": []\n  }\n]"),
            ("{{ \"é<b>&'\\n\"|tojson }}", "\"é<b>&'\\n\""),
            ("{{ 'é😀'|tojson(ensure_ascii=true) }}", r#""\u00e9\ud83d\ude00""#),
            ("{{ {'b': 1, 'a': 2}|tojson(separators=(',', ':'), sort_keys=true) }}", r#"{"a":2,"b":1}"#),
            ("{{ {'b': {1: 2.0}, 'a': 2}|tojson }}", r#"{"b": {"1": 2.0}, "a": 2}"#),
        ] {
            assert_eq!(render(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn values_without_a_json_form_are_errors() {
        for source in ["{{ missing|tojson }}", "{{ [1]|tojson(color=1) }}", "{{ {(1, 2): 1}|tojson }}"] {
            render(source).unwrap_err();
        }
    }

    #[test]
    fn deep_and_doubling_values_are_refused() {
        let nested =
            "{% set ns = namespace(x=[]) %}{% for i in range(N) %}{% set ns.x = X %}{% endfor %}{{ ns.x|tojson }}";
        render(&nested.replace('N', "1000").replace('X', "[ns.x]")).unwrap_err();
        render(&nested.replace('N', "60").replace('X', "[ns.x, ns.x]")).unwrap_err();
        assert_eq!(render(&nested.replace('N', "3").replace('X', "[ns.x]")).unwrap(), "[[[[]]]]");
    }
}
