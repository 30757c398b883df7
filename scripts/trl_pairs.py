#!/usr/bin/env python3
"""Trains two steps of TRL's DPOTrainer on pairs of `wsd data pair`, unchanged, with a tiny random model.

    python -m venv venv && venv/bin/pip install trl
    venv/bin/python scripts/trl_pairs.py pairs/train.jsonl TOKENIZER

TOKENIZER is a folder with a tokenizer.json. Prints the columns, the form that TRL sees, and the losses.
"""

import sys
import tempfile

from datasets import load_dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.data_utils import is_conversational

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main(pairs, folder):
    data = load_dataset("json", data_files=pairs, split="train")
    print("columns:", ", ".join(data.column_names))
    print("conversational:", is_conversational(data[0]))
    assert is_conversational(data[0])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{folder}/tokenizer.json", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=512,
    )
    with tempfile.TemporaryDirectory() as output:
        # By path, because the trainer loads the reference model from there.
        LlamaForCausalLM(config).save_pretrained(f"{output}/model")
        tokenizer.save_pretrained(f"{output}/model")
        settings = DPOConfig(
            output_dir=output, max_steps=2, per_device_train_batch_size=2, max_length=256, logging_steps=1,
            report_to="none", use_cpu=True, bf16=False,
        )
        trainer = DPOTrainer(
            model=f"{output}/model", args=settings, train_dataset=data.select(range(min(len(data), 8))),
            processing_class=tokenizer,
        )
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    print("losses:", losses)
    # The first step's policy is the reference, so its loss is ln 2.
    assert len(losses) == 2 and abs(float(losses[0]) - 0.6931) < 1e-3


if __name__ == "__main__":
    main(*sys.argv[1:])
