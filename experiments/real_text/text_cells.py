"""Conditional or flat rounds on real text of 3 topics x 3 levels of quality?

    OMP_NUM_THREADS=1 python experiments/real_text/text_cells.py --data ../shared/data/corpus \
        --out runs/cells --topics literature_en man_fr code_python --trials 30 60 --seeds 8

Level `high` is text as it is; `mid` and `low` have the letters of 30% and 80% of their words
shuffled. Trials of the n-gram proxy read more than there is of good text, so that high text alone
is no answer. The objective is a weighted mean of the bits per byte of the topics' held-out text as
it is; all topics have as much text. Rounds, fits and proposals are those of ../published/cells.py.

Mixtures are judged by trials of other seeds. Regret is the excess over the best mixture that was
judged, which is trained anew for this. Results are kept in the folder, and not made twice. The data
are <topic>/train.parquet and <topic>/validation.parquet.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "published"))

from cells import CONDITIONAL, proposed, rounds_of

from mixopt.config import CorpusConfig, DomainConfig, ObjectiveConfig
from mixopt.constraints import Constraints
from mixopt.corpus import Corpus, prepare_corpus
from mixopt.mixture import Mixture
from mixopt.objective import Objective
from mixopt.sweeps import Training, make_proxy
from mixopt.system import Array
from mixopt.trials import Trial, Trials, trial_seeds

# Share of noised words, documents to train on and held-out ones.
LEVELS = {"high": (0.0, 15, 40), "mid": (0.3, 45, 8), "low": (0.8, 140, 8)}
WANTED = (0.7, 0.2, 0.1)  # of the objective, by topic
LENGTH, TOKENS = 1_000, 200_000  # characters of a document, bytes of a trial
JUDGES, AGAIN = 5, 10  # trials of a mixture, and of the best one


@dataclass(frozen=True, eq=False)
class TextWorld:
    """Real text in cells, in the place of a KnownWorld: trials are trained."""

    corpus: Corpus
    natural: Mixture
    constraints: Constraints
    objective: Objective
    domains: tuple[str, ...]

    def train(self, weights_ND: Array, seed: int, *, first: int = 0) -> Trials:
        """Train a trial of each mixture."""
        names = [f"t{first + place}" for place in range(len(weights_ND))]
        seeds = trial_seeds(names, seed=seed)
        trials = [
            Trial(name, Mixture.from_array(self.domains, weights_D), seeds[name])
            for name, weights_D in zip(names, weights_ND, strict=True)
        ]
        proxy, training = make_proxy("ngram", {}), Training(TOKENS)
        results = proxy.train(trials, self.corpus, training, lambda _: None)
        return Trials.from_results(trials, results, proxy="ngram")

    def observed(self, table: Trials) -> Array:
        """Return the objective of each trial, shape (N,)."""
        return self.objective.value(table.losses(self.objective.unit))

    def judged(self, weights: Sequence[float], seeds: int, first: int = 0) -> Array:
        """Return the objective of a mixture in trials of other seeds."""
        return self.observed(self.train(np.tile(weights, (seeds, 1)), -1, first=first))


def text_world(data: Path, folder: Path, topics: Sequence[str]) -> TextWorld:
    """Prepare the cells of some topics, once; no document is in two of them."""
    sources, files = {}, [folder / "train", folder / "validation"]
    for topic in topics:
        train, held_out = (pieces(data / topic / f"{file.name}.parquet") for file in files)
        tested = list(held_out)
        for level, (share, count, tests) in LEVELS.items():
            cell = [file / topic / f"{level}.parquet" for file in files]
            for file, texts in zip(cell, (islice(train, count), tested[:tests]), strict=True):
                file.parent.mkdir(parents=True, exist_ok=True)
                pl.DataFrame({"text": [noised(text, share) for text in texts]}).write_parquet(file)
            trained, other = map(str, cell)
            sources[f"{topic}/{level}"] = DomainConfig(path=trained, validation=other)
    if not (folder / "text" / "index.json").exists():
        prepare_corpus(CorpusConfig(domains=sources), {}, folder / "text", fingerprint=str(LEVELS))
    corpus = Corpus.open(folder / "text", verify=False)
    total = sum(corpus.inventory.values())
    natural = Mixture({name: count / total for name, count in corpus.inventory.items()})
    wanted = {f"{topic}/high": share for topic, share in zip(topics, WANTED, strict=True)}
    objective = Objective.from_config(ObjectiveConfig(mean=wanted), corpus.evaluation_names)
    return TextWorld(corpus, natural, Constraints(natural.domains), objective, natural.domains)


def pieces(file: Path) -> Iterator[str]:
    """Yield the beginning of a random part of each document, in random order."""
    table = pl.read_parquet(file).sample(fraction=1.0, shuffle=True, seed=0)
    document = pl.col("source").str.split("#").list.first()
    distinct = table.unique(document, keep="first", maintain_order=True)
    yield from distinct["text"].str.slice(0, LENGTH)


def noised(text: str, share: float) -> str:
    """Shuffle the letters of a share of the words."""
    rng, words = np.random.default_rng(len(text)), text.split(" ")
    for place in np.flatnonzero(rng.random(len(words)) < share):
        words[place] = "".join(rng.permutation(list(words[place])))
    return " ".join(words)


def judge(world: TextWorld, file: Path, trials: Sequence[int], seeds: int) -> None:
    """Add what each procedure of each seed proposes and how good it is, where it is missing."""
    done = {(row["way"], row["trials"], row["seed"]) for row in rows_of(file)}

    def keep(way: str, count: int, seed: int, weights_D: Array) -> None:
        values = world.judged(list(weights_D), JUDGES)
        row = {"way": way, "trials": count, "seed": seed, "weights": list(weights_D)}
        with file.open("a") as lines:
            lines.write(f"{json.dumps(row | {'values': list(values)})}\n")
        print(f"{way} {count} seed {seed}: {values.mean():.4f}", file=sys.stderr)

    levels = len(LEVELS)
    controls = {
        "natural": world.natural.array,
        "uniform": np.full(len(world.domains), 1 / len(world.domains)),
        "topics as wanted, high alone": np.kron(WANTED, np.eye(levels)[0]),
        "topics as wanted, levels evenly": np.repeat(WANTED, levels) / levels,
    }
    for way, weights_D in controls.items():
        if (way, 0, 0) not in done:
            keep(way, 0, 0, weights_D)
    plans = [("flat", count) for count in sorted({*trials, *(2 * count for count in trials)})]
    plans += [("conditional", count) for count in trials]
    for seed, (way, count) in product(range(seeds), plans):
        if (way, count, seed) not in done:
            table = rounds_of(world, count, CONDITIONAL if way == "conditional" else None, seed)
            best_D = table.weights()[world.observed(table).argmin()]
            keep(f"{way}, best trial", count, seed, best_D)
            keep(way, count, seed, proposed(world, table))


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Return what is in the file of results."""
    return [json.loads(line) for line in file.open()] if file.exists() else []


def print_regrets(world: TextWorld, file: Path) -> None:
    """Print the regret of each way, and paired differences."""
    rows = rows_of(file)
    best = min(rows, key=lambda row: float(np.mean(row["values"])))
    floor = float(world.judged(best["weights"], AGAIN, first=JUDGES).mean())
    regrets = defaultdict(dict)
    for row in rows:
        regrets[row["way"], row["trials"]][row["seed"]] = float(np.mean(row["values"])) - floor
    noise = np.sqrt(np.mean([np.var(row["values"], ddof=1) for row in rows]))
    print(f"best: {best['way']} {best['trials']}, {floor:.4f}, {np.round(best['weights'], 2)}")
    print(f"standard deviation of a trial over seeds: {noise:.4f}\n")
    print("| way | trials | regret | - flat | - flat, twice |\n|---|---|---|---|---|")
    for (way, count), by_seed in sorted(regrets.items(), key=lambda item: (item[0][1], item[0][0])):
        pairs = [regrets.get(("flat", factor * count), {}) for factor in (1, 2)]
        less = [[by_seed[s] - pair[s] for s in by_seed if s in pair] for pair in pairs]
        print(
            f"| {way} | {count} | {' | '.join(map(mean_text, [list(by_seed.values()), *less]))} |"
        )


def mean_text(values: Sequence[float]) -> str:
    """Return a mean with its standard error."""
    if len(values) < 2:
        return f"{values[0]:+.4f}" if values else ""
    return f"{np.mean(values):+.4f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--topics", nargs=3, required=True)
    parser.add_argument("--trials", nargs="+", type=int, required=True)
    parser.add_argument("--seeds", type=int, required=True)
    given = parser.parse_args()
    folder = given.out / "-".join(given.topics)
    folder.mkdir(parents=True, exist_ok=True)
    world, file = text_world(given.data, folder, given.topics), folder / "judged.jsonl"
    judge(world, file, given.trials, given.seeds)
    print_regrets(world, file)


if __name__ == "__main__":
    main()
