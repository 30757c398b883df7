//! Answers in columns, or one below the other on a narrow terminal.

use anyhow::Result;
use unicode_width::UnicodeWidthChar as _;
use wsd_core::{Completion, Seat};

use super::super::output::{FAINT, Output, Style, harmless, style};
use super::comparison::{ComparedAnswer, Comparison};

/// The least width of a readable column.
const MIN_WIDTH: usize = 24;
/// Spaces between two columns.
const GAP: usize = 3;
/// Marks the position where the base takes over.
pub(super) const TO_BASE: &str = "▸";
/// Marks the position where the draft takes over.
pub(super) const TO_DRAFT: &str = "◂";

/// The style of text that is not styled.
const PLAIN: Style = Style("");

/// A piece of a line, in one style.
type Span = (String, Style);

/// A line of spans.
pub(super) type SpanLine = Vec<Span>;

/// Prints a question and its answers.
pub(super) fn print(comparison: &Comparison, output: &mut Output) -> Result<()> {
    print_lines(&lines(comparison, output.width()), output)
}

/// Prints lines.
pub(super) fn print_lines(lines: &[SpanLine], output: &mut Output) -> Result<()> {
    lines.iter().try_for_each(|line| spans(line, output).and_then(|()| output.text("\n")))
}

/// Returns the lines of a question and its answers: in columns if the terminal is wide enough.
pub(super) fn lines(comparison: &Comparison, width: Option<usize>) -> Vec<SpanLine> {
    let mut lines = vec![vec![(comparison.question.clone(), PLAIN)], Vec::new()];
    let count = comparison.answers.len();
    let column = (width.unwrap_or(0) + GAP) / count;
    if column < MIN_WIDTH + GAP {
        for answer in &comparison.answers {
            lines.extend(cell(answer, width.unwrap_or(usize::MAX)));
            lines.push(Vec::new());
        }
        return lines;
    }
    let column = (column - GAP).min(60);
    let cells: Vec<_> = comparison.answers.iter().map(|answer| cell(answer, column)).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for row in 0..height {
        let mut line = Vec::new();
        for (index, lines) in cells.iter().enumerate() {
            let part = lines.get(row).map_or(&[][..], Vec::as_slice);
            line.extend_from_slice(part);
            if index + 1 < count {
                let used: usize = part.iter().map(|(text, _)| text.chars().map(columns_of).sum::<usize>()).sum();
                line.push((" ".repeat(column + GAP - used.min(column)), PLAIN));
            }
        }
        lines.push(line);
    }
    lines.push(Vec::new());
    lines
}

/// Prints one line.
fn spans(line: &[Span], output: &mut Output) -> Result<()> {
    for (text, style) in line {
        if *style == PLAIN { output.text(&harmless(text))? } else { output.model_text(*style, text)? }
    }
    output.plain()
}

/// Returns the lines of one answer: title, text and summary.
fn cell(answer: &ComparedAnswer, width: usize) -> Vec<Vec<Span>> {
    let mut lines = vec![vec![(answer.title.to_owned(), FAINT)]];
    lines.extend(wrapped(&marked(&answer.completion), width));
    lines.extend(wrapped(&[(answer.summary(), FAINT)], width));
    lines
}

/// Returns the text by author, with a mark where the author changes.
pub(super) fn marked(completion: &Completion) -> Vec<Span> {
    let mut spans = Vec::new();
    for part in completion.tokens.chunk_by(|one, next| one.by == next.by) {
        if !spans.is_empty() {
            let mark = if part[0].by == Seat::DRAFT { TO_DRAFT } else { TO_BASE };
            spans.push((mark.to_owned(), FAINT));
        }
        spans.push((part.iter().map(|token| token.text.as_str()).collect(), style(part[0].by)));
    }
    spans
}

/// Returns the number of terminal columns that a character takes.
fn columns_of(c: char) -> usize {
    c.width().unwrap_or(1)
}

/// Breaks spans into lines of at most `width` columns, between words where possible.
pub(super) fn wrapped(spans: &[Span], width: usize) -> Vec<Vec<Span>> {
    let all: Vec<(char, Style)> = spans.iter().flat_map(|(text, style)| text.chars().map(|c| (c, *style))).collect();
    let mut lines = Vec::new();
    for paragraph in all.split(|(c, _)| *c == '\n') {
        let mut rest = paragraph;
        loop {
            let (mut used, mut fits) = (0, rest.len());
            for (index, (c, _)) in rest.iter().enumerate() {
                used += columns_of(*c);
                if used > width {
                    fits = index.max(1);
                    break;
                }
            }
            if fits == rest.len() {
                lines.push(joined(rest));
                break;
            }
            let space = (1..=fits).rev().find(|&at| rest[at].0 == ' ');
            let end = space.unwrap_or(fits);
            lines.push(joined(&rest[..end]));
            rest = &rest[end + usize::from(space.is_some())..];
        }
    }
    lines
}

/// Joins characters of one style into spans.
fn joined(line: &[(char, Style)]) -> Vec<Span> {
    line.chunk_by(|one, next| one.1 == next.1).map(|part| (part.iter().map(|(c, _)| c).collect(), part[0].1)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::output::BASE;
    use super::super::comparison::tests::comparison;
    use super::*;

    fn shown(width: Option<usize>, color: bool) -> String {
        Output::captured(width, color, |output| print(&comparison(), output).unwrap())
    }

    #[test]
    fn wide_terminals_show_columns() {
        insta::assert_snapshot!(shown(Some(100), false));
    }

    #[test]
    fn narrow_terminals_and_pipes_stack_them() {
        insta::assert_snapshot!(shown(Some(40), false));
        assert!(shown(None, false).contains("Good question! Here is what I know about▸ the fox."));
    }

    #[test]
    fn colors_show_the_author_and_are_reset() {
        let text = shown(Some(100), true);
        assert!(text.contains("\x1b[33mGood question!") && text.contains("\x1b[36m the fox."));
        assert_eq!(text.matches("\x1b[0m").count() * 2, text.matches('\x1b').count());
        assert!(text.contains('\u{FFFD}'), "a model's control character is shown");
    }

    #[test]
    fn no_line_is_too_long_and_no_word_is_lost() {
        let text = "one two three fourfivesixseven 日本語テキスト eight";
        for width in 1..50 {
            let lines = wrapped(&[(text.to_owned(), BASE)], width);
            let texts: Vec<String> =
                lines.iter().map(|line| line.iter().map(|(text, _)| text.as_str()).collect()).collect();
            assert!(texts.iter().all(|line| line.chars().map(columns_of).sum::<usize>() <= width.max(2)), "{texts:?}");
            assert_eq!(texts.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }
}
