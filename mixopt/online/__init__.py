"""Change the mixture while training runs: estimators, and the driver for any training loop.

The contract (`Setting`, `Plan`, `Observation`, `Estimator`) is numpy alone; the driver needs torch
and is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.online.alignment import gradient_alignment as gradient_alignment
    from mixopt.online.contract import (
        Estimator as Estimator,
        HeldOut as HeldOut,
        Need as Need,
        Observation as Observation,
        Plan as Plan,
        Setting as Setting,
        make_estimator as make_estimator,
    )
    from mixopt.online.driver import Driver as Driver
    from mixopt.online.held_out import held_out_losses as held_out_losses
    from mixopt.online.logged_changes import (
        MIXTURE_LOG as MIXTURE_LOG,
        LoggedChange as LoggedChange,
        read_changes as read_changes,
    )
    from mixopt.online.mixture_log import MixtureLog as MixtureLog
    from mixopt.online.run_setting import DriverOptions as DriverOptions
    from mixopt.online.sums import (
        COUNT as COUNT,
        LOSS as LOSS,
        ROWS as ROWS,
        UNIT as UNIT,
        DomainLosses as DomainLosses,
        Reduction as Reduction,
        is_first as is_first,
    )
    from mixopt.online.training_history import (
        TrainingHistory as TrainingHistory,
        read_history as read_history,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "alignment": ["gradient_alignment"],
            "contract": [
                "Estimator",
                "HeldOut",
                "Need",
                "Observation",
                "Plan",
                "Setting",
                "make_estimator",
            ],
            "driver": ["Driver"],
            "held_out": ["held_out_losses"],
            "logged_changes": ["LoggedChange", "MIXTURE_LOG", "read_changes"],
            "mixture_log": ["MixtureLog"],
            "run_setting": ["DriverOptions"],
            "sums": ["COUNT", "DomainLosses", "LOSS", "ROWS", "Reduction", "UNIT", "is_first"],
            "training_history": ["TrainingHistory", "read_history"],
        },
    )
