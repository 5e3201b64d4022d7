from .alignment import gradient_alignment as gradient_alignment
from .contract import (
    Estimator as Estimator,
    HeldOut as HeldOut,
    Need as Need,
    Observation as Observation,
    Plan as Plan,
    Setting as Setting,
    make_estimator as make_estimator,
)
from .driver import Driver as Driver
from .held_out import held_out_losses as held_out_losses
from .logged_changes import (
    MIXTURE_LOG as MIXTURE_LOG,
    LoggedChange as LoggedChange,
    read_changes as read_changes,
)
from .mixture_log import MixtureLog as MixtureLog
from .run_setting import DriverOptions as DriverOptions
from .sums import (
    COUNT as COUNT,
    LOSS as LOSS,
    ROWS as ROWS,
    UNIT as UNIT,
    DomainLosses as DomainLosses,
    Reduction as Reduction,
    is_first as is_first,
)
from .training_history import TrainingHistory as TrainingHistory, read_history as read_history
