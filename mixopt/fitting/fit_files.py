"""Files of a saved fit.

    fit/
      fit.json             the choice, the objective, fingerprints, hashes of the other files
      report.parquet       every predictor on held-out folds
      held_out.parquet     every held-out prediction
      trials.parquet       the trials that were fitted
      pilots.parquet       the pilots, if any
      carried.parquet      trials of an earlier corpus, if any
      regressor/           the fitted regressor, if it can be written without pickle

A regressor that cannot be written is fitted again when the folder is read, with the same seed on
the same trials.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from mixopt.errors import RunError
from mixopt.fitting.fit_data import FitData, ModelSize
from mixopt.fitting.regressor import Predictor, Repetition, read_regressor, supports_saving
from mixopt.objective import Objective
from mixopt.system import (
    FileRecord,
    FileShape,
    Trust,
    Verifier,
    check_trusted,
    folder_records,
    read_json,
    read_sealed,
    read_table,
    write_sealed,
    write_table,
)
from mixopt.trials import Trials

FORMAT = "mixopt-fit/6"
HINT = "fit again"
REPORT = "report.parquet"
HELD_OUT = "held_out.parquet"
TRIALS = "trials.parquet"
PILOTS = "pilots.parquet"
CARRIED = "carried.parquet"
REGRESSOR = "regressor"  # a folder
REQUIRED_FILES = (REPORT, HELD_OUT, TRIALS)
FILES = (REPORT, HELD_OUT, TRIALS, PILOTS, CARRIED, REGRESSOR)


class FitShape(FileShape):
    """Content of fit.json without its seal."""

    format: str
    regressor: str
    saved: bool
    folds: int = Field(ge=2, le=10_000)
    seed: int = Field(ge=0, lt=1 << 63)
    objective: Objective
    size: ModelSize | None
    repetition: Repetition | None
    files: dict[str, FileRecord]


def write_fit(
    path: Path,
    name: str,
    fitted: Predictor,
    data: FitData,
    report: pl.DataFrame,
    held_out: pl.DataFrame,
    size: ModelSize | None,
    pilots: Trials | None,
) -> None:
    """Write a fit to a folder; fit.json, with the hashes of all other files, is written last."""
    write_table(path / REPORT, report)
    write_table(path / HELD_OUT, held_out)
    _replace_trials(path / TRIALS, data.trials)
    _replace_trials(path / PILOTS, pilots)
    _replace_trials(path / CARRIED, data.carried)
    shutil.rmtree(path / REGRESSOR, ignore_errors=True)  # of an earlier fit
    if supports_saving(fitted):
        fitted.save(path / REGRESSOR)
    records = folder_records(path, FILES)
    content = {
        "format": FORMAT,
        "regressor": name,
        "saved": supports_saving(fitted),
        "folds": data.folds,
        "seed": data.seed,
        "objective": data.objective.to_json(),
        "size": size and asdict(size),
        "repetition": data.repetition and asdict(data.repetition),
        "files": {name: vars(record) for name, record in records.items()},
    }
    write_sealed(path / "fit.json", content)


def _replace_trials(file: Path, trials: Trials | None) -> None:
    """Write trials in place of those of an earlier fit."""
    file.unlink(missing_ok=True)
    if trials is not None:
        trials.write(file)


def read_fit(path: Path, trust: Trust) -> dict[str, Any]:
    """Read the fields of a fit."""
    content = fit_content(path)
    name = content.regressor
    check_trusted("regressor", name, str(path / "fit.json"), trust)
    carried = None
    if CARRIED in content.files:
        carried = Trials.read(path / CARRIED)
    pilots = None
    if PILOTS in content.files:
        pilots = Trials.read(path / PILOTS)
    data = FitData(
        Trials.read(path / TRIALS),
        content.objective,
        folds=content.folds,
        seed=content.seed,
        repetition=content.repetition,
        carried=carried,
    )
    if content.saved:
        fitted = read_regressor(name, path / REGRESSOR, data.make(name))
    else:
        fitted = data.fitted(name)
    return {
        "name": name,
        "fitted": fitted,
        "data": data,
        "report": read_table(path / REPORT, hint=HINT),
        "held_out": read_table(path / HELD_OUT, hint=HINT),
        "size": content.size,
        "pilots": pilots,
    }


def fit_content(path: Path) -> FitShape:
    """Read fit.json, and check all files against its hashes."""
    file = path / "fit.json"
    content = read_json(file)
    file_format = content.get("format") if isinstance(content, dict) else None
    if file_format != FORMAT:
        raise RunError(f"{file}: format {file_format!r}, not {FORMAT!r}; {HINT}")
    shape: FitShape = read_sealed(file, FitShape, hint=HINT)
    for name, fault in Verifier(path).faults(shape.files).items():
        raise RunError(f"{path / name}: {fault}; {HINT}")
    for name in REQUIRED_FILES:
        if name not in shape.files:
            raise RunError(f"{path / name}: is not part of this fit; {HINT}")
    return shape


def held_out_report(path: Path) -> tuple[str, pl.DataFrame]:
    """Return the chosen regressor's name, and the report."""
    return fit_content(path).regressor, read_table(path / REPORT, hint=HINT)
