"""A stand-in for Ray: tasks run one after the other in a thread of this process."""

from __future__ import annotations

import concurrent.futures
from types import ModuleType, SimpleNamespace


class RayError(Exception):
    """What Ray raises."""


class OutOfMemoryError(RayError):
    """A worker was ended for memory."""


def stand_in_ray() -> ModuleType:
    """Return the module, of a cluster of one node with one CPU."""
    pool = concurrent.futures.ThreadPoolExecutor(1)

    def remote(function):
        submit = SimpleNamespace(remote=lambda *given: pool.submit(function, *given))
        return SimpleNamespace(options=lambda **_: submit)

    def wait(tasks, num_returns, timeout):
        concurrent.futures.wait(tasks, timeout=timeout)
        return [one for one in tasks if one.done()], [one for one in tasks if not one.done()]

    ray = ModuleType("ray")
    ray.exceptions = SimpleNamespace(RayError=RayError, OutOfMemoryError=OutOfMemoryError)
    ray.remote, ray.wait = remote, wait
    ray.get = lambda task, timeout: task.result(timeout)
    ray.cancel = lambda task, force: task.cancel()
    ray.is_initialized = lambda: True
    ray.cluster_resources = lambda: {"CPU": 1.0}
    return ray
