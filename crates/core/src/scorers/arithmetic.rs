//! Arithmetic, verified exactly: the share of a step's equations that hold.
//!
//! An equation is a sum, difference, product or quotient of numbers, with parentheses, an equals sign and a
//! number: `3 x (2 + 4) = 18`. In a chain `2 + 3 = 5 = 10 / 2` each side is compared with the one before.
//! Thousands may be marked by commas, and a currency sign before a number or a percent sign behind it is
//! passed over. A number with decimals on the right holds if it is the exact value rounded to them. A step
//! without an equation is rated 1: nothing in it is wrong.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Rating, Ratings, StepScorer};
use crate::{Prompt, Recipe, Result};

pub(super) const NAME: &str = "arithmetic";
pub(super) const ABOUT: &str = "an exact verifier, which needs no model: the share of a step's equations that hold";

pub(super) static SCORER: Recipe<dyn StepScorer> =
    Recipe { name: NAME, title: NAME, about: ABOUT, needs: &[], settings: &[], make: |_, _| Ok(Arc::new(Arithmetic)) };

struct Arithmetic;

#[async_trait]
impl StepScorer for Arithmetic {
    async fn open(&self, _: &Prompt) -> Result<Box<dyn Rating>> {
        Ok(Box::new(Arithmetic))
    }
}

#[async_trait]
impl Rating for Arithmetic {
    async fn rate(&mut self, steps: &[String], from: usize) -> Result<Ratings> {
        Ok(Ratings { values: steps[from..].iter().map(|step| share(step)).collect(), tokens: 0 })
    }
}

/// The share of the equations of a text that hold; 1 if there is none.
fn share(text: &str) -> f64 {
    let (mut held, mut count) = (0.0, 0.0);
    let sides: Vec<_> = text.split('=').collect();
    for pair in sides.windows(2) {
        // A side of a chain is an expression from end to end; the first one only ends with one.
        if let (Some(left), Some((right, decimals))) = (ending(pair[0]), beginning(pair[1])) {
            count += 1.0;
            held += f64::from(u8::from(left.rounds_to(right, decimals)));
        }
    }
    if count == 0.0 { 1.0 } else { held / count }
}

/// A fraction with a positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction {
    over: i128,
    under: i128,
}

impl Fraction {
    fn new(over: i128, under: i128) -> Option<Self> {
        let (mut a, mut b) = (over.unsigned_abs(), under.unsigned_abs());
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = i128::try_from(a).ok().filter(|divisor| *divisor > 0 && under != 0)?;
        Some(Self { over: over / divisor * under.signum(), under: (under / divisor).abs() })
    }

    fn apply(self, sign: char, other: Self) -> Option<Self> {
        let cross = |a: Self, b: Self| a.over.checked_mul(b.under);
        match sign {
            '+' => {
                Self::new(cross(self, other)?.checked_add(cross(other, self)?)?, self.under.checked_mul(other.under)?)
            }
            '-' => {
                Self::new(cross(self, other)?.checked_sub(cross(other, self)?)?, self.under.checked_mul(other.under)?)
            }
            '*' => Self::new(self.over.checked_mul(other.over)?, self.under.checked_mul(other.under)?),
            _ => Self::new(cross(self, other)?, self.under.checked_mul(other.over)?),
        }
    }

    /// Tells whether `other`, written with a number of decimals, is this value rounded to them, half up or
    /// down.
    fn rounds_to(self, other: Self, decimals: u32) -> bool {
        let half_unit = 10i128.checked_pow(decimals).and_then(|power| Self::new(1, power.checked_mul(2)?));
        let difference = self.apply('-', other);
        let Some((difference, half)) = difference.zip(half_unit) else { return false };
        if decimals == 0 {
            return difference.over == 0;
        }
        Self { over: difference.over.abs(), ..difference }.apply('-', half).is_some_and(|rest| rest.over <= 0)
    }
}

/// A parser of an expression at the start of a text.
struct Parser<'a> {
    rest: &'a str,
    /// Decimals of the number read last.
    decimals: u32,
    /// Nesting of parentheses.
    depth: usize,
}

/// The deepest nesting of parentheses.
const DEPTH: usize = 32;

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, decimals: 0, depth: 0 }
    }

    /// Takes one of the signs, and returns it in its plain form.
    fn sign(&mut self, plain: &str) -> Option<char> {
        let rest = self.rest.trim_start();
        let first = rest.chars().next()?;
        let sign = match first {
            '×' | 'x' | 'X' | '·' => '*',
            '÷' => '/',
            '−' | '–' => '-',
            other => other,
        };
        if !plain.contains(sign) {
            return None;
        }
        self.rest = &rest[first.len_utf8()..];
        Some(sign)
    }

    fn sum(&mut self) -> Option<Fraction> {
        let mut value = self.product()?;
        let mut before = self.rest;
        while let Some(sign) = self.sign("+-") {
            let Some(next) = self.product().and_then(|next| value.apply(sign, next)) else {
                self.rest = before;
                return Some(value);
            };
            (value, before) = (next, self.rest);
        }
        Some(value)
    }

    fn product(&mut self) -> Option<Fraction> {
        let mut value = self.factor()?;
        let mut before = self.rest;
        while let Some(sign) = self.sign("*/") {
            let Some(next) = self.factor().and_then(|next| value.apply(sign, next)) else {
                self.rest = before;
                return Some(value);
            };
            (value, before) = (next, self.rest);
        }
        Some(value)
    }

    fn factor(&mut self) -> Option<Fraction> {
        // A dash with a space behind it marks an item of a list.
        let is_attached = self.rest.trim_start().chars().nth(1).is_some_and(|next| !next.is_whitespace());
        if is_attached && self.sign("-").is_some() {
            let value = self.factor()?;
            return Some(Fraction { over: value.over.checked_neg()?, ..value });
        }
        if self.sign("(").is_some() {
            self.depth += 1;
            let value = if self.depth > DEPTH { None } else { self.sum() };
            self.depth -= 1;
            return value.filter(|_| self.sign(")").is_some());
        }
        self.number()
    }

    fn number(&mut self) -> Option<Fraction> {
        let rest = self.rest.trim_start().trim_start_matches(['$', '€', '£']);
        let bytes = rest.as_bytes();
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let (mut over, mut decimals, mut at, mut has_point) = (0i128, 0u32, 0, false);
        loop {
            match bytes.get(at) {
                Some(digit) if digit.is_ascii_digit() => {
                    over = over.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
                    decimals += u32::from(has_point);
                }
                Some(b',') if !has_point && at > 0 && (1..=3).all(|next| is_digit(at + next)) && !is_digit(at + 4) => {}
                Some(b'.') if !has_point && is_digit(at + 1) => has_point = true,
                _ => break,
            }
            at += 1;
        }
        if at == 0 {
            return None;
        }
        self.rest = rest[at..].trim_start_matches('%');
        self.decimals = decimals;
        Fraction::new(over, 10i128.checked_pow(decimals)?)
    }
}

/// The value of the longest expression at the end of a text.
fn ending(text: &str) -> Option<Fraction> {
    let text = text.trim_end();
    let is_part = |c: char| c.is_ascii_digit() || "+-*/×÷·−–xX()., $€£%".contains(c);
    let start = text.char_indices().rev().take_while(|(_, c)| is_part(*c)).last()?.0;
    // Words may end with characters that numbers hold: the first place at which an expression reaches to
    // the end is taken, not behind a digit.
    let mut places = text[start..].char_indices().map(|(at, _)| start + at);
    places.find_map(|at| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_digit() || c == '.' || c == ',') || continues(&text[..at]) {
            return None;
        }
        let mut parser = Parser::new(&text[at..]);
        parser.sum().filter(|_| parser.rest.trim().is_empty())
    })
}

/// Tells whether a text ends with a sign whose left operand it holds, so that what follows is the rest of
/// an expression.
fn continues(text: &str) -> bool {
    let line = text.rsplit('\n').next().unwrap_or(text).trim_end();
    let sign = line.strip_suffix(|c| "+-*/×÷·−–".contains(c));
    sign.is_some_and(|before| !before.trim().is_empty())
}

/// The value of the expression at the start of a text, and the decimals of its last number. A sign on
/// the next line begins an item of a list.
fn beginning(text: &str) -> Option<(Fraction, u32)> {
    let mut parser = Parser::new(text.trim_start().lines().next()?);
    let value = parser.sum()?;
    Some((value, parser.decimals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_verified_exactly() {
        for (text, want) in [
            ("no numbers here", 1.0),
            ("3 + 4 = 7", 1.0),
            ("3 + 4 = 8.", 0.0),
            ("Let us reckon number by number: 6 - 2 = 4. The answer is 4.", 1.0),
            ("She has 48/2 = 24 clips, and 48+24 = 71 in all.", 0.5),
            ("3 x (2 + 4) = 18", 1.0),
            ("2 × 3 ÷ 4 = 1.5", 1.0),
            ("10 / 3 = 3.33", 1.0),
            ("10 / 3 = 3.34", 0.0),
            ("10 / 3 = 3", 0.0),
            ("$1,200 - $200.50 = $999.50", 1.0),
            ("2 + 3 = 5 = 10 / 2", 1.0),
            ("2 + 3 = 5 = 10 / 5", 0.5),
            ("-3 + 5 = 2", 1.0),
            ("1 / 0 = 0", 1.0),
            ("x = 3", 1.0),
            ("0.1 + 0.2 = 0.3", 1.0),
            ("99999999999999999999999999999999999999999 + 1 = 3", 1.0),
            ("y + 1 = 3", 1.0),
            ("3 + 4\n= 7", 1.0),
            ("Steps:\n- 3 + 4 = 7\n- 2 * 2 = 5", 0.5),
        ] {
            assert_eq!(share(text), want, "{text}");
        }
        assert_eq!(share(&format!("{}1 = 1", "(".repeat(10_000))), 1.0, "the innermost number is an expression");
    }
}
