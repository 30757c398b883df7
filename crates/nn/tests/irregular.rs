//! Checkpoints that deviate from the common form, with the numbers of the reference implementation.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use wsd_core::{ChatRole, Message, Prompt};
use wsd_nn::arch::Head;
use wsd_nn::kernels::Simd;
use wsd_nn::{Checkpoint, Cpu, CpuOptions, Executor, Span, TemplateChoice};

/// Returns a folder of the shared data, or prints that it is skipped and returns `None`.
fn shared(part: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let path = std::env::var_os("WSD_DATA").map_or(beside, PathBuf::from).join(part);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

/// The log-probabilities of 403, 407, 261, 378, 300 after 1.
fn log_probabilities(path: &Path) -> Vec<f64> {
    let tokens = [1, 403, 407, 261, 378, 300];
    let options = CpuOptions { simd: Simd::detect(), exact: true, ..CpuOptions::default() };
    let mut cpu = Cpu::load_with(&Checkpoint::open(path).unwrap(), options).unwrap();
    let hidden = cpu.forward(&[Span { rows: 0..tokens.len(), ..Span::chain(0, 0, &tokens) }]).unwrap();
    let mut logits = Vec::new();
    cpu.project(Head::VOCABULARY, &hidden, &mut logits).unwrap();
    let rows = logits.chunks(cpu.blueprint().vocab).zip(&tokens[1..]);
    let log_probability = |(row, token): (&[f32], &u32)| {
        let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
        f64::from(row[*token as usize]) - sum.ln()
    };
    rows.map(log_probability).collect()
}

#[test]
fn irregular_checkpoints_meet_the_reference() {
    let Some(folder) = shared("bugs") else { return };
    for (name, expected) in [
        ("tied_but_different", [-19.594, -10.959, -9.959, -25.623, -30.031]),
        ("rope_theta_inside", [-11.24, -10.359, -9.059, -12.069, -9.218]),
        // llama.cpp is up to 0.006 beside these numbers of transformers: its KV cache is in F16.
        ("rope_scale_linear/legacy_scale_linear_4.gguf", [-19.138, -28.4215, -21.0292, -26.5034, -24.7619]),
        ("rope_scale_linear/typed_linear_4.gguf", [-19.138, -28.4215, -21.0292, -26.5034, -24.7619]),
    ] {
        let found = log_probabilities(&folder.join(name));
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-3);
        assert!(near, "{name}: {found:?}, expected {expected:?}");
    }
    for name in ["integer_buffer", "special_id_range/pad_512.gguf", "special_id_range/unk_ffffffff.gguf"] {
        assert!(log_probabilities(&folder.join(name)).iter().all(|value| value.is_finite()), "{name}");
    }
}

#[test]
fn irregular_folders_are_completed_or_refused() {
    let Some(folder) = shared("bugs") else { return };
    let checkpoint = Checkpoint::open(&folder.join("added_tokens")).unwrap();
    let ids = checkpoint.tokenizer.encode("<|im_start|>user\n<|im_end|>", false).unwrap().get_ids().to_vec();
    assert_eq!((ids.first(), ids.last()), (Some(&510), Some(&511)));
    assert!(checkpoint.end_tokens.contains(&511), "{:?}", checkpoint.end_tokens);
    let message = |name: &str| Checkpoint::open(&folder.join(name)).unwrap_err().to_string();
    assert!(message("lfs_shard").contains("it is a Git LFS pointer"), "{}", message("lfs_shard"));
    assert!(message("adapter_folder").contains("a LORA adapter of the model `org/base`"));
}

/// Published Qwen files state that no BOS is added; `WSD_MODELS` names their folder.
#[test]
fn a_published_qwen_file_adds_no_bos() {
    let file = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
    let Some(path) = std::env::var_os("WSD_MODELS").map(|folder| Path::new(&folder).join(file)) else {
        println!("skipped: WSD_MODELS does not name a folder with {file}");
        return;
    };
    let codec = Checkpoint::open(&path).unwrap().into_codec("qwen", &TemplateChoice::Own).unwrap();
    let chat = codec.render(&Prompt::Chat(vec![Message::new(ChatRole::User, "Who wrote Hamlet?")])).unwrap();
    assert_eq!((chat.tokens.len(), chat.tokens[0], chat.bos), (34, 151_644, None));
    assert_eq!(codec.render(&Prompt::Raw("Hamlet".into())).unwrap().bos, None);
}
