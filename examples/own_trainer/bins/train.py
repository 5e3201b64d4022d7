"""A trainer of nanoGPT's kind: settings as globals, changed by `--key=value`, data as `.bin` files.

python train.py --data_dir=data --mixture=mixture.yaml --out_dir=. --max_iters=50

Each domain is a folder with `train.bin` and `val.bin`. Losses are printed, and added as lines of
JSON to `log.jsonl`: `{"iter": 50, "val/code": 2.9, "val/prose": 2.8}`.
"""

import ast
import json
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

data_dir, out_dir, mixture = "data", ".", ""
seed, max_iters, eval_interval, eval_iters = 1337, 100, 50, 10
batch_size, block_size, n_embd, n_layer, n_head, vocab_size = 8, 64, 64, 2, 4, 256
learning_rate = 3e-3
for argument in sys.argv[1:]:
    key, _, value = argument.removeprefix("--").partition("=")
    if key not in globals() or not argument.startswith("--"):
        sys.exit(f"unknown setting: {argument}")
    globals()[key] = value if isinstance(globals()[key], str) else ast.literal_eval(value)

domains = sorted(path.name for path in Path(data_dir).iterdir() if (path / "val.bin").exists())
weights = yaml.safe_load(Path(mixture).read_text())["weights"] if mixture else {}
shares = np.array([weights.get(name, 0.0) if weights else 1.0 for name in domains])
shares /= shares.sum()
torch.manual_seed(seed)
rng = np.random.default_rng(seed)


class Model(nn.Module):
    """A small decoder-only transformer."""

    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        block = nn.TransformerEncoderLayer(n_embd, n_head, 4 * n_embd, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, n_layer, enable_nested_tensor=False)
        self.head = nn.Linear(n_embd, vocab_size)

    def forward(self, x, y):
        """Return the mean loss of predicting `y`."""
        mask = nn.Transformer.generate_square_subsequent_mask(block_size)
        hidden = self.token(x) + self.place.weight
        logits = self.head(self.blocks(hidden, mask=mask, is_causal=True))
        return cross_entropy(logits.flatten(0, 1), y.flatten())


def get_batch(split, names):
    """Return a batch with a row of each of the named domains."""
    rows = []
    for name in names:
        data = np.memmap(Path(data_dir, name, f"{split}.bin"), dtype=np.uint16, mode="r")
        at = rng.integers(len(data) - block_size)
        rows.append(data[at : at + block_size + 1].astype(np.int64))
    rows = torch.from_numpy(np.stack(rows))
    return rows[:, :-1], rows[:, 1:]


@torch.no_grad()
def estimate_loss(name):
    """Return the mean held-out loss of a domain."""
    batches = (get_batch("val", [name] * batch_size) for _ in range(eval_iters))
    return float(np.mean([model(x, y).item() for x, y in batches]))


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), learning_rate)
for iteration in range(max_iters + 1):
    if iteration % eval_interval == 0 or iteration == max_iters:
        losses = {f"val/{name}": estimate_loss(name) for name in domains}
        print(f"step {iteration}: " + ", ".join(f"{k} loss {v:.4f}" for k, v in losses.items()))
        with Path(out_dir, "log.jsonl").open("a") as log:
            log.write(json.dumps({"iter": iteration, "seed": seed, **losses}) + "\n")
    if iteration < max_iters:
        loss = model(*get_batch("train", rng.choice(domains, batch_size, p=shares)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
