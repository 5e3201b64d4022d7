"""Read published or exported tables of mixtures and losses, as CSV or Parquet.

Two tables: RegMix has `index` and `train_the_pile_arxiv` ... in one table, `index` and
`metric/the_pile_arxiv_val_loss` (or `valid_the_pile_arxiv`) ... in the other. Olmix has
`run,name,index` (or `run_id,name`) and a column for each domain in `ratios.csv`, the same and a
column for each metric in `metrics.csv`, both with an unnamed column of row numbers. Common prefixes
and suffixes of columns (`train_`, `metric/`, `_val_loss`, and `the_pile_` in both tables) are
removed, so that a domain has one name in both tables.

One table: exports of MLflow and W&B (mixopt.trials.exported_tables).

Columns `parameters` and `tokens` in either table are the model size of a trial. In a table with a
column `schedule`, the completed share of each row's own schedule, rows below 1 are left out: the
loss before the end belongs to a learning rate that has not decayed.

Rows are joined by their key. A key that is missing, repeated, or in one table only is an error that
names it; rows in one table only may be left out on request. Rows that are equal in all cells are
read once. Weights in percent are divided by 100; sums off 1 by rounding are rescaled. Notes report
this.

Shapes: N trials, D domains, M evaluation domains.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mixopt.config import TASK
from mixopt.errors import MixtureError, did_you_mean
from mixopt.mixture import Mixture, Phases
from mixopt.system import Array, BoolArray
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import (
    ITEMS,
    MAX_SIZE,
    WEIGHT,
    Unit,
    check_once,
    listed,
    loss_column,
    schema,
)
from mixopt.trials.exported_tables import (
    LOSS_ENDS,
    LOSSES,
    PHASE,
    SCHEDULE,
    SIZE,
    WEIGHTS,
    split_export,
)
from mixopt.trials.joined_tables import data_columns, joined, without_gaps, without_repeats
from mixopt.trials.table import Trials

SAME_SUM = 1e-6
ROUNDING = 1e-9  # sums of weights that are nearer to 1 are not said to be rescaled
MAX_PHASES = 5
MAX_OFF_ONE = 0.5  # sums of weights within this of 1 are taken for mixtures
SHARED_PREFIXES = ("the_pile_",)


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
    left = without_repeats(left.without(ignore))
    right = without_repeats(right.without(ignore))
    left, right = joined(left, right, key, drop_incomplete=drop_incomplete)
    if drop_incomplete:
        left, right = without_gaps(left, right)
    scheduled = _with_schedule(left, right)
    if scheduled is not None:
        is_ended_N = _is_at_end(scheduled)
        left = left.where(is_ended_N)
        right = right.where(is_ended_N)
    columns = data_columns(left)
    measured = [name for name in data_columns(right) if not name.startswith(ITEMS)]
    loss_columns = sorted(measured, key=lambda name: name.startswith(TASK))
    domains, targets = _names(left, columns, right, loss_columns)
    weights_ND = left.numbers(columns)
    losses_NM = right.numbers(loss_columns)
    stated = [name for name in left.cells.columns if name.startswith(PHASE)]
    if not stated:
        _check_order(left, right, weights_ND, losses_NM, tolerance)
    weights_ND = _as_shares(left, domains, weights_ND, tolerance)
    mixtures = _mixtures(left, domains, weights_ND, tolerance)
    _note_rescaled(left, weights_ND)
    _note_constant(left, domains, weights_ND, "weight", "the fit says nothing of others")
    _note_constant(right, targets, losses_NM, "loss", "no mixture is better on it")
    weights_ND = np.array([mixture.array for mixture in mixtures])
    if len(mixtures) > 1:
        _check_phases(left, stated, Phases.detect(domains, weights_ND), tolerance)
    cells: dict[str, Any] = {
        "trial": left.names,
        "role": "sampled",
        "status": "finished",
        "mixture": [mixture.fingerprint for mixture in mixtures],
    }
    for name, weights_N in zip(domains, weights_ND.T, strict=True):
        cells[WEIGHT + name] = weights_N
    for name, losses_N in zip(targets, losses_NM.T, strict=True):
        cells[loss_column(name, unit)] = losses_N
    cells |= _size(right) | _size(left)
    if scheduled is not None:
        cells["seed"] = _numbers_of_runs(cells)
    items = _items(right, dict(zip(loss_columns, targets, strict=True)))
    table = _filled(cells, schema(domains, targets))
    return Trials(table, domains, targets, tuple(left.notes), items, is_phased=bool(stated))


def _filled(cells: Mapping[str, Any], types: Mapping[str, Any]) -> pl.DataFrame:
    """Return a table of these columns, with nulls in those that are missing."""
    missing = [name for name in types if name not in cells]
    nulls = [pl.lit(None, types[name]).alias(name) for name in missing]
    return pl.DataFrame(cells).with_columns(nulls).select(list(types))


def _numbers_of_runs(cells: Mapping[str, Any]) -> list[int]:
    """Number the runs of each mixture and model size, from 0."""
    counts = cells.get("parameters", [None] * len(cells["mixture"]))
    runs = pl.DataFrame({"mixture": cells["mixture"], "parameters": counts})
    return runs.select(pl.int_range(pl.len()).over(runs.columns)).to_series().to_list()


def _with_schedule(left: CellTable, right: CellTable) -> CellTable | None:
    """Return the table with a column `schedule`; None without one."""
    if SCHEDULE in left.cells.columns:
        return left
    if SCHEDULE in right.cells.columns:
        return right
    return None


def _check_order(
    left: CellTable, right: CellTable, weights_ND: Array, losses_NM: Array, tolerance: float
) -> None:
    """Raise TrialsError if the second table has the mixtures."""
    if _add_up(weights_ND, MAX_OFF_ONE) or _add_up(weights_ND / 100, tolerance):
        return
    if losses_NM.shape[1] > 1 and _add_up(losses_NM, tolerance):
        raise right.fault(
            f"rows add up to 1, and those of {left.path} do not: give the table of mixtures first"
        )


def _add_up(values: Array, tolerance: float) -> bool:
    with np.errstate(over="ignore"):  # a sum beyond all floats is not 1 either
        return bool((np.abs(values.sum(axis=1) - 1) <= tolerance).all())


def _is_at_end(table: CellTable) -> BoolArray:
    """Return which rows are at the end of their schedule, shape (N,)."""
    share_N = table.numbers([SCHEDULE])[:, 0]
    is_share_N = (share_N > 0) & (share_N <= 1)
    for row in np.flatnonzero(~is_share_N)[:1]:
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
    names = tuple(without_affixes(domains + targets, SHARED_PREFIXES, ()))
    domain_names = names[: len(domains)]
    target_names = names[len(domains) :]
    check_once(domain_names, f"{left.path}: columns")
    check_once(target_names, f"{right.path}: columns")
    return domain_names, target_names


def _mixtures(
    table: CellTable, domains: Sequence[str], weights_ND: Array, tolerance: float
) -> list[Mixture]:
    """Return the mixture of each row."""
    mixtures = []
    for key, weights_D in zip(table.names, weights_ND, strict=True):
        try:
            mixture = Mixture.from_array(domains, weights_D, tolerance=tolerance)
        except MixtureError as error:
            hint = "allow it: mixopt import --tolerance "
            error_text = str(error).replace("pass tolerance=", hint)
            raise table.fault(f"row {key}: {error_text}") from error
        mixtures.append(mixture)
    return mixtures


def _size(table: CellTable) -> dict[str, list[int]]:
    """Return parameters and tokens of each trial, if the table has them."""
    names = [name for name in SIZE if name in table.cells.columns]
    sizes_NS = np.rint(table.numbers(names))
    is_size_NS = (sizes_NS >= 0) & (sizes_NS <= MAX_SIZE)
    for row, column in np.argwhere(~is_size_NS)[:1]:
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
        weights_ND = weights_ND / 100
        sums_N = sums_N / 100
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
    by_phase = [weights_NC[:, phase_C == phase] for phase in range(count)]
    sums_NP = np.column_stack([weights_NK.sum(axis=1) for weights_NK in by_phase])
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
        _check_stated_phases(table, stated, phases, tolerance)
    elif phases is not None:
        table.note(_phases_note(phases))


def _check_stated_phases(
    table: CellTable, stated: Sequence[str], phases: Phases | None, tolerance: float
) -> None:
    """Raise TrialsError if the weights do not have the stated phases."""
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


def _phases_note(phases: Phases) -> str:
    """Return a note on what branches with a constant total are read as."""
    names = listed(list(phases))
    if phases.are_numbered:
        return (
            f"{names} are read as phases of the training; if they are branches of a tree, rename"
            " them, such as 1 to topic1"
        )
    columns = ", ".join(f"{PHASE}{name} ({share:.6g})" for name, share in phases.items())
    return (
        f"{names} have the same total in every row, and are read as branches of a tree; if they are"
        f" phases of the training, add columns: {columns}"
    )


def _items(table: CellTable, targets: Mapping[str, str]) -> dict[str, int]:
    """Return the number of questions of each metric, from columns `items/<metric>`."""
    items = {}
    for column in table.cells.columns:
        if not column.startswith(ITEMS):
            continue
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
    is_off_N = np.abs(sums_N - 1) > ROUNDING
    if not is_off_N.any():
        return
    low = f"{sums_N.min():.4g}"
    high = f"{sums_N.max():.4g}"
    sums = f"{low} to {high}"
    if low == high == "1":
        sums = f"off by at most {np.abs(sums_N - 1).max():.1g}"
    rows = f"{int(is_off_N.sum())} of {len(sums_N)} rows"
    table.note(f"{rows} were rescaled to add up to 1 ({sums})")


def _note_constant(
    table: CellTable, names: Sequence[str], values: Array, kind: str, consequence: str
) -> None:
    is_constant_C = np.ptp(values, axis=0) == 0
    same = [name for name, is_same in zip(names, is_constant_C, strict=True) if is_same]
    if len(values) > 1 and same:
        table.note(f"the same {kind} in every row: {listed(same)}; {consequence}")
