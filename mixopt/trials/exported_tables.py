"""One table of runs, as exported by MLflow or W&B, as a table of weights and one of losses.

Exports of MLflow have `params.weight/web` and `metrics.loss/web` beside `run_id` and `status`, or
plain names beside `Run ID` and `Status`; those of W&B have plain names beside `Name`, `ID` and
`State`. Columns are recognised as weights or losses by prefixes and suffixes (WEIGHTS, LOSSES);
other columns and unfinished runs are left out and counted.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from mixopt.config import TASK
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import BPB, LOSS, WEIGHT, listed

KEYS = ("trial", "run", "run_id", "index", "name", "id")  # use the first one unique in both
SIZE = ("parameters", "tokens")  # columns in either table, neither weight nor loss
SCHEDULE = "schedule"  # column with the completed share of a row's schedule
PHASE = "phase/"  # prefix of columns with a phase's share of the tokens
TRACKER_PREFIXES = ("params.", "metrics.", "config.", "config/", "summary.", "summary/")
NESTED = re.compile(r".*[./](?=(weights?|mixture)[./])")  # of a configuration: data.weights.web
WEIGHTS = (
    WEIGHT,
    "weights/",
    "weight_",
    "weights.",
    "weight.",
    "ratio_",
    "train_",
    "mixture/",
    "mixture.",
    "w_",
)
LOSSES = (LOSS, "loss_", "loss.", BPB, "metric/", "metric_", "valid_", "eval/")
LOSS_ENDS = ("_val_loss", "_loss", "/loss", "_bpb")
STATES = ("status", "state")
FINISHED = ("finished", "completed", "success")


def split_export(table: CellTable) -> tuple[CellTable, CellTable]:
    """Return the weights and the losses of finished runs as two tables.

    Raises:
        TrialsError: No columns of weights or of losses, or no finished run.
    """
    plain_names = {name: _plain(name) for name in table.cells.columns}
    kinds = {name: _kind(plain) for name, plain in plain_names.items()}
    _require_kind(table, kinds, "weight", f"{WEIGHT}web, w_web or ratio_web")
    _require_kind(table, kinds, "loss", f"{LOSS}code, code_loss or metric_code")
    finished = _ended(table)
    others = {name: plain for name, plain in plain_names.items() if not kinds[name]}
    keys = {}
    unknown = []
    for name, plain in others.items():
        key = plain.lower().replace(" ", "_")
        if key in KEYS:
            keys[key] = finished.cells[name]
        else:
            unknown.append(plain)
    if unknown:
        table.note(f"neither weight nor loss, left out: {listed(unknown)}")
    key_table = _key_table(keys, len(finished.cells))
    weights = {name: plain for name, plain in plain_names.items() if kinds[name] != "loss"}
    losses = {name: plain for name, plain in plain_names.items() if kinds[name] == "loss"}
    for name in others:
        del weights[name]
    return _part(finished, key_table, weights), _part(finished, key_table, losses)


def _require_kind(table: CellTable, kinds: Mapping[str, str], kind: str, forms: str) -> None:
    if kind not in kinds.values():
        raise table.fault(
            f"no column of a {kind}, such as {forms}; rename them, or give two tables: W.csv"
            " of weights and L.csv of losses"
        )


def _key_table(keys: Mapping[str, pl.Series], rows: int) -> pl.DataFrame:
    """Return the columns that name rows; row numbers if none names each row once."""
    complete = {key: cells for key, cells in keys.items() if "" not in cells}
    for cells in complete.values():
        if cells.n_unique() == rows:
            return pl.DataFrame(complete)
    return pl.DataFrame({KEYS[0]: [str(row) for row in range(rows)]})


def _part(table: CellTable, keys: pl.DataFrame, columns: Mapping[str, str]) -> CellTable:
    """Return the keys beside some columns under their plain names."""
    cells = table.cells.select(list(columns)).rename(columns)
    return replace(table, cells=keys.hstack(cells))


def _plain(name: str) -> str:
    """Return a column's name without a tracker's prefix or the path of nested weights."""
    nested = NESTED.match(name)
    if nested:
        return name[nested.end() :]
    for prefix in TRACKER_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _kind(name: str) -> str:
    """Return `size`, `weight` or `loss`; else ""."""
    if name in (*SIZE, SCHEDULE) or name.startswith(PHASE):
        return "size"
    if name.startswith(WEIGHTS):
        return "weight"
    if name.startswith((*LOSSES, TASK)) or name.endswith(LOSS_ENDS):
        return "loss"
    return ""


def _ended(table: CellTable) -> CellTable:
    """Return the finished runs, if a column has their status."""
    states = [name for name in table.cells.columns if name.lower() in STATES]
    if not states:
        return table
    state = states[0]
    cells = table.column(state)
    rows = [row for row, cell in enumerate(cells) if cell.lower() in FINISHED]
    if not rows:
        raise table.fault(f"{state}: no run has finished (found {listed(cells[:1])})")
    dropped = len(cells) - len(rows)
    if dropped:
        table.note(f"left out {dropped} of {len(cells)} runs, whose {state} is not finished")
    return table.take(rows)
