"""Read tables of mixtures and losses that others published, as CSV or Parquet.

Two layouts are known. RegMix: `index` and `train_the_pile_arxiv` ... on one side, `index` and
`metric/the_pile_arxiv_val_loss` (or `valid_the_pile_arxiv`) ... on the other. Olmix:
`run,name,index` (or `run_id,name`) and a column a domain in `ratios.csv`, the same and a column
a metric in `metrics.csv`, both behind a column of row numbers without a name. What all columns of
a table share around the names (`train_`, `metric/`, `_val_loss`, and `the_pile_` on both sides)
is taken off, so that a domain has one name in both tables.

Columns `parameters` and `tokens` of either table are the size that a trial was trained at, and
`schedule` says which rows are finished runs (mixopt.trials.cells).

Rows are joined by their key (mixopt.trials.cells). Weights that were rounded, so that a row
misses 1 by no more than a tolerance, are rescaled. The notes of the result report this, and what
was left out because that was asked for.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.errors import MixtureError, TrialsError
from mixopt.mixture import Mixture
from mixopt.system import Array, BoolArray
from mixopt.trials.cells import (
    SCHEDULE,
    SIZE,
    CellTable,
    data_columns,
    finished_rows,
    join_tables,
    run_seeds,
)
from mixopt.trials.columns import (
    LOSS,
    MAX_SIZE,
    WEIGHT,
    TrialRows,
    Unit,
    check_once,
    listed,
    loss_column,
    schema,
)

MIXTURE_PREFIXES = ("train_", WEIGHT)
LOSS_PREFIXES = ("metric/", "valid_", LOSS)
LOSS_SUFFIXES = ("_val_loss", "_loss")
SHARED_PREFIXES = ("the_pile_",)


def read_csv_trials(
    mixtures: Path,
    losses: Path,
    *,
    tolerance: float = 0.01,
    key: str | None = None,
    unit: Unit = "nats_per_token",
    ignore: Sequence[str] = (),
    drop_incomplete: bool = False,
) -> TrialRows:
    """Read and join two files by their key."""
    tables = _without_ignored(CellTable.read(mixtures), CellTable.read(losses), ignore)
    key, left, right, notes = join_tables(*tables, key, drop_incomplete=drop_incomplete)
    if drop_incomplete:
        left, right, dropped = _complete(left, right, key)
        notes += dropped
    scheduled = any(SCHEDULE in one.header for one in (left, right))
    left, right, unfinished = finished_rows(left, right, key)
    notes += unfinished
    columns = data_columns(left, key)
    loss_columns = sorted(data_columns(right, key), key=lambda name: name.startswith(TASK))
    domains, targets = _names(left, columns, right, loss_columns)
    keys = left.column(key)
    weights_ND, losses_NM = left.numbers(columns, keys), right.numbers(loss_columns, keys)
    points = [
        _mixture(left, name, domains, weights_D, tolerance)
        for name, weights_D in zip(keys, weights_ND, strict=True)
    ]
    notes += _rescaled(left, weights_ND)
    notes += _constant(left, domains, weights_ND, "weight", "the fit says nothing of others")
    notes += _constant(right, targets, losses_NM, "loss", "no mixture is better on it")
    sizes = {**_size(right, keys), **_size(left, keys)}
    if scheduled:
        counts = sizes.get("parameters", [None] * len(keys))
        sizes["seed"] = run_seeds([one.fingerprint for one in points], counts)
    table = _table(keys, points, losses_NM, targets, unit, sizes)
    return TrialRows(table, domains, targets, tuple(notes))


def without_affixes(
    names: Sequence[str], prefixes: Sequence[str], suffixes: Sequence[str]
) -> list[str]:
    """Take off each prefix and suffix that all names have and that is not a whole name."""
    names = list(names)
    for prefix in prefixes:
        if all(name.startswith(prefix) and name != prefix for name in names):
            names = [name.removeprefix(prefix) for name in names]
    for suffix in suffixes:
        if all(name.endswith(suffix) and name != suffix for name in names):
            names = [name.removesuffix(suffix) for name in names]
    return names


def _without_ignored(
    left: CellTable, right: CellTable, ignore: Sequence[str]
) -> tuple[CellTable, CellTable]:
    for name in ignore:
        if name not in left.header:
            right.require(name, "--ignore")
    return left.without(ignore), right.without(ignore)


def _complete(
    left: CellTable, right: CellTable, key: str
) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows without a gap, and a line about what was left out."""
    columns = data_columns(right, key)
    empty = [n for n, gaps_N in zip(columns, right.gaps(columns).T, strict=True) if gaps_N.all()]
    notes = [f"{right.path}: left out {listed(empty)}, empty in every row"] if empty else []
    right = right.without(empty)
    gap_N = np.full(len(left.rows), len(empty) == len(columns))
    for table in (left, right) if not gap_N.all() else ():
        own_N = np.asarray(table.gaps(data_columns(table, key)).any(axis=1))
        notes += _gaps_said(table, key, own_N)
        gap_N |= own_N
    if gap_N.all():
        raise TrialsError(f"{left.path} and {right.path}: no row is complete")
    kept = np.flatnonzero(~gap_N).tolist()
    return left.take(kept), right.take(kept), notes


def _gaps_said(table: CellTable, key: str, gap_N: BoolArray) -> list[str]:
    names = [name for name, gap in zip(table.column(key), gap_N, strict=True) if gap]
    count = f"{len(names)} of {len(gap_N)} rows"
    said = f"{table.path}: left out {count} that lack a number: {listed(names)}"
    return [said] if names else []


def _names(
    left: CellTable, columns: Sequence[str], right: CellTable, loss_columns: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the domains and of the evaluation domains."""
    domains = without_affixes(columns, MIXTURE_PREFIXES, ())
    targets = without_affixes(loss_columns, LOSS_PREFIXES, LOSS_SUFFIXES)
    both = without_affixes([*domains, *targets], SHARED_PREFIXES, ())
    domains, targets = both[: len(domains)], both[len(domains) :]
    check_once(domains, f"{left.path}: columns")
    check_once(targets, f"{right.path}: columns")
    return tuple(domains), tuple(targets)


def _mixture(
    table: CellTable, key: str, domains: Sequence[str], weights_D: Array, tolerance: float
) -> Mixture:
    try:
        return Mixture.from_array(domains, weights_D, tolerance=tolerance)
    except MixtureError as error:
        said = str(error).replace("pass tolerance=", "allow it: mixopt import --tolerance ")
        raise TrialsError(f"{table.path}: row {key}: {said}") from error


def _size(table: CellTable, keys: Sequence[str]) -> dict[str, list[int]]:
    """Return the parameters and the tokens of each trial, where the table has them."""
    names = [name for name in SIZE if name in table.header]
    sizes_NS = np.rint(table.numbers(names, keys)).reshape(len(keys), len(names))
    for row, column in np.argwhere(~((sizes_NS >= 0) & (sizes_NS <= MAX_SIZE)))[:1]:
        raise TrialsError(
            f"{table.path}: row {keys[row]}: {names[column]}: is {sizes_NS[row, column]:g}; need a"
            f" number from 0 to {MAX_SIZE}"
        )
    columns = sizes_NS.T
    return {name: column.astype(int).tolist() for name, column in zip(names, columns, strict=True)}


def _rescaled(table: CellTable, weights_ND: Array) -> list[str]:
    sums_N = weights_ND.sum(axis=1)
    off = int((np.abs(sums_N - 1) > 1e-9).sum())
    if not off:
        return []
    spread = f"{sums_N.min():.4g} to {sums_N.max():.4g}"
    return [f"{table.path}: {off} of {len(sums_N)} rows were rescaled to add up to 1 ({spread})"]


def _constant(
    table: CellTable, names: Sequence[str], values: Array, what: str, so: str
) -> list[str]:
    if len(values) < 2:
        return []
    same = [n for n, v in zip(names, values.T, strict=True) if np.ptp(v) == 0]
    said = f"{table.path}: the same {what} in every row: {listed(same)}; {so}"
    return [said] if same else []


def _table(
    keys: Sequence[str],
    points: Sequence[Mixture],
    losses_NM: Array,
    targets: Sequence[str],
    unit: Unit,
    sizes: Mapping[str, Sequence[int]],
) -> pl.DataFrame:
    domains, weights_ND = points[0].domains, np.array([point.array for point in points])
    columns = {
        "trial": list(keys),
        "role": "sampled",
        "status": "finished",
        "mixture": [point.fingerprint for point in points],
        **{WEIGHT + name: weights_ND[:, d] for d, name in enumerate(domains)},
        **{loss_column(name, unit): losses_NM[:, m] for m, name in enumerate(targets)},
        **sizes,
    }
    wanted = schema(domains, targets)
    empty = [pl.lit(None, dtype).alias(n) for n, dtype in wanted.items() if n not in columns]
    return pl.DataFrame(columns).with_columns(empty).select(list(wanted))
