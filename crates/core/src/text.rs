//! Text in, tokens out: prompts, chat templates, tokenizers.

mod bytes;
mod calls;
mod chat;
mod detokenizer;
mod growth;
mod ids;
mod inputs;
mod plain;
mod seams;
mod template;
mod tokenizer;
mod turns;
mod vocabulary;

use std::sync::Arc;

pub use bytes::token_bytes;
pub use calls::{CallFormat, Part, Reply, Tools};
pub use chat::{ChatRole, Message, ToolCall};
pub use detokenizer::Detokenizer;
pub use growth::check_tokenizer;
pub use inputs::{ChatInputs, TemplateVariables};
pub use plain::PLAIN_STOPS;
pub use template::{ChatTemplate, Specials};
pub use tokenizer::{HfTokenizer, Tokenizer};
pub use vocabulary::Vocabulary;

use crate::{Error, Result, Token};

/// The text to continue, as a user gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation. If its last message is the assistant's, that message is continued.
    Chat(Vec<Message>),
    /// A conversation with what else templates read.
    ChatWith(Vec<Message>, Arc<ChatInputs>),
    /// A text, used verbatim by all models.
    Raw(String),
    /// Tokens, used verbatim by all models.
    Tokens(Vec<Token>),
}

impl Prompt {
    /// The messages of a conversation; `None` for texts and tokens.
    #[must_use]
    pub fn messages(&self) -> Option<&[Message]> {
        match self {
            Self::Chat(messages) | Self::ChatWith(messages, _) => Some(messages),
            Self::Raw(_) | Self::Tokens(_) => None,
        }
    }
}

/// The form in which a model reads conversations.
#[derive(Clone, Debug)]
pub enum Template {
    /// The paper's `[User]` / `[Assistant]` form for base models.
    Plain,
    /// A chat template.
    Jinja(Box<ChatTemplate>),
}

/// A prompt in the form and the vocabulary of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rendered {
    /// The prompt's text; empty for [`Prompt::Tokens`].
    pub text: String,
    /// The beginning-of-text token before the tokens of `text`.
    pub bos: Option<Token>,
    /// The whole prompt.
    pub tokens: Vec<Token>,
    /// True if white space before the answer belongs to the form and not to the answer.
    pub strip_start: bool,
    /// True if white space after the answer belongs to the form and not to the answer.
    pub strip_end: bool,
}

/// A model's tokenizer together with its prompt templates.
///
/// ```
/// use std::sync::Arc;
/// use wsd_core::scripted::{BEGIN, Pieces};
/// use wsd_core::{BosTokens, ChatRole, Message, Prompt, Template, TextCodec, Tokenizer as _};
///
/// let pieces = Arc::new(Pieces::letters("abcdefgh \n[]UserAitn"));
/// let bos = BosTokens { chat: Some(BEGIN), raw: Some(BEGIN) };
/// let codec = TextCodec::new("demo", pieces.clone(), Some(Template::Plain), bos);
///
/// let chat = Prompt::Chat(vec![Message::new(ChatRole::User, "bad cab")]);
/// let rendered = codec.render(&chat)?;
/// assert_eq!(rendered.text, "\n\n[User]\nbad cab\n\n[Assistant]\n");
/// assert_eq!(rendered.tokens[0], BEGIN);
/// assert_eq!(pieces.decode(&rendered.tokens)?, rendered.text);
/// # Ok::<(), wsd_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextCodec {
    name: String,
    tokenizer: Arc<dyn Tokenizer>,
    template: Option<Arc<Template>>,
    bos: BosTokens,
    eos: Option<Token>,
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

/// The length in bytes up to which a text is always encoded: runs of unknown characters and of
/// white space may become fewer tokens than the longest piece of the vocabulary suggests.
const ALWAYS_ENCODED_BYTES: usize = 1 << 16;

impl TextCodec {
    /// The codec of model `name`: its tokenizer, its chat template, and its beginning-of-text
    /// tokens.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        tokenizer: Arc<dyn Tokenizer>,
        template: Option<Template>,
        bos: BosTokens,
    ) -> Self {
        Self { name: name.into(), tokenizer, template: template.map(Arc::new), bos, eos: None, limit: None }
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<dyn Tokenizer> {
        &self.tokenizer
    }

    /// The same codec with another template for chats.
    #[must_use]
    pub fn with_template(mut self, template: Template) -> Self {
        self.template = Some(Arc::new(template));
        self
    }

    /// The same codec with variables that its chat template reads where a prompt does not set them.
    #[must_use]
    pub fn with_variables(mut self, variables: &TemplateVariables) -> Self {
        if let Some(Template::Jinja(template)) = self.template.as_deref().filter(|_| !variables.is_empty()) {
            let template = template.as_ref().clone().with_variables(variables);
            self.template = Some(Arc::new(Template::Jinja(Box::new(template))));
        }
        self
    }

    /// Tells whether the chat template reads a variable.
    #[must_use]
    pub fn reads(&self, variable: &str) -> bool {
        self.template_source().contains(variable)
    }

    /// The same codec with an end-of-text token.
    #[must_use]
    pub fn with_eos(self, eos: Option<Token>) -> Self {
        Self { eos, ..self }
    }

    /// The end-of-text token: the tokenizer's `eos_token`. A chat may end with other tokens too; see
    /// [`crate::Card::end_tokens`].
    #[must_use]
    pub fn eos(&self) -> Option<Token> {
        self.eos
    }

    /// The same codec, which refuses texts with more bytes than a context of `max_len` tokens can
    /// spell before encoding them: encoding takes about a hundred times their memory.
    #[must_use]
    pub fn with_limit(mut self, max_len: usize) -> Self {
        let longest = self.tokenizer.vocabulary().pieces.iter().flatten().map(String::len).max().unwrap_or(1);
        let bytes = max_len.saturating_mul(longest).max(ALWAYS_ENCODED_BYTES);
        self.limit = Some(Limit { tokens: max_len, bytes });
        self
    }

    /// Renders a prompt.
    ///
    /// # Errors
    /// [`Error::Chat`] for a chat without a message or a model without a template;
    /// [`Error::Template`] and [`Error::Tokenizer`] if rendering fails; [`Error::EmptyPrompt`] if
    /// the prompt has no token; [`Error::TextTooLong`] above the limit.
    pub fn render(&self, prompt: &Prompt) -> Result<Rendered> {
        let rendered = match prompt {
            Prompt::Tokens(tokens) => Rendered { tokens: tokens.clone(), ..Rendered::default() },
            Prompt::Raw(text) => self.encode_prompt(text.clone(), self.bos.raw)?,
            Prompt::Chat(messages) => self.render_messages(messages, &ChatInputs::default())?,
            Prompt::ChatWith(messages, inputs) => self.render_messages(messages, inputs)?,
        };
        if rendered.tokens.is_empty() {
            return Err(Error::EmptyPrompt { engine: self.name.clone() });
        }
        Ok(rendered)
    }

    fn render_messages(&self, messages: &[Message], inputs: &ChatInputs) -> Result<Rendered> {
        Ok(Rendered {
            // White space after the beginning of an answer separates its words.
            strip_start: !messages.last().is_some_and(Message::begins_answer),
            strip_end: true,
            ..self.encode_prompt(self.render_chat(messages, inputs)?, self.bos.chat)?
        })
    }

    /// Returns the form in which the model writes calls of tools, known from its template.
    #[must_use]
    pub fn call_format(&self) -> &'static CallFormat {
        CallFormat::of_template(self.template_source())
    }

    /// Returns a reader of the model's answers, which may begin within its reasoning where the
    /// template does so.
    #[must_use]
    pub fn reply(&self, inputs: &ChatInputs) -> Reply {
        let asked = [Message::new(ChatRole::User, "a")];
        let marks = Reply::marks(self.template_source());
        let variables = ChatInputs { tools: None, variables: inputs.variables.clone() };
        let begins = marks.is_some_and(|marks| {
            self.render_chat(&asked, &variables).is_ok_and(|text| text.trim_end().ends_with(marks.open))
        });
        Reply::new(inputs.tools.as_ref(), marks, begins)
    }

    /// The source of the chat template; empty without one.
    fn template_source(&self) -> &str {
        match self.template.as_deref() {
            Some(Template::Jinja(template)) => template.source(),
            _ => "",
        }
    }

    /// Renders a conversation with every message complete and without the beginning of an answer.
    ///
    /// # Errors
    /// Those of [`TextCodec::render`].
    pub fn render_whole(&self, messages: &[Message]) -> Result<Rendered> {
        let text = match self.template.as_deref() {
            Some(Template::Jinja(template)) => template.render_whole(messages)?,
            _ => self.render_chat(messages, &ChatInputs::default())?,
        };
        self.encode_prompt(text, self.bos.chat)
    }

    /// Renders a conversation with every message complete for a model that writes about it, as guard
    /// models do: their chat templates put the conversation into their question.
    ///
    /// # Errors
    /// Those of [`TextCodec::render`]; [`Error::Chat`] for a model without a chat template in Jinja.
    pub fn render_about(&self, messages: &[Message]) -> Result<Rendered> {
        match self.template.as_deref() {
            Some(Template::Jinja(template)) => self.encode_prompt(template.render_about(messages)?, self.bos.chat),
            _ => Err(Error::Chat(format!("`{}` has no chat template that asks about a conversation", self.name))),
        }
    }

    /// Tells whether conversations can be rendered: by a chat template or in the plain form.
    #[must_use]
    pub fn has_chat_form(&self) -> bool {
        self.template.is_some()
    }

    /// Tells whether conversations are rendered in the plain form, which does not mark the end of
    /// an answer.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.template.as_deref(), Some(Template::Plain))
    }

    /// Encodes a rendered prompt and `answer` after it as one text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::TextTooLong`].
    pub fn encode_after(&self, prompt: &Rendered, answer: &str) -> Result<Vec<Token>> {
        let mut tokens: Vec<_> = prompt.bos.into_iter().collect();
        tokens.extend(self.encode(&format!("{}{answer}", prompt.text))?);
        Ok(tokens)
    }

    /// Returns the stop strings that belong to the form of the prompt.
    #[must_use]
    pub fn default_stops(&self, prompt: &Prompt) -> &'static [&'static str] {
        if prompt.messages().is_some() && self.is_plain() { &PLAIN_STOPS } else { &[] }
    }

    /// Returns a decoder of tokens that follow `context`, one by one.
    #[must_use]
    pub fn detokenizer(&self, context: &[Token]) -> Detokenizer {
        Detokenizer::new(self.tokenizer.clone(), context)
    }

    fn render_chat(&self, messages: &[Message], inputs: &ChatInputs) -> Result<String> {
        if messages.is_empty() {
            return Err(Error::Chat("the conversation has no message".into()));
        }
        let tools = inputs.tools.as_ref();
        // A template that does not know tools would drop them without a word.
        let has_calls = tools.is_some() || messages.iter().any(Message::has_call);
        let described = has_calls && !self.reads("tools");
        let flat = described.then(|| calls::described(messages, tools, self.call_format()));
        let messages = flat.as_deref().unwrap_or(messages);
        match self.template.as_deref() {
            Some(Template::Plain) => plain::render(messages),
            Some(Template::Jinja(template)) if described => {
                template.render_with(messages, &ChatInputs { tools: None, variables: inputs.variables.clone() })
            }
            Some(Template::Jinja(template)) => template.render_with(messages, inputs),
            None => Err(Error::Chat(format!(
                "`{}` has no chat template\n  hint: give one with --draft-template or --base-template, or use --raw; \
                 if this is the base and the other model is the aligned one, exchange --base and --draft",
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
