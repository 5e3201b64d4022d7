"""The integer arithmetic of the order: shares, exact splits, permutations, plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sampling.order.fair_queue import FairQueue as FairQueue
    from mixopt.sampling.order.permutation import (
        ChunkedRowOrder as ChunkedRowOrder,
        RowOrder as RowOrder,
        domain_key as domain_key,
        window_order as window_order,
    )
    from mixopt.sampling.order.pieces import (
        Exhausted as Exhausted,
        Origin as Origin,
        RampEnd as RampEnd,
        ShareChange as ShareChange,
        ShareLine as ShareLine,
    )
    from mixopt.sampling.order.plan import DrawPlan as DrawPlan
    from mixopt.sampling.order.shares import UNIT as UNIT, whole_shares as whole_shares
    from mixopt.sampling.order.timeline import Timeline as Timeline
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "fair_queue": ["FairQueue"],
            "permutation": ["ChunkedRowOrder", "RowOrder", "domain_key", "window_order"],
            "pieces": ["Exhausted", "Origin", "RampEnd", "ShareChange", "ShareLine"],
            "plan": ["DrawPlan"],
            "shares": ["UNIT", "whole_shares"],
            "timeline": ["Timeline"],
        },
    )
