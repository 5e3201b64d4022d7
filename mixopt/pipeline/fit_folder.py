"""The folder that `mixopt fit --out` leaves: `trials.parquet` and `fit/`.

A run directory has both too, so what reads one reads the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mixopt.errors import MixoptError, RunError
from mixopt.run_directory import CheckedPart
from mixopt.system import check_links, visible_files

if TYPE_CHECKING:
    from mixopt.fitting import Fit
    from mixopt.trials import Trials


def check_fit_folder(out: str | Path) -> None:
    """Check that a fit from tables may be written into a folder.

    Raises:
        RunError: It is the directory of a run.
    """
    if (Path(out) / "config.yaml").exists():
        raise RunError(f"{out}: is a run directory; use another --out")


def write_fit_folder(out: str | Path, trials: Trials, fit: Fit) -> None:
    """Write trials and their fit, from which proposals are made later.

    Args:
        out: The folder; it must not hold a run.
        trials: The whole table, those that did not finish included.
        fit: What was fitted to it.

    Raises:
        RunError: The folder is a run directory, or cannot be written.
    """
    check_fit_folder(out)
    trials.with_targets(fit.targets).write(Path(out) / "trials.parquet")
    fit.save(Path(out) / "fit")


def load_fit(directory: str | Path, *, trust: bool = False) -> Fit:
    """Read the fit of a run directory, of a folder that `mixopt fit` made, or that `Fit.save` made.

    Args:
        directory: The directory.
        trust: Whether its maker is trusted: code that it names is imported, and links that lead
            out of it are followed. Or the names of regressors that may be imported.

    Raises:
        RunError: There is none, or it is not what was written.
        PluginError: It names code and is not trusted.
    """
    from mixopt.fitting import Fit

    directory = Path(directory)
    if not trust:
        check_links(directory)
    for path in (directory / "fit", directory):
        if (path / "fit.json").exists():
            return Fit.load(path, trust=trust)
    raise RunError(
        f"{directory}: contains no fit; make one: mixopt run CONFIG --out {directory}, or"
        f" mixopt fit --mixtures W.csv --losses L.csv --out {directory}"
    )


def verify_fit_folder(directory: Path) -> list[CheckedPart]:
    """Check a folder that `mixopt fit` made from tables; a fit that is whole is also read.

    Raises:
        RunError: There is no fit in it.
    """
    from mixopt.fitting import check_fit_files

    path = directory / "fit" if (directory / "fit").is_dir() else directory
    if not (path / "fit.json").exists():
        raise RunError(f"{directory}: contains neither a run nor a fit; nothing to verify")
    files = visible_files(path)
    size = sum(file.stat().st_size for file in files)
    try:
        check_fit_files(path)
    except MixoptError as error:
        file, _, what = str(error).partition(": ")
        mend = "mixopt fit --mixtures W.csv --losses L.csv --out DIR"
        return [CheckedPart("fit", "damaged", len(files), size, {file: what}, mend)]
    return [CheckedPart("fit", "whole", len(files), size)]
