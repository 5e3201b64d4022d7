"""Which experts specialise in which domain, and what a skewed mixture does to that?

    python experiments/real_text/experts.py --data ../shared/data/corpus --out runs/experts
    python experiments/real_text/experts.py --out runs/experts --print \
        > experiments/real_text/results_experts.md

`moe-tiny` is trained on six domains with mixtures that are even, skewed to one domain, or starve
one of them, and with three ways of balancing the experts, with the same three seeds each. Load is
that of training; specialisation is measured on held-out text, as much of each domain, which is the
same for all. `--print` also draws the pictures beside the page. What is finished is a file and is
not trained again.

The folder holds <domain>/train.parquet and <domain>/validation.parquet with a column `text`.

Shapes: S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from mixopt_proxies.decoder import DecoderProxy
from online_tables import paired
from research_text import asked_of, prepared, say

from mixopt.corpus import Corpus
from mixopt.mixture import Mixture
from mixopt.plots import plot_distances, plot_domain_experts
from mixopt.routing import ExpertCounts, Summary
from mixopt.system import read_json, write_json
from mixopt.trials import Training, Trial, TrialResult, result_from_json, result_to_json

READING = """
- Experts of a proxy of this size and length hardly divide the domains: specialisation is about a
  hundredth of what it would be if the expert told the domain, with every mixture and every way of
  balancing, and no domain has experts of its own to speak of (`own`: the share of its assignments
  that go to experts with a lift of 1.5 or more). Bytes are shared by all domains here; what is read
  off domains by experts needs larger models or tokenizers, and this page does not show that.
- That a skewed mixture makes experts less specialised is not shown: the difference from the uniform
  mixture with the same balance is 0.001 ± 0.007, -0.001 ± 0.007 and 0.002 ± 0.006.
- A domain at 1% of the mixture loses 0.8 nats, and its experts do not show it: none is starved of
  it, and its distance to other domains stays as it was. Loss says what experts do not.
- Without balancing routers do not specialise more, they collapse: load entropy falls by a quarter,
  the busiest expert has 2.5 to 3 times its even share, some experts die, and collapse is diagnosed
  in every seed. With the uniform mixture the loss is 0.014 ± 0.013 higher for it.
- The bias evens the load best (the busiest expert is within 3% of even) at the same loss as the
  auxiliary loss.
"""

DOMAINS = ("literature_en", "docs_en", "man_fr", "code_python", "code_cpp", "formal_math")
SKEWED, SCARCE = "code_cpp", "man_fr"
SEEDS = (1, 2, 3)
TOKENS = 1_000_000
PICTURES = ("uniform", "skewed", "skewed, not balanced")


@dataclass(frozen=True)
class Case:
    """A mixture, and how experts are balanced."""

    weights: Mapping[str, float]
    balance: str = "auxiliary"


def _with(name: str, share: float) -> dict[str, float]:
    """Return a mixture that gives one domain a share, and the others alike much."""
    rest = (1 - share) / (len(DOMAINS) - 1)
    return {domain: share if domain == name else rest for domain in DOMAINS}


CASES = {
    "uniform": Case(_with(SKEWED, 1 / len(DOMAINS))),
    "skewed": Case(_with(SKEWED, 0.75)),
    "starved": Case(_with(SCARCE, 0.01)),
    "uniform, by bias": Case(_with(SKEWED, 1 / len(DOMAINS)), "bias"),
    "skewed, by bias": Case(_with(SKEWED, 0.75), "bias"),
    "uniform, not balanced": Case(_with(SKEWED, 1 / len(DOMAINS)), "none"),
    "skewed, not balanced": Case(_with(SKEWED, 0.75), "none"),
}


def main() -> None:
    """Train what is missing, or print what there is."""
    asked = asked_of(__doc__, tokens=TOKENS)
    if asked.prints:
        print_page(asked.out)
        return
    corpus = Corpus.open(prepared(asked.data, asked.out / "corpus", DOMAINS))
    for name, case in CASES.items():
        path = asked.out / f"{name.replace(', ', '-').replace(' ', '_')}.json"
        if not path.exists():
            found = train(case, corpus, asked.tokens)
            write_json(path, {"case": name, "results": [result_to_json(one) for one in found]})
            say(name)


def train(case: Case, corpus: Corpus, tokens: int) -> list[TrialResult]:
    """Train a case with all seeds, together."""
    mixture = Mixture(case.weights)
    trials = [Trial(f"seed{seed}", mixture, seed) for seed in SEEDS]
    proxy = DecoderProxy(size="moe-tiny", balance=case.balance)
    training = Training(tokens, eval_tokens=65_536, device="cpu")
    return proxy.train(trials, corpus, training, lambda progress: None)


def print_page(out: Path) -> None:
    """Print tables of all cases, and draw the pictures of some."""
    found = {}
    for path in sorted(out.glob("*.json")):
        content = read_json(path)
        found[content["case"]] = [result_from_json(one) for one in content["results"]]
    cases = {name: found[name] for name in CASES if name in found}
    print("# Who gets which domain: experts, by mixture\n")
    print(__doc__.split("\n\n")[2].replace("\n", " ") + "\n")
    print(
        "Commands: `python experiments/real_text/experts.py --data FOLDER --out runs/experts`,"
        " and the same"
    )
    print("with `--print`. Means over three seeds; ± is half of a 95% interval.\n")
    print("## Reading\n" + READING)
    _print_table("By mixture and balance", BY_CASE, cases)
    _print_table("What a change of one thing does, seed by seed", BY_CASE, _paired_cases(cases))
    for domain in (SKEWED, SCARCE):
        _print_table(f"What `{domain}` gets", _of_domain(domain), cases)
    print("## What is diagnosed\n")
    for name, results in cases.items():
        kinds = [_diagnosed(one) for one in results]
        print(f"- {name}: " + "; ".join(kinds))
    print(
        "\n## Pictures\n\nHeld-out text, seed 1; experts beside those that serve the same domain.\n"
    )
    for name in (name for name in PICTURES if name in cases):
        _draw(name, _counts(cases[name][0]))


Measure = Callable[[TrialResult], float]
Results = list[TrialResult]
Pairs = list[tuple[TrialResult, TrialResult]]


def _counts(result: TrialResult) -> ExpertCounts:
    assert result.experts is not None, "moe-tiny has experts"
    return result.experts


def _loss(result: TrialResult) -> float:
    assert result.losses is not None, "a proxy that diverged has no losses"
    return float(np.mean([result.losses.nats_per_token[name] for name in DOMAINS]))


def _layers(column: str, reduce: Callable[[Sequence[float]], float]) -> Measure:
    return lambda result: float(reduce(Summary.of(_counts(result).train).layers[column].to_list()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


BY_CASE: dict[str, Measure] = {
    "loss": _loss,
    "load entropy": _layers("load_entropy", min),
    "busiest expert": _layers("max_violation", max),
    "dead experts": _layers("dead", sum),
    "router entropy": _layers("router_entropy", _mean),
    "specialisation": lambda one: _mean([la.specialisation for la in _counts(one).information]),
}


def _of_domain(domain: str) -> dict[str, Measure]:
    def column(name: str) -> Measure:
        def measure(result: TrialResult) -> float:
            rows = Summary.of(_counts(result).held_out).by_domain()
            return float(rows.row(by_predicate=pl.col("domain") == domain, named=True)[name])

        return measure

    def loss(result: TrialResult) -> float:
        assert result.losses is not None, "a proxy that diverged has no losses"
        return result.losses.nats_per_token[domain]

    shown = ("own", "starved", "router_entropy", "distance")
    return {"loss": loss} | {name.replace("_", " "): column(name) for name in shown}


def _print_table(
    title: str, measures: Mapping[str, Measure], cases: Mapping[str, Results | Pairs]
) -> None:
    print(f"## {title}\n")
    print("| mixture | " + " | ".join(measures) + " |")
    print("|---|" + "---|" * len(measures))
    for name, results in cases.items():
        cells = [_cell([_value(measure, one) for one in results]) for measure in measures.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def _paired_cases(cases: Mapping[str, Results]) -> dict[str, Pairs]:
    """Return each case with what it differs from in one thing: the mixture, or the balance."""
    pairs = {}
    for name, results in cases.items():
        mixture, _, balance = name.partition(", ")
        for other in (f"uniform, {balance}" if balance else "uniform", mixture):
            if other != name and other in cases:
                pairs[f"{name}, less {other}"] = list(zip(results, cases[other], strict=True))
    return pairs


def _value(measure: Measure, one: TrialResult | tuple[TrialResult, TrialResult]) -> float:
    return measure(one[0]) - measure(one[1]) if isinstance(one, tuple) else measure(one)


def _cell(values_S: Sequence[float]) -> str:
    _, middle, high = paired(values_S)
    return f"{middle:.3f} ± {high - middle:.3f}"


def _diagnosed(result: TrialResult) -> str:
    found = Summary.of(_counts(result).train).diagnoses
    return ", ".join(f"{one.kind} in layer {one.layer}" for one in found) or "nothing"


def _draw(name: str, counts: ExpertCounts) -> None:
    folder = Path(__file__).parent
    stem = f"experts_{name.replace(', ', '_').replace(' ', '_')}"
    for kind, plot in (("experts", plot_domain_experts), ("distances", plot_distances)):
        if kind == "experts" or name == "uniform":
            file = f"{stem}_{kind}.png"
            plot(counts.held_out).savefig(folder / file, dpi=110)
            print(f"{name}:\n\n![{name}, {kind}]({file})\n")


if __name__ == "__main__":
    main()
