"""How ready each loss is, as a table of a terminal and of the page."""

from __future__ import annotations

from collections.abc import Sequence

from mixopt.fitting import FitReadiness, LossReadiness
from mixopt.reporting.text_table import table_text
from mixopt.system import rank_text, share_text

READINESS_TITLE = "How well the trials tell mixtures apart, by loss"
MEANING = (
    "spread: standard deviation over mixtures; noise: over seeds of one mixture",
    "ratio: the spread beyond the noise, divided by the noise; lower bound: 95%",
    "ready: the lower bound is 1 or more, and no control ranks held-out trials better",
    "weak: the ratio is 1 or more, the lower bound is not; noise: the ratio is below 1",
)
UNKNOWN = (
    "the state comes from the rank correlation on held-out folds alone",
    "Spearman, lower bound: 95%",
    "ready: the lower bound is 0.71 or more (noise below signal), and no control is better",
    "weak: the lower bound is above 0; noise: it is not",
)
BOTH = (
    "weight: in the objective; Spearman: rank correlation on held-out folds",
    "control: the best Spearman among own share, distance from uniform and nearest trial",
    "most correlated with: the training domain whose own loss correlates most",
)
BOUND, NEAR = "Spearman, lower bound", "most correlated with"
KNOWN_COLUMNS = ("noise", "ratio", "ratio, lower bound")


def readiness_text(found: FitReadiness) -> str:
    """Return the table of a fit's losses, the most ready first, and what its columns mean."""
    columns, rows = (
        readiness_columns(found),
        [readiness_row(one, found) for one in readiness_rows(found)],
    )
    lines = [found.replicates.describe(), *readiness_meaning(found)]
    if found.left_out:
        lines.append(f"left out of the objective as noise: {', '.join(found.left_out)}")
    return "\n".join([table_text(READINESS_TITLE, columns, rows), *lines])


def readiness_rows(found: FitReadiness) -> list[LossReadiness]:
    """Return the objective, then losses by falling ratio, or rank correlation without noise."""

    def readiest(one: LossReadiness) -> float:
        ratio, rank = one.of_trials.ratio, one.spearman
        return -((rank or 0.0) if ratio is None else ratio)

    return [found.objective, *sorted(found.losses, key=readiest)]


def readiness_columns(found: FitReadiness) -> tuple[str, ...]:
    """Return the columns that a fit's losses have."""
    known, bound = (KNOWN_COLUMNS, ()) if found.replicates.trials else ((), (BOUND,))
    ceiling = ("ceiling",) if _has_ceiling(found) else ()
    near = (NEAR,) if _has_domains(found) else ()
    ranks = ("Spearman", *bound, "control", *ceiling)
    return ("loss", "weight", "spread", *known, *ranks, *near, "state")


def readiness_row(one: LossReadiness, found: FitReadiness) -> Sequence[str]:
    """Return the cells of a loss."""
    of = one.of_trials
    cells = [one.name, share_text(one.weight) if one.weight else "", f"{of.spread:.4f}"]
    if of.noise is not None and of.ratio is not None and of.low is not None:
        cells += [f"{of.noise:.4f}", _ratio(of.ratio), _ratio(of.low)]
    cells.append(rank_text(one.spearman))
    if not found.replicates.trials:
        cells.append(rank_text(one.spearman_low))
    cells.append(rank_text(one.control and one.control[1]))
    if _has_ceiling(found):
        cells.append(rank_text(one.ceiling))
    if _has_domains(found):
        cells.append(f"{one.nearest[0]} {one.nearest[1]:.2f}" if one.nearest else "")
    return [*cells, one.state]


def _has_ceiling(found: FitReadiness) -> bool:
    return any(one.ceiling is not None for one in (found.objective, *found.losses))


def _has_domains(found: FitReadiness) -> bool:
    return any(one.domains for one in found.losses)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else "over 1000"


def readiness_meaning(found: FitReadiness) -> tuple[str, ...]:
    """Say what the columns mean, a line each."""
    own = MEANING if found.replicates.trials else UNKNOWN
    return (*own, *(BOTH if _has_domains(found) else BOTH[:1]))
