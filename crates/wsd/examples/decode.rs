//! Answers a question with two models and prints the text as it is written.
//!
//! ```sh
//! cargo run --release -p wsd --example decode -- "Where does the bread come from?"
//! ```
//!
//! The models are the tiny pair inside the binary, so nothing is downloaded. The draft writes the
//! beginning of the answer; as soon as the base is confident, it writes the rest.

use std::io::{Write as _, stdout};

use anyhow::Result;
use futures::TryStreamExt as _;
use wsd_core::{ChatRole, Event, Job, Message, Prompt, Recipe, Seat, Terms, Trace, Values, run};

#[tokio::main]
async fn main() -> Result<()> {
    let question = std::env::args().nth(1).unwrap_or_else(|| "Where does the bread come from?".into());

    // A recipe checks that the models can do what the strategy needs and builds it. `Values` holds the
    // settings that differ from their defaults.
    let models = wsd::models::builtin_pair()?;
    let strategy = Recipe::find("wsd")?.build(&models, &Values::default())?;
    let prompt = Prompt::Chat(vec![Message::new(ChatRole::User, question)]);
    let job = Job { prompt, terms: Terms { max_tokens: 100, ..Terms::default() } };

    // Tokens arrive as soon as they are final. Dropping the stream would stop both models.
    let mut events = run(strategy, job);
    let mut trace = Trace::new();
    while let Some(event) = events.try_next().await? {
        if let Event::Token(token) = &event {
            print!("{}", token.text);
            stdout().flush()?;
        }
        trace.push(&event);
    }

    let answer = trace.finish();
    let tokens = |seat: Seat| answer.usage.by_author.get(seat);
    println!("\n\n{} tokens by the draft, {} by the base", tokens(Seat::DRAFT), tokens(Seat::BASE));
    println!("{:.0} ms", answer.timings.total * 1000.0);
    Ok(())
}
