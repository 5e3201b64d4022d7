"""From what size on do the experts of a small model divide the domains?

    python experiments/real_text/expert_sizes.py --data ../shared/data/corpus --out runs/sizes
    python experiments/real_text/expert_sizes.py --out runs/sizes --print \
        > experiments/real_text/results_expert_sizes.md

Models that differ in one thing or two are trained on the uniform mixture of four distant domains
(or of the six of experts.py) with three seeds, together. Specialisation is that of held-out text
less what sequences with shuffled labels have. A router that has learned nothing gives each token
experts by chance, the same ones each time, and so tells domains by their words; hence the control:
the same models with the weights that they begin with. What is finished is a file and is not trained
again.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.

Shapes: S seeds, L layers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from experts import DOMAINS as SIX
from mixopt_proxies.decoder import DecoderProxy
from online_tables import paired
from research_text import asked_of, prepared, say

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.routing import ExpertCounts, Summary
from mixopt.system import read_json, write_json
from mixopt.trials import Training, Trial, TrialResult, result_from_json, result_to_json

READING = """
- Words are what was missing, not size. The smallest model whose experts divide the domains has
  0.39M weights (`moe-tiny`: 2 layers, 8 experts, 2 of them a token), a BPE of 1,024 words, four
  distant domains and 100,000 tokens: specialisation is 0.078 and 0.190 by layer, 0.012 untrained,
  0.001 of which chance; 38% of a domain's assignments go to experts of its own (2% untrained).
- With 512 words it is about half, and one seed of three hardly has it.
- With bytes it is not shown, though the domains are the same: 0.018, and 0.014 untrained.
- An untrained router tells domains by their words, ten times as much as chance: compare with it,
  not with 0.
- Of six domains it is 0.052 and 0.113 by layer. The other models of the script are not trained.
"""

FOUR = ("literature_en", "man_fr", "code_python", "formal_math")
SEEDS = (1, 2, 3)
HELD_OUT = 32_768
UNTRAINED = 1e-12  # a learning rate that moves no weight: one step is needed for a result


@dataclass(frozen=True)
class Model:
    """A decoder, its vocabulary, and how long it is trained.

    Attributes:
        tokenizer: As in a configuration.
        tokens: Of training.
        options: Of the decoder, beside those of `moe-tiny`.
        domains: Of the mixture, uniform.
    """

    tokenizer: str
    tokens: int = 100_000
    options: Mapping[str, Any] = field(default_factory=dict)
    domains: tuple[str, ...] = FOUR

    def proxy(self, **more: Any) -> DecoderProxy:
        """Return the proxy."""
        return DecoderProxy(**{"size": "moe-tiny", "batch": 8} | dict(self.options) | more)


FINE = {"experts": 32, "top_k": 4, "expert_ff": 48}
WIDE = {"width": 128, "heads": 4}
MODELS = {
    "1,024 words": Model("bpe:1024"),
    "512 words": Model("bpe:512"),
    "bytes": Model("bytes"),
    "1,024 words, six domains": Model("bpe:1024", domains=SIX),
    "1,024 words, 300k tokens": Model("bpe:1024", 300_000),
    "1,024 words, 32 experts": Model("bpe:1024", options=FINE),
    "4,096 words, 300k tokens": Model("bpe:4096", 300_000),
    "bytes, 300k tokens": Model("bytes", 300_000),
    "bytes, six domains": Model("bytes", domains=SIX),
    "1,024 words, 32 experts, width 128, 300k tokens": Model("bpe:1024", 300_000, FINE | WIDE),
}


def main() -> None:
    """Train what is missing, or print what there is."""
    asked = asked_of(__doc__)
    if asked.prints:
        print_page(asked.out)
        return
    for name, model in MODELS.items():
        folder = asked.out / "corpora" / f"{model.tokenizer.replace(':', '_')}-{len(model.domains)}"
        corpus = Corpus.open(prepared(asked.data, folder, model.domains, model.tokenizer))
        for trained in (False, True):
            path = asked.out / f"{_stem(name, trained)}.json"
            if not path.exists():
                write_json(path, train(model, corpus, trained=trained))
                say(path.stem)


def train(model: Model, corpus: Corpus, *, trained: bool) -> dict[str, Any]:
    """Train a model with all seeds, together, or leave it as it begins."""
    mixture = Mixture(dict.fromkeys(model.domains, 1 / len(model.domains)))
    trials = [Trial(f"seed{seed}", mixture, seed) for seed in SEEDS]
    proxy = model.proxy() if trained else model.proxy(lr=UNTRAINED)
    tokens = model.tokens if trained else proxy.size.step_tokens
    started = time.process_time()
    results = proxy.train(
        trials, corpus, Training(tokens, eval_tokens=HELD_OUT, device="cpu"), lambda progress: None
    )
    cpu = (time.process_time() - started) / len(SEEDS)
    return {"cpu": cpu, "results": [result_to_json(one) for one in results]}


def _stem(name: str, trained: bool) -> str:
    plain = name.replace(", ", "-").replace(",", "").replace(" ", "_")
    return plain if trained else f"{plain}-untrained"


def print_page(out: Path) -> None:
    """Print what the experts of each model tell about the domains."""
    print("# From what size on experts divide domains\n")
    print(__doc__.split("\n\n")[2].replace("\n", " ") + "\n")
    print(
        "Commands: `python experiments/real_text/expert_sizes.py --data FOLDER --out runs/sizes`,"
        " and the same"
    )
    print("with `--print`. Means over three seeds; ± is half of a 95% interval.\n")
    print("## Reading\n" + READING)
    print("## Models\n")
    print(HEAD)
    for name in MODELS:
        paths = [out / f"{_stem(name, trained)}.json" for trained in (False, True)]
        if all(path.exists() for path in paths):
            print(_row(name, *(_results(path) for path in paths)))


HEAD = """\
| model | weights | tokens | specialisation, untrained | trained, by layer | trained - untrained \
| chance | own, untrained | own | busiest expert |
|---|---|---|---|---|---|---|---|---|---|"""


def _row(name: str, untrained: list[TrialResult], trained: list[TrialResult]) -> str:
    """Return a line of the table."""
    before_SL, after_SL = _specialisation(untrained), _specialisation(trained)
    chance = np.mean([[la.chance for la in _counts(one).information] for one in trained])
    own_S, first_S = ([_own(one) for one in some] for some in (trained, untrained))
    busiest_S = [
        float(Summary.of(_counts(one).train).layers["max_violation"].to_numpy().max())
        for one in trained
    ]
    cells = [
        f"{trained[0].parameters / 1e6:.2f}M",
        f"{trained[0].tokens / 1e6:.2f}M",
        f"{before_SL.mean():.3f}",
        ", ".join(f"{value:.3f}" for value in after_SL.mean(0)),
        _cell((after_SL - before_SL).mean(1)),
        f"{chance:.4f}",
        _cell(first_S),
        _cell(own_S),
        _cell(busiest_S),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def _specialisation(results: Sequence[TrialResult]) -> np.ndarray:
    """Return it by seed and layer, shape (S, L)."""
    return np.array([[la.specialisation for la in _counts(one).information] for one in results])


def _own(result: TrialResult) -> float:
    """Return the share of a domain's assignments to experts of its own, mean of all."""
    own = Summary.of(_counts(result).held_out).by_domain()["own"].to_numpy()
    return float(own.mean())


def _counts(result: TrialResult) -> ExpertCounts:
    assert result.experts is not None, "moe-tiny has experts"
    return result.experts


def _cell(values_S: Sequence[float] | np.ndarray) -> str:
    _, middle, high = paired(values_S)
    return f"{middle:.3f} ± {high - middle:.3f}"


def _results(path: Path) -> list[TrialResult]:
    return [result_from_json(one) for one in read_json(path)["results"]]


if __name__ == "__main__":
    main()
