#!/usr/bin/env python3
"""Two tiny random Llama checkpoints for tests of HTTP engines, with the scores that transformers gives them.

    python scripts/tiny_pair.py OUT

writes OUT/tiny_base and OUT/tiny_draft (f32, the built-in base's tokenizer, a chat template) and OUT/hf_reference.json: two
sequences of ids, "a" short and "b" of 200 and 24 tokens, each with `logprobs` (the first null) and 12 `greedy` ids.
"""

import json
import random
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TOKENIZER = Path(__file__).parent.parent / "models" / "base" / "tokenizer.json"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def tokenizer():
    raw = json.loads(TOKENIZER.read_text())
    special = [token["content"] for token in raw["added_tokens"] if token["special"]]
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER), bos_token=special[0], eos_token=special[-1], clean_up_tokenization_spaces=False
    )
    made.chat_template = TEMPLATE
    return made


def checkpoint(folder, words, hidden, layers, heads, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads // 2, intermediate_size=2 * hidden, max_position_embeddings=2048,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, tie_word_embeddings=False,
        initializer_range=0.15, rms_norm_eps=1e-5,
    )
    model = LlamaForCausalLM(config).to(torch.float32).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model


def reference(model, ids):
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
        logprobs = [None] + [rows[i - 1, ids[i]].item() for i in range(1, len(ids))]
        greedy = list(ids)
        for _ in range(12):
            greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    return {"ids": ids, "logprobs": logprobs, "greedy": greedy[len(ids) :]}


def main():
    out = Path(sys.argv[1])
    words = tokenizer()
    base = checkpoint(out / "tiny_base", words, 128, 2, 4, 1)
    checkpoint(out / "tiny_draft", words, 64, 1, 2, 2)
    chance = random.Random(7)
    some = [chance.randrange(4, len(words)) for _ in range(223)]
    short = [words.bos_token_id, *words("The fox lives in the wood.", add_special_tokens=False).input_ids]
    sequences = {"a": reference(base, short), "b": reference(base, [words.bos_token_id, *some])}
    (out / "hf_reference.json").write_text(json.dumps(sequences))


main()
