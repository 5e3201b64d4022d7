"""What do learning-rate schedules, z-loss and averaged weights do at equal tokens?

    python experiments/real_text/rates.py --data ../shared/data/corpus --out runs/rates
    python experiments/real_text/rates.py --out runs/rates --print \
        > experiments/real_text/results_rates.md

A decoder of 0.12M weights (`tiny`) is pretrained by `mixopt pretrain` on three domains in equal
shares, 2,400 sequences of 128 bytes in each run, with the same seeds in all cases. The peak
learning rate is that of `tiny`, whose schedule is a cosine. What is finished is a file and is not
trained again.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.

Shapes: S seeds.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from online_tables import paired
from research_text import asked_of, prepared, say

from mixopt import pretrain
from mixopt.system import read_json, write_json

READING = """
- At 300 steps a `wsd` is better than a cosine of the same peak, and so is a rate that stays at the
  peak, by less: what helps is more steps at a high rate, and a short decay at the end. Runs are
  short, losses still fall fast, and the peak is one: this says nothing of long runs.
- Averaged weights are **worse** at this length, after a cosine and after a constant rate: an
  average with a decay of 0.99 reaches back a hundred steps, over which losses fall. A decay has to
  fit the length of the run.
- A floor of 0 and embeddings outside the weight decay make no difference that is shown.
- The z-loss costs 0.002, and there is nothing here for it to prevent: no run diverges.
"""

DOMAINS = ("literature_en", "docs_en", "code_python")
SEEDS = (1, 2, 3)
SEQUENCES, BATCH = 2400, 8
PEAK = 3.5e-3
CONTROL = "cosine"
# Fields of `training` by case; `ema` is what held-out losses are measured with.
CASES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "wsd": {"schedule": "wsd"},
    "constant": {"schedule": "constant"},
    "constant, averaged weights": {"schedule": "constant", "ema_decay": 0.99},
    "cosine, averaged weights": {"ema_decay": 0.99},
    "z-loss 1e-4": {"z_loss": 1e-4},
    "embeddings do not decay": {"decay_embeddings": False},
    "wsd to 0": {"schedule": "wsd", "min_lr": 0},
}


def main() -> None:
    """Train what is missing, or print the page."""
    asked = asked_of(__doc__ or "")
    if asked.prints:
        print_page(asked.out)
        return
    torch.set_num_threads(1)
    corpus = prepared(asked.data, asked.out / "corpus", DOMAINS)
    for name, training in CASES.items():
        for seed in SEEDS:
            path = _result(asked.out, name, seed)
            if not path.exists():
                say(f"{name}, seed {seed}")
                write_json(path, _trained(asked.out / "run" / path.stem, corpus, training, seed))


def _trained(out: Path, corpus: Path, training: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Return the held-out losses of a run."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    content = {
        "seed": seed,
        "prepared_corpus": str(corpus),
        "model": {"name": "decoder", "options": {"size": "tiny"}},
        "mixture": {"anchor": "uniform"},
        "training": {
            "steps": SEQUENCES // BATCH,
            "batch": BATCH,
            "sequence_length": 128,
            "lr": PEAK,
            "warmup": 0.05,
            "precision": "float32",
            **training,
        },
        "held_out": {"tokens": 32_768, **({"ema": True} if "ema_decay" in training else {})},
        "tracking": {"enabled": False},
    }
    file = out / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    return dict(pretrain(file, out / "run").losses)


def _result(out: Path, name: str, seed: int) -> Path:
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    return out / "results" / f"{slug}-{seed}.json"


def print_page(out: Path) -> None:
    """Print the page of what is there."""
    print("# Learning rates, z-loss, averaged weights\n")
    print(" ".join((__doc__ or "").split("\n\n")[2].split()) + "\n")
    print(
        "Commands: `python experiments/real_text/rates.py --data FOLDER --out runs/rates`, and the"
        " same with `--print`. Mean held-out loss over the domains in nats per byte; less that of"
        " `cosine` with the same seed, below 0 is better; ± is half of a 95% interval over"
        f" {len(SEEDS)} seeds.\n"
    )
    print(f"## Reading\n{READING}\n## Table\n")
    print("| case | held-out loss | - cosine |\n|---|---|---|")
    control_S = _losses(out, CONTROL)
    for name in CASES:
        losses_S = _losses(out, name)
        low, middle, high = paired(losses_S - control_S)
        shown = "" if name == CONTROL else f"{middle:+.4f} ± {(high - low) / 2:.4f}"
        print(f"| {name} | {losses_S.mean():.4f} | {shown} |")


def _losses(out: Path, name: str) -> np.ndarray[Any, Any]:
    runs = [read_json(_result(out, name, seed)) for seed in SEEDS]
    return np.array([np.mean(list(run.values())) for run in runs])


if __name__ == "__main__":
    main()
