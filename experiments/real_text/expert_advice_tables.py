"""Print what expert_advice.py trained: what rules gain, and what diagnoses are worth.

Shapes: C mixtures, R mixtures and seeds, D domains, K trainings: a mixture's own, and one for
each domain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from expert_advice_runs import (
    CHANGES,
    MIXTURES,
    STEP,
    UNBALANCED,
    base_path,
    changed_path,
    domain_losses,
    expert_counts,
    read_results,
    run_path,
)
from expert_sizes import FOUR, SEEDS
from online_tables import paired
from proposed_changes import proposed_change

from mixopt.routing import Summary
from mixopt.system import Array, IntArray, read_json
from mixopt.trials import TrialResult


def print_tables(out: Path) -> None:
    """Print all tables."""
    moves = Moves.read(out)
    print(f"## Raising one domain by {100 * STEP:.0f}% of the tokens\n")
    print(
        f"{len(moves.gain_RD)} trainings of {len(moves.names)} mixtures, each with {len(FOUR)}"
        " changes; intervals are over mixtures.\n"
    )
    _print_rules(moves)
    _print_signals(moves)
    _print_moves(moves)
    _print_diagnosed(out)
    _print_changes(out)


@dataclass(frozen=True, eq=False)
class Moves:
    """What was trained from each mixture and seed, and what its own training showed.

    Attributes:
        names: Of the mixtures.
        mixture_R: Which mixture it is.
        shares_CD: Of the mixtures.
        gain_RD: By how much the mean held-out loss falls where a domain is raised.
        shown: By signal, what is said to ask for more of a domain where it is high, shape (R, D).
    """

    names: tuple[str, ...]
    mixture_R: IntArray
    shares_CD: Array
    gain_RD: Array
    shown: Mapping[str, Array]

    @classmethod
    def read(cls, out: Path) -> Moves:
        """Read what is finished."""
        found = [
            (name, seed, read_results(path))
            for name, seed in product(MIXTURES, SEEDS)
            if (path := run_path(out, name, seed)).exists()
        ]
        names = tuple(dict.fromkeys(name for name, *_ in found))
        mixture_R = np.array([names.index(name) for name, *_ in found])
        shares_CD = np.array([MIXTURES[name] for name in names])
        loss_RK = np.array([[_mean(one) for one in results] for *_, results in found])
        shown = {
            name: np.array([measure(results[0]) for *_, results in found])
            for name, measure in SIGNALS.items()
        }
        even = {seed: results[0] for name, seed, results in found if name == "uniform"}
        shown[ABOVE] = np.array(
            [domain_losses(some[0]) - domain_losses(even[seed]) for _, seed, some in found]
        )
        shown[SMALL] = -shares_CD[mixture_R]
        return cls(names, mixture_R, shares_CD, loss_RK[:, :1] - loss_RK[:, 1:], shown)

    def by_mixture(self, values: Array) -> Array:
        """Return the means over the seeds of each mixture; rows become mixtures."""
        return np.array([values[self.mixture_R == c].mean(0) for c in range(len(self.names))])


def _by_domain(column: str, sign: float) -> Callable[[TrialResult], Array]:
    return lambda result: (
        sign
        * Summary.of(expert_counts(result).held_out).by_domain()[column].to_numpy().astype(float)
    )


FEW, UNSURE = "few tokens to experts of its own", "uncertain router"
ABOVE, SMALL = "loss above that of uniform", "small share"
# Each is high where experts are said to want more of a domain.
SIGNALS: dict[str, Callable[[TrialResult], Array]] = {
    FEW: _by_domain("own", -1),
    "many starved experts": _by_domain("starved", 1),
    UNSURE: _by_domain("router_entropy", 1),
    "near other domains": _by_domain("distance", -1),
    "uneven experts": _by_domain("max_violation", 1),
}


def _print_rules(moves: Moves) -> None:
    print("| raise the domain with | gain | - any domain | - smallest share |")
    print("|---|---|---|---|")
    gains = {name: _followed(moves.gain_RD, shown) for name, shown in moves.shown.items()}
    gains["(any: mean of all)"] = moves.gain_RD.mean(1)
    gains["(best in hindsight)"] = moves.gain_RD.max(1)
    any_R, small_R = gains["(any: mean of all)"], gains[SMALL]
    for name, gain_R in gains.items():
        less = (gain_R, gain_R - any_R, gain_R - small_R)
        print(f"| {name} | " + " | ".join(_cell(moves.by_mixture(one)) for one in less) + " |")
    print()


def _followed(gain_RD: Array, shown_RD: Array) -> Array:
    """Return the gain of the domain that shows most, the mean of those that show as much."""
    most_RD = shown_RD >= shown_RD.max(1, keepdims=True) - 1e-12
    return np.asarray((gain_RD * most_RD).sum(1) / most_RD.sum(1))


def _print_signals(moves: Moves) -> None:
    print("## What goes with the gain of a domain\n")
    print(
        "Correlation over the domains of a mixture, means over seeds, each mixture's own mean taken"
        " off: of what\nis shown with what raising gains; and the same where what a domain's share"
        " and its logarithm tell is taken\noff both. In brackets, bounds of 95% from drawing"
        " mixtures anew.\n"
    )
    print("| shown | correlation with the gain | beyond the share |")
    print("|---|---|---|")
    gain_CD = moves.by_mixture(moves.gain_RD)
    for name, shown_RD in moves.shown.items():
        shown_CD = moves.by_mixture(shown_RD)
        plain = _drawn(shown_CD, gain_CD, moves.shares_CD, beyond=False)
        beyond = _drawn(shown_CD, gain_CD, moves.shares_CD, beyond=True) if name != SMALL else ""
        print(f"| {name} | {plain} | {beyond} |")
    print()


def _drawn(shown_CD: Array, gain_CD: Array, shares_CD: Array, *, beyond: bool) -> str:
    rng = np.random.default_rng(0)

    def correlation(chosen_C: IntArray) -> float:
        one_CD, two_CD, share_CD = (some[chosen_C] for some in (shown_CD, gain_CD, shares_CD))
        centred = [_centred(some) for some in (one_CD, two_CD, share_CD, np.log(share_CD))]
        known = np.stack(centred[2:], 1) if beyond else np.zeros((centred[0].size, 1))
        first, second = (one - known @ np.linalg.lstsq(known, one)[0] for one in centred[:2])
        size = float(np.sqrt((first @ first) * (second @ second)))
        return float(first @ second) / size if size > 1e-12 else 0.0

    count = len(shown_CD)
    low, high = np.quantile(
        [correlation(rng.integers(count, size=count)) for _ in range(1000)], [0.025, 0.975]
    )
    return f"{correlation(np.arange(count)):.2f} ({low:.2f} to {high:.2f})"


def _centred(some_CD: Array) -> Array:
    return np.asarray((some_CD - some_CD.mean(1, keepdims=True)).ravel())


def _print_moves(moves: Moves) -> None:
    print("## What was gained, and what was shown\n")
    print("| mixture | seeds | domain | share | gain | own | router entropy | loss above uniform |")
    print("|---|---|---|---|---|---|---|---|")
    shown = (-moves.shown[FEW], moves.shown[UNSURE], moves.shown[ABOVE])
    for (c, name), (d, domain) in product(enumerate(moves.names), enumerate(FOUR)):
        of_R = moves.mixture_R == c
        gain, *others = (some[of_R, d].mean() for some in (moves.gain_RD, *shown))
        cells = " | ".join(f"{value:.3f}" for value in others)
        share = f"{100 * moves.shares_CD[c, d]:.0f}%"
        print(f"| {name} | {of_R.sum()} | {domain} | {share} | {gain:+.4f} | {cells} |")
    print()


def _print_diagnosed(out: Path) -> None:
    print("## What is diagnosed\n")
    for name in MIXTURES:
        paths = [run_path(out, name, seed) for seed in SEEDS]
        told = [_told(read_results(path)[0]) for path in paths if path.exists()]
        if told:
            print(f"- {name}: " + "; ".join(told))
    for name in UNBALANCED:
        told = [_told(base) for base in read_results(base_path(out, name))]
        print(f"- {name}, not balanced: " + "; ".join(told))
    print()


def _told(result: TrialResult) -> str:
    train = expert_counts(result).train
    changes = [(one.kind, proposed_change(one, train)) for one in Summary.of(train).diagnoses]
    told = (f"{kind} ({change or 'no change of the mixture'})" for kind, change in changes)
    return ", ".join(told) or "nothing"


def _print_changes(out: Path) -> None:
    print("## Following a diagnosis, routers not balanced\n")
    print("One line is one training: differences from the unchanged mixture of the same seed.\n")
    print("| mixture | seed | change | loss | busiest expert | loss - uniform, balanced |")
    print("|---|---|---|---|---|---|")
    for name, (i, seed) in product(UNBALANCED, enumerate(SEEDS)):
        path = changed_path(out, name, seed)
        if not path.exists():
            continue
        base = read_results(base_path(out, name))[i]
        even = read_results(run_path(out, "uniform", seed))[0]
        for kind, changed in zip(CHANGES, read_results(path), strict=True):
            told = f"{kind}: {read_json(path)['change']}" if kind == CHANGES[0] else kind
            numbers = (
                _mean(changed) - _mean(base),
                _busiest(changed) - _busiest(base),
                _mean(changed) - _mean(even),
            )
            cells = " | ".join(f"{value:+.4f}" for value in numbers)
            print(f"| {name} | {seed} | {told} | {cells} |")


def _mean(result: TrialResult) -> float:
    return float(domain_losses(result).mean())


def _busiest(result: TrialResult) -> float:
    return float(Summary.of(expert_counts(result).train).layers["max_violation"].to_numpy().max())


def _cell(values_S: Sequence[float] | Array) -> str:
    _, middle, high = paired(values_S)
    return f"{middle:.4f} ± {high - middle:.4f}"
