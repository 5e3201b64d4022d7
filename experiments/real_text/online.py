"""Do online estimators beat a static mixture on real text? Train the same model with each and see.

    python experiments/real_text/online.py --data ../shared/data/corpus --out runs/online
    python experiments/real_text/online.py --out runs/online --print \
        > experiments/real_text/results_online.md

Groups of 3, 5 and 11 domains; for each the mean over its domains and a target that is not uniform.
In the group `outside` the target is a domain that is not trained on, `code_c`; the other ten are.
`--fresh` trains `stratified`, `robust` (not for the target outside, which is not for it) and
`best_static`, on the mean or for the target outside, with seeds that no default was chosen on.
All runs of a group have the same tokens and, seed by seed, the same initial weights and text.
Static mixtures come from a design of runs: `best_static` from runs of full length, `regmix` from
proxies of a quarter of it, with LightGBM and simulation as published. `aioli on regmix` and `robust
on regmix` start from that proposal (the restricted setting). With `--size large` (1.4M weights) and
`--fresh` the static mixtures are those of the small model's designs. `sweeps only` is Aioli that
never moves (eta 0): what its sweeps cost alone. What is finished is a file and is not done again.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from mixopt_proxies.decoder import DecoderSize, make_size
from online_tables import print_tables
from online_text import Job, Text, same_weights, train
from research_text import prepared, say

from mixopt.config import FitConfig, ObjectiveConfig, ProposeConfig
from mixopt.constraints import Constraints
from mixopt.corpus import Corpus
from mixopt.fitting import fit_trials
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.proposals import ProposalRequest, propose_mixture
from mixopt.system import write_json
from mixopt.trials import Losses, Trial, TrialResult, Trials

SEEDS = (1, 2, 3, 4, 5)
FRESH_SEEDS = (6, 7, 8, 9, 10)
DESIGN_SEED = 1000  # of all runs of a design: what a seed does is then common to them
LARGE_SEEDS = (1, 2, 3)
LARGE_JOBS = ("stratified", "robust/mean", "robust/target", "best_static/target", "aioli/target")
ALL = (
    "literature_en", "dictionary_en", "legal_en", "docs_en", "man_en", "man_fr", "code_c",
    "code_cpp", "code_python", "code_js", "formal_math",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Domains, a target among them or outside, and how many runs its designs have."""

    name: str
    domains: tuple[str, ...]
    target: Mapping[str, float]
    design: int

    @property
    def outside(self) -> tuple[str, ...]:
        """Domains of the target that are not trained on."""
        return tuple(name for name in self.target if name not in self.domains)

    def objectives(self) -> dict[str, dict[str, float]]:
        """Return the objectives by name: weights of the domains' held-out losses."""
        if self.outside:
            return {"target": dict(self.target)}
        mean = dict.fromkeys(self.domains, 1 / len(self.domains))
        return {"mean": mean, "target": {n: self.target.get(n, 0.0) for n in self.domains}}

    def weights(self) -> dict[str, float]:
        """Return the objective of methods that do not use it."""
        return next(iter(self.objectives().values()))


GROUPS = (
    Group("three", ("code_python", "code_js", "literature_en"), {"code_python": 1.0}, 16),
    Group(
        "five",
        ("literature_en", "docs_en", "man_fr", "code_cpp", "formal_math"),
        {"docs_en": 0.7, "code_cpp": 0.3},
        20,
    ),
    Group("eleven", ALL, {"docs_en": 0.5, "code_python": 0.5}, 24),
    Group("outside", tuple(name for name in ALL if name != "code_c"), {"code_c": 1.0}, 24),
)


def main() -> None:
    """Train the missing runs, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--print", action="store_true", dest="prints")
    parser.add_argument("--group", choices=[group.name for group in GROUPS], action="append")
    parser.add_argument("--size", choices=["small", "large"], default="small")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.prints:
        print_tables(options.out, {group.name: group.objectives() for group in GROUPS})
        return
    if options.data is None:
        parser.error("--data: the folder of the text")
    corpus = prepared(options.data, options.out / "corpus", ALL)
    groups = [group for group in GROUPS if not options.group or group.name in options.group]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for group in groups:
            size = size_of(options.size)
            text = Text(corpus, group.domains, size, options.steps, group.outside)
            if options.fresh:
                run_fresh(group, text, options.out / f"{group.name}-fresh", pool)
            else:
                folder = options.out / f"{group.name}-{options.size}"
                run_group(group, text, folder, pool, options.size)


def size_of(name: str) -> DecoderSize:
    """Return the decoder: 0.12M weights, or 1.4M."""
    if name == "small":
        return make_size("tiny", batch=8)
    return make_size("tiny", layers=3, width=192, heads=6, ff=512, batch=8, lr=2e-3)


def run_group(group: Group, text: Text, out: Path, pool: ProcessPoolExecutor, size: str) -> None:
    """Train every method; with the small model the designs first."""
    starts = designed_mixtures(group, text, out, pool) if size == "small" else _of_small(out)
    seeds = SEEDS if size == "small" else LARGE_SEEDS
    jobs = list(jobs_of(group, starts, seeds))
    if size == "small":
        jobs += restricted_jobs(group, starts, seeds)
    else:
        jobs = sorted(
            (job for job in jobs if job.name in LARGE_JOBS),
            key=lambda job: LARGE_JOBS.index(job.name),
        )
    finish({job.name: (text, job) for job in jobs}, out, pool)


def designed_mixtures(
    group: Group, text: Text, out: Path, pool: ProcessPoolExecutor
) -> dict[str, Mixture]:
    """Train the designs and return the static mixtures by name."""
    natural = Mixture.natural(
        {n: Corpus.open(text.corpus, verify=False).inventory[n] for n in group.domains}
    )
    full = designed(group, natural, "design", text, out, pool)
    short = replace(text, steps=text.steps // 4)
    proxies = designed(group, natural, "proxies", short, out, pool)
    starts = {"stratified": Mixture.uniform(group.domains), "natural": natural}
    for name, objective in group.objectives().items():
        starts[f"best_static/{name}"] = proposal(full, objective, natural, "auto")
        starts[f"regmix/{name}"] = proposal(proxies, objective, natural, "lightgbm")
    write_json(out / "mixtures.json", {name: dict(one) for name, one in starts.items()})
    return starts


def _of_small(out: Path) -> dict[str, Mixture]:
    """Return the static mixtures of the small model."""
    path = out.with_name(out.name.partition("-")[0] + "-small") / "mixtures.json"
    if not path.exists():
        sys.exit(f"{path}: is not there; run --size small first")
    return {name: Mixture(weights) for name, weights in json.loads(path.read_text()).items()}


def run_fresh(group: Group, text: Text, out: Path, pool: ProcessPoolExecutor) -> None:
    """Train with seeds on which no option was chosen."""
    even = same_weights(Mixture.uniform(group.domains), FRESH_SEEDS)
    name, weights = next(iter(group.objectives().items()))
    best = f"best_static/{name}"
    jobs = [
        Job("stratified", even, FRESH_SEEDS, weights),
        Job(best, same_weights(_of_small(out)[best], FRESH_SEEDS), FRESH_SEEDS, weights),
    ]
    if not group.outside:
        jobs.append(Job(f"robust/{name}", even, FRESH_SEEDS, weights, "robust"))
    finish({job.name: (text, job) for job in jobs}, out, pool)


def jobs_of(group: Group, starts: Mapping[str, Mixture], seeds: tuple[int, ...]) -> Iterator[Job]:
    """Yield the runs of every method; those that see the objective for each of them."""
    objectives, uniform = group.objectives(), same_weights(starts["stratified"], seeds)
    weights = group.weights()
    for name, mixture in starts.items():
        yield Job(name, same_weights(mixture, seeds), seeds, weights)
    yield Job("odm", uniform, seeds, weights, "odm")
    yield Job("sweeps only", uniform, seeds, weights, "aioli", {"eta": 0.0})
    for name, objective in objectives.items():
        for method in ("aioli",) if group.outside else ("aioli", "robust"):
            yield Job(f"{method}/{name}", uniform, seeds, objective, method)


def restricted_jobs(
    group: Group, starts: Mapping[str, Mixture], seeds: tuple[int, ...]
) -> Iterator[Job]:
    """Yield the runs that start from the proposal of the proxies."""
    start, target = same_weights(starts["regmix/target"], seeds), group.objectives()["target"]
    yield Job("aioli on regmix/target", start, seeds, target, "aioli", {"prior_steps": 40})
    if not group.outside:
        yield Job("robust on regmix/target", start, seeds, target, "robust")


def designed(
    group: Group, natural: Mixture, name: str, text: Text, out: Path, pool: ProcessPoolExecutor
) -> Trials:
    """Train a design: one run a mixture, some of them in a stack."""
    count = group.design if name == "design" else 2 * group.design
    drawn_ND = drawn_mixtures(natural, count)
    mixtures = [Mixture.uniform(group.domains), natural]
    mixtures += [Mixture.from_array(group.domains, row_D) for row_D in drawn_ND]
    jobs = {}
    for first in range(0, len(mixtures), 4):
        some = tuple(dict(one) for one in mixtures[first : first + 4])
        seeds = (DESIGN_SEED,) * len(some)
        job = Job(name, some, seeds, group.weights())
        jobs[f"{name}-{first:02d}"] = (text, job)
    rows = [row for found in finish(jobs, out, pool).values() for row in found]
    trials, results = [], []
    for place, (row, mixture) in enumerate(zip(rows, mixtures, strict=True)):
        trials.append(Trial(f"t{place}", mixture, seed=row["seed"]))
        losses = Losses(text.tokens, row["seen"], row["seen"])
        results.append(TrialResult(f"t{place}", "finished", text.tokens, 1, 1.0, losses))
    return Trials.from_results(trials, results, proxy="decoder")


def drawn_mixtures(natural: Mixture, count: int) -> np.ndarray:
    """Draw mixtures from Dirichlet distributions of several strengths around uniform."""
    rng = np.random.default_rng(0)
    strengths = np.resize([0.7, 2.0, 6.0], count)
    return np.stack([rng.dirichlet(np.full(len(natural), s)) for s in strengths])


def proposal(
    trials: Trials, objective: Mapping[str, float], natural: Mixture, regressor: str
) -> Mixture:
    """Propose a mixture; with LightGBM as RegMix does, by simulation."""
    weights = {name: weight for name, weight in objective.items() if weight > 0}
    goal = Objective.from_config(
        ObjectiveConfig(mean=weights, unit="nats_per_token"), trials.targets
    )
    fit = fit_trials(trials, FitConfig(regressors=[regressor]), goal, 0)
    inventory = dict.fromkeys(natural.domains, 1)
    allowed, search = Constraints((*natural.domains,)), ProposeConfig(bootstrap=0)
    request = ProposalRequest(fit, allowed, natural, inventory, search, trials=trials, goal=goal)
    return propose_mixture(request).mixture


def finish(
    jobs: Mapping[str, tuple[Text, Job]], out: Path, pool: ProcessPoolExecutor
) -> dict[str, list[dict[str, Any]]]:
    """Train the jobs that have no file yet; return the results of all."""
    paths = {name: out / f"{name.replace('/', '-').replace(' ', '_')}.json" for name in jobs}
    going = {name: pool.submit(train, *jobs[name]) for name in jobs if not paths[name].exists()}
    for name, future in going.items():
        write_json(paths[name], {"method": name, "runs": future.result()})
        say(f"{out.name}: {name}")
    return {name: json.loads(path.read_text())["runs"] for name, path in paths.items()}


if __name__ == "__main__":
    main()
