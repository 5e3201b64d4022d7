"""`schedule: FILE` of a pretraining run: copy the file's content into the configuration.

The recorded configuration has the schedule in full, so that a resumed run does not depend on
a file that may have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mixopt.errors import SamplerError
from mixopt.sampling import Schedule

_LENGTHS = ("steps", "batch", "sequence_length")
_WHERE = "the schedule of the run"


def with_schedule(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration with those of the schedule that it names.

    Args:
        values: As a file has them; `schedule` is the name of a file.

    Raises:
        SamplerError: The schedule cannot be right.
    """
    schedule = Schedule.from_file(str(values["schedule"]))
    training = values.get("training")
    if isinstance(training, dict):
        said = {name: getattr(schedule, name) for name in _LENGTHS}
        training = {**said, **training}
    content = {n: v for n, v in schedule.to_json().items() if n != "provenance"}
    found = {**values, "training": training, "schedule": [], "staged": content}
    if schedule.max_epochs is not None:
        found.setdefault("max_epochs", schedule.max_epochs)
    return found


def schedule_of(staged: object) -> Schedule:
    """Return the schedule that a configuration has in full.

    Raises:
        SamplerError: It cannot be right.
    """
    return Schedule.from_content(staged, _WHERE)


def disagreements(
    schedule: Schedule, training: Mapping[str, Any]
) -> Iterable[tuple[tuple[str, str], str]]:
    """Yield what `training` says otherwise than the schedule.

    Args:
        schedule: The schedule.
        training: The section as it is.
    """
    for name in _LENGTHS:
        given, here = training[name], getattr(schedule, name)
        if given != here:
            ends = name == "steps" and given > here
            what = f"the schedule ends before, after {here}" if ends else f"the schedule has {here}"
            yield ("training", name), f"{given}, and {what}; leave it out"


def staged_fault(staged: object) -> str | None:
    """Return what is wrong with a schedule in full; None where it is right."""
    try:
        schedule_of(staged)
    except SamplerError as error:
        return str(error)
    return None
