"""The folder of a fit.

    fit/
      fit.json             the choice, the objective, fingerprints
      report.parquet       mixopt.fitting.fit_report
      held_out.parquet     every held-out prediction
      trials.parquet       the trials that were fitted
      pilots.parquet       the pilots, where there are some; their correction is in fit.json
      regressor/           the fitted regressor, where it can be written without pickle

A regressor that cannot be written is fitted again, with the same seed on the same trials, when
the folder is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from mixopt.errors import RunError
from mixopt.system import read_json, replacing
from mixopt.trials import Trials, trials_fingerprint

FORMAT = "mixopt-fit/1"


def write_tables(path: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write each table into the folder, under its name."""
    for name, table in tables.items():
        with replacing(path / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)


def read_content(path: Path) -> dict[str, Any]:
    """Read fit.json.

    Raises:
        RunError: The folder holds no fit, or one of another format.
    """
    content: dict[str, Any] = read_json(path / "fit.json")
    if content.get("format") != FORMAT:
        raise RunError(f"{path / 'fit.json'}: format {content.get('format')!r}, not {FORMAT!r}")
    return content


def read_trials(path: Path, fingerprint: str) -> Trials:
    """Read the trials that were fitted.

    Raises:
        RunError: They are others than those of this fingerprint.
    """
    trials = Trials.read(path / "trials.parquet")
    if trials_fingerprint(trials) != fingerprint:
        raise RunError(f"{path}: trials.parquet is not what was fitted; fit again")
    return trials


def read_table(path: Path) -> pl.DataFrame:
    """Read one table of the folder.

    Raises:
        RunError: It is missing or broken.
    """
    try:
        return pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(
            f"{path}: cannot be read: {' '.join(str(error).split())}; fit again"
        ) from error
