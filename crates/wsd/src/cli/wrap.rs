//! Streamed text, broken between words at the width of a terminal.

use anyhow::Result;
use unicode_width::UnicodeWidthChar as _;

use super::output::{Output, Style, harmless};

/// A writer of streamed text. On a terminal a word that does not fit begins the next line; its last
/// word is held back until it is complete. Elsewhere text passes unchanged.
#[derive(Default)]
pub(crate) struct Wrap {
    /// Columns used in the present line.
    column: usize,
    /// The word that may still grow.
    word: Vec<(char, Style)>,
}

impl Wrap {
    /// Writes text in a style.
    pub(crate) fn push(&mut self, style: Style, text: &str, output: &mut Output) -> Result<()> {
        let Some(width) = output.width() else { return output.model_text(style, text) };
        for c in harmless(text).chars() {
            let is_break = c == '\n' || c == ' ';
            // Scripts without spaces break anywhere.
            if is_break || columns(c) > 1 || self.columns() + 1 >= width {
                self.flush(output)?;
            }
            match c {
                '\n' => self.emit(output, &[(c, style)])?,
                ' ' if self.column + 1 >= width => self.emit(output, &[('\n', style)])?,
                ' ' => self.emit(output, &[(c, style)])?,
                _ => self.word.push((c, style)),
            }
        }
        Ok(())
    }

    /// Writes the word that was held back.
    pub(crate) fn flush(&mut self, output: &mut Output) -> Result<()> {
        let word = std::mem::take(&mut self.word);
        let width = output.width().unwrap_or(usize::MAX);
        let taken: usize = word.iter().map(|(c, _)| columns(*c)).sum();
        if let Some((_, style)) = word.first().filter(|_| self.column > 0 && self.column + taken > width) {
            self.emit(output, &[('\n', *style)])?;
        }
        self.emit(output, &word)
    }

    fn columns(&self) -> usize {
        self.word.iter().map(|(c, _)| columns(*c)).sum()
    }

    fn emit(&mut self, output: &mut Output, text: &[(char, Style)]) -> Result<()> {
        for part in text.chunk_by(|one, next| one.1 == next.1) {
            let text: String = part.iter().map(|(c, _)| *c).collect();
            self.column = if text == "\n" { 0 } else { self.column + text.chars().map(columns).sum::<usize>() };
            output.model_text(part[0].1, &text)?;
        }
        Ok(())
    }
}

/// Terminal columns of a character.
fn columns(c: char) -> usize {
    c.width().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::BASE;

    fn wrapped(width: Option<usize>, pieces: &[&str]) -> String {
        Output::captured(width, false, |output| {
            let mut wrap = Wrap::default();
            pieces.iter().for_each(|piece| wrap.push(BASE, piece, output).unwrap());
            wrap.flush(output).unwrap();
        })
    }

    #[test]
    fn words_stay_whole_whatever_the_tokens_are() {
        let text = "It has many parts, incl\nuding a very-long-hyphenated-word and 日本語テキスト here.";
        let pieces: Vec<String> = text.chars().map(String::from).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        for width in 6..40 {
            let shown = wrapped(Some(width), &pieces);
            assert_eq!(shown, wrapped(Some(width), &[text]), "width {width}");
            let widest = shown.lines().map(|line| line.chars().map(columns).sum::<usize>()).max();
            assert!(widest <= Some(width), "width {width}: {shown:?}");
            assert_eq!(shown.replace(['\n', ' '], ""), text.replace(['\n', ' '], ""));
        }
        assert_eq!(wrapped(Some(12), &["some words", " incl", "uding it"]), "some words \nincluding it");
        assert_eq!(wrapped(None, &["a  b", "c "]), "a  bc ");
    }
}
