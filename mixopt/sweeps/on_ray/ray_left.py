"""Work that a Ray cluster still does for a sweep whose owner is gone, and how to end it.

The desk of a sweep (on_ray.ray_desk) is found by its name, which follows from the folder of
the trials and from the mark in it: a folder without a mark has never had a desk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mixopt.errors import RunError
from mixopt.sweeps.on_ray.ray_cluster import NAMESPACE, connect, import_ray, one_line
from mixopt.sweeps.on_ray.ray_setup import MARK, desk_name
from mixopt.sweeps.progress_file import GroupState
from mixopt.system import checked_as

ANSWER = 30.0  # seconds for a desk to answer one who only looks


def groups_left(folder: Path, options: Mapping[str, Any]) -> list[GroupState]:
    """Return what the desk of a folder of trials has trained, or will have.

    Raises:
        RunError: The cluster is not reached, or does not answer.
        PluginError: Ray is not installed.
    """
    with _desk(folder, options) as desk:
        if desk is None:
            return []
        ray = import_ray()
        try:
            told = ray.get(desk.groups.remote(), timeout=ANSWER)
        except (ray.exceptions.RayError, AttributeError) as error:
            raise RunError(
                f"Ray: the desk of the sweep does not answer: {one_line(error)}"
            ) from error
        return [checked_as(GroupState, entry, "the desk's answer") for entry in told]


def end_desk(folder: Path, options: Mapping[str, Any]) -> list[str]:
    """End the desk of a folder of trials, and all that it has started.

    Returns:
        A line that reports it; none where there is no desk.

    Raises:
        RunError: The cluster is not reached.
        PluginError: Ray is not installed.
    """
    with _desk(folder, options) as desk:
        if desk is None:
            return []
        dismiss(desk)
        return ["Ray: the desk of the sweep and its workers were ended"]


def dismiss(desk: Any) -> None:
    """End a desk, and all that it has started."""
    ray = import_ray()
    with suppress(Exception):
        ray.get(desk.close.remote(), timeout=10)
    ray.kill(desk)


@contextmanager
def _desk(folder: Path, options: Mapping[str, Any]) -> Iterator[Any | None]:
    """Give the handle of a desk; None where there is none."""
    if not (folder / MARK).exists():
        yield None
        return
    ray = import_ray()
    connected = connect(str(options.get("address", "auto")))
    try:
        try:
            desk = ray.get_actor(desk_name(folder), namespace=NAMESPACE)
        except ValueError:
            desk = None
        yield desk
    finally:
        if connected:
            ray.shutdown()
