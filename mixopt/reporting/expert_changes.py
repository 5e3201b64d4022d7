"""The experts of a run before and after its changes of weights: found, and told as text.

Windows between two changes are held against each other. Where an estimator changes weights so often
that there are not enough windows in between, it is the few nearest on either side, and how many
other changes fall into them is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from mixopt.errors import RoutingError
from mixopt.online import LoggedChange
from mixopt.routing import ExpertChange, Window, key_column
from mixopt.system import name_text

SHOWN = 3  # changes, the largest
ENOUGH = 3  # windows before a change, to know how they scatter
NEAREST = 4  # windows on a side, where changes are too near each other


def expert_changes(
    windows: Sequence[Window], logged: Sequence[LoggedChange], step: int | None = None
) -> tuple[ExpertChange, ...]:
    """Return the experts before and after changes of weights, in their order."""
    if step is not None:
        place = next((n for n, one in enumerate(logged) if one.step == step), None)
        if place is None:
            known = ", ".join(f"{one.step:,}" for one in _largest(logged)) or "none"
            raise RoutingError(f"--change {step}: weights did not change at this step; {known} did")
        return (_change(windows, logged, place),)
    both = [n for n in range(len(logged)) if all(_nearest(windows, logged[n].step))]
    kept = sorted(both, key=lambda n: -logged[n].distance)[:SHOWN]
    return tuple(_change(windows, logged, n) for n in sorted(kept))


def change_text(change: ExpertChange) -> str:
    """Return a change as text: how many layers differ in what, and what is another by domain."""
    return "\n".join([*_heading(change), "", *_by_layer(change), "", *_by_domain(change)])


def change_dict(change: ExpertChange) -> dict[str, Any]:
    """Return a change as plain values."""
    return {
        "step": change.step,
        "why": change.why,
        "weights_before": dict(change.weights_before),
        "weights_after": dict(change.weights_after),
        "steps_before": _steps(change.windows_before),
        "steps_after": _steps(change.windows_after),
        "other_changes_between": change.between,
        "layers": change.by_layer.to_dicts(),
        "domains": change.by_domain.to_dicts(),
    }


def _largest(logged: Sequence[LoggedChange]) -> list[LoggedChange]:
    return sorted(logged, key=lambda one: -one.distance)[:10]


def _change(windows: Sequence[Window], logged: Sequence[LoggedChange], place: int) -> ExpertChange:
    found = logged[place]
    steps = [one.step for one in logged]
    begun = steps[place - 1] if place else 1
    ended = steps[place + 1] if place + 1 < len(steps) else None
    before, after = _nearest(windows, found.step)
    alone_before = tuple(w for w in before if w.start >= begun - 1)
    alone_after = tuple(w for w in after if ended is None or w.end < ended)
    sides = (
        alone_before if len(alone_before) >= ENOUGH else before[-NEAREST:],
        alone_after or after[:NEAREST],
    )
    inside = 0
    if all(sides):
        first, last = sides[0][0].start, sides[1][-1].end
        inside = sum(first + 1 < step <= last for step in steps) - 1
    return ExpertChange(found.step, found.why, found.before, found.after, *sides, inside)


def _nearest(windows: Sequence[Window], step: int) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """Return the windows that end before a step, and those that begin with it or later."""
    return tuple(w for w in windows if w.end < step), tuple(
        w for w in windows if w.start >= step - 1
    )


def _heading(change: ExpertChange) -> list[str]:
    names = dict.fromkeys([*change.weights_before, *change.weights_after])
    moved = "  ".join(
        f"{name} {100 * change.weights_before.get(name, 0):.1f} ->"
        f" {100 * change.weights_after.get(name, 0):.1f}%"
        for name in names
        if change.weights_before.get(name, 0) != change.weights_after.get(name, 0)
    )
    sides = [
        "{:,} to {:,}".format(*_steps(side))
        for side in (change.windows_before, change.windows_after)
    ]
    lines = [
        f"change of weights at step {change.step:,} ({change.why}): {moved}",
        f"steps {sides[0]} before it, {sides[1]} after it; * is more than drift and chance give",
    ]
    if len(change.windows_before) < ENOUGH:
        lines.append(
            f"{len(change.windows_before)} windows of counts before it, {ENOUGH} are needed to tell"
            " what chance gives: experts.every sets the steps of a window"
        )
    if change.between:
        lines.append(f"{change.between} other changes of weights fall into these steps")
    return lines


def _by_layer(change: ExpertChange) -> list[str]:
    lines = [f"{'layers':16}{'before':>10}{'after':>10}{'difference':>12}  differs in"]
    table = change.by_layer.with_columns(key_column())
    for (name,), rows in table.group_by("measure", maintain_order=True):
        known = rows.drop_nulls("difference")
        if known.is_empty():
            continue
        before, after = (float(known[side].to_numpy().mean()) for side in ("before", "after"))
        marked = known.filter("differs").sort(pl.col("difference").abs(), descending=True)
        most = (
            f", most in {marked['key'][0]} ({marked['difference'][0]:+.3f})" if len(marked) else ""
        )
        lines.append(
            f"{name_text(str(name)):16}{before:>10.3f}{after:>10.3f}{after - before:>+12.3f}"
            f"  {len(marked)} of {rows.height} layers{most}"
        )
    return lines


def _by_domain(change: ExpertChange) -> list[str]:
    table = change.by_domain
    names = table["measure"].unique(maintain_order=True)
    lines = [f"{'domains':16}" + "".join(f"{name_text(name):>20}" for name in names)]
    for (domain,), rows in table.group_by("domain", maintain_order=True):
        cells = "".join(f"{_cell(row):>20}" for row in rows.iter_rows(named=True))
        lines.append(f"{str(domain)[:15]:16}{cells}")
    return lines


def _cell(row: dict[str, Any]) -> str:
    before, after = ("-" if row[n] is None else f"{row[n]:.3f}" for n in ("before", "after"))
    return f"{before} -> {after}{'*' if row['differs'] else ' '}"


def _steps(windows: Sequence[Window]) -> tuple[int, int]:
    return windows[0].start + 1, windows[-1].end
