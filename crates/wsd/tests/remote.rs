//! Remote engines against fake servers, without and with faults.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/stand_in.rs"]
mod stand_in;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use stand_in::{Fault, Kind, StandIn};
use wsd::config::{Partial, Settings};
use wsd::hub::Progress;
use wsd::models;
use wsd_core::{
    CallKind, Completion, Engine, Event, Generation, Job, MAX_DRAFT_TOKENS, Models, Prompt, Sampling, Seat, Step,
    THRESHOLD, Terms, Token, Trace, Values, run,
};
use wsd_grammar::Form;

#[derive(Default)]
struct Notes(Vec<String>);

impl Progress for Notes {
    fn start(&mut self, _file: &str, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self) {}
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Settings with the given models and remote settings, the built-in tokenizers and short limits. A
/// remote setting of null removes its default here.
#[expect(clippy::needless_pass_by_value, reason = "callers build them in place")]
fn settings(models: Value, remote: Value) -> Settings {
    let mut all = json!({
        "base_tokenizer": concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/base"),
        "draft_tokenizer": concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/pilot"),
        "connect_timeout_seconds": 2, "first_byte_timeout_seconds": 20, "idle_timeout_seconds": 20,
        "total_timeout_seconds": 60,
    });
    let all_settings = all.as_object_mut().unwrap();
    for (name, value) in remote.as_object().unwrap() {
        if value.is_null() {
            all_settings.remove(name);
        } else {
            all_settings.insert(name.clone(), value.clone());
        }
    }
    let partial: Partial = serde_json::from_value(json!({"models": models, "remote": all})).unwrap();
    partial.resolve().unwrap()
}

/// The embedded pair of models.
fn embedded() -> Models {
    static MODELS: OnceLock<Models> = OnceLock::new();
    let load = || {
        let settings = settings(json!({}), json!({}));
        models::load(&settings, settings.recipe.needs, 64, &mut Notes::default()).unwrap()
    };
    MODELS.get_or_init(load).clone()
}

/// The draft of one pair with the base of another.
fn mixed(draft: &Models, base: &Models) -> Models {
    let [draft, base] =
        [(draft, Seat::DRAFT), (base, Seat::BASE)].map(|(models, seat)| (seat, models.get(seat).unwrap().clone()));
    Models::default().with(draft.0, draft.1).with(base.0, base.1)
}

fn load(settings: &Settings, roles: &[Seat]) -> Result<(Models, Vec<String>), String> {
    let mut notes = Notes::default();
    let needs = settings.recipe.needs.iter().filter(|need| roles.contains(&need.seat)).copied().collect::<Vec<_>>();
    let loaded = tokio::task::block_in_place(|| models::load(settings, &needs, 64, &mut notes));
    loaded.map(|models| (models, notes.0)).map_err(|error| error.to_string())
}

/// The embedded pair behind two fake servers.
async fn pair(draft: Kind, base: Kind, remote: Value) -> (Models, StandIn, StandIn) {
    let engines = embedded();
    let draft = StandIn::start(draft, engines.get(Seat::DRAFT).unwrap().clone()).await;
    let base = StandIn::start(base, engines.get(Seat::BASE).unwrap().clone()).await;
    let settings = settings(json!({"draft": draft.url(), "base": base.url()}), remote);
    let (models, _) = load(&settings, &[Seat::DRAFT, Seat::BASE]).unwrap();
    (models, draft, base)
}

fn job(max_tokens: usize) -> Job {
    let prompt = Prompt::Chat(vec![wsd_core::Message::new(wsd_core::ChatRole::User, "What colour is a fox?")]);
    Job {
        prompt,
        terms: Terms { max_tokens, sampling: Sampling::default(), stop: vec![], top_logprobs: 0, grammar: None },
    }
}

async fn complete(models: &Models, strategy: &str, job: Job) -> Result<Completion, String> {
    let recipe = wsd_core::Recipe::find(strategy).unwrap();
    let mut events = run(recipe.build(models, &Values::default()).unwrap(), job);
    let (mut trace, mut done) = (Trace::new(), false);
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| error.to_string())?;
        done = matches!(event, Event::Done(_));
        trace.push(&event);
    }
    assert!(done, "a stream ends with its last event, or with an error");
    Ok(trace.finish())
}

/// Runs `work` with a limit of time, so that a hang fails the test.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it hangs")
}

fn ids(completion: &Completion) -> Vec<Token> {
    completion.tokens.iter().map(|token| token.id).collect()
}

const ECHOES: Kind = Kind::OpenAi { echoes: true };

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_engines_writes_what_the_embedded_pair_writes() {
    let want = complete(&embedded(), "wsd", job(60)).await.unwrap();
    assert!(want.handover.is_some());
    let drafts = [Kind::Vllm, Kind::SgLang, Kind::LlamaServer, ECHOES];
    for (draft, base) in drafts
        .into_iter()
        .flat_map(|draft| [Kind::Vllm, Kind::SgLang, Kind::LlamaServer, ECHOES].map(|base| (draft, base)))
    {
        let (models, draft_server, base_server) = pair(draft, base, json!({"teacher_forcing": true})).await;
        let got = soon(complete(&models, "wsd", job(60))).await.unwrap();
        assert_eq!((ids(&got), got.text.as_str()), (ids(&want), want.text.as_str()), "{draft:?} and {base:?}");
        assert_eq!(got.handover.map(|handover| handover.at), want.handover.map(|handover| handover.at));
        for (got, want) in got.tokens.iter().zip(&want.tokens).filter(|(got, _)| got.by == Seat::DRAFT) {
            assert!((got.logprob.unwrap() - want.logprob.unwrap()).abs() < 1e-9, "{draft:?} and {base:?}");
        }
        for (_, body) in draft_server.posted().into_iter().chain(base_server.posted()) {
            let parameters = if body["sampling_params"].is_object() { &body["sampling_params"] } else { &body };
            let reads = parameters["skip_reading_prefix_cache"] == false;
            assert!(!reads || parameters["prompt_logprobs"].is_null(), "this request makes a server exit: {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_the_two_may_be_embedded() {
    let (engines, want) = (embedded(), complete(&embedded(), "wsd", job(40)).await.unwrap());
    let (remote, _draft, _base) = pair(Kind::LlamaServer, Kind::Vllm, json!({})).await;
    for models in [mixed(&engines, &remote), mixed(&remote, &engines)] {
        assert_eq!(ids(&complete(&models, "wsd", job(40)).await.unwrap()), ids(&want));
    }
    for strategy in ["base", "draft"] {
        let (want, got) = (complete(&engines, strategy, job(40)).await, complete(&remote, strategy, job(40)).await);
        assert_eq!(ids(&got.unwrap()), ids(&want.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grammar_is_refused_before_a_server_is_asked() {
    let form = Form::Regex("(yes|no)".into());
    let grammar = wsd_grammar::grammar("grammar", &form).unwrap();
    let constrained = || {
        let mut job = job(20);
        job.terms.grammar = Some(grammar.clone());
        job
    };
    for kind in [Kind::Vllm, Kind::SgLang, Kind::LlamaServer, ECHOES] {
        let (remote, draft, base) = pair(kind, kind, json!({"teacher_forcing": true})).await;
        let (engines, asked) = (embedded(), draft.posted().len() + base.posted().len());
        for (models, strategy) in [
            (remote.clone(), "wsd"),
            (remote.clone(), "nudging"),
            (remote.clone(), "base"),
            (remote.clone(), "draft"),
            (mixed(&engines, &remote), "wsd"),
            (mixed(&remote, &engines), "wsd"),
        ] {
            let error = complete(&models, strategy, constrained()).await.unwrap_err();
            assert!(error.contains("cannot follow a grammar") && error.contains("\n  hint: "), "{strategy}: {error}");
        }
        assert_eq!(draft.posted().len() + base.posted().len(), asked, "{kind:?} was asked to write");
        // A strategy that does not ask the remote model is not concerned.
        let answer = complete(&mixed(&engines, &remote), "draft", constrained()).await.unwrap();
        assert!(["yes", "no"].contains(&answer.text.as_str()), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_can_be_edited_and_a_question_repeated() {
    let (models, _draft, _base) = pair(Kind::Vllm, Kind::SgLang, json!({})).await;
    let base = models.get(Seat::BASE).unwrap().clone();
    let list = base.codec().tokenizer().encode("A fox is red and a duck lives on the river.").unwrap();
    let mut session = base.open(&list[..4]).await.unwrap();
    session.append(&list[4..]);
    let first = session.score(2).await.unwrap();
    session.truncate(5);
    let generation = Generation { max_tokens: 7, sampling: Sampling::default(), top_logprobs: 2, guide: None };
    let mut steps = session.generate(&generation);
    let Step::Token(sampled) = steps.next().await.unwrap().unwrap() else { panic!("a token") };
    assert!(sampled.logprob.unwrap() <= 0.0);
    drop(steps);
    assert_eq!((session.tokens().len(), session.tokens()[5]), (6, sampled.token), "the list holds what was yielded");
    session.truncate(4);
    session.append(&list[4..]);
    assert_eq!(session.score(2).await.unwrap(), first);
    assert_eq!(base.open(&list).await.unwrap().score(2).await.unwrap(), first);
    assert!(session.score(0).await.is_err() && session.logits(1).await.is_err());
    let outside = base.open(&[3, 70_000]).await.err().unwrap().to_string();
    assert!(outside.contains("70000"), "{outside}");
    drop(session);
    assert_eq!(base.activity().slots, 0);
}

/// The outcome of an answer with a fault in each reply of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// An error that contains this text.
    Fails(&'static str),
    /// The same answer as without the fault.
    Unharmed,
}
use Ending::{Fails, Unharmed};

/// Each kind of fault, with the outcome in the draft's replies and in the base's replies.
const FAULTS: &[(Fault, Ending, Ending)] = &[
    (Fault::ResetAtOnce, Fails("the connection broke"), Fails("the connection broke")),
    (Fault::ResetInHead, Fails("the connection broke"), Fails("the connection broke")),
    (Fault::ResetInBody, Unharmed, Fails("the connection broke")),
    (
        Fault::Slow,
        Fails("the first byte of the reply did not come within 0.4 s"),
        Fails("the first byte of the reply did not come within 0.4 s"),
    ),
    (Fault::Truncated, Fails("it is not JSON"), Fails("it is not JSON")),
    (Fault::WrongShape, Fails("its reply cannot be used"), Fails("its reply cannot be used: there is no list")),
    (Fault::Nan, Fails("it is not JSON"), Fails("it is not JSON")),
    (Fault::Null, Fails("is `null`"), Fails("is `null`")),
    (Fault::WrongLength, Unharmed, Fails("scores for")),
    (
        Fault::Refusal,
        Fails("status 422, Failed to deserialize the JSON body"),
        Fails("status 422, Failed to deserialize the JSON body"),
    ),
    (
        Fault::Failure,
        Fails("status 500, EngineCore encountered an issue"),
        Fails("status 500, EngineCore encountered an issue"),
    ),
    (Fault::Busy { retry_after: "0" }, Fails("status 429, too many"), Fails("status 429, too many")),
    (Fault::Busy { retry_after: "3600" }, Fails("it asks to wait 3600 s"), Fails("it asks to wait 3600 s")),
    (Fault::Busy { retry_after: "Thu, 01 Jan 1970 00:00:00 GMT" }, Fails("status 429"), Fails("status 429")),
    (
        Fault::Stall,
        Fails("the next part of the reply did not come within 0.4 s"),
        Fails("the next part of the reply did not come within 0.4 s"),
    ),
    (Fault::CutUtf8, Fails("it is not JSON"), Fails("it is not JSON")),
    (Fault::WrongIds, Fails("token 999999, which is outside the vocabulary"), Fails("its reply cannot be used: ")),
    (Fault::Clock, Unharmed, Unharmed),
];

/// Exceptions from [`FAULTS`] by engine, model and fault.
const EXCEPTIONS: &[(Kind, Seat, Fault, Ending)] = &[
    // The received part of a stream is kept; a whole reply has no such part.
    (Kind::LlamaServer, Seat::DRAFT, Fault::ResetInBody, Fails("the connection broke")),
    (ECHOES, Seat::DRAFT, Fault::ResetInBody, Fails("the connection broke")),
    // The reply counts its tokens beside their list.
    (Kind::SgLang, Seat::DRAFT, Fault::WrongLength, Fails("and counts")),
    (Kind::LlamaServer, Seat::DRAFT, Fault::WrongLength, Fails("and counts")),
    // The alternatives may be a list of any length.
    (Kind::LlamaServer, Seat::BASE, Fault::WrongLength, Fails("there is no score in it")),
    (ECHOES, Seat::BASE, Fault::WrongLength, Fails("does not echo the prompt")),
    // These replies are text, without numbers or ids.
    (ECHOES, Seat::DRAFT, Fault::Nan, Unharmed),
    (ECHOES, Seat::DRAFT, Fault::Null, Unharmed),
    (ECHOES, Seat::DRAFT, Fault::WrongIds, Unharmed),
];

/// Puts every fault into the replies of each model in turn.
async fn every_fault_ends(kind: Kind) {
    let remote = json!({"first_byte_timeout_seconds": 0.4, "connect_timeout_seconds": 0.1, "idle_timeout_seconds": 0.4,
        "total_timeout_seconds": 5, "attempts": 2, "teacher_forcing": true});
    let want = complete(&embedded(), "wsd", job(40)).await.unwrap();
    let (models, draft, base) = pair(kind, kind, remote).await;
    let mut surprises = Vec::new();
    for &(fault, of_draft, of_base) in FAULTS {
        for (role, server, usual, phase) in
            [(Seat::DRAFT, &draft, of_draft, "continuing"), (Seat::BASE, &base, of_base, "scoring")]
        {
            let exception = EXCEPTIONS.iter().find(|other| (other.0, other.1, other.2) == (kind, role, fault));
            let ending = exception.map_or(usual, |exception| exception.3);
            server.fail(fault, usize::MAX);
            let got = soon(complete(&models, "wsd", job(40))).await;
            server.heal();
            let url = format!("http://{}", server.address);
            let expected = match (ending, &got) {
                (Unharmed, Ok(got)) => ids(got) == ids(&want),
                // Engine, address and phase are named.
                (Fails(what), Err(error)) => [what, url.as_str(), phase].iter().all(|part| error.contains(part)),
                _ => false,
            };
            if !expected {
                surprises.push(format!("{fault:?} while {phase}: {ending:?}, but {:?}", got.map(|got| got.text)));
            }
            let idle = [Seat::DRAFT, Seat::BASE].map(|seat| models.get(seat).unwrap().activity());
            assert!(idle.iter().all(|activity| (activity.slots, activity.working) == (0, 0)), "{fault:?}: {idle:?}");
        }
    }
    assert!(surprises.is_empty(), "{kind:?}:\n{}", surprises.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_vllm_ends_in_a_clear_error_or_does_no_harm() {
    every_fault_ends(Kind::Vllm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_sglang_ends_in_a_clear_error_or_does_no_harm() {
    every_fault_ends(Kind::SgLang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_llama_server_ends_in_a_clear_error_or_does_no_harm() {
    every_fault_ends(Kind::LlamaServer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_another_service_ends_in_a_clear_error_or_does_no_harm() {
    every_fault_ends(ECHOES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_faults_are_retried() {
    let want = complete(&embedded(), "wsd", job(40)).await.unwrap();
    let (models, draft, base) = pair(Kind::Vllm, Kind::SgLang, json!({})).await;
    for fault in [Fault::ResetAtOnce, Fault::ResetInBody, Fault::Failure, Fault::Busy { retry_after: "0" }] {
        draft.fail(fault, 1);
        base.fail(fault, 1);
        assert_eq!(ids(&soon(complete(&models, "wsd", job(40))).await.unwrap()), ids(&want), "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_server_is_used_again() {
    let want = complete(&embedded(), "wsd", job(40)).await.unwrap();
    let (models, _draft, mut base) = pair(Kind::Vllm, Kind::Vllm, json!({"attempts": 3})).await;
    base.stop();
    let gone = soon(complete(&models, "wsd", job(40))).await.unwrap_err();
    assert!(gone.contains("no connection") && gone.contains("scoring"), "{gone}");
    let (answered, ()) = soon(async {
        tokio::join!(complete(&models, "wsd", job(40)), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            base.restart().await;
        })
    })
    .await;
    assert_eq!(ids(&answered.unwrap()), ids(&want));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_goes_on_with_the_same_ids() {
    let engines = embedded();
    let want = complete(&engines, "wsd", job(60)).await.unwrap();
    let switch = want.handover.unwrap().at;
    // The first server stops after 0, 1 (scoring) or 2 (continuing) replies.
    for answers in 0..3 {
        let mut one = StandIn::start_at(
            "127.0.0.1:0".parse().unwrap(),
            Kind::Vllm,
            engines.get(Seat::BASE).unwrap().clone(),
            Duration::from_millis(5),
        )
        .await;
        let two = StandIn::start(Kind::Vllm, engines.get(Seat::BASE).unwrap().clone()).await;
        let settings =
            settings(json!({"base": format!("{}, {}", one.url(), two.url()), "draft": "builtin:draft"}), json!({}));
        let (models, notes) = load(&settings, &[Seat::DRAFT, Seat::BASE]).unwrap();
        assert_eq!(notes.len(), 2, "one note per server: {notes:?}");
        let before = one.posted().len();
        let work = complete(&models, "wsd", job(60));
        let (got, ()) = soon(async {
            tokio::join!(work, async {
                while one.posted().len() < before + answers {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                one.stop();
            })
        })
        .await;
        let got = got.unwrap();
        assert_eq!((ids(&got), got.handover.unwrap().at), (ids(&want), switch), "it stopped after {answers} replies");
        let sessions = one.session_ids().into_iter().chain(two.session_ids()).collect::<std::collections::HashSet<_>>();
        assert_eq!(sessions.len(), 1, "one session, one id");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_stream_ends_the_work_on_the_servers() {
    let engines = embedded();
    for kind in [Kind::Vllm, Kind::SgLang, Kind::LlamaServer] {
        let start = |engine: Arc<dyn Engine>| {
            StandIn::start_at("127.0.0.1:0".parse().unwrap(), kind, engine, Duration::from_millis(20))
        };
        let (draft, base) = (
            start(engines.get(Seat::DRAFT).unwrap().clone()).await,
            start(engines.get(Seat::BASE).unwrap().clone()).await,
        );
        let settings = settings(json!({"draft": draft.url(), "base": base.url()}), json!({"teacher_forcing": true}));
        let (models, _) = load(&settings, &[Seat::DRAFT, Seat::BASE]).unwrap();
        for strategy in ["base", "wsd"] {
            let before = draft.aborted() + base.aborted();
            let recipe = wsd_core::Recipe::find(strategy).unwrap();
            let mut events = run(recipe.build(&models, &Values::default()).unwrap(), job(400));
            while !matches!(events.next().await.unwrap().unwrap(), Event::Prompt { .. }) {}
            let _ = tokio::time::timeout(Duration::from_millis(60), events.next()).await;
            drop(events);
            soon(async {
                while draft.working() + base.working() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
            assert!(draft.aborted() + base.aborted() > before, "{kind:?}: the server noticed");
            assert_eq!(models.get(Seat::BASE).unwrap().clone().activity().slots, 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scoring_calls_are_few_and_the_trace_shows_them() {
    let (models, _draft, _base) = pair(Kind::Vllm, Kind::Vllm, json!({})).await;
    let recipe = wsd_core::Recipe::find("wsd").unwrap();
    // The rule never passes, so the draft writes as many tokens as it may.
    let values = Values::default().with(&THRESHOLD, 1.0).unwrap().with(&MAX_DRAFT_TOKENS, 41usize).unwrap();
    let mut events = run(recipe.build(&models, &values).unwrap(), job(60));
    let mut trace = Trace::new();
    while let Some(event) = events.next().await {
        trace.push(&event.unwrap());
    }
    let scored = trace.finish().calls.iter().filter(|call| call.kind == CallKind::Score).count();
    assert!((1..=3).contains(&scored), "{scored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_files_the_servers_tokenizer_is_asked() {
    let want = complete(&embedded(), "wsd", job(40)).await.unwrap();
    let engines = embedded();
    let (draft, base) = (
        StandIn::start(Kind::LlamaServer, engines.get(Seat::DRAFT).unwrap().clone()).await,
        StandIn::start(Kind::Vllm, engines.get(Seat::BASE).unwrap().clone()).await,
    );
    let template = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/pilot.jinja");
    let models = json!({"draft": draft.url(), "base": base.url(), "draft_template": template});
    let (models, notes) =
        load(&settings(models, json!({"base_tokenizer": null, "draft_tokenizer": null})), &[Seat::DRAFT, Seat::BASE])
            .unwrap();
    assert!(notes.iter().all(|note| note.contains("the server's own tokenizer")), "{notes:?}");
    let got = soon(complete(&models, "wsd", job(40))).await.unwrap();
    assert_eq!(got.text, want.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_servers_are_refused_at_the_start() {
    let (base, draft) = (embedded().get(Seat::BASE).unwrap().clone(), embedded().get(Seat::DRAFT).unwrap().clone());
    let refused = async |kind, engine: &Arc<dyn Engine>, role: Seat, remote: Value| {
        let server = StandIn::start(kind, engine.clone()).await;
        let refused = load(&settings(json!({role.to_string(): server.url()}), remote), &[role]).err().unwrap();
        assert!(refused.contains(&server.address.to_string()) && refused.contains(&role.to_string()), "{refused}");
        refused
    };
    let none = || json!({});
    let text = refused(Kind::ChatOnly, &base, Seat::BASE, none()).await;
    assert!(text.contains("a service that only chats"), "{text}");
    let text = refused(Kind::ChatOnly, &draft, Seat::DRAFT, none()).await;
    assert!(text.contains("a service that only chats"), "{text}");
    let text = refused(Kind::OpenAi { echoes: false }, &base, Seat::BASE, none()).await;
    assert!(text.contains("does not echo the prompt"), "{text}");
    let text = refused(Kind::LlamaServer, &base, Seat::BASE, none()).await;
    assert!(text.contains("--teacher-forcing"), "{text}");
    let text = refused(Kind::SgLang, &base, Seat::BASE, json!({"base_tokenizer": null})).await;
    assert!(text.contains("--base-tokenizer"), "{text}");
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../nn/tests/fixtures/llama");
    let text = refused(Kind::Vllm, &base, Seat::BASE, json!({"base_tokenizer": other})).await;
    assert!(text.contains("here and") && text.contains("there"), "{text}");
    let text = refused(Kind::Vllm, &base, Seat::BASE, json!({"base_tokenizer": "/nowhere"})).await;
    assert!(text.contains("tokenizer.json"), "{text}");

    let server = StandIn::start(Kind::Vllm, base).await;
    let try_base =
        |base: String, remote: Value| load(&settings(json!({"base": base}), remote), &[Seat::BASE]).err().unwrap();
    let text = try_base(format!("vllm+http://{}/other", server.address), none());
    assert!(text.contains("no model `other`") && text.contains("builtin:base"), "{text}");
    let text = try_base(server.url(), json!({"base_key_env": "WSD_NO_SUCH_KEY"}));
    assert!(text.contains("WSD_NO_SUCH_KEY") && text.contains("is not set"), "{text}");
    drop(server);
    let text = try_base("vllm+http://127.0.0.1:1/x".into(), none());
    assert!(text.contains("no connection") && text.contains("hint:"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_behind_a_plain_address_is_detected() {
    let engines = embedded();
    for (kind, name) in [(Kind::Vllm, "vLLM"), (Kind::SgLang, "SGLang"), (ECHOES, "OpenAI-like service")] {
        let server = StandIn::start(kind, engines.get(Seat::BASE).unwrap().clone()).await;
        let (_, notes) =
            load(&settings(json!({"base": format!("http://{}", server.address)}), json!({})), &[Seat::BASE]).unwrap();
        assert!(notes[0].contains(name) && notes[0].contains("builtin:base"), "{notes:?}");
    }
    let gone = StandIn::start(Kind::Vllm, engines.get(Seat::BASE).unwrap().clone()).await;
    let there = StandIn::start(Kind::Vllm, engines.get(Seat::BASE).unwrap().clone()).await;
    let list = format!("{},{}", gone.url(), there.url());
    drop(gone);
    let (_, notes) = load(&settings(json!({"base": list}), json!({})), &[Seat::BASE]).unwrap();
    assert!(notes[0].contains("its replicas go on without it"), "{notes:?}");
}
