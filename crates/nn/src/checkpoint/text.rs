//! The codec of a checkpoint: its tokenizer and its prompt template.

use std::sync::Arc;

use serde_json::{Map, Value};
use wsd_core::{BosTokens, ChatTemplate, HfTokenizer, Specials, Template, TextCodec};

use super::{Checkpoint, special};
use crate::error::Result;

/// The choice of the template for conversations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// The checkpoint's own chat template, if it has one.
    Own,
    /// The plain form of the paper, for base models.
    Plain,
    /// A template given by the user.
    Source {
        /// The name of its source, for messages.
        name: String,
        /// The Jinja source.
        text: String,
    },
}

impl Checkpoint {
    /// Makes the codec of the model, called `name`.
    ///
    /// # Errors
    /// [`crate::Error::Text`] for a chat template that does not parse.
    ///
    /// # Examples
    /// ```
    /// # use std::path::Path;
    /// use wsd_core::Prompt;
    /// use wsd_nn::{Checkpoint, TemplateChoice};
    ///
    /// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    /// let codec = Checkpoint::open_text(&path)?.into_codec("tiny", &TemplateChoice::Plain)?;
    /// let prompt = codec.render(&Prompt::Raw("Hello".into()))?;
    /// assert_eq!(prompt.text, "Hello");
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    pub fn into_codec(self, name: &str, template: &TemplateChoice) -> Result<TextCodec> {
        let eos = self.eos();
        let tokenizer = HfTokenizer::new(name, self.tokenizer);
        let special = self.special;
        let bos = special.bos.as_deref().and_then(|piece| tokenizer.token(piece));
        // The declaration of the files decides for chats too: a template that wants BOS writes it itself.
        let declared = match self.add_bos {
            Some(true) => bos,
            Some(false) => None,
            None => tokenizer.leading_token(),
        };
        // In the plain form, a chat begins as in the model's own template.
        let own_begins = self.chat_template.as_ref().is_some_and(|source| source.contains("bos_token"));
        let chat = if own_begins && *template == TemplateChoice::Plain { bos } else { declared };
        let specials = Specials { bos: special.bos, eos: special.eos, pad: special.pad, unk: special.unk };
        let jinja = |name: &str, source: &str| {
            ChatTemplate::parse(name, source, specials).map(|template| Template::Jinja(Box::new(template)))
        };
        let template = match template {
            TemplateChoice::Plain => Some(Template::Plain),
            TemplateChoice::Source { name, text } => Some(jinja(name, text)?),
            TemplateChoice::Own => self.chat_template.as_deref().map(|source| jinja(name, source)).transpose()?,
        };
        Ok(TextCodec::new(name, Arc::new(tokenizer), template, BosTokens { chat, raw: declared }).with_eos(eos))
    }

    /// Returns the end-of-text token: the tokenizer's `eos_token`, or else the first `eos_token_id` of
    /// the config, or else the lowest token that ends an answer.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        let named = self.special.eos.as_deref().and_then(|eos| self.tokenizer.token_to_id(eos));
        let first = |config: &Map<String, Value>| special::declared_ends(config).next();
        named
            .or_else(|| [&self.config, &self.generation_config].into_iter().find_map(first))
            .or_else(|| self.end_tokens.first().copied())
    }
}
