"""One table of runs with weights and losses side by side: what MLflow and W&B export as CSV.

MLflow has `params.weight/web` and `metrics.loss/web` beside `run_id` and `status` (`search_runs`),
or plain names beside `Run ID` and `Status` (its page); W&B has plain names beside `Name`, `ID` and
`State`. Columns are taken for weights or losses by how they begin or end (WEIGHTS, LOSSES), what
else was logged is left out and counted, and so are runs that did not finish. Runs are named by the
first column of NAMES that differs in every row, else by their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mixopt.config import TASK
from mixopt.errors import TrialsError
from mixopt.trials.cell_table import CellTable
from mixopt.trials.columns import BPB, LOSS, WEIGHT, listed
from mixopt.trials.published_tables import PHASE, SCHEDULE, SIZE

TRACKER_PREFIXES = ("params.", "metrics.", "config.", "config/", "summary.", "summary/")
WEIGHTS = (
    WEIGHT,
    "weights/",
    "weight_",
    "weights.",
    "weight.",
    "ratio_",
    "train_",
    "mixture/",
    "w_",
)
LOSSES = (LOSS, "loss_", "loss.", BPB, "metric/", "metric_", "valid_", "eval/", TASK)
LOSS_ENDS = ("_loss", "/loss", "_bpb")
NAMES = ("run_id", "run id", "trial", "run", "index", "id", "name")
STATES, FINISHED = ("status", "state"), ("finished", "completed", "success")
KEY = "run"


def split_export(table: CellTable) -> tuple[CellTable, CellTable, list[str]]:
    """Return the weights and the losses of finished runs as two tables, and notes.

    Raises:
        TrialsError: No weights or no losses among the columns, or no run that finished.
    """
    names = [_plain(name) for name in table.header]
    kinds = [_kind(name) for name in names]
    for kind, forms, file in (
        ("weight", f"{WEIGHT}web, w_web or ratio_web", "W.csv"),
        ("loss", f"{LOSS}code, code_loss or metric_code", "L.csv"),
    ):
        if kind not in kinds:
            raise TrialsError(
                f"{table.path}: no column of a {kind}, such as {forms}; rename them, or give two"
                f" tables: W.csv of weights and L.csv of losses, of which this may be {file}"
            )
    kept, notes = _finished(table)
    keys = _keys(kept)
    others = [
        n for n, kind in zip(names, kinds, strict=True) if not kind and n.lower() not in NAMES
    ]
    if others:
        notes.append(f"{table.path}: neither weight nor loss, left out: {listed(others)}")
    return (
        _columns(kept, keys, names, [kind in ("weight", "size") for kind in kinds]),
        _columns(kept, keys, names, [kind == "loss" for kind in kinds]),
        notes,
    )


def _plain(name: str) -> str:
    prefix = next((one for one in TRACKER_PREFIXES if name.startswith(one)), "")
    return name.removeprefix(prefix)


def _kind(name: str) -> str:
    if name in (*SIZE, SCHEDULE) or name.startswith(PHASE):
        return "size"
    if name.startswith(WEIGHTS):
        return "weight"
    return "loss" if name.startswith(LOSSES) or name.endswith(LOSS_ENDS) else ""


def _finished(table: CellTable) -> tuple[CellTable, list[str]]:
    state = next((name for name in table.header if name.lower() in STATES), None)
    if state is None:
        return table, []
    cells = table.column(state)
    rows = [row for row, cell in enumerate(cells) if cell.lower() in FINISHED]
    if not rows:
        raise TrialsError(f"{table.path}: {state}: no run has finished (found {listed(cells[:1])})")
    gone = len(cells) - len(rows)
    note = f"{table.path}: left out {gone} of {len(cells)} runs, whose {state} is not finished"
    return table.take(rows), [note] if gone else []


def _keys(table: CellTable) -> list[str]:
    """Return a name for each run."""
    own = {name.lower(): name for name in table.header}
    for name in NAMES:
        cells = table.column(own[name]) if name in own else []
        if cells and "" not in cells and len(set(cells)) == len(cells):
            return cells
    return [str(row) for row in range(len(table.rows))]


def _columns(
    table: CellTable, keys: Sequence[str], names: Sequence[str], kept: Sequence[bool]
) -> CellTable:
    places = [place for place, keep in enumerate(kept) if keep]
    rows = [
        (key, *(row[place] for place in places)) for key, row in zip(keys, table.rows, strict=True)
    ]
    header = (KEY, *(names[place] for place in places))
    return replace(table, header=header, rows=tuple(rows))
