//! Prints every event of an answer: the calls of the models, each token with its author, its
//! probability and the base's confidence, and the hand-over.
//!
//! ```sh
//! cargo run --release -p wsd --example events
//! ```

use anyhow::Result;
use futures::TryStreamExt as _;
use wsd_core::{CHUNK_TOKENS, ChatRole, Event, Job, Message, Prompt, Recipe, SPECULATE, Terms, Values, run};

#[tokio::main]
async fn main() -> Result<()> {
    let models = wsd::models::builtin_pair()?;
    // Short chunks, and no proposals of the draft after the hand-over, make the events easy to follow.
    let values = Values::default().with(&CHUNK_TOKENS, 4usize)?.with(&SPECULATE, "off")?;
    let strategy = Recipe::find("wsd")?.build(&models, &values)?;
    let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, "Where does the bread come from?")]);
    let mut events = run(strategy, Job { prompt, terms: Terms { max_tokens: 32, ..Terms::default() } });

    println!("author   p      confidence  text");
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Prompt { tokens } => println!("         the prompt has {tokens} tokens"),
            Event::Call(call) => {
                let milliseconds = call.seconds * 1000.0;
                println!("         {:?}: {} tokens by the {}, {milliseconds:.1} ms", call.kind, call.tokens, call.to);
            }
            Event::Token(token) => {
                let number = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.3}"));
                let (p, confidence) = (number(token.logprob.map(f64::exp)), number(token.confidence));
                println!("{:<6}   {p:<5}  {confidence:<10}  {:?}", token.by.name(), token.text);
            }
            Event::Handover(handover) => {
                let (at, confidence) = (handover.at, handover.confidence);
                println!("         the base takes over after token {at}: {confidence:.3} >= {}", handover.threshold);
            }
            Event::DraftEnd(end) => println!("         the draft ended at token {}, before any switch", end.at),
            Event::Reused { tokens } => println!("         {tokens} tokens of the prompt came from the cache"),
            Event::StopString(text) => println!("         a stop string: {text:?}"),
            Event::Look(look) => println!("         a second look before token {}: {:?}", look.at, look.text),
            Event::Done(reason) => println!("         done: {reason:?}"),
        }
    }
    Ok(())
}
