//! The table of instructions.

use serde_json::{Map, Value};

use super::{keywords, language, structure};

/// One type of instruction.
pub struct Instruction {
    /// Name in the benchmark.
    pub name: &'static str,
    /// Arguments that it needs.
    pub needs: &'static [&'static str],
    /// Check of an answer that is not blank.
    pub check: fn(&Map<String, Value>, &str) -> bool,
}

impl Instruction {
    /// Finds an instruction by name.
    ///
    /// ```
    /// use wsd_eval::tasks::ifeval::Instruction;
    /// let instruction = Instruction::find("punctuation:no_comma").unwrap();
    /// assert!((instruction.check)(&serde_json::Map::new(), "No comma here."));
    /// ```
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        INSTRUCTIONS.iter().find(|instruction| instruction.name == name)
    }

    const fn new(
        name: &'static str,
        needs: &'static [&'static str],
        check: fn(&Map<String, Value>, &str) -> bool,
    ) -> Self {
        Self { name, needs, check }
    }
}

/// Every type of instruction.
pub static INSTRUCTIONS: &[Instruction] = &[
    Instruction::new("keywords:existence", &["keywords"], keywords::existence),
    Instruction::new("keywords:frequency", &["keyword", "frequency", "relation"], keywords::frequency),
    Instruction::new("keywords:forbidden_words", &["forbidden_words"], keywords::forbidden),
    Instruction::new("keywords:letter_frequency", &["letter", "let_frequency", "let_relation"], keywords::letter),
    Instruction::new("language:response_language", &["language"], language::response),
    Instruction::new("length_constraints:number_sentences", &["num_sentences", "relation"], structure::sentences),
    Instruction::new("length_constraints:number_paragraphs", &["num_paragraphs"], structure::paragraphs),
    Instruction::new("length_constraints:number_words", &["num_words", "relation"], structure::words),
    Instruction::new(
        "length_constraints:nth_paragraph_first_word",
        &["num_paragraphs", "nth_paragraph", "first_word"],
        structure::first_word,
    ),
    Instruction::new("detectable_content:number_placeholders", &["num_placeholders"], structure::placeholders),
    Instruction::new("detectable_content:postscript", &["postscript_marker"], structure::postscript),
    Instruction::new("detectable_format:number_bullet_lists", &["num_bullets"], structure::bullets),
    Instruction::new("detectable_format:constrained_response", &[], keywords::constrained),
    Instruction::new("detectable_format:number_highlighted_sections", &["num_highlights"], structure::highlights),
    Instruction::new("detectable_format:multiple_sections", &["section_spliter", "num_sections"], structure::sections),
    Instruction::new("detectable_format:json_format", &[], structure::json),
    Instruction::new("detectable_format:title", &[], structure::title),
    Instruction::new("combination:two_responses", &[], structure::two_responses),
    Instruction::new("combination:repeat_prompt", &["prompt_to_repeat"], keywords::repeat),
    Instruction::new("startend:end_checker", &["end_phrase"], keywords::end),
    Instruction::new("startend:quotation", &[], keywords::quotation),
    Instruction::new(
        "change_case:capital_word_frequency",
        &["capital_frequency", "capital_relation"],
        keywords::capital_words,
    ),
    Instruction::new("change_case:english_capital", &[], language::capital),
    Instruction::new("change_case:english_lowercase", &[], language::lowercase),
    Instruction::new("punctuation:no_comma", &[], keywords::no_comma),
];
