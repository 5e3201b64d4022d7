from .fair_queue import FairQueue as FairQueue
from .permutation import (
    ChunkedRowOrder as ChunkedRowOrder,
    RowOrder as RowOrder,
    domain_key as domain_key,
    window_order as window_order,
)
from .pieces import (
    Exhausted as Exhausted,
    Origin as Origin,
    RampEnd as RampEnd,
    ShareChange as ShareChange,
    ShareLine as ShareLine,
)
from .plan import DrawPlan as DrawPlan
from .shares import UNIT as UNIT, whole_shares as whole_shares
from .timeline import Timeline as Timeline
