"""From weights to the order of samples: exact, resumable, and numpy alone.

`mixopt.sampling.order` is the integer arithmetic behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.sampling.batch_rows import (
        BatchRows as BatchRows,
    )
    from mixopt.sampling.batch_sizes import (
        BatchSizes as BatchSizes,
        BatchSpan as BatchSpan,
    )
    from mixopt.sampling.forecast import (
        simulate_proposal as simulate_proposal,
        simulation_json as simulation_json,
        simulation_lines as simulation_lines,
    )
    from mixopt.sampling.order.permutation import (
        RowOrder as RowOrder,
        domain_key as domain_key,
        window_order as window_order,
    )
    from mixopt.sampling.rank_agreement import (
        check_now_and_then as check_now_and_then,
        check_ranks as check_ranks,
    )
    from mixopt.sampling.rate_curves import (
        RATE_CURVES as RATE_CURVES,
        RateCurve as RateCurve,
        RateCurveName as RateCurveName,
    )
    from mixopt.sampling.rate_phases import (
        PHASES as PHASES,
        RATE_SHAPES as RATE_SHAPES,
        Phase as Phase,
        RateShape as RateShape,
    )
    from mixopt.sampling.sample_lengths import (
        SampleLengths as SampleLengths,
        Unit as Unit,
    )
    from mixopt.sampling.sample_order import (
        SampleOrder as SampleOrder,
    )
    from mixopt.sampling.sampler import (
        MixtureSampler as MixtureSampler,
    )
    from mixopt.sampling.sampler_input import (
        Weights as Weights,
        at_least as at_least,
    )
    from mixopt.sampling.sampler_log import (
        LogEntry as LogEntry,
    )
    from mixopt.sampling.schedule import (
        LengthSpan as LengthSpan,
        Schedule as Schedule,
        ScheduleEntry as ScheduleEntry,
    )
    from mixopt.sampling.schedule_fields import (
        is_schedule as is_schedule,
    )
    from mixopt.sampling.schedule_forecast import (
        ScheduleForecast as ScheduleForecast,
        simulate_schedule as simulate_schedule,
    )
    from mixopt.sampling.second_split import (
        refuse_second_split as refuse_second_split,
    )
    from mixopt.sampling.stage import (
        Stage as Stage,
    )
    from mixopt.sampling.token_order import (
        TokenBatches as TokenBatches,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "batch_rows": ["BatchRows"],
            "batch_sizes": ["BatchSizes", "BatchSpan"],
            "forecast": ["simulate_proposal", "simulation_json", "simulation_lines"],
            "order.permutation": ["RowOrder", "domain_key", "window_order"],
            "rank_agreement": ["check_now_and_then", "check_ranks"],
            "rate_curves": ["RATE_CURVES", "RateCurve", "RateCurveName"],
            "rate_phases": ["PHASES", "RATE_SHAPES", "Phase", "RateShape"],
            "sample_lengths": ["SampleLengths", "Unit"],
            "sample_order": ["SampleOrder"],
            "sampler": ["MixtureSampler"],
            "sampler_input": ["Weights", "at_least"],
            "sampler_log": ["LogEntry"],
            "schedule": ["LengthSpan", "Schedule", "ScheduleEntry"],
            "schedule_fields": ["is_schedule"],
            "schedule_forecast": ["ScheduleForecast", "simulate_schedule"],
            "second_split": ["refuse_second_split"],
            "stage": ["Stage"],
            "token_order": ["TokenBatches"],
        },
    )
