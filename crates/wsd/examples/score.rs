//! Scores two answers to a question with the base model: the log-probability of each answer, and its
//! three least likely tokens.
//!
//! ```sh
//! cargo run --release -p wsd --example score
//! ```

use anyhow::Result;
use wsd_core::{ChatRole, Engine, Message, Prompt, Rule, Seat};

const QUESTION: &str = "Where does the duck live?";
const ANSWERS: [&str; 2] = [
    "Thank you for asking me about the duck. The home of the duck is the river.",
    "Thank you for asking me about the duck. The home of the duck is the kitchen.",
];

#[tokio::main]
async fn main() -> Result<()> {
    let models = wsd::models::builtin_pair()?;
    let base = models.require("score", Seat::BASE)?;
    println!("{QUESTION}");
    for answer in ANSWERS {
        score(base.as_ref(), answer).await?;
    }
    Ok(())
}

async fn score(base: &dyn Engine, answer: &str) -> Result<()> {
    // Prompt and answer are encoded as one text, as the model would read them.
    let codec = base.codec();
    let prompt = codec.render(&Prompt::Chat(vec![Message::new(ChatRole::User, QUESTION)]))?;
    let tokens = codec.encode_after(&prompt, answer)?;
    let start = wsd_core::common_prefix(&prompt.tokens, &tokens);

    // A session holds the tokens; scoring it gives ln p of each token after the prompt.
    let logprobs = base.open(&tokens).await?.score(start).await?;
    let sum: f64 = logprobs.iter().sum();
    let perplexity = (-sum / logprobs.len() as f64).exp();
    println!("\n{answer}\n  ln p {sum:.2} over {} tokens, perplexity {perplexity:.2}", logprobs.len());

    let mut scored: Vec<_> = tokens[start..].iter().zip(&logprobs).collect();
    scored.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    for (&token, logprob) in scored.into_iter().take(3) {
        println!("  p {:.5} {:?}", logprob.exp(), codec.tokenizer().decode(&[token])?);
    }
    match Rule::default().accept_index(&logprobs) {
        Some(index) => println!("  the base would take over after token {index}"),
        None => println!("  the base would not take over"),
    }
    Ok(())
}
