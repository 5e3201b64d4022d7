"""Hooks into torch models that count which experts serve which domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.routing.counters.adapters import (
        FoundRouter as FoundRouter,
        RouterAdapter as RouterAdapter,
    )
    from mixopt.routing.counters.counting import Counting as Counting
    from mixopt.routing.counters.finding import (
        find_routers as find_routers,
        suspected_experts as suspected_experts,
    )
    from mixopt.routing.counters.open_batch import token_domains as token_domains
    from mixopt.routing.counters.probe import Probe as Probe
    from mixopt.routing.counters.reduction import Expected as Expected
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "adapters": ["FoundRouter", "RouterAdapter"],
            "counting": ["Counting"],
            "finding": ["find_routers", "suspected_experts"],
            "open_batch": ["token_domains"],
            "probe": ["Probe"],
            "reduction": ["Expected"],
        },
    )
