"""Split a domain after the sweep: do old trials, carried over, and a quarter of new ones suffice?

    OMP_NUM_THREADS=1 python experiments/published/domain_change.py --data ../shared/data/regmix \
        > experiments/published/results_domain_change.md

RegMix's 512 published runs. Two of its 17 domains count as one in 384 of them (`Trials.reindex`
merges them, then splits them again in the shares of all runs); the other 128 know them apart, and
are what is trained after the split.

It is harder than a real split: the published runs drew the two in proportions of their own, where
a domain that was one was drawn in the same proportions by all trials.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from published_data import regmix, some

from mixopt.fitting import make_regressor, spearman
from mixopt.trials import Trials

PAIRS = (
    ("github", "stackexchange"),
    ("pubmed_central", "pubmed_abstracts"),
    ("pile_cc", "hackernews"),
)
CASES = (("auto", PAIRS[:1], 1), ("skills", PAIRS, 3), ("log_linear", PAIRS, 3))
NEW = 128
WAYS = ("full", "carried over + new", "new alone", "carried over alone", "own share, no law")


@dataclass(frozen=True)
class Ranks:
    """Spearman over unseen runs: the mean of all losses, and the least of the two split ones."""

    mean: float
    least: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of RegMix's tables")
    data = parser.parse_args().data
    every, unseen = regmix(data, "train_1m"), regmix(data, "test_1m")
    start = time.process_time()
    print("# A domain is split in two\n")
    print(
        "Command: `OMP_NUM_THREADS=1 python experiments/published/domain_change.py --data"
        " ../shared/data/regmix`.\n\nMean Spearman over 13 losses on the 256 runs of test_1m; in"
        " brackets the least of the two losses that the\nsplit concerns. full: 512 runs that know"
        f" the two apart. carried over: 384 that do not. new: {NEW}. Mean over\nas many draws of"
        " the new runs as the second column says; ratio: carried over + new by full, its least"
        " in brackets.\n"
    )
    print(f"| regressor, split | draws | {' | '.join(WAYS)} | ratio |")
    print("|---|---|" + "---|" * (len(WAYS) + 1))
    for name, pairs, seeds in CASES:
        fitted = make_regressor(name, 0).fit(every.weights(), every.losses())
        for pair in pairs:
            _print_row(name, pair, fitted, every, unseen, seeds)
    print("\nTarget: a ratio of 0.97 with a quarter of new rows.")
    print(f"\n{time.process_time() - start:.0f} CPU seconds.")


def _print_row(
    name: str, pair: tuple[str, str], fitted: object, every: Trials, unseen: Trials, seeds: int
) -> None:
    full = _ranks(_predicted(fitted, every, unseen), unseen, pair)
    own_NM = np.column_stack([-unseen.weights()[:, _place(unseen, t)] for t in unseen.targets])
    control = _ranks(own_NM, unseen, pair)
    draws = [[full, *_after(name, pair, every, unseen, seed), control] for seed in range(seeds)]
    cells = [
        f"{np.mean([one.mean for one in way]):.4f} ({np.mean([one.least for one in way]):.3f})"
        for way in zip(*draws, strict=True)
    ]
    ratios = [draw[1].mean / full.mean for draw in draws]
    title = f"{name}, {' + '.join(pair)}"
    ratio = f"{np.mean(ratios):.4f} ({min(ratios):.4f})"
    print(f"| {title} | {seeds} | {' | '.join(cells)} | {ratio} |", flush=True)


def _after(
    name: str, pair: tuple[str, str], every: Trials, unseen: Trials, seed: int
) -> list[Ranks]:
    """Return ranks after the split: with old and new trials, with either alone."""
    rows = np.random.default_rng(seed).permutation(len(every))
    counts = {domain: every.table[f"weight/{domain}"].sum() for domain in pair}
    old = some(every, np.sort(rows[NEW:])).reindex(merge={"merged": pair})
    carried = old.reindex(split={"merged": pair}, inventory=counts)
    new = some(every, np.sort(rows[:NEW]))
    found = []
    for table in (carried.joined(new), new, carried):
        fitted = make_regressor(name, 0).fit(table.weights(), table.losses())
        found.append(_ranks(_predicted(fitted, table, unseen), unseen, pair))
    return found


def _predicted(fitted: object, trials: Trials, unseen: Trials) -> np.ndarray:
    order = [unseen.domains.index(domain) for domain in trials.domains]
    return np.asarray(fitted.predict(unseen.weights()[:, order]))


def _ranks(predicted_NM: np.ndarray, unseen: Trials, pair: Sequence[str]) -> Ranks:
    columns = zip(predicted_NM.T, unseen.losses().T, strict=True)
    ranks = dict(zip(unseen.targets, (spearman(*both) or 0.0 for both in columns), strict=True))
    return Ranks(float(np.mean(list(ranks.values()))), min(ranks[domain] for domain in pair))


def _place(trials: Trials, domain: str) -> int:
    return trials.domains.index(domain)


if __name__ == "__main__":
    main()
