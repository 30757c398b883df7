//! Tests of the strategies that combine models token by token or step by step, against their definitions:
//! distributions by enumeration over small vocabularies, compared by chi-square.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use futures::StreamExt as _;
use futures::executor::block_on;
use wsd_core::scripted::{END, Pieces, Scripted};
use wsd_core::{
    Author, BLEND_THRESHOLD, Completion, FinishReason, HAND_OVER, Head, Job, LEARNED_AGREEMENT, LEARNED_BIAS,
    LEARNED_CONFIDENCE, LEARNED_ENTROPY, LOOK_CONFIDENCE, LOOK_EVERY, LOOK_PHRASES, MAX_STEP_TOKENS, MIX_WEIGHT,
    Models, Prompt, REJECTION_LEVEL, REJECTION_RULE, REWARD_CRITERION, REWARD_SHARE, REWARD_THRESHOLD, Recipe, Row,
    Rule, SECOND_LOOK, STEP_END, STEP_SCORER, SWITCH_RULE, Sampling, Seat, THRESHOLD, Terms, Token, Tokenizer as _,
    Trace, Value, Values, WINDOW, pick, run,
};

/// Probabilities of the letters "abcd".
type Letters = [f64; 4];

const DRAFT: Letters = [0.1, 0.2, 0.65, 0.05];
const BASE: Letters = [0.4, 0.3, 0.2, 0.1];

/// A model that writes each letter with its probability, whatever is before it.
fn model(name: &str, letters: Letters) -> Scripted {
    Scripted::new(name, Arc::new(Pieces::letters("abcd")), move |_: &[Token]| -> Row {
        [0.0, 0.0].into_iter().chain(letters).map(|p| p.ln() as f32).collect()
    })
}

fn pair() -> Models {
    Models::default().with(Seat::DRAFT, Arc::new(model("draft", DRAFT))).with(Seat::BASE, Arc::new(model("base", BASE)))
}

fn values<const N: usize>(settings: [(&'static wsd_core::Setting, Value); N]) -> Values {
    let mut values = Values::default();
    for (setting, value) in settings {
        values.set(setting, value).unwrap();
    }
    values
}

fn complete(name: &str, models: &Models, values: &Values, terms: Terms) -> Completion {
    let strategy = Recipe::find(name).unwrap().build(models, values).unwrap();
    let job = Job { prompt: Prompt::Raw("ab".into()), terms };
    block_on(Trace::collect(run(strategy, job))).unwrap()
}

fn terms(max_tokens: usize, sampling: Sampling) -> Terms {
    Terms { max_tokens, sampling, ..Terms::default() }
}

fn sampling(seed: u64) -> Sampling {
    Sampling { temperature: 1.0, seed, ..Sampling::default() }
}

/// The samplings that exactness must hold after.
fn samplings() -> [Sampling; 5] {
    let plain = sampling(0);
    [
        plain.clone(),
        Sampling { temperature: 0.6, ..plain.clone() },
        Sampling { top_k: 3, ..plain.clone() },
        Sampling { top_p: 0.75, ..plain.clone() },
        Sampling { min_p: 0.3, temperature: 1.3, ..plain },
    ]
}

/// The distribution that the sampler draws letters from, estimated from its definition: every filter applied
/// to the full sort.
fn sampled(letters: Letters, by: &Sampling) -> Letters {
    let tempered = letters.map(|p| p.powf(1.0 / f64::from(by.temperature)));
    let mut order = [0, 1, 2, 3];
    order.sort_by(|&a, &b| letters[b].total_cmp(&letters[a]));
    let top_k = if by.top_k == 0 { 4 } else { by.top_k };
    let mass: f64 = order[..top_k].iter().map(|&i| tempered[i]).sum();
    let mut kept = [0.0; 4];
    let mut before = 0.0;
    for &i in &order[..top_k] {
        if before < f64::from(by.top_p) * mass && tempered[i] >= f64::from(by.min_p) * tempered[order[0]] {
            kept[i] = tempered[i];
        }
        before += tempered[i];
    }
    let total: f64 = kept.iter().sum();
    kept.map(|p| p / total)
}

/// Compares the first letters of answers with a distribution.
fn check_first(name: &str, models: &Models, values: &Values, by: &Sampling, want: Letters) {
    let mut counts = [0.0; 4];
    let total = 4_000;
    for seed in 0..total {
        let done = complete(name, models, values, terms(1, Sampling { seed, ..by.clone() }));
        counts["abcd".find(&done.text).unwrap()] += 1.0;
    }
    check(&counts, &want, &format!("{name} {by:?}"));
}

/// Pearson's test; for up to fifteen degrees of freedom the 0.9999 quantile is below 44.
fn check(counts: &[f64], want: &[f64], name: &str) {
    let (total, limit) = (counts.iter().sum::<f64>(), if want.len() <= 4 { 22.0 } else { 44.0 });
    let mut statistic = 0.0;
    for (count, want) in counts.iter().zip(want) {
        assert!(*want > 0.0 || *count == 0.0, "{name}: {counts:?} {want:?}");
        if *want > 0.0 {
            statistic += (count - want * total).powi(2) / (want * total);
        }
    }
    assert!(statistic < limit, "{name}: {statistic} for {counts:?} against {want:?}");
}

#[test]
fn rejection_draws_again_from_the_draft() {
    let greatest = |letters: Letters| letters.into_iter().fold(0.0, f64::max);
    for (rule, level) in [("relative", 0.4), ("knapsack", 0.25), ("confidence", 0.5), ("confidence", 0.3)] {
        let keeps = |p: f64| match rule {
            "relative" => p >= greatest(DRAFT) - level,
            "knapsack" => p >= level,
            _ => greatest(BASE) >= level,
        };
        let settings = values([(&REJECTION_RULE, Value::Choice(rule)), (&REJECTION_LEVEL, level.into())]);
        for by in samplings() {
            let (p, q) = (sampled(BASE, &by), sampled(DRAFT, &by));
            let kept: f64 = (0..4).filter(|&i| keeps(BASE[i])).map(|i| p[i]).sum();
            let want = [0, 1, 2, 3].map(|i| if keeps(BASE[i]) { p[i] } else { 0.0 } + (1.0 - kept) * q[i]);
            check_first("rejection", &pair(), &settings, &by, want);
        }
    }
}

#[test]
fn rejection_by_text_asks_the_draft_once_for_a_token() {
    let others = Arc::new(Pieces::letters("dcba"));
    let draft = Arc::new(Scripted::random("draft", others, 1));
    let models =
        Models::default().with(Seat::DRAFT, draft.clone()).with(Seat::BASE, Arc::new(model("base", [0.25; 4])));
    let settings = values([(&REJECTION_LEVEL, 0.0.into())]);
    let done = complete("rejection", &models, &settings, terms(12, Sampling::default()));
    assert_eq!((done.tokens.len(), draft.steps()), (12, 12));
    assert!(done.tokens.iter().all(|token| token.by == Seat::DRAFT), "every token of the base is rejected");
    let asked: usize = done.calls.iter().filter(|call| call.to == Seat::DRAFT).map(|call| call.tokens).sum();
    assert_eq!(asked, 12, "and each call is told");
}

#[test]
fn rejection_by_text_has_the_same_distribution() {
    let others = Arc::new(Pieces::letters("dcba"));
    let reversed = Scripted::new("draft", others, move |_: &[Token]| -> Row {
        [0.0, 0.0].into_iter().chain(DRAFT.into_iter().rev()).map(|p| p.ln() as f32).collect()
    });
    let models =
        Models::default().with(Seat::DRAFT, Arc::new(reversed)).with(Seat::BASE, Arc::new(model("base", BASE)));
    for (rule, level) in [("relative", 0.4), ("knapsack", 0.25)] {
        let least = if rule == "relative" { 0.65 - level } else { level };
        let settings = values([(&REJECTION_RULE, Value::Choice(rule)), (&REJECTION_LEVEL, level.into())]);
        let kept: f64 = BASE.iter().filter(|p| **p >= least).sum();
        let want = [0, 1, 2, 3].map(|i| if BASE[i] >= least { BASE[i] } else { 0.0 } + (1.0 - kept) * DRAFT[i]);
        check_first("rejection", &models, &settings, &sampling(0), want);
        let long = complete("rejection", &models, &settings, terms(40, sampling(3)));
        assert_eq!(long.tokens.len(), 40);
        let authors: Vec<_> = [Seat::DRAFT, Seat::BASE].map(|seat| long.usage.by_author.get(seat)).to_vec();
        assert!(authors.iter().all(|tokens| *tokens > 0), "{authors:?}");
        for token in long.tokens {
            let is_kept = BASE[token.id as usize - 2] >= least;
            assert!(token.by == Seat::DRAFT || is_kept);
        }
    }
}

#[test]
fn sums_and_blends_are_drawn_from_after_every_filter() {
    for by in samplings() {
        let weight = 0.7;
        let product: Letters = [0, 1, 2, 3].map(|i| BASE[i] * DRAFT[i].powf(weight));
        let total: f64 = product.iter().sum();
        let settings = values([(&MIX_WEIGHT, weight.into())]);
        check_first("mix", &pair(), &settings, &by, sampled(product.map(|p| p / total), &by));

        let share = 0.65 / (0.4 + 0.65) + 0.1 * BASE[2];
        let blend = [0, 1, 2, 3].map(|i| (1.0 - share) * BASE[i] + share * DRAFT[i]);
        let settings = values([(&BLEND_THRESHOLD, 0.5.into())]);
        check_first("blendin", &pair(), &settings, &by, sampled(blend, &by));
    }
    let settings = values([(&BLEND_THRESHOLD, 0.39.into())]);
    check_first("blendin", &pair(), &settings, &sampling(0), BASE);
}

#[test]
fn a_weight_of_zero_is_the_base_token_for_token() {
    let pieces = Arc::new(Pieces::letters("abcdefgh "));
    let models = Models::default()
        .with(Seat::DRAFT, Arc::new(Scripted::random("draft", pieces.clone(), 5)))
        .with(Seat::BASE, Arc::new(Scripted::random("base", pieces, 9)));
    for by in samplings() {
        let base = complete("base", &models, &Values::default(), terms(60, by.clone()));
        for (name, settings) in [
            ("mix", values([(&MIX_WEIGHT, 0.0.into())])),
            ("blendin", values([(&BLEND_THRESHOLD, 0.0.into())])),
            ("rejection", values([(&REJECTION_LEVEL, 1.0.into())])),
        ] {
            let done = complete(name, &models, &settings, terms(60, by.clone()));
            assert_eq!(done.text, base.text, "{name}");
            let logprobs =
                |done: &Completion| done.tokens.iter().map(|token| token.logprob.unwrap()).collect::<Vec<_>>();
            assert!(logprobs(&done).iter().zip(logprobs(&base)).all(|(a, b)| (a - b).abs() < 1e-5), "{name}");
        }
    }
}

#[test]
fn a_mixture_hands_over_where_the_window_passes() {
    let models = pair();
    let settings = values([(&HAND_OVER, true.into()), (&WINDOW, 2usize.into()), (&THRESHOLD, 0.15.into())]);
    let done = complete("mix", &models, &settings, terms(12, Sampling::default()));
    // The product prefers "c", which the base gives 0.2.
    assert_eq!(done.text, "ccaaaaaaaaaa");
    let handover = done.handover.unwrap();
    assert_eq!((handover.at, done.tokens[1].by, done.tokens[2].by), (1, Author::Fused, Seat::BASE.into()));
    assert!((handover.confidence - 0.2).abs() < 1e-6);
}

/// A model that writes steps "a" or "b", each followed by a bar.
fn stepping(name: &str, a: f64) -> Scripted {
    Scripted::new(name, Arc::new(Pieces::letters("ab|")), move |tokens: &[Token]| -> Row {
        let is_open = tokens.len() > 3 && tokens.last().is_some_and(|&token| token == 2 || token == 3);
        let letters = if is_open { [0.0, 0.0, 1.0] } else { [a, 1.0 - a, 0.0] };
        [0.0, 0.0].into_iter().chain(letters).map(|p| (p as f32).ln()).collect()
    })
}

/// The draft writes "a" with 0.7 and the base with 0.2; the judge gives "a" a rating of 0.8 and "b" one of 0.3.
fn rated() -> Models {
    let judge = Scripted::random("judge", Arc::new(Pieces::letters("ab|\n")), 1).with_head(Head::REWARD, |tokens| {
        let step = tokens.iter().rev().find(|token| **token == 2 || **token == 3);
        let rating: f64 = if step == Some(&2) { 0.8 } else { 0.3 };
        vec![(rating / (1.0 - rating)).ln() as f32]
    });
    Models::default()
        .with(Seat::DRAFT, Arc::new(stepping("draft", 0.7)))
        .with(Seat::BASE, Arc::new(stepping("base", 0.2)))
        .with(Seat::JUDGE, Arc::new(judge))
}

fn reward(more: &[(&'static wsd_core::Setting, Value)]) -> Values {
    let mut values = values([(&STEP_SCORER, Value::Choice("process")), (&STEP_END, "|".to_owned().into())]);
    for (setting, value) in more {
        values.set(setting, value.clone()).unwrap();
    }
    values
}

#[test]
fn steps_are_distributed_as_the_mixture_of_both_models() {
    let (draft, base) = ([0.7, 0.3], [0.2, 0.8]);
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (criterion, accepted) in [
        ("threshold", [1.0, 0.0]),
        ("constant", [0.25, 0.25]),
        ("clip", [0.8, 0.3]),
        ("sigmoid", [logistic(0.8), logistic(0.3)]),
        ("logistic", [logistic(20.0 * 0.1), logistic(20.0 * -0.4)]),
    ] {
        let settings = reward(&[(&REWARD_CRITERION, Value::Choice(criterion)), (&REWARD_SHARE, 0.25.into())]);
        let rejected = 1.0 - draft[0] * accepted[0] - draft[1] * accepted[1];
        let one = [0, 1].map(|i| accepted[i] * draft[i] + rejected * base[i]);
        // Pairs of steps, which are independent here.
        let want = [one[0] * one[0], one[0] * one[1], one[1] * one[0], one[1] * one[1]];
        let mut counts = [0.0; 4];
        for seed in 0..4_000 {
            let done = complete("reward", &rated(), &settings, terms(4, sampling(seed)));
            counts[["a|a|", "a|b|", "b|a|", "b|b|"].iter().position(|text| *text == done.text).unwrap()] += 1.0;
        }
        check(&counts, &want, criterion);
    }
}

#[test]
fn a_threshold_of_zero_is_the_draft_and_one_beyond_all_ratings_is_the_base() {
    let terms = terms(60, Sampling::default());
    for (threshold, by, text) in [(0.0, Seat::DRAFT, "a|"), (1.0, Seat::BASE, "b|")] {
        let done = complete("reward", &rated(), &reward(&[(&REWARD_THRESHOLD, threshold.into())]), terms.clone());
        // No rule cuts a long answer.
        assert_eq!((done.text.as_str(), done.finish_reason), (text.repeat(30).as_str(), FinishReason::Length));
        assert_eq!(done.usage.by_author.get(by), 60);
        let work = done.work();
        let discarded = if by == Seat::BASE { 60 } else { 0 };
        assert_eq!((work[&Seat::DRAFT].written, work[&Seat::DRAFT].discarded), (60, discarded));
        assert_eq!(work.get(&Seat::BASE).map_or(0, |work| work.written), 60 - if by == Seat::BASE { 0 } else { 60 });
        // Each rating reads the step and its closing token, the first one also what is before it.
        assert!(work[&Seat::JUDGE].scored > 0);
    }
}

#[test]
fn prefilled_tokens_are_those_that_are_new_to_a_model() {
    let models = rated();
    let done = complete("reward", &models, &reward(&[]), terms(400, sampling(5)));
    let (draft, base) = (done.usage.by_author.get(Seat::DRAFT), done.usage.by_author.get(Seat::BASE));
    let work = done.work();
    assert!(draft > 0 && base > 0);
    assert_eq!(work[&Seat::BASE].written, base);
    assert_eq!(work[&Seat::DRAFT].written, draft + work[&Seat::DRAFT].discarded);
    // The draft wrote "b" wherever it was rejected, so only the base's "a" and its bar are new to it; a last
    // step is read by nobody.
    let steps: Vec<_> = done.tokens.chunks(2).map(|step| (step[0].text.as_str(), step[0].by)).collect();
    let read = steps[..steps.len() - 1].iter().filter(|step| **step == ("a", Seat::BASE.into())).count();
    assert!(read > 0, "{steps:?}");
    assert_eq!(work[&Seat::DRAFT].prefilled, 2 * read);
}

#[test]
fn a_step_crosses_to_another_vocabulary_as_text() {
    let joined = Arc::new(Pieces::new(["a|", "b|", "a", "b", "|"].map(String::from)));
    let base = Scripted::new("base", joined, move |_: &[Token]| -> Row {
        [0.0, 0.0, 0.2, 0.8, 0.0, 0.0, 0.0].iter().map(|p: &f64| p.ln() as f32).collect()
    });
    let mut models = rated();
    models.remove(Seat::BASE);
    models.add(Seat::BASE, Arc::new(base));
    let done = complete("reward", &models, &reward(&[]), terms(30, sampling(4)));
    assert_eq!(done.tokens.len(), 30);
    let texts: Vec<_> = done.tokens.iter().map(|token| token.text.as_str()).collect();
    // The last step may be cut by the limit.
    assert!(texts[..29].iter().all(|text| ["a|", "b|"].contains(text)), "{texts:?}");
    assert!(done.usage.by_author.get(Seat::DRAFT) > 0 && done.usage.by_author.get(Seat::BASE) > 0);
    assert!(done.tokens[..29].iter().filter(|token| token.by == Seat::DRAFT).all(|token| token.text == "a|"));
}

#[test]
fn steps_end_at_their_limit_and_the_answer_with_the_text() {
    let settings = reward(&[(&MAX_STEP_TOKENS, 1usize.into()), (&REWARD_THRESHOLD, 0.0.into())]);
    let done = complete("reward", &rated(), &settings, terms(6, Sampling::default()));
    assert_eq!(done.text, "a|a|a|");
    assert_eq!(done.calls.iter().filter(|call| call.to == Seat::DRAFT).count(), 6);

    // A draft that ends its text at once has written no step, so the base writes it, and ends the answer.
    let ending = |name: &str| {
        Scripted::new(name, Arc::new(Pieces::letters("ab|")), |_: &[Token]| -> Row {
            let mut row = vec![f32::NEG_INFINITY; 5];
            row[END as usize] = 0.0;
            row
        })
    };
    let mut models = rated();
    models.remove(Seat::DRAFT);
    models.add(Seat::DRAFT, Arc::new(ending("draft")));
    let done = complete("reward", &models, &reward(&[]), terms(6, Sampling::default()));
    assert_eq!((done.text.as_str(), done.usage.by_author.get(Seat::BASE)), ("b|b|b|", 6));
    models.remove(Seat::BASE);
    models.add(Seat::BASE, Arc::new(ending("base")));
    let done = complete("reward", &models, &reward(&[]), terms(6, Sampling::default()));
    assert_eq!((done.text.as_str(), done.finish_reason), ("", FinishReason::Stop));
}

#[test]
fn what_cannot_work_is_refused_when_it_is_built() {
    let refusal = |name: &str, models: &Models, values: &Values| {
        Recipe::find(name).unwrap().build(models, values).err().unwrap().to_string()
    };
    assert_eq!(
        refusal("reward", &pair(), &reward(&[])),
        "`reward` needs a judge model\n  hint: name one with --model judge=MODEL"
    );
    let headless = pair().with(Seat::JUDGE, Arc::new(model("plain", BASE)));
    assert_eq!(refusal("reward", &headless, &reward(&[])), "`process` needs rewards, which `plain` does not have");
    assert_eq!(
        refusal("reward", &pair(), &values([(&STEP_END, String::new().into())])),
        "`step_end` must be a text of at least one character, got \"\""
    );
    let proxy = values([(&wsd_core::MIX_RULE, Value::Choice("proxy"))]);
    assert_eq!(refusal("mix", &pair(), &proxy), "`mix` needs a guide model\n  hint: name one with --model guide=MODEL");
    let other = Scripted::random("other", Arc::new(Pieces::letters("xyz")), 1);
    let foreign = pair().with(Seat::GUIDE, Arc::new(other));
    assert!(refusal("mix", &foreign, &proxy).contains("`other`"));
    for name in ["residual", "mix", "blendin"] {
        let other = Scripted::random("other", Arc::new(Pieces::letters("xyz")), 1);
        let mut models = pair();
        models.remove(Seat::DRAFT);
        models.add(Seat::DRAFT, Arc::new(other));
        let error = refusal(name, &models, &Values::default());
        let (fault, hint) = error.split_once('\n').unwrap();
        assert_eq!(fault, format!("`{name}` needs the base's vocabulary, which `other` does not have"));
        let named: Vec<_> = hint.split('`').skip(1).step_by(2).collect();
        assert!(named.len() > 3, "{hint}");
        // What the hint names works with these models.
        named.iter().for_each(|name| drop(Recipe::find(name).unwrap().build(&models, &Values::default()).unwrap()));
    }
}

/// A model that writes `text` after a prompt of `prompt` tokens, with a given probability, whatever has been
/// written; behind `unless` it writes `then`.
fn writer(name: &str, text: &'static str, p: f64) -> Scripted {
    let pieces = Arc::new(Pieces::letters("abcdefgh no"));
    let ids = pieces.encode(text).unwrap();
    let vocab = pieces.vocabulary().pieces.len();
    Scripted::new(name, pieces, move |tokens: &[Token]| -> Row {
        let rest = (1.0 - p) / (vocab - 3) as f64;
        let mut row = vec![rest.ln() as f32; vocab];
        row[0] = f32::NEG_INFINITY;
        row[1] = f32::NEG_INFINITY;
        row[ids[(tokens.len() - 3) % ids.len()] as usize] = p.ln() as f32;
        row
    })
}

#[test]
fn a_draft_that_ends_beyond_the_context_of_the_base_is_cut() {
    let pieces = Arc::new(Pieces::letters("abcd"));
    // It writes "c" until the list has eleven tokens, then the end of the text.
    let draft = Scripted::new("draft", pieces, |tokens: &[Token]| -> Row {
        let next = if tokens.len() < 11 { 4 } else { END as usize };
        (0..6).map(|id| if id == next { 0.0 } else { -9.0 }).collect()
    });
    let models = Models::default()
        .with(Seat::DRAFT, Arc::new(draft))
        .with(Seat::BASE, Arc::new(model("base", BASE).with_context(10)));
    let settings = values([
        (&WINDOW, 3usize.into()),
        (&THRESHOLD, 0.0.into()),
        (&SECOND_LOOK, Value::Choice("interval")),
        (&LOOK_EVERY, 2usize.into()),
        (&LOOK_PHRASES, vec!["c".to_owned()].into()),
    ]);
    let done = complete("wsd", &models, &settings, terms(40, Sampling::default()));
    assert_eq!((done.text.as_str(), done.finish_reason), ("cccaacc", FinishReason::Length));
}

#[test]
fn a_second_look_gives_the_pen_back_to_the_draft_where_it_would_turn() {
    let models = |draft| {
        Models::default()
            .with(Seat::DRAFT, Arc::new(writer("draft", draft, 0.99)))
            .with(Seat::BASE, Arc::new(writer("base", "abcdefgh", 0.9)))
    };
    let plain = values([(&WINDOW, 2usize.into())]);
    let with = |phrase: &str, when: &'static str| {
        plain.clone().or(values([
            (&SECOND_LOOK, Value::Choice(when)),
            (&LOOK_CONFIDENCE, 0.95.into()),
            (&LOOK_PHRASES, vec![phrase.to_owned()].into()),
        ]))
    };
    let terms = terms(24, Sampling::default());
    let without = complete("wsd", &models("abno ab "), &plain, terms.clone());
    assert_eq!(without.text, "abcdefgh".repeat(3));
    for when in ["doubt", "interval"] {
        // The draft never writes the phrase, so the base's text stands.
        let not_taken = complete("wsd", &models("abno ab "), &with("ghost", when), terms.clone());
        assert_eq!(not_taken.text, without.text, "{when}");
        assert!(!not_taken.looks.is_empty() && not_taken.looks.iter().all(|look| !look.taken));
        assert!(not_taken.work()[&Seat::DRAFT].discarded > 0);

        let taken = complete("wsd", &models("abno ab "), &with("NO", when), terms.clone());
        let look = taken.looks.iter().find(|look| look.taken).unwrap();
        assert!(look.text.contains("no"));
        let (before, after) = taken.text.split_at(look.at);
        assert_eq!(before, &without.text[..look.at], "the text before the look stands");
        assert!(after.starts_with(&look.text), "{when}: {} {look:?}", taken.text);
        assert_eq!(taken.tokens[look.at].by, Seat::DRAFT);
        assert_eq!(taken.handover.unwrap().at, 1, "the first switch is the one that is reported");
        assert_eq!(taken.tokens.len(), 24);
    }
    // With different vocabularies the draft's text is encoded for the base.
    let pieces =
        Arc::new(Pieces::new(["no", "ab", "a", "b", "c", "d", "e", "f", "g", "h", " ", "n", "o"].map(String::from)));
    let other = Scripted::new("draft", pieces, |tokens: &[Token]| -> Row {
        let mut row = vec![-9.0; 15];
        row[if tokens.len() > 2 { 2 } else { 3 }] = 9.0;
        row
    });
    let models = Models::default()
        .with(Seat::DRAFT, Arc::new(other))
        .with(Seat::BASE, Arc::new(writer("base", "abcdefgh", 0.9)));
    let done = complete("wsd", &models, &with("no", "doubt").with(&THRESHOLD, 0.0).unwrap(), terms);
    assert!(done.looks.iter().any(|look| look.taken) && done.text.contains("nono"), "{}", done.text);
}

#[test]
fn a_learned_switch_decides_in_place_of_the_threshold() {
    let models = Models::default()
        .with(Seat::DRAFT, Arc::new(writer("draft", "abcdabcd", 0.99)))
        .with(Seat::BASE, Arc::new(writer("base", "abcefgho", 0.6)));
    let learned = |bias: f64, agreement: f64| {
        values([
            (&SWITCH_RULE, Value::Choice("learned")),
            (&WINDOW, 3usize.into()),
            (&LEARNED_BIAS, bias.into()),
            (&LEARNED_CONFIDENCE, 0.0.into()),
            (&LEARNED_ENTROPY, 0.0.into()),
            (&LEARNED_AGREEMENT, agreement.into()),
        ])
    };
    let terms = terms(20, Sampling::default());
    // All three tokens of the first window are the base's own choices; its mean is below the threshold.
    let done = complete("wsd", &models, &learned(-0.9, 1.0), terms.clone());
    assert_eq!(done.handover.map(|handover| handover.at), Some(2));
    let probability = done.tokens[2].switch.unwrap();
    assert!((probability - 1.0 / (1.0 + (-0.1f64).exp())).abs() < 1e-9, "{probability}");
    assert!(done.tokens[1].switch.is_none() && done.tokens[3].switch.is_none() && done.tokens[2].top.is_empty());
    let never = complete("wsd", &models, &learned(-1.1, 1.0), terms.clone());
    assert!(never.handover.is_none() && never.tokens.iter().all(|token| token.by == Seat::DRAFT));
    let plain = complete("wsd", &models, &values([(&WINDOW, 3usize.into())]), terms);
    assert!(plain.handover.is_none() && plain.tokens.iter().all(|token| token.switch.is_none()));
    assert_eq!(Rule::default().window(), 6);
}

#[test]
fn a_dropped_stream_ends_every_session_of_every_seat() {
    let judge = Arc::new(
        Scripted::random("judge", Arc::new(Pieces::letters("ab|\n")), 1).with_head(Head::REWARD, |_| vec![0.0]),
    );
    let guide = Arc::new(model("guide", BASE));
    let mut models = rated();
    models.remove(Seat::JUDGE);
    models.add(Seat::JUDGE, judge.clone());
    let proxied = pair().with(Seat::GUIDE, guide.clone());
    for events_read in 0..20 {
        for (name, models, values) in [
            ("reward", &models, reward(&[])),
            ("mix", &proxied, values([(&wsd_core::MIX_RULE, Value::Choice("proxy"))])),
        ] {
            let strategy = Recipe::find(name).unwrap().build(models, &values).unwrap();
            let mut events = run(strategy, Job { prompt: Prompt::Raw("ab".into()), terms: terms(30, sampling(1)) });
            block_on(async {
                for _ in 0..events_read {
                    let _ = events.next().await;
                }
            });
            drop(events);
            assert_eq!((judge.sessions(), guide.sessions()), (0, 0), "{name} after {events_read} events");
        }
    }
}

#[test]
fn the_reference_of_these_tests_is_the_sampler() {
    let row: Row = [0.0, 0.0].into_iter().chain(BASE).map(|p: f64| p.ln() as f32).collect();
    for by in samplings() {
        let mut counts = [0.0; 4];
        for seed in 0..4_000 {
            let token = pick(&mut row.clone(), &[], &Sampling { seed, ..by.clone() }).unwrap().token;
            counts[token as usize - 2] += 1.0;
        }
        check(&counts, &sampled(BASE, &by), "pick");
    }
}
