"""Is `moe-tiny` a better proxy than `tiny`: at equal tokens, at equal products, as a ranking?

    python experiments/real_text/moe_proxies.py --data ../shared/data/corpus --out runs/moe_proxies
    python experiments/real_text/moe_proxies.py --out runs/moe_proxies --print \
        > experiments/real_text/results_moe_proxies.md

Both are trained on the bytes of six domains with twelve mixtures, the uniform one and eleven drawn
from a flat Dirichlet distribution, with three seeds each; so is a dense decoder about eight times
as large on twice the tokens, with two seeds, whose ranking of the mixtures is what a proxy is for.
Products are those of `DecoderSize.step_flops`, which counts weights that a token meets. The uniform
mixture is trained besides by `moe-tiny` on as many products as `tiny`, by `tiny` on the tokens for
which it takes as much CPU time as `moe-tiny`, and by a dense decoder with all the weights of
`moe-tiny`. Trainings of one model and seed go four together; what is finished is a file and is not
trained again.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.

Shapes: N mixtures, S seeds, M losses: of each domain, and their mean last.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from experts import DOMAINS
from mixopt_proxies.decoder import DecoderProxy
from online_tables import paired
from research_text import prepared, say

from mixopt.corpus import Corpus
from mixopt.fitting import spearman
from mixopt.mixture import Mixture
from mixopt.system import Array, IntArray, read_json, write_json
from mixopt.trials import Losses, Training, Trial

READING = ""

TOKENS = 131_072
SEEDS = (1, 2, 3)
TOGETHER = 4
DRAWS = 2000
VOCABULARY = 257


@dataclass(frozen=True)
class Model:
    """A proxy, and what it is trained on.

    Attributes:
        options: Of the decoder.
        factor: Tokens, of `TOKENS`.
        seeds: How many.
        sweep: Whether all mixtures are trained, or the uniform one alone.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0
    seeds: int = 3
    sweep: bool = True

    def proxy(self) -> DecoderProxy:
        """Return the proxy."""
        return DecoderProxy(**self.options)


TINY = DecoderProxy(size="tiny").size
MOE = DecoderProxy(size="moe-tiny").size
PRODUCTS = TINY.step_flops(VOCABULARY) / MOE.step_flops(VOCABULARY)
LARGE = {"size": "tiny", "layers": 4, "width": 128, "heads": 4, "ff": 384, "lr": 2e-3}
MODELS = {
    "tiny": Model({"size": "tiny"}),
    "moe-tiny": Model({"size": "moe-tiny"}),
    "large": Model(LARGE, factor=2.0, seeds=2),
    "moe-tiny, equal products": Model({"size": "moe-tiny"}, factor=PRODUCTS, sweep=False),
    "tiny, 2 x tokens": Model({"size": "tiny"}, factor=2.0, sweep=False),
    "tiny, 4 x tokens": Model({"size": "tiny"}, factor=4.0, sweep=False),
    "tiny, all weights of moe-tiny": Model({"size": "tiny", "ff": 8 * 96}, sweep=False),
}


def mixtures() -> list[Mixture]:
    """Return the twelve mixtures; the uniform one is first."""
    drawn = np.random.default_rng(7).dirichlet(np.ones(len(DOMAINS)), 11)
    rows_ND = [np.full(len(DOMAINS), 1 / len(DOMAINS)), *drawn]
    return [Mixture(dict(zip(DOMAINS, row.tolist(), strict=True))) for row in rows_ND]


def main() -> None:
    """Train what is missing, or print what there is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--print", action="store_true", dest="prints")
    asked = parser.parse_args()
    if asked.prints:
        print_page(asked.out)
        return
    if asked.data is None:
        parser.error("--data: the folder of the text")
    corpus = Corpus.open(prepared(asked.data, asked.out / "corpus", DOMAINS))
    for name, model in MODELS.items():
        train(name, model, corpus, asked.out)


def train(name: str, model: Model, corpus: Corpus, out: Path) -> None:
    """Train a model on what has no file yet, mixtures of one seed together."""
    chosen = mixtures() if model.sweep else mixtures()[:1]
    proxy, tokens = model.proxy(), round(TOKENS * model.factor)
    training = Training(tokens, eval_tokens=32_768, device="cpu")
    for seed, first in product(SEEDS[: model.seeds], range(0, len(chosen), TOGETHER)):
        path = _path(out, name, seed, first)
        if path.exists():
            continue
        trials = [
            Trial(f"mixture{first + i}", mixture, seed)
            for i, mixture in enumerate(chosen[first : first + TOGETHER])
        ]
        started = time.process_time()
        results = proxy.train(trials, corpus, training, lambda progress: None)
        cpu = (time.process_time() - started) / len(trials)
        losses = [[_loss(result.losses, domain) for domain in DOMAINS] for result in results]
        about = {"parameters": results[0].parameters, "tokens": results[0].tokens, "cpu": cpu}
        write_json(path, {"model": name, "seed": seed, "first": first, "losses": losses} | about)
        say(f"{path.stem}: {cpu:.1f} s of CPU a trial")


def _loss(losses: Losses | None, domain: str) -> float:
    assert losses is not None, "a proxy that diverged has no losses"
    return losses.nats_per_token[domain]


def print_page(out: Path) -> None:
    """Print what there is."""
    runs = {name: _read(name, model, out) for name, model in MODELS.items()}
    found = {name: run for name, run in runs.items() if run is not None}
    print("# `moe-tiny` against `tiny`, as proxies\n")
    print(__doc__.split("\n\n")[2].replace("\n", " ") + "\n")
    print(
        "Commands: `python experiments/real_text/moe_proxies.py --data FOLDER --out"
        " runs/moe_proxies`, and the same"
    )
    print("with `--print`. ± is half of a 95% interval over seeds.\n")
    print("## Reading\n" + READING)
    _print_losses(found)
    _print_ranking(found)


@dataclass(frozen=True, eq=False)
class Run:
    """What a model came to.

    Attributes:
        losses_SNM: Held-out losses.
        parameters: All weights.
        tokens: Of a training.
        cpu: Seconds of a training, mean.
    """

    losses_SNM: Array
    parameters: int
    tokens: int
    cpu: float


def _read(name: str, model: Model, out: Path) -> Run | None:
    """Return the trainings of a model; None where some are missing."""
    count = len(mixtures()) if model.sweep else 1
    parts = [
        [_path(out, name, seed, first) for first in range(0, count, TOGETHER)]
        for seed in SEEDS[: model.seeds]
    ]
    if not all(path.exists() for paths in parts for path in paths):
        return None
    read = [[read_json(path) for path in paths] for paths in parts]
    losses_SND = np.array([[row for one in some for row in one["losses"]] for some in read])
    losses_SNM = np.concatenate([losses_SND, losses_SND.mean(2, keepdims=True)], 2)
    last = read[-1][-1]  # what was compiled for the first group is no part of it
    return Run(losses_SNM, last["parameters"], last["tokens"], last["cpu"])


def _print_losses(found: Mapping[str, Run]) -> None:
    print("## Held-out loss of the uniform mixture, nats per byte\n")
    print("| model | weights | products a token | tokens | products | CPU s | loss | - `tiny` |")
    print("|---|---|---|---|---|---|---|---|")
    base_S = found["tiny"].losses_SNM[:, 0, -1]
    for name, run in found.items():
        size = MODELS[name].proxy().size
        each = size.step_flops(VOCABULARY) / size.step_tokens
        loss_S = run.losses_SNM[:, 0, -1]
        less = _cell(loss_S - base_S[: len(loss_S)]) if name != "tiny" else ""
        print(
            f"| {name} | {run.parameters / 1e6:.2f}M | {each / 1e6:.2f}M | {run.tokens:,} |"
            f" {each * run.tokens / 1e9:.0f}G | {run.cpu:.1f} | {_cell(loss_S)} | {less} |"
        )
    moe, tiny = found.get("moe-tiny"), found["tiny"]
    if moe is not None:
        less_SN = moe.losses_SNM[..., -1] - tiny.losses_SNM[..., -1]
        print(
            f"\nOver all {less_SN.shape[1]} mixtures, `moe-tiny` - `tiny` at equal tokens:"
            f" {_cell(less_SN.mean(1))}.\n"
        )


def _print_ranking(found: Mapping[str, Run]) -> None:
    """Print how models agree about the mixtures, one training of each with another."""
    swept = {name: run for name, run in found.items() if MODELS[name].sweep}
    print("## Do they rank mixtures alike?\n")
    print(
        "Spearman over the twelve mixtures between single trainings of other seeds: one model with"
        " itself is\nthe noise ceiling. The interval is a bootstrap over mixtures (95%). `level` is"
        " the correlation of losses\ndivided by the geometric mean of what each has with itself: 1"
        " where only seeds differ.\n"
    )
    print("| models | mean of domains | single domains | level, mean of domains |")
    print("|---|---|---|---|")
    names = list(swept)
    for i, one in enumerate(names):
        for other in names[i:]:
            print(_ranks(one, other, swept[one].losses_SNM, swept[other].losses_SNM))


def _ranks(one: str, other: str, first_SNM: Array, second_SNM: Array) -> str:
    pairs = [
        (first_NM, second_NM)
        for (i, first_NM), (j, second_NM) in product(enumerate(first_SNM), enumerate(second_SNM))
        if i != j
    ]
    cells = []
    for columns in ((-1,), range(len(DOMAINS))):
        low, middle, high = _interval(pairs, columns)
        cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
    level = "" if one == other else f"{_level(first_SNM[..., -1], second_SNM[..., -1]):.3f}"
    name = f"{one}, with itself" if one == other else f"{one}, {other}"
    return f"| {name} | " + " | ".join(cells) + f" | {level} |"


def _interval(
    pairs: Sequence[tuple[Array, Array]], columns: Sequence[int]
) -> tuple[float, float, float]:
    """Return the mean correlation of ranks over pairs and columns between its bounds."""
    rng = np.random.default_rng(0)
    count = len(pairs[0][0])

    def agreement(chosen_N: IntArray) -> float:
        return float(
            np.mean(
                [
                    spearman(one_NM[chosen_N, m], other_NM[chosen_N, m]) or 0.0
                    for one_NM, other_NM in pairs
                    for m in columns
                ]
            )
        )

    draws = [agreement(rng.integers(count, size=count)) for _ in range(DRAWS // len(columns))]
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), agreement(np.arange(count)), float(high)


def _level(first_SN: Array, second_SN: Array) -> float:
    """Return the correlation of two models' losses with the noise of seeds taken off."""
    within = [_between_seeds(some_SN) for some_SN in (first_SN, second_SN)]
    across = np.mean(
        [
            np.corrcoef(one_N, other_N)[0, 1]
            for (i, one_N), (j, other_N) in product(enumerate(first_SN), enumerate(second_SN))
            if i != j
        ]
    )
    return float(across / np.sqrt(within[0] * within[1]))


def _between_seeds(losses_SN: Array) -> float:
    count = len(losses_SN)
    return float((np.corrcoef(losses_SN).sum() - count) / (count * (count - 1)))


def _cell(values_S: Array) -> str:
    _, middle, high = paired(values_S)
    return f"{middle:.4f} ± {high - middle:.4f}"


def _path(out: Path, name: str, seed: int, first: int) -> Path:
    return out / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}-{first}.json"


if __name__ == "__main__":
    main()
