"""Train what expert_advice.py compares, once, and read it.

Shapes: D domains.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from expert_sizes import FOUR, HELD_OUT, SEEDS
from mixopt_proxies.decoder import DecoderProxy
from proposed_changes import Change, proposed_change
from research_text import say

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.routing import ExpertCounts, Summary
from mixopt.system import Array, read_json, write_json
from mixopt.trials import Training, Trial, TrialResult, result_from_json, result_to_json

Balance = Literal["auxiliary", "none"]
Row = tuple[Sequence[float], int]  # shares, shape (D,), and seed

BALANCES: tuple[Balance, ...] = ("auxiliary", "none")
TOKENS = 100_000
TOKENIZER = "bpe:1024"
STEP = 0.1
MIXTURES: dict[str, tuple[float, ...]] = {
    "uniform": (0.25, 0.25, 0.25, 0.25),
    "starved of French": (0.32, 0.04, 0.32, 0.32),
    "filled by prose": (0.7, 0.1, 0.1, 0.1),
    "drawn": (0.15, 0.40, 0.10, 0.35),
    "starved of proofs": (0.32, 0.32, 0.32, 0.04),
    "filled by proofs": (0.1, 0.1, 0.1, 0.7),
    "starved of French and code": (0.45, 0.05, 0.05, 0.45),
}
CHANGES = ("as diagnosed", "drawn", "by loss")
UNBALANCED = ("starved of French", "filled by prose", "filled by proofs")


def train_all(corpus: Corpus, out: Path) -> None:
    """Train what has no file yet."""
    proxies: dict[Balance, DecoderProxy] = {
        balance: DecoderProxy(size="moe-tiny", batch=8, balance=balance) for balance in BALANCES
    }

    def train_missing(rows: Sequence[Row], balance: Balance, path: Path, change: str = "") -> None:
        if not path.exists():
            write_json(path, {"change": change} | train(rows, proxies[balance], corpus))
            say(path.stem)

    for name in UNBALANCED:
        rows = [(MIXTURES[name], seed) for seed in SEEDS]
        train_missing(rows, "none", base_path(out, name))
    for seed in SEEDS:
        for name, shares_D in MIXTURES.items():
            raised = [raise_share(shares_D, d, STEP) for d in range(len(FOUR))]
            rows = [(some_D, seed) for some_D in (shares_D, *raised)]
            train_missing(rows, "auxiliary", run_path(out, name, seed))
        for name in UNBALANCED:
            base = read_results(base_path(out, name))[SEEDS.index(seed)]
            change = first_change(base)
            if change is not None:
                even = read_results(run_path(out, "uniform", seed))[0]
                rows = [(some_D, seed) for some_D in changed(name, change, base, even, seed)]
                train_missing(rows, "none", changed_path(out, name, seed), str(change))


def train(rows: Sequence[Row], proxy: DecoderProxy, corpus: Corpus) -> dict[str, Any]:
    """Train mixtures together and return their results as plain values."""
    trials = [
        Trial(f"mixture{i}", Mixture(dict(zip(FOUR, shares_D, strict=True))), seed)
        for i, (shares_D, seed) in enumerate(rows)
    ]
    training = Training(TOKENS, eval_tokens=HELD_OUT, device="cpu")
    started = time.process_time()
    results = proxy.train(trials, corpus, training, lambda progress: None)
    cpu = (time.process_time() - started) / len(trials)
    return {"cpu": cpu, "results": [result_to_json(one) for one in results]}


def raise_share(shares_D: Sequence[float], domain: int, by: float) -> list[float]:
    """Return shares of which one is higher by so much, or lower, the others in proportion."""
    own = float(np.clip(shares_D[domain] + by, 0.01, 0.99))
    rest = (1 - own) / (1 - shares_D[domain])
    return [own if d == domain else share * rest for d, share in enumerate(shares_D)]


def changed(
    name: str, change: Change, base: TrialResult, even: TrialResult, seed: int
) -> list[list[float]]:
    """Return the shares of `CHANGES`, all of one size.

    Args:
        name: Of the mixture.
        change: What is diagnosed.
        base: The training that is diagnosed.
        even: The uniform mixture's, with the same seed.
        seed: Of what is drawn.
    """
    domain, by = FOUR.index(change.domain), change.proposed - change.share
    drawn = int(np.random.default_rng([seed, domain]).integers(len(FOUR)))
    worst = int(np.argmax(domain_losses(base) - domain_losses(even)))
    moves = ((domain, by), (drawn, abs(by)), (worst, abs(by)))
    return [raise_share(MIXTURES[name], d, size) for d, size in moves]


def first_change(result: TrialResult) -> Change | None:
    """Return the first change of the mixture that a diagnosis would propose."""
    train = expert_counts(result).train
    changes = (proposed_change(one, train) for one in Summary.of(train).diagnoses)
    return next((change for change in changes if change is not None), None)


def run_path(out: Path, name: str, seed: int) -> Path:
    """Return where a mixture and those with one domain raised are kept."""
    return out / f"{name.replace(' ', '_')}-{seed}.json"


def base_path(out: Path, name: str) -> Path:
    """Return where a mixture's trainings with routers that nothing balances are kept."""
    return out / f"{name.replace(' ', '_')}-unbalanced.json"


def changed_path(out: Path, name: str, seed: int) -> Path:
    """Return where the trainings of `CHANGES` are kept."""
    return out / f"{name.replace(' ', '_')}-{seed}-changed.json"


def read_results(path: Path) -> list[TrialResult]:
    """Return the trainings of a file."""
    return [result_from_json(one) for one in read_json(path)["results"]]


def domain_losses(result: TrialResult) -> Array:
    """Return the held-out loss of each domain, shape (D,)."""
    assert result.losses is not None, "a proxy that diverged has no losses"
    return np.array([result.losses.nats_per_token[name] for name in FOUR])


def expert_counts(result: TrialResult) -> ExpertCounts:
    """Return what the experts were given."""
    assert result.experts is not None, "moe-tiny has experts"
    return result.experts
