//! Every cell of the ablation equals WSD run with that cell's rule.

use std::sync::Arc;

use futures::executor::block_on;
use proptest::prelude::*;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    ChatRole, Engine, Job, MAX_DRAFT_TOKENS, Message, Models, Prompt, Recipe, Row, Rule, Sampling, Seat, THRESHOLD,
    Terms, Token, Values, WINDOW, splitmix64,
};
use wsd_lab::data::complete;
use wsd_lab::three_pass::DraftRun;

const LETTERS: &str = "abU \n[]serAitn";

/// A model whose next row depends on the last two tokens; it may end the answer or begin another
/// message.
fn model(name: &str, pieces: Vec<String>, seed: u64, sharpness: f32) -> Arc<dyn Engine> {
    let vocab = pieces.len() + 2;
    Arc::new(Scripted::new(name, Arc::new(Pieces::new(pieces)), move |tokens: &[Token]| -> Row {
        let state = tokens.iter().rev().take(2).fold(seed, |hash, &token| splitmix64(hash ^ u64::from(token)));
        let logit = |id: usize| (splitmix64(state ^ splitmix64(id as u64)) >> 40) as f32 / (1 << 24) as f32 * sharpness;
        (0..vocab)
            .map(|id| if id == 1 { f32::NEG_INFINITY } else { logit(id) - if id == 0 { 1.0 } else { 0.0 } })
            .collect()
    }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn every_cell_equals_wsd(
        seed: u64, sharpness in 2f32..14.0, temperature in prop_oneof![Just(0.0), 0.3f32..1.5],
        max_tokens in 1usize..60, max_draft_tokens in 1usize..50, crosses: bool,
        stop in prop_oneof![Just(None), "[ab ]{1,3}".prop_map(Some)],
    ) {
        let letters: Vec<_> = LETTERS.chars().map(String::from).collect();
        let syllables = ["[User]", "ab", " a", "\n\n"].map(String::from).into_iter();
        let other = if crosses { syllables.chain(letters.iter().rev().cloned()).collect() } else { letters.clone() };
        let models = Models::default()
            .with(Seat::DRAFT, model("draft", letters, seed, sharpness))
            .with(Seat::BASE, model("base", other, seed ^ 1, sharpness));
        let (draft, base) = (models.get(Seat::DRAFT).unwrap(), models.get(Seat::BASE).unwrap());
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let terms = Terms { max_tokens, sampling, stop: stop.into_iter().collect(), top_logprobs: 0, grammar: None };
        let job = Job { prompt: Prompt::Chat(vec![Message::new(ChatRole::User, "ab")]), terms };
        let values = Values::default().with(&MAX_DRAFT_TOKENS, max_draft_tokens).unwrap();
        let draft_run = block_on(DraftRun::generate(draft.as_ref(), base.as_ref(), &job, max_draft_tokens)).unwrap();
        for window in [1usize, 2, 4, 6] {
            for threshold in [0.2, 0.5, 0.8] {
                let rule = Rule::parse(window, threshold).unwrap();
                let values = values.clone().with(&WINDOW, window).unwrap().with(&THRESHOLD, threshold).unwrap();
                let wsd = Recipe::find("wsd").unwrap().build(&models, &values).unwrap();
                let want = block_on(complete(&wsd, job.clone())).unwrap();
                let kept = draft_run.kept(rule);
                let got = block_on(draft_run.continuation(kept, &models, base.as_ref(), &job)).unwrap();
                prop_assert_eq!(&got.output, &want.text, "window {}, threshold {}", window, threshold);
                if let Some(handover) = want.handover {
                    prop_assert_eq!(kept, handover.at + 1);
                }
            }
        }
    }
}
