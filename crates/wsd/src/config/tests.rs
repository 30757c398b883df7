use clap::CommandFactory as _;

use super::*;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    partial: Partial,
}

fn flags(line: &str) -> Partial {
    let words = std::iter::once("wsd").chain(line.split_whitespace());
    <Line as clap::Parser>::try_parse_from(words).unwrap().partial
}

fn file(text: &str) -> Result<Partial, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wsd.toml");
    fs_err::write(&path, text).unwrap();
    Partial::load(Some(&path)).map_err(|error| error.to_string().replace(&path.display().to_string(), "wsd.toml"))
}

#[test]
fn flags_stand_above_the_file_above_the_defaults() {
    let file = file(
        "[decode]\nwindow = 4\nthreshold = 0.5\nstop = [\"a\"]\n[sampling]\ntemperature = 1\n[prompt]\nraw = true",
    )
    .unwrap();
    let settings = flags("--window 3 --stop x --stop y --raw=false").or(file).resolve().unwrap();
    assert_eq!((settings.options.rule.window(), settings.options.rule.threshold()), (3, 0.5));
    assert_eq!(settings.stop, ["x", "y"]);
    assert_eq!((settings.sampling.temperature, settings.sampling.seed), (1.0, 42));
    assert!(!settings.prompt.raw);
    assert_eq!((settings.options.max_draft_tokens, settings.recipe.name), (512, "wsd"));
}

#[test]
fn the_upper_word_holds_between_raw_and_a_chat() {
    let file = |text| file(text).unwrap();
    let settings = flags("--raw").or(file("[prompt]\nsystem = \"s\"")).resolve().unwrap();
    assert_eq!((settings.prompt.raw, settings.prompt.system), (true, None));
    let settings = flags("--system s").or(file("[prompt]\nraw = true")).resolve().unwrap();
    assert_eq!((settings.prompt.raw, settings.prompt.system), (false, Some("s".into())));
}

#[test]
fn the_whole_file_is_understood() {
    let all = r#"
        [models]
        base = "a"
        draft = "b"
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
    assert_eq!((settings.base.name.as_str(), settings.draft.name.as_str()), ("a", "b"));
    assert_eq!(settings.base.template, TemplateForm::Own);
    assert_eq!(settings.base.prefix_cache_tokens, 100);
    assert_eq!([&settings.base, &settings.draft].map(|model| model.dtype.as_deref()), [Some("bf16"), Some("q4_0")]);
    assert_eq!(settings.draft.template, TemplateForm::File("form.jinja".into()));
    assert_eq!((settings.options.on_draft_end, settings.max_tokens), (wsd_core::OnDraftEnd::Stop, 4));
    assert_eq!((settings.sampling.seed, settings.recipe.name), (7, "base"));
    let remote = &settings.remote;
    assert_eq!(remote.of(wsd_core::Seat::BASE), &[Some("t".to_owned()), Some("K".to_owned())]);
    assert_eq!((remote.teacher_forcing, remote.attempts, remote.limits.connect.as_millis()), (true, 9, 500));
}

#[test]
fn several_servers_are_a_list() {
    let settings = file("[models]\nbase = [\"http://a/m\", \"http://b/m\"]").unwrap().resolve().unwrap();
    assert_eq!(settings.base.name, "http://a/m,http://b/m");
    assert!(file("[models]\nbase = 3").is_err());
}

#[test]
fn faults_name_file_line_and_key() {
    for (text, want) in [
        ("[decode]\n\nwindw = 6", "wsd.toml:3: unknown field `windw`, expected one of `strategy`, `window`"),
        ("[decoding]\nwindow = 6", "wsd.toml:1: unknown field `decoding`, expected one of `models`"),
        ("[decode]\nwindow = \"6\"", "wsd.toml:2: invalid type: string \"6\", expected usize"),
        ("[decode", "wsd.toml:1: "),
        ("[models]\nthreads = 100000", "wsd.toml: `threads` must be from 1 to 512, given: 100000"),
        ("[decode]\nthreshold = 1.5", "wsd.toml: `threshold` must be from 0 to 1, given: 1.5"),
        ("[decode]\nstrategy = \"magic\"", "wsd.toml: there is no strategy `magic`"),
        ("[prompt]\nraw = true\nsystem = \"x\"", "wsd.toml: `system` must be left out with `raw`, given: both"),
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
        assert!(flags(line).resolve().is_err(), "{line}");
    }
}

#[test]
fn the_help_states_the_true_defaults() {
    let settings = Partial::default().resolve().unwrap();
    let (options, sampling) = (settings.options, settings.sampling);
    let help = Line::command().term_width(1000).render_help().to_string();
    for (flag, value) in [
        ("--base ", settings.base.name.clone()),
        ("--draft ", settings.draft.name.clone()),
        ("--strategy ", settings.recipe.name.into()),
        ("--window ", options.rule.window().to_string()),
        ("--threshold ", options.rule.threshold().to_string()),
        ("--prefix-cache-tokens ", settings.base.prefix_cache_tokens.to_string()),
        ("--max-draft-tokens ", options.max_draft_tokens.to_string()),
        ("--on-draft-end ", "continue".into()),
        ("--speculate ", options.speculate.to_string()),
        ("--nudge-threshold ", options.nudge_threshold.to_string()),
        ("--max-tokens ", settings.max_tokens.to_string()),
        ("--temperature ", sampling.temperature.to_string()),
        ("--top-k ", sampling.top_k.to_string()),
        ("--top-p ", sampling.top_p.to_string()),
        ("--min-p ", sampling.min_p.to_string()),
        ("--repetition-penalty ", sampling.repetition_penalty.to_string()),
        ("--seed ", sampling.seed.to_string()),
        ("--attempts ", settings.remote.attempts.to_string()),
        ("--connect-timeout-seconds ", settings.remote.limits.connect.as_secs().to_string()),
        ("--first-byte-timeout-seconds ", settings.remote.limits.first_byte.as_secs().to_string()),
        ("--idle-timeout-seconds ", settings.remote.limits.idle.as_secs().to_string()),
        ("--total-timeout-seconds ", settings.remote.limits.total.as_secs().to_string()),
    ] {
        let line = help.lines().find(|line| line.contains(flag)).unwrap();
        assert!(line.contains(&format!("[default: {value}]")), "{line}");
    }
}
