//! Run files: keys of old, tables of entries, and messages.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use wsd_nn::Device;
use wsd_train::{ADAPTERS, OBJECTIVES, OPTIMIZERS, Objective, Result, RunFile};

const HEAD: &str =
    "output = \"runs/a\"\nseed = 5\nthreads = 2\n\n[model]\nfrom = \"base\"\n\n[data]\ntrain = [\"rows.jsonl\"]\n";

fn parse(objective: &str, rest: &str) -> Result<RunFile> {
    RunFile::parse(&format!("{HEAD}{rest}"), Objective::find(objective).unwrap())
}

/// The text that runs have always kept beside their results; `--resume` compares with it.
#[test]
fn a_resolved_file_has_every_setting() {
    let run =
        parse("sft", "[train]\nmax_steps = 20\nadam_beta2 = 0.95\n[dpo]\nrpo_alpha = 0.5\n[lora]\nr = 4\n").unwrap();
    let expected = r#"output = "runs/a"
seed = 5
threads = 2

[model]
from = "base"
dtype = "bf16"
template = "own"

[data]
train = ["rows.jsonl"]
eval = []
max_length = 1024
packing = false
skip_refused = false

[train]
num_train_epochs = 1.0
max_steps = 20
batch_size = 16
gradient_accumulation_steps = 1
learning_rate = 0.0001
lr_scheduler_type = "cosine"
min_lr_rate = 0.0
warmup_steps = 0
warmup_ratio = 0.03
weight_decay = 0.0
adam_beta1 = 0.9
adam_beta2 = 0.95
adam_epsilon = 0.00000001
max_grad_norm = 1.0
logging_steps = 10
eval_steps = 0
save_steps = 500
save_total_limit = 2
early_stopping_patience = 0
gradient_checkpointing = false
bf16 = false

[dpo]
beta = 0.1
label_smoothing = 0.0
sft_weight = 0.5

[lora]
r = 4
lora_alpha = 32.0
target_modules = [
    "q_proj",
    "k_proj",
    "v_proj",
    "qkv_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "gate_up_proj",
    "down_proj",
]
"#;
    assert_eq!(run.resolved().unwrap(), expected);
    assert_eq!(run.changes_since(expected).unwrap(), [""; 0]);
    let other = expected.replace("seed = 5", "seed = 6").replace("max_steps = 20\n", "").replace("\"k_proj\",\n", "");
    let changes = run.changes_since(&other).unwrap();
    assert_eq!(changes[1..], ["`seed` was 6, now 5", "`train.max_steps` was absent, now 20"]);
    assert!(changes[0].starts_with("`lora.target_modules` was [\"q_proj\",\"v_proj\""), "{changes:?}");
}

#[test]
fn general_tables_are_read_and_resolved() {
    let rest = "[optimizer]\nname = \"sgd\"\nmomentum = 0.9\n[adapter]\nname = \"lora\"\nr = 2\n\
                [[objective]]\nname = \"dpo\"\nbeta = 0.2\n\
                [[objective]]\nname = \"distill\"\nweight = 0.5\ntrain = [\"cues.jsonl\"]\n";
    let run = parse("dpo", rest).unwrap();
    assert_eq!((run.optimizer.entry.name, run.adapter.entry.name), ("sgd", "lora"));
    let names: Vec<_> = run.objectives.iter().map(|table| (table.choice.entry.name, table.weight.start)).collect();
    assert_eq!(names, [("dpo", 1.0), ("distill", 0.5)]);
    let resolved = run.resolved().unwrap();
    assert!(resolved.contains("beta = 0.2") && resolved.contains("momentum = 0.9") && !resolved.contains("adam_"));
    assert_eq!(run.changes_since(&resolved).unwrap(), [""; 0]);
    let changes = run.changes_since(&resolved.replace("beta = 0.2", "beta = 0.3")).unwrap();
    assert_eq!(changes, ["`objective[0].beta` was 0.3, now 0.2"]);
    let same = parse("dpo", "[optimizer]\nname = \"adamw\"\nadam_beta1 = 0.8\n").unwrap();
    assert_eq!(same.optimizer.values, parse("dpo", "[train]\nadam_beta1 = 0.8\n").unwrap().optimizer.values);
}

/// The run files of docs/training-methods.md, with their commands, in order.
#[test]
fn examples_of_the_documents_are_run_files() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/training-methods.md");
    let text = fs_err::read_to_string(path).unwrap();
    let blocks: Vec<_> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).collect();
    let commands = ["sft", "sft", "residual", "sft", "step_reward", "dpo"];
    assert_eq!(blocks.len(), commands.len());
    for ((block, _), command) in blocks.into_iter().zip(commands) {
        let run = RunFile::parse(block, Objective::find(command).unwrap());
        let run = run.unwrap_or_else(|error| panic!("{error}: {block}"));
        assert_eq!(run.changes_since(&run.resolved().unwrap()).unwrap(), [""; 0]);
    }
    for entry in OBJECTIVES.iter().map(|entry| (entry.name, entry.settings)) {
        assert!(text.contains(&format!("| `{}` |", entry.0)), "{}", entry.0);
        assert!(entry.1.iter().all(|setting| text.contains(&format!("`{}` (", setting.name))), "{}", entry.0);
    }
    let others = OPTIMIZERS.iter().map(|entry| entry.name).chain(ADAPTERS.iter().map(|entry| entry.name));
    others.for_each(|name| assert!(text.contains(&format!("| `{name}` |")), "{name}"));
}

#[test]
fn weights_may_fall() {
    let weights = |rest: &str| {
        let run = parse("sft", &format!("[[objective]]\nname = \"sft\"\n[[objective]]\n{rest}")).unwrap();
        assert_eq!(run.changes_since(&run.resolved().unwrap()).unwrap(), [""; 0]);
        (run.objectives[1].weight.start, run.objectives[1].weight.end)
    };
    assert_eq!(weights("name = \"distill\"\n"), (1.0, 1.0));
    assert_eq!(weights("name = \"distill\"\nweight = 0.5\n"), (0.5, 0.5));
    assert_eq!(weights("name = \"starft\"\n"), (0.5, 0.0));
    assert_eq!(weights("name = \"starft\"\nweight = 0.2\n"), (0.2, 0.0));
    assert_eq!(weights("name = \"starft\"\nfinal_weight = 0.5\n"), (0.5, 0.5));
}

#[test]
fn mistakes_are_named() {
    let optimizers = OPTIMIZERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    let unknown_optimizer = format!("`optimizer.name` must be {optimizers}, got lion");
    for (objective, rest, message) in [
        ("dpo", "[dpo]\nbeta = 0\n", "`dpo.beta` must be a number above 0 and at most 1000000, got 0"),
        ("dpo", "[dpo]\nbeat = 1\n", "`[dpo]` has no setting `beat`"),
        ("sft", "[train]\nadam_beta1 = 1.0\n", "`train.adam_beta1` must be a number from 0 to 0.999999, got 1"),
        ("sft", "[train]\nbatch_size = 0\n", "`train.batch_size` must be at least 1, got 0"),
        ("sft", "[train]\nbatchsize = 1\n", "unknown field `batchsize`"),
        ("sft", "[train]\nwarmup_ratio = 1.5\n", "`train.warmup_ratio` must be at least 0 and below 1, got 1.5"),
        ("sft", "[optimizer]\nname = \"lion\"\n", &unknown_optimizer),
        ("sft", "[adapter]\nname = \"full\"\n[lora]\nr = 1\n", "a run has one adapter"),
        ("sft", "[[objective]]\nname = \"dpo\"\n", "must be sft, the command, got dpo"),
        ("sft", "[extra]\n", "unknown field `extra`"),
        ("sft", "[optimizer]\nname = \"digrap\"\nproject = \"never\"\n", "must be `conflict` or `agreement`, got"),
        ("sft", "[oft]\noft_block_size = 1\n", "`oft.oft_block_size` must be a whole number from 2 to 4096, got 1"),
    ] {
        let error = parse(objective, rest).unwrap_err().to_string();
        assert!(error.contains(message), "{rest}: {error}");
    }
}

/// A run on a GPU tells so beside its results, and cannot go on elsewhere.
#[test]
fn a_device_is_a_part_of_a_run() {
    let on = |device: &str| {
        let text = format!("device = {device:?}\n{HEAD}");
        RunFile::parse(&text, Objective::find("sft").unwrap())
    };
    let run = on("cuda:1").unwrap();
    assert_eq!(run.device, Device::Cuda(vec![1]));
    let resolved = run.resolved().unwrap();
    assert!(resolved.contains("device = \"cuda:1\"\n"), "{resolved}");
    assert_eq!(run.changes_since(&resolved).unwrap(), [""; 0]);
    let mut cpu = parse("sft", "").unwrap();
    assert!(cpu.open_gpu().unwrap().is_none() && !cpu.resolved().unwrap().contains("device"));
    assert_eq!(cpu.changes_since(&resolved).unwrap()[0], "`device` was \"cuda:1\", now absent");
    let message = "`device` must be cpu, cuda, cuda:N or auto, got metal";
    assert_eq!(on("metal").unwrap().open_gpu().err().unwrap().to_string(), message);
    assert!(on("tpu").unwrap_err().to_string().contains("device `tpu` is unknown"));
}

/// A teacher that nobody reads is refused.
#[test]
fn a_teacher_needs_an_objective_that_reads_it() {
    let with_teacher = |objective: &str, more: &str| {
        let text = format!("{HEAD}{more}").replace("from = \"base\"", "from = \"base\"\nteacher = \"large\"");
        RunFile::parse(&text, Objective::find(objective).unwrap())
    };
    let message = "`model.teacher` must be left out where no objective reads it, as distill and starft do, got large";
    for objective in ["sft", "dpo"] {
        assert_eq!(with_teacher(objective, "").unwrap_err().to_string(), message);
    }
    let both = "[[objective]]\nname = \"sft\"\n[[objective]]\nname = \"starft\"\n";
    for (objective, more) in [("distill", ""), ("sft", both)] {
        assert_eq!(with_teacher(objective, more).unwrap().model.teacher.as_deref(), Some("large"));
    }
}
