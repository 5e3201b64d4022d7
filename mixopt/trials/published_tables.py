"""Read published or exported tables of mixtures and losses, as CSV or Parquet.

Two tables: RegMix has `index` and `train_the_pile_arxiv` ... in one table, `index` and
`metric/the_pile_arxiv_val_loss` (or `valid_the_pile_arxiv`) ... in the other. Olmix has
`run,name,index` (or `run_id,name`) and a column for each domain in `ratios.csv`, the same and a
column for each metric in `metrics.csv`, both with an unnamed column of row numbers. Common prefixes
and suffixes of columns (`train_`, `metric/`, `_val_loss`, and `the_pile_` in both tables) are
removed, so that a domain has one name in both tables.

One table: exports of MLflow (`params.weight/web` and `metrics.loss/web` beside `run_id` and
`status`, or plain names beside `Run ID` and `Status`) and of W&B (plain names beside `Name`, `ID`
and `State`). Columns are recognised as weights or losses by prefixes and suffixes (WEIGHTS,
LOSSES); other columns and unfinished runs are left out and counted.

Columns `parameters` and `tokens` in either table are the model size of a trial. In a table with a
column `schedule`, the completed share of each row's own schedule, rows below 1 are left out: the
loss before the end belongs to a learning rate that has not decayed.

Rows are joined by their key. A key that is missing, repeated, or in one table only is an error that
names it; rows in one table only may be left out on request. Rows that are equal in all cells are
read once. Weights in percent are divided by 100; sums off 1 by rounding are rescaled. Notes report
this.

Shapes: N trials, D domains, M evaluation domains.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.errors import MixtureError, TrialsError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.system import Array, BoolArray
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import (
    BPB,
    ITEMS,
    LOSS,
    MAX_SIZE,
    WEIGHT,
    Unit,
    check_once,
    check_same,
    listed,
    loss_column,
    schema,
)
from mixopt.trials.table import Trials

KEYS = ("trial", "run", "run_id", "index", "name", "id")  # use the first one unique in both
SIZE = ("parameters", "tokens")  # columns in either table, neither weight nor loss
SCHEDULE = "schedule"  # column with the completed share of a row's schedule
SAME_SUM = 1e-6
MAX_PHASES = 5
PHASE = "phase/"  # prefix of columns with a phase's share of the tokens
ROW_NUMBERS = ("", "Unnamed: 0")  # pandas' names for a column of row numbers
TRACKER_PREFIXES = ("params.", "metrics.", "config.", "config/", "summary.", "summary/")
NESTED = re.compile(r".*[./](?=(weights?|mixture)[./])")  # of a configuration: data.weights.web
WEIGHTS = (
    *(WEIGHT, "weights/", "weight_", "weights.", "weight."),
    *("ratio_", "train_", "mixture/", "mixture.", "w_"),
)
LOSSES = (LOSS, "loss_", "loss.", BPB, "metric/", "metric_", "valid_", "eval/")
SHARED_PREFIXES = ("the_pile_",)
LOSS_ENDS = ("_val_loss", "_loss", "/loss", "_bpb")
STATES, FINISHED = ("status", "state"), ("finished", "completed", "success")


def split_export(table: CellTable) -> tuple[CellTable, CellTable]:
    """Return the weights and the losses of finished runs as two tables.

    Raises:
        TrialsError: No columns of weights or of losses, or no finished run.
    """
    plain = {name: _plain(name) for name in table.cells.columns}
    kinds = {name: _kind(column) for name, column in plain.items()}
    for kind, forms in (
        ("weight", f"{WEIGHT}web, w_web or ratio_web"),
        ("loss", f"{LOSS}code, code_loss or metric_code"),
    ):
        if kind not in kinds.values():
            raise table.fault(
                f"no column of a {kind}, such as {forms}; rename them, or give two tables: W.csv"
                " of weights and L.csv of losses"
            )
    finished = _ended(table)
    free = {
        name: column.lower().replace(" ", "_") for name, column in plain.items() if not kinds[name]
    }
    unknown = [plain[name] for name, key in free.items() if key not in KEYS]
    if unknown:
        table.note(f"neither weight nor loss, left out: {listed(unknown)}")
    by_key = {key: finished.cells[name] for name, key in free.items() if key in KEYS}
    keys = {key: cells for key, cells in by_key.items() if "" not in cells}
    key_table = pl.DataFrame(keys)
    if not any(column.n_unique() == len(column) for column in key_table):
        key_table = pl.DataFrame({KEYS[0]: [str(row) for row in range(len(finished.cells))]})

    def part(*part_kinds: str) -> CellTable:
        columns = [name for name in plain if kinds[name] in part_kinds]
        cells = finished.cells.select(columns).rename({name: plain[name] for name in columns})
        return replace(finished, cells=key_table.hstack(cells))

    return part("weight", "size"), part("loss")


def _plain(name: str) -> str:
    """Return a column's name without a tracker's prefix or the path of nested weights."""
    prefix = next((tracker for tracker in TRACKER_PREFIXES if name.startswith(tracker)), "")
    nested = NESTED.match(name)
    return name[nested.end() :] if nested else name.removeprefix(prefix)


def _kind(name: str) -> str:
    if name in (*SIZE, SCHEDULE) or name.startswith(PHASE):
        return "size"
    if name.startswith(WEIGHTS):
        return "weight"
    return "loss" if name.startswith((*LOSSES, TASK)) or name.endswith(LOSS_ENDS) else ""


def _ended(table: CellTable) -> CellTable:
    """Return the finished runs, if a column has their status."""
    state = next((name for name in table.cells.columns if name.lower() in STATES), None)
    if state is None:
        return table
    cells = table.column(state)
    rows = [row for row, cell in enumerate(cells) if cell.lower() in FINISHED]
    if not rows:
        raise table.fault(f"{state}: no run has finished (found {listed(cells[:1])})")
    if dropped := len(cells) - len(rows):
        table.note(f"left out {dropped} of {len(cells)} runs, whose {state} is not finished")
    return table.take(rows)


def read_trials(
    mixtures: Path,
    losses: Path | None,
    *,
    tolerance: float,
    key: str | None,
    unit: Unit,
    ignore: Sequence[str],
    drop_incomplete: bool,
) -> Trials:
    """Return the trials of a table of mixtures and one of losses, or of a table of both."""
    notes: list[str] = []
    left = CellTable.read(mixtures, notes)
    if losses is None:
        left, right = split_export(left.without(ignore))
        ignore = ()
    else:
        right = CellTable.read(losses, notes)
    return joined_trials(
        left,
        right,
        tolerance=tolerance,
        key=key,
        unit=unit,
        ignore=ignore,
        drop_incomplete=drop_incomplete,
    )


def joined_trials(
    left: CellTable,
    right: CellTable,
    *,
    tolerance: float = 0.01,
    key: str | None = None,
    unit: Unit = "nats_per_token",
    ignore: Sequence[str] = (),
    drop_incomplete: bool = False,
) -> Trials:
    """Return the trials of a table of mixtures and a table of losses, joined by their key."""
    for name in ignore:
        if name not in left.cells.columns:
            right.require(name, "--ignore")
    left, right = (_without_repeats(table.without(ignore)) for table in (left, right))
    left, right = _joined(left, right, key, drop_incomplete=drop_incomplete)
    if drop_incomplete:
        left, right = _without_gaps(left, right)
    scheduled = next((table for table in (left, right) if SCHEDULE in table.cells.columns), None)
    if scheduled is not None:
        is_ended_N = _is_at_end(scheduled)
        left, right = left.where(is_ended_N), right.where(is_ended_N)
    columns = data_columns(left)
    measured = [name for name in data_columns(right) if not name.startswith(ITEMS)]
    loss_columns = sorted(measured, key=lambda name: name.startswith(TASK))
    domains, targets = _names(left, columns, right, loss_columns)
    weights_ND, losses_NM = left.numbers(columns), right.numbers(loss_columns)
    stated = [name for name in left.cells.columns if name.startswith(PHASE)]
    is_mixture = bool(stated) or _add_up(weights_ND, 0.5) or _add_up(weights_ND / 100, tolerance)
    if not is_mixture and len(targets) > 1 and _add_up(losses_NM, tolerance):
        raise right.fault(
            f"rows add up to 1, and those of {left.path} do not: give the table of mixtures first"
        )
    weights_ND = _as_shares(left, domains, weights_ND, tolerance)
    points = [
        _mixture(left, name, domains, weights_D, tolerance)
        for name, weights_D in zip(left.names, weights_ND, strict=True)
    ]
    _note_rescaled(left, weights_ND)
    _note_constant(left, domains, weights_ND, "weight", "the fit says nothing of others")
    _note_constant(right, targets, losses_NM, "loss", "no mixture is better on it")
    weights_ND = np.array([point.array for point in points])
    if len(points) > 1:
        _check_phases(left, stated, Phases.detect(domains, weights_ND), tolerance)
    fingerprints = [point.fingerprint for point in points]
    sizes = {**_size(right), **_size(left)}
    if scheduled is not None:
        counts = sizes.get("parameters", [None] * len(points))
        runs = pl.DataFrame({"mixture": fingerprints, "parameters": counts})
        sizes["seed"] = runs.select(pl.int_range(pl.len()).over(runs.columns)).to_series().to_list()
    cells = {
        "trial": left.names,
        "role": "sampled",
        "status": "finished",
        "mixture": fingerprints,
        **{WEIGHT + name: weights_ND[:, d] for d, name in enumerate(domains)},
        **{loss_column(name, unit): losses_NM[:, m] for m, name in enumerate(targets)},
        **sizes,
    }
    types = schema(domains, targets)
    empty = [pl.lit(None, dtype).alias(n) for n, dtype in types.items() if n not in cells]
    table = pl.DataFrame(cells).with_columns(empty).select(list(types))
    items = _items(right, dict(zip(loss_columns, targets, strict=True)))
    return Trials(table, domains, targets, tuple(left.notes), items, is_phased=bool(stated))


def _add_up(values: Array, tolerance: float) -> bool:
    with np.errstate(over="ignore"):  # a sum beyond all floats is not 1 either
        return bool((np.abs(values.sum(axis=1) - 1) <= tolerance).all())


def _without_repeats(table: CellTable) -> CellTable:
    distinct = replace(table, cells=table.cells.unique(maintain_order=True))
    if repeats := len(table.cells) - len(distinct.cells):
        table.note(f"rows that repeat another one, cell by cell, read once: {repeats}")
    return distinct


def _joined(
    left: CellTable, right: CellTable, key: str | None, *, drop_incomplete: bool
) -> tuple[CellTable, CellTable]:
    """Return the rows of both tables in the order of the first, joined by their key."""
    key_column = _key(left, right, key)
    left, right = (replace(table, key=key_column) for table in (left, right))
    for table in (left, right):
        _check_unique(table)
    if drop_incomplete:
        left, right = _only_common(left, right), _only_common(right, left)
    _check_numbering(left, right)
    try:
        check_same(left.names, right.names, str(left.path), str(right.path))
    except TrialsError as error:
        raise TrialsError(f"{error}; leave such rows out: --ignore incomplete") from None
    places = {name: row for row, name in enumerate(right.names)}
    right = right.take([places[name] for name in left.names])
    if key is None:
        _check_agree(left, right)
    return left, right


def _only_common(table: CellTable, other: CellTable) -> CellTable:
    """Return the rows whose key is in both tables."""
    names = set(other.names)
    rows = [row for row, name in enumerate(table.names) if name in names]
    if not rows:
        raise TrialsError(
            f"{table.path} and {other.path}: no {table.key} is in both; check that it is the key"
        )
    if unjoined := [name for name in table.names if name not in names]:
        table.note(f"left out {listed(unjoined)}, not in {other.path}")
    return table.take(rows)


def _without_gaps(left: CellTable, right: CellTable) -> tuple[CellTable, CellTable]:
    """Leave out losses that no row has, then rows with missing numbers."""
    columns = data_columns(right)
    is_empty_M = np.asarray(right.gaps(columns).all(axis=0))
    empty = [name for name, is_empty in zip(columns, is_empty_M, strict=True) if is_empty]
    if empty:
        right.note(f"left out {listed(empty)}, empty in every row")
    right = right.without(empty)
    gap_N = np.full(len(left.cells), len(empty) == len(columns))
    for table in (left, right) if not gap_N.all() else ():
        lacks_N = np.asarray(table.gaps(data_columns(table)).any(axis=1))
        if lacks_N.any():
            names = table.where(lacks_N).names
            table.note(
                f"left out {len(names)} of {len(lacks_N)} rows that lack a number: {listed(names)}"
            )
        gap_N |= lacks_N
    if gap_N.all():
        raise TrialsError(f"{left.path} and {right.path}: no row is complete")
    return left.where(~gap_N), right.where(~gap_N)


def _is_at_end(table: CellTable) -> BoolArray:
    """Return which rows are at the end of their schedule, shape (N,)."""
    share_N = table.numbers([SCHEDULE])[:, 0]
    for row in np.flatnonzero(~((share_N > 0) & (share_N <= 1)))[:1]:
        raise table.fault(
            f"row {table.names[row]}: {SCHEDULE}: is {share_N[row]:g}; need the share of its"
            " schedule that the row has run, above 0 and at most 1"
        )
    unfinished = table.where(share_N < 1).names
    if len(unfinished) == len(share_N):
        raise table.fault(
            f"{SCHEDULE}: no row is at 1, the end of its schedule; give the last row of each run"
        )
    if unfinished:
        table.note(
            f"left out {len(unfinished)} of {len(share_N)} rows before the end of their"
            f" {SCHEDULE}: {listed(unfinished)}"
        )
    return np.asarray(share_N == 1)


def data_columns(table: CellTable) -> list[str]:
    """Return the columns of weights or losses."""
    excluded = (*KEYS, *SIZE, SCHEDULE, *ROW_NUMBERS, table.key)
    columns = [n for n in table.cells.columns if n not in excluded and not n.startswith(PHASE)]
    if not columns:
        raise table.fault(f"no column besides {', '.join(table.cells.columns)}")
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


def _check_unique(table: CellTable) -> None:
    key, counts = table.key, Counter(table.names)
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise table.fault(
            f"{key}: more than one row for {listed(doubled)}; keep one of each, or join by another"
            " column: mixopt import --key COLUMN"
        )
    if "" in counts:
        line = table.names.index("") + 1
        raise table.fault(f"{key}: is empty in row {line} of the table; fill it in")


def _check_numbering(left: CellTable, right: CellTable) -> None:
    """Raise TrialsError if one table counts rows from 0 and the other from 1."""
    left_names, right_names = left.names, right.names
    if not all(cell.isdecimal() for cell in (*left_names, *right_names)):
        return
    left_numbers, right_numbers = sorted(map(int, left_names)), sorted(map(int, right_names))
    offset = right_numbers[0] - left_numbers[0]
    if abs(offset) == 1 and [number + offset for number in left_numbers] == right_numbers:
        raise right.fault(
            f"{left.key} goes from {right_numbers[0]} to {right_numbers[-1]}, and"
            f" from {left_numbers[0]} to {left_numbers[-1]} in {left.path}: off by one? Number both"
            " alike, or mixopt import --key COLUMN"
        )


def _check_agree(left: CellTable, right: CellTable) -> None:
    """Check that other name columns agree in joined rows."""
    common = [name for name in KEYS if name in left.cells.columns and name in right.cells.columns]
    for column in common:
        columns = left.names, left.column(column), right.column(column)
        for name, left_cell, right_cell in zip(*columns, strict=True):
            if left_cell != right_cell:
                raise right.fault(
                    f"row {name}: {column} is {right_cell!r}, but {left_cell!r} in {left.path};"
                    " name the column that joins them: mixopt import --key COLUMN"
                )


def without_affixes(
    names: Sequence[str], prefixes: Sequence[str], suffixes: Sequence[str]
) -> list[str]:
    """Remove common prefixes and suffixes, unless they are a whole name."""
    names = list(names)
    for prefix in prefixes:
        if all(name.startswith(prefix) and name != prefix for name in names):
            names = [name.removeprefix(prefix) for name in names]
    for suffix in suffixes:
        if all(name.endswith(suffix) and name != suffix for name in names):
            names = [name.removesuffix(suffix) for name in names]
    return names


def _names(
    left: CellTable, columns: Sequence[str], right: CellTable, loss_columns: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the domains and of the evaluation domains."""
    domains = without_affixes(columns, WEIGHTS, ())
    targets = without_affixes(loss_columns, LOSSES, LOSS_ENDS[:2])
    names = without_affixes([*domains, *targets], SHARED_PREFIXES, ())
    domains, targets = names[: len(domains)], names[len(domains) :]
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
        raise table.fault(f"row {key}: {error_text}") from error


def _size(table: CellTable) -> dict[str, list[int]]:
    """Return parameters and tokens of each trial, if the table has them."""
    names = [name for name in SIZE if name in table.cells.columns]
    sizes_NS = np.rint(table.numbers(names))
    for row, column in np.argwhere(~((sizes_NS >= 0) & (sizes_NS <= MAX_SIZE)))[:1]:
        raise table.fault(
            f"row {table.names[row]}: {names[column]}: is {sizes_NS[row, column]:g}; need a number"
            f" from 0 to {MAX_SIZE}"
        )
    return dict(zip(names, sizes_NS.T.astype(int).tolist(), strict=True))


def _as_shares(
    table: CellTable, names: Sequence[str], weights_ND: Array, tolerance: float
) -> Array:
    """Return weights as shares of 1, also from percent and from a mixture for each phase."""
    with np.errstate(over="ignore"):
        sums_N = np.nan_to_num(weights_ND.sum(axis=1))
    hundreds = max(round(float(sums_N.min()) / 100), 1)
    if hundreds <= MAX_PHASES and _add_up(weights_ND / (100 * hundreds), tolerance):
        weights_ND, sums_N = weights_ND / 100, sums_N / 100
        table.note("weights are in percent, and were divided by 100")
    phases = round(float(sums_N.min()))
    if 2 <= phases <= MAX_PHASES and (np.abs(sums_N - phases) <= phases * tolerance).all():
        weights_ND = _shares_of_all_tokens(table, names, weights_ND, phases, tolerance)
    return weights_ND


def _shares_of_all_tokens(
    table: CellTable, names: Sequence[str], weights_NC: Array, count: int, tolerance: float
) -> Array:
    """Return shares of all tokens, from shares of each phase in columns `<phase>/<domain>`."""
    phase_of = [name.partition("/")[0] for name in names]
    columns = [f"{PHASE}{phase}" for phase in dict.fromkeys(phase_of)]
    if len(columns) != count or any(name not in table.cells.columns for name in columns):
        raise table.fault(
            f"weights add up to {count} in every row: a mixture for each of {count} phases?"
            f" Name columns PHASE/DOMAIN and add columns {PHASE}PHASE with each phase's"
            " share of the tokens, or leave out the columns of all but one (--ignore COLUMN)"
        )
    lengths_NP = table.numbers(columns)
    if np.ptp(lengths_NP, axis=0).max() > 0 or abs(lengths_NP[0].sum() - 1.0) > SAME_SUM:
        raise table.fault(f"{', '.join(columns)}: should be the same in all rows and add up to 1")
    phase_C = np.array([columns.index(f"{PHASE}{phase}") for phase in phase_of])
    sums_NP = np.array([weights_NC[:, phase_C == phase].sum(axis=1) for phase in range(count)]).T
    for row, phase in np.argwhere(np.abs(sums_NP - 1) > tolerance)[:1]:
        raise table.fault(
            f"row {table.names[row]}: weights of phase {columns[phase].removeprefix(PHASE)!r} add"
            f" up to {sums_NP[row, phase]:.6g}, not 1"
        )
    shares_NC: Array = weights_NC / sums_NP[:, phase_C] * lengths_NP[0, phase_C]
    return shares_NC


def _check_phases(
    table: CellTable, stated: Sequence[str], phases: Phases | None, tolerance: float
) -> None:
    """Check the stated phases; without any, note whether branches are read as phases."""
    if stated:
        if phases is None or {PHASE + name for name in phases} != set(stated):
            raise table.fault(
                f"{', '.join(stated)}: expected columns PHASE/DOMAIN with the same"
                " domains in each phase, and the same total in every row"
            )
        for name, share in phases.items():
            length = float(table.numbers([PHASE + name])[0, 0])
            if abs(length - share) > tolerance:
                raise table.fault(
                    f"{PHASE}{name} is {length:.6g}, but the weights of {name!r} add"
                    f" up to {share:.6g}; correct it, or make the weights of each phase add up to 1"
                )
        return
    if phases is None:
        return
    names = listed(list(phases))
    columns = ", ".join(f"{PHASE}{name} ({share:.6g})" for name, share in phases.items())
    note = (
        f"{names} have the same total in every row, and are read as branches of a tree; if they are"
        f" phases of the training, add columns: {columns}"
    )
    if phases.are_numbered:
        note = (
            f"{names} are read as phases of the training; if they are branches of a tree, rename"
            " them, such as 1 to topic1"
        )
    table.note(note)


def _items(table: CellTable, targets: Mapping[str, str]) -> dict[str, int]:
    """Return the number of questions of each metric, from columns `items/<metric>`."""
    items = {}
    for column in (name for name in table.cells.columns if name.startswith(ITEMS)):
        metric = column.removeprefix(ITEMS)
        name = targets.get(metric, metric)
        if name not in targets.values():
            near = did_you_mean(metric, targets.values())
            raise table.fault(f"{column}: no metric {metric!r}{near}")
        counts_N = table.numbers([column])[:, 0]
        if np.ptp(counts_N) or counts_N[0] < 1 or counts_N[0] % 1:
            raise table.fault(
                f"{column}: is {counts_N.min():g} to {counts_N.max():g}; need one"
                " whole number, the questions that every run was asked"
            )
        items[name] = int(counts_N[0])
    return items


def _note_rescaled(table: CellTable, weights_ND: Array) -> None:
    sums_N = weights_ND.sum(axis=1)
    if off := int((np.abs(sums_N - 1) > 1e-9).sum()):
        spread = f"{sums_N.min():.4g} to {sums_N.max():.4g}"
        table.note(f"{off} of {len(sums_N)} rows were rescaled to add up to 1 ({spread})")


def _note_constant(
    table: CellTable, names: Sequence[str], values: Array, kind: str, consequence: str
) -> None:
    same = [n for n, v in zip(names, values.T, strict=True) if np.ptp(v) == 0]
    if len(values) > 1 and same:
        table.note(f"the same {kind} in every row: {listed(same)}; {consequence}")
