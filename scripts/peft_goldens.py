#!/usr/bin/env python3
"""Adapter folders that PEFT wrote, with weights that PEFT merged; and a check of folders that wsd wrote.

    python scripts/peft_goldens.py                         # rewrites crates/train/tests/fixtures/peft
    python scripts/peft_goldens.py --check BASE RUN ...    # each RUN has adapter/ and model/, of a run on BASE in f32
    python scripts/peft_goldens.py --train WSD             # trains such runs with the program WSD, then checks them

Needs torch, transformers and peft. GOLDEN.json has every fifth value of each changed matrix, in the order of its rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, OFTConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

BASE = Path("crates/nn/tests/fixtures/llama")
OUT = Path("crates/train/tests/fixtures/peft")
MODULES = ["q_proj", "down_proj"]
CONFIGS = {
    "lora": LoraConfig(r=3, lora_alpha=6, target_modules=MODULES, task_type="CAUSAL_LM"),
    "dora": LoraConfig(
        r=2, lora_alpha=4, target_modules=MODULES, use_dora=True, layers_to_transform=[1], task_type="CAUSAL_LM"
    ),
    "oft": OFTConfig(oft_block_size=8, target_modules=MODULES, use_cayley_neumann=False, task_type="CAUSAL_LM"),
}


def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def write(name, config):
    adapted = get_peft_model(model(BASE), config)
    changed = []
    for key, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
            for part in (".lora_", ".oft_"):
                if part in key:
                    changed.append(key.split(part)[0].removeprefix("base_model.model.") + ".weight")
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "llama"
    config["target_modules"] = sorted(config["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    merged = adapted.merge_and_unload().state_dict()
    # The order of the trainer's list of weights is that of the model's layers.
    golden = {key: [round(value, 7) for value in merged[key].flatten()[::5].tolist()] for key in dict.fromkeys(changed)}
    (folder / "GOLDEN.json").write_text(json.dumps(golden) + "\n")
    print(name, [(key, tuple(each.shape)) for key, each in list(adapted.state_dict().items())[:0]], sorted(golden))


def check(base, run):
    """PEFT's merged weights are those of the run, and so are the logits of the adapter that is not merged."""
    adapted = PeftModel.from_pretrained(model(base), run / "adapter")
    tokens = torch.randint(1, adapted.config.vocab_size, (4, 24))
    with torch.no_grad():
        theirs, ours, before = (each(input_ids=tokens).logits for each in (adapted, model(run / "model"), model(base)))
    far, moved = (theirs - ours).abs().max().item(), (ours - before).abs().max().item()
    print(f"{run.name}: logits differ by at most {far:.1e}, and from the base's by {moved:.1e}")
    assert far < 1e-4 < moved
    merged = adapted.merge_and_unload().state_dict()
    ours, before = model(run / "model").state_dict(), model(base).state_dict()
    worst = max((merged[key] - value).abs().max().item() for key, value in ours.items())
    moved = max((before[key] - value).abs().max().item() for key, value in ours.items())
    print(f"{run.name}: merged weights differ by at most {worst:.1e}, and from the base's by {moved:.1e}")
    assert worst < 1e-5 < moved


def train(program, folder):
    """Runs with each adapter on the small model of the engine's tests."""
    rows = folder / "rows.jsonl"
    texts = [{"prompt": f"{n} and", "completion": f" {n * n} more"} for n in range(40)]
    rows.write_text("".join(json.dumps(text) + "\n" for text in texts))
    adapters = {
        "lora": "[lora]\nr = 4\nlora_alpha = 8",
        "dora": "[dora]\nr = 4\nlora_alpha = 8",
        "oft": "[oft]\noft_block_size = 8",
    }
    for name, table in adapters.items():
        run = folder / f"{name}.toml"
        run.write_text(
            f'output = "{folder / name}"\nseed = 1\nmodel = {{ from = "{BASE.absolute()}", dtype = "f32" }}\n'
            f'data = {{ train = ["{rows}"] }}\n'
            f"train = {{ max_steps = 12, batch_size = 8, learning_rate = 1e-2 }}\n{table}\n"
        )
        subprocess.run([program, "train", "sft", "--quiet", "--config", run], check=True)
        check(BASE, folder / name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--train", metavar="WSD")
    parser.add_argument("folders", nargs="*", type=Path)
    args = parser.parse_args()
    torch.manual_seed(3)
    if args.train:
        with tempfile.TemporaryDirectory() as folder:
            train(Path(args.train).absolute(), Path(folder))
    elif args.check:
        for run in args.folders[1:]:
            check(args.folders[0], run)
    else:
        for name, config in CONFIGS.items():
            write(name, config)


if __name__ == "__main__":
    main()
