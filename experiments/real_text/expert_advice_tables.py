"""Print what expert_advice.py trained: what rules gain, and what diagnoses are worth.

Shapes: C mixtures, S seeds, D domains, K trainings: a mixture's own, and one for each domain.
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

from mixopt.routing import Summary
from mixopt.system import Array, IntArray
from mixopt.trials import TrialResult


def print_tables(out: Path) -> None:
    """Print all tables."""
    moves = Moves.read(out)
    print(f"## Raising one domain by {100 * STEP:.0f}% of the tokens\n")
    print(
        f"{len(moves.names)} mixtures x {len(SEEDS)} seeds x {len(FOUR)} domains; intervals are"
        " over mixtures.\n"
    )
    _print_rules(moves)
    _print_signals(moves)
    _print_moves(moves)
    _print_diagnosed(out)
    _print_changes(out)


@dataclass(frozen=True, eq=False)
class Moves:
    """What was trained from each mixture, and what its own training showed.

    Attributes:
        names: Of the mixtures.
        shares_CD: Of the mixtures.
        gain_CSD: By how much the mean held-out loss falls where a domain is raised.
        shown: By signal, what says that a domain wants more where it is high, shape (C, S, D).
    """

    names: tuple[str, ...]
    shares_CD: Array
    gain_CSD: Array
    shown: Mapping[str, Array]

    @classmethod
    def read(cls, out: Path) -> Moves:
        """Read the mixtures that are finished."""
        names = tuple(
            name for name in MIXTURES if all(run_path(out, name, seed).exists() for seed in SEEDS)
        )
        found = [[read_results(run_path(out, name, seed)) for seed in SEEDS] for name in names]
        loss_CSK = np.array(
            [[[domain_losses(one).mean() for one in some] for some in seeds] for seeds in found]
        )
        base = [[some[0] for some in seeds] for seeds in found]
        even_SD = np.array(
            [domain_losses(read_results(run_path(out, "uniform", seed))[0]) for seed in SEEDS]
        )
        shares_CD = np.array([MIXTURES[name] for name in names])
        shown = {
            name: np.array([[measure(one) for one in seeds] for seeds in base])
            for name, measure in SIGNALS.items()
        }
        loss_CSD = np.array([[domain_losses(one) for one in seeds] for seeds in base])
        shown["loss above that of uniform"] = loss_CSD - even_SD
        shown["small share"] = np.broadcast_to(-shares_CD[:, None], loss_CSD.shape)
        return cls(names, shares_CD, loss_CSK[..., :1] - loss_CSK[..., 1:], shown)


def _by_domain(column: str, sign: float) -> Callable[[TrialResult], Array]:
    return lambda result: (
        sign
        * Summary.of(expert_counts(result).held_out).by_domain()[column].to_numpy().astype(float)
    )


# Each is high where experts are said to want more of a domain.
SIGNALS: dict[str, Callable[[TrialResult], Array]] = {
    "few tokens to experts of its own": _by_domain("own", -1),
    "many starved experts": _by_domain("starved", 1),
    "uncertain router": _by_domain("router_entropy", 1),
    "near other domains": _by_domain("distance", -1),
    "uneven experts": _by_domain("max_violation", 1),
}


def _print_rules(moves: Moves) -> None:
    print("| raise the domain with | gain | - any domain | - smallest share |")
    print("|---|---|---|---|")
    gains = {name: _followed(moves.gain_CSD, shown) for name, shown in moves.shown.items()}
    gains["(any: mean of all)"] = moves.gain_CSD.mean(2)
    gains["(best by the other seeds)"] = _followed(moves.gain_CSD, _of_others(moves.gain_CSD))
    any_CS, small_CS = gains["(any: mean of all)"], gains["small share"]
    for name, gain_CS in gains.items():
        cells = [_cell(one.mean(1)) for one in (gain_CS, gain_CS - any_CS, gain_CS - small_CS)]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def _followed(gain_CSD: Array, shown_CSD: Array) -> Array:
    """Return the gain of the domain that shows most, the mean of those that show as much."""
    most_CSD = shown_CSD >= shown_CSD.max(2, keepdims=True) - 1e-12
    return np.asarray((gain_CSD * most_CSD).sum(2) / most_CSD.sum(2))


def _of_others(gain_CSD: Array) -> Array:
    seeds = gain_CSD.shape[1]
    return np.asarray((gain_CSD.sum(1, keepdims=True) - gain_CSD) / (seeds - 1))


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
    gain_CD = moves.gain_CSD.mean(1)
    for name, shown_CSD in moves.shown.items():
        shown_CD = shown_CSD.mean(1)
        cells = [_drawn(shown_CD, gain_CD, moves.shares_CD, beyond=False)]
        if name != "small share":
            cells.append(_drawn(shown_CD, gain_CD, moves.shares_CD, beyond=True))
        print(f"| {name} | " + " | ".join([*cells, ""][:2]) + " |")
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
    print("| mixture | domain | share | gain | own | router entropy | loss above uniform |")
    print("|---|---|---|---|---|---|---|")
    own_CSD = -moves.shown["few tokens to experts of its own"]
    entropy_CSD, above_CSD = (
        moves.shown[name] for name in ("uncertain router", "loss above that of uniform")
    )
    for c, name in enumerate(moves.names):
        for d, domain in enumerate(FOUR):
            cells = [_cell(some[c, :, d]) for some in (moves.gain_CSD, own_CSD, entropy_CSD)]
            above = _cell(above_CSD[c, :, d])
            share = f"{100 * moves.shares_CD[c, d]:.0f}%"
            print(f"| {name} | {domain} | {share} | " + " | ".join(cells) + f" | {above} |")
    print()


def _print_diagnosed(out: Path) -> None:
    print("## What is diagnosed\n")
    for name in MIXTURES:
        paths = [run_path(out, name, seed) for seed in SEEDS]
        if all(path.exists() for path in paths):
            print(f"- {name}: " + "; ".join(_told(read_results(path)[0]) for path in paths))
    for name in UNBALANCED:
        told = (_told(base) for base in read_results(base_path(out, name)))
        print(f"- {name}, not balanced: " + "; ".join(told))
    print()


def _told(result: TrialResult) -> str:
    found = Summary.of(expert_counts(result).train).diagnoses
    return (
        ", ".join(f"{one.kind} ({one.change or 'no change of the mixture'})" for one in found)
        or "nothing"
    )


def _print_changes(out: Path) -> None:
    print("## Following a diagnosis, routers not balanced\n")
    print("| mixture | change | seeds | loss - unchanged | busiest - unchanged | loss - uniform |")
    print("|---|---|---|---|---|---|")
    for name, (i, kind) in product(UNBALANCED, enumerate(CHANGES)):
        found = [
            (read_results(path)[i], base, read_results(run_path(out, "uniform", seed))[0])
            for seed, base in zip(SEEDS, read_results(base_path(out, name)), strict=True)
            if (path := changed_path(out, name, seed)).exists()
        ]
        if len(found) > 1:
            loss_S = [_mean(changed) - _mean(base) for changed, base, _ in found]
            busy_S = [_busiest(changed) - _busiest(base) for changed, base, _ in found]
            even_S = [_mean(changed) - _mean(even) for changed, _, even in found]
            cells = " | ".join(_cell(one) for one in (loss_S, busy_S, even_S))
            print(f"| {name} | {kind} | {len(found)} | {cells} |")


def _mean(result: TrialResult) -> float:
    return float(domain_losses(result).mean())


def _busiest(result: TrialResult) -> float:
    return float(Summary.of(expert_counts(result).train).layers["max_violation"].to_numpy().max())


def _cell(values_S: Sequence[float] | Array) -> str:
    _, middle, high = paired(values_S)
    return f"{middle:.4f} ± {high - middle:.4f}"
