//! Training as its users run it: killed, starved of disk, stopped, and still the same model in the
//! end.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "support/kills.rs"]
mod kills;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kills::{finish, strike};
use wsd_core::Engine as _;

const STEPS: usize = 150;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama")
}

/// A folder with preference rows and the file of a run over them.
fn lay_out(folder: &Path, run: &str) -> PathBuf {
    let rows: String = (0..24)
        .map(|i| {
            let (prompt, chosen, rejected) = (format!("Count {i}."), format!(" {i}, {}.", i + 1), " Go away.");
            serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string() + "\n"
        })
        .collect();
    fs_err::write(folder.join("rows.jsonl"), rows).unwrap();
    let file = folder.join(format!("{run}.toml"));
    let text = format!(
        "output = {:?}\nseed = 5\nthreads = 2\n[model]\nfrom = {:?}\ndtype = \"f32\"\n[data]\ntrain = [{rows:?}]\n\
         eval = [{rows:?}]\n[train]\nmax_steps = {STEPS}\nbatch_size = 4\ngradient_accumulation_steps = 2\n\
         learning_rate = 1e-3\nsave_steps = 5\neval_steps = 25\nlogging_steps = 5\n[dpo]\nsft_weight = 0.1\n",
        folder.join(run),
        fixture(),
        rows = folder.join("rows.jsonl"),
    );
    fs_err::write(&file, text).unwrap();
    file
}

fn train(file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    command.args(["train", "dpo", "--quiet", "--resume", "--config"]).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[cfg(unix)]
#[test]
fn an_interrupt_before_the_first_step_ends_the_run_at_once() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;

    let temporary = tempfile::tempdir().unwrap();
    let file = lay_out(temporary.path(), "run");
    // Enough rows that the reference model is not done before the signal arrives.
    let rows = temporary.path().join("rows.jsonl");
    fs_err::write(&rows, fs_err::read_to_string(&rows).unwrap().repeat(400)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    let command = command.args(["train", "dpo", "--config"]).arg(&file);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    lines.find(|line| line.contains("under the reference model")).expect("the pass is told");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    let after: Vec<_> = lines.filter(|line| !line.contains("reference model")).collect();
    assert_eq!((after, temporary.path().join("run/reference.safetensors").exists()), (vec![], false));
}

fn results(run: &Path) -> [Vec<u8>; 2] {
    let state = run.join(format!("checkpoint-{STEPS}/state.safetensors"));
    [run.join("model/model.safetensors"), state].map(|path| fs_err::read(path).unwrap())
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries =
        fs_err::read_dir(run).map(|entries| entries.map(|entry| entry.unwrap().file_name())).into_iter().flatten();
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("checkpoint-")).collect();
    names.sort();
    names
}

/// Kills a run, whose file has the tables `more`, and compares its end with that of a run that nobody
/// kills.
fn same_bits(more: &str, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|run| lay_out(folder.path(), run));
    for file in [&whole, &killed] {
        let text = fs_err::read_to_string(file).unwrap() + more;
        fs_err::write(file, text).unwrap();
    }
    strike(seed, finish(train(&whole)), || train(&killed));
    finish(train(&killed));
    assert!(results(&folder.path().join("whole")) == results(&folder.path().join("killed")), "{more:?}: bits differ");
    let metrics = ["whole", "killed"].map(|run| {
        let text = fs_err::read_to_string(folder.path().join(run).join("metrics.jsonl")).unwrap();
        let rows = text.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap());
        rows.map(|row| row["step"].as_u64().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(metrics[0], metrics[1]);
}

fn optimizer(name: &str) -> String {
    format!("[optimizer]\nname = {name:?}\n")
}

fn adapter(name: &str) -> String {
    format!("[adapter]\nname = {name:?}\n")
}

#[test]
fn every_optimizer_and_adapter_survives_twenty_kills() {
    let optimizers = wsd::train::OPTIMIZERS.iter().map(|entry| optimizer(entry.name));
    let adapters = wsd::train::ADAPTERS.iter().map(|entry| adapter(entry.name));
    for (seed, more) in (1..).zip(optimizers.chain(adapters)) {
        same_bits(&more, seed);
    }
}

/// A model of random weights is held to its teacher too, not to itself.
#[test]
fn a_teacher_is_read_whatever_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let config = fs_err::read_to_string(fixture().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let start = format!("from = {:?}", fixture());
    let random = format!("tokenizer = {:?}\nteacher = {:?}", fixture(), fixture());
    let text = fs_err::read_to_string(&file).unwrap().replace(&start, &random);
    let text = text
        .replace(&format!("max_steps = {STEPS}"), "max_steps = 1")
        .replace("logging_steps = 5", "logging_steps = 1");
    let rows: String =
        (0..24).map(|i| format!("{{\"prompt\": \"Count {i}.\", \"completion\": \" {i}.\"}}\n")).collect();
    fs_err::write(folder.path().join("rows.jsonl"), rows).unwrap();
    let config = config.as_object().unwrap().iter().map(|(key, value)| match value {
        serde_json::Value::Object(_) => String::new(),
        value => format!("{key} = {value}\n"),
    });
    fs_err::write(
        &file,
        text.replace("[dpo]\nsft_weight = 0.1\n", "") + "[model.config]\n" + &config.collect::<String>(),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    command.args(["train", "distill", "--quiet", "--config"]).arg(&file);
    finish(command);
    let rows = fs_err::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert!(first["loss"].as_f64().unwrap() > 1e-4, "{first}");
}

/// A reward model is read by the engine as one, and an adapter of weights of its own is refused.
#[test]
fn a_reward_head_is_trained_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let text = fs_err::read_to_string(&file).unwrap();
    let short =
        text.replace(&format!("max_steps = {STEPS}"), "max_steps = 30").replace("[dpo]\nsft_weight = 0.1\n", "");
    fs_err::write(&file, &short).unwrap();
    let reward = |file: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
        command.args(["train", "reward", "--quiet", "--config"]).arg(file).output().unwrap()
    };
    let output = reward(&file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model = folder.path().join("run/model");
    let checkpoint = wsd::nn::Checkpoint::open(&model).unwrap();
    assert_eq!(checkpoint.config["architectures"][0], "LlamaForSequenceClassification");
    let head = checkpoint.weights.get("score.weight").unwrap();
    assert_eq!(head.shape, [1, 32]);
    assert!(head.to_f32().iter().any(|value| value.abs() > 1e-4));
    let engine = wsd::nn::Local::load(checkpoint, &wsd::nn::LoadOptions::new("reward")).unwrap();
    assert!(engine.card().caps.heads.contains(wsd_core::Head::REWARD));
    let rows = fs_err::read_to_string(folder.path().join("run/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(rows.lines().last().unwrap()).unwrap();
    assert!(last["eval_accuracy"].as_f64().unwrap() > 0.9, "{last}");

    fs_err::write(&file, short.replace("/run\"", "/other\"") + "[lora]\nr = 2\n").unwrap();
    let told = reward(&file);
    let told = String::from_utf8_lossy(&told.stderr);
    assert!(told.contains("`adapter.name` must be one that trains `score.weight`"), "{told}");
    assert!(told.contains("for reward, got another"), "{told}");
}

#[test]
fn an_objective_names_the_keys_that_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let text = fs_err::read_to_string(&file).unwrap().replace("[dpo]\nsft_weight = 0.1\n", "");
    fs_err::write(&file, text).unwrap();
    fs_err::write(folder.path().join("rows.jsonl"), "{\"text\": \"a\"}\n").unwrap();
    for (objective, keys) in [
        ("kto", "kto needs `prompt`, `completion` and `label`, or `prompt`, `chosen` and `rejected`"),
        ("residual", "residual needs `prompt`, `chosen` and `rejected`"),
        ("reward", "reward needs `prompt`, `chosen` and `rejected`"),
        ("step_reward", "step_reward needs `prompt`, `completions` and `labels`"),
        ("starft", "starft needs `messages`, or `prompt` and `completion`"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
        let output = command.args(["train", objective, "--config"]).arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("rows.jsonl:1: {keys}")), "{told}");
    }
}

/// Cues are put around prompts and their effect is measured; other answers are no pair.
#[test]
fn cues_are_made_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let [rows, cued] = ["rows.jsonl", "cued.jsonl"].map(|name| folder.path().join(name));
    let text: String = (0..8).map(|i| format!("{{\"prompt\": \"Count {i}.\", \"completion\": \" {i}.\"}}\n")).collect();
    fs_err::write(&rows, text).unwrap();
    let run =
        |arguments: &[&std::ffi::OsStr]| Command::new(env!("CARGO_BIN_EXE_wsd")).args(arguments).output().unwrap();
    let [input, to] = ["--input", "--output"].map(std::ffi::OsStr::new);
    let train = std::ffi::OsStr::new("train");
    let output = run(&[train, "cues".as_ref(), input, rows.as_ref(), to, cued.as_ref()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = fs_err::read_to_string(&cued).unwrap();
    assert!(made.lines().zip(0..).all(|(row, i)| row.contains(&format!("Count {i}.")) && row.contains("\"cue\":")));
    let model = fixture();
    let measure = || {
        let list: [&std::ffi::OsStr; 9] = [
            train,
            "sensitivity".as_ref(),
            "--json".as_ref(),
            "--model".as_ref(),
            model.as_ref(),
            input,
            rows.as_ref(),
            "--cued".as_ref(),
            cued.as_ref(),
        ];
        run(&list)
    };
    let output = measure();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found["all"]["rows"] == 8 && found["all"]["divergence"].as_f64().unwrap() > 0.0, "{found}");
    fs_err::write(&cued, made.replace(" 3.\"", " 4.\"")).unwrap();
    let told = String::from_utf8_lossy(&measure().stderr).into_owned();
    assert!(told.contains("cued.jsonl:4: must have the answer of") && told.contains("rows.jsonl:4"), "{told}");
}

/// A limit on the size of files stands for a disk that is full: both fail a write half-way.
#[test]
#[cfg(unix)]
fn a_write_that_fails_leaves_the_last_checkpoint_whole() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, full] = ["whole", "full"].map(|run| lay_out(folder.path(), run));
    finish(train(&whole));
    let run = folder.path().join("full");
    // Some checkpoints, then no room for another.
    let mut child = train(&full).spawn().unwrap();
    while checkpoints(&run).is_empty() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = checkpoints(&run);
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" train dpo --resume --config \"$1\"";
    let output = Command::new("sh").args(["-c", limited, env!("CARGO_BIN_EXE_wsd")]).arg(&full).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error:") && told.contains(".tmp"), "{told}");
    assert_eq!(checkpoints(&run), before);
    finish(train(&full));
    assert!(results(&folder.path().join("whole")) == results(&run), "the bits differ");
}

#[test]
fn a_run_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    fs_err::create_dir_all(folder.path().join("run/checkpoint-5")).unwrap();
    let other = fs_err::read_to_string(&file).unwrap().replace("seed = 5", "seed = 6").replace("1e-3", "2e-3");
    fs_err::write(folder.path().join("run/config.toml"), other).unwrap();
    let output = train(&file).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let changes = "begun with other settings: `seed` was 6, now 5; `train.learning_rate` was 0.002, now 0.001";
    assert!(told.contains(changes), "{told}");
    fs_err::write(folder.path().join("run/config.toml"), "seed = 1\n").unwrap();
    let output = train(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("config.toml cannot be compared"));
    let mut again = Command::new(env!("CARGO_BIN_EXE_wsd"));
    let output = again.args(["train", "dpo", "--config"]).arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--resume goes on with it"));
}

#[test]
fn two_trainers_do_not_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let run = folder.path().join("run");
    fs_err::create_dir_all(&run).unwrap();
    let lock = wsd::train::RunLock::acquire(&run).unwrap();
    let output = train(&file).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("another run writes into this folder\n  hint: "), "{told}");
    drop(lock);
    finish(train(&file));
}

#[test]
fn a_device_that_cannot_train_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    for (device, message) in [
        ("cuda:77", "the device `cuda:77` cannot be used: "),
        ("metal", "`device` must be cpu, cuda, cuda:N or auto, got metal"),
        ("tpu", "device `tpu` is unknown"),
    ] {
        let output = train(&file).args(["--device", device]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(message), "{told}");
    }
    assert!(!folder.path().join("run").exists(), "nothing has begun");
}

#[test]
fn refused_rows_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    fs_err::write(
        folder.path().join("rows.jsonl"),
        "{\"prompt\": \"a\"}\n{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\n",
    )
    .unwrap();
    let output = train(&file).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("rows.jsonl:1: has `prompt`") && told.contains("rows.jsonl:3: not a JSON object"), "{told}");
}

/// A run from a GGUF file starts from the weights of the folder it was made from, in their order,
/// and reports a warm-up that is longer than the run.
#[test]
fn a_gguf_file_trains_like_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let fixtures = fixture().parent().unwrap().to_owned();
    let text = fs_err::read_to_string(&file).unwrap();
    let text = text.replace(&format!("{:?}", fixture()), &format!("{:?}", fixtures.join("gguf/mistral-f16.gguf")));
    let text = text.replace(&format!("max_steps = {STEPS}"), "max_steps = 1\nwarmup_steps = 9");
    fs_err::write(&file, text.replace("learning_rate = 1e-3", "learning_rate = 1e-9")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    let output = command.args(["train", "dpo", "--config"]).arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("the warm-up of 9 steps is not over when the run of 1 steps ends"), "{told}");
    let [trained, expected] = [folder.path().join("run/model"), fixtures.join("mistral")]
        .map(|path| wsd::nn::Checkpoint::open(&path).unwrap());
    for tensor in expected.weights.iter() {
        let found = trained.weights.get(&tensor.name).unwrap().to_f32();
        let near = found.iter().zip(tensor.to_f32()).all(|(found, expected)| (found - expected).abs() < 1e-6);
        assert!(near, "{tensor:?}");
    }
    assert!(!trained.config.keys().any(|key| key.starts_with("wsd_")));
}

#[test]
fn chats_without_a_template_are_refused_at_once_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let row =
        serde_json::json!({"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "1"}]});
    fs_err::write(folder.path().join("rows.jsonl"), format!("{row}\n").repeat(3)).unwrap();
    let base = folder.path().join("base");
    fs_err::create_dir(&base).unwrap();
    for entry in fs_err::read_dir(fixture()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
        fs_err::copy(entry.path(), base.join(entry.file_name())).unwrap();
    }
    let config = fs_err::read_to_string(base.join("tokenizer_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert!(config.as_object_mut().unwrap().remove("chat_template").is_some());
    fs_err::write(base.join("tokenizer_config.json"), config.to_string()).unwrap();
    let text = fs_err::read_to_string(&file).unwrap().split("[dpo]").next().unwrap().to_owned();
    let text = text.replace(&format!("{:?}", fixture()), &format!("{base:?}"));
    let sft = |text: &str| {
        fs_err::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
        command.args(["train", "sft", "--config"]).arg(&file).output().unwrap()
    };
    let run = sft(&text);
    let told = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "{told}");
    assert!(told.contains("`model.template` must be plain or a Jinja file, got own\n  hint: the files of `"), "{told}");
    assert_eq!(told.matches("chat template").count(), 1, "told once and not for each row: {told}");
    let plain = text.replace("[model]\n", "[model]\ntemplate = \"plain\"\n").replace(&STEPS.to_string(), "2");
    let run = sft(&plain);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn a_wrong_run_file_has_the_exit_code_of_wrong_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let right = fs_err::read_to_string(&file).unwrap();
    for (from, to, told) in [
        ("dtype = \"f32\"", "dtype = \"f33\"", "`model.dtype` must be"),
        ("batch_size = 4", "batch_size = 0", "`train.batch_size` must be"),
        ("batch_size = 4", "batch_sise = 4", "unknown field `batch_sise`"),
        ("sft_weight = 0.1", "sft_weight = -1", "`dpo.sft_weight` must be"),
        ("seed = 5", "seed = ", "TOML parse error"),
    ] {
        fs_err::write(&file, right.replace(from, to)).unwrap();
        let output = train(&file).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{to}: {err}");
        assert!(err.contains("run.toml cannot be used") && err.contains(told), "{to}: {err}");
    }
}

#[test]
fn the_pass_of_the_reference_model_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = lay_out(folder.path(), "run");
    let text = fs_err::read_to_string(&file).unwrap().replace(&STEPS.to_string(), "1");
    fs_err::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsd"));
    let run = command.args(["train", "dpo", "--config"]).arg(&file).output().unwrap();
    let told = String::from_utf8_lossy(&run.stderr);
    let pass = "log-probabilities of 48 examples under the reference model, once for the run";
    assert!(run.status.success() && told.contains(pass), "{told}");
}
