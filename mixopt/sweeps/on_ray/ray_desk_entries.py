"""Records of a desk: each group handed in, and each place that trains."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from mixopt.sweeps.on_ray.ray_cluster import ClusterNode


@dataclass(eq=False)
class DeskPlace:
    """An actor that trains.

    Attributes:
        actor: Its handle.
        node: Where it is; None until Ray has found room for it.
        kind: Of device.
        task: What serves it.
    """

    actor: Any
    node: ClusterNode | None = None
    kind: str = "cpu"
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def told(self, gpus: float) -> dict[str, Any]:
        """Return where it is, as plain values; with so many GPUs."""
        assert self.node is not None
        return {"node": self.node.name, "kind": self.kind, "gpus": gpus}


@dataclass(eq=False)
class DeskEntry:
    """A group that was handed in.

    Attributes:
        key: What its owner calls it.
        trials: Its members, as plain values.
        place: Where it trains; None while it waits, and when it has ended.
        progress: What was last heard of it.
        outcome: What became of it.
    """

    key: str
    trials: list[Any]
    place: DeskPlace | None = None
    progress: list[Any] | None = None
    outcome: dict[str, Any] | None = None

    @property
    def waits(self) -> bool:
        """Whether no place has it."""
        return self.outcome is None and self.place is None

    def told(self, gpus: float) -> dict[str, Any]:
        """Return its progress and where it is, as plain values."""
        assert self.place is not None
        return {
            "progress": self.progress or [0, 0, "starting"],
            "place": self.place.told(gpus),
        }

    def state(self, gpus: float) -> dict[str, Any]:
        """Return what it does (mixopt.sweeps.GroupState), as plain values."""
        names = [trial["name"] for trial in self.trials]
        shown: dict[str, Any] = {"trials": names, "tokens_per_second": None}
        if self.place is None:
            return {**shown, "doing": "starting", "done": 0, "total": 0}
        told = self.told(gpus)
        done, total, doing = told["progress"]
        return {**shown, **told["place"], "doing": doing, "done": done, "total": total}

    def lost(self, reason: str, size: int, gpus: float, *, memory: bool) -> dict[str, Any]:
        """Return the outcome of a group whose place has died.

        Args:
            reason: What is known.
            size: How many trials the place trained together.
            gpus: Of the place.
            memory: Whether it was ended because memory was short.
        """
        return {
            "results": [],
            "reason": reason,
            "fault": "memory" if memory else "lost",
            "seconds": 0.0,
            "files": {},
            "trained": min(size, len(self.trials)),
            "place": self.told(gpus)["place"],
        }
