"""Fine-tune a tiny model on a mixture of conversations with TRL, and count its right answers.

python train.py --mixture mixture.yaml --tokens 8000 --seed 1 --out .
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

NUMBERS = 40
ANSWER_TOKENS = {"echo": 2, "next": 2, "chat": 9}  # supervised, with the end of the turn
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }} <end> {% endgeneration %}"
    "{% else %}{{ m['content'] }} <end> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
MARKS = ["<pad>", "<end>", "<unk>", "<user>", "<assistant>", "echo", "next", "chat"]
parser = argparse.ArgumentParser()
for name in ("mixture", "out", "tokens", "seed"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()
seed = int(args.seed)
rng = np.random.default_rng(seed)
torch.manual_seed(seed)


def conversation(source, number, length=8):
    """Return one question of a source and its answer."""
    answer = {"echo": [number], "next": [(number + 1) % NUMBERS]}.get(source)
    words = [f"n{k}" for k in (answer or rng.integers(NUMBERS, size=length))]
    question = {"role": "user", "content": f"{source} n{number}"}
    return [question, {"role": "assistant", "content": " ".join(words)}]


vocabulary = {word: k for k, word in enumerate([*MARKS, *(f"n{k}" for k in range(NUMBERS))])}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")
tokenizer.chat_template = TEMPLATE
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32, pad_token_id=0, eos_token_id=1,
    )
)  # fmt: skip

# Shares are of supervised tokens: a source with long answers has fewer conversations.
weights = yaml.safe_load(Path(args.mixture).read_text())["weights"]
rows = []
for source, weight in weights.items():
    count = round(weight * int(args.tokens) / ANSWER_TOKENS[source])
    rows += [{"messages": conversation(source, int(rng.integers(NUMBERS)))} for _ in range(count)]
rng.shuffle(rows)
config = SFTConfig(
    args.out, num_train_epochs=1, per_device_train_batch_size=16, learning_rate=1e-2, seed=seed,
    assistant_only_loss=True, max_length=32, use_cpu=True, bf16=False, report_to=[],
    save_strategy="no", logging_strategy="no", disable_tqdm=True,
)  # fmt: skip
SFTTrainer(model, config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()

found = {"seed": seed, "parameters": model.num_parameters()}
model.eval()
for source in weights:
    chats = [conversation(source, number) for number in range(NUMBERS)]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    ids = torch.tensor([tokenizer(text).input_ids for text in texts])
    size = ANSWER_TOKENS[source]  # every answer of a source is as long as the others
    with torch.no_grad():
        logits = model(ids).logits[:, -size - 1 : -1]
    answers = ids[:, -size:]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())
    found[source] = losses.item()
    right = (logits.argmax(-1) == answers).all(dim=1)
    found[f"{source}_right"] = right.double().mean().item()
Path(args.out, "metrics.json").write_text(json.dumps(found))
