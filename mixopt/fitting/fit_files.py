"""The folder of a fit.

    fit/
      fit.json             the choice, the objective, fingerprints, hashes of the other files
      report.parquet       mixopt.fitting.competition
      held_out.parquet     every held-out prediction
      trials.parquet       the trials that were fitted
      pilots.parquet       the pilots, where there are some
      carried.parquet      trials of an earlier corpus, where there are some
      regressor/           the fitted regressor, where it can be written without pickle

A regressor that cannot be written is fitted again, with the same seed on the same trials, when
the folder is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from mixopt.errors import RunError
from mixopt.fitting.fit_data import FitData, ModelSize
from mixopt.fitting.held_out import COLUMNS as HELD_OUT_COLUMNS, SCHEMA as REPORT_COLUMNS
from mixopt.fitting.regressor import Predictor, Repetition, check_predicts, read_regressor
from mixopt.objective import Objective
from mixopt.system import (
    FileRecord,
    FileShape,
    Verifier,
    folder_records,
    read_json,
    read_sealed,
    read_table,
    write_sealed,
)
from mixopt.trials import Trials, trials_fingerprint

FORMAT = "mixopt-fit/3"
AGAIN = "fit again"
TABLES = ("report.parquet", "held_out.parquet", "trials.parquet")
PILOTS = "pilots.parquet"
CARRIED = "carried.parquet"
FILES = (*TABLES, PILOTS, CARRIED, "regressor")


class FitShape(FileShape):
    """What fit.json says, but for its seal."""

    format: str
    regressor: str
    saved: bool
    folds: int = Field(ge=2, le=10_000)
    seed: int = Field(ge=0, lt=1 << 63)
    trials: str
    domains: list[str]
    objective: Objective
    intervals: dict[str, Any]
    reasons: list[str]
    size: ModelSize | None
    repetition: Repetition | None
    slopes: dict[str, float] | None
    files: dict[str, FileRecord]


def write_content(path: Path, content: Mapping[str, Any]) -> None:
    """Write fit.json, with the hashes of all other files of the folder; it comes last."""
    files = {name: record.to_json() for name, record in folder_records(path, FILES).items()}
    write_sealed(path / "fit.json", {"format": FORMAT, **content, "files": files})


def read_content(path: Path) -> FitShape:
    """Read fit.json, and check the files of the folder against the hashes in it."""
    file = path / "fit.json"
    content = read_json(file)
    given = content.get("format") if isinstance(content, dict) else None
    if given != FORMAT:
        raise RunError(f"{file}: format {given!r}, not {FORMAT!r}; {AGAIN}")
    found: FitShape = read_sealed(file, FitShape, hint=AGAIN)
    for name, fault in Verifier(path).faults(found.files).items():
        raise RunError(f"{path / name}: {fault}; {AGAIN}")
    for name in TABLES if found.slopes is None else (*TABLES, PILOTS):
        if name not in found.files:
            raise RunError(f"{path / name}: is not part of this fit; {AGAIN}")
    return found


def check_fit_files(path: Path) -> None:
    """Check that a folder is unchanged since a fit wrote it, without reading the fit itself."""
    read_trials(path, read_content(path).trials)


def read_trials(path: Path, fingerprint: str) -> Trials:
    """Read the trials that were fitted."""
    trials = Trials.read(path / "trials.parquet")
    if trials_fingerprint(trials) != fingerprint:
        raise RunError(f"{path}: trials.parquet is not what was fitted; {AGAIN}")
    return trials


def held_out_tables(path: Path) -> tuple[str, pl.DataFrame, pl.DataFrame]:
    """Return the chosen regressor's name, the report and the held-out predictions."""
    return read_content(path).regressor, *read_evidence(path)


def read_evidence(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read what is known of a fit's regressors: the report, and the held-out predictions."""
    report = _read_columns(path / "report.parquet", REPORT_COLUMNS)
    return report, _read_columns(path / "held_out.parquet", HELD_OUT_COLUMNS)


def _read_columns(path: Path, columns: Mapping[str, Any]) -> pl.DataFrame:
    table = read_table(path, hint=AGAIN)
    for name, kind in columns.items():
        if table.schema.get(name) != kind:
            raise RunError(f"{path}: {name}: expected a column of {kind}; {AGAIN}")
    return table


def read_fitted(path: Path, name: str, data: FitData, *, saved: bool) -> Predictor:
    """Read the regressor of a fit's folder, and see that it predicts; or fit it again."""
    if not saved:
        return data.fitted(name)
    found = read_regressor(name, path / "regressor", data.make(name))
    check_predicts(str(path), found, data.rows(name, found)[:2], len(data.trials.targets))
    return found
