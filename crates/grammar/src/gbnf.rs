//! Grammars of llama.cpp (GBNF) in Lark's syntax.
//!
//! A rule that does not reach itself becomes a terminal, that is one regular expression: the lexer
//! then sees words and numbers whole instead of character by character. The other rules stay rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The most groups inside one another.
const MAX_DEPTH: usize = 64;

/// Translates a grammar. Errors name the line.
pub(crate) fn to_lark(text: &str) -> Result<String, String> {
    let rules = Reader::new(text).rules()?;
    if !rules.contains_key("root") {
        return Err("one without the rule `root`".into());
    }
    for (name, expression) in &rules {
        if let Some(other) = expression.references().into_iter().find(|other| !rules.contains_key(*other)) {
            return Err(format!("one whose rule `{name}` uses `{other}`, which is not defined"));
        }
    }
    let recursive = recursive(&rules);
    let name = |rule: &str| spelled(rule, recursive.contains(rule));
    let mut lark = format!("start: {}\n", name("root"));
    for (rule, expression) in &rules {
        let _ = writeln!(lark, "{}: {}", name(rule), expression.lark(&name));
    }
    Ok(lark)
}

/// A name in Lark's syntax: rules are in lower case and terminals in upper case. Letters of the other
/// case are marked, so that different names stay different.
fn spelled(rule: &str, is_rule: bool) -> String {
    let mut spelled = String::from(if is_rule { "r_" } else { "T_" });
    for letter in rule.chars() {
        match letter {
            '-' => spelled.push_str("__"),
            letter if letter.is_ascii_uppercase() => {
                let _ = write!(spelled, "_{}", if is_rule { letter.to_ascii_lowercase() } else { letter });
            }
            letter => spelled.push(if is_rule { letter } else { letter.to_ascii_uppercase() }),
        }
    }
    spelled
}

/// Returns the rules that reach themselves, or one that does.
fn recursive(rules: &BTreeMap<String, Expression>) -> BTreeSet<String> {
    // A rule is plain if all that it uses is: the plain ones grow until none is added.
    let mut plain: BTreeSet<&str> = BTreeSet::new();
    loop {
        let more = rules.iter().filter(|(name, expression)| {
            !plain.contains(name.as_str()) && expression.references().into_iter().all(|other| plain.contains(other))
        });
        let more: Vec<_> = more.map(|(name, _)| name.as_str()).collect();
        if more.is_empty() {
            return rules.keys().filter(|name| !plain.contains(name.as_str())).cloned().collect();
        }
        plain.extend(more);
    }
}

/// The right side of a rule.
enum Expression {
    /// A text, quoted for Lark.
    Text(String),
    /// A regular expression of one character.
    Class(String),
    Rule(String),
    Sequence(Vec<Expression>),
    Either(Vec<Expression>),
    /// Repetition, with the operator behind it in Lark's syntax.
    Repeated(Box<Expression>, String),
}

impl Expression {
    fn references(&self) -> Vec<&str> {
        match self {
            Self::Text(_) | Self::Class(_) => Vec::new(),
            Self::Rule(name) => vec![name],
            Self::Sequence(parts) | Self::Either(parts) => parts.iter().flat_map(Self::references).collect(),
            Self::Repeated(part, _) => part.references(),
        }
    }

    fn lark(&self, name: &dyn Fn(&str) -> String) -> String {
        let join = |parts: &[Self], by: &str| parts.iter().map(|part| part.lark(name)).collect::<Vec<_>>().join(by);
        match self {
            Self::Text(text) => text.clone(),
            Self::Class(class) => format!("/{class}/"),
            Self::Rule(rule) => name(rule),
            Self::Sequence(parts) if parts.is_empty() => "\"\"".into(),
            Self::Sequence(parts) => join(parts, " "),
            Self::Either(parts) => format!("({})", join(parts, " | ")),
            Self::Repeated(part, operator) => format!("({}){operator}", part.lark(name)),
        }
    }
}

/// A reader of a grammar's text.
struct Reader<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, whole: text }
    }

    fn fault(&self, fault: &str) -> String {
        let read = &self.whole[..self.whole.len() - self.rest.len()];
        format!("one with {fault} in line {}", read.matches('\n').count() + 1)
    }

    /// Skips blanks and comments; line breaks only inside of groups.
    fn skip(&mut self, lines: bool) {
        loop {
            let blank = |letter: char| letter == ' ' || letter == '\t' || (lines && (letter == '\n' || letter == '\r'));
            let rest = self.rest.trim_start_matches(blank);
            let rest = if rest.starts_with('#') { &rest[rest.find('\n').unwrap_or(rest.len())..] } else { rest };
            if rest.len() == self.rest.len() {
                return;
            }
            self.rest = rest;
        }
    }

    fn take(&mut self, start: &str) -> bool {
        let rest = self.rest.strip_prefix(start);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn rules(mut self) -> Result<BTreeMap<String, Expression>, String> {
        let mut rules = BTreeMap::new();
        loop {
            self.skip(true);
            if self.rest.is_empty() {
                return Ok(rules);
            }
            let name = self.name().ok_or_else(|| self.fault("no rule"))?;
            self.skip(false);
            if !self.take("::=") {
                return Err(self.fault("no `::=` behind a name"));
            }
            self.skip(true);
            let expression = self.either(0)?;
            if rules.insert(name.clone(), expression).is_some() {
                return Err(self.fault(&format!("a second rule `{name}`")));
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-' && letter != '_');
        let (name, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn either(&mut self, depth: usize) -> Result<Expression, String> {
        if depth > MAX_DEPTH {
            return Err(self.fault(&format!("more than {MAX_DEPTH} groups inside one another")));
        }
        let mut parts = vec![self.sequence(depth)?];
        loop {
            // An alternative may begin in the next line.
            let before = self.rest;
            self.skip(true);
            if !self.take("|") {
                self.rest = if depth == 0 { before } else { self.rest };
                return Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Either(parts) });
            }
            self.skip(true);
            parts.push(self.sequence(depth)?);
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Expression, String> {
        let mut parts = Vec::new();
        loop {
            self.skip(depth > 0);
            let part = match self.rest.chars().next() {
                Some('"') => Expression::Text(self.text()?),
                Some('[') => Expression::Class(self.class()?),
                Some('.') => {
                    self.rest = &self.rest[1..];
                    Expression::Class("(?s:.)".into())
                }
                Some('(') => {
                    self.rest = &self.rest[1..];
                    self.skip(true);
                    let inner = self.either(depth + 1)?;
                    self.skip(true);
                    if !self.take(")") {
                        return Err(self.fault("a group without its end"));
                    }
                    inner
                }
                Some('<') => return Err(self.fault("a token, such as <[12]>: write its text instead,")),
                Some(letter) if letter.is_ascii_alphanumeric() => {
                    Expression::Rule(self.name().ok_or_else(|| self.fault("no name"))?)
                }
                _ => return Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Sequence(parts) }),
            };
            parts.push(self.repeated(part)?);
        }
    }

    /// Reads the operators of repetition behind a part.
    fn repeated(&mut self, part: Expression) -> Result<Expression, String> {
        let operator = match self.rest.chars().next() {
            Some(letter @ ('*' | '+' | '?')) => letter.to_string(),
            Some('{') => self.rest[..self.rest.find('}').ok_or_else(|| self.fault("`{` without `}`"))? + 1].to_owned(),
            _ => return Ok(part),
        };
        self.rest = &self.rest[operator.len()..];
        let inside = operator.trim_matches(['{', '}']);
        if inside.len() < operator.len() && !inside.chars().all(|letter| letter.is_ascii_digit() || letter == ',') {
            return Err(self.fault("a repetition other than {m}, {m,} and {m,n}"));
        }
        Ok(Expression::Repeated(Box::new(part), operator))
    }

    /// Reads a quoted text, and quotes it for Lark.
    fn text(&mut self) -> Result<String, String> {
        self.rest = &self.rest[1..];
        let mut text = String::new();
        loop {
            match self.letter()? {
                (false, '"') => return Ok(serde_json::json!(text).to_string()),
                (_, letter) => text.push(letter),
            }
        }
    }

    /// Reads a class of characters, as a regular expression.
    fn class(&mut self) -> Result<String, String> {
        self.rest = &self.rest[1..];
        let mut class = String::from("[");
        if self.take("^") {
            class.push('^');
        }
        loop {
            match self.letter()? {
                (false, ']') if class.trim_start_matches(['[', '^']).is_empty() => {
                    return Err(self.fault("an empty class"));
                }
                (false, ']') => return Ok(class + "]"),
                // A range.
                (false, '-') => class.push('-'),
                (_, letter) => {
                    let _ = write!(class, "\\x{{{:X}}}", u32::from(letter));
                }
            }
        }
    }

    /// Reads a character of a text or a class, and whether it was escaped.
    fn letter(&mut self) -> Result<(bool, char), String> {
        let mut letters = self.rest.chars();
        let end = self.fault("a text or a class without its end");
        let letter = letters.next().filter(|&letter| letter != '\n').ok_or(end.clone())?;
        if letter != '\\' {
            self.rest = letters.as_str();
            return Ok((false, letter));
        }
        let escape = letters.next().ok_or(end)?;
        self.rest = letters.as_str();
        let digits = match escape {
            'n' => return Ok((true, '\n')),
            'r' => return Ok((true, '\r')),
            't' => return Ok((true, '\t')),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '\\' | '"' | '[' | ']' | '-' | '^' | '/' => return Ok((true, escape)),
            _ => return Err(self.fault(&format!("the unknown escape `\\{escape}`"))),
        };
        let code = self.rest.get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        let letter = code.and_then(char::from_u32).ok_or_else(|| self.fault("an escape that is no character"))?;
        self.rest = &self.rest[digits..];
        Ok((true, letter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_rules_become_terminals_and_recursive_ones_stay_rules() {
        let lark = to_lark(
            "root ::= ws list # a list\nlist ::= \"[\" (item (\",\" item)*)? \"]\"\n\
                            item ::= [a-z\\]]+ |\n  list\nws ::= [ \\t]{0,2}",
        )
        .unwrap();
        let lines: Vec<_> = lark.lines().collect();
        assert_eq!(
            lines,
            [
                "start: r_root",
                r"r_item: ((/[\x{61}-\x{7A}\x{5D}]/)+ | r_list)",
                r#"r_list: "[" (r_item ("," r_item)*)? "]""#,
                "r_root: T_WS r_list",
                r"T_WS: (/[\x{20}\x{9}]/){0,2}",
            ]
        );
    }

    #[test]
    fn faults_name_their_lines() {
        for (text, fault) in [
            ("a ::= \"x\"", "without the rule `root`"),
            ("root ::= b", "uses `b`, which is not defined"),
            ("root ::= \"x\"\nroot ::= \"y\"", "a second rule `root` in line 2"),
            ("root ::= \"x", "without its end in line 1"),
            ("root ::= (\"x\"", "a group without its end in line 1"),
            ("root ::= []", "an empty class in line 1"),
            ("\n\nroot = \"x\"", "no `::=` behind a name in line 3"),
            ("root ::= <[5]>", "a token"),
            ("root ::= \"\\q\"", "the unknown escape `\\q` in line 1"),
            ("root ::= \"x\"{a}", "a repetition other than"),
        ] {
            let error = to_lark(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
        assert!(to_lark(&format!("root ::= {}", "(".repeat(500))).unwrap_err().contains("more than 64 groups"));
    }
}
