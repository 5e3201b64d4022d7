from .batch_rows import BatchRows as BatchRows
from .forecast import (
    simulate_proposal as simulate_proposal,
    simulation_json as simulation_json,
    simulation_lines as simulation_lines,
)
from .order.permutation import (
    RowOrder as RowOrder,
    domain_key as domain_key,
    window_order as window_order,
)
from .rank_agreement import check_now_and_then as check_now_and_then, check_ranks as check_ranks
from .rate_curve import (
    RATE_CURVES as RATE_CURVES,
    RateCurve as RateCurve,
    RateCurveName as RateCurveName,
    RateShape as RateShape,
)
from .sample_lengths import SampleLengths as SampleLengths, Unit as Unit
from .sample_order import SampleOrder as SampleOrder
from .sampler import MixtureSampler as MixtureSampler
from .sampler_input import Weights as Weights, at_least as at_least
from .sampler_log import LogEntry as LogEntry
from .schedule import Schedule as Schedule, ScheduleEntry as ScheduleEntry, Stage as Stage
from .schedule_file import is_schedule as is_schedule
from .schedule_forecast import (
    ScheduleForecast as ScheduleForecast,
    simulate_schedule as simulate_schedule,
)
from .second_split import refuse_second_split as refuse_second_split
from .token_order import TokenBatches as TokenBatches
