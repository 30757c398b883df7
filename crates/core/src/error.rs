//! Errors, with messages that name the fault and a next step.

use crate::{Seat, Token};

/// The result of an operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure. Messages name the object at fault, the limit and the value, and end with a line
/// `hint: ...` if there is a next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A strategy needs an ability that an engine lacks.
    #[error("`{strategy}` needs {need}, which `{engine}` does not have{hint}")]
    Unsupported {
        /// The requested strategy or scorer.
        strategy: &'static str,
        /// The engine's name.
        engine: String,
        /// The ability that the engine lacks.
        need: String,
        /// A line with the way out, or nothing.
        hint: &'static str,
    },
    /// A session was asked for something its engine cannot give.
    #[error("engine `{engine}` cannot return {need}")]
    Lacks {
        /// The engine's name.
        engine: String,
        /// The ability it lacks, as [`crate::Caps::lacking`] names it.
        need: &'static str,
    },
    /// A tree whose nodes are out of order.
    #[error("the parent of node {node} must be a vertex from 0 to {node}, got {parent}")]
    Tree {
        /// Index of the node.
        node: u32,
        /// The parent given.
        parent: u32,
    },
    /// A chain of models that are not ordered by size.
    #[error(
        "`{strategy}` needs models in order of size, but `{smaller}` has {} weights and `{larger}`, which checks it, \
         {}\n  hint: exchange the two", .weights[0], .weights[1]
    )]
    ChainOrder {
        /// The requested strategy.
        strategy: &'static str,
        /// The engine that proposes.
        smaller: String,
        /// The engine that checks the proposals.
        larger: String,
        /// The weights of both.
        weights: [u64; 2],
    },
    /// A strategy needs a model that was not given.
    #[error("`{strategy}` needs a {seat} model\n  hint: name one with {}", .seat.option())]
    MissingModel {
        /// The requested strategy or scorer.
        strategy: &'static str,
        /// The seat without a model.
        seat: Seat,
    },
    /// No entry of a table of recipes has this name.
    #[error("there is no {kind} `{name}`\n  hint: {known}")]
    UnknownRecipe {
        /// The word for the table's entries: "strategy" or "step scorer".
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names in the table, with the one that was probably meant.
        known: String,
    },
    /// A setting outside its limits.
    #[error("`{name}` must be {limit}, got {value}")]
    Setting {
        /// The setting, as the command line and the server spell it.
        name: &'static str,
        /// The allowed values, in words that follow "must be".
        limit: String,
        /// The value given.
        value: String,
    },
    /// A prompt without a token.
    #[error(
        "the prompt is empty\n  hint: `{engine}` has no beginning-of-text token, so there is nothing to continue from"
    )]
    EmptyPrompt {
        /// The engine that has nothing to start from.
        engine: String,
    },
    /// A prompt that fills the context.
    #[error(
        "the prompt has {tokens} tokens, but the context of `{engine}` holds {limit} \
         and at least one must be left for the answer"
    )]
    PromptTooLong {
        /// The engine whose context is too short.
        engine: String,
        /// Tokens in the prompt.
        tokens: usize,
        /// Tokens the context holds.
        limit: usize,
    },
    /// A text with more bytes than its context can hold, refused before it is encoded.
    #[error(
        "the prompt has {bytes} bytes, but at most {limit} are worth encoding for the context of `{engine}`, \
         which holds {tokens} tokens"
    )]
    TextTooLong {
        /// The engine whose context is too short.
        engine: String,
        /// Bytes in the text.
        bytes: usize,
        /// Tokens the context holds.
        tokens: usize,
        /// The most bytes that are encoded.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    #[error("token id {token} is outside the vocabulary of `{engine}`, which has {limit} entries")]
    TokenRange {
        /// The engine.
        engine: String,
        /// The id given.
        token: Token,
        /// Entries in the vocabulary.
        limit: usize,
    },
    /// The model computed logits that are not finite.
    #[error(
        "engine `{engine}`: the logits at position {position} hold NaN or infinity\n  \
         hint: the weights may be damaged, or overflow in this dtype; try --dtype f32"
    )]
    NotFinite {
        /// The engine.
        engine: String,
        /// Position in the token list, 0-based.
        position: usize,
    },
    /// A prompt that cannot be rendered.
    #[error("{0}")]
    Chat(String),
    /// A template that does not parse, raises an error, or exceeds its budget.
    #[error("chat template `{name}`: {message}")]
    Template {
        /// The file or model the template came from.
        name: String,
        /// The fault, with the line number if it is known.
        message: String,
    },
    /// A tokenizer that does not parse, or fails on a text.
    #[error("tokenizer `{name}`: {message}")]
    Tokenizer {
        /// The file or model the tokenizer came from.
        name: String,
        /// The fault.
        message: String,
    },
    /// An answer that left its grammar, or a grammar that exceeded a limit while it was matched.
    #[error("the answer cannot follow the grammar: {0}")]
    Guide(String),
    /// An engine that cannot constrain what it writes.
    #[error(
        "engine `{engine}` cannot follow a grammar, because its tokens are chosen on another machine\n  \
         hint: leave out the grammar or the forced tool, run the model here, name `base` or `draft` if that one \
         runs here, or ask that machine itself"
    )]
    Unguided {
        /// The engine.
        engine: String,
    },
    /// A grammar for a strategy that chooses tokens of its own.
    #[error(
        "this strategy cannot follow a grammar\n  \
         hint: wsd without second looks, nudging, speculative, routed, base and draft can"
    )]
    UnguidedStrategy,
    /// An engine failed.
    #[error("engine `{engine}`: {message}")]
    Engine {
        /// The engine's name or address.
        engine: String,
        /// The fault.
        message: String,
    },
    /// A step scorer failed.
    #[error("step scorer `{scorer}`: {message}")]
    Scorer {
        /// The scorer.
        scorer: &'static str,
        /// The fault.
        message: String,
    },
    /// An engine on another machine failed.
    #[error("engine `{engine}` at {url}, {phase}: {fault}")]
    Remote {
        /// The engine's name.
        engine: String,
        /// The server that received the last request.
        url: String,
        /// The purpose of the request.
        phase: &'static str,
        /// The HTTP status of the reply, if that was the fault.
        status: Option<u16>,
        /// The fault.
        fault: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    /// A strategy over models of one vocabulary has one with another than the model in `seat`.
    pub(crate) fn other_vocabulary(strategy: &'static str, engine: String, seat: Seat) -> Self {
        let hint =
            "\n  hint: `wsd`, `nudging`, `speculative`, `rejection` and `reward` take models of any vocabularies";
        Self::Unsupported { strategy, engine, need: format!("the {seat}'s vocabulary"), hint }
    }
}
