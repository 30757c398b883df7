#!/usr/bin/env python3
"""Write GGUF files from Hugging Face checkpoint folders with llama.cpp's own converter.

The tensors, their order of rows, and the metadata are those of convert_hf_to_gguf.py; this script only
calls it from a llama.cpp source folder that you name. Two things are replaced, because the converter
knows published vocabularies only: the pre-tokenizer's name (given by --pre), and the vocabulary of a
checkpoint without a tokenizer.model. The latter is written as a byte-level BPE ("gpt2") or, when the
tokenizer.json has byte fallback or no pre-tokenizer, as a SentencePiece one ("llama") whose scores follow the order of
the merges. The converter has no Q4_0; such a file is made from an F32 one with the gguf package.

All fixtures of crates/nn, with golden numbers for the quantised ones (run make_fixtures.py first):

    python scripts/make_gguf.py --llama-cpp LLAMA_CPP --fixtures crates/nn/tests/fixtures

One checkpoint (TYPE is f32, f16, bf16, q8_0 or q4_0):

    python scripts/make_gguf.py --llama-cpp LLAMA_CPP --model FOLDER --out FILE.gguf --type TYPE
"""

import argparse
import json
import logging
import runpy
import sys
import tempfile
from pathlib import Path

# File name without -f16.gguf: the fixture it is made from, and how a reader of the file must differ from
# config.json because GGUF has no key for it: the llama architecture has no window, Gemma's attention scale
# is always that of the head size, and every sixth Gemma 3 layer is global.
F16_FILES = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 8}),
    "gemma3_text": ("gemma3_pattern6", {}),
    "phi3": ("phi3", {}),
    "phi3_longrope": ("phi3_longrope", {}),
    "olmo2": ("olmo2", {}),
    "llama_yarn": ("llama_yarn", {}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 1, 1]}),
    "olmo3": ("olmo3", {}),
    "granite": ("granite", {}),
    "stablelm": ("stablelm", {}),
    "stablelm_parallel": ("stablelm_parallel", {}),
    "cohere": ("cohere", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt2": ("gpt2", {}),
    "mixtral": ("mixtral", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "olmoe": ("olmoe", {}),
    "gpt_oss": ("gpt_oss", {}),
    "gpt_oss_mxfp4": ("gpt_oss_mxfp4", {}),
}
LLAMA_TYPES = ["q8_0", "q4_0", "bf16"]
# Values the converter derives from folder names; a fixture has neither author nor version.
NAME_KEYS = ("general.basename", "general.finetune", "general.version", "general.size_label")


def sentencepiece_vocab(tokenizer):
    """(piece, score, type) per id for a BPE tokenizer.json with `▁` for spaces."""
    vocab = tokenizer["model"]["vocab"]
    rank = {}
    for i, merge in enumerate(tokenizer["model"]["merges"]):
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        rank.setdefault(left + right, i)
    special = {t["content"]: t for t in tokenizer["added_tokens"]}
    normal, control, unknown, byte = 1, 3, 2, 6
    rows, characters = {}, 0
    for piece, i in sorted({**vocab, **{c: t["id"] for c, t in special.items()}}.items(), key=lambda p: p[1]):
        if piece == tokenizer["model"].get("unk_token"):
            rows[i] = (piece, 0.0, unknown)
        elif piece in special:
            rows[i] = (piece, 0.0, control)
        elif len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            rows[i] = (piece, 0.0, byte)
        elif piece in rank:
            rows[i] = (piece, -float(rank[piece]), normal)
        else:
            rows[i] = (piece, -float(len(rank) + characters), normal)
            characters += 1
    assert sorted(rows) == list(range(len(rows)))
    return [rows[i] for i in range(len(rows))]


def patch_converter(pre):
    import conversion
    import conversion.base as base
    from conversion import ModelType, get_model_class

    gguf = base.gguf
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
    read = base.ModelBase.load_hparams

    def load_hparams(folder, *rest, **named):
        # transformers 5 moves keys such as rotary_pct to places where the converter does not look.
        return {**json.loads((Path(folder) / "config.json").read_text()), **read(folder, *rest, **named)}

    base.ModelBase.load_hparams = staticmethod(load_hparams)

    def set_vocab(self):
        tokenizer = json.loads((self.dir_model / "tokenizer.json").read_text(encoding="utf-8"))
        # A vocabulary without a pre-tokenizer marks spaces itself, whether or not it can spell bytes.
        if tokenizer["model"].get("byte_fallback") or tokenizer["pre_tokenizer"] is None:
            pieces, scores, types = zip(*sentencepiece_vocab(tokenizer))
            self.gguf_writer.add_tokenizer_model("llama")
            self.gguf_writer.add_tokenizer_pre("default")
            self.gguf_writer.add_token_list([p.encode("utf-8") for p in pieces])
            self.gguf_writer.add_token_scores(list(scores))
            self.gguf_writer.add_token_types(list(types))
            gguf.SpecialVocab(self.dir_model, n_vocab=len(pieces)).add_to_gguf(self.gguf_writer)
        else:
            self._set_vocab_gpt2()

    names = "Llama Qwen2 Qwen3 Gemma2 Gemma3 Phi3 Olmo2 SmolLM3 Granite StableLm Cohere GPTNeoX".split()
    for name in [*(f"{name}ForCausalLM" for name in [*names, "Mixtral", "Qwen3Moe", "Olmoe", "GptOss"]), "GPT2LMHeadModel"]:
        get_model_class(name).set_vocab = set_vocab
    assert conversion.ModelBase is base.ModelBase and ModelType.TEXT


def run_converter(llama_cpp, model, out, kind):
    saved = sys.argv
    sys.argv = ["convert_hf_to_gguf.py", str(model), "--outtype", kind, "--outfile", str(out)]
    try:
        runpy.run_path(str(llama_cpp / "convert_hf_to_gguf.py"), run_name="__main__")
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = saved


def rewrite(source, out, tensor_type=None, file_type=None, drop=()):
    """Copy a GGUF file, leaving out some keys and storing the matrices as tensor_type if one is given."""
    import gguf

    reader = gguf.GGUFReader(source)
    arch = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(out, arch)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture" or field.name in drop:
            continue
        value = field.contents()
        if field.name == "general.file_type" and file_type is not None:
            value = int(file_type)
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, field.types[0], sub_type=sub)
    if tensor_type is not None and reader.get_field("general.quantization_version") is None:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for t in reader.tensors:
        kind, data = t.tensor_type, t.data
        if tensor_type is not None and len(t.shape) == 2 and t.shape[0] % gguf.GGML_QUANT_SIZES[tensor_type][0] == 0:
            data = gguf.quants.quantize(gguf.quants.dequantize(data, kind), tensor_type)
            kind = tensor_type
        writer.add_tensor(t.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert(llama_cpp, model, out, kind):
    import gguf

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.gguf"
        run_converter(llama_cpp, model, plain, "f32" if kind == "q4_0" else kind)
        if kind == "q4_0":
            types = gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0
        else:
            types = None, None
        rewrite(plain, out, *types, drop=NAME_KEYS)
    kinds = sorted({t.tensor_type.name for t in gguf.GGUFReader(out).tensors})
    print(f"{out.name}: {out.stat().st_size} bytes, {', '.join(kinds)}")


def llama_weights(path, heads, kv_heads):
    """The tensors of a llama GGUF file as a Hugging Face state dict."""
    import gguf
    import torch

    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    state = {}
    for t in gguf.GGUFReader(path).tensors:
        if t.name == "rope_freqs.weight":
            continue
        w = torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy())
        bits = t.name.removesuffix(".weight").split(".")
        if bits[0] != "blk":
            state[names[bits[0]] + ".weight"] = w
            continue
        if bits[2] in ("attn_q", "attn_k"):
            # Row pairs (2j, 2j+1) of a head go back to (j, j + half).
            n = heads if bits[2] == "attn_q" else kv_heads
            w = w.reshape(n, -1, 2, w.shape[1]).transpose(1, 2).reshape(w.shape)
        state[f"model.layers.{bits[1]}.{parts[bits[2]]}.weight"] = w
    return state


def write_goldens(fixtures, out):
    """Golden numbers for the files: transformers with the values that the files hold."""
    import make_fixtures

    entries = {}
    for name, (fixture, changes) in F16_FILES.items():
        entry = {"checkpoint": fixture, "config_changes": changes}
        if changes:
            model = make_fixtures.load(fixtures / fixture, **changes)
            entry["sequences"] = again(fixtures / fixture, model)
        entries[f"{name}-f16.gguf"] = entry
    folder = fixtures / "llama"
    config = json.loads((folder / "config.json").read_text())
    reference = json.loads((folder / "GOLDEN.json").read_text())
    for kind in [*LLAMA_TYPES, "f16"]:
        file = out / f"llama-{kind}.gguf"
        model = make_fixtures.load(folder)
        state = llama_weights(file, config["num_attention_heads"], config["num_key_value_heads"])
        missing, extra = model.load_state_dict(state, strict=False)
        assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
        model.tie_weights()
        sequences = again(folder, model)
        entries[file.name] = {"checkpoint": "llama", "config_changes": {}}
        if kind in ("f16", "bf16"):
            assert sequences == reference["sequences"], file.name
        else:
            entries[file.name]["sequences"] = sequences
    head = {
        "made_with": reference["made_with"],
        "what": "Golden numbers per file. An entry without sequences holds the weights of ../<checkpoint> exactly "
        "and has the numbers of its GOLDEN.json. config_changes: where the file, for want of a key, means "
        "something else than the checkpoint's config.json; its sequences were computed with the change",
        "fields": reference["fields"],
    }
    rows = []
    for file, entry in sorted(entries.items()):
        sequences = [json.dumps(s, separators=(",", ":")) for s in entry.pop("sequences", [])]
        row = json.dumps(entry)
        if sequences:
            row = row[:-1] + ', "sequences": [\n   ' + ",\n   ".join(sequences) + "\n  ]}"
        rows.append(f'  "{file}": {row}')
    text = json.dumps(head, indent=1)[:-2] + ',\n "files": {\n' + ",\n".join(rows) + "\n }\n}\n"
    (out / "GOLDEN.json").write_text(text, encoding="utf-8")


def again(folder, model):
    """The golden sequences of a fixture, recomputed with a changed model."""
    import make_fixtures

    reference = json.loads((folder / "GOLDEN.json").read_text())
    return [make_fixtures.golden_sequence(model, s["ids"]) for s in reference["sequences"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, help="llama.cpp source folder")
    parser.add_argument("--fixtures", type=Path, help="folder made by make_fixtures.py; writes its gguf/ folder")
    parser.add_argument("--model", type=Path, help="one checkpoint folder")
    parser.add_argument("--out", type=Path, help="the file to write from --model")
    parser.add_argument("--type", default="f16", choices=["f32", "f16", "bf16", "q8_0", "q4_0"])
    parser.add_argument("--pre", default="gpt-2", help="tokenizer.ggml.pre of byte-level BPE vocabularies")
    args = parser.parse_args()
    if (args.fixtures is None) == (args.model is None) or (args.model is None) != (args.out is None):
        parser.error("give either --fixtures, or --model and --out")
    llama_cpp = args.llama_cpp.resolve()
    sys.path[:0] = [str(llama_cpp / "gguf-py"), str(llama_cpp)]
    logging.disable(logging.WARNING)
    patch_converter(args.pre)
    if args.model is not None:
        convert(llama_cpp, args.model, args.out, args.type)
        return
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    out = args.fixtures / "gguf"
    for name, (fixture, _) in F16_FILES.items():
        convert(llama_cpp, args.fixtures / fixture, out / f"{name}-f16.gguf", "f16")
    for kind in LLAMA_TYPES:
        convert(llama_cpp, args.fixtures / "llama", out / f"llama-{kind}.gguf", kind)
    write_goldens(args.fixtures, out)


if __name__ == "__main__":
    main()
