"""Train groups on a cluster of Ray: the executor, its desk, places on nodes, the corpus by hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sweeps.on_ray.ray_executor import RayExecutor as RayExecutor
else:
    __getattr__, __dir__ = lazy_names(__name__, {"ray_executor": ["RayExecutor"]})
