"""A proxy whose trials all begin with one checkpoint and anneal on their mixture: midtraining."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_proxies.continued.continued_proxy import ContinuedProxy as ContinuedProxy
else:
    __getattr__, __dir__ = lazy_names(__name__, {"continued_proxy": ["ContinuedProxy"]})
