//! The data of a world depends only on its seed, in every version of the program.

use wsd_lab::world::{Release, World};

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn a_seed_gives_the_same_bytes_in_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let release = Release { documents: 2000, valid: 100, demonstrations: 500, prompts: 200, items: 60 };
    release.write(&World::new(1), folder.path()).unwrap();
    let files = ["corpus.jsonl", "corpus_valid.jsonl", "sft.jsonl", "prompts.jsonl", "eval.jsonl"];
    let hashes = files.map(|name| format!("{name} {:016x}", fnv1a(&fs_err::read(folder.path().join(name)).unwrap())));
    let want = [
        "corpus.jsonl aa3910c1d3fdb2fb",
        "corpus_valid.jsonl 0759d0dd6f984536",
        "sft.jsonl 5efb8b2432e4a2ac",
        "prompts.jsonl aa1206357ba6c71b",
        "eval.jsonl b5d7746bef6a40d2",
    ];
    assert_eq!(hashes, want);
}
