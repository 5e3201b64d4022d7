"""Train what expert_advice.py compares, once, and read it.

Shapes: D domains.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from expert_sizes import FOUR, SEEDS
from mixopt_proxies.decoder import DecoderProxy
from research_text import say

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.routing import Change, ExpertCounts, Summary
from mixopt.system import Array, read_json, write_json
from mixopt.trials import Training, Trial, TrialResult, result_from_json, result_to_json

TOKENS = 100_000
TOKENIZER = "bpe:1024"
STEP = 0.1
MIXTURES: dict[str, tuple[float, ...]] = {
    "uniform": (0.25, 0.25, 0.25, 0.25),
    "starved of French": (0.32, 0.04, 0.32, 0.32),
    "starved of proofs": (0.32, 0.32, 0.32, 0.04),
    "starved of French and code": (0.45, 0.05, 0.05, 0.45),
    "filled by prose": (0.7, 0.1, 0.1, 0.1),
    "filled by proofs": (0.1, 0.1, 0.1, 0.7),
    "drawn": (0.15, 0.40, 0.10, 0.35),
}
UNBALANCED = ("starved of French", "filled by prose", "filled by proofs")


def train_all(corpus: Corpus, out: Path) -> None:
    """Train what has no file yet."""
    for seed in SEEDS:
        for name, shares_D in MIXTURES.items():
            raised = [raise_share(shares_D, d, STEP) for d in range(len(FOUR))]
            train([shares_D, *raised], seed, "auxiliary", corpus, out, name)
    for seed in SEEDS:
        for name in UNBALANCED:
            base = train([MIXTURES[name]], seed, "none", corpus, out, f"{name}, unbalanced")
            changes = proposed(name, base[0], seed, out)
            if changes:
                told = f"{name}, unbalanced, changed"
                train(list(changes.values()), seed, "none", corpus, out, told)


def train(
    rows: Sequence[Sequence[float]], seed: int, balance: str, corpus: Corpus, out: Path, name: str
) -> list[TrialResult]:
    """Train mixtures together, if there is no file yet, and return their results."""
    path = run_path(out, name, seed)
    if not path.exists():
        trials = [
            Trial(f"mixture{i}", Mixture(dict(zip(FOUR, row, strict=True))), seed)
            for i, row in enumerate(rows)
        ]
        proxy = DecoderProxy(size="moe-tiny", batch=8, balance=balance)
        training = Training(TOKENS, eval_tokens=65_536, device="cpu")
        started = time.process_time()
        results = proxy.train(trials, corpus, training, lambda progress: None)
        cpu = (time.process_time() - started) / len(trials)
        content = {"shares": [list(row) for row in rows], "cpu": cpu}
        write_json(path, content | {"results": [result_to_json(one) for one in results]})
        say(f"{path.stem}: {cpu:.1f} s of CPU a trial")
    return read_results(path)


def raise_share(shares_D: Sequence[float], domain: int, by: float) -> list[float]:
    """Return shares of which one is higher by so much, or lower, the others in proportion."""
    own = float(np.clip(shares_D[domain] + by, 0.01, 0.99))
    rest = (1 - own) / (1 - shares_D[domain])
    return [own if d == domain else share * rest for d, share in enumerate(shares_D)]


def proposed(name: str, base: TrialResult, seed: int, out: Path) -> dict[str, list[float]]:
    """Return the shares that a diagnosis proposes and two controls of the same size, if any is."""
    change = first_change(base)
    if change is None:
        return {}
    shares_D, domain = MIXTURES[name], FOUR.index(change.domain)
    by = change.proposed - change.share
    rng = np.random.default_rng([seed, domain])
    other = int(rng.choice([d for d in range(len(FOUR)) if d != domain]))
    even_D = domain_losses(read_results(run_path(out, "uniform", seed))[0])
    worst = int(np.argmax(domain_losses(base) - even_D))
    return {
        "as diagnosed": raise_share(shares_D, domain, by),
        "drawn": raise_share(shares_D, other, by),
        "by loss": raise_share(shares_D, worst, abs(by)),
    }


def first_change(result: TrialResult) -> Change | None:
    """Return the first change of the mixture that a diagnosis proposes."""
    found = Summary.of(expert_counts(result).train).diagnoses
    return next((one.change for one in found if one.change is not None), None)


def run_path(out: Path, name: str, seed: int) -> Path:
    """Return where the trainings of a mixture and seed are kept."""
    return out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}.json"


def read_results(path: Path) -> list[TrialResult]:
    """Return the trainings of a mixture and seed, itself first."""
    return [result_from_json(one) for one in read_json(path)["results"]]


def domain_losses(result: TrialResult) -> Array:
    """Return the held-out loss of each domain, shape (D,)."""
    assert result.losses is not None, "a proxy that diverged has no losses"
    return np.array([result.losses.nats_per_token[name] for name in FOUR])


def expert_counts(result: TrialResult) -> ExpertCounts:
    """Return what the experts were given."""
    assert result.experts is not None, "moe-tiny has experts"
    return result.experts
