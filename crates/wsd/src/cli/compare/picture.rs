//! Answers as an SVG picture.

use std::fmt::Write as _;

use wsd::lab::plot::escape;

use super::super::output::{BASE, DRAFT};
use super::columns::{TO_BASE, marked, wrapped};
use super::comparison::{ComparedAnswer, Comparison};

/// Characters in a line.
const COLUMNS: usize = 84;
/// The width of a character of the fixed-width font, in pixels.
const CHARACTER: f64 = 8.4;
/// The height of a line, in pixels.
const LINE: f64 = 21.0;
/// The left margin, in pixels.
const LEFT: f64 = 24.0;
/// The width of the column of titles, in pixels.
const NAMES: f64 = 108.0;
const STYLE: &str = "\
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2937;white-space:pre}\
.question{font-weight:600}.faint{fill:#6b7280}.draft{fill:#b45309}.base{fill:#0f766e}.paper{fill:#fff;stroke:#d7dbe0}\
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.faint{fill:#9ca3af}.draft{fill:#f0a04b}.base{fill:#3fc1b0}\
.paper{fill:#14181d;stroke:#2d343c}}";

/// Draws all questions, one below the other.
pub(super) fn draw(all: &[Comparison]) -> String {
    let (mut body, mut y) = (String::new(), 34.0);
    let width = LEFT * 2.0 + NAMES + COLUMNS as f64 * CHARACTER;
    let _ = writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{y}\" text-anchor=\"end\" class=\"faint\">written by \
         <tspan class=\"draft\">the draft</tspan>, <tspan class=\"base\">the base</tspan>; \
         {TO_BASE} the base takes over</text>",
        width - LEFT
    );
    for comparison in all {
        let _ =
            writeln!(body, "<text x=\"{LEFT}\" y=\"{y}\" class=\"question\">{}</text>", escape(&comparison.question));
        y += LINE * 1.4;
        for answer in &comparison.answers {
            y = draw_answer(&mut body, answer, y) + LINE * 0.45;
        }
        y += LINE;
    }
    let height = y - LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\">\n\
         <style>{STYLE}</style>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{:.0}\" height=\"{:.0}\" rx=\"8\" class=\"paper\"/>\n{body}</svg>\n",
        width - 1.0,
        height - 1.0
    )
}

/// Draws one answer from height `y` on, and returns the height below it.
fn draw_answer(body: &mut String, answer: &ComparedAnswer, mut y: f64) -> f64 {
    let _ = writeln!(body, "<text x=\"{LEFT}\" y=\"{y:.1}\" class=\"faint\">{}</text>", answer.title);
    for line in wrapped(&marked(&answer.completion), COLUMNS) {
        let characters: usize = line.iter().map(|(text, _)| text.chars().count()).sum();
        let spans = line.iter().fold(String::new(), |mut spans, (text, style)| {
            let class = match *style {
                DRAFT => "draft",
                BASE => "base",
                _ => "faint",
            };
            let _ = write!(spans, "<tspan class=\"{class}\">{}</tspan>", escape(text));
            spans
        });
        // A fixed length keeps fonts of other widths within the picture.
        let length = characters as f64 * CHARACTER;
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{y:.1}\" xml:space=\"preserve\" textLength=\"{length:.1}\">{spans}</text>",
            LEFT + NAMES
        );
        y += LINE;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::super::comparison::tests::comparison;
    use super::*;

    #[test]
    fn the_picture_has_every_answer() {
        insta::assert_snapshot!(draw(&[comparison(), comparison()]));
    }
}
