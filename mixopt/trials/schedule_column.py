"""Select the finished runs of a published table by its column `schedule`, if it has one.

A loss that was taken before the end of a schedule is of a learning rate that has not come down, and
is not the loss of a run of so few tokens. The column has the share of its own schedule that each
row has run. Rows below 1 are left out. Those that stay are runs of their own, also where they have
one mixture and one number of parameters, and are told apart by their seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mixopt.errors import TrialsError
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import listed
from mixopt.trials.key_join import SCHEDULE


def finished_rows(
    left: CellTable, right: CellTable, key: str
) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows of finished runs, and a line about those that were left out.

    Args:
        left: Mixtures.
        right: Losses, in the same order.
        key: The column that names the rows.

    Raises:
        TrialsError: A share that is not above 0 and at most 1, or no finished run.
    """
    given = next((one for one in (left, right) if SCHEDULE in one.header), None)
    if given is None:
        return left, right, []
    names = given.column(key)
    share_N = given.numbers([SCHEDULE], names)[:, 0]
    for row in np.flatnonzero(~((share_N > 0) & (share_N <= 1)))[:1]:
        raise TrialsError(
            f"{given.path}: row {names[row]}: {SCHEDULE}: is {share_N[row]:g}; need the share of"
            " its schedule that the row has run, above 0 and at most 1"
        )
    kept = np.flatnonzero(share_N == 1).tolist()
    if not kept:
        raise TrialsError(
            f"{given.path}: {SCHEDULE}: no row is at 1, the end of its schedule; give the last row"
            " of each run"
        )
    gone = [name for name, share in zip(names, share_N, strict=True) if share < 1]
    said = f"{given.path}: left out {len(gone)} of {len(names)} rows before the end of their"
    notes = [f"{said} {SCHEDULE}: {listed(gone)}"] if gone else []
    return left.take(kept), right.take(kept), notes


def run_seeds(mixtures: Sequence[str], parameters: Sequence[int | None]) -> list[int]:
    """Number the runs of each mixture and number of parameters, from 0."""
    seen: Counter[tuple[str, int | None]] = Counter()
    seeds = []
    for run in zip(mixtures, parameters, strict=True):
        seeds.append(seen[run])
        seen[run] += 1
    return seeds
