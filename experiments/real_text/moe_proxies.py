"""Is `moe-tiny` a better proxy than `tiny`: at equal tokens, at equal products, as a ranking?

    python experiments/real_text/moe_proxies.py --data ../shared/data/corpus --out runs/moe_proxies
    python experiments/real_text/moe_proxies.py --out runs/moe_proxies --print \
        > experiments/real_text/results_moe_proxies.md

Both are trained on the bytes of six domains: on the uniform mixture with four seeds, and on twelve
mixtures, the uniform one and eleven drawn from a flat Dirichlet distribution, with two; so is a
dense decoder about eight times as large, whose ranking of the mixtures is what a proxy is for.
Products are those of `DecoderSize.step_flops`, which counts the weights that a token meets. The
uniform mixture is trained besides by `moe-tiny` with as many products as `tiny`, and by `tiny` on
twice the tokens. Trainings go four together; what is finished is a file and is not trained again.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.

Shapes: N mixtures, S seeds, M losses: of each domain, and their mean last.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from experts import DOMAINS
from mixopt_proxies.decoder import DecoderProxy
from online_tables import paired
from research_text import asked_of, prepared, say

from mixopt.corpus import Corpus
from mixopt.fitting import spearman
from mixopt.mixture import Mixture
from mixopt.system import Array, IntArray, read_json, write_json
from mixopt.trials import Losses, Training, Trial

READING = """
- At equal tokens `moe-tiny` is neither better nor worse than `tiny`: +0.009 ± 0.058 nats per byte
  on the uniform mixture (four seeds, 131,072 tokens), -0.011 ± 0.012 over twelve mixtures. At equal
  products, 0.4% fewer tokens, -0.016 ± 0.035. Twice the tokens gain 0.224 ± 0.038.
- They rank twelve mixtures alike, up to noise: single domains 0.91 between them, where each agrees
  with itself by 0.90; the mean of the domains 0.55, where each agrees with itself by 0.59 to 0.64.
- So at this length nothing speaks for `moe-tiny` as a proxy of a dense model, and it costs more.
- The ranking of `large` is in the script and not trained: which of the two is nearer to a larger
  model is not known.
"""

TOKENS = 131_072
SEEDS = (1, 2, 3, 4)
SWEPT = (1, 2)
TOGETHER = 4
DRAWS = 2000
VOCABULARY = 257


@dataclass(frozen=True)
class Model:
    """A proxy, and what it is trained on.

    Attributes:
        options: Of the decoder.
        factor: Tokens, of `TOKENS`.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    factor: float = 1.0

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
    "large": Model(LARGE),
    "moe-tiny, equal products": Model({"size": "moe-tiny"}, factor=PRODUCTS),
    "tiny, 2 x tokens": Model({"size": "tiny"}, factor=2.0),
}
SWEEPS = (("tiny", "moe-tiny"), ("large",))


def mixtures() -> list[Mixture]:
    """Return the twelve mixtures; the uniform one is first."""
    drawn = np.random.default_rng(7).dirichlet(np.ones(len(DOMAINS)), 11)
    rows_ND = [np.full(len(DOMAINS), 1 / len(DOMAINS)), *drawn]
    return [Mixture(dict(zip(DOMAINS, row.tolist(), strict=True))) for row in rows_ND]


def main() -> None:
    """Train what is missing, or print what there is."""
    asked = asked_of(__doc__)
    if asked.prints:
        print_page(asked.out)
        return
    corpus = Corpus.open(prepared(asked.data, asked.out / "corpus", DOMAINS))
    proxies = {name: model.proxy() for name, model in MODELS.items()}
    for name, trials in planned():
        path = _path(asked.out, name, trials[0])
        if not path.exists():
            train(name, proxies[name], trials, corpus, path)


def planned() -> Iterator[tuple[str, list[Trial]]]:
    """Yield what is trained together, by model."""
    even, *_ = chosen = mixtures()
    for name in (name for name in MODELS if name != "large"):
        yield name, [Trial(f"uniform{seed}", even, seed) for seed in SEEDS]
    for models, seed in product(SWEEPS, SWEPT):
        for name, first in product(models, range(0, len(chosen), TOGETHER)):
            some = enumerate(chosen[first : first + TOGETHER], first)
            yield name, [Trial(f"mixture{i}", mixture, seed) for i, mixture in some]


def train(
    name: str, proxy: DecoderProxy, trials: Sequence[Trial], corpus: Corpus, path: Path
) -> None:
    """Train some trials together and keep their losses."""
    training = Training(round(TOKENS * MODELS[name].factor), eval_tokens=32_768, device="cpu")
    started = time.process_time()
    results = proxy.train(trials, corpus, training, lambda progress: None)
    cpu = (time.process_time() - started) / len(trials)
    losses = [[_loss(result.losses, domain) for domain in DOMAINS] for result in results]
    about = {"parameters": results[0].parameters, "tokens": results[0].tokens, "cpu": cpu}
    write_json(path, {"model": name, "losses": losses} | about)
    say(f"{path.stem}: {cpu:.1f} s of CPU a trial")


def print_page(out: Path) -> None:
    """Print what there is."""
    print("# `moe-tiny` against `tiny`, as proxies\n")
    print(__doc__.split("\n\n")[2].replace("\n", " ") + "\n")
    print(
        "Commands: `python experiments/real_text/moe_proxies.py --data FOLDER --out"
        " runs/moe_proxies`, and the same"
    )
    print("with `--print`. ± is half of a 95% interval over seeds.\n")
    print("## Reading\n" + READING)
    files: dict[str, dict[str, Any]] = {}
    for name, trials in planned():
        path = _path(out, name, trials[0])
        if path.exists():
            files[path.stem] = read_json(path)
    _print_losses(files)
    _print_ranking(files)


def _print_losses(files: Mapping[str, dict[str, Any]]) -> None:
    print("## Held-out loss of the uniform mixture, nats per byte\n")
    print("| model | weights | products a token | tokens | products | loss | - `tiny` |")
    print("|---|---|---|---|---|---|---|")
    base_S = _means(files[f"tiny-uniform{SEEDS[0]}"])
    for name, model in MODELS.items():
        file = files.get(f"{_stem(name)}-uniform{SEEDS[0]}")
        if file is None:
            continue
        size, loss_S = model.proxy().size, _means(file)
        each = size.step_flops(VOCABULARY) / size.step_tokens
        less = _cell(loss_S - base_S) if name != "tiny" else ""
        print(
            f"| {name} | {file['parameters'] / 1e6:.2f}M | {each / 1e6:.2f}M |"
            f" {file['tokens']:,} | {each * file['tokens'] / 1e9:.0f}G | {_cell(loss_S)} | {less} |"
        )
    print()


def _print_ranking(files: Mapping[str, dict[str, Any]]) -> None:
    """Print how models agree about the mixtures, one training of each with another."""
    swept = {
        name: losses for group in SWEEPS for name in group if (losses := _swept(name, files)).size
    }
    if not swept.keys() >= set(SWEEPS[0]):
        print("The twelve mixtures are not trained yet: no ranking.")
        return
    tiny_SN, moe_SN = (swept[name][..., -1] for name in SWEEPS[0])
    print(
        f"`moe-tiny` - `tiny` over {tiny_SN.shape[1]} mixtures and {len(tiny_SN)} seeds, equal"
        f" tokens: {_cell((moe_SN - tiny_SN).mean(0))} (interval over mixtures).\n"
    )
    print(
        "CPU seconds of a trial, four together, after the first group of a model (which compiles):"
    )
    for name in swept:
        last = f"{_stem(name)}-mixture{len(mixtures()) - TOGETHER}-{SWEPT[0]}"
        print(f"`{name}` {files[last]['cpu']:.1f};", end=" ")
    print("beside other work, so no more than a hint.\n")
    print("## Do they rank mixtures alike?\n")
    print(
        "Spearman over the twelve mixtures between single trainings of other seeds: one model with"
        " itself is\nthe noise ceiling. In brackets, bounds of 95% from drawing mixtures anew."
        " `level` is the correlation of\nlosses divided by the geometric mean of what each model"
        " has with itself: 1 where only seeds differ.\n"
    )
    print("| models | mean of domains | single domains | level, mean of domains |")
    print("|---|---|---|---|")
    names = list(swept)
    for i, one in enumerate(names):
        for other in names[i:]:
            if one != other or len(swept[one]) > 1:
                print(_ranks(one, other, swept[one], swept[other]))


def _swept(name: str, files: Mapping[str, dict[str, Any]]) -> Array:
    """Return the losses of the seeds that have all mixtures, shape (S, N, M)."""
    found = []
    for seed in SWEPT:
        stems = [
            f"{_stem(name)}-mixture{first}-{seed}" for first in range(0, len(mixtures()), TOGETHER)
        ]
        if all(stem in files for stem in stems):
            found.append([row for stem in stems for row in files[stem]["losses"]])
    losses_SND = np.array(found)
    if not found:
        return losses_SND
    return np.concatenate([losses_SND, losses_SND.mean(2, keepdims=True)], 2)


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
    noisy = min(len(first_SNM), len(second_SNM)) < 2
    level = (
        "" if one == other or noisy else f"{_level(first_SNM[..., -1], second_SNM[..., -1]):.3f}"
    )
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


def _means(file: Mapping[str, Any]) -> Array:
    return np.array(file["losses"]).mean(1)


def _stem(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_")


def _path(out: Path, name: str, first: Trial) -> Path:
    kind = first.name if first.name.startswith("uniform") else f"{first.name}-{first.seed}"
    return out / f"{_stem(name)}-{kind}.json"


def _loss(losses: Losses | None, domain: str) -> float:
    assert losses is not None, "a proxy that diverged has no losses"
    return losses.nats_per_token[domain]


if __name__ == "__main__":
    main()
