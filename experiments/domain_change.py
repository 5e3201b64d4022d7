"""Split a domain after the sweep: do old trials, carried over, and a quarter of new ones suffice?

    python experiments/domain_change.py --data ../shared/data/regmix

RegMix's 512 published runs. Two of its 17 domains count as one in 384 of them (`Trials.reindex`
merges them, then splits them again in the shares of all runs), the other 128 know them apart. Each
row is the mean Spearman over 13 losses of the 256 runs of test_1m, with the least of the two
losses that the split concerns in brackets. "full" fits 512 runs that all know the two apart, "new
only" the 128.

It is harder than a real split: the published runs drew the two in proportions of their own, where
a domain that was one was drawn in the same proportions by all trials.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.crossval import spearman
from mixopt.regressor import fit_regressor, make_regressor
from mixopt.trials import Trials

PAIRS = (
    ("github", "stackexchange"),
    ("pubmed_central", "pubmed_abstracts"),
    ("pile_cc", "hackernews"),
)
NEW = 128


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of RegMix's tables")
    parser.add_argument("--regressor", action="append", help="repeatable; log_linear if not given")
    options = parser.parse_args()
    every, unseen = (_read(options.data, name) for name in ("train_1m", "test_1m"))
    print("| regressor | split | full | carried over + new | ratio | new only | old only | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.regressor or ["log_linear"]:
        for pair in PAIRS:
            print(_row(name, pair, every, unseen))


def _row(name: str, pair: tuple[str, str], every: Trials, unseen: Trials) -> str:
    start = time.process_time()
    rows = np.random.default_rng(0).permutation(len(every))
    counts = {domain: every.table[f"weight/{domain}"].sum() for domain in pair}
    old = _some(every, rows[NEW:]).reindex(merge={"merged": pair})
    carried, new = old.reindex(split={"merged": pair}, inventory=counts), _some(every, rows[:NEW])
    tables = (every, carried.joined(new), new, carried)
    full, both, only_new, only_old = (_scores(name, table, unseen, pair) for table in tables)
    shown = [f"{mean:.4f} ({least:.3f})" for mean, least in (full, both, only_new, only_old)]
    ratio, seconds = both[0] / full[0], time.process_time() - start
    cells = [name, " + ".join(pair), *shown[:2], f"{ratio:.4f}", *shown[2:], f"{seconds:.1f}"]
    return f"| {' | '.join(cells)} |"


def _scores(
    name: str, trials: Trials, unseen: Trials, pair: tuple[str, str]
) -> tuple[float, float]:
    """Return the mean Spearman over losses, and the least over those of the pair."""
    regressor = make_regressor(name, 0)
    fitted = fit_regressor(name, regressor, trials.weights(), trials.losses())
    order = [unseen.domains.index(domain) for domain in trials.domains]
    predicted_NM = np.asarray(fitted.predict(unseen.weights()[:, order]))
    columns = zip(predicted_NM.T, unseen.losses().T, strict=True)
    ranks = dict(zip(unseen.targets, (spearman(*both) or 0.0 for both in columns), strict=True))
    return float(np.mean(list(ranks.values()))), min(ranks[domain] for domain in pair)


def _some(trials: Trials, rows: np.ndarray) -> Trials:
    kept = pl.Series(np.isin(np.arange(len(trials)), rows))
    return Trials(trials.table.filter(kept), trials.domains, trials.targets)


def _read(folder: Path, name: str) -> Trials:
    return Trials.from_csv(folder / f"{name}_mixture.csv", folder / f"{name}_loss.csv")


if __name__ == "__main__":
    main()
