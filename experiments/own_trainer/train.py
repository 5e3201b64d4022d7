"""A trainer as anybody may have one: a small byte model in plain PyTorch, without mixopt.

python train.py --mixture mixture.yaml --corpus runs/own/corpus --tokens 200000 --seed 1 --out .
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

parser = argparse.ArgumentParser()
for name, kind in {
    "mixture": Path,
    "corpus": Path,
    "out": Path,
    "tokens": int,
    "seed": int,
}.items():
    parser.add_argument(f"--{name}", type=kind, required=True)
args = parser.parse_args()
LENGTH, BATCH, WIDTH = 64, 16, 96
torch.manual_seed(args.seed)
rng = np.random.default_rng(args.seed)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(257, WIDTH)
        self.mix = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, 257)

    def forward(self, rows):
        states, _ = self.mix(self.embed(rows[:, :-1]))
        return cross_entropy(self.head(states).flatten(0, 1), rows[:, 1:].flatten())


def tokens(domain, split):
    files = sorted((args.corpus / domain / split).glob("*.bin"))
    return np.concatenate([np.fromfile(file, np.uint16) for file in files]).astype(np.int64)


weights = yaml.safe_load(args.mixture.read_text())["weights"]
text = {domain: tokens(domain, "train") for domain, weight in weights.items() if weight > 0}
shares = np.array([weights[domain] for domain in text])
model = Model()
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for step in range(args.tokens // (LENGTH * BATCH)):
    picked = [text[d] for d in rng.choice(list(text), BATCH, p=shares / shares.sum())]
    starts = [rng.integers(len(t) - LENGTH) for t in picked]
    rows = np.stack([t[at : at + LENGTH + 1] for t, at in zip(picked, starts)])
    loss = model(torch.from_numpy(rows))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
losses = {}
for domain in sorted(path.parent.name for path in args.corpus.glob("*/validation")):
    held_out = tokens(domain, "validation")[: 65 * 128]
    rows = torch.from_numpy(held_out[: len(held_out) // 65 * 65]).view(-1, 65)
    losses[domain] = model(rows).item() if len(rows) else float("nan")
found = {"seed": args.seed, "parameters": sum(p.numel() for p in model.parameters())}
(args.out / "metrics.json").write_text(json.dumps({**found, "loss": losses}))
