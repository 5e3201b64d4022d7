"""What a run of hundreds of domains costs beside training: CPU seconds by part.

    OMP_NUM_THREADS=1 python experiments/benchmarks/bench_many_domains.py [--domains 300]

Design, a chosen round, fit and proposal are of 64 trials of a synthetic law with
16 losses, each of which falls with three domains; no proxy is trained. The report is that of a run
of as many domains with a few lines of text each, whose proxy is that law. Parts are printed as
shares of the limit: a minute together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixopt import pipeline
from mixopt.config import DesignConfig, FitConfig, ObjectiveConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.designs import (
    choose_batch,
    design_constraints,
    draw_candidates,
    fit_surrogate,
    make_design,
)
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import propose_mixture
from mixopt.reporting import write_report
from mixopt.run_directory import load_run
from mixopt.system import Array
from mixopt.trials import Losses, Progress, Trial, TrialResult, Trials

LIMIT = 60.0
TARGETS, TRIALS, NEEDED, NOISE = 16, 64, 3, 0.003
CONFIG = """
name: many
corpus: {{tokenizer: bytes, domains: {{{domains}}}}}
evaluation: {{exam: {{data_files: {folder}/exam.jsonl}}}}
design: {{trials: 16, rounds: off, replicates: 1}}
proxy: {{name: "bench_many_domains:LawProxy", tokens: 10000, eval_tokens: 1000}}
sweep: {{workers: 1}}
fit: {{regressors: [linear], folds: 3}}
objective: {{target: exam}}
propose: {{bootstrap: 5}}
tracking: {{enabled: false}}
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--domains", type=int, default=300)
    asked = parser.parse_args()
    print(f"{asked.domains} domains, {TRIALS} trials, {TARGETS} losses\n")
    print(f"| | CPU seconds | % of {LIMIT:.0f} |")
    print("|---|---|---|", flush=True)
    seconds = _answer(asked.domains)
    with tempfile.TemporaryDirectory() as folder:
        taken = _report(Path(folder), asked.domains)
    _print("report", taken)
    _print("together", sum(seconds.values()) + taken)


def _print(part: str, taken: float) -> None:
    print(f"| {part} | {taken:.1f} | {100 * taken / LIMIT:.0f} |", flush=True)


def law(weights_ND: Array) -> Array:
    """Return the losses, shape (N, M)."""
    rng = np.random.default_rng(5)
    domains = weights_ND.shape[1]
    worth_MD = np.zeros((TARGETS, domains))
    for row_D in worth_MD:
        row_D[rng.permutation(domains)[:NEEDED]] = rng.dirichlet(np.full(NEEDED, 2.0))
    useful_NM: Array = weights_ND @ worth_MD.T
    return 1.5 + (0.02 + useful_NM) ** -0.3


class LawProxy:
    """A proxy whose losses are those of the law; every domain has the mean of them."""

    def group_size(self, corpus: Any, training: Any) -> int:
        """Return how many trials there are at once."""
        return 16

    def train(
        self,
        trials: Sequence[Trial],
        corpus: Any,
        training: Any,
        report: Callable[[Progress], None],
    ) -> list[TrialResult]:
        """Return the losses of the law."""
        report(Progress(1, 1))
        values_N = law(np.array([trial.mixture.array for trial in trials])).mean(axis=1)
        return [
            _result(trial.name, dict.fromkeys((*trial.mixture, "exam"), float(value)))
            for trial, value in zip(trials, values_N, strict=True)
        ]


def _result(name: str, losses: dict[str, float]) -> TrialResult:
    return TrialResult(name, "finished", 10_000, 1, 0.1, Losses(10_000, losses, losses))


def _answer(domains: int) -> dict[str, float]:
    """Return the CPU seconds of design, a round, fit and proposal."""
    names = [f"domain_{place:04}" for place in range(domains)]
    natural = Mixture.from_array(names, _shares(domains))
    seconds: dict[str, float] = {}
    start = time.process_time()

    def lap(part: str) -> None:
        nonlocal start
        seconds[part], start = time.process_time() - start, time.process_time()
        _print(part, seconds[part])

    config = DesignConfig(rounds=[TRIALS // 2, TRIALS // 2])
    trials = make_design(config, natural, None, 0)
    lap("design")
    targets = [f"task_{place:02}" for place in range(TARGETS)]
    objective = Objective.from_config(ObjectiveConfig(mean=dict.fromkeys(targets[:8], 1)), targets)
    table = _trained(trials, targets)
    surrogate = fit_surrogate(table, objective, FitConfig())
    lap("fit of a round")
    allowed = design_constraints(config, natural).simplex
    candidates_KD = draw_candidates(surrogate, allowed, natural.array, minimum=config.minimum)
    batch = choose_batch(surrogate, candidates_KD, TRIALS // 2)
    lap("choice of a round")
    chosen = [Mixture.from_array(names, weights_D) for weights_D in batch.weights_BD]
    trials += [Trial(f"c{n}", mixture, n, "chosen", 1) for n, mixture in enumerate(chosen)]
    table = _trained(trials, targets)
    start = time.process_time()
    fit = fit_trials(table, FitConfig(), objective, 0)
    lap("fit")
    propose_mixture(fit, objective, Constraints(tuple(names)), natural, table, ProposeConfig())
    lap("propose")
    return seconds


def _trained(trials: Sequence[Trial], targets: Sequence[str]) -> Trials:
    losses_NM = law(np.array([trial.mixture.array for trial in trials]))
    losses_NM = losses_NM + NOISE * np.random.default_rng(1).standard_normal(losses_NM.shape)
    results = [
        _result(trial.name, dict(zip(targets, losses_M.tolist(), strict=True)))
        for trial, losses_M in zip(trials, losses_NM, strict=True)
    ]
    return Trials.from_results(list(trials), results, proxy="law", targets=targets)


def _shares(domains: int) -> Array:
    shares_D = 1.0 / np.arange(1, domains + 1)
    return shares_D / shares_D.sum()


def _report(folder: Path, domains: int) -> float:
    """Return the CPU seconds of the report of a run."""
    names = [f"domain_{place:04}" for place in range(domains)]
    for place, name in enumerate([*names, "exam"]):
        lines = [json.dumps({"text": f"{name} has line {line}. " * 9}) for line in range(10)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines[: 2 + place % 9]) + "\n")
    domain_lines = ", ".join(f"{n}: {{data_files: {folder}/{n}.jsonl}}" for n in names)
    config = folder / "many.yaml"
    config.write_text(CONFIG.format(folder=folder, domains=domain_lines))
    for step in (
        pipeline.prepare,
        pipeline.design,
        pipeline.sweep,
        pipeline.fit,
        pipeline.propose,
    ):
        step(config, folder / "run", say=lambda _: None)
    start = time.process_time()
    write_report(load_run(folder / "run"))
    return time.process_time() - start


if __name__ == "__main__":
    main()
