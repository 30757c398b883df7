//! A scripted pair in the place of the built-in models: two tellers of one story, one of them unsure of its beginning.

use std::sync::Arc;

use wsd_core::scripted::{END, Pieces, Scripted};
use wsd_core::{Engine, Role, Token};
use wsd_nn::LoadOptions;

use super::ModelError;

const STORY: &str =
    "I am glad you asked. Once upon a time there was one small fox who lived near the old mill by itself.";

/// The scripted model that the options name.
pub(super) fn open(_role: Role, options: &LoadOptions) -> Result<Arc<dyn Engine>, ModelError> {
    match options.name.as_str() {
        name @ ("builtin:base" | "builtin:draft") => Ok(Arc::new(teller(name))),
        name => Err(ModelError::NotBuiltin { name: name.into(), known: "builtin:base, builtin:draft".into() }),
    }
}

/// Which words are spoken, one token each after the printable characters; every word occurs once.
fn teller(name: &str) -> Scripted {
    let characters: Vec<_> = (' '..='~').chain(['\n']).map(String::from).collect();
    let words = STORY.split(' ').enumerate().map(|(i, word)| if i == 0 { word.into() } else { format!(" {word}") });
    let (first, count) = (characters.len() as Token + 2, STORY.split(' ').count() as Token);
    let doubtful = if name == "builtin:base" { 7 } else { 0 };
    Scripted::new(name, Arc::new(Pieces::new(characters.into_iter().chain(words))), move |tokens| {
        let next = match tokens.last() {
            Some(&last) if last + 1 == first + count => END,
            Some(&last) if last >= first => last + 1,
            _ => first,
        };
        let logit = if next >= first && next < first + doubtful { 4.5 } else { 9.0 };
        (0..first + count).map(|token| if token == next { logit } else { 0.0 }).collect()
    })
    .with_context(512)
}
