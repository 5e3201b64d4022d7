"""The experts of a run directory, whatever run it is of: what `mixopt experts` calls."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from mixopt.errors import RoutingError
from mixopt.reporting.expert_figures import write_figures
from mixopt.reporting.expert_options import ExpertOptions
from mixopt.reporting.experts_of_pretraining import PretrainingExperts
from mixopt.reporting.experts_of_sweep import SweepExperts
from mixopt.system import check_links

FIGURES = "figures"
RunExperts: TypeAlias = PretrainingExperts | SweepExperts


def experts(
    directory: str | Path, options: ExpertOptions | None = None, *, trust: bool = False
) -> RunExperts:
    """Read what a run recorded of its experts.

    Args:
        directory: Of a sweep or of a pretraining, also while it runs.
        options: Other thresholds, ranks or steps.
        trust: Follow links that lead out of the directory.

    Returns:
        Something that prints as a summary, and has `as_dict()`, `summary` and `figures()`.

    Raises:
        RoutingError: There is no such directory, nothing in it is about experts, a file cannot be
            read, or what is asked cannot be.
    """
    path = Path(directory)
    if not path.is_dir():
        raise RoutingError(f"{path}: no such directory; give that of a sweep or a pretraining")
    if not trust:
        check_links(path, RoutingError)
    found: RunExperts | None = PretrainingExperts.read(path, options)
    found = found or SweepExperts.read(path, options, trust=trust)
    if found is None:
        raise RoutingError(
            f"{path}: nothing is recorded about experts: the model has none, or no trial or window"
            " of steps is finished; a sweep has them with proxy.options.size: moe-tiny, a"
            " pretraining with a model such as olmoe"
        )
    return found


def draw_experts(found: RunExperts) -> list[Path]:
    """Write the figures into the folder `figures` of the run directory; return the files.

    Raises:
        RunError: The folder cannot be written.
    """
    return write_figures(found.figures(), found.path / FIGURES)
