"""The tasks and the trivial answer of experiments/story/story.py.

Shapes: V ids of the tokenizer, D domains.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mixopt.corpus import Corpus, TokenShards, read_items
from mixopt.mixture import Mixture
from mixopt.system import Array

FAMILIES = {
    "arc_easy_rc_0shot": "knowledge",
    "sciq_rc_0shot": "knowledge",
    "codex_humaneval_gold_bpb_0shot": "coding",
    "codex_mbpp_gold_bpb_0shot": "coding",
}
EVERY = 4  # one item of so many is for the search


def split_tasks(tasks: Path, out: Path) -> tuple[Path, Path]:
    """Write the items that mixtures are searched by, and those that models are scored on.

    Args:
        tasks: A folder of tasks.
        out: Where two folders of tasks are made.
    """
    searched, tested = out / "searched", out / "tested"
    if not tested.exists():
        for folder in (searched, tested):
            folder.mkdir(parents=True, exist_ok=True)
            for name in FAMILIES:
                lines = [
                    json.dumps(asdict(item))
                    for place, item in enumerate(read_items(tasks / f"{name}.jsonl"))
                    if (place % EVERY == 0) == (folder == searched)
                ]
                (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return searched, tested


def trivial_mixture(text: Corpus, domains: Sequence[str], tasks: Path) -> Mixture:
    """Return, for each task, all weight on the domain whose bytes are most like its answers.

    Families count alike, and so do the tasks of one.

    Args:
        text: A corpus of bytes.
        domains: Those among which to choose.
        tasks: The folder of tasks.
    """
    shards = {domain.name: domain.train for domain in text.domains}
    of_text_DV = np.stack([_shares(_bytes(shards[name])) for name in domains])
    weights = dict.fromkeys(domains, 0.0)
    for name, family in FAMILIES.items():
        answers = "".join(item.continuation for item in read_items(tasks / f"{name}.jsonl"))
        of_task_V = _shares(np.frombuffer(answers.encode(), dtype=np.uint8).astype(np.int64))
        nearest = int(np.abs(of_text_DV - of_task_V).sum(1).argmin())
        in_family = sum(family == one for one in FAMILIES.values())
        weights[domains[nearest]] += 1 / in_family / len(set(FAMILIES.values()))
    return Mixture(weights)


def _bytes(shards: TokenShards) -> np.ndarray:
    return shards.rows([0], len(shards)).ravel().astype(np.int64)


def _shares(tokens_N: np.ndarray) -> Array:
    """Return each id's share of the tokens, shape (V,)."""
    return np.bincount(tokens_N, minlength=512) / len(tokens_N)
