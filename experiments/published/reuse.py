"""Do trials of an earlier corpus save new ones?

    OMP_NUM_THREADS=1 python experiments/published/reuse.py --data ../shared/data

`pdf` is Olmix's: 64 runs on PDFs of 21 topics and the rest of the corpus, carried over from 127
runs on web text of 24 topics (three of them, without PDFs, count as the rest). The others are
RegMix's: runs on 17 domains, carried over from 64 on the 16 others, which are runs with less than
0.3% of the one named. Errors are of runs that nothing was fitted on, in deviations of their loss;
ranks are of the mean loss. Controls: new runs alone, all runs as if they were of one corpus, and
own share.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from published_data import dclm, regmix, some

from mixopt.fitting import spearman
from mixopt.mixture import DomainContent
from mixopt.system import Array
from mixopt.trials import Trials, carried_to

# Topics by other names on the web; what has no PDFs counts as the rest.
TOPICS = {
    "adult_content": "adult", "art_and_design": "art_design", "crime_and_law": "crime_law",
    "education_and_jobs": "education_jobs", "fashion_and_beauty": "fashion_beauty",
    "finance_and_business": "finance_business", "food_and_dining": "food_dining",
    "home_and_hobbies": "home_hobbies", "science_math_and_technology": "science_tech",
    "software_development": "software_dev", "sports_and_fitness": "sports_fitness",
    "travel_and_tourism": "travel",
}  # fmt: skip
REST = ("electronics_and_hardware", "history_and_geography", "social_life")
ADDED = ("pile_cc", "github", "wikipedia_en")
OLD, HELD_OUT, ABSENT = 64, 120, 0.003
WAYS = ("carried", "new alone", "as one corpus", "own share")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--every", type=int, default=8, help="task of Olmix's 110")
    parser.add_argument("--only", default="", help="pdf, or a domain of RegMix's")
    options = parser.parse_args()
    print(f"| corpus | new runs | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}", flush=True)
    for name, old, new, counts, held in _corpora(options.data, options.every, options.only):
        for count in counts:
            scores = [_scores(old, new, count, held, seed) for seed in range(options.draws)]
            cells = [f"{error:.3f}, rank {rank:.3f}" for error, rank in np.mean(scores, axis=0)]
            print(f"| {name} | {count} | {' | '.join(cells)} |", flush=True)


def _corpora(
    data: Path, every: int, only: str
) -> Iterator[tuple[str, Trials, Trials, list[int], int]]:
    if only in ("", "pdf"):
        yield "pdf", *_pdf(data / "olmix", every), [8, 16, 24, 32], 32
    runs = regmix(data / "regmix", "train_1m")
    for domain in ADDED:
        if only in ("", domain):
            yield domain, *_added(runs, domain), [8, 16, 32, 64, 96], HELD_OUT


def _pdf(folder: Path, every: int) -> tuple[Trials, Trials]:
    web, new = dclm(folder), dclm(folder, "full_reuse_update_5_seed_0")
    targets = new.targets[::every]
    became = {topic: f"s2pdfv1:{TOPICS.get(topic, topic)}" for topic in web.domains}
    became |= dict.fromkeys(REST, "existing")
    corpus = {name: DomainContent("", 0) for name in new.domains}
    old, _ = carried_to(web, corpus, became, "dclm")
    return old.with_targets(targets), new.with_targets(targets)


def _added(runs: Trials, domain: str) -> tuple[Trials, Trials]:
    share_N = runs.weights()[:, runs.domains.index(domain)]
    without = some(runs, np.flatnonzero(share_N < ABSENT)[:OLD])
    old = without.reindex(remove=[domain]).reindex(add=[domain])
    old = Trials(old.table.select(runs.table.columns), runs.domains, runs.targets)
    return old, some(runs, np.flatnonzero(share_N >= ABSENT))


def _scores(
    old: Trials, new: Trials, count: int, held: int, seed: int
) -> list[tuple[float, float]]:
    order = np.random.RandomState(seed).permutation(len(new))
    train, test = some(new, order[:count]), some(new, order[-held:])
    both = Trials(
        old.table.with_columns(trial="old-" + old.table["trial"]), old.domains, old.targets
    ).joined(train)
    fits = [
        train.fit(regressors="auto", carried=old),
        train.fit(regressors="auto"),
        both.fit(regressors="auto"),
        train.fit(regressors="own_share"),
    ]
    return [_score(fit.predict(test.weights()).losses_NM, test.losses()) for fit in fits]


def _score(predicted_NM: Array, observed_NM: Array) -> tuple[float, float]:
    spread_M = observed_NM.std(axis=0)
    rank = spearman(predicted_NM.mean(axis=1), observed_NM.mean(axis=1)) or 0.0
    return float(np.sqrt((((predicted_NM - observed_NM) / spread_M) ** 2).mean())), rank


if __name__ == "__main__":
    main()
