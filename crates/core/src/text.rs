//! Text in, tokens out: prompts, chat templates, tokenizers.

mod chat;
mod detokenizer;
mod plain;
mod seams;
mod template;
mod tokenizer;

use std::sync::Arc;

pub use chat::{ChatRole, Message};
pub use detokenizer::Detokenizer;
pub use plain::PLAIN_STOPS;
pub use template::{ChatTemplate, Specials};
pub use tokenizer::{HfTokenizer, Tokenizer, Vocabulary};

use crate::{Error, Result, Token};

/// What a user asks to be continued.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation. A last message of the assistant's is continued.
    Chat(Vec<Message>),
    /// A text used verbatim for both models.
    Raw(String),
    /// Tokens used verbatim.
    Tokens(Vec<Token>),
}

/// How a model writes a conversation down.
#[derive(Debug)]
pub enum Template {
    /// The paper's `[User]` / `[Assistant]` form for base models.
    Plain,
    /// A chat template.
    Jinja(Box<ChatTemplate>),
}

/// A prompt as one model reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The prompt's text; empty where tokens were given.
    pub text: String,
    /// The beginning-of-text token that stands before the tokens of `text`.
    pub bos: Option<Token>,
    /// The whole prompt.
    pub tokens: Vec<Token>,
    /// Whether white space before the answer is the form's and not the answer's.
    pub strip_start: bool,
    /// Whether white space after the answer is the form's and not the answer's.
    pub strip_end: bool,
}

/// A model's tokenizer and the forms it reads prompts in.
#[derive(Clone, Debug)]
pub struct TextCodec {
    name: String,
    tokenizer: Arc<dyn Tokenizer>,
    template: Option<Arc<Template>>,
    bos: BosTokens,
    limit: Option<Limit>,
}

/// The beginning-of-text tokens put before a prompt that does not begin with one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BosTokens {
    /// The token put before a rendered chat.
    pub chat: Option<Token>,
    /// The token put before a raw text.
    pub raw: Option<Token>,
}

/// The longest text that can fit into a context.
#[derive(Clone, Copy, Debug)]
struct Limit {
    tokens: usize,
    bytes: usize,
}

/// Bytes that are always worth encoding: unknown characters and white space may become fewer tokens than the longest piece
/// of the vocabulary would make one believe.
const ALWAYS_ENCODED_BYTES: usize = 1 << 16;

impl TextCodec {
    /// The codec of model `name`: its tokenizer, its chat template, and its beginning-of-text tokens.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        tokenizer: Arc<dyn Tokenizer>,
        template: Option<Template>,
        bos: BosTokens,
    ) -> Self {
        Self { name: name.into(), tokenizer, template: template.map(Arc::new), bos, limit: None }
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    /// The same text side with another template for chats.
    #[must_use]
    pub fn with_template(mut self, template: Template) -> Self {
        self.template = Some(Arc::new(template));
        self
    }

    /// The same text side, which refuses texts that have more bytes than a context of `max_len` tokens can spell, before they
    /// are encoded: encoding takes a hundred times their memory.
    #[must_use]
    pub fn with_limit(mut self, max_len: usize) -> Self {
        let longest = self.tokenizer.vocabulary().pieces.iter().flatten().map(String::len).max().unwrap_or(1);
        let bytes = max_len.saturating_mul(longest).max(ALWAYS_ENCODED_BYTES);
        self.limit = Some(Limit { tokens: max_len, bytes });
        self
    }

    /// Render a prompt.
    ///
    /// # Errors
    /// [`Error::Chat`] for a chat without a message or a model without a template; [`Error::Template`] and
    /// [`Error::Tokenizer`] when rendering fails; [`Error::EmptyPrompt`] when not one token comes of it;
    /// [`Error::TextTooLong`] above the limit.
    pub fn render(&self, prompt: &Prompt) -> Result<Rendered> {
        let rendered = match prompt {
            Prompt::Tokens(tokens) => Rendered { tokens: tokens.clone(), ..Rendered::default() },
            Prompt::Raw(text) => self.encode_prompt(text.clone(), self.bos.raw)?,
            Prompt::Chat(messages) => Rendered {
                // White space after an answer that has begun parts its words.
                strip_start: !messages.last().is_some_and(Message::begins_answer),
                strip_end: true,
                ..self.encode_prompt(self.render_chat(messages)?, self.bos.chat)?
            },
        };
        if rendered.tokens.is_empty() {
            return Err(Error::EmptyPrompt { engine: self.name.clone() });
        }
        Ok(rendered)
    }

    /// Render a conversation as it stands: each message ended as the form ends it, and no answer begun.
    ///
    /// # Errors
    /// As [`TextCodec::render`].
    pub fn render_whole(&self, messages: &[Message]) -> Result<Rendered> {
        let text = match self.template.as_deref() {
            Some(Template::Jinja(template)) => template.render_whole(messages)?,
            _ => self.render_chat(messages)?,
        };
        self.encode_prompt(text, self.bos.chat)
    }

    /// Whether conversations are written in the plain form, which does not say where an answer ends.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.template.as_deref(), Some(Template::Plain))
    }

    /// The tokens of a rendered prompt with `answer` after it, all encoded at once.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::TextTooLong`].
    pub fn encode_after(&self, prompt: &Rendered, answer: &str) -> Result<Vec<Token>> {
        let mut tokens: Vec<_> = prompt.bos.into_iter().collect();
        tokens.extend(self.encode(&format!("{}{answer}", prompt.text))?);
        Ok(tokens)
    }

    /// Stop strings that the form of the prompt calls for.
    #[must_use]
    pub fn default_stops(&self, prompt: &Prompt) -> &'static [&'static str] {
        match (prompt, self.template.as_deref()) {
            (Prompt::Chat(_), Some(Template::Plain)) => &PLAIN_STOPS,
            _ => &[],
        }
    }

    /// Turns tokens that follow `context` into text, one by one.
    #[must_use]
    pub fn detokenizer(&self, context: &[Token]) -> Detokenizer {
        Detokenizer::new(self.tokenizer.clone(), context)
    }

    fn render_chat(&self, messages: &[Message]) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::Chat("the conversation has no message".into()));
        }
        match self.template.as_deref() {
            Some(Template::Plain) => plain::render(messages),
            Some(Template::Jinja(template)) => template.render(messages),
            None => Err(Error::Chat(format!(
                "`{}` has no chat template\n  hint: give one with --draft-template or --base-template, or use --raw",
                self.name
            ))),
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<Token>> {
        match self.limit {
            Some(Limit { tokens, bytes: limit }) if text.len() > limit => {
                Err(Error::TextTooLong { engine: self.name.clone(), bytes: text.len(), tokens, limit })
            }
            _ => self.tokenizer.encode(text),
        }
    }

    fn encode_prompt(&self, text: String, bos: Option<Token>) -> Result<Rendered> {
        let tokens = self.encode(&text)?;
        let bos = bos.filter(|bos| tokens.first() != Some(bos));
        let tokens = bos.into_iter().chain(tokens).collect();
        Ok(Rendered { text, bos, tokens, ..Rendered::default() })
    }
}
