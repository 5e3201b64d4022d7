"""Do cheap microanneals rank sources as careful ones do? Anneal a checkpoint on real text and see.

    python experiments/real_text/anneals.py --data ../shared/data/corpus --out runs/anneals
    python experiments/real_text/anneals.py --out runs/anneals --print \
        > experiments/real_text/results_anneals.md

A decoder of 0.1M weights is trained on the natural mixture of eight domains (half of their
documents), at a constant learning rate. From that checkpoint on, eight sources are annealed at half
of the tokens: three domains that the base has not, and the other half of five that it has. Targets
are the held-out text of three domains: C++, which is a source; manual pages, of which more is a
source; and JavaScript, of which only the base has text. All runs have `design.method: anneals`.

`short` runs are of 0.1M tokens, `long` ones of four times that, with seeds of their own. The
reference is three seeds of long ones; the ceiling is its agreement with the other three. A single
anneal is one seed of a short one. Controls need no training: how alike the unigrams of a source and
of a target's held-out text are, and whether the source is the target's own domain.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from research_text import asked_of, say

from mixopt.corpus import Corpus
from mixopt.fitting import spearman
from mixopt.pipeline import run as run_steps
from mixopt.pretraining import pretrain
from mixopt.run_directory import Run, load_run
from mixopt.system import Array

BASE = (
    "literature_en", "dictionary_en", "legal_en", "docs_en", "man_en", "code_python", "code_js",
    "formal_math",
)  # fmt: skip
NEW = ("code_c", "code_cpp", "man_fr")
MORE = ("literature_en", "docs_en", "man_en", "code_python", "formal_math")
SOURCES = (*NEW, *(f"more_{name}" for name in MORE))
TARGETS = ("code_cpp", "man_en", "code_js")
OWN = {"code_cpp": "code_cpp", "man_en": "more_man_en"}  # sources of a target's own domain
MEAN = "mean"
MODEL = {"layers": 2, "width": 64, "heads": 2, "ff": 172}
LENGTH, BATCH, RATE = 128, 8, 4e-3
BASE_STEPS = 2_000
SHORT, LONG = 100_000, 400_000
SHORT_SEEDS, LONG_SEEDS, HALF = 3, 6, 3


def main() -> None:
    """Train the missing runs, or print the tables."""
    options = asked_of(__doc__ or "")
    if options.prints:
        print_tables(options.out)
        return
    texts = halves(options.data, options.out / "text")
    base = base_model(options.data, texts, options.out / "base")
    for name, tokens, seeds, seed in plans():
        config = experiment(options.data, texts, base, tokens, seeds, seed)
        path = options.out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        run_steps(path, options.out / name, until="sweep", say=say)


def plans() -> Sequence[tuple[str, int, int, int]]:
    """Return the runs: name, tokens of a trial, seeds, and the run's own seed."""
    return ("short", SHORT, SHORT_SEEDS, 1), ("long", LONG, LONG_SEEDS, 2)


def halves(data: Path, folder: Path) -> Path:
    """Split the documents of the base's domains into those of the base and further ones, once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in BASE:
        if (folder / f"more_{name}.parquet").exists():
            continue
        table = pl.read_parquet(data / name / "train.parquet")
        document = table["source"].str.split("#").list.first()
        odd = (document != document.shift(1)).fill_null(True).cum_sum() % 2 == 1
        table.filter(odd).write_parquet(folder / f"{name}.parquet")
        table.filter(~odd).write_parquet(folder / f"more_{name}.parquet")
    return folder


def base_model(data: Path, texts: Path, out: Path) -> Path:
    """Train the checkpoint that all anneals begin with, once; return its run directory."""
    path, text = out.with_suffix(".yaml"), out.with_name("base_text.yaml")
    text.write_text(yaml.safe_dump({"corpus": _corpus(data, texts, BASE)}))
    config = {
        "name": "anneals_base",
        "corpus": str(text),
        "model": {"name": "decoder", "options": MODEL},
        "training": {
            "steps": BASE_STEPS,
            "batch": BATCH,
            "sequence_length": LENGTH,
            "lr": RATE,
            "schedule": "constant",
        },
        "mixture": {"anchor": "natural"},
        "held_out": {"every": BASE_STEPS, "tokens": 16_384},
        "checkpoint": {"every": BASE_STEPS},
        "tracking": {"enabled": False},
    }
    path.write_text(yaml.safe_dump(config))
    if not pretrain(path, out, say=say).is_finished:
        raise SystemExit("stopped while the base was trained; the same command resumes")
    return out


def experiment(
    data: Path, texts: Path, base: Path, tokens: int, seeds: int, seed: int
) -> dict[str, Any]:
    """Return the configuration of a run of anneals."""
    return {
        "name": "anneals",
        "seed": seed,
        "corpus": _corpus(data, texts, (*BASE, *SOURCES)),
        "proxy": {
            "name": "continued",
            "from": str(base.absolute()),
            "tokens": tokens,
            "eval_every": 0,
            "eval_tokens": 16_384,
            "options": {"lr": RATE, "batch": BATCH, "sequence_length": LENGTH},
        },
        "design": {"method": "anneals", "anneals": {"sources": list(SOURCES), "seeds": seeds}},
        "sweep": {"workers": 1},
        "objective": {"mean": dict.fromkeys(TARGETS, 1)},
        "tracking": {"enabled": False},
    }


def _corpus(data: Path, texts: Path, names: Sequence[str]) -> dict[str, Any]:
    domains = {}
    for name in names:
        original = name.removeprefix("more_")
        halved = original in BASE
        domains[name] = _source(texts / f"{name}.parquet" if halved else None, data, original)
    return {"tokenizer": "bytes", "max_bytes": 4_000_000, "domains": domains}


def _source(half: Path | None, data: Path, name: str) -> dict[str, str]:
    files = data / name / "train.parquet" if half is None else half
    held_out = data / name / "validation.parquet"
    return {"path": "parquet", "data_files": str(files), "validation": str(held_out)}


def print_tables(out: Path) -> None:
    """Print the report."""
    runs = {name: load_run(out / name, trust=True) for name, *_ in plans()}
    short, long = (changes(runs[name]) for name in ("short", "long"))
    reference, other = (_mean(long[place : place + HALF]) for place in (0, HALF))
    print("# Microanneals on real text: how short and how few may they be?\n")
    print(f"{_about(runs)}\n\n## Agreement with three seeds of long anneals (Spearman)\n")
    columns = (*TARGETS, MEAN)
    print(f"| ranking | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    singles = [_agreement([effects], reference) for effects in short]
    rows: dict[str, Mapping[str, float]] = {
        "one seed, short (mean of 3)": _average(singles),
        "one seed, short (lowest of 3)": {c: min(row[c] for row in singles) for c in columns},
        "three seeds, short": _agreement(short, reference),
        "one seed, long (mean of 3 others)": _average(
            [_agreement([effects], reference) for effects in long[HALF:]]
        ),
        "ceiling: three other seeds, long": _agreement([other], reference),
        "control: unigrams alike": _against(unigram_scores(runs["short"]), reference),
        "control: the target's own domain first": _against(own_scores(), reference),
    }
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(_cell(row.get(column)) for column in columns)} |")
    print(f"\n{_noise(short, long)}\n\n## What the sources do, three seeds of long anneals\n")
    _print_effects(runs["long"], reference)


def changes(run: Run) -> list[dict[str, dict[str, float]]]:
    """Return source - control for each seed, in bits per byte, by target."""
    done, plan = run.trials.finished, run.config.design.anneals
    assert plan is not None
    losses_NM = done.losses(run.objective.unit)
    columns = {name: losses_NM[:, done.targets.index(name)] for name in TARGETS}
    columns[MEAN] = run.objective.value(losses_NM)
    row = {name: place for place, name in enumerate(done.table["trial"])}
    return [
        {
            name: {
                s: float(column_N[row[f"anneal_{s}-s{k}"]] - column_N[row[f"control-s{k}"]])
                for s in SOURCES
            }
            for name, column_N in columns.items()
        }
        for k in range(plan.seeds)
    ]


def _mean(seeds: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        target: {s: float(np.mean([effects[target][s] for effects in seeds])) for s in SOURCES}
        for target in seeds[0]
    }


def _agreement(
    seeds: Sequence[dict[str, dict[str, float]]], reference: dict[str, dict[str, float]]
) -> dict[str, float]:
    return _against(_mean(seeds), reference)


def _against(
    scores: Mapping[str, Mapping[str, float]], reference: Mapping[str, Mapping[str, float]]
) -> dict[str, float]:
    """Return Spearman's correlation by target; a target without scores is left out."""
    ranks = {}
    for target, row in scores.items():
        pair = [np.array([by_source[s] for s in SOURCES]) for by_source in (row, reference[target])]
        rank = spearman(*pair)
        if rank is not None:
            ranks[target] = rank
    return ranks


def _average(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def unigram_scores(run: Run) -> dict[str, dict[str, float]]:
    """Return the distance of each source's unigrams from each target's held-out text."""
    corpus = run.corpus
    share = {s: _unigrams(corpus, s, held_out=False) for s in SOURCES}
    goal = {t: _unigrams(corpus, t, held_out=True) for t in TARGETS}
    distances = {t: {s: _divergence(goal[t], share[s]) for s in SOURCES} for t in TARGETS}
    distances[MEAN] = {s: float(np.mean([distances[t][s] for t in TARGETS])) for s in SOURCES}
    return distances


def own_scores() -> dict[str, dict[str, float]]:
    """Return -1 for the source of a target's own domain, and 0 for others."""
    scores = {t: {s: -1.0 if s == own else 0.0 for s in SOURCES} for t, own in OWN.items()}
    owned = set(OWN.values())
    return {**scores, MEAN: {s: -1.0 if s in owned else 0.0 for s in SOURCES}}


def _unigrams(corpus: Corpus, name: str, *, held_out: bool) -> Array:
    """Return the shares of bytes, shape (V,), each at least a little."""
    domain = next(one for one in corpus.domains if one.name == name)
    shards = domain.validation if held_out else domain.train
    assert shards is not None
    tokens = shards.rows(np.zeros(1, np.int64), min(shards.tokens, 1_000_000))[0]
    counts_V = np.bincount(tokens, minlength=corpus.vocab_size) + 0.5
    shares_V: Array = counts_V / counts_V.sum()
    return shares_V


def _divergence(goal_V: Array, source_V: Array) -> float:
    """Return the cross-entropy of the target's bytes under the source's, less their entropy."""
    return float(np.sum(goal_V * (np.log(goal_V) - np.log(source_V))))


def _about(runs: Mapping[str, Run]) -> str:
    length = {name: run.config.proxy.tokens for name, run in runs.items()}
    seconds = sum(float(run.trials.table["seconds"].fill_null(0).sum()) for run in runs.values())
    parameters = runs["short"].trials.table["parameters"].max()
    return (
        "Made by `python experiments/real_text/anneals.py --data ../shared/data/corpus --out"
        " runs/anneals`, then the same with `--print`. Real text; a decoder of"
        f" {parameters:,} weights, trained on {BASE_STEPS * BATCH * LENGTH:,} tokens of eight"
        f" domains; {len(SOURCES)} sources at half of the tokens; short anneals of"
        f" {length['short']:,} tokens, long ones of {length['long']:,}, at a rate that falls to 0."
        f" {seconds / 60:.0f} minutes of training in all, on cores that others used too."
    )


def _noise(
    short: Sequence[dict[str, dict[str, float]]], long: Sequence[dict[str, dict[str, float]]]
) -> str:
    parts = []
    for name, seeds in (("short", short), ("long", long)):
        values_SK = np.array([[one[MEAN][s] for s in SOURCES] for one in seeds])
        spread = float(values_SK.mean(axis=0).std(ddof=1))
        noise = float(np.sqrt(values_SK.var(axis=0, ddof=1).mean()))
        parts.append(f"{name}: sources differ by {spread:.4f}, one pair's noise is {noise:.4f}")
    return (
        "Standard deviations of the change of the mean of targets, in bits per byte: over sources,"
        f" and over seeds of one source ({'; '.join(parts)})."
    )


def _print_effects(run: Run, reference: Mapping[str, Mapping[str, float]]) -> None:
    is_own = pl.col("target") == pl.col("source")
    elsewhere = run.anneals.filter(~pl.col("target").is_in(TARGETS) & ~is_own)
    columns = (MEAN, *TARGETS)
    print(f"| source | {' | '.join(columns)} | largest loss elsewhere |\n|---|{'---|' * 5}")
    for source in sorted(SOURCES, key=lambda name: reference[MEAN][name]):
        worst = elsewhere.filter(source=source).sort("difference").row(0, named=True)
        loss = -worst["difference"]
        lost = f"{worst['target']} {loss:+.3f}" if loss > 0 else "none"
        cells = [f"{reference[column][source]:+.4f}" for column in columns]
        print(f"| {source} | {' | '.join(cells)} | {lost} |")
    pairs = list(combinations(columns[1:], 2))
    apart = [
        spearman(*(np.array([reference[t][s] for s in SOURCES]) for t in pair)) for pair in pairs
    ]
    agree = ", ".join(f"{a} and {b} {_cell(r)}" for (a, b), r in zip(pairs, apart, strict=True))
    print(f"\nRankings of different targets agree by: {agree} (Spearman).")


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
