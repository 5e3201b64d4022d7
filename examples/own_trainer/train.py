"""A trainer as anybody may have one: a small byte model in plain PyTorch, without mixopt.

python train.py --mixture mixture.yaml --corpus runs/own/corpus --tokens 100000 --seed 1 --out .
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.functional import cross_entropy

LENGTH, BATCH, WIDTH, IDS = 64, 16, 96, 257
parser = argparse.ArgumentParser()
for name in ("mixture", "corpus", "out", "tokens", "seed"):
    parser.add_argument(f"--{name}", required=True)
args = parser.parse_args()
corpus, seed = Path(args.corpus), int(args.seed)
torch.manual_seed(seed)
rng = np.random.default_rng(seed)
gru = nn.GRU(WIDTH, WIDTH, batch_first=True)
model = nn.ModuleList([nn.Embedding(IDS, WIDTH), gru, nn.Linear(WIDTH, IDS)])


def loss_of(rows_BL):
    """Return the mean loss of each next byte, in nats."""
    embed, mix, head = model
    states, _ = mix(embed(rows_BL[:, :-1]))
    return cross_entropy(head(states).flatten(0, 1), rows_BL[:, 1:].flatten())


def tokens_of(domain, split):
    """Return the tokens of a domain in mixopt's corpus: raw integers of two bytes."""
    files = sorted((corpus / domain / split).glob("*.bin"))
    return np.concatenate([np.fromfile(file, np.uint16) for file in files]).astype(np.int64)


weights = yaml.safe_load(Path(args.mixture).read_text())["weights"]
shares = np.array(list(weights.values())) / sum(weights.values())
text = {domain: tokens_of(domain, "train") for domain in weights}
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for _ in range(int(args.tokens) // (LENGTH * BATCH)):
    picked = [text[domain] for domain in rng.choice(list(text), BATCH, p=shares)]
    starts = [rng.integers(len(tokens) - LENGTH) for tokens in picked]
    rows = [tokens[at : at + LENGTH + 1] for tokens, at in zip(picked, starts, strict=True)]
    optimizer.zero_grad()
    loss_of(torch.from_numpy(np.stack(rows))).backward()
    optimizer.step()
losses = {}
for domain in sorted(path.parent.name for path in corpus.glob("*/validation")):
    held_out = tokens_of(domain, "validation")[: 128 * (LENGTH + 1)]
    whole = len(held_out) // (LENGTH + 1) * (LENGTH + 1)
    rows = torch.from_numpy(held_out[:whole]).view(-1, LENGTH + 1)
    losses[domain] = loss_of(rows).item()
found = {"seed": seed, "loss": losses, "parameters": sum(p.numel() for p in model.parameters())}
Path(args.out, "metrics.json").write_text(json.dumps(found))
