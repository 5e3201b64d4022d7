"""Which trials of a sweep have experts that collapsed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mixopt.run_directory.step import SWEEP


def collapsed_trials(
    directory: Path, thresholds: Mapping[str, float] | None = None
) -> tuple[str, ...] | None:
    """Return a sweep's trials whose experts have collapsed; None where trials have no experts.

    Args:
        directory: Of the run.
        thresholds: Others than the defaults, by name; they may have changed since the sweep wrote
            its table, so that trials are read again.

    Raises:
        RunError: A file cannot be read.
    """
    from mixopt.routing import Thresholds
    from mixopt.trials import TrialExperts, read_entry

    files = sorted(SWEEP.trial_files(directory)) if thresholds else []
    if thresholds and files:
        limits = Thresholds().with_values(thresholds, "experts.thresholds")
        found = TrialExperts.of((read_entry(file)[1] for file in files), limits)
    else:
        found = TrialExperts.read(SWEEP.experts_file(directory))
    return None if found is None else found.collapsed
