"""Read tables of mixtures and losses that others published as CSV.

Two layouts are known. RegMix: `index` and `train_the_pile_arxiv` ... on one side, `index` and
`metric/the_pile_arxiv_val_loss` (or `valid_the_pile_arxiv`) ... on the other. Olmix:
`run,name,index` and a column a domain, `run,name,index` and a column a metric. What all columns
of a table share around the names (`train_`, `metric/`, `_val_loss`, and `the_pile_` on both
sides) is taken off, so that a domain has one name in both tables.

Rows are joined by the key, never by their order. Weights that were rounded, so that a row misses
1 by no more than a tolerance, are rescaled, and the notes of the result say so.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mixopt.csv_table import CsvTable
from mixopt.errors import MixtureError, TrialsError
from mixopt.mixture import Mixture
from mixopt.trial_rows import LOSS, WEIGHT, check_once, check_same, listed, schema
from mixopt.trials import Trials

Array = NDArray[np.float64]
KEYS = ("trial", "run", "index", "name", "id")  # the first that is in both tables and unique
ROW_NUMBERS = ("", "Unnamed: 0")  # what pandas calls a column of row numbers
MIXTURE_PREFIXES = ("train_", WEIGHT)
LOSS_PREFIXES = ("metric/", "valid_", LOSS)
LOSS_SUFFIXES = ("_val_loss", "_loss")
SHARED_PREFIXES = ("the_pile_",)


def read_csv_trials(
    mixtures: Path, losses: Path, *, tolerance: float = 0.01, key: str | None = None
) -> Trials:
    """Read and join two CSV files by their key.

    Args:
        mixtures: A row for each trial: its key, and the weight of each domain.
        losses: A row for each trial: its key, and its losses, in nats per token.
        tolerance: How far from 1 the weights of a row may be; they are rescaled, and noted.
        key: The column to join by; found when absent (trial, run, index, name, id).

    Returns:
        Finished trials in the order of `mixtures`, without losses in bits per byte; the notes say
        what was rescaled, and which columns never change.

    Raises:
        TrialsError: A file cannot be read, a key is missing, doubled or extra, or a value is no
            number, not finite, negative, or out of tolerance.
    """
    left, right = CsvTable.read(mixtures), CsvTable.read(losses)
    key = _key(left, right, key)
    order = _joined(left, right, key)
    columns, loss_columns = _data_columns(left, key), _data_columns(right, key)
    domains, targets = _names(left, columns, right, loss_columns)
    keys = left.column(key)
    weights_ND = left.numbers(columns, keys)
    losses_NM = right.numbers(loss_columns, right.column(key))[order]
    points = [
        _mixture(left, name, domains, weights_D, tolerance)
        for name, weights_D in zip(keys, weights_ND, strict=True)
    ]
    notes = (
        *_rescaled(left, weights_ND),
        *_constant(left, domains, weights_ND),
        *_constant(right, targets, losses_NM),
    )
    return Trials(_table(keys, points, losses_NM, targets), domains, targets, notes)


def _key(left: CsvTable, right: CsvTable, key: str | None) -> str:
    """Return the column to join by."""
    wanted = KEYS if key is None else (key,)
    common = [name for name in wanted if name in left.header and name in right.header]
    if not common:
        raise TrialsError(
            f"{left.path} and {right.path}: no column of both to join by (looked for"
            f" {', '.join(wanted)}); name it with key="
        )
    unique = [n for n in common if all(len(set(t.column(n))) == len(t.rows) for t in (left, right))]
    return (unique or common)[0]


def _joined(left: CsvTable, right: CsvTable, key: str) -> list[int]:
    """Return for each row of `left` the row of `right` with the same key."""
    for table in (left, right):
        check_once(table.column(key), f"{table.path}: {key}")
    check_same(left.column(key), right.column(key), str(left.path), str(right.path))
    places = {name: row for row, name in enumerate(right.column(key))}
    order = [places[name] for name in left.column(key)]
    for other in KEYS:
        if other != key and other in left.header and other in right.header:
            _check_agree(left, right, key, other, order)
    return order


def _check_agree(left: CsvTable, right: CsvTable, key: str, other: str, order: list[int]) -> None:
    """Check that a second column of names says the same of the rows that were joined."""
    theirs = right.column(other)
    for name, mine, row in zip(left.column(key), left.column(other), order, strict=True):
        if mine != theirs[row]:
            raise TrialsError(
                f"{right.path}: row {name}: {other} is {theirs[row]!r}, but {mine!r} in"
                f" {left.path}; state which column joins them with key="
            )


def _data_columns(table: CsvTable, key: str) -> list[str]:
    columns = [name for name in table.header if name not in (*KEYS, *ROW_NUMBERS, key)]
    if not columns:
        raise TrialsError(f"{table.path}: no column besides {', '.join(table.header)}")
    return columns


def _names(
    left: CsvTable, columns: Sequence[str], right: CsvTable, loss_columns: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the domains and of the evaluation domains."""
    domains = _without(columns, MIXTURE_PREFIXES, ())
    targets = _without(loss_columns, LOSS_PREFIXES, LOSS_SUFFIXES)
    both = _without([*domains, *targets], SHARED_PREFIXES, ())
    domains, targets = both[: len(domains)], both[len(domains) :]
    check_once(domains, f"{left.path}: columns")
    check_once(targets, f"{right.path}: columns")
    return tuple(domains), tuple(targets)


def _without(names: Sequence[str], prefixes: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Take off each prefix and suffix that all names have and that is not a whole name."""
    names = list(names)
    for prefix in prefixes:
        if all(name.startswith(prefix) and name != prefix for name in names):
            names = [name.removeprefix(prefix) for name in names]
    for suffix in suffixes:
        if all(name.endswith(suffix) and name != suffix for name in names):
            names = [name.removesuffix(suffix) for name in names]
    return names


def _mixture(
    table: CsvTable, key: str, domains: Sequence[str], weights_D: Array, tolerance: float
) -> Mixture:
    try:
        return Mixture.from_array(domains, weights_D, tolerance=tolerance)
    except MixtureError as error:
        raise TrialsError(f"{table.path}: row {key}: {error}") from error


def _rescaled(table: CsvTable, weights_ND: Array) -> list[str]:
    sums_N = weights_ND.sum(axis=1)
    off = int((np.abs(sums_N - 1) > 1e-9).sum())
    if not off:
        return []
    spread = f"{sums_N.min():.4g} to {sums_N.max():.4g}"
    return [f"{table.path}: {off} of {len(sums_N)} rows were rescaled to add up to 1 ({spread})"]


def _constant(table: CsvTable, names: Sequence[str], values: Array) -> list[str]:
    if len(values) < 2:
        return []
    same = [n for n, v in zip(names, values.T, strict=True) if np.ptp(v) == 0]
    return [f"{table.path}: the same value in every row: {listed(same)}"] if same else []


def _table(
    keys: Sequence[str], points: Sequence[Mixture], losses_NM: Array, targets: Sequence[str]
) -> pl.DataFrame:
    domains = points[0].domains
    columns = {
        "trial": list(keys),
        "role": "sampled",
        "status": "finished",
        "mixture": [point.fingerprint for point in points],
        **{WEIGHT + name: [point[name] for point in points] for name in domains},
        **{LOSS + name: losses_NM[:, m] for m, name in enumerate(targets)},
    }
    wanted = schema(domains, targets)
    empty = [pl.lit(None, dtype).alias(n) for n, dtype in wanted.items() if n not in columns]
    return pl.DataFrame(columns).with_columns(empty).select(list(wanted))
