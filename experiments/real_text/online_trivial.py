"""Is `robust` better than what anyone would have guessed? Train it beside the trivial answer.

    python experiments/real_text/online_trivial.py --data ../shared/data/corpus --out runs/online
    python experiments/real_text/online_trivial.py --out runs/online --print

The trivial answer has all weight on the target; for a target that is a mean, weights in proportion
to the target's; for a target that is not trained on, all weight on the trained domain whose
distribution of tokens is nearest to that of the target's held-out text. For the mean of all domains
it is `stratified` itself. The groups, the text and the designs are those of
`experiments/real_text/online.py`. No default was chosen on the seeds from 16 on; `--seeds 1 2 3 4
5` are those that the claims of that script were made on, for the target alone. The seeds of a call
train as one stack. With `--static` the design's best mixture is trained as well. What is finished
is a file and is not done again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from online import ALL, GROUPS, SEEDS, Group, designed, finish, proposal, size_of
from online_tables import CONTROL, Rows, paired, read, values
from online_text import Job, Text, same_weights
from research_text import prepared

from mixopt.corpus import Corpus, TokenShards
from mixopt.mixture import Mixture
from mixopt.system import write_json

MORE_SEEDS = (16, 17, 18)
TABLE = "| method | less stratified | 95% interval | less trivial | 95% interval | seeds won |"


def main() -> None:
    """Train what is missing, or print what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--print", action="store_true", dest="prints")
    parser.add_argument("--group", choices=[group.name for group in GROUPS], action="append")
    parser.add_argument("--size", choices=["small", "large"], default="small")
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--static", action="store_true", help="best_static too, with its design")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*MORE_SEEDS])
    asked = parser.parse_args()
    if asked.prints:
        print_trivial(asked.out)
        return
    if asked.data is None:
        parser.error("--data: the folder of the text")
    corpus = prepared(asked.data, asked.out / "corpus", ALL)
    groups = [one for one in GROUPS if not asked.group or one.name in asked.group]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for group in groups:
            text = Text(corpus, group.domains, size_of(asked.size), asked.steps, group.outside)
            folder = asked.out / f"{group.name}-{asked.size}-{asked.steps}-trivial"
            run_beside(group, text, tuple(asked.seeds), folder, pool)
            if asked.static:
                run_static(group, text, tuple(asked.seeds), folder, pool)


def run_beside(
    group: Group, text: Text, seeds: tuple[int, ...], folder: Path, pool: ProcessPoolExecutor
) -> None:
    """Train `stratified`, the trivial answer and `robust`."""
    even = same_weights(Mixture.uniform(group.domains), seeds)
    guess = same_weights(trivial_mixture(group, text.corpus), seeds)
    objectives = group.objectives()
    jobs = [
        Job(CONTROL, even, seeds, group.weights()),
        Job("trivial/target", guess, seeds, objectives["target"]),
        Job("robust/target", even, seeds, objectives["target"], "robust"),
    ]
    if "mean" in objectives and not set(seeds) <= set(SEEDS):
        jobs.append(Job("robust/mean", even, seeds, objectives["mean"], "robust"))
    finish({job.name: (text, job) for job in jobs}, _of_seeds(folder, seeds), pool)


def run_static(
    group: Group, text: Text, seeds: tuple[int, ...], folder: Path, pool: ProcessPoolExecutor
) -> None:
    """Train the static mixture that is best by a design of runs of the small model."""
    best = best_of_design(group, replace(text, size=size_of("small")), folder.parent, pool)
    mixture, objective = same_weights(best, seeds), group.objectives()["target"]
    job = Job("best_static/target", mixture, seeds, objective)
    finish({job.name: (text, job)}, _of_seeds(folder, seeds), pool)


def _of_seeds(folder: Path, seeds: tuple[int, ...]) -> Path:
    return folder / f"seeds-{seeds[0]:03d}"


def trivial_mixture(group: Group, corpus: Path) -> Mixture:
    """Return what is guessed for the group's target without any training."""
    if not group.outside:
        return Mixture({name: group.target.get(name, 0.0) for name in group.domains})
    domains = {domain.name: domain for domain in Corpus.open(corpus, verify=False).domains}
    of_target_V = _token_shares(domains[group.outside[0]].validation)
    apart = {
        name: np.abs(_token_shares(domains[name].train) - of_target_V).sum()
        for name in group.domains
    }
    nearest = min(apart, key=apart.__getitem__)
    return Mixture({name: float(name == nearest) for name in group.domains})


def _token_shares(shards: TokenShards) -> np.ndarray:
    """Return each token's share of a text of bytes, shape (V,)."""
    tokens_N = shards.rows([0], len(shards)).ravel().astype(np.int64)
    return np.bincount(tokens_N, minlength=512) / len(tokens_N)


def best_of_design(group: Group, text: Text, out: Path, pool: ProcessPoolExecutor) -> Mixture:
    """Return the best static mixture for the target; the design is trained once.

    Its runs have 450 steps, and 300 with eleven domains, as in `experiments/real_text/online.py`.
    """
    path = out / f"{group.name}-small" / "best_static.json"
    if not path.exists():
        inventory = Corpus.open(text.corpus, verify=False).inventory
        natural = Mixture.natural({name: inventory[name] for name in group.domains})
        short = replace(text, steps=300 if group.name == "eleven" else 450)
        trials = designed(group, natural, "design", short, path.parent, pool)
        found = proposal(trials, group.objectives()["target"], natural, "auto")
        write_json(path, dict(found))
    return Mixture(json.loads(path.read_text()))


def print_trivial(out: Path) -> None:
    """Print a table for each group and objective, and what share of the gain each method has."""
    print("# `robust` beside the trivial answer\n")
    print(
        "Commands: `python experiments/real_text/online_trivial.py --data FOLDER --out runs/online"
        " --group three --group five --group outside`, the same with `--group eleven --steps 300`;"
        " `--seeds 1 2 3 4 5` for older seeds, `--static` for the design's best mixture; then"
        " `--print`. A method or a group that is not below has not been trained.\n"
    )
    print(
        "Mean held-out loss in nats per token on text that nothing has seen, less that of"
        " `stratified` and less that of the trivial answer with the same seed (below 0 is better),"
        " with paired 95% intervals. The trivial answer: all weight on the target; in proportion to"
        " the target's weights; for a target outside, all weight on the trained domain with the"
        " nearest distribution of bytes. On the mean it is `stratified`. Seeds 1 to 5 are"
        " those that `robust` was tuned on, 16 and above are not."
    )
    groups = {group.name: group for group in GROUPS}
    for folder in sorted(out.glob("*-trivial")):
        group = groups[folder.name.partition("-")[0]]
        methods = _all_seeds(folder)
        for name, weights in group.objectives().items():
            asked = {key.partition("/")[0]: key for key in methods if key.endswith(f"/{name}")}
            if CONTROL in methods and asked:
                _print_table(folder.name, name, weights, methods, asked)


def _all_seeds(folder: Path) -> dict[str, Rows]:
    """Return the runs of each method over all calls."""
    found: dict[str, Rows] = {}
    for part in sorted(folder.glob("seeds-*")):
        for method, rows in read(part).items():
            found.setdefault(method, []).extend(rows)
    return found


def _print_table(
    folder: str,
    objective: str,
    weights: Mapping[str, float],
    methods: Mapping[str, Rows],
    asked: Mapping[str, str],
) -> None:
    seeds = [row["seed"] for row in methods[CONTROL]]
    control_S = values(methods[CONTROL], weights)
    found = {method: values(methods[key], weights) for method, key in asked.items()}
    guess_S = found.get("trivial", control_S)
    told = ", ".join(f"{name} {weight:.2g}" for name, weight in weights.items() if weight > 0)
    print(f"\n## {folder.removesuffix('-trivial')}, {objective}: {told}\n")
    print(f"Seeds {', '.join(map(str, seeds))}; stratified: {control_S.mean():.4f} nats.")
    if "trivial" in found:
        drawn = methods[asked["trivial"]][0]["drawn"]
        print("Trivial: " + ", ".join(f"{n} {w:.2g}" for n, w in drawn.items() if w > 0) + ".")
    print(f"\n{TABLE}\n|---|---|---|---|---|---|")
    for method in sorted(found, key=lambda one: float(found[one].mean())):
        won = int((found[method] < guess_S).sum())
        less = "" if method == "trivial" else _interval(found[method] - guess_S)
        beaten = "" if method == "trivial" else f"{won} of {len(seeds)}"
        print(f"| {method} | {_interval(found[method] - control_S)} | {less or ' | '} | {beaten} |")
    if found.keys() >= {"robust", "best_static", "trivial"}:
        _print_shares(found, control_S, np.isin(seeds, SEEDS))


def _interval(differences_S: np.ndarray) -> str:
    low, middle, high = paired(differences_S)
    return f"{middle:+.4f} | {low:+.4f} to {high:+.4f}"


def _print_shares(
    found: Mapping[str, np.ndarray], control_S: np.ndarray, tuned_S: np.ndarray
) -> None:
    """Print the gain over stratified as a share of the best static mixture's, old and new seeds."""
    told = []
    for method in ("robust", "trivial"):
        parts = []
        for label, chosen_S in (("all", tuned_S | ~tuned_S), ("new", ~tuned_S)):
            gain = (control_S - found[method])[chosen_S].mean()
            best = (control_S - found["best_static"])[chosen_S].mean()
            parts.append(f"{100 * gain / best:.0f}% ({label} seeds)")
        told.append(f"{method} {', '.join(parts)}")
    print(f"\nOf the gain of best_static: {'; '.join(told)}.")


if __name__ == "__main__":
    main()
