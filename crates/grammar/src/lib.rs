//! Grammars that constrain answers: JSON schemas, regular expressions, Lark and GBNF, over
//! [`llguidance`].
//!
//! ```
//! use std::sync::Arc;
//! use wsd_core::scripted::{BEGIN, Pieces, Scripted};
//! use wsd_core::{Job, Models, Prompt, Recipe, Seat, Terms, Trace, Values, run};
//! use wsd_grammar::{Form, grammar};
//!
//! # futures::executor::block_on(async {
//! let pieces = Arc::new(Pieces::letters("abcdefghijklmnopqrstuvwxyz"));
//! let models = Models::default().with(Seat::BASE, Arc::new(Scripted::random("base", pieces, 1)));
//! let strategy = Recipe::find("base")?.build(&models, &Values::default())?;
//! let colour = grammar("grammar", &Form::Choice(vec!["red".into(), "green".into()]))?;
//! let terms = Terms { grammar: Some(colour), ..Terms::default() };
//! let answer = Trace::collect(run(strategy, Job { prompt: Prompt::Raw("a".into()), terms })).await?;
//! let text: String = answer.tokens.iter().map(|token| token.text.as_str()).collect();
//! assert!(["red", "green"].contains(&text.as_str()));
//! # Ok::<(), wsd_core::Error>(()) }).unwrap();
//! ```

mod calls;
mod compiled;
mod form;
mod gbnf;
mod matching;
mod pieces;
mod schema;

pub use calls::Calls;
pub use compiled::grammar;
pub use form::Form;
pub use schema::{embedded, object};
