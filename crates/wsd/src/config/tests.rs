use clap::CommandFactory as _;

use wsd_core::{Kind, MAX_DRAFT_TOKENS, ON_DRAFT_END, RECIPES, Rule, SAMPLING, Seat, TERMS, Value};
use wsd_nn::Format;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    settings: SharedArgs,
}

fn flags(line: &str) -> Partial {
    let words = std::iter::once("wsd").chain(line.split_whitespace());
    <Line as clap::Parser>::try_parse_from(words).unwrap().settings.0
}

fn file(text: &str) -> Result<Partial, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wsd.toml");
    fs_err::write(&path, text).unwrap();
    Partial::load(Some(&path)).map_err(|error| error.to_string().replace(&path.display().to_string(), "wsd.toml"))
}

#[test]
fn options_override_the_file_and_the_file_the_defaults() {
    let file = file(
        "[decode]\nwindow = 4\nthreshold = 0.5\nstop = [\"a\"]\n[sampling]\ntemperature = 1\n[prompt]\nraw = true",
    )
    .unwrap();
    let settings = flags("--window 3 --stop x --stop y --raw=false").or(file).resolve().unwrap();
    let rule = Rule::from_values(&settings.values);
    assert_eq!((rule.window(), rule.threshold()), (3, 0.5));
    let terms = settings.terms();
    assert_eq!(terms.stop, ["x", "y"]);
    assert_eq!((terms.sampling.temperature, terms.sampling.seed), (1.0, 42));
    assert!(!settings.prompt.raw);
    assert_eq!((settings.values.get::<usize>(&MAX_DRAFT_TOKENS), settings.recipe.name), (512, "wsd"));
}

#[test]
fn options_decide_between_raw_and_a_chat() {
    let file = |text| file(text).unwrap();
    let settings = flags("--raw").or(file("[prompt]\nsystem = \"s\"")).resolve().unwrap();
    assert_eq!((settings.prompt.raw, settings.prompt.system), (true, None));
    let settings = flags("--system s").or(file("[prompt]\nraw = true")).resolve().unwrap();
    assert_eq!((settings.prompt.raw, settings.prompt.system), (false, Some("s".into())));
}

#[test]
fn every_section_of_the_file_is_read() {
    let all = r#"
        [models]
        pair = "qwen2.5-0.5b+1.5b"
        base = "a"
        draft = "b"
        generation_config = false
        model = ["judge=c"]
        base_template = "own"
        draft_template = "form.jinja"
        threads = 2
        device = "cuda:1"
        dtype = "bf16"
        draft_dtype = "q4_0"
        prefix_cache_tokens = 100
        offline = true
        [remote]
        base_tokenizer = "t"
        draft_tokenizer = "u"
        base_key_env = "K"
        draft_key_env = "L"
        teacher_forcing = true
        connect_timeout_seconds = 0.5
        first_byte_timeout_seconds = 1
        idle_timeout_seconds = 2
        total_timeout_seconds = 3
        attempts = 9
        [decode]
        strategy = "base"
        window = 1
        threshold = 1
        max_draft_tokens = 2
        chunk_tokens = 3
        on_draft_end = "stop"
        max_tokens = 4
        stop = []
        [sampling]
        temperature = 0.5
        top_k = 5
        top_p = 0.5
        min_p = 0.5
        repetition_penalty = 1.5
        seed = 7
        [prompt]
        system = "s"
        prefill = "p"
        raw = false
    "#;
    let settings = file(all).unwrap().resolve().unwrap();
    let [base, draft, judge] = [Seat::BASE, Seat::DRAFT, Seat::JUDGE].map(|seat| &settings.models[&seat]);
    assert_eq!([&base.name, &draft.name, &judge.name], ["a", "b", "c"]);
    assert_eq!(base.template, TemplateForm::Own);
    assert_eq!(base.prefix_cache_tokens, 100);
    assert_eq!([base.dtype, draft.dtype], [Some(Format::BF16), Some(Format::Q4_0)]);
    assert_eq!(draft.template, TemplateForm::File("form.jinja".into()));
    assert_eq!((settings.values.get::<&str>(&ON_DRAFT_END), settings.max_tokens()), ("stop", 4));
    assert_eq!((settings.terms().sampling.seed, settings.recipe.name), (7, "base"));
    let remote = &settings.remote;
    let base = RemoteModel { tokenizer: Some("t".into()), key_env: Some("K".into()) };
    assert_eq!(remote.model(Seat::BASE), base);
    assert_eq!((remote.teacher_forcing, remote.attempts, remote.limits.connect.as_millis()), (true, 9, 500));
}

#[test]
fn a_pair_stands_for_models_and_rule_of_its_own_source() {
    let pair = &PAIRS[0];
    let settings = flags(&format!("--pair {} --window 3", pair.name)).with_pair().unwrap();
    let settings = settings.or(file("[models]\nbase = \"mine\"\n[decode]\nthreshold = 0.9\nwindow = 5").unwrap());
    let settings = settings.resolve().unwrap();
    let rule = Rule::from_values(&settings.values);
    assert_eq!(
        (rule.window(), rule.threshold()),
        (3, pair.threshold),
        "an option overrides the pair, the pair the file"
    );
    assert_eq!([Seat::BASE, Seat::DRAFT].map(|seat| settings.models[&seat].name.as_str()), [pair.base, pair.draft]);
    let named = file(&format!("[models]\npair = \"{}\"", pair.name)).unwrap();
    let settings = flags("--base ./own.gguf").or(named).resolve().unwrap();
    assert_eq!([Seat::BASE, Seat::DRAFT].map(|seat| settings.models[&seat].name.as_str()), ["./own.gguf", pair.draft]);
    assert!(settings.check_seats(settings.recipe.needs).is_ok());
}

#[test]
fn one_model_of_a_pair_is_refused_without_the_other() {
    let needs = |strategy: &str| Recipe::find(strategy).unwrap().needs;
    let seats = |line: &str| flags(line).resolve().unwrap().models.into_keys().collect::<Vec<_>>();
    let check = |line: &str, strategy: &str| flags(line).resolve().unwrap().check_seats(needs(strategy));
    let both = [Seat::DRAFT, Seat::BASE];
    for (line, there) in [
        ("", &both[..]),
        ("--base a --draft b", &both),
        ("--base a --draft builtin:draft", &both),
        ("--base builtin:base", &both),
        ("--base a", &both[1..]),
        ("--draft a", &both[..1]),
    ] {
        assert_eq!(seats(line), there, "{line}");
    }
    assert!(check("--base a --draft builtin:draft", "wsd").is_ok() && check("", "wsd").is_ok());
    for strategy in ["base", "speculative"] {
        assert!(check("--base a", strategy).is_ok(), "{strategy}");
        // The strategy in use has no say where a command runs another one.
        assert!(check(&format!("--base a --strategy {strategy}"), "wsd").is_err(), "{strategy}");
    }
    assert!(check("--draft a", "draft").is_ok());
    let fault = check("--draft a", "wsd").unwrap_err().to_string();
    assert!(fault.starts_with("`base` must be given where `draft` is, got none\n  hint:"), "{fault}");
    assert!(fault.contains("--base") && fault.contains("--draft") && fault.contains("--pair"), "{fault}");
    // A seat that only some settings need, before any model is loaded.
    for (strategy, needed, other) in [
        ("mix", "--mix-rule proxy", "--mix-rule product"),
        ("reward", "--step-scorer process", "--step-scorer arithmetic"),
    ] {
        assert!(check(other, strategy).is_ok(), "{other}");
        let fault = check(needed, strategy).unwrap_err().to_string();
        assert!(fault.contains("hint: name one with --model "), "{fault}");
        let seat = if strategy == "mix" { "guide" } else { "judge" };
        assert!(check(&format!("{needed} --model {seat}=c"), strategy).is_ok(), "{needed}");
    }
    let mut settings = flags("--base a").resolve().unwrap();
    settings.models_from = Some("wsd.toml".into());
    let fault = settings.check_seats(needs("wsd")).unwrap_err().to_string();
    assert!(fault.starts_with("`draft` must be given where `base` is (in wsd.toml), got none\n"), "{fault}");
}

#[test]
fn a_model_of_one_s_own_is_not_joined_by_a_toy() {
    for strategy in ["base", "speculative"] {
        let settings = flags(&format!("--base own.gguf --strategy {strategy}")).resolve().unwrap();
        assert!(!settings.has_builtin(settings.recipe.needs), "{strategy}");
        assert_eq!(settings.record().get("draft"), None, "{strategy}");
        assert_eq!(settings.record()["base"], "own.gguf");
    }
    let settings = flags("").resolve().unwrap();
    assert!(settings.has_builtin(settings.recipe.needs));
    assert_eq!(settings.record()["draft"], "builtin:draft");
}

#[test]
fn several_servers_are_a_list() {
    let settings = file("[models]\nbase = [\"http://a/m\", \"http://b/m\"]").unwrap().resolve().unwrap();
    assert_eq!(settings.models[&Seat::BASE].name, "http://a/m,http://b/m");
    assert!(file("[models]\nbase = 3").is_err());
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, want) in [
        (
            "[decode]\n\nwindw = 6",
            "wsd.toml:3: unknown key `windw`\n  hint: did you mean `window`? Known are strategy, window",
        ),
        (
            "[decoding]\nwindow = 6",
            "wsd.toml:1: unknown key `decoding`\n  hint: did you mean `decode`? Known are models",
        ),
        ("[decode]\nwindow = \"6\"", "wsd.toml:2: `window` must be a whole number from 1 to 4096, got \"6\""),
        ("[decode", "wsd.toml:1: "),
        ("[models]\nthreads = 100000", "wsd.toml:2: `threads` must be a whole number from 1 to 512, got 100000"),
        ("[decode]\nthreshold = 1.5", "wsd.toml:2: `threshold` must be a number from 0 to 1, got 1.5"),
        ("[decode]\nstrategy = \"magic\"", "wsd.toml:2: `strategy` must be `wsd` or `base` or `draft`"),
        ("[prompt]\nraw = true\nsystem = \"x\"", "wsd.toml: `system` must be left out with `raw`, got both"),
    ] {
        let message = file(text).unwrap_err();
        assert!(message.starts_with(want), "{text}: {message}");
    }
}

#[test]
fn values_outside_their_limits_are_refused() {
    for line in [
        "--window 0",
        "--threshold nan",
        "--max-tokens 0",
        "--threads 0",
        "--threads 513",
        "--top-p 0",
        "--chunk-tokens 0",
        "--attempts 0",
        "--idle-timeout-seconds 0",
        "--total-timeout-seconds 1e9",
    ] {
        let words = std::iter::once("wsd").chain(line.split_whitespace());
        assert!(<Line as clap::Parser>::try_parse_from(words).is_err(), "{line}");
    }
}

#[test]
fn values_that_depend_on_more_than_their_setting_are_refused() {
    for (line, want) in [
        ("--model boss=x", "`model` must be SEAT=MODEL with a seat of its own among middle, judge, guide, got boss=x"),
        ("--model judge", "`model` must be SEAT=MODEL"),
        ("--device gpu", "`device` must be auto, cpu, candle, cuda, cuda:N or metal, got gpu"),
        ("--draft-device cuda:0,0", "`draft_device` must be auto, cpu, candle, cuda, cuda:N or metal, got cuda:0,0"),
        ("--draft-dtype q9", "`draft_dtype` must be one of "),
    ] {
        let message = flags(line).resolve().err().unwrap().to_string();
        assert!(message.starts_with(want), "{line}: {message}");
    }
}

/// A value of a setting that is not its default, as text.
fn sample(setting: &Setting) -> String {
    match setting.kind {
        Kind::Integer { min, .. } => (min + 1).to_string(),
        Kind::Number { max, .. } => (max / 2.0).to_string(),
        Kind::Seed => "7".into(),
        Kind::Flag => (setting.default == Some(Value::Flag(false))).to_string(),
        Kind::Choice(words) => words[1].0.into(),
        Kind::Text | Kind::Texts => "x".into(),
        Kind::Object => "{\"x\":1}".into(),
    }
}

#[test]
fn every_setting_is_an_option_and_a_key_with_one_meaning() {
    #[derive(clap::Parser)]
    struct Server {
        #[command(flatten)]
        serve: ServeArgs,
    }
    for section in SECTIONS {
        for setting in section.settings() {
            let text = sample(setting);
            let option = format!("--{}={text}", setting.name.replace('_', "-"));
            let words = ["wsd", &option];
            let given = if section.is_server_only {
                <Server as clap::Parser>::try_parse_from(words).unwrap().serve.0
            } else {
                <Line as clap::Parser>::try_parse_from(words).unwrap().settings.0
            };
            let json = serde_json::to_string(&setting.parse(&text).unwrap()).unwrap();
            let file: Partial = toml::from_str(&format!("[{}]\n{} = {json}", section.name, setting.name)).unwrap();
            assert!(given.is_set(setting), "{}", setting.name);
            assert_eq!(given, file, "{}", setting.name);
        }
    }
}

#[test]
fn names_are_unique_and_the_help_tells_meaning_and_default() {
    let command = Line::command().mut_args(|arg| arg.hide_short_help(false).long_help(None::<&str>));
    let help = command.term_width(1000).render_help().to_string();
    let mut names = Vec::new();
    for section in SECTIONS {
        for setting in section.settings() {
            names.push(setting.name);
            if section.is_server_only {
                continue;
            }
            let option = format!("--{} ", setting.name.replace('_', "-"));
            let line = help.lines().find(|line| line.replace("[=", " [=").contains(&option));
            let line = line.unwrap_or_else(|| panic!("{option}"));
            assert!(line.contains(setting.about), "{line}");
            if let Some(value) = setting.default.as_ref().filter(|_| setting.default_about.is_none()) {
                assert!(line.contains(&format!("[default: {value}]")), "{line}");
            }
        }
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_record_has_every_setting_that_the_text_depends_on() {
    for recipe in RECIPES {
        let settings = flags(&format!("--strategy {}", recipe.name)).resolve().unwrap();
        let record = settings.record();
        for setting in recipe.settings.iter().chain(TERMS).chain(SAMPLING) {
            let is_recorded = record.contains_key(setting.name);
            // One without a default, such as `kl_gate`, stands in the record if it is set.
            let may_lack = setting.default.is_none() && !is_recorded;
            assert!(is_recorded == setting.affects_text || may_lack, "{} of {}", setting.name, recipe.name);
        }
    }
}
