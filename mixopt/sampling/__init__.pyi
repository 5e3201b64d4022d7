from .forecast import (
    ScheduleForecast as ScheduleForecast,
    StageDraw as StageDraw,
    simulate_schedule as simulate_schedule,
)
from .learning_rate import (
    RATE_CURVES as RATE_CURVES,
    RateCurve as RateCurve,
    RateCurveName as RateCurveName,
    RateShape as RateShape,
)
from .order import Unit as Unit
from .permutation import (
    RowOrder as RowOrder,
    domain_key as domain_key,
    window_order as window_order,
)
from .ranks import (
    check_ranks as check_ranks,
    deal_to_rank as deal_to_rank,
    refuse_second_split as refuse_second_split,
)
from .sampler import LogEntry as LogEntry, MixtureSampler as MixtureSampler
from .sampler_input import Weights as Weights, at_least as at_least
from .schedule import (
    Schedule as Schedule,
    ScheduleEntry as ScheduleEntry,
    is_schedule as is_schedule,
)
from .stage import Stage as Stage
