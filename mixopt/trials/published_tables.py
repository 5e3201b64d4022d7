"""Read tables of mixtures and losses that others published or exported, as CSV or Parquet.

Two tables: RegMix has `index` and `train_the_pile_arxiv` ... on one side, `index` and
`metric/the_pile_arxiv_val_loss` (or `valid_the_pile_arxiv`) ... on the other. Olmix has
`run,name,index` (or `run_id,name`) and a column a domain in `ratios.csv`, the same and a column
a metric in `metrics.csv`, both behind a column of row numbers without a name. What all columns of
a table share around the names (`train_`, `metric/`, `_val_loss`, and `the_pile_` on both sides)
is taken off, so that a domain has one name in both tables.

One table is what MLflow (`params.weight/web` and `metrics.loss/web` beside `run_id` and `status`,
or plain names beside `Run ID` and `Status`) and W&B export (plain names beside `Name`, `ID` and
`State`). Its columns are taken for weights or losses by how they begin or end (WEIGHTS, LOSSES);
what else was logged, and runs that did not finish, are left out and counted.

Columns `parameters` and `tokens` of either table are the size that a trial was trained at. Of a
table with a column `schedule`, the share of its own schedule that each row has run, rows below 1
are left out: a loss before the end is of a learning rate that has not come down.

Rows are joined by their key. A key that is missing, there twice, or in one table alone is an error
that names it; what is in one table alone may be left out if that is asked for. A row that repeats
another one in all cells is read once. Weights in percent are divided by 100; rows that miss 1 by
rounding are rescaled. Notes report this.

Shapes: N trials, D domains, M evaluation domains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.errors import MixtureError, TrialsError, did_you_mean
from mixopt.mixture import Mixture
from mixopt.system import Array
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import (
    BPB,
    ITEMS,
    LOSS,
    MAX_SIZE,
    WEIGHT,
    TrialRows,
    Unit,
    check_once,
    check_same,
    listed,
    loss_column,
    schema,
)

KEYS = ("trial", "run", "run_id", "index", "name", "id")  # the first in both tables and unique
SIZE = ("parameters", "tokens")  # of the trial, in either table: neither weight nor loss
SCHEDULE = "schedule"  # share of its own schedule that a row has run
SAME_SUM = 1e-6
PHASE = "phase/"  # begins the column of a phase's share of the tokens
ROW_NUMBERS = ("", "Unnamed: 0")  # what pandas calls a column of row numbers
TRACKER_PREFIXES = ("params.", "metrics.", "config.", "config/", "summary.", "summary/")
WEIGHTS = (
    *(WEIGHT, "weights/", "weight_", "weights.", "weight."),
    *("ratio_", "train_", "mixture/", "w_"),
)
LOSSES = (LOSS, "loss_", "loss.", BPB, "metric/", "metric_", "valid_", "eval/")
LOSS_ENDS = ("_val_loss", "_loss", "/loss", "_bpb")
NAMES = ("run_id", "run id", "trial", "run", "index", "id", "name")
STATES, FINISHED = ("status", "state"), ("finished", "completed", "success")


def split_export(table: CellTable) -> tuple[CellTable, CellTable, list[str]]:
    """Return the weights and the losses of finished runs as two tables, and notes.

    Raises:
        TrialsError: No weights or no losses among the columns, or no run that finished.
    """
    plain = {name: _plain(name) for name in table.cells.columns}
    kinds = {name: _kind(own) for name, own in plain.items()}
    for kind, forms, file in (
        ("weight", f"{WEIGHT}web, w_web or ratio_web", "W.csv"),
        ("loss", f"{LOSS}code, code_loss or metric_code", "L.csv"),
    ):
        if kind not in kinds.values():
            raise TrialsError(
                f"{table.path}: no column of a {kind}, such as {forms}; rename them, or give two"
                f" tables: W.csv of weights and L.csv of losses, of which this may be {file}"
            )
    kept, notes = _ended(table)
    keys = pl.Series(KEYS[1], _run_names(kept))
    others = [own for name, own in plain.items() if not kinds[name] and own.lower() not in NAMES]
    if others:
        notes.append(f"{table.path}: neither weight nor loss, left out: {listed(others)}")

    def part(*own: str) -> CellTable:
        columns = [name for name in plain if kinds[name] in own]
        cells = kept.cells.select(columns).rename({name: plain[name] for name in columns})
        return replace(kept, cells=cells.insert_column(0, keys))

    return part("weight", "size"), part("loss"), notes


def _plain(name: str) -> str:
    prefix = next((one for one in TRACKER_PREFIXES if name.startswith(one)), "")
    return name.removeprefix(prefix)


def _kind(name: str) -> str:
    if name in (*SIZE, SCHEDULE) or name.startswith(PHASE):
        return "size"
    if name.startswith(WEIGHTS):
        return "weight"
    return "loss" if name.startswith((*LOSSES, TASK)) or name.endswith(LOSS_ENDS) else ""


def _ended(table: CellTable) -> tuple[CellTable, list[str]]:
    """Return the runs that finished, where a column says so."""
    state = next((name for name in table.cells.columns if name.lower() in STATES), None)
    if state is None:
        return table, []
    cells = table.column(state)
    rows = [row for row, cell in enumerate(cells) if cell.lower() in FINISHED]
    if not rows:
        raise TrialsError(f"{table.path}: {state}: no run has finished (found {listed(cells[:1])})")
    gone = len(cells) - len(rows)
    note = f"{table.path}: left out {gone} of {len(cells)} runs, whose {state} is not finished"
    return table.take(rows), [note] if gone else []


def _run_names(table: CellTable) -> list[str]:
    """Return a name for each run: the first column of NAMES that differs, else its number."""
    own = {name.lower(): name for name in table.cells.columns}
    for name in (own[name] for name in NAMES if name in own):
        cells = table.column(name)
        if "" not in cells and len(set(cells)) == len(cells):
            return cells
    return [str(row) for row in range(len(table.cells))]


def join_tables(
    left: CellTable, right: CellTable, key: str | None, *, drop_incomplete: bool
) -> tuple[str, CellTable, CellTable, list[str]]:
    """Bring two tables to the same rows in the same order."""
    found = _key(left, right, key)
    for table in (left, right):
        _check_unique(table, found)
    notes: list[str] = []
    if drop_incomplete:
        left, right, notes = _in_both(left, right, found)
    _check_numbering(left, right, found)
    try:
        check_same(left.column(found), right.column(found), str(left.path), str(right.path))
    except TrialsError as error:
        raise TrialsError(f"{error}; leave such rows out: --ignore incomplete") from None
    places = {name: row for row, name in enumerate(right.column(found))}
    right = right.take([places[name] for name in left.column(found)])
    if key is None:
        _check_agree(left, right, found)
    return found, left, right, notes


def data_columns(table: CellTable, key: str) -> list[str]:
    """Return the columns that hold weights or losses."""
    others = (*KEYS, *SIZE, SCHEDULE, *ROW_NUMBERS, key)
    columns = [n for n in table.cells.columns if n not in others and not n.startswith(PHASE)]
    if not columns:
        raise TrialsError(f"{table.path}: no column besides {', '.join(table.cells.columns)}")
    return columns


def _key(left: CellTable, right: CellTable, key: str | None) -> str:
    """Return the column to join by."""
    if key is not None:
        for table in (left, right):
            table.require(key, "--key")
        return key
    common = [name for name in KEYS if name in left.cells.columns and name in right.cells.columns]
    if not common:
        raise TrialsError(
            f"{left.path} and {right.path}: no column of both to join by (looked for"
            f" {', '.join(KEYS)}); name it: mixopt import --key COLUMN"
        )
    unique = [
        n for n in common if all(len(set(t.column(n))) == len(t.cells) for t in (left, right))
    ]
    return (unique or common)[0]


def _check_unique(table: CellTable, key: str) -> None:
    counts = Counter(table.column(key))
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise TrialsError(
            f"{table.path}: {key}: more than one row for {listed(doubled)}; keep one of each, or"
            " join by another column: mixopt import --key COLUMN"
        )
    if "" in counts:
        line = table.column(key).index("") + 1
        raise TrialsError(f"{table.path}: {key}: is empty in row {line} of the table; fill it in")


def _check_numbering(left: CellTable, right: CellTable, key: str) -> None:
    """Refuse tables of which one numbers its rows from 0 and the other from 1."""
    ours, theirs = left.column(key), right.column(key)
    if len(ours) != len(theirs) or not all(cell.isdecimal() for cell in (*ours, *theirs)):
        return
    one, other = sorted(map(int, ours)), sorted(map(int, theirs))
    apart = other[0] - one[0]
    if abs(apart) == 1 and [number + apart for number in one] == other:
        raise TrialsError(
            f"{right.path}: {key} goes from {other[0]} to {other[-1]}, and from {one[0]} to"
            f" {one[-1]} in {left.path}: off by one? Number both alike, or mixopt import --key"
            " COLUMN"
        )


def _in_both(left: CellTable, right: CellTable, key: str) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows that both tables have, and a line about the others."""
    notes, kept = [], []
    for table, other in ((left, right), (right, left)):
        known = set(other.column(key))
        names = table.column(key)
        kept.append(table.take([row for row, name in enumerate(names) if name in known]))
        alone = [name for name in names if name not in known]
        if alone:
            notes.append(f"{table.path}: left out {listed(alone)}, not in {other.path}")
    if kept[0].cells.is_empty():
        raise TrialsError(
            f"{left.path} and {right.path}: no {key} is in both; check that it is the key"
        )
    return kept[0], kept[1], notes


def _check_agree(left: CellTable, right: CellTable, key: str) -> None:
    """Check that other columns of names say the same of the rows that were joined."""
    others = [n for n in KEYS if n != key and n in left.cells.columns and n in right.cells.columns]
    for other in others:
        columns = left.column(key), left.column(other), right.column(other)
        for name, mine, theirs in zip(*columns, strict=True):
            if mine != theirs:
                raise TrialsError(
                    f"{right.path}: row {name}: {other} is {theirs!r}, but {mine!r} in "
                    f"{left.path}; name the column that joins them: mixopt import --key COLUMN"
                )


def finished_rows(
    left: CellTable, right: CellTable, key: str
) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows of finished runs, and a line about those that were left out."""
    given = next((one for one in (left, right) if SCHEDULE in one.cells.columns), None)
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
    out = f"{given.path}: left out {len(gone)} of {len(names)} rows before the end of their"
    notes = [f"{out} {SCHEDULE}: {listed(gone)}"] if gone else []
    return left.take(kept), right.take(kept), notes


def run_seeds(mixtures: Sequence[str], parameters: Sequence[int | None]) -> list[int]:
    """Number the runs of each mixture and number of parameters, from 0."""
    seen: Counter[tuple[str, int | None]] = Counter()
    seeds = []
    for run in zip(mixtures, parameters, strict=True):
        seeds.append(seen[run])
        seen[run] += 1
    return seeds


MAX_PHASES = 5
SHARED_PREFIXES = ("the_pile_",)


def joined_trials(
    left: CellTable,
    right: CellTable,
    *,
    tolerance: float = 0.01,
    key: str | None = None,
    unit: Unit = "nats_per_token",
    ignore: Sequence[str] = (),
    drop_incomplete: bool = False,
) -> TrialRows:
    """Return the trials of a table of mixtures and one of losses, joined by their key."""
    for name in ignore:
        if name not in left.cells.columns:
            right.require(name, "--ignore")
    left, right = left.without(ignore), right.without(ignore)
    (left, again), (right, twice) = left.once(), right.once()
    key, left, right, notes = join_tables(left, right, key, drop_incomplete=drop_incomplete)
    notes = [*again, *twice, *notes]
    if drop_incomplete:
        left, right, dropped = _complete(left, right, key)
        notes += dropped
    scheduled = any(SCHEDULE in one.cells.columns for one in (left, right))
    left, right, unfinished = finished_rows(left, right, key)
    notes += unfinished
    columns = data_columns(left, key)
    others = [name for name in data_columns(right, key) if not name.startswith(ITEMS)]
    loss_columns = sorted(others, key=lambda name: name.startswith(TASK))
    domains, targets = _names(left, columns, right, loss_columns)
    keys = left.column(key)
    weights_ND, losses_NM = left.numbers(columns, keys), right.numbers(loss_columns, keys)
    weights_ND, about = _as_shares(left, domains, weights_ND, tolerance)
    notes += about
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
    items = _items(right, keys, dict(zip(loss_columns, targets, strict=True)))
    return TrialRows(table, domains, targets, tuple(notes), items)


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


def _complete(
    left: CellTable, right: CellTable, key: str
) -> tuple[CellTable, CellTable, list[str]]:
    """Return the rows without a gap, and a line about what was left out."""
    columns = data_columns(right, key)
    empty = [n for n, gaps_N in zip(columns, right.gaps(columns).T, strict=True) if gaps_N.all()]
    notes = [f"{right.path}: left out {listed(empty)}, empty in every row"] if empty else []
    right = right.without(empty)
    gap_N = np.full(len(left.cells), len(empty) == len(columns))
    for table in (left, right) if not gap_N.all() else ():
        own_N = np.asarray(table.gaps(data_columns(table, key)).any(axis=1))
        names = [name for name, gap in zip(table.column(key), own_N, strict=True) if gap]
        if names:
            count = f"{len(names)} of {len(own_N)} rows"
            notes.append(f"{table.path}: left out {count} that lack a number: {listed(names)}")
        gap_N |= own_N
    if gap_N.all():
        raise TrialsError(f"{left.path} and {right.path}: no row is complete")
    kept = np.flatnonzero(~gap_N).tolist()
    return left.take(kept), right.take(kept), notes


def _names(
    left: CellTable, columns: Sequence[str], right: CellTable, loss_columns: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the domains and of the evaluation domains."""
    domains = without_affixes(columns, WEIGHTS, ())
    targets = without_affixes(loss_columns, LOSSES, LOSS_ENDS[:2])
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
        error_text = str(error).replace("pass tolerance=", "allow it: mixopt import --tolerance ")
        raise TrialsError(f"{table.path}: row {key}: {error_text}") from error


def _size(table: CellTable, keys: Sequence[str]) -> dict[str, list[int]]:
    """Return the parameters and the tokens of each trial, where the table has them."""
    names = [name for name in SIZE if name in table.cells.columns]
    sizes_NS = np.rint(table.numbers(names, keys)).reshape(len(keys), len(names))
    for row, column in np.argwhere(~((sizes_NS >= 0) & (sizes_NS <= MAX_SIZE)))[:1]:
        raise TrialsError(
            f"{table.path}: row {keys[row]}: {names[column]}: is {sizes_NS[row, column]:g}; need a"
            f" number from 0 to {MAX_SIZE}"
        )
    columns = sizes_NS.T
    return {name: column.astype(int).tolist() for name, column in zip(names, columns, strict=True)}


def _as_shares(
    table: CellTable, names: Sequence[str], weights_ND: Array, tolerance: float
) -> tuple[Array, list[str]]:
    """Return weights as shares of 1, from percent too, and from a mixture for each phase."""
    with np.errstate(over="ignore"):
        sums_N = np.nan_to_num(weights_ND.sum(axis=1))
    if (np.abs(sums_N - 100) <= 100 * tolerance).all():
        return weights_ND / 100, [f"{table.path}: weights are in percent, and were divided by 100"]
    phases = round(float(sums_N.min()))
    if 2 <= phases <= MAX_PHASES and (np.abs(sums_N - phases) <= phases * tolerance).all():
        return weights_ND * _phase_lengths(table, names, phases), []
    return weights_ND, []


def _phase_lengths(table: CellTable, names: Sequence[str], count: int) -> Array:
    """Return the share of the tokens of the phase of each column, `<phase>/<domain>`."""
    phase_of = [name.partition("/")[0] for name in names]
    columns = [f"{PHASE}{phase}" for phase in dict.fromkeys(phase_of)]
    if len(columns) != count or any(name not in table.cells.columns for name in columns):
        raise TrialsError(
            f"{table.path}: weights add up to {count} in every row: a mixture for each of {count}"
            f" phases? Name columns PHASE/DOMAIN and add columns {PHASE}PHASE with each phase's"
            " share of the tokens, or leave out the columns of all but one (--ignore COLUMN)"
        )
    lengths_NP = table.numbers(columns, [str(row) for row in range(1, len(table.cells) + 1)])
    if np.ptp(lengths_NP, axis=0).max() > 0 or abs(lengths_NP[0].sum() - 1.0) > SAME_SUM:
        raise TrialsError(
            f"{table.path}: {', '.join(columns)}: should be the same in all rows and add up to 1"
        )
    lengths = dict(zip(columns, lengths_NP[0].tolist(), strict=True))
    return np.array([lengths[f"{PHASE}{phase}"] for phase in phase_of])


def _items(table: CellTable, keys: Sequence[str], targets: Mapping[str, str]) -> dict[str, int]:
    """Return the questions behind each metric, from columns `items/<metric>`."""
    found = {}
    for column in (name for name in table.cells.columns if name.startswith(ITEMS)):
        metric = column.removeprefix(ITEMS)
        name = targets.get(metric, metric)
        if name not in targets.values():
            near = did_you_mean(metric, targets.values())
            raise TrialsError(f"{table.path}: {column}: no metric {metric!r}{near}")
        counts_N = table.numbers([column], keys)[:, 0]
        if np.ptp(counts_N) or counts_N[0] < 1 or counts_N[0] % 1:
            raise TrialsError(
                f"{table.path}: {column}: is {counts_N.min():g} to {counts_N.max():g}; need one"
                " whole number, the questions that every run was asked"
            )
        found[name] = int(counts_N[0])
    return found


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
    note = f"{table.path}: the same {what} in every row: {listed(same)}; {so}"
    return [note] if same else []


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
